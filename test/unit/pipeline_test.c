/*
 * pipeline_test.c
 *		Tests of the operation language without PostgreSQL.
 *
 *		cc -Isrc -fsanitize=address,undefined test/unit/pipeline_test.c \
 *			src/pipeline/{operations,arguments,parse,token,suggest,print,number}.c -lm
 *
 * Prints TAP.  With --fuzz N it also parses N random pipelines.  Whatever is
 * parsed lies in a block of memory of just its length, so that the address
 * sanitizer sees a read beyond its end.
 */
#include "pipeline/pipeline.h"

#include <locale.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pipeline/number.h"

/*
 * The same parser over another table, with the types of argument that no
 * operation may have yet.
 */
bool		sample_parse(const char *text, size_t length,
						 Pipeline *pipeline, PipelineError *error);
size_t		sample_print(const Pipeline *pipeline, char *text, size_t size);
void		sample_start_step(PipelineStep *step, OperationId operation);
size_t		sample_print_value(const ArgumentSpec *argument, const PipelineValue *value,
							   char *text, size_t size);

enum
{
	LABEL_TEXT,
	LABEL_COLOR,
	LABEL_BOLD,
	LABEL_WEIGHT
};

static const ArgumentSpec label_arguments[] = {
	[LABEL_TEXT] = {.name = "text", .type = ARGUMENT_TEXT, .required = true, .maximum = 20,
	.description = "Text."},
	[LABEL_COLOR] = {.name = "color", .type = ARGUMENT_COLOR, .fallback = 0x000000FF,
	.description = "Color."},
	[LABEL_BOLD] = {.name = "bold", .type = ARGUMENT_BOOLEAN, .fallback = true,
	.description = "Bold."},
	[LABEL_WEIGHT] = {.name = "weight", .type = ARGUMENT_NUMBER, .minimum = -1e10, .maximum = 1e10,
	.fallback = NO_DEFAULT, .description = "Weight."},
	{.name = NULL}
};

static const ArgumentSpec long_arguments[] = {
	{.name = "text", .type = ARGUMENT_TEXT, .maximum = PIPELINE_MAX_TEXT, .description = "Text."},
	{.name = NULL}
};

static const OperationSpec sample_operations[OPERATION_COUNT] = {
	[0] = {.name = "label", .arguments = label_arguments},
	[1] = {.name = "long", .arguments = long_arguments},
	[2 ... OPERATION_COUNT - 1] = {.name = "a2"}
};

#define operations		sample_operations
#define pipeline_parse	sample_parse
#define pipeline_print	sample_print
#define pipeline_start_step	sample_start_step
#define pipeline_print_value	sample_print_value
#include "pipeline/parse.c"
#include "pipeline/print.c"
#undef operations
#undef pipeline_parse
#undef pipeline_print
#undef pipeline_start_step
#undef pipeline_print_value

typedef struct Language
{
	const OperationSpec *operations;
	bool		(*parse) (const char *, size_t, Pipeline *, PipelineError *);
	size_t		(*print) (const Pipeline *, char *, size_t);
} Language;

static const Language real = {operations, pipeline_parse, pipeline_print};
static const Language sample = {sample_operations, sample_parse, sample_print};

static int	n_tests = 0;
static int	n_failed = 0;

#if defined(__GNUC__)
__attribute__((format(printf, 2, 3)))
#endif
static void
ok(bool good, const char *format,...)
{
	va_list		arguments;

	n_tests++;
	if (!good)
		n_failed++;
	printf("%sok %d - ", good ? "" : "not ", n_tests);
	va_start(arguments, format);
	vprintf(format, arguments);
	va_end(arguments);
	printf("\n");
}

static void
is(const char *got, const char *expected, const char *name)
{
	bool		good = strcmp(got, expected) == 0;

	ok(good, "%s", name);
	if (!good)
		printf("#      got: %s\n# expected: %s\n", got, expected);
}

/* Parses a copy that ends where the text does. */
static bool
parse(const Language *language, const char *text, size_t length,
	  Pipeline *pipeline, PipelineError *error)
{
	char	   *copy = malloc(length > 0 ? length : 1);
	bool		good;

	memcpy(copy, text, length);
	memset(pipeline, 0x7F, sizeof(*pipeline));
	memset(error, 0x7F, sizeof(*error));
	good = language->parse(copy, length, pipeline, error);
	free(copy);
	return good;
}

static bool
same_pipeline(const Language *language, const Pipeline *a, const Pipeline *b)
{
	int			s;
	int			i;

	if (a->n_steps != b->n_steps)
		return false;
	for (s = 0; s < a->n_steps; s++)
	{
		const OperationSpec *operation = &language->operations[a->steps[s].operation];

		if (a->steps[s].operation != b->steps[s].operation)
			return false;
		for (i = 0; operation->arguments && operation->arguments[i].name; i++)
		{
			const PipelineValue *x = &a->steps[s].values[i];
			const PipelineValue *y = &b->steps[s].values[i];

			if (x->given != y->given || x->number != y->number ||
				(x->text == NULL) != (y->text == NULL) ||
				(x->text != NULL && strcmp(x->text, y->text) != 0))
				return false;
		}
	}
	return true;
}

static bool
valid_utf8(const char *text, size_t size, size_t *n_characters)
{
	size_t		length = strnlen(text, size);
	size_t		i = 0;
	size_t		n;

	if (length == size)
		return false;
	*n_characters = 0;
	while (i < length)
	{
		n = character_length(text + i, length - i);
		if (n == 0 || ((unsigned char) text[i] < ' '))
			return false;
		i += n;
		(*n_characters)++;
	}
	return true;
}

/*
 * What holds for every text: NULL, or what does not.  *accepted counts the
 * texts that are pipelines.
 */
