/*
 * codec_compose.c
 *		Operations on several images: one over the other, or side by side.
 */
#include "decoder/codec_internal.h"

#include <math.h>

/*
 * Decodes an input behind the first: upright, in display colours, in memory.
 * Its first page where it has several.
 */
static bool
decode_other(Work *work, int number, DecoderReply *reply, VipsImage **decoded)
{
	const CodecJob *job = work->job;
	Output		output = {.upright = true};
	Canvas		canvas = {.work = work, .output = &output, .request = job->request, .reply = reply};
	bool		done;

	if (!codec_read_input(job->request, &job->inputs[number], reply, &canvas.image))
		return false;
	canvas.orientation = reply->facts.orientation;
	canvas.streaming = true;

	/* Together they are in memory, which the limit of one is to bound. */
	work->other_pixels += (uint64_t) reply->facts.width * reply->facts.height;
	done = codec_check_limit(reply, DECODER_LIMIT_PIXELS, work->other_pixels,
							 job->request->max_pixels) &&
		codec_settle(&canvas) && codec_need_random_access(&canvas);
	if (done)
		*decoded = g_object_ref(canvas.image);
	g_object_unref(canvas.image);
	return done;
}

/* An input behind the first, which the work owns; an error names it. */
static bool
other_input(Canvas *canvas, int number, VipsImage **image)
{
	Work	   *work = canvas->work;
	DecoderReply reply = {0};

	if (work->others[number] == NULL &&
		!decode_other(work, number, &reply, &work->others[number]))
	{
		canvas->reply->limit = reply.limit;
		canvas->reply->value = reply.value;
		canvas->reply->facts = reply.facts;
		return codec_fail(canvas->reply, reply.status, "image %d: %s", number + 1, reply.message);
	}
	*image = work->others[number];
	return true;
}

/* Gives an overlay the colours and the depth of the canvas, or it its colours, and alpha. */
static bool
match_colors(Canvas *canvas, Canvas *overlay)
{
	bool		deep = codec_is_deep(canvas->image);
	bool		color = vips_image_get_bands(canvas->image) >= 3 ||
		vips_image_get_bands(overlay->image) >= 3;
	Ink			ink;

	return codec_convert_colors(canvas, color, deep) &&
		codec_convert_colors(overlay, color, deep) &&
		codec_take_color(overlay, 0, &ink);
}

/* An overlay over and over again, in the size of the canvas. */
static bool
tile(const Canvas *canvas, Canvas *overlay, const Area *place, int gap_x, int gap_y)
{
	int			width = vips_image_get_width(canvas->image);
	int			height = vips_image_get_height(canvas->image);
	int			step_x = MAX(1, place->width + gap_x);
	int			step_y = MAX(1, place->height + gap_y);
	VipsImage  *cell = NULL;
	VipsImage  *cells = NULL;
	VipsImage  *area = NULL;

	/* One of them lies where a single one would. */
	return codec_replace(overlay, &cell,
						 vips_embed(overlay->image, &cell, 0, 0, step_x, step_y, NULL),
						 "could not composite") &&
		codec_replace(overlay, &cells,
					  vips_replicate(overlay->image, &cells,
									 width / step_x + 2, height / step_y + 2, NULL),
					  "could not composite") &&
		codec_replace(overlay, &area,
					  vips_extract_area(overlay->image, &area,
										((-place->left) % step_x + step_x) % step_x,
										((-place->top) % step_y + step_y) % step_y,
										width, height, NULL),
					  "could not composite");
}

