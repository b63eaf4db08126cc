
/*
 * The purge of what is past its deadline; see src/retention/.
 *
 * What is overdue is a set: the partitions of one span of deadlines, one of
 * each table.  Its steps are these, each in a transaction of its own:
 *
 *	begin_purge		the set is written down in imgpipe.purges
 *	seal_purge		the daily volume of its images is computed and sealed
 *	(detach)		DETACH PARTITION ... CONCURRENTLY, by the purge worker
 *	finish_purge	count, copy what is held, drop, enter into the ledger
 *
 * After any crash the next purge goes on where the last one was.  Nobody but
 * the purge can reach a table between its detachment and its end: it is in a
 * schema without USAGE.
 */

CREATE TABLE imgpipe.purges (
	deadline_from timestamptz NOT NULL,
	deadline_to timestamptz NOT NULL,
	partitions jsonb NOT NULL,
	volume jsonb,
	entered boolean NOT NULL DEFAULT false,
	attempts integer NOT NULL DEFAULT 0,
	retry_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	sqlstate text,
	last_error text,
	last_detail text,
	begun_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	PRIMARY KEY (deadline_to, deadline_from)
);
COMMENT ON TABLE imgpipe.purges IS
'Purges that have begun and not ended. See imgpipe.retention_report().';
COMMENT ON COLUMN imgpipe.purges.partitions IS 'Name of each table, in schema imgpipe, and of its partition, in schema imgpipe_partitions.';
COMMENT ON COLUMN imgpipe.purges.volume IS 'Sealed: what the set adds to the daily volume. NULL: not sealed yet.';
COMMENT ON COLUMN imgpipe.purges.entered IS 'The data is gone and in the ledger; left are empty tables that could not be dropped.';

CREATE TABLE imgpipe.sealed_volume (
	day date NOT NULL,
	source text NOT NULL,
	format text NOT NULL,
	images bigint NOT NULL,
	bytes bigint NOT NULL,
	pixels bigint NOT NULL,
	first_received_at timestamptz NOT NULL,
	last_received_at timestamptz NOT NULL,
	sealed_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	PRIMARY KEY (day, source, format)
);
COMMENT ON TABLE imgpipe.sealed_volume IS
'What was purged of each day, source and format: each image is added when it is dropped, once, and nothing is ever computed anew from what is left. See imgpipe.sealed_daily_volume.';

SELECT pg_catalog.pg_extension_config_dump('imgpipe.purges', '');
SELECT pg_catalog.pg_extension_config_dump('imgpipe.sealed_volume', '');

-- With the owner's rights: the fence hides the images that it counts.
CREATE VIEW imgpipe.sealed_daily_volume AS
	SELECT v.day, v.source, v.format,
		pg_catalog.sum(v.images)::bigint AS images,
		pg_catalog.sum(v.bytes)::bigint AS bytes,
		pg_catalog.sum(v.pixels)::bigint AS pixels,
		pg_catalog.min(v.first_received_at) AS first_received_at,
		pg_catalog.max(v.last_received_at) AS last_received_at
	FROM (
		SELECT s.day, s.source, s.format, s.images, s.bytes, s.pixels, s.first_received_at, s.last_received_at
			FROM imgpipe.sealed_volume s
		UNION ALL
		SELECT g.day, g.source, g.format, g.images, g.bytes, g.pixels, g.first_received_at, g.last_received_at
			FROM imgpipe.purges p
				CROSS JOIN LATERAL pg_catalog.jsonb_to_recordset(p.volume) AS g (day date, source text, format text, images bigint,
					bytes bigint, pixels bigint, first_received_at timestamptz, last_received_at timestamptz)
			WHERE NOT p.entered
		UNION ALL
		SELECT (i.received_at AT TIME ZONE 'UTC')::pg_catalog.date, i.source, i.format, pg_catalog.count(*), pg_catalog.sum(i.bytes),
				pg_catalog.sum(i.width::bigint OPERATOR(pg_catalog.*) i.height), pg_catalog.min(i.received_at), pg_catalog.max(i.received_at)
			FROM imgpipe.images i
			WHERE i.image_id OPERATOR(pg_catalog.<) imgpipe.fence()
				AND NOT EXISTS (SELECT FROM imgpipe.purges p
					WHERE p.volume IS NOT NULL AND NOT p.entered
						AND i.image_id OPERATOR(pg_catalog.>=) imgpipe.first_image_id(p.deadline_from)
						AND i.image_id OPERATOR(pg_catalog.<) imgpipe.first_image_id(p.deadline_to))
			GROUP BY 1, 2, 3) v
	GROUP BY v.day, v.source, v.format;
