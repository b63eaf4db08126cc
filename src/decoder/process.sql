
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

