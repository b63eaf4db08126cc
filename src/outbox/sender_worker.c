/*
 * sender_worker.c
 *		The sender: takes messages of one Kafka server and role from the outbox
 *		to Kafka.
 *
 * The controller starts it, as that role, when there is something to send.  In
 * turns it reads the next messages, sends them, waits with no transaction open
 * until all of them are acknowledged, and deletes them.  So a message may arrive
 * twice where this process dies in between, and none is lost.
 *
 * Order.  Messages are sent by message_id, the next ones only when those before
 * are settled, and the producer keeps the order of what it has in hand.  An advisory lock
 * keeps a second sender away.  What Kafka will never take (too large) is marked
 * and passed over.  What it does not take for now stays: a topic that is not there or not
 * allowed holds up its own messages only, a broker that is away holds up all.
 *
 * It ends with 0 when nothing was to be sent for a while, and with 1 after an
 * error that is not expected; the controller starts another after a back-off.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "ingest/kafka_options.h"
#include "ingest/kafka_producer.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/lock.h"
#include "storage/lmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"
#include "workers/shared_state.h"
#include "workers/worker.h"

#define MOST_MESSAGES		500		/* in hand at once; bytes, unless one message is larger */
#define MOST_BYTES			(8 * 1024 * 1024)

/* All in ms. */
#define IDLE_POLL			1000	/* who writes to the outbox wakes us; this is for what waits for its key */
#define IDLE_END			60000
#define LOOK_INTERVAL		5000	/* between looks at the sender while waiting for Kafka */
#define SILENCE				30000	/* without an answer, before that is shown as a problem */
#define FIRST_BACKOFF		200
#define LAST_BACKOFF		10000

/* No class of SQL's own advisory locks, so that nobody else can take it. */
#define LOCK_CLASS			3
#define SENDER_LOCK			1

PGDLLEXPORT void imgpipe_sender_main(Datum argument);

typedef struct Sender
{
	char	   *server;
	Oid			owner;
	char	   *owner_name;
	bool		may_use_server;
	bool		started_here;
	char	   *version;		/* changes with everything that the producer rests on */
} Sender;

typedef struct OutboxMessage
{
	int64		message_id;
	pg_uuid_t	image_id;
	KafkaRecord record;
	KafkaReportKind outcome;
	char	   *error;
} OutboxMessage;

/* A topic that takes nothing for now. */
typedef struct HeldTopic
{
	char	   *name;
	char	   *error;
	long		backoff;
	TimestampTz retry_at;
} HeldTopic;

static const WorkerArguments *arguments;
static MemoryContext turn_context;	/* one turn of the loop */
static MemoryContext session_context;	/* sender, producer, held topics */
static Sender *sender = NULL;
static KafkaProducer *producer = NULL;
static List *held_topics = NIL;
static uint64 sessions = 0;		/* of the producer, counted */
static int	one_by_one = 0;		/* so many are sent alone: a broker refused all of a batch for one */

static void
check_stop(void)
{
	bool		stop;

	CHECK_FOR_INTERRUPTS();
	SpinLockAcquire(&my_slot->mutex);
	stop = my_slot->stop_requested;
	SpinLockRelease(&my_slot->mutex);
	if (stop)
		proc_exit(0);
}

/* No library thread may be left when exit() runs its handlers. */
static void
end_at_exit(int code, Datum argument)
{
	if (session_context)
		MemoryContextDelete(session_context);
	session_context = NULL;
}

