-- The decoder process: its sandbox, its life, and process_image() through it.
\set SHOW_CONTEXT never
SET search_path = imgpipe, public;

-- the sandbox refuses what it must
SELECT * FROM decoder_sandbox();

-- one pipeline, and several for one decode
SELECT image_format(i), image_width(i), image_height(i)
	FROM samples, process_image(file::image, 'resize(width=6) | png') i WHERE name = 'jpeg';
SELECT n, image_format(i), image_width(i), image_height(i)
	FROM samples, unnest(process_image(file::image, ARRAY['resize(width=6) | png', 'resize(height=4) | webp(quality=50)', 'rotate(angle=90) | jpeg', 'crop(width=5, height=3)']::pipeline[])) WITH ORDINALITY u (i, n)
	WHERE name = 'png' ORDER BY n;
SELECT process_image(file::image, '{}'::pipeline[]) FROM samples WHERE name = 'png';
SELECT process_image(file::image, ARRAY['png', NULL]::pipeline[]) FROM samples WHERE name = 'png';
SELECT process_image(file::image, array_fill('png'::pipeline, ARRAY[65])) FROM samples WHERE name = 'png';

-- EXIF orientation is applied: this picture stands on its side
SELECT image_width(file::image), image_height(file::image),
	image_width(process_image(file::image, 'png')), image_height(process_image(file::image, 'png'))
	FROM samples WHERE name = 'turned jpeg';

-- every format in, every encoder out
SELECT name, encoder, image_format(process_image(file::image, encoder::pipeline))
	FROM samples, unnest(ARRAY['jpeg', 'png', 'webp']) encoder
	WHERE name IN ('jpeg', 'png', 'webp', 'gif', 'tiff', 'heic', 'avif')
	ORDER BY name COLLATE "C", encoder COLLATE "C";

-- a good header with a bad rest is an error of the call, and the session goes on
CREATE TABLE damaged (content image);
INSERT INTO damaged SELECT substr(large::bytea, 1, image_bytes(large) / 2)
	FROM samples, process_image(file::image, 'resize(width=1200, enlarge=true) | jpeg(quality=100)') large WHERE name = 'jpeg';
SELECT image_format(content), image_width(content) FROM damaged;
-- the detail is libvips' own and changes with its version
\set VERBOSITY terse
SELECT process_image(content, 'resize(width=600) | png') FROM damaged;
\set VERBOSITY default
SELECT image_width(process_image(file::image, 'resize(width=6) | png')) FROM samples WHERE name = 'jpeg';
DROP TABLE damaged;

-- a step that does not fit the image
SELECT process_image(file::image, 'crop(width=13, height=2)') FROM samples WHERE name = 'jpeg';

-- limits
SET imgpipe.max_output_megapixels = 1;
SELECT process_image(file::image, 'resize(width=2000, height=2000, fit=fill, enlarge=true) | png') FROM samples WHERE name = 'jpeg';
RESET imgpipe.max_output_megapixels;
SET imgpipe.decoder_timeout = '100ms';
SELECT process_image(file::image, 'resize(width=9000, height=9000, fit=fill, enlarge=true) | blur(sigma=50) | png') FROM samples WHERE name = 'jpeg';
RESET imgpipe.decoder_timeout;
SET statement_timeout = '200ms';
SELECT process_image(file::image, 'resize(width=9000, height=9000, fit=fill, enlarge=true) | blur(sigma=50) | png') FROM samples WHERE name = 'jpeg';
RESET statement_timeout;
SELECT image_width(process_image(file::image, 'resize(width=6) | png')) FROM samples WHERE name = 'jpeg';

-- only a superuser may take the sandbox away or give more memory
CREATE ROLE regress_imgpipe_user;
SET ROLE regress_imgpipe_user;
SET imgpipe.allow_unsandboxed_decoder = on;
SET imgpipe.decoder_memory_limit = '1GB';
SET imgpipe.max_megapixels = 1000;
RESET ROLE;
DROP ROLE regress_imgpipe_user;
