-- Jobs and their schedules, as far as they need no workers.
\set SHOW_CONTEXT never
SET TIME ZONE 'UTC';
DO $$
BEGIN
	IF imgpipe.workers_available() THEN
		PERFORM imgpipe.stop_workers();
	ELSE
		SET client_min_messages = error;	-- what waits for workers says so
	END IF;
END
$$;

-- when schedules come due
SELECT s AS schedule, imgpipe.next_run(s, '2024-01-31 10:07:30+00', 'UTC') AS due
	FROM unnest('{* * * * *,*/15 * * * *,30 2 * * mon-fri,0 12 $ * *,"0 0 15,$ feb *",0 0 29 2 *,@hourly,@daily,@weekly,@monthly,@yearly,@reboot,30 seconds,1 hour 30 minutes,2 days}'::text[]) s;
SELECT imgpipe.next_run('0 9 * * *', '2024-07-01 12:00+00', z) AS due, z AS time_zone
	FROM unnest('{UTC,Europe/Berlin,America/New_York,Asia/Kolkata,<+03>-3}'::text[]) z;
SELECT s AS schedule, imgpipe.schedule_kind(s) FROM unnest('{* * * * *,@hourly,0 */2 * * *,5 minutes,@reboot}'::text[]) s;
-- an hour that is left out, and one that comes twice
SELECT imgpipe.next_run('30 2 * * *', '2024-03-30 12:00+00', 'Europe/Berlin') AS forward,
	imgpipe.next_run('30 2 * * *', '2024-03-31 01:00+00', 'Europe/Berlin') AS day_after,
	imgpipe.next_run('30 2 * * *', '2024-10-26 12:00+00', 'Europe/Berlin') AS back,
	imgpipe.next_run('30 2 * * *', '2024-10-27 00:30+00', 'Europe/Berlin') AS day_after;
SELECT imgpipe.next_run('30 * * * *', '2024-10-27 00:30+00', 'Europe/Berlin') AS every_hour,
	imgpipe.next_run('30 2 * * *', '2024-03-10 06:00+00', 'America/New_York') AS forward,
	imgpipe.next_run('30 1 * * *', '2024-11-03 05:30+00', 'America/New_York') AS back,
	imgpipe.next_run('10 2 * * *', '2024-10-05 00:00+00', 'Australia/Lord_Howe') AS half_an_hour,
	imgpipe.next_run('0 12 30 12 *', '2011-12-01 00:00+00', 'Pacific/Apia') AS a_day_left_out;
-- how often they came due
SELECT s AS schedule, l.* FROM unnest('{* * * * *,0 2 * * *,@yearly,90 seconds,@reboot,0 0 29 2 *}'::text[]) s,
	imgpipe.last_run(s, '2020-01-01 00:00+00', '2024-01-31 10:07:30+00', 'Europe/Berlin') l;
SELECT * FROM imgpipe.last_run('* * * * *', '2024-01-31 10:07:00+00', '2024-01-31 10:07:59+00', 'UTC');
SELECT * FROM imgpipe.last_run('* * * * *', '2024-01-31 10:07:00+00', '2024-01-31 10:08:00+00', 'UTC');
SELECT * FROM imgpipe.last_run('* * * * *', '2024-01-31 10:07:00+00', '2024-01-30 10:08:00+00', 'UTC');
SELECT imgpipe.next_run('0 25 * * *');
SELECT imgpipe.next_run('0 0 30 feb *');
SELECT imgpipe.next_run('5/10 * * * *');
SELECT imgpipe.next_run('* * * * fri-mon');
SELECT imgpipe.next_run('* * * *');
SELECT imgpipe.next_run('');
SELECT imgpipe.next_run('@noon');
SELECT imgpipe.next_run('2 months');
SELECT imgpipe.next_run('@daily', 'now', 'Europe/Nowhere');
SELECT imgpipe.next_run('@daily', 'infinity');
SELECT imgpipe.last_run('@daily', '-infinity', 'now', 'UTC');

