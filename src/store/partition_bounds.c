/*
 * partition_bounds.c
 *		The purge deadlines that a partition holds, from pg_class.relpartbound.
 *
 * The same could be parsed from pg_get_expr()'s text, but the purge and the
 * making of partitions look at hundreds of partitions every few seconds.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "imgpipe.h"
#include "nodes/parsenodes.h"
#include "nodes/primnodes.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(imgpipe_partition_ids);

/* The id of a bound; false for MINVALUE, MAXVALUE and whatever is no uuid. */
static bool
bound_id(List *bounds, Datum *id)
{
	PartitionRangeDatum *bound;
	Const	   *value;

	if (list_length(bounds) != 1 || !IsA(linitial(bounds), PartitionRangeDatum))
		return false;
	bound = linitial_node(PartitionRangeDatum, bounds);
	if (bound->kind != PARTITION_RANGE_DATUM_VALUE || !IsA(bound->value, Const))
		return false;
	value = castNode(Const, bound->value);
	*id = value->constvalue;
	return value->consttype == UUIDOID && !value->constisnull;
}

Datum
imgpipe_partition_ids(PG_FUNCTION_ARGS)
{
	Node	   *node = stringToNode(TextDatumGetCString(PG_GETARG_DATUM(0)));
	PartitionBoundSpec *bounds = castNode(PartitionBoundSpec, node);
	TupleDesc	descriptor;
	Datum		values[2];
	bool		nulls[2] = {false, false};

	if (get_call_result_type(fcinfo, NULL, &descriptor) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	if (!bound_id(bounds->lowerdatums, &values[0]) || !bound_id(bounds->upperdatums, &values[1]))
		PG_RETURN_NULL();
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(descriptor), values, nulls)));
}
