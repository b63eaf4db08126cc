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
#include "ingest/database_identity.h"
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
#define RETENTION_INTERVAL	600000	/* between questions for how long the topic keeps messages */
#define BACKLOG_INTERVAL	1000	/* between looks at the queue of tasks */

PGDLLEXPORT void imgpipe_ingest_main(Datum argument);

static IngestWorker *worker = NULL;

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

static void
show_outage(void)
{
	worker_held_up(worker->broker_error[0] ? psprintf("%s (%s)", worker->outage, worker->broker_error) : worker->outage);
}

static void
batch_begin(void)
{
	IngestBatch *batch = &worker->batch;
	MemoryContext caller;

	batch->held = NULL;
	MemoryContextReset(batch->context);
	caller = MemoryContextSwitchTo(batch->context);
	batch->messages = palloc(mul_size(worker->source->batch_rows, sizeof(IngestMessage)));
	batch->n = batch->written = 0;
	batch->bytes = 0;
	batch->began = 0;
	batch->held = kafka_batch_create(worker->source->batch_rows);
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
	worker->batch.held = NULL;
	worker->outage[0] = worker->broker_error[0] = '\0';
	worker->told_at = 0;
	worker->telling = false;
	worker->retention_asked_at = 0;
	worker->retention_told = false;
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
	worker->client = kafka_client_open(settings, n, source->topic,
									   source->consumer_group ? source->consumer_group : group,
									   source->batch_bytes);
	MemoryContextSwitchTo(worker->context);
}

static bool
started_here(const IngestSource *source)
{
	return source->started_in[0] == '\0' || strcmp(source->started_in, database_identity()) == 0;
}

/* Ends the worker where the source is off, gone or not what the session began with. */
static void
check_source(void)
{
	IngestSource *source = source_read(worker->arguments->object);

	if (source == NULL || strcmp(source->version, worker->source->version) != 0)
		proc_exit(0);
}

/* Offsets of one cluster mean nothing in another. */
static bool
cluster_is_the_same(void)
{
	char	   *cluster_id = kafka_client_cluster(worker->client, QUESTION_TIMEOUT);

	if (cluster_id == NULL)
		return true;
	if (worker->source->cluster_id == NULL)
	{
		source_set_cluster(worker, cluster_id);
		worker->source->cluster_id = MemoryContextStrdup(worker->session, cluster_id);
	}
	if (strcmp(cluster_id, worker->source->cluster_id) == 0)
		return true;
	worker_held_up(psprintf("server \"%s\" leads to Kafka cluster %s now, and source \"%s\" was ingested from %s: "
						  "imgpipe.seek_source() says where to go on there",
						  worker->source->server, cluster_id, worker->source->name, worker->source->cluster_id));
	return false;
}

/* For how long Kafka keeps what is purged here: its answer comes as an event. */
static void
look_at_retention(void)
{
	TimestampTz now = GetCurrentTimestamp();

	if (worker->arguments->slice != 0)
		return;
	if (worker->retention_told)
		retention_show(worker);
	worker->retention_told = false;
	if (TimestampDifferenceExceeds(worker->retention_asked_at, now, RETENTION_INTERVAL))
	{
		kafka_client_ask_retention(worker->client);
		worker->retention_asked_at = now;
	}
}

/* Where Kafka does not answer, the session begins anew, with a look at everything. */
static bool
assign(void)
{
	if (partitions_assign(worker))
		return true;
	show_outage();
	session_end();
	return false;
}

/* False where something that may pass is in the way. */
static bool
session_begin(void)
{
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
			worker_held_up(psprintf("source \"%s\" was started in another database, of which this is a copy: "
								  "SELECT imgpipe.adopt_source('%s') has it ingest here too",
								  worker->source->name, worker->source->name));
			session_end();
			return false;
		}
		if (!worker->source->may_use_server)
		{
			worker_held_up(psprintf("permission denied for foreign server %s: its owner can GRANT USAGE to %s",
								  worker->source->server, worker->source->owner_name));
			session_end();
			return false;
		}
	}
	if (worker->client == NULL)
		client_open();
	if (!positions_load(worker, worker->outage))
	{
		/* The library has the better words for why it cannot connect. */
		batch_begin();
		while (take_event(worker))
			;
		show_outage();
		return false;
	}
	worker->outage[0] = '\0';
	if (!cluster_is_the_same())
	{
		session_end();
		return false;
	}
	if (!assign())
		return false;
	look_at_retention();
	worker->chunks_due = true;
	batch_begin();
	worker->blocked_since = worker->next_look = GetCurrentTimestamp();
	worker->next_look = TimestampTzPlusMilliseconds(worker->next_look, LOOK_INTERVAL);
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
		total += Max(0, Min(kafka_client_high_watermark(worker->client, worker->partitions[i].partition),
							worker->partitions[i].end_offset) - worker->partitions[i].next_offset);
	return total;
}

