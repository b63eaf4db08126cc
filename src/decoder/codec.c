/*
 * codec.c
 *		Probe and process: the two jobs of the decoder.
 *
 * The codec's other files: codec_load.c opens images, codec_pages.c chooses
 * their pages, codec_operations.c leads them through a pipeline (the
 * operations by kind in codec_geometry.c, codec_filter.c, codec_color.c,
 * codec_compose.c and codec_text.c, what libvips does not do well in
 * codec_scale.c, codec_median.c and codec_clahe.c), codec_keep.c and
 * codec_save.c encode them.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE				/* dladdr() */
#endif
#include <ctype.h>
#include <dlfcn.h>
#include <malloc.h>
#include <stdarg.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <gmodule.h>

#include "decoder/codec_internal.h"

/* After larger images than this, freed memory goes back to the system. */
#define TRIM_PIXELS		(8 * 1024 * 1024)

/*
 * Nobody reads what libraries log.  After a fatal message GLib ends the process by
 * a trap, most often because memory has run out: the exit code tells PostgreSQL.
 */
static void
discard_message(GLogLevelFlags level, const char *message)
{
	if ((level & (G_LOG_LEVEL_ERROR | G_LOG_FLAG_FATAL)) == 0)
		return;
	_exit(message != NULL && (strstr(message, "alloc") != NULL || strstr(message, "thread") != NULL) ?
		  DECODER_EXIT_OUT_OF_MEMORY : DECODER_EXIT_GAVE_UP);
}

static void
discard_log(const gchar *domain, GLogLevelFlags level, const gchar *message,
			gpointer data)
{
	(void) domain;
	(void) data;
	discard_message(level, message);
}

static GLogWriterOutput
discard_structured_log(GLogLevelFlags level, const GLogField *fields,
					   gsize n_fields, gpointer data)
{
	const char *message = NULL;
	gsize		i;

	(void) data;
	for (i = 0; i < n_fields; i++)
	{
		if (strcmp(fields[i].key, "MESSAGE") == 0)
			message = fields[i].value;
	}
	discard_message(level, message);
	return G_LOG_WRITER_HANDLED;
}

/*
 * libvips has HEIC and AVIF in a module of their own on most systems.  Where
 * it is not there, the formats are built in or missing.
 */
static void
load_heif_module(void)
{
	Dl_info		info;
	gchar	   *folder;
	gchar	   *path;

	if (dladdr((void *) vips_init, &info) == 0)
		return;
	folder = g_path_get_dirname(info.dli_fname);
	path = g_strdup_printf("%s/vips-modules-%d.%d/vips-heif.so", folder,
						   vips_version(0), vips_version(1));
	(void) g_module_open(path, G_MODULE_BIND_LOCAL);
	g_free(path);
	g_free(folder);
}

/*
 * Takes one operation off the list of the blocked, by the name that libvips
 * documents: its class changes with the library that libvips was built with.
 */
void
codec_allow_operation(const char *name)
{
	GType		type = vips_type_find("VipsOperation", name);

	if (type != 0)
		vips_operation_block_set(g_type_name(type), FALSE);
}

/*
 * Savers ask for strips, and each wakes three threads: of the 16 rows that
 * libvips prefers, that takes longer than a small image is worth.  Its buffers
 * have 128 rows for one thread anyway.
 */
static void
prefer_high_strips(void)
{
	gchar	   *arguments[] = {"imgpipe-decoder", "--vips-fatstrip-height=64", NULL};
	gchar	  **left = arguments;
	int			n = G_N_ELEMENTS(arguments) - 1;
	GOptionContext *context = g_option_context_new(NULL);
	GOptionGroup *group = g_option_group_new("vips", "", "", NULL, NULL);

	vips_add_option_entries(group);
	g_option_context_set_main_group(context, group);
	(void) g_option_context_parse(context, &n, &left, NULL);
	g_option_context_free(context);
}

