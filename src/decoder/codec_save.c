/*
 * codec_save.c
 *		From a finished canvas to bytes: the encoders and their table.
 *
 * To add one: write its function, add its line to encoders[].  Without keep()
 * nothing but pixels goes into an output: no EXIF, no profile (colours are
 * sRGB or gray by now), no preview.
 */
#include <string.h>

#include "decoder/codec_internal.h"

/* The image is of a kind that the format holds; kept are its kinds of metadata. */
typedef int (*Encoder) (VipsImage *image, const PipelineStep *step, int kept,
						void **bytes, size_t *length);

static int
integer(const PipelineStep *step, int argument)
{
	return (int) step_number(step, argument);
}

static int
encode_jpeg(VipsImage *image, const PipelineStep *step, int kept, void **bytes, size_t *length)
{
	static const VipsForeignSubsample modes[] = {
		[CHROMA_AUTO] = VIPS_FOREIGN_SUBSAMPLE_AUTO,
		[CHROMA_FULL] = VIPS_FOREIGN_SUBSAMPLE_OFF,
		[CHROMA_HALF] = VIPS_FOREIGN_SUBSAMPLE_ON
	};

	return vips_jpegsave_buffer(image, bytes, length,
								"Q", integer(step, JPEG_QUALITY),
								"interlace", integer(step, JPEG_PROGRESSIVE),
								"subsample_mode", modes[integer(step, JPEG_CHROMA)],
								WRITE_METADATA(kept), NULL);
}

/* Bits of a palette's indexes: 1, 2, 4 or 8. */
static int
palette_bits(int colors)
{
	return colors > 16 ? 8 : colors > 4 ? 4 : colors > 2 ? 2 : 1;
}

static int
encode_png(VipsImage *image, const PipelineStep *step, int kept, void **bytes, size_t *length)
{
	int			compression = integer(step, PNG_COMPRESSION);
	int			interlace = integer(step, PNG_INTERLACE);

	if (integer(step, PNG_PALETTE))
		return vips_pngsave_buffer(image, bytes, length,
								   "compression", compression, "interlace", interlace,
								   "palette", TRUE,
								   "bitdepth", palette_bits(integer(step, PNG_COLORS)),
								   WRITE_METADATA(kept), NULL);
	return vips_pngsave_buffer(image, bytes, length,
							   "compression", compression, "interlace", interlace,
							   WRITE_METADATA(kept), NULL);
}

static int
encode_webp(VipsImage *image, const PipelineStep *step, int kept, void **bytes, size_t *length)
{
	return vips_webpsave_buffer(image, bytes, length,
								"Q", integer(step, WEBP_QUALITY),
								"lossless", integer(step, WEBP_LOSSLESS),
								"effort", integer(step, WEBP_EFFORT),
								WRITE_METADATA(kept), NULL);
}

static int
encode_avif(VipsImage *image, const PipelineStep *step, int kept, void **bytes, size_t *length)
{
	return vips_heifsave_buffer(image, bytes, length,
								"compression", VIPS_FOREIGN_HEIF_COMPRESSION_AV1,
								"Q", integer(step, AVIF_QUALITY),
								"lossless", integer(step, AVIF_LOSSLESS),
								"effort", integer(step, AVIF_EFFORT),
								WRITE_METADATA(kept), NULL);
}

static int
encode_gif(VipsImage *image, const PipelineStep *step, int kept, void **bytes, size_t *length)
{
	int			bits = 1;

	while (1 << bits < integer(step, GIF_COLORS))
		bits++;
	return vips_gifsave_buffer(image, bytes, length,
							   "bitdepth", bits,
							   "dither", step_number(step, GIF_DITHER),
							   "effort", integer(step, GIF_EFFORT),
							   WRITE_METADATA(kept), NULL);
}

static int
encode_tiff(VipsImage *image, const PipelineStep *step, int kept, void **bytes, size_t *length)
{
	static const VipsForeignTiffCompression compressions[] = {
		[TIFF_DEFLATE] = VIPS_FOREIGN_TIFF_COMPRESSION_DEFLATE,
		[TIFF_LZW] = VIPS_FOREIGN_TIFF_COMPRESSION_LZW,
		[TIFF_NONE] = VIPS_FOREIGN_TIFF_COMPRESSION_NONE,
		[TIFF_AS_JPEG] = VIPS_FOREIGN_TIFF_COMPRESSION_JPEG
	};

	return vips_tiffsave_buffer(image, bytes, length,
								"compression", compressions[integer(step, TIFF_COMPRESSION)],
								"Q", integer(step, TIFF_QUALITY),
								"predictor", VIPS_FOREIGN_TIFF_PREDICTOR_HORIZONTAL,
								WRITE_METADATA(kept), NULL);
}

