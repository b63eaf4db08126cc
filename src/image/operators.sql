
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
