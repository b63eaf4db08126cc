# The purge at work: overdue partitions, readers in the way, what is left on disk, holds, erasure and replay, cheaper storage.
use strict;
use warnings;

use File::Find qw(find);
use ImgpipeTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $node = new_cluster('main', 'imgpipe.max_processors = 0', 'autovacuum = off', 'wal_level = replica', 'max_wal_senders = 5',
	'max_locks_per_transaction = 256', 'max_prepared_transactions = 2', "shared_preload_libraries = 'imgpipe, pg_stat_statements'");
my $photo = sample_image('small.jpg');

sub query { return $node->safe_psql('postgres', $_[0]) }

query(q[
	CREATE FUNCTION overdue(day date) RETURNS void LANGUAGE sql AS
		$$SELECT imgpipe.create_partition(parent, day + time '00:00', day + time '06:00') FROM imgpipe.partitioned_tables$$;
	CREATE TABLE photo (file bytea)]);
query("INSERT INTO photo VALUES (pg_read_binary_file('$photo'))");

# Overdue partitions with images in them; the purge looks for them when it is woken.
sub make_overdue
{
	my ($first, $count, $images) = @_;
	query(qq[BEGIN;
		SELECT overdue(date '$first' + i) FROM generate_series(0, $count - 1) i;
		INSERT INTO imgpipe.images (image_id, content, received_at)
			SELECT imgpipe.new_image_id(date '$first' + i + time '03:00'), file, date '$first' + i - 7
			FROM generate_series(0, $count - 1) i, generate_series(1, $images), photo;
		COMMIT;]);
	wake();
}

sub wake { query('SELECT imgpipe.wake_controller()') }
sub overdue_rows { return query(q[SELECT value || ' ' || detail FROM imgpipe.retention_report() WHERE item = 'overdue_rows']) }
sub nothing_overdue { return poll_until($node, q[SELECT imgpipe.wake_controller(), count(*) FROM imgpipe.partitions WHERE deadline_to <= now()], '|0') }

# Ten deadlines at once.

make_overdue('2020-01-01', 10, 3);
my $volume = query('SELECT day, source, format, images, bytes FROM imgpipe.daily_volume ORDER BY 1');
ok(nothing_overdue(), 'what is overdue goes by itself');
ok(poll_until($node, 'SELECT count(*) FROM imgpipe.purges', 0), 'to the end');
is(query(q[SELECT count(*), sum((row_counts ->> 'images')::int), count(*) FILTER (WHERE lateness > '1 year') FROM imgpipe.purge_ledger WHERE cause = 'retention']),
	'10|30|10', 'the ledger has each span of deadlines once');
is(query('SELECT count(*) FROM imgpipe.verify_ledger()'), 0, 'its chain is whole');
is(query('SELECT day, source, format, images, bytes FROM imgpipe.daily_volume ORDER BY 1'), $volume, 'the daily volume is as before');
is(overdue_rows(), '0 in 0 partitions', 'the report says so');
is(query(q[SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE nspname = 'imgpipe_partitions' AND relname LIKE '%_2020%']), 0, 'no table is left');
my ($anchor) = slurp_file($node->logfile) =~ /purge ledger entry 7 has hash ([0-9a-f]{64})/;
is(query('SELECT encode(hash, \'hex\') FROM imgpipe.purge_ledger WHERE entry = 7'), $anchor, 'the server log has the hash of an entry');
query('UPDATE imgpipe.purge_ledger SET bytes = 0 WHERE entry = 2');
query('UPDATE imgpipe.purge_ledger l SET hash = imgpipe.ledger_hash(l) WHERE entry = 2');
query(qq[DO \$\$DECLARE e bigint; BEGIN FOR e IN 3..10 LOOP
	UPDATE imgpipe.purge_ledger l SET previous_hash = (SELECT hash FROM imgpipe.purge_ledger p WHERE p.entry = e - 1) WHERE entry = e;
	UPDATE imgpipe.purge_ledger l SET hash = imgpipe.ledger_hash(l) WHERE entry = e; END LOOP; END\$\$;
	UPDATE imgpipe.purge_ledger_head SET hash = (SELECT hash FROM imgpipe.purge_ledger WHERE entry = 10)]);
is(query('SELECT count(*) FROM imgpipe.verify_ledger()'), 0, 'a chain that was written anew looks whole');
like(query("SELECT problem FROM imgpipe.verify_ledger(decode('$anchor', 'hex'))"), qr/the chain was made anew/, 'but not against the anchor');