static const char *
broken_promise(const Language *language, const char *text, size_t length, long *accepted)
{
	static Pipeline pipeline;
	static Pipeline again;
	static char canonical[PIPELINE_MAX_TEXT];
	static char second[PIPELINE_MAX_TEXT];
	PipelineError error;
	size_t		canonical_length;
	size_t		n;

	if (parse(language, text, length, &pipeline, &error))
	{
		(*accepted)++;
		canonical_length = language->print(&pipeline, canonical, sizeof(canonical));
		if (canonical_length == 0 || strlen(canonical) != canonical_length)
			return "an accepted pipeline has a canonical text";
		if (language->print(&pipeline, second, canonical_length) != 0)
			return "a canonical text without room for its NUL is refused";
		if (!parse(language, canonical, canonical_length, &again, &error))
			return "a canonical text is a pipeline";
		if (!same_pipeline(language, &pipeline, &again))
			return "a canonical text means the same";
		if (language->print(&again, second, sizeof(second)) != canonical_length ||
			strcmp(canonical, second) != 0)
			return "a canonical text is its own canonical text";
		return NULL;
	}
	if (!valid_utf8(error.message, sizeof(error.message), &n) || n == 0)
		return "an error has a message of printable characters";
	if (!valid_utf8(error.detail, sizeof(error.detail), &n) ||
		!valid_utf8(error.hint, sizeof(error.hint), &n))
		return "detail and hint are printable characters";
	if (error.position < 0 || (size_t) error.position > length + 1)
		return "the position lies within the text";
	if (error.kind != PIPELINE_SYNTAX && error.kind != PIPELINE_VALUE &&
		error.kind != PIPELINE_LIMIT)
		return "the kind of error is known";
	return NULL;
}

static void
test_table(void)
{
	int			o;
	int			i;
	int			j;

	for (o = 0; o < OPERATION_COUNT; o++)
	{
		const OperationSpec *operation = &operations[o];
		bool		good = operation->name != NULL && operation->description != NULL &&
			strlen(operation->name) <= 32;

		for (i = 0; good && i < o; i++)
			good = strcmp(operations[i].name, operation->name) != 0;
		for (i = 0; good && operation->arguments && operation->arguments[i].name; i++)
		{
			const ArgumentSpec *argument = &operation->arguments[i];
			double		last = argument->maximum;
			char		text[NUMBER_TEXT_SIZE];
			double		number;

			good = i < PIPELINE_MAX_ARGUMENTS && argument->description != NULL &&
				(argument->type == ARGUMENT_WORD) == (argument->words != NULL);
			for (j = 0; good && j < i; j++)
				good = strcmp(operation->arguments[j].name, argument->name) != 0;

			/* It is the hint of a wrong value, except where there are words. */
			if (argument->type != ARGUMENT_WORD)
				good &= strlen(argument->description) + strlen(argument->name) + 8 <
					sizeof(((PipelineError *) NULL)->hint);
			if (argument->type == ARGUMENT_WORD)
				for (last = -1; argument->words[(int) last + 1] != NULL;)
					last++;
			if (argument->type == ARGUMENT_BOOLEAN)
				last = 1;
			if (argument->type != ARGUMENT_TEXT && argument->type != ARGUMENT_COLOR &&
				!isnan(argument->fallback))
				good &= argument->fallback >= argument->minimum && argument->fallback <= last;
			good &= !argument->required || isnan(argument->fallback);
			good &= argument->minimum <= last && fabs(argument->minimum) < 1e15 && last < 1e15;
			number_write(argument->minimum, text);
			good &= number_read(text, strlen(text), &number) == strlen(text) &&
				number == argument->minimum;
		}
		ok(good, "table: %s", operation->name ? operation->name : "(no name)");
	}
}

