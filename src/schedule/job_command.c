/*
 * job_command.c
 *		The SQL of a job: checked when it is scheduled, executed by its worker.
 *
 * What a client's simple query does is done here: one statement has its own
 * transaction, so that those which cannot run inside of one can be jobs, and
 * several share one, but for what BEGIN and COMMIT among them say.
 */
#include "postgres.h"

#include "access/xact.h"
#include "commands/portalcmds.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "parser/analyze.h"
#include "pgstat.h"
#include "schedule/job_command.h"
#include "storage/proc.h"
#include "tcop/cmdtag.h"
#include "tcop/dest.h"
#include "tcop/pquery.h"
#include "tcop/tcopprot.h"
#include "tcop/utility.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/portal.h"
#include "utils/snapmgr.h"
#include "utils/timeout.h"

PG_FUNCTION_INFO_V1(imgpipe_check_command);

/* The raw statements; there is at least one, and none needs a client. */
static List *
parse_command(const char *command)
{
	List	   *statements = pg_parse_query(command);
	ListCell   *cell;

	if (statements == NIL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a job's command has no statement in it"),
				 errdetail("It is \"%s\".", command),
				 errhint("For example: SELECT imgpipe.schedule('nightly', '30 2 * * *', 'VACUUM');")));
	foreach(cell, statements)
	{
		Node	   *statement = lfirst_node(RawStmt, cell)->stmt;

		if (IsA(statement, CopyStmt) && castNode(CopyStmt, statement)->filename == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("a job cannot COPY from or to its client"),
					 errdetail("It has none."),
					 errhint("Use INSERT ... SELECT, or COPY with a file or PROGRAM.")));
	}
	return statements;
}

/* A place in the command is not one in the query that schedules it. */
static void
show_command(void *command)
{
	int			position = geterrposition();

	if (position <= 0)
		return;
	errposition(0);
	internalerrposition(position);
	internalerrquery(command);
}

Datum
imgpipe_check_command(PG_FUNCTION_ARGS)
{
	ErrorContextCallback callback;

	callback.callback = show_command;
	callback.arg = text_to_cstring(PG_GETARG_TEXT_PP(0));
	callback.previous = error_context_stack;
	error_context_stack = &callback;
	(void) parse_command(callback.arg);
	error_context_stack = callback.previous;
	PG_RETURN_VOID();
}

static void
execute(RawStmt *statement, const char *command, JobRows *rows)
{
	bool		needs_snapshot = analyze_requires_snapshot(statement);
	QueryCompletion completion;
	List	   *queries;
	List	   *plans;
	Portal		portal;

	if (needs_snapshot)
		PushActiveSnapshot(GetTransactionSnapshot());
	queries = pg_analyze_and_rewrite_fixedparams(statement, command, NULL, 0, NULL);
	plans = pg_plan_queries(queries, command, CURSOR_OPT_PARALLEL_OK, NULL);
	if (needs_snapshot)
		PopActiveSnapshot();
	CHECK_FOR_INTERRUPTS();

	portal = CreatePortal("", true, true);
	portal->visible = false;
	PortalDefineQuery(portal, NULL, command, CreateCommandTag(statement->stmt), plans, NULL);
	PortalStart(portal, NULL, 0, InvalidSnapshot);
	portal_run_all(portal, None_Receiver, &completion);
	PortalDrop(portal, false);
	if (command_tag_display_rowcount(completion.commandTag))
	{
		rows->counted = true;
		rows->count += completion.nprocessed;
	}
}

void
job_command_run(const char *command, JobRows *rows)
{
	MemoryContext context = AllocSetContextCreate(TopMemoryContext, "imgpipe job command", ALLOCSET_DEFAULT_SIZES);
	bool		in_transaction;
	List	   *statements;
	ListCell   *cell;

	debug_query_string = command;
	pgstat_report_activity(STATE_RUNNING, command);
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	in_transaction = true;
	MemoryContextSwitchTo(context);
	statements = parse_command(command);

	foreach(cell, statements)
	{
		RawStmt    *statement = lfirst_node(RawStmt, cell);
		bool		last = lnext(statements, cell) == NULL;

		if (!in_transaction)
		{
			SetCurrentStatementStartTimestamp();
			StartTransactionCommand();
		}
		in_transaction = true;
		if (list_length(statements) > 1)
			BeginImplicitTransactionBlock();
		if (StatementTimeout > 0)
			enable_timeout_after(STATEMENT_TIMEOUT, StatementTimeout);
		MemoryContextSwitchTo(context);
		execute(statement, command, rows);
		disable_timeout(STATEMENT_TIMEOUT, false);

		if (last && list_length(statements) > 1)
			EndImplicitTransactionBlock();
		if (last || IsA(statement->stmt, TransactionStmt))
		{
			CommitTransactionCommand();
			in_transaction = false;
		}
		else
			CommandCounterIncrement();
	}
	if (IsTransactionBlock())
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("the command has left a transaction open"),
				 errdetail("What it did after BEGIN is undone."),
				 errhint("End the command with COMMIT, or leave BEGIN out.")));
	debug_query_string = NULL;
	pgstat_report_stat(false);
	pgstat_report_activity(STATE_IDLE, NULL);
}
