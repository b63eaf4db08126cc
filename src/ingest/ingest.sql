
/*
 * Kafka: servers, sources and their positions; see src/ingest/.
 *
 * A position says which offset of a partition comes next.  It advances in the
 * transaction that writes the rows of the messages before it, and only where
 * it still is what the worker started from: so every message is exactly one
 * image or one dead letter, whatever is killed, restored or started twice.
 */

CREATE FUNCTION imgpipe.kafka_validator(options text[], catalog oid) RETURNS void
	AS 'MODULE_PATHNAME', 'imgpipe_kafka_validator'
	LANGUAGE C STABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION imgpipe.kafka_validator(text[], oid) IS
'Checks the options of imgpipe_kafka servers and user mappings, which have librdkafka''s names with underscores for dots. Servers: bootstrap_servers (host:port, ...), security_protocol (plaintext, ssl, sasl_plaintext, sasl_ssl), ssl_ca_pem, ssl_endpoint_identification_algorithm (https, none), sasl_mechanism (PLAIN, SCRAM-SHA-256, SCRAM-SHA-512), client_id, client_rack, broker_address_family, isolation_level, check_crcs, socket_keepalive_enable, socket_timeout_ms, reconnect_backoff_ms, reconnect_backoff_max_ms, fetch_wait_max_ms, fetch_min_bytes, fetch_max_bytes, max_partition_fetch_bytes, receive_message_max_bytes. User mappings: sasl_username, sasl_password, ssl_certificate_pem, ssl_key_pem, ssl_key_password. Raises HV00D for a name that is not one of these, is not allowed, or belongs to the other kind of object; HV024 for a value.';

CREATE FOREIGN DATA WRAPPER imgpipe_kafka VALIDATOR imgpipe.kafka_validator;
COMMENT ON FOREIGN DATA WRAPPER imgpipe_kafka IS
'Kafka clusters that images come from: CREATE SERVER ... FOREIGN DATA WRAPPER imgpipe_kafka OPTIONS (bootstrap_servers ''host:port''), with credentials in CREATE USER MAPPING. See imgpipe.kafka_validator() for the options.';

CREATE TABLE imgpipe.sources (
	source_id integer PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
	name text NOT NULL UNIQUE
		CHECK (name OPERATOR(pg_catalog.~) '^[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}$' AND name OPERATOR(pg_catalog.<>) 'sql'),
	server text NOT NULL,
	topic text NOT NULL CHECK (topic OPERATOR(pg_catalog.~) '^[A-Za-z0-9._-]{1,249}$'),
	owner regrole NOT NULL DEFAULT CURRENT_USER::pg_catalog.regrole,
	retention interval
		CHECK (retention OPERATOR(pg_catalog.>=) '1 minute'::interval AND retention OPERATOR(pg_catalog.<=) '10 years'::interval),
	parallelism integer NOT NULL DEFAULT 1 CHECK (parallelism OPERATOR(pg_catalog.>=) 1 AND parallelism OPERATOR(pg_catalog.<=) 64),
	start_from text NOT NULL DEFAULT 'earliest' CHECK (start_from OPERATOR(pg_catalog.~) '^(earliest|latest|[{].*[}]|[0-9].*)$'),
	batch_rows integer NOT NULL DEFAULT 500 CHECK (batch_rows OPERATOR(pg_catalog.>=) 1 AND batch_rows OPERATOR(pg_catalog.<=) 100000),
	batch_bytes integer NOT NULL DEFAULT 16777216
		CHECK (batch_bytes OPERATOR(pg_catalog.>=) 1048576 AND batch_bytes OPERATOR(pg_catalog.<=) 1073741824),
	linger_ms integer NOT NULL DEFAULT 20 CHECK (linger_ms OPERATOR(pg_catalog.>=) 0 AND linger_ms OPERATOR(pg_catalog.<=) 60000),
	max_backlog integer NOT NULL DEFAULT 0 CHECK (max_backlog OPERATOR(pg_catalog.>=) 0),
	slice integer NOT NULL DEFAULT 0 CHECK (slice OPERATOR(pg_catalog.>=) 0),
	slices integer NOT NULL DEFAULT 1 CHECK (slices OPERATOR(pg_catalog.>) slice AND slices OPERATOR(pg_catalog.<=) 1000),
	format text NOT NULL DEFAULT 'raw' CHECK (format OPERATOR(pg_catalog.=) ANY ('{raw,json,chunked}')),
	content_field text NOT NULL DEFAULT 'content' CHECK (content_field OPERATOR(pg_catalog.<>) ''),
	on_tombstone text NOT NULL DEFAULT 'dead_letter' CHECK (on_tombstone OPERATOR(pg_catalog.=) ANY ('{dead_letter,ignore,delete,expire}')),
	chunk_timeout interval NOT NULL DEFAULT '1 hour'
		CHECK (chunk_timeout OPERATOR(pg_catalog.>=) '1 second'::interval AND chunk_timeout OPERATOR(pg_catalog.<=) '7 days'::interval),
	consumer_group text CHECK (consumer_group OPERATOR(pg_catalog.~) '^[!-~]{1,249}$'),
	result_topic text CHECK (result_topic OPERATOR(pg_catalog.~) '^[A-Za-z0-9._-]{1,249}$'),
	dead_letter_topic text CHECK (dead_letter_topic OPERATOR(pg_catalog.~) '^[A-Za-z0-9._-]{1,249}$'),
	notify_channel text CHECK (pg_catalog.octet_length(notify_channel) OPERATOR(pg_catalog.>=) 1 AND pg_catalog.octet_length(notify_channel) OPERATOR(pg_catalog.<=) 63),
	end_at text CHECK (end_at OPERATOR(pg_catalog.~) '^(latest|[{].*[}]|[0-9].*)$'),
	only_partitions integer[],
	restore_expired boolean NOT NULL DEFAULT false,
	image_source text,
	target text,
	finished_at timestamptz,
	enabled boolean NOT NULL DEFAULT false,
	started_in text,
	cluster_id text,
	created_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);
