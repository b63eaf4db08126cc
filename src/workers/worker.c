/*
 * worker.c
 *		What every background worker does alike: start, transactions, identity,
 *		waiting, and telling its slot how it ended.
 */
#include "postgres.h"

#include <signal.h>

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/indexing.h"
#include "catalog/pg_extension.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "tcop/tcopprot.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "workers/shared_state.h"
#include "workers/worker.h"

/* Back-off after a failed worker: 1 s, doubled up to a minute. */
#define FIRST_RETRY_MS		1000
#define LAST_RETRY_MS		60000

static WorkerArguments arguments;
static emit_log_hook_type previous_emit_log_hook = NULL;

/* Keeps the last error for source_status; the log has it in full. */
static void
remember_error(ErrorData *error)
{
	if (error->elevel >= ERROR && error->message != NULL && my_slot != NULL)
	{
		SpinLockAcquire(&my_slot->mutex);
		strlcpy(my_slot->last_error, error->message, IMGPIPE_ERROR_SIZE);
		my_slot->last_error_at = GetCurrentTimestamp();
		my_slot->last_sqlerrcode = error->sqlerrcode;
		SpinLockRelease(&my_slot->mutex);
	}
	if (previous_emit_log_hook)
		previous_emit_log_hook(error);
}

static void
leave_slot(int code, Datum argument)
{
	TimestampTz now = GetCurrentTimestamp();
	long		backoff;

	SpinLockAcquire(&my_slot->mutex);
	my_slot->pid = 0;
	my_slot->since = now;
	my_slot->messages_per_second = my_slot->bytes_per_second = 0;
	if (code == 0 || my_slot->stop_requested)
	{
		my_slot->state = WORKER_STOPPED;
		if (my_slot->kind != WORKER_INGEST)
			my_slot->kind = WORKER_NONE;
	}
	else
	{
		my_slot->state = WORKER_FAILED;
		backoff = FIRST_RETRY_MS << Min(my_slot->failures, 6);
		my_slot->failures++;
		my_slot->retry_at = TimestampTzPlusMilliseconds(now, Min(backoff, LAST_RETRY_MS));
	}
	SpinLockRelease(&my_slot->mutex);
}

const WorkerArguments *
worker_start(void)
{
	TimestampTz now = GetCurrentTimestamp();

	memcpy(&arguments, MyBgworkerEntry->bgw_extra, sizeof(arguments));
	my_slot = &shared_state->workers[arguments.slot];
	SpinLockAcquire(&my_slot->mutex);
	my_slot->pid = MyProcPid;
	my_slot->state = WORKER_STARTING;
	my_slot->since = my_slot->started_at = now;
	SpinLockRelease(&my_slot->mutex);
	before_shmem_exit(leave_slot, (Datum) 0);
	previous_emit_log_hook = emit_log_hook;
	emit_log_hook = remember_error;

	pqsignal(SIGTERM, die);
	pqsignal(SIGINT, StatementCancelHandler);
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnectionByOid(arguments.database, arguments.role,
											  OidIsValid(arguments.role) ? WORKER_CONNECTION_FLAGS : 0);
	/* Queue and positions count on these, whatever the role's settings are.  A job's command is to have them. */
	if (my_slot->kind != WORKER_JOB)
	{
		SetConfigOption("default_transaction_isolation", "read committed", PGC_SUSET, PGC_S_OVERRIDE);
		SetConfigOption("default_transaction_read_only", "off", PGC_SUSET, PGC_S_OVERRIDE);
	}
	pgstat_report_appname(MyBgworkerEntry->bgw_name);
	return &arguments;
}

void
worker_transaction_begin(const char *activity)
{
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	SPI_connect();
	PushActiveSnapshot(GetTransactionSnapshot());
	pgstat_report_activity(STATE_RUNNING, activity);
}

void
worker_transaction_need_not_last(void)
{
	set_config_option("synchronous_commit", "off", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_LOCAL, true, 0, false);
}

void
worker_transaction_commit(void)
{
	SPI_finish();
	PopActiveSnapshot();
	CommitTransactionCommand();
	pgstat_report_stat(false);
	pgstat_report_activity(STATE_IDLE, NULL);
}

void
worker_transaction_abort(void)
{
	AbortCurrentTransaction();
	pgstat_report_stat(false);
	pgstat_report_activity(STATE_IDLE, NULL);
}

