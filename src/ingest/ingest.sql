
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
	start_from text NOT NULL DEFAULT 'earliest' CHECK (start_from OPERATOR(pg_catalog.=) ANY ('{earliest,latest}')),
	batch_rows integer NOT NULL DEFAULT 500 CHECK (batch_rows OPERATOR(pg_catalog.>=) 1 AND batch_rows OPERATOR(pg_catalog.<=) 100000),
	batch_bytes integer NOT NULL DEFAULT 16777216
		CHECK (batch_bytes OPERATOR(pg_catalog.>=) 1048576 AND batch_bytes OPERATOR(pg_catalog.<=) 1073741824),
	linger_ms integer NOT NULL DEFAULT 50 CHECK (linger_ms OPERATOR(pg_catalog.>=) 0 AND linger_ms OPERATOR(pg_catalog.<=) 60000),
	enabled boolean NOT NULL DEFAULT false,
	started_in text,
	created_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);
COMMENT ON TABLE imgpipe.sources IS
'Kafka topics that images come from; see create_source(). Everybody with SELECT sees all sources, only members of a source''s owner change it.';
COMMENT ON COLUMN imgpipe.sources.owner IS 'The role whose rights the source has: its workers connect and insert as this role.';
COMMENT ON COLUMN imgpipe.sources.retention IS 'How long images of this source are kept; NULL: imgpipe.retention.';
COMMENT ON COLUMN imgpipe.sources.parallelism IS 'Ingest workers; each has every parallelism-th partition.';
COMMENT ON COLUMN imgpipe.sources.start_from IS 'Where the first start begins: earliest or latest. Partitions that are added later begin at their beginning.';
COMMENT ON COLUMN imgpipe.sources.batch_rows IS 'Most messages in one transaction.';
COMMENT ON COLUMN imgpipe.sources.batch_bytes IS 'Bytes after which a batch is full. A worker holds about three times as much: the batch, what is fetched ahead, and one answer of the broker.';
COMMENT ON COLUMN imgpipe.sources.linger_ms IS 'How long a message waits for others to share its transaction, in ms.';
COMMENT ON COLUMN imgpipe.sources.started_in IS 'The database that start_source() was called in, as imgpipe.database_identity() says: a copy of it made by dump and restore does not ingest until it is told to.';

CREATE TABLE imgpipe.ingest_positions (
	source_id integer NOT NULL REFERENCES imgpipe.sources ON DELETE CASCADE,
	partition integer NOT NULL CHECK (partition OPERATOR(pg_catalog.>=) 0),
	next_offset bigint NOT NULL CHECK (next_offset OPERATOR(pg_catalog.>=) 0),
	high_watermark bigint,
	last_offset bigint,
	last_timestamp timestamptz,
	updated_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	PRIMARY KEY (source_id, partition)
) WITH (fillfactor = 10, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0);
COMMENT ON TABLE imgpipe.ingest_positions IS
'Where each partition of each source goes on. Written by ingest workers in the transactions that insert the images; see set_source_position().';
COMMENT ON COLUMN imgpipe.ingest_positions.next_offset IS 'Offset of the first message that is not ingested yet.';
COMMENT ON COLUMN imgpipe.ingest_positions.high_watermark IS 'End of the partition when the worker last wrote.';
COMMENT ON COLUMN imgpipe.ingest_positions.last_offset IS 'The last message that was ingested. It is read again at each start: where another one has its place, the topic was made anew.';

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


CREATE FUNCTION imgpipe.database_identity() RETURNS text
	LANGUAGE sql STABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT format('%s/%s', c.system_identifier, d.oid)
		FROM pg_control_system() c, pg_database d WHERE d.datname = current_database()
$$;
COMMENT ON FUNCTION imgpipe.database_identity() IS
'System identifier of the cluster and oid of the database: the same after a restart and on a promoted standby, another where a dump was restored.';

CREATE FUNCTION imgpipe.check_source_owner(server text) RETURNS void
	LANGUAGE plpgsql STABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	wrapper name;
	relation text;
