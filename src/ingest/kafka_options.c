/*
 * kafka_options.c
 *		Which options a Kafka server and its user mappings may have.
 *
 * An allow-list: librdkafka has properties that load libraries, run shell
 * commands and read files of the server, and whoever may create a server is
 * not for that reason a superuser.  Names are librdkafka's own with
 * underscores for dots.  Secrets belong in user mappings, which PostgreSQL
 * shows to nobody else, and no message of this file contains a value of one.
 */
#include "postgres.h"

#include <ctype.h>
#include <limits.h>

#include "access/htup_details.h"
#include "access/reloptions.h"
#include "catalog/pg_foreign_server.h"
#include "catalog/pg_user_mapping.h"
#include "commands/defrem.h"
#include "compat.h"
#include "foreign/foreign.h"
#include "ingest/kafka_options.h"
#include "lib/stringinfo.h"
#include "utils/builtins.h"
#include "utils/syscache.h"
#include "utils/varlena.h"

PG_FUNCTION_INFO_V1(imgpipe_kafka_validator);

typedef enum OptionType
{
	OPTION_TEXT,
	OPTION_BROKERS,
	OPTION_PEM,
	OPTION_WORD,
	OPTION_INTEGER,
	OPTION_BOOLEAN
} OptionType;

typedef struct OptionSpec
{
	const char *name;
	Oid			catalog;		/* where it belongs */
	OptionType	type;
	bool		secret;
	int			minimum;		/* of an integer */
	int			maximum;
	const char *words;			/* of a word: comma-separated */
} OptionSpec;

#define SERVER	ForeignServerRelationId
#define MAPPING	UserMappingRelationId

static const OptionSpec options[] = {
	{"bootstrap_servers", SERVER, OPTION_BROKERS},
	{"security_protocol", SERVER, OPTION_WORD, .words = "plaintext,ssl,sasl_plaintext,sasl_ssl"},
	{"ssl_ca_pem", SERVER, OPTION_PEM},
	{"ssl_endpoint_identification_algorithm", SERVER, OPTION_WORD, .words = "https,none"},
	{"sasl_mechanism", SERVER, OPTION_WORD, .words = "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512"},
	{"client_id", SERVER, OPTION_TEXT},
	{"client_rack", SERVER, OPTION_TEXT},
	{"broker_address_family", SERVER, OPTION_WORD, .words = "any,v4,v6"},
	{"isolation_level", SERVER, OPTION_WORD, .words = "read_committed,read_uncommitted"},
	{"check_crcs", SERVER, OPTION_BOOLEAN},
	{"socket_keepalive_enable", SERVER, OPTION_BOOLEAN},
	{"socket_timeout_ms", SERVER, OPTION_INTEGER, .minimum = 1000, .maximum = 300000},
	{"reconnect_backoff_ms", SERVER, OPTION_INTEGER, .minimum = 1, .maximum = 60000},
	{"reconnect_backoff_max_ms", SERVER, OPTION_INTEGER, .minimum = 1, .maximum = 60000},
	{"fetch_wait_max_ms", SERVER, OPTION_INTEGER, .minimum = 1, .maximum = 5000},
	{"fetch_min_bytes", SERVER, OPTION_INTEGER, .minimum = 1, .maximum = 100 * 1024 * 1024},
	{"fetch_max_bytes", SERVER, OPTION_INTEGER, .minimum = 1024 * 1024, .maximum = 128 * 1024 * 1024},
	{"max_partition_fetch_bytes", SERVER, OPTION_INTEGER, .minimum = 1024, .maximum = 128 * 1024 * 1024},
	{"receive_message_max_bytes", SERVER, OPTION_INTEGER, .minimum = 129 * 1024 * 1024, .maximum = 1100 * 1024 * 1024},
	{"sasl_username", MAPPING, OPTION_TEXT},
	{"sasl_password", MAPPING, OPTION_TEXT, .secret = true},
	{"ssl_certificate_pem", MAPPING, OPTION_PEM},
	{"ssl_key_pem", MAPPING, OPTION_PEM, .secret = true},
	{"ssl_key_password", MAPPING, OPTION_TEXT, .secret = true},
};

