/*
 * cron.h
 *		Schedules: what they say, and when they next come due.
 *
 * Pure C, without PostgreSQL, so that it is tested as a program of its own.
 * Times are seconds since 1970.  "Local" seconds count the clock on the wall
 * as if it were UTC.
 */
#ifndef IMGPIPE_CRON_H
#define IMGPIPE_CRON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CRON_MESSAGE_SIZE	200
#define CRON_MAX_INTERVAL	(366 * INT64_C(86400))

/* A time that never comes. */
#define CRON_NEVER			INT64_MAX

typedef enum CronKind
{
	CRON_CALENDAR,				/* five fields */
	CRON_INTERVAL,
	CRON_REBOOT
} CronKind;

typedef struct CronSchedule
{
	CronKind	kind;
	int64_t		interval;		/* s */
	uint64_t	minutes;		/* one bit for each */
	uint32_t	hours;
	uint32_t	days;			/* bit 1 is the first of the month */
	uint16_t	months;			/* bit 1 is January */
	uint8_t		weekdays;		/* bit 0 is Sunday */
	bool		last_day;		/* of the month */
	bool		any_day;		/* the field begins with a star */
	bool		any_weekday;
} CronSchedule;

typedef struct CronError
{
	char		message[CRON_MESSAGE_SIZE];
	char		hint[CRON_MESSAGE_SIZE];
} CronError;

/*
 * What a clock on the wall shows at an instant: instant + offset, until the
 * instant at which the offset changes (CRON_NEVER).
 */
typedef struct CronOffset
{
	int64_t		offset;
	int64_t		until;
} CronOffset;

typedef CronOffset (*CronClock) (void *zone, int64_t instant);

/* False with a reason; text ends with a zero. */
extern bool cron_parse(const char *text, CronSchedule *schedule, CronError *error);

/* Comes due in every hour of the day, and so in hours that come twice as well. */
extern bool cron_every_hour(const CronSchedule *schedule);

/*
 * The first due instant of a CRON_CALENDAR schedule after an instant;
 * CRON_NEVER where none comes in the next 400 years.
 *
 * Where the clock is put forward, a time that is left out is due at the
 * moment of the change.  Where it is put back, a time that comes twice is due
 * at the first.  A schedule of every hour is due whenever the clock shows its
 * minutes: never for what is left out, twice for what comes twice.
 */
extern int64_t cron_next(const CronSchedule *schedule, int64_t after,
						 CronClock clock, void *zone);

#endif							/* IMGPIPE_CRON_H */
