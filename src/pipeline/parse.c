/*
 * parse.c
 *		The grammar of the operation language, and what its values may be.
 *
 * The text is hostile: it may come from any user and may hold any bytes.  The
 * parser keeps one token, does not recurse and does not allocate; it stops at
 * the first error.
 */
#include "pipeline/parser.h"

#include <stdio.h>
#include <string.h>

#include "pipeline/number.h"

typedef struct NamedColor
{
	const char *name;
	uint32_t	color;			/* 0xRRGGBBAA */
} NamedColor;

static const NamedColor named_colors[] = {
	{"black", 0x000000FF},
	{"white", 0xFFFFFFFF},
	{"transparent", 0x00000000},
	{"gray", 0x808080FF},
	{"silver", 0xC0C0C0FF},
	{"red", 0xFF0000FF},
	{"green", 0x008000FF},
	{"blue", 0x0000FFFF},
	{"yellow", 0xFFFF00FF},
	{"orange", 0xFFA500FF},
	{"purple", 0x800080FF},
	{"navy", 0x000080FF}
};

#define N_NAMED_COLORS	(sizeof(named_colors) / sizeof(named_colors[0]))

/* The index's lowest bit is the value. */
static const char *const boolean_words[] = {
	"false", "true", "off", "on", "no", "yes", NULL
};

static bool
same_name(const char *typed, size_t length, const char *name)
{
	size_t		i;

	for (i = 0; i < length; i++)
		if (name[i] == '\0' || lower(typed[i]) != name[i])
			return false;
	return name[length] == '\0';
}

/* Values ---------------------------------------------------------------- */

/* "an integer between 1 and 100", for "takes ..." */
static void
describe_type(const ArgumentSpec *argument, char *text, size_t size)
{
	char		minimum[NUMBER_TEXT_SIZE];
	char		maximum[NUMBER_TEXT_SIZE];

	number_write(argument->minimum, minimum);
	number_write(argument->maximum, maximum);
	switch (argument->type)
	{
		case ARGUMENT_INTEGER:
			snprintf(text, size, "an integer between %s and %s", minimum, maximum);
			break;
		case ARGUMENT_NUMBER:
			snprintf(text, size, "a number between %s and %s", minimum, maximum);
			break;
		case ARGUMENT_WORD:
			snprintf(text, size, "a word without quotes");
			break;
		case ARGUMENT_BOOLEAN:
			snprintf(text, size, "true or false");
			break;
		case ARGUMENT_COLOR:
			snprintf(text, size, "a color: #rgb, #rrggbb, #rrggbbaa or a name");
			break;
		case ARGUMENT_TEXT:
			snprintf(text, size, "text of at most %s characters in single quotes", maximum);
			break;
	}
}

/* The current token is not a value of this argument; says what would be. */
static bool
fail_value(Parser *parser, const OperationSpec *operation, const ArgumentSpec *argument)
{
	char		typed[EXCERPT_SIZE];
	char		type[192];

	if (parser->token.kind == TOKEN_END || parser->token.kind == TOKEN_SYMBOL)
		return parser_fail_expected(parser, "a value");
	describe_type(argument, type, sizeof(type));
	parser_fail(parser, PIPELINE_VALUE, parser->token.offset,
				"invalid value \"%s\" for argument \"%s\" of \"%s\"",
				parser_excerpt(parser, typed), argument->name, operation->name);
	parser_detail(parser, "\"%s\" takes %s.", argument->name, type);
	parser_hint(parser, "%s", argument->description);
	return false;
}

/* The index of the current token's word, or -1. */
static int
find_word(const Parser *parser, const char *const *words)
{
	int			i;

	for (i = 0; words[i] != NULL; i++)
		if (same_name(parser->text + parser->token.offset, parser->token.length, words[i]))
			return i;
	return -1;
}

