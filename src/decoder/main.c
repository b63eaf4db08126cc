/*
 * main.c
 *		imgpipe-decoder: decodes images for one PostgreSQL process.
 *
 * Started by decoder/client.c with a socket and a memory file and nothing
 * else; see protocol.h for what they say to each other.  It sets itself up,
 * locks itself in, answers requests one by one and ends when the other side
 * hangs up.  The requests come from PostgreSQL and can be trusted, the images
 * in them cannot: whoever takes this process over through an image finds
 * nothing that he could do here.
 */
#include <errno.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "decoder/codec.h"
#include "decoder/sandbox.h"
#include "pipeline/pipeline.h"

typedef struct Options
{
	uint64_t	memory_limit;	/* bytes, 0 for none */
	pid_t		parent;			/* 0 where not told */
	bool		allow_unsandboxed;
} Options;

static bool sandboxed = false;

/* Where the next output goes in the memory file. */
static off_t output_position;

static void
explain(FILE *stream)
{
	fprintf(stream,
			"imgpipe-decoder decodes images for the PostgreSQL extension imgpipe.\n"
			"PostgreSQL starts it as needed and talks to it on descriptors %d and %d;\n"
			"there is nothing that it could do when started by hand.\n"
			"\n"
			"  --memory-limit=BYTES   most memory it may take\n"
			"  --parent=PID           process it must not outlive\n"
			"  --allow-unsandboxed    run even where there is no seccomp\n"
			"  --version              name versions and exit\n",
			DECODER_SOCKET_FD, DECODER_MEMORY_FD);
}

static bool
read_number(const char *text, uint64_t *number)
{
	char	   *end;

	errno = 0;
	*number = strtoull(text, &end, 10);
	return errno == 0 && *text >= '0' && *text <= '9' && *end == '\0';
}

static bool
read_options(int argc, char **argv, Options *options)
{
	static const char memory_limit[] = "--memory-limit=";
	static const char parent[] = "--parent=";
	uint64_t	number;
	int			i;

	for (i = 1; i < argc; i++)
	{
		if (strncmp(argv[i], memory_limit, strlen(memory_limit)) == 0 &&
			read_number(argv[i] + strlen(memory_limit), &number))
			options->memory_limit = number;
		else if (strncmp(argv[i], parent, strlen(parent)) == 0 &&
				 read_number(argv[i] + strlen(parent), &number))
			options->parent = (pid_t) number;
		else if (strcmp(argv[i], "--allow-unsandboxed") == 0)
			options->allow_unsandboxed = true;
		else
			return false;
	}
	return true;
}

static bool
has_descriptors(void)
{
	struct stat status;
	int			type;
	socklen_t	length = sizeof(type);

	return getsockopt(DECODER_SOCKET_FD, SOL_SOCKET, SO_TYPE, &type, &length) == 0 &&
		type == SOCK_SEQPACKET &&
		fstat(DECODER_MEMORY_FD, &status) == 0 && S_ISREG(status.st_mode);
}

/* Dies with the parent, even if that is gone already. */
static bool
bind_to_parent(pid_t parent)
{
	if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) != 0)
		return false;
	return parent == 0 || getppid() == parent;
}

static bool
write_output(const void *bytes, size_t length)
{
	const char *next = bytes;

	while (length > 0)
	{
		ssize_t		written = pwrite(DECODER_MEMORY_FD, next, length, output_position);

		if (written < 0 && errno == EINTR)
			continue;
		if (written <= 0)
			return false;
		next += written;
		output_position += written;
		length -= written;
	}
	return true;
}

/*
 * Nothing in a frame is believed.  Sets *length to the bytes that the client
 * wrote, all of which are in the memory file.
 */
static bool
check_request(const DecoderRequest *request, uint64_t *length)
{
	off_t		file_length = lseek(DECODER_MEMORY_FD, 0, SEEK_END);
	int			i;

	*length = 0;
	if (request->magic != DECODER_MAGIC || file_length < 0 ||
		request->n_inputs > DECODER_MAX_INPUTS ||
		request->n_outputs > DECODER_MAX_OUTPUTS)
		return false;

	for (i = 0; i < request->n_inputs; i++)
	{
		if (request->input_length[i] > (uint64_t) file_length - *length)
			return false;
		*length += request->input_length[i];
	}
	for (i = 0; i < request->n_outputs; i++)
	{
		if (request->pipeline_length[i] > (uint64_t) file_length - *length)
			return false;
		*length += request->pipeline_length[i];
	}

	switch (request->operation)
	{
		case DECODER_PROBE:
			return request->n_inputs > 0 &&
				(request->n_outputs == 0 || request->n_outputs == request->n_inputs);
		case DECODER_VERIFY:
		case DECODER_EXIF:
		case DECODER_IPTC:
		case DECODER_XMP:
		case DECODER_ICC_PROFILE:
			return request->n_inputs > 0;
		case DECODER_PROCESS:
			return request->n_inputs > 0 && request->n_outputs > 0;
		case DECODER_SELF_TEST:
			return true;
		default:
			return false;
	}
}

static void
self_test(DecoderReply *reply)
{
	char		report[2048];

	(void) sandbox_test(report, sizeof(report));
	if (!write_output(report, strlen(report)))
	{
		reply->status = DECODER_OUT_OF_MEMORY;
		return;
	}
	reply->n_outputs = 1;
	reply->output_length[0] = strlen(report);
}

