/*
 * ingest_worker.c
 *		The ingest worker: one slice of one source's partitions.
 *
 * The controller starts it as the source's owner.  In turns it fetches a batch
 * and writes it (ingest_batch.c); every few seconds, between two batches, it
 * looks whether the source is as it was and whether the topic has grown.
 *
 * What can be foreseen to go wrong is waited out here: brokers that cannot be
 * reached, a decoder that does not start, and every error of a transaction
 * that is neither a message's fault nor a sign of our own.  The batch in hand
 * is kept and tried again.  The slot says "retrying" and why for as long as it
 * lasts; nothing is skipped.  The worker ends
 *
 * - with 0 where the source is off, gone, or changed in any way (the
 *	 controller starts another, with the new settings, where it is on);
 * - with 1 after any other error, fencing among them; the controller starts
 *	 another after its back-off, and that begins with what the tables say.
 */
#include "postgres.h"

#include "access/xact.h"
#include "ingest/ingest.h"
#include "ingest/ingest_message.h"
#include "ingest/kafka_options.h"
#include "miscadmin.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "workers/shared_state.h"

/* All in ms. */
#define LOOK_INTERVAL		10000	/* between looks at source and topic */
#define OUTAGE_INTERVAL		2000	/* the same while something is wrong */
#define BLOCKED_INTERVAL	60000	/* until a blocked partition is tried again */
#define STALL_TIMEOUT		30000	/* without a message although some are there */
#define FIRST_BACKOFF		200
#define LAST_BACKOFF		10000
#define QUESTION_TIMEOUT	1000

PGDLLEXPORT void imgpipe_ingest_main(Datum argument);

static IngestWorker *worker = NULL;

/* Of the broker connection; all reset by session_end(). */
static TimestampTz next_look;
static TimestampTz blocked_since;
static TimestampTz last_progress;
static bool assignment_stale;
static bool unreachable;		/* the look at the topic failed, or no broker is up */
static char broker_error[KAFKA_ERROR_SIZE];

static char reported[KAFKA_ERROR_SIZE];	/* the problem that the log knows of */

/* Ends the worker where the controller asks for it; outside of transactions. */
void
ingest_check_stop(void)
{
	bool		stop;

	CHECK_FOR_INTERRUPTS();
	SpinLockAcquire(&my_slot->mutex);
	stop = my_slot->stop_requested;
	SpinLockRelease(&my_slot->mutex);
	if (stop)
		proc_exit(0);
}

/* Shows a problem in source_status, and once in the log. */
static void
show_problem(const char *problem)
{
	slot_set_error(WORKER_RETRYING, problem);
	if (strncmp(problem, reported, sizeof(reported) - 1) == 0)
		return;
	strlcpy(reported, problem, sizeof(reported));
	ereport(LOG,
			(errmsg("imgpipe ingest is held up: %s", problem)));
}

static void
problem_over(WorkerState state)
{
	slot_set_state(state);
	if (reported[0] != '\0')
		ereport(LOG,
				(errmsg("imgpipe ingest goes on")));
	reported[0] = '\0';
}

static void
batch_begin(void)
{
	IngestBatch *batch = &worker->batch;
	MemoryContext caller;

	MemoryContextReset(batch->context);
	caller = MemoryContextSwitchTo(batch->context);
	batch->held = kafka_batch_create(worker->source->batch_rows);
	batch->messages = palloc(mul_size(worker->source->batch_rows, sizeof(IngestMessage)));
	batch->n = batch->written = 0;
	batch->bytes = 0;
	MemoryContextSwitchTo(caller);
}

/* Drops the client and everything fetched; the next session begins with the tables. */
static void
session_end(void)
{
	worker->client = NULL;
	worker->source = NULL;
	worker->partitions = NULL;
	worker->n_partitions = 0;
	MemoryContextReset(worker->session);
	worker->batch.context = AllocSetContextCreate(worker->session, "imgpipe ingest batch",
												  ALLOCSET_DEFAULT_SIZES);
	worker->batch.n = worker->batch.written = 0;
	unreachable = false;
	broker_error[0] = '\0';
}

