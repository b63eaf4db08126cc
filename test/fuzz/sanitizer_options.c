/*
 * sanitizer_options.c
 *		How the sanitizers of a decoder behave: it is started without an environment.
 *
 * Too large an allocation fails, as it does under the memory limit, which these
 * decoders cannot have.  Leaks are not looked for at the end, which comes by
 * _exit(), with all of libvips still standing.
 */
const char *__asan_default_options(void);
const char *__ubsan_default_options(void);

const char *
__asan_default_options(void)
{
	return "detect_leaks=0:allocator_may_return_null=1:max_allocation_size_mb=512:"
		"strict_string_checks=1:detect_stack_use_after_return=1:exitcode=99";
}

const char *
__ubsan_default_options(void)
{
	return "print_stacktrace=1";
}
