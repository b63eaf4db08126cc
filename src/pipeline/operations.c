/*
 * operations.c
 *		The one table of operations, and what their arguments must be together.
 *
 * Parser, canonical text, error hints, the decoder's dispatch, the function
 * pipeline_operations() and docs/operations.md all follow from it and from the
 * arguments in arguments.c.
 *
 * To add an operation: add it to OperationId and its arguments' positions to
 * operations.h, its arguments to arguments.c, its line here, its code to the
 * decoder, and run `make docs`.  To add an argument: append it to the
 * operation's list, so that the canonical text of what people have stored
 * stays the same.
 */
#include "pipeline/arguments.h"

#include <stdarg.h>
#include <stdio.h>

#if defined(__GNUC__)
__attribute__((format(printf, 3, 4)))
#endif
static bool
refuse(PipelineError *error, const char *hint, const char *format,...)
{
	va_list		arguments;

	va_start(arguments, format);
	vsnprintf(error->message, sizeof(error->message), format, arguments);
	va_end(arguments);
	snprintf(error->hint, sizeof(error->hint), "%s", hint);
	return false;
}

static bool
check_pages(const PipelineStep *step, PipelineError *error)
{
	if (!step_given(step, PAGES_LAST) ||
		step_number(step, PAGES_LAST) >= step_number(step, PAGES_FIRST))
		return true;
	error->kind = PIPELINE_VALUE;
	return refuse(error, "Pages are counted from 1 on, as they stand in the file.",
				  "last page %d is before first page %d",
				  (int) step_number(step, PAGES_LAST), (int) step_number(step, PAGES_FIRST));
}

static bool
check_resize(const PipelineStep *step, PipelineError *error)
{
	ResizeFit	fit = (ResizeFit) step_number(step, RESIZE_FIT);
	Gravity		gravity = (Gravity) step_number(step, RESIZE_GRAVITY);
	bool		both = step_given(step, RESIZE_WIDTH) && step_given(step, RESIZE_HEIGHT);

	if (!step_given(step, RESIZE_WIDTH) && !step_given(step, RESIZE_HEIGHT))
		return refuse(error, "Write for example resize(width=800).",
					  "\"resize\" needs a width or a height");
	if (!both && fit != FIT_INSIDE)
	{
		snprintf(error->detail, sizeof(error->detail),
				 "Only fit=inside takes the missing side from the image's proportions.");
		return refuse(error, "Give both sides, or leave out the fit.",
					  "\"resize\" needs both width and height for this fit");
	}
	if (step_given(step, RESIZE_GRAVITY) && fit != FIT_COVER && fit != FIT_CONTAIN)
		return refuse(error, "Add fit=cover, or fit=contain, or leave out the gravity.",
					  "\"resize\" has no use for a gravity with this fit");
	if (fit == FIT_CONTAIN && gravity >= GRAVITY_ATTENTION)
		return refuse(error, "Use fit=cover for gravity=attention and gravity=entropy.",
					  "\"resize\" cuts nothing off with fit=contain");
	if (step_given(step, RESIZE_BACKGROUND) && fit != FIT_CONTAIN)
		return refuse(error, "Add fit=contain, or leave out the background.",
					  "\"resize\" has no use for a background with this fit");
	return true;
}

static bool
check_crop(const PipelineStep *step, PipelineError *error)
{
	if (step_given(step, CROP_GRAVITY) &&
		(step_given(step, CROP_LEFT) || step_given(step, CROP_TOP)))
		return refuse(error, "Give left and top, or gravity.",
					  "\"crop\" has two places for the area");
	return true;
}

static bool
check_extend(const PipelineStep *step, PipelineError *error)
{
	if (!step_given(step, EXTEND_LEFT) && !step_given(step, EXTEND_TOP) &&
		!step_given(step, EXTEND_RIGHT) && !step_given(step, EXTEND_BOTTOM))
		return refuse(error, "Write for example extend(left=10, right=10); for a given size use resize with fit=contain.",
					  "\"extend\" needs an edge to add pixels to");
	if (step_given(step, EXTEND_BACKGROUND) && step_number(step, EXTEND_FILL) != FILL_COLOR)
		return refuse(error, "Leave out one of the two.",
					  "\"extend\" has no use for a background with this fill");
	return true;
}

static bool
check_normalize(const PipelineStep *step, PipelineError *error)
{
	if (step_number(step, NORMALIZE_LOWER) < step_number(step, NORMALIZE_UPPER))
		return true;
	error->kind = PIPELINE_VALUE;
	return refuse(error, "lower=1 and upper=99 cut off one percent at each end.",
				  "\"normalize\" needs a lower percentage below the upper one");
}

/* What is laid under a picture, or gives it its hue, is there. */
static bool
check_opaque(const PipelineStep *step, int argument, PipelineError *error)
{
	if (((uint32_t) step_number(step, argument) & 0xFF) == 0xFF)
		return true;
	error->kind = PIPELINE_VALUE;
	return refuse(error, "Give a color without transparency, such as white or #336699.",
				  "\"%s\" needs a color that is not transparent", operations[step->operation].name);
}

