/*
 * kafka_handle.c
 *		The start, the waiting and the end of librdkafka, for consumer and
 *		producer alike.
 *
 * - No callbacks.  Everything arrives as an event on one queue that the
 *	 process's only PostgreSQL thread polls, so nothing ever unwinds through
 *	 the library and none of its threads ever runs code of ours.
 * - No hidden waiting.  The queue writes into a pipe when it fills, and the
 *	 process waits for that pipe and its latch together.
 *
 * A process must not leave by exit() while the library's threads run, because
 * exit handlers of the libraries that they use run then: delete the context of
 * the handle first (on_proc_exit).  Where they do not end, it leaves by _exit().
 */
#include "postgres.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#include "ingest/kafka_handle.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "utils/memutils.h"

#define DESTROY_TIMEOUT	3		/* s */

static void *
destroy_client(void *client)
{
	/* There is no group to leave, and leaving can take a session timeout. */
	rd_kafka_destroy_flags(client, RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE);
	return NULL;
}

static void
leave_at_once(int code, Datum argument)
{
	_exit(code);
}

/*
 * The library waits for its threads' end, which never comes where a topic was
 * deleted at the wrong moment (its issues 3007 and 4362).  A thread of its own
 * waits for that, and we only so long for the thread.
 */
static void
client_end(rd_kafka_t *client)
{
	static bool abandoned = false;
	sigset_t	all,
				before;
	pthread_t	thread;
	struct timespec deadline;
	int			error;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	error = pthread_create(&thread, NULL, destroy_client, client);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (error != 0)
	{
		destroy_client(client);
		return;
	}
	clock_gettime(CLOCK_REALTIME, &deadline);
	deadline.tv_sec += DESTROY_TIMEOUT;
	if (pthread_timedjoin_np(thread, NULL, &deadline) == 0)
		return;
	pthread_detach(thread);
	if (!abandoned)
		on_proc_exit(leave_at_once, (Datum) 0);
	abandoned = true;
}

static void
handle_destroy(void *argument)
{
	KafkaHandle *handle = argument;
	int			i;

	if (handle->queue)
	{
		rd_kafka_queue_io_event_enable(handle->queue, -1, NULL, 0);
		rd_kafka_queue_destroy(handle->queue);
	}
	if (handle->client)
		client_end(handle->client);
	for (i = 0; i < 2; i++)
	{
		if (handle->wake_pipe[i] < 0)
			continue;
		close(handle->wake_pipe[i]);
		ReleaseExternalFD();
	}
}

void
kafka_set_property(rd_kafka_conf_t *conf, const char *name, const char *value, bool secret)
{
	char		reason[KAFKA_ERROR_SIZE];

	if (rd_kafka_conf_set(conf, name, value, reason, sizeof(reason)) == RD_KAFKA_CONF_OK)
		return;
	rd_kafka_conf_destroy(conf);
	ereport(ERROR,
			(errcode(ERRCODE_FDW_UNABLE_TO_ESTABLISH_CONNECTION),
			 errmsg("Kafka client refused option \"%s\"", name),
			 secret ? 0 : errdetail("%s.", reason)));
}

void
kafka_set_number(rd_kafka_conf_t *conf, const char *name, int64 number)
{
	char		value[32];

	snprintf(value, sizeof(value), INT64_FORMAT, number);
	kafka_set_property(conf, name, value, false);
}

rd_kafka_conf_t *
kafka_configuration(const KafkaSetting *settings, int n_settings)
{
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	char		ignored[KAFKA_ERROR_SIZE];
	int			i;

	kafka_set_property(conf, "client.id", "imgpipe", false);
	kafka_set_property(conf, "socket.keepalive.enable", "true", false);
	kafka_set_number(conf, "reconnect.backoff.max.ms", 2000);
	for (i = 0; i < n_settings; i++)
		kafka_set_property(conf, settings[i].name, settings[i].value, settings[i].secret);

	kafka_set_property(conf, "allow.auto.create.topics", "false", false);
	kafka_set_property(conf, "log.queue", "true", false);
	/* Known from librdkafka 2.5 on: brokers need no metrics of ours. */
	(void) rd_kafka_conf_set(conf, "enable.metrics.push", "false", ignored, sizeof(ignored));
	return conf;
}

void
kafka_handle_open(KafkaHandle *handle, rd_kafka_type_t type, rd_kafka_conf_t *conf)
{
	char		reason[KAFKA_ERROR_SIZE];
	sigset_t	all,
				before;

	/* From here on the context's reset cleans up, however far we come. */
	handle->client = NULL;
	handle->queue = NULL;
	handle->wake_pipe[0] = handle->wake_pipe[1] = -1;
	handle->callback.func = handle_destroy;
	handle->callback.arg = handle;
	MemoryContextRegisterResetCallback(CurrentMemoryContext, &handle->callback);

	if (pipe2(handle->wake_pipe, O_NONBLOCK | O_CLOEXEC) < 0)
	{
		rd_kafka_conf_destroy(conf);
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not create a pipe: %m")));
	}
	ReserveExternalFD();
	ReserveExternalFD();

	/* No thread but ours may take the process's signals. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	handle->client = rd_kafka_new(type, conf, reason, sizeof(reason));
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (handle->client == NULL)
	{
		rd_kafka_conf_destroy(conf);
		ereport(ERROR,
				(errcode(ERRCODE_FDW_UNABLE_TO_ESTABLISH_CONNECTION),
				 errmsg("could not start the Kafka client"),
				 errdetail("%s.", reason),
				 errhint("Check the options of the server and of the user mapping.")));
	}

	/* Errors, logs, messages and reports on one queue. */
	rd_kafka_set_log_queue(handle->client, NULL);
	if (type == RD_KAFKA_CONSUMER)
	{
		rd_kafka_poll_set_consumer(handle->client);
		handle->queue = rd_kafka_queue_get_consumer(handle->client);
	}
	else
		handle->queue = rd_kafka_queue_get_main(handle->client);
	rd_kafka_queue_io_event_enable(handle->queue, handle->wake_pipe[1], "x", 1);
}

void
kafka_handle_wait(KafkaHandle *handle, long timeout, uint32 wait_event)
{
	char		wakes[64];
	int			happened = WaitLatchOrSocket(MyLatch,
											 WL_LATCH_SET | WL_SOCKET_READABLE | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
											 handle->wake_pipe[0], timeout, wait_event);

	if (happened & WL_LATCH_SET)
		ResetLatch(MyLatch);
	/* Emptied before the next poll: what comes after that fills it again. */
	while (read(handle->wake_pipe[0], wakes, sizeof(wakes)) > 0)
		;
	CHECK_FOR_INTERRUPTS();
}

/*
 * The library says a lot, and what matters comes as an error as well: keep its
 * own words for those who look for them.
 */
void
kafka_report_log(rd_kafka_event_t *event)
{
	const char *facility;
	const char *text;
	int			level;

	if (rd_kafka_event_log(event, &facility, &text, &level) == 0)
		ereport(level <= 2 ? LOG : DEBUG1,
				(errmsg_internal("librdkafka %s: %s", facility, text)));
}
