-- Retention: the longest one, ledger, sealed volume, legal holds, erasure, reports. The workers of the purge are tested in test/t.
\set SHOW_CONTEXT never
DO $$BEGIN IF imgpipe.workers_available() THEN PERFORM imgpipe.stop_workers(); END IF; END$$;
SET timezone = 'UTC';
CREATE FUNCTION overdue(day date) RETURNS void LANGUAGE sql AS
	$$SELECT imgpipe.create_partition(parent, day + time '00:00', day + time '06:00') FROM imgpipe.partitioned_tables$$;
CREATE FUNCTION arrive(day date, key text, person text, picture text DEFAULT 'jpeg', source text DEFAULT 'sql') RETURNS uuid LANGUAGE sql AS $$
	INSERT INTO imgpipe.images (image_id, content, source, source_key, uploaded_by, received_at)
		SELECT imgpipe.new_image_id(day + time '03:00'), file, $5, key, person, day - 7 + time '03:00' FROM samples WHERE name = picture
		RETURNING image_id$$;
-- Other suites have been here.
CREATE TABLE entries_before AS SELECT coalesce(max(entry), 0) AS entry FROM imgpipe.purge_ledger;
-- Of whichever tables there are, those that have rows.
CREATE FUNCTION counts(jsonb) RETURNS jsonb LANGUAGE sql AS $$SELECT jsonb_object_agg(key, value) FROM jsonb_each($1) WHERE value <> '0'$$;
CREATE VIEW ledger AS SELECT l.entry - b.entry AS entry, cause, deadline_to, counts(row_counts) AS row_counts, bytes, by_source, lateness > '1 day' AS late
	FROM imgpipe.purge_ledger l, entries_before b WHERE l.entry > b.entry ORDER BY 1;

-- the longest retention
CREATE ROLE regress_imgpipe_app;
GRANT USAGE ON SCHEMA imgpipe TO regress_imgpipe_app;
GRANT INSERT, SELECT, UPDATE ON imgpipe.images TO regress_imgpipe_app;
GRANT SELECT ON samples TO regress_imgpipe_app;
SELECT imgpipe.longest_retention();
SELECT imgpipe.purge_at(imgpipe.new_image_id(now() + interval '2 hours')) - now() BETWEEN '01:59' AND '02:01' AS two_hours;
\set VERBOSITY terse
SELECT imgpipe.new_image_id(now() + interval '8 days');
SET ROLE regress_imgpipe_app;
SET imgpipe.max_retention = '30d';
INSERT INTO imgpipe.images (image_id, content) SELECT imgpipe.new_image_id(now() + interval '6 days 23 hours'), file FROM samples WHERE name = 'jpeg';
INSERT INTO imgpipe.images (image_id, content) SELECT overlay(imgpipe.first_image_id(now() + interval '7 days 1 minute')::text PLACING '8' FROM 15)::uuid, file FROM samples WHERE name = 'jpeg';
UPDATE imgpipe.images SET image_id = overlay(imgpipe.first_image_id(now() + interval '7 days 1 minute')::text PLACING '8' FROM 15)::uuid;
UPDATE imgpipe.images SET image_id = overlay(imgpipe.first_image_id(now() - interval '1 minute')::text PLACING '8' FROM 15)::uuid;
RESET ROLE;
\set VERBOSITY default
SET imgpipe.max_retention = '9d';
SELECT imgpipe.longest_retention(), imgpipe.purge_at(imgpipe.new_image_id()) < now() + interval '7 days 1 minute' AS default_as_before;
SELECT imgpipe.create_partitions() / (SELECT count(*) FROM imgpipe.partitioned_tables) BETWEEN 6 AND 10 AS two_days_more;
SET ROLE regress_imgpipe_app;
INSERT INTO imgpipe.images (image_id, content) SELECT imgpipe.new_image_id(now() + interval '8 days'), file FROM samples WHERE name = 'jpeg';
RESET ROLE;
SET imgpipe.max_retention = '1d';
SELECT imgpipe.purge_at(imgpipe.new_image_id()) < now() + interval '1 day 1 minute' AS never_longer;
RESET imgpipe.max_retention;
DELETE FROM imgpipe.images;
REVOKE ALL ON imgpipe.images, samples FROM regress_imgpipe_app;
REVOKE ALL ON SCHEMA imgpipe FROM regress_imgpipe_app;
DROP ROLE regress_imgpipe_app;

-- nothing that must not outlive the purge is sampled, neither in the tables nor in their partitions
SELECT c.relname AS table, string_agg(a.attname, ' ' ORDER BY a.attnum) AS not_sampled,
	(SELECT count(*) FROM pg_inherits i JOIN pg_attribute p ON p.attrelid = i.inhrelid
		WHERE i.inhparent = c.oid AND p.attnum > 0 AND p.attstattarget = 0) = count(*) * (SELECT count(*) FROM pg_inherits i WHERE i.inhparent = c.oid) AS in_partitions
	FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
	WHERE c.oid IN (SELECT parent FROM imgpipe.partitioned_tables) AND a.attnum > 0 AND a.attstattarget = 0
	GROUP BY c.oid, c.relname ORDER BY 1;

