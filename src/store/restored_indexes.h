/*
 * restored_indexes.h
 *		Lets a dump be restored that brings indexes which are there already.
 */
#ifndef IMGPIPE_RESTORED_INDEXES_H
#define IMGPIPE_RESTORED_INDEXES_H

/* Once, when the library is loaded. */
extern void restored_indexes_watch(void);

#endif							/* IMGPIPE_RESTORED_INDEXES_H */
