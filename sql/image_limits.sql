-- Limits: each refusal names the limit, the value and the setting. Damaged pixels: verify_image and imgpipe.verify_input.
\set SHOW_CONTEXT never
SET search_path = imgpipe, public;
CREATE TABLE pictures AS SELECT name, file::image AS content FROM samples WHERE name IN ('jpeg', 'png', 'webp', 'gif', 'tiff');

-- formats
SHOW imgpipe.allowed_formats;
SET imgpipe.allowed_formats = jpeg, PNG;
SHOW imgpipe.allowed_formats;
SELECT image_format(file::image) FROM samples WHERE name = 'png';
SELECT file::image FROM samples WHERE name = 'gif';
SELECT process_image(content, 'png') FROM pictures WHERE name = 'gif';
SELECT image_format(process_image(content, 'webp')) FROM pictures WHERE name = 'jpeg';
\set VERBOSITY sqlstate
SELECT file::image FROM samples WHERE name = 'gif';
\set VERBOSITY default
SET imgpipe.allowed_formats = 'jpeg, bmp';
SET imgpipe.allowed_formats = '';
SET imgpipe.allowed_formats = 'jpeg,,png';
SET imgpipe.allowed_formats = ' TIFF ,	webp ';
SELECT image_format(file::image) FROM samples WHERE name IN ('tiff', 'webp') ORDER BY name COLLATE "C";
RESET imgpipe.allowed_formats;

-- bytes, pixels, pages, pixels of the output
SET imgpipe.max_bytes = '1kB';
SELECT (file || decode(repeat('00', 1000), 'hex'))::image FROM samples WHERE name = 'png';
RESET imgpipe.max_bytes;
SELECT file::image FROM samples WHERE name = 'huge png';
SET imgpipe.max_output_megapixels = 1;
SELECT process_image(content, 'resize(width=1001, height=1000, fit=fill, enlarge=true)') FROM pictures WHERE name = 'jpeg';
RESET imgpipe.max_output_megapixels;
-- two frames: the image of a GIF, from the graphic control extension on, comes twice
CREATE TABLE animation AS SELECT (overlay(file PLACING substr(file, strpos, length(file) - strpos) FROM length(file)) || '\x3b')::image AS content
	FROM samples, position('\x21f904'::bytea IN file) strpos WHERE name = 'gif';
SELECT pages, is_animated, width, height FROM animation, image_info(content);
SET imgpipe.max_pages = 1;
SELECT image_width(content::bytea::image) FROM animation;
SELECT process_image(content, 'png') FROM animation;
RESET imgpipe.max_pages;
\set VERBOSITY sqlstate
SET imgpipe.max_pages = 1;
SELECT image_width(content::bytea::image) FROM animation;
RESET imgpipe.max_pages;
SELECT file::image FROM samples WHERE name = 'huge png';
SET imgpipe.max_output_megapixels = 1;
SELECT process_image(content, 'resize(width=1001, height=1000, fit=fill, enlarge=true)') FROM pictures WHERE name = 'jpeg';
RESET imgpipe.max_output_megapixels;
\set VERBOSITY default

-- the decoder's memory and time
SET imgpipe.decoder_memory_limit = '64MB';
SELECT process_image(content, 'resize(width=9000, height=9000, fit=fill, enlarge=true) | rotate(angle=90)') FROM pictures WHERE name = 'jpeg';
SELECT process_image(content, 'resize(width=3000, height=2000, fit=fill, enlarge=true) | webp(lossless=true)') FROM pictures WHERE name = 'jpeg';
RESET imgpipe.decoder_memory_limit;
SET imgpipe.decoder_timeout = '100ms';
SELECT process_image(content, 'resize(width=9000, height=9000, fit=fill, enlarge=true) | blur(sigma=50)') FROM pictures WHERE name = 'jpeg';
\set VERBOSITY sqlstate
SELECT process_image(content, 'resize(width=9000, height=9000, fit=fill, enlarge=true) | blur(sigma=50)') FROM pictures WHERE name = 'jpeg';
\set VERBOSITY default
RESET imgpipe.decoder_timeout;

-- who may set what
CREATE ROLE regress_imgpipe_user;
SET ROLE regress_imgpipe_user;
SET imgpipe.allowed_formats = 'jpeg';
SET imgpipe.verify_input = off;
SET imgpipe.max_bytes = '1GB';
SET imgpipe.decoder_idle_timeout = '1min';
RESET ROLE;
DROP ROLE regress_imgpipe_user;

-- what is whole and what is not
SELECT name, verify_image(content) FROM pictures ORDER BY name COLLATE "C";
SELECT verify_image(content) FROM animation;
CREATE TABLE damaged (name text, content image);
-- half of a large JPEG; one with foreign bytes in its midst; a GIF whose second frame is cut off
INSERT INTO damaged
	SELECT 'half', substr(large::bytea, 1, image_bytes(large) / 2)
	FROM pictures, process_image(content, 'resize(width=1200, enlarge=true) | jpeg(quality=100)') large WHERE name = 'jpeg'
	UNION ALL
	SELECT 'flipped', overlay(large::bytea PLACING '\xffd8ffd8ffd8ffd8' FROM image_bytes(large) / 2)
	FROM pictures, process_image(content, 'resize(width=1200, enlarge=true) | jpeg(quality=100)') large WHERE name = 'jpeg'
	UNION ALL
	SELECT 'second frame', substr(content::bytea, 1, image_bytes(content) - 60) FROM animation;
SELECT name, verify_image(content) IS NULL AS whole, image_format(content) FROM damaged ORDER BY name;
SELECT verify_image(content) FROM damaged WHERE name = 'second frame';
SET imgpipe.verify_input = on;
SELECT image_format(file::image) FROM samples WHERE name IN ('jpeg', 'png', 'webp', 'gif', 'tiff', 'heic', 'avif', 'turned jpeg') ORDER BY name COLLATE "C";
SELECT image_width(content::bytea::image) FROM damaged WHERE name = 'second frame';
\set VERBOSITY sqlstate
SELECT image_width(content::bytea::image) FROM damaged WHERE name = 'half';
SELECT image_width(content::bytea::image) FROM damaged WHERE name = 'flipped';
SELECT image_width(content::bytea::image) FROM damaged WHERE name = 'second frame';
\set VERBOSITY default
RESET imgpipe.verify_input;
SELECT image_width(content::bytea::image) FROM damaged WHERE name = 'half';
-- over a limit is no fault of the image
SET imgpipe.max_pages = 1;
SELECT verify_image(content) FROM animation;
RESET imgpipe.max_pages;

DROP TABLE pictures, animation, damaged;
