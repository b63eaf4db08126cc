/*
 * codec_internal.h
 *		What the codec's files share: load, transform, save.
 *
 * Functions that return bool have filled in the reply's status and message
 * where they return false.
 */
#ifndef IMGPIPE_CODEC_INTERNAL_H
#define IMGPIPE_CODEC_INTERNAL_H

#include <vips/vips.h>

#include "decoder/codec.h"
#include "decoder/codec_versions.h"
#include "pipeline/pipeline.h"

/* Of an image, in pixels. */
typedef struct Area
{
	int			left;
	int			top;
	int			width;
	int			height;
} Area;

/* A colour, in as many numbers as an image has bands. */
typedef struct Ink
{
	double		values[4];
	int			n;
} Ink;

/*
 * One request.  Inputs behind the first are decoded when an operation asks
 * for them, once for all outputs.
 */
typedef struct Work
{
	const CodecJob *job;
	DecoderReply *reply;
	VipsImage  *others[DECODER_MAX_INPUTS];
	uint64_t	other_pixels;
} Work;

/* One output: what its pipeline says of it as a whole. */
typedef struct Output
{
	const Pipeline *pipeline;
	PipelineStep encoder;		/* never OPERATION_AUTO */
	bool		replaced;		/* it stands for one that cannot be written */
	bool		upright;		/* the EXIF orientation is applied */
	KeptMetadata kept;
	bool		keep_gps;
	int			first_page;		/* from 0 on */
	int			n_pages;

	/* What the first page's picture led to, so that all are cut alike. */
	Area		choices[PIPELINE_MAX_STEPS];
} Output;

/*
 * An image, or one page of it, on its way through a pipeline.  libvips
 * computes lazily, so most steps only describe work; pixels flow when the
 * encoder pulls them.
 */
typedef struct Canvas
{
	VipsImage  *image;			/* owned */
	Work	   *work;
	Output	   *output;
	const DecoderRequest *request;	/* work's */
	DecoderReply *reply;		/* work's, but for an input behind the first */
	int			step;			/* of output's pipeline */

	/* The whole page as it is shown, before any shrinking by the loader. */
	int			width;
	int			height;

	int			orientation;	/* EXIF orientation not yet applied, 1 for none */
	bool		settled;		/* upright, in display colours */
	bool		streaming;		/* rows come once, from top to bottom */
} Canvas;

/* codec.c */
extern void codec_allow_operation(const char *name);

/* codec.c: ends in the reply */
extern bool codec_fail(DecoderReply *reply, DecoderStatus status,
					   const char *format,...) G_GNUC_PRINTF(3, 4);
extern bool codec_fail_libvips(DecoderReply *reply, DecoderStatus status,
							   const char *what);
extern bool codec_check_limit(DecoderReply *reply, DecoderLimit limit,
							  uint64_t value, uint64_t maximum);

extern bool codec_read_header(const CodecJob *job, DecoderReply *reply,
							  VipsImage **image);
extern bool codec_read_input(const DecoderRequest *request, const CodecBytes *input,
							 DecoderReply *reply, VipsImage **image);

/* codec_load.c */
extern bool codec_identify(const CodecBytes *input, DecoderReply *reply);
extern bool codec_open(const CodecBytes *input, DecoderReply *reply,
					   double shrink, VipsImage **image);
extern bool codec_open_pages(const CodecBytes *input, DecoderReply *reply, double shrink,
							 int first, int n, VipsImage **image);
extern void codec_read_facts(VipsImage *image, ImageFacts *facts);
extern bool codec_check_limits(const DecoderRequest *request,
							   DecoderReply *reply);
extern void codec_allow_loaders(void);

/* codec_pages.c */
extern bool codec_plan_pages(Work *work, Output *output);
extern bool codec_run_pages(Canvas *canvas, int first_loaded);

/* codec_operations.c */
extern Canvas codec_start_canvas(Work *work, Output *output, VipsImage *image);
extern double codec_useful_shrink(const Pipeline *pipeline, int width, int height);
extern bool codec_run_steps(Canvas *canvas);
extern bool codec_settle(Canvas *canvas);
extern bool codec_replace(Canvas *canvas, VipsImage **image, int failed,
						  const char *what);
