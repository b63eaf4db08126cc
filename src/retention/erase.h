/*
 * erase.h
 *		What ingest asks of the erasures, inside its transaction.
 */
#ifndef IMGPIPE_ERASE_H
#define IMGPIPE_ERASE_H

#include "imgpipe.h"

#include "datatype/timestamp.h"

/* False, mostly: then there is no need to ask of each message. */
extern bool erasures_exist(void);

/*
 * Whether a message would bring back what was erased, and is not to be
 * written.  key and uploaded_by may be NULL; timestamp is 0 where it has none.
 */
extern bool erasure_refuses(const char *source, int32 partition, int64 offset, TimestampTz timestamp,
							const char *key, const char *uploaded_by);

#endif							/* IMGPIPE_ERASE_H */
