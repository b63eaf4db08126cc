/*
 * ingest_message.h
 *		A Kafka message as column values, palloc'd.
 */
#ifndef IMGPIPE_INGEST_MESSAGE_H
#define IMGPIPE_INGEST_MESSAGE_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "ingest/kafka_client.h"

/* The bytes themselves where they are text in this database's encoding, else \x and hex. */
extern char *message_text(const char *bytes, Size length);

/* The first header of that name that is not null, as message_text(); or NULL. */
extern char *message_header_text(const KafkaMessage *message, const char *name);

/*
 * All headers as a jsonb object: text as a string, other bytes as
 * {"hex": "..."}, null as null, repeated names as an array.
 */
extern Datum message_headers(const KafkaMessage *message, bool *isnull);

/* 0 where the message has none, or one that no timestamptz can hold. */
extern TimestampTz message_timestamp(const KafkaMessage *message);

#endif							/* IMGPIPE_INGEST_MESSAGE_H */