-- every table has the fence and the longest retention (fence.sql), for updates as well as for inserts
SELECT t.name FROM imgpipe.partitioned_tables t
	WHERE (SELECT count(*) FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid AND c.relrowsecurity
		WHERE p.polrelid = t.parent AND p.polcmd = '*' AND NOT p.polpermissive
			AND (pg_get_expr(p.polqual, p.polrelid) LIKE '%fence()%' OR pg_get_expr(p.polwithcheck, p.polrelid) LIKE '%horizon()%')) <> 2;
-- and no partition can be read by itself
SELECT p.partition FROM imgpipe.partitions p JOIN pg_class c ON c.oid = p.partition WHERE NOT c.relrowsecurity OR EXISTS (SELECT FROM pg_policy o WHERE o.polrelid = c.oid);

-- seal, count, drop, ledger
SELECT overdue('2020-03-01'), overdue('2020-03-02');
SELECT arrive('2020-03-01', 'a', 'ada') AS first_image \gset
SELECT count(arrive('2020-03-01', 'b', 'bob', 'png')), count(arrive('2020-03-01', 'c', 'ada', 'jpeg', 'uploads')), count(arrive('2020-03-02', 'd', 'ada'));
INSERT INTO imgpipe.renditions (image_id, processor, name, version, content) SELECT :'first_image', 'p', 'thumb', 1, file FROM samples WHERE name = 'png';
INSERT INTO imgpipe.dead_letters (image_id, stage, sqlstate, reason) VALUES (imgpipe.new_image_id('2020-03-01 01:00'), 'ingest', '22P03', 'no image');
SELECT state, deadline FROM imgpipe.prove_purged(:'first_image');
CREATE TABLE volume AS SELECT * FROM imgpipe.daily_volume WHERE day < '2021-01-01';
SELECT day, source, format, images, bytes, average_bytes, megapixels FROM volume ORDER BY 1, 2, 3;
SELECT item, value FROM imgpipe.retention_report() WHERE item LIKE '%rows';
SELECT imgpipe.purge_next_partition();
SELECT * FROM ledger;
SELECT count(*) FROM (TABLE volume EXCEPT SELECT * FROM imgpipe.daily_volume) AS lost;
SELECT imgpipe.purge_next_partition();
SELECT imgpipe.purge_next_partition();
SELECT count(*) FROM (TABLE volume EXCEPT SELECT * FROM imgpipe.daily_volume) AS lost;
-- nothing that an application can write into an image keeps it from being purged, nor anything of a person in the volume
SELECT overdue('2020-03-05');
\set VERBOSITY terse
SELECT arrive('2020-03-05', 'a', 'ada', 'jpeg', 'ada@example.com');
SELECT arrive('2020-03-05', 'a', 'ada', 'jpeg', repeat('x', 64));
SELECT arrive('2020-03-05', 'a', 'ada', 'jpeg', '');
\set VERBOSITY default
SELECT count(arrive('2020-03-05', repeat('k', 10000), 'ada')) FROM generate_series(1, 4);
UPDATE imgpipe.images i SET received_at = t.at FROM (SELECT image_id, row_number() OVER () AS n FROM imgpipe.images) x
	JOIN unnest('{infinity,-infinity,4714-11-24 00:00:00+00 BC,294276-12-31 23:59:59.999999+00}'::timestamptz[]) WITH ORDINALITY t (at, n) USING (n) WHERE i.image_id = x.image_id;
SELECT imgpipe.purge_next_partition(), imgpipe.purge_next_partition();
SELECT day, images, last_received_at FROM imgpipe.daily_volume WHERE day NOT BETWEEN '2000-01-01' AND '2100-01-01' ORDER BY day;
DELETE FROM imgpipe.sealed_volume WHERE day NOT BETWEEN '2000-01-01' AND '2100-01-01';
SELECT p.state, p.cause, p.entry = l.entry AS entry, p.purged_at = l.purged_at AS at, p.hash = l.hash AS hash
	FROM imgpipe.prove_purged(:'first_image') p JOIN imgpipe.purge_ledger l ON l.deadline_to = '2020-03-01 06:00';
SELECT state, entry FROM imgpipe.prove_purged(imgpipe.first_image_id('2020-04-01'));
SELECT item, value FROM imgpipe.retention_report() WHERE item LIKE '%rows';

-- nor do sources and days without number: all but the 10,000 largest groups are one, and what has a source of its own comes first
BEGIN;
SELECT overdue('2020-03-05');
INSERT INTO imgpipe.images (image_id, content, source, received_at)
	SELECT imgpipe.new_image_id('2020-03-05 03:00'), png, 'of_nobody_' || i % 10100, CASE WHEN i <= 10100 THEN '2020-02-20'::timestamptz WHEN i = 10101 THEN 'infinity' WHEN i = 10102 THEN '-infinity' ELSE '4714-11-24 00:00:00+00 BC' END
	FROM generate_series(1, 10103) i,
		(VALUES ('\x89504e470d0a1a0a0000000d4948445200000001000000010800000000 3a7e9b55 0000000a49444154789c6360000000020001 48afa471 0000000049454e44ae426082'::bytea)) p (png);
