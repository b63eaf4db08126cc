
/*
 * Images in chunks: what is larger than a Kafka message may be comes as
 * several, which share a key and headers that say how they belong together.
 *
 * A chunk is written in the transaction that takes its position.  What is
 * complete becomes an image in a transaction of its own, as does a dead letter
 * of what is not complete in time; the row of chunked_images says which, so that
 * it is one of them and once, and stays until its deadline to know a repeated
 * chunk.  Late ones still make an image of a dead letter.
 */

CREATE TABLE imgpipe.chunked_images (
	image_id uuid NOT NULL,
	source_id integer NOT NULL,
	source_partition integer NOT NULL,
	chunk_id text NOT NULL,
	chunk_count integer NOT NULL,
	chunks integer NOT NULL DEFAULT 0,
	bytes bigint NOT NULL DEFAULT 0,
	image_bytes bigint,
	image_sha256 bytea,
	first_offset bigint NOT NULL,
	last_offset bigint NOT NULL,
	source_key text,
	source_timestamp timestamptz,
	headers jsonb,
	batch_id text,
	uploaded_by text NOT NULL,
	received_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	due_at timestamptz,
	fault text,
	outcome text CHECK (outcome OPERATOR(pg_catalog.=) ANY ('{image,dead_letter,erased}')),
	PRIMARY KEY (image_id)
) PARTITION BY RANGE (image_id);
CREATE INDEX ON imgpipe.chunked_images (source_id, source_partition, chunk_id);
CREATE INDEX ON imgpipe.chunked_images (source_id, due_at) WHERE due_at IS NOT NULL;
COMMENT ON TABLE imgpipe.chunked_images IS
'Images that came in chunks, or are coming: one row each, from its first chunk to its deadline, which the first chunk sets. Key, headers and timestamp are those of the first chunk to arrive.';
COMMENT ON COLUMN imgpipe.chunked_images.chunk_id IS 'Header imgpipe-chunk-id.';
COMMENT ON COLUMN imgpipe.chunked_images.chunks IS 'How many of chunk_count different ones have come.';
COMMENT ON COLUMN imgpipe.chunked_images.bytes IS 'Of the chunks that have come.';
COMMENT ON COLUMN imgpipe.chunked_images.image_bytes IS 'Of the whole image, where header imgpipe-chunk-size says.';
COMMENT ON COLUMN imgpipe.chunked_images.due_at IS 'When something is to be done: at once (-infinity) where it is complete or at fault; else it is given up where no chunk has come until then. NULL: it has an outcome.';
COMMENT ON COLUMN imgpipe.chunked_images.fault IS 'Why no more chunks of it are taken.';
COMMENT ON COLUMN imgpipe.chunked_images.outcome IS 'image or dead_letter, of the same image_id; erased: its parts were erased on request and none is kept.';

CREATE TABLE imgpipe.chunks (
	image_id uuid NOT NULL,
	chunk_index integer NOT NULL CHECK (chunk_index OPERATOR(pg_catalog.>=) 0),
	content bytea NOT NULL,
	PRIMARY KEY (image_id, chunk_index)
) PARTITION BY RANGE (image_id);
ALTER TABLE imgpipe.chunks ALTER COLUMN content SET STORAGE external;
COMMENT ON TABLE imgpipe.chunks IS
'Chunks of images that are not complete. Deleted when the image is made, and dropped at its deadline in any case.';

ALTER TABLE imgpipe.chunked_images
	ALTER chunk_id SET STATISTICS 0, ALTER source_key SET STATISTICS 0, ALTER headers SET STATISTICS 0,
	ALTER batch_id SET STATISTICS 0, ALTER uploaded_by SET STATISTICS 0, ALTER image_sha256 SET STATISTICS 0;
ALTER TABLE imgpipe.chunks ALTER content SET STATISTICS 0;

ALTER TABLE imgpipe.chunked_images ENABLE ROW LEVEL SECURITY;
CREATE POLICY granted ON imgpipe.chunked_images USING (true);
CREATE POLICY fence ON imgpipe.chunked_images AS RESTRICTIVE USING (image_id OPERATOR(pg_catalog.>=) imgpipe.fence());
CREATE POLICY horizon ON imgpipe.chunked_images AS RESTRICTIVE USING (true) WITH CHECK (image_id OPERATOR(pg_catalog.<) imgpipe.horizon());

ALTER TABLE imgpipe.chunks ENABLE ROW LEVEL SECURITY;
CREATE POLICY granted ON imgpipe.chunks USING (true);
CREATE POLICY fence ON imgpipe.chunks AS RESTRICTIVE USING (image_id OPERATOR(pg_catalog.>=) imgpipe.fence());
CREATE POLICY horizon ON imgpipe.chunks AS RESTRICTIVE USING (true) WITH CHECK (image_id OPERATOR(pg_catalog.<) imgpipe.horizon());

