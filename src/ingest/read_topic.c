/*
 * read_topic.c
 *		imgpipe.read_topic(): the messages of a topic as rows, ingested or not.
 *
 * A client of its own for the length of one call; the rows go to a tuplestore,
 * which spills to disk beyond work_mem.  It ends where the range does, or at
 * what was the end of the partition when reading began, by what the broker says
 * of it: an end of partition or a message behind it.  Silence is never taken for
 * an end, but after the timeout for an error.
 *
 * The client belongs to a memory context under the executor's, so that its
 * threads end with the statement, however that does.
 */
#include "postgres.h"

#include "fmgr.h"
#include "funcapi.h"
#include "ingest/ingest_message.h"
#include "ingest/kafka_client.h"
#include "ingest/kafka_options.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "workers/worker.h"

PG_FUNCTION_INFO_V1(imgpipe_read_topic);

#define FETCH_AHEAD			(8 * 1024 * 1024)
#define LONGEST_WAIT		1000	/* ms */

/*
 * A question blocks, and a cancel waits for it: so the first ones are short.
 * A broker that takes longer than that to answer gets more time later.
 */
#define SHORT_QUESTION		150		/* ms */
#define LONG_QUESTION		1000
#define SHORT_QUESTIONS		20		/* so many are short */

typedef struct ReadPartition
{
	int32		partition;
	int64		from;
	int64		end;			/* the first offset not to be read */
	bool		begun;			/* end is no later than that of the partition */
	bool		done;
} ReadPartition;

typedef struct TopicReader
{
	KafkaClient *client;
	KafkaBatch *batch;			/* of one message */
	const char *topic;
	int			timeout;		/* ms */
	TimestampTz heard_at;
	int			n_partitions;
	int			n_open;
	ReadPartition *partitions;
	char		problem[KAFKA_ERROR_SIZE];	/* the library's last words, or empty */
	ReturnSetInfo *result;
	MemoryContext row;
} TopicReader;

static void
raise_silence(const TopicReader *reader, const char *question)
{
	ereport(ERROR,
			(errcode(ERRCODE_CONNECTION_FAILURE),
			 errmsg("topic \"%s\" was not read to its end", reader->topic),
			 errdetail("Kafka has said nothing for %d ms%s%s%s%s.", reader->timeout,
					   question[0] || reader->problem[0] ? ": " : "", question,
					   question[0] && reader->problem[0] ? "; " : "", reader->problem),
			 errhint("Try again later, or give it more time with timeout.")));
}

static bool
is_silent(const TopicReader *reader)
{
	return TimestampDifferenceExceeds(reader->heard_at, GetCurrentTimestamp(), reader->timeout);
}

static ReadPartition *
reader_find(TopicReader *reader, int32 partition)
{
	int			i;

	for (i = 0; i < reader->n_partitions; i++)
		if (reader->partitions[i].partition == partition)
			return &reader->partitions[i];
	return NULL;
}

static void
partition_done(TopicReader *reader, ReadPartition *partition)
{
	if (!partition->done)
		reader->n_open--;
	partition->done = true;
}

static void
emit(TopicReader *reader, const KafkaMessage *message)
{
	MemoryContext caller = MemoryContextSwitchTo(reader->row);
	TimestampTz timestamp = message_timestamp(message);
	Datum		values[6];
	bool		nulls[6] = {false};

	values[0] = Int32GetDatum(message->partition);
	values[1] = Int64GetDatum(message->offset);
	values[2] = TimestampTzGetDatum(timestamp);
	nulls[2] = timestamp == 0;
	nulls[3] = message->key == NULL;
	values[3] = nulls[3] ? (Datum) 0 : CStringGetTextDatum(message_text(message->key, message->key_length));
	nulls[4] = message->value == NULL;
	values[4] = nulls[4] ? (Datum) 0 :
		PointerGetDatum(cstring_to_text_with_len(message->value, message->value_length));
	values[5] = message_headers(message, &nulls[5]);
	tuplestore_putvalues(reader->result->setResult, reader->result->setDesc, values, nulls);
	MemoryContextSwitchTo(caller);
	MemoryContextReset(reader->row);
}

static void
take_message(TopicReader *reader, const KafkaEvent *event)
{
	ReadPartition *partition = reader_find(reader, event->partition);

	if (partition == NULL || partition->done)
		return;
	if (!partition->begun)
	{
		int64		end = kafka_client_high_watermark(reader->client, event->partition);

		/* What is sent from now on may never stop coming. */
		if (end >= 0)
			partition->end = Min(partition->end, end);
		partition->begun = end >= 0;
	}
	if (event->offset < partition->end)
		emit(reader, &event->message);
	/* Behind the last one there may be none: what was compacted away, or control records. */
	if (event->offset >= partition->end - 1)
		partition_done(reader, partition);
}

