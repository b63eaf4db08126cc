
/*
 * A bounded range once more, on the side: a source with an end.  Its workers,
 * positions and dead letters are those of any source, and so it is exactly once
 * and goes on after whatever is killed; the source that it repeats is not touched.
 */

CREATE FUNCTION imgpipe.check_replay_target(target regclass, owner regrole) RETURNS text
	LANGUAGE plpgsql STABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	missing text;
BEGIN
	SELECT string_agg(c.name, ', ' ORDER BY c.position) INTO missing
		FROM unnest('{image_id,content,source,source_partition,source_offset,source_key,source_timestamp,headers,batch_id,uploaded_by}'::text[])
			WITH ORDINALITY c (name, position)
		WHERE NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = target AND a.attname = c.name AND NOT a.attisdropped
			AND (c.name <> 'content' OR a.atttypid = 'imgpipe.image'::regtype));
	IF missing IS NOT NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'undefined_column',
			MESSAGE = format('%s cannot take images', target),
			DETAIL = format('It has no column %s as imgpipe.images has.', missing),
			HINT = 'CREATE TABLE ... (LIKE imgpipe.images INCLUDING DEFAULTS INCLUDING GENERATED) makes one that can.';
	END IF;
	IF NOT has_table_privilege(owner::oid, target, 'INSERT') THEN
		RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege',
			MESSAGE = format('role %s may not insert into %s', owner, target),
			HINT = format('GRANT INSERT ON %s TO %s;', target, owner);
	END IF;
	RETURN (SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE c.oid = target AND c.oid <> 'imgpipe.images'::regclass);
END
$$;
COMMENT ON FUNCTION imgpipe.check_replay_target(regclass, regrole) IS
'The name of a table for replay_source(), NULL for imgpipe.images. Raises 42703 where it has not the columns, 42501 where that role may not insert.';

CREATE FUNCTION imgpipe.replay_source(name text, start_from text DEFAULT 'earliest', end_at text DEFAULT 'latest', partitions integer[] DEFAULT NULL,
	target regclass DEFAULT 'imgpipe.images', as_source text DEFAULT NULL, restore_expired boolean DEFAULT false,
	replay text DEFAULT NULL) RETURNS text
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
	source imgpipe.sources := imgpipe.own_source(name);
	target_name text := imgpipe.check_replay_target(target, source.owner);
BEGIN
	PERFORM imgpipe.require_workers(format('source "%s" cannot be replayed', name));
	start_from := imgpipe.check_start_from(start_from);
	end_at := imgpipe.check_start_from(end_at);
	replay := coalesce(replay, format('%s.replay-%s', left(name, 40), to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYYMMDD-HH24MISS')));
	as_source := coalesce(as_source, source.image_source, name);
	IF start_from = 'latest' OR end_at = 'earliest' OR partitions <@ '{}' OR 0 > ANY (partitions) OR array_position(partitions, NULL) > 0
		OR restore_expired IS NULL OR as_source !~ '^[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}$' OR replay !~ '^[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}$' THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
			MESSAGE = 'not a range that can be replayed',
			DETAIL = format('It is from %s to %s of partitions %s, as source "%s", under the name "%s".', start_from, end_at,
				coalesce(partitions::text, 'all'), as_source, replay),
			HINT = 'It begins at earliest, offsets by partition or a time, and ends before latest, offsets by partition or a time; names are like those of sources.';
	END IF;
	-- Who names offsets means these partitions.
	IF partitions IS NULL AND '{' = ANY (ARRAY[left(start_from, 1), left(end_at, 1)]) THEN
		SELECT array_agg(DISTINCT k.partition::integer) INTO partitions
			FROM unnest(ARRAY[start_from, end_at]) place CROSS JOIN LATERAL jsonb_object_keys(CASE WHEN place ~ '^\{' THEN place::jsonb ELSE '{}' END) k (partition);
	END IF;
	PERFORM imgpipe.check_source_owner(source.server, source.owner);
	BEGIN
		INSERT INTO imgpipe.sources AS s (name, server, topic, owner, retention, parallelism, start_from, batch_rows, batch_bytes, linger_ms, max_backlog,
				slice, slices, format, content_field, on_tombstone, chunk_timeout, end_at, only_partitions, restore_expired, image_source, target,
				cluster_id, enabled, started_in)
			VALUES (replay, source.server, source.topic, source.owner, source.retention, source.parallelism, start_from, source.batch_rows,
				source.batch_bytes, source.linger_ms, source.max_backlog, source.slice, source.slices, source.format, source.content_field,
				source.on_tombstone, source.chunk_timeout, end_at, partitions, restore_expired, as_source, target_name,
				source.cluster_id, true, imgpipe.database_identity());
	EXCEPTION WHEN unique_violation THEN
		RAISE EXCEPTION USING ERRCODE = 'duplicate_object',
			MESSAGE = format('source "%s" already exists', replay),
			HINT = format('Choose another name, or SELECT imgpipe.drop_source(%L); it is what became of an earlier one.', replay);
	END;
	PERFORM imgpipe.wake_controller();
	RETURN replay;
END
$$;
COMMENT ON FUNCTION imgpipe.replay_source(text, text, text, integer[], regclass, text, boolean, text) IS
'Ingests a range of a source''s topic once more, on the side: the source itself, its positions and its workers are not touched. Returns the name of the replay, a source of its own with an end, which begins at once and shows its progress in imgpipe.source_status (state finished at the end) and source_partitions; stop_source() and start_source() pause and resume it, drop_source() ends it for good or clears it away. Options are those of the source, without consumer_group, result_topic, dead_letter_topic and notify_channel. start_from: earliest, offsets by partition ({"0": 1500}) or a time; end_at: latest, offsets by partition (the first that is not in the range) or a time, at most the end of each partition when it begins. partitions: NULL for all, or those named with offsets. target: imgpipe.images or a table with its columns (LIKE imgpipe.images INCLUDING DEFAULTS INCLUDING GENERATED), written with the rights of the source''s owner. as_source: what the images have in column source; the source''s name unless told. They are new images with new ids and deadlines. Each message of the range becomes one image or one dead letter exactly once, whatever is killed: it goes on where it was. Messages whose Kafka timestamp and the source''s retention together are past are left out unless restore_expired is true, what was erased on request always. A tombstone deletes or expires what came before it, also images that are there already, and nothing in a target of its own. Raises 22023 for a range, 42710 for a name that is taken, 42703 and 42501 for a target, 55000 without shared_preload_libraries, 42704 where there is no such source, 42501 for a role that is not a member of its owner.';
