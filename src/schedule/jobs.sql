
/*
 * Jobs: SQL commands on a schedule; see src/schedule/.
 *
 * jobs is what users write, job_runs what the controller and the job workers
 * write.  due_after is the state of a schedule: due times up to it have been
 * dealt with.  It advances in the transaction that records a run.
 */

CREATE FUNCTION imgpipe.scheduler_clock() RETURNS timestamptz
	AS 'MODULE_PATHNAME', 'imgpipe_scheduler_clock'
	LANGUAGE C VOLATILE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION imgpipe.scheduler_clock() IS
'The time that schedules go by: the server''s clock and imgpipe.clock_offset, which is for tests.';

CREATE FUNCTION imgpipe.next_run(schedule text, after timestamptz DEFAULT pg_catalog.now(),
	time_zone text DEFAULT pg_catalog.current_setting('TimeZone')) RETURNS timestamptz
	AS 'MODULE_PATHNAME', 'imgpipe_next_run'
	LANGUAGE C STABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION imgpipe.next_run(text, timestamptz, text) IS
'When a schedule first comes due after a moment, by the clock of a time zone; infinity for @reboot.
A schedule is five fields (minute 0-59, hour 0-23, day of the month 1-31, month 1-12 or jan-dec, day of the week 0-7 or sun-sat, 0 and 7 being Sunday), each *, a number, a range 1-5, either * or a range with a step */15, or a list of these parted by commas; $ is the last day of the month. Where both days are given, either will do; where one of them begins with *, both must fit. Or it is @hourly, @daily (@midnight), @weekly, @monthly, @yearly (@annually) or @reboot. Or an interval of fixed length from 1 second to 366 days: 30 seconds, 1 hour 30 minutes, 2 days; it counts from the last due time.
Daylight saving: what would come due in an hour that is left out comes due once, right after it; what comes due in an hour that comes twice does so the first time only. A schedule of every hour (0-23) goes by hours that pass: it comes due in both. Intervals know no daylight saving.
Raises 22023 for what is no schedule or no time zone, 22008 for a moment before the year 1 or after 9999.';

CREATE FUNCTION imgpipe.last_run(schedule text, after timestamptz, until timestamptz, time_zone text,
	OUT due_at timestamptz, OUT due_times integer) RETURNS record
	AS 'MODULE_PATHNAME', 'imgpipe_last_run'
	LANGUAGE C STABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION imgpipe.last_run(text, timestamptz, timestamptz, text) IS
'The last time that a schedule came due after one moment and not after another, and how many times it did, counted up to 10000. See next_run().';

CREATE FUNCTION imgpipe.schedule_kind(schedule text) RETURNS text
	AS 'MODULE_PATHNAME', 'imgpipe_schedule_kind'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION imgpipe.schedule_kind(text) IS
'interval; hourly, for a schedule that comes due in every hour; calendar, for one that does not; or reboot. Raises 22023 for what is no schedule.';

CREATE FUNCTION imgpipe.check_command(command text) RETURNS void
	AS 'MODULE_PATHNAME', 'imgpipe_check_command'
	LANGUAGE C STABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION imgpipe.check_command(text) IS
'Raises 42601 for what is no SQL, 22023 where there is no statement and 0A000 for COPY to or from the client, which a job has not. Names are looked up when the command runs.';

