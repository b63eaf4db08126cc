/*
 * print_operations.c
 *		The table of operations as the table of docs/operations.md.
 *
 * Reads what the parser reads, so that it says what the parser does: the same
 * as imgpipe.pipeline_operations() does in SQL.  docs/make_operations runs it.
 */
#include <stdio.h>

#include "pipeline/number.h"
#include "pipeline/pipeline.h"

/* What would end a cell. */
static void
print_text(const char *text)
{
	for (; *text != '\0'; text++)
	{
		if (*text == '|')
			putchar('\\');
		putchar(*text);
	}
}

static void
print_default(const ArgumentSpec *argument)
{
	PipelineValue value = {.number = argument->fallback};
	char		text[NUMBER_TEXT_SIZE];

	if (argument->required)
		printf("required");
	else if (argument->type != ARGUMENT_TEXT && !isnan(argument->fallback))
	{
		pipeline_print_value(argument, &value, text, sizeof(text));
		printf("`%s`", text);
	}
}

static void
print_range(const ArgumentSpec *argument)
{
	char		minimum[NUMBER_TEXT_SIZE];
	char		maximum[NUMBER_TEXT_SIZE];
	int			i;

	number_write(argument->minimum, minimum);
	number_write(argument->maximum, maximum);
	if (argument->type == ARGUMENT_INTEGER || argument->type == ARGUMENT_NUMBER)
		printf("%s to %s", minimum, maximum);
	if (argument->type == ARGUMENT_TEXT)
		printf("at most %s characters", maximum);
	for (i = 0; argument->words != NULL && argument->words[i] != NULL; i++)
		printf("%s%s", i > 0 ? ", " : "", argument->words[i]);
}

static void
print_argument(const ArgumentSpec *argument)
{
	printf("| | `%s` | %s | ", argument->name, argument_type_name(argument->type));
	print_default(argument);
	printf(" | ");
	print_range(argument);
	printf(" | ");
	print_text(argument->description);
	printf(" |\n");
}

int
main(void)
{
	int			o;
	int			a;

	printf("| operation | argument | type | default | range or words | description |\n");
	printf("| --- | --- | --- | --- | --- | --- |\n");
	for (o = 0; o < OPERATION_COUNT; o++)
	{
		printf("| **%s** | | %s | | | ", operations[o].name, operation_kind_name(operations[o].kind));
		print_text(operations[o].description);
		printf(" |\n");
		for (a = 0; operations[o].arguments && operations[o].arguments[a].name; a++)
			print_argument(&operations[o].arguments[a]);
	}
	return 0;
}