-- scheduling
SELECT imgpipe.schedule('nightly', '30 2 * * *', 'VACUUM', time_zone => 'Europe/Berlin', catch_up => 'all') > 0 AS scheduled;
SELECT name, owner = current_user::regrole AS mine, schedule, time_zone, command, enabled, max_running, timeout, max_attempts, retry_delay,
		catch_up, due_after <= clock_timestamp() AND due_after > clock_timestamp() - interval '1 minute' AS from_now, next_due_at
	FROM imgpipe.jobs;
SELECT imgpipe.schedule('not valid', '@daily', 'VACUUM');
SELECT imgpipe.schedule(NULL, '@daily', 'VACUUM');
SELECT imgpipe.schedule('other', '@fortnightly', 'VACUUM');
SELECT imgpipe.schedule('other', NULL, 'VACUUM');
SELECT imgpipe.schedule('other', '@daily', 'VACUM pg_class');
SELECT imgpipe.schedule('other', '@daily', ' -- nothing');
SELECT imgpipe.schedule('other', '@daily', 'SELECT 1; COPY pg_class TO STDOUT');
SELECT imgpipe.schedule('other', '@daily', 'VACUUM', time_zone => 'Europe/Nowhere');
SELECT imgpipe.schedule('other', '@daily', 'VACUUM', max_running => 0);
SELECT imgpipe.schedule('other', '@daily', 'VACUUM', max_attempts => 101);
SELECT imgpipe.schedule('other', '@daily', 'VACUUM', timeout => '-1 s');
SELECT imgpipe.schedule('other', '@daily', 'VACUUM', retry_delay => NULL);
SELECT imgpipe.schedule('other', '@daily', 'VACUUM', catch_up => 'some');
SELECT imgpipe.schedule('other', '@daily', 'VACUUM', enabled => NULL);
SELECT imgpipe.alter_job('other', '@daily');
SELECT imgpipe.unschedule('other');
SELECT imgpipe.run_job('other');
SELECT imgpipe.run_job(NULL);
-- the same again leaves its due times alone; another schedule begins afresh
UPDATE imgpipe.jobs SET due_after = '2024-01-31', next_due_at = '2024-02-01';
SELECT imgpipe.schedule('nightly', '30 2 * * *', 'VACUUM ANALYZE', time_zone => 'Europe/Berlin') = job_id AS same FROM imgpipe.jobs;
SELECT command, catch_up, due_after, next_due_at FROM imgpipe.jobs;
SELECT imgpipe.alter_job('nightly', command => 'SELECT 1', timeout => '1 min', max_attempts => 3);
SELECT command, timeout, max_attempts, due_after, next_due_at FROM imgpipe.jobs;
SELECT imgpipe.alter_job('nightly', schedule => '@hourly');
SELECT schedule, due_after > clock_timestamp() - interval '1 minute' AS afresh, next_due_at FROM imgpipe.jobs;
SELECT imgpipe.alter_job('nightly', timeout => '25 days');
SELECT imgpipe.alter_job('nightly', command => 'SELEC 1');

-- runs: what the controller does at given times on the clock
CREATE VIEW runs AS SELECT name, cause, due_at, missed, attempt, status, sqlstate, error FROM imgpipe.job_runs ORDER BY run_id;
CREATE FUNCTION finish_all(outcome text) RETURNS void LANGUAGE sql
	AS $$SELECT imgpipe.finish_job_run(run_id, outcome, sqlstate => CASE outcome WHEN 'failed' THEN '22012' END)
		FROM imgpipe.job_runs WHERE job_runs.status = 'starting' ORDER BY run_id$$;