bool
codec_start(char *message, size_t size)
{
	VipsImage  *image;

	g_log_set_default_handler(discard_log, NULL);
	g_log_set_writer_func(discard_structured_log, NULL, NULL);

	/*
	 * Without modules: ImageMagick, poppler and OpenSlide would be loaded too,
	 * which takes most of the start and is of no use here.  libvips looks for
	 * its modules below this folder.
	 */
	g_setenv("VIPSHOME", "/nonexistent", TRUE);
	prepare_run_time_compiler();
	if (vips_init("imgpipe-decoder") != 0)
	{
		g_snprintf(message, size, "could not start libvips: %s", vips_error_buffer());
		return false;
	}
	load_heif_module();

	/*
	 * Only what this program calls.  Threads cost more than they give where
	 * each backend and worker has a decoder; no operation is ever repeated.
	 */
	vips_block_untrusted_set(TRUE);
	codec_allow_loaders();
	codec_allow_savers();
	prefer_high_strips();
	vips_concurrency_set(1);
	vips_cache_set_max(0);
	vips_cache_set_max_mem(0);
	vips_cache_set_max_files(0);

	forbid_run_time_compiler();

	/* What is read from files on first use: time zone, fonts, libheif's plugins. */
	tzset();
	codec_load_fonts();
	if (vips_type_find("VipsOperation", "heifload_buffer") != 0 &&
		vips_heifload_buffer((void *) "\0\0\0\014ftypavif", 12, &image, NULL) == 0)
		g_object_unref(image);
	vips_error_clear();
	return true;
}

const char *
codec_version(void)
{
	return vips_version_string();
}

bool
codec_fail(DecoderReply *reply, DecoderStatus status, const char *format,...)
{
	va_list		arguments;

	reply->status = status;
	va_start(arguments, format);
	g_vsnprintf(reply->message, sizeof(reply->message), format, arguments);
	va_end(arguments);
	vips_error_clear();
	return false;
}

/*
 * The first line that libvips and its libraries wrote is the one nearest to
 * the cause: "VipsJpeg: Premature end of input file".  Without the domain,
 * and with nothing in it that an attacker could have made unprintable.
 */
static void
first_error(char *text, size_t size)
{
	const char *start = vips_error_buffer();
	const char *end;
	const char *colon;
	size_t		length;
	size_t		i;

	while (isspace((unsigned char) *start))
		start++;
	end = start + strcspn(start, "\r\n");
	while ((colon = memchr(start, ':', end - start)) != NULL && colon + 1 < end &&
		   colon[1] == ' ' && memchr(start, ' ', colon - start) == NULL)
		start = colon + 2;
	while (end > start && (isspace((unsigned char) end[-1]) || end[-1] == '.'))
		end--;

	length = MIN((size_t) (end - start), size - 1);
	for (i = 0; i < length; i++)
		text[i] = isprint((unsigned char) start[i]) ? start[i] : '?';
	text[length] = '\0';
	if (length > 1 && islower((unsigned char) text[1]))
		text[0] = tolower((unsigned char) text[0]);
}

/*
 * Something in libvips failed.  Its errors have no codes: running out of
 * memory and what a library was not built for show in the text alone.
 */
bool
codec_fail_libvips(DecoderReply *reply, DecoderStatus status, const char *what)
{
	/* The last ones are all that is heard of libwebp, and of libaom, when they run out of it. */
	static const char *const memory_signs[] = {
		"out of memory", "insufficient memory", "cannot allocate", "memory allocation",
		"not enough memory", "failed to allocate",
		"picture memory error", "unable to encode", "failed to initialize encoder", "bufferpool() failed"
	};
	static const char *const unsupported_signs[] = {
		"unsupported", "not supported", "not implemented", "not configured", "samples out of range"
	};
	const char *format = image_format_name(reply->facts.format);
	char		text[DECODER_MESSAGE_SIZE / 2];
	gchar	   *errors = g_ascii_strdown(vips_error_buffer(), -1);
	size_t		i;

	for (i = 0; i < G_N_ELEMENTS(memory_signs); i++)
	{
		if (strstr(errors, memory_signs[i]) != NULL)
			status = DECODER_OUT_OF_MEMORY;
	}
	for (i = 0; i < G_N_ELEMENTS(unsupported_signs) && status == DECODER_CORRUPT; i++)
	{
		if (strstr(errors, unsupported_signs[i]) != NULL)
			status = DECODER_UNSUPPORTED;
	}
	g_free(errors);
	first_error(text, sizeof(text));

	if (status == DECODER_OUT_OF_MEMORY)
		return codec_fail(reply, status, "%s image needs more memory than the decoder may use", format);
	if (status == DECODER_UNSUPPORTED)
		return codec_fail(reply, status, "unsupported kind of %s image: %s", format, text);
	return codec_fail(reply, status, "%s %s image: %s", what, format,
					  text[0] != '\0' ? text : "unknown error");
}

