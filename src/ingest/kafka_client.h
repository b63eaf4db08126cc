/*
 * kafka_client.h
 *		A Kafka consumer that a PostgreSQL process can live with.
 */
#ifndef IMGPIPE_KAFKA_CLIENT_H
#define IMGPIPE_KAFKA_CLIENT_H

#include "postgres.h"

#define KAFKA_ERROR_SIZE	400

typedef struct KafkaClient KafkaClient;
typedef struct KafkaBatch KafkaBatch;

/* One of librdkafka's configuration properties, by its own name. */
typedef struct KafkaSetting
{
	const char *name;
	const char *value;
	bool		secret;			/* the value may not appear in an error */
} KafkaSetting;

/* Points into memory that the message's KafkaBatch holds. */
typedef struct KafkaMessage
{
	int32		partition;
	int64		offset;
	int64		timestamp;		/* milliseconds since 1970, or -1 */
	const char *key;			/* NULL: none */
	Size		key_length;
	const char *value;			/* NULL: a tombstone */
	Size		value_length;
	Size		header_length;	/* of all headers together */
	void	   *handle;
} KafkaMessage;

typedef enum KafkaEventKind
{
	KAFKA_NOTHING,				/* nothing is waiting */
	KAFKA_MESSAGE,
	KAFKA_END_OF_PARTITION,		/* offset: where the next message will be */
	KAFKA_OUT_OF_RANGE,			/* the assigned offset does not exist; partition stands still */
	KAFKA_PARTITION_ERROR,		/* the library goes on trying */
	KAFKA_TOPIC_GONE,			/* the same, and there may be another topic of that name soon */
	KAFKA_BROKER_ERROR,			/* of one broker; the library goes on trying */
	KAFKA_UNREACHABLE,			/* no broker can be reached; likewise */
	KAFKA_COMMITTED,			/* the answer to kafka_client_commit(); error is empty where it went well */
	KAFKA_RETENTION				/* the answer to kafka_client_ask_retention(); likewise */
} KafkaEventKind;

/* For how long a topic keeps a message: its own retention, and that of the segment it is in. */
typedef struct KafkaRetention
{
	int64		retention_ms;	/* -1: for ever */
	int64		segment_ms;
} KafkaRetention;

typedef struct KafkaEvent
{
	int32		partition;		/* -1 where it is about none */
	int64		offset;
	KafkaMessage message;
	KafkaRetention retention;
	char		error[KAFKA_ERROR_SIZE];
} KafkaEvent;

/* Instead of an offset: the first that is there. */
#define KAFKA_BEGINNING		INT64CONST(-2)

/* What a look at the topic tells. */
typedef struct KafkaTopic
{
	int32		n_partitions;	/* -1 where Kafka says that it cannot be read */
	int32		leaderless;		/* a partition without a leader, or -1 */
} KafkaTopic;

/*
 * A client for one topic, owned by the current memory context: resetting that
 * destroys it.  byte_budget bounds what it fetches ahead.
 */
extern KafkaClient *kafka_client_open(const KafkaSetting *settings, int n_settings,
									  const char *topic, const char *group,
									  Size byte_budget);

/* Another one with the same settings, which has heard of nothing yet and has nothing assigned. */
extern KafkaClient *kafka_client_open_another(const KafkaClient *client);

/* From now on these partitions and no others, from these offsets on. */
extern void kafka_client_assign(KafkaClient *client, int n, const int32 *partitions,
								const int64 *offsets);

/*
 * Room for n messages, owned by the current memory context, which must be a
 * child of the client's: resetting it gives the messages back.
 */
extern KafkaBatch *kafka_batch_create(int n);
/* Gives back the message that was polled last. */
extern void kafka_batch_drop_last(KafkaBatch *batch);

/* Takes what is waiting; never blocks.  A message's bytes go to the batch. */
extern KafkaEventKind kafka_client_poll(KafkaClient *client, KafkaBatch *batch,
										KafkaEvent *event);

/*
 * Waits for an event, the latch or the timeout (ms), handling interrupts;
 * kafka_client_poll() tells what came.
 */
extern void kafka_client_wait(KafkaClient *client, long timeout, uint32 wait_event);

/* Resumes fetching at once where it stood still because enough was waiting. */
extern void kafka_client_resume(KafkaClient *client);

/*
 * Questions to the broker.  These block for about timeout ms at most and
 * return false with the reason in error: keep the time short and check for
 * interrupts in between.
 */
extern bool kafka_client_topic(KafkaClient *client, int timeout, KafkaTopic *topic,
							   char error[KAFKA_ERROR_SIZE]);
extern bool kafka_client_watermarks(KafkaClient *client, int32 partition, int timeout,
									int64 *low, int64 *high,
									char error[KAFKA_ERROR_SIZE]);

/*
 * Of each of n partitions the first offset whose message is not older than its
 * time (ms since 1970), or -1 where all are.
 */
extern bool kafka_client_offsets_at(KafkaClient *client, int n, const int32 *partitions, const int64 *times,
									int timeout, int64 *offsets, char error[KAFKA_ERROR_SIZE]);

/* The cluster's name for itself, palloc'd, or NULL where it has not told it yet. */
extern char *kafka_client_cluster(KafkaClient *client, int timeout);

/*
 * Tells Kafka the offsets of the group that the client was opened with; does
 * not wait.  KAFKA_COMMITTED tells how it went.
 */
extern void kafka_client_commit(KafkaClient *client, int n, const int32 *partitions,
								const int64 *offsets);

/* Asks how long the topic keeps its messages; does not wait.  KAFKA_RETENTION tells. */
extern void kafka_client_ask_retention(KafkaClient *client);

/* The end of a partition as last heard of, or -1; asks nobody. */
extern int64 kafka_client_high_watermark(KafkaClient *client, int32 partition);

/* The header at index, false behind the last.  value is NULL for a null. */
extern bool kafka_message_header(const KafkaMessage *message, int index, const char **name,
								 const char **value, Size *length);

#endif							/* IMGPIPE_KAFKA_CLIENT_H */
