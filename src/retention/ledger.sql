
/*
 * The purge ledger; see src/retention/.
 *
 * Each entry holds the hash of the one before and a hash of itself over that,
 * so a row that is changed, missing or moved breaks the chain.  Who can write
 * to the table could write the whole chain anew: therefore the server log, and
 * a Kafka topic where one is named, have the hash of every entry, and
 * verify_ledger() takes one as an anchor.  No
 * entry holds a key, a file name or a person.
 */

CREATE TABLE imgpipe.purge_ledger (
	entry bigint PRIMARY KEY,
	cause text NOT NULL CHECK (cause OPERATOR(pg_catalog.=) ANY ('{retention,erasure,release}')),
	deadline_from timestamptz,
	deadline_to timestamptz,
	row_counts jsonb NOT NULL,
	bytes bigint NOT NULL,
	disk_bytes bigint NOT NULL,
	by_source jsonb NOT NULL,
	purged_at timestamptz NOT NULL,
	lateness interval GENERATED ALWAYS AS (purged_at OPERATOR(pg_catalog.-) deadline_to) STORED,
	lsn pg_lsn NOT NULL,
	previous_hash bytea NOT NULL,
	hash bytea NOT NULL
);
COMMENT ON TABLE imgpipe.purge_ledger IS
'What was purged: one row for each span of deadlines whose partitions were dropped, each erasure and each released hold. Written in the transaction that drops or deletes, so that it and the data agree whatever happens. verify_ledger() checks it.';
COMMENT ON COLUMN imgpipe.purge_ledger.cause IS 'retention: the deadline came; erasure: erase_images(); release: a legal hold ended and with it its copies.';
COMMENT ON COLUMN imgpipe.purge_ledger.deadline_from IS 'First purge deadline of what was dropped; NULL for an erasure and a release.';
COMMENT ON COLUMN imgpipe.purge_ledger.deadline_to IS 'End of these deadlines, exclusive.';
COMMENT ON COLUMN imgpipe.purge_ledger.row_counts IS 'Rows by table, and under held how many of the images were copied out for legal holds.';
COMMENT ON COLUMN imgpipe.purge_ledger.bytes IS 'Size of the image files.';
COMMENT ON COLUMN imgpipe.purge_ledger.disk_bytes IS 'Size of the dropped tables with their indexes; 0 for an erasure.';
COMMENT ON COLUMN imgpipe.purge_ledger.by_source IS 'Images and bytes by source; under other what names no source of imgpipe.sources.';
COMMENT ON COLUMN imgpipe.purge_ledger.lateness IS 'How long after the last deadline.';
COMMENT ON COLUMN imgpipe.purge_ledger.lsn IS 'Where the write-ahead log stood.';
COMMENT ON COLUMN imgpipe.purge_ledger.previous_hash IS 'hash of the entry before; 32 zero bytes in the first.';
COMMENT ON COLUMN imgpipe.purge_ledger.hash IS 'imgpipe.ledger_hash() of the row.';

CREATE TABLE imgpipe.purge_ledger_head (
	only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
	entry bigint NOT NULL DEFAULT 0,
	hash bytea NOT NULL DEFAULT '\x0000000000000000000000000000000000000000000000000000000000000000'
);
COMMENT ON TABLE imgpipe.purge_ledger_head IS
'The last entry of the ledger, so that it is missed where it is missing. Its lock puts entries in order.';

SELECT pg_catalog.pg_extension_config_dump('imgpipe.purge_ledger', '');
SELECT pg_catalog.pg_extension_config_dump('imgpipe.purge_ledger_head', '');

CREATE FUNCTION imgpipe.ledger_hash(ledger_entry imgpipe.purge_ledger) RETURNS bytea
	LANGUAGE sql STABLE STRICT PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT sha256((ledger_entry).previous_hash || convert_to(jsonb_build_array(
		(ledger_entry).entry, (ledger_entry).cause,
		extract(epoch FROM (ledger_entry).deadline_from), extract(epoch FROM (ledger_entry).deadline_to),
		(ledger_entry).row_counts, (ledger_entry).bytes, (ledger_entry).disk_bytes, (ledger_entry).by_source,
		extract(epoch FROM (ledger_entry).purged_at), (ledger_entry).lsn::text)::text, 'UTF8'))
$$;
COMMENT ON FUNCTION imgpipe.ledger_hash(imgpipe.purge_ledger) IS
'SHA-256 over the previous hash and the UTF-8 text of a JSON array, as jsonb prints it, of: entry, cause, deadline_from and deadline_to in seconds since 1970, row_counts, bytes, disk_bytes, by_source, purged_at in seconds since 1970, lsn.';

CREATE FUNCTION imgpipe.enter_purge(cause text, deadline_from timestamptz, deadline_to timestamptz,
	row_counts jsonb, bytes bigint, disk_bytes bigint, by_source jsonb) RETURNS bigint
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	head imgpipe.purge_ledger_head;
	new_entry imgpipe.purge_ledger;
