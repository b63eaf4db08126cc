
/*
 * What becomes of the images of a source, told to Kafka and to listeners.
 *
 * When an image is ingested, its message gets its place in the outbox, in the
 * order of the offsets; the transaction that ends the last task of the image
 * makes it ready.  So one image gives one message, those of one key come in the order in
 * which the images came, and a row that is inserted by SQL under the name of a
 * source, which anybody may who can insert images, gives none.
 */

CREATE FUNCTION imgpipe.result_headers(kind text, image_id uuid, source text, partition integer, message_offset bigint,
	OUT names text[], OUT contents bytea[]) RETURNS record
	LANGUAGE sql STABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT array_agg(h.name ORDER BY h.n), array_agg(convert_to(h.value, 'UTF8') ORDER BY h.n)
		FROM (VALUES (1, 'imgpipe-kind', kind), (2, 'imgpipe-image-id', image_id::text), (3, 'imgpipe-source', source),
			(4, 'imgpipe-partition', partition::text), (5, 'imgpipe-offset', message_offset::text)) h (n, name, value)
		WHERE h.value IS NOT NULL
$$;
COMMENT ON FUNCTION imgpipe.result_headers(text, uuid, text, integer, bigint) IS
'Headers that tell what a message is about.';

CREATE FUNCTION imgpipe.image_result(image_id uuid) RETURNS jsonb
	LANGUAGE plpgsql STABLE STRICT PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
	SET timezone = 'UTC'
	SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
	message jsonb;
BEGIN
	SELECT jsonb_strip_nulls(jsonb_build_object(
			'image_id', i.image_id,
			'status', CASE imgpipe.processing_state(i.image_id) WHEN 'failed' THEN 'failed' ELSE 'done' END,
			'source', i.source, 'partition', i.source_partition, 'offset', i.source_offset, 'key', i.source_key,
			'batch_id', i.batch_id, 'received_at', i.received_at, 'purge_at', imgpipe.purge_at(i.image_id),
			'format', i.format, 'width', i.width, 'height', i.height, 'bytes', i.bytes, 'sha256', encode(i.sha256, 'hex'))) INTO message
		FROM imgpipe.images i WHERE i.image_id = image_result.image_id;
	IF NOT FOUND THEN
		RETURN NULL;
	END IF;
	RETURN message || jsonb_build_object(
		'outputs', (SELECT coalesce(jsonb_agg(jsonb_build_object('processor', r.processor, 'version', r.version, 'name', r.name,
				'format', r.format, 'width', r.width, 'height', r.height, 'bytes', r.bytes,
				'sha256', encode(imgpipe.image_sha256(r.content), 'hex')) ORDER BY r.processor, r.name), '[]')
			FROM imgpipe.renditions r WHERE r.image_id = image_result.image_id),
		'results', (SELECT coalesce(jsonb_agg(jsonb_build_object('processor', s.processor, 'version', s.version, 'result', s.result)
				ORDER BY s.processor), '[]')
			FROM imgpipe.results s WHERE s.image_id = image_result.image_id),
		'errors', (SELECT coalesce(jsonb_agg(jsonb_strip_nulls(jsonb_build_object('stage', d.stage, 'processor', d.processor, 'version', d.version,
				'sqlstate', d.sqlstate, 'reason', d.reason, 'detail', d.detail, 'attempts', d.attempts)) ORDER BY d.dead_letter_id), '[]')
			FROM imgpipe.dead_letters d WHERE d.image_id = image_result.image_id AND d.stage = 'processing'));
END
$$;
COMMENT ON FUNCTION imgpipe.image_result(uuid) IS
'What a result message says of an image, as it is now: image_id, status (done, failed), source, partition, offset, key, batch_id, received_at, purge_at, format, width, height, bytes, sha256 (hexadecimal); outputs, an array of what is in renditions with processor, version, name, format, width, height, bytes and sha256; results, an array of processor, version and result; errors, an array of the dead letters of processing with stage, processor, version, sqlstate, reason, detail, attempts. What is not known is left out. NULL where there is no such image. Needs SELECT on images, renditions, results, tasks and dead_letters.';

