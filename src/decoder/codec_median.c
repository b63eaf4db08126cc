/*
 * codec_median.c
 *		The median of the bytes around each pixel, with a histogram that moves
 *		along the row (Huang, Yang and Tang, A Fast Two-Dimensional Median
 *		Filtering Algorithm, IEEE Transactions on ASSP 27, 1979).
 *
 * That of libvips takes in the wrong column as it moves, before 8.17.2.
 */
#include "decoder/codec_internal.h"

/* What is in the window, of one band. */
typedef struct Window
{
	int			counts[256];
	int			median;
	int			n_below;		/* of samples that are less than the median */
} Window;

/* Adds a column of so many rows to the window, or with -1 takes it out. */
static void
count_column(Window *window, const uint8_t *sample, size_t line, int n_rows, int by)
{
	int			i;

	for (i = 0; i < n_rows; i++, sample += line)
	{
		window->counts[*sample] += by;
		if (*sample < window->median)
			window->n_below += by;
	}
}

/* Moves the median to where rank samples are before it. */
static void
settle_median(Window *window, int rank)
{
	while (window->n_below > rank)
		window->n_below -= window->counts[--window->median];
	while (window->n_below + window->counts[window->median] <= rank)
		window->n_below += window->counts[window->median++];
}

/* One band of a row; the first window's upper left sample is at input. */
static void
filter_row(const uint8_t *input, size_t line, int bands, int size, uint8_t *output, int width)
{
	Window		window = {{0}};
	int			x;

	for (x = 0; x < size; x++)
		count_column(&window, input + x * bands, line, size, 1);
	for (x = 0; x < width; x++)
	{
		if (x > 0)
		{
			count_column(&window, input + (x - 1) * bands, line, size, -1);
			count_column(&window, input + (x - 1 + size) * bands, line, size, 1);
		}
		settle_median(&window, size * size / 2);
		output[x * bands] = (uint8_t) window.median;
	}
}

/* As libvips calls it for an area of the output; the sequence is a region of the input. */
static int
generate(VipsRegion *area, void *sequence, void *input, void *data, gboolean *stop)
{
	VipsRegion *region = sequence;
	const int	size = GPOINTER_TO_INT(data);
	const VipsRect *rect = &area->valid;
	const VipsRect needed = {rect->left, rect->top, rect->width + size - 1, rect->height + size - 1};
	const int	bands = vips_image_get_bands(area->im);
	int			y;
	int			band;

	(void) input;
	(void) stop;
	if (vips_region_prepare(region, &needed) != 0)
		return -1;
	for (y = rect->top; y < VIPS_RECT_BOTTOM(rect); y++)
		for (band = 0; band < bands; band++)
			filter_row(VIPS_REGION_ADDR(region, rect->left, y) + band, VIPS_REGION_LSKIP(region), bands, size,
					   VIPS_REGION_ADDR(area, rect->left, y) + band, rect->width);
	return 0;
}

/* Of an image of bytes, in windows of size by size, an odd number; edges go on outside.  As libvips, 0 or -1. */
int
codec_median_of_bytes(VipsImage *input, VipsImage **output, int size)
{
	const int	width = vips_image_get_width(input);
	const int	height = vips_image_get_height(input);
	VipsImage  *wider;
	VipsImage  *filtered;

	if (vips_embed(input, &wider, size / 2, size / 2, width + size - 1, height + size - 1,
				   "extend", VIPS_EXTEND_COPY, NULL) != 0)
		return -1;
	filtered = vips_image_new();
	vips_object_local(filtered, wider);
	if (codec_generate(filtered, wider, width, height, generate, GINT_TO_POINTER(size)) != 0)
	{
		g_object_unref(filtered);
		return -1;
	}
	*output = filtered;
	return 0;
}
