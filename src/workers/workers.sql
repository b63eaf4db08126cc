
/* Background workers; see src/workers/. */

CREATE FUNCTION imgpipe.wake_controller() RETURNS void
	AS 'MODULE_PATHNAME', 'imgpipe_wake_controller'
	LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION imgpipe.wake_controller() IS
'Makes this database''s controller look at sources, processors and the queue as soon as the transaction commits. Does nothing where imgpipe is not in shared_preload_libraries.';

CREATE FUNCTION imgpipe.workers_available() RETURNS boolean
	AS 'MODULE_PATHNAME', 'imgpipe_workers_available'
	LANGUAGE C STABLE PARALLEL SAFE;
COMMENT ON FUNCTION imgpipe.workers_available() IS
'Whether imgpipe is in shared_preload_libraries, so that sources and processors can run.';

CREATE FUNCTION imgpipe.require_workers(problem text, or_wait boolean DEFAULT false) RETURNS void
	AS 'MODULE_PATHNAME', 'imgpipe_require_workers'
	LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION imgpipe.require_workers(text, boolean) IS
'Does nothing where imgpipe is in shared_preload_libraries. Elsewhere raises 55000 with that problem; with or_wait, where what was asked for is kept until there are workers, it is a warning, the first of each statement.';

CREATE FUNCTION imgpipe.stop_workers() RETURNS void
	AS 'MODULE_PATHNAME', 'imgpipe_stop_workers'
	LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION imgpipe.stop_workers() IS
'Stops this database''s controller and workers until start_workers() or a restart of the server. Nothing is lost: they go on from where they were. Commands that need the database to themselves (DROP DATABASE, ALTER DATABASE ... RENAME TO or SET TABLESPACE, CREATE DATABASE ... TEMPLATE), ALTER EXTENSION imgpipe UPDATE and DROP EXTENSION imgpipe do this by themselves. Raises 55000 where imgpipe is not in shared_preload_libraries. Only the owner may, unless granted.';
REVOKE EXECUTE ON FUNCTION imgpipe.stop_workers() FROM PUBLIC;

CREATE FUNCTION imgpipe.start_workers() RETURNS void
	AS 'MODULE_PATHNAME', 'imgpipe_start_workers'
	LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION imgpipe.start_workers() IS
'Lets this database have its controller and workers again after stop_workers(). Raises 55000 where imgpipe is not in shared_preload_libraries. Only the owner may, unless granted.';
REVOKE EXECUTE ON FUNCTION imgpipe.start_workers() FROM PUBLIC;

CREATE FUNCTION imgpipe.worker_slots(
	OUT kind text, OUT role oid, OUT object integer, OUT slice integer, OUT n_slices integer,
	OUT pid integer, OUT state text, OUT since timestamptz, OUT started_at timestamptz,
	OUT failures integer, OUT retry_at timestamptz,
	OUT messages bigint, OUT bytes bigint, OUT failed bigint,
	OUT messages_per_second double precision, OUT bytes_per_second double precision,
	OUT lag bigint, OUT last_error text, OUT last_error_at timestamptz) RETURNS SETOF record
	AS 'MODULE_PATHNAME', 'imgpipe_worker_slots'
	LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION imgpipe.worker_slots() IS
'What this database''s workers told of themselves since the server started: ingest workers (object is the source_id), processor workers and job workers (object is the job_id) and senders (object is the sender_id). No rows where imgpipe is not in shared_preload_libraries. The views source_status and processor_performance show this in a friendlier form. last_error is null for who is neither a member of the worker''s role nor of pg_read_all_stats.';

