/*
 * codec_color.c
 *		Operations that change each pixel's colour by itself.
 *
 * Transparency is taken off before and put back behind them.
 */
#include "decoder/codec_internal.h"

#include <math.h>

/* Parts alpha from the colours; *alpha is NULL where there is none. */
static bool
take_alpha(Canvas *canvas, VipsImage **alpha)
{
	int			bands = vips_image_get_bands(canvas->image);
	VipsImage  *colors = NULL;

	*alpha = NULL;
	if (!vips_image_hasalpha(canvas->image))
		return true;
	if (vips_extract_band(canvas->image, alpha, bands - 1, NULL) != 0)
		return codec_fail_libvips(canvas->reply, DECODER_FAILED, "could not process");
	if (codec_replace(canvas, &colors,
					  vips_extract_band(canvas->image, &colors, 0, "n", bands - 1, NULL),
					  "could not process"))
		return true;
	g_clear_object(alpha);
	return false;
}

/* Joins them again, and takes alpha over; done is what became of the colours. */
static bool
put_alpha(Canvas *canvas, VipsImage *alpha, bool done)
{
	VipsImage  *joined = NULL;

	if (done && alpha != NULL)
		done = codec_replace(canvas, &joined,
							 vips_bandjoin2(canvas->image, alpha, &joined, NULL),
							 "could not process");
	g_clear_object(&alpha);
	return done;
}

/* Each band by factor and summand, in the format that the image has. */
static bool
scale_values(Canvas *canvas, const double *factors, const double *summands, int n)
{
	VipsBandFormat format = vips_image_get_format(canvas->image);
	VipsImage  *scaled = NULL;
	VipsImage  *cast = NULL;

	return codec_replace(canvas, &scaled,
						 vips_linear(canvas->image, &scaled, (double *) factors,
									 (double *) summands, n, NULL),
						 "could not process") &&
		codec_replace(canvas, &cast, vips_cast(canvas->image, &cast, format, NULL),
					  "could not process");
}

static bool
convert(Canvas *canvas, VipsInterpretation colors)
{
	VipsImage  *converted = NULL;

	return codec_replace(canvas, &converted,
						 vips_colourspace(canvas->image, &converted, colors, NULL),
						 "could not convert the colours of");
}

bool
codec_modulate(Canvas *canvas, const PipelineStep *step)
{
	VipsInterpretation colors = vips_image_get_interpretation(canvas->image);
	double		contrast = step_number(step, MODULATE_CONTRAST);
	double		middle = codec_is_deep(canvas->image) ? 65535 / 2.0 : 255 / 2.0;
	double		offset = middle * (1 - contrast);
	/* More light raises chroma with lightness, and less of it takes both away. */
	const double factors[] = {
		step_number(step, MODULATE_BRIGHTNESS),
		step_number(step, MODULATE_BRIGHTNESS) * step_number(step, MODULATE_SATURATION),
		1
	};
	const double summands[] = {0, 0, step_number(step, MODULATE_HUE)};
	VipsImage  *alpha;
	bool		done = true;

	if (!take_alpha(canvas, &alpha))
		return false;
	/* Brightness, saturation and hue are lightness, chroma and hue of CIE Lab. */
	if (factors[0] != 1 || factors[1] != 1 || summands[2] != 0)
		done = convert(canvas, VIPS_INTERPRETATION_LCH) &&
			scale_values(canvas, factors, summands, 3) &&
			convert(canvas, colors);
	if (contrast != 1)
		done = done && scale_values(canvas, &contrast, &offset, 1);
	return put_alpha(canvas, alpha, done);
}

bool
codec_gamma(Canvas *canvas, const PipelineStep *step)
{
	VipsImage  *image = NULL;
	VipsImage  *alpha;

	return take_alpha(canvas, &alpha) &&
		put_alpha(canvas, alpha,
				  codec_replace(canvas, &image,
								vips_gamma(canvas->image, &image,
										   "exponent", step_number(step, GAMMA_EXPONENT), NULL),
								"could not process"));
}

