# Messages that are no image, and rows that are refused: dead letters with the
# reason, and the rest goes on.
use strict;
use warnings;

use ImgpipeTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $broker = start_broker();
my $bootstrap = $broker->bootstrap;
my $node = new_cluster('main', 'imgpipe.max_processors = 1');
my $photo = sample_image('small.jpg');

$broker->create_topic('mixed', 1, 'max.message.bytes=33554432');
$node->safe_psql('postgres', qq(
	CREATE SERVER kafka FOREIGN DATA WRAPPER imgpipe_kafka OPTIONS (bootstrap_servers '$bootstrap');
	SELECT imgpipe.create_processor('web', '{"thumb": "resize(width=64) | webp"}');
	SELECT imgpipe.create_source('mixed', 'kafka', 'mixed', batch_bytes => 1048576, linger_ms => 200)));

my @messages = (
	{ file => $photo, key => 'good 1' },
	{ file => sample_image('large.jpg'), key => 'large', headers => { note => 'ten megabytes' } },
	{ value => '', key => 'empty' },
	{ value => undef, key => 'tombstone' },
	{ value => 'no image at all', key => 'text' },
	{ file => sample_image('truncated.jpg'), key => 'truncated' },
	{ file => sample_image('header_only.jpg'), key => 'header only' },
	{ file => sample_image('huge.png'), key => 'huge' },
	{ file => $photo, key => 'good 2' });
$broker->produce_many('mixed', [$_]) for @messages;
$node->safe_psql('postgres', "SELECT imgpipe.start_source('mixed')");

ok(poll_until($node, 'SELECT state, lag_messages, messages, dead_letters FROM imgpipe.source_status', 'idle|0|9|5'), 'all messages are in');
is($node->safe_psql('postgres', "SELECT string_agg(source_key, ', ' ORDER BY source_offset) FROM imgpipe.images"),
	'good 1, large, truncated, good 2', 'images');
is($node->safe_psql('postgres', "SELECT source_key, sqlstate, reason, coalesce(length(value)::text, 'null'), stage FROM imgpipe.dead_letters WHERE stage = 'ingest' ORDER BY source_offset"),
	join("\n",
		'empty|22P03|message is empty|0|ingest',
		'tombstone|22P03|message has no value|null|ingest',
		'text|22P03|bytes are not an image of a known format|15|ingest',
		'header only|22P03|invalid or damaged jpeg image|' . (-s sample_image('header_only.jpg')) . '|ingest',
		'huge|54000|image has too many pixels|' . (-s sample_image('huge.png')) . '|ingest'),
	'dead letters with their reasons');
like($node->safe_psql('postgres', "SELECT detail FROM imgpipe.dead_letters WHERE source_key = 'huge'"), qr/65536 x 65536/, 'detail of the huge one');
is($node->safe_psql('postgres', "SELECT bytes = " . (-s sample_image('large.jpg')) . ", headers FROM imgpipe.images WHERE source_key = 'large'"),
	't|{"note": "ten megabytes"}', 'ten megabytes arrived whole');

# A truncated photograph has a good beginning: it ends as a dead letter of processing.
ok(poll_until($node, "SELECT stage, processor, source, source_offset FROM imgpipe.dead_letters WHERE stage = 'processing'", 'processing|web|mixed|5'), 'a truncated image fails in processing');
ok(poll_until($node, 'SELECT count(*) FROM imgpipe.renditions', 3), 'the others are processed');

# A row that its table refuses is found among many, by its own fault alone.
$node->safe_psql('postgres', q(
	ALTER TABLE imgpipe.images ADD CONSTRAINT no_poison CHECK (source_key <> 'poison');
	CREATE FUNCTION public.full_disk() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
		IF NEW.source_key = 'disk' AND EXISTS (SELECT FROM public.trouble) THEN
			RAISE EXCEPTION 'no space left, says the test' USING ERRCODE = '53100';
		END IF;
		RETURN NEW;
	END $$;
	CREATE TABLE public.trouble ();
	CREATE TRIGGER full_disk BEFORE INSERT ON imgpipe.images FOR EACH ROW EXECUTE FUNCTION public.full_disk()));
