/*
 * sandbox.c
 *		The walls around imgpipe-decoder: resource limits, then a seccomp
 *		allow-list.  The only file that knows seccomp.
 *
 * The list is what libvips and its codecs were seen to call after the start,
 * over all formats and operations (strace), plus what glibc may call instead
 * on other machines.  Whatever is not on it fails with EPERM.  In short: the
 * process can compute, take memory up to its limit, start threads, talk on
 * the one socket and write to the one memory file that it was given.
 */
#include "decoder/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "decoder/protocol.h"

#ifdef HAVE_SECCOMP
#include <seccomp.h>
#endif

/* Enough for libvips and its libraries; each counts against the memory limit. */
#define THREAD_STACK_SIZE	(2 * 1024 * 1024)

/* Buffers of this size, about a whole image, go back to the system when freed. */
#define LARGE_BUFFER		(4 * 1024 * 1024)

/* Descriptors that a start needs at once; afterwards nothing can be opened. */
#define MAX_DESCRIPTORS		32

static bool
fail(char *message, size_t size, const char *format,...)
{
	va_list		arguments;

	va_start(arguments, format);
	vsnprintf(message, size, format, arguments);
	va_end(arguments);
	return false;
}

static bool
set_limit(int resource, uint64_t value)
{
	struct rlimit limit = {value, value};

	return setrlimit(resource, &limit) == 0;
}

/* Of all that can be sacrificed when memory runs out, a decoder is first. */
static void
volunteer_for_oom_killer(void)
{
	int			file = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

	if (file < 0)
		return;
	if (write(file, "1000", 4) < 0)
		errno = 0;				/* a pity, not an error */
	close(file);
}

bool
sandbox_prepare(uint64_t memory_limit, char *message, size_t size)
{
	pthread_attr_t attributes;

	if (close_range(DECODER_MEMORY_FD + 1, ~0U, 0) != 0)
		return fail(message, size, "could not close inherited descriptors: %s", strerror(errno));

	/* A cancel is signalled to the backend's process group, not to us. */
	(void) setsid();

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
		return fail(message, size, "could not give up new privileges: %s", strerror(errno));
	volunteer_for_oom_killer();
	(void) prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);

	pthread_attr_init(&attributes);
	pthread_attr_setstacksize(&attributes, THREAD_STACK_SIZE);
	pthread_setattr_default_np(&attributes);
	pthread_attr_destroy(&attributes);

	/*
	 * Or else glibc makes a heap for each thread, and keeps in them what was
	 * freed: a thousand damaged images took 300 MB, of which 2 were in use.
	 */
	mallopt(M_ARENA_MAX, 1);
	mallopt(M_MMAP_THRESHOLD, LARGE_BUFFER);
	mallopt(M_TRIM_THRESHOLD, 2 * LARGE_BUFFER);

	/*
	 * RLIMIT_DATA counts every private writable page: heap, large allocations
	 * and thread stacks.  Shared pages are refused by the filter, but for the
	 * memory file, which RLIMIT_FSIZE bounds.
	 */
	if (memory_limit > 0 &&
		(!set_limit(RLIMIT_DATA, memory_limit) || !set_limit(RLIMIT_FSIZE, memory_limit)))
		return fail(message, size, "could not limit memory: %s", strerror(errno));
	if (!set_limit(RLIMIT_CORE, 0) || !set_limit(RLIMIT_NOFILE, MAX_DESCRIPTORS))
		return fail(message, size, "could not set resource limits: %s", strerror(errno));
	signal(SIGXFSZ, SIG_IGN);
	signal(SIGPIPE, SIG_IGN);
	return true;
}

#ifdef HAVE_SECCOMP

