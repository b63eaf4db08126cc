/*
 * codec_pages.c
 *		Which pages of the input go into an output, and each by itself.
 *
 * libvips has the pages of an image one below the other, as one tall image.
 * Here they are taken apart, led through the pipeline one by one, so that no
 * operation need know of them, and joined again.  What an operation sees in
 * the first page, such as a border to trim, holds for all: see
 * Output.choices.
 */
#include "decoder/codec_internal.h"

static bool
is_animation(ImageFormat format)
{
	return format == IMAGE_FORMAT_GIF || format == IMAGE_FORMAT_WEBP;
}

static const PipelineStep *
find_pages_step(const Pipeline *pipeline)
{
	int			i;

	for (i = 0; i < pipeline->n_steps; i++)
	{
		if (pipeline->steps[i].operation == OPERATION_PAGES)
			return &pipeline->steps[i];
	}
	return NULL;
}

/* Sets the pages of an output whose encoder is known. */
bool
codec_plan_pages(Work *work, Output *output)
{
	const ImageFacts *facts = &work->reply->facts;
	const PipelineStep *step = find_pages_step(output->pipeline);
	ImageFormat format = codec_output_format(output);
	int			n_pages = (int) facts->pages;
	int			first;
	int			last;

	output->first_page = 0;
	output->n_pages = 1;
	if (step == NULL)
	{
		if (is_animation(facts->format) && is_animation(format))
			output->n_pages = n_pages;
		return true;
	}

	first = (int) step_number(step, PAGES_FIRST);
	last = step_given(step, PAGES_LAST) ? MIN((int) step_number(step, PAGES_LAST), n_pages) : first;
	if (first > n_pages)
		return codec_fail(work->reply, DECODER_INVALID_OPERATION,
						  "there is no page %d in an image of %d", first, n_pages);
	if (last > first && !is_animation(format) && format != IMAGE_FORMAT_TIFF)
		return codec_fail(work->reply, DECODER_INVALID_OPERATION,
						  "format %s holds one page, not pages %d to %d; use gif, webp or tiff",
						  image_format_name(format), first, last);
	output->first_page = first - 1;
	output->n_pages = last - first + 1;
	return true;
}

/* A page of a tall image, as an image that knows nothing of pages. */
static bool
take_page(Canvas *canvas, VipsImage *pages, int page)
{
	int			height = vips_image_get_page_height(pages);
	VipsImage  *area = NULL;
	VipsImage  *alone = NULL;

	if (!codec_replace(canvas, &area,
					   vips_extract_area(pages, &area, 0, page * height,
										 vips_image_get_width(pages), height, NULL),
					   "could not take a page of") ||
		!codec_replace(canvas, &alone, vips_copy(canvas->image, &alone, NULL),
					   "could not take a page of"))
		return false;
	vips_image_remove(canvas->image, VIPS_META_PAGE_HEIGHT);
	vips_image_remove(canvas->image, VIPS_META_N_PAGES);
	return true;
}

/*
 * Joins the pages again.  Of an animation each has the time that it is shown;
 * libvips counts these from the file's first page on.
 */
static bool
join_pages(Canvas *canvas, VipsImage *source, VipsImage **pages, int n_pages, int first)
{
	VipsImage  *joined = NULL;
	VipsImage  *copy = NULL;
	int			height = vips_image_get_height(pages[0]);
	int		   *delays;
	int			n_delays;

	if (!codec_replace(canvas, &joined,
					   vips_arrayjoin(pages, &joined, n_pages, "across", 1, NULL),
					   "could not join the pages of") ||
		!codec_replace(canvas, &copy, vips_copy(canvas->image, &copy, NULL),
					   "could not join the pages of"))
		return false;
	vips_image_set_int(canvas->image, VIPS_META_PAGE_HEIGHT, height);
	vips_image_set_int(canvas->image, VIPS_META_N_PAGES, n_pages);
	if (vips_image_get_typeof(source, "delay") != 0 &&
		vips_image_get_array_int(source, "delay", &delays, &n_delays) == 0 &&
		n_delays >= first + n_pages)
		vips_image_set_array_int(canvas->image, "delay", delays + first, n_pages);
	return true;
}

/* Leads one page to its end, in memory: *result is the caller's then. */
static bool
run_page(const Canvas *canvas, int page, VipsImage **result)
{
	Canvas		one = *canvas;
	bool		done;

	g_object_ref(one.image);
	done = take_page(&one, canvas->image, page) &&
		codec_run_steps(&one) && codec_compute(&one);
	if (done)
		*result = one.image;
	else
		g_object_unref(one.image);
	return done;
}

/* All steps, on each page that the output has; first_loaded is the canvas' first. */
bool
codec_run_pages(Canvas *canvas, int first_loaded)
{
	int			first = canvas->output->first_page;
	int			n_pages = canvas->output->n_pages;
	VipsImage **pages;
	bool		done = true;
	int			i;

	if (n_pages == 1)
	{
		bool		alone = vips_image_get_page_height(canvas->image) ==
			vips_image_get_height(canvas->image);

		return (alone || take_page(canvas, canvas->image, first - first_loaded)) &&
			codec_run_steps(canvas);
	}

	/* Strips of rows that reach over a page's end would be read twice. */
	if (!codec_need_random_access(canvas))
		return false;
	pages = g_new0(VipsImage *, n_pages);
	for (i = 0; i < n_pages && done; i++)
	{
		done = run_page(canvas, first - first_loaded + i, &pages[i]);
		if (done && i == 0)
			done = codec_check_size(canvas, vips_image_get_width(pages[0]),
									(double) vips_image_get_height(pages[0]) * n_pages);
	}
	if (done)
	{
		VipsImage  *source = g_object_ref(canvas->image);

		done = join_pages(canvas, source, pages, n_pages, first);
		canvas->streaming = false;
		canvas->settled = true;
		g_object_unref(source);
	}
	for (i = 0; i < n_pages; i++)
		g_clear_object(&pages[i]);
	g_free(pages);
	return done;
}