extern int	codec_generate(VipsImage *output, VipsImage *input, int width, int height,
						   VipsGenerateFn generate, void *data);
extern bool codec_need_random_access(Canvas *canvas);
extern bool codec_compute(Canvas *canvas);
extern bool codec_is_gray(uint32_t color);
extern bool codec_check_size(Canvas *canvas, double width, double height);
extern bool codec_is_deep(VipsImage *image);
extern bool codec_convert_colors(Canvas *canvas, bool color, bool deep);
extern bool codec_take_color(Canvas *canvas, uint32_t color, Ink *ink);
extern VipsArrayDouble *codec_ink(const Ink *ink);
extern void codec_free_ink(VipsArrayDouble *array);
extern bool codec_begin_mixing(Canvas *canvas, VipsBandFormat *format);
extern bool codec_end_mixing(Canvas *canvas, VipsBandFormat format);
extern bool codec_flatten_on(Canvas *canvas, uint32_t color);

/* codec_geometry.c */
extern double codec_resize_shrink(const PipelineStep *step, int width, int height);
extern bool codec_resample(Canvas *canvas, int width, int height, ResizeKernel kernel);
extern void codec_place(Gravity gravity, int outer_width, int outer_height,
						int x, int y, Area *inner);
extern bool codec_turn(Canvas *canvas, double angle, uint32_t background);
extern bool codec_resize(Canvas *canvas, const PipelineStep *step);
extern bool codec_crop(Canvas *canvas, const PipelineStep *step);
extern bool codec_extend(Canvas *canvas, const PipelineStep *step);
extern bool codec_trim(Canvas *canvas, const PipelineStep *step);
extern bool codec_rotate(Canvas *canvas, const PipelineStep *step);
extern bool codec_flip(Canvas *canvas, const PipelineStep *step);
extern bool codec_flop(Canvas *canvas, const PipelineStep *step);

/* codec_filter.c */
extern bool codec_blur(Canvas *canvas, const PipelineStep *step);
extern bool codec_sharpen(Canvas *canvas, const PipelineStep *step);
extern bool codec_median(Canvas *canvas, const PipelineStep *step);
extern bool codec_pixelate(Canvas *canvas, const PipelineStep *step);

/* codec_color.c */
extern bool codec_modulate(Canvas *canvas, const PipelineStep *step);
extern bool codec_gamma(Canvas *canvas, const PipelineStep *step);
extern bool codec_normalize(Canvas *canvas, const PipelineStep *step);
extern bool codec_clahe(Canvas *canvas, const PipelineStep *step);
extern bool codec_grayscale(Canvas *canvas, const PipelineStep *step);
extern bool codec_tint(Canvas *canvas, const PipelineStep *step);
extern bool codec_invert(Canvas *canvas, const PipelineStep *step);
extern bool codec_flatten(Canvas *canvas, const PipelineStep *step);

/* codec_clahe.c */
extern int	codec_equalize(VipsImage *image, int tiles, double slope);

/* codec_compose.c */
extern bool codec_overlay(Canvas *canvas, VipsImage *overlay, Gravity gravity,
						  int x, int y, bool tile, BlendMode blend);
extern bool codec_composite(Canvas *canvas, const PipelineStep *step);
extern bool codec_join(Canvas *canvas, const PipelineStep *step);

/* codec_text.c */
extern void codec_load_fonts(void);
extern bool codec_text(Canvas *canvas, const PipelineStep *step);

/* codec_median.c */
extern int	codec_median_of_bytes(VipsImage *input, VipsImage **output, int size);

/* codec_scale.c */
extern bool codec_can_scale(VipsImage *image, int width, int height);
extern int	codec_scale(VipsImage *input, VipsImage **output, int width, int height);

/* codec_keep.c */
extern bool codec_drop_metadata(Canvas *canvas, int *kept);
extern void codec_metadata_written(ImageFormat format, int kept, void *bytes, size_t *length);

/* codec_save.c */
extern bool codec_plan_output(Work *work, const Pipeline *pipeline, Output *output);
extern bool codec_save(Canvas *canvas, void **bytes, size_t *length);
extern ImageFormat codec_output_format(const Output *output);
extern void codec_allow_savers(void);

#endif							/* IMGPIPE_CODEC_INTERNAL_H */