CREATE FUNCTION imgpipe.chunk_fault(chunk_count integer, image_bytes bigint) RETURNS text
	LANGUAGE sql STABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT CASE WHEN chunk_count > 10000 THEN format('It has %s chunks; the limit is 10000.', chunk_count)
		WHEN image_bytes > pg_size_bytes(imgpipe.setting('imgpipe.max_bytes'))
			THEN format('It has %s bytes or more; the limit is imgpipe.max_bytes, %s.', image_bytes, imgpipe.setting('imgpipe.max_bytes')) END
$$;
COMMENT ON FUNCTION imgpipe.chunk_fault(integer, bigint) IS
'Why an image of so many chunks and bytes is not taken; NULL where it is.';

/* Called for every chunk of a source in its order, with the position of its partition locked. */
CREATE FUNCTION imgpipe.store_chunk(source_id integer, retention interval, chunk_timeout interval, source_partition integer, message_offset bigint,
	chunk_id text, chunk_index integer, chunk_count integer, image_bytes bigint, image_sha256 text, source_key text,
	source_timestamp timestamptz, headers jsonb, batch_id text, uploaded_by text, content bytea, erased boolean) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
	image imgpipe.chunked_images;
	fault text;
BEGIN
	SELECT * INTO image FROM imgpipe.chunked_images c
		WHERE c.source_id = source_id AND c.source_partition = source_partition AND c.chunk_id = chunk_id AND c.image_id >= imgpipe.fence()
		ORDER BY c.received_at DESC LIMIT 1;
	-- One that has its outcome and is read again, after a seek back, is another image.
	IF image.image_id IS NULL OR (image.outcome IS NOT NULL AND message_offset <= image.last_offset) THEN
		INSERT INTO imgpipe.chunked_images AS c (image_id, source_id, source_partition, chunk_id, chunk_count, image_bytes, image_sha256,
				first_offset, last_offset, source_key, source_timestamp, headers, batch_id, uploaded_by)
			VALUES (CASE WHEN retention IS NULL THEN imgpipe.new_image_id() ELSE imgpipe.new_image_id(clock_timestamp() + retention) END,
				source_id, source_partition, chunk_id, chunk_count, image_bytes, decode(image_sha256, 'hex'), message_offset, message_offset,
				CASE WHEN NOT erased THEN source_key END, source_timestamp, CASE WHEN NOT erased THEN headers - 'imgpipe-chunk-index' END,
				CASE WHEN NOT erased THEN batch_id END, CASE WHEN erased THEN '' ELSE uploaded_by END)
			RETURNING * INTO image;
	ELSIF image.outcome IS DISTINCT FROM 'erased'
		AND (chunk_count, coalesce(image_bytes, image.image_bytes), coalesce(decode(image_sha256, 'hex'), image.image_sha256), source_key)
			IS DISTINCT FROM (image.chunk_count, image.image_bytes, image.image_sha256, image.source_key) THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
			MESSAGE = 'chunk does not belong to the others of its image',
			DETAIL = format('Count, size, SHA-256 and key are (%s, %s, %s, %s), and (%s, %s, %s, %s) in the first chunk that came of "%s".',
				chunk_count, image_bytes, image_sha256, source_key,
				image.chunk_count, image.image_bytes, encode(image.image_sha256, 'hex'), image.source_key, chunk_id);
	END IF;

	fault := coalesce(image.fault, imgpipe.chunk_fault(image.chunk_count, greatest(image.image_bytes, image.bytes + length(content))));
	IF erased AND image.outcome IS NULL THEN
		image.outcome := 'erased';
		image.due_at := NULL;
		DELETE FROM imgpipe.chunks c WHERE c.image_id = image.image_id;
	ELSIF image.outcome = ANY ('{image,erased}') OR image.chunks = image.chunk_count OR image.fault IS NOT NULL THEN
		NULL; -- repeated, or of no use
	ELSIF fault IS NOT NULL THEN
		image.fault := fault;
		image.due_at := CASE WHEN image.outcome IS NULL THEN timestamptz '-infinity' END;
		DELETE FROM imgpipe.chunks c WHERE c.image_id = image.image_id;
	ELSE
		INSERT INTO imgpipe.chunks AS c (image_id, chunk_index, content) VALUES (image.image_id, chunk_index, content)
			ON CONFLICT ON CONSTRAINT chunks_pkey DO NOTHING;
		IF FOUND THEN
			image.chunks := image.chunks + 1;
			image.bytes := image.bytes + length(content);
			image.due_at := CASE WHEN image.chunks = image.chunk_count THEN timestamptz '-infinity'
				WHEN image.outcome IS NULL THEN clock_timestamp() + chunk_timeout END;
		END IF;
	END IF;
	UPDATE imgpipe.chunked_images c SET chunks = image.chunks, bytes = image.bytes, last_offset = greatest(image.last_offset, message_offset),
			due_at = image.due_at, fault = image.fault, outcome = image.outcome
		WHERE c.image_id = image.image_id;
END
$$;
COMMENT ON FUNCTION imgpipe.store_chunk(integer, interval, interval, integer, bigint, text, integer, integer, bigint, text, text, timestamptz, jsonb, text, text, bytea, boolean) IS
'Keeps a chunk until its image is complete. Repeated ones are left out, and of what is too large nothing is kept. Raises 22023 for a chunk that contradicts the first one of its image. Only the owner may, unless granted.';
REVOKE EXECUTE ON FUNCTION imgpipe.store_chunk(integer, interval, interval, integer, bigint, text, integer, integer, bigint, text, text, timestamptz, jsonb, text, text, bytea, boolean) FROM PUBLIC;