static void
test_accepted(void)
{
	static const struct
	{
		const Language *language;
		const char *text;
		const char *canonical;
	}			cases[] = {
		{&real, "grayscale", "grayscale"},
		{&real, "grayscale()", "grayscale"},
		{&real, "webp ( )", "webp"},
		{&real, " \t\r\n\f\v resize\n( width\t=800)  ", "resize(width=800)"},
		{&real, "resize(width=800)|sharpen|webp(quality=80)",
		"resize(width=800) | sharpen | webp(quality=80)"},
		{&real, "RESIZE(Fit=COVER,HEIGHT=600,width=800)", "resize(width=800, height=600, fit=cover)"},
		{&real, "resize(height=1)", "resize(height=1)"},
		{&real, "resize(width=1, enlarge=yes)", "resize(width=1, enlarge=true)"},
		{&real, "resize(width=1, enlarge=OFF)", "resize(width=1, enlarge=false)"},
		{&real, "resize(width=1,fit=inside)", "resize(width=1, fit=inside)"},
		{&real, "resize(width=8e2)", "resize(width=800)"},
		{&real, "resize(width=80000e-2)", "resize(width=800)"},
		{&real, "resize(width=+0800.000)", "resize(width=800)"},
		{&real, "resize(width=65535)", "resize(width=65535)"},
		{&real, "crop(width=10,height=20)", "crop(width=10, height=20)"},
		{&real, "crop(height=20,width=10,top=0,left=3)", "crop(left=3, top=0, width=10, height=20)"},
		{&real, "rotate(angle=90)|rotate(angle=180)|rotate(angle=270)",
		"rotate(angle=90) | rotate(angle=180) | rotate(angle=270)"},
		{&real, "flip|FLOP", "flip | flop"},
		{&real, "rotate(angle=-12.50, background=#FFF)", "rotate(angle=-12.5, background=#ffffff)"},
		{&real, "resize(width=1,height=2,fit=contain,background=transparent,gravity=NorthWest)",
		"resize(width=1, height=2, fit=contain, gravity=northwest, background=#00000000)"},
		{&real, "resize(width=1,height=2,fit=cover,gravity=entropy,kernel=nearest)",
		"resize(width=1, height=2, fit=cover, kernel=nearest, gravity=entropy)"},
		{&real, "pages(last=3)|autorotate(enabled=no)|keep|flip|auto(max_bytes=1e5)",
		"pages(last=3) | autorotate(enabled=false) | keep | flip | auto(max_bytes=100000)"},
		{&real, "keep(metadata=icc)|pages", "keep(metadata=icc) | pages"},
		{&real, "text(size=20,text='\xC2\xA9 O''Neill',tile=yes)", "text(text='\xC2\xA9 O''Neill', size=20, tile=true)"},
		{&real, "png(palette=true,colors=16)", "png(palette=true, colors=16)"},
		{&real, "blur|blur(sigma=.50)|blur(sigma=1.)|blur(sigma=3e-1)",
		"blur | blur(sigma=0.5) | blur(sigma=1) | blur(sigma=0.3)"},
		{&real, "blur(sigma=0.33333333333333331)", "blur(sigma=0.333333333333333)"},
		{&real, "blur(sigma=0.29999999999999999)", "blur(sigma=0.3)"},
		{&real, "sharpen(edges=100, flat=-0, sigma=1.25)", "sharpen(sigma=1.25, flat=0, edges=100)"},
		{&real, "jpeg(quality=1)", "jpeg(quality=1)"},
		{&real, "png(compression=9)", "png(compression=9)"},
		{&sample, "label(text='')", "label(text='')"},
		{&sample, "label(text='It''s | (here), ''''=')", "label(text='It''s | (here), ''''=')"},
		{&sample, "label(text='\xC3\x84\xE2\x82\xAC\xF0\x9F\x98\x80')",
		"label(text='\xC3\x84\xE2\x82\xAC\xF0\x9F\x98\x80')"},
		{&sample, "label(text='a',color=#F80)", "label(text='a', color=#ff8800)"},
		{&sample, "label(color=#12aB34,text='a')", "label(text='a', color=#12ab34)"},
		{&sample, "label(text='a', color=#12345678)", "label(text='a', color=#12345678)"},
		{&sample, "label(text='a', color=#ffffffff)", "label(text='a', color=#ffffff)"},
		{&sample, "label(text='a', color=Red)", "label(text='a', color=#ff0000)"},
		{&sample, "label(text='a', color=transparent)", "label(text='a', color=#00000000)"},
		{&sample, "label(text='a', bold=no)", "label(text='a', bold=false)"},
		{&sample, "label(text='a', weight=-1e-10)", "label(text='a', weight=-0.0000000001)"},
		{&sample, "label(text='a', weight=-1.5e-30)", "label(text='a', weight=0)"},
		{&sample, "label(text='a', weight=1234567890.12345)", "label(text='a', weight=1234567890.12345)"},
		{&sample, "label(text='abcdefghij\xC3\xA4\xC3\xA4\xC3\xA4\xC3\xA4\xC3\xA4vwxyz')",
		"label(text='abcdefghij\xC3\xA4\xC3\xA4\xC3\xA4\xC3\xA4\xC3\xA4vwxyz')"}
	};
	size_t		i;

	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
	{
		static Pipeline pipeline;
		PipelineError error;
		char		canonical[PIPELINE_MAX_TEXT] = "";
		long		accepted = 0;
		const char *broken;

		if (!parse(cases[i].language, cases[i].text, strlen(cases[i].text), &pipeline, &error))
		{
			is(error.message, "", cases[i].canonical);
			continue;
		}
		cases[i].language->print(&pipeline, canonical, sizeof(canonical));
		is(canonical, cases[i].canonical, cases[i].canonical);
		broken = broken_promise(cases[i].language, cases[i].text, strlen(cases[i].text), &accepted);
		ok(broken == NULL, "it reads back: %s", broken ? broken : cases[i].canonical);
	}
}

static void
test_values(void)
{
	static Pipeline pipeline;
	PipelineError error;
	const PipelineStep *step = &pipeline.steps[0];
	const char *text = "resize(height=600, fit=cover, width=800) | crop(width=1, height=2) | "
		"crop(width=1, height=2, gravity=west) | sharpen(flat=0.25) | webp";

	ok(parse(&real, text, strlen(text), &pipeline, &error) && pipeline.n_steps == 5, "five steps");
	ok(step->operation == OPERATION_RESIZE && step_number(step, RESIZE_WIDTH) == 800 &&
	   step_number(step, RESIZE_HEIGHT) == 600 && step_number(step, RESIZE_FIT) == FIT_COVER &&
	   step_given(step, RESIZE_FIT), "what was given");
	ok(!step_given(step, RESIZE_ENLARGE) && step_number(step, RESIZE_ENLARGE) == 0,
	   "what was left out has its default");
	ok(step[1].operation == OPERATION_CROP && !step_given(step + 1, CROP_LEFT) &&
	   step_number(step + 1, CROP_LEFT) == 0, "no default is 0");
	ok(step_number(step + 2, CROP_GRAVITY) == GRAVITY_WEST, "a word is its index");
	ok(step_number(step + 3, SHARPEN_SIGMA) == 0.5 && step_number(step + 3, SHARPEN_FLAT) == 0.25 &&
	   step_number(step + 3, SHARPEN_EDGES) == 3, "numbers and defaults");
	ok(step[4].operation == OPERATION_WEBP && step_number(step + 4, WEBP_QUALITY) == 80,
	   "an encoder without arguments");

	text = "label(text='O''Neill', color=#102030) | label(text='b', bold=false)";
	ok(parse(&sample, text, strlen(text), &pipeline, &error), "texts");
	is(step->values[LABEL_TEXT].text, "O'Neill", "a quote written twice is one");
	is(step[1].values[LABEL_TEXT].text, "b", "texts are kept apart");
	ok(step_number(step, LABEL_COLOR) == 0x102030FF && step_number(step + 1, LABEL_COLOR) == 0xFF,
	   "colors are 0xRRGGBBAA");
	ok(step_number(step, LABEL_BOLD) == 1 && step_number(step + 1, LABEL_BOLD) == 0, "booleans");
}

