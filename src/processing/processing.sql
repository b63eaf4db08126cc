
/*
 * Processors, their versions and the queue of tasks; see src/processing/.
 *
 * A task is one image for one processor.  A worker claims it for the time of
 * a lease, works with no transaction open, and finishes it in the transaction
 * that writes the outputs.  (attempts, version) is the claim's token: who
 * finds it changed has lost the task to somebody else and writes nothing.
 */

CREATE TABLE imgpipe.processors (
	processor_id integer PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
	name text NOT NULL UNIQUE CHECK (name OPERATOR(pg_catalog.~) '^[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}$'),
	owner regrole NOT NULL DEFAULT CURRENT_USER::pg_catalog.regrole,
	version integer NOT NULL DEFAULT 1,
	enabled boolean NOT NULL DEFAULT true,
	max_attempts integer NOT NULL DEFAULT 5 CHECK (max_attempts OPERATOR(pg_catalog.>=) 1 AND max_attempts OPERATOR(pg_catalog.<=) 100),
	created_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);
COMMENT ON TABLE imgpipe.processors IS
'What is done to every image that arrives; see create_processor(). Everybody with SELECT sees all processors, only members of a processor''s owner change it.';
COMMENT ON COLUMN imgpipe.processors.owner IS 'The role whose rights the processor has: its workers read images and call its function as this role.';
COMMENT ON COLUMN imgpipe.processors.enabled IS 'Whether images that arrive get a task, and waiting tasks are worked on.';

CREATE TABLE imgpipe.processor_versions (
	processor_id integer NOT NULL,
	version integer NOT NULL,
	outputs jsonb,
	function text,
	created_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	created_by regrole NOT NULL DEFAULT CURRENT_USER::pg_catalog.regrole,
	PRIMARY KEY (processor_id, version),
	CHECK ((outputs IS NULL) OPERATOR(pg_catalog.<>) (function IS NULL))
);
COMMENT ON TABLE imgpipe.processor_versions IS
'What each version of a processor does: every rendition and result names its processor and version.';
COMMENT ON COLUMN imgpipe.processor_versions.outputs IS 'Name of each rendition and its pipeline in canonical form.';
COMMENT ON COLUMN imgpipe.processor_versions.function IS 'Schema-qualified signature. Text and not regprocedure, which pg_upgrade refuses in a table.';

CREATE TABLE imgpipe.tasks (
	task_id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
	image_id uuid NOT NULL,
	processor_id integer NOT NULL,
	version integer NOT NULL,
	attempts integer NOT NULL DEFAULT 0,
	available_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
	last_error text,
	created_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
	UNIQUE (image_id, processor_id)
) WITH (autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0.05,
	autovacuum_vacuum_cost_delay = 0, autovacuum_analyze_threshold = 1000);
-- By processor, so that the backlog of one is not in the way of the others.
CREATE INDEX tasks_due ON imgpipe.tasks (processor_id, available_at, task_id);
COMMENT ON TABLE imgpipe.tasks IS
'The queue: one row for each image that a processor has still to work on.';
COMMENT ON COLUMN imgpipe.tasks.attempts IS 'Claims so far, the running one included.';
COMMENT ON COLUMN imgpipe.tasks.available_at IS 'When the task may be claimed: after its back-off, or when the lease of its worker runs out.';
COMMENT ON COLUMN imgpipe.tasks.last_error IS 'Why the last attempt failed; NULL while a worker has the task.';