CREATE TABLE imgpipe.jobs (
	job_id integer PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
	name text NOT NULL UNIQUE CHECK (name OPERATOR(pg_catalog.~) '^[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}$'),
	owner regrole NOT NULL DEFAULT CURRENT_USER::pg_catalog.regrole,
	schedule text NOT NULL,
	time_zone text NOT NULL DEFAULT 'default',
	command text NOT NULL,
	enabled boolean NOT NULL DEFAULT true,
	max_running integer NOT NULL DEFAULT 1 CHECK (max_running OPERATOR(pg_catalog.>=) 1 AND max_running OPERATOR(pg_catalog.<=) 64),
	timeout interval NOT NULL DEFAULT '0' CHECK (timeout OPERATOR(pg_catalog.>=) '0'::interval AND timeout OPERATOR(pg_catalog.<=) '24 days'::interval),
	max_attempts integer NOT NULL DEFAULT 1 CHECK (max_attempts OPERATOR(pg_catalog.>=) 1 AND max_attempts OPERATOR(pg_catalog.<=) 100),
	retry_delay interval NOT NULL DEFAULT '10 seconds'
		CHECK (retry_delay OPERATOR(pg_catalog.>=) '0'::interval AND retry_delay OPERATOR(pg_catalog.<=) '24 days'::interval),
	catch_up text NOT NULL DEFAULT 'once' CHECK (catch_up OPERATOR(pg_catalog.=) ANY ('{none,once,all}')),
	created_at timestamptz NOT NULL DEFAULT imgpipe.scheduler_clock(),
	due_after timestamptz NOT NULL DEFAULT imgpipe.scheduler_clock(),
	next_due_at timestamptz,
	requested_run bigint
);
COMMENT ON TABLE imgpipe.jobs IS
'SQL commands that run on a schedule; see schedule(). A role with SELECT sees and changes the jobs of the roles that it is a member of.';
COMMENT ON COLUMN imgpipe.jobs.owner IS 'The role that the command runs as.';
COMMENT ON COLUMN imgpipe.jobs.schedule IS 'As next_run() takes it.';
COMMENT ON COLUMN imgpipe.jobs.time_zone IS 'The time zone whose clock the schedule goes by; default: the database''s TimeZone.';
COMMENT ON COLUMN imgpipe.jobs.enabled IS 'Whether the schedule is followed; run_job() works in any case.';
COMMENT ON COLUMN imgpipe.jobs.max_running IS 'Runs that may go on at the same time.';
COMMENT ON COLUMN imgpipe.jobs.timeout IS 'Time after which a run is cancelled; 0: never.';
COMMENT ON COLUMN imgpipe.jobs.max_attempts IS 'How often a run is tried, the first time included, before it is given up.';
COMMENT ON COLUMN imgpipe.jobs.retry_delay IS 'Time from a failure to the second attempt; doubled for each further one, up to an hour or to itself.';
COMMENT ON COLUMN imgpipe.jobs.catch_up IS 'What becomes of due times that pass while the job cannot run: none (skipped when a minute late), once (one run for all of them) or all (one run for each).';
COMMENT ON COLUMN imgpipe.jobs.due_after IS 'Due times up to this one have been dealt with. Written by the controller.';
COMMENT ON COLUMN imgpipe.jobs.next_due_at IS 'The first due time after due_after; NULL until the controller has looked. Written by the controller.';
COMMENT ON COLUMN imgpipe.jobs.requested_run IS 'The run that run_job() asked for and that has not begun.';

CREATE TABLE imgpipe.job_runs (
	run_id bigint PRIMARY KEY GENERATED BY DEFAULT AS IDENTITY,
	job_id integer NOT NULL,
	name text NOT NULL,
	owner regrole NOT NULL,
	command text NOT NULL,
	cause text NOT NULL CHECK (cause OPERATOR(pg_catalog.=) ANY ('{schedule,request}')),
	due_at timestamptz NOT NULL,
	missed integer NOT NULL DEFAULT 0,
	attempt integer NOT NULL DEFAULT 1,
	status text NOT NULL
		CHECK (status OPERATOR(pg_catalog.=) ANY ('{starting,running,succeeded,failed,cancelled,interrupted,skipped}')),
	pid integer,
	started_at timestamptz,
	finished_at timestamptz,
	duration interval GENERATED ALWAYS AS (finished_at OPERATOR(pg_catalog.-) started_at) STORED,
	rows bigint,
	messages text,
	sqlstate text,
	error text,
	detail text,
	hint text,
	context text,
	retry_at timestamptz
);
CREATE INDEX job_runs_of_job ON imgpipe.job_runs (job_id, run_id);
CREATE INDEX job_runs_finished ON imgpipe.job_runs (finished_at);
CREATE INDEX job_runs_open ON imgpipe.job_runs (job_id)
	WHERE status OPERATOR(pg_catalog.=) ANY ('{starting,running}') OR retry_at IS NOT NULL;
