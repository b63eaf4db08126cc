
/* What a DBA looks at: settings, and whether all is well; see src/health/. */

CREATE VIEW imgpipe.settings AS
	SELECT s.name, s.setting, s.unit, s.boot_val AS default_setting,
		CASE
			WHEN s.context OPERATOR(pg_catalog.=) 'user' THEN 'anybody, in a session'
			WHEN s.context OPERATOR(pg_catalog.=) 'superuser' THEN 'superusers, in a session'
			WHEN s.context OPERATOR(pg_catalog.=) 'sighup' THEN 'the server''s configuration and a reload'
			ELSE 'the server''s configuration and a restart'
		END AS changed_by,
		s.source,
		pg_catalog.concat_ws(' ', s.short_desc, s.extra_desc) AS meaning
	FROM pg_catalog.pg_settings s
	WHERE pg_catalog.starts_with(s.name, 'imgpipe.')
		AND imgpipe.workers_available() IS NOT NULL;
COMMENT ON VIEW imgpipe.settings IS
'Every setting of imgpipe: its value and default in its unit, who can change it where, and what it means. (The library defines them when it is loaded; reading this view loads it.)';

CREATE FUNCTION imgpipe.health_check() RETURNS TABLE (severity text, subject text, finding text, advice text)
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
	SET search_path = pg_catalog, pg_temp
	SET jit = off
AS $$
#variable_conflict use_column
DECLARE
	standby CONSTANT boolean := pg_is_in_recovery();
	preloaded CONSTANT boolean := imgpipe.workers_available();
	subjects CONSTANT text[] := '{workers,settings,partitions,retention,ledger,sources,outbox,processing,"dead letters",jobs,decoder,access}';
	found text[] := '{}';
