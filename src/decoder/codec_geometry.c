/*
 * codec_geometry.c
 *		Operations that change size, shape or orientation.
 */
#include "decoder/codec_internal.h"

#include <math.h>

/* Where a resize leads: scaled to one size, then cut or filled up to another. */
typedef struct ResizePlan
{
	double		horizontal;		/* factors, before sizes are rounded to pixels */
	double		vertical;
	int			scaled_width;
	int			scaled_height;
	int			width;
	int			height;
} ResizePlan;

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
	if (fit == FIT_INSIDE || fit == FIT_CONTAIN)
		plan.horizontal = plan.vertical = MIN(plan.horizontal, plan.vertical);
	else if (fit == FIT_COVER || fit == FIT_OUTSIDE)
		plan.horizontal = plan.vertical = MAX(plan.horizontal, plan.vertical);

	plan.scaled_width = (int) MAX(1, MIN(rint(width * plan.horizontal), VIPS_MAX_COORD));
	plan.scaled_height = (int) MAX(1, MIN(rint(height * plan.vertical), VIPS_MAX_COORD));
	plan.width = plan.scaled_width;
	plan.height = plan.scaled_height;
	if (fit == FIT_COVER)
	{
		plan.width = (int) MIN(plan.scaled_width, box_width);
		plan.height = (int) MIN(plan.scaled_height, box_height);
	}
	else if (fit == FIT_CONTAIN)
	{
		plan.width = (int) step_number(step, RESIZE_WIDTH);
		plan.height = (int) step_number(step, RESIZE_HEIGHT);
		plan.scaled_width = MIN(plan.scaled_width, plan.width);
		plan.scaled_height = MIN(plan.scaled_height, plan.height);
	}
	return plan;
}

/* How much smaller a loader may make an image for this resize. */
double
codec_resize_shrink(const PipelineStep *step, int width, int height)
{
	ResizePlan	plan = plan_resize(step, width, height);

	/* A loader takes means, which is not what was asked for. */
	if (step_number(step, RESIZE_KERNEL) == KERNEL_NEAREST)
		return 1;
	return MIN(1 / plan.horizontal, 1 / plan.vertical);
}

bool
codec_resample(Canvas *canvas, int width, int height, ResizeKernel kernel)
{
	static const VipsKernel kernels[] = {
		[KERNEL_LANCZOS3] = VIPS_KERNEL_LANCZOS3,
		[KERNEL_LANCZOS2] = VIPS_KERNEL_LANCZOS2,
		[KERNEL_CUBIC] = VIPS_KERNEL_CUBIC,
		[KERNEL_MITCHELL] = VIPS_KERNEL_MITCHELL,
		[KERNEL_LINEAR] = VIPS_KERNEL_LINEAR,
		[KERNEL_NEAREST] = VIPS_KERNEL_NEAREST
	};
	VipsImage  *scaled = NULL;
	VipsBandFormat format = VIPS_FORMAT_NOTSET;
	double		horizontal = (double) width / vips_image_get_width(canvas->image);
	double		vertical = (double) height / vips_image_get_height(canvas->image);

	if (horizontal == 1 && vertical == 1)
		return true;
	if (kernel == KERNEL_LANCZOS3 && codec_can_scale(canvas->image, width, height))
		return codec_replace(canvas, &scaled,
							 codec_scale(canvas->image, &scaled, width, height),
							 "could not resize");
	/* nearest mixes nothing. */
	return (kernel == KERNEL_NEAREST || codec_begin_mixing(canvas, &format)) &&
		codec_replace(canvas, &scaled,
					  vips_resize(canvas->image, &scaled, horizontal,
								  "vscale", vertical,
								  "kernel", kernels[kernel], NULL),
					  "could not resize") &&
		codec_end_mixing(canvas, format);
}

/* Sets where an area lies by gravity, x and y pixels from the edge or the middle. */
void
codec_place(Gravity gravity, int outer_width, int outer_height, int x, int y, Area *inner)
{
	bool		west = gravity == GRAVITY_WEST || gravity == GRAVITY_NORTHWEST || gravity == GRAVITY_SOUTHWEST;
	bool		east = gravity == GRAVITY_EAST || gravity == GRAVITY_NORTHEAST || gravity == GRAVITY_SOUTHEAST;
	bool		north = gravity == GRAVITY_NORTH || gravity == GRAVITY_NORTHWEST || gravity == GRAVITY_NORTHEAST;
	bool		south = gravity == GRAVITY_SOUTH || gravity == GRAVITY_SOUTHWEST || gravity == GRAVITY_SOUTHEAST;

	inner->left = west ? x : east ? outer_width - inner->width - x :
		(outer_width - inner->width) / 2 + x;
	inner->top = north ? y : south ? outer_height - inner->height - y :
		(outer_height - inner->height) / 2 + y;
}