/* Where the format sets no limit: libvips' own. */
#define LONGEST_SIDE	10000000

#define NONE	(-1)			/* no such argument */

static const struct
{
	Encoder		encode;
	OperationId operation;
	const char *saver;			/* as libvips calls it */
	int			longest_side;
	bool		alpha;			/* can the format hold it */
	bool		deep;			/* can it hold 16 bits */
	int			quality;		/* positions of these arguments, or NONE */
	int			max_bytes;
}			encoders[IMAGE_FORMAT_LAST + 1] = {
	[IMAGE_FORMAT_JPEG] = {
		encode_jpeg, OPERATION_JPEG, "jpegsave_buffer",
		65535, false, false, JPEG_QUALITY, JPEG_MAX_BYTES
	},
	[IMAGE_FORMAT_PNG] = {
		encode_png, OPERATION_PNG, "pngsave_buffer",
		LONGEST_SIDE, true, true, NONE, NONE
	},
	[IMAGE_FORMAT_WEBP] = {
		encode_webp, OPERATION_WEBP, "webpsave_buffer",
		16383, true, false, WEBP_QUALITY, WEBP_MAX_BYTES
	},
	[IMAGE_FORMAT_GIF] = {
		encode_gif, OPERATION_GIF, "gifsave_buffer",
		65535, true, false, NONE, NONE
	},
	[IMAGE_FORMAT_TIFF] = {
		encode_tiff, OPERATION_TIFF, "tiffsave_buffer",
		LONGEST_SIDE, true, true, NONE, NONE
	},
	[IMAGE_FORMAT_AVIF] = {
		encode_avif, OPERATION_AVIF, "heifsave_buffer",
		16384, true, false, AVIF_QUALITY, AVIF_MAX_BYTES
	}
};

/* Blocks every saver of libvips but ours. */
void
codec_allow_savers(void)
{
	int			format;

	vips_operation_block_set("VipsForeignSave", TRUE);
	for (format = 0; format <= IMAGE_FORMAT_LAST; format++)
	{
		if (encoders[format].encode != NULL)
			codec_allow_operation(encoders[format].saver);
	}
}

ImageFormat
codec_output_format(const Output *output)
{
	int			format;

	for (format = 0; format <= IMAGE_FORMAT_LAST; format++)
	{
		if (encoders[format].encode != NULL &&
			encoders[format].operation == output->encoder.operation)
			return (ImageFormat) format;
	}
	return IMAGE_FORMAT_UNKNOWN;
}

/*
 * The encoder that auto(), or no encoder, stands for: that of the input's
 * format.  HEIC, which nobody should have to write, becomes JPEG, and so does
 * what this libvips cannot write; or PNG, once it is known to be transparent.
 */
static bool
follow_input(Work *work, const PipelineStep *step, Output *output)
{
	ImageFormat format = work->reply->facts.format;
	PipelineStep *encoder = &output->encoder;
	PipelineValue *quality;

	if (encoders[format].encode == NULL ||
		vips_type_find("VipsOperation", encoders[format].saver) == 0)
	{
		format = IMAGE_FORMAT_JPEG;
		output->replaced = true;
	}
	pipeline_start_step(encoder, encoders[format].operation);
	if (step == NULL)
		return true;

	if (step_given(step, AUTO_MAX_BYTES))
	{
		if (encoders[format].max_bytes == NONE)
			return codec_fail(work->reply, DECODER_INVALID_OPERATION,
							  "format %s has no quality that max_bytes could lower",
							  image_format_name(format));
		encoder->values[encoders[format].max_bytes] = step->values[AUTO_MAX_BYTES];
	}
	if (step_given(step, AUTO_QUALITY) && encoders[format].quality != NONE)
	{
		quality = &encoder->values[encoders[format].quality];
		*quality = step->values[AUTO_QUALITY];
	}
	return true;
}

/* What a pipeline says of its output as a whole, once the input's facts are known. */
bool
codec_plan_output(Work *work, const Pipeline *pipeline, Output *output)
{
	const PipelineStep *encoder = NULL;
	int			i;

	output->pipeline = pipeline;
	output->upright = true;
	for (i = 0; i < pipeline->n_steps; i++)
	{
		const PipelineStep *step = &pipeline->steps[i];

		if (operations[step->operation].kind == OPERATION_ENCODER)
			encoder = step;
		else if (step->operation == OPERATION_AUTOROTATE)
			output->upright = step_number(step, AUTOROTATE_ENABLED) != 0;
		else if (step->operation == OPERATION_KEEP)
		{
			output->kept = (KeptMetadata) step_number(step, KEEP_METADATA);
			output->keep_gps = step_number(step, KEEP_GPS) != 0;
		}
	}
	if (encoder == NULL || encoder->operation == OPERATION_AUTO)
	{
		if (!follow_input(work, encoder, output))
			return false;
	}
	else
		output->encoder = *encoder;
	return codec_plan_pages(work, output);
}