SELECT arrive('2020-03-05', 'k', 'p'), arrive('2020-03-05', 'k', 'p', source => 'other') \g /dev/null
SELECT imgpipe.purge_next_partition();
SELECT row_counts, by_source FROM ledger ORDER BY entry DESC LIMIT 1;
SELECT source, day, images FROM imgpipe.sealed_volume WHERE day < '2020-02-27' AND source !~ '^of_nobody' OR source = 'of_nobody_1' ORDER BY 1, 2;
SELECT count(*), sum(images) FROM imgpipe.sealed_volume WHERE source ~ '^of_nobody';
SELECT count(*) FROM imgpipe.verify_ledger();
ROLLBACK;

-- more images of a day that is sealed in part: added, nothing is computed anew
SELECT overdue('2020-03-01');
SELECT count(arrive('2020-03-01', 'a', 'ada'));
SELECT images FROM imgpipe.daily_volume WHERE day = '2020-02-23' AND source = 'sql' AND format = 'jpeg';
SELECT imgpipe.purge_next_partition();
SELECT images FROM imgpipe.daily_volume WHERE day = '2020-02-23' AND source = 'sql' AND format = 'jpeg';

-- a view on a partition: what is in it goes, the rest of the purge goes on, the report says what to do
SELECT overdue('2020-03-03'), overdue('2020-03-04');
SELECT count(arrive('2020-03-03', 'a', 'ada')), count(arrive('2020-03-04', 'a', 'ada'));
CREATE VIEW in_the_way AS SELECT image_id FROM imgpipe_partitions.images_20200303_00;
SELECT imgpipe.purge_next_partition(), imgpipe.purge_next_partition();
SELECT cause, deadline_to, row_counts -> 'images' AS images FROM ledger WHERE deadline_to >= '2020-03-03' AND deadline_to < '2020-03-05';
SELECT count(*) FROM in_the_way;
SELECT value, detail, regexp_replace(hint, 'next at .*', 'next at ...') AS hint FROM imgpipe.retention_report() WHERE item = 'problem' AND value LIKE 'purge of%';
SELECT value FROM imgpipe.retention_report() WHERE item = 'overdue_rows';
DROP VIEW in_the_way;
UPDATE imgpipe.purges SET retry_at = now();
SELECT imgpipe.purge_next_partition(), to_regclass('imgpipe_partitions.images_20200303_00');
SELECT count(*) FROM imgpipe.purges;
SELECT count(*) FROM ledger WHERE deadline_to = '2020-03-03 06:00';

-- views that the fence does not hold for, copies, publications
CREATE ROLE regress_imgpipe_reader;
GRANT USAGE ON SCHEMA imgpipe TO regress_imgpipe_reader;
GRANT SELECT ON imgpipe.images TO regress_imgpipe_reader;
CREATE VIEW owners AS SELECT image_id, source_key FROM imgpipe.images;
CREATE VIEW unshared AS SELECT source_key FROM imgpipe.images;
CREATE VIEW shared_in_part AS SELECT image_id, source_key FROM imgpipe.images;
GRANT SELECT (image_id) ON shared_in_part TO regress_imgpipe_reader;
CREATE VIEW invokers WITH (security_invoker) AS SELECT image_id, source_key FROM imgpipe.images;
CREATE VIEW nested AS SELECT source_key FROM invokers;
CREATE VIEW nested_deeper AS SELECT source_key FROM unshared;
CREATE VIEW of_ours AS SELECT day, images FROM imgpipe.sealed_daily_volume;
CREATE VIEW readers AS SELECT source_key FROM imgpipe.images;
ALTER VIEW readers OWNER TO regress_imgpipe_reader;
GRANT SELECT ON owners, invokers, nested, nested_deeper, of_ours, readers TO regress_imgpipe_reader;
CREATE MATERIALIZED VIEW copy AS SELECT source_key FROM readers;
SET client_min_messages = error;
CREATE PUBLICATION regress_imgpipe_publication FOR TABLE imgpipe.results, samples;
RESET client_min_messages;
SELECT overdue('2020-03-06');
SELECT count(arrive('2020-03-06', 'hidden', 'ada'));
SET ROLE regress_imgpipe_reader;
SELECT (SELECT count(*) FROM imgpipe.images) AS images, (SELECT count(*) FROM invokers) AS invokers, (SELECT count(*) FROM readers) AS readers,
	(SELECT count(*) FROM owners) AS owners, (SELECT count(*) FROM nested) AS nested, (SELECT count(*) FROM nested_deeper) AS nested_deeper, (SELECT count(*) FROM imgpipe.images i JOIN invokers USING (image_id)) AS joined;
COPY imgpipe.images (source_key) TO STDOUT;
SELECT count(*) FROM imgpipe_partitions.images_20200306_00;
RESET ROLE;
-- nor by who may read everything, but for the bytes in TOAST tables
ALTER ROLE regress_imgpipe_reader LOGIN;
GRANT pg_read_all_data TO regress_imgpipe_reader;
SET ROLE regress_imgpipe_reader;
SELECT (SELECT count(*) FROM imgpipe_partitions.images_20200306_00) AS partition, (SELECT count(*) FROM imgpipe.images) AS images;
RESET ROLE;
SELECT * FROM imgpipe.retention_report() WHERE item = 'unfenced_role' AND value = 'regress_imgpipe_reader';
ALTER ROLE regress_imgpipe_reader NOLOGIN BYPASSRLS;
SELECT * FROM imgpipe.retention_report() WHERE item = 'unfenced_role' AND value = 'regress_imgpipe_reader';
ALTER ROLE regress_imgpipe_reader NOBYPASSRLS;
REVOKE pg_read_all_data FROM regress_imgpipe_reader;
SELECT * FROM imgpipe.retention_report() WHERE item = 'unfenced_role' AND value = 'regress_imgpipe_reader';
-- a procedure that goes on after COMMIT does not see what has expired since it began
GRANT INSERT ON imgpipe.images TO regress_imgpipe_reader;
CREATE PROCEDURE outlive(picture bytea, INOUT began_before boolean DEFAULT NULL, INOUT images bigint DEFAULT NULL) LANGUAGE plpgsql AS $$
DECLARE
	deadline timestamptz;
