-- Processors, the queue and the analysts' views, as far as they need no workers.
\set SHOW_CONTEXT never
DO $$
BEGIN
	IF imgpipe.workers_available() THEN
		PERFORM imgpipe.stop_workers();
	ELSE
		SET client_min_messages = error;	-- what waits for workers says so
	END IF;
END
$$;
CREATE FUNCTION label(content imgpipe.image) RETURNS jsonb LANGUAGE sql
	AS $$SELECT jsonb_build_object('format', imgpipe.image_format(content))$$;

-- outputs are checked and stored in canonical form
SELECT imgpipe.create_processor('web', '{"thumb": "Resize( WIDTH = 6 )|webp(quality=80)", "gray": "grayscale | png"}') > 0 AS created;
SELECT p.name, p.version, p.enabled, p.max_attempts, p.owner = current_user::regrole AS mine, v.version, v.outputs, v.function
	FROM imgpipe.processors p JOIN imgpipe.processor_versions v USING (processor_id);
SELECT imgpipe.create_processor('web', '{"thumb": "webp"}');
SELECT imgpipe.create_processor('not valid', '{"thumb": "webp"}');
SELECT imgpipe.create_processor(NULL, '{"thumb": "webp"}');
SELECT imgpipe.create_processor('other');
SELECT imgpipe.create_processor('other', '{"thumb": "webp"}', 'label(imgpipe.image)');
SELECT imgpipe.create_processor('other', '{"thumb": "webp"}', max_attempts => 0);
SELECT imgpipe.create_processor('other', '{"thumb": "webp"}', max_attempts => NULL);
SELECT imgpipe.create_processor('other', '["webp"]');
SELECT imgpipe.create_processor('other', '{}');
SELECT imgpipe.create_processor('other', (SELECT jsonb_object_agg('o' || i, 'webp') FROM generate_series(1, 65) i));
SELECT imgpipe.create_processor('other', '{"../thumb": "webp"}');
SELECT imgpipe.create_processor('other', '{"thumb": 5}');
SELECT imgpipe.create_processor('other', '{"large": "webp", "small": "resise(width=6) | webp"}');
SELECT imgpipe.create_processor('other', '{"small": ""}');
SELECT count(*) FROM imgpipe.processors;

-- functions
CREATE FUNCTION wrong_argument(bytea) RETURNS jsonb LANGUAGE sql AS 'SELECT NULL::jsonb';
CREATE FUNCTION wrong_result(imgpipe.image) RETURNS json LANGUAGE sql AS 'SELECT NULL::json';
CREATE FUNCTION several(imgpipe.image) RETURNS SETOF jsonb LANGUAGE sql AS 'SELECT NULL::jsonb';
SELECT imgpipe.create_processor('label', function => 'label(imgpipe.image)') > 0 AS created;
SELECT p.name, v.outputs, v.function FROM imgpipe.processors p JOIN imgpipe.processor_versions v USING (processor_id) WHERE name = 'label';
SELECT imgpipe.create_processor('other', function => 'wrong_argument(bytea)');
SELECT imgpipe.create_processor('other', function => 'wrong_result(imgpipe.image)');
SELECT imgpipe.create_processor('other', function => 'several(imgpipe.image)');
SELECT imgpipe.create_processor('other', function => 'no_such_function(imgpipe.image)');

-- every image gets a task of each enabled processor, in the same transaction
CREATE VIEW queue AS
	SELECT i.source_key, p.name, t.version, t.attempts, t.available_at <= now() AS due, t.last_error
		FROM imgpipe.tasks t JOIN imgpipe.processors p USING (processor_id) LEFT JOIN imgpipe.images i USING (image_id);
CREATE TEMP TABLE marks AS SELECT clock_timestamp() AS before;
INSERT INTO imgpipe.images (content, source_key) SELECT file, name FROM samples WHERE name IN ('png', 'webp');
SELECT * FROM queue ORDER BY source_key, name;
BEGIN;
INSERT INTO imgpipe.images (content, source_key) SELECT file, name FROM samples WHERE name = 'gif';
SELECT count(*) FROM queue WHERE source_key = 'gif';
ROLLBACK;
SELECT count(*) FROM imgpipe.tasks;

