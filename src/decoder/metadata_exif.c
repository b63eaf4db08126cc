/*
 * metadata_exif.c
 *		EXIF (CIPA DC-008, version 3.0) as JSON: a member for each tag.
 *
 * EXIF is a TIFF structure: directories of entries, each with a tag, a type,
 * a count and its values or their offset.  Only the directories that EXIF
 * knows are followed, each once, so that no loop can be built.  What lies
 * outside of the block is skipped, as is all but the first MAX_ENTRIES of a
 * directory.
 *
 * Values become what they mean: numbers for all kinds of numbers, ISO 8601
 * for dates with their fractions and offsets merged in, decimal degrees for
 * the place.  A number that is none (1/0) and a date that is none are null.
 */
#include "decoder/metadata.h"
#include "decoder/metadata_exif.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define MAX_ENTRIES		1000	/* real directories have less than a hundred */
#define ENTRY_SIZE		12

typedef enum ValueType
{
	TYPE_BYTE = 1,
	TYPE_ASCII,
	TYPE_SHORT,
	TYPE_LONG,
	TYPE_RATIONAL,
	TYPE_SIGNED_BYTE,
	TYPE_UNDEFINED,
	TYPE_SIGNED_SHORT,
	TYPE_SIGNED_LONG,
	TYPE_SIGNED_RATIONAL,
	TYPE_FLOAT,
	TYPE_DOUBLE,
	TYPE_DIRECTORY,
	TYPE_UTF8 = 129				/* since EXIF 3.0 */
} ValueType;

typedef struct Exif
{
	const uint8_t *bytes;
	size_t		length;
	bool		big_endian;
	JsonWriter *json;
	uint32_t	offset[DIRECTORY_COUNT];	/* of the directories, 0 for none */
} Exif;

/* All of whose values lie inside of the block. */
typedef struct Entry
{
	uint16_t	tag;
	uint16_t	type;
	uint32_t	count;			/* at least 1 */
	const uint8_t *values;
	size_t		size;			/* of all values, in bytes */
} Entry;

static uint64_t
read_integer(const Exif *exif, const uint8_t *bytes, size_t size)
{
	uint64_t	value = 0;
	size_t		i;

	for (i = 0; i < size; i++)
		value = value << 8 | bytes[exif->big_endian ? i : size - 1 - i];
	return value;
}

static size_t
size_of_type(unsigned int type)
{
	static const uint8_t sizes[] = {
		[TYPE_BYTE] = 1, [TYPE_ASCII] = 1, [TYPE_SHORT] = 2, [TYPE_LONG] = 4,
		[TYPE_RATIONAL] = 8, [TYPE_SIGNED_BYTE] = 1, [TYPE_UNDEFINED] = 1,
		[TYPE_SIGNED_SHORT] = 2, [TYPE_SIGNED_LONG] = 4, [TYPE_SIGNED_RATIONAL] = 8,
		[TYPE_FLOAT] = 4, [TYPE_DOUBLE] = 8, [TYPE_DIRECTORY] = 4, [TYPE_UTF8] = 1
	};

	return type < sizeof(sizes) ? sizes[type] : 0;
}

/* Entries of the directory at offset that are inside of the block. */
static size_t
count_entries(const Exif *exif, uint32_t offset)
{
	size_t		inside;
	size_t		count;

	if (offset == 0 || offset > exif->length || exif->length - offset < 2)
		return 0;
	count = read_integer(exif, exif->bytes + offset, 2);
	inside = (exif->length - offset - 2) / ENTRY_SIZE;
	if (count > inside)
		count = inside;
	return count < MAX_ENTRIES ? count : MAX_ENTRIES;
}

static bool
read_entry(const Exif *exif, uint32_t directory, size_t number, Entry *entry)
{
	const uint8_t *bytes = exif->bytes + directory + 2 + number * ENTRY_SIZE;
	uint64_t	size;
	uint32_t	offset;

	entry->tag = read_integer(exif, bytes, 2);
	entry->type = read_integer(exif, bytes + 2, 2);
	entry->count = read_integer(exif, bytes + 4, 4);
	size = (uint64_t) entry->count * size_of_type(entry->type);
	if (size == 0)
		return false;
	entry->size = size;
	entry->values = bytes + 8;
	if (size <= 4)
		return true;

	offset = read_integer(exif, bytes + 8, 4);
	if (offset > exif->length || size > exif->length - offset)
		return false;
	entry->values = exif->bytes + offset;
	return true;
}

