/*
 * pipeline.h
 *		The operation language: "resize(width=800) | sharpen | webp(quality=80)".
 *
 * Pure C, no PostgreSQL and no libvips, so that the extension, the decoder and
 * a unit test share one parser.  Nothing here allocates: a Pipeline is a plain
 * value.  operations.c and arguments.c hold the one table of operations and
 * arguments; the parser, the canonical text, the error hints, the decoder's
 * dispatch and the reference in the docs all follow from it.
 *
 * Grammar:
 *		pipeline  := step { "|" step }
 *		step      := name [ "(" [ argument { "," argument } ] ")" ]
 *		argument  := name "=" value
 *		value     := number | word | "#" hexadecimal | "'" text "'"
 * In text '' stands for '.  Names and words are case-insensitive.  White space
 * is free.  Numbers keep 15 significant digits.  There is at least one step.
 * What says how the image is read stands before all that changes it, an
 * encoder only last; where there is none the output keeps the input's format.
 */
#ifndef IMGPIPE_PIPELINE_H
#define IMGPIPE_PIPELINE_H

#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "pipeline/operations.h"

#define PIPELINE_MAX_STEPS		32
#define PIPELINE_MAX_ARGUMENTS	12
#define PIPELINE_MAX_TEXT		8192	/* buffer for the longest pipeline, as typed
										 * or canonical, and its NUL */

typedef enum OperationKind
{
	OPERATION_TRANSFORM,		/* changes pixels; in the order as written */
	OPERATION_INPUT,			/* how the image is read: before the transforms, each once */
	OPERATION_OUTPUT,			/* what of the file is kept: anywhere, each once */
	OPERATION_ENCODER			/* last */
} OperationKind;

typedef enum ArgumentType
{
	ARGUMENT_INTEGER,
	ARGUMENT_NUMBER,
	ARGUMENT_WORD,				/* one of a list of words; value.number is its index */
	ARGUMENT_BOOLEAN,
	ARGUMENT_COLOR,				/* #rgb, #rrggbb, #rrggbbaa or a word;
								 * value.number is 0xRRGGBBAA */
	ARGUMENT_TEXT
} ArgumentType;

typedef struct ArgumentSpec
{
	const char *name;
	ArgumentType type;
	bool		required;
	double		minimum;		/* numbers; for text the longest length is maximum */
	double		maximum;
	double		fallback;		/* default number, word index, boolean or color,
								 * or NO_DEFAULT; texts have none */
	const char *const *words;	/* ARGUMENT_WORD: NULL-terminated */
	const char *description;
} ArgumentSpec;

#define NO_DEFAULT	NAN

typedef struct PipelineStep PipelineStep;
typedef struct PipelineError PipelineError;

/*
 * What a table cannot say about the arguments of one step together.  Called
 * with all of them read; fills in the message, detail and hint and returns
 * false where they do not fit.
 */
typedef bool (*OperationCheck) (const PipelineStep *step, PipelineError *error);

typedef struct OperationSpec
{
	const char *name;
	OperationKind kind;
	const ArgumentSpec *arguments;	/* ended by a NULL name; or NULL */
	OperationCheck check;		/* or NULL */
	const char *description;
} OperationSpec;

typedef struct PipelineValue
{
	bool		given;			/* false: number holds the default, 0 for none */
	double		number;
	const char *text;			/* ARGUMENT_TEXT: points into Pipeline.text */
} PipelineValue;

struct PipelineStep
{
	OperationId operation;
	PipelineValue values[PIPELINE_MAX_ARGUMENTS];	/* as operations[].arguments */
};

typedef struct Pipeline
{
	int			n_steps;
	PipelineStep steps[PIPELINE_MAX_STEPS];
	size_t		text_used;
	char		text[PIPELINE_MAX_TEXT];	/* the texts of ARGUMENT_TEXT values */
} Pipeline;

typedef enum PipelineErrorKind
{
	PIPELINE_SYNTAX,			/* grammar, names, what must or must not be there */
	PIPELINE_VALUE,				/* a value of the wrong type or out of range */
	PIPELINE_LIMIT				/* too long, too many steps */
} PipelineErrorKind;

struct PipelineError
{
	PipelineErrorKind kind;
	int			position;		/* 1-based character, 0 where it is the whole */
	char		message[160];	/* lower case, no period */
	char		detail[256];	/* sentences, or empty */
	char		hint[512];		/* sentences, or empty */
};

extern const OperationSpec operations[OPERATION_COUNT];

/* As the reference calls them. */
extern const char *operation_kind_name(OperationKind kind);
extern const char *argument_type_name(ArgumentType type);

/* A step without arguments: every value is its default. */
extern void pipeline_start_step(PipelineStep *step, OperationId operation);

/* False and *error filled in where the text is not a pipeline. */
extern bool pipeline_parse(const char *text, size_t length,
						   Pipeline *pipeline, PipelineError *error);

/*
 * Writes the canonical text, arguments in table order and only those given,
 * NUL-terminated; returns its length, or 0 where size is too small.
 */
extern size_t pipeline_print(const Pipeline *pipeline, char *text, size_t size);

/* The same of one value. */
extern size_t pipeline_print_value(const ArgumentSpec *argument,
								   const PipelineValue *value,
								   char *text, size_t size);

/* The argument of a step by its position in the operation's table. */
static inline double
step_number(const PipelineStep *step, int argument)
{
	return step->values[argument].number;
}

static inline bool
step_given(const PipelineStep *step, int argument)
{
	return step->values[argument].given;
}

#endif							/* IMGPIPE_PIPELINE_H */
