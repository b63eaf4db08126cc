/*
 * codec_scale.c
 *		Makes 8-bit images smaller: a separable Lanczos filter.
 *
 * libvips before 8.16 is fast at this only with a run-time compiler, which the
 * sandbox forbids.  Rows are read one strip after the other, filtered down,
 * then across, when somebody asks for them: so an encoder writes in its thread
 * what this one has already made.  The result, which is small, stays in memory,
 * and its rows can be had in any order and again.
 *
 * Numbers: a pixel enters as 9.7 bits fixed point and leaves the vertical pass
 * as 10.6; weights are 1.15, then 2.14.  With alpha, colours are weighted by
 * it on the way in and divided on the way out.
 */
#include "decoder/codec_internal.h"

#include <math.h>
#include <string.h>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

#define STRIP_ROWS		16
#define BLOCK			64		/* samples that the vertical pass sums at a time, in registers */
#define RUN				32		/* samples that are converted at a time */
#define PAIR			8		/* samples of two pixels, whatever their bands */
#define LOBES			3		/* of the Lanczos window */
#define HALF			(1 << 19)	/* of what a sum across becomes a byte by */

/* Loops once more for processors with wider vectors, which the loader chooses. */
#if defined(__x86_64__) && defined(__gnu_linux__)
#define WIDE_VECTORS	__attribute__((target_clones("avx2", "default")))
#else
#define WIDE_VECTORS
#endif

/* One output position: weights of the inputs from first on. */
typedef struct Taps
{
	int			first;
	int16_t    *weights;
} Taps;

typedef struct Filter
{
	int			n_outputs;
	int			n_taps;			/* of each output, some of them 0 */
	Taps	   *taps;
	int16_t    *weights;
} Filter;

/* sinc(x) sinc(x / 3), given s = sin(pi x / 3): the sine of three times an angle is s (3 - 4 s^2). */
static double
lanczos(double x, double s)
{
	if (fabs(x) < 1e-6)
		return 1;
	if (fabs(x) >= LOBES)
		return 0;
	return LOBES * s * s * (3 - 4 * s * s) / (G_PI * G_PI * x * x);
}

/*
 * The filter from n_inputs to n_outputs, with weights that add up to one.
 * What would reach over an edge falls on the last input there.  Each output's
 * taps begin, and are, a multiple of unit: the last may be behind the inputs.
 */
static bool
make_filter(Filter *filter, int n_inputs, int n_outputs, int one, int unit)
{
	double		scale = (double) n_inputs / n_outputs;
	int			reach = (int) ceil(LOBES * scale);
	const double step = G_PI / LOBES / scale;	/* of the angle, from tap to tap */
	const double step_sine = sin(step);
	const double step_cosine = cos(step);
	double	   *exact;
	int			i;
	int			j;

	filter->n_outputs = n_outputs;
	filter->n_taps = (MIN(2 * reach + 1, n_inputs) + 2 * (unit - 1)) / unit * unit;
	filter->taps = g_try_new(Taps, n_outputs);
	filter->weights = g_try_new0(int16_t, (gsize) n_outputs * filter->n_taps);
	exact = g_try_new(double, filter->n_taps);
	if (filter->taps == NULL || filter->weights == NULL || exact == NULL)
	{
		g_free(exact);
		return false;
	}

	for (i = 0; i < n_outputs; i++)
	{
		Taps	   *taps = &filter->taps[i];
		double		center = (i + 0.5) * scale - 0.5;
		int			middle = (int) rint(center);
		double		sine = sin((middle - reach - center) * step);
		double		cosine = cos((middle - reach - center) * step);
		double		sum = 0;
		double		share;		/* of one, for each unit of an exact weight */
		int			rest = one;
		int			largest = 0;

		taps->first = CLAMP(middle - reach, 0, MAX(n_inputs - (2 * reach + 1), 0)) / unit * unit;
		taps->weights = filter->weights + (gsize) i * filter->n_taps;
		memset(exact, 0, sizeof(double) * filter->n_taps);
		for (j = middle - reach; j <= middle + reach; j++)
		{
			double		weight = lanczos((j - center) / scale, sine);
			double		next_sine = sine * step_cosine + cosine * step_sine;

			exact[CLAMP(j, 0, n_inputs - 1) - taps->first] += weight;
			sum += weight;
			cosine = cosine * step_cosine - sine * step_sine;
			sine = next_sine;
		}
		share = one / sum;
		for (j = 0; j < filter->n_taps; j++)
		{
			taps->weights[j] = (int16_t) lrint(CLAMP(exact[j] * share, INT16_MIN, INT16_MAX));
			rest -= taps->weights[j];
			if (taps->weights[j] > taps->weights[largest])
				largest = j;
		}
		taps->weights[largest] = (int16_t) MIN(taps->weights[largest] + rest, INT16_MAX);
	}
	g_free(exact);
	return true;
}

