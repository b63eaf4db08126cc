/*
 * job_worker.c
 *		The background worker that executes one run of one job, and ends.
 *
 * The controller has recorded the run as starting; the worker takes it, which
 * is on disk before the first statement is executed, executes the command as
 * the job's owner, who is its session user, and records how that ended.  A
 * worker that cannot do the latter leaves it to the controller.
 *
 * Timeouts are imgpipe's own, so that they hold for the whole run, and whatever
 * the command sets.  The first cancels; a command that catches that takes its
 * worker with it.
 */
#include "postgres.h"

#include <signal.h>

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "schedule/job_command.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"
#include "workers/shared_state.h"
#include "workers/worker.h"

#define OVERDUE_GRACE_MS	10000	/* for a command that ignores its cancel */

/* Bounds of job_runs.messages. */
#define MAX_MESSAGES		100
#define MAX_MESSAGE_BYTES	8192

PGDLLEXPORT void imgpipe_job_main(Datum argument);

static MemoryContext run_context;
static int64 run_id;
static char *job_name;
static char *command;
static int	timeout_ms;
static JobRows rows;
static bool taken = false;		/* the run is ours to finish */

static TimeoutId run_timeout;
static volatile sig_atomic_t overdue = 0;	/* times that run_timeout fired */
static volatile sig_atomic_t cancel_requested = false;

static emit_log_hook_type previous_emit_log_hook = NULL;
static int	server_log_level;
static StringInfoData messages;
static int	n_messages = 0;

/* How a run ended, as finish_job_run() takes it. */
typedef struct RunEnd
{
	const char *status;
	const char *sqlstate;		/* NULL: succeeded; so are those below */
	const char *error;
	const char *detail;
	const char *hint;
	const char *context;
} RunEnd;

/* Signals. */

static void
on_cancel(SIGNAL_ARGS)
{
	/* statement_timeout comes this way, too. */
	if (!get_timeout_indicator(STATEMENT_TIMEOUT, false) && !get_timeout_indicator(LOCK_TIMEOUT, false))
		cancel_requested = true;
	StatementCancelHandler(postgres_signal_arg);
}

static void
on_timeout(void)
{
	if (overdue++ == 0)
		QueryCancelPending = true;
	else
		ProcDiePending = true;
	InterruptPending = true;
	SetLatch(MyLatch);
}

/* Messages.  A hook sees what goes to the server's log, so that is let in for it, and kept out of the log. */

static bool
is_for_log(int level)
{
	if (level == LOG || level == LOG_SERVER_ONLY)
		return server_log_level == LOG || server_log_level <= ERROR;
	return server_log_level == LOG ? level >= FATAL : level >= server_log_level;
}

static void
keep_message(ErrorData *error)
{
	if (taken && error->elevel >= INFO && error->elevel < ERROR && error->message != NULL &&
		(error->elevel == INFO || error->elevel >= client_min_messages))
	{
		if (n_messages < MAX_MESSAGES && messages.len < MAX_MESSAGE_BYTES)
		{
			int			rest = MAX_MESSAGE_BYTES - messages.len;

			appendStringInfo(&messages, "%s%s:  ", n_messages ? "\n" : "",
							 error->elevel == INFO ? "INFO" : error->elevel == NOTICE ? "NOTICE" : "WARNING");
			appendBinaryStringInfo(&messages, error->message,
								   pg_mbcliplen(error->message, strlen(error->message), rest));
		}
		n_messages++;
	}
	if (!is_for_log(error->elevel))
		error->output_to_server = false;
	else if (previous_emit_log_hook)
		previous_emit_log_hook(error);
}

static void
capture_messages(void)
{
	MemoryContext caller = MemoryContextSwitchTo(run_context);

	initStringInfo(&messages);
	MemoryContextSwitchTo(caller);
	server_log_level = log_min_messages;
	if (!is_for_log(INFO))
		SetConfigOption("log_min_messages", "info", PGC_SUSET, PGC_S_OVERRIDE);
	previous_emit_log_hook = emit_log_hook;
	emit_log_hook = keep_message;
}

/* Records.  In transactions of their own, which no setting of the owner's bends. */

static void
record_begin(const char *activity, InternalScope *scope)
{
	int			isolation = DefaultXactIsoLevel;
	bool		read_only = DefaultXactReadOnly;

	DefaultXactIsoLevel = XACT_READ_COMMITTED;
	DefaultXactReadOnly = false;
	worker_transaction_begin(activity);
	DefaultXactIsoLevel = isolation;
	DefaultXactReadOnly = read_only;
	internal_begin(scope);
	/* After a crash it must be known that the command may have run. */
	ForceSyncCommit();
}

static void
record_commit(const InternalScope *scope)
{
	internal_end(scope);
	worker_transaction_commit();
	MemoryContextSwitchTo(run_context);
}

