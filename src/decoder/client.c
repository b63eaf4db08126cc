/*
 * client.c
 *		PostgreSQL's side of the image decoder: starts it, asks it, kills it.
 *
 * Each PostgreSQL process has at most one decoder, started by the first
 * request and kept for the next.  It is killed when a request is cancelled,
 * takes longer than imgpipe.decoder_timeout or is answered with nonsense, and
 * when the process exits; should the process be killed itself, the kernel
 * kills the decoder (PR_SET_PDEATHSIG).
 *
 * The decoder has parsed hostile bytes.  Nothing that it says is believed
 * without a check, and the memory that it shares with us is only ever read by
 * pread, so that it can neither change what we have checked nor pull the file
 * from under a mapping.
 */
#include "postgres.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "decoder/client.h"
#include "decoder/protocol.h"
#include "imgpipe.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "workers/worker.h"

/* Shared memory above this is given back after the request. */
#define KEPT_MEMORY		(32 * 1024 * 1024)

/* Exit codes of imgpipe-decoder, and of the child that could not become it. */
#define EXIT_SANDBOX_REFUSED	3
#define EXIT_SETUP_FAILED		4
#define EXIT_NOT_EXECUTABLE		127

typedef struct Decoder
{
	pid_t		pid;			/* 0: none */
	int			socket;
	int			memory;
	WaitEventSet *wait_set;		/* latch, socket, postmaster death */
	int			memory_limit;	/* as it was started, MB */
	bool		unsandboxed;
} Decoder;

static Decoder decoder;

static bool fail(DecoderFailure *failure, DecoderFailureKind kind, int sqlerrcode,
				 char *message, char *detail, const char *hint);

/*
 * Kills the decoder, if there is one, and returns how it ended as waitpid
 * tells it.  Safe at any time, in error handlers too.
 */
static int
decoder_kill(void)
{
	int			status = 0;

	if (decoder.pid == 0)
		return 0;
	kill(decoder.pid, SIGKILL);
	FreeWaitEventSet(decoder.wait_set);
	close(decoder.socket);
	close(decoder.memory);
	ReleaseExternalFD();
	ReleaseExternalFD();
	while (waitpid(decoder.pid, &status, 0) < 0 && errno == EINTR)
		;
	decoder.pid = 0;
	return status;
}

/* Looks without reaping: the number must stay ours until decoder_kill(). */
static bool
decoder_has_ended(void)
{
	siginfo_t	info;

	info.si_pid = 0;
	return waitid(P_PID, decoder.pid, &info, WEXITED | WNOHANG | WNOWAIT) < 0 || info.si_pid != 0;
}

static void
decoder_kill_at_exit(int code, Datum argument)
{
	/* The wait event set and the descriptors go with the process. */
	if (decoder.pid != 0)
		kill(decoder.pid, SIGKILL);
	decoder.pid = 0;
}

/*
 * Between fork and exec: only calls that are safe after a fork, and only
 * _exit.  The program closes all other descriptors itself.
 */
static void
become_decoder(const char *program, char *const *arguments, int socket, int memory)
{
	static char *const no_environment[] = {NULL};
	sigset_t	no_signals;
	int			null_device;
	int			i;

	setsid();					/* the server signals process groups */
	for (i = 1; i < NSIG; i++)
		signal(i, SIG_DFL);
	sigemptyset(&no_signals);
	sigprocmask(SIG_SETMASK, &no_signals, NULL);

	/* First out of the way of the numbers that they are to have. */
	socket = fcntl(socket, F_DUPFD, 10);
	memory = fcntl(memory, F_DUPFD, 10);
	null_device = open("/dev/null", O_RDWR);
	if (socket < 0 || memory < 0 || null_device < 0 ||
		dup2(null_device, STDIN_FILENO) < 0 ||
		dup2(null_device, STDOUT_FILENO) < 0 ||
		dup2(null_device, STDERR_FILENO) < 0 ||
		dup2(socket, DECODER_SOCKET_FD) < 0 ||
		dup2(memory, DECODER_MEMORY_FD) < 0)
		_exit(EXIT_SETUP_FAILED);
	execve(program, arguments, no_environment);
	_exit(EXIT_NOT_EXECUTABLE);
}

