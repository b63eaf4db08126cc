/*
 * compat.h
 *		Every difference between PostgreSQL versions, wrapped in the newest form.
 */
#ifndef IMGPIPE_COMPAT_H
#define IMGPIPE_COMPAT_H

#if PG_VERSION_NUM < 150000
#error "imgpipe needs PostgreSQL 15 or later"
#endif

/* PostgreSQL 16 gave input functions soft errors. */
#if PG_VERSION_NUM >= 160000
#include "nodes/miscnodes.h"
#else
#define ereturn(escontext, value, ...) \
	do { (void) (escontext); ereport(ERROR, __VA_ARGS__); return value; } while (0)
#endif

/* PostgreSQL 17 lets a background worker connect as a role without LOGIN. */
#if PG_VERSION_NUM >= 170000
#define WORKER_CONNECTION_FLAGS BGWORKER_BYPASS_ROLELOGINCHECK
#else
#define WORKER_CONNECTION_FLAGS 0
#endif

/* PostgreSQL 17 can name an extension's wait events. */
#if PG_VERSION_NUM >= 170000
#define IMGPIPE_WAIT_EVENT(name) WaitEventExtensionNew(name)
#else
#define IMGPIPE_WAIT_EVENT(name) PG_WAIT_EXTENSION
#endif

#endif							/* IMGPIPE_COMPAT_H */