/* False where the run is no longer to be: its job was dropped, or it was given up. */
static bool
take_run(void)
{
	Oid			types[2] = {INT8OID, INT4OID};
	Datum		values[2] = {Int64GetDatum(run_id), Int32GetDatum(MyProcPid)};
	InternalScope scope;
	TupleDesc	row;
	MemoryContext caller;
	char	   *timeout;

	record_begin("beginning a job", &scope);
	if (SPI_execute_with_args("SELECT name, command, timeout_ms FROM imgpipe.take_job_run($1, $2) WHERE command IS NOT NULL",
							  2, types, values, NULL, false, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not take run " INT64_FORMAT, run_id);
	taken = SPI_processed > 0;
	if (taken)
	{
		row = SPI_tuptable->tupdesc;
		caller = MemoryContextSwitchTo(run_context);
		job_name = SPI_getvalue(SPI_tuptable->vals[0], row, 1);
		command = SPI_getvalue(SPI_tuptable->vals[0], row, 2);
		timeout = SPI_getvalue(SPI_tuptable->vals[0], row, 3);
		timeout_ms = pg_strtoint32(timeout);
		MemoryContextSwitchTo(caller);
	}
	record_commit(&scope);
	return taken;
}

static void
finish_run(const RunEnd *end)
{
	Oid			types[9] = {INT8OID, TEXTOID, INT8OID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID};
	const char *texts[9] = {
		NULL, end->status, NULL, NULL, end->sqlstate, end->error, end->detail, end->hint, end->context
	};
	Datum		values[9];
	char		nulls[9];
	InternalScope scope;
	int			i;

	if (n_messages > 0)
	{
		if (n_messages > MAX_MESSAGES || messages.len >= MAX_MESSAGE_BYTES)
			appendStringInfo(&messages, "\n(messages in all: %d)", n_messages);
		texts[3] = messages.data;
	}
	taken = false;
	record_begin("recording a job", &scope);
	for (i = 0; i < lengthof(values); i++)
	{
		nulls[i] = texts[i] == NULL ? 'n' : ' ';
		values[i] = texts[i] == NULL ? (Datum) 0 : CStringGetTextDatum(texts[i]);
	}
	values[0] = Int64GetDatum(run_id);
	nulls[0] = ' ';
	values[2] = Int64GetDatum(rows.count);
	nulls[2] = rows.counted ? ' ' : 'n';
	if (SPI_execute_with_args("SELECT imgpipe.finish_job_run($1, $2, $3, $4, $5, $6, $7, $8, $9)",
							  lengthof(values), types, values, nulls, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not record the end of run " INT64_FORMAT, run_id);
	record_commit(&scope);
	if (end->error != NULL)
		ereport(LOG,
				(errmsg("imgpipe: job \"%s\" %s: %s", job_name, end->status, end->error),
				 errdetail("It is run " INT64_FORMAT " in imgpipe.job_runs.", run_id)));
}

/* Ends of a run. */

static void
timed_out(RunEnd *end)
{
	end->status = "failed";
	end->sqlstate = unpack_sql_state(ERRCODE_QUERY_CANCELED);
	end->error = psprintf("the job ran into its timeout of %.3g s", timeout_ms / 1000.0);
	end->hint = "imgpipe.alter_job() changes the timeout.";
}

static void
failed(RunEnd *end, const ErrorData *error)
{
	StringInfoData context;

	if (overdue)
	{
		timed_out(end);
		return;
	}
	end->status = cancel_requested && error->sqlerrcode == ERRCODE_QUERY_CANCELED ? "cancelled" : "failed";
	end->sqlstate = pstrdup(unpack_sql_state(error->sqlerrcode));
	end->error = error->message;
	end->detail = error->detail;
	end->hint = error->hint;
	initStringInfo(&context);
	if (error->cursorpos > 0)
		appendStringInfo(&context, "at character %d of the command\n", error->cursorpos);
	if (error->internalquery)
		appendStringInfo(&context, "in the query %s\n", error->internalquery);
	if (error->context)
		appendStringInfoString(&context, error->context);
	while (context.len > 0 && context.data[context.len - 1] == '\n')
		context.data[--context.len] = '\0';
	end->context = context.len > 0 ? context.data : NULL;
}

/* The worker is told to end, by a shutdown or by pg_terminate_backend(), or by the second timeout. */
static void
finish_at_exit(int code, Datum argument)
{
	RunEnd		end = {.status = "interrupted"};

	if (!taken)
		return;
	AbortOutOfAnyTransaction();
	MemoryContextSwitchTo(run_context);
	if (overdue)
		timed_out(&end);
	else
	{
		end.sqlstate = unpack_sql_state(ERRCODE_ADMIN_SHUTDOWN);
		end.error = "the worker was told to end in the midst of the run";
	}
	finish_run(&end);
}

static void
execute_run(void)
{
	RunEnd		end = {.status = "succeeded"};
	ErrorData  *volatile error = NULL;

	if (timeout_ms > 0)
		enable_timeout_every(run_timeout, TimestampTzPlusMilliseconds(GetCurrentTimestamp(), timeout_ms),
							 OVERDUE_GRACE_MS);
	PG_TRY();
	{
		job_command_run(command, &rows);
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(run_context);
		error = CopyErrorData();
		FlushErrorState();
		AbortOutOfAnyTransaction();
		debug_query_string = NULL;
	}
	PG_END_TRY();
	disable_all_timeouts(false);
	QueryCancelPending = false; /* one may have come too late */
	MemoryContextSwitchTo(run_context);
	if (error != NULL)
		failed(&end, error);
	/* Such as a lock_timeout of the command's. */
	ResetAllOptions();
	finish_run(&end);
}

void
imgpipe_job_main(Datum argument)
{
	run_id = worker_start()->run;
	run_context = AllocSetContextCreate(TopMemoryContext, "imgpipe job", ALLOCSET_DEFAULT_SIZES);
	pqsignal(SIGINT, on_cancel);
	before_shmem_exit(finish_at_exit, (Datum) 0);
	run_timeout = RegisterTimeout(USER_TIMEOUT, on_timeout);
	capture_messages();

	if (take_run())
	{
		slot_set_state(WORKER_RUNNING);
		execute_run();
	}
	proc_exit(0);
}