COMMENT ON TABLE imgpipe.job_runs IS
'Each attempt to run a job, by the scheduler''s clock: a role with SELECT sees those of the roles that it is a member of. Successes are kept for imgpipe.job_history, all else for imgpipe.job_error_history.';
COMMENT ON COLUMN imgpipe.job_runs.name IS 'Of the job, which may be gone by now.';
COMMENT ON COLUMN imgpipe.job_runs.due_at IS 'The due time that this run is for, or when run_job() was heard.';
COMMENT ON COLUMN imgpipe.job_runs.missed IS 'Earlier due times that this run stands for as well (catch_up once) or that were skipped.';
COMMENT ON COLUMN imgpipe.job_runs.status IS 'starting, running, succeeded, failed, cancelled (by pg_cancel_backend() or because the job was dropped or changed before it began), interrupted (the worker or the server ended in its midst) or skipped (due times that passed, see jobs.catch_up).';
COMMENT ON COLUMN imgpipe.job_runs.pid IS 'The worker, for pg_cancel_backend().';
COMMENT ON COLUMN imgpipe.job_runs.rows IS 'Rows that its statements returned or changed, all together; NULL where none does such a thing.';
COMMENT ON COLUMN imgpipe.job_runs.messages IS 'Its warnings, notices and the like, the first 100 or 8 kB of them.';
COMMENT ON COLUMN imgpipe.job_runs.error IS 'What was wrong; while starting, why it does not start yet.';
COMMENT ON COLUMN imgpipe.job_runs.retry_at IS 'When it will be tried again.';

SELECT pg_catalog.pg_extension_config_dump('imgpipe.jobs', '');
SELECT pg_catalog.pg_extension_config_dump('imgpipe.jobs_job_id_seq', '');
-- Not the runs; but jobs name those that were asked for.
SELECT pg_catalog.pg_extension_config_dump('imgpipe.job_runs_run_id_seq', '');

ALTER TABLE imgpipe.jobs ENABLE ROW LEVEL SECURITY;
CREATE POLICY owner_sees_and_changes ON imgpipe.jobs
	USING (pg_catalog.pg_has_role(owner::pg_catalog.oid, 'USAGE'));

ALTER TABLE imgpipe.job_runs ENABLE ROW LEVEL SECURITY;
CREATE POLICY owner_sees ON imgpipe.job_runs FOR SELECT
	USING (pg_catalog.pg_has_role(owner::pg_catalog.oid, 'USAGE'));


/* Defining jobs. */

CREATE FUNCTION imgpipe.job_owner_problem(owner regrole, OUT sqlstate text, OUT error text, OUT hint text) RETURNS record
	LANGUAGE plpgsql STABLE STRICT PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	can_log_in boolean;
BEGIN
	SELECT r.rolcanlogin INTO can_log_in FROM pg_roles r WHERE r.oid = owner;
	IF NOT FOUND THEN
		sqlstate := '42704';
		error := format('role %s does not exist', owner);
		hint := 'Drop the job and schedule it as another role.';
	-- From PostgreSQL 17 on, a background worker may run as any role.
	ELSIF NOT can_log_in AND current_setting('server_version_num')::integer < 170000 THEN
		sqlstate := '28000';
		error := format('role %s is not permitted to log in', owner);
		hint := format('ALTER ROLE %s LOGIN; (it needs no password). Before PostgreSQL 17 a background worker runs only as a role with LOGIN.', owner);
	ELSIF NOT has_database_privilege(owner::oid, current_database(), 'CONNECT') THEN
		sqlstate := '42501';
		error := format('role %s may not connect to database "%s"', owner, current_database());
		hint := format('GRANT CONNECT ON DATABASE %I TO %s;', current_database(), owner);
	END IF;
END
$$;
COMMENT ON FUNCTION imgpipe.job_owner_problem(regrole) IS
'Why a job cannot run as that role, and the statement that helps; NULL where it can.';

CREATE FUNCTION imgpipe.check_job(job imgpipe.jobs) RETURNS void
	LANGUAGE plpgsql STABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	bounded record;
