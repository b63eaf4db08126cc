/*
 * hostile_decoder.c
 *		Stands in for imgpipe-decoder and answers with every kind of nonsense.
 *
 * What a decoder could do that was taken over through an image, and more: this
 * one has no sandbox.  The images tell it what to do.  They are text, three
 * words of which are the attacks on a probe, a process and, remembered until
 * then, a self-test; "honest" is none.  test/t/032_decoder_faults.pl puts it in
 * the place of the real program and looks what becomes of the server.
 */
#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "decoder/protocol.h"

#define OUTPUT_LENGTH	100		/* of each output that is honest */
#define GIGABYTE		(UINT64_C(1024) * 1024 * 1024)

static DecoderRequest request;
static DecoderReply reply;
static char words[3][64] = {"honest", "honest", "honest"};

static void
answer(size_t length)
{
	while (send(DECODER_SOCKET_FD, &reply, length, MSG_NOSIGNAL) < 0 && errno == EINTR)
		;
}

static void
resize_memory(uint64_t length)
{
	if (ftruncate(DECODER_MEMORY_FD, length) != 0)
		_exit(10);
}

static void
write_memory(const char *text, size_t length)
{
	if (pwrite(DECODER_MEMORY_FD, text, length, reply_offset(&request)) != (ssize_t) length)
		_exit(11);
}

static void
answer_self_test(const char *text, size_t length)
{
	write_memory(text, length);
	reply.output_length[0] = length;
	answer(sizeof(reply));
}

/*
 * Attacks that are more than a wrong number.  Each sends what it sends.
 */
static void
be_silent(void)
{
	for (;;)
		pause();
}

static void
hang_up(void)
{
	close(DECODER_SOCKET_FD);
	be_silent();
}

static void
end_by_fault(void)
{
	signal(SIGSEGV, SIG_DFL);
	raise(SIGSEGV);
}

static void
end_by_exit(void)
{
	_exit(42);
}

static void
send_short_frame(void)
{
	answer(sizeof(reply) - 1);
}

static void
send_long_frame(void)
{
	static char frame[65536];

	memcpy(frame, &reply, sizeof(reply));
	if (send(DECODER_SOCKET_FD, frame, sizeof(frame), MSG_NOSIGNAL) < 0)
		_exit(12);
}

static void
send_empty_frame(void)
{
	answer(0);
}

static void
send_twice(void)
{
	answer(sizeof(reply));
	answer(sizeof(reply));
}

/* Answers for ever, and never reads again. */
static void
flood(void)
{
	for (;;)
		answer(sizeof(reply));
}

/* A frame that brings descriptors along. */
static void
send_descriptors(void)
{
	int			descriptors[8];
	char		control[CMSG_SPACE(sizeof(descriptors))] = {0};
	struct iovec part = {&reply, sizeof(reply)};
	struct msghdr message = {
		.msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)
	};
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);
	size_t		i;

	for (i = 0; i < sizeof(descriptors) / sizeof(descriptors[0]); i++)
		descriptors[i] = DECODER_MEMORY_FD;
	header->cmsg_level = SOL_SOCKET;
	header->cmsg_type = SCM_RIGHTS;
	header->cmsg_len = CMSG_LEN(sizeof(descriptors));
	memcpy(CMSG_DATA(header), descriptors, sizeof(descriptors));
	if (sendmsg(DECODER_SOCKET_FD, &message, MSG_NOSIGNAL) < 0)
		_exit(13);
}

static void
cut_memory(void)
{
	resize_memory(0);
	answer(sizeof(reply));
}

/* As an idle one does that its client was slow to read from. */
static void
leave_nothing(void)
{
	resize_memory(0);
	answer(sizeof(reply));
	_exit(DECODER_EXIT_IDLE);
}

static void
grow_memory(void)
{
	resize_memory(GIGABYTE * 1024);
	answer(sizeof(reply));
}

/* Outputs of a gigabyte each, which are there: holes cost nothing. */
static void
send_gigabytes(void)
{
	int			i;

	resize_memory(GIGABYTE * 1024);
	for (i = 0; i < reply.n_outputs; i++)
		reply.output_length[i] = GIGABYTE - 4096;
	answer(sizeof(reply));
}

/* Lengths whose sum is small again. */
static void
wrap_around(void)
{
	int			i;

	for (i = 0; i < reply.n_outputs; i++)
		reply.output_length[i] = UINT64_MAX / reply.n_outputs + 1;
	answer(sizeof(reply));
}

static void
fail_without_end(void)
{
	reply.status = DECODER_CORRUPT;
	memset(reply.message, 'A', sizeof(reply.message));
	answer(sizeof(reply));
}

static void
fail_unprintably(void)
{
	reply.status = DECODER_CORRUPT;
	strcpy(reply.message, "%s%n\033[2J\r\n\377\376\001 end");
	answer(sizeof(reply));
}

static void
report_without_end(void)
{
	reply.output_length[0] = 1024 * 1024;
	answer(sizeof(reply));
}

static void
report_nothing_there(void)
{
	resize_memory(0);
	reply.output_length[0] = 4096;
	answer(sizeof(reply));
}

static void
report_without_columns(void)
{
	static const char report[] = "one column\n";

	answer_self_test(report, sizeof(report) - 1);
}

static void
report_unprintably(void)
{
	static const char report[] = "\377\376%s\001\trefused\t\200\n\0\trefused\t\n";

	answer_self_test(report, sizeof(report) - 1);
}

/* The remaining ones make one number wrong: where, how wide and what. */
#define REPLY(field)	offsetof(DecoderReply, field), sizeof(reply.field)