/* Makes sure that there is a decoder, started with the settings of now. */
static bool
decoder_start(DecoderFailure *failure)
{
	static bool exit_callback_registered = false;
	char		program[MAXPGPATH];
	char		memory_limit[64];
	char		parent[32];
	char	   *arguments[5];
	int			n_arguments = 0;
	int			sockets[2];
	int			memory;
	int			saved_errno;
	pid_t		pid;

	if (decoder.pid != 0 &&
		(decoder.memory_limit != imgpipe_decoder_memory_limit ||
		 decoder.unsandboxed != imgpipe_allow_unsandboxed_decoder ||
		 decoder_has_ended()))
		decoder_kill();
	if (decoder.pid != 0)
		return true;

	snprintf(program, sizeof(program), "%s/" DECODER_PROGRAM, pkglib_path);
	snprintf(memory_limit, sizeof(memory_limit), "--memory-limit=" INT64_FORMAT,
			 (int64) imgpipe_decoder_memory_limit * 1024 * 1024);
	snprintf(parent, sizeof(parent), "--parent=%d", (int) getpid());
	arguments[n_arguments++] = program;
	arguments[n_arguments++] = memory_limit;
	arguments[n_arguments++] = parent;
	if (imgpipe_allow_unsandboxed_decoder)
		arguments[n_arguments++] = "--allow-unsandboxed";
	arguments[n_arguments] = NULL;

	if (!exit_callback_registered)
	{
		on_proc_exit(decoder_kill_at_exit, 0);
		exit_callback_registered = true;
	}

	if (!AcquireExternalFD())
		return fail(failure, DECODER_LOST, ERRCODE_INSUFFICIENT_RESOURCES,
					pstrdup("could not start the image decoder: too many open files"), NULL,
					"Raise max_files_per_process.");
	ReserveExternalFD();
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets) < 0)
		goto no_socket;
	memory = memfd_create("imgpipe", MFD_CLOEXEC);
	if (memory < 0)
		goto no_memory;
	pid = fork();
	if (pid < 0)
		goto no_process;
	if (pid == 0)
		become_decoder(program, arguments, sockets[1], memory);

	close(sockets[1]);
	decoder.pid = pid;
	decoder.socket = sockets[0];
	decoder.memory = memory;
	decoder.memory_limit = imgpipe_decoder_memory_limit;
	decoder.unsandboxed = imgpipe_allow_unsandboxed_decoder;
	decoder.wait_set = create_session_wait_event_set(3);
	AddWaitEventToSet(decoder.wait_set, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, NULL);
	AddWaitEventToSet(decoder.wait_set, WL_SOCKET_READABLE, decoder.socket, NULL, NULL);
	AddWaitEventToSet(decoder.wait_set, WL_EXIT_ON_PM_DEATH, PGINVALID_SOCKET, NULL, NULL);
	return true;

no_process:
	saved_errno = errno;
	close(memory);
	errno = saved_errno;
no_memory:
	saved_errno = errno;
	close(sockets[0]);
	close(sockets[1]);
	errno = saved_errno;
no_socket:
	ReleaseExternalFD();
	ReleaseExternalFD();
	return fail(failure, DECODER_LOST, ERRCODE_INSUFFICIENT_RESOURCES,
				psprintf("could not start the image decoder: %m"), NULL, NULL);
}

