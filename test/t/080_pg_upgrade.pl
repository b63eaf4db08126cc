# pg_upgrade from an older PostgreSQL, with everything in place.  test/run builds imgpipe for the older one and names its folder of
# programs in IMGPIPE_OLD_BINDIR.
use strict;
use warnings;

use File::Basename qw(dirname);
use ImgpipeTest;
use Installation;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $old_bindir = $ENV{IMGPIPE_OLD_BINDIR} or BAIL_OUT('IMGPIPE_OLD_BINDIR is not set');
my @settings = ("shared_preload_libraries = 'imgpipe'", 'max_worker_processes = 32', 'restart_after_crash = on');

my $old = PostgreSQL::Test::Cluster->new('old', install_path => dirname($old_bindir));
$old->init(extra => [ '--no-locale', '--encoding=UTF8' ]);
$old->append_conf('postgresql.conf', join "\n", @settings);
$old->start;
$old->safe_psql('postgres', 'CREATE EXTENSION imgpipe');

my $new = PostgreSQL::Test::Cluster->new('new');
# From PostgreSQL 18 on checksums are on unless told, and pg_upgrade wants both alike.
$new->init(extra => [ '--no-locale', '--encoding=UTF8', $new->pg_version >= 18 && $old->pg_version < 18 ? '--no-data-checksums' : () ]);
$new->append_conf('postgresql.conf', join "\n", @settings);

# The last minor versions of PostgreSQL 15 give columns an option that not every newer one knows: then no database comes across.
if ($old->safe_psql('postgres', "SELECT count(*) FROM pg_attribute WHERE attoptions::text LIKE '%pg_attver=%'") > 0)
{
	$new->start;
	my $knows = $new->psql('postgres', 'CREATE TEMP TABLE t (a integer); ALTER TABLE t ALTER a SET (pg_attver = 1)') == 0;
	$new->stop;
	plan skip_all => 'PostgreSQL ' . $new->pg_version . ' cannot read what ' . $old->pg_version . ' writes (pg_attver)' unless $knows;
}

my $broker = start_broker();
fill($old, $broker);
$old->safe_psql('postgres', "SELECT imgpipe.unschedule('tick')");
ok(poll_until($old, 'SELECT count(*) FROM imgpipe.outbox', 0), 'all results are sent');

my $before = summary($old);
my $ticks = $old->safe_psql('postgres', 'SELECT count(*) FROM public.ticks');
$old->stop;

# It writes into the present folder.
my $folder = "$PostgreSQL::Test::Utils::tmp_check/pg_upgrade";
mkdir $folder;
chdir $folder or BAIL_OUT("could not enter $folder: $!");
chomp(my $new_bindir = `pg_config --bindir`);
my @upgrade = ('pg_upgrade', '--old-datadir', $old->data_dir, '--new-datadir', $new->data_dir, '--old-bindir', $old_bindir, '--new-bindir', $new_bindir,
	'--old-port', $old->port, '--new-port', $new->port, '--socketdir', $new->host);
