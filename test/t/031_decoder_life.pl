# The life of a decoder: it ends when idle, and at once when its query is cancelled, wherever that is.
use strict;
use warnings;

use ImgpipeTest;
use IPC::Run ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $node = new_cluster('main');
my $photo = sample_image('small.jpg');
$node->safe_psql('postgres', qq[
	CREATE TABLE photo AS SELECT pg_read_binary_file('$photo')::imgpipe.image AS content;
	-- 250 MB, most of it behind the end of the picture
	CREATE TABLE large (content imgpipe.image);
	INSERT INTO large SELECT (content::bytea || decode(repeat('00', 240000000), 'hex'))::imgpipe.image FROM photo;
	-- The children of this backend that are decoders: "R 123" or "Z 123", by their states.
	CREATE FUNCTION decoders() RETURNS text LANGUAGE sql VOLATILE AS \$\$
		SELECT string_agg(stat[3] || ' ' || stat[1], ', ')
		FROM string_to_table(pg_read_file(format('/proc/self/task/%s/children', pg_backend_pid())), ' ') child,
			LATERAL regexp_match(pg_read_file('/proc/' || child || '/stat'), '^(\\d+) \\((.*)\\) (\\S)') stat
		WHERE child <> '' AND stat[2] = 'imgpipe-decoder' \$\$;
	-- Bytes in the file that this backend shares with its decoder: it is on no mount that anybody sees.
	CREATE FUNCTION kept_memory() RETURNS bigint LANGUAGE sql VOLATILE AS \$\$
		SELECT sum((pg_stat_file('/proc/self/fd/' || fd, true)).size)::bigint FROM pg_ls_dir('/proc/self/fd') fd,
			LATERAL substring(pg_read_file('/proc/self/fdinfo/' || fd, 0, 1000, true) FROM 'mnt_id:\\s*(\\d+)') mount
		WHERE pg_read_file('/proc/self/mountinfo') !~ ('(?n)^' || mount || ' ') \$\$;
	CREATE FUNCTION use_decoder() RETURNS integer LANGUAGE sql VOLATILE AS
		'SELECT imgpipe.image_width(imgpipe.thumbnail(content, 7, 7)) FROM photo';
	CREATE PROCEDURE wait_for_no_decoder() LANGUAGE plpgsql AS \$\$
	DECLARE
		began timestamptz := clock_timestamp();
	BEGIN
		WHILE decoders() ~ '[^Z] \\d+' LOOP
			PERFORM pg_sleep(0.01);
			IF clock_timestamp() - began > '60 s' THEN
				RAISE 'the decoder does not end: %', decoders();
			END IF;
		END LOOP;
	END \$\$;
]);

# Idle

my @lines = split /\n/, $node->safe_psql('postgres', q[
	SET imgpipe.decoder_idle_timeout = '300ms';
	SELECT use_decoder();
	SELECT split_part(decoders(), ' ', 2);
	SELECT kept_memory() > 0;
	CALL wait_for_no_decoder();
	SELECT decoders();
	SELECT kept_memory();
	SELECT use_decoder();
	SELECT split_part(decoders(), ' ', 2);
	SET imgpipe.decoder_idle_timeout = 0;
	SELECT use_decoder();
	SELECT split_part(decoders(), ' ', 2);
	SELECT pg_sleep(0.6);
	SELECT split_part(decoders(), ' ', 2);]);
my ($width, $first, $used, $ended, $kept, undef, $second, undef, $third, undef, $last) = @lines;
is($width, 7, 'an image is processed');
like($first, qr/^\d+$/, 'by one decoder');
is($ended, "Z $first", 'which ends when idle; its entry stays');
is($used, 't', 'memory that it shares with the backend');
is($kept, 0, 'is given back');
like($second, qr/^\d+$/, 'the next one reaps it');
isnt($second, $first, 'and is another');
isnt($third, $second, 'a new timeout needs a new decoder');
is($last, $third, 'which stays for ever with a timeout of 0');

# A request may come just when the decoder gives up: nobody sees that.
my ($out, $errors);
$node->psql('postgres', q[
	SET imgpipe.decoder_idle_timeout = '10ms';
	DO $$
	DECLARE
		n_decoders integer := 0;
		before text := '';
		after text;
	BEGIN
		FOR i IN 1 .. 150 LOOP
			IF use_decoder() <> 7 THEN
				RAISE 'wrong width';
			END IF;
			after := split_part(decoders(), ' ', 2);
			n_decoders := n_decoders + (after <> before)::integer;
			before := after;
			-- from before the timeout to well after it, in steps of 100 microseconds
			PERFORM pg_sleep(0.006 + i * 0.0001);
		END LOOP;
		RAISE NOTICE '% decoders', n_decoders;
	END $$;], stdout => \$out, stderr => \$errors);
