/*
 * metadata.h
 *		EXIF and IPTC blocks as JSON; part of imgpipe-decoder only.
 *
 * Pure C over bytes, no libvips, so that a unit test can fuzz it.  The blocks
 * are hostile: every offset and count in them is checked, the work is bounded
 * by the limits below, and what comes out is JSON in valid UTF-8 whatever went
 * in.
 */
#ifndef IMGPIPE_METADATA_H
#define IMGPIPE_METADATA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define METADATA_JSON_SIZE		(1024 * 1024)	/* longest JSON text */
#define METADATA_MAX_VALUES		256 /* longer arrays and blobs are cut */

/*
 * JSON in a buffer of fixed size.  Commas follow from what stands before.
 * What does not fit sets overflow; json_keep() then takes back all that was
 * written since its mark, so that the text is whole at any time.
 */
typedef struct JsonWriter
{
	char	   *text;
	size_t		length;
	size_t		size;
	bool		overflow;
	bool		truncated;		/* something was taken back */
} JsonWriter;

extern void json_start(JsonWriter *json, char *text, size_t size);
extern size_t json_mark(const JsonWriter *json);
extern void json_keep(JsonWriter *json, size_t mark);
extern void json_begin(JsonWriter *json, char bracket);
extern void json_end(JsonWriter *json, char bracket);
extern void json_key(JsonWriter *json, const char *key);
extern void json_null(JsonWriter *json);
extern void json_integer(JsonWriter *json, int64_t value);
extern void json_number(JsonWriter *json, double value);

/* Bytes that are not UTF-8 are taken for Latin-1. */
extern void json_string(JsonWriter *json, const void *bytes, size_t length);
extern void json_string_utf16(JsonWriter *json, const uint8_t *bytes, size_t length,
							  bool big_endian);

/* "\x...", or {"bytes": all, "hex": "\x..."} of the first bytes. */
extern void json_blob(JsonWriter *json, const uint8_t *bytes, size_t length);

/* Closes the outermost object; says where it had to leave something out. */
extern void json_finish(JsonWriter *json);

/*
 * Copies text as valid UTF-8: what is not UTF-8 becomes U+FFFD.  The copy
 * takes at most three times the length; returns its length.
 */
extern size_t utf8_clean(const uint8_t *bytes, size_t length, char *copy);

/*
 * False, and nothing of use written, where the bytes are no such block.
 * is_file: the block is a TIFF file, which has pages and no thumbnail.
 */
extern bool exif_to_json(const uint8_t *bytes, size_t length, bool is_file, JsonWriter *json);
extern bool iptc_to_json(const uint8_t *bytes, size_t length, JsonWriter *json);

#endif							/* IMGPIPE_METADATA_H */