/* Lays what lies within the canvas over it. */
static bool
blend_over(Canvas *canvas, Canvas *overlay, const Area *place, BlendMode blend)
{
	static const VipsBlendMode modes[] = {
		[BLEND_OVER] = VIPS_BLEND_MODE_OVER,
		[BLEND_MULTIPLY] = VIPS_BLEND_MODE_MULTIPLY,
		[BLEND_SCREEN] = VIPS_BLEND_MODE_SCREEN,
		[BLEND_OVERLAY] = VIPS_BLEND_MODE_OVERLAY,
		[BLEND_DARKEN] = VIPS_BLEND_MODE_DARKEN,
		[BLEND_LIGHTEN] = VIPS_BLEND_MODE_LIGHTEN,
		[BLEND_DIFFERENCE] = VIPS_BLEND_MODE_DIFFERENCE
	};
	VipsBandFormat format = vips_image_get_format(canvas->image);
	VipsInterpretation colors = vips_image_get_interpretation(canvas->image);
	int			bands = vips_image_get_bands(canvas->image);
	VipsImage  *both = NULL;
	VipsImage  *cast = NULL;
	VipsImage  *opaque = NULL;

	return codec_replace(canvas, &both,
						 vips_composite2(canvas->image, overlay->image, &both, modes[blend],
										 "x", place->left, "y", place->top,
										 "compositing_space", colors, NULL),
						 "could not composite") &&
		codec_replace(canvas, &cast, vips_cast(canvas->image, &cast, format, NULL),
					  "could not composite") &&
	/* The result has alpha; over what had none it says nothing. */
		(vips_image_get_bands(canvas->image) == bands ||
		 codec_replace(canvas, &opaque,
					   vips_extract_band(canvas->image, &opaque, 0, "n", bands, NULL),
					   "could not composite"));
}

/* Lays an image over the canvas; x and y as in the reference. */
bool
codec_overlay(Canvas *canvas, VipsImage *image, Gravity gravity, int x, int y,
			  bool tiled, BlendMode blend)
{
	int			width = vips_image_get_width(canvas->image);
	int			height = vips_image_get_height(canvas->image);
	Canvas		overlay = *canvas;
	Area		place = {
		.width = vips_image_get_width(image),
		.height = vips_image_get_height(image)
	};
	bool		done;

	codec_place(gravity, width, height, tiled ? 0 : x, tiled ? 0 : y, &place);
	if (!tiled && (place.left >= width || place.top >= height ||
				   place.left + place.width <= 0 || place.top + place.height <= 0))
		return true;

	overlay.image = g_object_ref(image);
	overlay.streaming = false;
	done = match_colors(canvas, &overlay);
	if (done && tiled)
	{
		done = tile(canvas, &overlay, &place, x, y);
		place.left = place.top = 0;
	}
	done = done && blend_over(canvas, &overlay, &place, blend);
	g_object_unref(overlay.image);
	return done;
}

/* Weakens what of an overlay is there at all. */
static bool
fade(Canvas *overlay, double opacity)
{
	int			bands;
	VipsBandFormat format = vips_image_get_format(overlay->image);
	double		factors[4] = {1, 1, 1, 1};
	double		summands[4] = {0};
	VipsImage  *faded = NULL;
	VipsImage  *cast = NULL;
	Ink			ink;

	if (opacity == 1)
		return true;
	if (!codec_take_color(overlay, 0, &ink))
		return false;
	bands = vips_image_get_bands(overlay->image);
	factors[bands - 1] = opacity;
	return codec_replace(overlay, &faded,
						 vips_linear(overlay->image, &faded, factors, summands, bands, NULL),
						 "could not composite") &&
		codec_replace(overlay, &cast, vips_cast(overlay->image, &cast, format, NULL),
					  "could not composite");
}

bool
codec_composite(Canvas *canvas, const PipelineStep *step)
{
	Canvas		overlay = *canvas;
	bool		done;

	if (canvas->request->n_inputs < 2)
		return codec_fail(canvas->reply, DECODER_INVALID_OPERATION,
						  "there is no second image to composite; give one as the third argument of process_image()");
	if (!other_input(canvas, 1, &overlay.image))
		return false;
	g_object_ref(overlay.image);
	overlay.streaming = false;

	done = true;
	if (step_given(step, COMPOSITE_WIDTH))
	{
		double		width = vips_image_get_width(canvas->image) * step_number(step, COMPOSITE_WIDTH);
		double		height = width * vips_image_get_height(overlay.image) /
			vips_image_get_width(overlay.image);

		done = codec_check_size(canvas, width, height) &&
			codec_resample(&overlay, (int) MAX(1, rint(width)), (int) MAX(1, rint(height)),
						   KERNEL_LANCZOS3);
	}
	done = done && fade(&overlay, step_number(step, COMPOSITE_OPACITY)) &&
		codec_overlay(canvas, overlay.image,
					  (Gravity) step_number(step, COMPOSITE_GRAVITY),
					  (int) step_number(step, COMPOSITE_X),
					  (int) step_number(step, COMPOSITE_Y),
					  step_number(step, COMPOSITE_TILE) != 0,
					  (BlendMode) step_number(step, COMPOSITE_BLEND));
	g_object_unref(overlay.image);
	return done;
}