CREATE FUNCTION imgpipe.rejection(letter imgpipe.dead_letters) RETURNS jsonb
	LANGUAGE sql STABLE STRICT PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
	SET timezone = 'UTC'
AS $$
	SELECT jsonb_strip_nulls(jsonb_build_object('image_id', letter.image_id, 'status', 'rejected',
			'source', letter.source, 'partition', letter.source_partition, 'offset', letter.source_offset, 'key', letter.source_key,
			'batch_id', coalesce(letter.headers #>> '{batch_id,0}', letter.headers ->> 'batch_id'),
			'received_at', letter.created_at, 'purge_at', imgpipe.purge_at(letter.image_id)))
		|| jsonb_build_object('outputs', '[]'::jsonb, 'results', '[]'::jsonb, 'errors', jsonb_build_array(jsonb_strip_nulls(
			jsonb_build_object('stage', letter.stage, 'sqlstate', letter.sqlstate, 'reason', letter.reason, 'detail', letter.detail,
				'attempts', letter.attempts))))
$$;
COMMENT ON FUNCTION imgpipe.rejection(imgpipe.dead_letters) IS
'What a result message says of a message that did not become an image: as image_result(), with status rejected and no outputs. image_id is the dead letter''s.';

CREATE FUNCTION imgpipe.tell_listeners(channel text, image_id uuid, source text, status text) RETURNS void
	LANGUAGE sql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT pg_notify(channel, jsonb_build_object('image_id', image_id, 'source', source, 'status', status)::text) WHERE channel IS NOT NULL
$$;
COMMENT ON FUNCTION imgpipe.tell_listeners(text, uuid, text, text) IS
'NOTIFY with {"image_id": ..., "source": ..., "status": "done" | "failed" | "rejected"}; nothing where channel is NULL.';

CREATE FUNCTION imgpipe.copy_dead_letter(letter imgpipe.dead_letters, sender_id integer, topic text, value bytea) RETURNS void
	LANGUAGE sql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
	INSERT INTO imgpipe.outbox (image_id, kind, state, sender_id, topic, key, order_key, value, header_names, header_values)
		SELECT letter.image_id, 'dead_letter', 'ready', sender_id, topic, k.key, imgpipe.order_key(topic, k.key), value,
				original.names || about.names || reason.names, original.contents || about.contents || reason.contents
			FROM imgpipe.bytes_of_text(letter.source_key) k (key),
				imgpipe.kafka_headers(letter.headers) original,
				imgpipe.result_headers('dead_letter', letter.image_id, letter.source, letter.source_partition, letter.source_offset) about,
				imgpipe.kafka_headers(jsonb_strip_nulls(jsonb_build_object('imgpipe-stage', letter.stage, 'imgpipe-sqlstate', letter.sqlstate,
					'imgpipe-reason', letter.reason, 'imgpipe-detail', letter.detail, 'imgpipe-processor', letter.processor))) reason
$$;
COMMENT ON FUNCTION imgpipe.copy_dead_letter(imgpipe.dead_letters, integer, text, bytea) IS
'Puts a copy of a dead letter into the outbox: its key, value and headers, and headers imgpipe-stage, -sqlstate, -reason, -detail, -processor. Only the owner may, unless granted.';
REVOKE EXECUTE ON FUNCTION imgpipe.copy_dead_letter(imgpipe.dead_letters, integer, text, bytea) FROM PUBLIC;

-- Not STRICT: its locks are what keeps two workers, who finish the last two tasks, from both leaving it to the other.
CREATE FUNCTION imgpipe.complete_result(image_id uuid) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
	SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
	promise record;
	message jsonb;
BEGIN
	FOR promise IN SELECT o.message_id, o.topic, o.notify_channel FROM imgpipe.outbox o
		WHERE o.image_id = complete_result.image_id AND o.state = 'pending' ORDER BY o.message_id FOR UPDATE
	LOOP
		IF EXISTS (SELECT FROM imgpipe.tasks t WHERE t.image_id = complete_result.image_id) THEN
			RETURN;
		END IF;
		message := coalesce(message, imgpipe.image_result(image_id));
		IF message IS NOT NULL THEN
			PERFORM imgpipe.tell_listeners(promise.notify_channel, image_id, message ->> 'source', message ->> 'status');
		END IF;
		IF message IS NULL OR promise.topic IS NULL THEN
			DELETE FROM imgpipe.outbox o WHERE o.image_id = complete_result.image_id AND o.message_id = promise.message_id;
		ELSE
			UPDATE imgpipe.outbox o SET state = 'ready', value = convert_to(message::text, 'UTF8')
				WHERE o.image_id = complete_result.image_id AND o.message_id = promise.message_id;
		END IF;
		PERFORM imgpipe.wake_senders();
	END LOOP;
END
$$;
COMMENT ON FUNCTION imgpipe.complete_result(uuid) IS
'Makes the result of an image ready to be sent where no task of it is left and there is one to send, and tells listeners. Where the image is gone, so is its result. Only the owner may, unless granted.';
REVOKE EXECUTE ON FUNCTION imgpipe.complete_result(uuid) FROM PUBLIC;

CREATE FUNCTION imgpipe.report_ingested(source_id integer, image_ids uuid[]) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
	SET plan_cache_mode = force_generic_plan
	SET enable_seqscan = off
	SET enable_hashjoin = off
	SET enable_mergejoin = off
	SET jit = off
AS $$
#variable_conflict use_column
DECLARE
	source imgpipe.sources;
	sender integer;
BEGIN
	SELECT * INTO source FROM imgpipe.sources s WHERE s.source_id = report_ingested.source_id;
	IF source.result_topic IS NOT NULL OR source.dead_letter_topic IS NOT NULL THEN
		sender := imgpipe.sender_of(source.server, source.owner);
	END IF;

	INSERT INTO imgpipe.outbox (image_id, kind, state, sender_id, topic, key, order_key, value, header_names, header_values,
			dead_letter_topic, notify_channel)
		SELECT a.image_id, 'result', CASE WHEN d.image_id IS NULL THEN 'pending' ELSE 'ready' END, sender, source.result_topic,
				k.key, imgpipe.order_key(source.result_topic, k.key),
				CASE WHEN d.image_id IS NOT NULL THEN convert_to(imgpipe.rejection(d)::text, 'UTF8') END, h.names, h.contents,
				source.dead_letter_topic, source.notify_channel
			FROM unnest(image_ids) WITH ORDINALITY a (image_id, n)
				LEFT JOIN imgpipe.images i ON i.image_id = a.image_id
				LEFT JOIN imgpipe.dead_letters d ON d.image_id = a.image_id
				CROSS JOIN LATERAL imgpipe.bytes_of_text(coalesce(i.source_key, d.source_key)) k (key)
				CROSS JOIN LATERAL imgpipe.result_headers('result', a.image_id, source.name, coalesce(i.source_partition, d.source_partition),
					coalesce(i.source_offset, d.source_offset)) h
			WHERE i.image_id IS NOT NULL OR (d.image_id IS NOT NULL AND source.result_topic IS NOT NULL)
			ORDER BY a.n;

	PERFORM CASE WHEN source.dead_letter_topic IS NOT NULL THEN imgpipe.copy_dead_letter(d, sender, source.dead_letter_topic, d.value) END,
			imgpipe.tell_listeners(source.notify_channel, d.image_id, source.name, 'rejected')
		FROM unnest(image_ids) WITH ORDINALITY a (image_id, n) JOIN imgpipe.dead_letters d ON d.image_id = a.image_id
		ORDER BY a.n;

	-- Nothing is to be done to these: there is no processor.
	PERFORM imgpipe.complete_result(a.image_id)
		FROM unnest(image_ids) a (image_id) WHERE NOT EXISTS (SELECT FROM imgpipe.tasks t WHERE t.image_id = a.image_id);
	PERFORM imgpipe.wake_senders();
END
$$;
COMMENT ON FUNCTION imgpipe.report_ingested(integer, uuid[]) IS
'What an ingest worker calls in the transaction of a batch, with the ids of its images and dead letters in the order of the messages: gives each its place in the outbox. Only the owner may, unless granted.';
REVOKE EXECUTE ON FUNCTION imgpipe.report_ingested(integer, uuid[]) FROM PUBLIC;

CREATE FUNCTION imgpipe.report_buried(image_id uuid) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
	SET plan_cache_mode = force_generic_plan
AS $$
BEGIN
	-- The latest: of one image, each processor gives up once.
	PERFORM imgpipe.copy_dead_letter(d, o.sender_id, o.dead_letter_topic, i.content::bytea)
		FROM imgpipe.outbox o
			JOIN imgpipe.images i ON i.image_id = o.image_id
			JOIN LATERAL (SELECT l.* FROM imgpipe.dead_letters l WHERE l.image_id = o.image_id ORDER BY l.dead_letter_id DESC LIMIT 1) d ON true
		WHERE o.image_id = report_buried.image_id AND o.state = 'pending' AND o.dead_letter_topic IS NOT NULL;
	IF FOUND THEN
		PERFORM imgpipe.wake_senders();
	END IF;
	PERFORM imgpipe.complete_result(image_id);
END
$$;
COMMENT ON FUNCTION imgpipe.report_buried(uuid) IS
'After a processor has given up on an image: copies the dead letter where the image''s source asks for it, and completes the result. Only the owner may, unless granted.';
REVOKE EXECUTE ON FUNCTION imgpipe.report_buried(uuid) FROM PUBLIC;

-- As the extension's owner, for whoever tries a dead letter again; therefore only for who could act as the source's owner.
CREATE FUNCTION imgpipe.renew_result(image_id uuid, source text) RETURNS boolean
	LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	source_id integer;
BEGIN
	SELECT s.source_id INTO source_id FROM imgpipe.sources s
		WHERE s.name = renew_result.source AND pg_has_role(session_user, s.owner::oid, 'USAGE')
			AND num_nonnulls(s.result_topic, s.dead_letter_topic, s.notify_channel) > 0;
	IF NOT FOUND OR NOT EXISTS (SELECT FROM imgpipe.images i WHERE i.image_id = renew_result.image_id AND i.source = renew_result.source)
		OR EXISTS (SELECT FROM imgpipe.outbox o WHERE o.image_id = renew_result.image_id AND o.state = 'pending') THEN
		RETURN false;
	END IF;
	PERFORM imgpipe.report_ingested(source_id, ARRAY[image_id]);
	RETURN true;
END
$$;
COMMENT ON FUNCTION imgpipe.renew_result(uuid, text) IS
'Has the result of an image sent again when its tasks are done, where its source asks for results and the session''s user is a member of the source''s owner; false otherwise.';

-- What was deleted by hand would keep the messages of its key waiting.
CREATE FUNCTION imgpipe.settle_results() RETURNS bigint
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
	SET jit = off
AS $$
DECLARE
	n_results bigint;
BEGIN
	SELECT count(imgpipe.complete_result(o.image_id)) INTO n_results
		FROM (SELECT p.image_id FROM imgpipe.outbox p
			WHERE p.state = 'pending' AND p.created_at < now() - interval '1 minute' AND p.image_id >= imgpipe.fence()
				AND NOT EXISTS (SELECT FROM imgpipe.tasks t WHERE t.image_id = p.image_id)
			LIMIT 1000) o;
	RETURN n_results;
END
$$;
COMMENT ON FUNCTION imgpipe.settle_results() IS
'Completes results whose tasks or images went away without a worker. The controller calls it every minute.';
REVOKE EXECUTE ON FUNCTION imgpipe.settle_results() FROM PUBLIC;
