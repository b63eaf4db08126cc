/*
 * The tables of images and all that belongs to them; see src/store/.
 *
 * Whatever is partitioned by image_id, in this schema and of this extension,
 * gets partitions ahead (partitions.sql) and is purged (src/retention/); it
 * needs a fence (fence.sql) and, at the end of this file, no statistics of what
 * must not outlive its purge.
 */

CREATE SCHEMA imgpipe_partitions;
COMMENT ON SCHEMA imgpipe_partitions IS
'Partitions of imgpipe''s tables. Nobody is granted USAGE here: a partition read directly would bypass the read fence of its parent.';
REVOKE ALL ON SCHEMA imgpipe_partitions FROM PUBLIC;

CREATE FUNCTION imgpipe.new_image_id() RETURNS uuid
	AS 'MODULE_PATHNAME', 'imgpipe_new_image_id'
	LANGUAGE C VOLATILE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION imgpipe.new_image_id() IS
'A new image id whose purge deadline is now + imgpipe.retention. See new_image_id(timestamptz).';

CREATE FUNCTION imgpipe.new_image_id(deadline timestamptz) RETURNS uuid
	AS 'MODULE_PATHNAME', 'imgpipe_new_image_id_at'
	LANGUAGE C VOLATILE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION imgpipe.new_image_id(timestamptz) IS
'A new image id: a UUIDv8 (RFC 9562) whose first 48 bits are the purge deadline in milliseconds since 1970 and whose other 74 bits are random. Give it in an INSERT to keep one image for another time than imgpipe.retention: INSERT INTO imgpipe.images (image_id, content) VALUES (imgpipe.new_image_id(now() + interval ''1 hour''), $1). Raises 23514 for a deadline beyond imgpipe.max_retention from now, 22008 for one outside 1970 to the year 10889.';

CREATE FUNCTION imgpipe.purge_at(image_id uuid) RETURNS timestamptz
	AS 'MODULE_PATHNAME', 'imgpipe_purge_at'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION imgpipe.purge_at(uuid) IS
'The purge deadline in an image id: from this moment nobody but the owner can read the image, and its partition is dropped. Raises 22023 for a uuid that is not of version 8.';

CREATE FUNCTION imgpipe.first_image_id(deadline timestamptz) RETURNS uuid
	AS 'MODULE_PATHNAME', 'imgpipe_first_image_id'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION imgpipe.first_image_id(timestamptz) IS
'The smallest image id with that purge deadline, for range conditions and partition bounds.';

CREATE FUNCTION imgpipe.fence() RETURNS uuid
	AS 'MODULE_PATHNAME', 'imgpipe_fence'
	LANGUAGE C STABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION imgpipe.fence() IS
'The smallest image id whose deadline had not passed when the current statement began. The row-level security of every image table hides what lies below it.';

CREATE FUNCTION imgpipe.horizon() RETURNS uuid
	AS 'MODULE_PATHNAME', 'imgpipe_horizon'
	LANGUAGE C VOLATILE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION imgpipe.horizon() IS
'The smallest image id whose deadline is further away than imgpipe.max_retention lets it be. Nobody but the owner can insert it or one above.';

CREATE FUNCTION imgpipe.longest_retention() RETURNS interval
	AS 'MODULE_PATHNAME', 'imgpipe_longest_retention'
	LANGUAGE C STABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION imgpipe.longest_retention() IS
'imgpipe.max_retention, or where that is 0 imgpipe.retention: how far away the deadline of a new image can be.';