bool
codec_check_limit(DecoderReply *reply, DecoderLimit limit, uint64_t value,
				  uint64_t maximum)
{
	static const char *const units[] = {
		[DECODER_LIMIT_PIXELS] = "image has %" G_GUINT64_FORMAT " pixels, over the limit of %" G_GUINT64_FORMAT,
		[DECODER_LIMIT_PAGES] = "image has %" G_GUINT64_FORMAT " pages, over the limit of %" G_GUINT64_FORMAT,
		[DECODER_LIMIT_OUTPUT_PIXELS] = "result would have %" G_GUINT64_FORMAT " pixels, over the limit of %" G_GUINT64_FORMAT,
	};

	if (value <= maximum)
		return true;
	reply->limit = limit;
	reply->value = value;
	return codec_fail(reply, DECODER_LIMIT, units[limit], value, maximum);
}

/* Everything that can be known of an input without decoding a pixel. */
bool
codec_read_input(const DecoderRequest *request, const CodecBytes *input,
				 DecoderReply *reply, VipsImage **image)
{
	int			format;

	if (!codec_identify(input, reply))
		return false;

	format = reply->facts.format;
	if ((request->allowed_formats & (UINT32_C(1) << format)) == 0)
	{
		reply->limit = DECODER_LIMIT_FORMAT;
		reply->value = format;
		return codec_fail(reply, DECODER_LIMIT, "image format %s is not allowed",
						  image_format_name(format));
	}

	if (!codec_open(input, reply, 1, image))
		return false;
	codec_read_facts(*image, &reply->facts);
	if (!codec_check_limits(request, reply))
	{
		g_clear_object(image);
		return false;
	}
	return true;
}

bool
codec_read_header(const CodecJob *job, DecoderReply *reply, VipsImage **image)
{
	return codec_read_input(job->request, &job->inputs[0], reply, image);
}

void
codec_probe(const CodecJob *job, DecoderReply *reply)
{
	int			n_outputs = job->request->n_outputs;
	VipsImage  *image;
	int			i;

	/* Where one input is refused, the others do not matter. */
	for (i = 0; i < MAX(n_outputs, 1) && codec_read_input(job->request, &job->inputs[i], reply, &image); i++)
	{
		g_object_unref(image);
		if (n_outputs == 0)
			continue;
		reply->output_facts[i] = reply->facts;
		memset(&reply->facts, 0, sizeof(reply->facts));
		reply->n_outputs = i + 1;
	}
	if (n_outputs > 0 && reply->status == DECODER_OK)
		reply->facts = reply->output_facts[0];
	vips_error_clear();
}

/* The facts of an output are what a probe of it would say. */
static bool
read_output_facts(const void *bytes, size_t length, DecoderReply *reply,
				  ImageFacts *facts)
{
	CodecBytes	output = {bytes, length};
	DecoderReply probe = {0};
	VipsImage  *image;

	if (!codec_identify(&output, &probe) || !codec_open(&output, &probe, 1, &image))
		return codec_fail(reply, probe.status == DECODER_OUT_OF_MEMORY ? DECODER_OUT_OF_MEMORY : DECODER_FAILED,
						  "could not read back the result: %s", probe.message);
	codec_read_facts(image, &probe.facts);
	g_object_unref(image);
	*facts = probe.facts;
	return true;
}