/* The owner of the extension, or InvalidOid where there is none. */
static Oid
extension_owner(void)
{
	Relation	relation = table_open(ExtensionRelationId, AccessShareLock);
	Oid			owner = InvalidOid;
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&key, Anum_pg_extension_extname, BTEqualStrategyNumber, F_NAMEEQ,
				CStringGetDatum("imgpipe"));
	scan = systable_beginscan(relation, ExtensionNameIndexId, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
		owner = ((Form_pg_extension) GETSTRUCT(tuple))->extowner;
	systable_endscan(scan);
	table_close(relation, AccessShareLock);
	return owner;
}

bool
worker_extension_exists(void)
{
	return OidIsValid(extension_owner());
}

bool
worker_extension_is_owned(void)
{
	Oid			owner = extension_owner();

	return OidIsValid(owner) && has_privs_of_role(GetUserId(), owner);
}

void
internal_begin(InternalScope *scope)
{
	Oid			owner = extension_owner();

	if (!OidIsValid(owner))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("extension \"imgpipe\" is not in this database any more")));
	GetUserIdAndSecContext(&scope->user, &scope->security_context);
	scope->guc_nest_level = NewGUCNestLevel();
	set_config_option("search_path", "pg_catalog, pg_temp", PGC_USERSET, PGC_S_SESSION,
					  GUC_ACTION_SAVE, true, 0, false);
	SetUserIdAndSecContext(owner, scope->security_context | SECURITY_LOCAL_USERID_CHANGE);
}

void
internal_end(const InternalScope *scope)
{
	SetUserIdAndSecContext(scope->user, scope->security_context);
	AtEOXact_GUC(false, scope->guc_nest_level);
}

void
worker_sleep(long timeout, uint32 wait_event)
{
	WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, timeout, wait_event);
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
	if (ConfigReloadPending)
	{
		ConfigReloadPending = false;
		ProcessConfigFile(PGC_SIGHUP);
	}
}

bool
worker_launch(const char *function, const char *type, const char *name,
			  const WorkerArguments *worker_arguments, BackgroundWorkerHandle **handle)
{
	BackgroundWorker worker;
	MemoryContext caller;
	bool		launched;

	memset(&worker, 0, sizeof(worker));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	worker.bgw_notify_pid = MyProcPid;
	strlcpy(worker.bgw_library_name, "imgpipe", sizeof(worker.bgw_library_name));
	strlcpy(worker.bgw_function_name, function, sizeof(worker.bgw_function_name));
	strlcpy(worker.bgw_type, type, BGW_MAXLEN);
	strlcpy(worker.bgw_name, name, BGW_MAXLEN);
	StaticAssertStmt(sizeof(WorkerArguments) <= BGW_EXTRALEN, "worker arguments do not fit");
	memcpy(worker.bgw_extra, worker_arguments, sizeof(WorkerArguments));

	/* The handle outlives the transaction that we are called in. */
	caller = MemoryContextSwitchTo(TopMemoryContext);
	launched = RegisterDynamicBackgroundWorker(&worker, handle);
	MemoryContextSwitchTo(caller);
	return launched;
}

uint32
wait_event_decoder(void)
{
	static uint32 event = 0;

	if (event == 0)
		event = IMGPIPE_WAIT_EVENT("ImgpipeDecoder");
	return event;
}

static char held_up_by[400];	/* the problem that the log knows of */

void
worker_held_up(const char *problem)
{
	slot_set_error(WORKER_RETRYING, problem);
	if (strncmp(problem, held_up_by, sizeof(held_up_by) - 1) == 0)
		return;
	strlcpy(held_up_by, problem, sizeof(held_up_by));
	ereport(LOG,
			(errmsg("%s is held up: %s", MyBgworkerEntry->bgw_type, problem)));
}

void
worker_goes_on(WorkerState state)
{
	slot_set_state(state);
	if (worker_is_held_up())
		ereport(LOG,
				(errmsg("%s goes on", MyBgworkerEntry->bgw_type)));
	held_up_by[0] = '\0';
}

bool
worker_is_held_up(void)
{
	return held_up_by[0] != '\0';
}

uint32
wait_event_kafka(void)
{
	static uint32 event = 0;

	if (event == 0)
		event = IMGPIPE_WAIT_EVENT("ImgpipeKafka");
	return event;
}

uint32
wait_event_acknowledgement(void)
{
	static uint32 event = 0;

	if (event == 0)
		event = IMGPIPE_WAIT_EVENT("ImgpipeAcknowledgement");
	return event;
}

uint32
wait_event_idle(void)
{
	static uint32 event = 0;

	if (event == 0)
		event = IMGPIPE_WAIT_EVENT("ImgpipeIdle");
	return event;
}
