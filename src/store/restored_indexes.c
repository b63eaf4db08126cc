/*
 * restored_indexes.c
 *		Lets a dump be restored that brings indexes which are there already.
 *
 * A dump has our partitions, with their indexes; their parents it leaves to
 * CREATE EXTENSION.  So a partition gets an index for each of its parent's
 * when it is attached, and only then does the dump come with the same ones, by
 * the same names.  While a dump is restored (row_security is off: nobody else
 * does that) these statements do nothing.  Where the parent's index is another
 * one by now, that of the extension's version here stands.
 */
#include "postgres.h"

#include "catalog/index.h"
#include "catalog/namespace.h"
#include "imgpipe.h"
#include "store/restored_indexes.h"
#include "tcop/utility.h"
#include "utils/lsyscache.h"
#include "utils/rls.h"

static ProcessUtility_hook_type previous_hook = NULL;

/* Whether this partition of ours has an index of this name. */
static bool
has_index(const RangeVar *partition, const char *name)
{
	Oid			schema;
	Oid			index;

	if (partition == NULL || name == NULL || partition->schemaname == NULL ||
		strcmp(partition->schemaname, IMGPIPE_PARTITIONS) != 0)
		return false;
	schema = get_namespace_oid(IMGPIPE_PARTITIONS, true);
	index = OidIsValid(schema) ? get_relname_relid(name, schema) : InvalidOid;
	return OidIsValid(index) &&
		IndexGetRelation(index, true) == get_relname_relid(partition->relname, schema);
}

static bool
is_there_already(Node *statement)
{
	if (row_security)
		return false;
	if (IsA(statement, IndexStmt))
		return has_index(castNode(IndexStmt, statement)->relation,
						 castNode(IndexStmt, statement)->idxname);
	if (IsA(statement, AlterTableStmt) &&
		list_length(castNode(AlterTableStmt, statement)->cmds) == 1)
	{
		AlterTableCmd *command = linitial_node(AlterTableCmd, castNode(AlterTableStmt, statement)->cmds);
		Constraint *constraint = (Constraint *) command->def;

		return command->subtype == AT_AddConstraint &&
			(constraint->contype == CONSTR_PRIMARY || constraint->contype == CONSTR_UNIQUE) &&
			has_index(castNode(AlterTableStmt, statement)->relation, constraint->conname);
	}
	return false;
}

static void
run_utility(PlannedStmt *statement, const char *query, bool read_only_tree,
			ProcessUtilityContext context, ParamListInfo parameters,
			QueryEnvironment *environment, DestReceiver *receiver, QueryCompletion *completion)
{
	if (is_there_already(statement->utilityStmt))
		return;
	if (previous_hook)
		previous_hook(statement, query, read_only_tree, context, parameters,
					  environment, receiver, completion);
	else
		standard_ProcessUtility(statement, query, read_only_tree, context, parameters,
								environment, receiver, completion);
}

void
restored_indexes_watch(void)
{
	previous_hook = ProcessUtility_hook;
	ProcessUtility_hook = run_utility;
}
