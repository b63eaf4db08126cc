# What becomes of a source's images goes back to Kafka and to listeners: one
# message an image, with what was made of it or the error, in the order of the
# key, and copies of dead letters.
use strict;
use warnings;

use Digest::SHA qw(sha256_hex);
use ImgpipeTest;
use JSON::PP;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $broker = start_broker();
my $bootstrap = $broker->bootstrap;
my $node = new_cluster('main', 'imgpipe.max_processors = 2', 'timezone = Europe/Berlin');
my $listener = $node->background_psql('postgres');
$listener->query_safe('LISTEN done');

$broker->create_topic($_, 2) for qw(photos results);
$broker->create_topic('rejects', 1, 'max.message.bytes=10485760');
$node->safe_psql('postgres', qq(
	CREATE SERVER kafka FOREIGN DATA WRAPPER imgpipe_kafka OPTIONS (bootstrap_servers '$bootstrap');
	CREATE FUNCTION public.shape(imgpipe.image) RETURNS jsonb LANGUAGE plpgsql
		AS 'BEGIN RETURN jsonb_build_object(''wide'', imgpipe.image_width(\$1) > imgpipe.image_height(\$1)); END';
	SELECT imgpipe.create_processor('web', '{"small": "resize(width=32) | webp", "gray": "grayscale | jpeg(quality=50)"}');
	SELECT imgpipe.create_processor('shape', function => 'public.shape(imgpipe.image)');
	SELECT imgpipe.create_source('photos', 'kafka', 'photos', result_topic => 'results', dead_letter_topic => 'rejects', notify_channel => 'done');
	SELECT imgpipe.start_source('photos')));

my $photo = sample_image('photo.jpg');
my ($small) = mass_images(1);
my $raw_key = "\x00\xff\\";
$broker->produce('photos', [$photo], key => 'a', headers => { batch_id => 'b1', camera => 'left' });
$broker->produce_many('photos', [ { value => 'no image at all', key => 'b', headers => { batch_id => 'b1', camera => 'right' } } ]);
$broker->produce('photos', [$small], key => $raw_key);
$broker->produce('photos', [$small]);

my $sent = 'SELECT messages, refused FROM imgpipe.outbox_status';
ok(poll_until($node, $sent, '5|0'), 'five messages are sent');
is($node->safe_psql('postgres', 'SELECT count(*) FROM imgpipe.outbox'), 0, 'and the outbox is empty');
ok(poll_until($node, 'SELECT state, pending, ready FROM imgpipe.outbox_status', 'idle|0|0'), 'as its status says');

