/*
 * ingest_batch.c
 *		From a batch of probed messages to rows and new positions.
 *
 * One transaction advances the positions and inserts, as the source's owner,
 * an image or a dead letter for each message.
 *
 * Only what is a message's own fault makes it a dead letter: bytes that are no
 * image, and data errors of its row, which are found by halving the batch.
 * Anything else (a full disk, missing rights, a missing partition, a
 * serialization failure) is raised, and the batch is tried again later.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "ingest/ingest.h"
#include "ingest/ingest_message.h"
#include "miscadmin.h"
#include "retention/erase.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "workers/shared_state.h"

/* As the extension's owner: the source's may only have to insert. */
static void
delete_images(const IngestSource *source, const KafkaMessage *message)
{
	Oid			types[] = {TEXTOID, TEXTOID, INT4OID, INT8OID};
	Datum		values[] = {
		CStringGetTextDatum(source->image_source),
		CStringGetTextDatum(message_text(message->key, message->key_length)),
		Int32GetDatum(message->partition),
		Int64GetDatum(message->offset)
	};
	InternalScope scope;
	/* What came later than a replayed tombstone stays. */
	const char *nulls = source->replay || source->tombstones_expire ? NULL : "  nn";

	internal_begin(&scope);
	if (SPI_execute_with_args(source->tombstones_expire ?
							  "SELECT imgpipe.expire_images_of_key($1, $2, $3, $4)" :
							  "SELECT imgpipe.delete_images_of_key($1, $2, $3, $4)",
							  lengthof(types), types, values, nulls, false, 0) != SPI_OK_SELECT)
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

bool
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
	statement_execute(&plan,
					  "INSERT INTO imgpipe.ingest_batches (source, worker, began_at, messages, dead_letters, bytes, offsets)"
					  " VALUES ($1, $2, $3, $4, $5, $6, $7::pg_catalog.jsonb)",
					  SPI_OK_INSERT, lengthof(types), types, values, nulls);
	internal_end(&scope);
}

/*
 * What one message becomes, in the transaction that takes its position: true
 * where it is a row with an image_id.  Images are inserted together, but before
 * what has to do with those that came before it.
 */
static bool
message_write(IngestWorker *worker, IngestMessage *message, bool erasures, IngestRows *images)
{
	const IngestSource *source = worker->source;
	IngestRow	row;
	bool		erased;

	if (message->verdict == INGEST_TOMBSTONE || message->verdict == INGEST_CHUNK)
		rows_insert_images(source, images);
	/* Where the images of a replay go elsewhere, there is nothing of a key to delete here. */
	if (message->verdict == INGEST_TOMBSTONE && source->target == NULL)
		delete_images(source, &message->message);
	if (message->verdict != INGEST_IMAGE && message->verdict != INGEST_CHUNK && message->verdict != INGEST_DEAD_LETTER)
		return false;
	row_of_message(source, message, &row);
	/* What was erased on request does not come back by being read again. */
	erased = erasures && erasure_refuses(source->image_source, row.partition, row.offset, row.timestamp,
										 row.key, row.uploaded_by);
	if (message->verdict == INGEST_CHUNK)
		chunk_store(worker, message, &row, erased);
	if (message->verdict == INGEST_CHUNK || erased)
		return false;
	message->image_id = row.image_id;
	if (message->verdict == INGEST_IMAGE)
		rows_add_image(source, images, &row, message);
	else
		row_insert_dead_letter(source, &row, message->message.value, message->message.value_length,
							   message->attempts, message->sqlerrcode, message->reason, message->detail);
	return true;
}

/*
 * Whether others than Kafka learn of a batch: of its results, or of what its
 * tombstones purge, which the head of the ledger tells.  A batch that nobody
 * has heard of can be lost in a crash: its positions are lost with it, and it
 * is read again.
 */
static bool
is_heard_of(const IngestSource *source)
{
	return source->reports || source->tombstones_expire;
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
	IngestRows *images = palloc0(sizeof(IngestRows));
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
		if (!is_heard_of(worker->source))
			worker_transaction_need_not_last();
		positions_advance(worker, n_moves, moves);
		erasures = erasures_exist();
		for (i = first; i < last; i++)
		{
			MemoryContext transaction = MemoryContextSwitchTo(worker->row);
			IngestMessage *message = &batch->messages[i];

			CHECK_FOR_INTERRUPTS();
			if (message_write(worker, message, erasures, images))
				image_ids[n_rows++] = UUIDPGetDatum(&message->image_id);
			if (i == last - 1)
				rows_insert_images(worker->source, images);
			MemoryContextSwitchTo(transaction);
			if (images->n == 0)
				MemoryContextReset(worker->row);
		}
		rows_report(worker, n_rows, image_ids);
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
	message_refuse(message, error->sqlerrcode, error->message, error->detail);
	if (!range_write(worker, first, last, &error))
		ReThrowError(error);
}

void
batch_write(IngestWorker *worker)
{
	range_bisect(worker, worker->batch.written, worker->batch.n);
	worker->chunks_due = worker->source->chunked;
}
