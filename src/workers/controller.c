/*
 * controller.c
 *		The controller: one process for each database with imgpipe.
 *
 * Every round it makes partitions ahead, and sees to it that the workers run
 * that the purge, sources, the queue, jobs and the outbox call for.  It connects as
 * the bootstrap superuser and therefore runs nothing but the extension's own
 * statements, as the extension's owner.  A duty that fails is reported and
 * tried again in the next round, and does not keep the others from being done.
 */
#include "postgres.h"

#include <signal.h>

#include "access/xact.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/interrupt.h"
#include "retention/purge.h"
#include "storage/ipc.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "workers/shared_state.h"
#include "workers/worker.h"

/* All in ms. */
#define BUSY_ROUND			1000	/* between rounds while there is work to look after */
#define IDLE_ROUND			30000
#define SHORTEST_ROUND		50		/* however often it is woken */
#define STORE_ROUND			10000	/* between looks at partitions */
#define PURGE_ROUND			900		/* between looks for what is overdue */
#define SETTLING_ROUND		60000	/* between looks for results that nobody completes */
#define START_GRACE			30000	/* for a worker to come up */
#define RESTORE_GRACE		3600000	/* for the end of a dump that is being restored */
#define STOP_GRACE			10000	/* for a worker to end by itself */
#define FAILURE_PAUSE		5000	/* before what failed is started again */

/* One more processor worker for so many due tasks. */
#define TASKS_PER_PROCESSOR	8

typedef void (*Duty) (void);

PGDLLEXPORT void imgpipe_controller_main(Datum argument);

static ControllerSlot *controller;
static BackgroundWorkerHandle *handles[IMGPIPE_MAX_WORKERS];
static bool installed;			/* the row of imgpipe.installation is there */
static bool busy;				/* sources or processors are on */
static TimestampTz jobs_due;	/* when to look at jobs again */

/* False where the database has a controller already. */
static bool
take_controller(void)
{
	bool		taken;

	SpinLockAcquire(&controller->mutex);
	taken = controller->pid == 0;
	if (taken)
	{
		controller->pid = MyProcPid;
		controller->latch = MyLatch;
	}
	SpinLockRelease(&controller->mutex);
	return taken;
}

static void
leave_controller(int code, Datum argument)
{
	TimestampTz retry_at = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), FAILURE_PAUSE);

	SpinLockAcquire(&controller->mutex);
	controller->pid = 0;
	controller->latch = NULL;
	controller->retry_at = code == 0 || controller->held ? 0 : retry_at;
	/* Only where it ended by itself, it knows that there is nothing to serve. */
	controller->wanted |= code != 0;
	SpinLockRelease(&controller->mutex);
}

/* A statement of our own; the result is in SPI_tuptable. */
static void
run(const char *statement, int expected)
{
	int			result = SPI_execute(statement, false, 0);

	if (result != expected)
		elog(ERROR, "unexpected result %d of: %s", result, statement);
}

static int64
number_at(uint64 row, int column)
{
	bool		isnull;
	Datum		value = SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column, &isnull);

	return isnull ? 0 : DatumGetInt64(value);
}

