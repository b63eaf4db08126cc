/*
 * client.h
 *		A PostgreSQL process's own image decoder.
 */
#ifndef IMGPIPE_DECODER_CLIENT_H
#define IMGPIPE_DECODER_CLIENT_H

#include "image/image.h"

/*
 * Why a request gave no result.  DECODER_REJECTED is about the image and the
 * request and happens again with the same bytes; the others may not.
 */
typedef enum DecoderFailureKind
{
	DECODER_NO_FAILURE,
	DECODER_REJECTED,			/* not an image, corrupt, over a limit, ... */
	DECODER_TIMED_OUT,			/* over imgpipe.decoder_timeout */
	DECODER_LOST				/* the decoder died or could not be started */
} DecoderFailureKind;

typedef struct DecoderFailure
{
	DecoderFailureKind kind;
	int			sqlerrcode;
	int			output;			/* index of the pipeline that failed, or -1 */
	char	   *message;		/* palloc'd, as for errmsg, errdetail, errhint */
	char	   *detail;			/* or NULL */
	char	   *hint;			/* or NULL */
} DecoderFailure;

/*
 * Both return false with *failure filled in, or throw it where failure is
 * NULL.  Both throw on cancel and termination, after killing the decoder.
 * Results are palloc'd in the current memory context.
 */
extern bool decoder_probe(const char *bytes, Size length,
						  ImageFacts *facts, DecoderFailure *failure);
extern bool decoder_process(const Image *image, int n_outputs,
							const char *const *pipelines, Image **outputs,
							DecoderFailure *failure);

/* What the sandbox refused, as lines of text; see DECODER_SELF_TEST. */
extern char *decoder_self_test(void);

extern void decoder_throw(const DecoderFailure *failure) pg_attribute_noreturn();

#endif							/* IMGPIPE_DECODER_CLIENT_H */
