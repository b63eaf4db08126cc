/*
 * kafka_client.c
 *		A consumer for one topic, by assigned partitions, on librdkafka.
 *
 * What it guarantees besides what kafka_handle.c does:
 *
 * - No leaks.  Client and messages belong to memory contexts.  A message that
 *	 was not given back would hang the client's destruction, so batches live in
 *	 children of the client's context, which go first.
 * - No positions.  No group is joined (the library only insists on a name for
 *	 one), what is committed to Kafka is never read back, and an offset that
 *	 does not exist is an event, never a jump.
 */
#include "postgres.h"

#include "ingest/kafka_handle.h"
#include "utils/memutils.h"

struct KafkaClient
{
	KafkaHandle base;
	MemoryContextCallback callback;
	rd_kafka_topic_t *topic;
	const char *username;
	const char *password;
};

struct KafkaBatch
{
	MemoryContextCallback callback;
	int			n;
	int			capacity;
	rd_kafka_event_t *events[FLEXIBLE_ARRAY_MEMBER];
};

static void
client_destroy(void *argument)
{
	KafkaClient *client = argument;

	if (client->topic)
		rd_kafka_topic_destroy(client->topic);
}

/*
 * What the queue holds is at most the budget and one answer more; a message
 * that is larger than an answer may be still comes, alone.
 */
static rd_kafka_conf_t *
client_configuration(const KafkaSetting *settings, int n_settings, const char *group,
					 Size byte_budget)
{
	int64		answer = Max(byte_budget / 2, 1024 * 1024);
	char		number[32];
	char		ignored[KAFKA_ERROR_SIZE];
	KafkaSetting *all = palloc(sizeof(KafkaSetting) * (n_settings + 4));
	rd_kafka_conf_t *conf;

	/* Preferences, which settings may replace ... */
	snprintf(number, sizeof(number), INT64_FORMAT, answer);
	all[0] = (KafkaSetting) {"fetch.wait.max.ms", "250", false};
	all[1] = (KafkaSetting) {"receive.message.max.bytes", "268435456", false};
	all[2] = (KafkaSetting) {"fetch.max.bytes", number, false};
	all[3] = (KafkaSetting) {"fetch.message.max.bytes", number, false};
	memcpy(all + 4, settings, sizeof(KafkaSetting) * n_settings);
	conf = kafka_configuration(all, n_settings + 4);

	/* ... and what everything rests on, which they may not. */
	kafka_set_property(conf, "group.id", group, false);
	kafka_set_property(conf, "enable.auto.commit", "false", false);
	kafka_set_property(conf, "enable.auto.offset.store", "false", false);
	kafka_set_property(conf, "auto.offset.reset", "error", false);
	kafka_set_property(conf, "enable.partition.eof", "true", false);
	kafka_set_number(conf, "queued.max.messages.kbytes", Max(byte_budget / 1024, 1024));

	/* Known from librdkafka 2.2 on; see kafka_client_resume() for older ones. */
	(void) rd_kafka_conf_set(conf, "fetch.queue.backoff.ms", "10", ignored, sizeof(ignored));

	rd_kafka_conf_set_events(conf, RD_KAFKA_EVENT_FETCH | RD_KAFKA_EVENT_ERROR | RD_KAFKA_EVENT_LOG);
	return conf;
}

static KafkaClient *
client_start(rd_kafka_conf_t *conf, const char *topic, const char *username, const char *password)
{
	KafkaClient *client = palloc0(sizeof(KafkaClient));

	client->username = pstrdup(username);
	client->password = pstrdup(password);
	kafka_handle_open(&client->base, RD_KAFKA_CONSUMER, conf);
	client->callback.func = client_destroy;
	client->callback.arg = client;
	MemoryContextRegisterResetCallback(CurrentMemoryContext, &client->callback);

	client->topic = rd_kafka_topic_new(client->base.client, topic, NULL);
	if (client->topic == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("cannot consume topic \"%s\"", topic),
				 errdetail("%s.", rd_kafka_err2str(rd_kafka_last_error()))));
	return client;
}

