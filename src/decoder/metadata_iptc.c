/*
 * metadata_iptc.c
 *		IPTC-IIM (version 4) as JSON: a member for each dataset.
 *
 * The block is what libvips found: a JPEG's Photoshop resources, in one of
 * which the datasets lie, or the datasets themselves.  A dataset that may
 * come often, or does, is an array.
 */
#include "decoder/metadata.h"

#include <stdio.h>
#include <string.h>

#define RESOURCE_IPTC		0x0404
#define DATASET_MARK		0x1C
#define RECORD_APPLICATION	2

/* What more there may be is not looked at: real blocks have a few kB. */
#define MAX_BLOCK			(1024 * 1024)

typedef struct Dataset
{
	uint8_t		record;
	uint8_t		number;
	const uint8_t *value;
	size_t		length;
} Dataset;

typedef struct Block
{
	const uint8_t *next;
	const uint8_t *end;
} Block;

static const struct
{
	uint8_t		number;
	bool		repeatable;
	const char *name;
}			application_datasets[] = {
	{3, false, "ObjectTypeReference"},
	{4, true, "ObjectAttributeReference"},
	{5, false, "ObjectName"},
	{7, false, "EditStatus"},
	{10, false, "Urgency"},
	{12, true, "SubjectReference"},
	{15, false, "Category"},
	{20, true, "SupplementalCategory"},
	{22, false, "FixtureIdentifier"},
	{25, true, "Keywords"},
	{26, true, "ContentLocationCode"},
	{27, true, "ContentLocationName"},
	{30, false, "ReleaseDate"},
	{35, false, "ReleaseTime"},
	{37, false, "ExpirationDate"},
	{38, false, "ExpirationTime"},
	{40, false, "SpecialInstructions"},
	{55, false, "DateCreated"},
	{60, false, "TimeCreated"},
	{62, false, "DigitalCreationDate"},
	{63, false, "DigitalCreationTime"},
	{65, false, "OriginatingProgram"},
	{70, false, "ProgramVersion"},
	{75, false, "ObjectCycle"},
	{80, true, "Byline"},
	{85, true, "BylineTitle"},
	{90, false, "City"},
	{92, false, "Sublocation"},
	{95, false, "ProvinceState"},
	{100, false, "CountryCode"},
	{101, false, "CountryName"},
	{103, false, "OriginalTransmissionReference"},
	{105, false, "Headline"},
	{110, false, "Credit"},
	{115, false, "Source"},
	{116, false, "CopyrightNotice"},
	{118, true, "Contact"},
	{120, false, "Caption"},
	{122, true, "Writer"},
	{130, false, "ImageType"},
	{131, false, "ImageOrientation"},
	{135, false, "LanguageIdentifier"}
};

static uint32_t
read_number(const uint8_t *bytes, size_t size)
{
	uint32_t	number = 0;

	while (size-- > 0)
		number = number << 8 | *bytes++;
	return number;
}

/* Narrows the block to its datasets where it is one of Photoshop's. */
static bool
find_datasets(Block *block)
{
	static const char photoshop[] = "Photoshop 3.0";

	if ((size_t) (block->end - block->next) < sizeof(photoshop) ||
		memcmp(block->next, photoshop, sizeof(photoshop)) != 0)
		return block->next < block->end && *block->next == DATASET_MARK;

	/* "8BIM", number, name with its length, to an even size, length, bytes likewise. */
	block->next += sizeof(photoshop);
	while (block->end - block->next >= 7 && memcmp(block->next, "8BIM", 4) == 0)
	{
		uint32_t	resource = read_number(block->next + 4, 2);
		size_t		header = 6 + ((1 + (size_t) block->next[6] + 1) & ~(size_t) 1);
		size_t		length;

		if ((size_t) (block->end - block->next) < header + 4)
			return false;
		length = read_number(block->next + header, 4);
		block->next += header + 4;
		if (length > (size_t) (block->end - block->next))
			return false;
		if (resource == RESOURCE_IPTC)
		{
			block->end = block->next + length;
			return true;
		}
		length += length & 1;
		block->next += length < (size_t) (block->end - block->next) ?
			length : (size_t) (block->end - block->next);
	}
	return false;
}

/* Takes the next dataset off the block; false at its end or where it is damaged. */
static bool
next_dataset(Block *block, Dataset *dataset)
{
	size_t		left = block->end - block->next;
	size_t		header = 5;

	if (left < header || block->next[0] != DATASET_MARK)
		return false;
	dataset->record = block->next[1];
	dataset->number = block->next[2];
	dataset->length = read_number(block->next + 3, 2);
	if (dataset->length & 0x8000)
	{
		/* An extended dataset: this was the size of its length. */
		size_t		size = dataset->length & 0x7FFF;

		if (size > 4 || left < header + size)
			return false;
		dataset->length = read_number(block->next + header, size);
		header += size;
	}
	if (dataset->length > left - header)
		return false;
	dataset->value = block->next + header;
	block->next += header + dataset->length;
	return true;
}

static bool
same_dataset(const Dataset *one, const Dataset *other)
{
	return one->record == other->record && one->number == other->number;
}

static void
write_text(const Dataset *dataset, JsonWriter *json)
{
	size_t		length = dataset->length;

	while (length > 0 && dataset->value[length - 1] == '\0')
		length--;
	json_string(json, dataset->value, length);
}

/* One member for this dataset and all of its kind that follow in rest. */
static void
write_member(const Dataset *first, Block rest, JsonWriter *json)
{
	char		number[16];
	const char *name = number;
	Block		ahead = rest;
	Dataset		other;
	bool		many = false;
	int			n_values = 1;
	size_t		mark = json_mark(json);
	size_t		i;

	snprintf(number, sizeof(number), "%d:%d", first->record, first->number);
	for (i = 0; i < sizeof(application_datasets) / sizeof(application_datasets[0]); i++)
	{
		if (first->record == RECORD_APPLICATION && first->number == application_datasets[i].number)
		{
			name = application_datasets[i].name;
			many = application_datasets[i].repeatable;
		}
	}
	while (!many && next_dataset(&ahead, &other))
		many = same_dataset(first, &other);

	json_key(json, name);
	if (many)
		json_begin(json, '[');
	write_text(first, json);
	while (many && n_values < METADATA_MAX_VALUES && next_dataset(&rest, &other))
	{
		if (same_dataset(first, &other))
		{
			write_text(&other, json);
			n_values++;
		}
	}
	if (many)
		json_end(json, ']');
	json_keep(json, mark);
}

bool
iptc_to_json(const uint8_t *bytes, size_t length, JsonWriter *json)
{
	Block		block = {bytes, bytes + length};
	bool		seen[256] = {false};
	Dataset		dataset;

	if (!find_datasets(&block))
		return false;
	if (block.end - block.next > MAX_BLOCK)
	{
		block.end = block.next + MAX_BLOCK;
		json->truncated = true;
	}

	while (next_dataset(&block, &dataset))
	{
		/* Record 2 is the editors'; dataset 0 of it a binary version number. */
		if (dataset.record != RECORD_APPLICATION || dataset.number == 0 || seen[dataset.number])
			continue;
		seen[dataset.number] = true;
		write_member(&dataset, block, json);
	}
	json_finish(json);
	return true;
}