static bool
read_number(Parser *parser, const OperationSpec *operation,
			const ArgumentSpec *argument, PipelineValue *value)
{
	const Token *token = &parser->token;
	char		typed[EXCERPT_SIZE];
	char		minimum[NUMBER_TEXT_SIZE];
	char		maximum[NUMBER_TEXT_SIZE];

	if (token->kind != TOKEN_NUMBER)
		return fail_value(parser, operation, argument);
	if (token->number < argument->minimum || token->number > argument->maximum)
	{
		number_write(argument->minimum, minimum);
		number_write(argument->maximum, maximum);
		parser_fail(parser, PIPELINE_VALUE, token->offset,
					"value %s is out of range for argument \"%s\" of \"%s\"",
					parser_excerpt(parser, typed), argument->name, operation->name);
		parser_detail(parser, "%s is not between %s and %s.", typed, minimum, maximum);
		parser_hint(parser, "%s", argument->description);
		return false;
	}
	if (argument->type == ARGUMENT_INTEGER && floor(token->number) != token->number)
		return fail_value(parser, operation, argument);
	value->number = token->number;
	return true;
}

static bool
read_word(Parser *parser, const OperationSpec *operation,
		  const ArgumentSpec *argument, PipelineValue *value)
{
	const char *const *words = argument->words;
	int			word = -1;

	if (argument->type == ARGUMENT_BOOLEAN)
		words = boolean_words;
	if (parser->token.kind == TOKEN_NAME)
		word = find_word(parser, words);
	if (word < 0)
	{
		fail_value(parser, operation, argument);
		if (parser->error->kind == PIPELINE_VALUE && argument->type == ARGUMENT_WORD)
			parser_suggest(parser, "Its words are", words);
		return false;
	}
	value->number = argument->type == ARGUMENT_BOOLEAN ? word & 1 : word;
	return true;
}

static bool
read_color(Parser *parser, const OperationSpec *operation,
		   const ArgumentSpec *argument, PipelineValue *value)
{
	const char *text = parser->text + parser->token.offset;
	size_t		n_digits;
	uint32_t	color = 0;
	size_t		i;

	if (parser->token.kind == TOKEN_NAME)
	{
		for (i = 0; i < N_NAMED_COLORS; i++)
		{
			if (same_name(text, parser->token.length, named_colors[i].name))
			{
				value->number = named_colors[i].color;
				return true;
			}
		}
	}
	if (parser->token.kind != TOKEN_COLOR)
		return fail_value(parser, operation, argument);
	n_digits = parser->token.length - 1;
	if (n_digits != 3 && n_digits != 6 && n_digits != 8)
		return fail_value(parser, operation, argument);

	for (i = 1; i <= n_digits; i++)
	{
		char		c = lower(text[i]);
		uint32_t	digit;

		if (is_digit(c))
			digit = (uint32_t) (c - '0');
		else if (c >= 'a' && c <= 'f')
			digit = (uint32_t) (c - 'a' + 10);
		else
			return fail_value(parser, operation, argument);
		color = color << 4 | digit;
		if (n_digits == 3)
			color = color << 4 | digit;
	}
	if (n_digits != 8)
		color = color << 8 | 0xFF;
	value->number = color;
	return true;
}

static bool
read_text(Parser *parser, const OperationSpec *operation,
		  const ArgumentSpec *argument, PipelineValue *value)
{
	Pipeline   *pipeline = parser->pipeline;
	const Token *token = &parser->token;
	size_t		end = token->offset + token->length - 1;
	size_t		i = token->offset + 1;
	size_t		start = pipeline->text_used;
	double		n_characters = 0;

	if (token->kind != TOKEN_TEXT)
		return fail_value(parser, operation, argument);
	while (i < end)
	{
		size_t		n = character_length(parser->text + i, end - i);

		if (n == 0 || parser->text[i] == '\0')
			return parser_fail(parser, PIPELINE_VALUE, i,
							   "text of argument \"%s\" holds a byte that is not UTF-8 text",
							   argument->name);
		if (++n_characters > argument->maximum)
			return fail_value(parser, operation, argument);

		/*
		 * The texts without their two quotes are never longer than the
		 * pipeline, so this cannot happen; but it is not for this function to
		 * know.
		 */
		if (pipeline->text_used + n + 1 > sizeof(pipeline->text))
			return parser_fail(parser, PIPELINE_LIMIT, token->offset, "pipeline is too long");
		memcpy(pipeline->text + pipeline->text_used, parser->text + i, n);
		pipeline->text_used += n;
		i += parser->text[i] == '\'' ? 2 : n;
	}
	pipeline->text[pipeline->text_used++] = '\0';
	value->text = pipeline->text + start;
	return true;
}

