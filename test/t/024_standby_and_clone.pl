# A standby is promoted in mid-ingest and goes on; a base backup that is restored is a copy, and waits until it is adopted.
use strict;
use warnings;

use ImgpipeTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $n_images = 2000;
my $n_bad = 100;
my $partitions = 4;

my $broker = start_broker();
my $bootstrap = $broker->bootstrap;
my $node = PostgreSQL::Test::Cluster->new('main');
$node->init(allows_streaming => 1);
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'imgpipe'\nmax_worker_processes = 32\nimgpipe.max_processors = 0\nsynchronous_commit = on");
$node->start;
my @images = mass_images($n_images);
$broker->create_topic('photos', $partitions);

# Every message has a key of its own.
sub produce
{
	my ($from, $to) = @_;
	$broker->produce_many('photos', [
		(map { { file => $images[$_], key => "image $_" } } $from .. $to),
		(map { { value => "no image $_", key => "bad $_" } } grep { $_ >= $from && $_ <= $to } map { $_ * 20 } 0 .. $n_bad - 1) ]);
}
produce(0, 799);

$node->safe_psql('postgres', qq(
	CREATE EXTENSION imgpipe;
	CREATE FUNCTION public.slowly() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.01); RETURN NEW; END';
	CREATE TRIGGER slowly BEFORE INSERT ON imgpipe.images FOR EACH ROW EXECUTE FUNCTION public.slowly();
	CREATE SERVER kafka FOREIGN DATA WRAPPER imgpipe_kafka OPTIONS (bootstrap_servers '$bootstrap');
	SELECT imgpipe.create_source('photos', 'kafka', 'photos', parallelism => 2, batch_rows => 10);
	SELECT imgpipe.start_source('photos')));

sub mid_load
{
	my ($server, $at) = @_;
	ok(poll_until($server, "SELECT count(*) >= $at FROM imgpipe.images", 't'), $server->name . ": $at images are there");
}

# Each key and each offset once, in one table or the other, and as many as were sent.
sub all_once
{
	my ($server, $images, $bad) = @_;
	my $name = $server->name;
	ok(poll_until($server, 'SELECT state, lag_messages FROM imgpipe.source_status', 'idle|0'), "$name: ingest is through");
	is($server->safe_psql('postgres', 'SELECT count(*), count(DISTINCT source_key), count(DISTINCT sha256), count(DISTINCT (source_partition, source_offset)) FROM imgpipe.images'),
		join('|', ($images) x 4), "$name: $images images, each once");
	is($server->safe_psql('postgres', 'SELECT count(*), count(DISTINCT source_key) FROM imgpipe.dead_letters'), "$bad|$bad", "$name: $bad dead letters, each once");
	is($server->safe_psql('postgres', 'SELECT sum(next_offset) FROM imgpipe.ingest_positions'), $images + $bad, "$name: the positions say the same");
}

# Not by dropping the trigger: that locks partitions before their table, and an insert the other way round.
my $no_longer_slowly = "CREATE OR REPLACE FUNCTION public.slowly() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'";

# A base backup in mid-load, for a standby and for two copies.
mid_load($node, 100);
$node->backup('base');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'base', has_streaming => 1);
$standby->start;
ok(poll_until($node, "SELECT count(*), min(sync_state) FROM pg_stat_replication WHERE state = 'streaming'", '1|async'), 'the standby streams, asynchronously');
is(scalar(worker_pids($standby, 'ingest')), 0, 'and does not ingest');

# The primary dies with what the standby has not got; the standby reads it from Kafka again.
my $count = 'SELECT count(*) FROM imgpipe.images';
$standby->safe_psql('postgres', "ALTER SYSTEM SET primary_conninfo = ''");
$standby->reload;
ok(poll_until($standby, 'SELECT count(*) FROM pg_stat_wal_receiver', 0), 'the standby falls behind');
my $taken_over = $standby->safe_psql('postgres', $count);
produce(800, 1199);
mid_load($node, $taken_over + 200);
my $lost = $node->safe_psql('postgres', $count) - $taken_over;
$node->stop('immediate');
$standby->promote;
mid_load($standby, $taken_over + 50);
note "promoted with $taken_over of 1200 images, $lost committed ones were lost";
$standby->safe_psql('postgres', $no_longer_slowly);
produce(1200, 1599);
all_once($standby, 1600, 80);
produce(1600, 1999);

# A base backup that is restored, as it is or up to a moment, is a copy that leaves the topic alone.
for my $how ('as it is', 'by archive recovery')
{
	my $clone = PostgreSQL::Test::Cluster->new($how eq 'as it is' ? 'clone' : 'recovered');
	$clone->init_from_backup($node, 'base', $how eq 'as it is' ? () : (has_restoring => 1, standby => 0));
	$clone->append_conf('postgresql.conf', "restore_command = 'false'\nrecovery_target = 'immediate'\nrecovery_target_action = 'promote'")
	  if $how ne 'as it is';
	$clone->start;
	ok($clone->poll_query_until('postgres', 'SELECT NOT pg_is_in_recovery()'), "$how: recovered");
	my $images = $clone->safe_psql('postgres', 'SELECT count(*) FROM imgpipe.images');
	my $held = qr/^retrying\|.*adopt_source/;
	ok(poll_until($clone, 'SELECT state, last_error FROM imgpipe.source_status', $held), "$how: a copy is held up, and says why");
	$clone->restart;
	ok(poll_until($clone, 'SELECT state, last_error FROM imgpipe.source_status', $held), "$how: after a restart, too");
	$clone->stop('immediate');
	$clone->start;
	ok(poll_until($clone, 'SELECT state, last_error FROM imgpipe.source_status', $held), "$how: and after a crash");
	is($clone->safe_psql('postgres', 'SELECT count(*) FROM imgpipe.images'), $images, "$how: nothing was ingested");
	my $err = '';
	$clone->safe_psql('postgres', "SELECT imgpipe.stop_source('photos')");
	$clone->psql('postgres', "SELECT imgpipe.start_source('photos')", stderr => \$err);
	like($err, qr/was started in another database, of which this is a copy/, "$how: nor is it started by start_source()");
	$clone->safe_psql('postgres', "SELECT imgpipe.adopt_source('photos'); SELECT imgpipe.start_source('photos')");
	ok(poll_until($clone, "SELECT count(*) > $images FROM imgpipe.images", 't'), "$how: adopted, it ingests");
	$clone->restart;
	$clone->safe_psql('postgres', $no_longer_slowly);
	all_once($clone, 2000, 100);
	$clone->stop;
}
all_once($standby, 2000, 100);

# The first server comes back as it was: a restart is no copy.
$standby->stop;
$node->start;
all_once($node, 2000, 100);
$node->stop;
done_testing();
