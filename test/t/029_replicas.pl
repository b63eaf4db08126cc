# docs/replicas.md, executed: a standby that analysts read, failover, and a restore to a moment.
use strict;
use warnings;

use Documentation;
use ImgpipeTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my %commands = titled_blocks('docs/replicas.md', 'sh', '# ');
my @sql = map { $_->{text} } page_blocks('docs/replicas.md', 'sql');
is(join(', ', sort keys %commands), 'a base backup, make a standby, restore, start it, start what was restored, take over', 'the commands of the page');

my $broker = start_broker();
my $bootstrap = $broker->bootstrap;
my $folder = PostgreSQL::Test::Utils::tempdir;
my $primary = PostgreSQL::Test::Cluster->new('primary');
$primary->init(allows_streaming => 1);
$primary->append_conf('postgresql.conf', "shared_preload_libraries = 'imgpipe'\nmax_worker_processes = 32");
$primary->start;
my %node = map { $_ => PostgreSQL::Test::Cluster->new($_) } qw(standby restored);
my $moment;

# A command or statement of the page, with the hosts and folders that there are here.
sub here
{
	my ($command) = @_;
	my ($host, $port) = ($primary->host, $primary->port);
	$command =~ s/host=primary/host=$host port=$port/g;
	$command =~ s{/srv/(standby|restored)(?!\.)}{$node{$1}->data_dir}ge;
	$command =~ s{/srv/}{$folder/}g;
	$command =~ s/2026-11-27 19:00:00\+00/$moment/g;
	return $command;
}
sub execute { return system('bash', '-ec', here($commands{ $_[0] })) == 0 }

# Another server on the same machine needs a port of its own; the library of tests shall know that it runs, to end it.
sub own_port { $_[0]->append_conf('postgresql.conf', 'port = ' . $_[0]->port) }
sub seen { $_[0]->_update_pid(1) }

my ($photo, @photos) = mass_images(20);
$broker->create_topic('photos', 1);
$broker->produce('photos', [ @photos[ 0 .. 4 ] ], key => 'before');
$primary->safe_psql('postgres', qq(
	CREATE EXTENSION imgpipe;
	CREATE ROLE analyst LOGIN;
	GRANT USAGE ON SCHEMA imgpipe TO analyst;
	GRANT SELECT ON imgpipe.images, imgpipe.image_facts, imgpipe.daily_volume, imgpipe.sealed_daily_volume TO analyst;
	CREATE SERVER kafka FOREIGN DATA WRAPPER imgpipe_kafka OPTIONS (bootstrap_servers '$bootstrap');
	SELECT imgpipe.create_source('photos', 'kafka', 'photos');
	SELECT imgpipe.start_source('photos')));
my $count = 'SELECT count(*) FROM imgpipe.images';
ok(poll_until($primary, $count, 5), 'the primary ingests');

# A standby.
$primary->safe_psql('postgres', here($sql[0]));
ok(execute('make a standby'), 'a standby is made');
own_port($node{standby});
ok(execute('start it'), 'and started');
seen($node{standby});
my $standby = $node{standby};
ok(poll_until($standby, $count, 5), 'it has the images');
my @as_analyst = (extra_params => [ '-U', 'analyst' ]);
is($standby->safe_psql('postgres', 'SELECT sum(images) FROM imgpipe.daily_volume', @as_analyst), 5, 'an analyst reads the volume there');
is($standby->safe_psql('postgres', q(SELECT bool_and(imgpipe.image_width(imgpipe.process_image(content, 'resize(width=16)')) = 16) FROM imgpipe.images), @as_analyst), 't', 'and processes images');
my ($status, $out, $errors) = $standby->psql('postgres', "INSERT INTO imgpipe.images (content) VALUES (pg_read_binary_file('$photo'))");
like($errors, qr/cannot execute INSERT in a read-only transaction/, 'nobody writes there');
is(join(',', map { worker_pids($standby, $_) } qw(ingest processor job purge)), '', 'nor does a worker');
$primary->safe_psql('postgres', qq(INSERT INTO imgpipe.images (image_id, content, source_key) VALUES (imgpipe.new_image_id(now() + '1 second'), pg_read_binary_file('$photo'), 'ends')));
ok(poll_until($standby, q(SELECT bool_and(imgpipe.purge_at(image_id) < clock_timestamp()) FROM imgpipe.images WHERE source_key = 'ends'), 't'), 'a deadline passes');
is($standby->safe_psql('postgres', q(SELECT count(*) FROM imgpipe.images WHERE source_key = 'ends'), @as_analyst), 0, 'the fence holds on the standby');

