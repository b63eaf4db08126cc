
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

