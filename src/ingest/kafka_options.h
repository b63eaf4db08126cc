/*
 * kafka_options.h
 *		Options of imgpipe_kafka servers and user mappings.
 */
#ifndef IMGPIPE_KAFKA_OPTIONS_H
#define IMGPIPE_KAFKA_OPTIONS_H

#include "ingest/kafka_client.h"

#define KAFKA_WRAPPER	"imgpipe_kafka"

/*
 * What a server and the user's mapping for it say, for kafka_client_open();
 * returns how many, palloc'd.  Raises where the server is missing or is of
 * another wrapper, and where bootstrap_servers is not set.
 */
extern int	kafka_settings(const char *server_name, Oid user, KafkaSetting **settings);

#endif							/* IMGPIPE_KAFKA_OPTIONS_H */
