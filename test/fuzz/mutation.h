/*
 * mutation.h
 *		Damages image files, in ways that get past the first check of a codec.
 */
#ifndef IMGPIPE_MUTATION_H
#define IMGPIPE_MUTATION_H

#include <stddef.h>
#include <stdint.h>

/* A file of the corpus. */
typedef struct Seed
{
	unsigned char *bytes;
	size_t		length;
} Seed;

/* A generator that gives the same numbers everywhere. */
typedef struct Random
{
	uint64_t	state;
} Random;

extern uint64_t random_next(Random *random);
extern size_t random_below(Random *random, size_t limit);

/*
 * Damages one file of the corpus, with parts of others, and puts what comes of
 * it into mutant, which has room for capacity bytes; its length.
 */
extern size_t mutate(Random *random, const Seed *corpus, size_t n_seeds,
					 unsigned char *mutant, size_t capacity);

#endif							/* IMGPIPE_MUTATION_H */