static bool
read_value(Parser *parser, const OperationSpec *operation,
		   const ArgumentSpec *argument, PipelineValue *value)
{
	switch (argument->type)
	{
		case ARGUMENT_INTEGER:
		case ARGUMENT_NUMBER:
			return read_number(parser, operation, argument, value);
		case ARGUMENT_WORD:
		case ARGUMENT_BOOLEAN:
			return read_word(parser, operation, argument, value);
		case ARGUMENT_COLOR:
			return read_color(parser, operation, argument, value);
		case ARGUMENT_TEXT:
			return read_text(parser, operation, argument, value);
	}
	return false;
}

/* Steps ----------------------------------------------------------------- */

/* Index of the argument that the current token names, or -1. */
static int
find_argument(const Parser *parser, const OperationSpec *operation)
{
	int			i;

	for (i = 0; operation->arguments && operation->arguments[i].name; i++)
		if (same_name(parser->text + parser->token.offset, parser->token.length,
					  operation->arguments[i].name))
			return i;
	return -1;
}

static bool
fail_unknown_argument(Parser *parser, const OperationSpec *operation)
{
	const char *names[PIPELINE_MAX_ARGUMENTS + 1] = {NULL};
	char		typed[EXCERPT_SIZE];
	char		introduction[64];
	int			i;

	parser_fail(parser, PIPELINE_SYNTAX, parser->token.offset, "unknown argument \"%s\" of \"%s\"",
				parser_excerpt(parser, typed), operation->name);
	for (i = 0; operation->arguments && operation->arguments[i].name; i++)
		names[i] = operation->arguments[i].name;
	if (i == 0)
	{
		parser_hint(parser, "\"%s\" takes no arguments.", operation->name);
		return false;
	}
	snprintf(introduction, sizeof(introduction), "The arguments of \"%s\" are",
			 operation->name);
	parser_suggest(parser, introduction, names);
	return false;
}

/* name = value, with the name the current token. */
static bool
parse_argument(Parser *parser, const OperationSpec *operation, PipelineStep *step)
{
	Token		name = parser->token;
	int			argument;
	char		typed[EXCERPT_SIZE];

	if (name.kind == TOKEN_END || name.kind == TOKEN_SYMBOL)
		return parser_fail_expected(parser, "an argument");
	if (name.kind != TOKEN_NAME)
	{
		parser_fail(parser, PIPELINE_SYNTAX, name.offset, "argument \"%s\" has no name",
					parser_excerpt(parser, typed));
		if (operation->arguments != NULL)
			parser_hint(parser, "Arguments are written as name=value; the first of \"%s\" is \"%s\".",
						operation->name, operation->arguments[0].name);
		else
			parser_hint(parser, "\"%s\" takes no arguments.", operation->name);
		return false;
	}
	argument = find_argument(parser, operation);
	if (argument < 0)
		return fail_unknown_argument(parser, operation);
	if (step->values[argument].given)
	{
		parser_fail(parser, PIPELINE_SYNTAX, name.offset, "argument \"%s\" of \"%s\" is given twice",
					operation->arguments[argument].name, operation->name);
		parser_hint(parser, "Give each argument once, or write a second step.");
		return false;
	}
	if (!parser_advance(parser))
		return false;
	if (!parser_at(parser, '='))
	{
		parser_fail_expected(parser, "\"=\"");
		parser_hint(parser, "Arguments are written as name=value.");
		return false;
	}
	if (!parser_advance(parser))
		return false;
	if (!read_value(parser, operation, &operation->arguments[argument],
					&step->values[argument]))
		return false;
	step->values[argument].given = true;
	return parser_advance(parser);
}

