/* imgpipe's install script, put together by make from the parts in src/: edit those. */

\echo This is an extension script: run CREATE EXTENSION imgpipe instead. \quit

CREATE FUNCTION imgpipe.setting(name text) RETURNS text
	AS 'MODULE_PATHNAME', 'imgpipe_setting'
	LANGUAGE C STABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION imgpipe.setting(text) IS
'The value of a setting, as current_setting() gives it; but the settings of imgpipe are known also in a session that has not loaded the library yet. Raises 42704 for an unknown one.';


/* The image type; see src/image/. */

CREATE TYPE imgpipe.image;

CREATE FUNCTION imgpipe.image_in(cstring, oid, integer) RETURNS imgpipe.image
	AS 'MODULE_PATHNAME', 'imgpipe_image_in'
	LANGUAGE C STABLE STRICT PARALLEL SAFE COST 10000;
COMMENT ON FUNCTION imgpipe.image_in(cstring, oid, integer) IS
'Input function of image: \x and hex digits, as for bytea. The bytes are probed; see image(bytea) and image(image, integer, boolean) for the errors.';

CREATE FUNCTION imgpipe.image_out(imgpipe.image) RETURNS cstring
	AS 'MODULE_PATHNAME', 'imgpipe_image_out'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION imgpipe.image_out(imgpipe.image) IS
'Output function of image: \x and the file''s bytes in hex.';

CREATE FUNCTION imgpipe.image_recv(internal, oid, integer) RETURNS imgpipe.image
	AS 'MODULE_PATHNAME', 'imgpipe_image_recv'
	LANGUAGE C STABLE STRICT PARALLEL SAFE COST 10000;
COMMENT ON FUNCTION imgpipe.image_recv(internal, oid, integer) IS
'Binary input function of image: the file''s bytes, probed.';

CREATE FUNCTION imgpipe.image_send(imgpipe.image) RETURNS bytea
	AS 'MODULE_PATHNAME', 'imgpipe_image_send'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION imgpipe.image_send(imgpipe.image) IS
'Binary output function of image: the file''s bytes.';

CREATE FUNCTION imgpipe.image_typmod_in(cstring[]) RETURNS integer
	AS 'MODULE_PATHNAME', 'imgpipe_image_typmod_in'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION imgpipe.image_typmod_in(cstring[]) IS
'Type modifier input function of image: the names of the formats that image(jpeg, png) takes. Raises 22023 for a name that is none.';

CREATE FUNCTION imgpipe.image_typmod_out(integer) RETURNS cstring
	AS 'MODULE_PATHNAME', 'imgpipe_image_typmod_out'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION imgpipe.image_typmod_out(integer) IS
'Type modifier output function of image.';

CREATE TYPE imgpipe.image (
	INPUT = imgpipe.image_in,
	OUTPUT = imgpipe.image_out,
	RECEIVE = imgpipe.image_recv,
	SEND = imgpipe.image_send,
	TYPMOD_IN = imgpipe.image_typmod_in,
	TYPMOD_OUT = imgpipe.image_typmod_out,
	INTERNALLENGTH = VARIABLE,
	ALIGNMENT = int4,
	STORAGE = external
);
COMMENT ON TYPE imgpipe.image IS
'An image file, byte for byte as it came, behind a header with its format and size. Made only of bytes that the decoder recognised. image(jpeg, png) takes images of these formats only.';

CREATE FUNCTION imgpipe.image(bytea) RETURNS imgpipe.image
	AS 'MODULE_PATHNAME', 'imgpipe_image_from_bytea'
	LANGUAGE C STABLE STRICT PARALLEL SAFE COST 10000;
COMMENT ON FUNCTION imgpipe.image(bytea) IS
'The file in these bytes as an image. The decoder reads its header, no pixels. Raises 22P03 where they are no image or a damaged one, 0A000 for a format that this server''s libvips does not read, 54000 over imgpipe.max_bytes, max_megapixels or max_pages or for a format that is not in allowed_formats, 58000 when the decoder stopped.';

CREATE FUNCTION imgpipe.image(imgpipe.image, integer, boolean) RETURNS imgpipe.image
	AS 'MODULE_PATHNAME', 'imgpipe_image_restrict'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION imgpipe.image(imgpipe.image, integer, boolean) IS
'Applies a type modifier such as image(jpeg, png): the same image. Raises 22000 where it has another format. Reads only the value''s header.';

CREATE FUNCTION imgpipe.bytea(imgpipe.image) RETURNS bytea
	AS 'MODULE_PATHNAME', 'imgpipe_image_to_bytea'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION imgpipe.bytea(imgpipe.image) IS
'The file''s bytes.';

CREATE CAST (bytea AS imgpipe.image) WITH FUNCTION imgpipe.image(bytea) AS ASSIGNMENT;
CREATE CAST (imgpipe.image AS bytea) WITH FUNCTION imgpipe.bytea(imgpipe.image);
CREATE CAST (imgpipe.image AS imgpipe.image) WITH FUNCTION imgpipe.image(imgpipe.image, integer, boolean) AS IMPLICIT;

CREATE FUNCTION imgpipe.image_format(imgpipe.image) RETURNS text
	AS 'MODULE_PATHNAME', 'imgpipe_image_format'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION imgpipe.image_format(imgpipe.image) IS
'The format: jpeg, png, webp, gif, tiff, heic or avif. Reads only the value''s header.';

CREATE FUNCTION imgpipe.image_width(imgpipe.image) RETURNS integer
	AS 'MODULE_PATHNAME', 'imgpipe_image_width'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION imgpipe.image_width(imgpipe.image) IS
'Width in pixels as displayed, EXIF orientation applied; of one page where there are several. Reads only the value''s header.';

CREATE FUNCTION imgpipe.image_height(imgpipe.image) RETURNS integer
	AS 'MODULE_PATHNAME', 'imgpipe_image_height'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION imgpipe.image_height(imgpipe.image) IS
'Height in pixels as displayed, EXIF orientation applied; of one page where there are several. Reads only the value''s header.';

CREATE FUNCTION imgpipe.image_bytes(imgpipe.image) RETURNS integer
	AS 'MODULE_PATHNAME', 'imgpipe_image_bytes'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION imgpipe.image_bytes(imgpipe.image) IS
'Size of the file in bytes. Reads nothing of the value but its length.';

CREATE FUNCTION imgpipe.image_sha256(imgpipe.image) RETURNS bytea
	AS 'MODULE_PATHNAME', 'imgpipe_image_sha256'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 1000;
COMMENT ON FUNCTION imgpipe.image_sha256(imgpipe.image) IS
'SHA-256 (FIPS 180-4) of the file''s bytes, 32 bytes. Reads the whole value.';


/* Equality and order of images; see src/image/compare.c. */

CREATE FUNCTION imgpipe.image_eq(imgpipe.image, imgpipe.image) RETURNS boolean
	AS 'MODULE_PATHNAME', 'imgpipe_image_eq'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 100;
COMMENT ON FUNCTION imgpipe.image_eq(imgpipe.image, imgpipe.image) IS
'Whether two images are the same file, byte for byte. Files of different size are told apart without reading them.';

CREATE FUNCTION imgpipe.image_ne(imgpipe.image, imgpipe.image) RETURNS boolean
	AS 'MODULE_PATHNAME', 'imgpipe_image_ne'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 100;
COMMENT ON FUNCTION imgpipe.image_ne(imgpipe.image, imgpipe.image) IS
'Whether two images are different files.';

CREATE FUNCTION imgpipe.image_lt(imgpipe.image, imgpipe.image) RETURNS boolean
	AS 'MODULE_PATHNAME', 'imgpipe_image_lt'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 100;
COMMENT ON FUNCTION imgpipe.image_lt(imgpipe.image, imgpipe.image) IS
'Whether the first file comes before the second: the smaller one first, and of two of the same size by their bytes. The order means nothing; it is there for count(DISTINCT) and merge joins.';

CREATE FUNCTION imgpipe.image_le(imgpipe.image, imgpipe.image) RETURNS boolean
	AS 'MODULE_PATHNAME', 'imgpipe_image_le'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 100;
COMMENT ON FUNCTION imgpipe.image_le(imgpipe.image, imgpipe.image) IS
'See image_lt(image, image).';

CREATE FUNCTION imgpipe.image_gt(imgpipe.image, imgpipe.image) RETURNS boolean
	AS 'MODULE_PATHNAME', 'imgpipe_image_gt'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 100;
COMMENT ON FUNCTION imgpipe.image_gt(imgpipe.image, imgpipe.image) IS
'See image_lt(image, image).';

CREATE FUNCTION imgpipe.image_ge(imgpipe.image, imgpipe.image) RETURNS boolean
	AS 'MODULE_PATHNAME', 'imgpipe_image_ge'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 100;
COMMENT ON FUNCTION imgpipe.image_ge(imgpipe.image, imgpipe.image) IS
'See image_lt(image, image).';

CREATE FUNCTION imgpipe.image_cmp(imgpipe.image, imgpipe.image) RETURNS integer
	AS 'MODULE_PATHNAME', 'imgpipe_image_cmp'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 100;
COMMENT ON FUNCTION imgpipe.image_cmp(imgpipe.image, imgpipe.image) IS
'-1, 0 or 1, in the order of image_lt(image, image).';

CREATE FUNCTION imgpipe.image_hash(imgpipe.image) RETURNS integer
	AS 'MODULE_PATHNAME', 'imgpipe_image_hash'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 1000;
COMMENT ON FUNCTION imgpipe.image_hash(imgpipe.image) IS
'Hash of the file''s bytes, for hash joins and grouping. To know an image again use image_sha256(image).';

CREATE FUNCTION imgpipe.image_hash_extended(imgpipe.image, bigint) RETURNS bigint
	AS 'MODULE_PATHNAME', 'imgpipe_image_hash_extended'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 1000;
COMMENT ON FUNCTION imgpipe.image_hash_extended(imgpipe.image, bigint) IS
'As image_hash(image), of 64 bits and with a seed.';

CREATE OPERATOR imgpipe.= (
	LEFTARG = imgpipe.image,
	RIGHTARG = imgpipe.image,
	FUNCTION = imgpipe.image_eq,
	COMMUTATOR = OPERATOR(imgpipe.=),
	NEGATOR = OPERATOR(imgpipe.<>),
	RESTRICT = pg_catalog.eqsel,
	JOIN = pg_catalog.eqjoinsel,
	HASHES,
	MERGES
);
COMMENT ON OPERATOR imgpipe.= (imgpipe.image, imgpipe.image) IS
'Whether two images are the same file, byte for byte. Files of different size are told apart without reading them.';

CREATE OPERATOR imgpipe.<> (
	LEFTARG = imgpipe.image,
	RIGHTARG = imgpipe.image,
	FUNCTION = imgpipe.image_ne,
	COMMUTATOR = OPERATOR(imgpipe.<>),
	NEGATOR = OPERATOR(imgpipe.=),
	RESTRICT = pg_catalog.neqsel,
	JOIN = pg_catalog.neqjoinsel
);
COMMENT ON OPERATOR imgpipe.<> (imgpipe.image, imgpipe.image) IS
'Whether two images are different files.';

CREATE OPERATOR imgpipe.< (
	LEFTARG = imgpipe.image,
	RIGHTARG = imgpipe.image,
	FUNCTION = imgpipe.image_lt,
	COMMUTATOR = OPERATOR(imgpipe.>),
	NEGATOR = OPERATOR(imgpipe.>=),
	RESTRICT = pg_catalog.scalarltsel,
	JOIN = pg_catalog.scalarltjoinsel
);
COMMENT ON OPERATOR imgpipe.< (imgpipe.image, imgpipe.image) IS
'Whether the first file comes before the second: the smaller one first, and of two of the same size by their bytes. The order means nothing; it is there for count(DISTINCT) and merge joins.';

CREATE OPERATOR imgpipe.<= (
	LEFTARG = imgpipe.image,
	RIGHTARG = imgpipe.image,
	FUNCTION = imgpipe.image_le,
	COMMUTATOR = OPERATOR(imgpipe.>=),
	NEGATOR = OPERATOR(imgpipe.>),
	RESTRICT = pg_catalog.scalarlesel,
	JOIN = pg_catalog.scalarlejoinsel
);
COMMENT ON OPERATOR imgpipe.<= (imgpipe.image, imgpipe.image) IS
'See image_lt(image, image).';

CREATE OPERATOR imgpipe.> (
	LEFTARG = imgpipe.image,
	RIGHTARG = imgpipe.image,
	FUNCTION = imgpipe.image_gt,
	COMMUTATOR = OPERATOR(imgpipe.<),
	NEGATOR = OPERATOR(imgpipe.<=),
	RESTRICT = pg_catalog.scalargtsel,
	JOIN = pg_catalog.scalargtjoinsel
);
COMMENT ON OPERATOR imgpipe.> (imgpipe.image, imgpipe.image) IS
'See image_lt(image, image).';

CREATE OPERATOR imgpipe.>= (
	LEFTARG = imgpipe.image,
	RIGHTARG = imgpipe.image,
	FUNCTION = imgpipe.image_ge,
	COMMUTATOR = OPERATOR(imgpipe.<=),
	NEGATOR = OPERATOR(imgpipe.<),
	RESTRICT = pg_catalog.scalargesel,
	JOIN = pg_catalog.scalargejoinsel
);
COMMENT ON OPERATOR imgpipe.>= (imgpipe.image, imgpipe.image) IS
'See image_lt(image, image).';

CREATE OPERATOR CLASS imgpipe.image_ops DEFAULT FOR TYPE imgpipe.image USING hash AS
	OPERATOR 1 imgpipe.=,
	FUNCTION 1 imgpipe.image_hash(imgpipe.image),
	FUNCTION 2 imgpipe.image_hash_extended(imgpipe.image, bigint);

CREATE OPERATOR CLASS imgpipe.image_ops DEFAULT FOR TYPE imgpipe.image USING btree AS
	OPERATOR 1 imgpipe.<,
	OPERATOR 2 imgpipe.<=,
	OPERATOR 3 imgpipe.=,
	OPERATOR 4 imgpipe.>=,
	OPERATOR 5 imgpipe.>,
	FUNCTION 1 imgpipe.image_cmp(imgpipe.image, imgpipe.image);
COMMENT ON OPERATOR CLASS imgpipe.image_ops USING hash IS
'Grouping, hash joins, and a hash index for finding a file by its bytes.';
COMMENT ON OPERATOR CLASS imgpipe.image_ops USING btree IS
'Sorting and merge joins. An index needs files of at most 2,700 bytes; index image_sha256(image) instead.';

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

/* The pipeline type: what is to be done to an image; see src/pipeline/. */

CREATE TYPE imgpipe.pipeline;

CREATE FUNCTION imgpipe.pipeline_in(cstring) RETURNS imgpipe.pipeline
	AS 'MODULE_PATHNAME', 'imgpipe_pipeline_in'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION imgpipe.pipeline_in(cstring) IS
'Input function of pipeline: checks the text against pipeline_operations() and brings it into canonical form. Raises 42601 for grammar, unknown names, missing, repeated or contradictory arguments, and an operation in the wrong place; 22023 for a value of the wrong type or out of range; 54000 over 32 steps or 8191 bytes. The detail tells the character, the hint what was probably meant.';

CREATE FUNCTION imgpipe.pipeline_out(imgpipe.pipeline) RETURNS cstring
	AS 'textout'
	LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION imgpipe.pipeline_out(imgpipe.pipeline) IS
'Output function of pipeline: the canonical text.';

CREATE FUNCTION imgpipe.pipeline_recv(internal) RETURNS imgpipe.pipeline
	AS 'MODULE_PATHNAME', 'imgpipe_pipeline_recv'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION imgpipe.pipeline_recv(internal) IS
'Binary input function of pipeline: text, checked as by pipeline_in.';

CREATE FUNCTION imgpipe.pipeline_send(imgpipe.pipeline) RETURNS bytea
	AS 'textsend'
	LANGUAGE internal STABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION imgpipe.pipeline_send(imgpipe.pipeline) IS
'Binary output function of pipeline: the canonical text in the client''s encoding.';

CREATE TYPE imgpipe.pipeline (
	INPUT = imgpipe.pipeline_in,
	OUTPUT = imgpipe.pipeline_out,
	RECEIVE = imgpipe.pipeline_recv,
	SEND = imgpipe.pipeline_send,
	INTERNALLENGTH = VARIABLE,
	ALIGNMENT = int4,
	STORAGE = extended,
	CATEGORY = 'S'	-- a string, so that process_image(content, '...') is never taken for an array
);
COMMENT ON TYPE imgpipe.pipeline IS
'What is to be done to an image: operations joined by |, an encoder perhaps as the last, for example resize(width=800, height=600, fit=cover) | sharpen | webp(quality=80). Without an encoder the output keeps the input''s format. Text in canonical form, so that equal requests are equal: lower case, arguments in the order of pipeline_operations() and only those that were given.';

CREATE CAST (imgpipe.pipeline AS text) WITHOUT FUNCTION AS ASSIGNMENT;
CREATE CAST (text AS imgpipe.pipeline) WITH INOUT;

/*
 * Canonical texts are compared byte by byte, without a collation, which is
 * what PostgreSQL's functions for bytea do.
 */
CREATE FUNCTION imgpipe.pipeline_eq(imgpipe.pipeline, imgpipe.pipeline) RETURNS boolean
	AS 'byteaeq' LANGUAGE internal IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE;
COMMENT ON FUNCTION imgpipe.pipeline_eq(imgpipe.pipeline, imgpipe.pipeline) IS
'Whether two pipelines have the same canonical text: implementation of =. An argument that is given its default is not the same as one left out.';

CREATE FUNCTION imgpipe.pipeline_ne(imgpipe.pipeline, imgpipe.pipeline) RETURNS boolean
	AS 'byteane' LANGUAGE internal IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE;
COMMENT ON FUNCTION imgpipe.pipeline_ne(imgpipe.pipeline, imgpipe.pipeline) IS
'Whether two pipelines have different canonical texts: implementation of <>.';

CREATE FUNCTION imgpipe.pipeline_lt(imgpipe.pipeline, imgpipe.pipeline) RETURNS boolean
	AS 'bytealt' LANGUAGE internal IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE;
COMMENT ON FUNCTION imgpipe.pipeline_lt(imgpipe.pipeline, imgpipe.pipeline) IS
'Whether a pipeline''s canonical text is before another''s, byte by byte: implementation of <.';

CREATE FUNCTION imgpipe.pipeline_le(imgpipe.pipeline, imgpipe.pipeline) RETURNS boolean
	AS 'byteale' LANGUAGE internal IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE;
COMMENT ON FUNCTION imgpipe.pipeline_le(imgpipe.pipeline, imgpipe.pipeline) IS
'Whether a pipeline''s canonical text is before another''s or the same: implementation of <=.';

CREATE FUNCTION imgpipe.pipeline_gt(imgpipe.pipeline, imgpipe.pipeline) RETURNS boolean
	AS 'byteagt' LANGUAGE internal IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE;
COMMENT ON FUNCTION imgpipe.pipeline_gt(imgpipe.pipeline, imgpipe.pipeline) IS
'Whether a pipeline''s canonical text is behind another''s, byte by byte: implementation of >.';

CREATE FUNCTION imgpipe.pipeline_ge(imgpipe.pipeline, imgpipe.pipeline) RETURNS boolean
	AS 'byteage' LANGUAGE internal IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE;
COMMENT ON FUNCTION imgpipe.pipeline_ge(imgpipe.pipeline, imgpipe.pipeline) IS
'Whether a pipeline''s canonical text is behind another''s or the same: implementation of >=.';

CREATE FUNCTION imgpipe.pipeline_cmp(imgpipe.pipeline, imgpipe.pipeline) RETURNS integer
	AS 'byteacmp' LANGUAGE internal IMMUTABLE STRICT LEAKPROOF PARALLEL SAFE;
COMMENT ON FUNCTION imgpipe.pipeline_cmp(imgpipe.pipeline, imgpipe.pipeline) IS
'Less than, equal to or greater than 0 as one pipeline''s canonical text is before, the same as or behind the other''s: for btree indexes.';

CREATE FUNCTION imgpipe.pipeline_hash(imgpipe.pipeline) RETURNS integer
	AS 'hashvarlena' LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION imgpipe.pipeline_hash(imgpipe.pipeline) IS
'Hash of a pipeline''s canonical text: for hash indexes, joins and grouping.';

CREATE FUNCTION imgpipe.pipeline_hash_extended(imgpipe.pipeline, bigint) RETURNS bigint
	AS 'hashvarlenaextended' LANGUAGE internal IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION imgpipe.pipeline_hash_extended(imgpipe.pipeline, bigint) IS
'Hash of a pipeline''s canonical text in 64 bits, from a seed: for hash partitioning and large joins.';

CREATE OPERATOR imgpipe.= (
	LEFTARG = imgpipe.pipeline, RIGHTARG = imgpipe.pipeline, FUNCTION = imgpipe.pipeline_eq,
	COMMUTATOR = OPERATOR(imgpipe.=), NEGATOR = OPERATOR(imgpipe.<>),
	RESTRICT = pg_catalog.eqsel, JOIN = pg_catalog.eqjoinsel, HASHES, MERGES
);
CREATE OPERATOR imgpipe.<> (
	LEFTARG = imgpipe.pipeline, RIGHTARG = imgpipe.pipeline, FUNCTION = imgpipe.pipeline_ne,
	COMMUTATOR = OPERATOR(imgpipe.<>), NEGATOR = OPERATOR(imgpipe.=),
	RESTRICT = pg_catalog.neqsel, JOIN = pg_catalog.neqjoinsel
);
CREATE OPERATOR imgpipe.< (
	LEFTARG = imgpipe.pipeline, RIGHTARG = imgpipe.pipeline, FUNCTION = imgpipe.pipeline_lt,
	COMMUTATOR = OPERATOR(imgpipe.>), NEGATOR = OPERATOR(imgpipe.>=),
	RESTRICT = pg_catalog.scalarltsel, JOIN = pg_catalog.scalarltjoinsel
);
CREATE OPERATOR imgpipe.<= (
	LEFTARG = imgpipe.pipeline, RIGHTARG = imgpipe.pipeline, FUNCTION = imgpipe.pipeline_le,
	COMMUTATOR = OPERATOR(imgpipe.>=), NEGATOR = OPERATOR(imgpipe.>),
	RESTRICT = pg_catalog.scalarlesel, JOIN = pg_catalog.scalarlejoinsel
);
CREATE OPERATOR imgpipe.> (
	LEFTARG = imgpipe.pipeline, RIGHTARG = imgpipe.pipeline, FUNCTION = imgpipe.pipeline_gt,
	COMMUTATOR = OPERATOR(imgpipe.<), NEGATOR = OPERATOR(imgpipe.<=),
	RESTRICT = pg_catalog.scalargtsel, JOIN = pg_catalog.scalargtjoinsel
);
CREATE OPERATOR imgpipe.>= (
	LEFTARG = imgpipe.pipeline, RIGHTARG = imgpipe.pipeline, FUNCTION = imgpipe.pipeline_ge,
	COMMUTATOR = OPERATOR(imgpipe.<=), NEGATOR = OPERATOR(imgpipe.<),
	RESTRICT = pg_catalog.scalargesel, JOIN = pg_catalog.scalargejoinsel
);

CREATE OPERATOR CLASS imgpipe.pipeline_ops DEFAULT FOR TYPE imgpipe.pipeline USING btree AS
	OPERATOR 1 imgpipe.<,
	OPERATOR 2 imgpipe.<=,
	OPERATOR 3 imgpipe.=,
	OPERATOR 4 imgpipe.>=,
	OPERATOR 5 imgpipe.>,
	FUNCTION 1 imgpipe.pipeline_cmp(imgpipe.pipeline, imgpipe.pipeline);

CREATE OPERATOR CLASS imgpipe.pipeline_ops DEFAULT FOR TYPE imgpipe.pipeline USING hash AS
	OPERATOR 1 imgpipe.=,
	FUNCTION 1 imgpipe.pipeline_hash(imgpipe.pipeline),
	FUNCTION 2 imgpipe.pipeline_hash_extended(imgpipe.pipeline, bigint);

CREATE FUNCTION imgpipe.pipeline_operations(
	OUT operation text,
	OUT kind text,
	OUT argument text,
	OUT type text,
	OUT required boolean,
	OUT default_value text,
	OUT minimum double precision,
	OUT maximum double precision,
	OUT words text[],
	OUT description text
) RETURNS SETOF record
	AS 'MODULE_PATHNAME', 'imgpipe_pipeline_operations'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE ROWS 130;
COMMENT ON FUNCTION imgpipe.pipeline_operations() IS
'The reference of the operation language, from the table that the parser itself uses. For each operation one row without argument, which describes it, then one for each of its arguments in canonical order. kind: input (how the image is read; stands first), transform (done in the order as written), output (what of the file is kept; anywhere) or encoder (last). type: integer, number, word (one of words), boolean, color or text (of at most maximum characters). default_value is null where there is none; the description then tells what leaving the argument out means.';

/*
 * Work on images, done in the decoder; see src/decoder/.  COST is below the
 * truth: by that PostgreSQL would compile every query over some 400 images, which
 * saves nothing, takes longer than an image and cannot be cancelled.
 */

CREATE FUNCTION imgpipe.process_image(content imgpipe.image, pipeline imgpipe.pipeline) RETURNS imgpipe.image
	AS 'MODULE_PATHNAME', 'imgpipe_process_image'
	LANGUAGE C STABLE STRICT PARALLEL SAFE COST 10000;
COMMENT ON FUNCTION imgpipe.process_image(imgpipe.image, imgpipe.pipeline) IS
'The image that the pipeline makes of this one, EXIF orientation applied first. Raises 22P03 for a damaged image, 22023 where a step does not fit the image, 54000 over a limit (imgpipe.max_output_megapixels, decoder_timeout, decoder_memory_limit), 58000 when the decoder stopped. STABLE: another libvips version makes other bytes.';

CREATE FUNCTION imgpipe.process_image(content imgpipe.image, pipelines imgpipe.pipeline[]) RETURNS imgpipe.image[]
	AS 'MODULE_PATHNAME', 'imgpipe_process_image_array'
	LANGUAGE C STABLE STRICT PARALLEL SAFE COST 10000;
COMMENT ON FUNCTION imgpipe.process_image(imgpipe.image, imgpipe.pipeline[]) IS
'One image for each pipeline (at most 64), in their order, from one decode. Errors as of process_image(image, pipeline).';

CREATE FUNCTION imgpipe.process_image(content imgpipe.image, pipeline imgpipe.pipeline, layer imgpipe.image) RETURNS imgpipe.image
	AS 'MODULE_PATHNAME', 'imgpipe_process_image'
	LANGUAGE C STABLE STRICT PARALLEL SAFE COST 10000;
COMMENT ON FUNCTION imgpipe.process_image(imgpipe.image, imgpipe.pipeline, imgpipe.image) IS
'As process_image(image, pipeline), with a second image for the steps of the pipeline that take one, such as a watermark.';

CREATE FUNCTION imgpipe.thumbnail(content imgpipe.image, width integer, height integer) RETURNS imgpipe.image
	AS 'MODULE_PATHNAME', 'imgpipe_thumbnail'
	LANGUAGE C STABLE STRICT PARALLEL SAFE COST 10000;
COMMENT ON FUNCTION imgpipe.thumbnail(imgpipe.image, integer, integer) IS
'The image made to fit into width x height pixels, its shape and format kept; one that is smaller stays as large as it is. The same as process_image(content, ''resize(width=..., height=...)''). Raises 22023 for a size that is not possible, else as process_image().';

CREATE FUNCTION imgpipe.convert_image(content imgpipe.image, format text) RETURNS imgpipe.image
	AS 'MODULE_PATHNAME', 'imgpipe_convert_image'
	LANGUAGE C STABLE STRICT PARALLEL SAFE COST 10000;
COMMENT ON FUNCTION imgpipe.convert_image(imgpipe.image, text) IS
'The image in this format, with the format''s default quality; unchanged, byte for byte, where it has the format already. Formats are the encoders in pipeline_operations(). Raises 22023 for a name that is none of them, else as process_image().';

CREATE FUNCTION imgpipe.verify_image(content imgpipe.image) RETURNS text
	AS 'MODULE_PATHNAME', 'imgpipe_verify_image'
	LANGUAGE C STABLE STRICT PARALLEL SAFE COST 10000;
COMMENT ON FUNCTION imgpipe.verify_image(imgpipe.image) IS
'Decodes every pixel of every page: null where all is well, else what is wrong, as a sentence. Of a JPEG that is all that libjpeg warns of. With imgpipe.verify_input images are refused for the same when they come in. Raises 54000 over a limit, 58000 when the decoder stopped. STABLE: another libvips version may see more.';

CREATE FUNCTION imgpipe.decoder_sandbox(OUT attempt text, OUT refused boolean, OUT error text) RETURNS SETOF record
	AS 'MODULE_PATHNAME', 'imgpipe_decoder_sandbox'
	LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION imgpipe.decoder_sandbox() IS
'What this session''s image decoder is refused when it tries to open a file, make a socket or execute a program: one row an attempt. refused is true throughout where the sandbox holds.';


/* The aggregate contact_sheet(), once for each number of arguments: aggregates have no defaults. */

CREATE FUNCTION imgpipe.contact_sheet_add(internal, content imgpipe.image) RETURNS internal
	AS 'MODULE_PATHNAME', 'imgpipe_contact_sheet_add'
	LANGUAGE C STABLE PARALLEL SAFE COST 10000;
COMMENT ON FUNCTION imgpipe.contact_sheet_add(internal, imgpipe.image) IS
'Transition function of contact_sheet(): makes a tile of an image.';

CREATE FUNCTION imgpipe.contact_sheet_add(internal, content imgpipe.image, columns integer) RETURNS internal
	AS 'MODULE_PATHNAME', 'imgpipe_contact_sheet_add'
	LANGUAGE C STABLE PARALLEL SAFE COST 10000;
COMMENT ON FUNCTION imgpipe.contact_sheet_add(internal, imgpipe.image, integer) IS
'Transition function of contact_sheet(): makes a tile of an image.';

CREATE FUNCTION imgpipe.contact_sheet_add(internal, content imgpipe.image, columns integer, tile_width integer, tile_height integer) RETURNS internal
	AS 'MODULE_PATHNAME', 'imgpipe_contact_sheet_add'
	LANGUAGE C STABLE PARALLEL SAFE COST 10000;
COMMENT ON FUNCTION imgpipe.contact_sheet_add(internal, imgpipe.image, integer, integer, integer) IS
'Transition function of contact_sheet(): makes a tile of an image.';

CREATE FUNCTION imgpipe.contact_sheet_add(internal, content imgpipe.image, columns integer, tile_width integer, tile_height integer, gap integer, background text) RETURNS internal
	AS 'MODULE_PATHNAME', 'imgpipe_contact_sheet_add'
	LANGUAGE C STABLE PARALLEL SAFE COST 10000;
COMMENT ON FUNCTION imgpipe.contact_sheet_add(internal, imgpipe.image, integer, integer, integer, integer, text) IS
'Transition function of contact_sheet(): makes a tile of an image.';

CREATE FUNCTION imgpipe.contact_sheet_end(internal) RETURNS imgpipe.image
	AS 'MODULE_PATHNAME', 'imgpipe_contact_sheet_end'
	LANGUAGE C STABLE PARALLEL SAFE COST 10000;
COMMENT ON FUNCTION imgpipe.contact_sheet_end(internal) IS
'Final function of contact_sheet(): joins the tiles.';

CREATE AGGREGATE imgpipe.contact_sheet(content imgpipe.image) (
	SFUNC = imgpipe.contact_sheet_add,
	STYPE = internal,
	SSPACE = 1000000,
	FINALFUNC = imgpipe.contact_sheet_end,
	PARALLEL = SAFE
);
COMMENT ON AGGREGATE imgpipe.contact_sheet(imgpipe.image) IS
'As contact_sheet(image, columns, tile_width, tile_height, gap, background), with defaults for what is left out.';

CREATE AGGREGATE imgpipe.contact_sheet(content imgpipe.image, columns integer) (
	SFUNC = imgpipe.contact_sheet_add,
	STYPE = internal,
	SSPACE = 1000000,
	FINALFUNC = imgpipe.contact_sheet_end,
	PARALLEL = SAFE
);
COMMENT ON AGGREGATE imgpipe.contact_sheet(imgpipe.image, integer) IS
'As contact_sheet(image, columns, tile_width, tile_height, gap, background), with defaults for what is left out.';

CREATE AGGREGATE imgpipe.contact_sheet(content imgpipe.image, columns integer, tile_width integer, tile_height integer) (
	SFUNC = imgpipe.contact_sheet_add,
	STYPE = internal,
	SSPACE = 1000000,
	FINALFUNC = imgpipe.contact_sheet_end,
	PARALLEL = SAFE
);
COMMENT ON AGGREGATE imgpipe.contact_sheet(imgpipe.image, integer, integer, integer) IS
'As contact_sheet(image, columns, tile_width, tile_height, gap, background), with defaults for what is left out.';

CREATE AGGREGATE imgpipe.contact_sheet(content imgpipe.image, columns integer, tile_width integer, tile_height integer, gap integer, background text) (
	SFUNC = imgpipe.contact_sheet_add,
	STYPE = internal,
	SSPACE = 1000000,
	FINALFUNC = imgpipe.contact_sheet_end,
	PARALLEL = SAFE
);
COMMENT ON AGGREGATE imgpipe.contact_sheet(imgpipe.image, integer, integer, integer, integer, text) IS
'One picture of many: each image, its first page, is scaled down into a box of tile_width x tile_height pixels (256 x 256), smaller ones stay as they are, and the tiles stand side by side in rows of so many columns (about as many as there are rows), with a gap of pixels between and around them (8) on a background, a color as in pipelines (white). Places are as large as the largest tile. Order them by contact_sheet(content, ... ORDER BY ...). Null images are left out; null without any. The other arguments count in the first row of a group; null is the default. The result is PNG: process_image(contact_sheet(content), ''webp'') makes it another. Raises 54000 over 240 images or a limit, 22023 for an argument out of range, and what process_image() raises. Each tile is made as its row comes, so images need not fit in memory together; a group is computed by one process, in parallel queries too.';

/* Background workers; see src/workers/. */

CREATE FUNCTION imgpipe.wake_controller() RETURNS void
	AS 'MODULE_PATHNAME', 'imgpipe_wake_controller'
	LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION imgpipe.wake_controller() IS
'Makes this database''s controller look at sources, processors and the queue as soon as the transaction commits. Does nothing where imgpipe is not in shared_preload_libraries.';

CREATE FUNCTION imgpipe.workers_available() RETURNS boolean
	AS 'MODULE_PATHNAME', 'imgpipe_workers_available'
	LANGUAGE C STABLE PARALLEL SAFE;
COMMENT ON FUNCTION imgpipe.workers_available() IS
'Whether imgpipe is in shared_preload_libraries, so that sources and processors can run.';

CREATE FUNCTION imgpipe.require_workers(problem text, or_wait boolean DEFAULT false) RETURNS void
	AS 'MODULE_PATHNAME', 'imgpipe_require_workers'
	LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION imgpipe.require_workers(text, boolean) IS
'Does nothing where imgpipe is in shared_preload_libraries. Elsewhere raises 55000 with that problem; with or_wait, where what was asked for is kept until there are workers, it is a warning, the first of each statement.';

CREATE FUNCTION imgpipe.stop_workers() RETURNS void
	AS 'MODULE_PATHNAME', 'imgpipe_stop_workers'
	LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION imgpipe.stop_workers() IS
'Stops this database''s controller and workers until start_workers() or a restart of the server. Nothing is lost: they go on from where they were. Commands that need the database to themselves (DROP DATABASE, ALTER DATABASE ... RENAME TO or SET TABLESPACE, CREATE DATABASE ... TEMPLATE), ALTER EXTENSION imgpipe UPDATE and DROP EXTENSION imgpipe do this by themselves. Raises 55000 where imgpipe is not in shared_preload_libraries. Only the owner may, unless granted.';
REVOKE EXECUTE ON FUNCTION imgpipe.stop_workers() FROM PUBLIC;

CREATE FUNCTION imgpipe.start_workers() RETURNS void
	AS 'MODULE_PATHNAME', 'imgpipe_start_workers'
	LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION imgpipe.start_workers() IS
'Lets this database have its controller and workers again after stop_workers(). Raises 55000 where imgpipe is not in shared_preload_libraries. Only the owner may, unless granted.';
REVOKE EXECUTE ON FUNCTION imgpipe.start_workers() FROM PUBLIC;

CREATE FUNCTION imgpipe.worker_slots(
	OUT kind text, OUT role oid, OUT object integer, OUT slice integer, OUT n_slices integer,
	OUT pid integer, OUT state text, OUT since timestamptz, OUT started_at timestamptz,
	OUT failures integer, OUT retry_at timestamptz,
	OUT messages bigint, OUT bytes bigint, OUT failed bigint,
	OUT messages_per_second double precision, OUT bytes_per_second double precision,
	OUT lag bigint, OUT last_error text, OUT last_error_at timestamptz) RETURNS SETOF record
	AS 'MODULE_PATHNAME', 'imgpipe_worker_slots'
	LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION imgpipe.worker_slots() IS
'What this database''s workers told of themselves since the server started: ingest workers (object is the source_id), processor workers and job workers (object is the job_id) and senders (object is the sender_id). No rows where imgpipe is not in shared_preload_libraries. The views source_status and processor_performance show this in a friendlier form. last_error is null for who is neither a member of the worker''s role nor of pg_read_all_stats.';

/*
 * The tables of images and all that belongs to them; see src/store/.
 *
 * Whatever is partitioned by image_id, in this schema and of this extension,
 * gets partitions ahead (partitions.sql) and is purged (src/retention/); it
 * needs a fence (fence.sql) and, at the end of this file, no statistics of what
 * must not outlive its purge.
 */

CREATE SCHEMA imgpipe_partitions;
COMMENT ON SCHEMA imgpipe_partitions IS
'Partitions of imgpipe''s tables. Nobody is granted USAGE here: a partition read directly would bypass the read fence of its parent.';
REVOKE ALL ON SCHEMA imgpipe_partitions FROM PUBLIC;

CREATE FUNCTION imgpipe.new_image_id() RETURNS uuid
	AS 'MODULE_PATHNAME', 'imgpipe_new_image_id'
	LANGUAGE C VOLATILE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION imgpipe.new_image_id() IS
'A new image id whose purge deadline is now + imgpipe.retention. See new_image_id(timestamptz).';

CREATE FUNCTION imgpipe.new_image_id(deadline timestamptz) RETURNS uuid
	AS 'MODULE_PATHNAME', 'imgpipe_new_image_id_at'
	LANGUAGE C VOLATILE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION imgpipe.new_image_id(timestamptz) IS
'A new image id: a UUIDv8 (RFC 9562) whose first 48 bits are the purge deadline in milliseconds since 1970 and whose other 74 bits are random. Give it in an INSERT to keep one image for another time than imgpipe.retention: INSERT INTO imgpipe.images (image_id, content) VALUES (imgpipe.new_image_id(now() + interval ''1 hour''), $1). Raises 23514 for a deadline beyond imgpipe.max_retention from now, 22008 for one outside 1970 to the year 10889.';

CREATE FUNCTION imgpipe.purge_at(image_id uuid) RETURNS timestamptz
	AS 'MODULE_PATHNAME', 'imgpipe_purge_at'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION imgpipe.purge_at(uuid) IS
'The purge deadline in an image id: from this moment nobody but the owner can read the image, and its partition is dropped. Raises 22023 for a uuid that is not of version 8.';

CREATE FUNCTION imgpipe.first_image_id(deadline timestamptz) RETURNS uuid
	AS 'MODULE_PATHNAME', 'imgpipe_first_image_id'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION imgpipe.first_image_id(timestamptz) IS
'The smallest image id with that purge deadline, for range conditions and partition bounds.';

CREATE FUNCTION imgpipe.fence() RETURNS uuid
	AS 'MODULE_PATHNAME', 'imgpipe_fence'
	LANGUAGE C STABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION imgpipe.fence() IS
'The smallest image id whose deadline had not passed when the current statement began. The row-level security of every image table hides what lies below it.';

CREATE FUNCTION imgpipe.horizon() RETURNS uuid
	AS 'MODULE_PATHNAME', 'imgpipe_horizon'
	LANGUAGE C VOLATILE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION imgpipe.horizon() IS
'The smallest image id whose deadline is further away than imgpipe.max_retention lets it be. Nobody but the owner can insert it or one above.';

CREATE FUNCTION imgpipe.longest_retention() RETURNS interval
	AS 'MODULE_PATHNAME', 'imgpipe_longest_retention'
	LANGUAGE C STABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION imgpipe.longest_retention() IS
'imgpipe.max_retention, or where that is 0 imgpipe.retention: how far away the deadline of a new image can be.';

CREATE TABLE imgpipe.images (
	image_id uuid NOT NULL DEFAULT imgpipe.new_image_id(),
	content imgpipe.image NOT NULL,
	source text NOT NULL DEFAULT 'sql'
		CONSTRAINT source_is_a_name CHECK (source OPERATOR(pg_catalog.~) '^[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}$'),
	source_partition integer,
	source_offset bigint,
	source_key text,
	source_timestamp timestamptz,
	batch_id text,
	uploaded_by text NOT NULL DEFAULT SESSION_USER,
	received_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	headers jsonb,
	format text NOT NULL GENERATED ALWAYS AS (imgpipe.image_format(content)) STORED,
	width integer NOT NULL GENERATED ALWAYS AS (imgpipe.image_width(content)) STORED,
	height integer NOT NULL GENERATED ALWAYS AS (imgpipe.image_height(content)) STORED,
	bytes integer NOT NULL GENERATED ALWAYS AS (imgpipe.image_bytes(content)) STORED,
	sha256 bytea NOT NULL GENERATED ALWAYS AS (imgpipe.image_sha256(content)) STORED,
	PRIMARY KEY (image_id)
) PARTITION BY RANGE (image_id);
COMMENT ON TABLE imgpipe.images IS
'Every image that arrived, by INSERT or from Kafka, until its purge deadline. INSERT INTO imgpipe.images (content) VALUES ($1::bytea) is all that an application needs.';
COMMENT ON COLUMN imgpipe.images.image_id IS 'UUIDv8 that begins with the purge deadline: imgpipe.purge_at(image_id).';
COMMENT ON COLUMN imgpipe.images.content IS 'The file as it came, byte for byte.';
COMMENT ON COLUMN imgpipe.images.source IS 'Name of the Kafka source, or sql, or another name of that kind (1 to 63 letters of ASCII, digits, "_", "." and "-"). The daily volume keeps it after the purge: it is no place for what names a person.';
COMMENT ON COLUMN imgpipe.images.source_key IS 'Key of the Kafka message as text (\x and hex where it is none), or the application''s own key.';
COMMENT ON COLUMN imgpipe.images.source_timestamp IS 'When the producer, or the broker, says that the message was made.';
COMMENT ON COLUMN imgpipe.images.width IS 'Pixels as displayed, EXIF orientation applied.';
COMMENT ON COLUMN imgpipe.images.height IS 'Pixels as displayed, EXIF orientation applied.';
COMMENT ON COLUMN imgpipe.images.bytes IS 'Size of the file.';

CREATE TABLE imgpipe.renditions (
	image_id uuid NOT NULL,
	processor text NOT NULL,
	name text NOT NULL,
	version integer NOT NULL,
	content imgpipe.image NOT NULL,
	created_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	format text NOT NULL GENERATED ALWAYS AS (imgpipe.image_format(content)) STORED,
	width integer NOT NULL GENERATED ALWAYS AS (imgpipe.image_width(content)) STORED,
	height integer NOT NULL GENERATED ALWAYS AS (imgpipe.image_height(content)) STORED,
	bytes integer NOT NULL GENERATED ALWAYS AS (imgpipe.image_bytes(content)) STORED,
	PRIMARY KEY (image_id, processor, name)
) PARTITION BY RANGE (image_id);
COMMENT ON TABLE imgpipe.renditions IS
'What processors made of images: one row per image, processor and named output, purged together with its image.';

CREATE TABLE imgpipe.results (
	image_id uuid NOT NULL,
	processor text NOT NULL,
	version integer NOT NULL,
	result jsonb,
	created_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	PRIMARY KEY (image_id, processor)
) PARTITION BY RANGE (image_id);
COMMENT ON TABLE imgpipe.results IS
'What processors that are SQL functions returned: one row per image and processor, purged together with its image.';

CREATE TABLE imgpipe.dead_letters (
	image_id uuid NOT NULL DEFAULT imgpipe.new_image_id(),
	dead_letter_id bigint NOT NULL GENERATED ALWAYS AS IDENTITY,
	stage text NOT NULL CHECK (stage OPERATOR(pg_catalog.=) ANY ('{ingest,processing}')),
	source text,
	source_partition integer,
	source_offset bigint,
	source_key text,
	source_timestamp timestamptz,
	headers jsonb,
	value bytea,
	processor text,
	version integer,
	attempts integer NOT NULL DEFAULT 1,
	sqlstate text NOT NULL,
	reason text NOT NULL,
	detail text,
	created_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	PRIMARY KEY (image_id, dead_letter_id)
) PARTITION BY RANGE (image_id);
ALTER TABLE imgpipe.dead_letters ALTER COLUMN value SET STORAGE external;
COMMENT ON TABLE imgpipe.dead_letters IS
'What could not be ingested or processed, with the reason. Stage ingest: the raw value and where it came from, under an id of its own with the source''s retention. Stage processing: the image''s id, the processor and its last error.';

-- ANALYZE keeps values of columns in pg_statistic, those of a partitioned table even when its partitions are gone.
ALTER TABLE imgpipe.images
	ALTER content SET STATISTICS 0, ALTER source_key SET STATISTICS 0, ALTER batch_id SET STATISTICS 0,
	ALTER uploaded_by SET STATISTICS 0, ALTER headers SET STATISTICS 0, ALTER sha256 SET STATISTICS 0;
ALTER TABLE imgpipe.renditions ALTER content SET STATISTICS 0;
ALTER TABLE imgpipe.results ALTER result SET STATISTICS 0;
ALTER TABLE imgpipe.dead_letters
	ALTER source_key SET STATISTICS 0, ALTER headers SET STATISTICS 0, ALTER value SET STATISTICS 0,
	ALTER reason SET STATISTICS 0, ALTER detail SET STATISTICS 0;

/* Partitions by purge deadline; see src/store/. */

CREATE TABLE imgpipe.installation (
	only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
	installed_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);
COMMENT ON TABLE imgpipe.installation IS
'One row once this database is in use. While a dump is restored the row comes after the partitions have been put back, so that the controller does not make them a second time.';
SELECT pg_catalog.pg_extension_config_dump('imgpipe.installation', '');

CREATE VIEW imgpipe.partitioned_tables AS
	SELECT p.oid::pg_catalog.regclass AS parent, p.relname AS name
	FROM pg_catalog.pg_class p
		JOIN pg_catalog.pg_partitioned_table t ON t.partrelid OPERATOR(pg_catalog.=) p.oid
		JOIN pg_catalog.pg_attribute a ON a.attrelid OPERATOR(pg_catalog.=) p.oid AND a.attnum OPERATOR(pg_catalog.=) t.partattrs[0]
	WHERE p.relnamespace OPERATOR(pg_catalog.=) 'imgpipe'::pg_catalog.regnamespace
		AND t.partstrat OPERATOR(pg_catalog.=) 'r'
		AND t.partnatts OPERATOR(pg_catalog.=) 1
		AND a.attname OPERATOR(pg_catalog.=) 'image_id'
		AND EXISTS (SELECT FROM pg_catalog.pg_depend d
			WHERE d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
				AND d.objid OPERATOR(pg_catalog.=) p.oid
				AND d.deptype OPERATOR(pg_catalog.=) 'e');
COMMENT ON VIEW imgpipe.partitioned_tables IS
'The tables that are partitioned by purge deadline: images, and what belongs to them.';

CREATE FUNCTION imgpipe.partition_ids(bounds pg_node_tree, OUT first_id uuid, OUT end_id uuid) RETURNS record
	AS 'MODULE_PATHNAME', 'imgpipe_partition_ids'
	LANGUAGE C STABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION imgpipe.partition_ids(pg_node_tree) IS
'The bounds in pg_class.relpartbound of a range partition by one uuid: from the first (inclusive) to the second (exclusive). NULL for other bounds.';

CREATE VIEW imgpipe.partitions AS
	SELECT t.parent,
		c.oid::pg_catalog.regclass AS partition,
		imgpipe.purge_at(b.first_id) AS deadline_from,
		imgpipe.purge_at(b.end_id) AS deadline_to,
		i.inhdetachpending AS detaching
	FROM imgpipe.partitioned_tables t
		JOIN pg_catalog.pg_inherits i ON i.inhparent OPERATOR(pg_catalog.=) t.parent
		JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) i.inhrelid
		CROSS JOIN LATERAL imgpipe.partition_ids(c.relpartbound) b
	WHERE c.relkind OPERATOR(pg_catalog.=) 'r' AND b.first_id IS NOT NULL;
COMMENT ON VIEW imgpipe.partitions IS
'The partitions of images and what belongs to them, with the purge deadlines that each holds: from deadline_from (inclusive) to deadline_to (exclusive), as the catalog has them. One that is detaching is on its way to be dropped and holds nothing for new queries.';

/*
 * Made as a table of its own and then attached, and not as PARTITION OF: that
 * would lock the parent against everybody, behind the longest reader.  With
 * row-level security and no policy nobody but the owner reads it by itself:
 * pg_read_all_data has USAGE on every schema.
 *
 * It has its bounds as a CHECK as well, which DETACH ... CONCURRENTLY would
 * add: PostgreSQL crashes where that comes between two rows of a statement that
 * writes into the partition, since the executor has counted constraints already.
 */
CREATE FUNCTION imgpipe.create_partition(parent regclass, deadline_from timestamptz, deadline_to timestamptz) RETURNS void
	LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	first_id CONSTANT uuid := imgpipe.first_image_id(deadline_from);
	end_id CONSTANT uuid := imgpipe.first_image_id(deadline_to);
	name text;
	unsampled text;
BEGIN
	SELECT format('imgpipe_partitions.%I', c.relname || '_' || to_char(deadline_from AT TIME ZONE 'UTC', 'YYYYMMDD_HH24'))
		INTO name FROM pg_class c WHERE c.oid = parent;
	EXECUTE format('CREATE TABLE %s (LIKE %s INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING GENERATED INCLUDING STORAGE INCLUDING COMPRESSION,
			CONSTRAINT bounds CHECK (image_id >= %L AND image_id < %L))',
		name, parent, first_id, end_id);
	SELECT concat(string_agg(format(', ALTER %I SET STATISTICS 0', a.attname), '')) INTO unsampled
		FROM pg_attribute a WHERE a.attrelid = parent AND a.attnum > 0 AND NOT a.attisdropped AND a.attstattarget = 0;
	EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY %s', name, unsampled);
	EXECUTE format('ALTER TABLE %s ATTACH PARTITION %s FOR VALUES FROM (%L) TO (%L)',
		parent, name, first_id, end_id);
END
$$;
COMMENT ON FUNCTION imgpipe.create_partition(regclass, timestamptz, timestamptz) IS
'Makes one partition, for purge deadlines from the first (inclusive) to the second (exclusive). Only the owner may, unless granted.';
REVOKE EXECUTE ON FUNCTION imgpipe.create_partition(regclass, timestamptz, timestamptz) FROM PUBLIC;

CREATE FUNCTION imgpipe.create_partitions(horizon interval DEFAULT NULL, max_new integer DEFAULT NULL) RETURNS integer
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp
	SET lock_timeout = '1s'
AS $$
DECLARE
	span CONSTANT interval := imgpipe.setting('imgpipe.partition_interval');
	ahead CONSTANT interval := coalesce(horizon, interval '2 days' +
		greatest(imgpipe.longest_retention(), (SELECT max(s.retention) FROM imgpipe.sources s)));
	epoch CONSTANT timestamptz := '2000-01-01 00:00:00+00';
	partitioned regclass;
	lower timestamptz;
	upper timestamptz;
	made integer := 0;
BEGIN
	PERFORM pg_advisory_xact_lock('imgpipe.images'::regclass::oid::bigint);
	FOR partitioned IN SELECT t.parent FROM imgpipe.partitioned_tables t ORDER BY t.name LOOP
		SELECT greatest(max(p.deadline_to), date_bin(span, now(), epoch)) INTO lower
			FROM imgpipe.partitions p WHERE p.parent = partitioned;
		WHILE lower < now() + ahead AND (max_new IS NULL OR made < max_new) LOOP
			-- After a change of the interval the first new partition ends where the new grid has a line.
			upper := date_bin(span, lower, epoch) + span;
			PERFORM imgpipe.create_partition(partitioned, lower, upper);
			made := made + 1;
			lower := upper;
		END LOOP;
	END LOOP;
	RETURN made;
END
$$;
COMMENT ON FUNCTION imgpipe.create_partitions(interval, integer) IS
'Makes the partitions that are missing for deadlines up to now + horizon (default: the longest retention in use and 2 days), at most max_new of them, and returns how many it made. Keeps nobody from reading or writing. The controller does this by itself; call it where imgpipe is not in shared_preload_libraries. Raises 55P03 where other changes to the tables keep it waiting for a second. Only the owner may, unless granted.';
REVOKE EXECUTE ON FUNCTION imgpipe.create_partitions(interval, integer) FROM PUBLIC;

/*
 * The read fence: from its deadline on, no one but the owner sees a row, and
 * no one can write one that is past its deadline, or whose deadline is beyond
 * the longest retention.  GRANT decides who may read and write at all.
 */

ALTER TABLE imgpipe.images ENABLE ROW LEVEL SECURITY;
CREATE POLICY granted ON imgpipe.images USING (true);
CREATE POLICY fence ON imgpipe.images AS RESTRICTIVE USING (image_id OPERATOR(pg_catalog.>=) imgpipe.fence());
CREATE POLICY horizon ON imgpipe.images AS RESTRICTIVE USING (true) WITH CHECK (image_id OPERATOR(pg_catalog.<) imgpipe.horizon());

ALTER TABLE imgpipe.renditions ENABLE ROW LEVEL SECURITY;
CREATE POLICY granted ON imgpipe.renditions USING (true);
CREATE POLICY fence ON imgpipe.renditions AS RESTRICTIVE USING (image_id OPERATOR(pg_catalog.>=) imgpipe.fence());
CREATE POLICY horizon ON imgpipe.renditions AS RESTRICTIVE USING (true) WITH CHECK (image_id OPERATOR(pg_catalog.<) imgpipe.horizon());

ALTER TABLE imgpipe.results ENABLE ROW LEVEL SECURITY;
CREATE POLICY granted ON imgpipe.results USING (true);
CREATE POLICY fence ON imgpipe.results AS RESTRICTIVE USING (image_id OPERATOR(pg_catalog.>=) imgpipe.fence());
CREATE POLICY horizon ON imgpipe.results AS RESTRICTIVE USING (true) WITH CHECK (image_id OPERATOR(pg_catalog.<) imgpipe.horizon());

ALTER TABLE imgpipe.dead_letters ENABLE ROW LEVEL SECURITY;
CREATE POLICY granted ON imgpipe.dead_letters USING (true);
CREATE POLICY fence ON imgpipe.dead_letters AS RESTRICTIVE USING (image_id OPERATOR(pg_catalog.>=) imgpipe.fence());
CREATE POLICY horizon ON imgpipe.dead_letters AS RESTRICTIVE USING (true) WITH CHECK (image_id OPERATOR(pg_catalog.<) imgpipe.horizon());


/*
 * Kafka: servers, sources and their positions; see src/ingest/.
 *
 * A position says which offset of a partition comes next.  It advances in the
 * transaction that writes the rows of the messages before it, and only where
 * it still is what the worker started from: so every message is exactly one
 * image or one dead letter, whatever is killed, restored or started twice.
 */

CREATE FUNCTION imgpipe.kafka_validator(options text[], catalog oid) RETURNS void
	AS 'MODULE_PATHNAME', 'imgpipe_kafka_validator'
	LANGUAGE C STABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION imgpipe.kafka_validator(text[], oid) IS
'Checks the options of imgpipe_kafka servers and user mappings, which have librdkafka''s names with underscores for dots. Servers: bootstrap_servers (host:port, ...), security_protocol (plaintext, ssl, sasl_plaintext, sasl_ssl), ssl_ca_pem, ssl_endpoint_identification_algorithm (https, none), sasl_mechanism (PLAIN, SCRAM-SHA-256, SCRAM-SHA-512), client_id, client_rack, broker_address_family, isolation_level, check_crcs, socket_keepalive_enable, socket_timeout_ms, reconnect_backoff_ms, reconnect_backoff_max_ms, fetch_wait_max_ms, fetch_min_bytes, fetch_max_bytes, max_partition_fetch_bytes, receive_message_max_bytes. User mappings: sasl_username, sasl_password, ssl_certificate_pem, ssl_key_pem, ssl_key_password. Raises HV00D for a name that is not one of these, is not allowed, or belongs to the other kind of object; HV024 for a value.';

CREATE FOREIGN DATA WRAPPER imgpipe_kafka VALIDATOR imgpipe.kafka_validator;
COMMENT ON FOREIGN DATA WRAPPER imgpipe_kafka IS
'Kafka clusters that images come from: CREATE SERVER ... FOREIGN DATA WRAPPER imgpipe_kafka OPTIONS (bootstrap_servers ''host:port''), with credentials in CREATE USER MAPPING. See imgpipe.kafka_validator() for the options.';

CREATE TABLE imgpipe.sources (
	source_id integer PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
	name text NOT NULL UNIQUE
		CHECK (name OPERATOR(pg_catalog.~) '^[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}$' AND name OPERATOR(pg_catalog.<>) 'sql'),
	server text NOT NULL,
	topic text NOT NULL CHECK (topic OPERATOR(pg_catalog.~) '^[A-Za-z0-9._-]{1,249}$'),
	owner regrole NOT NULL DEFAULT CURRENT_USER::pg_catalog.regrole,
	retention interval
		CHECK (retention OPERATOR(pg_catalog.>=) '1 minute'::interval AND retention OPERATOR(pg_catalog.<=) '10 years'::interval),
	parallelism integer NOT NULL DEFAULT 1 CHECK (parallelism OPERATOR(pg_catalog.>=) 1 AND parallelism OPERATOR(pg_catalog.<=) 64),
	start_from text NOT NULL DEFAULT 'earliest' CHECK (start_from OPERATOR(pg_catalog.~) '^(earliest|latest|[{].*[}]|[0-9].*)$'),
	batch_rows integer NOT NULL DEFAULT 500 CHECK (batch_rows OPERATOR(pg_catalog.>=) 1 AND batch_rows OPERATOR(pg_catalog.<=) 100000),
	batch_bytes integer NOT NULL DEFAULT 16777216
		CHECK (batch_bytes OPERATOR(pg_catalog.>=) 1048576 AND batch_bytes OPERATOR(pg_catalog.<=) 1073741824),
	linger_ms integer NOT NULL DEFAULT 20 CHECK (linger_ms OPERATOR(pg_catalog.>=) 0 AND linger_ms OPERATOR(pg_catalog.<=) 60000),
	max_backlog integer NOT NULL DEFAULT 0 CHECK (max_backlog OPERATOR(pg_catalog.>=) 0),
	slice integer NOT NULL DEFAULT 0 CHECK (slice OPERATOR(pg_catalog.>=) 0),
	slices integer NOT NULL DEFAULT 1 CHECK (slices OPERATOR(pg_catalog.>) slice AND slices OPERATOR(pg_catalog.<=) 1000),
	format text NOT NULL DEFAULT 'raw' CHECK (format OPERATOR(pg_catalog.=) ANY ('{raw,json,chunked}')),
	content_field text NOT NULL DEFAULT 'content' CHECK (content_field OPERATOR(pg_catalog.<>) ''),
	on_tombstone text NOT NULL DEFAULT 'dead_letter' CHECK (on_tombstone OPERATOR(pg_catalog.=) ANY ('{dead_letter,ignore,delete,expire}')),
	chunk_timeout interval NOT NULL DEFAULT '1 hour'
		CHECK (chunk_timeout OPERATOR(pg_catalog.>=) '1 second'::interval AND chunk_timeout OPERATOR(pg_catalog.<=) '7 days'::interval),
	consumer_group text CHECK (consumer_group OPERATOR(pg_catalog.~) '^[!-~]{1,249}$'),
	result_topic text CHECK (result_topic OPERATOR(pg_catalog.~) '^[A-Za-z0-9._-]{1,249}$'),
	dead_letter_topic text CHECK (dead_letter_topic OPERATOR(pg_catalog.~) '^[A-Za-z0-9._-]{1,249}$'),
	notify_channel text CHECK (pg_catalog.octet_length(notify_channel) OPERATOR(pg_catalog.>=) 1 AND pg_catalog.octet_length(notify_channel) OPERATOR(pg_catalog.<=) 63),
	end_at text CHECK (end_at OPERATOR(pg_catalog.~) '^(latest|[{].*[}]|[0-9].*)$'),
	only_partitions integer[],
	restore_expired boolean NOT NULL DEFAULT false,
	image_source text,
	target text,
	finished_at timestamptz,
	enabled boolean NOT NULL DEFAULT false,
	started_in text,
	cluster_id text,
	created_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);
COMMENT ON TABLE imgpipe.sources IS
'Kafka topics that images come from; see create_source(). Everybody with SELECT sees all sources, only members of a source''s owner change it.';
COMMENT ON COLUMN imgpipe.sources.owner IS 'The role whose rights the source has: its workers connect and insert as this role.';
COMMENT ON COLUMN imgpipe.sources.retention IS 'How long images of this source are kept; NULL: imgpipe.retention.';
COMMENT ON COLUMN imgpipe.sources.parallelism IS 'Ingest workers; each has every parallelism-th partition.';
COMMENT ON COLUMN imgpipe.sources.start_from IS 'Where the first start begins, or the next one after seek_source(): earliest, latest, a JSON object of partitions and offsets, or a time. Partitions that are added later begin at their beginning.';
COMMENT ON COLUMN imgpipe.sources.max_backlog IS 'Ingest rests while more tasks than this are queued; 0: it never does.';
COMMENT ON COLUMN imgpipe.sources.slice IS 'Of the partitions this source has those whose number leaves this remainder when divided by slices; the others are for other nodes.';
COMMENT ON COLUMN imgpipe.sources.format IS 'raw: the value of a message is the image file; json: it is a JSON object that has it in base64; chunked: it is the file, or a part of it where there are headers imgpipe-chunk-id and so on.';
COMMENT ON COLUMN imgpipe.sources.content_field IS 'The field of the JSON object that has the image file.';
COMMENT ON COLUMN imgpipe.sources.on_tombstone IS 'What becomes of a message without a value: a dead letter, nothing, or the deletion of the images of this source with its key, or their end as at their deadline.';
COMMENT ON COLUMN imgpipe.sources.chunk_timeout IS 'How long after its last chunk an image that is not complete becomes a dead letter; counts only while ingest is at the end of the partition.';
COMMENT ON COLUMN imgpipe.sources.end_at IS 'Of a replay: where it ends, as replay_source() was told. NULL: it is no replay and has no end.';
COMMENT ON COLUMN imgpipe.sources.only_partitions IS 'Of a replay: its partitions; NULL: all that were there when it began.';
COMMENT ON COLUMN imgpipe.sources.restore_expired IS 'Of a replay: also messages whose retention has passed become images.';
COMMENT ON COLUMN imgpipe.sources.image_source IS 'What images of this source have in their column source; NULL: its name.';
COMMENT ON COLUMN imgpipe.sources.target IS 'The table that its images go to; NULL: imgpipe.images.';
COMMENT ON COLUMN imgpipe.sources.finished_at IS 'When a replay had ingested its range.';
COMMENT ON COLUMN imgpipe.sources.consumer_group IS 'Where Kafka''s own tools find how far this source is; NULL: nothing is told to Kafka.';
COMMENT ON COLUMN imgpipe.sources.result_topic IS 'Topic of the same server that gets one message for each image when it is processed; NULL: none. See src/outbox/.';
COMMENT ON COLUMN imgpipe.sources.dead_letter_topic IS 'Topic of the same server that gets a copy of each dead letter; NULL: none.';
COMMENT ON COLUMN imgpipe.sources.notify_channel IS 'Channel of NOTIFY that tells listeners of each image that is processed; NULL: none.';
COMMENT ON COLUMN imgpipe.sources.cluster_id IS 'The Kafka cluster that the positions are of, as it names itself; the first start learns it.';
COMMENT ON COLUMN imgpipe.sources.batch_rows IS 'Most messages in one transaction.';
COMMENT ON COLUMN imgpipe.sources.batch_bytes IS 'Bytes after which a batch is full. A worker holds about three times as much: the batch, what is fetched ahead, and one answer of the broker.';
COMMENT ON COLUMN imgpipe.sources.linger_ms IS 'How long a message waits for others to share its transaction, in ms.';
COMMENT ON COLUMN imgpipe.sources.started_in IS 'The database that start_source() was called in, as imgpipe.database_identity() says: a copy of it, restored from a dump or a base backup, does not ingest until it is told to.';

CREATE TABLE imgpipe.ingest_positions (
	source_id integer NOT NULL,
	partition integer NOT NULL CHECK (partition OPERATOR(pg_catalog.>=) 0),
	next_offset bigint CHECK (next_offset OPERATOR(pg_catalog.>=) 0),
	high_watermark bigint,
	last_offset bigint,
	last_timestamp timestamptz,
	anchor_offset bigint,
	anchor_timestamp timestamptz,
	ingested_to bigint,
	end_offset bigint,
	messages bigint NOT NULL DEFAULT 0,
	bytes bigint NOT NULL DEFAULT 0,
	dead_letters bigint NOT NULL DEFAULT 0,
	updated_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	PRIMARY KEY (source_id, partition)
) WITH (fillfactor = 10, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0);
COMMENT ON TABLE imgpipe.ingest_positions IS
'Where each partition of each source goes on. Written by ingest workers in the transactions that insert the images; see seek_source().';
COMMENT ON COLUMN imgpipe.ingest_positions.next_offset IS 'Offset of the first message that is not ingested yet; NULL: the next start begins where start_from of the source says.';
COMMENT ON COLUMN imgpipe.ingest_positions.high_watermark IS 'End of the partition when the worker last wrote.';
COMMENT ON COLUMN imgpipe.ingest_positions.ingested_to IS 'After a seek back: messages below this offset were ingested before, and those whose retention has passed since do not come again; NULL: there are none.';
COMMENT ON COLUMN imgpipe.ingest_positions.end_offset IS 'Of a replay: the first offset behind its range.';
COMMENT ON COLUMN imgpipe.ingest_positions.messages IS 'Messages ever ingested from this partition; bytes and dead_letters likewise.';
COMMENT ON COLUMN imgpipe.ingest_positions.last_offset IS 'The last message that was ingested. It is read again at each start: where another one has its place, the topic was made anew.';
COMMENT ON COLUMN imgpipe.ingest_positions.anchor_offset IS 'Before it the topic has no message that is newer than anchor_timestamp, the time of one that was ingested: where it has one, it was made anew.';

-- In place of a foreign key: a dump restores tables in any order (pg_restore -j).
CREATE FUNCTION imgpipe.delete_positions_of_source() RETURNS trigger
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	DELETE FROM imgpipe.ingest_positions p WHERE p.source_id = OLD.source_id;
	RETURN NULL;
END
$$;
COMMENT ON FUNCTION imgpipe.delete_positions_of_source() IS
'Trigger of imgpipe.sources: the positions of a dropped source go with it.';
REVOKE EXECUTE ON FUNCTION imgpipe.delete_positions_of_source() FROM PUBLIC;

CREATE TRIGGER delete_positions AFTER DELETE ON imgpipe.sources
	FOR EACH ROW EXECUTE FUNCTION imgpipe.delete_positions_of_source();

-- For tombstones, and whoever looks for an image by its key.
CREATE INDEX ON imgpipe.images (source_key, source) WHERE source_key IS NOT NULL;

-- The tasks first: a worker that is about to finish one is waited for, and what it wrote is seen.
CREATE FUNCTION imgpipe.delete_images_of_key(source text, source_key text,
	source_partition integer DEFAULT NULL, before_offset bigint DEFAULT NULL) RETURNS bigint
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	gone CONSTANT uuid[] := ARRAY(SELECT i.image_id FROM imgpipe.images i
		WHERE i.source_key = delete_images_of_key.source_key AND i.source = delete_images_of_key.source AND i.image_id >= imgpipe.fence()
			AND (i.source_partition <> delete_images_of_key.source_partition OR i.source_offset < before_offset) IS NOT FALSE);
BEGIN
	IF cardinality(gone) > 0 THEN
		DELETE FROM imgpipe.tasks t WHERE t.image_id = ANY (gone);
		DELETE FROM imgpipe.outbox o WHERE o.image_id = ANY (gone);
		DELETE FROM imgpipe.renditions r WHERE r.image_id = ANY (gone);
		DELETE FROM imgpipe.results r WHERE r.image_id = ANY (gone);
		DELETE FROM imgpipe.dead_letters d WHERE d.image_id = ANY (gone);
		DELETE FROM imgpipe.images i WHERE i.image_id = ANY (gone);
	END IF;
	WITH gone AS (
		DELETE FROM imgpipe.chunked_images c USING imgpipe.sources s
			WHERE coalesce(s.image_source, s.name) = delete_images_of_key.source AND c.source_id = s.source_id
				AND c.source_key = delete_images_of_key.source_key
				AND (c.source_partition <> delete_images_of_key.source_partition OR c.first_offset < before_offset) IS NOT FALSE
			RETURNING c.image_id)
	DELETE FROM imgpipe.chunks k USING gone WHERE k.image_id = gone.image_id;
	RETURN cardinality(gone);
END
$$;
COMMENT ON FUNCTION imgpipe.delete_images_of_key(text, text, integer, bigint) IS
'What a tombstone does where the source says so: deletes the images of a source with that key, all that was made of them, and chunks of such that are not complete; of the tombstone''s partition only those from before its offset, where that is not NULL. Returns how many images. Only the owner may, unless granted.';
REVOKE EXECUTE ON FUNCTION imgpipe.delete_images_of_key(text, text, integer, bigint) FROM PUBLIC;

SELECT pg_catalog.pg_extension_config_dump('imgpipe.sources', '');
SELECT pg_catalog.pg_extension_config_dump('imgpipe.sources_source_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('imgpipe.ingest_positions', '');

ALTER TABLE imgpipe.sources ENABLE ROW LEVEL SECURITY;
CREATE POLICY everyone_sees ON imgpipe.sources FOR SELECT USING (true);
CREATE POLICY owner_changes ON imgpipe.sources
	USING (pg_catalog.pg_has_role(owner::pg_catalog.oid, 'USAGE'));

ALTER TABLE imgpipe.ingest_positions ENABLE ROW LEVEL SECURITY;
CREATE POLICY everyone_sees ON imgpipe.ingest_positions FOR SELECT USING (true);
CREATE POLICY owner_changes ON imgpipe.ingest_positions
	USING (EXISTS (SELECT FROM imgpipe.sources s
		WHERE s.source_id OPERATOR(pg_catalog.=) ingest_positions.source_id
			AND pg_catalog.pg_has_role(s.owner::pg_catalog.oid, 'USAGE')));

/*
 * Images in chunks: what is larger than a Kafka message may be comes as
 * several, which share a key and headers that say how they belong together.
 *
 * A chunk is written in the transaction that takes its position.  What is
 * complete becomes an image in a transaction of its own, as does a dead letter
 * of what is not complete in time; the row of chunked_images says which, so that
 * it is one of them and once, and stays until its deadline to know a repeated
 * chunk.  Late ones still make an image of a dead letter.
 */

CREATE TABLE imgpipe.chunked_images (
	image_id uuid NOT NULL,
	source_id integer NOT NULL,
	source_partition integer NOT NULL,
	chunk_id text NOT NULL,
	chunk_count integer NOT NULL,
	chunks integer NOT NULL DEFAULT 0,
	bytes bigint NOT NULL DEFAULT 0,
	image_bytes bigint,
	image_sha256 bytea,
	first_offset bigint NOT NULL,
	last_offset bigint NOT NULL,
	source_key text,
	source_timestamp timestamptz,
	headers jsonb,
	batch_id text,
	uploaded_by text NOT NULL,
	received_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	due_at timestamptz,
	fault text,
	outcome text CHECK (outcome OPERATOR(pg_catalog.=) ANY ('{image,dead_letter,erased}')),
	PRIMARY KEY (image_id)
) PARTITION BY RANGE (image_id);
CREATE INDEX ON imgpipe.chunked_images (source_id, source_partition, chunk_id);
CREATE INDEX ON imgpipe.chunked_images (source_id, due_at) WHERE due_at IS NOT NULL;
COMMENT ON TABLE imgpipe.chunked_images IS
'Images that came in chunks, or are coming: one row each, from its first chunk to its deadline, which the first chunk sets. Key, headers and timestamp are those of the first chunk to arrive.';
COMMENT ON COLUMN imgpipe.chunked_images.chunk_id IS 'Header imgpipe-chunk-id.';
COMMENT ON COLUMN imgpipe.chunked_images.chunks IS 'How many of chunk_count different ones have come.';
COMMENT ON COLUMN imgpipe.chunked_images.bytes IS 'Of the chunks that have come.';
COMMENT ON COLUMN imgpipe.chunked_images.image_bytes IS 'Of the whole image, where header imgpipe-chunk-size says.';
COMMENT ON COLUMN imgpipe.chunked_images.due_at IS 'When something is to be done: at once (-infinity) where it is complete or at fault; else it is given up where no chunk has come until then. NULL: it has an outcome.';
COMMENT ON COLUMN imgpipe.chunked_images.fault IS 'Why no more chunks of it are taken.';
COMMENT ON COLUMN imgpipe.chunked_images.outcome IS 'image or dead_letter, of the same image_id; erased: its parts were erased on request and none is kept.';

CREATE TABLE imgpipe.chunks (
	image_id uuid NOT NULL,
	chunk_index integer NOT NULL CHECK (chunk_index OPERATOR(pg_catalog.>=) 0),
	content bytea NOT NULL,
	PRIMARY KEY (image_id, chunk_index)
) PARTITION BY RANGE (image_id);
ALTER TABLE imgpipe.chunks ALTER COLUMN content SET STORAGE external;
COMMENT ON TABLE imgpipe.chunks IS
'Chunks of images that are not complete. Deleted when the image is made, and dropped at its deadline in any case.';

ALTER TABLE imgpipe.chunked_images
	ALTER chunk_id SET STATISTICS 0, ALTER source_key SET STATISTICS 0, ALTER headers SET STATISTICS 0,
	ALTER batch_id SET STATISTICS 0, ALTER uploaded_by SET STATISTICS 0, ALTER image_sha256 SET STATISTICS 0;
ALTER TABLE imgpipe.chunks ALTER content SET STATISTICS 0;

ALTER TABLE imgpipe.chunked_images ENABLE ROW LEVEL SECURITY;
CREATE POLICY granted ON imgpipe.chunked_images USING (true);
CREATE POLICY fence ON imgpipe.chunked_images AS RESTRICTIVE USING (image_id OPERATOR(pg_catalog.>=) imgpipe.fence());
CREATE POLICY horizon ON imgpipe.chunked_images AS RESTRICTIVE USING (true) WITH CHECK (image_id OPERATOR(pg_catalog.<) imgpipe.horizon());

ALTER TABLE imgpipe.chunks ENABLE ROW LEVEL SECURITY;
CREATE POLICY granted ON imgpipe.chunks USING (true);
CREATE POLICY fence ON imgpipe.chunks AS RESTRICTIVE USING (image_id OPERATOR(pg_catalog.>=) imgpipe.fence());
CREATE POLICY horizon ON imgpipe.chunks AS RESTRICTIVE USING (true) WITH CHECK (image_id OPERATOR(pg_catalog.<) imgpipe.horizon());

CREATE FUNCTION imgpipe.chunk_fault(chunk_count integer, image_bytes bigint) RETURNS text
	LANGUAGE sql STABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT CASE WHEN chunk_count > 10000 THEN format('It has %s chunks; the limit is 10000.', chunk_count)
		WHEN image_bytes > pg_size_bytes(imgpipe.setting('imgpipe.max_bytes'))
			THEN format('It has %s bytes or more; the limit is imgpipe.max_bytes, %s.', image_bytes, imgpipe.setting('imgpipe.max_bytes')) END
$$;
COMMENT ON FUNCTION imgpipe.chunk_fault(integer, bigint) IS
'Why an image of so many chunks and bytes is not taken; NULL where it is.';

/* Called for every chunk of a source in its order, with the position of its partition locked. */
CREATE FUNCTION imgpipe.store_chunk(source_id integer, retention interval, chunk_timeout interval, source_partition integer, message_offset bigint,
	chunk_id text, chunk_index integer, chunk_count integer, image_bytes bigint, image_sha256 text, source_key text,
	source_timestamp timestamptz, headers jsonb, batch_id text, uploaded_by text, content bytea, erased boolean) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
	image imgpipe.chunked_images;
	fault text;
BEGIN
	SELECT * INTO image FROM imgpipe.chunked_images c
		WHERE c.source_id = source_id AND c.source_partition = source_partition AND c.chunk_id = chunk_id AND c.image_id >= imgpipe.fence()
		ORDER BY c.received_at DESC LIMIT 1;
	-- One that has its outcome and is read again, after a seek back, is another image.
	IF image.image_id IS NULL OR (image.outcome IS NOT NULL AND message_offset <= image.last_offset) THEN
		INSERT INTO imgpipe.chunked_images AS c (image_id, source_id, source_partition, chunk_id, chunk_count, image_bytes, image_sha256,
				first_offset, last_offset, source_key, source_timestamp, headers, batch_id, uploaded_by)
			VALUES (CASE WHEN retention IS NULL THEN imgpipe.new_image_id() ELSE imgpipe.new_image_id(clock_timestamp() + retention) END,
				source_id, source_partition, chunk_id, chunk_count, image_bytes, decode(image_sha256, 'hex'), message_offset, message_offset,
				CASE WHEN NOT erased THEN source_key END, source_timestamp, CASE WHEN NOT erased THEN headers - 'imgpipe-chunk-index' END,
				CASE WHEN NOT erased THEN batch_id END, CASE WHEN erased THEN '' ELSE uploaded_by END)
			RETURNING * INTO image;
	ELSIF image.outcome IS DISTINCT FROM 'erased'
		AND (chunk_count, coalesce(image_bytes, image.image_bytes), coalesce(decode(image_sha256, 'hex'), image.image_sha256), source_key)
			IS DISTINCT FROM (image.chunk_count, image.image_bytes, image.image_sha256, image.source_key) THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
			MESSAGE = 'chunk does not belong to the others of its image',
			DETAIL = format('Count, size, SHA-256 and key are (%s, %s, %s, %s), and (%s, %s, %s, %s) in the first chunk that came of "%s".',
				chunk_count, image_bytes, image_sha256, source_key,
				image.chunk_count, image.image_bytes, encode(image.image_sha256, 'hex'), image.source_key, chunk_id);
	END IF;

	fault := coalesce(image.fault, imgpipe.chunk_fault(image.chunk_count, greatest(image.image_bytes, image.bytes + length(content))));
	IF erased AND image.outcome IS NULL THEN
		image.outcome := 'erased';
		image.due_at := NULL;
		DELETE FROM imgpipe.chunks c WHERE c.image_id = image.image_id;
	ELSIF image.outcome = ANY ('{image,erased}') OR image.chunks = image.chunk_count OR image.fault IS NOT NULL THEN
		NULL; -- repeated, or of no use
	ELSIF fault IS NOT NULL THEN
		image.fault := fault;
		image.due_at := CASE WHEN image.outcome IS NULL THEN timestamptz '-infinity' END;
		DELETE FROM imgpipe.chunks c WHERE c.image_id = image.image_id;
	ELSE
		INSERT INTO imgpipe.chunks AS c (image_id, chunk_index, content) VALUES (image.image_id, chunk_index, content)
			ON CONFLICT ON CONSTRAINT chunks_pkey DO NOTHING;
		IF FOUND THEN
			image.chunks := image.chunks + 1;
			image.bytes := image.bytes + length(content);
			image.due_at := CASE WHEN image.chunks = image.chunk_count THEN timestamptz '-infinity'
				WHEN image.outcome IS NULL THEN clock_timestamp() + chunk_timeout END;
		END IF;
	END IF;
	UPDATE imgpipe.chunked_images c SET chunks = image.chunks, bytes = image.bytes, last_offset = greatest(image.last_offset, message_offset),
			due_at = image.due_at, fault = image.fault, outcome = image.outcome
		WHERE c.image_id = image.image_id;
END
$$;
COMMENT ON FUNCTION imgpipe.store_chunk(integer, interval, interval, integer, bigint, text, integer, integer, bigint, text, text, timestamptz, jsonb, text, text, bytea, boolean) IS
'Keeps a chunk until its image is complete. Repeated ones are left out, and of what is too large nothing is kept. Raises 22023 for a chunk that contradicts the first one of its image. Only the owner may, unless granted.';
REVOKE EXECUTE ON FUNCTION imgpipe.store_chunk(integer, interval, interval, integer, bigint, text, integer, integer, bigint, text, text, timestamptz, jsonb, text, text, bytea, boolean) FROM PUBLIC;

CREATE FUNCTION imgpipe.missing_chunks(image_id uuid) RETURNS text
	LANGUAGE sql STABLE STRICT PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT string_agg(CASE WHEN r.first = r.last THEN r.first::text ELSE format('%s-%s', r.first, r.last) END, ', ' ORDER BY r.first)
			|| CASE WHEN max(r.ranges) > 20 THEN ', ...' ELSE '' END
		FROM (
			SELECT min(m.index) AS first, max(m.index) AS last, count(*) OVER () AS ranges FROM (
				SELECT i AS index, i - row_number() OVER (ORDER BY i) AS range
					FROM imgpipe.chunked_images c CROSS JOIN LATERAL generate_series(0, c.chunk_count - 1) i
					WHERE c.image_id = missing_chunks.image_id
						AND NOT EXISTS (SELECT FROM imgpipe.chunks k WHERE k.image_id = c.image_id AND k.chunk_index = i)) m
				GROUP BY m.range ORDER BY 1 LIMIT 20) r
$$;
COMMENT ON FUNCTION imgpipe.missing_chunks(uuid) IS
'Which chunks of an image have not come, such as "1, 3-5"; at most 20 ranges. NULL where none is missing. The caller needs SELECT on chunks and chunked_images.';

CREATE FUNCTION imgpipe.check_chunks(letter imgpipe.dead_letters) RETURNS void
	LANGUAGE plpgsql STABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	image imgpipe.chunked_images;
BEGIN
	SELECT * INTO image FROM imgpipe.chunked_images c WHERE c.image_id = letter.image_id;
	IF NOT FOUND OR image.fault IS NOT NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
			MESSAGE = format('dead letter %s is of an image in chunks of which there is not enough', letter.dead_letter_id),
			DETAIL = coalesce(image.fault, format('It is one chunk of "%s".', letter.headers ->> 'imgpipe-chunk-id')),
			HINT = format('Send the image again; SELECT imgpipe.discard_dead_letter(%s);', letter.dead_letter_id);
	END IF;
	IF image.chunks < image.chunk_count THEN
		RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
			MESSAGE = format('the image of dead letter %s is not complete', letter.dead_letter_id),
			DETAIL = format('Of %s chunks of "%s" %s are missing: %s.', image.chunk_count, image.chunk_id, image.chunk_count - image.chunks,
				imgpipe.missing_chunks(image.image_id)),
			HINT = 'Send the missing ones, or all of them: it becomes an image by itself.';
	END IF;
	IF length(letter.value) <> image.image_bytes OR sha256(letter.value) <> image.image_sha256 THEN
		RAISE EXCEPTION USING ERRCODE = 'data_exception',
			MESSAGE = 'image is not what its chunks say',
			DETAIL = format('It has %s bytes with SHA-256 %s; they say %s and %s.', length(letter.value), encode(sha256(letter.value), 'hex'),
				coalesce(image.image_bytes::text, 'nothing'), coalesce(encode(image.image_sha256, 'hex'), 'nothing'));
	END IF;
END
$$;
COMMENT ON FUNCTION imgpipe.check_chunks(imgpipe.dead_letters) IS
'Whether the value of a dead letter that came in chunks is the whole image. Raises 55000 where chunks are missing, 22000 where it has not the size or SHA-256 that they say. The caller needs SELECT on chunks and chunked_images.';

CREATE FUNCTION imgpipe.settle_chunked_image(image_id uuid, outcome text) RETURNS boolean
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
	image imgpipe.chunked_images;
BEGIN
	SELECT * INTO image FROM imgpipe.chunked_images c WHERE c.image_id = image_id;
	-- First, as every batch does: whoever erases has locked it.
	UPDATE imgpipe.ingest_positions p SET dead_letters = p.dead_letters + (outcome = 'dead_letter')::integer
		WHERE p.source_id = image.source_id AND p.partition = image.source_partition;
	UPDATE imgpipe.chunked_images c SET due_at = NULL, outcome = outcome
		WHERE c.image_id = image_id AND c.due_at IS NOT NULL
		RETURNING * INTO image;
	IF NOT FOUND THEN
		RETURN false;
	END IF;
	-- What was given up and came after all has its dead letter no more.
	DELETE FROM imgpipe.dead_letters d WHERE d.image_id = image_id AND d.stage = 'ingest';
	-- What is not complete is kept for that.
	DELETE FROM imgpipe.chunks c WHERE c.image_id = image_id AND image.chunks = image.chunk_count;
	RETURN true;
END
$$;
COMMENT ON FUNCTION imgpipe.settle_chunked_image(uuid, text) IS
'Gives a chunked image its outcome, in the transaction that inserts the image or the dead letter; false where it has one or is not there any more. Only the owner may, unless granted.';
REVOKE EXECUTE ON FUNCTION imgpipe.settle_chunked_image(uuid, text) FROM PUBLIC;

/* What users do with sources. */

CREATE FUNCTION imgpipe.database_identity() RETURNS text
	AS 'MODULE_PATHNAME', 'imgpipe_database_identity'
	LANGUAGE C STABLE PARALLEL SAFE;
COMMENT ON FUNCTION imgpipe.database_identity() IS
'System identifier of the cluster, oid of the database, and, in a server that was restored from a base backup, a name of its own: the same after a restart and on a promoted standby, another where a dump or a base backup was restored.';

CREATE FUNCTION imgpipe.check_source_owner(server text, owner regrole) RETURNS void
	LANGUAGE plpgsql STABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	wrapper name;
BEGIN
	SELECT w.fdwname INTO wrapper
		FROM pg_foreign_server s JOIN pg_foreign_data_wrapper w ON w.oid = s.srvfdw
		WHERE s.srvname = server;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'undefined_object',
			MESSAGE = format('server "%s" does not exist', server),
			HINT = format('CREATE SERVER %I FOREIGN DATA WRAPPER imgpipe_kafka OPTIONS (bootstrap_servers ''host:port'');', server);
	END IF;
	IF wrapper <> 'imgpipe_kafka' THEN
		RAISE EXCEPTION USING ERRCODE = 'wrong_object_type',
			MESSAGE = format('server "%s" is not a Kafka server', server),
			DETAIL = format('It is of foreign-data wrapper %s.', wrapper),
			HINT = 'A source needs a server of foreign-data wrapper imgpipe_kafka.';
	END IF;
	IF NOT has_server_privilege(owner::oid, server, 'USAGE') THEN
		RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege',
			MESSAGE = format('role %s may not use server "%s"', owner, server),
			HINT = format('GRANT USAGE ON FOREIGN SERVER %I TO %s;', server, owner);
	END IF;
	IF NOT has_schema_privilege(owner::oid, 'imgpipe', 'USAGE')
		OR NOT has_table_privilege(owner::oid, 'imgpipe.images', 'INSERT')
		OR NOT has_table_privilege(owner::oid, 'imgpipe.dead_letters', 'INSERT') THEN
		RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege',
			MESSAGE = format('role %s may not insert images', owner),
			DETAIL = 'A source inserts images and dead letters with the rights of its owner.',
			HINT = format('GRANT USAGE ON SCHEMA imgpipe TO %s; GRANT INSERT ON imgpipe.images, imgpipe.dead_letters TO %1$s;', owner);
	END IF;
	-- From PostgreSQL 17 on, a background worker may run as any role.
	IF current_setting('server_version_num')::integer < 170000
		AND NOT (SELECT r.rolcanlogin FROM pg_roles r WHERE r.oid = owner) THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_authorization_specification',
			MESSAGE = format('role %s cannot own a source', owner),
			DETAIL = 'Before PostgreSQL 17 a background worker runs only as a role with LOGIN.',
			HINT = format('ALTER ROLE %s LOGIN; (it needs no password), or create the source as another role.', owner);
	END IF;
	IF NOT has_database_privilege(owner::oid, current_database(), 'CONNECT') THEN
		RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege',
			MESSAGE = format('role %s may not connect to database "%s"', owner, current_database()),
			DETAIL = 'A source''s workers connect as its owner.',
			HINT = format('GRANT CONNECT ON DATABASE %I TO %s;', current_database(), owner);
	END IF;
END
$$;
COMMENT ON FUNCTION imgpipe.check_source_owner(text, regrole) IS
'Raises 42704, 42809, 42501 or 28000, with the statement that helps, where a worker could not ingest from that server as that role.';

CREATE FUNCTION imgpipe.own_source(name text) RETURNS imgpipe.sources
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	source imgpipe.sources;
BEGIN
	SELECT * INTO source FROM imgpipe.sources s WHERE s.name = own_source.name;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'undefined_object',
			MESSAGE = format('source "%s" does not exist', name),
			HINT = 'SELECT name FROM imgpipe.sources; shows those that do.';
	END IF;
	IF NOT pg_has_role(source.owner::oid, 'USAGE') THEN
		RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege',
			MESSAGE = format('must be owner of source "%s"', name),
			DETAIL = format('It belongs to %s.', source.owner);
	END IF;
	SELECT * INTO source FROM imgpipe.sources s WHERE s.name = own_source.name FOR NO KEY UPDATE;
	RETURN source;
END
$$;
COMMENT ON FUNCTION imgpipe.own_source(text) IS
'The source of that name, locked until the end of the transaction. Raises 42704 where there is none, 42501 where it belongs to a role that the current one is not a member of.';

CREATE FUNCTION imgpipe.check_start_from(start_from text) RETURNS text
	LANGUAGE plpgsql STABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
	SET timezone = 'UTC'
	SET datestyle = 'ISO'
AS $$
DECLARE
	offsets jsonb;
	reason text;
BEGIN
	IF start_from IN ('earliest', 'latest') THEN
		RETURN start_from;
	END IF;
	BEGIN
		IF start_from ~ '^\s*\{' THEN
			offsets := start_from::jsonb;
			SELECT format('%s is at %s.', e.key, e.value) INTO reason FROM jsonb_each(offsets) e
				WHERE e.key !~ '^(0|[1-9][0-9]{0,8})$' OR e.value::text !~ '^[0-9]{1,18}$' LIMIT 1;
			IF reason IS NULL AND offsets <> '{}' THEN
				RETURN offsets::text;
			END IF;
		ELSIF start_from::timestamptz BETWEEN '1970-01-01' AND '9999-01-01' THEN
			RETURN start_from::timestamptz::text;
		END IF;
	EXCEPTION WHEN data_exception THEN
		reason := NULL;
	END;
	RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
		MESSAGE = 'not a place to start from',
		DETAIL = coalesce(reason, format('It is %s.', coalesce('"' || start_from || '"', 'NULL'))),
		HINT = 'Give earliest, latest, offsets by partition such as {"0": 1500, "1": 1200}, or a time such as 2026-11-20 18:00+00.';
END
$$;
COMMENT ON FUNCTION imgpipe.check_start_from(text) IS
'What create_source() and seek_source() take as a place in a topic, in the form in which sources.start_from has it. Raises 22023 for anything else.';

CREATE FUNCTION imgpipe.check_source_options(retention interval, parallelism integer, batch_rows integer, batch_bytes integer,
	linger_ms integer, max_backlog integer, slice integer, slices integer, consumer_group text, format text, content_field text,
	on_tombstone text, chunk_timeout interval) RETURNS void
	LANGUAGE plpgsql STABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	bounded record;
BEGIN
	IF retention < interval '1 minute' OR retention > interval '10 years' THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
			MESSAGE = 'retention must be between 1 minute and 10 years',
			DETAIL = format('It is %s.', retention);
	END IF;
	IF retention > imgpipe.longest_retention() THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
			MESSAGE = 'retention is longer than images may be kept',
			DETAIL = format('It is %s; the longest is %s.', retention, imgpipe.longest_retention()),
			HINT = 'Choose a shorter one, or have a superuser raise imgpipe.max_retention.';
	END IF;
	FOR bounded IN SELECT * FROM (VALUES ('parallelism', parallelism, 1, 64), ('batch_rows', batch_rows, 1, 100000),
		('batch_bytes', batch_bytes, 1048576, 1073741824), ('linger_ms', linger_ms, 0, 60000),
		('max_backlog', max_backlog, 0, 2147483647), ('slices', slices, 1, 1000), ('slice', slice, 0, slices - 1)) v (name, value, minimum, maximum)
	LOOP
		IF (bounded.value BETWEEN bounded.minimum AND bounded.maximum) IS NOT TRUE THEN
			RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
				MESSAGE = format('%s must be between %s and %s', bounded.name, bounded.minimum, bounded.maximum),
				DETAIL = format('It is %s.', coalesce(bounded.value::text, 'NULL'));
		END IF;
	END LOOP;
	IF consumer_group !~ '^[!-~]{1,249}$' THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_name',
			MESSAGE = format('consumer group name "%s" is not valid', consumer_group),
			HINT = 'Give 1 to 249 characters of ASCII without spaces.';
	END IF;
	IF (format = ANY ('{raw,json,chunked}')) IS NOT TRUE OR (content_field <> '') IS NOT TRUE THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
			MESSAGE = 'format must be raw, chunked, or json with a content_field',
			DETAIL = pg_catalog.format('They are %s and %s.', coalesce('"' || format || '"', 'NULL'), coalesce('"' || content_field || '"', 'NULL'));
	END IF;
	IF (on_tombstone = ANY ('{dead_letter,ignore,delete,expire}')) IS NOT TRUE THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
			MESSAGE = 'on_tombstone must be dead_letter, ignore, delete or expire',
			DETAIL = pg_catalog.format('It is %s.', coalesce('"' || on_tombstone || '"', 'NULL'));
	END IF;
	IF (chunk_timeout BETWEEN interval '1 second' AND interval '7 days') IS NOT TRUE
		OR (format = 'chunked' AND chunk_timeout >= coalesce(retention, imgpipe.setting('imgpipe.retention')::interval)) THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
			MESSAGE = 'chunk_timeout must be between 1 second and 7 days, and shorter than the retention',
			DETAIL = pg_catalog.format('It is %s; the retention is %s.', coalesce(chunk_timeout::text, 'NULL'),
				coalesce(retention, imgpipe.setting('imgpipe.retention')::interval)),
			HINT = 'At its deadline an image in chunks is purged, complete or not.';
	END IF;
END
$$;
COMMENT ON FUNCTION imgpipe.check_source_options(interval, integer, integer, integer, integer, integer, integer, integer, text, text, text, text, interval) IS
'Raises 22023 or 42602 where create_source() or alter_source() cannot take an option.';

CREATE FUNCTION imgpipe.check_topic_name(topic text) RETURNS void
	LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	IF (topic !~ '^[A-Za-z0-9._-]{1,249}$') IS NOT FALSE THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_name',
			MESSAGE = format('topic name %s is not valid', coalesce('"' || topic || '"', 'NULL')),
			HINT = 'Kafka''s topic names have 1 to 249 letters of ASCII, digits, ".", "_" and "-".';
	END IF;
END
$$;
COMMENT ON FUNCTION imgpipe.check_topic_name(text) IS
'Raises 42602 where that is no name of a Kafka topic.';

CREATE FUNCTION imgpipe.check_result_options(topic text, result_topic text, dead_letter_topic text, notify_channel text) RETURNS void
	LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	name text;
BEGIN
	FOREACH name IN ARRAY array_remove(ARRAY[result_topic, dead_letter_topic], NULL) LOOP
		PERFORM imgpipe.check_topic_name(name);
		IF name = topic THEN
			RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
				MESSAGE = 'a source cannot send to its own topic',
				DETAIL = format('It is "%s". What is sent there would be ingested, and give messages again.', topic),
				HINT = 'Name another topic in result_topic and dead_letter_topic.';
		END IF;
	END LOOP;
	IF octet_length(notify_channel) NOT BETWEEN 1 AND 63 THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_name',
			MESSAGE = format('channel name "%s" is not valid', notify_channel),
			HINT = 'Give 1 to 63 bytes.';
	END IF;
END
$$;
COMMENT ON FUNCTION imgpipe.check_result_options(text, text, text, text) IS
'Raises 42602 or 22023 where a source cannot send its results there.';

CREATE FUNCTION imgpipe.create_source(name text, server text, topic text, retention interval DEFAULT NULL,
	parallelism integer DEFAULT 1, start_from text DEFAULT 'earliest', batch_rows integer DEFAULT 500,
	batch_bytes integer DEFAULT 16777216, linger_ms integer DEFAULT 20, max_backlog integer DEFAULT 0,
	slice integer DEFAULT 0, slices integer DEFAULT 1, consumer_group text DEFAULT NULL,
	format text DEFAULT 'raw', content_field text DEFAULT 'content', on_tombstone text DEFAULT 'dead_letter',
	result_topic text DEFAULT NULL, dead_letter_topic text DEFAULT NULL, notify_channel text DEFAULT NULL,
	chunk_timeout interval DEFAULT '1 hour') RETURNS integer
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	new_id integer;
BEGIN
	IF name = 'sql' OR (name !~ '^[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}$') IS NOT FALSE THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_name',
			MESSAGE = format('source name %s is not valid', coalesce('"' || name || '"', 'NULL')),
			HINT = 'A name has 1 to 63 letters of ASCII, digits, "_", "." and "-", and begins with none of the last two; "sql" is for images that are inserted.';
	END IF;
	PERFORM imgpipe.check_topic_name(topic);
	PERFORM imgpipe.check_result_options(topic, result_topic, dead_letter_topic, notify_channel);
	PERFORM imgpipe.check_source_options(retention, parallelism, batch_rows, batch_bytes, linger_ms, max_backlog, slice, slices, consumer_group,
		format, content_field, on_tombstone, chunk_timeout);
	start_from := imgpipe.check_start_from(start_from);
	PERFORM imgpipe.check_source_owner(server, current_user::regrole);
	BEGIN
		INSERT INTO imgpipe.sources AS s (name, server, topic, retention, parallelism, start_from, batch_rows, batch_bytes, linger_ms,
				max_backlog, slice, slices, consumer_group, format, content_field, on_tombstone, result_topic, dead_letter_topic, notify_channel,
				chunk_timeout)
			VALUES (name, server, topic, retention, parallelism, start_from, batch_rows, batch_bytes, linger_ms,
				max_backlog, slice, slices, consumer_group, format, content_field, on_tombstone, result_topic, dead_letter_topic, notify_channel,
				chunk_timeout)
			RETURNING s.source_id INTO new_id;
	EXCEPTION WHEN unique_violation THEN
		RAISE EXCEPTION USING ERRCODE = 'duplicate_object',
			MESSAGE = format('source "%s" already exists', name),
			HINT = 'Choose another name, or drop that one with imgpipe.drop_source().';
	END;
	-- Its retention may be the longest: partitions for it are made now.
	PERFORM imgpipe.wake_controller();
	PERFORM imgpipe.require_workers(format('source "%s" cannot be started', name), or_wait => true);
	RETURN new_id;
END
$$;
COMMENT ON FUNCTION imgpipe.create_source(text, text, text, interval, integer, text, integer, integer, integer, integer, integer, integer, text, text, text, text, text, text, text, interval) IS
'Makes a source of images, one Kafka topic of a server of imgpipe_kafka, and returns its source_id; a topic may have several sources. It is stopped; start_source() starts it. The value of each message is an image file; key, headers, partition, offset and timestamp are kept with it, and the headers batch_id and uploaded_by go to the columns of that name. What is no image goes to imgpipe.dead_letters, the rest goes on. retention: how long its images are kept (1 minute to imgpipe.max_retention), NULL for imgpipe.retention. parallelism: workers (1 to 64), each with its share of the partitions. start_from, for the first start: earliest, latest, offsets by partition ({"0": 1500, "1": 1200}; others begin at their beginning) or a time (the first message of each partition that is not older). batch_rows (1 to 100000), batch_bytes (1 MB to 1 GB) and linger_ms (0 to 60000) bound one transaction. max_backlog: ingest rests, in state waiting, while more tasks than this are queued in the database, Kafka being the buffer; 0 for never. slice and slices: of the partitions only those whose number modulo slices (1 to 1000) is slice, so that several databases share a topic. consumer_group: under this name the positions are told to Kafka after they are committed here, for tools that watch groups; imgpipe itself never reads them; NULL for not at all. format: raw, or json, where the value is a JSON object that has the file in base64 in the field content_field; its other fields join the headers, and batch_id and uploaded_by among them count where there is no such header; or chunked, where a message with header imgpipe-chunk-id is a part of an image (imgpipe-chunk-index from 0 on, of imgpipe-chunk-count, at most 10000, and if they like imgpipe-chunk-size and imgpipe-chunk-sha256 of the whole; all parts with the same key), and one without is an image. chunk_timeout: an image that has waited so long (1 second to 7 days, less than the retention) for its next chunk becomes a dead letter. on_tombstone: what a message without a value does: dead_letter, ignore, delete, which deletes the images that came from this source with its key before, and all that was made of them, or expire, which ends them as their deadline would: what a legal hold is on is copied, the daily volume keeps them, the purge ledger has an entry, and they do not come back by being read again. result_topic: a topic of the same server that gets one message for each image when all its tasks are done, or for the message that did not become one; see image_result() for what it says. dead_letter_topic: one that gets a copy of each dead letter. notify_channel: a channel (1 to 63 bytes) of NOTIFY that hears {"image_id", "source", "status"} of each. Images that are inserted by SQL give no message. The source belongs to the current role, whose rights its workers have. The role needs USAGE on the server and on schema imgpipe, INSERT on images and dead_letters, SELECT, INSERT, UPDATE and DELETE on sources, and before PostgreSQL 17 LOGIN. Raises 42602 for a name, 22023 for a parameter, 42704 for a server that does not exist, 42809 for a server of another wrapper, 42501 and 28000 for missing rights, 42710 for a name that is taken.';

CREATE FUNCTION imgpipe.alter_source(name text, retention interval DEFAULT NULL, parallelism integer DEFAULT NULL,
	batch_rows integer DEFAULT NULL, batch_bytes integer DEFAULT NULL, linger_ms integer DEFAULT NULL, max_backlog integer DEFAULT NULL,
	slice integer DEFAULT NULL, slices integer DEFAULT NULL, consumer_group text DEFAULT NULL,
	result_topic text DEFAULT NULL, dead_letter_topic text DEFAULT NULL, notify_channel text DEFAULT NULL, format text DEFAULT NULL,
	content_field text DEFAULT NULL, on_tombstone text DEFAULT NULL, chunk_timeout interval DEFAULT NULL) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	source imgpipe.sources := imgpipe.own_source(name);
	changed imgpipe.sources := source;
BEGIN
	changed.retention := CASE WHEN retention = interval '0' THEN NULL ELSE coalesce(retention, source.retention) END;
	changed.parallelism := coalesce(parallelism, source.parallelism);
	changed.batch_rows := coalesce(batch_rows, source.batch_rows);
	changed.batch_bytes := coalesce(batch_bytes, source.batch_bytes);
	changed.linger_ms := coalesce(linger_ms, source.linger_ms);
	changed.max_backlog := coalesce(max_backlog, source.max_backlog);
	changed.slice := coalesce(slice, source.slice);
	changed.slices := coalesce(slices, source.slices);
	changed.consumer_group := nullif(coalesce(consumer_group, source.consumer_group), '');
	changed.result_topic := nullif(coalesce(result_topic, source.result_topic), '');
	changed.dead_letter_topic := nullif(coalesce(dead_letter_topic, source.dead_letter_topic), '');
	changed.notify_channel := nullif(coalesce(notify_channel, source.notify_channel), '');
	PERFORM imgpipe.check_result_options(source.topic, changed.result_topic, changed.dead_letter_topic, changed.notify_channel);
	changed.format := coalesce(format, source.format);
	changed.content_field := coalesce(content_field, source.content_field);
	changed.on_tombstone := coalesce(on_tombstone, source.on_tombstone);
	changed.chunk_timeout := coalesce(chunk_timeout, source.chunk_timeout);
	PERFORM imgpipe.check_source_options(changed.retention, changed.parallelism, changed.batch_rows, changed.batch_bytes,
		changed.linger_ms, changed.max_backlog, changed.slice, changed.slices, changed.consumer_group,
		changed.format, changed.content_field, changed.on_tombstone, changed.chunk_timeout);
	IF (changed.slice, changed.slices) <> (source.slice, source.slices) AND source.enabled THEN
		RAISE EXCEPTION USING ERRCODE = 'object_in_use',
			MESSAGE = format('source "%s" is started', name),
			DETAIL = 'Which partitions are ingested here can change only while nothing is.',
			HINT = format('SELECT imgpipe.stop_source(%L); on all nodes that share the topic, and see imgpipe.seek_source().', name);
	END IF;
	UPDATE imgpipe.sources s SET retention = changed.retention, parallelism = changed.parallelism, batch_rows = changed.batch_rows,
			batch_bytes = changed.batch_bytes, linger_ms = changed.linger_ms, max_backlog = changed.max_backlog,
			slice = changed.slice, slices = changed.slices, consumer_group = changed.consumer_group,
			result_topic = changed.result_topic, dead_letter_topic = changed.dead_letter_topic, notify_channel = changed.notify_channel,
			format = changed.format, content_field = changed.content_field, on_tombstone = changed.on_tombstone,
			chunk_timeout = changed.chunk_timeout
		WHERE s.source_id = source.source_id;
	PERFORM imgpipe.wake_controller();
END
$$;
COMMENT ON FUNCTION imgpipe.alter_source(text, interval, integer, integer, integer, integer, integer, integer, integer, text, text, text, text, text, text, text, interval) IS
'Changes options of a source, which are those of create_source(); NULL keeps one as it is, a retention of 0 is imgpipe.retention again, a max_backlog of 0 no limit, and an empty consumer_group, result_topic, dead_letter_topic or notify_channel none. Messages of images that are there already go where the source said when they came. A source that is started takes the change within about 10 seconds, between two batches: nothing is lost or doubled, and a format holds for the messages that are not ingested yet. Images that are there keep their deadlines. slice and slices only while it is stopped: a partition that was not ingested here before begins at its beginning unless seek_source() says where. Raises 22023 and 42602 for an option, 55006 where slices are to change and it is started, 42704 where there is no such source, 42501 for a role that is not a member of its owner.';

CREATE FUNCTION imgpipe.start_source(name text) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	source imgpipe.sources := imgpipe.own_source(name);
BEGIN
	PERFORM imgpipe.require_workers(format('source "%s" cannot be started', name));
	IF source.started_in <> imgpipe.database_identity() THEN
		RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
			MESSAGE = format('source "%s" was started in another database, of which this is a copy', name),
			DETAIL = 'Where the other one goes on as well, both ingest the same messages.',
			HINT = format('SELECT imgpipe.adopt_source(%L); has it ingest here.', name);
	END IF;
	PERFORM imgpipe.check_source_owner(source.server, source.owner);
	UPDATE imgpipe.sources s SET enabled = true, started_in = imgpipe.database_identity()
		WHERE s.source_id = source.source_id AND NOT s.enabled;
	PERFORM imgpipe.wake_controller();
END
$$;
COMMENT ON FUNCTION imgpipe.start_source(text) IS
'Starts a source: workers begin to ingest as soon as the transaction commits, where they left off, and again by themselves after every restart of the server, until stop_source(); the two are also how a source is paused and resumed. imgpipe.source_status shows what they do. Raises 55000 where imgpipe is not in shared_preload_libraries or the source came here with a dump or a base backup (see adopt_source()), 42704 where there is no such source, 42501 for a role that is not a member of its owner, and what create_source() raises where the owner lacks a right.';

CREATE FUNCTION imgpipe.adopt_source(name text) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	source imgpipe.sources := imgpipe.own_source(name);
BEGIN
	UPDATE imgpipe.sources s SET started_in = NULL WHERE s.source_id = source.source_id AND NOT s.enabled;
	UPDATE imgpipe.sources s SET started_in = imgpipe.database_identity() WHERE s.source_id = source.source_id AND s.enabled;
	IF num_nonnulls(source.result_topic, source.dead_letter_topic) > 0 THEN
		PERFORM imgpipe.adopt_outbox();
	END IF;
	PERFORM imgpipe.wake_controller();
	PERFORM imgpipe.require_workers(format('source "%s" waits for workers', name), or_wait => true);
END
$$;
COMMENT ON FUNCTION imgpipe.adopt_source(text) IS
'Makes a source that came here with the restore of a dump or of a base backup one of this database: where it was started there, its workers begin to ingest here as soon as the transaction commits, at the positions that came with it. Until then it is held up, so that a copy for a test does not ingest. A standby that is promoted goes on by itself. So does a copy that was made and started as one (pg_basebackup -R), or by a snapshot of the disks, which cannot be told from the original: set imgpipe.max_ingest_workers = 0 there before its first start. Raises 42704 where there is no such source, 42501 for a role that is not a member of its owner.';

CREATE FUNCTION imgpipe.stop_source(name text) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	source imgpipe.sources := imgpipe.own_source(name);
BEGIN
	UPDATE imgpipe.sources s SET enabled = false WHERE s.source_id = source.source_id AND s.enabled;
	PERFORM imgpipe.wake_controller();
END
$$;
COMMENT ON FUNCTION imgpipe.stop_source(text) IS
'Stops a source. Its workers end within moments of the commit, after the batch in hand or without it; imgpipe.source_status says stopping until then. start_source() goes on where they ended: nothing is lost or doubled. Raises 42704 where there is no such source, 42501 for a role that is not a member of its owner.';

CREATE FUNCTION imgpipe.drop_source(name text) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	source imgpipe.sources := imgpipe.own_source(name);
BEGIN
	IF source.enabled THEN
		RAISE EXCEPTION USING ERRCODE = 'object_in_use',
			MESSAGE = format('source "%s" is started', name),
			HINT = format('SELECT imgpipe.stop_source(%L);', name);
	END IF;
	DELETE FROM imgpipe.sources s WHERE s.source_id = source.source_id;
END
$$;
COMMENT ON FUNCTION imgpipe.drop_source(text) IS
'Drops a stopped source and its positions. Its images stay until their deadlines, and so do chunks of images that are not complete, which come to nothing; a source of the same name made later begins anew. Raises 55006 where it is started, 42704 where there is no such source, 42501 for a role that is not a member of its owner.';

CREATE FUNCTION imgpipe.seek_source(name text, start_from text, restore_expired boolean DEFAULT false) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	source imgpipe.sources := imgpipe.own_source(name);
BEGIN
	IF source.enabled THEN
		RAISE EXCEPTION USING ERRCODE = 'object_in_use',
			MESSAGE = format('source "%s" is started', name),
			HINT = format('SELECT imgpipe.stop_source(%L);', name);
	END IF;
	start_from := imgpipe.check_start_from(start_from);
	IF start_from ~ '^\{' THEN
		INSERT INTO imgpipe.ingest_positions AS p (source_id, partition, next_offset)
			SELECT source.source_id, e.key::integer, e.value::bigint FROM jsonb_each_text(start_from::jsonb) e
			ON CONFLICT ON CONSTRAINT ingest_positions_pkey DO UPDATE
				SET next_offset = EXCLUDED.next_offset, high_watermark = NULL, last_offset = NULL, last_timestamp = NULL, anchor_offset = NULL, anchor_timestamp = NULL,
					ingested_to = CASE WHEN NOT restore_expired THEN greatest(p.ingested_to, p.last_offset + 1) END,
					updated_at = clock_timestamp();
	ELSE
		UPDATE imgpipe.ingest_positions p
			SET next_offset = NULL, high_watermark = NULL, last_offset = NULL, last_timestamp = NULL, anchor_offset = NULL, anchor_timestamp = NULL,
				ingested_to = CASE WHEN NOT restore_expired THEN greatest(p.ingested_to, p.last_offset + 1) END,
				updated_at = clock_timestamp()
			WHERE p.source_id = source.source_id;
		UPDATE imgpipe.sources s SET start_from = seek_source.start_from WHERE s.source_id = source.source_id;
	END IF;
	-- It may have been moved because the server is another one now.
	UPDATE imgpipe.sources s SET cluster_id = NULL WHERE s.source_id = source.source_id;
END
$$;
COMMENT ON FUNCTION imgpipe.seek_source(text, text, boolean) IS
'Says where a stopped source goes on: earliest, latest, a time (each partition at its first message that is not older), or offsets by partition ({"0": 1500}), where partitions that are not named stay as they are. For example after its topic was made anew, messages were deleted before they were ingested, or the server leads to another cluster. Messages that were ingested before become images a second time, those apart whose Kafka timestamp and the source''s retention together are past: what was purged does not come back unless restore_expired is true. Messages in between are left out by a move forward. Needs SELECT, INSERT and UPDATE on imgpipe.ingest_positions. Raises 55006 where the source is started, 22023 for the place, 42704 where there is no such source, 42501 for a role that is not a member of its owner.';

/* What sources do, as everybody with SELECT may see it. */

CREATE VIEW imgpipe.source_status AS
	SELECT s.name, s.server, s.topic, s.owner,
		CASE
			WHEN NOT s.enabled AND w.alive OPERATOR(pg_catalog.=) 0 AND s.finished_at IS NOT NULL THEN 'finished'
			WHEN NOT s.enabled AND w.alive OPERATOR(pg_catalog.=) 0 THEN 'stopped'
			WHEN NOT s.enabled THEN 'stopping'
			WHEN NOT imgpipe.workers_available() OR w.failed OPERATOR(pg_catalog.>) 0 THEN 'failed'
			WHEN w.retrying OPERATOR(pg_catalog.>) 0 THEN 'retrying'
			WHEN w.ready OPERATOR(pg_catalog.<) s.parallelism THEN 'starting'
			WHEN w.waiting OPERATOR(pg_catalog.>) 0 THEN 'waiting'
			WHEN w.running OPERATOR(pg_catalog.>) 0 THEN 'running'
			ELSE 'idle'
		END AS state,
		w.since,
		w.alive AS workers,
		p.partitions,
		COALESCE(w.lag, p.lag) AS lag_messages,
		CASE WHEN COALESCE(w.lag, p.lag) OPERATOR(pg_catalog.>) 0
			THEN pg_catalog.round(pg_catalog.extract('epoch', pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) p.behind_since), 1)
			WHEN COALESCE(w.lag, p.lag) OPERATOR(pg_catalog.=) 0 THEN 0 END AS lag_seconds,
		w.messages, w.bytes, w.dead_letters, w.messages_per_second, w.bytes_per_second,
		p.updated_at AS last_batch_at,
		CASE WHEN s.enabled AND NOT imgpipe.workers_available()
			THEN 'imgpipe is not in shared_preload_libraries' ELSE w.last_error END AS last_error,
		w.last_error_at
	FROM imgpipe.sources s
		CROSS JOIN LATERAL (
			SELECT pg_catalog.count(*)::integer AS partitions,
				pg_catalog.sum(GREATEST(LEAST(ip.high_watermark, ip.end_offset) OPERATOR(pg_catalog.-) ip.next_offset, 0))::bigint AS lag,
				COALESCE(pg_catalog.min(COALESCE(ip.last_timestamp, ip.updated_at))
					FILTER (WHERE ip.high_watermark OPERATOR(pg_catalog.>) ip.next_offset),
					pg_catalog.max(ip.last_timestamp)) AS behind_since,
				pg_catalog.max(ip.updated_at) AS updated_at
			FROM imgpipe.ingest_positions ip
			WHERE ip.source_id OPERATOR(pg_catalog.=) s.source_id AND ip.partition OPERATOR(pg_catalog.%) s.slices OPERATOR(pg_catalog.=) s.slice) p
		CROSS JOIN LATERAL (
			SELECT pg_catalog.max(ws.since) AS since,
				pg_catalog.count(ws.pid)::integer AS alive,
				pg_catalog.count(*) FILTER (WHERE ws.state OPERATOR(pg_catalog.=) 'failed') AS failed,
				pg_catalog.count(*) FILTER (WHERE ws.state OPERATOR(pg_catalog.=) 'retrying') AS retrying,
				pg_catalog.count(*) FILTER (WHERE ws.state OPERATOR(pg_catalog.=) 'running') AS running,
				pg_catalog.count(*) FILTER (WHERE ws.state OPERATOR(pg_catalog.=) ANY ('{running,idle,waiting}')) AS ready,
				pg_catalog.count(*) FILTER (WHERE ws.state OPERATOR(pg_catalog.=) 'waiting') AS waiting,
				CASE WHEN pg_catalog.count(ws.lag) FILTER (WHERE ws.pid IS NOT NULL) OPERATOR(pg_catalog.=) s.parallelism
					THEN pg_catalog.sum(ws.lag)::bigint END AS lag,
				COALESCE(pg_catalog.sum(ws.messages), 0)::bigint AS messages,
				COALESCE(pg_catalog.sum(ws.bytes), 0)::bigint AS bytes,
				COALESCE(pg_catalog.sum(ws.failed), 0)::bigint AS dead_letters,
				COALESCE(pg_catalog.sum(ws.messages_per_second) FILTER (WHERE ws.pid IS NOT NULL), 0) AS messages_per_second,
				COALESCE(pg_catalog.sum(ws.bytes_per_second) FILTER (WHERE ws.pid IS NOT NULL), 0) AS bytes_per_second,
				(pg_catalog.array_agg(ws.last_error ORDER BY ws.last_error_at DESC) FILTER (WHERE ws.last_error IS NOT NULL))[1] AS last_error,
				pg_catalog.max(ws.last_error_at) AS last_error_at
			FROM imgpipe.worker_slots() ws
			WHERE ws.kind OPERATOR(pg_catalog.=) 'ingest' AND ws.object OPERATOR(pg_catalog.=) s.source_id) w;
COMMENT ON VIEW imgpipe.source_status IS
'One row a source: what it is doing now. state: stopped, stopping, starting, running, finished (a replay has ingested its range), idle (all that there is, is ingested), waiting (more tasks than max_backlog are queued, or more messages than imgpipe.max_outbox wait to be sent), retrying (something is in the way, last_error says what, and it is tried again without end), failed (a worker ended; the controller starts it again after a while). messages, bytes and dead_letters count since start_source() or the start of the server, rates are over about 10 seconds. Who shall see this needs SELECT on the view and EXECUTE on imgpipe.worker_slots().';
COMMENT ON COLUMN imgpipe.source_status.since IS 'When a worker of the source last changed its state.';
COMMENT ON COLUMN imgpipe.source_status.lag_messages IS 'Messages that are in the topic and not yet ingested, as of the last look (last_batch_at or a few seconds ago).';
COMMENT ON COLUMN imgpipe.source_status.lag_seconds IS 'How long ago the last ingested message was made, in the partition furthest behind; 0 where none is behind.';
COMMENT ON COLUMN imgpipe.source_status.last_error IS 'The latest error of any of its workers since then; it may be over. See state.';

CREATE VIEW imgpipe.source_partitions AS
	SELECT s.name, ip.partition, ip.next_offset, ip.high_watermark,
		GREATEST(LEAST(ip.high_watermark, ip.end_offset) OPERATOR(pg_catalog.-) ip.next_offset, 0) AS lag_messages,
		CASE WHEN ip.high_watermark OPERATOR(pg_catalog.>) ip.next_offset
			THEN pg_catalog.round(pg_catalog.extract('epoch', pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) COALESCE(ip.last_timestamp, ip.updated_at)), 1)
			WHEN ip.high_watermark OPERATOR(pg_catalog.=) ip.next_offset THEN 0 END AS lag_seconds,
		ip.last_offset, ip.last_timestamp, ip.messages, ip.bytes, ip.dead_letters, ip.ingested_to, ip.end_offset, ip.updated_at
	FROM imgpipe.sources s JOIN imgpipe.ingest_positions ip ON ip.source_id OPERATOR(pg_catalog.=) s.source_id
	WHERE ip.partition OPERATOR(pg_catalog.%) s.slices OPERATOR(pg_catalog.=) s.slice;
COMMENT ON VIEW imgpipe.source_partitions IS
'One row for each partition of each source: where it goes on, how far behind it is, and what has ever been ingested from it, restarts of the server and of the source included.';
COMMENT ON COLUMN imgpipe.source_partitions.high_watermark IS 'End of the partition as last written: with each batch, and every 10 seconds while ingest is behind.';
COMMENT ON COLUMN imgpipe.source_partitions.lag_seconds IS 'How long ago the last ingested message was made; 0 where there is none after it.';
COMMENT ON COLUMN imgpipe.source_partitions.messages IS 'Messages ever ingested, dead letters included.';

CREATE TABLE imgpipe.source_topics (
	source_id integer PRIMARY KEY REFERENCES imgpipe.sources ON DELETE CASCADE,
	retention_ms bigint,
	segment_ms bigint,
	error text,
	told_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);
COMMENT ON TABLE imgpipe.source_topics IS
'For how long Kafka keeps the messages of each source''s topic, as the broker told the source''s worker: at its start and then every 10 minutes. Read by retention_residue(). Not dumped.';
COMMENT ON COLUMN imgpipe.source_topics.retention_ms IS 'retention.ms of the topic; -1: for ever, also where cleanup.policy only compacts.';
COMMENT ON COLUMN imgpipe.source_topics.segment_ms IS 'segment.ms: a message goes with its segment, which is closed after this time at the latest.';
COMMENT ON COLUMN imgpipe.source_topics.error IS 'Why the broker does not tell.';

CREATE TABLE imgpipe.ingest_batches (
	source text NOT NULL,
	worker integer NOT NULL,
	began_at timestamptz NOT NULL,
	committed_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	messages integer NOT NULL,
	dead_letters integer NOT NULL,
	bytes bigint NOT NULL,
	offsets jsonb NOT NULL
);
CREATE INDEX ON imgpipe.ingest_batches USING brin (committed_at);
COMMENT ON TABLE imgpipe.ingest_batches IS
'One row for each transaction of an ingest worker that wrote messages, in that transaction: what was ingested when, for imgpipe.ingest_history. Not dumped.';
COMMENT ON COLUMN imgpipe.ingest_batches.worker IS 'Which of the source''s workers, from 0 on.';
COMMENT ON COLUMN imgpipe.ingest_batches.began_at IS 'When the batch was complete: from here on images were probed and written. Of several transactions that one batch took, because a message was refused, all have the same.';
COMMENT ON COLUMN imgpipe.ingest_batches.committed_at IS 'Just before the commit.';
COMMENT ON COLUMN imgpipe.ingest_batches.messages IS 'Messages, dead letters included.';
COMMENT ON COLUMN imgpipe.ingest_batches.offsets IS 'First and last offset of each partition, gaps included: {"0": [15, 21]}.';

CREATE FUNCTION imgpipe.prune_ingest_batches() RETURNS bigint
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	kept CONSTANT interval := imgpipe.setting('imgpipe.ingest_history');
	pruned bigint;
BEGIN
	DELETE FROM imgpipe.ingest_batches b WHERE b.committed_at < clock_timestamp() - kept;
	GET DIAGNOSTICS pruned = ROW_COUNT;
	RETURN pruned;
END
$$;
COMMENT ON FUNCTION imgpipe.prune_ingest_batches() IS
'Deletes the batches that are older than imgpipe.ingest_history, and returns how many. The controller does this by itself.';
REVOKE EXECUTE ON FUNCTION imgpipe.prune_ingest_batches() FROM PUBLIC;


/* What became of one upload. */

CREATE INDEX ON imgpipe.images (batch_id) WHERE batch_id IS NOT NULL;
CREATE INDEX ON imgpipe.dead_letters ((headers OPERATOR(pg_catalog.->>) 'batch_id')) WHERE stage OPERATOR(pg_catalog.=) 'ingest';

CREATE FUNCTION imgpipe.batch_status(batch_id text, OUT expected bigint, OUT received bigint, OUT pending bigint, OUT processed bigint,
	OUT failed bigint, OUT rejected bigint, OUT complete boolean, OUT first_received_at timestamptz, OUT last_received_at timestamptz) RETURNS record
	LANGUAGE plpgsql STABLE STRICT PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	told text := '^[0-9]{1,9}$';
	told_of_rejected bigint;
BEGIN
	SELECT max(CASE WHEN i.headers ->> 'batch_size' ~ told THEN (i.headers ->> 'batch_size')::bigint END),
			count(*), count(*) FILTER (WHERE i.state = 'pending'), count(*) FILTER (WHERE i.state = ANY ('{done,none}')),
			count(*) FILTER (WHERE i.state = 'failed'), min(i.received_at), max(i.received_at)
		INTO expected, received, pending, processed, failed, first_received_at, last_received_at
		FROM (SELECT m.headers, m.received_at, imgpipe.processing_state(m.image_id) AS state
			FROM imgpipe.images m WHERE m.batch_id = batch_status.batch_id) i;
	SELECT count(*), max(CASE WHEN d.headers ->> 'batch_size' ~ told THEN (d.headers ->> 'batch_size')::bigint END)
		INTO rejected, told_of_rejected
		FROM imgpipe.dead_letters d WHERE d.stage = 'ingest' AND d.headers ->> 'batch_id' = batch_status.batch_id;
	expected := greatest(expected, told_of_rejected);
	complete := pending = 0 AND received + rejected > 0 AND received + rejected >= coalesce(expected, 0);
END
$$;
COMMENT ON FUNCTION imgpipe.batch_status(text) IS
'What became of the images of a batch (header batch_id, or images.batch_id of an INSERT), as far as the current role may see them and their deadlines have not passed. expected: as a header batch_size of any of them says, NULL where none does. received: images that are there, of which pending wait for a processor, failed were given up by one, and the others are processed. rejected: dead letters of ingest. complete: nothing is pending, and where batch_size is told, all of them have come; without it a batch whose upload goes on may look complete. The caller needs SELECT on images, dead_letters, tasks, renditions and results.';

/* Dead letters of both stages: another try, or out with them. */

CREATE FUNCTION imgpipe.own_dead_letter(dead_letter_id bigint) RETURNS imgpipe.dead_letters
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	letter imgpipe.dead_letters;
BEGIN
	SELECT * INTO letter FROM imgpipe.dead_letters d
		WHERE d.dead_letter_id = own_dead_letter.dead_letter_id AND d.image_id >= imgpipe.fence()
		FOR UPDATE;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'undefined_object',
			MESSAGE = format('dead letter %s does not exist', coalesce(dead_letter_id::text, 'NULL')),
			DETAIL = 'It is not there, not any more, or past its deadline.',
			HINT = 'SELECT dead_letter_id, reason FROM imgpipe.dead_letters; shows those that are.';
	END IF;
	RETURN letter;
END
$$;
COMMENT ON FUNCTION imgpipe.own_dead_letter(bigint) IS
'The dead letter with that number, locked until the end of the transaction. Raises 42704 where there is none.';

CREATE FUNCTION imgpipe.retry_dead_letter(dead_letter_id bigint) RETURNS uuid
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	letter imgpipe.dead_letters := imgpipe.own_dead_letter(dead_letter_id);
	processor imgpipe.processors;
	source imgpipe.sources;
	envelope jsonb;
BEGIN
	IF letter.stage = 'ingest' THEN
		SELECT * INTO source FROM imgpipe.sources s WHERE s.name = letter.source;
		IF source.format = 'chunked' AND letter.headers ? 'imgpipe-chunk-id' THEN
			PERFORM imgpipe.check_chunks(letter);
		END IF;
		IF letter.value IS NULL THEN
			RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
				MESSAGE = format('dead letter %s has no value to try again', dead_letter_id),
				DETAIL = 'Its message was a tombstone: a key with a null value.',
				HINT = format('SELECT imgpipe.discard_dead_letter(%s);', dead_letter_id);
		END IF;
		IF source.format = 'json' THEN
			envelope := convert_from(letter.value, 'UTF8')::jsonb;
			letter.value := decode(envelope ->> source.content_field, 'base64');
			letter.headers := envelope - source.content_field || coalesce(letter.headers, '{}');
		END IF;
		INSERT INTO imgpipe.images (image_id, content, source, source_partition, source_offset, source_key, source_timestamp,
				headers, batch_id, uploaded_by)
			VALUES (letter.image_id, letter.value::imgpipe.image, letter.source, letter.source_partition, letter.source_offset,
				letter.source_key, letter.source_timestamp, letter.headers, coalesce(letter.headers #>> '{batch_id,0}', letter.headers ->> 'batch_id'),
				coalesce(letter.headers #>> '{uploaded_by,0}', letter.headers ->> 'uploaded_by',
					pg_get_userbyid(source.owner::oid)::text, session_user));
	ELSE
		processor := imgpipe.own_processor(letter.processor);
		PERFORM FROM imgpipe.images i WHERE i.image_id = letter.image_id;
		IF NOT FOUND THEN
			RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
				MESSAGE = format('the image of dead letter %s is gone', dead_letter_id),
				DETAIL = format('It was image %s.', letter.image_id),
				HINT = format('SELECT imgpipe.discard_dead_letter(%s);', dead_letter_id);
		END IF;
		INSERT INTO imgpipe.tasks AS t (image_id, processor_id, version)
			VALUES (letter.image_id, processor.processor_id, processor.version)
			ON CONFLICT ON CONSTRAINT tasks_image_id_processor_id_key DO NOTHING;
		PERFORM imgpipe.wake_controller();
		PERFORM imgpipe.require_workers(format('processor "%s" waits for workers', letter.processor), or_wait => true);
	END IF;
	DELETE FROM imgpipe.dead_letters d WHERE d.image_id = letter.image_id AND d.dead_letter_id = letter.dead_letter_id;
	PERFORM imgpipe.renew_result(letter.image_id, letter.source);
	RETURN letter.image_id;
END
$$;
COMMENT ON FUNCTION imgpipe.retry_dead_letter(bigint) IS
'Tries a dead letter again, and returns the image''s id. Of stage ingest: its value becomes an image with all that is known of where it came from, and with the deadline that the dead letter has; one that came in chunks only if all of them came (the rest may still be sent, and then it becomes an image by itself). Of stage processing: its image is queued again for the processor, in the present version. The dead letter is gone when the transaction commits, and stays as it is where this raises. Where the source has a result_topic or a notify_channel, the image gives another message, provided that the session''s user is a member of the source''s owner. Needs SELECT, UPDATE and DELETE on dead_letters and, by stage, INSERT on images, or SELECT on images, membership in the processor''s owner and INSERT on tasks; for images in chunks SELECT on chunks and chunked_images. Raises what an INSERT of the image raises (22P03, 54000 ...), 42704 where there is no such dead letter or processor, 55000 where there is no value or no image any more, 42501 for missing rights.';

CREATE FUNCTION imgpipe.retry_dead_letters(source text DEFAULT NULL, stage text DEFAULT NULL, processor text DEFAULT NULL,
	code text DEFAULT NULL, at_most integer DEFAULT 1000, OUT retried bigint, OUT failed bigint) RETURNS record
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	letter record;
	error_code text;
	error_message text;
	error_detail text;
BEGIN
	retried := 0;
	failed := 0;
	FOR letter IN SELECT d.image_id, d.dead_letter_id FROM imgpipe.dead_letters d
		WHERE d.image_id >= imgpipe.fence()
			AND (retry_dead_letters.source IS NULL OR d.source = retry_dead_letters.source)
			AND (retry_dead_letters.stage IS NULL OR d.stage = retry_dead_letters.stage)
			AND (retry_dead_letters.processor IS NULL OR d.processor = retry_dead_letters.processor)
			AND (code IS NULL OR d.sqlstate = code)
		ORDER BY d.attempts, d.dead_letter_id LIMIT at_most
	LOOP
		BEGIN
			PERFORM imgpipe.retry_dead_letter(letter.dead_letter_id);
			retried := retried + 1;
		EXCEPTION WHEN data_exception OR program_limit_exceeded OR integrity_constraint_violation OR undefined_object
				OR object_not_in_prerequisite_state THEN
			GET STACKED DIAGNOSTICS error_code = RETURNED_SQLSTATE, error_message = MESSAGE_TEXT, error_detail = PG_EXCEPTION_DETAIL;
			UPDATE imgpipe.dead_letters d SET attempts = d.attempts + 1, sqlstate = error_code, reason = error_message, detail = nullif(error_detail, '')
				WHERE d.image_id = letter.image_id AND d.dead_letter_id = letter.dead_letter_id;
			failed := failed + 1;
		END;
	END LOOP;
END
$$;
COMMENT ON FUNCTION imgpipe.retry_dead_letters(text, text, text, text, integer) IS
'retry_dead_letter() for the dead letters of a source, stage (ingest, processing), processor and SQLSTATE, each NULL for all, at most so many in this transaction, those first that were tried least. Returns how many could be tried again and how many could not: these stay, with one attempt more and the reason of now. Anything but a fault of the data itself, missing rights among them, is raised.';

CREATE FUNCTION imgpipe.discard_dead_letter(dead_letter_id bigint) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	letter imgpipe.dead_letters := imgpipe.own_dead_letter(dead_letter_id);
BEGIN
	IF letter.stage = 'ingest' AND letter.headers ? 'imgpipe-chunk-id' THEN
		DELETE FROM imgpipe.chunks c WHERE c.image_id = letter.image_id;
		DELETE FROM imgpipe.chunked_images c WHERE c.image_id = letter.image_id;
	END IF;
	DELETE FROM imgpipe.dead_letters d WHERE d.image_id = letter.image_id AND d.dead_letter_id = letter.dead_letter_id;
END
$$;
COMMENT ON FUNCTION imgpipe.discard_dead_letter(bigint) IS
'Deletes a dead letter before its deadline. Needs SELECT, UPDATE and DELETE on imgpipe.dead_letters, and for an image in chunks, which are deleted with it, SELECT and DELETE on imgpipe.chunks and chunked_images. Raises 42704 where there is none.';

/* The messages of a topic themselves; see read_topic.c. */

CREATE FUNCTION imgpipe.read_topic(server text, topic text, partition integer DEFAULT NULL,
	from_offset bigint DEFAULT NULL, to_offset bigint DEFAULT NULL, from_time timestamptz DEFAULT NULL, to_time timestamptz DEFAULT NULL,
	timeout interval DEFAULT '30 seconds')
	RETURNS TABLE (source_partition integer, source_offset bigint, source_timestamp timestamptz, source_key text, value bytea, headers jsonb)
	AS 'MODULE_PATHNAME', 'imgpipe_read_topic'
	LANGUAGE C VOLATILE PARALLEL UNSAFE COST 10000;
COMMENT ON FUNCTION imgpipe.read_topic(text, text, integer, bigint, bigint, timestamptz, timestamptz, interval) IS
'The messages of a Kafka topic as rows, whether or not any source ingests it; no position anywhere moves. server: of foreign-data wrapper imgpipe_kafka, on which the current role needs USAGE; its own user mapping counts, or that for PUBLIC. partition: NULL for all. It begins with from_offset (of one partition) or with the first message that is not older than from_time, else with the first that is there; it ends before to_offset or the first message that is not older than to_time, and in any case where the partition ended when reading began. Columns as those of imgpipe.images; value is NULL for a tombstone. The result is complete or there is none: where Kafka is silent for timeout (1 second to 1 day), 08006 is raised. It is collected before the first row is returned, beyond work_mem in a temporary file, so bound what is read by the arguments, not by LIMIT. Raises 22023 for a range, a partition that does not exist or an offset whose message was deleted, 42704 for a server or a topic that does not exist, 42501 without USAGE.';

/*
 * A bounded range once more, on the side: a source with an end.  Its workers,
 * positions and dead letters are those of any source, and so it is exactly once
 * and goes on after whatever is killed; the source that it repeats is not touched.
 */

CREATE FUNCTION imgpipe.check_replay_target(target regclass, owner regrole) RETURNS text
	LANGUAGE plpgsql STABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	missing text;
BEGIN
	SELECT string_agg(c.name, ', ' ORDER BY c.position) INTO missing
		FROM unnest('{image_id,content,source,source_partition,source_offset,source_key,source_timestamp,headers,batch_id,uploaded_by}'::text[])
			WITH ORDINALITY c (name, position)
		WHERE NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = target AND a.attname = c.name AND NOT a.attisdropped
			AND (c.name <> 'content' OR a.atttypid = 'imgpipe.image'::regtype));
	IF missing IS NOT NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'undefined_column',
			MESSAGE = format('%s cannot take images', target),
			DETAIL = format('It has no column %s as imgpipe.images has.', missing),
			HINT = 'CREATE TABLE ... (LIKE imgpipe.images INCLUDING DEFAULTS INCLUDING GENERATED) makes one that can.';
	END IF;
	IF NOT has_table_privilege(owner::oid, target, 'INSERT') THEN
		RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege',
			MESSAGE = format('role %s may not insert into %s', owner, target),
			HINT = format('GRANT INSERT ON %s TO %s;', target, owner);
	END IF;
	RETURN (SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE c.oid = target AND c.oid <> 'imgpipe.images'::regclass);
END
$$;
COMMENT ON FUNCTION imgpipe.check_replay_target(regclass, regrole) IS
'The name of a table for replay_source(), NULL for imgpipe.images. Raises 42703 where it has not the columns, 42501 where that role may not insert.';

CREATE FUNCTION imgpipe.replay_source(name text, start_from text DEFAULT 'earliest', end_at text DEFAULT 'latest', partitions integer[] DEFAULT NULL,
	target regclass DEFAULT 'imgpipe.images', as_source text DEFAULT NULL, restore_expired boolean DEFAULT false,
	replay text DEFAULT NULL) RETURNS text
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
	source imgpipe.sources := imgpipe.own_source(name);
	target_name text := imgpipe.check_replay_target(target, source.owner);
BEGIN
	PERFORM imgpipe.require_workers(format('source "%s" cannot be replayed', name));
	start_from := imgpipe.check_start_from(start_from);
	end_at := imgpipe.check_start_from(end_at);
	replay := coalesce(replay, format('%s.replay-%s', left(name, 40), to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYYMMDD-HH24MISS')));
	as_source := coalesce(as_source, source.image_source, name);
	IF start_from = 'latest' OR end_at = 'earliest' OR partitions <@ '{}' OR 0 > ANY (partitions) OR array_position(partitions, NULL) > 0
		OR restore_expired IS NULL OR as_source !~ '^[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}$' OR replay !~ '^[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}$' THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
			MESSAGE = 'not a range that can be replayed',
			DETAIL = format('It is from %s to %s of partitions %s, as source "%s", under the name "%s".', start_from, end_at,
				coalesce(partitions::text, 'all'), as_source, replay),
			HINT = 'It begins at earliest, offsets by partition or a time, and ends before latest, offsets by partition or a time; names are like those of sources.';
	END IF;
	-- Who names offsets means these partitions.
	IF partitions IS NULL AND '{' = ANY (ARRAY[left(start_from, 1), left(end_at, 1)]) THEN
		SELECT array_agg(DISTINCT k.partition::integer) INTO partitions
			FROM unnest(ARRAY[start_from, end_at]) place CROSS JOIN LATERAL jsonb_object_keys(CASE WHEN place ~ '^\{' THEN place::jsonb ELSE '{}' END) k (partition);
	END IF;
	PERFORM imgpipe.check_source_owner(source.server, source.owner);
	BEGIN
		INSERT INTO imgpipe.sources AS s (name, server, topic, owner, retention, parallelism, start_from, batch_rows, batch_bytes, linger_ms, max_backlog,
				slice, slices, format, content_field, on_tombstone, chunk_timeout, end_at, only_partitions, restore_expired, image_source, target,
				cluster_id, enabled, started_in)
			VALUES (replay, source.server, source.topic, source.owner, source.retention, source.parallelism, start_from, source.batch_rows,
				source.batch_bytes, source.linger_ms, source.max_backlog, source.slice, source.slices, source.format, source.content_field,
				source.on_tombstone, source.chunk_timeout, end_at, partitions, restore_expired, as_source, target_name,
				source.cluster_id, true, imgpipe.database_identity());
	EXCEPTION WHEN unique_violation THEN
		RAISE EXCEPTION USING ERRCODE = 'duplicate_object',
			MESSAGE = format('source "%s" already exists', replay),
			HINT = format('Choose another name, or SELECT imgpipe.drop_source(%L); it is what became of an earlier one.', replay);
	END;
	PERFORM imgpipe.wake_controller();
	RETURN replay;
END
$$;
COMMENT ON FUNCTION imgpipe.replay_source(text, text, text, integer[], regclass, text, boolean, text) IS
'Ingests a range of a source''s topic once more, on the side: the source itself, its positions and its workers are not touched. Returns the name of the replay, a source of its own with an end, which begins at once and shows its progress in imgpipe.source_status (state finished at the end) and source_partitions; stop_source() and start_source() pause and resume it, drop_source() ends it for good or clears it away. Options are those of the source, without consumer_group, result_topic, dead_letter_topic and notify_channel. start_from: earliest, offsets by partition ({"0": 1500}) or a time; end_at: latest, offsets by partition (the first that is not in the range) or a time, at most the end of each partition when it begins. partitions: NULL for all, or those named with offsets. target: imgpipe.images or a table with its columns (LIKE imgpipe.images INCLUDING DEFAULTS INCLUDING GENERATED), written with the rights of the source''s owner. as_source: what the images have in column source; the source''s name unless told. They are new images with new ids and deadlines. Each message of the range becomes one image or one dead letter exactly once, whatever is killed: it goes on where it was. Messages whose Kafka timestamp and the source''s retention together are past are left out unless restore_expired is true, what was erased on request always. A tombstone deletes or expires what came before it, also images that are there already, and nothing in a target of its own. Raises 22023 for a range, 42710 for a name that is taken, 42703 and 42501 for a target, 55000 without shared_preload_libraries, 42704 where there is no such source, 42501 for a role that is not a member of its owner.';

/*
 * The outbox: messages on their way to Kafka; see src/outbox/.
 *
 * A row is written in the transaction of what it tells of and deleted after
 * Kafka has acknowledged it.  In between lies one sender for each Kafka server
 * and role, whose worker connects as that role and sends in the order of
 * message_id.  A row that is pending has a place in that order and no value
 * yet: what has the same key, in the same topic, waits behind it.
 */

CREATE TABLE imgpipe.senders (
	sender_id integer PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
	server text NOT NULL,
	owner regrole NOT NULL,
	started_in text NOT NULL DEFAULT imgpipe.database_identity(),
	messages bigint NOT NULL DEFAULT 0,
	bytes bigint NOT NULL DEFAULT 0,
	refused bigint NOT NULL DEFAULT 0,
	last_sent_at timestamptz,
	created_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	UNIQUE (server, owner)
);
COMMENT ON TABLE imgpipe.senders IS
'Who sends what is in the outbox: one row for each Kafka server and role that messages go out with the rights of. See imgpipe.outbox_status.';
COMMENT ON COLUMN imgpipe.senders.started_in IS 'The database that may send: a copy of it, restored from a dump or a base backup, does not until adopt_source() or adopt_outbox().';
COMMENT ON COLUMN imgpipe.senders.messages IS 'Messages ever acknowledged by Kafka; bytes likewise. refused: those that it never will take.';

CREATE TABLE imgpipe.outbox (
	image_id uuid NOT NULL DEFAULT imgpipe.new_image_id(),
	message_id bigint NOT NULL GENERATED ALWAYS AS IDENTITY,
	kind text NOT NULL CHECK (kind OPERATOR(pg_catalog.=) ANY ('{result,dead_letter,message}')),
	state text NOT NULL CHECK (state OPERATOR(pg_catalog.=) ANY ('{pending,ready,refused}')),
	sender_id integer,
	topic text,
	key bytea,
	order_key bigint,
	value bytea,
	header_names text[] NOT NULL DEFAULT '{}',
	header_values bytea[] NOT NULL DEFAULT '{}',
	dead_letter_topic text,
	notify_channel text,
	error text,
	created_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	PRIMARY KEY (image_id, message_id)
) PARTITION BY RANGE (image_id);
ALTER TABLE imgpipe.outbox ALTER COLUMN value SET STORAGE external;
-- What must not outlive its purge is not to be found in statistics.
ALTER TABLE imgpipe.outbox
	ALTER key SET STATISTICS 0, ALTER order_key SET STATISTICS 0, ALTER value SET STATISTICS 0,
	ALTER header_values SET STATISTICS 0, ALTER error SET STATISTICS 0;
CREATE INDEX ON imgpipe.outbox (sender_id, message_id) WHERE state OPERATOR(pg_catalog.=) 'ready';
CREATE INDEX ON imgpipe.outbox (order_key, message_id) WHERE state OPERATOR(pg_catalog.=) 'pending';
COMMENT ON TABLE imgpipe.outbox IS
'Messages that Kafka has not acknowledged yet, purged with the images that they tell of.';
COMMENT ON COLUMN imgpipe.outbox.image_id IS 'The image or dead letter; of other messages an id of their own with the deadline of imgpipe.retention.';
COMMENT ON COLUMN imgpipe.outbox.message_id IS 'Order of sending.';
COMMENT ON COLUMN imgpipe.outbox.state IS 'pending: the image is being processed; ready: to be sent; refused: Kafka will not take it as it is, error says why. See resend_refused().';
COMMENT ON COLUMN imgpipe.outbox.topic IS 'NULL: nothing goes to Kafka when the image is done, listeners are told.';
COMMENT ON COLUMN imgpipe.outbox.order_key IS 'Hash of topic and key: what has the same keeps its order. NULL: there is no key.';
COMMENT ON COLUMN imgpipe.outbox.dead_letter_topic IS 'Where a copy goes if a processor gives the image up.';

ALTER TABLE imgpipe.outbox ENABLE ROW LEVEL SECURITY;
CREATE POLICY granted ON imgpipe.outbox USING (true);
CREATE POLICY fence ON imgpipe.outbox AS RESTRICTIVE USING (image_id OPERATOR(pg_catalog.>=) imgpipe.fence());
CREATE POLICY horizon ON imgpipe.outbox AS RESTRICTIVE USING (true) WITH CHECK (image_id OPERATOR(pg_catalog.<) imgpipe.horizon());

SELECT pg_catalog.pg_extension_config_dump('imgpipe.senders', '');
SELECT pg_catalog.pg_extension_config_dump('imgpipe.senders_sender_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('imgpipe.outbox_message_id_seq', '');

CREATE FUNCTION imgpipe.wake_senders() RETURNS void
	AS 'MODULE_PATHNAME', 'imgpipe_wake_senders'
	LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION imgpipe.wake_senders() IS
'Makes this database''s senders look at the outbox as soon as the transaction commits, or its controller start them. Does nothing where imgpipe is not in shared_preload_libraries.';

CREATE FUNCTION imgpipe.sender_of(server text, owner regrole) RETURNS integer
	LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
	found_id integer;
BEGIN
	SELECT s.sender_id INTO found_id FROM imgpipe.senders s WHERE s.server = server AND s.owner = owner;
	IF NOT FOUND THEN
		INSERT INTO imgpipe.senders AS s (server, owner) VALUES (server, owner)
			ON CONFLICT ON CONSTRAINT senders_server_owner_key DO NOTHING;
		SELECT s.sender_id INTO STRICT found_id FROM imgpipe.senders s WHERE s.server = server AND s.owner = owner;
	END IF;
	RETURN found_id;
END
$$;
COMMENT ON FUNCTION imgpipe.sender_of(text, regrole) IS
'The sender for a Kafka server and a role, made where there is none. Only the owner may, unless granted.';
REVOKE EXECUTE ON FUNCTION imgpipe.sender_of(text, regrole) FROM PUBLIC;

CREATE FUNCTION imgpipe.order_key(topic text, key bytea) RETURNS bigint
	LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT ('x' || left(encode(sha256(convert_to(topic, 'UTF8') || '\x00' || key), 'hex'), 16))::bit(64)::bigint
$$;
COMMENT ON FUNCTION imgpipe.order_key(text, bytea) IS
'What messages of one topic and key have in common, and hardly any others.';

CREATE FUNCTION imgpipe.bytes_of_text(value text) RETURNS bytea
	LANGUAGE sql STABLE STRICT PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT CASE WHEN value ~ '^\\x([0-9a-f]{2})*$' THEN decode(substr(value, 3), 'hex')
		ELSE convert_to(value, getdatabaseencoding()) END
$$;
COMMENT ON FUNCTION imgpipe.bytes_of_text(text) IS
'The bytes of a Kafka key as imgpipe.images.source_key has it: those of the text, or of its hexadecimal form where it begins with \x.';

CREATE FUNCTION imgpipe.header_bytes(value jsonb) RETURNS bytea
	LANGUAGE sql STABLE STRICT PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT CASE
		WHEN jsonb_typeof(value) = 'null' THEN NULL
		WHEN jsonb_typeof(value) = 'object' AND value ->> 'hex' ~ '^([0-9a-f]{2})*$' THEN decode(value ->> 'hex', 'hex')
		ELSE convert_to(value #>> '{}', getdatabaseencoding()) END
$$;
COMMENT ON FUNCTION imgpipe.header_bytes(jsonb) IS
'The bytes of a Kafka header as imgpipe.images.headers has it: text, {"hex": "..."} or null.';

CREATE FUNCTION imgpipe.kafka_headers(headers jsonb, OUT names text[], OUT contents bytea[]) RETURNS record
	LANGUAGE sql STABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT coalesce(array_agg(e.key ORDER BY e.key, v.n), '{}'), coalesce(array_agg(imgpipe.header_bytes(v.value) ORDER BY e.key, v.n), '{}')
		FROM jsonb_each(headers) e
			CROSS JOIN LATERAL jsonb_array_elements(CASE jsonb_typeof(e.value) WHEN 'array' THEN e.value ELSE jsonb_build_array(e.value) END)
				WITH ORDINALITY v (value, n)
$$;
COMMENT ON FUNCTION imgpipe.kafka_headers(jsonb) IS
'Names and bytes of headers in the form of imgpipe.images.headers, ordered by name; those that repeat, an array there, in their order.';

CREATE FUNCTION imgpipe.enqueue_message(server text, topic text, key bytea, value bytea, headers jsonb DEFAULT NULL, image_id uuid DEFAULT NULL)
	RETURNS bigint
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	new_id bigint;
BEGIN
	PERFORM imgpipe.check_topic_name(topic);
	IF NOT EXISTS (SELECT FROM pg_foreign_server s JOIN pg_foreign_data_wrapper w ON w.oid = s.srvfdw
			WHERE s.srvname = server AND w.fdwname = 'imgpipe_kafka') THEN
		RAISE EXCEPTION USING ERRCODE = 'undefined_object',
			MESSAGE = format('Kafka server %s does not exist', coalesce('"' || server || '"', 'NULL')),
			HINT = 'CREATE SERVER ... FOREIGN DATA WRAPPER imgpipe_kafka OPTIONS (bootstrap_servers ''host:port'');';
	END IF;
	INSERT INTO imgpipe.outbox AS o (image_id, kind, state, sender_id, topic, key, order_key, value, header_names, header_values)
		SELECT coalesce(enqueue_message.image_id, imgpipe.new_image_id()), 'message', 'ready',
				imgpipe.sender_of(server, current_user::regrole), enqueue_message.topic, enqueue_message.key,
				imgpipe.order_key(enqueue_message.topic, enqueue_message.key), enqueue_message.value, h.names, h.contents
			FROM imgpipe.kafka_headers(headers) h
		RETURNING o.message_id INTO new_id;
	PERFORM imgpipe.wake_senders();
	PERFORM imgpipe.require_workers('messages to Kafka wait for workers', or_wait => true);
	RETURN new_id;
END
$$;
COMMENT ON FUNCTION imgpipe.enqueue_message(text, text, bytea, bytea, jsonb, uuid) IS
'Puts a message into the outbox and returns its number: it is sent to a topic of an imgpipe_kafka server after the transaction commits, at least once, with the rights and the user mapping of the current role, which before PostgreSQL 17 needs LOGIN. Messages with the same key arrive in the order of these calls where each transaction sees the commit of the one before. headers: an object of names and texts ({"hex": "..."} for other bytes, null, or an array of these). image_id: what its deadline is that of; NULL for imgpipe.retention from now. Raises 42704 for a server that does not exist, 42602 for a topic''s name. Only the owner may, unless granted.';
REVOKE EXECUTE ON FUNCTION imgpipe.enqueue_message(text, text, bytea, bytea, jsonb, uuid) FROM PUBLIC;


/* As the sender worker uses it.  Index scans whatever the statistics say, as for the queue of tasks. */

CREATE FUNCTION imgpipe.senders_with_messages() RETURNS TABLE (sender_id integer, owner regrole)
	LANGUAGE plpgsql STABLE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
	SET enable_seqscan = off
	SET enable_bitmapscan = off
	SET jit = off
AS $$
#variable_conflict use_column
BEGIN
	RETURN QUERY SELECT s.sender_id, s.owner FROM imgpipe.senders s
		WHERE EXISTS (SELECT FROM imgpipe.outbox o
			WHERE o.sender_id = s.sender_id AND o.state = 'ready' AND o.image_id >= imgpipe.fence());
END
$$;
COMMENT ON FUNCTION imgpipe.senders_with_messages() IS
'Senders that have something to send, for the controller.';
REVOKE EXECUTE ON FUNCTION imgpipe.senders_with_messages() FROM PUBLIC;

CREATE FUNCTION imgpipe.claim_messages(sender_id integer, held_topics text[], max_messages integer, max_bytes bigint)
	RETURNS TABLE (message_id bigint, image_id uuid, topic text, key bytea, value bytea, header_names text[], header_values bytea[])
	LANGUAGE plpgsql STABLE STRICT PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
	SET enable_seqscan = off
	SET enable_bitmapscan = off
	SET jit = off
AS $$
#variable_conflict use_column
BEGIN
	RETURN QUERY
		SELECT c.message_id, c.image_id, c.topic, c.key, c.value, c.header_names, c.header_values
			FROM (SELECT n.*, sum(octet_length(n.value)) OVER (ORDER BY n.message_id) AS bytes_so_far
				FROM (SELECT o.* FROM imgpipe.outbox o
					WHERE o.sender_id = claim_messages.sender_id AND o.state = 'ready' AND o.image_id >= imgpipe.fence()
						AND o.topic <> ALL (held_topics)
						AND NOT EXISTS (SELECT FROM imgpipe.outbox before
							WHERE before.order_key = o.order_key AND before.state = 'pending' AND before.message_id < o.message_id
								AND before.image_id >= imgpipe.fence())
					ORDER BY o.message_id LIMIT max_messages) n) c
			WHERE c.bytes_so_far - octet_length(c.value) < max_bytes OR c.value IS NULL
			ORDER BY c.message_id;
END
$$;
COMMENT ON FUNCTION imgpipe.claim_messages(integer, text[], integer, bigint) IS
'The next messages of a sender in their order, about as many bytes, without those of some topics and without those that have to wait for an earlier one of their key.';
REVOKE EXECUTE ON FUNCTION imgpipe.claim_messages(integer, text[], integer, bigint) FROM PUBLIC;

CREATE FUNCTION imgpipe.settle_messages(sender_id integer, sent_images uuid[], sent bigint[], sent_bytes bigint,
	refused_images uuid[], refused bigint[], errors text[]) RETURNS void
	LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
	SET enable_seqscan = off
	SET enable_bitmapscan = off
	SET enable_hashjoin = off
	SET enable_mergejoin = off
	SET jit = off
AS $$
BEGIN
	DELETE FROM imgpipe.outbox o USING unnest(sent_images, sent) s (image_id, message_id)
		WHERE o.image_id = s.image_id AND o.message_id = s.message_id;
	UPDATE imgpipe.outbox o SET state = 'refused', error = r.error
		FROM unnest(refused_images, refused, errors) r (image_id, message_id, error)
		WHERE o.image_id = r.image_id AND o.message_id = r.message_id;
	UPDATE imgpipe.senders s SET messages = s.messages + cardinality(sent), bytes = s.bytes + sent_bytes, refused = s.refused + cardinality(settle_messages.refused),
			last_sent_at = CASE WHEN cardinality(sent) > 0 THEN clock_timestamp() ELSE s.last_sent_at END
		WHERE s.sender_id = settle_messages.sender_id;
END
$$;
COMMENT ON FUNCTION imgpipe.settle_messages(integer, uuid[], bigint[], bigint, uuid[], bigint[], text[]) IS
'Deletes messages that Kafka has acknowledged, and marks those that it refused.';
REVOKE EXECUTE ON FUNCTION imgpipe.settle_messages(integer, uuid[], bigint[], bigint, uuid[], bigint[], text[]) FROM PUBLIC;


/* For those who look after it. */

CREATE FUNCTION imgpipe.resend_refused(topic text DEFAULT NULL) RETURNS bigint
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	n_messages bigint;
BEGIN
	UPDATE imgpipe.outbox o SET state = 'ready', error = NULL
		WHERE o.state = 'refused' AND o.image_id >= imgpipe.fence() AND (resend_refused.topic IS NULL OR o.topic = resend_refused.topic);
	GET DIAGNOSTICS n_messages = ROW_COUNT;
	PERFORM imgpipe.wake_senders();
	PERFORM imgpipe.require_workers('messages to Kafka wait for workers', or_wait => true);
	RETURN n_messages;
END
$$;
COMMENT ON FUNCTION imgpipe.resend_refused(text) IS
'Has messages sent once more that Kafka refused, for example after the limit of the topic was raised; of one topic, or of all. They come after those of their key that went out meanwhile. Returns how many. Needs SELECT and UPDATE on imgpipe.outbox.';

-- As the extension's owner, for sources' owners, who need not know of senders.
CREATE FUNCTION imgpipe.adopt_outbox() RETURNS void
	LANGUAGE sql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp
AS $$
	UPDATE imgpipe.senders s SET started_in = imgpipe.database_identity()
		WHERE s.started_in <> imgpipe.database_identity() AND pg_has_role(session_user, s.owner::oid, 'USAGE');
	SELECT imgpipe.wake_senders();
	SELECT imgpipe.require_workers('messages to Kafka wait for workers', or_wait => true);
$$;
COMMENT ON FUNCTION imgpipe.adopt_outbox() IS
'Has a database that is a copy, restored from a dump or a base backup, send what is in its outbox, and whatever will be; without it a copy made for a test keeps quiet. adopt_source() does this too. Holds for senders of roles that the session''s user is a member of.';

ALTER TABLE imgpipe.senders ENABLE ROW LEVEL SECURITY;
CREATE POLICY everyone_sees ON imgpipe.senders FOR SELECT USING (true);
CREATE POLICY owner_changes ON imgpipe.senders
	USING (pg_catalog.pg_has_role(owner::pg_catalog.oid, 'USAGE'));

-- With the owner's rights: numbers only, no message.
CREATE VIEW imgpipe.outbox_status AS
	SELECT s.server, s.owner,
		CASE
			WHEN o.ready OPERATOR(pg_catalog.=) 0 AND w.state IS NULL THEN 'idle'
			WHEN NOT imgpipe.workers_available() THEN 'failed'
			WHEN w.state OPERATOR(pg_catalog.=) 'stopped' OR w.state IS NULL THEN 'starting'
			ELSE w.state
		END AS state,
		o.pending, o.ready, o.refused AS refused_now, o.ready_bytes, o.oldest_ready_at,
		s.messages, s.bytes, s.refused, s.last_sent_at, w.messages_per_second, w.bytes_per_second,
		w.last_error, w.last_error_at
	FROM imgpipe.senders s
		CROSS JOIN LATERAL (
			SELECT pg_catalog.count(*) FILTER (WHERE b.state OPERATOR(pg_catalog.=) 'pending') AS pending,
				pg_catalog.count(*) FILTER (WHERE b.state OPERATOR(pg_catalog.=) 'ready') AS ready,
				pg_catalog.count(*) FILTER (WHERE b.state OPERATOR(pg_catalog.=) 'refused') AS refused,
				COALESCE(pg_catalog.sum(pg_catalog.octet_length(b.value)) FILTER (WHERE b.state OPERATOR(pg_catalog.=) 'ready'), 0)::bigint AS ready_bytes,
				pg_catalog.min(b.created_at) FILTER (WHERE b.state OPERATOR(pg_catalog.=) 'ready') AS oldest_ready_at
			FROM imgpipe.outbox b
			WHERE b.sender_id OPERATOR(pg_catalog.=) s.sender_id AND b.image_id OPERATOR(pg_catalog.>=) imgpipe.fence()) o
		LEFT JOIN LATERAL (
			SELECT ws.state, ws.messages_per_second, ws.bytes_per_second, ws.last_error, ws.last_error_at
			FROM imgpipe.worker_slots() ws
			WHERE ws.kind OPERATOR(pg_catalog.=) 'sender' AND ws.object OPERATOR(pg_catalog.=) s.sender_id
			ORDER BY ws.since DESC LIMIT 1) w ON true;
COMMENT ON VIEW imgpipe.outbox_status IS
'One row for each Kafka server and role that messages go out with: what is on its way to Kafka. state: idle, starting, running, retrying (something is in the way, last_error says what, and it is tried again without end), failed (the worker ended; the controller starts it again after a while). Who shall see this needs SELECT on the view and EXECUTE on imgpipe.worker_slots().';
COMMENT ON COLUMN imgpipe.outbox_status.pending IS 'Images that are being processed: their messages are sent when they are done.';
COMMENT ON COLUMN imgpipe.outbox_status.ready IS 'Messages to be sent, those included that have to wait for an earlier one of their key.';
COMMENT ON COLUMN imgpipe.outbox_status.refused_now IS 'Messages that Kafka refused and that are still there; refused counts all that ever were.';
COMMENT ON COLUMN imgpipe.outbox_status.messages IS 'Messages that Kafka has acknowledged, ever; bytes likewise.';

/*
 * What becomes of the images of a source, told to Kafka and to listeners.
 *
 * When an image is ingested, its message gets its place in the outbox, in the
 * order of the offsets; the transaction that ends the last task of the image
 * makes it ready.  So one image gives one message, those of one key come in the order in
 * which the images came, and a row that is inserted by SQL under the name of a
 * source, which anybody may who can insert images, gives none.
 */

CREATE FUNCTION imgpipe.result_headers(kind text, image_id uuid, source text, partition integer, message_offset bigint,
	OUT names text[], OUT contents bytea[]) RETURNS record
	LANGUAGE sql STABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT array_agg(h.name ORDER BY h.n), array_agg(convert_to(h.value, 'UTF8') ORDER BY h.n)
		FROM (VALUES (1, 'imgpipe-kind', kind), (2, 'imgpipe-image-id', image_id::text), (3, 'imgpipe-source', source),
			(4, 'imgpipe-partition', partition::text), (5, 'imgpipe-offset', message_offset::text)) h (n, name, value)
		WHERE h.value IS NOT NULL
$$;
COMMENT ON FUNCTION imgpipe.result_headers(text, uuid, text, integer, bigint) IS
'Headers that tell what a message is about.';

CREATE FUNCTION imgpipe.image_result(image_id uuid) RETURNS jsonb
	LANGUAGE plpgsql STABLE STRICT PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
	SET timezone = 'UTC'
	SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
	message jsonb;
BEGIN
	SELECT jsonb_strip_nulls(jsonb_build_object(
			'image_id', i.image_id,
			'status', CASE imgpipe.processing_state(i.image_id) WHEN 'failed' THEN 'failed' ELSE 'done' END,
			'source', i.source, 'partition', i.source_partition, 'offset', i.source_offset, 'key', i.source_key,
			'batch_id', i.batch_id, 'received_at', i.received_at, 'purge_at', imgpipe.purge_at(i.image_id),
			'format', i.format, 'width', i.width, 'height', i.height, 'bytes', i.bytes, 'sha256', encode(i.sha256, 'hex'))) INTO message
		FROM imgpipe.images i WHERE i.image_id = image_result.image_id;
	IF NOT FOUND THEN
		RETURN NULL;
	END IF;
	RETURN message || jsonb_build_object(
		'outputs', (SELECT coalesce(jsonb_agg(jsonb_build_object('processor', r.processor, 'version', r.version, 'name', r.name,
				'format', r.format, 'width', r.width, 'height', r.height, 'bytes', r.bytes,
				'sha256', encode(imgpipe.image_sha256(r.content), 'hex')) ORDER BY r.processor, r.name), '[]')
			FROM imgpipe.renditions r WHERE r.image_id = image_result.image_id),
		'results', (SELECT coalesce(jsonb_agg(jsonb_build_object('processor', s.processor, 'version', s.version, 'result', s.result)
				ORDER BY s.processor), '[]')
			FROM imgpipe.results s WHERE s.image_id = image_result.image_id),
		'errors', (SELECT coalesce(jsonb_agg(jsonb_strip_nulls(jsonb_build_object('stage', d.stage, 'processor', d.processor, 'version', d.version,
				'sqlstate', d.sqlstate, 'reason', d.reason, 'detail', d.detail, 'attempts', d.attempts)) ORDER BY d.dead_letter_id), '[]')
			FROM imgpipe.dead_letters d WHERE d.image_id = image_result.image_id AND d.stage = 'processing'));
END
$$;
COMMENT ON FUNCTION imgpipe.image_result(uuid) IS
'What a result message says of an image, as it is now: image_id, status (done, failed), source, partition, offset, key, batch_id, received_at, purge_at, format, width, height, bytes, sha256 (hexadecimal); outputs, an array of what is in renditions with processor, version, name, format, width, height, bytes and sha256; results, an array of processor, version and result; errors, an array of the dead letters of processing with stage, processor, version, sqlstate, reason, detail, attempts. What is not known is left out. NULL where there is no such image. Needs SELECT on images, renditions, results, tasks and dead_letters.';

CREATE FUNCTION imgpipe.rejection(letter imgpipe.dead_letters) RETURNS jsonb
	LANGUAGE sql STABLE STRICT PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
	SET timezone = 'UTC'
AS $$
	SELECT jsonb_strip_nulls(jsonb_build_object('image_id', letter.image_id, 'status', 'rejected',
			'source', letter.source, 'partition', letter.source_partition, 'offset', letter.source_offset, 'key', letter.source_key,
			'batch_id', coalesce(letter.headers #>> '{batch_id,0}', letter.headers ->> 'batch_id'),
			'received_at', letter.created_at, 'purge_at', imgpipe.purge_at(letter.image_id)))
		|| jsonb_build_object('outputs', '[]'::jsonb, 'results', '[]'::jsonb, 'errors', jsonb_build_array(jsonb_strip_nulls(
			jsonb_build_object('stage', letter.stage, 'sqlstate', letter.sqlstate, 'reason', letter.reason, 'detail', letter.detail,
				'attempts', letter.attempts))))
$$;
COMMENT ON FUNCTION imgpipe.rejection(imgpipe.dead_letters) IS
'What a result message says of a message that did not become an image: as image_result(), with status rejected and no outputs. image_id is the dead letter''s.';

CREATE FUNCTION imgpipe.tell_listeners(channel text, image_id uuid, source text, status text) RETURNS void
	LANGUAGE sql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT pg_notify(channel, jsonb_build_object('image_id', image_id, 'source', source, 'status', status)::text) WHERE channel IS NOT NULL
$$;
COMMENT ON FUNCTION imgpipe.tell_listeners(text, uuid, text, text) IS
'NOTIFY with {"image_id": ..., "source": ..., "status": "done" | "failed" | "rejected"}; nothing where channel is NULL.';

CREATE FUNCTION imgpipe.copy_dead_letter(letter imgpipe.dead_letters, sender_id integer, topic text, value bytea) RETURNS void
	LANGUAGE sql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
	INSERT INTO imgpipe.outbox (image_id, kind, state, sender_id, topic, key, order_key, value, header_names, header_values)
		SELECT letter.image_id, 'dead_letter', 'ready', sender_id, topic, k.key, imgpipe.order_key(topic, k.key), value,
				original.names || about.names || reason.names, original.contents || about.contents || reason.contents
			FROM imgpipe.bytes_of_text(letter.source_key) k (key),
				imgpipe.kafka_headers(letter.headers) original,
				imgpipe.result_headers('dead_letter', letter.image_id, letter.source, letter.source_partition, letter.source_offset) about,
				imgpipe.kafka_headers(jsonb_strip_nulls(jsonb_build_object('imgpipe-stage', letter.stage, 'imgpipe-sqlstate', letter.sqlstate,
					'imgpipe-reason', letter.reason, 'imgpipe-detail', letter.detail, 'imgpipe-processor', letter.processor))) reason
$$;
COMMENT ON FUNCTION imgpipe.copy_dead_letter(imgpipe.dead_letters, integer, text, bytea) IS
'Puts a copy of a dead letter into the outbox: its key, value and headers, and headers imgpipe-stage, -sqlstate, -reason, -detail, -processor. Only the owner may, unless granted.';
REVOKE EXECUTE ON FUNCTION imgpipe.copy_dead_letter(imgpipe.dead_letters, integer, text, bytea) FROM PUBLIC;

-- Not STRICT: its locks are what keeps two workers, who finish the last two tasks, from both leaving it to the other.
CREATE FUNCTION imgpipe.complete_result(image_id uuid) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
	SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
	promise record;
	message jsonb;
BEGIN
	FOR promise IN SELECT o.message_id, o.topic, o.notify_channel FROM imgpipe.outbox o
		WHERE o.image_id = complete_result.image_id AND o.state = 'pending' ORDER BY o.message_id FOR UPDATE
	LOOP
		IF EXISTS (SELECT FROM imgpipe.tasks t WHERE t.image_id = complete_result.image_id) THEN
			RETURN;
		END IF;
		message := coalesce(message, imgpipe.image_result(image_id));
		IF message IS NOT NULL THEN
			PERFORM imgpipe.tell_listeners(promise.notify_channel, image_id, message ->> 'source', message ->> 'status');
		END IF;
		IF message IS NULL OR promise.topic IS NULL THEN
			DELETE FROM imgpipe.outbox o WHERE o.image_id = complete_result.image_id AND o.message_id = promise.message_id;
		ELSE
			UPDATE imgpipe.outbox o SET state = 'ready', value = convert_to(message::text, 'UTF8')
				WHERE o.image_id = complete_result.image_id AND o.message_id = promise.message_id;
		END IF;
		PERFORM imgpipe.wake_senders();
	END LOOP;
END
$$;
COMMENT ON FUNCTION imgpipe.complete_result(uuid) IS
'Makes the result of an image ready to be sent where no task of it is left and there is one to send, and tells listeners. Where the image is gone, so is its result. Only the owner may, unless granted.';
REVOKE EXECUTE ON FUNCTION imgpipe.complete_result(uuid) FROM PUBLIC;

CREATE FUNCTION imgpipe.report_ingested(source_id integer, image_ids uuid[]) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
	SET plan_cache_mode = force_generic_plan
	SET enable_seqscan = off
	SET enable_hashjoin = off
	SET enable_mergejoin = off
	SET jit = off
AS $$
#variable_conflict use_column
DECLARE
	source imgpipe.sources;
	sender integer;
BEGIN
	SELECT * INTO source FROM imgpipe.sources s WHERE s.source_id = report_ingested.source_id;
	IF source.result_topic IS NOT NULL OR source.dead_letter_topic IS NOT NULL THEN
		sender := imgpipe.sender_of(source.server, source.owner);
	END IF;

	INSERT INTO imgpipe.outbox (image_id, kind, state, sender_id, topic, key, order_key, value, header_names, header_values,
			dead_letter_topic, notify_channel)
		SELECT a.image_id, 'result', CASE WHEN d.image_id IS NULL THEN 'pending' ELSE 'ready' END, sender, source.result_topic,
				k.key, imgpipe.order_key(source.result_topic, k.key),
				CASE WHEN d.image_id IS NOT NULL THEN convert_to(imgpipe.rejection(d)::text, 'UTF8') END, h.names, h.contents,
				source.dead_letter_topic, source.notify_channel
			FROM unnest(image_ids) WITH ORDINALITY a (image_id, n)
				LEFT JOIN imgpipe.images i ON i.image_id = a.image_id
				LEFT JOIN imgpipe.dead_letters d ON d.image_id = a.image_id
				CROSS JOIN LATERAL imgpipe.bytes_of_text(coalesce(i.source_key, d.source_key)) k (key)
				CROSS JOIN LATERAL imgpipe.result_headers('result', a.image_id, source.name, coalesce(i.source_partition, d.source_partition),
					coalesce(i.source_offset, d.source_offset)) h
			WHERE i.image_id IS NOT NULL OR (d.image_id IS NOT NULL AND source.result_topic IS NOT NULL)
			ORDER BY a.n;

	PERFORM CASE WHEN source.dead_letter_topic IS NOT NULL THEN imgpipe.copy_dead_letter(d, sender, source.dead_letter_topic, d.value) END,
			imgpipe.tell_listeners(source.notify_channel, d.image_id, source.name, 'rejected')
		FROM unnest(image_ids) WITH ORDINALITY a (image_id, n) JOIN imgpipe.dead_letters d ON d.image_id = a.image_id
		ORDER BY a.n;

	-- Nothing is to be done to these: there is no processor.
	PERFORM imgpipe.complete_result(a.image_id)
		FROM unnest(image_ids) a (image_id) WHERE NOT EXISTS (SELECT FROM imgpipe.tasks t WHERE t.image_id = a.image_id);
	PERFORM imgpipe.wake_senders();
END
$$;
COMMENT ON FUNCTION imgpipe.report_ingested(integer, uuid[]) IS
'What an ingest worker calls in the transaction of a batch, with the ids of its images and dead letters in the order of the messages: gives each its place in the outbox. Only the owner may, unless granted.';
REVOKE EXECUTE ON FUNCTION imgpipe.report_ingested(integer, uuid[]) FROM PUBLIC;

CREATE FUNCTION imgpipe.report_buried(image_id uuid) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
	SET plan_cache_mode = force_generic_plan
AS $$
BEGIN
	-- The latest: of one image, each processor gives up once.
	PERFORM imgpipe.copy_dead_letter(d, o.sender_id, o.dead_letter_topic, i.content::bytea)
		FROM imgpipe.outbox o
			JOIN imgpipe.images i ON i.image_id = o.image_id
			JOIN LATERAL (SELECT l.* FROM imgpipe.dead_letters l WHERE l.image_id = o.image_id ORDER BY l.dead_letter_id DESC LIMIT 1) d ON true
		WHERE o.image_id = report_buried.image_id AND o.state = 'pending' AND o.dead_letter_topic IS NOT NULL;
	IF FOUND THEN
		PERFORM imgpipe.wake_senders();
	END IF;
	PERFORM imgpipe.complete_result(image_id);
END
$$;
COMMENT ON FUNCTION imgpipe.report_buried(uuid) IS
'After a processor has given up on an image: copies the dead letter where the image''s source asks for it, and completes the result. Only the owner may, unless granted.';
REVOKE EXECUTE ON FUNCTION imgpipe.report_buried(uuid) FROM PUBLIC;

-- As the extension's owner, for whoever tries a dead letter again; therefore only for who could act as the source's owner.
CREATE FUNCTION imgpipe.renew_result(image_id uuid, source text) RETURNS boolean
	LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	source_id integer;
BEGIN
	SELECT s.source_id INTO source_id FROM imgpipe.sources s
		WHERE s.name = renew_result.source AND pg_has_role(session_user, s.owner::oid, 'USAGE')
			AND num_nonnulls(s.result_topic, s.dead_letter_topic, s.notify_channel) > 0;
	IF NOT FOUND OR NOT EXISTS (SELECT FROM imgpipe.images i WHERE i.image_id = renew_result.image_id AND i.source = renew_result.source)
		OR EXISTS (SELECT FROM imgpipe.outbox o WHERE o.image_id = renew_result.image_id AND o.state = 'pending') THEN
		RETURN false;
	END IF;
	PERFORM imgpipe.report_ingested(source_id, ARRAY[image_id]);
	RETURN true;
END
$$;
COMMENT ON FUNCTION imgpipe.renew_result(uuid, text) IS
'Has the result of an image sent again when its tasks are done, where its source asks for results and the session''s user is a member of the source''s owner; false otherwise.';

-- What was deleted by hand would keep the messages of its key waiting.
CREATE FUNCTION imgpipe.settle_results() RETURNS bigint
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
	SET jit = off
AS $$
DECLARE
	n_results bigint;
BEGIN
	SELECT count(imgpipe.complete_result(o.image_id)) INTO n_results
		FROM (SELECT p.image_id FROM imgpipe.outbox p
			WHERE p.state = 'pending' AND p.created_at < now() - interval '1 minute' AND p.image_id >= imgpipe.fence()
				AND NOT EXISTS (SELECT FROM imgpipe.tasks t WHERE t.image_id = p.image_id)
			LIMIT 1000) o;
	RETURN n_results;
END
$$;
COMMENT ON FUNCTION imgpipe.settle_results() IS
'Completes results whose tasks or images went away without a worker. The controller calls it every minute.';
REVOKE EXECUTE ON FUNCTION imgpipe.settle_results() FROM PUBLIC;

/*
 * Processors, their versions and the queue of tasks; see src/processing/.
 *
 * A task is one image for one processor.  A worker claims it for the time of
 * a lease, works with no transaction open, and finishes it in the transaction
 * that writes the outputs.  (attempts, version) is the claim's token: who
 * finds it changed has lost the task to somebody else and writes nothing.
 */

CREATE TABLE imgpipe.processors (
	processor_id integer PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
	name text NOT NULL UNIQUE CHECK (name OPERATOR(pg_catalog.~) '^[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}$'),
	owner regrole NOT NULL DEFAULT CURRENT_USER::pg_catalog.regrole,
	version integer NOT NULL DEFAULT 1,
	enabled boolean NOT NULL DEFAULT true,
	max_attempts integer NOT NULL DEFAULT 5 CHECK (max_attempts OPERATOR(pg_catalog.>=) 1 AND max_attempts OPERATOR(pg_catalog.<=) 100),
	created_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);
COMMENT ON TABLE imgpipe.processors IS
'What is done to every image that arrives; see create_processor(). Everybody with SELECT sees all processors, only members of a processor''s owner change it.';
COMMENT ON COLUMN imgpipe.processors.owner IS 'The role whose rights the processor has: its workers read images and call its function as this role.';
COMMENT ON COLUMN imgpipe.processors.enabled IS 'Whether images that arrive get a task, and waiting tasks are worked on.';

CREATE TABLE imgpipe.processor_versions (
	processor_id integer NOT NULL,
	version integer NOT NULL,
	outputs jsonb,
	function text,
	created_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	created_by regrole NOT NULL DEFAULT CURRENT_USER::pg_catalog.regrole,
	PRIMARY KEY (processor_id, version),
	CHECK ((outputs IS NULL) OPERATOR(pg_catalog.<>) (function IS NULL))
);
COMMENT ON TABLE imgpipe.processor_versions IS
'What each version of a processor does: every rendition and result names its processor and version.';
COMMENT ON COLUMN imgpipe.processor_versions.outputs IS 'Name of each rendition and its pipeline in canonical form.';
COMMENT ON COLUMN imgpipe.processor_versions.function IS 'Schema-qualified signature. Text and not regprocedure, which pg_upgrade refuses in a table.';

CREATE TABLE imgpipe.tasks (
	task_id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
	image_id uuid NOT NULL,
	processor_id integer NOT NULL,
	version integer NOT NULL,
	attempts integer NOT NULL DEFAULT 0,
	available_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
	last_error text,
	created_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
	UNIQUE (image_id, processor_id)
) WITH (autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0.05,
	autovacuum_vacuum_cost_delay = 0, autovacuum_analyze_threshold = 1000);
-- By processor, so that the backlog of one is not in the way of the others.
CREATE INDEX tasks_due ON imgpipe.tasks (processor_id, available_at, task_id);
COMMENT ON TABLE imgpipe.tasks IS
'The queue: one row for each image that a processor has still to work on.';
COMMENT ON COLUMN imgpipe.tasks.attempts IS 'Claims so far, the running one included.';
COMMENT ON COLUMN imgpipe.tasks.available_at IS 'When the task may be claimed: after its back-off, or when the lease of its worker runs out.';
COMMENT ON COLUMN imgpipe.tasks.last_error IS 'Why the last attempt failed; NULL while a worker has the task.';

SELECT pg_catalog.pg_extension_config_dump('imgpipe.processors', '');
SELECT pg_catalog.pg_extension_config_dump('imgpipe.processors_processor_id_seq', '');
SELECT pg_catalog.pg_extension_config_dump('imgpipe.processor_versions', '');
SELECT pg_catalog.pg_extension_config_dump('imgpipe.tasks', '');
SELECT pg_catalog.pg_extension_config_dump('imgpipe.tasks_task_id_seq', '');

ALTER TABLE imgpipe.processors ENABLE ROW LEVEL SECURITY;
CREATE POLICY everyone_sees ON imgpipe.processors FOR SELECT USING (true);
CREATE POLICY owner_changes ON imgpipe.processors
	USING (pg_catalog.pg_has_role(owner::pg_catalog.oid, 'USAGE'));

ALTER TABLE imgpipe.processor_versions ENABLE ROW LEVEL SECURITY;
CREATE POLICY everyone_sees ON imgpipe.processor_versions FOR SELECT USING (true);
CREATE POLICY owner_changes ON imgpipe.processor_versions
	USING (EXISTS (SELECT FROM imgpipe.processors p
		WHERE p.processor_id OPERATOR(pg_catalog.=) processor_versions.processor_id
			AND pg_catalog.pg_has_role(p.owner::pg_catalog.oid, 'USAGE')));

ALTER TABLE imgpipe.tasks ENABLE ROW LEVEL SECURITY;
CREATE POLICY everyone_sees ON imgpipe.tasks FOR SELECT USING (true);
CREATE POLICY owner_changes ON imgpipe.tasks
	USING (EXISTS (SELECT FROM imgpipe.processors p
		WHERE p.processor_id OPERATOR(pg_catalog.=) tasks.processor_id
			AND pg_catalog.pg_has_role(p.owner::pg_catalog.oid, 'USAGE')));

-- As the tables' owner: who may insert an image need not know of the queue.
CREATE FUNCTION imgpipe.enqueue() RETURNS trigger
	AS 'MODULE_PATHNAME', 'imgpipe_enqueue'
	LANGUAGE C VOLATILE PARALLEL UNSAFE SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp;
COMMENT ON FUNCTION imgpipe.enqueue() IS
'Trigger of imgpipe.images: one task for each enabled processor.';
REVOKE EXECUTE ON FUNCTION imgpipe.enqueue() FROM PUBLIC;

CREATE TRIGGER enqueue AFTER INSERT ON imgpipe.images
	FOR EACH ROW EXECUTE FUNCTION imgpipe.enqueue();

-- In place of foreign keys: each task would pay for the check, and a dump restores tables in any order (pg_restore -j).
CREATE FUNCTION imgpipe.delete_parts_of_processor() RETURNS trigger
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	waiting uuid[];
BEGIN
	WITH gone AS (DELETE FROM imgpipe.tasks t WHERE t.processor_id = OLD.processor_id RETURNING t.image_id)
		SELECT array_agg(DISTINCT g.image_id) INTO waiting
			FROM gone g JOIN imgpipe.outbox o ON o.image_id = g.image_id AND o.state = 'pending';
	DELETE FROM imgpipe.processor_versions v WHERE v.processor_id = OLD.processor_id;
	PERFORM imgpipe.complete_result(w) FROM unnest(waiting) w;
	RETURN NULL;
END
$$;
COMMENT ON FUNCTION imgpipe.delete_parts_of_processor() IS
'Trigger of imgpipe.processors: the tasks and versions of a dropped processor go with it, and results that waited for nothing else are sent.';
REVOKE EXECUTE ON FUNCTION imgpipe.delete_parts_of_processor() FROM PUBLIC;

CREATE TRIGGER delete_parts AFTER DELETE ON imgpipe.processors
	FOR EACH ROW EXECUTE FUNCTION imgpipe.delete_parts_of_processor();


/* Defining processors. */

CREATE FUNCTION imgpipe.check_processor_outputs(outputs jsonb) RETURNS jsonb
	LANGUAGE plpgsql STABLE STRICT PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	canonical jsonb := '{}';
	n_outputs integer;
	output record;
	error_code text;
	error_message text;
	error_detail text;
	error_hint text;
BEGIN
	IF jsonb_typeof(outputs) <> 'object' THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
			MESSAGE = 'outputs must be a JSON object',
			DETAIL = format('It is of type %s.', jsonb_typeof(outputs)),
			HINT = 'Give each rendition a name and a pipeline, for example {"thumb": "resize(width=256) | webp"}.';
	END IF;
	SELECT count(*) INTO n_outputs FROM jsonb_object_keys(outputs);
	IF n_outputs NOT BETWEEN 1 AND 64 THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
			MESSAGE = 'a processor has between 1 and 64 outputs',
			DETAIL = format('There are %s.', n_outputs),
			HINT = 'Make several processors; the outputs of all of them are made from one decode of the image.';
	END IF;
	FOR output IN SELECT e.key AS name, e.value AS pipeline FROM jsonb_each(outputs) e LOOP
		IF output.name !~ '^[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}$' THEN
			RAISE EXCEPTION USING ERRCODE = 'invalid_name',
				MESSAGE = format('output name "%s" is not valid', output.name),
				HINT = 'A name has 1 to 63 letters of ASCII, digits, "_", "." and "-", and begins with none of the last two.';
		END IF;
		IF jsonb_typeof(output.pipeline) <> 'string' THEN
			RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
				MESSAGE = format('output "%s" is not a pipeline', output.name),
				DETAIL = format('It is of type %s.', jsonb_typeof(output.pipeline)),
				HINT = 'Write the pipeline as a string, for example "resize(width=256) | webp".';
		END IF;
		BEGIN
			canonical := canonical || jsonb_build_object(output.name,
				((output.pipeline #>> '{}')::imgpipe.pipeline)::text);
		EXCEPTION WHEN OTHERS THEN
			GET STACKED DIAGNOSTICS error_code = RETURNED_SQLSTATE, error_message = MESSAGE_TEXT,
				error_detail = PG_EXCEPTION_DETAIL, error_hint = PG_EXCEPTION_HINT;
			RAISE EXCEPTION USING ERRCODE = error_code,
				MESSAGE = format('output "%s": %s', output.name, error_message),
				DETAIL = concat_ws(' ', nullif(error_detail, ''), format('The pipeline is "%s".', output.pipeline #>> '{}')),
				HINT = coalesce(nullif(error_hint, ''), 'A pipeline is, for example, resize(width=256) | webp.');
		END;
	END LOOP;
	RETURN canonical;
END
$$;
COMMENT ON FUNCTION imgpipe.check_processor_outputs(jsonb) IS
'The outputs of a processor with every pipeline in canonical form. Raises 22023 where it is no object of 1 to 64 strings, 42602 for a name, and what a pipeline raises, with the name of the output.';

CREATE FUNCTION imgpipe.check_processor_function(function regprocedure, owner regrole) RETURNS text
	LANGUAGE plpgsql STABLE STRICT PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	routine record;
BEGIN
	SELECT p.prokind = 'f' AND NOT p.proretset AND p.prorettype = 'jsonb'::regtype
			AND p.pronargs = 1 AND p.proargtypes[0] = 'imgpipe.image'::regtype AS fits
		INTO routine
		FROM pg_proc p WHERE p.oid = function;
	IF routine.fits IS DISTINCT FROM true THEN
		RAISE EXCEPTION USING ERRCODE = 'datatype_mismatch',
			MESSAGE = format('function %s cannot be a processor', function),
			DETAIL = 'A processor''s function takes one imgpipe.image and returns one jsonb.';
	END IF;
	IF NOT has_function_privilege(owner::oid, function, 'EXECUTE') THEN
		RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege',
			MESSAGE = format('role %s may not execute function %s', owner, function),
			DETAIL = 'A processor calls its function with the rights of its owner.',
			HINT = format('GRANT EXECUTE ON FUNCTION %s TO %s;', function, owner);
	END IF;
	RETURN function::text;
END
$$;
COMMENT ON FUNCTION imgpipe.check_processor_function(regprocedure, regrole) IS
'The schema-qualified signature of a function that can be a processor of that owner. Raises 42804 where it does not take one imgpipe.image and return one jsonb, 42501 where the owner may not execute it.';

CREATE FUNCTION imgpipe.check_processor_owner(owner regrole) RETURNS void
	LANGUAGE plpgsql STABLE STRICT PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	IF NOT has_schema_privilege(owner::oid, 'imgpipe', 'USAGE')
		OR NOT has_column_privilege(owner::oid, 'imgpipe.images', 'image_id', 'SELECT')
		OR NOT has_column_privilege(owner::oid, 'imgpipe.images', 'content', 'SELECT') THEN
		RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege',
			MESSAGE = format('role %s may not read images', owner),
			DETAIL = 'A processor reads images with the rights of its owner.',
			HINT = format('GRANT USAGE ON SCHEMA imgpipe TO %s; GRANT SELECT ON imgpipe.images TO %1$s;', owner);
	END IF;
	-- From PostgreSQL 17 on, a background worker may run as any role.
	IF current_setting('server_version_num')::integer < 170000
		AND NOT (SELECT r.rolcanlogin FROM pg_roles r WHERE r.oid = owner) THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_authorization_specification',
			MESSAGE = format('role %s cannot own a processor', owner),
			DETAIL = 'Before PostgreSQL 17 a background worker runs only as a role with LOGIN.',
			HINT = format('ALTER ROLE %s LOGIN; (it needs no password), or create the processor as another role.', owner);
	END IF;
	IF NOT has_database_privilege(owner::oid, current_database(), 'CONNECT') THEN
		RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege',
			MESSAGE = format('role %s may not connect to database "%s"', owner, current_database()),
			DETAIL = 'A processor''s workers connect as its owner.',
			HINT = format('GRANT CONNECT ON DATABASE %I TO %s;', current_database(), owner);
	END IF;
END
$$;
COMMENT ON FUNCTION imgpipe.check_processor_owner(regrole) IS
'Raises 42501 or 28000, with the statement that helps, where a worker could not process images as that role.';

CREATE FUNCTION imgpipe.own_processor(name text) RETURNS imgpipe.processors
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	processor imgpipe.processors;
BEGIN
	SELECT * INTO processor FROM imgpipe.processors p WHERE p.name = own_processor.name;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'undefined_object',
			MESSAGE = format('processor %s does not exist', coalesce('"' || name || '"', 'NULL')),
			HINT = 'SELECT name FROM imgpipe.processors; shows those that do.';
	END IF;
	IF NOT pg_has_role(processor.owner::oid, 'USAGE') THEN
		RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege',
			MESSAGE = format('must be owner of processor "%s"', name),
			DETAIL = format('It belongs to %s.', processor.owner);
	END IF;
	SELECT * INTO processor FROM imgpipe.processors p WHERE p.name = own_processor.name FOR NO KEY UPDATE;
	RETURN processor;
END
$$;
COMMENT ON FUNCTION imgpipe.own_processor(text) IS
'The processor of that name, locked until the end of the transaction. Raises 42704 where there is none, 42501 where it belongs to a role that the current one is not a member of.';

CREATE FUNCTION imgpipe.create_processor(name text, outputs jsonb DEFAULT NULL, function regprocedure DEFAULT NULL,
	max_attempts integer DEFAULT 5) RETURNS integer
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	new_id integer;
BEGIN
	IF (name ~ '^[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}$') IS NOT TRUE THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_name',
			MESSAGE = format('processor name %s is not valid', coalesce('"' || name || '"', 'NULL')),
			HINT = 'A name has 1 to 63 letters of ASCII, digits, "_", "." and "-", and begins with none of the last two.';
	END IF;
	IF (outputs IS NULL) = (function IS NULL) THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
			MESSAGE = 'a processor has either outputs or a function',
			DETAIL = CASE WHEN outputs IS NULL THEN 'Neither was given.' ELSE 'Both were given.' END,
			HINT = 'For example: SELECT imgpipe.create_processor(''web'', ''{"thumb": "resize(width=256) | webp"}'');';
	END IF;
	IF (max_attempts BETWEEN 1 AND 100) IS NOT TRUE THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
			MESSAGE = 'max_attempts must be between 1 and 100',
			DETAIL = format('It is %s.', coalesce(max_attempts::text, 'NULL'));
	END IF;
	outputs := imgpipe.check_processor_outputs(outputs);
	PERFORM imgpipe.check_processor_function(function, current_user::regrole);
	PERFORM imgpipe.check_processor_owner(current_user::regrole);
	BEGIN
		INSERT INTO imgpipe.processors AS p (name, max_attempts) VALUES (name, max_attempts)
			RETURNING p.processor_id INTO new_id;
	EXCEPTION WHEN unique_violation THEN
		RAISE EXCEPTION USING ERRCODE = 'duplicate_object',
			MESSAGE = format('processor "%s" already exists', name),
			HINT = 'imgpipe.alter_processor() makes a new version of it.';
	END;
	INSERT INTO imgpipe.processor_versions (processor_id, version, outputs, function)
		VALUES (new_id, 1, outputs, function::text);
	PERFORM imgpipe.require_workers(format('processor "%s" waits for workers', name), or_wait => true);
	RETURN new_id;
END
$$;
COMMENT ON FUNCTION imgpipe.create_processor(text, jsonb, regprocedure, integer) IS
'Makes a processor and returns its processor_id: from now on every image that is inserted is worked on in the background. Either outputs, an object of rendition names and pipelines ({"thumb": "resize(width=256) | webp"}), into imgpipe.renditions; or function, which takes an imgpipe.image and returns jsonb, into imgpipe.results. A function runs as the processor''s owner, in a transaction of its own together with the row of its result, for at most nine tenths of imgpipe.task_lease, and should be safe to repeat: it is called again after a failure. A failed task is tried again after 2, 4, 8, ... seconds; after max_attempts (1 to 100) it is in imgpipe.dead_letters.
The current role becomes the owner. It needs SELECT on imgpipe.images and, before PostgreSQL 17, LOGIN. To define processors a role needs SELECT, INSERT, UPDATE and DELETE on imgpipe.processors, SELECT and INSERT on processor_versions, and, for process_images(), SELECT, INSERT and UPDATE on tasks. Raises 42710 for a name that is taken, 42602 for one that is not valid, 22023 for other arguments, 42501 and 28000 for missing rights, 42804 for a function of another kind, 42601 and 22023 for a pipeline.';

CREATE FUNCTION imgpipe.alter_processor(name text, outputs jsonb DEFAULT NULL, function regprocedure DEFAULT NULL) RETURNS integer
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	processor imgpipe.processors := imgpipe.own_processor(name);
BEGIN
	IF (outputs IS NULL) = (function IS NULL) THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
			MESSAGE = 'a processor has either outputs or a function',
			DETAIL = CASE WHEN outputs IS NULL THEN 'Neither was given.' ELSE 'Both were given.' END;
	END IF;
	outputs := imgpipe.check_processor_outputs(outputs);
	PERFORM imgpipe.check_processor_function(function, processor.owner);
	INSERT INTO imgpipe.processor_versions (processor_id, version, outputs, function)
		VALUES (processor.processor_id, processor.version + 1, outputs, function::text);
	UPDATE imgpipe.processors p SET version = processor.version + 1
		WHERE p.processor_id = processor.processor_id;
	PERFORM imgpipe.require_workers(format('processor "%s" waits for workers', name), or_wait => true);
	RETURN processor.version + 1;
END
$$;
COMMENT ON FUNCTION imgpipe.alter_processor(text, jsonb, regprocedure) IS
'Gives a processor new outputs or another function, as for create_processor(), and returns the new version. It holds for images that arrive from now on; tasks that wait keep the version that they were made for. process_images() brings earlier images to the new version; a rendition whose name is no longer among the outputs stays until it is purged.';

CREATE FUNCTION imgpipe.start_processor(name text) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	processor imgpipe.processors := imgpipe.own_processor(name);
BEGIN
	PERFORM imgpipe.check_processor_owner(processor.owner);
	UPDATE imgpipe.processors p SET enabled = true
		WHERE p.processor_id = processor.processor_id AND NOT p.enabled;
	PERFORM imgpipe.wake_controller();
	PERFORM imgpipe.require_workers(format('processor "%s" waits for workers', name), or_wait => true);
END
$$;
COMMENT ON FUNCTION imgpipe.start_processor(text) IS
'Lets a processor go on after stop_processor(): with the tasks that wait, and with images that arrive from now on.';

CREATE FUNCTION imgpipe.stop_processor(name text) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	processor imgpipe.processors := imgpipe.own_processor(name);
BEGIN
	UPDATE imgpipe.processors p SET enabled = false
		WHERE p.processor_id = processor.processor_id AND p.enabled;
END
$$;
COMMENT ON FUNCTION imgpipe.stop_processor(text) IS
'Stops a processor: no task of it is begun any more, those that wait stay, and images that arrive get none. After start_processor(), process_images() with the time of the stop catches up on these.';

CREATE FUNCTION imgpipe.drop_processor(name text) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	processor imgpipe.processors := imgpipe.own_processor(name);
BEGIN
	-- Waits for transactions that have just made tasks; the trigger then deletes these.
	DELETE FROM imgpipe.processors p WHERE p.processor_id = processor.processor_id;
END
$$;
COMMENT ON FUNCTION imgpipe.drop_processor(text) IS
'Drops a processor with its versions and its waiting tasks; work in progress is thrown away. Its renditions, results and dead letters stay until they are purged. Waits for transactions that have inserted images and not yet ended.';

CREATE FUNCTION imgpipe.process_images(name text, since timestamptz DEFAULT NULL) RETURNS bigint
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	processor imgpipe.processors := imgpipe.own_processor(name);
	n_tasks bigint;
BEGIN
	INSERT INTO imgpipe.tasks AS t (image_id, processor_id, version)
		SELECT i.image_id, processor.processor_id, processor.version
			FROM imgpipe.images i
			WHERE i.image_id >= imgpipe.fence() AND (since IS NULL OR i.received_at >= since)
		ON CONFLICT (image_id, processor_id) DO UPDATE
			SET version = EXCLUDED.version, attempts = 0, available_at = EXCLUDED.available_at, last_error = NULL
			WHERE t.version < EXCLUDED.version;
	GET DIAGNOSTICS n_tasks = ROW_COUNT;
	PERFORM imgpipe.wake_controller();
	PERFORM imgpipe.require_workers(format('processor "%s" waits for workers', name), or_wait => true);
	RETURN n_tasks;
END
$$;
COMMENT ON FUNCTION imgpipe.process_images(text, timestamptz) IS
'Has a processor work, in its present version, on images that are already there: all that the current role sees, or those received since a time. Returns how many tasks that made; an image that waits for this version already is not counted. New renditions and results take the place of earlier ones.';


/*
 * The queue, as workers use it.  Only the owner calls these.  Index scans
 * whatever the statistics say: they are of a moment, and a queue is empty at
 * one and has a million rows at the next.
 */

CREATE FUNCTION imgpipe.due_tasks(OUT owner regrole, OUT due bigint) RETURNS SETOF record
	LANGUAGE plpgsql STABLE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
	SET enable_seqscan = off
	SET enable_bitmapscan = off
	SET jit = off
AS $$
BEGIN
	RETURN QUERY
		SELECT p.owner, sum(d.due)::bigint
			FROM imgpipe.processors p
				CROSS JOIN LATERAL (SELECT count(*) AS due FROM (SELECT FROM imgpipe.tasks t
					WHERE t.processor_id = p.processor_id AND t.available_at <= now() LIMIT 500) t) d
			WHERE p.enabled
			GROUP BY p.owner;
END
$$;
COMMENT ON FUNCTION imgpipe.due_tasks() IS
'How many tasks are due for each owner of processors that are on, counted up to 500 a processor: the controller starts workers accordingly.';
REVOKE EXECUTE ON FUNCTION imgpipe.due_tasks() FROM PUBLIC;

CREATE FUNCTION imgpipe.bury_task(task_id bigint, error_code text, reason text, detail text) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	buried uuid;
BEGIN
	INSERT INTO imgpipe.dead_letters (image_id, stage, source, source_partition, source_offset, source_key,
			source_timestamp, headers, processor, version, attempts, sqlstate, reason, detail)
		SELECT t.image_id, 'processing', i.source, i.source_partition, i.source_offset, i.source_key,
			i.source_timestamp, i.headers, p.name, t.version, t.attempts, error_code, bury_task.reason, bury_task.detail
		FROM imgpipe.tasks t
			JOIN imgpipe.processors p ON p.processor_id = t.processor_id
			JOIN imgpipe.images i ON i.image_id = t.image_id
		WHERE t.task_id = bury_task.task_id AND t.image_id >= imgpipe.fence();
	DELETE FROM imgpipe.tasks t WHERE t.task_id = bury_task.task_id RETURNING t.image_id INTO buried;
	PERFORM imgpipe.report_buried(buried);
END
$$;
COMMENT ON FUNCTION imgpipe.bury_task(bigint, text, text, text) IS
'Moves a task to the dead letters; where its image is gone, the task just goes too.';
REVOKE EXECUTE ON FUNCTION imgpipe.bury_task(bigint, text, text, text) FROM PUBLIC;

CREATE FUNCTION imgpipe.claim_tasks(owner regrole, max_images integer, lease interval)
	RETURNS TABLE (task_id bigint, image_id uuid, processor text, version integer, attempts integer,
		output_names text[], pipelines text[], function text)
	LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
	SET enable_seqscan = off
	SET enable_bitmapscan = off
	SET jit = off
AS $$
#variable_conflict use_column
DECLARE
	candidate integer;
	exhausted record;
	claimed bigint[];
	siblings bigint[];
	images uuid[];
BEGIN
	-- The processor that has waited longest says which images; all of these may be locked by other workers.
	FOR candidate IN
		SELECT p.processor_id
			FROM imgpipe.processors p
				CROSS JOIN LATERAL (SELECT t.available_at, t.task_id FROM imgpipe.tasks t
					WHERE t.processor_id = p.processor_id AND t.available_at <= now()
					ORDER BY t.available_at, t.task_id LIMIT 1) oldest
			WHERE p.owner = claim_tasks.owner AND p.enabled
			ORDER BY oldest.available_at, oldest.task_id
	LOOP
		SELECT array_agg(due.task_id), array_agg(due.image_id) INTO claimed, images
			FROM (SELECT t.task_id, t.image_id FROM imgpipe.tasks t
				WHERE t.processor_id = candidate AND t.available_at <= now()
				ORDER BY t.available_at, t.task_id LIMIT max_images
				FOR UPDATE SKIP LOCKED) due;
		EXIT WHEN claimed IS NOT NULL;
	END LOOP;
	IF claimed IS NULL THEN
		RETURN;
	END IF;

	-- With them all else that is to be done to these images, so that each is read and decoded once.
	SELECT array_agg(due.task_id) INTO siblings
		FROM (SELECT t.task_id FROM imgpipe.tasks t JOIN imgpipe.processors p ON p.processor_id = t.processor_id
			WHERE t.image_id = ANY (images) AND t.processor_id <> candidate AND t.available_at <= now()
				AND p.owner = claim_tasks.owner AND p.enabled
			FOR UPDATE OF t SKIP LOCKED) due;
	claimed := claimed || siblings;

	-- Nobody has told how the last attempt of these ended: their worker died with it.
	FOR exhausted IN
		SELECT t.task_id, t.attempts FROM imgpipe.tasks t JOIN imgpipe.processors p ON p.processor_id = t.processor_id
			WHERE t.task_id = ANY (claimed) AND t.attempts >= p.max_attempts
	LOOP
		PERFORM imgpipe.bury_task(exhausted.task_id, '57P02', 'the worker ended before the task did',
			format('This was attempt %s. Either the worker was killed, or the task ends it.', exhausted.attempts));
	END LOOP;

	RETURN QUERY
		WITH leased AS (
			UPDATE imgpipe.tasks t
				SET attempts = t.attempts + 1, available_at = now() + lease, last_error = NULL
				WHERE t.task_id = ANY (claimed)
				RETURNING t.*)
		SELECT l.task_id, l.image_id, p.name, l.version, l.attempts,
				(SELECT array_agg(e.key ORDER BY e.key COLLATE "C") FROM jsonb_each_text(v.outputs) e),
				(SELECT array_agg(e.value ORDER BY e.key COLLATE "C") FROM jsonb_each_text(v.outputs) e),
				v.function
			FROM leased l
				JOIN imgpipe.processors p ON p.processor_id = l.processor_id
				JOIN imgpipe.processor_versions v ON v.processor_id = l.processor_id AND v.version = l.version
			ORDER BY min(l.task_id) OVER (PARTITION BY l.image_id), l.task_id;
END
$$;
COMMENT ON FUNCTION imgpipe.claim_tasks(regrole, integer, interval) IS
'Claims the tasks that are due for up to max_images images and processors of that owner, until now + lease, and returns them, those of one image together. Skips what others are claiming. A task that is due although its last attempt was never reported becomes a dead letter instead.';
REVOKE EXECUTE ON FUNCTION imgpipe.claim_tasks(regrole, integer, interval) FROM PUBLIC;

CREATE FUNCTION imgpipe.extend_task(task_id bigint, attempts integer, version integer, lease interval) RETURNS boolean
	LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	UPDATE imgpipe.tasks t SET available_at = now() + lease
		WHERE t.task_id = extend_task.task_id AND t.attempts = extend_task.attempts AND t.version = extend_task.version;
	RETURN FOUND;
END
$$;
COMMENT ON FUNCTION imgpipe.extend_task(bigint, integer, integer, interval) IS
'Extends the lease of a claimed task to now + lease. False where the claim is no longer good.';
REVOKE EXECUTE ON FUNCTION imgpipe.extend_task(bigint, integer, integer, interval) FROM PUBLIC;

CREATE FUNCTION imgpipe.finish_task(task_id bigint, attempts integer, version integer) RETURNS boolean
	LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	DELETE FROM imgpipe.tasks t
		WHERE t.task_id = finish_task.task_id AND t.attempts = finish_task.attempts AND t.version = finish_task.version;
	RETURN FOUND;
END
$$;
COMMENT ON FUNCTION imgpipe.finish_task(bigint, integer, integer) IS
'Takes a finished task off the queue. False where the claim is no longer good: then nothing may be written.';
REVOKE EXECUTE ON FUNCTION imgpipe.finish_task(bigint, integer, integer) FROM PUBLIC;

CREATE FUNCTION imgpipe.fail_task(task_id bigint, attempts integer, version integer,
	error_code text, reason text, detail text, final boolean) RETURNS boolean
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	max_attempts integer;
BEGIN
	SELECT p.max_attempts INTO max_attempts
		FROM imgpipe.tasks t JOIN imgpipe.processors p ON p.processor_id = t.processor_id
		WHERE t.task_id = fail_task.task_id AND t.attempts = fail_task.attempts AND t.version = fail_task.version
		FOR UPDATE OF t;
	IF NOT FOUND THEN
		RETURN NULL;
	END IF;
	IF final OR attempts >= max_attempts THEN
		PERFORM imgpipe.bury_task(task_id, error_code, reason, detail);
		RETURN true;
	END IF;
	-- 2, 4, 8, ... seconds up to 10 minutes, a quarter more or less so that failures do not come back together.
	UPDATE imgpipe.tasks t
		SET available_at = clock_timestamp() + least(2 ^ fail_task.attempts, 600) * (0.75 + random() / 2) * interval '1 second',
			last_error = format('%s: %s', error_code, reason)
		WHERE t.task_id = fail_task.task_id;
	RETURN false;
END
$$;
COMMENT ON FUNCTION imgpipe.fail_task(bigint, integer, integer, text, text, text, boolean) IS
'A claimed task has failed: true where it is a dead letter now (it was final or the last attempt), false where it will be tried again, NULL where the claim is no longer good.';
REVOKE EXECUTE ON FUNCTION imgpipe.fail_task(bigint, integer, integer, text, text, text, boolean) FROM PUBLIC;

CREATE FUNCTION imgpipe.release_task(task_id bigint, attempts integer, version integer, delay interval) RETURNS boolean
	LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	UPDATE imgpipe.tasks t SET attempts = t.attempts - 1, available_at = now() + delay
		WHERE t.task_id = release_task.task_id AND t.attempts = release_task.attempts AND t.version = release_task.version;
	RETURN FOUND;
END
$$;
COMMENT ON FUNCTION imgpipe.release_task(bigint, integer, integer, interval) IS
'Gives a claimed task back, to be claimed after the delay, as if it had not been claimed. False where the claim is no longer good.';
REVOKE EXECUTE ON FUNCTION imgpipe.release_task(bigint, integer, integer, interval) FROM PUBLIC;


/*
 * Jobs: SQL commands on a schedule; see src/schedule/.
 *
 * jobs is what users write, job_runs what the controller and the job workers
 * write.  due_after is the state of a schedule: due times up to it have been
 * dealt with.  It advances in the transaction that records a run.
 */

CREATE FUNCTION imgpipe.scheduler_clock() RETURNS timestamptz
	AS 'MODULE_PATHNAME', 'imgpipe_scheduler_clock'
	LANGUAGE C VOLATILE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION imgpipe.scheduler_clock() IS
'The time that schedules go by: the server''s clock and imgpipe.clock_offset, which is for tests.';

CREATE FUNCTION imgpipe.next_run(schedule text, after timestamptz DEFAULT pg_catalog.now(),
	time_zone text DEFAULT pg_catalog.current_setting('TimeZone')) RETURNS timestamptz
	AS 'MODULE_PATHNAME', 'imgpipe_next_run'
	LANGUAGE C STABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION imgpipe.next_run(text, timestamptz, text) IS
'When a schedule first comes due after a moment, by the clock of a time zone; infinity for @reboot.
A schedule is five fields (minute 0-59, hour 0-23, day of the month 1-31, month 1-12 or jan-dec, day of the week 0-7 or sun-sat, 0 and 7 being Sunday), each *, a number, a range 1-5, either * or a range with a step */15, or a list of these parted by commas; $ is the last day of the month. Where both days are given, either will do; where one of them begins with *, both must fit. Or it is @hourly, @daily (@midnight), @weekly, @monthly, @yearly (@annually) or @reboot. Or an interval of fixed length from 1 second to 366 days: 30 seconds, 1 hour 30 minutes, 2 days; it counts from the last due time.
Daylight saving: what would come due in an hour that is left out comes due once, right after it; what comes due in an hour that comes twice does so the first time only. A schedule of every hour (0-23) goes by hours that pass: it comes due in both. Intervals know no daylight saving.
Raises 22023 for what is no schedule or no time zone, 22008 for a moment before the year 1 or after 9999.';

CREATE FUNCTION imgpipe.last_run(schedule text, after timestamptz, until timestamptz, time_zone text,
	OUT due_at timestamptz, OUT due_times integer) RETURNS record
	AS 'MODULE_PATHNAME', 'imgpipe_last_run'
	LANGUAGE C STABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION imgpipe.last_run(text, timestamptz, timestamptz, text) IS
'The last time that a schedule came due after one moment and not after another, and how many times it did, counted up to 10000. See next_run().';

CREATE FUNCTION imgpipe.schedule_kind(schedule text) RETURNS text
	AS 'MODULE_PATHNAME', 'imgpipe_schedule_kind'
	LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION imgpipe.schedule_kind(text) IS
'interval; hourly, for a schedule that comes due in every hour; calendar, for one that does not; or reboot. Raises 22023 for what is no schedule.';

CREATE FUNCTION imgpipe.check_command(command text) RETURNS void
	AS 'MODULE_PATHNAME', 'imgpipe_check_command'
	LANGUAGE C STABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION imgpipe.check_command(text) IS
'Raises 42601 for what is no SQL, 22023 where there is no statement and 0A000 for COPY to or from the client, which a job has not. Names are looked up when the command runs.';

CREATE TABLE imgpipe.jobs (
	job_id integer PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
	name text NOT NULL UNIQUE CHECK (name OPERATOR(pg_catalog.~) '^[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}$'),
	owner regrole NOT NULL DEFAULT CURRENT_USER::pg_catalog.regrole,
	schedule text NOT NULL,
	time_zone text NOT NULL DEFAULT 'default',
	command text NOT NULL,
	enabled boolean NOT NULL DEFAULT true,
	max_running integer NOT NULL DEFAULT 1 CHECK (max_running OPERATOR(pg_catalog.>=) 1 AND max_running OPERATOR(pg_catalog.<=) 64),
	timeout interval NOT NULL DEFAULT '0' CHECK (timeout OPERATOR(pg_catalog.>=) '0'::interval AND timeout OPERATOR(pg_catalog.<=) '24 days'::interval),
	max_attempts integer NOT NULL DEFAULT 1 CHECK (max_attempts OPERATOR(pg_catalog.>=) 1 AND max_attempts OPERATOR(pg_catalog.<=) 100),
	retry_delay interval NOT NULL DEFAULT '10 seconds'
		CHECK (retry_delay OPERATOR(pg_catalog.>=) '0'::interval AND retry_delay OPERATOR(pg_catalog.<=) '24 days'::interval),
	catch_up text NOT NULL DEFAULT 'once' CHECK (catch_up OPERATOR(pg_catalog.=) ANY ('{none,once,all}')),
	created_at timestamptz NOT NULL DEFAULT imgpipe.scheduler_clock(),
	due_after timestamptz NOT NULL DEFAULT imgpipe.scheduler_clock(),
	next_due_at timestamptz,
	requested_run bigint
);
COMMENT ON TABLE imgpipe.jobs IS
'SQL commands that run on a schedule; see schedule(). A role with SELECT sees and changes the jobs of the roles that it is a member of.';
COMMENT ON COLUMN imgpipe.jobs.owner IS 'The role that the command runs as.';
COMMENT ON COLUMN imgpipe.jobs.schedule IS 'As next_run() takes it.';
COMMENT ON COLUMN imgpipe.jobs.time_zone IS 'The time zone whose clock the schedule goes by; default: the database''s TimeZone.';
COMMENT ON COLUMN imgpipe.jobs.enabled IS 'Whether the schedule is followed; run_job() works in any case.';
COMMENT ON COLUMN imgpipe.jobs.max_running IS 'Runs that may go on at the same time.';
COMMENT ON COLUMN imgpipe.jobs.timeout IS 'Time after which a run is cancelled; 0: never.';
COMMENT ON COLUMN imgpipe.jobs.max_attempts IS 'How often a run is tried, the first time included, before it is given up.';
COMMENT ON COLUMN imgpipe.jobs.retry_delay IS 'Time from a failure to the second attempt; doubled for each further one, up to an hour or to itself.';
COMMENT ON COLUMN imgpipe.jobs.catch_up IS 'What becomes of due times that pass while the job cannot run: none (skipped when a minute late), once (one run for all of them) or all (one run for each).';
COMMENT ON COLUMN imgpipe.jobs.due_after IS 'Due times up to this one have been dealt with. Written by the controller.';
COMMENT ON COLUMN imgpipe.jobs.next_due_at IS 'The first due time after due_after; NULL until the controller has looked. Written by the controller.';
COMMENT ON COLUMN imgpipe.jobs.requested_run IS 'The run that run_job() asked for and that has not begun.';

CREATE TABLE imgpipe.job_runs (
	run_id bigint PRIMARY KEY GENERATED BY DEFAULT AS IDENTITY,
	job_id integer NOT NULL,
	name text NOT NULL,
	owner regrole NOT NULL,
	command text NOT NULL,
	cause text NOT NULL CHECK (cause OPERATOR(pg_catalog.=) ANY ('{schedule,request}')),
	due_at timestamptz NOT NULL,
	missed integer NOT NULL DEFAULT 0,
	attempt integer NOT NULL DEFAULT 1,
	status text NOT NULL
		CHECK (status OPERATOR(pg_catalog.=) ANY ('{starting,running,succeeded,failed,cancelled,interrupted,skipped}')),
	pid integer,
	started_at timestamptz,
	finished_at timestamptz,
	duration interval GENERATED ALWAYS AS (finished_at OPERATOR(pg_catalog.-) started_at) STORED,
	rows bigint,
	messages text,
	sqlstate text,
	error text,
	detail text,
	hint text,
	context text,
	retry_at timestamptz
);
CREATE INDEX job_runs_of_job ON imgpipe.job_runs (job_id, run_id);
CREATE INDEX job_runs_finished ON imgpipe.job_runs (finished_at);
CREATE INDEX job_runs_open ON imgpipe.job_runs (job_id)
	WHERE status OPERATOR(pg_catalog.=) ANY ('{starting,running}') OR retry_at IS NOT NULL;
COMMENT ON TABLE imgpipe.job_runs IS
'Each attempt to run a job, by the scheduler''s clock: a role with SELECT sees those of the roles that it is a member of. Successes are kept for imgpipe.job_history, all else for imgpipe.job_error_history.';
COMMENT ON COLUMN imgpipe.job_runs.name IS 'Of the job, which may be gone by now.';
COMMENT ON COLUMN imgpipe.job_runs.due_at IS 'The due time that this run is for, or when run_job() was heard.';
COMMENT ON COLUMN imgpipe.job_runs.missed IS 'Earlier due times that this run stands for as well (catch_up once) or that were skipped.';
COMMENT ON COLUMN imgpipe.job_runs.status IS 'starting, running, succeeded, failed, cancelled (by pg_cancel_backend() or because the job was dropped or changed before it began), interrupted (the worker or the server ended in its midst) or skipped (due times that passed, see jobs.catch_up).';
COMMENT ON COLUMN imgpipe.job_runs.pid IS 'The worker, for pg_cancel_backend().';
COMMENT ON COLUMN imgpipe.job_runs.rows IS 'Rows that its statements returned or changed, all together; NULL where none does such a thing.';
COMMENT ON COLUMN imgpipe.job_runs.messages IS 'Its warnings, notices and the like, the first 100 or 8 kB of them.';
COMMENT ON COLUMN imgpipe.job_runs.error IS 'What was wrong; while starting, why it does not start yet.';
COMMENT ON COLUMN imgpipe.job_runs.retry_at IS 'When it will be tried again.';

SELECT pg_catalog.pg_extension_config_dump('imgpipe.jobs', '');
SELECT pg_catalog.pg_extension_config_dump('imgpipe.jobs_job_id_seq', '');
-- Not the runs; but jobs name those that were asked for.
SELECT pg_catalog.pg_extension_config_dump('imgpipe.job_runs_run_id_seq', '');

ALTER TABLE imgpipe.jobs ENABLE ROW LEVEL SECURITY;
CREATE POLICY owner_sees_and_changes ON imgpipe.jobs
	USING (pg_catalog.pg_has_role(owner::pg_catalog.oid, 'USAGE'));

ALTER TABLE imgpipe.job_runs ENABLE ROW LEVEL SECURITY;
CREATE POLICY owner_sees ON imgpipe.job_runs FOR SELECT
	USING (pg_catalog.pg_has_role(owner::pg_catalog.oid, 'USAGE'));


/* Defining jobs. */

CREATE FUNCTION imgpipe.job_owner_problem(owner regrole, OUT sqlstate text, OUT error text, OUT hint text) RETURNS record
	LANGUAGE plpgsql STABLE STRICT PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	can_log_in boolean;
BEGIN
	SELECT r.rolcanlogin INTO can_log_in FROM pg_roles r WHERE r.oid = owner;
	IF NOT FOUND THEN
		sqlstate := '42704';
		error := format('role %s does not exist', owner);
		hint := 'Drop the job and schedule it as another role.';
	-- From PostgreSQL 17 on, a background worker may run as any role.
	ELSIF NOT can_log_in AND current_setting('server_version_num')::integer < 170000 THEN
		sqlstate := '28000';
		error := format('role %s is not permitted to log in', owner);
		hint := format('ALTER ROLE %s LOGIN; (it needs no password). Before PostgreSQL 17 a background worker runs only as a role with LOGIN.', owner);
	ELSIF NOT has_database_privilege(owner::oid, current_database(), 'CONNECT') THEN
		sqlstate := '42501';
		error := format('role %s may not connect to database "%s"', owner, current_database());
		hint := format('GRANT CONNECT ON DATABASE %I TO %s;', current_database(), owner);
	END IF;
END
$$;
COMMENT ON FUNCTION imgpipe.job_owner_problem(regrole) IS
'Why a job cannot run as that role, and the statement that helps; NULL where it can.';

CREATE FUNCTION imgpipe.check_job(job imgpipe.jobs) RETURNS void
	LANGUAGE plpgsql STABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	bounded record;
BEGIN
	PERFORM imgpipe.next_run(job.schedule, now(), CASE job.time_zone WHEN 'default' THEN 'UTC' ELSE job.time_zone END);
	PERFORM imgpipe.check_command(job.command);
	FOR bounded IN SELECT * FROM (VALUES ('max_running', job.max_running, 64), ('max_attempts', job.max_attempts, 100)) v (name, value, maximum) LOOP
		IF (bounded.value BETWEEN 1 AND bounded.maximum) IS NOT TRUE THEN
			RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
				MESSAGE = format('%s must be between 1 and %s', bounded.name, bounded.maximum),
				DETAIL = format('It is %s.', coalesce(bounded.value::text, 'NULL')),
				HINT = 'Choose a value within these bounds.';
		END IF;
	END LOOP;
	FOR bounded IN SELECT * FROM (VALUES ('timeout', job.timeout), ('retry_delay', job.retry_delay)) v (name, value) LOOP
		IF (bounded.value BETWEEN interval '0' AND interval '24 days') IS NOT TRUE THEN
			RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
				MESSAGE = format('%s must be between 0 and 24 days', bounded.name),
				DETAIL = format('It is %s.', coalesce(bounded.value::text, 'NULL')),
				HINT = 'Choose a value within these bounds; a timeout of 0 is none.';
		END IF;
	END LOOP;
	IF (job.catch_up = ANY ('{none,once,all}')) IS NOT TRUE THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
			MESSAGE = 'catch_up must be none, once or all',
			DETAIL = format('It is %s.', coalesce('"' || job.catch_up || '"', 'NULL')),
			HINT = 'It says what becomes of due times that pass while the job cannot run: skipped, one run for all, or one for each.';
	END IF;
	IF job.enabled IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed',
			MESSAGE = 'enabled must be true or false',
			DETAIL = 'It is NULL.',
			HINT = 'A job that is not enabled runs only when run_job() asks for it.';
	END IF;
END
$$;
COMMENT ON FUNCTION imgpipe.check_job(imgpipe.jobs) IS
'Raises what schedule() raises for a job''s schedule, time zone, command and parameters.';

CREATE FUNCTION imgpipe.own_job(name text) RETURNS imgpipe.jobs
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	job imgpipe.jobs;
BEGIN
	SELECT * INTO job FROM imgpipe.jobs j WHERE j.name = own_job.name AND pg_has_role(j.owner::oid, 'USAGE') FOR NO KEY UPDATE;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'undefined_object',
			MESSAGE = format('job %s does not exist', coalesce('"' || name || '"', 'NULL')),
			DETAIL = 'There is none of that name, or it belongs to a role that you are not a member of.',
			HINT = 'SELECT name FROM imgpipe.jobs; shows those that you may change.';
	END IF;
	RETURN job;
END
$$;
COMMENT ON FUNCTION imgpipe.own_job(text) IS
'The job of that name, locked until the end of the transaction. Raises 42704 where the current role has none.';

CREATE FUNCTION imgpipe.schedule(name text, schedule text, command text, time_zone text DEFAULT 'default',
	max_running integer DEFAULT 1, timeout interval DEFAULT '0', max_attempts integer DEFAULT 1,
	retry_delay interval DEFAULT '10 seconds', catch_up text DEFAULT 'once', enabled boolean DEFAULT true) RETURNS integer
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
	job imgpipe.jobs;
	problem record;
BEGIN
	IF (schedule.name ~ '^[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}$') IS NOT TRUE THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_name',
			MESSAGE = format('job name %s is not valid', coalesce('"' || schedule.name || '"', 'NULL')),
			HINT = 'A name has 1 to 63 letters of ASCII, digits, "_", "." and "-", and begins with none of the last two.';
	END IF;
	IF schedule.schedule IS NULL OR schedule.command IS NULL OR schedule.time_zone IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed',
			MESSAGE = format('job "%s" needs a schedule, a command and a time zone', schedule.name),
			DETAIL = 'One of them is NULL.',
			HINT = 'For example: SELECT imgpipe.schedule(''nightly'', ''30 2 * * *'', ''VACUUM'', time_zone => ''Europe/Berlin'');';
	END IF;
	job.schedule := schedule.schedule;
	job.command := schedule.command;
	job.time_zone := schedule.time_zone;
	job.max_running := schedule.max_running;
	job.timeout := schedule.timeout;
	job.max_attempts := schedule.max_attempts;
	job.retry_delay := schedule.retry_delay;
	job.catch_up := schedule.catch_up;
	job.enabled := schedule.enabled;
	PERFORM imgpipe.check_job(job);
	SELECT * INTO problem FROM imgpipe.job_owner_problem(current_user::regrole);
	IF problem.error IS NOT NULL THEN
		RAISE EXCEPTION USING ERRCODE = problem.sqlstate, MESSAGE = problem.error,
			DETAIL = 'A job runs in a worker that connects as its owner.', HINT = problem.hint;
	END IF;
	BEGIN
		INSERT INTO imgpipe.jobs AS j (name, schedule, time_zone, command, enabled, max_running, timeout, max_attempts, retry_delay, catch_up)
			VALUES (schedule.name, job.schedule, job.time_zone, job.command, job.enabled, job.max_running, job.timeout,
				job.max_attempts, job.retry_delay, job.catch_up)
			ON CONFLICT (name) DO UPDATE SET schedule = EXCLUDED.schedule, time_zone = EXCLUDED.time_zone, command = EXCLUDED.command,
				enabled = EXCLUDED.enabled, max_running = EXCLUDED.max_running, timeout = EXCLUDED.timeout,
				max_attempts = EXCLUDED.max_attempts, retry_delay = EXCLUDED.retry_delay, catch_up = EXCLUDED.catch_up,
				-- The same again, as from a script that is run at each deployment, leaves its due times alone.
				due_after = CASE WHEN (j.schedule, j.time_zone, j.enabled) = (EXCLUDED.schedule, EXCLUDED.time_zone, EXCLUDED.enabled)
					THEN j.due_after ELSE EXCLUDED.due_after END,
				next_due_at = CASE WHEN (j.schedule, j.time_zone, j.enabled) = (EXCLUDED.schedule, EXCLUDED.time_zone, EXCLUDED.enabled)
					THEN j.next_due_at END
			RETURNING j.job_id INTO job.job_id;
	EXCEPTION WHEN insufficient_privilege THEN
		IF NOT (has_table_privilege('imgpipe.jobs', 'SELECT') AND has_table_privilege('imgpipe.jobs', 'INSERT')
				AND has_table_privilege('imgpipe.jobs', 'UPDATE')) THEN
			RAISE;
		END IF;
		RAISE EXCEPTION USING ERRCODE = 'duplicate_object',
			MESSAGE = format('job "%s" already exists', schedule.name),
			DETAIL = 'It belongs to a role that you are not a member of.',
			HINT = 'Choose another name.';
	END;
	PERFORM imgpipe.wake_controller();
	IF job.enabled THEN
		PERFORM imgpipe.require_workers(format('job "%s" waits for workers', name), or_wait => true);
	END IF;
	RETURN job.job_id;
END
$$;
COMMENT ON FUNCTION imgpipe.schedule(text, text, text, text, integer, interval, integer, interval, text, boolean) IS
'Runs an SQL command on a schedule and returns the job_id. Where the current role, or one that it is a member of, has a job of that name, that job gets this schedule, command and parameters; it keeps its owner. See next_run() for schedules and docs/scheduling.md for all of it.
command: one statement runs as if typed in psql, so VACUUM, CREATE INDEX CONCURRENTLY and CALL with COMMIT work; several, parted by semicolons, run in one transaction unless they hold BEGIN and COMMIT. time_zone: whose clock the schedule goes by; default: the database''s TimeZone. max_running (1 to 64): runs at the same time; a due time that finds them all going on waits. timeout (up to 24 days; 0: none) cancels a run. max_attempts (1 to 100) and retry_delay (up to 24 days): a run that fails, is interrupted or runs into its timeout is tried again after retry_delay, doubled each time up to an hour. catch_up: none, once or all, for due times that passed while the server was down or the job could not run.
The command runs as the current role in a worker of its own, whose search_path and settings are those of the role and the database. imgpipe.job_runs shows what came of it, imgpipe.job_status what is next. A role needs USAGE on schema imgpipe and SELECT, INSERT, UPDATE and DELETE on imgpipe.jobs, and before PostgreSQL 17 LOGIN. Without shared_preload_libraries = ''imgpipe'' jobs are kept and do not run, and a warning says so. Raises 42602 for a name, 22023 and 22004 for a schedule, time zone or parameter, 42601 for a command that is no SQL, 0A000 for COPY to or from the client, 28000 and 42501 for missing rights, 42710 for a name that another role has.';

CREATE FUNCTION imgpipe.alter_job(name text, schedule text DEFAULT NULL, command text DEFAULT NULL, time_zone text DEFAULT NULL,
	max_running integer DEFAULT NULL, timeout interval DEFAULT NULL, max_attempts integer DEFAULT NULL,
	retry_delay interval DEFAULT NULL, catch_up text DEFAULT NULL, enabled boolean DEFAULT NULL) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
	old_job imgpipe.jobs := imgpipe.own_job(alter_job.name);
	job imgpipe.jobs := old_job;
	afresh boolean;
BEGIN
	job.schedule := coalesce(alter_job.schedule, job.schedule);
	job.command := coalesce(alter_job.command, job.command);
	job.time_zone := coalesce(alter_job.time_zone, job.time_zone);
	job.max_running := coalesce(alter_job.max_running, job.max_running);
	job.timeout := coalesce(alter_job.timeout, job.timeout);
	job.max_attempts := coalesce(alter_job.max_attempts, job.max_attempts);
	job.retry_delay := coalesce(alter_job.retry_delay, job.retry_delay);
	job.catch_up := coalesce(alter_job.catch_up, job.catch_up);
	job.enabled := coalesce(alter_job.enabled, job.enabled);
	PERFORM imgpipe.check_job(job);
	-- What came due under another schedule, or while the job was off, is not caught up on.
	afresh := (job.schedule, job.time_zone, job.enabled) IS DISTINCT FROM (old_job.schedule, old_job.time_zone, old_job.enabled);
	UPDATE imgpipe.jobs j SET schedule = job.schedule, command = job.command, time_zone = job.time_zone, max_running = job.max_running,
			timeout = job.timeout, max_attempts = job.max_attempts, retry_delay = job.retry_delay, catch_up = job.catch_up, enabled = job.enabled,
			due_after = CASE WHEN afresh THEN imgpipe.scheduler_clock() ELSE j.due_after END,
			next_due_at = CASE WHEN afresh THEN NULL ELSE j.next_due_at END
		WHERE j.job_id = job.job_id;
	PERFORM imgpipe.wake_controller();
	IF job.enabled THEN
		PERFORM imgpipe.require_workers(format('job "%s" waits for workers', name), or_wait => true);
	END IF;
END
$$;
COMMENT ON FUNCTION imgpipe.alter_job(text, text, text, text, integer, interval, integer, interval, text, boolean) IS
'Changes what is given of a job, and leaves the rest as it is; the parameters are those of schedule(). A new schedule, time zone or enabled => true counts from now on: due times before that are not caught up on. enabled => false also ends its retries. Runs that go on are not touched. Raises 42704 where the current role has no such job, and what schedule() raises.';

CREATE FUNCTION imgpipe.unschedule(name text) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	job imgpipe.jobs := imgpipe.own_job(name);
BEGIN
	DELETE FROM imgpipe.jobs j WHERE j.job_id = job.job_id;
END
$$;
COMMENT ON FUNCTION imgpipe.unschedule(text) IS
'Drops a job. A run that goes on goes on to its end (job_runs.pid is for pg_cancel_backend()); its job_runs stay for as long as those of other jobs. Raises 42704 where the current role has no such job.';

CREATE FUNCTION imgpipe.run_job(name text) RETURNS bigint
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	job imgpipe.jobs := imgpipe.own_job(name);
BEGIN
	PERFORM imgpipe.require_workers(format('job "%s" cannot run', name));
	UPDATE imgpipe.jobs j SET requested_run = coalesce(j.requested_run, nextval('imgpipe.job_runs_run_id_seq'))
		WHERE j.job_id = job.job_id
		RETURNING j.requested_run INTO job.requested_run;
	PERFORM imgpipe.wake_controller();
	RETURN job.requested_run;
END
$$;
COMMENT ON FUNCTION imgpipe.run_job(text) IS
'Runs a job as soon as the transaction commits, whatever its schedule says and also where it is not enabled, and returns the run_id that imgpipe.job_runs will show it by. It waits where max_running runs of the job go on; asked for again before it began, it is the same run. The schedule goes on as before. Needs USAGE on sequence imgpipe.job_runs_run_id_seq. Raises 55000 where imgpipe is not in shared_preload_libraries, 42704 where the current role has no such job.';


/* The runs of jobs, as the controller and the job workers use them.  Only the owner calls these. */

CREATE FUNCTION imgpipe.job_time_zone(time_zone text) RETURNS text
	LANGUAGE sql STABLE STRICT PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT CASE WHEN time_zone <> 'default' THEN time_zone
		ELSE coalesce((SELECT substr(setting, position('=' IN setting) + 1)
				FROM pg_db_role_setting s CROSS JOIN LATERAL unnest(s.setconfig) setting
				WHERE s.setdatabase = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
					AND s.setrole = 0 AND setting ILIKE 'timezone=%'),
			current_setting('TimeZone')) END
$$;
COMMENT ON FUNCTION imgpipe.job_time_zone(text) IS
'The time zone of a job: for default, what ALTER DATABASE ... SET TimeZone says, or else the server''s.';
REVOKE EXECUTE ON FUNCTION imgpipe.job_time_zone(text) FROM PUBLIC;

CREATE FUNCTION imgpipe.insert_job_run(job imgpipe.jobs, run_id bigint, cause text, due_at timestamptz, missed integer, attempt integer) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	problem record;
BEGIN
	SELECT * INTO problem FROM imgpipe.job_owner_problem(job.owner);
	run_id := coalesce(run_id, nextval('imgpipe.job_runs_run_id_seq'));
	INSERT INTO imgpipe.job_runs (run_id, job_id, name, owner, command, cause, due_at, missed, attempt, status)
		VALUES (run_id, job.job_id, job.name, job.owner, job.command, insert_job_run.cause, insert_job_run.due_at,
			insert_job_run.missed, insert_job_run.attempt, 'starting');
	IF problem.error IS NOT NULL THEN
		PERFORM imgpipe.finish_job_run(run_id, 'failed', sqlstate => problem.sqlstate, error => problem.error, hint => problem.hint);
	END IF;
END
$$;
COMMENT ON FUNCTION imgpipe.insert_job_run(imgpipe.jobs, bigint, text, timestamptz, integer, integer) IS
'Records a run that a worker is to be started for, or its failure where the owner may not log in.';
REVOKE EXECUTE ON FUNCTION imgpipe.insert_job_run(imgpipe.jobs, bigint, text, timestamptz, integer, integer) FROM PUBLIC;

CREATE FUNCTION imgpipe.begin_scheduled_runs(job imgpipe.jobs, clock timestamptz, room integer) RETURNS integer
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	zone CONSTANT text := imgpipe.job_time_zone(job.time_zone);
	last record;
	begun integer := 0;
BEGIN
	IF imgpipe.schedule_kind(job.schedule) = 'reboot' THEN
		IF pg_postmaster_start_time() > job.due_after AND room > 0 THEN
			job.due_after := pg_postmaster_start_time();
			PERFORM imgpipe.insert_job_run(job, NULL, 'schedule', job.due_after, 0, 1);
			begun := 1;
		END IF;
	-- The clock was set back. A schedule of some hours waits for up to three until it is where it was, so that nothing runs twice.
	ELSIF job.due_after > clock + (CASE imgpipe.schedule_kind(job.schedule) WHEN 'calendar' THEN interval '3 hours' ELSE interval '1 minute' END) THEN
		job.due_after := clock;
	ELSIF job.catch_up = 'all' THEN
		job.next_due_at := imgpipe.next_run(job.schedule, job.due_after, zone);
		WHILE job.next_due_at <= clock AND begun < room LOOP
			PERFORM imgpipe.insert_job_run(job, NULL, 'schedule', job.next_due_at, 0, 1);
			begun := begun + 1;
			job.due_after := job.next_due_at;
			job.next_due_at := imgpipe.next_run(job.schedule, job.due_after, zone);
		END LOOP;
	ELSE
		SELECT * INTO last FROM imgpipe.last_run(job.schedule, job.due_after, clock, zone);
		IF job.catch_up = 'none' AND last.due_at <= clock - interval '1 minute' THEN
			INSERT INTO imgpipe.job_runs (job_id, name, owner, command, cause, due_at, missed, status, finished_at, error)
				VALUES (job.job_id, job.name, job.owner, job.command, 'schedule', last.due_at, last.due_times - 1, 'skipped', clock,
					'the job could not run within a minute of its due time, and catch_up is none');
			job.due_after := last.due_at;
		ELSIF last.due_at IS NOT NULL AND room > 0 THEN
			PERFORM imgpipe.insert_job_run(job, NULL, 'schedule', last.due_at, last.due_times - 1, 1);
			begun := 1;
			job.due_after := last.due_at;
			-- This one stands for what is still to be tried again, too.
			UPDATE imgpipe.job_runs r SET retry_at = NULL
				WHERE r.job_id = job.job_id AND r.retry_at IS NOT NULL AND r.cause = 'schedule' AND r.due_at < last.due_at;
		END IF;
	END IF;
	job.next_due_at := imgpipe.next_run(job.schedule, job.due_after, zone);
	UPDATE imgpipe.jobs j SET due_after = job.due_after, next_due_at = job.next_due_at
		WHERE j.job_id = job.job_id AND (j.due_after, j.next_due_at) IS DISTINCT FROM (job.due_after, job.next_due_at);
	RETURN begun;
END
$$;
COMMENT ON FUNCTION imgpipe.begin_scheduled_runs(imgpipe.jobs, timestamptz, integer) IS
'Records the runs of a job that are due at that time on the clock, at most room of them, and advances its due_after; returns how many.';
REVOKE EXECUTE ON FUNCTION imgpipe.begin_scheduled_runs(imgpipe.jobs, timestamptz, integer) FROM PUBLIC;

CREATE FUNCTION imgpipe.begin_runs_of_job(job imgpipe.jobs, clock timestamptz, room integer) RETURNS integer
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	begun integer := 0;
	failed record;
BEGIN
	room := least(room, job.max_running - (SELECT count(*) FROM imgpipe.job_runs r
		WHERE r.job_id = job.job_id AND r.status = ANY ('{starting,running}')));
	IF job.requested_run IS NOT NULL AND room > 0 THEN
		UPDATE imgpipe.jobs j SET requested_run = NULL WHERE j.job_id = job.job_id;
		PERFORM imgpipe.insert_job_run(job, job.requested_run, 'request', clock, 0, 1);
		begun := 1;
	END IF;
	IF job.enabled AND (job.next_due_at IS NULL OR job.next_due_at <= clock OR job.due_after > clock OR job.next_due_at = 'infinity') THEN
		begun := begun + imgpipe.begin_scheduled_runs(job, clock, room - begun);
	END IF;
	FOR failed IN SELECT r.* FROM imgpipe.job_runs r
		WHERE r.job_id = job.job_id AND r.retry_at <= clock ORDER BY r.due_at, r.run_id
	LOOP
		EXIT WHEN begun >= room;
		UPDATE imgpipe.job_runs r SET retry_at = NULL WHERE r.run_id = failed.run_id;
		PERFORM imgpipe.insert_job_run(job, NULL, failed.cause, failed.due_at, failed.missed, failed.attempt + 1);
		begun := begun + 1;
	END LOOP;
	RETURN begun;
END
$$;
COMMENT ON FUNCTION imgpipe.begin_runs_of_job(imgpipe.jobs, timestamptz, integer) IS
'Records the runs of a job that may begin now, at most room of them: what run_job() asked for, what is due, and what is to be tried again; returns how many.';
REVOKE EXECUTE ON FUNCTION imgpipe.begin_runs_of_job(imgpipe.jobs, timestamptz, integer) FROM PUBLIC;

CREATE FUNCTION imgpipe.begin_job_runs(alive bigint[], clock timestamptz DEFAULT imgpipe.scheduler_clock(),
	max_jobs integer DEFAULT imgpipe.setting('imgpipe.max_jobs')::integer) RETURNS bigint
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	job imgpipe.jobs;
	lost bigint;
	room integer;
	error_code text;
	error_message text;
BEGIN
	FOR lost IN SELECT r.run_id FROM imgpipe.job_runs r WHERE r.status = 'running' AND r.run_id <> ALL (alive) LOOP
		PERFORM imgpipe.lose_job_run(lost, '57P02', 'the server, or the worker, ended in the midst of the run');
	END LOOP;
	UPDATE imgpipe.job_runs r SET retry_at = NULL
		WHERE r.retry_at IS NOT NULL
			AND NOT EXISTS (SELECT FROM imgpipe.jobs j WHERE j.job_id = r.job_id AND (j.enabled OR r.cause = 'request'));
	UPDATE imgpipe.job_runs r SET status = 'cancelled', finished_at = clock, error = 'the job was dropped, or given to another role, before the run began'
		WHERE r.status = 'starting' AND r.run_id <> ALL (alive)
			AND NOT EXISTS (SELECT FROM imgpipe.jobs j WHERE j.job_id = r.job_id AND j.owner = r.owner);

	room := max_jobs - (SELECT count(*) FROM imgpipe.job_runs r WHERE r.status = ANY ('{starting,running}'));
	-- A job whose row somebody has just changed, and not yet committed, is left for the next round.
	FOR job IN
		SELECT j.* FROM imgpipe.jobs j
			WHERE j.requested_run IS NOT NULL
				OR (j.enabled AND (j.next_due_at IS NULL OR j.next_due_at <= clock OR j.due_after > clock OR j.next_due_at = 'infinity'))
				OR EXISTS (SELECT FROM imgpipe.job_runs r WHERE r.job_id = j.job_id AND r.retry_at <= clock)
			ORDER BY j.next_due_at, j.job_id
			FOR NO KEY UPDATE SKIP LOCKED
	LOOP
		BEGIN
			room := room - imgpipe.begin_runs_of_job(job, clock, room);
		EXCEPTION WHEN data_exception OR integrity_constraint_violation OR syntax_error_or_access_rule_violation THEN
			-- A row that no function of ours has written, or a time zone that is gone. It must not keep the others from running.
			GET STACKED DIAGNOSTICS error_code = RETURNED_SQLSTATE, error_message = MESSAGE_TEXT;
			INSERT INTO imgpipe.job_runs (job_id, name, owner, command, cause, due_at, status, finished_at, sqlstate, error, hint)
				VALUES (job.job_id, job.name, job.owner, job.command, 'schedule', clock, 'failed', clock, error_code, error_message,
					'The job was disabled. Set it right with imgpipe.alter_job(), with enabled => true.');
			UPDATE imgpipe.jobs j SET enabled = false, due_after = clock, next_due_at = NULL, requested_run = NULL WHERE j.job_id = job.job_id;
		END;
	END LOOP;

	-- Milliseconds until there is something to do again; where something waits for room, a second.
	RETURN (SELECT greatest(1, least(30000, CASE WHEN min(due.at) <= clock THEN 1000 ELSE extract(epoch FROM min(due.at) - clock) * 1000 + 1 END))
		FROM (SELECT j.next_due_at AS at FROM imgpipe.jobs j WHERE j.enabled AND isfinite(j.next_due_at)
			UNION ALL SELECT r.retry_at FROM imgpipe.job_runs r WHERE r.retry_at IS NOT NULL
			UNION ALL SELECT clock FROM imgpipe.job_runs r WHERE r.status = 'starting'
			UNION ALL SELECT clock FROM imgpipe.jobs j WHERE j.requested_run IS NOT NULL) due);
END
$$;
COMMENT ON FUNCTION imgpipe.begin_job_runs(bigint[], timestamptz, integer) IS
'One look at all jobs: runs whose worker is not among those that are alive are interrupted, and those that may begin at that time on the clock are recorded as starting, so many that max_jobs run at once. Returns in how many milliseconds the next look is worth it.';
REVOKE EXECUTE ON FUNCTION imgpipe.begin_job_runs(bigint[], timestamptz, integer) FROM PUBLIC;

CREATE FUNCTION imgpipe.take_job_run(run_id bigint, pid integer, OUT name text, OUT command text, OUT timeout_ms bigint) RETURNS record
	LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	UPDATE imgpipe.job_runs r SET status = 'running', pid = take_job_run.pid, started_at = imgpipe.scheduler_clock(), sqlstate = NULL, error = NULL, hint = NULL
		FROM imgpipe.jobs j
		WHERE r.run_id = take_job_run.run_id AND r.status = 'starting' AND j.job_id = r.job_id AND j.owner = r.owner
		RETURNING r.name, r.command, (extract(epoch FROM j.timeout) * 1000)::bigint INTO take_job_run.name, take_job_run.command, timeout_ms;
END
$$;
COMMENT ON FUNCTION imgpipe.take_job_run(bigint, integer) IS
'A worker has come up for that run and is about to execute its command; NULL where it must not.';
REVOKE EXECUTE ON FUNCTION imgpipe.take_job_run(bigint, integer) FROM PUBLIC;

CREATE FUNCTION imgpipe.finish_job_run(run_id bigint, status text, rows bigint DEFAULT NULL, messages text DEFAULT NULL,
	sqlstate text DEFAULT NULL, error text DEFAULT NULL, detail text DEFAULT NULL, hint text DEFAULT NULL, context text DEFAULT NULL) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	UPDATE imgpipe.job_runs r SET status = finish_job_run.status, finished_at = imgpipe.scheduler_clock(),
			rows = finish_job_run.rows, messages = finish_job_run.messages, sqlstate = finish_job_run.sqlstate,
			error = finish_job_run.error, detail = finish_job_run.detail, hint = finish_job_run.hint, context = finish_job_run.context,
			retry_at = CASE WHEN finish_job_run.status = ANY ('{failed,interrupted}') THEN
				(SELECT imgpipe.scheduler_clock() + least(j.retry_delay * 2 ^ least(r.attempt - 1, 20), greatest(j.retry_delay, interval '1 hour'))
					FROM imgpipe.jobs j WHERE j.job_id = r.job_id AND r.attempt < j.max_attempts) END
		WHERE r.run_id = finish_job_run.run_id AND r.status = ANY ('{starting,running}');
	PERFORM imgpipe.wake_controller();
END
$$;
COMMENT ON FUNCTION imgpipe.finish_job_run(bigint, text, bigint, text, text, text, text, text, text) IS
'Records how a run ended, and when it is tried again where it failed and its job has attempts left.';
REVOKE EXECUTE ON FUNCTION imgpipe.finish_job_run(bigint, text, bigint, text, text, text, text, text, text) FROM PUBLIC;

CREATE FUNCTION imgpipe.lose_job_run(run_id bigint, sqlstate text, error text) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	PERFORM imgpipe.finish_job_run(r.run_id, CASE r.status WHEN 'starting' THEN 'failed' ELSE 'interrupted' END,
			sqlstate => lose_job_run.sqlstate, error => lose_job_run.error)
		FROM imgpipe.job_runs r WHERE r.run_id = lose_job_run.run_id AND r.status = ANY ('{starting,running}');
END
$$;
COMMENT ON FUNCTION imgpipe.lose_job_run(bigint, text, text) IS
'The worker of a run has ended without saying how the run ended: it failed where the worker never came to it, and was interrupted where it did.';
REVOKE EXECUTE ON FUNCTION imgpipe.lose_job_run(bigint, text, text) FROM PUBLIC;

CREATE FUNCTION imgpipe.prune_job_runs(clock timestamptz DEFAULT imgpipe.scheduler_clock()) RETURNS bigint
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	kept CONSTANT interval := imgpipe.setting('imgpipe.job_history');
	errors_kept CONSTANT interval := imgpipe.setting('imgpipe.job_error_history');
	pruned bigint;
BEGIN
	DELETE FROM imgpipe.job_runs r WHERE r.run_id = ANY (ARRAY(
		SELECT o.run_id FROM imgpipe.job_runs o
			WHERE o.finished_at < clock - CASE o.status WHEN 'succeeded' THEN kept ELSE errors_kept END
				AND o.finished_at < clock - least(kept, errors_kept) AND o.retry_at IS NULL
			LIMIT 1000));
	GET DIAGNOSTICS pruned = ROW_COUNT;
	RETURN pruned;
END
$$;
COMMENT ON FUNCTION imgpipe.prune_job_runs(timestamptz) IS
'Deletes up to 1000 successful runs older than imgpipe.job_history and others older than imgpipe.job_error_history, and returns how many. The controller does this by itself.';
REVOKE EXECUTE ON FUNCTION imgpipe.prune_job_runs(timestamptz) FROM PUBLIC;

CREATE VIEW imgpipe.job_status WITH (security_invoker = true) AS
	SELECT j.job_id, j.name, j.owner, j.schedule, j.time_zone,
		CASE
			WHEN open.running OPERATOR(pg_catalog.>) 0 THEN 'running'
			WHEN open.starting OPERATOR(pg_catalog.>) 0 THEN 'starting'
			WHEN NOT imgpipe.workers_available() THEN 'stopped'
			WHEN open.retry_at IS NOT NULL THEN 'retrying'
			WHEN j.requested_run IS NOT NULL OR (j.enabled AND j.next_due_at OPERATOR(pg_catalog.<=) imgpipe.scheduler_clock()) THEN 'waiting'
			WHEN NOT j.enabled THEN 'disabled'
			ELSE 'scheduled'
		END AS state,
		CASE WHEN j.enabled THEN LEAST(j.next_due_at, open.retry_at) ELSE open.retry_at END AS next_run_at,
		CASE
			WHEN NOT imgpipe.workers_available() THEN 'imgpipe is not in shared_preload_libraries'
			WHEN open.error IS NOT NULL THEN open.error
			WHEN (j.requested_run IS NOT NULL OR (j.enabled AND j.next_due_at OPERATOR(pg_catalog.<=) imgpipe.scheduler_clock()))
					AND open.running OPERATOR(pg_catalog.+) open.starting OPERATOR(pg_catalog.<) j.max_running
				THEN 'waits for the controller, or for imgpipe.max_jobs'
		END AS problem,
		last.run_id AS last_run_id, last.status AS last_status, last.finished_at AS last_finished_at, last.duration AS last_duration,
		last.error AS last_error
	FROM imgpipe.jobs j
		CROSS JOIN LATERAL (
			SELECT pg_catalog.count(*) FILTER (WHERE r.status OPERATOR(pg_catalog.=) 'running') AS running,
				pg_catalog.count(*) FILTER (WHERE r.status OPERATOR(pg_catalog.=) 'starting') AS starting,
				pg_catalog.max(r.error) FILTER (WHERE r.status OPERATOR(pg_catalog.=) 'starting') AS error,
				pg_catalog.min(r.retry_at) AS retry_at
			FROM imgpipe.job_runs r
			WHERE r.job_id OPERATOR(pg_catalog.=) j.job_id
				AND (r.status OPERATOR(pg_catalog.=) ANY ('{starting,running}') OR r.retry_at IS NOT NULL)) open
		LEFT JOIN LATERAL (
			SELECT r.* FROM imgpipe.job_runs r
			WHERE r.job_id OPERATOR(pg_catalog.=) j.job_id AND r.finished_at IS NOT NULL
			ORDER BY r.run_id DESC LIMIT 1) last ON true;
COMMENT ON VIEW imgpipe.job_status IS
'One row a job: what it is doing now, when it runs next, why it does not run, and how its last run ended. state: scheduled, running, starting, retrying (its last run failed and next_run_at says when it is tried again), waiting (due, or asked for, and not begun; problem says why), disabled, or stopped (imgpipe is not in shared_preload_libraries). Needs SELECT on jobs and job_runs.';

/*
 * The purge ledger; see src/retention/.
 *
 * Each entry holds the hash of the one before and a hash of itself over that,
 * so a row that is changed, missing or moved breaks the chain.  Who can write
 * to the table could write the whole chain anew: therefore the server log, and
 * a Kafka topic where one is named, have the hash of every entry, and
 * verify_ledger() takes one as an anchor.  No
 * entry holds a key, a file name or a person.
 */

CREATE TABLE imgpipe.purge_ledger (
	entry bigint PRIMARY KEY,
	cause text NOT NULL CHECK (cause OPERATOR(pg_catalog.=) ANY ('{retention,erasure,release}')),
	deadline_from timestamptz,
	deadline_to timestamptz,
	row_counts jsonb NOT NULL,
	bytes bigint NOT NULL,
	disk_bytes bigint NOT NULL,
	by_source jsonb NOT NULL,
	purged_at timestamptz NOT NULL,
	lateness interval GENERATED ALWAYS AS (purged_at OPERATOR(pg_catalog.-) deadline_to) STORED,
	lsn pg_lsn NOT NULL,
	previous_hash bytea NOT NULL,
	hash bytea NOT NULL
);
COMMENT ON TABLE imgpipe.purge_ledger IS
'What was purged: one row for each span of deadlines whose partitions were dropped, each erasure and each released hold. Written in the transaction that drops or deletes, so that it and the data agree whatever happens. verify_ledger() checks it.';
COMMENT ON COLUMN imgpipe.purge_ledger.cause IS 'retention: the deadline came; erasure: erase_images(); release: a legal hold ended and with it its copies.';
COMMENT ON COLUMN imgpipe.purge_ledger.deadline_from IS 'First purge deadline of what was dropped; NULL for an erasure and a release.';
COMMENT ON COLUMN imgpipe.purge_ledger.deadline_to IS 'End of these deadlines, exclusive.';
COMMENT ON COLUMN imgpipe.purge_ledger.row_counts IS 'Rows by table, and under held how many of the images were copied out for legal holds.';
COMMENT ON COLUMN imgpipe.purge_ledger.bytes IS 'Size of the image files.';
COMMENT ON COLUMN imgpipe.purge_ledger.disk_bytes IS 'Size of the dropped tables with their indexes; 0 for an erasure.';
COMMENT ON COLUMN imgpipe.purge_ledger.by_source IS 'Images and bytes by source; under other what names no source of imgpipe.sources.';
COMMENT ON COLUMN imgpipe.purge_ledger.lateness IS 'How long after the last deadline.';
COMMENT ON COLUMN imgpipe.purge_ledger.lsn IS 'Where the write-ahead log stood.';
COMMENT ON COLUMN imgpipe.purge_ledger.previous_hash IS 'hash of the entry before; 32 zero bytes in the first.';
COMMENT ON COLUMN imgpipe.purge_ledger.hash IS 'imgpipe.ledger_hash() of the row.';

CREATE TABLE imgpipe.purge_ledger_head (
	only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
	entry bigint NOT NULL DEFAULT 0,
	hash bytea NOT NULL DEFAULT '\x0000000000000000000000000000000000000000000000000000000000000000'
);
COMMENT ON TABLE imgpipe.purge_ledger_head IS
'The last entry of the ledger, so that it is missed where it is missing. Its lock puts entries in order.';

SELECT pg_catalog.pg_extension_config_dump('imgpipe.purge_ledger', '');
SELECT pg_catalog.pg_extension_config_dump('imgpipe.purge_ledger_head', '');

CREATE FUNCTION imgpipe.ledger_hash(ledger_entry imgpipe.purge_ledger) RETURNS bytea
	LANGUAGE sql STABLE STRICT PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT sha256((ledger_entry).previous_hash || convert_to(jsonb_build_array(
		(ledger_entry).entry, (ledger_entry).cause,
		extract(epoch FROM (ledger_entry).deadline_from), extract(epoch FROM (ledger_entry).deadline_to),
		(ledger_entry).row_counts, (ledger_entry).bytes, (ledger_entry).disk_bytes, (ledger_entry).by_source,
		extract(epoch FROM (ledger_entry).purged_at), (ledger_entry).lsn::text)::text, 'UTF8'))
$$;
COMMENT ON FUNCTION imgpipe.ledger_hash(imgpipe.purge_ledger) IS
'SHA-256 over the previous hash and the UTF-8 text of a JSON array, as jsonb prints it, of: entry, cause, deadline_from and deadline_to in seconds since 1970, row_counts, bytes, disk_bytes, by_source, purged_at in seconds since 1970, lsn.';

CREATE FUNCTION imgpipe.enter_purge(cause text, deadline_from timestamptz, deadline_to timestamptz,
	row_counts jsonb, bytes bigint, disk_bytes bigint, by_source jsonb) RETURNS bigint
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	head imgpipe.purge_ledger_head;
	new_entry imgpipe.purge_ledger;
BEGIN
	SELECT * INTO head FROM imgpipe.purge_ledger_head FOR UPDATE;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'data_corrupted',
			MESSAGE = 'the head of the purge ledger is missing',
			HINT = 'SELECT * FROM imgpipe.verify_ledger(); then put the last entry and its hash into imgpipe.purge_ledger_head.';
	END IF;
	new_entry.entry := head.entry + 1;
	new_entry.cause := cause;
	new_entry.deadline_from := deadline_from;
	new_entry.deadline_to := deadline_to;
	new_entry.row_counts := row_counts;
	new_entry.bytes := bytes;
	new_entry.disk_bytes := disk_bytes;
	new_entry.by_source := by_source;
	new_entry.purged_at := clock_timestamp();
	new_entry.lsn := pg_current_wal_insert_lsn();
	new_entry.previous_hash := head.hash;
	new_entry.hash := imgpipe.ledger_hash(new_entry);
	INSERT INTO imgpipe.purge_ledger (entry, cause, deadline_from, deadline_to, row_counts, bytes, disk_bytes,
			by_source, purged_at, lsn, previous_hash, hash)
		VALUES (new_entry.entry, cause, deadline_from, deadline_to, row_counts, bytes, disk_bytes,
			by_source, new_entry.purged_at, new_entry.lsn, new_entry.previous_hash, new_entry.hash);
	UPDATE imgpipe.purge_ledger_head SET entry = new_entry.entry, hash = new_entry.hash;
	RETURN new_entry.entry;
END
$$;
COMMENT ON FUNCTION imgpipe.enter_purge(text, timestamptz, timestamptz, jsonb, bigint, bigint, jsonb) IS
'Adds an entry to the purge ledger and returns its number. Entries wait for each other until their transactions end.';
REVOKE EXECUTE ON FUNCTION imgpipe.enter_purge(text, timestamptz, timestamptz, jsonb, bigint, bigint, jsonb) FROM PUBLIC;

CREATE TABLE imgpipe.ledger_anchors (
	server text NOT NULL,
	topic text NOT NULL,
	PRIMARY KEY (server, topic)
);
COMMENT ON TABLE imgpipe.ledger_anchors IS
'Kafka topics that the hash of each entry of the purge ledger is sent to. Written by send_ledger_to().';
SELECT pg_catalog.pg_extension_config_dump('imgpipe.ledger_anchors', '');

CREATE FUNCTION imgpipe.send_anchor(server text, topic text, entry bigint, hash bytea, purged_at timestamptz) RETURNS bigint
	LANGUAGE sql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT imgpipe.enqueue_message(server, topic, convert_to(imgpipe.database_identity(), 'UTF8'),
		convert_to(jsonb_build_object('database', imgpipe.database_identity(), 'entry', entry, 'hash', encode(hash, 'hex'), 'purged_at', purged_at)::text, 'UTF8'))
$$;
COMMENT ON FUNCTION imgpipe.send_anchor(text, text, bigint, bytea, timestamptz) IS
'Puts the hash of an entry of the purge ledger into the outbox: a JSON object of database, entry, hash and purged_at, with the database_identity() as its key.';
REVOKE EXECUTE ON FUNCTION imgpipe.send_anchor(text, text, bigint, bytea, timestamptz) FROM PUBLIC;

CREATE FUNCTION imgpipe.send_ledger_to(server text, topic text, send boolean DEFAULT true) RETURNS void
	LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
	DELETE FROM imgpipe.ledger_anchors a WHERE a.server = send_ledger_to.server AND a.topic = send_ledger_to.topic;
	IF send THEN
		INSERT INTO imgpipe.ledger_anchors VALUES (send_ledger_to.server, send_ledger_to.topic);
		PERFORM imgpipe.send_anchor(send_ledger_to.server, send_ledger_to.topic, h.entry, h.hash, l.purged_at)
			FROM imgpipe.purge_ledger_head h LEFT JOIN imgpipe.purge_ledger l USING (entry);
	ELSIF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'undefined_object',
			MESSAGE = format('the purge ledger is not sent to topic "%s" of server "%s"', topic, server),
			HINT = 'SELECT * FROM imgpipe.ledger_anchors; shows where it is sent.';
	END IF;
END
$$;
COMMENT ON FUNCTION imgpipe.send_ledger_to(text, text, boolean) IS
'Sends the hash of the last entry of the purge ledger, and from now on that of each new one, to a topic of an imgpipe_kafka server, through the outbox and with the rights of the extension''s owner: JSON objects of database, entry, hash and purged_at, for verify_ledger(decode(hash, ''hex'')). send false: no more. Raises 42704 for a server that does not exist and where there is nothing to end, 42602 for a topic''s name. Only the owner may, unless granted.';
REVOKE EXECUTE ON FUNCTION imgpipe.send_ledger_to(text, text, boolean) FROM PUBLIC;

-- Whatever is wrong with Kafka, nothing is kept for longer because of it.  It is deferred, so it runs as whoever commits.
CREATE FUNCTION imgpipe.anchor_ledger() RETURNS trigger
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	place imgpipe.ledger_anchors;
BEGIN
	RAISE LOG 'imgpipe: purge ledger entry % has hash %', NEW.entry, encode(NEW.hash, 'hex');
	FOR place IN SELECT a.* FROM imgpipe.ledger_anchors a LOOP
		BEGIN
			PERFORM imgpipe.send_anchor(place.server, place.topic, NEW.entry, NEW.hash, NEW.purged_at);
		EXCEPTION WHEN OTHERS THEN
			RAISE WARNING USING ERRCODE = SQLSTATE,
				MESSAGE = format('purge ledger entry %s cannot be sent to topic "%s" of server "%s"', NEW.entry, place.topic, place.server),
				DETAIL = SQLERRM,
				HINT = 'SELECT imgpipe.send_ledger_to(server, topic, send => false) ends it.';
		END;
	END LOOP;
	RETURN NULL;
END
$$;
COMMENT ON FUNCTION imgpipe.anchor_ledger() IS
'Trigger of imgpipe.purge_ledger: has the hash of each entry written to the server log, and sent to Kafka where send_ledger_to() says so, as anchors outside of the database.';
REVOKE EXECUTE ON FUNCTION imgpipe.anchor_ledger() FROM PUBLIC;

CREATE CONSTRAINT TRIGGER anchor AFTER INSERT ON imgpipe.purge_ledger
	DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION imgpipe.anchor_ledger();
-- Also where session_replication_role keeps other triggers from firing, as in the purge itself.
ALTER TABLE imgpipe.purge_ledger ENABLE ALWAYS TRIGGER anchor;

CREATE FUNCTION imgpipe.verify_ledger(anchor bytea DEFAULT NULL) RETURNS TABLE (entry bigint, problem text)
	LANGUAGE plpgsql STABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	present imgpipe.purge_ledger;
	head imgpipe.purge_ledger_head;
	expected_entry bigint := 1;
	expected_hash bytea := '\x0000000000000000000000000000000000000000000000000000000000000000';
	last_entry bigint := 0;
	anchored boolean := anchor IS NULL OR anchor = expected_hash;
BEGIN
	FOR present IN SELECT l.* FROM imgpipe.purge_ledger l ORDER BY l.entry LOOP
		entry := present.entry;
		anchored := anchored OR present.hash = anchor;
		IF present.entry > expected_entry THEN
			problem := CASE WHEN present.entry = expected_entry + 1 THEN format('entry %s before it is missing', expected_entry)
				ELSE format('entries %s to %s before it are missing', expected_entry, present.entry - 1) END;
			RETURN NEXT;
		ELSIF present.previous_hash IS DISTINCT FROM expected_hash THEN
			problem := 'it does not follow from the entry before it, which is not the one that it was entered after';
			RETURN NEXT;
		END IF;
		IF present.hash IS DISTINCT FROM imgpipe.ledger_hash(present) THEN
			problem := 'it was changed, or moved from another place';
			RETURN NEXT;
		END IF;
		expected_entry := present.entry + 1;
		expected_hash := present.hash;
		last_entry := present.entry;
	END LOOP;
	SELECT * INTO head FROM imgpipe.purge_ledger_head;
	entry := last_entry + 1;
	IF head.entry IS NULL THEN
		problem := 'the head of the ledger is missing';
		RETURN NEXT;
	ELSIF head.entry > last_entry THEN
		problem := format('entries %s to %s at the end are missing', last_entry + 1, head.entry);
		RETURN NEXT;
	ELSIF head.entry < last_entry OR head.hash IS DISTINCT FROM expected_hash THEN
		problem := format('the head says that the last entry is %s with hash %s', head.entry, encode(head.hash, 'hex'));
		RETURN NEXT;
	END IF;
	IF NOT anchored THEN
		entry := NULL;
		problem := format('no entry has the hash "%s" of the anchor: the chain was made anew, or cut off before it', encode(anchor, 'hex'));
		RETURN NEXT;
	END IF;
END
$$;
COMMENT ON FUNCTION imgpipe.verify_ledger(bytea) IS
'Follows the chain of the purge ledger and returns what is wrong with it: rows that were changed, are missing or stand in another order. No rows: it is whole. anchor: a hash from the server log, or from the topic that send_ledger_to() names, which must be among the entries; without it a chain that was written anew from the first changed entry on, or cut off and its head set right, is not told from the true one. Needs SELECT on purge_ledger and purge_ledger_head.';

/*
 * Legal holds; see src/retention/.
 *
 * A hold delays no purge.  When a partition is due, and before it is dropped,
 * the images in it that a hold is on are copied to held_images, whose
 * partitions are one for each hold: its release drops that.
 */

CREATE TABLE imgpipe.holds (
	hold_id integer PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
	case_reference text NOT NULL CHECK (case_reference OPERATOR(pg_catalog.<>) ''),
	until timestamptz,
	source text,
	source_key text,
	uploaded_by text,
	batch_id text,
	image_ids uuid[],
	received_from timestamptz,
	received_to timestamptz,
	held_by text NOT NULL DEFAULT SESSION_USER,
	held_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	ended boolean NOT NULL DEFAULT false,
	attempts integer NOT NULL DEFAULT 0,
	retry_at timestamptz NOT NULL DEFAULT '-infinity',
	last_error text,
	last_detail text,
	CHECK (source IS NOT NULL OR source_key IS NOT NULL OR uploaded_by IS NOT NULL OR batch_id IS NOT NULL
		OR image_ids IS NOT NULL OR received_from IS NOT NULL OR received_to IS NOT NULL)
);
COMMENT ON TABLE imgpipe.holds IS
'Legal holds in force; see hold_images(). An image is held where it meets all that is not NULL. A row goes with its release, together with what it says of persons.';
COMMENT ON COLUMN imgpipe.holds.until IS 'When the hold is released by itself; NULL: by release_hold().';
COMMENT ON COLUMN imgpipe.holds.ended IS 'What was held is gone and in the ledger; left is an empty table that could not be dropped.';
COMMENT ON COLUMN imgpipe.holds.retry_at IS 'Where its end failed: when it is tried again.';

CREATE TABLE imgpipe.held_images (
	hold_id integer NOT NULL,
	case_reference text NOT NULL,
	image_id uuid NOT NULL,
	content imgpipe.image NOT NULL,
	source text NOT NULL,
	source_partition integer,
	source_offset bigint,
	source_key text,
	source_timestamp timestamptz,
	batch_id text,
	uploaded_by text NOT NULL,
	received_at timestamptz NOT NULL,
	headers jsonb,
	results jsonb,
	held_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	PRIMARY KEY (hold_id, image_id)
) PARTITION BY LIST (hold_id);
ALTER TABLE imgpipe.held_images
	ALTER content SET STATISTICS 0, ALTER source_key SET STATISTICS 0, ALTER batch_id SET STATISTICS 0,
	ALTER uploaded_by SET STATISTICS 0, ALTER headers SET STATISTICS 0, ALTER results SET STATISTICS 0;
COMMENT ON TABLE imgpipe.held_images IS
'Images past their deadline that a legal hold keeps, once for each hold. Not fenced: grant SELECT to the role that may see them, and to nobody else. Renditions are not kept, they can be made again.';
COMMENT ON COLUMN imgpipe.held_images.results IS 'What processors returned for it: an array of the rows of imgpipe.results. Where these are too much for one jsonb, those of a megabyte and more have left_out_bytes, their size, in place of result.';

SELECT pg_catalog.pg_extension_config_dump('imgpipe.holds', '');
SELECT pg_catalog.pg_extension_config_dump('imgpipe.holds_hold_id_seq', '');

-- One text for three statements, and not a function of the row: that would read the bytes of every image.
CREATE FUNCTION imgpipe.hold_condition() RETURNS text
	LANGUAGE sql IMMUTABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT '(h.source IS NULL OR h.source = i.source)
		AND (h.source_key IS NULL OR h.source_key = i.source_key)
		AND (h.uploaded_by IS NULL OR h.uploaded_by = i.uploaded_by)
		AND (h.batch_id IS NULL OR h.batch_id = i.batch_id)
		AND (h.image_ids IS NULL OR i.image_id = ANY (h.image_ids))
		AND (h.received_from IS NULL OR i.received_at >= h.received_from)
		AND (h.received_to IS NULL OR i.received_at < h.received_to)
		AND (h.until IS NULL OR h.until > clock_timestamp())'
$$;
COMMENT ON FUNCTION imgpipe.hold_condition() IS
'The condition, in SQL, that a hold h is on an image i.';
REVOKE EXECUTE ON FUNCTION imgpipe.hold_condition() FROM PUBLIC;

CREATE FUNCTION imgpipe.copy_held_images(images text, results text, only_images uuid[] DEFAULT NULL) RETURNS bigint
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	-- An image that was erased while two holds are on it, and came back, is there already.
	statement CONSTANT text := 'WITH copied AS (
			INSERT INTO imgpipe.held_images (hold_id, case_reference, image_id, content, source, source_partition, source_offset,
				source_key, source_timestamp, batch_id, uploaded_by, received_at, headers, results)
			SELECT h.hold_id, h.case_reference, i.image_id, i.content, i.source, i.source_partition, i.source_offset,
				i.source_key, i.source_timestamp, i.batch_id, i.uploaded_by, i.received_at, i.headers, %s
			FROM %s i JOIN imgpipe.holds h ON %s
			WHERE $1 IS NULL OR i.image_id = ANY ($1)
			ON CONFLICT DO NOTHING
			RETURNING image_id)
		SELECT count(DISTINCT image_id) FROM copied';
	copied bigint;
BEGIN
	IF NOT EXISTS (SELECT FROM imgpipe.holds) THEN
		RETURN 0;
	END IF;
	BEGIN
		EXECUTE format(statement, coalesce('(SELECT jsonb_agg(to_jsonb(r) ORDER BY r.processor) FROM ' || results || ' r WHERE r.image_id = i.image_id)', 'NULL::jsonb'),
			images, imgpipe.hold_condition()) INTO copied USING only_images;
	EXCEPTION WHEN program_limit_exceeded THEN
		-- Nothing that a processor returns keeps an image from being purged: where it is too much for one jsonb, the large ones are left out.
		EXECUTE format(statement, format('(SELECT jsonb_agg(CASE WHEN k.together < 200000000 OR k.size < 1000000 THEN to_jsonb(k.r)
					ELSE jsonb_build_object(''image_id'', i.image_id, ''processor'', (k.r).processor, ''version'', (k.r).version, ''left_out_bytes'', k.size) END ORDER BY (k.r).processor)
				FROM (SELECT r, s.size, sum(s.size) OVER () AS together
					FROM %s r CROSS JOIN LATERAL (SELECT coalesce(pg_column_size(r.result #> ''{}''), 0) AS size) s WHERE r.image_id = i.image_id) k)', results),
			images, imgpipe.hold_condition()) INTO copied USING only_images;
	END;
	RETURN copied;
END
$$;
COMMENT ON FUNCTION imgpipe.copy_held_images(text, text, uuid[]) IS
'Copies the images that holds are on from a table like imgpipe.images (and their results from one like imgpipe.results) to held_images, and returns how many they are.';
REVOKE EXECUTE ON FUNCTION imgpipe.copy_held_images(text, text, uuid[]) FROM PUBLIC;

CREATE FUNCTION imgpipe.hold_images(case_reference text, until timestamptz DEFAULT NULL, source text DEFAULT NULL,
	source_key text DEFAULT NULL, uploaded_by text DEFAULT NULL, batch_id text DEFAULT NULL, image_ids uuid[] DEFAULT NULL,
	received_from timestamptz DEFAULT NULL, received_to timestamptz DEFAULT NULL) RETURNS bigint
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp
	SET session_replication_role = replica
	SET lock_timeout = '1s'
AS $$
DECLARE
	new_id integer;
	matched bigint;
BEGIN
	IF coalesce(case_reference, '') = '' THEN
		RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed',
			MESSAGE = 'a hold needs a case reference',
			HINT = 'imgpipe.release_hold() ends it by that name.';
	END IF;
	IF coalesce(source, source_key, uploaded_by, batch_id, image_ids::text, received_from::text, received_to::text) IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
			MESSAGE = 'a hold must say which images it is on',
			DETAIL = 'None of source, source_key, uploaded_by, batch_id, image_ids, received_from and received_to was given.',
			HINT = 'For example: SELECT imgpipe.hold_images(''2024-17'', uploaded_by => ''ada'');';
	END IF;
	IF until <= clock_timestamp() THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
			MESSAGE = 'a hold cannot end in the past',
			DETAIL = format('It would end at %s.', until),
			HINT = 'Without until it stays in force until imgpipe.release_hold().';
	END IF;
	IF received_from >= received_to OR image_ids = '{}' THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
			MESSAGE = 'no image can meet this hold',
			DETAIL = format('received_from is %s, received_to %s, image_ids %s.', coalesce(received_from::text, 'NULL'),
				coalesce(received_to::text, 'NULL'), coalesce(image_ids::text, 'NULL')),
			HINT = 'received_from is inclusive and received_to exclusive; leave out what does not matter.';
	END IF;
	INSERT INTO imgpipe.holds AS h (case_reference, until, source, source_key, uploaded_by, batch_id, image_ids, received_from, received_to)
		VALUES (case_reference, until, source, source_key, uploaded_by, batch_id, image_ids, received_from, received_to)
		RETURNING h.hold_id INTO new_id;
	EXECUTE format('CREATE TABLE imgpipe_partitions.%I PARTITION OF imgpipe.held_images FOR VALUES IN (%s)', 'held_images_' || new_id, new_id);
	EXECUTE format('ALTER TABLE imgpipe_partitions.%I ALTER content SET STATISTICS 0, ALTER source_key SET STATISTICS 0,
		ALTER batch_id SET STATISTICS 0, ALTER uploaded_by SET STATISTICS 0, ALTER headers SET STATISTICS 0, ALTER results SET STATISTICS 0',
		'held_images_' || new_id);
	EXECUTE format('SELECT count(*) FROM imgpipe.images i JOIN imgpipe.holds h ON %s WHERE h.hold_id = %s', imgpipe.hold_condition(), new_id)
		INTO matched;
	PERFORM imgpipe.wake_controller();
	RETURN matched;
END
$$;
COMMENT ON FUNCTION imgpipe.hold_images(text, timestamptz, text, text, text, text, uuid[], timestamptz, timestamptz) IS
'Puts a legal hold on the images that meet all of what is given, those that are there and those that arrive while it is in force, and returns how many there are now. Their deadlines, who sees them and when they are purged do not change: when their partition is dropped they are copied to imgpipe.held_images, until the hold is released, at until or by release_hold(case_reference). Several holds may have one case reference. Raises 22004 without a case reference, 22023 where nothing says which images, none can be meant, or until is past. Only the owner may, unless granted.';
REVOKE EXECUTE ON FUNCTION imgpipe.hold_images(text, timestamptz, text, text, text, text, uuid[], timestamptz, timestamptz) FROM PUBLIC;

CREATE FUNCTION imgpipe.fail_hold(failed integer, reason text, detail text) RETURNS void
	LANGUAGE sql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
	UPDATE imgpipe.holds h
		SET attempts = h.attempts + 1, last_error = reason, last_detail = detail, retry_at = clock_timestamp() + imgpipe.purge_back_off(h.attempts)
		WHERE h.hold_id = failed
$$;
COMMENT ON FUNCTION imgpipe.fail_hold(integer, text, text) IS
'Notes why the end of a hold did not succeed, and when it is tried again.';
REVOKE EXECUTE ON FUNCTION imgpipe.fail_hold(integer, text, text) FROM PUBLIC;

CREATE FUNCTION imgpipe.end_hold(hold_id integer) RETURNS bigint
	LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	held CONSTANT text := format('imgpipe_partitions.%I', 'held_images_' || hold_id);
	released bigint := 0;
	groups jsonb;
	disk_bytes bigint;
	dependents text;
BEGIN
	UPDATE imgpipe.holds h SET until = least(h.until, clock_timestamp()) WHERE h.hold_id = end_hold.hold_id;
	IF NOT FOUND THEN
		RETURN 0;
	END IF;
	IF to_regclass(held) IS NOT NULL THEN
		EXECUTE format('LOCK TABLE imgpipe.held_images, %s IN ACCESS EXCLUSIVE MODE', held);
		-- By sources that there are: of others there can be any number.
		EXECUTE format('SELECT jsonb_agg(to_jsonb(g)), coalesce(sum(g.images), 0) FROM (
				SELECT s.name AS source, count(*) AS images, sum(imgpipe.image_bytes(i.content)) AS bytes
					FROM %s i LEFT JOIN (SELECT name FROM imgpipe.sources UNION SELECT ''sql'') s ON s.name = i.source GROUP BY 1) g', held)
			INTO groups, released;
		disk_bytes := pg_total_relation_size(held);
		dependents := imgpipe.drop_purged(held);
		IF released > 0 THEN
			PERFORM imgpipe.enter_purge('release', NULL, NULL, jsonb_build_object('held_images', released),
				imgpipe.sum_of(groups, 'bytes'), disk_bytes, imgpipe.by_known_source(groups));
		END IF;
	END IF;
	IF dependents IS NULL THEN
		DELETE FROM imgpipe.holds h WHERE h.hold_id = end_hold.hold_id;
	ELSE
		UPDATE imgpipe.holds h SET ended = true WHERE h.hold_id = end_hold.hold_id;
		PERFORM imgpipe.fail_hold(hold_id, 'what was held is gone, but the empty table cannot be dropped', dependents);
	END IF;
	RETURN released;
END
$$;
COMMENT ON FUNCTION imgpipe.end_hold(integer) IS
'Ends the hold of that hold_id, drops its copies, enters that into the ledger, and returns how many they were. Where somebody''s view keeps their table, it is emptied.';
REVOKE EXECUTE ON FUNCTION imgpipe.end_hold(integer) FROM PUBLIC;

CREATE FUNCTION imgpipe.release_hold(case_reference text) RETURNS bigint
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp
	SET session_replication_role = replica
	SET lock_timeout = '1s'
AS $$
DECLARE
	holds integer[];
	released bigint := 0;
	hold integer;
BEGIN
	SELECT array_agg(h.hold_id ORDER BY h.hold_id) INTO holds
		FROM imgpipe.holds h WHERE h.case_reference = release_hold.case_reference AND NOT h.ended;
	IF holds IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'undefined_object',
			MESSAGE = format('there is no hold for case %s', coalesce('"' || case_reference || '"', 'NULL')),
			HINT = 'SELECT case_reference FROM imgpipe.holds; shows those that there are.';
	END IF;
	FOREACH hold IN ARRAY holds LOOP
		released := released + imgpipe.end_hold(hold);
	END LOOP;
	PERFORM imgpipe.wake_controller();
	RETURN released;
END
$$;
COMMENT ON FUNCTION imgpipe.release_hold(text) IS
'Ends the holds of a case, drops what was copied for them, at once, and returns how many copies that were; where somebody''s view keeps a table of them, it is emptied, and retention_report() names the view. Raises 42704 where there is no hold for that case, 55P03 where somebody keeps reading the copies for a second. Only the owner may, unless granted.';
REVOKE EXECUTE ON FUNCTION imgpipe.release_hold(text) FROM PUBLIC;

CREATE FUNCTION imgpipe.end_next_hold() RETURNS boolean
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	due integer;
	error_detail text;
BEGIN
	SELECT h.hold_id INTO due FROM imgpipe.holds h
		WHERE h.until <= clock_timestamp() AND h.retry_at <= clock_timestamp() ORDER BY h.until, h.hold_id LIMIT 1;
	IF NOT FOUND THEN
		RETURN false;
	END IF;
	PERFORM imgpipe.end_hold(due);
	RETURN true;
EXCEPTION WHEN OTHERS THEN
	-- It keeps no other from its end, and is not tried again at once.
	GET STACKED DIAGNOSTICS error_detail = PG_EXCEPTION_DETAIL;
	PERFORM imgpipe.fail_hold(due, SQLERRM, nullif(error_detail, ''));
	RETURN true;
END
$$;
COMMENT ON FUNCTION imgpipe.end_next_hold() IS
'Ends the hold whose until is longest past; false where there is none to be ended now. Where that fails, retention_report() says why and when it is tried again.';
REVOKE EXECUTE ON FUNCTION imgpipe.end_next_hold() FROM PUBLIC;

/*
 * The purge of what is past its deadline; see src/retention/.
 *
 * What is overdue is a set: the partitions of one span of deadlines, one of
 * each table.  Its steps are these, each in a transaction of its own:
 *
 *	begin_purge		the set is written down in imgpipe.purges
 *	seal_purge		the daily volume of its images is computed and sealed
 *	(detach)		DETACH PARTITION ... CONCURRENTLY, by the purge worker
 *	finish_purge	count, copy what is held, drop, enter into the ledger
 *
 * After any crash the next purge goes on where the last one was.  Nobody but
 * the purge can reach a table between its detachment and its end: it is in a
 * schema without USAGE.
 */

CREATE TABLE imgpipe.purges (
	deadline_from timestamptz NOT NULL,
	deadline_to timestamptz NOT NULL,
	partitions jsonb NOT NULL,
	volume jsonb,
	entered boolean NOT NULL DEFAULT false,
	attempts integer NOT NULL DEFAULT 0,
	retry_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	sqlstate text,
	last_error text,
	last_detail text,
	begun_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	PRIMARY KEY (deadline_to, deadline_from)
);
COMMENT ON TABLE imgpipe.purges IS
'Purges that have begun and not ended. See imgpipe.retention_report().';
COMMENT ON COLUMN imgpipe.purges.partitions IS 'Name of each table, in schema imgpipe, and of its partition, in schema imgpipe_partitions.';
COMMENT ON COLUMN imgpipe.purges.volume IS 'Sealed: what the set adds to the daily volume. NULL: not sealed yet.';
COMMENT ON COLUMN imgpipe.purges.entered IS 'The data is gone and in the ledger; left are empty tables that could not be dropped.';

CREATE TABLE imgpipe.sealed_volume (
	day date NOT NULL,
	source text NOT NULL,
	format text NOT NULL,
	images bigint NOT NULL,
	bytes bigint NOT NULL,
	pixels bigint NOT NULL,
	first_received_at timestamptz NOT NULL,
	last_received_at timestamptz NOT NULL,
	sealed_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	PRIMARY KEY (day, source, format)
);
COMMENT ON TABLE imgpipe.sealed_volume IS
'What was purged of each day, source and format: each image is added when it is dropped, once, and nothing is ever computed anew from what is left. See imgpipe.sealed_daily_volume.';

SELECT pg_catalog.pg_extension_config_dump('imgpipe.purges', '');
SELECT pg_catalog.pg_extension_config_dump('imgpipe.sealed_volume', '');

-- With the owner's rights: the fence hides the images that it counts.
CREATE VIEW imgpipe.sealed_daily_volume AS
	SELECT v.day, v.source, v.format,
		pg_catalog.sum(v.images)::bigint AS images,
		pg_catalog.sum(v.bytes)::bigint AS bytes,
		pg_catalog.sum(v.pixels)::bigint AS pixels,
		pg_catalog.min(v.first_received_at) AS first_received_at,
		pg_catalog.max(v.last_received_at) AS last_received_at
	FROM (
		SELECT s.day, s.source, s.format, s.images, s.bytes, s.pixels, s.first_received_at, s.last_received_at
			FROM imgpipe.sealed_volume s
		UNION ALL
		SELECT g.day, g.source, g.format, g.images, g.bytes, g.pixels, g.first_received_at, g.last_received_at
			FROM imgpipe.purges p
				CROSS JOIN LATERAL pg_catalog.jsonb_to_recordset(p.volume) AS g (day date, source text, format text, images bigint,
					bytes bigint, pixels bigint, first_received_at timestamptz, last_received_at timestamptz)
			WHERE NOT p.entered
		UNION ALL
		SELECT (i.received_at AT TIME ZONE 'UTC')::pg_catalog.date, i.source, i.format, pg_catalog.count(*), pg_catalog.sum(i.bytes),
				pg_catalog.sum(i.width::bigint OPERATOR(pg_catalog.*) i.height), pg_catalog.min(i.received_at), pg_catalog.max(i.received_at)
			FROM imgpipe.images i
			WHERE i.image_id OPERATOR(pg_catalog.<) imgpipe.fence()
				AND NOT EXISTS (SELECT FROM imgpipe.purges p
					WHERE p.volume IS NOT NULL AND NOT p.entered
						AND i.image_id OPERATOR(pg_catalog.>=) imgpipe.first_image_id(p.deadline_from)
						AND i.image_id OPERATOR(pg_catalog.<) imgpipe.first_image_id(p.deadline_to))
			GROUP BY 1, 2, 3) v
	GROUP BY v.day, v.source, v.format;
COMMENT ON VIEW imgpipe.sealed_daily_volume IS
'Images past their deadline or erased, by day, source and format: what analysts keep of them. An image is counted here from the very moment at which the fence hides it, so that imgpipe.daily_volume, which adds those before their deadline, always has all that ever arrived.';
COMMENT ON COLUMN imgpipe.sealed_daily_volume.day IS 'Of received_at, in UTC.';
COMMENT ON COLUMN imgpipe.sealed_daily_volume.source IS 'Under other, too: of a span of deadlines, or an erasure, with more than 10,000 groups of day, source and format, the smallest, as of the day that most of these have.';

/*
 * Whoever inserts images may write what they like into source and received_at,
 * and jsonb has an end, at which nothing could be purged any more.  So there is
 * a row each for the 10,000 largest groups, those of sources that there are
 * first, and all others are one of source "other" for each format, of the day that
 * most of them have.
 */
CREATE FUNCTION imgpipe.volume_query(images text) RETURNS text
	LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
	-- date_bin(): AT TIME ZONE for each row takes as long as all the rest.
	SELECT format('SELECT coalesce(jsonb_agg(to_jsonb(g) || jsonb_build_object(''day'', (g.day AT TIME ZONE ''UTC'')::date)), ''[]'') FROM (
			SELECT coalesce(k.day, mode() WITHIN GROUP (ORDER BY k.own_day)) AS day, coalesce(k.source, ''other'') AS source, k.format, sum(k.images)::bigint AS images,
					sum(k.bytes)::bigint AS bytes, sum(k.pixels)::bigint AS pixels, min(k.first_received_at) AS first_received_at, max(k.last_received_at) AS last_received_at
				FROM (
					SELECT CASE WHEN o.place <= 10000 THEN o.day END AS day, o.day AS own_day, CASE WHEN o.place <= 10000 THEN o.source END AS source,
							o.format, o.images, o.bytes, o.pixels, o.first_received_at, o.last_received_at
						FROM (
							SELECT v.*, row_number() OVER (ORDER BY v.source = ''sql'' OR v.source IN (SELECT s.name FROM imgpipe.sources s) DESC, v.images DESC, v.day, v.source, v.format) AS place
								FROM (
									SELECT date_bin(''1 day'', i.received_at, ''2000-01-01 00:00:00+00'') AS day, i.source, i.format, count(*) AS images, sum(i.bytes) AS bytes,
											sum(i.width::bigint * i.height) AS pixels, min(i.received_at) AS first_received_at, max(i.received_at) AS last_received_at
										FROM %s i GROUP BY 1, 2, 3) v) o) k
				GROUP BY k.day, k.source, k.format) g', images)
$$;
COMMENT ON FUNCTION imgpipe.volume_query(text) IS
'A query for the daily volume of the images in a table like imgpipe.images, or in what a WITH names: an array of rows like those of imgpipe.sealed_volume.';
REVOKE EXECUTE ON FUNCTION imgpipe.volume_query(text) FROM PUBLIC;

CREATE FUNCTION imgpipe.volume_of(images text) RETURNS jsonb
	LANGUAGE plpgsql STABLE STRICT PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
	SET jit = off
AS $$
DECLARE
	volume jsonb;
BEGIN
	EXECUTE imgpipe.volume_query(images) INTO volume;
	RETURN volume;
END
$$;
COMMENT ON FUNCTION imgpipe.volume_of(text) IS
'The daily volume of the images in a table like imgpipe.images; see volume_query().';
REVOKE EXECUTE ON FUNCTION imgpipe.volume_of(text) FROM PUBLIC;

CREATE FUNCTION imgpipe.add_sealed_volume(volume jsonb) RETURNS void
	LANGUAGE sql VOLATILE STRICT PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
	INSERT INTO imgpipe.sealed_volume AS s (day, source, format, images, bytes, pixels, first_received_at, last_received_at)
		-- A source can be called other.
		SELECT g.day, g.source, g.format, sum(g.images), sum(g.bytes), sum(g.pixels), min(g.first_received_at), max(g.last_received_at)
			FROM jsonb_to_recordset(volume) AS g (day date, source text, format text, images bigint,
				bytes bigint, pixels bigint, first_received_at timestamptz, last_received_at timestamptz)
			GROUP BY g.day, g.source, g.format
		ON CONFLICT (day, source, format) DO UPDATE
			SET images = s.images + EXCLUDED.images, bytes = s.bytes + EXCLUDED.bytes, pixels = s.pixels + EXCLUDED.pixels,
				first_received_at = least(s.first_received_at, EXCLUDED.first_received_at),
				last_received_at = greatest(s.last_received_at, EXCLUDED.last_received_at),
				sealed_at = clock_timestamp()
$$;
COMMENT ON FUNCTION imgpipe.add_sealed_volume(jsonb) IS
'Adds what volume_of() returned to the sealed daily volume.';
REVOKE EXECUTE ON FUNCTION imgpipe.add_sealed_volume(jsonb) FROM PUBLIC;

CREATE FUNCTION imgpipe.sum_of(groups jsonb, key text) RETURNS bigint
	LANGUAGE sql IMMUTABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT coalesce(sum((g ->> key)::bigint), 0)::bigint FROM jsonb_array_elements(groups) g
$$;
COMMENT ON FUNCTION imgpipe.sum_of(jsonb, text) IS
'Sum of a key over an array of objects.';

CREATE FUNCTION imgpipe.by_known_source(groups jsonb) RETURNS jsonb
	LANGUAGE sql STABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT coalesce(jsonb_object_agg(k.source, jsonb_build_object('images', k.images, 'bytes', k.bytes)), '{}') FROM (
		SELECT CASE WHEN g.source = 'sql' OR EXISTS (SELECT FROM imgpipe.sources s WHERE s.name = g.source) THEN g.source ELSE 'other' END,
				sum(g.images), sum(g.bytes)
			FROM jsonb_to_recordset(groups) AS g (source text, images bigint, bytes bigint)
			GROUP BY 1) k (source, images, bytes)
$$;
COMMENT ON FUNCTION imgpipe.by_known_source(jsonb) IS
'Images and bytes of groups by source, for the ledger. Whoever inserts images may write anything into their column source; what is no name of a source is other.';
REVOKE EXECUTE ON FUNCTION imgpipe.by_known_source(jsonb) FROM PUBLIC;


/* The steps.  One purge at a time: the caller holds the lock of that key. */

CREATE FUNCTION imgpipe.purge_lock() RETURNS bigint
	LANGUAGE sql STABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT 'imgpipe.purges'::regclass::oid::bigint
$$;
COMMENT ON FUNCTION imgpipe.purge_lock() IS
'Key of the advisory lock that who purges holds.';

CREATE FUNCTION imgpipe.begin_purge(OUT deadline_from timestamptz, OUT deadline_to timestamptz) RETURNS record
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
	SET jit = off
AS $$
#variable_conflict use_column
BEGIN
	INSERT INTO imgpipe.purges (deadline_from, deadline_to, partitions)
		SELECT o.deadline_from, o.deadline_to, jsonb_object_agg(p.relname, c.relname)
			FROM imgpipe.partitions o
				JOIN pg_class p ON p.oid = o.parent
				JOIN pg_class c ON c.oid = o.partition
			WHERE o.deadline_to <= clock_timestamp()
			GROUP BY o.deadline_from, o.deadline_to
		ON CONFLICT (deadline_to, deadline_from) DO UPDATE
			SET partitions = purges.partitions || EXCLUDED.partitions
			WHERE NOT purges.partitions @> EXCLUDED.partitions;
	SELECT p.deadline_from, p.deadline_to INTO deadline_from, deadline_to
		FROM imgpipe.purges p
		WHERE p.retry_at <= clock_timestamp()
		ORDER BY p.deadline_to, p.deadline_from
		LIMIT 1;
END
$$;
COMMENT ON FUNCTION imgpipe.begin_purge() IS
'Writes down all sets that are overdue by the bounds in the catalog, and returns the first one that is to be purged now, or NULL.';
REVOKE EXECUTE ON FUNCTION imgpipe.begin_purge() FROM PUBLIC;

CREATE FUNCTION imgpipe.purge_table(partitions jsonb, parent text) RETURNS text
	LANGUAGE sql STABLE STRICT PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT t.name FROM (SELECT format('imgpipe_partitions.%I', partitions ->> parent) AS name) t
		WHERE partitions ? parent AND to_regclass(t.name) IS NOT NULL
$$;
COMMENT ON FUNCTION imgpipe.purge_table(jsonb, text) IS
'The qualified name of a table''s partition in a set, or NULL where there is none.';
REVOKE EXECUTE ON FUNCTION imgpipe.purge_table(jsonb, text) FROM PUBLIC;

CREATE FUNCTION imgpipe.seal_purge(deadline_from timestamptz, deadline_to timestamptz) RETURNS void
	LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
	UPDATE imgpipe.purges p SET volume = coalesce(imgpipe.volume_of(imgpipe.purge_table(p.partitions, 'images')), '[]')
		WHERE p.deadline_from = seal_purge.deadline_from AND p.deadline_to = seal_purge.deadline_to
			AND p.volume IS NULL;
END
$$;
COMMENT ON FUNCTION imgpipe.seal_purge(timestamptz, timestamptz) IS
'Computes the daily volume of a set''s images, which from now on stands for them.';
REVOKE EXECUTE ON FUNCTION imgpipe.seal_purge(timestamptz, timestamptz) FROM PUBLIC;

CREATE FUNCTION imgpipe.detach_commands(deadline_from timestamptz, deadline_to timestamptz, in_transaction boolean) RETURNS text[]
	LANGUAGE sql STABLE STRICT PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT array_agg(format('ALTER TABLE %s DETACH PARTITION %s %s', i.inhparent::regclass, i.inhrelid::regclass,
			CASE WHEN i.inhdetachpending THEN 'FINALIZE' WHEN NOT in_transaction THEN 'CONCURRENTLY' END) ORDER BY i.inhdetachpending DESC, i.inhparent::regclass::text)
		FROM pg_inherits i
		WHERE i.inhrelid IN (
			SELECT to_regclass(imgpipe.purge_table(p.partitions, t.key)) FROM imgpipe.purges p CROSS JOIN LATERAL jsonb_object_keys(p.partitions) t (key)
				WHERE p.deadline_from = detach_commands.deadline_from AND p.deadline_to = detach_commands.deadline_to)
			-- A table can have one half detached partition: what is left of another set comes first.
			OR (i.inhdetachpending AND EXISTS (
				SELECT FROM imgpipe.purges p CROSS JOIN LATERAL jsonb_object_keys(p.partitions) t (key)
					WHERE i.inhrelid = to_regclass(imgpipe.purge_table(p.partitions, t.key))))
$$;
COMMENT ON FUNCTION imgpipe.detach_commands(timestamptz, timestamptz, boolean) IS
'The statements that bring the partitions of a set away from their tables, in their order; NULL where they are. Outside of a transaction they detach concurrently.';
REVOKE EXECUTE ON FUNCTION imgpipe.detach_commands(timestamptz, timestamptz, boolean) FROM PUBLIC;

CREATE FUNCTION imgpipe.drop_purged(name text) RETURNS text
	LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	dependents text;
BEGIN
	EXECUTE format('DROP TABLE %s', name);
	RETURN NULL;
EXCEPTION WHEN dependent_objects_still_exist THEN
	-- What depends on the table keeps it, not what is in it.
	GET STACKED DIAGNOSTICS dependents = PG_EXCEPTION_DETAIL;
	EXECUTE format('TRUNCATE TABLE %s', name);
	RETURN dependents;
END
$$;
COMMENT ON FUNCTION imgpipe.drop_purged(text) IS
'Drops a table, or where something depends on it empties it and returns what does.';
REVOKE EXECUTE ON FUNCTION imgpipe.drop_purged(text) FROM PUBLIC;

CREATE FUNCTION imgpipe.finish_purge(deadline_from timestamptz, deadline_to timestamptz) RETURNS bigint
	LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
	purge imgpipe.purges;
	tables CONSTANT text[] := ARRAY(SELECT t.name FROM imgpipe.partitioned_tables t ORDER BY t.name);
	parent text;
	name text;
	rows bigint;
	row_counts jsonb := '{}';
	disk_bytes bigint := 0;
	held bigint := 0;
	left_over jsonb := '{}';
	dependents text;
	error_detail text;
	entry bigint;
BEGIN
	SELECT * INTO STRICT purge FROM imgpipe.purges p
		WHERE p.deadline_from = finish_purge.deadline_from AND p.deadline_to = finish_purge.deadline_to
		FOR UPDATE;

	IF NOT purge.entered THEN
		FOREACH parent IN ARRAY tables LOOP
			name := imgpipe.purge_table(purge.partitions, parent);
			CONTINUE WHEN name IS NULL;
			-- Where it is still attached, nobody shall add to it any more.
			EXECUTE format('LOCK TABLE %s IN SHARE MODE', name);
			EXECUTE format('SELECT count(*) FROM %s', name) INTO rows;
			row_counts := row_counts || jsonb_build_object(parent, rows);
			disk_bytes := disk_bytes + pg_total_relation_size(name);
		END LOOP;
		name := imgpipe.purge_table(purge.partitions, 'images');
		IF name IS NOT NULL THEN
			-- The owner can add images past their deadline; what is purged is what was sealed.
			IF imgpipe.sum_of(purge.volume, 'images') IS DISTINCT FROM (row_counts -> 'images')::bigint THEN
				purge.volume := imgpipe.volume_of(name);
			END IF;
			held := imgpipe.copy_held_images(name, imgpipe.purge_table(purge.partitions, 'results'));
			IF held > 0 THEN
				row_counts := row_counts || jsonb_build_object('held', held);
			END IF;
			-- One that a worker has just now ends by itself when it finds no image.
			DELETE FROM imgpipe.tasks d WHERE d.task_id IN (SELECT t.task_id FROM imgpipe.tasks t
				WHERE t.image_id < imgpipe.first_image_id(purge.deadline_to) FOR UPDATE SKIP LOCKED);
			GET DIAGNOSTICS rows = ROW_COUNT;
			row_counts := row_counts || jsonb_build_object('tasks', rows);
		END IF;
		PERFORM imgpipe.fault_point('counted');
	END IF;

	FOREACH parent IN ARRAY tables LOOP
		name := imgpipe.purge_table(purge.partitions, parent);
		CONTINUE WHEN name IS NULL;
		dependents := imgpipe.drop_purged(name);
		IF dependents IS NOT NULL THEN
			left_over := left_over || jsonb_build_object(parent, purge.partitions ->> parent);
			error_detail := concat_ws(E'\n', error_detail, dependents);
		END IF;
		PERFORM imgpipe.fault_point('dropped');
	END LOOP;

	IF NOT purge.entered THEN
		PERFORM imgpipe.add_sealed_volume(purge.volume);
		entry := imgpipe.enter_purge('retention', purge.deadline_from, purge.deadline_to, row_counts,
			imgpipe.sum_of(purge.volume, 'bytes'), disk_bytes, imgpipe.by_known_source(purge.volume));
		PERFORM imgpipe.fault_point('entered');
	END IF;

	IF left_over = '{}' THEN
		DELETE FROM imgpipe.purges p WHERE p.deadline_from = purge.deadline_from AND p.deadline_to = purge.deadline_to;
	ELSE
		UPDATE imgpipe.purges p SET entered = true, partitions = left_over, volume = NULL
			WHERE p.deadline_from = purge.deadline_from AND p.deadline_to = purge.deadline_to;
		PERFORM imgpipe.fail_purge(purge.deadline_from, purge.deadline_to, '2BP01',
			'what was in it is gone, but the empty table cannot be dropped', error_detail);
	END IF;
	RETURN entry;
END
$$;
COMMENT ON FUNCTION imgpipe.finish_purge(timestamptz, timestamptz) IS
'Ends the purge of a set, all in one transaction: counts it, copies what is held, drops its partitions, adds it to the sealed volume and the ledger. Returns the ledger''s entry; NULL where only empty tables were left to be dropped.';
REVOKE EXECUTE ON FUNCTION imgpipe.finish_purge(timestamptz, timestamptz) FROM PUBLIC;

CREATE FUNCTION imgpipe.purge_back_off(attempts integer) RETURNS interval
	LANGUAGE sql VOLATILE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT least(2 ^ least(attempts, 20), 600) * (0.75 + random() / 2) * interval '1 second'
$$;
COMMENT ON FUNCTION imgpipe.purge_back_off(integer) IS
'How long what has failed waits, after so many failures before: 1, 2, 4, ... seconds up to 10 minutes, a quarter more or less.';
REVOKE EXECUTE ON FUNCTION imgpipe.purge_back_off(integer) FROM PUBLIC;

CREATE FUNCTION imgpipe.fail_purge(deadline_from timestamptz, deadline_to timestamptz, error_code text, reason text, detail text) RETURNS void
	LANGUAGE sql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
	UPDATE imgpipe.purges p
		SET attempts = p.attempts + 1, sqlstate = error_code, last_error = reason, last_detail = detail,
			retry_at = clock_timestamp() + imgpipe.purge_back_off(p.attempts)
		WHERE p.deadline_from = fail_purge.deadline_from AND p.deadline_to = fail_purge.deadline_to
$$;
COMMENT ON FUNCTION imgpipe.fail_purge(timestamptz, timestamptz, text, text, text) IS
'Notes why the purge of a set did not succeed, and when it is tried again.';
REVOKE EXECUTE ON FUNCTION imgpipe.fail_purge(timestamptz, timestamptz, text, text, text) FROM PUBLIC;

CREATE FUNCTION imgpipe.next_purge() RETURNS timestamptz
	LANGUAGE sql STABLE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
	SET jit = off
AS $$
	SELECT least(
		(SELECT min(p.retry_at) FROM imgpipe.purges p),
		(SELECT min(a.deadline_to) FROM imgpipe.partitions a WHERE NOT EXISTS (SELECT FROM imgpipe.purges p
			WHERE p.deadline_from = a.deadline_from AND p.deadline_to = a.deadline_to)),
		(SELECT min(greatest(h.until, h.retry_at)) FROM imgpipe.holds h WHERE h.until IS NOT NULL),
		(SELECT min(c.due) FROM imgpipe.cooling_partitions() c))
$$;
COMMENT ON FUNCTION imgpipe.next_purge() IS
'When the purge has something to do next.';
REVOKE EXECUTE ON FUNCTION imgpipe.next_purge() FROM PUBLIC;

CREATE FUNCTION imgpipe.purge_next_partition() RETURNS boolean
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp
	SET session_replication_role = replica
	SET lock_timeout = '200ms'
	SET deadlock_timeout = '100ms'
AS $$
DECLARE
	due record;
	command text;
	error_code text;
	error_message text;
	error_detail text;
BEGIN
	PERFORM pg_advisory_xact_lock(imgpipe.purge_lock());
	due := imgpipe.begin_purge();
	IF due.deadline_to IS NULL THEN
		RETURN imgpipe.end_next_hold();
	END IF;
	BEGIN
		PERFORM imgpipe.seal_purge(due.deadline_from, due.deadline_to);
		FOR command IN SELECT unnest(imgpipe.detach_commands(due.deadline_from, due.deadline_to, in_transaction => true)) LOOP
			EXECUTE command;
		END LOOP;
		PERFORM imgpipe.finish_purge(due.deadline_from, due.deadline_to);
	EXCEPTION
		WHEN lock_not_available THEN
			RAISE;
		WHEN OTHERS THEN
			GET STACKED DIAGNOSTICS error_code = RETURNED_SQLSTATE, error_message = MESSAGE_TEXT, error_detail = PG_EXCEPTION_DETAIL;
			PERFORM imgpipe.fail_purge(due.deadline_from, due.deadline_to, error_code, error_message, nullif(error_detail, ''));
			RAISE WARNING USING ERRCODE = error_code,
				MESSAGE = format('purge of deadlines from %s to %s failed: %s', due.deadline_from, due.deadline_to, error_message),
				DETAIL = coalesce(nullif(error_detail, ''), format('SQLSTATE %s.', error_code)),
				HINT = 'Others go on. SELECT * FROM imgpipe.retention_report(); says what to do, and when this one is tried again.';
	END;
	RETURN true;
END
$$;
COMMENT ON FUNCTION imgpipe.purge_next_partition() IS
'Purges the span of deadlines that is longest overdue: drops its partitions, enters that into purge_ledger, and returns true; where none is overdue it ends a legal hold whose time has come; false where there is nothing to do. One span a call, so that a caller can commit in between; waits at most 200 ms for each lock and raises 55P03 then. What else keeps a span from being purged is a warning, so that the next call goes on with another. The workers do this by themselves, and keep nobody waiting for it; call it where imgpipe is not in shared_preload_libraries. Only the owner may, unless granted.';
REVOKE EXECUTE ON FUNCTION imgpipe.purge_next_partition() FROM PUBLIC;


/* Cheaper storage before that, where imgpipe.cold_tablespace names one. */

CREATE FUNCTION imgpipe.cooling_partitions() RETURNS TABLE (partition regclass, due timestamptz)
	LANGUAGE plpgsql STABLE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	cold oid;
BEGIN
	IF imgpipe.setting('imgpipe.cold_tablespace') = '' THEN
		RETURN;
	END IF;
	SELECT t.oid INTO cold FROM pg_tablespace t WHERE t.spcname = imgpipe.setting('imgpipe.cold_tablespace');
	IF NOT FOUND THEN
		RETURN;
	END IF;
	RETURN QUERY
		SELECT p.partition, p.deadline_to - imgpipe.setting('imgpipe.retention')::interval + imgpipe.setting('imgpipe.cold_after')::interval
			FROM imgpipe.partitions p JOIN pg_class c ON c.oid = p.partition
			WHERE NOT p.detaching AND p.deadline_to > now()
				AND c.reltablespace <> CASE cold WHEN (SELECT d.dattablespace FROM pg_database d WHERE d.datname = current_database())
					THEN 0::oid ELSE cold END;
END
$$;
COMMENT ON FUNCTION imgpipe.cooling_partitions() IS
'Partitions that are not in imgpipe.cold_tablespace yet, and when their images are imgpipe.cold_after old; none where that setting is empty.';
REVOKE EXECUTE ON FUNCTION imgpipe.cooling_partitions() FROM PUBLIC;

CREATE FUNCTION imgpipe.cool_next_partition() RETURNS boolean
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp
	SET lock_timeout = '200ms'
AS $$
DECLARE
	cooled regclass;
	index regclass;
BEGIN
	SELECT c.partition INTO cooled FROM imgpipe.cooling_partitions() c WHERE c.due <= clock_timestamp() ORDER BY c.due LIMIT 1;
	IF NOT FOUND THEN
		RETURN false;
	END IF;
	EXECUTE format('ALTER TABLE %s SET TABLESPACE %I', cooled, imgpipe.setting('imgpipe.cold_tablespace'));
	FOR index IN SELECT i.indexrelid FROM pg_index i WHERE i.indrelid = cooled LOOP
		EXECUTE format('ALTER INDEX %s SET TABLESPACE %I', index, imgpipe.setting('imgpipe.cold_tablespace'));
	END LOOP;
	RETURN true;
END
$$;
COMMENT ON FUNCTION imgpipe.cool_next_partition() IS
'Moves the partition that is longest due to imgpipe.cold_tablespace, with its index, and returns true; false where none is due. Readers of that partition wait while its bytes are copied. Waits at most 200 ms for the lock and raises 55P03 then. The workers do this by themselves. Only the owner may, unless granted.';
REVOKE EXECUTE ON FUNCTION imgpipe.cool_next_partition() FROM PUBLIC;

CREATE FUNCTION imgpipe.fault_point(name text) RETURNS void
	AS 'MODULE_PATHNAME', 'imgpipe_fault_point_reached'
	LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;
COMMENT ON FUNCTION imgpipe.fault_point(text) IS
'For tests: waits while imgpipe.fault_point is this name, so that the purge can be killed there.';
REVOKE EXECUTE ON FUNCTION imgpipe.fault_point(text) FROM PUBLIC;

/*
 * Erasure on request; see src/retention/.
 *
 * Kafka still has the messages, so what was erased would come back when a
 * source reads them again.  erasures therefore remembers, as keyed hashes and
 * not in clear, the persons and keys that were erased and the very messages;
 * ingest asks refuse_erased() before it writes a message.
 */

CREATE TABLE imgpipe.erasure_secret (
	only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
	secret bytea NOT NULL DEFAULT pg_catalog.uuid_send(pg_catalog.gen_random_uuid()) OPERATOR(pg_catalog.||) pg_catalog.uuid_send(pg_catalog.gen_random_uuid())
);
COMMENT ON TABLE imgpipe.erasure_secret IS
'Goes into the hashes of imgpipe.erasures, which could be guessed at without it.';

CREATE TABLE imgpipe.erasures (
	kind text NOT NULL CHECK (kind OPERATOR(pg_catalog.=) ANY ('{uploaded_by,source_key,image_id,message}')),
	hash bytea NOT NULL,
	erased_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	entry bigint NOT NULL,
	refused bigint NOT NULL DEFAULT 0,
	PRIMARY KEY (hash)
);
COMMENT ON TABLE imgpipe.erasures IS
'What was erased on request, as hashes: the person or key, the ids of the images, and which messages of which source they were.';
COMMENT ON COLUMN imgpipe.erasures.entry IS 'Entry of the purge ledger.';
COMMENT ON COLUMN imgpipe.erasures.refused IS 'How many messages were kept from bringing it back.';

SELECT pg_catalog.pg_extension_config_dump('imgpipe.erasure_secret', '');
SELECT pg_catalog.pg_extension_config_dump('imgpipe.erasures', '');

CREATE FUNCTION imgpipe.erasure_hash(kind text, value text) RETURNS bytea
	LANGUAGE sql STABLE STRICT PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT sha256(s.secret || convert_to(kind || ':' || value, 'UTF8')) FROM imgpipe.erasure_secret s
$$;
COMMENT ON FUNCTION imgpipe.erasure_hash(text, text) IS
'The hash under which imgpipe.erasures has a value of that kind.';
REVOKE EXECUTE ON FUNCTION imgpipe.erasure_hash(text, text) FROM PUBLIC;

CREATE FUNCTION imgpipe.message_name(source text, partition integer, message_offset bigint) RETURNS text
	LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT source || '/' || partition::text || '/' || message_offset::text
$$;
COMMENT ON FUNCTION imgpipe.message_name(text, integer, bigint) IS
'A message of a source by its place; NULL for what came by SQL.';

CREATE FUNCTION imgpipe.erase_now(uploaded_by text, source_key text, image_ids uuid[],
	OUT entry bigint, OUT images bigint, OUT row_counts jsonb) RETURNS record
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
	SET session_replication_role = replica
AS $$
#variable_conflict use_variable
DECLARE
	ids uuid[];
	letters uuid[];
	messages text[];
	groups jsonb;
	counted bigint;
	related text;
BEGIN
	-- A hold that is just being placed has counted these images: it is waited for.
	LOCK TABLE imgpipe.holds IN SHARE MODE;
	SELECT coalesce(array_agg(i.image_id), '{}'),
			array_agg(imgpipe.message_name(i.source, i.source_partition, i.source_offset)) FILTER (WHERE i.source_offset IS NOT NULL)
		INTO ids, messages
		FROM imgpipe.images i
		WHERE (erase_now.uploaded_by IS NOT NULL AND i.uploaded_by = erase_now.uploaded_by)
			OR (erase_now.source_key IS NOT NULL AND i.source_key = erase_now.source_key)
			OR i.image_id = ANY (erase_now.image_ids);
	-- And what is not complete yet.
	SELECT ids || coalesce(array_agg(c.image_id) FILTER (WHERE c.image_id <> ALL (ids)), '{}'),
			messages || array_agg(imgpipe.message_name(s.name, c.source_partition, c.first_offset))
		INTO ids, messages
		FROM imgpipe.chunked_images c JOIN imgpipe.sources s ON s.source_id = c.source_id
		WHERE c.image_id = ANY (ids)
			OR (erase_now.uploaded_by IS NOT NULL AND c.uploaded_by = erase_now.uploaded_by)
			OR (erase_now.source_key IS NOT NULL AND c.source_key = erase_now.source_key)
			OR c.image_id = ANY (erase_now.image_ids);
	row_counts := jsonb_build_object('held', imgpipe.copy_held_images('imgpipe.images', 'imgpipe.results', ids));
	IF row_counts = '{"held": 0}' THEN
		row_counts := '{}';
	END IF;

	-- Tasks first: a worker that is finishing one is waited for, and no other can write for these images any more.
	DELETE FROM imgpipe.tasks t WHERE t.image_id = ANY (ids);
	GET DIAGNOSTICS counted = ROW_COUNT;
	row_counts := row_counts || jsonb_build_object('tasks', counted);

	WITH gone AS (
		DELETE FROM imgpipe.dead_letters d
			WHERE d.image_id = ANY (ids)
				OR d.source_key = erase_now.source_key
				OR d.headers ->> 'uploaded_by' = erase_now.uploaded_by
			RETURNING d.image_id, d.source, d.source_partition, d.source_offset)
	SELECT count(*), array_agg(g.image_id), messages || array_agg(imgpipe.message_name(g.source, g.source_partition, g.source_offset)) FILTER (WHERE g.source_offset IS NOT NULL)
		INTO counted, letters, messages FROM gone g;
	row_counts := row_counts || jsonb_build_object('dead_letters', counted);

	EXECUTE 'WITH gone AS (
			DELETE FROM imgpipe.images i WHERE i.image_id = ANY ($1) RETURNING i.received_at, i.source, i.format, i.bytes, i.width, i.height) '
		|| imgpipe.volume_query('gone') INTO groups USING ids;
	images := imgpipe.sum_of(groups, 'images');
	row_counts := row_counts || jsonb_build_object('images', images);
	PERFORM imgpipe.add_sealed_volume(groups);

	-- What else hangs on an image, or tells of a dead letter.
	FOR related IN SELECT t.name FROM imgpipe.partitioned_tables t WHERE t.name <> ALL ('{images,dead_letters}') ORDER BY t.name LOOP
		EXECUTE format('DELETE FROM imgpipe.%I WHERE image_id = ANY ($1)', related) USING ids || letters;
		GET DIAGNOSTICS counted = ROW_COUNT;
		row_counts := row_counts || jsonb_build_object(related, counted);
	END LOOP;

	entry := imgpipe.enter_purge('erasure', NULL, NULL, row_counts, imgpipe.sum_of(groups, 'bytes'), 0, imgpipe.by_known_source(groups));
	INSERT INTO imgpipe.erasures AS e (kind, hash, entry)
		SELECT k.kind, imgpipe.erasure_hash(k.kind, k.value), erase_now.entry FROM (
			SELECT 'uploaded_by', erase_now.uploaded_by
			UNION ALL SELECT 'source_key', erase_now.source_key
			UNION ALL SELECT 'image_id', u::text FROM unnest(ids) u
			UNION ALL SELECT DISTINCT 'message', m FROM unnest(messages) m) k (kind, value)
		WHERE k.value IS NOT NULL
		ON CONFLICT (hash) DO UPDATE SET erased_at = EXCLUDED.erased_at, entry = EXCLUDED.entry;
END
$$;
COMMENT ON FUNCTION imgpipe.erase_now(text, text, uuid[]) IS
'What erase_images() does, for a caller that has locked the positions of what it erases. Only the owner may, unless granted.';
REVOKE EXECUTE ON FUNCTION imgpipe.erase_now(text, text, uuid[]) FROM PUBLIC;

CREATE FUNCTION imgpipe.erase_images(uploaded_by text DEFAULT NULL, source_key text DEFAULT NULL, image_ids uuid[] DEFAULT NULL,
	OUT entry bigint, OUT images bigint, OUT row_counts jsonb) RETURNS record
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
BEGIN
	IF num_nonnulls(uploaded_by, source_key, image_ids) <> 1 THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
			MESSAGE = 'an erasure is of one person, one key or some images',
			DETAIL = format('%s of uploaded_by, source_key and image_ids were given.', num_nonnulls(uploaded_by, source_key, image_ids)),
			HINT = 'For example: SELECT * FROM imgpipe.erase_images(uploaded_by => ''ada'');';
	END IF;
	-- Batches in progress are waited for, and the next ones see the erasure.
	PERFORM FROM imgpipe.ingest_positions p ORDER BY p.source_id, p.partition FOR SHARE;
	SELECT * INTO entry, images, row_counts FROM imgpipe.erase_now(uploaded_by, source_key, image_ids);
END
$$;
COMMENT ON FUNCTION imgpipe.erase_images(text, text, uuid[]) IS
'Erases all of a person (uploaded_by), of a key (source_key), or some images, at once: images, renditions, results, dead letters and tasks; returns the entry in the purge ledger, how many images and how many rows of each table. Images that a legal hold is on are copied to imgpipe.held_images before. Messages of Kafka that were erased, and others of that person or key that were made before the erasure by the message''s timestamp, are not ingested again; newer ones are. Images that are inserted by SQL are always new ones. The daily volume keeps their number. Waits for batches and tasks that are working on them, and for a legal hold that is just being placed or released, as long as lock_timeout lets it; never for a purge, nor for the readers that one waits for. On disk, bytes of deleted rows can stay in the partition until it is dropped at its deadline, or until VACUUM FULL: see imgpipe.retention_residue(). Raises 22023 where not exactly one of the three is given, 55P03 where lock_timeout ended it, and nothing is erased then. Only the owner may, unless granted.';
REVOKE EXECUTE ON FUNCTION imgpipe.erase_images(text, text, uuid[]) FROM PUBLIC;

/* As the extension's owner, in the transaction of an ingest worker that has locked the position of the key's partition. */
CREATE FUNCTION imgpipe.expire_images_of_key(source text, source_key text, source_partition integer, before_offset bigint) RETURNS bigint
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	expired uuid[];
BEGIN
	SELECT array_agg(k.image_id) INTO expired FROM (
		SELECT i.image_id FROM imgpipe.images i
			WHERE i.source_key = expire_images_of_key.source_key AND i.source = expire_images_of_key.source AND i.image_id >= imgpipe.fence()
				AND (i.source_partition <> expire_images_of_key.source_partition OR i.source_offset < before_offset) IS NOT FALSE
		UNION
		SELECT c.image_id FROM imgpipe.chunked_images c JOIN imgpipe.sources s ON s.source_id = c.source_id
			WHERE c.source_key = expire_images_of_key.source_key AND coalesce(s.image_source, s.name) = expire_images_of_key.source
				AND c.due_at IS NOT NULL AND c.image_id >= imgpipe.fence()
				AND (c.source_partition <> expire_images_of_key.source_partition OR c.first_offset < before_offset)) k;
	IF expired IS NOT NULL THEN
		PERFORM imgpipe.erase_now(NULL, NULL, expired);
	END IF;
	RETURN coalesce(cardinality(expired), 0);
END
$$;
COMMENT ON FUNCTION imgpipe.expire_images_of_key(text, text, integer, bigint) IS
'What a tombstone does where on_tombstone is expire: the images of a source with that key are gone as if their deadline had come. What a legal hold is on is copied first, the daily volume keeps their number, the purge ledger has an entry, and their messages are not ingested again. Those of the tombstone''s partition only from before its offset: read again after a seek back, it ends nothing that came later. Returns how many images. Only the owner may, unless granted.';
REVOKE EXECUTE ON FUNCTION imgpipe.expire_images_of_key(text, text, integer, bigint) FROM PUBLIC;

CREATE FUNCTION imgpipe.refuse_erased(source text, partition integer, message_offset bigint, message_timestamp timestamptz,
	source_key text, uploaded_by text) RETURNS boolean
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
BEGIN
	UPDATE imgpipe.erasures e SET refused = e.refused + 1
		WHERE e.hash IN (imgpipe.erasure_hash('message', imgpipe.message_name(source, partition, message_offset)),
				imgpipe.erasure_hash('source_key', source_key), imgpipe.erasure_hash('uploaded_by', uploaded_by))
			AND (e.kind = 'message' OR message_timestamp IS NULL OR message_timestamp <= e.erased_at);
	RETURN FOUND;
END
$$;
COMMENT ON FUNCTION imgpipe.refuse_erased(text, integer, bigint, timestamptz, text, text) IS
'Whether a message would bring back what was erased: it is one of the erased messages, or of an erased person or key and made before the erasure. Counts it then.';
REVOKE EXECUTE ON FUNCTION imgpipe.refuse_erased(text, integer, bigint, timestamptz, text, text) FROM PUBLIC;

/* What retention has done, has still to do, and cannot reach; see src/retention/. */

CREATE FUNCTION imgpipe.prove_purged(image_id uuid, OUT state text, OUT deadline timestamptz, OUT entry bigint,
	OUT cause text, OUT purged_at timestamptz, OUT lsn pg_lsn, OUT hash bytea) RETURNS record
	LANGUAGE plpgsql STABLE STRICT PARALLEL UNSAFE SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
	deadline := imgpipe.purge_at(prove_purged.image_id);
	IF EXISTS (SELECT FROM imgpipe.images i WHERE i.image_id = prove_purged.image_id) THEN
		state := CASE WHEN prove_purged.image_id >= imgpipe.fence() THEN 'present' ELSE 'hidden' END;
		RETURN;
	END IF;
	IF EXISTS (SELECT FROM imgpipe.purges p WHERE NOT p.entered AND prove_purged.deadline >= p.deadline_from AND prove_purged.deadline < p.deadline_to) THEN
		state := 'hidden';
		RETURN;
	END IF;
	SELECT e.entry INTO entry FROM imgpipe.erasures e
		WHERE e.hash = imgpipe.erasure_hash('image_id', prove_purged.image_id::text);
	IF NOT FOUND THEN
		SELECT l.entry INTO entry FROM imgpipe.purge_ledger l
			WHERE l.cause = 'retention' AND prove_purged.deadline >= l.deadline_from AND prove_purged.deadline < l.deadline_to
			ORDER BY l.entry DESC LIMIT 1;
	END IF;
	SELECT l.cause, l.purged_at, l.lsn, l.hash INTO cause, purged_at, lsn, hash
		FROM imgpipe.purge_ledger l WHERE l.entry = prove_purged.entry;
	state := CASE
		WHEN EXISTS (SELECT FROM imgpipe.held_images h WHERE h.image_id = prove_purged.image_id) THEN 'held'
		WHEN entry IS NOT NULL THEN 'purged'
		ELSE 'unknown' END;
END
$$;
COMMENT ON FUNCTION imgpipe.prove_purged(uuid) IS
'What became of an image. state: present; hidden (past its deadline, not dropped yet); purged, by that entry of the ledger, at that time, with that hash; held, purged but for the copy of a legal hold; unknown: it is not here, and nothing with its deadline was purged. An id says only its deadline: whether an image of that id ever was there, nothing that is left can tell, and prove_purged() does not. Raises 22023 for a uuid that is no image id. Only the owner may, unless granted.';
REVOKE EXECUTE ON FUNCTION imgpipe.prove_purged(uuid) FROM PUBLIC;

/*
 * A view reads with the rights of its owner: where the fence does not hold for
 * that one, it holds for nobody who may read the view.  A materialized view is
 * a copy in any case.  Our own sealed_daily_volume counts, and means it.
 */
CREATE FUNCTION imgpipe.unfenced_views() RETURNS TABLE (view regclass, owner regrole, materialized boolean)
	LANGUAGE sql STABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
	SET jit = off
AS $$
	WITH RECURSIVE views AS (
		SELECT c.oid, c.relowner, c.relacl, c.relkind = 'm' AS materialized,
				(o.rolsuper OR o.rolbypassrls OR o.oid = (SELECT i.relowner FROM pg_class i WHERE i.oid = 'imgpipe.images'::regclass))
					AND NOT coalesce((SELECT s.option_value::boolean FROM pg_options_to_table(c.reloptions) s WHERE s.option_name = 'security_invoker'), false)
					-- Those of teams, and whoever does as they do.
					AND NOT EXISTS (SELECT FROM pg_rewrite w JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = w.oid
						WHERE w.ev_class = c.oid AND d.refclassid = 'pg_proc'::regclass AND d.refobjid = 'imgpipe.fence()'::regprocedure) AS unfenced
			FROM pg_class c JOIN pg_roles o ON o.oid = c.relowner
			WHERE c.relkind IN ('v', 'm') AND c.oid <> 'imgpipe.sealed_daily_volume'::regclass
	), readers AS (
		SELECT t.parent::oid AS oid, true AS unfenced FROM imgpipe.partitioned_tables t
		UNION
		SELECT v.oid, v.unfenced AND r.unfenced FROM readers r
			JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = r.oid AND d.classid = 'pg_rewrite'::regclass
			JOIN pg_rewrite w ON w.oid = d.objid
			JOIN views v ON v.oid = w.ev_class
	)
	SELECT DISTINCT v.oid::regclass, v.relowner::regrole, v.materialized
		FROM readers r JOIN views v ON v.oid = r.oid
		WHERE v.materialized OR (r.unfenced
			AND EXISTS (
				SELECT FROM (SELECT v.relacl UNION ALL SELECT a.attacl FROM pg_attribute a WHERE a.attrelid = v.oid AND a.attacl IS NOT NULL) p (acl)
					CROSS JOIN LATERAL aclexplode(p.acl) g
				WHERE g.privilege_type = 'SELECT' AND g.grantee <> v.relowner))
		ORDER BY 1
$$;
COMMENT ON FUNCTION imgpipe.unfenced_views() IS
'Views that others than their owner may read and that show images past their deadline, because the read fence does not hold for their owner and they do not ask for imgpipe.fence() themselves, and materialized views, which keep what they have read; each over any of the fenced tables.';
REVOKE EXECUTE ON FUNCTION imgpipe.unfenced_views() FROM PUBLIC;

CREATE FUNCTION imgpipe.retention_report() RETURNS TABLE (item text, value text, detail text, hint text)
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp
	SET jit = off
AS $$
#variable_conflict use_column
DECLARE
	overdue record;
	found_rows bigint;
	overdue_rows bigint := 0;
	overdue_partitions bigint := 0;
	hidden_rows bigint := 0;
BEGIN
	FOR overdue IN
		SELECT p.partition::text AS name FROM imgpipe.partitions p WHERE p.deadline_to <= clock_timestamp()
		UNION
		SELECT imgpipe.purge_table(p.partitions, t.key) FROM imgpipe.purges p CROSS JOIN LATERAL jsonb_object_keys(p.partitions) t (key)
			WHERE NOT p.entered AND imgpipe.purge_table(p.partitions, t.key) IS NOT NULL
	LOOP
		EXECUTE format('SELECT count(*) FROM %s', overdue.name) INTO found_rows;
		overdue_rows := overdue_rows + found_rows;
		overdue_partitions := overdue_partitions + 1;
	END LOOP;
	FOR overdue IN
		SELECT p.partition::text AS name FROM imgpipe.partitions p
			WHERE p.deadline_from <= clock_timestamp() AND p.deadline_to > clock_timestamp()
	LOOP
		EXECUTE format('SELECT count(*) FROM %s WHERE image_id < imgpipe.fence()', overdue.name) INTO found_rows;
		hidden_rows := hidden_rows + found_rows;
	END LOOP;
	RETURN QUERY VALUES
		('overdue_rows', overdue_rows::text, format('in %s partitions', overdue_partitions), NULL),
		('hidden_rows', hidden_rows::text, 'past their deadline, in partitions whose last deadline has not come', NULL);

	RETURN QUERY SELECT 'worst_lateness', l.lateness::text, format('entry %s of the ledger', l.entry), NULL
		FROM imgpipe.purge_ledger l WHERE l.lateness IS NOT NULL ORDER BY l.lateness DESC, l.entry LIMIT 1;
	RETURN QUERY SELECT 'oldest_image', imgpipe.purge_at(i.image_id)::text, format('its deadline; received at %s', i.received_at), NULL
		FROM imgpipe.images i WHERE i.image_id >= imgpipe.fence() ORDER BY i.image_id LIMIT 1;
	RETURN QUERY SELECT 'next_drop', p.deadline_to::text,
			format('%s in %s partitions', pg_size_pretty(sum(pg_total_relation_size(p.partition))), count(*)), NULL
		FROM imgpipe.partitions p WHERE p.deadline_to > clock_timestamp()
		GROUP BY p.deadline_from, p.deadline_to ORDER BY p.deadline_to LIMIT 3;
	RETURN QUERY SELECT 'partitions_until', min(u.last)::text, NULL,
			CASE WHEN min(u.last) < now() + imgpipe.longest_retention() THEN 'Soon images cannot be inserted: SELECT imgpipe.create_partitions();' END
		FROM (SELECT max(p.deadline_to) AS last FROM imgpipe.partitions p GROUP BY p.parent) u;
	RETURN QUERY SELECT 'held_images', count(*)::text, format('by %s holds', (SELECT count(*) FROM imgpipe.holds h WHERE NOT h.ended)), NULL FROM imgpipe.held_images;

	RETURN QUERY SELECT 'problem',
			format('purge of deadlines from %s to %s: %s', p.deadline_from, p.deadline_to, p.last_error),
			p.last_detail,
			format('%s Tried %s times; next at %s.', CASE p.sqlstate
				WHEN '2BP01' THEN 'Drop what depends on the table; then it goes by itself.'
				WHEN '55P03' THEN 'Somebody keeps a lock on the table; it goes when that is released.'
				WHEN '0A000' THEN 'Drop the constraint that refers to the table; then it goes by itself.'
				WHEN '23503' THEN 'Drop that constraint; then it goes by itself. A column without REFERENCES can name an image, too.'
				WHEN '55000' THEN 'Somebody has begun to detach another partition: ALTER TABLE ... DETACH PARTITION ... FINALIZE it.'
				ELSE 'The server log has the whole error.' END, p.attempts, p.retry_at)
		FROM imgpipe.purges p WHERE p.last_error IS NOT NULL ORDER BY p.deadline_to;
	RETURN QUERY SELECT 'problem', format('end of a hold for case %L: %s', h.case_reference, h.last_error), h.last_detail,
			format('%s Tried %s times; next at %s.', CASE WHEN h.ended THEN 'Drop what depends on the table; then it goes by itself.'
				ELSE format('What is held for it stays until then. SELECT imgpipe.release_hold(%L); ends it now, or says why not.', h.case_reference) END, h.attempts, h.retry_at)
		FROM imgpipe.holds h WHERE h.last_error IS NOT NULL ORDER BY h.until, h.hold_id;
	RETURN QUERY SELECT 'problem', format('the purge waits for process %s', b.pid),
			format('user %s, application %s, in a transaction since %s', b.usename, b.application_name, b.xact_start),
			format('It goes on when that transaction ends: SELECT pg_terminate_backend(%s); ends it.', b.pid)
		FROM pg_stat_activity a CROSS JOIN LATERAL unnest(pg_blocking_pids(a.pid)) k (pid) JOIN pg_stat_activity b ON b.pid = k.pid
		WHERE a.backend_type = 'imgpipe purge' AND a.datname = current_database() AND b.pid <> pg_backend_pid();
	-- Prepared transactions hold locks without a process.
	RETURN QUERY SELECT 'problem', format('the purge waits for prepared transaction %L', x.gid),
			format('of %s, since %s', x.owner, x.prepared),
			format('It goes on when that ends: COMMIT PREPARED %L; or ROLLBACK PREPARED %1$L;', x.gid)
		FROM pg_prepared_xacts x
		WHERE x.database = current_database()
			AND EXISTS (SELECT FROM pg_stat_activity a
				WHERE a.backend_type = 'imgpipe purge' AND a.datname = x.database AND 0 = ANY (pg_blocking_pids(a.pid)));
	RETURN QUERY SELECT 'problem', format('view %s shows images past their deadline', v.view),
			format('It reads with the rights of %s, whom the read fence does not hold for.', v.owner),
			format('ALTER VIEW %s SET (security_invoker = true);', v.view)
		FROM imgpipe.unfenced_views() v WHERE NOT v.materialized;
	RETURN QUERY SELECT 'unfenced_role', r.rolname::text,
			CASE WHEN r.rolbypassrls THEN 'With BYPASSRLS it sees images past their deadline, until they are dropped.'
				ELSE 'With pg_read_all_data it reads TOAST tables, which have the bytes of images past their deadline until they are dropped.' END,
			'Only backups need such a role.'
		FROM pg_roles r
		WHERE NOT r.rolsuper AND (r.rolbypassrls OR (r.rolcanlogin AND pg_has_role(r.oid, 'pg_read_all_data', 'USAGE')))
		ORDER BY r.rolname;
	RETURN QUERY SELECT 'problem', format('the ledger cannot be sent to topic "%s"', a.topic), format('Server "%s" does not exist.', a.server),
			format('CREATE SERVER %I FOREIGN DATA WRAPPER imgpipe_kafka ...; or SELECT imgpipe.send_ledger_to(%L, %L, send => false);', a.server, a.server, a.topic)
		FROM imgpipe.ledger_anchors a WHERE NOT EXISTS (SELECT FROM pg_foreign_server s WHERE s.srvname = a.server);
	RETURN QUERY SELECT 'problem', format('tablespace "%s" does not exist', s.name), 'Partitions stay where they are.', 'Set imgpipe.cold_tablespace to one that does.'
		FROM imgpipe.setting('imgpipe.cold_tablespace') s (name)
		WHERE s.name <> '' AND NOT EXISTS (SELECT FROM pg_tablespace t WHERE t.spcname = s.name);
	RETURN QUERY SELECT 'problem', 'nothing is purged by itself', 'imgpipe is not in shared_preload_libraries.', 'SELECT imgpipe.purge_next_partition(); until it returns false.'
		WHERE NOT imgpipe.workers_available();
END
$$;
COMMENT ON FUNCTION imgpipe.retention_report() IS
'How retention stands. Items: overdue_rows (0, but for the moments of a purge) and hidden_rows; worst_lateness of the ledger; oldest_image, by its deadline; the three next_drop; partitions_until; held_images; each unfenced_role, which the read fence does not hold for; and each problem, with what to do. Counts rows only in partitions that are due. Only the owner may, unless granted.';
REVOKE EXECUTE ON FUNCTION imgpipe.retention_report() FROM PUBLIC;


CREATE TABLE imgpipe.declared_copies (
	place text PRIMARY KEY,
	kept interval NOT NULL CHECK (kept OPERATOR(pg_catalog.>=) '0'::interval)
);
COMMENT ON TABLE imgpipe.declared_copies IS
'Copies that PostgreSQL does not know of, and how long they are kept: base backups, WAL archives, and under ''topic NAME'' the retention of a Kafka topic whose broker does not tell it. Written by declare_copy(), read by retention_residue().';
SELECT pg_catalog.pg_extension_config_dump('imgpipe.declared_copies', '');

CREATE FUNCTION imgpipe.declare_copy(place text, kept interval) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
BEGIN
	IF coalesce(place, '') = '' OR kept < '0' THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
			MESSAGE = 'a copy is declared by a place and a time that it is kept for',
			DETAIL = format('The place is %s, the time %s.', coalesce(quote_literal(place), 'NULL'), kept),
			HINT = 'For example: SELECT imgpipe.declare_copy(''base backups'', ''14 days'');';
	END IF;
	IF kept IS NULL THEN
		DELETE FROM imgpipe.declared_copies c WHERE c.place = declare_copy.place;
	ELSE
		INSERT INTO imgpipe.declared_copies VALUES (place, kept)
			ON CONFLICT ON CONSTRAINT declared_copies_pkey DO UPDATE SET kept = EXCLUDED.kept;
	END IF;
END
$$;
COMMENT ON FUNCTION imgpipe.declare_copy(text, interval) IS
'Says how long a place keeps copies of images: declare_copy(''base backups'', ''14 days''), declare_copy(''WAL archive'', ''14 days''), declare_copy(''topic photos'', ''7 days''). NULL takes it back. Raises 22023 for no place and a negative time. Needs SELECT, INSERT, UPDATE and DELETE on imgpipe.declared_copies.';

CREATE FUNCTION imgpipe.retention_residue() RETURNS TABLE (place text, detail text, gone_by timestamptz, hint text)
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
	last_purge imgpipe.purge_ledger;
	keeps CONSTANT interval := imgpipe.longest_retention();
	declared_long text := 'It keeps images for longer than the longest retention: shorten that, or tell who relies on their being gone.';
BEGIN
	SELECT l.* INTO last_purge FROM imgpipe.purge_ledger l ORDER BY l.entry DESC LIMIT 1;

	RETURN QUERY SELECT 'write-ahead log', format('%s segments, the oldest of %s; what was written before that time is not in them', count(*), min(w.modification)),
			NULL::timestamptz, 'Segments are written over in turn, sooner with a smaller max_wal_size and wal_keep_size.'
		FROM pg_ls_waldir() w HAVING count(*) > 0;
	RETURN QUERY SELECT format('replication slot %s', s.slot_name),
			format('%s of write-ahead log are kept for it', pg_size_pretty(pg_current_wal_lsn() - s.restart_lsn)), NULL::timestamptz,
			CASE WHEN NOT s.active THEN format('Nobody reads from it: SELECT pg_drop_replication_slot(%L);', s.slot_name) END
		FROM pg_replication_slots s WHERE s.restart_lsn IS NOT NULL;
	RETURN QUERY SELECT format('standby %s', coalesce(nullif(r.application_name, ''), r.client_addr::text)),
			CASE WHEN r.replay_lsn >= last_purge.lsn THEN 'it has replayed all purges' ELSE 'it has not replayed the last purge yet' END,
			CASE WHEN r.replay_lsn >= last_purge.lsn THEN last_purge.purged_at END,
			CASE WHEN (r.replay_lsn >= last_purge.lsn) IS NOT TRUE THEN 'A query there may be in its way: see max_standby_streaming_delay.' END
		FROM pg_stat_replication r;
	RETURN QUERY SELECT c.place, format('declared: kept for %s', c.kept), last_purge.purged_at + c.kept,
			CASE WHEN c.kept > keeps THEN declared_long END
		FROM imgpipe.declared_copies c WHERE c.place NOT LIKE 'topic %';
	RETURN QUERY SELECT 'WAL archive', 'archive_mode is on', NULL::timestamptz,
			'SELECT imgpipe.declare_copy(''WAL archive'', ...); says how long it is kept.'
		WHERE current_setting('archive_mode') <> 'off' AND NOT EXISTS (SELECT FROM imgpipe.declared_copies c WHERE c.place = 'WAL archive');
	RETURN QUERY SELECT 'base backups', 'PostgreSQL does not know of them', NULL::timestamptz,
			'SELECT imgpipe.declare_copy(''base backups'', ...); says how long they are kept, 0 that there are none.'
		WHERE NOT EXISTS (SELECT FROM imgpipe.declared_copies c WHERE c.place = 'base backups');
	RETURN QUERY SELECT format('topic %s', k.topic),
			format('%s source %s; %s', k.role, k.name, CASE WHEN k.asked THEN format('the broker says at %s: retention.ms = %s, segment.ms = %s', k.told_at, k.retention_ms, k.segment_ms)
				WHEN k.kept IS NOT NULL THEN format('declared: kept for %s', k.kept)
				WHEN k.role <> 'of' THEN 'how long it is kept is not declared'
				ELSE coalesce('the broker does not say how long it is kept: ' || k.error, 'the broker was not asked yet how long it is kept') END),
			now() + k.kept,
			CASE WHEN k.retention_ms = -1 THEN 'The topic keeps images for ever: set its retention.ms, and its cleanup.policy to delete.'
				WHEN k.kept > k.policy THEN format('The topic can keep images for longer than the %s of their source: lower its retention.ms%s.', k.policy,
					CASE WHEN k.asked THEN ', and segment.ms, which is added to it' END)
				WHEN k.kept IS NULL THEN format('%sSELECT imgpipe.declare_copy(%L, ...); says its retention.ms.', CASE WHEN k.role = 'of' THEN 'Start the source, or ' END, 'topic ' || k.topic) END
		FROM (SELECT s.name, u.topic, u.role, t.told_at, t.retention_ms, t.segment_ms, t.error, t.retention_ms IS NOT NULL AS asked,
				coalesce(s.retention, imgpipe.setting('imgpipe.retention')::interval) AS policy,
				CASE WHEN t.retention_ms >= 0 THEN least(t.retention_ms + t.segment_ms, 1000::bigint * 366 * 86400 * 1000) * interval '1 millisecond'
					WHEN t.retention_ms IS NULL THEN c.kept END AS kept
			FROM imgpipe.sources s
				CROSS JOIN LATERAL (VALUES (s.topic, 'of'), (s.result_topic, 'results of'), (s.dead_letter_topic, 'dead letters of')) u (topic, role)
				LEFT JOIN imgpipe.source_topics t ON t.source_id = s.source_id AND u.role = 'of'
				LEFT JOIN imgpipe.declared_copies c ON c.place = 'topic ' || u.topic
			WHERE u.topic IS NOT NULL) k
		ORDER BY k.name, k.role DESC, k.topic;
	RETURN QUERY SELECT 'server log', format('%s = %s prints statements, with the values in them', g.name, g.setting), NULL::timestamptz,
			format('ALTER SYSTEM SET %s = %s;', g.name, g.safe)
		FROM (SELECT s.name, s.setting, v.safe FROM pg_settings s JOIN (VALUES
				('log_statement', '{none,ddl}'::text[], 'ddl'),
				('log_min_duration_statement', '{-1}', '-1'),
				('log_min_duration_sample', '{-1}', '-1'),
				('log_min_error_statement', '{fatal,panic}', 'panic'),
				('log_parameter_max_length_on_error', '{0}', '0'),
				('auto_explain.log_min_duration', '{-1}', '-1')) v (name, fine, safe) ON v.name = s.name
			WHERE s.setting <> ALL (v.fine)) g;
	RETURN QUERY SELECT v.place, format('%s = %s keeps %s, with the values in them', s.name, s.setting, v.what), NULL::timestamptz, v.hint
		FROM pg_settings s JOIN (VALUES
			('pgaudit.log', '{none,""}'::text[], 'server log', 'statements', 'Keep that log no longer than images.'),
			('pg_stat_statements.track_utility', '{off}', 'pg_stat_statements', 'EXECUTE, CALL and the like',
				'ALTER SYSTEM SET pg_stat_statements.track_utility = off; SELECT pg_stat_statements_reset();')) v (name, fine, place, what, hint) ON v.name = s.name
		WHERE s.setting <> ALL (v.fine);
	RETURN QUERY SELECT 'partitions with erased rows', format('bytes of deleted rows, last of entry %s', max(l.entry)),
			max(l.purged_at) + keeps + imgpipe.setting('imgpipe.partition_interval')::interval,
			'They are dropped with their partition; VACUUM (FULL) of the partition removes them at once.'
		FROM imgpipe.purge_ledger l WHERE l.cause = 'erasure'
		HAVING max(l.purged_at) + keeps + imgpipe.setting('imgpipe.partition_interval')::interval > now();
	RETURN QUERY SELECT 'purges that did not end', format('%s spans of deadlines', count(*)), NULL::timestamptz, 'SELECT * FROM imgpipe.retention_report();'
		FROM imgpipe.purges p WHERE NOT p.entered HAVING count(*) > 0;
	RETURN QUERY SELECT 'legal holds', format('%s images in imgpipe.held_images', count(*)), NULL::timestamptz, 'They stay until imgpipe.release_hold().'
		FROM imgpipe.held_images h HAVING count(*) > 0;
	RETURN QUERY SELECT format('materialized view %s', v.view), 'what it read, until it is refreshed', NULL::timestamptz,
			format('REFRESH MATERIALIZED VIEW %s; as often as images shall go, or make it a view.', v.view)
		FROM imgpipe.unfenced_views() v WHERE v.materialized;
	RETURN QUERY SELECT format('publication %s', p.pubname), format('hands on %s', string_agg(DISTINCT t.root::text, ', ')), NULL::timestamptz,
			'Dropped partitions are not replicated: subscribers must purge by themselves.'
		FROM pg_publication_tables p
			CROSS JOIN LATERAL (SELECT coalesce(pg_partition_root(c.oid), c.oid) AS root FROM pg_class c
				WHERE c.oid = to_regclass(format('%I.%I', p.schemaname, p.tablename))) t
		WHERE t.root = 'imgpipe.held_images'::regclass OR t.root IN (SELECT r.parent FROM imgpipe.partitioned_tables r)
		GROUP BY p.pubname;
	RETURN QUERY SELECT 'planner statistics', format('of column %s of %s', a.attname, a.attrelid::regclass), NULL::timestamptz,
			format('ALTER TABLE %s ALTER %I SET STATISTICS 0; DELETE FROM pg_statistic WHERE starelid = %s AND staattnum = %s;',
				a.attrelid::regclass, a.attname, a.attrelid, a.attnum)
		FROM pg_attribute a JOIN pg_statistic s ON s.starelid = a.attrelid AND s.staattnum = a.attnum
		WHERE (a.attrelid = 'imgpipe.held_images'::regclass OR a.attrelid IN (SELECT t.parent FROM imgpipe.partitioned_tables t))
			AND a.attname IN ('content', 'source_key', 'batch_id', 'uploaded_by', 'headers', 'sha256', 'result', 'results', 'value', 'reason', 'detail');
	RETURN QUERY SELECT 'prepared transaction', format('%s of %s, since %s', x.gid, x.owner, x.prepared), NULL::timestamptz,
			format('COMMIT PREPARED %L; or ROLLBACK PREPARED %1$L;', x.gid)
		FROM pg_prepared_xacts x WHERE x.database = current_database();
END
$$;
COMMENT ON FUNCTION imgpipe.retention_residue() IS
'Where bytes of purged images can still be, outside of the tables, and by when they are gone there: the write-ahead log, replication slots, standbys, base backups and WAL archives (as declare_copy() says), Kafka topics (as their broker says, or declare_copy()), the server log and pg_stat_statements where their settings make them keep values, deleted rows of erasures, legal holds, planner statistics. gone_by is NULL where nothing here tells. Only the owner may, unless granted.';
REVOKE EXECUTE ON FUNCTION imgpipe.retention_residue() FROM PUBLIC;

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


/*
 * The example sales schema: the script that creates it; see src/sales/.
 *
 * What it makes belongs to the user who runs it, and in no way to the extension:
 * it uses nothing of imgpipe's, and stays when the extension goes.  In the text,
 * @sales@ stands for the quoted name of the schema, @time_zone@ for the quoted
 * time zone whose clock its days go by, and $body$ for a tag of dollar quoting
 * that is not in that name (see create.sql).  All names are qualified, for views
 * and functions are used with anybody's search_path.
 *
 * Rights: views read with their owner's rights, so that who may read a view needs no
 * right on the tables under it, and those for readers are security barriers, so that
 * no condition of the reader's sees a row that the view leaves out.  Functions run with
 * the rights of who calls them.  Two triggers have their owner's: one writes the log that
 * nobody else may write, one checks what it refers to, as a foreign key does.
 */
CREATE FUNCTION imgpipe.sales_schema_script() RETURNS text
	LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN $script$
CREATE SCHEMA @sales@;

CREATE TABLE @sales@.members (
	member_id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
	membership_status text NOT NULL DEFAULT 'basic' CHECK (membership_status IN ('basic', 'silver', 'gold', 'platinum')),
	joined_at timestamptz NOT NULL DEFAULT clock_timestamp(),
	name text NOT NULL CHECK (name <> ''),
	email text NOT NULL CHECK (email ~ '^[^@[:space:]]+@[^@[:space:]]+$'),
	phone text,
	birth_date date CHECK (birth_date BETWEEN '1900-01-01' AND '9999-12-31'),
	street text,
	postal_code text,
	city text,
	country text CHECK (country ~ '^[A-Z]{2}$'),
	latitude numeric(8,6) CHECK (latitude BETWEEN -90 AND 90),
	longitude numeric(9,6) CHECK (longitude BETWEEN -180 AND 180)
);
CREATE UNIQUE INDEX members_email ON @sales@.members (lower(email));
COMMENT ON TABLE @sales@.members IS
'Those who buy. All but member_id, membership_status and joined_at is personal data.';
COMMENT ON COLUMN @sales@.members.country IS 'Two letters, ISO 3166-1.';
COMMENT ON COLUMN @sales@.members.latitude IS 'Of the address, in degrees, WGS 84.';
COMMENT ON COLUMN @sales@.members.longitude IS 'Of the address, in degrees, WGS 84.';

-- Equality of item_id is written as overlap of ranges of one number, which GiST can do without an extension (btree_gist).
CREATE TABLE @sales@.items (
	item_id bigint NOT NULL GENERATED BY DEFAULT AS IDENTITY,
	version integer NOT NULL DEFAULT 1 CHECK (version > 0),
	validity tstzrange NOT NULL DEFAULT tstzrange(clock_timestamp(), NULL),
	is_current boolean NOT NULL GENERATED ALWAYS AS (upper_inf(validity)) STORED,
	is_active boolean NOT NULL DEFAULT true,
	name text NOT NULL CHECK (name <> ''),
	manufacturer text NOT NULL,
	price numeric(12,2) NOT NULL CHECK (price >= 0 AND price <> 'NaN'),
	cost numeric(12,2) NOT NULL CHECK (cost >= 0 AND cost <> 'NaN'),
	weight numeric(10,3) NOT NULL CHECK (weight > 0 AND weight <> 'NaN'),
	image_id uuid,
	PRIMARY KEY (item_id, version),
	CONSTRAINT items_one_version_at_a_time EXCLUDE USING gist (int8range(item_id, item_id, '[]') WITH &&, validity WITH &&),
	CONSTRAINT items_validity_is_a_period CHECK (NOT isempty(validity) AND lower_inc(validity) AND NOT upper_inc(validity)
		AND isfinite(lower(validity)) AND isfinite(upper(validity)) IS NOT FALSE)
);
CREATE UNIQUE INDEX items_current ON @sales@.items (item_id) WHERE is_current;
CREATE INDEX items_image ON @sales@.items (image_id);
COMMENT ON TABLE @sales@.items IS
'Items with their history: one row a version (slowly changing dimension, type 2). add_item(), update_item() and retire_item() write it.';
COMMENT ON COLUMN @sales@.items.validity IS 'From when, inclusive, until when, exclusive, the item was like this. Versions of one item never overlap.';
COMMENT ON COLUMN @sales@.items.is_current IS 'Whether this is the item as it is now: whether validity has no end.';
COMMENT ON COLUMN @sales@.items.is_active IS 'False from when the item was retired.';
COMMENT ON COLUMN @sales@.items.price IS 'What one costs a member, in the currency of the shop.';
COMMENT ON COLUMN @sales@.items.cost IS 'What one costs the shop, in its currency.';
COMMENT ON COLUMN @sales@.items.weight IS 'Of one, in kilograms.';
COMMENT ON COLUMN @sales@.items.image_id IS
'Picture of the item: imgpipe.images.image_id. No foreign key, for an image goes at its deadline; imgpipe.purge_at(image_id) says when.';

CREATE TABLE @sales@.transactions (
	transaction_id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
	member_id bigint NOT NULL REFERENCES @sales@.members,
	status text NOT NULL DEFAULT 'pending' CHECK (status IN ('pending', 'completed', 'cancelled')),
	created_at timestamptz NOT NULL DEFAULT clock_timestamp() CHECK (isfinite(created_at)),
	completed_at timestamptz,
	CONSTRAINT transactions_completed_has_a_time CHECK ((status = 'completed') = (completed_at IS NOT NULL)),
	CONSTRAINT transactions_completed_after_created CHECK (completed_at >= created_at AND isfinite(completed_at))
);
CREATE INDEX transactions_member ON @sales@.transactions (member_id);
CREATE INDEX transactions_created ON @sales@.transactions (created_at);
COMMENT ON TABLE @sales@.transactions IS 'Sales: pending until they are sent (complete_transaction()), or cancelled. Each change of status is in transaction_log.';
COMMENT ON COLUMN @sales@.transactions.created_at IS 'The moment of the sale, at which its items are looked up.';

CREATE TABLE @sales@.transaction_items (
	transaction_id bigint NOT NULL REFERENCES @sales@.transactions ON DELETE CASCADE,
	item_id bigint NOT NULL,
	quantity integer NOT NULL CHECK (quantity > 0),
	price numeric(12,2) NOT NULL CHECK (price >= 0 AND price <> 'NaN'),
	PRIMARY KEY (transaction_id, item_id)
);
CREATE INDEX transaction_items_item ON @sales@.transaction_items (item_id);
COMMENT ON TABLE @sales@.transaction_items IS 'What was sold in a transaction; sale_items adds what the item was like.';
COMMENT ON COLUMN @sales@.transaction_items.item_id IS 'An item that was for sale (had an active version) at transactions.created_at; else 23503.';
COMMENT ON COLUMN @sales@.transaction_items.price IS 'What one was sold for.';

CREATE TABLE @sales@.transaction_log (
	log_id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
	transaction_id bigint NOT NULL,
	old_status text NOT NULL,
	new_status text NOT NULL,
	changed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
	login text NOT NULL,
	role text NOT NULL
);
CREATE INDEX transaction_log_transaction ON @sales@.transaction_log (transaction_id);
COMMENT ON TABLE @sales@.transaction_log IS 'Who changed the status of a transaction, and when; written by a trigger, whatever way the change is made.';
COMMENT ON COLUMN @sales@.transaction_log.login IS 'The role that the session logged in as.';
COMMENT ON COLUMN @sales@.transaction_log.role IS 'The role of SET ROLE, or login again where none was set.';

CREATE FUNCTION @sales@.log_status() RETURNS trigger
	LANGUAGE plpgsql VOLATILE SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp
AS $body$
BEGIN
	-- current_user is the owner of this function.
	INSERT INTO @sales@.transaction_log (transaction_id, old_status, new_status, login, role)
		VALUES (NEW.transaction_id, OLD.status, NEW.status, session_user,
			CASE current_setting('role') WHEN 'none' THEN session_user ELSE current_setting('role') END);
	RETURN NULL;
END
$body$;
COMMENT ON FUNCTION @sales@.log_status() IS 'Trigger: enters a change of status into transaction_log.';
CREATE TRIGGER log_status AFTER UPDATE ON @sales@.transactions
	FOR EACH ROW WHEN (OLD.status <> NEW.status) EXECUTE FUNCTION @sales@.log_status();

CREATE FUNCTION @sales@.check_sold_items() RETURNS trigger
	LANGUAGE plpgsql VOLATILE SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp
AS $body$
DECLARE
	missing record;
BEGIN
	-- The first one is enough, but LIMIT would have it planned as if there were many.
	SELECT s.item_id, t.created_at INTO missing
		FROM sold s JOIN @sales@.transactions t ON t.transaction_id = s.transaction_id
		WHERE NOT EXISTS (SELECT FROM @sales@.items i
			WHERE i.item_id = s.item_id AND i.validity @> t.created_at AND i.is_active)
		ORDER BY s.transaction_id, s.item_id;
	IF FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'foreign_key_violation',
			MESSAGE = format('item %s was not for sale', missing.item_id),
			DETAIL = format('It has no active version at %s, the time of the transaction.', missing.created_at),
			HINT = 'items_as_of() shows the items of a moment.',
			SCHEMA = TG_TABLE_SCHEMA, TABLE = TG_TABLE_NAME, COLUMN = 'item_id';
	END IF;
	RETURN NULL;
END
$body$;
COMMENT ON FUNCTION @sales@.check_sold_items() IS 'Trigger: raises 23503 where an item was not for sale at the time of its transaction.';
CREATE TRIGGER check_inserted_items AFTER INSERT ON @sales@.transaction_items
	REFERENCING NEW TABLE AS sold FOR EACH STATEMENT EXECUTE FUNCTION @sales@.check_sold_items();
CREATE TRIGGER check_updated_items AFTER UPDATE ON @sales@.transaction_items
	REFERENCING NEW TABLE AS sold FOR EACH STATEMENT EXECUTE FUNCTION @sales@.check_sold_items();

CREATE FUNCTION @sales@.keep_history() RETURNS trigger
	LANGUAGE plpgsql VOLATILE
	SET search_path = pg_catalog, pg_temp
AS $body$
BEGIN
	RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
		MESSAGE = format('version %s of item %s cannot be changed', OLD.version, OLD.item_id),
		DETAIL = 'It says what the item was like, for the sales of its time; all that may change is that it ends.',
		HINT = 'Make a new version with update_item(), or end the item with retire_item().',
		SCHEMA = TG_TABLE_SCHEMA, TABLE = TG_TABLE_NAME;
END
$body$;
COMMENT ON FUNCTION @sales@.keep_history() IS 'Trigger: raises 55000 for a change of a version of an item other than its end.';
CREATE TRIGGER keep_history BEFORE UPDATE ON @sales@.items
	FOR EACH ROW WHEN (
		(OLD.item_id, OLD.version, OLD.is_active, OLD.name, OLD.manufacturer, OLD.price, OLD.cost, OLD.weight, OLD.image_id, lower(OLD.validity))
			IS DISTINCT FROM
		(NEW.item_id, NEW.version, NEW.is_active, NEW.name, NEW.manufacturer, NEW.price, NEW.cost, NEW.weight, NEW.image_id, lower(NEW.validity))
		OR (NOT upper_inf(OLD.validity) AND NEW.validity <> OLD.validity))
	EXECUTE FUNCTION @sales@.keep_history();

CREATE FUNCTION @sales@.add_item(name text, price numeric, cost numeric, weight numeric, manufacturer text, image_id uuid DEFAULT NULL) RETURNS bigint
	LANGUAGE sql VOLATILE
	SET search_path = pg_catalog, pg_temp
AS $body$
	INSERT INTO @sales@.items AS i (name, price, cost, weight, manufacturer, image_id)
		VALUES (add_item.name, add_item.price, add_item.cost, add_item.weight, add_item.manufacturer, add_item.image_id)
		RETURNING i.item_id
$body$;
COMMENT ON FUNCTION @sales@.add_item(text, numeric, numeric, numeric, text, uuid) IS
'Adds an item, for sale from now on, and returns its item_id. price and cost of one, in the currency of the shop; weight of one in kilograms; image_id of its picture. Raises 23502 for what is missing, 23514 for a negative price or cost or no weight. The caller needs SELECT and INSERT on items.';

CREATE FUNCTION @sales@.update_item(item_id bigint, name text DEFAULT NULL, price numeric DEFAULT NULL, cost numeric DEFAULT NULL,
	weight numeric DEFAULT NULL, manufacturer text DEFAULT NULL, image_id uuid DEFAULT NULL, is_active boolean DEFAULT NULL,
	remove_image boolean DEFAULT false) RETURNS integer
	LANGUAGE plpgsql VOLATILE
	SET search_path = pg_catalog, pg_temp
AS $body$
#variable_conflict use_column
DECLARE
	old_item @sales@.items;
	new_item @sales@.items;
	moment timestamptz;
BEGIN
	-- Whoever changes an item waits here, at its first version, for who is just changing it, and then sees what became of it.
	PERFORM FROM @sales@.items i WHERE i.item_id = update_item.item_id ORDER BY i.version LIMIT 1 FOR UPDATE;
	SELECT i.* INTO old_item FROM @sales@.items i WHERE i.item_id = update_item.item_id AND i.is_current;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'no_data_found',
			MESSAGE = format('item %s does not exist', coalesce(update_item.item_id::text, 'NULL')),
			DETAIL = 'No version of it is current.',
			HINT = 'add_item() adds an item and returns its item_id.';
	END IF;
	new_item := old_item;
	new_item.name := coalesce(update_item.name, old_item.name);
	new_item.price := coalesce(update_item.price, old_item.price);
	new_item.cost := coalesce(update_item.cost, old_item.cost);
	new_item.weight := coalesce(update_item.weight, old_item.weight);
	new_item.manufacturer := coalesce(update_item.manufacturer, old_item.manufacturer);
	new_item.is_active := coalesce(update_item.is_active, old_item.is_active);
	new_item.image_id := CASE WHEN remove_image THEN NULL ELSE coalesce(update_item.image_id, old_item.image_id) END;
	IF new_item IS NOT DISTINCT FROM old_item THEN
		RETURN old_item.version;
	END IF;
	-- Not before what was there began, even where the clock was set back.
	moment := greatest(clock_timestamp(), lower(old_item.validity) + interval '1 microsecond');
	UPDATE @sales@.items i SET validity = tstzrange(lower(i.validity), moment)
		WHERE i.item_id = old_item.item_id AND i.version = old_item.version;
	INSERT INTO @sales@.items AS i (item_id, version, validity, is_active, name, manufacturer, price, cost, weight, image_id)
		VALUES (old_item.item_id, old_item.version + 1, tstzrange(moment, NULL), new_item.is_active, new_item.name, new_item.manufacturer,
			new_item.price, new_item.cost, new_item.weight, new_item.image_id)
		RETURNING i.version INTO new_item.version;
	RETURN new_item.version;
END
$body$;
COMMENT ON FUNCTION @sales@.update_item(bigint, text, numeric, numeric, numeric, text, uuid, boolean, boolean) IS
'Ends the current version of an item and begins a new one with what is given; what is NULL stays as it was, and remove_image takes the picture away. Returns the number of the version that is current now, which is the old one where nothing would change. is_active => true brings a retired item back. Changes at the same time wait for each other, and none is lost. Raises P0002 where there is no such item, 23514 for a negative price or cost or no weight, 40001 where another change came first in REPEATABLE READ or SERIALIZABLE. The caller needs SELECT, INSERT and UPDATE (validity) on items.';

CREATE FUNCTION @sales@.retire_item(item_id bigint) RETURNS integer
	LANGUAGE sql VOLATILE
	SET search_path = pg_catalog, pg_temp
AS $body$
	SELECT @sales@.update_item(retire_item.item_id, is_active => false)
$body$;
COMMENT ON FUNCTION @sales@.retire_item(bigint) IS
'Takes an item off sale, in place of deleting it: update_item(item_id, is_active => false). Sales of it still find it as it was. Returns the version; that of an item that is retired already stays. Raises P0002 where there is no such item. The caller needs what update_item() needs, and EXECUTE on that.';

-- Neither SET nor operators by search_path: so it becomes part of the query that calls it.
CREATE FUNCTION @sales@.items_as_of(moment timestamptz) RETURNS SETOF @sales@.items
	LANGUAGE sql STABLE PARALLEL SAFE
AS $body$
	SELECT i.* FROM @sales@.items i WHERE i.validity OPERATOR(pg_catalog.@>) items_as_of.moment
$body$;
COMMENT ON FUNCTION @sales@.items_as_of(timestamptz) IS
'The items as they were at a moment, those that were retired by then with is_active false. The caller needs SELECT on items.';

CREATE FUNCTION @sales@.complete_transaction(transaction_id bigint) RETURNS boolean
	LANGUAGE plpgsql VOLATILE
	SET search_path = pg_catalog, pg_temp
AS $body$
#variable_conflict use_column
DECLARE
	found_status text;
BEGIN
	UPDATE @sales@.transactions t SET status = 'completed', completed_at = greatest(clock_timestamp(), t.created_at)
		WHERE t.transaction_id = complete_transaction.transaction_id AND t.status = 'pending';
	IF FOUND THEN
		RETURN true;
	END IF;
	SELECT t.status INTO found_status FROM @sales@.transactions t WHERE t.transaction_id = complete_transaction.transaction_id;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'no_data_found',
			MESSAGE = format('transaction %s does not exist', coalesce(complete_transaction.transaction_id::text, 'NULL')),
			HINT = 'unfulfilled_orders_today shows those of today that are pending.';
	ELSIF found_status <> 'completed' THEN
		RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
			MESSAGE = format('transaction %s cannot be completed', complete_transaction.transaction_id),
			DETAIL = format('It is %s.', found_status),
			HINT = 'Only a transaction that is pending can be completed.';
	END IF;
	RETURN false;
END
$body$;
COMMENT ON FUNCTION @sales@.complete_transaction(bigint) IS
'Checks a transaction off as completed, now. True where it was pending; false where it is completed already, which changes nothing. Raises P0002 where there is no such transaction, 55000 where it was cancelled. The caller needs SELECT (transaction_id, status, created_at) and UPDATE (status, completed_at) on transactions.';

CREATE VIEW @sales@.sale_items WITH (security_barrier) AS
	SELECT l.transaction_id, t.created_at, t.status, l.item_id, i.version AS item_version, i.name, i.manufacturer,
		l.quantity, l.price, l.quantity * l.price AS total_price, i.weight, l.quantity * i.weight AS total_weight, i.image_id
	FROM @sales@.transaction_items l
	JOIN @sales@.transactions t ON t.transaction_id = l.transaction_id
	LEFT JOIN @sales@.items i ON i.item_id = l.item_id AND i.validity @> t.created_at;
COMMENT ON VIEW @sales@.sale_items IS
'What was sold, with the version of the item that was valid at the sale, and its picture then. Weights in kilograms. A version that somebody deleted is NULL.';

-- No security barrier, which would have each picture looked up among all sales: it is for the row filters of teams' views, which are barriers themselves.
CREATE VIEW @sales@.sold_pictures AS
	SELECT i.image_id, l.transaction_id, l.item_id
	FROM @sales@.items i
	JOIN @sales@.transaction_items l ON l.item_id = i.item_id
	JOIN @sales@.transactions t ON t.transaction_id = l.transaction_id AND i.validity @> t.created_at
	WHERE i.image_id IS NOT NULL;
COMMENT ON VIEW @sales@.sold_pictures IS
'The pictures in sale_items, found by image_id. For row filters of templates; grant sale_items instead, for this one is no security barrier.';

CREATE VIEW @sales@.sales_details WITH (security_barrier) AS
	SELECT t.transaction_id, t.member_id, t.status, t.created_at, t.completed_at,
		count(l.item_id) AS items, coalesce(sum(l.quantity), 0) AS quantity,
		coalesce(sum(l.quantity * l.price), 0) AS total_price, coalesce(sum(l.quantity * i.weight), 0) AS total_weight
	FROM @sales@.transactions t
	LEFT JOIN @sales@.transaction_items l ON l.transaction_id = t.transaction_id
	LEFT JOIN @sales@.items i ON i.item_id = l.item_id AND i.validity @> t.created_at
	GROUP BY t.transaction_id;
COMMENT ON VIEW @sales@.sales_details IS
'Each transaction with how many different items and how many pieces it has, what they cost and what they weigh together, in kilograms, as they were when they were sold.';

CREATE VIEW @sales@.unfulfilled_orders_today WITH (security_barrier) AS
	SELECT d.transaction_id, d.member_id, d.created_at, d.items, d.quantity, d.total_price, d.total_weight
	FROM @sales@.sales_details d
	WHERE d.status = 'pending'
		AND d.created_at >= date_trunc('day', now() AT TIME ZONE @time_zone@) AT TIME ZONE @time_zone@
		AND d.created_at < (date_trunc('day', now() AT TIME ZONE @time_zone@) + interval '1 day') AT TIME ZONE @time_zone@;
COMMENT ON VIEW @sales@.unfulfilled_orders_today IS
'Transactions of today that are pending. Today is the shop''s, by the clock of its time zone, whatever that of the reader is.';

CREATE VIEW @sales@.daily_sales WITH (security_barrier) AS
	SELECT (d.created_at AT TIME ZONE @time_zone@)::date AS day, count(*) AS transactions,
		count(*) FILTER (WHERE d.status = 'pending') AS pending, count(*) FILTER (WHERE d.status = 'completed') AS completed,
		count(*) FILTER (WHERE d.status = 'cancelled') AS cancelled,
		coalesce(sum(d.quantity) FILTER (WHERE d.status <> 'cancelled'), 0) AS quantity,
		coalesce(sum(d.total_price) FILTER (WHERE d.status <> 'cancelled'), 0) AS revenue,
		coalesce(sum(d.total_weight) FILTER (WHERE d.status <> 'cancelled'), 0) AS total_weight
	FROM @sales@.sales_details d
	GROUP BY 1;
COMMENT ON VIEW @sales@.daily_sales IS
'Sales by day of created_at, by the clock of the shop''s time zone: transactions, and pieces, revenue and weight (kilograms) of those that were not cancelled. A day without sales has no row.';

CREATE VIEW @sales@.top_members WITH (security_barrier) AS
	SELECT rank() OVER (ORDER BY sum(l.quantity * l.price) DESC) AS rank, t.member_id, m.membership_status,
		count(DISTINCT t.transaction_id) AS transactions, sum(l.quantity * l.price) AS spending
	FROM @sales@.transactions t
	JOIN @sales@.transaction_items l ON l.transaction_id = t.transaction_id
	JOIN @sales@.members m ON m.member_id = t.member_id
	WHERE t.status <> 'cancelled'
	GROUP BY t.member_id, m.membership_status
	ORDER BY spending DESC, t.member_id
	LIMIT 10;
COMMENT ON VIEW @sales@.top_members IS
'The 10 members who spent most, cancelled transactions left out; no personal data. Equals have the same rank, and the one with the smaller member_id comes first.';

CREATE VIEW @sales@.top_items WITH (security_barrier) AS
	SELECT rank() OVER (ORDER BY q.quantity DESC) AS rank, q.item_id, i.name, q.quantity
	FROM (SELECT l.item_id, sum(l.quantity) AS quantity
		FROM @sales@.transaction_items l JOIN @sales@.transactions t ON t.transaction_id = l.transaction_id
		WHERE t.status <> 'cancelled'
		GROUP BY l.item_id) q
	LEFT JOIN @sales@.items i ON i.item_id = q.item_id AND i.is_current
	ORDER BY q.quantity DESC, q.item_id
	LIMIT 3;
COMMENT ON VIEW @sales@.top_items IS
'The 3 items of which most pieces were sold, cancelled transactions left out, by the names that they have now. Equals have the same rank, and the one with the smaller item_id comes first.';

CREATE VIEW @sales@.spending_by_membership_status WITH (security_barrier) AS
	SELECT m.membership_status, count(*) AS members, count(s.member_id) AS buyers, coalesce(sum(s.transactions), 0) AS transactions,
		coalesce(sum(s.spending), 0) AS spending, round(coalesce(sum(s.spending), 0) / count(*), 2) AS spending_per_member
	FROM @sales@.members m
	LEFT JOIN (SELECT t.member_id, count(DISTINCT t.transaction_id) AS transactions, sum(l.quantity * l.price) AS spending
		FROM @sales@.transactions t JOIN @sales@.transaction_items l ON l.transaction_id = t.transaction_id
		WHERE t.status <> 'cancelled'
		GROUP BY t.member_id) s ON s.member_id = m.member_id
	GROUP BY m.membership_status
	ORDER BY spending DESC, m.membership_status;
COMMENT ON VIEW @sales@.spending_by_membership_status IS
'What members of each status spent, cancelled transactions left out, by the status that they have now.';

-- PostgreSQL lets everybody call a new function.
REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA @sales@ FROM PUBLIC;
$script$;
COMMENT ON FUNCTION imgpipe.sales_schema_script() IS
'The script that create_sales_schema() runs, with @sales@ for the schema, @time_zone@ for the time zone and $body$ for a tag of dollar quoting.';

/* Creates the example sales schema; see src/sales/. */

CREATE FUNCTION imgpipe.create_sales_schema(schema_name name DEFAULT 'sales',
	time_zone text DEFAULT pg_catalog.current_setting('TimeZone')) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	script text := imgpipe.sales_schema_script();
BEGIN
	IF schema_name IS NULL OR time_zone IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed',
			MESSAGE = 'the sales schema needs a name and a time zone',
			DETAIL = 'One of them is NULL.',
			HINT = 'For example: SELECT imgpipe.create_sales_schema(''shop'', time_zone => ''Europe/Berlin'');';
	END IF;
	IF NOT EXISTS (SELECT FROM pg_timezone_names z WHERE lower(z.name) = lower(time_zone)) THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
			MESSAGE = format('time zone "%s" is not known', time_zone),
			HINT = 'SELECT name FROM pg_timezone_names; shows those that are.';
	END IF;
	IF to_regnamespace(quote_ident(schema_name)) IS NOT NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'duplicate_schema',
			MESSAGE = format('schema "%s" already exists', schema_name),
			HINT = 'Give the sales schema another name: SELECT imgpipe.create_sales_schema(''shop'');';
	END IF;
	-- First the tag, which the name then cannot hold.
	script := replace(script, '$body$', '$body_' || md5(schema_name) || '$');
	script := replace(script, '@time_zone@', quote_literal(time_zone));
	EXECUTE replace(script, '@sales@', quote_ident(schema_name));
	EXECUTE format('COMMENT ON SCHEMA %I IS %L', schema_name,
		'Example shop, made by imgpipe.create_sales_schema(). Its days go by the clock of ' || time_zone || '.');
END
$$;
COMMENT ON FUNCTION imgpipe.create_sales_schema(name, text) IS
'Creates a schema with an example shop: tables members, items (with their history), transactions, transaction_items and transaction_log; functions add_item(), update_item(), retire_item(), items_as_of() and complete_transaction(); views sale_items, sold_pictures, sales_details, unfulfilled_orders_today, daily_sales, top_members, top_items and spending_by_membership_status. All of it belongs to the caller, not to the extension: it is dumped, changed and dropped (DROP SCHEMA ... CASCADE) like anything else, stays when imgpipe is dropped, and nobody else may use it until the caller grants that. See docs/sales.md.
time_zone: whose clock the days of unfulfilled_orders_today and daily_sales go by, for every reader; by default that of the session. The caller needs CREATE on the database. Raises 22004 for NULL, 22023 for a time zone that is not known, 42P06 where there is a schema of that name.';

/*
 * Sample data for the example sales schema; see src/sales/.
 *
 * No random(): what a row is like follows from the seed and its number, so that the
 * same call makes the same rows whatever plan PostgreSQL chooses.
 */

CREATE FUNCTION imgpipe.sample_fraction(seed bigint, property text, number bigint) RETURNS double precision
	LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (pg_catalog.hashint8extended(number, pg_catalog.hashtextextended(property, seed)) OPERATOR(pg_catalog.&) 9007199254740991)::double precision
	OPERATOR(pg_catalog./) 9007199254740992;
COMMENT ON FUNCTION imgpipe.sample_fraction(bigint, text, bigint) IS
'A number from 0 inclusive to 1 exclusive that looks like chance, and is the same for the same arguments.';

CREATE FUNCTION imgpipe.reserve_numbers(table_name text, column_name text, numbers bigint) RETURNS bigint
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	sequence CONSTANT regclass := pg_get_serial_sequence(table_name, column_name);
	first bigint;
BEGIN
	EXECUTE format('LOCK TABLE %s IN SHARE ROW EXCLUSIVE MODE', table_name);
	first := nextval(sequence);
	PERFORM setval(sequence, first + numbers - 1);
	RETURN first;
END
$$;
COMMENT ON FUNCTION imgpipe.reserve_numbers(text, text, bigint) IS
'Takes numbers in a row from the sequence of an identity column and returns the first. Locks the table against writers until the end of the transaction, so that nobody takes one of them. table_name is quoted as SQL wants it.';

CREATE FUNCTION imgpipe.load_sample_data(transactions integer, schema_name name DEFAULT 'sales', seed bigint DEFAULT 1,
	until timestamptz DEFAULT pg_catalog.now(),
	OUT members bigint, OUT items bigint, OUT item_versions bigint, OUT loaded_transactions bigint, OUT transaction_items bigint) RETURNS record
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
	period CONSTANT interval := '2160 hours';	-- 90 days, in no time zone
	began CONSTANT timestamptz := until - period;
	owner name;
	first_member bigint;
	first_item bigint;
	first_transaction bigint;
BEGIN
	IF (transactions BETWEEN 1 AND 10000000) IS NOT TRUE THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
			MESSAGE = 'the number of transactions must be between 1 and 10000000',
			DETAIL = format('It is %s.', coalesce(transactions::text, 'NULL')),
			HINT = 'For example: SELECT * FROM imgpipe.load_sample_data(1000);';
	END IF;
	IF seed IS NULL OR isfinite(until) IS NOT TRUE THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
			MESSAGE = 'sample data needs a seed and a time',
			DETAIL = format('seed is %s, until is %s.', coalesce(seed::text, 'NULL'), coalesce(until::text, 'NULL')),
			HINT = 'Leave them out for 1 and now.';
	END IF;
	IF to_regclass(quote_ident(schema_name) || '.transaction_items') IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_schema_name',
			MESSAGE = format('there is no sales schema %s', coalesce('"' || schema_name || '"', 'NULL')),
			DETAIL = 'It has no table transaction_items.',
			HINT = 'imgpipe.create_sales_schema() creates one.';
	END IF;
	-- A superuser would run what others have put on their tables: triggers, checks, defaults.
	SELECT r.rolname INTO owner FROM pg_class c JOIN pg_roles r ON r.oid = c.relowner
		WHERE c.oid = ANY (ARRAY(SELECT to_regclass(format('%I.%I', schema_name, t)) FROM unnest('{members,items,transactions,transaction_items}'::text[]) t))
			AND r.rolname <> current_user
			AND (NOT pg_has_role(r.oid, 'USAGE') OR (SELECT u.rolsuper FROM pg_roles u WHERE u.rolname = current_user))
		LIMIT 1;
	IF FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'insufficient_privilege',
			MESSAGE = format('sample data for schema "%s" must be loaded by its owner', schema_name),
			DETAIL = format('Tables in it belong to role %I.', owner),
			HINT = format('SET ROLE %I; first.', owner);
	END IF;

	members := greatest(10, transactions / 8);
	items := least(2000, greatest(20, transactions / 50));
	first_member := imgpipe.reserve_numbers(format('%I.members', schema_name), 'member_id', members);
	first_item := imgpipe.reserve_numbers(format('%I.items', schema_name), 'item_id', items);
	first_transaction := imgpipe.reserve_numbers(format('%I.transactions', schema_name), 'transaction_id', transactions);

	-- $1 seed, $2 the first number, $3 how many, $4 until
	EXECUTE format($sql$
		INSERT INTO %I.members (member_id, membership_status, joined_at, name, email, phone, birth_date,
			street, postal_code, city, country, latitude, longitude) OVERRIDING SYSTEM VALUE
		SELECT n, (ARRAY['basic', 'basic', 'basic', 'basic', 'basic', 'basic', 'silver', 'silver', 'gold', 'platinum'])[1 + floor(10 * chance.status)::integer],
			$4 - (90 + 2000 * chance.joined) * interval '24 hours', person.first || ' ' || person.last,
			lower(person.first || '.' || person.last) || n || '@example.com',
			format('+1 %%s 555 01%%s', 201 + floor(700 * chance.area), lpad(floor(100 * chance.phone)::text, 2, '0')), date '1940-01-01' + floor(25000 * chance.birth)::integer,
			format('%%s %%s', (ARRAY['Station Road', 'Mill Lane', 'Park Street', 'Harbour Way', 'Church Street', 'Garden Row',
				'Bridge Street', 'Market Square', 'Orchard Close', 'High Street'])[1 + floor(10 * chance.street)::integer], 1 + floor(180 * chance.house)::integer),
			lpad(floor(100000 * chance.postal)::text, 5, '0'), place.city, place.country,
			place.latitude + round((0.1 * (chance.north - 0.5))::numeric, 6), place.longitude + round((0.1 * (chance.east - 0.5))::numeric, 6)
		FROM generate_series($2, $2 + $3 - 1) n,
			LATERAL (SELECT imgpipe.sample_fraction($1, 'status', n) AS status, imgpipe.sample_fraction($1, 'joined', n) AS joined,
				imgpipe.sample_fraction($1, 'area', n) AS area, imgpipe.sample_fraction($1, 'phone', n) AS phone,
				imgpipe.sample_fraction($1, 'birth', n) AS birth, imgpipe.sample_fraction($1, 'street', n) AS street, imgpipe.sample_fraction($1, 'house', n) AS house,
				imgpipe.sample_fraction($1, 'postal', n) AS postal, imgpipe.sample_fraction($1, 'north', n) AS north,
				imgpipe.sample_fraction($1, 'east', n) AS east) chance,
			LATERAL (SELECT (ARRAY['Ada', 'Ben', 'Carla', 'Dinesh', 'Elif', 'Farid', 'Grace', 'Hiro', 'Ines', 'Jonas', 'Katja', 'Liam',
					'Mei', 'Nadia', 'Omar', 'Paula', 'Quentin', 'Rosa', 'Sven', 'Tomoko'])[1 + floor(20 * imgpipe.sample_fraction($1, 'first', n))::integer] AS first,
				(ARRAY['Almeida', 'Becker', 'Chen', 'Dubois', 'Eriksen', 'Fischer', 'Garcia', 'Haddad', 'Ito', 'Jensen', 'Kowalski', 'Lopez',
					'Moreau', 'Novak', 'Okafor', 'Patel', 'Rossi', 'Silva', 'Tanaka', 'Weber'])[1 + floor(20 * imgpipe.sample_fraction($1, 'last', n))::integer] AS last) person,
			(VALUES
				(0, 'Berlin', 'DE', 52.52, 13.405), (1, 'Hamburg', 'DE', 53.551, 9.994), (2, 'Paris', 'FR', 48.857, 2.352),
				(3, 'Lyon', 'FR', 45.764, 4.836), (4, 'Madrid', 'ES', 40.417, -3.704), (5, 'Milan', 'IT', 45.464, 9.19),
				(6, 'Vienna', 'AT', 48.208, 16.373), (7, 'Warsaw', 'PL', 52.23, 21.012), (8, 'Lisbon', 'PT', 38.722, -9.139),
				(9, 'Copenhagen', 'DK', 55.676, 12.568), (10, 'London', 'GB', 51.507, -0.128), (11, 'Dublin', 'IE', 53.35, -6.26))
				place (number, city, country, latitude, longitude)
		WHERE place.number = floor(12 * power(imgpipe.sample_fraction($1, 'place', n), 1.5))::integer
		$sql$, schema_name) USING seed, first_member, members, until;

	-- From one to three versions each, the first of them from before the first sale; one in twenty is retired at the end.
	EXECUTE format($sql$
		INSERT INTO %I.items (item_id, version, validity, is_active, name, manufacturer, price, cost, weight)
		SELECT n, version, tstzrange(begins, lead(begins) OVER (PARTITION BY n ORDER BY version)), version <> retired, name, manufacturer,
			round(base * 1.06 ^ (version - 1), 2), round(base * share, 2), weight
		FROM (SELECT n, thing.kind || ' ' || (ARRAY['Basic', 'Classic', 'Compact', 'Pro', 'Travel', 'Home', 'Studio', 'Max'])[1 + floor(8 * chance.line)::integer] AS name,
				(ARRAY['Nordwerk', 'Alba', 'Kestrel', 'Oriel', 'Tanuki', 'Brightfield'])[1 + floor(6 * chance.maker)::integer] AS manufacturer,
				(thing.price * (0.6 + 0.9 * chance.price))::numeric AS base, (0.4 + 0.3 * chance.cost)::numeric AS share,
				(thing.weight * (0.8 + 0.4 * chance.weight))::numeric(10, 3) AS weight, 1 + floor(3 * chance.versions)::integer AS versions,
				CASE WHEN chance.retirement < 0.05 THEN 2 + floor(3 * chance.versions)::integer ELSE 0 END AS retired
			FROM generate_series($2, $2 + $3 - 1) n,
				LATERAL (SELECT imgpipe.sample_fraction($1, 'line', n) AS line, imgpipe.sample_fraction($1, 'maker', n) AS maker,
					imgpipe.sample_fraction($1, 'price', n) AS price, imgpipe.sample_fraction($1, 'cost', n) AS cost,
					imgpipe.sample_fraction($1, 'weight', n) AS weight, imgpipe.sample_fraction($1, 'versions', n) AS versions,
					imgpipe.sample_fraction($1, 'retirement', n) AS retirement) chance,
				(VALUES
					(0, 'Camera', 480, 0.65), (1, 'Tripod', 90, 1.6), (2, 'Lens', 350, 0.5), (3, 'Camera bag', 70, 0.9), (4, 'Memory card', 30, 0.012),
					(5, 'Flash', 140, 0.4), (6, 'Photo printer', 260, 7.8), (7, 'Picture frame', 25, 0.7), (8, 'Photo paper', 18, 0.45), (9, 'Monitor', 390, 5.2),
					(10, 'Battery', 35, 0.08), (11, 'Studio lamp', 160, 2.3))
					thing (number, kind, price, weight)
			WHERE thing.number = floor(12 * imgpipe.sample_fraction($1, 'thing', n))::integer) item,
			LATERAL (SELECT version, CASE version WHEN retired THEN $4
					ELSE $5 + $6 * ((version - 1.0 + 0.5 * imgpipe.sample_fraction($1, 'begin', 4 * n + version) * least(version - 1, 1)) / versions) END AS begins
				FROM generate_series(1, greatest(versions, retired)) version) history
		$sql$, schema_name) USING seed, first_item, items, until, began, period;
	GET DIAGNOSTICS item_versions = ROW_COUNT;

	-- Evenly over the time, and sent within two days; a few members buy more than others.
	EXECUTE format($sql$
		INSERT INTO %I.transactions (transaction_id, member_id, status, created_at, completed_at) OVERRIDING SYSTEM VALUE
		SELECT n, member_id, CASE WHEN cancelled THEN 'cancelled' WHEN sent_at <= $4 THEN 'completed' ELSE 'pending' END, created_at,
			CASE WHEN NOT cancelled AND sent_at <= $4 THEN sent_at END
		FROM (SELECT n, $7 + floor($8 * power(imgpipe.sample_fraction($1, 'member', n), 1.6))::bigint AS member_id,
				imgpipe.sample_fraction($1, 'cancelled', n) < 0.04 AS cancelled, created_at,
				created_at + (1 + 47 * imgpipe.sample_fraction($1, 'sent', n)) * interval '1 hour' AS sent_at
			FROM generate_series($2, $2 + $3 - 1) n,
				LATERAL (SELECT least($5 + $6 * ((n - $2 + imgpipe.sample_fraction($1, 'created', n)) / $3), $4 - interval '1 microsecond') AS created_at) moment) sale
		$sql$, schema_name) USING seed, first_transaction, transactions, until, began, period, first_member, members;
	GET DIAGNOSTICS loaded_transactions = ROW_COUNT;

	EXECUTE format('ANALYZE %1$I.members, %1$I.items, %1$I.transactions', schema_name);

	-- From one to five items each, at the price of that moment; a few items sell best.
	EXECUTE format($sql$
		INSERT INTO %1$I.transaction_items (transaction_id, item_id, quantity, price)
		SELECT line.transaction_id, line.item_id, line.quantity, i.price
		FROM (SELECT n AS transaction_id, $4 + floor($5 * power(imgpipe.sample_fraction($1, 'item', 8 * n + line), 2))::bigint AS item_id,
				sum(1 + floor(3 * power(imgpipe.sample_fraction($1, 'quantity', 8 * n + line), 3)))::integer AS quantity
			FROM generate_series($2, $2 + $3 - 1) n, generate_series(1, 1 + floor(5 * power(imgpipe.sample_fraction($1, 'lines', n), 2))::integer) line
			GROUP BY 1, 2) line
		JOIN %1$I.transactions t ON t.transaction_id = line.transaction_id
		JOIN %1$I.items i ON i.item_id = line.item_id AND i.validity @> t.created_at
		ORDER BY 1, 2
		$sql$, schema_name) USING seed, first_transaction, transactions, first_item, items;
	GET DIAGNOSTICS transaction_items = ROW_COUNT;

	EXECUTE format('ANALYZE %I.transaction_items', schema_name);
END
$function$;
COMMENT ON FUNCTION imgpipe.load_sample_data(integer, name, bigint, timestamptz) IS
'Fills a schema of create_sales_schema() with that many made-up transactions of the 90 days before until, with members (one for each 8 transactions), items with their history (one for each 50, at most 2000) and lines, and returns how many rows of each were added. The same arguments make the same rows in an empty schema; what is there already stays. No name, address (example.com) or telephone number is anybody''s. The items have no pictures. Others cannot write to these tables meanwhile. transactions: 1 to 10000000. Raises 22023 for arguments out of bounds, 3F000 where there is no such schema, 42501 where its tables are another role''s: triggers that somebody has put on them would run as the caller.';

/* What a DBA looks at: settings, and whether all is well; see src/health/. */

CREATE VIEW imgpipe.settings AS
	SELECT s.name, s.setting, s.unit, s.boot_val AS default_setting,
		CASE
			WHEN s.context OPERATOR(pg_catalog.=) 'user' THEN 'anybody, in a session'
			WHEN s.context OPERATOR(pg_catalog.=) 'superuser' THEN 'superusers, in a session'
			WHEN s.context OPERATOR(pg_catalog.=) 'sighup' THEN 'the server''s configuration and a reload'
			ELSE 'the server''s configuration and a restart'
		END AS changed_by,
		s.source,
		pg_catalog.concat_ws(' ', s.short_desc, s.extra_desc) AS meaning
	FROM pg_catalog.pg_settings s
	WHERE pg_catalog.starts_with(s.name, 'imgpipe.')
		AND imgpipe.workers_available() IS NOT NULL;
COMMENT ON VIEW imgpipe.settings IS
'Every setting of imgpipe: its value and default in its unit, who can change it where, and what it means. (The library defines them when it is loaded; reading this view loads it.)';

CREATE FUNCTION imgpipe.health_check() RETURNS TABLE (severity text, subject text, finding text, advice text)
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp
	SET jit = off
AS $$
#variable_conflict use_column
DECLARE
	standby CONSTANT boolean := pg_is_in_recovery();
	preloaded CONSTANT boolean := imgpipe.workers_available();
	subjects CONSTANT text[] := '{workers,settings,partitions,retention,ledger,sources,outbox,processing,"dead letters",jobs,decoder,access}';
	found text[] := '{}';
BEGIN
	FOR severity, subject, finding, advice IN
		SELECT 'critical', 'workers', 'imgpipe is not in shared_preload_libraries',
				'Add it and restart: until then nothing is ingested, processed, scheduled or purged by itself.' AS advice
			WHERE NOT preloaded
		UNION ALL
		SELECT 'notice', 'workers', 'this is a standby: nothing runs here until it is promoted', NULL
			WHERE standby
		UNION ALL
		SELECT 'critical', 'workers', 'this database has no controller',
				'After stop_workers(), SELECT imgpipe.start_workers(); else the server log says why, most often that max_worker_processes is used up.'
			WHERE preloaded AND NOT standby AND NOT EXISTS (SELECT FROM pg_stat_activity a
				WHERE a.backend_type = 'imgpipe controller' AND a.datname = current_database())
		UNION ALL
		SELECT 'warning', 'settings', format('max_worker_processes = %s, and imgpipe alone may need %s', m.have, m.need),
				format('Raise it to %s or more and restart, or lower imgpipe.max_processors, max_ingest_workers or max_jobs.', m.need + 8)
			FROM (SELECT current_setting('max_worker_processes')::integer AS have,
				-- launcher, controller, purge, and the workers that there are to be
				3 + (SELECT least(coalesce(sum(s.parallelism), 0), imgpipe.setting('imgpipe.max_ingest_workers')::integer)
					FROM imgpipe.sources s WHERE s.enabled)
				+ CASE WHEN EXISTS (SELECT FROM imgpipe.processors p WHERE p.enabled) THEN imgpipe.setting('imgpipe.max_processors')::integer ELSE 0 END
				+ (SELECT count(*) FROM imgpipe.senders)
				+ (SELECT least(count(*), imgpipe.setting('imgpipe.max_jobs')::integer) FROM imgpipe.jobs j WHERE j.enabled) AS need) m
			WHERE preloaded AND m.have < m.need
		UNION ALL
		SELECT 'critical', 'settings', format('%s = off', s.name), format('Only tests may run so: a crash then loses what was committed, Kafka positions included. ALTER SYSTEM SET %s = on;', s.name)
			FROM pg_settings s WHERE s.name IN ('fsync', 'full_page_writes') AND s.setting = 'off'
		UNION ALL
		SELECT CASE WHEN u.last < now() + imgpipe.longest_retention() THEN 'critical' ELSE 'warning' END, 'partitions',
				CASE WHEN u.last IS NULL THEN format('%s has none', u.parent) ELSE format('%s has them for deadlines until %s', u.parent, u.last) END,
				'Images with later deadlines are refused. The controller makes partitions ahead; by hand: SELECT imgpipe.create_partitions();'
			FROM (SELECT t.parent, (SELECT max(p.deadline_to) FROM imgpipe.partitions p WHERE p.parent = t.parent) AS last
				FROM imgpipe.partitioned_tables t) u
			WHERE (u.last < now() + imgpipe.longest_retention() + imgpipe.setting('imgpipe.partition_interval')::interval) IS NOT FALSE
		UNION ALL
		SELECT 'critical', 'retention', format('%s is overdue since %s', p.partition, p.deadline_to),
				'SELECT * FROM imgpipe.retention_report(); says what is in the way. Its rows are hidden since their deadlines.'
			FROM imgpipe.partitions p WHERE NOT standby AND p.deadline_to < now() - interval '10 minutes'
		UNION ALL
		SELECT 'warning', 'retention', r.value, concat_ws(' ', r.detail, r.hint)
			FROM imgpipe.retention_report() r WHERE NOT standby AND r.item = 'problem' AND preloaded
		UNION ALL
		SELECT 'critical', 'ledger', format('entry %s: %s', l.entry, l.problem), 'The purge ledger was tampered with or damaged: compare it with a backup and with the anchors in the server log.'
			FROM imgpipe.verify_ledger() l
		UNION ALL
		SELECT CASE s.state WHEN 'waiting' THEN 'notice' WHEN 'retrying' THEN 'warning' ELSE 'critical' END, 'sources',
				format('source "%s" is %s%s', s.name, s.state, CASE WHEN s.state <> 'waiting' THEN ': ' || s.last_error ELSE ': more tasks are queued than its max_backlog, or more messages wait to be sent than imgpipe.max_outbox' END),
				CASE s.state WHEN 'waiting' THEN 'It goes on when processing has caught up; imgpipe.max_processors is how many may work.'
					ELSE 'Nothing is lost: the position stands, and it is tried again. SELECT * FROM imgpipe.source_partitions; shows where.' END
			FROM imgpipe.source_status s WHERE NOT standby AND s.state IN ('failed', 'retrying', 'waiting')
		UNION ALL
		SELECT 'warning', 'sources', format('source "%s" is %s messages, %s seconds behind', s.name, s.lag_messages, s.lag_seconds),
				'Where it stays so: more parallelism (at most one worker a partition), or more nodes, each with a slice.'
			FROM imgpipe.source_status s WHERE NOT standby AND s.state IN ('running', 'idle') AND s.lag_seconds > 900
		UNION ALL
		SELECT CASE o.state WHEN 'failed' THEN 'critical' ELSE 'warning' END, 'outbox',
				format('messages to server "%s" as %s are held up%s', o.server, o.owner, coalesce(': ' || o.last_error, '')),
				'Nothing is lost before its deadline, and it is tried again. SELECT * FROM imgpipe.outbox_status;'
			FROM imgpipe.outbox_status o WHERE NOT standby AND o.state IN ('failed', 'retrying')
		UNION ALL
		SELECT 'warning', 'outbox', format('%s messages to server "%s" were refused', o.refused_now, o.server),
				'SELECT topic, error FROM imgpipe.outbox WHERE state = ''refused''; then SELECT imgpipe.resend_refused(); They are purged at their deadlines.'
			FROM imgpipe.outbox_status o WHERE o.refused_now > 0
		UNION ALL
		SELECT 'warning', 'processing', format('%s tasks are due, the oldest since %s', count(*), min(t.available_at)),
				'More workers (imgpipe.max_processors, where there are processors to spare), or a processor that was stopped: SELECT * FROM imgpipe.processor_performance;'
			FROM imgpipe.tasks t WHERE t.available_at < now() HAVING min(t.available_at) < now() - interval '10 minutes'
		UNION ALL
		SELECT 'warning', 'dead letters', format('%s of stage %s in the last day, the latest for: %s', count(*), d.stage, (array_agg(d.reason ORDER BY d.created_at DESC))[1]),
				'SELECT * FROM imgpipe.dead_letters; then retry_dead_letters() or discard_dead_letter(). They are purged with their images'' deadlines.'
			FROM imgpipe.dead_letters d WHERE d.created_at > now() - interval '1 day' GROUP BY d.stage
		UNION ALL
		SELECT 'warning', 'jobs', format('job "%s": its last run (%s) %s', j.name, j.last_run_id, j.last_status || coalesce(': ' || j.last_error, '')),
				format('SELECT * FROM imgpipe.job_runs WHERE run_id = %s; SELECT imgpipe.run_job(%L); runs it again.', j.last_run_id, j.name)
			FROM imgpipe.job_status j WHERE j.state <> 'disabled' AND j.last_status NOT IN ('succeeded', 'cancelled')
		UNION ALL
		SELECT 'warning', 'jobs', format('job "%s": %s', j.name, j.problem), NULL
			FROM imgpipe.job_status j WHERE preloaded AND NOT standby AND j.problem IS NOT NULL
		UNION ALL
		SELECT 'critical', 'decoder', 'imgpipe.allow_unsandboxed_decoder is on', 'Turn it off: a fault in an image codec then has the rights of the server.'
			WHERE imgpipe.setting('imgpipe.allow_unsandboxed_decoder')::boolean
		UNION ALL
		SELECT 'critical', 'access', format('row-level security of %s is off', t.parent), format('Rows past their deadline can be read: ALTER TABLE %s ENABLE ROW LEVEL SECURITY;', t.parent)
			FROM imgpipe.partitioned_tables t JOIN pg_class c ON c.oid = t.parent WHERE NOT c.relrowsecurity
		UNION ALL
		SELECT 'critical', 'access', format('%s has %s on schema imgpipe_partitions', CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END, a.privilege_type),
				format('Who reaches a partition directly reads past the fence: REVOKE ALL ON SCHEMA imgpipe_partitions FROM %s;', CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END)
			FROM pg_namespace n CROSS JOIN LATERAL aclexplode(n.nspacl) a WHERE n.nspname = 'imgpipe_partitions' AND a.grantee <> n.nspowner
	LOOP
		found := found || subject;
		RETURN NEXT;
	END LOOP;
	BEGIN
		FOR finding IN SELECT format('its sandbox lets it %s', a.attempt) FROM imgpipe.decoder_sandbox() a WHERE NOT a.refused LOOP
			found := found || 'decoder'::text;
			severity := 'critical';
			subject := 'decoder';
			advice := 'Image codecs parse hostile bytes: do not run them so. See imgpipe.allow_unsandboxed_decoder.';
			RETURN NEXT;
		END LOOP;
	EXCEPTION WHEN OTHERS THEN
		GET STACKED DIAGNOSTICS finding = MESSAGE_TEXT, advice = PG_EXCEPTION_HINT;
		found := found || 'decoder'::text;
		severity := 'critical';
		subject := 'decoder';
		RETURN NEXT;
	END;
	RETURN QUERY SELECT 'ok', s.subject, NULL::text, NULL::text
		FROM unnest(subjects) WITH ORDINALITY s (subject, place) WHERE s.subject <> ALL (found) ORDER BY s.place;
END
$$;
COMMENT ON FUNCTION imgpipe.health_check() IS
'Everything that a DBA would look at, subject by subject: severity (critical: data is or will soon be refused, unprotected or kept too long; warning: somebody should look today; notice; ok, one row for each subject in which nothing was found), finding, and advice, what to do. For monitoring: SELECT count(*) FROM imgpipe.health_check() WHERE severity = ''critical''. Starts this session''s image decoder, to try its sandbox. On a standby it leaves out what only runs on the primary. Only the owner may, unless granted.';
REVOKE EXECUTE ON FUNCTION imgpipe.health_check() FROM PUBLIC;


/* What was done about access, and by whom; see src/access/. */

CREATE TABLE imgpipe.access_log (
	entry bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
	logged_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	session_role name NOT NULL DEFAULT SESSION_USER,
	acting_role name NOT NULL DEFAULT CURRENT_USER,
	client inet DEFAULT pg_catalog.inet_client_addr(),
	action text NOT NULL,
	role_name name,
	detail text,
	statements text[]
);
COMMENT ON TABLE imgpipe.access_log IS
'Each change of roles, memberships, uses, exceptions and masks, and each apply with its statements. An attempt that is refused leaves no row, for its transaction is rolled back: it is in the server log, as imgpipe access: refused.';
SELECT pg_catalog.pg_extension_config_dump('imgpipe.access_log', '');
SELECT pg_catalog.pg_extension_config_dump('imgpipe.access_log_entry_seq', '');

CREATE FUNCTION imgpipe.log_access(action text, role_name name DEFAULT NULL, detail text DEFAULT NULL, statements text[] DEFAULT NULL) RETURNS void
	LANGUAGE sql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
	INSERT INTO imgpipe.access_log (action, role_name, detail, statements) VALUES (action, role_name, detail, statements)
$$;
COMMENT ON FUNCTION imgpipe.log_access(text, name, text, text[]) IS
'Enters a row in imgpipe.access_log. Needs INSERT on its columns action, role_name, detail and statements.';


/*
 * Access templates: who may do what, as rows; see src/access/.
 *
 * A template is a set of rules, each for one team and one kind of object.  A
 * use binds a template to real schemas and to a prefix of role names.  Nothing
 * here grants anything: declared.sql says what the rows mean, plan.sql what is
 * to be done about it.
 */

CREATE TABLE imgpipe.access_templates (
	template text PRIMARY KEY CHECK (template OPERATOR(pg_catalog.~) '^[a-z][a-z0-9_]{0,62}$'),
	description text NOT NULL,
	shipped boolean NOT NULL DEFAULT false
);
COMMENT ON TABLE imgpipe.access_templates IS
'Sets of rules that use_template() binds to schemas and roles. Those that are shipped cannot be changed; create_template() copies them.';

CREATE TABLE imgpipe.access_rules (
	template text NOT NULL REFERENCES imgpipe.access_templates ON DELETE CASCADE,
	rule integer NOT NULL,
	team text NOT NULL CHECK (team OPERATOR(pg_catalog.~) '^[a-z][a-z0-9_]{0,30}$'),
	place text NOT NULL CHECK (place OPERATOR(pg_catalog.~) '^[a-z][a-z0-9_]{0,30}$'),
	kind text NOT NULL CHECK (kind OPERATOR(pg_catalog.=) ANY ('{schema,table,sequence,function}')),
	object text NOT NULL DEFAULT '*',
	privileges text[] NOT NULL,
	columns text[],
	masked boolean NOT NULL DEFAULT false,
	row_filter text,
	future boolean NOT NULL DEFAULT false,
	shipped boolean NOT NULL DEFAULT false,
	PRIMARY KEY (template, rule)
);
COMMENT ON TABLE imgpipe.access_rules IS
'What a template gives to a team. A team also gets USAGE on the schema of whatever it gets something on. Partitions are never matched, only their parents.';
COMMENT ON COLUMN imgpipe.access_rules.place IS 'Stands for a schema, which use_template() names.';
COMMENT ON COLUMN imgpipe.access_rules.kind IS 'schema, table (views, materialized views and foreign tables, too), sequence or function (procedures and aggregates, too).';
COMMENT ON COLUMN imgpipe.access_rules.object IS 'Name, in which * stands for any characters; for a function its name, which means all of that name, or name(types) as oidvectortypes() writes them.';
COMMENT ON COLUMN imgpipe.access_rules.columns IS 'The columns that the privileges are for, or that the team''s view has; NULL: the whole table.';
COMMENT ON COLUMN imgpipe.access_rules.masked IS 'The team gets a view with masked columns, in a schema of its own, and nothing on the table itself; see set_mask().';
COMMENT ON COLUMN imgpipe.access_rules.row_filter IS 'The team gets a view of some rows, and nothing on the table itself. own(column): the column is the user who logged in. flag(column): the column is true. recent(column, 7 days): the column is a time not longer ago. referenced(column, table.column): the value is in that column, of a table of the place "sales" unless another place is named: referenced(image_id, sales.items.picture).';
COMMENT ON COLUMN imgpipe.access_rules.future IS 'Also for objects that name_creator()''s roles make later, by ALTER DEFAULT PRIVILEGES; only for *, of tables, sequences and functions.';

CREATE TABLE imgpipe.template_masks (
	template text NOT NULL REFERENCES imgpipe.access_templates ON DELETE CASCADE,
	place text NOT NULL,
	table_name text NOT NULL,
	column_name text NOT NULL,
	mask text NOT NULL CHECK (mask OPERATOR(pg_catalog.=) ANY ('{none,hide,partial,email,phone,hash,year_of_birth,coordinates,exif}')),
	shipped boolean NOT NULL DEFAULT false,
	PRIMARY KEY (template, place, table_name, column_name)
);
COMMENT ON TABLE imgpipe.template_masks IS
'How the columns of tables appear in the views of masked rules, where access_masks says nothing else. Column * is for those that have no row of their own.';

CREATE TABLE imgpipe.access_uses (
	prefix text NOT NULL,
	template text NOT NULL REFERENCES imgpipe.access_templates,
	place text NOT NULL,
	schema_name name NOT NULL,
	names jsonb NOT NULL DEFAULT '{}',
	PRIMARY KEY (prefix, template, place)
);
COMMENT ON TABLE imgpipe.access_uses IS
'Which template is in use for the roles of which prefix, and the schema that each of its places stands for; see use_template().';
COMMENT ON COLUMN imgpipe.access_uses.names IS 'What objects and columns are called here, where not as in the template: {"items": "products", "items.price": "amount"}.';

CREATE TABLE imgpipe.access_schemas (
	schema_name name PRIMARY KEY,
	authoritative boolean NOT NULL
);
COMMENT ON TABLE imgpipe.access_schemas IS
'Schemas where the templates decide alone: what other roles, or PUBLIC, were granted there is taken back, too. See set_authoritative().';

CREATE TABLE imgpipe.access_creators (
	schema_name name NOT NULL,
	creator name NOT NULL,
	PRIMARY KEY (schema_name, creator)
);
COMMENT ON TABLE imgpipe.access_creators IS
'Roles that make objects in a schema; rules with future set their default privileges. See name_creator().';

CREATE FUNCTION imgpipe.check_schema(schema_name name) RETURNS void
	LANGUAGE plpgsql STABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	IF NOT EXISTS (SELECT FROM pg_namespace n WHERE n.nspname = check_schema.schema_name) THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_schema_name',
			MESSAGE = format('schema %s does not exist', coalesce('"' || schema_name || '"', 'NULL')),
			DETAIL = coalesce('Templates and exceptions are about ' || (SELECT string_agg(quote_ident(m.name), ', ' ORDER BY m.name) FROM unnest(imgpipe.managed_schemas()) m (name)) || '.',
				'No template is in use.'),
			HINT = 'SELECT nspname FROM pg_namespace; shows those that do.';
	END IF;
END
$$;
COMMENT ON FUNCTION imgpipe.check_schema(name) IS 'Raises 3F000 where there is no such schema.';

CREATE FUNCTION imgpipe.privileges_of(kind text) RETURNS text[]
	LANGUAGE sql STABLE STRICT PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT array_agg(a.privilege_type ORDER BY a.privilege_type)
		FROM aclexplode(acldefault(CASE kind WHEN 'schema' THEN 'n'::"char" WHEN 'table' THEN 'r' WHEN 'sequence' THEN 's' WHEN 'function' THEN 'f' END, 10)) a
		WHERE a.grantee = 10
$$;
COMMENT ON FUNCTION imgpipe.privileges_of(text) IS
'The privileges that this version of PostgreSQL has for schema, table, sequence or function.';

CREATE FUNCTION imgpipe.name_pattern(object text) RETURNS text
	LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT '^' || replace(regexp_replace(object, '([][\\.^$+?(){}|])', '\\\1', 'g'), '*', '.*') || '$'
$$;
COMMENT ON FUNCTION imgpipe.name_pattern(text) IS
'The regular expression for a name in which * stands for any characters.';

CREATE FUNCTION imgpipe.filter_parts(row_filter text) RETURNS text[]
	LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT coalesce(regexp_match(row_filter, '^(own|flag)\(([a-z_][a-z0-9_]*)\)$'),
		regexp_match(row_filter, '^(recent)\(([a-z_][a-z0-9_]*), *([0-9]{1,5}) (hours|days)\)$'),
		regexp_match(row_filter, '^(referenced)\(([a-z_][a-z0-9_]*), *(?:([a-z_][a-z0-9_]*)\.)?([a-z_][a-z0-9_]*)\.([a-z_][a-z0-9_]*)\)$'))
$$;
COMMENT ON FUNCTION imgpipe.filter_parts(text) IS
'What a row filter consists of; NULL where it is none of access_rules.row_filter.';

CREATE FUNCTION imgpipe.check_rule() RETURNS trigger
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	problem text;
	advice text;
BEGIN
	SELECT format('%s is NULL.', v.key), 'Only columns and row_filter may be NULL.' INTO problem, advice
		FROM jsonb_each(to_jsonb(NEW)) v WHERE v.value = 'null' AND v.key NOT IN ('columns', 'row_filter') ORDER BY v.key LIMIT 1;
	IF problem IS NULL THEN
		SELECT format('%s "%s".', initcap(v.what), v.name), 'Teams and places have 1 to 31 small letters of ASCII, digits and "_", and begin with a letter.' INTO problem, advice
			FROM (VALUES ('team', NEW.team), ('place', NEW.place)) v (what, name) WHERE v.name !~ '^[a-z][a-z0-9_]{0,30}$' LIMIT 1;
	END IF;
	IF problem IS NULL AND NEW.kind <> ALL ('{schema,table,sequence,function}') THEN
		problem := format('Kind "%s".', NEW.kind);
		advice := 'Give schema, table (of views, too), sequence, or function (of procedures, too).';
	END IF;
	IF problem IS NULL THEN
		SELECT format('Privilege %s.', coalesce('"' || p || '"', 'NULL')), format('A %s has %s.', NEW.kind, array_to_string(imgpipe.privileges_of(NEW.kind), ', '))
			INTO problem, advice
			FROM unnest(CASE NEW.privileges WHEN '{}' THEN '{NULL}' ELSE NEW.privileges END) p WHERE (p = ANY (imgpipe.privileges_of(NEW.kind))) IS NOT TRUE LIMIT 1;
	END IF;
	IF problem IS NULL AND NEW.row_filter IS NOT NULL AND imgpipe.filter_parts(NEW.row_filter) IS NULL THEN
		problem := format('Row filter "%s".', NEW.row_filter);
		advice := 'Give own(column), flag(column), recent(column, 7 days) or referenced(column, table.column).';
	ELSIF problem IS NULL AND NEW.columns IS NOT NULL AND (NEW.kind <> 'table' OR cardinality(NEW.columns) = 0 OR array_position(NEW.columns, NULL) IS NOT NULL
			OR (NEW.row_filter IS NULL AND NOT NEW.masked AND NOT NEW.privileges <@ '{SELECT,INSERT,UPDATE,REFERENCES}')) THEN
		problem := 'Columns of something, or privileges, that have none.';
		advice := 'SELECT, INSERT, UPDATE and REFERENCES on tables can be for columns.';
	ELSIF problem IS NULL AND (NEW.masked OR NEW.row_filter IS NOT NULL) AND (NEW.kind <> 'table' OR NOT NEW.privileges <@ '{SELECT,INSERT,UPDATE,DELETE}') THEN
		problem := format('A view of a %s, for %s.', NEW.kind, array_to_string(NEW.privileges, ', '));
		advice := 'Views for teams are of tables, with SELECT, INSERT, UPDATE and DELETE.';
	ELSIF problem IS NULL AND NEW.future AND (NEW.object <> '*' OR NEW.kind = 'schema' OR NEW.columns IS NOT NULL OR NEW.masked OR NEW.row_filter IS NOT NULL) THEN
		problem := format('Future objects of kind %s named "%s".', NEW.kind, NEW.object);
		advice := 'ALTER DEFAULT PRIVILEGES knows no names, columns or views: future is for * of tables, sequences or functions.';
	END IF;
	IF problem IS NOT NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
			MESSAGE = format('rule %s of template "%s" is not valid', NEW.rule, NEW.template), DETAIL = problem, HINT = advice;
	END IF;
	RETURN NEW;
END
$$;
COMMENT ON FUNCTION imgpipe.check_rule() IS
'Raises 22023 for a rule that could not be granted.';
CREATE TRIGGER check_rule BEFORE INSERT OR UPDATE ON imgpipe.access_rules
	FOR EACH ROW EXECUTE FUNCTION imgpipe.check_rule();

CREATE FUNCTION imgpipe.keep_shipped() RETURNS trigger
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	changed CONSTANT text := coalesce(NEW.template, OLD.template);
BEGIN
	IF NEW.shipped OR OLD.shipped OR EXISTS (SELECT FROM imgpipe.access_templates t WHERE t.template = changed AND t.shipped) THEN
		RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
			MESSAGE = format('template "%s" cannot be changed', changed),
			DETAIL = 'It comes with imgpipe, and a dump does not hold it.',
			HINT = format('Change a copy: SELECT imgpipe.create_template(''mine'', copy_of => %L);', changed);
	END IF;
	RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
END
$$;
COMMENT ON FUNCTION imgpipe.keep_shipped() IS
'Raises 55000 for a change of what comes with imgpipe.';


/* Templates of one's own. */

CREATE FUNCTION imgpipe.check_template(template text) RETURNS void
	LANGUAGE plpgsql STABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	IF NOT EXISTS (SELECT FROM imgpipe.access_templates t WHERE t.template = check_template.template) THEN
		RAISE EXCEPTION USING ERRCODE = 'undefined_object',
			MESSAGE = format('template %s does not exist', coalesce('"' || template || '"', 'NULL')),
			DETAIL = format('There are %s.', (SELECT string_agg(t.template, ', ' ORDER BY t.template) FROM imgpipe.access_templates t)),
			HINT = 'SELECT template, description FROM imgpipe.access_templates; says what each is for.';
	END IF;
END
$$;
COMMENT ON FUNCTION imgpipe.check_template(text) IS 'Raises 42704 where there is no such template.';

CREATE FUNCTION imgpipe.create_template(template text, description text DEFAULT NULL, copy_of text DEFAULT NULL) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
	IF (create_template.template ~ '^[a-z][a-z0-9_]{0,62}$') IS NOT TRUE THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_name',
			MESSAGE = format('template name %s is not valid', coalesce('"' || create_template.template || '"', 'NULL')),
			HINT = 'A name has 1 to 63 small letters of ASCII, digits and "_", and begins with a letter.';
	END IF;
	IF EXISTS (SELECT FROM imgpipe.access_templates t WHERE t.template = create_template.template) THEN
		RAISE EXCEPTION USING ERRCODE = 'duplicate_object',
			MESSAGE = format('template "%s" already exists', create_template.template),
			HINT = 'Choose another name, or drop that one with imgpipe.drop_template().';
	END IF;
	IF copy_of IS NOT NULL THEN
		PERFORM imgpipe.check_template(copy_of);
	END IF;
	INSERT INTO imgpipe.access_templates (template, description)
		VALUES (create_template.template, coalesce(create_template.description, 'As ' || copy_of || ', changed.', ''));
	INSERT INTO imgpipe.access_rules (template, rule, team, place, kind, object, privileges, columns, masked, row_filter, future)
		SELECT create_template.template, rule, team, place, kind, object, privileges, columns, masked, row_filter, future
			FROM imgpipe.access_rules r WHERE r.template = copy_of;
	INSERT INTO imgpipe.template_masks (template, place, table_name, column_name, mask)
		SELECT create_template.template, place, table_name, column_name, mask FROM imgpipe.template_masks m WHERE m.template = copy_of;
END
$$;
COMMENT ON FUNCTION imgpipe.create_template(text, text, text) IS
'Makes a template of one''s own, empty or with the rules and masks of another; add_rule() adds to it, and UPDATE and DELETE on imgpipe.access_rules and template_masks change it. Raises 42602 for a name, 42710 where there is one of that name, 42704 for copy_of.';

CREATE FUNCTION imgpipe.add_rule(template text, team text, kind text, object text, privileges text[], place text DEFAULT 'sales',
	columns text[] DEFAULT NULL, masked boolean DEFAULT false, row_filter text DEFAULT NULL, future boolean DEFAULT false) RETURNS integer
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
	number integer;
BEGIN
	PERFORM imgpipe.check_template(template);
	-- Two who add at once get numbers of their own.
	PERFORM FROM imgpipe.access_templates t WHERE t.template = add_rule.template FOR UPDATE;
	INSERT INTO imgpipe.access_rules AS r (template, rule, team, place, kind, object, privileges, columns, masked, row_filter, future)
		SELECT template, coalesce(max(o.rule), 0) + 1, team, place, kind, object, privileges, columns, masked, row_filter, future
			FROM imgpipe.access_rules o WHERE o.template = add_rule.template
		RETURNING r.rule INTO number;
	RETURN number;
END
$$;
COMMENT ON FUNCTION imgpipe.add_rule(text, text, text, text, text[], text, text[], boolean, text, boolean) IS
'Adds a rule to a template and returns its number; the parameters are the columns of imgpipe.access_rules. Raises 42704 for the template, 55000 for one that is shipped, 22023 for a rule that could not be granted.';

CREATE FUNCTION imgpipe.drop_template(template text) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	PERFORM imgpipe.check_template(template);
	IF EXISTS (SELECT FROM imgpipe.access_uses u WHERE u.template = drop_template.template) THEN
		RAISE EXCEPTION USING ERRCODE = 'dependent_objects_still_exist',
			MESSAGE = format('template "%s" is in use', template),
			DETAIL = format('For the roles of prefix %s.', (SELECT string_agg(DISTINCT u.prefix, ', ') FROM imgpipe.access_uses u WHERE u.template = drop_template.template)),
			HINT = 'SELECT imgpipe.stop_template(template, prefix); and apply that first.';
	END IF;
	DELETE FROM imgpipe.access_templates t WHERE t.template = drop_template.template;
END
$$;
COMMENT ON FUNCTION imgpipe.drop_template(text) IS
'Drops a template of one''s own. Raises 42704 where there is none, 55000 for one that is shipped, 2BP01 while it is in use.';

-- What users write is dumped; what is shipped comes with CREATE EXTENSION.
SELECT pg_catalog.pg_extension_config_dump('imgpipe.access_templates', 'WHERE NOT shipped');
SELECT pg_catalog.pg_extension_config_dump('imgpipe.access_rules', 'WHERE NOT shipped');
SELECT pg_catalog.pg_extension_config_dump('imgpipe.template_masks', 'WHERE NOT shipped');
SELECT pg_catalog.pg_extension_config_dump('imgpipe.access_uses', '');
SELECT pg_catalog.pg_extension_config_dump('imgpipe.access_schemas', '');
SELECT pg_catalog.pg_extension_config_dump('imgpipe.access_creators', '');


/*
 * Team roles, their members, and uses of templates; see src/access/.
 *
 * Roles belong to the whole server: a role that create_team_roles() made says
 * so in its comment, so that another database can take it over, and no other
 * role is ever taken for one.  Roles are kept by name: a dump does not hold
 * them, and is restored before or after they are.
 */

CREATE TABLE imgpipe.access_teams (
	role_name name PRIMARY KEY,
	prefix text NOT NULL,
	team text NOT NULL,
	active boolean NOT NULL DEFAULT true,
	UNIQUE (prefix, team)
);
COMMENT ON TABLE imgpipe.access_teams IS
'The group roles of create_team_roles(). One that is not active has had its access revoked: templates give it nothing.';

CREATE TABLE imgpipe.access_memberships (
	role_name name NOT NULL REFERENCES imgpipe.access_teams ON DELETE CASCADE,
	member name NOT NULL,
	until timestamptz,
	added_by name NOT NULL DEFAULT CURRENT_USER,
	added_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	PRIMARY KEY (role_name, member)
);
COMMENT ON TABLE imgpipe.access_memberships IS
'Who belongs to a team, and until when; see add_team_member().';

SELECT pg_catalog.pg_extension_config_dump('imgpipe.access_teams', '');
SELECT pg_catalog.pg_extension_config_dump('imgpipe.access_memberships', '');

CREATE FUNCTION imgpipe.create_team_roles(prefix text, teams text[] DEFAULT '{logistics,analytics,sales}') RETURNS SETOF name
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	team_name text;
	role name;
	mark text;
BEGIN
	IF (prefix ~ '^[a-z][a-z0-9_]{0,30}$') IS NOT TRUE OR prefix ~ '^pg_' THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_name',
			MESSAGE = format('prefix %s is not valid', coalesce('"' || prefix || '"', 'NULL')),
			HINT = 'A prefix has 1 to 31 small letters of ASCII, digits and "_", begins with a letter, and not with pg_.';
	END IF;
	PERFORM pg_advisory_xact_lock('imgpipe.access_teams'::regclass::oid::bigint);
	FOREACH team_name IN ARRAY coalesce(teams, '{}') LOOP
		IF (team_name ~ '^[a-z][a-z0-9_]{0,30}$') IS NOT TRUE THEN
			RAISE EXCEPTION USING ERRCODE = 'invalid_name',
				MESSAGE = format('team name %s is not valid', coalesce('"' || team_name || '"', 'NULL')),
				HINT = 'A team has 1 to 31 small letters of ASCII, digits and "_", and begins with a letter.';
		END IF;
		role := prefix || '_' || team_name;
		mark := format('imgpipe: team %s of %s', team_name, prefix);
		IF NOT EXISTS (SELECT FROM pg_roles r WHERE r.rolname = role) THEN
			EXECUTE format('CREATE ROLE %I NOLOGIN', role);
			EXECUTE format('COMMENT ON ROLE %I IS %L', role, mark);
			PERFORM imgpipe.log_access('create role', role);
			RETURN NEXT role;
		ELSIF (SELECT r.rolcanlogin OR r.rolsuper OR r.rolcreaterole OR r.rolbypassrls OR shobj_description(r.oid, 'pg_authid') IS DISTINCT FROM mark
				FROM pg_roles r WHERE r.rolname = role) THEN
			RAISE EXCEPTION USING ERRCODE = 'duplicate_object',
				MESSAGE = format('role "%s" already exists', role),
				DETAIL = 'It was not made by create_team_roles(), or was changed since: it can log in, or has rights of its own.',
				HINT = format('Choose another prefix. Or, if it is to be that team: ALTER ROLE %I NOLOGIN NOSUPERUSER NOCREATEROLE NOBYPASSRLS; COMMENT ON ROLE %1$I IS %L;', role, mark);
		END IF;
		INSERT INTO imgpipe.access_teams AS t (role_name, prefix, team) VALUES (role, create_team_roles.prefix, team_name)
			ON CONFLICT (role_name) DO UPDATE SET active = true WHERE NOT t.active AND (t.prefix, t.team) = (EXCLUDED.prefix, EXCLUDED.team);
		IF NOT EXISTS (SELECT FROM imgpipe.access_teams t WHERE t.role_name = role AND (t.prefix, t.team) = (create_team_roles.prefix, team_name)) THEN
			RAISE EXCEPTION USING ERRCODE = 'duplicate_object',
				MESSAGE = format('role "%s" is another team already', role),
				DETAIL = format('It is %s.', (SELECT format('team %s of %s', t.team, t.prefix) FROM imgpipe.access_teams t WHERE t.role_name = role)),
				HINT = 'Choose another prefix.';
		END IF;
	END LOOP;
END
$$;
COMMENT ON FUNCTION imgpipe.create_team_roles(text, text[]) IS
'Makes the group roles prefix_team, NOLOGIN, and returns those that were not there. A team whose access was revoked is active again, and the next plan gives it its rights. Needs CREATEROLE. Raises 42602 for a prefix or a team, 42710 where a role of that name is there that is no such team, 42501 without CREATEROLE.';

CREATE FUNCTION imgpipe.named_by_template(template text) RETURNS text[]
	LANGUAGE sql STABLE STRICT PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
	WITH names AS (
		SELECT r.object, c.name AS column_name FROM imgpipe.access_rules r LEFT JOIN LATERAL unnest(r.columns) c (name) ON true WHERE r.template = named_by_template.template
		UNION SELECT r.object, f.parts[2] FROM imgpipe.access_rules r CROSS JOIN LATERAL imgpipe.filter_parts(r.row_filter) f (parts) WHERE r.template = named_by_template.template
		UNION SELECT f.parts[4], f.parts[5] FROM imgpipe.access_rules r CROSS JOIN LATERAL imgpipe.filter_parts(r.row_filter) f (parts)
			WHERE r.template = named_by_template.template AND f.parts[1] = 'referenced'
		UNION SELECT m.table_name, nullif(m.column_name, '*') FROM imgpipe.template_masks m WHERE m.template = named_by_template.template)
	SELECT array_agg(DISTINCT x.name ORDER BY x.name) FROM names n
		CROSS JOIN LATERAL (VALUES (n.object), (n.object || '.' || n.column_name)) x (name) WHERE x.name !~ '[*]'
$$;
COMMENT ON FUNCTION imgpipe.named_by_template(text) IS
'The objects, and the columns of objects, that a template speaks of by name: what names of use_template() can be about.';

CREATE FUNCTION imgpipe.use_template(template text, prefix text, schemas jsonb DEFAULT '{}', names jsonb DEFAULT '{}') RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
	-- A filter may look into a place that no rule is about.
	places CONSTANT text[] := ARRAY(SELECT r.place FROM imgpipe.access_rules r WHERE r.template = use_template.template
		UNION SELECT coalesce(f.parts[3], 'sales') FROM imgpipe.access_rules r CROSS JOIN LATERAL imgpipe.filter_parts(r.row_filter) f (parts)
			WHERE r.template = use_template.template AND f.parts[1] = 'referenced');
	problem record;
BEGIN
	PERFORM imgpipe.check_template(template);
	IF jsonb_typeof(schemas) IS DISTINCT FROM 'object' OR jsonb_typeof(names) IS DISTINCT FROM 'object'
		OR EXISTS (SELECT FROM jsonb_path_query(jsonb_build_array(schemas, names), '$[*].*') v WHERE jsonb_typeof(v) <> 'string') THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
			MESSAGE = 'schemas and names must be JSON objects of strings',
			DETAIL = format('They are %s and %s.', coalesce(schemas::text, 'NULL'), coalesce(names::text, 'NULL')),
			HINT = 'For example: schemas => ''{"sales": "shop"}'', names => ''{"items": "products"}''.';
	END IF;
	SELECT k.place INTO problem FROM jsonb_object_keys(schemas) k (place) WHERE k.place <> ALL (places) LIMIT 1;
	IF FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
			MESSAGE = format('template "%s" has no place "%s"', template, problem.place),
			HINT = format('Its places are %s.', array_to_string(places, ', '));
	END IF;
	-- No error: one mapping can be meant for several templates.
	SELECT string_agg(quote_ident(n.name), ', ' ORDER BY n.name) AS names INTO problem FROM jsonb_object_keys(names) n (name) WHERE n.name <> ALL (imgpipe.named_by_template(template));
	IF problem.names IS NOT NULL THEN
		RAISE WARNING USING MESSAGE = format('template "%s" does not speak of %s', template, problem.names),
			DETAIL = format('It speaks of %s.', array_to_string(imgpipe.named_by_template(template), ', ')),
			HINT = 'names has an object, or object.column, as the template calls it, and what it is called in the schema.';
	END IF;
	SELECT s.schema_name INTO problem
		FROM unnest(places) p (place) CROSS JOIN LATERAL (SELECT coalesce(schemas ->> p.place, CASE p.place WHEN 'images' THEN 'imgpipe' ELSE p.place END)) s (schema_name)
		WHERE to_regnamespace(quote_ident(s.schema_name)) IS NULL OR s.schema_name ~ '^pg_' OR s.schema_name = ANY ('{information_schema,imgpipe_partitions}') LIMIT 1;
	IF FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_schema_name',
			MESSAGE = format('schema "%s" does not exist, or is no place for a template', problem.schema_name),
			HINT = format('Say which schemas they are: SELECT imgpipe.use_template(%L, %L, schemas => %L);', template, prefix,
				(SELECT jsonb_object_agg(p, 'schema of yours') FROM unnest(places) p));
	END IF;
	PERFORM imgpipe.create_team_roles(prefix, ARRAY(SELECT DISTINCT r.team FROM imgpipe.access_rules r WHERE r.template = use_template.template));
	INSERT INTO imgpipe.access_uses (prefix, template, place, schema_name, names)
		SELECT use_template.prefix, use_template.template, p.place,
				coalesce(schemas ->> p.place, CASE p.place WHEN 'images' THEN 'imgpipe' ELSE p.place END), use_template.names
			FROM unnest(places) p (place)
		ON CONFLICT (prefix, template, place) DO UPDATE SET schema_name = EXCLUDED.schema_name, names = EXCLUDED.names;
	PERFORM imgpipe.log_access('use template', NULL, format('%s for %s, schemas %s, names %s', template, prefix, schemas, names));
END
$$;
COMMENT ON FUNCTION imgpipe.use_template(text, text, jsonb, jsonb) IS
'Binds a template to the roles of a prefix, which are made where they are missing, and to schemas: each place of the template stands for the schema that schemas names, or else for the one of its own name (images: imgpipe). names says what objects and columns are called there: {"items": "products", "items.price": "amount"}. A warning says which of names the template does not speak of. A prefix may use several templates; their rights add up. Called again, it replaces schemas and names. Grants nothing: plan_access() shows what would be. Raises 42704 for a template, 42602 for a prefix, 22023 and 3F000 for schemas, 42710 as create_team_roles().';

CREATE FUNCTION imgpipe.stop_template(template text, prefix text) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	PERFORM imgpipe.check_template(template);
	DELETE FROM imgpipe.access_uses u WHERE u.template = stop_template.template AND u.prefix = stop_template.prefix;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'undefined_object',
			MESSAGE = format('template "%s" is not in use for prefix %s', template, coalesce('"' || prefix || '"', 'NULL')),
			HINT = 'SELECT * FROM imgpipe.access_uses; shows what is.';
	END IF;
	PERFORM imgpipe.log_access('stop template', NULL, format('%s for %s', template, prefix));
END
$$;
COMMENT ON FUNCTION imgpipe.stop_template(text, text) IS
'Ends the use of a template for a prefix: the next plan takes its rights back. Raises 42704 where it is not in use.';

CREATE FUNCTION imgpipe.set_authoritative(schema_name name, authoritative boolean DEFAULT true) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	-- What is gone can be said of no longer.
	IF authoritative IS NOT FALSE THEN
		PERFORM imgpipe.check_schema(schema_name);
	END IF;
	INSERT INTO imgpipe.access_schemas VALUES (schema_name, authoritative)
		ON CONFLICT ON CONSTRAINT access_schemas_pkey DO UPDATE SET authoritative = EXCLUDED.authoritative;
	PERFORM imgpipe.log_access('set authoritative', NULL, format('%I: %s', schema_name, authoritative));
END
$$;
COMMENT ON FUNCTION imgpipe.set_authoritative(name, boolean) IS
'In any schema of a template, what teams may do is just what is declared. In one that is authoritative this holds for all other roles and for PUBLIC, too: what they were granted and no exception allows is taken back. Owners keep their rights. Raises 3F000 for a schema.';

CREATE FUNCTION imgpipe.name_creator(schema_name name, creator name, creates boolean DEFAULT true) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	IF creates IS NOT FALSE THEN
		PERFORM imgpipe.check_schema(schema_name), imgpipe.check_role(creator);
		INSERT INTO imgpipe.access_creators VALUES (schema_name, creator) ON CONFLICT ON CONSTRAINT access_creators_pkey DO NOTHING;
	ELSE
		DELETE FROM imgpipe.access_creators c WHERE (c.schema_name, c.creator) = (name_creator.schema_name, name_creator.creator);
	END IF;
	PERFORM imgpipe.log_access('name creator', creator, format('%I: %s', schema_name, creates));
END
$$;
COMMENT ON FUNCTION imgpipe.name_creator(name, name, boolean) IS
'Says that a role makes objects in a schema, or (false) does no longer: the plan sets its default privileges there as rules with future have them. Objects of other creators, and of rules with names, get their rights with the next apply; access_drift() shows them as missing. Raises 42704 for a role, 3F000 for a schema.';


/* Members. */

CREATE FUNCTION imgpipe.check_team(team name) RETURNS void
	LANGUAGE plpgsql STABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	IF NOT EXISTS (SELECT FROM imgpipe.access_teams t WHERE t.role_name = check_team.team) THEN
		RAISE EXCEPTION USING ERRCODE = 'undefined_object',
			MESSAGE = format('team role %s does not exist', coalesce('"' || team || '"', 'NULL')),
			DETAIL = coalesce('There are ' || (SELECT string_agg(t.role_name, ', ' ORDER BY t.role_name) FROM imgpipe.access_teams t) || '.', 'There are none.'),
			HINT = 'SELECT imgpipe.create_team_roles(prefix); makes them.';
	END IF;
END
$$;
COMMENT ON FUNCTION imgpipe.check_team(name) IS 'Raises 42704 for what is no team role.';

CREATE FUNCTION imgpipe.warn_of_no_end(what text) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	IF NOT EXISTS (SELECT FROM imgpipe.jobs j WHERE j.command = 'SELECT imgpipe.end_expired_access()' AND j.enabled) THEN
		RAISE WARNING USING ERRCODE = 'object_not_in_prerequisite_state',
			MESSAGE = format('nothing ends %s by itself', what),
			DETAIL = 'No job calls imgpipe.end_expired_access(), and no version of PostgreSQL has memberships or grants with an end.',
			HINT = 'SELECT imgpipe.schedule(''end_expired_access'', ''1 minute'', ''SELECT imgpipe.end_expired_access()'');';
	END IF;
END
$$;
COMMENT ON FUNCTION imgpipe.warn_of_no_end(text) IS 'A warning where no job of the caller''s to see ends what has an end.';

CREATE FUNCTION imgpipe.add_team_member(team name, login name, until timestamptz DEFAULT NULL) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	attributes pg_roles;
BEGIN
	PERFORM imgpipe.check_team(team);
	SELECT * INTO attributes FROM pg_roles r WHERE r.rolname = login;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'undefined_object',
			MESSAGE = format('role %s does not exist', coalesce('"' || login || '"', 'NULL')),
			HINT = format('CREATE ROLE %s LOGIN; first.', coalesce(quote_ident(login), '...'));
	END IF;
	IF attributes.rolsuper OR attributes.rolbypassrls OR EXISTS (SELECT FROM imgpipe.access_teams t WHERE t.role_name = login) THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_grant_operation',
			MESSAGE = format('role "%s" cannot be a member of a team', login),
			DETAIL = CASE WHEN attributes.rolsuper THEN 'It is a superuser.' WHEN attributes.rolbypassrls THEN 'It has BYPASSRLS.' ELSE 'It is a team role itself.' END,
			HINT = 'What such a role may do, no template describes: add a login of its own for the work of the team.';
	END IF;
	IF until <= imgpipe.scheduler_clock() THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
			MESSAGE = 'a membership cannot end in the past',
			DETAIL = format('It would have ended at %s.', until),
			HINT = 'Leave until out for a membership without an end.';
	END IF;
	EXECUTE format('GRANT %I TO %I', team, login);
	INSERT INTO imgpipe.access_memberships AS m (role_name, member, until) VALUES (team, login, add_team_member.until)
		ON CONFLICT ON CONSTRAINT access_memberships_pkey DO UPDATE SET until = EXCLUDED.until, added_by = EXCLUDED.added_by, added_at = EXCLUDED.added_at;
	PERFORM imgpipe.log_access('add member', team, format('%I until %s', login, coalesce(until::text, 'further notice')));
	IF until < 'infinity' THEN
		PERFORM imgpipe.warn_of_no_end(format('the membership of "%s"', login));
	END IF;
END
$$;
COMMENT ON FUNCTION imgpipe.add_team_member(name, name, timestamptz) IS
'Makes a login a member of a team, at once, until a time or until further notice; called again, it changes the time. The end is enforced by end_expired_access(), which a job is to call (see schedule()); a warning says where there is none. Raises 42704 for a team or a login that does not exist, 0LP01 for a superuser, a role with BYPASSRLS or another team, 22023 for an end in the past, 42501 where the caller may not grant the role.';

CREATE FUNCTION imgpipe.revoke_membership(team name, member name) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	granted_by text;
BEGIN
	-- From PostgreSQL 16 on a membership can have been granted several times, by different roles.
	FOR granted_by IN SELECT CASE WHEN to_jsonb(m) ? 'inherit_option' THEN format(' GRANTED BY %I', g.rolname) ELSE '' END
			FROM pg_auth_members m JOIN pg_roles t ON t.oid = m.roleid JOIN pg_roles r ON r.oid = m.member LEFT JOIN pg_roles g ON g.oid = m.grantor
			WHERE t.rolname = revoke_membership.team AND r.rolname = revoke_membership.member
	LOOP
		EXECUTE format('REVOKE %I FROM %I%s', team, member, granted_by);
	END LOOP;
END
$$;
COMMENT ON FUNCTION imgpipe.revoke_membership(name, name) IS 'Revokes all grants of a role to another.';

CREATE FUNCTION imgpipe.remove_team_member(team name, login name) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	PERFORM imgpipe.check_team(team);
	DELETE FROM imgpipe.access_memberships m WHERE m.role_name = remove_team_member.team AND m.member = login;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'undefined_object',
			MESSAGE = format('%s is no member of team "%s"', coalesce('"' || login || '"', 'NULL'), team),
			HINT = 'SELECT * FROM imgpipe.access_memberships; shows who is.';
	END IF;
	PERFORM imgpipe.revoke_membership(team, login);
	PERFORM imgpipe.log_access('remove member', team, format('%I', login));
END
$$;
COMMENT ON FUNCTION imgpipe.remove_team_member(name, name) IS
'Ends the membership of a login, at once. A session of that login that has set its role to the team''s keeps it until it ends. Raises 42704 for a team, or for a login that is no member by add_team_member().';


/*
 * Masks, and the views that apply them; see src/access/.
 *
 * The set of masks is closed: expressions of users' would run with the rights
 * of the views' owner.  What does not fit a column's type hides it.  A masked
 * value is made of nothing but built-in types, functions and operators, and a
 * view is a security barrier: a reader's own function sees masked values only.
 */

CREATE FUNCTION imgpipe.mask_partial(value text) RETURNS text
	LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
	RETURN pg_catalog.left(value, CASE WHEN pg_catalog.length(value) OPERATOR(pg_catalog.>) 2 THEN 1 ELSE 0 END) OPERATOR(pg_catalog.||) '***';
COMMENT ON FUNCTION imgpipe.mask_partial(text) IS
'The first character, and *** for the others, however many they are; *** alone for up to two characters.';

CREATE FUNCTION imgpipe.mask_email(value text) RETURNS text
	LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
	RETURN CASE WHEN value OPERATOR(pg_catalog.~) '^[^@]+@[^@]+$'
		THEN pg_catalog.left(value, 1) OPERATOR(pg_catalog.||) '***@' OPERATOR(pg_catalog.||) pg_catalog.split_part(value, '@', 2)
		ELSE '***' END;
COMMENT ON FUNCTION imgpipe.mask_email(text) IS
'The first character and the domain of an e-mail address: a***@example.com; *** for what is none.';

CREATE FUNCTION imgpipe.mask_phone(value text) RETURNS text
	LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
	RETURN '***' OPERATOR(pg_catalog.||) CASE WHEN pg_catalog.length(pg_catalog.regexp_replace(value, '[^0-9]', '', 'g')) OPERATOR(pg_catalog.>=) 6
		THEN pg_catalog.right(pg_catalog.regexp_replace(value, '[^0-9]', '', 'g'), 2) ELSE '' END;
COMMENT ON FUNCTION imgpipe.mask_phone(text) IS
'*** and the last two digits of a telephone number; *** alone where it has less than six.';

CREATE FUNCTION imgpipe.mask_hash(value text, inner_pad bytea, outer_pad bytea) RETURNS text
	LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
	RETURN pg_catalog.encode(pg_catalog.sha256(outer_pad OPERATOR(pg_catalog.||)
		pg_catalog.sha256(inner_pad OPERATOR(pg_catalog.||) pg_catalog.convert_to(value, 'UTF8'))), 'hex');
COMMENT ON FUNCTION imgpipe.mask_hash(text, bytea, bytea) IS
'HMAC-SHA-256 (RFC 2104) of a value, in hexadecimal, by the two padded forms of a key in imgpipe.mask_keys: equal values have equal hashes, and who does not know the key cannot try values.';

CREATE FUNCTION imgpipe.mask_year(value date) RETURNS integer
	LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
	RETURN CASE WHEN pg_catalog.isfinite(value) THEN pg_catalog.date_part('year', value)::integer END;
COMMENT ON FUNCTION imgpipe.mask_year(date) IS 'The year of a date.';

CREATE FUNCTION imgpipe.mask_coordinate(value numeric) RETURNS numeric
	LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
	RETURN pg_catalog.round(value, 1);
COMMENT ON FUNCTION imgpipe.mask_coordinate(numeric) IS
'A latitude or longitude in degrees, rounded to a tenth: 11 km.';

CREATE FUNCTION imgpipe.mask_exif(value jsonb) RETURNS jsonb
	LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	RETURN CASE jsonb_typeof(value)
		WHEN 'object' THEN (SELECT coalesce(jsonb_object_agg(e.key, imgpipe.mask_exif(e.value)), '{}') FROM jsonb_each(value) e
			WHERE e.key !~* '^gps|gps$|latitude|longitude|^altitude$|serial|makernote|^imageuniqueid$|^(camera)?ownername$|location|address')
		WHEN 'array' THEN (SELECT coalesce(jsonb_agg(imgpipe.mask_exif(e.value) ORDER BY e.position), '[]') FROM jsonb_array_elements(value) WITH ORDINALITY e (value, position))
		ELSE value END;
END
$$;
COMMENT ON FUNCTION imgpipe.mask_exif(jsonb) IS
'EXIF data, as image_exif() returns it or anywhere within other JSON, without places (GPS, latitude, longitude, altitude) and without what tells one camera or owner from another (serial numbers, MakerNote, ImageUniqueID, CameraOwnerName).';


/* Which mask is where. */

CREATE TABLE imgpipe.access_masks (
	schema_name name NOT NULL,
	table_name name NOT NULL,
	column_name name NOT NULL,
	mask text NOT NULL CHECK (mask OPERATOR(pg_catalog.=) ANY ('{none,hide,partial,email,phone,hash,year_of_birth,coordinates,exif}')),
	PRIMARY KEY (schema_name, table_name, column_name)
);
COMMENT ON TABLE imgpipe.access_masks IS
'How columns appear in the views of masked rules; set by set_mask(), goes before what templates say in imgpipe.template_masks.';

CREATE TABLE imgpipe.mask_keys (
	schema_name name PRIMARY KEY,
	inner_pad bytea NOT NULL,
	outer_pad bytea NOT NULL
);
COMMENT ON TABLE imgpipe.mask_keys IS
'The keys of the mask hash, one for each schema. Grant nobody SELECT here but the owners of schemas with masks: who knows the key can try which value a hash is of.';
REVOKE ALL ON imgpipe.mask_keys FROM PUBLIC;

CREATE TABLE imgpipe.access_views (
	schema_name name NOT NULL,
	view_name name NOT NULL,
	base_schema name NOT NULL,
	definition text NOT NULL,
	stored text NOT NULL,
	PRIMARY KEY (schema_name, view_name)
);
COMMENT ON TABLE imgpipe.access_views IS
'The views that apply_access() has made: as it wrote them, and as PostgreSQL stored them, to see whether somebody changed one.';

SELECT pg_catalog.pg_extension_config_dump('imgpipe.access_masks', '');
SELECT pg_catalog.pg_extension_config_dump('imgpipe.mask_keys', '');
SELECT pg_catalog.pg_extension_config_dump('imgpipe.access_views', '');

CREATE FUNCTION imgpipe.new_mask_key(schema_name name) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	key CONSTANT bytea := sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()));
	inner_pad bytea := decode(repeat('36', 64), 'hex');
	outer_pad bytea := decode(repeat('5c', 64), 'hex');
BEGIN
	PERFORM imgpipe.check_schema(schema_name);
	FOR i IN 0 .. length(key) - 1 LOOP
		inner_pad := set_byte(inner_pad, i, get_byte(inner_pad, i) # get_byte(key, i));
		outer_pad := set_byte(outer_pad, i, get_byte(outer_pad, i) # get_byte(key, i));
	END LOOP;
	INSERT INTO imgpipe.mask_keys VALUES (schema_name, inner_pad, outer_pad)
		ON CONFLICT ON CONSTRAINT mask_keys_pkey DO UPDATE SET inner_pad = EXCLUDED.inner_pad, outer_pad = EXCLUDED.outer_pad;
	PERFORM imgpipe.log_access('new mask key', NULL, format('%I', schema_name));
END
$$;
COMMENT ON FUNCTION imgpipe.new_mask_key(name) IS
'Gives a schema a new secret key for the mask hash: from now on, all hashes in its views are others. The first key is made by apply_access(). Raises 3F000 for a schema.';

CREATE FUNCTION imgpipe.set_mask(masked_table regclass, column_name name, mask text) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	place record;
BEGIN
	IF mask IS NOT NULL AND mask <> ALL ('{none,hide,partial,email,phone,hash,year_of_birth,coordinates,exif}') THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
			MESSAGE = format('there is no mask "%s"', mask),
			HINT = 'Give none, hide, partial, email, phone, hash, year_of_birth, coordinates or exif; NULL for what the template says.';
	END IF;
	IF masked_table IS NULL OR (column_name = '*'
			OR EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = masked_table AND a.attname = set_mask.column_name AND a.attnum > 0 AND NOT a.attisdropped)) IS NOT TRUE THEN
		RAISE EXCEPTION USING ERRCODE = 'undefined_column',
			MESSAGE = format('column %s of %s does not exist', coalesce('"' || column_name || '"', 'NULL'), coalesce(masked_table::text, 'NULL')),
			HINT = 'Give a column of the table, or * for all that have no mask of their own.';
	END IF;
	SELECT n.nspname, c.relname INTO place FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = masked_table;
	IF mask IS NULL THEN
		DELETE FROM imgpipe.access_masks m WHERE (m.schema_name, m.table_name, m.column_name) = (place.nspname, place.relname, set_mask.column_name);
	ELSE
		INSERT INTO imgpipe.access_masks AS m VALUES (place.nspname, place.relname, set_mask.column_name, mask)
			ON CONFLICT ON CONSTRAINT access_masks_pkey DO UPDATE SET mask = EXCLUDED.mask;
	END IF;
	PERFORM imgpipe.log_access('set mask', NULL, format('%s (%I): %s', masked_table, column_name, coalesce(mask, 'as the template says')));
END
$$;
COMMENT ON FUNCTION imgpipe.set_mask(regclass, name, text) IS
'Says how a column appears in the views of masked rules; the next plan changes these views. Masks: none; hide (NULL); partial, email, phone (of text; see mask_partial(), mask_email(), mask_phone()); hash (HMAC-SHA-256 with a key that readers do not know); year_of_birth (of a date or a timestamp); coordinates (of numbers and points, to a tenth of a degree); exif (of jsonb; see mask_exif()). One that does not fit the type of the column hides it. Column * is for those without a mask of their own. NULL: what the template says. Raises 22023 for a mask, 42703 for a column.';

CREATE FUNCTION imgpipe.masked_expression(column_name name, mask text, type oid, base_schema name) RETURNS text
	LANGUAGE plpgsql STABLE STRICT PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	-- Of a domain the type below it; what is no built-in type has casts and output functions that are none either.
	base oid := (SELECT CASE t.typtype WHEN 'd' THEN t.typbasetype ELSE t.oid END FROM pg_type t WHERE t.oid = type);
	plain CONSTANT text := format('b.%I', column_name);
	expression text;
BEGIN
	IF mask = 'none' THEN
		RETURN plain;
	END IF;
	IF (SELECT t.typnamespace <> 'pg_catalog'::regnamespace OR t.typtype <> 'b' FROM pg_type t WHERE t.oid = base) THEN
		base := 'text'::regtype;
	ELSE
		expression := CASE
			WHEN mask IN ('partial', 'email', 'phone') AND base = ANY ('{text,varchar,bpchar,name}'::regtype[])
				THEN format('imgpipe.mask_%s(%s::pg_catalog.text)', mask, plain)
			WHEN mask = 'hash'
				THEN format('imgpipe.mask_hash(%s::pg_catalog.text, (SELECT k.inner_pad FROM imgpipe.mask_keys k WHERE k.schema_name OPERATOR(pg_catalog.=) %2$L::pg_catalog.name), (SELECT k.outer_pad FROM imgpipe.mask_keys k WHERE k.schema_name OPERATOR(pg_catalog.=) %2$L::pg_catalog.name))', plain, base_schema)
			WHEN mask = 'year_of_birth' AND base = ANY ('{date,timestamp,timestamptz}'::regtype[])
				THEN format('imgpipe.mask_year(%s::pg_catalog.date)', plain)
			WHEN mask = 'coordinates' AND base = ANY ('{numeric,float8,float4}'::regtype[])
				THEN format('imgpipe.mask_coordinate(%s::pg_catalog.numeric)', plain)
			WHEN mask = 'coordinates' AND base = 'point'::regtype
				THEN format('pg_catalog.point(imgpipe.mask_coordinate((%s)[0]::pg_catalog.numeric)::pg_catalog.float8, imgpipe.mask_coordinate((%1$s)[1]::pg_catalog.numeric)::pg_catalog.float8)', plain)
			WHEN mask = 'exif' AND base = 'jsonb'::regtype
				THEN format('imgpipe.mask_exif(%s)', plain) END;
	END IF;
	RETURN format('%s AS %I', coalesce(expression, 'NULL::' || format_type(base, NULL)), column_name);
END
$$;
COMMENT ON FUNCTION imgpipe.masked_expression(name, text, oid, name) IS
'A column b.column_name of that type, masked, for the SELECT list of a view.';


/*
 * What the templates say, in terms of the objects that are there, and what the
 * catalogs say; see src/access/.  Both have an object by its quoted name, so
 * that a view can be spoken of before it is made.  Everything is one query over
 * the catalogs, however many objects and roles there are.
 */

CREATE TABLE imgpipe.access_exceptions (
	role_name name NOT NULL,
	kind text NOT NULL,
	schema_name name NOT NULL,
	object text NOT NULL,
	column_name name NOT NULL DEFAULT '',
	privilege text NOT NULL,
	reason text NOT NULL CHECK (reason OPERATOR(pg_catalog.<>) ''),
	until timestamptz NOT NULL,
	allowed_by name NOT NULL DEFAULT CURRENT_USER,
	allowed_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	PRIMARY KEY (role_name, kind, object, column_name, privilege)
);
COMMENT ON TABLE imgpipe.access_exceptions IS
'Privileges that a role has beside the templates, with the reason and an end; see allow_exception().';
COMMENT ON COLUMN imgpipe.access_exceptions.role_name IS 'A role, or PUBLIC.';
SELECT pg_catalog.pg_extension_config_dump('imgpipe.access_exceptions', '');

CREATE FUNCTION imgpipe.access_objects(schemas name[]) RETURNS TABLE (
		kind text, oid oid, schema_name name, name text, arguments text, object text, owner oid, acl aclitem[], relkind "char", partition boolean)
	LANGUAGE sql STABLE STRICT PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT 'schema', n.oid, n.nspname, n.nspname::text, NULL, quote_ident(n.nspname), n.nspowner, coalesce(n.nspacl, acldefault('n', n.nspowner)), NULL::"char", false
		FROM pg_namespace n WHERE n.nspname = ANY (schemas)
	UNION ALL
	SELECT CASE c.relkind WHEN 'S' THEN 'sequence' ELSE 'table' END, c.oid, n.nspname, c.relname::text, NULL, quote_ident(n.nspname) || '.' || quote_ident(c.relname), c.relowner,
			coalesce(c.relacl, acldefault(CASE c.relkind WHEN 'S' THEN 's'::"char" ELSE 'r' END, c.relowner)), c.relkind, c.relispartition
		FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE n.nspname = ANY (schemas) AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
	UNION ALL
	SELECT 'function', p.oid, n.nspname, p.proname::text, oidvectortypes(p.proargtypes),
			quote_ident(n.nspname) || '.' || quote_ident(p.proname) || '(' || oidvectortypes(p.proargtypes) || ')',
			p.proowner, coalesce(p.proacl, acldefault('f', p.proowner)), NULL, false
		FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = ANY (schemas)
$$;
COMMENT ON FUNCTION imgpipe.access_objects(name[]) IS
'The schemas of those names and what is in them: schemas, tables (views, materialized views, foreign tables and partitions, too), sequences and functions, with their quoted names, owners and access control lists.';

CREATE FUNCTION imgpipe.team_schema(schema_name name, role_name name) RETURNS name
	LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
	-- Two long names that begin alike must not become one.
	SELECT (CASE WHEN octet_length(n) < 64 THEN n ELSE left(n, 15) || '_' || md5(n) END)::name
		FROM (SELECT schema_name || '_' || role_name AS n) s
$$;
COMMENT ON FUNCTION imgpipe.team_schema(name, name) IS
'The schema of a team''s views of a schema: schema_role.';

CREATE FUNCTION imgpipe.managed_schemas(only_schema name DEFAULT NULL) RETURNS name[]
	LANGUAGE plpgsql STABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	managed CONSTANT name[] := ARRAY(
		SELECT u.schema_name FROM imgpipe.access_uses u
		UNION SELECT s.schema_name FROM imgpipe.access_schemas s
		UNION SELECT e.schema_name FROM imgpipe.access_exceptions e
		-- What was managed once, for as long as a team has rights there.
		UNION SELECT n.nspname FROM pg_namespace n CROSS JOIN LATERAL aclexplode(n.nspacl) a JOIN pg_roles r ON r.oid = a.grantee
			JOIN imgpipe.access_teams t ON t.role_name = r.rolname
			WHERE NOT EXISTS (SELECT FROM imgpipe.access_views v WHERE v.schema_name = n.nspname));
BEGIN
	IF only_schema IS NULL THEN
		RETURN managed;
	ELSIF only_schema = ANY (managed) THEN
		RETURN ARRAY[only_schema];
	END IF;
	-- Of a name that was written wrongly it must not be said that all is well.
	PERFORM imgpipe.check_schema(only_schema);
	RETURN '{}';
END
$$;
COMMENT ON FUNCTION imgpipe.managed_schemas(name) IS
'The schemas whose rights are declared, those of teams'' views left out. Raises 3F000 for the name of no schema.';

CREATE FUNCTION imgpipe.rules_in_use() RETURNS TABLE (
		role_name name, role_oid oid, prefix text, team text, template text, rule integer, schema_name name, kind text, object text, privileges text[], columns text[],
		masked boolean, row_filter text, future boolean, names jsonb, own_view boolean)
	LANGUAGE sql STABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT t.role_name, o.oid, t.prefix, t.team, r.template, r.rule, u.schema_name, r.kind, coalesce(u.names ->> r.object, r.object), r.privileges,
			CASE WHEN r.columns IS NOT NULL THEN ARRAY(SELECT coalesce(u.names ->> (r.object || '.' || c.name), c.name) FROM unnest(r.columns) WITH ORDINALITY c (name, position) ORDER BY c.position) END,
			r.masked, r.row_filter, r.future, u.names, r.masked OR r.row_filter IS NOT NULL
		FROM imgpipe.access_uses u
			JOIN imgpipe.access_rules r ON (r.template, r.place) = (u.template, u.place)
			JOIN imgpipe.access_teams t ON (t.prefix, t.team) = (u.prefix, r.team)
			JOIN pg_roles o ON o.rolname = t.role_name
		WHERE t.active
$$;
COMMENT ON FUNCTION imgpipe.rules_in_use() IS
'The rules of the templates in use, for the team roles that are there and active, with the names that objects and columns have here. own_view: the team gets a view of its own, and nothing on the object.';

/*
 * In a schema of thousands of tables most are alike: the same rules are about
 * them, and the same was granted on them.  What is to be done is found out for
 * one of each kind, and done to all of it.
 */
CREATE FUNCTION imgpipe.alike_objects(only_schema name DEFAULT NULL) RETURNS TABLE (
		kind text, oid oid, schema_name name, object text, owner oid, acl aclitem[], relkind "char", partition boolean, as_shipped boolean, wanted text[], objects text[])
	LANGUAGE sql STABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
	SET enable_nestloop = off
	SET jit = off
AS $$
	WITH objects AS MATERIALIZED (
		SELECT o.*, false AS of_team FROM imgpipe.access_objects(imgpipe.managed_schemas(only_schema)) o
		UNION ALL
		SELECT o.*, true FROM imgpipe.access_objects(ARRAY(SELECT DISTINCT v.schema_name FROM imgpipe.access_views v WHERE only_schema IS NULL OR v.base_schema = only_schema)) o),
	names AS MATERIALIZED (
		SELECT r.schema_name, r.kind, r.object, imgpipe.name_pattern(r.object) AS pattern, bool_or(r.own_view OR r.columns IS NOT NULL) AS special
			FROM imgpipe.rules_in_use() r GROUP BY r.schema_name, r.kind, r.object),
	matches AS MATERIALIZED (
		SELECT o.kind, o.oid, array_agg(n.object ORDER BY n.object) AS wanted, bool_or(n.special) AS special
			FROM objects o JOIN names n ON n.schema_name = o.schema_name AND n.kind = o.kind AND NOT o.partition
				AND (o.kind = 'schema' OR o.name ~ n.pattern OR (o.kind = 'function' AND o.name || '(' || o.arguments || ')' = n.object))
			GROUP BY o.kind, o.oid),
	seen AS MATERIALIZED (
		SELECT o.*, m.wanted, d.objid IS NOT NULL AND i.objoid IS NULL AS as_shipped,
				-- What is said of its columns, or of it alone, is of this object alone.
				CASE WHEN o.of_team OR o.kind = 'schema' OR m.special OR c.attrelid IS NOT NULL OR e.object IS NOT NULL THEN o.oid END AS itself
			FROM objects o
				LEFT JOIN matches m ON m.kind = o.kind AND m.oid = o.oid
				LEFT JOIN (SELECT DISTINCT a.attrelid FROM pg_attribute a WHERE a.attacl IS NOT NULL) c ON o.kind = 'table' AND c.attrelid = o.oid
				LEFT JOIN (SELECT DISTINCT x.kind, x.object FROM imgpipe.access_exceptions x) e ON e.kind = o.kind AND e.object = o.object
				LEFT JOIN pg_depend d ON d.deptype = 'e' AND d.objid = o.oid
					AND d.classid = CASE o.kind WHEN 'function' THEN 'pg_proc'::regclass WHEN 'schema' THEN 'pg_namespace'::regclass ELSE 'pg_class'::regclass END
				LEFT JOIN pg_init_privs i ON i.objoid = o.oid AND i.classoid = d.classid AND i.objsubid = 0),
	classes AS (
		-- By hashing: access control lists have no order, and hundreds of entries.
		SELECT s.kind, min(s.oid) AS oid, array_agg(s.object) AS objects
			FROM seen s GROUP BY s.kind, s.schema_name, s.owner, s.acl, s.partition, s.as_shipped, s.wanted, s.itself)
	SELECT s.kind, s.oid, s.schema_name, s.object, s.owner, s.acl, s.relkind, s.partition, s.as_shipped, s.wanted, c.objects
		FROM classes c JOIN seen s ON s.kind = c.kind AND s.oid = c.oid
$$;
COMMENT ON FUNCTION imgpipe.alike_objects(name) IS
'One of each set of objects, in the managed schemas and those of teams'' views, that the same rules (wanted: by these names) are about and that have the same owner and access control list; objects: the set. as_shipped: it came with an extension that granted nothing on it.';

CREATE FUNCTION imgpipe.rule_matches(only_schema name DEFAULT NULL) RETURNS TABLE (
		role_name name, role_oid oid, template text, rule integer, kind text, schema_name name, object text, oid oid, owner oid, privileges text[], columns text[],
		masked boolean, row_filter text, names jsonb, own_view boolean)
	LANGUAGE sql STABLE PARALLEL SAFE ROWS 100000
	SET search_path = pg_catalog, pg_temp
	SET enable_nestloop = off
AS $$
	-- (No nested loops: the planner cannot know how many rules and objects there are.)
	SELECT r.role_name, r.role_oid, r.template, r.rule, r.kind, r.schema_name, o.object, o.oid, o.owner, r.privileges, r.columns, r.masked, r.row_filter, r.names, r.own_view
		FROM imgpipe.rules_in_use() r
			JOIN (SELECT a.*, w.name FROM imgpipe.alike_objects(only_schema) a CROSS JOIN LATERAL unnest(a.wanted) w (name)) o
				ON o.schema_name = r.schema_name AND o.kind = r.kind AND o.name = r.object
		WHERE only_schema IS NULL OR r.schema_name = only_schema
$$;
COMMENT ON FUNCTION imgpipe.rule_matches(name) IS
'Each rule in use with each object that it is about, of objects that are alike with one; partitions are left out.';


/* The views of teams. */

CREATE FUNCTION imgpipe.filter_condition(row_filter text, base oid, names jsonb, table_name text, prefix_uses jsonb) RETURNS text
	LANGUAGE plpgsql STABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	parts CONSTANT text[] := imgpipe.filter_parts(row_filter);
	filtered CONSTANT text := coalesce((SELECT e.value FROM jsonb_each_text(names) e WHERE split_part(e.key, '.', 2) = parts[2]
		AND coalesce(names ->> split_part(e.key, '.', 1), split_part(e.key, '.', 1)) = table_name), parts[2]);
	type oid;
	other regclass;
	other_column text;
BEGIN
	SELECT a.atttypid INTO type FROM pg_attribute a WHERE a.attrelid = base AND a.attname = filtered AND a.attnum > 0 AND NOT a.attisdropped;
	IF parts[1] = 'own' AND type = ANY ('{text,varchar,name}'::regtype[]) THEN
		RETURN format('b.%I::pg_catalog.text OPERATOR(pg_catalog.=) SESSION_USER::pg_catalog.text', filtered);
	ELSIF parts[1] = 'flag' AND type = 'boolean'::regtype THEN
		RETURN format('b.%I', filtered);
	ELSIF parts[1] = 'recent' AND type = 'timestamptz'::regtype THEN
		RETURN format('b.%I OPERATOR(pg_catalog.>) (pg_catalog.now() OPERATOR(pg_catalog.-) %L::pg_catalog.interval)', filtered, parts[3] || ' ' || parts[4]);
	ELSIF parts[1] = 'referenced' THEN
		other := to_regclass(format('%I.%I', prefix_uses ->> coalesce(parts[3], 'sales'), coalesce(names ->> parts[4], parts[4])));
		other_column := coalesce(names ->> (parts[4] || '.' || parts[5]), parts[5]);
		IF type = ANY ('{uuid,bigint,integer,text}'::regtype[])
			AND EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = other AND a.attname = other_column AND a.atttypid = type AND NOT a.attisdropped) THEN
			RETURN format('EXISTS (SELECT FROM %s o WHERE o.%I OPERATOR(pg_catalog.=) b.%I)', other, other_column, filtered);
		END IF;
	END IF;
	RETURN NULL;
END
$$;
COMMENT ON FUNCTION imgpipe.filter_condition(text, oid, jsonb, text, jsonb) IS
'The condition, on rows b, of a row filter; NULL where the columns that it needs are not there or of other types.';

CREATE FUNCTION imgpipe.team_views(only_schema name DEFAULT NULL) RETURNS TABLE (
		role_name name, role_oid oid, base_schema name, base oid, base_object text, owner name, schema_name name, view_name name, privileges text[], definition text, problem text)
	LANGUAGE plpgsql STABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
	RETURN QUERY
	WITH wanted AS (
		-- Of several rules for one table the first decides.
		SELECT DISTINCT ON (m.role_oid, m.oid) m.*, c.relname, n.nspowner, r.prefix, c.relrowsecurity,
				EXISTS (SELECT FROM imgpipe.partitioned_tables p WHERE p.parent = c.oid) AS fenced,
				c.relkind = 'v' AND c.reloptions::text ~ 'security_invoker=(true|on|1|yes)' AS invoker
			FROM imgpipe.rule_matches(only_schema) m
				JOIN pg_class c ON c.oid = m.oid JOIN pg_namespace n ON n.oid = c.relnamespace
				JOIN imgpipe.access_teams r ON r.role_name = m.role_name
			WHERE m.own_view AND m.kind = 'table'
			ORDER BY m.role_oid, m.oid, m.template, m.rule),
	listed AS (
		SELECT w.role_oid, w.oid, string_agg(imgpipe.masked_expression(a.attname, CASE WHEN w.masked THEN
					-- The nearest says it: for this table by hand, the template; each for the column, then for all.
					coalesce(k.mask, s.mask, d.mask, e.mask, 'none') ELSE 'none' END, a.atttypid, w.schema_name),
				', ' ORDER BY coalesce(array_position(w.columns, a.attname::text), 0), a.attnum) AS columns
			FROM wanted w
				JOIN pg_attribute a ON a.attrelid = w.oid AND a.attnum > 0 AND NOT a.attisdropped AND (w.columns IS NULL OR a.attname = ANY (w.columns))
				LEFT JOIN imgpipe.access_masks k ON (k.schema_name, k.table_name, k.column_name) = (w.schema_name, w.relname, a.attname)
				LEFT JOIN imgpipe.access_masks s ON (s.schema_name, s.table_name, s.column_name) = (w.schema_name, w.relname, '*')
				LEFT JOIN LATERAL (SELECT t.mask FROM imgpipe.template_masks t WHERE t.template = w.template AND t.column_name <> '*'
					AND coalesce(w.names ->> t.table_name, t.table_name) = w.relname
					AND coalesce(w.names ->> (t.table_name || '.' || t.column_name), t.column_name) = a.attname LIMIT 1) d ON true
				LEFT JOIN LATERAL (SELECT t.mask FROM imgpipe.template_masks t WHERE t.template = w.template AND t.column_name = '*'
					AND coalesce(w.names ->> t.table_name, t.table_name) = w.relname LIMIT 1) e ON true
			GROUP BY w.role_oid, w.oid),
	filtered AS (
		SELECT w.*, imgpipe.filter_condition(w.row_filter, w.oid, w.names, w.relname,
				(SELECT jsonb_object_agg(u.place, u.schema_name) FROM imgpipe.access_uses u WHERE (u.prefix, u.template) = (w.prefix, w.template))) AS condition
			FROM wanted w)
	SELECT f.role_name, f.role_oid, f.schema_name, f.oid, f.object, pg_get_userbyid(f.nspowner), imgpipe.team_schema(f.schema_name, f.role_name), f.relname, f.privileges,
			format('CREATE VIEW %I.%I WITH (security_barrier = true) AS SELECT %s FROM %s b',
				imgpipe.team_schema(f.schema_name, f.role_name), f.relname, l.columns, f.object)
				-- The owner of the view is above the policies of images, fence and horizon: the view has them itself.
				|| coalesce(' WHERE ' || nullif(concat_ws(' AND ', CASE WHEN f.fenced THEN 'b.image_id OPERATOR(pg_catalog.>=) imgpipe.fence()'
					|| CASE WHEN f.privileges && '{INSERT,UPDATE}' THEN ' AND b.image_id OPERATOR(pg_catalog.<) imgpipe.horizon()' ELSE '' END END, f.condition), ''), '')
				|| CASE WHEN f.privileges && '{INSERT,UPDATE}' AND (f.fenced OR f.condition IS NOT NULL) THEN ' WITH CASCADED CHECK OPTION' ELSE '' END,
			CASE WHEN l.columns IS NULL THEN 'none of its columns is there'
				WHEN f.row_filter IS NOT NULL AND f.condition IS NULL THEN format('the row filter %s does not fit its columns', f.row_filter)
				WHEN position('imgpipe.mask_keys' IN l.columns) > 0 AND NOT has_table_privilege(f.nspowner, 'imgpipe.mask_keys', 'SELECT')
					THEN format('the owner of its schema cannot read the key of the mask hash: GRANT SELECT ON imgpipe.mask_keys TO %I;', pg_get_userbyid(f.nspowner))
				WHEN f.relrowsecurity AND NOT f.fenced THEN 'its row-level security would not hold for the readers of a view'
				WHEN f.invoker THEN 'it is a view with security_invoker, which reads with the rights of the team' END
		FROM filtered f LEFT JOIN listed l ON (l.role_oid, l.oid) = (f.role_oid, f.oid);
END
$$;
COMMENT ON FUNCTION imgpipe.team_views(name) IS
'The views that teams are to have, and how each is made; problem says why one cannot be.';


CREATE FUNCTION imgpipe.declared_rights(only_schema name DEFAULT NULL) RETURNS TABLE (
		role_name name, role_oid oid, kind text, schema_name name, object text, column_name name, privilege text, owner name, because text)
	LANGUAGE sql STABLE PARALLEL SAFE ROWS 100000
	SET search_path = pg_catalog, pg_temp
	SET enable_nestloop = off
	SET jit = off
AS $$
	WITH matches AS MATERIALIZED (SELECT * FROM imgpipe.rule_matches(only_schema)),
	views AS MATERIALIZED (SELECT * FROM imgpipe.team_views(only_schema) v WHERE v.problem IS NULL),
	possible AS MATERIALIZED (SELECT k.kind, imgpipe.privileges_of(k.kind) AS privileges FROM unnest('{schema,table,sequence,function}'::text[]) k (kind)),
	declared AS MATERIALIZED (
		SELECT m.role_name, m.role_oid, m.kind, m.schema_name, m.object, coalesce(a.attname, '') AS column_name, p.privilege, m.owner,
				format('rule %s of %s', m.rule, m.template) AS because
			FROM matches m JOIN possible k ON k.kind = m.kind CROSS JOIN LATERAL unnest(m.privileges) p (privilege)
				LEFT JOIN LATERAL unnest(m.columns) c (name) ON true
				LEFT JOIN pg_attribute a ON a.attrelid = m.oid AND a.attname = c.name AND a.attnum > 0 AND NOT a.attisdropped
			WHERE NOT m.own_view AND (m.columns IS NULL OR a.attname IS NOT NULL) AND p.privilege = ANY (k.privileges)
		UNION ALL
		SELECT v.role_name, v.role_oid, 'table', v.schema_name, quote_ident(v.schema_name) || '.' || quote_ident(v.view_name), '', p.privilege, n.nspowner, 'view of ' || v.base_object
			FROM views v CROSS JOIN LATERAL unnest(v.privileges) p (privilege) JOIN pg_namespace n ON n.nspname = v.base_schema
		UNION ALL
		SELECT DISTINCT m.role_name, m.role_oid, 'schema', m.schema_name, quote_ident(m.schema_name), ''::name, 'USAGE', n.nspowner, 'something in it'
			FROM matches m JOIN pg_namespace n ON n.nspname = m.schema_name WHERE NOT m.own_view
		UNION ALL
		SELECT DISTINCT v.role_name, v.role_oid, 'schema', v.schema_name, quote_ident(v.schema_name), ''::name, 'USAGE', n.nspowner, 'something in it'
			FROM views v JOIN pg_namespace n ON n.nspname = v.base_schema
		UNION ALL
		SELECT e.role_name, coalesce(r.oid, 0), e.kind, e.schema_name, e.object, e.column_name, e.privilege, o.owner, format('exception until %s: %s', e.until, e.reason)
			FROM imgpipe.access_exceptions e LEFT JOIN pg_roles r ON r.rolname = e.role_name
				JOIN imgpipe.access_objects(ARRAY(SELECT x.schema_name FROM imgpipe.access_exceptions x)) o ON o.kind = e.kind AND o.object = e.object
			WHERE e.until > imgpipe.scheduler_clock() AND (r.oid IS NOT NULL OR e.role_name = 'public') AND (only_schema IS NULL OR e.schema_name = only_schema))
	SELECT d.role_name, d.role_oid, d.kind, d.schema_name, d.object, d.column_name, d.privilege, pg_get_userbyid(d.owner), min(d.because)
		FROM declared d
			-- What is for the whole table is not also for its columns.
			LEFT JOIN declared w ON d.column_name <> '' AND w.column_name = ''
				AND (w.role_oid, w.kind, w.object, w.privilege) = (d.role_oid, d.kind, d.object, d.privilege)
		WHERE w.role_oid IS NULL
		GROUP BY d.role_name, d.role_oid, d.kind, d.schema_name, d.object, d.column_name, d.privilege, d.owner
$$;
COMMENT ON FUNCTION imgpipe.declared_rights(name) IS
'As declared_access(), of objects that are alike for one.';

CREATE FUNCTION imgpipe.declared_access(only_schema name DEFAULT NULL) RETURNS TABLE (
		role_name name, role_oid oid, kind text, schema_name name, object text, column_name name, privilege text, owner name, because text)
	LANGUAGE sql STABLE PARALLEL SAFE ROWS 100000
	SET search_path = pg_catalog, pg_temp
	SET enable_nestloop = off
	SET jit = off
AS $$
	SELECT d.role_name, d.role_oid, d.kind, d.schema_name, o.object, d.column_name, d.privilege, d.owner, d.because
		FROM imgpipe.declared_rights(only_schema) d LEFT JOIN imgpipe.alike_objects(only_schema) a ON a.kind = d.kind AND a.object = d.object
			CROSS JOIN LATERAL unnest(coalesce(a.objects, ARRAY[d.object])) o (object)
$$;
COMMENT ON FUNCTION imgpipe.declared_access(name) IS
'What the templates in use and the exceptions give, in one schema or in all: one row a role, object, column (empty: the whole object) and privilege. object is the quoted name, of a function with its argument types; the views of teams are there also before they are made.';

CREATE FUNCTION imgpipe.actual_rights(only_schema name DEFAULT NULL) RETURNS TABLE (
		kind text, schema_name name, object text, column_name name, owner oid, grantee oid, grantor oid, privilege text, grantable boolean, partition boolean,
		as_shipped boolean, objects text[])
	LANGUAGE sql STABLE PARALLEL SAFE ROWS 100000
	SET search_path = pg_catalog, pg_temp
	SET jit = off
AS $$
	WITH objects AS MATERIALIZED (SELECT * FROM imgpipe.alike_objects(only_schema))
	SELECT o.kind, o.schema_name, o.object, ''::name, o.owner, a.grantee, a.grantor, a.privilege_type, a.is_grantable, o.partition, o.as_shipped, o.objects
		FROM objects o CROSS JOIN LATERAL aclexplode(o.acl) a
	UNION ALL
	SELECT o.kind, o.schema_name, o.object, c.attname, o.owner, a.grantee, a.grantor, a.privilege_type, a.is_grantable, o.partition, o.as_shipped, o.objects
		FROM objects o JOIN pg_attribute c ON c.attrelid = o.oid CROSS JOIN LATERAL aclexplode(c.attacl) a
		WHERE o.kind = 'table' AND c.attacl IS NOT NULL AND NOT c.attisdropped
$$;
COMMENT ON FUNCTION imgpipe.actual_rights(name) IS
'As actual_access(), of objects that are alike for one; objects: all of them.';

CREATE FUNCTION imgpipe.actual_access(only_schema name DEFAULT NULL) RETURNS TABLE (
		kind text, schema_name name, object text, column_name name, owner oid, grantee oid, grantor oid, privilege text, grantable boolean, partition boolean)
	LANGUAGE sql STABLE PARALLEL SAFE ROWS 100000
	SET search_path = pg_catalog, pg_temp
	SET jit = off
AS $$
	SELECT a.kind, a.schema_name, o.object, a.column_name, a.owner, a.grantee, a.grantor, a.privilege, a.grantable, a.partition
		FROM imgpipe.actual_rights(only_schema) a CROSS JOIN LATERAL unnest(a.objects) o (object)
$$;
COMMENT ON FUNCTION imgpipe.actual_access(name) IS
'What the access control lists say of the managed schemas, or of one and the views of teams on it: one row a grant. grantee 0 is PUBLIC.';


/*
 * The difference between what is declared and what is, as statements; see
 * src/access/.  A plan is not kept: it is computed, shown with a hash, and
 * computed again when it is applied, under a lock and in one transaction.
 */

CREATE FUNCTION imgpipe.view_changes(only_schema name DEFAULT NULL) RETURNS TABLE (
		change text, schema_name name, view_name name, base_schema name, owner name, definition text)
	LANGUAGE sql STABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
	WITH wanted AS MATERIALIZED (SELECT * FROM imgpipe.team_views(only_schema) v WHERE v.problem IS NULL),
	present AS MATERIALIZED (
		SELECT v.schema_name, v.view_name, v.base_schema, v.definition, n.nspowner, c.oid AS found,
				c.relkind = 'v' AND c.relowner = n.nspowner AND pg_get_viewdef(c.oid) = v.stored
					AND c.reloptions = CASE WHEN v.definition LIKE '% CHECK OPTION' THEN '{security_barrier=true,check_option=cascaded}' ELSE '{security_barrier=true}' END::text[] AS intact
			FROM imgpipe.access_views v LEFT JOIN pg_namespace n ON n.nspname = v.schema_name
				LEFT JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = v.view_name
			WHERE only_schema IS NULL OR v.base_schema = only_schema)
	SELECT 'drop view', p.schema_name, p.view_name, p.base_schema, pg_get_userbyid(p.nspowner), format('DROP VIEW %I.%I', p.schema_name, p.view_name)
		FROM present p LEFT JOIN wanted w ON (w.schema_name, w.view_name) = (p.schema_name, p.view_name)
		WHERE p.found IS NOT NULL AND (w.definition = p.definition AND p.intact) IS NOT TRUE
	UNION ALL
	-- One that this extension does not know: DROP EXTENSION left it.
	SELECT 'drop view', w.schema_name, w.view_name, w.base_schema, pg_get_userbyid(c.relowner), format('DROP VIEW %I.%I', w.schema_name, w.view_name)
		FROM wanted w JOIN pg_namespace n ON n.nspname = w.schema_name JOIN pg_class c ON (c.relnamespace, c.relname, c.relkind) = (n.oid, w.view_name, 'v')
		WHERE NOT EXISTS (SELECT FROM present p WHERE (p.schema_name, p.view_name) = (w.schema_name, w.view_name))
	UNION ALL
	SELECT DISTINCT 'create schema', w.schema_name, NULL::name, w.base_schema, w.owner, format('CREATE SCHEMA %I AUTHORIZATION %I', w.schema_name, w.owner)
		FROM wanted w WHERE NOT EXISTS (SELECT FROM pg_namespace n WHERE n.nspname = w.schema_name)
	UNION ALL
	SELECT 'create view', w.schema_name, w.view_name, w.base_schema, w.owner, w.definition
		FROM wanted w LEFT JOIN present p ON (w.schema_name, w.view_name) = (p.schema_name, p.view_name)
		WHERE (w.definition = p.definition AND p.intact) IS NOT TRUE
	UNION ALL
	SELECT DISTINCT 'drop schema', p.schema_name, NULL::name, p.base_schema, pg_get_userbyid(p.nspowner), format('DROP SCHEMA %I', p.schema_name)
		FROM present p WHERE p.nspowner IS NOT NULL AND NOT EXISTS (SELECT FROM wanted w WHERE w.schema_name = p.schema_name)
$$;
COMMENT ON FUNCTION imgpipe.view_changes(name) IS
'What is to be done so that the views of teams, and their schemas, are as they should.';

CREATE FUNCTION imgpipe.access_changes(only_schema name DEFAULT NULL) RETURNS TABLE (
		change text, kind text, schema_name name, object text, column_name name, role_oid oid, role_name name, privilege text, grantor oid, owner name, reason text)
	LANGUAGE sql STABLE PARALLEL SAFE ROWS 100000
	SET search_path = pg_catalog, pg_temp
	SET jit = off
	SET enable_nestloop = off
AS $$
	WITH view_changes AS MATERIALIZED (SELECT * FROM imgpipe.view_changes(only_schema)),
	gone AS MATERIALIZED (
		SELECT quote_ident(v.schema_name) || coalesce('.' || quote_ident(v.view_name), '') AS object FROM view_changes v WHERE v.change IN ('drop view', 'drop schema')),
	declared AS MATERIALIZED (SELECT * FROM imgpipe.declared_rights(only_schema)),
	actual AS MATERIALIZED (
		SELECT a.* FROM imgpipe.actual_rights(only_schema) a
			WHERE a.grantee <> a.owner AND NOT EXISTS (SELECT FROM gone g WHERE g.object = a.object)),
	roles AS MATERIALIZED (SELECT r.oid, r.rolname FROM imgpipe.access_teams t JOIN pg_roles r ON r.rolname = t.role_name),
	judged AS MATERIALIZED (
		SELECT a.*, d.privilege IS NOT NULL AS wanted FROM actual a
			LEFT JOIN declared d ON d.role_oid = a.grantee AND d.kind = a.kind AND d.object = a.object AND d.column_name = a.column_name AND d.privilege = a.privilege
			WHERE d.privilege IS NOT NULL
				OR a.grantee IN (SELECT r.oid FROM roles r)
				OR a.schema_name IN (SELECT s.schema_name FROM imgpipe.access_schemas s WHERE s.authoritative)
				OR (a.kind, a.object, a.column_name, a.privilege, a.grantee) IN (
					SELECT e.kind, e.object, e.column_name, e.privilege, coalesce(r.oid, 0) FROM imgpipe.access_exceptions e LEFT JOIN pg_roles r ON r.rolname = e.role_name
						WHERE e.until <= imgpipe.scheduler_clock() AND (r.oid IS NOT NULL OR e.role_name = 'public'))),
	granted AS MATERIALIZED (
		SELECT d.*, a.grantor IS NULL AS missing FROM declared d
			LEFT JOIN actual a ON a.grantee = d.role_oid AND a.kind = d.kind AND a.object = d.object AND a.column_name = d.column_name AND a.privilege = d.privilege
				AND a.grantor = a.owner),
	-- To revoke a privilege on a table is to revoke it on its columns.
	swept AS MATERIALIZED (SELECT DISTINCT j.object, j.grantee, j.privilege FROM judged j WHERE NOT j.wanted AND j.kind = 'table' AND j.column_name = '' AND j.grantor = j.owner)
	SELECT 'grant', g.kind, g.schema_name, g.object, g.column_name, g.role_oid, g.role_name, g.privilege, NULL::oid, g.owner,
			CASE WHEN g.missing THEN 'missing' ELSE 'goes with the table''s' END
		FROM granted g LEFT JOIN swept s ON g.column_name <> '' AND (s.object, s.grantee, s.privilege) = (g.object, g.role_oid, g.privilege)
		WHERE g.missing OR s.grantee IS NOT NULL
	UNION ALL
	SELECT CASE WHEN j.wanted AND j.grantor = j.owner THEN 'revoke grant option' ELSE 'revoke' END,
			j.kind, j.schema_name, j.object, j.column_name, j.grantee, CASE j.grantee WHEN 0 THEN 'public' ELSE pg_get_userbyid(j.grantee) END, j.privilege,
			nullif(j.grantor, j.owner), pg_get_userbyid(j.owner),
			CASE WHEN j.wanted AND j.grantor = j.owner THEN 'grant option'
				WHEN j.wanted THEN 'wrong grantor'
				WHEN j.partition THEN 'partition'
				WHEN j.grantee = 0 THEN 'PUBLIC'
				ELSE 'extra' END || CASE WHEN j.grantable AND NOT (j.wanted AND j.grantor = j.owner) THEN ', may grant it on' ELSE '' END
		FROM judged j
		WHERE NOT j.wanted OR j.grantor <> j.owner OR j.grantable
$$;
COMMENT ON FUNCTION imgpipe.access_changes(name) IS
'Each grant that is missing or too many, one row a role, object (of those that are alike one, see alike_objects()), column and privilege, before they are put together to statements. grantor: who granted it, where that is not the owner.';

CREATE FUNCTION imgpipe.default_changes(only_schema name DEFAULT NULL) RETURNS TABLE (
		change text, creator name, schema_name name, kind text, role_name name, privilege text, reason text)
	LANGUAGE sql STABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
	WITH wanted AS MATERIALIZED (
		SELECT DISTINCT c.creator, r.schema_name, r.kind, r.role_name, p.privilege
			FROM imgpipe.rules_in_use() r JOIN imgpipe.access_creators c ON c.schema_name = r.schema_name JOIN pg_roles o ON o.rolname = c.creator
				CROSS JOIN LATERAL unnest(r.privileges) p (privilege)
			WHERE r.future AND p.privilege = ANY (imgpipe.privileges_of(r.kind)) AND (only_schema IS NULL OR r.schema_name = only_schema)),
	present AS MATERIALIZED (
		SELECT pg_get_userbyid(d.defaclrole) AS creator, n.nspname AS schema_name,
				CASE d.defaclobjtype WHEN 'r' THEN 'table' WHEN 'S' THEN 'sequence' ELSE 'function' END AS kind,
				CASE a.grantee WHEN 0 THEN 'public' ELSE pg_get_userbyid(a.grantee) END AS role_name, a.privilege_type AS privilege
			FROM pg_default_acl d JOIN pg_namespace n ON n.oid = d.defaclnamespace CROSS JOIN LATERAL aclexplode(d.defaclacl) a
			WHERE n.nspname = ANY (imgpipe.managed_schemas(only_schema)) AND d.defaclobjtype IN ('r', 'S', 'f') AND a.grantee <> d.defaclrole)
	SELECT 'grant', w.creator, w.schema_name, w.kind, w.role_name, w.privilege, 'missing'
		FROM wanted w WHERE NOT EXISTS (SELECT FROM present p
			WHERE (p.creator, p.schema_name, p.kind, p.role_name, p.privilege) = (w.creator, w.schema_name, w.kind, w.role_name, w.privilege))
	UNION ALL
	SELECT 'revoke', p.creator, p.schema_name, p.kind, p.role_name, p.privilege, CASE p.role_name WHEN 'public' THEN 'PUBLIC' ELSE 'extra' END
		FROM present p
		WHERE NOT EXISTS (SELECT FROM wanted w
				WHERE (p.creator, p.schema_name, p.kind, p.role_name, p.privilege) = (w.creator, w.schema_name, w.kind, w.role_name, w.privilege))
			AND (p.role_name IN (SELECT t.role_name FROM imgpipe.access_teams t)
				OR p.schema_name IN (SELECT s.schema_name FROM imgpipe.access_schemas s WHERE s.authoritative))
$$;
COMMENT ON FUNCTION imgpipe.default_changes(name) IS
'Each default privilege, of a creator in a schema, that is missing or too many.';

CREATE FUNCTION imgpipe.membership_changes() RETURNS TABLE (change text, role_name name, member name, granted_by name, reason text)
	LANGUAGE sql STABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
	WITH teams AS MATERIALIZED (SELECT r.oid, r.rolname FROM imgpipe.access_teams t JOIN pg_roles r ON r.rolname = t.role_name),
	wanted AS MATERIALIZED (
		SELECT m.role_name, m.member FROM imgpipe.access_memberships m JOIN teams t ON t.rolname = m.role_name JOIN pg_roles r ON r.rolname = m.member
			WHERE coalesce(m.until, 'infinity') > imgpipe.scheduler_clock()),
	present AS MATERIALIZED (
		SELECT DISTINCT pg_get_userbyid(m.roleid) AS role_name, pg_get_userbyid(m.member) AS member,
				-- From PostgreSQL 16 on, a role can have been granted several times, and who makes one may administer it and has nothing else of it.
				CASE WHEN to_jsonb(m) ? 'inherit_option' THEN pg_get_userbyid(m.grantor) END AS granted_by
			FROM pg_auth_members m
			WHERE (m.roleid IN (SELECT t.oid FROM teams t) OR m.member IN (SELECT t.oid FROM teams t))
				AND (coalesce((to_jsonb(m) ->> 'inherit_option')::boolean, true) OR coalesce((to_jsonb(m) ->> 'set_option')::boolean, true)))
	SELECT 'grant', w.role_name, w.member, NULL::name, 'missing' FROM wanted w
		WHERE NOT EXISTS (SELECT FROM present p WHERE (p.role_name, p.member) = (w.role_name, w.member))
	UNION ALL
	SELECT 'revoke', p.role_name, p.member, p.granted_by,
			CASE WHEN EXISTS (SELECT FROM imgpipe.access_memberships m WHERE (m.role_name, m.member) = (p.role_name, p.member)) THEN 'expired' ELSE 'extra' END
		FROM present p WHERE NOT EXISTS (SELECT FROM wanted w WHERE (p.role_name, p.member) = (w.role_name, w.member))
$$;
COMMENT ON FUNCTION imgpipe.membership_changes() IS
'Each membership in a team, or of a team in another role, that is missing or too many.';

CREATE FUNCTION imgpipe.quoted_role(role_name name) RETURNS text
	LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
	RETURN CASE WHEN role_name OPERATOR(pg_catalog.=) 'public' THEN 'PUBLIC' ELSE pg_catalog.quote_ident(role_name) END;
COMMENT ON FUNCTION imgpipe.quoted_role(name) IS 'A role as GRANT takes it. No role can be called public.';

CREATE FUNCTION imgpipe.revoke_statement(kind text, privilege text, column_name name, object text, role_name name) RETURNS text
	LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT format('REVOKE %s%s ON %s %s FROM %s CASCADE', privilege, CASE WHEN column_name <> '' THEN format(' (%I)', column_name) ELSE '' END,
		CASE kind WHEN 'function' THEN 'ROUTINE' ELSE upper(kind) END, object, imgpipe.quoted_role(role_name))
$$;
COMMENT ON FUNCTION imgpipe.revoke_statement(text, text, name, text, name) IS
'The statement that revokes one privilege; object is quoted already.';

CREATE FUNCTION imgpipe.planned_statements(only_schema name DEFAULT NULL, only_role name DEFAULT NULL) RETURNS TABLE (
		phase integer, role_name name, takes text, statement text, reason text)
	LANGUAGE sql STABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
	SET jit = off
AS $$
	WITH changes AS MATERIALIZED (
		SELECT * FROM imgpipe.access_changes(only_schema) c
			WHERE (only_role IS NULL OR c.role_name = only_role)
				-- No statement can name a role that is gone; access_drift() says what can be done.
				AND (c.role_oid = 0 OR c.role_oid IN (SELECT r.oid FROM pg_roles r)) AND (c.grantor IS NULL OR c.grantor IN (SELECT r.oid FROM pg_roles r))),
	-- One privilege with its columns; then what one role gets on one object; then which roles get just that; then on which objects.
	privileges AS (
		SELECT c.change, c.kind, c.object, c.role_name, c.grantor, c.owner, c.reason,
				c.privilege || CASE c.column_name = '' WHEN true THEN '' ELSE format(' (%s)', string_agg(quote_ident(c.column_name), ', ' ORDER BY c.column_name)) END AS privilege
			FROM changes c GROUP BY c.change, c.kind, c.object, c.role_name, c.grantor, c.owner, c.reason, c.privilege, c.column_name = ''),
	of_roles AS (
		SELECT p.change, p.kind, p.object, p.role_name, p.grantor, p.owner, p.reason, string_agg(p.privilege, ', ' ORDER BY p.privilege) AS privileges
			FROM privileges p GROUP BY p.change, p.kind, p.object, p.role_name, p.grantor, p.owner, p.reason),
	of_objects AS (
		SELECT r.change, r.kind, r.object, r.grantor, r.owner, r.reason, r.privileges, string_agg(imgpipe.quoted_role(r.role_name), ', ' ORDER BY r.role_name) AS roles
			FROM of_roles r GROUP BY r.change, r.kind, r.object, r.grantor, r.owner, r.reason, r.privileges),
	chunks AS (
		SELECT o.change, o.kind, o.grantor, o.owner, o.reason, o.privileges, o.roles, x.object,
				(row_number() OVER (PARTITION BY o.change, o.kind, o.grantor, o.owner, o.reason, o.privileges, o.roles ORDER BY x.object) - 1) / 100 AS chunk
			FROM of_objects o LEFT JOIN imgpipe.alike_objects(only_schema) a ON a.kind = o.kind AND a.object = o.object
				CROSS JOIN LATERAL unnest(coalesce(a.objects, ARRAY[o.object])) x (object)),
	statements AS (
		SELECT CASE c.change WHEN 'grant' THEN 5 ELSE 4 END AS phase, coalesce(pg_get_userbyid(c.grantor), c.owner) AS role_name,
				CASE WHEN c.grantor IS NULL THEN 'rights' ELSE 'role' END AS takes,
				format('%s %s ON %s %s %s %s%s',
					CASE c.change WHEN 'grant' THEN 'GRANT' WHEN 'revoke' THEN 'REVOKE' ELSE 'REVOKE GRANT OPTION FOR' END, c.privileges,
					CASE c.kind WHEN 'function' THEN 'ROUTINE' ELSE upper(c.kind) END, string_agg(c.object, ', ' ORDER BY c.object),
					CASE c.change WHEN 'grant' THEN 'TO' ELSE 'FROM' END, c.roles,
					CASE WHEN c.change = 'revoke grant option' OR c.reason LIKE '%may grant it on' THEN ' CASCADE' ELSE '' END) AS statement, c.reason
			FROM chunks c GROUP BY c.change, c.kind, c.grantor, c.owner, c.reason, c.privileges, c.roles, c.chunk
		UNION ALL
		SELECT CASE v.change WHEN 'drop view' THEN 1 WHEN 'create schema' THEN 2 WHEN 'create view' THEN 3 ELSE 8 END, v.owner,
				CASE v.change WHEN 'create schema' THEN 'schema' ELSE 'role' END, v.definition, v.change
			FROM imgpipe.view_changes(only_schema) v WHERE only_role IS NULL OR v.schema_name = imgpipe.team_schema(v.base_schema, only_role)
		UNION ALL
		SELECT CASE d.change WHEN 'grant' THEN 6 ELSE 4 END, d.creator, 'rights', format('ALTER DEFAULT PRIVILEGES FOR ROLE %I IN SCHEMA %I %s %s ON %sS %s %s', d.creator, d.schema_name,
					upper(d.change), string_agg(d.privilege, ', ' ORDER BY d.privilege), upper(d.kind), CASE d.change WHEN 'grant' THEN 'TO' ELSE 'FROM' END, imgpipe.quoted_role(d.role_name)),
				'default privileges: ' || d.reason
			FROM imgpipe.default_changes(only_schema) d WHERE only_role IS NULL OR d.role_name = only_role
			GROUP BY d.change, d.creator, d.schema_name, d.kind, d.role_name, d.reason
		UNION ALL
		SELECT 7, coalesce(m.granted_by, m.role_name), CASE WHEN m.granted_by IS NULL THEN 'admin' ELSE 'rights' END, format(CASE m.change WHEN 'grant' THEN 'GRANT %I TO %I' ELSE 'REVOKE %I FROM %I' END, m.role_name, m.member) || coalesce(' GRANTED BY ' || quote_ident(m.granted_by), ''), 'membership: ' || m.reason
			FROM imgpipe.membership_changes() m WHERE only_schema IS NULL AND only_role IS NULL)
	SELECT * FROM statements
$$;
COMMENT ON FUNCTION imgpipe.planned_statements(name, name) IS
'What is to be done, as statements. phase: their order. takes: what of the role a statement takes: its rights, to run as that very role, to make a schema of its, or to say who is its member (admin). A superuser has it all.';

CREATE FUNCTION imgpipe.can_become(role_name name) RETURNS boolean
	LANGUAGE sql STABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
	-- From PostgreSQL 16 on, a member need not be able to.
	SELECT pg_has_role(role_name, CASE WHEN current_setting('server_version_num')::integer < 160000 THEN 'MEMBER' ELSE 'SET' END)
$$;
COMMENT ON FUNCTION imgpipe.can_become(name) IS 'Whether the caller may SET ROLE to a role.';

CREATE FUNCTION imgpipe.lacking(role_name name, takes text) RETURNS text
	LANGUAGE sql STABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT CASE takes
		-- What one has no rights of and may become, one has by becoming it.
		WHEN 'rights' THEN CASE WHEN NOT pg_has_role(role_name, 'USAGE') AND NOT imgpipe.can_become(role_name) THEN format('rights of %I', role_name) END
		WHEN 'role' THEN CASE WHEN NOT imgpipe.can_become(role_name) THEN format('SET ROLE %I', role_name) END
		WHEN 'schema' THEN nullif(concat_ws(', ', CASE WHEN NOT imgpipe.can_become(role_name) THEN format('SET ROLE %I', role_name) END,
			CASE WHEN NOT has_database_privilege(current_database(), 'CREATE') THEN format('CREATE ON DATABASE %I', current_database()) END), '')
		WHEN 'admin' THEN CASE WHEN NOT pg_has_role(role_name, 'MEMBER WITH ADMIN OPTION')
			AND NOT (current_setting('server_version_num')::integer < 160000 AND (SELECT r.rolcreaterole FROM pg_roles r WHERE r.rolname = current_user))
			THEN format('ADMIN OPTION FOR %I', role_name) END
	END
$$;
COMMENT ON FUNCTION imgpipe.lacking(name, text) IS
'What the caller has not of what a statement takes of a role, by planned_statements(); NULL where nothing is lacking.';

CREATE FUNCTION imgpipe.plan_access(only_schema name DEFAULT NULL, only_role name DEFAULT NULL) RETURNS TABLE (
		step bigint, statement text, reason text, set_role name, lacks text, hash text)
	LANGUAGE sql STABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
	WITH plan AS MATERIALIZED (
		SELECT row_number() OVER (ORDER BY p.phase, p.statement, p.role_name) AS step, p.* FROM imgpipe.planned_statements(only_schema, only_role) p)
	SELECT p.step, p.statement, p.reason,
			CASE WHEN p.role_name <> current_user AND (p.takes = 'role' OR (p.takes = 'rights' AND NOT pg_has_role(p.role_name, 'USAGE'))) THEN p.role_name END,
			imgpipe.lacking(p.role_name, p.takes),
			(SELECT encode(sha256(convert_to(string_agg(concat_ws(E'\n', h.role_name, h.statement), E';\n' ORDER BY h.step), 'UTF8')), 'hex') FROM plan h)
		FROM plan p ORDER BY p.step
$$;
COMMENT ON FUNCTION imgpipe.plan_access(name, name) IS
'The statements that make rights as declared, of one schema and the views of teams on it, of one role, or of all, memberships included; no rows where there is nothing to do. reason: missing, extra, wrong grantor, grant option, PUBLIC, partition, ... set_role: the role that apply_access() becomes for it; lacks: what the caller has not of what the statement takes, and who applies it must have. hash, the same in each row and for each caller, is what apply_access() wants. Changes nothing.';

CREATE FUNCTION imgpipe.run_statement(statement text, run_as name DEFAULT NULL) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	role_before CONSTANT text := current_setting('role');
BEGIN
	IF run_as IS NOT NULL THEN
		PERFORM set_config('role', run_as, true);
	END IF;
	EXECUTE statement;
	IF run_as IS NOT NULL THEN
		PERFORM set_config('role', role_before, true);
	END IF;
END
$$;
COMMENT ON FUNCTION imgpipe.run_statement(text, name) IS
'Executes a statement of a plan, as another role where it must. No more than the caller could do with SET ROLE.';

CREATE FUNCTION imgpipe.refuse_access(reason text, detail text, hint text, code text) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	RAISE LOG 'imgpipe access: refused, for "%": %', session_user, reason;
	RAISE EXCEPTION USING ERRCODE = code, MESSAGE = reason, DETAIL = detail, HINT = hint;
END
$$;
COMMENT ON FUNCTION imgpipe.refuse_access(text, text, text, text) IS
'Raises an error, and leaves a line in the server log that the rollback does not take away.';

CREATE FUNCTION imgpipe.execute_plan(plan jsonb, action text, role_name name DEFAULT NULL, detail text DEFAULT NULL) RETURNS integer
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	lacking record;
	base name;
	step record;
BEGIN
	SELECT string_agg(DISTINCT s.lacks, ', ') AS what, count(*) AS steps INTO lacking
		FROM jsonb_to_recordset(plan) s (lacks text) WHERE s.lacks IS NOT NULL;
	IF lacking.steps > 0 THEN
		PERFORM imgpipe.refuse_access(format('role "%s" cannot execute %s of %s statements', current_user, lacking.steps, jsonb_array_length(plan)),
			format('It lacks %s.', lacking.what),
			'Let a superuser or somebody who has this apply the plan, or apply only a schema that is yours: imgpipe.apply_access(hash, schema), with the hash of imgpipe.plan_access(schema).', '42501');
	END IF;
	FOR base IN SELECT DISTINCT v.base_schema FROM imgpipe.team_views() v
		WHERE position('imgpipe.mask_keys' IN v.definition) > 0 AND NOT EXISTS (SELECT FROM imgpipe.mask_keys k WHERE k.schema_name = v.base_schema)
	LOOP
		PERFORM imgpipe.new_mask_key(base);
	END LOOP;
	FOR step IN SELECT * FROM jsonb_to_recordset(plan) s (step integer, statement text, set_role name) ORDER BY s.step LOOP
		PERFORM imgpipe.run_statement(step.statement, step.set_role);
	END LOOP;
	-- What stands now is the measure of who changes a view later. Views that another plan would change stay as they were entered.
	-- (By the catalogs: the caller may have no USAGE on the schemas of others' views.)
	DELETE FROM imgpipe.access_views v WHERE NOT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE n.nspname = v.schema_name AND c.relname = v.view_name);
	INSERT INTO imgpipe.access_views AS v (schema_name, view_name, base_schema, definition, stored)
		SELECT w.schema_name, w.view_name, w.base_schema, w.definition, pg_get_viewdef(c.oid)
			FROM imgpipe.team_views() w JOIN jsonb_to_recordset(plan) s (statement text) ON s.statement = w.definition
				JOIN pg_namespace n ON n.nspname = w.schema_name JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = w.view_name
		ON CONFLICT ON CONSTRAINT access_views_pkey DO UPDATE SET definition = EXCLUDED.definition, stored = EXCLUDED.stored;
	PERFORM imgpipe.log_access(action, role_name, detail, ARRAY(SELECT s.statement FROM jsonb_to_recordset(plan) s (step integer, statement text) ORDER BY s.step));
	RETURN jsonb_array_length(plan);
END
$$;
COMMENT ON FUNCTION imgpipe.execute_plan(jsonb, text, name, text) IS
'Executes the rows of a plan and enters them in the log. Raises 42501 where some take what the caller has not.';

CREATE FUNCTION imgpipe.apply_access(hash text, only_schema name DEFAULT NULL) RETURNS integer
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	plan jsonb;
BEGIN
	PERFORM pg_advisory_xact_lock('imgpipe.access_teams'::regclass::oid::bigint);
	SELECT jsonb_agg(to_jsonb(p) ORDER BY p.step) INTO plan FROM imgpipe.plan_access(only_schema) p;
	IF plan IS NULL THEN
		RETURN 0;
	END IF;
	IF (plan -> 0 ->> 'hash') IS DISTINCT FROM hash THEN
		PERFORM imgpipe.refuse_access('the plan is not the one that was shown',
			format('Its hash is %s now, not %s: rights, objects or templates have changed.', plan -> 0 ->> 'hash', coalesce(hash, 'NULL')),
			'Look at SELECT * FROM imgpipe.plan_access(); and apply the hash that it shows.', '55000');
	END IF;
	RETURN imgpipe.execute_plan(plan, 'apply', NULL, concat('schema ' || quote_ident(only_schema) || ', ', 'hash ', hash));
END
$$;
COMMENT ON FUNCTION imgpipe.apply_access(text, name) IS
'Executes the plan with that hash, of one schema or of all, as plan_access() showed it, in the caller''s transaction and under a lock, and returns how many statements they were: 0 where there is nothing left to do. A grant that another role made is revoked as that role. Raises 55000 where the plan is another one by now, 42501 where it takes what the caller has not (it says what, and so does plan_access()), 2BP01 where somebody''s view stands on a team''s view that has to change.';

CREATE FUNCTION imgpipe.revoke_access(team name) RETURNS integer
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	plan jsonb;
BEGIN
	PERFORM imgpipe.check_team(team);
	PERFORM pg_advisory_xact_lock('imgpipe.access_teams'::regclass::oid::bigint);
	UPDATE imgpipe.access_teams t SET active = false WHERE t.role_name = revoke_access.team;
	SELECT jsonb_agg(to_jsonb(p) ORDER BY p.step) INTO plan FROM imgpipe.plan_access(NULL, team) p;
	RETURN imgpipe.execute_plan(coalesce(plan, '[]'), 'revoke access', team);
END
$$;
COMMENT ON FUNCTION imgpipe.revoke_access(name) IS
'Takes back, at once, all that a team role was granted in this database, with its views and default privileges, and returns how many statements it took. The role and its members stay, without rights; create_team_roles() makes the team active again. Raises 42704 for a team, 42501 as apply_access().';


/* What a role may do, and by which path; see src/access/.  Anybody may ask: the catalogs are open to all. */

CREATE FUNCTION imgpipe.access_object(object text, OUT kind text, OUT oid oid, OUT schema_name name, OUT identity text) RETURNS record
	LANGUAGE plpgsql STABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	IF object LIKE '%(%' THEN
		SELECT p.oid, n.nspname INTO access_object.oid, access_object.schema_name
			FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE p.oid = to_regprocedure(object);
	ELSE
		SELECT c.oid, n.nspname INTO access_object.oid, access_object.schema_name
			FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = to_regclass(object);
		IF NOT FOUND THEN
			SELECT p.oid, n.nspname INTO access_object.oid, access_object.schema_name
				FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE p.oid = to_regproc(object);
		END IF;
		IF NOT FOUND AND cardinality(parse_ident(object)) = 1 THEN
			SELECT n.oid, n.nspname INTO access_object.oid, access_object.schema_name
				FROM pg_namespace n WHERE n.oid = to_regnamespace(object);
		END IF;
	END IF;
	SELECT o.kind, o.object INTO access_object.kind, identity
		FROM imgpipe.access_objects(ARRAY[access_object.schema_name]) o WHERE o.oid = access_object.oid;
	IF access_object.kind IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'undefined_object',
			MESSAGE = format('object %s does not exist', coalesce('"' || object || '"', 'NULL')),
			HINT = 'Give a table, view or sequence as schema.name, a function as schema.name(types), or a schema by its name.';
	END IF;
END
$$;
COMMENT ON FUNCTION imgpipe.access_object(text) IS
'What is meant by a name: a table, view or sequence (schema.name), a function (schema.name(types), or schema.name where there is one of that name), or a schema. Raises 42704 where there is none.';

CREATE FUNCTION imgpipe.check_role(role_name name) RETURNS oid
	LANGUAGE plpgsql STABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	found_oid oid := (SELECT r.oid FROM pg_roles r WHERE r.rolname = role_name);
BEGIN
	IF found_oid IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'undefined_object',
			MESSAGE = format('role %s does not exist', coalesce('"' || role_name || '"', 'NULL')),
			HINT = 'SELECT rolname FROM pg_roles; shows those that do.';
	END IF;
	RETURN found_oid;
END
$$;
COMMENT ON FUNCTION imgpipe.check_role(name) IS 'The oid of a role. Raises 42704 where there is none.';

CREATE FUNCTION imgpipe.check_privilege(kind text, privilege text) RETURNS text
	LANGUAGE plpgsql STABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	IF (upper(privilege) = ANY (imgpipe.privileges_of(kind))) IS NOT TRUE THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
			MESSAGE = format('a %s has no privilege %s', kind, coalesce('"' || privilege || '"', 'NULL')),
			HINT = format('It has %s.', array_to_string(imgpipe.privileges_of(kind), ', '));
	END IF;
	RETURN upper(privilege);
END
$$;
COMMENT ON FUNCTION imgpipe.check_privilege(text, text) IS
'A privilege in capital letters. Raises 22023 where that kind of object has none of that name.';

CREATE FUNCTION imgpipe.can(role_name name, privilege text, object text, column_name name DEFAULT NULL) RETURNS boolean
	LANGUAGE plpgsql STABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	asked CONSTANT oid := imgpipe.check_role(role_name);
	target record;
BEGIN
	SELECT * INTO target FROM imgpipe.access_object(object);
	privilege := imgpipe.check_privilege(target.kind, privilege);
	IF column_name IS NOT NULL AND NOT EXISTS (
			SELECT FROM pg_attribute a WHERE target.kind = 'table' AND a.attrelid = target.oid AND a.attname = can.column_name AND a.attnum > 0 AND NOT a.attisdropped) THEN
		RAISE EXCEPTION USING ERRCODE = 'undefined_column',
			MESSAGE = format('%s has no column "%s"', target.identity, column_name),
			HINT = 'Only tables, views among them, have columns.';
	END IF;
	IF NOT has_schema_privilege(asked, quote_ident(target.schema_name)::regnamespace, CASE target.kind WHEN 'schema' THEN privilege ELSE 'USAGE' END) THEN
		RETURN false;
	END IF;
	RETURN CASE
		WHEN target.kind = 'schema' THEN true
		WHEN column_name IS NOT NULL AND privilege = ANY ('{SELECT,INSERT,UPDATE,REFERENCES}') THEN has_column_privilege(asked, target.oid, column_name::text, privilege)
		WHEN target.kind = 'table' THEN has_table_privilege(asked, target.oid, privilege)
		WHEN target.kind = 'sequence' THEN has_sequence_privilege(asked, target.oid, privilege)
		ELSE has_function_privilege(asked, target.oid, privilege) END;
END
$$;
COMMENT ON FUNCTION imgpipe.can(name, text, text, name) IS
'Whether a role can use a privilege on an object, or on a column of it, by whatever path, USAGE on its schema included: can(''alice'', ''UPDATE'', ''sales.transactions'', ''status''). Row-level security, which may hide rows, is not asked. object as for access_object(). Raises 42704 for a role or an object, 42703 for a column, 22023 for a privilege.';

CREATE FUNCTION imgpipe.roles_of(role_name name) RETURNS TABLE (oid oid, path text, inherits boolean)
	LANGUAGE sql STABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
	WITH RECURSIVE roles AS (
		SELECT r.oid, quote_ident(r.rolname) AS path, true AS inherits, ARRAY[r.oid] AS passed FROM pg_roles r WHERE r.rolname = role_name
		UNION ALL
		-- Before PostgreSQL 16 it is the member that inherits or not.
		SELECT m.roleid, p.path || ' > ' || quote_ident(pg_get_userbyid(m.roleid)),
				p.inherits AND coalesce((to_jsonb(m) ->> 'inherit_option')::boolean, (SELECT r.rolinherit FROM pg_roles r WHERE r.oid = m.member)), p.passed || m.roleid
			FROM roles p JOIN pg_auth_members m ON m.member = p.oid
			WHERE m.roleid <> ALL (p.passed)
				AND (coalesce((to_jsonb(m) ->> 'inherit_option')::boolean, true) OR coalesce((to_jsonb(m) ->> 'set_option')::boolean, true)))
	SELECT r.oid, r.path, r.inherits FROM roles r
$$;
COMMENT ON FUNCTION imgpipe.roles_of(name) IS
'The role itself and all that it is a member of, by each path. inherits: it has their rights without SET ROLE.';

CREATE FUNCTION imgpipe.explain_access(role_name name, object text) RETURNS TABLE (privilege text, column_name name, by text, path text, granted_by name, remark text)
	LANGUAGE plpgsql STABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
	asked CONSTANT oid := imgpipe.check_role(explain_access.role_name);
	target record;
	holder record;
BEGIN
	SELECT a.*, o.owner, o.acl, o.relkind, o.partition INTO target FROM imgpipe.access_object(explain_access.object) a
		JOIN LATERAL imgpipe.access_objects(ARRAY[a.schema_name]) o ON (o.kind, o.oid) = (a.kind, a.oid);
	RETURN QUERY
	WITH roles AS MATERIALIZED (SELECT * FROM imgpipe.roles_of(explain_access.role_name)
		UNION ALL SELECT 0, 'PUBLIC', true),
	grants AS (
		SELECT g.grantee, g.grantor, g.privilege_type, ''::name AS attname, g.is_grantable FROM aclexplode(target.acl) g
		UNION ALL
		SELECT g.grantee, g.grantor, g.privilege_type, c.attname, g.is_grantable
			FROM pg_attribute c CROSS JOIN LATERAL aclexplode(c.attacl) g WHERE target.kind = 'table' AND c.attrelid = target.oid AND NOT c.attisdropped)
	SELECT 'ALL', ''::name, 'superuser', r.path, NULL::name, CASE WHEN NOT r.inherits OR r.oid <> asked THEN 'after SET ROLE' END
		FROM roles r JOIN pg_roles p ON p.oid = r.oid WHERE p.rolsuper
	UNION ALL
	SELECT 'ALL', '', 'owner', r.path, NULL, CASE WHEN NOT r.inherits THEN 'after SET ROLE' END FROM roles r WHERE r.oid = target.owner
	UNION ALL
	SELECT g.privilege_type, g.attname, CASE WHEN r.oid = 0 THEN 'PUBLIC' WHEN r.oid = asked THEN 'grant' ELSE 'membership' END, r.path, pg_get_userbyid(g.grantor),
			nullif(concat_ws('; ', CASE WHEN NOT r.inherits THEN 'after SET ROLE' END, CASE WHEN g.is_grantable THEN 'may grant it on' END), '')
		FROM grants g JOIN roles r ON r.oid = g.grantee WHERE g.grantee <> target.owner
	UNION ALL
	SELECT v.privilege, '', 'predefined role', r.path, NULL, CASE WHEN NOT r.inherits THEN 'after SET ROLE' END
		FROM roles r JOIN pg_roles p ON p.oid = r.oid
			JOIN (VALUES ('pg_read_all_data', 'table', 'SELECT'), ('pg_read_all_data', 'sequence', 'SELECT'), ('pg_read_all_data', 'schema', 'USAGE'),
				('pg_write_all_data', 'table', 'INSERT'), ('pg_write_all_data', 'table', 'UPDATE'), ('pg_write_all_data', 'table', 'DELETE'),
				('pg_write_all_data', 'sequence', 'USAGE'), ('pg_write_all_data', 'sequence', 'UPDATE'), ('pg_write_all_data', 'schema', 'USAGE'),
				('pg_maintain', 'table', 'MAINTAIN')) v (role, kind, privilege) ON v.role = p.rolname AND v.kind = target.kind
	UNION ALL
	-- A view reads with the rights of its owner, unless it is a security_invoker.
	SELECT DISTINCT g.privilege_type, ''::name, 'view ' || d.name, r.path, pg_get_userbyid(g.grantor), 'what the view shows of it'
		FROM (SELECT DISTINCT c.oid, quote_ident(n.nspname) || '.' || quote_ident(c.relname) AS name, c.relowner, c.relnamespace, coalesce(c.relacl, acldefault('r', c.relowner)) AS acl
				FROM pg_depend x JOIN pg_rewrite w ON w.oid = x.objid JOIN pg_class c ON c.oid = w.ev_class JOIN pg_namespace n ON n.oid = c.relnamespace
				WHERE x.classid = 'pg_rewrite'::regclass AND x.refclassid = 'pg_class'::regclass AND x.refobjid = target.oid AND c.oid <> target.oid
					AND target.kind = 'table' AND (c.reloptions::text ~ 'security_invoker=(true|on|1|yes)') IS NOT TRUE) d
			CROSS JOIN LATERAL aclexplode(d.acl) g JOIN roles r ON r.oid = g.grantee
		WHERE g.grantee <> d.relowner AND g.privilege_type IN ('SELECT', 'INSERT', 'UPDATE', 'DELETE')
	UNION ALL
	SELECT 'none', '', 'schema', NULL, NULL, format('without USAGE on schema %I what is granted cannot be used', target.schema_name)
		WHERE target.kind <> 'schema' AND NOT has_schema_privilege(asked, quote_ident(target.schema_name)::regnamespace, 'USAGE')
	UNION ALL
	SELECT 'none', '', 'policies', NULL, NULL, 'row-level security: policies say which rows' || CASE WHEN (SELECT bool_or(p.rolbypassrls) FROM pg_roles p WHERE p.oid = asked) THEN '; the role has BYPASSRLS' ELSE '' END
		FROM pg_class c WHERE target.kind = 'table' AND c.oid = target.oid AND c.relrowsecurity
	ORDER BY 1, 2, 3, 4;
END
$$;
COMMENT ON FUNCTION imgpipe.explain_access(name, text) IS
'Every path by which a role has a privilege on an object: as a superuser or owner, by a grant to itself, to a role that it is a member of (path: the chain) or to PUBLIC, by a predefined role, or through a view that reads with its owner''s rights. granted_by: the grantor. Rows with privilege none say what stands in the way. What functions with SECURITY DEFINER do for their callers cannot be seen. object as for access_object(). Raises 42704 for a role or an object.';


/* Exceptions from the templates, and the end of what has one; see src/access/. */

CREATE FUNCTION imgpipe.allow_exception(role_name name, privilege text, object text, reason text, until timestamptz, column_name name DEFAULT NULL) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	target record;
BEGIN
	IF lower(role_name) = 'public' THEN
		role_name := 'public';
	ELSE
		PERFORM imgpipe.check_role(role_name);
	END IF;
	SELECT * INTO target FROM imgpipe.access_object(object);
	privilege := imgpipe.check_privilege(target.kind, privilege);
	IF column_name IS NOT NULL AND (target.kind <> 'table' OR privilege <> ALL ('{SELECT,INSERT,UPDATE,REFERENCES}') OR NOT EXISTS (
			SELECT FROM pg_attribute a WHERE a.attrelid = target.oid AND a.attname = allow_exception.column_name AND a.attnum > 0 AND NOT a.attisdropped)) THEN
		RAISE EXCEPTION USING ERRCODE = 'undefined_column',
			MESSAGE = format('%s has no column "%s" for %s', target.identity, column_name, privilege),
			HINT = 'SELECT, INSERT, UPDATE and REFERENCES on tables can be for columns.';
	END IF;
	IF (trim(reason) <> '' AND isfinite(until) AND until > imgpipe.scheduler_clock()) IS NOT TRUE THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
			MESSAGE = 'an exception needs a reason and an end in the future',
			DETAIL = format('They are %s and %s.', coalesce('"' || reason || '"', 'NULL'), coalesce(until::text, 'NULL')),
			HINT = 'What is to stay belongs in a template: see imgpipe.create_template() and add_rule().';
	END IF;
	INSERT INTO imgpipe.access_exceptions AS e (role_name, kind, schema_name, object, column_name, privilege, reason, until)
		VALUES (role_name, target.kind, target.schema_name, target.identity, coalesce(column_name, ''), privilege, reason, until)
		ON CONFLICT ON CONSTRAINT access_exceptions_pkey DO UPDATE
			SET reason = EXCLUDED.reason, until = EXCLUDED.until, allowed_by = EXCLUDED.allowed_by, allowed_at = EXCLUDED.allowed_at;
	PERFORM imgpipe.log_access('allow exception', role_name,
		format('%s on %s%s until %s: %s', privilege, target.identity, coalesce(' (' || quote_ident(column_name) || ')', ''), until, reason));
	PERFORM imgpipe.warn_of_no_end(format('the exception for "%s"', role_name));
END
$$;
COMMENT ON FUNCTION imgpipe.allow_exception(name, text, text, text, timestamptz, name) IS
'Declares a privilege of a role (or of public) on an object, or on a column, beside the templates, with a reason and until a time; called again, it changes both. Where it is granted already it now is no drift; where not, the next apply grants it. When the time has come end_expired_access() revokes it, which a job is to call (a warning says where there is none), or the next apply. object as for access_object(). Raises 42704 for a role or an object, 42703 for a column, 22023 for a privilege, or for no reason or no end.';

CREATE FUNCTION imgpipe.end_exception(role_name name, privilege text, object text, column_name name DEFAULT NULL) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	target record;
BEGIN
	SELECT * INTO target FROM imgpipe.access_object(object);
	-- The row stays until its grant is revoked: it says that the grant was ours.
	UPDATE imgpipe.access_exceptions e SET until = least(e.until, imgpipe.scheduler_clock())
		WHERE (e.role_name, e.kind, e.object, e.column_name, e.privilege)
			= (end_exception.role_name, target.kind, target.identity, coalesce(end_exception.column_name, ''), upper(end_exception.privilege));
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'undefined_object',
			MESSAGE = format('there is no such exception for %s', coalesce('"' || role_name || '"', 'NULL')),
			HINT = 'SELECT * FROM imgpipe.access_exceptions; shows those that there are.';
	END IF;
	PERFORM imgpipe.log_access('end exception', role_name, format('%s on %s', upper(privilege), target.identity));
END
$$;
COMMENT ON FUNCTION imgpipe.end_exception(name, text, text, name) IS
'Ends an exception now: the next apply, or end_expired_access(), revokes what it allowed. Raises 42704 where there is none.';

CREATE FUNCTION imgpipe.end_expired_access() RETURNS integer
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	clock CONSTANT timestamptz := imgpipe.scheduler_clock();
	membership imgpipe.access_memberships;
	plan jsonb;
	ended integer := 0;
	removed integer;
BEGIN
	PERFORM pg_advisory_xact_lock('imgpipe.access_teams'::regclass::oid::bigint);
	-- One that cannot be revoked, because another role has to, keeps no other from its end; it is tried again.
	FOR membership IN SELECT * FROM imgpipe.access_memberships m WHERE m.until <= clock FOR UPDATE LOOP
		BEGIN
			PERFORM imgpipe.revoke_membership(membership.role_name, membership.member);
			DELETE FROM imgpipe.access_memberships m WHERE (m.role_name, m.member) = (membership.role_name, membership.member);
			PERFORM imgpipe.log_access('membership ended', membership.role_name, format('%I, at %s', membership.member, membership.until));
			ended := ended + 1;
		EXCEPTION WHEN insufficient_privilege OR undefined_object THEN
			RAISE WARNING 'could not end the membership of "%" in "%": %', membership.member, membership.role_name, SQLERRM;
		END;
	END LOOP;
	IF EXISTS (SELECT FROM imgpipe.access_exceptions e WHERE e.until <= clock) THEN
		SELECT jsonb_agg(to_jsonb(p) ORDER BY p.step) INTO plan FROM (
			SELECT row_number() OVER () AS step, imgpipe.revoke_statement(c.kind, c.privilege, c.column_name, c.object, c.role_name) AS statement,
					pg_get_userbyid(c.grantor) AS set_role
				FROM imgpipe.access_changes() c
				WHERE c.change = 'revoke' AND EXISTS (SELECT FROM imgpipe.access_exceptions e WHERE e.until <= clock
					AND (e.role_name, e.kind, e.object, e.column_name, e.privilege) = (c.role_name, c.kind, c.object, c.column_name, c.privilege))) p;
		BEGIN
			PERFORM imgpipe.execute_plan(coalesce(plan, '[]'), 'exceptions ended');
			DELETE FROM imgpipe.access_exceptions e WHERE e.until <= clock;
			GET DIAGNOSTICS removed = ROW_COUNT;
			ended := ended + removed;
		EXCEPTION WHEN insufficient_privilege OR undefined_object THEN
			RAISE WARNING 'could not end exceptions: %', SQLERRM;
		END;
	END IF;
	RETURN ended;
END
$$;
COMMENT ON FUNCTION imgpipe.end_expired_access() IS
'Revokes the memberships and the exceptions whose time has come, and returns how many. For a job: SELECT imgpipe.schedule(''end_expired_access'', ''1 minute'', ''SELECT imgpipe.end_expired_access()''); which runs with the rights of who schedules it. A session that has set its role to a team''s keeps it until it ends.';


/*
 * Where rights are not as declared, and what a plan cannot mend; see
 * src/access/.  GRANT fires event triggers without saying on what, and a change
 * of membership fires none: drift is found by looking.
 */

CREATE FUNCTION imgpipe.forget_role(role oid, kind text, object text, column_name name) RETURNS text
	LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT format('No statement can name a role that is gone. As a superuser: UPDATE pg_catalog.%s SET %s = nullif(ARRAY(SELECT i FROM unnest(%2$s) i WHERE NOT EXISTS (SELECT FROM aclexplode(ARRAY[i]) e WHERE %s IN (e.grantee, e.grantor))), ''{}'') WHERE %s;',
		CASE WHEN column_name <> '' THEN 'pg_attribute' WHEN kind = 'schema' THEN 'pg_namespace' WHEN kind = 'function' THEN 'pg_proc' ELSE 'pg_class' END,
		CASE WHEN column_name <> '' THEN 'attacl' WHEN kind = 'schema' THEN 'nspacl' WHEN kind = 'function' THEN 'proacl' ELSE 'relacl' END,
		role,
		CASE WHEN column_name <> '' THEN format('attrelid = %L::regclass AND attname = %L', object, column_name)
			ELSE format('oid = %L::%s', object, CASE kind WHEN 'schema' THEN 'regnamespace' WHEN 'function' THEN 'regprocedure' ELSE 'regclass' END) END)
$$;
COMMENT ON FUNCTION imgpipe.forget_role(oid, text, text, name) IS
'What takes a role that is gone out of an access control list; GRANT at the same time as DROP ROLE can leave it there.';

CREATE FUNCTION imgpipe.access_drift(only_schema name DEFAULT NULL) RETURNS TABLE (
		kind text, object text, role_name name, privilege text, detail text, what_to_do text)
	LANGUAGE plpgsql STABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
	SET jit = off
	SET enable_nestloop = off
AS $$
#variable_conflict use_column
DECLARE
	apply CONSTANT text := 'Apply the plan.';
	managed CONSTANT name[] := imgpipe.managed_schemas(only_schema);
BEGIN
	-- What a plan mends.
	RETURN QUERY
	SELECT CASE WHEN c.change = 'grant' THEN 'missing' ELSE split_part(c.reason, ',', 1) END,
			o.object || CASE c.column_name WHEN '' THEN '' ELSE format(' (%I)', c.column_name) END,
			CASE WHEN c.role_oid = 0 OR g.oid IS NOT NULL THEN c.role_name ELSE format('dropped role %s', c.role_oid)::name END, c.privilege,
			nullif(concat_ws(', ', c.kind, CASE WHEN c.grantor IS NOT NULL THEN format('granted by %s', coalesce(quote_ident(r.rolname), format('the dropped role %s', c.grantor))) END,
				nullif(substr(c.reason, length(split_part(c.reason, ',', 1)) + 3), '')), ''),
			CASE WHEN c.grantor IS NOT NULL AND r.oid IS NULL THEN imgpipe.forget_role(c.grantor, c.kind, o.object, c.column_name)
				WHEN c.role_oid <> 0 AND g.oid IS NULL THEN imgpipe.forget_role(c.role_oid, c.kind, o.object, c.column_name)
				ELSE apply END
		FROM imgpipe.access_changes(only_schema) c LEFT JOIN pg_roles r ON r.oid = c.grantor LEFT JOIN pg_roles g ON g.oid = c.role_oid
			LEFT JOIN imgpipe.alike_objects(only_schema) a ON a.kind = c.kind AND a.object = c.object
			CROSS JOIN LATERAL unnest(coalesce(a.objects, ARRAY[c.object])) o (object)
		WHERE c.reason <> 'goes with the table''s';
	RETURN QUERY SELECT 'view', quote_ident(v.schema_name) || coalesce('.' || quote_ident(v.view_name), ''), NULL::name, NULL, v.change, apply FROM imgpipe.view_changes(only_schema) v;
	RETURN QUERY SELECT 'default privileges', format('%ss of %I in %I', d.kind, d.creator, d.schema_name), d.role_name, d.privilege, d.reason, apply FROM imgpipe.default_changes(only_schema) d;
	RETURN QUERY SELECT 'membership', quote_ident(m.role_name), m.member, NULL, m.reason, apply FROM imgpipe.membership_changes() m WHERE only_schema IS NULL;

	-- What it leaves alone: grants to others where templates do not decide alone.
	RETURN QUERY
	WITH beside AS MATERIALIZED (
		SELECT a.*, r.rolname FROM imgpipe.actual_rights(only_schema) a
			LEFT JOIN pg_roles r ON r.oid = a.grantee
			LEFT JOIN imgpipe.declared_rights(only_schema) d ON (d.role_oid, d.kind, d.object, d.column_name, d.privilege) = (a.grantee, a.kind, a.object, a.column_name, a.privilege)
			WHERE a.grantee <> a.owner AND d.privilege IS NULL
				-- What comes with an extension is as its author wanted it.
				AND NOT (a.as_shipped AND a.grantee = 0 AND a.kind = 'function')
				AND a.schema_name NOT IN (SELECT s.schema_name FROM imgpipe.access_schemas s WHERE s.authoritative)
				AND coalesce(r.rolname, '') NOT IN (SELECT t.role_name FROM imgpipe.access_teams t))
	SELECT CASE b.grantee WHEN 0 THEN 'PUBLIC' ELSE 'beside' END, o.object || CASE b.column_name WHEN '' THEN '' ELSE format(' (%I)', b.column_name) END,
			CASE b.grantee WHEN 0 THEN 'public' ELSE coalesce(b.rolname, format('dropped role %s', b.grantee)::name) END, b.privilege,
			CASE WHEN b.grantee IN (SELECT m.member FROM pg_auth_members m JOIN pg_roles t ON t.oid = m.roleid JOIN imgpipe.access_teams x ON x.role_name = t.rolname)
				THEN 'granted to a member of a team, and not by a template' ELSE 'granted, and not by a template' END,
			CASE WHEN b.rolname IS NULL AND b.grantee <> 0 THEN imgpipe.forget_role(b.grantee, b.kind, o.object, b.column_name)
				ELSE format('Revoke it, allow it with imgpipe.allow_exception(), or let templates decide alone: SELECT imgpipe.set_authoritative(%L);', b.schema_name) END
		FROM beside b CROSS JOIN LATERAL unnest(b.objects) o (object);

	-- Rights that no grant gives.
	RETURN QUERY
	WITH RECURSIVE people AS (
		SELECT r.oid, r.rolname AS team FROM imgpipe.access_teams t JOIN pg_roles r ON r.rolname = t.role_name
		UNION SELECT m.member, p.team FROM people p JOIN pg_auth_members m ON m.roleid = p.oid
			WHERE coalesce((to_jsonb(m) ->> 'inherit_option')::boolean, true) OR coalesce((to_jsonb(m) ->> 'set_option')::boolean, true)),
	persons AS MATERIALIZED (SELECT r.oid, r.rolname, string_agg(p.team, ', ' ORDER BY p.team) AS teams, bool_or(r.rolname = p.team) AS is_team,
			bool_or(r.rolsuper) AS super, bool_or(r.rolbypassrls) AS bypass, bool_or(r.rolcreaterole) AS createrole, bool_or(r.rolcanlogin) AS login
		FROM people p JOIN pg_roles r ON r.oid = p.oid GROUP BY r.oid, r.rolname)
	SELECT v.kind, quote_ident(p.rolname), p.rolname, v.attribute, 'in team ' || p.teams, format('ALTER ROLE %I NO%s;', p.rolname, v.attribute)
		FROM persons p CROSS JOIN LATERAL (VALUES ('superuser', 'SUPERUSER', p.super), ('BYPASSRLS', 'BYPASSRLS', p.bypass),
			('role attribute', 'CREATEROLE', p.createrole AND p.is_team), ('role attribute', 'LOGIN', p.login AND p.is_team)) v (kind, attribute, has)
		WHERE v.has AND only_schema IS NULL
	UNION ALL
	SELECT 'ownership', o.object, p.rolname, 'ALL', format('%s owned by a role in team %s', o.kind, p.teams),
			format('ALTER %s %s OWNER TO %I;', CASE o.kind WHEN 'function' THEN 'ROUTINE' ELSE upper(o.kind) END, o.object, pg_get_userbyid(n.nspowner))
		FROM imgpipe.access_objects(managed) o JOIN persons p ON p.oid = o.owner JOIN pg_namespace n ON n.nspname = o.schema_name;
	RETURN QUERY
	SELECT 'ownership', o.object, pg_get_userbyid(o.owner), 'ALL', format('not owned by the owner of the schema, %I: may grant and revoke on it', pg_get_userbyid(n.nspowner)),
			format('ALTER %s %s OWNER TO %I;', CASE o.kind WHEN 'function' THEN 'ROUTINE' ELSE upper(o.kind) END, o.object, pg_get_userbyid(n.nspowner))
		FROM imgpipe.access_objects(managed) o JOIN pg_namespace n ON n.nspname = o.schema_name
		WHERE o.owner <> n.nspowner;

	-- Row-level security, and functions that lend rights.
	RETURN QUERY
	SELECT DISTINCT 'policies', quote_ident(n.nspname) || '.' || quote_ident(c.relname), NULL::name, NULL, 'there are policies, and row-level security is not enabled',
			format('ALTER TABLE %I.%I ENABLE ROW LEVEL SECURITY;', n.nspname, c.relname)
		FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE n.nspname = ANY (managed) AND NOT c.relrowsecurity;
	RETURN QUERY
	SELECT 'EXECUTE', o.object, d.role_name, 'EXECUTE', 'SECURITY DEFINER without a search_path: the caller chooses what its names mean', format('ALTER ROUTINE %s SET search_path = pg_catalog, pg_temp;', o.object)
		FROM imgpipe.access_objects(managed) o JOIN pg_proc p ON p.oid = o.oid
			JOIN (SELECT x.object, r.role_name FROM imgpipe.declared_rights(only_schema) r JOIN imgpipe.alike_objects(only_schema) a ON a.kind = r.kind AND a.object = r.object
				CROSS JOIN LATERAL unnest(a.objects) x (object) WHERE r.kind = 'function') d ON d.object = o.object
		WHERE o.kind = 'function' AND p.prosecdef AND coalesce(p.proconfig::text, '') !~ 'search_path=';

	-- Templates that mean nothing here.
	RETURN QUERY
	SELECT 'no such role', quote_ident(t.role_name), t.role_name, NULL, format('team %s of %s', t.team, t.prefix),
			format('SELECT imgpipe.create_team_roles(%L, %L);', t.prefix, ARRAY[t.team])
		FROM imgpipe.access_teams t WHERE only_schema IS NULL AND NOT EXISTS (SELECT FROM pg_roles r WHERE r.rolname = t.role_name);
	RETURN QUERY
	SELECT 'no such object', quote_ident(r.schema_name) || '.' || r.object, r.role_name, array_to_string(r.privileges, ', '), format('rule %s of %s: there is no such %s', r.rule, r.template, r.kind),
			'Say what it is called here: names of imgpipe.use_template().'
		FROM imgpipe.rules_in_use() r
		WHERE (only_schema IS NULL OR r.schema_name = only_schema) AND r.object !~ '[*]'
			AND NOT EXISTS (SELECT FROM imgpipe.rule_matches(only_schema) m WHERE (m.role_oid, m.template, m.rule) = (r.role_oid, r.template, r.rule));
	RETURN QUERY
	SELECT 'no such column', m.object || format(' (%I)', c.name), m.role_name, array_to_string(m.privileges, ', '), format('rule %s of %s', m.rule, m.template),
			'Say what it is called here: names of imgpipe.use_template().'
		FROM imgpipe.rule_matches(only_schema) m CROSS JOIN LATERAL unnest(m.columns) c (name)
			LEFT JOIN pg_attribute a ON a.attrelid = m.oid AND a.attname = c.name AND a.attnum > 0 AND NOT a.attisdropped
		WHERE a.attname IS NULL;
	RETURN QUERY SELECT 'policies', v.base_object, v.role_name, array_to_string(v.privileges, ', '), 'no view for the team: ' || v.problem, 'Change the rule, or the table.'
		FROM imgpipe.team_views(only_schema) v WHERE v.problem IS NOT NULL;
	RETURN QUERY
	SELECT 'default privileges', quote_ident(s.name), NULL::name, NULL, 'rules with future are in use, and no creators are named: what is made later is missing until the next apply',
			format('SELECT imgpipe.name_creator(%L, ''role that makes objects there'');', s.name)
		FROM (SELECT DISTINCT r.schema_name FROM imgpipe.rules_in_use() r WHERE r.future) s (name)
		WHERE s.name = ANY (managed) AND NOT EXISTS (SELECT FROM imgpipe.access_creators c WHERE c.schema_name = s.name);
END
$$;
COMMENT ON FUNCTION imgpipe.access_drift(name) IS
'Where rights differ from what is declared, in one schema or in all, and what is to be done. Kinds that the plan mends: missing, extra, wrong grantor, grant option, PUBLIC and beside (in authoritative schemas), partition (granted directly, past its parent), view, default privileges, membership. Kinds that it does not: PUBLIC and beside where other grants are left alone; superuser, BYPASSRLS and role attribute of teams and their members; ownership; policies; EXECUTE of functions that lend rights carelessly; no such role, object or column. Tables are partitioned tables, views, materialized views and foreign tables, too. No rows: all is as declared.';


/* Who may do what, for people to read; see src/access/. */

CREATE FUNCTION imgpipe.access_report(only_schema name DEFAULT NULL) RETURNS TABLE (
		role_name name, kind text, object text, privilege text, columns text, state text)
	LANGUAGE sql STABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
	SET jit = off
	SET enable_nestloop = off
AS $$
	WITH teams AS MATERIALIZED (SELECT t.role_name, r.oid FROM imgpipe.access_teams t JOIN pg_roles r ON r.rolname = t.role_name),
	rights AS (
		SELECT coalesce(d.role_name, t.role_name) AS role_name, coalesce(d.kind, a.kind) AS kind, coalesce(d.object, a.object) AS object,
				coalesce(d.privilege, a.privilege) AS privilege, coalesce(d.column_name, a.column_name) AS column_name,
				CASE WHEN a.privilege IS NULL THEN 'missing' WHEN d.privilege IS NULL THEN 'extra' ELSE 'granted' END AS state
			FROM imgpipe.declared_access(only_schema) d
				FULL JOIN (SELECT DISTINCT o.kind, o.object, o.column_name, o.privilege, o.grantee FROM imgpipe.actual_access(only_schema) o
						WHERE o.grantee IN (SELECT t.oid FROM teams t)) a
					ON a.grantee = d.role_oid AND a.kind = d.kind AND a.object = d.object AND a.column_name = d.column_name AND a.privilege = d.privilege
				LEFT JOIN teams t ON t.oid = a.grantee
			WHERE t.oid IS NOT NULL OR d.role_oid IN (SELECT x.oid FROM teams x))
	SELECT r.role_name, r.kind, r.object, r.privilege, nullif(string_agg(nullif(r.column_name, ''), ', ' ORDER BY r.column_name), ''), r.state
		FROM rights r GROUP BY r.role_name, r.kind, r.object, r.privilege, r.state, r.column_name = ''
		ORDER BY r.role_name, r.object, r.privilege
$$;
COMMENT ON FUNCTION imgpipe.access_report(name) IS
'What each team may do, in one schema or in all: one row a team role, object and privilege, with the columns that it is for (NULL: all). state: granted; missing: declared, and not granted yet; extra: granted, and not declared.';

CREATE FUNCTION imgpipe.access_cells(only_schema name DEFAULT NULL) RETURNS TABLE (prefix text, team text, object text, cell text)
	LANGUAGE sql STABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT t.prefix, t.team, r.object, string_agg(l.letter || CASE WHEN r.columns IS NOT NULL THEN '*' ELSE '' END
			|| CASE r.state WHEN 'missing' THEN '?' WHEN 'extra' THEN '!' ELSE '' END, '' ORDER BY l.place)
		FROM imgpipe.access_report(only_schema) r JOIN imgpipe.access_teams t ON t.role_name = r.role_name
			JOIN unnest('{SELECT,INSERT,UPDATE,DELETE,TRUNCATE,REFERENCES,TRIGGER,MAINTAIN,EXECUTE,USAGE,CREATE}'::text[],
				'{r,a,w,d,D,x,t,m,X,U,C}'::text[]) WITH ORDINALITY l (privilege, letter, place) ON l.privilege = r.privilege
		GROUP BY t.prefix, t.team, r.object
$$;
COMMENT ON FUNCTION imgpipe.access_cells(name) IS
'access_report() with the privileges of one team on one object in a cell, as letters: those that psql has for them.';

CREATE FUNCTION imgpipe.access_report_text(only_schema name DEFAULT NULL, width integer DEFAULT 79) RETURNS SETOF text
	LANGUAGE plpgsql STABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	cells CONSTANT jsonb := (SELECT jsonb_agg(to_jsonb(c)) FROM imgpipe.access_cells(only_schema) c);
	of_prefix record;
	first integer;
	last integer;
	name_width integer;
	cell_widths integer[];
	line record;
	printed text;
BEGIN
	width := greatest(coalesce(width, 79), 40);
	FOR of_prefix IN
		SELECT c.prefix, array_agg(DISTINCT c.team ORDER BY c.team) AS teams, max(length(c.object)) AS longest
			FROM jsonb_to_recordset(cells) c (prefix text, team text, object text) GROUP BY c.prefix ORDER BY c.prefix
	LOOP
		name_width := least(of_prefix.longest, width / 2);
		cell_widths := ARRAY(SELECT least(greatest(length(t.team), max(length(c.cell))), width - name_width - 2)
			FROM unnest(of_prefix.teams) WITH ORDINALITY t (team, position) JOIN jsonb_to_recordset(cells) c (prefix text, team text, cell text)
				ON (c.prefix, c.team) = (of_prefix.prefix, t.team) GROUP BY t.team, t.position ORDER BY t.position);
		first := 1;
		WHILE first <= cardinality(of_prefix.teams) LOOP
			-- As many teams side by side as there is room for.
			last := first;
			WHILE last < cardinality(of_prefix.teams)
				AND name_width + (SELECT sum(w + 2) FROM unnest(cell_widths[first:last + 1]) w) <= width LOOP
				last := last + 1;
			END LOOP;
			FOR line IN
				SELECT 0 AS position, of_prefix.prefix AS name, '' COLLATE "C" AS sorted_by, of_prefix.teams[first:last] AS cells
				UNION ALL SELECT 1, repeat('-', name_width), '', ARRAY(SELECT repeat('-', w) FROM unnest(cell_widths[first:last]) w)
				UNION ALL SELECT 2, CASE WHEN length(o.name) > name_width THEN left(o.name, name_width / 2 - 3) || '...' || right(o.name, name_width - name_width / 2) ELSE o.name END, o.object COLLATE "C",
						ARRAY(SELECT coalesce((SELECT c.cell FROM jsonb_to_recordset(cells) c (prefix text, team text, object text, cell text)
									WHERE (c.prefix, c.team, c.object) = (of_prefix.prefix, t.team, o.object)), '')
								FROM unnest(of_prefix.teams[first:last]) WITH ORDINALITY t (team, position) ORDER BY t.position)
					FROM (SELECT DISTINCT c.object, CASE WHEN length(c.object) > name_width THEN regexp_replace(c.object, '\(.+\)$', '(...)') ELSE c.object END AS name FROM jsonb_to_recordset(cells) c (prefix text, team text, object text)
						WHERE c.prefix = of_prefix.prefix AND c.team = ANY (of_prefix.teams[first:last])) o
				ORDER BY position, sorted_by
			LOOP
				printed := rtrim(rpad(line.name, name_width) || (SELECT string_agg('  ' || rpad(c.cell, c.width), '' ORDER BY c.position)
					FROM unnest(line.cells, cell_widths[first:last]) WITH ORDINALITY c (cell, width, position)));
				RETURN NEXT printed;
			END LOOP;
			printed := '';
			RETURN NEXT printed;
			first := last + 1;
		END LOOP;
	END LOOP;
	RETURN QUERY VALUES ('r SELECT  a INSERT  w UPDATE  d DELETE'), ('D TRUNCATE  x REFERENCES  t TRIGGER'), ('m MAINTAIN  X EXECUTE  U USAGE  C CREATE'),
		('*: some columns  ?: not granted yet'), ('!: granted, and not declared');
END
$$;
COMMENT ON FUNCTION imgpipe.access_report_text(name, integer) IS
'The report as a table of objects and teams, in lines of at most width characters (40 or more), and what its letters mean. Long names are cut, first the types of arguments.';

CREATE FUNCTION imgpipe.html(value text) RETURNS text
	LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
	RETURN pg_catalog.replace(pg_catalog.replace(pg_catalog.replace(pg_catalog.replace(value, '&', '&amp;'), '<', '&lt;'), '>', '&gt;'), '"', '&quot;');
COMMENT ON FUNCTION imgpipe.html(text) IS 'A text as HTML shows it.';

CREATE FUNCTION imgpipe.access_report_html(only_schema name DEFAULT NULL) RETURNS text
	LANGUAGE sql STABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
	WITH cells AS MATERIALIZED (SELECT * FROM imgpipe.access_cells(only_schema)),
	teams AS (SELECT DISTINCT c.prefix, c.team FROM cells c),
	lines AS (
		SELECT o.prefix, o.object, string_agg('<td>' || imgpipe.html(coalesce(c.cell, '')) || '</td>', '' ORDER BY t.team) AS cells
			FROM (SELECT DISTINCT c.prefix, c.object FROM cells c) o JOIN teams t ON t.prefix = o.prefix
				LEFT JOIN cells c ON (c.prefix, c.team, c.object) = (o.prefix, t.team, o.object)
			GROUP BY o.prefix, o.object),
	tables AS (
		SELECT l.prefix, format(E'<h2>%s</h2>\n<table>\n<tr><th>object</th>%s</tr>\n%s\n</table>', imgpipe.html(l.prefix),
				(SELECT string_agg('<th>' || imgpipe.html(t.team) || '</th>', '' ORDER BY t.team) FROM teams t WHERE t.prefix = l.prefix),
				string_agg('<tr><th>' || imgpipe.html(l.object) || '</th>' || l.cells || '</tr>', E'\n' ORDER BY l.object)) AS html
			FROM lines l GROUP BY l.prefix)
	SELECT format(E'<!DOCTYPE html>\n<html lang="en">\n<head><meta charset="utf-8"><title>Access to %s</title>\n'
			'<style>body{font-family:sans-serif}table{border-collapse:collapse}th,td{border:1px solid #999;padding:.2em .6em;text-align:left}td{font-family:monospace}</style></head>\n'
			'<body>\n<h1>Access to %1$s</h1>\n<p>%s</p>\n%s\n<p>r SELECT, a INSERT, w UPDATE, d DELETE, D TRUNCATE, x REFERENCES, t TRIGGER, m MAINTAIN, X EXECUTE, U USAGE, C CREATE; '
			'* some columns, ? declared and not granted, ! granted and not declared.</p>\n</body>\n</html>\n',
			imgpipe.html(current_database()), imgpipe.html(to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI "UTC"')),
			coalesce((SELECT string_agg(t.html, E'\n' ORDER BY t.prefix) FROM tables t), '<p>No team has any.</p>'))
$$;
COMMENT ON FUNCTION imgpipe.access_report_html(name) IS
'The report as one HTML page that needs nothing else: \o access.html, then SELECT imgpipe.access_report_html(); with psql -At.';


CREATE FUNCTION imgpipe.tell_what_stays() RETURNS void
	LANGUAGE plpgsql STABLE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	schemas CONSTANT text := (SELECT string_agg(quote_ident(n.nspname), ', ' ORDER BY n.nspname) FROM pg_namespace n
		WHERE obj_description(n.oid, 'pg_namespace') LIKE 'Example shop, made by imgpipe.create_sales_schema().%' OR n.nspname IN (SELECT u.schema_name FROM imgpipe.access_uses u WHERE u.schema_name <> 'imgpipe'));
	roles CONSTANT text := (SELECT string_agg(quote_ident(t.role_name), ', ' ORDER BY t.role_name) FROM imgpipe.access_teams t JOIN pg_roles r ON r.rolname = t.role_name);
BEGIN
	IF schemas IS NOT NULL THEN
		RAISE NOTICE 'schemas that stay, with all that is in them: %', schemas;
	END IF;
	IF roles IS NOT NULL THEN
		RAISE NOTICE 'team roles that stay, with their members and what they were granted: %', roles;
	END IF;
END
$$;
COMMENT ON FUNCTION imgpipe.tell_what_stays() IS
'Notices of what DROP EXTENSION imgpipe leaves: sales schemas, schemas that templates are in use on, and team roles. DROP EXTENSION calls it, where the library is loaded.';
REVOKE EXECUTE ON FUNCTION imgpipe.tell_what_stays() FROM PUBLIC;


/* Who may administer access, and the audit by pgaudit. */

CREATE FUNCTION imgpipe.allow_access_administration(role_name name) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	PERFORM imgpipe.check_role(role_name);
	EXECUTE format('GRANT USAGE ON SCHEMA imgpipe TO %I', role_name);
	EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON imgpipe.access_templates, imgpipe.access_rules, imgpipe.template_masks, imgpipe.access_uses,
		imgpipe.access_schemas, imgpipe.access_creators, imgpipe.access_teams, imgpipe.access_memberships, imgpipe.access_exceptions, imgpipe.access_masks,
		imgpipe.access_views, imgpipe.mask_keys TO %I', role_name);
	EXECUTE format('GRANT SELECT, INSERT (action, role_name, detail, statements) ON imgpipe.access_log TO %I', role_name);
	-- The row-level security of jobs leaves it those of its own.
	EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON imgpipe.jobs TO %I', role_name);
	EXECUTE format('GRANT SELECT ON imgpipe.partitioned_tables, imgpipe.job_runs TO %I', role_name);
	PERFORM imgpipe.log_access('allow administration', role_name);
END
$$;
COMMENT ON FUNCTION imgpipe.allow_access_administration(name) IS
'Lets a role that is no superuser administer access: grants it what it needs in schema imgpipe. Beside that the role needs CREATEROLE, CREATE on the database for the schemas of teams'' views, and to own, or be a member of the owners of, what the templates are about. It can read the keys of the mask hash, and not change the log. Only the extension''s owner may call it.';
REVOKE EXECUTE ON FUNCTION imgpipe.allow_access_administration(name) FROM PUBLIC;

CREATE FUNCTION imgpipe.use_pgaudit(classes text DEFAULT 'role, ddl, write') RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	IF current_setting('pgaudit.log', true) IS NULL OR NOT EXISTS (SELECT FROM pg_available_extensions e WHERE e.name = 'pgaudit') THEN
		RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
			MESSAGE = 'pgaudit is not loaded',
			DETAIL = format('shared_preload_libraries is "%s".', current_setting('shared_preload_libraries')),
			HINT = 'Install it (Debian: postgresql-NN-pgaudit), add pgaudit to shared_preload_libraries and restart the server.';
	END IF;
	IF NOT EXISTS (SELECT FROM pg_extension e WHERE e.extname = 'pgaudit') THEN
		CREATE EXTENSION pgaudit SCHEMA public;
	END IF;
	EXECUTE format('ALTER DATABASE %I SET pgaudit.log = %L', current_database(), classes);
	EXECUTE format('ALTER DATABASE %I SET pgaudit.log_relation = on', current_database());
	EXECUTE format('ALTER DATABASE %I SET pgaudit.log_catalog = off', current_database());
	-- Values of INSERT are personal data, and the log outlives their purge.
	EXECUTE format('ALTER DATABASE %I SET pgaudit.log_parameter = off', current_database());
	PERFORM imgpipe.log_access('use pgaudit', NULL, classes);
END
$$;
COMMENT ON FUNCTION imgpipe.use_pgaudit(text) IS
'Sets pgaudit up for this database, where the server has it loaded: GRANT and membership (role), ddl and write statements of sessions that begin from now on go to the server log, with the tables that they are about and without parameters; what a statement has as literals is in its text. classes: as pgaudit.log takes them. Raises 55000 where pgaudit is not loaded, 42501 for who is no superuser.';
REVOKE EXECUTE ON FUNCTION imgpipe.use_pgaudit(text) FROM PUBLIC;


/* The templates that come with imgpipe; see src/access/.  The names are those of create_sales_schema() and of imgpipe's own tables. */

INSERT INTO imgpipe.access_templates (template, description, shipped) VALUES
	('strict', 'Sales: each team sees and changes what its work needs. Logistics checks orders off, analytics has masked views only, sales adds, updates and retires items.', true),
	('table_level', 'Sales, classical: logistics reads and updates orders, analytics reads, sales may also delete and truncate orders and products.', true),
	('item_level', 'Sales, classical: each team has its privileges on members, items, transactions and their items.', true),
	('read_for_all', 'Sales: every team reads everything, that of later, too; logistics updates orders, sales writes items.', true),
	('images', 'Image tables: uploaders see their own, analytics has masked facts, operators run sources and processors, auditors read ledger, grants and runs, workers own sources.', true),
	('item_pictures', 'Image tables, for the teams of a sales schema: logistics sees renditions and facts of pictures of its orders, sales uploads pictures and sees those of items.', true);

INSERT INTO imgpipe.access_rules (template, rule, team, place, kind, object, privileges, columns, masked, row_filter, future, shipped) VALUES
	('strict', 1, 'logistics', 'sales', 'table', 'sales_details', '{SELECT}', NULL, false, NULL, false, true),
	('strict', 2, 'logistics', 'sales', 'table', 'sale_items', '{SELECT}', '{transaction_id,created_at,status,item_id,name,quantity,weight,total_weight,image_id}', false, NULL, false, true),
	('strict', 3, 'logistics', 'sales', 'table', 'unfulfilled_orders_today', '{SELECT}', NULL, false, NULL, false, true),
	('strict', 4, 'logistics', 'sales', 'table', 'transactions', '{SELECT}', '{transaction_id,status,created_at,completed_at}', false, NULL, false, true),
	('strict', 5, 'logistics', 'sales', 'table', 'transactions', '{UPDATE}', '{status,completed_at}', false, NULL, false, true),
	('strict', 6, 'logistics', 'sales', 'function', 'complete_transaction', '{EXECUTE}', NULL, false, NULL, false, true),
	('strict', 7, 'analytics', 'sales', 'table', 'members', '{SELECT}', NULL, true, NULL, false, true),
	('strict', 8, 'analytics', 'sales', 'table', 'items', '{SELECT}', NULL, true, NULL, false, true),
	('strict', 9, 'analytics', 'sales', 'table', 'transactions', '{SELECT}', NULL, true, NULL, false, true),
	('strict', 10, 'analytics', 'sales', 'table', 'transaction_items', '{SELECT}', NULL, true, NULL, false, true),
	('strict', 11, 'analytics', 'sales', 'table', 'sale_items', '{SELECT}', NULL, true, NULL, false, true),
	('strict', 12, 'analytics', 'sales', 'table', 'sales_details', '{SELECT}', NULL, true, NULL, false, true),
	('strict', 13, 'analytics', 'sales', 'table', 'daily_sales', '{SELECT}', NULL, true, NULL, false, true),
	('strict', 14, 'analytics', 'sales', 'table', 'top_members', '{SELECT}', NULL, true, NULL, false, true),
	('strict', 15, 'analytics', 'sales', 'table', 'top_items', '{SELECT}', NULL, true, NULL, false, true),
	('strict', 16, 'analytics', 'sales', 'table', 'spending_by_membership_status', '{SELECT}', NULL, true, NULL, false, true),
	('strict', 17, 'sales', 'sales', 'table', 'items', '{SELECT,INSERT}', NULL, false, NULL, false, true),
	-- A new version of an item ends the one before it; nothing else of a version ever changes.
	('strict', 18, 'sales', 'sales', 'table', 'items', '{UPDATE}', '{validity}', false, NULL, false, true),
	('strict', 19, 'sales', 'sales', 'function', 'add_item', '{EXECUTE}', NULL, false, NULL, false, true),
	('strict', 20, 'sales', 'sales', 'function', 'update_item', '{EXECUTE}', NULL, false, NULL, false, true),
	('strict', 21, 'sales', 'sales', 'function', 'retire_item', '{EXECUTE}', NULL, false, NULL, false, true),
	('strict', 22, 'sales', 'sales', 'function', 'items_as_of', '{EXECUTE}', NULL, false, NULL, false, true),
	('strict', 23, 'sales', 'sales', 'table', 'top_items', '{SELECT}', NULL, false, NULL, false, true),

	('table_level', 1, 'logistics', 'sales', 'table', 'transactions', '{SELECT,UPDATE}', NULL, false, NULL, false, true),
	('table_level', 2, 'analytics', 'sales', 'table', 'transactions', '{SELECT}', NULL, false, NULL, false, true),
	('table_level', 3, 'analytics', 'sales', 'table', 'items', '{SELECT}', NULL, false, NULL, false, true),
	('table_level', 4, 'sales', 'sales', 'table', 'transactions', '{SELECT,UPDATE,DELETE,TRUNCATE}', NULL, false, NULL, false, true),
	('table_level', 5, 'sales', 'sales', 'table', 'items', '{SELECT,UPDATE,DELETE,TRUNCATE}', NULL, false, NULL, false, true),

	('item_level', 1, 'logistics', 'sales', 'table', 'items', '{SELECT}', NULL, false, NULL, false, true),
	('item_level', 2, 'logistics', 'sales', 'table', 'transaction_items', '{SELECT}', NULL, false, NULL, false, true),
	('item_level', 3, 'logistics', 'sales', 'table', 'transactions', '{SELECT,INSERT,UPDATE}', NULL, false, NULL, false, true),
	('item_level', 4, 'analytics', 'sales', 'table', 'members', '{SELECT}', NULL, false, NULL, false, true),
	('item_level', 5, 'analytics', 'sales', 'table', 'items', '{SELECT}', NULL, false, NULL, false, true),
	('item_level', 6, 'analytics', 'sales', 'table', 'transactions', '{SELECT}', NULL, false, NULL, false, true),
	('item_level', 7, 'analytics', 'sales', 'table', 'transaction_items', '{SELECT}', NULL, false, NULL, false, true),
	('item_level', 8, 'sales', 'sales', 'table', 'items', '{SELECT,INSERT,UPDATE,DELETE}', NULL, false, NULL, false, true),

	('read_for_all', 1, 'logistics', 'sales', 'table', '*', '{SELECT}', NULL, false, NULL, true, true),
	('read_for_all', 2, 'analytics', 'sales', 'table', '*', '{SELECT}', NULL, false, NULL, true, true),
	('read_for_all', 3, 'sales', 'sales', 'table', '*', '{SELECT}', NULL, false, NULL, true, true),
	('read_for_all', 4, 'logistics', 'sales', 'table', 'transactions', '{UPDATE}', NULL, false, NULL, false, true),
	('read_for_all', 5, 'logistics', 'sales', 'function', 'complete_transaction', '{EXECUTE}', NULL, false, NULL, false, true),
	('read_for_all', 6, 'sales', 'sales', 'table', 'items', '{INSERT,UPDATE}', NULL, false, NULL, false, true),
	('read_for_all', 7, 'sales', 'sales', 'function', 'add_item', '{EXECUTE}', NULL, false, NULL, false, true),
	('read_for_all', 8, 'sales', 'sales', 'function', 'update_item', '{EXECUTE}', NULL, false, NULL, false, true),
	('read_for_all', 9, 'sales', 'sales', 'function', 'retire_item', '{EXECUTE}', NULL, false, NULL, false, true),
	('read_for_all', 10, 'sales', 'sales', 'function', 'items_as_of', '{EXECUTE}', NULL, false, NULL, false, true),

	('images', 1, 'uploader', 'images', 'table', 'images', '{SELECT,INSERT}', '{image_id,content,source_key,batch_id,uploaded_by,received_at,headers,format,width,height,bytes}', false, 'own(uploaded_by)', false, true),
	('images', 2, 'analytics', 'images', 'table', 'images', '{SELECT}', '{image_id,source,source_key,source_timestamp,batch_id,uploaded_by,received_at,headers,format,width,height,bytes}', true, NULL, false, true),
	('images', 3, 'analytics', 'images', 'table', 'results', '{SELECT}', NULL, true, NULL, false, true),
	('images', 4, 'analytics', 'images', 'table', 'sealed_daily_volume', '{SELECT}', NULL, false, NULL, false, true),
	('images', 5, 'operator', 'images', 'table', 'sources', '{SELECT,INSERT,UPDATE,DELETE}', NULL, false, NULL, false, true),
	('images', 6, 'operator', 'images', 'table', 'processors', '{SELECT,INSERT,UPDATE,DELETE}', NULL, false, NULL, false, true),
	('images', 7, 'operator', 'images', 'table', 'jobs', '{SELECT,INSERT,UPDATE,DELETE}', NULL, false, NULL, false, true),
	('images', 8, 'operator', 'images', 'sequence', 'job_runs_run_id_seq', '{USAGE}', NULL, false, NULL, false, true),
	('images', 9, 'operator', 'images', 'table', 'job_runs', '{SELECT}', NULL, false, NULL, false, true),
	('images', 10, 'operator', 'images', 'table', 'job_status', '{SELECT}', NULL, false, NULL, false, true),
	('images', 11, 'operator', 'images', 'table', 'tasks', '{SELECT}', NULL, false, NULL, false, true),
	('images', 12, 'operator', 'images', 'table', 'source_status', '{SELECT}', NULL, false, NULL, false, true),
	('images', 13, 'operator', 'images', 'table', 'dead_letters', '{SELECT}', '{image_id,dead_letter_id,stage,source,source_partition,source_offset,processor,version,attempts,sqlstate,reason,created_at}', false, NULL, false, true),
	('images', 14, 'auditor', 'images', 'table', 'purge_ledger', '{SELECT}', NULL, false, NULL, false, true),
	('images', 15, 'auditor', 'images', 'table', 'access_*', '{SELECT}', NULL, false, NULL, false, true),
	('images', 16, 'auditor', 'images', 'table', 'template_masks', '{SELECT}', NULL, false, NULL, false, true),
	('images', 17, 'auditor', 'images', 'table', 'job_runs', '{SELECT}', NULL, false, NULL, false, true),
	('images', 18, 'worker', 'images', 'table', 'images', '{SELECT,INSERT}', NULL, false, NULL, false, true),
	('images', 19, 'worker', 'images', 'table', 'dead_letters', '{INSERT}', NULL, false, NULL, false, true),
	('images', 20, 'worker', 'images', 'table', 'sources', '{SELECT,INSERT,UPDATE,DELETE}', NULL, false, NULL, false, true),
	('images', 21, 'worker', 'images', 'table', 'processors', '{SELECT,INSERT,UPDATE,DELETE}', NULL, false, NULL, false, true),
	('images', 22, 'worker', 'images', 'table', 'processor_versions', '{SELECT,INSERT}', NULL, false, NULL, false, true),
	('images', 23, 'operator', 'images', 'table', 'processor_versions', '{SELECT,INSERT}', NULL, false, NULL, false, true),

	-- Its orders are those that strict shows it in sale_items.
	('item_pictures', 1, 'logistics', 'images', 'table', 'images', '{SELECT}', '{image_id,received_at,format,width,height,bytes}', false, 'referenced(image_id, sold_pictures.image_id)', false, true),
	('item_pictures', 2, 'logistics', 'images', 'table', 'renditions', '{SELECT}', NULL, false, 'referenced(image_id, sold_pictures.image_id)', false, true),
	('item_pictures', 3, 'sales', 'images', 'table', 'images', '{SELECT,INSERT}', '{image_id,content,uploaded_by,received_at,format,width,height,bytes}', false, 'own(uploaded_by)', false, true),
	('item_pictures', 4, 'sales', 'images', 'table', 'renditions', '{SELECT}', NULL, false, 'referenced(image_id, items.image_id)', false, true);

INSERT INTO imgpipe.template_masks (template, place, table_name, column_name, mask, shipped) VALUES
	-- A column that somebody adds to members is hidden until a mask says otherwise.
	('strict', 'sales', 'members', '*', 'hide', true),
	('strict', 'sales', 'members', 'member_id', 'none', true),
	('strict', 'sales', 'members', 'membership_status', 'none', true),
	('strict', 'sales', 'members', 'joined_at', 'none', true),
	('strict', 'sales', 'members', 'name', 'partial', true),
	('strict', 'sales', 'members', 'email', 'email', true),
	('strict', 'sales', 'members', 'phone', 'phone', true),
	('strict', 'sales', 'members', 'birth_date', 'year_of_birth', true),
	('strict', 'sales', 'members', 'city', 'none', true),
	('strict', 'sales', 'members', 'country', 'none', true),
	('strict', 'sales', 'members', 'latitude', 'coordinates', true),
	('strict', 'sales', 'members', 'longitude', 'coordinates', true),
	('strict', 'sales', 'items', 'cost', 'hide', true),
	('images', 'images', 'images', 'source_key', 'hide', true),
	('images', 'images', 'images', 'uploaded_by', 'hash', true),
	('images', 'images', 'images', 'headers', 'hide', true),
	('images', 'images', 'results', 'result', 'exif', true);

CREATE TRIGGER keep_shipped BEFORE INSERT OR UPDATE OR DELETE ON imgpipe.access_rules
	FOR EACH ROW EXECUTE FUNCTION imgpipe.keep_shipped();
CREATE TRIGGER keep_shipped BEFORE INSERT OR UPDATE OR DELETE ON imgpipe.template_masks
	FOR EACH ROW EXECUTE FUNCTION imgpipe.keep_shipped();
CREATE TRIGGER keep_shipped BEFORE INSERT OR UPDATE OR DELETE ON imgpipe.access_templates
	FOR EACH ROW EXECUTE FUNCTION imgpipe.keep_shipped();

/*
 * Last: partitions, so that an INSERT works from the first moment, with or
 * without workers.  Not while a dump is restored, which brings its own of all this: dumps
 * are the one place that runs with row_security off.  The partitions must not
 * belong to the extension, or they could never be dropped and would not be
 * dumped.
 */
DO $$
DECLARE
	partition regclass;
BEGIN
	IF pg_catalog.current_setting('row_security')::boolean THEN
		PERFORM imgpipe.create_partitions();
		FOR partition IN SELECT p.partition FROM imgpipe.partitions p LOOP
			EXECUTE pg_catalog.format('ALTER EXTENSION imgpipe DROP TABLE %s', partition);
		END LOOP;
		INSERT INTO imgpipe.installation DEFAULT VALUES;
		INSERT INTO imgpipe.purge_ledger_head DEFAULT VALUES;
		INSERT INTO imgpipe.erasure_secret DEFAULT VALUES;
	END IF;
	PERFORM imgpipe.wake_controller();
END
$$;