BEGIN
	INSERT INTO imgpipe.images (image_id, content, source_key) VALUES (imgpipe.new_image_id(clock_timestamp() + interval '1 second'), picture, 'short')
		RETURNING imgpipe.purge_at(image_id) INTO deadline;
	WHILE clock_timestamp() < deadline LOOP
		PERFORM pg_sleep(0.01);
	END LOOP;
	COMMIT;
	SELECT statement_timestamp() < deadline, count(*) INTO began_before, images FROM imgpipe.images WHERE source_key = 'short';
END$$;
SELECT encode(file, 'hex') AS picture FROM samples WHERE name = 'jpeg' \gset
SET ROLE regress_imgpipe_reader;
CALL outlive(decode(:'picture', 'hex'));
RESET ROLE;
DROP PROCEDURE outlive;
DELETE FROM imgpipe.images WHERE source_key = 'short';
SELECT value, regexp_replace(detail, 'of .*, whom', 'of #, whom') AS detail, hint FROM imgpipe.retention_report() WHERE value LIKE 'view %';
SELECT place, detail, hint FROM imgpipe.retention_residue() WHERE place ~ '^(materialized view|publication)';
SELECT imgpipe.purge_next_partition();
DROP PUBLICATION regress_imgpipe_publication;
DROP MATERIALIZED VIEW copy;
DROP VIEW owners, nested, nested_deeper, invokers, of_ours, unshared, shared_in_part, readers;
DROP OWNED BY regress_imgpipe_reader;
DROP ROLE regress_imgpipe_reader;

-- a foreign key to images: what nothing refers to goes, the report says what to do about the rest
CREATE TABLE refers (image_id uuid REFERENCES imgpipe.images);
SELECT overdue('2020-03-07'), overdue('2020-03-08');
INSERT INTO refers SELECT arrive('2020-03-07', 'referred', 'ada');
SELECT count(arrive('2020-03-08', 'a', 'ada'));
SET client_min_messages = error;
SELECT imgpipe.purge_next_partition(), imgpipe.purge_next_partition();
RESET client_min_messages;
SELECT cause, deadline_to, row_counts -> 'images' AS images FROM ledger WHERE deadline_to >= '2020-03-07';
SELECT regexp_replace(value, '_fkey[_\d]*', '_fkey') AS value, regexp_replace(detail, '\(\S{36}\)', '(...)') AS detail, regexp_replace(hint, 'next at .*', 'next at ...') AS hint
	FROM imgpipe.retention_report() WHERE item = 'problem' AND value LIKE 'purge of%';
DROP TABLE refers;
UPDATE imgpipe.purges SET retry_at = now();
SELECT imgpipe.purge_next_partition(), imgpipe.purge_next_partition(), imgpipe.purge_next_partition();

-- operators and functions of the same names do nothing, whatever the session's search_path
CREATE SCHEMA regress_trap;
CREATE FUNCTION regress_trap.trap(uuid, uuid) RETURNS boolean LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'trapped'; END$$;
CREATE OPERATOR regress_trap.< (LEFTARG = uuid, RIGHTARG = uuid, FUNCTION = regress_trap.trap);
CREATE OPERATOR regress_trap.= (LEFTARG = uuid, RIGHTARG = uuid, FUNCTION = regress_trap.trap);
CREATE FUNCTION regress_trap.clock_timestamp() RETURNS timestamptz LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'trapped'; END$$;
CREATE FUNCTION regress_trap.to_jsonb(anyelement) RETURNS jsonb LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'trapped'; END$$;
SELECT overdue('2020-03-09');
SELECT count(arrive('2020-03-09', 'k', 'ada'));
SET search_path = regress_trap, pg_catalog, public;
SELECT imgpipe.purge_next_partition(), imgpipe.purge_next_partition();
RESET search_path;
SET client_min_messages = error;
DROP SCHEMA regress_trap CASCADE;
RESET client_min_messages;

-- a trigger that somebody may put on the tables does not run with the rights of the purge
CREATE ROLE regress_imgpipe_attacker;
GRANT USAGE ON SCHEMA imgpipe TO regress_imgpipe_attacker;
GRANT TRIGGER ON imgpipe.images, imgpipe.tasks, imgpipe.purge_ledger, imgpipe.dead_letters, imgpipe.held_images TO regress_imgpipe_attacker;
GRANT CREATE ON SCHEMA public TO regress_imgpipe_attacker;
SET ROLE regress_imgpipe_attacker;
CREATE FUNCTION public.attack() RETURNS trigger LANGUAGE plpgsql AS
	$$BEGIN EXECUTE format('ALTER ROLE regress_imgpipe_attacker SUPERUSER'); RETURN NULL; END$$;
