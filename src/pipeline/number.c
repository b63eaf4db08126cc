/*
 * number.c
 *		Reads and writes numbers, independent of the locale.
 *
 * The C library's strtod and printf take the decimal point from the locale,
 * which PostgreSQL sets.  A mantissa below 2^53 and a power of ten up to 10^22
 * are both exact in a double, so that one multiplication or division rounds
 * correctly and no more arithmetic is needed than this file has.
 */
#include "pipeline/number.h"

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define SIGNIFICANT_DIGITS	15
#define EXACT_POWER			22
#define ENDLESS_EXPONENT	100000	/* beyond it all numbers are 0 or infinite */

static bool
is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static double
compose(uint64_t mantissa, int exponent)
{
	static const double powers[EXACT_POWER + 1] = {
		1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11,
		1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22
	};

	for (; exponent < -EXACT_POWER && mantissa > 0; exponent++)
		mantissa /= 10;
	if (mantissa == 0)
		return 0;
	if (exponent > EXACT_POWER)
		return INFINITY;
	if (exponent < 0)
		return (double) mantissa / powers[-exponent];
	return (double) mantissa * powers[exponent];
}

size_t
number_read(const char *text, size_t length, double *value)
{
	uint64_t	mantissa = 0;
	int			exponent = 0;
	int			n_digits = 0;
	int			n_significant = 0;
	bool		negative = false;
	bool		after_point = false;
	size_t		i = 0;

	if (i < length && (text[i] == '+' || text[i] == '-'))
		negative = text[i++] == '-';

	for (; i < length; i++)
	{
		if (text[i] == '.' && !after_point)
		{
			after_point = true;
			continue;
		}
		if (!is_digit(text[i]))
			break;
		n_digits++;
		if (after_point)
			exponent--;
		if (n_significant == 0 && text[i] == '0')
			continue;
		n_significant++;
		if (n_significant <= SIGNIFICANT_DIGITS)
			mantissa = mantissa * 10 + (uint64_t) (text[i] - '0');
		else
		{
			if (n_significant == SIGNIFICANT_DIGITS + 1 && text[i] >= '5')
				mantissa++;
			exponent++;
		}
	}
	if (n_digits == 0)
		return 0;

	if (i < length && (text[i] == 'e' || text[i] == 'E'))
	{
		size_t		start = i + 1;
		bool		down = false;
		int			written = 0;

		if (start < length && (text[start] == '+' || text[start] == '-'))
			down = text[start++] == '-';
		if (start < length && is_digit(text[start]))
		{
			for (i = start; i < length && is_digit(text[i]); i++)
				if (written < ENDLESS_EXPONENT)
					written = written * 10 + (text[i] - '0');
			exponent += down ? -written : written;
		}
	}

	*value = compose(mantissa, exponent);
	if (negative && *value != 0)
		*value = -*value;
	return i;
}

size_t
number_write(double value, char text[NUMBER_TEXT_SIZE])
{
	double		magnitude = fabs(value);
	char		digits[NUMBER_TEXT_SIZE];
	int			n_digits = 0;
	int			exponent = 0;
	int			precision;
	int			place;
	size_t		used = 0;

	/* One digit more than are read, for those that were rounded up to 10^15. */
	for (precision = 0; precision <= SIGNIFICANT_DIGITS; precision++)
	{
		char		scientific[NUMBER_TEXT_SIZE];
		const char *c;
		uint64_t	mantissa = 0;

		/* Whatever stands for the decimal point is not looked at. */
		snprintf(scientific, sizeof(scientific), "%.*e", precision, magnitude);
		n_digits = 0;
		for (c = scientific; *c != '\0' && *c != 'e'; c++)
		{
			if (!is_digit(*c))
				continue;
			digits[n_digits++] = *c;
			mantissa = mantissa * 10 + (uint64_t) (*c - '0');
		}
		exponent = *c == 'e' ? atoi(c + 1) : 0;
		if (compose(mantissa, exponent - precision) == magnitude)
			break;
	}

	if (value < 0)
		text[used++] = '-';

	/* From the place of the first digit, or units, to that of the last. */
	for (place = exponent > 0 ? exponent : 0;
		 place >= 0 || place > exponent - n_digits;
		 place--)
	{
		int			digit = exponent - place;

		if (used + 2 >= NUMBER_TEXT_SIZE)
			break;
		if (place == -1)
			text[used++] = '.';
		text[used++] = digit >= 0 && digit < n_digits ? digits[digit] : '0';
	}
	text[used] = '\0';
	return used;
}
