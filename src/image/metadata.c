/*
 * metadata.c
 *		What an image says of itself: image_info() from the value's header,
 *		EXIF and the like from the decoder.
 *
 * The decoder reads the blocks, which are hostile, and answers with JSON or
 * text that decoder/client.c has found to be UTF-8.
 */
#include "postgres.h"

#include "decoder/client.h"
#include "funcapi.h"
#include "image/image.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"

PG_FUNCTION_INFO_V1(imgpipe_image_info);
PG_FUNCTION_INFO_V1(imgpipe_image_exif);
PG_FUNCTION_INFO_V1(imgpipe_image_iptc);
PG_FUNCTION_INFO_V1(imgpipe_image_xmp);
PG_FUNCTION_INFO_V1(imgpipe_image_icc_profile);

/* In the order of the columns in metadata.sql. */
Datum
imgpipe_image_info(PG_FUNCTION_ARGS)
{
	const ImageFacts *facts = &PG_GETARG_IMAGE_HEADER_P(0)->facts;
	const char *format = image_format_name(facts->format);
	bool		has_frames = facts->format == IMAGE_FORMAT_GIF || facts->format == IMAGE_FORMAT_WEBP;
	TupleDesc	columns;
	Datum		values[17];
	bool		nulls[lengthof(values)] = {false};
	int			i = 0;

	if (get_call_result_type(fcinfo, NULL, &columns) != TYPEFUNC_COMPOSITE ||
		columns->natts != lengthof(values))
		elog(ERROR, "image_info does not return a row of %d columns", (int) lengthof(values));
	if (format == NULL)
		elog(ERROR, "unrecognized image format %d", facts->format);

	values[i++] = CStringGetTextDatum(format);
	values[i++] = Int32GetDatum(image_displayed_width(facts));
	values[i++] = Int32GetDatum(image_displayed_height(facts));
	values[i++] = Int32GetDatum(facts->width);
	values[i++] = Int32GetDatum(facts->height);
	values[i++] = Int32GetDatum(facts->pages);
	values[i++] = Int32GetDatum(facts->bands);
	values[i++] = Int32GetDatum(facts->depth);
	values[i++] = BoolGetDatum((facts->flags & IMAGE_HAS_ALPHA) != 0);
	values[i++] = CStringGetTextDatum(image_color_space_name(facts->color_space));
	values[i++] = Int32GetDatum(facts->orientation);
	values[i++] = BoolGetDatum((facts->flags & IMAGE_HAS_ICC_PROFILE) != 0);
	values[i++] = BoolGetDatum(has_frames && facts->pages > 1);
	values[i++] = BoolGetDatum((facts->flags & IMAGE_IS_PROGRESSIVE) != 0);
	values[i++] = BoolGetDatum((facts->flags & IMAGE_HAS_EXIF) != 0);
	values[i++] = BoolGetDatum((facts->flags & IMAGE_HAS_XMP) != 0);
	values[i++] = BoolGetDatum((facts->flags & IMAGE_HAS_IPTC) != 0);
	Assert(i == lengthof(values));
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(columns), values, nulls)));
}

/* In the server's encoding; NULL where there is none. */
static char *
read_text(FunctionCallInfo fcinfo, DecoderOperation operation)
{
	bytea	   *output = decoder_metadata(PG_GETARG_IMAGE_P(0), operation);
	char	   *text;

	if (output == NULL)
		return NULL;
	text = text_to_cstring(output);
	return pg_any_to_server(text, strlen(text), PG_UTF8);
}

static Datum
return_json(FunctionCallInfo fcinfo, DecoderOperation operation)
{
	char	   *json = read_text(fcinfo, operation);

	if (json == NULL)
		PG_RETURN_NULL();
	return DirectFunctionCall1(jsonb_in, CStringGetDatum(json));
}

Datum
imgpipe_image_exif(PG_FUNCTION_ARGS)
{
	return return_json(fcinfo, DECODER_EXIF);
}

Datum
imgpipe_image_iptc(PG_FUNCTION_ARGS)
{
	return return_json(fcinfo, DECODER_IPTC);
}

Datum
imgpipe_image_xmp(PG_FUNCTION_ARGS)
{
	char	   *text = read_text(fcinfo, DECODER_XMP);

	if (text == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(text));
}

Datum
imgpipe_image_icc_profile(PG_FUNCTION_ARGS)
{
	bytea	   *profile = decoder_metadata(PG_GETARG_IMAGE_P(0), DECODER_ICC_PROFILE);

	if (profile == NULL)
		PG_RETURN_NULL();
	PG_RETURN_BYTEA_P(profile);
}
