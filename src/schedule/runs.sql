

/* The runs of jobs, as the controller and the job workers use them.  Only the owner calls these. */

CREATE FUNCTION imgpipe.job_time_zone(time_zone text) RETURNS text
	LANGUAGE sql STABLE STRICT PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT CASE WHEN time_zone <> 'default' THEN time_zone
		ELSE coalesce((SELECT substr(setting, position('=' IN setting) + 1)
				FROM pg_db_role_setting s CROSS JOIN LATERAL unnest(s.setconfig) setting
				WHERE s.setdatabase = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
					AND s.setrole = 0 AND setting ILIKE 'timezone=%'),
			current_setting('TimeZone')) END
$$;
COMMENT ON FUNCTION imgpipe.job_time_zone(text) IS
'The time zone of a job: for default, what ALTER DATABASE ... SET TimeZone says, or else the server''s.';
REVOKE EXECUTE ON FUNCTION imgpipe.job_time_zone(text) FROM PUBLIC;

CREATE FUNCTION imgpipe.insert_job_run(job imgpipe.jobs, run_id bigint, cause text, due_at timestamptz, missed integer, attempt integer) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	problem record;
BEGIN
	SELECT * INTO problem FROM imgpipe.job_owner_problem(job.owner);
	run_id := coalesce(run_id, nextval('imgpipe.job_runs_run_id_seq'));
	INSERT INTO imgpipe.job_runs (run_id, job_id, name, owner, command, cause, due_at, missed, attempt, status)
		VALUES (run_id, job.job_id, job.name, job.owner, job.command, insert_job_run.cause, insert_job_run.due_at,
			insert_job_run.missed, insert_job_run.attempt, 'starting');
	IF problem.error IS NOT NULL THEN
		PERFORM imgpipe.finish_job_run(run_id, 'failed', sqlstate => problem.sqlstate, error => problem.error, hint => problem.hint);
	END IF;
END
$$;
COMMENT ON FUNCTION imgpipe.insert_job_run(imgpipe.jobs, bigint, text, timestamptz, integer, integer) IS
'Records a run that a worker is to be started for, or its failure where the owner may not log in.';
REVOKE EXECUTE ON FUNCTION imgpipe.insert_job_run(imgpipe.jobs, bigint, text, timestamptz, integer, integer) FROM PUBLIC;

CREATE FUNCTION imgpipe.begin_scheduled_runs(job imgpipe.jobs, clock timestamptz, room integer) RETURNS integer
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	zone CONSTANT text := imgpipe.job_time_zone(job.time_zone);
	last record;
	begun integer := 0;
BEGIN
	IF imgpipe.schedule_kind(job.schedule) = 'reboot' THEN
		IF pg_postmaster_start_time() > job.due_after AND room > 0 THEN
			job.due_after := pg_postmaster_start_time();
			PERFORM imgpipe.insert_job_run(job, NULL, 'schedule', job.due_after, 0, 1);
			begun := 1;
		END IF;
	-- The clock was set back. A schedule of some hours waits for up to three until it is where it was, so that nothing runs twice.
	ELSIF job.due_after > clock + (CASE imgpipe.schedule_kind(job.schedule) WHEN 'calendar' THEN interval '3 hours' ELSE interval '1 minute' END) THEN
		job.due_after := clock;
	ELSIF job.catch_up = 'all' THEN
		job.next_due_at := imgpipe.next_run(job.schedule, job.due_after, zone);
		WHILE job.next_due_at <= clock AND begun < room LOOP
			PERFORM imgpipe.insert_job_run(job, NULL, 'schedule', job.next_due_at, 0, 1);
			begun := begun + 1;
			job.due_after := job.next_due_at;
			job.next_due_at := imgpipe.next_run(job.schedule, job.due_after, zone);
		END LOOP;
	ELSE
		SELECT * INTO last FROM imgpipe.last_run(job.schedule, job.due_after, clock, zone);
		IF job.catch_up = 'none' AND last.due_at <= clock - interval '1 minute' THEN
			INSERT INTO imgpipe.job_runs (job_id, name, owner, command, cause, due_at, missed, status, finished_at, error)
				VALUES (job.job_id, job.name, job.owner, job.command, 'schedule', last.due_at, last.due_times - 1, 'skipped', clock,
					'the job could not run within a minute of its due time, and catch_up is none');
			job.due_after := last.due_at;
		ELSIF last.due_at IS NOT NULL AND room > 0 THEN
			PERFORM imgpipe.insert_job_run(job, NULL, 'schedule', last.due_at, last.due_times - 1, 1);
			begun := 1;
			job.due_after := last.due_at;
			-- This one stands for what is still to be tried again, too.
			UPDATE imgpipe.job_runs r SET retry_at = NULL
				WHERE r.job_id = job.job_id AND r.retry_at IS NOT NULL AND r.cause = 'schedule' AND r.due_at < last.due_at;
		END IF;
	END IF;
	job.next_due_at := imgpipe.next_run(job.schedule, job.due_after, zone);
	UPDATE imgpipe.jobs j SET due_after = job.due_after, next_due_at = job.next_due_at
		WHERE j.job_id = job.job_id AND (j.due_after, j.next_due_at) IS DISTINCT FROM (job.due_after, job.next_due_at);
	RETURN begun;
