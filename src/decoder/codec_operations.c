/*
 * codec_operations.c
 *		The operations that change pixels, one function each, and their table.
 *
 * To add one: write its function, add its line to transforms[].  A function
 * finds an upright image in display colours (sRGB or gray, 8 or 16 bits, alpha
 * or not) unless its line says that it takes the image as it was loaded.
 */
#include "decoder/codec_internal.h"

#include <math.h>

typedef bool (*Transform) (Canvas *canvas, const PipelineStep *step);

/* Where a resize leads: scaled to one size, then cut to another. */
typedef struct ResizePlan
{
	double		horizontal;		/* factors, before sizes are rounded to pixels */
	double		vertical;
	int			scaled_width;
	int			scaled_height;
	int			width;
	int			height;
} ResizePlan;

/*
 * Puts the result of a libvips call in the canvas.  By address, because C
 * leaves open which argument is evaluated first.
 */
bool
codec_replace(Canvas *canvas, VipsImage **image, int failed, const char *what)
{
	if (failed)
		return codec_fail_libvips(canvas->reply,
								  canvas->streaming ? DECODER_CORRUPT : DECODER_FAILED,
								  canvas->streaming ? "invalid" : what);
	g_object_unref(canvas->image);
	canvas->image = *image;
	return true;
}

/* For what cannot work from top to bottom. */
static bool
need_random_access(Canvas *canvas)
{
	VipsImage  *copy;

	if (!canvas->streaming)
		return true;
	copy = vips_image_copy_memory(canvas->image);
	if (!codec_replace(canvas, &copy, copy == NULL, "could not decode"))
		return false;
	canvas->streaming = false;
	return true;
}

static bool
is_deep(VipsImage *image)
{
	return vips_image_get_format(image) == VIPS_FORMAT_USHORT;
}

static bool
convert_colors(Canvas *canvas, VipsInterpretation colors)
{
	VipsImage  *converted = NULL;

	if (vips_image_get_interpretation(canvas->image) == colors)
		return true;
	return codec_replace(canvas, &converted,
						 vips_colourspace(canvas->image, &converted, colors, NULL),
						 "could not convert the colours of");
}

bool
codec_to_eight_bits(Canvas *canvas)
{
	if (!is_deep(canvas->image))
		return true;
	return convert_colors(canvas,
						  vips_image_get_bands(canvas->image) < 3 ?
						  VIPS_INTERPRETATION_B_W : VIPS_INTERPRETATION_sRGB);
}

/*
 * To sRGB or gray, in 8 or 16 bits, through the image's own profile where it
 * has one that fits.  Outputs carry no profile, so this is what makes them
 * look right everywhere.
 */
static bool
to_display_colors(Canvas *canvas)
{
	VipsImage  *image = canvas->image;
	VipsImage  *converted = NULL;
	VipsInterpretation now = vips_image_get_interpretation(image);
	VipsInterpretation target;
	int			color_bands = vips_image_get_bands(image) - (vips_image_hasalpha(image) ? 1 : 0);
	bool		deep = is_deep(image);
	const void *profile;
	size_t		length;

	if (color_bands < 3)
		target = deep ? VIPS_INTERPRETATION_GREY16 : VIPS_INTERPRETATION_B_W;
	else
		target = deep ? VIPS_INTERPRETATION_RGB16 : VIPS_INTERPRETATION_sRGB;

	if (vips_image_get_typeof(image, VIPS_META_ICC_NAME) != 0 &&
		vips_image_get_coding(image) == VIPS_CODING_NONE &&
		(deep || vips_image_get_format(image) == VIPS_FORMAT_UCHAR) &&
		vips_image_get_blob(image, VIPS_META_ICC_NAME, &profile, &length) == 0 &&
		vips_icc_is_compatible_profile(image, profile, length))
	{
		return codec_replace(canvas, &converted,
							 vips_icc_transform(image, &converted, "srgb",
												"embedded", TRUE,
												"intent", VIPS_INTENT_PERCEPTUAL,
												"depth", deep ? 16 : 8, NULL),
							 "could not convert the colours of") &&
			convert_colors(canvas, target);
	}
	vips_error_clear();

	if (now == target && (deep || vips_image_get_format(image) == VIPS_FORMAT_UCHAR))
		return true;
	if (vips_colourspace_issupported(image))
		return convert_colors(canvas, target);
	return codec_fail(canvas->reply, DECODER_UNSUPPORTED,
					  "cannot show the colours of this %s image",
					  image_format_name(canvas->reply->facts.format));
}

/*
 * Applies what has been put off: display colours and EXIF orientation.  Put
 * off so that a first resize comes before them: on fewer pixels they are
 * cheap, and the large image need never be in memory to be turned.
 */
