/*
 * facts.h
 *		What a successful probe knows about an image.
 *
 * Pure C, shared by the extension and by imgpipe-decoder.  The struct is at
 * once the decoder's answer on the wire and, behind the length word, the
 * header of every stored image value, so its layout is on disk: append by
 * raising IMAGE_FACTS_LAYOUT, never by changing what is here.
 */
#ifndef IMGPIPE_FACTS_H
#define IMGPIPE_FACTS_H

#include <stddef.h>
#include <stdint.h>

#define IMAGE_FACTS_LAYOUT	1

/* Numbers are on disk and in the decoder protocol. */
typedef enum ImageFormat
{
	IMAGE_FORMAT_UNKNOWN = 0,
	IMAGE_FORMAT_JPEG = 1,
	IMAGE_FORMAT_PNG = 2,
	IMAGE_FORMAT_WEBP = 3,
	IMAGE_FORMAT_GIF = 4,
	IMAGE_FORMAT_TIFF = 5,
	IMAGE_FORMAT_HEIC = 6,
	IMAGE_FORMAT_AVIF = 7
} ImageFormat;

#define IMAGE_FORMAT_LAST	IMAGE_FORMAT_AVIF

/* Sets of formats are bits. */
#define IMAGE_FORMAT_BIT(format) (UINT32_C(1) << (format))

typedef enum ImageColorSpace
{
	IMAGE_COLOR_SPACE_OTHER = 0,
	IMAGE_COLOR_SPACE_SRGB = 1,
	IMAGE_COLOR_SPACE_GRAY = 2,
	IMAGE_COLOR_SPACE_CMYK = 3,
	IMAGE_COLOR_SPACE_LAB = 4
} ImageColorSpace;

#define IMAGE_HAS_ALPHA			0x01
#define IMAGE_HAS_ICC_PROFILE	0x02
#define IMAGE_IS_PROGRESSIVE	0x04	/* progressive JPEG or interlaced PNG */
#define IMAGE_HAS_EXIF			0x08
#define IMAGE_HAS_XMP			0x10
#define IMAGE_HAS_IPTC			0x20

typedef struct ImageFacts
{
	uint8_t		layout;			/* IMAGE_FACTS_LAYOUT */
	uint8_t		format;			/* ImageFormat */
	uint8_t		flags;			/* IMAGE_HAS_... and IMAGE_IS_... */
	uint8_t		orientation;	/* EXIF orientation 1 to 8; 1 where absent */
	uint8_t		bands;			/* channels, alpha included */
	uint8_t		depth;			/* bits per channel as decoded: 8, 16 or 32 */
	uint8_t		color_space;	/* ImageColorSpace */
	uint8_t		reserved;		/* zero */
	uint32_t	width;			/* of one page, as stored, before orientation */
	uint32_t	height;
	uint32_t	pages;			/* 1 for a still image */
} ImageFacts;

/* Lower-case name of a format, or NULL for a number that is none. */
extern const char *image_format_name(int format);

/* The reverse, in any case; IMAGE_FORMAT_UNKNOWN for a name that is none. */
extern ImageFormat image_format_by_name(const char *name, size_t length);

/* A set from names parted by commas; 0 where one is wrong, with its place. */
extern uint32_t image_formats_parse(const char *names, const char **wrong, size_t *length);

extern const char *image_color_space_name(int color_space);

/* EXIF orientations 5 to 8 stand on their side. */
static inline uint32_t
image_displayed_width(const ImageFacts *facts)
{
	return facts->orientation >= 5 ? facts->height : facts->width;
}

static inline uint32_t
image_displayed_height(const ImageFacts *facts)
{
	return facts->orientation >= 5 ? facts->width : facts->height;
}

#endif							/* IMGPIPE_FACTS_H */