/* No library thread may be left when exit() runs its handlers. */
static void
end_at_exit(int code, Datum argument)
{
	if (worker->session)
		MemoryContextDelete(worker->session);
	worker->session = NULL;
}

static void
client_open(void)
{
	const IngestSource *source = worker->source;
	KafkaSetting *settings;
	char		group[64];
	int			n;

	worker_transaction_begin("reading the Kafka options");
	MemoryContextSwitchTo(worker->session);
	n = kafka_settings(source->server, source->owner, &settings);
	worker_transaction_commit();

	MemoryContextSwitchTo(worker->session);
	snprintf(group, sizeof(group), "imgpipe-%u-%d", MyDatabaseId, worker->arguments->object);
	worker->client = kafka_client_open(settings, n, source->topic, group, source->batch_bytes);
	MemoryContextSwitchTo(worker->context);
}

/*
 * Every partition begins at its position, or, where it may not be the one that
 * it was, at its last ingested message: that must be there and be the same, or
 * the topic was made anew and its offsets mean something else.
 */
static void
assign(void)
{
	int32	   *partitions = palloc(sizeof(int32) * Max(worker->n_partitions, 1));
	int64	   *offsets = palloc(sizeof(int64) * Max(worker->n_partitions, 1));
	int			n = 0;
	int			i;

	for (i = 0; i < worker->n_partitions; i++)
	{
		IngestPartition *partition = &worker->partitions[i];

		partition->fetched_offset = partition->next_offset;
		partition->at_end = false;
		partition->suspect = partition->suspect && partition->last_offset >= 0;
		partition->verifying = partition->suspect;
		if (partition->blocked)
			continue;
		partitions[n] = partition->partition;
		offsets[n] = partition->verifying ? partition->last_offset : partition->next_offset;
		n++;
	}
	kafka_client_assign(worker->client, n, partitions, offsets);
	pfree(partitions);
	pfree(offsets);
	assignment_stale = false;
	last_progress = GetCurrentTimestamp();
}

/* This cluster's and database's name for themselves; see database_identity(). */
static bool
started_here(const IngestSource *source)
{
	char		identity[64];

	snprintf(identity, sizeof(identity), UINT64_FORMAT "/%u", GetSystemIdentifier(), MyDatabaseId);
	return source->started_in[0] == '\0' || strcmp(source->started_in, identity) == 0;
}

static void
block(IngestPartition *partition, const char *reason)
{
	partition->blocked = true;
	strlcpy(partition->error, reason, sizeof(partition->error));
	assignment_stale = true;
	blocked_since = GetCurrentTimestamp();
}

static void
block_changed_topic(IngestPartition *partition)
{
	block(partition,
		  psprintf("partition %d of topic \"%s\" is not what was ingested up to offset " INT64_FORMAT
				   ": the topic was made anew, or the server is another one; "
				   "imgpipe.set_source_position() says where to go on",
				   partition->partition, worker->source->topic, partition->next_offset));
}

/*
 * The first thing that comes while the last ingested message is read again.
 * True where it is that message and therefore none for the batch.
 */
static bool
verify_message(IngestPartition *partition, const KafkaMessage *message)
{
	partition->suspect = partition->verifying = false;
	if (message->offset != partition->last_offset)
		return message->offset < partition->next_offset;	/* compacted since */
	if (message_timestamp(message) != partition->last_timestamp)
		block_changed_topic(partition);
	return true;
}

/* Where it is not, what comes from it is left alone until it is assigned again. */
static bool
is_trusted(const IngestPartition *partition)
{
	if (partition == NULL || partition->blocked)
		return false;
	if (!partition->suspect || partition->verifying)
		return true;
	assignment_stale = true;
	return false;
}

