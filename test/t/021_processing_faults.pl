# Decoders, workers and the server are killed in the midst of processing: every image has each output exactly once.
use strict;
use warnings;

use IPC::Run;
use ImgpipeTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

# A lease of 3 seconds, so that tasks of a worker that was killed are soon taken again.
my $node = new_cluster('main',
	'imgpipe.max_processors = 2',
	'imgpipe.task_lease = 3s',
	'imgpipe.decoder_timeout = 1s',
	'autovacuum = off');

sub query { return $node->safe_psql('postgres', $_[0]) }

my @mass = mass_images(1202);
my $inserted = 0;

sub insert_images
{
	my ($count) = @_;
	my @files = @mass[ $inserted .. $inserted + $count - 1 ];
	$inserted += $count;
	query(join '', 'BEGIN;', (map {"INSERT INTO imgpipe.images (content, batch_id) VALUES (pg_read_binary_file('$_'), '$inserted');"} @files), 'COMMIT');
}

sub waiting { return $node->safe_psql('postgres', 'SELECT count(*) FROM imgpipe.tasks') }

# Waits until a part of the tasks is done, so that what follows happens in their midst.
sub wait_for_midst
{
	my ($most) = @_;
	poll_code(sub { waiting() <= $most }) or die "processing makes no progress";
	cmp_ok(waiting(), '>', 0, 'in the midst of the work');
}

sub check_outputs
{
	my ($what) = @_;
	ok(poll_until($node, 'SELECT count(*) FROM imgpipe.tasks', '0'), "$what: the queue gets empty");
	is(query('SELECT count(*) FROM imgpipe.images'), $inserted, "$what: all images are there");
	is(query(q[SELECT r.processor || '.' || r.name, count(*), count(DISTINCT r.image_id), count(DISTINCT i.image_id), min(r.width), max(r.width)
			FROM imgpipe.renditions r LEFT JOIN imgpipe.images i USING (image_id) GROUP BY 1 ORDER BY 1]),
		join("\n", "gray.gray|$inserted|$inserted|$inserted|40|40", "web.square|$inserted|$inserted|$inserted|30|30",
			"web.thumb|$inserted|$inserted|$inserted|20|20"),
		"$what: every image has each rendition once");
	is(query(q[SELECT count(*), count(DISTINCT r.image_id), count(DISTINCT c.image_id) FROM imgpipe.results r FULL JOIN called c USING (image_id)]),
		"$inserted|$inserted|$inserted", "$what: and each result, with what its function wrote, once");
	is(query(q[SELECT coalesce(string_agg(sqlstate || ' ' || reason, ', '), 'none') FROM imgpipe.dead_letters]), 'none', "$what: nothing failed");
}

query(q[
	CREATE TABLE called (image_id uuid NOT NULL);
	CREATE FUNCTION note(content imgpipe.image) RETURNS jsonb LANGUAGE plpgsql AS $$
	BEGIN
		INSERT INTO called SELECT image_id FROM imgpipe.images WHERE sha256 = imgpipe.image_sha256(note.content);
		RETURN to_jsonb(imgpipe.image_width(content));
	END$$;
	SELECT imgpipe.create_processor('web', '{"thumb": "resize(width=20) | webp", "square": "resize(width=30, height=30, fit=fill) | jpeg"}', max_attempts => 20);
	SELECT imgpipe.create_processor('gray', '{"gray": "grayscale | resize(width=40) | png"}', max_attempts => 20);
	SELECT imgpipe.create_processor('note', function => 'note(imgpipe.image)', max_attempts => 20)]);
query('CREATE INDEX ON imgpipe.images (sha256)');

# Decoders: the worker sees its requests fail and tries again

insert_images(300);
wait_for_midst(800);
my ($kills, $postmaster) = (0, query('SELECT pg_postmaster_start_time()'));
my $crashes = () = slurp_file($node->logfile) =~ /all server processes terminated/g;
for (1 .. 15)
{
	my @decoders = decoder_pids($node);
	$kills += kill 'KILL', @decoders if @decoders;
	usleep 30_000;
	last if waiting() < 100;
}
cmp_ok($kills, '>', 2, 'decoders were killed');
check_outputs('decoders killed');
is(scalar(() = slurp_file($node->logfile) =~ /all server processes terminated/g), $crashes, 'no process of the server went with them');

# A worker: the server recovers, the queue goes on

insert_images(300);
wait_for_midst(800);
my $killed = worker_pid($node, 'processor');
kill 'KILL', $killed;
ok(poll_code(sub { slurp_file($node->logfile) =~ /all server processes terminated/ }), 'kill -9 of a worker makes the server recover');
check_outputs('a worker killed');

# All of them: the server

insert_images(300);
wait_for_midst(800);
$node->stop('immediate');
$node->start;
check_outputs('the server stopped at once');

# A fast shutdown gives back what was claimed: no lease has to run out, no attempt is lost

query('UPDATE imgpipe.processors SET max_attempts = 1');
insert_images(300);
wait_for_midst(800);
$node->restart;
check_outputs('a restart');

# So does a worker that is told to end between two tasks of an image: it waits for a row that somebody else is writing

sub set_processors { query("ALTER SYSTEM SET imgpipe.max_processors = $_[0]"); query('SELECT pg_reload_conf()') }

set_processors(0);
ok(poll_code(sub { (my @pids = worker_pids($node, 'processor')) == 0 }), 'no worker');
insert_images(1);
my $writer = IPC::Run::start([ 'psql', '-X', '-d', $node->connstr('postgres') . ' application_name=writer', '-c', q[
	BEGIN;
	INSERT INTO imgpipe.renditions (image_id, processor, name, version, content)
		SELECT image_id, 'gray', 'gray', 1, content FROM imgpipe.images WHERE batch_id = '] . $inserted . q[';
	SELECT pg_sleep(600)] ], '>', '/dev/null', '2>', '/dev/null');
ok(poll_until($node, q[SELECT wait_event FROM pg_stat_activity WHERE application_name = 'writer'], 'PgSleep'), 'a row is being written');
set_processors(1);
ok(poll_until($node, q[SELECT wait_event_type FROM pg_stat_activity WHERE backend_type = 'imgpipe processor'], 'Lock'), 'a worker waits for it');
query(q[SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'imgpipe processor']);
query(q[SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'writer']);
$writer->finish;
check_outputs('a worker told to end');

# A function that does not let itself be cancelled takes its worker with it, and becomes a dead letter all the same

query(q[
	SELECT imgpipe.drop_processor('web'), imgpipe.drop_processor('gray'), imgpipe.drop_processor('note');
	CREATE FUNCTION stubborn(imgpipe.image) RETURNS jsonb LANGUAGE plpgsql AS $$
	BEGIN
		LOOP
			BEGIN
				PERFORM pg_sleep(60);
			EXCEPTION WHEN query_canceled THEN
				NULL;
			END;
		END LOOP;
	END$$;
	SELECT imgpipe.create_processor('stubborn', function => 'stubborn(imgpipe.image)', max_attempts => 1)]);
insert_images(1);
ok(poll_until($node, q[SELECT processor, attempts, sqlstate, reason FROM imgpipe.dead_letters], 'stubborn|1|57P02|the worker ended before the task did'),
	'a function that catches its cancel');
is(waiting(), 0, 'is not called again');

done_testing();
