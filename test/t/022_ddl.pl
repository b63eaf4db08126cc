# What administrators do to a database whose sources are running: upgrade, dump and restore, drop.
use strict;
use warnings;

use ImgpipeTest;
use Installation;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $n_images = 1600;
my $n_bad = 80;
my $partitions = 4;
my $secret = 'hunter2-dumped';

# The next version changes what ingest writes to.
my ($version) = slurp_file("$ImgpipeTest::root/imgpipe.control") =~ /^default_version = '(.*)'/m;
my $bindir = own_installation({
	"imgpipe--$version--$version.next1.sql" => q(
		ALTER TABLE imgpipe.images ADD COLUMN next1 integer;
		ALTER TABLE imgpipe.ingest_positions ADD COLUMN next1 integer;
		ALTER TABLE imgpipe.sources ADD COLUMN next1 integer;),
	"imgpipe--$version.next1--$version.next2.sql" => q(
		ALTER TABLE imgpipe.sources ADD COLUMN next2 integer;
		ALTER TABLE imgpipe.ingest_positions ADD COLUMN next2 integer;
		ALTER TABLE imgpipe.images ADD COLUMN next2 integer;) }, "$version.next2");
$ENV{PATH} = "$bindir:$ENV{PATH}";

my $broker = start_broker();
my $bootstrap = $broker->bootstrap;
my $node = new_cluster('main', 'imgpipe.max_processors = 1');
$node->safe_psql('postgres', "DROP EXTENSION imgpipe; CREATE EXTENSION imgpipe VERSION '$version'");
my @images = mass_images($n_images);
$broker->create_topic('photos', $partitions);

# Bad ones among them, in all partitions; the later ones are sent when something has to be in mid-load, however slow the machine is.
sub produce
{
	my ($first, $last) = @_;
	$broker->produce_many('photos', [
		(map { { file => $images[$_], key => "image $_" } } $first .. $last),
		(map { { value => "no image $_", key => "bad $_" } } grep { $_ * 20 >= $first && $_ * 20 <= $last } 0 .. $n_bad - 1) ]);
}
produce(0, 999);

my $arrived = 'SELECT (SELECT count(*) FROM imgpipe.images), (SELECT count(*) FROM imgpipe.dead_letters)';
my $all = "$n_images|$n_bad";

# Of what was read each offset is there once, in one table or the other.
my $exactly_once = q(
	WITH arrived AS (
		SELECT source_partition AS partition, source_offset AS number FROM imgpipe.images
		UNION ALL
		SELECT source_partition, source_offset FROM imgpipe.dead_letters),
	expected AS (
		SELECT p.partition, o.number FROM imgpipe.ingest_positions p, generate_series(0, p.next_offset - 1) o (number))
	SELECT (SELECT count(*) FROM (TABLE arrived EXCEPT ALL TABLE expected) a),
		(SELECT count(*) FROM (TABLE expected EXCEPT ALL TABLE arrived) b));
my $workers = q(SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'imgpipe %' AND backend_type <> 'imgpipe launcher' AND datname = '%s');

sub mid_load
{
	my ($database, $at, $what) = @_;
	ok(poll_until($node, "SELECT (SELECT count(*) FROM imgpipe.images) > $at", 't', undef, $database), "$what: more than $at images are there");
}

$node->safe_psql('postgres', qq(
	CREATE FUNCTION public.slowly() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.006); RETURN NEW; END';
	CREATE TRIGGER slowly BEFORE INSERT ON imgpipe.images FOR EACH ROW EXECUTE FUNCTION public.slowly();
	CREATE ROLE reader;
	CREATE SERVER kafka FOREIGN DATA WRAPPER imgpipe_kafka OPTIONS (bootstrap_servers '$bootstrap');
	CREATE USER MAPPING FOR CURRENT_USER SERVER kafka OPTIONS (sasl_password '$secret');
	SELECT imgpipe.create_processor('web', '{"small": "resize(width=32) | webp"}');
	SELECT imgpipe.alter_processor('web', '{"small": "resize(width=16) | webp"}');
	SELECT imgpipe.create_source('photos', 'kafka', 'photos', parallelism => 2, batch_rows => 20);
	SELECT imgpipe.start_source('photos')));

# ALTER EXTENSION UPDATE, twice, with the tables in the two orders in which they can be locked.
for my $step (1, 2)
{
	mid_load('postgres', 100 * $step, "update $step");
	$node->safe_psql('postgres', "ALTER EXTENSION imgpipe UPDATE TO '$version.next$step'");
	is($node->safe_psql('postgres', "SELECT extversion FROM pg_extension WHERE extname = 'imgpipe'"), "$version.next$step", "update $step in mid-load");
}
$node->safe_psql('postgres', "UPDATE imgpipe.sources SET next1 = 17");

