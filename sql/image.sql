-- The image type: input and output, casts, accessors, refusals.
\set SHOW_CONTEXT never
SET search_path = imgpipe, public;

-- every format, by the assignment cast from bytea
CREATE TABLE image_test (name text PRIMARY KEY, content image);
DO $$
DECLARE
	sample record;
BEGIN
	FOR sample IN SELECT * FROM samples WHERE name IN ('jpeg', 'png', 'webp', 'gif', 'tiff', 'heic', 'avif', 'turned jpeg') LOOP
		INSERT INTO image_test VALUES (sample.name, sample.file);
	END LOOP;
END
$$;
SELECT name, image_format(content), image_width(content), image_height(content), image_bytes(content)
	FROM image_test ORDER BY name COLLATE "C";

-- the bytes stay as they came, in each form
SELECT count(*) FROM image_test t JOIN samples s USING (name)
	WHERE t.content::bytea = s.file
	AND t.content::text = s.file::text
	AND image_send(t.content) = s.file
	AND t.content::text::image::bytea = s.file
	AND image_sha256(t.content) = sha256(s.file);
SELECT typstorage, typreceive, typsend FROM pg_type WHERE oid = 'image'::regtype;

-- what is no image is refused with the reason
\set VERBOSITY default
SELECT file::image FROM samples WHERE name = 'empty';
SELECT file::image FROM samples WHERE name = 'text';
SELECT file::image FROM samples WHERE name = 'huge png';
SELECT 'just text'::image;
-- the detail is libvips' own and changes with its version
\set VERBOSITY terse
SELECT '\x89504e470d0a1a0a'::image;
\set VERBOSITY sqlstate
SELECT file::image FROM samples WHERE name = 'text';
SELECT file::image FROM samples WHERE name = 'huge png';
SELECT file::image FROM samples WHERE name = 'cut png';
\set VERBOSITY default

-- limits name their settings
SET imgpipe.max_bytes = '1kB';
SELECT image_bytes(convert_to(repeat('x', 1025), 'UTF8')::image);
RESET imgpipe.max_bytes;
SET imgpipe.max_pages = 0;

-- an explicit cast both ways, an assignment one way only
CREATE TABLE bytes_test (file bytea);
INSERT INTO bytes_test SELECT content FROM image_test;
INSERT INTO bytes_test SELECT content::bytea FROM image_test;
SELECT count(*) FROM bytes_test;

-- COPY, text and binary
CREATE TABLE copied (LIKE image_test);
COPY image_test TO PROGRAM 'cat > /tmp/imgpipe_regress_copy' (FORMAT binary);
COPY copied FROM PROGRAM 'cat /tmp/imgpipe_regress_copy; rm /tmp/imgpipe_regress_copy' (FORMAT binary);
COPY image_test TO PROGRAM 'cat > /tmp/imgpipe_regress_copy';
COPY copied FROM PROGRAM 'cat /tmp/imgpipe_regress_copy; rm /tmp/imgpipe_regress_copy';
SELECT name, count(*), count(DISTINCT content::bytea) FROM copied GROUP BY name ORDER BY name COLLATE "C";

-- accessors read the header only: a few buffers for 10 MB
CREATE TABLE large (content image);
-- a valid file may carry bytes behind its end
INSERT INTO large SELECT (file || decode(repeat('00', 10485760), 'hex'))::image FROM samples WHERE name = 'png';
CREATE FUNCTION buffers_of(query text) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
	plan json;
BEGIN
	EXECUTE 'EXPLAIN (ANALYZE, BUFFERS, FORMAT json) ' || query INTO plan;
	RETURN (plan -> 0 -> 'Plan' ->> 'Shared Hit Blocks')::integer + (plan -> 0 -> 'Plan' ->> 'Shared Read Blocks')::integer;
END
$$;
SELECT image_bytes(content), image_width(content) FROM large;
SELECT buffers_of('SELECT image_format(content), image_width(content), image_height(content), image_bytes(content) FROM large') < 20 AS few,
	buffers_of('SELECT image_sha256(content) FROM large') > 1000 AS many;

DROP TABLE image_test, bytes_test, copied, large;
DROP FUNCTION buffers_of(text);
