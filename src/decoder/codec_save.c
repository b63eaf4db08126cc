/*
 * codec_save.c
 *		From a finished canvas to bytes: the encoders and their table.
 *
 * To add one: write its function, add its line to encoders[].  Nothing but
 * pixels goes into an output: no EXIF, no profile (colours are sRGB or gray
 * by now), no thumbnail.
 */
#include <string.h>

#include "decoder/codec_internal.h"

#if VIPS_MAJOR_VERSION > 8 || (VIPS_MAJOR_VERSION == 8 && VIPS_MINOR_VERSION >= 15)
#define KEEP_NOTHING	"keep", VIPS_FOREIGN_KEEP_NONE
#else
#define KEEP_NOTHING	"strip", TRUE
#endif

/* The encoder where there is no step for it: step is NULL. */
typedef int (*Encoder) (VipsImage *image, const PipelineStep *step,
						void **bytes, size_t *length);

static int
argument(const PipelineStep *step, OperationId operation, int position)
{
	return (int) (step != NULL ? step_number(step, position) :
				  operations[operation].arguments[position].fallback);
}

static int
encode_jpeg(VipsImage *image, const PipelineStep *step, void **bytes, size_t *length)
{
	return vips_jpegsave_buffer(image, bytes, length,
								"Q", argument(step, OPERATION_JPEG, JPEG_QUALITY),
								KEEP_NOTHING, NULL);
}

static int
encode_png(VipsImage *image, const PipelineStep *step, void **bytes, size_t *length)
{
	return vips_pngsave_buffer(image, bytes, length,
							   "compression", argument(step, OPERATION_PNG, PNG_COMPRESSION),
							   KEEP_NOTHING, NULL);
}

/*
 * libvips 8.14.0 and 8.14.1 write EXIF and the rest into WebP even if told to
 * keep nothing.  Takes these chunks out in place: "RIFF" size "WEBP", then
 * chunks of name, size and bytes to an even length, the first of which,
 * "VP8X", has a bit for each of them.
 */
static void
drop_webp_metadata(unsigned char *webp, size_t *length)
{
	const unsigned char metadata_bits = 0x20 | 0x08 | 0x04; /* ICC, EXIF, XMP */
	size_t		kept = 12;
	size_t		next = 12;

	while (next + 8 <= *length)
	{
		unsigned char *chunk = webp + next;
		size_t		size = chunk[4] | chunk[5] << 8 | chunk[6] << 16 | (size_t) chunk[7] << 24;

		size = MIN(8 + size + size % 2, *length - next);
		next += size;
		if (memcmp(chunk, "EXIF", 4) == 0 || memcmp(chunk, "XMP ", 4) == 0 ||
			memcmp(chunk, "ICCP", 4) == 0)
			continue;
		if (memcmp(chunk, "VP8X", 4) == 0)
			chunk[8] &= ~metadata_bits;
		memmove(webp + kept, chunk, size);
		kept += size;
	}

	*length = kept;
	kept -= 8;
	webp[4] = kept;
	webp[5] = kept >> 8;
	webp[6] = kept >> 16;
	webp[7] = kept >> 24;
}

static int
encode_webp(VipsImage *image, const PipelineStep *step, void **bytes, size_t *length)
{
	int			failed = vips_webpsave_buffer(image, bytes, length,
											  "Q", argument(step, OPERATION_WEBP, WEBP_QUALITY),
											  KEEP_NOTHING, NULL);

	if (!failed)
		drop_webp_metadata(*bytes, length);
	return failed;
}

static int
encode_gif(VipsImage *image, const PipelineStep *step, void **bytes, size_t *length)
{
	(void) step;
	return vips_gifsave_buffer(image, bytes, length, KEEP_NOTHING, NULL);
}

static int
encode_tiff(VipsImage *image, const PipelineStep *step, void **bytes, size_t *length)
{
	(void) step;
	return vips_tiffsave_buffer(image, bytes, length,
								"compression", VIPS_FOREIGN_TIFF_COMPRESSION_DEFLATE,
								"predictor", VIPS_FOREIGN_TIFF_PREDICTOR_HORIZONTAL,
								KEEP_NOTHING, NULL);
}

