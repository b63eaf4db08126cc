# Images that come in chunks: in any order, mixed, repeated, incomplete, too large, and while workers are killed.
use strict;
use warnings;

use Digest::SHA qw(sha256_hex);
use ImgpipeTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $broker = start_broker();
my $bootstrap = $broker->bootstrap;
my $node = new_cluster('main', 'imgpipe.max_processors = 0', 'imgpipe.max_bytes = 16MB');
my $photo = sample_image('large.jpg');
my $small = slurp_file(sample_image('small.jpg'));

sub query { return $node->safe_psql('postgres', $_[0]) }

sub raises
{
	my ($statement, $code, $pattern, $name) = @_;
	my ($status, $out, $errors) = $node->psql('postgres', "\\set VERBOSITY verbose\n$statement");
	like($errors, qr/ERROR:  $code: .*$pattern/s, "$name: $code");
}

# One chunk of an image as a message; the image is cut into $count parts.
sub chunk
{
	my ($id, $content, $index, $count, %headers) = @_;
	my $length = int((length($content) + $count - 1) / $count);
	my $key = delete $headers{key} // "key of $id";
	return { key => $key, value => substr($content, $index * $length, $length), headers => {
		'imgpipe-chunk-id' => $id, 'imgpipe-chunk-index' => $index, 'imgpipe-chunk-count' => $count, %headers } };
}

# An image of its own for each name: what is behind the end of a JPEG does not matter.
sub image_of { my ($name) = @_; return "$small<$name>" . 'x' x 5000 }

# Stopped, changed by the statement, and started.
sub restart
{
	my ($change) = @_;
	query("SELECT imgpipe.stop_source('photos')");
	ok(poll_until($node, "SELECT state FROM imgpipe.source_status WHERE name = 'photos'", 'stopped'), 'stopped');
	query($change);
	query("SELECT imgpipe.start_source('photos')");
}

sub send_chunks { $broker->produce_many('photos', [$_]) for @_ }

sub through
{
	my ($name) = @_;
	my $total = $broker->message_count('photos');
	return ok(poll_until($node, "SELECT sum(next_offset) FROM imgpipe.ingest_positions p JOIN imgpipe.sources s USING (source_id) WHERE s.name = 'photos'", $total), $name);
}

$broker->create_topic('photos', 1);
$broker->create_topic('spread', 3);
query(qq(
	CREATE ROLE team LOGIN;
	GRANT USAGE ON SCHEMA imgpipe TO team;
	GRANT INSERT ON imgpipe.images, imgpipe.dead_letters TO team;
	GRANT SELECT, INSERT, UPDATE ON imgpipe.sources TO team;
	CREATE SERVER kafka FOREIGN DATA WRAPPER imgpipe_kafka OPTIONS (bootstrap_servers '$bootstrap');
	GRANT USAGE ON FOREIGN SERVER kafka TO team;
	SET ROLE team;
	SELECT imgpipe.create_source('photos', 'kafka', 'photos', format => 'chunked', retention => '2 days');
	SELECT imgpipe.create_source('spread', 'kafka', 'spread', format => 'chunked');
	SELECT imgpipe.start_source('photos'), imgpipe.start_source('spread')));

# The producer of docs/kafka.md: an image that no message of this topic can hold.
cmp_ok(-s $photo, '>', 1_048_576, 'the photograph is larger than a message may be');
is(system("$ImgpipeTest::root/test/kafka/send_in_chunks", $bootstrap, 'spread', 'large one', $photo, 500_000, '-H', 'batch_id=b1'), 0, 'send_in_chunks');
ok(poll_until($node, "SELECT count(*) FROM imgpipe.images WHERE source = 'spread'", 1), 'is one image');
is(query(qq(SELECT content::bytea = pg_read_binary_file('$photo'), source_key, batch_id, uploaded_by,
		source_offset = (SELECT next_offset FROM imgpipe.ingest_positions p WHERE p.messages > 0) - ceil(bytes / 500000.0),
		headers ? 'imgpipe-chunk-index', headers ->> 'imgpipe-chunk-size' = bytes::text, image_id = (SELECT image_id FROM imgpipe.chunked_images)
	FROM imgpipe.images)), 't|large one|b1|team|t|f|t|t', 'byte for byte, with what its first chunk says');
