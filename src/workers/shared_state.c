/*
 * shared_state.c
 *		Shared memory: its making, the slots, and the SQL functions over them.
 */
#include "postgres.h"

#include <signal.h>

#include "access/xact.h"
#include "catalog/pg_authid.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "storage/shmem.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "workers/shared_state.h"
#include "workers/worker.h"

/* Time constant of the moving averages, in seconds. */
#define AVERAGE_SECONDS		10.0

SharedState *shared_state = NULL;
WorkerSlot *my_slot = NULL;

static shmem_request_hook_type previous_shmem_request_hook = NULL;
static shmem_startup_hook_type previous_shmem_startup_hook = NULL;

PG_FUNCTION_INFO_V1(imgpipe_wake_controller);
PG_FUNCTION_INFO_V1(imgpipe_workers_available);
PG_FUNCTION_INFO_V1(imgpipe_require_workers);
PG_FUNCTION_INFO_V1(imgpipe_stop_workers);
PG_FUNCTION_INFO_V1(imgpipe_start_workers);
PG_FUNCTION_INFO_V1(imgpipe_wake_senders);
PG_FUNCTION_INFO_V1(imgpipe_worker_slots);

static void
request_memory(void)
{
	if (previous_shmem_request_hook)
		previous_shmem_request_hook();
	RequestAddinShmemSpace(MAXALIGN(sizeof(SharedState)));
}

static void
initialize_memory(void)
{
	bool		found;
	int			i;

	if (previous_shmem_startup_hook)
		previous_shmem_startup_hook();
	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	shared_state = ShmemInitStruct("imgpipe", sizeof(SharedState), &found);
	if (!found)
	{
		memset(shared_state, 0, sizeof(SharedState));
		SpinLockInit(&shared_state->mutex);
		for (i = 0; i < IMGPIPE_MAX_DATABASES; i++)
			SpinLockInit(&shared_state->controllers[i].mutex);
		for (i = 0; i < IMGPIPE_MAX_WORKERS; i++)
			SpinLockInit(&shared_state->workers[i].mutex);
	}
	LWLockRelease(AddinShmemInitLock);
}

void
shared_state_request(void)
{
	previous_shmem_request_hook = shmem_request_hook;
	shmem_request_hook = request_memory;
	previous_shmem_startup_hook = shmem_startup_hook;
	shmem_startup_hook = initialize_memory;
}

ControllerSlot *
controller_slot(Oid database, bool create)
{
	ControllerSlot *found = NULL;
	int			i;

	SpinLockAcquire(&shared_state->mutex);
	for (i = 0; i < IMGPIPE_MAX_DATABASES && found == NULL; i++)
		if (shared_state->controllers[i].database == database)
			found = &shared_state->controllers[i];
	for (i = 0; create && i < IMGPIPE_MAX_DATABASES && found == NULL; i++)
		if (!OidIsValid(shared_state->controllers[i].database))
		{
			found = &shared_state->controllers[i];
			found->database = database;
			found->wanted = true;
			found->held = false;
			found->pid = 0;
			found->latch = NULL;
			found->retry_at = 0;
		}
	SpinLockRelease(&shared_state->mutex);
	return found;
}

void
wake_process(pid_t pid)
{
	PGPROC	   *process = pid != 0 ? BackendPidGetProc(pid) : NULL;

	if (process != NULL)
		SetLatch(&process->procLatch);
}

static void
wake_launcher(void)
{
	Latch	   *latch;

	SpinLockAcquire(&shared_state->mutex);
	latch = shared_state->launcher_latch;
	SpinLockRelease(&shared_state->mutex);
	if (latch != NULL)
		SetLatch(latch);
}

/* The launcher starts a controller where one is wanted and none runs. */
static void
wake_now(void)
{
	ControllerSlot *slot;
	Latch	   *latch;

	if (shared_state == NULL)
		return;
	slot = controller_slot(MyDatabaseId, true);
	if (slot == NULL)
		return;
	SpinLockAcquire(&slot->mutex);
	slot->wanted = true;
	latch = slot->pid != 0 ? slot->latch : NULL;
	SpinLockRelease(&slot->mutex);
	if (latch != NULL)
		SetLatch(latch);
	else
		wake_launcher();
}

/* The senders that run, or whoever starts one where there is none. */
static void
wake_senders_now(void)
{
	bool		found = false;
	int			i;

	for (i = 0; shared_state != NULL && i < IMGPIPE_MAX_WORKERS; i++)
	{
		WorkerSlot *worker = &shared_state->workers[i];
		pid_t		pid;

		SpinLockAcquire(&worker->mutex);
		pid = worker->kind == WORKER_SENDER && worker->database == MyDatabaseId ? worker->pid : 0;
		SpinLockRelease(&worker->mutex);
		wake_process(pid);
		found = found || pid != 0;
	}
	if (!found)
		wake_now();
}

static bool wake_at_commit = false;
static bool wake_senders_at_commit = false;