# An archive and a base backup, and a moment to go back to, with an image that has ended since.
mkdir "$folder/archive" or die $!;
$primary->safe_psql('postgres', $_) for grep {/\S/} split /;\n/, here($sql[1]);
$primary->restart;
ok(poll_until($primary, q(SELECT state FROM imgpipe.source_status), 'idle'), 'the primary is back');
ok(execute('a base backup'), 'a base backup');
$broker->produce('photos', [ @photos[ 5 .. 9 ] ], key => 'after the backup');
ok(poll_until($primary, q(SELECT count(*) FROM imgpipe.images WHERE source = 'photos'), 10), 'more images');
$primary->safe_psql('postgres', qq(INSERT INTO imgpipe.images (image_id, content, source_key) VALUES (imgpipe.new_image_id(now() + '2 seconds'), pg_read_binary_file('$photo'), 'not for ever')));
$moment = $primary->safe_psql('postgres', 'SELECT clock_timestamp()');
$broker->produce('photos', [ @photos[ 10 .. 14 ] ], key => 'after the moment');
ok(poll_until($primary, q(SELECT count(*) FROM imgpipe.images WHERE source = 'photos'), 15), 'and more after the moment');
ok(poll_until($primary, q(SELECT bool_and(imgpipe.purge_at(image_id) < clock_timestamp()) FROM imgpipe.images WHERE source_key = 'not for ever'), 't'), 'while one has ended');
$primary->safe_psql('postgres', 'SELECT pg_switch_wal()');
ok(poll_until($primary, "SELECT last_archived_wal >= pg_walfile_name(pg_current_wal_lsn() - 16777216) FROM pg_stat_archiver", 't'), 'the archive has it');

ok(execute('restore'), 'restored');
own_port($node{restored});
ok(execute('start what was restored'), 'and started');
seen($node{restored});
my $restored = $node{restored};
ok(poll_until($restored, 'SELECT pg_is_in_recovery()', 'f'), 'it is a server of its own');
is($restored->safe_psql('postgres', q(SELECT count(*) FROM imgpipe.images WHERE source = 'photos')), 10, 'as it was at the moment');
is($restored->safe_psql('postgres', q(SELECT count(*) FROM imgpipe.images WHERE source_key = 'not for ever'), @as_analyst), 0, 'but what is past its deadline by now is not seen');
ok(poll_until($restored, 'SELECT state, last_error FROM imgpipe.source_status', qr/^retrying\|.*started in another database/), 'it does not ingest');
$restored->safe_psql('postgres', "SELECT imgpipe.adopt_source('photos')");
ok(poll_until($restored, q(SELECT count(*), count(DISTINCT source_offset) FROM imgpipe.images WHERE source = 'photos'), '15|15'), 'until it is adopted: then it has what came since');
$restored->stop;

# Failover: the standby was behind nothing, and goes on by itself.
$primary->stop('immediate');
ok(execute('take over'), 'promoted');
$broker->produce('photos', [ @photos[ 15 .. 18 ] ], key => 'after the failover');
ok(poll_until($standby, q(SELECT count(*), count(DISTINCT source_offset) FROM imgpipe.images WHERE source = 'photos'), '19|19'), 'the new primary ingests, each message once');

$standby->stop;
done_testing();
