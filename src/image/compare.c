/*
 * compare.c
 *		Equality, hash and order of images: of their files' bytes.
 *
 * What the header in front of the bytes says follows from them.  Sizes come
 * first, because they are in the TOAST pointer: files of different size are
 * never read.
 */
#include "postgres.h"

#include "access/detoast.h"
#include "common/hashfn.h"
#include "image/image.h"

PG_FUNCTION_INFO_V1(imgpipe_image_eq);
PG_FUNCTION_INFO_V1(imgpipe_image_ne);
PG_FUNCTION_INFO_V1(imgpipe_image_lt);
PG_FUNCTION_INFO_V1(imgpipe_image_le);
PG_FUNCTION_INFO_V1(imgpipe_image_gt);
PG_FUNCTION_INFO_V1(imgpipe_image_ge);
PG_FUNCTION_INFO_V1(imgpipe_image_cmp);
PG_FUNCTION_INFO_V1(imgpipe_image_hash);
PG_FUNCTION_INFO_V1(imgpipe_image_hash_extended);

static int
compare(Datum one, Datum other)
{
	Size		size = toast_raw_datum_size(one);
	Size		other_size = toast_raw_datum_size(other);
	Image	   *image;
	Image	   *other_image;
	int			result;

	if (size != other_size)
		return size < other_size ? -1 : 1;
	image = DatumGetImageP(one);
	other_image = DatumGetImageP(other);
	result = memcmp(image->bytes, other_image->bytes, IMAGE_LENGTH(image));
	/* Sorts and joins compare many in one memory context. */
	if ((Pointer) image != DatumGetPointer(one))
		pfree(image);
	if ((Pointer) other_image != DatumGetPointer(other))
		pfree(other_image);
	return result < 0 ? -1 : result > 0 ? 1 : 0;
}

Datum
imgpipe_image_eq(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(compare(PG_GETARG_DATUM(0), PG_GETARG_DATUM(1)) == 0);
}

Datum
imgpipe_image_ne(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(compare(PG_GETARG_DATUM(0), PG_GETARG_DATUM(1)) != 0);
}

Datum
imgpipe_image_lt(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(compare(PG_GETARG_DATUM(0), PG_GETARG_DATUM(1)) < 0);
}

Datum
imgpipe_image_le(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(compare(PG_GETARG_DATUM(0), PG_GETARG_DATUM(1)) <= 0);
}

Datum
imgpipe_image_gt(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(compare(PG_GETARG_DATUM(0), PG_GETARG_DATUM(1)) > 0);
}

Datum
imgpipe_image_ge(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(compare(PG_GETARG_DATUM(0), PG_GETARG_DATUM(1)) >= 0);
}

Datum
imgpipe_image_cmp(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT32(compare(PG_GETARG_DATUM(0), PG_GETARG_DATUM(1)));
}

Datum
imgpipe_image_hash(PG_FUNCTION_ARGS)
{
	Image	   *image = PG_GETARG_IMAGE_P(0);
	Datum		hash = hash_any((unsigned char *) image->bytes, IMAGE_LENGTH(image));

	PG_FREE_IF_COPY(image, 0);
	return hash;
}

Datum
imgpipe_image_hash_extended(PG_FUNCTION_ARGS)
{
	Image	   *image = PG_GETARG_IMAGE_P(0);
	Datum		hash = hash_any_extended((unsigned char *) image->bytes, IMAGE_LENGTH(image),
										 PG_GETARG_INT64(1));

	PG_FREE_IF_COPY(image, 0);
	return hash;
}
