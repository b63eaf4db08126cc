/*
 * purge.h
 *		What the controller and the purge worker agree on.
 */
#ifndef IMGPIPE_PURGE_H
#define IMGPIPE_PURGE_H

#include "imgpipe.h"

/*
 * The object of a purge worker's arguments.  Before ingest resumes, it gives
 * up soon on what readers keep from being dropped; later it waits for them.
 */
#define PURGE_PATIENTLY			0
#define PURGE_BEFORE_INGEST		1

/* For tests: waits while imgpipe.fault_point is this name. */
extern void fault_point(const char *name);

#endif							/* IMGPIPE_PURGE_H */