static void
wake_after_transaction(XactEvent event, void *argument)
{
	if (event == XACT_EVENT_COMMIT && wake_at_commit)
		wake_now();
	if (event == XACT_EVENT_COMMIT && wake_senders_at_commit)
		wake_senders_now();
	if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT || event == XACT_EVENT_PREPARE)
		wake_at_commit = wake_senders_at_commit = false;
}

static void
watch_transactions(void)
{
	static bool registered = false;

	if (!registered)
		RegisterXactCallback(wake_after_transaction, NULL);
	registered = true;
}

void
wake_controller(void)
{
	if (shared_state == NULL)
		return;
	if (!IsTransactionState())
	{
		wake_now();
		return;
	}
	watch_transactions();
	wake_at_commit = true;
}

Datum
imgpipe_wake_senders(PG_FUNCTION_ARGS)
{
	watch_transactions();
	wake_senders_at_commit = true;
	PG_RETURN_VOID();
}

Datum
imgpipe_wake_controller(PG_FUNCTION_ARGS)
{
	wake_controller();
	PG_RETURN_VOID();
}

Datum
imgpipe_workers_available(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(shared_state != NULL);
}

bool
hold_workers(Oid database)
{
	ControllerSlot *slot = controller_slot(database, false);
	bool		held;
	pid_t		pid;
	int			i;

	if (slot == NULL)
		return false;			/* no slot, no controller */
	SpinLockAcquire(&slot->mutex);
	held = slot->held;
	slot->held = true;
	pid = slot->pid;
	SpinLockRelease(&slot->mutex);
	if (pid != 0)
		kill(pid, SIGTERM);
	for (i = 0; i < IMGPIPE_MAX_WORKERS; i++)
	{
		WorkerSlot *worker = &shared_state->workers[i];

		SpinLockAcquire(&worker->mutex);
		pid = worker->kind != WORKER_NONE && worker->database == database ? worker->pid : 0;
		SpinLockRelease(&worker->mutex);
		if (pid != 0)
			kill(pid, SIGTERM);
	}
	return !held;
}

bool
workers_are_gone(Oid database)
{
	ControllerSlot *slot = controller_slot(database, false);
	bool		gone = true;
	int			i;

	if (slot != NULL)
	{
		SpinLockAcquire(&slot->mutex);
		gone = slot->pid == 0;
		SpinLockRelease(&slot->mutex);
	}
	for (i = 0; i < IMGPIPE_MAX_WORKERS && gone; i++)
	{
		WorkerSlot *worker = &shared_state->workers[i];

		SpinLockAcquire(&worker->mutex);
		gone = worker->kind == WORKER_NONE || worker->database != database || worker->pid == 0;
		SpinLockRelease(&worker->mutex);
	}
	return gone;
}

void
release_workers(Oid database)
{
	ControllerSlot *slot = controller_slot(database, false);

	if (slot == NULL)
		return;
	SpinLockAcquire(&slot->mutex);
	slot->held = false;
	SpinLockRelease(&slot->mutex);
	wake_launcher();
}

/* An error, or a warning where what was asked for is kept until there are workers. */
static void
require_workers(int level, const char *problem)
{
	if (shared_state == NULL)
		ereport(level,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("%s", problem),
				 errdetail("imgpipe is not in shared_preload_libraries, so it has no background workers."),
				 errhint("Set shared_preload_libraries = 'imgpipe' in postgresql.conf and restart the server.")));
}

/* One statement may ask for a thousand things, as retry_dead_letters() does; it is warned once. */
Datum
imgpipe_require_workers(PG_FUNCTION_ARGS)
{
	static TimestampTz warned = 0;
	bool		or_wait = PG_GETARG_BOOL(1);

	if (!or_wait || warned != GetCurrentStatementStartTimestamp())
		require_workers(or_wait ? WARNING : ERROR, text_to_cstring(PG_GETARG_TEXT_PP(0)));
	warned = GetCurrentStatementStartTimestamp();
	PG_RETURN_VOID();
}

Datum
imgpipe_stop_workers(PG_FUNCTION_ARGS)
{
	require_workers(ERROR, "imgpipe has no workers on this server");
	(void) controller_slot(MyDatabaseId, true);
	hold_workers(MyDatabaseId);
	PG_RETURN_VOID();
}

Datum
imgpipe_start_workers(PG_FUNCTION_ARGS)
{
	require_workers(ERROR, "imgpipe has no workers on this server");
	release_workers(MyDatabaseId);
	wake_now();
	PG_RETURN_VOID();
}

void
slot_set_state(WorkerState state)
{
	SpinLockAcquire(&my_slot->mutex);
	if (my_slot->state != state)
	{
		my_slot->state = state;
		my_slot->since = GetCurrentTimestamp();
	}
	if (state == WORKER_RUNNING || state == WORKER_IDLE)
		my_slot->failures = 0;
	SpinLockRelease(&my_slot->mutex);
}