/* Allowed with any arguments. */
static const char *const allowed_calls[] = {
	/* seen */
	"brk", "munmap", "madvise",
	"futex", "set_robust_list", "rseq", "sched_getaffinity", "sysinfo",
	"rt_sigprocmask", "rt_sigaction", "getpid", "exit", "exit_group",
	/* large realloc(); contended locks; abort(); signals; clocks without vdso */
	"mremap", "sched_yield", "gettid", "rt_sigreturn", "restart_syscall",
	"clock_gettime", "gettimeofday", "clock_nanosleep", "getrandom",
	/* the same where longs have 32 bits */
	"futex_time64", "clock_gettime64", "clock_nanosleep_time64"
};

static int
allow_where(scmp_filter_ctx filter, int call, struct scmp_arg_cmp condition)
{
	return seccomp_rule_add_array(filter, SCMP_ACT_ALLOW, call, 1, &condition);
}

static struct scmp_arg_cmp
is_equal(unsigned int argument, scmp_datum_t value)
{
	return (struct scmp_arg_cmp) {argument, SCMP_CMP_EQ, value, 0};
}

static struct scmp_arg_cmp
has_bits(unsigned int argument, scmp_datum_t mask, scmp_datum_t bits)
{
	return (struct scmp_arg_cmp) {argument, SCMP_CMP_MASKED_EQ, mask, bits};
}

static bool
add_rules(scmp_filter_ctx filter)
{
	const scmp_datum_t thread = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD;
	/* Memory: private, so that it counts, and never executable. */
	const struct scmp_arg_cmp mappings[] = {has_bits(2, PROT_EXEC, 0), has_bits(3, MAP_SHARED, 0)};
	size_t		i;
	int			failed = 0;

	for (i = 0; i < sizeof(allowed_calls) / sizeof(allowed_calls[0]); i++)
	{
		int			call = seccomp_syscall_resolve_name(allowed_calls[i]);

		/* Not every machine has every call. */
		if (call >= 0)
			failed |= seccomp_rule_add(filter, SCMP_ACT_ALLOW, call, 0);
	}

	/* The conversation, on the descriptors that carry it. */
	failed |= allow_where(filter, SCMP_SYS(recvfrom), is_equal(0, DECODER_SOCKET_FD));
	failed |= allow_where(filter, SCMP_SYS(sendto), is_equal(0, DECODER_SOCKET_FD));
	failed |= allow_where(filter, SCMP_SYS(pwrite64), is_equal(0, DECODER_MEMORY_FD));
	failed |= allow_where(filter, SCMP_SYS(lseek), is_equal(0, DECODER_MEMORY_FD));
	failed |= allow_where(filter, SCMP_SYS(ftruncate), is_equal(0, DECODER_MEMORY_FD));

	failed |= seccomp_rule_add_array(filter, SCMP_ACT_ALLOW, SCMP_SYS(mmap), 2, mappings);
	failed |= allow_where(filter, SCMP_SYS(mprotect), has_bits(2, PROT_EXEC, 0));

	/* Threads, no processes; glibc asks by clone() where clone3() is unknown. */
	failed |= allow_where(filter, SCMP_SYS(clone), has_bits(0, thread, thread));
	failed |= seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);

	/* A thread may name itself, and abort() may end the process. */
	failed |= allow_where(filter, SCMP_SYS(prctl), is_equal(0, PR_SET_NAME));
	failed |= allow_where(filter, SCMP_SYS(tgkill), is_equal(0, (scmp_datum_t) getpid()));
	return failed == 0;
}

bool
sandbox_enter(char *message, size_t size)
{
	scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ERRNO(EPERM));
	int			failed;

	if (filter == NULL)
		return fail(message, size, "could not make a seccomp filter");

	/* The warm-up may have left threads behind: the filter is for all. */
	if (seccomp_attr_set(filter, SCMP_FLTATR_CTL_TSYNC, 1) != 0 || !add_rules(filter))
	{
		seccomp_release(filter);
		return fail(message, size, "could not make a seccomp filter");
	}
	failed = seccomp_load(filter);
	seccomp_release(filter);
	if (failed)
		return fail(message, size, "could not enter the seccomp sandbox: %s", strerror(-failed));
	if (!sandbox_test(NULL, 0))
		return fail(message, size, "the seccomp sandbox does not hold");
	return true;
}

