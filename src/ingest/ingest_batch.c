/*
 * ingest_batch.c
 *		From a batch of messages to rows and new positions.
 *
 * Probing happens with no transaction open; then one transaction advances the
 * positions and inserts, as the source's owner, an image or a dead letter for
 * each message.
 *
 * Only what is a message's own fault makes it a dead letter: bytes that are no
 * image, and data errors of its row, which are found by halving the batch.
 * Anything else (a full disk, missing rights, a missing partition, a
 * serialization failure) is raised, and the batch is tried again later.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "decoder/client.h"
#include "image/image.h"
#include "ingest/ingest.h"
#include "ingest/ingest_message.h"
#include "miscadmin.h"
#include "retention/erase.h"
#include "store/image_id.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "workers/shared_state.h"

/* A message that the decoder did not survive so many times in a row is to blame. */
#define PROBE_ATTEMPTS	3

/* The columns that images and dead letters share, and their parameters. */
#define COMMON_COLUMNS \
	"image_id, source, source_partition, source_offset, source_key, source_timestamp, headers"
#define COMMON_VALUES "$1, $2, $3, $4, $5, $6, $7"
#define COMMON_TYPES UUIDOID, TEXTOID, INT4OID, INT8OID, TEXTOID, TIMESTAMPTZOID, JSONBOID
#define N_COMMON	7

static void
dead_letter(IngestMessage *message, int sqlerrcode, const char *reason, const char *detail)
{
	message->verdict = INGEST_DEAD_LETTER;
	message->sqlerrcode = sqlerrcode;
	message->reason = reason;
	message->detail = detail;
}

/*
 * Whether the decoder gives any answer to an image that cannot be at fault, a
 * GIF of one pixel.
 */
static bool
decoder_answers(DecoderFailure *failure)
{
	static const char pixel[] =
		"GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\xff\xff\xff"
		"\x2c\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02\x44\x01\x00\x3b";
	ImageFacts	facts;

	return decoder_probe(pixel, sizeof(pixel) - 1, &facts, failure) ||
		failure->kind == DECODER_REJECTED;
}

static bool
message_probe(const IngestSource *owner, IngestMessage *message, char error[KAFKA_ERROR_SIZE])
{
	const KafkaMessage *source = &message->message;
	DecoderFailure failure;

	if (source->value == NULL && owner->tombstones_ignored)
	{
		message->verdict = INGEST_IGNORED;
		return true;
	}
	if (source->value == NULL && owner->tombstones_delete && source->key != NULL)
	{
		message->verdict = INGEST_TOMBSTONE;
		return true;
	}
	if (source->value == NULL || source->value_length == 0)
	{
		message->attempts = 1;
		dead_letter(message, ERRCODE_INVALID_BINARY_REPRESENTATION,
					source->value == NULL ? "message has no value" : "message is empty",
					source->value == NULL ? "It is a tombstone: a key with a null value." : NULL);
		return true;
	}
	if (owner->content_field == NULL)
	{
		message->content = source->value;
		message->content_length = source->value_length;
	}
	else if (message->content == NULL)
	{
		ErrorData  *refusal;

		if (!message_open(source, owner->content_field, &message->envelope, &message->content,
						  &message->content_length, &refusal))
		{
			message->attempts = 1;
			message->content = NULL;
			dead_letter(message, refusal->sqlerrcode, refusal->message, refusal->detail);
			return true;
		}
	}
	for (;;)
	{
		message->attempts++;
		if (decoder_probe(message->content, message->content_length, &message->facts, &failure))
		{
			message->verdict = INGEST_IMAGE;
			return true;
		}
		if (failure.kind != DECODER_REJECTED)
		{
			DecoderFailure other;

			/* A decoder that somebody killed, or a moment of overload. */
			if (message->attempts < PROBE_ATTEMPTS)
				continue;
			if (!decoder_answers(&other))
			{
				message->attempts = 0;
				snprintf(error, KAFKA_ERROR_SIZE, "%s", other.message);
				return false;
			}
		}
		dead_letter(message, failure.sqlerrcode, failure.message, failure.detail);
		return true;
	}
}