BEGIN
	SELECT w.fdwname INTO wrapper
		FROM pg_foreign_server s JOIN pg_foreign_data_wrapper w ON w.oid = s.srvfdw
		WHERE s.srvname = server;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'undefined_object',
			MESSAGE = format('server "%s" does not exist', server),
			HINT = format('CREATE SERVER %I FOREIGN DATA WRAPPER imgpipe_kafka OPTIONS (bootstrap_servers ''host:port'');', server);
	END IF;
	IF wrapper <> 'imgpipe_kafka' THEN
		RAISE EXCEPTION USING ERRCODE = 'wrong_object_type',
			MESSAGE = format('server "%s" is not a Kafka server', server),
			DETAIL = format('It is of foreign-data wrapper %s.', wrapper),
			HINT = 'A source needs a server of foreign-data wrapper imgpipe_kafka.';
	END IF;
	IF NOT has_server_privilege(server, 'USAGE') THEN
		RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege',
			MESSAGE = format('permission denied for foreign server %s', server),
			HINT = format('GRANT USAGE ON FOREIGN SERVER %I TO %I;', server, current_user);
	END IF;
	IF NOT has_schema_privilege('imgpipe', 'USAGE') THEN
		RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege',
			MESSAGE = 'permission denied for schema imgpipe',
			HINT = format('GRANT USAGE ON SCHEMA imgpipe TO %I;', current_user);
	END IF;
	FOREACH relation IN ARRAY ARRAY['imgpipe.images', 'imgpipe.dead_letters'] LOOP
		IF NOT has_table_privilege(relation, 'INSERT') THEN
			RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege',
				MESSAGE = format('role "%s" may not insert into %s', current_user, relation),
				DETAIL = 'A source inserts with the rights of its owner.',
				HINT = format('GRANT INSERT ON imgpipe.images, imgpipe.dead_letters TO %I;', current_user);
		END IF;
	END LOOP;
	-- From PostgreSQL 17 on, a background worker may run as any role.
	IF current_setting('server_version_num')::integer < 170000
		AND NOT (SELECT r.rolcanlogin FROM pg_roles r WHERE r.rolname = current_user) THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_authorization_specification',
			MESSAGE = format('role "%s" cannot own a source', current_user),
			DETAIL = 'Before PostgreSQL 17 a background worker runs only as a role with LOGIN.',
			HINT = format('ALTER ROLE %I LOGIN; (it needs no password), or create the source as another role.', current_user);
	END IF;
	IF NOT has_database_privilege(current_database(), 'CONNECT') THEN
		RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege',
			MESSAGE = format('role "%s" may not connect to database "%s"', current_user, current_database()),
			DETAIL = 'A source''s workers connect as its owner.',
			HINT = format('GRANT CONNECT ON DATABASE %I TO %I;', current_database(), current_user);
	END IF;
END
$$;
COMMENT ON FUNCTION imgpipe.check_source_owner(text) IS
'Raises 42704, 42809, 42501 or 28000, with the statement that helps, where a worker could not ingest from that server as the current role.';

CREATE FUNCTION imgpipe.own_source(name text) RETURNS imgpipe.sources
	LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	source imgpipe.sources;
BEGIN
	SELECT * INTO source FROM imgpipe.sources s WHERE s.name = own_source.name;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'undefined_object',
			MESSAGE = format('source "%s" does not exist', name),
			HINT = 'SELECT name FROM imgpipe.sources; shows those that do.';
	END IF;
	IF NOT pg_has_role(source.owner::oid, 'USAGE') THEN
		RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege',
			MESSAGE = format('must be owner of source "%s"', name),
			DETAIL = format('It belongs to %s.', source.owner);
	END IF;
	SELECT * INTO source FROM imgpipe.sources s WHERE s.name = own_source.name FOR NO KEY UPDATE;
	RETURN source;
END
$$;
COMMENT ON FUNCTION imgpipe.own_source(text) IS
'The source of that name, locked until the end of the transaction. Raises 42704 where there is none, 42501 where it belongs to a role that the current one is not a member of.';

CREATE FUNCTION imgpipe.create_source(name text, server text, topic text, retention interval DEFAULT NULL,
	parallelism integer DEFAULT 1, start_from text DEFAULT 'earliest', batch_rows integer DEFAULT 500,
	batch_bytes integer DEFAULT 16777216, linger_ms integer DEFAULT 50) RETURNS integer
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	bounded record;
	new_id integer;
