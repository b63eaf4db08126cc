
/* The purge of what is past its deadline; see src/retention/. */

CREATE TABLE imgpipe.purge_ledger (
	entry bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
	partition text NOT NULL,
	deadline_from timestamptz NOT NULL,
	deadline_to timestamptz NOT NULL,
	row_count bigint NOT NULL,
	bytes bigint NOT NULL,
	purged_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	lateness interval NOT NULL GENERATED ALWAYS AS (purged_at OPERATOR(pg_catalog.-) deadline_to) STORED
);
COMMENT ON TABLE imgpipe.purge_ledger IS
'One row for each partition that was dropped: which deadlines, how many rows, how large, when, and how long after its last deadline.';
SELECT pg_catalog.pg_extension_config_dump('imgpipe.purge_ledger', '');
SELECT pg_catalog.pg_extension_config_dump('imgpipe.purge_ledger_entry_seq', '');

CREATE FUNCTION imgpipe.purge_next_partition() RETURNS boolean
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp
	SET lock_timeout = '200ms'
AS $$
DECLARE
	overdue record;
	row_count bigint;
	bytes bigint;
BEGIN
	PERFORM pg_advisory_xact_lock('imgpipe.images'::regclass::oid::bigint);
	SELECT p.* INTO overdue FROM imgpipe.partitions p
		WHERE p.deadline_to <= now()
		ORDER BY p.deadline_to, p.parent
		LIMIT 1;
	IF NOT FOUND THEN
		RETURN false;
	END IF;
	-- The parent first, in the order in which a reader locks them.
	EXECUTE format('LOCK TABLE ONLY %s IN ACCESS EXCLUSIVE MODE', overdue.parent);
	EXECUTE format('LOCK TABLE %s IN ACCESS EXCLUSIVE MODE', overdue.partition);
	EXECUTE format('SELECT count(*) FROM %s', overdue.partition) INTO row_count;
	bytes := pg_total_relation_size(overdue.partition);
	IF overdue.parent = 'imgpipe.images'::regclass THEN
		DELETE FROM imgpipe.tasks t WHERE t.image_id < imgpipe.first_image_id(overdue.deadline_to);
	END IF;
	INSERT INTO imgpipe.purge_ledger (partition, deadline_from, deadline_to, row_count, bytes)
		VALUES (overdue.partition::text, overdue.deadline_from, overdue.deadline_to, row_count, bytes);
	EXECUTE format('DROP TABLE %s', overdue.partition);
	RETURN true;
END
$$;
COMMENT ON FUNCTION imgpipe.purge_next_partition() IS
'Drops the partition that is longest past its last deadline, enters it into purge_ledger, and returns true, or false where none is overdue. One partition a call, so that a caller can commit in between; waits at most 200 ms for each lock and raises 55P03 then. The controller does this by itself. Only the owner may, unless granted.';
REVOKE EXECUTE ON FUNCTION imgpipe.purge_next_partition() FROM PUBLIC;

