/*
 * database_identity.h
 *		Which database this is.
 */
#ifndef IMGPIPE_DATABASE_IDENTITY_H
#define IMGPIPE_DATABASE_IDENTITY_H

/* By the postmaster, before recovery: whether this server is a copy of another one. */
extern void database_identity_look(void);

/* The same after a restart and on a promoted standby, another in a copy. */
extern char *database_identity(void);

#endif							/* IMGPIPE_DATABASE_IDENTITY_H */