CREATE TABLE imgpipe.images (
	image_id uuid NOT NULL DEFAULT imgpipe.new_image_id(),
	content imgpipe.image NOT NULL,
	source text NOT NULL DEFAULT 'sql'
		CONSTRAINT source_is_a_name CHECK (source OPERATOR(pg_catalog.~) '^[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}$'),
	source_partition integer,
	source_offset bigint,
	source_key text,
	source_timestamp timestamptz,
	batch_id text,
	uploaded_by text NOT NULL DEFAULT SESSION_USER,
	received_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	headers jsonb,
	format text NOT NULL GENERATED ALWAYS AS (imgpipe.image_format(content)) STORED,
	width integer NOT NULL GENERATED ALWAYS AS (imgpipe.image_width(content)) STORED,
	height integer NOT NULL GENERATED ALWAYS AS (imgpipe.image_height(content)) STORED,
	bytes integer NOT NULL GENERATED ALWAYS AS (imgpipe.image_bytes(content)) STORED,
	sha256 bytea NOT NULL GENERATED ALWAYS AS (imgpipe.image_sha256(content)) STORED,
	PRIMARY KEY (image_id)
) PARTITION BY RANGE (image_id);
COMMENT ON TABLE imgpipe.images IS
'Every image that arrived, by INSERT or from Kafka, until its purge deadline. INSERT INTO imgpipe.images (content) VALUES ($1::bytea) is all that an application needs.';
COMMENT ON COLUMN imgpipe.images.image_id IS 'UUIDv8 that begins with the purge deadline: imgpipe.purge_at(image_id).';
COMMENT ON COLUMN imgpipe.images.content IS 'The file as it came, byte for byte.';
COMMENT ON COLUMN imgpipe.images.source IS 'Name of the Kafka source, or sql, or another name of that kind (1 to 63 letters of ASCII, digits, "_", "." and "-"). The daily volume keeps it after the purge: it is no place for what names a person.';
COMMENT ON COLUMN imgpipe.images.source_key IS 'Key of the Kafka message as text (\x and hex where it is none), or the application''s own key.';
COMMENT ON COLUMN imgpipe.images.source_timestamp IS 'When the producer, or the broker, says that the message was made.';
COMMENT ON COLUMN imgpipe.images.width IS 'Pixels as displayed, EXIF orientation applied.';
COMMENT ON COLUMN imgpipe.images.height IS 'Pixels as displayed, EXIF orientation applied.';
COMMENT ON COLUMN imgpipe.images.bytes IS 'Size of the file.';

CREATE TABLE imgpipe.renditions (
	image_id uuid NOT NULL,
	processor text NOT NULL,
	name text NOT NULL,
	version integer NOT NULL,
	content imgpipe.image NOT NULL,
	created_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	format text NOT NULL GENERATED ALWAYS AS (imgpipe.image_format(content)) STORED,
	width integer NOT NULL GENERATED ALWAYS AS (imgpipe.image_width(content)) STORED,
	height integer NOT NULL GENERATED ALWAYS AS (imgpipe.image_height(content)) STORED,
	bytes integer NOT NULL GENERATED ALWAYS AS (imgpipe.image_bytes(content)) STORED,
	PRIMARY KEY (image_id, processor, name)
) PARTITION BY RANGE (image_id);
COMMENT ON TABLE imgpipe.renditions IS
'What processors made of images: one row per image, processor and named output, purged together with its image.';

CREATE TABLE imgpipe.results (
	image_id uuid NOT NULL,
	processor text NOT NULL,
	version integer NOT NULL,
	result jsonb,
	created_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	PRIMARY KEY (image_id, processor)
) PARTITION BY RANGE (image_id);
COMMENT ON TABLE imgpipe.results IS
'What processors that are SQL functions returned: one row per image and processor, purged together with its image.';

CREATE TABLE imgpipe.dead_letters (
	image_id uuid NOT NULL DEFAULT imgpipe.new_image_id(),
	dead_letter_id bigint NOT NULL GENERATED ALWAYS AS IDENTITY,
	stage text NOT NULL CHECK (stage OPERATOR(pg_catalog.=) ANY ('{ingest,processing}')),
	source text,
	source_partition integer,
	source_offset bigint,
	source_key text,
	source_timestamp timestamptz,
	headers jsonb,
	value bytea,
	processor text,
	version integer,
	attempts integer NOT NULL DEFAULT 1,
	sqlstate text NOT NULL,
	reason text NOT NULL,
	detail text,
	created_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	PRIMARY KEY (image_id, dead_letter_id)
) PARTITION BY RANGE (image_id);
ALTER TABLE imgpipe.dead_letters ALTER COLUMN value SET STORAGE external;
COMMENT ON TABLE imgpipe.dead_letters IS
'What could not be ingested or processed, with the reason. Stage ingest: the raw value and where it came from, under an id of its own with the source''s retention. Stage processing: the image''s id, the processor and its last error.';

-- ANALYZE keeps values of columns in pg_statistic, those of a partitioned table even when its partitions are gone.
ALTER TABLE imgpipe.images
	ALTER content SET STATISTICS 0, ALTER source_key SET STATISTICS 0, ALTER batch_id SET STATISTICS 0,
	ALTER uploaded_by SET STATISTICS 0, ALTER headers SET STATISTICS 0, ALTER sha256 SET STATISTICS 0;
ALTER TABLE imgpipe.renditions ALTER content SET STATISTICS 0;
ALTER TABLE imgpipe.results ALTER result SET STATISTICS 0;
ALTER TABLE imgpipe.dead_letters
	ALTER source_key SET STATISTICS 0, ALTER headers SET STATISTICS 0, ALTER value SET STATISTICS 0,
	ALTER reason SET STATISTICS 0, ALTER detail SET STATISTICS 0;
