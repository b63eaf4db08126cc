/*
 * suggest.c
 *		Guesses which name was meant by a mistyped one.
 */
#include "pipeline/parser.h"

#include <stdio.h>
#include <string.h>

#define LONGEST_NAME	32		/* that suggestions are looked for */

/* How many letters are wrong, missing, too many or swapped with the next. */
static int
edit_distance(const char *typed, int length, const char *name)
{
	int			rows[3][LONGEST_NAME + 1];
	int		   *before = rows[0];
	int		   *previous = rows[1];
	int		   *current = rows[2];
	int			name_length = (int) strlen(name);
	int			i;
	int			j;

	for (j = 0; j <= length; j++)
		previous[j] = j;
	for (i = 1; i <= name_length; i++)
	{
		int		   *oldest = before;

		current[0] = i;
		for (j = 1; j <= length; j++)
		{
			int			best = previous[j - 1] + (name[i - 1] != lower(typed[j - 1]));

			if (best > previous[j] + 1)
				best = previous[j] + 1;
			if (best > current[j - 1] + 1)
				best = current[j - 1] + 1;
			if (i > 1 && j > 1 && name[i - 1] == lower(typed[j - 2]) &&
				name[i - 2] == lower(typed[j - 1]) && best > before[j - 2] + 1)
				best = before[j - 2] + 1;
			current[j] = best;
		}
		before = previous;
		previous = current;
		current = oldest;
	}
	return previous[length];
}

/* The name that was probably meant, or NULL. */
static const char *
nearest_name(const char *typed, size_t length, const char *const *names)
{
	const char *nearest = NULL;
	int			nearest_distance = 0;
	int			i;

	if (length > LONGEST_NAME)
		return NULL;
	for (i = 0; names[i] != NULL; i++)
	{
		int			tolerance = ((int) strlen(names[i]) + 3) / 4;
		int			distance = edit_distance(typed, (int) length, names[i]);
		size_t		shared = 0;

		/* The beginning of a name is better than the smallest typing error. */
		while (shared < length && names[i][shared] != '\0' &&
			   lower(typed[shared]) == names[i][shared])
			shared++;
		if (shared == length && length >= 3)
			distance = 0;
		if (distance <= tolerance && (nearest == NULL || distance < nearest_distance))
		{
			nearest = names[i];
			nearest_distance = distance;
		}
	}
	return nearest;
}

void
parser_suggest(Parser *parser, const char *introduction, const char *const *names)
{
	const char *nearest = nearest_name(parser->text + parser->token.offset,
									   parser->token.length, names);
	char	   *hint = parser->error->hint;
	size_t		size = sizeof(parser->error->hint);
	size_t		used;
	int			i;

	if (nearest != NULL)
	{
		parser_hint(parser, "Perhaps you meant \"%s\".", nearest);
		return;
	}
	used = (size_t) snprintf(hint, size, "%s", introduction);
	for (i = 0; names[i] != NULL; i++)
	{
		const char *separator = i > 0 ? ", " : " ";

		if (used + strlen(separator) + strlen(names[i]) + sizeof(", ...") > size)
		{
			snprintf(hint + used, size - used, ", ...");
			return;
		}
		used += (size_t) snprintf(hint + used, size - used, "%s%s", separator, names[i]);
	}
	snprintf(hint + used, size - used, ".");
}
