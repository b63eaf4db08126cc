/*
 * decoder_harness.h
 *		What decoder_test.c and fuzz/decoder_fuzz.c stand on: TAP, files, images, and a decoder to talk to.
 *
 * Functions in a header, so that a test stays one file to compile; not every
 * test calls all of them.
 */
#pragma GCC diagnostic ignored "-Wunused-function"

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "decoder/protocol.h"

#ifndef PATIENCE
#define PATIENCE		60000	/* ms until a silent decoder counts as hung */
#endif
#define MEGABYTE		(UINT64_C(1024) * 1024)
#define MEMORY_LIMIT	(512 * MEGABYTE)

typedef struct Decoder
{
	pid_t		pid;
	int			socket;
	int			memory;
} Decoder;

typedef struct Bytes
{
	char	   *bytes;
	size_t		length;
} Bytes;

static const char *program;
static bool unsandboxed;
static char folder[128];
static int	n_tests;
static int	n_failed;
static Decoder decoder;
static DecoderReply reply;

/*
 * TAP
 */
static bool __attribute__((format(printf, 2, 3)))
check(bool passed, const char *format,...)
{
	va_list		arguments;

	n_tests++;
	if (!passed)
		n_failed++;
	printf("%s %d - ", passed ? "ok" : "not ok", n_tests);
	va_start(arguments, format);
	vprintf(format, arguments);
	va_end(arguments);
	printf("\n");
	fflush(stdout);
	return passed;
}

static void
check_number(long got, long expected, const char *what)
{
	if (!check(got == expected, "%s", what))
		printf("#   got %ld, expected %ld; the decoder says: %s\n", got, expected, reply.message);
}

static void __attribute__((format(printf, 1, 2), noreturn))
bail_out(const char *format,...)
{
	va_list		arguments;

	printf("Bail out! ");
	va_start(arguments, format);
	vprintf(format, arguments);
	va_end(arguments);
	printf("\n");
	exit(1);
}

/*
 * Files
 */
static void
make_folder(void)
{
	const char *parent = getenv("TMPDIR");

	snprintf(folder, sizeof(folder), "%s/decoder_test.XXXXXX", parent != NULL ? parent : "/tmp");
	if (mkdtemp(folder) == NULL)
		bail_out("could not make %s: %s", folder, strerror(errno));
}

static void
remove_folder(void)
{
	char		command[160];

	snprintf(command, sizeof(command), "rm -rf %s", folder);
	if (system(command) != 0)
		printf("# could not remove %s\n", folder);
}

static const char *
path_of(const char *name)
{
	static char path[4][256];
	static int	next;

	next = (next + 1) % 4;
	snprintf(path[next], sizeof(path[next]), "%s/%s", folder, name);
	return path[next];
}

static bool
read_path(const char *path, Bytes *file)
{
	FILE	   *stream = fopen(path, "rb");
	struct stat status;

	if (stream == NULL)
		return false;
	if (fstat(fileno(stream), &status) != 0 || !S_ISREG(status.st_mode))
	{
		fclose(stream);
		return false;
	}
	file->length = status.st_size;
	file->bytes = malloc(file->length + 1);
	if (fread(file->bytes, 1, file->length, stream) != file->length)
		bail_out("could not read %s", path);
	fclose(stream);
	return true;
}

static Bytes
read_file(const char *name)
{
	Bytes		file;

	if (!read_path(path_of(name), &file))
		bail_out("could not open %s", path_of(name));
	return file;
}

static void
write_file(const char *name, const void *bytes, size_t length)
{
	FILE	   *stream = fopen(path_of(name), "wb");

	if (stream == NULL || fwrite(bytes, 1, length, stream) != length || fclose(stream) != 0)
		bail_out("could not write %s", path_of(name));
}

/* Runs vips in the folder of test images. */
static bool __attribute__((format(printf, 1, 2)))
vips(const char *format,...)
{
	char		arguments[512];
	char		command[1024];
	va_list		list;

	va_start(list, format);
	vsnprintf(arguments, sizeof(arguments), format, list);
	va_end(list);
	snprintf(command, sizeof(command), "cd %s && vips %s >/dev/null 2>&1", folder, arguments);
	return system(command) == 0;
}

