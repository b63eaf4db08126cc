# Dead letters of both stages, tried again and discarded.
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

sub raises
{
	my ($sql, $code, $expected, $what) = @_;
	my ($status, $out, $errors) = $node->psql('postgres', "\\set VERBOSITY verbose\n$sql");
	like($errors, qr/ERROR:  $code: .*$expected/s, $what);
}

# A constraint that makes good images dead letters for as long as it is there.
$broker->create_topic('photos', 1);
$node->safe_psql('postgres', qq(
	CREATE ROLE team LOGIN;
	CREATE ROLE reader LOGIN;
	GRANT USAGE ON SCHEMA imgpipe TO team, reader;
	GRANT SELECT ON imgpipe.dead_letters, imgpipe.sources, imgpipe.images TO team, reader;
	GRANT INSERT ON imgpipe.images, imgpipe.dead_letters TO team;
	GRANT UPDATE, DELETE ON imgpipe.dead_letters TO team;
	CREATE SERVER kafka FOREIGN DATA WRAPPER imgpipe_kafka OPTIONS (bootstrap_servers '$bootstrap');
	ALTER TABLE imgpipe.images ADD CONSTRAINT no_early CHECK (source_key NOT LIKE 'early%');
	SELECT imgpipe.create_source('photos', 'kafka', 'photos', retention => '2 days');
	SELECT imgpipe.start_source('photos')));
$broker->produce_many('photos', [
	{ file => $photo, key => 'early 1', headers => { batch_id => 'b7', uploaded_by => 'camera 9' } },
	{ file => $photo, key => 'early 2' },
	{ value => undef, key => 'tombstone' },
	{ value => 'no image', key => 'text' } ]);
ok(poll_until($node, 'SELECT state, messages, dead_letters FROM imgpipe.source_status', 'idle|4|4'), 'four dead letters');
my %letter = map { split /\|/ } split /\n/, $node->safe_psql('postgres', 'SELECT source_key, dead_letter_id FROM imgpipe.dead_letters');
my %id = map { split /\|/ } split /\n/, $node->safe_psql('postgres', 'SELECT source_key, image_id FROM imgpipe.dead_letters');

raises("SELECT imgpipe.retry_dead_letter($letter{'early 1'})", '23514', 'no_early', 'what is at fault still');
raises("SELECT imgpipe.retry_dead_letter($letter{text})", '22P03', 'not an image', 'what will never be an image');
raises("SELECT imgpipe.retry_dead_letter($letter{tombstone})", '55000', "HINT:  SELECT imgpipe.discard_dead_letter\\($letter{tombstone}\\)", 'what has no value');
raises("SET ROLE reader; SELECT imgpipe.retry_dead_letter($letter{'early 1'})", '42501', 'permission denied', 'who may only read');
is($node->safe_psql('postgres', 'SELECT count(*), sum(attempts) FROM imgpipe.dead_letters'), '4|4', 'nothing has changed');

# In bulk while the fault is there: they stay, with the reason of now.
is($node->safe_psql('postgres', "SELECT * FROM imgpipe.retry_dead_letters(source => 'photos')"), '0|4', 'none can be tried');
is($node->safe_psql('postgres', 'SELECT source_key, attempts, sqlstate FROM imgpipe.dead_letters ORDER BY source_key'),
	"early 1|2|23514\nearly 2|2|23514\ntext|2|22P03\ntombstone|2|55000", 'and each says why');
is($node->safe_psql('postgres', "SELECT * FROM imgpipe.retry_dead_letters(source => 'others')"), '0|0', 'of another source there are none');

# The fault is gone: with where it came from, as it would have been, and until the same deadline.
$node->safe_psql('postgres', 'ALTER TABLE imgpipe.images DROP CONSTRAINT no_early');
is($node->safe_psql('postgres', "SET ROLE team; SELECT imgpipe.retry_dead_letter($letter{'early 1'})"), $id{'early 1'}, 'tried again');
is($node->safe_psql('postgres', q(SELECT image_id, source, source_partition, source_offset, source_key, batch_id, uploaded_by, headers, format,
		imgpipe.purge_at(image_id) - received_at BETWEEN interval '47 hours' AND interval '48 hours' FROM imgpipe.images)),
	qq($id{'early 1'}|photos|0|0|early 1|b7|camera 9|{"batch_id": "b7", "uploaded_by": "camera 9"}|jpeg|t), 'an image like any other');
