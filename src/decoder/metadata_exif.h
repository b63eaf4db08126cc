/*
 * metadata_exif.h
 *		The tags that EXIF knows.
 */
#ifndef IMGPIPE_METADATA_EXIF_H
#define IMGPIPE_METADATA_EXIF_H

#include <stdint.h>

typedef enum Directory
{
	DIRECTORY_MAIN,				/* and the thumbnail's */
	DIRECTORY_EXIF,
	DIRECTORY_GPS,
	DIRECTORY_INTEROPERABILITY,
	DIRECTORY_COUNT
} Directory;

/* How a tag is shown where its type does not say it all. */
typedef enum TagKind
{
	KIND_PLAIN,
	KIND_SKIPPED,				/* pointers into the file, and parts of other members */
	KIND_TEXT,					/* undefined bytes that are text */
	KIND_COMMENT,				/* eight bytes of character code, then text */
	KIND_UTF16,					/* bytes that are UTF-16, little-endian */
	KIND_NUMBERS,				/* undefined bytes that are numbers */
	KIND_TIME
} TagKind;

#define TAG_EXIF_DIRECTORY		0x8769
#define TAG_GPS_DIRECTORY		0x8825
#define TAG_INTEROPERABILITY	0xA005
#define TAG_MODIFIED			0x0132
#define TAG_ORIGINAL			0x9003
#define TAG_DIGITIZED			0x9004
#define TAG_FIRST_OFFSET_TIME	0x9010	/* of modified, original, digitized */
#define TAG_FIRST_FRACTION		0x9290

#define GPS_LATITUDE_REFERENCE	1
#define GPS_LATITUDE			2
#define GPS_LONGITUDE_REFERENCE	3
#define GPS_LONGITUDE			4
#define GPS_ALTITUDE_REFERENCE	5
#define GPS_ALTITUDE			6
#define GPS_TIME				7
#define GPS_DATE				29

typedef struct Tag
{
	uint16_t	tag;
	TagKind		kind;
	const char *name;			/* NULL where skipped */
} Tag;

/* NULL for a number that means nothing there. */
extern const Tag *exif_find_tag(Directory directory, unsigned int number);

#endif							/* IMGPIPE_METADATA_EXIF_H */
