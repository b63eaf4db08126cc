/*
 * parser.h
 *		What the files of the parser share.
 *
 * token.c cuts the text into tokens and words the errors, suggest.c guesses
 * what was meant, parse.c knows the grammar and the table.  Every function
 * that returns bool returns false with parser->error filled in.
 */
#ifndef IMGPIPE_PARSER_H
#define IMGPIPE_PARSER_H

#include "pipeline/pipeline.h"

#define EXCERPT_SIZE	48		/* of what was typed, in messages */

#if defined(__GNUC__)
#define PRINTF_LIKE(string, first)	__attribute__((format(printf, string, first)))
#else
#define PRINTF_LIKE(string, first)
#endif

typedef enum TokenKind
{
	TOKEN_END,
	TOKEN_NAME,					/* of operations and arguments; words */
	TOKEN_NUMBER,
	TOKEN_COLOR,				/* with its "#" */
	TOKEN_TEXT,					/* with its quotes */
	TOKEN_SYMBOL				/* one of | ( ) , = */
} TokenKind;

typedef struct Token
{
	TokenKind	kind;
	size_t		offset;
	size_t		length;
	double		number;
} Token;

typedef struct Parser
{
	const char *text;
	size_t		length;
	size_t		offset;			/* behind token */
	Token		token;
	Pipeline   *pipeline;
	PipelineError *error;
} Parser;

/* Makes the next token the current one. */
extern bool parser_advance(Parser *parser);

static inline bool
parser_at(const Parser *parser, char symbol)
{
	return parser->token.kind == TOKEN_SYMBOL &&
		parser->text[parser->token.offset] == symbol;
}

/* The current token, cut short and made printable. */
extern const char *parser_excerpt(const Parser *parser, char buffer[EXCERPT_SIZE]);

/* Fills in kind, position and message; always false. */
extern bool parser_fail(Parser *parser, PipelineErrorKind kind, size_t offset,
						const char *format,...) PRINTF_LIKE(4, 5);

/* Something else was expected where the current token stands; always false. */
extern bool parser_fail_expected(Parser *parser, const char *what);

extern void parser_detail(Parser *parser, const char *format,...) PRINTF_LIKE(2, 3);
extern void parser_hint(Parser *parser, const char *format,...) PRINTF_LIKE(2, 3);

/*
 * Hints at the one of the names (ended by NULL) that the current token was
 * probably meant to be, or else, behind the introduction, at all of them.
 */
extern void parser_suggest(Parser *parser, const char *introduction,
						   const char *const *names);

/* Bytes of the valid UTF-8 character that text begins with, or 0. */
extern size_t character_length(const char *text, size_t length);

/* The 1-based character at a byte offset; a byte that is none counts as one. */
extern int	character_position(const char *text, size_t length, size_t offset);

static inline char
lower(char c)
{
	return c >= 'A' && c <= 'Z' ? (char) (c - 'A' + 'a') : c;
}

static inline bool
is_digit(char c)
{
	return c >= '0' && c <= '9';
}

#endif							/* IMGPIPE_PARSER_H */
