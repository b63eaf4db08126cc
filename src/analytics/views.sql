
/*
 * Views for analysts; see src/analytics/.  All are security_invoker: a reader
 * sees what the read fence and the reader's own grants let through, and needs
 * SELECT on what a view reads.
 */

/*
 * Functions and not subqueries in the view: with these, its plan would have
 * every partition of five tables in it, and look so dear that PostgreSQL spent
 * seconds on compiling it.  One plan a session, which finds the partition when
 * it runs.
 */
CREATE FUNCTION imgpipe.processing_state(image_id uuid) RETURNS text
	LANGUAGE plpgsql STABLE STRICT PARALLEL SAFE COST 1000
	SET search_path = pg_catalog, pg_temp
	SET plan_cache_mode = force_generic_plan
AS $$
BEGIN
	IF EXISTS (SELECT FROM imgpipe.tasks t WHERE t.image_id = processing_state.image_id) THEN
		RETURN 'pending';
	END IF;
	IF EXISTS (SELECT FROM imgpipe.dead_letters d
		WHERE d.image_id = processing_state.image_id AND d.stage = 'processing'
			AND NOT EXISTS (SELECT FROM imgpipe.renditions r
				WHERE r.image_id = processing_state.image_id AND r.processor = d.processor AND r.created_at > d.created_at)
			AND NOT EXISTS (SELECT FROM imgpipe.results s
				WHERE s.image_id = processing_state.image_id AND s.processor = d.processor AND s.created_at > d.created_at)) THEN
		RETURN 'failed';
	END IF;
	IF EXISTS (SELECT FROM imgpipe.renditions r WHERE r.image_id = processing_state.image_id)
		OR EXISTS (SELECT FROM imgpipe.results s WHERE s.image_id = processing_state.image_id) THEN
		RETURN 'done';
	END IF;
	RETURN 'none';
END
$$;
COMMENT ON FUNCTION imgpipe.processing_state(uuid) IS
'pending: a processor has still to work on the image; failed: one has given up on it (see dead_letters) and not succeeded since; done; none: it arrived when there was no processor. The caller needs SELECT on tasks, renditions, results and on dead_letters (image_id, stage, processor, created_at).';

CREATE FUNCTION imgpipe.rendition_count(image_id uuid) RETURNS bigint
	LANGUAGE plpgsql STABLE STRICT PARALLEL SAFE COST 1000
	SET search_path = pg_catalog, pg_temp
	SET plan_cache_mode = force_generic_plan
AS $$
BEGIN
	RETURN (SELECT count(*) FROM imgpipe.renditions r WHERE r.image_id = rendition_count.image_id);
END
$$;
COMMENT ON FUNCTION imgpipe.rendition_count(uuid) IS
'How many renditions of the image there are. The caller needs SELECT on renditions.';

CREATE FUNCTION imgpipe.result_count(image_id uuid) RETURNS bigint
	LANGUAGE plpgsql STABLE STRICT PARALLEL SAFE COST 1000
	SET search_path = pg_catalog, pg_temp
	SET plan_cache_mode = force_generic_plan
AS $$
BEGIN
	RETURN (SELECT count(*) FROM imgpipe.results s WHERE s.image_id = result_count.image_id);
END
$$;
COMMENT ON FUNCTION imgpipe.result_count(uuid) IS
'How many results of functions the image has. The caller needs SELECT on results.';

CREATE VIEW imgpipe.image_facts WITH (security_invoker = true) AS
	SELECT i.image_id, i.source, i.source_key, i.batch_id, i.uploaded_by,
		i.received_at, i.source_timestamp,
		imgpipe.purge_at(i.image_id) AS purge_at,
		i.format, i.width, i.height,
		pg_catalog.round(i.width::numeric OPERATOR(pg_catalog.*) i.height::numeric OPERATOR(pg_catalog./) 1000000.0, 3) AS megapixels,
		pg_catalog.round(i.width::numeric OPERATOR(pg_catalog./) i.height::numeric, 4) AS aspect_ratio,
		CASE WHEN i.width OPERATOR(pg_catalog.>) i.height THEN 'landscape'
			WHEN i.width OPERATOR(pg_catalog.<) i.height THEN 'portrait'
			ELSE 'square' END AS orientation,
		i.bytes, i.sha256,
		imgpipe.processing_state(i.image_id) AS processing,
		imgpipe.rendition_count(i.image_id) AS renditions,
		imgpipe.result_count(i.image_id) AS results
	FROM imgpipe.images i
	WHERE i.image_id OPERATOR(pg_catalog.>=) imgpipe.fence();