/* All inputs, each with a reference of the caller's; NULL from the one on that failed. */
static bool
collect_inputs(Canvas *canvas, VipsImage **images)
{
	int			i;

	for (i = 0; i < canvas->request->n_inputs; i++)
	{
		VipsImage  *image = canvas->image;

		if (i > 0 && !other_input(canvas, i, &image))
			return false;
		images[i] = g_object_ref(image);
	}
	return true;
}

/* Brings images to the colours, depth and transparency that hold them all. */
static bool
make_alike(Canvas *canvas, VipsImage **images, int n, uint32_t background)
{
	bool		deep = codec_is_deep(canvas->image);
	bool		color = !codec_is_gray(background);
	bool		alpha = (background & 0xFF) < 0xFF;
	bool		done = true;
	Ink			ink;
	int			i;

	for (i = 0; i < n; i++)
	{
		color |= vips_image_get_bands(images[i]) >= 3;
		alpha |= vips_image_hasalpha(images[i]);
	}
	for (i = 0; i < n && done; i++)
	{
		Canvas		one = *canvas;

		one.image = images[i];
		one.streaming = false;
		done = codec_convert_colors(&one, color, deep) &&
			codec_take_color(&one, alpha ? 0 : 0xFF, &ink);
		images[i] = one.image;
	}
	return done;
}

/* Joins alike images to one; places are as large as the largest of them. */
static bool
join_images(Canvas *canvas, VipsImage **images, int n, const PipelineStep *step)
{
	int			columns = MIN((int) step_number(step, JOIN_COLUMNS), n);
	int			rows = (n + columns - 1) / columns;
	int			gap = (int) step_number(step, JOIN_GAP);
	int			width = 0;
	int			height = 0;
	Canvas		first = *canvas;
	VipsArrayDouble *background;
	VipsImage  *joined = NULL;
	Ink			ink;
	int			failed;
	int			i;

	for (i = 0; i < n; i++)
	{
		width = MAX(width, vips_image_get_width(images[i]));
		height = MAX(height, vips_image_get_height(images[i]));
	}
	first.image = images[0];
	if (!codec_check_size(canvas, (double) columns * (width + gap) - gap,
						  (double) rows * (height + gap) - gap) ||
		!codec_take_color(&first, (uint32_t) step_number(step, JOIN_BACKGROUND), &ink))
		return false;
	background = codec_ink(&ink);
	failed = vips_arrayjoin(images, &joined, n, "across", columns, "shim", gap,
							"hspacing", width, "vspacing", height,
							"halign", VIPS_ALIGN_CENTRE, "valign", VIPS_ALIGN_CENTRE,
							"background", background, NULL);
	codec_free_ink(background);
	return codec_replace(canvas, &joined, failed, "could not join");
}

bool
codec_join(Canvas *canvas, const PipelineStep *step)
{
	VipsImage  *images[DECODER_MAX_INPUTS] = {NULL};
	int			n = canvas->request->n_inputs;
	bool		done;
	int			i;

	done = codec_need_random_access(canvas) &&
		collect_inputs(canvas, images) &&
		make_alike(canvas, images, n, (uint32_t) step_number(step, JOIN_BACKGROUND)) &&
		join_images(canvas, images, n, step);
	for (i = 0; i < n; i++)
		g_clear_object(&images[i]);
	return done;
}
