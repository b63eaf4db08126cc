# A decoder that was taken over answers with every kind of nonsense: each time an SQL error, and the backend lives.
use strict;
use warnings;

use File::Copy qw(copy);
use File::Path qw(make_path);
use ImgpipeTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $source = $ImgpipeTest::root;
plan skip_all => 'the source is not here' unless -e "$source/src/decoder/protocol.h";

# An installation of PostgreSQL of our own, in which the decoder is another program.  PostgreSQL finds its folders
# from where its programs are, so these are copies; the libraries are links.
sub private_installation
{
	my ($decoder) = @_;
	my $base = "$PostgreSQL::Test::Utils::tmp_check/installation";
	my ($bin, $libraries, $share) = map { chomp(my $path = `pg_config --$_`); $path } qw(bindir pkglibdir sharedir);
	my $common = $bin;
	$common =~ s{/[^/]*$}{} until "$libraries/" =~ m{^\Q$common\E/} && "$share/" =~ m{^\Q$common\E/};
	my %place = map { $_ => $base . substr($_, length $common) } $bin, $libraries, $share;

	make_path(@place{ $bin, $libraries }, $place{$share} =~ s{/[^/]*$}{}r);
	system('cp', '-rL', "$bin/.", $place{$bin}) == 0 or die 'could not copy the programs of PostgreSQL';
	symlink $_, "$place{$libraries}/" . s{.*/}{}r for grep { !/imgpipe-decoder$/ } glob "$libraries/*";
	symlink $share, $place{$share} or die "could not link $share: $!";
	copy($decoder, "$place{$libraries}/imgpipe-decoder") or die "could not copy $decoder: $!";
	chmod 0755, "$place{$libraries}/imgpipe-decoder";
	return $place{$bin} =~ s{/bin$}{}r;
}

my $hostile = "$PostgreSQL::Test::Utils::tmp_check/hostile_decoder";
system('cc', '-std=gnu11', '-D_GNU_SOURCE', '-O1', "-I$source/src", '-o', $hostile, "$source/test/fuzz/hostile_decoder.c") == 0
  or die 'could not compile the hostile decoder';
my $node = PostgreSQL::Test::Cluster->new('hostile', install_path => private_installation($hostile));
$node->init;
$node->append_conf('postgresql.conf', "log_min_error_statement = panic\nrestart_after_crash = on");
$node->start;
$node->safe_psql('postgres', q[
	CREATE EXTENSION imgpipe;
	CREATE FUNCTION attempt(command text) RETURNS text LANGUAGE plpgsql AS $$
	DECLARE
		answer text;
	BEGIN
		EXECUTE command INTO answer;
		RETURN 'done ' || coalesce(answer, 'null');
	EXCEPTION WHEN OTHERS OR query_canceled THEN
		GET STACKED DIAGNOSTICS answer = PG_EXCEPTION_DETAIL;
		RETURN rtrim(format('%s %s: %s', SQLSTATE, SQLERRM, answer));
	END$$;
	CREATE FUNCTION status(field text) RETURNS bigint LANGUAGE sql AS $$
		SELECT substring(pg_read_file('/proc/self/status') FROM field || ':\s*(\d+)')::bigint
	$$]);

my $protocol = '08P01 imgpipe: the image decoder broke the protocol: ';
my $damaged = '22P03 invalid or damaged png image: ';
my %probes = (
	'silent' => '54000 image takes too long to work on: It was given up after imgpipe.decoder_timeout (300 ms).',
	'hang-up' => '58000 imgpipe: the image decoder stopped by signal 9: Killed:',
	'fault' => '58000 imgpipe: the image decoder stopped by signal 11: Segmentation fault:',
	'exit' => '58000 imgpipe: the image decoder stopped with exit code 42:',
	'empty-frame' => '58000 imgpipe: the image decoder stopped by signal 9: Killed:',
	(map { $_ => "${protocol}a frame of the wrong size or kind:" } qw(short-frame long-frame magic)),
	'status' => "${protocol}an unknown status:",
	'limit-99' => "${protocol}an unknown limit:",
	'more-outputs' => "${protocol}a wrong number of outputs:",
	(map { $_ => "${protocol}facts of no image:" }
		qw(layout format-0 format-99 orientation-0 orientation-9 reserved width-0 width-huge height-0 pages-0 pages-huge)),
	'endless-message' => $damaged . 'A' x 255 . '.',
	'unprintable-message' => $damaged . '%s%n?[2J????? end.',
	(map { $_ => 'done 12' } qw(descriptors cut-memory grow-memory)));
