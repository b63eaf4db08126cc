/*
 * ingest_message.h
 *		A Kafka message as column values, palloc'd.
 */
#ifndef IMGPIPE_INGEST_MESSAGE_H
#define IMGPIPE_INGEST_MESSAGE_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "ingest/kafka_client.h"
#include "utils/jsonb.h"

/* The bytes themselves where they are text in this database's encoding that does not begin with \x, else \x and hex. */
extern char *message_text(const char *bytes, Size length);

/* The first header of that name that is not null, as message_text(); or NULL. */
extern char *message_header_text(const KafkaMessage *message, const char *name);

/*
 * All headers as a jsonb object: text as a string, other bytes as
 * {"hex": "..."}, null as null, repeated names as an array.
 */
extern Datum message_headers(const KafkaMessage *message, bool *isnull);

/*
 * The image file out of a JSON envelope, palloc'd as all of it, or false with
 * the error, in the current memory context, where it is none.
 */
extern bool message_open(const KafkaMessage *message, const char *content_field, Jsonb **envelope,
						 const char **content, Size *length, ErrorData **error);

/* A field of an envelope as text, or NULL where there is none that is text. */
extern char *envelope_text(Jsonb *envelope, const char *name);

/* Headers, and the fields of the envelope that are neither the content nor named like a header. */
extern Datum envelope_headers(Jsonb *envelope, const char *content_field, Datum headers, bool *no_headers);

/* 0 where the message has none, or one that no timestamptz can hold. */
extern TimestampTz message_timestamp(const KafkaMessage *message);

/* As Kafka has it: ms since 1970, the next full one. */
extern int64 kafka_time(TimestampTz timestamp);

#endif							/* IMGPIPE_INGEST_MESSAGE_H */