is(query('SELECT count(*) FROM imgpipe.chunks'), 0, 'of which no chunk is left');

# Out of order, between each other, repeated, and an image by itself between them.
my %file = map { $_ => image_of($_) } 'A', 'B';
my $hash = sha256_hex($file{B});
send_chunks(chunk('B', $file{B}, 2, 3, 'imgpipe-chunk-sha256' => $hash), chunk('A', $file{A}, 3, 4), chunk('A', $file{A}, 0, 4),
	chunk('A', $file{A}, 0, 4), chunk('B', $file{B}, 0, 3, 'imgpipe-chunk-sha256' => uc $hash), { key => 'whole', value => $small },
	chunk('A', $file{A}, 1, 4), chunk('B', $file{B}, 1, 3), chunk('A', $file{A}, 2, 4), chunk('B', $file{B}, 1, 3), chunk('A', $file{A}, 3, 4));
ok(poll_until($node, "SELECT count(*) FROM imgpipe.images WHERE source = 'photos'", 3), 'three images');
through('all chunks are in');
is(query("SELECT source_key, source_offset, encode(sha256, 'hex') FROM imgpipe.images WHERE source = 'photos' ORDER BY 1"), join("\n",
	'key of A|1|' . sha256_hex($file{A}), "key of B|0|$hash", 'whole|5|' . sha256_hex($small)), 'each as it was');
is(query("SELECT chunk_id, chunks, outcome, due_at, last_offset FROM imgpipe.chunked_images WHERE chunk_id IN ('A', 'B') ORDER BY 1"), "A|4|image||10\nB|3|image||9", 'repeated chunks are known');
is(query('SELECT count(*) FROM imgpipe.chunks'), 0, 'and not kept');

# What is wrong with one message is a dead letter of that message.
$file{C} = image_of('C');
send_chunks(chunk('C', $file{C}, 0, 2),
	chunk('C', $file{C}, 1, 3, key => 'another count'),
	chunk('C', $file{C}, 1, 2, key => 'another key'),
	chunk('D', $file{C}, 1, 2, key => 'index', 'imgpipe-chunk-index' => 2),
	chunk('D', $file{C}, 0, 2, key => 'count', 'imgpipe-chunk-count' => '2x'),
	chunk('D', $file{C}, 0, 2, key => 'hash', 'imgpipe-chunk-sha256' => 'abc'),
	{ key => 'headers', value => 'x', headers => { 'imgpipe-chunk-id' => 'D' } },
	chunk('C', $file{C}, 1, 2));
through('wrong chunks are in');
ok(poll_until($node, "SELECT count(*) FROM imgpipe.images WHERE source_key = 'key of C'", 1), 'the right ones are an image');
is(query('SELECT source_key, sqlstate, reason, detail FROM imgpipe.dead_letters ORDER BY source_key'), join("\n",
	'another count|22023|chunk does not belong to the others of its image|Count, size, SHA-256 and key are (3, , , another count), and (2, , , key of C) in the first chunk that came of "C".',
	'another key|22023|chunk does not belong to the others of its image|Count, size, SHA-256 and key are (2, , , another key), and (2, , , key of C) in the first chunk that came of "C".',
	"count|22023|headers of a chunk are not valid|imgpipe-chunk-count is '2x'; it is a number from 1 on.",
	"hash|22023|headers of a chunk are not valid|imgpipe-chunk-sha256 is 'abc'; it is 64 hexadecimal digits.",
	'headers|22023|headers of a chunk are not valid|imgpipe-chunk-count is missing; it is a number from 1 on.',
	"index|22023|headers of a chunk are not valid|imgpipe-chunk-index is '2'; it is a number from 0 to 1."), 'the wrong ones are not');