static bool
check_tint(const PipelineStep *step, PipelineError *error)
{
	return check_opaque(step, TINT_COLOR, error);
}

static bool
check_flatten(const PipelineStep *step, PipelineError *error)
{
	return check_opaque(step, FLATTEN_BACKGROUND, error);
}

static bool
check_text(const PipelineStep *step, PipelineError *error)
{
	if (step->values[TEXT_TEXT].text[0] == '\0')
	{
		error->kind = PIPELINE_VALUE;
		return refuse(error, "Leave the operation out where there is nothing to write.",
					  "\"text\" needs a text that is not empty");
	}
	if (step_given(step, TEXT_SIZE) && step_given(step, TEXT_WIDTH))
		return refuse(error, "Leave out one of the two.",
					  "\"text\" cannot have both a size and a width");
	return true;
}

static bool
check_keep(const PipelineStep *step, PipelineError *error)
{
	KeptMetadata kept = (KeptMetadata) step_number(step, KEEP_METADATA);

	if (step_number(step, KEEP_GPS) == 0 || kept == KEEP_EXIF || kept == KEEP_ALL)
		return true;
	return refuse(error, "Write keep(metadata=exif, gps=true) or keep(metadata=all, gps=true).",
				  "\"keep\" cannot keep GPS without EXIF");
}

static bool
check_png(const PipelineStep *step, PipelineError *error)
{
	if (step_given(step, PNG_COLORS) && step_number(step, PNG_PALETTE) == 0)
		return refuse(error, "Add palette=true, or leave out the colors.",
					  "\"png\" counts colors only in a palette");
	return true;
}

static bool
check_tiff(const PipelineStep *step, PipelineError *error)
{
	if (step_given(step, TIFF_QUALITY) && step_number(step, TIFF_COMPRESSION) != TIFF_AS_JPEG)
		return refuse(error, "Add compression=jpeg, or leave out the quality.",
					  "\"tiff\" has a quality only with compression=jpeg");
	return true;
}

static bool
refuse_fitting_lossless(const PipelineStep *step, PipelineError *error)
{
	return refuse(error, "Leave out one of the two.",
				  "\"%s\" cannot fit lossless images into max_bytes", operations[step->operation].name);
}

static bool
check_webp(const PipelineStep *step, PipelineError *error)
{
	if (step_given(step, WEBP_MAX_BYTES) && step_number(step, WEBP_LOSSLESS) != 0)
		return refuse_fitting_lossless(step, error);
	return true;
}

static bool
check_avif(const PipelineStep *step, PipelineError *error)
{
	if (step_given(step, AVIF_MAX_BYTES) && step_number(step, AVIF_LOSSLESS) != 0)
		return refuse_fitting_lossless(step, error);
	return true;
}

