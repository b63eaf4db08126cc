
/* The messages of a topic themselves; see read_topic.c. */

CREATE FUNCTION imgpipe.read_topic(server text, topic text, partition integer DEFAULT NULL,
	from_offset bigint DEFAULT NULL, to_offset bigint DEFAULT NULL, from_time timestamptz DEFAULT NULL, to_time timestamptz DEFAULT NULL,
	timeout interval DEFAULT '30 seconds')
	RETURNS TABLE (source_partition integer, source_offset bigint, source_timestamp timestamptz, source_key text, value bytea, headers jsonb)
	AS 'MODULE_PATHNAME', 'imgpipe_read_topic'
	LANGUAGE C VOLATILE PARALLEL UNSAFE COST 10000;
COMMENT ON FUNCTION imgpipe.read_topic(text, text, integer, bigint, bigint, timestamptz, timestamptz, interval) IS
'The messages of a Kafka topic as rows, whether or not any source ingests it; no position anywhere moves. server: of foreign-data wrapper imgpipe_kafka, on which the current role needs USAGE; its own user mapping counts, or that for PUBLIC. partition: NULL for all. It begins with from_offset (of one partition) or with the first message that is not older than from_time, else with the first that is there; it ends before to_offset or the first message that is not older than to_time, and in any case where the partition ended when reading began. Columns as those of imgpipe.images; value is NULL for a tombstone. The result is complete or there is none: where Kafka is silent for timeout (1 second to 1 day), 08006 is raised. It is collected before the first row is returned, beyond work_mem in a temporary file, so bound what is read by the arguments, not by LIMIT. Raises 22023 for a range, a partition that does not exist or an offset whose message was deleted, 42704 for a server or a topic that does not exist, 42501 without USAGE.';
