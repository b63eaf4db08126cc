/*
 * no_limits.c
 *		Takes the resource limits from a decoder that is to run under valgrind,
 *		which has descriptors of its own and lets nobody lower their number.
 *
 * Linked with --wrap=setrlimit.
 */
#include <sys/resource.h>

int			__wrap_setrlimit(int resource, const struct rlimit *limit);

int
__wrap_setrlimit(int resource, const struct rlimit *limit)
{
	(void) resource;
	(void) limit;
	return 0;
}