END
$$;
COMMENT ON FUNCTION imgpipe.begin_scheduled_runs(imgpipe.jobs, timestamptz, integer) IS
'Records the runs of a job that are due at that time on the clock, at most room of them, and advances its due_after; returns how many.';
REVOKE EXECUTE ON FUNCTION imgpipe.begin_scheduled_runs(imgpipe.jobs, timestamptz, integer) FROM PUBLIC;

CREATE FUNCTION imgpipe.begin_runs_of_job(job imgpipe.jobs, clock timestamptz, room integer) RETURNS integer
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	begun integer := 0;
	failed record;
BEGIN
	room := least(room, job.max_running - (SELECT count(*) FROM imgpipe.job_runs r
		WHERE r.job_id = job.job_id AND r.status = ANY ('{starting,running}')));
	IF job.requested_run IS NOT NULL AND room > 0 THEN
		UPDATE imgpipe.jobs j SET requested_run = NULL WHERE j.job_id = job.job_id;
		PERFORM imgpipe.insert_job_run(job, job.requested_run, 'request', clock, 0, 1);
		begun := 1;
	END IF;
	IF job.enabled AND (job.next_due_at IS NULL OR job.next_due_at <= clock OR job.due_after > clock OR job.next_due_at = 'infinity') THEN
		begun := begun + imgpipe.begin_scheduled_runs(job, clock, room - begun);
	END IF;
	FOR failed IN SELECT r.* FROM imgpipe.job_runs r
		WHERE r.job_id = job.job_id AND r.retry_at <= clock ORDER BY r.due_at, r.run_id
	LOOP
		EXIT WHEN begun >= room;
		UPDATE imgpipe.job_runs r SET retry_at = NULL WHERE r.run_id = failed.run_id;
		PERFORM imgpipe.insert_job_run(job, NULL, failed.cause, failed.due_at, failed.missed, failed.attempt + 1);
		begun := begun + 1;
	END LOOP;
	RETURN begun;
END
$$;
COMMENT ON FUNCTION imgpipe.begin_runs_of_job(imgpipe.jobs, timestamptz, integer) IS
'Records the runs of a job that may begin now, at most room of them: what run_job() asked for, what is due, and what is to be tried again; returns how many.';
REVOKE EXECUTE ON FUNCTION imgpipe.begin_runs_of_job(imgpipe.jobs, timestamptz, integer) FROM PUBLIC;

CREATE FUNCTION imgpipe.begin_job_runs(alive bigint[], clock timestamptz DEFAULT imgpipe.scheduler_clock(),
	max_jobs integer DEFAULT imgpipe.setting('imgpipe.max_jobs')::integer) RETURNS bigint
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	job imgpipe.jobs;
	lost bigint;
	room integer;
	error_code text;
	error_message text;
