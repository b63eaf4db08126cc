
/*
 * Erasure on request; see src/retention/.
 *
 * Kafka still has the messages, so what was erased would come back when a
 * source reads them again.  erasures therefore remembers, as keyed hashes and
 * not in clear, the persons and keys that were erased and the very messages;
 * ingest asks refuse_erased() before it writes a message.
 */

CREATE TABLE imgpipe.erasure_secret (
	only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
	secret bytea NOT NULL DEFAULT pg_catalog.uuid_send(pg_catalog.gen_random_uuid()) OPERATOR(pg_catalog.||) pg_catalog.uuid_send(pg_catalog.gen_random_uuid())
);
COMMENT ON TABLE imgpipe.erasure_secret IS
'Goes into the hashes of imgpipe.erasures, which could be guessed at without it.';

CREATE TABLE imgpipe.erasures (
	kind text NOT NULL CHECK (kind OPERATOR(pg_catalog.=) ANY ('{uploaded_by,source_key,image_id,message}')),
	hash bytea NOT NULL,
	erased_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	entry bigint NOT NULL,
	refused bigint NOT NULL DEFAULT 0,
	PRIMARY KEY (hash)
);
COMMENT ON TABLE imgpipe.erasures IS
'What was erased on request, as hashes: the person or key, the ids of the images, and which messages of which source they were.';
COMMENT ON COLUMN imgpipe.erasures.entry IS 'Entry of the purge ledger.';
COMMENT ON COLUMN imgpipe.erasures.refused IS 'How many messages were kept from bringing it back.';

SELECT pg_catalog.pg_extension_config_dump('imgpipe.erasure_secret', '');
SELECT pg_catalog.pg_extension_config_dump('imgpipe.erasures', '');

CREATE FUNCTION imgpipe.erasure_hash(kind text, value text) RETURNS bytea
	LANGUAGE sql STABLE STRICT PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT sha256(s.secret || convert_to(kind || ':' || value, 'UTF8')) FROM imgpipe.erasure_secret s
$$;
COMMENT ON FUNCTION imgpipe.erasure_hash(text, text) IS
'The hash under which imgpipe.erasures has a value of that kind.';
REVOKE EXECUTE ON FUNCTION imgpipe.erasure_hash(text, text) FROM PUBLIC;

CREATE FUNCTION imgpipe.message_name(source text, partition integer, message_offset bigint) RETURNS text
	LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT source || '/' || partition::text || '/' || message_offset::text
$$;
COMMENT ON FUNCTION imgpipe.message_name(text, integer, bigint) IS
'A message of a source by its place; NULL for what came by SQL.';

CREATE FUNCTION imgpipe.erase_now(uploaded_by text, source_key text, image_ids uuid[],
	OUT entry bigint, OUT images bigint, OUT row_counts jsonb) RETURNS record
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
	SET session_replication_role = replica
AS $$
#variable_conflict use_variable
DECLARE
	ids uuid[];
	letters uuid[];
	messages text[];
	groups jsonb;
	counted bigint;
	related text;