static void
free_filter(Filter *filter)
{
	g_free(filter->taps);
	g_free(filter->weights);
}

/* A row of pixels to 9.7 bits, colours weighted by the last band if that is alpha. */
WIDE_VECTORS
static void
widen_row(const uint8_t *restrict row, int width, int bands, bool alpha,
		  int16_t *restrict wide)
{
	const int	n_samples = width * bands;
	int			start = 0;
	int			x;
	int			band;

	if (!alpha)
	{
		/* Runs of a length that the compiler knows become vector instructions. */
		for (; start + RUN <= n_samples; start += RUN)
		{
			for (x = 0; x < RUN; x++)
				wide[start + x] = (int16_t) (row[start + x] << 7);
		}
		for (x = start; x < n_samples; x++)
			wide[x] = (int16_t) (row[x] << 7);
		return;
	}
	for (x = 0; x < width; x++, row += bands, wide += bands)
	{
		int			opacity = row[bands - 1];

		for (band = 0; band < bands - 1; band++)
			wide[band] = (int16_t) ((row[band] * opacity * 128 + 127) / 255);
		wide[bands - 1] = (int16_t) (opacity << 7);
	}
}

/*
 * Sums rows by their weights: from 9.7 bits by 1.15 bits to 10.6 bits.
 * Compilers turn the inner loops into a few vector instructions each.
 */
WIDE_VECTORS
static void
filter_down(const int16_t *const *rows, const int16_t *weights, int n_taps,
			bool alpha, int16_t *sums, int n_samples)
{
	/*
	 * Each product is cut off, by a half on average.  Where colours will be
	 * divided by alpha, that is cut off as well and evens it out.
	 */
	const int16_t rounding = alpha ? 0 : (int16_t) (n_taps / 2);
	int			start;
	int			tap;
	int			i;

	for (start = 0; start < n_samples; start += BLOCK)
	{
		int16_t		block[BLOCK];

#pragma GCC unroll 8
		for (i = 0; i < BLOCK; i++)
			block[i] = rounding;
		for (tap = 0; tap < n_taps; tap++)
		{
			const int16_t *row = rows[tap] + start;
			const int	weight = weights[tap];

#pragma GCC unroll 8
			for (i = 0; i < BLOCK; i++)
				block[i] = (int16_t) (block[i] + ((row[i] * weight) >> 16));
		}
		memcpy(sums + start, block, sizeof(block));
	}
}

/*
 * Interleaved bands to pairs of pixels: of each band both samples, side by
 * side, four bands long.  What is behind the last band is never looked at, and
 * up to four samples behind the last pixel are read.
 */
static void
pair_pixels(const int16_t *sums, int width, int bands, int16_t *pairs)
{
	int			x;

	for (x = 0; x < width; x += 2, sums += 2 * bands, pairs += PAIR)
	{
#ifdef __SSE2__
		_mm_storeu_si128((__m128i *) pairs,
						 _mm_unpacklo_epi16(_mm_loadl_epi64((const __m128i *) sums),
											_mm_loadl_epi64((const __m128i *) (sums + bands))));
#else
		int			band;

		for (band = 0; band < PAIR / 2; band++)
		{
			pairs[2 * band] = sums[band];
			pairs[2 * band + 1] = sums[bands + band];
		}
#endif
	}
}

/* Of one pixel, 10.6 bits by 2.14 bits; four bands, whatever is behind the last. */
#ifdef __SSE2__
typedef __m128i PixelSums;
#else
typedef struct PixelSums
{
	int			band[PAIR / 2];
} PixelSums;
#endif

static inline PixelSums
sum_pixel(const int16_t *pairs, const int16_t *weights, int n_taps)
{
	int			tap;

#ifdef __SSE2__
	PixelSums	sums = _mm_setzero_si128();

	for (tap = 0; tap < n_taps; tap += 2, pairs += PAIR)
	{
		int			both;

		memcpy(&both, weights + tap, sizeof(both));
		sums = _mm_add_epi32(sums, _mm_madd_epi16(_mm_loadu_si128((const __m128i *) pairs), _mm_set1_epi32(both)));
	}
#else
	PixelSums	sums = {{0}};
	int			band;

	for (tap = 0; tap < n_taps; tap += 2, pairs += PAIR)
	{
		for (band = 0; band < PAIR / 2; band++)
			sums.band[band] += pairs[2 * band] * weights[tap] + pairs[2 * band + 1] * weights[tap + 1];
	}
#endif
	return sums;
}