# A reader in a long transaction: nobody waits but the purge.

my $log_before = -s $node->logfile;
query(q[ALTER SYSTEM SET imgpipe.fault_point = 'sealed'; SELECT pg_reload_conf()]);
make_overdue('2020-02-01', 3, 2);
ok(poll_code(sub { slurp_file($node->logfile, $log_before) =~ /fault point "sealed" reached/ }), 'the purge is held up');
my $reader = $node->background_psql('postgres', on_error_stop => 1);
is($reader->query_safe('BEGIN; SELECT count(*) FROM imgpipe.images;'), 6, 'a reader has just now read what is about to go');
query('ALTER SYSTEM RESET imgpipe.fault_point; SELECT pg_reload_conf()');
my $waits = q[SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'imgpipe purge' AND query LIKE 'ALTER TABLE imgpipe.images DETACH PARTITION%' AND cardinality(pg_blocking_pids(pid)) > 0];
ok(poll_until($node, $waits, 1), 'the purge waits for a reader');
like(query(q[SELECT value || '; ' || hint FROM imgpipe.retention_report() WHERE item = 'problem']),
	qr/^the purge waits for process (\d+); It goes on .* SELECT pg_terminate_backend\(\1\)/, 'the report says for which');
my $began = time;
is(query(q[SET lock_timeout = '100ms'; SET statement_timeout = '5s';
	INSERT INTO imgpipe.images (content) SELECT file FROM photo;
	SELECT count(*) FROM imgpipe.images WHERE image_id >= imgpipe.fence();
	SELECT imgpipe.create_partitions(interval '12 days') > 0]), "1\nt", 'meanwhile others read, write and make partitions');
is(query($waits), 1, 'while it still waits');
is($reader->query_safe('SELECT count(*) FROM imgpipe.images WHERE image_id >= imgpipe.fence()'), 1, 'the reader goes on too');
my $ended = $reader->query_safe('SELECT clock_timestamp()');
$reader->query_safe('COMMIT');
ok(nothing_overdue(), 'and when the reader ends, all goes');
$reader->quit;
ok(poll_until($node, q[SELECT count(*) FROM imgpipe.purge_ledger WHERE deadline_to >= '2020-02-01' AND deadline_to < '2020-03-01'], 3), 'each once');
is(query("SELECT bool_and(lateness > '$ended'::timestamptz - deadline_to) FROM imgpipe.purge_ledger WHERE deadline_to >= '2020-02-01' AND deadline_to < '2020-03-01'"), 't', 'and the ledger has how late');

# A statement that writes into what is detached, before and after that: PostgreSQL would crash if a constraint were added in between.

{
	query('SELECT imgpipe.stop_workers()');
	query(q[SELECT overdue('2020-03-01')]);
	my $gate = $node->background_psql('postgres', on_error_stop => 1);
	$gate->query_safe('SELECT pg_advisory_lock(1)');
	my $writes = q[INSERT INTO imgpipe.images (image_id, content) SELECT imgpipe.new_image_id('2020-03-01 03:00'), file FROM photo, generate_series(1, 3) n
		WHERE n = 1 OR pg_advisory_xact_lock(1)::text = ''];
	my ($out, $errors) = ('', '');
	my $writer = IPC::Run::start([ 'psql', '-X', '-d', $node->connstr('postgres'), '-c', $writes ], '>', \$out, '2>', \$errors);
	ok(poll_until($node, q[SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'INSERT %' AND wait_event = 'advisory'], 1), 'a statement has written its first row');
	query('SELECT imgpipe.start_workers()');
	ok(poll_until($node, $waits, 1), 'the purge waits for it');
	$gate->quit;
	$writer->finish;
	is("$out$errors", "INSERT 0 3\n", 'it writes on');
	ok(poll_until($node, q[SELECT row_counts ->> 'images' FROM imgpipe.purge_ledger WHERE deadline_to > '2020-03-01' AND deadline_to < '2020-03-02'], 3), 'and all of it goes');
}

# An autovacuum of what is to be dropped is ended.

