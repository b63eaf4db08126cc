/*
 * job_command.h
 *		The SQL of a job.
 */
#ifndef IMGPIPE_JOB_COMMAND_H
#define IMGPIPE_JOB_COMMAND_H

#include "imgpipe.h"

typedef struct JobRows
{
	bool		counted;		/* there was a statement that has rows */
	uint64		count;			/* of all statements together */
} JobRows;

/*
 * Executes a command outside of any transaction, as if a client had sent it.
 * After an error the caller ends whatever transaction there is.
 */
extern void job_command_run(const char *command, JobRows *rows);

#endif							/* IMGPIPE_JOB_COMMAND_H */
