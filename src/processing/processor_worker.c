/*
 * processor_worker.c
 *		The background worker that works on the tasks of one owner's processors.
 *
 * It claims the tasks of a few images, as many as it has lately done in a tenth
 * of a second, works on one image after the other, and looks for more.
 * Built-in processors: the image is read, all outputs of all of them are made
 * by the decoder from one decode with no transaction open, and a transaction of
 * the queue's writes them.  A processor that is a function is called in a
 * transaction of its own, as the owner, which is also the session user, so that
 * nothing the function does to roles gains it more.
 *
 * How an attempt may end:
 *		finished		the task is deleted where its outputs are written
 *		failed			claimable again after a back-off, or a dead letter
 *		given back		cancelled or told to stop: as if never claimed
 *		lost			the lease ran out and somebody else has it; write nothing
 *		none of these	this process died; the lease runs out, the attempt counts
 */
#include "postgres.h"

#include <signal.h>

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "commands/discard.h"
#include "decoder/client.h"
#include "decoder/protocol.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "processing/queue.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/regproc.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"
#include "workers/shared_state.h"
#include "workers/worker.h"

#define MOST_IMAGES_PER_CLAIM	16
#define CLAIM_MS			100		/* what one claim is meant to take */
#define IDLE_POLL_MS		1000	/* the controller wakes us; this is for retries */
#define IDLE_END_MS			5000
#define CANCELLED_DELAY		5	/* s until a cancelled task is tried again */
#define LEASE_MARGIN		2		/* s above the longest decode */
#define LEASE_RENEWAL_MS	1000	/* at most this much of a lease is used before work begins */
#define OVERDUE_GRACE_MS	10000	/* for a function that ignores its cancel */

typedef void (*Work) (List *tasks);

/* What the decoder made for one task. */
typedef struct Outcome
{
	bool		done;
	Image	  **outputs;
	DecoderFailure failure;
} Outcome;

PGDLLEXPORT void imgpipe_processor_main(Datum argument);

static MemoryContext batch_context;
static MemoryContext image_context;
static List *batch = NIL;		/* all that is claimed */
static List *current = NIL;		/* those being worked on */
static int	images_per_claim = 1;
static TimestampTz leased_at;

static TimeoutId function_timeout;
static volatile sig_atomic_t overdue = 0;	/* times that function_timeout fired */
static volatile sig_atomic_t working = false;
static volatile sig_atomic_t cancel_requested = false;
static volatile sig_atomic_t terminate_requested = false;

/* Signals. */

/* There is nothing to cancel but work on an image. */
static void
on_cancel(SIGNAL_ARGS)
{
	if (!working)
		return;
	cancel_requested = true;
	StatementCancelHandler(postgres_signal_arg);
}

static void
on_terminate(SIGNAL_ARGS)
{
	terminate_requested = true;
	die(postgres_signal_arg);
}

/* First it cancels the function; one that catches that takes the worker with it. */
static void
on_function_timeout(void)
{
	if (overdue++ == 0)
		QueryCancelPending = true;
	else
		ProcDiePending = true;
	InterruptPending = true;
	SetLatch(MyLatch);
}

/* Leases. */

/* In seconds; no decode may outlast it, or the image would be taken from worker to worker. */
static int
lease(void)
{
	return Max(imgpipe_task_lease, imgpipe_decoder_timeout / 1000 + LEASE_MARGIN);
}

/* How long a function may take, so that its lease outlasts it. */
static int
function_limit_ms(void)
{
	int			limit = imgpipe_task_lease * 900;

	return StatementTimeout > 0 ? Min(limit, StatementTimeout) : limit;
}

/* Before each piece of work: has it a whole lease before it? */
static void
keep_lease(void)
{
	InternalScope scope;
	ListCell   *cell;
	TimestampTz now = GetCurrentTimestamp();

	if (!TimestampDifferenceExceeds(leased_at, now, Min(LEASE_RENEWAL_MS, imgpipe_task_lease * 50)))
		return;
	queue_begin("extending leases", &scope);
	foreach(cell, batch)
	{
		Task	   *task = lfirst(cell);

		if (!task->settled && !queue_extend(task, lease()))
			task->settled = true;	/* lost */
	}
	queue_commit(&scope);
	MemoryContextSwitchTo(image_context);
	leased_at = now;
}