{
	my $log_before = -s $node->logfile;
	query(q[ALTER SYSTEM SET imgpipe.fault_point = 'counted'; SELECT pg_reload_conf()]);
	make_overdue('2020-04-01', 1, 1000);
	ok(poll_code(sub { slurp_file($node->logfile, $log_before) =~ /fault point "counted" reached/ }), 'all is detached');
	query('SELECT imgpipe.stop_workers()');
	ok(poll_until($node, q[SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'imgpipe %' AND backend_type <> 'imgpipe launcher'], 0), 'the workers stop');
	query('ALTER TABLE imgpipe_partitions.images_20200401_00 SET (autovacuum_vacuum_insert_threshold = 1, autovacuum_vacuum_cost_delay = 100, autovacuum_vacuum_cost_limit = 1)');
	query(q[ALTER SYSTEM RESET imgpipe.fault_point; ALTER SYSTEM SET autovacuum = on; ALTER SYSTEM SET autovacuum_naptime = '1s'; SELECT pg_reload_conf()]);
	ok(poll_until($node, q[SELECT count(*) > 0 FROM pg_stat_activity WHERE query LIKE 'autovacuum: VACUUM %images_20200401_00%'], 't'), 'an autovacuum is at it');
	query('SELECT imgpipe.start_workers()');
	ok(poll_until($node, 'SELECT count(*) FROM imgpipe.purges', 0), 'it is dropped');
	like(slurp_file($node->logfile, $log_before), qr/canceling autovacuum task/, 'after the autovacuum was ended');
	query('ALTER SYSTEM RESET autovacuum; ALTER SYSTEM RESET autovacuum_naptime; SELECT pg_reload_conf()');
}

# A prepared transaction is in the way as well, and has no process to name.

query(q[BEGIN; SELECT count(*) FROM imgpipe.images; PREPARE TRANSACTION 'in the way']);
make_overdue('2020-05-01', 1, 1);
ok(poll_until($node, q[SELECT value, hint FROM imgpipe.retention_report() WHERE item = 'problem'],
	q[the purge waits for prepared transaction 'in the way'|It goes on when that ends: COMMIT PREPARED 'in the way'; or ROLLBACK PREPARED 'in the way';]), 'the report names a prepared transaction');
query(q[ROLLBACK PREPARED 'in the way']);
ok(nothing_overdue(), 'after which it goes on');

# 200 at once, and in the midst of them a view of somebody's on a partition.

{
	query('SELECT imgpipe.stop_workers()');
	ok(poll_until($node, q[SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'imgpipe %' AND backend_type <> 'imgpipe launcher'], 0), 'the workers stop');
	make_overdue('2021-01-01', 200, 1);
	query('CREATE VIEW in_the_way AS SELECT image_id FROM imgpipe_partitions.images_20210301_00');
	query('CREATE TABLE refers (image_id uuid REFERENCES imgpipe_partitions.images_20210302_00)');
	query('SELECT imgpipe.start_workers()');
	ok(nothing_overdue(), '200 are purged');
	ok(poll_until($node, 'SELECT count(*) FROM imgpipe.purges', 2), 'but for the two that something depends on');
	is(query(q[SELECT count(*), count(DISTINCT deadline_to) FROM imgpipe.purge_ledger WHERE deadline_to >= '2021-01-01' AND deadline_to < '2022-01-01']),
		'199|199', 'the ledger has what is gone');
	is(query('SELECT count(*) FROM in_the_way'), 0, 'of the one with a view the images are gone too');
	my $tables = query('SELECT count(*) FROM imgpipe.partitioned_tables');
	is(overdue_rows(), "1 in $tables partitions", 'of the one with a foreign key they are not');
	my $problems = query(q[SELECT value, detail, hint FROM imgpipe.retention_report() WHERE item = 'problem' ORDER BY value]);
	like($problems, qr/the empty table cannot be dropped\|view public.in_the_way depends on table imgpipe_partitions.images_20210301_00\|Drop what depends on the table/, 'the report says what to do about the view');
	like($problems, qr/cannot truncate a table referenced in a foreign key constraint\|.*\|Drop the constraint that refers to the table/, 'and about the key');
	query('DROP VIEW in_the_way; DROP TABLE refers');
	ok(poll_until($node, 'SELECT imgpipe.wake_controller(), count(*) FROM imgpipe.purges', '|0'), 'then they go by themselves');
	is(query(q[SELECT count(*) FROM imgpipe.purge_ledger WHERE deadline_to >= '2021-01-01' AND deadline_to < '2022-01-01']), '200', 'and each is in the ledger once');
	is(query('SELECT count(*) FROM imgpipe.verify_ledger()'), 0, 'in one chain');
}

