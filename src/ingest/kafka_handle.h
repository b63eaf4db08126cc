/*
 * kafka_handle.h
 *		What a consumer and a producer have in common.
 *
 * For the files kafka_*.c alone, which are all that know librdkafka.
 */
#ifndef IMGPIPE_KAFKA_HANDLE_H
#define IMGPIPE_KAFKA_HANDLE_H

#include "postgres.h"

#include <librdkafka/rdkafka.h>

#include "ingest/kafka_client.h"

typedef struct KafkaHandle
{
	MemoryContextCallback callback;
	rd_kafka_t *client;
	rd_kafka_queue_t *queue;	/* all events */
	int			wake_pipe[2];	/* -1: not open */
} KafkaHandle;

/* These destroy conf where they raise. */
extern void kafka_set_property(rd_kafka_conf_t *conf, const char *name, const char *value, bool secret);
extern void kafka_set_number(rd_kafka_conf_t *conf, const char *name, int64 number);

/*
 * Preferences, then the settings, which may replace them.  What must not be
 * replaced is set after this.
 */
extern rd_kafka_conf_t *kafka_configuration(const KafkaSetting *settings, int n_settings);

/*
 * Starts the library with conf, which it takes over.  Resetting the current
 * memory context destroys the handle, after what is registered there later.
 */
extern void kafka_handle_open(KafkaHandle *handle, rd_kafka_type_t type, rd_kafka_conf_t *conf);

/*
 * Waits for an event, the latch or the timeout (ms), handling interrupts;
 * rd_kafka_queue_poll() tells what came.
 */
extern void kafka_handle_wait(KafkaHandle *handle, long timeout, uint32 wait_event);

/* An event that is one of the library's log lines. */
extern void kafka_report_log(rd_kafka_event_t *event);

#endif							/* IMGPIPE_KAFKA_HANDLE_H */