/* One duty in a transaction of its own; false where it failed. */
static bool
do_duty(Duty duty, const char *activity)
{
	MemoryContext context = CurrentMemoryContext;
	InternalScope scope;
	volatile bool done = false;

	PG_TRY();
	{
		worker_transaction_begin(activity);
		internal_begin(&scope);
		duty();
		internal_end(&scope);
		worker_transaction_commit();
		done = true;
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		worker_transaction_abort();
		if (error->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE)
			ereport(DEBUG1, (errmsg_internal("imgpipe: %s: %s", activity, error->message)));
		else
			ereport(LOG,
					(errcode(error->sqlerrcode),
					 errmsg("imgpipe: %s failed: %s", activity, error->message),
					 error->detail ? errdetail_internal("%s", error->detail) : 0,
					 error->hint ? errhint("%s", error->hint) : 0,
					 error->context ? errcontext("%s", error->context) : 0));
		FreeErrorData(error);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CHECK_FOR_INTERRUPTS();
	return done;
}

/*
 * Where the row was missing, a dump is being restored.  It comes with the data,
 * indexes come later: who may be restoring is waited for, or the purge would
 * take partitions away under the rest of the dump.
 */
static void
look_at_installation(void)
{
	static bool restoring = false;
	static TimestampTz restored_at = 0;
	int64		age;

	run("SELECT 1 FROM imgpipe.installation", SPI_OK_SELECT);
	installed = SPI_processed > 0 && !restoring;
	if (installed)
		return;
	restoring = true;
	if (SPI_processed == 0)
		return;
	if (restored_at == 0)
		restored_at = GetCurrentTimestamp();
	age = (GetCurrentTimestamp() - restored_at) / 1000;
	run(psprintf("SELECT 1 FROM pg_catalog.pg_stat_activity a JOIN pg_catalog.pg_roles r ON r.oid = a.usesysid"
				 " WHERE a.datid = %u AND a.backend_type = 'client backend' AND r.rolsuper"
				 " AND a.backend_start < pg_catalog.clock_timestamp() - " INT64_FORMAT " * interval '1 millisecond'"
				 " AND (a.state <> 'idle' OR a.state_change > pg_catalog.clock_timestamp() - interval '1 minute')",
				 MyDatabaseId, age), SPI_OK_SELECT);
	installed = SPI_processed == 0 || age > RESTORE_GRACE;
}

static int64 partitions_made;

static void
make_partitions(void)
{
	run("SELECT imgpipe.create_partitions(max_new => 16)::bigint", SPI_OK_SELECT);
	partitions_made = number_at(0, 1);
}

static void
look_after_partitions(void)
{
	do
		partitions_made = 0;
	while (do_duty(make_partitions, "making partitions") && partitions_made > 0);
}

/*
 * Slots.  A worker sets its pid when it comes up and clears it when it ends;
 * in between start and that, the handle tells whether it still may.
 */

static bool
slot_is_alive(int index)
{
	WorkerSlot *slot = &shared_state->workers[index];
	pid_t		pid;
	bool		starting;
	TimestampTz since;

	SpinLockAcquire(&slot->mutex);
	pid = slot->pid;
	starting = slot->state == WORKER_STARTING;
	since = slot->since;
	SpinLockRelease(&slot->mutex);
	if (pid != 0)
		return true;
	if (!starting)
		return false;
	if (handles[index] != NULL && GetBackgroundWorkerPid(handles[index], &pid) == BGWH_STOPPED)
		return false;
	return !TimestampDifferenceExceeds(since, GetCurrentTimestamp(), START_GRACE);
}

static bool
slot_is(const WorkerSlot *slot, WorkerKind kind)
{
	return slot->kind == kind && slot->database == MyDatabaseId;
}

/* Takes slot index, or the first free one where index is -1, and starts its worker. */
static bool
start_worker(int index, WorkerKind kind, Oid role, int32 object, int16 slice, int16 n_slices, int64 run_id)
{
	WorkerArguments arguments = {MyDatabaseId, role, object, slice, n_slices, index, run_id};
	char		name[BGW_MAXLEN];
	WorkerSlot *slot;
	bool		launched;
	int			i;

	for (i = 0; index < 0 && i < IMGPIPE_MAX_WORKERS; i++)
	{
		slot = &shared_state->workers[i];
		SpinLockAcquire(&slot->mutex);
		if (slot->kind == WORKER_NONE)
		{
			memset(&slot->kind, 0, sizeof(*slot) - offsetof(WorkerSlot, kind));
			slot->kind = kind;
			slot->database = MyDatabaseId;
			slot->lag = -1;
			index = i;
		}
		SpinLockRelease(&slot->mutex);
	}
	if (index < 0)
	{
		ereport(LOG,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("imgpipe cannot run more than %d workers", IMGPIPE_MAX_WORKERS)));
		return false;
	}
	slot = &shared_state->workers[index];
	SpinLockAcquire(&slot->mutex);
	slot->role = role;
	slot->object = object;
	slot->slice = slice;
	slot->n_slices = n_slices;
	slot->run = run_id;
	slot->stop_requested = false;
	slot->may_end = true;
	slot->state = WORKER_STARTING;
	slot->since = GetCurrentTimestamp();
	SpinLockRelease(&slot->mutex);

	arguments.slot = index;
	if (handles[index] != NULL)
		pfree(handles[index]);
	handles[index] = NULL;
	if (kind == WORKER_INGEST)
	{
		snprintf(name, sizeof(name), "imgpipe ingest source %d slice %d of %d", object, slice, n_slices);
		launched = worker_launch("imgpipe_ingest_main", "imgpipe ingest", name, &arguments, &handles[index]);
	}
	else if (kind == WORKER_PURGE)
		launched = worker_launch("imgpipe_purge_main", "imgpipe purge", "imgpipe purge", &arguments, &handles[index]);
	else if (kind == WORKER_SENDER)
	{
		snprintf(name, sizeof(name), "imgpipe sender %d", object);
		launched = worker_launch("imgpipe_sender_main", "imgpipe sender", name, &arguments, &handles[index]);
	}
	else if (kind == WORKER_JOB)
	{
		snprintf(name, sizeof(name), "imgpipe job %d", object);
		launched = worker_launch("imgpipe_job_main", "imgpipe job", name, &arguments, &handles[index]);
	}
	else
	{
		snprintf(name, sizeof(name), "imgpipe processor of role %u", role);
		launched = worker_launch("imgpipe_processor_main", "imgpipe processor", name, &arguments, &handles[index]);
	}
	if (launched)
		return true;
	handles[index] = NULL;
	SpinLockAcquire(&slot->mutex);
	slot->state = WORKER_FAILED;
	slot->retry_at = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), FAILURE_PAUSE);
	slot->last_error_at = GetCurrentTimestamp();
	strlcpy(slot->last_error, "no background worker is free: raise max_worker_processes", IMGPIPE_ERROR_SIZE);
	if (kind == WORKER_JOB)
		slot->kind = WORKER_NONE;	/* job_runs says why it waits */
	SpinLockRelease(&slot->mutex);
	return false;
}

