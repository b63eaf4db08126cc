/*
 * operations.c
 *		The one table of operations and their arguments.
 *
 * Parser, canonical text, error hints, the decoder's dispatch, the function
 * pipeline_operations() and the reference in the docs all follow from it.
 *
 * To add an operation: add it to OperationId and its arguments' positions to
 * pipeline.h, its arguments and its line here, its code to the decoder.  To
 * add an argument: append it to the operation's enum, so that the canonical
 * text of what people have stored stays the same.  Descriptions are sentences
 * for the reference: units, what happens when the argument is left out, what
 * happens to images that do not fit.
 */
#include "pipeline/pipeline.h"

#include <stdio.h>

#define MAX_SIDE	65535		/* pixels; the most that JPEG can hold */

#define NO_MORE_ARGUMENTS	{.name = NULL}

static bool
check_resize(const PipelineStep *step, PipelineError *error)
{
	bool		both = step_given(step, RESIZE_WIDTH) && step_given(step, RESIZE_HEIGHT);

	if (!step_given(step, RESIZE_WIDTH) && !step_given(step, RESIZE_HEIGHT))
	{
		snprintf(error->message, sizeof(error->message),
				 "\"resize\" needs a width or a height");
		snprintf(error->hint, sizeof(error->hint),
				 "Write for example resize(width=800).");
		return false;
	}
	if (!both && step_number(step, RESIZE_FIT) != FIT_INSIDE)
	{
		snprintf(error->message, sizeof(error->message),
				 "\"resize\" needs both width and height for this fit");
		snprintf(error->detail, sizeof(error->detail),
				 "Only fit=inside takes the missing side from the image's proportions.");
		snprintf(error->hint, sizeof(error->hint),
				 "Give both sides, or leave out the fit.");
		return false;
	}
	return true;
}

static bool
check_rotate(const PipelineStep *step, PipelineError *error)
{
	int			angle = (int) step_number(step, ROTATE_ANGLE);

	if (angle % 90 == 0)
		return true;
	error->kind = PIPELINE_VALUE;
	snprintf(error->message, sizeof(error->message),
			 "cannot rotate by an angle of %d degrees", angle);
	snprintf(error->hint, sizeof(error->hint),
			 "The angle is 90, 180 or 270, clockwise.");
	return false;
}

static const char *const fit_words[] = {
	[FIT_INSIDE] = "inside",
	[FIT_COVER] = "cover",
	[FIT_FILL] = "fill",
	NULL
};

static const char *const direction_words[] = {
	[FLIP_VERTICAL] = "vertical",
	[FLIP_HORIZONTAL] = "horizontal",
	NULL
};

static const ArgumentSpec resize_arguments[] = {
	[RESIZE_WIDTH] = {
		.name = "width",
		.type = ARGUMENT_INTEGER,
		.minimum = 1,
		.maximum = MAX_SIDE,
		.fallback = NO_DEFAULT,
		.description = "Width of the box in pixels. At least one of width and height is required; "
		"the missing one follows from the image's proportions."
	},
	[RESIZE_HEIGHT] = {
		.name = "height",
		.type = ARGUMENT_INTEGER,
		.minimum = 1,
		.maximum = MAX_SIDE,
		.fallback = NO_DEFAULT,
		.description = "Height of the box in pixels."
	},
	[RESIZE_FIT] = {
		.name = "fit",
		.type = ARGUMENT_WORD,
		.words = fit_words,
		.fallback = FIT_INSIDE,
		.description = "inside: the whole image within the box, in its proportions. "
		"cover: the box is filled, in the image's proportions, and what stands out is cut off evenly on both sides. "
		"fill: exactly the box, distorted if need be. cover and fill require width and height."
	},
	[RESIZE_ENLARGE] = {
		.name = "enlarge",
		.type = ARGUMENT_BOOLEAN,
		.fallback = false,
		.description = "Whether an image smaller than the box is scaled up. "
		"If not, with any fit, no side of the result is longer than that of the image."
	},
	NO_MORE_ARGUMENTS
};

static const ArgumentSpec crop_arguments[] = {
	[CROP_LEFT] = {
		.name = "left",
		.type = ARGUMENT_INTEGER,
		.minimum = 0,
		.maximum = MAX_SIDE,
		.fallback = NO_DEFAULT,
		.description = "Distance of the area from the image's left edge in pixels; centred if left out."
	},
	[CROP_TOP] = {
		.name = "top",
		.type = ARGUMENT_INTEGER,
		.minimum = 0,
		.maximum = MAX_SIDE,
		.fallback = NO_DEFAULT,
		.description = "Distance of the area from the image's top edge in pixels; centred if left out."
	},
	[CROP_WIDTH] = {
		.name = "width",
		.type = ARGUMENT_INTEGER,
		.required = true,
		.minimum = 1,
		.maximum = MAX_SIDE,
		.fallback = NO_DEFAULT,
		.description = "Width of the area in pixels."
	},
	[CROP_HEIGHT] = {
		.name = "height",
		.type = ARGUMENT_INTEGER,
		.required = true,
		.minimum = 1,
		.maximum = MAX_SIDE,
		.fallback = NO_DEFAULT,
		.description = "Height of the area in pixels."
	},
	NO_MORE_ARGUMENTS
};

