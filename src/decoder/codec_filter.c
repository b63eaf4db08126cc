/*
 * codec_filter.c
 *		Operations that look at a pixel's neighbours.
 */
#include "decoder/codec_internal.h"

#include <math.h>

/*
 * Rows above and below that a filter of an image which streams may look at;
 * libvips keeps more of them, but not without end.
 */
#define MAX_STREAMING_REACH		8

/* From here on a row of boxes is as good as a Gaussian, and much faster. */
#define BOXES_FROM_SIGMA		6

bool
codec_blur(Canvas *canvas, const PipelineStep *step)
{
	double		sigma = step_number(step, BLUR_SIGMA);
	VipsImage  *soft = NULL;
	VipsBandFormat format;

	return (3 * sigma <= MAX_STREAMING_REACH || codec_need_random_access(canvas)) &&
		codec_begin_mixing(canvas, &format) &&
		codec_replace(canvas, &soft,
					  vips_gaussblur(canvas->image, &soft, sigma, "precision",
									 sigma < BOXES_FROM_SIGMA ? VIPS_PRECISION_INTEGER :
									 VIPS_PRECISION_APPROXIMATE, NULL),
					  "could not blur") &&
		codec_end_mixing(canvas, format);
}

bool
codec_sharpen(Canvas *canvas, const PipelineStep *step)
{
	double		sigma = step_number(step, SHARPEN_SIGMA);
	VipsImage  *sharp = NULL;
	VipsBandFormat format;

	return (3 * sigma <= MAX_STREAMING_REACH || codec_need_random_access(canvas)) &&
		codec_begin_mixing(canvas, &format) &&
		codec_replace(canvas, &sharp,
					  vips_sharpen(canvas->image, &sharp,
								   "sigma", sigma,
								   "m1", step_number(step, SHARPEN_FLAT),
								   "m2", step_number(step, SHARPEN_EDGES), NULL),
					  "could not sharpen") &&
		codec_end_mixing(canvas, format);
}

bool
codec_median(Canvas *canvas, const PipelineStep *step)
{
	int			shorter = MIN(vips_image_get_width(canvas->image), vips_image_get_height(canvas->image));
	int			size = 2 * MIN((int) step_number(step, MEDIAN_RADIUS), (shorter - 1) / 2) + 1;
	VipsBandFormat format = vips_image_get_format(canvas->image);
	VipsBandFormat mixed;
	VipsImage  *whole = NULL;
	VipsImage  *median = NULL;

	/* Weighted colours are fractions; the median is fast on whole numbers. */
	return (size <= MAX_STREAMING_REACH || codec_need_random_access(canvas)) &&
		codec_begin_mixing(canvas, &mixed) &&
		codec_replace(canvas, &whole, vips_cast(canvas->image, &whole, format, NULL),
					  "could not filter") &&
		codec_replace(canvas, &median,
					  format == VIPS_FORMAT_UCHAR ? codec_median_of_bytes(canvas->image, &median, size) :
					  vips_median(canvas->image, &median, size, NULL), "could not filter") &&
		codec_end_mixing(canvas, mixed);
}

bool
codec_pixelate(Canvas *canvas, const PipelineStep *step)
{
	int			size = (int) step_number(step, PIXELATE_SIZE);
	int			width = vips_image_get_width(canvas->image);
	int			height = vips_image_get_height(canvas->image);
	VipsBandFormat format = vips_image_get_format(canvas->image);
	VipsBandFormat mixed;
	VipsImage  *filled = NULL;
	VipsImage  *small = NULL;
	VipsImage  *whole = NULL;
	VipsImage  *blocks = NULL;
	VipsImage  *cut = NULL;

	size = MIN(size, MAX(width, height));

	/* Blocks that stand out at the right and the bottom are filled with the edge. */
	return codec_need_random_access(canvas) &&
		codec_begin_mixing(canvas, &mixed) &&
		codec_replace(canvas, &filled,
					  vips_embed(canvas->image, &filled, 0, 0,
								 (width + size - 1) / size * size,
								 (height + size - 1) / size * size,
								 "extend", VIPS_EXTEND_COPY, NULL), "could not pixelate") &&
		codec_replace(canvas, &small,
					  vips_shrink(canvas->image, &small, size, size, NULL),
					  "could not pixelate") &&
		codec_end_mixing(canvas, mixed) &&
		codec_replace(canvas, &whole, vips_cast(canvas->image, &whole, format, NULL),
					  "could not pixelate") &&
		codec_replace(canvas, &blocks,
					  vips_zoom(canvas->image, &blocks, size, size, NULL),
					  "could not pixelate") &&
		codec_replace(canvas, &cut,
					  vips_extract_area(canvas->image, &cut, 0, 0, width, height, NULL),
					  "could not pixelate");
}
