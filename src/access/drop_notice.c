/*
 * drop_notice.c
 *		Says, before DROP EXTENSION, what of the users' it leaves.
 */
#include "postgres.h"

#include "access/drop_notice.h"
#include "fmgr.h"
#include "nodes/makefuncs.h"
#include "parser/parse_func.h"

void
tell_what_stays(void)
{
	/* An older version of the extension may not have it. */
	Oid			function = LookupFuncName(list_make2(makeString("imgpipe"), makeString("tell_what_stays")), 0, NULL, true);

	if (OidIsValid(function))
		OidFunctionCall0(function);
}