/* After the commit: until then whoever ends us leaves them to be given back. */
static void
settle(List *tasks)
{
	ListCell   *cell;

	foreach(cell, tasks)
		((Task *) lfirst(cell))->settled = true;
}

/* Gives back those of the tasks that are not settled. */
static void
give_back(List *tasks, int delay)
{
	InternalScope scope;
	ListCell   *cell;

	queue_begin("giving tasks back", &scope);
	foreach(cell, tasks)
	{
		Task	   *task = lfirst(cell);

		if (!task->settled)
			queue_release(task, delay);
	}
	queue_commit(&scope);
	settle(tasks);
}

/*
 * At exit, what was claimed and not begun is given back.  So is what we were
 * at, if somebody told us to end; but if the work itself ended us, the attempt
 * counts, or it would do so for ever.
 */
static void
give_back_at_exit(int code, Datum argument)
{
	List	   *tasks = batch;

	if (tasks == NIL)
		return;
	AbortOutOfAnyTransaction();
	MemoryContextSwitchTo(batch_context);
	if (overdue || !terminate_requested)
		tasks = list_difference_ptr(tasks, current);
	give_back(tasks, 0);
}

/* Ends of an attempt. */

static void
log_failure(const Task *task, bool buried, const char *reason)
{
	char	   *image_id = DatumGetCString(DirectFunctionCall1(uuid_out, UUIDPGetDatum(&task->image_id)));

	ereport(buried ? LOG : DEBUG1,
			(errmsg("imgpipe: processor \"%s\" failed on image %s: %s",
					task->processor, image_id, reason),
			 buried ? errdetail("It is in imgpipe.dead_letters now.") :
			 errdetail("Attempt %d; it will be tried again.", task->attempts)));
}

/* Inside a queue transaction. */
static void
fail_task(Task *task, int sqlerrcode, const char *reason, const char *detail, bool final)
{
	bool		buried;

	if (queue_fail(task, sqlerrcode, reason, detail, final, &buried))
	{
		log_failure(task, buried, reason);
		slot_count(0, 0, 1);
	}
}

/* What was wrong, and where, for the author of a function. */
static char *
error_detail(const ErrorData *error)
{
	StringInfoData detail;

	initStringInfo(&detail);
	if (error->detail)
		appendStringInfo(&detail, "%s\n", error->detail);
	if (error->hint)
		appendStringInfo(&detail, "%s\n", error->hint);
	if (error->context)
		appendStringInfoString(&detail, error->context);
	while (detail.len > 0 && detail.data[detail.len - 1] == '\n')
		detail.data[--detail.len] = '\0';
	return detail.len > 0 ? detail.data : NULL;
}

static void
fail_tasks(List *tasks, const ErrorData *error)
{
	InternalScope scope;
	ListCell   *cell;

	queue_begin("reporting a failure", &scope);
	foreach(cell, tasks)
	{
		Task	   *task = lfirst(cell);

		if (task->settled)
			continue;
		if (overdue)
			fail_task(task, ERRCODE_QUERY_CANCELED, "the processor's function took too long",
					  psprintf("It was cancelled after %d ms, nine tenths of imgpipe.task_lease or the owner's statement_timeout.",
							   function_limit_ms()),
					  false);
		else
			fail_task(task, error->sqlerrcode, error->message, error_detail(error), false);
	}
	queue_commit(&scope);
	settle(tasks);
}

/* Whatever settings, temporary tables or locks a function has left behind. */
static void
reset_session(void)
{
	DiscardStmt statement = {T_DiscardStmt, DISCARD_ALL};

	worker_transaction_begin("resetting the session");
	DiscardCommand(&statement, true);
	worker_transaction_commit();
	MemoryContextSwitchTo(image_context);
}