COMMENT ON VIEW imgpipe.sealed_daily_volume IS
'Images past their deadline or erased, by day, source and format: what analysts keep of them. An image is counted here from the very moment at which the fence hides it, so that imgpipe.daily_volume, which adds those before their deadline, always has all that ever arrived.';
COMMENT ON COLUMN imgpipe.sealed_daily_volume.day IS 'Of received_at, in UTC.';
COMMENT ON COLUMN imgpipe.sealed_daily_volume.source IS 'Under other, too: of a span of deadlines, or an erasure, with more than 10,000 groups of day, source and format, the smallest, as of the day that most of these have.';

/*
 * Whoever inserts images may write what they like into source and received_at,
 * and jsonb has an end, at which nothing could be purged any more.  So there is
 * a row each for the 10,000 largest groups, those of sources that there are
 * first, and all others are one of source "other" for each format, of the day that
 * most of them have.
 */
CREATE FUNCTION imgpipe.volume_query(images text) RETURNS text
	LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
	-- date_bin(): AT TIME ZONE for each row takes as long as all the rest.
	SELECT format('SELECT coalesce(jsonb_agg(to_jsonb(g) || jsonb_build_object(''day'', (g.day AT TIME ZONE ''UTC'')::date)), ''[]'') FROM (
			SELECT coalesce(k.day, mode() WITHIN GROUP (ORDER BY k.own_day)) AS day, coalesce(k.source, ''other'') AS source, k.format, sum(k.images)::bigint AS images,
					sum(k.bytes)::bigint AS bytes, sum(k.pixels)::bigint AS pixels, min(k.first_received_at) AS first_received_at, max(k.last_received_at) AS last_received_at
				FROM (
					SELECT CASE WHEN o.place <= 10000 THEN o.day END AS day, o.day AS own_day, CASE WHEN o.place <= 10000 THEN o.source END AS source,
							o.format, o.images, o.bytes, o.pixels, o.first_received_at, o.last_received_at
						FROM (
							SELECT v.*, row_number() OVER (ORDER BY v.source = ''sql'' OR v.source IN (SELECT s.name FROM imgpipe.sources s) DESC, v.images DESC, v.day, v.source, v.format) AS place
								FROM (
									SELECT date_bin(''1 day'', i.received_at, ''2000-01-01 00:00:00+00'') AS day, i.source, i.format, count(*) AS images, sum(i.bytes) AS bytes,
											sum(i.width::bigint * i.height) AS pixels, min(i.received_at) AS first_received_at, max(i.received_at) AS last_received_at
										FROM %s i GROUP BY 1, 2, 3) v) o) k
				GROUP BY k.day, k.source, k.format) g', images)
$$;
COMMENT ON FUNCTION imgpipe.volume_query(text) IS
'A query for the daily volume of the images in a table like imgpipe.images, or in what a WITH names: an array of rows like those of imgpipe.sealed_volume.';
REVOKE EXECUTE ON FUNCTION imgpipe.volume_query(text) FROM PUBLIC;

CREATE FUNCTION imgpipe.volume_of(images text) RETURNS jsonb
	LANGUAGE plpgsql STABLE STRICT PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
	SET jit = off
AS $$
DECLARE
	volume jsonb;
BEGIN
	EXECUTE imgpipe.volume_query(images) INTO volume;
	RETURN volume;
END
$$;
COMMENT ON FUNCTION imgpipe.volume_of(text) IS
'The daily volume of the images in a table like imgpipe.images; see volume_query().';
REVOKE EXECUTE ON FUNCTION imgpipe.volume_of(text) FROM PUBLIC;

