
/*
 * The outbox: messages on their way to Kafka; see src/outbox/.
 *
 * A row is written in the transaction of what it tells of and deleted after
 * Kafka has acknowledged it.  In between lies one sender for each Kafka server
 * and role, whose worker connects as that role and sends in the order of
 * message_id.  A row that is pending has a place in that order and no value
 * yet: what has the same key, in the same topic, waits behind it.
 */

CREATE TABLE imgpipe.senders (
	sender_id integer PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
	server text NOT NULL,
	owner regrole NOT NULL,
	started_in text NOT NULL DEFAULT imgpipe.database_identity(),
	messages bigint NOT NULL DEFAULT 0,
	bytes bigint NOT NULL DEFAULT 0,
	refused bigint NOT NULL DEFAULT 0,
	last_sent_at timestamptz,
	created_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	UNIQUE (server, owner)
);
COMMENT ON TABLE imgpipe.senders IS
'Who sends what is in the outbox: one row for each Kafka server and role that messages go out with the rights of. See imgpipe.outbox_status.';
COMMENT ON COLUMN imgpipe.senders.started_in IS 'The database that may send: a copy of it, restored from a dump or a base backup, does not until adopt_source() or adopt_outbox().';
COMMENT ON COLUMN imgpipe.senders.messages IS 'Messages ever acknowledged by Kafka; bytes likewise. refused: those that it never will take.';

CREATE TABLE imgpipe.outbox (
	image_id uuid NOT NULL DEFAULT imgpipe.new_image_id(),
	message_id bigint NOT NULL GENERATED ALWAYS AS IDENTITY,
	kind text NOT NULL CHECK (kind OPERATOR(pg_catalog.=) ANY ('{result,dead_letter,message}')),
	state text NOT NULL CHECK (state OPERATOR(pg_catalog.=) ANY ('{pending,ready,refused}')),
	sender_id integer,
	topic text,
	key bytea,
	order_key bigint,
	value bytea,
	header_names text[] NOT NULL DEFAULT '{}',
	header_values bytea[] NOT NULL DEFAULT '{}',
	dead_letter_topic text,
	notify_channel text,
	error text,
	created_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	PRIMARY KEY (image_id, message_id)
) PARTITION BY RANGE (image_id);
ALTER TABLE imgpipe.outbox ALTER COLUMN value SET STORAGE external;
-- What must not outlive its purge is not to be found in statistics.
ALTER TABLE imgpipe.outbox
	ALTER key SET STATISTICS 0, ALTER order_key SET STATISTICS 0, ALTER value SET STATISTICS 0,
	ALTER header_values SET STATISTICS 0, ALTER error SET STATISTICS 0;
CREATE INDEX ON imgpipe.outbox (sender_id, message_id) WHERE state OPERATOR(pg_catalog.=) 'ready';
CREATE INDEX ON imgpipe.outbox (order_key, message_id) WHERE state OPERATOR(pg_catalog.=) 'pending';
COMMENT ON TABLE imgpipe.outbox IS
'Messages that Kafka has not acknowledged yet, purged with the images that they tell of.';
COMMENT ON COLUMN imgpipe.outbox.image_id IS 'The image or dead letter; of other messages an id of their own with the deadline of imgpipe.retention.';
COMMENT ON COLUMN imgpipe.outbox.message_id IS 'Order of sending.';
COMMENT ON COLUMN imgpipe.outbox.state IS 'pending: the image is being processed; ready: to be sent; refused: Kafka will not take it as it is, error says why. See resend_refused().';
COMMENT ON COLUMN imgpipe.outbox.topic IS 'NULL: nothing goes to Kafka when the image is done, listeners are told.';
COMMENT ON COLUMN imgpipe.outbox.order_key IS 'Hash of topic and key: what has the same keeps its order. NULL: there is no key.';
COMMENT ON COLUMN imgpipe.outbox.dead_letter_topic IS 'Where a copy goes if a processor gives the image up.';

