# A range once more, on the side: exactly once, bounded, and without moving the source.
use strict;
use warnings;

use ImgpipeTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $broker = start_broker();
my $bootstrap = $broker->bootstrap;
my $node = new_cluster('main', 'imgpipe.max_processors = 0');
my $n = 400;
my @images = mass_images($n);

sub query { return $node->safe_psql('postgres', $_[0]) }

sub raises
{
	my ($statement, $code, $pattern, $name) = @_;
	my ($status, $out, $errors) = $node->psql('postgres', "\\set VERBOSITY verbose\n$statement");
	like($errors, qr/ERROR:  $code: .*$pattern/s, "$name: $code");
}

sub finished { my ($replay) = @_; return ok(poll_until($node, "SELECT state, lag_messages FROM imgpipe.source_status WHERE name = '$replay'", 'finished|0'), "$replay is through") }

$broker->create_topic('photos', 2);
for my $partition (0, 1)
{
	$broker->produce_many('photos', [ map { { file => $images[$_], key => "image $_", partition => $partition } } grep { $_ % 2 == $partition } 0 .. $n - 1 ]);
}
query(qq(
	CREATE ROLE team LOGIN; CREATE ROLE other;
	GRANT USAGE ON SCHEMA imgpipe TO team, other;
	GRANT INSERT ON imgpipe.images, imgpipe.dead_letters TO team;
	GRANT SELECT, INSERT, UPDATE, DELETE ON imgpipe.sources TO team, other;
	CREATE SERVER kafka FOREIGN DATA WRAPPER imgpipe_kafka OPTIONS (bootstrap_servers '$bootstrap');
	GRANT USAGE ON FOREIGN SERVER kafka TO team;
	CREATE TABLE public.again (LIKE imgpipe.images INCLUDING DEFAULTS INCLUDING GENERATED);
	CREATE TABLE public.other (image_id uuid, content bytea);
	SET ROLE team;
	SELECT imgpipe.create_source('photos', 'kafka', 'photos', on_tombstone => 'delete', parallelism => 2, batch_rows => 20);
	SELECT imgpipe.start_source('photos')));
ok(poll_until($node, 'SELECT count(*) FROM imgpipe.images', $n), 'ingested');
my $positions = "SELECT string_agg(partition || '=' || next_offset || '/' || messages, ' ' ORDER BY partition) FROM imgpipe.source_partitions WHERE name = 'photos'";
ok(poll_until($node, $positions, '0=200/200 1=200/200'), 'to the end');

# By offsets, as another source.
is(query(q(SET ROLE team; SELECT imgpipe.replay_source('photos', '{"0": 10}', '{"0": 15}', as_source => 'repeated', replay => 'five'))), 'five', 'a replay');
finished('five');
is(query("SELECT string_agg(source_partition || ':' || source_offset, ' ' ORDER BY source_offset) FROM imgpipe.images WHERE source = 'repeated'"), '0:10 0:11 0:12 0:13 0:14', 'has its range and nothing else');
is(query($positions), '0=200/200 1=200/200', 'the source has not moved');
is(query("SELECT count(*) FROM (SELECT sha256 FROM imgpipe.images WHERE source = 'repeated' INTERSECT SELECT sha256 FROM imgpipe.images WHERE source = 'photos') x"), 5, 'the same files');

# What cannot be.
raises("SELECT imgpipe.replay_source('nothing')", '42704', 'does not exist', 'no source');
raises("SET ROLE other; SELECT imgpipe.replay_source('photos')", '42501', 'must be owner', 'who does not own it');
raises("SELECT imgpipe.replay_source('photos', 'latest')", '22023', 'not a range', 'from the end');
raises("SELECT imgpipe.replay_source('photos', partitions => '{-1}')", '22023', 'partitions \{-1\}', 'no partition');
raises("SELECT imgpipe.replay_source('photos', replay => 'five')", '42710', 'already exists', 'a name twice');
raises("SELECT imgpipe.replay_source('photos', target => 'other')", '42703', 'no column content, source', 'a table without the columns');
raises("SELECT imgpipe.replay_source('photos', target => 'again')", '42501', 'GRANT INSERT ON public.again TO team', 'a table that its owner may not write');

