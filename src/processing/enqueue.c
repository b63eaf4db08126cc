/*
 * enqueue.c
 *		The trigger on images that makes their tasks.
 *
 * Runs in whatever session inserts an image, once a row, so it reads nothing
 * of the row but its id, and keeps its plan.  Its row locks on the processors
 * make drop_processor() wait for transactions that have made tasks of them.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "utils/rls.h"
#include "workers/worker.h"

PG_FUNCTION_INFO_V1(imgpipe_enqueue);

Datum
imgpipe_enqueue(PG_FUNCTION_ARGS)
{
	static SPIPlanPtr plan = NULL;
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	TupleDesc	descriptor;
	Datum		image_id;
	bool		is_null;

	if (!CALLED_AS_TRIGGER(fcinfo) ||
		!TRIGGER_FIRED_AFTER(trigger->tg_event) ||
		!TRIGGER_FIRED_FOR_ROW(trigger->tg_event) ||
		!TRIGGER_FIRED_BY_INSERT(trigger->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("imgpipe.enqueue() is a trigger of imgpipe.images"),
				 errhint("It is called by itself for every image that is inserted.")));

	/*
	 * A dump that is being restored brings its tasks along.  Nobody else who
	 * may insert at all has row_security off.
	 */
	if (!row_security)
		return PointerGetDatum(NULL);

	SPI_connect();
	if (plan == NULL)
	{
		Oid			types[1] = {UUIDOID};
		SPIPlanPtr	new_plan;

		/* A task may be left over where an image came back under its old id. */
		new_plan = SPI_prepare("INSERT INTO imgpipe.tasks (image_id, processor_id, version) "
							   "SELECT $1, p.processor_id, p.version "
							   "FROM imgpipe.processors p WHERE p.enabled "
							   "ORDER BY p.processor_id FOR KEY SHARE OF p "
							   "ON CONFLICT DO NOTHING",
							   1, types);
		if (new_plan == NULL || SPI_keepplan(new_plan) != 0)
			elog(ERROR, "could not prepare the insertion of tasks: %s",
				 SPI_result_code_string(SPI_result));
		plan = new_plan;
	}

	descriptor = RelationGetDescr(trigger->tg_relation);
	image_id = SPI_getbinval(trigger->tg_trigtuple, descriptor,
							 SPI_fnumber(descriptor, "image_id"), &is_null);
	if (SPI_execute_plan(plan, &image_id, NULL, false, 0) < 0)
		elog(ERROR, "could not insert tasks: %s", SPI_result_code_string(SPI_result));
	if (SPI_processed > 0)
		wake_controller();
	SPI_finish();
	return PointerGetDatum(NULL);
}
