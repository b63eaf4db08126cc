
/* What users do with sources. */

CREATE FUNCTION imgpipe.database_identity() RETURNS text
	AS 'MODULE_PATHNAME', 'imgpipe_database_identity'
	LANGUAGE C STABLE PARALLEL SAFE;
COMMENT ON FUNCTION imgpipe.database_identity() IS
'System identifier of the cluster, oid of the database, and, in a server that was restored from a base backup, a name of its own: the same after a restart and on a promoted standby, another where a dump or a base backup was restored.';

CREATE FUNCTION imgpipe.check_source_owner(server text, owner regrole) RETURNS void
	LANGUAGE plpgsql STABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	wrapper name;
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
	IF NOT has_server_privilege(owner::oid, server, 'USAGE') THEN
		RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege',
			MESSAGE = format('role %s may not use server "%s"', owner, server),
			HINT = format('GRANT USAGE ON FOREIGN SERVER %I TO %s;', server, owner);
	END IF;
	IF NOT has_schema_privilege(owner::oid, 'imgpipe', 'USAGE')
		OR NOT has_table_privilege(owner::oid, 'imgpipe.images', 'INSERT')
		OR NOT has_table_privilege(owner::oid, 'imgpipe.dead_letters', 'INSERT') THEN
		RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege',
			MESSAGE = format('role %s may not insert images', owner),
			DETAIL = 'A source inserts images and dead letters with the rights of its owner.',
			HINT = format('GRANT USAGE ON SCHEMA imgpipe TO %s; GRANT INSERT ON imgpipe.images, imgpipe.dead_letters TO %1$s;', owner);
	END IF;
	-- From PostgreSQL 17 on, a background worker may run as any role.
	IF current_setting('server_version_num')::integer < 170000
		AND NOT (SELECT r.rolcanlogin FROM pg_roles r WHERE r.oid = owner) THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_authorization_specification',
			MESSAGE = format('role %s cannot own a source', owner),
			DETAIL = 'Before PostgreSQL 17 a background worker runs only as a role with LOGIN.',
			HINT = format('ALTER ROLE %s LOGIN; (it needs no password), or create the source as another role.', owner);
	END IF;
	IF NOT has_database_privilege(owner::oid, current_database(), 'CONNECT') THEN
		RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege',
			MESSAGE = format('role %s may not connect to database "%s"', owner, current_database()),
			DETAIL = 'A source''s workers connect as its owner.',
			HINT = format('GRANT CONNECT ON DATABASE %I TO %s;', current_database(), owner);
	END IF;
END
$$;
COMMENT ON FUNCTION imgpipe.check_source_owner(text, regrole) IS
'Raises 42704, 42809, 42501 or 28000, with the statement that helps, where a worker could not ingest from that server as that role.';

CREATE FUNCTION imgpipe.own_source(name text) RETURNS imgpipe.sources
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
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

CREATE FUNCTION imgpipe.check_start_from(start_from text) RETURNS text
	LANGUAGE plpgsql STABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
	SET timezone = 'UTC'
	SET datestyle = 'ISO'
AS $$
DECLARE
	offsets jsonb;
	reason text;
BEGIN
	IF start_from IN ('earliest', 'latest') THEN
		RETURN start_from;
	END IF;
	BEGIN
		IF start_from ~ '^\s*\{' THEN
			offsets := start_from::jsonb;
			SELECT format('%s is at %s.', e.key, e.value) INTO reason FROM jsonb_each(offsets) e
				WHERE e.key !~ '^(0|[1-9][0-9]{0,8})$' OR e.value::text !~ '^[0-9]{1,18}$' LIMIT 1;
			IF reason IS NULL AND offsets <> '{}' THEN
				RETURN offsets::text;
			END IF;
		ELSIF start_from::timestamptz BETWEEN '1970-01-01' AND '9999-01-01' THEN
			RETURN start_from::timestamptz::text;
		END IF;
	EXCEPTION WHEN data_exception THEN
		reason := NULL;
	END;
	RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
		MESSAGE = 'not a place to start from',
		DETAIL = coalesce(reason, format('It is %s.', coalesce('"' || start_from || '"', 'NULL'))),
		HINT = 'Give earliest, latest, offsets by partition such as {"0": 1500, "1": 1200}, or a time such as 2026-11-20 18:00+00.';