like($errors, qr/NOTICE:  (?:[2-9]|\d\d+) decoders$/, 'requests around the end of the idle time, all answered');
note($errors);

# Cancel: milliseconds from the interrupt to its end, at points all over long operations.

$node->safe_psql('postgres', q[
	CREATE FUNCTION time_to_cancel(command text, OUT cancelled boolean, OUT elapsed double precision) LANGUAGE plpgsql AS $$
	DECLARE
		began timestamptz := clock_timestamp();
	BEGIN
		BEGIN
			EXECUTE command;
			cancelled := false;
		EXCEPTION WHEN query_canceled THEN
			cancelled := true;
		END;
		elapsed := extract(epoch FROM clock_timestamp() - began) * 1000;
	END $$;]);
# each with milliseconds, within which it is cancelled where it takes that long
my %operations = (
	'250 MB to the decoder' => ['SELECT imgpipe.process_image(content, $p$resize(width=7)$p$) FROM large', 1000],
	'250 MB of bytes as an image' => ['SELECT imgpipe.image(content::bytea) FROM large', 1500],
	'250 MB of text as an image' => ['SELECT imgpipe.image_in(imgpipe.image_out(content), 0, -1) FROM large', 2500],
	'250 MB to text' => ['SELECT imgpipe.image_out(content) FROM large', 1000],
	'a slow pipeline' => ['SELECT imgpipe.process_image(content, $p$resize(width=9000, height=9000, fit=fill, enlarge=true) | blur(sigma=20) | png$p$) FROM photo', 3000],
	'a large output' => ['SELECT imgpipe.process_image(content, $p$resize(width=7000, height=7000, fit=fill, enlarge=true) | png(compression=0)$p$) FROM photo', 2000],
	'many small ones' => ['SELECT count(imgpipe.thumbnail(content, 7, 7)) FROM photo, generate_series(1, 1000000)', 500],
	'verification' => ['SELECT count(imgpipe.verify_image(content)) FROM large, generate_series(1, 100)', 2000]);
for my $operation (sort keys %operations)
{
	my ($command, $span) = @{ $operations{$operation} };
	my $script = "SET imgpipe.decoder_timeout = '60s'; SET imgpipe.decoder_memory_limit = '1GB';
		SELECT setseed(0.7) \\gset\n\\set span $span\n";
	# What ends before it is cancelled says how long it takes on this machine.
	$script .= "SELECT (20 + random() * :span)::integer AS after \\gset
		SET statement_timeout = :after;
		SELECT * FROM time_to_cancel(\$\$$command\$\$) \\gset
		SET statement_timeout = 0;
		SELECT CASE WHEN :'cancelled' THEN (:elapsed - :after)::text END AS late,
			CASE WHEN :'cancelled' THEN :span ELSE least(:span, :elapsed) * 0.8 END AS span \\gset
		\\echo :late\n" for 1 .. 6;
	$script .= "SELECT 'width ' || use_decoder();\n";
	my $result = $node->safe_psql('postgres', $script);
	like($result, qr/width 7$/, "$operation: the session goes on");
	my @times = sort { $a <=> $b } grep {/^[-\d.]+$/} split /\n/, $result;
	cmp_ok(scalar @times, '>', 0, "$operation: it was cancelled " . @times . ' times');
	note(sprintf '%s: after %.0f ms on the median, %.0f at most', $operation, $times[ @times / 2 ], $times[-1]);
	cmp_ok($times[-1], '<', 5000, "$operation: at once");
}

# The same by pg_cancel_backend(), and its decoder is gone when the query is.
my $harness = IPC::Run::start(
	[ 'psql', '-X', '-d', $node->connstr('postgres'), '-c', 'SET application_name = long',
		'-c', 'SELECT imgpipe.image_width(imgpipe.process_image(content, $$resize(width=9000, height=9000, fit=fill, enlarge=true) | blur(sigma=50)$$)) FROM photo' ],
	'>', \$out, '2>', \$errors);
ok(poll_code(sub { (my @pids = decoder_pids($node)) == 1 }), 'a query has a decoder');
my $began = time;
is($node->safe_psql('postgres', q[SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE application_name = 'long']), 't', 'it is cancelled');
$harness->finish;
cmp_ok(time - $began, '<', 5, sprintf 'and has ended after %.0f ms', (time - $began) * 1000);
like($errors, qr/canceling statement due to user request/, 'because of that');
ok(poll_code(sub { (my @pids = decoder_pids($node)) == 0 }), 'without leaving a decoder');

unlike(slurp_file($node->logfile), qr/terminated by signal|PANIC|TRAP:/, 'no process of the server died');
$node->stop;
done_testing();