bool
codec_settle(Canvas *canvas)
{
	VipsImage  *upright = NULL;

	if (canvas->settled)
		return true;
	canvas->settled = true;
	if (!to_display_colors(canvas))
		return false;
	if (canvas->orientation == 1)
		return true;
	/* 2 is a mirror image, which streams. */
	if (canvas->orientation != 2 && !need_random_access(canvas))
		return false;
	return codec_replace(canvas, &upright,
						 vips_autorot(canvas->image, &upright, NULL),
						 "could not turn");
}

static ResizePlan
plan_resize(const PipelineStep *step, int width, int height)
{
	ResizeFit	fit = (ResizeFit) step_number(step, RESIZE_FIT);
	bool		enlarge = step_number(step, RESIZE_ENLARGE) != 0;
	double		box_width = step_number(step, RESIZE_WIDTH);
	double		box_height = step_number(step, RESIZE_HEIGHT);
	ResizePlan	plan;

	if (!step_given(step, RESIZE_WIDTH))
		box_width = INFINITY;
	if (!step_given(step, RESIZE_HEIGHT))
		box_height = INFINITY;
	if (!enlarge)
	{
		box_width = MIN(box_width, width);
		box_height = MIN(box_height, height);
	}

	plan.horizontal = box_width / width;
	plan.vertical = box_height / height;
	if (fit == FIT_INSIDE)
		plan.horizontal = plan.vertical = MIN(plan.horizontal, plan.vertical);
	else if (fit == FIT_COVER)
		plan.horizontal = plan.vertical = MAX(plan.horizontal, plan.vertical);

	plan.scaled_width = (int) MAX(1, MIN(rint(width * plan.horizontal), VIPS_MAX_COORD));
	plan.scaled_height = (int) MAX(1, MIN(rint(height * plan.vertical), VIPS_MAX_COORD));
	plan.width = (int) MIN(plan.scaled_width, box_width);
	plan.height = (int) MIN(plan.scaled_height, box_height);
	return plan;
}

/* How much smaller a loader may make the image when this is the first step. */
double
codec_useful_shrink(const PipelineStep *step, int width, int height)
{
	ResizePlan	plan;

	if (step->operation != OPERATION_RESIZE)
		return 1;
	plan = plan_resize(step, width, height);
	return MIN(1 / plan.horizontal, 1 / plan.vertical);
}

/*
 * Colours under transparent pixels must not bleed into their neighbours:
 * around anything that mixes pixels, colours are weighted with alpha.
 */
static bool
begin_mixing(Canvas *canvas, VipsBandFormat *format)
{
	VipsImage  *weighted = NULL;

	*format = VIPS_FORMAT_NOTSET;
	if (!vips_image_hasalpha(canvas->image))
		return true;
	*format = vips_image_get_format(canvas->image);
	return codec_replace(canvas, &weighted,
						 vips_premultiply(canvas->image, &weighted, NULL),
						 "could not process");
}

static bool
end_mixing(Canvas *canvas, VipsBandFormat format)
{
	VipsImage  *plain = NULL;
	VipsImage  *cast = NULL;

	if (format == VIPS_FORMAT_NOTSET)
		return true;
	return codec_replace(canvas, &plain,
						 vips_unpremultiply(canvas->image, &plain, NULL),
						 "could not process") &&
		codec_replace(canvas, &cast,
					  vips_cast(canvas->image, &cast, format, NULL),
					  "could not process");
}

static bool
scale(Canvas *canvas, int width, int height)
{
	VipsImage  *scaled = NULL;
	VipsBandFormat format;
	double		horizontal = (double) width / vips_image_get_width(canvas->image);
	double		vertical = (double) height / vips_image_get_height(canvas->image);

	if (horizontal == 1 && vertical == 1)
		return true;
	if (codec_can_scale(canvas->image, width, height))
	{
		if (!codec_replace(canvas, &scaled,
						   codec_scale(canvas->image, &scaled, width, height),
						   "could not resize"))
			return false;
		canvas->streaming = false;
		return true;
	}
	return begin_mixing(canvas, &format) &&
		codec_replace(canvas, &scaled,
					  vips_resize(canvas->image, &scaled, horizontal,
								  "vscale", vertical, NULL),
					  "could not resize") &&
		end_mixing(canvas, format);
}

static bool
cut(Canvas *canvas, int left, int top, int width, int height)
{
	VipsImage  *area = NULL;

	if (width == vips_image_get_width(canvas->image) &&
		height == vips_image_get_height(canvas->image))
		return true;
	return codec_replace(canvas, &area,
						 vips_extract_area(canvas->image, &area,
										   left, top, width, height, NULL),
						 "could not crop");
}

