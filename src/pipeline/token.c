/*
 * token.c
 *		Cuts a pipeline into tokens, and words what is wrong with it.
 */
#include "pipeline/parser.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "pipeline/number.h"

#define REPLACEMENT_SIZE	4	/* "\xNN" without its NUL */

size_t
character_length(const char *text, size_t length)
{
	const unsigned char *c = (const unsigned char *) text;
	size_t		n;
	size_t		i;

	if (length == 0)
		return 0;
	if (c[0] < 0x80)
		return 1;
	if (c[0] >= 0xC2 && c[0] <= 0xDF)
		n = 2;
	else if (c[0] >= 0xE0 && c[0] <= 0xEF)
		n = 3;
	else if (c[0] >= 0xF0 && c[0] <= 0xF4)
		n = 4;
	else
		return 0;
	if (n > length)
		return 0;
	for (i = 1; i < n; i++)
		if ((c[i] & 0xC0) != 0x80)
			return 0;
	/* Longer than need be, a surrogate, or beyond U+10FFFF. */
	if ((c[0] == 0xE0 && c[1] < 0xA0) || (c[0] == 0xED && c[1] > 0x9F) ||
		(c[0] == 0xF0 && c[1] < 0x90) || (c[0] == 0xF4 && c[1] > 0x8F))
		return 0;
	return n;
}

int
character_position(const char *text, size_t length, size_t offset)
{
	int			position = 1;
	size_t		i = 0;

	while (i < offset)
	{
		size_t		n = character_length(text + i, length - i);

		i += n > 0 ? n : 1;
		position++;
	}
	return position;
}

static bool
is_space(char c)
{
	return c == ' ' || (c >= '\t' && c <= '\r');
}

static bool
is_letter(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

static bool
is_name_part(char c)
{
	return is_letter(c) || is_digit(c) || c == '-';
}

/*
 * What was typed, fit for a message: cut between characters where it is long,
 * with control characters and bytes that are no characters as \xNN.
 */
static const char *
excerpt(char buffer[EXCERPT_SIZE], const char *text, size_t length)
{
	size_t		used = 0;
	size_t		i = 0;

	while (i < length)
	{
		size_t		n = character_length(text + i, length - i);

		if (used + REPLACEMENT_SIZE + sizeof("...") > EXCERPT_SIZE)
		{
			memcpy(buffer + used, "...", 3);
			used += 3;
			break;
		}
		if (n == 0 || (unsigned char) text[i] < ' ' || text[i] == 0x7F)
		{
			snprintf(buffer + used, REPLACEMENT_SIZE + 1, "\\x%02x",
					 (unsigned int) (unsigned char) text[i]);
			used += REPLACEMENT_SIZE;
			i++;
			continue;
		}
		memcpy(buffer + used, text + i, n);
		used += n;
		i += n;
	}
	buffer[used] = '\0';
	return buffer;
}

const char *
parser_excerpt(const Parser *parser, char buffer[EXCERPT_SIZE])
{
	return excerpt(buffer, parser->text + parser->token.offset, parser->token.length);
}

bool
parser_fail(Parser *parser, PipelineErrorKind kind, size_t offset, const char *format,...)
{
	PipelineError *error = parser->error;
	va_list		arguments;

	error->kind = kind;
	error->position = character_position(parser->text, parser->length, offset);
	va_start(arguments, format);
	vsnprintf(error->message, sizeof(error->message), format, arguments);
	va_end(arguments);
	return false;
}

void
parser_detail(Parser *parser, const char *format,...)
{
	va_list		arguments;

	va_start(arguments, format);
	vsnprintf(parser->error->detail, sizeof(parser->error->detail), format, arguments);
	va_end(arguments);
}

void
parser_hint(Parser *parser, const char *format,...)
{
	va_list		arguments;

	va_start(arguments, format);
	vsnprintf(parser->error->hint, sizeof(parser->error->hint), format, arguments);
	va_end(arguments);
}

bool
parser_fail_expected(Parser *parser, const char *what)
{
	char		typed[EXCERPT_SIZE];

	if (parser->token.kind == TOKEN_END)
		return parser_fail(parser, PIPELINE_SYNTAX, parser->token.offset,
						   "pipeline ends where %s is expected", what);
	return parser_fail(parser, PIPELINE_SYNTAX, parser->token.offset,
					   "%s is expected before \"%s\"", what, parser_excerpt(parser, typed));
}

/* What nobody writes behind a number but as a part of it. */
static bool
sticks_to_number(char c)
{
	return is_name_part(c) || c == '.' || c == '+' || c == '%';
}

static bool
read_number_token(Parser *parser)
{
	Token	   *token = &parser->token;
	const char *start = parser->text + token->offset;
	size_t		left = parser->length - token->offset;
	char		typed[EXCERPT_SIZE];

	token->kind = TOKEN_NUMBER;
	token->length = number_read(start, left, &token->number);
	if (token->length > 0 &&
		(token->length == left || !sticks_to_number(start[token->length])))
		return true;

	while (token->length < left && sticks_to_number(start[token->length]))
		token->length++;
	parser_fail(parser, PIPELINE_SYNTAX, token->offset,
				"\"%s\" is not a number", parser_excerpt(parser, typed));
	parser_hint(parser, "Numbers are written like 80 or 0.5, without a unit.");
	return false;
}

static bool
read_text_token(Parser *parser)
{
	Token	   *token = &parser->token;
	const char *start = parser->text + token->offset;
	size_t		left = parser->length - token->offset;
	size_t		i = 1;

	token->kind = TOKEN_TEXT;
	while (i < left)
	{
		if (start[i] != '\'')
			i++;
		else if (i + 1 < left && start[i + 1] == '\'')
			i += 2;
		else
		{
			token->length = i + 1;
			return true;
		}
	}
	parser_fail(parser, PIPELINE_SYNTAX, token->offset, "quoted text does not end");
	parser_hint(parser, "Text ends with a single quote; a quote within it is written twice.");
	return false;
}

bool
parser_advance(Parser *parser)
{
	Token	   *token = &parser->token;
	const char *start;
	size_t		left;
	char		typed[EXCERPT_SIZE];

	while (parser->offset < parser->length && is_space(parser->text[parser->offset]))
		parser->offset++;
	token->offset = parser->offset;
	token->length = 0;
	token->number = 0;

	start = parser->text + parser->offset;
	left = parser->length - parser->offset;
	if (left == 0)
		token->kind = TOKEN_END;
	else if (is_letter(*start))
	{
		token->kind = TOKEN_NAME;
		while (token->length < left && is_name_part(start[token->length]))
			token->length++;
	}
	else if (is_digit(*start) || *start == '.' || *start == '-' || *start == '+')
	{
		if (!read_number_token(parser))
			return false;
	}
	else if (*start == '\'')
	{
		if (!read_text_token(parser))
			return false;
	}
	else if (*start == '#')
	{
		token->kind = TOKEN_COLOR;
		token->length = 1;
		while (token->length < left && is_name_part(start[token->length]))
			token->length++;
	}
	else if (*start == '|' || *start == '(' || *start == ')' || *start == ',' || *start == '=')
	{
		token->kind = TOKEN_SYMBOL;
		token->length = 1;
	}
	else
	{
		size_t		n = character_length(start, left);

		parser_fail(parser, PIPELINE_SYNTAX, parser->offset, "unexpected character \"%s\"",
					excerpt(typed, start, n > 0 ? n : 1));
		parser_hint(parser, "A pipeline looks like this: resize(width=800) | webp(quality=80).");
		return false;
	}
	parser->offset += token->length;
	return true;
}