/*
 * Whether a message that was ingested before a seek back is past its deadline,
 * as it then had one: what was purged does not come back.
 */
static bool
is_expired(IngestWorker *worker, const KafkaMessage *message)
{
	const IngestPartition *partition = partition_find(worker, message->partition);
	TimestampTz timestamp = message_timestamp(message);
	TimestampTz deadline;

	if (message->offset >= partition->ingested_to || timestamp == 0)
		return false;
	if (worker->source->retention)
		deadline = DatumGetTimestampTz(DirectFunctionCall2(timestamptz_pl_interval, TimestampTzGetDatum(timestamp),
														   IntervalPGetDatum(worker->source->retention)));
	else
		deadline = timestamp + imgpipe_retention * INT64CONST(60) * USECS_PER_SEC;
	return deadline <= GetCurrentTimestamp();
}

bool
batch_probe(IngestWorker *worker, char error[KAFKA_ERROR_SIZE])
{
	IngestBatch *batch = &worker->batch;
	MemoryContext caller = MemoryContextSwitchTo(batch->context);
	bool		decided = true;
	int			i;

	if (batch->began == 0)
		batch->began = GetCurrentTimestamp();
	for (i = batch->written; decided && i < batch->n; i++)
	{
		if (batch->messages[i].verdict != INGEST_UNDECIDED)
			continue;
		ingest_check_stop();
		if (is_expired(worker, &batch->messages[i].message))
			batch->messages[i].verdict = INGEST_EXPIRED;
		else
			decided = message_probe(worker->source, &batch->messages[i], error);
	}
	MemoryContextSwitchTo(caller);
	return decided;
}

