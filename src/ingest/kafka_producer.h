/*
 * kafka_producer.h
 *		A Kafka producer that a PostgreSQL process can live with.
 */
#ifndef IMGPIPE_KAFKA_PRODUCER_H
#define IMGPIPE_KAFKA_PRODUCER_H

#include "postgres.h"

#include "ingest/kafka_client.h"

typedef struct KafkaProducer KafkaProducer;

typedef struct KafkaHeader
{
	const char *name;
	const char *value;			/* NULL: null */
	Size		length;
} KafkaHeader;

typedef struct KafkaRecord
{
	const char *topic;
	const char *key;			/* NULL: none */
	Size		key_length;
	const char *value;			/* NULL: none */
	Size		value_length;
	int			n_headers;
	KafkaHeader *headers;
} KafkaRecord;

typedef enum KafkaReportKind
{
	KAFKA_NO_REPORT,			/* nothing is waiting */
	KAFKA_DELIVERED,			/* all replicas in sync have it */
	KAFKA_REFUSED,				/* as it is it will never be taken; error says why */
	KAFKA_UNDELIVERED,			/* it may be sent again; error says why */
	KAFKA_HELD_UP				/* of no record: the library goes on trying; error says what is in the way */
} KafkaReportKind;

typedef struct KafkaReport
{
	KafkaReportKind kind;
	int			number;			/* that kafka_producer_send() was given */
	char		error[KAFKA_ERROR_SIZE];
} KafkaReport;

/*
 * An idempotent producer, owned by the current memory context: resetting that
 * destroys it, and with it what is not reported yet.
 */
extern KafkaProducer *kafka_producer_open(const KafkaSetting *settings, int n_settings);

/*
 * Takes a copy of the record and returns KAFKA_NO_REPORT: its report comes
 * later, or at once where the library does not take it.  Records with the same
 * key arrive in the order in which they are sent, each once for as long as the
 * producer lives.
 */
extern KafkaReportKind kafka_producer_send(KafkaProducer *producer, const KafkaRecord *record, int number,
										   char error[KAFKA_ERROR_SIZE]);

/* Takes what is waiting; never blocks. */
extern KafkaReportKind kafka_producer_poll(KafkaProducer *producer, KafkaReport *report);

/*
 * Waits for a report, the latch or the timeout (ms), handling interrupts;
 * kafka_producer_poll() tells what came.
 */
extern void kafka_producer_wait(KafkaProducer *producer, long timeout, uint32 wait_event);

#endif							/* IMGPIPE_KAFKA_PRODUCER_H */