BEGIN
	-- A hold that is just being placed has counted these images: it is waited for.
	LOCK TABLE imgpipe.holds IN SHARE MODE;
	SELECT coalesce(array_agg(i.image_id), '{}'),
			array_agg(imgpipe.message_name(i.source, i.source_partition, i.source_offset)) FILTER (WHERE i.source_offset IS NOT NULL)
		INTO ids, messages
		FROM imgpipe.images i
		WHERE (erase_now.uploaded_by IS NOT NULL AND i.uploaded_by = erase_now.uploaded_by)
			OR (erase_now.source_key IS NOT NULL AND i.source_key = erase_now.source_key)
			OR i.image_id = ANY (erase_now.image_ids);
	-- And what is not complete yet.
	SELECT ids || coalesce(array_agg(c.image_id) FILTER (WHERE c.image_id <> ALL (ids)), '{}'),
			messages || array_agg(imgpipe.message_name(s.name, c.source_partition, c.first_offset))
		INTO ids, messages
		FROM imgpipe.chunked_images c JOIN imgpipe.sources s ON s.source_id = c.source_id
		WHERE c.image_id = ANY (ids)
			OR (erase_now.uploaded_by IS NOT NULL AND c.uploaded_by = erase_now.uploaded_by)
			OR (erase_now.source_key IS NOT NULL AND c.source_key = erase_now.source_key)
			OR c.image_id = ANY (erase_now.image_ids);
	row_counts := jsonb_build_object('held', imgpipe.copy_held_images('imgpipe.images', 'imgpipe.results', ids));
	IF row_counts = '{"held": 0}' THEN
		row_counts := '{}';
	END IF;

	-- Tasks first: a worker that is finishing one is waited for, and no other can write for these images any more.
	DELETE FROM imgpipe.tasks t WHERE t.image_id = ANY (ids);
	GET DIAGNOSTICS counted = ROW_COUNT;
	row_counts := row_counts || jsonb_build_object('tasks', counted);

	WITH gone AS (
		DELETE FROM imgpipe.dead_letters d
			WHERE d.image_id = ANY (ids)
				OR d.source_key = erase_now.source_key
				OR d.headers ->> 'uploaded_by' = erase_now.uploaded_by
			RETURNING d.image_id, d.source, d.source_partition, d.source_offset)
	SELECT count(*), array_agg(g.image_id), messages || array_agg(imgpipe.message_name(g.source, g.source_partition, g.source_offset)) FILTER (WHERE g.source_offset IS NOT NULL)
		INTO counted, letters, messages FROM gone g;
	row_counts := row_counts || jsonb_build_object('dead_letters', counted);

	EXECUTE 'WITH gone AS (
			DELETE FROM imgpipe.images i WHERE i.image_id = ANY ($1) RETURNING i.received_at, i.source, i.format, i.bytes, i.width, i.height) '
		|| imgpipe.volume_query('gone') INTO groups USING ids;
	images := imgpipe.sum_of(groups, 'images');
	row_counts := row_counts || jsonb_build_object('images', images);
	PERFORM imgpipe.add_sealed_volume(groups);

	-- What else hangs on an image, or tells of a dead letter.
	FOR related IN SELECT t.name FROM imgpipe.partitioned_tables t WHERE t.name <> ALL ('{images,dead_letters}') ORDER BY t.name LOOP
		EXECUTE format('DELETE FROM imgpipe.%I WHERE image_id = ANY ($1)', related) USING ids || letters;
		GET DIAGNOSTICS counted = ROW_COUNT;
		row_counts := row_counts || jsonb_build_object(related, counted);
	END LOOP;

	entry := imgpipe.enter_purge('erasure', NULL, NULL, row_counts, imgpipe.sum_of(groups, 'bytes'), 0, imgpipe.by_known_source(groups));
	INSERT INTO imgpipe.erasures AS e (kind, hash, entry)
		SELECT k.kind, imgpipe.erasure_hash(k.kind, k.value), erase_now.entry FROM (
			SELECT 'uploaded_by', erase_now.uploaded_by
			UNION ALL SELECT 'source_key', erase_now.source_key
			UNION ALL SELECT 'image_id', u::text FROM unnest(ids) u
			UNION ALL SELECT DISTINCT 'message', m FROM unnest(messages) m) k (kind, value)
		WHERE k.value IS NOT NULL
		ON CONFLICT (hash) DO UPDATE SET erased_at = EXCLUDED.erased_at, entry = EXCLUDED.entry;
END
$$;
COMMENT ON FUNCTION imgpipe.erase_now(text, text, uuid[]) IS
'What erase_images() does, for a caller that has locked the positions of what it erases. Only the owner may, unless granted.';
REVOKE EXECUTE ON FUNCTION imgpipe.erase_now(text, text, uuid[]) FROM PUBLIC;

CREATE FUNCTION imgpipe.erase_images(uploaded_by text DEFAULT NULL, source_key text DEFAULT NULL, image_ids uuid[] DEFAULT NULL,
	OUT entry bigint, OUT images bigint, OUT row_counts jsonb) RETURNS record
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
BEGIN
	IF num_nonnulls(uploaded_by, source_key, image_ids) <> 1 THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
			MESSAGE = 'an erasure is of one person, one key or some images',
			DETAIL = format('%s of uploaded_by, source_key and image_ids were given.', num_nonnulls(uploaded_by, source_key, image_ids)),
			HINT = 'For example: SELECT * FROM imgpipe.erase_images(uploaded_by => ''ada'');';
	END IF;
	-- Batches in progress are waited for, and the next ones see the erasure.
	PERFORM FROM imgpipe.ingest_positions p ORDER BY p.source_id, p.partition FOR SHARE;
	SELECT * INTO entry, images, row_counts FROM imgpipe.erase_now(uploaded_by, source_key, image_ids);