static uint8_t
to_byte(int value)
{
	return (uint8_t) CLAMP(value, 0, 255);
}

/* Four bytes, whatever the bands: the next pixel writes over those that are none of this one's. */
static inline void
write_opaque(PixelSums sums, uint8_t *pixel)
{
#ifdef __SSE2__
	__m128i		rounded = _mm_srai_epi32(_mm_add_epi32(sums, _mm_set1_epi32(HALF)), 20);
	int			bytes = _mm_cvtsi128_si32(_mm_packus_epi16(_mm_packs_epi32(rounded, rounded), rounded));

	memcpy(pixel, &bytes, sizeof(bytes));
#else
	int			band;

	for (band = 0; band < PAIR / 2; band++)
		pixel[band] = to_byte((sums.band[band] + HALF) >> 20);
#endif
}

static inline void
write_with_alpha(PixelSums sums, int bands, uint8_t *pixel)
{
	int			values[PAIR / 2];
	int			opacity;
	int			band;

	memcpy(values, &sums, sizeof(values));
	opacity = values[bands - 1];
	for (band = 0; band < bands - 1; band++)
		pixel[band] = opacity < HALF ? 0 : to_byte((int) rint(255.0 * values[band] / opacity));
	pixel[bands - 1] = to_byte((opacity + HALF) >> 20);
}

/* Writes a row of the output and up to three bytes behind it. */
static void
filter_across(const Filter *filter, const int16_t *pairs, int bands, bool alpha, uint8_t *row)
{
	int			x;

	for (x = 0; x < filter->n_outputs; x++, row += bands)
	{
		const Taps *taps = &filter->taps[x];
		PixelSums	sums = sum_pixel(pairs + (size_t) taps->first / 2 * PAIR, taps->weights, filter->n_taps);

		if (alpha)
			write_with_alpha(sums, bands, row);
		else
			write_opaque(sums, row);
	}
}

/*
 * What one scaling needs; the ring holds the input rows that are in reach, and
 * the rest of the strip that the last of them came in.
 */
typedef struct Scaling
{
	VipsImage  *input;
	Filter		across;
	Filter		down;
	size_t		stride;			/* samples in a row of the ring */
	int			n_ring;			/* rows of the ring */
	int16_t    *ring;
	const int16_t **rows;		/* those of one output, from the top */
	int16_t    *sums;
	int16_t    *pairs;

	GMutex		lock;			/* for all that follows */
	int			n_read;			/* rows of the input */
	int			n_made;			/* rows of the output */
	bool		failed;
	size_t		line_size;
	uint8_t    *lines;			/* the output */
} Scaling;

static void
free_scaling(VipsImage *output, Scaling *scaling)
{
	(void) output;
	g_object_unref(scaling->input);
	free_filter(&scaling->across);
	free_filter(&scaling->down);
	g_free(scaling->ring);
	g_free(scaling->rows);
	g_free(scaling->sums);
	g_free(scaling->pairs);
	g_free(scaling->lines);
	g_mutex_clear(&scaling->lock);
	g_free(scaling);
}

static bool
prepare(Scaling *scaling, int width, int height)
{
	int			input_width = vips_image_get_width(scaling->input);
	int			bands = vips_image_get_bands(scaling->input);

	/* Whole blocks, so that the inner loop has no end to look after. */
	scaling->stride = ((size_t) input_width * bands + BLOCK - 1) / BLOCK * BLOCK;
	if (!make_filter(&scaling->across, input_width, width, 1 << 14, 2) ||
		!make_filter(&scaling->down, vips_image_get_height(scaling->input), height, 1 << 15, 1))
		return false;
	scaling->n_ring = scaling->down.n_taps + STRIP_ROWS;
	scaling->ring = g_try_new0(int16_t, scaling->stride * scaling->n_ring);
	scaling->rows = g_try_new(const int16_t *, scaling->down.n_taps);
	scaling->sums = g_try_new0(int16_t, scaling->stride + PAIR);
	scaling->pairs = g_try_new0(int16_t, ((size_t) input_width + scaling->across.n_taps + 2) / 2 * PAIR);
	scaling->line_size = (size_t) width * bands;
	scaling->lines = g_try_malloc(scaling->line_size * height + PAIR / 2);
	return scaling->ring != NULL && scaling->rows != NULL && scaling->sums != NULL &&
		scaling->pairs != NULL && scaling->lines != NULL;
}