\set VERBOSITY sqlstate
CREATE TRIGGER attack AFTER DELETE ON imgpipe.images FOR EACH ROW EXECUTE FUNCTION public.attack();
\set VERBOSITY default
CREATE TRIGGER attack AFTER DELETE ON imgpipe.images FOR EACH STATEMENT EXECUTE FUNCTION public.attack();
CREATE TRIGGER attack BEFORE DELETE ON imgpipe.tasks FOR EACH ROW EXECUTE FUNCTION public.attack();
CREATE TRIGGER attack BEFORE DELETE ON imgpipe.dead_letters FOR EACH STATEMENT EXECUTE FUNCTION public.attack();
CREATE TRIGGER attack AFTER INSERT ON imgpipe.purge_ledger FOR EACH STATEMENT EXECUTE FUNCTION public.attack();
CREATE TRIGGER attack AFTER INSERT ON imgpipe.held_images FOR EACH ROW EXECUTE FUNCTION public.attack();
CREATE RULE attack AS ON INSERT TO imgpipe.purge_ledger DO ALSO SELECT public.attack();
RESET ROLE;
SELECT overdue('2020-03-05');
INSERT INTO imgpipe.tasks (image_id, processor_id, version) VALUES (arrive('2020-03-05', 'held', 'ada'), 0, 1);
SELECT imgpipe.hold_images('attack', source_key => 'held');
SELECT imgpipe.purge_next_partition();
SELECT count(arrive(current_date + 2, 'attack', 'bob'));
SELECT images FROM imgpipe.erase_images(source_key => 'attack');
SELECT imgpipe.release_hold('attack');
SELECT row_counts FROM ledger WHERE deadline_to = '2020-03-05 06:00' OR cause <> 'retention';
SELECT rolsuper FROM pg_roles WHERE rolname = 'regress_imgpipe_attacker';
DROP TRIGGER attack ON imgpipe.images;
DROP TRIGGER attack ON imgpipe.tasks;
DROP TRIGGER attack ON imgpipe.dead_letters;
DROP TRIGGER attack ON imgpipe.purge_ledger;
DROP TRIGGER attack ON imgpipe.held_images;
DROP OWNED BY regress_imgpipe_attacker;
DROP ROLE regress_imgpipe_attacker;

-- the chain: what is changed, missing or moved is found
SELECT * FROM imgpipe.verify_ledger();
SELECT encode(hash, 'hex') AS anchor FROM imgpipe.purge_ledger ORDER BY entry DESC OFFSET 2 LIMIT 1 \gset
SELECT entry + 2 AS second, entry + 3 AS third, (SELECT max(entry) FROM imgpipe.purge_ledger) AS last FROM entries_before \gset
SELECT * FROM imgpipe.verify_ledger(decode(:'anchor', 'hex'));
SELECT entry IS NULL AS of_all, problem FROM imgpipe.verify_ledger('\x00');
CREATE FUNCTION found(statement text) RETURNS SETOF text LANGUAGE plpgsql AS $$
BEGIN
	BEGIN
		EXECUTE statement;
		RETURN QUERY SELECT format('%s: %s', v.entry - (SELECT entry FROM entries_before), regexp_replace(v.problem, '\d+|[0-9a-f]{64}', '#', 'g')) FROM imgpipe.verify_ledger() v;
		RAISE SQLSTATE 'ZZ000';
	EXCEPTION WHEN SQLSTATE 'ZZ000' THEN
		NULL;
	END;
END$$;
SELECT found(format('UPDATE imgpipe.purge_ledger SET bytes = bytes - 1 WHERE entry = %s', :second));
SELECT found(format('UPDATE imgpipe.purge_ledger SET purged_at = purged_at + interval ''1 microsecond'' WHERE entry = %s', :last));
SELECT found(format('UPDATE imgpipe.purge_ledger SET by_source = ''{}'' WHERE entry = %s', :second));
SELECT found(format('DELETE FROM imgpipe.purge_ledger WHERE entry = %s', :second));
SELECT found(format('DELETE FROM imgpipe.purge_ledger WHERE entry IN (%s, %s)', :second, :third));
SELECT found(format('DELETE FROM imgpipe.purge_ledger WHERE entry = %s', :last));
SELECT found('DELETE FROM imgpipe.purge_ledger_head');
-- the end is cut off and the head set right: only the anchor tells
BEGIN;
SELECT encode(hash, 'hex') AS newest FROM imgpipe.purge_ledger_head \gset
DELETE FROM imgpipe.purge_ledger WHERE entry = :last;
UPDATE imgpipe.purge_ledger_head h SET entry = l.entry, hash = l.hash FROM imgpipe.purge_ledger l WHERE l.entry = :last - 1;
SELECT count(*) FROM imgpipe.verify_ledger();
SELECT entry, regexp_replace(problem, '[0-9a-f]{64}', '#') AS problem FROM imgpipe.verify_ledger(decode(:'newest', 'hex'));
ROLLBACK;
SELECT found(format('UPDATE imgpipe.purge_ledger SET entry = -entry WHERE entry IN (%s, %s); UPDATE imgpipe.purge_ledger SET entry = CASE entry WHEN -%1$s THEN %2$s ELSE %1$s END WHERE entry < 0', :second, :third));
SELECT found(format('UPDATE imgpipe.purge_ledger l SET bytes = 1 WHERE entry = %s; UPDATE imgpipe.purge_ledger l SET hash = imgpipe.ledger_hash(l) WHERE entry = %1$s', :second));
SELECT * FROM imgpipe.verify_ledger();