SELECT imgpipe.alter_job('nightly', schedule => '0 * * * *', time_zone => 'UTC', catch_up => 'once', max_attempts => 1);
UPDATE imgpipe.jobs SET due_after = '2024-01-31 10:00+00';
SELECT imgpipe.begin_job_runs('{}', '2024-01-31 10:30:00+00', 4) AS wait;
SELECT due_after, next_due_at FROM imgpipe.jobs;
SELECT imgpipe.begin_job_runs('{}', '2024-01-31 10:59:59+00', 4) AS wait;
SELECT * FROM runs;
SELECT imgpipe.begin_job_runs('{}', '2024-01-31 11:00:00+00', 4) AS wait;
SELECT * FROM runs;
-- one at a time: the next waits
SELECT imgpipe.begin_job_runs('{}', '2024-01-31 12:00:00+00', 4) AS wait;
SELECT count(*) FROM runs;
SELECT finish_all('succeeded');
-- once: what came due meanwhile is one run
SELECT imgpipe.begin_job_runs('{}', '2024-01-31 14:10:00+00', 4) BETWEEN 1 AND 1000 AS wait;
SELECT finish_all('succeeded');
SELECT * FROM runs;
-- no room: imgpipe.max_jobs
SELECT imgpipe.begin_job_runs('{}', '2024-01-31 15:00:00+00', 0) AS wait;
SELECT count(*) FROM runs;
-- all: one run for each, as many at a time as may run
TRUNCATE imgpipe.job_runs;
SELECT imgpipe.alter_job('nightly', catch_up => 'all', max_running => 2);
SELECT imgpipe.begin_job_runs('{}', '2024-01-31 18:00:00+00', 4) AS wait;
SELECT finish_all('succeeded');
SELECT imgpipe.begin_job_runs('{}', '2024-01-31 18:00:00+00', 4) BETWEEN 1 AND 1000 AS wait;
SELECT finish_all('succeeded');
SELECT imgpipe.begin_job_runs('{}', '2024-01-31 18:00:00+00', 4) AS wait;
SELECT * FROM runs;
-- none: what is late by more than a minute is skipped
TRUNCATE imgpipe.job_runs;
SELECT imgpipe.alter_job('nightly', catch_up => 'none', max_running => 1);
SELECT imgpipe.begin_job_runs('{}', '2024-01-31 21:01:00+00', 4) AS wait;
SELECT imgpipe.begin_job_runs('{}', '2024-01-31 22:00:59+00', 4) AS wait;
SELECT finish_all('succeeded');
SELECT imgpipe.begin_job_runs('{}', '2024-02-01 01:00:30+00', 4) AS wait;
SELECT * FROM runs;
SELECT finish_all('succeeded');
SELECT due_after, next_due_at FROM imgpipe.jobs;

-- the clock is set back: by a little, no due time comes twice; by much, the schedule begins afresh
TRUNCATE imgpipe.job_runs;
SELECT imgpipe.begin_job_runs('{}', '2024-02-01 00:59:30+00', 4) AS wait;
SELECT due_after, next_due_at FROM imgpipe.jobs;
SELECT imgpipe.begin_job_runs('{}', '2024-01-15 00:30:00+00', 4) AS wait;
SELECT due_after, next_due_at FROM imgpipe.jobs;
SELECT imgpipe.alter_job('nightly', schedule => '0 5 * * *');
UPDATE imgpipe.jobs SET due_after = '2024-02-01 05:00+00';
SELECT imgpipe.begin_job_runs('{}', '2024-02-01 02:00:00+00', 4) AS wait;
SELECT due_after, next_due_at FROM imgpipe.jobs;
SELECT imgpipe.begin_job_runs('{}', '2024-02-01 01:59:59+00', 4) AS wait;
SELECT due_after, next_due_at FROM imgpipe.jobs;
SELECT count(*) FROM runs;

-- daylight saving, in the time zone of the database
SELECT imgpipe.alter_job('nightly', schedule => '30 2 * * *', time_zone => 'default', catch_up => 'all');
DO $$BEGIN EXECUTE format('ALTER DATABASE %I SET TimeZone = %L', current_database(), 'Europe/Berlin'); END$$;
UPDATE imgpipe.jobs SET due_after = '2024-03-29 12:00+00', next_due_at = NULL, max_running = 10;
SELECT imgpipe.begin_job_runs('{}', '2024-04-02 12:00:00+00', 10) AS wait;
SELECT finish_all('succeeded');
UPDATE imgpipe.jobs SET due_after = '2024-10-25 12:00+00', next_due_at = NULL;
SELECT imgpipe.begin_job_runs('{}', '2024-10-28 12:00:00+00', 10) AS wait;
SELECT finish_all('succeeded');
SELECT due_at, due_at AT TIME ZONE 'Europe/Berlin' AS in_berlin FROM runs;
DO $$BEGIN EXECUTE format('ALTER DATABASE %I RESET TimeZone', current_database()); END$$;

