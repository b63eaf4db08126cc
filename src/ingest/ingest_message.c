/*
 * ingest_message.c
 *		A Kafka message as column values.
 *
 * Keys and headers are bytes to Kafka.  What is text in this database's
 * encoding is stored as text, anything else in hexadecimal, so that nothing is
 * lost and nothing is refused.
 */
#include "postgres.h"

#include "common/int.h"
#include "ingest/ingest.h"
#include "ingest/ingest_message.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/json.h"
#include "utils/timestamp.h"

typedef struct Header
{
	const char *name;
	const char *value;			/* NULL: null */
	Size		length;
	int			position;
} Header;

static char *
to_hex(const char *prefix, const char *bytes, Size length)
{
	Size		start = strlen(prefix);
	char	   *text = palloc(start + length * 2 + 1);

	memcpy(text, prefix, start);
	hex_encode(bytes, length, text + start);
	text[start + length * 2] = '\0';
	return text;
}

static bool
is_text(const char *bytes, Size length)
{
	return pg_verify_mbstr(GetDatabaseEncoding(), bytes, length, true);
}

/* Text that itself begins like the hexadecimal form is given in that, so that the bytes can be told from it. */
char *
message_text(const char *bytes, Size length)
{
	bool		ambiguous = length >= 2 && bytes[0] == '\\' && bytes[1] == 'x';

	return is_text(bytes, length) && !ambiguous ? pnstrdup(bytes, length) : to_hex("\\x", bytes, length);
}

char *
message_header_text(const KafkaMessage *message, const char *name)
{
	const char *found;
	const char *value;
	Size		length;
	int			i;

	for (i = 0; kafka_message_header(message, i, &found, &value, &length); i++)
		if (strcmp(found, name) == 0 && value != NULL)
			return message_text(value, length);
	return NULL;
}

static void
append_value(StringInfo json, const Header *header)
{
	if (header->value == NULL)
		appendStringInfoString(json, "null");
	else if (is_text(header->value, header->length))
		escape_json(json, pnstrdup(header->value, header->length));
	else
		appendStringInfo(json, "{\"hex\": \"%s\"}", to_hex("", header->value, header->length));
}

static int
header_compare(const void *left, const void *right)
{
	const Header *a = left;
	const Header *b = right;
	int			order = strcmp(a->name, b->name);

	return order != 0 ? order : a->position - b->position;
}

Datum
message_headers(const KafkaMessage *message, bool *isnull)
{
	StringInfoData json;
	Header	   *headers;
	Header		header;
	int			n = 0;
	int			i;
	int			j;

	while (kafka_message_header(message, n, &header.name, &header.value, &header.length))
		n++;
	*isnull = n == 0;
	if (n == 0)
		return (Datum) 0;

	headers = palloc(mul_size(n, sizeof(Header)));
	for (i = 0; i < n; i++)
	{
		kafka_message_header(message, i, &headers[i].name, &headers[i].value, &headers[i].length);
		headers[i].position = i;
	}
	qsort(headers, n, sizeof(Header), header_compare);

	initStringInfo(&json);
	for (i = 0; i < n; i = j)
	{
		for (j = i + 1; j < n && strcmp(headers[i].name, headers[j].name) == 0; j++)
			;
		appendStringInfoChar(&json, i == 0 ? '{' : ',');
		escape_json(&json, message_text(headers[i].name, strlen(headers[i].name)));
		appendStringInfoChar(&json, ':');
		if (j - i == 1)
			append_value(&json, &headers[i]);
		else
		{
			int			k;

			for (k = i; k < j; k++)
			{
				appendStringInfoChar(&json, k == i ? '[' : ',');
				append_value(&json, &headers[k]);
			}
			appendStringInfoChar(&json, ']');
		}
	}
	appendStringInfoChar(&json, '}');
	return DirectFunctionCall1(jsonb_in, CStringGetDatum(json.data));
}

char *
envelope_text(Jsonb *envelope, const char *name)
{
	JsonbValue	value;

	if (getKeyJsonValueFromContainer(&envelope->root, name, strlen(name), &value) == NULL ||
		value.type != jbvString)
		return NULL;
	return pnstrdup(value.val.string.val, value.val.string.len);
}

bool
message_open(const KafkaMessage *message, const char *content_field, Jsonb **envelope,
			 const char **content, Size *length, ErrorData **error)
{
	MemoryContext context = CurrentMemoryContext;
	volatile bool opened = false;

	PG_TRY();
	{
		char	   *text;
		bytea	   *bytes;

		pg_verifymbstr(message->value, message->value_length, false);
		text = pnstrdup(message->value, message->value_length);
		*envelope = DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(text)));
		text = JB_ROOT_IS_OBJECT(*envelope) ? envelope_text(*envelope, content_field) : NULL;
		if (text == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("message has no image"),
					 errdetail("Its value is no JSON object with a field \"%s\" that is a string.", content_field)));
		bytes = DatumGetByteaPP(DirectFunctionCall2(binary_decode, CStringGetTextDatum(text), CStringGetTextDatum("base64")));
		*content = VARDATA_ANY(bytes);
		*length = VARSIZE_ANY_EXHDR(bytes);
		if (*length == 0)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_BINARY_REPRESENTATION),
					 errmsg("message is empty"),
					 errdetail("The field \"%s\" has no bytes.", content_field)));
		opened = true;
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		*error = CopyErrorData();
		FlushErrorState();
		if (ERRCODE_TO_CATEGORY((*error)->sqlerrcode) != ERRCODE_DATA_EXCEPTION &&
			ERRCODE_TO_CATEGORY((*error)->sqlerrcode) != ERRCODE_PROGRAM_LIMIT_EXCEEDED)
			ReThrowError(*error);
	}
	PG_END_TRY();
	return opened;
}

Datum
envelope_headers(Jsonb *envelope, const char *content_field, Datum headers, bool *no_headers)
{
	Datum		fields = DirectFunctionCall2(jsonb_delete, JsonbPGetDatum(envelope),
											 CStringGetTextDatum(content_field));

	if (!*no_headers)
		fields = DirectFunctionCall2(jsonb_concat, fields, headers);
	*no_headers = JB_ROOT_COUNT(DatumGetJsonbP(fields)) == 0;
	return fields;
}

/* In ms. */
#define EPOCH_DIFFERENCE	(INT64CONST(1000) * SECS_PER_DAY * (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE))

TimestampTz
message_timestamp(const KafkaMessage *message)
{
	TimestampTz timestamp;

	if (message->timestamp < 0 ||
		pg_mul_s64_overflow(message->timestamp - EPOCH_DIFFERENCE, 1000, &timestamp) ||
		!IS_VALID_TIMESTAMP(timestamp))
		return 0;
	return timestamp;
}

int64
kafka_time(TimestampTz timestamp)
{
	return (timestamp + INT64CONST(999)) / 1000 + EPOCH_DIFFERENCE;
}
