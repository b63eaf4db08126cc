/*
 * codec_operations.c
 *		Leads a canvas through the steps of its pipeline: the table of
 *		operations, and what they all stand on.
 *
 * To add an operation: write its function in the file of its kind, add its
 * line to transforms[].  A function finds an upright image in display colours
 * (sRGB or gray, 8 or 16 bits, alpha or not) unless its line says that it
 * takes the image as it was loaded.
 */
#include "decoder/codec_internal.h"

#include <math.h>

typedef bool (*Transform) (Canvas *canvas, const PipelineStep *step);

static const struct
{
	Transform	apply;
	bool		takes_unsettled;	/* settles the canvas by itself */
}			transforms[OPERATION_COUNT] = {
	[OPERATION_RESIZE] = {codec_resize, true},
	[OPERATION_CROP] = {codec_crop, false},
	[OPERATION_EXTEND] = {codec_extend, false},
	[OPERATION_TRIM] = {codec_trim, false},
	[OPERATION_ROTATE] = {codec_rotate, false},
	[OPERATION_FLIP] = {codec_flip, false},
	[OPERATION_FLOP] = {codec_flop, false},
	[OPERATION_BLUR] = {codec_blur, false},
	[OPERATION_SHARPEN] = {codec_sharpen, false},
	[OPERATION_MEDIAN] = {codec_median, false},
	[OPERATION_PIXELATE] = {codec_pixelate, false},
	[OPERATION_MODULATE] = {codec_modulate, false},
	[OPERATION_GAMMA] = {codec_gamma, false},
	[OPERATION_NORMALIZE] = {codec_normalize, false},
	[OPERATION_CLAHE] = {codec_clahe, false},
	[OPERATION_GRAYSCALE] = {codec_grayscale, false},
	[OPERATION_TINT] = {codec_tint, false},
	[OPERATION_INVERT] = {codec_invert, false},
	[OPERATION_FLATTEN] = {codec_flatten, false},
	[OPERATION_COMPOSITE] = {codec_composite, false},
	[OPERATION_TEXT] = {codec_text, false},
	[OPERATION_JOIN] = {codec_join, false}
};

/* The image as it was loaded; the canvas takes a reference of its own. */
Canvas
codec_start_canvas(Work *work, Output *output, VipsImage *image)
{
	const ImageFacts *facts = &work->reply->facts;
	bool		swapped = output->upright && facts->orientation >= 5;

	return (Canvas)
	{
		.image = g_object_ref(image),
		.work = work,
		.output = output,
		.request = work->job->request,
		.reply = work->reply,
		.width = swapped ? facts->height : facts->width,
		.height = swapped ? facts->width : facts->height,
		.orientation = output->upright ? facts->orientation : 1,
		.streaming = work->job->request->n_outputs == 1
	};
}

/* How much smaller a loader may make the image: when a resize is all that sees it. */
double
codec_useful_shrink(const Pipeline *pipeline, int width, int height)
{
	int			i;

	for (i = 0; i < pipeline->n_steps; i++)
	{
		const PipelineStep *step = &pipeline->steps[i];

		if (step->operation == OPERATION_RESIZE)
			return codec_resize_shrink(step, width, height);
		if (operations[step->operation].kind == OPERATION_TRANSFORM)
			return 1;
	}
	return 1;
}

bool
codec_run_steps(Canvas *canvas)
{
	const Pipeline *pipeline = canvas->output->pipeline;

	for (canvas->step = 0; canvas->step < pipeline->n_steps; canvas->step++)
	{
		const PipelineStep *step = &pipeline->steps[canvas->step];

		if (transforms[step->operation].apply == NULL)
			continue;			/* planned for before, or an encoder */
		if (!transforms[step->operation].takes_unsettled && !codec_settle(canvas))
			return false;
		if (!transforms[step->operation].apply(canvas, step))
			return false;
	}
	return codec_settle(canvas);
}

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

/*
 * Has output, a new image with all that is known of the input, made by generate,
 * whose sequence is a region of the input.  As libvips, 0 or -1.
 */
int
codec_generate(VipsImage *output, VipsImage *input, int width, int height, VipsGenerateFn generate, void *data)
{
	if (vips_image_pipelinev(output, VIPS_DEMAND_STYLE_FATSTRIP, input, NULL) != 0)
		return -1;
	output->Xsize = width;
	output->Ysize = height;
	return vips_image_generate(output, vips_start_one, generate, vips_stop_one, input, data);
}