-- legal holds
SELECT imgpipe.hold_images('2024-17');
SELECT imgpipe.hold_images('', source_key => 'x');
SELECT imgpipe.release_hold(NULL);
SELECT imgpipe.hold_images('2024-17', '2024-01-01', source_key => 'x');
SELECT imgpipe.hold_images('2024-17', received_from => '2024-02-01', received_to => '2024-02-01');
SELECT imgpipe.hold_images('2024-17', image_ids => '{}');
SELECT overdue('2020-04-01'), overdue('2020-04-02');
SELECT arrive('2020-04-01', 'k1', 'ada') AS held_image \gset
SELECT count(arrive('2020-04-01', 'k2', 'ada')), count(arrive('2020-04-01', 'k3', 'bob')), count(arrive('2020-04-02', 'k4', 'bob'));
INSERT INTO imgpipe.results (image_id, processor, version, result) VALUES (:'held_image', 'p', 1, '{"label": "cat"}');
SELECT imgpipe.hold_images('2024-17', uploaded_by => 'ada');
SELECT imgpipe.hold_images('2024-18', source_key => 'k1', received_to => '2020-12-31');
SELECT imgpipe.hold_images('2024-18', image_ids => ARRAY[:'held_image']::uuid[], batch_id => 'none');
SELECT imgpipe.purge_next_partition(), imgpipe.purge_next_partition();
SELECT deadline_to, row_counts FROM ledger WHERE deadline_to > '2020-04-01';
SELECT h.case_reference, h.source_key, imgpipe.image_sha256(h.content) = sha256(s.file) AS same_bytes, h.uploaded_by, h.results #>> '{0,result}' AS result
	FROM imgpipe.held_images h, samples s WHERE s.name = 'jpeg' ORDER BY 1, 2;
SELECT state, cause FROM imgpipe.prove_purged(:'held_image');
SELECT value, detail FROM imgpipe.retention_report() WHERE item = 'held_images';
SELECT imgpipe.release_hold('2024-17');
SELECT imgpipe.release_hold('2024-17');
SELECT state, cause FROM imgpipe.prove_purged(:'held_image');
SELECT imgpipe.release_hold('2024-18');
SELECT state, cause FROM imgpipe.prove_purged(:'held_image');
SELECT cause, row_counts, bytes, by_source FROM ledger WHERE cause = 'release' ORDER BY bytes DESC LIMIT 2;
SELECT count(*) FROM pg_class WHERE relname LIKE 'held_images_%' AND relnamespace = 'imgpipe_partitions'::regnamespace;
-- until
SELECT imgpipe.hold_images('2024-19', now() + interval '1 hour', source_key => 'k9');
UPDATE imgpipe.holds SET until = now() WHERE case_reference = '2024-19';
SELECT imgpipe.purge_next_partition(), imgpipe.purge_next_partition();
SELECT count(*) FROM imgpipe.holds;
-- results that are too much for one value
BEGIN;
SELECT overdue('2020-04-03');
SELECT arrive('2020-04-03', 'k10', 'ada') AS large_image \gset
INSERT INTO imgpipe.results (image_id, processor, version, result) SELECT :'large_image', 'p' || i, 1, to_jsonb(repeat('x', CASE i WHEN 3 THEN 5 ELSE 140000000 END)) FROM generate_series(1, 3) i;
SELECT imgpipe.hold_images('2024-21', source_key => 'k10');
SELECT imgpipe.purge_next_partition();
SELECT r ->> 'processor' AS processor, r -> 'result' AS result, r -> 'left_out_bytes' AS left_out_bytes FROM imgpipe.held_images, jsonb_array_elements(results) r WHERE image_id = :'large_image' ORDER BY 1;
SELECT count(*) FROM imgpipe.images;
ROLLBACK;
-- somebody's view on the copies keeps a table, and not what is in it
SELECT imgpipe.hold_images('2024-20', source_key => 'k9');
SELECT hold_id AS hold FROM imgpipe.holds \gset
CREATE VIEW on_copies AS SELECT image_id FROM imgpipe_partitions.held_images_:hold;
SELECT imgpipe.release_hold('2024-20');
SELECT imgpipe.release_hold('2024-20');
UPDATE imgpipe.holds SET retry_at = now();
SELECT imgpipe.purge_next_partition();
SELECT ended, attempts, last_error, regexp_replace(last_detail, '_\d+', '_#') AS last_detail, retry_at > now() AS later FROM imgpipe.holds;
SELECT value, regexp_replace(hint, 'next at.*', 'next at #') AS hint FROM imgpipe.retention_report() WHERE item IN ('held_images', 'problem') AND value !~ 'by itself';
DROP VIEW on_copies;
UPDATE imgpipe.holds SET retry_at = now();
SELECT imgpipe.purge_next_partition();
SELECT count(*) FROM imgpipe.holds;
-- a role of its own
CREATE ROLE regress_imgpipe_legal;
GRANT USAGE ON SCHEMA imgpipe TO regress_imgpipe_legal;
GRANT SELECT ON imgpipe.held_images TO regress_imgpipe_legal;
GRANT EXECUTE ON FUNCTION imgpipe.hold_images(text, timestamptz, text, text, text, text, uuid[], timestamptz, timestamptz), imgpipe.release_hold(text) TO regress_imgpipe_legal;
CREATE ROLE regress_imgpipe_other;
GRANT USAGE ON SCHEMA imgpipe TO regress_imgpipe_other;
GRANT SELECT ON imgpipe.images TO regress_imgpipe_other;
SET ROLE regress_imgpipe_other;
\set VERBOSITY terse
SELECT count(*) FROM imgpipe.held_images;
SELECT imgpipe.hold_images('2024-20', source_key => 'k1');
SELECT imgpipe.release_hold('2024-20');
\set VERBOSITY default
RESET ROLE;
DROP OWNED BY regress_imgpipe_other;
DROP ROLE regress_imgpipe_other;
SET ROLE regress_imgpipe_legal;
SELECT imgpipe.hold_images('2024-20', source_key => 'k1');
SELECT count(*) FROM imgpipe.held_images;
SELECT imgpipe.release_hold('2024-20');
\set VERBOSITY terse
SELECT count(*) FROM imgpipe.images;
SELECT imgpipe.erase_images(source_key => 'k1');
SELECT * FROM imgpipe.retention_report();
\set VERBOSITY default
RESET ROLE;
DROP OWNED BY regress_imgpipe_legal;
DROP ROLE regress_imgpipe_legal;