BEGIN
	IF name = 'sql' OR (name !~ '^[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}$') IS NOT FALSE THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_name',
			MESSAGE = format('source name %s is not valid', coalesce('"' || name || '"', 'NULL')),
			HINT = 'A name has 1 to 63 letters of ASCII, digits, "_", "." and "-", and begins with none of the last two; "sql" is for images that are inserted.';
	END IF;
	IF (topic !~ '^[A-Za-z0-9._-]{1,249}$') IS NOT FALSE THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_name',
			MESSAGE = format('topic name %s is not valid', coalesce('"' || topic || '"', 'NULL')),
			HINT = 'Kafka''s topic names have 1 to 249 letters of ASCII, digits, ".", "_" and "-".';
	END IF;
	IF retention < interval '1 minute' OR retention > interval '10 years' THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
			MESSAGE = 'retention must be between 1 minute and 10 years',
			DETAIL = format('It is %s.', retention);
	END IF;
	IF (start_from = ANY ('{earliest,latest}')) IS NOT TRUE THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
			MESSAGE = 'start_from must be earliest or latest',
			DETAIL = format('It is %s.', coalesce('"' || start_from || '"', 'NULL'));
	END IF;
	FOR bounded IN SELECT * FROM (VALUES ('parallelism', parallelism, 1, 64), ('batch_rows', batch_rows, 1, 100000),
		('batch_bytes', batch_bytes, 1048576, 1073741824), ('linger_ms', linger_ms, 0, 60000)) v (name, value, minimum, maximum)
	LOOP
		IF (bounded.value BETWEEN bounded.minimum AND bounded.maximum) IS NOT TRUE THEN
			RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
				MESSAGE = format('%s must be between %s and %s', bounded.name, bounded.minimum, bounded.maximum),
				DETAIL = format('It is %s.', coalesce(bounded.value::text, 'NULL'));
		END IF;
	END LOOP;
	PERFORM imgpipe.check_source_owner(server);
	BEGIN
		INSERT INTO imgpipe.sources AS s (name, server, topic, retention, parallelism, start_from, batch_rows, batch_bytes, linger_ms)
			VALUES (name, server, topic, retention, parallelism, start_from, batch_rows, batch_bytes, linger_ms)
			RETURNING s.source_id INTO new_id;
	EXCEPTION WHEN unique_violation THEN
		RAISE EXCEPTION USING ERRCODE = 'duplicate_object',
			MESSAGE = format('source "%s" already exists', name),
			HINT = 'Choose another name, or drop that one with imgpipe.drop_source().';
	END;
	-- Its retention may be the longest: partitions for it are made now.
	PERFORM imgpipe.wake_controller();
	RETURN new_id;
END
$$;
COMMENT ON FUNCTION imgpipe.create_source(text, text, text, interval, integer, text, integer, integer, integer) IS
'Makes a source of images, one Kafka topic of a server of imgpipe_kafka, and returns its source_id. It is stopped; start_source() starts it. The value of each message is an image file; key, headers, partition, offset and timestamp are kept with it, and the headers batch_id and uploaded_by go to the columns of that name. What is no image goes to imgpipe.dead_letters, the rest goes on. retention: how long its images are kept (1 minute to 10 years), NULL for imgpipe.retention. parallelism: workers (1 to 64), each with its share of the partitions. start_from: earliest or latest, for the first start. batch_rows (1 to 100000), batch_bytes (1 MB to 1 GB) and linger_ms (0 to 60000) bound one transaction. The source belongs to the current role, whose rights its workers have. The role needs USAGE on the server and on schema imgpipe, INSERT on images and dead_letters, SELECT, INSERT, UPDATE and DELETE on sources, and before PostgreSQL 17 LOGIN. Raises 42602 for a name, 22023 for a parameter, 42704 for a server that does not exist, 42809 for a server of another wrapper, 42501 and 28000 for missing rights, 42710 for a name that is taken.';

CREATE FUNCTION imgpipe.start_source(name text) RETURNS void
	LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	source imgpipe.sources := imgpipe.own_source(name);
BEGIN
	IF NOT imgpipe.workers_available() THEN
		RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
			MESSAGE = format('source "%s" cannot be started', name),
			DETAIL = 'imgpipe is not in shared_preload_libraries, so it has no background workers.',
			HINT = 'Set shared_preload_libraries = ''imgpipe'' in postgresql.conf and restart the server.';
	END IF;
	IF source.owner = current_user::regrole THEN
		PERFORM imgpipe.check_source_owner(source.server);
	END IF;
	UPDATE imgpipe.sources s SET enabled = true, started_in = imgpipe.database_identity()
		WHERE s.source_id = source.source_id
			AND (NOT s.enabled OR s.started_in IS DISTINCT FROM imgpipe.database_identity());
	PERFORM imgpipe.wake_controller();
