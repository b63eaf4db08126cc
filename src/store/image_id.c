/*
 * image_id.c
 *		Image ids: UUIDv8 (RFC 9562) that begin with the purge deadline.
 *
 *		48 bits		milliseconds since 1970 of the deadline, big-endian
 *		 4 bits		version, 8
 *		12 bits		random
 *		 2 bits		variant, binary 10
 *		62 bits		random
 *
 * So the order of ids is the order of deadlines, and a range of deadlines is a
 * range of ids: partitions, the read fence and the purge follow from that.
 */
#include "postgres.h"

#include "access/xact.h"
#include "fmgr.h"
#include "imgpipe.h"
#include "store/image_id.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#define DEADLINE_BYTES		6
#define LAST_DEADLINE		((INT64CONST(1) << 48) - 1)
#define EPOCH_DIFFERENCE_MS \
	((POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * (SECS_PER_DAY * INT64CONST(1000)))

PG_FUNCTION_INFO_V1(imgpipe_new_image_id);
PG_FUNCTION_INFO_V1(imgpipe_new_image_id_at);
PG_FUNCTION_INFO_V1(imgpipe_purge_at);
PG_FUNCTION_INFO_V1(imgpipe_first_image_id);
PG_FUNCTION_INFO_V1(imgpipe_fence);
PG_FUNCTION_INFO_V1(imgpipe_horizon);
PG_FUNCTION_INFO_V1(imgpipe_longest_retention);

/* Milliseconds since 1970, rounded up: a deadline is never early by rounding. */
static int64
deadline_milliseconds(TimestampTz deadline)
{
	int64		milliseconds;

	if (TIMESTAMP_NOT_FINITE(deadline))
		goto out_of_range;
	milliseconds = deadline / 1000 + (deadline % 1000 > 0 ? 1 : 0) + EPOCH_DIFFERENCE_MS;
	if (milliseconds < 0 || milliseconds > LAST_DEADLINE)
		goto out_of_range;
	return milliseconds;

out_of_range:
	ereport(ERROR,
			(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
			 errmsg("purge deadline out of range"),
			 errdetail("The deadline is %s; it must lie between the years 1970 and 10889.",
					   timestamptz_to_str(deadline))));
}

static pg_uuid_t *
id_of_deadline(TimestampTz deadline, bool random)
{
	int64		milliseconds = deadline_milliseconds(deadline);
	pg_uuid_t  *id = palloc0(sizeof(pg_uuid_t));
	int			i;

	for (i = 0; i < DEADLINE_BYTES; i++)
		id->data[i] = milliseconds >> (8 * (DEADLINE_BYTES - 1 - i));
	if (random)
	{
		if (!pg_strong_random(id->data + DEADLINE_BYTES, UUID_LEN - DEADLINE_BYTES))
			ereport(ERROR,
					(errcode(ERRCODE_INTERNAL_ERROR),
					 errmsg("could not generate random values")));
		id->data[6] = (id->data[6] & 0x0f) | 0x80;
		id->data[8] = (id->data[8] & 0x3f) | 0x80;
	}
	return id;
}

/* In minutes. */
static int
longest_retention(void)
{
	return imgpipe_max_retention > 0 ? imgpipe_max_retention : imgpipe_retention;
}

static TimestampTz
minutes_from_now(int minutes)
{
	return GetCurrentTimestamp() + minutes * INT64CONST(60) * USECS_PER_SEC;
}

Datum
imgpipe_new_image_id(PG_FUNCTION_ARGS)
{
	int			minutes = Min(imgpipe_retention, longest_retention());

	PG_RETURN_UUID_P(id_of_deadline(minutes_from_now(minutes), true));
}

/*
 * The partitions beyond the longest retention are missing anyway; here there
 * is a better word for it.  The code is the one of a missing partition, so
 * that ingest takes it for a setting to be changed, not for a bad message.
 */
Datum
imgpipe_new_image_id_at(PG_FUNCTION_ARGS)
{
	TimestampTz deadline = PG_GETARG_TIMESTAMPTZ(0);
	pg_uuid_t  *id = id_of_deadline(deadline, true);

	if (deadline > minutes_from_now(longest_retention()))
		ereport(ERROR,
				(errcode(ERRCODE_CHECK_VIOLATION),
				 errmsg("purge deadline is further away than images may be kept"),
				 errdetail("The deadline is %s; the longest retention is %d minutes.",
						   timestamptz_to_str(deadline), longest_retention()),
				 errhint("Choose an earlier deadline, or have a superuser raise imgpipe.max_retention.")));
	PG_RETURN_UUID_P(id);
}

/*
 * By the clock and not the statement's start: ids are made while the
 * statement runs.
 */
Datum
imgpipe_horizon(PG_FUNCTION_ARGS)
{
	PG_RETURN_UUID_P(id_of_deadline(minutes_from_now(longest_retention()) + 1000, false));
}

Datum
imgpipe_longest_retention(PG_FUNCTION_ARGS)
{
	Interval   *interval = palloc0(sizeof(Interval));

	interval->time = longest_retention() * INT64CONST(60) * USECS_PER_SEC;
	PG_RETURN_INTERVAL_P(interval);
}

Datum
imgpipe_first_image_id(PG_FUNCTION_ARGS)
{
	PG_RETURN_UUID_P(id_of_deadline(PG_GETARG_TIMESTAMPTZ(0), false));
}

/*
 * A row is hidden once its deadline has come.  The deadline stands in whole
 * milliseconds, so the first id still visible has the next one.
 *
 * The statement of a procedure that goes on after a COMMIT began long ago; its
 * transaction did not.
 */
Datum
imgpipe_fence(PG_FUNCTION_ARGS)
{
	TimestampTz now = Max(GetCurrentStatementStartTimestamp(), GetCurrentTransactionStartTimestamp());

	PG_RETURN_UUID_P(id_of_deadline(now + 1, false));
}

/* What first_image_id() makes: a bound, not an image's id, but it has a deadline. */
static bool
is_bound(const pg_uuid_t *id)
{
	static const unsigned char zeros[UUID_LEN - DEADLINE_BYTES];

	return memcmp(id->data + DEADLINE_BYTES, zeros, sizeof(zeros)) == 0;
}

Datum
imgpipe_purge_at(PG_FUNCTION_ARGS)
{
	pg_uuid_t  *id = PG_GETARG_UUID_P(0);
	int64		milliseconds = 0;
	int			i;

	if ((id->data[6] & 0xf0) != 0x80 && !is_bound(id))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("uuid is not an image id"),
				 errdetail("It is of version %d; image ids are of version 8.", id->data[6] >> 4),
				 errhint("Image ids are made by imgpipe.new_image_id().")));
	for (i = 0; i < DEADLINE_BYTES; i++)
		milliseconds = milliseconds << 8 | id->data[i];
	PG_RETURN_TIMESTAMPTZ((milliseconds - EPOCH_DIFFERENCE_MS) * 1000);
}