KafkaClient *
kafka_client_open(const KafkaSetting *settings, int n_settings, const char *topic,
				  const char *group, Size byte_budget)
{
	const char *username = "";
	const char *password = "";
	int			i;

	for (i = 0; i < n_settings; i++)
	{
		if (strcmp(settings[i].name, "sasl.username") == 0)
			username = settings[i].value;
		if (strcmp(settings[i].name, "sasl.password") == 0)
			password = settings[i].value;
	}
	return client_start(client_configuration(settings, n_settings, group, byte_budget), topic, username, password);
}

KafkaClient *
kafka_client_open_another(const KafkaClient *client)
{
	return client_start(rd_kafka_conf_dup(rd_kafka_conf(client->base.client)), rd_kafka_topic_name(client->topic),
						client->username, client->password);
}

StaticAssertDecl(KAFKA_BEGINNING == RD_KAFKA_OFFSET_BEGINNING, "the library's own number");

void
kafka_client_assign(KafkaClient *client, int n, const int32 *partitions, const int64 *offsets)
{
	rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(n);
	rd_kafka_resp_err_t error;
	int			i;

	for (i = 0; i < n; i++)
		rd_kafka_topic_partition_list_add(list, rd_kafka_topic_name(client->topic),
										  partitions[i])->offset = offsets[i];
	error = rd_kafka_assign(client->base.client, list);
	rd_kafka_topic_partition_list_destroy(list);
	if (error != RD_KAFKA_RESP_ERR_NO_ERROR)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_ERROR),
				 errmsg("could not assign the partitions of topic \"%s\"",
						rd_kafka_topic_name(client->topic)),
				 errdetail("%s.", rd_kafka_err2str(error))));
}

static void
batch_release(void *argument)
{
	KafkaBatch *batch = argument;

	while (batch->n > 0)
		kafka_batch_drop_last(batch);
}

KafkaBatch *
kafka_batch_create(int n)
{
	KafkaBatch *batch = palloc(offsetof(KafkaBatch, events) + mul_size(n, sizeof(batch->events[0])));

	batch->n = 0;
	batch->capacity = n;
	batch->callback.func = batch_release;
	batch->callback.arg = batch;
	MemoryContextRegisterResetCallback(CurrentMemoryContext, &batch->callback);
	return batch;
}

void
kafka_batch_drop_last(KafkaBatch *batch)
{
	Assert(batch->n > 0);
	rd_kafka_event_destroy(batch->events[--batch->n]);
}

static Size
headers_length(const KafkaMessage *message)
{
	const char *name;
	const char *value;
	Size		length;
	Size		total = 0;
	int			i;

	for (i = 0; kafka_message_header(message, i, &name, &value, &length); i++)
		total += strlen(name) + length;
	return total;
}

static void
read_message(const rd_kafka_message_t *source, KafkaMessage *message)
{
	rd_kafka_timestamp_type_t type;

	message->partition = source->partition;
	message->offset = source->offset;
	message->timestamp = rd_kafka_message_timestamp(source, &type);
	if (type == RD_KAFKA_TIMESTAMP_NOT_AVAILABLE)
		message->timestamp = -1;
	message->key = source->key;
	message->key_length = source->key_len;
	message->value = source->payload;
	message->value_length = source->len;
	message->handle = unconstify(rd_kafka_message_t *, source);
	message->header_length = headers_length(message);
}