/* Options that people will look for, and why they are not there. */
static const struct
{
	const char *prefix;
	const char *reason;
}			refused[] =
{
	{"plugin_library_paths", "It loads libraries into the server process."},
	{"sasl_kerberos_", "Kerberos is not supported: librdkafka runs a shell command for it."},
	{"sasl_oauthbearer_", "OAUTHBEARER is not supported."},
	{"enable_sasl_oauthbearer_", "OAUTHBEARER is not supported."},
	{"ssl_ca_location", "It names a file of the server. Give the certificates themselves in ssl_ca_pem."},
	{"ssl_certificate_location", "It names a file of the server. Give the certificate itself in ssl_certificate_pem of the user mapping."},
	{"ssl_key_location", "It names a file of the server. Give the key itself in ssl_key_pem of the user mapping."},
	{"ssl_keystore_", "It names a file of the server. Use ssl_certificate_pem and ssl_key_pem of the user mapping."},
	{"ssl_crl_location", "It names a file of the server."},
	{"ssl_engine_", "It loads a library into the server process."},
	{"ssl_providers", "It loads libraries into the server process."},
	{"enable_ssl_certificate_verification", "Without it anybody could be the broker. Give the certificates to trust in ssl_ca_pem."},
	{"enable_auto_", "imgpipe keeps positions itself, in the same transactions as the images."},
	{"auto_", "imgpipe keeps positions itself; create_source(start_from => ...) says where a source begins."},
	{"offset_store_", "imgpipe keeps positions itself, in the same transactions as the images."},
	{"enable_partition_eof", "imgpipe relies on it and sets it itself."},
	{"group_", "imgpipe assigns partitions itself and joins no consumer group."},
	{"session_timeout_ms", "imgpipe joins no consumer group."},
	{"heartbeat_interval_ms", "imgpipe joins no consumer group."},
	{"max_poll_interval_ms", "imgpipe joins no consumer group."},
	{"partition_assignment_strategy", "imgpipe joins no consumer group."},
	{"queued_", "It follows from the source's batch_bytes."},
	{"debug", "Debug output of the Kafka client can contain secrets."},
	{"log_", "The Kafka client logs through PostgreSQL's own log."},
};

static const OptionSpec *
option_find(const char *name)
{
	int			i;

	for (i = 0; i < lengthof(options); i++)
		if (strcmp(options[i].name, name) == 0)
			return &options[i];
	return NULL;
}

/* The name to suggest for one that is not there, or NULL. */
static const char *
nearest_name(const char *name, Oid catalog)
{
	const char *nearest = NULL;
	int			distance;
	int			least = Min(strlen(name) / 2, 5) + 1;
	int			i;

	if (strlen(name) >= NAMEDATALEN)
		return NULL;
	for (i = 0; i < lengthof(options); i++)
	{
		if (options[i].catalog != catalog)
			continue;
		distance = varstr_levenshtein_less_equal(name, strlen(name), options[i].name,
												 strlen(options[i].name), 1, 1, 1, least, true);
		if (distance < least)
		{
			least = distance;
			nearest = options[i].name;
		}
	}
	return nearest;
}

static char *
names_of(Oid catalog)
{
	StringInfoData names;
	int			i;

	initStringInfo(&names);
	for (i = 0; i < lengthof(options); i++)
		if (options[i].catalog == catalog)
			appendStringInfo(&names, "%s%s", names.len ? ", " : "", options[i].name);
	return names.data;
}

pg_noreturn static void
option_unknown(const char *name, Oid catalog)
{
	const char *nearest = nearest_name(name, catalog);
	int			i;

	for (i = 0; i < lengthof(refused); i++)
		if (strncmp(name, refused[i].prefix, strlen(refused[i].prefix)) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
					 errmsg("option \"%s\" is not allowed", name),
					 errdetail("%s", refused[i].reason)));

	ereport(ERROR,
			(errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
			 errmsg("invalid option \"%s\"", name),
			 catalog != SERVER && catalog != MAPPING ?
			 errhint("Options of %s go to CREATE SERVER and CREATE USER MAPPING.", KAFKA_WRAPPER) :
			 nearest ? errhint("Perhaps you meant the option \"%s\".", nearest) :
			 errhint("Valid options here are: %s.", names_of(catalog))));
}

/* One thing wrong with a value; the value itself is shown unless it is secret. */
pg_noreturn static void
value_invalid(const OptionSpec *option, const char *value, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
			 errmsg("invalid value for option \"%s\"", option->name),
			 option->secret || option->type == OPTION_PEM ? 0 : errdetail("The value is \"%s\".", value),
			 errhint("%s", hint)));
}

static bool
word_listed(const char *words, const char *value)
{
	Size		length = strlen(value);
	const char *word = words;

	while (length > 0)
	{
		if (strncmp(word, value, length) == 0 && (word[length] == ',' || word[length] == '\0'))
			return true;
		word = strchr(word, ',');
		if (word == NULL)
			break;
		word++;
	}
	return false;
}

/* host[:port], comma-separated; an IPv6 address stands in brackets. */
static bool
brokers_valid(const char *value)
{
	const char *c;
	bool		in_entry = false;

	for (c = value; *c; c++)
	{
		if (*c == ',')
		{
			if (!in_entry)
				return false;
			in_entry = false;
		}
		else if (isalnum((unsigned char) *c) || strchr(".-_:[]", *c))
			in_entry = true;
		else if (*c != ' ')
			return false;
	}
	return in_entry;
}

