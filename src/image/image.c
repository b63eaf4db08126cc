/*
 * image.c
 *		The image type: input, output, casts and what its header tells.
 *
 * A value is made only from bytes that the decoder probed with success, so
 * whoever holds one can rely on its format and size.  The accessors read the
 * header alone: storage is external, and a slice of the first bytes costs one
 * TOAST chunk however large the image is.
 */
#include "postgres.h"

#include "access/detoast.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "common/cryptohash.h"
#include "common/sha2.h"
#include "decoder/client.h"
#include "image/image.h"
#include "imgpipe.h"
#include "libpq/pqformat.h"
#include "utils/builtins.h"
#include "utils/syscache.h"

PG_FUNCTION_INFO_V1(imgpipe_image_in);
PG_FUNCTION_INFO_V1(imgpipe_image_out);
PG_FUNCTION_INFO_V1(imgpipe_image_recv);
PG_FUNCTION_INFO_V1(imgpipe_image_send);
PG_FUNCTION_INFO_V1(imgpipe_image_from_bytea);
PG_FUNCTION_INFO_V1(imgpipe_image_to_bytea);
PG_FUNCTION_INFO_V1(imgpipe_image_format);
PG_FUNCTION_INFO_V1(imgpipe_image_width);
PG_FUNCTION_INFO_V1(imgpipe_image_height);
PG_FUNCTION_INFO_V1(imgpipe_image_bytes);
PG_FUNCTION_INFO_V1(imgpipe_image_sha256);

/* Upwards, where the two overlap. */
static void
copy_bytes(char *to, const char *from, Size length)
{
	Size		offset;

	for (offset = 0; offset < length; offset += IMAGE_BYTES_AT_ONCE)
	{
		CHECK_FOR_INTERRUPTS();
		memmove(to + offset, from + offset, Min(IMAGE_BYTES_AT_ONCE, length - offset));
	}
}

Image *
image_make(const ImageFacts *facts, const char *bytes, Size length)
{
	Image	   *image = palloc(IMAGE_HEADER_SIZE + length);

	SET_VARSIZE(image, IMAGE_HEADER_SIZE + length);
	image->facts = *facts;
	copy_bytes(image->bytes, bytes, length);
	return image;
}

Oid
image_type_oid(void)
{
	Oid			schema = get_namespace_oid(IMGPIPE_SCHEMA, false);

	return GetSysCacheOid2(TYPENAMENSP, Anum_pg_type_oid,
						   PointerGetDatum("image"), ObjectIdGetDatum(schema));
}

static Image *
image_from_bytes(const char *bytes, Size length)
{
	ImageFacts	facts;

	decoder_probe(bytes, length, &facts, NULL);
	return image_make(&facts, bytes, length);
}

static int
digit_value(char digit)
{
	if (digit >= '0' && digit <= '9')
		return digit - '0';
	if (digit >= 'a' && digit <= 'f')
		return digit - 'a' + 10;
	if (digit >= 'A' && digit <= 'F')
		return digit - 'A' + 10;
	return -1;
}

/*
 * "\x" and hex digits to bytes, where a query can be cancelled in between; NULL
 * for any other text, which is byteain's.
 */
static bytea *
bytes_of_digits(const char *text)
{
	Size		length = strlen(text);
	Size		n_bytes = length / 2 - 1;
	bytea	   *bytes;
	Size		i;

	if (strncmp(text, "\\x", 2) != 0 || length % 2 != 0)
		return NULL;
	bytes = palloc(VARHDRSZ + n_bytes);
	SET_VARSIZE(bytes, VARHDRSZ + n_bytes);
	for (i = 0; i < n_bytes; i++)
	{
		int			high = digit_value(text[2 * i + 2]);
		int			low = digit_value(text[2 * i + 3]);

		if (i % IMAGE_BYTES_AT_ONCE == 0)
			CHECK_FOR_INTERRUPTS();
		if (high < 0 || low < 0)
		{
			pfree(bytes);
			return NULL;
		}
		VARDATA(bytes)[i] = high << 4 | low;
	}
	return bytes;
}

/*
 * Text form: as bytea's, "\x" and hex digits (or the old escape format).
 * Refused bytes are a soft error where PostgreSQL knows those; a decoder that
 * was lost says nothing about the bytes.
 */
Datum
imgpipe_image_in(PG_FUNCTION_ARGS)
{
	int32		typmod = PG_GETARG_INT32(2);
	Datum		value;
	bytea	   *bytes;
	ImageFacts	facts;
	DecoderFailure failure;

	bytes = bytes_of_digits(PG_GETARG_CSTRING(0));
	if (bytes == NULL)
	{
		if (!bytea_input_safe(PG_GETARG_CSTRING(0), fcinfo->context, &value))
			PG_RETURN_NULL();
		bytes = DatumGetByteaPP(value);
	}
	if (!decoder_probe(VARDATA_ANY(bytes), VARSIZE_ANY_EXHDR(bytes), &facts, &failure))
	{
		if (failure.kind != DECODER_REJECTED)
			decoder_throw(&failure);
		ereturn(fcinfo->context, (Datum) 0,
				(errcode(failure.sqlerrcode),
				 errmsg_internal("%s", failure.message),
				 failure.detail ? errdetail_internal("%s", failure.detail) : 0,
				 failure.hint ? errhint("%s", failure.hint) : 0));
	}
	if (!image_fits_typmod(&facts, typmod, fcinfo->context))
		PG_RETURN_NULL();
	PG_RETURN_IMAGE_P(image_make(&facts, VARDATA_ANY(bytes), VARSIZE_ANY_EXHDR(bytes)));
}

