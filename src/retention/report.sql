
/* What retention has done, has still to do, and cannot reach; see src/retention/. */

CREATE FUNCTION imgpipe.prove_purged(image_id uuid, OUT state text, OUT deadline timestamptz, OUT entry bigint,
	OUT cause text, OUT purged_at timestamptz, OUT lsn pg_lsn, OUT hash bytea) RETURNS record
	LANGUAGE plpgsql STABLE STRICT PARALLEL UNSAFE SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
	deadline := imgpipe.purge_at(prove_purged.image_id);
	IF EXISTS (SELECT FROM imgpipe.images i WHERE i.image_id = prove_purged.image_id) THEN
		state := CASE WHEN prove_purged.image_id >= imgpipe.fence() THEN 'present' ELSE 'hidden' END;
		RETURN;
	END IF;
	IF EXISTS (SELECT FROM imgpipe.purges p WHERE NOT p.entered AND prove_purged.deadline >= p.deadline_from AND prove_purged.deadline < p.deadline_to) THEN
		state := 'hidden';
		RETURN;
	END IF;
	SELECT e.entry INTO entry FROM imgpipe.erasures e
		WHERE e.hash = imgpipe.erasure_hash('image_id', prove_purged.image_id::text);
	IF NOT FOUND THEN
		SELECT l.entry INTO entry FROM imgpipe.purge_ledger l
			WHERE l.cause = 'retention' AND prove_purged.deadline >= l.deadline_from AND prove_purged.deadline < l.deadline_to
			ORDER BY l.entry DESC LIMIT 1;
	END IF;
	SELECT l.cause, l.purged_at, l.lsn, l.hash INTO cause, purged_at, lsn, hash
		FROM imgpipe.purge_ledger l WHERE l.entry = prove_purged.entry;
	state := CASE
		WHEN EXISTS (SELECT FROM imgpipe.held_images h WHERE h.image_id = prove_purged.image_id) THEN 'held'
		WHEN entry IS NOT NULL THEN 'purged'
		ELSE 'unknown' END;
END
$$;
COMMENT ON FUNCTION imgpipe.prove_purged(uuid) IS
'What became of an image. state: present; hidden (past its deadline, not dropped yet); purged, by that entry of the ledger, at that time, with that hash; held, purged but for the copy of a legal hold; unknown: it is not here, and nothing with its deadline was purged. An id says only its deadline: whether an image of that id ever was there, nothing that is left can tell, and prove_purged() does not. Raises 22023 for a uuid that is no image id. Only the owner may, unless granted.';
REVOKE EXECUTE ON FUNCTION imgpipe.prove_purged(uuid) FROM PUBLIC;

/*
 * A view reads with the rights of its owner: where the fence does not hold for
 * that one, it holds for nobody who may read the view.  A materialized view is
 * a copy in any case.  Our own sealed_daily_volume counts, and means it.
 */
CREATE FUNCTION imgpipe.unfenced_views() RETURNS TABLE (view regclass, owner regrole, materialized boolean)
	LANGUAGE sql STABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
	SET jit = off
AS $$
	WITH RECURSIVE views AS (
		SELECT c.oid, c.relowner, c.relacl, c.relkind = 'm' AS materialized,
				(o.rolsuper OR o.rolbypassrls OR o.oid = (SELECT i.relowner FROM pg_class i WHERE i.oid = 'imgpipe.images'::regclass))
					AND NOT coalesce((SELECT s.option_value::boolean FROM pg_options_to_table(c.reloptions) s WHERE s.option_name = 'security_invoker'), false)
					-- Those of teams, and whoever does as they do.
					AND NOT EXISTS (SELECT FROM pg_rewrite w JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = w.oid
						WHERE w.ev_class = c.oid AND d.refclassid = 'pg_proc'::regclass AND d.refobjid = 'imgpipe.fence()'::regprocedure) AS unfenced
			FROM pg_class c JOIN pg_roles o ON o.oid = c.relowner
			WHERE c.relkind IN ('v', 'm') AND c.oid <> 'imgpipe.sealed_daily_volume'::regclass
	), readers AS (
		SELECT t.parent::oid AS oid, true AS unfenced FROM imgpipe.partitioned_tables t
		UNION
		SELECT v.oid, v.unfenced AND r.unfenced FROM readers r
			JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = r.oid AND d.classid = 'pg_rewrite'::regclass
			JOIN pg_rewrite w ON w.oid = d.objid
			JOIN views v ON v.oid = w.ev_class
	)
	SELECT DISTINCT v.oid::regclass, v.relowner::regrole, v.materialized
		FROM readers r JOIN views v ON v.oid = r.oid
		WHERE v.materialized OR (r.unfenced
			AND EXISTS (
				SELECT FROM (SELECT v.relacl UNION ALL SELECT a.attacl FROM pg_attribute a WHERE a.attrelid = v.oid AND a.attacl IS NOT NULL) p (acl)
					CROSS JOIN LATERAL aclexplode(p.acl) g
				WHERE g.privilege_type = 'SELECT' AND g.grantee <> v.relowner))
		ORDER BY 1