# What is on disk: the values of an image, of its key, its dead letter, in heap, TOAST, index and statistics.

my $marker = 'PlantedBytes' . join '', map { chr(65 + int rand 26) } 1 .. 16;

sub files_with_marker
{
	my @found;
	$node->safe_psql('postgres', 'CHECKPOINT');
	find({ no_chdir => 1, wanted => sub {
		return unless -f $_ && $_ !~ m{/pg_wal/|/log/};
		open my $file, '<:raw', $_ or return;
		local $/;
		push @found, $_ if index(<$file> // '', $marker) >= 0;
	} }, $node->data_dir);
	return scalar @found;
}

{
	# A JPEG with the bytes in a comment, large enough to be kept out of line.
	my $comment = $marker x 400;
	my $image = slurp_file($photo);
	substr($image, 2, 0) = pack('a2na*', "\xff\xfe", length($comment) + 2, $comment);
	my $path = $node->basedir . '/marked.jpg';
	open my $file, '>:raw', $path or die;
	print $file $image;
	close $file;
	query('SELECT imgpipe.stop_workers()');
	ok(poll_until($node, q[SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'imgpipe %' AND backend_type <> 'imgpipe launcher'], 0), 'nobody purges');
	query(qq[BEGIN; SELECT overdue('2022-01-01');
		INSERT INTO imgpipe.images (image_id, content, source_key, uploaded_by, batch_id, headers)
			SELECT imgpipe.new_image_id(timestamptz '2022-01-01 03:00'), pg_read_binary_file('$path'), '$marker key' || i, '$marker', '$marker', '{"$marker": 1}' FROM generate_series(1, 3) i;
		INSERT INTO imgpipe.renditions (image_id, processor, name, version, content) SELECT image_id, 'p', 'n', 1, content FROM imgpipe.images WHERE uploaded_by = '$marker';
		INSERT INTO imgpipe.results (image_id, processor, version, result) SELECT image_id, 'p', 1, '{"$marker": 2}' FROM imgpipe.images WHERE uploaded_by = '$marker';
		INSERT INTO imgpipe.dead_letters (image_id, stage, source_key, value, sqlstate, reason, detail)
			VALUES (imgpipe.new_image_id(timestamptz '2022-01-01 03:00'), 'ingest', '$marker', convert_to(repeat('$marker', 1000), 'UTF8'), '22P03', '$marker', '$marker');
		ANALYZE imgpipe.images, imgpipe.renditions, imgpipe.results, imgpipe.dead_letters;
		COMMIT]);
	cmp_ok(files_with_marker(), '>=', 4, 'planted bytes are found on disk');
	query('SELECT imgpipe.start_workers()');
	ok(nothing_overdue(), 'they are purged');
	ok(poll_until($node, 'SELECT count(*) FROM imgpipe.purges', 0), 'to the end');
	query('ANALYZE');
	is(files_with_marker(), 0, 'and then they are nowhere but in the write-ahead log');
	my $residue = query(q[SELECT place || ': ' || detail FROM imgpipe.retention_residue()]);
	like($residue, qr/^write-ahead log: \d+ segments/m, 'as retention_residue() says');
	like($residue, qr/^pg_stat_statements: pg_stat_statements.track_utility = on keeps EXECUTE, CALL and the like, with the values in them$/m, 'which knows what else could keep them');
}

# A hold ends by itself.

query(q[SELECT imgpipe.hold_images('case 1', uploaded_by => session_user)]);
make_overdue('2022-02-01', 1, 5);
ok(nothing_overdue(), 'what is held is purged on time');
ok(poll_until($node, q[SELECT count(*) FROM imgpipe.held_images WHERE case_reference = 'case 1'], 5), 'and kept aside');
query(q[UPDATE imgpipe.holds SET until = now() + interval '1 second']);
ok(poll_until($node, q[SELECT imgpipe.wake_controller(), count(*) FROM imgpipe.holds], '|0'), 'a hold ends by itself');
is(query(q[SELECT row_counts FROM imgpipe.purge_ledger WHERE cause = 'release']), '{"held_images": 5}', 'and its copies are gone');

# Somebody's view on the copies keeps an empty table, and no worker busy.

my $hold = query(q[SELECT imgpipe.hold_images('case 2', uploaded_by => session_user); SELECT max(hold_id) FROM imgpipe.holds]) =~ s/.*\n//sr;
make_overdue('2022-02-02', 1, 5);
ok(poll_until($node, q[SELECT count(*) FROM imgpipe.held_images WHERE case_reference = 'case 2'], 5), 'copies for another hold');
query("CREATE VIEW on_copies AS SELECT image_id FROM imgpipe_partitions.held_images_$hold");
my $log_before = -s $node->logfile;
query(q[UPDATE imgpipe.holds SET until = now()]);
ok(poll_until($node, q[SELECT imgpipe.wake_controller(), attempts > 1 FROM imgpipe.holds], '|t'), 'the hold ends, but for what a view depends on, which is tried again');
is(query(q[SELECT count(*), (SELECT sum((row_counts ->> 'held_images')::int) FROM imgpipe.purge_ledger WHERE cause = 'release') FROM imgpipe.held_images]), '0|10', 'its copies are gone, once');
like(query(q[SELECT value, detail, hint FROM imgpipe.retention_report() WHERE item = 'problem']),
	qr/^end of a hold for case 'case 2': what was held is gone, but the empty table cannot be dropped\|view public.on_copies depends on table imgpipe_partitions.held_images_$hold\|Drop what depends on the table; then it goes by itself. Tried \d+ times; next at /,
	'the report names the view');
unlike(slurp_file($node->logfile, $log_before), qr/purging overdue images failed/, 'the log is silent of it');
query(q[DROP VIEW on_copies; UPDATE imgpipe.holds SET retry_at = now()]);
ok(poll_until($node, q[SELECT imgpipe.wake_controller(), count(*) FROM imgpipe.holds], '|0'), 'without the view the table goes');

# A reader with SELECT on an image does not see it a moment after its deadline, on a standby neither.

{
	$node->backup('backup');
	my $standby = PostgreSQL::Test::Cluster->new('standby');
	$standby->init_from_backup($node, 'backup', has_streaming => 1);
	$standby->start;
	$node->wait_for_catchup($standby);
	query(q[SELECT pg_create_physical_replication_slot('nobody', true)]);
	is(query(q[SELECT place, regexp_replace(detail, '^\d+ \w+', '#'), gone_by = (SELECT purged_at FROM imgpipe.purge_ledger ORDER BY entry DESC LIMIT 1), hint
		FROM imgpipe.retention_residue() WHERE place ~ '^(standby|replication slot)' ORDER BY place DESC]),
		"standby standby|it has replayed all purges|t|\nreplication slot nobody|# of write-ahead log are kept for it||Nobody reads from it: SELECT pg_drop_replication_slot('nobody');", 'standbys and slots');
	query(q[SELECT pg_drop_replication_slot('nobody')]);
	query(q[CREATE ROLE reader LOGIN; GRANT USAGE ON SCHEMA imgpipe TO reader; GRANT SELECT ON imgpipe.images, imgpipe.daily_volume, imgpipe.sealed_daily_volume TO reader]);
	query(q[INSERT INTO imgpipe.images (image_id, content, source_key) SELECT imgpipe.new_image_id(clock_timestamp() + interval '3 seconds'), file, 'short' FROM photo]);
	my $deadline = query(q[SELECT imgpipe.purge_at(image_id) FROM imgpipe.images WHERE source_key = 'short']);
	my $total = query('SELECT sum(images) FROM imgpipe.daily_volume');
	$node->wait_for_catchup($standby);
	for my $server ($node, $standby)
	{
		my $name = $server->name;
		# One statement a look: what it sees and when it began are of one moment.
		my @looks;
		for (;;)
		{
			my $look = $server->safe_psql('postgres', qq[SELECT (SELECT count(*) FROM imgpipe.images WHERE source_key = 'short') = (statement_timestamp() < '$deadline')::int,
				statement_timestamp() < '$deadline', (SELECT sum(images) FROM imgpipe.daily_volume) = $total], extra_params => [ '-U', 'reader' ]);
			push @looks, $look;
			last if $look =~ /^.\|f/;
		}
		is(scalar(grep { !/^t\|.\|t$/ } @looks), 0, "$name: exact to the moment, and the daily volume stays") or diag(join "\n", @looks);
	}
	$standby->stop;
}

# Cheaper storage.

{
	my $place = $node->basedir . '/cold';
	mkdir $place or die;
	query("CREATE TABLESPACE cold LOCATION '$place'");
	query(q[INSERT INTO imgpipe.images (image_id, content, source_key) SELECT imgpipe.new_image_id(now() + i * interval '1 day'), file, 'day ' || i FROM photo, generate_series(1, 6) i]);
	$node->append_conf('postgresql.conf', "imgpipe.cold_tablespace = 'cold'\nimgpipe.cold_after = '4d'");
	$node->reload;
	my $moved = q[SELECT count(*) FILTER (WHERE s.spcname = 'cold') - count(*) FILTER (WHERE p.deadline_to <= now() + interval '3 days'),
			count(*) FILTER (WHERE s.spcname = 'cold') > 30, imgpipe.wake_controller()
		FROM imgpipe.partitions p JOIN pg_class c ON c.oid = p.partition LEFT JOIN pg_tablespace s ON s.oid = c.reltablespace];
	ok(poll_until($node, $moved, '0|t|'), 'partitions whose images are 4 of 7 days old are moved');
	is(query(q[SELECT DISTINCT s.spcname FROM imgpipe.partitions p JOIN pg_index i ON i.indrelid = p.partition JOIN pg_class c ON c.oid = i.indexrelid
		JOIN pg_tablespace s ON s.oid = c.reltablespace WHERE p.deadline_to < now() + interval '2 days']), 'cold', 'with their indexes');
	is(query(q[SELECT count(DISTINCT image_sha256) FROM (SELECT imgpipe.image_sha256(content) FROM imgpipe.images WHERE source_key LIKE 'day %') x]), 1, 'and can be read');
	$node->append_conf('postgresql.conf', "imgpipe.cold_tablespace = 'nowhere'");
	$node->reload;
	ok(poll_until($node, q[SELECT value FROM imgpipe.retention_report() WHERE item = 'problem'], 'tablespace "nowhere" does not exist'), 'a missing tablespace is reported');
	$node->append_conf('postgresql.conf', "imgpipe.cold_tablespace = ''");
	$node->reload;
}

# Erased, and read from Kafka again.

{
	my $broker = start_broker();
	my $bootstrap = $broker->bootstrap;
	my $text = $node->basedir . '/text';
	append_to_file($text, 'no image');
	my $hour = 3600 * 1000;
	$broker->create_topic('photos', 1, 'retention.ms=' . 14 * 24 * $hour, "segment.ms=$hour");
	$broker->create_topic('compacted', 1, 'cleanup.policy=compact');
	$broker->produce('photos', [ ($photo) x 3 ], key => 'ada', headers => { uploaded_by => 'ada' });
	$broker->produce('photos', [ ($photo) x 2 ], key => 'bob', headers => { uploaded_by => 'bob' });
	$broker->produce('photos', [$text], key => 'ada');
	query(qq[CREATE SERVER kafka FOREIGN DATA WRAPPER imgpipe_kafka OPTIONS (bootstrap_servers '$bootstrap');
		SELECT imgpipe.create_source('photos', 'kafka', 'photos'); SELECT imgpipe.start_source('photos')]);
	my $there = q[SELECT string_agg(format('%s %s', source_key, images), ', ' ORDER BY source_key) FROM (SELECT source_key, count(*) AS images FROM imgpipe.images WHERE source IN ('photos', 'again') GROUP BY 1) x];
	ok(poll_until($node, $there, 'ada 3, bob 2'), 'images from Kafka');
	ok(poll_until($node, q[SELECT count(*) FROM imgpipe.dead_letters WHERE source_key = 'ada'], 1), 'and a dead letter');
	is(query(q[SELECT images, row_counts -> 'dead_letters' FROM imgpipe.erase_images(source_key => 'ada')]), '3|1', 'are erased');
	is(query($there), 'bob 2', 'of one key');
	query(q[SELECT imgpipe.stop_source('photos')]);
	ok(poll_until($node, 'SELECT state FROM imgpipe.source_status', 'stopped'), 'the source stops');
	query(q[SELECT imgpipe.seek_source('photos', 'earliest'); SELECT imgpipe.start_source('photos')]);
	$broker->produce('photos', [$photo], key => 'ada', headers => { uploaded_by => 'ada' });
	ok(poll_until($node, $there, 'ada 1, bob 4'), 'a replay brings back the others, and a new image of that key is ingested');
	is(query(q[SELECT count(*) FROM imgpipe.dead_letters WHERE source_key = 'ada']), 0, 'no dead letter comes back');
	is(query(q[SELECT next_offset FROM imgpipe.ingest_positions]), 7, 'and the position moves on');
	query(q[SELECT imgpipe.create_source('again', 'kafka', 'photos'); SELECT imgpipe.start_source('again')]);
	ok(poll_until($node, $there, 'ada 2, bob 6'), 'nor does another source of the same topic bring it back');
	is(query(q[SELECT sum(refused) > 4 FROM imgpipe.erasures]), 't', 'the refused messages are counted');

	# For how long the topics keep them.
	query(q[SELECT imgpipe.declare_copy('topic photos', '1 day'), imgpipe.create_source('compacted', 'kafka', 'compacted'), imgpipe.start_source('compacted')]);
	ok(poll_until($node, q[SELECT count(*) FROM imgpipe.source_topics], 3), 'the broker tells how long it keeps the topics');
	is(query(q[SELECT regexp_replace(detail, 'at .*: ', 'at #: '), date_trunc('hour', gone_by - now() + interval '1 minute'), hint FROM imgpipe.retention_residue() WHERE place = 'topic photos' AND detail LIKE '%photos%']),
		"of source photos; the broker says at #: retention.ms = 1209600000, segment.ms = 3600000|14 days 01:00:00|The topic can keep images for longer than the 7 days of their source: lower its retention.ms, and segment.ms, which is added to it.",
		'as retention_residue() says, whatever was declared');
	like(query(q[SELECT detail, gone_by, hint FROM imgpipe.retention_residue() WHERE place = 'topic compacted']),
		qr/retention.ms = -1, .*\|\|The topic keeps images for ever: set its retention.ms, and its cleanup.policy to delete/, 'a compacted one keeps them for ever');
	query(q[SELECT imgpipe.stop_source(name) FROM imgpipe.sources]);

	# A server that was down over ten deadlines purges before it ingests.
	ok(poll_until($node, q[SELECT count(*) FROM imgpipe.source_status WHERE state = 'stopped'], 3), 'they stop');
	query(q[SELECT imgpipe.stop_workers()]);
	ok(poll_until($node, q[SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'imgpipe controller'], 0), 'nobody purges');
	$broker->create_topic('ledger', 1);
	query(q[SELECT imgpipe.send_ledger_to('kafka', 'ledger')]);
	make_overdue('2023-01-01', 10, 5);
	query(q[UPDATE imgpipe.sources SET enabled = (name = 'photos'), started_in = imgpipe.database_identity()]);
	$node->stop('immediate');
	$broker->produce('photos', [$photo], key => 'after the pause');
	$node->start;
	ok(poll_until($node, q[SELECT count(*) FROM imgpipe.images WHERE source_key = 'after the pause'], 1), 'ingest resumes');
	is(query(q[SELECT count(*), max(purged_at) < (SELECT min(received_at) FROM imgpipe.images WHERE source_key = 'after the pause')
		FROM imgpipe.purge_ledger WHERE deadline_to >= '2023-01-01' AND deadline_to < '2024-01-01']), '10|t', 'after all that was overdue is gone');
	ok(poll_until($node, 'SELECT count(*) FROM imgpipe.outbox', 0), 'the ledger is sent to Kafka');
	my @anchors = map { $_->{value} =~ /"hash": "([0-9a-f]{64})"/ } $broker->consume('ledger');
	is(join(',', @anchors), query(q[SELECT string_agg(encode(hash, 'hex'), ',' ORDER BY entry) FROM (SELECT entry, hash FROM imgpipe.purge_ledger ORDER BY entry DESC LIMIT 11) x]),
		'from the head of that time on, entry by entry');
	is(query("SELECT count(*) FROM imgpipe.verify_ledger(decode('$anchors[3]', 'hex')) WHERE entry IS NULL"), 0, 'which are anchors');
}

is(query('SELECT count(*) FROM imgpipe.verify_ledger() WHERE entry > 3'), 0, 'the ledger is whole');
is(query(q[SELECT count(*) FROM (SELECT deadline_to FROM imgpipe.purge_ledger WHERE cause = 'retention' GROUP BY 1 HAVING count(*) > 1) x]), 0, 'nothing is in it twice');
unlike(slurp_file($node->logfile), qr/terminated by signal|PANIC|TRAP/, 'no process crashed');
$node->stop;
done_testing();