BEGIN
	FOR lost IN SELECT r.run_id FROM imgpipe.job_runs r WHERE r.status = 'running' AND r.run_id <> ALL (alive) LOOP
		PERFORM imgpipe.lose_job_run(lost, '57P02', 'the server, or the worker, ended in the midst of the run');
	END LOOP;
	UPDATE imgpipe.job_runs r SET retry_at = NULL
		WHERE r.retry_at IS NOT NULL
			AND NOT EXISTS (SELECT FROM imgpipe.jobs j WHERE j.job_id = r.job_id AND (j.enabled OR r.cause = 'request'));
	UPDATE imgpipe.job_runs r SET status = 'cancelled', finished_at = clock, error = 'the job was dropped, or given to another role, before the run began'
		WHERE r.status = 'starting' AND r.run_id <> ALL (alive)
			AND NOT EXISTS (SELECT FROM imgpipe.jobs j WHERE j.job_id = r.job_id AND j.owner = r.owner);

	room := max_jobs - (SELECT count(*) FROM imgpipe.job_runs r WHERE r.status = ANY ('{starting,running}'));
	-- A job whose row somebody has just changed, and not yet committed, is left for the next round.
	FOR job IN
		SELECT j.* FROM imgpipe.jobs j
			WHERE j.requested_run IS NOT NULL
				OR (j.enabled AND (j.next_due_at IS NULL OR j.next_due_at <= clock OR j.due_after > clock OR j.next_due_at = 'infinity'))
				OR EXISTS (SELECT FROM imgpipe.job_runs r WHERE r.job_id = j.job_id AND r.retry_at <= clock)
			ORDER BY j.next_due_at, j.job_id
			FOR NO KEY UPDATE SKIP LOCKED
	LOOP
		BEGIN
			room := room - imgpipe.begin_runs_of_job(job, clock, room);
		EXCEPTION WHEN data_exception OR integrity_constraint_violation OR syntax_error_or_access_rule_violation THEN
			-- A row that no function of ours has written, or a time zone that is gone. It must not keep the others from running.
			GET STACKED DIAGNOSTICS error_code = RETURNED_SQLSTATE, error_message = MESSAGE_TEXT;
			INSERT INTO imgpipe.job_runs (job_id, name, owner, command, cause, due_at, status, finished_at, sqlstate, error, hint)
				VALUES (job.job_id, job.name, job.owner, job.command, 'schedule', clock, 'failed', clock, error_code, error_message,
					'The job was disabled. Set it right with imgpipe.alter_job(), with enabled => true.');
			UPDATE imgpipe.jobs j SET enabled = false, due_after = clock, next_due_at = NULL, requested_run = NULL WHERE j.job_id = job.job_id;
		END;
	END LOOP;

	-- Milliseconds until there is something to do again; where something waits for room, a second.
	RETURN (SELECT greatest(1, least(30000, CASE WHEN min(due.at) <= clock THEN 1000 ELSE extract(epoch FROM min(due.at) - clock) * 1000 + 1 END))
		FROM (SELECT j.next_due_at AS at FROM imgpipe.jobs j WHERE j.enabled AND isfinite(j.next_due_at)
			UNION ALL SELECT r.retry_at FROM imgpipe.job_runs r WHERE r.retry_at IS NOT NULL
			UNION ALL SELECT clock FROM imgpipe.job_runs r WHERE r.status = 'starting'
			UNION ALL SELECT clock FROM imgpipe.jobs j WHERE j.requested_run IS NOT NULL) due);
END
$$;
COMMENT ON FUNCTION imgpipe.begin_job_runs(bigint[], timestamptz, integer) IS
'One look at all jobs: runs whose worker is not among those that are alive are interrupted, and those that may begin at that time on the clock are recorded as starting, so many that max_jobs run at once. Returns in how many milliseconds the next look is worth it.';
REVOKE EXECUTE ON FUNCTION imgpipe.begin_job_runs(bigint[], timestamptz, integer) FROM PUBLIC;