void
slot_set_error(WorkerState state, const char *message)
{
	slot_set_state(state);
	SpinLockAcquire(&my_slot->mutex);
	strlcpy(my_slot->last_error, message, IMGPIPE_ERROR_SIZE);
	my_slot->last_error_at = GetCurrentTimestamp();
	SpinLockRelease(&my_slot->mutex);
}

/*
 * Rates are exponential moving averages over AVERAGE_SECONDS.  What comes in
 * within a second counts as one sample, or short batches would make them jump.
 */
void
slot_count(uint64 messages, uint64 bytes, uint64 failed)
{
	static TimestampTz sample_started = 0;
	static double sample_messages = 0;
	static double sample_bytes = 0;
	TimestampTz now = GetCurrentTimestamp();
	double		seconds;

	if (sample_started == 0)
		sample_started = now;
	sample_messages += messages;
	sample_bytes += bytes;
	seconds = (now - sample_started) / (double) USECS_PER_SEC;

	SpinLockAcquire(&my_slot->mutex);
	my_slot->messages += messages;
	my_slot->bytes += bytes;
	my_slot->failed += failed;
	if (seconds >= 1.0)
	{
		double		weight = Min(1.0, seconds / AVERAGE_SECONDS);

		my_slot->messages_per_second +=
			weight * (sample_messages / seconds - my_slot->messages_per_second);
		my_slot->bytes_per_second +=
			weight * (sample_bytes / seconds - my_slot->bytes_per_second);
	}
	SpinLockRelease(&my_slot->mutex);
	if (seconds >= 1.0)
	{
		sample_started = now;
		sample_messages = sample_bytes = 0;
	}
}

void
slot_set_lag(int64 lag)
{
	SpinLockAcquire(&my_slot->mutex);
	my_slot->lag = lag;
	SpinLockRelease(&my_slot->mutex);
}

static const char *
kind_name(const WorkerSlot *slot)
{
	switch (slot->kind)
	{
		case WORKER_NONE:
			break;
		case WORKER_INGEST:
			return "ingest";
		case WORKER_PROCESSOR:
			return "processor";
		case WORKER_JOB:
			return "job";
		case WORKER_PURGE:
			return "purge";
		case WORKER_SENDER:
			return "sender";
	}
	return "unknown";
}

static const char *
state_name(const WorkerSlot *slot)
{
	switch (slot->state)
	{
		case WORKER_STARTING:
			return "starting";
		case WORKER_RUNNING:
			return "running";
		case WORKER_IDLE:
			return "idle";
		case WORKER_WAITING:
			return "waiting";
		case WORKER_RETRYING:
			return "retrying";
		case WORKER_FAILED:
			return "failed";
		case WORKER_STOPPED:
			return "stopped";
	}
	return "unknown";
}

Datum
imgpipe_worker_slots(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	int			i;

	InitMaterializedSRF(fcinfo, 0);
	for (i = 0; shared_state != NULL && i < IMGPIPE_MAX_WORKERS; i++)
	{
		WorkerSlot	slot;
		Datum		values[19];
		bool		nulls[19] = {0};
		bool		may_see_error;

		SpinLockAcquire(&shared_state->workers[i].mutex);
		slot = shared_state->workers[i];
		SpinLockRelease(&shared_state->workers[i].mutex);
		if (slot.kind == WORKER_NONE || slot.database != MyDatabaseId)
			continue;

		may_see_error = has_privs_of_role(GetUserId(), slot.role) ||
			has_privs_of_role(GetUserId(), ROLE_PG_READ_ALL_STATS);
		values[0] = CStringGetTextDatum(kind_name(&slot));
		values[1] = ObjectIdGetDatum(slot.role);
		values[2] = Int32GetDatum(slot.object);
		values[3] = Int32GetDatum(slot.slice);
		values[4] = Int32GetDatum(slot.n_slices);
		values[5] = Int32GetDatum(slot.pid);
		nulls[5] = slot.pid == 0;
		values[6] = CStringGetTextDatum(state_name(&slot));
		values[7] = TimestampTzGetDatum(slot.since);
		values[8] = TimestampTzGetDatum(slot.started_at);
		nulls[8] = slot.started_at == 0;
		values[9] = Int32GetDatum(slot.failures);
		values[10] = TimestampTzGetDatum(slot.retry_at);
		nulls[10] = slot.retry_at == 0;
		values[11] = Int64GetDatum(slot.messages);
		values[12] = Int64GetDatum(slot.bytes);
		values[13] = Int64GetDatum(slot.failed);
		values[14] = Float8GetDatum(slot.messages_per_second);
		values[15] = Float8GetDatum(slot.bytes_per_second);
		values[16] = Int64GetDatum(slot.lag);
		nulls[16] = slot.lag < 0;
		nulls[17] = nulls[18] = slot.last_error_at == 0 || !may_see_error;
		values[17] = nulls[17] ? (Datum) 0 : CStringGetTextDatum(slot.last_error);
		values[18] = TimestampTzGetDatum(slot.last_error_at);
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
	return (Datum) 0;
}
