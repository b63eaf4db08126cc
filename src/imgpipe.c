/*
 * imgpipe.c
 *		Module entry: settings, shared memory, the launcher's registration.
 *
 * Without shared_preload_libraries the library is loaded by the first function
 * that needs it; then there is no shared memory and there are no workers, and
 * everything else works.
 */
#include "postgres.h"

#include <limits.h>

#include "fmgr.h"
#include "image/facts.h"
#include "imgpipe.h"
#include "ingest/database_identity.h"
#include "miscadmin.h"
#include "store/restored_indexes.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "workers/database_commands.h"
#include "workers/launcher.h"
#include "workers/shared_state.h"

PG_MODULE_MAGIC;

int			imgpipe_decoder_memory_limit;
int			imgpipe_decoder_timeout;
int			imgpipe_decoder_idle_timeout;
bool		imgpipe_allow_unsandboxed_decoder;
char	   *imgpipe_allowed_formats;
uint32		imgpipe_allowed_format_bits;
bool		imgpipe_verify_input;
int			imgpipe_max_bytes;
int			imgpipe_max_megapixels;
int			imgpipe_max_output_megapixels;
int			imgpipe_max_pages;
int			imgpipe_retention;
int			imgpipe_max_retention;
int			imgpipe_cold_after;
char	   *imgpipe_cold_tablespace;
char	   *imgpipe_fault_point;
int			imgpipe_partition_interval;
int			imgpipe_min_processors;
int			imgpipe_max_processors;
int			imgpipe_max_ingest_workers;
int			imgpipe_max_outbox;
int			imgpipe_task_lease;
int			imgpipe_max_jobs;
int			imgpipe_ingest_history;
int			imgpipe_job_history;
int			imgpipe_job_error_history;
int			imgpipe_clock_offset;

bool		imgpipe_preloaded = false;

PGDLLEXPORT void _PG_init(void);

/* Partitions begin on the hour and divide a day, so that they can be read off. */
static bool
check_partition_interval(int *minutes, void **extra, GucSource source)
{
	if (*minutes % 60 == 0 && 1440 % *minutes == 0)
		return true;
	GUC_check_errdetail("A partition must span whole hours that divide a day: 1, 2, 3, 4, 6, 8, 12 or 24 hours.");
	return false;
}

static bool
check_allowed_formats(char **names, void **extra, GucSource source)
{
	const char *wrong;
	size_t		length;

	if (image_formats_parse(*names, &wrong, &length) != 0)
		return true;
	if (length > 0)
		GUC_check_errdetail("There is no image format \"%.*s\".", (int) length, wrong);
	else
		GUC_check_errdetail("The name of a format is missing.");
	GUC_check_errhint("Name at least one of jpeg, png, webp, gif, tiff, heic and avif, parted by commas.");
	return false;
}

static void
assign_allowed_formats(const char *names, void *extra)
{
	const char *wrong;
	size_t		length;

	imgpipe_allowed_format_bits = image_formats_parse(names, &wrong, &length);
}

static void
define_decoder_settings(void)
{
	DefineCustomIntVariable("imgpipe.decoder_memory_limit",
							"Memory that one image decoder may allocate.",
							"A new value holds for decoders that start after it is set.",
							&imgpipe_decoder_memory_limit,
							512, 64, 1024 * 1024,
							PGC_SUSET, GUC_UNIT_MB,
							NULL, NULL, NULL);
	DefineCustomIntVariable("imgpipe.decoder_timeout",
							"Time after which the work on one image is given up and its decoder killed.",
							NULL,
							&imgpipe_decoder_timeout,
							30 * 1000, 100, INT_MAX,
							PGC_USERSET, GUC_UNIT_MS,
							NULL, NULL, NULL);
	DefineCustomIntVariable("imgpipe.decoder_idle_timeout",
							"Time without a request after which an image decoder ends.",
							"The next request starts a new one. 0 lets it stay for as long as its session.",
							&imgpipe_decoder_idle_timeout,
							60 * 1000, 0, INT_MAX,
							PGC_USERSET, GUC_UNIT_MS,
							NULL, NULL, NULL);
	DefineCustomBoolVariable("imgpipe.allow_unsandboxed_decoder",
							 "Lets the image decoder run where the platform has no seccomp.",
							 "Image codecs parse hostile bytes; without the sandbox a fault in one of them "
							 "gives an attacker the rights of the server's operating system user.",
							 &imgpipe_allow_unsandboxed_decoder,
							 false,
							 PGC_SUSET, 0,
							 NULL, NULL, NULL);
}

