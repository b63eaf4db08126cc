/*
 * decoder_fuzz.c
 *		Sends damaged images and malformed frames to imgpipe-decoder.
 *
 *		decoder_fuzz [option]... path/to/imgpipe-decoder [folder of images]...
 *
 *		--runs=N		mutants to send, each to be probed and processed
 *		--frames=N		malformed frames to send
 *		--seed=N		of both; the same seed makes the same mutants
 *		--only=N		send this mutant alone
 *		--mutants		leave out the files as they are
 *		--jobs=N		decoders at a time
 *		--memory=MB		their memory limit
 *		--save=FOLDER	keep the mutants that ended a decoder or made it hang
 *		--copy=FILE		send nothing: write the mutants for COPY BINARY
 *		--unsandboxed	for a decoder under sanitizers or valgrind
 *
 * The corpus is every file in the folders and small pictures that vips makes in
 * all formats; before its mutants each is sent as it is.  Prints TAP, with counts as comments.  A
 * decoder may end over a mutant, by running out of memory; PostgreSQL makes an
 * error of that.  It may not be ended by a wrong memory access, hang, lie or
 * take more than its limit.  Work that takes too long is PostgreSQL's to stop; it is counted.
 */
#define PATIENCE		30000	/* as imgpipe.decoder_timeout */
#include "../unit/decoder_harness.h"

#include <arpa/inet.h>
#include <getopt.h>

#include "corpus.h"

#define N_STATUSES		(DECODER_FAILED + 1)
#define MAX_SIGNAL		64
#define CAPACITY		(4 * MEGABYTE)	/* of a mutant */

/* After a plus those that take a second image. */
static const char *const pipelines[] = {
	"resize(width=64) | webp",
	"png",
	"crop(width=5, height=3) | sharpen | jpeg",
	"resize(width=40, height=30, fit=cover, gravity=attention) | rotate(angle=90) | png",
	"blur(sigma=2) | grayscale | jpeg(quality=50)",
	"flip | resize(width=32) | keep(metadata=all)",
	"resize(width=300, height=200, fit=contain, enlarge=true) | png(palette=true)",
	"keep(metadata=all, gps=true) | jpeg",
	"keep(metadata=exif) | resize(width=20) | webp",
	"pages(first=1, last=3) | resize(width=30) | gif",
	"trim | rotate(angle=30) | tiff(compression=jpeg)",
	"autorotate(enabled=false) | extend(left=3, top=2) | median | tiff",
	"pixelate | modulate(brightness=1.2, hue=90) | gamma | webp(lossless=true)",
	"normalize | clahe | tint(color=#336699) | invert | jpeg(max_bytes=3000)",
	"flatten | text(text='Ab') | png",
	"resize(width=24, height=24, fit=cover, gravity=entropy) | avif(effort=0)",
	"auto",
	"+composite | jpeg",
	"+resize(width=50) | join | webp"
};

#define N_PIPELINES		(sizeof(pipelines) / sizeof(pipelines[0]))

static const DecoderOperation others[] = {
	DECODER_VERIFY, DECODER_EXIF, DECODER_IPTC, DECODER_XMP, DECODER_ICC_PROFILE
};

#define N_OTHERS		(sizeof(others) / sizeof(others[0]))

/* What all jobs count together, in memory that they share. */
typedef struct Counts
{
	long		sent;
	long		frames;
	long		probed[N_STATUSES];
	long		processed[N_STATUSES];
	long		pipelines[N_PIPELINES]; /* those that gave an output */
	long		nonsense;		/* answers that PostgreSQL would call a lie */
	long		disagreements;	/* refused by the probe, yet processed */
	long		unreadable;		/* outputs that are no image to the decoder */
	long		slow;			/* at work for longer than PostgreSQL would let it */
	long		hung;			/* silent as long, doing nothing */
	long		signals[MAX_SIGNAL];
	long		exhausted;		/* decoders that a library ended because it had no memory */
	long		exits;
	long		retired;		/* decoders that had no more memory to work well */
	long		base_memory;	/* kB, of a decoder that has done nothing */
	long		peak_memory;
	long		descriptors[2]; /* of one decoder, first and last */
	long		finished;		/* jobs */
} Counts;