BEGIN
	FOR severity, subject, finding, advice IN
		SELECT 'critical', 'workers', 'imgpipe is not in shared_preload_libraries',
				'Add it and restart: until then nothing is ingested, processed, scheduled or purged by itself.' AS advice
			WHERE NOT preloaded
		UNION ALL
		SELECT 'notice', 'workers', 'this is a standby: nothing runs here until it is promoted', NULL
			WHERE standby
		UNION ALL
		SELECT 'critical', 'workers', 'this database has no controller',
				'After stop_workers(), SELECT imgpipe.start_workers(); else the server log says why, most often that max_worker_processes is used up.'
			WHERE preloaded AND NOT standby AND NOT EXISTS (SELECT FROM pg_stat_activity a
				WHERE a.backend_type = 'imgpipe controller' AND a.datname = current_database())
		UNION ALL
		SELECT 'warning', 'settings', format('max_worker_processes = %s, and imgpipe alone may need %s', m.have, m.need),
				format('Raise it to %s or more and restart, or lower imgpipe.max_processors, max_ingest_workers or max_jobs.', m.need + 8)
			FROM (SELECT current_setting('max_worker_processes')::integer AS have,
				-- launcher, controller, purge, and the workers that there are to be
				3 + (SELECT least(coalesce(sum(s.parallelism), 0), imgpipe.setting('imgpipe.max_ingest_workers')::integer)
					FROM imgpipe.sources s WHERE s.enabled)
				+ CASE WHEN EXISTS (SELECT FROM imgpipe.processors p WHERE p.enabled) THEN imgpipe.setting('imgpipe.max_processors')::integer ELSE 0 END
				+ (SELECT count(*) FROM imgpipe.senders)
				+ (SELECT least(count(*), imgpipe.setting('imgpipe.max_jobs')::integer) FROM imgpipe.jobs j WHERE j.enabled) AS need) m
			WHERE preloaded AND m.have < m.need
		UNION ALL
		SELECT 'critical', 'settings', format('%s = off', s.name), format('Only tests may run so: a crash then loses what was committed, Kafka positions included. ALTER SYSTEM SET %s = on;', s.name)
			FROM pg_settings s WHERE s.name IN ('fsync', 'full_page_writes') AND s.setting = 'off'
		UNION ALL
		SELECT CASE WHEN u.last < now() + imgpipe.longest_retention() THEN 'critical' ELSE 'warning' END, 'partitions',
				CASE WHEN u.last IS NULL THEN format('%s has none', u.parent) ELSE format('%s has them for deadlines until %s', u.parent, u.last) END,
				'Images with later deadlines are refused. The controller makes partitions ahead; by hand: SELECT imgpipe.create_partitions();'
			FROM (SELECT t.parent, (SELECT max(p.deadline_to) FROM imgpipe.partitions p WHERE p.parent = t.parent) AS last
				FROM imgpipe.partitioned_tables t) u
			WHERE (u.last < now() + imgpipe.longest_retention() + imgpipe.setting('imgpipe.partition_interval')::interval) IS NOT FALSE
		UNION ALL
		SELECT 'critical', 'retention', format('%s is overdue since %s', p.partition, p.deadline_to),
				'SELECT * FROM imgpipe.retention_report(); says what is in the way. Its rows are hidden since their deadlines.'
			FROM imgpipe.partitions p WHERE NOT standby AND p.deadline_to < now() - interval '10 minutes'
		UNION ALL
		SELECT 'warning', 'retention', r.value, concat_ws(' ', r.detail, r.hint)
			FROM imgpipe.retention_report() r WHERE NOT standby AND r.item = 'problem' AND preloaded
		UNION ALL
		SELECT 'critical', 'ledger', format('entry %s: %s', l.entry, l.problem), 'The purge ledger was tampered with or damaged: compare it with a backup and with the anchors in the server log.'
			FROM imgpipe.verify_ledger() l
		UNION ALL
		SELECT CASE s.state WHEN 'waiting' THEN 'notice' WHEN 'retrying' THEN 'warning' ELSE 'critical' END, 'sources',
				format('source "%s" is %s%s', s.name, s.state, CASE WHEN s.state <> 'waiting' THEN ': ' || s.last_error ELSE ': more tasks are queued than its max_backlog, or more messages wait to be sent than imgpipe.max_outbox' END),
				CASE s.state WHEN 'waiting' THEN 'It goes on when processing has caught up; imgpipe.max_processors is how many may work.'
					ELSE 'Nothing is lost: the position stands, and it is tried again. SELECT * FROM imgpipe.source_partitions; shows where.' END
			FROM imgpipe.source_status s WHERE NOT standby AND s.state IN ('failed', 'retrying', 'waiting')
		UNION ALL
		SELECT 'warning', 'sources', format('source "%s" is %s messages, %s seconds behind', s.name, s.lag_messages, s.lag_seconds),
				'Where it stays so: more parallelism (at most one worker a partition), or more nodes, each with a slice.'
			FROM imgpipe.source_status s WHERE NOT standby AND s.state IN ('running', 'idle') AND s.lag_seconds > 900
		UNION ALL
		SELECT CASE o.state WHEN 'failed' THEN 'critical' ELSE 'warning' END, 'outbox',
				format('messages to server "%s" as %s are held up%s', o.server, o.owner, coalesce(': ' || o.last_error, '')),
				'Nothing is lost before its deadline, and it is tried again. SELECT * FROM imgpipe.outbox_status;'
			FROM imgpipe.outbox_status o WHERE NOT standby AND o.state IN ('failed', 'retrying')
		UNION ALL
		SELECT 'warning', 'outbox', format('%s messages to server "%s" were refused', o.refused_now, o.server),
				'SELECT topic, error FROM imgpipe.outbox WHERE state = ''refused''; then SELECT imgpipe.resend_refused(); They are purged at their deadlines.'
			FROM imgpipe.outbox_status o WHERE o.refused_now > 0
		UNION ALL
		SELECT 'warning', 'processing', format('%s tasks are due, the oldest since %s', count(*), min(t.available_at)),
				'More workers (imgpipe.max_processors, where there are processors to spare), or a processor that was stopped: SELECT * FROM imgpipe.processor_performance;'
			FROM imgpipe.tasks t WHERE t.available_at < now() HAVING min(t.available_at) < now() - interval '10 minutes'
		UNION ALL
		SELECT 'warning', 'dead letters', format('%s of stage %s in the last day, the latest for: %s', count(*), d.stage, (array_agg(d.reason ORDER BY d.created_at DESC))[1]),
				'SELECT * FROM imgpipe.dead_letters; then retry_dead_letters() or discard_dead_letter(). They are purged with their images'' deadlines.'
			FROM imgpipe.dead_letters d WHERE d.created_at > now() - interval '1 day' GROUP BY d.stage
		UNION ALL
		SELECT 'warning', 'jobs', format('job "%s": its last run (%s) %s', j.name, j.last_run_id, j.last_status || coalesce(': ' || j.last_error, '')),
				format('SELECT * FROM imgpipe.job_runs WHERE run_id = %s; SELECT imgpipe.run_job(%L); runs it again.', j.last_run_id, j.name)
			FROM imgpipe.job_status j WHERE j.state <> 'disabled' AND j.last_status NOT IN ('succeeded', 'cancelled')
		UNION ALL
		SELECT 'warning', 'jobs', format('job "%s": %s', j.name, j.problem), NULL
			FROM imgpipe.job_status j WHERE preloaded AND NOT standby AND j.problem IS NOT NULL
		UNION ALL
		SELECT 'critical', 'decoder', 'imgpipe.allow_unsandboxed_decoder is on', 'Turn it off: a fault in an image codec then has the rights of the server.'
			WHERE imgpipe.setting('imgpipe.allow_unsandboxed_decoder')::boolean
		UNION ALL
		SELECT 'critical', 'access', format('row-level security of %s is off', t.parent), format('Rows past their deadline can be read: ALTER TABLE %s ENABLE ROW LEVEL SECURITY;', t.parent)
			FROM imgpipe.partitioned_tables t JOIN pg_class c ON c.oid = t.parent WHERE NOT c.relrowsecurity
		UNION ALL
		SELECT 'critical', 'access', format('%s has %s on schema imgpipe_partitions', CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END, a.privilege_type),
				format('Who reaches a partition directly reads past the fence: REVOKE ALL ON SCHEMA imgpipe_partitions FROM %s;', CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END)
			FROM pg_namespace n CROSS JOIN LATERAL aclexplode(n.nspacl) a WHERE n.nspname = 'imgpipe_partitions' AND a.grantee <> n.nspowner
	LOOP
		found := found || subject;
		RETURN NEXT;
	END LOOP;
	BEGIN
		FOR finding IN SELECT format('its sandbox lets it %s', a.attempt) FROM imgpipe.decoder_sandbox() a WHERE NOT a.refused LOOP
			found := found || 'decoder'::text;
			severity := 'critical';
			subject := 'decoder';
			advice := 'Image codecs parse hostile bytes: do not run them so. See imgpipe.allow_unsandboxed_decoder.';
			RETURN NEXT;
		END LOOP;
	EXCEPTION WHEN OTHERS THEN
		GET STACKED DIAGNOSTICS finding = MESSAGE_TEXT, advice = PG_EXCEPTION_HINT;
		found := found || 'decoder'::text;
		severity := 'critical';
		subject := 'decoder';
		RETURN NEXT;
	END;
	RETURN QUERY SELECT 'ok', s.subject, NULL::text, NULL::text
		FROM unnest(subjects) WITH ORDINALITY s (subject, place) WHERE s.subject <> ALL (found) ORDER BY s.place;
END
$$;
COMMENT ON FUNCTION imgpipe.health_check() IS
'Everything that a DBA would look at, subject by subject: severity (critical: data is or will soon be refused, unprotected or kept too long; warning: somebody should look today; notice; ok, one row for each subject in which nothing was found), finding, and advice, what to do. For monitoring: SELECT count(*) FROM imgpipe.health_check() WHERE severity = ''critical''. Starts this session''s image decoder, to try its sandbox. On a standby it leaves out what only runs on the primary. Only the owner may, unless granted.';
REVOKE EXECUTE ON FUNCTION imgpipe.health_check() FROM PUBLIC;
