-- Image ids, the tables, partitions, the read fence and the purge.
\set SHOW_CONTEXT never

-- ids
SET imgpipe.max_retention = '3650d';
SELECT imgpipe.purge_at(imgpipe.new_image_id('2030-01-02 03:04:05.678+00')) = '2030-01-02 03:04:05.678+00' AS exact,
	imgpipe.purge_at(imgpipe.new_image_id('2030-01-02 03:04:05.6780001+00')) = '2030-01-02 03:04:05.678+00' AS in_milliseconds,
	imgpipe.purge_at(imgpipe.new_image_id('2030-01-02 03:04:05.678001+00')) = '2030-01-02 03:04:05.679+00' AS rounded_up;
SELECT substr(id::text, 15, 1) AS version, substr(id::text, 20, 1) IN ('8', '9', 'a', 'b') AS variant
	FROM imgpipe.new_image_id() id;
SELECT count(DISTINCT imgpipe.new_image_id('2030-01-01')) FROM generate_series(1, 1000);
SELECT imgpipe.purge_at(imgpipe.new_image_id()) - now() BETWEEN '6 days 23:59' AND '7 days 00:01' AS seven_days;
SELECT imgpipe.first_image_id('2030-01-02 03:04:05.678+00'),
	imgpipe.first_image_id('2030-01-02') < imgpipe.new_image_id('2030-01-02') AS first,
	imgpipe.new_image_id('2030-01-02') < imgpipe.first_image_id('2030-01-02 00:00:00.001') AS ordered;
SELECT imgpipe.new_image_id('infinity');
SELECT imgpipe.new_image_id('1969-12-31 23:59:59+00');
SELECT imgpipe.purge_at('00000000-0000-4000-8000-000000000001');
RESET imgpipe.max_retention;

-- partitions are there, without a gap, for the retention and some days more
SELECT parent, min(deadline_from) <= now() AS from_now, max(deadline_to) >= now() + interval '8 days 12 hours' AS far_enough,
	sum(deadline_to - deadline_from) = max(deadline_to) - min(deadline_from) AS without_a_gap
	FROM imgpipe.partitions GROUP BY parent ORDER BY parent::text;
SELECT imgpipe.create_partitions();
SELECT count(*) AS members FROM pg_depend d JOIN imgpipe.partitions p ON d.objid = p.partition AND d.deptype = 'e';

-- an application needs only this
CREATE ROLE regress_imgpipe_app;
CREATE ROLE regress_imgpipe_reader;
GRANT USAGE ON SCHEMA imgpipe TO regress_imgpipe_app, regress_imgpipe_reader;
GRANT INSERT ON imgpipe.images TO regress_imgpipe_app;
GRANT SELECT ON imgpipe.images TO regress_imgpipe_reader;
GRANT SELECT ON samples TO regress_imgpipe_app;
SET ROLE regress_imgpipe_app;
PREPARE upload (bytea) AS INSERT INTO imgpipe.images (content) VALUES ($1);
SELECT file AS jpeg FROM samples WHERE name = 'jpeg' \gset
EXECUTE upload(:'jpeg');
INSERT INTO imgpipe.images (content, batch_id, source_key) SELECT file, 'batch 1', name FROM samples WHERE name IN ('png', 'turned jpeg');
EXECUTE upload('no image');
SELECT count(*) FROM imgpipe.images;
SET ROLE regress_imgpipe_reader;
SELECT source, batch_id, source_key, uploaded_by = session_user AS by_me, received_at > now() - interval '1 hour' AS lately,
	format, width, height, bytes, sha256 = imgpipe.image_sha256(content) AS hashed
	FROM imgpipe.images ORDER BY bytes;
INSERT INTO imgpipe.images (content) VALUES ('\x');
DELETE FROM imgpipe.images;
RESET ROLE;

-- the read fence: a row is gone for everybody but the owner from its deadline on
INSERT INTO imgpipe.images (image_id, content, source_key)
	SELECT imgpipe.new_image_id(now() + interval '400 milliseconds'), file, 'short-lived' FROM samples WHERE name = 'jpeg';
