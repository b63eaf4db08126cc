/*
 * ingest.h
 *		What the files of an ingest worker share.
 *
 * ingest_worker.c fetches, ingest_batch.c writes, ingest_positions.c knows
 * where each partition goes on.  One process, one source, one slice of its
 * partitions.
 */
#ifndef IMGPIPE_INGEST_H
#define IMGPIPE_INGEST_H

#include "imgpipe.h"

#include "datatype/timestamp.h"
#include "image/facts.h"
#include "ingest/kafka_client.h"
#include "workers/worker.h"

/* A row of imgpipe.sources as the session began with it. */
typedef struct IngestSource
{
	char	   *name;
	char	   *server;
	char	   *topic;
	Oid			owner;
	char	   *owner_name;
	Interval   *retention;		/* NULL: imgpipe.retention */
	bool		from_latest;
	int			batch_rows;
	int			batch_bytes;
	int			linger_ms;
	bool		may_use_server;
	char	   *started_in;		/* '' where not known */
	char	   *version;		/* changes with everything that a session rests on */
} IngestSource;

typedef struct IngestPartition
{
	int32		partition;
	int64		next_offset;	/* as in the table */
	int64		fetched_offset; /* behind all that was polled */
	int64		last_offset;	/* of the last message ingested; -1: none known */
	TimestampTz last_timestamp; /* 0: it had none */
	bool		at_end;			/* nothing more is there */
	bool		suspect;		/* perhaps not the topic that it was: see assign() */
	bool		verifying;		/* the last message is being read again */
	bool		blocked;		/* not assigned any more; error says why */
	char		error[KAFKA_ERROR_SIZE];	/* empty: fine */
} IngestPartition;

/* What becomes of a message. */
typedef enum IngestVerdict
{
	INGEST_UNDECIDED,
	INGEST_IMAGE,
	INGEST_DEAD_LETTER
} IngestVerdict;

typedef struct IngestMessage
{
	KafkaMessage message;
	IngestVerdict verdict;
	ImageFacts	facts;			/* of an image */
	int			attempts;		/* probes so far */
	int			sqlerrcode;		/* of a dead letter, with reason and detail */
	const char *reason;
	const char *detail;			/* or NULL */
} IngestMessage;

/* All of it in one memory context, which is reset when the batch is done. */
typedef struct IngestBatch
{
	MemoryContext context;
	KafkaBatch *held;
	IngestMessage *messages;	/* batch_rows of them */
	int			n;
	int			written;		/* so many of them are committed */
	Size		bytes;
} IngestBatch;

typedef struct IngestWorker
{
	const WorkerArguments *arguments;
	MemoryContext context;		/* as long as the process; errors go here */
	MemoryContext session;		/* client and partitions; reset to begin anew */
	MemoryContext row;			/* one message */
	IngestSource *source;
	KafkaClient *client;		/* NULL: no session */
	int			n_topic_partitions;
	int			n_partitions;	/* of this slice */
	IngestPartition *partitions;
	IngestBatch batch;
	bool		fenced;			/* the error is that positions are not ours */
} IngestWorker;

/* ingest_worker.c */
extern void ingest_check_stop(void);

/* ingest_positions.c */

/* The source, in the current memory context, or NULL where it is off or gone. */
extern IngestSource *source_read(int32 source_id);

/*
 * Learns of the topic's partitions, writes a position for each that has none,
 * and fills worker->partitions.  False with the reason where Kafka did not
 * answer.
 */
extern bool positions_load(IngestWorker *worker, char error[KAFKA_ERROR_SIZE]);

/*
 * Moves positions from where this worker believes them to be to new ones, in
 * the current transaction.  Raises where one is elsewhere.
 */
typedef struct PositionMove
{
	IngestPartition *partition;
	int64		next_offset;
	int64		last_offset;	/* -1: as before */
	TimestampTz last_timestamp;
} PositionMove;

extern void positions_advance(IngestWorker *worker, int n, const PositionMove *moves);

extern IngestPartition *partition_find(IngestWorker *worker, int32 partition);

/* ingest_batch.c */

/* Probes what is undecided; false with the reason where the decoder does not work at all. */
extern bool batch_probe(IngestWorker *worker, char error[KAFKA_ERROR_SIZE]);

/*
 * Writes the batch and the positions behind it, in one transaction or, where a
 * message cannot be written, in several.  Raises what is not the messages'
 * fault; called again, it goes on behind what was committed until then.
 */
extern void batch_write(IngestWorker *worker);

#endif							/* IMGPIPE_INGEST_H */
