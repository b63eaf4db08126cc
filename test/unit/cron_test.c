/*
 * cron_test.c
 *		Tests of schedules without PostgreSQL.
 *
 *		cc -Isrc -fsanitize=address,undefined test/unit/cron_test.c src/schedule/cron.c
 *
 * Prints TAP.  Random schedules are held against a clock that is watched minute
 * by minute, in zones with and without daylight saving.
 */
#define _GNU_SOURCE
#include "schedule/cron.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MINUTE	60
#define DAY		86400

/* As POSIX writes them, so that no time zone data need be installed. */
#define BERLIN		"CET-1CEST,M3.5.0,M10.5.0/3"
#define NEW_YORK	"EST5EDT,M3.2.0,M11.1.0"
#define LORD_HOWE	"<+1030>-10:30<+11>-11,M10.1.0,M4.1.0"

static int	n_tests = 0;
static int	n_failed = 0;

__attribute__((format(printf, 2, 3)))
static bool
ok(bool good, const char *format,...)
{
	va_list		arguments;

	n_tests++;
	n_failed += !good;
	printf("%sok %d - ", good ? "" : "not ", n_tests);
	va_start(arguments, format);
	vprintf(format, arguments);
	va_end(arguments);
	printf("\n");
	return good;
}

static void
is(const char *got, const char *expected, const char *name)
{
	if (!ok(strcmp(got, expected) == 0, "%s", name))
		printf("#      got: %s\n# expected: %s\n", got, expected);
}

/* Clocks: what the C library makes of TZ. */

static void
set_zone(const char *zone)
{
	setenv("TZ", zone, 1);
	tzset();
}

static int64_t
offset_at(int64_t instant)
{
	time_t		t = instant;
	struct tm	tm;

	localtime_r(&t, &tm);
	return tm.tm_gmtoff;
}

/* Stretches end after a month at the latest, which must make no difference. */
static CronOffset
wall_clock(void *zone, int64_t instant)
{
	CronOffset	result = {offset_at(instant), instant + 31 * DAY};
	int64_t		day;

	for (day = instant + DAY; day <= result.until; day += DAY)
	{
		int64_t		low = day - DAY;
		int64_t		high = day;

		if (offset_at(day) == result.offset)
			continue;
		while (high - low > 1)
		{
			int64_t		middle = low + (high - low) / 2;

			if (offset_at(middle) == result.offset)
				low = middle;
			else
				high = middle;
		}
		result.until = high;
		break;
	}
	return result;
}

/* "2024-03-31 01:59", as UTC. */
static int64_t
utc(const char *text)
{
	struct tm	tm = {0};

	if (strptime(text, "%Y-%m-%d %H:%M", &tm) == NULL)
		abort();
	return timegm(&tm);
}

static const char *
due_list(const char *text, const char *after, int count)
{
	static char list[1000];
	CronSchedule schedule;
	CronError	error;
	int64_t		at = utc(after);

	list[0] = '\0';
	if (!cron_parse(text, &schedule, &error))
		return strcpy(list, error.message);
	while (count-- > 0)
	{
		char		one[40];
		time_t		t;
		struct tm	tm;

		at = cron_next(&schedule, at, wall_clock, NULL);
		if (at == CRON_NEVER)
			return strcat(list, "never");
		t = at;
		gmtime_r(&t, &tm);
		strftime(one, sizeof(one), count ? "%Y-%m-%d %H:%M, " : "%Y-%m-%d %H:%M", &tm);
		strcat(list, one);
	}
	return list;
}