$$;
COMMENT ON FUNCTION imgpipe.unfenced_views() IS
'Views that others than their owner may read and that show images past their deadline, because the read fence does not hold for their owner and they do not ask for imgpipe.fence() themselves, and materialized views, which keep what they have read; each over any of the fenced tables.';
REVOKE EXECUTE ON FUNCTION imgpipe.unfenced_views() FROM PUBLIC;

CREATE FUNCTION imgpipe.retention_report() RETURNS TABLE (item text, value text, detail text, hint text)
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp
	SET jit = off
AS $$
#variable_conflict use_column
DECLARE
	overdue record;
	found_rows bigint;
	overdue_rows bigint := 0;
	overdue_partitions bigint := 0;
	hidden_rows bigint := 0;
BEGIN
	FOR overdue IN
		SELECT p.partition::text AS name FROM imgpipe.partitions p WHERE p.deadline_to <= clock_timestamp()
		UNION
		SELECT imgpipe.purge_table(p.partitions, t.key) FROM imgpipe.purges p CROSS JOIN LATERAL jsonb_object_keys(p.partitions) t (key)
			WHERE NOT p.entered AND imgpipe.purge_table(p.partitions, t.key) IS NOT NULL
	LOOP
		EXECUTE format('SELECT count(*) FROM %s', overdue.name) INTO found_rows;
		overdue_rows := overdue_rows + found_rows;
		overdue_partitions := overdue_partitions + 1;
	END LOOP;
	FOR overdue IN
		SELECT p.partition::text AS name FROM imgpipe.partitions p
			WHERE p.deadline_from <= clock_timestamp() AND p.deadline_to > clock_timestamp()
	LOOP
		EXECUTE format('SELECT count(*) FROM %s WHERE image_id < imgpipe.fence()', overdue.name) INTO found_rows;
		hidden_rows := hidden_rows + found_rows;
	END LOOP;
	RETURN QUERY VALUES
		('overdue_rows', overdue_rows::text, format('in %s partitions', overdue_partitions), NULL),
		('hidden_rows', hidden_rows::text, 'past their deadline, in partitions whose last deadline has not come', NULL);

	RETURN QUERY SELECT 'worst_lateness', l.lateness::text, format('entry %s of the ledger', l.entry), NULL
		FROM imgpipe.purge_ledger l WHERE l.lateness IS NOT NULL ORDER BY l.lateness DESC, l.entry LIMIT 1;
	RETURN QUERY SELECT 'oldest_image', imgpipe.purge_at(i.image_id)::text, format('its deadline; received at %s', i.received_at), NULL
		FROM imgpipe.images i WHERE i.image_id >= imgpipe.fence() ORDER BY i.image_id LIMIT 1;
	RETURN QUERY SELECT 'next_drop', p.deadline_to::text,
			format('%s in %s partitions', pg_size_pretty(sum(pg_total_relation_size(p.partition))), count(*)), NULL
		FROM imgpipe.partitions p WHERE p.deadline_to > clock_timestamp()
		GROUP BY p.deadline_from, p.deadline_to ORDER BY p.deadline_to LIMIT 3;
	RETURN QUERY SELECT 'partitions_until', min(u.last)::text, NULL,
			CASE WHEN min(u.last) < now() + imgpipe.longest_retention() THEN 'Soon images cannot be inserted: SELECT imgpipe.create_partitions();' END
		FROM (SELECT max(p.deadline_to) AS last FROM imgpipe.partitions p GROUP BY p.parent) u;
	RETURN QUERY SELECT 'held_images', count(*)::text, format('by %s holds', (SELECT count(*) FROM imgpipe.holds h WHERE NOT h.ended)), NULL FROM imgpipe.held_images;

	RETURN QUERY SELECT 'problem',
			format('purge of deadlines from %s to %s: %s', p.deadline_from, p.deadline_to, p.last_error),
			p.last_detail,
			format('%s Tried %s times; next at %s.', CASE p.sqlstate
				WHEN '2BP01' THEN 'Drop what depends on the table; then it goes by itself.'
				WHEN '55P03' THEN 'Somebody keeps a lock on the table; it goes when that is released.'
				WHEN '0A000' THEN 'Drop the constraint that refers to the table; then it goes by itself.'
				WHEN '23503' THEN 'Drop that constraint; then it goes by itself. A column without REFERENCES can name an image, too.'
				WHEN '55000' THEN 'Somebody has begun to detach another partition: ALTER TABLE ... DETACH PARTITION ... FINALIZE it.'
				ELSE 'The server log has the whole error.' END, p.attempts, p.retry_at)
		FROM imgpipe.purges p WHERE p.last_error IS NOT NULL ORDER BY p.deadline_to;
	RETURN QUERY SELECT 'problem', format('end of a hold for case %L: %s', h.case_reference, h.last_error), h.last_detail,
			format('%s Tried %s times; next at %s.', CASE WHEN h.ended THEN 'Drop what depends on the table; then it goes by itself.'
				ELSE format('What is held for it stays until then. SELECT imgpipe.release_hold(%L); ends it now, or says why not.', h.case_reference) END, h.attempts, h.retry_at)
		FROM imgpipe.holds h WHERE h.last_error IS NOT NULL ORDER BY h.until, h.hold_id;
	RETURN QUERY SELECT 'problem', format('the purge waits for process %s', b.pid),
			format('user %s, application %s, in a transaction since %s', b.usename, b.application_name, b.xact_start),
			format('It goes on when that transaction ends: SELECT pg_terminate_backend(%s); ends it.', b.pid)
		FROM pg_stat_activity a CROSS JOIN LATERAL unnest(pg_blocking_pids(a.pid)) k (pid) JOIN pg_stat_activity b ON b.pid = k.pid
		WHERE a.backend_type = 'imgpipe purge' AND a.datname = current_database() AND b.pid <> pg_backend_pid();
	-- Prepared transactions hold locks without a process.
	RETURN QUERY SELECT 'problem', format('the purge waits for prepared transaction %L', x.gid),
			format('of %s, since %s', x.owner, x.prepared),
			format('It goes on when that ends: COMMIT PREPARED %L; or ROLLBACK PREPARED %1$L;', x.gid)
		FROM pg_prepared_xacts x
		WHERE x.database = current_database()
			AND EXISTS (SELECT FROM pg_stat_activity a
				WHERE a.backend_type = 'imgpipe purge' AND a.datname = x.database AND 0 = ANY (pg_blocking_pids(a.pid)));
	RETURN QUERY SELECT 'problem', format('view %s shows images past their deadline', v.view),
			format('It reads with the rights of %s, whom the read fence does not hold for.', v.owner),
			format('ALTER VIEW %s SET (security_invoker = true);', v.view)
		FROM imgpipe.unfenced_views() v WHERE NOT v.materialized;
	RETURN QUERY SELECT 'unfenced_role', r.rolname::text,
			CASE WHEN r.rolbypassrls THEN 'With BYPASSRLS it sees images past their deadline, until they are dropped.'
				ELSE 'With pg_read_all_data it reads TOAST tables, which have the bytes of images past their deadline until they are dropped.' END,
			'Only backups need such a role.'
		FROM pg_roles r
		WHERE NOT r.rolsuper AND (r.rolbypassrls OR (r.rolcanlogin AND pg_has_role(r.oid, 'pg_read_all_data', 'USAGE')))
		ORDER BY r.rolname;
	RETURN QUERY SELECT 'problem', format('the ledger cannot be sent to topic "%s"', a.topic), format('Server "%s" does not exist.', a.server),
			format('CREATE SERVER %I FOREIGN DATA WRAPPER imgpipe_kafka ...; or SELECT imgpipe.send_ledger_to(%L, %L, send => false);', a.server, a.server, a.topic)
		FROM imgpipe.ledger_anchors a WHERE NOT EXISTS (SELECT FROM pg_foreign_server s WHERE s.srvname = a.server);
	RETURN QUERY SELECT 'problem', format('tablespace "%s" does not exist', s.name), 'Partitions stay where they are.', 'Set imgpipe.cold_tablespace to one that does.'
		FROM imgpipe.setting('imgpipe.cold_tablespace') s (name)
		WHERE s.name <> '' AND NOT EXISTS (SELECT FROM pg_tablespace t WHERE t.spcname = s.name);
	RETURN QUERY SELECT 'problem', 'nothing is purged by itself', 'imgpipe is not in shared_preload_libraries.', 'SELECT imgpipe.purge_next_partition(); until it returns false.'
		WHERE NOT imgpipe.workers_available();
