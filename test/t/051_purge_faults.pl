# The purge is killed between any two of its steps, and a standby is promoted in the midst of one: ledger and data agree.
use strict;
use warnings;

use ImgpipeTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_cluster('main', 'imgpipe.max_processors = 0', 'autovacuum = off', 'wal_level = replica', 'max_wal_senders = 5', 'wal_keep_size = 128');
my $photo = sample_image('small.jpg');
my $server = $node;

sub query { return $server->safe_psql('postgres', $_[0]) }

query(q[
	CREATE FUNCTION overdue(day date) RETURNS void LANGUAGE sql AS
		$$SELECT imgpipe.create_partition(parent, day + time '00:00', day + time '06:00') FROM imgpipe.partitioned_tables$$;
	CREATE TABLE photo (file bytea)]);
query("INSERT INTO photo VALUES (pg_read_binary_file('$photo'))");

# The tables of a set, in the order in which they are detached, one after the other.
my @tables = split /\n/, query('SELECT parent::text FROM imgpipe.partitioned_tables ORDER BY 1');
is("@tables", join(' ', map {"imgpipe.$_"} qw(chunked_images chunks dead_letters images outbox renditions results)), 'the tables of a set');

my $days = 0;
my $images = 0;
my $erased = 0;

# Three spans of deadlines with images and a row for each in every other table.
sub make_overdue
{
	my $first = query("SELECT date '2020-01-01' + $days");
	query(qq[BEGIN;
		SELECT overdue(date '$first' + i) FROM generate_series(0, 2) i;
		INSERT INTO imgpipe.images (image_id, content, received_at)
			SELECT imgpipe.new_image_id(date '$first' + i + time '03:00'), file, date '$first' + i - 7
			FROM generate_series(0, 2) i, generate_series(1, 4), photo;
		CREATE TEMPORARY TABLE made ON COMMIT DROP AS SELECT image_id, content FROM imgpipe.images WHERE imgpipe.purge_at(image_id) < now();
		INSERT INTO imgpipe.renditions (image_id, processor, name, version, content) SELECT image_id, 'p', 'n', 1, content FROM made;
		INSERT INTO imgpipe.results (image_id, processor, version) SELECT image_id, 'p', 1 FROM made;
		INSERT INTO imgpipe.dead_letters (image_id, stage, sqlstate, reason) SELECT image_id, 'processing', 'XX000', 'r' FROM made;
		INSERT INTO imgpipe.outbox (image_id, kind, state) SELECT image_id, 'message', 'refused' FROM made;
		INSERT INTO imgpipe.chunked_images (image_id, source_id, source_partition, chunk_id, chunk_count, first_offset, last_offset, uploaded_by)
			SELECT image_id, 0, 0, image_id::text, 1, 0, 0, 'u' FROM made;
		INSERT INTO imgpipe.chunks (image_id, chunk_index, content) SELECT image_id, 0, 'c' FROM made;
		COMMIT]);
	$days += 3;
	$images += 12;
}

sub set_fault_point
{
	my ($name) = @_;
	$server->append_conf('postgresql.conf', "imgpipe.fault_point = '$name'");
	$server->reload;
}

sub reach
{
	my ($name) = @_;
	my $log = $server->logfile;
	my $offset = -s $log;
	set_fault_point($name);
	make_overdue();
	query('SELECT imgpipe.wake_controller()');
	return poll_code(sub { slurp_file($log, $offset) =~ /fault point "$name" reached/ });
}

