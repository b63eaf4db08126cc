
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