CREATE FUNCTION imgpipe.add_sealed_volume(volume jsonb) RETURNS void
	LANGUAGE sql VOLATILE STRICT PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
	INSERT INTO imgpipe.sealed_volume AS s (day, source, format, images, bytes, pixels, first_received_at, last_received_at)
		-- A source can be called other.
		SELECT g.day, g.source, g.format, sum(g.images), sum(g.bytes), sum(g.pixels), min(g.first_received_at), max(g.last_received_at)
			FROM jsonb_to_recordset(volume) AS g (day date, source text, format text, images bigint,
				bytes bigint, pixels bigint, first_received_at timestamptz, last_received_at timestamptz)
			GROUP BY g.day, g.source, g.format
		ON CONFLICT (day, source, format) DO UPDATE
			SET images = s.images + EXCLUDED.images, bytes = s.bytes + EXCLUDED.bytes, pixels = s.pixels + EXCLUDED.pixels,
				first_received_at = least(s.first_received_at, EXCLUDED.first_received_at),
				last_received_at = greatest(s.last_received_at, EXCLUDED.last_received_at),
				sealed_at = clock_timestamp()
$$;
COMMENT ON FUNCTION imgpipe.add_sealed_volume(jsonb) IS
'Adds what volume_of() returned to the sealed daily volume.';
REVOKE EXECUTE ON FUNCTION imgpipe.add_sealed_volume(jsonb) FROM PUBLIC;

CREATE FUNCTION imgpipe.sum_of(groups jsonb, key text) RETURNS bigint
	LANGUAGE sql IMMUTABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT coalesce(sum((g ->> key)::bigint), 0)::bigint FROM jsonb_array_elements(groups) g
$$;
COMMENT ON FUNCTION imgpipe.sum_of(jsonb, text) IS
'Sum of a key over an array of objects.';

CREATE FUNCTION imgpipe.by_known_source(groups jsonb) RETURNS jsonb
	LANGUAGE sql STABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT coalesce(jsonb_object_agg(k.source, jsonb_build_object('images', k.images, 'bytes', k.bytes)), '{}') FROM (
		SELECT CASE WHEN g.source = 'sql' OR EXISTS (SELECT FROM imgpipe.sources s WHERE s.name = g.source) THEN g.source ELSE 'other' END,
				sum(g.images), sum(g.bytes)
			FROM jsonb_to_recordset(groups) AS g (source text, images bigint, bytes bigint)
			GROUP BY 1) k (source, images, bytes)
$$;
COMMENT ON FUNCTION imgpipe.by_known_source(jsonb) IS
'Images and bytes of groups by source, for the ledger. Whoever inserts images may write anything into their column source; what is no name of a source is other.';
REVOKE EXECUTE ON FUNCTION imgpipe.by_known_source(jsonb) FROM PUBLIC;


/* The steps.  One purge at a time: the caller holds the lock of that key. */

CREATE FUNCTION imgpipe.purge_lock() RETURNS bigint
	LANGUAGE sql STABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT 'imgpipe.purges'::regclass::oid::bigint
$$;
COMMENT ON FUNCTION imgpipe.purge_lock() IS
'Key of the advisory lock that who purges holds.';

CREATE FUNCTION imgpipe.begin_purge(OUT deadline_from timestamptz, OUT deadline_to timestamptz) RETURNS record
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
	SET jit = off
AS $$
#variable_conflict use_column
BEGIN
	INSERT INTO imgpipe.purges (deadline_from, deadline_to, partitions)
		SELECT o.deadline_from, o.deadline_to, jsonb_object_agg(p.relname, c.relname)
			FROM imgpipe.partitions o
				JOIN pg_class p ON p.oid = o.parent
				JOIN pg_class c ON c.oid = o.partition
			WHERE o.deadline_to <= clock_timestamp()
			GROUP BY o.deadline_from, o.deadline_to
		ON CONFLICT (deadline_to, deadline_from) DO UPDATE
			SET partitions = purges.partitions || EXCLUDED.partitions
			WHERE NOT purges.partitions @> EXCLUDED.partitions;
	SELECT p.deadline_from, p.deadline_to INTO deadline_from, deadline_to
		FROM imgpipe.purges p
		WHERE p.retry_at <= clock_timestamp()
		ORDER BY p.deadline_to, p.deadline_from
		LIMIT 1;
