/*
 * compat.h
 *		Every difference between PostgreSQL versions, wrapped in the newest form.
 */
#ifndef IMGPIPE_COMPAT_H
#define IMGPIPE_COMPAT_H

#if PG_VERSION_NUM < 150000
#error "imgpipe needs PostgreSQL 15 or later"
#endif

#include "catalog/pg_database.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/wait_event.h"

/* PostgreSQL 16 moved the varlena macros out of postgres.h. */
#if PG_VERSION_NUM >= 160000
#include "varatt.h"
#endif

/* PostgreSQL 16 gave input functions soft errors. */
#if PG_VERSION_NUM >= 160000
#include "nodes/miscnodes.h"
#else
#define ereturn(escontext, value, ...) \
	do { (void) (escontext); ereport(ERROR, __VA_ARGS__); return value; } while (0)
#endif

/* byteain; false for malformed text where soft errors are known. */
static inline bool
bytea_input_safe(char *text, struct Node *escontext, Datum *value)
{
#if PG_VERSION_NUM >= 160000
	return DirectInputFunctionCallSafe(byteain, text, InvalidOid, -1, escontext, value);
#else
	*value = DirectFunctionCall1(byteain, CStringGetDatum(text));
	return true;
#endif
}

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

/* PostgreSQL 17 gives a wait event set a resource owner instead of a context. */
#if PG_VERSION_NUM >= 170000
#define create_session_wait_event_set(n) CreateWaitEventSet(NULL, n)
#else
#define create_session_wait_event_set(n) CreateWaitEventSet(TopMemoryContext, n)
#endif

/* PostgreSQL 16 has one ownership check for all kinds of objects. */
#if PG_VERSION_NUM >= 160000
#define database_is_owned(database) object_ownercheck(DatabaseRelationId, database, GetUserId())
#else
#define database_is_owned(database) pg_database_ownercheck(database, GetUserId())
#endif

/* PostgreSQL 15.4 marks a database that DROP DATABASE is at, or has failed at. */
#ifdef DATCONNLIMIT_INVALID_DB
#define database_is_being_dropped(database) ((database)->datconnlimit == DATCONNLIMIT_INVALID_DB)
#else
#define database_is_being_dropped(database) false
#endif

/* PostgreSQL 18 says in front of a function that it does not return. */
#if PG_VERSION_NUM < 180000
#define pg_noreturn pg_attribute_noreturn()
#endif

/* PostgreSQL 18 took run_once out of PortalRun. */
#if PG_VERSION_NUM >= 180000
#define portal_run_all(portal, receiver, completion) \
	PortalRun(portal, FETCH_ALL, true, receiver, receiver, completion)
#else
#define portal_run_all(portal, receiver, completion) \
	PortalRun(portal, FETCH_ALL, true, true, receiver, receiver, completion)
#endif

#endif							/* IMGPIPE_COMPAT_H */
