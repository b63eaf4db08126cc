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
extern int	imgpipe_decoder_idle_timeout;	/* ms, 0 for never */
extern bool imgpipe_allow_unsandboxed_decoder;
extern char *imgpipe_allowed_formats;
extern uint32 imgpipe_allowed_format_bits;	/* the same, IMAGE_FORMAT_BIT */
extern bool imgpipe_verify_input;
extern int	imgpipe_max_bytes;	/* kB */
extern int	imgpipe_max_megapixels;	/* over all pages */
extern int	imgpipe_max_output_megapixels;
extern int	imgpipe_max_pages;
extern int	imgpipe_retention;	/* min */
extern int	imgpipe_max_retention;	/* min; 0: imgpipe_retention */
extern int	imgpipe_cold_after; /* min */
extern char *imgpipe_cold_tablespace;
extern char *imgpipe_fault_point;
extern int	imgpipe_partition_interval;	/* min */
extern int	imgpipe_min_processors;
extern int	imgpipe_max_processors;
extern int	imgpipe_max_ingest_workers;
extern int	imgpipe_max_outbox;
extern int	imgpipe_task_lease; /* s */
extern int	imgpipe_max_jobs;
extern int	imgpipe_ingest_history; /* min */
extern int	imgpipe_job_history;	/* min */
extern int	imgpipe_job_error_history;	/* min */
extern int	imgpipe_clock_offset;	/* s */

/* True when loaded by shared_preload_libraries, so that workers can run. */
extern bool imgpipe_preloaded;

#endif							/* IMGPIPE_H */
