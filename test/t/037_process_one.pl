# The postmaster is process 1, as in a container: what becomes of decoders is no crash of a backend to it.
use strict;
use warnings;

use ImgpipeTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my @namespace = qw(unshare --user --map-current-user --pid --fork --kill-child --mount-proc);
plan skip_all => 'this machine lets nobody make a namespace of processes'
  if system("@namespace true 2>/dev/null") != 0;

my $node = PostgreSQL::Test::Cluster->new('process_one');
$node->init;
$node->append_conf('postgresql.conf', join "\n",
	"shared_preload_libraries = 'imgpipe'", 'restart_after_crash = on', 'imgpipe.decoder_idle_timeout = 200');
my $log = $node->logfile;
my $server = IPC::Run::start([ @namespace, 'postgres', '-D', $node->data_dir ], '<', \undef, '>', $log, '2>&1');
ok(poll_until($node, 'SELECT 1', 1), 'started');

my $photo = sample_image('photo.jpg');
$node->safe_psql('postgres', 'CREATE EXTENSION imgpipe');
my $began = $node->safe_psql('postgres', 'SELECT pg_postmaster_start_time()');
is($node->safe_psql('postgres', "SELECT imgpipe.image_width(imgpipe.image(pg_read_binary_file('$photo')))"), 2048, "session $_ uses a decoder and ends")
  for 1 .. 3;
is($node->safe_psql('postgres', "SELECT imgpipe.image_width(imgpipe.image(pg_read_binary_file('$photo'))); SELECT pg_sleep(0.5)"), "2048\n", 'so does one whose decoder was idle for too long');
$node->psql('postgres', "SELECT imgpipe.image(pg_read_binary_file('$photo')); SELECT pg_terminate_backend(pg_backend_pid())", stdout => \my $out, stderr => \my $errors);
like($errors, qr/terminating connection/, 'and one that is terminated');

# A processor worker has a decoder, and leaves when the server is stopped.
$node->safe_psql('postgres', qq(
	SELECT imgpipe.create_processor('small', '{"small": "resize(width=64)"}');
	INSERT INTO imgpipe.images (content) VALUES (pg_read_binary_file('$photo'))));
ok(poll_until($node, 'SELECT count(*) FROM imgpipe.renditions', 1), 'a worker makes a rendition');
is($node->safe_psql('postgres', 'SELECT pg_postmaster_start_time()'), $began, 'the server is the one that was started');
unlike(slurp_file($log), qr/terminated by signal|reinitializing|another server process/, 'and no backend was taken for crashed');

my ($parent) = map { $_->{PID} } @{ $server->{KIDS} };
my ($postmaster) = split ' ', slurp_file("/proc/$parent/task/$parent/children");
kill 'INT', $postmaster;
$server->finish;
like(slurp_file($log), qr/database system is shut down/, 'and ends as it is told to');

done_testing();
