/*
 * queue.c
 *		The queue of tasks in C: what processing.sql defines, as calls.
 *
 * Each statement is planned once a process and kept.  All of them run as the
 * extension's owner, in the transaction of the caller.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "processing/queue.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#define MAX_PARAMETERS	7

typedef struct Statement
{
	const char *text;
	int			n_parameters;
	Oid			types[MAX_PARAMETERS];	/* InvalidOid: imgpipe.image */
	SPIPlanPtr	plan;
} Statement;

static Statement claim_statement = {
	"SELECT task_id, image_id, attempts, version, processor, output_names, pipelines, function "
	"FROM imgpipe.claim_tasks($1::regrole, $2, make_interval(secs => $3))",
	3, {OIDOID, INT4OID, INT4OID}
};

static Statement extend_statement = {
	"SELECT imgpipe.extend_task($1, $2, $3, make_interval(secs => $4))",
	4, {INT8OID, INT4OID, INT4OID, INT4OID}
};

static Statement release_statement = {
	"SELECT imgpipe.release_task($1, $2, $3, make_interval(secs => $4))",
	4, {INT8OID, INT4OID, INT4OID, INT4OID}
};

static Statement finish_statement = {
	"SELECT imgpipe.finish_task($1, $2, $3)",
	3, {INT8OID, INT4OID, INT4OID}
};

static Statement fail_statement = {
	"SELECT imgpipe.fail_task($1, $2, $3, $4, $5, $6, $7)",
	7, {INT8OID, INT4OID, INT4OID, TEXTOID, TEXTOID, TEXTOID, BOOLOID}
};

static Statement image_statement = {
	"SELECT FROM imgpipe.images WHERE image_id = $1 AND image_id >= imgpipe.fence()",
	1, {UUIDOID}
};

static Statement complete_statement = {
	"SELECT imgpipe.complete_result($1)",
	1, {UUIDOID}
};

/*
 * No look at the version that is there: an image has one task a processor at
 * a time, so the version that is written later is the later one.
 */
static Statement rendition_statement = {
	"INSERT INTO imgpipe.renditions (image_id, processor, name, version, content) "
	"VALUES ($1, $2, $3, $4, $5) "
	"ON CONFLICT (image_id, processor, name) DO UPDATE "
	"SET version = EXCLUDED.version, content = EXCLUDED.content, created_at = EXCLUDED.created_at",
	5, {UUIDOID, TEXTOID, TEXTOID, INT4OID, InvalidOid}
};

static Statement result_statement = {
	"INSERT INTO imgpipe.results (image_id, processor, version, result) "
	"VALUES ($1, $2, $3, $4) "
	"ON CONFLICT (image_id, processor) DO UPDATE "
	"SET version = EXCLUDED.version, result = EXCLUDED.result, created_at = EXCLUDED.created_at",
	4, {UUIDOID, TEXTOID, INT4OID, JSONBOID}
};

/* nulls as for SPI, or NULL. */
static void
execute(Statement *statement, Datum *values, const char *nulls)
{
	int			result;

	if (statement->plan == NULL)
	{
		SPIPlanPtr	plan;
		int			i;

		for (i = 0; i < statement->n_parameters; i++)
			if (!OidIsValid(statement->types[i]))
				statement->types[i] = image_type_oid();
		plan = SPI_prepare(statement->text, statement->n_parameters, statement->types);
		if (plan == NULL || SPI_keepplan(plan) != 0)
			elog(ERROR, "could not prepare \"%s\": %s", statement->text,
				 SPI_result_code_string(SPI_result));
		statement->plan = plan;
	}
	result = SPI_execute_plan(statement->plan, values, nulls, false, 0);
	if (result < 0)
		elog(ERROR, "could not execute \"%s\": %s", statement->text, SPI_result_code_string(result));
}

/* The one value of the one row of the last statement, a boolean. */
static bool
returned_boolean(bool *is_null)
{
	return DatumGetBool(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, is_null));
}

void
queue_begin(const char *activity, InternalScope *scope)
{
	worker_transaction_begin(activity);
	worker_transaction_need_not_last();
	internal_begin(scope);
}

void
queue_commit(const InternalScope *scope)
{
	internal_end(scope);
	worker_transaction_commit();
}

/* Strings of a text[], or NULL where the column is. */
static char **
column_strings(int column, int row, int *count)
{
	Datum	   *elements;
	char	  **strings;
	bool		is_null;
	Datum		value = SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column, &is_null);
	int			i;

	*count = 0;
	if (is_null)
		return NULL;
	deconstruct_array(DatumGetArrayTypeP(value), TEXTOID, -1, false, TYPALIGN_INT,
					  &elements, NULL, count);
	strings = palloc(*count * sizeof(char *));
	for (i = 0; i < *count; i++)
		strings[i] = TextDatumGetCString(elements[i]);
	return strings;
}

