/*
 * codec_load.c
 *		From bytes to a libvips image: identify, open, facts, limits.
 *
 * The first bytes name the format and the format names the loader; libvips
 * never gets to choose one of its rarer loaders for bytes that an attacker
 * picked.  Opening reads the header only.  All images are opened for
 * streaming: libvips would decode for random access into a file when the image
 * is large, and the sandbox has no files.
 */
#include <string.h>

#include "decoder/codec_internal.h"

/* As libvips calls them. */
static const char *const loaders[] = {
	[IMAGE_FORMAT_JPEG] = "jpegload_buffer",
	[IMAGE_FORMAT_PNG] = "pngload_buffer",
	[IMAGE_FORMAT_WEBP] = "webpload_buffer",
	[IMAGE_FORMAT_GIF] = "gifload_buffer",
	[IMAGE_FORMAT_TIFF] = "tiffload_buffer",
	[IMAGE_FORMAT_HEIC] = "heifload_buffer",
	[IMAGE_FORMAT_AVIF] = "heifload_buffer"
};

/* Blocks every loader of libvips but ours. */
void
codec_allow_loaders(void)
{
	int			format;

	vips_operation_block_set("VipsForeignLoad", TRUE);
	for (format = IMAGE_FORMAT_JPEG; format <= IMAGE_FORMAT_LAST; format++)
		codec_allow_operation(loaders[format]);
}

static bool
begins_with(const CodecBytes *input, size_t offset, const char *magic, size_t length)
{
	return input->length >= offset + length &&
		memcmp(input->bytes + offset, magic, length) == 0;
}

/* The formats that begin with an ISO "ftyp" box, by its brands. */
static ImageFormat
identify_by_brands(const CodecBytes *input)
{
	static const char heic_brands[][5] = {
		"heic", "heix", "heim", "heis", "hevc", "hevx", "hevm", "hevs"
	};
	const unsigned char *size = (const unsigned char *) input->bytes;
	size_t		end;
	size_t		offset;
	size_t		i;
	bool		generic;

	end = (size_t) size[0] << 24 | size[1] << 16 | size[2] << 8 | size[3];
	end = MIN(end, input->length);
	generic = begins_with(input, 8, "mif1", 4) || begins_with(input, 8, "msf1", 4) ||
		begins_with(input, 8, "miaf", 4);

	/*
	 * The major brand decides, unless it is one that every kind shares; then
	 * the first of the compatible brands that means something does.  Between
	 * the two stands a version number.
	 */
	for (offset = 8; offset + 4 <= end; offset += offset == 8 ? 8 : 4)
	{
		if (begins_with(input, offset, "avif", 4) || begins_with(input, offset, "avis", 4))
			return IMAGE_FORMAT_AVIF;
		for (i = 0; i < G_N_ELEMENTS(heic_brands); i++)
		{
			if (begins_with(input, offset, heic_brands[i], 4))
				return IMAGE_FORMAT_HEIC;
		}
		if (!generic)
			return IMAGE_FORMAT_UNKNOWN;
	}
	return generic ? IMAGE_FORMAT_HEIC : IMAGE_FORMAT_UNKNOWN;
}