COMMENT ON VIEW imgpipe.image_facts IS
'One row an image, without its bytes. A condition on image_id finds one partition; one on purge_at none: use image_id >= imgpipe.first_image_id(...). The columns processing, renditions and results look into other tables for each image, about 0.1 ms: leave them out where they are not wanted. A reader needs SELECT on images and, for these columns, on tasks, renditions, results and dead_letters (image_id, stage, processor, created_at).';
COMMENT ON COLUMN imgpipe.image_facts.purge_at IS 'When the image is hidden and dropped, with all that was derived from it.';
COMMENT ON COLUMN imgpipe.image_facts.width IS 'Pixels as displayed, EXIF orientation applied.';
COMMENT ON COLUMN imgpipe.image_facts.height IS 'Pixels as displayed, EXIF orientation applied.';
COMMENT ON COLUMN imgpipe.image_facts.megapixels IS 'Width times height of one page, in millions.';
COMMENT ON COLUMN imgpipe.image_facts.aspect_ratio IS 'Width divided by height.';
COMMENT ON COLUMN imgpipe.image_facts.orientation IS 'landscape, portrait or square, as displayed.';
COMMENT ON COLUMN imgpipe.image_facts.bytes IS 'Size of the file.';
COMMENT ON COLUMN imgpipe.image_facts.sha256 IS 'Of the file: equal files have equal values.';
COMMENT ON COLUMN imgpipe.image_facts.processing IS 'pending, failed, done or none: see imgpipe.processing_state().';

CREATE VIEW imgpipe.daily_volume WITH (security_invoker = true) AS
	SELECT v.day, v.source, v.format,
		pg_catalog.sum(v.images)::bigint AS images,
		pg_catalog.sum(v.bytes)::bigint AS bytes,
		pg_catalog.round(pg_catalog.sum(v.bytes) OPERATOR(pg_catalog./) pg_catalog.sum(v.images)) AS average_bytes,
		pg_catalog.round(pg_catalog.sum(v.pixels) OPERATOR(pg_catalog./) 1000000.0, 3) AS megapixels,
		pg_catalog.min(v.first_received_at) AS first_received_at,
		pg_catalog.max(v.last_received_at) AS last_received_at
	FROM (
		SELECT (i.received_at AT TIME ZONE 'UTC')::pg_catalog.date AS day, i.source, i.format,
				pg_catalog.count(*) AS images, pg_catalog.sum(i.bytes) AS bytes,
				pg_catalog.sum(i.width::bigint OPERATOR(pg_catalog.*) i.height) AS pixels,
				pg_catalog.min(i.received_at) AS first_received_at, pg_catalog.max(i.received_at) AS last_received_at
			FROM imgpipe.images i
			WHERE i.image_id OPERATOR(pg_catalog.>=) imgpipe.fence()
			GROUP BY 1, 2, 3
		UNION ALL
		SELECT s.day, s.source, s.format, s.images, s.bytes, s.pixels, s.first_received_at, s.last_received_at
			FROM imgpipe.sealed_daily_volume s) v
	GROUP BY v.day, v.source, v.format;
COMMENT ON VIEW imgpipe.daily_volume IS
'Images that arrived, by day, source and format, those that are purged by now included (see imgpipe.sealed_daily_volume). Reads every image''s row, no bytes. A reader needs SELECT on images and on sealed_daily_volume.';
COMMENT ON COLUMN imgpipe.daily_volume.day IS 'Of received_at, in UTC.';
COMMENT ON COLUMN imgpipe.daily_volume.bytes IS 'Of the files.';