/* Takes what has come; false where nothing has. */
static bool
take_event(TopicReader *reader)
{
	KafkaEvent	event;
	ReadPartition *partition;

	switch (kafka_client_poll(reader->client, reader->batch, &event))
	{
		case KAFKA_NOTHING:
			return false;
		case KAFKA_MESSAGE:
			take_message(reader, &event);
			kafka_batch_drop_last(reader->batch);
			break;
		case KAFKA_END_OF_PARTITION:
			partition = reader_find(reader, event.partition);
			if (partition)
				partition_done(reader, partition);
			break;
		case KAFKA_OUT_OF_RANGE:
			partition = reader_find(reader, event.partition);
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("offset does not exist in topic \"%s\"", reader->topic),
					 errdetail("It is " INT64_FORMAT " of partition %d: messages were deleted, or it is behind the end.",
							   partition ? partition->from : event.offset, event.partition),
					 errhint("Without from_offset a partition is read from its beginning.")));
			break;
		case KAFKA_PARTITION_ERROR:
		case KAFKA_TOPIC_GONE:
		case KAFKA_BROKER_ERROR:
			/* It goes on trying, and if it does in vain, these are the words. */
			strlcpy(reader->problem, event.error, sizeof(reader->problem));
			return true;
		case KAFKA_UNREACHABLE:
			/* Says less than what each broker has had to say. */
			if (reader->problem[0] == '\0')
				strlcpy(reader->problem, event.error, sizeof(reader->problem));
			return true;
		default:
			return true;
	}
	reader->heard_at = GetCurrentTimestamp();
	reader->problem[0] = '\0';
	return true;
}

/*
 * Called after a question that was not answered: waits a moment, or raises
 * where that has been going on for too long.
 */
static int
ask_again(TopicReader *reader, int asked, const char *error)
{
	while (take_event(reader))
		;
	if (is_silent(reader))
		raise_silence(reader, error);
	kafka_client_wait(reader->client, SHORT_QUESTION, wait_event_kafka());
	return asked + 1;
}

static int
question_time(int asked)
{
	return asked < SHORT_QUESTIONS ? SHORT_QUESTION : LONG_QUESTION;
}

static void
ask_partitions(TopicReader *reader, KafkaTopic *topic)
{
	char		error[KAFKA_ERROR_SIZE];
	int			asked = 0;

	topic->n_partitions = 0;
	while (!kafka_client_topic(reader->client, question_time(asked), topic, error))
	{
		if (topic->n_partitions < 0)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_OBJECT),
					 errmsg("%s", error)));
		asked = ask_again(reader, asked, error);
	}
	reader->heard_at = GetCurrentTimestamp();
}

/* The first offset of that time or later; absent where there is none. */
static int64
ask_offset(TopicReader *reader, int32 partition, TimestampTz time, int64 absent)
{
	int64		milliseconds = kafka_time(time);
	char		error[KAFKA_ERROR_SIZE];
	int64		offset;
	int			asked = 0;

	while (!kafka_client_offsets_at(reader->client, 1, &partition, &milliseconds, question_time(asked), &offset, error))
		asked = ask_again(reader, asked, error);
	reader->heard_at = GetCurrentTimestamp();
	return offset >= 0 ? offset : absent;
}

static void
range_invalid(const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("not a range of a topic"),
			 errdetail("%s", detail)));
}

static int
timeout_of(const Interval *interval)
{
	int64		microseconds = interval->time + interval->day * USECS_PER_DAY;

	if (interval->month != 0 || microseconds < USECS_PER_SEC || microseconds > USECS_PER_DAY)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("timeout must be between 1 second and 1 day")));
	return microseconds / 1000;
}

static void
reader_assign(TopicReader *reader)
{
	int32	   *partitions = palloc(sizeof(int32) * reader->n_partitions);
	int64	   *offsets = palloc(sizeof(int64) * reader->n_partitions);
	int			n = 0;
	int			i;

	for (i = 0; i < reader->n_partitions; i++)
	{
		if (reader->partitions[i].done)
			continue;
		partitions[n] = reader->partitions[i].partition;
		offsets[n++] = reader->partitions[i].from;
	}
	kafka_client_assign(reader->client, n, partitions, offsets);
	reader->n_open = n;
}

