-- Messages on their way to Kafka, as far as no broker is asked: their order, what they say, who may what.
SET timezone = 'UTC';
CREATE SERVER kafka FOREIGN DATA WRAPPER imgpipe_kafka OPTIONS (bootstrap_servers '127.0.0.1:1');
CREATE SERVER other FOREIGN DATA WRAPPER imgpipe_kafka OPTIONS (bootstrap_servers '127.0.0.1:1');
-- no sender shall try
DO $$
BEGIN
	IF imgpipe.workers_available() THEN
		PERFORM imgpipe.stop_workers();
	ELSE
		SET client_min_messages = error;	-- what waits for workers says so
	END IF;
END
$$;
CREATE FUNCTION pg_temp.raised(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	message text;
	detail text;
	hint text;
BEGIN
	EXECUTE statement;
	RETURN 'nothing';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	RETURN concat_ws(' | ', SQLSTATE, message, nullif(detail, ''), nullif(hint, ''));
END
$$;

-- options of sources
SELECT pg_temp.raised(format('SELECT imgpipe.create_source(''s'', ''kafka'', ''photos'', %s)', option)) FROM unnest(ARRAY[
	$$result_topic => 'photos'$$, $$dead_letter_topic => 'photos'$$, $$result_topic => 'two words'$$, $$dead_letter_topic => ''$$,
	$$notify_channel => ''$$, format('notify_channel => %L', repeat('x', 64))]) option;
SELECT imgpipe.create_source('photos', 'kafka', 'photos', result_topic => 'results', dead_letter_topic => 'rejects', notify_channel => 'done') > 0 AS created;
SELECT pg_temp.raised($$SELECT imgpipe.alter_source('photos', result_topic => 'photos')$$);
SELECT imgpipe.alter_source('photos', result_topic => '', notify_channel => '');
SELECT result_topic, dead_letter_topic, notify_channel FROM imgpipe.sources;
SELECT imgpipe.alter_source('photos', result_topic => 'results', dead_letter_topic => '');
SELECT result_topic, dead_letter_topic, notify_channel FROM imgpipe.sources;

-- enqueue_message()
SELECT pg_temp.raised($$SELECT imgpipe.enqueue_message('nowhere', 'topic', NULL, NULL)$$);
SELECT pg_temp.raised($$SELECT imgpipe.enqueue_message(NULL, 'topic', NULL, NULL)$$);
SELECT pg_temp.raised($$SELECT imgpipe.enqueue_message('kafka', 'two words', NULL, NULL)$$);
SELECT imgpipe.enqueue_message('kafka', 'ledger', 'key', 'value', '{"text": "é", "bytes": {"hex": "00ff"}, "nothing": null, "many": ["1", "2"], "number": 7}') > 0 AS sent,
	imgpipe.enqueue_message('other', 'ledger', NULL, NULL) > 0 AS sent, imgpipe.enqueue_message('kafka', 'ledger', '', '') > 0 AS sent;
SELECT s.server, o.kind, o.state, o.topic, o.key, o.value, o.header_names, o.header_values, o.order_key IS NULL AS in_no_order,
		round(extract(epoch FROM imgpipe.purge_at(o.image_id) - now()) / 3600) AS hours
	FROM imgpipe.outbox o JOIN imgpipe.senders s USING (sender_id) ORDER BY o.message_id;
SELECT server, owner = current_user::regrole AS mine, pending, ready, refused_now, ready_bytes, messages FROM imgpipe.outbox_status ORDER BY server;
DELETE FROM imgpipe.outbox;

-- bytes of keys and headers
SELECT text, imgpipe.bytes_of_text(text) FROM unnest(ARRAY['a', '\x00ff', '\x', '\xf', '\xFF', '']) text;

-- what an ingest worker does: a place for each message, in their order
SELECT imgpipe.create_processor('first', '{"small": "resize(width=16) | png"}') > 0 AS created;
SELECT imgpipe.create_processor('second', '{"gray": "grayscale | png"}') > 0 AS created;
CREATE TEMPORARY TABLE arrived (n int, image_id uuid);
INSERT INTO arrived SELECT n, imgpipe.new_image_id(now() + interval '1 day') FROM generate_series(1, 5) n;
INSERT INTO imgpipe.images (image_id, content, source, source_partition, source_offset, source_key, batch_id)
	SELECT a.image_id, s.file, 'photos', 0, a.n, CASE a.n WHEN 4 THEN NULL WHEN 3 THEN 'other' ELSE 'same' END, 'b'
	FROM arrived a, samples s WHERE a.n <> 2 AND s.name = 'jpeg' ORDER BY a.n;
INSERT INTO imgpipe.dead_letters (image_id, stage, source, source_partition, source_offset, source_key, headers, value, sqlstate, reason)
	SELECT a.image_id, 'ingest', 'photos', 0, a.n, 'same', '{"batch_id": "b", "camera": "left"}', 'no image', '22P03', 'no image' FROM arrived a WHERE a.n = 2;
SELECT imgpipe.alter_source('photos', dead_letter_topic => 'rejects', notify_channel => 'done');
SELECT imgpipe.report_ingested(s.source_id, ARRAY(SELECT a.image_id FROM arrived a ORDER BY a.n)) FROM imgpipe.sources s;
CREATE TEMPORARY VIEW waiting AS
	SELECT a.n, o.kind, o.state, o.topic, convert_from(o.key, 'UTF8') AS key, o.value IS NOT NULL AS has_value, o.dead_letter_topic, o.notify_channel
	FROM imgpipe.outbox o JOIN arrived a USING (image_id) ORDER BY o.message_id;
SELECT * FROM waiting;
SELECT convert_from(o.value, 'UTF8')::jsonb - '{image_id,received_at,purge_at}'::text[] AS result FROM imgpipe.outbox o WHERE o.kind = 'result' AND o.state = 'ready';
SELECT h.name, CASE WHEN h.name = 'imgpipe-image-id' THEN convert_from(h.value, 'UTF8') = o.image_id::text ELSE NULL END AS id,
		CASE WHEN h.name <> 'imgpipe-image-id' THEN convert_from(h.value, 'UTF8') END AS value
	FROM imgpipe.outbox o, unnest(o.header_names, o.header_values) h (name, value) WHERE o.kind = 'dead_letter';

-- what a sender would take: nothing that would come before an earlier one of its key
CREATE FUNCTION claimed(held text[] DEFAULT '{}', at_most integer DEFAULT 10, at_most_bytes bigint DEFAULT 1000000) RETURNS TABLE (n int, topic text, bytes int)
	LANGUAGE sql AS $$
	SELECT a.n, c.topic, CASE WHEN length(c.value) > 100 THEN 100 ELSE length(c.value) END
		FROM imgpipe.senders s CROSS JOIN LATERAL imgpipe.claim_messages(s.sender_id, held, at_most, at_most_bytes) c JOIN arrived a USING (image_id)
		WHERE s.server = 'kafka' ORDER BY c.message_id
$$;
SELECT * FROM claimed();
-- the tasks of images 3, 4 and 5, as workers do them
CREATE FUNCTION work(which int, names text[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	id CONSTANT uuid := (SELECT a.image_id FROM arrived a WHERE a.n = which);
BEGIN
	INSERT INTO imgpipe.renditions (image_id, processor, name, version, content)
		SELECT id, p.name, 'out', 1, (SELECT s.file FROM samples s WHERE s.name = 'png')::imgpipe.image FROM imgpipe.processors p WHERE p.name = ANY (names);
	DELETE FROM imgpipe.tasks t USING imgpipe.processors p WHERE p.processor_id = t.processor_id AND p.name = ANY (names) AND t.image_id = id;
	PERFORM imgpipe.complete_result(id);
END
$$;
SELECT work(3, '{first}'), work(5, '{first,second}');
SELECT n, state FROM waiting WHERE n IN (3, 5);
SELECT * FROM claimed();
SELECT work(3, '{second}'), work(4, '{second}');
SELECT * FROM claimed();
SELECT * FROM claimed('{rejects}');
SELECT * FROM claimed(at_most => 1);
SELECT * FROM claimed(at_most_bytes => 1);
SELECT jsonb_pretty(convert_from(o.value, 'UTF8')::jsonb - '{image_id,received_at,purge_at}'::text[]) AS result
	FROM imgpipe.outbox o JOIN arrived a USING (image_id) WHERE a.n = 3;

-- one task fails for good, the other ends with its processor
UPDATE imgpipe.tasks t SET attempts = 5 FROM arrived a WHERE a.image_id = t.image_id AND a.n = 1;
SELECT imgpipe.fail_task(t.task_id, 5, 1, '22023', 'it is too blue', 'Very much so.', true) FROM imgpipe.tasks t
	JOIN imgpipe.processors p USING (processor_id) JOIN arrived a USING (image_id) WHERE p.name = 'second' AND a.n = 1;
SELECT n, kind, state FROM waiting WHERE n = 1;
SELECT imgpipe.drop_processor('first');
SELECT n, kind, state FROM waiting;
SELECT convert_from(o.value, 'UTF8')::jsonb #> '{errors}' AS errors, convert_from(o.value, 'UTF8')::jsonb ->> 'status' AS status
	FROM imgpipe.outbox o JOIN arrived a USING (image_id) WHERE a.n = 1 AND o.kind = 'result';
SELECT n, topic FROM claimed();

-- sent and refused
SELECT imgpipe.settle_messages(s.sender_id, ARRAY[o.image_id], ARRAY[o.message_id], 10, ARRAY[r.image_id], ARRAY[r.message_id], '{"too large"}')
	FROM imgpipe.senders s, (SELECT o.* FROM imgpipe.outbox o ORDER BY o.message_id LIMIT 1) o, (SELECT o.* FROM imgpipe.outbox o ORDER BY o.message_id OFFSET 1 LIMIT 1) r
	WHERE s.server = 'kafka';
SELECT n, kind, state FROM waiting;
SELECT ready, refused_now, messages, bytes, refused, last_sent_at IS NOT NULL AS sent FROM imgpipe.outbox_status WHERE server = 'kafka';
SELECT imgpipe.resend_refused('another'), imgpipe.resend_refused('results');

-- a dead letter that is tried again gives another result
SELECT imgpipe.retry_dead_letter(d.dead_letter_id) IS NOT NULL AS retried FROM imgpipe.dead_letters d WHERE d.stage = 'processing';
SELECT n, kind, state FROM waiting WHERE n = 1;
-- who is not the source's owner has nothing sent in its name
CREATE ROLE regress_imgpipe_stranger;
GRANT USAGE ON SCHEMA imgpipe TO regress_imgpipe_stranger;
GRANT INSERT, SELECT ON imgpipe.images TO regress_imgpipe_stranger;
INSERT INTO arrived VALUES (6, imgpipe.new_image_id(now() + interval '1 day'));
INSERT INTO imgpipe.images (image_id, content, source) SELECT a.image_id, s.file, 'photos' FROM arrived a, samples s WHERE a.n = 6 AND s.name = 'jpeg';
SET SESSION AUTHORIZATION regress_imgpipe_stranger;
SELECT imgpipe.renew_result(image_id, 'photos') FROM imgpipe.images WHERE source_offset IS NULL AND source = 'photos';
SELECT pg_temp.raised(statement) FROM unnest(ARRAY['SELECT imgpipe.enqueue_message(''kafka'', ''t'', NULL, NULL)', 'SELECT imgpipe.complete_result(NULL)',
	'SELECT imgpipe.report_ingested(1, NULL)', 'SELECT imgpipe.claim_messages(1, NULL, 1, 1)', 'TABLE imgpipe.outbox', 'TABLE imgpipe.senders']) statement;
RESET SESSION AUTHORIZATION;

-- what is deleted or erased is not told any more
SELECT imgpipe.delete_images_of_key('photos', 'same');
SELECT n, kind, state FROM waiting;
-- dead letters included
SELECT imgpipe.resend_refused();
SELECT n, kind, state FROM waiting;
SELECT row_counts -> 'outbox' AS outbox FROM imgpipe.erase_images(source_key => 'same');
SELECT n, kind, state FROM waiting;
SELECT row_counts -> 'outbox' AS outbox FROM imgpipe.erase_images(image_ids => ARRAY(SELECT a.image_id FROM arrived a WHERE a.n = 3));
SELECT n, kind, state FROM waiting;
-- nor what is past its deadline
SELECT imgpipe.create_partition(parent, '2020-05-01', '2020-05-02') FROM imgpipe.partitioned_tables WHERE name = 'outbox';
INSERT INTO imgpipe.outbox (image_id, kind, state, sender_id, topic, value)
	SELECT imgpipe.new_image_id('2020-05-01 12:00'), 'message', 'ready', s.sender_id, 'results', 'late' FROM imgpipe.senders s WHERE s.server = 'other';
SELECT server FROM imgpipe.senders_with_messages() JOIN imgpipe.senders USING (sender_id);
SELECT server, ready FROM imgpipe.outbox_status ORDER BY server;
GRANT SELECT ON imgpipe.outbox TO regress_imgpipe_stranger;
SET ROLE regress_imgpipe_stranger;
SELECT count(*) FROM imgpipe.outbox WHERE value = 'late';
RESET ROLE;
SELECT imgpipe.purge_next_partition();
SELECT row_counts FROM imgpipe.purge_ledger WHERE deadline_to = '2020-05-02';

-- what nobody completes is completed by the controller
INSERT INTO imgpipe.outbox (image_id, kind, state, topic, order_key, created_at) SELECT a.image_id, 'result', 'pending', 'results', 1, now() - interval '2 minutes' FROM arrived a WHERE a.n IN (4, 5);
DELETE FROM imgpipe.tasks;
SELECT imgpipe.settle_results();
SELECT n, kind, state FROM waiting;

DROP FUNCTION work, claimed;
DELETE FROM imgpipe.outbox;
DELETE FROM imgpipe.senders;
DELETE FROM imgpipe.images;
DELETE FROM imgpipe.renditions;
DELETE FROM imgpipe.dead_letters;
DELETE FROM imgpipe.erasures;
SELECT imgpipe.drop_processor('second'), imgpipe.drop_source('photos');
DROP SERVER kafka;
DROP SERVER other;
REVOKE ALL ON SCHEMA imgpipe FROM regress_imgpipe_stranger;
REVOKE ALL ON imgpipe.images, imgpipe.outbox FROM regress_imgpipe_stranger;
DROP ROLE regress_imgpipe_stranger;
DO $$
BEGIN
	IF imgpipe.workers_available() THEN
		PERFORM imgpipe.start_workers();
	END IF;
END
$$;
