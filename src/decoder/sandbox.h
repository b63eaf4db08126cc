/*
 * sandbox.h
 *		The walls around imgpipe-decoder.
 */
#ifndef IMGPIPE_SANDBOX_H
#define IMGPIPE_SANDBOX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Before anything else: descriptors, limits, the bond with the parent. */
extern bool sandbox_prepare(uint64_t memory_limit, char *message, size_t size);

/*
 * The point of no return, for all threads: from here on the process cannot
 * open, connect, start or touch anything.  False where that cannot be had.
 */
extern bool sandbox_enter(char *message, size_t size);

/*
 * Tries what the sandbox must refuse and writes a line for each to report,
 * "attempt<TAB>refused|allowed<TAB>error"; true where all was refused.
 * report may be NULL.
 */
extern bool sandbox_test(char *report, size_t size);

#endif							/* IMGPIPE_SANDBOX_H */