static KafkaEventKind
read_error(rd_kafka_event_t *source, KafkaEvent *event)
{
	rd_kafka_topic_partition_t *partition = rd_kafka_event_topic_partition(source);
	rd_kafka_resp_err_t error = rd_kafka_event_error(source);
	const char *text = rd_kafka_event_error_string(source);
	static const char coordinator[] = "GroupCoordinator: ";

	event->partition = -1;
	event->offset = -1;
	if (partition)
	{
		event->partition = partition->partition;
		event->offset = partition->offset;
		rd_kafka_topic_partition_destroy(partition);
	}
	if (text == NULL)
		text = rd_kafka_err2str(error);
	/* There is no group: it is just another connection to a broker. */
	if (strncmp(text, coordinator, strlen(coordinator)) == 0)
		text += strlen(coordinator);
	strlcpy(event->error, text, sizeof(event->error));

	switch (error)
	{
		case RD_KAFKA_RESP_ERR__PARTITION_EOF:
			return KAFKA_END_OF_PARTITION;
		case RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET:
		case RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE:
			return KAFKA_OUT_OF_RANGE;
		case RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN:
			return KAFKA_UNREACHABLE;

			/* About the group that we only have a name for. */
		case RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED:
		case RD_KAFKA_RESP_ERR_COORDINATOR_NOT_AVAILABLE:
		case RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS:
		case RD_KAFKA_RESP_ERR_NOT_COORDINATOR:
			return KAFKA_NOTHING;
		case RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART:
		case RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC:
		case RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION:
			return event->partition >= 0 ? KAFKA_TOPIC_GONE : KAFKA_BROKER_ERROR;
		default:
			return event->partition >= 0 ? KAFKA_PARTITION_ERROR : KAFKA_BROKER_ERROR;
	}
}

/* What is not deleted, but only compacted, is kept for ever. */
static void
read_setting(const char *name, const char *value, KafkaRetention *retention, bool *deletes)
{
	if (strcmp(name, "cleanup.policy") == 0)
		*deletes = strstr(value, "delete") != NULL;
	else if (strcmp(name, "retention.ms") == 0)
		retention->retention_ms = strtoll(value, NULL, 10);
	else if (strcmp(name, "segment.ms") == 0)
		retention->segment_ms = strtoll(value, NULL, 10);
}

static void
read_retention(rd_kafka_event_t *source, KafkaEvent *event)
{
	const rd_kafka_DescribeConfigs_result_t *result = rd_kafka_event_DescribeConfigs_result(source);
	const rd_kafka_ConfigResource_t **resources = NULL;
	const rd_kafka_ConfigEntry_t **entries;
	const char *failure = NULL;
	bool		deletes = false;
	size_t		n;
	size_t		i;

	event->partition = -1;
	event->retention.retention_ms = -1;
	event->retention.segment_ms = 0;
	if (rd_kafka_event_error(source) != RD_KAFKA_RESP_ERR_NO_ERROR)
		failure = rd_kafka_event_error_string(source);
	else
	{
		resources = rd_kafka_DescribeConfigs_result_resources(result, &n);
		if (n != 1)
			failure = "the broker did not answer for the topic";
		else if (rd_kafka_ConfigResource_error(resources[0]) != RD_KAFKA_RESP_ERR_NO_ERROR)
			failure = rd_kafka_ConfigResource_error_string(resources[0]);
	}
	strlcpy(event->error, failure ? failure : "", sizeof(event->error));
	if (failure)
		return;
	entries = rd_kafka_ConfigResource_configs(resources[0], &n);
	for (i = 0; i < n; i++)
		if (rd_kafka_ConfigEntry_value(entries[i]) != NULL)
			read_setting(rd_kafka_ConfigEntry_name(entries[i]), rd_kafka_ConfigEntry_value(entries[i]),
						 &event->retention, &deletes);
	if (!deletes)
		event->retention.retention_ms = -1;
}