Datum
imgpipe_image_out(PG_FUNCTION_ARGS)
{
	Image	   *image = PG_GETARG_IMAGE_P(0);
	Size		length = IMAGE_LENGTH(image);
	char	   *text = palloc(length * 2 + 3);
	char	   *end = text + 2;
	Size		offset;

	text[0] = '\\';
	text[1] = 'x';
	for (offset = 0; offset < length; offset += IMAGE_BYTES_AT_ONCE)
	{
		CHECK_FOR_INTERRUPTS();
		end += hex_encode(image->bytes + offset, Min(IMAGE_BYTES_AT_ONCE, length - offset), end);
	}
	*end = '\0';
	PG_RETURN_CSTRING(text);
}

/* Binary form: the file's own bytes, both ways. */
Datum
imgpipe_image_recv(PG_FUNCTION_ARGS)
{
	StringInfo	message = (StringInfo) PG_GETARG_POINTER(0);
	int			length = message->len - message->cursor;
	Image	   *image = image_from_bytes(pq_getmsgbytes(message, length), length);

	image_fits_typmod(&image->facts, PG_GETARG_INT32(2), NULL);
	PG_RETURN_IMAGE_P(image);
}

/* Where the value came out of TOAST its memory is ours and holds the file, too. */
static bytea *
image_file(Datum datum)
{
	Image	   *image = DatumGetImageP(datum);
	Size		length = IMAGE_LENGTH(image);
	bytea	   *file = (bytea *) image;

	if ((Pointer) image == DatumGetPointer(datum))
		file = palloc(VARHDRSZ + length);
	copy_bytes(VARDATA(file), image->bytes, length);
	SET_VARSIZE(file, VARHDRSZ + length);
	return file;
}

Datum
imgpipe_image_send(PG_FUNCTION_ARGS)
{
	PG_RETURN_BYTEA_P(image_file(PG_GETARG_DATUM(0)));
}

Datum
imgpipe_image_to_bytea(PG_FUNCTION_ARGS)
{
	PG_RETURN_BYTEA_P(image_file(PG_GETARG_DATUM(0)));
}

Datum
imgpipe_image_from_bytea(PG_FUNCTION_ARGS)
{
	bytea	   *bytes = PG_GETARG_BYTEA_PP(0);

	PG_RETURN_IMAGE_P(image_from_bytes(VARDATA_ANY(bytes), VARSIZE_ANY_EXHDR(bytes)));
}

Datum
imgpipe_image_format(PG_FUNCTION_ARGS)
{
	Image	   *image = PG_GETARG_IMAGE_HEADER_P(0);
	const char *name = image_format_name(image->facts.format);

	if (name == NULL)
		elog(ERROR, "unrecognized image format %d", image->facts.format);
	PG_RETURN_TEXT_P(cstring_to_text(name));
}

Datum
imgpipe_image_width(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT32(image_displayed_width(&PG_GETARG_IMAGE_HEADER_P(0)->facts));
}

Datum
imgpipe_image_height(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT32(image_displayed_height(&PG_GETARG_IMAGE_HEADER_P(0)->facts));
}

/* Not even the header: the size stands in the TOAST pointer. */
Datum
imgpipe_image_bytes(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT32(toast_raw_datum_size(PG_GETARG_DATUM(0)) - IMAGE_HEADER_SIZE);
}

Datum
imgpipe_image_sha256(PG_FUNCTION_ARGS)
{
	Image	   *image = PG_GETARG_IMAGE_P(0);
	bytea	   *digest = palloc(VARHDRSZ + PG_SHA256_DIGEST_LENGTH);
	pg_cryptohash_ctx *context = pg_cryptohash_create(PG_SHA256);
	Size		length = IMAGE_LENGTH(image);
	bool		done = pg_cryptohash_init(context) >= 0;
	Size		offset;

	for (offset = 0; done && offset < length; offset += IMAGE_BYTES_AT_ONCE)
	{
		CHECK_FOR_INTERRUPTS();
		done = pg_cryptohash_update(context, (uint8 *) image->bytes + offset,
									Min(IMAGE_BYTES_AT_ONCE, length - offset)) >= 0;
	}
	if (!done ||
		pg_cryptohash_final(context, (uint8 *) VARDATA(digest), PG_SHA256_DIGEST_LENGTH) < 0)
		elog(ERROR, "could not compute SHA-256: %s", pg_cryptohash_error(context));
	pg_cryptohash_free(context);
	SET_VARSIZE(digest, VARHDRSZ + PG_SHA256_DIGEST_LENGTH);
	PG_FREE_IF_COPY(image, 0);
	PG_RETURN_BYTEA_P(digest);
}