/* The values that bound a part, in percent, of all pixels' lightness. */
static bool
find_percentiles(Canvas *canvas, double lower, double upper, int *low, int *high)
{
	VipsImage  *gray = NULL;
	int			failed;

	if (vips_colourspace(canvas->image, &gray, codec_is_deep(canvas->image) ?
						 VIPS_INTERPRETATION_GREY16 : VIPS_INTERPRETATION_B_W, NULL) != 0)
		return codec_fail_libvips(canvas->reply, DECODER_FAILED, "could not normalize");
	failed = vips_percent(gray, lower, low, NULL) != 0 || vips_percent(gray, upper, high, NULL) != 0;
	g_object_unref(gray);
	return !failed || codec_fail_libvips(canvas->reply, DECODER_FAILED, "could not normalize");
}

bool
codec_normalize(Canvas *canvas, const PipelineStep *step)
{
	double		white = codec_is_deep(canvas->image) ? 65535 : 255;
	VipsImage  *alpha;
	int			low;
	int			high;
	bool		done;

	if (!codec_need_random_access(canvas) || !take_alpha(canvas, &alpha))
		return false;
	done = find_percentiles(canvas, step_number(step, NORMALIZE_LOWER),
							step_number(step, NORMALIZE_UPPER), &low, &high);
	/* All colours alike, so that hues stay; a flat image has nothing to stretch. */
	if (done && high > low)
	{
		double		factor = white / (high - low);
		double		summand = -low * factor;

		done = scale_values(canvas, &factor, &summand, 1);
	}
	return put_alpha(canvas, alpha, done);
}

bool
codec_clahe(Canvas *canvas, const PipelineStep *step)
{
	VipsInterpretation colors = vips_image_get_interpretation(canvas->image);
	VipsImage  *alpha;
	bool		done;

	if (!codec_need_random_access(canvas) || !take_alpha(canvas, &alpha))
		return false;
	done = convert(canvas, VIPS_INTERPRETATION_LAB) && codec_compute(canvas);
	if (done && codec_equalize(canvas->image, (int) step_number(step, CLAHE_TILES),
							   step_number(step, CLAHE_SLOPE)) != 0)
		done = codec_fail_libvips(canvas->reply, DECODER_FAILED, "could not equalize");
	done = done && convert(canvas, colors);
	return put_alpha(canvas, alpha, done);
}

bool
codec_grayscale(Canvas *canvas, const PipelineStep *step)
{
	(void) step;
	return codec_convert_colors(canvas, false, codec_is_deep(canvas->image));
}

bool
codec_tint(Canvas *canvas, const PipelineStep *step)
{
	uint32_t	color = (uint32_t) step_number(step, TINT_COLOR);
	bool		deep = codec_is_deep(canvas->image);
	float		x,
				y,
				z,
				lab[3];
	double		factors[] = {1, 0, 0};
	double		summands[] = {0, 0, 0};
	VipsImage  *alpha;
	bool		done;

	vips_col_sRGB2scRGB_8(color >> 24, color >> 16 & 0xFF, color >> 8 & 0xFF, &x, &y, &z);
	vips_col_scRGB2XYZ(x, y, z, &x, &y, &z);
	vips_col_XYZ2Lab(x, y, z, &lab[0], &lab[1], &lab[2]);
	summands[1] = lab[1];
	summands[2] = lab[2];

	if (!take_alpha(canvas, &alpha))
		return false;
	done = convert(canvas, VIPS_INTERPRETATION_LAB) &&
		scale_values(canvas, factors, summands, 3) &&
		codec_convert_colors(canvas, true, deep);
	return put_alpha(canvas, alpha, done);
}

bool
codec_invert(Canvas *canvas, const PipelineStep *step)
{
	VipsImage  *negative = NULL;
	VipsImage  *alpha;

	(void) step;
	return take_alpha(canvas, &alpha) &&
		put_alpha(canvas, alpha,
				  codec_replace(canvas, &negative,
								vips_invert(canvas->image, &negative, NULL),
								"could not invert"));
}

bool
codec_flatten(Canvas *canvas, const PipelineStep *step)
{
	return codec_flatten_on(canvas, (uint32_t) step_number(step, FLATTEN_BACKGROUND));
}
