
/* What sources do, as everybody with SELECT may see it. */

CREATE VIEW imgpipe.source_status AS
	SELECT s.name, s.server, s.topic, s.owner,
		CASE
			WHEN NOT s.enabled AND w.alive OPERATOR(pg_catalog.=) 0 AND s.finished_at IS NOT NULL THEN 'finished'
			WHEN NOT s.enabled AND w.alive OPERATOR(pg_catalog.=) 0 THEN 'stopped'
			WHEN NOT s.enabled THEN 'stopping'
			WHEN NOT imgpipe.workers_available() OR w.failed OPERATOR(pg_catalog.>) 0 THEN 'failed'
			WHEN w.retrying OPERATOR(pg_catalog.>) 0 THEN 'retrying'
			WHEN w.ready OPERATOR(pg_catalog.<) s.parallelism THEN 'starting'
			WHEN w.waiting OPERATOR(pg_catalog.>) 0 THEN 'waiting'
			WHEN w.running OPERATOR(pg_catalog.>) 0 THEN 'running'
			ELSE 'idle'
		END AS state,
		w.since,
		w.alive AS workers,
		p.partitions,
		COALESCE(w.lag, p.lag) AS lag_messages,
		CASE WHEN COALESCE(w.lag, p.lag) OPERATOR(pg_catalog.>) 0
			THEN pg_catalog.round(pg_catalog.extract('epoch', pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) p.behind_since), 1)
			WHEN COALESCE(w.lag, p.lag) OPERATOR(pg_catalog.=) 0 THEN 0 END AS lag_seconds,
		w.messages, w.bytes, w.dead_letters, w.messages_per_second, w.bytes_per_second,
		p.updated_at AS last_batch_at,
		CASE WHEN s.enabled AND NOT imgpipe.workers_available()
			THEN 'imgpipe is not in shared_preload_libraries' ELSE w.last_error END AS last_error,
		w.last_error_at
	FROM imgpipe.sources s
		CROSS JOIN LATERAL (
			SELECT pg_catalog.count(*)::integer AS partitions,
				pg_catalog.sum(GREATEST(LEAST(ip.high_watermark, ip.end_offset) OPERATOR(pg_catalog.-) ip.next_offset, 0))::bigint AS lag,
				COALESCE(pg_catalog.min(COALESCE(ip.last_timestamp, ip.updated_at))
					FILTER (WHERE ip.high_watermark OPERATOR(pg_catalog.>) ip.next_offset),
					pg_catalog.max(ip.last_timestamp)) AS behind_since,
				pg_catalog.max(ip.updated_at) AS updated_at
			FROM imgpipe.ingest_positions ip
			WHERE ip.source_id OPERATOR(pg_catalog.=) s.source_id AND ip.partition OPERATOR(pg_catalog.%) s.slices OPERATOR(pg_catalog.=) s.slice) p
		CROSS JOIN LATERAL (
			SELECT pg_catalog.max(ws.since) AS since,
				pg_catalog.count(ws.pid)::integer AS alive,
				pg_catalog.count(*) FILTER (WHERE ws.state OPERATOR(pg_catalog.=) 'failed') AS failed,
				pg_catalog.count(*) FILTER (WHERE ws.state OPERATOR(pg_catalog.=) 'retrying') AS retrying,
				pg_catalog.count(*) FILTER (WHERE ws.state OPERATOR(pg_catalog.=) 'running') AS running,
				pg_catalog.count(*) FILTER (WHERE ws.state OPERATOR(pg_catalog.=) ANY ('{running,idle,waiting}')) AS ready,
				pg_catalog.count(*) FILTER (WHERE ws.state OPERATOR(pg_catalog.=) 'waiting') AS waiting,
				CASE WHEN pg_catalog.count(ws.lag) FILTER (WHERE ws.pid IS NOT NULL) OPERATOR(pg_catalog.=) s.parallelism
					THEN pg_catalog.sum(ws.lag)::bigint END AS lag,
				COALESCE(pg_catalog.sum(ws.messages), 0)::bigint AS messages,
				COALESCE(pg_catalog.sum(ws.bytes), 0)::bigint AS bytes,
				COALESCE(pg_catalog.sum(ws.failed), 0)::bigint AS dead_letters,
				COALESCE(pg_catalog.sum(ws.messages_per_second) FILTER (WHERE ws.pid IS NOT NULL), 0) AS messages_per_second,
				COALESCE(pg_catalog.sum(ws.bytes_per_second) FILTER (WHERE ws.pid IS NOT NULL), 0) AS bytes_per_second,
				(pg_catalog.array_agg(ws.last_error ORDER BY ws.last_error_at DESC) FILTER (WHERE ws.last_error IS NOT NULL))[1] AS last_error,
				pg_catalog.max(ws.last_error_at) AS last_error_at
			FROM imgpipe.worker_slots() ws
			WHERE ws.kind OPERATOR(pg_catalog.=) 'ingest' AND ws.object OPERATOR(pg_catalog.=) s.source_id) w;