static const char *const status_names[N_STATUSES] = {
	"ok", "unrecognized", "unsupported", "corrupt", "over a limit", "invalid operation",
	"out of memory", "failed"
};

static Counts *counts;
static uint64_t seed = 1;
static uint64_t memory_megabytes = 512;
static bool mutants_only;
static const char *save_folder;

static void
count(long *counter)
{
	__atomic_fetch_add(counter, 1, __ATOMIC_RELAXED);
}

static void
note_peak(void)
{
	long		now = memory_of(decoder.pid, "VmHWM");
	long		peak = __atomic_load_n(&counts->peak_memory, __ATOMIC_RELAXED);

	while (now > peak && !__atomic_compare_exchange_n(&counts->peak_memory, &peak, now, false,
													   __ATOMIC_RELAXED, __ATOMIC_RELAXED))
		;
}

/* Those of the decoder, or 0 where only root may look. */
static long
count_descriptors(void)
{
	char		path[64];
	DIR		   *directory;
	long		n = 0;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int) decoder.pid);
	directory = opendir(path);
	if (directory == NULL)
		return 0;
	while (readdir(directory) != NULL)
		n++;
	closedir(directory);
	return n;
}

/* Starts every mutant and frame at a place of its own. */
static Random
random_of(long number)
{
	Random		random = {seed * UINT64_C(0x9e3779b97f4a7c15) + number};

	random_next(&random);
	return random;
}

/*
 * Conversations
 */

/* CPU time that the decoder has used, in ms. */
static long
cpu_time(void)
{
	char		path[64];
	char		line[1024] = "";
	unsigned long user = 0;
	unsigned long system = 0;
	FILE	   *stream;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int) decoder.pid);
	stream = fopen(path, "r");
	if (stream != NULL)
	{
		/* Behind the name, which may hold anything: state, ten numbers, these two. */
		if (fgets(line, sizeof(line), stream) != NULL && strrchr(line, ')') != NULL)
			sscanf(strrchr(line, ')') + 1, " %*c %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %lu %lu", &user, &system);
		fclose(stream);
	}
	return (long) ((user + system) * 1000 / sysconf(_SC_CLK_TCK));
}

/*
 * The decoder ended or is silent: counts why and starts another.  True where
 * it ended of its own will, so that the same has to be sent again.
 */
static bool
replace_decoder(const char *what, long number, const void *bytes, size_t length)
{
	char		path[1024];
	char		why[32];
	siginfo_t	info = {0};
	int			status;
	int			i;

	/* It may be on its way out. */
	for (i = 0; i < 1000 && info.si_pid == 0; i++)
	{
		if (waitid(P_PID, decoder.pid, &info, WEXITED | WNOHANG | WNOWAIT) != 0)
			bail_out("lost sight of the decoder");
		if (info.si_pid == 0)
			usleep(1000);
	}
	if (info.si_pid == 0)
	{
		bool		slow = cpu_time() > PATIENCE / 4;

		count(slow ? &counts->slow : &counts->hung);
		snprintf(why, sizeof(why), slow ? "slow" : "hung");
		kill(decoder.pid, SIGKILL);
	}
	status = stop_decoder(&decoder);
	if (info.si_pid != 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0)
	{
		count(&counts->retired);
		decoder = start_decoder(memory_megabytes * MEGABYTE);
		return true;
	}

	if (info.si_pid != 0 && WIFSIGNALED(status))
	{
		count(&counts->signals[WTERMSIG(status) % MAX_SIGNAL]);
		snprintf(why, sizeof(why), "signal-%d", WTERMSIG(status));
	}
	else if (info.si_pid != 0 && WEXITSTATUS(status) == DECODER_EXIT_OUT_OF_MEMORY)
	{
		count(&counts->exhausted);
		snprintf(why, sizeof(why), "out-of-memory");
	}
	else if (info.si_pid != 0)
	{
		count(&counts->exits);
		snprintf(why, sizeof(why), "exit-%d", WEXITSTATUS(status));
	}
	printf("# %s %ld of seed %llu: %s\n", what, number, (unsigned long long) seed, why);
	fflush(stdout);
	if (save_folder != NULL)
	{
		FILE	   *file;

		snprintf(path, sizeof(path), "%s/%llu-%s-%ld-%s", save_folder,
				 (unsigned long long) seed, what, number, why);
		file = fopen(path, "wb");
		if (file == NULL || fwrite(bytes, 1, length, file) != length || fclose(file) != 0)
			bail_out("could not write %s", path);
	}
	decoder = start_decoder(memory_megabytes * MEGABYTE);
	return false;
}

