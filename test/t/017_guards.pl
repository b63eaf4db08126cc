# Another cluster under the same address is no continuation.
use strict;
use warnings;

use ImgpipeTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $first = start_broker(name => 'first');
my $second = start_broker(name => 'second');
my $node = new_cluster('main', 'imgpipe.max_processors = 0');
my $photo = sample_image('small.jpg');
my $state = "SELECT state, lag_messages FROM imgpipe.source_status";

# The same topic in both, so that nothing but the cluster tells them apart: no message was ingested yet.
$_->create_topic('photos', 2) for $first, $second;
$node->safe_psql('postgres', sprintf q(
	CREATE SERVER kafka FOREIGN DATA WRAPPER imgpipe_kafka OPTIONS (bootstrap_servers '%s');
	SELECT imgpipe.create_source('photos', 'kafka', 'photos');
	SELECT imgpipe.start_source('photos')), $first->bootstrap);
ok(poll_until($node, $state, 'idle|0'), 'the first cluster');
my $cluster = $node->safe_psql('postgres', 'SELECT cluster_id FROM imgpipe.sources');
my ($told) = slurp_file("$first->{dir}/data/meta.properties") =~ /^cluster\.id=(\S+)/m;
is($cluster, $told, 'its name is kept with the source');

$second->produce('photos', [ ($photo) x 3 ], key => 'second');
$node->safe_psql('postgres', sprintf q(ALTER SERVER kafka OPTIONS (SET bootstrap_servers '%s')), $second->bootstrap);
ok(poll_until($node, 'SELECT state, last_error FROM imgpipe.source_status', qr/^retrying\|server "kafka" leads to Kafka cluster \S+ now, and source "photos" was ingested from \Q$told\E/), 'another cluster is an error');
is($node->safe_psql('postgres', 'SELECT count(*) FROM imgpipe.images'), 0, 'and nothing of it is ingested');

# Back again by itself, or forward where it is told to.
$node->safe_psql('postgres', sprintf q(ALTER SERVER kafka OPTIONS (SET bootstrap_servers '%s')), $first->bootstrap);
ok(poll_until($node, $state, 'idle|0'), 'the first one again');
$first->produce('photos', [$photo], key => 'first', partition => 0);
ok(poll_until($node, 'SELECT source_key FROM imgpipe.images', 'first'), 'goes on');
$node->safe_psql('postgres', "SELECT imgpipe.stop_source('photos')");
ok(poll_until($node, 'SELECT state FROM imgpipe.source_status', 'stopped'), 'stopped');
$node->safe_psql('postgres', sprintf q(
	ALTER SERVER kafka OPTIONS (SET bootstrap_servers '%s');
	SELECT imgpipe.seek_source('photos', 'earliest');
	SELECT imgpipe.start_source('photos')), $second->bootstrap);
ok(poll_until($node, "SELECT count(*) FROM imgpipe.images WHERE source_key = 'second'", 3), 'the second cluster, as told');
isnt($node->safe_psql('postgres', 'SELECT cluster_id FROM imgpipe.sources'), $told, 'its name is kept now');

$node->stop;
done_testing();