SELECT pg_catalog.pg_extension_config_dump('imgpipe.processors', '');
SELECT pg_catalog.pg_extension_config_dump('imgpipe.processors_processor_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('imgpipe.processor_versions', '');
SELECT pg_catalog.pg_extension_config_dump('imgpipe.tasks', '');
SELECT pg_catalog.pg_extension_config_dump('imgpipe.tasks_task_id_seq', '');

ALTER TABLE imgpipe.processors ENABLE ROW LEVEL SECURITY;
CREATE POLICY everyone_sees ON imgpipe.processors FOR SELECT USING (true);
CREATE POLICY owner_changes ON imgpipe.processors
	USING (pg_catalog.pg_has_role(owner::pg_catalog.oid, 'USAGE'));

ALTER TABLE imgpipe.processor_versions ENABLE ROW LEVEL SECURITY;
CREATE POLICY everyone_sees ON imgpipe.processor_versions FOR SELECT USING (true);
CREATE POLICY owner_changes ON imgpipe.processor_versions
	USING (EXISTS (SELECT FROM imgpipe.processors p
		WHERE p.processor_id OPERATOR(pg_catalog.=) processor_versions.processor_id
			AND pg_catalog.pg_has_role(p.owner::pg_catalog.oid, 'USAGE')));

ALTER TABLE imgpipe.tasks ENABLE ROW LEVEL SECURITY;
CREATE POLICY everyone_sees ON imgpipe.tasks FOR SELECT USING (true);
CREATE POLICY owner_changes ON imgpipe.tasks
	USING (EXISTS (SELECT FROM imgpipe.processors p
		WHERE p.processor_id OPERATOR(pg_catalog.=) tasks.processor_id
			AND pg_catalog.pg_has_role(p.owner::pg_catalog.oid, 'USAGE')));

-- As the tables' owner: who may insert an image need not know of the queue.
CREATE FUNCTION imgpipe.enqueue() RETURNS trigger
	AS 'MODULE_PATHNAME', 'imgpipe_enqueue'
	LANGUAGE C VOLATILE PARALLEL UNSAFE SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION imgpipe.enqueue() IS
'Trigger of imgpipe.images: one task for each enabled processor.';
REVOKE EXECUTE ON FUNCTION imgpipe.enqueue() FROM PUBLIC;

CREATE TRIGGER enqueue AFTER INSERT ON imgpipe.images
	FOR EACH ROW EXECUTE FUNCTION imgpipe.enqueue();

-- In place of foreign keys: each task would pay for the check, and a dump restores tables in any order (pg_restore -j).
CREATE FUNCTION imgpipe.delete_parts_of_processor() RETURNS trigger
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	waiting uuid[];
BEGIN
	WITH gone AS (DELETE FROM imgpipe.tasks t WHERE t.processor_id = OLD.processor_id RETURNING t.image_id)
		SELECT array_agg(DISTINCT g.image_id) INTO waiting
			FROM gone g JOIN imgpipe.outbox o ON o.image_id = g.image_id AND o.state = 'pending';
	DELETE FROM imgpipe.processor_versions v WHERE v.processor_id = OLD.processor_id;
	PERFORM imgpipe.complete_result(w) FROM unnest(waiting) w;
	RETURN NULL;
END
$$;
COMMENT ON FUNCTION imgpipe.delete_parts_of_processor() IS
'Trigger of imgpipe.processors: the tasks and versions of a dropped processor go with it, and results that waited for nothing else are sent.';
REVOKE EXECUTE ON FUNCTION imgpipe.delete_parts_of_processor() FROM PUBLIC;

CREATE TRIGGER delete_parts AFTER DELETE ON imgpipe.processors
	FOR EACH ROW EXECUTE FUNCTION imgpipe.delete_parts_of_processor();


/* Defining processors. */

CREATE FUNCTION imgpipe.check_processor_outputs(outputs jsonb) RETURNS jsonb
	LANGUAGE plpgsql STABLE STRICT PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	canonical jsonb := '{}';
	n_outputs integer;
	output record;
	error_code text;
	error_message text;
	error_detail text;
	error_hint text;
BEGIN
	IF jsonb_typeof(outputs) <> 'object' THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
			MESSAGE = 'outputs must be a JSON object',
			DETAIL = format('It is of type %s.', jsonb_typeof(outputs)),
			HINT = 'Give each rendition a name and a pipeline, for example {"thumb": "resize(width=256) | webp"}.';
	END IF;
	SELECT count(*) INTO n_outputs FROM jsonb_object_keys(outputs);
	IF n_outputs NOT BETWEEN 1 AND 64 THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
			MESSAGE = 'a processor has between 1 and 64 outputs',
			DETAIL = format('There are %s.', n_outputs),
			HINT = 'Make several processors; the outputs of all of them are made from one decode of the image.';
	END IF;
	FOR output IN SELECT e.key AS name, e.value AS pipeline FROM jsonb_each(outputs) e LOOP
		IF output.name !~ '^[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}$' THEN
			RAISE EXCEPTION USING ERRCODE = 'invalid_name',
				MESSAGE = format('output name "%s" is not valid', output.name),
				HINT = 'A name has 1 to 63 letters of ASCII, digits, "_", "." and "-", and begins with none of the last two.';
		END IF;
		IF jsonb_typeof(output.pipeline) <> 'string' THEN
			RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
				MESSAGE = format('output "%s" is not a pipeline', output.name),
				DETAIL = format('It is of type %s.', jsonb_typeof(output.pipeline)),
				HINT = 'Write the pipeline as a string, for example "resize(width=256) | webp".';
		END IF;
		BEGIN
			canonical := canonical || jsonb_build_object(output.name,
				((output.pipeline #>> '{}')::imgpipe.pipeline)::text);
		EXCEPTION WHEN OTHERS THEN
			GET STACKED DIAGNOSTICS error_code = RETURNED_SQLSTATE, error_message = MESSAGE_TEXT,
				error_detail = PG_EXCEPTION_DETAIL, error_hint = PG_EXCEPTION_HINT;
			RAISE EXCEPTION USING ERRCODE = error_code,
				MESSAGE = format('output "%s": %s', output.name, error_message),
				DETAIL = concat_ws(' ', nullif(error_detail, ''), format('The pipeline is "%s".', output.pipeline #>> '{}')),
				HINT = coalesce(nullif(error_hint, ''), 'A pipeline is, for example, resize(width=256) | webp.');
		END;
	END LOOP;
	RETURN canonical;
END
$$;
COMMENT ON FUNCTION imgpipe.check_processor_outputs(jsonb) IS
'The outputs of a processor with every pipeline in canonical form. Raises 22023 where it is no object of 1 to 64 strings, 42602 for a name, and what a pipeline raises, with the name of the output.';

CREATE FUNCTION imgpipe.check_processor_function(function regprocedure, owner regrole) RETURNS text
	LANGUAGE plpgsql STABLE STRICT PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	routine record;
BEGIN
	SELECT p.prokind = 'f' AND NOT p.proretset AND p.prorettype = 'jsonb'::regtype
			AND p.pronargs = 1 AND p.proargtypes[0] = 'imgpipe.image'::regtype AS fits
		INTO routine
		FROM pg_proc p WHERE p.oid = function;
	IF routine.fits IS DISTINCT FROM true THEN
		RAISE EXCEPTION USING ERRCODE = 'datatype_mismatch',
			MESSAGE = format('function %s cannot be a processor', function),
			DETAIL = 'A processor''s function takes one imgpipe.image and returns one jsonb.';
	END IF;
	IF NOT has_function_privilege(owner::oid, function, 'EXECUTE') THEN
		RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege',
			MESSAGE = format('role %s may not execute function %s', owner, function),
			DETAIL = 'A processor calls its function with the rights of its owner.',
			HINT = format('GRANT EXECUTE ON FUNCTION %s TO %s;', function, owner);
	END IF;
	RETURN function::text;
END
$$;
COMMENT ON FUNCTION imgpipe.check_processor_function(regprocedure, regrole) IS
'The schema-qualified signature of a function that can be a processor of that owner. Raises 42804 where it does not take one imgpipe.image and return one jsonb, 42501 where the owner may not execute it.';

CREATE FUNCTION imgpipe.check_processor_owner(owner regrole) RETURNS void
	LANGUAGE plpgsql STABLE STRICT PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	IF NOT has_schema_privilege(owner::oid, 'imgpipe', 'USAGE')
		OR NOT has_column_privilege(owner::oid, 'imgpipe.images', 'image_id', 'SELECT')
		OR NOT has_column_privilege(owner::oid, 'imgpipe.images', 'content', 'SELECT') THEN
		RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege',
			MESSAGE = format('role %s may not read images', owner),
			DETAIL = 'A processor reads images with the rights of its owner.',
			HINT = format('GRANT USAGE ON SCHEMA imgpipe TO %s; GRANT SELECT ON imgpipe.images TO %1$s;', owner);
	END IF;
	-- From PostgreSQL 17 on, a background worker may run as any role.
	IF current_setting('server_version_num')::integer < 170000
		AND NOT (SELECT r.rolcanlogin FROM pg_roles r WHERE r.oid = owner) THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_authorization_specification',
			MESSAGE = format('role %s cannot own a processor', owner),
			DETAIL = 'Before PostgreSQL 17 a background worker runs only as a role with LOGIN.',
			HINT = format('ALTER ROLE %s LOGIN; (it needs no password), or create the processor as another role.', owner);
	END IF;
	IF NOT has_database_privilege(owner::oid, current_database(), 'CONNECT') THEN
		RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege',
			MESSAGE = format('role %s may not connect to database "%s"', owner, current_database()),
			DETAIL = 'A processor''s workers connect as its owner.',
			HINT = format('GRANT CONNECT ON DATABASE %I TO %s;', current_database(), owner);
	END IF;
END
$$;
COMMENT ON FUNCTION imgpipe.check_processor_owner(regrole) IS
'Raises 42501 or 28000, with the statement that helps, where a worker could not process images as that role.';

CREATE FUNCTION imgpipe.own_processor(name text) RETURNS imgpipe.processors
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	processor imgpipe.processors;
BEGIN
	SELECT * INTO processor FROM imgpipe.processors p WHERE p.name = own_processor.name;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'undefined_object',
			MESSAGE = format('processor %s does not exist', coalesce('"' || name || '"', 'NULL')),
			HINT = 'SELECT name FROM imgpipe.processors; shows those that do.';
	END IF;
	IF NOT pg_has_role(processor.owner::oid, 'USAGE') THEN
		RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege',
			MESSAGE = format('must be owner of processor "%s"', name),
			DETAIL = format('It belongs to %s.', processor.owner);
	END IF;
	SELECT * INTO processor FROM imgpipe.processors p WHERE p.name = own_processor.name FOR NO KEY UPDATE;
	RETURN processor;
END
$$;
COMMENT ON FUNCTION imgpipe.own_processor(text) IS
'The processor of that name, locked until the end of the transaction. Raises 42704 where there is none, 42501 where it belongs to a role that the current one is not a member of.';

CREATE FUNCTION imgpipe.create_processor(name text, outputs jsonb DEFAULT NULL, function regprocedure DEFAULT NULL,
	max_attempts integer DEFAULT 5) RETURNS integer
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	new_id integer;
BEGIN
	IF (name ~ '^[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}$') IS NOT TRUE THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_name',
			MESSAGE = format('processor name %s is not valid', coalesce('"' || name || '"', 'NULL')),
			HINT = 'A name has 1 to 63 letters of ASCII, digits, "_", "." and "-", and begins with none of the last two.';
	END IF;
	IF (outputs IS NULL) = (function IS NULL) THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
			MESSAGE = 'a processor has either outputs or a function',
			DETAIL = CASE WHEN outputs IS NULL THEN 'Neither was given.' ELSE 'Both were given.' END,
			HINT = 'For example: SELECT imgpipe.create_processor(''web'', ''{"thumb": "resize(width=256) | webp"}'');';
	END IF;
	IF (max_attempts BETWEEN 1 AND 100) IS NOT TRUE THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
			MESSAGE = 'max_attempts must be between 1 and 100',
			DETAIL = format('It is %s.', coalesce(max_attempts::text, 'NULL'));
	END IF;
	outputs := imgpipe.check_processor_outputs(outputs);
	PERFORM imgpipe.check_processor_function(function, current_user::regrole);
	PERFORM imgpipe.check_processor_owner(current_user::regrole);
	BEGIN
		INSERT INTO imgpipe.processors AS p (name, max_attempts) VALUES (name, max_attempts)
			RETURNING p.processor_id INTO new_id;
	EXCEPTION WHEN unique_violation THEN
		RAISE EXCEPTION USING ERRCODE = 'duplicate_object',
			MESSAGE = format('processor "%s" already exists', name),
			HINT = 'imgpipe.alter_processor() makes a new version of it.';
	END;
	INSERT INTO imgpipe.processor_versions (processor_id, version, outputs, function)
		VALUES (new_id, 1, outputs, function::text);
	PERFORM imgpipe.require_workers(format('processor "%s" waits for workers', name), or_wait => true);
	RETURN new_id;
END
$$;
COMMENT ON FUNCTION imgpipe.create_processor(text, jsonb, regprocedure, integer) IS
'Makes a processor and returns its processor_id: from now on every image that is inserted is worked on in the background. Either outputs, an object of rendition names and pipelines ({"thumb": "resize(width=256) | webp"}), into imgpipe.renditions; or function, which takes an imgpipe.image and returns jsonb, into imgpipe.results. A function runs as the processor''s owner, in a transaction of its own together with the row of its result, for at most nine tenths of imgpipe.task_lease, and should be safe to repeat: it is called again after a failure. A failed task is tried again after 2, 4, 8, ... seconds; after max_attempts (1 to 100) it is in imgpipe.dead_letters.
The current role becomes the owner. It needs SELECT on imgpipe.images and, before PostgreSQL 17, LOGIN. To define processors a role needs SELECT, INSERT, UPDATE and DELETE on imgpipe.processors, SELECT and INSERT on processor_versions, and, for process_images(), SELECT, INSERT and UPDATE on tasks. Raises 42710 for a name that is taken, 42602 for one that is not valid, 22023 for other arguments, 42501 and 28000 for missing rights, 42804 for a function of another kind, 42601 and 22023 for a pipeline.';

CREATE FUNCTION imgpipe.alter_processor(name text, outputs jsonb DEFAULT NULL, function regprocedure DEFAULT NULL) RETURNS integer
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	processor imgpipe.processors := imgpipe.own_processor(name);
BEGIN
	IF (outputs IS NULL) = (function IS NULL) THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
			MESSAGE = 'a processor has either outputs or a function',
			DETAIL = CASE WHEN outputs IS NULL THEN 'Neither was given.' ELSE 'Both were given.' END;
	END IF;
	outputs := imgpipe.check_processor_outputs(outputs);
	PERFORM imgpipe.check_processor_function(function, processor.owner);
	INSERT INTO imgpipe.processor_versions (processor_id, version, outputs, function)
		VALUES (processor.processor_id, processor.version + 1, outputs, function::text);
	UPDATE imgpipe.processors p SET version = processor.version + 1
		WHERE p.processor_id = processor.processor_id;
	PERFORM imgpipe.require_workers(format('processor "%s" waits for workers', name), or_wait => true);
	RETURN processor.version + 1;
END
$$;
COMMENT ON FUNCTION imgpipe.alter_processor(text, jsonb, regprocedure) IS
'Gives a processor new outputs or another function, as for create_processor(), and returns the new version. It holds for images that arrive from now on; tasks that wait keep the version that they were made for. process_images() brings earlier images to the new version; a rendition whose name is no longer among the outputs stays until it is purged.';

CREATE FUNCTION imgpipe.start_processor(name text) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	processor imgpipe.processors := imgpipe.own_processor(name);
BEGIN
	PERFORM imgpipe.check_processor_owner(processor.owner);
	UPDATE imgpipe.processors p SET enabled = true
		WHERE p.processor_id = processor.processor_id AND NOT p.enabled;
	PERFORM imgpipe.wake_controller();
	PERFORM imgpipe.require_workers(format('processor "%s" waits for workers', name), or_wait => true);
END
$$;
COMMENT ON FUNCTION imgpipe.start_processor(text) IS
'Lets a processor go on after stop_processor(): with the tasks that wait, and with images that arrive from now on.';

CREATE FUNCTION imgpipe.stop_processor(name text) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	processor imgpipe.processors := imgpipe.own_processor(name);
BEGIN
	UPDATE imgpipe.processors p SET enabled = false
		WHERE p.processor_id = processor.processor_id AND p.enabled;
END
$$;
COMMENT ON FUNCTION imgpipe.stop_processor(text) IS
'Stops a processor: no task of it is begun any more, those that wait stay, and images that arrive get none. After start_processor(), process_images() with the time of the stop catches up on these.';

CREATE FUNCTION imgpipe.drop_processor(name text) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	processor imgpipe.processors := imgpipe.own_processor(name);
BEGIN
	-- Waits for transactions that have just made tasks; the trigger then deletes these.
	DELETE FROM imgpipe.processors p WHERE p.processor_id = processor.processor_id;
END
$$;
COMMENT ON FUNCTION imgpipe.drop_processor(text) IS
'Drops a processor with its versions and its waiting tasks; work in progress is thrown away. Its renditions, results and dead letters stay until they are purged. Waits for transactions that have inserted images and not yet ended.';

CREATE FUNCTION imgpipe.process_images(name text, since timestamptz DEFAULT NULL) RETURNS bigint
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	processor imgpipe.processors := imgpipe.own_processor(name);
	n_tasks bigint;
BEGIN
	INSERT INTO imgpipe.tasks AS t (image_id, processor_id, version)
		SELECT i.image_id, processor.processor_id, processor.version
			FROM imgpipe.images i
			WHERE i.image_id >= imgpipe.fence() AND (since IS NULL OR i.received_at >= since)
		ON CONFLICT (image_id, processor_id) DO UPDATE
			SET version = EXCLUDED.version, attempts = 0, available_at = EXCLUDED.available_at, last_error = NULL
			WHERE t.version < EXCLUDED.version;
	GET DIAGNOSTICS n_tasks = ROW_COUNT;
	PERFORM imgpipe.wake_controller();
	PERFORM imgpipe.require_workers(format('processor "%s" waits for workers', name), or_wait => true);
	RETURN n_tasks;
END
$$;
COMMENT ON FUNCTION imgpipe.process_images(text, timestamptz) IS
'Has a processor work, in its present version, on images that are already there: all that the current role sees, or those received since a time. Returns how many tasks that made; an image that waits for this version already is not counted. New renditions and results take the place of earlier ones.';


/*
 * The queue, as workers use it.  Only the owner calls these.  Index scans
 * whatever the statistics say: they are of a moment, and a queue is empty at
 * one and has a million rows at the next.
 */

CREATE FUNCTION imgpipe.due_tasks(OUT owner regrole, OUT due bigint) RETURNS SETOF record
	LANGUAGE plpgsql STABLE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
	SET enable_seqscan = off
	SET enable_bitmapscan = off
	SET jit = off
AS $$
BEGIN
	RETURN QUERY
		SELECT p.owner, sum(d.due)::bigint
			FROM imgpipe.processors p
				CROSS JOIN LATERAL (SELECT count(*) AS due FROM (SELECT FROM imgpipe.tasks t
					WHERE t.processor_id = p.processor_id AND t.available_at <= now() LIMIT 500) t) d
			WHERE p.enabled
			GROUP BY p.owner;
END
$$;
COMMENT ON FUNCTION imgpipe.due_tasks() IS
'How many tasks are due for each owner of processors that are on, counted up to 500 a processor: the controller starts workers accordingly.';
REVOKE EXECUTE ON FUNCTION imgpipe.due_tasks() FROM PUBLIC;

CREATE FUNCTION imgpipe.bury_task(task_id bigint, error_code text, reason text, detail text) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	buried uuid;
BEGIN
	INSERT INTO imgpipe.dead_letters (image_id, stage, source, source_partition, source_offset, source_key,
			source_timestamp, headers, processor, version, attempts, sqlstate, reason, detail)
		SELECT t.image_id, 'processing', i.source, i.source_partition, i.source_offset, i.source_key,
			i.source_timestamp, i.headers, p.name, t.version, t.attempts, error_code, bury_task.reason, bury_task.detail
		FROM imgpipe.tasks t
			JOIN imgpipe.processors p ON p.processor_id = t.processor_id
			JOIN imgpipe.images i ON i.image_id = t.image_id
		WHERE t.task_id = bury_task.task_id AND t.image_id >= imgpipe.fence();
	DELETE FROM imgpipe.tasks t WHERE t.task_id = bury_task.task_id RETURNING t.image_id INTO buried;
	PERFORM imgpipe.report_buried(buried);
END
$$;
COMMENT ON FUNCTION imgpipe.bury_task(bigint, text, text, text) IS
'Moves a task to the dead letters; where its image is gone, the task just goes too.';
REVOKE EXECUTE ON FUNCTION imgpipe.bury_task(bigint, text, text, text) FROM PUBLIC;

CREATE FUNCTION imgpipe.claim_tasks(owner regrole, max_images integer, lease interval)
	RETURNS TABLE (task_id bigint, image_id uuid, processor text, version integer, attempts integer,
		output_names text[], pipelines text[], function text)
	LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
	SET enable_seqscan = off
	SET enable_bitmapscan = off
	SET jit = off
AS $$
#variable_conflict use_column
DECLARE
	candidate integer;
	exhausted record;
	claimed bigint[];
	siblings bigint[];
	images uuid[];
BEGIN
	-- The processor that has waited longest says which images; all of these may be locked by other workers.
	FOR candidate IN
		SELECT p.processor_id
			FROM imgpipe.processors p
				CROSS JOIN LATERAL (SELECT t.available_at, t.task_id FROM imgpipe.tasks t
					WHERE t.processor_id = p.processor_id AND t.available_at <= now()
					ORDER BY t.available_at, t.task_id LIMIT 1) oldest
			WHERE p.owner = claim_tasks.owner AND p.enabled
			ORDER BY oldest.available_at, oldest.task_id
	LOOP
		SELECT array_agg(due.task_id), array_agg(due.image_id) INTO claimed, images
			FROM (SELECT t.task_id, t.image_id FROM imgpipe.tasks t
				WHERE t.processor_id = candidate AND t.available_at <= now()
				ORDER BY t.available_at, t.task_id LIMIT max_images
				FOR UPDATE SKIP LOCKED) due;
		EXIT WHEN claimed IS NOT NULL;
	END LOOP;
	IF claimed IS NULL THEN
		RETURN;
	END IF;

	-- With them all else that is to be done to these images, so that each is read and decoded once.
	SELECT array_agg(due.task_id) INTO siblings
		FROM (SELECT t.task_id FROM imgpipe.tasks t JOIN imgpipe.processors p ON p.processor_id = t.processor_id
			WHERE t.image_id = ANY (images) AND t.processor_id <> candidate AND t.available_at <= now()
				AND p.owner = claim_tasks.owner AND p.enabled
			FOR UPDATE OF t SKIP LOCKED) due;
	claimed := claimed || siblings;

	-- Nobody has told how the last attempt of these ended: their worker died with it.
	FOR exhausted IN
		SELECT t.task_id, t.attempts FROM imgpipe.tasks t JOIN imgpipe.processors p ON p.processor_id = t.processor_id
			WHERE t.task_id = ANY (claimed) AND t.attempts >= p.max_attempts
	LOOP
		PERFORM imgpipe.bury_task(exhausted.task_id, '57P02', 'the worker ended before the task did',
			format('This was attempt %s. Either the worker was killed, or the task ends it.', exhausted.attempts));
	END LOOP;

	RETURN QUERY
		WITH leased AS (
			UPDATE imgpipe.tasks t
				SET attempts = t.attempts + 1, available_at = now() + lease, last_error = NULL
				WHERE t.task_id = ANY (claimed)
				RETURNING t.*)
		SELECT l.task_id, l.image_id, p.name, l.version, l.attempts,
				(SELECT array_agg(e.key ORDER BY e.key COLLATE "C") FROM jsonb_each_text(v.outputs) e),
				(SELECT array_agg(e.value ORDER BY e.key COLLATE "C") FROM jsonb_each_text(v.outputs) e),
				v.function
			FROM leased l
				JOIN imgpipe.processors p ON p.processor_id = l.processor_id
				JOIN imgpipe.processor_versions v ON v.processor_id = l.processor_id AND v.version = l.version
			ORDER BY min(l.task_id) OVER (PARTITION BY l.image_id), l.task_id;
END
$$;
COMMENT ON FUNCTION imgpipe.claim_tasks(regrole, integer, interval) IS
'Claims the tasks that are due for up to max_images images and processors of that owner, until now + lease, and returns them, those of one image together. Skips what others are claiming. A task that is due although its last attempt was never reported becomes a dead letter instead.';
REVOKE EXECUTE ON FUNCTION imgpipe.claim_tasks(regrole, integer, interval) FROM PUBLIC;

CREATE FUNCTION imgpipe.extend_task(task_id bigint, attempts integer, version integer, lease interval) RETURNS boolean
	LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	UPDATE imgpipe.tasks t SET available_at = now() + lease
		WHERE t.task_id = extend_task.task_id AND t.attempts = extend_task.attempts AND t.version = extend_task.version;
	RETURN FOUND;
END
$$;
COMMENT ON FUNCTION imgpipe.extend_task(bigint, integer, integer, interval) IS
'Extends the lease of a claimed task to now + lease. False where the claim is no longer good.';
REVOKE EXECUTE ON FUNCTION imgpipe.extend_task(bigint, integer, integer, interval) FROM PUBLIC;

CREATE FUNCTION imgpipe.finish_task(task_id bigint, attempts integer, version integer) RETURNS boolean
	LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	DELETE FROM imgpipe.tasks t
		WHERE t.task_id = finish_task.task_id AND t.attempts = finish_task.attempts AND t.version = finish_task.version;
	RETURN FOUND;
END
$$;
COMMENT ON FUNCTION imgpipe.finish_task(bigint, integer, integer) IS
'Takes a finished task off the queue. False where the claim is no longer good: then nothing may be written.';
REVOKE EXECUTE ON FUNCTION imgpipe.finish_task(bigint, integer, integer) FROM PUBLIC;

CREATE FUNCTION imgpipe.fail_task(task_id bigint, attempts integer, version integer,
	error_code text, reason text, detail text, final boolean) RETURNS boolean
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	max_attempts integer;
BEGIN
	SELECT p.max_attempts INTO max_attempts
		FROM imgpipe.tasks t JOIN imgpipe.processors p ON p.processor_id = t.processor_id
		WHERE t.task_id = fail_task.task_id AND t.attempts = fail_task.attempts AND t.version = fail_task.version
		FOR UPDATE OF t;
	IF NOT FOUND THEN
		RETURN NULL;
	END IF;
	IF final OR attempts >= max_attempts THEN
		PERFORM imgpipe.bury_task(task_id, error_code, reason, detail);
		RETURN true;
	END IF;
	-- 2, 4, 8, ... seconds up to 10 minutes, a quarter more or less so that failures do not come back together.
	UPDATE imgpipe.tasks t
		SET available_at = clock_timestamp() + least(2 ^ fail_task.attempts, 600) * (0.75 + random() / 2) * interval '1 second',
			last_error = format('%s: %s', error_code, reason)
		WHERE t.task_id = fail_task.task_id;
	RETURN false;
END
$$;
COMMENT ON FUNCTION imgpipe.fail_task(bigint, integer, integer, text, text, text, boolean) IS
'A claimed task has failed: true where it is a dead letter now (it was final or the last attempt), false where it will be tried again, NULL where the claim is no longer good.';
REVOKE EXECUTE ON FUNCTION imgpipe.fail_task(bigint, integer, integer, text, text, text, boolean) FROM PUBLIC;

CREATE FUNCTION imgpipe.release_task(task_id bigint, attempts integer, version integer, delay interval) RETURNS boolean
	LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	UPDATE imgpipe.tasks t SET attempts = t.attempts - 1, available_at = now() + delay
		WHERE t.task_id = release_task.task_id AND t.attempts = release_task.attempts AND t.version = release_task.version;
	RETURN FOUND;
END
$$;
COMMENT ON FUNCTION imgpipe.release_task(bigint, integer, integer, interval) IS
'Gives a claimed task back, to be claimed after the delay, as if it had not been claimed. False where the claim is no longer good.';
REVOKE EXECUTE ON FUNCTION imgpipe.release_task(bigint, integer, integer, interval) FROM PUBLIC;

