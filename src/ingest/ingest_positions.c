/*
 * ingest_positions.c
 *		Where a source's partitions go on: imgpipe.sources and
 *		imgpipe.ingest_positions.
 *
 * Both belong to the extension; all statements here run as its owner.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "ingest/ingest.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/* Between looks at the length of the outbox, in ms. */
#define OUTBOX_INTERVAL		1000

static char *
text_at(int column)
{
	return SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, column);
}

static Datum
value_at(int row, int column, bool *isnull)
{
	return SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, column, isnull);
}

static int32
integer_at(int column)
{
	bool		isnull;

	return DatumGetInt32(value_at(0, column, &isnull));
}

/* For results that must outlive SPI: a copy in the context. */
static char *
text_copy(MemoryContext context, int column)
{
	char	   *text = text_at(column);

	return text ? MemoryContextStrdup(context, text) : NULL;
}

static Interval *
interval_copy(MemoryContext context, int column)
{
	bool		isnull;
	Datum		value = value_at(0, column, &isnull);
	Interval   *copy;

	if (isnull)
		return NULL;
	copy = MemoryContextAlloc(context, sizeof(Interval));
	*copy = *DatumGetIntervalP(value);
	return copy;
}

IngestSource *
source_read(int32 source_id)
{
	MemoryContext context = CurrentMemoryContext;
	IngestSource *source = NULL;
	InternalScope scope;
	Oid			type = INT4OID;
	Datum		value = Int32GetDatum(source_id);
	bool		isnull;

	worker_transaction_begin("reading the source");
	if (!worker_extension_exists())
	{
		worker_transaction_commit();
		MemoryContextSwitchTo(context);
		return NULL;
	}
	internal_begin(&scope);

	/* Row versions stand for whatever of the others may change; the cluster is what we write ourselves. */
	if (SPI_execute_with_args("SELECT s.name, s.server, s.topic, s.owner::pg_catalog.oid, pg_catalog.pg_get_userbyid(s.owner::pg_catalog.oid),"
							  " s.retention, s.start_from = 'latest', s.batch_rows, s.batch_bytes, s.linger_ms,"
							  " COALESCE(pg_catalog.has_server_privilege(s.owner::pg_catalog.oid, f.oid, 'USAGE'), true),"
							  " COALESCE(s.started_in, ''),"
							  " pg_catalog.concat_ws('/', pg_catalog.md5((pg_catalog.to_jsonb(s) - 'cluster_id')::pg_catalog.text), f.xmin, (SELECT pg_catalog.string_agg(m.xmin::pg_catalog.text, ',' ORDER BY m.oid)"
							  "   FROM pg_catalog.pg_user_mapping m WHERE m.umserver = f.oid AND m.umuser IN (s.owner::pg_catalog.oid, 0))),"
							  " CASE WHEN s.start_from ~ '^[0-9]'"
							  "   THEN pg_catalog.ceil(extract(epoch FROM s.start_from::timestamptz) * 1000)::bigint ELSE -1 END,"
							  " s.max_backlog, s.slice, s.slices, s.consumer_group, s.cluster_id,"
							  " CASE WHEN s.format = 'json' THEN s.content_field END,"
							  " s.on_tombstone IN ('delete', 'expire'), s.on_tombstone = 'ignore',"
							  " pg_catalog.num_nonnulls(s.result_topic, s.dead_letter_topic, s.notify_channel) > 0,"
							  " s.format = 'chunked', s.chunk_timeout, s.on_tombstone = 'expire',"
							  " COALESCE(s.image_source, s.name), s.target, s.end_at IS NOT NULL, COALESCE(s.end_at = 'latest', false),"
							  " CASE WHEN s.end_at ~ '^[0-9]'"
							  "   THEN pg_catalog.ceil(extract(epoch FROM s.end_at::timestamptz) * 1000)::bigint ELSE -1 END"
							  " FROM imgpipe.sources s LEFT JOIN pg_catalog.pg_foreign_server f ON f.srvname = s.server"
							  " WHERE s.source_id = $1 AND s.enabled",
							  1, &type, &value, NULL, true, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not read the source");
	if (SPI_processed == 1)
	{
		source = MemoryContextAllocZero(context, sizeof(IngestSource));
		source->name = text_copy(context, 1);
		source->server = text_copy(context, 2);
		source->topic = text_copy(context, 3);
		source->owner = DatumGetObjectId(value_at(0, 4, &isnull));
		source->owner_name = text_copy(context, 5);
		source->retention = interval_copy(context, 6);
		source->from_latest = DatumGetBool(value_at(0, 7, &isnull));
		source->batch_rows = integer_at(8);
		source->batch_bytes = integer_at(9);
		source->linger_ms = integer_at(10);
		source->may_use_server = DatumGetBool(value_at(0, 11, &isnull));
		source->started_in = text_copy(context, 12);
		source->version = text_copy(context, 13);
		source->from_time = DatumGetInt64(value_at(0, 14, &isnull));
		source->max_backlog = integer_at(15);
		source->slice = integer_at(16);
		source->slices = integer_at(17);
		source->consumer_group = text_copy(context, 18);
		source->cluster_id = text_copy(context, 19);
		source->content_field = text_copy(context, 20);
		source->tombstones_delete = DatumGetBool(value_at(0, 21, &isnull));
		source->tombstones_ignored = DatumGetBool(value_at(0, 22, &isnull));
		source->reports = DatumGetBool(value_at(0, 23, &isnull));
		source->chunked = DatumGetBool(value_at(0, 24, &isnull));
		source->chunk_timeout = interval_copy(context, 25);
		source->tombstones_expire = DatumGetBool(value_at(0, 26, &isnull));
		source->image_source = text_copy(context, 27);
		source->target = text_copy(context, 28);
		source->replay = DatumGetBool(value_at(0, 29, &isnull));
		source->ends_latest = DatumGetBool(value_at(0, 30, &isnull));
		source->end_time = DatumGetInt64(value_at(0, 31, &isnull));
	}
	internal_end(&scope);
	worker_transaction_commit();
	MemoryContextSwitchTo(context);
	return source;
}

/* Which of the topic's partitions have a position or are for another database; fresh: none has one. */
static bool *
partitions_known(IngestWorker *worker, int n, bool *fresh)
{
	bool	   *known = palloc0(sizeof(bool) * n);
	InternalScope scope;
	Oid			type = INT4OID;
	Datum		value = Int32GetDatum(worker->arguments->object);
	MemoryContext context = CurrentMemoryContext;
	uint64		row;
	int			i;

	worker_transaction_begin("reading positions");
	internal_begin(&scope);
	if (SPI_execute_with_args("SELECT p.partition FROM imgpipe.ingest_positions p"
							  " WHERE p.source_id = $1 AND p.next_offset IS NOT NULL",
							  1, &type, &value, NULL, true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read positions");
	*fresh = SPI_processed == 0;
	/* What is added after it began is not in the range of a replay. */
	memset(known, worker->source->replay && !*fresh, sizeof(bool) * n);
	for (row = 0; row < SPI_processed; row++)
	{
		bool		isnull;
		int32		partition = DatumGetInt32(value_at(row, 1, &isnull));

		if (partition < n)
			known[partition] = true;
	}
	for (i = 0; i < n; i++)
		known[i] = known[i] || i % worker->source->slices != worker->source->slice;
	internal_end(&scope);
	worker_transaction_commit();
	MemoryContextSwitchTo(context);
	return known;
}

/*
 * Whoever comes first writes the positions of the whole topic, under a lock on
 * the source, where start_from says.  A partition that has none after that is
 * new, and begins at its beginning: what was sent to it before anybody noticed
 * is not lost.
 */
static void
positions_insert(IngestWorker *worker, int n, Datum *partitions, Datum *low, Datum *high, Datum *start, Datum *end)
{
	Oid			types[] = {INT4OID, INT4ARRAYOID, INT8ARRAYOID, INT8ARRAYOID, INT8ARRAYOID, INT8ARRAYOID};
	Datum		values[lengthof(types)];
	InternalScope scope;
	MemoryContext context = CurrentMemoryContext;

	values[0] = Int32GetDatum(worker->arguments->object);
	values[1] = PointerGetDatum(construct_array(partitions, n, INT4OID, 4, true, TYPALIGN_INT));
	values[2] = PointerGetDatum(construct_array(low, n, INT8OID, 8, FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
	values[3] = PointerGetDatum(construct_array(high, n, INT8OID, 8, FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
	values[4] = PointerGetDatum(construct_array(start, n, INT8OID, 8, FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
	values[5] = PointerGetDatum(construct_array(end, n, INT8OID, 8, FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));

	worker_transaction_begin("writing first positions");
	internal_begin(&scope);
	if (SPI_execute_with_args("SELECT FROM imgpipe.sources s WHERE s.source_id = $1 FOR UPDATE",
							  1, types, values, NULL, false, 0) != SPI_OK_SELECT ||
		SPI_execute_with_args("INSERT INTO imgpipe.ingest_positions (source_id, partition, next_offset, high_watermark, end_offset, ingested_to)"
							  " SELECT s.source_id, n.partition,"
							  "   CASE WHEN EXISTS (SELECT FROM imgpipe.ingest_positions p"
							  "       WHERE p.source_id = $1 AND p.next_offset IS NOT NULL) THEN n.low"
							  "     WHEN s.start_from LIKE '{%'"
							  "       THEN COALESCE((s.start_from::pg_catalog.jsonb ->> n.partition::text)::bigint, n.low)"
							  "     ELSE n.start END, n.high,"
							  "   CASE WHEN s.end_at LIKE '{%'"
							  "       THEN LEAST(COALESCE((s.end_at::pg_catalog.jsonb ->> n.partition::text)::bigint, n.high), n.high)"
							  "     WHEN s.end_at IS NOT NULL THEN n.end_offset END,"
							  "   CASE WHEN s.end_at IS NOT NULL AND NOT s.restore_expired THEN n.high END"
							  " FROM imgpipe.sources s, unnest($2, $3, $4, $5, $6) n (partition, low, high, start, end_offset)"
							  " WHERE s.source_id = $1 AND (s.only_partitions IS NULL OR n.partition = ANY (s.only_partitions))"
							  " ON CONFLICT ON CONSTRAINT ingest_positions_pkey DO UPDATE"
							  "   SET next_offset = EXCLUDED.next_offset, high_watermark = EXCLUDED.high_watermark, end_offset = EXCLUDED.end_offset"
							  "   WHERE ingest_positions.next_offset IS NULL",
							  lengthof(types), types, values, NULL, false, 0) != SPI_OK_INSERT)
		elog(ERROR, "could not write first positions");
	internal_end(&scope);
	worker_transaction_commit();
	MemoryContextSwitchTo(context);
}

/* Into worker->partitions; what is known of a partition already is kept. */
static void
positions_read(IngestWorker *worker)
{
	InternalScope scope;
	Oid			types[] = {INT4OID, INT4OID, INT4OID};
	Datum		values[] = {
		Int32GetDatum(worker->arguments->object),
		Int32GetDatum(worker->arguments->n_slices * worker->source->slices),
		Int32GetDatum(worker->arguments->slice * worker->source->slices + worker->source->slice)
	};
	MemoryContext context = CurrentMemoryContext;
	IngestPartition *partitions;
	int			n;
	int			i;

	worker_transaction_begin("reading positions");
	internal_begin(&scope);
	if (SPI_execute_with_args("SELECT p.partition, p.next_offset, p.last_offset, p.last_timestamp, p.ingested_to,"
							  " COALESCE(p.end_offset, 9223372036854775807), COALESCE(p.anchor_offset, -1), p.anchor_timestamp"
							  " FROM imgpipe.ingest_positions p"
							  " WHERE p.source_id = $1 AND p.next_offset IS NOT NULL AND p.partition % $2 = $3 ORDER BY p.partition",
							  lengthof(types), types, values, NULL, true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read positions");
	n = SPI_processed;
	partitions = MemoryContextAllocZero(worker->session, sizeof(IngestPartition) * Max(n, 1));
	for (i = 0; i < n; i++)
	{
		IngestPartition *before;
		bool		isnull;

		partitions[i].partition = DatumGetInt32(value_at(i, 1, &isnull));
		before = partition_find(worker, partitions[i].partition);
		if (before)
		{
			partitions[i] = *before;
			continue;
		}
		partitions[i].next_offset = DatumGetInt64(value_at(i, 2, &isnull));
		partitions[i].fetched_offset = partitions[i].next_offset;
		partitions[i].last_offset = DatumGetInt64(value_at(i, 3, &isnull));
		if (isnull)
			partitions[i].last_offset = -1;
		partitions[i].suspect = true;
		partitions[i].last_timestamp = DatumGetTimestampTz(value_at(i, 4, &isnull));
		if (isnull)
			partitions[i].last_timestamp = 0;
		partitions[i].ingested_to = DatumGetInt64(value_at(i, 5, &isnull));
		if (isnull)
			partitions[i].ingested_to = -1;
		partitions[i].end_offset = DatumGetInt64(value_at(i, 6, &isnull));
		partitions[i].told_offset = -1;
		partitions[i].anchor_offset = DatumGetInt64(value_at(i, 7, &isnull));
		partitions[i].anchor_timestamp = DatumGetTimestampTz(value_at(i, 8, &isnull));
	}
	internal_end(&scope);
	worker_transaction_commit();
	MemoryContextSwitchTo(context);
	worker->partitions = partitions;
	worker->n_partitions = n;
}

/* Where a partition begins that the first start of the source finds. */
static bool
first_offset(IngestWorker *worker, int32 partition, int64 low, int64 high, int64 *first,
			 char error[KAFKA_ERROR_SIZE])
{
	*first = worker->source->from_latest ? high : low;
	if (worker->source->from_time < 0)
		return true;
	if (!kafka_client_offsets_at(worker->client, 1, &partition, &worker->source->from_time, QUESTION_TIMEOUT, first,
								 error))
		return false;
	if (*first < 0)
		*first = high;
	return true;
}

/* Where a partition ends for a replay, as far as it does not by an offset. */
static bool
range_end(IngestWorker *worker, int32 partition, int64 high, int64 *end, char error[KAFKA_ERROR_SIZE])
{
	*end = high;
	if (worker->source->end_time < 0)
		return true;
	if (!kafka_client_offsets_at(worker->client, 1, &partition, &worker->source->end_time, QUESTION_TIMEOUT, end,
								 error))
		return false;
	if (*end < 0)
		*end = high;
	return true;
}

bool
positions_load(IngestWorker *worker, char error[KAFKA_ERROR_SIZE])
{
	KafkaTopic	topic;
	MemoryContext scratch;
	MemoryContext caller;
	bool	   *known;
	Datum	   *partitions;
	Datum	   *low;
	Datum	   *high;
	Datum	   *start;
	Datum	   *ends;
	bool		fresh;
	int			n = 0;
	int			i;

	if (!kafka_client_topic(worker->client, QUESTION_TIMEOUT, &topic, error))
		return false;

	scratch = AllocSetContextCreate(worker->session, "imgpipe first positions", ALLOCSET_SMALL_SIZES);
	caller = MemoryContextSwitchTo(scratch);
	known = partitions_known(worker, topic.n_partitions, &fresh);
	partitions = palloc(sizeof(Datum) * Max(topic.n_partitions, 1));
	low = palloc(sizeof(Datum) * Max(topic.n_partitions, 1));
	high = palloc(sizeof(Datum) * Max(topic.n_partitions, 1));
	start = palloc(sizeof(Datum) * Max(topic.n_partitions, 1));
	ends = palloc(sizeof(Datum) * Max(topic.n_partitions, 1));
	for (i = 0; i < topic.n_partitions; i++)
	{
		int64		first;
		int64		end;
		int64		begin = 0;
		int64		behind;

		if (known[i])
			continue;
		ingest_check_stop();
		if (!kafka_client_watermarks(worker->client, i, QUESTION_TIMEOUT, &first, &end, error) ||
			(fresh && !first_offset(worker, i, first, end, &begin, error)) ||
			!range_end(worker, i, end, &behind, error))
		{
			MemoryContextSwitchTo(caller);
			MemoryContextDelete(scratch);
			return false;
		}
		partitions[n] = Int32GetDatum(i);
		low[n] = Int64GetDatum(first);
		high[n] = Int64GetDatum(end);
		start[n] = Int64GetDatum(begin);
		ends[n] = Int64GetDatum(behind);
		n++;
	}
	if (n > 0)
		positions_insert(worker, n, partitions, low, high, start, ends);
	positions_read(worker);
	worker->n_topic_partitions = topic.n_partitions;
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(scratch);

	for (i = 0; i < worker->n_partitions; i++)
		if (worker->partitions[i].partition >= topic.n_partitions)
		{
			worker->partitions[i].blocked = true;
			snprintf(worker->partitions[i].error, KAFKA_ERROR_SIZE,
					 "topic \"%s\" has no partition %d any more, which was ingested up to offset " INT64_FORMAT
					 ": it was made anew",
					 worker->source->topic, worker->partitions[i].partition,
					 worker->partitions[i].next_offset);
		}
	return true;
}

IngestPartition *
partition_find(IngestWorker *worker, int32 partition)
{
	int			i;

	for (i = 0; i < worker->n_partitions; i++)
		if (worker->partitions[i].partition == partition)
			return &worker->partitions[i];
	return NULL;
}

/*
 * One statement locks the rows, sees whether they are what we think, and
 * advances them.  Another worker on the same partition, from before a fault or
 * from a second server on a copied disk, waits for our commit and then finds
 * nothing to update.
 */
void
positions_advance(IngestWorker *worker, int n, const PositionMove *moves)
{
	static SPIPlanPtr plan = NULL;
	Oid			types[] = {
		INT4OID, INT4ARRAYOID, INT8ARRAYOID, INT8ARRAYOID, INT8ARRAYOID, INT8ARRAYOID,
		INT8ARRAYOID, INT8ARRAYOID, INT8ARRAYOID, TIMESTAMPTZARRAYOID
	};
	const int	timestamps = lengthof(types) - 1;
	Datum		values[lengthof(types)];
	Datum	   *columns[lengthof(types)];
	bool	   *no_timestamp = palloc0(sizeof(bool) * n);
	InternalScope scope;
	int			lower_bound = 1;
	int			i;

	for (i = 1; i < lengthof(types); i++)
		columns[i] = palloc(sizeof(Datum) * n);
	for (i = 0; i < n; i++)
	{
		columns[1][i] = Int32GetDatum(moves[i].partition->partition);
		columns[2][i] = Int64GetDatum(moves[i].partition->next_offset);
		columns[3][i] = Int64GetDatum(moves[i].next_offset);
		columns[4][i] = Int64GetDatum(Max(moves[i].next_offset,
										  kafka_client_high_watermark(worker->client, moves[i].partition->partition)));
		columns[5][i] = Int64GetDatum(moves[i].last_offset);
		columns[6][i] = Int64GetDatum(moves[i].messages);
		columns[7][i] = Int64GetDatum(moves[i].bytes);
		columns[8][i] = Int64GetDatum(moves[i].dead_letters);
		columns[timestamps][i] = TimestampTzGetDatum(moves[i].last_timestamp);
		no_timestamp[i] = moves[i].last_timestamp == 0;
	}
	values[0] = Int32GetDatum(worker->arguments->object);
	values[1] = PointerGetDatum(construct_array(columns[1], n, INT4OID, 4, true, TYPALIGN_INT));
	for (i = 2; i < timestamps; i++)
		values[i] = PointerGetDatum(construct_array(columns[i], n, INT8OID, 8, FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
	values[timestamps] = PointerGetDatum(construct_md_array(columns[timestamps], no_timestamp, 1, &n, &lower_bound,
												   TIMESTAMPTZOID, 8, FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));

	internal_begin(&scope);
	if (plan == NULL)
	{
		plan = SPI_prepare("UPDATE imgpipe.ingest_positions p SET next_offset = n.next_offset, high_watermark = n.high_watermark,"
						   "  last_offset = CASE WHEN n.last_offset >= 0 THEN n.last_offset ELSE p.last_offset END,"
						   "  last_timestamp = CASE WHEN n.last_offset >= 0 THEN n.last_timestamp ELSE p.last_timestamp END,"
						   "  messages = p.messages + n.messages, bytes = p.bytes + n.bytes, dead_letters = p.dead_letters + n.dead_letters,"
						   "  updated_at = pg_catalog.clock_timestamp()"
						   " FROM unnest($2, $3, $4, $5, $6, $7, $8, $9, $10)"
						   "  n (partition, expected, next_offset, high_watermark, last_offset, messages, bytes, dead_letters, last_timestamp)"
						   " WHERE p.source_id = $1 AND p.partition = n.partition AND p.next_offset = n.expected",
						   lengthof(types), types);
		if (plan == NULL || SPI_keepplan(plan) != 0)
			elog(ERROR, "could not prepare the statement that advances positions");
	}
	if (SPI_execute_plan(plan, values, NULL, false, 0) != SPI_OK_UPDATE)
		elog(ERROR, "could not advance positions");
	if (SPI_processed != n)
	{
		worker->fenced = true;
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("positions of source \"%s\" were changed by somebody else", worker->source->name),
				 errdetail("The batch was thrown away; it is read again from where the positions are now.")));
	}
	internal_end(&scope);
}

/* A statement of the extension's own in a transaction of its own; whether it found a row. */
static bool
statement_alone(const char *activity, const char *statement, int result, int n, Oid *types, Datum *values,
				const char *nulls)
{
	InternalScope scope;
	MemoryContext context = CurrentMemoryContext;
	bool		found;

	worker_transaction_begin(activity);
	internal_begin(&scope);
	if (SPI_execute_with_args(statement, n, types, values, nulls, false, 0) != result)
		elog(ERROR, "could not execute: %s", statement);
	found = SPI_processed > 0;
	internal_end(&scope);
	worker_transaction_commit();
	MemoryContextSwitchTo(context);
	return found;
}

void
position_anchor(IngestWorker *worker, const IngestPartition *partition)
{
	Oid			types[] = {INT4OID, INT4OID, INT8OID, TIMESTAMPTZOID};
	Datum		values[] = {
		Int32GetDatum(worker->arguments->object),
		Int32GetDatum(partition->partition),
		Int64GetDatum(partition->anchor_offset),
		TimestampTzGetDatum(partition->anchor_timestamp)
	};

	statement_alone("writing what tells a topic from another one",
					"UPDATE imgpipe.ingest_positions p SET anchor_offset = $3, anchor_timestamp = $4"
					" WHERE p.source_id = $1 AND p.partition = $2",
					SPI_OK_UPDATE, lengthof(types), types, values, NULL);
}

void
positions_show_ends(IngestWorker *worker)
{
	Oid			types[] = {INT4OID, INT4OID, INT8OID};
	InternalScope scope;
	MemoryContext context = CurrentMemoryContext;
	int			i;

	worker_transaction_begin("writing how far the topic is");
	internal_begin(&scope);
	for (i = 0; i < worker->n_partitions; i++)
	{
		Datum		values[] = {
			Int32GetDatum(worker->arguments->object),
			Int32GetDatum(worker->partitions[i].partition),
			Int64GetDatum(kafka_client_high_watermark(worker->client, worker->partitions[i].partition))
		};

		if (DatumGetInt64(values[2]) < 0)
			continue;
		if (SPI_execute_with_args("UPDATE imgpipe.ingest_positions p SET high_watermark = $3"
								  " WHERE p.source_id = $1 AND p.partition = $2 AND p.high_watermark IS DISTINCT FROM $3",
								  lengthof(types), types, values, NULL, false, 0) != SPI_OK_UPDATE)
			elog(ERROR, "could not write how far the topic is");
	}
	internal_end(&scope);
	worker_transaction_commit();
	MemoryContextSwitchTo(context);
}

void
retention_show(IngestWorker *worker)
{
	Oid			types[] = {INT4OID, INT8OID, INT8OID, TEXTOID};
	bool		known = worker->retention_error[0] == '\0';
	Datum		values[] = {
		Int32GetDatum(worker->arguments->object),
		Int64GetDatum(worker->retention.retention_ms),
		Int64GetDatum(worker->retention.segment_ms),
		CStringGetTextDatum(worker->retention_error)
	};
	char		nulls[] = {' ', known ? ' ' : 'n', known ? ' ' : 'n', known ? 'n' : ' '};

	statement_alone("writing how long Kafka keeps the topic",
					"INSERT INTO imgpipe.source_topics (source_id, retention_ms, segment_ms, error) VALUES ($1, $2, $3, $4)"
					" ON CONFLICT (source_id) DO UPDATE SET retention_ms = EXCLUDED.retention_ms,"
					"  segment_ms = EXCLUDED.segment_ms, error = EXCLUDED.error, told_at = EXCLUDED.told_at",
					SPI_OK_INSERT, lengthof(types), types, values, nulls);
}

/* Not every time: it counts as many rows as are let. */
static bool
outbox_is_long(const IngestSource *source)
{
	static TimestampTz looked_at = 0;
	static bool is_long = false;
	Oid			types[] = {TEXTOID, OIDOID, INT4OID};
	Datum		values[] = {
		CStringGetTextDatum(source->server), ObjectIdGetDatum(source->owner), Int32GetDatum(imgpipe_max_outbox)
	};

	if (imgpipe_max_outbox == 0 || !source->reports)
		return false;
	if (!TimestampDifferenceExceeds(looked_at, GetCurrentTimestamp(), OUTBOX_INTERVAL))
		return is_long;
	looked_at = GetCurrentTimestamp();
	is_long = statement_alone("looking at the outbox",
							  "SELECT FROM imgpipe.outbox o WHERE o.state = 'ready' AND o.image_id >= imgpipe.fence()"
							  " AND o.sender_id = (SELECT s.sender_id FROM imgpipe.senders s WHERE s.server = $1 AND s.owner = $2)"
							  " OFFSET $3 LIMIT 1",
							  SPI_OK_SELECT, lengthof(types), types, values, NULL);
	return is_long;
}

bool
backlog_is_long(const IngestSource *source)
{
	Oid			type = INT4OID;
	Datum		value = Int32GetDatum(source->max_backlog);

	if (source->max_backlog > 0 &&
		statement_alone("looking at the queue of tasks", "SELECT FROM imgpipe.tasks OFFSET $1 LIMIT 1",
						SPI_OK_SELECT, 1, &type, &value, NULL))
		return true;
	return outbox_is_long(source);
}

bool
replay_is_over(IngestWorker *worker)
{
	Oid			type = INT4OID;
	Datum		value = Int32GetDatum(worker->arguments->object);
	int			i;

	for (i = 0; i < worker->n_partitions; i++)
		if (worker->partitions[i].next_offset < worker->partitions[i].end_offset)
			return false;
	statement_alone("ending a replay",
					"UPDATE imgpipe.sources s SET enabled = false, finished_at = pg_catalog.clock_timestamp()"
					" WHERE s.source_id = $1 AND NOT EXISTS (SELECT FROM imgpipe.ingest_positions p"
					"   WHERE p.source_id = $1 AND (p.next_offset < p.end_offset) IS NOT FALSE)"
					" AND NOT EXISTS (SELECT FROM imgpipe.chunked_images c WHERE c.source_id = $1 AND c.due_at IS NOT NULL"
					"   AND c.image_id >= imgpipe.fence())",
					SPI_OK_UPDATE, 1, &type, &value, NULL);
	return true;
}

void
source_set_cluster(IngestWorker *worker, const char *cluster_id)
{
	Oid			types[] = {INT4OID, TEXTOID};
	Datum		values[] = {Int32GetDatum(worker->arguments->object), CStringGetTextDatum(cluster_id)};

	statement_alone("writing which Kafka cluster it is",
					"UPDATE imgpipe.sources s SET cluster_id = $2 WHERE s.source_id = $1 AND s.cluster_id IS NULL",
					SPI_OK_UPDATE, lengthof(types), types, values, NULL);
}