raises("SELECT imgpipe.retry_dead_letter($letter{'early 1'})", '42704', 'does not exist', 'no dead letter any more');
is($node->safe_psql('postgres', "SELECT * FROM imgpipe.retry_dead_letters('photos', code => '23514')"), '1|0', 'the other one');
is($node->safe_psql('postgres', "SELECT source_key, uploaded_by = CURRENT_USER, source_timestamp IS NOT NULL FROM imgpipe.images WHERE source_offset = 1"), 'early 2|t|t', 'by the owner of the source');
$node->safe_psql('postgres', "SET ROLE team; SELECT imgpipe.discard_dead_letter($letter{tombstone})");
$node->safe_psql('postgres', "SELECT imgpipe.discard_dead_letter($letter{text})");
is($node->safe_psql('postgres', 'SELECT count(*) FROM imgpipe.dead_letters'), 0, 'discarded');

# Processing: the function that failed is mended.
$node->safe_psql('postgres', q(
	CREATE FUNCTION public.label(i imgpipe.image) RETURNS jsonb LANGUAGE sql AS $$ SELECT to_jsonb(1 / 0) $$;
	SELECT imgpipe.create_processor('label', function => 'public.label(imgpipe.image)', max_attempts => 1);
	SELECT imgpipe.process_images('label')));
ok(poll_until($node, "SELECT count(*), min(stage), min(processor), min(sqlstate) FROM imgpipe.dead_letters", '2|processing|label|22012'), 'two failed tasks');
raises(q(SET ROLE team; SELECT imgpipe.retry_dead_letter((SELECT min(dead_letter_id) FROM imgpipe.dead_letters))), '42501', 'permission denied|must be owner', 'who does not own the processor');
$node->safe_psql('postgres', q(CREATE OR REPLACE FUNCTION public.label(i imgpipe.image) RETURNS jsonb LANGUAGE sql AS $$ SELECT to_jsonb(1) $$));
is($node->safe_psql('postgres', "SELECT * FROM imgpipe.retry_dead_letters(processor => 'label', at_most => 1)"), '1|0', 'one at a time');
ok(poll_until($node, 'SELECT count(*) FROM imgpipe.results', 1), 'is processed');
is($node->safe_psql('postgres', "SELECT * FROM imgpipe.retry_dead_letters(stage => 'processing')"), '1|0', 'and the rest');
ok(poll_until($node, 'SELECT count(*), (SELECT count(*) FROM imgpipe.dead_letters) FROM imgpipe.results', '2|0'), 'all processed');

# An image that is gone, and a processor that is.
$node->safe_psql('postgres', q(CREATE OR REPLACE FUNCTION public.label(i imgpipe.image) RETURNS jsonb LANGUAGE sql AS $$ SELECT to_jsonb(1 / 0) $$;
	SELECT imgpipe.alter_processor('label', function => 'public.label(imgpipe.image)'); SELECT imgpipe.process_images('label')));
ok(poll_until($node, 'SELECT count(*) FROM imgpipe.dead_letters', 2), 'two more');
$node->safe_psql('postgres', "DELETE FROM imgpipe.images WHERE source_offset = 0");
raises('SELECT imgpipe.retry_dead_letter(dead_letter_id) FROM imgpipe.dead_letters WHERE source_offset = 0', '55000', 'the image of dead letter \d+ is gone', 'no image');
$node->safe_psql('postgres', "SELECT imgpipe.drop_processor('label')");
raises('SELECT imgpipe.retry_dead_letter(dead_letter_id) FROM imgpipe.dead_letters WHERE source_offset = 1', '42704', 'processor "label" does not exist', 'no processor');

$node->stop;
done_testing();
