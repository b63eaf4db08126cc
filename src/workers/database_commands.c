/*
 * database_commands.c
 *		Gets our workers out of the way of commands that need a database to
 *		themselves.
 *
 * DROP DATABASE, ALTER DATABASE ... RENAME and SET TABLESPACE and CREATE
 * DATABASE ... TEMPLATE fail while anyone else is connected, and the controller
 * always is.  So, where the user may do such a thing to the database, its
 * workers are stopped first (the command itself then waits up to 5 seconds for
 * them) and let back in afterwards.
 */
#include "postgres.h"

#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "imgpipe.h"
#include "miscadmin.h"
#include "tcop/utility.h"
#include "workers/database_commands.h"
#include "workers/shared_state.h"

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

static void
run_utility(PlannedStmt *statement, const char *query, bool read_only_tree,
			ProcessUtilityContext context, ParamListInfo parameters,
			QueryEnvironment *environment, DestReceiver *receiver, QueryCompletion *completion)
{
	const char *name = database_needed(statement->utilityStmt);
	Oid			database = name != NULL ? get_database_oid(name, true) : InvalidOid;
	bool		hold = OidIsValid(database) && database != MyDatabaseId &&
		database_is_owned(database);

	if (hold)
		hold_workers(database);
	PG_TRY();
	{
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