my %processes = (
	(map { $_ => $probes{$_} }
		qw(silent hang-up fault exit short-frame long-frame empty-frame magic status endless-message unprintable-message layout)),
	(map { $_ => "${protocol}a wrong number of outputs:" } qw(no-outputs more-outputs)),
	(map { $_ => "${protocol}an output that is no image:" } qw(output-layout output-format output-width output-empty)),
	(map { $_ => "${protocol}more output than its memory can hold:" } qw(output-huge output-long gigabytes wrap-around)),
	(map { $_ => "${protocol}an output that is not there:" } qw(output-absent cut-memory)),
	# Asked once more, it does so again.
	'leave-nothing' => '58000 imgpipe: the image decoder stopped with exit code 0:',
	(map { $_ => 'done 12,12' } qw(descriptors grow-memory)));
my %reports = (
	'silent' => $probes{silent}, 'exit' => $probes{exit}, 'magic' => $probes{magic},
	'no-outputs' => "${protocol}a wrong number of outputs:",
	'endless-report' => "${protocol}an output of too many bytes:",
	'absent-report' => "${protocol}an output that is not there:",
	'malformed-report' => 'XX000 malformed self-test of the image decoder: one column:',
	'unprintable-report' => 'done ??%s? ?');

# The three words say what the decoder does when asked to probe, to process and to test itself.
sub probe { return "imgpipe.image_width(imgpipe.image('$_[0]'::bytea))" }

my @attempts;
push @attempts, [ "probe: $_", 'SELECT ' . probe($_), $probes{$_} ] for sort keys %probes;
push @attempts, [ "process: $_",
	"SELECT string_agg(imgpipe.image_width(i)::text, ',') FROM unnest(imgpipe.process_image(imgpipe.image('honest $_'::bytea), '{png,webp}'::imgpipe.pipeline[])) i",
	$processes{$_} ] for sort keys %processes;
push @attempts, [ "self-test: $_",
	"SELECT string_agg(attempt || ' ' || error, ',') FROM " . probe("honest honest $_") . ' w, imgpipe.decoder_sandbox()', $reports{$_} ]
  for sort keys %reports;

# All in one backend, each followed by an honest request that has to work, and all twice: the first time the backend
# also opens files of the catalog.
my $script = "SET imgpipe.decoder_timeout = 300;\n";
my $state = q[SELECT format('backend %s, %s descriptors', pg_backend_pid(), (SELECT count(*) FROM pg_ls_dir('/proc/self/fd')));] . "\n";
my $honest = 'SELECT attempt($$SELECT ' . probe('honest') . "\$\$);\n";
$script .= join('', $honest, (map { "SELECT attempt(\$\$$_->[1]\$\$);\n$honest" } @attempts), $state) x 2;
$script .= "SELECT status('VmHWM') - status('RssShmem');\n";
my ($output, $errors, $timed_out) = ('', '', 0);
$node->psql('postgres', $script, stdout => \$output, stderr => \$errors, timeout => 120, timed_out => \$timed_out);
ok(!$timed_out, 'nothing hangs');
is($errors, '', 'the session goes on');
my @lines = split /\n/, $output;
my @states;
for my $round (1, 2)
{
	is(shift @lines, 'done 12', "round $round: an honest answer");
	for (@attempts)
	{
		is(shift @lines, $_->[2], $_->[0]);
		is(shift @lines, 'done 12', 'and the next request is answered');
	}
	push @states, shift @lines;
}
is($states[1], $states[0], 'the same backend, with the same descriptors');
cmp_ok(shift @lines, '<', 200_000, 'which took less than 200 MB');

# Answers that nobody asked for, and a decoder that no longer reads: nothing may wait for it.
for my $attack ('twice', 'flood')
{
	$node->psql('postgres', q[SELECT attempt($$SELECT ] . probe($attack) . q[$$) FROM generate_series(1, 1000)],
		stdout => \$output, timeout => 60, timed_out => \$timed_out);
	ok(!$timed_out, "$attack: nothing hangs");
	my %answers;
	$answers{$_}++ for split /\n/, $output;
	my $done = delete $answers{'done 12'} // 0;
	ok($done < 1000 && !grep({ !/^\Q$protocol\E(an answer to no question|requests left unread):$/ } keys %answers), "$attack: and it is noticed")
	  or diag(explain(\%answers));
}

# Cancelled while the decoder is silent
($output) = $node->safe_psql('postgres', q[SET statement_timeout = '200ms'; SELECT attempt($$SELECT ] . probe('silent') . '$$)');
is($output, '57014 canceling statement due to statement timeout:', 'a silent decoder does not keep a statement from being cancelled');

ok($node->safe_psql('postgres', 'SELECT true') eq 't', 'the server lives');
unlike(slurp_file($node->logfile), qr/terminated by signal|PANIC|TRAP:/, 'and no process of it died');
ok(poll_code(sub { (my @pids = decoder_pids($node)) == 0 }), 'no decoder is left behind');
$node->stop;
done_testing();
