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

# One statement, executed: what it returned and what it said.
sub execute
{
	my ($statement) = @_;
	my ($status, $out, $err) = $node->psql('postgres', "\\set VERBOSITY verbose\n$statement", on_error_stop => 1);
	return ($out, ($err =~ s/^psql:\S+ //r) =~ s/\n(?:CONTEXT|LOCATION):.*//sr);
}

# What needs no worker.
for my $statement (
	"INSERT INTO imgpipe.images (content) SELECT pg_read_binary_file('$photo') FROM generate_series(1, 3)",
	q(CREATE SERVER kafka FOREIGN DATA WRAPPER imgpipe_kafka OPTIONS (bootstrap_servers '127.0.0.1:1')),
	q(SELECT imgpipe.hold_images('case 1', image_ids => (SELECT array_agg(image_id) FROM imgpipe.images))))
{
	is((execute($statement))[1], '', "nothing is said of @{[ $statement =~ /^(\w+ [\w.]+)/ ]}");
}

# What is kept until there are workers, and says so.
my $advice = q(DETAIL:  imgpipe is not in shared_preload_libraries, so it has no background workers.
HINT:  Set shared_preload_libraries = 'imgpipe' in postgresql.conf and restart the server.);
for my $case (
	[ q(create_source('photos', 'kafka', 'photos')) => 'source "photos" cannot be started' ],
	[ q(adopt_source('photos')) => 'source "photos" waits for workers' ],
	[ q(create_processor('web', '{"small": "resize(width=32) | webp"}')) => 'processor "web" waits for workers' ],
	[ q(alter_processor('web', '{"small": "resize(width=30) | webp"}')) => 'processor "web" waits for workers' ],
	[ q(start_processor('web')) => 'processor "web" waits for workers' ],
	[ q(process_images('web')) => 'processor "web" waits for workers' ],
	[ q(schedule('hourly', '@hourly', 'SELECT 1')) => 'job "hourly" waits for workers' ],
	[ q(alter_job('hourly', command => 'SELECT 2')) => 'job "hourly" waits for workers' ],
	[ q(enqueue_message('kafka', 'news', 'key', 'value')) => 'messages to Kafka wait for workers' ],
	[ q(resend_refused()) => 'messages to Kafka wait for workers' ],
	[ q(adopt_outbox()) => 'messages to Kafka wait for workers' ],
	[ q(send_ledger_to('kafka', 'ledger')) => 'messages to Kafka wait for workers' ])
{
	my ($call, $problem) = @$case;
	is((execute("SELECT imgpipe.$call"))[1], "WARNING:  55000: $problem\n$advice", "$call says what it waits for");
}
is((execute(q(SELECT imgpipe.alter_job('hourly', enabled => false))))[1], '', 'a job that is off waits for nothing');
# Dead letters that are tried again: one warning for all of a statement.
$node->safe_psql('postgres', q(INSERT INTO imgpipe.dead_letters (image_id, stage, source, processor, version, sqlstate, reason)
	SELECT image_id, 'processing', source, 'web', 1, 'XX000', 'of no consequence' FROM imgpipe.images));
is_deeply([ execute('SELECT * FROM imgpipe.retry_dead_letters()') ], [ '3|0', qq(WARNING:  55000: processor "web" waits for workers\n$advice) ], 'so do dead letters, once');
is($node->safe_psql('postgres', 'SELECT (SELECT count(*) FROM imgpipe.sources), (SELECT count(*) FROM imgpipe.processors), (SELECT count(*) FROM imgpipe.jobs), (SELECT count(*) FROM imgpipe.outbox)'), '1|1|1|2', 'and all of it is kept');
is($node->safe_psql('postgres', q(SELECT imgpipe.image_width(imgpipe.process_image(content, 'resize(width=32) | png')) FROM imgpipe.images LIMIT 1)), 32, 'images are processed');
is($node->safe_psql('postgres', 'SELECT count(*) FROM imgpipe.tasks'), 3, 'work is queued');
is($node->safe_psql('postgres', 'SELECT imgpipe.purge_next_partition()'), 'f', 'a purge is done by hand');
ok($node->safe_psql('postgres', 'SELECT imgpipe.create_partitions()') >= 0, 'and partitions are made');

# What needs one.
for my $statement (q(start_source('photos')), q(run_job('hourly')), q(start_workers()), q(replay_source('photos', 'earliest', 'latest')))
{
	my ($name) = $statement =~ /^(\w+)/;
	like((execute("SELECT imgpipe.$statement"))[1], qr/^ERROR:  55000: .*\n\Q$advice\E/, "$name says that it needs workers");
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