/* The decoder is gone, or may as well be: says how it ended. */
static bool
decoder_lost(DecoderFailure *failure)
{
	int			status = decoder_kill();

	if (WIFEXITED(status) && WEXITSTATUS(status) == EXIT_SANDBOX_REFUSED)
		return fail(failure, DECODER_LOST, ERRCODE_FEATURE_NOT_SUPPORTED,
					pstrdup("image decoder refused to run without its sandbox"),
					pstrdup("This platform has no seccomp, or does not allow it."),
					"A superuser can accept the risk with imgpipe.allow_unsandboxed_decoder = on.");
	if (WIFEXITED(status) && WEXITSTATUS(status) == EXIT_NOT_EXECUTABLE)
		return fail(failure, DECODER_LOST, ERRCODE_UNDEFINED_FILE,
					pstrdup("could not execute the image decoder"),
					psprintf("The program should be \"%s/" DECODER_PROGRAM "\".", pkglib_path),
					"Install imgpipe on this server with make install.");
	if (WIFEXITED(status))
		return fail(failure, DECODER_LOST, ERRCODE_SYSTEM_ERROR,
					psprintf("imgpipe: the image decoder stopped with exit code %d",
							 WEXITSTATUS(status)),
					NULL,
					WEXITSTATUS(status) == EXIT_SETUP_FAILED ?
					"Run " DECODER_PROGRAM " by hand to see what it lacks; imgpipe.decoder_memory_limit may be too low." :
					"A new one starts with the next request.");
	return fail(failure, DECODER_LOST, ERRCODE_SYSTEM_ERROR,
				psprintf("imgpipe: the image decoder stopped by signal %d: %s",
						 WTERMSIG(status), pg_strsignal(WTERMSIG(status))),
				NULL,
				"A new one starts with the next request. Where the same image does this again, "
				"it needs more than imgpipe.decoder_memory_limit or meets a fault in libvips.");
}

/* A reply that no honest decoder sends. */
static bool
decoder_dishonest(DecoderFailure *failure, const char *what)
{
	decoder_kill();
	return fail(failure, DECODER_LOST, ERRCODE_PROTOCOL_VIOLATION,
				psprintf("imgpipe: the image decoder broke the protocol: %s", what), NULL,
				"It was stopped. If the same image does this again, report it as a security fault.");
}

static bool
write_memory(const char *bytes, Size length, off_t offset)
{
	while (length > 0)
	{
		ssize_t		written = pwrite(decoder.memory, bytes, length, offset);

		if (written < 0 && errno == EINTR)
			continue;
		if (written <= 0)
			return false;
		bytes += written;
		length -= written;
		offset += written;
	}
	return true;
}

static bool
read_memory(char *bytes, Size length, off_t offset)
{
	while (length > 0)
	{
		ssize_t		got = pread(decoder.memory, bytes, length, offset);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return false;
		bytes += got;
		length -= got;
		offset += got;
	}
	return true;
}

/* Waits for the reply; 1 it is there, 0 timeout.  Throws on cancel. */
static bool
wait_for_reply(void)
{
	TimestampTz deadline = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
													   imgpipe_decoder_timeout);

	for (;;)
	{
		WaitEvent	event;
		long		remaining = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), deadline);

		if (remaining <= 0)
			return false;
		if (WaitEventSetWait(decoder.wait_set, remaining, &event, 1, wait_event_decoder()) == 0)
			continue;
		if (event.events & WL_SOCKET_READABLE)
			return true;
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}

/* One request and its reply, whose frame is complete but not yet checked. */
static bool
exchange(const DecoderRequest *request, DecoderReply *reply, DecoderFailure *failure)
{
	volatile bool in_time = false;
	ssize_t		got;

	while (send(decoder.socket, request, sizeof(*request), MSG_NOSIGNAL) < 0)
		if (errno != EINTR)
			return decoder_lost(failure);

	PG_TRY();
	{
		in_time = wait_for_reply();
	}
	PG_CATCH();
	{
		decoder_kill();
		PG_RE_THROW();
	}
	PG_END_TRY();

	if (!in_time)
	{
		decoder_kill();
		return fail(failure, DECODER_TIMED_OUT, ERRCODE_PROGRAM_LIMIT_EXCEEDED,
					pstrdup("image takes too long to work on"),
					psprintf("It was given up after imgpipe.decoder_timeout (%d ms).",
							 imgpipe_decoder_timeout),
					"Raise imgpipe.decoder_timeout, or use a smaller image or a cheaper pipeline.");
	}

	while ((got = recv(decoder.socket, reply, sizeof(*reply), MSG_TRUNC)) < 0 && errno == EINTR)
		;
	if (got <= 0)
		return decoder_lost(failure);
	if (got != sizeof(*reply) || reply->magic != DECODER_MAGIC)
		return decoder_dishonest(failure, "a frame of the wrong size or kind");
	return true;
}

