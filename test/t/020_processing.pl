# Processors at work: renditions and results of images that are inserted, failures, rights, and how many workers.
use strict;
use warnings;

use ImgpipeTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_cluster('main',
	'imgpipe.max_processors = 3',
	'imgpipe.task_lease = 2s',		# so a function may take 1.8 s
	'imgpipe.decoder_timeout = 5s');

sub query { return $node->safe_psql('postgres', $_[0]) }

sub insert_image
{
	my ($name, $key) = @_;
	my $path = sample_image($name);
	return query("INSERT INTO imgpipe.images (content, source_key) VALUES (pg_read_binary_file('$path'), '$key') RETURNING image_id");
}

sub done
{
	my ($what) = @_;
	ok(poll_until($node, 'SELECT count(*) FROM imgpipe.tasks', '0'), "$what: the queue gets empty");
}

my @failure = qw(processor version attempts sqlstate reason);

sub dead_letters
{
	my ($key) = @_;
	return query('SELECT ' . join(', ', @failure) . " FROM imgpipe.dead_letters WHERE source_key = '$key' AND stage = 'processing' ORDER BY created_at");
}

# Renditions

query(q[SELECT imgpipe.create_processor('web', '{"thumb": "resize(width=64) | webp", "square": "resize(width=32, height=32, fit=cover) | jpeg"}')]);
query(q[SELECT imgpipe.create_processor('gray', '{"gray": "grayscale | png"}')]);
insert_image($_, $_) for qw(photo.jpg portrait.jpg small.png small.gif);
done('renditions');
is(query(q[SELECT i.source_key, r.processor, r.name, r.version, r.format, r.width, r.height
		FROM imgpipe.renditions r JOIN imgpipe.images i USING (image_id)
		WHERE r.processor = 'web' ORDER BY i.source_key, r.name]),
	join("\n", map { ("$_->[0]|web|square|1|jpeg|32|32", "$_->[0]|web|thumb|1|webp|64|$_->[1]") }
		  [ 'photo.jpg', 48 ], [ 'portrait.jpg', 85 ], [ 'small.gif', 48 ], [ 'small.png', 48 ]),
	'each image has each rendition of the right format and size');
is(query(q[SELECT count(*), bool_and(r.width = i.width AND r.height = i.height AND r.format = 'png')
		FROM imgpipe.renditions r JOIN imgpipe.images i USING (image_id) WHERE r.processor = 'gray']),
	'4|t', 'so it has those of the other processor');
is(query(q[SELECT string_agg(DISTINCT processing || ' ' || renditions, ',') FROM imgpipe.image_facts]), 'done 3', 'image_facts says so');
is(query(q[SELECT processor, pending, running, retrying, done, outputs, failed, delay_p95 > '0' FROM imgpipe.processor_performance ORDER BY 1]),
	"gray|0|0|0|4|4|0|t\nweb|0|0|0|4|8|0|t", 'processor_performance counts');

# What cannot be processed

insert_image('truncated.jpg', 'truncated');
done('a damaged image');
my $damaged = dead_letters('truncated');
like($damaged, qr/^gray\|1\|1\|22P03\|.+\nweb\|1\|1\|22P03\|.+$|^web\|1\|1\|22P03\|.+\ngray\|1\|1\|22P03\|.+$/,
	'a damaged image is a dead letter of each processor after one attempt');
is(query(q[SELECT processing, renditions FROM imgpipe.image_facts WHERE source_key = 'truncated']), 'failed|0', 'image_facts says so');

query(q[SELECT imgpipe.create_processor('corner', '{"all": "png", "corner": "crop(left=2000, top=1500, width=40, height=30) | png"}')]);
insert_image('photo.jpg', 'fits');
insert_image('small.jpg', 'too small');
done('a pipeline that does not fit');
is(query(q[SELECT i.source_key, string_agg(r.processor || '.' || r.name, ' ' ORDER BY r.processor, r.name) FROM imgpipe.renditions r JOIN imgpipe.images i USING (image_id)
		WHERE i.source_key IN ('fits', 'too small') GROUP BY 1 ORDER BY 1]),
	"fits|corner.all corner.corner gray.gray web.square web.thumb\ntoo small|gray.gray web.square web.thumb",
	'it fails its own processor and no other');
like(dead_letters('too small'), qr/^corner\|1\|1\|22023\|output "corner": .+$/, 'the dead letter names the output');
query(q[SELECT imgpipe.drop_processor('corner')]);

# A new version, and earlier images

