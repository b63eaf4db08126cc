/*
 * facts.c
 *		Names of what a probe found.  Pure C, part of both programs.
 */
#include "image/facts.h"

#include <string.h>
#include <strings.h>

const char *
image_format_name(int format)
{
	static const char *const names[] = {
		[IMAGE_FORMAT_JPEG] = "jpeg",
		[IMAGE_FORMAT_PNG] = "png",
		[IMAGE_FORMAT_WEBP] = "webp",
		[IMAGE_FORMAT_GIF] = "gif",
		[IMAGE_FORMAT_TIFF] = "tiff",
		[IMAGE_FORMAT_HEIC] = "heic",
		[IMAGE_FORMAT_AVIF] = "avif"
	};

	if (format <= IMAGE_FORMAT_UNKNOWN || format > IMAGE_FORMAT_LAST)
		return NULL;
	return names[format];
}

ImageFormat
image_format_by_name(const char *name, size_t length)
{
	int			format;

	for (format = IMAGE_FORMAT_UNKNOWN + 1; format <= IMAGE_FORMAT_LAST; format++)
	{
		const char *known = image_format_name(format);

		if (strlen(known) == length && strncasecmp(known, name, length) == 0)
			return format;
	}
	return IMAGE_FORMAT_UNKNOWN;
}

uint32_t
image_formats_parse(const char *names, const char **wrong, size_t *length)
{
	static const char space[] = " \t\n\r";
	uint32_t	formats = 0;

	for (;;)
	{
		ImageFormat format;

		names += strspn(names, space);
		*wrong = names;
		*length = strcspn(names, ",");
		names += *length;
		while (*length > 0 && strchr(space, (*wrong)[*length - 1]) != NULL)
			(*length)--;
		format = image_format_by_name(*wrong, *length);
		if (format == IMAGE_FORMAT_UNKNOWN)
			return 0;
		formats |= IMAGE_FORMAT_BIT(format);
		if (*names == '\0')
			return formats;
		names++;
	}
}

const char *
image_color_space_name(int color_space)
{
	switch (color_space)
	{
		case IMAGE_COLOR_SPACE_SRGB:
			return "srgb";
		case IMAGE_COLOR_SPACE_GRAY:
			return "gray";
		case IMAGE_COLOR_SPACE_CMYK:
			return "cmyk";
		case IMAGE_COLOR_SPACE_LAB:
			return "lab";
		default:
			return "other";
	}
}
