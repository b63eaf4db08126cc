/*
 * ingest_events.c
 *		What an ingest worker does with each event of its Kafka client.
 *
 * Messages go to the batch; ends move what was fetched over gaps; what else
 * comes is a reason to be careful.  A partition that was cut off, or has only
 * now been assigned, is suspect: it has to show its last ingested message again
 * before anything of it is taken.  One that is not what it was is blocked.
 */
#include "postgres.h"

#include "ingest/ingest.h"
#include "ingest/ingest_message.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/* All in ms. */
#define ERROR_LIFE			60000	/* the library repeats one that lasts twice as often */
#define TELL_INTERVAL		1000	/* between commits to Kafka */
#define TELL_TIMEOUT		60000	/* after which an answer to one is not waited for any more */

static bool tell_failed;		/* the log knows that Kafka does not take our positions */

bool
partitions_assign(IngestWorker *worker)
{
	int32	   *partitions = palloc(sizeof(int32) * Max(worker->n_partitions, 1));
	int64	   *offsets = palloc(sizeof(int64) * Max(worker->n_partitions, 1));
	int			n = 0;
	int			i;

	if (!partitions_compare(worker))
		return false;
	for (i = 0; i < worker->n_partitions; i++)
	{
		IngestPartition *partition = &worker->partitions[i];

		partition->fetched_offset = partition->next_offset;
		partition->heard_at = GetCurrentTimestamp();
		partition->at_end = false;
		partition->suspect = partition->suspect && partition->last_offset >= 0;
		partition->verifying = partition->suspect;
		if (partition->blocked || partition->next_offset >= partition->end_offset)
			continue;
		partitions[n] = partition->partition;
		offsets[n] = partition->verifying ? partition->last_offset : partition->next_offset;
		n++;
	}
	kafka_client_assign(worker->client, n, partitions, offsets);
	pfree(partitions);
	pfree(offsets);
	worker->assignment_stale = false;
	worker->last_progress = GetCurrentTimestamp();
	return true;
}

/*
 * A topic that is not there, or has less than it had, may be another one by
 * now.  Its partitions are found out one by one, so none is read on before it
 * has shown its last message.
 */
static void
suspect_all(IngestWorker *worker)
{
	int			i;

	for (i = 0; i < worker->n_partitions; i++)
	{
		IngestPartition *partition = &worker->partitions[i];

		/* Those that are to show it already go on with that. */
		worker->assignment_stale |= !partition->suspect && !partition->blocked;
		partition->suspect = true;
	}
}

static void
block(IngestWorker *worker, IngestPartition *partition, const char *reason)
{
	partition->blocked = true;
	strlcpy(partition->error, reason, sizeof(partition->error));
	suspect_all(worker);
	worker->assignment_stale = true;
	worker->blocked_since = GetCurrentTimestamp();
}

static void
block_changed_topic(IngestWorker *worker, IngestPartition *partition)
{
	block(worker, partition,
		  psprintf("partition %d of topic \"%s\" is not what was ingested up to offset " INT64_FORMAT
				   ": the topic was made anew, or the server is another one; "
				   "imgpipe.seek_source() says where to go on",
				   partition->partition, worker->source->topic, partition->next_offset));
}

/*
 * Asks for offsets by time, and where there is no answer, a client that knows
 * nothing yet and fetches nothing: librdkafka 2.8 reads on in a topic that was
 * made anew under it, but no longer finds leaders to ask, and an answer is lost
 * where its connection breaks again and again because of a message that is too
 * large.
 */
static bool
ask_offsets_at(IngestWorker *worker, int n, const int32 *partitions, const int64 *times, int64 *offsets)
{
	MemoryContext caller;
	MemoryContext context;
	char		error[KAFKA_ERROR_SIZE];
	bool		fine;

	if (kafka_client_offsets_at(worker->client, n, partitions, times, QUESTION_TIMEOUT, offsets, error))
		return true;
	context = AllocSetContextCreate(CurrentMemoryContext, "imgpipe question to Kafka", ALLOCSET_SMALL_SIZES);
	caller = MemoryContextSwitchTo(context);
	fine = kafka_client_offsets_at(kafka_client_open_another(worker->client), n, partitions, times,
								   QUESTION_TIMEOUT, offsets, worker->outage);
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(context);
	return fine;
}

/*
 * A topic that was deleted, made anew and filled beyond our positions between
 * two requests of the library's looks the same to it.  But what was written
 * does not change: before the anchor, the first message that was newer than one
 * that was ingested, no such message can come, and with such messages a new
 * topic begins.  The anchor is asked for before the last message is read again,
 * so that both answers are of the topic that it was in.
 */
