
/* Work on images, done in the decoder; see src/decoder/. */

CREATE FUNCTION imgpipe.process_image(content imgpipe.image, pipeline imgpipe.pipeline) RETURNS imgpipe.image
	AS 'MODULE_PATHNAME', 'imgpipe_process_image'
	LANGUAGE C STABLE STRICT PARALLEL SAFE COST 100000;
COMMENT ON FUNCTION imgpipe.process_image(imgpipe.image, imgpipe.pipeline) IS
'The image that the pipeline makes of this one, EXIF orientation applied first. Raises 22P03 for a damaged image, 22023 where a step does not fit the image, 54000 over a limit (imgpipe.max_output_megapixels, decoder_timeout, decoder_memory_limit), 58000 when the decoder stopped. STABLE: another libvips version makes other bytes.';

CREATE FUNCTION imgpipe.process_image(content imgpipe.image, pipelines imgpipe.pipeline[]) RETURNS imgpipe.image[]
	AS 'MODULE_PATHNAME', 'imgpipe_process_image_array'
	LANGUAGE C STABLE STRICT PARALLEL SAFE COST 100000;
COMMENT ON FUNCTION imgpipe.process_image(imgpipe.image, imgpipe.pipeline[]) IS
'One image for each pipeline (at most 64), in their order, from one decode. Errors as of process_image(image, pipeline).';

CREATE FUNCTION imgpipe.decoder_sandbox(OUT attempt text, OUT refused boolean, OUT error text) RETURNS SETOF record
	AS 'MODULE_PATHNAME', 'imgpipe_decoder_sandbox'
	LANGUAGE C VOLATILE STRICT PARALLEL RESTRICTED;
COMMENT ON FUNCTION imgpipe.decoder_sandbox() IS
'What this session''s image decoder is refused when it tries to open a file, make a socket or execute a program: one row an attempt. refused is true throughout where the sandbox holds.';