my @results = map { { %$_, json => decode_json($_->{value}) } } $broker->consume('results');
is(scalar(@results), 4, 'one result for each message');
my %result = map { $_->{json}{key} // 'none' => $_ } @results;
is(join('|', sort keys %result), '\\x00ff5c|a|b|none', 'with their keys');
is($result{'\\x00ff5c'}{key}, $raw_key, 'which are the same bytes');
is($result{none}{key}, undef, 'or none');

my $done = $result{a}{json};
my $row = decode_json($node->safe_psql('postgres', q(
	SELECT jsonb_build_object('image_id', image_id, 'width', width, 'height', height, 'bytes', bytes, 'partition', source_partition,
		'offset', source_offset, 'purge_at', imgpipe.purge_at(image_id) AT TIME ZONE 'UTC')
	FROM imgpipe.images WHERE source_key = 'a')));
is($done->{$_}, $row->{$_}, "its $_") for qw(image_id width height bytes partition offset);
is($done->{purge_at}, "$row->{purge_at}+00:00", 'its deadline, in UTC');
is($done->{sha256}, sha256_hex(slurp_file($photo)), 'its hash');
is(join('|', @$done{qw(status source batch_id format)}), 'done|photos|b1|jpeg', 'its status');
is_deeply($done->{errors}, [], 'no error');
is_deeply($done->{results}, [ { processor => 'shape', version => 1, result => { wide => JSON::PP::true } } ], 'what its function said');
is(join('|', map { @$_{qw(processor name version format)} } @{ $done->{outputs} }), 'web|gray|1|jpeg|web|small|1|webp', 'its renditions');
my %rendition = map { my ($name, @rest) = split /\|/; $name => join '|', @rest } split /\n/, $node->safe_psql('postgres',
	"SELECT name, width, height, bytes, encode(sha256(content::bytea), 'hex') FROM imgpipe.renditions WHERE image_id = '$row->{image_id}'");
is(join('|', @$_{qw(width height bytes sha256)}), $rendition{ $_->{name} }, "size and hash of $_->{name}") for @{ $done->{outputs} };
is($result{a}{headers}{'imgpipe-image-id'}, $row->{image_id}, 'a header with its id');
like($result{a}{headers}{'imgpipe-message-id'}, qr/^$row->{image_id}-\d+$/, 'and one to tell copies by');
is(join('|', map { $result{a}{headers}{"imgpipe-$_"} } qw(kind source partition offset)), "result|photos|$row->{partition}|$row->{offset}", 'and where it came from');

my $rejected = $result{b}{json};
is(join('|', @$rejected{qw(status key batch_id)}), 'rejected|b|b1', 'what is no image is told too');
is_deeply($rejected->{outputs}, [], 'without outputs');
is(join('|', map { @$_{qw(stage sqlstate reason)} } @{ $rejected->{errors} }), 'ingest|22P03|bytes are not an image of a known format', 'and why');

my ($letter) = $broker->consume('rejects');
is($letter->{value}, 'no image at all', 'the dead letter is copied');
is($letter->{key}, 'b', 'with its key');
is($letter->{headers}{camera}, 'right', 'its headers');
is(join('|', map { $letter->{headers}{"imgpipe-$_"} // '' } qw(kind stage sqlstate reason source partition offset)),
	"dead_letter|ingest|22P03|bytes are not an image of a known format|photos|$rejected->{partition}|$rejected->{offset}", 'and the reason');

# Listeners.
my %heard;
poll_code(sub {
	my $said = $listener->query_safe('SELECT 1');
	$heard{ decode_json($1)->{image_id} } = $1 while $said =~ /notification "done" with payload "(\{.*?\})" received/g;
	return keys %heard == 4;
});
is(scalar(keys %heard), 4, 'a listener hears of each');
is_deeply(decode_json($heard{ $row->{image_id} } // '{}'), { image_id => $row->{image_id}, source => 'photos', status => 'done' }, 'that it is done');
is(decode_json($heard{ $rejected->{image_id} } // '{}')->{status}, 'rejected', 'or rejected');

# Nobody can have the source send what did not come from its topic.
$node->safe_psql('postgres', q(INSERT INTO imgpipe.images (content, source, source_key) SELECT content, 'photos', 'forged' FROM imgpipe.images LIMIT 1));
$node->safe_psql('postgres', q(INSERT INTO imgpipe.images (content) SELECT content FROM imgpipe.images LIMIT 1));
ok(poll_until($node, 'SELECT count(*) FROM imgpipe.tasks', 0), 'images inserted by SQL are processed');
is($node->safe_psql('postgres', $sent), '5|0', 'and give no message');

# A processor that gives up; tried again, the image gives another result.
$node->safe_psql('postgres', q(
	CREATE OR REPLACE FUNCTION public.shape(imgpipe.image) RETURNS jsonb LANGUAGE plpgsql
		AS 'BEGIN RAISE EXCEPTION ''no shape'' USING DETAIL = ''None at all.''; END';
	UPDATE imgpipe.processors SET max_attempts = 1 WHERE name = 'shape'));
$broker->produce('photos', [$small], key => 'c');
ok(poll_until($node, $sent, '7|0'), 'a failure gives a result and a copy');
my ($failed) = map { decode_json($_->{value}) } grep { ($_->{key} // '') eq 'c' } $broker->consume('results');
is($failed->{status}, 'failed', 'the result says so');
is(scalar(@{ $failed->{outputs} }), 2, 'with the outputs of the other processor');
is_deeply([ @{ $failed->{errors}[0] }{qw(stage processor sqlstate reason attempts)} ], [ 'processing', 'shape', 'P0001', 'no shape', 1 ], 'and the error');
my ($copy) = grep { $_->{key} eq 'c' } $broker->consume('rejects');
is($copy->{value}, slurp_file($small), 'the copy is the file');
is(join('|', map { $copy->{headers}{"imgpipe-$_"} } qw(stage processor reason)), 'processing|shape|no shape', 'with the reason');

$node->safe_psql('postgres', q(
	CREATE OR REPLACE FUNCTION public.shape(imgpipe.image) RETURNS jsonb LANGUAGE plpgsql AS 'BEGIN RETURN ''{}''; END';
	SELECT imgpipe.retry_dead_letters(stage => 'processing')));
ok(poll_until($node, $sent, '8|0'), 'tried again, it gives another result');
my @of_c = map { decode_json($_->{value}) } grep { ($_->{key} // '') eq 'c' } $broker->consume('results');
is(join('|', map { $_->{status} } @of_c), 'failed|done', 'after the first one');

# Without a processor an image is done when it is there; options change while the source runs.
$node->safe_psql('postgres', q(
	SELECT imgpipe.drop_processor('web'), imgpipe.drop_processor('shape');
	SELECT imgpipe.alter_source('photos', dead_letter_topic => '', notify_channel => '')));
ok(poll_until($node, q(SELECT state FROM imgpipe.source_status), 'idle'), 'the source runs');
$broker->produce('photos', [$small], key => 'd');
ok(poll_until($node, $sent, '9|0'), 'a result without processors');
my ($bare) = map { decode_json($_->{value}) } grep { ($_->{key} // '') eq 'd' } $broker->consume('results');
is(join('|', $bare->{status}, scalar @{ $bare->{outputs} }), 'done|0', 'without outputs');

$listener->quit;
$node->stop;
done_testing();
