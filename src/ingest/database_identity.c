/*
 * database_identity.c
 *		Which database this is, so that a copy does not ingest what another one
 *		ingests already.
 *
 * System identifier and oid tell a dump that was restored.  A copy of the
 * server's files has both in common with the original, and so has a standby,
 * which has to go on when it is promoted.  How the server starts tells them
 * apart: a standby has standby.signal until its promotion; a base backup that
 * is restored has backup_label or recovery.signal without it.  Recovery removes
 * these files.  So the postmaster looks before it, and gives such a copy a
 * name of its own, which stays in COPY_FILE.
 */
#include "postgres.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "access/xlog.h"
#include "ingest/database_identity.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "utils/builtins.h"

/* In the data directory, which is the working directory of every process. */
#define COPY_FILE			"imgpipe.copy"
#define BACKUP_LABEL		"backup_label"
#define STANDBY_SIGNAL		"standby.signal"
#define RECOVERY_SIGNAL		"recovery.signal"
#define COPY_NAME_LENGTH	16

PG_FUNCTION_INFO_V1(imgpipe_database_identity);

static bool
is_there(const char *file)
{
	struct stat status;

	return stat(file, &status) == 0;
}

/* Made durable before recovery can remove what it is deduced from. */
static void
write_copy_name(void)
{
	static const char temporary[] = COPY_FILE ".tmp";
	uint64		number;
	char		name[COPY_NAME_LENGTH + 1];
	int			file;
	bool		written;

	if (!pg_strong_random(&number, sizeof(number)))
		ereport(FATAL,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not generate a name for this copy of a server")));
	snprintf(name, sizeof(name), "%016llx", (unsigned long long) number);
	file = OpenTransientFile(temporary, O_CREAT | O_TRUNC | O_WRONLY | PG_BINARY);
	written = file >= 0 && write(file, name, COPY_NAME_LENGTH) == COPY_NAME_LENGTH && pg_fsync(file) == 0;
	if (file >= 0)
		CloseTransientFile(file);
	if (!written)
		ereport(FATAL,
				(errcode_for_file_access(),
				 errmsg("could not write file \"%s\": %m", temporary),
				 errdetail("It tells that this server is a copy of another one, and is not to ingest the same messages.")));
	(void) durable_rename(temporary, COPY_FILE, FATAL);
}

void
database_identity_look(void)
{
	if ((is_there(BACKUP_LABEL) || is_there(RECOVERY_SIGNAL)) && !is_there(STANDBY_SIGNAL))
		write_copy_name();
}

char *
database_identity(void)
{
	char		name[COPY_NAME_LENGTH + 1] = "";
	int			file = OpenTransientFile(COPY_FILE, O_RDONLY | PG_BINARY);
	ssize_t		length = 0;

	if (file >= 0)
	{
		length = read(file, name, COPY_NAME_LENGTH);
		CloseTransientFile(file);
	}
	if ((file < 0 && errno != ENOENT) || length < 0)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not read file \"%s\": %m", COPY_FILE)));
	return psprintf(UINT64_FORMAT "/%u%s%s", GetSystemIdentifier(), MyDatabaseId, name[0] ? "/" : "", name);
}

Datum
imgpipe_database_identity(PG_FUNCTION_ARGS)
{
	PG_RETURN_TEXT_P(cstring_to_text(database_identity()));
}