/* Asks a worker to end; one that has not within STOP_GRACE is terminated. */
static void
stop_worker(int index)
{
	WorkerSlot *slot = &shared_state->workers[index];
	TimestampTz now = GetCurrentTimestamp();
	pid_t		pid;
	bool		terminate;

	SpinLockAcquire(&slot->mutex);
	pid = slot->pid;
	if (!slot->stop_requested)
	{
		slot->stop_requested = true;
		slot->retry_at = TimestampTzPlusMilliseconds(now, STOP_GRACE);
	}
	terminate = now > slot->retry_at;
	SpinLockRelease(&slot->mutex);
	if (pid != 0 && terminate)
		kill(pid, SIGTERM);
	else
		wake_process(pid);
}

/* A slot whose source is gone, or whose worker ended, is free for others. */
static void
free_slot(int index)
{
	SpinLockAcquire(&shared_state->workers[index].mutex);
	shared_state->workers[index].kind = WORKER_NONE;
	SpinLockRelease(&shared_state->workers[index].mutex);
}

static bool
may_retry(const WorkerSlot *slot)
{
	return slot->state != WORKER_FAILED || slot->retry_at <= GetCurrentTimestamp();
}

/*
 * The purge: a worker whenever something is due.  The first one after the
 * start of the controller goes before ingest.
 */
typedef enum FirstPurge
{
	PURGE_NOT_BEGUN,
	PURGE_BEGUN,
	PURGE_ONCE_DONE
} FirstPurge;