/* From the opening parenthesis to behind the closing one. */
static bool
parse_arguments(Parser *parser, const OperationSpec *operation, PipelineStep *step)
{
	if (!parser_advance(parser))
		return false;
	if (parser_at(parser, ')'))
		return parser_advance(parser);
	for (;;)
	{
		if (!parse_argument(parser, operation, step))
			return false;
		if (parser_at(parser, ')'))
			return parser_advance(parser);
		if (!parser_at(parser, ','))
			return parser_fail_expected(parser, "\",\" or \")\"");
		if (!parser_advance(parser))
			return false;
	}
}

/* What sharp, imgproxy and ImageMagick call what we call otherwise, or NULL. */
static const char *
name_elsewhere(const Parser *parser)
{
	static const char *const names[][2] = {
		{"brightness", "modulate"}, {"contrast", "modulate"}, {"saturation", "modulate"}, {"hue", "modulate"},
		{"extract", "crop"}, {"pad", "extend"}, {"padding", "extend"}, {"border", "extend"},
		{"quality", "auto"}, {"max_bytes", "auto"},
		{"label", "text"}, {"annotate", "text"}, {"watermark", "composite"}, {"overlay", "composite"},
		{"mirror", "flop"}, {"negate", "invert"}, {"scale", "resize"}, {"thumbnail", "resize"},
		{"strip", "keep"}, {"metadata", "keep"}, {"unsharp", "sharpen"}, {"background", "flatten"}
	};
	size_t		i;

	for (i = 0; i < sizeof(names) / sizeof(names[0]); i++)
	{
		if (same_name(parser->text + parser->token.offset, parser->token.length, names[i][0]))
			return names[i][1];
	}
	return NULL;
}

static bool
find_operation(Parser *parser, OperationId *id)
{
	const char *names[OPERATION_COUNT + 1] = {NULL};
	const char *elsewhere;
	char		typed[EXCERPT_SIZE];
	int			i;

	if (parser->token.kind != TOKEN_NAME)
	{
		parser_fail_expected(parser, "an operation");
		parser_hint(parser, "Operations are joined by \"|\": resize(width=800) | webp(quality=80).");
		return false;
	}
	for (i = 0; i < OPERATION_COUNT; i++)
	{
		names[i] = operations[i].name;
		if (same_name(parser->text + parser->token.offset, parser->token.length, names[i]))
		{
			*id = (OperationId) i;
			return true;
		}
	}
	parser_fail(parser, PIPELINE_SYNTAX, parser->token.offset, "unknown operation \"%s\"",
				parser_excerpt(parser, typed));
	elsewhere = name_elsewhere(parser);
	if (elsewhere != NULL)
		parser_hint(parser, "What you mean may be \"%s\".", elsewhere);
	else
		parser_suggest(parser, "The operations are", names);
	return false;
}

void
pipeline_start_step(PipelineStep *step, OperationId id)
{
	const ArgumentSpec *arguments = operations[id].arguments;
	int			i;

	memset(step, 0, sizeof(*step));
	step->operation = id;
	for (i = 0; arguments && arguments[i].name; i++)
		if (!isnan(arguments[i].fallback))
			step->values[i].number = arguments[i].fallback;
}

/* Whether an operation may stand behind the steps that there are. */
static bool
check_place(Parser *parser, const OperationSpec *operation, size_t start)
{
	const Pipeline *pipeline = parser->pipeline;
	int			i;

	if (operation->kind != OPERATION_INPUT && operation->kind != OPERATION_OUTPUT)
		return true;
	for (i = 0; i < pipeline->n_steps; i++)
	{
		const OperationSpec *before = &operations[pipeline->steps[i].operation];

		if (before == operation)
		{
			parser_fail(parser, PIPELINE_SYNTAX, start, "\"%s\" is given twice", operation->name);
			parser_detail(parser, "\"%s\" holds for the whole pipeline.", operation->name);
			parser_hint(parser, "Give it once, with all of its arguments.");
			return false;
		}
		if (operation->kind == OPERATION_INPUT && before->kind == OPERATION_TRANSFORM)
		{
			parser_fail(parser, PIPELINE_SYNTAX, start, "\"%s\" comes too late", operation->name);
			parser_detail(parser, "\"%s\" says how the image is read; \"%s\" before it works on the image that was read.",
						  operation->name, before->name);
			parser_hint(parser, "Put it at the beginning.");
			return false;
		}
	}
	return true;
}

