

/* Exceptions from the templates, and the end of what has one; see src/access/. */

CREATE FUNCTION imgpipe.allow_exception(role_name name, privilege text, object text, reason text, until timestamptz, column_name name DEFAULT NULL) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	target record;
BEGIN
	IF lower(role_name) = 'public' THEN
		role_name := 'public';
	ELSE
		PERFORM imgpipe.check_role(role_name);
	END IF;
	SELECT * INTO target FROM imgpipe.access_object(object);
	privilege := imgpipe.check_privilege(target.kind, privilege);
	IF column_name IS NOT NULL AND (target.kind <> 'table' OR privilege <> ALL ('{SELECT,INSERT,UPDATE,REFERENCES}') OR NOT EXISTS (
			SELECT FROM pg_attribute a WHERE a.attrelid = target.oid AND a.attname = allow_exception.column_name AND a.attnum > 0 AND NOT a.attisdropped)) THEN
		RAISE EXCEPTION USING ERRCODE = 'undefined_column',
			MESSAGE = format('%s has no column "%s" for %s', target.identity, column_name, privilege),
			HINT = 'SELECT, INSERT, UPDATE and REFERENCES on tables can be for columns.';
	END IF;
	IF (trim(reason) <> '' AND isfinite(until) AND until > imgpipe.scheduler_clock()) IS NOT TRUE THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
			MESSAGE = 'an exception needs a reason and an end in the future',
			DETAIL = format('They are %s and %s.', coalesce('"' || reason || '"', 'NULL'), coalesce(until::text, 'NULL')),
			HINT = 'What is to stay belongs in a template: see imgpipe.create_template() and add_rule().';
	END IF;
	INSERT INTO imgpipe.access_exceptions AS e (role_name, kind, schema_name, object, column_name, privilege, reason, until)
		VALUES (role_name, target.kind, target.schema_name, target.identity, coalesce(column_name, ''), privilege, reason, until)
		ON CONFLICT ON CONSTRAINT access_exceptions_pkey DO UPDATE
			SET reason = EXCLUDED.reason, until = EXCLUDED.until, allowed_by = EXCLUDED.allowed_by, allowed_at = EXCLUDED.allowed_at;
	PERFORM imgpipe.log_access('allow exception', role_name,
		format('%s on %s%s until %s: %s', privilege, target.identity, coalesce(' (' || quote_ident(column_name) || ')', ''), until, reason));
	PERFORM imgpipe.warn_of_no_end(format('the exception for "%s"', role_name));
END
$$;
COMMENT ON FUNCTION imgpipe.allow_exception(name, text, text, text, timestamptz, name) IS
'Declares a privilege of a role (or of public) on an object, or on a column, beside the templates, with a reason and until a time; called again, it changes both. Where it is granted already it now is no drift; where not, the next apply grants it. When the time has come end_expired_access() revokes it, which a job is to call (a warning says where there is none), or the next apply. object as for access_object(). Raises 42704 for a role or an object, 42703 for a column, 22023 for a privilege, or for no reason or no end.';

CREATE FUNCTION imgpipe.end_exception(role_name name, privilege text, object text, column_name name DEFAULT NULL) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	target record;
BEGIN
	SELECT * INTO target FROM imgpipe.access_object(object);
	-- The row stays until its grant is revoked: it says that the grant was ours.
	UPDATE imgpipe.access_exceptions e SET until = least(e.until, imgpipe.scheduler_clock())
		WHERE (e.role_name, e.kind, e.object, e.column_name, e.privilege)
			= (end_exception.role_name, target.kind, target.identity, coalesce(end_exception.column_name, ''), upper(end_exception.privilege));
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'undefined_object',
			MESSAGE = format('there is no such exception for %s', coalesce('"' || role_name || '"', 'NULL')),
			HINT = 'SELECT * FROM imgpipe.access_exceptions; shows those that there are.';
	END IF;
	PERFORM imgpipe.log_access('end exception', role_name, format('%s on %s', upper(privilege), target.identity));
END
$$;
COMMENT ON FUNCTION imgpipe.end_exception(name, text, text, name) IS
'Ends an exception now: the next apply, or end_expired_access(), revokes what it allowed. Raises 42704 where there is none.';

CREATE FUNCTION imgpipe.end_expired_access() RETURNS integer
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	clock CONSTANT timestamptz := imgpipe.scheduler_clock();
	membership imgpipe.access_memberships;
	plan jsonb;
	ended integer := 0;
	removed integer;
BEGIN
	PERFORM pg_advisory_xact_lock('imgpipe.access_teams'::regclass::oid::bigint);
	-- One that cannot be revoked, because another role has to, keeps no other from its end; it is tried again.
	FOR membership IN SELECT * FROM imgpipe.access_memberships m WHERE m.until <= clock FOR UPDATE LOOP
		BEGIN
			PERFORM imgpipe.revoke_membership(membership.role_name, membership.member);
			DELETE FROM imgpipe.access_memberships m WHERE (m.role_name, m.member) = (membership.role_name, membership.member);
			PERFORM imgpipe.log_access('membership ended', membership.role_name, format('%I, at %s', membership.member, membership.until));
			ended := ended + 1;
		EXCEPTION WHEN insufficient_privilege OR undefined_object THEN
			RAISE WARNING 'could not end the membership of "%" in "%": %', membership.member, membership.role_name, SQLERRM;
		END;
	END LOOP;
	IF EXISTS (SELECT FROM imgpipe.access_exceptions e WHERE e.until <= clock) THEN
		SELECT jsonb_agg(to_jsonb(p) ORDER BY p.step) INTO plan FROM (
			SELECT row_number() OVER () AS step, imgpipe.revoke_statement(c.kind, c.privilege, c.column_name, c.object, c.role_name) AS statement,
					pg_get_userbyid(c.grantor) AS set_role
				FROM imgpipe.access_changes() c
				WHERE c.change = 'revoke' AND EXISTS (SELECT FROM imgpipe.access_exceptions e WHERE e.until <= clock
					AND (e.role_name, e.kind, e.object, e.column_name, e.privilege) = (c.role_name, c.kind, c.object, c.column_name, c.privilege))) p;
		BEGIN
			PERFORM imgpipe.execute_plan(coalesce(plan, '[]'), 'exceptions ended');
			DELETE FROM imgpipe.access_exceptions e WHERE e.until <= clock;
			GET DIAGNOSTICS removed = ROW_COUNT;
			ended := ended + removed;
		EXCEPTION WHEN insufficient_privilege OR undefined_object THEN
			RAISE WARNING 'could not end exceptions: %', SQLERRM;
		END;
	END IF;
	RETURN ended;
END
$$;
COMMENT ON FUNCTION imgpipe.end_expired_access() IS
'Revokes the memberships and the exceptions whose time has come, and returns how many. For a job: SELECT imgpipe.schedule(''end_expired_access'', ''1 minute'', ''SELECT imgpipe.end_expired_access()''); which runs with the rights of who schedules it. A session that has set its role to a team''s keeps it until it ends.';
