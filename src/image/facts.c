/*
 * facts.c
 *		Names of what a probe found.  Pure C, part of both programs.
 */
#include "image/facts.h"

#include <stddef.h>

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