/* From an operation's name to the "|" or the end behind its step. */
static bool
parse_step(Parser *parser)
{
	Pipeline   *pipeline = parser->pipeline;
	PipelineStep *step;
	const OperationSpec *operation;
	OperationId id;
	size_t		start = parser->token.offset;
	int			i;

	if (!find_operation(parser, &id))
		return false;
	if (pipeline->n_steps == PIPELINE_MAX_STEPS)
	{
		parser_fail(parser, PIPELINE_LIMIT, start, "pipeline has too many steps");
		parser_detail(parser, "A pipeline has at most %d steps.", PIPELINE_MAX_STEPS);
		parser_hint(parser, "Process the image in two calls.");
		return false;
	}
	operation = &operations[id];
	if (!check_place(parser, operation, start))
		return false;
	step = &pipeline->steps[pipeline->n_steps++];
	pipeline_start_step(step, id);

	if (!parser_advance(parser))
		return false;
	if (parser_at(parser, '(') && !parse_arguments(parser, operation, step))
		return false;
	if (parser->token.kind != TOKEN_END && !parser_at(parser, '|'))
	{
		parser_fail_expected(parser, "\"|\"");
		parser_hint(parser, "Operations are joined by \"|\"; their arguments stand in parentheses.");
		return false;
	}

	for (i = 0; operation->arguments && operation->arguments[i].name; i++)
	{
		const ArgumentSpec *argument = &operation->arguments[i];

		if (argument->required && !step->values[i].given)
		{
			parser_fail(parser, PIPELINE_SYNTAX, start, "\"%s\" needs the argument \"%s\"",
						operation->name, argument->name);
			parser_hint(parser, "\"%s\": %s", argument->name, argument->description);
			return false;
		}
	}
	if (operation->check != NULL)
	{
		parser->error->position = character_position(parser->text, parser->length, start);
		return operation->check(step, parser->error);
	}
	return true;
}

static bool
parse_steps(Parser *parser)
{
	if (!parser_advance(parser))
		return false;
	if (parser->token.kind == TOKEN_END)
	{
		parser_fail(parser, PIPELINE_SYNTAX, 0, "pipeline is empty");
		parser->error->position = 0;
		parser_hint(parser, "Give at least one operation, for example resize(width=800).");
		return false;
	}
	for (;;)
	{
		size_t		start = parser->token.offset;
		const OperationSpec *operation;

		if (!parse_step(parser))
			return false;
		if (parser->token.kind == TOKEN_END)
			return true;
		operation = &operations[parser->pipeline->steps[parser->pipeline->n_steps - 1].operation];
		if (operation->kind == OPERATION_ENCODER)
		{
			parser_fail(parser, PIPELINE_SYNTAX, start, "\"%s\" is not the last operation",
						operation->name);
			parser_detail(parser, "\"%s\" encodes the result; nothing can be done to it afterwards.",
						  operation->name);
			parser_hint(parser, "Put it at the end.");
			return false;
		}
		if (!parser_advance(parser))
			return false;
	}
}

bool
pipeline_parse(const char *text, size_t length,
			   Pipeline *pipeline, PipelineError *error)
{
	Parser		parser = {.text = text, .length = length, .pipeline = pipeline, .error = error};
	char		canonical[PIPELINE_MAX_TEXT];

	memset(error, 0, sizeof(*error));
	pipeline->n_steps = 0;
	pipeline->text_used = 0;
	if (length < PIPELINE_MAX_TEXT)
	{
		if (!parse_steps(&parser))
			return false;
		if (pipeline_print(pipeline, canonical, sizeof(canonical)) > 0)
			return true;
	}
	error->kind = PIPELINE_LIMIT;
	snprintf(error->message, sizeof(error->message), "pipeline is too long");
	snprintf(error->detail, sizeof(error->detail),
			 "A pipeline, with white space in its usual places, has at most %d bytes.",
			 PIPELINE_MAX_TEXT - 1);
	snprintf(error->hint, sizeof(error->hint), "Process the image in two calls.");
	return false;
}