my $letter = query("SELECT dead_letter_id FROM imgpipe.dead_letters WHERE source_key = 'another count'");
raises("SELECT imgpipe.retry_dead_letter($letter)", '55000', 'It is one chunk of "C"', 'a part is no image');
query('SELECT imgpipe.discard_dead_letter(dead_letter_id) FROM imgpipe.dead_letters');

# What is wrong with an image is a dead letter of the image.
$node->append_conf('postgresql.conf', "imgpipe.max_bytes = 1MB");
$node->reload;
send_chunks(chunk('hash', $small, 0, 2, 'imgpipe-chunk-sha256' => '0' x 64), chunk('hash', $small, 1, 2),
	chunk('size', $small, 1, 2), chunk('size', $small, 0, 2, key => 'key of size'),
	chunk('text', 'no image, in two parts', 0, 2), chunk('text', 'no image, in two parts', 1, 2),
	chunk('told', $small, 0, 2, 'imgpipe-chunk-size' => 5_000_000), chunk('told', $small, 1, 2, 'imgpipe-chunk-size' => 5_000_000),
	(map { chunk('sum', 'x' x 1_600_000, $_, 4) } 0 .. 3),
	chunk('many', $small, 0, 1, 'imgpipe-chunk-count' => 10001));
through('images at fault are in');
ok(poll_until($node, "SELECT count(*) FROM imgpipe.dead_letters", 5), 'five are');
is(query('SELECT source_key, sqlstate, reason, detail, length(value) FROM imgpipe.dead_letters ORDER BY source_key'), join("\n",
	'key of hash|22000|image is not what its chunks say|Its SHA-256 is ' . sha256_hex($small) . '; they say ' . '0' x 64 . '.|' . length($small),
	'key of many|54000|image is too large|It has 10001 chunks; the limit is 10000.|',
	'key of sum|54000|image is too large|It has 1200000 bytes or more; the limit is imgpipe.max_bytes, 1MB.|',
	'key of text|22P03|bytes are not an image of a known format|The 22 bytes begin with \x6e6f20696d6167652c20696e.|22',
	'key of told|54000|image is too large|It has 5000000 bytes or more; the limit is imgpipe.max_bytes, 1MB.|'), 'with the reason, once');
is(query('SELECT count(*), (SELECT count(*) FROM imgpipe.images WHERE source_key = \'key of size\') FROM imgpipe.chunks'), '0|1', 'nothing of them is kept');
is(query("SELECT * FROM imgpipe.retry_dead_letters('photos')"), '0|5', 'none can be tried again');
is(query("SELECT source_key, sqlstate FROM imgpipe.dead_letters WHERE source_key IN ('key of hash', 'key of sum', 'key of text') ORDER BY 1"),
	"key of hash|22000\nkey of sum|55000\nkey of text|22P03", 'each for its reason');
query('SELECT imgpipe.discard_dead_letter(dead_letter_id) FROM imgpipe.dead_letters');

# What does not come: a dead letter that says so, and an image still where it comes late.
$file{L} = image_of('L');
restart("SELECT imgpipe.alter_source('photos', chunk_timeout => '2 seconds')");
send_chunks(map { chunk('L', $file{L}, $_, 6) } 0, 2, 5);
ok(poll_until($node, 'SELECT source_key, sqlstate, reason, detail, value FROM imgpipe.dead_letters',
	'key of L|22000|image is not complete|Of 6 chunks of "L" 3 are missing: 1, 3-4.|'), 'an image that is not complete in time');