-- failures and retries: after 10, 20, 40 seconds
TRUNCATE imgpipe.job_runs;
SELECT imgpipe.alter_job('nightly', schedule => '@yearly', time_zone => 'UTC', max_attempts => 4, max_running => 1, catch_up => 'once');
UPDATE imgpipe.jobs SET due_after = '2023-06-01', next_due_at = NULL;
SELECT set_config('imgpipe.clock_offset', round(extract(epoch FROM timestamptz '2024-01-01 00:00:01+00' - clock_timestamp()))::text, false) IS NOT NULL AS back;
SELECT imgpipe.scheduler_clock() BETWEEN '2024-01-01 00:00:00+00' AND '2024-01-01 00:01:00+00' AS then;
CREATE VIEW retries AS SELECT attempt, due_at, status, sqlstate,
	round(extract(epoch FROM retry_at - finished_at)) AS delay FROM imgpipe.job_runs ORDER BY run_id;
SELECT imgpipe.begin_job_runs('{}') AS wait;
SELECT finish_all('failed');
SELECT * FROM retries;
SELECT imgpipe.begin_job_runs('{}', retry_at - interval '1 second', 4) AS wait FROM imgpipe.job_runs WHERE retry_at IS NOT NULL;
SELECT count(*) FROM runs;
SELECT imgpipe.begin_job_runs('{}', retry_at, 4) AS wait FROM imgpipe.job_runs WHERE retry_at IS NOT NULL;
SELECT finish_all('failed');
SELECT imgpipe.begin_job_runs('{}', retry_at, 4) AS wait FROM imgpipe.job_runs WHERE retry_at IS NOT NULL;
-- this one never says how it ended: the server crashed
SELECT r.name, t.command, t.timeout_ms FROM imgpipe.job_runs r, imgpipe.take_job_run(r.run_id, 4711) t WHERE r.status = 'starting';
SELECT imgpipe.begin_job_runs(ARRAY[run_id], '2024-01-01 00:05:00+00', 4) > 0 AS alive FROM imgpipe.job_runs WHERE status = 'running';
SELECT status, pid FROM imgpipe.job_runs WHERE attempt = 3;
SELECT imgpipe.begin_job_runs('{}', '2024-01-01 00:00:05+00', 4) > 0 AS lost;
SELECT name, attempt, status, sqlstate, error FROM imgpipe.job_runs WHERE attempt = 3;
SELECT imgpipe.begin_job_runs('{}', retry_at, 4) AS wait FROM imgpipe.job_runs WHERE retry_at IS NOT NULL;
SELECT t FROM imgpipe.job_runs r, imgpipe.take_job_run(r.run_id, 4711) t WHERE r.status = 'interrupted';
SELECT * FROM retries;
-- the last attempt
SELECT finish_all('failed');
SELECT * FROM retries;
RESET imgpipe.clock_offset;
-- a later due time stands for what is still to be tried again; a job that is off is not tried again
UPDATE imgpipe.jobs SET due_after = '2024-06-01', next_due_at = NULL;
SELECT imgpipe.begin_job_runs('{}', '2025-01-01 00:00:00+00', 4) AS wait;
SELECT finish_all('failed');
SELECT imgpipe.begin_job_runs('{}', '2026-01-01 00:00:00+00', 4) AS wait;
SELECT due_at, status, retry_at IS NOT NULL AS again FROM imgpipe.job_runs WHERE due_at > '2024-06-01' ORDER BY run_id;
SELECT finish_all('failed');
SELECT count(*) FROM imgpipe.job_runs WHERE retry_at IS NOT NULL;
SELECT imgpipe.alter_job('nightly', enabled => false);
SELECT imgpipe.begin_job_runs('{}', '2026-01-02 00:00:00+00', 4) AS wait;
SELECT count(*) FROM imgpipe.job_runs WHERE retry_at IS NOT NULL;
-- delays grow up to an hour, or stay what they are
SELECT imgpipe.alter_job('nightly', max_attempts => 100);
CREATE FUNCTION fail(attempts integer[]) RETURNS SETOF retries LANGUAGE sql AS $$
	TRUNCATE imgpipe.job_runs;
	INSERT INTO imgpipe.job_runs (job_id, name, owner, command, cause, due_at, attempt, status)
		SELECT j.job_id, j.name, j.owner, j.command, 'schedule', '2024-01-01', a, 'starting' FROM imgpipe.jobs j, unnest(attempts) a;
	SELECT finish_all('failed');
	SELECT * FROM retries;