CREATE VIEW imgpipe.processor_performance WITH (security_invoker = true) AS
	WITH queue AS (
		SELECT t.processor_id,
			pg_catalog.count(*) FILTER (WHERE t.available_at OPERATOR(pg_catalog.<=) pg_catalog.now()) AS pending,
			pg_catalog.count(*) FILTER (WHERE t.available_at OPERATOR(pg_catalog.>) pg_catalog.now() AND t.last_error IS NULL) AS running,
			pg_catalog.count(*) FILTER (WHERE t.available_at OPERATOR(pg_catalog.>) pg_catalog.now() AND t.last_error IS NOT NULL) AS retrying,
			pg_catalog.min(t.created_at) AS oldest
		FROM imgpipe.tasks t GROUP BY t.processor_id
	), derived AS (
		SELECT r.processor, r.image_id, pg_catalog.max(r.created_at) AS done_at, pg_catalog.count(*) AS rows, pg_catalog.sum(r.bytes) AS bytes
		FROM imgpipe.renditions r WHERE r.image_id OPERATOR(pg_catalog.>=) imgpipe.fence()
		GROUP BY r.processor, r.image_id
		UNION ALL
		SELECT s.processor, s.image_id, s.created_at, 1, NULL
		FROM imgpipe.results s WHERE s.image_id OPERATOR(pg_catalog.>=) imgpipe.fence()
	), work AS (
		SELECT d.processor, pg_catalog.count(*) AS done, pg_catalog.sum(d.rows) AS outputs,
			pg_catalog.count(*) FILTER (WHERE d.done_at OPERATOR(pg_catalog.>) (pg_catalog.now() OPERATOR(pg_catalog.-) '5 minutes'::interval)) AS lately,
			pg_catalog.percentile_cont(0.5) WITHIN GROUP (ORDER BY d.done_at OPERATOR(pg_catalog.-) i.received_at) AS delay_p50,
			pg_catalog.percentile_cont(0.95) WITHIN GROUP (ORDER BY d.done_at OPERATOR(pg_catalog.-) i.received_at) AS delay_p95,
			pg_catalog.sum(i.bytes) AS bytes_in, pg_catalog.sum(d.bytes) AS bytes_out,
			pg_catalog.max(d.done_at) AS last_done_at
		FROM derived d JOIN imgpipe.images i ON i.image_id OPERATOR(pg_catalog.=) d.image_id
		WHERE i.image_id OPERATOR(pg_catalog.>=) imgpipe.fence()
		GROUP BY d.processor
	), dead AS (
		SELECT l.processor, pg_catalog.count(*) AS failed
		FROM imgpipe.dead_letters l
		WHERE l.stage OPERATOR(pg_catalog.=) 'processing' AND l.image_id OPERATOR(pg_catalog.>=) imgpipe.fence()
		GROUP BY l.processor
	)
	SELECT p.name AS processor, p.owner, p.version, p.enabled,
		COALESCE(q.pending, 0) AS pending, COALESCE(q.running, 0) AS running, COALESCE(q.retrying, 0) AS retrying,
		COALESCE(w.done, 0) AS done, COALESCE(w.outputs, 0) AS outputs, COALESCE(d.failed, 0) AS failed,
		pg_catalog.now() OPERATOR(pg_catalog.-) q.oldest AS oldest_task,
		w.delay_p50, w.delay_p95,
		pg_catalog.round(COALESCE(w.lately, 0) OPERATOR(pg_catalog./) 5.0, 1) AS images_per_minute,
		w.bytes_in, w.bytes_out,
		CASE WHEN w.bytes_in OPERATOR(pg_catalog.>) 0 THEN pg_catalog.round(w.bytes_out OPERATOR(pg_catalog./) w.bytes_in, 4) END AS bytes_ratio,
		w.last_done_at
	FROM imgpipe.processors p
		LEFT JOIN queue q ON q.processor_id OPERATOR(pg_catalog.=) p.processor_id
		LEFT JOIN work w ON w.processor OPERATOR(pg_catalog.=) p.name
		LEFT JOIN dead d ON d.processor OPERATOR(pg_catalog.=) p.name;
COMMENT ON VIEW imgpipe.processor_performance IS
'One row a processor: what waits, what was done to images that are not purged yet, how fast. Reads the rows, not the bytes, of all images and what was derived from them. A reader needs SELECT on processors, tasks, images, renditions, results and on dead_letters (image_id, stage, processor).';
COMMENT ON COLUMN imgpipe.processor_performance.pending IS 'Tasks that are due and that no worker has.';
COMMENT ON COLUMN imgpipe.processor_performance.running IS 'Tasks that a worker has.';
COMMENT ON COLUMN imgpipe.processor_performance.retrying IS 'Tasks that failed and wait for their next attempt.';
COMMENT ON COLUMN imgpipe.processor_performance.done IS 'Images.';
COMMENT ON COLUMN imgpipe.processor_performance.outputs IS 'Renditions and results.';
COMMENT ON COLUMN imgpipe.processor_performance.failed IS 'Dead letters.';
COMMENT ON COLUMN imgpipe.processor_performance.oldest_task IS 'Age of the oldest task.';
COMMENT ON COLUMN imgpipe.processor_performance.delay_p50 IS 'Median of the time from received_at to the last output, waiting included.';
COMMENT ON COLUMN imgpipe.processor_performance.delay_p95 IS '95th percentile of the time from received_at to the last output, waiting included.';
COMMENT ON COLUMN imgpipe.processor_performance.images_per_minute IS 'Over the last 5 minutes.';
COMMENT ON COLUMN imgpipe.processor_performance.bytes_in IS 'Size of the files that were done.';
COMMENT ON COLUMN imgpipe.processor_performance.bytes_out IS 'Size of their renditions; NULL for a function.';
COMMENT ON COLUMN imgpipe.processor_performance.bytes_ratio IS 'bytes_out divided by bytes_in.';