static bool
apply_resize(Canvas *canvas, const PipelineStep *step)
{
	/* The loader may have shrunk the image: proportions are the input's. */
	bool		first = !canvas->settled;
	int			width = first ? canvas->width : vips_image_get_width(canvas->image);
	int			height = first ? canvas->height : vips_image_get_height(canvas->image);
	ResizePlan	plan = plan_resize(step, width, height);
	bool		swapped = first && canvas->orientation >= 5;

	return codec_check_limit(canvas->reply, DECODER_LIMIT_OUTPUT_PIXELS,
							 (uint64_t) plan.scaled_width * plan.scaled_height,
							 canvas->request->max_output_pixels) &&
		scale(canvas,
			  swapped ? plan.scaled_height : plan.scaled_width,
			  swapped ? plan.scaled_width : plan.scaled_height) &&
		codec_settle(canvas) &&
		cut(canvas,
			(plan.scaled_width - plan.width) / 2,
			(plan.scaled_height - plan.height) / 2,
			plan.width, plan.height);
}

static bool
apply_crop(Canvas *canvas, const PipelineStep *step)
{
	int			image_width = vips_image_get_width(canvas->image);
	int			image_height = vips_image_get_height(canvas->image);
	int			width = (int) step_number(step, CROP_WIDTH);
	int			height = (int) step_number(step, CROP_HEIGHT);
	int			left = (int) step_number(step, CROP_LEFT);
	int			top = (int) step_number(step, CROP_TOP);

	if (!step_given(step, CROP_LEFT))
		left = (image_width - width) / 2;
	if (!step_given(step, CROP_TOP))
		top = (image_height - height) / 2;
	if (width > image_width || height > image_height ||
		left > image_width - width || top > image_height - height)
		return codec_fail(canvas->reply, DECODER_INVALID_OPERATION,
						  "cannot crop %dx%d at %d,%d from an image of %dx%d",
						  width, height, left, top, image_width, image_height);
	return cut(canvas, left, top, width, height);
}

static bool
apply_rotate(Canvas *canvas, const PipelineStep *step)
{
	VipsImage  *turned = NULL;
	VipsAngle	angle = (VipsAngle) ((int) step_number(step, ROTATE_ANGLE) / 90 % 4);

	return need_random_access(canvas) &&
		codec_replace(canvas, &turned,
					  vips_rot(canvas->image, &turned, angle, NULL),
					  "could not rotate");
}

static bool
apply_flip(Canvas *canvas, const PipelineStep *step)
{
	VipsImage  *flipped = NULL;
	bool		vertical = step_number(step, FLIP_DIRECTION) == FLIP_VERTICAL;

	if (vertical && !need_random_access(canvas))
		return false;
	return codec_replace(canvas, &flipped,
						 vips_flip(canvas->image, &flipped,
								   vertical ? VIPS_DIRECTION_VERTICAL : VIPS_DIRECTION_HORIZONTAL,
								   NULL),
						 "could not flip");
}

static bool
apply_grayscale(Canvas *canvas, const PipelineStep *step)
{
	(void) step;
	return convert_colors(canvas,
						  is_deep(canvas->image) ? VIPS_INTERPRETATION_GREY16 : VIPS_INTERPRETATION_B_W);
}

static bool
apply_blur(Canvas *canvas, const PipelineStep *step)
{
	VipsImage  *soft = NULL;
	VipsBandFormat format;

	return begin_mixing(canvas, &format) &&
		codec_replace(canvas, &soft,
					  vips_gaussblur(canvas->image, &soft,
									 step_number(step, BLUR_SIGMA), NULL),
					  "could not blur") &&
		end_mixing(canvas, format);
}

static bool
apply_sharpen(Canvas *canvas, const PipelineStep *step)
{
	VipsImage  *sharp = NULL;

	return codec_replace(canvas, &sharp,
						 vips_sharpen(canvas->image, &sharp,
									  "sigma", step_number(step, SHARPEN_SIGMA),
									  "m1", step_number(step, SHARPEN_FLAT),
									  "m2", step_number(step, SHARPEN_EDGES), NULL),
						 "could not sharpen");
}

static const struct
{
	Transform	apply;
	bool		takes_unsettled;	/* settles the canvas by itself */
}			transforms[OPERATION_COUNT] = {
	[OPERATION_RESIZE] = {.apply = apply_resize, .takes_unsettled = true},
	[OPERATION_CROP] = {.apply = apply_crop},
	[OPERATION_ROTATE] = {.apply = apply_rotate},
	[OPERATION_FLIP] = {.apply = apply_flip},
	[OPERATION_GRAYSCALE] = {.apply = apply_grayscale},
	[OPERATION_BLUR] = {.apply = apply_blur},
	[OPERATION_SHARPEN] = {.apply = apply_sharpen}
};

/* One step of a pipeline, its result within the limit. */
bool
codec_transform(Canvas *canvas, const PipelineStep *step)
{
	if (transforms[step->operation].apply == NULL)
		return codec_fail(canvas->reply, DECODER_INVALID_OPERATION,
						  "operation %s is not implemented",
						  operations[step->operation].name);
	if (!transforms[step->operation].takes_unsettled && !codec_settle(canvas))
		return false;
	return transforms[step->operation].apply(canvas, step);
}