bool
partitions_compare(IngestWorker *worker)
{
	IngestPartition **asked = palloc(sizeof(IngestPartition *) * Max(worker->n_partitions, 1));
	int32	   *partitions = palloc(sizeof(int32) * Max(worker->n_partitions, 1));
	int64	   *times = palloc(sizeof(int64) * Max(worker->n_partitions, 1));
	int64	   *offsets = palloc(sizeof(int64) * Max(worker->n_partitions, 1));
	int			n = 0;
	int			i;

	for (i = 0; i < worker->n_partitions; i++)
	{
		IngestPartition *partition = &worker->partitions[i];

		if (partition->blocked || partition->last_offset < 0 || partition->last_timestamp == 0)
			continue;
		if (partition->anchor_offset < 0)
			partition->anchor_timestamp = partition->last_timestamp;
		asked[n] = partition;
		partitions[n] = partition->partition;
		times[n++] = kafka_time(partition->anchor_timestamp) + 1;
	}
	if (n == 0)
		return true;
	if (!ask_offsets_at(worker, n, partitions, times, offsets))
		return false;
	for (i = 0; i < n; i++)
	{
		IngestPartition *partition = asked[i];

		if (partition->anchor_offset < 0)
		{
			int64		first_newer = offsets[i] >= 0 ? offsets[i] : partition->next_offset;

			/* Where newer ones came before older ones, a later message will do. */
			if (first_newer <= partition->last_offset)
				continue;
			partition->anchor_offset = first_newer;
			partition->suspect = true;
			position_anchor(worker, partition);
		}
		else if (offsets[i] >= 0 && offsets[i] < partition->anchor_offset)
			block_changed_topic(worker, partition);
	}
	return true;
}

/*
 * The first thing that comes while the last ingested message is read again.
 * True where it is that message and therefore none for the batch.
 */
static bool
verify_message(IngestWorker *worker, IngestPartition *partition, const KafkaMessage *message)
{
	partition->suspect = partition->verifying = false;
	if (message->offset != partition->last_offset)
		return message->offset < partition->next_offset;	/* compacted since */
	if (message_timestamp(message) != partition->last_timestamp)
		block_changed_topic(worker, partition);
	return true;
}

/* Where it is not, what comes from it is left alone until it is assigned again. */
static bool
is_trusted(IngestWorker *worker, const IngestPartition *partition)
{
	if (partition == NULL || partition->blocked)
		return false;
	if (!partition->suspect || partition->verifying)
		return true;
	worker->assignment_stale = true;
	return false;
}

static void
take_message(IngestWorker *worker, KafkaEvent *event)
{
	IngestBatch *batch = &worker->batch;
	IngestPartition *partition = partition_find(worker, event->partition);
	IngestMessage *message;

	if (!is_trusted(worker, partition) ||
		(partition->verifying && verify_message(worker, partition, &event->message)) ||
		event->offset < partition->fetched_offset)
	{
		kafka_batch_drop_last(batch->held);
		return;
	}
	if (event->offset >= partition->end_offset)
	{
		/* Also over a gap at the end of the range. */
		partition->fetched_offset = partition->end_offset;
		kafka_batch_drop_last(batch->held);
		return;
	}
	partition->fetched_offset = event->offset + 1;
	partition->at_end = false;
	partition->error[0] = '\0';

	message = &batch->messages[batch->n++];
	memset(message, 0, sizeof(*message));
	message->message = event->message;
	batch->bytes += event->message.value_length + event->message.key_length + event->message.header_length;
}

static void
take_end(IngestWorker *worker, const KafkaEvent *event)
{
	IngestPartition *partition = partition_find(worker, event->partition);

	if (!is_trusted(worker, partition))
		return;
	if (partition->verifying && event->offset < partition->next_offset)
	{
		block_changed_topic(worker, partition);
		return;
	}
	partition->suspect = partition->verifying = false;
	partition->at_end = true;
	partition->at_end_at = GetCurrentTimestamp();
	partition->error[0] = '\0';
	/* Over control records and what was compacted away. */
	partition->fetched_offset = Max(partition->fetched_offset, Min(event->offset, partition->end_offset));
}

/*
 * The last ingested message is not there to be read again.  Only where the
 * partition begins behind it was it deleted, and what follows is what is to
 * come.  One that is shorter than it was is another one, whatever is written to
 * it by the time that it is asked for what follows.
 */
static void
take_unverifiable(IngestWorker *worker, IngestPartition *partition)
{
	int64		low;
	int64		high;

	/* As long as nothing is decided, look() has it verified once more. */
	partition->verifying = false;
	if (!kafka_client_watermarks(worker->client, partition->partition, QUESTION_TIMEOUT, &low, &high, partition->error))
		return;
	if (high < partition->next_offset)
		block_changed_topic(worker, partition);
	else if (low > partition->last_offset)
	{
		partition->suspect = false;
		worker->assignment_stale = true;
	}
	else
		worker->next_look = GetCurrentTimestamp();
}

