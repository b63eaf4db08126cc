# Images in JSON envelopes, and messages without a value.
use strict;
use warnings;

use ImgpipeTest;
use MIME::Base64 qw(encode_base64);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $broker = start_broker();
my $bootstrap = $broker->bootstrap;
my $node = new_cluster('main', 'imgpipe.max_processors = 0');
my $photo = sample_image('small.jpg');
my $base64 = encode_base64(slurp_file($photo), '');

$broker->create_topic('envelopes', 1);
$node->safe_psql('postgres', qq(
	CREATE SERVER kafka FOREIGN DATA WRAPPER imgpipe_kafka OPTIONS (bootstrap_servers '$bootstrap');
	SELECT imgpipe.create_source('envelopes', 'kafka', 'envelopes', format => 'json', content_field => 'file');
	SELECT imgpipe.start_source('envelopes')));
$broker->produce_many('envelopes', [ map { { key => $_->[0], value => $_->[1], headers => $_->[2] } }
	[ 'plain', qq({"file": "$base64"}) ],
	[ 'fields', qq({"file": "$base64", "batch_id": "b1", "uploaded_by": "camera 7", "place": {"city": "Z\\u00fcrich"}, "weight": 2.5}) ],
	[ 'both', qq({"file": "$base64", "batch_id": "of the field", "place": "field"}), { batch_id => 'of the header', place => 'header', other => 1 } ],
	[ 'lines', '{"file": "' . (encode_base64(slurp_file($photo)) =~ s/\n/\\n/gr) . '"}' ],
	[ 'no json', 'no json' ],
	[ 'array', '[1]' ],
	[ 'other field', qq({"content": "$base64"}) ],
	[ 'number', '{"file": 5}' ],
	[ 'no base64', '{"file": "!!!"}' ],
	[ 'nothing', '{"file": ""}' ],
	[ 'no image', '{"file": "bm8gaW1hZ2U="}' ],
	[ 'no text', "{\"file\": \"\xff\"}" ],
	[ 'null character', '{"file": "\\u0000"}' ],
	[ 'tombstone', undef ],
	[ 'last', qq({"file": "$base64"}) ] ]);
ok(poll_until($node, 'SELECT state, messages, dead_letters FROM imgpipe.source_status', 'idle|15|10'), 'all messages are in')
  or diag($node->safe_psql('postgres', 'SELECT * FROM imgpipe.source_status'));
is($node->safe_psql('postgres', 'SELECT source_key, batch_id, uploaded_by = CURRENT_USER, headers FROM imgpipe.images ORDER BY source_key'), join("\n",
	'both|of the header|t|{"other": "1", "place": "header", "batch_id": "of the header"}',
	'fields|b1|f|{"place": {"city": "Zürich"}, "weight": 2.5, "batch_id": "b1", "uploaded_by": "camera 7"}',
	'last||t|', 'lines||t|', 'plain||t|'), 'images, with what the envelopes say');
is($node->safe_psql('postgres', "SELECT bool_and(content::bytea = pg_read_binary_file('$photo')) FROM imgpipe.images"), 't', 'byte for byte');
is($node->safe_psql('postgres', 'SELECT source_key, sqlstate, reason FROM imgpipe.dead_letters ORDER BY source_key'), join("\n",
	'array|22023|message has no image',
	'no base64|22023|invalid symbol "!" found while decoding base64 sequence',
	'no image|22P03|bytes are not an image of a known format',
	'no json|22P02|invalid input syntax for type json',
	'no text|22021|invalid byte sequence for encoding "UTF8": 0xff',
	'nothing|22P03|message is empty',
	'null character|22P05|unsupported Unicode escape sequence',
	'number|22023|message has no image',
	'other field|22023|message has no image',
	'tombstone|22P03|message has no value'), 'the others are dead letters with the reason');
is($node->safe_psql('postgres', "SELECT value = convert_to('{\"file\": 5}', 'UTF8') FROM imgpipe.dead_letters WHERE source_key = 'number'"), 't', 'which have the whole envelope');

# A dead letter is tried again through its envelope.
$node->safe_psql('postgres', "ALTER TABLE imgpipe.images ADD CONSTRAINT no_early CHECK (source_key <> 'early') NOT VALID");
$broker->produce_many('envelopes', [ { key => 'early', value => qq({"file": "$base64", "batch_id": "b9", "place": "here"}) } ]);
ok(poll_until($node, "SELECT sqlstate FROM imgpipe.dead_letters WHERE source_key = 'early'", '23514'), 'a refused row');
$node->safe_psql('postgres', 'ALTER TABLE imgpipe.images DROP CONSTRAINT no_early');
is($node->safe_psql('postgres', "SELECT * FROM imgpipe.retry_dead_letters('envelopes', code => '23514')"), '1|0', 'is tried again');
is($node->safe_psql('postgres', "SELECT batch_id, headers, content::bytea = pg_read_binary_file('$photo') FROM imgpipe.images WHERE source_key = 'early'"),
	'b9|{"place": "here", "batch_id": "b9"}|t', 'with its envelope');
is($node->safe_psql('postgres', "SELECT * FROM imgpipe.retry_dead_letters('envelopes')"), '0|10', 'the others are no images now either');