BEGIN
	PERFORM imgpipe.next_run(job.schedule, now(), CASE job.time_zone WHEN 'default' THEN 'UTC' ELSE job.time_zone END);
	PERFORM imgpipe.check_command(job.command);
	FOR bounded IN SELECT * FROM (VALUES ('max_running', job.max_running, 64), ('max_attempts', job.max_attempts, 100)) v (name, value, maximum) LOOP
		IF (bounded.value BETWEEN 1 AND bounded.maximum) IS NOT TRUE THEN
			RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
				MESSAGE = format('%s must be between 1 and %s', bounded.name, bounded.maximum),
				DETAIL = format('It is %s.', coalesce(bounded.value::text, 'NULL')),
				HINT = 'Choose a value within these bounds.';
		END IF;
	END LOOP;
	FOR bounded IN SELECT * FROM (VALUES ('timeout', job.timeout), ('retry_delay', job.retry_delay)) v (name, value) LOOP
		IF (bounded.value BETWEEN interval '0' AND interval '24 days') IS NOT TRUE THEN
			RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
				MESSAGE = format('%s must be between 0 and 24 days', bounded.name),
				DETAIL = format('It is %s.', coalesce(bounded.value::text, 'NULL')),
				HINT = 'Choose a value within these bounds; a timeout of 0 is none.';
		END IF;
	END LOOP;
	IF (job.catch_up = ANY ('{none,once,all}')) IS NOT TRUE THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
			MESSAGE = 'catch_up must be none, once or all',
			DETAIL = format('It is %s.', coalesce('"' || job.catch_up || '"', 'NULL')),
			HINT = 'It says what becomes of due times that pass while the job cannot run: skipped, one run for all, or one for each.';
	END IF;
	IF job.enabled IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed',
			MESSAGE = 'enabled must be true or false',
			DETAIL = 'It is NULL.',
			HINT = 'A job that is not enabled runs only when run_job() asks for it.';
	END IF;
END
$$;
COMMENT ON FUNCTION imgpipe.check_job(imgpipe.jobs) IS
'Raises what schedule() raises for a job''s schedule, time zone, command and parameters.';

CREATE FUNCTION imgpipe.own_job(name text) RETURNS imgpipe.jobs
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	job imgpipe.jobs;
BEGIN
	SELECT * INTO job FROM imgpipe.jobs j WHERE j.name = own_job.name AND pg_has_role(j.owner::oid, 'USAGE') FOR NO KEY UPDATE;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'undefined_object',
			MESSAGE = format('job %s does not exist', coalesce('"' || name || '"', 'NULL')),
			DETAIL = 'There is none of that name, or it belongs to a role that you are not a member of.',
			HINT = 'SELECT name FROM imgpipe.jobs; shows those that you may change.';
	END IF;
	RETURN job;
END
$$;
COMMENT ON FUNCTION imgpipe.own_job(text) IS
'The job of that name, locked until the end of the transaction. Raises 42704 where the current role has none.';

CREATE FUNCTION imgpipe.schedule(name text, schedule text, command text, time_zone text DEFAULT 'default',
	max_running integer DEFAULT 1, timeout interval DEFAULT '0', max_attempts integer DEFAULT 1,
	retry_delay interval DEFAULT '10 seconds', catch_up text DEFAULT 'once', enabled boolean DEFAULT true) RETURNS integer
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
	job imgpipe.jobs;
	problem record;