-- erasure
SELECT imgpipe.erase_images();
SELECT imgpipe.erase_images('ada', 'k1');
SELECT arrive(current_date + 2, 'k1', 'eve') AS erased_image \gset
SELECT count(arrive(current_date + 2, 'k2', 'eve', 'png')), count(arrive(current_date + 3, 'k3', 'bob'));
UPDATE imgpipe.images SET source_partition = 0, source_offset = 17 WHERE image_id = :'erased_image';
INSERT INTO imgpipe.renditions (image_id, processor, name, version, content) SELECT i.image_id, 'p', 'thumb', 1, file FROM imgpipe.images i, samples WHERE name = 'png';
INSERT INTO imgpipe.results (image_id, processor, version) SELECT i.image_id, 'p', 1 FROM imgpipe.images i;
INSERT INTO imgpipe.tasks (image_id, processor_id, version) SELECT i.image_id, 0, 1 FROM imgpipe.images i;
INSERT INTO imgpipe.dead_letters (image_id, stage, sqlstate, reason) SELECT image_id, 'processing', '22023', 'x' FROM imgpipe.images;
INSERT INTO imgpipe.dead_letters (stage, source, source_partition, source_offset, headers, sqlstate, reason) VALUES ('ingest', 'photos', 1, 5, '{"uploaded_by": "eve"}', '22P03', 'no image');
INSERT INTO imgpipe.outbox (image_id, kind, state, topic, value) SELECT image_id, 'dead_letter', 'ready', 'rejects', 'x' FROM imgpipe.dead_letters;
CREATE TABLE before_erasure AS SELECT * FROM imgpipe.daily_volume;
SELECT imgpipe.hold_images('2024-21', source_key => 'k2');
SELECT images, counts(row_counts) AS row_counts FROM imgpipe.erase_images(uploaded_by => 'eve');
SELECT source_key FROM imgpipe.images;
SELECT (SELECT count(*) FROM imgpipe.renditions), (SELECT count(*) FROM imgpipe.results), (SELECT count(*) FROM imgpipe.tasks), (SELECT count(*) FROM imgpipe.dead_letters), (SELECT count(*) FROM imgpipe.outbox);
SELECT source_key FROM imgpipe.held_images;
SELECT count(*) FROM (TABLE before_erasure EXCEPT SELECT * FROM imgpipe.daily_volume) AS lost;
SELECT state, cause FROM imgpipe.prove_purged(:'erased_image');
SELECT kind, count(*) FROM imgpipe.erasures GROUP BY 1 ORDER BY 1;
SELECT count(*) FROM imgpipe.erasures e WHERE e::text LIKE '%eve%';
-- what ingest asks
SELECT imgpipe.refuse_erased('sql', 0, 17, now() + interval '1 day', 'other', 'other') AS the_very_message,
	imgpipe.refuse_erased('photos', 1, 5, NULL, NULL, 'other') AS the_dead_letter,
	imgpipe.refuse_erased('photos', 1, 6, now() - interval '1 hour', 'k7', 'eve') AS made_before,
	imgpipe.refuse_erased('photos', 1, 7, NULL, 'k7', 'eve') AS made_who_knows_when,
	imgpipe.refuse_erased('photos', 1, 8, now() + interval '1 hour', 'k7', 'eve') AS made_later,
	imgpipe.refuse_erased('photos', 1, 9, now() - interval '1 hour', 'k7', 'bob') AS of_another;