$$;
SELECT attempt, delay FROM fail('{1,2,3,9,10,99,100}');
SELECT imgpipe.alter_job('nightly', retry_delay => '3 hours');
SELECT attempt, delay FROM fail('{1,2,99}');
-- a run that was recorded and whose job is gone does not begin
TRUNCATE imgpipe.job_runs;
SELECT imgpipe.alter_job('nightly', enabled => true);
UPDATE imgpipe.jobs SET due_after = '2024-06-01', next_due_at = NULL;
SELECT imgpipe.begin_job_runs('{}', '2025-01-01 00:00:00+00', 4) AS wait;
SELECT imgpipe.unschedule('nightly');
SELECT t FROM imgpipe.job_runs r, imgpipe.take_job_run(r.run_id, 4711) t;
SELECT imgpipe.begin_job_runs('{}', '2025-01-01 00:00:00+00', 4) AS wait;
SELECT * FROM runs;

-- @reboot: once after each start of the server that the job has lived to see
TRUNCATE imgpipe.job_runs;
SELECT imgpipe.schedule('start', '@reboot', 'SELECT 1') > 0 AS scheduled;
SELECT imgpipe.begin_job_runs('{}', now(), 4) AS wait;
SELECT next_due_at, (SELECT count(*) FROM runs) AS runs FROM imgpipe.jobs;
UPDATE imgpipe.jobs SET due_after = pg_postmaster_start_time() - interval '1 second';
SELECT imgpipe.begin_job_runs('{}', now(), 4) AS wait;
SELECT finish_all('succeeded');
SELECT imgpipe.begin_job_runs('{}', now(), 4) AS wait;
SELECT name, due_at = pg_postmaster_start_time() AS at_start FROM runs;

-- a row that is wrong keeps no other job from running
SELECT imgpipe.schedule('right', '@hourly', 'SELECT 1') > 0 AS scheduled;
UPDATE imgpipe.jobs SET schedule = 'now and then', next_due_at = NULL WHERE name = 'start';
UPDATE imgpipe.jobs SET due_after = '2024-01-31 10:00+00' WHERE name = 'right';
TRUNCATE imgpipe.job_runs;
SELECT imgpipe.begin_job_runs('{}', '2024-01-31 11:00+00', 4) AS wait;
SELECT * FROM runs;
SELECT name, enabled FROM imgpipe.jobs ORDER BY name;
SELECT imgpipe.unschedule('start'), imgpipe.unschedule('right');

-- pruning: errors are kept longer
TRUNCATE imgpipe.job_runs;
INSERT INTO imgpipe.job_runs (job_id, name, owner, command, cause, due_at, status, finished_at)
	SELECT 1, age || ' days', current_user::regrole, 'SELECT 1', 'schedule', now(), status, now() - age * interval '1 day'
		FROM unnest('{6,8,29,31}'::int[]) age, unnest('{succeeded,failed,interrupted,skipped}'::text[]) status;
SELECT imgpipe.prune_job_runs();
SELECT imgpipe.prune_job_runs();
SELECT name, string_agg(status, ', ' ORDER BY status) FROM imgpipe.job_runs GROUP BY name ORDER BY name;
SELECT imgpipe.prune_job_runs(now() + interval '20 days');
SELECT name, string_agg(status, ', ' ORDER BY status) FROM imgpipe.job_runs GROUP BY name ORDER BY name;

