# Cancels anything that an image decoder does, at any moment, in every way that there is: each query ends as cancelled or
# as it would have ended, and nothing is left of it.
use strict;
use warnings;

use ImgpipeTest;
use IPC::Run ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

my $root = $ImgpipeTest::root;
my $node = new_cluster('main', 'imgpipe.max_processors = 0', "imgpipe.decoder_timeout = '60s'", 'jit = off');
my $photo = sample_image('small.jpg');
my $seed = $ENV{CANCEL_SEED} || 1 + int rand 1_000_000;
srand($seed);
note("seed $seed");
$node->safe_psql('postgres', slurp_file("$root/test/fuzz/trial.sql") . qq[
	CREATE TABLE photo AS SELECT imgpipe.process_image(pg_read_binary_file('$photo')::imgpipe.image,
		'resize(width=1500, height=1200, fit=fill, enlarge=true) | jpeg') AS content;
	-- 40 MB, most of it behind the end of the picture
	CREATE TABLE large (content imgpipe.image);
	INSERT INTO large SELECT (content::bytea || decode(repeat('00', 40000000), 'hex'))::imgpipe.image FROM photo;
	CREATE FUNCTION use_decoder() RETURNS integer LANGUAGE sql VOLATILE AS
		'SELECT imgpipe.image_width(imgpipe.thumbnail(content, 7, 7)) FROM photo';
	-- How the command ended, and how many milliseconds after it was to be cancelled.
	CREATE FUNCTION attempt(command text, after integer) RETURNS TABLE (outcome text, late double precision) LANGUAGE plpgsql AS \$\$
	DECLARE
		began timestamptz := clock_timestamp();
	BEGIN
		BEGIN
			EXECUTE command;
			outcome := 'done';
		EXCEPTION WHEN OTHERS OR query_canceled THEN
			outcome := SQLSTATE;
		END;
		late := extract(epoch FROM clock_timestamp() - began) * 1000 - after;
		RETURN NEXT;
	END \$\$]);

my @steps = split /\n/, $node->safe_psql('postgres', q[
	SELECT CASE operation
		WHEN 'crop' THEN 'crop(width=900, height=900, gravity=entropy)' WHEN 'text' THEN $$text(text='Proof', tile=true)$$
		WHEN 'tint' THEN 'tint(color=#704214)' WHEN 'rotate' THEN 'rotate(angle=20)' WHEN 'pages' THEN 'pages(first=1)'
		WHEN 'resize' THEN 'resize(width=3000, enlarge=true)' WHEN 'extend' THEN 'extend(left=900, fill=mirror)'
		WHEN 'webp' THEN 'webp(lossless=true)' WHEN 'blur' THEN 'blur(sigma=20)' WHEN 'median' THEN 'median(radius=3)'
		WHEN 'jpeg' THEN 'jpeg(max_bytes=30000)' WHEN 'keep' THEN 'keep(metadata=all)' ELSE operation END
	FROM (SELECT DISTINCT operation FROM imgpipe.pipeline_operations()) o ORDER BY operation]);
cmp_ok(scalar @steps, '>', 30, 'there are ' . @steps . ' operations');
my @commands = (
	(map { "SELECT count(imgpipe.process_image(content, \$p\$$_\$p\$, content)) FROM photo" } @steps),
	q[SELECT count(imgpipe.process_image(content, '{resize(width=900), blur | png, webp}'::imgpipe.pipeline[])) FROM photo],
	'SELECT count(imgpipe.verify_image(content)) FROM photo',
	'SELECT count(imgpipe.image_exif(content)) FROM large',
	'SELECT imgpipe.contact_sheet(content, 3, 300, 300) FROM photo, generate_series(1, 9)',
	'SELECT count(imgpipe.thumbnail(content, 7, 7)) FROM photo, generate_series(1, 100)',
	'SELECT count(imgpipe.image(content::bytea)) FROM large',
	'SELECT count(imgpipe.image_sha256(content)) FROM large, generate_series(1, 5)',
	'SELECT count(imgpipe.image_out(content)) FROM large',
	'SELECT count(imgpipe.process_image(content, $p$resize(width=7)$p$)) FROM large');
# By statement_timeout, at moments all over the time that each takes.  On a busy machine a timeout ends a statement before
# attempt() can catch it, and even RESET.

