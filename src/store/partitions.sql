
/* Partitions by purge deadline; see src/store/. */

CREATE TABLE imgpipe.installation (
	only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
	installed_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);
COMMENT ON TABLE imgpipe.installation IS
'One row once this database is in use. While a dump is restored the row comes after the partitions have been put back, so that the controller does not make them a second time.';
SELECT pg_catalog.pg_extension_config_dump('imgpipe.installation', '');

CREATE VIEW imgpipe.partitioned_tables AS
	SELECT p.oid::pg_catalog.regclass AS parent, p.relname AS name
	FROM pg_catalog.pg_class p
		JOIN pg_catalog.pg_partitioned_table t ON t.partrelid OPERATOR(pg_catalog.=) p.oid
		JOIN pg_catalog.pg_attribute a ON a.attrelid OPERATOR(pg_catalog.=) p.oid AND a.attnum OPERATOR(pg_catalog.=) t.partattrs[0]
	WHERE p.relnamespace OPERATOR(pg_catalog.=) 'imgpipe'::pg_catalog.regnamespace
		AND t.partstrat OPERATOR(pg_catalog.=) 'r'
		AND t.partnatts OPERATOR(pg_catalog.=) 1
		AND a.attname OPERATOR(pg_catalog.=) 'image_id'
		AND EXISTS (SELECT FROM pg_catalog.pg_depend d
			WHERE d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
				AND d.objid OPERATOR(pg_catalog.=) p.oid
				AND d.deptype OPERATOR(pg_catalog.=) 'e');
COMMENT ON VIEW imgpipe.partitioned_tables IS
'The tables that are partitioned by purge deadline: images, and what belongs to them.';

CREATE FUNCTION imgpipe.partition_ids(bounds pg_node_tree, OUT first_id uuid, OUT end_id uuid) RETURNS record
	AS 'MODULE_PATHNAME', 'imgpipe_partition_ids'
	LANGUAGE C STABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION imgpipe.partition_ids(pg_node_tree) IS
'The bounds in pg_class.relpartbound of a range partition by one uuid: from the first (inclusive) to the second (exclusive). NULL for other bounds.';

CREATE VIEW imgpipe.partitions AS
	SELECT t.parent,
		c.oid::pg_catalog.regclass AS partition,
		imgpipe.purge_at(b.first_id) AS deadline_from,
		imgpipe.purge_at(b.end_id) AS deadline_to,
		i.inhdetachpending AS detaching
	FROM imgpipe.partitioned_tables t
		JOIN pg_catalog.pg_inherits i ON i.inhparent OPERATOR(pg_catalog.=) t.parent
		JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) i.inhrelid
		CROSS JOIN LATERAL imgpipe.partition_ids(c.relpartbound) b
	WHERE c.relkind OPERATOR(pg_catalog.=) 'r' AND b.first_id IS NOT NULL;
COMMENT ON VIEW imgpipe.partitions IS
'The partitions of images and what belongs to them, with the purge deadlines that each holds: from deadline_from (inclusive) to deadline_to (exclusive), as the catalog has them. One that is detaching is on its way to be dropped and holds nothing for new queries.';

/*
 * Made as a table of its own and then attached, and not as PARTITION OF: that
 * would lock the parent against everybody, behind the longest reader.  With
 * row-level security and no policy nobody but the owner reads it by itself:
 * pg_read_all_data has USAGE on every schema.
 *
 * It has its bounds as a CHECK as well, which DETACH ... CONCURRENTLY would
 * add: PostgreSQL crashes where that comes between two rows of a statement that
 * writes into the partition, since the executor has counted constraints already.
 */
CREATE FUNCTION imgpipe.create_partition(parent regclass, deadline_from timestamptz, deadline_to timestamptz) RETURNS void
	LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	first_id CONSTANT uuid := imgpipe.first_image_id(deadline_from);
	end_id CONSTANT uuid := imgpipe.first_image_id(deadline_to);
	name text;
	unsampled text;
BEGIN
	SELECT format('imgpipe_partitions.%I', c.relname || '_' || to_char(deadline_from AT TIME ZONE 'UTC', 'YYYYMMDD_HH24'))
		INTO name FROM pg_class c WHERE c.oid = parent;
	EXECUTE format('CREATE TABLE %s (LIKE %s INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING GENERATED INCLUDING STORAGE INCLUDING COMPRESSION,
			CONSTRAINT bounds CHECK (image_id >= %L AND image_id < %L))',
		name, parent, first_id, end_id);
	SELECT concat(string_agg(format(', ALTER %I SET STATISTICS 0', a.attname), '')) INTO unsampled
		FROM pg_attribute a WHERE a.attrelid = parent AND a.attnum > 0 AND NOT a.attisdropped AND a.attstattarget = 0;
	EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY %s', name, unsampled);
	EXECUTE format('ALTER TABLE %s ATTACH PARTITION %s FOR VALUES FROM (%L) TO (%L)',
		parent, name, first_id, end_id);
END
$$;
COMMENT ON FUNCTION imgpipe.create_partition(regclass, timestamptz, timestamptz) IS
'Makes one partition, for purge deadlines from the first (inclusive) to the second (exclusive). Only the owner may, unless granted.';
REVOKE EXECUTE ON FUNCTION imgpipe.create_partition(regclass, timestamptz, timestamptz) FROM PUBLIC;

CREATE FUNCTION imgpipe.create_partitions(horizon interval DEFAULT NULL, max_new integer DEFAULT NULL) RETURNS integer
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp
	SET lock_timeout = '1s'
AS $$
DECLARE
	span CONSTANT interval := imgpipe.setting('imgpipe.partition_interval');
	ahead CONSTANT interval := coalesce(horizon, interval '2 days' +
		greatest(imgpipe.longest_retention(), (SELECT max(s.retention) FROM imgpipe.sources s)));
	epoch CONSTANT timestamptz := '2000-01-01 00:00:00+00';
	partitioned regclass;
	lower timestamptz;
	upper timestamptz;
	made integer := 0;
BEGIN
	PERFORM pg_advisory_xact_lock('imgpipe.images'::regclass::oid::bigint);
	FOR partitioned IN SELECT t.parent FROM imgpipe.partitioned_tables t ORDER BY t.name LOOP
		SELECT greatest(max(p.deadline_to), date_bin(span, now(), epoch)) INTO lower
			FROM imgpipe.partitions p WHERE p.parent = partitioned;
		WHILE lower < now() + ahead AND (max_new IS NULL OR made < max_new) LOOP
			-- After a change of the interval the first new partition ends where the new grid has a line.
			upper := date_bin(span, lower, epoch) + span;
			PERFORM imgpipe.create_partition(partitioned, lower, upper);
			made := made + 1;
			lower := upper;
		END LOOP;
	END LOOP;
	RETURN made;
END
$$;
COMMENT ON FUNCTION imgpipe.create_partitions(interval, integer) IS
'Makes the partitions that are missing for deadlines up to now + horizon (default: the longest retention in use and 2 days), at most max_new of them, and returns how many it made. Keeps nobody from reading or writing. The controller does this by itself; call it where imgpipe is not in shared_preload_libraries. Raises 55P03 where other changes to the tables keep it waiting for a second. Only the owner may, unless granted.';
REVOKE EXECUTE ON FUNCTION imgpipe.create_partitions(interval, integer) FROM PUBLIC;
