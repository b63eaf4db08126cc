/*
 * pipeline.h
 *		The operation language: "resize(width=800) | sharpen | webp(quality=80)".
 *
 * Pure C, no PostgreSQL and no libvips, so that the extension, the decoder and
 * a unit test share one parser.  Nothing here allocates: a Pipeline is a plain
 * value.  operations.c holds the one table of operations and arguments; the
 * parser, the canonical text, the error hints, the decoder's dispatch and the
 * reference in the docs all follow from it.
 *
 * Grammar:
 *		pipeline  := step { "|" step }
 *		step      := name [ "(" [ argument { "," argument } ] ")" ]
 *		argument  := name "=" value
 *		value     := number | word | "'" text "'"      ('' stands for ')
 * Names and words are case-insensitive.  White space is free.  An encoder may
 * stand only last; where there is none the output keeps the input's format.
 */
#ifndef IMGPIPE_PIPELINE_H
#define IMGPIPE_PIPELINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PIPELINE_MAX_STEPS		32
#define PIPELINE_MAX_ARGUMENTS	12
#define PIPELINE_MAX_TEXT		8192	/* longest pipeline, as typed or canonical */

typedef enum OperationKind
{
	OPERATION_TRANSFORM,
	OPERATION_ENCODER
} OperationKind;

typedef enum ArgumentType
{
	ARGUMENT_INTEGER,
	ARGUMENT_NUMBER,
	ARGUMENT_WORD,				/* one of a list of words; value.number is its index */
	ARGUMENT_BOOLEAN,
	ARGUMENT_COLOR,				/* #rgb, #rrggbb, #rrggbbaa in quotes or a word; value.number is 0xRRGGBBAA */
	ARGUMENT_TEXT
} ArgumentType;

typedef struct ArgumentSpec
{
	const char *name;
	ArgumentType type;
	bool		required;
	double		minimum;		/* numbers; for text the longest length is maximum */
	double		maximum;
	double		fallback;		/* default number, word index, boolean or color */
	const char *const *words;	/* ARGUMENT_WORD: NULL-terminated */
	const char *description;
} ArgumentSpec;

typedef struct OperationSpec
{
	const char *name;
	OperationKind kind;
	const ArgumentSpec *arguments;	/* ended by a NULL name */
	const char *description;
} OperationSpec;

/* Index into operations[]; the two are kept in step by operations.c. */
typedef enum OperationId
{
	OPERATION_RESIZE,
	OPERATION_CROP,
	OPERATION_ROTATE,
	OPERATION_FLIP,
	OPERATION_GRAYSCALE,
	OPERATION_BLUR,
	OPERATION_SHARPEN,
	OPERATION_JPEG,
	OPERATION_PNG,
	OPERATION_WEBP,
	OPERATION_COUNT
} OperationId;

/* Values of ARGUMENT_WORD arguments, in the order of their word lists. */
typedef enum ResizeFit
{
	FIT_INSIDE,
	FIT_COVER,
	FIT_FILL
} ResizeFit;

typedef enum FlipDirection
{
	FLIP_VERTICAL,
	FLIP_HORIZONTAL
} FlipDirection;

typedef struct PipelineValue
{
	bool		given;			/* false: number holds the default */
	double		number;
	const char *text;			/* ARGUMENT_TEXT: points into Pipeline.text */
} PipelineValue;

typedef struct PipelineStep
{
	OperationId operation;
	PipelineValue values[PIPELINE_MAX_ARGUMENTS];	/* as operations[].arguments */
} PipelineStep;

typedef struct Pipeline
{
	int			n_steps;
	PipelineStep steps[PIPELINE_MAX_STEPS];
	size_t		text_used;
	char		text[PIPELINE_MAX_TEXT];	/* the texts of ARGUMENT_TEXT values */
} Pipeline;

typedef struct PipelineError
{
	int			position;		/* 1-based character, 0 where it is the whole */
	char		message[160];	/* lower case, no period */
	char		detail[256];	/* sentences, or empty */
	char		hint[256];		/* sentences, or empty */
} PipelineError;

extern const OperationSpec operations[OPERATION_COUNT];

/* False and *error filled in where the text is not a pipeline. */
extern bool pipeline_parse(const char *text, size_t length,
						   Pipeline *pipeline, PipelineError *error);

/*
 * Writes the canonical text, arguments in table order and only those given,
 * NUL-terminated; returns its length, or 0 where size is too small.
 */
extern size_t pipeline_print(const Pipeline *pipeline, char *text, size_t size);

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
