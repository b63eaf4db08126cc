/*
 * failure.h
 *		What people are told of what the decoder did not do; for client.c.
 */
#ifndef IMGPIPE_DECODER_FAILURE_H
#define IMGPIPE_DECODER_FAILURE_H

#include "decoder/client.h"

/* Fills in a failure; takes the palloc'd message and detail. Returns false. */
extern bool decoder_fail(DecoderFailure *failure, DecoderFailureKind kind, int sqlerrcode,
						 char *message, char *detail, const char *hint);

/* The failure of what needs more memory than a decoder may have, in MB. Returns false. */
extern bool decoder_fail_memory(DecoderFailure *failure, int memory_limit);

/*
 * Fills in the failure that a reply other than DECODER_OK tells of, to a request
 * whose input 0 was these bytes.  NULL, or what no honest decoder says.
 */
extern const char *decoder_explain(const DecoderReply *reply, const char *bytes, Size length,
								   int memory_limit, DecoderFailure *failure);

/* The decoder's words may be anything: leaves what can be shown anywhere. */
extern void decoder_make_printable(char *text, const char *also_allowed);

#endif							/* IMGPIPE_DECODER_FAILURE_H */
