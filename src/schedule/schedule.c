/*
 * schedule.c
 *		Schedules in SQL: cron.c over PostgreSQL's timestamps and time zones.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "fmgr.h"
#include "funcapi.h"
#include "imgpipe.h"
#include "miscadmin.h"
#include "pgtime.h"
#include "schedule/cron.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

/* Due times are counted up to this. */
#define COUNT_LIMIT		10000

/* Years 1 to 9999, for which every time zone gives an answer; in s since 1970. */
#define FIRST_SECOND	INT64CONST(-62135596800)
#define LAST_SECOND		INT64CONST(253402300799)

#define EPOCH_DIFFERENCE \
	((POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * (int64) SECS_PER_DAY)

PG_FUNCTION_INFO_V1(imgpipe_scheduler_clock);
PG_FUNCTION_INFO_V1(imgpipe_next_run);
PG_FUNCTION_INFO_V1(imgpipe_last_run);
PG_FUNCTION_INFO_V1(imgpipe_schedule_kind);

Datum
imgpipe_scheduler_clock(PG_FUNCTION_ARGS)
{
	PG_RETURN_TIMESTAMPTZ(GetCurrentTimestamp() + imgpipe_clock_offset * USECS_PER_SEC);
}

static CronSchedule
read_schedule(const text *value)
{
	char	   *string = text_to_cstring(value);
	CronSchedule schedule;
	CronError	error;

	if (!cron_parse(string, &schedule, &error))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid schedule: \"%s\"", string),
				 errdetail("In it %s.", error.message),
				 error.hint[0] != '\0' ? errhint("%s", error.hint) :
				 errhint("A schedule is, for example, 30 2 * * mon-fri, or @hourly, or 30 seconds.")));
	return schedule;
}

static pg_tz *
read_time_zone(const text *value)
{
	char	   *name = text_to_cstring(value);
	pg_tz	   *zone = pg_tzset(name);

	if (zone == NULL || !pg_tz_acceptable(zone))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("time zone \"%s\" is not known", name),
				 errdetail("A job's schedule goes by the clock of its time zone."),
				 errhint("SELECT name FROM pg_timezone_names; shows the names.")));
	return zone;
}

static void
check_moment(TimestampTz moment)
{
	if (TIMESTAMP_NOT_FINITE(moment) ||
		moment < (FIRST_SECOND - EPOCH_DIFFERENCE) * USECS_PER_SEC ||
		moment > (LAST_SECOND - EPOCH_DIFFERENCE) * USECS_PER_SEC)
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
				 errmsg("schedules are followed from the year 1 to the year 9999"),
				 errdetail("The time is %s.", timestamptz_to_str(moment)),
				 errhint("Choose a time in between.")));
}

static CronOffset
zone_clock(void *zone, int64_t instant)
{
	CronOffset	result = {0, CRON_NEVER};
	pg_time_t	at = instant;
	pg_time_t	boundary;
	long int	before;
	long int	after;
	int			before_is_dst;
	int			after_is_dst;

	switch (pg_next_dst_boundary(&at, &before, &before_is_dst, &boundary, &after, &after_is_dst, zone))
	{
		case 1:
			result.until = boundary;
			/* FALLTHROUGH */
		case 0:
			result.offset = before;
			break;
		default:
			elog(ERROR, "time zone has no rule for second " INT64_FORMAT, (int64) instant);
	}
	return result;
}

/* DT_NOEND for a time that never comes. */
static TimestampTz
next_due(const CronSchedule *schedule, TimestampTz after, pg_tz *zone)
{
	int64		seconds;
	int64		due;

	switch (schedule->kind)
	{
		case CRON_INTERVAL:
			return after + schedule->interval * USECS_PER_SEC;
		case CRON_REBOOT:
			return DT_NOEND;
		case CRON_CALENDAR:
			break;
	}
	seconds = after / USECS_PER_SEC - (after % USECS_PER_SEC < 0);
	due = cron_next(schedule, seconds + EPOCH_DIFFERENCE, zone_clock, zone);
	return due == CRON_NEVER ? DT_NOEND : (due - EPOCH_DIFFERENCE) * USECS_PER_SEC;
}

Datum
imgpipe_next_run(PG_FUNCTION_ARGS)
{
	CronSchedule schedule = read_schedule(PG_GETARG_TEXT_PP(0));
	TimestampTz after = PG_GETARG_TIMESTAMPTZ(1);
	pg_tz	   *zone = read_time_zone(PG_GETARG_TEXT_PP(2));

	check_moment(after);
	PG_RETURN_TIMESTAMPTZ(next_due(&schedule, after, zone));
}

/* The last due time after one moment and up to another, or DT_NOBEGIN, and how many there are. */
static TimestampTz
last_due(const CronSchedule *schedule, TimestampTz after, TimestampTz until, pg_tz *zone, int *count)
{
	static const int windows[] = {SECS_PER_HOUR, SECS_PER_DAY, 32 * SECS_PER_DAY, 366 * SECS_PER_DAY};
	TimestampTz last = DT_NOBEGIN;
	TimestampTz due;
	int			i;

	*count = 0;
	if (schedule->kind == CRON_INTERVAL && until > after)
	{
		int64		n = (until - after) / (schedule->interval * USECS_PER_SEC);

		*count = Min(n, COUNT_LIMIT);
		return n > 0 ? after + n * schedule->interval * USECS_PER_SEC : DT_NOBEGIN;
	}
	due = next_due(schedule, after, zone);
	while (due <= until && *count < COUNT_LIMIT)
	{
		last = due;
		(*count)++;
		due = next_due(schedule, due, zone);
	}
	/* Too many to go through: the last ones are found from the end. */
	for (i = 0; due <= until && i < lengthof(windows); i++)
	{
		due = next_due(schedule, Max(after, until - windows[i] * USECS_PER_SEC), zone);
		if (due > until)
			due = last;
		else
			for (; due <= until; due = next_due(schedule, due, zone))
				last = due;
		CHECK_FOR_INTERRUPTS();
	}
	return last;
}

Datum
imgpipe_last_run(PG_FUNCTION_ARGS)
{
	CronSchedule schedule = read_schedule(PG_GETARG_TEXT_PP(0));
	TimestampTz after = PG_GETARG_TIMESTAMPTZ(1);
	TimestampTz until = PG_GETARG_TIMESTAMPTZ(2);
	pg_tz	   *zone = read_time_zone(PG_GETARG_TEXT_PP(3));
	TupleDesc	result;
	Datum		values[2];
	bool		nulls[2] = {0};
	TimestampTz last;
	int			count;

	check_moment(after);
	check_moment(until);
	last = last_due(&schedule, after, until, zone, &count);
	if (get_call_result_type(fcinfo, NULL, &result) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "last_run() does not return a row");
	values[0] = TimestampTzGetDatum(last);
	nulls[0] = count == 0;
	values[1] = Int32GetDatum(count);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(result), values, nulls)));
}

Datum
imgpipe_schedule_kind(PG_FUNCTION_ARGS)
{
	CronSchedule schedule = read_schedule(PG_GETARG_TEXT_PP(0));

	switch (schedule.kind)
	{
		case CRON_INTERVAL:
			PG_RETURN_TEXT_P(cstring_to_text("interval"));
		case CRON_REBOOT:
			PG_RETURN_TEXT_P(cstring_to_text("reboot"));
		case CRON_CALENDAR:
			break;
	}
	PG_RETURN_TEXT_P(cstring_to_text(cron_every_hour(&schedule) ? "hourly" : "calendar"));
}
