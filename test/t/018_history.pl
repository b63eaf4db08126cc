# What is told of batches: of each transaction, and to who uploaded them.
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
my @images = mass_images(100);

$broker->create_topic('photos', 2);
$node->safe_psql('postgres', qq(
	CREATE SERVER kafka FOREIGN DATA WRAPPER imgpipe_kafka OPTIONS (bootstrap_servers '$bootstrap');
	SELECT imgpipe.create_processor('web', '{"thumb": "resize(width=64) | webp"}');
	SELECT imgpipe.create_source('photos', 'kafka', 'photos', batch_rows => 30);
	SELECT imgpipe.start_source('photos')));
my %upload = (batch_id => 'b1', batch_size => 103);
$broker->produce_many('photos', [
	(map { { file => $images[$_], key => "i$_", partition => $_ % 2, headers => \%upload } } 0 .. 99),
	{ value => 'no image', key => 'text', partition => 0, headers => \%upload } ]);
ok(poll_until($node, 'SELECT state, messages FROM imgpipe.source_status', 'idle|101'), 'ingested');

my $size = 8;
$size += -s $_ for @images;
is($node->safe_psql('postgres', "SELECT sum(messages), sum(dead_letters), sum(bytes), max(messages) <= 30, bool_and(began_at <= committed_at), min(source), max(worker) FROM imgpipe.ingest_batches"),
	"101|1|$size|t|t|photos|0", 'every message is in one batch');
is($node->safe_psql('postgres', q(
	SELECT key, min((value ->> 0)::bigint), max((value ->> 1)::bigint), sum((value ->> 1)::bigint - (value ->> 0)::bigint + 1)
		FROM imgpipe.ingest_batches, jsonb_each(offsets) GROUP BY key ORDER BY key)),
	"0|0|50|51\n1|0|49|50", 'with its offsets, none twice');

my $status = "SELECT expected, received, pending, processed, failed, rejected, complete FROM imgpipe.batch_status('b1')";
is($node->safe_psql('postgres', $status), '103|100|100|0|0|1|f', 'waiting for a processor');
$node->append_conf('postgresql.conf', 'imgpipe.max_processors = 2');
$node->reload;
ok(poll_until($node, $status, '103|100|0|100|0|1|f'), 'processed, and two have not come');
$broker->produce('photos', [ ($photo) x 2 ], key => 'late', partition => 1, headers => \%upload);
ok(poll_until($node, $status, '103|102|0|102|0|1|t'), 'complete');
is($node->safe_psql('postgres', "SELECT received, rejected, complete, expected IS NULL FROM imgpipe.batch_status('b2')"), '0|0|f|t', 'a batch that nobody knows');
$node->safe_psql('postgres', "INSERT INTO imgpipe.images (content, batch_id) VALUES (pg_read_binary_file('$photo'), 'b3')");
ok(poll_until($node, "SELECT received, processed, complete FROM imgpipe.batch_status('b3')", '1|1|t'), 'of an INSERT, without a size');

# The history is forgotten in time, and not kept where it is not wanted.
$node->safe_psql('postgres', "SELECT imgpipe.stop_source('photos')");
ok(poll_until($node, 'SELECT state FROM imgpipe.source_status', 'stopped'), 'stopped');
$node->safe_psql('postgres', "UPDATE imgpipe.ingest_batches SET committed_at = committed_at - interval '25 hours' WHERE messages <> 2");
ok(poll_until($node, 'SELECT count(*) FILTER (WHERE messages <> 2) FROM imgpipe.ingest_batches', 0), 'old batches are forgotten, while nothing is ingested too');
$node->safe_psql('postgres', "SELECT imgpipe.start_source('photos')");
$node->append_conf('postgresql.conf', 'imgpipe.ingest_history = 0');
$node->restart;
ok(poll_until($node, 'SELECT count(*) FROM imgpipe.ingest_batches', 0), 'without history the others are, too');
$broker->produce('photos', [$photo], key => 'unrecorded');
ok(poll_until($node, "SELECT count(*) FROM imgpipe.images WHERE source_key = 'unrecorded'", 1), 'ingested without history');
is($node->safe_psql('postgres', "SELECT count(*) FROM imgpipe.ingest_batches b, jsonb_each(b.offsets) WHERE b.committed_at > (SELECT received_at FROM imgpipe.images WHERE source_key = 'unrecorded')"), 0, 'no row for it');

$node->stop;
done_testing();
