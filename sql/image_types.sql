-- What makes image a type like others: equality, order, a type modifier; and what becomes of it in parallel plans.
\set SHOW_CONTEXT never
SET search_path = imgpipe, public;
CREATE TABLE pictures AS
	SELECT name, file::image AS content FROM samples
	WHERE name IN ('jpeg', 'png', 'webp', 'gif', 'tiff', 'heic', 'avif', 'turned jpeg');

-- equality is that of the bytes
SELECT a.name, b.name FROM pictures a JOIN pictures b ON a.content = b.content WHERE a.name <> b.name;
SELECT count(*) FILTER (WHERE a.content = b.content) AS same, count(*) FILTER (WHERE a.content <> b.content) AS other
	FROM pictures a, pictures b;
INSERT INTO pictures SELECT 'again ' || name, content FROM pictures;
SELECT count(*), count(DISTINCT content) FROM pictures;
SELECT min(name COLLATE "C") AS first, max(name COLLATE "C") AS last, count(*) FROM pictures GROUP BY content ORDER BY first;
SET enable_hashjoin = off;
SET enable_nestloop = off;
SELECT count(*) FROM pictures a JOIN pictures b USING (content);
SET enable_hashjoin = on;
SET enable_mergejoin = off;
SELECT count(*) FROM pictures a JOIN pictures b USING (content);
RESET enable_hashjoin;
RESET enable_nestloop;
RESET enable_mergejoin;
-- in order: the smaller file first
SELECT name FROM pictures WHERE name NOT LIKE 'again %' ORDER BY content;
SELECT bool_and((a.content < b.content) = (b.content > a.content) AND (a.content <= b.content) = (NOT b.content < a.content)
		AND (a.content >= b.content) = (image_cmp(a.content, b.content) >= 0)
		AND (a.content = b.content) <= (image_hash(a.content) = image_hash(b.content))
		AND (a.content = b.content) <= (image_hash_extended(a.content, 7) = image_hash_extended(b.content, 7)))
	FROM pictures a, pictures b;
SELECT count(DISTINCT image_hash(content)), count(DISTINCT image_hash_extended(content, 0)), count(DISTINCT image_hash_extended(content, 1)) FROM pictures;
CREATE INDEX ON pictures USING hash (content);
SET enable_seqscan = off;
DO $$
DECLARE
	line text;
BEGIN
	FOR line IN EXECUTE 'EXPLAIN (COSTS off) SELECT name FROM pictures WHERE content = (SELECT file::image FROM samples WHERE name = ''gif'')' LOOP
		IF line ~ 'Index Scan' THEN
			RAISE NOTICE '%', substring(line FROM 'Index Scan.*');
		END IF;
	END LOOP;
END
$$;
SELECT name FROM pictures WHERE content = (SELECT file::image FROM samples WHERE name = 'gif') ORDER BY name COLLATE "C";
RESET enable_seqscan;
-- of the same size, by the bytes; and large values that are compressed nowhere
CREATE TABLE large AS
	SELECT n, (file || decode(repeat('00', 1000000), 'hex') || set_byte('\x00', 0, n))::image AS content
	FROM samples, generate_series(1, 3) n WHERE name = 'png';
SELECT a.n, b.n, a.content < b.content AS less, a.content = b.content AS same FROM large a, large b WHERE a.n <= b.n ORDER BY 1, 2;
DROP TABLE large;
DELETE FROM pictures WHERE name LIKE 'again %';

-- the type modifier
CREATE TABLE photos (content image(jpeg, png), thumbnails image(webp)[]);
\d photos
SELECT format_type('image'::regtype, 2), format_type('image'::regtype, 254);
INSERT INTO photos (content) SELECT content FROM pictures WHERE name IN ('jpeg', 'png');
INSERT INTO photos (content) SELECT content FROM pictures WHERE name = 'gif';
INSERT INTO photos (content) SELECT file FROM samples WHERE name = 'gif';
UPDATE photos SET thumbnails = ARRAY(SELECT content FROM pictures WHERE name = 'webp');
UPDATE photos SET thumbnails = ARRAY(SELECT content FROM pictures WHERE name IN ('webp', 'avif') ORDER BY name COLLATE "C");
SELECT image_format(content) COLLATE "C" AS format, image_format(thumbnails[1]) FROM photos ORDER BY format;
SELECT image_format(content::image(gif, tiff)) FROM pictures WHERE name = 'gif';
SELECT content::image(gif, tiff) FROM pictures WHERE name = 'png';
\set VERBOSITY sqlstate
SELECT content::image(gif, tiff) FROM pictures WHERE name = 'png';
\set VERBOSITY default
ALTER TABLE photos ALTER content TYPE image(jpeg);
ALTER TABLE photos ALTER content TYPE image;
INSERT INTO photos (content) SELECT content FROM pictures WHERE name = 'gif';
CREATE TABLE bad (content image(jpeg, jpg));
CREATE TABLE bad (content image());
CREATE TABLE bad (content imgpipe.image(1));
-- in COPY, both ways
CREATE TABLE copied (content image(png));
COPY (SELECT content FROM pictures WHERE name = 'png') TO PROGRAM 'cat > /tmp/imgpipe_regress_types' (FORMAT binary);
COPY copied FROM PROGRAM 'cat /tmp/imgpipe_regress_types' (FORMAT binary);
COPY (SELECT content FROM pictures WHERE name = 'png') TO PROGRAM 'cat > /tmp/imgpipe_regress_types';
COPY copied FROM PROGRAM 'cat /tmp/imgpipe_regress_types';
COPY (SELECT content FROM pictures WHERE name = 'jpeg') TO PROGRAM 'cat > /tmp/imgpipe_regress_types' (FORMAT binary);
COPY copied FROM PROGRAM 'cat /tmp/imgpipe_regress_types' (FORMAT binary);
COPY (SELECT content FROM pictures WHERE name = 'jpeg') TO PROGRAM 'cat > /tmp/imgpipe_regress_types';
COPY copied FROM PROGRAM 'cat /tmp/imgpipe_regress_types; rm /tmp/imgpipe_regress_types';
SELECT count(*), count(DISTINCT content) FROM copied;
-- a domain, and a variable of plpgsql
CREATE DOMAIN portrait AS image(jpeg) CHECK (image_height(VALUE) > image_width(VALUE));
SELECT image_height(content::portrait) FROM pictures WHERE name = 'turned jpeg';
SELECT content::portrait FROM pictures WHERE name = 'jpeg';
SELECT content::portrait FROM pictures WHERE name = 'png';
DO $$
DECLARE
	picture image(png);