CREATE FUNCTION imgpipe.take_job_run(run_id bigint, pid integer, OUT name text, OUT command text, OUT timeout_ms bigint) RETURNS record
	LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	UPDATE imgpipe.job_runs r SET status = 'running', pid = take_job_run.pid, started_at = imgpipe.scheduler_clock(), sqlstate = NULL, error = NULL, hint = NULL
		FROM imgpipe.jobs j
		WHERE r.run_id = take_job_run.run_id AND r.status = 'starting' AND j.job_id = r.job_id AND j.owner = r.owner
		RETURNING r.name, r.command, (extract(epoch FROM j.timeout) * 1000)::bigint INTO take_job_run.name, take_job_run.command, timeout_ms;
END
$$;
COMMENT ON FUNCTION imgpipe.take_job_run(bigint, integer) IS
'A worker has come up for that run and is about to execute its command; NULL where it must not.';
REVOKE EXECUTE ON FUNCTION imgpipe.take_job_run(bigint, integer) FROM PUBLIC;

CREATE FUNCTION imgpipe.finish_job_run(run_id bigint, status text, rows bigint DEFAULT NULL, messages text DEFAULT NULL,
	sqlstate text DEFAULT NULL, error text DEFAULT NULL, detail text DEFAULT NULL, hint text DEFAULT NULL, context text DEFAULT NULL) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	UPDATE imgpipe.job_runs r SET status = finish_job_run.status, finished_at = imgpipe.scheduler_clock(),
			rows = finish_job_run.rows, messages = finish_job_run.messages, sqlstate = finish_job_run.sqlstate,
			error = finish_job_run.error, detail = finish_job_run.detail, hint = finish_job_run.hint, context = finish_job_run.context,
			retry_at = CASE WHEN finish_job_run.status = ANY ('{failed,interrupted}') THEN
				(SELECT imgpipe.scheduler_clock() + least(j.retry_delay * 2 ^ least(r.attempt - 1, 20), greatest(j.retry_delay, interval '1 hour'))
					FROM imgpipe.jobs j WHERE j.job_id = r.job_id AND r.attempt < j.max_attempts) END
		WHERE r.run_id = finish_job_run.run_id AND r.status = ANY ('{starting,running}');
	PERFORM imgpipe.wake_controller();
END
$$;
COMMENT ON FUNCTION imgpipe.finish_job_run(bigint, text, bigint, text, text, text, text, text, text) IS
'Records how a run ended, and when it is tried again where it failed and its job has attempts left.';
REVOKE EXECUTE ON FUNCTION imgpipe.finish_job_run(bigint, text, bigint, text, text, text, text, text, text) FROM PUBLIC;

CREATE FUNCTION imgpipe.lose_job_run(run_id bigint, sqlstate text, error text) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	PERFORM imgpipe.finish_job_run(r.run_id, CASE r.status WHEN 'starting' THEN 'failed' ELSE 'interrupted' END,
			sqlstate => lose_job_run.sqlstate, error => lose_job_run.error)
		FROM imgpipe.job_runs r WHERE r.run_id = lose_job_run.run_id AND r.status = ANY ('{starting,running}');
END
$$;
COMMENT ON FUNCTION imgpipe.lose_job_run(bigint, text, text) IS
'The worker of a run has ended without saying how the run ended: it failed where the worker never came to it, and was interrupted where it did.';
REVOKE EXECUTE ON FUNCTION imgpipe.lose_job_run(bigint, text, text) FROM PUBLIC;

CREATE FUNCTION imgpipe.prune_job_runs(clock timestamptz DEFAULT imgpipe.scheduler_clock()) RETURNS bigint
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	kept CONSTANT interval := imgpipe.setting('imgpipe.job_history');
	errors_kept CONSTANT interval := imgpipe.setting('imgpipe.job_error_history');
	pruned bigint;