/* As src/decoder/client.c has it. */
static bool
facts_are_sane(const ImageFacts *facts)
{
	return facts->layout == IMAGE_FACTS_LAYOUT && image_format_name(facts->format) != NULL &&
		facts->width > 0 && facts->width <= INT32_MAX &&
		facts->height > 0 && facts->height <= INT32_MAX &&
		facts->pages > 0 && facts->pages <= INT32_MAX &&
		facts->orientation >= 1 && facts->orientation <= 8 && facts->reserved == 0;
}

static bool
answer_is_sane(const DecoderRequest *request)
{
	bool		optional = request->operation >= DECODER_EXIF;
	uint64_t	end = reply_offset(request);
	struct stat status;
	int			i;

	if (reply.status >= N_STATUSES || reply.message[DECODER_MESSAGE_SIZE - 1] != '\0')
		return false;
	if (reply.status != DECODER_OK)
		return reply.n_outputs == 0;
	if (!facts_are_sane(&reply.facts) ||
		(reply.n_outputs != request->n_outputs && !(optional && reply.n_outputs == 0)))
		return false;
	for (i = 0; i < reply.n_outputs; i++)
	{
		if ((request->operation == DECODER_PROCESS &&
			 (!facts_are_sane(&reply.output_facts[i]) || reply.output_length[i] == 0)) ||
			reply.output_length[i] > memory_megabytes * MEGABYTE)
			return false;
		end += reply.output_length[i];
	}
	return reply.n_outputs == 0 || (fstat(decoder.memory, &status) == 0 && end <= (uint64_t) status.st_size);
}

/* What was made of a mutant must be an image like the reply said. */
static void
check_output(const DecoderRequest *request, long number)
{
	ImageFacts	said = reply.output_facts[0];
	Bytes		output = {malloc(reply.output_length[0]), reply.output_length[0]};

	if (pread(decoder.memory, output.bytes, output.length, reply_offset(request)) != (ssize_t) output.length)
		bail_out("could not read an output");
	if (probe(output) < 0)
		(void) replace_decoder("output", number, output.bytes, output.length);
	else if (reply.status != DECODER_OK || memcmp(&said, &reply.facts, sizeof(said)) != 0)
		count(&counts->unreadable);
	free(output.bytes);
}

/*
 * A request about a mutant, or where layered about the two that it then is; its
 * status, or -1 where there is no sane answer.
 */
static int
ask(long number, Bytes mutant, DecoderRequest *request, int n_outputs, const char *const *texts, bool layered)
{
	write_job(&decoder, request, mutant, n_outputs, texts);
	if (layered)
	{
		request->n_inputs = 2;
		request->input_length[0] = request->input_length[1] = mutant.length / 2;
	}
	if (!exchange(&decoder, request, sizeof(*request)))
		return replace_decoder("mutant", number, mutant.bytes, mutant.length) ?
			ask(number, mutant, request, n_outputs, texts, layered) : -1;
	if (!answer_is_sane(request))
	{
		count(&counts->nonsense);
		return -1;
	}
	return reply.status;
}

static Bytes
twice(Bytes mutant)
{
	Bytes		both = {malloc(2 * mutant.length), 2 * mutant.length};

	memcpy(both.bytes, mutant.bytes, mutant.length);
	memcpy(both.bytes + mutant.length, mutant.bytes, mutant.length);
	return both;
}