END
$$;
COMMENT ON FUNCTION imgpipe.begin_purge() IS
'Writes down all sets that are overdue by the bounds in the catalog, and returns the first one that is to be purged now, or NULL.';
REVOKE EXECUTE ON FUNCTION imgpipe.begin_purge() FROM PUBLIC;

CREATE FUNCTION imgpipe.purge_table(partitions jsonb, parent text) RETURNS text
	LANGUAGE sql STABLE STRICT PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT t.name FROM (SELECT format('imgpipe_partitions.%I', partitions ->> parent) AS name) t
		WHERE partitions ? parent AND to_regclass(t.name) IS NOT NULL
$$;
COMMENT ON FUNCTION imgpipe.purge_table(jsonb, text) IS
'The qualified name of a table''s partition in a set, or NULL where there is none.';
REVOKE EXECUTE ON FUNCTION imgpipe.purge_table(jsonb, text) FROM PUBLIC;

CREATE FUNCTION imgpipe.seal_purge(deadline_from timestamptz, deadline_to timestamptz) RETURNS void
	LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
	UPDATE imgpipe.purges p SET volume = coalesce(imgpipe.volume_of(imgpipe.purge_table(p.partitions, 'images')), '[]')
		WHERE p.deadline_from = seal_purge.deadline_from AND p.deadline_to = seal_purge.deadline_to
			AND p.volume IS NULL;
END
$$;
COMMENT ON FUNCTION imgpipe.seal_purge(timestamptz, timestamptz) IS
'Computes the daily volume of a set''s images, which from now on stands for them.';
REVOKE EXECUTE ON FUNCTION imgpipe.seal_purge(timestamptz, timestamptz) FROM PUBLIC;

CREATE FUNCTION imgpipe.detach_commands(deadline_from timestamptz, deadline_to timestamptz, in_transaction boolean) RETURNS text[]
	LANGUAGE sql STABLE STRICT PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT array_agg(format('ALTER TABLE %s DETACH PARTITION %s %s', i.inhparent::regclass, i.inhrelid::regclass,
			CASE WHEN i.inhdetachpending THEN 'FINALIZE' WHEN NOT in_transaction THEN 'CONCURRENTLY' END) ORDER BY i.inhdetachpending DESC, i.inhparent::regclass::text)
		FROM pg_inherits i
		WHERE i.inhrelid IN (
			SELECT to_regclass(imgpipe.purge_table(p.partitions, t.key)) FROM imgpipe.purges p CROSS JOIN LATERAL jsonb_object_keys(p.partitions) t (key)
				WHERE p.deadline_from = detach_commands.deadline_from AND p.deadline_to = detach_commands.deadline_to)
			-- A table can have one half detached partition: what is left of another set comes first.
			OR (i.inhdetachpending AND EXISTS (
				SELECT FROM imgpipe.purges p CROSS JOIN LATERAL jsonb_object_keys(p.partitions) t (key)
					WHERE i.inhrelid = to_regclass(imgpipe.purge_table(p.partitions, t.key))))
$$;
COMMENT ON FUNCTION imgpipe.detach_commands(timestamptz, timestamptz, boolean) IS
'The statements that bring the partitions of a set away from their tables, in their order; NULL where they are. Outside of a transaction they detach concurrently.';
REVOKE EXECUTE ON FUNCTION imgpipe.detach_commands(timestamptz, timestamptz, boolean) FROM PUBLIC;

CREATE FUNCTION imgpipe.drop_purged(name text) RETURNS text
	LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	dependents text;
BEGIN
	EXECUTE format('DROP TABLE %s', name);
	RETURN NULL;
EXCEPTION WHEN dependent_objects_still_exist THEN
	-- What depends on the table keeps it, not what is in it.
	GET STACKED DIAGNOSTICS dependents = PG_EXCEPTION_DETAIL;
	EXECUTE format('TRUNCATE TABLE %s', name);
	RETURN dependents;
END
$$;
COMMENT ON FUNCTION imgpipe.drop_purged(text) IS
'Drops a table, or where something depends on it empties it and returns what does.';
REVOKE EXECUTE ON FUNCTION imgpipe.drop_purged(text) FROM PUBLIC;