static bool
cut(Canvas *canvas, const Area *area)
{
	VipsImage  *part = NULL;

	if (area->width == vips_image_get_width(canvas->image) &&
		area->height == vips_image_get_height(canvas->image))
		return true;
	return codec_replace(canvas, &part,
						 vips_extract_area(canvas->image, &part, area->left, area->top,
										   area->width, area->height, NULL),
						 "could not crop");
}

/*
 * Cuts out an area of this size, which is not larger than the image.  What
 * draws the eye is looked for in the first page and holds for all.
 */
static bool
cut_by_gravity(Canvas *canvas, int width, int height, Gravity gravity)
{
	Area	   *choice = &canvas->output->choices[canvas->step];
	Area		area = {.width = width, .height = height};
	VipsImage  *part = NULL;

	if (gravity < GRAVITY_ATTENTION)
	{
		codec_place(gravity, vips_image_get_width(canvas->image),
					vips_image_get_height(canvas->image), 0, 0, &area);
		return cut(canvas, &area);
	}
	if (choice->width == 0)
	{
		if (!codec_need_random_access(canvas))
			return false;
		if (vips_smartcrop(canvas->image, &part, width, height,
						   "interesting", gravity == GRAVITY_ATTENTION ?
						   VIPS_INTERESTING_ATTENTION : VIPS_INTERESTING_ENTROPY, NULL) != 0)
			return codec_fail_libvips(canvas->reply, DECODER_FAILED, "could not crop");
		*choice = (Area)
		{
			-vips_image_get_xoffset(part), -vips_image_get_yoffset(part), width, height
		};
		g_object_unref(part);
	}
	return cut(canvas, choice);
}

/* Puts the image into a larger one; what is new is the colour, or the mode's. */
static bool
embed(Canvas *canvas, const Area *place, int width, int height, VipsExtend mode, uint32_t background)
{
	VipsArrayDouble *array;
	VipsImage  *larger = NULL;
	Ink			ink = {.n = 1};
	int			failed;

	if (width == vips_image_get_width(canvas->image) &&
		height == vips_image_get_height(canvas->image))
		return true;
	if (mode == VIPS_EXTEND_BACKGROUND ? !codec_take_color(canvas, background, &ink) :
		!codec_need_random_access(canvas))
		return false;
	array = codec_ink(&ink);
	failed = vips_embed(canvas->image, &larger, place->left, place->top, width, height,
						"extend", mode, "background", array, NULL);
	codec_free_ink(array);
	return codec_replace(canvas, &larger, failed, "could not extend");
}

bool
codec_resize(Canvas *canvas, const PipelineStep *step)
{
	/* The loader may have shrunk the image: proportions are the input's. */
	bool		first = !canvas->settled;
	int			width = first ? canvas->width : vips_image_get_width(canvas->image);
	int			height = first ? canvas->height : vips_image_get_height(canvas->image);
	ResizePlan	plan = plan_resize(step, width, height);
	bool		swapped = first && canvas->orientation >= 5;
	Gravity		gravity = (Gravity) step_number(step, RESIZE_GRAVITY);
	Area		inner = {.width = plan.scaled_width, .height = plan.scaled_height};

	if (!codec_check_size(canvas, MAX(plan.width, plan.scaled_width),
						  MAX(plan.height, plan.scaled_height)) ||
		!codec_resample(canvas,
						swapped ? plan.scaled_height : plan.scaled_width,
						swapped ? plan.scaled_width : plan.scaled_height,
						(ResizeKernel) step_number(step, RESIZE_KERNEL)) ||
		!codec_settle(canvas))
		return false;

	if (step_number(step, RESIZE_FIT) != FIT_CONTAIN)
		return cut_by_gravity(canvas, plan.width, plan.height, gravity);
	codec_place(gravity, plan.width, plan.height, 0, 0, &inner);
	return embed(canvas, &inner, plan.width, plan.height, VIPS_EXTEND_BACKGROUND,
				 (uint32_t) step_number(step, RESIZE_BACKGROUND));
}