static Task *
task_from_row(int row)
{
	HeapTuple	tuple = SPI_tuptable->vals[row];
	TupleDesc	descriptor = SPI_tuptable->tupdesc;
	Task	   *task = palloc0(sizeof(Task));
	bool		is_null;

	task->task_id = DatumGetInt64(SPI_getbinval(tuple, descriptor, 1, &is_null));
	task->image_id = *DatumGetUUIDP(SPI_getbinval(tuple, descriptor, 2, &is_null));
	task->attempts = DatumGetInt32(SPI_getbinval(tuple, descriptor, 3, &is_null));
	task->version = DatumGetInt32(SPI_getbinval(tuple, descriptor, 4, &is_null));
	task->processor = TextDatumGetCString(SPI_getbinval(tuple, descriptor, 5, &is_null));
	task->output_names = column_strings(6, row, &task->n_outputs);
	task->pipelines = column_strings(7, row, &task->n_outputs);
	if (task->pipelines == NULL)
		task->function = TextDatumGetCString(SPI_getbinval(tuple, descriptor, 8, &is_null));
	return task;
}

List *
queue_claim(Oid owner, int max_images, int lease)
{
	MemoryContext caller_context = CurrentMemoryContext;
	Datum		values[3] = {ObjectIdGetDatum(owner), Int32GetDatum(max_images), Int32GetDatum(lease)};
	InternalScope scope;
	List	   *tasks = NIL;
	uint64		row;

	queue_begin("claiming tasks", &scope);
	execute(&claim_statement, values, NULL);
	MemoryContextSwitchTo(caller_context);
	for (row = 0; row < SPI_processed; row++)
		tasks = lappend(tasks, task_from_row(row));
	queue_commit(&scope);
	MemoryContextSwitchTo(caller_context);
	return tasks;
}

bool
queue_extend(const Task *task, int lease)
{
	Datum		values[4] = {Int64GetDatum(task->task_id), Int32GetDatum(task->attempts),
	Int32GetDatum(task->version), Int32GetDatum(lease)};
	bool		is_null;

	execute(&extend_statement, values, NULL);
	return returned_boolean(&is_null);
}

bool
queue_release(const Task *task, int delay)
{
	Datum		values[4] = {Int64GetDatum(task->task_id), Int32GetDatum(task->attempts),
	Int32GetDatum(task->version), Int32GetDatum(delay)};
	bool		is_null;

	execute(&release_statement, values, NULL);
	return returned_boolean(&is_null);
}

bool
queue_finish(const Task *task)
{
	Datum		values[3] = {Int64GetDatum(task->task_id), Int32GetDatum(task->attempts),
	Int32GetDatum(task->version)};
	bool		is_null;

	execute(&finish_statement, values, NULL);
	return returned_boolean(&is_null);
}

bool
queue_fail(const Task *task, int sqlerrcode, const char *reason, const char *detail,
		   bool final, bool *buried)
{
	Datum		values[7] = {Int64GetDatum(task->task_id), Int32GetDatum(task->attempts),
		Int32GetDatum(task->version), CStringGetTextDatum(unpack_sql_state(sqlerrcode)),
		CStringGetTextDatum(reason), detail ? CStringGetTextDatum(detail) : (Datum) 0,
	BoolGetDatum(final)};
	bool		lost;

	execute(&fail_statement, values, detail ? NULL : "     n ");
	*buried = returned_boolean(&lost);
	return !lost;
}

void
queue_complete(const pg_uuid_t *image_id)
{
	Datum		values[1] = {UUIDPGetDatum(image_id)};

	execute(&complete_statement, values, NULL);
}

bool
queue_image_exists(const pg_uuid_t *image_id)
{
	Datum		values[1] = {UUIDPGetDatum(image_id)};

	execute(&image_statement, values, NULL);
	return SPI_processed > 0;
}

void
queue_write_rendition(const Task *task, int output, const Image *content)
{
	Datum		values[5] = {UUIDPGetDatum(&task->image_id), CStringGetTextDatum(task->processor),
		CStringGetTextDatum(task->output_names[output]), Int32GetDatum(task->version),
	PointerGetDatum(content)};

	execute(&rendition_statement, values, NULL);
}

void
queue_write_result(const Task *task, Datum result, bool is_null)
{
	Datum		values[4] = {UUIDPGetDatum(&task->image_id), CStringGetTextDatum(task->processor),
	Int32GetDatum(task->version), result};

	execute(&result_statement, values, is_null ? "   n" : NULL);
}