static void
test_calendar(void)
{
	static const struct
	{
		const char *schedule;
		const char *after;
		const char *due;
	}			cases[] = {
		{"* * * * *", "2024-02-28 23:59", "2024-02-29 00:00, 2024-02-29 00:01, 2024-02-29 00:02"},
		{"*/20 * * * *", "2024-01-01 00:00", "2024-01-01 00:20, 2024-01-01 00:40, 2024-01-01 01:00"},
		{"5-59/25 9,17 * * *", "2024-01-01 00:00", "2024-01-01 09:05, 2024-01-01 09:30, 2024-01-01 09:55"},
		{"30 2 * * mon-fri", "2024-01-05 00:00", "2024-01-05 02:30, 2024-01-08 02:30, 2024-01-09 02:30"},
		{"0 0 * * Fri-Sun", "2024-01-04 00:00", "2024-01-05 00:00, 2024-01-06 00:00, 2024-01-07 00:00"},
		{"0 0 * * 7", "2024-01-04 00:00", "2024-01-07 00:00, 2024-01-14 00:00, 2024-01-21 00:00"},
		{"0 0 * * 5-0", "2024-01-04 00:00", "2024-01-05 00:00, 2024-01-06 00:00, 2024-01-07 00:00"},
		{"0 0 * * */3", "2024-01-01 00:00", "2024-01-03 00:00, 2024-01-06 00:00, 2024-01-07 00:00"},
		{"0 12 $ * *", "2024-01-31 12:00", "2024-02-29 12:00, 2024-03-31 12:00, 2024-04-30 12:00"},
		{"0 12 15,$ FEB,apr *", "2023-02-01 00:00", "2023-02-15 12:00, 2023-02-28 12:00, 2023-04-15 12:00"},
		{"0 0 29 2 *", "2096-01-01 00:00", "2096-02-29 00:00, 2104-02-29 00:00, 2108-02-29 00:00"},
		{"0 0 31 * *", "2024-01-31 00:00", "2024-03-31 00:00, 2024-05-31 00:00, 2024-07-31 00:00"},
		{"0 0 13 * fri", "2024-09-01 00:00", "2024-09-06 00:00, 2024-09-13 00:00, 2024-09-20 00:00"},
		{"0 0 */1 * fri", "2024-09-01 00:00", "2024-09-06 00:00, 2024-09-13 00:00, 2024-09-20 00:00"},
		{"0 0 29 2 */7", "2024-03-01 00:00", "2032-02-29 00:00, 2060-02-29 00:00, 2088-02-29 00:00"},
		{"0 0 $ * */7", "2024-03-01 00:00", "2024-03-31 00:00, 2024-06-30 00:00, 2025-08-31 00:00"},
		{"0 0 1 1 *", "1969-01-01 00:00", "1970-01-01 00:00, 1971-01-01 00:00, 1972-01-01 00:00"},
		{"@yearly", "1899-06-01 00:00", "1900-01-01 00:00, 1901-01-01 00:00, 1902-01-01 00:00"},
		{"@Annually", "2024-06-01 00:00", "2025-01-01 00:00, 2026-01-01 00:00, 2027-01-01 00:00"},
		{"@monthly ", "2024-06-01 00:00", "2024-07-01 00:00, 2024-08-01 00:00, 2024-09-01 00:00"},
		{"@weekly", "2024-06-01 00:00", "2024-06-02 00:00, 2024-06-09 00:00, 2024-06-16 00:00"},
		{" @daily", "2024-06-01 00:00", "2024-06-02 00:00, 2024-06-03 00:00, 2024-06-04 00:00"},
		{"@midnight", "2024-06-01 00:00", "2024-06-02 00:00, 2024-06-03 00:00, 2024-06-04 00:00"},
		{"@hourly", "2024-06-01 23:30", "2024-06-02 00:00, 2024-06-02 01:00, 2024-06-02 02:00"},
		{"\t0  0\t1 1 * ", "2024-06-01 00:00", "2025-01-01 00:00, 2026-01-01 00:00, 2027-01-01 00:00"},
	};
	size_t		i;

	set_zone("UTC0");
	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		is(due_list(cases[i].schedule, cases[i].after, 3), cases[i].due, cases[i].schedule);
}

static void
test_intervals(void)
{
	static const struct
	{
		const char *text;
		int64_t		seconds;
	}			cases[] = {
		{"30 seconds", 30}, {"1 second", 1}, {"90s", 90}, {"5 min", 300}, {"1 Hour 30 minutes", 5400},
		{"2 days", 2 * DAY}, {"1 week", 7 * DAY}, {"1h30min5sec", 5405}, {"366 days", CRON_MAX_INTERVAL},
	};
	CronSchedule schedule;
	CronError	error;
	size_t		i;

	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		ok(cron_parse(cases[i].text, &schedule, &error) && schedule.kind == CRON_INTERVAL &&
		   schedule.interval == cases[i].seconds, "%s", cases[i].text);
	ok(cron_parse("@reboot", &schedule, &error) && schedule.kind == CRON_REBOOT, "@reboot");
	ok(cron_parse("7 * * * *", &schedule, &error) && cron_every_hour(&schedule), "* is every hour");
	ok(cron_parse("7 0-23 * * *", &schedule, &error) && cron_every_hour(&schedule), "0-23 is every hour");
	ok(cron_parse("7 */2 * * *", &schedule, &error) && !cron_every_hour(&schedule), "*/2 is not");
	ok(cron_parse("1 hour", &schedule, &error) && !cron_every_hour(&schedule), "nor is an interval");
}

