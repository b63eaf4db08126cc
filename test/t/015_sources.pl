# Where sources begin, how they are moved, changed, shared and held back.
use strict;
use warnings;

use ImgpipeTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $broker = start_broker();
my $bootstrap = $broker->bootstrap;
my $node = new_cluster('main', 'imgpipe.max_processors = 0');
my $photo = sample_image('small.jpg');

# Keys p0 .. p3 in partitions 0 and 1, then a moment, then late ones.
$broker->create_topic('photos', 4);
for my $partition (0 .. 3)
{
	$broker->produce_many('photos', [ map { { file => $photo, key => "p$partition-$_", partition => $partition } } 0 .. 4 ]);
}
my $moment = $node->safe_psql('postgres', 'SELECT clock_timestamp()');
for my $partition (0, 1)
{
	$broker->produce_many('photos', [ map { { file => $photo, key => "p$partition-$_", partition => $partition } } 5 .. 6 ]);
}
$node->safe_psql('postgres', "CREATE SERVER kafka FOREIGN DATA WRAPPER imgpipe_kafka OPTIONS (bootstrap_servers '$bootstrap')");

# What a source has ingested, as first-last offset and count of each partition.
sub ingested
{
	my ($name) = @_;
	return "SELECT string_agg(format('%s:%s-%s/%s', p, first, last, n), ' ' ORDER BY p) FROM (SELECT source_partition, min(source_offset), "
	  . "max(source_offset), count(*) FROM imgpipe.images WHERE source = '$name' GROUP BY 1) i (p, first, last, n)";
}

sub start
{
	my ($name, $options) = @_;
	$node->safe_psql('postgres', "SELECT imgpipe.create_source('$name', 'kafka', 'photos', $options); SELECT imgpipe.start_source('$name')");
}

# Several sources of one topic, each from another place.
start('earliest', "start_from => 'earliest'");
start('offsets', q(start_from => '{"0": 3, "3": 5}', parallelism => 2));
start('moment', "start_from => '$moment'");
start('latest', "start_from => 'latest'");
start('slice0', 'slice => 0, slices => 3');
start('slice1', 'slice => 1, slices => 3, parallelism => 2');
my %expected = (
	earliest => '0:0-6/7 1:0-6/7 2:0-4/5 3:0-4/5',
	offsets => '0:3-6/4 1:0-6/7 2:0-4/5',
	moment => '0:5-6/2 1:5-6/2',
	slice0 => '0:0-6/7 3:0-4/5',
	slice1 => '1:0-6/7');
for my $name (sort keys %expected)
{
	ok(poll_until($node, ingested($name), $expected{$name}), "source $name");
}
ok(poll_until($node, "SELECT name, state, partitions, lag_messages FROM imgpipe.source_status WHERE name ~ 'slice|latest' ORDER BY name",
		"latest|idle|4|0\nslice0|idle|2|0\nslice1|idle|1|0"), 'slices count their own partitions');
is($node->safe_psql('postgres', ingested('latest')), '', 'latest has none of what was there');
is($node->safe_psql('postgres', "SELECT partition, next_offset, high_watermark, lag_messages, lag_seconds, messages, bytes = messages * " . (-s $photo)
		. ", dead_letters FROM imgpipe.source_partitions WHERE name = 'earliest' ORDER BY partition"),
	"0|7|7|0|0|7|t|0\n1|7|7|0|0|7|t|0\n2|5|5|0|0|5|t|0\n3|5|5|0|0|5|t|0", 'source_partitions');
$node->safe_psql('postgres', 'SELECT imgpipe.stop_source(name) FROM imgpipe.sources');
ok(poll_until($node, "SELECT count(*) FROM imgpipe.source_status WHERE state <> 'stopped'", 0), 'all stopped');

# Moved by offsets, by time, to an end.
sub seek_to
{
	my ($name, $arguments, $result) = @_;
	$node->safe_psql('postgres', "DELETE FROM imgpipe.images WHERE source = '$name'; SELECT imgpipe.seek_source('$name', $arguments); SELECT imgpipe.start_source('$name')");
	ok(poll_until($node, "SELECT state, lag_messages FROM imgpipe.source_status WHERE name = '$name'", 'idle|0'), "idle after a seek to $arguments");
	is($node->safe_psql('postgres', ingested($name)), $result, "seek to $arguments");
	$node->safe_psql('postgres', "SELECT imgpipe.stop_source('$name')");
	ok(poll_until($node, "SELECT state FROM imgpipe.source_status WHERE name = '$name'", 'stopped'), 'stopped');
}
seek_to('earliest', q('{"1": 6}'), '1:6-6/1');
seek_to('earliest', "'$moment'", '0:5-6/2 1:5-6/2');
seek_to('earliest', "'latest'", '');
seek_to('earliest', "'earliest'", $expected{earliest});
is($node->safe_psql('postgres', "SELECT sum(messages) FROM imgpipe.source_partitions WHERE name = 'earliest'"), 24 + 1 + 4 + 24, 'totals are kept');