# Tombstones: deletion of what was there under the key, as often as it was, and nothing else.
$broker->create_topic('photos', 1);
$node->safe_psql('postgres', q(
	CREATE ROLE team LOGIN;
	GRANT USAGE ON SCHEMA imgpipe TO team;
	GRANT USAGE ON FOREIGN SERVER kafka TO team;
	GRANT INSERT ON imgpipe.images, imgpipe.dead_letters TO team;
	GRANT SELECT, INSERT, UPDATE ON imgpipe.sources TO team;
	SELECT imgpipe.create_processor('web', '{"thumb": "resize(width=64) | webp"}')));
$node->append_conf('postgresql.conf', 'imgpipe.max_processors = 1');
$node->reload;
for my $option ('delete', 'ignore', 'dead_letter', 'expire')
{
	$node->safe_psql('postgres', "SET ROLE team; SELECT imgpipe.create_source('$option', 'kafka', 'photos', on_tombstone => '$option'); SELECT imgpipe.start_source('$option')");
}
$broker->produce('photos', [$photo], key => $_) for 'kept', 'erased', 'erased';
ok(poll_until($node, "SELECT count(*) FROM imgpipe.renditions JOIN imgpipe.images USING (image_id) WHERE source IN ('delete', 'ignore', 'dead_letter', 'expire')", 12), 'three images of four sources are processed');
$broker->produce_many('photos', [ { key => 'erased', value => undef } ]);
$broker->produce('photos', [$photo], key => 'erased');
ok(poll_until($node, "SELECT count(*) FROM imgpipe.renditions JOIN imgpipe.images USING (image_id) WHERE source = 'delete'", 2), 'what comes after the tombstone stays');
is($node->safe_psql('postgres', "SELECT string_agg(source_key || source_offset, ' ' ORDER BY source_offset) FROM imgpipe.images WHERE source = 'delete'"), 'kept0 erased4', 'delete');
is($node->safe_psql('postgres', 'SELECT count(*) FROM imgpipe.renditions r WHERE NOT EXISTS (SELECT FROM imgpipe.images i WHERE i.image_id = r.image_id)'), 0, 'with all that was made of them');
ok(poll_until($node, "SELECT source, count(*) FROM imgpipe.images WHERE source IN ('ignore', 'dead_letter') GROUP BY 1 ORDER BY 1", "dead_letter|4\nignore|4"), 'other sources keep theirs');
is($node->safe_psql('postgres', "SELECT source, reason FROM imgpipe.dead_letters WHERE source <> 'envelopes'"), 'dead_letter|message has no value', 'one dead letter');

# expire: as at the deadline, and not again.
$node->safe_psql('postgres', "SELECT imgpipe.hold_images('case 1', source => 'expire')");
ok(poll_until($node, "SELECT string_agg(source_key || source_offset, ' ' ORDER BY source_offset) FROM imgpipe.images WHERE source = 'expire'", 'kept0 erased4'), 'expire');
is($node->safe_psql('postgres', q(SELECT sum(images) FROM imgpipe.sealed_daily_volume WHERE source = 'expire')), 2, 'is in the daily volume');
is($node->safe_psql('postgres', q(SELECT cause, by_source -> 'expire' ->> 'images' FROM imgpipe.purge_ledger ORDER BY entry DESC LIMIT 1)), 'erasure|2', 'and in the ledger');
$broker->produce_many('photos', [ { key => 'kept', value => undef } ]);
ok(poll_until($node, "SELECT string_agg(source_key || source_offset, ' ') FROM imgpipe.images WHERE source = 'expire'", 'erased4'), 'another');
is($node->safe_psql('postgres', "SELECT source_key FROM imgpipe.held_images"), 'kept', 'of which a legal hold keeps a copy');
for my $change ("SELECT imgpipe.stop_source('expire')", "SELECT imgpipe.seek_source('expire', 'earliest'); SELECT imgpipe.start_source('expire')")
{
	$node->safe_psql('postgres', $change);
	ok(poll_until($node, "SELECT state FROM imgpipe.source_status WHERE name = 'expire'", qr/^(stopped|idle)$/), 'the source has stopped, or is through');
}
ok(poll_until($node, "SELECT string_agg(source_key || source_offset, ' ') FROM imgpipe.images WHERE source = 'expire'", 'erased4 erased4'), 'read again, they do not come back, and what came later stays');

# A source changes its mind while it runs.
$node->safe_psql('postgres', "SELECT imgpipe.alter_source('ignore', on_tombstone => 'delete', format => 'json', content_field => 'picture')");
is($node->safe_psql('postgres', "SELECT on_tombstone, format, content_field FROM imgpipe.sources WHERE name = 'ignore'"), 'delete|json|picture', 'is changed');
ok(poll_code(sub {
	$broker->produce_many('photos', [ { key => 'changed', value => qq({"picture": "$base64"}) } ]);
	return $node->safe_psql('postgres', "SELECT count(*) > 0 FROM imgpipe.images WHERE source = 'ignore' AND source_key = 'changed'") eq 't' }), 'it takes the other format');
$broker->produce_many('photos', [ { key => 'changed', value => undef } ]);
ok(poll_until($node, "SELECT count(*) FROM imgpipe.images WHERE source = 'ignore' AND source_key = 'changed'", 0), 'and deletes');

my ($status, $out, $errors) = $node->psql('postgres', "SELECT imgpipe.create_source('x', 'kafka', 'x', format => 'avro')");
like($errors, qr/format must be raw, chunked, or json with a content_field\nDETAIL:  They are "avro" and "content"/, 'no other format');

$node->stop;
done_testing();