BEGIN
	IF (schedule.name ~ '^[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}$') IS NOT TRUE THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_name',
			MESSAGE = format('job name %s is not valid', coalesce('"' || schedule.name || '"', 'NULL')),
			HINT = 'A name has 1 to 63 letters of ASCII, digits, "_", "." and "-", and begins with none of the last two.';
	END IF;
	IF schedule.schedule IS NULL OR schedule.command IS NULL OR schedule.time_zone IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed',
			MESSAGE = format('job "%s" needs a schedule, a command and a time zone', schedule.name),
			DETAIL = 'One of them is NULL.',
			HINT = 'For example: SELECT imgpipe.schedule(''nightly'', ''30 2 * * *'', ''VACUUM'', time_zone => ''Europe/Berlin'');';
	END IF;
	job.schedule := schedule.schedule;
	job.command := schedule.command;
	job.time_zone := schedule.time_zone;
	job.max_running := schedule.max_running;
	job.timeout := schedule.timeout;
	job.max_attempts := schedule.max_attempts;
	job.retry_delay := schedule.retry_delay;
	job.catch_up := schedule.catch_up;
	job.enabled := schedule.enabled;
	PERFORM imgpipe.check_job(job);
	SELECT * INTO problem FROM imgpipe.job_owner_problem(current_user::regrole);
	IF problem.error IS NOT NULL THEN
		RAISE EXCEPTION USING ERRCODE = problem.sqlstate, MESSAGE = problem.error,
			DETAIL = 'A job runs in a worker that connects as its owner.', HINT = problem.hint;
	END IF;
	BEGIN
		INSERT INTO imgpipe.jobs AS j (name, schedule, time_zone, command, enabled, max_running, timeout, max_attempts, retry_delay, catch_up)
			VALUES (schedule.name, job.schedule, job.time_zone, job.command, job.enabled, job.max_running, job.timeout,
				job.max_attempts, job.retry_delay, job.catch_up)
			ON CONFLICT (name) DO UPDATE SET schedule = EXCLUDED.schedule, time_zone = EXCLUDED.time_zone, command = EXCLUDED.command,
				enabled = EXCLUDED.enabled, max_running = EXCLUDED.max_running, timeout = EXCLUDED.timeout,
				max_attempts = EXCLUDED.max_attempts, retry_delay = EXCLUDED.retry_delay, catch_up = EXCLUDED.catch_up,
				-- The same again, as from a script that is run at each deployment, leaves its due times alone.
				due_after = CASE WHEN (j.schedule, j.time_zone, j.enabled) = (EXCLUDED.schedule, EXCLUDED.time_zone, EXCLUDED.enabled)
					THEN j.due_after ELSE EXCLUDED.due_after END,
				next_due_at = CASE WHEN (j.schedule, j.time_zone, j.enabled) = (EXCLUDED.schedule, EXCLUDED.time_zone, EXCLUDED.enabled)
					THEN j.next_due_at END
			RETURNING j.job_id INTO job.job_id;
	EXCEPTION WHEN insufficient_privilege THEN
		IF NOT (has_table_privilege('imgpipe.jobs', 'SELECT') AND has_table_privilege('imgpipe.jobs', 'INSERT')
				AND has_table_privilege('imgpipe.jobs', 'UPDATE')) THEN
			RAISE;
		END IF;
		RAISE EXCEPTION USING ERRCODE = 'duplicate_object',
			MESSAGE = format('job "%s" already exists', schedule.name),
			DETAIL = 'It belongs to a role that you are not a member of.',
			HINT = 'Choose another name.';
	END;
	PERFORM imgpipe.wake_controller();
	IF job.enabled THEN
		PERFORM imgpipe.require_workers(format('job "%s" waits for workers', name), or_wait => true);
	END IF;
	RETURN job.job_id;
END
$$;
COMMENT ON FUNCTION imgpipe.schedule(text, text, text, text, integer, interval, integer, interval, text, boolean) IS
'Runs an SQL command on a schedule and returns the job_id. Where the current role, or one that it is a member of, has a job of that name, that job gets this schedule, command and parameters; it keeps its owner. See next_run() for schedules and docs/scheduling.md for all of it.
command: one statement runs as if typed in psql, so VACUUM, CREATE INDEX CONCURRENTLY and CALL with COMMIT work; several, parted by semicolons, run in one transaction unless they hold BEGIN and COMMIT. time_zone: whose clock the schedule goes by; default: the database''s TimeZone. max_running (1 to 64): runs at the same time; a due time that finds them all going on waits. timeout (up to 24 days; 0: none) cancels a run. max_attempts (1 to 100) and retry_delay (up to 24 days): a run that fails, is interrupted or runs into its timeout is tried again after retry_delay, doubled each time up to an hour. catch_up: none, once or all, for due times that passed while the server was down or the job could not run.
The command runs as the current role in a worker of its own, whose search_path and settings are those of the role and the database. imgpipe.job_runs shows what came of it, imgpipe.job_status what is next. A role needs USAGE on schema imgpipe and SELECT, INSERT, UPDATE and DELETE on imgpipe.jobs, and before PostgreSQL 17 LOGIN. Without shared_preload_libraries = ''imgpipe'' jobs are kept and do not run, and a warning says so. Raises 42602 for a name, 22023 and 22004 for a schedule, time zone or parameter, 42601 for a command that is no SQL, 0A000 for COPY to or from the client, 28000 and 42501 for missing rights, 42710 for a name that another role has.';