# A dump in mid-load is one moment of data and positions.
mid_load('postgres', 400, 'dump');
my $dump = "$PostgreSQL::Test::Utils::tmp_check/dump";
my @connection = ('-h', $node->host, '-p', $node->port);
command_ok([ 'pg_dump', @connection, '--no-sync', '-Fd', '-j', 2, '-f', $dump, 'postgres' ], 'pg_dump -j 2 in mid-load');
my $script = "$PostgreSQL::Test::Utils::tmp_check/dump.sql";
command_ok([ 'pg_restore', '-f', $script, $dump ], 'as a script');
my @with_secret = grep { /\Q$secret\E/ } split /\n/, slurp_file($script);
is(scalar(@with_secret), 1, 'the secret is once in the dump');
like(slurp_file($script), qr/CREATE USER MAPPING [^;]*\Q$secret\E/, 'as an option of its user mapping');

for my $jobs (1, 2)
{
	my $copy = "copy$jobs";
	$node->safe_psql('postgres', "CREATE DATABASE $copy");
	command_ok([ 'pg_restore', @connection, '--exit-on-error', '-j', $jobs, '-d', $copy, $dump ], "$copy: pg_restore -j $jobs");
	is($node->safe_psql($copy, 'SELECT name, enabled, parallelism, next1 FROM imgpipe.sources'), 'photos|t|2|17', "$copy: the source is there");
	is($node->safe_psql($copy, 'SELECT count(*) FROM imgpipe.ingest_positions WHERE next_offset IS NOT NULL'), $partitions, "$copy: and its positions");
	is($node->safe_psql($copy, 'SELECT count(*) FROM imgpipe.processor_versions'), 2, "$copy: and both versions of the processor");
	is($node->safe_psql($copy, $exactly_once), '0|0', "$copy: images and dead letters are those that the positions say");
	ok(poll_until($node, 'SELECT state, last_error FROM imgpipe.source_status', qr/^retrying\|.*adopt_source/, undef, $copy), "$copy: it does not ingest");
	is($node->safe_psql($copy, $exactly_once), '0|0', "$copy: and has not");
	is($node->safe_psql($copy, "SET ROLE reader; SELECT count(*) FROM pg_user_mappings WHERE array_to_string(umoptions, ' ') ~ 'hunter2'"), 0, "$copy: nobody else sees the secret");
}

produce(1000, 1299);

# One is adopted and drops the extension, the other one its database, both in mid-load; then the first begins anew.
for my $copy ('copy1', 'copy2')
{
	$node->safe_psql($copy, q(
		CREATE TRIGGER slowly BEFORE INSERT ON imgpipe.images FOR EACH ROW EXECUTE FUNCTION public.slowly()));
	my $before = $node->safe_psql($copy, 'SELECT count(*) FROM imgpipe.images');
	$node->safe_psql($copy, "SELECT imgpipe.adopt_source('photos')");
	mid_load($copy, $before + 20, "$copy: adopted");
}
$node->safe_psql('copy1', 'DROP EXTENSION imgpipe CASCADE');
is($node->safe_psql('copy1', "SELECT count(*) FROM pg_class WHERE relnamespace::regnamespace::text ~ '^imgpipe'"), 0, 'DROP EXTENSION in mid-load');
ok(poll_until($node, sprintf($workers, 'copy1'), 0), 'takes the workers with it');
my $before = $node->safe_psql('copy2', 'SELECT count(*) FROM imgpipe.images');
produce(1300, 1599);
mid_load('copy2', $before + 20, 'the other copy goes on');
$node->safe_psql('postgres', 'DROP DATABASE copy2 WITH (FORCE)');
is($node->safe_psql('postgres', "SELECT count(*) FROM pg_database WHERE datname = 'copy2'"), 0, 'DROP DATABASE ... WITH (FORCE) in mid-load');

$node->safe_psql('copy1', qq(
	CREATE EXTENSION imgpipe;
	CREATE SERVER kafka FOREIGN DATA WRAPPER imgpipe_kafka OPTIONS (bootstrap_servers '$bootstrap');
	SELECT imgpipe.create_source('photos', 'kafka', 'photos', parallelism => 2);
	SELECT imgpipe.start_source('photos')));
for my $database ('postgres', 'copy1')
{
	ok(poll_until($node, $arrived, $all, undef, $database), "$database: everything came");
	is($node->safe_psql($database, $exactly_once), '0|0', "$database: every message once");
	ok(poll_until($node, 'SELECT state, workers, lag_messages FROM imgpipe.source_status', 'idle|2|0', undef, $database), "$database: and is idle");
}
unlike(slurp_file($node->logfile), qr/terminated by signal|server process .* was terminated|PANIC/, 'nothing crashed');
unlike(slurp_file($node->logfile), qr/FATAL: .*database/, 'nor did anything look for a database that is gone');

$node->stop;
done_testing();
