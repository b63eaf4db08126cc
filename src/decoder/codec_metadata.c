/*
 * codec_metadata.c
 *		What an image says of itself beside its pixels, and whether all of its
 *		pixels can be had.
 */
#include <string.h>

#include "decoder/codec_internal.h"
#include "decoder/metadata.h"

static void
put_output(const CodecJob *job, DecoderReply *reply, const void *bytes, size_t length)
{
	if (!job->write(bytes, length))
	{
		codec_fail(reply, DECODER_OUT_OF_MEMORY, "no room for the result");
		return;
	}
	reply->n_outputs = 1;
	reply->output_length[0] = length;
}

static void
put_json(const CodecJob *job, DecoderReply *reply, const void *bytes, size_t length)
{
	char	   *text = g_malloc(METADATA_JSON_SIZE);
	JsonWriter	json;
	bool		found;

	json_start(&json, text, METADATA_JSON_SIZE);
	if (job->request->operation == DECODER_EXIF)
		found = exif_to_json(bytes, length, reply->facts.format == IMAGE_FORMAT_TIFF, &json);
	else
		found = iptc_to_json(bytes, length, &json);
	if (found)
		put_output(job, reply, json.text, json.length);
	g_free(text);
}

static void
put_text(const CodecJob *job, DecoderReply *reply, const char *bytes, size_t length)
{
	char	   *text;

	while (length > 0 && bytes[length - 1] == '\0')
		length--;
	if (length == 0)
		return;
	text = g_malloc(3 * length);
	put_output(job, reply, text, utf8_clean((const uint8_t *) bytes, length, text));
	g_free(text);
}

void
codec_metadata(const CodecJob *job, DecoderReply *reply)
{
	static const char *const fields[] = {
		[DECODER_EXIF] = VIPS_META_EXIF_NAME,
		[DECODER_IPTC] = VIPS_META_IPTC_NAME,
		[DECODER_XMP] = VIPS_META_XMP_NAME,
		[DECODER_ICC_PROFILE] = VIPS_META_ICC_NAME
	};
	int			operation = job->request->operation;
	VipsImage  *image;
	const void *bytes = NULL;
	size_t		length = 0;

	if (!codec_read_header(job, reply, &image))
		return;

	if (operation == DECODER_EXIF && reply->facts.format == IMAGE_FORMAT_TIFF)
	{
		/* EXIF is a TIFF file within another file, and a TIFF file needs none. */
		bytes = job->inputs[0].bytes;
		length = job->inputs[0].length;
	}
	else if (vips_image_get_typeof(image, fields[operation]) == 0 ||
			 vips_image_get_blob(image, fields[operation], &bytes, &length) != 0)
		length = 0;

	if (length > 0 && (operation == DECODER_EXIF || operation == DECODER_IPTC))
		put_json(job, reply, bytes, length);
	else if (length > DECODER_MAX_METADATA)
	{
		reply->limit = DECODER_LIMIT_METADATA;
		reply->value = length;
		codec_fail(reply, DECODER_LIMIT, "too much metadata");
	}
	else if (length > 0 && operation == DECODER_XMP)
		put_text(job, reply, bytes, length);
	else if (length > 0)
		put_output(job, reply, bytes, length);
	g_object_unref(image);
	vips_error_clear();
}

/*
 * Opens n pages from one on, n = -1 for all.  libjpeg only warns where it
 * finds damaged data and goes on with something else.
 */
