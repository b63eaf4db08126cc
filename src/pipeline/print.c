/*
 * print.c
 *		The canonical text of a pipeline.
 *
 * Only the arguments that were given, in the order of the table, so that equal
 * requests have equal texts and a default that changes later changes what was
 * left to it.  Reading the text back gives the same pipeline.
 */
#include "pipeline/pipeline.h"

#include <stdio.h>
#include <string.h>

#include "pipeline/number.h"

typedef struct Output
{
	char	   *text;
	size_t		size;
	size_t		used;
	bool		full;
} Output;

static void
put_bytes(Output *output, const char *bytes, size_t length)
{
	if (output->full || length >= output->size - output->used)
	{
		output->full = true;
		return;
	}
	memcpy(output->text + output->used, bytes, length);
	output->used += length;
}

static void
put(Output *output, const char *string)
{
	put_bytes(output, string, strlen(string));
}

static void
put_quoted(Output *output, const char *text)
{
	const char *c;

	put(output, "'");
	for (c = text; *c != '\0'; c++)
		put_bytes(output, *c == '\'' ? "''" : c, *c == '\'' ? 2 : 1);
	put(output, "'");
}

static void
put_color(Output *output, uint32_t color)
{
	char		text[16];

	if ((color & 0xFF) == 0xFF)
		snprintf(text, sizeof(text), "#%06x", (unsigned int) (color >> 8));
	else
		snprintf(text, sizeof(text), "#%08x", (unsigned int) color);
	put(output, text);
}

static void
put_value(Output *output, const ArgumentSpec *argument, const PipelineValue *value)
{
	char		number[NUMBER_TEXT_SIZE];

	switch (argument->type)
	{
		case ARGUMENT_INTEGER:
		case ARGUMENT_NUMBER:
			put_bytes(output, number, number_write(value->number, number));
			break;
		case ARGUMENT_WORD:
			put(output, argument->words[(int) value->number]);
			break;
		case ARGUMENT_BOOLEAN:
			put(output, value->number != 0 ? "true" : "false");
			break;
		case ARGUMENT_COLOR:
			put_color(output, (uint32_t) value->number);
			break;
		case ARGUMENT_TEXT:
			put_quoted(output, value->text);
			break;
	}
}

static size_t
finish(Output *output)
{
	if (output->full)
		return 0;
	output->text[output->used] = '\0';
	return output->used;
}

size_t
pipeline_print_value(const ArgumentSpec *argument, const PipelineValue *value,
					 char *text, size_t size)
{
	Output		output = {text, size, 0, size == 0};

	put_value(&output, argument, value);
	return finish(&output);
}

size_t
pipeline_print(const Pipeline *pipeline, char *text, size_t size)
{
	Output		output = {text, size, 0, size == 0};
	int			s;

	for (s = 0; s < pipeline->n_steps; s++)
	{
		const PipelineStep *step = &pipeline->steps[s];
		const OperationSpec *operation = &operations[step->operation];
		const char *separator = "(";
		int			a;

		if (s > 0)
			put(&output, " | ");
		put(&output, operation->name);
		for (a = 0; operation->arguments && operation->arguments[a].name; a++)
		{
			if (!step->values[a].given)
				continue;
			put(&output, separator);
			put(&output, operation->arguments[a].name);
			put(&output, "=");
			put_value(&output, &operation->arguments[a], &step->values[a]);
			separator = ", ";
		}
		if (separator[0] == ',')
			put(&output, ")");
	}
	return finish(&output);
}