bool
codec_crop(Canvas *canvas, const PipelineStep *step)
{
	int			image_width = vips_image_get_width(canvas->image);
	int			image_height = vips_image_get_height(canvas->image);
	Gravity		gravity = (Gravity) step_number(step, CROP_GRAVITY);
	Area		area = {
		.width = (int) step_number(step, CROP_WIDTH),
		.height = (int) step_number(step, CROP_HEIGHT)
	};

	codec_place(gravity, image_width, image_height, 0, 0, &area);
	if (step_given(step, CROP_LEFT))
		area.left = (int) step_number(step, CROP_LEFT);
	if (step_given(step, CROP_TOP))
		area.top = (int) step_number(step, CROP_TOP);
	if (area.width > image_width || area.height > image_height)
		return codec_fail(canvas->reply, DECODER_INVALID_OPERATION,
						  "cannot crop %dx%d from an image of %dx%d",
						  area.width, area.height, image_width, image_height);
	if (area.left > image_width - area.width || area.top > image_height - area.height)
		return codec_fail(canvas->reply, DECODER_INVALID_OPERATION,
						  "cannot crop %dx%d at %d,%d from an image of %dx%d",
						  area.width, area.height, area.left, area.top, image_width, image_height);
	if (gravity >= GRAVITY_ATTENTION)
		return cut_by_gravity(canvas, area.width, area.height, gravity);
	return cut(canvas, &area);
}

bool
codec_extend(Canvas *canvas, const PipelineStep *step)
{
	static const VipsExtend modes[] = {
		[FILL_COLOR] = VIPS_EXTEND_BACKGROUND,
		[FILL_COPY] = VIPS_EXTEND_COPY,
		[FILL_MIRROR] = VIPS_EXTEND_MIRROR,
		[FILL_REPEAT] = VIPS_EXTEND_REPEAT
	};
	Area		place = {
		.left = (int) step_number(step, EXTEND_LEFT),
		.top = (int) step_number(step, EXTEND_TOP)
	};
	int			width = vips_image_get_width(canvas->image) + place.left +
		(int) step_number(step, EXTEND_RIGHT);
	int			height = vips_image_get_height(canvas->image) + place.top +
		(int) step_number(step, EXTEND_BOTTOM);

	return codec_check_size(canvas, width, height) &&
		embed(canvas, &place, width, height, modes[(int) step_number(step, EXTEND_FILL)],
			  (uint32_t) step_number(step, EXTEND_BACKGROUND));
}

/* The colour at the top left, as 0xRRGGBBAA. */
static bool
read_first_pixel(Canvas *canvas, uint32_t *color)
{
	VipsImage  *image = canvas->image;
	int			bands = vips_image_get_bands(image);
	bool		alpha = vips_image_hasalpha(image);
	bool		deep = codec_is_deep(image);
	double	   *values;
	uint32_t	bytes[4] = {0, 0, 0, 255};
	int			n;
	int			i;

	if (vips_getpoint(image, &values, &n, 0, 0, NULL) != 0)
		return codec_fail_libvips(canvas->reply, DECODER_FAILED, "could not trim");
	for (i = 0; i < 3; i++)
		bytes[i] = (uint32_t) values[bands >= 3 ? i : 0] >> (deep ? 8 : 0);
	if (alpha)
		bytes[3] = (uint32_t) values[n - 1] >> (deep ? 8 : 0);
	g_free(values);
	*color = bytes[0] << 24 | bytes[1] << 16 | bytes[2] << 8 | bytes[3];
	return true;
}

/*
 * Measures on what one would see: where the border is transparent its
 * transparency, else the image laid on the border's colour.
 */