static int
open_pages(const CodecBytes *input, ImageFormat format, int page, int n, VipsImage **image)
{
	void	   *bytes = (void *) input->bytes;

#define OPTIONS(level)	"access", VIPS_ACCESS_SEQUENTIAL, "fail_on", level
#define PAGES			"page", page, "n", n
	switch (format)
	{
		case IMAGE_FORMAT_JPEG:
			return vips_jpegload_buffer(bytes, input->length, image, OPTIONS(VIPS_FAIL_ON_WARNING), NULL);
		case IMAGE_FORMAT_PNG:
			return vips_pngload_buffer(bytes, input->length, image, OPTIONS(VIPS_FAIL_ON_ERROR), NULL);
		case IMAGE_FORMAT_WEBP:
			return vips_webpload_buffer(bytes, input->length, image, OPTIONS(VIPS_FAIL_ON_ERROR), PAGES, NULL);
		case IMAGE_FORMAT_GIF:
			return vips_gifload_buffer(bytes, input->length, image, OPTIONS(VIPS_FAIL_ON_ERROR), PAGES, NULL);
		case IMAGE_FORMAT_TIFF:
			return vips_tiffload_buffer(bytes, input->length, image, OPTIONS(VIPS_FAIL_ON_ERROR), PAGES, NULL);
		default:
			return vips_heifload_buffer(bytes, input->length, image, OPTIONS(VIPS_FAIL_ON_ERROR), PAGES,
										"unlimited", TRUE, NULL);
	}
#undef OPTIONS
#undef PAGES
}

/*
 * Whether a GIF ends where one of its blocks does.  libvips takes an animation
 * that was cut short for a shorter one.
 */
static bool
gif_is_whole(const CodecBytes *input)
{
	const uint8_t *next = (const uint8_t *) input->bytes;
	const uint8_t *end = next + input->length;
	const size_t screen = 13;
	const size_t descriptor = 10;

	/* Bit 7 says that there are colours, the last three bits how many. */
#define COLORS(flags)	((flags) & 0x80 ? (size_t) 3 << (((flags) & 7) + 1) : 0)
#define LEFT			((size_t) (end - next))
	if (LEFT < screen || LEFT < screen + COLORS(next[10]))
		return false;
	next += screen + COLORS(next[10]);
	while (next < end && *next != ';')
	{
		size_t		head;

		if (*next == '!')
			head = 2;
		else if (*next == ',' && LEFT >= descriptor)
			head = descriptor + COLORS(next[9]) + 1;
		else
			return false;
		/* Then blocks with their length before them, up to an empty one. */
		for (; LEFT > head && next[head] != 0; head = 0)
			next += head + 1 + MIN(next[head], LEFT - head - 1);
		if (LEFT <= head)
			return false;
		next += head + 1;
	}
#undef COLORS
#undef LEFT
	return true;
}

static int
discard(VipsRegion *region, void *sequence, void *a, void *b, gboolean *stop)
{
	(void) region;
	(void) sequence;
	(void) a;
	(void) b;
	(void) stop;
	return 0;
}

void
codec_verify(const CodecJob *job, DecoderReply *reply)
{
	ImageFormat format;
	uint64_t	pixels = 0;
	VipsImage  *image;
	uint32_t	page;

	if (!codec_read_header(job, reply, &image))
		return;
	g_object_unref(image);

	if (reply->facts.format == IMAGE_FORMAT_GIF && !gif_is_whole(&job->inputs[0]))
	{
		codec_fail(reply, DECODER_CORRUPT, "premature end of input file");
		return;
	}

	/* Frames need those before them; pages stand for themselves and may differ in size. */
	format = reply->facts.format;
	for (page = 0; page < reply->facts.pages; page++)
	{
		bool		frames = format == IMAGE_FORMAT_GIF || format == IMAGE_FORMAT_WEBP;
		bool		failed = open_pages(&job->inputs[0], format, page, frames ? -1 : 1, &image) != 0;

		if (!failed)
		{
			pixels += (uint64_t) vips_image_get_width(image) * vips_image_get_height(image);
			if (!codec_check_limit(reply, DECODER_LIMIT_PIXELS, pixels, job->request->max_pixels))
			{
				g_object_unref(image);
				return;
			}
			failed = vips_sink(image, NULL, discard, NULL, NULL, NULL) != 0;
			g_object_unref(image);
		}
		if (failed)
		{
			codec_fail_libvips(reply, DECODER_CORRUPT, "damaged");
			return;
		}
		if (frames)
			break;
	}
	vips_error_clear();
}