ALTER TABLE imgpipe.outbox ENABLE ROW LEVEL SECURITY;
CREATE POLICY granted ON imgpipe.outbox USING (true);
CREATE POLICY fence ON imgpipe.outbox AS RESTRICTIVE USING (image_id OPERATOR(pg_catalog.>=) imgpipe.fence());
CREATE POLICY horizon ON imgpipe.outbox AS RESTRICTIVE USING (true) WITH CHECK (image_id OPERATOR(pg_catalog.<) imgpipe.horizon());

SELECT pg_catalog.pg_extension_config_dump('imgpipe.senders', '');
SELECT pg_catalog.pg_extension_config_dump('imgpipe.senders_sender_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('imgpipe.outbox_message_id_seq', '');

CREATE FUNCTION imgpipe.wake_senders() RETURNS void
	AS 'MODULE_PATHNAME', 'imgpipe_wake_senders'
	LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION imgpipe.wake_senders() IS
'Makes this database''s senders look at the outbox as soon as the transaction commits, or its controller start them. Does nothing where imgpipe is not in shared_preload_libraries.';

CREATE FUNCTION imgpipe.sender_of(server text, owner regrole) RETURNS integer
	LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
	found_id integer;
BEGIN
	SELECT s.sender_id INTO found_id FROM imgpipe.senders s WHERE s.server = server AND s.owner = owner;
	IF NOT FOUND THEN
		INSERT INTO imgpipe.senders AS s (server, owner) VALUES (server, owner)
			ON CONFLICT ON CONSTRAINT senders_server_owner_key DO NOTHING;
		SELECT s.sender_id INTO STRICT found_id FROM imgpipe.senders s WHERE s.server = server AND s.owner = owner;
	END IF;
	RETURN found_id;
END
$$;
COMMENT ON FUNCTION imgpipe.sender_of(text, regrole) IS
'The sender for a Kafka server and a role, made where there is none. Only the owner may, unless granted.';
REVOKE EXECUTE ON FUNCTION imgpipe.sender_of(text, regrole) FROM PUBLIC;

CREATE FUNCTION imgpipe.order_key(topic text, key bytea) RETURNS bigint
	LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT ('x' || left(encode(sha256(convert_to(topic, 'UTF8') || '\x00' || key), 'hex'), 16))::bit(64)::bigint
$$;
COMMENT ON FUNCTION imgpipe.order_key(text, bytea) IS
'What messages of one topic and key have in common, and hardly any others.';

CREATE FUNCTION imgpipe.bytes_of_text(value text) RETURNS bytea
	LANGUAGE sql STABLE STRICT PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT CASE WHEN value ~ '^\\x([0-9a-f]{2})*$' THEN decode(substr(value, 3), 'hex')
		ELSE convert_to(value, getdatabaseencoding()) END
$$;
COMMENT ON FUNCTION imgpipe.bytes_of_text(text) IS
'The bytes of a Kafka key as imgpipe.images.source_key has it: those of the text, or of its hexadecimal form where it begins with \x.';

CREATE FUNCTION imgpipe.header_bytes(value jsonb) RETURNS bytea
	LANGUAGE sql STABLE STRICT PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT CASE
		WHEN jsonb_typeof(value) = 'null' THEN NULL
		WHEN jsonb_typeof(value) = 'object' AND value ->> 'hex' ~ '^([0-9a-f]{2})*$' THEN decode(value ->> 'hex', 'hex')
		ELSE convert_to(value #>> '{}', getdatabaseencoding()) END
$$;
COMMENT ON FUNCTION imgpipe.header_bytes(jsonb) IS
'The bytes of a Kafka header as imgpipe.images.headers has it: text, {"hex": "..."} or null.';

CREATE FUNCTION imgpipe.kafka_headers(headers jsonb, OUT names text[], OUT contents bytea[]) RETURNS record
	LANGUAGE sql STABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT coalesce(array_agg(e.key ORDER BY e.key, v.n), '{}'), coalesce(array_agg(imgpipe.header_bytes(v.value) ORDER BY e.key, v.n), '{}')
		FROM jsonb_each(headers) e
			CROSS JOIN LATERAL jsonb_array_elements(CASE jsonb_typeof(e.value) WHEN 'array' THEN e.value ELSE jsonb_build_array(e.value) END)
				WITH ORDINALITY v (value, n)
$$;
COMMENT ON FUNCTION imgpipe.kafka_headers(jsonb) IS
'Names and bytes of headers in the form of imgpipe.images.headers, ordered by name; those that repeat, an array there, in their order.';

CREATE FUNCTION imgpipe.enqueue_message(server text, topic text, key bytea, value bytea, headers jsonb DEFAULT NULL, image_id uuid DEFAULT NULL)
	RETURNS bigint
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	new_id bigint;
BEGIN
	PERFORM imgpipe.check_topic_name(topic);
	IF NOT EXISTS (SELECT FROM pg_foreign_server s JOIN pg_foreign_data_wrapper w ON w.oid = s.srvfdw
			WHERE s.srvname = server AND w.fdwname = 'imgpipe_kafka') THEN
		RAISE EXCEPTION USING ERRCODE = 'undefined_object',
			MESSAGE = format('Kafka server %s does not exist', coalesce('"' || server || '"', 'NULL')),
			HINT = 'CREATE SERVER ... FOREIGN DATA WRAPPER imgpipe_kafka OPTIONS (bootstrap_servers ''host:port'');';
	END IF;
	INSERT INTO imgpipe.outbox AS o (image_id, kind, state, sender_id, topic, key, order_key, value, header_names, header_values)
		SELECT coalesce(enqueue_message.image_id, imgpipe.new_image_id()), 'message', 'ready',
				imgpipe.sender_of(server, current_user::regrole), enqueue_message.topic, enqueue_message.key,
				imgpipe.order_key(enqueue_message.topic, enqueue_message.key), enqueue_message.value, h.names, h.contents
			FROM imgpipe.kafka_headers(headers) h
		RETURNING o.message_id INTO new_id;
	PERFORM imgpipe.wake_senders();
	PERFORM imgpipe.require_workers('messages to Kafka wait for workers', or_wait => true);
	RETURN new_id;
END
$$;
COMMENT ON FUNCTION imgpipe.enqueue_message(text, text, bytea, bytea, jsonb, uuid) IS
'Puts a message into the outbox and returns its number: it is sent to a topic of an imgpipe_kafka server after the transaction commits, at least once, with the rights and the user mapping of the current role, which before PostgreSQL 17 needs LOGIN. Messages with the same key arrive in the order of these calls where each transaction sees the commit of the one before. headers: an object of names and texts ({"hex": "..."} for other bytes, null, or an array of these). image_id: what its deadline is that of; NULL for imgpipe.retention from now. Raises 42704 for a server that does not exist, 42602 for a topic''s name. Only the owner may, unless granted.';
REVOKE EXECUTE ON FUNCTION imgpipe.enqueue_message(text, text, bytea, bytea, jsonb, uuid) FROM PUBLIC;


/* As the sender worker uses it.  Index scans whatever the statistics say, as for the queue of tasks. */

CREATE FUNCTION imgpipe.senders_with_messages() RETURNS TABLE (sender_id integer, owner regrole)
	LANGUAGE plpgsql STABLE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
	SET enable_seqscan = off
	SET enable_bitmapscan = off
	SET jit = off
AS $$
#variable_conflict use_column
BEGIN
	RETURN QUERY SELECT s.sender_id, s.owner FROM imgpipe.senders s
		WHERE EXISTS (SELECT FROM imgpipe.outbox o
			WHERE o.sender_id = s.sender_id AND o.state = 'ready' AND o.image_id >= imgpipe.fence());
END
$$;
COMMENT ON FUNCTION imgpipe.senders_with_messages() IS
'Senders that have something to send, for the controller.';
REVOKE EXECUTE ON FUNCTION imgpipe.senders_with_messages() FROM PUBLIC;

CREATE FUNCTION imgpipe.claim_messages(sender_id integer, held_topics text[], max_messages integer, max_bytes bigint)
	RETURNS TABLE (message_id bigint, image_id uuid, topic text, key bytea, value bytea, header_names text[], header_values bytea[])
	LANGUAGE plpgsql STABLE STRICT PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
	SET enable_seqscan = off
	SET enable_bitmapscan = off
	SET jit = off
AS $$
#variable_conflict use_column
BEGIN
	RETURN QUERY
		SELECT c.message_id, c.image_id, c.topic, c.key, c.value, c.header_names, c.header_values
			FROM (SELECT n.*, sum(octet_length(n.value)) OVER (ORDER BY n.message_id) AS bytes_so_far
				FROM (SELECT o.* FROM imgpipe.outbox o
					WHERE o.sender_id = claim_messages.sender_id AND o.state = 'ready' AND o.image_id >= imgpipe.fence()
						AND o.topic <> ALL (held_topics)
						AND NOT EXISTS (SELECT FROM imgpipe.outbox before
							WHERE before.order_key = o.order_key AND before.state = 'pending' AND before.message_id < o.message_id
								AND before.image_id >= imgpipe.fence())
					ORDER BY o.message_id LIMIT max_messages) n) c
			WHERE c.bytes_so_far - octet_length(c.value) < max_bytes OR c.value IS NULL
			ORDER BY c.message_id;
END
$$;
COMMENT ON FUNCTION imgpipe.claim_messages(integer, text[], integer, bigint) IS
'The next messages of a sender in their order, about as many bytes, without those of some topics and without those that have to wait for an earlier one of their key.';
REVOKE EXECUTE ON FUNCTION imgpipe.claim_messages(integer, text[], integer, bigint) FROM PUBLIC;

CREATE FUNCTION imgpipe.settle_messages(sender_id integer, sent_images uuid[], sent bigint[], sent_bytes bigint,
	refused_images uuid[], refused bigint[], errors text[]) RETURNS void
	LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
	SET enable_seqscan = off
	SET enable_bitmapscan = off
	SET enable_hashjoin = off
	SET enable_mergejoin = off
	SET jit = off
AS $$
BEGIN
	DELETE FROM imgpipe.outbox o USING unnest(sent_images, sent) s (image_id, message_id)
		WHERE o.image_id = s.image_id AND o.message_id = s.message_id;
	UPDATE imgpipe.outbox o SET state = 'refused', error = r.error
		FROM unnest(refused_images, refused, errors) r (image_id, message_id, error)
		WHERE o.image_id = r.image_id AND o.message_id = r.message_id;
	UPDATE imgpipe.senders s SET messages = s.messages + cardinality(sent), bytes = s.bytes + sent_bytes, refused = s.refused + cardinality(settle_messages.refused),
			last_sent_at = CASE WHEN cardinality(sent) > 0 THEN clock_timestamp() ELSE s.last_sent_at END
		WHERE s.sender_id = settle_messages.sender_id;
END
$$;
COMMENT ON FUNCTION imgpipe.settle_messages(integer, uuid[], bigint[], bigint, uuid[], bigint[], text[]) IS
'Deletes messages that Kafka has acknowledged, and marks those that it refused.';
REVOKE EXECUTE ON FUNCTION imgpipe.settle_messages(integer, uuid[], bigint[], bigint, uuid[], bigint[], text[]) FROM PUBLIC;


/* For those who look after it. */

CREATE FUNCTION imgpipe.resend_refused(topic text DEFAULT NULL) RETURNS bigint
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	n_messages bigint;
BEGIN
	UPDATE imgpipe.outbox o SET state = 'ready', error = NULL
		WHERE o.state = 'refused' AND o.image_id >= imgpipe.fence() AND (resend_refused.topic IS NULL OR o.topic = resend_refused.topic);
	GET DIAGNOSTICS n_messages = ROW_COUNT;
	PERFORM imgpipe.wake_senders();
	PERFORM imgpipe.require_workers('messages to Kafka wait for workers', or_wait => true);
	RETURN n_messages;
END
$$;
COMMENT ON FUNCTION imgpipe.resend_refused(text) IS
'Has messages sent once more that Kafka refused, for example after the limit of the topic was raised; of one topic, or of all. They come after those of their key that went out meanwhile. Returns how many. Needs SELECT and UPDATE on imgpipe.outbox.';

-- As the extension's owner, for sources' owners, who need not know of senders.
CREATE FUNCTION imgpipe.adopt_outbox() RETURNS void
	LANGUAGE sql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp
AS $$
	UPDATE imgpipe.senders s SET started_in = imgpipe.database_identity()
		WHERE s.started_in <> imgpipe.database_identity() AND pg_has_role(session_user, s.owner::oid, 'USAGE');
	SELECT imgpipe.wake_senders();
	SELECT imgpipe.require_workers('messages to Kafka wait for workers', or_wait => true);
$$;
COMMENT ON FUNCTION imgpipe.adopt_outbox() IS
'Has a database that is a copy, restored from a dump or a base backup, send what is in its outbox, and whatever will be; without it a copy made for a test keeps quiet. adopt_source() does this too. Holds for senders of roles that the session''s user is a member of.';

ALTER TABLE imgpipe.senders ENABLE ROW LEVEL SECURITY;
CREATE POLICY everyone_sees ON imgpipe.senders FOR SELECT USING (true);
CREATE POLICY owner_changes ON imgpipe.senders
	USING (pg_catalog.pg_has_role(owner::pg_catalog.oid, 'USAGE'));

-- With the owner's rights: numbers only, no message.
CREATE VIEW imgpipe.outbox_status AS
	SELECT s.server, s.owner,
		CASE
			WHEN o.ready OPERATOR(pg_catalog.=) 0 AND w.state IS NULL THEN 'idle'
			WHEN NOT imgpipe.workers_available() THEN 'failed'
			WHEN w.state OPERATOR(pg_catalog.=) 'stopped' OR w.state IS NULL THEN 'starting'
			ELSE w.state
		END AS state,
		o.pending, o.ready, o.refused AS refused_now, o.ready_bytes, o.oldest_ready_at,
		s.messages, s.bytes, s.refused, s.last_sent_at, w.messages_per_second, w.bytes_per_second,
		w.last_error, w.last_error_at
	FROM imgpipe.senders s
		CROSS JOIN LATERAL (
			SELECT pg_catalog.count(*) FILTER (WHERE b.state OPERATOR(pg_catalog.=) 'pending') AS pending,
				pg_catalog.count(*) FILTER (WHERE b.state OPERATOR(pg_catalog.=) 'ready') AS ready,
				pg_catalog.count(*) FILTER (WHERE b.state OPERATOR(pg_catalog.=) 'refused') AS refused,
				COALESCE(pg_catalog.sum(pg_catalog.octet_length(b.value)) FILTER (WHERE b.state OPERATOR(pg_catalog.=) 'ready'), 0)::bigint AS ready_bytes,
				pg_catalog.min(b.created_at) FILTER (WHERE b.state OPERATOR(pg_catalog.=) 'ready') AS oldest_ready_at
			FROM imgpipe.outbox b
			WHERE b.sender_id OPERATOR(pg_catalog.=) s.sender_id AND b.image_id OPERATOR(pg_catalog.>=) imgpipe.fence()) o
		LEFT JOIN LATERAL (
			SELECT ws.state, ws.messages_per_second, ws.bytes_per_second, ws.last_error, ws.last_error_at
			FROM imgpipe.worker_slots() ws
			WHERE ws.kind OPERATOR(pg_catalog.=) 'sender' AND ws.object OPERATOR(pg_catalog.=) s.sender_id
			ORDER BY ws.since DESC LIMIT 1) w ON true;
COMMENT ON VIEW imgpipe.outbox_status IS
'One row for each Kafka server and role that messages go out with: what is on its way to Kafka. state: idle, starting, running, retrying (something is in the way, last_error says what, and it is tried again without end), failed (the worker ended; the controller starts it again after a while). Who shall see this needs SELECT on the view and EXECUTE on imgpipe.worker_slots().';
COMMENT ON COLUMN imgpipe.outbox_status.pending IS 'Images that are being processed: their messages are sent when they are done.';
COMMENT ON COLUMN imgpipe.outbox_status.ready IS 'Messages to be sent, those included that have to wait for an earlier one of their key.';
COMMENT ON COLUMN imgpipe.outbox_status.refused_now IS 'Messages that Kafka refused and that are still there; refused counts all that ever were.';
COMMENT ON COLUMN imgpipe.outbox_status.messages IS 'Messages that Kafka has acknowledged, ever; bytes likewise.';
