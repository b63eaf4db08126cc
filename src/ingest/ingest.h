/*
 * ingest.h
 *		What the files of an ingest worker share.
 *
 * ingest_worker.c fetches, ingest_events.c looks at what comes, ingest_probe.c
 * decides what becomes of it, ingest_batch.c writes it, by ingest_rows.c,
 * ingest_chunks.c puts images together that came in parts, and
 * ingest_positions.c knows where each partition goes on.  One process, one
 * source, one slice of its partitions.
 */
#ifndef IMGPIPE_INGEST_H
#define IMGPIPE_INGEST_H

#include "imgpipe.h"

#include "datatype/timestamp.h"
#include "executor/spi.h"
#include "image/facts.h"
#include "ingest/kafka_client.h"
#include "utils/jsonb.h"
#include "utils/uuid.h"
#include "workers/worker.h"

/* Longest wait for one answer of a broker, in ms. */
#define QUESTION_TIMEOUT	1000

/* A row of imgpipe.sources as the session began with it. */
typedef struct IngestSource
{
	char	   *name;
	char	   *server;
	char	   *topic;
	Oid			owner;
	char	   *owner_name;
	Interval   *retention;		/* NULL: imgpipe.retention */
	bool		from_latest;	/* else from_time where that is not -1, else the beginning */
	int64		from_time;		/* in ms since 1970 */
	int			batch_rows;
	int			batch_bytes;
	int			linger_ms;
	int			max_backlog;	/* 0: none */
	int			slice;			/* of slices: what this database has of the topic */
	int			slices;
	bool		tombstones_delete;	/* else, where not ignored, dead letters */
	bool		tombstones_expire;	/* when they delete: as a deadline does */
	bool		tombstones_ignored;
	char	   *content_field;	/* of a JSON envelope; NULL: the value is the image */
	bool		chunked;		/* a value may be a part of an image */
	Interval   *chunk_timeout;
	char	   *image_source;	/* what its images say where they are from */
	char	   *target;			/* the table that they go to, quoted; NULL: imgpipe.images */
	bool		replay;			/* has an end */
	bool		ends_latest;	/* else end_time where that is not -1, else by offsets */
	int64		end_time;		/* in ms since 1970 */
	char	   *consumer_group; /* NULL: Kafka is told nothing */
	char	   *cluster_id;		/* NULL: not known yet */
	bool		may_use_server;
	bool		reports;		/* results go to Kafka or to listeners */
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
	int64		anchor_offset;	/* before it no message is newer than this: see partitions_compare(); -1: none known */
	TimestampTz anchor_timestamp;
	int64		ingested_to;	/* messages before it were ingested once; -1: none were */
	int64		end_offset;		/* of a replay: behind its range; else PG_INT64_MAX */
	int64		told_offset;	/* as committed to Kafka; -1: not yet */
	TimestampTz heard_at;		/* when anything came of it, or it was assigned */
	bool		at_end;			/* nothing more is there */
	TimestampTz at_end_at;		/* when that was found last; 0: never */
	bool		suspect;		/* perhaps not the topic that it was: see partitions_assign() */
	bool		verifying;		/* the last message is being read again */
	bool		blocked;		/* not assigned any more; error says why */
	char		error[KAFKA_ERROR_SIZE];	/* empty: fine */
} IngestPartition;

/* What becomes of a message. */
typedef enum IngestVerdict
{
	INGEST_UNDECIDED,
	INGEST_IMAGE,
	INGEST_CHUNK,
	INGEST_DEAD_LETTER,
	INGEST_TOMBSTONE,			/* deletes the images of its key */
	INGEST_IGNORED,
	INGEST_EXPIRED				/* came before, and its retention has passed: left out */
} IngestVerdict;

/* What the headers of a part of an image say; see chunks.sql. */
typedef struct ImageChunk
{
	char	   *id;
	int32		index;
	int32		count;
	int64		image_bytes;	/* -1: not said */
	char	   *image_sha256;	/* in hexadecimal; NULL: not said */
} ImageChunk;

typedef struct IngestMessage
{
	KafkaMessage message;
	IngestVerdict verdict;
	const char *content;		/* the file, in the message or out of its envelope */
	Size		content_length;
	Jsonb	   *envelope;		/* NULL: there is none */
	ImageChunk	chunk;			/* of INGEST_CHUNK */
	ImageFacts	facts;			/* of an image */
	int			attempts;		/* probes so far */
	int			sqlerrcode;		/* of a dead letter, with reason and detail */
	const char *reason;
	const char *detail;			/* or NULL */
	pg_uuid_t	image_id;		/* of the row that was written last */
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
	TimestampTz began;			/* when it was complete; 0: it is not */
} IngestBatch;

typedef struct IngestWorker
{
	const WorkerArguments *arguments;
	MemoryContext context;		/* as long as the process; errors go here */
	MemoryContext session;		/* client and partitions; reset to begin anew */
	MemoryContext row;			/* one message, or those that are written at once */
	MemoryContext assembly;		/* one image in chunks */
	IngestSource *source;
	KafkaClient *client;		/* NULL: no session */
	int			n_topic_partitions;
	int			n_partitions;	/* of this slice */
	IngestPartition *partitions;
	IngestBatch batch;
	bool		chunks_due;		/* there may be complete images in chunks */
	bool		fenced;			/* the error is that positions are not ours */

	/* Of the broker connection. */
	TimestampTz next_look;		/* at source and topic */
	TimestampTz blocked_since;
	TimestampTz last_progress;
	TimestampTz told_at;		/* when Kafka was last told our positions */
	bool		telling;		/* and has not answered yet */
	bool		assignment_stale;
	TimestampTz retention_asked_at; /* when Kafka was asked how long it keeps the topic's messages */
	bool		retention_told; /* it has answered, and the table does not know yet */
	KafkaRetention retention;
	char		retention_error[KAFKA_ERROR_SIZE];	/* empty: there is none */
	char		outage[KAFKA_ERROR_SIZE];	/* why the look at the topic failed; empty: it did not */
	char		broker_error[KAFKA_ERROR_SIZE]; /* the library's last words on it */
	TimestampTz broker_error_at;
} IngestWorker;