/* Has the mutant processed; its status or -1, as of ask(). */
static int
process_mutant(long number, Bytes mutant, size_t pipeline)
{
	DecoderRequest request = new_request(DECODER_PROCESS);
	bool		layered = pipelines[pipeline][0] == '+';
	const char *text = pipelines[pipeline] + (layered ? 1 : 0);
	const char *const several[] = {text, "resize(width=100) | webp", "crop(width=4, height=4) | png"};
	Bytes		input = layered ? twice(mutant) : mutant;
	int			status = ask(number, input, &request, number % 8 == 0 ? 3 : 1, several, layered);

	if (layered)
		free(input.bytes);
	if (status < 0)
		return status;
	count(&counts->processed[status]);
	if (status == DECODER_OK)
		count(&counts->pipelines[pipeline]);
	if (status == DECODER_FAILED)
		printf("# mutant %ld, %s: %s\n", number, text, reply.message);
	if (status == DECODER_OK && number % 4 == 0)
		check_output(&request, number);
	return status;
}

static void
send_mutant(long number, Bytes mutant, bool thorough)
{
	Random		random = random_of(number);
	const char *const none = "";
	DecoderRequest probe_request = new_request(DECODER_PROBE);
	int			probed;
	int			processed;
	size_t		i;

	count(&counts->sent);
	if (number % 16 == 0)
		note_peak();
	probed = ask(number, mutant, &probe_request, 0, NULL, false);
	if (probed < 0)
		return;
	count(&counts->probed[probed]);

	for (i = 0; i < N_PIPELINES; i++)
	{
		processed = process_mutant(number, mutant, thorough ? i : random_below(&random, N_PIPELINES));
		if (processed < 0)
			return;
		if (probed != DECODER_OK && probed != DECODER_OUT_OF_MEMORY && probed != processed)
			count(&counts->disagreements);
		if (!thorough || probed != DECODER_OK)
			break;
	}
	for (i = 0; probed == DECODER_OK && i < N_OTHERS; i++)
	{
		size_t		other = thorough ? i : random_below(&random, N_OTHERS);
		DecoderRequest request = new_request(others[other]);

		if (ask(number, mutant, &request, others[other] == DECODER_VERIFY ? 0 : 1, &none, false) < 0 || !thorough)
			break;
	}
}

/* A frame that is wrong in its numbers or its size, over a good image. */
static void
send_frame(long number, Random *random)
{
	static const uint64_t numbers[] = {
		0, 1, 2, 8, 9, 63, 64, 65, 255, 4095, 4096, 65536, UINT32_MAX, UINT64_C(1) << 32, INT64_MAX,
		UINT64_C(1) << 63, UINT64_MAX - 4096, UINT64_MAX
	};
	static const char *const two[] = {"resize(width=20)|png", "webp"};
	unsigned char frame[2 * sizeof(DecoderRequest)];
	DecoderRequest request = new_request(1 + random_below(random, DECODER_ICC_PROFILE));
	const Seed *image = &corpus[random_below(random, n_seeds)];
	size_t		length = sizeof(request);
	size_t		n = 1 + random_below(random, 4);

	count(&counts->frames);
	write_job(&decoder, &request, (Bytes) {(char *) image->bytes, image->length},
			  1 + random_below(random, 2), two);
	memset(frame, 0, sizeof(frame));
	memcpy(frame, &request, sizeof(request));
	while (n-- > 0)
	{
		uint64_t	value = numbers[random_below(random, sizeof(numbers) / sizeof(numbers[0]))];
		size_t		size = 1 << random_below(random, 4);

		if (random_below(random, 2) == 0)
			value = random_next(random);
		memcpy(frame + random_below(random, sizeof(request) / size) * size, &value, size);
	}
	if (random_below(random, 8) == 0)
		length = 1 + random_below(random, sizeof(frame));
	/* The bytes need not be there either. */
	if (random_below(random, 4) == 0 && ftruncate(decoder.memory, random_below(random, 8192)) != 0)
		bail_out("could not size the memory file");
	if (!exchange(&decoder, frame, length))
		(void) replace_decoder("frame", number, frame, length);
}