/* Works on tasks of one image; an error is theirs, not ours. */
static void
attempt(Work work, List *tasks)
{
	ErrorData  *volatile error = NULL;

	current = tasks;
	overdue = 0;
	cancel_requested = false;
	working = true;
	PG_TRY();
	{
		work(tasks);
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(image_context);
		error = CopyErrorData();
		FlushErrorState();
		disable_timeout(function_timeout, false);
		worker_transaction_abort();
	}
	PG_END_TRY();
	working = false;
	QueryCancelPending = false; /* one may have come too late */
	MemoryContextSwitchTo(image_context);

	if (error != NULL && cancel_requested && error->sqlerrcode == ERRCODE_QUERY_CANCELED)
		give_back(tasks, CANCELLED_DELAY);
	else if (error != NULL)
		fail_tasks(tasks, error);
	MemoryContextSwitchTo(image_context);
	current = NIL;
}

/* Built-in processors. */

/* A copy of the image as the owner may see it, or NULL where it is purged. */
static Image *
read_image(const pg_uuid_t *image_id)
{
	static SPIPlanPtr plan = NULL;
	Datum		values[1] = {UUIDPGetDatum(image_id)};
	Image	   *image = NULL;

	worker_transaction_begin("reading an image");
	if (plan == NULL)
	{
		Oid			types[1] = {UUIDOID};
		SPIPlanPtr	new_plan;

		new_plan = SPI_prepare("SELECT content FROM imgpipe.images "
							   "WHERE image_id OPERATOR(pg_catalog.=) $1 "
							   "AND image_id OPERATOR(pg_catalog.>=) imgpipe.fence()",
							   1, types);
		if (new_plan == NULL || SPI_keepplan(new_plan) != 0)
			elog(ERROR, "could not prepare the reading of images: %s",
				 SPI_result_code_string(SPI_result));
		plan = new_plan;
	}
	if (SPI_execute_plan(plan, values, NULL, true, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not read an image");
	if (SPI_processed > 0)
	{
		bool		is_null;
		Datum		content = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &is_null);

		MemoryContextSwitchTo(image_context);
		image = (Image *) PG_DETOAST_DATUM_COPY(content);
	}
	worker_transaction_commit();
	MemoryContextSwitchTo(image_context);
	return image;
}

/* One decode for the tasks from first up to, not including, end. */
static bool
decode(const Image *image, List *tasks, int first, int end, Outcome *outcomes)
{
	const char *pipelines[DECODER_MAX_OUTPUTS];
	Image	  **outputs = palloc0(DECODER_MAX_OUTPUTS * sizeof(Image *));
	DecoderFailure failure = {DECODER_NO_FAILURE};
	int			n_outputs = 0;
	int			i;

	for (i = first; i < end; i++)
	{
		Task	   *task = list_nth(tasks, i);

		outcomes[i].outputs = outputs + n_outputs;
		memcpy(pipelines + n_outputs, task->pipelines, task->n_outputs * sizeof(char *));
		n_outputs += task->n_outputs;
	}
	keep_lease();
	pgstat_report_activity(STATE_RUNNING, "decoding an image");
	outcomes[first].done = decoder_process(&image, 1, n_outputs, pipelines, outputs, &failure);
	pgstat_report_activity(STATE_IDLE, NULL);
	outcomes[first].failure = failure;
	for (i = first + 1; i < end; i++)
		outcomes[i].done = outcomes[first].done;
	return outcomes[first].done;
}

static void
decode_all(const Image *image, List *tasks, Outcome *outcomes)
{
	int			first;
	int			end;
	int			i;

	for (first = 0; first < list_length(tasks); first = end)
	{
		int			n_outputs = 0;

		for (end = first; end < list_length(tasks); end++)
		{
			Task	   *task = list_nth(tasks, end);

			if (n_outputs + task->n_outputs > DECODER_MAX_OUTPUTS)
				break;
			n_outputs += task->n_outputs;
		}
		/* One bad pipeline must not fail the other processors. */
		if (!decode(image, tasks, first, end, outcomes) && end - first > 1)
			for (i = first; i < end; i++)
				decode(image, tasks, i, i + 1, outcomes);
	}
}

/* What went wrong, naming the output where it was one. */
static char *
failure_reason(const Task *task, const DecoderFailure *failure)
{
	if (failure->output < 0 || failure->output >= task->n_outputs || task->n_outputs == 1)
		return failure->message;
	return psprintf("output \"%s\": %s", task->output_names[failure->output], failure->message);
}

static void
make_renditions(List *tasks)
{
	Task	   *first = linitial(tasks);
	Outcome    *outcomes = palloc0(list_length(tasks) * sizeof(Outcome));
	Image	   *image = read_image(&first->image_id);
	InternalScope scope;
	ListCell   *cell;
	bool		exists;
	uint64		n_done = 0;

	if (image != NULL)
		decode_all(image, tasks, outcomes);

	queue_begin("writing renditions", &scope);
	exists = image != NULL && queue_image_exists(&first->image_id);
	foreach(cell, tasks)
	{
		Task	   *task = lfirst(cell);
		Outcome    *outcome = &outcomes[foreach_current_index(cell)];
		int			i;

		if (task->settled)
			continue;
		if (exists && !outcome->done)
		{
			/*
			 * The same bytes would be rejected again, so that is final.  A
			 * decoder that died or took too long may do better next time.
			 */
			fail_task(task, outcome->failure.sqlerrcode, failure_reason(task, &outcome->failure),
					  outcome->failure.detail, outcome->failure.kind == DECODER_REJECTED);
			continue;
		}
		if (queue_finish(task) && exists)
		{
			for (i = 0; i < task->n_outputs; i++)
				queue_write_rendition(task, i, outcome->outputs[i]);
			n_done++;
		}
	}
	queue_complete(&first->image_id);
	queue_commit(&scope);
	settle(tasks);
	if (n_done > 0)
		slot_count(n_done, IMAGE_LENGTH(image), 0);
}

/* Functions. */

static void
call_function(List *tasks)
{
	Task	   *task = linitial(tasks);
	int			limit = function_limit_ms();
	Datum		values[1] = {UUIDPGetDatum(&task->image_id)};
	Oid			types[1] = {UUIDOID};
	InternalScope scope;
	Oid			function;
	char	   *query;
	Datum		result = (Datum) 0;
	bool		is_null = true;
	bool		exists;

	keep_lease();
	if (task->settled)
		return;
	worker_transaction_begin(psprintf("calling %s", task->function));
	enable_timeout_every(function_timeout,
						 TimestampTzPlusMilliseconds(GetCurrentTimestamp(), limit),
						 OVERDUE_GRACE_MS);

	/* By name, as the owner: it must be able to use the schema and to execute the function. */
	function = DatumGetObjectId(DirectFunctionCall1(regprocedurein, CStringGetDatum(task->function)));
	query = psprintf("SELECT %s(content) FROM imgpipe.images "
					 "WHERE image_id OPERATOR(pg_catalog.=) $1 "
					 "AND image_id OPERATOR(pg_catalog.>=) imgpipe.fence()",
					 quote_qualified_identifier(get_namespace_name(get_func_namespace(function)),
												get_func_name(function)));
	if (SPI_execute_with_args(query, 1, types, values, NULL, false, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not call %s", task->function);
	exists = SPI_processed > 0;
	if (exists)
	{
		if (SPI_gettypeid(SPI_tuptable->tupdesc, 1) != JSONBOID)
			ereport(ERROR,
					(errcode(ERRCODE_DATATYPE_MISMATCH),
					 errmsg("function %s does not return jsonb any more", task->function)));
		result = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &is_null);
	}

	internal_begin(&scope);
	if (!queue_finish(task))
	{
		/* Lost: undo what the function did, for whoever has the task now calls it too. */
		disable_timeout(function_timeout, false);
		worker_transaction_abort();
		task->settled = true;
		return;
	}
	if (exists)
		queue_write_result(task, result, is_null);
	queue_complete(&task->image_id);
	internal_end(&scope);
	worker_transaction_commit();
	disable_timeout(function_timeout, false);
	task->settled = true;
	if (exists)
		slot_count(1, 0, 0);
}

/* The loop. */

static bool
stop_requested(bool *may_end)
{
	bool		stop;

	SpinLockAcquire(&my_slot->mutex);
	stop = my_slot->stop_requested;
	*may_end = my_slot->may_end;
	SpinLockRelease(&my_slot->mutex);
	return stop;
}

/* All tasks of one image. */
static void
process_image(List *tasks)
{
	List	   *built_in = NIL;
	ListCell   *cell;

	foreach(cell, tasks)
	{
		Task	   *task = lfirst(cell);

		if (task->function == NULL)
			built_in = lappend(built_in, task);
	}
	if (built_in != NIL)
		attempt(make_renditions, built_in);
	foreach(cell, tasks)
	{
		Task	   *task = lfirst(cell);

		if (task->function != NULL && !task->settled)
		{
			attempt(call_function, list_make1(task));
			reset_session();
		}
	}
}

/*
 * A claim should cost little beside its images, but those that wait for a slow
 * one would be done sooner by another worker, and one that ends the worker
 * takes an attempt from them.
 */
static void
adjust_images_per_claim(TimestampTz claimed_at, int n_tasks)
{
	TimestampTz now = GetCurrentTimestamp();

	if (TimestampDifferenceExceeds(claimed_at, now, 2 * CLAIM_MS))
		images_per_claim = Max(images_per_claim / 2, 1);
	else if (n_tasks >= images_per_claim && !TimestampDifferenceExceeds(claimed_at, now, CLAIM_MS / 2))
		images_per_claim = Min(images_per_claim * 2, MOST_IMAGES_PER_CLAIM);
}

/* Image by image; what is left when we are to stop is given back at exit. */
static void
process_batch(TimestampTz claimed_at)
{
	int			first;
	int			end;
	bool		may_end;

	for (first = 0; first < list_length(batch); first = end)
	{
		Task	   *task = list_nth(batch, first);
		List	   *tasks = NIL;

		CHECK_FOR_INTERRUPTS();
		if (stop_requested(&may_end))
			proc_exit(0);
		MemoryContextReset(image_context);
		MemoryContextSwitchTo(image_context);
		for (end = first; end < list_length(batch); end++)
		{
			Task	   *other = list_nth(batch, end);

			if (memcmp(&other->image_id, &task->image_id, sizeof(pg_uuid_t)) != 0)
				break;
			tasks = lappend(tasks, other);
		}
		process_image(tasks);
	}
	adjust_images_per_claim(claimed_at, list_length(batch));
	batch = NIL;
}

static bool
extension_exists(void)
{
	bool		exists;

	worker_transaction_begin("looking for the extension");
	exists = worker_extension_exists();
	worker_transaction_commit();
	return exists;
}

void
imgpipe_processor_main(Datum argument)
{
	const WorkerArguments *arguments = worker_start();
	TimestampTz idle_since = 0;
	bool		may_end;

	pqsignal(SIGINT, on_cancel);
	pqsignal(SIGTERM, on_terminate);
	before_shmem_exit(give_back_at_exit, (Datum) 0);
	function_timeout = RegisterTimeout(USER_TIMEOUT, on_function_timeout);
	batch_context = AllocSetContextCreate(TopMemoryContext, "imgpipe batch", ALLOCSET_DEFAULT_SIZES);
	image_context = AllocSetContextCreate(TopMemoryContext, "imgpipe image", ALLOCSET_DEFAULT_SIZES);

	while (!stop_requested(&may_end) && extension_exists())
	{
		TimestampTz now = GetCurrentTimestamp();

		MemoryContextReset(image_context);
		MemoryContextReset(batch_context);
		MemoryContextSwitchTo(batch_context);
		batch = queue_claim(arguments->role, images_per_claim, lease());
		leased_at = now;
		if (batch != NIL)
		{
			idle_since = 0;
			slot_set_state(WORKER_RUNNING);
			process_batch(now);
			worker_sleep(0, wait_event_idle());
			continue;
		}
		if (idle_since == 0)
		{
			idle_since = now;
			slot_set_state(WORKER_IDLE);
		}
		else if (may_end && TimestampDifferenceExceeds(idle_since, now, IDLE_END_MS))
			break;
		worker_sleep(IDLE_POLL_MS, wait_event_idle());
	}
	proc_exit(0);
}