/* Sets the format of reply->facts by the input's first bytes. */
bool
codec_identify(const CodecBytes *input, DecoderReply *reply)
{
	static const struct
	{
		ImageFormat format;
		size_t		length;
		const char *magic;
	}			magics[] = {
		{IMAGE_FORMAT_JPEG, 3, "\xff\xd8\xff"},
		{IMAGE_FORMAT_PNG, 8, "\x89PNG\r\n\x1a\n"},
		{IMAGE_FORMAT_GIF, 6, "GIF87a"},
		{IMAGE_FORMAT_GIF, 6, "GIF89a"},
		{IMAGE_FORMAT_TIFF, 4, "II*\0"},
		{IMAGE_FORMAT_TIFF, 4, "MM\0*"},
		{IMAGE_FORMAT_TIFF, 4, "II+\0"},
		{IMAGE_FORMAT_TIFF, 4, "MM\0+"}
	};
	ImageFormat format = IMAGE_FORMAT_UNKNOWN;
	size_t		i;

	if (input->length == 0)
		return codec_fail(reply, DECODER_UNRECOGNIZED, "image is empty");

	for (i = 0; i < G_N_ELEMENTS(magics); i++)
	{
		if (begins_with(input, 0, magics[i].magic, magics[i].length))
			format = magics[i].format;
	}
	if (begins_with(input, 0, "RIFF", 4) && begins_with(input, 8, "WEBP", 4))
		format = IMAGE_FORMAT_WEBP;
	if (begins_with(input, 4, "ftyp", 4))
		format = identify_by_brands(input);

	if (format == IMAGE_FORMAT_UNKNOWN)
		return codec_fail(reply, DECODER_UNRECOGNIZED,
						  "bytes are not an image of a known format");
	reply->facts.layout = IMAGE_FACTS_LAYOUT;
	reply->facts.format = format;
	return true;
}

/*
 * libjpeg shrinks by blocks: stay a factor of 1.5 above, for quality.  Beside a
 * resize of all pixels ten photographs had 43 dB on the median, and 44 with a
 * factor of 2, which libvips leaves; without any, as in sharp, they had 38.
 */
static int
jpeg_shrink(double shrink)
{
	int			blocks = 8;

	while (blocks > 1 && shrink < 1.5 * blocks)
		blocks /= 2;
	return blocks;
}

/* Runs an operation whose arguments are set; as libvips, 0 or -1. */
static int
run_loader(VipsOperation *operation, VipsImage **image)
{
	int			failed = vips_cache_operation_buildp(&operation);

	if (!failed)
		g_object_get(operation, "out", image, NULL);
	vips_object_unref_outputs(VIPS_OBJECT(operation));
	g_object_unref(operation);
	return failed;
}

/*
 * Metadata of HEIC and AVIF lie in memory that libvips frees with the image
 * that it loaded, while images made of that one still point there.  A copy is
 * freed with the last of them.
 */
static void
keep_metadata(VipsImage *image)
{
	static const char *const fields[] = {
		VIPS_META_ICC_NAME, VIPS_META_EXIF_NAME, VIPS_META_XMP_NAME, VIPS_META_IPTC_NAME
	};
	const void *bytes;
	size_t		length;
	size_t		i;

	for (i = 0; i < G_N_ELEMENTS(fields); i++)
	{
		if (vips_image_get_typeof(image, fields[i]) != 0 &&
			vips_image_get_blob(image, fields[i], &bytes, &length) == 0)
			vips_image_set_blob_copy(image, fields[i], bytes, length);
	}
}

/*
 * Opens n pages of the identified input, from first, 0 or more, on; or where
 * n is 0 the one that the format shows by default.  The loader makes the image
 * smaller by at most shrink where the format has a cheap way to do so.
 */
bool
codec_open_pages(const CodecBytes *input, DecoderReply *reply, double shrink,
				 int first, int n, VipsImage **image)
{
	ImageFormat format = reply->facts.format;
	VipsOperation *operation;
	VipsBlob   *blob;

	*image = NULL;
	if (vips_type_find("VipsOperation", loaders[format]) == 0)
		return codec_fail(reply, DECODER_UNSUPPORTED,
						  "libvips on this server cannot read %s images",
						  image_format_name(format));

	/* By default libvips shows what it can of a damaged file. */
	operation = vips_operation_new(loaders[format]);
	blob = vips_blob_new(NULL, input->bytes, input->length);
	g_object_set(operation, "buffer", blob, "access", VIPS_ACCESS_SEQUENTIAL,
				 "fail_on", VIPS_FAIL_ON_ERROR, NULL);
	vips_area_unref(VIPS_AREA(blob));

	/* libvips rounds down and aborts where nothing is left of a side. */
	if (shrink > 1)
		shrink = MIN(shrink, MIN(reply->facts.width, reply->facts.height));
	if (format == IMAGE_FORMAT_JPEG)
		g_object_set(operation, "shrink", jpeg_shrink(shrink), NULL);
	if (format == IMAGE_FORMAT_WEBP && shrink > 1)
		g_object_set(operation, "scale", 1 / shrink, NULL);
	/* The limits are ours to check, so that they can name the number. */
	if (format == IMAGE_FORMAT_HEIC || format == IMAGE_FORMAT_AVIF)
		g_object_set(operation, "unlimited", TRUE, NULL);
	if (n > 0)
		g_object_set(operation, "page", first, "n", n, NULL);

	if (run_loader(operation, image) != 0)
		return codec_fail_libvips(reply, DECODER_CORRUPT, "invalid");
	if (format == IMAGE_FORMAT_HEIC || format == IMAGE_FORMAT_AVIF)
		keep_metadata(*image);
	return true;
}