static bool
facts_are_sane(const ImageFacts *facts)
{
	return facts->layout == IMAGE_FACTS_LAYOUT &&
		image_format_name(facts->format) != NULL &&
		facts->width > 0 && facts->width <= PG_INT32_MAX &&
		facts->height > 0 && facts->height <= PG_INT32_MAX &&
		facts->pages > 0 && facts->pages <= PG_INT32_MAX &&
		facts->orientation >= 1 && facts->orientation <= 8 &&
		facts->reserved == 0;
}

/* What a person is told of a refusal. */
static bool
refused(const DecoderRequest *request, const DecoderReply *reply, const char *bytes,
		DecoderFailure *failure)
{
	const char *format = image_format_name(reply->facts.format);
	char		message[DECODER_MESSAGE_SIZE];
	char		start[2 * 12 + 1];
	Size		shown = Min(request->input_length[0], 12);
	int			i;

	/* The decoder's words may be anything: keep what can be printed anywhere. */
	strlcpy(message, reply->message, sizeof(message));
	for (i = 0; message[i] != '\0'; i++)
		if (message[i] < ' ' || message[i] > '~')
			message[i] = '?';
	message[0] = pg_toupper((unsigned char) message[0]);
	if (format == NULL)
		format = "unknown";

	switch ((DecoderStatus) reply->status)
	{
		case DECODER_UNRECOGNIZED:
			start[hex_encode(bytes, shown, start)] = '\0';
			return fail(failure, DECODER_REJECTED, ERRCODE_INVALID_BINARY_REPRESENTATION,
						pstrdup("bytes are not an image of a known format"),
						psprintf("The " UINT64_FORMAT " bytes begin with \\x%s.",
								 request->input_length[0], start),
						"Known formats are JPEG, PNG, WebP, GIF, TIFF, HEIC and AVIF.");
		case DECODER_UNSUPPORTED:
			return fail(failure, DECODER_REJECTED, ERRCODE_FEATURE_NOT_SUPPORTED,
						psprintf("image format %s is not supported by this server's libvips", format),
						psprintf("%s.", message),
						"Install libvips with support for the format, or convert the image first.");
		case DECODER_CORRUPT:
			return fail(failure, DECODER_REJECTED, ERRCODE_INVALID_BINARY_REPRESENTATION,
						psprintf("invalid or damaged %s image", format),
						psprintf("%s.", message),
						"The file is damaged or was cut short; send it again.");
		case DECODER_INVALID_OPERATION:
			return fail(failure, DECODER_REJECTED, ERRCODE_INVALID_PARAMETER_VALUE,
						pstrdup("pipeline does not fit the image"),
						psprintf("%s.", message), NULL);
		case DECODER_OUT_OF_MEMORY:
			return fail(failure, DECODER_REJECTED, ERRCODE_PROGRAM_LIMIT_EXCEEDED,
						pstrdup("image needs more memory than its decoder may have"),
						psprintf("imgpipe.decoder_memory_limit is %d MB.", decoder.memory_limit),
						"Raise imgpipe.decoder_memory_limit, or use a smaller image.");
		case DECODER_LIMIT:
			switch ((DecoderLimit) reply->limit)
			{
				case DECODER_LIMIT_PIXELS:
					return fail(failure, DECODER_REJECTED, ERRCODE_PROGRAM_LIMIT_EXCEEDED,
								pstrdup("image has too many pixels"),
								psprintf("It has " UINT64_FORMAT " pixels (%s, %u x %u, %u pages); the limit is %d million.",
										 reply->value, format, reply->facts.width, reply->facts.height,
										 reply->facts.pages, imgpipe_max_megapixels),
								"A superuser can raise imgpipe.max_megapixels.");
				case DECODER_LIMIT_PAGES:
					return fail(failure, DECODER_REJECTED, ERRCODE_PROGRAM_LIMIT_EXCEEDED,
								pstrdup("image has too many pages"),
								psprintf("It has " UINT64_FORMAT "; the limit is %d.",
										 reply->value, imgpipe_max_pages),
								"A superuser can raise imgpipe.max_pages.");
				case DECODER_LIMIT_OUTPUT_PIXELS:
					return fail(failure, DECODER_REJECTED, ERRCODE_PROGRAM_LIMIT_EXCEEDED,
								pstrdup("pipeline would make an image of too many pixels"),
								psprintf("It would have " UINT64_FORMAT "; the limit is %d million.",
										 reply->value, imgpipe_max_output_megapixels),
								"A superuser can raise imgpipe.max_output_megapixels.");
				default:
					return decoder_dishonest(failure, "an unknown limit");
			}
		case DECODER_FAILED:
			return fail(failure, DECODER_REJECTED, ERRCODE_EXTERNAL_ROUTINE_EXCEPTION,
						pstrdup("image decoder failed"), psprintf("%s.", message), NULL);
		default:
			return decoder_dishonest(failure, "an unknown status");
	}
}

