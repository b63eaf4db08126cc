# No room for images: nothing becomes a dead letter, positions stay, and ingest goes on when there is room.
#
# test/run mounts a small file system where the machine lets it.  Where it does not, the files of the server are limited in
# size, which fails in the same place with another error.
use strict;
use warnings;

use ImgpipeTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $n_images = 400;
my $n_bad = 4;
my $partitions = 2;
my $image_bytes = 100_000;		# 40 MB in all
my $room = 16_000_000;

my $broker = start_broker();
my $bootstrap = $broker->bootstrap;
my $node = new_cluster('main', 'imgpipe.max_processors = 0');
my $disk = $ENV{IMGPIPE_SMALL_DISK};
diag('no file system could be mounted: the size of files is limited instead') unless $disk;

# All of a database but the write-ahead log is on the small disk.
my $database = 'small';
my $tablespace = ($disk // $PostgreSQL::Test::Utils::tmp_check) . '/tablespace';
mkdir $tablespace or BAIL_OUT("could not make $tablespace: $!");
$node->safe_psql('postgres', "CREATE TABLESPACE small LOCATION '$tablespace'");
$node->safe_psql('postgres', "CREATE DATABASE $database TABLESPACE small");
$node->safe_psql($database, 'CREATE EXTENSION imgpipe');
sub query { return $node->safe_psql($database, $_[0]) }

my $photo = slurp_file((mass_images(1))[0]);
my $noise = join '', map { pack 'N', int rand 2**32 } 1 .. $image_bytes / 4;
$broker->create_topic('photos', $partitions);
for my $partition (0 .. $partitions - 1)
{
	$broker->produce_many('photos', [
		(map { { value => "$photo<$_>" . substr($noise, 0, $image_bytes - length($photo) - 6), key => "image $_", partition => $partition } }
			grep { $_ % $partitions == $partition } 1 .. $n_images),
		map { { value => "no image $_", key => "bad $_", partition => $partition } } grep { $_ % $partitions == $partition } 1 .. $n_bad ]);
}

# The limit holds for the server's processes to come; the log's files are 16 MB.
sub limit_files
{
	my ($bytes) = @_;
	my $postmaster = (split /\n/, slurp_file($node->data_dir . '/postmaster.pid'))[0];
	for my $pid ($postmaster, worker_pids($node, 'controller'), worker_pids($node, 'ingest'))
	{
		system('prlimit', "--pid=$pid", "--fsize=$bytes:") == 0 or BAIL_OUT('could not limit the size of files');
	}
}

sub free_bytes
{
	my ($kilobytes) = `df -k --output=avail '$disk'` =~ /(\d+)\s*$/;
	return $kilobytes * 1024;
}

# So that there is room for less than half of the images.
my $ballast = ($disk // '') . '/ballast';
if ($disk)
{
	system('fallocate', '-l', free_bytes() - $room, $ballast) == 0 or BAIL_OUT('could not fill the disk');
}
else
{
	limit_files(17_000_000);
}

query(qq(
	CREATE SERVER kafka FOREIGN DATA WRAPPER imgpipe_kafka OPTIONS (bootstrap_servers '$bootstrap');
	SELECT imgpipe.create_source('photos', 'kafka', 'photos', batch_rows => 20);
	SELECT imgpipe.start_source('photos')));
my $problem = $disk ? 'No space left on device' : 'File too large';
ok(poll_until($node, 'SELECT state, last_error FROM imgpipe.source_status', qr/^(retrying|failed)\|.*\Q$problem\E/, undef, $database), "status shows that there is no room: $problem");

# It tries again and again, and nothing moves: what is there is what the positions say.
my $truth = 'SELECT (SELECT count(*) FROM imgpipe.images), (SELECT count(*) FROM imgpipe.dead_letters), (SELECT coalesce(sum(next_offset), 0) FROM imgpipe.ingest_positions)';
my $tried = 'SELECT last_error_at FROM imgpipe.source_status';
for my $time (1 .. 3)
{
	my $at = query($tried);
	my ($images, $dead_letters, $positions) = split /\|/, query($truth);
	ok(poll_until($node, "SELECT ($tried) > '$at'", 't', undef, $database), "try $time: tried again");
	is(query($truth), "$images|$dead_letters|$positions", "try $time: nothing moved");
	cmp_ok($images, '<', $n_images, "try $time: not all are there");
	is($images, $positions, "try $time: positions are where the $images images end");
	is($dead_letters, 0, "try $time: nothing is a dead letter");
}

$disk ? unlink($ballast) : limit_files('unlimited');
ok(poll_until($node, 'SELECT state, lag_messages FROM imgpipe.source_status', 'idle|0', undef, $database), 'with room it goes on by itself');
is(query($truth), join('|', $n_images, $n_bad, $n_images + $n_bad), 'and everything is there');
is(query('SELECT count(DISTINCT source_key), count(DISTINCT (source_partition, source_offset)), min(octet_length(content::bytea)) > 90000 FROM imgpipe.images'), "$n_images|$n_images|t", 'once, and whole');
is(query("SELECT string_agg(source_key, ',' ORDER BY source_key) FROM imgpipe.dead_letters"), join(',', map {"bad $_"} 1 .. $n_bad), 'only what is no image is a dead letter');
unlike(slurp_file($node->logfile), qr/PANIC|terminated by signal/, 'nothing crashed');

$node->stop;
done_testing();
