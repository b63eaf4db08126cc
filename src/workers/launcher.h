/*
 * launcher.h
 *		The one process that finds the databases to serve.
 */
#ifndef IMGPIPE_LAUNCHER_H
#define IMGPIPE_LAUNCHER_H

/* From _PG_init while shared_preload_libraries are loaded. */
extern void launcher_register(void);

#endif							/* IMGPIPE_LAUNCHER_H */
