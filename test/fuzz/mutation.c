/*
 * mutation.c
 *		The mutators of the fuzzer: bits, numbers, cuts, splices, chunks.
 *
 * A mutant is a file of the corpus with one to four mutations.  Formats made
 * of chunks (PNG, JPEG, WebP, HEIC, AVIF) also lose, double and swap whole
 * chunks or get some of other files, and most damaged PNGs get right checksums:
 * otherwise libpng would stop at the first wrong one, each time.
 */
#include "mutation.h"

#include <stdbool.h>
#include <string.h>
#include <zlib.h>

#define MAX_CHUNKS		256
#define PNG_SIGNATURE	8		/* bytes */

/* A mutant in the making. */
typedef struct Mutant
{
	unsigned char *bytes;
	size_t		length;
	size_t		capacity;
} Mutant;

typedef struct Chunk
{
	size_t		offset;
	size_t		length;
} Chunk;

typedef void (*Mutator) (Random *random, Mutant *mutant, const Seed *other);

/* Splitmix64. */
uint64_t
random_next(Random *random)
{
	uint64_t	value = random->state += UINT64_C(0x9e3779b97f4a7c15);

	value = (value ^ (value >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	value = (value ^ (value >> 27)) * UINT64_C(0x94d049bb133111eb);
	return value ^ (value >> 31);
}

size_t
random_below(Random *random, size_t limit)
{
	return limit == 0 ? 0 : random_next(random) % limit;
}

static uint32_t
read_big_endian(const unsigned char *bytes, int length)
{
	uint32_t	value = 0;

	while (length-- > 0)
		value = value << 8 | *bytes++;
	return value;
}

static void
write_number(unsigned char *bytes, uint32_t value, int length, bool big_endian)
{
	int			i;

	for (i = 0; i < length; i++)
		bytes[big_endian ? length - 1 - i : i] = value >> (8 * i);
}

static bool
is_png(const unsigned char *bytes, size_t length)
{
	return length > PNG_SIGNATURE && memcmp(bytes, "\x89PNG\r\n\x1a\n", PNG_SIGNATURE) == 0;
}

/* Where a number most likely means something: half of the time near the start. */
static size_t
random_offset(Random *random, size_t length)
{
	if (length > 256 && random_below(random, 2) == 0)
		length = 256;
	return random_below(random, length);
}

/* Mostly short, up to the whole. */
static size_t
random_length(Random *random, size_t limit)
{
	size_t		scale = (size_t) 1 << (2 + random_below(random, 16));

	return limit == 0 ? 0 : 1 + random_below(random, scale < limit ? scale : limit);
}

/* Makes room at offset, or cuts where the mutant would get too long. */
static void
insert(Mutant *mutant, size_t offset, const unsigned char *bytes, size_t length)
{
	if (length > mutant->capacity - mutant->length)
		length = mutant->capacity - mutant->length;
	memmove(mutant->bytes + offset + length, mutant->bytes + offset, mutant->length - offset);
	memcpy(mutant->bytes + offset, bytes, length);
	mutant->length += length;
}

static void
delete(Mutant *mutant, size_t offset, size_t length)
{
	memmove(mutant->bytes + offset, mutant->bytes + offset + length,
			mutant->length - offset - length);
	mutant->length -= length;
}

/*
 * The mutators
 */
static void
flip_bits(Random *random, Mutant *mutant, const Seed *other)
{
	size_t		n = 1 + random_below(random, 8);

	(void) other;
	while (n-- > 0)
		mutant->bytes[random_offset(random, mutant->length)] ^= 1 << random_below(random, 8);
}

static void
set_bytes(Random *random, Mutant *mutant, const Seed *other)
{
	size_t		n = 1 + random_below(random, 4);

	(void) other;
	while (n-- > 0)
		mutant->bytes[random_offset(random, mutant->length)] = random_next(random);
}

/* Numbers that overflow, are negative, or just too large. */
static void
set_number(Random *random, Mutant *mutant, const Seed *other)
{
	static const uint32_t numbers[] = {
		0, 1, 2, 7, 8, 16, 32, 64, 100, 127, 128, 255, 256, 257, 1000, 4096, 32767, 32768, 65535, 65536,
		0x00ffffff, 0x01000000, 0x10000000, 0x7fffffff, 0x80000000, 0xfffffffe, 0xffffffff
	};
	uint32_t	number = numbers[random_below(random, sizeof(numbers) / sizeof(numbers[0]))];
	size_t		size = 1 << random_below(random, 3);

	(void) other;
	if (mutant->length >= size)
		write_number(mutant->bytes + random_offset(random, mutant->length - size + 1),
					 number, size, random_below(random, 2));
}

static void
truncate_it(Random *random, Mutant *mutant, const Seed *other)
{
	(void) other;
	mutant->length = 1 + random_below(random, mutant->length);
}

static void
delete_range(Random *random, Mutant *mutant, const Seed *other)
{
	size_t		offset = random_offset(random, mutant->length);
	size_t		length = random_length(random, mutant->length - offset);

	(void) other;
	if (length < mutant->length)
		delete(mutant, offset, length);
}

static void
insert_range(Random *random, Mutant *mutant, const Seed *other)
{
	size_t		from = random_offset(random, other->length);

	insert(mutant, random_offset(random, mutant->length),
		   other->bytes + from, random_length(random, other->length - from));
}

static void
overwrite_range(Random *random, Mutant *mutant, const Seed *other)
{
	size_t		from = random_offset(random, other->length);
	size_t		to = random_offset(random, mutant->length);
	size_t		limit = other->length - from < mutant->length - to ?
		other->length - from : mutant->length - to;

	memmove(mutant->bytes + to, other->bytes + from, random_length(random, limit));
}

static void
swap_ranges(Random *random, Mutant *mutant, const Seed *other)
{
	size_t		a = random_below(random, mutant->length);
	size_t		b = random_below(random, mutant->length);
	size_t		limit = mutant->length - (a > b ? a : b);
	size_t		length = random_length(random, limit);
	size_t		i;

	(void) other;
	for (i = 0; i < length; i++)
	{
		unsigned char byte = mutant->bytes[a + i];

		mutant->bytes[a + i] = mutant->bytes[b + i];
		mutant->bytes[b + i] = byte;
	}
}

/* The beginning of one file before the rest of another. */
static void
splice_header(Random *random, Mutant *mutant, const Seed *other)
{
	size_t		length = 1 + random_offset(random, other->length);

	if (length > mutant->length)
		length = mutant->length;
	memcpy(mutant->bytes, other->bytes, length);
}

/*
 * The chunks of a file, as far as its lengths make sense; what follows is the
 * last one.
 */
static size_t
find_chunks(const unsigned char *bytes, size_t length, Chunk *chunks)
{
	bool		png = is_png(bytes, length);
	bool		riff = length > 12 && memcmp(bytes, "RIFF", 4) == 0;
	bool		boxes = length > 12 && memcmp(bytes + 4, "ftyp", 4) == 0;
	bool		jpeg = length > 4 && bytes[0] == 0xff && bytes[1] == 0xd8;
	size_t		offset = png ? PNG_SIGNATURE : riff ? 12 : boxes ? 0 : 2;
	size_t		n = 0;

	if (!png && !riff && !boxes && !jpeg)
		return 0;
	while (n < MAX_CHUNKS - 1 && offset + 8 <= length)
	{
		const unsigned char *start = bytes + offset;
		size_t		size;

		if (png)
			size = (size_t) read_big_endian(start, 4) + 12;
		else if (riff)
			size = (size_t) (start[4] | start[5] << 8 | start[6] << 16) + 8;
		else if (boxes)
			size = read_big_endian(start, 4);
		else
			size = start[0] == 0xff && start[1] != 0xda ? (size_t) read_big_endian(start + 2, 2) + 2 : 0;
		if (size < 4 || size > length - offset)
			break;
		chunks[n++] = (Chunk) {offset, size};
		offset += size;
	}
	if (offset < length)
		chunks[n++] = (Chunk) {offset, length - offset};
	return n;
}

/* Deletes, doubles or moves a chunk, or takes one of another file. */
static void
juggle_chunks(Random *random, Mutant *mutant, const Seed *other)
{
	static Chunk chunks[MAX_CHUNKS];
	static Chunk foreign[MAX_CHUNKS];
	size_t		n = find_chunks(mutant->bytes, mutant->length, chunks);
	size_t		n_foreign = find_chunks(other->bytes, other->length, foreign);
	Chunk		chunk;
	Chunk		target;

	if (n < 2)
	{
		swap_ranges(random, mutant, other);
		return;
	}
	chunk = chunks[random_below(random, n)];
	target = chunks[random_below(random, n)];
	switch (random_below(random, 4))
	{
		case 0:
			if (chunk.length < mutant->length)
				delete(mutant, chunk.offset, chunk.length);
			break;
		case 1:
			/* Behind the mutant for a moment: the source moves with the target. */
			if (chunk.length <= (mutant->capacity - mutant->length) / 2)
			{
				unsigned char *copy = mutant->bytes + mutant->capacity - chunk.length;

				memcpy(copy, mutant->bytes + chunk.offset, chunk.length);
				insert(mutant, target.offset, copy, chunk.length);
			}
			break;
		case 2:
			if (n_foreign > 0)
			{
				chunk = foreign[random_below(random, n_foreign)];
				insert(mutant, target.offset, other->bytes + chunk.offset, chunk.length);
			}
			break;
		default:
			/* Damage inside of one chunk, its length word left alone. */
			if (chunk.length > 8)
			{
				Mutant		inside = {mutant->bytes + chunk.offset + 8, chunk.length - 8, chunk.length - 8};

				flip_bits(random, &inside, other);
			}
			break;
	}
}

static void
repair_png_checksums(Mutant *mutant)
{
	static Chunk chunks[MAX_CHUNKS];
	size_t		n = find_chunks(mutant->bytes, mutant->length, chunks);
	size_t		i;

	for (i = 0; i < n; i++)
	{
		unsigned char *chunk = mutant->bytes + chunks[i].offset;
		size_t		length = chunks[i].length;

		if (length >= 12)
			write_number(chunk + length - 4, crc32(0, chunk + 4, length - 8), 4, true);
	}
}

size_t
mutate(Random *random, const Seed *corpus, size_t n_seeds,
	   unsigned char *mutant, size_t capacity)
{
	static const Mutator mutators[] = {
		flip_bits, flip_bits, set_bytes, set_number, set_number, truncate_it, delete_range, insert_range,
		overwrite_range, swap_ranges, splice_header, juggle_chunks, juggle_chunks
	};
	const Seed *seed = &corpus[random_below(random, n_seeds)];
	Mutant		work = {mutant, seed->length < capacity ? seed->length : capacity, capacity};
	size_t		n = 1 + random_below(random, 4);

	memcpy(mutant, seed->bytes, work.length);
	while (n-- > 0)
		mutators[random_below(random, sizeof(mutators) / sizeof(mutators[0]))]
			(random, &work, &corpus[random_below(random, n_seeds)]);
	if (is_png(work.bytes, work.length) && random_below(random, 4) > 0)
		repair_png_checksums(&work);
	return work.length;
}