static FirstPurge first_purge = PURGE_NOT_BEGUN;
static TimestampTz purge_due;	/* DT_NOEND: nothing is there to be purged */

static void
look_after_purge(void)
{
	int			object = first_purge == PURGE_ONCE_DONE ? PURGE_PATIENTLY : PURGE_BEFORE_INGEST;
	bool		isnull;
	int			i;

	for (i = 0; i < IMGPIPE_MAX_WORKERS; i++)
	{
		if (!slot_is(&shared_state->workers[i], WORKER_PURGE))
			continue;
		if (slot_is_alive(i) || !may_retry(&shared_state->workers[i]))
			return;
		free_slot(i);
	}
	if (first_purge == PURGE_BEGUN)
		first_purge = PURGE_ONCE_DONE;

	run("SELECT imgpipe.next_purge()", SPI_OK_SELECT);
	purge_due = DatumGetTimestampTz(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	if (isnull)
		purge_due = DT_NOEND;
	if (purge_due > GetCurrentTimestamp())
		first_purge = PURGE_ONCE_DONE;
	else
	{
		if (first_purge == PURGE_NOT_BEGUN)
			first_purge = PURGE_BEGUN;
		start_worker(-1, WORKER_PURGE, InvalidOid, object, 0, 0, 0);
	}
}

/* For how long the purge need not be looked after, in ms. */
static long
purge_rest(TimestampTz last_round, TimestampTz this_round)
{
	TimestampTz now = GetCurrentTimestamp();
	long		rest = TimestampDifferenceMilliseconds(now, purge_due);

	/* What woke the controller in this round was not looked at. */
	if (last_round != this_round)
		rest = Min(rest, PURGE_ROUND);
	return Max(rest, PURGE_ROUND);
}

/* The row of look_after_sources() with this source, or -1. */
static int
source_row(int32 source)
{
	uint64		row;

	for (row = 0; row < SPI_processed; row++)
		if (number_at(row, 1) == source)
			return row;
	return -1;
}

/* The slot of a source's slice, or of a sender, or -1. */
static int
slot_of(WorkerKind kind, int32 object, int16 slice)
{
	int			i;

	for (i = 0; i < IMGPIPE_MAX_WORKERS; i++)
	{
		WorkerSlot *slot = &shared_state->workers[i];

		if (slot_is(slot, kind) && slot->object == object && slot->slice == slice)
			return i;
	}
	return -1;
}

/*
 * Ingest: one worker for each slice of each source that is on.  A worker whose
 * source is off, gone, or has another owner or parallelism now is stopped.  The
 * slot of a source that is off stays, for source_status.
 */
static void
look_after_sources(void)
{
	int			running = 0;
	uint64		row;
	int			i;

	run("SELECT source_id::bigint, owner::oid::bigint, CASE WHEN enabled THEN parallelism ELSE 0 END::bigint"
		" FROM imgpipe.sources ORDER BY source_id", SPI_OK_SELECT);

	for (i = 0; i < IMGPIPE_MAX_WORKERS; i++)
	{
		WorkerSlot *slot = &shared_state->workers[i];
		int			source;
		int			parallelism;

		if (!slot_is(slot, WORKER_INGEST))
			continue;
		source = source_row(slot->object);
		parallelism = source < 0 ? 0 : number_at(source, 3);
		if (parallelism == slot->n_slices && number_at(source, 2) == slot->role)
			running += slot_is_alive(i) ? 1 : 0;
		else if (slot_is_alive(i))
			stop_worker(i);
		else if (source < 0 || parallelism > 0)
			free_slot(i);
	}

	for (row = 0; row < SPI_processed; row++)
	{
		int			n_slices = number_at(row, 3);
		int			slice;

		busy |= n_slices > 0;
		for (slice = 0; slice < n_slices; slice++)
		{
			int			index = slot_of(WORKER_INGEST, number_at(row, 1), slice);

			if (index >= 0 &&
				(slot_is_alive(index) || !may_retry(&shared_state->workers[index])))
				continue;
			if (running >= imgpipe_max_ingest_workers)
			{
				ereport(LOG,
						(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
						 errmsg("imgpipe could not start an ingest worker: imgpipe.max_ingest_workers (%d) are running",
								imgpipe_max_ingest_workers)));
				return;
			}
			start_worker(index, WORKER_INGEST, number_at(row, 2), number_at(row, 1), slice, n_slices, 0);
			running++;
		}
	}
}

/* The outbox: a worker for each sender that has something to send; it ends by itself when it is idle. */
static void
look_after_senders(void)
{
	uint64		row;

	/* Whoever keeps a copy of the server's files from ingesting wants it to keep quiet. */
	if (imgpipe_max_ingest_workers == 0)
		return;
	run("SELECT sender_id::bigint, owner::oid::bigint FROM imgpipe.senders_with_messages()", SPI_OK_SELECT);
	busy |= SPI_processed > 0;
	for (row = 0; row < SPI_processed; row++)
	{
		int			index = slot_of(WORKER_SENDER, number_at(row, 1), 0);

		if (index < 0 || (!slot_is_alive(index) && may_retry(&shared_state->workers[index])))
			start_worker(index, WORKER_SENDER, number_at(row, 2), number_at(row, 1), 0, 0, 0);
	}
}

static void
settle_results(void)
{
	run("SELECT imgpipe.settle_results()", SPI_OK_SELECT);
}

/* An owner of processors: its due tasks and its workers. */
typedef struct Owner
{
	Oid			role;
	int64		due;
	int			workers;
	bool		failing;		/* one of its workers waits for its back-off */
} Owner;

static void
count_workers(Owner *owner, int *alive, int *kept)
{
	int			i;

	for (i = 0; i < IMGPIPE_MAX_WORKERS; i++)
	{
		WorkerSlot *slot = &shared_state->workers[i];

		if (!slot_is(slot, WORKER_PROCESSOR) || slot->role != owner->role)
			continue;
		if (!slot_is_alive(i))
		{
			if (may_retry(slot))
				free_slot(i);
			else
				owner->failing = true;
			continue;
		}
		owner->workers++;
		(*alive)++;
		slot->may_end = (*kept)++ >= imgpipe_min_processors;
		if (owner->due > 0)
			wake_process(slot->pid);
	}
}

/* Asks one worker of an owner that has several to make room for another owner. */
static void
make_room(const Owner *owners, int n)
{
	int			i;

	for (i = 0; i < IMGPIPE_MAX_WORKERS; i++)
	{
		WorkerSlot *slot = &shared_state->workers[i];
		int			o;

		if (!slot_is(slot, WORKER_PROCESSOR) || !slot_is_alive(i))
			continue;
		for (o = 0; o < n; o++)
			if (owners[o].role == slot->role && owners[o].workers > 1)
			{
				stop_worker(i);
				return;
			}
	}
}

/*
 * Processing: as many workers for each owner of processors as its due tasks
 * call for, imgpipe.max_processors in all, and one for everybody before a
 * second for anybody.  Workers end by themselves when they are idle, but for
 * imgpipe.min_processors of them.
 */
static void
look_after_processors(void)
{
	Owner	   *owners;
	int			n;
	int			alive = 0;
	int			kept = 0;
	int			share;
	int			i;

	run("SELECT owner::oid::bigint, due FROM imgpipe.due_tasks() ORDER BY due DESC, 1", SPI_OK_SELECT);
	n = SPI_processed;
	busy |= n > 0;
	owners = palloc0(Max(n, 1) * sizeof(Owner));
	for (i = 0; i < n; i++)
	{
		owners[i].role = number_at(i, 1);
		owners[i].due = number_at(i, 2);
		count_workers(&owners[i], &alive, &kept);
	}

	for (share = 1; share <= imgpipe_max_processors; share++)
		for (i = 0; i < n; i++)
		{
			int			needed = Min((owners[i].due + TASKS_PER_PROCESSOR - 1) / TASKS_PER_PROCESSOR, share);

			if (owners[i].failing || owners[i].workers >= share ||
				(owners[i].workers >= needed && kept >= imgpipe_min_processors))
				continue;
			if (alive >= imgpipe_max_processors)
			{
				if (share == 1)
					make_room(owners, n);
				return;
			}
			start_worker(-1, WORKER_PROCESSOR, owners[i].role, 0, 0, 0, 0);
			owners[i].workers++;
			alive++;
			kept++;
		}
}

/*
 * Jobs: tells of workers that ended without having recorded how their run did,
 * and records the runs that may begin.  See schedule/runs.sql.
 */
static void
look_after_jobs(void)
{
	StringInfoData statement;
	int			i;

	initStringInfo(&statement);
	for (i = 0; i < IMGPIPE_MAX_WORKERS; i++)
	{
		WorkerSlot *slot = &shared_state->workers[i];

		if (!slot_is(slot, WORKER_JOB) || slot_is_alive(i))
			continue;
		resetStringInfo(&statement);
		appendStringInfo(&statement, "SELECT imgpipe.lose_job_run(" INT64_FORMAT ", '%s', %s)", slot->run,
						 unpack_sql_state(slot->last_error[0] ? slot->last_sqlerrcode : ERRCODE_CRASH_SHUTDOWN),
						 quote_literal_cstr(slot->last_error[0] ? slot->last_error :
											"the worker ended and did not say why"));
		run(statement.data, SPI_OK_SELECT);
		free_slot(i);
	}

	resetStringInfo(&statement);
	appendStringInfoString(&statement, "SELECT imgpipe.begin_job_runs('{");
	for (i = 0; i < IMGPIPE_MAX_WORKERS; i++)
		if (slot_is(&shared_state->workers[i], WORKER_JOB))
			appendStringInfo(&statement, "%s" INT64_FORMAT, statement.data[statement.len - 1] == '{' ? "" : ",",
							 shared_state->workers[i].run);
	appendStringInfoString(&statement, "}')");
	run(statement.data, SPI_OK_SELECT);
	jobs_due = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), number_at(0, 1));
}