/* The sender, in the current memory context, or NULL where it is gone. */
static Sender *
read_sender(void)
{
	MemoryContext caller = CurrentMemoryContext;
	Sender	   *found = NULL;
	InternalScope scope;
	Oid			type = INT4OID;
	Datum		value = Int32GetDatum(arguments->object);

	worker_transaction_begin("reading the sender");
	if (worker_extension_exists())
	{
		internal_begin(&scope);
		if (SPI_execute_with_args("SELECT s.server, s.owner::oid, pg_get_userbyid(s.owner::oid),"
								  " COALESCE(has_server_privilege(s.owner::oid, f.oid, 'USAGE'), true),"
								  " s.started_in = imgpipe.database_identity(),"
								  " concat_ws('/', f.xmin, (SELECT string_agg(m.xmin::text, ',' ORDER BY m.oid)"
								  "   FROM pg_user_mapping m WHERE m.umserver = f.oid AND m.umuser IN (s.owner::oid, 0)))"
								  " FROM imgpipe.senders s LEFT JOIN pg_foreign_server f ON f.srvname = s.server"
								  " WHERE s.sender_id = $1",
								  1, &type, &value, NULL, true, 1) != SPI_OK_SELECT)
			elog(ERROR, "could not read the sender");
		if (SPI_processed == 1)
		{
			HeapTuple	row = SPI_tuptable->vals[0];
			TupleDesc	columns = SPI_tuptable->tupdesc;
			bool		isnull;

			found = MemoryContextAllocZero(caller, sizeof(Sender));
			found->server = MemoryContextStrdup(caller, SPI_getvalue(row, columns, 1));
			found->owner = DatumGetObjectId(SPI_getbinval(row, columns, 2, &isnull));
			found->owner_name = MemoryContextStrdup(caller, SPI_getvalue(row, columns, 3));
			found->may_use_server = DatumGetBool(SPI_getbinval(row, columns, 4, &isnull));
			found->started_here = DatumGetBool(SPI_getbinval(row, columns, 5, &isnull));
			found->version = MemoryContextStrdup(caller, SPI_getvalue(row, columns, 6));
		}
		internal_end(&scope);
	}
	worker_transaction_commit();
	MemoryContextSwitchTo(caller);
	return found;
}

/* What is in hand stays in the outbox. */
static void
session_end(void)
{
	sender = NULL;
	producer = NULL;
	held_topics = NIL;
	MemoryContextReset(session_context);
}

/* A producer that cannot tell any more what arrived is replaced. */
static void
producer_open(void)
{
	KafkaSetting *settings;
	int			n;
	MemoryContext context;

	worker_transaction_begin("reading the Kafka options");
	MemoryContextSwitchTo(turn_context);
	n = kafka_settings(sender->server, sender->owner, &settings);
	worker_transaction_commit();
	context = AllocSetContextCreate(session_context, "imgpipe producer", ALLOCSET_SMALL_SIZES);
	MemoryContextSwitchTo(context);
	producer = kafka_producer_open(settings, n);
	sessions++;
	MemoryContextSwitchTo(turn_context);
}

static void
producer_close(void)
{
	if (producer)
		MemoryContextDelete(GetMemoryChunkContext(producer));
	producer = NULL;
}

/* Whether the sender may send; begins anew where it is not what it was. */
static bool
look(void)
{
	Sender	   *now = read_sender();

	if (now == NULL)
		proc_exit(0);
	if (sender != NULL && strcmp(sender->version, now->version) != 0)
		session_end();
	if (!now->started_here)
	{
		worker_held_up(psprintf("server \"%s\" was sent to from another database, of which this is a copy: "
							  "SELECT imgpipe.adopt_outbox() has it send here too", now->server));
		session_end();
		return false;
	}
	if (!now->may_use_server)
	{
		worker_held_up(psprintf("permission denied for foreign server %s: its owner can GRANT USAGE to %s",
							  now->server, now->owner_name));
		session_end();
		return false;
	}
	if (sender == NULL)
	{
		MemoryContextSwitchTo(session_context);
		sender = palloc(sizeof(Sender));
		*sender = *now;
		sender->server = pstrdup(now->server);
		sender->owner_name = pstrdup(now->owner_name);
		sender->version = pstrdup(now->version);
		MemoryContextSwitchTo(turn_context);
	}
	if (producer == NULL)
		producer_open();
	return true;
}