bool
codec_open(const CodecBytes *input, DecoderReply *reply, double shrink,
		   VipsImage **image)
{
	return codec_open_pages(input, reply, shrink, 0, 0, image);
}

static ImageColorSpace
color_space(VipsImage *image)
{
	switch (vips_image_get_interpretation(image))
	{
		case VIPS_INTERPRETATION_sRGB:
		case VIPS_INTERPRETATION_RGB:
		case VIPS_INTERPRETATION_RGB16:
			return IMAGE_COLOR_SPACE_SRGB;
		case VIPS_INTERPRETATION_B_W:
		case VIPS_INTERPRETATION_GREY16:
			return IMAGE_COLOR_SPACE_GRAY;
		case VIPS_INTERPRETATION_CMYK:
			return IMAGE_COLOR_SPACE_CMYK;
		case VIPS_INTERPRETATION_LAB:
		case VIPS_INTERPRETATION_LABS:
		case VIPS_INTERPRETATION_LABQ:
			return IMAGE_COLOR_SPACE_LAB;
		default:
			return IMAGE_COLOR_SPACE_OTHER;
	}
}

/* Fills in all but the layout and the format, from an image just opened. */
void
codec_read_facts(VipsImage *image, ImageFacts *facts)
{
	static const struct
	{
		const char *field;
		uint8_t		flag;
	}			fields[] = {
		{VIPS_META_ICC_NAME, IMAGE_HAS_ICC_PROFILE},
		{VIPS_META_EXIF_NAME, IMAGE_HAS_EXIF},
		{VIPS_META_XMP_NAME, IMAGE_HAS_XMP},
		{VIPS_META_IPTC_NAME, IMAGE_HAS_IPTC},
		{"interlaced", IMAGE_IS_PROGRESSIVE}
	};
	size_t		i;

	facts->flags = vips_image_hasalpha(image) ? IMAGE_HAS_ALPHA : 0;
	for (i = 0; i < G_N_ELEMENTS(fields); i++)
	{
		if (vips_image_get_typeof(image, fields[i].field) != 0)
			facts->flags |= fields[i].flag;
	}
	facts->orientation = vips_image_get_orientation(image);
	facts->bands = MIN(vips_image_get_bands(image), UINT8_MAX);
	facts->depth = 8 * vips_format_sizeof(vips_image_get_format(image));
	facts->color_space = color_space(image);
	facts->width = vips_image_get_width(image);
	facts->height = vips_image_get_page_height(image);
	facts->pages = vips_image_get_n_pages(image);
}

/* Of the facts in the reply, before any pixel is decoded. */
bool
codec_check_limits(const DecoderRequest *request, DecoderReply *reply)
{
	const ImageFacts *facts = &reply->facts;

	/* Width and height are below 2^24 in libvips: no overflow in 64 bits. */
	return codec_check_limit(reply, DECODER_LIMIT_PAGES,
							 facts->pages, request->max_pages) &&
		codec_check_limit(reply, DECODER_LIMIT_PIXELS,
						  (uint64_t) facts->width * facts->height * facts->pages,
						  request->max_pixels);
}