static void
value_check(const OptionSpec *option, const char *value)
{
	char	   *end;
	long		number;
	bool		boolean;

	switch (option->type)
	{
		case OPTION_TEXT:
			if (value[0] == '\0')
				value_invalid(option, value, "It may not be empty.");
			break;
		case OPTION_BROKERS:
			if (!brokers_valid(value))
				value_invalid(option, value, "Give host:port of one or more brokers, separated by commas.");
			break;
		case OPTION_PEM:
			if (strstr(value, "-----BEGIN ") == NULL)
				value_invalid(option, value, "Give the PEM text itself, from -----BEGIN to -----END, not the name of a file.");
			break;
		case OPTION_WORD:
			if (!word_listed(option->words, value))
				value_invalid(option, value, psprintf("Valid values are: %s.", option->words));
			break;
		case OPTION_INTEGER:
			errno = 0;
			number = strtol(value, &end, 10);
			if (errno != 0 || end == value || *end != '\0' ||
				number < option->minimum || number > option->maximum)
				value_invalid(option, value, psprintf("Valid values are whole numbers from %d to %d.",
													  option->minimum, option->maximum));
			break;
		case OPTION_BOOLEAN:
			if (!parse_bool(value, &boolean) || !word_listed("true,false", value))
				value_invalid(option, value, "Valid values are: true, false.");
			break;
	}
}

Datum
imgpipe_kafka_validator(PG_FUNCTION_ARGS)
{
	List	   *given = untransformRelOptions(PG_GETARG_DATUM(0));
	Oid			catalog = PG_GETARG_OID(1);
	ListCell   *cell;

	foreach(cell, given)
	{
		DefElem    *element = lfirst(cell);
		const OptionSpec *option = option_find(element->defname);

		if (option == NULL)
			option_unknown(element->defname, catalog);
		if (option->catalog != catalog)
		{
			if (catalog != SERVER && catalog != MAPPING)
				option_unknown(element->defname, catalog);
			ereport(ERROR,
					(errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
					 errmsg("option \"%s\" belongs to a %s, not to a %s", option->name,
							option->catalog == SERVER ? "server" : "user mapping",
							option->catalog == SERVER ? "user mapping" : "server"),
					 option->catalog == SERVER ?
					 errhint("Set it with CREATE SERVER or ALTER SERVER ... OPTIONS.") :
					 errhint("Credentials belong to the user who has them: CREATE USER MAPPING FOR user SERVER server OPTIONS (...).")));
		}
		value_check(option, defGetString(element));
	}
	PG_RETURN_VOID();
}

/* Appends the known ones of a catalog's options; others may be of a later version. */
static int
append_settings(KafkaSetting *settings, int n, List *given)
{
	ListCell   *cell;
	char	   *c;

	foreach(cell, given)
	{
		DefElem    *element = lfirst(cell);
		const OptionSpec *option = option_find(element->defname);
		char	   *name;

		if (option == NULL)
			continue;
		name = pstrdup(option->name);
		for (c = name; *c; c++)
			if (*c == '_')
				*c = '.';
		settings[n].name = name;
		settings[n].value = defGetString(element);
		settings[n].secret = option->secret;
		n++;
	}
	return n;
}

/* A mapping of the user's own, or else the one for PUBLIC, or else nothing. */
static List *
mapping_options(Oid user, Oid server)
{
	HeapTuple	tuple = SearchSysCache2(USERMAPPINGUSERSERVER, ObjectIdGetDatum(user),
										ObjectIdGetDatum(server));
	List	   *given = NIL;
	Datum		value;
	bool		isnull;

	if (!HeapTupleIsValid(tuple))
		tuple = SearchSysCache2(USERMAPPINGUSERSERVER, ObjectIdGetDatum(InvalidOid),
								ObjectIdGetDatum(server));
	if (!HeapTupleIsValid(tuple))
		return NIL;
	value = SysCacheGetAttr(USERMAPPINGUSERSERVER, tuple, Anum_pg_user_mapping_umoptions, &isnull);
	if (!isnull)
		given = untransformRelOptions(value);
	ReleaseSysCache(tuple);
	return given;
}

int
kafka_settings(const char *server_name, Oid user, KafkaSetting **settings)
{
	ForeignServer *server = GetForeignServerByName(server_name, true);
	List	   *mapping;
	int			n = 0;
	int			i;

	if (server == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("server \"%s\" does not exist", server_name),
				 errhint("Create it again with CREATE SERVER, or drop the source.")));
	if (strcmp(GetForeignDataWrapper(server->fdwid)->fdwname, KAFKA_WRAPPER) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("server \"%s\" is not of foreign-data wrapper %s", server_name, KAFKA_WRAPPER)));

	mapping = mapping_options(user, server->serverid);
	*settings = palloc(sizeof(KafkaSetting) * (list_length(server->options) + list_length(mapping) + 1));
	n = append_settings(*settings, n, server->options);
	n = append_settings(*settings, n, mapping);

	for (i = 0; i < n; i++)
		if (strcmp((*settings)[i].name, "bootstrap.servers") == 0)
			return n;
	ereport(ERROR,
			(errcode(ERRCODE_FDW_OPTION_NAME_NOT_FOUND),
			 errmsg("server \"%s\" has no brokers", server_name),
			 errhint("ALTER SERVER %s OPTIONS (ADD bootstrap_servers 'host:port').",
					 quote_identifier(server_name))));
	return 0;					/* keep compiler quiet */
}