/* Reads strips of the input until its rows before end are there. */
static bool
read_rows(Scaling *scaling, VipsRegion *region, int end)
{
	int			width = vips_image_get_width(scaling->input);
	int			height = vips_image_get_height(scaling->input);
	int			bands = vips_image_get_bands(scaling->input);
	bool		alpha = vips_image_hasalpha(scaling->input);

	while (scaling->n_read < end)
	{
		VipsRect	strip = {0, scaling->n_read, width, MIN(STRIP_ROWS, height - scaling->n_read)};

		if (vips_region_prepare(region, &strip) != 0)
			return false;
		for (; scaling->n_read < VIPS_RECT_BOTTOM(&strip); scaling->n_read++)
			widen_row(VIPS_REGION_ADDR(region, 0, scaling->n_read), width, bands, alpha,
					  scaling->ring + (scaling->n_read % scaling->n_ring) * scaling->stride);
	}
	return true;
}

/* Makes rows of the output until those before end are there. */
static bool
make_rows(Scaling *scaling, VipsRegion *region, int end)
{
	int			width = vips_image_get_width(scaling->input);
	int			bands = vips_image_get_bands(scaling->input);
	bool		alpha = vips_image_hasalpha(scaling->input);
	const Filter *down = &scaling->down;
	int			tap;

	for (; scaling->n_made < end; scaling->n_made++)
	{
		const Taps *taps = &down->taps[scaling->n_made];

		if (!read_rows(scaling, region, taps->first + down->n_taps))
			return false;
		for (tap = 0; tap < down->n_taps; tap++)
			scaling->rows[tap] = scaling->ring +
				((taps->first + tap) % scaling->n_ring) * scaling->stride;
		filter_down(scaling->rows, taps->weights, down->n_taps, alpha,
					scaling->sums, (int) scaling->stride);
		pair_pixels(scaling->sums, width, bands, scaling->pairs);
		filter_across(&scaling->across, scaling->pairs, bands, alpha,
					  scaling->lines + scaling->n_made * scaling->line_size);
	}
	return true;
}

/* As libvips calls it for an area of the output; the sequence is a region of the input. */
static int
generate(VipsRegion *area, void *sequence, void *input, void *data, gboolean *stop)
{
	Scaling    *scaling = data;
	const VipsRect *rect = &area->valid;
	size_t		bands = vips_image_get_bands(area->im);
	bool		done;
	int			y;

	(void) input;
	(void) stop;
	g_mutex_lock(&scaling->lock);
	done = !scaling->failed && make_rows(scaling, sequence, VIPS_RECT_BOTTOM(rect));
	scaling->failed = !done;
	g_mutex_unlock(&scaling->lock);

	for (y = rect->top; done && y < VIPS_RECT_BOTTOM(rect); y++)
		memcpy(VIPS_REGION_ADDR(area, rect->left, y),
			   scaling->lines + y * scaling->line_size + rect->left * bands, rect->width * bands);
	return done ? 0 : -1;
}

bool
codec_can_scale(VipsImage *image, int width, int height)
{
	return vips_image_get_format(image) == VIPS_FORMAT_UCHAR &&
		vips_image_get_coding(image) == VIPS_CODING_NONE &&
		vips_image_get_bands(image) <= 4 &&
		width <= vips_image_get_width(image) &&
		height <= vips_image_get_height(image);
}

/* An image with all that is known of the input; as libvips, 0 or -1. */
int
codec_scale(VipsImage *input, VipsImage **output, int width, int height)
{
	Scaling    *scaling = g_new0(Scaling, 1);
	VipsImage  *scaled = vips_image_new();

	scaling->input = g_object_ref(input);
	g_mutex_init(&scaling->lock);
	g_signal_connect(scaled, "postclose", G_CALLBACK(free_scaling), scaling);
	if (!prepare(scaling, width, height))
	{
		vips_error("scale", "out of memory");
		g_object_unref(scaled);
		return -1;
	}
	if (codec_generate(scaled, input, width, height, generate, scaling) != 0)
	{
		g_object_unref(scaled);
		return -1;
	}
	vips_image_remove(scaled, VIPS_META_SEQUENTIAL);
	*output = scaled;
	return 0;
}