COMMENT ON TABLE imgpipe.sources IS
'Kafka topics that images come from; see create_source(). Everybody with SELECT sees all sources, only members of a source''s owner change it.';
COMMENT ON COLUMN imgpipe.sources.owner IS 'The role whose rights the source has: its workers connect and insert as this role.';
COMMENT ON COLUMN imgpipe.sources.retention IS 'How long images of this source are kept; NULL: imgpipe.retention.';
COMMENT ON COLUMN imgpipe.sources.parallelism IS 'Ingest workers; each has every parallelism-th partition.';
COMMENT ON COLUMN imgpipe.sources.start_from IS 'Where the first start begins, or the next one after seek_source(): earliest, latest, a JSON object of partitions and offsets, or a time. Partitions that are added later begin at their beginning.';
COMMENT ON COLUMN imgpipe.sources.max_backlog IS 'Ingest rests while more tasks than this are queued; 0: it never does.';
COMMENT ON COLUMN imgpipe.sources.slice IS 'Of the partitions this source has those whose number leaves this remainder when divided by slices; the others are for other nodes.';
COMMENT ON COLUMN imgpipe.sources.format IS 'raw: the value of a message is the image file; json: it is a JSON object that has it in base64; chunked: it is the file, or a part of it where there are headers imgpipe-chunk-id and so on.';
COMMENT ON COLUMN imgpipe.sources.content_field IS 'The field of the JSON object that has the image file.';
COMMENT ON COLUMN imgpipe.sources.on_tombstone IS 'What becomes of a message without a value: a dead letter, nothing, or the deletion of the images of this source with its key, or their end as at their deadline.';
COMMENT ON COLUMN imgpipe.sources.chunk_timeout IS 'How long after its last chunk an image that is not complete becomes a dead letter; counts only while ingest is at the end of the partition.';
COMMENT ON COLUMN imgpipe.sources.end_at IS 'Of a replay: where it ends, as replay_source() was told. NULL: it is no replay and has no end.';
COMMENT ON COLUMN imgpipe.sources.only_partitions IS 'Of a replay: its partitions; NULL: all that were there when it began.';
COMMENT ON COLUMN imgpipe.sources.restore_expired IS 'Of a replay: also messages whose retention has passed become images.';
COMMENT ON COLUMN imgpipe.sources.image_source IS 'What images of this source have in their column source; NULL: its name.';
COMMENT ON COLUMN imgpipe.sources.target IS 'The table that its images go to; NULL: imgpipe.images.';
COMMENT ON COLUMN imgpipe.sources.finished_at IS 'When a replay had ingested its range.';
COMMENT ON COLUMN imgpipe.sources.consumer_group IS 'Where Kafka''s own tools find how far this source is; NULL: nothing is told to Kafka.';
COMMENT ON COLUMN imgpipe.sources.result_topic IS 'Topic of the same server that gets one message for each image when it is processed; NULL: none. See src/outbox/.';
COMMENT ON COLUMN imgpipe.sources.dead_letter_topic IS 'Topic of the same server that gets a copy of each dead letter; NULL: none.';
COMMENT ON COLUMN imgpipe.sources.notify_channel IS 'Channel of NOTIFY that tells listeners of each image that is processed; NULL: none.';
COMMENT ON COLUMN imgpipe.sources.cluster_id IS 'The Kafka cluster that the positions are of, as it names itself; the first start learns it.';
COMMENT ON COLUMN imgpipe.sources.batch_rows IS 'Most messages in one transaction.';
COMMENT ON COLUMN imgpipe.sources.batch_bytes IS 'Bytes after which a batch is full. A worker holds about three times as much: the batch, what is fetched ahead, and one answer of the broker.';
COMMENT ON COLUMN imgpipe.sources.linger_ms IS 'How long a message waits for others to share its transaction, in ms.';
COMMENT ON COLUMN imgpipe.sources.started_in IS 'The database that start_source() was called in, as imgpipe.database_identity() says: a copy of it, restored from a dump or a base backup, does not ingest until it is told to.';

