/*
 * ingest_rows.c
 *		Rows of imgpipe.images and imgpipe.dead_letters, as ingest writes them.
 *
 * Inside the transaction that moves the positions, with the rights of the
 * source's owner.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "image/image.h"
#include "ingest/ingest.h"
#include "ingest/ingest_message.h"
#include "store/image_id.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

/* Of the images of one statement. */
#define STATEMENT_BYTES	(1024 * 1024)

/* A larger image has its own: an array copies it more often than the start of a statement is worth. */
#define TOGETHER_BYTES	(64 * 1024)

/* The columns that images and dead letters share, and their parameters. */
#define COMMON_COLUMNS \
	"image_id, source, source_partition, source_offset, source_key, source_timestamp, headers"
#define COMMON_VALUES "$1, $2, $3, $4, $5, $6, $7"
#define COMMON_TYPES UUIDOID, TEXTOID, INT4OID, INT8OID, TEXTOID, TIMESTAMPTZOID, JSONBOID
#define N_COMMON	7

static void
set_text(const char *text, int i, Datum *values, char *nulls)
{
	nulls[i] = text ? ' ' : 'n';
	values[i] = text ? CStringGetTextDatum(text) : (Datum) 0;
}

static void
common_values(const IngestSource *source, const IngestRow *row, Datum *values, char *nulls)
{
	memset(nulls, ' ', N_COMMON);
	values[0] = UUIDPGetDatum(&row->image_id);
	values[1] = CStringGetTextDatum(source->image_source);
	values[2] = Int32GetDatum(row->partition);
	values[3] = Int64GetDatum(row->offset);
	set_text(row->key, 4, values, nulls);
	values[5] = TimestampTzGetDatum(row->timestamp);
	nulls[5] = row->timestamp == 0 ? 'n' : ' ';
	values[6] = JsonbPGetDatum(row->headers);
	nulls[6] = row->headers ? ' ' : 'n';
}

void
statement_execute(SPIPlanPtr *plan, const char *statement, int result, int n_types, Oid *types,
				  Datum *values, const char *nulls)
{
	if (*plan == NULL)
	{
		*plan = SPI_prepare(statement, n_types, types);
		if (*plan == NULL || SPI_keepplan(*plan) != 0)
			elog(ERROR, "could not prepare: %s", statement);
	}
	if (SPI_execute_plan(*plan, values, nulls, false, 0) != result)
		elog(ERROR, "could not execute: %s", statement);
}

/* The header, else the field of the envelope, else the source's owner. */
static const char *
message_uploader(const IngestSource *source, const IngestMessage *message)
{
	char	   *uploaded_by = message_header_text(&message->message, "uploaded_by");

	if (uploaded_by == NULL && message->envelope)
		uploaded_by = envelope_text(message->envelope, "uploaded_by");
	return uploaded_by ? uploaded_by : source->owner_name;
}

/* A new id, with the deadline that the source's retention gives from now on. */
static Datum
new_image_id(const IngestSource *source)
{
	Datum		deadline;

	if (source->retention == NULL)
		return DirectFunctionCall1(imgpipe_new_image_id, (Datum) 0);
	deadline = DirectFunctionCall2(timestamptz_pl_interval, TimestampTzGetDatum(GetCurrentTimestamp()),
								   IntervalPGetDatum(source->retention));
	return DirectFunctionCall1(imgpipe_new_image_id_at, deadline);
}

void
row_of_message(const IngestSource *source, const IngestMessage *message, IngestRow *row)
{
	const KafkaMessage *kafka = &message->message;
	bool		no_headers;
	Datum		headers = message_headers(kafka, &no_headers);

	row->image_id = *DatumGetUUIDP(new_image_id(source));
	row->partition = kafka->partition;
	row->offset = kafka->offset;
	row->key = kafka->key ? message_text(kafka->key, kafka->key_length) : NULL;
	row->timestamp = message_timestamp(kafka);
	row->batch_id = message_header_text(kafka, "batch_id");
	row->uploaded_by = message_uploader(source, message);
	/* A dead letter has the whole envelope in its value. */
	if (message->envelope && message->verdict == INGEST_IMAGE)
	{
		headers = envelope_headers(message->envelope, source->content_field, headers, &no_headers);
		if (row->batch_id == NULL)
			row->batch_id = envelope_text(message->envelope, "batch_id");
	}
	row->headers = no_headers ? NULL : DatumGetJsonbP(headers);
}

#define IMAGE_COLUMNS	COMMON_COLUMNS ", content, batch_id, uploaded_by"
#define IMAGE_VALUES	COMMON_VALUES ", $8, $9, $10"
#define N_IMAGE			(N_COMMON + 3)

static void
image_values(const IngestSource *source, const IngestRow *row, const ImageFacts *facts,
			 const char *content, Size length, Datum *values, char *nulls)
{
	common_values(source, row, values, nulls);
	values[N_COMMON] = PointerGetDatum(image_make(facts, content, length));
	nulls[N_COMMON] = ' ';
	set_text(row->batch_id, N_COMMON + 1, values, nulls);
	set_text(row->uploaded_by, N_COMMON + 2, values, nulls);
}

static const char *
image_table(const IngestSource *source)
{
	return source->target ? source->target : "imgpipe.images";
}