static void
take_message(KafkaEvent *event)
{
	IngestBatch *batch = &worker->batch;
	IngestPartition *partition = partition_find(worker, event->partition);
	IngestMessage *message;

	if (!is_trusted(partition) ||
		(partition->verifying && verify_message(partition, &event->message)) ||
		event->offset < partition->fetched_offset)
	{
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
take_end(const KafkaEvent *event)
{
	IngestPartition *partition = partition_find(worker, event->partition);

	if (!is_trusted(partition))
		return;
	if (partition->verifying && event->offset < partition->next_offset)
	{
		block_changed_topic(partition);
		return;
	}
	partition->suspect = partition->verifying = false;
	partition->at_end = true;
	partition->error[0] = '\0';
	/* Over control records and what was compacted away. */
	partition->fetched_offset = Max(partition->fetched_offset, event->offset);
}

static void
take_out_of_range(const KafkaEvent *event)
{
	IngestPartition *partition = partition_find(worker, event->partition);

	if (partition == NULL)
		return;
	if (partition->verifying)
	{
		/* The last message was deleted in the meantime: begin behind it. */
		partition->suspect = false;
		assignment_stale = true;
		return;
	}
	block(partition,
		  psprintf("offset " INT64_FORMAT " of partition %d of topic \"%s\" does not exist: messages were deleted "
				   "before they were ingested, or the topic was made anew; "
				   "imgpipe.set_source_position() says where to go on",
				   partition->fetched_offset, partition->partition, worker->source->topic));
}

/* One event; false where nothing is waiting. */
static bool
take_event(void)
{
	KafkaEvent	event;
	KafkaEventKind kind = kafka_client_poll(worker->client, worker->batch.held, &event);
	IngestPartition *partition;

	switch (kind)
	{
		case KAFKA_NOTHING:
			return false;
		case KAFKA_MESSAGE:
			take_message(&event);
			break;
		case KAFKA_END_OF_PARTITION:
			take_end(&event);
			break;
		case KAFKA_OUT_OF_RANGE:
			take_out_of_range(&event);
			break;
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
			strlcpy(broker_error, event.error, sizeof(broker_error));
			next_look = GetCurrentTimestamp();
			break;
		case KAFKA_UNREACHABLE:
			next_look = GetCurrentTimestamp();
			break;
	}
	if (kind == KAFKA_MESSAGE || kind == KAFKA_END_OF_PARTITION)
	{
		last_progress = GetCurrentTimestamp();
		unreachable = false;
	}
	return true;
}

/* Ends the worker where the source is off, gone or not what the session began with. */
static void
check_source(void)
{
	IngestSource *source = source_read(worker->arguments->object);

	if (source == NULL || strcmp(source->version, worker->source->version) != 0)
		proc_exit(0);
}

/* False where something that may pass is in the way. */
static bool
session_begin(void)
{
	char		error[KAFKA_ERROR_SIZE];

	if (worker->source != NULL)
		check_source();
	else
	{
		MemoryContextSwitchTo(worker->session);
		worker->source = source_read(worker->arguments->object);
		MemoryContextSwitchTo(worker->context);
		if (worker->source == NULL || worker->source->owner != worker->arguments->role)
			proc_exit(0);
		if (!started_here(worker->source))
		{
			show_problem(psprintf("source \"%s\" was started in another database, of which this is a copy: "
								  "SELECT imgpipe.start_source('%s') has it ingest here too",
								  worker->source->name, worker->source->name));
			session_end();
			return false;
		}
		if (!worker->source->may_use_server)
		{
			show_problem(psprintf("permission denied for foreign server %s: its owner can GRANT USAGE to %s",
								  worker->source->server, worker->source->owner_name));
			session_end();
			return false;
		}
	}
	if (worker->client == NULL)
		client_open();
	if (!positions_load(worker, error))
	{
		/* The library has the better words for why it cannot connect. */
		batch_begin();
		while (take_event())
			;
		show_problem(broker_error[0] ? psprintf("%s: %s", error, broker_error) : error);
		return false;
	}
	assign();
	batch_begin();
	blocked_since = next_look = GetCurrentTimestamp();
	next_look = TimestampTzPlusMilliseconds(next_look, LOOK_INTERVAL);
	return true;
}

/* Something was read that the table does not know of yet. */
static bool
batch_has_news(void)
{
	int			i;

	if (worker->batch.n > worker->batch.written)
		return true;
	for (i = 0; i < worker->n_partitions; i++)
		if (worker->partitions[i].fetched_offset > worker->partitions[i].next_offset)
			return true;
	return false;
}

static int64
lag(void)
{
	int64		total = 0;
	int			i;

	for (i = 0; i < worker->n_partitions; i++)
		total += Max(0, kafka_client_high_watermark(worker->client, worker->partitions[i].partition) -
					 worker->partitions[i].next_offset);
	return total;
}

/* What source_status shows: the truth, a stall included. */
static void
show_state(void)
{
	bool		caught_up = true;
	int64		behind = lag();
	int			i;

	slot_set_lag(behind);
	if (unreachable)
	{
		show_problem(broker_error[0] ? psprintf("no Kafka broker can be reached: %s", broker_error) :
					 "no Kafka broker can be reached");
		return;
	}
	for (i = 0; i < worker->n_partitions; i++)
	{
		if (worker->partitions[i].error[0] != '\0')
		{
			show_problem(worker->partitions[i].error);
			return;
		}
		caught_up = caught_up && worker->partitions[i].at_end;
	}
	if (behind > 0 && worker->batch.n == 0 &&
		TimestampDifferenceExceeds(last_progress, GetCurrentTimestamp(), STALL_TIMEOUT))
	{
		show_problem(psprintf("no message has come from topic \"%s\" for %d seconds although " INT64_FORMAT " are there",
							  worker->source->topic, STALL_TIMEOUT / 1000, behind));
		session_end();
		return;
	}
	problem_over(caught_up ? WORKER_IDLE : WORKER_RUNNING);
}

/*
 * Fills the batch: until it is full, has waited linger_ms, or, while it is
 * empty, it is time to look after other things.
 */
static void
collect(void)
{
	IngestBatch *batch = &worker->batch;
	const IngestSource *source = worker->source;
	TimestampTz complete_at = 0;

	while (batch->n < source->batch_rows && batch->bytes < source->batch_bytes)
	{
		TimestampTz now;
		long		rest;

		if (take_event())
		{
			if (assignment_stale)
				break;
			continue;
		}
		ingest_check_stop();
		now = GetCurrentTimestamp();
		if (batch_has_news())
		{
			if (complete_at == 0)
				complete_at = TimestampTzPlusMilliseconds(now, source->linger_ms);
			if (now >= complete_at)
				break;
			rest = TimestampDifferenceMilliseconds(now, complete_at);
		}
		else
		{
			show_state();
			if (worker->client == NULL || now >= next_look)
				return;
			rest = Min(TimestampDifferenceMilliseconds(now, next_look), 1000);
		}
		kafka_client_wait(worker->client, Max(rest, 1), wait_event_kafka());
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
		}
	}
	kafka_client_resume(worker->client);
}

static void
unblock_all(void)
{
	int			i;

	for (i = 0; i < worker->n_partitions; i++)
	{
		IngestPartition *partition = &worker->partitions[i];

		assignment_stale |= partition->blocked;
		partition->suspect |= partition->blocked;
		partition->blocked = false;
	}
	blocked_since = GetCurrentTimestamp();
}

/* The look at source and topic, with nothing in hand. */
static void
look(void)
{
	KafkaTopic	topic;
	char		error[KAFKA_ERROR_SIZE];
	bool		fine;
	int			i;

	check_source();
	fine = kafka_client_topic(worker->client, QUESTION_TIMEOUT, &topic, error);
	unreachable = !fine;
	if (!fine && broker_error[0] == '\0')
		strlcpy(broker_error, error, sizeof(broker_error));
	for (i = 0; i < worker->n_partitions; i++)
	{
		/* Whatever comes back after an outage proves first that it is the same. */
		if (!fine)
			worker->partitions[i].suspect = true;
		else if (worker->partitions[i].suspect && !worker->partitions[i].verifying)
			assignment_stale = true;
	}
	if (fine)
	{
		broker_error[0] = '\0';
		if (topic.leaderless >= 0)
		{
			unreachable = true;
			fine = false;
			snprintf(broker_error, sizeof(broker_error), "partition %d of topic \"%s\" has no leader",
					 topic.leaderless, worker->source->topic);
		}
		if (topic.n_partitions != worker->n_topic_partitions)
		{
			fine = positions_load(worker, error);
			assignment_stale = true;
		}
		if (TimestampDifferenceExceeds(blocked_since, GetCurrentTimestamp(), BLOCKED_INTERVAL))
			unblock_all();
	}
	next_look = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), fine ? LOOK_INTERVAL : OUTAGE_INTERVAL);
}