/* One worker for each run that is recorded by now and has none. */
static void
start_jobs(void)
{
	StringInfoData waiting;
	uint64		row;

	initStringInfo(&waiting);
	run("SELECT run_id, job_id::bigint, owner::oid::bigint FROM imgpipe.job_runs"
		" WHERE status = 'starting' ORDER BY run_id", SPI_OK_SELECT);
	for (row = 0; row < SPI_processed; row++)
	{
		int64		run_id = number_at(row, 1);
		int			index;

		for (index = 0; index < IMGPIPE_MAX_WORKERS; index++)
			if (slot_is(&shared_state->workers[index], WORKER_JOB) && shared_state->workers[index].run == run_id)
				break;
		if (index == IMGPIPE_MAX_WORKERS &&
			!start_worker(-1, WORKER_JOB, number_at(row, 3), number_at(row, 2), 0, 0, run_id))
			appendStringInfo(&waiting, "%s" INT64_FORMAT, waiting.len ? "," : "", run_id);
	}
	if (waiting.len > 0)
		run(psprintf("UPDATE imgpipe.job_runs SET sqlstate = '53400', error = 'no background worker is free',"
					 " hint = 'Raise max_worker_processes; the run begins as soon as there is one.'"
					 " WHERE run_id = ANY ('{%s}') AND status = 'starting' AND error IS NULL", waiting.data), SPI_OK_UPDATE);
}