/*
 * The whole of a request: bytes and pipelines in, a checked reply out.  The
 * outputs are still in the shared memory, from reply_offset(request) on.
 */
static bool
ask(DecoderOperation operation, const char *bytes, Size length,
	int n_outputs, const char *const *pipelines,
	DecoderRequest *request, DecoderReply *reply, DecoderFailure *failure)
{
	char	   *message;
	off_t		offset;
	int			i;

	if (failure != NULL)
		memset(failure, 0, sizeof(*failure));
	if (!decoder_start(failure))
		return false;

	memset(request, 0, sizeof(*request));
	request->magic = DECODER_MAGIC;
	request->operation = operation;
	request->n_inputs = bytes != NULL ? 1 : 0;
	request->n_outputs = n_outputs;
	request->max_pixels = (uint64) imgpipe_max_megapixels * 1000000;
	request->max_output_pixels = (uint64) imgpipe_max_output_megapixels * 1000000;
	request->max_pages = imgpipe_max_pages;
	request->allowed_formats = ~0;
	request->input_length[0] = length;

	if (bytes != NULL && !write_memory(bytes, length, 0))
		goto no_room;
	offset = length;
	for (i = 0; pipelines != NULL && i < n_outputs; i++)
	{
		request->pipeline_length[i] = strlen(pipelines[i]);
		if (!write_memory(pipelines[i], request->pipeline_length[i], offset))
			goto no_room;
		offset += request->pipeline_length[i];
	}

	if (!exchange(request, reply, failure))
		return false;
	if (reply->status != DECODER_OK)
	{
		if (!refused(request, reply, bytes, failure) && failure != NULL && n_outputs > 0)
			failure->output = reply->failed_output < n_outputs ? reply->failed_output : -1;
		return false;
	}
	if (reply->n_outputs != (operation == DECODER_PROBE ? 0 : n_outputs))
		return decoder_dishonest(failure, "a wrong number of outputs");
	if (operation != DECODER_SELF_TEST && !facts_are_sane(&reply->facts))
		return decoder_dishonest(failure, "facts of no image");
	return true;

no_room:
	message = psprintf("could not hand an image to the decoder: %m");
	decoder_kill();
	return fail(failure, DECODER_LOST, ERRCODE_OUT_OF_MEMORY, message,
				psprintf("It has %zu bytes.", length), NULL);
}

