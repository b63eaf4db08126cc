/*
 * shared_state.h
 *		Shared memory: wake-ups and what status views show.  State that must
 *		survive lives in tables.
 *
 * All of it is guarded by one spinlock per slot; a slot is found by index and
 * never moves.  Present only when imgpipe is preloaded.
 */
#ifndef IMGPIPE_SHARED_STATE_H
#define IMGPIPE_SHARED_STATE_H

#include "imgpipe.h"

#include "datatype/timestamp.h"
#include "storage/latch.h"
#include "storage/spin.h"

#define IMGPIPE_MAX_DATABASES	64
#define IMGPIPE_MAX_WORKERS		128
#define IMGPIPE_ERROR_SIZE		512

typedef enum WorkerKind
{
	WORKER_NONE = 0,			/* the slot is free */
	WORKER_INGEST,
	WORKER_PROCESSOR,
	WORKER_JOB,
	WORKER_PURGE,
	WORKER_SENDER
} WorkerKind;

typedef enum WorkerState
{
	WORKER_STARTING = 0,
	WORKER_RUNNING,
	WORKER_IDLE,
	WORKER_WAITING,				/* ingest: for the queue to become shorter */
	WORKER_RETRYING,			/* last_error says why; it goes on by itself */
	WORKER_FAILED,				/* ended with last_error; started again after back-off */
	WORKER_STOPPED
} WorkerState;

/* One worker, living or lately ended. */
typedef struct WorkerSlot
{
	slock_t		mutex;
	WorkerKind	kind;
	Oid			database;
	Oid			role;
	int32		object;
	int16		slice;
	int16		n_slices;
	int64		run;			/* job: its run_id */
	pid_t		pid;			/* 0 when ended */
	WorkerState state;
	TimestampTz since;			/* of the state */
	TimestampTz started_at;
	bool		may_end;		/* processor: when idle; else min_processors keeps it */
	int			failures;		/* in a row, for the back-off */
	TimestampTz retry_at;
	bool		stop_requested;
	uint64		messages;		/* ingest, sender: messages; processor: tasks done */
	uint64		bytes;
	uint64		failed;			/* dead letters; failed tasks; refused messages */
	double		messages_per_second;	/* moving average */
	double		bytes_per_second;
	int64		lag;			/* ingest: messages behind; -1 unknown */
	TimestampTz last_error_at;
	int			last_sqlerrcode;
	char		last_error[IMGPIPE_ERROR_SIZE];
} WorkerSlot;

typedef struct ControllerSlot
{
	slock_t		mutex;
	Oid			database;		/* InvalidOid: free */
	bool		wanted;			/* there is, or may be, an extension to serve */
	bool		held;			/* stop_workers(): none until start_workers() */
	pid_t		pid;			/* 0: none running */
	Latch	   *latch;			/* valid while pid is set */
	TimestampTz retry_at;		/* not before, after a failure */
} ControllerSlot;

typedef struct SharedState
{
	slock_t		mutex;			/* guards launcher_latch and slot allocation */
	Latch	   *launcher_latch;
	ControllerSlot controllers[IMGPIPE_MAX_DATABASES];
	WorkerSlot	workers[IMGPIPE_MAX_WORKERS];
} SharedState;

extern SharedState *shared_state;	/* NULL unless preloaded */

extern void shared_state_request(void);

/* This database's controller slot, or NULL; create makes one where there is room. */
extern ControllerSlot *controller_slot(Oid database, bool create);

/*
 * Stops the controller and all workers of a database, and keeps them from
 * coming back until release_workers() or a restart of the server.  False where
 * they were held already.
 */
extern bool hold_workers(Oid database);
extern bool workers_are_gone(Oid database);
extern void release_workers(Oid database);

/* Sets a process's latch; nothing happens where it has just ended. */
extern void wake_process(pid_t pid);

/* This worker's slot; worker_start() sets it. */
extern WorkerSlot *my_slot;

extern void slot_set_state(WorkerState state);
extern void slot_set_error(WorkerState state, const char *message);
/* Adds to the counters and the moving averages. */
extern void slot_count(uint64 messages, uint64 bytes, uint64 failed);
extern void slot_set_lag(int64 lag);

#endif							/* IMGPIPE_SHARED_STATE_H */