END
$$;
COMMENT ON FUNCTION imgpipe.erase_images(text, text, uuid[]) IS
'Erases all of a person (uploaded_by), of a key (source_key), or some images, at once: images, renditions, results, dead letters and tasks; returns the entry in the purge ledger, how many images and how many rows of each table. Images that a legal hold is on are copied to imgpipe.held_images before. Messages of Kafka that were erased, and others of that person or key that were made before the erasure by the message''s timestamp, are not ingested again; newer ones are. Images that are inserted by SQL are always new ones. The daily volume keeps their number. Waits for batches and tasks that are working on them, and for a legal hold that is just being placed or released, as long as lock_timeout lets it; never for a purge, nor for the readers that one waits for. On disk, bytes of deleted rows can stay in the partition until it is dropped at its deadline, or until VACUUM FULL: see imgpipe.retention_residue(). Raises 22023 where not exactly one of the three is given, 55P03 where lock_timeout ended it, and nothing is erased then. Only the owner may, unless granted.';
REVOKE EXECUTE ON FUNCTION imgpipe.erase_images(text, text, uuid[]) FROM PUBLIC;

/* As the extension's owner, in the transaction of an ingest worker that has locked the position of the key's partition. */
CREATE FUNCTION imgpipe.expire_images_of_key(source text, source_key text, source_partition integer, before_offset bigint) RETURNS bigint
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	expired uuid[];
BEGIN
	SELECT array_agg(k.image_id) INTO expired FROM (
		SELECT i.image_id FROM imgpipe.images i
			WHERE i.source_key = expire_images_of_key.source_key AND i.source = expire_images_of_key.source AND i.image_id >= imgpipe.fence()
				AND (i.source_partition <> expire_images_of_key.source_partition OR i.source_offset < before_offset) IS NOT FALSE
		UNION
		SELECT c.image_id FROM imgpipe.chunked_images c JOIN imgpipe.sources s ON s.source_id = c.source_id
			WHERE c.source_key = expire_images_of_key.source_key AND coalesce(s.image_source, s.name) = expire_images_of_key.source
				AND c.due_at IS NOT NULL AND c.image_id >= imgpipe.fence()
				AND (c.source_partition <> expire_images_of_key.source_partition OR c.first_offset < before_offset)) k;
	IF expired IS NOT NULL THEN
		PERFORM imgpipe.erase_now(NULL, NULL, expired);
	END IF;
	RETURN coalesce(cardinality(expired), 0);
END
$$;
COMMENT ON FUNCTION imgpipe.expire_images_of_key(text, text, integer, bigint) IS
'What a tombstone does where on_tombstone is expire: the images of a source with that key are gone as if their deadline had come. What a legal hold is on is copied first, the daily volume keeps their number, the purge ledger has an entry, and their messages are not ingested again. Those of the tombstone''s partition only from before its offset: read again after a seek back, it ends nothing that came later. Returns how many images. Only the owner may, unless granted.';
REVOKE EXECUTE ON FUNCTION imgpipe.expire_images_of_key(text, text, integer, bigint) FROM PUBLIC;

CREATE FUNCTION imgpipe.refuse_erased(source text, partition integer, message_offset bigint, message_timestamp timestamptz,
	source_key text, uploaded_by text) RETURNS boolean
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
BEGIN
	UPDATE imgpipe.erasures e SET refused = e.refused + 1
		WHERE e.hash IN (imgpipe.erasure_hash('message', imgpipe.message_name(source, partition, message_offset)),
				imgpipe.erasure_hash('source_key', source_key), imgpipe.erasure_hash('uploaded_by', uploaded_by))
			AND (e.kind = 'message' OR message_timestamp IS NULL OR message_timestamp <= e.erased_at);
	RETURN FOUND;
END
$$;
COMMENT ON FUNCTION imgpipe.refuse_erased(text, integer, bigint, timestamptz, text, text) IS
'Whether a message would bring back what was erased: it is one of the erased messages, or of an erased person or key and made before the erasure. Counts it then.';
REVOKE EXECUTE ON FUNCTION imgpipe.refuse_erased(text, integer, bigint, timestamptz, text, text) FROM PUBLIC;