CREATE TABLE imgpipe.ingest_positions (
	source_id integer NOT NULL,
	partition integer NOT NULL CHECK (partition OPERATOR(pg_catalog.>=) 0),
	next_offset bigint CHECK (next_offset OPERATOR(pg_catalog.>=) 0),
	high_watermark bigint,
	last_offset bigint,
	last_timestamp timestamptz,
	anchor_offset bigint,
	anchor_timestamp timestamptz,
	ingested_to bigint,
	end_offset bigint,
	messages bigint NOT NULL DEFAULT 0,
	bytes bigint NOT NULL DEFAULT 0,
	dead_letters bigint NOT NULL DEFAULT 0,
	updated_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	PRIMARY KEY (source_id, partition)
) WITH (fillfactor = 10, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0);
COMMENT ON TABLE imgpipe.ingest_positions IS
'Where each partition of each source goes on. Written by ingest workers in the transactions that insert the images; see seek_source().';
COMMENT ON COLUMN imgpipe.ingest_positions.next_offset IS 'Offset of the first message that is not ingested yet; NULL: the next start begins where start_from of the source says.';
COMMENT ON COLUMN imgpipe.ingest_positions.high_watermark IS 'End of the partition when the worker last wrote.';
COMMENT ON COLUMN imgpipe.ingest_positions.ingested_to IS 'After a seek back: messages below this offset were ingested before, and those whose retention has passed since do not come again; NULL: there are none.';
COMMENT ON COLUMN imgpipe.ingest_positions.end_offset IS 'Of a replay: the first offset behind its range.';
COMMENT ON COLUMN imgpipe.ingest_positions.messages IS 'Messages ever ingested from this partition; bytes and dead_letters likewise.';
COMMENT ON COLUMN imgpipe.ingest_positions.last_offset IS 'The last message that was ingested. It is read again at each start: where another one has its place, the topic was made anew.';
COMMENT ON COLUMN imgpipe.ingest_positions.anchor_offset IS 'Before it the topic has no message that is newer than anchor_timestamp, the time of one that was ingested: where it has one, it was made anew.';

-- In place of a foreign key: a dump restores tables in any order (pg_restore -j).
CREATE FUNCTION imgpipe.delete_positions_of_source() RETURNS trigger
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	DELETE FROM imgpipe.ingest_positions p WHERE p.source_id = OLD.source_id;
	RETURN NULL;