const OperationSpec operations[OPERATION_COUNT] = {
	[OPERATION_PAGES] = {
		.name = "pages",
		.kind = OPERATION_INPUT,
		.arguments = pages_arguments,
		.check = check_pages,
		.description = "Chooses the pages of a TIFF, HEIC or AVIF file, or the frames of an animation. "
		"Without it an animation stays one where the result is GIF or WebP, and the first page is taken elsewhere. "
		"Several pages need a result in GIF, WebP or TIFF, and must be of one size."
	},
	[OPERATION_AUTOROTATE] = {
		.name = "autorotate",
		.kind = OPERATION_INPUT,
		.arguments = autorotate_arguments,
		.description = "Whether the image is turned upright by its EXIF orientation before all else. "
		"It is without this operation."
	},
	[OPERATION_RESIZE] = {
		.name = "resize",
		.arguments = resize_arguments,
		.check = check_resize,
		.description = "Scales the image to a box."
	},
	[OPERATION_CROP] = {
		.name = "crop",
		.arguments = crop_arguments,
		.check = check_crop,
		.description = "Cuts out a rectangular area. An area that is not wholly within the image is an error."
	},
	[OPERATION_EXTEND] = {
		.name = "extend",
		.arguments = extend_arguments,
		.check = check_extend,
		.description = "Adds pixels at the edges."
	},
	[OPERATION_TRIM] = {
		.name = "trim",
		.arguments = trim_arguments,
		.description = "Cuts off a border of one colour. An image that is all border stays as it is."
	},
	[OPERATION_ROTATE] = {
		.name = "rotate",
		.arguments = rotate_arguments,
		.description = "Turns the image."
	},
	[OPERATION_FLIP] = {
		.name = "flip",
		.description = "Mirrors the image: top and bottom change places."
	},
	[OPERATION_FLOP] = {
		.name = "flop",
		.description = "Mirrors the image: left and right change places."
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
	[OPERATION_MEDIAN] = {
		.name = "median",
		.arguments = median_arguments,
		.description = "Takes specks away: each pixel becomes the median of those around it."
	},
	[OPERATION_PIXELATE] = {
		.name = "pixelate",
		.arguments = pixelate_arguments,
		.description = "Makes squares of one colour, which is the mean of what they cover."
	},
	[OPERATION_MODULATE] = {
		.name = "modulate",
		.arguments = modulate_arguments,
		.description = "Changes brightness, contrast, saturation and hue."
	},
	[OPERATION_GAMMA] = {
		.name = "gamma",
		.arguments = gamma_arguments,
		.description = "Brightens or darkens the shadows more than the lights."
	},
	[OPERATION_NORMALIZE] = {
		.name = "normalize",
		.arguments = normalize_arguments,
		.check = check_normalize,
		.description = "Stretches the contrast so that the darkest becomes black and the brightest white."
	},
	[OPERATION_CLAHE] = {
		.name = "clahe",
		.arguments = clahe_arguments,
		.description = "Raises the contrast of each part of the image by itself "
		"(contrast-limited adaptive histogram equalization of the lightness)."
	},
	[OPERATION_GRAYSCALE] = {
		.name = "grayscale",
		.description = "Takes the colour away; transparency stays."
	},
	[OPERATION_TINT] = {
		.name = "tint",
		.arguments = tint_arguments,
		.check = check_tint,
		.description = "Gives the image one hue, as sepia does."
	},
	[OPERATION_INVERT] = {
		.name = "invert",
		.description = "Makes a negative; transparency stays."
	},
	[OPERATION_FLATTEN] = {
		.name = "flatten",
		.arguments = flatten_arguments,
		.check = check_flatten,
		.description = "Lays the image on a colour, so that it has no transparency any more."
	},
	[OPERATION_COMPOSITE] = {
		.name = "composite",
		.arguments = composite_arguments,
		.description = "Lays a second image over this one, such as a watermark: the third argument of process_image(). "
		"What stands out is cut off."
	},
	[OPERATION_TEXT] = {
		.name = "text",
		.arguments = text_arguments,
		.check = check_text,
		.description = "Writes on the image: a label or a watermark. What stands out is cut off."
	},
	[OPERATION_JOIN] = {
		.name = "join",
		.arguments = join_arguments,
		.description = "Puts the image and all further input images side by side, in rows from left to right. "
		"Places are as large as the largest image; smaller ones stand in their middle."
	},
	[OPERATION_KEEP] = {
		.name = "keep",
		.kind = OPERATION_OUTPUT,
		.arguments = keep_arguments,
		.check = check_keep,
		.description = "Chooses what the result keeps of the image's metadata: nothing without this operation. "
		"Colours become sRGB by the image's profile, unless that is kept. The preview within EXIF is never kept."
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
		.check = check_png,
		.description = "Encodes as PNG, without loss."
	},
	[OPERATION_WEBP] = {
		.name = "webp",
		.kind = OPERATION_ENCODER,
		.arguments = webp_arguments,
		.check = check_webp,
		.description = "Encodes as WebP. No side may be longer than 16383 pixels."
	},
	[OPERATION_AVIF] = {
		.name = "avif",
		.kind = OPERATION_ENCODER,
		.arguments = avif_arguments,
		.check = check_avif,
		.description = "Encodes as AVIF: smaller than the others, and slow. "
		"Needs a libvips and libheif on the server that can. No side may be longer than 16384 pixels."
	},
	[OPERATION_GIF] = {
		.name = "gif",
		.kind = OPERATION_ENCODER,
		.arguments = gif_arguments,
		.description = "Encodes as GIF, of at most 256 colours."
	},
	[OPERATION_TIFF] = {
		.name = "tiff",
		.kind = OPERATION_ENCODER,
		.arguments = tiff_arguments,
		.check = check_tiff,
		.description = "Encodes as TIFF."
	},
	[OPERATION_AUTO] = {
		.name = "auto",
		.kind = OPERATION_ENCODER,
		.arguments = auto_arguments,
		.description = "Encodes in the format of the input, as without an encoder. HEIC becomes JPEG, "
		"or PNG where it is transparent."
	}
};

const char *
operation_kind_name(OperationKind kind)
{
	static const char *const names[] = {
		[OPERATION_TRANSFORM] = "transform",
		[OPERATION_INPUT] = "input",
		[OPERATION_OUTPUT] = "output",
		[OPERATION_ENCODER] = "encoder"
	};

	return names[kind];
}

const char *
argument_type_name(ArgumentType type)
{
	static const char *const names[] = {
		[ARGUMENT_INTEGER] = "integer",
		[ARGUMENT_NUMBER] = "number",
		[ARGUMENT_WORD] = "word",
		[ARGUMENT_BOOLEAN] = "boolean",
		[ARGUMENT_COLOR] = "color",
		[ARGUMENT_TEXT] = "text"
	};

	return names[type];
}
