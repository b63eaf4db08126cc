/*
 * codec.h
 *		What imgpipe-decoder does with images; the only door to libvips.
 *
 * Nothing of libvips shows here, so that main.c and the sandbox need not know
 * it.  Every function fills in a reply and leaves no memory behind.
 */
#ifndef IMGPIPE_CODEC_H
#define IMGPIPE_CODEC_H

#include <stdbool.h>
#include <stddef.h>

#include "decoder/protocol.h"

typedef struct CodecBytes
{
	const char *bytes;
	size_t		length;
} CodecBytes;

/* Takes one output's bytes; false where there is no room for them. */
typedef bool (*CodecWriter) (const void *bytes, size_t length);

/* A request, its numbers checked, with what they point at. */
typedef struct CodecJob
{
	const DecoderRequest *request;
	CodecBytes	inputs[DECODER_MAX_INPUTS];
	CodecBytes	pipelines[DECODER_MAX_OUTPUTS];
	CodecWriter write;
} CodecJob;

/*
 * Loads libvips and all that it would otherwise load later: after the
 * lock-down nothing can be opened.  False with a message for people.
 */
extern bool codec_start(char *message, size_t size);
extern const char *codec_version(void);

extern void codec_probe(const CodecJob *job, DecoderReply *reply);
extern void codec_process(const CodecJob *job, DecoderReply *reply);
extern void codec_verify(const CodecJob *job, DecoderReply *reply);
/* DECODER_EXIF, _IPTC, _XMP and _ICC_PROFILE */
extern void codec_metadata(const CodecJob *job, DecoderReply *reply);

#endif							/* IMGPIPE_CODEC_H */