BEGIN
	DELETE FROM imgpipe.job_runs r WHERE r.run_id = ANY (ARRAY(
		SELECT o.run_id FROM imgpipe.job_runs o
			WHERE o.finished_at < clock - CASE o.status WHEN 'succeeded' THEN kept ELSE errors_kept END
				AND o.finished_at < clock - least(kept, errors_kept) AND o.retry_at IS NULL
			LIMIT 1000));
	GET DIAGNOSTICS pruned = ROW_COUNT;
	RETURN pruned;
END
$$;
COMMENT ON FUNCTION imgpipe.prune_job_runs(timestamptz) IS
'Deletes up to 1000 successful runs older than imgpipe.job_history and others older than imgpipe.job_error_history, and returns how many. The controller does this by itself.';
REVOKE EXECUTE ON FUNCTION imgpipe.prune_job_runs(timestamptz) FROM PUBLIC;

CREATE VIEW imgpipe.job_status WITH (security_invoker = true) AS
	SELECT j.job_id, j.name, j.owner, j.schedule, j.time_zone,
		CASE
			WHEN open.running OPERATOR(pg_catalog.>) 0 THEN 'running'
			WHEN open.starting OPERATOR(pg_catalog.>) 0 THEN 'starting'
			WHEN NOT imgpipe.workers_available() THEN 'stopped'
			WHEN open.retry_at IS NOT NULL THEN 'retrying'
			WHEN j.requested_run IS NOT NULL OR (j.enabled AND j.next_due_at OPERATOR(pg_catalog.<=) imgpipe.scheduler_clock()) THEN 'waiting'
			WHEN NOT j.enabled THEN 'disabled'
			ELSE 'scheduled'
		END AS state,
		CASE WHEN j.enabled THEN LEAST(j.next_due_at, open.retry_at) ELSE open.retry_at END AS next_run_at,
		CASE
			WHEN NOT imgpipe.workers_available() THEN 'imgpipe is not in shared_preload_libraries'
			WHEN open.error IS NOT NULL THEN open.error
			WHEN (j.requested_run IS NOT NULL OR (j.enabled AND j.next_due_at OPERATOR(pg_catalog.<=) imgpipe.scheduler_clock()))
					AND open.running OPERATOR(pg_catalog.+) open.starting OPERATOR(pg_catalog.<) j.max_running
				THEN 'waits for the controller, or for imgpipe.max_jobs'
		END AS problem,
		last.run_id AS last_run_id, last.status AS last_status, last.finished_at AS last_finished_at, last.duration AS last_duration,
		last.error AS last_error
	FROM imgpipe.jobs j
		CROSS JOIN LATERAL (
			SELECT pg_catalog.count(*) FILTER (WHERE r.status OPERATOR(pg_catalog.=) 'running') AS running,
				pg_catalog.count(*) FILTER (WHERE r.status OPERATOR(pg_catalog.=) 'starting') AS starting,
				pg_catalog.max(r.error) FILTER (WHERE r.status OPERATOR(pg_catalog.=) 'starting') AS error,
				pg_catalog.min(r.retry_at) AS retry_at
			FROM imgpipe.job_runs r
			WHERE r.job_id OPERATOR(pg_catalog.=) j.job_id
				AND (r.status OPERATOR(pg_catalog.=) ANY ('{starting,running}') OR r.retry_at IS NOT NULL)) open
		LEFT JOIN LATERAL (
			SELECT r.* FROM imgpipe.job_runs r
			WHERE r.job_id OPERATOR(pg_catalog.=) j.job_id AND r.finished_at IS NOT NULL
			ORDER BY r.run_id DESC LIMIT 1) last ON true;
COMMENT ON VIEW imgpipe.job_status IS
'One row a job: what it is doing now, when it runs next, why it does not run, and how its last run ended. state: scheduled, running, starting, retrying (its last run failed and next_run_at says when it is tried again), waiting (due, or asked for, and not begun; problem says why), disabled, or stopped (imgpipe is not in shared_preload_libraries). Needs SELECT on jobs and job_runs.';
