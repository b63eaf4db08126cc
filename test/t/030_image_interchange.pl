# Images on their way out of a database and into another: dumps, plain and custom, and logical replication.
use strict;
use warnings;

use ImgpipeTest;
use IPC::Run qw(run);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_cluster('main', 'wal_level = logical', 'max_wal_senders = 10', 'imgpipe.max_processors = 1');

sub query
{
	my ($query, $database, $on) = @_;
	return ($on // $node)->safe_psql($database // 'postgres', $query);
}

# Dumps: of all that the extension keeps, and of a table of the user's own.

query(q[
	CREATE ROLE keeper LOGIN;
	GRANT USAGE ON SCHEMA imgpipe TO keeper;
	GRANT SELECT, INSERT ON imgpipe.images TO keeper;
	CREATE SERVER broker FOREIGN DATA WRAPPER imgpipe_kafka OPTIONS (bootstrap_servers 'localhost:1');
	SELECT imgpipe.create_source('photos', 'broker', 'topic', retention => '3 days', parallelism => 2);
	SELECT imgpipe.create_processor('web', '{"thumb": "resize(width=64) | webp", "gray": "grayscale"}');
	SELECT imgpipe.alter_processor('web', '{"thumb": "resize(width=32) | webp", "gray": "grayscale"}');
	CREATE FUNCTION public.measure(imgpipe.image) RETURNS jsonb LANGUAGE sql STABLE AS
		$$SELECT jsonb_build_object('width', imgpipe.image_width($1))$$;
	SELECT imgpipe.create_processor('measure', function => 'public.measure(imgpipe.image)'::regprocedure);
	CREATE TABLE album (page integer PRIMARY KEY, photo imgpipe.image(jpeg, png) NOT NULL, others imgpipe.image[],
		CHECK (imgpipe.image_width(photo) > 10));
	CREATE INDEX ON album USING hash (photo);
	CREATE VIEW shapes AS SELECT page, i.format, i.width, i.height FROM album, imgpipe.image_info(photo) i;
]);
for my $name (qw(photo.jpg portrait.jpg small.png animated.gif))
{
	my $file = sample_image($name);
	query("INSERT INTO imgpipe.images (content, source_key) VALUES (pg_read_binary_file('$file'), '$name')");
}
my ($photo, $png) = (sample_image('photo.jpg'), sample_image('small.png'));
query(qq[INSERT INTO album VALUES (1, pg_read_binary_file('$photo')::imgpipe.image, NULL),
	(2, pg_read_binary_file('$png')::imgpipe.image, ARRAY[pg_read_binary_file('$photo')::imgpipe.image, NULL])]);
ok(poll_until($node, 'SELECT count(*) FROM imgpipe.tasks', '0'), 'the processors are done');

# Everything that has to be the same afterwards, by name.
my %contents = (
	images => q[SELECT image_id, source_key, uploaded_by, received_at, format, width, height, bytes, sha256, sha256(content::bytea) = sha256 FROM imgpipe.images ORDER BY 1],
	renditions => q[SELECT image_id, processor, name, version, created_at, format, width, height, imgpipe.image_sha256(content) FROM imgpipe.renditions ORDER BY 1, 2, 3],
	results => 'SELECT * FROM imgpipe.results ORDER BY 1, 2',
	processors => 'SELECT name, owner, version, enabled, max_attempts, created_at FROM imgpipe.processors ORDER BY 1',
	'versions of processors' => 'SELECT processor_id, version, outputs, function, created_at, created_by FROM imgpipe.processor_versions ORDER BY 1, 2',
	sources => 'SELECT name, server, topic, owner, retention, parallelism, start_from, created_at FROM imgpipe.sources ORDER BY 1',
	partitions => 'SELECT parent, partition, deadline_from, deadline_to FROM imgpipe.partitions ORDER BY 1, 3',
	'own table' => q[SELECT page, imgpipe.image_sha256(photo), imgpipe.image_sha256(others[1]), others[2] IS NULL FROM public.album ORDER BY 1],
	'view' => 'SELECT * FROM public.shapes ORDER BY 1',
	'type of the column' => q[SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = 'album'::regclass AND attname = 'photo'],
	rights => q[SELECT has_table_privilege('keeper', 'imgpipe.images', 'INSERT'), has_table_privilege('keeper', 'imgpipe.renditions', 'SELECT')]);
my %before = map { $_ => query($contents{$_}) } keys %contents;
is(scalar(() = $before{images} =~ /\|t$/mg), 4, 'four images');
is(scalar(split /\n/, $before{renditions}), 8, 'with eight renditions');
is(scalar(split /\n/, $before{results}), 4, 'and four results');
is($before{'type of the column'}, 'imgpipe.image(jpeg,png)', 'a type modifier');

sub check_copy
{
	my ($how, $database) = @_;
	is(query($contents{$_}, $database), $before{$_}, "$how: $_") for sort keys %contents;

	# And it works: an image goes in, the processors take it up.
	query("INSERT INTO imgpipe.images (content, source_key) VALUES (pg_read_binary_file('$png'), 'later')", $database);
	ok(poll_until($node, q[SELECT count(*) FROM imgpipe.renditions JOIN imgpipe.images i USING (image_id) WHERE i.source_key = 'later'], '2', undef, $database),
		"$how: the processors go on");
	my ($code, $out, $error) = $node->psql($database, q[INSERT INTO album SELECT 3, content FROM imgpipe.images WHERE format = 'gif']);
	like($error, qr/image of format gif does not fit type imgpipe\.image\(jpeg,png\)|image of format gif does not fit type image\(jpeg,png\)/, "$how: the type modifier holds");
}

sub dump_to
{
	my ($file, @options) = @_;
	my $errors;
	ok(run([ 'pg_dump', @options, '-f', $file, $node->connstr('postgres') ], '2>', \$errors), "pg_dump @options");
	is($errors, '', 'without a word');
}

my $folder = $PostgreSQL::Test::Utils::tmp_check;
my $errors;
dump_to("$folder/plain.sql", '-Fp');
query('CREATE DATABASE plain TEMPLATE template0');
ok(run([ 'psql', '-X', '-q', '-d', $node->connstr('plain'), '-f', "$folder/plain.sql" ], '>', '/dev/null', '2>', \$errors), 'restored by psql');
is($errors, '', 'without an error');
check_copy('plain', 'plain');

dump_to("$folder/custom.dump", '-Fc');
query('CREATE DATABASE custom TEMPLATE template0');
ok(run([ 'pg_restore', '-d', $node->connstr('custom'), "$folder/custom.dump" ], '2>', \$errors), 'restored by pg_restore');
is($errors, '', 'without an error');
check_copy('custom', 'custom');


# Logical replication: the first copy, and what comes after it, as text and binary.

my $subscriber = new_cluster('subscriber');
my $tables = q[
	CREATE TABLE keyed (id integer PRIMARY KEY, note text, photo imgpipe.image(jpeg, png));
	CREATE TABLE keyless (note text, photo imgpipe.image);
	ALTER TABLE keyless REPLICA IDENTITY FULL;];
query($tables);
query($tables, 'postgres', $subscriber);
my @files = mass_images(40);
my $values = join ', ', map {"($_, pg_read_binary_file('$files[$_]')::imgpipe.image)"} 0 .. $#files;
query("CREATE TABLE files AS SELECT * FROM (VALUES $values) v (n, photo)");
query(q[
	INSERT INTO keyed SELECT n, 'copied', photo FROM files WHERE n < 10;
	INSERT INTO keyless SELECT 'copied', photo FROM files WHERE n < 10;
	CREATE PUBLICATION photos FOR TABLE keyed, keyless]);

my $digest = q[
	SET search_path = public, imgpipe;
	SELECT string_agg(id || ' ' || note || ' ' || imgpipe.image_sha256(photo), ',' ORDER BY id) FROM keyed;
	SELECT string_agg(note || ' ' || imgpipe.image_sha256(photo), ',' ORDER BY photo) FROM keyless];
for my $form ('text', 'binary')
{
	my $binary = $form eq 'binary' ? 'true' : 'false';
	my ($from, $to) = $form eq 'binary' ? (25, 40) : (10, 25);
	query('TRUNCATE keyed, keyless', 'postgres', $subscriber);
	query(sprintf(q[CREATE SUBSCRIPTION photos_%s CONNECTION $$%s$$ PUBLICATION photos WITH (binary = %s)],
		$form, $node->connstr('postgres'), $binary), 'postgres', $subscriber);
	$subscriber->wait_for_subscription_sync($node, "photos_$form");
	is(query($digest, 'postgres', $subscriber), query($digest), "$form: the first copy");
	like(query($digest), qr/copied/, 'of something');

	query(qq[
		SET search_path = public, imgpipe;
		INSERT INTO keyed SELECT n, 'streamed', photo FROM files WHERE n >= $from AND n < $to;
		UPDATE keyed SET note = 'photo unchanged in $form' WHERE id % 3 = 0;
		UPDATE keyed SET photo = (SELECT photo FROM files WHERE n = 39 - id) WHERE id % 3 = 1;
		DELETE FROM keyed WHERE id % 7 = 5;
		INSERT INTO keyless SELECT 'streamed', photo FROM files WHERE n >= $from AND n < $to;
		UPDATE keyless SET note = 'found by its photo in $form' WHERE photo IN (SELECT photo FROM files WHERE n % 3 = 0);
		DELETE FROM keyless WHERE photo IN (SELECT photo FROM files WHERE n % 7 = 5)]);
	$node->wait_for_catchup("photos_$form");
	is(query($digest, 'postgres', $subscriber), query($digest), "$form: inserts, updates and deletes");
	like(query($digest), qr/photo unchanged in $form.*found by its photo in $form/s, 'which there were');
	query("DROP SUBSCRIPTION photos_$form", 'postgres', $subscriber);
}

# What the subscriber does not take waits until it does.
query(q[ALTER SYSTEM SET imgpipe.allowed_formats = 'png'; SELECT pg_reload_conf()], 'postgres', $subscriber);
query('TRUNCATE keyed, keyless', 'postgres', $subscriber);
query(sprintf(q[CREATE SUBSCRIPTION photos CONNECTION $$%s$$ PUBLICATION photos WITH (copy_data = false)], $node->connstr('postgres')), 'postgres', $subscriber);
my $position = -s $subscriber->logfile;
query(q[DELETE FROM keyed; DELETE FROM keyless; INSERT INTO keyed SELECT 1, 'refused at first', photo FROM files WHERE n = 0]);
ok(poll_code(sub { slurp_file($subscriber->logfile, $position) =~ /image format jpeg is not allowed/ }), 'a format that is not allowed stops the subscription');
query(q[ALTER SYSTEM RESET imgpipe.allowed_formats; SELECT pg_reload_conf()], 'postgres', $subscriber);
$node->wait_for_catchup('photos');
is(query($digest, 'postgres', $subscriber), query($digest), 'and nothing is lost once it is');
query('DROP SUBSCRIPTION photos', 'postgres', $subscriber);

$subscriber->stop;
$node->stop;
done_testing();