END
$$;
COMMENT ON FUNCTION imgpipe.check_start_from(text) IS
'What create_source() and seek_source() take as a place in a topic, in the form in which sources.start_from has it. Raises 22023 for anything else.';

CREATE FUNCTION imgpipe.check_source_options(retention interval, parallelism integer, batch_rows integer, batch_bytes integer,
	linger_ms integer, max_backlog integer, slice integer, slices integer, consumer_group text, format text, content_field text,
	on_tombstone text, chunk_timeout interval) RETURNS void
	LANGUAGE plpgsql STABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	bounded record;
BEGIN
	IF retention < interval '1 minute' OR retention > interval '10 years' THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
			MESSAGE = 'retention must be between 1 minute and 10 years',
			DETAIL = format('It is %s.', retention);
	END IF;
	IF retention > imgpipe.longest_retention() THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
			MESSAGE = 'retention is longer than images may be kept',
			DETAIL = format('It is %s; the longest is %s.', retention, imgpipe.longest_retention()),
			HINT = 'Choose a shorter one, or have a superuser raise imgpipe.max_retention.';
	END IF;
	FOR bounded IN SELECT * FROM (VALUES ('parallelism', parallelism, 1, 64), ('batch_rows', batch_rows, 1, 100000),
		('batch_bytes', batch_bytes, 1048576, 1073741824), ('linger_ms', linger_ms, 0, 60000),
		('max_backlog', max_backlog, 0, 2147483647), ('slices', slices, 1, 1000), ('slice', slice, 0, slices - 1)) v (name, value, minimum, maximum)
	LOOP
		IF (bounded.value BETWEEN bounded.minimum AND bounded.maximum) IS NOT TRUE THEN
			RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
				MESSAGE = format('%s must be between %s and %s', bounded.name, bounded.minimum, bounded.maximum),
				DETAIL = format('It is %s.', coalesce(bounded.value::text, 'NULL'));
		END IF;
	END LOOP;
	IF consumer_group !~ '^[!-~]{1,249}$' THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_name',
			MESSAGE = format('consumer group name "%s" is not valid', consumer_group),
			HINT = 'Give 1 to 249 characters of ASCII without spaces.';
	END IF;
	IF (format = ANY ('{raw,json,chunked}')) IS NOT TRUE OR (content_field <> '') IS NOT TRUE THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
			MESSAGE = 'format must be raw, chunked, or json with a content_field',
			DETAIL = pg_catalog.format('They are %s and %s.', coalesce('"' || format || '"', 'NULL'), coalesce('"' || content_field || '"', 'NULL'));
	END IF;
	IF (on_tombstone = ANY ('{dead_letter,ignore,delete,expire}')) IS NOT TRUE THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
			MESSAGE = 'on_tombstone must be dead_letter, ignore, delete or expire',
			DETAIL = pg_catalog.format('It is %s.', coalesce('"' || on_tombstone || '"', 'NULL'));
	END IF;
	IF (chunk_timeout BETWEEN interval '1 second' AND interval '7 days') IS NOT TRUE
		OR (format = 'chunked' AND chunk_timeout >= coalesce(retention, imgpipe.setting('imgpipe.retention')::interval)) THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
			MESSAGE = 'chunk_timeout must be between 1 second and 7 days, and shorter than the retention',
			DETAIL = pg_catalog.format('It is %s; the retention is %s.', coalesce(chunk_timeout::text, 'NULL'),
				coalesce(retention, imgpipe.setting('imgpipe.retention')::interval)),
			HINT = 'At its deadline an image in chunks is purged, complete or not.';
	END IF;
END
$$;
COMMENT ON FUNCTION imgpipe.check_source_options(interval, integer, integer, integer, integer, integer, integer, integer, text, text, text, text, interval) IS
'Raises 22023 or 42602 where create_source() or alter_source() cannot take an option.';

CREATE FUNCTION imgpipe.check_topic_name(topic text) RETURNS void
	LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	IF (topic !~ '^[A-Za-z0-9._-]{1,249}$') IS NOT FALSE THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_name',
			MESSAGE = format('topic name %s is not valid', coalesce('"' || topic || '"', 'NULL')),
			HINT = 'Kafka''s topic names have 1 to 249 letters of ASCII, digits, ".", "_" and "-".';
	END IF;