END
$$;
COMMENT ON FUNCTION imgpipe.retention_report() IS
'How retention stands. Items: overdue_rows (0, but for the moments of a purge) and hidden_rows; worst_lateness of the ledger; oldest_image, by its deadline; the three next_drop; partitions_until; held_images; each unfenced_role, which the read fence does not hold for; and each problem, with what to do. Counts rows only in partitions that are due. Only the owner may, unless granted.';
REVOKE EXECUTE ON FUNCTION imgpipe.retention_report() FROM PUBLIC;


CREATE TABLE imgpipe.declared_copies (
	place text PRIMARY KEY,
	kept interval NOT NULL CHECK (kept OPERATOR(pg_catalog.>=) '0'::interval)
);
COMMENT ON TABLE imgpipe.declared_copies IS
'Copies that PostgreSQL does not know of, and how long they are kept: base backups, WAL archives, and under ''topic NAME'' the retention of a Kafka topic whose broker does not tell it. Written by declare_copy(), read by retention_residue().';
SELECT pg_catalog.pg_extension_config_dump('imgpipe.declared_copies', '');

CREATE FUNCTION imgpipe.declare_copy(place text, kept interval) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
BEGIN
	IF coalesce(place, '') = '' OR kept < '0' THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
			MESSAGE = 'a copy is declared by a place and a time that it is kept for',
			DETAIL = format('The place is %s, the time %s.', coalesce(quote_literal(place), 'NULL'), kept),
			HINT = 'For example: SELECT imgpipe.declare_copy(''base backups'', ''14 days'');';
	END IF;
	IF kept IS NULL THEN
		DELETE FROM imgpipe.declared_copies c WHERE c.place = declare_copy.place;
	ELSE
		INSERT INTO imgpipe.declared_copies VALUES (place, kept)
			ON CONFLICT ON CONSTRAINT declared_copies_pkey DO UPDATE SET kept = EXCLUDED.kept;
	END IF;