static const struct
{
	Encoder		encode;
	const char *operation;		/* as libvips calls it */
	const char *class_name;
	int			longest_side;
	bool		alpha;			/* can the format hold it */
	bool		deep;			/* can it hold 16 bits */
}			encoders[IMAGE_FORMAT_LAST + 1] = {
	[IMAGE_FORMAT_JPEG] = {encode_jpeg, "jpegsave_buffer", "VipsForeignSaveJpeg", 65535, false, false},
	[IMAGE_FORMAT_PNG] = {encode_png, "pngsave_buffer", "VipsForeignSavePng", VIPS_MAX_COORD, true, true},
	[IMAGE_FORMAT_WEBP] = {encode_webp, "webpsave_buffer", "VipsForeignSaveWebp", 16383, true, false},
	[IMAGE_FORMAT_GIF] = {encode_gif, "gifsave_buffer", "VipsForeignSaveCgif", 65535, true, false},
	[IMAGE_FORMAT_TIFF] = {encode_tiff, "tiffsave_buffer", "VipsForeignSaveTiff", VIPS_MAX_COORD, true, true}
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
			vips_operation_block_set(encoders[format].class_name, FALSE);
	}
}

/*
 * What the pipeline asks for, or the input's own format.  HEIC and AVIF, which
 * are slow to write, become JPEG, or PNG where that would lose transparency.
 */
static ImageFormat
output_format(const Canvas *canvas, const PipelineStep *encoder)
{
	ImageFormat format = canvas->reply->facts.format;

	if (encoder != NULL)
	{
		switch (encoder->operation)
		{
			case OPERATION_JPEG:
				return IMAGE_FORMAT_JPEG;
			case OPERATION_PNG:
				return IMAGE_FORMAT_PNG;
			case OPERATION_WEBP:
				return IMAGE_FORMAT_WEBP;
			default:
				break;
		}
	}
	if (encoders[format].encode != NULL &&
		vips_type_find("VipsOperation", encoders[format].operation) != 0)
		return format;
	return vips_image_hasalpha(canvas->image) ? IMAGE_FORMAT_PNG : IMAGE_FORMAT_JPEG;
}

static bool
flatten_on_white(Canvas *canvas)
{
	VipsArrayDouble *white = vips_array_double_newv(1, 255.0);
	VipsImage  *flat = NULL;
	int			failed = vips_flatten(canvas->image, &flat, "background", white, NULL);

	vips_area_unref(VIPS_AREA(white));
	return codec_replace(canvas, &flat, failed, "could not flatten");
}

/* Computes the canvas into g_malloc'd bytes; encoder may be NULL. */
bool
codec_save(Canvas *canvas, const PipelineStep *encoder, void **bytes, size_t *length)
{
	ImageFormat format = output_format(canvas, encoder);
	int			width = vips_image_get_width(canvas->image);
	int			height = vips_image_get_height(canvas->image);

	if (!codec_check_limit(canvas->reply, DECODER_LIMIT_OUTPUT_PIXELS,
						   (uint64_t) width * height,
						   canvas->request->max_output_pixels))
		return false;
	if (vips_type_find("VipsOperation", encoders[format].operation) == 0)
		return codec_fail(canvas->reply, DECODER_UNSUPPORTED,
						  "libvips on this server cannot write %s images",
						  image_format_name(format));
	if (MAX(width, height) > encoders[format].longest_side)
		return codec_fail(canvas->reply, DECODER_INVALID_OPERATION,
						  "result of %dx%d is too large for %s, which ends at %d pixels a side",
						  width, height, image_format_name(format),
						  encoders[format].longest_side);

	if (!encoders[format].deep && !codec_to_eight_bits(canvas))
		return false;
	if (!encoders[format].alpha && vips_image_hasalpha(canvas->image) &&
		!flatten_on_white(canvas))
		return false;

	/* Here the pixels flow; a stream that breaks off is the input's fault. */
	if (encoders[format].encode(canvas->image, encoder, bytes, length) != 0)
		return codec_fail_libvips(canvas->reply,
								  canvas->streaming ? DECODER_CORRUPT : DECODER_FAILED,
								  canvas->streaming ? "invalid" : "could not encode");
	return true;
}
