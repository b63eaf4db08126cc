/*
 * kafka_producer.c
 *		An idempotent producer on librdkafka.
 *
 * It never gives a record up by itself: what the cluster does not take for now
 * is tried until the producer is destroyed, in order.  A record is reported
 * undelivered only where its topic is not there or not allowed, or where the
 * library can no longer tell what arrived and a new producer is needed.
 */
#include "postgres.h"

#include "ingest/kafka_handle.h"
#include "ingest/kafka_producer.h"
#include "utils/memutils.h"

/*
 * A broker refuses all of a batch for its size.  Batches of more than one
 * record are kept smaller than any sensible limit of a topic.
 */
#define BATCH_BYTES			65536

/* The library's largest: the limits of broker and topic are what counts. */
#define LARGEST_RECORD		1000000000

struct KafkaProducer
{
	KafkaHandle base;
	MemoryContextCallback callback;
	rd_kafka_event_t *reports;	/* that are being read, or NULL */
};

static void
producer_end(void *argument)
{
	KafkaProducer *producer = argument;

	if (producer->reports)
		rd_kafka_event_destroy(producer->reports);
	/* Or its end would wait for answers that may never come. */
	rd_kafka_purge(producer->base.client,
				   RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT | RD_KAFKA_PURGE_F_NON_BLOCKING);
}

KafkaProducer *
kafka_producer_open(const KafkaSetting *settings, int n_settings)
{
	KafkaProducer *producer = palloc0(sizeof(KafkaProducer));
	rd_kafka_conf_t *conf = kafka_configuration(settings, n_settings);

	kafka_set_property(conf, "enable.idempotence", "true", false);
	kafka_set_property(conf, "acks", "all", false);
	kafka_set_number(conf, "message.timeout.ms", 0);
	kafka_set_number(conf, "message.max.bytes", LARGEST_RECORD);
	kafka_set_number(conf, "batch.size", BATCH_BYTES);
	kafka_set_number(conf, "linger.ms", 5);
	/* A key goes where Java's producers send it. */
	kafka_set_property(conf, "partitioner", "murmur2_random", false);
	/* A topic that is not there is told at once. */
	kafka_set_number(conf, "topic.metadata.propagation.max.ms", 0);
	rd_kafka_conf_set_events(conf, RD_KAFKA_EVENT_DR | RD_KAFKA_EVENT_ERROR | RD_KAFKA_EVENT_LOG);

	kafka_handle_open(&producer->base, RD_KAFKA_PRODUCER, conf);
	producer->callback.func = producer_end;
	producer->callback.arg = producer;
	MemoryContextRegisterResetCallback(CurrentMemoryContext, &producer->callback);
	return producer;
}

static KafkaReportKind
outcome_of(rd_kafka_resp_err_t error)
{
	switch (error)
	{
		case RD_KAFKA_RESP_ERR_NO_ERROR:
			return KAFKA_DELIVERED;
		case RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE:
		case RD_KAFKA_RESP_ERR_INVALID_MSG_SIZE:
		case RD_KAFKA_RESP_ERR_RECORD_LIST_TOO_LARGE:
		case RD_KAFKA_RESP_ERR_INVALID_TIMESTAMP:
		case RD_KAFKA_RESP_ERR_INVALID_RECORD:
		case RD_KAFKA_RESP_ERR_UNSUPPORTED_FOR_MESSAGE_FORMAT:
			return KAFKA_REFUSED;
		default:
			return KAFKA_UNDELIVERED;
	}
}

static rd_kafka_headers_t *
headers_of(const KafkaRecord *record)
{
	rd_kafka_headers_t *headers = rd_kafka_headers_new(record->n_headers);
	int			i;

	for (i = 0; i < record->n_headers; i++)
		rd_kafka_header_add(headers, record->headers[i].name, -1,
							record->headers[i].value, record->headers[i].length);
	return headers;
}

KafkaReportKind
kafka_producer_send(KafkaProducer *producer, const KafkaRecord *record, int number,
					char error[KAFKA_ERROR_SIZE])
{
	rd_kafka_headers_t *headers = headers_of(record);
	rd_kafka_resp_err_t failure;

	failure = rd_kafka_producev(producer->base.client,
								RD_KAFKA_V_TOPIC(record->topic),
								RD_KAFKA_V_KEY(record->key, record->key_length),
								RD_KAFKA_V_VALUE(unconstify(char *, record->value), record->value_length),
								RD_KAFKA_V_HEADERS(headers),
								RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY),
								RD_KAFKA_V_OPAQUE((void *) (intptr_t) number),
								RD_KAFKA_V_END);
	if (failure == RD_KAFKA_RESP_ERR_NO_ERROR)
		return KAFKA_NO_REPORT;
	rd_kafka_headers_destroy(headers);
	strlcpy(error, rd_kafka_err2str(failure), KAFKA_ERROR_SIZE);
	return outcome_of(failure);
}

/* The next one of the reports at hand. */
static bool
next_report(KafkaProducer *producer, KafkaReport *report)
{
	const rd_kafka_message_t *message;

	if (producer->reports == NULL)
		return false;
	message = rd_kafka_event_message_next(producer->reports);
	if (message == NULL)
	{
		rd_kafka_event_destroy(producer->reports);
		producer->reports = NULL;
		return false;
	}
	report->kind = outcome_of(message->err);
	report->number = (int) (intptr_t) message->_private;
	strlcpy(report->error, rd_kafka_err2str(message->err), sizeof(report->error));
	return true;
}

KafkaReportKind
kafka_producer_poll(KafkaProducer *producer, KafkaReport *report)
{
	rd_kafka_event_t *event;

	for (;;)
	{
		if (next_report(producer, report))
			return report->kind;
		event = rd_kafka_queue_poll(producer->base.queue, 0);
		if (event == NULL)
			return report->kind = KAFKA_NO_REPORT;
		switch (rd_kafka_event_type(event))
		{
			case RD_KAFKA_EVENT_DR:
				producer->reports = event;
				continue;
			case RD_KAFKA_EVENT_ERROR:
				report->kind = KAFKA_HELD_UP;
				strlcpy(report->error, rd_kafka_event_error_string(event), sizeof(report->error));
				rd_kafka_event_destroy(event);
				return report->kind;
			case RD_KAFKA_EVENT_LOG:
				kafka_report_log(event);
				break;
			default:
				break;
		}
		rd_kafka_event_destroy(event);
	}
}

void
kafka_producer_wait(KafkaProducer *producer, long timeout, uint32 wait_event)
{
	kafka_handle_wait(&producer->base, timeout, wait_event);
}