static void
read_pixel(const char *name, int x, int y, int *pixel, int bands)
{
	char		command[512];
	FILE	   *stream;
	int			i;

	snprintf(command, sizeof(command), "vips getpoint %s %d %d", path_of(name), x, y);
	stream = popen(command, "r");
	for (i = 0; i < bands; i++)
	{
		double		value = -1;

		if (fscanf(stream, "%lf", &value) != 1)
			value = -1;
		pixel[i] = (int) value;
	}
	pclose(stream);
}

/*
 * Talking to a decoder
 */
static Decoder
start_decoder(uint64_t memory_limit)
{
	Decoder		started;
	int			pair[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0 ||
		(started.memory = memfd_create("decoder_test", MFD_CLOEXEC)) < 0)
		bail_out("could not make a socket and a memory file: %s", strerror(errno));
	started.pid = fork();
	if (started.pid == 0)
	{
		char		limit[64];
		char		parent[64];
		char	   *arguments[] = {(char *) program, limit, parent,
		unsandboxed ? "--allow-unsandboxed" : NULL, NULL};
		char	   *environment[] = {NULL};
		int			null = open("/dev/null", O_RDWR);

		snprintf(limit, sizeof(limit), "--memory-limit=%llu",
				 unsandboxed ? 0 : (unsigned long long) memory_limit);
		snprintf(parent, sizeof(parent), "--parent=%d", (int) getppid());
		/* Out of the way of 3 and 4 first. */
		pair[1] = fcntl(pair[1], F_DUPFD, 20);
		started.memory = fcntl(started.memory, F_DUPFD, 20);
		dup2(pair[1], DECODER_SOCKET_FD);
		dup2(started.memory, DECODER_MEMORY_FD);
		dup2(null, 0);
		dup2(null, 1);
		if (!unsandboxed)
			dup2(null, 2);		/* sanitizers have something to say there */
		execve(program, arguments, environment);
		_exit(127);
	}
	close(pair[1]);
	started.socket = pair[0];
	return started;
}

/* Hangs up; the exit status as waitpid() tells it. */
static int
stop_decoder(Decoder *stopped)
{
	int			status = -1;

	close(stopped->socket);
	close(stopped->memory);
	waitpid(stopped->pid, &status, 0);
	return status;
}

/* False where the decoder died or does not answer. */
static bool
exchange(Decoder *other, const void *frame, size_t length)
{
	struct pollfd wait = {.fd = other->socket, .events = POLLIN};

	memset(&reply, 0, sizeof(reply));
	if (send(other->socket, frame, length, MSG_NOSIGNAL) != (ssize_t) length)
		return false;
	if (poll(&wait, 1, PATIENCE) != 1)
	{
		printf("# no answer within %d ms\n", PATIENCE);
		return false;
	}
	return recv(other->socket, &reply, sizeof(reply), 0) == (ssize_t) sizeof(reply) &&
		reply.magic == DECODER_MAGIC;
}

static DecoderRequest
new_request(DecoderOperation operation)
{
	DecoderRequest request = {
		.magic = DECODER_MAGIC,
		.operation = operation,
		.max_pixels = 100 * 1000 * 1000,
		.max_output_pixels = 100 * 1000 * 1000,
		.max_pages = 100,
		.allowed_formats = 0xfffffffe
	};

	return request;
}

/* Puts input and pipelines where the decoder finds them. */
static void
write_job(Decoder *other, DecoderRequest *request, Bytes input,
		  int n_pipelines, const char *const *pipelines)
{
	off_t		offset = input.length;
	int			i;

	if (ftruncate(other->memory, 0) != 0 ||
		pwrite(other->memory, input.bytes, input.length, 0) != (ssize_t) input.length)
		bail_out("could not write to the memory file");
	request->n_inputs = 1;
	request->input_length[0] = input.length;
	request->n_outputs = n_pipelines;
	for (i = 0; i < n_pipelines; i++)
	{
		request->pipeline_length[i] = strlen(pipelines[i]);
		if (pwrite(other->memory, pipelines[i], strlen(pipelines[i]), offset) < 0)
			bail_out("could not write to the memory file");
		offset += strlen(pipelines[i]);
	}
}

