/*
 * ingest_chunks.c
 *		Images that come in several messages; see chunks.sql.
 *
 * A batch keeps chunks in the transaction that takes their positions.  What is
 * complete then is read in one transaction, probed with none open, and becomes
 * an image in another, which also writes down that it has: whatever is killed
 * in between, the next session finds it due again.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "common/cryptohash.h"
#include "common/sha2.h"
#include "ingest/ingest.h"
#include "ingest/ingest_message.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "workers/shared_state.h"

#define LONGEST_ID	200
#define HASH_DIGITS (PG_SHA256_DIGEST_LENGTH * 2)

/* A row of imgpipe.chunked_images that something is to be done about. */
typedef struct ChunkedImage
{
	IngestRow	row;
	const char *chunk_id;
	int32		count;
	int32		chunks;
	int64		bytes;
	int64		image_bytes;	/* -1: not said */
	const char *image_sha256;	/* in hexadecimal; NULL: not said */
	const char *fault;			/* NULL: none; likewise below */
	const char *missing;
} ChunkedImage;

/* Digits only, and few enough that they are a number of 15 of them. */
static bool
header_number(const char *text, int64 least, int64 *number)
{
	Size		length = strlen(text);

	if (length == 0 || length > 15 || strspn(text, "0123456789") != length)
		return false;
	*number = strtoll(text, NULL, 10);
	return *number >= least;
}

bool
chunk_read(IngestMessage *message)
{
	const KafkaMessage *kafka = &message->message;
	ImageChunk *chunk = &message->chunk;
	char	   *index = message_header_text(kafka, "imgpipe-chunk-index");
	char	   *count = message_header_text(kafka, "imgpipe-chunk-count");
	char	   *size = message_header_text(kafka, "imgpipe-chunk-size");
	int64		index_number;
	int64		count_number;
	char	   *wrong;

	chunk->id = message_header_text(kafka, "imgpipe-chunk-id");
	if (chunk->id == NULL)
		return false;
	chunk->image_bytes = -1;
	chunk->image_sha256 = message_header_text(kafka, "imgpipe-chunk-sha256");
	if (chunk->id[0] == '\0' || strlen(chunk->id) > LONGEST_ID)
		wrong = psprintf("imgpipe-chunk-id has %zu bytes; it may have 1 to %d.", strlen(chunk->id), LONGEST_ID);
	else if (count == NULL || !header_number(count, 1, &count_number) || count_number > PG_INT32_MAX)
		wrong = psprintf("imgpipe-chunk-count is %s; it is a number from 1 on.", count ? quote_literal_cstr(count) : "missing");
	else if (index == NULL || !header_number(index, 0, &index_number) || index_number >= count_number)
		wrong = psprintf("imgpipe-chunk-index is %s; it is a number from 0 to " INT64_FORMAT ".",
						 index ? quote_literal_cstr(index) : "missing", count_number - 1);
	else if (size != NULL && !header_number(size, 1, &chunk->image_bytes))
		wrong = psprintf("imgpipe-chunk-size is %s; it is the size of the whole image in bytes.", quote_literal_cstr(size));
	else if (chunk->image_sha256 != NULL &&
			 (strlen(chunk->image_sha256) != HASH_DIGITS ||
			  strspn(chunk->image_sha256, "0123456789abcdefABCDEF") != HASH_DIGITS))
		wrong = psprintf("imgpipe-chunk-sha256 is %s; it is 64 hexadecimal digits.", quote_literal_cstr(chunk->image_sha256));
	else
	{
		chunk->index = index_number;
		chunk->count = count_number;
		message->verdict = INGEST_CHUNK;
		return true;
	}
	message_refuse(message, ERRCODE_INVALID_PARAMETER_VALUE, "headers of a chunk are not valid", wrong);
	return true;
}

