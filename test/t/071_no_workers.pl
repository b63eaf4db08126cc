# Without shared_preload_libraries everything works but what needs workers, and that says so.
use strict;
use warnings;

use ImgpipeTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->start;
is($node->safe_psql('postgres', 'SHOW shared_preload_libraries'), '', 'nothing is preloaded');
$node->safe_psql('postgres', 'CREATE EXTENSION imgpipe');
my $photo = sample_image('photo.jpg');

# What needs no worker.
$node->safe_psql('postgres', qq(
	INSERT INTO imgpipe.images (content) SELECT pg_read_binary_file('$photo') FROM generate_series(1, 3);
	CREATE SERVER kafka FOREIGN DATA WRAPPER imgpipe_kafka OPTIONS (bootstrap_servers '127.0.0.1:1');
	SELECT imgpipe.create_source('photos', 'kafka', 'photos');
	SELECT imgpipe.create_processor('web', '{"small": "resize(width=32) | webp"}');
	SELECT imgpipe.process_images('web');
	SELECT imgpipe.schedule('hourly', '\@hourly', 'SELECT 1');
	SELECT imgpipe.hold_images('case 1', image_ids => (SELECT array_agg(image_id) FROM imgpipe.images))));
is($node->safe_psql('postgres', q(SELECT imgpipe.image_width(imgpipe.process_image(content, 'resize(width=32) | png')) FROM imgpipe.images LIMIT 1)), 32, 'images are processed');
is($node->safe_psql('postgres', 'SELECT count(*) FROM imgpipe.tasks'), 3, 'work is queued');
is($node->safe_psql('postgres', 'SELECT imgpipe.purge_next_partition()'), 'f', 'a purge is done by hand');
ok($node->safe_psql('postgres', 'SELECT imgpipe.create_partitions()') >= 0, 'and partitions are made');

# What needs one.
for my $statement (q(start_source('photos')), q(run_job('hourly')), q(start_workers()), q(replay_source('photos', 'earliest', 'latest')))
{
	my ($name) = $statement =~ /^(\w+)/;
	my ($status, $out, $err) = $node->psql('postgres', "\\set VERBOSITY verbose\nSELECT imgpipe.$statement", on_error_stop => 1);
	like($err, qr/ERROR:\s+55000: .*DETAIL:.*imgpipe is not in shared_preload_libraries.*HINT:.*shared_preload_libraries = 'imgpipe'.*restart/s, "$name says that it needs workers");
}
# As after a restart without it.
$node->safe_psql('postgres', 'UPDATE imgpipe.sources SET enabled = true');
like($node->safe_psql('postgres', "SELECT last_error FROM imgpipe.source_status"), qr/not in shared_preload_libraries/, 'the status of sources says why nothing comes');
like($node->safe_psql('postgres', 'SELECT problem FROM imgpipe.job_status'), qr/not in shared_preload_libraries/, 'that of jobs, too');
like($node->safe_psql('postgres', "SELECT string_agg(h::text, ' ') FROM imgpipe.health_check() h WHERE severity = 'critical'"), qr/not in shared_preload_libraries/, 'and health_check()');
$node->safe_psql('postgres', q(SELECT imgpipe.stop_source('photos'); SELECT imgpipe.stop_processor('web'); SELECT imgpipe.unschedule('hourly')));
is($node->safe_psql('postgres', "SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'imgpipe%'"), 0, 'there are no workers');
$node->stop;
done_testing();