CREATE FUNCTION imgpipe.finish_purge(deadline_from timestamptz, deadline_to timestamptz) RETURNS bigint
	LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
	purge imgpipe.purges;
	tables CONSTANT text[] := ARRAY(SELECT t.name FROM imgpipe.partitioned_tables t ORDER BY t.name);
	parent text;
	name text;
	rows bigint;
	row_counts jsonb := '{}';
	disk_bytes bigint := 0;
	held bigint := 0;
	left_over jsonb := '{}';
	dependents text;
	error_detail text;
	entry bigint;
BEGIN
	SELECT * INTO STRICT purge FROM imgpipe.purges p
		WHERE p.deadline_from = finish_purge.deadline_from AND p.deadline_to = finish_purge.deadline_to
		FOR UPDATE;

	IF NOT purge.entered THEN
		FOREACH parent IN ARRAY tables LOOP
			name := imgpipe.purge_table(purge.partitions, parent);
			CONTINUE WHEN name IS NULL;
			-- Where it is still attached, nobody shall add to it any more.
			EXECUTE format('LOCK TABLE %s IN SHARE MODE', name);
			EXECUTE format('SELECT count(*) FROM %s', name) INTO rows;
			row_counts := row_counts || jsonb_build_object(parent, rows);
			disk_bytes := disk_bytes + pg_total_relation_size(name);
		END LOOP;
		name := imgpipe.purge_table(purge.partitions, 'images');
		IF name IS NOT NULL THEN
			-- The owner can add images past their deadline; what is purged is what was sealed.
			IF imgpipe.sum_of(purge.volume, 'images') IS DISTINCT FROM (row_counts -> 'images')::bigint THEN
				purge.volume := imgpipe.volume_of(name);
			END IF;
			held := imgpipe.copy_held_images(name, imgpipe.purge_table(purge.partitions, 'results'));
			IF held > 0 THEN
				row_counts := row_counts || jsonb_build_object('held', held);
			END IF;
			-- One that a worker has just now ends by itself when it finds no image.
			DELETE FROM imgpipe.tasks d WHERE d.task_id IN (SELECT t.task_id FROM imgpipe.tasks t
				WHERE t.image_id < imgpipe.first_image_id(purge.deadline_to) FOR UPDATE SKIP LOCKED);
			GET DIAGNOSTICS rows = ROW_COUNT;
			row_counts := row_counts || jsonb_build_object('tasks', rows);
		END IF;
		PERFORM imgpipe.fault_point('counted');
	END IF;

	FOREACH parent IN ARRAY tables LOOP
		name := imgpipe.purge_table(purge.partitions, parent);
		CONTINUE WHEN name IS NULL;
		dependents := imgpipe.drop_purged(name);
		IF dependents IS NOT NULL THEN
			left_over := left_over || jsonb_build_object(parent, purge.partitions ->> parent);
			error_detail := concat_ws(E'\n', error_detail, dependents);
		END IF;
		PERFORM imgpipe.fault_point('dropped');
	END LOOP;

	IF NOT purge.entered THEN
		PERFORM imgpipe.add_sealed_volume(purge.volume);
		entry := imgpipe.enter_purge('retention', purge.deadline_from, purge.deadline_to, row_counts,
			imgpipe.sum_of(purge.volume, 'bytes'), disk_bytes, imgpipe.by_known_source(purge.volume));
		PERFORM imgpipe.fault_point('entered');
	END IF;

	IF left_over = '{}' THEN
		DELETE FROM imgpipe.purges p WHERE p.deadline_from = purge.deadline_from AND p.deadline_to = purge.deadline_to;
	ELSE
		UPDATE imgpipe.purges p SET entered = true, partitions = left_over, volume = NULL
			WHERE p.deadline_from = purge.deadline_from AND p.deadline_to = purge.deadline_to;
		PERFORM imgpipe.fail_purge(purge.deadline_from, purge.deadline_to, '2BP01',
			'what was in it is gone, but the empty table cannot be dropped', error_detail);
	END IF;
	RETURN entry;