CREATE FUNCTION imgpipe.alter_job(name text, schedule text DEFAULT NULL, command text DEFAULT NULL, time_zone text DEFAULT NULL,
	max_running integer DEFAULT NULL, timeout interval DEFAULT NULL, max_attempts integer DEFAULT NULL,
	retry_delay interval DEFAULT NULL, catch_up text DEFAULT NULL, enabled boolean DEFAULT NULL) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
	old_job imgpipe.jobs := imgpipe.own_job(alter_job.name);
	job imgpipe.jobs := old_job;
	afresh boolean;
BEGIN
	job.schedule := coalesce(alter_job.schedule, job.schedule);
	job.command := coalesce(alter_job.command, job.command);
	job.time_zone := coalesce(alter_job.time_zone, job.time_zone);
	job.max_running := coalesce(alter_job.max_running, job.max_running);
	job.timeout := coalesce(alter_job.timeout, job.timeout);
	job.max_attempts := coalesce(alter_job.max_attempts, job.max_attempts);
	job.retry_delay := coalesce(alter_job.retry_delay, job.retry_delay);
	job.catch_up := coalesce(alter_job.catch_up, job.catch_up);
	job.enabled := coalesce(alter_job.enabled, job.enabled);
	PERFORM imgpipe.check_job(job);
	-- What came due under another schedule, or while the job was off, is not caught up on.
	afresh := (job.schedule, job.time_zone, job.enabled) IS DISTINCT FROM (old_job.schedule, old_job.time_zone, old_job.enabled);
	UPDATE imgpipe.jobs j SET schedule = job.schedule, command = job.command, time_zone = job.time_zone, max_running = job.max_running,
			timeout = job.timeout, max_attempts = job.max_attempts, retry_delay = job.retry_delay, catch_up = job.catch_up, enabled = job.enabled,
			due_after = CASE WHEN afresh THEN imgpipe.scheduler_clock() ELSE j.due_after END,
			next_due_at = CASE WHEN afresh THEN NULL ELSE j.next_due_at END
		WHERE j.job_id = job.job_id;
	PERFORM imgpipe.wake_controller();
	IF job.enabled THEN
		PERFORM imgpipe.require_workers(format('job "%s" waits for workers', name), or_wait => true);
	END IF;
END
$$;
COMMENT ON FUNCTION imgpipe.alter_job(text, text, text, text, integer, interval, integer, interval, text, boolean) IS
'Changes what is given of a job, and leaves the rest as it is; the parameters are those of schedule(). A new schedule, time zone or enabled => true counts from now on: due times before that are not caught up on. enabled => false also ends its retries. Runs that go on are not touched. Raises 42704 where the current role has no such job, and what schedule() raises.';

CREATE FUNCTION imgpipe.unschedule(name text) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	job imgpipe.jobs := imgpipe.own_job(name);
BEGIN
	DELETE FROM imgpipe.jobs j WHERE j.job_id = job.job_id;
END
$$;
COMMENT ON FUNCTION imgpipe.unschedule(text) IS
'Drops a job. A run that goes on goes on to its end (job_runs.pid is for pg_cancel_backend()); its job_runs stay for as long as those of other jobs. Raises 42704 where the current role has no such job.';

CREATE FUNCTION imgpipe.run_job(name text) RETURNS bigint
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	job imgpipe.jobs := imgpipe.own_job(name);
BEGIN
	PERFORM imgpipe.require_workers(format('job "%s" cannot run', name));
	UPDATE imgpipe.jobs j SET requested_run = coalesce(j.requested_run, nextval('imgpipe.job_runs_run_id_seq'))
		WHERE j.job_id = job.job_id
		RETURNING j.requested_run INTO job.requested_run;
	PERFORM imgpipe.wake_controller();
	RETURN job.requested_run;
END
$$;
COMMENT ON FUNCTION imgpipe.run_job(text) IS
'Runs a job as soon as the transaction commits, whatever its schedule says and also where it is not enabled, and returns the run_id that imgpipe.job_runs will show it by. It waits where max_running runs of the job go on; asked for again before it began, it is the same run. The schedule goes on as before. Needs USAGE on sequence imgpipe.job_runs_run_id_seq. Raises 55000 where imgpipe is not in shared_preload_libraries, 42704 where the current role has no such job.';
