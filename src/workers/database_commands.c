/*
 * database_commands.c
 *		Gets our workers out of the way of commands that need a database, or
 *		the extension, to themselves.
 *
 * DROP DATABASE, ALTER DATABASE ... RENAME and SET TABLESPACE and CREATE
 * DATABASE ... TEMPLATE fail while anyone else is connected, and the controller
 * always is.  So, where the user may do such a thing to the database, its
 * workers are stopped first (the command itself then waits up to 5 seconds for
 * them) and let back in afterwards.
 *
 * ALTER EXTENSION ... UPDATE and DROP EXTENSION lock our tables in an order of
 * their own: with workers at work that may become a deadlock, whose victim may
 * be the command.  They wait here for the workers' end.
 */
#include "postgres.h"

#include "access/drop_notice.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "imgpipe.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "tcop/utility.h"
#include "utils/timestamp.h"
#include "workers/database_commands.h"
#include "workers/shared_state.h"
#include "workers/worker.h"

#define WORKERS_GRACE	10000	/* ms: for workers to end before the extension is changed */
#define WORKERS_PAUSE	20		/* ms: between looks whether they have */

static ProcessUtility_hook_type previous_hook = NULL;

static const char *
string_option(List *options, const char *name)
{
	ListCell   *cell;

	foreach(cell, options)
	{
		DefElem    *option = lfirst_node(DefElem, cell);

		if (strcmp(option->defname, name) == 0 && option->arg != NULL)
			return defGetString(option);
	}
	return NULL;
}

/* The database that a command must have to itself, or NULL. */
static const char *
database_needed(Node *statement)
{
	switch (nodeTag(statement))
	{
		case T_DropdbStmt:
			return castNode(DropdbStmt, statement)->dbname;
		case T_RenameStmt:
			if (castNode(RenameStmt, statement)->renameType == OBJECT_DATABASE)
				return castNode(RenameStmt, statement)->subname;
			return NULL;
		case T_AlterDatabaseStmt:
			if (string_option(castNode(AlterDatabaseStmt, statement)->options, "tablespace"))
				return castNode(AlterDatabaseStmt, statement)->dbname;
			return NULL;
		case T_CreatedbStmt:
			return string_option(castNode(CreatedbStmt, statement)->options, "template");
		default:
			return NULL;
	}
}

/* Whether the command drops our extension, by somebody who may. */
static bool
extension_dropped(Node *statement)
{
	bool		ours = false;
	ListCell   *cell;

	if (IsA(statement, DropStmt) && castNode(DropStmt, statement)->removeType == OBJECT_EXTENSION)
		foreach(cell, castNode(DropStmt, statement)->objects)
			ours = ours || strcmp(strVal(lfirst(cell)), "imgpipe") == 0;
	return ours && worker_extension_is_owned();
}

/* Whether the command changes our extension, by somebody who may. */
static bool
extension_needed(Node *statement)
{
	if (IsA(statement, AlterExtensionStmt))
		return strcmp(castNode(AlterExtensionStmt, statement)->extname, "imgpipe") == 0 && worker_extension_is_owned();
	return extension_dropped(statement);
}

static void
wait_for_workers(void)
{
	TimestampTz began = GetCurrentTimestamp();

	while (!workers_are_gone(MyDatabaseId) &&
		   !TimestampDifferenceExceeds(began, GetCurrentTimestamp(), WORKERS_GRACE))
	{
		WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, WORKERS_PAUSE, wait_event_idle());
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}

static void
run_utility(PlannedStmt *statement, const char *query, bool read_only_tree,
			ProcessUtilityContext context, ParamListInfo parameters,
			QueryEnvironment *environment, DestReceiver *receiver, QueryCompletion *completion)
{
	const char *name = database_needed(statement->utilityStmt);
	Oid			database = name != NULL ? get_database_oid(name, true) : InvalidOid;
	bool		hold = false;

	if (OidIsValid(database) && database != MyDatabaseId && database_is_owned(database))
		hold = hold_workers(database);
	/* But not where one of them, a job, is at it. */
	else if (my_slot == NULL && extension_needed(statement->utilityStmt))
	{
		database = MyDatabaseId;
		hold = hold_workers(database);
	}
	PG_TRY();
	{
		if (hold && database == MyDatabaseId)
			wait_for_workers();
		if (extension_dropped(statement->utilityStmt))
			tell_what_stays();
		if (previous_hook)
			previous_hook(statement, query, read_only_tree, context, parameters,
						  environment, receiver, completion);
		else
			standard_ProcessUtility(statement, query, read_only_tree, context, parameters,
									environment, receiver, completion);
	}
	PG_FINALLY();
	{
		if (hold)
			release_workers(database);
	}
	PG_END_TRY();
}

void
database_commands_watch(void)
{
	previous_hook = ProcessUtility_hook;
	ProcessUtility_hook = run_utility;
}
