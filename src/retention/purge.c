/*
 * purge.c
 *		The purge worker: takes one overdue set of partitions after the other
 *		through the steps that purge.sql describes, and ends.
 *
 * It is a process of its own because DETACH PARTITION ... CONCURRENTLY must be
 * a statement of its own, outside of any transaction, and waits for whoever
 * has read the table, however long that takes.  Nobody waits for it
 * meanwhile: it holds no lock that a reader or a writer would want.
 *
 * It is the extension's owner for its whole life, with a fixed search_path,
 * and session_replication_role = replica, so that no trigger that anyone may
 * have put on a table fires in it.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "nodes/plannodes.h"
#include "parser/parser.h"
#include "pgstat.h"
#include "retention/purge.h"
#include "storage/ipc.h"
#include "tcop/dest.h"
#include "tcop/utility.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "workers/shared_state.h"
#include "workers/worker.h"

#define STEP_LOCK_TIMEOUT	"1s"	/* for the locks of one step */
#define DETACH_IMPATIENTLY	"2s"	/* for each reader, before ingest resumes */
#define DETACH_PATIENTLY	"0"

PGDLLEXPORT void imgpipe_purge_main(Datum argument);

PG_FUNCTION_INFO_V1(imgpipe_fault_point_reached);

static MemoryContext step_context;	/* reset after each step */

/* The set that is being purged, and the errors of the pass. */
static Datum bounds[2];
static bool failed;
static bool blocked;

void
fault_point(const char *name)
{
	if (strcmp(imgpipe_fault_point, name) != 0)
		return;
	ereport(LOG, (errmsg("imgpipe: fault point \"%s\" reached", name)));
	while (strcmp(imgpipe_fault_point, name) == 0)
		worker_sleep(100, wait_event_idle());
}

Datum
imgpipe_fault_point_reached(PG_FUNCTION_ARGS)
{
	fault_point(text_to_cstring(PG_GETARG_TEXT_PP(0)));
	PG_RETURN_VOID();
}

static void
set(const char *name, const char *value)
{
	SetConfigOption(name, value, PGC_SUSET, PGC_S_SESSION);
}

/* One statement of the extension's own in a transaction; where it has bounds, they are $1 and $2. */
static void
begin_statement(const char *activity, const char *statement)
{
	Oid			types[] = {TIMESTAMPTZOID, TIMESTAMPTZOID};

	worker_transaction_begin(activity);
	if (SPI_execute_with_args(statement, strstr(statement, "$1") ? 2 : 0, types, bounds, NULL, false, 0) < 0)
		elog(ERROR, "could not execute: %s", statement);
}

/* The value of the row that it returned; false for NULL. */
static bool
value_of(int column, Datum *value)
{
	bool		isnull;

	if (SPI_processed != 1)
		elog(ERROR, "expected one row, got %llu", (unsigned long long) SPI_processed);
	*value = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, column, &isnull);
	return !isnull;
}

static void
become_owner(void)
{
	Datum		name;
	char	   *command;

	set("search_path", "pg_catalog, pg_temp");
	set("lock_timeout", STEP_LOCK_TIMEOUT);
	/* It is the check for deadlocks that ends an autovacuum which is in the way: it must come first. */
	set("deadlock_timeout", "100ms");
	set("session_replication_role", "replica");
	/* Sealing and counting are short, and in nobody's way. */
	set("max_parallel_workers_per_gather", "0");
	/* A step that is lost in a crash is done again; the one that drops waits for the disk by itself. */
	set("synchronous_commit", "off");
	begin_statement("becoming the owner",
					"SELECT pg_catalog.format('SET SESSION AUTHORIZATION %I', r.rolname)"
					" FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_roles r ON r.oid = e.extowner"
					" WHERE e.extname = 'imgpipe'");
	if (SPI_processed == 0 || !value_of(1, &name))
		proc_exit(0);			/* the extension was dropped */
	command = TextDatumGetCString(name);
	if (SPI_execute(command, false, 0) != SPI_OK_UTILITY)
		elog(ERROR, "could not execute: %s", command);
	worker_transaction_commit();

	/* One purge at a time; a session's call of purge_next_partition() is short. */
	begin_statement("waiting for another purge",
					"SELECT pg_catalog.pg_advisory_lock(imgpipe.purge_lock())");
	worker_transaction_commit();
}

/*
 * A statement that ends its transaction and begins another one: what it has in
 * memory must outlive the first, and part of it it puts into PortalContext.
 */
static void
run_top_level(const char *command)
{
	RawStmt    *parsed;
	PlannedStmt *statement;

	MemoryContextSwitchTo(step_context);
	parsed = linitial_node(RawStmt, raw_parser(command, RAW_PARSE_DEFAULT));
	statement = makeNode(PlannedStmt);
	statement->commandType = CMD_UTILITY;
	statement->canSetTag = true;
	statement->utilityStmt = parsed->stmt;
	statement->stmt_location = parsed->stmt_location;
	statement->stmt_len = parsed->stmt_len;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	pgstat_report_activity(STATE_RUNNING, command);
	PushActiveSnapshot(GetTransactionSnapshot());
	MemoryContextSwitchTo(step_context);
	ProcessUtility(statement, command, false, PROCESS_UTILITY_TOPLEVEL, NULL, NULL, None_Receiver, NULL);
	if (ActiveSnapshotSet())
		PopActiveSnapshot();
	CommitTransactionCommand();
	pgstat_report_stat(false);
	pgstat_report_activity(STATE_IDLE, NULL);
}