is(query("SELECT state, dead_letters FROM imgpipe.source_status WHERE name = 'photos'") =~ /^(idle|running)\|\d+$/, 1, 'does not hold up the source');
$letter = query('SELECT dead_letter_id FROM imgpipe.dead_letters');
raises("SELECT imgpipe.retry_dead_letter($letter)", '55000', 'Of 6 chunks of "L" 3 are missing: 1, 3-4', 'not yet');
raises("SET ROLE team; SELECT imgpipe.retry_dead_letter($letter)", '42501', 'permission denied', 'who may not');
send_chunks(chunk('L', $file{L}, 4, 6), chunk('L', $file{L}, 1, 6));
through('some more');
raises("SELECT imgpipe.retry_dead_letter($letter)", '55000', 'are missing: 3', 'nearly');
send_chunks(chunk('L', $file{L}, 3, 6));
ok(poll_until($node, "SELECT encode(sha256, 'hex') FROM imgpipe.images WHERE source_key = 'key of L'", sha256_hex($file{L})), 'the last one makes it an image');
is(query('SELECT count(*), (SELECT count(*) FROM imgpipe.chunks) FROM imgpipe.dead_letters'), '0|0', 'and no dead letter');

# A stopped source reads what is there before it gives anything up.
$file{S} = image_of('S');
send_chunks(chunk('S', $file{S}, 0, 2));
through('half an image');
query("SELECT imgpipe.stop_source('photos')");
ok(poll_until($node, "SELECT state FROM imgpipe.source_status WHERE name = 'photos'", 'stopped'), 'stopped');
send_chunks(chunk('S', $file{S}, 1, 2));
ok(poll_until($node, "SELECT due_at < clock_timestamp() FROM imgpipe.chunked_images WHERE chunk_id = 'S'", 't'), 'it is overdue');
query("SELECT imgpipe.start_source('photos')");
ok(poll_until($node, "SELECT count(*) FROM imgpipe.images WHERE source_key = 'key of S'", 1), 'the other half was there');
is(query('SELECT count(*) FROM imgpipe.dead_letters'), 0, 'no dead letter');

# Tombstones, erasure, and a discarded dead letter take chunks with them.
restart("SELECT imgpipe.alter_source('photos', chunk_timeout => '1 hour', on_tombstone => 'delete')");
send_chunks(chunk('T', $file{S}, 0, 2), { key => 'key of T', value => undef }, chunk('U', $file{S}, 0, 2), chunk('V', $file{S}, 0, 2, uploaded_by => 'ada'));
through('three halves and a tombstone');
is(query("SELECT string_agg(chunk_id, ' ' ORDER BY chunk_id), (SELECT count(*) FROM imgpipe.chunks) FROM imgpipe.chunked_images WHERE chunk_id IN ('T', 'U', 'V')"), 'U V|2', 'the tombstone took one');
is(query("SELECT row_counts -> 'chunks', row_counts -> 'chunked_images' FROM imgpipe.erase_images(uploaded_by => 'ada')"), '1|1', 'the erasure another');
is(query("SELECT row_counts -> 'chunks', row_counts -> 'chunked_images' FROM imgpipe.erase_images(source_key => 'key of U')"), '1|1', 'and the third');

# Read again from the beginning: images a second time, like any other.
my $before = query("SELECT string_agg(n::text, ' ' ORDER BY k) FROM (SELECT source_key, count(*) FROM imgpipe.images WHERE source = 'photos' GROUP BY 1) x (k, n)");
restart("SELECT imgpipe.seek_source('photos', 'earliest')");
through('read again');
ok(poll_until($node, "SELECT count(*) FROM imgpipe.chunked_images WHERE due_at = '-infinity'", 0), 'all are settled');
(my $after = $before) =~ s/1/2/g;
is(query("SELECT string_agg(n::text, ' ' ORDER BY k) FROM (SELECT source_key, count(*) FROM imgpipe.images WHERE source = 'photos' GROUP BY 1) x (k, n)"), $after, 'every image twice');
is(query("SELECT outcome, count(*) FROM imgpipe.chunked_images WHERE chunk_id IN ('T', 'U', 'V') GROUP BY 1"), 'erased|2', 'but for what was erased');

