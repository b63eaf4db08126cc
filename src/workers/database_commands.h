/*
 * database_commands.h
 *		Commands that need a database to themselves.
 */
#ifndef IMGPIPE_DATABASE_COMMANDS_H
#define IMGPIPE_DATABASE_COMMANDS_H

/* From _PG_init while shared_preload_libraries are loaded. */
extern void database_commands_watch(void);

#endif							/* IMGPIPE_DATABASE_COMMANDS_H */