CREATE FUNCTION imgpipe.missing_chunks(image_id uuid) RETURNS text
	LANGUAGE sql STABLE STRICT PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT string_agg(CASE WHEN r.first = r.last THEN r.first::text ELSE format('%s-%s', r.first, r.last) END, ', ' ORDER BY r.first)
			|| CASE WHEN max(r.ranges) > 20 THEN ', ...' ELSE '' END
		FROM (
			SELECT min(m.index) AS first, max(m.index) AS last, count(*) OVER () AS ranges FROM (
				SELECT i AS index, i - row_number() OVER (ORDER BY i) AS range
					FROM imgpipe.chunked_images c CROSS JOIN LATERAL generate_series(0, c.chunk_count - 1) i
					WHERE c.image_id = missing_chunks.image_id
						AND NOT EXISTS (SELECT FROM imgpipe.chunks k WHERE k.image_id = c.image_id AND k.chunk_index = i)) m
				GROUP BY m.range ORDER BY 1 LIMIT 20) r
$$;
COMMENT ON FUNCTION imgpipe.missing_chunks(uuid) IS
'Which chunks of an image have not come, such as "1, 3-5"; at most 20 ranges. NULL where none is missing. The caller needs SELECT on chunks and chunked_images.';

CREATE FUNCTION imgpipe.check_chunks(letter imgpipe.dead_letters) RETURNS void
	LANGUAGE plpgsql STABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	image imgpipe.chunked_images;
BEGIN
	SELECT * INTO image FROM imgpipe.chunked_images c WHERE c.image_id = letter.image_id;
	IF NOT FOUND OR image.fault IS NOT NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
			MESSAGE = format('dead letter %s is of an image in chunks of which there is not enough', letter.dead_letter_id),
			DETAIL = coalesce(image.fault, format('It is one chunk of "%s".', letter.headers ->> 'imgpipe-chunk-id')),
			HINT = format('Send the image again; SELECT imgpipe.discard_dead_letter(%s);', letter.dead_letter_id);
	END IF;
	IF image.chunks < image.chunk_count THEN
		RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
			MESSAGE = format('the image of dead letter %s is not complete', letter.dead_letter_id),
			DETAIL = format('Of %s chunks of "%s" %s are missing: %s.', image.chunk_count, image.chunk_id, image.chunk_count - image.chunks,
				imgpipe.missing_chunks(image.image_id)),
			HINT = 'Send the missing ones, or all of them: it becomes an image by itself.';
	END IF;
	IF length(letter.value) <> image.image_bytes OR sha256(letter.value) <> image.image_sha256 THEN
		RAISE EXCEPTION USING ERRCODE = 'data_exception',
			MESSAGE = 'image is not what its chunks say',
			DETAIL = format('It has %s bytes with SHA-256 %s; they say %s and %s.', length(letter.value), encode(sha256(letter.value), 'hex'),
				coalesce(image.image_bytes::text, 'nothing'), coalesce(encode(image.image_sha256, 'hex'), 'nothing'));
	END IF;
END
$$;
COMMENT ON FUNCTION imgpipe.check_chunks(imgpipe.dead_letters) IS
'Whether the value of a dead letter that came in chunks is the whole image. Raises 55000 where chunks are missing, 22000 where it has not the size or SHA-256 that they say. The caller needs SELECT on chunks and chunked_images.';

CREATE FUNCTION imgpipe.settle_chunked_image(image_id uuid, outcome text) RETURNS boolean
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
	image imgpipe.chunked_images;
BEGIN
	SELECT * INTO image FROM imgpipe.chunked_images c WHERE c.image_id = image_id;
	-- First, as every batch does: whoever erases has locked it.
	UPDATE imgpipe.ingest_positions p SET dead_letters = p.dead_letters + (outcome = 'dead_letter')::integer
		WHERE p.source_id = image.source_id AND p.partition = image.source_partition;
	UPDATE imgpipe.chunked_images c SET due_at = NULL, outcome = outcome
		WHERE c.image_id = image_id AND c.due_at IS NOT NULL
		RETURNING * INTO image;
	IF NOT FOUND THEN
		RETURN false;
	END IF;
	-- What was given up and came after all has its dead letter no more.
	DELETE FROM imgpipe.dead_letters d WHERE d.image_id = image_id AND d.stage = 'ingest';
	-- What is not complete is kept for that.
	DELETE FROM imgpipe.chunks c WHERE c.image_id = image_id AND image.chunks = image.chunk_count;
	RETURN true;
END
$$;
COMMENT ON FUNCTION imgpipe.settle_chunked_image(uuid, text) IS
'Gives a chunked image its outcome, in the transaction that inserts the image or the dead letter; false where it has one or is not there any more. Only the owner may, unless granted.';
REVOKE EXECUTE ON FUNCTION imgpipe.settle_chunked_image(uuid, text) FROM PUBLIC;