static void
test_refused(void)
{
	static const char *const cases[][2] = {
		{"", "there is nothing"},
		{" \t", "there is nothing"},
		{"* * * *", "the day of the week is missing"},
		{"*", "the hour is missing"},
		{"* * * * * *", "unexpected \"*\" after the five fields"},
		{"60 * * * *", "minute 60 is not between 0 and 59"},
		{"* 24 * * *", "hour 24 is not between 0 and 23"},
		{"* * 0 * *", "day of the month 0 is not between 1 and 31"},
		{"* * * 13 *", "month 13 is not between 1 and 12"},
		{"* * * * 8", "day of the week 8 is not between 0 and 7"},
		{"* * * janu *", "\"janu\" is not a month"},
		{"* * * * mo", "\"mo\" is not a day of the week"},
		{"* * * * sunday", "\"sunday\" is not a day of the week"},
		{"* * * * $", "\"$\" is not a day of the week"},
		{"* jan * * *", "\"jan\" is not a hour"},
		{"5/15 * * * *", "the minute has a step but no range"},
		{"*/0 * * * *", "step 0 of the minute is not between 1 and 59"},
		{"*/60 * * * *", "step 60 of the minute is not between 1 and 59"},
		{"*/ * * * *", "a number is missing"},
		{"1, * * * *", "\"\" is not a minute"},
		{",1 * * * *", "\",1\" is not a minute"},
		{"1- * * * *", "\"\" is not a minute"},
		{"-1 * * * *", "\"-1\" is not a minute"},
		{"1-2-3 * * * *", "unexpected \"-3\" in the minute"},
		{"* 22-4 * * *", "range 22-4 of the hour runs backwards"},
		{"* * * * sat-mon", "range sat-mon of the day of the week runs backwards"},
		{"**  * * * *", "unexpected \"*\" in the minute"},
		{"1.5 * * * *", "unexpected \".5\" in the minute"},
		{"9999999999 * * * *", "a number is too large"},
		{"0 0 30 2 *", "there is no such day in any year"},
		{"0 0 31 feb,apr,jun *", "there is no such day in any year"},
		{"0 seconds 5 seconds", "an interval is between 1 second and 366 days"},
		{"0 seconds", "an interval is between 1 second and 366 days"},
		{"367 days", "an interval is between 1 second and 366 days"},
		{"999999999 weeks 999999999 weeks", "an interval is between 1 second and 366 days"},
		{"5 fortnights", "\"fortnights\" is not a unit of time"},
		{"2 months", "\"months\" is not a unit of time"},
		{"1 hour, 5 minutes", "\",\" is not a number"},
		{"1 hour -5 minutes", "\"-5\" is not a number"},
		{"5 ss", "\"ss\" is not a unit of time"},
		{"every minute", "\"every\" is not a minute"},
		{"@never", "\"@never\" is not known"},
		{"@dailyy", "\"@dailyy\" is not known"},
		{"@daily x", "\"@daily\" is not known"},
		{"@", "\"@\" is not known"},
	};
	size_t		i;

	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
	{
		CronSchedule schedule;
		CronError	error;
		char	   *copy = strdup(cases[i][0]); /* so that a read beyond the end is seen */

		ok(!cron_parse(copy, &schedule, &error), "\"%s\" is refused", cases[i][0]);
		is(error.message, cases[i][1], "and says why");
		free(copy);
	}
}

