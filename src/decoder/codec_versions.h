/*
 * codec_versions.h
 *		Every difference between the versions of libvips, 8.14 to 8.18.
 */
#ifndef IMGPIPE_CODEC_VERSIONS_H
#define IMGPIPE_CODEC_VERSIONS_H

#include <vips/vips.h>

#include <vips/vector.h>

#define LIBVIPS_AT_LEAST(major, minor) \
	(VIPS_MAJOR_VERSION > (major) || \
	 (VIPS_MAJOR_VERSION == (major) && VIPS_MINOR_VERSION >= (minor)))

/*
 * What savers write of an image's metadata: all that is there, or nothing.
 * Before 8.15 there was nothing between, and EXIF was made up where there was
 * none: codec_metadata_written() in codec_keep.c takes that out again.
 */
#if LIBVIPS_AT_LEAST(8, 15)
#define WRITE_METADATA(kept) \
	"keep", (kept)
#define KEPT_EXIF		VIPS_FOREIGN_KEEP_EXIF
#define KEPT_XMP		VIPS_FOREIGN_KEEP_XMP
#define KEPT_IPTC		VIPS_FOREIGN_KEEP_IPTC
#define KEPT_ICC		VIPS_FOREIGN_KEEP_ICC
#define KEPT_OTHER		VIPS_FOREIGN_KEEP_OTHER
#else
#define WRITE_METADATA(kept) \
	"strip", (kept) == 0
#define KEPT_EXIF		(1 << 0)
#define KEPT_XMP		(1 << 1)
#define KEPT_IPTC		(1 << 2)
#define KEPT_ICC		(1 << 3)
#define KEPT_OTHER		(1 << 4)
#endif

/*
 * Where libvips was built with orc instead of highway, it writes machine code
 * at run time.  No memory of this process may be written and executed both.
 * Some operations compile on first use even where that is switched off, and
 * abort where they cannot; the variable, which orc reads when libvips starts,
 * takes its compiler away.
 */
static inline void
prepare_run_time_compiler(void)
{
	g_setenv("ORC_CODE", "emulate", TRUE);
}

static inline void
forbid_run_time_compiler(void)
{
#if LIBVIPS_AT_LEAST(8, 15)
	if (vips_vector_get_builtin_targets() != 0)
		return;
#endif
	vips_vector_set_enabled(FALSE);
}

#endif							/* IMGPIPE_CODEC_VERSIONS_H */