static void
detach(const char *lock_timeout)
{
	Datum		commands;
	Datum	   *command;
	int			n = 0;
	int			i;

	begin_statement("looking for partitions to detach", "SELECT imgpipe.detach_commands($1, $2, in_transaction => false)");
	if (value_of(1, &commands))
	{
		MemoryContextSwitchTo(step_context);
		deconstruct_array(DatumGetArrayTypePCopy(commands), TEXTOID, -1, false, TYPALIGN_INT, &command, NULL, &n);
	}
	worker_transaction_commit();
	for (i = 0; i < n; i++)
	{
		set("lock_timeout", lock_timeout);
		MemoryContextSwitchTo(step_context);
		run_top_level(TextDatumGetCString(command[i]));
		set("lock_timeout", STEP_LOCK_TIMEOUT);
		fault_point(psprintf("detached %d", i + 1));
	}
}

/* The purge of one set, from wherever an earlier one has left it. */
static void
purge_set(const char *lock_timeout)
{
	begin_statement("sealing overdue images", "SELECT imgpipe.seal_purge($1, $2)");
	worker_transaction_commit();
	fault_point("sealed");
	detach(lock_timeout);
	begin_statement("dropping overdue images", "SELECT imgpipe.finish_purge($1, $2)");
	worker_transaction_commit();
	fault_point("finished");
}

/* Notes an error with the set, and goes on to the next one. */
static void
note_failure(const ErrorData *error)
{
	Oid			types[] = {TIMESTAMPTZOID, TIMESTAMPTZOID, TEXTOID, TEXTOID, TEXTOID};
	Datum		values[] = {
		bounds[0], bounds[1],
		CStringGetTextDatum(unpack_sql_state(error->sqlerrcode)),
		CStringGetTextDatum(error->message),
		error->detail ? CStringGetTextDatum(error->detail) : (Datum) 0
	};

	worker_transaction_begin("noting a failure");
	if (SPI_execute_with_args("SELECT imgpipe.fail_purge($1, $2, $3, $4, $5)", lengthof(types), types, values,
							  error->detail ? NULL : "    n", false, 0) < 0)
		elog(ERROR, "could not note a failed purge");
	worker_transaction_commit();
}

typedef bool (*Step) (const char *lock_timeout);

/* True where the step shall be called again.  An error of a set is noted with it. */
static bool
try_step(Step step, const char *lock_timeout)
{
	volatile bool again = false;

	bounds[0] = bounds[1] = (Datum) 0;
	PG_TRY();
	{
		again = step(lock_timeout);
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(step_context);
		error = CopyErrorData();
		FlushErrorState();
		worker_transaction_abort();
		set("lock_timeout", STEP_LOCK_TIMEOUT);
		blocked = error->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE;
		ereport(blocked ? DEBUG1 : LOG,
				(errcode(error->sqlerrcode),
				 errmsg("imgpipe: purging overdue images failed: %s", error->message),
				 error->detail ? errdetail_internal("%s", error->detail) : 0,
				 error->hint ? errhint("%s", error->hint) : 0,
				 error->context ? errcontext("%s", error->context) : 0));
		slot_set_error(WORKER_RUNNING, error->message);
		failed |= !blocked;
		again = bounds[1] != (Datum) 0;
		if (again)
			note_failure(error);
	}
	PG_END_TRY();
	MemoryContextReset(step_context);
	CHECK_FOR_INTERRUPTS();
	return again;
}

static bool
purge_next(const char *lock_timeout)
{
	Datum		from;
	Datum		to;
	bool		found;

	begin_statement("looking for overdue images", "SELECT * FROM imgpipe.begin_purge()");
	found = value_of(1, &from) && value_of(2, &to);
	worker_transaction_commit();
	if (!found)
		return false;
	/* By value on 64-bit machines, and copied where not: these outlive the transaction. */
	bounds[0] = TimestampTzGetDatum(DatumGetTimestampTz(from));
	bounds[1] = TimestampTzGetDatum(DatumGetTimestampTz(to));
	fault_point("begun");
	purge_set(lock_timeout);
	return true;
}

static bool
small_duty(const char *activity, const char *statement)
{
	Datum		again;

	begin_statement(activity, statement);
	if (!value_of(1, &again))
		again = BoolGetDatum(false);
	worker_transaction_commit();
	return DatumGetBool(again);
}

static bool
end_hold(const char *lock_timeout)
{
	return small_duty("ending legal holds", "SELECT imgpipe.end_next_hold()");
}

static bool
cool_partition(const char *lock_timeout)
{
	return small_duty("moving partitions to cheaper storage", "SELECT imgpipe.cool_next_partition()");
}

void
imgpipe_purge_main(Datum argument)
{
	const WorkerArguments *arguments = worker_start();
	bool		patient = arguments->object == PURGE_PATIENTLY;

	step_context = AllocSetContextCreate(TopMemoryContext, "imgpipe purge step", ALLOCSET_DEFAULT_SIZES);
	PortalContext = step_context;
	become_owner();
	slot_set_state(WORKER_RUNNING);

	/* What one reader is in the way of, it is in the way of for all that is behind it too. */
	while (try_step(purge_next, patient ? DETACH_PATIENTLY : DETACH_IMPATIENTLY) && (patient || !blocked))
		;
	while (try_step(end_hold, NULL))
		;
	if (patient)
		while (try_step(cool_partition, NULL))
			;
	proc_exit(failed ? 1 : 0);
}
