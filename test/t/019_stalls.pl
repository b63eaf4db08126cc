# A message that is larger than the client may receive holds its partition up,
# and says so, while others go on.
use strict;
use warnings;

use ImgpipeTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $broker = start_broker();
my $bootstrap = $broker->bootstrap;
my $node = new_cluster('main', 'imgpipe.max_processors = 0');
my $photo = sample_image('small.jpg');

# A limit that is lower than the option may be, for want of a message of 129 MB.
$broker->create_topic('photos', 2, 'max.message.bytes=33554432');
$node->safe_psql('postgres', qq(
	CREATE SERVER kafka FOREIGN DATA WRAPPER imgpipe_kafka OPTIONS (bootstrap_servers '$bootstrap');
	UPDATE pg_foreign_server SET srvoptions = srvoptions || '{receive_message_max_bytes=2097152}';
	SELECT imgpipe.create_source('photos', 'kafka', 'photos', batch_bytes => 1048576);
	SELECT imgpipe.start_source('photos')));
$broker->produce('photos', [$photo], key => 'small', partition => 1);
ok(poll_until($node, 'SELECT state, messages FROM imgpipe.source_status', 'idle|1'), 'ingest runs');
$broker->produce('photos', [ sample_image('large.jpg') ], key => 'large', partition => 0);
my $shown = sub
{
	$broker->produce('photos', [$photo], key => 'small', partition => 1);
	return $node->safe_psql('postgres', 'SELECT state, last_error FROM imgpipe.source_status') =~
	  /^retrying\|no message has come from partition 0 of topic "photos" for 30 seconds although 1 are there: .*increase receive\.message\.max\.bytes/;
};
ok(poll_code($shown, 90), 'the partition that stands still is shown')
  or diag($node->safe_psql('postgres', 'SELECT state, last_error FROM imgpipe.source_status'));
my $small = $broker->message_count('photos') - 1;
ok(poll_until($node, "SELECT count(*) FROM imgpipe.images WHERE source_key = 'small'", $small), 'while the other one goes on');
is($node->safe_psql('postgres', "SELECT count(*) FROM imgpipe.dead_letters"), 0, 'nothing is left out');
is($node->safe_psql('postgres', "SELECT next_offset FROM imgpipe.source_partitions WHERE partition = 0"), 0, 'its position stays');

# With the limit raised it comes.
$node->safe_psql('postgres', "ALTER SERVER kafka OPTIONS (SET receive_message_max_bytes '268435456')");
ok(poll_until($node, "SELECT count(*) FROM imgpipe.images WHERE source_key = 'large'", 1), 'a higher limit lets it through');
ok(poll_until($node, 'SELECT state, lag_messages FROM imgpipe.source_status', 'idle|0'), 'idle');

$node->stop;
done_testing();