/* Topics. */

static HeldTopic *
held_topic(const char *name)
{
	ListCell   *cell;

	foreach(cell, held_topics)
	{
		HeldTopic  *topic = lfirst(cell);

		if (strcmp(topic->name, name) == 0)
			return topic;
	}
	return NULL;
}

static void
hold_topic(const char *name, const char *error)
{
	MemoryContext caller = MemoryContextSwitchTo(session_context);
	HeldTopic  *topic = held_topic(name);

	if (topic == NULL)
	{
		topic = palloc0(sizeof(HeldTopic));
		topic->name = pstrdup(name);
		held_topics = lappend(held_topics, topic);
	}
	else
		pfree(topic->error);
	topic->error = pstrdup(error);
	topic->backoff = topic->backoff ? Min(topic->backoff * 2, LAST_BACKOFF) : FIRST_BACKOFF;
	topic->retry_at = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), topic->backoff);
	MemoryContextSwitchTo(caller);
}

static void
release_topic(const char *name)
{
	HeldTopic  *topic = held_topics ? held_topic(name) : NULL;

	if (topic != NULL)
		held_topics = list_delete_ptr(held_topics, topic);
}

/* Names of those that are not to be tried yet, as text[]. */
static Datum
held_names(void)
{
	Datum	   *names = palloc(sizeof(Datum) * (list_length(held_topics) + 1));
	TimestampTz now = GetCurrentTimestamp();
	ListCell   *cell;
	int			n = 0;

	foreach(cell, held_topics)
	{
		HeldTopic  *topic = lfirst(cell);

		if (topic->retry_at > now)
			names[n++] = CStringGetTextDatum(topic->name);
	}
	return PointerGetDatum(construct_array(names, n, TEXTOID, -1, false, TYPALIGN_INT));
}

/* Messages. */

/* Bytes of a bytea, palloc'd, never NULL where it is not null. */
static const char *
bytes_of(Datum value, Size *length)
{
	bytea	   *bytes = DatumGetByteaPP(value);
	char	   *copy;

	*length = VARSIZE_ANY_EXHDR(bytes);
	copy = palloc(*length + 1);
	memcpy(copy, VARDATA_ANY(bytes), *length);
	return copy;
}

/* The headers that the row has, and the one that tells copies of a message. */
static void
read_headers(OutboxMessage *message, Datum names, Datum values)
{
	KafkaRecord *record = &message->record;
	Datum	   *name_elements;
	Datum	   *value_elements;
	bool	   *value_nulls;
	char	   *image_id = DatumGetCString(DirectFunctionCall1(uuid_out, UUIDPGetDatum(&message->image_id)));
	int			n_names;
	int			n_values;
	int			i;

	deconstruct_array(DatumGetArrayTypeP(names), TEXTOID, -1, false, TYPALIGN_INT, &name_elements, NULL, &n_names);
	deconstruct_array(DatumGetArrayTypeP(values), BYTEAOID, -1, false, TYPALIGN_INT,
					  &value_elements, &value_nulls, &n_values);
	record->n_headers = Min(n_names, n_values);
	record->headers = palloc0(sizeof(KafkaHeader) * (record->n_headers + 1));
	for (i = 0; i < record->n_headers; i++)
	{
		record->headers[i].name = TextDatumGetCString(name_elements[i]);
		if (!value_nulls[i])
			record->headers[i].value = bytes_of(value_elements[i], &record->headers[i].length);
	}
	record->headers[i].name = "imgpipe-message-id";
	record->headers[i].value = psprintf("%s-" INT64_FORMAT, image_id, message->message_id);
	record->headers[i].length = strlen(record->headers[i].value);
	record->n_headers++;
}