static bool
send_inputs(Decoder *other, DecoderRequest *request, int n_inputs, const Bytes *inputs,
			int n_pipelines, const char *const *pipelines)
{
	off_t		offset = 0;
	int			i;

	if (ftruncate(other->memory, 0) != 0)
		bail_out("could not empty the memory file");
	request->n_inputs = n_inputs;
	for (i = 0; i < n_inputs; i++)
	{
		request->input_length[i] = inputs[i].length;
		if (pwrite(other->memory, inputs[i].bytes, inputs[i].length, offset) != (ssize_t) inputs[i].length)
			bail_out("could not write to the memory file");
		offset += inputs[i].length;
	}
	request->n_outputs = n_pipelines;
	for (i = 0; i < n_pipelines; i++)
	{
		request->pipeline_length[i] = strlen(pipelines[i]);
		if (pwrite(other->memory, pipelines[i], strlen(pipelines[i]), offset) < 0)
			bail_out("could not write to the memory file");
		offset += strlen(pipelines[i]);
	}
	return exchange(other, request, sizeof(*request));
}

static bool
send_job(Decoder *other, DecoderRequest *request, Bytes input,
		 int n_pipelines, const char *const *pipelines)
{
	return send_inputs(other, request, 1, &input, n_pipelines, pipelines);
}

static int
probe(Bytes input)
{
	DecoderRequest request = new_request(DECODER_PROBE);

	if (!send_job(&decoder, &request, input, 0, NULL))
		return -1;
	return reply.status;
}

static int
process(Bytes input, const char *pipeline)
{
	DecoderRequest request = new_request(DECODER_PROCESS);

	if (!send_job(&decoder, &request, input, 1, &pipeline))
		return -1;
	return reply.status;
}

/* Writes output number of the last reply to a file. */
static void
keep_output(const DecoderRequest *request, int number, const char *name)
{
	uint64_t	offset = reply_offset(request);
	size_t		length = reply.output_length[number];
	char	   *bytes = malloc(length);
	int			i;

	for (i = 0; i < number; i++)
		offset += reply.output_length[i];
	if (pread(decoder.memory, bytes, length, offset) != (ssize_t) length)
		bail_out("the output is not where the reply says");
	write_file(name, bytes, length);
	free(bytes);
}

static void
process_to_file(Bytes input, const char *pipeline, const char *name)
{
	DecoderRequest request = new_request(DECODER_PROCESS);

	if (send_job(&decoder, &request, input, 1, &pipeline) && reply.status == DECODER_OK)
		keep_output(&request, 0, name);
	else
		check(false, "%s: %s", pipeline, reply.message);
}

/* In kB, from /proc. */
static long
memory_of(pid_t pid, const char *field)
{
	char		line[256];
	char		path[64];
	long		value = -1;
	FILE	   *stream;

	snprintf(path, sizeof(path), "/proc/%d/status", (int) pid);
	stream = fopen(path, "r");
	if (stream == NULL)
		return -1;
	while (fgets(line, sizeof(line), stream) != NULL)
	{
		if (strncmp(line, field, strlen(field)) == 0)
			value = atol(line + strlen(field) + 1);
	}
	fclose(stream);
	return value;
}

/*
 * Making images
 */

/* Quarters: red, green above blue, white. */
static void
make_quarters(const char *name, int width, int height)
{
	char	   *bytes = malloc(64 + (size_t) width * height * 3);
	int			length = sprintf(bytes, "P6\n%d %d\n255\n", width, height);
	int			x;
	int			y;

	for (y = 0; y < height; y++)
	{
		for (x = 0; x < width; x++)
		{
			bool		right = x >= width / 2;
			bool		below = y >= height / 2;

			bytes[length++] = right == below ? '\xff' : '\0';
			bytes[length++] = right ? '\xff' : '\0';
			bytes[length++] = below ? '\xff' : '\0';
		}
	}
	write_file(name, bytes, length);
	free(bytes);
}