END
$$;
COMMENT ON FUNCTION imgpipe.finish_purge(timestamptz, timestamptz) IS
'Ends the purge of a set, all in one transaction: counts it, copies what is held, drops its partitions, adds it to the sealed volume and the ledger. Returns the ledger''s entry; NULL where only empty tables were left to be dropped.';
REVOKE EXECUTE ON FUNCTION imgpipe.finish_purge(timestamptz, timestamptz) FROM PUBLIC;

CREATE FUNCTION imgpipe.purge_back_off(attempts integer) RETURNS interval
	LANGUAGE sql VOLATILE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT least(2 ^ least(attempts, 20), 600) * (0.75 + random() / 2) * interval '1 second'
$$;
COMMENT ON FUNCTION imgpipe.purge_back_off(integer) IS
'How long what has failed waits, after so many failures before: 1, 2, 4, ... seconds up to 10 minutes, a quarter more or less.';
REVOKE EXECUTE ON FUNCTION imgpipe.purge_back_off(integer) FROM PUBLIC;

CREATE FUNCTION imgpipe.fail_purge(deadline_from timestamptz, deadline_to timestamptz, error_code text, reason text, detail text) RETURNS void
	LANGUAGE sql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
	UPDATE imgpipe.purges p
		SET attempts = p.attempts + 1, sqlstate = error_code, last_error = reason, last_detail = detail,
			retry_at = clock_timestamp() + imgpipe.purge_back_off(p.attempts)
		WHERE p.deadline_from = fail_purge.deadline_from AND p.deadline_to = fail_purge.deadline_to
$$;
COMMENT ON FUNCTION imgpipe.fail_purge(timestamptz, timestamptz, text, text, text) IS
'Notes why the purge of a set did not succeed, and when it is tried again.';
REVOKE EXECUTE ON FUNCTION imgpipe.fail_purge(timestamptz, timestamptz, text, text, text) FROM PUBLIC;

CREATE FUNCTION imgpipe.next_purge() RETURNS timestamptz
	LANGUAGE sql STABLE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
	SET jit = off
AS $$
	SELECT least(
		(SELECT min(p.retry_at) FROM imgpipe.purges p),
		(SELECT min(a.deadline_to) FROM imgpipe.partitions a WHERE NOT EXISTS (SELECT FROM imgpipe.purges p
			WHERE p.deadline_from = a.deadline_from AND p.deadline_to = a.deadline_to)),
		(SELECT min(greatest(h.until, h.retry_at)) FROM imgpipe.holds h WHERE h.until IS NOT NULL),
		(SELECT min(c.due) FROM imgpipe.cooling_partitions() c))
$$;
COMMENT ON FUNCTION imgpipe.next_purge() IS
'When the purge has something to do next.';
REVOKE EXECUTE ON FUNCTION imgpipe.next_purge() FROM PUBLIC;

CREATE FUNCTION imgpipe.purge_next_partition() RETURNS boolean
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp
	SET session_replication_role = replica
	SET lock_timeout = '200ms'
	SET deadlock_timeout = '100ms'
AS $$
DECLARE
	due record;
	command text;
	error_code text;
	error_message text;
	error_detail text;
BEGIN
	PERFORM pg_advisory_xact_lock(imgpipe.purge_lock());
	due := imgpipe.begin_purge();
	IF due.deadline_to IS NULL THEN
		RETURN imgpipe.end_next_hold();
	END IF;
	BEGIN
		PERFORM imgpipe.seal_purge(due.deadline_from, due.deadline_to);
		FOR command IN SELECT unnest(imgpipe.detach_commands(due.deadline_from, due.deadline_to, in_transaction => true)) LOOP
			EXECUTE command;
		END LOOP;
		PERFORM imgpipe.finish_purge(due.deadline_from, due.deadline_to);
	EXCEPTION
		WHEN lock_not_available THEN
			RAISE;
		WHEN OTHERS THEN
			GET STACKED DIAGNOSTICS error_code = RETURNED_SQLSTATE, error_message = MESSAGE_TEXT, error_detail = PG_EXCEPTION_DETAIL;
			PERFORM imgpipe.fail_purge(due.deadline_from, due.deadline_to, error_code, error_message, nullif(error_detail, ''));
			RAISE WARNING USING ERRCODE = error_code,
				MESSAGE = format('purge of deadlines from %s to %s failed: %s', due.deadline_from, due.deadline_to, error_message),
				DETAIL = coalesce(nullif(error_detail, ''), format('SQLSTATE %s.', error_code)),
				HINT = 'Others go on. SELECT * FROM imgpipe.retention_report(); says what to do, and when this one is tried again.';
	END;
	RETURN true;