static void
define_limit_settings(void)
{
	DefineCustomStringVariable("imgpipe.allowed_formats",
							   "Formats of images that are accepted and decoded.",
							   "Names from jpeg, png, webp, gif, tiff, heic and avif, parted by commas.",
							   &imgpipe_allowed_formats,
							   "jpeg, png, webp, gif, tiff, heic, avif",
							   PGC_SUSET, GUC_LIST_INPUT,
							   check_allowed_formats, assign_allowed_formats, NULL);
	DefineCustomBoolVariable("imgpipe.verify_input",
							 "Decodes every image that comes in whole, and refuses those with damaged pixels.",
							 "Otherwise only headers are read, and damage shows when an image is processed. "
							 "See imgpipe.verify_image().",
							 &imgpipe_verify_input,
							 false,
							 PGC_SUSET, 0,
							 NULL, NULL, NULL);
	DefineCustomIntVariable("imgpipe.max_bytes",
							"Largest image file that is accepted.",
							NULL,
							&imgpipe_max_bytes,
							256 * 1024, 1, 1000 * 1024,
							PGC_SUSET, GUC_UNIT_KB,
							NULL, NULL, NULL);
	DefineCustomIntVariable("imgpipe.max_megapixels",
							"Most pixels of an image that is accepted, over all of its pages, in millions.",
							NULL,
							&imgpipe_max_megapixels,
							100, 1, 100000,
							PGC_SUSET, 0,
							NULL, NULL, NULL);
	DefineCustomIntVariable("imgpipe.max_output_megapixels",
							"Most pixels of an image that process_image() makes, over all of its pages, in millions.",
							NULL,
							&imgpipe_max_output_megapixels,
							100, 1, 100000,
							PGC_SUSET, 0,
							NULL, NULL, NULL);
	DefineCustomIntVariable("imgpipe.max_pages",
							"Most pages or frames of an image that is accepted.",
							NULL,
							&imgpipe_max_pages,
							1000, 1, 100000,
							PGC_SUSET, 0,
							NULL, NULL, NULL);
}

static void
define_store_settings(void)
{
	DefineCustomIntVariable("imgpipe.retention",
							"How long images and all that belongs to them are kept, where nothing else is said.",
							NULL,
							&imgpipe_retention,
							7 * 24 * 60, 1, 10 * 366 * 24 * 60,
							PGC_SUSET, GUC_UNIT_MIN,
							NULL, NULL, NULL);
	DefineCustomIntVariable("imgpipe.max_retention",
							"Longest time that an image can be kept, whatever its source or its INSERT say.",
							"0 stands for imgpipe.retention. Partitions are made ahead for so long.",
							&imgpipe_max_retention,
							0, 0, 10 * 366 * 24 * 60,
							PGC_SUSET, GUC_UNIT_MIN,
							NULL, NULL, NULL);
	DefineCustomStringVariable("imgpipe.cold_tablespace",
							   "Tablespace that partitions are moved to before they are purged.",
							   "Empty: they stay where they are. See imgpipe.cold_after.",
							   &imgpipe_cold_tablespace,
							   "",
							   PGC_SIGHUP, 0,
							   NULL, NULL, NULL);
	DefineCustomIntVariable("imgpipe.cold_after",
							"Age of images at which their partition is moved to imgpipe.cold_tablespace.",
							"Their age is counted as if all were kept for imgpipe.retention.",
							&imgpipe_cold_after,
							2 * 24 * 60, 60, 10 * 366 * 24 * 60,
							PGC_SIGHUP, GUC_UNIT_MIN,
							NULL, NULL, NULL);
	DefineCustomStringVariable("imgpipe.fault_point",
							   "Makes the purge wait at the place of that name, for tests that kill it there.",
							   NULL,
							   &imgpipe_fault_point,
							   "",
							   PGC_SUSET, GUC_NOT_IN_SAMPLE,
							   NULL, NULL, NULL);
	DefineCustomIntVariable("imgpipe.partition_interval",
							"Span of purge deadlines in one partition.",
							"Whole hours that divide a day. A new value holds for partitions made after it is set.",
							&imgpipe_partition_interval,
							6 * 60, 60, 24 * 60,
							PGC_SUSET, GUC_UNIT_MIN,
							check_partition_interval, NULL, NULL);
}