/* A JPEG with an EXIF block that holds an orientation and nothing else. */
static Bytes
with_orientation(Bytes jpeg, int orientation)
{
	char		exif[] =
		"\xff\xe1\x00\x22" "Exif\0\0" "MM\0\x2a\0\0\0\x08"
		"\0\x01" "\x01\x12\0\x03\0\0\0\x01\0\0\0\0" "\0\0\0\0";
	Bytes		result;

	exif[29] = orientation;
	result.length = jpeg.length + 36;
	result.bytes = malloc(result.length);
	memcpy(result.bytes, jpeg.bytes, 2);
	memcpy(result.bytes + 2, exif, 36);
	memcpy(result.bytes + 38, jpeg.bytes + 2, jpeg.length - 2);
	return result;
}

static uint32_t
png_crc(const unsigned char *bytes, size_t length)
{
	uint32_t	crc = 0xffffffff;
	size_t		i;
	int			bit;

	for (i = 0; i < length; i++)
	{
		crc ^= bytes[i];
		for (bit = 0; bit < 8; bit++)
			crc = (crc >> 1) ^ ((crc & 1) ? 0xedb88320 : 0);
	}
	return ~crc;
}

/* The beginning of a PNG of any size. */
static Bytes
make_png_header(uint32_t width, uint32_t height)
{
	static unsigned char png[] =
		"\x89PNG\r\n\x1a\n" "\0\0\0\x0d" "IHDR" "wwwwhhhh" "\x08\x02\0\0\0" "cccc"
		"\0\0\0\x0a" "IDAT" "\x78\x9c\x63\x60\x00\x00\x00\x02\x00\x01" "cccc";
	Bytes		result = {(char *) png, sizeof(png) - 1};
	uint32_t	crc;
	int			i;

	for (i = 0; i < 4; i++)
	{
		png[16 + i] = width >> (24 - 8 * i);
		png[20 + i] = height >> (24 - 8 * i);
	}
	crc = png_crc(png + 12, 17);
	for (i = 0; i < 4; i++)
		png[29 + i] = crc >> (24 - 8 * i);
	crc = png_crc(png + 37, 14);
	for (i = 0; i < 4; i++)
		png[51 + i] = crc >> (24 - 8 * i);
	return result;
}

static void
make_images(void)
{
	make_quarters("quarters.ppm", 640, 480);
	if (!vips("copy quarters.ppm q.jpg[Q=95]") ||
		!vips("copy quarters.ppm progressive.jpg[interlace]") ||
		!vips("copy quarters.ppm q.png") ||
		!vips("copy quarters.ppm interlaced.png[interlace]") ||
		!vips("copy quarters.ppm q.webp[lossless]") ||
		!vips("copy quarters.ppm q.gif") ||
		!vips("copy quarters.ppm q.tif") ||
		!vips("icc_transform quarters.ppm p3.jpg[Q=95] p3") ||
		!vips("icc_transform quarters.ppm cmyk.jpg[Q=95] cmyk") ||
		!vips("colourspace quarters.ppm deep.png rgb16") ||
		!vips("colourspace quarters.ppm gray.jpg b-w") ||
		!vips("bandjoin_const quarters.ppm half.png 128") ||
		!vips("linear half.png clear.v '1 1 1 0' '0 0 0 0'") ||
		!vips("cast clear.v clear.png uchar") ||
		/* Later versions write frames of a GIF that are alike only once. */
		!vips("rot quarters.ppm turned.ppm d180") ||
		!vips("arrayjoin 'quarters.ppm turned.ppm quarters.ppm' pages.gif[page_height=480] --across 1") ||
		!vips("arrayjoin 'quarters.ppm quarters.ppm quarters.ppm' pages.tif[page_height=480] --across 1") ||
		!vips("arrayjoin 'quarters.ppm quarters.ppm quarters.ppm' pages.webp[page_height=480] --across 1") ||
		!vips("colourspace half.png deep-half.png rgb16") ||
		!vips("resize quarters.ppm small.png 0.025") ||
		!vips("black one.png 1 1") ||
		!vips("black strip.jpg 1568 1 --bands 3") ||
		!vips("black black.jpg[interlace] 12000 12000 --bands 3"))
		bail_out("could not make the test images: is libvips-tools installed?");
	/* Not every libvips can write these. */
	if (!vips("copy quarters.ppm q.avif"))
		printf("# this libvips writes no AVIF\n");
	if (!vips("copy quarters.ppm q.heic"))
		printf("# this libvips writes no HEIC\n");
}

static bool
exists(const char *name)
{
	return access(path_of(name), R_OK) == 0;
}