KafkaEventKind
kafka_client_poll(KafkaClient *client, KafkaBatch *batch, KafkaEvent *event)
{
	rd_kafka_event_t *source;

	Assert(batch->n < batch->capacity);
	while ((source = rd_kafka_queue_poll(client->base.queue, 0)) != NULL)
	{
		KafkaEventKind kind = KAFKA_NOTHING;
		const rd_kafka_message_t *message;

		switch (rd_kafka_event_type(source))
		{
			case RD_KAFKA_EVENT_FETCH:
				message = rd_kafka_event_message_next(source);
				if (message == NULL)
					break;
				/* The event owns the message's bytes. */
				batch->events[batch->n++] = source;
				read_message(message, &event->message);
				event->partition = event->message.partition;
				event->offset = event->message.offset;
				return KAFKA_MESSAGE;
			case RD_KAFKA_EVENT_ERROR:
				kind = read_error(source, event);
				break;
			case RD_KAFKA_EVENT_LOG:
				kafka_report_log(source);
				break;
			case RD_KAFKA_EVENT_OFFSET_COMMIT:
				kind = KAFKA_COMMITTED;
				event->partition = -1;
				strlcpy(event->error, rd_kafka_event_error(source) == RD_KAFKA_RESP_ERR_NO_ERROR ? "" :
						rd_kafka_err2str(rd_kafka_event_error(source)), sizeof(event->error));
				break;
			case RD_KAFKA_EVENT_DESCRIBECONFIGS_RESULT:
				kind = KAFKA_RETENTION;
				read_retention(source, event);
				break;
			default:
				break;
		}
		rd_kafka_event_destroy(source);
		if (kind != KAFKA_NOTHING)
			return kind;
	}
	return KAFKA_NOTHING;
}

void
kafka_client_wait(KafkaClient *client, long timeout, uint32 wait_event)
{
	kafka_handle_wait(&client->base, timeout, wait_event);
}

/*
 * Before librdkafka 2.2 a fetcher that found its queue full looks again only
 * after up to a second, however soon the queue is empty.  This is the one call
 * of the library's that wakes the fetchers and does nothing else: it sets the
 * credentials again that are set already.
 */
void
kafka_client_resume(KafkaClient *client)
{
	if (rd_kafka_version() < 0x02020000)
		rd_kafka_error_destroy(rd_kafka_sasl_set_credentials(client->base.client, client->username,
															 client->password));
}

bool
kafka_client_topic(KafkaClient *client, int timeout, KafkaTopic *topic,
				   char error[KAFKA_ERROR_SIZE])
{
	const char *name = rd_kafka_topic_name(client->topic);
	const struct rd_kafka_metadata *metadata;
	rd_kafka_resp_err_t failure;
	int			i;

	failure = rd_kafka_metadata(client->base.client, 0, client->topic, &metadata, timeout);
	if (failure != RD_KAFKA_RESP_ERR_NO_ERROR)
	{
		snprintf(error, KAFKA_ERROR_SIZE, "no answer from a Kafka broker: %s",
				 rd_kafka_err2str(failure));
		return false;
	}
	failure = metadata->topic_cnt == 1 ? metadata->topics[0].err : RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC;
	if (failure == RD_KAFKA_RESP_ERR_NO_ERROR)
	{
		topic->n_partitions = metadata->topics[0].partition_cnt;
		topic->leaderless = -1;
		for (i = 0; i < topic->n_partitions; i++)
			if (metadata->topics[0].partitions[i].leader < 0)
				topic->leaderless = metadata->topics[0].partitions[i].id;
	}
	rd_kafka_metadata_destroy(metadata);
	if (failure == RD_KAFKA_RESP_ERR_NO_ERROR)
		return true;
	topic->n_partitions = -1;
	snprintf(error, KAFKA_ERROR_SIZE, "topic \"%s\" cannot be read: %s", name,
			 rd_kafka_err2str(failure));
	return false;
}

