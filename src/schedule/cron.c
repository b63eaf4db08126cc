/*
 * cron.c
 *		Schedules: parsing and the computing of due times.
 *
 * The five fields mean what they mean to cron.  Where both the day of the
 * month and the day of the week are given, a day of either is right; where
 * one of the two begins with a star, the day must fit both.
 */
#include "schedule/cron.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define MINUTE	60
#define HOUR	3600
#define DAY		86400
#define CYCLE	(INT64_C(146097) * DAY) /* 400 years, after which the calendar repeats itself */

#define ALL_HOURS	((UINT32_C(1) << 24) - 1)

typedef struct Field
{
	const char *name;
	int			minimum;
	int			maximum;
	const char *const *names;	/* of the values from minimum on */
} Field;

enum
{
	FIELD_MINUTE,
	FIELD_HOUR,
	FIELD_DAY,
	FIELD_MONTH,
	FIELD_WEEKDAY,
	N_FIELDS
};

static const char *const month_names[] = {
	"jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec", NULL
};
static const char *const weekday_names[] = {
	"sun", "mon", "tue", "wed", "thu", "fri", "sat", "sun", NULL
};

static const Field fields[N_FIELDS] = {
	[FIELD_MINUTE] = {"minute", 0, 59, NULL},
	[FIELD_HOUR] = {"hour", 0, 23, NULL},
	[FIELD_DAY] = {"day of the month", 1, 31, NULL},
	[FIELD_MONTH] = {"month", 1, 12, month_names},
	[FIELD_WEEKDAY] = {"day of the week", 0, 7, weekday_names},
};

static const struct
{
	const char *name;
	const char *meaning;
}			shorthands[] = {
	{"@yearly", "0 0 1 1 *"},
	{"@annually", "0 0 1 1 *"},
	{"@monthly", "0 0 1 * *"},
	{"@weekly", "0 0 * * 0"},
	{"@daily", "0 0 * * *"},
	{"@midnight", "0 0 * * *"},
	{"@hourly", "0 * * * *"},
};

static const struct
{
	const char *name;
	int64_t		seconds;
}			units[] = {
	{"s", 1}, {"sec", 1}, {"second", 1},
	{"min", MINUTE}, {"minute", MINUTE},
	{"h", HOUR}, {"hour", HOUR},
	{"d", DAY}, {"day", DAY},
	{"week", 7 * DAY},
};

#define lengthof(array)	(sizeof(array) / sizeof((array)[0]))

/* Parsing. */

typedef struct Parser
{
	const char *at;
	CronError  *error;
} Parser;

static bool fail(CronError *error, const char *hint, const char *format,...) __attribute__((format(printf, 3, 4)));

static bool
fail(CronError *error, const char *hint, const char *format,...)
{
	va_list		arguments;

	va_start(arguments, format);
	vsnprintf(error->message, sizeof(error->message), format, arguments);
	va_end(arguments);
	snprintf(error->hint, sizeof(error->hint), "%s", hint);
	return false;
}