static void
set_text(const char *text, int i, Datum *values, char *nulls)
{
	nulls[i] = text ? ' ' : 'n';
	values[i] = text ? CStringGetTextDatum(text) : (Datum) 0;
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

static void
common_values(const IngestSource *source, IngestMessage *ingested, Datum *values, char *nulls)
{
	const KafkaMessage *message = &ingested->message;
	TimestampTz timestamp = message_timestamp(message);
	bool		no_headers;

	memset(nulls, ' ', N_COMMON);
	values[0] = new_image_id(source);
	ingested->image_id = *DatumGetUUIDP(values[0]);
	values[1] = CStringGetTextDatum(source->name);
	values[2] = Int32GetDatum(message->partition);
	values[3] = Int64GetDatum(message->offset);
	set_text(message->key ? message_text(message->key, message->key_length) : NULL, 4, values, nulls);
	values[5] = TimestampTzGetDatum(timestamp);
	nulls[5] = timestamp == 0 ? 'n' : ' ';
	values[6] = message_headers(message, &no_headers);
	nulls[6] = no_headers ? 'n' : ' ';
}

static void
insert(SPIPlanPtr *plan, const char *statement, int n_types, Oid *types, Datum *values, const char *nulls)
{
	if (*plan == NULL)
	{
		*plan = SPI_prepare(statement, n_types, types);
		if (*plan == NULL || SPI_keepplan(*plan) != 0)
			elog(ERROR, "could not prepare: %s", statement);
	}
	if (SPI_execute_plan(*plan, values, nulls, false, 0) != SPI_OK_INSERT)
		elog(ERROR, "could not execute: %s", statement);
}

/* The header, else the field of the envelope, else the source's owner. */
static const char *
uploader_of(const IngestSource *source, const IngestMessage *message)
{
	char	   *uploaded_by = message_header_text(&message->message, "uploaded_by");

	if (uploaded_by == NULL && message->envelope)
		uploaded_by = envelope_text(message->envelope, "uploaded_by");
	return uploaded_by ? uploaded_by : source->owner_name;
}

static void
insert_image(const IngestSource *source, IngestMessage *message)
{
	static SPIPlanPtr plan = NULL;
	const KafkaMessage *kafka = &message->message;
	Oid			types[] = {COMMON_TYPES, image_type_oid(), TEXTOID, TEXTOID};
	Datum		values[lengthof(types)];
	char		nulls[lengthof(types)];
	char	   *batch_id = message_header_text(kafka, "batch_id");

	common_values(source, message, values, nulls);
	if (message->envelope)
	{
		bool		no_headers = nulls[6] == 'n';

		values[6] = envelope_headers(message->envelope, source->content_field, values[6], &no_headers);
		nulls[6] = no_headers ? 'n' : ' ';
		batch_id = batch_id ? batch_id : envelope_text(message->envelope, "batch_id");
	}
	values[N_COMMON] = PointerGetDatum(image_make(&message->facts, message->content, message->content_length));
	nulls[N_COMMON] = ' ';
	set_text(batch_id, N_COMMON + 1, values, nulls);
	set_text(uploader_of(source, message), N_COMMON + 2, values, nulls);
	insert(&plan,
		   "INSERT INTO imgpipe.images (" COMMON_COLUMNS ", content, batch_id, uploaded_by)"
		   " VALUES (" COMMON_VALUES ", $8, $9, $10)",
		   lengthof(types), types, values, nulls);
}

static void
insert_dead_letter(const IngestSource *source, IngestMessage *message)
{
	static SPIPlanPtr plan = NULL;
	const KafkaMessage *kafka = &message->message;
	Oid			types[] = {COMMON_TYPES, BYTEAOID, INT4OID, TEXTOID, TEXTOID, TEXTOID};
	Datum		values[lengthof(types)];
	char		nulls[lengthof(types)];

	common_values(source, message, values, nulls);
	values[N_COMMON] = (Datum) 0;
	nulls[N_COMMON] = 'n';
	if (kafka->value)
	{
		bytea	   *value = palloc(VARHDRSZ + kafka->value_length);

		SET_VARSIZE(value, VARHDRSZ + kafka->value_length);
		memcpy(VARDATA(value), kafka->value, kafka->value_length);
		values[N_COMMON] = PointerGetDatum(value);
		nulls[N_COMMON] = ' ';
	}
	values[N_COMMON + 1] = Int32GetDatum(message->attempts);
	nulls[N_COMMON + 1] = ' ';
	set_text(unpack_sql_state(message->sqlerrcode), N_COMMON + 2, values, nulls);
	set_text(message->reason, N_COMMON + 3, values, nulls);
	set_text(message->detail, N_COMMON + 4, values, nulls);
	insert(&plan,
		   "INSERT INTO imgpipe.dead_letters (" COMMON_COLUMNS ", stage, value, attempts, sqlstate, reason, detail)"
		   " VALUES (" COMMON_VALUES ", 'ingest', $8, $9, $10, $11, $12)",
		   lengthof(types), types, values, nulls);
}

/* As the extension's owner: the source's may only have to insert. */
static void
delete_images(const IngestSource *source, const KafkaMessage *message)
{
	Oid			types[] = {TEXTOID, TEXTOID};
	Datum		values[] = {
		CStringGetTextDatum(source->name),
		CStringGetTextDatum(message_text(message->key, message->key_length))
	};
	InternalScope scope;

	internal_begin(&scope);
	if (SPI_execute_with_args("SELECT imgpipe.delete_images_of_key($1, $2)", lengthof(types), types, values,
							  NULL, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not delete the images of a key");
	internal_end(&scope);
}

/*
 * Where messages first .. last - 1 take their partitions; with the end of the
 * batch also over what was read and is no message (control records, compacted
 * ones).
 */
static int
moves_of(IngestWorker *worker, int first, int last, PositionMove *moves)
{
	IngestBatch *batch = &worker->batch;
	int			n = 0;
	int			i;

	memset(moves, 0, sizeof(PositionMove) * worker->n_partitions);
	for (i = 0; i < worker->n_partitions; i++)
	{
		moves[i].partition = &worker->partitions[i];
		moves[i].next_offset = last == batch->n ? worker->partitions[i].fetched_offset : 0;
		moves[i].last_offset = -1;
	}
	for (i = first; i < last; i++)
	{
		const KafkaMessage *message = &batch->messages[i].message;
		PositionMove *move = &moves[partition_find(worker, message->partition) - worker->partitions];

		move->next_offset = Max(move->next_offset, message->offset + 1);
		move->last_offset = message->offset;
		move->last_timestamp = message_timestamp(message);
		move->messages++;
		move->bytes += message->value_length;
		move->dead_letters += batch->messages[i].verdict == INGEST_DEAD_LETTER;
	}
	for (i = 0; i < worker->n_partitions; i++)
		if (moves[i].next_offset > moves[i].partition->next_offset)
			moves[n++] = moves[i];
	return n;
}

static void
range_committed(IngestWorker *worker, int first, int last, int n_moves, const PositionMove *moves)
{
	IngestBatch *batch = &worker->batch;
	uint64		bytes = 0;
	uint64		dead_letters = 0;
	int			i;

	batch->written = last;
	for (i = 0; i < n_moves; i++)
	{
		moves[i].partition->next_offset = moves[i].next_offset;
		if (moves[i].last_offset < 0)
			continue;
		moves[i].partition->last_offset = moves[i].last_offset;
		moves[i].partition->last_timestamp = moves[i].last_timestamp;
	}
	for (i = first; i < last; i++)
	{
		bytes += batch->messages[i].message.value_length;
		dead_letters += batch->messages[i].verdict == INGEST_DEAD_LETTER;
	}
	slot_count(last - first, bytes, dead_letters);
}

/*
 * A row that its table refuses for what is in it.  A missing partition has the
 * code of a check constraint, and none to name: that is not the row's fault.
 */
static bool
is_data_error(const ErrorData *error)
{
	switch (ERRCODE_TO_CATEGORY(error->sqlerrcode))
	{
		case ERRCODE_DATA_EXCEPTION:
		case ERRCODE_PROGRAM_LIMIT_EXCEEDED:
			return true;
		case ERRCODE_INTEGRITY_CONSTRAINT_VIOLATION:
			return error->sqlerrcode != ERRCODE_CHECK_VIOLATION || error->constraint_name != NULL;
		default:
			return false;
	}
}

/* What ingest_batches says of messages first .. last - 1. */
static void
record_batch(IngestWorker *worker, int first, int last, int n_moves, const PositionMove *moves)
{
	static SPIPlanPtr plan = NULL;
	Oid			types[] = {TEXTOID, INT4OID, TIMESTAMPTZOID, INT4OID, INT4OID, INT8OID, TEXTOID};
	Datum		values[lengthof(types)];
	char		nulls[lengthof(types)] = {' ', ' ', ' ', ' ', ' ', ' ', ' '};
	int64		bytes = 0;
	int64		dead_letters = 0;
	StringInfoData offsets;
	InternalScope scope;
	int			i;

	if (imgpipe_ingest_history == 0 || last == first)
		return;
	initStringInfo(&offsets);
	for (i = 0; i < n_moves; i++)
	{
		appendStringInfo(&offsets, "%s\"%d\": [" INT64_FORMAT ", " INT64_FORMAT "]", i == 0 ? "{" : ", ",
						 moves[i].partition->partition, moves[i].partition->next_offset, moves[i].next_offset - 1);
		bytes += moves[i].bytes;
		dead_letters += moves[i].dead_letters;
	}
	appendStringInfoChar(&offsets, '}');
	values[0] = CStringGetTextDatum(worker->source->name);
	values[1] = Int32GetDatum(worker->arguments->slice);
	values[2] = TimestampTzGetDatum(worker->batch.began);
	values[3] = Int32GetDatum(last - first);
	values[4] = Int32GetDatum(dead_letters);
	values[5] = Int64GetDatum(bytes);
	values[6] = CStringGetTextDatum(offsets.data);
	internal_begin(&scope);
	insert(&plan,
		   "INSERT INTO imgpipe.ingest_batches (source, worker, began_at, messages, dead_letters, bytes, offsets)"
		   " VALUES ($1, $2, $3, $4, $5, $6, $7::pg_catalog.jsonb)",
		   lengthof(types), types, values, nulls);
	internal_end(&scope);
}

/* Gives rows of images and dead letters their places in the outbox. */
static void
report_rows(IngestWorker *worker, int n, Datum *image_ids)
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

/* What was erased on request does not come back by being read again. */
static bool
is_erased(const IngestSource *source, const IngestMessage *message)
{
	const KafkaMessage *kafka = &message->message;

	return erasure_refuses(source->name, kafka->partition, kafka->offset, message_timestamp(kafka),
						   kafka->key ? message_text(kafka->key, kafka->key_length) : NULL,
						   uploader_of(source, message));
}

/* One transaction; false with the error where a message's data is at fault. */
static bool
range_write(IngestWorker *worker, int first, int last, ErrorData **error)
{
	IngestBatch *batch = &worker->batch;
	MemoryContext caller = MemoryContextSwitchTo(batch->context);
	PositionMove *moves = palloc(sizeof(PositionMove) * Max(worker->n_partitions, 1));
	int			n_moves = moves_of(worker, first, last, moves);
	Datum	   *image_ids = palloc(sizeof(Datum) * (last - first));
	int			n_rows = 0;
	volatile bool written = false;
	bool		erasures;
	int			i;

	if (n_moves == 0)
	{
		batch->written = last;
		MemoryContextSwitchTo(caller);
		return true;
	}
	PG_TRY();
	{
		worker_transaction_begin("ingesting a batch");
		positions_advance(worker, n_moves, moves);
		erasures = erasures_exist();
		for (i = first; i < last; i++)
		{
			MemoryContext transaction = MemoryContextSwitchTo(worker->row);
			IngestMessage *message = &batch->messages[i];

			CHECK_FOR_INTERRUPTS();
			if (erasures && is_erased(worker->source, message))
				;
			else if (message->verdict == INGEST_IMAGE || message->verdict == INGEST_DEAD_LETTER)
			{
				if (message->verdict == INGEST_IMAGE)
					insert_image(worker->source, message);
				else
					insert_dead_letter(worker->source, message);
				image_ids[n_rows++] = UUIDPGetDatum(&message->image_id);
			}
			else if (message->verdict == INGEST_TOMBSTONE)
				delete_images(worker->source, &message->message);
			MemoryContextSwitchTo(transaction);
			MemoryContextReset(worker->row);
		}
		report_rows(worker, n_rows, image_ids);
		record_batch(worker, first, last, n_moves, moves);
		worker_transaction_commit();
		written = true;
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(batch->context);
		*error = CopyErrorData();
		FlushErrorState();
		worker_transaction_abort();
		MemoryContextReset(worker->row);
		MemoryContextSwitchTo(caller);
		if (!is_data_error(*error))
			ReThrowError(*error);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(caller);
	if (written)
		range_committed(worker, first, last, n_moves, moves);
	return written;
}

static void
range_bisect(IngestWorker *worker, int first, int last)
{
	IngestMessage *message = &worker->batch.messages[first];
	ErrorData  *error;
	int			middle = first + (last - first) / 2;

	CHECK_FOR_INTERRUPTS();
	if (range_write(worker, first, last, &error))
		return;
	if (last - first > 1)
	{
		FreeErrorData(error);
		range_bisect(worker, first, middle);
		range_bisect(worker, middle, last);
		return;
	}
	/* A dead letter that cannot be written is no message's fault. */
	if (message->verdict == INGEST_DEAD_LETTER)
		ReThrowError(error);
	dead_letter(message, error->sqlerrcode, error->message, error->detail);
	if (!range_write(worker, first, last, &error))
		ReThrowError(error);
}

void
batch_write(IngestWorker *worker)
{
	range_bisect(worker, worker->batch.written, worker->batch.n);
}