BEGIN
	SELECT content INTO picture FROM pictures WHERE name = 'webp';
END
$$;
DROP DOMAIN portrait;

-- thumbnail and conversion
SELECT name, i.format, i.width, i.height
	FROM pictures, image_info(thumbnail(content, 6, 6)) i WHERE name IN ('jpeg', 'png', 'turned jpeg', 'gif', 'webp')
	ORDER BY name COLLATE "C";
SELECT image_width(thumbnail(content, 100, 100)) FROM pictures WHERE name = 'jpeg';
SELECT thumbnail(content, 0, 100) FROM pictures WHERE name = 'jpeg';
SELECT thumbnail(content, 100, -1) FROM pictures WHERE name = 'jpeg';
SELECT image_format(convert_image(content, 'png')), image_format(convert_image(content, 'WebP')), convert_image(content, 'jpeg') = content
	FROM pictures WHERE name = 'jpeg';
\set VERBOSITY sqlstate
SELECT convert_image(content, 'resize(width=3)') FROM pictures WHERE name = 'jpeg';
SELECT convert_image(content, '') FROM pictures WHERE name = 'jpeg';
\set VERBOSITY default
SELECT process_image(a.content, 'resize(width=6)', b.content) = process_image(a.content, 'resize(width=6)')
	FROM pictures a, pictures b WHERE a.name = 'jpeg' AND b.name = 'png';

-- In parallel plans, forced: each worker has its own decoder, and settings come along.
CREATE FUNCTION workers_launched(query text) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
	plan json;
BEGIN
	EXECUTE 'EXPLAIN (ANALYZE, FORMAT json) ' || query INTO plan;
	RETURN substring(plan::text FROM '"Workers Launched": (\d+)')::integer > 0;
END
$$;
CREATE TABLE many AS SELECT n, content FROM pictures, generate_series(1, 50) n WHERE name IN ('jpeg', 'png');
ANALYZE many;
CREATE TABLE outcomes (what text, parallel boolean, result text);
INSERT INTO outcomes SELECT 'processed', false, string_agg(DISTINCT encode(sha256(process_image(content, 'resize(width=7) | png')::bytea), 'hex'), ' ') FROM many;
INSERT INTO outcomes SELECT 'facts', false, count(DISTINCT content) || ' ' || sum(image_width(content)) || ' ' || count(verify_image(content)) FROM many;
SET parallel_setup_cost = 0;
SET parallel_tuple_cost = 0;
SET min_parallel_table_scan_size = 0;
SET max_parallel_workers_per_gather = 2;
SELECT workers_launched($$SELECT count(process_image(content, 'resize(width=7) | png')) FROM many$$);
INSERT INTO outcomes SELECT 'processed', true, string_agg(DISTINCT digest, ' ')
	FROM (SELECT encode(sha256(process_image(content, 'resize(width=7) | png')::bytea), 'hex') AS digest FROM many OFFSET 0) p;
INSERT INTO outcomes SELECT 'facts', true, count(DISTINCT content) || ' ' || sum(image_width(content)) || ' ' || count(verify_image(content)) FROM many;
SELECT what, count(*), count(DISTINCT result) FROM outcomes GROUP BY what ORDER BY what;
SET imgpipe.max_output_megapixels = 1;
SELECT count(process_image(content, 'resize(width=2000, height=2000, fit=fill, enlarge=true)')) FROM many;
RESET imgpipe.max_output_megapixels;
SET imgpipe.allowed_formats = jpeg;
SELECT count(process_image(content, 'resize(width=7)')) FROM many WHERE image_format(content) = 'png';
RESET imgpipe.allowed_formats;
RESET max_parallel_workers_per_gather;
RESET min_parallel_table_scan_size;
-- whatever may run in a worker runs in one
SELECT set_config(name, 'on', false) FROM pg_settings WHERE name IN ('force_parallel_mode', 'debug_parallel_query');
SELECT image_format(process_image(content, 'webp')), image_exif(content) IS NULL, verify_image(content), image_width(content)
	FROM pictures WHERE name = 'jpeg';
SELECT image_format(file::image) FROM samples WHERE name = 'png';
SELECT set_config(name, 'off', false) FROM pg_settings WHERE name IN ('force_parallel_mode', 'debug_parallel_query');
RESET parallel_setup_cost;
RESET parallel_tuple_cost;

DROP TABLE pictures, photos, copied, many, outcomes;
DROP FUNCTION workers_launched(text);
