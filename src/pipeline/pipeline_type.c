/*
 * pipeline_type.c
 *		The SQL type pipeline: text that the parser has accepted, in its
 *		canonical form.
 *
 * A pipeline Datum is a text varlena, so TextDatumGetCString() reads it and
 * output, comparison and hashing are PostgreSQL's own for text and bytea; see
 * pipeline.sql.  Only what makes a pipeline is here, and the table of
 * operations for the reference.
 */
#include "postgres.h"

#include "fmgr.h"
#include "funcapi.h"
#include "imgpipe.h"
#include "lib/stringinfo.h"
#include "libpq/pqformat.h"
#include "mb/pg_wchar.h"
#include "utils/array.h"
#include "utils/builtins.h"

#include "pipeline/pipeline.h"

PG_FUNCTION_INFO_V1(imgpipe_pipeline_in);
PG_FUNCTION_INFO_V1(imgpipe_pipeline_recv);
PG_FUNCTION_INFO_V1(imgpipe_pipeline_operations);

static int
error_code(PipelineErrorKind kind)
{
	switch (kind)
	{
		case PIPELINE_SYNTAX:
			return ERRCODE_SYNTAX_ERROR;
		case PIPELINE_VALUE:
			return ERRCODE_INVALID_PARAMETER_VALUE;
		case PIPELINE_LIMIT:
			return ERRCODE_PROGRAM_LIMIT_EXCEEDED;
	}
	return ERRCODE_INTERNAL_ERROR;
}

/*
 * The parser reads UTF-8 and counts its characters, whatever the encoding of
 * the database.  Between encodings that are the same nothing is converted.
 */
static char *
to_server(const char *text)
{
	return pg_any_to_server(text, strlen(text), PG_UTF8);
}

/* NULL where the text is no pipeline and escontext took the error. */
static text *
make_pipeline(const char *string, Node *escontext)
{
	char	   *utf8 = pg_server_to_any(string, strlen(string), PG_UTF8);
	Pipeline	pipeline;
	PipelineError error;
	char		canonical[PIPELINE_MAX_TEXT];
	StringInfoData detail;

	if (pipeline_parse(utf8, strlen(utf8), &pipeline, &error))
	{
		if (pipeline_print(&pipeline, canonical, sizeof(canonical)) == 0)
			elog(ERROR, "pipeline has no canonical text");
		return cstring_to_text(to_server(canonical));
	}

	initStringInfo(&detail);
	if (error.position > 0)
		appendStringInfo(&detail, "At character %d of the pipeline.", error.position);
	if (error.detail[0] != '\0')
		appendStringInfo(&detail, "%s%s", detail.len > 0 ? " " : "", to_server(error.detail));
	ereturn(escontext, NULL,
			(errcode(error_code(error.kind)),
			 errmsg_internal("%s", to_server(error.message)),
			 detail.len > 0 ? errdetail_internal("%s", detail.data) : 0,
			 error.hint[0] != '\0' ? errhint("%s", to_server(error.hint)) : 0));
}

Datum
imgpipe_pipeline_in(PG_FUNCTION_ARGS)
{
	text	   *pipeline = make_pipeline(PG_GETARG_CSTRING(0), fcinfo->context);

	if (pipeline == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(pipeline);
}

Datum
imgpipe_pipeline_recv(PG_FUNCTION_ARGS)
{
	StringInfo	message = (StringInfo) PG_GETARG_POINTER(0);
	int			length;
	char	   *string = pq_getmsgtext(message, message->len - message->cursor, &length);

	PG_RETURN_TEXT_P(make_pipeline(string, NULL));
}

/* The columns of pipeline_operations(). */
enum
{
	COLUMN_OPERATION,
	COLUMN_KIND,
	COLUMN_ARGUMENT,
	COLUMN_TYPE,
	COLUMN_REQUIRED,
	COLUMN_DEFAULT,
	COLUMN_MINIMUM,
	COLUMN_MAXIMUM,
	COLUMN_WORDS,
	COLUMN_DESCRIPTION,
	N_COLUMNS
};

static Datum
words_array(const char *const *words)
{
	Datum		elements[64];
	int			n = 0;

	for (; words[n] != NULL && n < (int) lengthof(elements); n++)
		elements[n] = CStringGetTextDatum(words[n]);
	return PointerGetDatum(construct_array(elements, n, TEXTOID, -1, false, TYPALIGN_INT));
}

static void
describe_argument(const ArgumentSpec *argument, Datum *values, bool *nulls)
{
	bool		is_number = argument->type == ARGUMENT_INTEGER || argument->type == ARGUMENT_NUMBER;
	PipelineValue fallback = {.number = argument->fallback};
	char		text[PIPELINE_MAX_TEXT];

	values[COLUMN_ARGUMENT] = CStringGetTextDatum(argument->name);
	values[COLUMN_TYPE] = CStringGetTextDatum(argument_type_name(argument->type));
	values[COLUMN_REQUIRED] = BoolGetDatum(argument->required);
	nulls[COLUMN_ARGUMENT] = nulls[COLUMN_TYPE] = nulls[COLUMN_REQUIRED] = false;
	if (!argument->required && argument->type != ARGUMENT_TEXT && !isnan(argument->fallback))
	{
		pipeline_print_value(argument, &fallback, text, sizeof(text));
		values[COLUMN_DEFAULT] = CStringGetTextDatum(text);
		nulls[COLUMN_DEFAULT] = false;
	}
	if (is_number)
	{
		values[COLUMN_MINIMUM] = Float8GetDatum(argument->minimum);
		nulls[COLUMN_MINIMUM] = false;
	}
	if (is_number || argument->type == ARGUMENT_TEXT)
	{
		values[COLUMN_MAXIMUM] = Float8GetDatum(argument->maximum);
		nulls[COLUMN_MAXIMUM] = false;
	}
	if (argument->words != NULL)
	{
		values[COLUMN_WORDS] = words_array(argument->words);
		nulls[COLUMN_WORDS] = false;
	}
	values[COLUMN_DESCRIPTION] = CStringGetTextDatum(argument->description);
}

/* A row for each operation, then one for each of its arguments. */
Datum
imgpipe_pipeline_operations(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	int			o;

	InitMaterializedSRF(fcinfo, 0);
	for (o = 0; o < OPERATION_COUNT; o++)
	{
		const OperationSpec *operation = &operations[o];
		const ArgumentSpec *argument = NULL;

		do
		{
			Datum		values[N_COLUMNS];
			bool		nulls[N_COLUMNS];

			memset(nulls, true, sizeof(nulls));
			values[COLUMN_OPERATION] = CStringGetTextDatum(operation->name);
			values[COLUMN_KIND] = CStringGetTextDatum(operation_kind_name(operation->kind));
			nulls[COLUMN_OPERATION] = nulls[COLUMN_KIND] = nulls[COLUMN_DESCRIPTION] = false;
			if (argument == NULL)
			{
				values[COLUMN_DESCRIPTION] = CStringGetTextDatum(operation->description);
				argument = operation->arguments;
			}
			else
				describe_argument(argument++, values, nulls);
			tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
		} while (argument != NULL && argument->name != NULL);
	}
	return (Datum) 0;
}
