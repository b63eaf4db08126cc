/*
 * client.c
 *		PostgreSQL's side of the image decoder: starts it, asks it, kills it.
 *
 * Each PostgreSQL process has at most one decoder, started by the first
 * request and kept for the next.  It is killed when a request is cancelled,
 * takes longer than imgpipe.decoder_timeout or is answered with nonsense, and
 * when the process exits; should the process be killed itself, the kernel
 * kills the decoder (PR_SET_PDEATHSIG).  It ends by itself when nothing was
 * asked of it for imgpipe.decoder_idle_timeout.  Nobody looks then: until the
 * next request, or the end of the process, an entry in the kernel's table of
 * processes is left of it.
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
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "decoder/client.h"
#include "decoder/failure.h"
#include "imgpipe.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "workers/worker.h"

/* Shared memory above this is given back after the request. */
#define KEPT_MEMORY		(32 * 1024 * 1024)

/* So often a request is made that finds a decoder whose idle time has run out. */
#define MAX_ATTEMPTS	10

typedef struct Decoder
{
	pid_t		pid;			/* 0: none */
	int			socket;
	int			memory;
	WaitEventSet *wait_set;		/* latch, socket, postmaster death */
	int			memory_limit;	/* as it was started, MB */
	int			idle_timeout;	/* ms */
	bool		unsandboxed;
} Decoder;

/* One request: what to do, with what, and what came of it. */
typedef struct Job
{
	DecoderOperation operation;
	int			n_inputs;
	const char *inputs[DECODER_MAX_INPUTS];
	Size		input_lengths[DECODER_MAX_INPUTS];
	int			n_outputs;		/* wanted */
	const char *const *pipelines;	/* as many, or NULL */
	bool		optional;		/* no output is an answer, too */
	Size		header_size;	/* left free before the bytes of each output */
	Size		max_output;		/* bytes of one */

	struct varlena *outputs[DECODER_MAX_OUTPUTS];
	DecoderRequest request;
	DecoderReply reply;
} Job;

static Decoder decoder;

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

/*
 * Reaped here, too: an orphan goes to process 1, which in a container can be
 * the postmaster, and that takes any child that was killed for a crashed
 * backend and restarts.
 */
static void
decoder_kill_at_exit(int code, Datum argument)
{
	/* The wait event set and the descriptors go with the process. */
	if (decoder.pid == 0)
		return;
	kill(decoder.pid, SIGKILL);
	while (waitpid(decoder.pid, NULL, 0) < 0 && errno == EINTR)
		;
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
		_exit(DECODER_EXIT_NOT_STARTED);
	execve(program, arguments, no_environment);
	_exit(DECODER_EXIT_NOT_EXECUTABLE);
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
	struct timeval idle_timeout = {
		.tv_sec = imgpipe_decoder_idle_timeout / 1000,
		.tv_usec = imgpipe_decoder_idle_timeout % 1000 * 1000
	};
	int			sockets[2];
	int			memory;
	int			saved_errno;
	sigset_t	all_signals;
	sigset_t	signals_before;
	pid_t		pid;

	if (decoder.pid != 0 &&
		(decoder.memory_limit != imgpipe_decoder_memory_limit ||
		 decoder.idle_timeout != imgpipe_decoder_idle_timeout ||
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
		return decoder_fail(failure, DECODER_LOST, ERRCODE_INSUFFICIENT_RESOURCES,
							pstrdup("could not start the image decoder: too many open files"), NULL,
							"Raise max_files_per_process.");
	ReserveExternalFD();
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets) < 0)
		goto no_socket;
	memory = memfd_create("imgpipe", MFD_CLOEXEC);
	if (memory < 0)
		goto no_memory;
	/* The decoder ends when it has waited in vain for so long. */
	if (setsockopt(sockets[1], SOL_SOCKET, SO_RCVTIMEO, &idle_timeout, sizeof(idle_timeout)) < 0)
		goto no_process;

	/*
	 * A cancel goes to the whole process group.  Until the child has left it,
	 * our handlers must not run there: they would set our latch in shared
	 * memory without waking us, and then ours would find it set and not do so
	 * either.
	 */
	sigfillset(&all_signals);
	sigprocmask(SIG_SETMASK, &all_signals, &signals_before);
	pid = fork();
	saved_errno = errno;
	if (pid != 0)
		sigprocmask(SIG_SETMASK, &signals_before, NULL);
	errno = saved_errno;
	if (pid < 0)
		goto no_process;
	if (pid == 0)
		become_decoder(program, arguments, sockets[1], memory);

	close(sockets[1]);
	decoder.pid = pid;
	decoder.socket = sockets[0];
	decoder.memory = memory;
	decoder.memory_limit = imgpipe_decoder_memory_limit;
	decoder.idle_timeout = imgpipe_decoder_idle_timeout;
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
	return decoder_fail(failure, DECODER_LOST, ERRCODE_INSUFFICIENT_RESOURCES,
						psprintf("could not start the image decoder: %m"), NULL, NULL);
}

