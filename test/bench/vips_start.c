/*
 * vips_start.c
 *		What it costs to start libvips and do nothing: the limit for a first call.
 */
#include <vips/vips.h>

int
main(int argc, char **argv)
{
	(void) argc;
	return VIPS_INIT(argv[0]) != 0;
}
