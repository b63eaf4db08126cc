/*
 * erase.c
 *		Asks whether a message was erased; see erase.sql.
 *
 * Runs in ingest workers, as the extension's owner.  Since positions are moved
 * first, and an erasure locks them, each sees the other.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "retention/erase.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "workers/worker.h"

/* The value of a statement's only column. */
static bool
ask(const char *statement, int n, Oid *types, Datum *values, const char *nulls)
{
	InternalScope scope;
	bool		isnull;
	bool		answer;

	internal_begin(&scope);
	if (SPI_execute_with_args(statement, n, types, values, nulls, false, 0) != SPI_OK_SELECT ||
		SPI_processed != 1)
		elog(ERROR, "could not execute: %s", statement);
	answer = DatumGetBool(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	SPI_freetuptable(SPI_tuptable);
	internal_end(&scope);
	return answer;
}

bool
erasures_exist(void)
{
	return ask("SELECT EXISTS (SELECT FROM imgpipe.erasures)", 0, NULL, NULL, NULL);
}

bool
erasure_refuses(const char *source, int32 partition, int64 offset, TimestampTz timestamp,
				const char *key, const char *uploaded_by)
{
	Oid			types[] = {TEXTOID, INT4OID, INT8OID, TIMESTAMPTZOID, TEXTOID, TEXTOID};
	Datum		values[] = {
		CStringGetTextDatum(source), Int32GetDatum(partition), Int64GetDatum(offset),
		TimestampTzGetDatum(timestamp),
		key ? CStringGetTextDatum(key) : (Datum) 0,
		uploaded_by ? CStringGetTextDatum(uploaded_by) : (Datum) 0
	};
	char		nulls[] = {' ', ' ', ' ', timestamp ? ' ' : 'n', key ? ' ' : 'n', uploaded_by ? ' ' : 'n'};

	return ask("SELECT imgpipe.refuse_erased($1, $2, $3, $4, $5, $6)", lengthof(types), types, values, nulls);
}
