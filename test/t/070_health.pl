# imgpipe.health_check(): silent on a server that is well, and each trouble is found, by making it.
use strict;
use warnings;

use ImgpipeTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_cluster('main', 'fsync = on', 'imgpipe.max_processors = 1');

sub query { return $node->safe_psql('postgres', $_[0]) }

# What is found of a subject, as "severity: finding".
sub found
{
	my ($subject) = @_;
	return query(qq[SELECT severity || ': ' || finding FROM imgpipe.health_check() WHERE subject = '$subject' AND severity <> 'ok' ORDER BY 1]);
}

# Whether that can be waited for: 't' once it is so.
sub finds
{
	my ($subject, $like) = @_;
	return poll_until($node, qq[SELECT EXISTS (SELECT FROM imgpipe.health_check() WHERE subject = '$subject' AND severity || ': ' || finding LIKE '$like')], 't');
}

ok(poll_until($node, q[SELECT count(*) FROM imgpipe.health_check() WHERE severity <> 'ok'], 0), 'a fresh server is well');
is(query('SELECT count(DISTINCT subject) FROM imgpipe.health_check()'), 12, 'every subject says so');

# Workers and settings.

query('SELECT imgpipe.stop_workers()');
ok(finds('workers', 'critical: this database has no controller'), 'a stopped controller');

query(q[SELECT imgpipe.create_partition(parent, now() - interval '2 days', now() - interval '1 day') FROM imgpipe.partitioned_tables WHERE name = 'images']);
like(found('retention'), qr/^critical: imgpipe_partitions\.images_\d+_\d+ is overdue since /, 'an overdue partition');

query(q[ALTER TABLE imgpipe.images DISABLE ROW LEVEL SECURITY]);
query(q[GRANT USAGE ON SCHEMA imgpipe_partitions TO PUBLIC]);
query(q[CREATE ROLE "odd Role"]);
query(q[GRANT CREATE ON SCHEMA imgpipe_partitions TO "odd Role"]);
is(found('access'), join("\n", 'critical: "odd Role" has CREATE on schema imgpipe_partitions', 'critical: PUBLIC has USAGE on schema imgpipe_partitions',
		'critical: row-level security of imgpipe.images is off'), 'an open fence');
my $advice = query(q[SELECT string_agg((regexp_match(advice, '(REVOKE|ALTER) .*$'))[1], ' ') FROM imgpipe.health_check() WHERE subject = 'access']);
is($advice, 'ALTER REVOKE REVOKE', 'with commands that close it');
query($_) for split /\n/, query(q[SELECT substring(advice FROM '(?:REVOKE|ALTER) .*$') FROM imgpipe.health_check() WHERE subject = 'access']);
is(found('access'), '', 'and do close it');

query(q[UPDATE imgpipe.purge_ledger_head SET entry = entry + 1]);
like(found('ledger'), qr/^critical: entry 1: entries 1 to 1 at the end are missing$/, 'a ledger that was cut');
query(q[UPDATE imgpipe.purge_ledger_head SET entry = entry - 1]);

# The queue and what failed.

query(q[
	SELECT imgpipe.create_processor('thumb', '{"thumb": "resize(width=10) | png"}');
	INSERT INTO imgpipe.tasks (image_id, processor_id, version, available_at)
		SELECT imgpipe.new_image_id(), processor_id, version, now() - interval '1 hour' FROM imgpipe.processors, generate_series(1, 3);
	INSERT INTO imgpipe.dead_letters (stage, source, sqlstate, reason) VALUES ('ingest', 'x', '22P03', 'message is empty');]);
like(found('processing'), qr/^warning: 3 tasks are due, the oldest since /, 'a queue that stands');
is(found('dead letters'), 'warning: 1 of stage ingest in the last day, the latest for: message is empty', 'dead letters');

query('SELECT imgpipe.start_workers()');
ok(poll_until($node, q[SELECT count(*) FROM imgpipe.health_check() WHERE subject IN ('workers', 'retention', 'processing') AND severity <> 'ok'], 0),
	'with its workers the server mends itself');

query(q[SELECT imgpipe.schedule('broken', '@yearly', 'SELECT 1 / 0')]);
query(q[SELECT imgpipe.run_job('broken')]);
ok(finds('jobs', 'warning: job "broken": its last run (%) failed: division by zero'), 'a job that failed');
query(q[SELECT imgpipe.unschedule('broken')]);
is(found('jobs'), '', 'until it is gone');

query(q[
	CREATE SERVER nowhere FOREIGN DATA WRAPPER imgpipe_kafka OPTIONS (bootstrap_servers '127.0.0.1:1');
	SELECT imgpipe.create_source('lost', server => 'nowhere', topic => 't');]);
query(q[SELECT imgpipe.start_source('lost')]);
ok(finds('sources', 'warning: source "lost" is retrying: %'), 'a source without its broker');
query(q[SELECT imgpipe.stop_source('lost')]);
ok(poll_until($node, q[SELECT count(*) FROM imgpipe.health_check() WHERE subject = 'sources' AND severity <> 'ok'], 0), 'until it is stopped');

# The decoder, and settings that are for tests.

is($node->safe_psql('postgres', q[SET imgpipe.allow_unsandboxed_decoder = on;
	SELECT severity, finding FROM imgpipe.health_check() WHERE subject = 'decoder']), 'critical|imgpipe.allow_unsandboxed_decoder is on', 'a sandbox that may be left away');
is($node->safe_psql('postgres', q[SET imgpipe.decoder_memory_limit = '64MB'; SET imgpipe.decoder_timeout = '100ms';
	SELECT count(*) > 10 FROM imgpipe.health_check()]), 't', 'it answers whatever the decoder does');

is($node->safe_psql('postgres', q[SELECT pg_backend_pid() AS pid, count(*) FROM imgpipe.decoder_sandbox() \gset
	\setenv BACKEND :pid
	\! kill -STOP $(cat /proc/$BACKEND/task/$BACKEND/children)
	SET imgpipe.decoder_timeout = '100ms';
	SELECT severity, finding FROM imgpipe.health_check() WHERE subject = 'decoder']), 'critical|image takes too long to work on', 'a decoder that does not answer');

$node->append_conf('postgresql.conf', "fsync = off\nmax_worker_processes = 3\nimgpipe.max_processors = 9");
$node->restart;
is(found('settings'), join("\n", 'critical: fsync = off', 'warning: max_worker_processes = 3, and imgpipe alone may need 12'), 'settings that do not fit');

$node->adjust_conf('postgresql.conf', 'shared_preload_libraries', "''");
$node->restart;
like(found('workers'), qr/^critical: imgpipe is not in shared_preload_libraries$/, 'no preload');

my ($status, $out, $err) = $node->psql('postgres', 'SET ROLE "odd Role"; SELECT * FROM imgpipe.health_check()');
isnt($status, 0, 'it is for the owner');
query('GRANT USAGE ON SCHEMA imgpipe TO "odd Role"; GRANT EXECUTE ON FUNCTION imgpipe.health_check() TO "odd Role"; GRANT SELECT ON imgpipe.settings TO "odd Role"');
is(query('SET ROLE "odd Role"; SELECT count(*) > 10 FROM imgpipe.health_check()'), 't', 'unless granted, to a monitoring role');
is(query(q[SET ROLE "odd Role"; SELECT setting, unit, changed_by FROM imgpipe.settings WHERE name = 'imgpipe.max_bytes']), '262144|kB|superusers, in a session',
	'settings are there without the preload');

$node->stop;
done_testing();
