/*
 * process.c
 *		process_image() and the sandbox's self-test, in SQL.
 */
#include "postgres.h"

#include "decoder/client.h"
#include "decoder/protocol.h"
#include "funcapi.h"
#include "imgpipe.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

PG_FUNCTION_INFO_V1(imgpipe_process_image);
PG_FUNCTION_INFO_V1(imgpipe_process_image_array);
PG_FUNCTION_INFO_V1(imgpipe_decoder_sandbox);

/* A pipeline is a text varlena in canonical form. */
Datum
imgpipe_process_image(PG_FUNCTION_ARGS)
{
	Image	   *image = PG_GETARG_IMAGE_P(0);
	const char *pipeline = text_to_cstring(PG_GETARG_TEXT_PP(1));
	Image	   *output;

	decoder_process(image, 1, &pipeline, &output, NULL);
	PG_RETURN_IMAGE_P(output);
}

Datum
imgpipe_process_image_array(PG_FUNCTION_ARGS)
{
	Image	   *image = PG_GETARG_IMAGE_P(0);
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
	decoder_process(image, n_elements, pipelines, outputs, NULL);
	PG_RETURN_ARRAYTYPE_P(construct_array((Datum *) outputs, n_elements, image_type,
										  -1, false, TYPALIGN_INT));
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