/* What source_status shows: the truth, a stall included. */
static void
show_state(void)
{
	bool		caught_up = true;
	char	   *stalled = NULL;
	int			i;

	slot_set_lag(lag());
	slot_count(0, 0, 0);		/* lets the rates fall while nothing comes */
	tell_positions(worker);
	if (worker->outage[0] != '\0')
	{
		show_outage();
		return;
	}
	for (i = 0; i < worker->n_partitions; i++)
	{
		if (worker->partitions[i].error[0] != '\0')
		{
			worker_held_up(worker->partitions[i].error);
			return;
		}
		caught_up = caught_up && worker->partitions[i].at_end;
	}
	for (i = 0; i < worker->n_partitions; i++)
	{
		const IngestPartition *partition = &worker->partitions[i];
		int64		rest = Min(kafka_client_high_watermark(worker->client, partition->partition),
							   partition->end_offset) - partition->fetched_offset;

		/* Others may go on all the while. */
		if (rest <= 0 || !TimestampDifferenceExceeds(partition->heard_at, GetCurrentTimestamp(), STALL_TIMEOUT))
			continue;
		stalled = psprintf("no message has come from partition %d of topic \"%s\" for %d seconds although " INT64_FORMAT " are there%s%s",
						   partition->partition, worker->source->topic, STALL_TIMEOUT / 1000, rest,
						   worker->broker_error[0] ? ": " : "", worker->broker_error);
		break;
	}
	if (stalled != NULL)
	{
		worker_held_up(stalled);
		if (worker->batch.n == 0 &&
			TimestampDifferenceExceeds(worker->last_progress, GetCurrentTimestamp(), STALL_TIMEOUT))
			session_end();
		return;
	}
	worker_goes_on(caught_up ? WORKER_IDLE : WORKER_RUNNING);
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

		if (take_event(worker))
		{
			if (worker->assignment_stale)
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
			if (worker->client == NULL || now >= worker->next_look)
				return;
			rest = Min(TimestampDifferenceMilliseconds(now, worker->next_look), 1000);
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

		worker->assignment_stale |= partition->blocked;
		partition->suspect |= partition->blocked;
		partition->blocked = false;
	}
	worker->blocked_since = GetCurrentTimestamp();
}

/* The look at source and topic, with nothing in hand. */
static void
look(void)
{
	KafkaTopic	topic;
	bool		fine;
	int			i;

	check_source();
	fine = kafka_client_topic(worker->client, QUESTION_TIMEOUT, &topic, worker->outage);
	for (i = 0; i < worker->n_partitions; i++)
	{
		/* Whatever comes back after an outage proves first that it is the same. */
		if (!fine)
			worker->partitions[i].suspect = true;
		else if (worker->partitions[i].suspect && !worker->partitions[i].verifying)
			worker->assignment_stale = true;
	}
	if (fine && topic.n_partitions != worker->n_topic_partitions)
	{
		fine = positions_load(worker, worker->outage);
		worker->assignment_stale = true;
	}
	if (fine && topic.leaderless >= 0)
	{
		fine = false;
		snprintf(worker->outage, sizeof(worker->outage), "partition %d of topic \"%s\" has no leader",
				 topic.leaderless, worker->source->topic);
	}
	if (fine)
		worker->outage[0] = '\0';
	if (fine && !cluster_is_the_same())
	{
		session_end();
		return;
	}
	if (fine)
		fine = partitions_compare(worker);
	if (lag() > 0)
		positions_show_ends(worker);
	if (fine)
		look_at_retention();
	worker->chunks_due = true;
	if (TimestampDifferenceExceeds(worker->blocked_since, GetCurrentTimestamp(), BLOCKED_INTERVAL))
		unblock_all();
	worker->next_look = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), fine ? LOOK_INTERVAL : OUTAGE_INTERVAL);
}

/* Whether the queue is too long: then rests a while; Kafka keeps what comes meanwhile. */
static bool
rests(void)
{
	if (!backlog_is_long(worker->source))
		return false;
	slot_set_lag(lag());
	worker_goes_on(WORKER_WAITING);
	worker_sleep(BACKLOG_INTERVAL, wait_event_idle());
	worker->last_progress = GetCurrentTimestamp();
	if (worker->last_progress >= worker->next_look)
		look();
	return true;
}

/* One turn; false where it is to be tried again after a while. */
static bool
turn(void)
{
	char		error[KAFKA_ERROR_SIZE];

	if (worker->client == NULL || worker->partitions == NULL)
		return session_begin();
	if (worker->batch.held == NULL)
		batch_begin();
	if (worker->chunks_due && !chunks_settle(worker, error))
	{
		worker_held_up(error);
		return false;
	}

	if (!batch_has_news())
	{
		/* The last one to be through ends it; check_source() ends the others. */
		if (worker->source->replay && replay_is_over(worker))
			check_source();
		if (rests())
			return worker->client != NULL;
		if (worker->assignment_stale && !assign())
			return false;
		collect();
	}
	if (worker->client == NULL)
		return false;
	if (batch_has_news())
	{
		if (!batch_probe(worker, error))
		{
			worker_held_up(error);
			return false;
		}
		batch_write(worker);
		batch_begin();
		worker->last_progress = GetCurrentTimestamp();
		show_state();
	}
	if (worker->client != NULL && GetCurrentTimestamp() >= worker->next_look)
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
		worker_held_up(error->detail ? psprintf("%s: %s", error->message, error->detail) : error->message);
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
	worker->assembly = AllocSetContextCreate(TopMemoryContext, "imgpipe ingest assembly", ALLOCSET_DEFAULT_SIZES);
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
