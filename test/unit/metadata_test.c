/*
 * metadata_test.c
 *		Tests of the decoder's EXIF and IPTC readers without libvips.
 *
 *		cc -Isrc -fsanitize=address,undefined test/unit/metadata_test.c \
 *			src/decoder/metadata*.c -lm
 *
 * Prints TAP.  With --fuzz N it also reads N blocks that were damaged at
 * random.  What is read lies in a block of memory of just its length, and
 * whatever comes out must be JSON in valid UTF-8.
 */
#include "decoder/metadata.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int	n_tests;
static int	n_failed;
static char text[METADATA_JSON_SIZE];

static bool __attribute__((format(printf, 2, 3)))
ok(bool passed, const char *format,...)
{
	va_list		arguments;

	n_tests++;
	if (!passed)
		n_failed++;
	printf("%s %d - ", passed ? "ok" : "not ok", n_tests);
	va_start(arguments, format);
	vprintf(format, arguments);
	va_end(arguments);
	printf("\n");
	return passed;
}

static void
is(const char *got, const char *expected, const char *what)
{
	if (!ok(strcmp(got, expected) == 0, "%s", what))
		printf("#   got      %s\n#   expected %s\n", got, expected);
}

static uint64_t
random_number(void)
{
	static uint64_t state = UINT64_C(88172645463325252);

	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

/*
 * What JSON must be, for jsonb: moves over one value; NULL where it is none.
 */
static const char *json_value(const char *json, int depth);

static const char *
json_string_end(const char *json)
{
	if (*json++ != '"')
		return NULL;
	while (*json != '"')
	{
		if ((unsigned char) *json < 0x20)
			return NULL;
		if (*json == '\\')
		{
			json++;
			if (strchr("\"\\", *json) == NULL &&
				(strspn(json + 1, "0123456789abcdef") < 4 || *json != 'u' || strncmp(json, "u0000", 5) == 0))
				return NULL;
		}
		json++;
	}
	return json + 1;
}

static const char *
json_value(const char *json, int depth)
{
	char		end = *json == '{' ? '}' : ']';
	char	   *number_end;

	if (depth > 4)
		return NULL;
	if (*json == '"')
		return json_string_end(json);
	if (strncmp(json, "null", 4) == 0 || strncmp(json, "true", 4) == 0)
		return json + 4;
	if (*json == '-' || (*json >= '0' && *json <= '9'))
	{
		(void) strtod(json, &number_end);
		return json[0] == '0' && json[1] >= '0' && json[1] <= '9' ? NULL : number_end;
	}
	if (*json != '{' && *json != '[')
		return NULL;

	if (json[1] == end)
		return json + 2;
	do
	{
		json++;
		if (end == '}')
		{
			json = json_string_end(json);
			if (json == NULL || *json++ != ':')
				return NULL;
		}
		json = json_value(json, depth + 1);
		if (json == NULL)
			return NULL;
	} while (*json == ',');
	return *json == end ? json + 1 : NULL;
}

static bool
is_valid_utf8(const char *bytes, size_t length)
{
	char	   *copy = malloc(3 * length + 1);
	bool		same = utf8_clean((const uint8_t *) bytes, length, copy) == length &&
		memcmp(bytes, copy, length) == 0;

	free(copy);
	return same;
}

typedef bool (*Reader) (const uint8_t *bytes, size_t length, JsonWriter *json);

static bool
read_exif(const uint8_t *bytes, size_t length, JsonWriter *json)
{
	return exif_to_json(bytes, length, false, json);
}

static bool
read_tiff(const uint8_t *bytes, size_t length, JsonWriter *json)
{
	return exif_to_json(bytes, length, true, json);
}

/* The JSON of a block, "none", or what is wrong with it. */
static const char *
show_with(Reader read, const void *block, size_t length, size_t room)
{
	uint8_t    *copy = malloc(length > 0 ? length : 1);
	JsonWriter	json;
	bool		found;
	const char *end;

	memcpy(copy, block, length);
	json_start(&json, text, room);
	found = read(copy, length, &json);
	free(copy);
	if (!found)
		return "none";
	if (json.overflow || json.length >= room)
		return "broken: too long";
	text[json.length] = '\0';
	if (strlen(text) != json.length || !is_valid_utf8(text, json.length))
		return "broken: not UTF-8";
	end = json_value(text, 0);
	return end != NULL && *end == '\0' ? text : "broken: not JSON";
}

static const char *
show(Reader read, const void *block, size_t length)
{
	return show_with(read, block, length, sizeof(text));
}

/*
 * Writing EXIF.  Directories hold entries; values of more than four bytes lie
 * behind all directories.
 */
typedef struct Builder
{
	uint8_t		bytes[16384];
	size_t		length;
	size_t		directory;		/* the one being filled */
	size_t		values;			/* end of the values written so far */
	bool		big_endian;
} Builder;

#define VALUES_START	2048

static void
put(Builder *builder, size_t place, uint64_t value, int size)
{
	int			i;

	for (i = 0; i < size; i++)
		builder->bytes[place + i] = (uint8_t) (value >> 8 * (builder->big_endian ? size - 1 - i : i));
}

static uint64_t
get(const Builder *builder, size_t place, int size)
{
	uint64_t	value = 0;
	int			i;

	for (i = 0; i < size; i++)
		value = value << 8 | builder->bytes[place + (builder->big_endian ? i : size - 1 - i)];
	return value;
}

static void
begin(Builder *builder, bool big_endian)
{
	memset(builder, 0, sizeof(*builder));
	builder->big_endian = big_endian;
	memcpy(builder->bytes, big_endian ? "MM\0*" : "II*\0", 4);
	put(builder, 4, 8, 4);
	builder->directory = 8;
	builder->values = VALUES_START;
	builder->length = VALUES_START;
}

/* The place of the new entry's four bytes of value or offset. */
static size_t
entry(Builder *builder, unsigned int tag, unsigned int type, uint32_t count)
{
	size_t		n_entries = get(builder, builder->directory, 2);
	size_t		place = builder->directory + 2 + 12 * n_entries;

	put(builder, builder->directory, n_entries + 1, 2);
	put(builder, place, tag, 2);
	put(builder, place + 2, type, 2);
	put(builder, place + 4, count, 4);
	return place + 8;
}

static void
add_bytes(Builder *builder, unsigned int tag, unsigned int type, const char *bytes, size_t length)
{
	size_t		place = entry(builder, tag, type, (uint32_t) length);

	if (length > 4)
	{
		put(builder, place, builder->values, 4);
		place = builder->values;
		builder->values += length + (length & 1);
		builder->length = builder->values;
	}
	memcpy(builder->bytes + place, bytes, length);
}

static void
add_text(Builder *builder, unsigned int tag, const char *value)
{
	add_bytes(builder, tag, 2, value, strlen(value) + 1);
}

/* Values of size bytes each; a rational is two of four. */
static void
add_numbers(Builder *builder, unsigned int tag, unsigned int type, int size, int count, const int64_t *values)
{
	int			parts = type == 5 || type == 10 ? 2 : 1;
	size_t		place = entry(builder, tag, type, count);
	int			i;

	if (size * parts * count > 4)
	{
		put(builder, place, builder->values, 4);
		place = builder->values;
		builder->values += size * parts * count;
		builder->length = builder->values;
	}
	for (i = 0; i < parts * count; i++)
		put(builder, place + (size_t) i * size, values[i], size);
}

#define NUMBERS(...)	(sizeof((int64_t[]) {__VA_ARGS__}) / sizeof(int64_t)), (int64_t[]) {__VA_ARGS__}
#define RATIONALS(...)	(sizeof((int64_t[]) {__VA_ARGS__}) / sizeof(int64_t) / 2), (int64_t[]) {__VA_ARGS__}

/* Opens another directory, to which an entry of the present one points. */
static void
open_directory(Builder *builder, unsigned int tag, size_t place)
{
	put(builder, entry(builder, tag, 4, 1), place, 4);
	builder->directory = place;
}

static const char *
show_exif(const Builder *builder)
{
	return show(read_exif, builder->bytes, builder->length);
}

/* Something of everything, as a camera writes it. */
static void
build_photograph(Builder *builder, bool big_endian)
{
	size_t		main_directory;

	begin(builder, big_endian);
	main_directory = builder->directory;
	add_text(builder, 0x010F, "Camera Works  ");
	add_bytes(builder, 0x8298, 2, "Ann\0Bob\0", 8);
	add_numbers(builder, 0x0112, 3, 2, NUMBERS(6));
	add_numbers(builder, 0x011A, 5, 4, RATIONALS(72, 1));
	add_text(builder, 0x0132, "2024:02:29 23:59:01");
	add_bytes(builder, 0x9C9B, 1, "T\0\xE9\0\x3D\xD8\x00\xDE\0\0", 10);
	add_text(builder, 0xFFFE, "own");
	open_directory(builder, 0x8769, 600);
	add_numbers(builder, 0x829A, 5, 4, RATIONALS(1, 200));
	add_numbers(builder, 0x9204, 10, 4, RATIONALS(-1, 3));
	add_bytes(builder, 0x9000, 7, "0232", 4);
	add_text(builder, 0x9003, "2024:02:29 23:58:59");
	add_text(builder, 0x9291, "0450");
	add_text(builder, 0x9011, "+05:30");
	add_text(builder, 0x9290, "7");
	add_text(builder, 0x9004, "    :  :     :  :  ");
	add_bytes(builder, 0x9101, 7, "\1\2\3\0", 4);
	add_bytes(builder, 0x9286, 7, "UNICODE\0H\0i\0\"\0 \0", 16);
	if (big_endian)
		memcpy(builder->bytes + builder->values - 8, "\0H\0i\0\"\0 ", 8);
	add_numbers(builder, 0xA432, 5, 4, RATIONALS(24, 1, 70, 1, 28, 10, 0, 0));
	builder->directory = main_directory;
	open_directory(builder, 0x8825, 1200);
	add_text(builder, 1, "S");
	add_numbers(builder, 2, 5, 4, RATIONALS(33, 1, 51, 1, 2550, 100));
	add_text(builder, 3, "E");
	add_numbers(builder, 4, 5, 4, RATIONALS(151, 1, 125, 10, 0, 0));
	add_bytes(builder, 5, 1, "\1", 1);
	add_numbers(builder, 6, 5, 4, RATIONALS(1234, 100));
	add_numbers(builder, 7, 5, 4, RATIONALS(18, 1, 28, 1, 59500, 1000));
	add_text(builder, 29, "2024:02:29");
	add_numbers(builder, 17, 5, 4, RATIONALS(1, 0));
	/* What follows the main directory is the thumbnail's. */
	put(builder, main_directory + 2 + 12 * get(builder, main_directory, 2), 1600, 4);
	builder->directory = 1600;
	add_numbers(builder, 0x0103, 3, 2, NUMBERS(6));
	add_numbers(builder, 0x0201, 4, 4, NUMBERS(2048));
	add_numbers(builder, 0x0202, 4, 4, NUMBERS(7));
}

static const char photograph[] =
	"{\"Make\":\"Camera Works\",\"Copyright\":[\"Ann\",\"Bob\"],\"Orientation\":6,\"XResolution\":72,"
	"\"DateTime\":\"2024-02-29T23:59:01.7\",\"XPTitle\":\"T\xC3\xA9\xF0\x9F\x98\x80\",\"0xFFFE\":\"own\","
	"\"ExposureTime\":0.005,\"ExposureBiasValue\":-0.333333333333333,\"ExifVersion\":\"0232\","
	"\"DateTimeOriginal\":\"2024-02-29T23:58:59.0450+05:30\",\"DateTimeDigitized\":null,"
	"\"ComponentsConfiguration\":[1,2,3,0],\"UserComment\":\"Hi\\\"\",\"LensSpecification\":[24,70,2.8,null],"
	"\"latitude\":-33.857083333,\"longitude\":151.208333333,\"altitude\":-12.34,"
	"\"GPSDateTime\":\"2024-02-29T18:28:59.500Z\",\"GPSImgDirection\":null,"
	"\"thumbnail\":{\"Compression\":6,\"JPEGInterchangeFormatLength\":7}}";

static void
test_photograph(void)
{
	Builder		builder;
	uint8_t		prefixed[sizeof(builder.bytes)];
	int			big_endian;

	for (big_endian = 0; big_endian < 2; big_endian++)
	{
		build_photograph(&builder, big_endian);
		is(show_exif(&builder), photograph, big_endian ? "big-endian" : "little-endian");
		memcpy(prefixed, "Exif\0\0", 6);
		memcpy(prefixed + 6, builder.bytes, builder.length);
		is(show(read_exif, prefixed, builder.length + 6), photograph, "as JPEG has it");
	}
}

static void
check_time(const char *time, const char *fraction, const char *offset, const char *expected)
{
	Builder		builder;
	char		json[256];

	begin(&builder, true);
	open_directory(&builder, 0x8769, 600);
	add_bytes(&builder, 0x9003, 2, time, strlen(time));	/* not always is there a NUL */
	if (fraction != NULL)
		add_text(&builder, 0x9291, fraction);
	if (offset != NULL)
		add_text(&builder, 0x9011, offset);
	snprintf(json, sizeof(json), "{\"DateTimeOriginal\":%s}", expected);
	is(show_exif(&builder), json, time);
}

static void
test_times(void)
{
	check_time("2000:02:29 00:00:00", NULL, NULL, "\"2000-02-29T00:00:00\"");
	check_time("2000-02-29T00:00:00", "", "", "\"2000-02-29T00:00:00\"");
	check_time("2023:12:31 23:59:59", "123456789012", "-11:00", "\"2023-12-31T23:59:59.1234567890-11:00\"");
	check_time("2023:12:31 23:59:59", " x", "UTC", "\"2023-12-31T23:59:59\"");
	check_time("2023:12:31 23:59:59", "5 ", "+99:00", "\"2023-12-31T23:59:59.5\"");
	check_time("1900:02:29 00:00:00", NULL, NULL, "null");
	check_time("2023:13:01 00:00:00", NULL, NULL, "null");
	check_time("2023:04:31 00:00:00", NULL, NULL, "null");
	check_time("2023:04:30 24:00:00", NULL, NULL, "null");
	check_time("2023:04:30 23:59:60", NULL, NULL, "null");
	check_time("0000:00:00 00:00:00", NULL, NULL, "null");
	check_time("2023:04:30 2", NULL, NULL, "null");
	check_time("yesterday, at about four", NULL, NULL, "null");
}

static void
check_place(const char *latitude_reference, int64_t degrees, const char *longitude_reference,
			int64_t minutes, const char *expected)
{
	Builder		builder;

	begin(&builder, false);
	open_directory(&builder, 0x8825, 600);
	add_text(&builder, 1, latitude_reference);
	add_numbers(&builder, 2, 5, 4, RATIONALS(degrees, 1, 30, 1, 0, 1));
	if (longitude_reference != NULL)
		add_text(&builder, 3, longitude_reference);
	add_numbers(&builder, 4, 5, 4, RATIONALS(0, 1, minutes, 1));
	is(show_exif(&builder), expected, expected);
}

static void
test_places(void)
{
	check_place("N", 45, "W", 15, "{\"latitude\":45.5,\"longitude\":-0.25}");
	check_place("s", 45, "e", 15, "{\"latitude\":-45.5,\"longitude\":0.25}");
	check_place("N", 90, "E", 15, "{}");
	check_place("N", 45, NULL, 15, "{}");
	check_place("N", 45, "E", 60 * 181, "{}");
}

static void
test_values(void)
{
	Builder		builder;
	char		bytes[300];
	double		number;
	uint64_t	bits;

	begin(&builder, false);
	add_text(&builder, 0x010E, "a \"quote\", a \\ and a \x01");
	add_bytes(&builder, 0x013B, 2, "M\xFCller", 7);
	add_text(&builder, 0x0131, "M\xC3\xBCller");
	add_text(&builder, 0x010D, "\xED\xA0\x80");
	add_numbers(&builder, 0x0102, 3, 2, NUMBERS(8, 8, 65535));
	add_numbers(&builder, 0xF001, 6, 1, NUMBERS(-1));
	add_numbers(&builder, 0xF002, 8, 2, NUMBERS(-2, 2));
	add_numbers(&builder, 0xF003, 9, 4, NUMBERS(-3));
	add_numbers(&builder, 0xF004, 11, 4, NUMBERS(0x3FC00000, 0x7F800000));
	number = 1e-300;
	memcpy(&bits, &number, 8);
	add_numbers(&builder, 0xF005, 12, 8, NUMBERS((int64_t) bits, INT64_C(0x7FF8000000000000)));
	add_numbers(&builder, 0xF006, 10, 4, RATIONALS(INT32_MIN, -1));
	add_bytes(&builder, 0xF007, 7, "\0\xFFzz", 4);
	add_bytes(&builder, 0xF008, 129, "\xC3\xA4", 2);
	add_numbers(&builder, 0xF009, 99, 4, NUMBERS(1));
	add_numbers(&builder, 0x0111, 4, 4, NUMBERS(1, 2));
	is(show_exif(&builder),
	   "{\"ImageDescription\":\"a \\\"quote\\\", a \\\\ and a \\u0001\",\"Artist\":\"M\xC3\xBCller\","
	   "\"Software\":\"M\xC3\xBCller\",\"DocumentName\":\"\xC3\xAD\xC2\xA0\xC2\x80\","
	   "\"BitsPerSample\":[8,8,65535],\"0xF001\":-1,\"0xF002\":[-2,2],\"0xF003\":-3,\"0xF004\":[1.5,null],"
	   "\"0xF005\":[1e-300,null],\"0xF006\":2147483648,\"0xF007\":\"\\\\x00ff7a7a\",\"0xF008\":\"\xC3\xA4\"}",
	   "types");

	memset(bytes, 0xAB, sizeof(bytes));
	begin(&builder, false);
	open_directory(&builder, 0x8769, 600);
	add_bytes(&builder, 0x927C, 7, bytes, sizeof(bytes));
	ok(strncmp(show_exif(&builder), "{\"MakerNote\":{\"bytes\":300,\"hex\":\"\\\\xabab", 40) == 0 &&
	   strlen(text) == strlen("{\"MakerNote\":{\"bytes\":300,\"hex\":\"\\\\x\"}}") + 2 * METADATA_MAX_VALUES,
	   "a large blob shows its size and its beginning");

	begin(&builder, true);
	open_directory(&builder, 0x8769, 600);
	add_bytes(&builder, 0x9286, 7, "ASCII\0\0\0plain  \0\0", 17);
	is(show_exif(&builder), "{\"UserComment\":\"plain\"}", "a comment in ASCII");
	begin(&builder, true);
	open_directory(&builder, 0x8769, 600);
	add_bytes(&builder, 0x9286, 7, "no code at all", 14);
	is(show_exif(&builder), "{\"UserComment\":\"no code at all\"}", "a comment without its code");
	begin(&builder, true);
	open_directory(&builder, 0x8769, 600);
	add_bytes(&builder, 0x9286, 7, "UNICODE\0\xD8\x3D\0x", 12);
	is(show_exif(&builder), "{\"UserComment\":\"\xEF\xBF\xBDx\"}", "half a surrogate pair");
}

static void
test_structure(void)
{
	Builder		builder;
	size_t		place;
	int			i;

	is(show(read_exif, "", 0), "none", "nothing");
	is(show(read_exif, "Exif\0\0", 6), "none", "a prefix");
	is(show(read_exif, "II*\0\10\0\0\0", 8), "none", "no directory");
	is(show(read_exif, "XX*\0\10\0\0\0\0\0", 10), "none", "no TIFF");

	begin(&builder, false);
	add_text(&builder, 0x010F, "beyond the end");
	put(&builder, 8 + 2 + 8, 1 << 30, 4);
	add_numbers(&builder, 0x0112, 3, 2, NUMBERS(1));
	is(show_exif(&builder), "{\"Orientation\":1}", "an offset beyond the end");
	put(&builder, 8 + 2 + 8, VALUES_START, 4);
	put(&builder, 8 + 2 + 4, 0xFFFFFFFF, 4);
	is(show_exif(&builder), "{\"Orientation\":1}", "a count beyond the end");
	put(&builder, 8, 65535, 2);
	is(show(read_exif, builder.bytes, 8 + 2 + 2 * 12), "{\"Orientation\":1}", "more entries than there is room for");

	begin(&builder, false);
	add_numbers(&builder, 0x0112, 3, 2, NUMBERS(1));
	place = entry(&builder, 0x8769, 4, 1);
	put(&builder, place, 8, 4);
	put(&builder, place + 4, 8, 4);
	is(show_exif(&builder), "{\"Orientation\":1,\"Orientation\":1}", "directories in a circle");

	begin(&builder, false);
	for (i = 0; i < 100; i++)
		add_numbers(&builder, 0x0112, 3, 2, NUMBERS(i));
	is(show_with(read_exif, builder.bytes, builder.length, 128),
	   "{\"Orientation\":0,\"Orientation\":1,\"Orientation\":2,\"Orientation\":3,\"truncated\":true}", "more than there is room for");

	build_photograph(&builder, false);
	ok(strstr(show(read_exif, builder.bytes, builder.length), "thumbnail") != NULL &&
	   strstr(show(read_tiff, builder.bytes, builder.length), "thumbnail") == NULL, "a file has no thumbnail");
}

static void
test_iptc(void)
{
	static const char datasets[] =
		"\x1C\x01\x5A\0\3\x1B%G" "\x1C\x02\0\0\2\0\4" "\x1C\x02\x05\0\5Title" "\x1C\x02\x19\0\3sea"
		"\x1C\x02\x50\0\3Ann" "\x1C\x02\x19\0\4s\xC3\xA4y" "\x1C\x02\x78\0\7Caf\xE9 \"x" "\x1C\x02\xC8\0\1?"
		"\x1C\x02\x5A\x80\4\0\0\0\4City" "\x1C\x02\x65\0\1A" "\x1C\x02\x65\0\1B" "\x1C\x03\x0A\0\1x";
	static const char expected[] =
		"{\"ObjectName\":\"Title\",\"Keywords\":[\"sea\",\"s\xC3\xA4y\"],\"Byline\":[\"Ann\"],"
		"\"Caption\":\"Caf\xC3\xA9 \\\"x\",\"2:200\":\"?\",\"City\":\"City\",\"CountryName\":[\"A\",\"B\"]}";
	char		block[512];
	size_t		length = 0;

	is(show(iptc_to_json, datasets, sizeof(datasets) - 1), expected, "IPTC as TIFF has it");
	is(show(iptc_to_json, datasets, sizeof(datasets) - 1 - 7), "{\"ObjectName\":\"Title\","
	   "\"Keywords\":[\"sea\",\"s\xC3\xA4y\"],\"Byline\":[\"Ann\"],\"Caption\":\"Caf\xC3\xA9 \\\"x\",\"2:200\":\"?\","
	   "\"City\":\"City\",\"CountryName\":\"A\"}", "cut off in a dataset");

	memcpy(block, "Photoshop 3.0\0" "8BIM\x03\xED\3abc\0\0\0\1x\0" "8BIM\4\4\0\0\0\0\0", 40);
	length = 14 + 16 + 11;
	block[length++] = (char) (sizeof(datasets) - 1);
	memcpy(block + length, datasets, sizeof(datasets) - 1);
	is(show(iptc_to_json, block, length + sizeof(datasets) - 1), expected, "IPTC as JPEG has it");
	is(show(iptc_to_json, block, length + 5), "none", "a resource that is cut off");
	is(show(iptc_to_json, "Photoshop 3.0\0" "8BIM", 18), "none", "no resource");
	is(show(iptc_to_json, "", 0), "none", "no IPTC");
	is(show(iptc_to_json, "\x1C\x02\x19\x80\xFF", 5), "{}", "a length that is none");
}

static void
test_utf8(void)
{
	static const char bytes[] = "a\0\xC3\xA4\xFF\xE2\x82\xAC\xF0\x9F\x98\x80\xF4\x90\x80\x80\xC0\x80\xE2\x82";
	char		copy[3 * sizeof(bytes)];
	size_t		length = utf8_clean((const uint8_t *) bytes, sizeof(bytes) - 1, copy);

#define BAD "\xEF\xBF\xBD"
	copy[length] = '\0';
	is(copy, "a" BAD "\xC3\xA4" BAD "\xE2\x82\xAC\xF0\x9F\x98\x80" BAD BAD BAD BAD BAD BAD BAD BAD, "what is not UTF-8 is replaced");
}

static void
test_fuzz(long n)
{
	static const uint8_t interesting[] = {0, 1, 2, 3, 5, 7, 8, 10, 12, 0x7F, 0x80, 0xFF};
	Builder		exif[2];
	uint8_t		block[sizeof(exif[0].bytes)];
	const char *broken = NULL;
	long		found = 0;
	long		i;

	build_photograph(&exif[0], false);
	build_photograph(&exif[1], true);
	for (i = 0; i < n && broken == NULL; i++)
	{
		bool		iptc = random_number() % 4 == 0;
		const Builder *source = &exif[random_number() % 2];
		size_t		length = source->length;
		size_t		room = random_number() % 4 == 0 ? 65 + random_number() % 400 : sizeof(text);
		int			n_changes = 1 + (int) (random_number() % 16);

		memcpy(block, source->bytes, length);
		if (iptc)
		{
			size_t		at = 0;

			while (at + 20 < length)
			{
				uint8_t		size = random_number() % 16;
				const uint8_t dataset[] = {0x1C, 2, (uint8_t) (random_number() % 32), 0, size};

				memcpy(block + at, dataset, sizeof(dataset));
				at += 5 + size;
			}
		}
		while (n_changes-- > 0)
		{
			/* Most of it is directories, at 8, 600, 1200 and 1600. */
			static const size_t starts[] = {0, 600, 1200, 1600, VALUES_START};
			size_t		place = starts[random_number() % 5] + random_number() % 160;

			if (place < length)
				block[place] = random_number() % 2 ? (uint8_t) random_number() :
					interesting[random_number() % sizeof(interesting)];
		}
		if (random_number() % 4 == 0)
			length = random_number() % (length + 1);
		if (strcmp(show_with(iptc ? iptc_to_json : read_exif, block, length, room), "none") != 0)
			found++;
		if (strncmp(text, "broken", 6) == 0)
			broken = text;
	}
	ok(broken == NULL, "%ld damaged blocks: %s", n, broken ? broken : "all give JSON");
	ok(found > n / 2, "%ld of them were readable", found);
}

int
main(int argc, char **argv)
{
	long		n_fuzz = 100000;

	if (argc == 3 && strcmp(argv[1], "--fuzz") == 0)
		n_fuzz = atol(argv[2]);
	else if (argc != 1)
	{
		fprintf(stderr, "usage: %s [--fuzz N]\n", argv[0]);
		return 2;
	}
	test_photograph();
	test_times();
	test_places();
	test_values();
	test_structure();
	test_iptc();
	test_utf8();
	test_fuzz(n_fuzz);
	printf("1..%d\n", n_tests);
	return n_failed > 0;
}