/* ingest_worker.c */
extern void ingest_check_stop(void);

/* ingest_events.c */

/*
 * Every partition begins at its position, or, where it may not be the one that
 * it was, at its last ingested message: that must be there and be the same, or
 * the topic was made anew and its offsets mean something else.  False as
 * partitions_compare().
 */
extern bool partitions_assign(IngestWorker *worker);

/* Blocks partitions that are seen not to be what they were; false with worker->outage where Kafka did not answer. */
extern bool partitions_compare(IngestWorker *worker);

/* One event; false where nothing is waiting. */
extern bool take_event(IngestWorker *worker);

/* Has Kafka know what is committed here, once in a while. */
extern void tell_positions(IngestWorker *worker);

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
	int64		messages;
	int64		bytes;
	int64		dead_letters;
} PositionMove;

extern void positions_advance(IngestWorker *worker, int n, const PositionMove *moves);

/* Writes the anchor of a partition, which is that of all later sessions. */
extern void position_anchor(IngestWorker *worker, const IngestPartition *partition);

/* Writes how far the topic is, for source_partitions while nothing is ingested. */
extern void positions_show_ends(IngestWorker *worker);

/* Writes for how long Kafka keeps the topic's messages, for retention_residue(). */
extern void retention_show(IngestWorker *worker);

/* Whether more tasks are queued than the source lets, or more of its messages wait to be sent than imgpipe.max_outbox. */
extern bool backlog_is_long(const IngestSource *source);

/* Whether a replay has all of its range; if so, and no other worker has to, it is over. */
extern bool replay_is_over(IngestWorker *worker);

/* Remembers the cluster as the one that the positions are of, where none is. */
extern void source_set_cluster(IngestWorker *worker, const char *cluster_id);

extern IngestPartition *partition_find(IngestWorker *worker, int32 partition);

/* ingest_probe.c */

/* Probes what is undecided; false with the reason where the decoder does not work at all. */
extern bool batch_probe(IngestWorker *worker, char error[KAFKA_ERROR_SIZE]);

/* The same for the content of one message. */
extern bool content_probe(IngestMessage *message, char error[KAFKA_ERROR_SIZE]);

/* Makes it a dead letter; detail may be NULL. */
extern void message_refuse(IngestMessage *message, int sqlerrcode, const char *reason, const char *detail);

/* ingest_rows.c */

/* What images and dead letters have in common. */
typedef struct IngestRow
{
	pg_uuid_t	image_id;
	int32		partition;
	int64		offset;
	const char *key;			/* NULL: none; likewise below */
	TimestampTz timestamp;		/* 0: none */
	Jsonb	   *headers;
	const char *batch_id;
	const char *uploaded_by;
} IngestRow;

/* Images that are to be inserted by one statement, whose start costs as much as a small image. */
#define ROWS_AT_ONCE	64

typedef struct IngestRows
{
	int			n;
	Size		bytes;
	IngestRow	rows[ROWS_AT_ONCE];
	const IngestMessage *messages[ROWS_AT_ONCE];
} IngestRows;

extern void row_of_message(const IngestSource *source, const IngestMessage *message, IngestRow *row);
extern void row_insert_image(const IngestSource *source, const IngestRow *row, const ImageFacts *facts,
							 const char *content, Size length);

/* Adds an image to those, and inserts before and after that what would be too much at once. */
extern void rows_add_image(const IngestSource *source, IngestRows *rows, const IngestRow *row,
						   const IngestMessage *message);

/* Inserts them; none are left. */
extern void rows_insert_images(const IngestSource *source, IngestRows *rows);

extern void row_insert_dead_letter(const IngestSource *source, const IngestRow *row, const char *value, Size length,
								   int attempts, int sqlerrcode, const char *reason, const char *detail);

/* Gives rows of images and dead letters their places in the outbox. */
extern void rows_report(IngestWorker *worker, int n, Datum *image_ids);

/* Executes a statement that is prepared once; raises where the result is not that of SPI. */
extern void statement_execute(SPIPlanPtr *plan, const char *statement, int result, int n_types, Oid *types,
							  Datum *values, const char *nulls);

/* ingest_chunks.c */

/* Reads the headers; false where it is no part of an image but a whole one. */
extern bool chunk_read(IngestMessage *message);

/* Keeps a part until the others have come; of an erased image only that. */
extern void chunk_store(IngestWorker *worker, const IngestMessage *message, const IngestRow *row, bool erased);

/*
 * Makes images of what is complete, and dead letters of what will not be;
 * false with the reason where the decoder does not work at all.
 */
extern bool chunks_settle(IngestWorker *worker, char error[KAFKA_ERROR_SIZE]);

/* ingest_batch.c */

/*
 * Writes the batch and the positions behind it, in one transaction or, where a
 * message cannot be written, in several.  Raises what is not the messages'
 * fault; called again, it goes on behind what was committed until then.
 */
extern void batch_write(IngestWorker *worker);

/*
 * A row that its table refuses for what is in it.  A missing partition has the
 * code of a check constraint, and none to name: that is not the row's fault.
 */
extern bool is_data_error(const ErrorData *error);

#endif							/* IMGPIPE_INGEST_H */