/* Berlin puts the clock forward at 2024-03-31 01:00 UTC and back at 2024-10-27 01:00 UTC. */
static void
test_daylight_saving(void)
{
	set_zone(BERLIN);
	is(due_list("30 2 * * *", "2024-03-29 12:00", 3), "2024-03-30 01:30, 2024-03-31 01:00, 2024-04-01 00:30",
	   "a time that is left out is due right after");
	is(due_list("*/10 2 * * *", "2024-03-30 01:45", 3), "2024-03-30 01:50, 2024-03-31 01:00, 2024-04-01 00:00",
	   "several of them once");
	is(due_list("0 2,3 * * *", "2024-03-30 12:00", 2), "2024-03-31 01:00, 2024-04-01 00:00",
	   "together with one that is due then anyway");
	is(due_list("15 * * * *", "2024-03-31 00:00", 3), "2024-03-31 00:15, 2024-03-31 01:15, 2024-03-31 02:15",
	   "every hour goes on");
	is(due_list("30 2 * * *", "2024-10-26 12:00", 2), "2024-10-27 00:30, 2024-10-28 01:30",
	   "a time that comes twice is due once");
	is(due_list("30 2 * * *", "2024-10-27 00:45", 1), "2024-10-28 01:30", "also seen from between the two");
	is(due_list("30 2 * * *", "2024-10-27 01:15", 1), "2024-10-28 01:30", "and from within the second");
	is(due_list("0 3 * * *", "2024-10-27 01:15", 2), "2024-10-27 02:00, 2024-10-28 02:00", "three o'clock comes after both");
	is(due_list("*/30 1-3 * * *", "2024-10-26 23:00", 7),
	   "2024-10-26 23:30, 2024-10-27 00:00, 2024-10-27 00:30, 2024-10-27 02:00, 2024-10-27 02:30, 2024-10-28 00:00, 2024-10-28 00:30",
	   "what is due in some hours pauses while the clock repeats itself");
	is(due_list("15 * * * *", "2024-10-26 23:00", 4),
	   "2024-10-26 23:15, 2024-10-27 00:15, 2024-10-27 01:15, 2024-10-27 02:15", "every hour does not");
	is(due_list("59 1 31 3 *", "2024-03-31 00:00", 1), "2024-03-31 00:59", "the last minute before");
	is(due_list("0 3 31 3 *", "2024-03-31 00:59", 2), "2024-03-31 01:00, 2025-03-31 01:00", "the first minute after");
	set_zone(LORD_HOWE);
	is(due_list("10 2 * * *", "2024-10-05 00:00", 2), "2024-10-05 15:30, 2024-10-06 15:10", "half an hour left out");
	is(due_list("45 1 * * *", "2024-04-05 20:00", 2), "2024-04-06 14:45, 2024-04-07 15:15", "half an hour twice");
}

/* Random schedules against the clock. */

static unsigned
random_below(unsigned n)
{
	return (unsigned) random() % n;
}

static const int minima[5] = {0, 0, 1, 1, 0};
static const int maxima[5] = {59, 23, 31, 12, 6};

/* One field: its text, and the values that it means as a set. */
static void
random_field(int n, char *text, bool *values, bool *star)
{
	int			low = minima[n] + random_below(maxima[n] - minima[n] + 1);
	int			high = low + random_below(maxima[n] - low + 1);
	int			step = 1 + random_below(maxima[n]);
	int			other = minima[n] + random_below(maxima[n] - minima[n] + 1);
	int			i;

	memset(values, 0, 60 * sizeof(bool));
	*star = false;
	switch (random_below(5))
	{
		case 0:
			sprintf(text, "*");
			low = minima[n];
			high = maxima[n];
			step = 1;
			*star = true;
			break;
		case 1:
			sprintf(text, "*/%d", step);
			low = minima[n];
			high = maxima[n];
			*star = true;
			break;
		case 2:
			sprintf(text, "%d-%d/%d", low, high, step);
			break;
		case 3:
			sprintf(text, "%d-%d,%d", low, high, other);
			values[other] = true;
			step = 1;
			break;
		default:
			sprintf(text, "%d,%d", other, low);
			values[other] = true;
			high = low;
			break;
	}
	for (i = low; i <= high; i += step)
		values[i] = true;
}

typedef struct Model
{
	bool		values[5][60];
	bool		any_day;
	bool		any_weekday;
	bool		every_hour;
} Model;

static bool
model_fits(const Model *model, int64_t local)
{
	time_t		t = local;
	struct tm	tm;
	bool		day;
	bool		weekday;

	gmtime_r(&t, &tm);
	day = model->values[2][tm.tm_mday];
	weekday = model->values[4][tm.tm_wday];
	return model->values[0][tm.tm_min] && model->values[1][tm.tm_hour] && model->values[3][tm.tm_mon + 1] &&
		(model->any_day || model->any_weekday ? day && weekday : day || weekday);
}