$broker->produce_many('mixed', [ map { { file => $photo, key => $_ } } map({"before $_"} 1 .. 37), 'poison', map({"after $_"} 1 .. 62) ]);
ok(poll_until($node, 'SELECT state, lag_messages, messages, dead_letters FROM imgpipe.source_status', 'idle|0|109|6'), 'a refused row holds nothing up');
is($node->safe_psql('postgres', "SELECT sqlstate, reason FROM imgpipe.dead_letters WHERE source_key = 'poison'"),
	'23514|new row for relation "images_' . $node->safe_psql('postgres', "SELECT substr(tableoid::regclass::text, length('imgpipe_partitions.images_') + 1) FROM imgpipe.images WHERE source_key = 'after 1'") . '" violates check constraint "no_poison"',
	'and is the one dead letter');
is($node->safe_psql('postgres', "SELECT count(*), count(DISTINCT source_offset), count(*) FILTER (WHERE source_key = 'poison') FROM imgpipe.images WHERE source_offset >= 9"),
	'99|99|0', 'all others are images, once');

# A full disk is nobody's fault: nothing becomes a dead letter, nothing is left out.
$node->safe_psql('postgres', 'INSERT INTO public.trouble DEFAULT VALUES');
$broker->produce_many('mixed', [ map { { file => $photo, key => $_ } } 'disk', 'behind it' ]);
ok(poll_until($node, 'SELECT state, lag_messages, last_error FROM imgpipe.source_status', 'retrying|2|no space left, says the test'), 'a full disk holds it up');
$node->safe_psql('postgres', 'DELETE FROM public.trouble');
ok(poll_until($node, 'SELECT state, lag_messages, dead_letters FROM imgpipe.source_status', 'idle|0|6'), 'and then it goes on');
is($node->safe_psql('postgres', "SELECT string_agg(source_key, ', ' ORDER BY source_offset) FROM imgpipe.images WHERE source_offset > 108"), 'disk, behind it', 'with both');

# Nor is a missing partition, which PostgreSQL reports as a check that failed.
$node->safe_psql('postgres', "SELECT imgpipe.stop_source('mixed')");
ok(poll_until($node, 'SELECT state FROM imgpipe.source_status', 'stopped'), 'stopped');
my $dead_letters = "SELECT count(*) FROM imgpipe.dead_letters WHERE stage = 'ingest'";
my $before = $node->safe_psql('postgres', $dead_letters);
$node->append_conf('postgresql.conf', "imgpipe.max_retention = '40d'");
$node->reload;
$node->safe_psql('postgres', "UPDATE imgpipe.sources SET retention = '40 days'");
$node->safe_psql('postgres', "SELECT imgpipe.start_source('mixed')");
$broker->produce('mixed', [$photo], key => 'far');
ok(poll_until($node, "SELECT count(*) FROM imgpipe.images WHERE source_key = 'far'", 1, 300), 'a partition that is missing is waited for');
is($node->safe_psql('postgres', $dead_letters), $before, 'without a dead letter');

# A decoder that is killed is not the image's fault.
{
	my $arrived = 'SELECT count(*) FROM imgpipe.images WHERE source_offset > 111';
	my $killed = 0;
	$broker->produce_many('mixed', [ map { { file => $_ } } mass_images(600) ]);
	poll_code(sub { $killed += kill 'KILL', decoder_pids($node); $node->safe_psql('postgres', $arrived) >= 600 });
	cmp_ok($killed, '>', 0, 'decoders are killed under load');
	is($node->safe_psql('postgres', 'SELECT count(*), count(DISTINCT source_offset) FROM imgpipe.images WHERE source_offset > 111'),
		'600|600', 'every image arrives all the same');
	is($node->safe_psql('postgres', $dead_letters), $before, 'without a dead letter');
	unlike(slurp_file($node->logfile), qr/all server processes terminated/, 'the server did not notice');
}

$node->stop;
done_testing();