# What was purged does not come back with a seek, unless asked: here by a retention that is shorter now.
$node->safe_psql('postgres', "SELECT imgpipe.alter_source('earliest', retention => '1 minute')");
$node->safe_psql('postgres', "SELECT pg_sleep(greatest(0, 62 - extract(epoch FROM clock_timestamp() - '$moment'::timestamptz)))");
$broker->produce('photos', [$photo], key => 'fresh', partition => 2);
seek_to('earliest', "'earliest'", '2:5-5/1');
is($node->safe_psql('postgres', "SELECT sum(messages), sum(dead_letters), sum(lag_messages) FROM imgpipe.source_partitions WHERE name = 'earliest'"), '78|0|0', 'what is left out is counted');
seek_to('earliest', "'earliest', restore_expired => true", '0:0-6/7 1:0-6/7 2:0-5/6 3:0-4/5');
is($node->safe_psql('postgres', "SELECT retention FROM imgpipe.sources WHERE name = 'earliest'"), '00:01:00', 'altered');
$node->safe_psql('postgres', "SELECT imgpipe.alter_source('earliest', retention => '0')");
is($node->safe_psql('postgres', "SELECT retention IS NULL FROM imgpipe.sources WHERE name = 'earliest'"), 't', 'and back to the default');

# Options change under a running source: every message once all the same.
{
	my @images = mass_images(1500);
	$broker->create_topic('many', 4);
	$node->safe_psql('postgres', "SELECT imgpipe.create_source('many', 'kafka', 'many', batch_rows => 20); SELECT imgpipe.start_source('many')");
	$broker->produce('many', [ @images[ 0 .. 699 ] ]);
	$node->safe_psql('postgres', "SELECT imgpipe.alter_source('many', parallelism => 3, batch_rows => 50, linger_ms => 0)");
	$broker->produce('many', [ @images[ 700 .. 1199 ] ]);
	ok(poll_until($node, "SELECT workers, parallelism, batch_rows FROM imgpipe.source_status JOIN imgpipe.sources USING (name) WHERE name = 'many'", '3|3|50'), 'three workers now');
	$node->safe_psql('postgres', "SELECT imgpipe.alter_source('many', parallelism => 2, retention => '3 days')");
	$broker->produce('many', [ @images[ 1200 .. 1499 ] ]);
	ok(poll_until($node, "SELECT state, workers, lag_messages FROM imgpipe.source_status WHERE name = 'many'", 'idle|2|0'), 'and two');
	is($node->safe_psql('postgres', "SELECT count(*), count(DISTINCT (source_partition, source_offset)), count(DISTINCT sha256) FROM imgpipe.images WHERE source = 'many'"),
		'1500|1500|1500', 'every message is one image');
	is($node->safe_psql('postgres', "SELECT sum(messages) FROM imgpipe.source_partitions WHERE name = 'many'"), 1500, 'counted once');
	$node->restart;
	is($node->safe_psql('postgres', "SELECT sum(messages) FROM imgpipe.source_partitions WHERE name = 'many'"), 1500, 'the count survives a restart');
	$broker->produce('many', [ $photo ], key => 'altered');
	ok(poll_until($node, "SELECT imgpipe.purge_at(image_id) - received_at BETWEEN interval '71 hours 59 minutes' AND interval '72 hours 1 second' FROM imgpipe.images WHERE source_key = 'altered'", 't'), 'the new retention holds');
}

# A long queue holds ingest back, and Kafka keeps the rest.
my %before = map { $_ => 1 } worker_pids($node, 'ingest');
$node->safe_psql('postgres', q(
	SELECT imgpipe.create_processor('web', '{"thumb": "resize(width=64) | webp"}');
	SELECT imgpipe.alter_source('many', max_backlog => 30, batch_rows => 10, parallelism => 1)));
ok(poll_code(sub { my @now = worker_pids($node, 'ingest'); @now == 1 && !$before{ $now[0] } }), 'a new worker takes the change');
$broker->produce('many', [ mass_images(200) ], key => 'held');
ok(poll_until($node, "SELECT state FROM imgpipe.source_status WHERE name = 'many'", 'waiting'), 'ingest waits for the queue');
ok(poll_until($node, "SELECT lag_messages > 100 FROM imgpipe.source_status WHERE name = 'many'", 't'), 'with the lag shown');
my $tasks = $node->safe_psql('postgres', 'SELECT count(*) FROM imgpipe.tasks');
cmp_ok($tasks, '>', 30, 'more than max_backlog tasks are queued');
cmp_ok($tasks, '<', 150, 'and not many more');
$node->safe_psql('postgres', "SELECT imgpipe.alter_source('many', max_backlog => 0)");
ok(poll_until($node, "SELECT count(*) FROM imgpipe.images WHERE source_key = 'held'", 200), 'without a limit all comes');
$node->safe_psql('postgres', "SELECT imgpipe.drop_processor('web')");

# Positions told to Kafka, for those who watch groups.
$node->safe_psql('postgres', "SELECT imgpipe.alter_source('many', consumer_group => 'imgpipe-watch')");
my $committed = sub {
	my $described = $broker->group_offsets('imgpipe-watch');
	my $offsets = $node->safe_psql('postgres', "SELECT string_agg(partition || '=' || next_offset, ' ' ORDER BY partition) FROM imgpipe.source_partitions WHERE name = 'many'");
	return $described eq $offsets;
};
ok(poll_code($committed, 90), 'the group has the positions') or diag($broker->group_offsets('imgpipe-watch'));

$node->stop;
done_testing();
