/*
 * queue.h
 *		The queue of tasks, as a processor worker uses it.
 */
#ifndef IMGPIPE_QUEUE_H
#define IMGPIPE_QUEUE_H

#include "image/image.h"
#include "nodes/pg_list.h"
#include "utils/uuid.h"
#include "workers/worker.h"

/* A claimed task; attempts and version are the token of the claim. */
typedef struct Task
{
	int64		task_id;
	pg_uuid_t	image_id;
	int32		attempts;
	int32		version;
	char	   *processor;
	int			n_outputs;		/* 0 where function is set */
	char	  **output_names;
	char	  **pipelines;
	char	   *function;		/* signature, or NULL */
	bool		settled;		/* finished, failed, given back or lost */
} Task;

/*
 * A transaction of the queue's own, as the extension's owner.  It need not
 * reach the disk before the next one: whatever a crash undoes is done again.
 */
extern void queue_begin(const char *activity, InternalScope *scope);
extern void queue_commit(const InternalScope *scope);

/* A list of Task, those of one image together, in the current memory context. */
extern List *queue_claim(Oid owner, int max_images, int lease);

/*
 * These run between queue_begin() or internal_begin() and its end.  They
 * return false where somebody else has the task by now.
 */
extern bool queue_extend(const Task *task, int lease);
extern bool queue_release(const Task *task, int delay);
extern bool queue_finish(const Task *task);
extern bool queue_fail(const Task *task, int sqlerrcode, const char *reason,
					   const char *detail, bool final, bool *buried);

/* After the outputs of the image's tasks: where these were the last ones, its result is ready. */
extern void queue_complete(const pg_uuid_t *image_id);

extern bool queue_image_exists(const pg_uuid_t *image_id);
extern void queue_write_rendition(const Task *task, int output, const Image *content);
extern void queue_write_result(const Task *task, Datum result, bool is_null);

#endif							/* IMGPIPE_QUEUE_H */