BEGIN
	SELECT * INTO head FROM imgpipe.purge_ledger_head FOR UPDATE;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'data_corrupted',
			MESSAGE = 'the head of the purge ledger is missing',
			HINT = 'SELECT * FROM imgpipe.verify_ledger(); then put the last entry and its hash into imgpipe.purge_ledger_head.';
	END IF;
	new_entry.entry := head.entry + 1;
	new_entry.cause := cause;
	new_entry.deadline_from := deadline_from;
	new_entry.deadline_to := deadline_to;
	new_entry.row_counts := row_counts;
	new_entry.bytes := bytes;
	new_entry.disk_bytes := disk_bytes;
	new_entry.by_source := by_source;
	new_entry.purged_at := clock_timestamp();
	new_entry.lsn := pg_current_wal_insert_lsn();
	new_entry.previous_hash := head.hash;
	new_entry.hash := imgpipe.ledger_hash(new_entry);
	INSERT INTO imgpipe.purge_ledger (entry, cause, deadline_from, deadline_to, row_counts, bytes, disk_bytes,
			by_source, purged_at, lsn, previous_hash, hash)
		VALUES (new_entry.entry, cause, deadline_from, deadline_to, row_counts, bytes, disk_bytes,
			by_source, new_entry.purged_at, new_entry.lsn, new_entry.previous_hash, new_entry.hash);
	UPDATE imgpipe.purge_ledger_head SET entry = new_entry.entry, hash = new_entry.hash;
	RETURN new_entry.entry;
END
$$;
COMMENT ON FUNCTION imgpipe.enter_purge(text, timestamptz, timestamptz, jsonb, bigint, bigint, jsonb) IS
'Adds an entry to the purge ledger and returns its number. Entries wait for each other until their transactions end.';
REVOKE EXECUTE ON FUNCTION imgpipe.enter_purge(text, timestamptz, timestamptz, jsonb, bigint, bigint, jsonb) FROM PUBLIC;

CREATE TABLE imgpipe.ledger_anchors (
	server text NOT NULL,
	topic text NOT NULL,
	PRIMARY KEY (server, topic)
);
COMMENT ON TABLE imgpipe.ledger_anchors IS
'Kafka topics that the hash of each entry of the purge ledger is sent to. Written by send_ledger_to().';
SELECT pg_catalog.pg_extension_config_dump('imgpipe.ledger_anchors', '');

CREATE FUNCTION imgpipe.send_anchor(server text, topic text, entry bigint, hash bytea, purged_at timestamptz) RETURNS bigint
	LANGUAGE sql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT imgpipe.enqueue_message(server, topic, convert_to(imgpipe.database_identity(), 'UTF8'),
		convert_to(jsonb_build_object('database', imgpipe.database_identity(), 'entry', entry, 'hash', encode(hash, 'hex'), 'purged_at', purged_at)::text, 'UTF8'))
$$;
COMMENT ON FUNCTION imgpipe.send_anchor(text, text, bigint, bytea, timestamptz) IS
'Puts the hash of an entry of the purge ledger into the outbox: a JSON object of database, entry, hash and purged_at, with the database_identity() as its key.';
REVOKE EXECUTE ON FUNCTION imgpipe.send_anchor(text, text, bigint, bytea, timestamptz) FROM PUBLIC;

CREATE FUNCTION imgpipe.send_ledger_to(server text, topic text, send boolean DEFAULT true) RETURNS void
	LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
	DELETE FROM imgpipe.ledger_anchors a WHERE a.server = send_ledger_to.server AND a.topic = send_ledger_to.topic;
	IF send THEN
		INSERT INTO imgpipe.ledger_anchors VALUES (send_ledger_to.server, send_ledger_to.topic);
		PERFORM imgpipe.send_anchor(send_ledger_to.server, send_ledger_to.topic, h.entry, h.hash, l.purged_at)
			FROM imgpipe.purge_ledger_head h LEFT JOIN imgpipe.purge_ledger l USING (entry);
	ELSIF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'undefined_object',
			MESSAGE = format('the purge ledger is not sent to topic "%s" of server "%s"', topic, server),
			HINT = 'SELECT * FROM imgpipe.ledger_anchors; shows where it is sent.';
	END IF;
END
$$;
COMMENT ON FUNCTION imgpipe.send_ledger_to(text, text, boolean) IS
'Sends the hash of the last entry of the purge ledger, and from now on that of each new one, to a topic of an imgpipe_kafka server, through the outbox and with the rights of the extension''s owner: JSON objects of database, entry, hash and purged_at, for verify_ledger(decode(hash, ''hex'')). send false: no more. Raises 42704 for a server that does not exist and where there is nothing to end, 42602 for a topic''s name. Only the owner may, unless granted.';
REVOKE EXECUTE ON FUNCTION imgpipe.send_ledger_to(text, text, boolean) FROM PUBLIC;

