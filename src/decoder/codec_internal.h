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
#include "pipeline/pipeline.h"

/*
 * An image on its way through a pipeline.  libvips computes lazily, so most
 * steps only describe work; pixels flow when the encoder pulls them.
 */
typedef struct Canvas
{
	VipsImage  *image;			/* owned */
	const DecoderRequest *request;
	DecoderReply *reply;

	/* The whole input as it is shown, before any shrinking by the loader. */
	int			width;
	int			height;

	int			orientation;	/* EXIF orientation not yet applied, 1 for none */
	bool		settled;		/* upright, in display colours */
	bool		streaming;		/* rows come once, from top to bottom */
} Canvas;

/* codec.c: ends in the reply */
extern bool codec_fail(DecoderReply *reply, DecoderStatus status,
					   const char *format,...) G_GNUC_PRINTF(3, 4);
extern bool codec_fail_libvips(DecoderReply *reply, DecoderStatus status,
							   const char *what);
extern bool codec_check_limit(DecoderReply *reply, DecoderLimit limit,
							  uint64_t value, uint64_t maximum);

/* codec_load.c */
extern bool codec_identify(const CodecBytes *input, DecoderReply *reply);
extern bool codec_open(const CodecBytes *input, DecoderReply *reply,
					   double shrink, VipsImage **image);
extern void codec_read_facts(VipsImage *image, ImageFacts *facts);
extern bool codec_check_limits(const DecoderRequest *request,
							   DecoderReply *reply);
extern void codec_allow_loaders(void);

/* codec_operations.c */
extern double codec_useful_shrink(const PipelineStep *step, int width, int height);
extern bool codec_transform(Canvas *canvas, const PipelineStep *step);
extern bool codec_settle(Canvas *canvas);
extern bool codec_replace(Canvas *canvas, VipsImage **image, int failed,
						  const char *what);
extern bool codec_to_eight_bits(Canvas *canvas);

/* codec_scale.c */
extern bool codec_can_scale(VipsImage *image, int width, int height);
extern int	codec_scale(VipsImage *input, VipsImage **output, int width, int height);

/* codec_save.c */
extern bool codec_save(Canvas *canvas, const PipelineStep *encoder,
					   void **bytes, size_t *length);
extern void codec_allow_savers(void);

#endif							/* IMGPIPE_CODEC_INTERNAL_H */