END
$$;
COMMENT ON FUNCTION imgpipe.declare_copy(text, interval) IS
'Says how long a place keeps copies of images: declare_copy(''base backups'', ''14 days''), declare_copy(''WAL archive'', ''14 days''), declare_copy(''topic photos'', ''7 days''). NULL takes it back. Raises 22023 for no place and a negative time. Needs SELECT, INSERT, UPDATE and DELETE on imgpipe.declared_copies.';

CREATE FUNCTION imgpipe.retention_residue() RETURNS TABLE (place text, detail text, gone_by timestamptz, hint text)
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
	last_purge imgpipe.purge_ledger;
	keeps CONSTANT interval := imgpipe.longest_retention();
	declared_long text := 'It keeps images for longer than the longest retention: shorten that, or tell who relies on their being gone.';
BEGIN
	SELECT l.* INTO last_purge FROM imgpipe.purge_ledger l ORDER BY l.entry DESC LIMIT 1;

	RETURN QUERY SELECT 'write-ahead log', format('%s segments, the oldest of %s; what was written before that time is not in them', count(*), min(w.modification)),
			NULL::timestamptz, 'Segments are written over in turn, sooner with a smaller max_wal_size and wal_keep_size.'
		FROM pg_ls_waldir() w HAVING count(*) > 0;
	RETURN QUERY SELECT format('replication slot %s', s.slot_name),
			format('%s of write-ahead log are kept for it', pg_size_pretty(pg_current_wal_lsn() - s.restart_lsn)), NULL::timestamptz,
			CASE WHEN NOT s.active THEN format('Nobody reads from it: SELECT pg_drop_replication_slot(%L);', s.slot_name) END
		FROM pg_replication_slots s WHERE s.restart_lsn IS NOT NULL;
	RETURN QUERY SELECT format('standby %s', coalesce(nullif(r.application_name, ''), r.client_addr::text)),
			CASE WHEN r.replay_lsn >= last_purge.lsn THEN 'it has replayed all purges' ELSE 'it has not replayed the last purge yet' END,
			CASE WHEN r.replay_lsn >= last_purge.lsn THEN last_purge.purged_at END,
			CASE WHEN (r.replay_lsn >= last_purge.lsn) IS NOT TRUE THEN 'A query there may be in its way: see max_standby_streaming_delay.' END
		FROM pg_stat_replication r;
	RETURN QUERY SELECT c.place, format('declared: kept for %s', c.kept), last_purge.purged_at + c.kept,
			CASE WHEN c.kept > keeps THEN declared_long END
		FROM imgpipe.declared_copies c WHERE c.place NOT LIKE 'topic %';
	RETURN QUERY SELECT 'WAL archive', 'archive_mode is on', NULL::timestamptz,
			'SELECT imgpipe.declare_copy(''WAL archive'', ...); says how long it is kept.'
		WHERE current_setting('archive_mode') <> 'off' AND NOT EXISTS (SELECT FROM imgpipe.declared_copies c WHERE c.place = 'WAL archive');
	RETURN QUERY SELECT 'base backups', 'PostgreSQL does not know of them', NULL::timestamptz,
			'SELECT imgpipe.declare_copy(''base backups'', ...); says how long they are kept, 0 that there are none.'
		WHERE NOT EXISTS (SELECT FROM imgpipe.declared_copies c WHERE c.place = 'base backups');
	RETURN QUERY SELECT format('topic %s', k.topic),
			format('%s source %s; %s', k.role, k.name, CASE WHEN k.asked THEN format('the broker says at %s: retention.ms = %s, segment.ms = %s', k.told_at, k.retention_ms, k.segment_ms)
				WHEN k.kept IS NOT NULL THEN format('declared: kept for %s', k.kept)
				WHEN k.role <> 'of' THEN 'how long it is kept is not declared'
				ELSE coalesce('the broker does not say how long it is kept: ' || k.error, 'the broker was not asked yet how long it is kept') END),
			now() + k.kept,
			CASE WHEN k.retention_ms = -1 THEN 'The topic keeps images for ever: set its retention.ms, and its cleanup.policy to delete.'
				WHEN k.kept > k.policy THEN format('The topic can keep images for longer than the %s of their source: lower its retention.ms%s.', k.policy,
					CASE WHEN k.asked THEN ', and segment.ms, which is added to it' END)
				WHEN k.kept IS NULL THEN format('%sSELECT imgpipe.declare_copy(%L, ...); says its retention.ms.', CASE WHEN k.role = 'of' THEN 'Start the source, or ' END, 'topic ' || k.topic) END
		FROM (SELECT s.name, u.topic, u.role, t.told_at, t.retention_ms, t.segment_ms, t.error, t.retention_ms IS NOT NULL AS asked,
				coalesce(s.retention, imgpipe.setting('imgpipe.retention')::interval) AS policy,
				CASE WHEN t.retention_ms >= 0 THEN least(t.retention_ms + t.segment_ms, 1000::bigint * 366 * 86400 * 1000) * interval '1 millisecond'
					WHEN t.retention_ms IS NULL THEN c.kept END AS kept
			FROM imgpipe.sources s
				CROSS JOIN LATERAL (VALUES (s.topic, 'of'), (s.result_topic, 'results of'), (s.dead_letter_topic, 'dead letters of')) u (topic, role)
				LEFT JOIN imgpipe.source_topics t ON t.source_id = s.source_id AND u.role = 'of'
				LEFT JOIN imgpipe.declared_copies c ON c.place = 'topic ' || u.topic
			WHERE u.topic IS NOT NULL) k
		ORDER BY k.name, k.role DESC, k.topic;
	RETURN QUERY SELECT 'server log', format('%s = %s prints statements, with the values in them', g.name, g.setting), NULL::timestamptz,
			format('ALTER SYSTEM SET %s = %s;', g.name, g.safe)
		FROM (SELECT s.name, s.setting, v.safe FROM pg_settings s JOIN (VALUES
				('log_statement', '{none,ddl}'::text[], 'ddl'),
				('log_min_duration_statement', '{-1}', '-1'),
				('log_min_duration_sample', '{-1}', '-1'),
				('log_min_error_statement', '{fatal,panic}', 'panic'),
				('log_parameter_max_length_on_error', '{0}', '0'),
				('auto_explain.log_min_duration', '{-1}', '-1')) v (name, fine, safe) ON v.name = s.name
			WHERE s.setting <> ALL (v.fine)) g;
	RETURN QUERY SELECT v.place, format('%s = %s keeps %s, with the values in them', s.name, s.setting, v.what), NULL::timestamptz, v.hint
		FROM pg_settings s JOIN (VALUES
			('pgaudit.log', '{none,""}'::text[], 'server log', 'statements', 'Keep that log no longer than images.'),
			('pg_stat_statements.track_utility', '{off}', 'pg_stat_statements', 'EXECUTE, CALL and the like',
				'ALTER SYSTEM SET pg_stat_statements.track_utility = off; SELECT pg_stat_statements_reset();')) v (name, fine, place, what, hint) ON v.name = s.name
		WHERE s.setting <> ALL (v.fine);
	RETURN QUERY SELECT 'partitions with erased rows', format('bytes of deleted rows, last of entry %s', max(l.entry)),
			max(l.purged_at) + keeps + imgpipe.setting('imgpipe.partition_interval')::interval,
			'They are dropped with their partition; VACUUM (FULL) of the partition removes them at once.'
		FROM imgpipe.purge_ledger l WHERE l.cause = 'erasure'
		HAVING max(l.purged_at) + keeps + imgpipe.setting('imgpipe.partition_interval')::interval > now();
	RETURN QUERY SELECT 'purges that did not end', format('%s spans of deadlines', count(*)), NULL::timestamptz, 'SELECT * FROM imgpipe.retention_report();'
		FROM imgpipe.purges p WHERE NOT p.entered HAVING count(*) > 0;
	RETURN QUERY SELECT 'legal holds', format('%s images in imgpipe.held_images', count(*)), NULL::timestamptz, 'They stay until imgpipe.release_hold().'
		FROM imgpipe.held_images h HAVING count(*) > 0;
	RETURN QUERY SELECT format('materialized view %s', v.view), 'what it read, until it is refreshed', NULL::timestamptz,
			format('REFRESH MATERIALIZED VIEW %s; as often as images shall go, or make it a view.', v.view)
		FROM imgpipe.unfenced_views() v WHERE v.materialized;
	RETURN QUERY SELECT format('publication %s', p.pubname), format('hands on %s', string_agg(DISTINCT t.root::text, ', ')), NULL::timestamptz,
			'Dropped partitions are not replicated: subscribers must purge by themselves.'
		FROM pg_publication_tables p
			CROSS JOIN LATERAL (SELECT coalesce(pg_partition_root(c.oid), c.oid) AS root FROM pg_class c
				WHERE c.oid = to_regclass(format('%I.%I', p.schemaname, p.tablename))) t
		WHERE t.root = 'imgpipe.held_images'::regclass OR t.root IN (SELECT r.parent FROM imgpipe.partitioned_tables r)
		GROUP BY p.pubname;
	RETURN QUERY SELECT 'planner statistics', format('of column %s of %s', a.attname, a.attrelid::regclass), NULL::timestamptz,
			format('ALTER TABLE %s ALTER %I SET STATISTICS 0; DELETE FROM pg_statistic WHERE starelid = %s AND staattnum = %s;',
				a.attrelid::regclass, a.attname, a.attrelid, a.attnum)
		FROM pg_attribute a JOIN pg_statistic s ON s.starelid = a.attrelid AND s.staattnum = a.attnum
		WHERE (a.attrelid = 'imgpipe.held_images'::regclass OR a.attrelid IN (SELECT t.parent FROM imgpipe.partitioned_tables t))
			AND a.attname IN ('content', 'source_key', 'batch_id', 'uploaded_by', 'headers', 'sha256', 'result', 'results', 'value', 'reason', 'detail');
	RETURN QUERY SELECT 'prepared transaction', format('%s of %s, since %s', x.gid, x.owner, x.prepared), NULL::timestamptz,
			format('COMMIT PREPARED %L; or ROLLBACK PREPARED %1$L;', x.gid)
		FROM pg_prepared_xacts x WHERE x.database = current_database();
END
$$;
COMMENT ON FUNCTION imgpipe.retention_residue() IS
'Where bytes of purged images can still be, outside of the tables, and by when they are gone there: the write-ahead log, replication slots, standbys, base backups and WAL archives (as declare_copy() says), Kafka topics (as their broker says, or declare_copy()), the server log and pg_stat_statements where their settings make them keep values, deleted rows of erasures, legal holds, planner statistics. gone_by is NULL where nothing here tells. Only the owner may, unless granted.';
REVOKE EXECUTE ON FUNCTION imgpipe.retention_residue() FROM PUBLIC;