END
$$;
COMMENT ON FUNCTION imgpipe.purge_next_partition() IS
'Purges the span of deadlines that is longest overdue: drops its partitions, enters that into purge_ledger, and returns true; where none is overdue it ends a legal hold whose time has come; false where there is nothing to do. One span a call, so that a caller can commit in between; waits at most 200 ms for each lock and raises 55P03 then. What else keeps a span from being purged is a warning, so that the next call goes on with another. The workers do this by themselves, and keep nobody waiting for it; call it where imgpipe is not in shared_preload_libraries. Only the owner may, unless granted.';
REVOKE EXECUTE ON FUNCTION imgpipe.purge_next_partition() FROM PUBLIC;


/* Cheaper storage before that, where imgpipe.cold_tablespace names one. */

CREATE FUNCTION imgpipe.cooling_partitions() RETURNS TABLE (partition regclass, due timestamptz)
	LANGUAGE plpgsql STABLE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	cold oid;
BEGIN
	IF imgpipe.setting('imgpipe.cold_tablespace') = '' THEN
		RETURN;
	END IF;
	SELECT t.oid INTO cold FROM pg_tablespace t WHERE t.spcname = imgpipe.setting('imgpipe.cold_tablespace');
	IF NOT FOUND THEN
		RETURN;
	END IF;
	RETURN QUERY
		SELECT p.partition, p.deadline_to - imgpipe.setting('imgpipe.retention')::interval + imgpipe.setting('imgpipe.cold_after')::interval
			FROM imgpipe.partitions p JOIN pg_class c ON c.oid = p.partition
			WHERE NOT p.detaching AND p.deadline_to > now()
				AND c.reltablespace <> CASE cold WHEN (SELECT d.dattablespace FROM pg_database d WHERE d.datname = current_database())
					THEN 0::oid ELSE cold END;
END
$$;
COMMENT ON FUNCTION imgpipe.cooling_partitions() IS
'Partitions that are not in imgpipe.cold_tablespace yet, and when their images are imgpipe.cold_after old; none where that setting is empty.';
REVOKE EXECUTE ON FUNCTION imgpipe.cooling_partitions() FROM PUBLIC;

CREATE FUNCTION imgpipe.cool_next_partition() RETURNS boolean
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp
	SET lock_timeout = '200ms'
AS $$
DECLARE
	cooled regclass;
	index regclass;
BEGIN
	SELECT c.partition INTO cooled FROM imgpipe.cooling_partitions() c WHERE c.due <= clock_timestamp() ORDER BY c.due LIMIT 1;
	IF NOT FOUND THEN
		RETURN false;
	END IF;
	EXECUTE format('ALTER TABLE %s SET TABLESPACE %I', cooled, imgpipe.setting('imgpipe.cold_tablespace'));
	FOR index IN SELECT i.indexrelid FROM pg_index i WHERE i.indrelid = cooled LOOP
		EXECUTE format('ALTER INDEX %s SET TABLESPACE %I', index, imgpipe.setting('imgpipe.cold_tablespace'));
	END LOOP;
	RETURN true;
END
$$;
COMMENT ON FUNCTION imgpipe.cool_next_partition() IS
'Moves the partition that is longest due to imgpipe.cold_tablespace, with its index, and returns true; false where none is due. Readers of that partition wait while its bytes are copied. Waits at most 200 ms for the lock and raises 55P03 then. The workers do this by themselves. Only the owner may, unless granted.';
REVOKE EXECUTE ON FUNCTION imgpipe.cool_next_partition() FROM PUBLIC;

CREATE FUNCTION imgpipe.fault_point(name text) RETURNS void
	AS 'MODULE_PATHNAME', 'imgpipe_fault_point_reached'
	LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION imgpipe.fault_point(text) IS
'For tests: waits while imgpipe.fault_point is this name, so that the purge can be killed there.';
REVOKE EXECUTE ON FUNCTION imgpipe.fault_point(text) FROM PUBLIC;
