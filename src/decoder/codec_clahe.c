/*
 * codec_clahe.c
 *		Contrast-limited adaptive histogram equalization (Zuiderveld, Graphics
 *		Gems IV, 1994) of the lightness.
 *
 * libvips has a window that moves with every pixel: slow, and its limit counts
 * pixels instead of being a factor, so that it depends on the window's size.
 * Here the image is parted into tiles.  The histogram of each, cut off at the
 * limit, gives a curve from old to new lightness, and each pixel follows the
 * curves of the four tiles around it by its distance from their middles.
 */
#include "decoder/codec_internal.h"

#include <math.h>

#define LEVELS			256
#define LIGHTNESS_MAX	100.0f	/* of CIE Lab */
#define SMALLEST_TILE	8		/* pixels a side */

/* Curve of one tile, at LEVELS points from no lightness to all. */
typedef struct Curve
{
	float		values[LEVELS];
} Curve;

typedef struct Grid
{
	VipsImage  *image;			/* Lab, floats, in memory */
	int			columns;
	int			rows;
	Curve	   *curves;
} Grid;

static float
position(float lightness)
{
	return CLAMP(lightness / LIGHTNESS_MAX, 0.0f, 1.0f) * (LEVELS - 1);
}

/* What is above the limit is spread over all levels: no curve gets steeper. */
static void
limit_histogram(double *histogram, double n_pixels, double slope)
{
	double		limit = slope * n_pixels / LEVELS;
	double		excess = 0;
	int			i;

	for (i = 0; i < LEVELS; i++)
	{
		if (histogram[i] > limit)
		{
			excess += histogram[i] - limit;
			histogram[i] = limit;
		}
	}
	for (i = 0; i < LEVELS; i++)
		histogram[i] += excess / LEVELS;
}

static void
make_curve(const Grid *grid, int column, int row, double slope, Curve *curve)
{
	int			width = vips_image_get_width(grid->image);
	int			height = vips_image_get_height(grid->image);
	int			left = (int) ((int64_t) width * column / grid->columns);
	int			right = (int) ((int64_t) width * (column + 1) / grid->columns);
	int			top = (int) ((int64_t) height * row / grid->rows);
	int			bottom = (int) ((int64_t) height * (row + 1) / grid->rows);
	double		n_pixels = (double) (right - left) * (bottom - top);
	double		histogram[LEVELS] = {0};
	double		sum = 0;
	int			x;
	int			y;
	int			i;

	for (y = top; y < bottom; y++)
	{
		const float *pixel = (const float *) VIPS_IMAGE_ADDR(grid->image, left, y);

		for (x = left; x < right; x++, pixel += 3)
			histogram[lrintf(position(*pixel))]++;
	}
	limit_histogram(histogram, n_pixels, slope);
	for (i = 0; i < LEVELS; i++)
	{
		/* The middle of a level, so that a gray tile stays as it is. */
		curve->values[i] = (float) ((sum + histogram[i] / 2) / n_pixels * LIGHTNESS_MAX);
		sum += histogram[i];
	}
}

static float
follow(const Curve *curve, float place)
{
	int			level = MIN((int) place, LEVELS - 2);
	float		beyond = place - level;

	return curve->values[level] * (1 - beyond) + curve->values[level + 1] * beyond;
}

/* The two tiles that a coordinate lies between, and how near it is to the second. */
static float
between_tiles(int coordinate, int size, int n_tiles, int *first, int *second)
{
	float		place = (coordinate + 0.5f) * n_tiles / size - 0.5f;
	int			tile = (int) floorf(place);

	*first = CLAMP(tile, 0, n_tiles - 1);
	*second = CLAMP(tile + 1, 0, n_tiles - 1);
	return place - tile;
}

static void
equalize_row(const Grid *grid, int y)
{
	int			width = vips_image_get_width(grid->image);
	float	   *pixel = (float *) VIPS_IMAGE_ADDR(grid->image, 0, y);
	int			above;
	int			below;
	float		down = between_tiles(y, vips_image_get_height(grid->image), grid->rows, &above, &below);
	int			x;

	for (x = 0; x < width; x++, pixel += 3)
	{
		int			left;
		int			right;
		float		across = between_tiles(x, width, grid->columns, &left, &right);
		float		place = position(*pixel);
		const Curve *upper = grid->curves + above * grid->columns;
		const Curve *lower = grid->curves + below * grid->columns;

		*pixel = (follow(upper + left, place) * (1 - across) + follow(upper + right, place) * across) * (1 - down) +
			(follow(lower + left, place) * (1 - across) + follow(lower + right, place) * across) * down;
	}
}

/* Equalizes an image of Lab in memory that nobody else has; as libvips, 0 or -1. */
int
codec_equalize(VipsImage *image, int tiles, double slope)
{
	int			longer = MAX(vips_image_get_width(image), vips_image_get_height(image));
	double		side = MAX((double) longer / tiles, SMALLEST_TILE);
	Grid		grid = {
		.image = image,
		.columns = (int) MAX(1, rint(vips_image_get_width(image) / side)),
		.rows = (int) MAX(1, rint(vips_image_get_height(image) / side))
	};
	int			i;

	if (vips_image_inplace(image) != 0)
		return -1;
	grid.curves = g_try_new(Curve, grid.columns * grid.rows);
	if (grid.curves == NULL)
	{
		vips_error("equalize", "out of memory");
		return -1;
	}
	for (i = 0; i < grid.columns * grid.rows; i++)
		make_curve(&grid, i % grid.columns, i / grid.columns, slope, &grid.curves[i]);
	for (i = 0; i < vips_image_get_height(image); i++)
		equalize_row(&grid, i);
	g_free(grid.curves);
	return 0;
}
