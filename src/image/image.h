/*
 * image.h
 *		The image type: a fixed header in front of the untouched file bytes.
 */
#ifndef IMGPIPE_IMAGE_H
#define IMGPIPE_IMAGE_H

#include "postgres.h"

#include "compat.h"
#include "fmgr.h"
#include "image/facts.h"
#include "nodes/nodes.h"

typedef struct Image
{
	int32		vl_len_;
	ImageFacts	facts;
	char		bytes[FLEXIBLE_ARRAY_MEMBER];
} Image;

#define IMAGE_HEADER_SIZE		offsetof(Image, bytes)
#define IMAGE_LENGTH(image)		(VARSIZE(image) - IMAGE_HEADER_SIZE)

/* Bytes that are copied or hashed at once: between two of these a query can be cancelled. */
#define IMAGE_BYTES_AT_ONCE		(1024 * 1024)

#define DatumGetImageP(datum)	((Image *) PG_DETOAST_DATUM(datum))
/* Only the header may be read of this one. */
#define DatumGetImageHeaderP(datum) \
	((Image *) PG_DETOAST_DATUM_SLICE(datum, 0, sizeof(ImageFacts)))
#define PG_GETARG_IMAGE_P(n)	DatumGetImageP(PG_GETARG_DATUM(n))
#define PG_GETARG_IMAGE_HEADER_P(n) DatumGetImageHeaderP(PG_GETARG_DATUM(n))
#define PG_RETURN_IMAGE_P(image) PG_RETURN_POINTER(image)

/* A value of probed facts and bytes, in the current memory context. */
extern Image *image_make(const ImageFacts *facts, const char *bytes, Size length);

/*
 * Whether a column or cast with this type modifier takes the image: else an
 * error, which is a soft one where there is a context for it.
 */
extern bool image_fits_typmod(const ImageFacts *facts, int32 typmod, Node *escontext);

/* Oid of imgpipe.image, looked up in the catalog. */
extern Oid	image_type_oid(void);

#endif							/* IMGPIPE_IMAGE_H */