static bool
find_entry(const Exif *exif, Directory directory, unsigned int tag, Entry *entry)
{
	size_t		n_entries = count_entries(exif, exif->offset[directory]);
	size_t		i;

	for (i = 0; i < n_entries; i++)
	{
		if (read_entry(exif, exif->offset[directory], i, entry) && entry->tag == tag)
			return true;
	}
	return false;
}

static bool
is_text(const Entry *entry)
{
	return entry->type == TYPE_ASCII || entry->type == TYPE_UTF8;
}

/* NAN where the value is no number. */
static double
read_value(const Exif *exif, const Entry *entry, uint32_t number)
{
	size_t		size = size_of_type(entry->type);
	const uint8_t *bytes = entry->values + number * size;
	uint64_t	integer = read_integer(exif, bytes, size);
	uint32_t	denominator;
	uint32_t	bits;
	float		single;
	double		value;

	switch ((ValueType) entry->type)
	{
		case TYPE_SIGNED_BYTE:
			return (int8_t) integer;
		case TYPE_SIGNED_SHORT:
			return (int16_t) integer;
		case TYPE_SIGNED_LONG:
			return (int32_t) integer;
		case TYPE_RATIONAL:
			denominator = read_integer(exif, bytes + 4, 4);
			return denominator == 0 ? NAN : (double) read_integer(exif, bytes, 4) / denominator;
		case TYPE_SIGNED_RATIONAL:
			denominator = read_integer(exif, bytes + 4, 4);
			return denominator == 0 ? NAN :
				(double) (int32_t) read_integer(exif, bytes, 4) / (int32_t) denominator;
		case TYPE_FLOAT:
			bits = (uint32_t) integer;
			memcpy(&single, &bits, sizeof(single));
			return single;
		case TYPE_DOUBLE:
			memcpy(&value, &integer, sizeof(value));
			return value;
		default:
			return (double) integer;
	}
}

/* Length of the text up to its first NUL, less the spaces that fill it up. */
static size_t
text_length(const uint8_t *bytes, size_t length)
{
	const uint8_t *end = memchr(bytes, '\0', length);

	if (end != NULL)
		length = end - bytes;
	while (length > 0 && bytes[length - 1] == ' ')
		length--;
	return length;
}

/* One text, or an array of those that NULs part. */
static void
write_texts(JsonWriter *json, const uint8_t *bytes, size_t length)
{
	const uint8_t *nul;
	int			n_texts = 0;

	while (length > 0 && (bytes[length - 1] == '\0' || bytes[length - 1] == ' '))
		length--;
	nul = memchr(bytes, '\0', length);
	if (nul == NULL)
	{
		json_string(json, bytes, length);
		return;
	}

	json_begin(json, '[');
	while (nul != NULL && n_texts++ < METADATA_MAX_VALUES)
	{
		json_string(json, bytes, text_length(bytes, length));
		length -= nul + 1 - bytes;
		bytes = nul + 1;
		nul = memchr(bytes, '\0', length);
	}
	json_string(json, bytes, text_length(bytes, length));
	json_end(json, ']');
}

static void
write_utf16(JsonWriter *json, const uint8_t *bytes, size_t length, bool big_endian)
{
	if (length >= 2 && (bytes[0] ^ bytes[1]) == (0xFE ^ 0xFF) && (bytes[0] == 0xFE || bytes[0] == 0xFF))
	{
		big_endian = bytes[0] == 0xFE;
		bytes += 2;
		length -= 2;
	}
	length &= ~(size_t) 1;
	while (length >= 2 && bytes[length - (big_endian ? 2 : 1)] == 0 &&
		   (bytes[length - (big_endian ? 1 : 2)] == 0 || bytes[length - (big_endian ? 1 : 2)] == ' '))
		length -= 2;
	json_string_utf16(json, bytes, length, big_endian);
}

static void
write_comment(const Exif *exif, const Entry *entry)
{
	const uint8_t *text = entry->values + 8;
	size_t		length;

	if (entry->size < 8)
	{
		json_blob(exif->json, entry->values, entry->size);
		return;
	}
	length = entry->size - 8;
	if (memcmp(entry->values, "UNICODE", 8) == 0)
		write_utf16(exif->json, text, length, exif->big_endian);
	else if (memcmp(entry->values, "JIS\0\0\0\0", 8) == 0)
		json_blob(exif->json, text, length);
	else if (memcmp(entry->values, "ASCII\0\0", 8) == 0 || memcmp(entry->values, "\0\0\0\0\0\0\0", 8) == 0)
		json_string(exif->json, text, text_length(text, length));
	else						/* the code was forgotten */
		json_string(exif->json, entry->values, text_length(entry->values, entry->size));
}