static void
run_job(const DecoderRequest *request, const char *bytes, DecoderReply *reply)
{
	CodecJob	job = {.request = request, .write = write_output};
	int			i;

	for (i = 0; i < request->n_inputs; i++)
	{
		job.inputs[i] = (CodecBytes) {bytes, request->input_length[i]};
		bytes += request->input_length[i];
	}
	for (i = 0; i < request->n_outputs; i++)
	{
		job.pipelines[i] = (CodecBytes) {bytes, request->pipeline_length[i]};
		bytes += request->pipeline_length[i];
	}
	switch (request->operation)
	{
		case DECODER_PROBE:
			codec_probe(&job, reply);
			break;
		case DECODER_PROCESS:
			codec_process(&job, reply);
			break;
		case DECODER_VERIFY:
			codec_verify(&job, reply);
			break;
		default:
			codec_metadata(&job, reply);
			break;
	}
}

static void
answer(const DecoderRequest *request, bool whole, DecoderReply *reply)
{
	char	   *bytes = NULL;
	uint64_t	length;

	memset(reply, 0, sizeof(*reply));
	reply->magic = DECODER_MAGIC;
	reply->sandboxed = sandboxed;
	if (!whole || !check_request(request, &length))
	{
		reply->status = DECODER_FAILED;
		snprintf(reply->message, sizeof(reply->message), "malformed request");
		return;
	}

	output_position = (off_t) reply_offset(request);
	if (request->operation == DECODER_SELF_TEST)
	{
		self_test(reply);
		return;
	}

	/* No bytes, no map: an empty image is the codec's to refuse. */
	if (length > 0)
	{
		bytes = mmap(NULL, length, PROT_READ, MAP_PRIVATE, DECODER_MEMORY_FD, 0);
		if (bytes == MAP_FAILED)
		{
			reply->status = DECODER_OUT_OF_MEMORY;
			snprintf(reply->message, sizeof(reply->message), "could not map the request");
			return;
		}
	}
	run_job(request, bytes, reply);
	if (bytes != NULL)
		munmap(bytes, length);
	if (reply->status != DECODER_OK)
		reply->n_outputs = 0;
}

/*
 * Whether half of the memory has gone, though there is no work: to holes, and
 * to libraries that forget some on their way out of a damaged image.
 */
static bool
is_worn_out(uint64_t memory_limit)
{
	struct mallinfo2 heap = mallinfo2();

	return memory_limit > 0 && heap.arena + heap.hblkhd > memory_limit / 2;
}

/* Until there is no more to do; or, as the client does not mind, no more memory to do it well. */
static int
serve(uint64_t memory_limit)
{
	static DecoderRequest request;
	static DecoderReply reply;
	unsigned int n_fine = 0;

	for (;;)
	{
		ssize_t		length = recv(DECODER_SOCKET_FD, &request, sizeof(request), MSG_TRUNC);

		if (length < 0 && errno == EINTR)
			continue;
		/*
		 * Hung up, or no request for as long as the socket's timeout.  PostgreSQL
		 * keeps the memory file open until it looks again: nothing is left in it.
		 */
		if (length <= 0)
		{
			if (ftruncate(DECODER_MEMORY_FD, 0) != 0)
				errno = 0;		/* a pity, not an error */
			return DECODER_EXIT_IDLE;
		}
		answer(&request, length == sizeof(request), &reply);
		while (send(DECODER_SOCKET_FD, &reply, sizeof(reply), MSG_NOSIGNAL) < 0)
		{
			if (errno != EINTR)
				return DECODER_EXIT_IDLE;
		}
		/* The look walks through all that is free, and puts it together: not after each small image. */
		if ((reply.status != DECODER_OK || ++n_fine % 16 == 0) && is_worn_out(memory_limit))
			return DECODER_EXIT_IDLE;
	}
}

int
main(int argc, char **argv)
{
	Options		options = {0};
	char		message[256];

	if (argc == 2 && strcmp(argv[1], "--version") == 0)
	{
		printf("imgpipe-decoder, libvips %s\n", codec_version());
		return 0;
	}
	if (argc == 2 && strcmp(argv[1], "--help") == 0)
	{
		explain(stdout);
		return 0;
	}
	if (!read_options(argc, argv, &options) || !has_descriptors())
	{
		explain(stderr);
		return DECODER_EXIT_USAGE;
	}

	if (!bind_to_parent(options.parent))
		return DECODER_EXIT_NOT_STARTED;
	if (!sandbox_prepare(options.memory_limit, message, sizeof(message)) ||
		!codec_start(message, sizeof(message)))
	{
		fprintf(stderr, "imgpipe-decoder: %s\n", message);
		return DECODER_EXIT_NOT_STARTED;
	}
	sandboxed = sandbox_enter(message, sizeof(message));
	if (!sandboxed && !options.allow_unsandboxed)
	{
		fprintf(stderr, "imgpipe-decoder: %s\n", message);
		return DECODER_EXIT_NO_SANDBOX;
	}
	/* Not through exit(): handlers of a hundred libraries have nothing to add. */
	_exit(serve(options.memory_limit));
}
