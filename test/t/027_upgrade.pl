# ALTER EXTENSION UPDATE from each released version, with everything in place and workers at work: nothing is lost, all goes on, and
# what is there then is what a fresh installation gives, object by object.
use strict;
use warnings;

use File::Basename qw(basename);
use ImgpipeTest;
use Installation;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my %released = map { basename($_) => slurp_file($_) } glob "$ImgpipeTest::root/releases/imgpipe--*.sql";
my ($working) = slurp_file("$ImgpipeTest::root/imgpipe.control") =~ /^default_version = '(.*)'/m;
my $bindir = own_installation(\%released);
$ENV{PATH} = "$bindir:$ENV{PATH}";

cmp_ok(scalar(keys %released), '>', 0, 'there are released versions');

# A fresh installation, and that the comparison finds what differs: one thing of each kind.
my $fresh_node = new_cluster('fresh');
my $fresh = catalog($fresh_node);
alike($fresh, catalog($fresh_node), 'an installation does not differ from itself');
for my $kind (qw(member comment function aggregate relation column constraint index trigger policy sequence type cast operator wrapper schema rows row), 'first rights', 'operator class')
{
	cmp_ok(scalar(grep {/^$kind /} @$fresh), '>', 0, "facts: $kind");
}

my %change = (
	'the body of a function' => q(CREATE OR REPLACE FUNCTION imgpipe.hold_condition() RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
		SET search_path = pg_catalog, pg_temp AS $$ SELECT 'true' $$),
	'the cost of a function' => 'ALTER FUNCTION imgpipe.purge_at(uuid) COST 7',
	'the right to a function' => 'GRANT EXECUTE ON FUNCTION imgpipe.hold_condition() TO PUBLIC',
	'a column more' => 'ALTER TABLE imgpipe.jobs ADD COLUMN more integer',
	'a default' => "ALTER TABLE imgpipe.jobs ALTER COLUMN max_running SET DEFAULT 2",
	'storage' => 'ALTER TABLE imgpipe.dead_letters ALTER COLUMN value SET STORAGE MAIN',
	'a constraint' => 'ALTER TABLE imgpipe.jobs DROP CONSTRAINT jobs_max_running_check',
	'an index' => 'CREATE INDEX more ON imgpipe.jobs (owner)',
	'a trigger' => "DO \$\$DECLARE t record; BEGIN SELECT tgname, tgrelid::regclass AS place INTO t FROM pg_trigger WHERE NOT tgisinternal AND tgrelid = 'imgpipe.sources'::regclass LIMIT 1;
		EXECUTE format('ALTER TABLE %s DISABLE TRIGGER %I', t.place, t.tgname); END\$\$",
	'a policy' => 'ALTER POLICY fence ON imgpipe.images USING (true)',
	'row security' => 'ALTER TABLE imgpipe.jobs DISABLE ROW LEVEL SECURITY',
	'a right of the extension' => 'GRANT SELECT ON imgpipe.tasks TO PUBLIC',
	'a comment' => "COMMENT ON COLUMN imgpipe.jobs.name IS 'more'",
	'a member less' => 'ALTER EXTENSION imgpipe DROP FUNCTION imgpipe.hold_condition()',
	'what is dumped' => "UPDATE pg_extension SET extcondition = extcondition[1:1] || '{WHERE false}' || extcondition[3:] WHERE extname = 'imgpipe'",
	'a row of a shipped template' => "SET LOCAL session_replication_role = replica; DELETE FROM imgpipe.access_rules WHERE ctid = (SELECT min(ctid) FROM imgpipe.access_rules)");
for my $what (sort keys %change)
{
	my $out = $fresh_node->safe_psql('postgres',
		"BEGIN; $change{$what};\n" . slurp_file("$ImgpipeTest::root/test/perl/catalog.sql") . "ROLLBACK;");
	cmp_ok(scalar(@{ different($fresh, [ split /\n/, $out ]) }), '>', 0, "the comparison finds $what");
}
$fresh_node->stop;

my $broker = start_broker();
for my $script (sort keys %released)
{
	my ($version) = $script =~ /^imgpipe--(.*)\.sql$/;
	my $node = new_cluster("from_$version");
	$node->safe_psql('postgres', "DROP EXTENSION imgpipe; CREATE EXTENSION imgpipe VERSION '$version'");
	fill($node, $broker);
	my $before = summary($node);
	$node->safe_psql('postgres', 'ALTER EXTENSION imgpipe UPDATE');
	is($node->safe_psql('postgres', "SELECT extversion FROM pg_extension WHERE extname = 'imgpipe'"), $working, "$version becomes $working");
	alike($before, summary($node), 'with all that was there');
	is($node->safe_psql('postgres', 'SELECT count(*) FROM imgpipe.access_drift()'), 0, 'and rights are as they were declared');
	alike(catalog($node), $fresh, 'it is what a fresh installation gives');

	# The workers are back.
	my $ticks = $node->safe_psql('postgres', 'SELECT max(run) FROM public.ticks');
	ok(poll_until($node, "SELECT max(run) > $ticks FROM public.ticks"), 'the job runs on');
	$broker->produce('photos', [ mass_images(60) ], key => "after $version", partition => 1);
	ok(poll_until($node, 'SELECT count(*), count(DISTINCT (source_partition, source_offset)) FILTER (WHERE source_offset IS NOT NULL) FROM imgpipe.images', '102|100'), 'the source ingests on, each message once');
	ok(poll_until($node, 'SELECT (SELECT count(*) FROM imgpipe.renditions), (SELECT count(*) FROM imgpipe.tasks)', '102|0'), 'and processors work');
	ok(poll_until($node, 'SELECT count(*) FROM imgpipe.outbox', 0), 'all results are sent');
	unlike(slurp_file($node->logfile), qr/terminated by signal|PANIC|terminated by exception/, 'nothing crashed');
	$node->stop;
}
done_testing();