query(q[SELECT imgpipe.alter_processor('web', '{"thumb": "resize(width=16) | png"}')]);
query(q[SELECT imgpipe.process_images('web')]);
done('a new version');
is(query(q[SELECT r.name, r.version, r.format, count(*), max(r.width) FROM imgpipe.renditions r WHERE processor = 'web' GROUP BY 1, 2, 3 ORDER BY 1]),
	"square|1|jpeg|6|32\nthumb|2|png|6|16", 'it replaces renditions of the same name, each once');
query(q[SELECT imgpipe.drop_processor('gray'); SELECT imgpipe.drop_processor('web')]);

# Functions

query(q[
	CREATE FUNCTION in_sql(imgpipe.image) RETURNS jsonb LANGUAGE sql
		AS $$SELECT jsonb_build_object('width', imgpipe.image_width($1), 'thumb', imgpipe.image_width(imgpipe.process_image($1, 'resize(width=8)')))$$;
	CREATE TABLE seen (width integer);
	CREATE FUNCTION in_plpgsql(content imgpipe.image) RETURNS jsonb LANGUAGE plpgsql AS $$
	BEGIN
		INSERT INTO seen VALUES (imgpipe.image_width(content));
		RETURN CASE WHEN imgpipe.image_width(content) = 640 THEN NULL ELSE '"large"'::jsonb END;
	END$$;
	SELECT imgpipe.create_processor('sql', function => 'in_sql(imgpipe.image)');
	SELECT imgpipe.create_processor('plpgsql', function => 'in_plpgsql(imgpipe.image)')]);
insert_image('photo.jpg', 'photo f');
insert_image('small.jpg', 'small f');
done('functions');
is(query(q[SELECT i.source_key, r.processor, r.version, r.result FROM imgpipe.results r JOIN imgpipe.images i USING (image_id) ORDER BY 1, 2]),
	qq[photo f|plpgsql|1|"large"\nphoto f|sql|1|{"thumb": 8, "width": 2048}\nsmall f|plpgsql|1|\nsmall f|sql|1|{"thumb": 8, "width": 640}],
	'what SQL and PL/pgSQL functions return is in results');
is(query('SELECT string_agg(width::text, \' \' ORDER BY width) FROM seen'), '640 2048', 'what they write is written once');
query(q[SELECT imgpipe.drop_processor('sql'); SELECT imgpipe.drop_processor('plpgsql')]);

query(q[
	CREATE SEQUENCE calls;
	CREATE FUNCTION second_time(content imgpipe.image) RETURNS jsonb LANGUAGE plpgsql AS $$
	BEGIN
		INSERT INTO seen VALUES (0);
		IF nextval('calls') = 1 THEN
			RAISE EXCEPTION 'not yet';
		END IF;
		RETURN '"then"';
	END$$;
	CREATE FUNCTION never(content imgpipe.image) RETURNS jsonb LANGUAGE plpgsql AS $$
	BEGIN
		RAISE EXCEPTION 'no label for this image' USING ERRCODE = 'P0042', DETAIL = 'The model was not sure.', HINT = 'Ask a person.';
	END$$;
	SELECT imgpipe.create_processor('second', function => 'second_time(imgpipe.image)');
	SELECT imgpipe.create_processor('never', function => 'never(imgpipe.image)', max_attempts => 2)]);
insert_image('small.jpg', 'failing');
ok(poll_until($node, q[SELECT count(*) FROM imgpipe.tasks WHERE attempts = 1 AND last_error = 'P0042: no label for this image' AND available_at > now()], '1'),
	'a failed task waits for its next attempt and says why');
done('failing functions');
is(query(q[SELECT result, last_value FROM imgpipe.results, calls WHERE processor = 'second']), '"then"|2', 'it succeeds when it can');
is(query('SELECT count(*) FROM seen WHERE width = 0'), '1', 'what the failed call wrote is gone');
is(dead_letters('failing'), 'never|1|2|P0042|no label for this image', 'and becomes a dead letter when it cannot');
like(query(q[SELECT detail FROM imgpipe.dead_letters WHERE source_key = 'failing']),
	qr{^The model was not sure.\nAsk a person.\nPL/pgSQL function never\(imgpipe.image\) line 3 at RAISE\n}, 'with all that its author wants to know');
query(q[SELECT imgpipe.drop_processor('second'); DROP FUNCTION never; SELECT imgpipe.process_images('never')]);
done('a function that was dropped');
like(query(q[SELECT DISTINCT sqlstate, reason FROM imgpipe.dead_letters WHERE processor = 'never' AND sqlstate <> 'P0042']),
	qr/^42883\|function "public.never\(imgpipe.image\)" does not exist$/, 'is the reason');