END
$$;
COMMENT ON FUNCTION imgpipe.start_source(text) IS
'Starts a source: workers begin to ingest as soon as the transaction commits, where they left off, and again by themselves after every restart of the server, until stop_source(). imgpipe.source_status shows what they do. Raises 55000 where imgpipe is not in shared_preload_libraries, 42704 where there is no such source, 42501 for a role that is not a member of its owner; as the owner also what create_source() raises for missing rights.';

CREATE FUNCTION imgpipe.stop_source(name text) RETURNS void
	LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	source imgpipe.sources := imgpipe.own_source(name);
BEGIN
	UPDATE imgpipe.sources s SET enabled = false WHERE s.source_id = source.source_id AND s.enabled;
	PERFORM imgpipe.wake_controller();
END
$$;
COMMENT ON FUNCTION imgpipe.stop_source(text) IS
'Stops a source. Its workers end within moments of the commit, after the batch in hand or without it; imgpipe.source_status says stopping until then. start_source() goes on where they ended: nothing is lost or doubled. Raises 42704 where there is no such source, 42501 for a role that is not a member of its owner.';

CREATE FUNCTION imgpipe.drop_source(name text) RETURNS void
	LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	source imgpipe.sources := imgpipe.own_source(name);
BEGIN
	IF source.enabled THEN
		RAISE EXCEPTION USING ERRCODE = 'object_in_use',
			MESSAGE = format('source "%s" is started', name),
			HINT = format('SELECT imgpipe.stop_source(%L);', name);
	END IF;
	DELETE FROM imgpipe.sources s WHERE s.source_id = source.source_id;
END
$$;
COMMENT ON FUNCTION imgpipe.drop_source(text) IS
'Drops a stopped source and its positions. Its images stay until their deadlines; a source of the same name made later begins anew. Raises 55006 where it is started, 42704 where there is no such source, 42501 for a role that is not a member of its owner.';

CREATE FUNCTION imgpipe.set_source_position(name text, partition integer, next_offset bigint) RETURNS void
	LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	source imgpipe.sources := imgpipe.own_source(name);
BEGIN
	IF source.enabled THEN
		RAISE EXCEPTION USING ERRCODE = 'object_in_use',
			MESSAGE = format('source "%s" is started', name),
			HINT = format('SELECT imgpipe.stop_source(%L);', name);
	END IF;
	IF partition < 0 OR next_offset < 0 THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
			MESSAGE = 'partitions and offsets begin with 0',
			DETAIL = format('Partition %s and offset %s were given.', partition, next_offset);
	END IF;
	INSERT INTO imgpipe.ingest_positions AS p (source_id, partition, next_offset)
		VALUES (source.source_id, partition, next_offset)
		ON CONFLICT ON CONSTRAINT ingest_positions_pkey DO UPDATE
			SET next_offset = EXCLUDED.next_offset, high_watermark = NULL, last_offset = NULL,
				last_timestamp = NULL, updated_at = clock_timestamp();
END
$$;
COMMENT ON FUNCTION imgpipe.set_source_position(text, integer, bigint) IS
'Sets where a partition of a stopped source goes on, for example after its topic was made anew or messages were deleted before they were ingested. An offset that was ingested before makes images of its messages a second time; one further on leaves messages out. Needs SELECT, INSERT and UPDATE on imgpipe.ingest_positions. Raises 55006 where the source is started, 22023 for a negative number, 42704 where there is no such source, 42501 for a role that is not a member of its owner.';