INSERT INTO imgpipe.images (image_id, content, source_key)
	SELECT imgpipe.new_image_id(date_trunc('hour', now())), file, 'late' FROM samples WHERE name = 'jpeg';
CREATE VIEW fenced WITH (security_invoker) AS SELECT i.source_key, j.image_id FROM imgpipe.images i JOIN imgpipe.images j USING (image_id);
GRANT SELECT ON fenced TO regress_imgpipe_reader;
SET ROLE regress_imgpipe_reader;
SELECT count(*) FROM imgpipe.images WHERE source_key = 'late';
SELECT pg_sleep(0.5);
SELECT count(*) FROM imgpipe.images WHERE source_key IN ('short-lived', 'late');
SELECT count(*) FROM fenced WHERE source_key IN ('short-lived', 'late');
COPY (SELECT source_key FROM imgpipe.images WHERE source_key IN ('short-lived', 'late')) TO STDOUT;
RESET ROLE;
SELECT count(*) FROM imgpipe.images WHERE source_key IN ('short-lived', 'late');
SET ROLE regress_imgpipe_app;
INSERT INTO imgpipe.images (image_id, content) SELECT imgpipe.new_image_id(now() - interval '1 second'), file FROM samples WHERE name = 'jpeg';
RESET ROLE;

-- nobody reaches a partition but through its parent
SELECT format('SELECT count(*) FROM %s', partition) AS direct FROM imgpipe.partitions
	WHERE parent = 'imgpipe.images'::regclass ORDER BY deadline_from LIMIT 1 \gset
ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO regress_imgpipe_reader;
SET ROLE regress_imgpipe_reader;
\set VERBOSITY sqlstate
:direct;
\set VERBOSITY default
RESET ROLE;
ALTER DEFAULT PRIVILEGES REVOKE SELECT ON TABLES FROM regress_imgpipe_reader;

-- lookups by key read one partition
CREATE FUNCTION partitions_scanned(query text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
	plan text;
BEGIN
	EXECUTE 'EXPLAIN (FORMAT json) ' || query INTO plan;
	RETURN (SELECT count(*) FROM regexp_matches(plan, '"Relation Name": "images_', 'g'));
END
$$;
SELECT partitions_scanned(format('SELECT * FROM imgpipe.images WHERE image_id = %L', image_id)) FROM imgpipe.images LIMIT 1;

-- the purge drops what is overdue by the catalog's bounds, and enters it
BEGIN;
SELECT imgpipe.create_partition('imgpipe.images', '2020-01-01 00:00+00', '2020-01-01 06:00+00');
INSERT INTO imgpipe.images (image_id, content) SELECT imgpipe.new_image_id('2020-01-01 03:00+00'), file FROM samples WHERE name IN ('jpeg', 'png');
INSERT INTO imgpipe.tasks (image_id, processor_id, version) VALUES (imgpipe.new_image_id('2020-01-01 03:00+00'), 0, 1);
SELECT imgpipe.purge_next_partition();
SELECT imgpipe.purge_next_partition();
COMMIT;
SELECT cause, deadline_from AT TIME ZONE 'UTC' AS deadline_from, deadline_to AT TIME ZONE 'UTC' AS deadline_to, row_counts, bytes, disk_bytes > 0 AS on_disk, by_source, lateness > '5 years' AS late
	FROM imgpipe.purge_ledger WHERE deadline_from = '2020-01-01 00:00+00';
SELECT count(*) FROM imgpipe.images WHERE imgpipe.purge_at(image_id) < '2021-01-01';
SELECT count(*) FROM imgpipe.tasks;
SET ROLE regress_imgpipe_app;
SELECT imgpipe.purge_next_partition();
SELECT imgpipe.create_partitions();
RESET ROLE;

DROP VIEW fenced;
DROP FUNCTION partitions_scanned(text);
DELETE FROM imgpipe.images;
REVOKE ALL ON imgpipe.images FROM regress_imgpipe_app, regress_imgpipe_reader;
REVOKE ALL ON SCHEMA imgpipe FROM regress_imgpipe_app, regress_imgpipe_reader;
REVOKE ALL ON samples FROM regress_imgpipe_app;
DROP ROLE regress_imgpipe_app, regress_imgpipe_reader;