void
row_insert_image(const IngestSource *source, const IngestRow *row, const ImageFacts *facts,
				 const char *content, Size length)
{
	static SPIPlanPtr plan = NULL;
	Oid			types[N_IMAGE] = {COMMON_TYPES, image_type_oid(), TEXTOID, TEXTOID};
	Datum		values[N_IMAGE];
	char		nulls[N_IMAGE];

	image_values(source, row, facts, content, length, values, nulls);
	statement_execute(&plan,
					  psprintf("INSERT INTO %s (" IMAGE_COLUMNS ") VALUES (" IMAGE_VALUES ")", image_table(source)),
					  SPI_OK_INSERT, N_IMAGE, types, values, nulls);
}

/* n values as an array. */
static Datum
array_of(Oid type, int n, Datum *values, bool *nulls)
{
	int			lower_bound = 1;
	int16		length;
	bool		by_value;
	char		alignment;

	get_typlenbyvalalign(type, &length, &by_value, &alignment);
	return PointerGetDatum(construct_md_array(values, nulls, 1, &n, &lower_bound, type, length, by_value, alignment));
}

void
rows_insert_images(const IngestSource *source, IngestRows *rows)
{
	static SPIPlanPtr plan = NULL;
	Oid			types[N_IMAGE] = {COMMON_TYPES, image_type_oid(), TEXTOID, TEXTOID};
	Datum		columns[N_IMAGE][ROWS_AT_ONCE];
	bool		column_nulls[N_IMAGE][ROWS_AT_ONCE];
	Datum		values[N_IMAGE];
	char		nulls[N_IMAGE];
	int			n = rows->n;
	int			i;
	int			j;

	rows->n = 0;
	rows->bytes = 0;
	if (n == 1)
	{
		const IngestMessage *message = rows->messages[0];

		row_insert_image(source, &rows->rows[0], &message->facts, message->content, message->content_length);
	}
	if (n <= 1)
		return;

	for (i = 0; i < n; i++)
	{
		const IngestMessage *message = rows->messages[i];

		image_values(source, &rows->rows[i], &message->facts, message->content, message->content_length, values, nulls);
		for (j = 0; j < N_IMAGE; j++)
		{
			columns[j][i] = values[j];
			column_nulls[j][i] = nulls[j] == 'n';
		}
	}
	for (j = 0; j < N_IMAGE; j++)
	{
		values[j] = array_of(types[j], n, columns[j], column_nulls[j]);
		types[j] = get_array_type(types[j]);
	}
	statement_execute(&plan,
					  psprintf("INSERT INTO %s (" IMAGE_COLUMNS ") SELECT * FROM unnest(" IMAGE_VALUES ")",
							   image_table(source)),
					  SPI_OK_INSERT, N_IMAGE, types, values, NULL);
}

void
rows_add_image(const IngestSource *source, IngestRows *rows, const IngestRow *row, const IngestMessage *message)
{
	bool		alone = message->content_length > TOGETHER_BYTES;

	if (alone || rows->bytes + message->content_length > STATEMENT_BYTES)
		rows_insert_images(source, rows);
	rows->rows[rows->n] = *row;
	rows->messages[rows->n++] = message;
	rows->bytes += message->content_length;
	if (alone || rows->n == ROWS_AT_ONCE)
		rows_insert_images(source, rows);
}

void
row_insert_dead_letter(const IngestSource *source, const IngestRow *row, const char *value, Size length,
					   int attempts, int sqlerrcode, const char *reason, const char *detail)
{
	static SPIPlanPtr plan = NULL;
	Oid			types[] = {COMMON_TYPES, BYTEAOID, INT4OID, TEXTOID, TEXTOID, TEXTOID};
	Datum		values[lengthof(types)];
	char		nulls[lengthof(types)];

	common_values(source, row, values, nulls);
	values[N_COMMON] = (Datum) 0;
	nulls[N_COMMON] = 'n';
	if (value)
	{
		bytea	   *bytes = palloc(VARHDRSZ + length);

		SET_VARSIZE(bytes, VARHDRSZ + length);
		memcpy(VARDATA(bytes), value, length);
		values[N_COMMON] = PointerGetDatum(bytes);
		nulls[N_COMMON] = ' ';
	}
	values[N_COMMON + 1] = Int32GetDatum(attempts);
	nulls[N_COMMON + 1] = ' ';
	set_text(unpack_sql_state(sqlerrcode), N_COMMON + 2, values, nulls);
	set_text(reason, N_COMMON + 3, values, nulls);
	set_text(detail, N_COMMON + 4, values, nulls);
	statement_execute(&plan,
					  "INSERT INTO imgpipe.dead_letters (" COMMON_COLUMNS ", stage, value, attempts, sqlstate, reason, detail)"
					  " VALUES (" COMMON_VALUES ", 'ingest', $8, $9, $10, $11, $12)",
					  SPI_OK_INSERT, lengthof(types), types, values, nulls);
}

void
rows_report(IngestWorker *worker, int n, Datum *image_ids)
{
	Oid			types[] = {INT4OID, UUIDARRAYOID};
	Datum		values[lengthof(types)];
	InternalScope scope;

	if (n == 0 || !worker->source->reports)
		return;
	values[0] = Int32GetDatum(worker->arguments->object);
	values[1] = PointerGetDatum(construct_array(image_ids, n, UUIDOID, UUID_LEN, false, TYPALIGN_CHAR));
	internal_begin(&scope);
	if (SPI_execute_with_args("SELECT imgpipe.report_ingested($1, $2)", lengthof(types), types, values,
							  NULL, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not report what was ingested");
	internal_end(&scope);
}