# All that is overdue goes; each span is in the ledger once, with what was in it; the volume counts each image once.
sub all_is_well
{
	my ($what) = @_;
	# A worker that is just starting does not hear of a reload.
	ok(poll_until($server, q[SELECT count(*), pg_reload_conf(), imgpipe.wake_controller() FROM imgpipe.partitions WHERE deadline_to <= now()], '0|t|'), "$what: what is overdue goes");
	ok(poll_until($server, 'SELECT count(*) FROM imgpipe.purges', 0), "$what: to the end");
	is(query(q[SELECT count(*), count(DISTINCT deadline_to) FROM imgpipe.purge_ledger WHERE cause = 'retention']), "$days|$days", "$what: the ledger has each span once");
	is(query(q[SELECT name, sum((row_counts ->> name)::int) FROM imgpipe.purge_ledger, imgpipe.partitioned_tables WHERE cause = 'retention' GROUP BY name ORDER BY name]),
		join("\n", map { s/^imgpipe\.//r . "|$images" } @tables), "$what: with what was in each of its tables");
	is(query('SELECT count(*) FROM imgpipe.verify_ledger()'), 0, "$what: its chain is whole");
	is(query('SELECT sum(images), (SELECT count(*) FROM imgpipe.images) FROM imgpipe.daily_volume'), $images + $erased . '|0', "$what: each image is counted once");
	is(query(q[SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE nspname = 'imgpipe_partitions' AND relname LIKE '%\\_2020%' AND relkind = 'r']), 0, "$what: no table is left");
}

for my $point ('begun', 'sealed', (map {"detached $_"} 1 .. @tables), 'counted', 'dropped', 'entered', 'finished')
{
	ok(reach($point), "$point: reached");
	is(query('SELECT sum(images) FROM imgpipe.daily_volume'), $images + $erased, "$point: the daily volume has all images meanwhile");
	my $pid = worker_pid($server, 'purge');
	kill 'KILL', $pid;
	ok(poll_until($server, "SELECT count(*) FROM pg_stat_activity WHERE pid = $pid", 0), "$point: killed");
	set_fault_point('');
	all_is_well($point);
}

# Killed while it waits for a reader of one table: that one is half detached, those before it are, those behind it are not.
for my $i (0 .. $#tables)
{
	my $what = "$tables[$i] half detached";
	my $reader = $server->background_psql('postgres', on_error_stop => 0);
	$reader->query("BEGIN; SELECT count(*) FROM $tables[$i];");
	make_overdue();
	query('SELECT imgpipe.wake_controller()');
	ok(poll_until($server, q[SELECT string_agg(parent::text, ' ') FROM imgpipe.partitions WHERE detaching], $tables[$i]), $what);
	is(query(q[SELECT count(*) FROM imgpipe.partitions WHERE (deadline_from, deadline_to) IN (SELECT deadline_from, deadline_to FROM imgpipe.partitions WHERE detaching)]), @tables - $i,
		"$what: the others are whole, or away");
	is(query('SELECT sum(images) FROM imgpipe.daily_volume'), $images + $erased, "$what: the daily volume has all images meanwhile");
	is(query(q[SET lock_timeout = '10s'; INSERT INTO imgpipe.images (content, source_key) SELECT file, 'erased' FROM photo;
		SELECT images FROM imgpipe.erase_images(source_key => 'erased')]), 1, "$what: an erasure waits neither for the reader nor for the purge");
	$erased++;
	my $pid = worker_pid($server, 'purge');
	kill 'KILL', $pid;
	ok(poll_until($server, "SELECT count(*) FROM pg_stat_activity WHERE pid = $pid", 0), "$what: killed");
	eval { $reader->quit };
	all_is_well($what);
}
like(slurp_file($server->logfile), qr/terminated by signal 9/, 'it was a crash of the server');

# The worker is ended, but not the server, while it waits; the next one finalizes what is half detached.
{
	my $reader = $server->background_psql('postgres', on_error_stop => 0);
	$reader->query('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM imgpipe.images;');
	make_overdue();
	query('SELECT imgpipe.wake_controller()');
	ok(poll_until($server, 'SELECT count(*) FROM imgpipe.partitions WHERE detaching', 1), 'half detached');
	query(q[SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'imgpipe purge']);
	ok(poll_until($server, q[SELECT count(*) > 0 FROM pg_stat_activity WHERE backend_type = 'imgpipe purge' AND query LIKE '%FINALIZE'], 't'), 'another worker wants to finish it');
	is(query(q[SET lock_timeout = '100ms'; INSERT INTO imgpipe.images (content) SELECT file FROM photo;
		SELECT count(*) FROM imgpipe.images WHERE image_id >= imgpipe.fence(); DELETE FROM imgpipe.images WHERE image_id >= imgpipe.fence()]), 1, 'and keeps nobody from reading and writing');
	is(query(q[SET lock_timeout = '10s'; INSERT INTO imgpipe.images (content, source_key) SELECT file, 'erased' FROM photo;
		SELECT images FROM imgpipe.erase_images(source_key => 'erased')]), 1, 'nor from erasing');
	$erased++;
	$reader->query('COMMIT');
	$reader->quit;
	all_is_well('finalized');
}

# A standby takes over when a span is detached, and when its tables are dropped but that is not committed.
for my $point ('detached 1', 'entered')
{
	(my $name = "standby_$point") =~ s/ /_/;
	$server->backup($name);
	my $standby = PostgreSQL::Test::Cluster->new($name);
	$standby->init_from_backup($server, $name, has_streaming => 1);
	$standby->append_conf('postgresql.conf', "imgpipe.fault_point = ''");
	$standby->start;
	ok(reach($point), "standby, $point: reached");
	$standby->append_conf('postgresql.conf', "imgpipe.fault_point = ''");
	$server->wait_for_catchup($standby, 'replay', $server->lsn('insert'));
	$server->stop('immediate');
	$standby->promote;
	$server = $standby;
	all_is_well("standby promoted, $point");
}

# A dump that is restored when what is in it is overdue, and when a purge had begun: it is restored whole, and then purged.
{
	ok(reach('sealed'), 'dump: reached');
	query(q[SELECT imgpipe.hold_images('case', image_ids => (SELECT array_agg(image_id) FROM imgpipe.images))]);
	my $dump = $server->basedir . '/dump';
	$server->command_ok([ 'pg_dump', '-f', $dump, $server->connstr('postgres') ], 'dumped');
	query('CREATE DATABASE restored');
	set_fault_point('');
	$server->command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-f', $dump, $server->connstr('restored') ], 'restored without an error');
	all_is_well('dumped');
	my $restored = sub { return poll_until($server, $_[0], $_[1], undef, 'restored') };
	ok($restored->('SELECT (SELECT count(*) FROM imgpipe.partitions WHERE deadline_to <= now()), (SELECT count(*) FROM imgpipe.purges)', '0|0'), 'restored: what is overdue goes');
	ok($restored->('SELECT count(*) FROM imgpipe.verify_ledger()', 0), 'restored: the chain goes on');
	ok($restored->(q[SELECT count(DISTINCT deadline_to), count(*) FROM imgpipe.purge_ledger WHERE cause = 'retention'], "$days|$days"), 'restored: each span is in it once');
	ok($restored->('SELECT sum(images) FROM imgpipe.daily_volume', $images + $erased), 'restored: each image is counted once');
	ok($restored->(q[SELECT count(*) FROM imgpipe.held_images], 12), 'restored: what is held was kept aside');
	ok($restored->(q[SELECT imgpipe.release_hold('case')], 12), 'restored: until it is released');
}

$server->stop;
done_testing();