bool
kafka_client_watermarks(KafkaClient *client, int32 partition, int timeout, int64 *low, int64 *high,
						char error[KAFKA_ERROR_SIZE])
{
	const char *name = rd_kafka_topic_name(client->topic);
	int64_t		first;
	int64_t		end;
	rd_kafka_resp_err_t failure = rd_kafka_query_watermark_offsets(client->base.client, name, partition,
																   &first, &end, timeout);

	if (failure != RD_KAFKA_RESP_ERR_NO_ERROR)
	{
		snprintf(error, KAFKA_ERROR_SIZE, "no offsets of partition %d of topic \"%s\": %s",
				 partition, name, rd_kafka_err2str(failure));
		return false;
	}
	*low = first;
	*high = end;
	return true;
}

bool
kafka_client_offsets_at(KafkaClient *client, int n, const int32 *partitions, const int64 *times, int timeout,
						int64 *offsets, char error[KAFKA_ERROR_SIZE])
{
	const char *name = rd_kafka_topic_name(client->topic);
	rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(n);
	rd_kafka_resp_err_t failure;
	int			i;

	for (i = 0; i < n; i++)
		rd_kafka_topic_partition_list_add(list, name, partitions[i])->offset = times[i];
	failure = rd_kafka_offsets_for_times(client->base.client, list, timeout);
	for (i = 0; i < n; i++)
	{
		if (failure == RD_KAFKA_RESP_ERR_NO_ERROR)
			failure = list->elems[i].err;
		if (failure != RD_KAFKA_RESP_ERR_NO_ERROR)
		{
			snprintf(error, KAFKA_ERROR_SIZE, "no offset by time of partition %d of topic \"%s\": %s",
					 partitions[i], name, rd_kafka_err2str(failure));
			break;
		}
		offsets[i] = list->elems[i].offset >= 0 ? list->elems[i].offset : -1;
	}
	rd_kafka_topic_partition_list_destroy(list);
	return failure == RD_KAFKA_RESP_ERR_NO_ERROR;
}

char *
kafka_client_cluster(KafkaClient *client, int timeout)
{
	char	   *told = rd_kafka_clusterid(client->base.client, timeout);
	char	   *copy = told ? pstrdup(told) : NULL;

	if (told)
		rd_kafka_mem_free(client->base.client, told);
	return copy;
}

void
kafka_client_commit(KafkaClient *client, int n, const int32 *partitions, const int64 *offsets)
{
	rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(n);
	int			i;

	for (i = 0; i < n; i++)
		rd_kafka_topic_partition_list_add(list, rd_kafka_topic_name(client->topic),
										  partitions[i])->offset = offsets[i];
	rd_kafka_commit_queue(client->base.client, list, client->base.queue, NULL, NULL);
	rd_kafka_topic_partition_list_destroy(list);
}

void
kafka_client_ask_retention(KafkaClient *client)
{
	rd_kafka_ConfigResource_t *asked = rd_kafka_ConfigResource_new(RD_KAFKA_RESOURCE_TOPIC,
																   rd_kafka_topic_name(client->topic));

	rd_kafka_DescribeConfigs(client->base.client, &asked, 1, NULL, client->base.queue);
	rd_kafka_ConfigResource_destroy(asked);
}

int64
kafka_client_high_watermark(KafkaClient *client, int32 partition)
{
	int64_t		low;
	int64_t		high;

	if (rd_kafka_get_watermark_offsets(client->base.client, rd_kafka_topic_name(client->topic),
									   partition, &low, &high) != RD_KAFKA_RESP_ERR_NO_ERROR ||
		high < 0)
		return -1;
	return high;
}

bool
kafka_message_header(const KafkaMessage *message, int index, const char **name,
					 const char **value, Size *length)
{
	rd_kafka_headers_t *headers;
	const void *bytes;

	if (rd_kafka_message_headers(message->handle, &headers) != RD_KAFKA_RESP_ERR_NO_ERROR ||
		rd_kafka_header_get_all(headers, index, name, &bytes, length) != RD_KAFKA_RESP_ERR_NO_ERROR)
		return false;
	*value = bytes;
	return true;
}