static bool
measure_border(Canvas *canvas, uint32_t color, double threshold, Area *area)
{
	Canvas		measured = *canvas;
	bool		deep = codec_is_deep(canvas->image);
	VipsImage  *alpha = NULL;
	VipsArrayDouble *background;
	Ink			ink = {.values = {0}, .n = 1};
	bool		done;

	g_object_ref(measured.image);
	if ((color & 0xFF) == 0 && vips_image_hasalpha(measured.image))
		done = codec_replace(&measured, &alpha,
							 vips_extract_band(measured.image, &alpha,
											   vips_image_get_bands(measured.image) - 1, NULL),
							 "could not trim");
	else
		done = codec_flatten_on(&measured, color | 0xFF) &&
			codec_take_color(&measured, color | 0xFF, &ink);
	if (done)
	{
		background = codec_ink(&ink);
		if (vips_find_trim(measured.image, &area->left, &area->top, &area->width, &area->height,
						   "threshold", MAX(threshold, 0.5) * (deep ? 257 : 1),
						   "background", background, NULL) != 0)
			done = codec_fail_libvips(canvas->reply, DECODER_FAILED, "could not trim");
		codec_free_ink(background);
	}
	g_object_unref(measured.image);
	return done;
}

bool
codec_trim(Canvas *canvas, const PipelineStep *step)
{
	Area	   *choice = &canvas->output->choices[canvas->step];
	uint32_t	color = 0;

	/* libvips looks at three by three pixels at a time. */
	if (MIN(vips_image_get_width(canvas->image), vips_image_get_height(canvas->image)) < 3)
		return true;
	if (choice->width == 0)
	{
		if (!codec_need_random_access(canvas))
			return false;
		if (step_given(step, TRIM_BACKGROUND))
			color = (uint32_t) step_number(step, TRIM_BACKGROUND);
		else if (!read_first_pixel(canvas, &color))
			return false;
		if (!measure_border(canvas, color, step_number(step, TRIM_THRESHOLD), choice))
			return false;
		if (choice->width == 0 || choice->height == 0)
			*choice = (Area)
		{
			0, 0, vips_image_get_width(canvas->image), vips_image_get_height(canvas->image)
		};
	}
	return cut(canvas, choice);
}

/* Turns by any angle; what is new in the corners is the background. */
bool
codec_turn(Canvas *canvas, double angle, uint32_t background)
{
	double		radians = angle * G_PI / 180;
	int			width = vips_image_get_width(canvas->image);
	int			height = vips_image_get_height(canvas->image);
	VipsImage  *turned = NULL;
	VipsInterpolate *interpolate;
	VipsArrayDouble *array;
	VipsBandFormat format;
	Ink			ink;
	int			failed;
	int			i;

	if (!codec_need_random_access(canvas))
		return false;
	if (fmod(angle, 90) == 0)
	{
		int			quarters = ((int) (angle / 90) % 4 + 4) % 4;

		return codec_replace(canvas, &turned,
							 vips_rot(canvas->image, &turned, (VipsAngle) quarters, NULL),
							 "could not rotate");
	}

	if (!codec_check_size(canvas,
						  ceil(fabs(width * cos(radians)) + fabs(height * sin(radians))),
						  ceil(fabs(width * sin(radians)) + fabs(height * cos(radians)))) ||
		!codec_take_color(canvas, background, &ink) ||
		!codec_begin_mixing(canvas, &format))
		return false;
	for (i = 0; i < ink.n - 1 && format != VIPS_FORMAT_NOTSET; i++)
		ink.values[i] *= (background & 0xFF) / 255.0;

	interpolate = vips_interpolate_new("bicubic");
	array = codec_ink(&ink);
	failed = vips_similarity(canvas->image, &turned, "angle", angle,
							 "interpolate", interpolate, "background", array, NULL);
	codec_free_ink(array);
	g_object_unref(interpolate);
	return codec_replace(canvas, &turned, failed, "could not rotate") &&
		codec_end_mixing(canvas, format);
}

bool
codec_rotate(Canvas *canvas, const PipelineStep *step)
{
	return codec_turn(canvas, step_number(step, ROTATE_ANGLE),
					  (uint32_t) step_number(step, ROTATE_BACKGROUND));
}

static bool
mirror(Canvas *canvas, VipsDirection direction)
{
	VipsImage  *mirrored = NULL;

	return codec_replace(canvas, &mirrored,
						 vips_flip(canvas->image, &mirrored, direction, NULL),
						 "could not mirror");
}

bool
codec_flip(Canvas *canvas, const PipelineStep *step)
{
	(void) step;
	return codec_need_random_access(canvas) && mirror(canvas, VIPS_DIRECTION_VERTICAL);
}

/* Within each row, so it streams. */
bool
codec_flop(Canvas *canvas, const PipelineStep *step)
{
	(void) step;
	return mirror(canvas, VIPS_DIRECTION_HORIZONTAL);
}
