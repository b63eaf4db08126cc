/*
 * codec_keep.c
 *		What an output keeps of the input's metadata: nothing, or what keep() says.
 *
 * What may not stay is taken off the image before it is saved, so that it does
 * not depend on the saver.
 */
#include <string.h>

#include "decoder/codec_internal.h"

/* Which kind of metadata one of libvips' fields is, or 0 for none. */
static int
kind_of_field(const char *name)
{
	static const struct
	{
		const char *prefix;
		int			kind;
	}			fields[] = {
		{"exif-", KEPT_EXIF},
		{VIPS_META_XMP_NAME, KEPT_XMP},
		{VIPS_META_IPTC_NAME, KEPT_IPTC},
		{VIPS_META_ICC_NAME, KEPT_ICC},
		{VIPS_META_PHOTOSHOP_NAME, KEPT_OTHER},
		{VIPS_META_IMAGEDESCRIPTION, KEPT_OTHER},
		{"png-comment-", KEPT_OTHER},
		{"gif-comment", KEPT_OTHER}
	};
	size_t		i;

	for (i = 0; i < G_N_ELEMENTS(fields); i++)
	{
		if (strncmp(name, fields[i].prefix, strlen(fields[i].prefix)) == 0)
			return fields[i].kind;
	}
	return 0;
}

/* XMP tells a place by properties with this in their names, in any encoding. */
static bool
tells_place(VipsImage *image)
{
	static const char utf16[] = "G\0P\0S";
	const void *xmp;
	size_t		length;

	return vips_image_get_blob(image, VIPS_META_XMP_NAME, &xmp, &length) == 0 &&
		(memmem(xmp, length, "GPS", 3) != NULL ||
		 memmem(xmp, length, utf16, sizeof(utf16) - 1) != NULL);
}

/*
 * A comment in a PNG, "png-comment-", a number, "-" and its key, that is read but
 * cannot be written: keys are printable Latin-1, with single spaces inside.
 */
static bool
has_unwritable_key(const char *name)
{
	const char *prefix = "png-comment-";
	const unsigned char *key;
	size_t		length;
	size_t		i;

	if (strncmp(name, prefix, strlen(prefix)) != 0)
		return false;
	name += strlen(prefix);
	name += strspn(name, "0123456789");
	if (*name != '-')
		return true;
	key = (const unsigned char *) name + 1;
	length = strlen(name + 1);
	if (length == 0 || length > 79 || key[0] == ' ' || key[length - 1] == ' ')
		return true;
	for (i = 0; i < length; i++)
	{
		if (key[i] < ' ' || (key[i] > '~' && key[i] < 0xA1) || (key[i] == ' ' && key[i + 1] == ' '))
			return true;
	}
	return false;
}

/*
 * Fields that go although their kind stays: the preview, which shows another
 * picture than the one that is saved, and what tells the place.  What a camera's maker notes
 * tell nobody knows.
 */
static bool
is_unwanted(const char *name, VipsImage *image, bool keep_gps)
{
	if (strcmp(name, "jpeg-thumbnail-data") == 0 || strncmp(name, "exif-ifd1-", 10) == 0 ||
		has_unwritable_key(name))
		return true;
	if (keep_gps)
		return false;
	if (strncmp(name, "exif-ifd3-", 10) == 0 || strcmp(name, "exif-ifd2-MakerNote") == 0 ||
		strcmp(name, "exif-ifd0-GPSInfo") == 0)
		return true;
	return strcmp(name, VIPS_META_XMP_NAME) == 0 && tells_place(image);
}

static bool
profile_fits(VipsImage *image)
{
	const void *profile;
	size_t		length;

	return vips_image_get_blob(image, VIPS_META_ICC_NAME, &profile, &length) == 0 &&
		vips_icc_is_compatible_profile(image, profile, length);
}