void
chunk_store(IngestWorker *worker, const IngestMessage *message, const IngestRow *row, bool erased)
{
	static SPIPlanPtr plan = NULL;
	const IngestSource *source = worker->source;
	const ImageChunk *chunk = &message->chunk;
	Size		length = message->message.value_length;
	bytea	   *content = palloc(VARHDRSZ + length);
	Oid			types[] = {
		INT4OID, INTERVALOID, INTERVALOID, INT4OID, INT8OID, TEXTOID, INT4OID, INT4OID, INT8OID,
		TEXTOID, TEXTOID, TIMESTAMPTZOID, JSONBOID, TEXTOID, TEXTOID, BYTEAOID, BOOLOID
	};
	const char *texts[] = {chunk->image_sha256, row->key, row->batch_id};
	const int	text_places[] = {9, 10, 13};
	Datum		values[lengthof(types)];
	char		nulls[lengthof(types)];
	InternalScope scope;
	int			i;

	SET_VARSIZE(content, VARHDRSZ + length);
	memcpy(VARDATA(content), message->message.value, length);
	memset(nulls, ' ', sizeof(nulls));
	values[0] = Int32GetDatum(worker->arguments->object);
	values[1] = IntervalPGetDatum(source->retention);
	nulls[1] = source->retention ? ' ' : 'n';
	values[2] = IntervalPGetDatum(source->chunk_timeout);
	values[3] = Int32GetDatum(row->partition);
	values[4] = Int64GetDatum(row->offset);
	values[5] = CStringGetTextDatum(chunk->id);
	values[6] = Int32GetDatum(chunk->index);
	values[7] = Int32GetDatum(chunk->count);
	values[8] = Int64GetDatum(chunk->image_bytes);
	nulls[8] = chunk->image_bytes < 0 ? 'n' : ' ';
	for (i = 0; i < lengthof(texts); i++)
	{
		values[text_places[i]] = texts[i] ? CStringGetTextDatum(texts[i]) : (Datum) 0;
		nulls[text_places[i]] = texts[i] ? ' ' : 'n';
	}
	values[11] = TimestampTzGetDatum(row->timestamp);
	nulls[11] = row->timestamp == 0 ? 'n' : ' ';
	values[12] = JsonbPGetDatum(row->headers);
	values[14] = CStringGetTextDatum(row->uploaded_by);
	values[15] = PointerGetDatum(content);
	values[16] = BoolGetDatum(erased);
	internal_begin(&scope);
	statement_execute(&plan,
					  "SELECT imgpipe.store_chunk($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)",
					  SPI_OK_SELECT, lengthof(types), types, values, nulls);
	internal_end(&scope);
}

static char *
text_of(int column)
{
	return SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, column);
}

static Datum
value_of(int column, bool *isnull)
{
	return SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, column, isnull);
}

static char *
copy_of(const char *text)
{
	return text ? pstrdup(text) : NULL;
}

/* The row of the statement in next_due(), copied to the current memory context. */
static ChunkedImage *
image_read(void)
{
	ChunkedImage *image = palloc0(sizeof(ChunkedImage));
	bool		isnull;
	Datum		headers;

	image->row.image_id = *DatumGetUUIDP(value_of(1, &isnull));
	image->row.partition = DatumGetInt32(value_of(2, &isnull));
	image->row.offset = DatumGetInt64(value_of(3, &isnull));
	image->row.key = copy_of(text_of(4));
	image->row.timestamp = DatumGetTimestampTz(value_of(5, &isnull));
	if (isnull)
		image->row.timestamp = 0;
	headers = value_of(6, &isnull);
	image->row.headers = isnull ? NULL : DatumGetJsonbPCopy(headers);
	image->row.batch_id = copy_of(text_of(7));
	image->row.uploaded_by = copy_of(text_of(8));
	image->chunk_id = copy_of(text_of(9));
	image->count = DatumGetInt32(value_of(10, &isnull));
	image->chunks = DatumGetInt32(value_of(11, &isnull));
	image->bytes = DatumGetInt64(value_of(12, &isnull));
	image->image_bytes = DatumGetInt64(value_of(13, &isnull));
	if (isnull)
		image->image_bytes = -1;
	image->image_sha256 = copy_of(text_of(14));
	image->fault = copy_of(text_of(15));
	image->missing = copy_of(text_of(16));
	return image;
}

/* Until when it is known that no chunk has been left unread. */
static TimestampTz
read_until(const IngestWorker *worker, const IngestPartition *partition)
{
	/* A replay has no more to come, neither now nor later. */
	if (partition->next_offset >= partition->end_offset)
		return DT_NOEND;
	if (partition->at_end && worker->outage[0] == '\0' && partition->error[0] == '\0' && !partition->blocked)
		return GetCurrentTimestamp();
	return partition->at_end_at ? partition->at_end_at : DT_NOBEGIN;
}

