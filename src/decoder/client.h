/*
 * client.h
 *		A PostgreSQL process's own image decoder.
 */
#ifndef IMGPIPE_DECODER_CLIENT_H
#define IMGPIPE_DECODER_CLIENT_H

#include "decoder/protocol.h"
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
 * These return false with *failure filled in, or throw it where failure is
 * NULL.  They throw on cancel and termination, after killing the decoder.
 * Results are palloc'd in the current memory context.
 */

/* With imgpipe.verify_input it is decoder_verify() as well. */
extern bool decoder_probe(const char *bytes, Size length,
						  ImageFacts *facts, DecoderFailure *failure);

/*
 * decoder_probe() of n inputs, at most DECODER_MAX_OUTPUTS, in one request.
 * False where one of them is refused or the decoder does not work: which, and
 * why, is for decoder_probe() to find out.
 */
extern bool decoder_probe_all(int n, const char *const *inputs, const Size *lengths, ImageFacts *facts);

/* Decodes all of it, and does nothing else. */
extern bool decoder_verify(const Image *image, DecoderFailure *failure);
/* Image 0 is worked on; the pipelines may use the others. */
extern bool decoder_process(const Image *const *images, int n_images,
							int n_outputs, const char *const *pipelines,
							Image **outputs, DecoderFailure *failure);

/*
 * DECODER_EXIF, _IPTC and _XMP give text in valid UTF-8, DECODER_ICC_PROFILE
 * bytes; NULL where the image has no such thing.  Throws.
 */
extern bytea *decoder_metadata(const Image *image, DecoderOperation operation);

/* What the sandbox refused, as lines of text; see DECODER_SELF_TEST. */
extern char *decoder_self_test(void);

pg_noreturn extern void decoder_throw(const DecoderFailure *failure);

#endif							/* IMGPIPE_DECODER_CLIENT_H */