# Into another table, while workers are killed: each message once.
query(q(GRANT INSERT ON public.again TO team;
	CREATE FUNCTION public.slowly() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.01); RETURN NEW; END';
	CREATE TRIGGER slowly BEFORE INSERT ON public.again FOR EACH ROW EXECUTE FUNCTION public.slowly();
	SELECT imgpipe.replay_source('photos', target => 'again', replay => 'all')));
for my $at (50, 200)
{
	ok(poll_until($node, "SELECT count(*) >= $at FROM public.again"), "$at are there");
	my ($pid) = split /\n/, query("SELECT pid FROM imgpipe.worker_slots() WHERE kind = 'ingest' AND pid IS NOT NULL AND object = (SELECT source_id FROM imgpipe.sources WHERE name = 'all')");
	my $recoveries = () = slurp_file($node->logfile) =~ /all server processes terminated; reinitializing/g;
	is(kill('KILL', $pid), 1, 'a worker is killed');
	ok(poll_code(sub { (() = slurp_file($node->logfile) =~ /all server processes terminated; reinitializing/g) > $recoveries }), 'the server recovers');
}
finished('all');
is(query('SELECT count(*), count(DISTINCT (source_partition, source_offset)), min(source) FROM public.again'), "$n|$n|photos", 'every message once');
is(query("SELECT count(*) FROM imgpipe.images WHERE source = 'photos'"), $n, 'and none elsewhere');
ok(poll_until($node, $positions, '0=200/200 1=200/200'), 'the source has not moved');

# A tombstone takes what came before it, in a replay too.
$broker->produce_many('photos', [ { key => 'image 0', value => undef, partition => 0 }, { key => 'image 0', file => $images[0], partition => 0 } ]);
ok(poll_until($node, "SELECT string_agg(source_offset::text, ' ') FROM imgpipe.images WHERE source = 'photos' AND source_key = 'image 0'", '201'), 'a tombstone and a new image');
query(q(SELECT imgpipe.replay_source('photos', '{"0": 0}', '{"0": 201}', replay => 'before')));
finished('before');
is(query("SELECT string_agg(source_offset::text, ' ') FROM imgpipe.images WHERE source = 'photos' AND source_key = 'image 0'"), '201', 'what came after it stays, what came before it does not come back');
is(query("SELECT count(*) FROM imgpipe.images WHERE source = 'photos'"), $n + $n / 2 - 1, 'the others of the partition are there twice');

# What is past its retention comes back only where it is asked for.
$node->append_conf('postgresql.conf', "imgpipe.max_retention = '30 d'");
$node->reload;
query(q(UPDATE imgpipe.sources SET retention = '1 minute' WHERE name = 'photos'));
ok(poll_until($node, q(SELECT min(clock_timestamp() - source_timestamp) > interval '1 minute' FROM imgpipe.images WHERE source_partition = 1), 't'), 'a minute has passed');
query(q(TRUNCATE public.again; SELECT imgpipe.replay_source('photos', '{"1": 0}', '{"1": 10}', target => 'again', replay => 'expired')));
finished('expired');
is(query('SELECT count(*) FROM public.again'), 0, 'nothing is resurrected');
query(q(SELECT imgpipe.replay_source('photos', '{"1": 0}', '{"1": 10}', target => 'again', restore_expired => true, replay => 'restored')));
finished('restored');
is(query('SELECT count(*) FROM public.again'), 10, 'unless it is to be');

# By time, canceled, and cleared away.
query(q(SELECT imgpipe.replay_source('photos', '2000-01-01', '2001-01-01', replay => 'long.ago')));
finished('long.ago');
is(query("SELECT sum(messages) FROM imgpipe.source_partitions WHERE name = 'long.ago'"), 0, 'of that time there is nothing');
query(q(SELECT imgpipe.replay_source('photos', target => 'again', restore_expired => true, replay => 'canceled')));
ok(poll_until($node, 'SELECT count(*) > 20 FROM public.again'), 'another has begun');
query("SELECT imgpipe.stop_source('canceled')");
ok(poll_until($node, "SELECT state FROM imgpipe.source_status WHERE name = 'canceled'", 'stopped'), 'is stopped');
query("SELECT imgpipe.drop_source(name) FROM imgpipe.sources WHERE end_at IS NOT NULL");
is(query("SELECT string_agg(name, ' ') FROM imgpipe.sources"), 'photos', 'all are cleared away');

$node->stop;
done_testing();