/* Takes off what may not stay; *kept are the kinds that there still are. */
bool
codec_drop_metadata(Canvas *canvas, int *kept)
{
	static const int allowed[] = {
		[KEEP_NONE] = 0,
		[KEEP_EXIF] = KEPT_EXIF,
		[KEEP_ICC] = KEPT_ICC,
		[KEEP_ALL] = KEPT_EXIF | KEPT_XMP | KEPT_IPTC | KEPT_ICC | KEPT_OTHER
	};
	int			may_stay = allowed[canvas->output->kept];
	VipsImage  *copy = NULL;
	gchar	  **fields;
	int			i;

	*kept = 0;
	/* Where nothing may stay savers are told to write none; TIFF's has the orientation all the same. */
	if (may_stay == 0 && vips_image_get_typeof(canvas->image, VIPS_META_ORIENTATION) == 0)
		return true;
	if (!codec_replace(canvas, &copy, vips_copy(canvas->image, &copy, NULL),
					   "could not copy the metadata of"))
		return false;
	if ((may_stay & KEPT_EXIF) == 0)
		vips_image_remove(canvas->image, VIPS_META_ORIENTATION);
	fields = vips_image_get_fields(canvas->image);
	for (i = 0; fields[i] != NULL; i++)
	{
		int			kind = kind_of_field(fields[i]);

		if ((kind & may_stay) != kind ||
			is_unwanted(fields[i], canvas->image, canvas->output->keep_gps) ||
			(kind == KEPT_ICC && !profile_fits(canvas->image)))
			vips_image_remove(canvas->image, fields[i]);
		else
			*kept |= kind;
	}
	g_strfreev(fields);
	vips_error_clear();
	return true;
}

/*
 * Takes chunks out of a WebP file in place: "RIFF" size "WEBP", then chunks of
 * name, size and bytes to an even length, the first of which, "VP8X", has a
 * bit for each kind of metadata.  libvips 8.14.0 and 8.14.1 write all that
 * there is, even if told to keep nothing.
 */
static void
drop_webp_chunks(unsigned char *webp, size_t *length, int kept)
{
	static const struct
	{
		const char *name;
		int			kind;
		unsigned char bit;
	}			chunks[] = {{"ICCP", KEPT_ICC, 0x20}, {"EXIF", KEPT_EXIF, 0x08}, {"XMP ", KEPT_XMP, 0x04}};
	size_t		end = 12;
	size_t		next = 12;

	while (next + 8 <= *length)
	{
		unsigned char *chunk = webp + next;
		size_t		size = chunk[4] | chunk[5] << 8 | chunk[6] << 16 | (size_t) chunk[7] << 24;
		bool		dropped = false;
		size_t		i;

		size = MIN(8 + size + size % 2, *length - next);
		next += size;
		for (i = 0; i < G_N_ELEMENTS(chunks); i++)
		{
			if ((kept & chunks[i].kind) != 0)
				continue;
			if (memcmp(chunk, chunks[i].name, 4) == 0)
				dropped = true;
			if (memcmp(chunk, "VP8X", 4) == 0)
				chunk[8] &= ~chunks[i].bit;
		}
		if (dropped)
			continue;
		memmove(webp + end, chunk, size);
		end += size;
	}

	*length = end;
	end -= 8;
	webp[4] = end;
	webp[5] = end >> 8;
	webp[6] = end >> 16;
	webp[7] = end >> 24;
}

/*
 * Takes EXIF out of a JPEG file in place: segments of 0xFF, a marker and a
 * length stand in front of the pixels.  libvips before 8.15 makes EXIF up
 * where it writes any metadata at all: size and resolution.  In AVIF, where it
 * is not to be found so easily, that stays.
 */
static void
drop_jpeg_exif(unsigned char *jpeg, size_t *length)
{
	size_t		next = 2;

	while (next + 4 <= *length && jpeg[next] == 0xFF && jpeg[next + 1] != 0xDA)
	{
		size_t		size = 2 + (jpeg[next + 2] << 8 | jpeg[next + 3]);

		if (size > *length - next)
			return;
		if (jpeg[next + 1] == 0xE1 && size >= 10 && memcmp(jpeg + next + 4, "Exif", 4) == 0)
		{
			memmove(jpeg + next, jpeg + next + size, *length - next - size);
			*length -= size;
		}
		else
			next += size;
	}
}

/* What savers have written that was not to be kept, taken out again. */
void
codec_metadata_written(ImageFormat format, int kept, void *bytes, size_t *length)
{
	if (format == IMAGE_FORMAT_WEBP)
		drop_webp_chunks(bytes, length, kept);
	if (format == IMAGE_FORMAT_JPEG && (kept & KEPT_EXIF) == 0)
		drop_jpeg_exif(bytes, length);
}
