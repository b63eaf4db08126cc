
/* What an image says of itself; see src/image/metadata.c. */

CREATE FUNCTION imgpipe.image_info(imgpipe.image,
	OUT format text, OUT width integer, OUT height integer, OUT stored_width integer, OUT stored_height integer,
	OUT pages integer, OUT bands integer, OUT depth integer, OUT has_alpha boolean, OUT color_space text,
	OUT orientation integer, OUT has_icc_profile boolean, OUT is_animated boolean, OUT is_progressive boolean,
	OUT has_exif boolean, OUT has_xmp boolean, OUT has_iptc boolean) RETURNS record
	AS 'MODULE_PATHNAME', 'imgpipe_image_info'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION imgpipe.image_info(imgpipe.image) IS
'All that is known of an image without decoding it, as one row. width and height: pixels as displayed, EXIF orientation applied; stored_width and stored_height: pixels as in the file; both of one page where there are several. pages: pages or frames; bands: channels, alpha included; depth: bits of each as decoded (8, 16 or 32); color_space: srgb, gray, cmyk, lab or other; orientation: EXIF''s, 1 to 8, 1 where there is none; is_animated: a GIF or WebP with more than one frame; is_progressive: a progressive JPEG or an interlaced PNG; has_exif, has_xmp, has_iptc: blocks that image_exif(), image_xmp() and image_iptc() read. Reads only the value''s header.';

CREATE FUNCTION imgpipe.image_exif(imgpipe.image) RETURNS jsonb
	AS 'MODULE_PATHNAME', 'imgpipe_image_exif'
	LANGUAGE C STABLE STRICT PARALLEL SAFE COST 10000;
COMMENT ON FUNCTION imgpipe.image_exif(imgpipe.image) IS
'The EXIF data (CIPA DC-008), an object with a member for each tag by its name in the standard, null where there is none; of a TIFF, the tags of its first page. Numbers, rationals too, are numbers, several are an array; DateTime, DateTimeOriginal and DateTimeDigitized are ISO 8601 with the fraction of the second and the offset of the time zone where the file has them, to be cast to timestamp or timestamptz; latitude, longitude (decimal degrees, north and east positive), altitude (metres) and GPSDateTime (UTC) are put together from the GPS tags; thumbnail holds the tags of the embedded thumbnail. What is not known, not a number or not a date is null. Undefined bytes are \x and hex digits; of more than 256 an object of bytes, how many they are, and hex, the first 256. A tag that has no name is 0x and its number. Text that is not UTF-8 is read as Latin-1. "truncated": true where more than 1 MB was left out. Done in the decoder; errors as of image(bytea).';

CREATE FUNCTION imgpipe.image_iptc(imgpipe.image) RETURNS jsonb
	AS 'MODULE_PATHNAME', 'imgpipe_image_iptc'
	LANGUAGE C STABLE STRICT PARALLEL SAFE COST 10000;
COMMENT ON FUNCTION imgpipe.image_iptc(imgpipe.image) IS
'The editorial data (IPTC-IIM, record 2), an object with a member for each dataset: ObjectName, Keywords, Byline, Caption, City ... ; null where there is none. Values are text as in the file; those that may occur more than once (Keywords, Byline, Contact, ...) are arrays. A dataset that has no name is 2: and its number. Text that is not UTF-8 is read as Latin-1. Done in the decoder; errors as of image(bytea).';

CREATE FUNCTION imgpipe.image_xmp(imgpipe.image) RETURNS text
	AS 'MODULE_PATHNAME', 'imgpipe_image_xmp'
	LANGUAGE C STABLE STRICT PARALLEL SAFE COST 10000;
COMMENT ON FUNCTION imgpipe.image_xmp(imgpipe.image) IS
'The XMP packet (ISO 16684) as it stands, null where there is none. Text and not xml: it comes from outside, and nobody has looked whether it is well-formed; bytes that are not UTF-8 are U+FFFD. Raises 54000 for more than 16 MB, else as image(bytea).';

CREATE FUNCTION imgpipe.image_icc_profile(imgpipe.image) RETURNS bytea
	AS 'MODULE_PATHNAME', 'imgpipe_image_icc_profile'
	LANGUAGE C STABLE STRICT PARALLEL SAFE COST 10000;
COMMENT ON FUNCTION imgpipe.image_icc_profile(imgpipe.image) IS
'The embedded ICC profile (ISO 15076-1), null where there is none. Raises 54000 for more than 16 MB, else as image(bytea).';