static Bytes
make_mutant(long number)
{
	static unsigned char bytes[CAPACITY];
	Random		random = random_of(number);

	if (!mutants_only && (size_t) number < n_seeds)
		return (Bytes) {(char *) corpus[number].bytes, corpus[number].length};
	return (Bytes) {(char *) bytes, mutate(&random, corpus, n_seeds, bytes, CAPACITY)};
}

static void
run_job(int job, int jobs, long first, long end, long frames)
{
	DecoderRequest hello = new_request(DECODER_SELF_TEST);
	long		number;

	decoder = start_decoder(memory_megabytes * MEGABYTE);
	if (!exchange(&decoder, &hello, sizeof(hello)))
		bail_out("the decoder does not start");
	if (job == 0)
	{
		counts->base_memory = memory_of(decoder.pid, "VmHWM");
		counts->descriptors[0] = count_descriptors();
	}

	for (number = first + job; number < end; number += jobs)
	{
		if (number > first && number % 20000 == 0)
		{
			printf("# %ld mutants\n", number);
			fflush(stdout);
		}
		send_mutant(number, make_mutant(number), !mutants_only && (size_t) number < n_own_seeds);
	}
	for (number = job; number < frames; number += jobs)
	{
		Random		random = random_of(-1 - number);

		send_frame(number, &random);
	}
	note_peak();
	if (job == 0)
		counts->descriptors[1] = count_descriptors();
	stop_decoder(&decoder);
	count(&counts->finished);
}

/*
 * Results
 */
static void
print_statuses(const char *what, const long *numbers)
{
	int			i;

	printf("# %s:", what);
	for (i = 0; i < N_STATUSES; i++)
	{
		if (numbers[i] > 0)
			printf(" %s %ld;", status_names[i], numbers[i]);
	}
	printf("\n");
}

static void
report(long mutants, long frames, int jobs)
{
	long		accesses = 0;
	long		unused = 0;
	long		deaths = counts->exits + counts->exhausted;
	long		limit = counts->base_memory + (long) (memory_megabytes * 1024);
	int			i;

	print_statuses("probed", counts->probed);
	print_statuses("processed", counts->processed);
	for (i = 0; i < (int) N_PIPELINES; i++)
	{
		if (counts->pipelines[i] == 0)
			printf("# made nothing: %s\n", pipelines[i]);
		unused += counts->pipelines[i] == 0;
	}
	for (i = 0; i < MAX_SIGNAL; i++)
	{
		if (counts->signals[i] > 0)
			printf("# decoders ended by signal %d, %s: %ld\n", i, strsignal(i), counts->signals[i]);
		deaths += counts->signals[i];
		if (i == SIGSEGV || i == SIGBUS || i == SIGILL || i == SIGFPE || i == SIGSYS)
			accesses += counts->signals[i];
	}
	printf("# decoders that made way for another: %ld; ran out of memory: %ld; exited otherwise: %ld; stopped after %d ms of work: %ld; without work: %ld\n",
		   counts->retired, counts->exhausted, counts->exits, PATIENCE, counts->slow, counts->hung);
	printf("# peak of memory: %ld kB, %ld kB at the start, limit %llu MB\n",
		   counts->peak_memory, counts->base_memory, (unsigned long long) memory_megabytes);
	printf("# descriptors of a decoder: %ld at first, %ld at last\n",
		   counts->descriptors[0], counts->descriptors[1]);

	check(counts->finished == jobs && counts->sent == mutants && counts->frames == frames,
		  "%ld mutants and %ld malformed frames were sent", counts->sent, counts->frames);
	check_number(counts->hung, 0, "no decoder hangs");
	check_number(accesses, 0, "no decoder is ended by a wrong access");
	if (unsandboxed)
		check_number(deaths, 0, "no decoder ends at all");
	else
		check(counts->peak_memory <= limit, "no decoder takes more than its limit");
	if (!mutants_only && mutants >= (long) n_own_seeds)
		check_number(unused, 0, "every pipeline made something");
	check_number(counts->nonsense, 0, "no answer is nonsense");
	check_number(counts->disagreements, 0, "what the probe refuses is never processed");
	check_number(counts->unreadable, 0, "outputs are what the reply says");
	check_number(counts->descriptors[1] - counts->descriptors[0], 0, "no decoder leaks a descriptor");
	printf("1..%d\n", n_tests);
}