static void
define_worker_settings(void)
{
	DefineCustomIntVariable("imgpipe.min_processors",
							"Processor workers that are kept in each database even when there is nothing to do.",
							NULL,
							&imgpipe_min_processors,
							0, 0, 64,
							PGC_SIGHUP, 0,
							NULL, NULL, NULL);
	DefineCustomIntVariable("imgpipe.max_processors",
							"Most processor workers in each database.",
							"Each uses one CPU while it works, one of max_worker_processes, and one image decoder.",
							&imgpipe_max_processors,
							2, 0, 64,
							PGC_SIGHUP, 0,
							NULL, NULL, NULL);
	DefineCustomIntVariable("imgpipe.max_ingest_workers",
							"Most ingest workers in each database.",
							"Each uses one of max_worker_processes, and one image decoder. "
							"0 keeps messages from being sent to Kafka, too.",
							&imgpipe_max_ingest_workers,
							16, 0, 64,
							PGC_SIGHUP, 0,
							NULL, NULL, NULL);
	DefineCustomIntVariable("imgpipe.max_outbox",
							"Messages that wait to be sent to a Kafka server above which ingest from there rests.",
							"Holds for sources with a result_topic or a dead_letter_topic. 0 for no limit.",
							&imgpipe_max_outbox,
							100000, 0, INT_MAX,
							PGC_SIGHUP, 0,
							NULL, NULL, NULL);
	DefineCustomIntVariable("imgpipe.task_lease",
							"Time after which a task that a processor worker has taken is given to another one.",
							NULL,
							&imgpipe_task_lease,
							60, 1, 24 * 3600,
							PGC_SIGHUP, GUC_UNIT_S,
							NULL, NULL, NULL);
}

static void
define_job_settings(void)
{
	DefineCustomIntVariable("imgpipe.max_jobs",
							"Most jobs that run at the same time in each database.",
							"Each uses one of max_worker_processes. 0 keeps all jobs from being started.",
							&imgpipe_max_jobs,
							4, 0, 64,
							PGC_SIGHUP, 0,
							NULL, NULL, NULL);
	DefineCustomIntVariable("imgpipe.ingest_history",
							"How long batches are kept in imgpipe.ingest_batches; 0 records none.",
							NULL,
							&imgpipe_ingest_history,
							24 * 60, 0, 366 * 24 * 60,
							PGC_SIGHUP, GUC_UNIT_MIN,
							NULL, NULL, NULL);
	DefineCustomIntVariable("imgpipe.job_history",
							"How long successful runs of jobs are kept in imgpipe.job_runs.",
							NULL,
							&imgpipe_job_history,
							7 * 24 * 60, 0, 10 * 366 * 24 * 60,
							PGC_SIGHUP, GUC_UNIT_MIN,
							NULL, NULL, NULL);
	DefineCustomIntVariable("imgpipe.job_error_history",
							"How long all other runs of jobs are kept in imgpipe.job_runs.",
							NULL,
							&imgpipe_job_error_history,
							30 * 24 * 60, 0, 10 * 366 * 24 * 60,
							PGC_SIGHUP, GUC_UNIT_MIN,
							NULL, NULL, NULL);
	DefineCustomIntVariable("imgpipe.clock_offset",
							"Shifts the clock that schedules go by.",
							"For tests only.",
							&imgpipe_clock_offset,
							0, -INT_MAX, INT_MAX,
							PGC_SUSET, GUC_UNIT_S | GUC_NOT_IN_SAMPLE,
							NULL, NULL, NULL);
}

void
_PG_init(void)
{
	define_decoder_settings();
	define_limit_settings();
	define_store_settings();
	define_worker_settings();
	define_job_settings();
	MarkGUCPrefixReserved("imgpipe");
	restored_indexes_watch();

	if (process_shared_preload_libraries_in_progress)
	{
		imgpipe_preloaded = true;
		if (!IsBinaryUpgrade)
		{
			database_identity_look();
			shared_state_request();
			launcher_register();
			database_commands_watch();
		}
	}
}

PG_FUNCTION_INFO_V1(imgpipe_setting);
PGDLLEXPORT Datum imgpipe_setting(PG_FUNCTION_ARGS);

/* Being called loads the library, which defines the setting. */
Datum
imgpipe_setting(PG_FUNCTION_ARGS)
{
	PG_RETURN_TEXT_P(cstring_to_text(GetConfigOptionByName(text_to_cstring(PG_GETARG_TEXT_PP(0)), NULL, false)));
}