COMMENT ON VIEW imgpipe.source_status IS
'One row a source: what it is doing now. state: stopped, stopping, starting, running, finished (a replay has ingested its range), idle (all that there is, is ingested), waiting (more tasks than max_backlog are queued, or more messages than imgpipe.max_outbox wait to be sent), retrying (something is in the way, last_error says what, and it is tried again without end), failed (a worker ended; the controller starts it again after a while). messages, bytes and dead_letters count since start_source() or the start of the server, rates are over about 10 seconds. Who shall see this needs SELECT on the view and EXECUTE on imgpipe.worker_slots().';
COMMENT ON COLUMN imgpipe.source_status.since IS 'When a worker of the source last changed its state.';
COMMENT ON COLUMN imgpipe.source_status.lag_messages IS 'Messages that are in the topic and not yet ingested, as of the last look (last_batch_at or a few seconds ago).';
COMMENT ON COLUMN imgpipe.source_status.lag_seconds IS 'How long ago the last ingested message was made, in the partition furthest behind; 0 where none is behind.';
COMMENT ON COLUMN imgpipe.source_status.last_error IS 'The latest error of any of its workers since then; it may be over. See state.';

CREATE VIEW imgpipe.source_partitions AS
	SELECT s.name, ip.partition, ip.next_offset, ip.high_watermark,
		GREATEST(LEAST(ip.high_watermark, ip.end_offset) OPERATOR(pg_catalog.-) ip.next_offset, 0) AS lag_messages,
		CASE WHEN ip.high_watermark OPERATOR(pg_catalog.>) ip.next_offset
			THEN pg_catalog.round(pg_catalog.extract('epoch', pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) COALESCE(ip.last_timestamp, ip.updated_at)), 1)
			WHEN ip.high_watermark OPERATOR(pg_catalog.=) ip.next_offset THEN 0 END AS lag_seconds,
		ip.last_offset, ip.last_timestamp, ip.messages, ip.bytes, ip.dead_letters, ip.ingested_to, ip.end_offset, ip.updated_at
	FROM imgpipe.sources s JOIN imgpipe.ingest_positions ip ON ip.source_id OPERATOR(pg_catalog.=) s.source_id
	WHERE ip.partition OPERATOR(pg_catalog.%) s.slices OPERATOR(pg_catalog.=) s.slice;
COMMENT ON VIEW imgpipe.source_partitions IS
'One row for each partition of each source: where it goes on, how far behind it is, and what has ever been ingested from it, restarts of the server and of the source included.';
COMMENT ON COLUMN imgpipe.source_partitions.high_watermark IS 'End of the partition as last written: with each batch, and every 10 seconds while ingest is behind.';
COMMENT ON COLUMN imgpipe.source_partitions.lag_seconds IS 'How long ago the last ingested message was made; 0 where there is none after it.';
COMMENT ON COLUMN imgpipe.source_partitions.messages IS 'Messages ever ingested, dead letters included.';

CREATE TABLE imgpipe.source_topics (
	source_id integer PRIMARY KEY REFERENCES imgpipe.sources ON DELETE CASCADE,
	retention_ms bigint,
	segment_ms bigint,
	error text,
	told_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);
COMMENT ON TABLE imgpipe.source_topics IS
'For how long Kafka keeps the messages of each source''s topic, as the broker told the source''s worker: at its start and then every 10 minutes. Read by retention_residue(). Not dumped.';
COMMENT ON COLUMN imgpipe.source_topics.retention_ms IS 'retention.ms of the topic; -1: for ever, also where cleanup.policy only compacts.';
COMMENT ON COLUMN imgpipe.source_topics.segment_ms IS 'segment.ms: a message goes with its segment, which is closed after this time at the latest.';
COMMENT ON COLUMN imgpipe.source_topics.error IS 'Why the broker does not tell.';