my $script = "SELECT use_decoder();\nSELECT trial.descriptors();\n";
my @list;
for my $command (@commands)
{
	my $whole = -$node->safe_psql('postgres', "SELECT late FROM attempt(\$c\$$command\$c\$, 0)");
	for my $part (0.1, 0.35, 0.6, 0.85)
	{
		my $after = 1 + int(abs($whole) * ($part + rand(0.2) - 0.1));
		$script .= "\\set outcome 57014\n\\set late 0\nSET statement_timeout = $after;\nSELECT outcome, late FROM attempt(\$c\$$command\$c\$, $after) \\gset\n"
		  . "RESET statement_timeout;\n" x 3 . "SELECT :'outcome', :'late', count(*) FROM trial.children();\n";
		push @list, $command;
	}
}
$script .= "SELECT use_decoder();\nSELECT trial.descriptors();\nSELECT count(*) FROM trial.children();\n";
my ($output, $errors) = ('', '');
$node->psql('postgres', $script, stdout => \$output, stderr => \$errors, timeout => 600, on_error_stop => 0);
my ($width, $descriptors, @rest) = split /\n/, $output;
my ($width_after, $descriptors_after, $children) = splice @rest, -3;
is(join("\n", grep { /ERROR|FATAL/ && !/canceling statement due to statement timeout$/ } split /\n/, $errors), '', 'nothing but cancels');
is(scalar @rest, scalar @list, 'each command ended');
my %outcomes;
my ($worst, $worst_command, $most) = (0, '', 0);
for my $i (0 .. $#rest)
{
	my ($outcome, $late, $decoders) = split /\|/, $rest[$i];
	$outcomes{$outcome}++;
	$most = $decoders if $decoders > $most;
	($worst, $worst_command) = ($late, $list[$i]) if $outcome eq '57014' && $late > $worst;
}
# A pipeline by chance may not fit the image, or be more than a limit allows.
is_deeply([ grep { !/^(done|57014|22023|54000)$/ } keys %outcomes ], [], 'each was done or cancelled') or diag(explain(\%outcomes));
cmp_ok($outcomes{57014}, '>', @list / 4, "$outcomes{57014} of " . @list . ' were cancelled');
diag(sprintf 'statement_timeout: at most %.0f ms late, in %s', $worst, $worst_command);
cmp_ok($most, '<=', 1, 'never more than one decoder');
is("$width $width_after", '7 7', 'the session goes on');
cmp_ok($descriptors_after, '<=', $descriptors + 2, 'with no more descriptors, but for files of the catalog');
is($children, 1, 'and one decoder');

# By pg_cancel_backend() from another session, at moments that have nothing to do with what the first is at.

my $file = "$PostgreSQL::Test::Utils::tmp_check/commands.sql";
append_to_file($file, "SET application_name = 'cancelled';\n\\set VERBOSITY sqlstate\n" . join '', map { "$_;\n" } @commands);
my $timer = IPC::Run::timeout(600);
($output, $errors) = ('', '');
my $harness = IPC::Run::start([ 'psql', '-X', '-A', '-t', '-q', '-d', $node->connstr('postgres'), '-f', $file ], '>', \$output, '2>', \$errors, $timer);
ok(poll_until($node, q[SELECT count(*) FROM pg_stat_activity WHERE application_name = 'cancelled'], 1), 'a session works');
my ($sent, $slowest) = (0, 0);
while ($harness->pumpable)
{
	my $began = time;
	# With the query it was sent to, so that it is seen to end.
	my $query = $node->safe_psql('postgres', q[
		WITH active AS MATERIALIZED (SELECT * FROM pg_stat_activity WHERE application_name = 'cancelled' AND state = 'active')
		SELECT query_start FROM active WHERE pg_cancel_backend(pid)]);
	if ($query ne '')
	{
		$sent++;
		poll_until($node, "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'cancelled' AND query_start = '$query' AND state = 'active'", 0) or last;
		$slowest = time - $began if time - $began > $slowest;
	}
	sleep rand 0.2;
	$harness->pump_nb;
}
$harness->finish;
my @errors = split /\n/, $errors;
cmp_ok(scalar(grep {/57014/} @errors), '>', 0, "pg_cancel_backend() sent $sent times, " . @errors . ' queries ended');
is_deeply([ grep { !/(57014|22023|54000)$/ } @errors ], [], 'and none failed otherwise');
diag(sprintf 'pg_cancel_backend(): ended at most %.0f ms later, psql and its connections included', $slowest * 1000);
ok(poll_code(sub { (my @pids = decoder_pids($node)) == 0 }), 'without leaving a decoder');

# By Ctrl-C in psql, which asks by a connection of its own.

for my $step ('blur(sigma=90) | rotate(angle=10)', 'resize(width=5000, enlarge=true) | avif(effort=9)')
{
	($output, $errors) = ('', '');
	$harness = IPC::Run::start(
		[ 'psql', '-X', '-A', '-t', '-d', $node->connstr('postgres'), '-c', 'SELECT use_decoder()',
			'-c', "SELECT length(imgpipe.process_image(content, '$step')::bytea) FROM photo", '-c', 'SELECT use_decoder() + 1' ],
		'>', \$output, '2>', \$errors, $timer);
	ok(poll_until($node, q[SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT length%' AND wait_event_type = 'Extension'], 1), "$step: psql waits");
	$harness->signal('INT');
	$harness->finish;
	like($errors, qr/canceling statement due to user request/, 'until Ctrl-C');
	ok(poll_code(sub { (my @pids = decoder_pids($node)) == 0 }), 'without leaving a decoder');
}

unlike(slurp_file($node->logfile), qr/terminated by signal|PANIC|TRAP:/, 'no process of the server died');
$node->stop;
done_testing();