static bool
is_space(char c)
{
	return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static bool
is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static char
lower(char c)
{
	return c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c;
}

static bool
is_letter(char c)
{
	return lower(c) >= 'a' && lower(c) <= 'z';
}

static void
skip_space(Parser *parser)
{
	while (is_space(*parser->at))
		parser->at++;
}

static bool
same_word(const char *text, size_t length, const char *word)
{
	size_t		i;

	for (i = 0; i < length; i++)
		if (word[i] == '\0' || lower(text[i]) != word[i])
			return false;
	return word[length] == '\0';
}

/* A number of at most nine digits. */
static bool
take_number(Parser *parser, int64_t *number)
{
	int			digits = 0;

	for (*number = 0; is_digit(*parser->at); parser->at++)
	{
		if (++digits > 9)
			return fail(parser->error, "", "a number is too large");
		*number = *number * 10 + (*parser->at - '0');
	}
	return digits > 0 || fail(parser->error, "", "a number is missing");
}

/* What stands at this place up to the next space, for a message. */
static int
word_length(const char *at)
{
	int			length = 0;

	while (at[length] != '\0' && !is_space(at[length]) && length < 30)
		length++;
	return length;
}

static bool
take_value(Parser *parser, const Field *field, int *value)
{
	const char *start = parser->at;
	int64_t		number;
	int			i;

	if (is_digit(*start))
	{
		if (!take_number(parser, &number))
			return false;
		if (number < field->minimum || number > field->maximum)
			return fail(parser->error, "", "%s %lld is not between %d and %d",
						field->name, (long long) number, field->minimum, field->maximum);
		*value = number;
		return true;
	}
	while (is_letter(*parser->at))
		parser->at++;
	for (i = 0; field->names != NULL && field->names[i] != NULL; i++)
		if (same_word(start, parser->at - start, field->names[i]))
		{
			*value = field->minimum + i;
			return true;
		}
	return fail(parser->error,
				field->names == month_names ? "Months are 1 to 12 or jan to dec." :
				field->names == weekday_names ? "Days of the week are 0 to 7 (0 and 7 are Sunday) or sun to sat." :
				"A field is *, a number, a range, a step such as */5, or a list of these parted by commas.",
				"\"%.*s\" is not a %s", word_length(start), start, field->name);
}

/* One item of a list: a star, a value or a range, with a step or without. */
static bool
take_item(Parser *parser, const Field *field, uint64_t *bits)
{
	const char *start = parser->at;
	bool		range = true;
	int			low = field->minimum;
	int			high = field->maximum;
	int64_t		step = 1;
	int			i;

	if (*parser->at == '*')
	{
		parser->at++;
		if (field->names == weekday_names)
			high = 6;			/* Sunday once, or a step would find it twice */
	}
	else
	{
		if (!take_value(parser, field, &low))
			return false;
		high = low;
		range = *parser->at == '-';
		if (range)
		{
			parser->at++;
			if (!take_value(parser, field, &high))
				return false;
			if (high == 0 && low > 0 && field->names == weekday_names)
				high = 7;		/* fri-sun */
			if (high < low)
				return fail(parser->error, "Write it as two ranges parted by a comma, for example 22-23,0-4.",
							"range %.*s of the %s runs backwards",
							(int) (parser->at - start), start, field->name);
		}
	}
	if (*parser->at == '/')
	{
		parser->at++;
		if (!take_number(parser, &step))
			return false;
		if (!range)
			return fail(parser->error, "Write a range or a star before the step, for example 5-59/15.",
						"the %s has a step but no range", field->name);
		if (step < 1 || step > field->maximum)
			return fail(parser->error, "", "step %lld of the %s is not between 1 and %d",
						(long long) step, field->name, field->maximum);
	}
	for (i = low; i <= high; i += step)
		*bits |= UINT64_C(1) << i;
	return true;
}

static bool
take_field(Parser *parser, int n, CronSchedule *schedule)
{
	const Field *field = &fields[n];
	uint64_t	bits = 0;
	bool		star = *parser->at == '*';

	for (;;)
	{
		if (n == FIELD_DAY && *parser->at == '$')
		{
			parser->at++;
			schedule->last_day = true;
		}
		else if (!take_item(parser, field, &bits))
			return false;
		if (*parser->at != ',')
			break;
		parser->at++;
	}
	if (*parser->at != '\0' && !is_space(*parser->at))
		return fail(parser->error, "A field is *, a number, a range, a step such as */5, or a list of these parted by commas.",
					"unexpected \"%.*s\" in the %s", word_length(parser->at), parser->at, field->name);
	switch (n)
	{
		case FIELD_MINUTE:
			schedule->minutes = bits;
			break;
		case FIELD_HOUR:
			schedule->hours = bits;
			break;
		case FIELD_DAY:
			schedule->days = bits;
			schedule->any_day = star;
			break;
		case FIELD_MONTH:
			schedule->months = bits;
			break;
		case FIELD_WEEKDAY:
			schedule->weekdays = (bits | bits >> 7) & 0x7f;
			schedule->any_weekday = star;
			break;
	}
	return true;
}

static CronOffset
utc(void *zone, int64_t instant)
{
	return (CronOffset) {0, CRON_NEVER};
}

static bool
parse_calendar(Parser *parser, CronSchedule *schedule)
{
	int			n;

	schedule->kind = CRON_CALENDAR;
	for (n = 0; n < N_FIELDS; n++)
	{
		skip_space(parser);
		if (*parser->at == '\0')
			return fail(parser->error, "The five fields are minute, hour, day of the month, month and day of the week.",
						"the %s is missing", fields[n].name);
		if (!take_field(parser, n, schedule))
			return false;
	}
	skip_space(parser);
	if (*parser->at != '\0')
		return fail(parser->error, "The five fields are minute, hour, day of the month, month and day of the week.",
					"unexpected \"%.*s\" after the five fields", word_length(parser->at), parser->at);
	if (cron_next(schedule, 0, utc, NULL) == CRON_NEVER)
		return fail(parser->error, "Use $ for the last day of every month.", "there is no such day in any year");
	return true;
}

/* As 30 seconds, or 1 hour 30 minutes. */
static bool
parse_interval(Parser *parser, CronSchedule *schedule)
{
	static const char hint[] = "An interval is, for example, 30 seconds, or 1 hour 30 minutes.";

	schedule->kind = CRON_INTERVAL;
	while (*parser->at != '\0')
	{
		const char *word;
		size_t		length;
		int64_t		number;
		int64_t		seconds = 0;
		size_t		i;

		if (!is_digit(*parser->at))
			return fail(parser->error, hint, "\"%.*s\" is not a number", word_length(parser->at), parser->at);
		if (!take_number(parser, &number))
			return false;
		skip_space(parser);
		word = parser->at;
		while (is_letter(*parser->at))
			parser->at++;
		length = parser->at - word;
		for (i = 0; i < lengthof(units); i++)
			if (same_word(word, length, units[i].name) ||
				(length > 3 && lower(word[length - 1]) == 's' && same_word(word, length - 1, units[i].name)))
				seconds = units[i].seconds;
		if (seconds == 0)
			return fail(parser->error, "The units are seconds, minutes, hours, days and weeks; for months use @monthly or five fields.",
						"\"%.*s\" is not a unit of time", word_length(word), word);
		schedule->interval += number * seconds;
		if (schedule->interval < 1 || schedule->interval > CRON_MAX_INTERVAL)
			return fail(parser->error, hint, "an interval is between 1 second and 366 days");
		skip_space(parser);
	}
	return true;
}

/* Five fields, or an interval?  A number and a word of letters is the latter. */
static bool
looks_like_interval(const char *at)
{
	while (is_digit(*at))
		at++;
	while (is_space(*at))
		at++;
	return is_letter(*at);
}

bool
cron_parse(const char *text, CronSchedule *schedule, CronError *error)
{
	Parser		parser = {text, error};
	int			length;
	size_t		i;

	memset(schedule, 0, sizeof(*schedule));
	memset(error, 0, sizeof(*error));
	skip_space(&parser);
	if (*parser.at == '\0')
		return fail(error, "A schedule is, for example, 30 2 * * mon-fri, or @hourly, or 30 seconds.", "there is nothing");
	if (*parser.at == '@')
	{
		for (length = strlen(parser.at); is_space(parser.at[length - 1]); length--)
			;
		if (same_word(parser.at, length, "@reboot"))
		{
			schedule->kind = CRON_REBOOT;
			return true;
		}
		for (i = 0; i < lengthof(shorthands); i++)
			if (same_word(parser.at, length, shorthands[i].name))
			{
				parser.at = shorthands[i].meaning;
				return parse_calendar(&parser, schedule);
			}
		return fail(error, "There are @hourly, @daily, @weekly, @monthly, @yearly and @reboot.",
					"\"%.*s\" is not known", word_length(parser.at), parser.at);
	}
	if (is_digit(*parser.at) && looks_like_interval(parser.at))
		return parse_interval(&parser, schedule);
	return parse_calendar(&parser, schedule);
}

bool
cron_every_hour(const CronSchedule *schedule)
{
	return schedule->kind == CRON_CALENDAR && schedule->hours == ALL_HOURS;
}

/* The calendar. */

typedef struct Date
{
	int			month;			/* 1 to 12 */
	int			day;
	int			weekday;		/* 0 is Sunday */
	int			month_length;
} Date;

/*
 * Of a day number, 0 being 1970-01-01.  Years are taken to begin in March, so
 * that the leap day is the last of its year, and 400 of them are one cycle.
 */
static void
date_of_day(int64_t day, Date *date)
{
	static const int lengths[] = {31, 30, 31, 30, 31, 31, 30, 31, 30, 31, 31, 29};
	int64_t		shifted = day + 719468;	/* since 0000-03-01 */
	int			in_cycle = (int) ((shifted % 146097 + 146097) % 146097);
	int			year = (in_cycle - in_cycle / 1460 + in_cycle / 36524 - in_cycle / 146096) / 365;
	int			rest = in_cycle - (365 * year + year / 4 - year / 100);
	int			month = 0;
	int			calendar_year;

	while (rest >= lengths[month])
		rest -= lengths[month++];
	date->day = rest + 1;
	date->month = month < 10 ? month + 3 : month - 9;
	date->weekday = (int) (((day + 4) % 7 + 7) % 7);
	date->month_length = lengths[month];
	calendar_year = year + 1;	/* of the February at the end */
	if (month == 11 && !(calendar_year % 4 == 0 && (calendar_year % 100 != 0 || calendar_year % 400 == 0)))
		date->month_length = 28;
}

static bool
day_fits(const CronSchedule *schedule, const Date *date)
{
	bool		day = (schedule->days >> date->day & 1) ||
		(schedule->last_day && date->day == date->month_length);
	bool		weekday = schedule->weekdays >> date->weekday & 1;

	if (schedule->any_day || schedule->any_weekday)
		return day && weekday;
	return day || weekday;
}

static int64_t
floor_divide(int64_t value, int64_t divisor)
{
	return value / divisor - (value % divisor < 0);
}

/* The first time of day from minute on, in minutes; -1 where there is none. */
static int
time_of_day(const CronSchedule *schedule, int from)
{
	int			hour = from / 60;
	int			minute = from % 60;

	for (; hour < 24; hour++, minute = 0)
	{
		if (!(schedule->hours >> hour & 1))
			continue;
		for (; minute < 60; minute++)
			if (schedule->minutes >> minute & 1)
				return hour * 60 + minute;
	}
	return -1;
}

/* The first local time that fits, from and before; CRON_NEVER where there is none. */
static int64_t
next_local(const CronSchedule *schedule, int64_t from, int64_t before)
{
	int64_t		minute = floor_divide(from + MINUTE - 1, MINUTE);
	int64_t		day = floor_divide(minute, DAY / MINUTE);
	int			start = (int) (minute - day * (DAY / MINUTE));

	for (; day * DAY < before && day * DAY - from <= CYCLE; start = 0)
	{
		Date		date;
		int			time;

		date_of_day(day, &date);
		if (!(schedule->months >> date.month & 1))
		{
			day += date.month_length - date.day + 1;
			continue;
		}
		time = day_fits(schedule, &date) ? time_of_day(schedule, start) : -1;
		if (time >= 0)
		{
			int64_t		local = day * DAY + time * MINUTE;

			return local < before ? local : CRON_NEVER;
		}
		day++;
	}
	return CRON_NEVER;
}

/*
 * Goes through the stretches of time in which the offset stays the same.  In
 * each the local times are those of the wall clock from begin on; "seen" is up
 * to where the wall clock has already been.
 */
int64_t
cron_next(const CronSchedule *schedule, int64_t after, CronClock clock, void *zone)
{
	bool		every_hour = cron_every_hour(schedule);

	/* A day back, to know whether the clock has been put back just now. */
	int64_t		start = every_hour ? after + 1 : after - DAY;
	CronOffset	stretch = clock(zone, start);
	int64_t		seen = start + stretch.offset;

	while (start - after <= CYCLE)
	{
		bool		last = stretch.until == CRON_NEVER;
		int64_t		begin = start + stretch.offset;
		int64_t		from = after + 1 + stretch.offset;
		int64_t		local;

		if (every_hour)
			seen = begin;
		else if (begin > seen && start > after &&
				 next_local(schedule, seen, begin) != CRON_NEVER)
			return start;		/* in what was left out */
		if (from < begin)
			from = begin;
		if (from < seen)
			from = seen;
		local = next_local(schedule, from, last ? CRON_NEVER : stretch.until + stretch.offset);
		if (local != CRON_NEVER)
			return local - stretch.offset;
		if (last)
			break;
		if (seen < stretch.until + stretch.offset)
			seen = stretch.until + stretch.offset;
		start = stretch.until;
		stretch = clock(zone, start);
	}
	return CRON_NEVER;
}
