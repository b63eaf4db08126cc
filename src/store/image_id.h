/*
 * image_id.h
 *		Image ids, made from C.
 */
#ifndef IMGPIPE_IMAGE_ID_H
#define IMGPIPE_IMAGE_ID_H

#include "postgres.h"

#include "fmgr.h"

/* What SQL has as new_image_id(), without arguments and with a deadline. */
extern PGDLLEXPORT Datum imgpipe_new_image_id(PG_FUNCTION_ARGS);
extern PGDLLEXPORT Datum imgpipe_new_image_id_at(PG_FUNCTION_ARGS);

#endif							/* IMGPIPE_IMAGE_ID_H */