END
$$;
COMMENT ON FUNCTION imgpipe.check_topic_name(text) IS
'Raises 42602 where that is no name of a Kafka topic.';

CREATE FUNCTION imgpipe.check_result_options(topic text, result_topic text, dead_letter_topic text, notify_channel text) RETURNS void
	LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	name text;
BEGIN
	FOREACH name IN ARRAY array_remove(ARRAY[result_topic, dead_letter_topic], NULL) LOOP
		PERFORM imgpipe.check_topic_name(name);
		IF name = topic THEN
			RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
				MESSAGE = 'a source cannot send to its own topic',
				DETAIL = format('It is "%s". What is sent there would be ingested, and give messages again.', topic),
				HINT = 'Name another topic in result_topic and dead_letter_topic.';
		END IF;
	END LOOP;
	IF octet_length(notify_channel) NOT BETWEEN 1 AND 63 THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_name',
			MESSAGE = format('channel name "%s" is not valid', notify_channel),
			HINT = 'Give 1 to 63 bytes.';
	END IF;
END
$$;
COMMENT ON FUNCTION imgpipe.check_result_options(text, text, text, text) IS
'Raises 42602 or 22023 where a source cannot send its results there.';

CREATE FUNCTION imgpipe.create_source(name text, server text, topic text, retention interval DEFAULT NULL,
	parallelism integer DEFAULT 1, start_from text DEFAULT 'earliest', batch_rows integer DEFAULT 500,
	batch_bytes integer DEFAULT 16777216, linger_ms integer DEFAULT 20, max_backlog integer DEFAULT 0,
	slice integer DEFAULT 0, slices integer DEFAULT 1, consumer_group text DEFAULT NULL,
	format text DEFAULT 'raw', content_field text DEFAULT 'content', on_tombstone text DEFAULT 'dead_letter',
	result_topic text DEFAULT NULL, dead_letter_topic text DEFAULT NULL, notify_channel text DEFAULT NULL,
	chunk_timeout interval DEFAULT '1 hour') RETURNS integer
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	new_id integer;
BEGIN
	IF name = 'sql' OR (name !~ '^[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}$') IS NOT FALSE THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_name',
			MESSAGE = format('source name %s is not valid', coalesce('"' || name || '"', 'NULL')),
			HINT = 'A name has 1 to 63 letters of ASCII, digits, "_", "." and "-", and begins with none of the last two; "sql" is for images that are inserted.';
	END IF;
	PERFORM imgpipe.check_topic_name(topic);
	PERFORM imgpipe.check_result_options(topic, result_topic, dead_letter_topic, notify_channel);
	PERFORM imgpipe.check_source_options(retention, parallelism, batch_rows, batch_bytes, linger_ms, max_backlog, slice, slices, consumer_group,
		format, content_field, on_tombstone, chunk_timeout);
	start_from := imgpipe.check_start_from(start_from);
	PERFORM imgpipe.check_source_owner(server, current_user::regrole);
	BEGIN
		INSERT INTO imgpipe.sources AS s (name, server, topic, retention, parallelism, start_from, batch_rows, batch_bytes, linger_ms,
				max_backlog, slice, slices, consumer_group, format, content_field, on_tombstone, result_topic, dead_letter_topic, notify_channel,
				chunk_timeout)
			VALUES (name, server, topic, retention, parallelism, start_from, batch_rows, batch_bytes, linger_ms,
				max_backlog, slice, slices, consumer_group, format, content_field, on_tombstone, result_topic, dead_letter_topic, notify_channel,
				chunk_timeout)
			RETURNING s.source_id INTO new_id;
	EXCEPTION WHEN unique_violation THEN
		RAISE EXCEPTION USING ERRCODE = 'duplicate_object',
			MESSAGE = format('source "%s" already exists', name),
			HINT = 'Choose another name, or drop that one with imgpipe.drop_source().';
	END;
	-- Its retention may be the longest: partitions for it are made now.
	PERFORM imgpipe.wake_controller();
	PERFORM imgpipe.require_workers(format('source "%s" cannot be started', name), or_wait => true);
	RETURN new_id;