CREATE TABLE imgpipe.ingest_batches (
	source text NOT NULL,
	worker integer NOT NULL,
	began_at timestamptz NOT NULL,
	committed_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	messages integer NOT NULL,
	dead_letters integer NOT NULL,
	bytes bigint NOT NULL,
	offsets jsonb NOT NULL
);
CREATE INDEX ON imgpipe.ingest_batches USING brin (committed_at);
COMMENT ON TABLE imgpipe.ingest_batches IS
'One row for each transaction of an ingest worker that wrote messages, in that transaction: what was ingested when, for imgpipe.ingest_history. Not dumped.';
COMMENT ON COLUMN imgpipe.ingest_batches.worker IS 'Which of the source''s workers, from 0 on.';
COMMENT ON COLUMN imgpipe.ingest_batches.began_at IS 'When the batch was complete: from here on images were probed and written. Of several transactions that one batch took, because a message was refused, all have the same.';
COMMENT ON COLUMN imgpipe.ingest_batches.committed_at IS 'Just before the commit.';
COMMENT ON COLUMN imgpipe.ingest_batches.messages IS 'Messages, dead letters included.';
COMMENT ON COLUMN imgpipe.ingest_batches.offsets IS 'First and last offset of each partition, gaps included: {"0": [15, 21]}.';

CREATE FUNCTION imgpipe.prune_ingest_batches() RETURNS bigint
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	kept CONSTANT interval := imgpipe.setting('imgpipe.ingest_history');
	pruned bigint;
BEGIN
	DELETE FROM imgpipe.ingest_batches b WHERE b.committed_at < clock_timestamp() - kept;
	GET DIAGNOSTICS pruned = ROW_COUNT;
	RETURN pruned;
END
$$;
COMMENT ON FUNCTION imgpipe.prune_ingest_batches() IS
'Deletes the batches that are older than imgpipe.ingest_history, and returns how many. The controller does this by itself.';
REVOKE EXECUTE ON FUNCTION imgpipe.prune_ingest_batches() FROM PUBLIC;


/* What became of one upload. */

CREATE INDEX ON imgpipe.images (batch_id) WHERE batch_id IS NOT NULL;
CREATE INDEX ON imgpipe.dead_letters ((headers OPERATOR(pg_catalog.->>) 'batch_id')) WHERE stage OPERATOR(pg_catalog.=) 'ingest';

CREATE FUNCTION imgpipe.batch_status(batch_id text, OUT expected bigint, OUT received bigint, OUT pending bigint, OUT processed bigint,
	OUT failed bigint, OUT rejected bigint, OUT complete boolean, OUT first_received_at timestamptz, OUT last_received_at timestamptz) RETURNS record
	LANGUAGE plpgsql STABLE STRICT PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	told text := '^[0-9]{1,9}$';
	told_of_rejected bigint;
BEGIN
	SELECT max(CASE WHEN i.headers ->> 'batch_size' ~ told THEN (i.headers ->> 'batch_size')::bigint END),
			count(*), count(*) FILTER (WHERE i.state = 'pending'), count(*) FILTER (WHERE i.state = ANY ('{done,none}')),
			count(*) FILTER (WHERE i.state = 'failed'), min(i.received_at), max(i.received_at)
		INTO expected, received, pending, processed, failed, first_received_at, last_received_at
		FROM (SELECT m.headers, m.received_at, imgpipe.processing_state(m.image_id) AS state
			FROM imgpipe.images m WHERE m.batch_id = batch_status.batch_id) i;
	SELECT count(*), max(CASE WHEN d.headers ->> 'batch_size' ~ told THEN (d.headers ->> 'batch_size')::bigint END)
		INTO rejected, told_of_rejected
		FROM imgpipe.dead_letters d WHERE d.stage = 'ingest' AND d.headers ->> 'batch_id' = batch_status.batch_id;
	expected := greatest(expected, told_of_rejected);
	complete := pending = 0 AND received + rejected > 0 AND received + rejected >= coalesce(expected, 0);
END
$$;
COMMENT ON FUNCTION imgpipe.batch_status(text) IS
'What became of the images of a batch (header batch_id, or images.batch_id of an INSERT), as far as the current role may see them and their deadlines have not passed. expected: as a header batch_size of any of them says, NULL where none does. received: images that are there, of which pending wait for a processor, failed were given up by one, and the others are processed. rejected: dead letters of ingest. complete: nothing is pending, and where batch_size is told, all of them have come; without it a batch whose upload goes on may look complete. The caller needs SELECT on images, dead_letters, tasks, renditions and results.';