command_ok([ @upgrade, '--check' ], 'pg_upgrade --check');
command_ok([@upgrade], 'pg_upgrade');
if (!Test::More->builder->is_passing)
{
	for my $file (glob($new->data_dir . '/pg_upgrade_output.d/*/log/*.log'))
	{
		my @said = grep { /ERROR|FATAL|[Cc]ould not|^Your/ && !/statement:/ } split /\n/, slurp_file($file);
		diag(join "\n", $file, @said[0 .. ($#said < 30 ? $#said : 30)]) if @said;
	}
	done_testing();
	exit 1;
}
unlike(join('', map { slurp_file($_) } glob($new->data_dir . '/pg_upgrade_output.d/*/log/*server*.log')), qr/imgpipe launcher|imgpipe controller/, 'no worker ran meanwhile');

$new->start;
alike($before, summary($new), 'nothing is lost or changed');
is($new->safe_psql('postgres', 'SELECT count(*) FROM public.ticks'), $ticks, 'tables of users, too');
is($new->safe_psql('postgres', "SELECT count(*) FROM imgpipe.partitions p WHERE NOT EXISTS (
		SELECT FROM pg_inherits i JOIN pg_index x ON x.indrelid = i.inhrelid WHERE i.inhrelid = p.partition AND x.indisvalid)"), 0, 'partitions have their indexes');

# What is there is what the new server gives a database that is empty; but what an old one wrote of a view stays, and rights that
# are the default ones are no longer listed.
sub comparable
{
	return [ map {s/^(relation \S+: v .*?) (?:WITH|SELECT) .*/$1/r} grep { !/^first rights/ } @{ catalog($new, $_[0]) } ];
}
$new->safe_psql('postgres', 'CREATE DATABASE fresh TEMPLATE template0');
$new->safe_psql('fresh', 'CREATE EXTENSION imgpipe');
alike(comparable('postgres'), comparable('fresh'), 'the extension is what a fresh installation gives');
$new->safe_psql('postgres', 'DROP DATABASE fresh');

# Teams see what they saw; their views are made again, because a new PostgreSQL writes their text in another way.
my $members = 'SET ROLE ada; SELECT md5(string_agg(m::text, chr(10) ORDER BY member_id)) FROM sales_shop_analytics.members m';
my $seen = $new->safe_psql('postgres', $members);
like($seen, qr/^[0-9a-f]{32}$/, 'a member of a team reads its masked views');
$new->safe_psql('postgres', q(SELECT hash FROM imgpipe.plan_access() LIMIT 1 \gset
	SELECT imgpipe.apply_access(:'hash')));
is($new->safe_psql('postgres', 'SELECT count(*) FROM imgpipe.access_drift()'), 0, 'rights are as they were declared once the plan was applied');
is($new->safe_psql('postgres', $members), $seen, 'and she reads the same');

# pg_upgrade gives the server a new identity: it could be one of two.
ok(poll_until($new, 'SELECT state, last_error FROM imgpipe.source_status', qr/^retrying\|.*adopt_source/), 'the source waits until it is adopted');
$new->safe_psql('postgres', "SELECT imgpipe.adopt_source('photos')");
$broker->produce('photos', [ mass_images(60) ], key => 'after', partition => 1);
ok(poll_until($new, 'SELECT count(*), count(DISTINCT (source_partition, source_offset)) FILTER (WHERE source_offset IS NOT NULL) FROM imgpipe.images', '102|100'), 'and ingests on, each message once');
ok(poll_until($new, 'SELECT (SELECT count(*) FROM imgpipe.renditions), (SELECT count(*) FROM imgpipe.tasks)', '102|0'), 'processors work');
ok(poll_until($new, 'SELECT count(*) FROM imgpipe.outbox', 0), 'results are sent');
$new->safe_psql('postgres', q(SELECT imgpipe.schedule('tock', '1 second', 'INSERT INTO public.ticks DEFAULT VALUES')));
ok(poll_until($new, "SELECT count(*) > $ticks FROM public.ticks"), 'jobs run');
is($new->safe_psql('postgres', "SELECT imgpipe.image_format(imgpipe.process_image(cover, 'resize(width=8) | png')) FROM public.albums LIMIT 1"), 'png', 'images are processed');

# Dump and restore of what was upgraded.
my $dump = "$PostgreSQL::Test::Utils::tmp_check/dump";
my @connection = ('-h', $new->host, '-p', $new->port);
$new->safe_psql('postgres', "SELECT imgpipe.unschedule('tock')");
command_ok([ 'pg_dump', @connection, '--no-sync', '-Fc', '-f', $dump, 'postgres' ], 'pg_dump');
$new->safe_psql('postgres', 'CREATE DATABASE copy TEMPLATE template0');
command_ok([ 'pg_restore', @connection, '--exit-on-error', '-d', 'copy', $dump ], 'pg_restore');
my $images = 'SELECT image_id, sha256(content::bytea) FROM imgpipe.images ORDER BY image_id';
is($new->safe_psql('copy', $images), $new->safe_psql('postgres', $images), 'has the images');
unlike(slurp_file($new->logfile), qr/terminated by signal|PANIC/, 'nothing crashed');
$new->stop;
done_testing();
