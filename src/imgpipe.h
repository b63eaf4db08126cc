/*
 * imgpipe.h
 *		Settings and names that every room of the extension shares.
 */
#ifndef IMGPIPE_H
#define IMGPIPE_H

#include "postgres.h"

#include "compat.h"

#define IMGPIPE_SCHEMA		"imgpipe"
#define IMGPIPE_PARTITIONS	"imgpipe_partitions"

/* Settings; imgpipe.c defines and documents them. */
extern int	imgpipe_decoder_memory_limit;	/* MB */
extern int	imgpipe_decoder_timeout;	/* ms */
extern bool imgpipe_allow_unsandboxed_decoder;
extern int	imgpipe_max_bytes;	/* kB */
extern int	imgpipe_max_megapixels;	/* over all pages */
extern int	imgpipe_max_output_megapixels;
extern int	imgpipe_max_pages;
extern int	imgpipe_retention;	/* min */
extern int	imgpipe_partition_interval;	/* min */
extern int	imgpipe_min_processors;
extern int	imgpipe_max_processors;
extern int	imgpipe_max_ingest_workers;
extern int	imgpipe_task_lease; /* s */

/* True when loaded by shared_preload_libraries, so that workers can run. */
extern bool imgpipe_preloaded;

#endif							/* IMGPIPE_H */