# At its deadline what is not complete is hidden, and dropped with its partition.
query(q(
	SELECT imgpipe.create_partition(parent, '2020-03-01 00:00Z', '2020-03-01 06:00Z') FROM imgpipe.partitioned_tables;
	INSERT INTO imgpipe.chunked_images (image_id, source_id, source_partition, chunk_id, chunk_count, first_offset, last_offset, uploaded_by, due_at)
		SELECT imgpipe.first_image_id('2020-03-01 01:00Z'), source_id, 0, 'old', 1, 0, 0, 'ada', '-infinity' FROM imgpipe.sources WHERE name = 'photos';
	INSERT INTO imgpipe.chunks VALUES (imgpipe.first_image_id('2020-03-01 01:00Z'), 0, 'x');
	GRANT SELECT ON imgpipe.chunks, imgpipe.chunked_images TO team));
is(query("SET ROLE team; SELECT count(*) FILTER (WHERE chunk_id = 'old'), (SELECT count(*) FROM imgpipe.chunks) FROM imgpipe.chunked_images"), '0|0', 'is hidden');
ok(poll_until($node, "SELECT row_counts ->> 'chunks', row_counts ->> 'chunked_images', row_counts ->> 'dead_letters' FROM imgpipe.purge_ledger WHERE deadline_to = '2020-03-01 06:00Z'", '1|1|0'), 'and dropped');

# Exactly once: many images on two partitions, whose chunks come mixed, while workers are killed.
$broker->create_topic('load', 2);
my $n = 60;
my %sent;
my @messages;
for my $number (1 .. $n)
{
	my $content = image_of("number $number");
	$sent{ sha256_hex($content) } = 1;
	push @{ $messages[$_] }, { %{ chunk("number $number", $content, $_, 3) }, partition => $number % 2 } for 0 .. 2;
}
query(q(
	CREATE FUNCTION public.slowly() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.05); RETURN NEW; END';
	CREATE TRIGGER slowly BEFORE INSERT ON imgpipe.images FOR EACH ROW EXECUTE FUNCTION public.slowly();
	SELECT imgpipe.create_source('load', 'kafka', 'load', format => 'chunked', parallelism => 2, batch_rows => 7)));
$broker->produce_many('load', [ @{ $messages[0] }, @{ $messages[2] }, @{ $messages[1] } ]);
query("SELECT imgpipe.start_source('load')");
for my $at (5, 20, 40)
{
	ok(poll_until($node, "SELECT count(*) >= $at FROM imgpipe.images WHERE source = 'load'"), "$at images are there");
	my ($pid) = split /\n/, query("SELECT pid FROM imgpipe.worker_slots() WHERE kind = 'ingest' AND pid IS NOT NULL AND object = (SELECT source_id FROM imgpipe.sources WHERE name = 'load')");
	my $recoveries = () = slurp_file($node->logfile) =~ /all server processes terminated; reinitializing/g;
	is(kill('KILL', $pid), 1, 'a worker is killed');
	ok(poll_code(sub { (() = slurp_file($node->logfile) =~ /all server processes terminated; reinitializing/g) > $recoveries }), 'the server recovers');
}
ok(poll_until($node, "SELECT count(*) >= $n FROM imgpipe.images WHERE source = 'load'"), 'all are there');
ok(poll_until($node, "SELECT state, lag_messages FROM imgpipe.source_status WHERE name = 'load'", 'idle|0'), 'ingest is through');
is(query("SELECT string_agg(encode(sha256, 'hex'), ' ' ORDER BY sha256) FROM imgpipe.images WHERE source = 'load'"), join(' ', sort keys %sent), 'every image once');
is(query("SELECT count(*), (SELECT count(*) FROM imgpipe.chunks), (SELECT count(*) FROM imgpipe.dead_letters WHERE source = 'load') FROM imgpipe.chunked_images WHERE outcome = 'image' AND chunk_id LIKE 'number%'"), "$n|0|0", 'and no chunk is left');

$node->stop;
done_testing();