/* Something to settle, in the current memory context, or NULL. */
static ChunkedImage *
next_due(IngestWorker *worker)
{
	static SPIPlanPtr plan = NULL;
	MemoryContext context = CurrentMemoryContext;
	Oid			types[] = {INT4OID, INT4ARRAYOID, TIMESTAMPTZARRAYOID};
	int			n = worker->n_partitions;
	Datum	   *partitions = palloc(sizeof(Datum) * Max(n, 1));
	Datum	   *until = palloc(sizeof(Datum) * Max(n, 1));
	ChunkedImage *image = NULL;
	Datum		values[lengthof(types)];
	InternalScope scope;
	int			i;

	for (i = 0; i < n; i++)
	{
		partitions[i] = Int32GetDatum(worker->partitions[i].partition);
		until[i] = TimestampTzGetDatum(read_until(worker, &worker->partitions[i]));
	}
	values[0] = Int32GetDatum(worker->arguments->object);
	values[1] = PointerGetDatum(construct_array(partitions, n, INT4OID, 4, true, TYPALIGN_INT));
	values[2] = PointerGetDatum(construct_array(until, n, TIMESTAMPTZOID, 8, FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
	worker_transaction_begin("looking for complete images");
	internal_begin(&scope);
	statement_execute(&plan,
					  "SELECT c.image_id, c.source_partition, c.first_offset, c.source_key, c.source_timestamp, c.headers, c.batch_id, c.uploaded_by,"
					  " c.chunk_id, c.chunk_count, c.chunks, c.bytes, c.image_bytes, pg_catalog.encode(c.image_sha256, 'hex'), c.fault,"
					  " CASE WHEN c.fault IS NULL THEN imgpipe.missing_chunks(c.image_id) END"
					  " FROM imgpipe.chunked_images c JOIN unnest($2, $3) p (partition, until) ON c.source_partition = p.partition"
					  " WHERE c.source_id = $1 AND c.due_at <= p.until AND c.image_id >= imgpipe.fence()"
					  " ORDER BY c.due_at, c.last_offset LIMIT 1",
					  SPI_OK_SELECT, lengthof(types), types, values, NULL);
	if (SPI_processed == 1)
	{
		MemoryContext caller = MemoryContextSwitchTo(context);

		image = image_read();
		MemoryContextSwitchTo(caller);
	}
	internal_end(&scope);
	worker_transaction_commit();
	MemoryContextSwitchTo(context);
	return image;
}

/* Refuses it where size or hash are not what the chunks said. */
static void
content_check(const ChunkedImage *image, IngestMessage *message)
{
	uint8		hash[PG_SHA256_DIGEST_LENGTH];
	char		digits[HASH_DIGITS];
	pg_cryptohash_ctx *sha256;

	if (image->image_bytes >= 0 && image->image_bytes != image->bytes)
	{
		message_refuse(message, ERRCODE_DATA_EXCEPTION, "image is not what its chunks say",
					   psprintf("It has " INT64_FORMAT " bytes; they say " INT64_FORMAT ".", image->bytes, image->image_bytes));
		return;
	}
	if (image->image_sha256 == NULL)
		return;
	sha256 = pg_cryptohash_create(PG_SHA256);
	if (sha256 == NULL || pg_cryptohash_init(sha256) < 0 ||
		pg_cryptohash_update(sha256, (const uint8 *) message->content, message->content_length) < 0 ||
		pg_cryptohash_final(sha256, hash, sizeof(hash)) < 0)
		elog(ERROR, "could not compute a SHA-256");
	pg_cryptohash_free(sha256);
	hex_encode((const char *) hash, sizeof(hash), digits);
	if (memcmp(digits, image->image_sha256, HASH_DIGITS) != 0)
		message_refuse(message, ERRCODE_DATA_EXCEPTION, "image is not what its chunks say",
					   psprintf("Its SHA-256 is %.*s; they say %s.", HASH_DIGITS, digits, image->image_sha256));
}

/*
 * The chunks one behind the other, one at a time in memory twice.  False where
 * they are not there any more: erased, or past their deadline.
 */
static bool
content_read(const ChunkedImage *image, IngestMessage *message)
{
	static SPIPlanPtr plan = NULL;
	char	   *content = MemoryContextAllocHuge(CurrentMemoryContext, image->bytes);
	MemoryContext context = CurrentMemoryContext;
	Oid			types[] = {UUIDOID, INT4OID};
	int64		at = 0;
	InternalScope scope;
	int32		i;

	worker_transaction_begin("reading an image in chunks");
	internal_begin(&scope);
	for (i = 0; i < image->count; i++)
	{
		Datum		values[] = {UUIDPGetDatum(&image->row.image_id), Int32GetDatum(i)};
		bool		isnull;
		bytea	   *chunk;

		CHECK_FOR_INTERRUPTS();
		statement_execute(&plan,
						  "SELECT c.content FROM imgpipe.chunks c WHERE c.image_id = $1 AND c.chunk_index = $2",
						  SPI_OK_SELECT, lengthof(types), types, values, NULL);
		if (SPI_processed != 1)
			break;
		chunk = DatumGetByteaP(value_of(1, &isnull));
		if (at + VARSIZE(chunk) - VARHDRSZ > image->bytes)
			elog(ERROR, "chunks have more bytes than they had");
		memcpy(content + at, VARDATA(chunk), VARSIZE(chunk) - VARHDRSZ);
		at += VARSIZE(chunk) - VARHDRSZ;
		pfree(chunk);
		SPI_freetuptable(SPI_tuptable);
	}
	internal_end(&scope);
	MemoryContextSwitchTo(context);
	message->content = content;
	message->content_length = at;
	/* Here, because a hash belongs to a transaction. */
	if (i == image->count)
		content_check(image, message);
	worker_transaction_commit();
	MemoryContextSwitchTo(context);
	return i == image->count;
}

/* One transaction; false with the error where the image's data is at fault. */
static bool
outcome_write(IngestWorker *worker, const ChunkedImage *image, const IngestMessage *message, ErrorData **error)
{
	static SPIPlanPtr plan = NULL;
	MemoryContext caller = CurrentMemoryContext;
	bool		is_image = message->verdict == INGEST_IMAGE;
	Oid			types[] = {UUIDOID, TEXTOID};
	volatile bool written = false;

	PG_TRY();
	{
		Datum		values[2];
		InternalScope scope;
		bool		isnull;
		bool		ours;

		worker_transaction_begin("settling an image in chunks");
		values[0] = UUIDPGetDatum(&image->row.image_id);
		values[1] = CStringGetTextDatum(is_image ? "image" : "dead_letter");
		internal_begin(&scope);
		statement_execute(&plan, "SELECT imgpipe.settle_chunked_image($1, $2)", SPI_OK_SELECT,
						  lengthof(types), types, values, NULL);
		ours = DatumGetBool(value_of(1, &isnull));
		internal_end(&scope);
		if (ours && is_image)
			row_insert_image(worker->source, &image->row, &message->facts, message->content, message->content_length);
		else if (ours)
			row_insert_dead_letter(worker->source, &image->row, message->content, message->content_length,
								   message->attempts, message->sqlerrcode, message->reason, message->detail);
		if (ours)
			rows_report(worker, 1, values);
		worker_transaction_commit();
		if (ours && !is_image)
			slot_count(0, 0, 1);
		written = true;
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(caller);
		*error = CopyErrorData();
		FlushErrorState();
		worker_transaction_abort();
		MemoryContextSwitchTo(caller);
		if (!is_image || !is_data_error(*error))
			ReThrowError(*error);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(caller);
	return written;
}

/* False with the reason where the decoder does not work at all. */
static bool
image_settle(IngestWorker *worker, const ChunkedImage *image, char problem[KAFKA_ERROR_SIZE])
{
	IngestMessage message = {0};
	ErrorData  *error;

	if (image->fault)
		message_refuse(&message, ERRCODE_PROGRAM_LIMIT_EXCEEDED, "image is too large", image->fault);
	else if (image->chunks < image->count)
		message_refuse(&message, ERRCODE_DATA_EXCEPTION, "image is not complete",
					   psprintf("Of %d chunks of \"%s\" %d are missing: %s.", image->count, image->chunk_id,
								image->count - image->chunks, image->missing));
	else if (!content_read(image, &message))
		return true;
	else if (message.verdict == INGEST_UNDECIDED && !content_probe(&message, problem))
		return false;
	if (outcome_write(worker, image, &message, &error))
		return true;
	message_refuse(&message, error->sqlerrcode, error->message, error->detail);
	(void) outcome_write(worker, image, &message, &error);
	return true;
}

bool
chunks_settle(IngestWorker *worker, char error[KAFKA_ERROR_SIZE])
{
	MemoryContext caller = MemoryContextSwitchTo(worker->assembly);
	ChunkedImage *image;
	bool		settled = true;

	MemoryContextReset(worker->assembly);
	while (settled && (image = next_due(worker)) != NULL)
	{
		ingest_check_stop();
		settled = image_settle(worker, image, error);
		MemoryContextReset(worker->assembly);
	}
	MemoryContextSwitchTo(caller);
	worker->chunks_due = !settled;
	return settled;
}