static void
write_numbers(const Exif *exif, const Entry *entry)
{
	uint32_t	i;

	if (entry->count > METADATA_MAX_VALUES)
	{
		json_blob(exif->json, entry->values, entry->size);
		return;
	}
	if (entry->count > 1)
		json_begin(exif->json, '[');
	for (i = 0; i < entry->count; i++)
		json_number(exif->json, read_value(exif, entry, i));
	if (entry->count > 1)
		json_end(exif->json, ']');
}

/*
 * Times
 */

/* Reads n digits; -1 where they are none. */
static int
read_digits(const uint8_t *bytes, int n)
{
	int			number = 0;

	while (n-- > 0)
	{
		if (*bytes < '0' || *bytes > '9')
			return -1;
		number = number * 10 + (*bytes++ - '0');
	}
	return number;
}

/* "YYYY:MM:DD", which is blank or zero where it is not known. */
static bool
read_date(const uint8_t *bytes, size_t length, char *date, size_t size)
{
	static const uint8_t days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
	int			year;
	int			month;
	int			day;
	bool		leap;

	if (length < 10)
		return false;
	year = read_digits(bytes, 4);
	month = read_digits(bytes + 5, 2);
	day = read_digits(bytes + 8, 2);
	if (year < 1 || month < 1 || month > 12 || day < 1)
		return false;
	leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
	if (day > days[month - 1] + (leap && month == 2))
		return false;
	snprintf(date, size, "%04d-%02d-%02d", year, month, day);
	return true;
}

/* Digits of a fraction of a second, with the point before them; or nothing. */
static void
read_fraction(const Exif *exif, unsigned int tag, char *fraction, size_t size)
{
	Entry		entry;
	size_t		length;
	size_t		i;

	fraction[0] = '\0';
	if (!find_entry(exif, DIRECTORY_EXIF, tag, &entry) || !is_text(&entry))
		return;
	length = text_length(entry.values, entry.size);
	for (i = 0; i < length && i + 2 < size && read_digits(entry.values + i, 1) >= 0; i++)
		fraction[i + 1] = (char) entry.values[i];
	if (i == 0)
		return;
	fraction[0] = '.';
	fraction[i + 1] = '\0';
}

/* "+HH:MM", or nothing. */
static void
read_offset_time(const Exif *exif, unsigned int tag, char *offset, size_t size)
{
	Entry		entry;
	int			hours;
	int			minutes;

	offset[0] = '\0';
	if (!find_entry(exif, DIRECTORY_EXIF, tag, &entry) || !is_text(&entry) ||
		text_length(entry.values, entry.size) != 6 ||
		(entry.values[0] != '+' && entry.values[0] != '-') || entry.values[3] != ':')
		return;
	hours = read_digits(entry.values + 1, 2);
	minutes = read_digits(entry.values + 4, 2);
	if (hours < 0 || hours > 14 || minutes < 0 || minutes > 59)
		return;
	snprintf(offset, size, "%c%02d:%02d", entry.values[0], hours, minutes);
}

/* A time of day, the fraction of its seconds apart; false where it is none. */
static bool
write_time(JsonWriter *json, const char *date, int hour, int minute, int second,
		   const char *fraction, const char *offset)
{
	char		text[64];
	int			length;

	if (hour < 0 || hour > 23 || minute < 0 || minute > 59 || second < 0 || second > 59)
		return false;
	length = snprintf(text, sizeof(text), "%sT%02d:%02d:%02d%s%s",
					  date, hour, minute, second, fraction, offset);
	json_string(json, text, length);
	return true;
}

/* "YYYY:MM:DD HH:MM:SS", with what two tags more say of it. */
static void
write_date_time(const Exif *exif, const Entry *entry)
{
	const uint8_t *bytes = entry->values;
	unsigned int place = entry->tag == TAG_MODIFIED ? 0 : entry->tag == TAG_ORIGINAL ? 1 : 2;
	char		date[24];
	char		fraction[12];
	char		offset[8];

	if (is_text(entry) && entry->size >= 19 && read_date(bytes, entry->size, date, sizeof(date)))
	{
		read_fraction(exif, TAG_FIRST_FRACTION + place, fraction, sizeof(fraction));
		read_offset_time(exif, TAG_FIRST_OFFSET_TIME + place, offset, sizeof(offset));
		if (write_time(exif->json, date, read_digits(bytes + 11, 2), read_digits(bytes + 14, 2),
					   read_digits(bytes + 17, 2), fraction, offset))
			return;
	}
	json_null(exif->json);
}

/*
 * The place, and when it was taken
 */

