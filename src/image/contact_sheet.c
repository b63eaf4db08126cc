/*
 * contact_sheet.c
 *		The aggregate contact_sheet(): many images on one.
 *
 * Each image is made a small tile as its row comes, so that the state holds a
 * few dozen kilobytes of it however large it is; tiles are lossless, so that
 * the sheet is the only image that is encoded for good.  The end joins all
 * tiles in one request of the decoder, which bounds their number.
 */
#include "postgres.h"

#include <math.h>

#include "decoder/client.h"
#include "fmgr.h"
#include "image/image.h"
#include "pipeline/pipeline.h"
#include "utils/builtins.h"
#include "utils/datum.h"

PG_FUNCTION_INFO_V1(imgpipe_contact_sheet_add);
PG_FUNCTION_INFO_V1(imgpipe_contact_sheet_end);

#define DEFAULT_TILE_SIDE	256
#define DEFAULT_GAP			8
#define MAX_TILE_SIDE		4096
#define MAX_GAP				1000

typedef struct ContactSheet
{
	int			columns;		/* 0: as many as there are rows, about */
	int			gap;
	char	   *background;
	char	   *tile_pipeline;
	int			n_tiles;
	const Image *tiles[DECODER_MAX_INPUTS];
} ContactSheet;

/* Arguments of imgpipe_contact_sheet_add(); the aggregate's, behind its state. */
enum
{
	ARGUMENT_STATE,
	ARGUMENT_IMAGE,
	ARGUMENT_COLUMNS,
	ARGUMENT_TILE_WIDTH,
	ARGUMENT_TILE_HEIGHT,
	ARGUMENT_GAP,
	ARGUMENT_BACKGROUND
};

/* Not given, or null: the default. */
static int
integer_argument(FunctionCallInfo fcinfo, int number, const char *name,
				 int minimum, int maximum, int fallback)
{
	int			value;

	if (PG_NARGS() <= number || PG_ARGISNULL(number))
		return fallback;
	value = PG_GETARG_INT32(number);
	if (value < minimum || value > maximum)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s of a contact sheet is out of range", name),
				 errdetail("%d is not between %d and %d.", value, minimum, maximum),
				 errhint("Leave it null for the default.")));
	return value;
}

/* A colour as pipelines have it, and nothing else that could get into one. */
static char *
background_argument(FunctionCallInfo fcinfo)
{
	char	   *color;
	char	   *step;
	Pipeline   *pipeline;
	PipelineError error;

	if (PG_NARGS() <= ARGUMENT_BACKGROUND || PG_ARGISNULL(ARGUMENT_BACKGROUND))
		return "white";
	color = text_to_cstring(PG_GETARG_TEXT_PP(ARGUMENT_BACKGROUND));
	step = psprintf("join(background=%s)", color);
	pipeline = palloc(sizeof(Pipeline));
	if (!pipeline_parse(step, strlen(step), pipeline, &error) || pipeline->n_steps != 1 ||
		!step_given(&pipeline->steps[0], JOIN_BACKGROUND) ||
		step_given(&pipeline->steps[0], JOIN_COLUMNS) || step_given(&pipeline->steps[0], JOIN_GAP))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid background of a contact sheet"),
				 errdetail("\"%s\" is not a color.", color),
				 errhint("Write #rgb, #rrggbb, #rrggbbaa, or a name such as white, black or transparent.")));
	pfree(pipeline);
	return color;
}

static ContactSheet *
start_sheet(FunctionCallInfo fcinfo)
{
	ContactSheet *sheet = palloc0(sizeof(ContactSheet));
	int			width = integer_argument(fcinfo, ARGUMENT_TILE_WIDTH, "tile width",
										 1, MAX_TILE_SIDE, DEFAULT_TILE_SIDE);
	int			height = integer_argument(fcinfo, ARGUMENT_TILE_HEIGHT, "tile height",
										  1, MAX_TILE_SIDE, DEFAULT_TILE_SIDE);

	sheet->columns = integer_argument(fcinfo, ARGUMENT_COLUMNS, "number of columns",
									  1, DECODER_MAX_INPUTS, 0);
	sheet->gap = integer_argument(fcinfo, ARGUMENT_GAP, "gap", 0, MAX_GAP, DEFAULT_GAP);
	sheet->background = background_argument(fcinfo);
	sheet->tile_pipeline = psprintf("pages | resize(width=%d, height=%d) | png(compression=1)",
									width, height);
	return sheet;
}

/* The transition function: arguments other than the image count in the first row. */
Datum
imgpipe_contact_sheet_add(PG_FUNCTION_ARGS)
{
	MemoryContext aggregate;
	MemoryContext caller;
	ContactSheet *sheet;
	Image	   *image;
	const Image *input;
	const char *pipeline;
	Image	   *tile;

	if (!AggCheckCallContext(fcinfo, &aggregate))
		elog(ERROR, "contact_sheet_add called outside of an aggregate");

	caller = MemoryContextSwitchTo(aggregate);
	sheet = PG_ARGISNULL(ARGUMENT_STATE) ? start_sheet(fcinfo) :
		(ContactSheet *) PG_GETARG_POINTER(ARGUMENT_STATE);
	MemoryContextSwitchTo(caller);

	if (PG_ARGISNULL(ARGUMENT_IMAGE))
		PG_RETURN_POINTER(sheet);
	if (sheet->n_tiles == DECODER_MAX_INPUTS)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("too many images for one contact sheet"),
				 errdetail("A contact sheet has at most %d images.", DECODER_MAX_INPUTS),
				 errhint("Make several: GROUP BY a number of the sheet, such as row_number() OVER () / %d in a subquery.",
						 DECODER_MAX_INPUTS)));

	image = PG_GETARG_IMAGE_P(ARGUMENT_IMAGE);
	input = image;
	pipeline = sheet->tile_pipeline;
	decoder_process(&input, 1, 1, &pipeline, &tile, NULL);

	MemoryContextSwitchTo(aggregate);
	sheet->tiles[sheet->n_tiles++] = (Image *) DatumGetPointer(datumCopy(PointerGetDatum(tile), false, -1));
	MemoryContextSwitchTo(caller);
	pfree(tile);
	PG_FREE_IF_COPY(image, ARGUMENT_IMAGE);
	PG_RETURN_POINTER(sheet);
}

/* The final function; null without an image.  Leaves the state as it is. */
Datum
imgpipe_contact_sheet_end(PG_FUNCTION_ARGS)
{
	ContactSheet *sheet = PG_ARGISNULL(0) ? NULL : (ContactSheet *) PG_GETARG_POINTER(0);
	const char *pipeline;
	Image	   *result;
	int			columns;

	if (sheet == NULL || sheet->n_tiles == 0)
		PG_RETURN_NULL();
	columns = sheet->columns > 0 ? sheet->columns : (int) ceil(sqrt(sheet->n_tiles));
	pipeline = psprintf("join(columns=%d, gap=%d, background=%s) | extend(left=%d, top=%d, right=%d, bottom=%d, background=%s) | png",
						columns, sheet->gap, sheet->background,
						sheet->gap, sheet->gap, sheet->gap, sheet->gap, sheet->background);
	decoder_process(sheet->tiles, sheet->n_tiles, 1, &pipeline, &result, NULL);
	PG_RETURN_IMAGE_P(result);
}