-- a stopped processor gets none; a new version is for new images; process_images catches up
SELECT imgpipe.stop_processor('label');
SELECT imgpipe.alter_processor('web', '{"tiny": "resize(width=2)"}');
INSERT INTO imgpipe.images (content, source_key) SELECT file, name FROM samples WHERE name = 'tiff';
SELECT * FROM queue ORDER BY source_key, name;
SELECT imgpipe.start_processor('label');
SELECT imgpipe.process_images('label', before) FROM marks;
SELECT imgpipe.process_images('label', before) FROM marks;
SELECT imgpipe.process_images('web', before) FROM marks;
SELECT imgpipe.process_images('web', '2100-01-01');
SELECT * FROM queue ORDER BY source_key, name;
SELECT version, outputs FROM imgpipe.processor_versions JOIN imgpipe.processors p USING (processor_id, version) WHERE p.name = 'web';
SELECT imgpipe.alter_processor('web');
SELECT imgpipe.alter_processor('web', '{"tiny": "resize(width=)"}');
SELECT imgpipe.alter_processor('no such', '{"tiny": "webp"}');
SELECT imgpipe.stop_processor(NULL);

-- the queue: claims, their token, and the ends of an attempt
SELECT imgpipe.stop_processor('label');
CREATE FUNCTION claim(images integer, lease interval DEFAULT '1 minute')
	RETURNS TABLE (source_key text, processor text, version integer, attempts integer, output_names text[], pipelines text[], function text, task_id bigint)
	LANGUAGE sql AS $$
	SELECT i.source_key, c.processor, c.version, c.attempts, c.output_names, c.pipelines, c.function, c.task_id
		FROM imgpipe.claim_tasks(current_user::regrole, images, lease) WITH ORDINALITY c JOIN imgpipe.images i USING (image_id) ORDER BY ordinality
$$;
SELECT owner = current_user::regrole AS mine, due FROM imgpipe.due_tasks();
SELECT source_key, processor, version, attempts, output_names, pipelines FROM claim(1);
SELECT source_key, processor, attempts FROM claim(8);
SELECT source_key FROM claim(8);
SELECT owner = current_user::regrole AS mine, due FROM imgpipe.due_tasks();
SELECT * FROM queue WHERE name = 'web' ORDER BY source_key;
CREATE TEMP VIEW task AS SELECT t.* FROM imgpipe.tasks t JOIN imgpipe.processors p USING (processor_id)
	JOIN imgpipe.images i USING (image_id) WHERE p.name = 'web' AND i.source_key = 'png';
SELECT imgpipe.finish_task(task_id, attempts + 1, version) AS wrong_attempt,
	imgpipe.finish_task(task_id, attempts, version - 1) AS wrong_version,
	imgpipe.extend_task(task_id, attempts + 1, version, '1 hour') AS wrong_extension FROM task;
SELECT imgpipe.extend_task(task_id, attempts, version, '1 hour') FROM task;
SELECT available_at > now() + interval '50 minutes' AS extended FROM task;
SELECT imgpipe.release_task(task_id, attempts, version, '0') FROM task;
SELECT attempts, available_at <= now() AS due FROM task;
SELECT source_key, attempts FROM claim(8);
SELECT imgpipe.fail_task(task_id, attempts, version, '58000', 'the decoder stopped', NULL, false) AS dead FROM task;
SELECT attempts, last_error, available_at - now() BETWEEN '1 second' AND '2.6 seconds' AS backed_off FROM task;
UPDATE imgpipe.tasks SET attempts = 4, available_at = now() WHERE task_id = (SELECT task_id FROM task);
SELECT source_key, attempts FROM claim(8);
SELECT imgpipe.fail_task(task_id, attempts - 1, version, '58000', 'too late', NULL, false) IS NULL AS lost FROM task;
SELECT imgpipe.fail_task(task_id, attempts, version, '58000', 'the decoder stopped', 'Again.', false) AS dead FROM task;
SELECT count(*) FROM task;
SELECT stage, source, source_key, processor, version, attempts, sqlstate, reason, detail, value FROM imgpipe.dead_letters
	WHERE stage = 'processing' ORDER BY created_at;

-- a final failure is one at once; so is a last attempt that nobody reported
SELECT imgpipe.fail_task(t.task_id, t.attempts, t.version, '22023', 'crop is outside of the image', NULL, true)
	FROM imgpipe.tasks t JOIN imgpipe.images i USING (image_id) JOIN imgpipe.processors p USING (processor_id)
	WHERE i.source_key = 'webp' AND p.name = 'web';