/* Degrees, minutes and seconds as degrees; false where they are none. */
static bool
read_degrees(const Exif *exif, unsigned int reference_tag, unsigned int tag, char negative,
			 double limit, double *degrees)
{
	Entry		reference;
	Entry		entry;
	double		part[3];
	uint32_t	i;

	if (!find_entry(exif, DIRECTORY_GPS, reference_tag, &reference) || !is_text(&reference) ||
		!find_entry(exif, DIRECTORY_GPS, tag, &entry) ||
		(entry.type != TYPE_RATIONAL && entry.type != TYPE_SIGNED_RATIONAL) || entry.count > 3)
		return false;
	for (i = 0; i < 3; i++)
	{
		part[i] = i < entry.count ? read_value(exif, &entry, i) : 0;
		if (isnan(part[i]))
		{
			/* 0/0 for minutes or seconds that are not given. */
			if (i == 0)
				return false;
			part[i] = 0;
		}
	}
	*degrees = part[0] + part[1] / 60 + part[2] / 3600;
	if (!(*degrees >= 0 && *degrees <= limit))
		return false;
	if ((reference.values[0] & ~0x20) == negative)
		*degrees = -*degrees;
	return true;
}

/* To a tenth of a millimetre, without the digits that rounding left behind. */
static void
write_degrees(JsonWriter *json, const char *key, double degrees)
{
	size_t		mark = json_mark(json);

	json_key(json, key);
	json_number(json, round(degrees * 1e9) / 1e9);
	json_keep(json, mark);
}

static void
write_place(const Exif *exif)
{
	JsonWriter *json = exif->json;
	Entry		reference;
	Entry		entry;
	double		latitude;
	double		longitude;
	double		altitude;
	size_t		mark;

	if (read_degrees(exif, GPS_LATITUDE_REFERENCE, GPS_LATITUDE, 'S', 90, &latitude) &&
		read_degrees(exif, GPS_LONGITUDE_REFERENCE, GPS_LONGITUDE, 'W', 180, &longitude))
	{
		write_degrees(json, "latitude", latitude);
		write_degrees(json, "longitude", longitude);
	}

	if (!find_entry(exif, DIRECTORY_GPS, GPS_ALTITUDE, &entry) ||
		!isfinite(altitude = read_value(exif, &entry, 0)))
		return;
	/* 0 and 2 are above sea level or the ellipsoid, 1 and 3 below. */
	if (find_entry(exif, DIRECTORY_GPS, GPS_ALTITUDE_REFERENCE, &reference) &&
		!is_text(&reference) && (reference.values[0] & 1) != 0)
		altitude = -altitude;
	mark = json_mark(json);
	json_key(json, "altitude");
	json_number(json, altitude);
	json_keep(json, mark);
}

static void
write_gps_time(const Exif *exif)
{
	JsonWriter *json = exif->json;
	size_t		mark = json_mark(json);
	Entry		date_entry;
	Entry		time_entry;
	char		date[24];
	char		fraction[12] = "";
	double		hour;
	double		minute;
	double		second;
	int			milliseconds;

	if (!find_entry(exif, DIRECTORY_GPS, GPS_DATE, &date_entry) || !is_text(&date_entry) ||
		!find_entry(exif, DIRECTORY_GPS, GPS_TIME, &time_entry) || time_entry.count != 3 ||
		!read_date(date_entry.values, date_entry.size, date, sizeof(date)))
		return;
	hour = read_value(exif, &time_entry, 0);
	minute = read_value(exif, &time_entry, 1);
	second = read_value(exif, &time_entry, 2);
	if (!(hour >= 0 && hour < 24 && minute >= 0 && minute < 60 && second >= 0 && second < 60))
		return;
	milliseconds = (int) floor((second - floor(second)) * 1000 + 1e-6);
	if (milliseconds > 0)
		snprintf(fraction, sizeof(fraction), ".%03d", milliseconds);
	json_key(json, "GPSDateTime");
	write_time(json, date, (int) hour, (int) minute, (int) second, fraction, "Z");
	json_keep(json, mark);
}

/*
 * Directories
 */
static void
write_value(const Exif *exif, const Entry *entry, TagKind kind)
{
	JsonWriter *json = exif->json;
	bool		is_bytes = entry->type == TYPE_UNDEFINED || entry->type == TYPE_BYTE;

	if (kind == KIND_TIME)
		write_date_time(exif, entry);
	else if (kind == KIND_COMMENT && !is_text(entry))
		write_comment(exif, entry);
	else if (kind == KIND_UTF16 && is_bytes)
		write_utf16(json, entry->values, entry->size, false);
	else if (is_text(entry) || (kind == KIND_TEXT && is_bytes))
		write_texts(json, entry->values, entry->size);
	else if (entry->type == TYPE_UNDEFINED && kind != KIND_NUMBERS)
		json_blob(json, entry->values, entry->size);
	else
		write_numbers(exif, entry);
}