query(q[SELECT imgpipe.drop_processor('never')]);

# A function that hangs does not keep others from being called

query(q[
	CREATE FUNCTION hang(imgpipe.image) RETURNS jsonb LANGUAGE sql AS $$SELECT to_jsonb(pg_sleep(3600)::text)$$;
	CREATE FUNCTION quick(imgpipe.image) RETURNS jsonb LANGUAGE sql AS $$SELECT '1'::jsonb$$;
	SELECT imgpipe.create_processor('hang', function => 'hang(imgpipe.image)', max_attempts => 1);
	SELECT imgpipe.create_processor('quick', function => 'quick(imgpipe.image)')]);
insert_image('small.jpg', 'hanging');
done('a hanging function');
is(dead_letters('hanging'), q[hang|1|1|57014|the processor's function took too long], 'it is cancelled');
is(query(q[SELECT count(*) FROM imgpipe.results WHERE processor = 'quick']), '1', 'the next one is called');
query(q[SELECT imgpipe.drop_processor('hang'); SELECT imgpipe.drop_processor('quick')]);

# What an operator cancels or ends was no attempt

sub wait_for_call
{
	poll_until($node, q[SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'imgpipe processor' AND wait_event = 'PgSleep'], '1');
}

query(q[
	ALTER SEQUENCE calls RESTART;
	CREATE FUNCTION slow_once(imgpipe.image) RETURNS jsonb LANGUAGE plpgsql AS $$
	BEGIN
		IF nextval('calls') <= 2 THEN
			PERFORM pg_sleep(1.7);
		END IF;
		RETURN '"done"';
	END$$;
	SELECT imgpipe.create_processor('slow', function => 'slow_once(imgpipe.image)', max_attempts => 1)]);
insert_image('small.jpg', 'cancelled');
wait_for_call();
query(q[SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE backend_type = 'imgpipe processor' AND wait_event = 'PgSleep']);
ok(poll_until($node, 'SELECT attempts FROM imgpipe.tasks', '0'), 'a cancelled task is given back');
wait_for_call();
query(q[SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'imgpipe processor' AND wait_event = 'PgSleep']);
done('a worker that was ended');
is(query(q[SELECT result, last_value FROM imgpipe.results, calls WHERE processor = 'slow']), '"done"|3', 'the task was done at last');
is(dead_letters('cancelled'), '', 'and is no dead letter');
query(q[SELECT imgpipe.drop_processor('slow')]);

# Rights: a processor can do what its owner can

query(q[
	CREATE ROLE tagger LOGIN;
	CREATE ROLE neighbour;
	CREATE ROLE chief SUPERUSER;
	GRANT neighbour TO tagger;
	GRANT USAGE ON SCHEMA imgpipe TO tagger;
	GRANT SELECT ON imgpipe.images TO tagger;
	GRANT SELECT, INSERT, UPDATE, DELETE ON imgpipe.processors TO tagger;
	GRANT SELECT, INSERT ON imgpipe.processor_versions TO tagger;
	ALTER ROLE tagger SET default_transaction_isolation = 'serializable';
	ALTER ROLE tagger SET default_transaction_read_only = on;
	ALTER ROLE tagger SET search_path = tagger;
	CREATE TABLE secret AS SELECT 'treasure' AS word;
	CREATE SCHEMA tagger AUTHORIZATION tagger]);
SKIP:
{
	skip 'workers need no LOGIN from PostgreSQL 17 on', 1 if $node->pg_version >= 17;
	$node->safe_psql('postgres', q[GRANT USAGE ON SCHEMA imgpipe TO neighbour; GRANT SELECT ON imgpipe.images TO neighbour;
		GRANT INSERT ON imgpipe.processors, imgpipe.processor_versions TO neighbour]);
	my ($status, $out, $errors) = $node->psql('postgres', q[SET ROLE neighbour; SELECT imgpipe.create_processor('theirs', '{"t": "png"}')]);
	like($errors, qr/ERROR:  role neighbour cannot own a processor\n.*HINT:  ALTER ROLE neighbour LOGIN;/s, 'who cannot log in cannot own a processor');
	$node->safe_psql('postgres', 'DROP OWNED BY neighbour');
}
$node->safe_psql('postgres', q[
	SET ROLE tagger;
	SET transaction_read_only = off;
	CREATE FUNCTION tagger.tell(statement text) RETURNS text LANGUAGE plpgsql AS $$
	BEGIN
		EXECUTE statement;
		RETURN 'allowed';
	EXCEPTION WHEN OTHERS THEN
		RETURN SQLSTATE;
	END$$;
	-- Shadows of what the worker itself uses, which it must not come upon.
	CREATE FUNCTION tagger.now() RETURNS timestamptz LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'shadow'; END$$;
	CREATE FUNCTION tagger.tasks() RETURNS integer LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'shadow'; END$$;
	CREATE FUNCTION tagger.probe(content imgpipe.image) RETURNS jsonb LANGUAGE plpgsql AS $$
	DECLARE
		before jsonb := jsonb_build_object('user', current_user, 'session', session_user, 'path', current_setting('search_path'),
			'timeout', current_setting('statement_timeout'), 'temporary', to_regclass('pg_temp.left_over') IS NOT NULL,
			'locks', (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()),
			'isolation', current_setting('transaction_isolation'));
		answers jsonb;
	BEGIN
		SELECT jsonb_object_agg(s, tagger.tell(s)) INTO answers FROM unnest(ARRAY[
			'SELECT * FROM public.secret',
			'SET ROLE chief',
			'SET SESSION AUTHORIZATION chief',
			'SELECT * FROM imgpipe.renditions',
			'INSERT INTO imgpipe.results (image_id, processor, version) VALUES (imgpipe.new_image_id(), ''forged'', 1)',
			'DELETE FROM imgpipe.tasks',
			'SELECT imgpipe.claim_tasks(''chief'', 1, ''1 hour'')',
			'UPDATE imgpipe.processors SET owner = ''chief''',
			'COPY (SELECT 1) TO PROGRAM ''true''']) s;
		-- All of this stays in the session unless somebody clears it away.
		CREATE TEMP TABLE left_over (i integer);
		PERFORM pg_advisory_lock(7), set_config('search_path', 'nowhere', false), set_config('statement_timeout', '12345', false),
			set_config('synchronous_commit', 'off', false);
		RESET SESSION AUTHORIZATION;
		RESET ROLE;
		before := before || jsonb_build_object('after reset', current_user);
		SET ROLE neighbour;
		RETURN before || answers;
	END$$;
	SELECT imgpipe.create_processor('probe', function => 'tagger.probe(imgpipe.image)');
	SELECT imgpipe.create_processor('small', '{"tiny": "resize(width=5) | png"}');]);
insert_image('small.jpg', "privilege $_") for 1 .. 3;
done('an unprivileged owner');
is(query(q[SELECT count(*), count(DISTINCT result) FROM imgpipe.results WHERE processor = 'probe']), '3|1', 'each call finds the session as the first one did');
my $answers = query(q[SELECT key, value FROM imgpipe.results, jsonb_each_text(result)
		WHERE processor = 'probe' AND image_id = (SELECT image_id FROM imgpipe.images WHERE source_key = 'privilege 2') ORDER BY key COLLATE "C"]);
is($answers, join("\n",
		q[COPY (SELECT 1) TO PROGRAM 'true'|42501],
		q[DELETE FROM imgpipe.tasks|42501],
		q[INSERT INTO imgpipe.results (image_id, processor, version) VALUES (imgpipe.new_image_id(), 'forged', 1)|42501],
		q[SELECT * FROM imgpipe.renditions|42501],
		q[SELECT * FROM public.secret|42501],
		q[SELECT imgpipe.claim_tasks('chief', 1, '1 hour')|42501],
		q[SET ROLE chief|42501],
		q[SET SESSION AUTHORIZATION chief|42501],
		q[UPDATE imgpipe.processors SET owner = 'chief'|42501],
		q[after reset|tagger],
		q[isolation|read committed],
		q[locks|0],
		q[path|tagger],
		q[session|tagger],
		q[temporary|false],
		q[timeout|0],
		q[user|tagger]),
	'the function has its owner\'s rights, whatever it tries');
is(query(q[SELECT count(*), max(width) FROM imgpipe.renditions WHERE processor = 'small']), '3|5',
	'renditions are written although the owner may not write them');
is(query(q[SELECT count(*) FROM imgpipe.results WHERE processor = 'forged']), '0', 'and nothing was forged');
query(q[REVOKE SELECT ON imgpipe.images FROM tagger]);
query(q[UPDATE imgpipe.processors SET max_attempts = 1]);
insert_image('small.jpg', 'revoked');
done('an owner who may no longer read images');
is(query(q[SELECT string_agg(processor || ' ' || sqlstate, ', ' ORDER BY processor) FROM imgpipe.dead_letters WHERE source_key = 'revoked']),
	'probe 42501, small 42501', 'its processors fail and say why');
query(q[SELECT imgpipe.drop_processor('probe'); SELECT imgpipe.drop_processor('small')]);

# Images that are gone when their turn comes

query(q[SELECT imgpipe.create_processor('late', '{"tiny": "resize(width=5) | png"}');
	SELECT imgpipe.create_processor('later', function => 'quick(imgpipe.image)');
	SELECT imgpipe.stop_processor('late'), imgpipe.stop_processor('later')]);
my $path = sample_image('small.jpg');
query(qq[INSERT INTO imgpipe.images (image_id, content, source_key)
	SELECT imgpipe.new_image_id(now() + interval '1 second'), pg_read_binary_file('$path'), 'short-lived']);
my $deleted = insert_image('small.jpg', 'deleted');
is(query(q[SELECT imgpipe.process_images('late') >= 2, imgpipe.process_images('later') >= 2]), 't|t', 'tasks wait while processors are stopped');
query(qq[DELETE FROM imgpipe.tasks t USING imgpipe.images i WHERE t.image_id = i.image_id AND i.source_key NOT IN ('short-lived', 'deleted');
	DELETE FROM imgpipe.images WHERE image_id = '$deleted']);
is(query('SELECT count(*) FROM imgpipe.tasks'), '4', 'four of them');
poll_until($node, q[SELECT count(*) FROM imgpipe.tasks WHERE image_id >= imgpipe.fence()], '2');
query(q[SELECT imgpipe.start_processor('late'), imgpipe.start_processor('later')]);
done('images that are gone');
is(query(q[SELECT (SELECT count(*) FROM imgpipe.renditions WHERE processor = 'late') + (SELECT count(*) FROM imgpipe.results WHERE processor = 'later'),
		(SELECT count(*) FROM imgpipe.dead_letters WHERE processor IN ('late', 'later'))]), '0|0', 'nothing is made of them, and nothing failed');
query(q[SELECT imgpipe.drop_processor('late'); SELECT imgpipe.drop_processor('later')]);

# As many workers as there is work, within the limits

my $workers = q[SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'imgpipe processor'];
query(q[
	CREATE FUNCTION wait_a_bit(imgpipe.image) RETURNS jsonb LANGUAGE sql AS $$SELECT to_jsonb(pg_sleep(0.1)::text)$$;
	SELECT imgpipe.create_processor('wait', function => 'wait_a_bit(imgpipe.image)')]);
my @mass = mass_images(80);
query(join '', map {"INSERT INTO imgpipe.images (content, source_key) VALUES (pg_read_binary_file('$_'), 'mass');"} @mass);
ok(poll_until($node, $workers, '3'), 'a long queue has max_processors workers');
done('a long queue');
is(query(q[SELECT count(*) FROM imgpipe.results WHERE processor = 'wait']), '80', 'each task was done once');
ok(poll_until($node, $workers, '0'), 'without work they end');
is_deeply([ decoder_pids($node) ], [], 'and their decoders with them');
query(q[ALTER SYSTEM SET imgpipe.min_processors = 1; SELECT pg_reload_conf()]);
ok(poll_until($node, q[SELECT count(*) FROM imgpipe.worker_slots() WHERE kind = 'processor' AND pid > 0 AND state = 'idle'
		AND since < clock_timestamp() - interval '7 seconds'], '1'), 'min_processors keeps one that is idle');
query(q[ALTER SYSTEM RESET imgpipe.min_processors; SELECT pg_reload_conf()]);
ok(poll_until($node, $workers, '0'), 'until it does not');

# Dump and restore: what waits is not lost and not doubled.  (psql goes on after an error: the partitions' primary
# keys are in the dump although their parents bring them along.)

query(q[SELECT imgpipe.stop_processor('wait'); SELECT imgpipe.process_images('wait') > 0; SELECT imgpipe.create_processor('restored', '{"thumb": "resize(width=8)"}', max_attempts => 3)]);
my $before = query('SELECT count(*) FROM imgpipe.tasks');
my $dump = $node->basedir . '/dump.sql';
command_ok([ 'pg_dump', '-h', $node->host, '-p', $node->port, '-f', $dump, 'postgres' ], 'dump');
$node->safe_psql('postgres', 'CREATE DATABASE restored');
command_ok([ 'psql', '-X', '-q', '-h', $node->host, '-p', $node->port, '-f', $dump, '-o', '/dev/null', 'restored' ], 'restore');
is($node->safe_psql('restored', q[SELECT count(*), count(DISTINCT image_id), max(attempts) FROM imgpipe.tasks]), "$before|$before|0", 'the queue is restored as it was');
is($node->safe_psql('restored', q[SELECT name, enabled, max_attempts FROM imgpipe.processors ORDER BY name]), "restored|t|3\nwait|f|5", 'so are processors');

done_testing();