-- Whatever is wrong with Kafka, nothing is kept for longer because of it.  It is deferred, so it runs as whoever commits.
CREATE FUNCTION imgpipe.anchor_ledger() RETURNS trigger
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	place imgpipe.ledger_anchors;
BEGIN
	RAISE LOG 'imgpipe: purge ledger entry % has hash %', NEW.entry, encode(NEW.hash, 'hex');
	FOR place IN SELECT a.* FROM imgpipe.ledger_anchors a LOOP
		BEGIN
			PERFORM imgpipe.send_anchor(place.server, place.topic, NEW.entry, NEW.hash, NEW.purged_at);
		EXCEPTION WHEN OTHERS THEN
			RAISE WARNING USING ERRCODE = SQLSTATE,
				MESSAGE = format('purge ledger entry %s cannot be sent to topic "%s" of server "%s"', NEW.entry, place.topic, place.server),
				DETAIL = SQLERRM,
				HINT = 'SELECT imgpipe.send_ledger_to(server, topic, send => false) ends it.';
		END;
	END LOOP;
	RETURN NULL;
END
$$;
COMMENT ON FUNCTION imgpipe.anchor_ledger() IS
'Trigger of imgpipe.purge_ledger: has the hash of each entry written to the server log, and sent to Kafka where send_ledger_to() says so, as anchors outside of the database.';
REVOKE EXECUTE ON FUNCTION imgpipe.anchor_ledger() FROM PUBLIC;

CREATE CONSTRAINT TRIGGER anchor AFTER INSERT ON imgpipe.purge_ledger
	DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION imgpipe.anchor_ledger();
-- Also where session_replication_role keeps other triggers from firing, as in the purge itself.
ALTER TABLE imgpipe.purge_ledger ENABLE ALWAYS TRIGGER anchor;

CREATE FUNCTION imgpipe.verify_ledger(anchor bytea DEFAULT NULL) RETURNS TABLE (entry bigint, problem text)
	LANGUAGE plpgsql STABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	present imgpipe.purge_ledger;
	head imgpipe.purge_ledger_head;
	expected_entry bigint := 1;
	expected_hash bytea := '\x0000000000000000000000000000000000000000000000000000000000000000';
	last_entry bigint := 0;
	anchored boolean := anchor IS NULL OR anchor = expected_hash;
BEGIN
	FOR present IN SELECT l.* FROM imgpipe.purge_ledger l ORDER BY l.entry LOOP
		entry := present.entry;
		anchored := anchored OR present.hash = anchor;
		IF present.entry > expected_entry THEN
			problem := CASE WHEN present.entry = expected_entry + 1 THEN format('entry %s before it is missing', expected_entry)
				ELSE format('entries %s to %s before it are missing', expected_entry, present.entry - 1) END;
			RETURN NEXT;
		ELSIF present.previous_hash IS DISTINCT FROM expected_hash THEN
			problem := 'it does not follow from the entry before it, which is not the one that it was entered after';
			RETURN NEXT;
		END IF;
		IF present.hash IS DISTINCT FROM imgpipe.ledger_hash(present) THEN
			problem := 'it was changed, or moved from another place';
			RETURN NEXT;
		END IF;
		expected_entry := present.entry + 1;
		expected_hash := present.hash;
		last_entry := present.entry;
	END LOOP;
	SELECT * INTO head FROM imgpipe.purge_ledger_head;
	entry := last_entry + 1;
	IF head.entry IS NULL THEN
		problem := 'the head of the ledger is missing';
		RETURN NEXT;
	ELSIF head.entry > last_entry THEN
		problem := format('entries %s to %s at the end are missing', last_entry + 1, head.entry);
		RETURN NEXT;
	ELSIF head.entry < last_entry OR head.hash IS DISTINCT FROM expected_hash THEN
		problem := format('the head says that the last entry is %s with hash %s', head.entry, encode(head.hash, 'hex'));
		RETURN NEXT;
	END IF;
	IF NOT anchored THEN
		entry := NULL;
		problem := format('no entry has the hash "%s" of the anchor: the chain was made anew, or cut off before it', encode(anchor, 'hex'));
		RETURN NEXT;
	END IF;
END
$$;
COMMENT ON FUNCTION imgpipe.verify_ledger(bytea) IS
'Follows the chain of the purge ledger and returns what is wrong with it: rows that were changed, are missing or stand in another order. No rows: it is whole. anchor: a hash from the server log, or from the topic that send_ledger_to() names, which must be among the entries; without it a chain that was written anew from the first changed entry on, or cut off and its head set right, is not told from the true one. Needs SELECT on purge_ledger and purge_ledger_head.';