/* One turn; false where it is to be tried again after a while. */
static bool
turn(void)
{
	char		error[KAFKA_ERROR_SIZE];

	if (worker->client == NULL || worker->partitions == NULL)
		return session_begin();

	if (!batch_has_news())
	{
		if (assignment_stale)
			assign();
		collect();
	}
	if (worker->client == NULL)
		return false;
	if (batch_has_news())
	{
		if (!batch_probe(worker, error))
		{
			show_problem(error);
			return false;
		}
		batch_write(worker);
		batch_begin();
		show_state();
	}
	if (worker->client != NULL && GetCurrentTimestamp() >= next_look)
		look();
	return worker->client != NULL;
}

/*
 * Errors that the world is to blame for.  Internal errors and fencing are not
 * among them: then our own memory cannot be trusted.
 */
static bool
may_pass(const ErrorData *error)
{
	return !worker->fenced && ERRCODE_TO_CATEGORY(error->sqlerrcode) != ERRCODE_INTERNAL_ERROR;
}

/* turn(), with its errors shown; false for these as well. */
static bool
guarded_turn(void)
{
	volatile bool done = false;

	PG_TRY();
	{
		done = turn();
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(worker->context);
		error = CopyErrorData();
		FlushErrorState();
		worker_transaction_abort();
		if (!may_pass(error))
			ReThrowError(error);
		if (worker->partitions == NULL)
			session_end();
		show_problem(error->detail ? psprintf("%s: %s", error->message, error->detail) : error->message);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(worker->context);
	return done;
}

void
imgpipe_ingest_main(Datum argument)
{
	const WorkerArguments *arguments = worker_start();
	long		backoff = FIRST_BACKOFF;

	worker = MemoryContextAllocZero(TopMemoryContext, sizeof(IngestWorker));
	worker->arguments = arguments;
	worker->context = AllocSetContextCreate(TopMemoryContext, "imgpipe ingest", ALLOCSET_DEFAULT_SIZES);
	worker->session = AllocSetContextCreate(TopMemoryContext, "imgpipe ingest session", ALLOCSET_DEFAULT_SIZES);
	worker->row = AllocSetContextCreate(TopMemoryContext, "imgpipe ingest row", ALLOCSET_DEFAULT_SIZES);
	on_proc_exit(end_at_exit, (Datum) 0);
	MemoryContextSwitchTo(worker->context);
	session_end();

	for (;;)
	{
		if (guarded_turn())
			backoff = FIRST_BACKOFF;
		else
		{
			if (worker->client != NULL)
				slot_set_lag(lag());
			worker_sleep(backoff, wait_event_idle());
			backoff = Min(backoff * 2, LAST_BACKOFF);
		}
		ingest_check_stop();
		MemoryContextReset(worker->context);
	}
}