static void
test_refused(void)
{
	static const struct
	{
		const Language *language;
		const char *text;
		PipelineErrorKind kind;
		int			position;
		const char *message;
		const char *detail;		/* NULL: whatever */
		const char *hint;		/* NULL: whatever */
	}			cases[] = {
		{&real, "", PIPELINE_SYNTAX, 0, "pipeline is empty", "",
		"Give at least one operation, for example resize(width=800)."},
		{&real, " \n", PIPELINE_SYNTAX, 0, "pipeline is empty", "", NULL},
		{&real, "resise(width=1)", PIPELINE_SYNTAX, 1, "unknown operation \"resise\"", "",
		"Perhaps you meant \"resize\"."},
		{&real, "rezise", PIPELINE_SYNTAX, 1, "unknown operation \"rezise\"", "",
		"Perhaps you meant \"resize\"."},
		{&real, "GREYSCALE", PIPELINE_SYNTAX, 1, "unknown operation \"GREYSCALE\"", "",
		"Perhaps you meant \"grayscale\"."},
		{&real, "gray", PIPELINE_SYNTAX, 1, "unknown operation \"gray\"", "",
		"Perhaps you meant \"grayscale\"."},
		{&real, "jpg", PIPELINE_SYNTAX, 1, "unknown operation \"jpg\"", "",
		"Perhaps you meant \"jpeg\"."},
		{&real, "tif", PIPELINE_SYNTAX, 1, "unknown operation \"tif\"", "",
		"Perhaps you meant \"tiff\"."},
		{&real, "Watermark", PIPELINE_SYNTAX, 1, "unknown operation \"Watermark\"", "",
		"What you mean may be \"composite\"."},
		{&real, "negate", PIPELINE_SYNTAX, 1, "unknown operation \"negate\"", "",
		"What you mean may be \"invert\"."},
		{&real, "flip | wepb", PIPELINE_SYNTAX, 8, "unknown operation \"wepb\"", "",
		"Perhaps you meant \"webp\"."},
		{&real, "explode", PIPELINE_SYNTAX, 1, "unknown operation \"explode\"", "",
		"The operations are pages, autorotate, resize, crop, extend, trim, rotate, flip, flop, blur, sharpen, median, "
		"pixelate, modulate, gamma, normalize, clahe, grayscale, tint, invert, flatten, composite, text, join, keep, "
		"jpeg, png, webp, avif, gif, tiff, auto."},
		{&real, "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz", PIPELINE_SYNTAX, 1,
		"unknown operation \"abcdefghijklmnopqrstuvwxyzabcdefghijklmno...\"", "", NULL},
		{&real, "resize(widht=800)", PIPELINE_SYNTAX, 8, "unknown argument \"widht\" of \"resize\"", "",
		"Perhaps you meant \"width\"."},
		{&real, "resize(size=800)", PIPELINE_SYNTAX, 8, "unknown argument \"size\" of \"resize\"", "",
		"The arguments of \"resize\" are width, height, fit, enlarge, kernel, gravity, background."},
		{&real, "grayscale(x=1)", PIPELINE_SYNTAX, 11, "unknown argument \"x\" of \"grayscale\"", "",
		"\"grayscale\" takes no arguments."},
		{&real, "grayscale(1)", PIPELINE_SYNTAX, 11, "argument \"1\" has no name", "",
		"\"grayscale\" takes no arguments."},
		{&real, "resize(800)", PIPELINE_SYNTAX, 8, "argument \"800\" has no name", "",
		"Arguments are written as name=value; the first of \"resize\" is \"width\"."},
		{&real, "resize(width)", PIPELINE_SYNTAX, 13, "\"=\" is expected before \")\"", "",
		"Arguments are written as name=value."},
		{&real, "resize(width=)", PIPELINE_SYNTAX, 14, "a value is expected before \")\"", "", NULL},
		{&real, "resize(width=", PIPELINE_SYNTAX, 14, "pipeline ends where a value is expected", "", NULL},
		{&real, "resize(width", PIPELINE_SYNTAX, 13, "pipeline ends where \"=\" is expected", "", NULL},
		{&real, "resize(", PIPELINE_SYNTAX, 8, "pipeline ends where an argument is expected", "", NULL},
		{&real, "resize(width=1", PIPELINE_SYNTAX, 15,
		"pipeline ends where \",\" or \")\" is expected", "", NULL},
		{&real, "resize(width=1,)", PIPELINE_SYNTAX, 16, "an argument is expected before \")\"", "", NULL},
		{&real, "resize(width=1 height=2)", PIPELINE_SYNTAX, 16,
		"\",\" or \")\" is expected before \"height\"", "", NULL},
		{&real, "resize width=800", PIPELINE_SYNTAX, 8, "\"|\" is expected before \"width\"", "",
		"Operations are joined by \"|\"; their arguments stand in parentheses."},
		{&real, "flip flip", PIPELINE_SYNTAX, 6, "\"|\" is expected before \"flip\"", "", NULL},
		{&real, "flip)", PIPELINE_SYNTAX, 5, "\"|\" is expected before \")\"", "", NULL},
		{&real, "flip()()", PIPELINE_SYNTAX, 7, "\"|\" is expected before \"(\"", "", NULL},
		{&real, "flip |", PIPELINE_SYNTAX, 7, "pipeline ends where an operation is expected", "", NULL},
		{&real, "flip || blur", PIPELINE_SYNTAX, 7, "an operation is expected before \"|\"", "", NULL},
		{&real, "| flip", PIPELINE_SYNTAX, 1, "an operation is expected before \"|\"", "", NULL},
		{&real, "80", PIPELINE_SYNTAX, 1, "an operation is expected before \"80\"", "", NULL},
		{&real, "flip; blur", PIPELINE_SYNTAX, 5, "unexpected character \";\"", "",
		"A pipeline looks like this: resize(width=800) | webp(quality=80)."},
		{&real, "flip \xC3\xA4", PIPELINE_SYNTAX, 6, "unexpected character \"\xC3\xA4\"", "", NULL},
		{&real, "flip \xFF", PIPELINE_SYNTAX, 6, "unexpected character \"\\xff\"", "", NULL},
		{&real, "resize(width=800px)", PIPELINE_SYNTAX, 14, "\"800px\" is not a number", "",
		"Numbers are written like 80 or 0.5, without a unit."},
		{&real, "webp(quality=80%)", PIPELINE_SYNTAX, 14, "\"80%\" is not a number", "", NULL},
		{&real, "blur(sigma=1.2.3)", PIPELINE_SYNTAX, 12, "\"1.2.3\" is not a number", "", NULL},
		{&real, "blur(sigma=1,5)", PIPELINE_SYNTAX, 14, "argument \"5\" has no name", "", NULL},
		{&real, "blur(sigma=.)", PIPELINE_SYNTAX, 12, "\".\" is not a number", "", NULL},
		{&real, "blur(sigma=--1)", PIPELINE_SYNTAX, 12, "\"--1\" is not a number", "", NULL},
		{&real, "blur(sigma=1e)", PIPELINE_SYNTAX, 12, "\"1e\" is not a number", "", NULL},
		{&real, "blur(sigma=0x10)", PIPELINE_SYNTAX, 12, "\"0x10\" is not a number", "", NULL},
		{&real, "blur(sigma=nan)", PIPELINE_VALUE, 12,
		"invalid value \"nan\" for argument \"sigma\" of \"blur\"",
		"\"sigma\" takes a number between 0.3 and 100.",
		"Standard deviation of the Gaussian in pixels: the larger, the softer."},
		{&real, "resize(width=0)", PIPELINE_VALUE, 14,
		"value 0 is out of range for argument \"width\" of \"resize\"",
		"0 is not between 1 and 65535.", NULL},
		{&real, "resize(width=65536)", PIPELINE_VALUE, 14,
		"value 65536 is out of range for argument \"width\" of \"resize\"",
		"65536 is not between 1 and 65535.", NULL},
		{&real, "resize(width=-5)", PIPELINE_VALUE, 14,
		"value -5 is out of range for argument \"width\" of \"resize\"",
		"-5 is not between 1 and 65535.", NULL},
		{&real, "resize(width=1e999999999999)", PIPELINE_VALUE, 14,
		"value 1e999999999999 is out of range for argument \"width\" of \"resize\"",
		"1e999999999999 is not between 1 and 65535.", NULL},
		{&real, "blur(sigma=0.29)", PIPELINE_VALUE, 12,
		"value 0.29 is out of range for argument \"sigma\" of \"blur\"",
		"0.29 is not between 0.3 and 100.", NULL},
		{&real, "webp(quality=80.5)", PIPELINE_VALUE, 14,
		"invalid value \"80.5\" for argument \"quality\" of \"webp\"",
		"\"quality\" takes an integer between 1 and 100.", NULL},
		{&real, "webp(quality='80')", PIPELINE_VALUE, 14,
		"invalid value \"'80'\" for argument \"quality\" of \"webp\"", NULL, NULL},
		{&real, "resize(width=1, fit=covr)", PIPELINE_VALUE, 21,
		"invalid value \"covr\" for argument \"fit\" of \"resize\"",
		"\"fit\" takes a word without quotes.", "Perhaps you meant \"cover\"."},
		{&real, "resize(width=1, fit=3)", PIPELINE_VALUE, 21,
		"invalid value \"3\" for argument \"fit\" of \"resize\"",
		"\"fit\" takes a word without quotes.", "Its words are inside, cover, fill, contain, outside."},
		{&real, "resize(width=1, fit='cover')", PIPELINE_VALUE, 21,
		"invalid value \"'cover'\" for argument \"fit\" of \"resize\"", NULL,
		"Perhaps you meant \"cover\"."},
		{&real, "resize(width=1, fit=(", PIPELINE_SYNTAX, 21, "a value is expected before \"(\"", "", ""},
		{&real, "resize(width=1, enlarge=maybe)", PIPELINE_VALUE, 25,
		"invalid value \"maybe\" for argument \"enlarge\" of \"resize\"",
		"\"enlarge\" takes true or false.", NULL},
		{&real, "resize(width=1, height=2, WIDTH=3)", PIPELINE_SYNTAX, 27,
		"argument \"width\" of \"resize\" is given twice", "", NULL},
		{&real, "flip | resize", PIPELINE_SYNTAX, 8, "\"resize\" needs a width or a height", "",
		"Write for example resize(width=800)."},
		{&real, "resize(fit=cover)", PIPELINE_SYNTAX, 1, "\"resize\" needs a width or a height", "", NULL},
		{&real, "resize(width=1,fit=fill)", PIPELINE_SYNTAX, 1,
		"\"resize\" needs both width and height for this fit",
		"Only fit=inside takes the missing side from the image's proportions.", NULL},
		{&real, "crop(width=1)", PIPELINE_SYNTAX, 1, "\"crop\" needs the argument \"height\"", "",
		"\"height\": Height of the area in pixels."},
		{&real, "rotate", PIPELINE_SYNTAX, 1, "\"rotate\" needs the argument \"angle\"", "",
		"\"angle\": Degrees, clockwise. Quarters are without loss; for others the image grows to hold its corners."},
		{&real, "flip|rotate(angle=361)", PIPELINE_VALUE, 19,
		"value 361 is out of range for argument \"angle\" of \"rotate\"",
		"361 is not between -360 and 360.", NULL},
		{&real, "resize(width=1,gravity=north)", PIPELINE_SYNTAX, 1,
		"\"resize\" has no use for a gravity with this fit", "",
		"Add fit=cover, or fit=contain, or leave out the gravity."},
		{&real, "resize(width=1,height=1,fit=contain,gravity=attention)", PIPELINE_SYNTAX, 1,
		"\"resize\" cuts nothing off with fit=contain", "", NULL},
		{&real, "resize(width=1,height=1,fit=cover,background=red)", PIPELINE_SYNTAX, 1,
		"\"resize\" has no use for a background with this fit", "", NULL},
		{&real, "crop(left=1,width=1,height=1,gravity=north)", PIPELINE_SYNTAX, 1,
		"\"crop\" has two places for the area", "", "Give left and top, or gravity."},
		{&real, "extend", PIPELINE_SYNTAX, 1, "\"extend\" needs an edge to add pixels to", "", NULL},
		{&real, "extend(left=1,fill=copy,background=red)", PIPELINE_SYNTAX, 1,
		"\"extend\" has no use for a background with this fill", "", NULL},
		{&real, "normalize(lower=99)", PIPELINE_VALUE, 1,
		"\"normalize\" needs a lower percentage below the upper one", "", NULL},
		{&real, "flatten(background=#12345678)", PIPELINE_VALUE, 1,
		"\"flatten\" needs a color that is not transparent", "",
		"Give a color without transparency, such as white or #336699."},
		{&real, "tint(color=transparent)", PIPELINE_VALUE, 1,
		"\"tint\" needs a color that is not transparent", "", NULL},
		{&real, "tint", PIPELINE_SYNTAX, 1, "\"tint\" needs the argument \"color\"", "", NULL},
		{&real, "text(text='')", PIPELINE_VALUE, 1, "\"text\" needs a text that is not empty", "", NULL},
		{&real, "text(text='a',size=10,width=0.5)", PIPELINE_SYNTAX, 1,
		"\"text\" cannot have both a size and a width", "", NULL},
		{&real, "keep(metadata=icc,gps=true)", PIPELINE_SYNTAX, 1,
		"\"keep\" cannot keep GPS without EXIF", "", NULL},
		{&real, "png(colors=16)", PIPELINE_SYNTAX, 1, "\"png\" counts colors only in a palette", "", NULL},
		{&real, "tiff(quality=50)", PIPELINE_SYNTAX, 1,
		"\"tiff\" has a quality only with compression=jpeg", "", NULL},
		{&real, "webp(lossless=true,max_bytes=1000)", PIPELINE_SYNTAX, 1,
		"\"webp\" cannot fit lossless images into max_bytes", "", "Leave out one of the two."},
		{&real, "avif(max_bytes=1000,lossless=on)", PIPELINE_SYNTAX, 1,
		"\"avif\" cannot fit lossless images into max_bytes", "", NULL},
		{&real, "pages(first=3,last=2)", PIPELINE_VALUE, 1, "last page 2 is before first page 3", "",
		"Pages are counted from 1 on, as they stand in the file."},
		{&real, "keep|flip|pages", PIPELINE_SYNTAX, 11, "\"pages\" comes too late",
		"\"pages\" says how the image is read; \"flip\" before it works on the image that was read.",
		"Put it at the beginning."},
		{&real, "pages|autorotate|pages", PIPELINE_SYNTAX, 18, "\"pages\" is given twice",
		"\"pages\" holds for the whole pipeline.", "Give it once, with all of its arguments."},
		{&real, "keep|flip|keep(gps=true)", PIPELINE_SYNTAX, 11, "\"keep\" is given twice", NULL, NULL},
		{&real, "flip | webp | blur", PIPELINE_SYNTAX, 8, "\"webp\" is not the last operation",
		"\"webp\" encodes the result; nothing can be done to it afterwards.", "Put it at the end."},
		{&real, "webp | png", PIPELINE_SYNTAX, 1, "\"webp\" is not the last operation", NULL, NULL},
		{&real, "flip('", PIPELINE_SYNTAX, 6, "quoted text does not end", "", NULL},
		{&sample, "label(text='\xC3\xA4\xC3\xB6\xC3\xBC', \xE2\x82\xAC)", PIPELINE_SYNTAX, 19,
		"unexpected character \"\xE2\x82\xAC\"", "", NULL},
		{&sample, "label(text='abc''", PIPELINE_SYNTAX, 12, "quoted text does not end", "",
		"Text ends with a single quote; a quote within it is written twice."},
		{&sample, "label(text=abc)", PIPELINE_VALUE, 12,
		"invalid value \"abc\" for argument \"text\" of \"label\"",
		"\"text\" takes text of at most 20 characters in single quotes.", "Text."},
		{&sample, "label(text='123456789012345678901')", PIPELINE_VALUE, 12,
		"invalid value \"'123456789012345678901'\" for argument \"text\" of \"label\"", NULL, NULL},
		{&sample, "label(text='a\xC3')", PIPELINE_VALUE, 14,
		"text of argument \"text\" holds a byte that is not UTF-8 text", "", NULL},
		{&sample, "label(text='\xC0\xAF')", PIPELINE_VALUE, 13, NULL, "", NULL},
		{&sample, "label(text='\xED\xA0\x80')", PIPELINE_VALUE, 13, NULL, "", NULL},
		{&sample, "label(text='\xF4\x90\x80\x80')", PIPELINE_VALUE, 13, NULL, "", NULL},
		{&sample, "label(text='a', color=#12)", PIPELINE_VALUE, 23,
		"invalid value \"#12\" for argument \"color\" of \"label\"",
		"\"color\" takes a color: #rgb, #rrggbb, #rrggbbaa or a name.", NULL},
		{&sample, "label(text='a', color=#12345g)", PIPELINE_VALUE, 23,
		"invalid value \"#12345g\" for argument \"color\" of \"label\"", NULL, NULL},
		{&sample, "label(text='a', color=#)", PIPELINE_VALUE, 23, NULL, NULL, NULL},
		{&sample, "label(text='a', color=pink-ish)", PIPELINE_VALUE, 23, NULL, NULL, NULL},
		{&sample, "label(bold=true)", PIPELINE_SYNTAX, 1, "\"label\" needs the argument \"text\"", NULL, NULL}
	};
	size_t		i;

	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
	{
		static Pipeline pipeline;
		PipelineError error;
		const char *text = cases[i].text;
		bool		good;

		good = !parse(cases[i].language, text, strlen(text), &pipeline, &error) &&
			error.kind == cases[i].kind && error.position == cases[i].position &&
			(cases[i].message == NULL || strcmp(error.message, cases[i].message) == 0) &&
			(cases[i].detail == NULL || strcmp(error.detail, cases[i].detail) == 0) &&
			(cases[i].hint == NULL || strcmp(error.hint, cases[i].hint) == 0);
		ok(good, "refused, case %d: %s", (int) i, cases[i].message ? cases[i].message : "");
		if (!good)
			printf("# %s\n# kind %d at %d: %s\n# %s\n# %s\n", text, error.kind, error.position,
				   error.message, error.detail, error.hint);
	}
}