#else							/* !HAVE_SECCOMP */

bool
sandbox_enter(char *message, size_t size)
{
	return fail(message, size, "this imgpipe-decoder was built without seccomp");
}

#endif							/* HAVE_SECCOMP */

/*
 * The attempts.  Each is harmless where it is allowed, and returns an error
 * number other than EPERM then, or 0: running no program, sending no signal,
 * connecting nowhere.
 */
static int
try_open_for_reading(void)
{
	int			file = open("/etc/passwd", O_RDONLY | O_CLOEXEC);

	if (file < 0)
		return errno;
	close(file);
	return 0;
}

static int
try_open_for_writing(void)
{
	int			file = open("/dev/null", O_WRONLY | O_CLOEXEC);

	if (file < 0)
		return errno;
	close(file);
	return 0;
}

static int
try_stat(void)
{
	return access("/", F_OK) < 0 ? errno : 0;
}

static int
try_socket_of(int domain)
{
	int			file = socket(domain, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (file < 0)
		return errno;
	close(file);
	return 0;
}

static int
try_internet_socket(void)
{
	return try_socket_of(AF_INET);
}

static int
try_local_socket(void)
{
	return try_socket_of(AF_UNIX);
}

static int
try_execve(void)
{
	char	   *arguments[] = {"program", NULL};

	execve("/nonexistent/program", arguments, arguments + 1);
	return errno;
}

static int
try_fork(void)
{
	/* The raw call: glibc would run handlers in a child that must not. */
	long		child = syscall(SYS_clone, (long) SIGCHLD, 0L, 0L, 0L, 0L);

	if (child < 0)
		return errno;
	if (child == 0)
		_exit(0);
	waitpid((pid_t) child, NULL, 0);
	return 0;
}

static int
try_signal(void)
{
	return kill(getpid(), 0) < 0 ? errno : 0;
}

static int
try_ptrace(void)
{
	/* Continues a process that is not traced: ESRCH where ptrace is allowed. */
	return ptrace(PTRACE_CONT, getpid(), NULL, NULL) < 0 ? errno : 0;
}

static int
try_executable_memory(void)
{
	void	   *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC,
							MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (page == MAP_FAILED)
		return errno;
	munmap(page, 4096);
	return 0;
}

static int
try_shared_memory(void)
{
	void	   *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE,
							MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (page == MAP_FAILED)
		return errno;
	munmap(page, 4096);
	return 0;
}

static int
try_raising_a_limit(void)
{
	struct rlimit limit = {4096, 4096};

	return setrlimit(RLIMIT_MSGQUEUE, &limit) < 0 ? errno : 0;
}

bool
sandbox_test(char *report, size_t size)
{
	static const struct
	{
		const char *name;
		int			(*attempt) (void);
	}			attempts[] = {
		{"open a file to read", try_open_for_reading},
		{"open a file to write", try_open_for_writing},
		{"look for a file", try_stat},
		{"internet socket", try_internet_socket},
		{"local socket", try_local_socket},
		{"execve", try_execve},
		{"fork", try_fork},
		{"kill", try_signal},
		{"ptrace", try_ptrace},
		{"executable memory", try_executable_memory},
		{"shared memory", try_shared_memory},
		{"resource limits", try_raising_a_limit}
	};
	size_t		used = 0;
	bool		holds = true;
	size_t		i;

	for (i = 0; i < sizeof(attempts) / sizeof(attempts[0]); i++)
	{
		int			error = attempts[i].attempt();

		if (error != EPERM)
			holds = false;
		if (report != NULL && used < size)
			used += snprintf(report + used, size - used, "%s\t%s\t%s\n",
							 attempts[i].name,
							 error == EPERM ? "refused" : "allowed",
							 error == 0 ? "" : strerror(error));
	}
	return holds;
}