static bool
make_output(Work *work, Output *output, VipsImage *image, int first_loaded, int number)
{
	DecoderReply *reply = work->reply;
	Canvas		canvas = codec_start_canvas(work, output, image);
	void	   *bytes = NULL;
	size_t		length = 0;
	bool		done;

	done = codec_run_pages(&canvas, first_loaded) &&
		codec_save(&canvas, &bytes, &length) &&
		read_output_facts(bytes, length, reply, &reply->output_facts[number]);
	g_object_unref(canvas.image);
	if (done && !work->job->write(bytes, length))
		done = codec_fail(reply, DECODER_OUT_OF_MEMORY, "no room for the result");
	g_free(bytes);
	reply->output_length[number] = length;
	return done;
}

/*
 * Opens the input for its outputs, with all pages that one of them needs, and
 * as small as all of them allow.  One output streams from the loader, several
 * share one decoded image in memory.
 */
static bool
open_for_outputs(Work *work, const Output *outputs, VipsImage **image, int *first_loaded)
{
	const CodecBytes *input = &work->job->inputs[0];
	const ImageFacts *facts = &work->reply->facts;
	int			n_outputs = work->job->request->n_outputs;
	double		shrink = G_MAXDOUBLE;
	int			first = INT_MAX;
	int			end = 0;
	VipsImage  *copy;
	int			i;

	for (i = 0; i < n_outputs; i++)
	{
		bool		swapped = outputs[i].upright && facts->orientation >= 5;

		shrink = MIN(shrink, codec_useful_shrink(outputs[i].pipeline,
												 swapped ? facts->height : facts->width,
												 swapped ? facts->width : facts->height));
		first = MIN(first, outputs[i].first_page);
		end = MAX(end, outputs[i].first_page + outputs[i].n_pages);
	}
	if (first > 0 || end > 1 || shrink > 1)
	{
		bool		one = first == 0 && end == 1;

		g_clear_object(image);
		if (!codec_open_pages(input, work->reply, shrink, first, one ? 0 : end - first, image))
			return false;
	}
	*first_loaded = first;
	if (n_outputs > 1)
	{
		copy = vips_image_copy_memory(*image);
		if (copy == NULL)
			return codec_fail_libvips(work->reply, DECODER_CORRUPT, "invalid");
		g_object_unref(*image);
		*image = copy;
	}
	return true;
}

static void
process_all(Work *work, const Pipeline *pipelines, Output *outputs, VipsImage **image)
{
	int			n_outputs = work->job->request->n_outputs;
	int			first_loaded = 0;
	bool		done = true;
	int			i;

	for (i = 0; i < n_outputs && done; i++)
	{
		done = codec_plan_output(work, &pipelines[i], &outputs[i]);
		work->reply->failed_output = i;
	}
	done = done && open_for_outputs(work, outputs, image, &first_loaded);
	for (i = 0; i < n_outputs && done; i++)
	{
		done = make_output(work, &outputs[i], *image, first_loaded, i);
		work->reply->failed_output = i;
	}
	if (done)
	{
		work->reply->n_outputs = n_outputs;
		work->reply->failed_output = 0;
	}
}

void
codec_process(const CodecJob *job, DecoderReply *reply)
{
	int			n_outputs = job->request->n_outputs;
	Pipeline   *pipelines = g_new(Pipeline, n_outputs);
	Output	   *outputs = g_new0(Output, n_outputs);
	Work		work = {.job = job, .reply = reply};
	PipelineError error;
	VipsImage  *image = NULL;
	bool		parsed = true;
	int			i;

	for (i = 0; i < n_outputs && parsed; i++)
	{
		parsed = pipeline_parse(job->pipelines[i].bytes, job->pipelines[i].length,
								&pipelines[i], &error);
		if (!parsed)
		{
			reply->failed_output = i;
			codec_fail(reply, DECODER_INVALID_OPERATION, "invalid pipeline: %s",
					   error.message);
		}
	}

	if (parsed && codec_read_header(job, reply, &image))
		process_all(&work, pipelines, outputs, &image);

	g_clear_object(&image);
	for (i = 0; i < DECODER_MAX_INPUTS; i++)
		g_clear_object(&work.others[i]);
	g_free(outputs);
	g_free(pipelines);
	vips_error_clear();
	if ((uint64_t) reply->facts.width * reply->facts.height * reply->facts.pages > TRIM_PIXELS)
		malloc_trim(0);
}
