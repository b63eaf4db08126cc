/*
 * metadata_json.c
 *		Writes JSON into a buffer of fixed size, from bytes of any kind.
 */
#include "decoder/metadata.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* Kept free for json_finish(): closing brackets and what it has to say. */
#define RESERVED	64

void
json_start(JsonWriter *json, char *text, size_t size)
{
	*json = (JsonWriter) {.text = text, .size = size - RESERVED};
	json_begin(json, '{');
}

size_t
json_mark(const JsonWriter *json)
{
	return json->length;
}

void
json_keep(JsonWriter *json, size_t mark)
{
	if (!json->overflow)
		return;
	json->length = mark;
	json->overflow = false;
	json->truncated = true;
}

static void
append(JsonWriter *json, const char *text, size_t length)
{
	if (json->overflow || length > json->size - json->length)
	{
		json->overflow = true;
		return;
	}
	memcpy(json->text + json->length, text, length);
	json->length += length;
}

static void
append_byte(JsonWriter *json, char byte)
{
	append(json, &byte, 1);
}

/* A value or key begins: parts it from the one before. */
static void
separate(JsonWriter *json)
{
	if (json->length > 0 && strchr("{[:", json->text[json->length - 1]) == NULL)
		append_byte(json, ',');
}

void
json_begin(JsonWriter *json, char bracket)
{
	separate(json);
	append_byte(json, bracket);
}

void
json_end(JsonWriter *json, char bracket)
{
	append_byte(json, bracket);
}

void
json_key(JsonWriter *json, const char *key)
{
	json_string(json, key, strlen(key));
	append_byte(json, ':');
}

void
json_null(JsonWriter *json)
{
	separate(json);
	append(json, "null", 4);
}

void
json_integer(JsonWriter *json, int64_t value)
{
	char		text[32];

	separate(json);
	append(json, text, snprintf(text, sizeof(text), "%lld", (long long) value));
}

void
json_number(JsonWriter *json, double value)
{
	char		text[32];

	if (!isfinite(value))
	{
		json_null(json);
		return;
	}
	separate(json);
	append(json, text, snprintf(text, sizeof(text), "%.15g", value));
}

/* Bytes of the UTF-8 character that the bytes begin with, 0 where they do not. */
static size_t
utf8_character(const uint8_t *bytes, size_t length)
{
	static const uint32_t smallest[] = {0, 0, 0x80, 0x800, 0x10000};
	uint32_t	code;
	size_t		size;
	size_t		i;

	if (bytes[0] < 0x80)
		return 1;
	if (bytes[0] >= 0xC2 && bytes[0] < 0xE0)
		size = 2;
	else if (bytes[0] >= 0xE0 && bytes[0] < 0xF0)
		size = 3;
	else if (bytes[0] >= 0xF0 && bytes[0] < 0xF5)
		size = 4;
	else
		return 0;
	if (size > length)
		return 0;

	code = bytes[0] & (0x7F >> size);
	for (i = 1; i < size; i++)
	{
		if ((bytes[i] & 0xC0) != 0x80)
			return 0;
		code = code << 6 | (bytes[i] & 0x3F);
	}
	if (code < smallest[size] || code > 0x10FFFF || (code >= 0xD800 && code < 0xE000))
		return 0;
	return size;
}

static bool
is_utf8(const uint8_t *bytes, size_t length)
{
	while (length > 0)
	{
		size_t		size = utf8_character(bytes, length);

		if (size == 0)
			return false;
		bytes += size;
		length -= size;
	}
	return true;
}

static size_t
utf8_encode(uint32_t code, char *bytes)
{
	if (code < 0x80)
	{
		bytes[0] = (char) code;
		return 1;
	}
	if (code < 0x800)
	{
		bytes[0] = (char) (0xC0 | code >> 6);
		bytes[1] = (char) (0x80 | (code & 0x3F));
		return 2;
	}
	if (code < 0x10000)
	{
		bytes[0] = (char) (0xE0 | code >> 12);
		bytes[1] = (char) (0x80 | (code >> 6 & 0x3F));
		bytes[2] = (char) (0x80 | (code & 0x3F));
		return 3;
	}
	bytes[0] = (char) (0xF0 | code >> 18);
	bytes[1] = (char) (0x80 | (code >> 12 & 0x3F));
	bytes[2] = (char) (0x80 | (code >> 6 & 0x3F));
	bytes[3] = (char) (0x80 | (code & 0x3F));
	return 4;
}

