# Jobs: what they run and as whom, what becomes of failures, crashes and missed due times.
use strict;
use warnings;

use ImgpipeTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my $node = new_cluster('main', "timezone = 'UTC'", 'log_min_messages = log');

sub query { return $node->safe_psql('postgres', $_[0]) }
my $superuser = query('SELECT current_user');

# Runs a job and waits for its end; the columns of its run.
sub run_job
{
	my ($name, $columns) = @_;
	my $run = query("SELECT imgpipe.run_job('$name')");
	ok(poll_until($node, "SELECT finished_at IS NOT NULL FROM imgpipe.job_runs WHERE run_id = $run"), "$name: the run ends");
	return query("SELECT $columns FROM imgpipe.job_runs WHERE run_id = $run");
}

# Schedules a command that only run_job() runs, and runs it.
sub run_sql
{
	my ($command, $columns, $options) = @_;
	$options = defined $options ? ", $options" : '';
	query("SELECT imgpipe.schedule('command', '\@yearly', \$command\$$command\$command\$, enabled => false$options)");
	return run_job('command', $columns);
}

sub runs
{
	my ($name, $columns) = @_;
	return query("SELECT $columns FROM (SELECT * FROM imgpipe.job_runs WHERE name = '$name' ORDER BY run_id) r");
}

sub shows
{
	my ($name, $columns, $expected, $what) = @_;
	ok(poll_until($node, "SELECT $columns FROM imgpipe.job_runs WHERE name = '$name' ORDER BY run_id", $expected), $what)
	  or diag(query("SELECT * FROM imgpipe.job_runs WHERE name = '$name' ORDER BY run_id"));
}

# What a job may run

query('CREATE TABLE t (i integer PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 100)');
my $outcome = q[status, rows, coalesce(sqlstate, '-'), coalesce(error, '-')];
is(run_sql('SELECT * FROM t', $outcome), 'succeeded|100|-|-', 'a query, and its rows are counted');
is(run_sql('UPDATE t SET i = i; DELETE FROM t WHERE i > 90', $outcome), 'succeeded|110|-|-', 'several statements, and the rows of all');
is(run_sql('CREATE TABLE u ()', $outcome), 'succeeded||-|-', 'no rows where there are none');
is(run_sql('INSERT INTO t VALUES (1000); SELECT 1 / 0', $outcome), 'failed|1|22012|division by zero', 'one that fails');
is(query('SELECT count(*) FROM t WHERE i = 1000'), '0', 'undoes those before it');
is(run_sql('BEGIN; INSERT INTO t VALUES (1001); COMMIT; INSERT INTO t VALUES (1002); SELECT 1 / 0', $outcome), 'failed|2|22012|division by zero', 'BEGIN and COMMIT');
is(query('SELECT i FROM t WHERE i > 1000'), '1001', 'are what they are to a client');
is(run_sql('BEGIN; INSERT INTO t VALUES (1003)', $outcome), 'failed|1|25001|the command has left a transaction open', 'no COMMIT is an error');
is(query('SELECT count(*) FROM t WHERE i = 1003'), '0', 'and nothing is committed');
is(run_sql('VACUUM (FULL) t', $outcome), 'succeeded||-|-', 'VACUUM');
is(run_sql('CREATE INDEX CONCURRENTLY t_i ON t (i)', $outcome), 'succeeded||-|-', 'CREATE INDEX CONCURRENTLY');
is(query(q[SELECT indisvalid FROM pg_index WHERE indexrelid = 't_i'::regclass]), 't', 'makes a valid index');
like(run_sql('VACUUM t; VACUUM t', $outcome), qr/^failed\|\|25001\|VACUUM cannot run inside a transaction block|^failed\|\|25001\|VACUUM cannot be executed/,
	'two of these in one command are refused, as by psql -c');
