/*
 * protocol.h
 *		The conversation between a PostgreSQL process and its imgpipe-decoder.
 *
 * Pure C, shared by both sides.  One request, one reply, never two in flight.
 *
 * Frames are single messages on a SOCK_SEQPACKET socketpair (descriptor 3 in
 * the decoder), so each arrives whole or not at all.  Bulk bytes travel in a
 * memfd (descriptor 4 in the decoder), which the client reads and writes only
 * with pread and pwrite: whatever the decoder does to the file, the client
 * cannot be hurt by it.  The client writes
 *
 *		[input 0][input 1]...[pipeline text 0][pipeline text 1]...
 *
 * from offset 0, with the lengths in the request.  The decoder puts its
 * outputs one after the other from reply_offset(request) on, with the
 * lengths in the reply.  The client checks every number of a reply before it
 * uses it: the decoder has parsed hostile bytes and may have been taken over.
 */
#ifndef IMGPIPE_PROTOCOL_H
#define IMGPIPE_PROTOCOL_H

#include <stdint.h>

#include "image/facts.h"

#define DECODER_PROGRAM			"imgpipe-decoder"
#define DECODER_SOCKET_FD		3
#define DECODER_MEMORY_FD		4

#define DECODER_MAGIC			0x49504431	/* "IPD1" */
#define DECODER_MAX_INPUTS		240 /* a contact sheet is one request */
#define DECODER_MAX_OUTPUTS		64
#define DECODER_MESSAGE_SIZE	256
#define DECODER_MAX_METADATA	(16 * 1024 * 1024)	/* bytes of XMP or ICC profile */

/* How the program ends; how PostgreSQL's child does that could not become it. */
typedef enum DecoderExit
{
	DECODER_EXIT_IDLE = 0,		/* nothing more to do, or no memory to do it well */
	DECODER_EXIT_USAGE = 2,
	DECODER_EXIT_NO_SANDBOX = 3,
	DECODER_EXIT_NOT_STARTED = 4,
	DECODER_EXIT_OUT_OF_MEMORY = 5, /* in a library that would have aborted */
	DECODER_EXIT_GAVE_UP = 6,	/* the same for another reason */
	DECODER_EXIT_NOT_EXECUTABLE = 127
} DecoderExit;

typedef enum DecoderOperation
{
	DECODER_PROBE = 1,			/* header only: facts of one input, or of as many as outputs, which have no bytes */
	DECODER_PROCESS = 2,		/* one decode, one output per pipeline */
	DECODER_SELF_TEST = 3,		/* try what the sandbox must refuse */
	DECODER_VERIFY = 4,			/* facts, once every page was decoded */
	/* Of input 0: one output, or none where the image has no such thing. */
	DECODER_EXIF = 5,			/* JSON */
	DECODER_IPTC = 6,			/* JSON */
	DECODER_XMP = 7,			/* text, UTF-8 */
	DECODER_ICC_PROFILE = 8		/* bytes */
} DecoderOperation;

/*
 * How a request ended.  The client maps these to SQLSTATEs; everything but
 * DECODER_FAILED is the image's or the request's own doing and would happen
 * again with the same bytes.
 */
typedef enum DecoderStatus
{
	DECODER_OK = 0,
	DECODER_UNRECOGNIZED = 1,	/* the bytes begin like no known format */
	DECODER_UNSUPPORTED = 2,	/* a known format this libvips cannot read or write */
	DECODER_CORRUPT = 3,		/* right beginning, unreadable rest */
	DECODER_LIMIT = 4,			/* reply.limit says which, .value how much */
	DECODER_INVALID_OPERATION = 5,	/* a pipeline step does not fit this image */
	DECODER_OUT_OF_MEMORY = 6,	/* the memory limit was reached */
	DECODER_FAILED = 7			/* anything else */
} DecoderStatus;

typedef enum DecoderLimit
{
	DECODER_LIMIT_NONE = 0,
	DECODER_LIMIT_PIXELS = 1,	/* width * height * pages of the input */
	DECODER_LIMIT_PAGES = 2,
	DECODER_LIMIT_OUTPUT_PIXELS = 3,
	DECODER_LIMIT_FORMAT = 4,	/* not in allowed_formats; value is the format */
	DECODER_LIMIT_METADATA = 5	/* bytes; the maximum is DECODER_MAX_METADATA */
} DecoderLimit;

typedef struct DecoderRequest
{
	uint32_t	magic;
	uint16_t	operation;		/* DecoderOperation */
	uint8_t		n_inputs;		/* images; input 0 is the one worked on */
	uint8_t		n_outputs;		/* pipelines */
	uint64_t	max_pixels;		/* over all pages */
	uint64_t	max_output_pixels;
	uint32_t	max_pages;
	uint32_t	allowed_formats;	/* IMAGE_FORMAT_BIT */
	uint64_t	input_length[DECODER_MAX_INPUTS];
	uint32_t	pipeline_length[DECODER_MAX_OUTPUTS];
} DecoderRequest;

typedef struct DecoderReply
{
	uint32_t	magic;
	uint16_t	status;			/* DecoderStatus */
	uint8_t		n_outputs;		/* as asked when DECODER_OK (or 0 of metadata), else 0 */
	uint8_t		failed_output;	/* which pipeline failed, where one did */
	uint32_t	limit;			/* DecoderLimit */
	uint32_t	sandboxed;		/* 1 when the seccomp filter is active */
	uint64_t	value;			/* what exceeded the limit */
	ImageFacts	facts;			/* of input 0, once known */
	uint32_t	reserved;
	ImageFacts	output_facts[DECODER_MAX_OUTPUTS];
	uint64_t	output_length[DECODER_MAX_OUTPUTS];
	char		message[DECODER_MESSAGE_SIZE];	/* for people; NUL-terminated */
} DecoderReply;

/* Where outputs begin in the memfd: behind everything the client wrote. */
static inline uint64_t
reply_offset(const DecoderRequest *request)
{
	uint64_t	offset = 0;
	int			i;

	for (i = 0; i < request->n_inputs; i++)
		offset += request->input_length[i];
	for (i = 0; i < request->n_outputs; i++)
		offset += request->pipeline_length[i];
	return (offset + 4095) & ~(uint64_t) 4095;
}

/*
 * DECODER_SELF_TEST returns one output, lines of text: an attempt, "refused"
 * or "allowed", and the error, parted by tabs.
 */

#endif							/* IMGPIPE_PROTOCOL_H */