static void
read_message(HeapTuple row, TupleDesc columns, OutboxMessage *message)
{
	Datum		values[7];
	bool		nulls[7];

	memset(message, 0, sizeof(OutboxMessage));
	heap_deform_tuple(row, columns, values, nulls);
	message->message_id = DatumGetInt64(values[0]);
	message->image_id = *DatumGetUUIDP(values[1]);
	message->record.topic = TextDatumGetCString(values[2]);
	if (!nulls[3])
		message->record.key = bytes_of(values[3], &message->record.key_length);
	if (!nulls[4])
		message->record.value = bytes_of(values[4], &message->record.value_length);
	read_headers(message, values[5], values[6]);
}

/* The next messages, in the current memory context. */
static OutboxMessage *
claim(int *n)
{
	MemoryContext caller = CurrentMemoryContext;
	Oid			types[] = {INT4OID, TEXTARRAYOID, INT4OID, INT8OID};
	Datum		values[] = {
		Int32GetDatum(arguments->object), held_names(),
		Int32GetDatum(one_by_one > 0 ? 1 : MOST_MESSAGES), Int64GetDatum(MOST_BYTES)
	};
	OutboxMessage *messages;
	InternalScope scope;
	int			i;

	worker_transaction_begin("reading messages");
	internal_begin(&scope);
	if (SPI_execute_with_args("SELECT * FROM imgpipe.claim_messages($1, $2, $3, $4)", lengthof(types), types, values,
							  NULL, true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read the outbox");
	MemoryContextSwitchTo(caller);
	*n = SPI_processed;
	messages = palloc(mul_size(Max(*n, 1), sizeof(OutboxMessage)));
	for (i = 0; i < *n; i++)
		read_message(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, &messages[i]);
	internal_end(&scope);
	worker_transaction_commit();
	MemoryContextSwitchTo(caller);
	return messages;
}

static Datum
array_of(Datum *elements, int n, Oid type, int length, bool by_value, char alignment)
{
	return PointerGetDatum(construct_array(elements, n, type, length, by_value, alignment));
}

/*
 * Deletes what arrived and marks what never will.  A crash may undo it, and
 * then they are sent again: it need not be on disk before we go on.
 */
static void
settle(OutboxMessage *messages, int n)
{
	MemoryContext caller = CurrentMemoryContext;
	Oid			types[] = {INT4OID, UUIDARRAYOID, INT8ARRAYOID, INT8OID, UUIDARRAYOID, INT8ARRAYOID, TEXTARRAYOID};
	Datum		values[lengthof(types)];
	Datum	   *sent_images = palloc(sizeof(Datum) * n);
	Datum	   *sent = palloc(sizeof(Datum) * n);
	Datum	   *refused_images = palloc(sizeof(Datum) * n);
	Datum	   *refused = palloc(sizeof(Datum) * n);
	Datum	   *errors = palloc(sizeof(Datum) * n);
	int			n_sent = 0;
	int			n_refused = 0;
	int64		bytes = 0;
	InternalScope scope;
	int			i;

	for (i = 0; i < n; i++)
	{
		OutboxMessage *message = &messages[i];

		if (message->outcome == KAFKA_DELIVERED)
		{
			sent_images[n_sent] = UUIDPGetDatum(&message->image_id);
			sent[n_sent++] = Int64GetDatum(message->message_id);
			bytes += message->record.value_length;
		}
		else if (message->outcome == KAFKA_REFUSED)
		{
			refused_images[n_refused] = UUIDPGetDatum(&message->image_id);
			refused[n_refused] = Int64GetDatum(message->message_id);
			errors[n_refused++] = CStringGetTextDatum(message->error);
			ereport(LOG,
					(errmsg("imgpipe: Kafka refused message " INT64_FORMAT " for topic \"%s\": %s",
							message->message_id, message->record.topic, message->error)));
		}
	}
	if (n_sent + n_refused == 0)
		return;
	values[0] = Int32GetDatum(arguments->object);
	values[1] = array_of(sent_images, n_sent, UUIDOID, UUID_LEN, false, TYPALIGN_CHAR);
	values[2] = array_of(sent, n_sent, INT8OID, 8, FLOAT8PASSBYVAL, TYPALIGN_DOUBLE);
	values[3] = Int64GetDatum(bytes);
	values[4] = array_of(refused_images, n_refused, UUIDOID, UUID_LEN, false, TYPALIGN_CHAR);
	values[5] = array_of(refused, n_refused, INT8OID, 8, FLOAT8PASSBYVAL, TYPALIGN_DOUBLE);
	values[6] = array_of(errors, n_refused, TEXTOID, -1, false, TYPALIGN_INT);
	worker_transaction_begin("deleting messages that were sent");
	internal_begin(&scope);
	if (SPI_execute_with_args("SELECT imgpipe.settle_messages($1, $2, $3, $4, $5, $6, $7)", lengthof(types), types, values,
							  NULL, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not write to the outbox");
	internal_end(&scope);
	worker_transaction_commit();
	MemoryContextSwitchTo(caller);
	slot_count(n_sent, bytes, n_refused);
}

static void
set_outcome(OutboxMessage *message, KafkaReportKind kind, const char *error)
{
	message->outcome = kind;
	if (kind != KAFKA_DELIVERED)
		message->error = MemoryContextStrdup(turn_context, error);
}

/*
 * Hands the messages over and waits for all reports, for as long as it takes.
 * False where the sender is not what it was: what has no report by then is sent
 * again.
 */
static bool
send(OutboxMessage *messages, int n)
{
	TimestampTz heard_at = GetCurrentTimestamp();
	TimestampTz looked_at = heard_at;
	int			missing = 0;
	int			i;

	for (i = 0; i < n; i++)
	{
		char		error[KAFKA_ERROR_SIZE];
		KafkaReportKind kind = kafka_producer_send(producer, &messages[i].record, i, error);

		if (kind == KAFKA_NO_REPORT)
			missing++;
		else
			set_outcome(&messages[i], kind, error);
	}
	while (missing > 0)
	{
		KafkaReport report;

		while (kafka_producer_poll(producer, &report) != KAFKA_NO_REPORT)
		{
			if (report.kind == KAFKA_HELD_UP)
			{
				worker_held_up(psprintf("Kafka does not take messages: %s", report.error));
				continue;
			}
			set_outcome(&messages[report.number], report.kind, report.error);
			heard_at = GetCurrentTimestamp();
			missing--;
		}
		if (missing == 0)
			break;
		check_stop();
		if (TimestampDifferenceExceeds(heard_at, GetCurrentTimestamp(), SILENCE) && !worker_is_held_up())
			worker_held_up("Kafka has not answered for 30 seconds");
		if (TimestampDifferenceExceeds(looked_at, GetCurrentTimestamp(), LOOK_INTERVAL))
		{
			uint64		session = sessions;

			if (!look() || sessions != session)
				return false;
			looked_at = GetCurrentTimestamp();
		}
		kafka_producer_wait(producer, 1000, wait_event_acknowledgement());
	}
	return true;
}

/* What the outcomes mean for the turns to come. */
static void
judge(OutboxMessage *messages, int n)
{
	bool		undelivered = false;
	int			n_refused = 0;
	int			i;

	for (i = 0; i < n; i++)
	{
		OutboxMessage *message = &messages[i];

		if (message->outcome == KAFKA_DELIVERED && held_topics != NIL)
			release_topic(message->record.topic);
		if (message->outcome == KAFKA_REFUSED && n > 1)
		{
			/* It may have been refused along with another one: alone it is sure. */
			message->outcome = KAFKA_NO_REPORT;
			n_refused++;
		}
		else if (message->outcome == KAFKA_UNDELIVERED)
			undelivered = true;
	}
	for (i = 0; undelivered && i < n; i++)
	{
		HeldTopic  *topic;

		if (messages[i].outcome != KAFKA_UNDELIVERED)
			continue;
		topic = held_topic(messages[i].record.topic);
		if (topic == NULL || topic->retry_at <= GetCurrentTimestamp())
			hold_topic(messages[i].record.topic, messages[i].error);
	}
	one_by_one = n > 1 ? n_refused : Max(one_by_one - 1, 0);

	/* After some errors the library can go on only from a clean start, and topics are looked up anew. */
	if (undelivered)
		producer_close();
}

static void
show_state(WorkerState state)
{
	if (held_topics != NIL)
	{
		HeldTopic  *topic = linitial(held_topics);

		worker_held_up(psprintf("topic \"%s\" does not take messages: %s", topic->name, topic->error));
	}
	else
		worker_goes_on(state);
}

/* One turn; the number of messages that were settled, or -1 where it is to be tried again after a while. */
static int
turn(void)
{
	OutboxMessage *messages;
	int			settled = 0;
	bool		reached;
	int			n;
	int			i;

	if (!look())
		return -1;
	messages = claim(&n);
	if (n == 0)
	{
		show_state(WORKER_IDLE);
		return 0;
	}
	if (held_topics == NIL && !worker_is_held_up())
		slot_set_state(WORKER_RUNNING);
	reached = send(messages, n);
	judge(messages, n);
	for (i = 0; i < n; i++)
		settled += messages[i].outcome == KAFKA_DELIVERED || messages[i].outcome == KAFKA_REFUSED;
	settle(messages, n);
	if (reached)
		show_state(WORKER_RUNNING);
	return settled > 0 || one_by_one > 0 ? settled : -1;
}

/* turn(), with errors that may pass shown; -1 for these as well. */
static int
guarded_turn(void)
{
	volatile int settled = -1;

	PG_TRY();
	{
		settled = turn();
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(turn_context);
		error = CopyErrorData();
		FlushErrorState();
		worker_transaction_abort();
		if (ERRCODE_TO_CATEGORY(error->sqlerrcode) == ERRCODE_INTERNAL_ERROR)
			ReThrowError(error);
		session_end();
		worker_held_up(error->detail ? psprintf("%s: %s", error->message, error->detail) : error->message);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(turn_context);
	return settled;
}

/* Until the process ends: no other sends for this sender. */
static void
lock_sender(void)
{
	LOCKTAG		tag;

	worker_transaction_begin("waiting for another sender to end");
	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, SENDER_LOCK, arguments->object, LOCK_CLASS);
	(void) LockAcquire(&tag, ExclusiveLock, true, false);
	worker_transaction_commit();
}

void
imgpipe_sender_main(Datum argument)
{
	TimestampTz idle_since = 0;
	long		backoff = FIRST_BACKOFF;

	arguments = worker_start();
	turn_context = AllocSetContextCreate(TopMemoryContext, "imgpipe sender turn", ALLOCSET_DEFAULT_SIZES);
	session_context = AllocSetContextCreate(TopMemoryContext, "imgpipe sender session", ALLOCSET_DEFAULT_SIZES);
	on_proc_exit(end_at_exit, (Datum) 0);
	lock_sender();

	for (;;)
	{
		int			settled;

		MemoryContextReset(turn_context);
		MemoryContextSwitchTo(turn_context);
		settled = guarded_turn();
		check_stop();
		if (settled > 0 || (settled == 0 && one_by_one > 0))
		{
			idle_since = 0;
			backoff = FIRST_BACKOFF;
			continue;
		}
		if (settled < 0)
		{
			idle_since = 0;
			worker_sleep(backoff, wait_event_idle());
			backoff = Min(backoff * 2, LAST_BACKOFF);
			continue;
		}
		if (idle_since == 0)
			idle_since = GetCurrentTimestamp();
		else if (held_topics == NIL && TimestampDifferenceExceeds(idle_since, GetCurrentTimestamp(), IDLE_END))
			proc_exit(0);
		worker_sleep(IDLE_POLL, wait_event_idle());
	}
}
