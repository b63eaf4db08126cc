# The broker goes away and comes back; ingest says so and goes on by itself.
use strict;
use warnings;

use ImgpipeTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $outage = 20;				# seconds
my $broker = start_broker();
my $bootstrap = $broker->bootstrap;
my $node = new_cluster('main', 'imgpipe.max_processors = 0');
my @images = mass_images(1200);
my $status = 'SELECT state, workers, lag_messages FROM imgpipe.source_status';

$broker->create_topic('photos', 4);
$node->safe_psql('postgres', qq(
	CREATE SERVER kafka FOREIGN DATA WRAPPER imgpipe_kafka OPTIONS (bootstrap_servers '$bootstrap');
	SELECT imgpipe.create_source('photos', 'kafka', 'photos', parallelism => 2, batch_rows => 20);
	SELECT imgpipe.start_source('photos')));
$broker->produce('photos', [ @images[ 0 .. 399 ] ], key => 'before');
ok(poll_until($node, 'SELECT count(*) > 0 FROM imgpipe.images', 't'), 'ingest runs');

# In mid-load, where the machine is not too fast.
$broker->kill_hard;
my $down = time;
ok(poll_until($node, 'SELECT state, last_error FROM imgpipe.source_status', qr/^retrying\|no answer from a Kafka broker.*refused/), 'status shows the outage');
my @pids = worker_pids($node, 'ingest');
my $seen = '';
poll_code(sub { $seen .= $node->safe_psql('postgres', 'SELECT state FROM imgpipe.source_status') . ' '; time - $down > $outage });
unlike($seen, qr/running|idle|stopped|failed/, "and goes on to show it for $outage seconds");
ok(poll_code(sub { my ($out) = $node->psql('postgres', "SELECT imgpipe.stop_source('photos')"); 1 }), 'a source can be stopped meanwhile');
ok(poll_until($node, $status, qr/^stopped\|0\|/, 20), 'and stops');
$node->safe_psql('postgres', "SELECT imgpipe.start_source('photos')");
ok(poll_until($node, $status, qr/^retrying\|2\|/), 'started without a broker');

@pids = worker_pids($node, 'ingest');
$broker->start;
ok(poll_until($node, $status, 'idle|2|0'), 'it goes on when the broker is back');
is(join(' ', worker_pids($node, 'ingest')), join(' ', @pids), 'in the same processes');

$broker->produce('photos', [ @images[ 400 .. 799 ] ], key => 'between');
ok(poll_until($node, "SELECT count(*) FROM imgpipe.images WHERE source_key = 'between'", 400), 'what came after the outage');

# A restart of the broker under workers that are up.
$broker->restart;
$broker->produce('photos', [ @images[ 800 .. 1199 ] ], key => 'after');
ok(poll_until($node, "SELECT count(*) FROM imgpipe.images WHERE source_key = 'after'", 400), 'what came after the restart');
ok(poll_until($node, $status, 'idle|2|0'), 'idle again');
is(join(' ', worker_pids($node, 'ingest')), join(' ', @pids), 'still in the same processes');
is($node->safe_psql('postgres', 'SELECT count(*), count(DISTINCT (source_partition, source_offset)), count(DISTINCT sha256) FROM imgpipe.images'),
	'1200|1200|1200', 'every message is one image');
is($node->safe_psql('postgres', 'SELECT count(*) FROM imgpipe.dead_letters'), 0, 'and none a dead letter');

# A broker that swallows everything: a source can still be stopped at once.
kill 'STOP', (split ' ', slurp_file("$broker->{dir}/pid"))[0];
ok(poll_until($node, 'SELECT state FROM imgpipe.source_status', 'retrying', 120), 'a broker that does not answer is shown');
$node->safe_psql('postgres', "SELECT imgpipe.stop_source('photos')");
ok(poll_until($node, $status, qr/^stopped\|0\|/), 'and does not keep the source from being stopped');
kill 'CONT', (split ' ', slurp_file("$broker->{dir}/pid"))[0];

$node->stop;
done_testing();