END
$$;
COMMENT ON FUNCTION imgpipe.delete_positions_of_source() IS
'Trigger of imgpipe.sources: the positions of a dropped source go with it.';
REVOKE EXECUTE ON FUNCTION imgpipe.delete_positions_of_source() FROM PUBLIC;

CREATE TRIGGER delete_positions AFTER DELETE ON imgpipe.sources
	FOR EACH ROW EXECUTE FUNCTION imgpipe.delete_positions_of_source();

-- For tombstones, and whoever looks for an image by its key.
CREATE INDEX ON imgpipe.images (source_key, source) WHERE source_key IS NOT NULL;

-- The tasks first: a worker that is about to finish one is waited for, and what it wrote is seen.
CREATE FUNCTION imgpipe.delete_images_of_key(source text, source_key text,
	source_partition integer DEFAULT NULL, before_offset bigint DEFAULT NULL) RETURNS bigint
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	gone CONSTANT uuid[] := ARRAY(SELECT i.image_id FROM imgpipe.images i
		WHERE i.source_key = delete_images_of_key.source_key AND i.source = delete_images_of_key.source AND i.image_id >= imgpipe.fence()
			AND (i.source_partition <> delete_images_of_key.source_partition OR i.source_offset < before_offset) IS NOT FALSE);
BEGIN
	IF cardinality(gone) > 0 THEN
		DELETE FROM imgpipe.tasks t WHERE t.image_id = ANY (gone);
		DELETE FROM imgpipe.outbox o WHERE o.image_id = ANY (gone);
		DELETE FROM imgpipe.renditions r WHERE r.image_id = ANY (gone);
		DELETE FROM imgpipe.results r WHERE r.image_id = ANY (gone);
		DELETE FROM imgpipe.dead_letters d WHERE d.image_id = ANY (gone);
		DELETE FROM imgpipe.images i WHERE i.image_id = ANY (gone);
	END IF;
	WITH gone AS (
		DELETE FROM imgpipe.chunked_images c USING imgpipe.sources s
			WHERE coalesce(s.image_source, s.name) = delete_images_of_key.source AND c.source_id = s.source_id
				AND c.source_key = delete_images_of_key.source_key
				AND (c.source_partition <> delete_images_of_key.source_partition OR c.first_offset < before_offset) IS NOT FALSE
			RETURNING c.image_id)
	DELETE FROM imgpipe.chunks k USING gone WHERE k.image_id = gone.image_id;
	RETURN cardinality(gone);
END
$$;
COMMENT ON FUNCTION imgpipe.delete_images_of_key(text, text, integer, bigint) IS
'What a tombstone does where the source says so: deletes the images of a source with that key, all that was made of them, and chunks of such that are not complete; of the tombstone''s partition only those from before its offset, where that is not NULL. Returns how many images. Only the owner may, unless granted.';
REVOKE EXECUTE ON FUNCTION imgpipe.delete_images_of_key(text, text, integer, bigint) FROM PUBLIC;

SELECT pg_catalog.pg_extension_config_dump('imgpipe.sources', '');
SELECT pg_catalog.pg_extension_config_dump('imgpipe.sources_source_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('imgpipe.ingest_positions', '');

ALTER TABLE imgpipe.sources ENABLE ROW LEVEL SECURITY;
CREATE POLICY everyone_sees ON imgpipe.sources FOR SELECT USING (true);
CREATE POLICY owner_changes ON imgpipe.sources
	USING (pg_catalog.pg_has_role(owner::pg_catalog.oid, 'USAGE'));

ALTER TABLE imgpipe.ingest_positions ENABLE ROW LEVEL SECURITY;
CREATE POLICY everyone_sees ON imgpipe.ingest_positions FOR SELECT USING (true);
CREATE POLICY owner_changes ON imgpipe.ingest_positions
	USING (EXISTS (SELECT FROM imgpipe.sources s
		WHERE s.source_id OPERATOR(pg_catalog.=) ingest_positions.source_id
			AND pg_catalog.pg_has_role(s.owner::pg_catalog.oid, 'USAGE')));
