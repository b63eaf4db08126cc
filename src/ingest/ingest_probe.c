/*
 * ingest_probe.c
 *		What becomes of each message: the decoder's verdict on its bytes.
 *
 * With no transaction open.  A decoder that does not work at all is no
 * message's fault; one that an image kills again and again is that image's.
 */
#include "postgres.h"

#include "decoder/client.h"
#include "ingest/ingest.h"
#include "ingest/ingest_message.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/* A message that the decoder did not survive so many times in a row is to blame. */
#define PROBE_ATTEMPTS	3

/* Contents that the decoder is asked about at once: a question costs as much as the header of a small image. */
#define PROBES_AT_ONCE	DECODER_MAX_OUTPUTS
#define PROBE_BYTES	(4 * 1024 * 1024)

void
message_refuse(IngestMessage *message, int sqlerrcode, const char *reason, const char *detail)
{
	message->verdict = INGEST_DEAD_LETTER;
	message->attempts = Max(message->attempts, 1);
	message->sqlerrcode = sqlerrcode;
	message->reason = reason;
	message->detail = detail;
}

/*
 * Whether the decoder gives any answer to an image that cannot be at fault, a
 * GIF of one pixel.
 */
static bool
decoder_answers(DecoderFailure *failure)
{
	static const char pixel[] =
		"GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\xff\xff\xff"
		"\x2c\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02\x44\x01\x00\x3b";
	ImageFacts	facts;

	return decoder_probe(pixel, sizeof(pixel) - 1, &facts, failure) ||
		failure->kind == DECODER_REJECTED;
}

bool
content_probe(IngestMessage *message, char error[KAFKA_ERROR_SIZE])
{
	DecoderFailure failure;

	for (;;)
	{
		message->attempts++;
		if (decoder_probe(message->content, message->content_length, &message->facts, &failure))
		{
			message->verdict = INGEST_IMAGE;
			return true;
		}
		if (failure.kind != DECODER_REJECTED)
		{
			DecoderFailure other;

			/* A decoder that somebody killed, or a moment of overload. */
			if (message->attempts < PROBE_ATTEMPTS)
				continue;
			if (!decoder_answers(&other))
			{
				message->attempts = 0;
				snprintf(error, KAFKA_ERROR_SIZE, "%s", other.message);
				return false;
			}
		}
		message_refuse(message, failure.sqlerrcode, failure.message, failure.detail);
		return true;
	}
}

/* Finds the content of a message; what has none is decided by that. */
static void
message_read(const IngestSource *owner, IngestMessage *message)
{
	const KafkaMessage *source = &message->message;

	if (source->value == NULL && owner->tombstones_ignored)
		message->verdict = INGEST_IGNORED;
	else if (source->value == NULL && owner->tombstones_delete && source->key != NULL)
		message->verdict = INGEST_TOMBSTONE;
	else if (source->value == NULL || source->value_length == 0)
		message_refuse(message, ERRCODE_INVALID_BINARY_REPRESENTATION,
					   source->value == NULL ? "message has no value" : "message is empty",
					   source->value == NULL ? "It is a tombstone: a key with a null value." : NULL);
	else if (owner->chunked && chunk_read(message))
		return;
	else if (owner->content_field == NULL)
	{
		message->content = source->value;
		message->content_length = source->value_length;
	}
	else if (message->content == NULL)
	{
		ErrorData  *refusal;

		if (!message_open(source, owner->content_field, &message->envelope, &message->content,
						  &message->content_length, &refusal))
		{
			message->content = NULL;
			message_refuse(message, refusal->sqlerrcode, refusal->message, refusal->detail);
		}
	}
}

/* The contents of n messages, in one question where there is nothing wrong with any of them. */
static bool
contents_probe(int n, IngestMessage *const *messages, char error[KAFKA_ERROR_SIZE])
{
	const char *contents[PROBES_AT_ONCE];
	Size		lengths[PROBES_AT_ONCE];
	ImageFacts	facts[PROBES_AT_ONCE];
	bool		decided = true;
	bool		all;
	int			i;

	for (i = 0; i < n; i++)
	{
		contents[i] = messages[i]->content;
		lengths[i] = messages[i]->content_length;
	}
	all = n > 1 && decoder_probe_all(n, contents, lengths, facts);
	for (i = 0; decided && i < n; i++)
	{
		if (!all)
		{
			ingest_check_stop();
			decided = content_probe(messages[i], error);
			continue;
		}
		messages[i]->attempts++;
		messages[i]->facts = facts[i];
		messages[i]->verdict = INGEST_IMAGE;
	}
	return decided;
}

/*
 * Whether a message that was ingested before a seek back is past its deadline,
 * as it then had one: what was purged does not come back.
 */
static bool
is_expired(IngestWorker *worker, const KafkaMessage *message)
{
	const IngestPartition *partition = partition_find(worker, message->partition);
	TimestampTz timestamp = message_timestamp(message);
	TimestampTz deadline;

	if (message->offset >= partition->ingested_to || timestamp == 0)
		return false;
	if (worker->source->retention)
		deadline = DatumGetTimestampTz(DirectFunctionCall2(timestamptz_pl_interval, TimestampTzGetDatum(timestamp),
														   IntervalPGetDatum(worker->source->retention)));
	else
		deadline = timestamp + imgpipe_retention * INT64CONST(60) * USECS_PER_SEC;
	return deadline <= GetCurrentTimestamp();
}

bool
batch_probe(IngestWorker *worker, char error[KAFKA_ERROR_SIZE])
{
	IngestBatch *batch = &worker->batch;
	MemoryContext caller = MemoryContextSwitchTo(batch->context);
	IngestMessage *together[PROBES_AT_ONCE];
	int			n = 0;
	Size		bytes = 0;
	bool		decided = true;
	int			i;

	if (batch->began == 0)
		batch->began = GetCurrentTimestamp();
	for (i = batch->written; decided && i < batch->n; i++)
	{
		IngestMessage *message = &batch->messages[i];

		if (message->verdict != INGEST_UNDECIDED)
			continue;
		ingest_check_stop();
		if (is_expired(worker, &message->message))
			message->verdict = INGEST_EXPIRED;
		else
			message_read(worker->source, message);
		if (message->verdict != INGEST_UNDECIDED)
			continue;
		together[n++] = message;
		bytes += message->content_length;
		if (n == PROBES_AT_ONCE || bytes >= PROBE_BYTES)
		{
			decided = contents_probe(n, together, error);
			n = 0;
			bytes = 0;
		}
	}
	if (decided)
		decided = contents_probe(n, together, error);
	MemoryContextSwitchTo(caller);
	return decided;
}