static void
write_directory(const Exif *exif, Directory directory, uint32_t offset)
{
	JsonWriter *json = exif->json;
	size_t		n_entries = count_entries(exif, offset);
	size_t		i;

	for (i = 0; i < n_entries; i++)
	{
		size_t		mark = json_mark(json);
		char		number[24];
		Entry		entry;
		const Tag  *tag;

		if (!read_entry(exif, offset, i, &entry))
			continue;
		tag = exif_find_tag(directory, entry.tag);
		/* Writers are free about which of the two a tag goes into. */
		if (tag == NULL && directory == DIRECTORY_MAIN)
			tag = exif_find_tag(DIRECTORY_EXIF, entry.tag);
		else if (tag == NULL && directory == DIRECTORY_EXIF)
			tag = exif_find_tag(DIRECTORY_MAIN, entry.tag);
		if (tag != NULL && tag->kind == KIND_SKIPPED)
			continue;
		snprintf(number, sizeof(number), "%s0x%04X", directory == DIRECTORY_GPS ? "GPS" : "", entry.tag);
		json_key(json, tag != NULL ? tag->name : number);
		write_value(exif, &entry, tag != NULL ? tag->kind : KIND_PLAIN);
		json_keep(json, mark);
	}
}

static uint32_t
find_directory(const Exif *exif, Directory directory, unsigned int tag)
{
	Entry		entry;

	if (!find_entry(exif, directory, tag, &entry) ||
		(entry.type != TYPE_LONG && entry.type != TYPE_DIRECTORY))
		return 0;
	return (uint32_t) read_integer(exif, entry.values, 4);
}

/* The directory that follows the main one is the thumbnail's. */
static void
write_thumbnail(const Exif *exif)
{
	JsonWriter *json = exif->json;
	uint32_t	main = exif->offset[DIRECTORY_MAIN];
	size_t		end = main + 2 + count_entries(exif, main) * ENTRY_SIZE;
	size_t		mark = json_mark(json);
	uint32_t	offset;

	if (end + 4 > exif->length)
		return;
	offset = (uint32_t) read_integer(exif, exif->bytes + end, 4);
	if (offset == main || count_entries(exif, offset) == 0)
		return;
	json_key(json, "thumbnail");
	json_begin(json, '{');
	write_directory(exif, DIRECTORY_MAIN, offset);
	json_end(json, '}');
	json_keep(json, mark);
}

bool
exif_to_json(const uint8_t *bytes, size_t length, bool is_file, JsonWriter *json)
{
	Exif		exif = {.json = json};

	if (length >= 6 && memcmp(bytes, "Exif\0\0", 6) == 0)
	{
		bytes += 6;
		length -= 6;
	}
	if (length < 8)
		return false;
	exif.bytes = bytes;
	exif.length = length;
	exif.big_endian = bytes[0] == 'M';
	if (memcmp(bytes, exif.big_endian ? "MM\0*" : "II*\0", 4) != 0)
		return false;

	exif.offset[DIRECTORY_MAIN] = (uint32_t) read_integer(&exif, bytes + 4, 4);
	if (count_entries(&exif, exif.offset[DIRECTORY_MAIN]) == 0)
		return false;
	exif.offset[DIRECTORY_EXIF] = find_directory(&exif, DIRECTORY_MAIN, TAG_EXIF_DIRECTORY);
	exif.offset[DIRECTORY_GPS] = find_directory(&exif, DIRECTORY_MAIN, TAG_GPS_DIRECTORY);
	exif.offset[DIRECTORY_INTEROPERABILITY] = find_directory(&exif, DIRECTORY_EXIF, TAG_INTEROPERABILITY);

	write_directory(&exif, DIRECTORY_MAIN, exif.offset[DIRECTORY_MAIN]);
	write_directory(&exif, DIRECTORY_EXIF, exif.offset[DIRECTORY_EXIF]);
	write_directory(&exif, DIRECTORY_INTEROPERABILITY, exif.offset[DIRECTORY_INTEROPERABILITY]);
	write_place(&exif);
	write_gps_time(&exif);
	write_directory(&exif, DIRECTORY_GPS, exif.offset[DIRECTORY_GPS]);
	if (!is_file)
		write_thumbnail(&exif);
	json_finish(json);
	return true;
}