/* Watches the clock, minute by minute. */
static int64_t
model_next(const Model *model, int64_t after, int64_t limit)
{
	int64_t		instant = after - DAY;
	int64_t		seen;
	int64_t		local;

	instant -= instant % MINUTE;
	for (seen = instant + offset_at(instant); instant <= limit; instant += MINUTE)
	{
		int64_t		now = instant + offset_at(instant);
		bool		due = false;

		if (model->every_hour)
			due = model_fits(model, now);
		else
			for (local = seen + MINUTE; local <= now; local += MINUTE)
				due |= model_fits(model, local);
		if (now > seen)
			seen = now;
		if (due && instant > after)
			return instant;
	}
	return CRON_NEVER;
}

static void
test_random(const char *zone, const char *around, int n)
{
	int			compared = 0;
	int			i;

	set_zone(zone);
	for (i = 0; i < n; i++)
	{
		char		field[5][40];
		char		text[250];
		bool		star[5];
		Model		model;
		CronSchedule schedule;
		CronError	error;
		int64_t		after = utc(around) + (int64_t) random_below(4 * DAY) - 2 * DAY;
		int64_t		limit = after + 40 * DAY;
		int64_t		expected;
		int64_t		got;
		int			f;

		for (f = 0; f < 5; f++)
			random_field(f, field[f], model.values[f], &star[f]);
		if (random_below(3))
		{
			/* Else most would not come due around here. */
			strcpy(field[3], "*");
			memset(model.values[3], 1, sizeof(model.values[3]));
		}
		model.any_day = star[2];
		model.any_weekday = star[4];
		model.every_hour = memchr(model.values[1], 0, 24) == NULL;
		snprintf(text, sizeof(text), "%s %s %s %s %s", field[0], field[1], field[2], field[3], field[4]);
		if (!cron_parse(text, &schedule, &error))
		{
			if (strcmp(error.message, "there is no such day in any year") == 0)
				continue;
			ok(false, "%s: %s", text, error.message);
			return;
		}
		expected = model_next(&model, after, limit);
		got = cron_next(&schedule, after, wall_clock, NULL);
		if (got > limit ? expected != CRON_NEVER : got != expected)
		{
			ok(false, "%s, zone %s, after %lld: %lld, not %lld", text, zone, (long long) after, (long long) got,
			   (long long) expected);
			return;
		}
		compared += expected != CRON_NEVER;
	}
	ok(compared > n / 3, "%s, around %s: %d random schedules come due as the clock says", zone, around, compared);
}

/* Any text at all: no crash, and what is accepted comes due. */
static void
test_noise(int n)
{
	static const char characters[] = "0123456789*/,-$ @  adefhijlmnoprstuwy\n\377";
	int			accepted = 0;
	bool		promise = true;
	int			i;

	set_zone(NEW_YORK);
	for (i = 0; i < n; i++)
	{
		int			length = random_below(24);
		char	   *text = malloc(length + 1);
		CronSchedule schedule;
		CronError	error;
		int			c;

		for (c = 0; c < length; c++)
			text[c] = characters[random_below(random_below(3) ? 20 : sizeof(characters))];
		text[length] = '\0';
		if (cron_parse(text, &schedule, &error))
		{
			accepted++;
			if (schedule.kind == CRON_CALENDAR)
				promise &= cron_next(&schedule, utc("2024-01-01 00:00"), wall_clock, NULL) != CRON_NEVER;
		}
		else
			promise &= error.message[0] != '\0';
		free(text);
	}
	ok(promise, "%d random texts keep all promises", n);
	ok(accepted > 0, "%d of them are schedules", accepted);
}

int
main(void)
{
	srandom(1);
	test_calendar();
	test_intervals();
	test_refused();
	test_daylight_saving();
	test_random("UTC0", "2024-02-28 00:00", 500);
	test_random(BERLIN, "2024-03-31 01:00", 500);
	test_random(BERLIN, "2024-10-27 01:00", 500);
	test_random(NEW_YORK, "2024-03-10 07:00", 500);
	test_random(NEW_YORK, "2024-11-03 06:00", 500);
	test_random(LORD_HOWE, "2024-04-06 15:00", 500);
	test_random(LORD_HOWE, "2024-10-05 15:30", 500);
	test_noise(200000);
	printf("1..%d\n", n_tests);
	return n_failed > 0;
}