static const struct
{
	const char *name;
	void		(*attack) (void);
	size_t		offset;
	size_t		size;
	uint64_t	value;
}			attacks[] = {
	{"silent", be_silent, 0, 0, 0},
	{"hang-up", hang_up, 0, 0, 0},
	{"fault", end_by_fault, 0, 0, 0},
	{"exit", end_by_exit, 0, 0, 0},
	{"short-frame", send_short_frame, 0, 0, 0},
	{"long-frame", send_long_frame, 0, 0, 0},
	{"empty-frame", send_empty_frame, 0, 0, 0},
	{"twice", send_twice, 0, 0, 0},
	{"flood", flood, 0, 0, 0},
	{"descriptors", send_descriptors, 0, 0, 0},
	{"cut-memory", cut_memory, 0, 0, 0},
	{"leave-nothing", leave_nothing, 0, 0, 0},
	{"grow-memory", grow_memory, 0, 0, 0},
	{"gigabytes", send_gigabytes, 0, 0, 0},
	{"wrap-around", wrap_around, 0, 0, 0},
	{"endless-message", fail_without_end, 0, 0, 0},
	{"unprintable-message", fail_unprintably, 0, 0, 0},
	{"endless-report", report_without_end, 0, 0, 0},
	{"absent-report", report_nothing_there, 0, 0, 0},
	{"malformed-report", report_without_columns, 0, 0, 0},
	{"unprintable-report", report_unprintably, 0, 0, 0},
	{"magic", NULL, REPLY(magic), 0},
	{"status", NULL, REPLY(status), 99},
	{"limit-99", NULL, REPLY(limit), 99},
	{"no-outputs", NULL, REPLY(n_outputs), 0},
	{"more-outputs", NULL, REPLY(n_outputs), 255},
	{"layout", NULL, REPLY(facts.layout), 2},
	{"format-0", NULL, REPLY(facts.format), 0},
	{"format-99", NULL, REPLY(facts.format), 99},
	{"orientation-0", NULL, REPLY(facts.orientation), 0},
	{"orientation-9", NULL, REPLY(facts.orientation), 9},
	{"reserved", NULL, REPLY(facts.reserved), 1},
	{"width-0", NULL, REPLY(facts.width), 0},
	{"width-huge", NULL, REPLY(facts.width), UINT32_MAX},
	{"height-0", NULL, REPLY(facts.height), 0},
	{"pages-0", NULL, REPLY(facts.pages), 0},
	{"pages-huge", NULL, REPLY(facts.pages), UINT32_C(1) << 31},
	{"output-layout", NULL, REPLY(output_facts[0].layout), 0},
	{"output-format", NULL, REPLY(output_facts[0].format), 255},
	{"output-width", NULL, REPLY(output_facts[0].width), 0},
	{"output-empty", NULL, REPLY(output_length[0]), 0},
	{"output-huge", NULL, REPLY(output_length[0]), UINT64_MAX},
	{"output-absent", NULL, REPLY(output_length[0]), OUTPUT_LENGTH + 1},
	{"output-long", NULL, REPLY(output_length[0]), GIGABYTE * 4}
};

static void
prepare_honest_reply(void)
{
	static const ImageFacts facts = {
		.layout = IMAGE_FACTS_LAYOUT, .format = IMAGE_FORMAT_PNG, .orientation = 1, .bands = 3, .depth = 8,
		.color_space = IMAGE_COLOR_SPACE_SRGB, .width = 12, .height = 8, .pages = 1
	};
	static const char report[] = "lie\trefused\tnone\n";
	char		output[OUTPUT_LENGTH * DECODER_MAX_OUTPUTS];
	int			i;

	memset(&reply, 0, sizeof(reply));
	reply.magic = DECODER_MAGIC;
	reply.sandboxed = 1;
	reply.facts = facts;
	reply.n_outputs = request.operation == DECODER_PROBE ? 0 : request.n_outputs;
	if (request.operation == DECODER_SELF_TEST)
	{
		reply.output_length[0] = sizeof(report) - 1;
		write_memory(report, sizeof(report) - 1);
		return;
	}
	for (i = 0; i < reply.n_outputs; i++)
	{
		reply.output_facts[i] = facts;
		reply.output_length[i] = OUTPUT_LENGTH;
	}
	if (reply.n_outputs > 0)
	{
		memset(output, 'x', sizeof(output));
		resize_memory(reply_offset(&request));
		write_memory(output, (size_t) OUTPUT_LENGTH * reply.n_outputs);
	}
}

static void
attack(const char *name)
{
	size_t		i;

	for (i = 0; i < sizeof(attacks) / sizeof(attacks[0]); i++)
	{
		if (strcmp(name, attacks[i].name) != 0)
			continue;
		if (attacks[i].attack != NULL)
		{
			attacks[i].attack();
			return;
		}
		if (attacks[i].offset == offsetof(DecoderReply, limit))
			reply.status = DECODER_LIMIT;
		memcpy((char *) &reply + attacks[i].offset, &attacks[i].value, attacks[i].size);
	}
	answer(sizeof(reply));
}

int
main(void)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
	close_range(DECODER_MEMORY_FD + 1, ~0U, 0);
	while (recv(DECODER_SOCKET_FD, &request, sizeof(request), 0) > 0)
	{
		char		image[256] = "";

		if (request.n_inputs > 0 &&
			pread(DECODER_MEMORY_FD, image, request.input_length[0] < sizeof(image) - 1 ?
				  request.input_length[0] : sizeof(image) - 1, 0) > 0)
			sscanf(image, "%63s %63s %63s", words[0], words[1], words[2]);
		prepare_honest_reply();
		attack(words[request.operation == DECODER_PROBE ? 0 : request.operation == DECODER_PROCESS ? 1 : 2]);
	}
	return 0;
}