/* The decoder is gone; status says how it ended. */
static bool
decoder_lost(int status, DecoderFailure *failure)
{
	if (WIFEXITED(status) && WEXITSTATUS(status) == DECODER_EXIT_NO_SANDBOX)
		return decoder_fail(failure, DECODER_LOST, ERRCODE_FEATURE_NOT_SUPPORTED,
							pstrdup("image decoder refused to run without its sandbox"),
							pstrdup("This platform has no seccomp, or does not allow it."),
							"A superuser can accept the risk with imgpipe.allow_unsandboxed_decoder = on.");
	if (WIFEXITED(status) && WEXITSTATUS(status) == DECODER_EXIT_NOT_EXECUTABLE)
		return decoder_fail(failure, DECODER_LOST, ERRCODE_UNDEFINED_FILE,
							pstrdup("could not execute the image decoder"),
							psprintf("The program should be \"%s/" DECODER_PROGRAM "\".", pkglib_path),
							"Install imgpipe on this server with make install.");
	if (WIFEXITED(status) && WEXITSTATUS(status) == DECODER_EXIT_OUT_OF_MEMORY)
		return decoder_fail_memory(failure, decoder.memory_limit);
	if (WIFEXITED(status))
		return decoder_fail(failure, DECODER_LOST, ERRCODE_SYSTEM_ERROR,
							psprintf("imgpipe: the image decoder stopped with exit code %d",
									 WEXITSTATUS(status)),
							NULL,
							WEXITSTATUS(status) == DECODER_EXIT_NOT_STARTED ?
							"Run " DECODER_PROGRAM " by hand to see what it lacks; imgpipe.decoder_memory_limit may be too low." :
							"A new one starts with the next request.");
	return decoder_fail(failure, DECODER_LOST, ERRCODE_SYSTEM_ERROR,
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
	return decoder_fail(failure, DECODER_LOST, ERRCODE_PROTOCOL_VIOLATION,
						psprintf("imgpipe: the image decoder broke the protocol: %s", what), NULL,
						"It was stopped. If the same image does this again, report it as a security fault.");
}

static bool
write_memory(const char *bytes, Size length, off_t offset)
{
	while (length > 0)
	{
		ssize_t		written = pwrite(decoder.memory, bytes, Min(length, IMAGE_BYTES_AT_ONCE), offset);

		if (written < 0 && errno == EINTR)
			continue;
		if (written <= 0)
			return false;
		bytes += written;
		length -= written;
		offset += written;
		CHECK_FOR_INTERRUPTS();
	}
	return true;
}

static bool
read_memory(char *bytes, Size length, off_t offset)
{
	while (length > 0)
	{
		ssize_t		got = pread(decoder.memory, bytes, Min(length, IMAGE_BYTES_AT_ONCE), offset);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return false;
		bytes += got;
		length -= got;
		offset += got;
		CHECK_FOR_INTERRUPTS();
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

/*
 * The request and its reply, whose frame is complete but not yet checked.
 * Sets *gone, and nothing else, where the decoder went away without a reply.
 */
static bool
exchange(Job *job, bool *gone, DecoderFailure *failure)
{
	DecoderReply *reply = &job->reply;
	ssize_t		got;
	char		early;

	/*
	 * Never two in flight: nothing can be waiting for us now, and there is
	 * room for a request.  To wait for either could be for ever.
	 */
	if (recv(decoder.socket, &early, sizeof(early), MSG_PEEK | MSG_DONTWAIT) > 0)
		return decoder_dishonest(failure, "an answer to no question");
	while (send(decoder.socket, &job->request, sizeof(job->request), MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
	{
		if (errno == EAGAIN || errno == EWOULDBLOCK)
			return decoder_dishonest(failure, "requests left unread");
		if (errno != EINTR)
		{
			*gone = true;
			return false;
		}
	}

	if (!wait_for_reply())
	{
		decoder_kill();
		return decoder_fail(failure, DECODER_TIMED_OUT, ERRCODE_PROGRAM_LIMIT_EXCEEDED,
							pstrdup("image takes too long to work on"),
							psprintf("It was given up after imgpipe.decoder_timeout (%d ms).",
									 imgpipe_decoder_timeout),
							"Raise imgpipe.decoder_timeout, or use a smaller image or a cheaper pipeline.");
	}

	while ((got = recv(decoder.socket, reply, sizeof(*reply), MSG_TRUNC)) < 0 && errno == EINTR)
		;
	if (got <= 0)
	{
		*gone = true;
		return false;
	}
	if (got != sizeof(*reply) || reply->magic != DECODER_MAGIC)
		return decoder_dishonest(failure, "a frame of the wrong size or kind");
	reply->message[sizeof(reply->message) - 1] = '\0';
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

/* Hands the inputs and pipelines over. */
static bool
write_request(Job *job, DecoderFailure *failure)
{
	DecoderRequest *request = &job->request;
	off_t		offset = 0;
	bool		written = true;
	char	   *message;
	int			i;

	memset(request, 0, sizeof(*request));
	request->magic = DECODER_MAGIC;
	request->operation = job->operation;
	request->n_inputs = job->n_inputs;
	request->n_outputs = job->n_outputs;
	request->max_pixels = (uint64) imgpipe_max_megapixels * 1000000;
	request->max_output_pixels = (uint64) imgpipe_max_output_megapixels * 1000000;
	request->max_pages = imgpipe_max_pages;
	request->allowed_formats = imgpipe_allowed_format_bits;

	for (i = 0; written && i < job->n_inputs; i++)
	{
		request->input_length[i] = job->input_lengths[i];
		written = write_memory(job->inputs[i], job->input_lengths[i], offset);
		offset += job->input_lengths[i];
	}
	for (i = 0; written && job->pipelines != NULL && i < job->n_outputs; i++)
	{
		request->pipeline_length[i] = strlen(job->pipelines[i]);
		written = write_memory(job->pipelines[i], request->pipeline_length[i], offset);
		offset += request->pipeline_length[i];
	}
	if (written)
		return true;

	message = psprintf("could not hand an image to the decoder: %m");
	decoder_kill();
	return decoder_fail(failure, DECODER_LOST, ERRCODE_OUT_OF_MEMORY, message,
						psprintf("It has %zu bytes.", job->input_lengths[0]), NULL);
}

/* Whether the reply is one that an honest decoder sends, and good news. */
static bool
check_reply(const Job *job, DecoderFailure *failure)
{
	const DecoderReply *reply = &job->reply;

	if (reply->status != DECODER_OK)
	{
		const char *nonsense = decoder_explain(reply, job->inputs[0], job->input_lengths[0],
											   decoder.memory_limit, failure);

		if (nonsense != NULL)
			return decoder_dishonest(failure, nonsense);
		if (job->operation == DECODER_PROCESS)
			failure->output = reply->failed_output < job->n_outputs ? reply->failed_output : -1;
		return false;
	}
	if (reply->n_outputs != job->n_outputs && !(job->optional && reply->n_outputs == 0))
		return decoder_dishonest(failure, "a wrong number of outputs");
	if (job->operation != DECODER_SELF_TEST && !facts_are_sane(&reply->facts))
		return decoder_dishonest(failure, "facts of no image");
	return true;
}

/*
 * Copies the outputs of a checked reply, which is not yet checked as to these.
 * Sets *gone, and nothing else, where the decoder took them with it.
 */
static bool
read_outputs(Job *job, bool *gone, DecoderFailure *failure)
{
	const DecoderReply *reply = &job->reply;
	uint64		offset = reply_offset(&job->request);
	uint64		room = (uint64) decoder.memory_limit * 1024 * 1024;
	int			i;

	/* The file of a sandboxed decoder ends at its memory limit; holes in it are cheap, our copies are not. */
	for (i = 0; i < reply->n_outputs; i++)
	{
		if (reply->output_length[i] > room)
			return decoder_dishonest(failure, "more output than its memory can hold");
		room -= reply->output_length[i];
	}

	for (i = 0; i < reply->n_outputs; i++)
	{
		Size		length = reply->output_length[i];

		if (job->operation == DECODER_PROCESS && (length == 0 || !facts_are_sane(&reply->output_facts[i])))
			return decoder_dishonest(failure, "an output that is no image");
		if (length > job->max_output)
			return decoder_dishonest(failure, "an output of too many bytes");
		job->outputs[i] = palloc(job->header_size + length);
		SET_VARSIZE(job->outputs[i], job->header_size + length);
		if (!read_memory((char *) job->outputs[i] + job->header_size, length, offset))
		{
			char		next;

			/* We came so late that it was idle for too long: then it has emptied the memory, and ends. */
			*gone = wait_for_reply() && recv(decoder.socket, &next, sizeof(next), MSG_PEEK | MSG_DONTWAIT) <= 0;
			return *gone ? false : decoder_dishonest(failure, "an output that is not there");
		}
		offset += length;
	}
	return true;
}

/* Of a checked reply to a probe of several inputs: of each its facts, and nothing else. */
static bool
check_probed(const Job *job, DecoderFailure *failure)
{
	const DecoderReply *reply = &job->reply;
	int			i;

	for (i = 0; i < reply->n_outputs; i++)
		if (reply->output_length[i] != 0 || !facts_are_sane(&reply->output_facts[i]))
			return decoder_dishonest(failure, "facts of no image");
	return true;
}

/* The whole of a request. */
static bool
ask(Job *job, DecoderFailure *failure)
{
	int			n_attempts = 0;

	for (;;)
	{
		bool		gone = false;
		bool		done;
		int			status;

		done = decoder_start(failure) && write_request(job, failure) &&
			exchange(job, &gone, failure) && check_reply(job, failure) &&
			(job->operation == DECODER_PROBE ? check_probed(job, failure) : read_outputs(job, &gone, failure));
		if (!gone)
			return done;

		/* Its idle time ran out just now: that is nobody's business, though on a busy machine it may happen again. */
		status = decoder_kill();
		if (++n_attempts == MAX_ATTEMPTS || !WIFEXITED(status) || WEXITSTATUS(status) != DECODER_EXIT_IDLE)
			return decoder_lost(status, failure);
	}
}

/* Gives back what a large request has taken. */
static void
release_memory(void)
{
	struct stat status;

	if (decoder.pid != 0 &&
		(fstat(decoder.memory, &status) < 0 ||
		 (status.st_size > KEPT_MEMORY && ftruncate(decoder.memory, 0) < 0)))
		decoder_kill();
}

/*
 * Does the job.  Whatever is thrown out of it, a cancel above all, finds the
 * decoder somewhere in the midst of it, and there is no way back from there.
 */
static bool
run(Job *job, DecoderFailure *failure)
{
	DecoderFailure thrown;
	volatile bool done = false;
	DecoderFailure *const told = failure != NULL ? failure : &thrown;

	memset(told, 0, sizeof(*told));
	PG_TRY();
	{
		done = ask(job, told);
	}
	PG_CATCH();
	{
		decoder_kill();
		PG_RE_THROW();
	}
	PG_END_TRY();
	release_memory();
	if (!done && failure == NULL)
		decoder_throw(&thrown);
	return done;
}

bool
decoder_probe(const char *bytes, Size length, ImageFacts *facts, DecoderFailure *failure)
{
	Job			job = {
		.operation = imgpipe_verify_input ? DECODER_VERIFY : DECODER_PROBE,
		.n_inputs = 1,
		.inputs = {bytes},
		.input_lengths = {length}
	};
	DecoderFailure refusal = {DECODER_NO_FAILURE};

	if (length == 0)
		decoder_fail(&refusal, DECODER_REJECTED, ERRCODE_INVALID_BINARY_REPRESENTATION,
					 pstrdup("image is empty"), pstrdup("It has 0 bytes."), NULL);
	else if (length > (Size) imgpipe_max_bytes * 1024)
		decoder_fail(&refusal, DECODER_REJECTED, ERRCODE_PROGRAM_LIMIT_EXCEEDED,
					 pstrdup("image is too large"),
					 psprintf("It has %zu bytes; the limit is %d kB.", length, imgpipe_max_bytes),
					 "A superuser can raise imgpipe.max_bytes.");
	if (refusal.kind != DECODER_NO_FAILURE)
	{
		if (failure == NULL)
			decoder_throw(&refusal);
		*failure = refusal;
		return false;
	}

	if (!run(&job, failure))
		return false;
	*facts = job.reply.facts;
	return true;
}

bool
decoder_probe_all(int n, const char *const *inputs, const Size *lengths, ImageFacts *facts)
{
	Job			job = {
		.operation = DECODER_PROBE,
		.n_inputs = n,
		.n_outputs = n
	};
	DecoderFailure failure;
	int			i;

	Assert(n > 0 && n <= DECODER_MAX_OUTPUTS);
	if (imgpipe_verify_input)
		return false;
	for (i = 0; i < n; i++)
	{
		if (lengths[i] == 0 || lengths[i] > (Size) imgpipe_max_bytes * 1024)
			return false;
		job.inputs[i] = inputs[i];
		job.input_lengths[i] = lengths[i];
	}
	if (!run(&job, &failure))
		return false;
	memcpy(facts, job.reply.output_facts, sizeof(ImageFacts) * n);
	return true;
}

/* A job on an image that there is. */
static void
job_on_image(Job *job, DecoderOperation operation, const Image *image)
{
	memset(job, 0, sizeof(*job));
	job->operation = operation;
	job->n_inputs = 1;
	job->inputs[0] = image->bytes;
	job->input_lengths[0] = IMAGE_LENGTH(image);
}

bool
decoder_verify(const Image *image, DecoderFailure *failure)
{
	Job			job;

	job_on_image(&job, DECODER_VERIFY, image);
	return run(&job, failure);
}

bool
decoder_process(const Image *const *images, int n_images,
				int n_outputs, const char *const *pipelines,
				Image **outputs, DecoderFailure *failure)
{
	Job			job;
	int			i;

	Assert(n_images > 0 && n_images <= DECODER_MAX_INPUTS);
	Assert(n_outputs > 0 && n_outputs <= DECODER_MAX_OUTPUTS);
	job_on_image(&job, DECODER_PROCESS, images[0]);
	job.n_inputs = n_images;
	for (i = 1; i < n_images; i++)
	{
		job.inputs[i] = images[i]->bytes;
		job.input_lengths[i] = IMAGE_LENGTH(images[i]);
	}
	job.n_outputs = n_outputs;
	job.pipelines = pipelines;
	job.header_size = IMAGE_HEADER_SIZE;
	job.max_output = MaxAllocSize - IMAGE_HEADER_SIZE;
	if (!run(&job, failure))
		return false;

	for (i = 0; i < n_outputs; i++)
	{
		outputs[i] = (Image *) job.outputs[i];
		outputs[i]->facts = job.reply.output_facts[i];
	}
	return true;
}

bytea *
decoder_metadata(const Image *image, DecoderOperation operation)
{
	Job			job;
	bytea	   *output;
	DecoderFailure failure = {DECODER_NO_FAILURE};

	job_on_image(&job, operation, image);
	job.n_outputs = 1;
	job.optional = true;
	job.header_size = VARHDRSZ;
	job.max_output = 3 * DECODER_MAX_METADATA;	/* what is no UTF-8 takes more in UTF-8 */
	run(&job, NULL);
	output = job.outputs[0];
	if (output != NULL && operation != DECODER_ICC_PROFILE &&
		!pg_verify_mbstr(PG_UTF8, VARDATA(output), VARSIZE(output) - VARHDRSZ, true))
	{
		decoder_dishonest(&failure, "text that is not UTF-8");
		decoder_throw(&failure);
	}
	return output;
}

char *
decoder_self_test(void)
{
	Job			job = {
		.operation = DECODER_SELF_TEST,
		.n_outputs = 1,
		.header_size = VARHDRSZ,
		.max_output = BLCKSZ
	};
	char	   *lines;

	run(&job, NULL);
	lines = text_to_cstring(job.outputs[0]);
	decoder_make_printable(lines, "\t\n");
	return lines;
}
