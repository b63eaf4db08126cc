/*
 * typmod.c
 *		The type modifier of image: image(jpeg, png) takes these formats only.
 *
 * The modifier is a set of formats, IMAGE_FORMAT_BIT.  Its numbers are in the
 * catalogs and in dumps they are names.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "image/image.h"
#include "imgpipe.h"
#include "lib/stringinfo.h"
#include "utils/array.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(imgpipe_image_typmod_in);
PG_FUNCTION_INFO_V1(imgpipe_image_typmod_out);
PG_FUNCTION_INFO_V1(imgpipe_image_restrict);

Datum
imgpipe_image_typmod_in(PG_FUNCTION_ARGS)
{
	ArrayType  *names = PG_GETARG_ARRAYTYPE_P(0);
	Datum	   *elements;
	int			n_elements;
	uint32		formats = 0;
	int			i;

	deconstruct_array(names, CSTRINGOID, -2, false, TYPALIGN_CHAR, &elements, NULL, &n_elements);
	for (i = 0; i < n_elements; i++)
	{
		const char *name = DatumGetCString(elements[i]);
		ImageFormat format = image_format_by_name(name, strlen(name));

		if (format == IMAGE_FORMAT_UNKNOWN)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("there is no image format \"%s\"", name),
					 errhint("Formats are jpeg, png, webp, gif, tiff, heic and avif.")));
		formats |= IMAGE_FORMAT_BIT(format);
	}
	PG_RETURN_INT32(formats);
}

/* "(jpeg,png)" */
static char *
show_formats(int32 typmod)
{
	StringInfoData text;
	int			format;

	initStringInfo(&text);
	for (format = IMAGE_FORMAT_UNKNOWN + 1; format <= IMAGE_FORMAT_LAST; format++)
	{
		if (typmod & IMAGE_FORMAT_BIT(format))
			appendStringInfo(&text, "%c%s", text.len == 0 ? '(' : ',', image_format_name(format));
	}
	appendStringInfoChar(&text, ')');
	return text.data;
}

Datum
imgpipe_image_typmod_out(PG_FUNCTION_ARGS)
{
	PG_RETURN_CSTRING(show_formats(PG_GETARG_INT32(0)));
}

bool
image_fits_typmod(const ImageFacts *facts, int32 typmod, Node *escontext)
{
	if (typmod < 0 || (typmod & IMAGE_FORMAT_BIT(facts->format)) != 0)
		return true;
	ereturn(escontext, false,
			(errcode(ERRCODE_DATA_EXCEPTION),
			 errmsg("image of format %s does not fit type image%s",
					image_format_name(facts->format), show_formats(typmod)),
			 errhint("Convert the image with imgpipe.convert_image().")));
}

/* The value itself, still in TOAST where it was: only its header is read. */
Datum
imgpipe_image_restrict(PG_FUNCTION_ARGS)
{
	image_fits_typmod(&PG_GETARG_IMAGE_HEADER_P(0)->facts, PG_GETARG_INT32(1), NULL);
	PG_RETURN_DATUM(PG_GETARG_DATUM(0));
}