/* n times the text, then the end. */
static size_t
repeat(char *buffer, const char *text, int n, const char *end)
{
	size_t		length = 0;

	for (; n > 0; n--)
	{
		memcpy(buffer + length, text, strlen(text));
		length += strlen(text);
	}
	strcpy(buffer + length, end);
	return length + strlen(end);
}

static void
test_limits(void)
{
	static Pipeline pipeline;
	static char text[4 * PIPELINE_MAX_TEXT];
	char		small[16];
	PipelineError error;
	size_t		length;

	length = repeat(text, "flip|", PIPELINE_MAX_STEPS - 1, "webp");
	ok(parse(&real, text, length, &pipeline, &error) && pipeline.n_steps == PIPELINE_MAX_STEPS,
	   "as many steps as are allowed");
	length = repeat(text, "flip|", PIPELINE_MAX_STEPS, "webp");
	ok(!parse(&real, text, length, &pipeline, &error) && error.kind == PIPELINE_LIMIT &&
	   error.position == PIPELINE_MAX_STEPS * 5 + 1, "one step more");
	is(error.message, "pipeline has too many steps", "and what it says");

	length = repeat(text, " ", PIPELINE_MAX_TEXT - 5, "flip");
	ok(length == PIPELINE_MAX_TEXT - 1 && parse(&real, text, length, &pipeline, &error),
	   "as long as is allowed");
	length = repeat(text, " ", PIPELINE_MAX_TEXT - 4, "flip");
	ok(!parse(&real, text, length, &pipeline, &error) && error.kind == PIPELINE_LIMIT &&
	   error.position == 0, "one byte longer");
	is(error.message, "pipeline is too long", "and what it says");

	/* The canonical text has two spaces more. */
	strcpy(text, "long(text='");
	length = 11 + repeat(text + 11, "x", PIPELINE_MAX_TEXT - 3 - 16, "')|a2");
	ok(length == PIPELINE_MAX_TEXT - 3 && parse(&sample, text, length, &pipeline, &error),
	   "a canonical text that just fits");
	length = 11 + repeat(text + 11, "x", PIPELINE_MAX_TEXT - 2 - 16, "')|a2");
	ok(length == PIPELINE_MAX_TEXT - 2 && !parse(&sample, text, length, &pipeline, &error) &&
	   error.kind == PIPELINE_LIMIT, "one that does not, though the typed text would");

	ok(!parse(&real, "flip\0", 5, &pipeline, &error) && error.position == 5 &&
	   strcmp(error.message, "unexpected character \"\\x00\"") == 0, "a NUL");
	ok(!parse(&sample, "label(text='a\0b')", 17, &pipeline, &error) && error.position == 14,
	   "a NUL in quotes");

	ok(parse(&real, "resize(width=8)", 15, &pipeline, &error), "fifteen characters");
	ok(pipeline_print(&pipeline, small, 16) == 15, "fit into 16 bytes");
	ok(pipeline_print(&pipeline, small, 15) == 0, "but not into 15");
	ok(pipeline_print(&pipeline, small, 0) == 0, "nor into none");
}

