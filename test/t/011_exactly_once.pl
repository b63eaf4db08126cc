# Whatever is killed in mid-load: every message is one image or one dead
# letter, and every image has each rendition once.
use strict;
use warnings;

use Digest::SHA;
use ImgpipeTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $n_images = 2200;
my $n_bad = 200;
my $partitions = 4;

my $broker = start_broker();
my $bootstrap = $broker->bootstrap;
my $node = new_cluster('main', 'imgpipe.max_processors = 2', 'imgpipe.task_lease = 10s', "synchronous_commit = on");
my @images = mass_images($n_images);

# Both kinds go to all partitions, mixed: bad ones among good ones.
$broker->create_topic('photos', $partitions);
for my $partition (0 .. $partitions - 1)
{
	my @messages = map { { file => $images[$_], key => "image $_", partition => $partition } }
	  grep { $_ % $partitions == $partition } 0 .. $#images;
	my @bad = map { { value => "not an image, number $_", key => "bad $_", partition => $partition } }
	  grep { $_ % $partitions == $partition } 1 .. $n_bad;
	my $distance = int(@messages / @bad);
	splice @messages, $_ * ($distance + 1), 0, $bad[$_] for 0 .. $#bad;
	$broker->produce_many('photos', \@messages);
}
is($broker->message_count('photos'), $n_images + $n_bad, 'all messages are sent');

# Slow enough that every blow falls in the middle.
$node->safe_psql('postgres', qq(
	CREATE FUNCTION public.slowly() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.004); RETURN NEW; END';
	CREATE TRIGGER slowly BEFORE INSERT ON imgpipe.images FOR EACH ROW EXECUTE FUNCTION public.slowly();
	CREATE SERVER kafka FOREIGN DATA WRAPPER imgpipe_kafka OPTIONS (bootstrap_servers '$bootstrap');
	SELECT imgpipe.create_processor('web', '{"small": "resize(width=32) | webp", "gray": "grayscale | jpeg(quality=50)"}', max_attempts => 20);
	SELECT imgpipe.create_source('photos', 'kafka', 'photos', parallelism => 2, batch_rows => 20);
	SELECT imgpipe.start_source('photos')));

my $count = 'SELECT count(*) FROM imgpipe.images';

# Waits for more images, strikes, and sees that the blow fell in mid-load.
sub strike
{
	my ($at, $what, $blow) = @_;
	ok(poll_until($node, "SELECT ($count) >= $at", 't'), "$at images are there");
	$blow->();
	ok(poll_until($node, "SELECT ($count) >= $at", 't'), "the server is back after $what");
	my $left = $n_images - $node->safe_psql('postgres', $count);
	cmp_ok($left, '>', 0, "$what was in mid-load, with $left images to come");
}

sub kill_worker
{
	my ($kind) = @_;
	my $recoveries = () = slurp_file($node->logfile) =~ /all server processes terminated; reinitializing/g;
	is(kill('KILL', worker_pid($node, $kind)), 1, "an imgpipe $kind is killed");
	ok(poll_code(sub { (() = slurp_file($node->logfile) =~ /all server processes terminated; reinitializing/g) > $recoveries }), 'the server recovers');
}

strike(300, 'kill -9 of an ingest worker', sub { kill_worker('ingest') });
strike(800, 'kill -9 of a processor worker', sub { kill_worker('processor') });
strike(1300, 'an immediate stop', sub { $node->stop('immediate'); $node->start });
strike(1800, 'kill -9 of another ingest worker', sub { kill_worker('ingest') });

ok(poll_until($node, 'SELECT state, workers, partitions, lag_messages FROM imgpipe.source_status', "idle|2|$partitions|0"), 'ingest is through');
ok(poll_until($node, 'SELECT count(*) FROM imgpipe.tasks', 0), 'processing is through');

is($node->safe_psql('postgres', $count), $n_images, 'as many images as were sent');
is($node->safe_psql('postgres', "SELECT count(*) FROM imgpipe.dead_letters WHERE stage = 'ingest'"), $n_bad, 'as many dead letters as bad messages');
is($node->safe_psql('postgres', "SELECT count(*) FROM imgpipe.dead_letters WHERE stage = 'processing'"), 0, 'and none of processing');

# Each offset of each partition exactly once, in one table or the other.
is($node->safe_psql('postgres', q(
	WITH arrived AS (
		SELECT source_partition AS partition, source_offset AS number FROM imgpipe.images
		UNION ALL
		SELECT source_partition, source_offset FROM imgpipe.dead_letters WHERE stage = 'ingest'),
	expected AS (
		SELECT p.partition, o.number FROM imgpipe.ingest_positions p, generate_series(0, p.next_offset - 1) o (number))
	SELECT (SELECT count(*) FROM (TABLE arrived EXCEPT ALL TABLE expected) a),
		(SELECT count(*) FROM (TABLE expected EXCEPT ALL TABLE arrived) b),
		(SELECT count(*) FROM expected))),
	'0|0|' . ($n_images + $n_bad), 'every offset exactly once');

# And each file.
my %sent = map { Digest::SHA->new(256)->addfile($_, 'b')->hexdigest => 1 } @images;
my %arrived = map { $_ => 1 } split /\n/, $node->safe_psql('postgres', "SELECT encode(sha256, 'hex') FROM imgpipe.images");
is(scalar(keys %sent), $n_images, 'the images are all different');
is(join(',', sort keys %arrived), join(',', sort keys %sent), 'and arrived as they were sent');

is($node->safe_psql('postgres', q(SELECT count(*), count(DISTINCT image_id), min(n), max(n)
		FROM (SELECT i.image_id, count(r.name) AS n FROM imgpipe.images i LEFT JOIN imgpipe.renditions r USING (image_id) GROUP BY 1) x)),
	"$n_images|$n_images|2|2", 'every image has both renditions');
is($node->safe_psql('postgres', "SELECT count(*), count(DISTINCT (image_id, name)) FROM imgpipe.renditions"),
	2 * $n_images . '|' . 2 * $n_images, 'once');

$node->stop;
done_testing();