/* One bytea column, as COPY ... (FORMAT binary) reads it. */
static void
write_copy(const char *path, long first, long end)
{
	static const char header[] = "PGCOPY\n\xff\r\n\0" "\0\0\0\0" "\0\0\0\0";
	FILE	   *file = fopen(path, "wb");
	bool		written = file != NULL && fwrite(header, 1, sizeof(header) - 1, file) == sizeof(header) - 1;
	uint16_t	columns = htons(1);
	uint16_t	last = htons(UINT16_MAX);

	for (; written && first < end; first++)
	{
		Bytes		mutant = make_mutant(first);
		uint32_t	length = htonl(mutant.length);

		written = fwrite(&columns, sizeof(columns), 1, file) == 1 &&
			fwrite(&length, sizeof(length), 1, file) == 1 &&
			fwrite(mutant.bytes, 1, mutant.length, file) == mutant.length;
	}
	if (!written || fwrite(&last, sizeof(last), 1, file) != 1 || fclose(file) != 0)
		bail_out("could not write %s", path);
}

int
main(int argc, char **argv)
{
	static const struct option options[] = {
		{"runs", required_argument, NULL, 'r'}, {"frames", required_argument, NULL, 'f'},
		{"seed", required_argument, NULL, 's'}, {"only", required_argument, NULL, 'o'},
		{"jobs", required_argument, NULL, 'j'}, {"memory", required_argument, NULL, 'm'},
		{"save", required_argument, NULL, 'k'}, {"copy", required_argument, NULL, 'c'},
		{"mutants", no_argument, NULL, 'a'}, {"unsandboxed", no_argument, NULL, 'u'}, {NULL, 0, NULL, 0}
	};
	long		first = 0;
	long		end = 2000;
	long		frames = 0;
	int			jobs = 1;
	const char *copy = NULL;
	int			option;
	int			i;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1)
	{
		switch (option)
		{
			case 'r':
				end = atol(optarg);
				break;
			case 'f':
				frames = atol(optarg);
				break;
			case 's':
				seed = strtoull(optarg, NULL, 10);
				break;
			case 'o':
				first = atol(optarg);
				end = first + 1;
				break;
			case 'j':
				jobs = atoi(optarg);
				break;
			case 'm':
				memory_megabytes = strtoull(optarg, NULL, 10);
				break;
			case 'k':
				save_folder = optarg;
				break;
			case 'c':
				copy = optarg;
				break;
			case 'a':
				mutants_only = true;
				break;
			case 'u':
				unsandboxed = true;
				break;
			default:
				return 2;
		}
	}
	if (optind == argc || jobs < 1)
	{
		fprintf(stderr, "usage: decoder_fuzz [option]... imgpipe-decoder [folder]...\n");
		return 2;
	}
	program = argv[optind];
	make_folder();
	add_own_images();
	for (i = optind + 1; i < argc; i++)
		add_folder(argv[i]);
	remove_folder();
	printf("# seed %llu, %zu files in the corpus\n", (unsigned long long) seed, n_seeds);
	fflush(stdout);
	if (copy != NULL)
	{
		write_copy(copy, first, end);
		return 0;
	}

	counts = mmap(NULL, sizeof(*counts), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (counts == MAP_FAILED)
		bail_out("could not share memory");
	for (i = 0; i < jobs; i++)
	{
		pid_t		child = fork();

		if (child == 0)
		{
			run_job(i, jobs, first, end, frames);
			fflush(stdout);
			_exit(0);
		}
	}
	while (wait(NULL) > 0)
		;
	report(end - first, frames, jobs);
	return n_failed > 0;
}