static const ArgumentSpec rotate_arguments[] = {
	[ROTATE_ANGLE] = {
		.name = "angle",
		.type = ARGUMENT_INTEGER,
		.required = true,
		.minimum = 90,
		.maximum = 270,
		.fallback = NO_DEFAULT,
		.description = "90, 180 or 270 degrees, clockwise."
	},
	NO_MORE_ARGUMENTS
};

static const ArgumentSpec flip_arguments[] = {
	[FLIP_DIRECTION] = {
		.name = "direction",
		.type = ARGUMENT_WORD,
		.words = direction_words,
		.fallback = FLIP_VERTICAL,
		.description = "vertical: top and bottom change places. horizontal: left and right change places."
	},
	NO_MORE_ARGUMENTS
};

static const ArgumentSpec blur_arguments[] = {
	[BLUR_SIGMA] = {
		.name = "sigma",
		.type = ARGUMENT_NUMBER,
		.minimum = 0.3,
		.maximum = 100,
		.fallback = 1,
		.description = "Standard deviation of the Gaussian in pixels: the larger, the softer."
	},
	NO_MORE_ARGUMENTS
};

static const ArgumentSpec sharpen_arguments[] = {
	[SHARPEN_SIGMA] = {
		.name = "sigma",
		.type = ARGUMENT_NUMBER,
		.minimum = 0.3,
		.maximum = 10,
		.fallback = 0.5,
		.description = "Standard deviation of the Gaussian in pixels: the larger, the coarser the detail that is raised."
	},
	[SHARPEN_FLAT] = {
		.name = "flat",
		.type = ARGUMENT_NUMBER,
		.minimum = 0,
		.maximum = 100,
		.fallback = 0,
		.description = "Strength in flat areas; above 0 noise is sharpened too."
	},
	[SHARPEN_EDGES] = {
		.name = "edges",
		.type = ARGUMENT_NUMBER,
		.minimum = 0,
		.maximum = 100,
		.fallback = 3,
		.description = "Strength at edges."
	},
	NO_MORE_ARGUMENTS
};

static const ArgumentSpec jpeg_arguments[] = {
	[JPEG_QUALITY] = {
		.name = "quality",
		.type = ARGUMENT_INTEGER,
		.minimum = 1,
		.maximum = 100,
		.fallback = 80,
		.description = "From 1, small, to 100, faithful."
	},
	NO_MORE_ARGUMENTS
};

static const ArgumentSpec png_arguments[] = {
	[PNG_COMPRESSION] = {
		.name = "compression",
		.type = ARGUMENT_INTEGER,
		.minimum = 0,
		.maximum = 9,
		.fallback = 6,
		.description = "Effort of the lossless compression, from 0, none, to 9, slow and small."
	},
	NO_MORE_ARGUMENTS
};

static const ArgumentSpec webp_arguments[] = {
	[WEBP_QUALITY] = {
		.name = "quality",
		.type = ARGUMENT_INTEGER,
		.minimum = 1,
		.maximum = 100,
		.fallback = 80,
		.description = "From 1, small, to 100, faithful."
	},
	NO_MORE_ARGUMENTS
};

const OperationSpec operations[OPERATION_COUNT] = {
	[OPERATION_RESIZE] = {
		.name = "resize",
		.arguments = resize_arguments,
		.check = check_resize,
		.description = "Scales the image to a box."
	},
	[OPERATION_CROP] = {
		.name = "crop",
		.arguments = crop_arguments,
		.description = "Cuts out a rectangular area. An area that is not wholly within the image is an error."
	},
	[OPERATION_ROTATE] = {
		.name = "rotate",
		.arguments = rotate_arguments,
		.check = check_rotate,
		.description = "Turns the image by quarters, without loss."
	},
	[OPERATION_FLIP] = {
		.name = "flip",
		.arguments = flip_arguments,
		.description = "Mirrors the image."
	},
	[OPERATION_GRAYSCALE] = {
		.name = "grayscale",
		.description = "Takes the colour away; transparency stays."
	},
	[OPERATION_BLUR] = {
		.name = "blur",
		.arguments = blur_arguments,
		.description = "Softens the image by a Gaussian."
	},
	[OPERATION_SHARPEN] = {
		.name = "sharpen",
		.arguments = sharpen_arguments,
		.description = "Sharpens the image's lightness by an unsharp mask."
	},
	[OPERATION_JPEG] = {
		.name = "jpeg",
		.kind = OPERATION_ENCODER,
		.arguments = jpeg_arguments,
		.description = "Encodes as JPEG. Transparent parts become white."
	},
	[OPERATION_PNG] = {
		.name = "png",
		.kind = OPERATION_ENCODER,
		.arguments = png_arguments,
		.description = "Encodes as PNG, without loss."
	},
	[OPERATION_WEBP] = {
		.name = "webp",
		.kind = OPERATION_ENCODER,
		.arguments = webp_arguments,
		.description = "Encodes as WebP, with loss. No side may be longer than 16383 pixels."
	}
};