CREATE VIEW imgpipe.source_status AS
	SELECT s.name, s.server, s.topic, s.owner,
		CASE
			WHEN NOT s.enabled AND w.alive OPERATOR(pg_catalog.=) 0 THEN 'stopped'
			WHEN NOT s.enabled THEN 'stopping'
			WHEN NOT imgpipe.workers_available() OR w.failed OPERATOR(pg_catalog.>) 0 THEN 'failed'
			WHEN w.retrying OPERATOR(pg_catalog.>) 0 THEN 'retrying'
			WHEN w.ready OPERATOR(pg_catalog.<) s.parallelism THEN 'starting'
			WHEN w.running OPERATOR(pg_catalog.>) 0 THEN 'running'
			ELSE 'idle'
		END AS state,
		w.since,
		w.alive AS workers,
		p.partitions,
		COALESCE(w.lag, p.lag) AS lag_messages,
		CASE WHEN COALESCE(w.lag, p.lag) OPERATOR(pg_catalog.>) 0
			THEN pg_catalog.round(pg_catalog.extract('epoch', pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) p.behind_since), 1)
			WHEN COALESCE(w.lag, p.lag) OPERATOR(pg_catalog.=) 0 THEN 0 END AS lag_seconds,
		w.messages, w.bytes, w.dead_letters, w.messages_per_second, w.bytes_per_second,
		p.updated_at AS last_batch_at,
		CASE WHEN s.enabled AND NOT imgpipe.workers_available()
			THEN 'imgpipe is not in shared_preload_libraries' ELSE w.last_error END AS last_error,
		w.last_error_at
	FROM imgpipe.sources s
		CROSS JOIN LATERAL (
			SELECT pg_catalog.count(*)::integer AS partitions,
				pg_catalog.sum(GREATEST(ip.high_watermark OPERATOR(pg_catalog.-) ip.next_offset, 0))::bigint AS lag,
				COALESCE(pg_catalog.min(COALESCE(ip.last_timestamp, ip.updated_at))
					FILTER (WHERE ip.high_watermark OPERATOR(pg_catalog.>) ip.next_offset),
					pg_catalog.max(ip.last_timestamp)) AS behind_since,
				pg_catalog.max(ip.updated_at) AS updated_at
			FROM imgpipe.ingest_positions ip WHERE ip.source_id OPERATOR(pg_catalog.=) s.source_id) p
		CROSS JOIN LATERAL (
			SELECT pg_catalog.max(ws.since) AS since,
				pg_catalog.count(ws.pid)::integer AS alive,
				pg_catalog.count(*) FILTER (WHERE ws.state OPERATOR(pg_catalog.=) 'failed') AS failed,
				pg_catalog.count(*) FILTER (WHERE ws.state OPERATOR(pg_catalog.=) 'retrying') AS retrying,
				pg_catalog.count(*) FILTER (WHERE ws.state OPERATOR(pg_catalog.=) 'running') AS running,
				pg_catalog.count(*) FILTER (WHERE ws.state OPERATOR(pg_catalog.=) ANY ('{running,idle}')) AS ready,
				CASE WHEN pg_catalog.count(ws.lag) FILTER (WHERE ws.pid IS NOT NULL) OPERATOR(pg_catalog.=) s.parallelism
					THEN pg_catalog.sum(ws.lag)::bigint END AS lag,
				COALESCE(pg_catalog.sum(ws.messages), 0)::bigint AS messages,
				COALESCE(pg_catalog.sum(ws.bytes), 0)::bigint AS bytes,
				COALESCE(pg_catalog.sum(ws.failed), 0)::bigint AS dead_letters,
				COALESCE(pg_catalog.sum(ws.messages_per_second) FILTER (WHERE ws.pid IS NOT NULL), 0) AS messages_per_second,
				COALESCE(pg_catalog.sum(ws.bytes_per_second) FILTER (WHERE ws.pid IS NOT NULL), 0) AS bytes_per_second,
				(pg_catalog.array_agg(ws.last_error ORDER BY ws.last_error_at DESC) FILTER (WHERE ws.last_error IS NOT NULL))[1] AS last_error,
				pg_catalog.max(ws.last_error_at) AS last_error_at
			FROM imgpipe.worker_slots() ws
			WHERE ws.kind OPERATOR(pg_catalog.=) 'ingest' AND ws.object OPERATOR(pg_catalog.=) s.source_id) w;
COMMENT ON VIEW imgpipe.source_status IS
'One row a source: what it is doing now. state: stopped, stopping, starting, running, idle (all that there is, is ingested), retrying (something is in the way, last_error says what, and it is tried again without end), failed (a worker ended; the controller starts it again after a while). messages, bytes and dead_letters count since the server started, rates are over about 10 seconds. Who shall see this needs SELECT on the view and EXECUTE on imgpipe.worker_slots().';
COMMENT ON COLUMN imgpipe.source_status.since IS 'When a worker of the source last changed its state.';
COMMENT ON COLUMN imgpipe.source_status.lag_messages IS 'Messages that are in the topic and not yet ingested, as of the last look (last_batch_at or a few seconds ago).';
COMMENT ON COLUMN imgpipe.source_status.lag_seconds IS 'How long ago the last ingested message was made, in the partition furthest behind; 0 where none is behind.';
COMMENT ON COLUMN imgpipe.source_status.last_error IS 'The latest error of any of its workers since the server started; it may be over. See state.';
