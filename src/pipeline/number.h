/*
 * number.h
 *		Numbers of the operation language, independent of the locale.
 *
 * A number keeps 15 significant digits and 22 decimals; what it has more of
 * is rounded away.  Within these every conversion is a single correctly
 * rounded operation, so reading back what was written gives the same value.
 */
#ifndef IMGPIPE_NUMBER_H
#define IMGPIPE_NUMBER_H

#include <stddef.h>

#define NUMBER_TEXT_SIZE	64

/*
 * Reads the longest number that text begins with, infinity where it is too
 * large; returns its length, 0 where there is none.
 */
extern size_t number_read(const char *text, size_t length, double *value);

/* The shortest decimal text that reads back as value, without exponent. */
extern size_t number_write(double value, char text[NUMBER_TEXT_SIZE]);

#endif							/* IMGPIPE_NUMBER_H */