static void
take_out_of_range(IngestWorker *worker, const KafkaEvent *event)
{
	IngestPartition *partition = partition_find(worker, event->partition);

	if (partition == NULL)
		return;
	if (partition->verifying)
	{
		take_unverifiable(worker, partition);
		return;
	}
	block(worker, partition,
		  psprintf("offset " INT64_FORMAT " of partition %d of topic \"%s\" does not exist: messages were deleted "
				   "before they were ingested, or the topic was made anew; "
				   "imgpipe.seek_source() says where to go on",
				   partition->fetched_offset, partition->partition, worker->source->topic));
}

/* To kafka_client_commit(): of interest to monitors only, so it holds nothing up. */
static void
take_answer(IngestWorker *worker, const KafkaEvent *event)
{
	int			i;

	worker->telling = false;
	if (event->error[0] == '\0')
	{
		tell_failed = false;
		return;
	}
	for (i = 0; i < worker->n_partitions; i++)
		worker->partitions[i].told_offset = -1;
	if (!tell_failed)
		ereport(LOG,
				(errmsg("imgpipe could not tell Kafka the positions of source \"%s\": %s",
						worker->source->name, event->error),
				 errdetail("The consumer group is \"%s\". Ingest goes on; it does not need this.",
						   worker->source->consumer_group)));
	tell_failed = true;
}

void
tell_positions(IngestWorker *worker)
{
	TimestampTz now = GetCurrentTimestamp();
	int32	   *partitions;
	int64	   *offsets;
	int			n = 0;
	int			i;

	if (worker->source->consumer_group == NULL ||
		!TimestampDifferenceExceeds(worker->told_at, now, worker->telling ? TELL_TIMEOUT : TELL_INTERVAL))
		return;
	partitions = palloc(sizeof(int32) * Max(worker->n_partitions, 1));
	offsets = palloc(sizeof(int64) * Max(worker->n_partitions, 1));
	for (i = 0; i < worker->n_partitions; i++)
	{
		IngestPartition *partition = &worker->partitions[i];

		if (partition->told_offset == partition->next_offset || partition->blocked)
			continue;
		partitions[n] = partition->partition;
		offsets[n++] = partition->told_offset = partition->next_offset;
	}
	if (n > 0)
	{
		kafka_client_commit(worker->client, n, partitions, offsets);
		worker->telling = true;
		worker->told_at = now;
	}
	pfree(partitions);
	pfree(offsets);
}

bool
take_event(IngestWorker *worker)
{
	KafkaEvent	event;
	KafkaEventKind kind = kafka_client_poll(worker->client, worker->batch.held, &event);
	IngestPartition *partition;

	switch (kind)
	{
		case KAFKA_NOTHING:
			return false;
		case KAFKA_MESSAGE:
			take_message(worker, &event);
			break;
		case KAFKA_END_OF_PARTITION:
			take_end(worker, &event);
			break;
		case KAFKA_OUT_OF_RANGE:
			take_out_of_range(worker, &event);
			break;
		case KAFKA_TOPIC_GONE:
			suspect_all(worker);
			/* FALLTHROUGH */
		case KAFKA_PARTITION_ERROR:
			partition = partition_find(worker, event.partition);
			if (partition == NULL || partition->blocked)
				break;
			partition->suspect = true;
			snprintf(partition->error, KAFKA_ERROR_SIZE, "partition %d of topic \"%s\": %s",
					 event.partition, worker->source->topic, event.error);
			break;
		case KAFKA_BROKER_ERROR:
			/* Of one broker of perhaps many: a look at the topic will tell. */
			strlcpy(worker->broker_error, event.error, sizeof(worker->broker_error));
			worker->broker_error_at = GetCurrentTimestamp();
			worker->next_look = GetCurrentTimestamp();
			break;
		case KAFKA_UNREACHABLE:
			worker->next_look = GetCurrentTimestamp();
			break;
		case KAFKA_COMMITTED:
			take_answer(worker, &event);
			break;
		case KAFKA_RETENTION:
			worker->retention = event.retention;
			strlcpy(worker->retention_error, event.error, sizeof(worker->retention_error));
			worker->retention_told = true;
			break;
	}
	if (kind == KAFKA_MESSAGE || kind == KAFKA_END_OF_PARTITION)
	{
		worker->last_progress = GetCurrentTimestamp();
		worker->outage[0] = '\0';
		if (TimestampDifferenceExceeds(worker->broker_error_at, worker->last_progress, ERROR_LIFE))
			worker->broker_error[0] = '\0';
		partition = partition_find(worker, event.partition);
		if (partition)
			partition->heard_at = worker->last_progress;
	}
	return true;
}