query(q[CREATE PROCEDURE steps() LANGUAGE plpgsql AS $$
	BEGIN
		FOR i IN 2001 .. 2003 LOOP
			INSERT INTO t VALUES (i);
			COMMIT;
		END LOOP;
		RAISE EXCEPTION 'enough' USING ERRCODE = 'ZZ001', DETAIL = 'three are enough', HINT = 'ask for less';
	END$$]);
is(run_sql('CALL steps()', 'status, sqlstate, error, detail, hint, context'),
	'failed|ZZ001|enough|three are enough|ask for less|PL/pgSQL function steps() line 7 at RAISE', 'CALL with COMMIT, and all of an error');
is(query('SELECT count(*) FROM t WHERE i > 2000'), '3', 'keeps what was committed');
is(run_sql('SELECT nothing FROM t', 'sqlstate, error, context'), '42703|column "nothing" does not exist|at character 8 of the command', 'where an error is');
is(run_sql(q[DO $$BEGIN RAISE NOTICE 'one %', 1; RAISE WARNING 'two'; RAISE DEBUG 'three'; RAISE INFO 'four'; RAISE LOG 'five'; END$$], 'messages'),
	"NOTICE:  one 1\nWARNING:  two\nINFO:  four", 'messages are kept');
is(run_sql(q[SET client_min_messages = warning; DO $$BEGIN RAISE NOTICE 'one'; RAISE WARNING 'two'; END$$], 'messages'), 'WARNING:  two', 'as client_min_messages says');
is(run_sql(q[DO $$BEGIN FOR i IN 1 .. 1000 LOOP RAISE NOTICE 'number %', i; END LOOP; END$$], q[length(messages) < 3000, messages ~ 'number 100\n' AND messages !~ 'number 101', right(messages, 23)]),
	't|t|(messages in all: 1000)', 'a hundred of them');
is(run_sql(q[DO $$BEGIN RAISE NOTICE '%', repeat('ä', 1000000); END$$], q[octet_length(messages) BETWEEN 8100 AND 8250, right(messages, 20)]), 't|(messages in all: 1)', 'or 8 kB');
my $log = slurp_file($node->logfile);
unlike($log, qr/NOTICE:|INFO:/, 'what the log would not have held it does not hold');
like($log, qr/LOG:  five/, 'what it would, it does');
like($log, qr/LOG:  imgpipe: job "command" failed: division by zero\n[^\n]*DETAIL:  It is run \d+ in imgpipe.job_runs/, 'failures are logged');
is($node->psql('postgres', q[SELECT imgpipe.schedule('copy', '@daily', 'COPY t FROM STDIN')]), 3, 'COPY from the client is refused');

# As whom

query(q[CREATE ROLE planner LOGIN; CREATE ROLE boss SUPERUSER;
	GRANT USAGE ON SCHEMA imgpipe TO planner;
	GRANT SELECT, INSERT, UPDATE, DELETE ON imgpipe.jobs TO planner; GRANT SELECT ON imgpipe.job_runs, imgpipe.job_status TO planner;
	GRANT USAGE ON SEQUENCE imgpipe.job_runs_run_id_seq TO planner;
	GRANT CREATE ON SCHEMA public TO planner]);
query(q[ALTER ROLE planner SET default_transaction_read_only = on; ALTER ROLE planner SET lock_timeout = '1ms';
	ALTER ROLE planner SET default_transaction_isolation = serializable; ALTER ROLE planner SET search_path = nowhere;
	ALTER ROLE planner SET statement_timeout = '30s']);
