/*
 * failure.c
 *		What people are told of what the decoder did not do.
 */
#include "postgres.h"

#include "decoder/failure.h"
#include "imgpipe.h"
#include "utils/builtins.h"

bool
decoder_fail(DecoderFailure *failure, DecoderFailureKind kind, int sqlerrcode,
			 char *message, char *detail, const char *hint)
{
	failure->kind = kind;
	failure->sqlerrcode = sqlerrcode;
	failure->output = -1;
	failure->message = message;
	failure->detail = detail;
	failure->hint = hint ? pstrdup(hint) : NULL;
	return false;
}

bool
decoder_fail_memory(DecoderFailure *failure, int memory_limit)
{
	return decoder_fail(failure, DECODER_REJECTED, ERRCODE_PROGRAM_LIMIT_EXCEEDED,
						pstrdup("image needs more memory than its decoder may have"),
						psprintf("imgpipe.decoder_memory_limit is %d MB.", memory_limit),
						"A superuser can raise imgpipe.decoder_memory_limit; or use a smaller image or a cheaper pipeline.");
}

void
decoder_throw(const DecoderFailure *failure)
{
	ereport(ERROR,
			(errcode(failure->sqlerrcode),
			 errmsg_internal("%s", failure->message),
			 failure->detail ? errdetail_internal("%s", failure->detail) : 0,
			 failure->hint ? errhint("%s", failure->hint) : 0));
	pg_unreachable();
}

void
decoder_make_printable(char *text, const char *also_allowed)
{
	for (; *text != '\0'; text++)
		if ((*text < ' ' || *text > '~') && strchr(also_allowed, *text) == NULL)
			*text = '?';
}

const char *
decoder_explain(const DecoderReply *reply, const char *bytes, Size length, int memory_limit,
				DecoderFailure *failure)
{
	static const char prefix[] = " image: ";
	const char *format = image_format_name(reply->facts.format);
	char		words[DECODER_MESSAGE_SIZE];
	char	   *message;
	char		start[2 * 12 + 1];
	Size		shown = Min(length, 12);

	/* "invalid png image: bad CRC": our own message has the first half. */
	strlcpy(words, reply->message, sizeof(words));
	decoder_make_printable(words, "");
	message = strstr(words, prefix);
	message = message != NULL ? message + strlen(prefix) : words;
	message[0] = pg_toupper((unsigned char) message[0]);
	if (format == NULL)
		format = "unknown";

	switch ((DecoderStatus) reply->status)
	{
		case DECODER_UNRECOGNIZED:
			start[hex_encode(bytes, shown, start)] = '\0';
			decoder_fail(failure, DECODER_REJECTED, ERRCODE_INVALID_BINARY_REPRESENTATION,
						 pstrdup("bytes are not an image of a known format"),
						 psprintf("The %zu bytes begin with \\x%s.", length, start),
						 "Known formats are JPEG, PNG, WebP, GIF, TIFF, HEIC and AVIF.");
			return NULL;
		case DECODER_UNSUPPORTED:
			decoder_fail(failure, DECODER_REJECTED, ERRCODE_FEATURE_NOT_SUPPORTED,
						 psprintf("image format %s is not supported by this server's libvips", format),
						 psprintf("%s.", message),
						 "Install libvips with support for the format, or convert the image first.");
			return NULL;
		case DECODER_CORRUPT:
			decoder_fail(failure, DECODER_REJECTED, ERRCODE_INVALID_BINARY_REPRESENTATION,
						 psprintf("invalid or damaged %s image", format),
						 strcmp(message, "Unknown error") == 0 ? NULL : psprintf("%s.", message),
						 "The file is damaged or was cut short; send it again.");
			return NULL;
		case DECODER_INVALID_OPERATION:
			decoder_fail(failure, DECODER_REJECTED, ERRCODE_INVALID_PARAMETER_VALUE,
						 pstrdup("pipeline does not fit the image"),
						 psprintf("%s.", message), NULL);
			return NULL;
		case DECODER_OUT_OF_MEMORY:
			decoder_fail_memory(failure, memory_limit);
			return NULL;
		case DECODER_LIMIT:
			switch ((DecoderLimit) reply->limit)
			{
				case DECODER_LIMIT_PIXELS:
					decoder_fail(failure, DECODER_REJECTED, ERRCODE_PROGRAM_LIMIT_EXCEEDED,
								 pstrdup("image has too many pixels"),
								 psprintf("It has " UINT64_FORMAT " pixels (%s, %u x %u, %u pages); the limit is %d million.",
										  reply->value, format, reply->facts.width, reply->facts.height,
										  reply->facts.pages, imgpipe_max_megapixels),
								 "A superuser can raise imgpipe.max_megapixels.");
					return NULL;
				case DECODER_LIMIT_PAGES:
					decoder_fail(failure, DECODER_REJECTED, ERRCODE_PROGRAM_LIMIT_EXCEEDED,
								 pstrdup("image has too many pages"),
								 psprintf("It has " UINT64_FORMAT " pages; the limit is %d.",
										  reply->value, imgpipe_max_pages),
								 "A superuser can raise imgpipe.max_pages.");
					return NULL;
				case DECODER_LIMIT_OUTPUT_PIXELS:
					decoder_fail(failure, DECODER_REJECTED, ERRCODE_PROGRAM_LIMIT_EXCEEDED,
								 pstrdup("pipeline would make an image of too many pixels"),
								 psprintf("It would have " UINT64_FORMAT " pixels; the limit is %d million.",
										  reply->value, imgpipe_max_output_megapixels),
								 "A superuser can raise imgpipe.max_output_megapixels.");
					return NULL;
				case DECODER_LIMIT_FORMAT:
					decoder_fail(failure, DECODER_REJECTED, ERRCODE_PROGRAM_LIMIT_EXCEEDED,
								 psprintf("image format %s is not allowed", format),
								 psprintf("imgpipe.allowed_formats is \"%s\".", imgpipe_allowed_formats),
								 "A superuser can add the format to imgpipe.allowed_formats; or convert the image first.");
					return NULL;
				case DECODER_LIMIT_METADATA:
					decoder_fail(failure, DECODER_REJECTED, ERRCODE_PROGRAM_LIMIT_EXCEEDED,
								 pstrdup("image has too much metadata"),
								 psprintf("What was asked for has " UINT64_FORMAT " bytes; the limit is %d.",
										  reply->value, DECODER_MAX_METADATA),
								 "Strip the image of its metadata.");
					return NULL;
				default:
					return "an unknown limit";
			}
		case DECODER_FAILED:
			decoder_fail(failure, DECODER_REJECTED, ERRCODE_EXTERNAL_ROUTINE_EXCEPTION,
						 pstrdup("image decoder failed"), psprintf("%s.", message), NULL);
			return NULL;
		default:
			return "an unknown status";
	}
}
