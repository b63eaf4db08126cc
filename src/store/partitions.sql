
/* Partitions by purge deadline; see src/store/. */

CREATE TABLE imgpipe.installation (
	only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
	installed_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);
COMMENT ON TABLE imgpipe.installation IS
'One row once this database is in use. While a dump is restored the row comes after the partitions have been put back, so that the controller does not make them a second time.';
SELECT pg_catalog.pg_extension_config_dump('imgpipe.installation', '');

CREATE VIEW imgpipe.partitions AS
	SELECT p.oid::pg_catalog.regclass AS parent,
		c.oid::pg_catalog.regclass AS partition,
		imgpipe.purge_at(b.bounds[1]::uuid) AS deadline_from,
		imgpipe.purge_at(b.bounds[2]::uuid) AS deadline_to
	FROM pg_catalog.pg_inherits i
		JOIN pg_catalog.pg_class p ON p.oid OPERATOR(pg_catalog.=) i.inhparent
		JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) i.inhrelid
		CROSS JOIN LATERAL (SELECT pg_catalog.regexp_match(pg_catalog.pg_get_expr(c.relpartbound, c.oid),
			'^FOR VALUES FROM \(''([-0-9a-f]{36})''\) TO \(''([-0-9a-f]{36})''\)$') AS bounds) b
	WHERE p.oid OPERATOR(pg_catalog.=) ANY (ARRAY['imgpipe.images', 'imgpipe.renditions', 'imgpipe.results', 'imgpipe.dead_letters']::pg_catalog.regclass[])
		AND p.relkind OPERATOR(pg_catalog.=) 'p'
		AND c.relkind OPERATOR(pg_catalog.=) 'r';
COMMENT ON VIEW imgpipe.partitions IS
'The partitions of images and what belongs to them, with the purge deadlines that each holds: from deadline_from (inclusive) to deadline_to (exclusive), as the catalog has them.';

CREATE FUNCTION imgpipe.create_partitions(horizon interval DEFAULT NULL, max_new integer DEFAULT NULL) RETURNS integer
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	span CONSTANT interval := current_setting('imgpipe.partition_interval');
	ahead CONSTANT interval := coalesce(horizon, interval '2 days' +
		greatest(current_setting('imgpipe.retention')::interval, (SELECT max(s.retention) FROM imgpipe.sources s)));
	epoch CONSTANT timestamptz := '2000-01-01 00:00:00+00';
	table_name name;
	lower timestamptz;
	upper timestamptz;
	made integer := 0;
BEGIN
	PERFORM pg_advisory_xact_lock('imgpipe.images'::regclass::oid::bigint);
	FOREACH table_name IN ARRAY ARRAY['images', 'renditions', 'results', 'dead_letters'] LOOP
		SELECT greatest(max(p.deadline_to), date_bin(span, now(), epoch)) INTO lower
			FROM imgpipe.partitions p
			WHERE p.parent = format('imgpipe.%I', table_name)::regclass;
		WHILE lower < now() + ahead AND (max_new IS NULL OR made < max_new) LOOP
			-- After a change of the interval the first new partition ends where the new grid has a line.
			upper := date_bin(span, lower, epoch) + span;
			EXECUTE format('CREATE TABLE imgpipe_partitions.%I PARTITION OF imgpipe.%I FOR VALUES FROM (%L) TO (%L)',
				table_name || '_' || to_char(lower AT TIME ZONE 'UTC', 'YYYYMMDD_HH24'), table_name,
				imgpipe.first_image_id(lower), imgpipe.first_image_id(upper));
			made := made + 1;
			lower := upper;
		END LOOP;
	END LOOP;
	RETURN made;
END
$$;
COMMENT ON FUNCTION imgpipe.create_partitions(interval, integer) IS
'Makes the partitions that are missing for deadlines up to now + horizon (default: the longest retention in use and 2 days), at most max_new of them, and returns how many it made. The controller does this by itself; call it where imgpipe is not in shared_preload_libraries. Only the owner may, unless granted.';
REVOKE EXECUTE ON FUNCTION imgpipe.create_partitions(interval, integer) FROM PUBLIC;