/* Computes all that was described so far into memory. */
bool
codec_compute(Canvas *canvas)
{
	VipsImage  *copy = vips_image_copy_memory(canvas->image);

	if (!codec_replace(canvas, &copy, copy == NULL, "could not process"))
		return false;
	/* What a library warned of as it read is not why a later step fails. */
	vips_error_clear();
	canvas->streaming = false;
	return true;
}

/* For what cannot work from top to bottom. */
bool
codec_need_random_access(Canvas *canvas)
{
	return !canvas->streaming || codec_compute(canvas);
}

/* Before a step makes the image larger: what libvips and the limits allow. */
bool
codec_check_size(Canvas *canvas, double width, double height)
{
	/* As numbers, because they may be beyond what an integer holds. */
	return codec_check_limit(canvas->reply, DECODER_LIMIT_OUTPUT_PIXELS,
							 (uint64_t) MIN(width * height, 1e18),
							 MIN(canvas->request->max_output_pixels, (uint64_t) 1e17)) &&
		(MAX(width, height) <= VIPS_MAX_COORD ||
		 codec_fail(canvas->reply, DECODER_INVALID_OPERATION,
					"result of %s, %.0fx%.0f, is too large: a side ends at %d pixels",
					operations[canvas->output->pipeline->steps[canvas->step].operation].name,
					width, height, VIPS_MAX_COORD));
}

bool
codec_is_deep(VipsImage *image)
{
	return vips_image_get_format(image) == VIPS_FORMAT_USHORT;
}

static bool
convert_to(Canvas *canvas, VipsInterpretation colors)
{
	VipsImage  *converted = NULL;

	if (vips_image_get_interpretation(canvas->image) == colors)
		return true;
	return codec_replace(canvas, &converted,
						 vips_colourspace(canvas->image, &converted, colors, NULL),
						 "could not convert the colours of");
}

/* To sRGB or gray, in 16 bits or 8. */
bool
codec_convert_colors(Canvas *canvas, bool color, bool deep)
{
	if (color)
		return convert_to(canvas, deep ? VIPS_INTERPRETATION_RGB16 : VIPS_INTERPRETATION_sRGB);
	return convert_to(canvas, deep ? VIPS_INTERPRETATION_GREY16 : VIPS_INTERPRETATION_B_W);
}

/* The image's own profile, where it has one that fits its pixels. */
static bool
has_profile(VipsImage *image)
{
	const void *profile;
	size_t		length;
	bool		fits;

	fits = vips_image_get_typeof(image, VIPS_META_ICC_NAME) != 0 &&
		vips_image_get_coding(image) == VIPS_CODING_NONE &&
		(codec_is_deep(image) || vips_image_get_format(image) == VIPS_FORMAT_UCHAR) &&
		vips_image_get_blob(image, VIPS_META_ICC_NAME, &profile, &length) == 0 &&
		vips_icc_is_compatible_profile(image, profile, length);
	vips_error_clear();
	return fits;
}

/*
 * A TIFF may have more channels than colours and transparency.  Which of them is
 * what libvips does not tell: the colours stay.
 */
static bool
drop_extra_channels(Canvas *canvas)
{
	VipsImage  *image = canvas->image;
	VipsImage  *colors = NULL;
	int			bands = vips_image_get_bands(image);
	int			n;

	switch (vips_image_get_interpretation(image))
	{
		case VIPS_INTERPRETATION_CMYK:
			n = 4;
			break;
		case VIPS_INTERPRETATION_B_W:
		case VIPS_INTERPRETATION_GREY16:
			n = 1;
			break;
		default:
			n = 3;
	}
	return bands <= n + 1 ||
		codec_replace(canvas, &colors, vips_extract_band(image, &colors, 0, "n", n, NULL),
					  "could not take the colours of");
}

/*
 * To sRGB or gray, in 8 or 16 bits, through the image's own profile where it
 * has one that fits.  Outputs carry no profile, so this is what makes them
 * look right everywhere; where the profile is kept, colours that it can hold
 * stay as they are.
 */