SELECT kind, sum(refused) FROM imgpipe.erasures GROUP BY 1 ORDER BY 1;
SELECT images, counts(row_counts) AS row_counts FROM imgpipe.erase_images(image_ids => (SELECT array_agg(image_id) FROM imgpipe.images));
SELECT count(*) FROM imgpipe.images;
SELECT imgpipe.release_hold('2024-21');
SELECT * FROM imgpipe.verify_ledger();

-- where bytes can still be
SELECT imgpipe.declare_copy('base backups', '14 days'), imgpipe.declare_copy('WAL archive', '0');
SELECT place, detail, gone_by - (SELECT max(purged_at) FROM imgpipe.purge_ledger) AS after_last_purge, hint
	FROM imgpipe.retention_residue() WHERE place IN ('base backups', 'WAL archive') ORDER BY place;
SELECT imgpipe.declare_copy('base backups', NULL), imgpipe.declare_copy('WAL archive', NULL);
SELECT imgpipe.declare_copy('base backups', '-1 day');
SELECT imgpipe.declare_copy(NULL, '1 day');
DO $$BEGIN IF NOT imgpipe.workers_available() THEN SET client_min_messages = error; END IF; END$$;	-- what waits for workers says so
CREATE SERVER regress_imgpipe_broker FOREIGN DATA WRAPPER imgpipe_kafka OPTIONS (bootstrap_servers '127.0.0.1:1');
SELECT imgpipe.create_source('undeclared', 'regress_imgpipe_broker', 'photos') > 0 AS created;
SELECT place, detail, gone_by, hint FROM imgpipe.retention_residue() WHERE place LIKE 'topic%';
SELECT imgpipe.declare_copy('topic photos', '8 days');
UPDATE imgpipe.sources SET dead_letter_topic = 'rejects';
SELECT place, detail, gone_by - now() AS gone_in, hint FROM imgpipe.retention_residue() WHERE place LIKE 'topic%';
-- the ledger's hashes to Kafka: they wait in the outbox, and nothing waits for them
SELECT imgpipe.send_ledger_to('nowhere', 'ledger');
SELECT imgpipe.send_ledger_to('regress_imgpipe_broker', 'ledger', send => false);
SELECT imgpipe.send_ledger_to('regress_imgpipe_broker', 'ledger');
SELECT images FROM imgpipe.erase_images(source_key => 'nobody');
SELECT o.topic, o.kind, convert_from(o.key, 'UTF8') = imgpipe.database_identity() AS of_this_database, l.entry = h.entry AS the_last_entry,
		convert_from(o.value, 'UTF8')::jsonb ->> 'hash' = encode(l.hash, 'hex') AS its_hash
	FROM imgpipe.outbox o JOIN imgpipe.purge_ledger l ON l.entry = (convert_from(o.value, 'UTF8')::jsonb ->> 'entry')::bigint, imgpipe.purge_ledger_head h
	ORDER BY o.message_id;
\set VERBOSITY terse
DELETE FROM imgpipe.outbox;
ALTER SERVER regress_imgpipe_broker RENAME TO regress_imgpipe_renamed;
SET client_min_messages = error;
SELECT images FROM imgpipe.erase_images(source_key => 'nobody');
RESET client_min_messages;
SELECT value, detail FROM imgpipe.retention_report() WHERE item = 'problem' AND value LIKE '%ledger%';
ALTER SERVER regress_imgpipe_renamed RENAME TO regress_imgpipe_broker;
\set VERBOSITY default
SELECT imgpipe.send_ledger_to('regress_imgpipe_broker', 'ledger', send => false);
DELETE FROM imgpipe.senders;
SELECT imgpipe.drop_source('undeclared'), imgpipe.declare_copy('topic photos', NULL);
DROP SERVER regress_imgpipe_broker;
SELECT place, hint FROM imgpipe.retention_residue() WHERE place = 'base backups';
SET log_min_duration_statement = 100;
SELECT detail, hint FROM imgpipe.retention_residue() WHERE place = 'server log' AND detail LIKE '%duration%';
RESET log_min_duration_statement;
SELECT gone_by > now() + interval '6 days' AS in_a_week FROM imgpipe.retention_residue() WHERE place = 'partitions with erased rows';
ALTER TABLE imgpipe.images ALTER uploaded_by SET STATISTICS 100;
SELECT count(arrive(current_date + 2, 'k' || i, 'eve')) FROM generate_series(1, 3) i;
ANALYZE imgpipe.images;
SELECT count(*) > 0 AS found FROM imgpipe.retention_residue() WHERE place = 'planner statistics' AND detail = 'of column uploaded_by of imgpipe.images';
SELECT count(*) FROM imgpipe.retention_residue() WHERE place = 'planner statistics' AND detail LIKE '%source_key%';
ALTER TABLE imgpipe.images ALTER uploaded_by SET STATISTICS 0;
DELETE FROM pg_statistic WHERE starelid = 'imgpipe.images'::regclass;

DELETE FROM imgpipe.images;
DROP VIEW ledger;
DROP FUNCTION counts(jsonb);
DROP TABLE volume, before_erasure, entries_before;
DROP FUNCTION overdue, arrive, found;
DO $$BEGIN IF imgpipe.workers_available() THEN PERFORM imgpipe.start_workers(); END IF; END$$;