/* Gives back what a large request has taken. */
static void
release_memory(uint64 used)
{
	if (decoder.pid != 0 && used > KEPT_MEMORY && ftruncate(decoder.memory, 0) < 0)
		decoder_kill();
}

bool
decoder_probe(const char *bytes, Size length, ImageFacts *facts, DecoderFailure *failure)
{
	DecoderRequest request;
	DecoderReply reply;
	bool		done;

	if (length == 0)
		return fail(failure, DECODER_REJECTED, ERRCODE_INVALID_BINARY_REPRESENTATION,
					pstrdup("image is empty"), pstrdup("It has 0 bytes."), NULL);
	if (length > (Size) imgpipe_max_bytes * 1024)
		return fail(failure, DECODER_REJECTED, ERRCODE_PROGRAM_LIMIT_EXCEEDED,
					pstrdup("image is too large"),
					psprintf("It has %zu bytes; the limit is %d kB.", length, imgpipe_max_bytes),
					"A superuser can raise imgpipe.max_bytes.");

	done = ask(DECODER_PROBE, bytes, length, 0, NULL, &request, &reply, failure);
	release_memory(length);
	if (done)
		*facts = reply.facts;
	return done;
}

/* Reads one output of a checked reply into a new image. */
static Image *
read_output(const DecoderReply *reply, int output, uint64 offset)
{
	Size		length = reply->output_length[output];
	Image	   *image = palloc(IMAGE_HEADER_SIZE + length);

	SET_VARSIZE(image, IMAGE_HEADER_SIZE + length);
	image->facts = reply->output_facts[output];
	return read_memory(image->bytes, length, offset) ? image : NULL;
}

bool
decoder_process(const Image *image, int n_outputs, const char *const *pipelines,
				Image **outputs, DecoderFailure *failure)
{
	DecoderRequest request;
	DecoderReply reply;
	uint64		offset;
	int			i;

	Assert(n_outputs > 0 && n_outputs <= DECODER_MAX_OUTPUTS);
	if (!ask(DECODER_PROCESS, image->bytes, IMAGE_LENGTH(image), n_outputs, pipelines,
			 &request, &reply, failure))
		return false;

	offset = reply_offset(&request);
	for (i = 0; i < n_outputs; i++)
	{
		if (reply.output_length[i] == 0 ||
			reply.output_length[i] > MaxAllocSize - IMAGE_HEADER_SIZE ||
			!facts_are_sane(&reply.output_facts[i]))
			return decoder_dishonest(failure, "an output that is no image");
		CHECK_FOR_INTERRUPTS();
		outputs[i] = read_output(&reply, i, offset);
		if (outputs[i] == NULL)
			return decoder_dishonest(failure, "an output that is not there");
		offset += reply.output_length[i];
	}
	release_memory(offset);
	return true;
}

char *
decoder_self_test(void)
{
	DecoderRequest request;
	DecoderReply reply;
	char	   *lines;
	Size		length;

	ask(DECODER_SELF_TEST, NULL, 0, 1, NULL, &request, &reply, NULL);
	length = reply.output_length[0];
	if (length > BLCKSZ)
		decoder_dishonest(NULL, "a self-test of too many words");
	lines = palloc0(length + 1);
	if (!read_memory(lines, length, reply_offset(&request)))
		decoder_dishonest(NULL, "an output that is not there");
	return lines;
}

/* Puts a failure together, or throws it where the caller wants none. */
static bool
fail(DecoderFailure *failure, DecoderFailureKind kind, int sqlerrcode,
	 char *message, char *detail, const char *hint)
{
	DecoderFailure thrown;

	if (failure == NULL)
		failure = memset(&thrown, 0, sizeof(thrown));
	failure->kind = kind;
	failure->sqlerrcode = sqlerrcode;
	failure->output = -1;
	failure->message = message;
	failure->detail = detail;
	failure->hint = hint ? pstrdup(hint) : NULL;
	if (failure == &thrown)
		decoder_throw(failure);
	return false;
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