static void
prune_history(void)
{
	run("SELECT imgpipe.prune_job_runs(), imgpipe.prune_ingest_batches()", SPI_OK_SELECT);
}

/* The extension was dropped: nobody is left to serve. */
static void
stop_all_workers(void)
{
	int			i;

	for (i = 0; i < IMGPIPE_MAX_WORKERS; i++)
	{
		WorkerSlot *slot = &shared_state->workers[i];
		pid_t		pid = 0;

		SpinLockAcquire(&slot->mutex);
		if (slot->kind != WORKER_NONE && slot->database == MyDatabaseId)
		{
			pid = slot->pid;
			slot->stop_requested = true;
			slot->kind = WORKER_NONE;
		}
		SpinLockRelease(&slot->mutex);
		if (pid != 0)
			kill(pid, SIGTERM);
	}
}

static void
set_wanted(bool wanted)
{
	SpinLockAcquire(&controller->mutex);
	controller->wanted = wanted;
	SpinLockRelease(&controller->mutex);
}

static bool
extension_is_there(void)
{
	bool		there;

	worker_transaction_begin("looking for the extension");
	there = worker_extension_exists();
	worker_transaction_commit();
	return there;
}

void
imgpipe_controller_main(Datum argument)
{
	WorkerArguments arguments;
	TimestampTz last_store_round = 0;
	TimestampTz last_purge_round = 0;
	TimestampTz last_settling = 0;

	memcpy(&arguments, MyBgworkerEntry->bgw_extra, sizeof(arguments));
	controller = &shared_state->controllers[arguments.slot];
	pqsignal(SIGTERM, die);
	pqsignal(SIGHUP, SignalHandlerForConfigReload);

	if (!take_controller())
		proc_exit(0);
	before_shmem_exit(leave_controller, (Datum) 0);

	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnectionByOid(arguments.database, InvalidOid, 0);
	CurrentMemoryContext = AllocSetContextCreate(TopMemoryContext, "imgpipe controller",
												 ALLOCSET_DEFAULT_SIZES);

	for (;;)
	{
		TimestampTz started = GetCurrentTimestamp();
		long		rest;

		/* A CREATE EXTENSION from here on makes it wanted again. */
		set_wanted(false);
		if (!extension_is_there())
		{
			stop_all_workers();
			proc_exit(0);
		}
		set_wanted(true);

		busy = false;
		if (!installed)
			do_duty(look_at_installation, "looking at the installation");
		if (installed)
		{
			if (TimestampDifferenceExceeds(last_store_round, started, STORE_ROUND))
			{
				look_after_partitions();
				do_duty(prune_history, "forgetting old runs and batches");
				last_store_round = started;
			}
			if (TimestampDifferenceExceeds(last_purge_round, started, PURGE_ROUND) ||
				first_purge != PURGE_ONCE_DONE)
			{
				do_duty(look_after_purge, "looking after the purge");
				last_purge_round = started;
			}
			if (first_purge == PURGE_ONCE_DONE)
				do_duty(look_after_sources, "looking after sources");
			else
				busy = true;
			do_duty(look_after_processors, "looking after processors");
			do_duty(look_after_senders, "looking after senders");
			if (TimestampDifferenceExceeds(last_settling, started, SETTLING_ROUND))
			{
				do_duty(settle_results, "completing results");
				last_settling = started;
			}
			jobs_due = TimestampTzPlusMilliseconds(started, BUSY_ROUND);
			if (do_duty(look_after_jobs, "looking after jobs"))
				do_duty(start_jobs, "starting jobs");
		}

		/* However often it is woken, it shall not turn into a load itself. */
		rest = SHORTEST_ROUND - TimestampDifferenceMilliseconds(started, GetCurrentTimestamp());
		if (rest > 0)
			WaitLatch(NULL, WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, rest, wait_event_idle());
		rest = busy || !installed ? BUSY_ROUND : IDLE_ROUND;
		if (installed)
		{
			rest = Min(rest, TimestampDifferenceMilliseconds(GetCurrentTimestamp(), jobs_due));
			rest = Min(rest, purge_rest(last_purge_round, started));
		}
		worker_sleep(rest, wait_event_idle());
	}
}