END
$$;
COMMENT ON FUNCTION imgpipe.create_source(text, text, text, interval, integer, text, integer, integer, integer, integer, integer, integer, text, text, text, text, text, text, text, interval) IS
'Makes a source of images, one Kafka topic of a server of imgpipe_kafka, and returns its source_id; a topic may have several sources. It is stopped; start_source() starts it. The value of each message is an image file; key, headers, partition, offset and timestamp are kept with it, and the headers batch_id and uploaded_by go to the columns of that name. What is no image goes to imgpipe.dead_letters, the rest goes on. retention: how long its images are kept (1 minute to imgpipe.max_retention), NULL for imgpipe.retention. parallelism: workers (1 to 64), each with its share of the partitions. start_from, for the first start: earliest, latest, offsets by partition ({"0": 1500, "1": 1200}; others begin at their beginning) or a time (the first message of each partition that is not older). batch_rows (1 to 100000), batch_bytes (1 MB to 1 GB) and linger_ms (0 to 60000) bound one transaction. max_backlog: ingest rests, in state waiting, while more tasks than this are queued in the database, Kafka being the buffer; 0 for never. slice and slices: of the partitions only those whose number modulo slices (1 to 1000) is slice, so that several databases share a topic. consumer_group: under this name the positions are told to Kafka after they are committed here, for tools that watch groups; imgpipe itself never reads them; NULL for not at all. format: raw, or json, where the value is a JSON object that has the file in base64 in the field content_field; its other fields join the headers, and batch_id and uploaded_by among them count where there is no such header; or chunked, where a message with header imgpipe-chunk-id is a part of an image (imgpipe-chunk-index from 0 on, of imgpipe-chunk-count, at most 10000, and if they like imgpipe-chunk-size and imgpipe-chunk-sha256 of the whole; all parts with the same key), and one without is an image. chunk_timeout: an image that has waited so long (1 second to 7 days, less than the retention) for its next chunk becomes a dead letter. on_tombstone: what a message without a value does: dead_letter, ignore, delete, which deletes the images that came from this source with its key before, and all that was made of them, or expire, which ends them as their deadline would: what a legal hold is on is copied, the daily volume keeps them, the purge ledger has an entry, and they do not come back by being read again. result_topic: a topic of the same server that gets one message for each image when all its tasks are done, or for the message that did not become one; see image_result() for what it says. dead_letter_topic: one that gets a copy of each dead letter. notify_channel: a channel (1 to 63 bytes) of NOTIFY that hears {"image_id", "source", "status"} of each. Images that are inserted by SQL give no message. The source belongs to the current role, whose rights its workers have. The role needs USAGE on the server and on schema imgpipe, INSERT on images and dead_letters, SELECT, INSERT, UPDATE and DELETE on sources, and before PostgreSQL 17 LOGIN. Raises 42602 for a name, 22023 for a parameter, 42704 for a server that does not exist, 42809 for a server of another wrapper, 42501 and 28000 for missing rights, 42710 for a name that is taken.';

CREATE FUNCTION imgpipe.alter_source(name text, retention interval DEFAULT NULL, parallelism integer DEFAULT NULL,
	batch_rows integer DEFAULT NULL, batch_bytes integer DEFAULT NULL, linger_ms integer DEFAULT NULL, max_backlog integer DEFAULT NULL,
	slice integer DEFAULT NULL, slices integer DEFAULT NULL, consumer_group text DEFAULT NULL,
	result_topic text DEFAULT NULL, dead_letter_topic text DEFAULT NULL, notify_channel text DEFAULT NULL, format text DEFAULT NULL,
	content_field text DEFAULT NULL, on_tombstone text DEFAULT NULL, chunk_timeout interval DEFAULT NULL) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	source imgpipe.sources := imgpipe.own_source(name);
	changed imgpipe.sources := source;