/* xorshift: the same numbers in every run. */
static uint64_t
random_number(void)
{
	static uint64_t state = 0x9E3779B97F4A7C15;

	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

static void
test_numbers(void)
{
	static const struct
	{
		double		value;
		const char *text;
	}			cases[] = {
		{0, "0"}, {1, "1"}, {-1, "-1"}, {10, "10"}, {100, "100"}, {65535, "65535"},
		{0.1, "0.1"}, {0.5, "0.5"}, {1.5, "1.5"}, {-0.001, "-0.001"}, {12.25, "12.25"},
		{123456789012345, "123456789012345"}, {1e15, "1000000000000000"},
		{1e-22, "0.0000000000000000000001"}, {1e22, "10000000000000000000000"}
	};
	char		text[NUMBER_TEXT_SIZE];
	double		value;
	int			i;
	int			wrong = 0;

	for (i = 0; i < (int) (sizeof(cases) / sizeof(cases[0])); i++)
	{
		ok(number_write(cases[i].value, text) == strlen(cases[i].text), "length of %s", text);
		is(text, cases[i].text, cases[i].text);
		ok(number_read(text, strlen(text), &value) == strlen(text) && value == cases[i].value,
		   "%s reads back", text);
	}
	ok(number_read("+", 1, &value) == 0 && number_read("-.e1", 4, &value) == 0 &&
	   number_read("", 0, &value) == 0 && number_read("e5", 2, &value) == 0, "no numbers");
	ok(number_read("12e+", 4, &value) == 2 && value == 12, "an exponent without digits is none");
	ok(number_read("1e5", 2, &value) == 1 && value == 1, "nothing is read beyond the length");
	ok(number_read("-1e99", 5, &value) == 5 && value == -INFINITY, "too large");

	for (i = 0; i < 100000; i++)
	{
		char		typed[64];
		size_t		length;
		double		again;

		uint64_t	mantissa = random_number() % 1000000000000000ULL;

		length = (size_t) snprintf(typed, sizeof(typed), "%llue%d", (unsigned long long) mantissa,
								   (int) (random_number() % 30) - 22);
		if (number_read(typed, length, &value) != length || value != strtod(typed, NULL))
			wrong++;
		number_write(value, text);
		if (number_read(text, strlen(text), &again) != strlen(text) || again != value)
			wrong++;
	}
	ok(wrong == 0, "100000 numbers are strtod's and read back");

	if (setlocale(LC_NUMERIC, "de_DE.UTF-8") != NULL || setlocale(LC_NUMERIC, "fr_FR.UTF-8") != NULL)
	{
		number_write(12.5, text);
		ok(strcmp(text, "12.5") == 0 && number_read("12.5", 4, &value) == 4 && value == 12.5,
		   "with a decimal comma in the locale");
		setlocale(LC_NUMERIC, "C");
	}
	else
		ok(true, "with a decimal comma in the locale # SKIP no such locale here");
}

/*
 * Texts of pieces of pipelines or of whole steps, which come far into the
 * parser, some with a few bytes changed, some cut short.
 */
static void
test_fuzz(long n)
{
	static const char *const pieces[] = {
		"resize", "crop", "rotate", "flip", "grayscale", "blur", "sharpen", "jpeg", "png", "webp",
		"(", ")", "|", ",", "=", "'", "''", "pages", "keep", "tint(color=", "gravity=north", "metadata=exif", " ", "\n", "width", "height", "left", "fit", "sigma",
		"quality", "inside", "cover", "true", "1", "90", "270", "0.5", "-1", "1e-9", "99999999999999999999",
		"1e400", "#fff", "#12345678", "label", "text", "color", "bold", "weight", "\xC3\xA4", "\xF0\x9F\x98\x80",
		"\xFF", "long(text='", "label(text='a'", "resize(width=10", "crop(width=1,height=2)", "flip|",
		"blur(sigma=", "label(text='x',weight="
	};
	static const char *const real_steps[] = {
		"resize(width=5,height=6,fit=fill)", "resize ( height = 70 )", "crop(width=1e1,height=2,left=0)",
		"rotate(angle=90)", "flip", "flop", "text(text='a ''b', color=#a0b)", "trim(background=red)",
		"modulate(hue=-20.5)", "extend(left=5, fill=mirror)", "GRAYSCALE()", "blur(sigma=0.33333333333333331)",
		"sharpen(flat=1.00,edges=12.5)"
	};
	static const char *const sample_steps[] = {
		"label(text='It''s',color=#a0b)", "label(weight=-1e-9,text='\xC3\xA4|')",
		"a2", "a2()", "long", "long(text='')", "label(text='y', bold=off)"
	};
	static char text[600 * 64];
	const char *broken = NULL;
	long		accepted = 0;
	long		i;

	for (i = 0; i < n && broken == NULL; i++)
	{
		int			most_pieces = random_number() % 64 == 0 ? 600 : 6;
		int			n_pieces = 1 + (int) (random_number() % (uint64_t) most_pieces);
		size_t		length = 0;

		bool		whole_steps = random_number() % 2 == 0;
		bool		is_sample = random_number() % 2 == 0;

		while (n_pieces-- > 0)
		{
			const char *piece = pieces[random_number() % (sizeof(pieces) / sizeof(pieces[0]))];

			if (whole_steps)
				piece = is_sample ?
					sample_steps[random_number() % (sizeof(sample_steps) / sizeof(sample_steps[0]))] :
					real_steps[random_number() % (sizeof(real_steps) / sizeof(real_steps[0]))];
			if (whole_steps && length > 0)
				text[length++] = '|';
			memcpy(text + length, piece, strlen(piece));
			length += strlen(piece);
		}
		while (random_number() % 3 == 0)
		{
			size_t		place = random_number() % length;

			text[place] = (char) random_number();
		}
		if (random_number() % 4 == 0)
			length = random_number() % (length + 1);
		broken = broken_promise(is_sample ? &sample : &real, text, length, &accepted);
	}
	ok(broken == NULL, "%ld random texts: %s", n, broken ? broken : "all promises are kept");
	if (broken != NULL)
		printf("# %ld: %s\n", i, text);
	ok(accepted > n / 10, "%ld of them were pipelines", accepted);
}

static void
test_cuts(void)
{
	const char *text = "resize(width=800, height=600, fit=cover) | crop(left=1, width=5, height=6) | "
		"sharpen(sigma=0.5) | webp(quality=80)";
	const char *broken = NULL;
	long		accepted = 0;
	size_t		length;

	for (length = 0; length <= strlen(text) && broken == NULL; length++)
		broken = broken_promise(&real, text, length, &accepted);
	ok(broken == NULL, "every beginning of a pipeline: %s", broken ? broken : "all promises are kept");
	/* Behind each step, the space that follows it, and the bare encoder and sharpen. */
	ok(accepted == 9, "of which %ld are pipelines", accepted);
}

int
main(int argc, char **argv)
{
	long		n_fuzz = 20000;

	if (argc == 3 && strcmp(argv[1], "--fuzz") == 0)
		n_fuzz = atol(argv[2]);
	else if (argc != 1)
	{
		fprintf(stderr, "usage: %s [--fuzz N]\n", argv[0]);
		return 2;
	}
	test_table();
	test_accepted();
	test_values();
	test_refused();
	test_limits();
	test_numbers();
	test_cuts();
	test_fuzz(n_fuzz);
	printf("1..%d\n", n_tests);
	return n_failed > 0;
}
