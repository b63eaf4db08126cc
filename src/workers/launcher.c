/*
 * launcher.c
 *		The launcher: one process without a database that sees to it that each
 *		database with imgpipe has a controller.
 *
 * Whether a database has the extension is known only inside it.  So the
 * launcher starts a controller once in every database that it has not seen
 * yet; one that finds no extension ends and clears "wanted".  CREATE EXTENSION
 * sets it again (wake_controller).  A controller that failed is started again
 * after its back-off.
 *
 * It runs from the end of recovery on: on a standby there is nothing to do
 * until it is promoted.
 */
#include "postgres.h"

#include <signal.h>

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_database.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "tcop/tcopprot.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "workers/launcher.h"
#include "workers/shared_state.h"
#include "workers/worker.h"

/* New databases (CREATE DATABASE ... TEMPLATE) are found this often, in ms. */
#define SCAN_INTERVAL		60000
/* While a controller is wanted that could not be started, in ms. */
#define RETRY_INTERVAL		5000

PGDLLEXPORT void imgpipe_launcher_main(Datum argument);

void
launcher_register(void)
{
	BackgroundWorker worker;

	memset(&worker, 0, sizeof(worker));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = 5;
	strlcpy(worker.bgw_library_name, "imgpipe", sizeof(worker.bgw_library_name));
	strlcpy(worker.bgw_function_name, "imgpipe_launcher_main", sizeof(worker.bgw_function_name));
	strlcpy(worker.bgw_name, "imgpipe launcher", BGW_MAXLEN);
	strlcpy(worker.bgw_type, "imgpipe launcher", BGW_MAXLEN);
	RegisterBackgroundWorker(&worker);
}

static void
leave_launcher(int code, Datum argument)
{
	SpinLockAcquire(&shared_state->mutex);
	shared_state->launcher_latch = NULL;
	SpinLockRelease(&shared_state->mutex);
}

/* Gives every database that can be connected to a slot, and takes lost ones back. */
static void
scan_databases(void)
{
	static bool warned = false;
	bool		seen[IMGPIPE_MAX_DATABASES] = {false};
	Relation	relation;
	TableScanDesc scan;
	HeapTuple	tuple;
	int			i;

	StartTransactionCommand();
	(void) GetTransactionSnapshot();
	relation = table_open(DatabaseRelationId, AccessShareLock);
	scan = table_beginscan_catalog(relation, 0, NULL);
	while (HeapTupleIsValid(tuple = heap_getnext(scan, ForwardScanDirection)))
	{
		Form_pg_database database = (Form_pg_database) GETSTRUCT(tuple);
		ControllerSlot *slot;

		/* DROP DATABASE says so before it commits. */
		if (!database->datallowconn || database->datistemplate || database_is_being_dropped(database))
			continue;
		slot = controller_slot(database->oid, true);
		if (slot != NULL)
			seen[slot - shared_state->controllers] = true;
		else if (!warned)
		{
			warned = true;
			ereport(WARNING,
					(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
					 errmsg("imgpipe cannot serve more than %d databases", IMGPIPE_MAX_DATABASES),
					 errdetail("Database \"%s\" and those behind it get no workers.",
							   NameStr(database->datname))));
		}
	}
	table_endscan(scan);
	table_close(relation, AccessShareLock);
	CommitTransactionCommand();

	for (i = 0; i < IMGPIPE_MAX_DATABASES; i++)
	{
		ControllerSlot *slot = &shared_state->controllers[i];

		SpinLockAcquire(&shared_state->mutex);
		if (!seen[i] && slot->pid == 0)
			slot->database = InvalidOid;
		SpinLockRelease(&shared_state->mutex);
	}
}

/* Starts one controller and waits until it runs; false to try again later. */
static bool
start_controller(int index, Oid database)
{
	WorkerArguments arguments = {.database = database, .slot = index};
	BackgroundWorkerHandle *handle;
	char		name[BGW_MAXLEN];
	pid_t		pid;

	snprintf(name, sizeof(name), "imgpipe controller for database %u", database);
	if (!worker_launch("imgpipe_controller_main", "imgpipe controller", name, &arguments, &handle))
	{
		ereport(LOG,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("imgpipe could not start a controller: no background worker is free"),
				 errhint("Raise max_worker_processes.")));
		return false;
	}
	return WaitForBackgroundWorkerStartup(handle, &pid) == BGWH_STARTED;
}

/* True when all that is wanted runs. */
static bool
start_wanted_controllers(void)
{
	bool		complete = true;
	int			i;

	for (i = 0; i < IMGPIPE_MAX_DATABASES; i++)
	{
		ControllerSlot *slot = &shared_state->controllers[i];
		bool		start;
		Oid			database;

		SpinLockAcquire(&slot->mutex);
		database = slot->database;
		start = OidIsValid(database) && slot->wanted && !slot->held && slot->pid == 0;
		if (start && slot->retry_at > GetCurrentTimestamp())
		{
			start = false;
			complete = false;
		}
		/* Between its start and its first words it must not be started again. */
		if (start)
			slot->retry_at = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), RETRY_INTERVAL);
		SpinLockRelease(&slot->mutex);
		if (start && !start_controller(i, database))
			complete = false;
		CHECK_FOR_INTERRUPTS();
	}
	return complete;
}

void
imgpipe_launcher_main(Datum argument)
{
	bool		complete;

	pqsignal(SIGTERM, die);
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	before_shmem_exit(leave_launcher, (Datum) 0);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);

	SpinLockAcquire(&shared_state->mutex);
	shared_state->launcher_latch = MyLatch;
	SpinLockRelease(&shared_state->mutex);

	for (;;)
	{
		/* What is to be started may be in a database that was dropped. */
		scan_databases();
		complete = start_wanted_controllers();
		worker_sleep(complete ? SCAN_INTERVAL : RETRY_INTERVAL, wait_event_idle());
	}
}
