/*
 * worker.h
 *		What every background worker of imgpipe shares.
 *
 * A worker is started by its database's controller, connects as the owner of
 * what it serves and ends by itself.  Statements of the extension's own
 * (queue, positions, status) run between internal_begin() and internal_end(),
 * as the extension's owner with a fixed search_path; all else runs as the
 * connected role.
 */
#ifndef IMGPIPE_WORKER_H
#define IMGPIPE_WORKER_H

#include "imgpipe.h"

#include "executor/spi.h"
#include "postmaster/bgworker.h"
#include "workers/shared_state.h"

/* Travels in bgw_extra: Oids and numbers only. */
typedef struct WorkerArguments
{
	Oid			database;
	Oid			role;			/* InvalidOid: the bootstrap superuser */
	int32		object;			/* source_id, job_id, sender_id; unused by processors */
	int16		slice;			/* this worker's share: slice of n_slices */
	int16		n_slices;
	int32		slot;			/* index of its slot in shared memory */
	int64		run;			/* run_id of a job's worker */
} WorkerArguments;

typedef struct InternalScope
{
	Oid			user;
	int			security_context;
	int			guc_nest_level;
} InternalScope;

/* Signals, connection, identity; first thing in a worker's main function. */
extern const WorkerArguments *worker_start(void);

/*
 * A transaction with SPI, a snapshot and its report in pg_stat_activity.
 * Never left open across a wait.
 */
extern void worker_transaction_begin(const char *activity);
extern void worker_transaction_commit(void);
extern void worker_transaction_abort(void);

/*
 * The commit of the current transaction does not wait for the disk: where it is
 * lost in a crash, its work is done again and nobody misses it.
 */
extern void worker_transaction_need_not_last(void);

/* Something is in the way of our work: in our slot, and once in the log. */
extern void worker_held_up(const char *problem);

/* Nothing is any more; with the state for our slot. */
extern void worker_goes_on(WorkerState state);
extern bool worker_is_held_up(void);

/* False once the extension is gone from this database; inside a transaction. */
extern bool worker_extension_exists(void);

/* Whether it is there and the current role may do with it as it likes. */
extern bool worker_extension_is_owned(void);

/* As the extension's owner, search_path = pg_catalog, pg_temp; not nested. */
extern void internal_begin(InternalScope *scope);
extern void internal_end(const InternalScope *scope);

/*
 * Waits on the latch for at most timeout ms, handling interrupts and reloads;
 * wait_event is one of those below.
 */
extern void worker_sleep(long timeout, uint32 wait_event);

/* Registers and starts a dynamic worker; false where no slot was free. */
extern bool worker_launch(const char *function, const char *type, const char *name,
						  const WorkerArguments *arguments,
						  BackgroundWorkerHandle **handle);

/* Wakes this database's controller at commit (or at once outside of one). */
extern void wake_controller(void);

/* Wait events, named in pg_stat_activity from PostgreSQL 17 on. */
extern uint32 wait_event_decoder(void);
extern uint32 wait_event_kafka(void);
extern uint32 wait_event_acknowledgement(void);
extern uint32 wait_event_idle(void);

#endif							/* IMGPIPE_WORKER_H */