static bool
to_display_colors(Canvas *canvas)
{
	VipsImage  *image = canvas->image;
	VipsImage  *converted = NULL;
	int			color_bands = vips_image_get_bands(image) - (vips_image_hasalpha(image) ? 1 : 0);
	bool		color = color_bands >= 3;
	bool		deep = codec_is_deep(image);
	VipsInterpretation now = vips_image_get_interpretation(image);
	bool		for_display = (deep || vips_image_get_format(image) == VIPS_FORMAT_UCHAR) &&
		now == (color ? (deep ? VIPS_INTERPRETATION_RGB16 : VIPS_INTERPRETATION_sRGB) :
				(deep ? VIPS_INTERPRETATION_GREY16 : VIPS_INTERPRETATION_B_W));
	bool		keep = canvas->output->kept == KEEP_ICC || canvas->output->kept == KEEP_ALL;

	if (has_profile(image) && !(keep && for_display))
	{
		if (vips_icc_transform(image, &converted, "srgb",
							   "embedded", TRUE,
							   "intent", VIPS_INTENT_PERCEPTUAL,
							   "depth", deep ? 16 : 8, NULL) == 0)
			return codec_replace(canvas, &converted, 0, NULL) &&
				codec_convert_colors(canvas, color, deep);

		/* A broken profile: colours are what they would be without one. */
		vips_error_clear();
		if (!codec_replace(canvas, &converted, vips_copy(image, &converted, NULL),
						   "could not convert the colours of"))
			return false;
		image = converted;
		vips_image_remove(image, VIPS_META_ICC_NAME);
	}

	if (for_display)
		return true;
	if (vips_colourspace_issupported(image))
		return codec_convert_colors(canvas, color, deep);
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
	if (!drop_extra_channels(canvas) || !to_display_colors(canvas))
		return false;
	if (canvas->orientation == 1)
		return true;
	/* 2 is a mirror image, which streams. */
	if (canvas->orientation != 2 && !codec_need_random_access(canvas))
		return false;
	return codec_replace(canvas, &upright,
						 vips_autorot(canvas->image, &upright, NULL),
						 "could not turn");
}

/*
 * Colours under transparent pixels must not bleed into their neighbours:
 * around anything that mixes pixels, colours are weighted with alpha.
 */
bool
codec_begin_mixing(Canvas *canvas, VipsBandFormat *format)
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

bool
codec_end_mixing(Canvas *canvas, VipsBandFormat format)
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

bool
codec_is_gray(uint32_t color)
{
	return color >> 24 == (color >> 16 & 0xFF) && color >> 24 == (color >> 8 & 0xFF);
}

/*
 * A colour in the numbers of the canvas, which is made to hold it: a gray
 * image becomes sRGB for one that is not gray, and one without transparency
 * gets it for one that has.
 */
bool
codec_take_color(Canvas *canvas, uint32_t color, Ink *ink)
{
	int			red = color >> 24;
	int			green = color >> 16 & 0xFF;
	int			blue = color >> 8 & 0xFF;
	int			alpha = color & 0xFF;
	bool		deep = codec_is_deep(canvas->image);
	double		scale = deep ? 257 : 1;
	VipsImage  *with_alpha = NULL;

	if (!codec_is_gray(color) && alpha > 0 && !codec_convert_colors(canvas, true, deep))
		return false;
	if (alpha < 255 && !vips_image_hasalpha(canvas->image) &&
		!codec_replace(canvas, &with_alpha,
					   vips_bandjoin_const1(canvas->image, &with_alpha, 255 * scale, NULL),
					   "could not process"))
		return false;

	ink->n = 0;
	ink->values[ink->n++] = red * scale;
	if (vips_image_get_bands(canvas->image) >= 3)
	{
		ink->values[ink->n++] = green * scale;
		ink->values[ink->n++] = blue * scale;
	}
	if (vips_image_hasalpha(canvas->image))
		ink->values[ink->n++] = alpha * scale;
	return true;
}

/* As libvips wants it; the caller's to free by codec_free_ink(). */
VipsArrayDouble *
codec_ink(const Ink *ink)
{
	return vips_array_double_new(ink->values, ink->n);
}

void
codec_free_ink(VipsArrayDouble *array)
{
	vips_area_unref(VIPS_AREA(array));
}

/* Lays the image on a colour that is not transparent. */
bool
codec_flatten_on(Canvas *canvas, uint32_t color)
{
	VipsArrayDouble *background;
	VipsImage  *flat = NULL;
	Ink			ink;
	int			failed;

	if (!vips_image_hasalpha(canvas->image))
		return true;
	if (!codec_take_color(canvas, color, &ink))
		return false;
	ink.n--;					/* without its alpha */
	background = codec_ink(&ink);
	failed = vips_flatten(canvas->image, &flat, "background", background, NULL);
	codec_free_ink(background);
	return codec_replace(canvas, &flat, failed, "could not flatten");
}