UPDATE imgpipe.tasks SET attempts = 5, available_at = now() - interval '1 hour' WHERE attempts > 0;
SELECT source_key, attempts FROM claim(8);
SELECT source_key, attempts, sqlstate, reason, detail FROM imgpipe.dead_letters WHERE stage = 'processing' ORDER BY created_at;

-- tasks of one image are claimed together, in the order of arrival, those of all processors
SELECT imgpipe.start_processor('label');
SELECT imgpipe.process_images('web', before) FROM marks;
SELECT source_key, processor, function FROM claim(2);
SELECT source_key, processor FROM claim(2);

-- a purged image takes its failure with it
UPDATE imgpipe.tasks SET image_id = imgpipe.new_image_id(now() - interval '1 second') WHERE task_id = (SELECT task_id FROM task);
SELECT imgpipe.fail_task(task_id, attempts, version, '22023', 'purged', NULL, true)
	FROM imgpipe.tasks WHERE image_id < imgpipe.fence();
SELECT count(*) AS tasks FROM imgpipe.tasks WHERE image_id < imgpipe.fence();
SELECT count(*) AS dead_letters FROM imgpipe.dead_letters WHERE reason = 'purged';

-- rights: the caller is the owner and needs to see images
CREATE ROLE regress_imgpipe_engineer LOGIN;
CREATE ROLE regress_imgpipe_stranger LOGIN;
GRANT USAGE ON SCHEMA imgpipe TO regress_imgpipe_engineer, regress_imgpipe_stranger;
GRANT SELECT, INSERT, UPDATE, DELETE ON imgpipe.processors, imgpipe.processor_versions, imgpipe.tasks
	TO regress_imgpipe_engineer, regress_imgpipe_stranger;
CREATE FUNCTION secret(content imgpipe.image) RETURNS jsonb LANGUAGE sql AS 'SELECT NULL::jsonb';
REVOKE EXECUTE ON FUNCTION secret(imgpipe.image) FROM PUBLIC;
SET ROLE regress_imgpipe_engineer;
SELECT imgpipe.create_processor('mine', '{"thumb": "webp"}');
RESET ROLE;
GRANT SELECT ON imgpipe.images TO regress_imgpipe_engineer;
SET ROLE regress_imgpipe_engineer;
SELECT imgpipe.create_processor('mine', function => 'secret(imgpipe.image)');
SELECT imgpipe.create_processor('mine', '{"thumb": "webp"}') > 0 AS created;
SELECT imgpipe.process_images('mine', before) AS allowed FROM (SELECT now() AS before) m;
RESET ROLE;
SET ROLE regress_imgpipe_stranger;
SELECT name, owner = 'regress_imgpipe_engineer'::regrole AS engineers FROM imgpipe.processors ORDER BY name;
SELECT imgpipe.stop_processor('mine');
SELECT imgpipe.process_images('mine');
UPDATE imgpipe.processors SET owner = 'regress_imgpipe_stranger' WHERE name = 'mine';
UPDATE imgpipe.processor_versions SET outputs = '{}';
DELETE FROM imgpipe.tasks;
INSERT INTO imgpipe.processors (name, owner) VALUES ('theirs', 'regress_imgpipe_engineer');
INSERT INTO imgpipe.processor_versions (processor_id, version, outputs) SELECT processor_id, 2, '{}' FROM imgpipe.processors WHERE name = 'mine';
INSERT INTO imgpipe.tasks (image_id, processor_id, version) SELECT imgpipe.new_image_id(), processor_id, 1 FROM imgpipe.processors WHERE name = 'mine';
SELECT imgpipe.claim_tasks('regress_imgpipe_engineer', 1, '1 hour');
SELECT imgpipe.finish_task(1, 1, 1);
SELECT * FROM imgpipe.due_tasks();
RESET ROLE;
-- who may insert images need not know of processors
REVOKE ALL ON imgpipe.processors, imgpipe.processor_versions, imgpipe.tasks FROM regress_imgpipe_stranger;
GRANT INSERT ON imgpipe.images TO regress_imgpipe_stranger;
GRANT SELECT ON samples TO regress_imgpipe_stranger;
BEGIN;
SET LOCAL ROLE regress_imgpipe_stranger;
INSERT INTO imgpipe.images (content, source_key) SELECT file, 'stranger''s' FROM samples WHERE name = 'gif';
RESET ROLE;
SELECT name FROM queue WHERE source_key = 'stranger''s' ORDER BY name;
ROLLBACK;

