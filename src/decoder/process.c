/*
 * process.c
 *		process_image() and its kin, verify_image() and the sandbox's
 *		self-test, in SQL.
 */
#include "postgres.h"

#include "decoder/client.h"
#include "funcapi.h"
#include "imgpipe.h"
#include "lib/stringinfo.h"
#include "pipeline/pipeline.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

PG_FUNCTION_INFO_V1(imgpipe_process_image);
PG_FUNCTION_INFO_V1(imgpipe_process_image_array);
PG_FUNCTION_INFO_V1(imgpipe_thumbnail);
PG_FUNCTION_INFO_V1(imgpipe_convert_image);
PG_FUNCTION_INFO_V1(imgpipe_verify_image);
PG_FUNCTION_INFO_V1(imgpipe_decoder_sandbox);

static Image *
process_one(const Image *image, const char *pipeline)
{
	Image	   *output;

	decoder_process(&image, 1, 1, &pipeline, &output, NULL);
	return output;
}

/* With and without a layer.  A pipeline is a text varlena in canonical form. */
Datum
imgpipe_process_image(PG_FUNCTION_ARGS)
{
	const Image *images[2];
	const char *pipeline = text_to_cstring(PG_GETARG_TEXT_PP(1));
	Image	   *output;

	images[0] = PG_GETARG_IMAGE_P(0);
	if (PG_NARGS() > 2)
		images[1] = PG_GETARG_IMAGE_P(2);
	decoder_process(images, PG_NARGS() > 2 ? 2 : 1, 1, &pipeline, &output, NULL);
	PG_RETURN_IMAGE_P(output);
}

Datum
imgpipe_process_image_array(PG_FUNCTION_ARGS)
{
	const Image *image = PG_GETARG_IMAGE_P(0);
	ArrayType  *array = PG_GETARG_ARRAYTYPE_P(1);
	Oid			image_type = get_base_element_type(get_fn_expr_rettype(fcinfo->flinfo));
	Datum	   *elements;
	bool	   *nulls;
	int			n_elements;
	const char **pipelines;
	Image	  **outputs;
	int			i;

	if (!OidIsValid(image_type))
		image_type = image_type_oid();
	deconstruct_array(array, ARR_ELEMTYPE(array), -1, false, TYPALIGN_INT,
					  &elements, &nulls, &n_elements);
	if (n_elements == 0)
		PG_RETURN_ARRAYTYPE_P(construct_empty_array(image_type));
	if (n_elements > DECODER_MAX_OUTPUTS)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("too many pipelines"),
				 errdetail("There are %d; one call takes at most %d.",
						   n_elements, DECODER_MAX_OUTPUTS)));

	pipelines = palloc(n_elements * sizeof(char *));
	outputs = palloc(n_elements * sizeof(Image *));
	for (i = 0; i < n_elements; i++)
	{
		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("pipeline must not be null"),
					 errdetail("Element %d of the array is null.", i + 1)));
		pipelines[i] = TextDatumGetCString(elements[i]);
	}
	decoder_process(&image, 1, n_elements, pipelines, outputs, NULL);
	PG_RETURN_ARRAYTYPE_P(construct_array((Datum *) outputs, n_elements, image_type,
										  -1, false, TYPALIGN_INT));
}

Datum
imgpipe_thumbnail(PG_FUNCTION_ARGS)
{
	const Image *image = PG_GETARG_IMAGE_P(0);
	int32		width = PG_GETARG_INT32(1);
	int32		height = PG_GETARG_INT32(2);
	int			longest = (int) operations[OPERATION_RESIZE].arguments[RESIZE_WIDTH].maximum;

	if (width < 1 || width > longest || height < 1 || height > longest)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("thumbnail of %d x %d is not possible", width, height),
				 errhint("Width and height are from 1 to %d pixels.", longest)));
	PG_RETURN_IMAGE_P(process_one(image, psprintf("resize(width=%d, height=%d)", width, height)));
}

/* The encoder that a user means, of those that have the name of their format. */
static const char *
find_encoder(const char *format)
{
	StringInfoData encoders;
	int			i;

	initStringInfo(&encoders);
	for (i = 0; i < OPERATION_COUNT; i++)
	{
		if (operations[i].kind != OPERATION_ENCODER ||
			image_format_by_name(operations[i].name, strlen(operations[i].name)) == IMAGE_FORMAT_UNKNOWN)
			continue;
		if (pg_strcasecmp(operations[i].name, format) == 0)
			return operations[i].name;
		appendStringInfo(&encoders, "%s%s", encoders.len > 0 ? ", " : "", operations[i].name);
	}
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("images cannot be converted to \"%s\"", format),
			 errhint("Formats are: %s.", encoders.data)));
}

/* An image that has the format already loses nothing by being encoded again. */
Datum
imgpipe_convert_image(PG_FUNCTION_ARGS)
{
	Image	   *header = PG_GETARG_IMAGE_HEADER_P(0);
	const char *encoder = find_encoder(text_to_cstring(PG_GETARG_TEXT_PP(1)));
	const char *format = image_format_name(header->facts.format);

	if (format != NULL && strcmp(format, encoder) == 0)
		PG_RETURN_DATUM(PG_GETARG_DATUM(0));
	PG_RETURN_IMAGE_P(process_one(PG_GETARG_IMAGE_P(0), encoder));
}

/* What is wrong with the image, or null. */
Datum
imgpipe_verify_image(PG_FUNCTION_ARGS)
{
	DecoderFailure failure;

	if (decoder_verify(PG_GETARG_IMAGE_P(0), &failure))
		PG_RETURN_NULL();
	/* Limits, a lost decoder and the like say nothing about the image. */
	if (failure.sqlerrcode != ERRCODE_INVALID_BINARY_REPRESENTATION &&
		failure.sqlerrcode != ERRCODE_FEATURE_NOT_SUPPORTED)
		decoder_throw(&failure);
	PG_RETURN_TEXT_P(cstring_to_text(failure.detail != NULL ? failure.detail : failure.message));
}

/* One row of text an attempt, as the decoder tells them. */
Datum
imgpipe_decoder_sandbox(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	char	   *line;
	char	   *rest;

	InitMaterializedSRF(fcinfo, 0);
	for (line = strtok_r(decoder_self_test(), "\n", &rest); line; line = strtok_r(NULL, "\n", &rest))
	{
		char	   *outcome = strchr(line, '\t');
		char	   *error = outcome ? strchr(outcome + 1, '\t') : NULL;
		Datum		values[3];
		bool		nulls[3] = {false, false, false};

		if (error == NULL)
			elog(ERROR, "malformed self-test of the image decoder: %s", line);
		*outcome++ = '\0';
		*error++ = '\0';
		values[0] = CStringGetTextDatum(line);
		values[1] = BoolGetDatum(strcmp(outcome, "refused") == 0);
		values[2] = CStringGetTextDatum(error);
		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
	return (Datum) 0;
}