sub as_planner { return query("SET ROLE planner; $_[0]") }
as_planner(q[SELECT imgpipe.schedule('mine', '@yearly', $$DO 'BEGIN RAISE NOTICE ''% % % % %'', current_user, session_user,
	current_setting(''transaction_read_only''), current_setting(''search_path''), current_setting(''transaction_isolation''); END'$$)]);
is(run_job('mine', 'status, owner, messages'), 'succeeded|planner|NOTICE:  planner planner on nowhere serializable', 'as its owner, with its settings');
as_planner(q[SELECT imgpipe.alter_job('mine', command => 'SET ROLE boss')]);
is(run_job('mine', 'status, sqlstate, error'), 'failed|42501|permission denied to set role "boss"', 'which is no way to more');
as_planner(q[SELECT imgpipe.alter_job('mine', command => 'SET SESSION AUTHORIZATION boss')]);
is(run_job('mine', 'status, sqlstate'), 'failed|42501', 'nor is that');
as_planner(q[SELECT imgpipe.alter_job('mine', command => 'RESET ALL; RESET SESSION AUTHORIZATION; TABLE pg_catalog.pg_authid')]);
is(run_job('mine', 'status, sqlstate, error'), 'failed|42501|permission denied for table pg_authid', 'nor that');
as_planner(q[SELECT imgpipe.alter_job('mine', command => 'SET statement_timeout = 100; SET lock_timeout = 1; SET search_path = pg_temp; SELECT pg_catalog.pg_sleep(60)')]);
is(run_job('mine', 'status, sqlstate, error'), 'failed|57014|canceling statement due to statement timeout', 'statement_timeout holds');
is(query(q[SELECT string_agg(DISTINCT name, ',') FROM imgpipe.job_status]), 'command,mine', 'a superuser sees all jobs');
is(as_planner(q[SELECT string_agg(name || ' ' || state || ' ' || last_status, ',') FROM imgpipe.job_status]), 'mine scheduled failed', 'others see theirs');
is(as_planner('SELECT imgpipe.run_job(name) > 0 FROM imgpipe.jobs'), 't', 'and run them');
query('ALTER ROLE planner NOLOGIN');
SKIP:
{
skip 'workers need no LOGIN from PostgreSQL 17 on', 2 if $node->pg_version >= 17;
my ($status, $out, $err) = $node->psql('postgres', q[SET ROLE planner; SELECT imgpipe.schedule('ours', '@daily', 'SELECT 1')]);
like($err, qr/ERROR:  role planner is not permitted to log in\n.*HINT:  ALTER ROLE planner LOGIN;/s, 'who cannot log in cannot own a job');
is(run_job('mine', 'status, sqlstate, error, hint, started_at IS NULL'),
	'failed|28000|role planner is not permitted to log in|ALTER ROLE planner LOGIN; (it needs no password). Before PostgreSQL 17 a background worker runs only as a role with LOGIN.|t',
	'a job that cannot start says why');
}
query('ALTER ROLE planner LOGIN; REVOKE CONNECT ON DATABASE postgres FROM PUBLIC');
is(run_job('mine', 'status, sqlstate, error, hint'), 'failed|42501|role planner may not connect to database "postgres"|GRANT CONNECT ON DATABASE postgres TO planner;',
	'so does one that may not connect');
query('GRANT CONNECT ON DATABASE postgres TO PUBLIC');

# By themselves

query(q[SELECT imgpipe.schedule('often', '1 second', 'SELECT 1')]);
ok(poll_until($node, q[SELECT count(*) >= 4 FROM imgpipe.job_runs WHERE name = 'often' AND status = 'succeeded']), 'a job every second runs');
is(query(q[SELECT bool_and(date_part('epoch', due_at - before) = 1 + missed), bool_and(started_at >= due_at)
		FROM (SELECT *, lag(due_at) OVER (ORDER BY run_id) AS before FROM imgpipe.job_runs WHERE name = 'often') r WHERE before IS NOT NULL AND started_at IS NOT NULL]), 't|t',
	'each second, none left out and none twice');
query(q[SELECT imgpipe.alter_job('often', enabled => false)]);
ok(poll_until($node, q[SELECT state FROM imgpipe.job_status WHERE name = 'often'], 'disabled'), 'until it is disabled');

# One at a time, and more

sub with_lock
{
	my ($code) = @_;
	my $session = $node->background_psql('postgres');
	$session->query_safe('SELECT pg_advisory_lock(1)');
	$code->();
	$session->quit;
}
query(q[SELECT imgpipe.schedule('slow', '@yearly', 'SELECT pg_advisory_lock_shared(1)')]);
with_lock(
	sub {
		my $first = query(q[SELECT imgpipe.run_job('slow')]);
		ok(poll_until($node, "SELECT status FROM imgpipe.job_runs WHERE run_id = $first", 'running'), 'a run goes on');
		is(query(q[SELECT state FROM imgpipe.job_status WHERE name = 'slow']), 'running', 'and the status says so');
		is(query("SELECT a.usename, a.backend_type, a.query FROM pg_stat_activity a JOIN imgpipe.job_runs r USING (pid) WHERE run_id = $first"),
			"$superuser|imgpipe job|SELECT pg_advisory_lock_shared(1)", 'in a worker of its own');
		my $second = query(q[SELECT imgpipe.run_job('slow')]);
		is(query(q[SELECT imgpipe.run_job('slow')]), $second, 'one that has not begun is not asked for twice');
		query(q[SELECT pg_sleep(1.5)]);
		is(query("SELECT count(*) FROM imgpipe.job_runs WHERE run_id = $second"), '0', 'a second run waits');
		query(q[SELECT imgpipe.alter_job('slow', max_running => 2)]);
		ok(poll_until($node, "SELECT status FROM imgpipe.job_runs WHERE run_id = $second", 'running'), 'with max_running it does not');
		$node->append_conf('postgresql.conf', 'imgpipe.max_jobs = 2');
		query('SELECT pg_reload_conf()');
		my $other = query(q[SELECT imgpipe.run_job('command')]);
		ok(poll_until($node, q[SELECT state, problem FROM imgpipe.job_status WHERE name = 'command'], 'waiting|waits for the controller, or for imgpipe.max_jobs'),
			'no more than imgpipe.max_jobs at once, and the next says what it waits for');
		query(q[SELECT imgpipe.unschedule('slow')]);
	});
shows('slow', 'status, rows', "succeeded|1\nsucceeded|1", 'a job that is dropped runs to its end');
ok(poll_until($node, q[SELECT state FROM imgpipe.job_status WHERE name = 'command'], 'disabled'), 'then it is the turn of the next');
$node->append_conf('postgresql.conf', 'imgpipe.max_jobs = 8');
query('SELECT pg_reload_conf()');

# Ends

is(run_sql('SELECT pg_sleep(60)', 'status, sqlstate, error, hint, duration < interval \'10 s\'', q[timeout => '500 ms']),
	'failed|57014|the job ran into its timeout of 0.5 s|imgpipe.alter_job() changes the timeout.|t', 'a timeout');
query(q[CREATE FUNCTION stubborn() RETURNS void LANGUAGE plpgsql AS $$
	BEGIN
		LOOP
			BEGIN
				PERFORM pg_sleep(60);
			EXCEPTION WHEN query_canceled THEN
				NULL;
			END;
		END LOOP;
	END$$]);
is(run_sql('SELECT stubborn()', 'status, sqlstate, error', q[timeout => '500 ms']), 'failed|57014|the job ran into its timeout of 0.5 s', 'one that is not listened to');
query(q[SELECT imgpipe.schedule('long', '@yearly', 'SELECT pg_sleep(600)', max_attempts => 2, retry_delay => '1 s')]);

sub start_long
{
	my $run = query(q[SELECT imgpipe.run_job('long')]);
	ok(poll_until($node, "SELECT r.status, a.wait_event FROM imgpipe.job_runs r LEFT JOIN pg_stat_activity a USING (pid) WHERE run_id = $run", 'running|PgSleep'), 'a long run');
	return query("SELECT pid FROM imgpipe.job_runs WHERE run_id = $run");
}

query('SELECT pg_cancel_backend(' . start_long() . ')');
shows('long', 'status, sqlstate, error, retry_at IS NULL', 'cancelled|57014|canceling statement due to user request|t', 'cancelled, and not tried again');
query('TRUNCATE imgpipe.job_runs');
query('SELECT pg_terminate_backend(' . start_long() . ')');
shows('long', 'attempt, status, coalesce(error, \'-\')', "1|interrupted|the worker was told to end in the midst of the run\n2|running|-", 'interrupted, and tried again');
query(q[SELECT imgpipe.unschedule('long'), pg_terminate_backend(pid) FROM imgpipe.job_runs WHERE status = 'running']);
shows('long', 'attempt, status', "1|interrupted\n2|interrupted", 'no further than max_attempts');
query(q[CREATE SEQUENCE tries; SELECT imgpipe.schedule('third', '@yearly', $$SELECT 1 / greatest(nextval('tries') - 2, 0)$$, max_attempts => 5, retry_delay => '100 ms')]);
query(q[SELECT imgpipe.run_job('third')]);
shows('third', 'attempt, status, coalesce(sqlstate, \'-\')', "1|failed|22012\n2|failed|22012\n3|succeeded|-", 'retries end with success');

# The controller is not needed for a run to end

query(q[SELECT imgpipe.schedule('slow', '@yearly', 'SELECT pg_advisory_lock_shared(1)')]);
with_lock(
	sub {
		my $run = query(q[SELECT imgpipe.run_job('slow')]);
		ok(poll_until($node, "SELECT status FROM imgpipe.job_runs WHERE run_id = $run", 'running'), 'a run goes on');
		my $controller = worker_pid($node, 'controller');
		query("SELECT pg_terminate_backend($controller)");
		ok(poll_until($node, "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'imgpipe controller' AND pid <> $controller", '1'), 'another controller');
		ok(poll_until($node, q[SELECT count(*) FROM imgpipe.job_runs WHERE name = 'command' AND run_id = ] . run_sql('SELECT 1', 'run_id'), '1'), 'does its work');
		is(query("SELECT status FROM imgpipe.job_runs WHERE run_id = $run"), 'running', 'and leaves the run alone');
	});
query('TRUNCATE t');
ok(poll_until($node, q[SELECT count(*) FROM imgpipe.job_runs WHERE status IN ('starting', 'running')], '0'), 'which ends');
is(runs('slow', 'string_agg(status, \',\')'), 'succeeded', 'well');

# Crashes: the run is interrupted, what it committed stays, and it is tried again

query(q[CREATE TABLE effects (attempt integer);
	CREATE PROCEDURE effect() LANGUAGE plpgsql AS $$
	BEGIN
		INSERT INTO effects SELECT count(*) + 1 FROM effects;
		COMMIT;
		IF (SELECT count(*) FROM effects) < 3 THEN
			PERFORM pg_sleep(600);
		END IF;
	END$$;
	SELECT imgpipe.schedule('effect', '@yearly', 'CALL public.effect()', max_attempts => 3, retry_delay => '0');
	SELECT imgpipe.run_job('effect')]);
ok(poll_until($node, q[SELECT count(*) FROM effects], '1'), 'the first attempt');
kill 'KILL', query(q[SELECT pid FROM imgpipe.job_runs WHERE name = 'effect' AND status = 'running']);
ok(poll_until($node, q[SELECT count(*) FROM effects], '2'), 'its worker is killed: the second');
$node->stop('immediate');
$node->start;
shows('effect', 'attempt, status, coalesce(sqlstate, \'-\')', "1|interrupted|57P02\n2|interrupted|57P02\n3|succeeded|-", 'the server, too: the third');
is(query('SELECT count(*) FROM effects'), '3', 'no attempt more than those that are shown');
is(runs('often', 'count(*)'), '0', 'and a job that is disabled has not run');

# No worker for a job

query(q[SELECT imgpipe.schedule('poor', '@yearly', 'SELECT 1')]);
$node->append_conf('postgresql.conf', 'max_worker_processes = 3');	# launcher, controller, logical replication
$node->restart;
query(q[SELECT imgpipe.run_job('poor')]);
shows('poor', 'status, sqlstate, error, hint', 'starting|53400|no background worker is free|Raise max_worker_processes; the run begins as soon as there is one.', 'no worker is free');
is(query(q[SELECT state, problem FROM imgpipe.job_status WHERE name = 'poor']), 'starting|no background worker is free', 'and that is why');
$node->append_conf('postgresql.conf', 'max_worker_processes = 16');
$node->restart;
shows('poor', 'attempt, status, error IS NULL', '1|succeeded|t', 'it runs when there is one');

# @reboot

query(q[SELECT imgpipe.schedule('start', '@reboot', 'SELECT 1')]);
run_sql('SELECT 1', 'status');
is(runs('start', 'count(*)'), '0', '@reboot is not now');
$node->restart;
shows('start', 'status, due_at = pg_postmaster_start_time()', 'succeeded|t', 'but after a restart');
run_sql('SELECT 1', 'status');
is(runs('start', 'count(*)'), '1', 'and then no more');

# Due times that are missed: the clock jumps, or the server is down

sub set_clock
{
	my ($time) = @_;
	my $offset = query("SELECT round(extract(epoch FROM timestamptz '$time' - clock_timestamp()))");
	$node->append_conf('postgresql.conf', "imgpipe.clock_offset = $offset");
	return;
}

sub jump
{
	set_clock($_[0]);
	query('SELECT pg_reload_conf()');
	return;
}

query(q[DELETE FROM imgpipe.jobs]);
jump('2030-06-15 10:30:00+00');
ok(poll_until($node, q[SELECT imgpipe.scheduler_clock()::date], '2030-06-15'), 'another time');
query(qq[SELECT imgpipe.schedule('catch_$_', '0 * * * *', 'SELECT 1', catch_up => '$_')]) for qw(none once all);
ok(poll_until($node, q[SELECT count(*) FROM imgpipe.jobs WHERE next_due_at = '2030-06-15 11:00:00+00'], '3'), 'three jobs wait for eleven o\'clock');
my $caught = 'due_at AT TIME ZONE \'UTC\', status, missed';
jump('2030-06-15 13:30:00+00');
shows('catch_all', $caught, join("\n", map {"2030-06-15 $_:00:00|succeeded|0"} 11 .. 13), 'the clock jumps: each');
shows('catch_once', $caught, '2030-06-15 13:00:00|succeeded|2', 'once');
shows('catch_none', $caught, '2030-06-15 13:00:00|skipped|2', 'none');
query('TRUNCATE imgpipe.job_runs');
set_clock('2030-06-15 16:30:00+00');
$node->restart;
shows('catch_all', $caught, join("\n", map {"2030-06-15 $_:00:00|succeeded|0"} 14 .. 16), 'the server was down: each');
shows('catch_once', $caught, '2030-06-15 16:00:00|succeeded|2', 'once');
shows('catch_none', $caught, '2030-06-15 16:00:00|skipped|2', 'none');
query('TRUNCATE imgpipe.job_runs');
jump('2030-06-15 16:59:58+00');
shows($_, $caught, '2030-06-15 17:00:00|succeeded|0', "$_ is in time") for qw(catch_all catch_once catch_none);
is(query(q[SELECT bool_and(started_at BETWEEN due_at AND due_at + interval '1 minute') FROM imgpipe.job_runs]), 't', 'by the clock');

# Daylight saving, by the clock

query(q[DELETE FROM imgpipe.jobs; TRUNCATE imgpipe.job_runs]);
jump('2030-03-31 00:20:00+00');
ok(poll_until($node, q[SELECT imgpipe.scheduler_clock()::date], '2030-03-31'), 'the night in which an hour is left out');
query(q[SELECT imgpipe.schedule('half_past_two', '30 2 * * *', 'SELECT 1', time_zone => 'Europe/Berlin', catch_up => 'all')]);
jump('2030-03-31 01:00:00+00');
shows('half_past_two', $caught, '2030-03-31 01:00:00|succeeded|0', 'what was due in it runs right after');
query(q[DELETE FROM imgpipe.jobs; TRUNCATE imgpipe.job_runs]);
jump('2030-10-27 00:20:00+00');
ok(poll_until($node, q[SELECT imgpipe.scheduler_clock()::date], '2030-10-27'), 'the night in which an hour comes twice');
query(q[SELECT imgpipe.schedule('half_past_two', '30 2 * * *', 'SELECT 1', time_zone => 'Europe/Berlin', catch_up => 'all');
	SELECT imgpipe.schedule('half_past', '30 * * * *', 'SELECT 1', time_zone => 'Europe/Berlin', catch_up => 'all')]);
jump('2030-10-27 00:30:00+00');
shows('half_past_two', $caught, '2030-10-27 00:30:00|succeeded|0', 'what is due in it runs the first time');
jump('2030-10-27 01:30:00+00');
shows('half_past', $caught, "2030-10-27 00:30:00|succeeded|0\n2030-10-27 01:30:00|succeeded|0", 'and what is due each hour both times');
is(runs('half_past_two', 'count(*)'), '1', 'the other does not run again');
is(query(q[SELECT next_due_at AT TIME ZONE 'Europe/Berlin' FROM imgpipe.jobs WHERE name = 'half_past_two']), '2030-10-28 02:30:00', 'before the next day');

# The clock is set back

query(q[DELETE FROM imgpipe.jobs; TRUNCATE imgpipe.job_runs; SELECT imgpipe.schedule('often', '2 seconds', 'SELECT 1')]);
ok(poll_until($node, q[SELECT count(*) > 0 FROM imgpipe.job_runs WHERE name = 'often' AND status = 'succeeded']), 'an interval');
jump('2029-01-01 00:00:00+00');
ok(poll_until($node, q[SELECT count(*) > 1 FROM imgpipe.job_runs WHERE name = 'often' AND status = 'succeeded' AND due_at < '2029-02-01']), 'goes on when the clock is set back');
query(q[DELETE FROM imgpipe.jobs]);

# Forgetting

ok(poll_until($node, q[SELECT count(*) FROM imgpipe.job_runs WHERE status IN ('starting', 'running')], '0'), 'no job runs');
jump('now');
query(q[SELECT imgpipe.schedule('tick', '1 second', 'SELECT 1')]);	# keeps the controller awake
run_sql('SELECT 1 / 0', 'status');
run_sql('SELECT 1', 'status');
my $day = 24 * 3600;
$node->append_conf('postgresql.conf', 'imgpipe.clock_offset = ' . 8 * $day);
query('SELECT pg_reload_conf()');
ok(poll_until($node, q[SELECT string_agg(DISTINCT status, ',') FROM imgpipe.job_runs WHERE name = 'command'], 'failed'), 'after a week successes are forgotten');
$node->append_conf('postgresql.conf', 'imgpipe.clock_offset = ' . 31 * $day);
query('SELECT pg_reload_conf()');
ok(poll_until($node, q[SELECT count(*) FROM imgpipe.job_runs WHERE name = 'command'], '0'), 'after a month, errors');
query(q[SELECT imgpipe.unschedule('tick')]);
$node->append_conf('postgresql.conf', 'imgpipe.clock_offset = 0');
query('SELECT pg_reload_conf()');

# Another database, a dump, and the end of both

query('CREATE DATABASE other');
$node->safe_psql('other', q[CREATE EXTENSION imgpipe; SELECT imgpipe.schedule('there', '1 second', 'SELECT pg_sleep(600) FROM pg_database WHERE datname = current_database()', max_attempts => 7);
	SELECT imgpipe.schedule('later', '@yearly', 'SELECT 1', enabled => false); SELECT imgpipe.run_job('later')]);
ok(poll_until($node, q[SELECT status FROM imgpipe.job_runs WHERE name = 'there'], 'running', undef, 'other'), 'a job in another database');
my $dump = "$PostgreSQL::Test::Utils::tmp_check/dump.sql";
$node->command_ok([ 'pg_dump', '--no-sync', '-N', 'imgpipe_partitions', '-f', $dump, $node->connstr('other') ], 'dump');
query('CREATE DATABASE copy');
$node->append_conf('postgresql.conf', 'imgpipe.max_jobs = 0');
query('SELECT pg_reload_conf()');
$node->command_ok([ 'psql', '-qX', '-v', 'ON_ERROR_STOP=1', '-f', $dump, $node->connstr('copy') ], 'restore');
is($node->safe_psql('copy', q[SELECT job_id, name, owner, schedule, max_attempts, enabled, due_after IS NOT NULL FROM imgpipe.jobs ORDER BY name]),
	"2|later|$superuser|\@yearly|1|f|t\n1|there|$superuser|1 second|7|t|t", 'jobs are in a dump');
is($node->safe_psql('copy', q[SELECT imgpipe.schedule('new', '@daily', 'SELECT 1')]), '3', 'and what comes after them has another id');
$node->safe_psql('copy', 'SELECT imgpipe.run_job(name) FROM imgpipe.jobs ORDER BY job_id');
is($node->safe_psql('copy', 'SELECT count(DISTINCT requested_run), count(*) FROM imgpipe.jobs'), '3|3', 'so have runs');
query('DROP DATABASE copy');
my $postmaster = query('SELECT pg_postmaster_start_time()');
query('DROP DATABASE other');
is(query(q[SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'imgpipe job']), '0', 'DROP DATABASE takes a running job with it');
$node->append_conf('postgresql.conf', 'imgpipe.max_jobs = 4');
query('SELECT pg_reload_conf()');
query(q[SELECT imgpipe.schedule('last', '@yearly', 'SELECT pg_sleep(600)'); SELECT imgpipe.run_job('last')]);
ok(poll_until($node, q[SELECT status FROM imgpipe.job_runs WHERE name = 'last'], 'running'), 'a job runs');
query('DROP EXTENSION imgpipe CASCADE');
ok(poll_until($node, q[SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'imgpipe %' AND backend_type <> 'imgpipe launcher'], '0'), 'DROP EXTENSION, too');
query('CREATE EXTENSION imgpipe');
is(query('SELECT pg_postmaster_start_time()'), $postmaster, 'all that without a crash');

# Without workers

$node->append_conf('postgresql.conf', "shared_preload_libraries = ''");
$node->restart;
is(query(q[SELECT imgpipe.schedule('patient', '1 second', 'SELECT 1') > 0]), 't', 'not preloaded: a job can be scheduled');
is(query(q[SELECT state, problem FROM imgpipe.job_status]), 'stopped|imgpipe is not in shared_preload_libraries', 'and says why it does not run');
my ($code, undef, $errors) = $node->psql('postgres', q[SELECT imgpipe.run_job('patient')]);
like($errors, qr/ERROR:  job "patient" cannot run\nDETAIL:  imgpipe is not in shared_preload_libraries, so it has no background workers.\nHINT:  Set shared_preload_libraries = 'imgpipe'/,
	'asked to, it says what to set');
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'imgpipe'");
$node->restart;
ok(poll_until($node, q[SELECT count(*) > 0 FROM imgpipe.job_runs WHERE status = 'succeeded']), 'it runs as soon as it can');

done_testing();