BEGIN
	changed.retention := CASE WHEN retention = interval '0' THEN NULL ELSE coalesce(retention, source.retention) END;
	changed.parallelism := coalesce(parallelism, source.parallelism);
	changed.batch_rows := coalesce(batch_rows, source.batch_rows);
	changed.batch_bytes := coalesce(batch_bytes, source.batch_bytes);
	changed.linger_ms := coalesce(linger_ms, source.linger_ms);
	changed.max_backlog := coalesce(max_backlog, source.max_backlog);
	changed.slice := coalesce(slice, source.slice);
	changed.slices := coalesce(slices, source.slices);
	changed.consumer_group := nullif(coalesce(consumer_group, source.consumer_group), '');
	changed.result_topic := nullif(coalesce(result_topic, source.result_topic), '');
	changed.dead_letter_topic := nullif(coalesce(dead_letter_topic, source.dead_letter_topic), '');
	changed.notify_channel := nullif(coalesce(notify_channel, source.notify_channel), '');
	PERFORM imgpipe.check_result_options(source.topic, changed.result_topic, changed.dead_letter_topic, changed.notify_channel);
	changed.format := coalesce(format, source.format);
	changed.content_field := coalesce(content_field, source.content_field);
	changed.on_tombstone := coalesce(on_tombstone, source.on_tombstone);
	changed.chunk_timeout := coalesce(chunk_timeout, source.chunk_timeout);
	PERFORM imgpipe.check_source_options(changed.retention, changed.parallelism, changed.batch_rows, changed.batch_bytes,
		changed.linger_ms, changed.max_backlog, changed.slice, changed.slices, changed.consumer_group,
		changed.format, changed.content_field, changed.on_tombstone, changed.chunk_timeout);
	IF (changed.slice, changed.slices) <> (source.slice, source.slices) AND source.enabled THEN
		RAISE EXCEPTION USING ERRCODE = 'object_in_use',
			MESSAGE = format('source "%s" is started', name),
			DETAIL = 'Which partitions are ingested here can change only while nothing is.',
			HINT = format('SELECT imgpipe.stop_source(%L); on all nodes that share the topic, and see imgpipe.seek_source().', name);
	END IF;
	UPDATE imgpipe.sources s SET retention = changed.retention, parallelism = changed.parallelism, batch_rows = changed.batch_rows,
			batch_bytes = changed.batch_bytes, linger_ms = changed.linger_ms, max_backlog = changed.max_backlog,
			slice = changed.slice, slices = changed.slices, consumer_group = changed.consumer_group,
			result_topic = changed.result_topic, dead_letter_topic = changed.dead_letter_topic, notify_channel = changed.notify_channel,
			format = changed.format, content_field = changed.content_field, on_tombstone = changed.on_tombstone,
			chunk_timeout = changed.chunk_timeout
		WHERE s.source_id = source.source_id;
	PERFORM imgpipe.wake_controller();
END
$$;
COMMENT ON FUNCTION imgpipe.alter_source(text, interval, integer, integer, integer, integer, integer, integer, integer, text, text, text, text, text, text, text, interval) IS
'Changes options of a source, which are those of create_source(); NULL keeps one as it is, a retention of 0 is imgpipe.retention again, a max_backlog of 0 no limit, and an empty consumer_group, result_topic, dead_letter_topic or notify_channel none. Messages of images that are there already go where the source said when they came. A source that is started takes the change within about 10 seconds, between two batches: nothing is lost or doubled, and a format holds for the messages that are not ingested yet. Images that are there keep their deadlines. slice and slices only while it is stopped: a partition that was not ingested here before begins at its beginning unless seek_source() says where. Raises 22023 and 42602 for an option, 55006 where slices are to change and it is started, 42704 where there is no such source, 42501 for a role that is not a member of its owner.';

CREATE FUNCTION imgpipe.start_source(name text) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	source imgpipe.sources := imgpipe.own_source(name);
BEGIN
	PERFORM imgpipe.require_workers(format('source "%s" cannot be started', name));
	IF source.started_in <> imgpipe.database_identity() THEN
		RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
			MESSAGE = format('source "%s" was started in another database, of which this is a copy', name),
			DETAIL = 'Where the other one goes on as well, both ingest the same messages.',
			HINT = format('SELECT imgpipe.adopt_source(%L); has it ingest here.', name);
	END IF;
	PERFORM imgpipe.check_source_owner(source.server, source.owner);
	UPDATE imgpipe.sources s SET enabled = true, started_in = imgpipe.database_identity()
		WHERE s.source_id = source.source_id AND NOT s.enabled;
	PERFORM imgpipe.wake_controller();