/* Brings the canvas to what the format can hold. */
static bool
fit_format(Canvas *canvas, ImageFormat format)
{
	const PipelineStep *encoder = &canvas->output->encoder;
	bool		as_jpeg = format == IMAGE_FORMAT_TIFF &&
		step_number(encoder, TIFF_COMPRESSION) == TIFF_AS_JPEG;
	int			width = vips_image_get_width(canvas->image);
	int			height = vips_image_get_page_height(canvas->image);

	if (vips_type_find("VipsOperation", encoders[format].saver) == 0)
		return codec_fail(canvas->reply, DECODER_UNSUPPORTED,
						  "libvips on this server cannot write %s images",
						  image_format_name(format));
	if (MAX(width, height) > encoders[format].longest_side)
		return codec_fail(canvas->reply, DECODER_INVALID_OPERATION,
						  "result of %dx%d is too large for %s, which ends at %d pixels a side",
						  width, height, image_format_name(format),
						  encoders[format].longest_side);
	return (encoders[format].deep && !as_jpeg ? true :
			codec_convert_colors(canvas, vips_image_get_bands(canvas->image) >= 3, false)) &&
		(encoders[format].alpha && !as_jpeg ? true :
		 codec_flatten_on(canvas, 0xFFFFFFFF));
}

/* Here the pixels flow; a stream that breaks off is the input's fault. */
static bool
encode(Canvas *canvas, ImageFormat format, const PipelineStep *step, int kept,
	   void **bytes, size_t *length)
{
	if (encoders[format].encode(canvas->image, step, kept, bytes, length) != 0)
		return codec_fail_libvips(canvas->reply,
								  canvas->streaming ? DECODER_CORRUPT : DECODER_FAILED,
								  canvas->streaming ? "invalid" : "could not encode");
	codec_metadata_written(format, kept, *bytes, length);
	return true;
}

/*
 * Encodes at the best quality, up to that of the step, whose result has at
 * most max_bytes.  Sizes grow with quality, near enough, so it is looked for
 * by halves: what is returned has been encoded and does fit.
 */
static bool
encode_to_fit(Canvas *canvas, ImageFormat format, PipelineStep *step, int kept,
			  size_t max_bytes, void **bytes, size_t *length)
{
	double	   *quality = &step->values[encoders[format].quality].number;
	int			low = 1;
	int			high = (int) *quality;
	void	   *best = NULL;
	size_t		best_length = 0;
	size_t		smallest = 0;
	bool		done = true;

	/* Computed once for all attempts; the first is what was asked for. */
	if (!codec_compute(canvas))
		return false;
	while (low <= high)
	{
		done = encode(canvas, format, step, kept, bytes, length);
		if (!done)
			break;
		if (*length <= max_bytes)
		{
			g_free(best);
			best = *bytes;
			best_length = *length;
			low = (int) *quality + 1;
		}
		else
		{
			smallest = *length;
			g_free(*bytes);
			high = (int) *quality - 1;
		}
		*quality = (low + high) / 2;
	}
	if (done && best == NULL)
		done = codec_fail(canvas->reply, DECODER_INVALID_OPERATION,
						  "result has %" G_GSIZE_FORMAT " bytes even at quality 1, over max_bytes=%" G_GSIZE_FORMAT,
						  smallest, max_bytes);
	if (!done)
		g_clear_pointer(&best, g_free);
	*bytes = best;
	*length = best_length;
	return done;
}

/* Computes the canvas into g_malloc'd bytes. */
bool
codec_save(Canvas *canvas, void **bytes, size_t *length)
{
	Output	   *output = canvas->output;
	ImageFormat format;
	int			max_bytes;
	int			kept;

	if (output->replaced && vips_image_hasalpha(canvas->image))
		pipeline_start_step(&output->encoder, OPERATION_PNG);
	format = codec_output_format(output);
	max_bytes = encoders[format].max_bytes;

	if (!codec_check_size(canvas, vips_image_get_width(canvas->image),
						  vips_image_get_height(canvas->image)) ||
		!fit_format(canvas, format) || !codec_drop_metadata(canvas, &kept))
		return false;
	/* These savers take all of it before they begin, and leak where it breaks off. */
	if ((format == IMAGE_FORMAT_WEBP || format == IMAGE_FORMAT_AVIF) && !codec_need_random_access(canvas))
		return false;
	if (max_bytes != NONE && step_given(&output->encoder, max_bytes))
		return encode_to_fit(canvas, format, &output->encoder, kept,
							 (size_t) step_number(&output->encoder, max_bytes), bytes, length);
	return encode(canvas, format, &output->encoder, kept, bytes, length);
}
