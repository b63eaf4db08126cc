/*
 * vips_loop.c
 *		The rival of process_image(): the same job in a plain C loop.
 *
 * What a libvips programmer would write by hand, in one process, with no
 * sandbox, no protocol and no database: files are read beforehand, then each
 * is decoded with shrink-on-load, resized and encoded, over and over.
 * Independent of the decoder's own code on purpose.
 *
 *		vips_loop [--width=256] [--format=webp] [--quality=80]
 *				  [--iterations=10] [--threads=1] file...
 *
 * Prints one line: images per second, milliseconds per image, output bytes
 * and the libvips version.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <vips/vips.h>

typedef struct Input
{
	char	   *bytes;
	gsize		length;
} Input;

typedef struct Task
{
	int			width;
	int			quality;
	const char *format;
} Task;

static double
now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (double) time.tv_sec + (double) time.tv_nsec / 1e9;
}

/* The image at about its final size or above, ready for a resize. */
static VipsImage *
load(const Input *input, const Task *task)
{
	VipsImage  *header;
	VipsImage  *image;
	int			shrink = 1;

	if (!vips_foreign_find_load_buffer(input->bytes, input->length) ||
		strcmp(vips_foreign_find_load_buffer(input->bytes, input->length),
			   "VipsForeignLoadJpegBuffer") != 0)
	{
		image = vips_image_new_from_buffer(input->bytes, input->length, "",
										   "access", VIPS_ACCESS_SEQUENTIAL,
										   NULL);
		return image;
	}

	if (vips_jpegload_buffer(input->bytes, input->length, &header,
							 "access", VIPS_ACCESS_SEQUENTIAL, NULL) != 0)
		return NULL;
	/* Leave a factor of 1.5 to the resize, as process_image() does; vips_thumbnail() leaves 2. */
	while (shrink < 8 && vips_image_get_width(header) >= 1.5 * (shrink * 2) * task->width)
		shrink *= 2;
	g_object_unref(header);
	if (vips_jpegload_buffer(input->bytes, input->length, &image,
							 "access", VIPS_ACCESS_SEQUENTIAL,
							 "fail_on", VIPS_FAIL_ON_ERROR,
							 "shrink", shrink, NULL) != 0)
		return NULL;
	return image;
}

/* Length of the encoded output, 0 for failure. */
static size_t
run(const Input *input, const Task *task)
{
	VipsImage  *image = load(input, task);
	VipsImage  *small;
	VipsImage  *converted;
	void	   *output = NULL;
	size_t		length = 0;
	int			failed;

	if (image == NULL)
		return 0;
	failed = vips_resize(image, &small,
						 (double) task->width / vips_image_get_width(image), NULL);
	g_object_unref(image);
	if (failed)
		return 0;
	/* As process_image() and sharp do: the outputs have no profile. */
	if (vips_image_get_typeof(small, VIPS_META_ICC_NAME) != 0)
	{
		failed = vips_icc_transform(small, &converted, "srgb", "embedded", TRUE, NULL);
		g_object_unref(small);
		if (failed)
			return 0;
		small = converted;
	}

	if (strcmp(task->format, "jpeg") == 0)
		failed = vips_jpegsave_buffer(small, &output, &length,
									  "Q", task->quality, "strip", TRUE, NULL);
	else if (strcmp(task->format, "png") == 0)
		failed = vips_pngsave_buffer(small, &output, &length, "strip", TRUE, NULL);
	else
		failed = vips_webpsave_buffer(small, &output, &length,
									  "Q", task->quality, "strip", TRUE, NULL);
	g_object_unref(small);
	g_free(output);
	return failed ? 0 : length;
}

int
main(int argc, char **argv)
{
	Task		task = {256, 80, NULL};
	int			iterations = 10;
	int			threads = 1;
	gchar	   *format = NULL;
	gchar	  **files = NULL;
	GOptionEntry entries[] = {
		{"width", 0, 0, G_OPTION_ARG_INT, &task.width, "width of the output in pixels", "N"},
		{"format", 0, 0, G_OPTION_ARG_STRING, &format, "webp, jpeg or png", "NAME"},
		{"quality", 0, 0, G_OPTION_ARG_INT, &task.quality, "quality of the output", "N"},
		{"iterations", 0, 0, G_OPTION_ARG_INT, &iterations, "rounds over all files", "N"},
		{"threads", 0, 0, G_OPTION_ARG_INT, &threads, "libvips threads", "N"},
		{G_OPTION_REMAINING, 0, 0, G_OPTION_ARG_FILENAME_ARRAY, &files, NULL, NULL},
		G_OPTION_ENTRY_NULL
	};
	GOptionContext *context = g_option_context_new("file...");
	GError	   *error = NULL;
	Input	   *inputs;
	size_t		bytes = 0;
	double		start;
	double		seconds;
	int			n_files;
	int			i;
	int			j;

	g_option_context_add_main_entries(context, entries, NULL);
	if (!g_option_context_parse(context, &argc, &argv, &error) || files == NULL)
	{
		fprintf(stderr, "vips_loop: %s\n", error ? error->message : "no files");
		return 2;
	}
	g_option_context_free(context);
	task.format = format ? format : "webp";

	if (VIPS_INIT(argv[0]) != 0)
		return 1;
	vips_concurrency_set(threads);
	vips_cache_set_max(0);

	n_files = (int) g_strv_length(files);
	inputs = g_new0(Input, n_files);
	for (i = 0; i < n_files; i++)
	{
		if (!g_file_get_contents(files[i], &inputs[i].bytes, &inputs[i].length, &error))
		{
			fprintf(stderr, "vips_loop: %s\n", error->message);
			return 1;
		}
		/* One round outside the clock warms the caches. */
		if (run(&inputs[i], &task) == 0)
		{
			fprintf(stderr, "vips_loop: %s: %s\n", files[i], vips_error_buffer());
			return 1;
		}
	}

	start = now();
	for (j = 0; j < iterations; j++)
		for (i = 0; i < n_files; i++)
			bytes += run(&inputs[i], &task);
	seconds = now() - start;

	printf("%.1f images/s, %.3f ms each, %zu bytes, libvips %s\n",
		   iterations * n_files / seconds,
		   1000 * seconds / (iterations * n_files),
		   bytes, vips_version_string());
	for (i = 0; i < n_files; i++)
		g_free(inputs[i].bytes);
	g_free(inputs);
	g_strfreev(files);
	g_free(format);
	vips_shutdown();
	return 0;
}