-- rights
TRUNCATE imgpipe.job_runs;
CREATE ROLE regress_imgpipe_planner LOGIN;
CREATE ROLE regress_imgpipe_stranger LOGIN;
CREATE ROLE regress_imgpipe_group LOGIN;
GRANT regress_imgpipe_group TO regress_imgpipe_planner;
SELECT has_table_privilege('regress_imgpipe_planner', 'imgpipe.jobs', 'SELECT') AS jobs, has_table_privilege('regress_imgpipe_planner', 'imgpipe.job_runs', 'SELECT') AS runs,
	has_function_privilege('regress_imgpipe_planner', 'imgpipe.begin_job_runs(bigint[], timestamptz, integer)', 'EXECUTE') AS begin,
	has_function_privilege('regress_imgpipe_planner', 'imgpipe.take_job_run(bigint, integer)', 'EXECUTE') AS take,
	has_function_privilege('regress_imgpipe_planner', 'imgpipe.finish_job_run(bigint, text, bigint, text, text, text, text, text, text)', 'EXECUTE') AS finish;
GRANT USAGE ON SCHEMA imgpipe TO regress_imgpipe_planner, regress_imgpipe_stranger, regress_imgpipe_group;
SET ROLE regress_imgpipe_planner;
SELECT imgpipe.schedule('mine', '@daily', 'SELECT 1');
RESET ROLE;
GRANT SELECT, INSERT, UPDATE, DELETE ON imgpipe.jobs TO regress_imgpipe_planner, regress_imgpipe_stranger, regress_imgpipe_group;
GRANT SELECT ON imgpipe.job_runs, imgpipe.job_status TO regress_imgpipe_planner, regress_imgpipe_stranger;
SET ROLE regress_imgpipe_planner;
SELECT imgpipe.schedule('mine', '@daily', 'SELECT 1') > 0 AS scheduled;
SELECT name, owner FROM imgpipe.jobs;
INSERT INTO imgpipe.jobs (name, owner, schedule, command) VALUES ('root', 'postgres', '@daily', 'DROP TABLE x');
UPDATE imgpipe.jobs SET owner = 'postgres';
SELECT imgpipe.begin_job_runs('{}', now(), 4);
RESET ROLE;
SELECT imgpipe.schedule('secret', '@daily', 'SELECT 1') > 0 AS scheduled;
UPDATE imgpipe.jobs SET due_after = '2024-01-01 12:00+00';
SELECT imgpipe.begin_job_runs('{}', '2024-01-02 00:00:00+00', 4) AS wait;
SET ROLE regress_imgpipe_stranger;
SELECT count(*) AS jobs, (SELECT count(*) FROM imgpipe.job_runs) AS runs, (SELECT count(*) FROM imgpipe.job_status) AS status FROM imgpipe.jobs;
SELECT imgpipe.schedule('mine', '@daily', 'SELECT 1');
SELECT imgpipe.alter_job('mine', command => 'SELECT 2');
SELECT imgpipe.unschedule('mine');
SELECT imgpipe.run_job('mine');
UPDATE imgpipe.jobs SET command = 'SELECT 2';
DELETE FROM imgpipe.jobs;
UPDATE imgpipe.job_runs SET status = 'succeeded';
RESET ROLE;
SET ROLE regress_imgpipe_planner;
SELECT name, status FROM imgpipe.job_runs;
RESET ROLE;
UPDATE imgpipe.jobs SET owner = 'regress_imgpipe_group' WHERE name = 'mine';
-- members of the owner may change a job; it keeps its owner
SET ROLE regress_imgpipe_planner;
SELECT imgpipe.schedule('mine', '@hourly', 'SELECT 2') > 0 AS scheduled;
SELECT name, owner, schedule FROM imgpipe.jobs;
SELECT imgpipe.unschedule('mine');
RESET ROLE;
SELECT imgpipe.unschedule('secret');
SELECT count(*) FROM imgpipe.jobs;

TRUNCATE imgpipe.job_runs;
DROP FUNCTION fail;
DROP VIEW runs, retries;
DROP FUNCTION finish_all;
DROP OWNED BY regress_imgpipe_planner, regress_imgpipe_stranger, regress_imgpipe_group;
DROP ROLE regress_imgpipe_planner, regress_imgpipe_stranger, regress_imgpipe_group;
DO $$
BEGIN
	IF imgpipe.workers_available() THEN
		PERFORM imgpipe.start_workers();
	END IF;
END
$$;