static void
reader_open(TopicReader *reader, const char *server)
{
	KafkaSetting *settings;
	int			n;
	char		group[64];

	if (!DatumGetBool(DirectFunctionCall2(has_server_privilege_name, CStringGetTextDatum(server), CStringGetTextDatum("USAGE"))))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for foreign server %s", server),
				 errhint("Its owner can GRANT USAGE ON FOREIGN SERVER %s.", quote_identifier(server))));
	n = kafka_settings(server, GetUserId(), &settings);
	snprintf(group, sizeof(group), "imgpipe-read-%d", MyProcPid);
	reader->client = kafka_client_open(settings, n, reader->topic, group, FETCH_AHEAD);
	MemoryContextSwitchTo(AllocSetContextCreate(CurrentMemoryContext, "imgpipe read_topic batch", ALLOCSET_DEFAULT_SIZES));
	reader->batch = kafka_batch_create(1);
	reader->row = AllocSetContextCreate(CurrentMemoryContext, "imgpipe read_topic row", ALLOCSET_DEFAULT_SIZES);
	reader->heard_at = GetCurrentTimestamp();
}

Datum
imgpipe_read_topic(PG_FUNCTION_ARGS)
{
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext session;
	TopicReader *reader;
	KafkaTopic	topic;
	int			i;

	for (i = 0; i < 2; i++)
		if (PG_ARGISNULL(i))
			range_invalid("server and topic cannot be null.");
	if (PG_ARGISNULL(7))
		range_invalid("timeout cannot be null.");
	if (PG_ARGISNULL(2) && (!PG_ARGISNULL(3) || !PG_ARGISNULL(4)))
		range_invalid("Offsets are of one partition, and none is given.");
	if ((!PG_ARGISNULL(3) && !PG_ARGISNULL(5)) || (!PG_ARGISNULL(4) && !PG_ARGISNULL(6)))
		range_invalid("It begins or ends at an offset or at a time, not at both.");
	if ((!PG_ARGISNULL(3) && PG_GETARG_INT64(3) < 0) || (!PG_ARGISNULL(4) && PG_GETARG_INT64(4) < 0) ||
		(!PG_ARGISNULL(2) && PG_GETARG_INT32(2) < 0))
		range_invalid("Partitions and offsets are 0 or more.");
	for (i = 5; i < 7; i++)
		if (!PG_ARGISNULL(i) && (TIMESTAMP_NOT_FINITE(PG_GETARG_TIMESTAMPTZ(i)) ||
								 PG_GETARG_TIMESTAMPTZ(i) < SetEpochTimestamp()))
			range_invalid("A time is between 1970 and the end of all times.");

	InitMaterializedSRF(fcinfo, 0);
	session = AllocSetContextCreate(caller, "imgpipe read_topic", ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(session);
	reader = palloc0(sizeof(TopicReader));
	reader->result = (ReturnSetInfo *) fcinfo->resultinfo;
	reader->topic = text_to_cstring(PG_GETARG_TEXT_PP(1));
	reader->timeout = timeout_of(PG_GETARG_INTERVAL_P(7));
	reader_open(reader, text_to_cstring(PG_GETARG_TEXT_PP(0)));

	ask_partitions(reader, &topic);
	if (!PG_ARGISNULL(2) && PG_GETARG_INT32(2) >= topic.n_partitions)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("partition %d does not exist", PG_GETARG_INT32(2)),
				 errdetail("Topic \"%s\" has %d.", reader->topic, topic.n_partitions)));
	reader->n_partitions = PG_ARGISNULL(2) ? topic.n_partitions : 1;
	reader->partitions = palloc0(mul_size(reader->n_partitions, sizeof(ReadPartition)));
	for (i = 0; i < reader->n_partitions; i++)
	{
		ReadPartition *partition = &reader->partitions[i];

		partition->partition = PG_ARGISNULL(2) ? i : PG_GETARG_INT32(2);
		partition->from = PG_ARGISNULL(3) ? KAFKA_BEGINNING : PG_GETARG_INT64(3);
		partition->end = PG_ARGISNULL(4) ? PG_INT64_MAX : PG_GETARG_INT64(4);
		if (!PG_ARGISNULL(5))
			partition->from = ask_offset(reader, partition->partition, PG_GETARG_TIMESTAMPTZ(5), -1);
		if (!PG_ARGISNULL(6))
			partition->end = ask_offset(reader, partition->partition, PG_GETARG_TIMESTAMPTZ(6), PG_INT64_MAX);
		partition->done = partition->from == -1 || partition->from >= partition->end || partition->end == 0;
	}
	reader_assign(reader);

	while (reader->n_open > 0)
	{
		CHECK_FOR_INTERRUPTS();
		if (take_event(reader))
			continue;
		if (is_silent(reader))
			raise_silence(reader, "");
		kafka_client_resume(reader->client);
		kafka_client_wait(reader->client, Min(LONGEST_WAIT, reader->timeout), wait_event_kafka());
	}
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(session);
	return (Datum) 0;
}