-- what analysts see
INSERT INTO imgpipe.renditions (image_id, processor, name, version, content, created_at)
	SELECT i.image_id, 'web', 'tiny', 2, i.content, i.received_at + interval '2 seconds' FROM imgpipe.images i, marks WHERE received_at >= before;
INSERT INTO imgpipe.results (image_id, processor, version, result, created_at)
	SELECT i.image_id, 'label', 1, '{}', i.received_at + interval '4 seconds' FROM imgpipe.images i, marks WHERE received_at >= before;
DELETE FROM imgpipe.tasks t USING imgpipe.images i WHERE i.image_id = t.image_id AND i.source_key IN ('png', 'tiff');
DELETE FROM imgpipe.dead_letters WHERE source_key <> 'png';
UPDATE imgpipe.dead_letters SET created_at = created_at + interval '1 day';
INSERT INTO imgpipe.images (content, source_key) SELECT file, name FROM samples WHERE name = 'turned jpeg';
DELETE FROM imgpipe.tasks t USING imgpipe.images i WHERE i.image_id = t.image_id AND i.source_key = 'turned jpeg';
SELECT source, source_key, purge_at = imgpipe.purge_at(image_id) AS purged, format, width, height, megapixels, aspect_ratio, orientation,
		bytes, processing, renditions, results
	FROM imgpipe.image_facts WHERE received_at >= (SELECT before FROM marks) ORDER BY source_key;
SELECT source, format, sum(images) AS images, sum(bytes) AS bytes, max(average_bytes) AS average_bytes
	FROM imgpipe.daily_volume WHERE last_received_at >= (SELECT before FROM marks) AND format IN ('webp', 'tiff') GROUP BY source, format ORDER BY format;
SELECT processor, version, enabled, pending, running, retrying, done, outputs, failed, delay_p50, delay_p95, bytes_in, bytes_out, bytes_ratio
	FROM imgpipe.processor_performance WHERE processor IN ('web', 'label') ORDER BY processor;
SELECT relname, reloptions FROM pg_class WHERE relnamespace = 'imgpipe'::regnamespace AND relkind = 'v'
	AND relname IN ('image_facts', 'daily_volume', 'processor_performance') ORDER BY relname;
-- a view finds an image by its key in one partition, and only what is asked for is looked up; never the bytes
CREATE FUNCTION plan(query text) RETURNS SETOF text LANGUAGE plpgsql
	AS $$BEGIN RETURN QUERY EXECUTE 'EXPLAIN (VERBOSE, COSTS off) ' || query; END$$;
SELECT count(*) FILTER (WHERE line ~ 'Scan') AS scans, count(*) FILTER (WHERE line ~ 'Index Scan using images_\d') AS by_key,
		count(*) FILTER (WHERE line ~ 'content') AS bytes
	FROM plan('SELECT image_id, format, orientation FROM imgpipe.image_facts WHERE image_id = imgpipe.first_image_id(now() + interval ''1 day'')') line;
SELECT count(*) FILTER (WHERE line ~ 'content') AS bytes, count(*) > 10 AS planned FROM plan('SELECT * FROM imgpipe.image_facts') line;
SELECT count(*) FILTER (WHERE line ~ 'content') AS bytes, count(*) > 10 AS planned FROM plan('SELECT * FROM imgpipe.processor_performance') line;

-- dropping
SELECT imgpipe.drop_processor('web');
SELECT imgpipe.drop_processor('web');
SELECT imgpipe.drop_processor('mine');
SELECT imgpipe.drop_processor('label');
SELECT count(*) AS processors, (SELECT count(*) FROM imgpipe.processor_versions) AS versions, (SELECT count(*) FROM imgpipe.tasks) AS tasks,
	(SELECT count(*) FROM imgpipe.renditions WHERE processor = 'web') AS renditions
	FROM imgpipe.processors;
DELETE FROM imgpipe.images i USING marks WHERE i.received_at >= before;
DELETE FROM imgpipe.renditions;
DELETE FROM imgpipe.results;
DELETE FROM imgpipe.dead_letters WHERE stage = 'processing';
DROP VIEW queue;
DROP FUNCTION plan, claim, label, secret, wrong_argument, wrong_result, several;
DROP OWNED BY regress_imgpipe_engineer, regress_imgpipe_stranger;
DROP ROLE regress_imgpipe_engineer, regress_imgpipe_stranger;
DO $$
BEGIN
	IF imgpipe.workers_available() THEN
		PERFORM imgpipe.start_workers();
	END IF;
END
$$;