/* One character of a string; jsonb cannot hold NUL in any form. */
static void
append_character(JsonWriter *json, uint32_t code)
{
	char		text[8];

	if (code == 0)
		code = 0xFFFD;
	if (code == '"' || code == '\\')
	{
		append_byte(json, '\\');
		append_byte(json, (char) code);
	}
	else if (code < 0x20 || code == 0x7F)
		append(json, text, snprintf(text, sizeof(text), "\\u%04x", (unsigned int) code));
	else
		append(json, text, utf8_encode(code, text));
}

void
json_string(JsonWriter *json, const void *bytes, size_t length)
{
	const uint8_t *next = bytes;
	bool		utf8 = is_utf8(next, length);
	size_t		size;

	separate(json);
	append_byte(json, '"');
	for (; length > 0 && !json->overflow; next += size, length -= size)
	{
		size = utf8 ? utf8_character(next, length) : 1;
		if (size == 1)
			append_character(json, *next);
		else
			append(json, (const char *) next, size);
	}
	append_byte(json, '"');
}

void
json_string_utf16(JsonWriter *json, const uint8_t *bytes, size_t length, bool big_endian)
{
	size_t		i;

	separate(json);
	append_byte(json, '"');
	for (i = 0; i + 2 <= length && !json->overflow; i += 2)
	{
		uint32_t	code = big_endian ? bytes[i] << 8 | bytes[i + 1] : bytes[i + 1] << 8 | bytes[i];

		if (code >= 0xD800 && code < 0xDC00 && i + 4 <= length)
		{
			uint32_t	low = big_endian ? bytes[i + 2] << 8 | bytes[i + 3] :
				bytes[i + 3] << 8 | bytes[i + 2];

			if (low >= 0xDC00 && low < 0xE000)
			{
				code = 0x10000 + ((code - 0xD800) << 10 | (low - 0xDC00));
				i += 2;
			}
		}
		append_character(json, code >= 0xD800 && code < 0xE000 ? 0xFFFD : code);
	}
	append_byte(json, '"');
}

static void
append_hex(JsonWriter *json, const uint8_t *bytes, size_t length)
{
	char		text[4];
	size_t		i;

	separate(json);
	append(json, "\"\\\\x", 4);
	for (i = 0; i < length; i++)
		append(json, text, snprintf(text, sizeof(text), "%02x", bytes[i]));
	append_byte(json, '"');
}

void
json_blob(JsonWriter *json, const uint8_t *bytes, size_t length)
{
	if (length <= METADATA_MAX_VALUES)
	{
		append_hex(json, bytes, length);
		return;
	}
	json_begin(json, '{');
	json_key(json, "bytes");
	json_integer(json, (int64_t) length);
	json_key(json, "hex");
	append_hex(json, bytes, METADATA_MAX_VALUES);
	json_end(json, '}');
}

void
json_finish(JsonWriter *json)
{
	json->size += RESERVED;
	if (json->truncated)
	{
		json_key(json, "truncated");
		separate(json);
		append(json, "true", 4);
	}
	json_end(json, '}');
}

size_t
utf8_clean(const uint8_t *bytes, size_t length, char *copy)
{
	size_t		used = 0;

	while (length > 0)
	{
		size_t		size = utf8_character(bytes, length);

		if (size == 0 || *bytes == 0)
		{
			used += utf8_encode(0xFFFD, copy + used);
			size = 1;
		}
		else
		{
			memcpy(copy + used, bytes, size);
			used += size;
		}
		bytes += size;
		length -= size;
	}
	return used;
}