END
$$;
COMMENT ON FUNCTION imgpipe.start_source(text) IS
'Starts a source: workers begin to ingest as soon as the transaction commits, where they left off, and again by themselves after every restart of the server, until stop_source(); the two are also how a source is paused and resumed. imgpipe.source_status shows what they do. Raises 55000 where imgpipe is not in shared_preload_libraries or the source came here with a dump or a base backup (see adopt_source()), 42704 where there is no such source, 42501 for a role that is not a member of its owner, and what create_source() raises where the owner lacks a right.';

CREATE FUNCTION imgpipe.adopt_source(name text) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	source imgpipe.sources := imgpipe.own_source(name);
BEGIN
	UPDATE imgpipe.sources s SET started_in = NULL WHERE s.source_id = source.source_id AND NOT s.enabled;
	UPDATE imgpipe.sources s SET started_in = imgpipe.database_identity() WHERE s.source_id = source.source_id AND s.enabled;
	IF num_nonnulls(source.result_topic, source.dead_letter_topic) > 0 THEN
		PERFORM imgpipe.adopt_outbox();
	END IF;
	PERFORM imgpipe.wake_controller();
	PERFORM imgpipe.require_workers(format('source "%s" waits for workers', name), or_wait => true);
END
$$;
COMMENT ON FUNCTION imgpipe.adopt_source(text) IS
'Makes a source that came here with the restore of a dump or of a base backup one of this database: where it was started there, its workers begin to ingest here as soon as the transaction commits, at the positions that came with it. Until then it is held up, so that a copy for a test does not ingest. A standby that is promoted goes on by itself. So does a copy that was made and started as one (pg_basebackup -R), or by a snapshot of the disks, which cannot be told from the original: set imgpipe.max_ingest_workers = 0 there before its first start. Raises 42704 where there is no such source, 42501 for a role that is not a member of its owner.';

CREATE FUNCTION imgpipe.stop_source(name text) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
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
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
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
'Drops a stopped source and its positions. Its images stay until their deadlines, and so do chunks of images that are not complete, which come to nothing; a source of the same name made later begins anew. Raises 55006 where it is started, 42704 where there is no such source, 42501 for a role that is not a member of its owner.';

CREATE FUNCTION imgpipe.seek_source(name text, start_from text, restore_expired boolean DEFAULT false) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
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
	start_from := imgpipe.check_start_from(start_from);
	IF start_from ~ '^\{' THEN
		INSERT INTO imgpipe.ingest_positions AS p (source_id, partition, next_offset)
			SELECT source.source_id, e.key::integer, e.value::bigint FROM jsonb_each_text(start_from::jsonb) e
			ON CONFLICT ON CONSTRAINT ingest_positions_pkey DO UPDATE
				SET next_offset = EXCLUDED.next_offset, high_watermark = NULL, last_offset = NULL, last_timestamp = NULL, anchor_offset = NULL, anchor_timestamp = NULL,
					ingested_to = CASE WHEN NOT restore_expired THEN greatest(p.ingested_to, p.last_offset + 1) END,
					updated_at = clock_timestamp();
	ELSE
		UPDATE imgpipe.ingest_positions p
			SET next_offset = NULL, high_watermark = NULL, last_offset = NULL, last_timestamp = NULL, anchor_offset = NULL, anchor_timestamp = NULL,
				ingested_to = CASE WHEN NOT restore_expired THEN greatest(p.ingested_to, p.last_offset + 1) END,
				updated_at = clock_timestamp()
			WHERE p.source_id = source.source_id;
		UPDATE imgpipe.sources s SET start_from = seek_source.start_from WHERE s.source_id = source.source_id;
	END IF;
	-- It may have been moved because the server is another one now.
	UPDATE imgpipe.sources s SET cluster_id = NULL WHERE s.source_id = source.source_id;
END
$$;
COMMENT ON FUNCTION imgpipe.seek_source(text, text, boolean) IS
'Says where a stopped source goes on: earliest, latest, a time (each partition at its first message that is not older), or offsets by partition ({"0": 1500}), where partitions that are not named stay as they are. For example after its topic was made anew, messages were deleted before they were ingested, or the server leads to another cluster. Messages that were ingested before become images a second time, those apart whose Kafka timestamp and the source''s retention together are past: what was purged does not come back unless restore_expired is true. Messages in between are left out by a move forward. Needs SELECT, INSERT and UPDATE on imgpipe.ingest_positions. Raises 55006 where the source is started, 22023 for the place, 42704 where there is no such source, 42501 for a role that is not a member of its owner.';
