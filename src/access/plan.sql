

/*
 * The difference between what is declared and what is, as statements; see
 * src/access/.  A plan is not kept: it is computed, shown with a hash, and
 * computed again when it is applied, under a lock and in one transaction.
 */

CREATE FUNCTION imgpipe.view_changes(only_schema name DEFAULT NULL) RETURNS TABLE (
		change text, schema_name name, view_name name, base_schema name, owner name, definition text)
	LANGUAGE sql STABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
	WITH wanted AS MATERIALIZED (SELECT * FROM imgpipe.team_views(only_schema) v WHERE v.problem IS NULL),
	present AS MATERIALIZED (
		SELECT v.schema_name, v.view_name, v.base_schema, v.definition, n.nspowner, c.oid AS found,
				c.relkind = 'v' AND c.relowner = n.nspowner AND pg_get_viewdef(c.oid) = v.stored
					AND c.reloptions = CASE WHEN v.definition LIKE '% CHECK OPTION' THEN '{security_barrier=true,check_option=cascaded}' ELSE '{security_barrier=true}' END::text[] AS intact
			FROM imgpipe.access_views v LEFT JOIN pg_namespace n ON n.nspname = v.schema_name
				LEFT JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = v.view_name
			WHERE only_schema IS NULL OR v.base_schema = only_schema)
	SELECT 'drop view', p.schema_name, p.view_name, p.base_schema, pg_get_userbyid(p.nspowner), format('DROP VIEW %I.%I', p.schema_name, p.view_name)
		FROM present p LEFT JOIN wanted w ON (w.schema_name, w.view_name) = (p.schema_name, p.view_name)
		WHERE p.found IS NOT NULL AND (w.definition = p.definition AND p.intact) IS NOT TRUE
	UNION ALL
	-- One that this extension does not know: DROP EXTENSION left it.
	SELECT 'drop view', w.schema_name, w.view_name, w.base_schema, pg_get_userbyid(c.relowner), format('DROP VIEW %I.%I', w.schema_name, w.view_name)
		FROM wanted w JOIN pg_namespace n ON n.nspname = w.schema_name JOIN pg_class c ON (c.relnamespace, c.relname, c.relkind) = (n.oid, w.view_name, 'v')
		WHERE NOT EXISTS (SELECT FROM present p WHERE (p.schema_name, p.view_name) = (w.schema_name, w.view_name))
	UNION ALL
	SELECT DISTINCT 'create schema', w.schema_name, NULL::name, w.base_schema, w.owner, format('CREATE SCHEMA %I AUTHORIZATION %I', w.schema_name, w.owner)
		FROM wanted w WHERE NOT EXISTS (SELECT FROM pg_namespace n WHERE n.nspname = w.schema_name)
	UNION ALL
	SELECT 'create view', w.schema_name, w.view_name, w.base_schema, w.owner, w.definition
		FROM wanted w LEFT JOIN present p ON (w.schema_name, w.view_name) = (p.schema_name, p.view_name)
		WHERE (w.definition = p.definition AND p.intact) IS NOT TRUE
	UNION ALL
	SELECT DISTINCT 'drop schema', p.schema_name, NULL::name, p.base_schema, pg_get_userbyid(p.nspowner), format('DROP SCHEMA %I', p.schema_name)
		FROM present p WHERE p.nspowner IS NOT NULL AND NOT EXISTS (SELECT FROM wanted w WHERE w.schema_name = p.schema_name)
$$;
COMMENT ON FUNCTION imgpipe.view_changes(name) IS
'What is to be done so that the views of teams, and their schemas, are as they should.';

CREATE FUNCTION imgpipe.access_changes(only_schema name DEFAULT NULL) RETURNS TABLE (
		change text, kind text, schema_name name, object text, column_name name, role_oid oid, role_name name, privilege text, grantor oid, owner name, reason text)
	LANGUAGE sql STABLE PARALLEL SAFE ROWS 100000
	SET search_path = pg_catalog, pg_temp
	SET jit = off
	SET enable_nestloop = off
AS $$
	WITH view_changes AS MATERIALIZED (SELECT * FROM imgpipe.view_changes(only_schema)),
	gone AS MATERIALIZED (
		SELECT quote_ident(v.schema_name) || coalesce('.' || quote_ident(v.view_name), '') AS object FROM view_changes v WHERE v.change IN ('drop view', 'drop schema')),
	declared AS MATERIALIZED (SELECT * FROM imgpipe.declared_rights(only_schema)),
	actual AS MATERIALIZED (
		SELECT a.* FROM imgpipe.actual_rights(only_schema) a
			WHERE a.grantee <> a.owner AND NOT EXISTS (SELECT FROM gone g WHERE g.object = a.object)),
	roles AS MATERIALIZED (SELECT r.oid, r.rolname FROM imgpipe.access_teams t JOIN pg_roles r ON r.rolname = t.role_name),
	judged AS MATERIALIZED (
		SELECT a.*, d.privilege IS NOT NULL AS wanted FROM actual a
			LEFT JOIN declared d ON d.role_oid = a.grantee AND d.kind = a.kind AND d.object = a.object AND d.column_name = a.column_name AND d.privilege = a.privilege
			WHERE d.privilege IS NOT NULL
				OR a.grantee IN (SELECT r.oid FROM roles r)
				OR a.schema_name IN (SELECT s.schema_name FROM imgpipe.access_schemas s WHERE s.authoritative)
				OR (a.kind, a.object, a.column_name, a.privilege, a.grantee) IN (
					SELECT e.kind, e.object, e.column_name, e.privilege, coalesce(r.oid, 0) FROM imgpipe.access_exceptions e LEFT JOIN pg_roles r ON r.rolname = e.role_name
						WHERE e.until <= imgpipe.scheduler_clock() AND (r.oid IS NOT NULL OR e.role_name = 'public'))),
	granted AS MATERIALIZED (
		SELECT d.*, a.grantor IS NULL AS missing FROM declared d
			LEFT JOIN actual a ON a.grantee = d.role_oid AND a.kind = d.kind AND a.object = d.object AND a.column_name = d.column_name AND a.privilege = d.privilege
				AND a.grantor = a.owner),
	-- To revoke a privilege on a table is to revoke it on its columns.
	swept AS MATERIALIZED (SELECT DISTINCT j.object, j.grantee, j.privilege FROM judged j WHERE NOT j.wanted AND j.kind = 'table' AND j.column_name = '' AND j.grantor = j.owner)
	SELECT 'grant', g.kind, g.schema_name, g.object, g.column_name, g.role_oid, g.role_name, g.privilege, NULL::oid, g.owner,
			CASE WHEN g.missing THEN 'missing' ELSE 'goes with the table''s' END
		FROM granted g LEFT JOIN swept s ON g.column_name <> '' AND (s.object, s.grantee, s.privilege) = (g.object, g.role_oid, g.privilege)
		WHERE g.missing OR s.grantee IS NOT NULL
	UNION ALL
	SELECT CASE WHEN j.wanted AND j.grantor = j.owner THEN 'revoke grant option' ELSE 'revoke' END,
			j.kind, j.schema_name, j.object, j.column_name, j.grantee, CASE j.grantee WHEN 0 THEN 'public' ELSE pg_get_userbyid(j.grantee) END, j.privilege,
			nullif(j.grantor, j.owner), pg_get_userbyid(j.owner),
			CASE WHEN j.wanted AND j.grantor = j.owner THEN 'grant option'
				WHEN j.wanted THEN 'wrong grantor'
				WHEN j.partition THEN 'partition'
				WHEN j.grantee = 0 THEN 'PUBLIC'
				ELSE 'extra' END || CASE WHEN j.grantable AND NOT (j.wanted AND j.grantor = j.owner) THEN ', may grant it on' ELSE '' END
		FROM judged j
		WHERE NOT j.wanted OR j.grantor <> j.owner OR j.grantable
$$;
COMMENT ON FUNCTION imgpipe.access_changes(name) IS
'Each grant that is missing or too many, one row a role, object (of those that are alike one, see alike_objects()), column and privilege, before they are put together to statements. grantor: who granted it, where that is not the owner.';

CREATE FUNCTION imgpipe.default_changes(only_schema name DEFAULT NULL) RETURNS TABLE (
		change text, creator name, schema_name name, kind text, role_name name, privilege text, reason text)
	LANGUAGE sql STABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
	WITH wanted AS MATERIALIZED (
		SELECT DISTINCT c.creator, r.schema_name, r.kind, r.role_name, p.privilege
			FROM imgpipe.rules_in_use() r JOIN imgpipe.access_creators c ON c.schema_name = r.schema_name JOIN pg_roles o ON o.rolname = c.creator
				CROSS JOIN LATERAL unnest(r.privileges) p (privilege)
			WHERE r.future AND p.privilege = ANY (imgpipe.privileges_of(r.kind)) AND (only_schema IS NULL OR r.schema_name = only_schema)),
	present AS MATERIALIZED (
		SELECT pg_get_userbyid(d.defaclrole) AS creator, n.nspname AS schema_name,
				CASE d.defaclobjtype WHEN 'r' THEN 'table' WHEN 'S' THEN 'sequence' ELSE 'function' END AS kind,
				CASE a.grantee WHEN 0 THEN 'public' ELSE pg_get_userbyid(a.grantee) END AS role_name, a.privilege_type AS privilege
			FROM pg_default_acl d JOIN pg_namespace n ON n.oid = d.defaclnamespace CROSS JOIN LATERAL aclexplode(d.defaclacl) a
			WHERE n.nspname = ANY (imgpipe.managed_schemas(only_schema)) AND d.defaclobjtype IN ('r', 'S', 'f') AND a.grantee <> d.defaclrole)
	SELECT 'grant', w.creator, w.schema_name, w.kind, w.role_name, w.privilege, 'missing'
		FROM wanted w WHERE NOT EXISTS (SELECT FROM present p
			WHERE (p.creator, p.schema_name, p.kind, p.role_name, p.privilege) = (w.creator, w.schema_name, w.kind, w.role_name, w.privilege))
	UNION ALL
	SELECT 'revoke', p.creator, p.schema_name, p.kind, p.role_name, p.privilege, CASE p.role_name WHEN 'public' THEN 'PUBLIC' ELSE 'extra' END
		FROM present p
		WHERE NOT EXISTS (SELECT FROM wanted w
				WHERE (p.creator, p.schema_name, p.kind, p.role_name, p.privilege) = (w.creator, w.schema_name, w.kind, w.role_name, w.privilege))
			AND (p.role_name IN (SELECT t.role_name FROM imgpipe.access_teams t)
				OR p.schema_name IN (SELECT s.schema_name FROM imgpipe.access_schemas s WHERE s.authoritative))
$$;
COMMENT ON FUNCTION imgpipe.default_changes(name) IS
'Each default privilege, of a creator in a schema, that is missing or too many.';

CREATE FUNCTION imgpipe.membership_changes() RETURNS TABLE (change text, role_name name, member name, granted_by name, reason text)
	LANGUAGE sql STABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
	WITH teams AS MATERIALIZED (SELECT r.oid, r.rolname FROM imgpipe.access_teams t JOIN pg_roles r ON r.rolname = t.role_name),
	wanted AS MATERIALIZED (
		SELECT m.role_name, m.member FROM imgpipe.access_memberships m JOIN teams t ON t.rolname = m.role_name JOIN pg_roles r ON r.rolname = m.member
			WHERE coalesce(m.until, 'infinity') > imgpipe.scheduler_clock()),
	present AS MATERIALIZED (
		SELECT DISTINCT pg_get_userbyid(m.roleid) AS role_name, pg_get_userbyid(m.member) AS member,
				-- From PostgreSQL 16 on, a role can have been granted several times, and who makes one may administer it and has nothing else of it.
				CASE WHEN to_jsonb(m) ? 'inherit_option' THEN pg_get_userbyid(m.grantor) END AS granted_by
			FROM pg_auth_members m
			WHERE (m.roleid IN (SELECT t.oid FROM teams t) OR m.member IN (SELECT t.oid FROM teams t))
				AND (coalesce((to_jsonb(m) ->> 'inherit_option')::boolean, true) OR coalesce((to_jsonb(m) ->> 'set_option')::boolean, true)))
	SELECT 'grant', w.role_name, w.member, NULL::name, 'missing' FROM wanted w
		WHERE NOT EXISTS (SELECT FROM present p WHERE (p.role_name, p.member) = (w.role_name, w.member))
	UNION ALL
	SELECT 'revoke', p.role_name, p.member, p.granted_by,
			CASE WHEN EXISTS (SELECT FROM imgpipe.access_memberships m WHERE (m.role_name, m.member) = (p.role_name, p.member)) THEN 'expired' ELSE 'extra' END
		FROM present p WHERE NOT EXISTS (SELECT FROM wanted w WHERE (p.role_name, p.member) = (w.role_name, w.member))
$$;
COMMENT ON FUNCTION imgpipe.membership_changes() IS
'Each membership in a team, or of a team in another role, that is missing or too many.';

CREATE FUNCTION imgpipe.quoted_role(role_name name) RETURNS text
	LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
	RETURN CASE WHEN role_name OPERATOR(pg_catalog.=) 'public' THEN 'PUBLIC' ELSE pg_catalog.quote_ident(role_name) END;
COMMENT ON FUNCTION imgpipe.quoted_role(name) IS 'A role as GRANT takes it. No role can be called public.';

CREATE FUNCTION imgpipe.revoke_statement(kind text, privilege text, column_name name, object text, role_name name) RETURNS text
	LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT format('REVOKE %s%s ON %s %s FROM %s CASCADE', privilege, CASE WHEN column_name <> '' THEN format(' (%I)', column_name) ELSE '' END,
		CASE kind WHEN 'function' THEN 'ROUTINE' ELSE upper(kind) END, object, imgpipe.quoted_role(role_name))
$$;
COMMENT ON FUNCTION imgpipe.revoke_statement(text, text, name, text, name) IS
'The statement that revokes one privilege; object is quoted already.';

CREATE FUNCTION imgpipe.planned_statements(only_schema name DEFAULT NULL, only_role name DEFAULT NULL) RETURNS TABLE (
		phase integer, role_name name, takes text, statement text, reason text)
	LANGUAGE sql STABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
	SET jit = off
AS $$
	WITH changes AS MATERIALIZED (
		SELECT * FROM imgpipe.access_changes(only_schema) c
			WHERE (only_role IS NULL OR c.role_name = only_role)
				-- No statement can name a role that is gone; access_drift() says what can be done.
				AND (c.role_oid = 0 OR c.role_oid IN (SELECT r.oid FROM pg_roles r)) AND (c.grantor IS NULL OR c.grantor IN (SELECT r.oid FROM pg_roles r))),
	-- One privilege with its columns; then what one role gets on one object; then which roles get just that; then on which objects.
	privileges AS (
		SELECT c.change, c.kind, c.object, c.role_name, c.grantor, c.owner, c.reason,
				c.privilege || CASE c.column_name = '' WHEN true THEN '' ELSE format(' (%s)', string_agg(quote_ident(c.column_name), ', ' ORDER BY c.column_name)) END AS privilege
			FROM changes c GROUP BY c.change, c.kind, c.object, c.role_name, c.grantor, c.owner, c.reason, c.privilege, c.column_name = ''),
	of_roles AS (
		SELECT p.change, p.kind, p.object, p.role_name, p.grantor, p.owner, p.reason, string_agg(p.privilege, ', ' ORDER BY p.privilege) AS privileges
			FROM privileges p GROUP BY p.change, p.kind, p.object, p.role_name, p.grantor, p.owner, p.reason),
	of_objects AS (
		SELECT r.change, r.kind, r.object, r.grantor, r.owner, r.reason, r.privileges, string_agg(imgpipe.quoted_role(r.role_name), ', ' ORDER BY r.role_name) AS roles
			FROM of_roles r GROUP BY r.change, r.kind, r.object, r.grantor, r.owner, r.reason, r.privileges),
	chunks AS (
		SELECT o.change, o.kind, o.grantor, o.owner, o.reason, o.privileges, o.roles, x.object,
				(row_number() OVER (PARTITION BY o.change, o.kind, o.grantor, o.owner, o.reason, o.privileges, o.roles ORDER BY x.object) - 1) / 100 AS chunk
			FROM of_objects o LEFT JOIN imgpipe.alike_objects(only_schema) a ON a.kind = o.kind AND a.object = o.object
				CROSS JOIN LATERAL unnest(coalesce(a.objects, ARRAY[o.object])) x (object)),
	statements AS (
		SELECT CASE c.change WHEN 'grant' THEN 5 ELSE 4 END AS phase, coalesce(pg_get_userbyid(c.grantor), c.owner) AS role_name,
				CASE WHEN c.grantor IS NULL THEN 'rights' ELSE 'role' END AS takes,
				format('%s %s ON %s %s %s %s%s',
					CASE c.change WHEN 'grant' THEN 'GRANT' WHEN 'revoke' THEN 'REVOKE' ELSE 'REVOKE GRANT OPTION FOR' END, c.privileges,
					CASE c.kind WHEN 'function' THEN 'ROUTINE' ELSE upper(c.kind) END, string_agg(c.object, ', ' ORDER BY c.object),
					CASE c.change WHEN 'grant' THEN 'TO' ELSE 'FROM' END, c.roles,
					CASE WHEN c.change = 'revoke grant option' OR c.reason LIKE '%may grant it on' THEN ' CASCADE' ELSE '' END) AS statement, c.reason
			FROM chunks c GROUP BY c.change, c.kind, c.grantor, c.owner, c.reason, c.privileges, c.roles, c.chunk
		UNION ALL
		SELECT CASE v.change WHEN 'drop view' THEN 1 WHEN 'create schema' THEN 2 WHEN 'create view' THEN 3 ELSE 8 END, v.owner,
				CASE v.change WHEN 'create schema' THEN 'schema' ELSE 'role' END, v.definition, v.change
			FROM imgpipe.view_changes(only_schema) v WHERE only_role IS NULL OR v.schema_name = imgpipe.team_schema(v.base_schema, only_role)
		UNION ALL
		SELECT CASE d.change WHEN 'grant' THEN 6 ELSE 4 END, d.creator, 'rights', format('ALTER DEFAULT PRIVILEGES FOR ROLE %I IN SCHEMA %I %s %s ON %sS %s %s', d.creator, d.schema_name,
					upper(d.change), string_agg(d.privilege, ', ' ORDER BY d.privilege), upper(d.kind), CASE d.change WHEN 'grant' THEN 'TO' ELSE 'FROM' END, imgpipe.quoted_role(d.role_name)),
				'default privileges: ' || d.reason
			FROM imgpipe.default_changes(only_schema) d WHERE only_role IS NULL OR d.role_name = only_role
			GROUP BY d.change, d.creator, d.schema_name, d.kind, d.role_name, d.reason
		UNION ALL
		SELECT 7, coalesce(m.granted_by, m.role_name), CASE WHEN m.granted_by IS NULL THEN 'admin' ELSE 'rights' END, format(CASE m.change WHEN 'grant' THEN 'GRANT %I TO %I' ELSE 'REVOKE %I FROM %I' END, m.role_name, m.member) || coalesce(' GRANTED BY ' || quote_ident(m.granted_by), ''), 'membership: ' || m.reason
			FROM imgpipe.membership_changes() m WHERE only_schema IS NULL AND only_role IS NULL)
	SELECT * FROM statements
$$;
COMMENT ON FUNCTION imgpipe.planned_statements(name, name) IS
'What is to be done, as statements. phase: their order. takes: what of the role a statement takes: its rights, to run as that very role, to make a schema of its, or to say who is its member (admin). A superuser has it all.';

CREATE FUNCTION imgpipe.can_become(role_name name) RETURNS boolean
	LANGUAGE sql STABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
	-- From PostgreSQL 16 on, a member need not be able to.
	SELECT pg_has_role(role_name, CASE WHEN current_setting('server_version_num')::integer < 160000 THEN 'MEMBER' ELSE 'SET' END)
$$;
COMMENT ON FUNCTION imgpipe.can_become(name) IS 'Whether the caller may SET ROLE to a role.';

CREATE FUNCTION imgpipe.lacking(role_name name, takes text) RETURNS text
	LANGUAGE sql STABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT CASE takes
		-- What one has no rights of and may become, one has by becoming it.
		WHEN 'rights' THEN CASE WHEN NOT pg_has_role(role_name, 'USAGE') AND NOT imgpipe.can_become(role_name) THEN format('rights of %I', role_name) END
		WHEN 'role' THEN CASE WHEN NOT imgpipe.can_become(role_name) THEN format('SET ROLE %I', role_name) END
		WHEN 'schema' THEN nullif(concat_ws(', ', CASE WHEN NOT imgpipe.can_become(role_name) THEN format('SET ROLE %I', role_name) END,
			CASE WHEN NOT has_database_privilege(current_database(), 'CREATE') THEN format('CREATE ON DATABASE %I', current_database()) END), '')
		WHEN 'admin' THEN CASE WHEN NOT pg_has_role(role_name, 'MEMBER WITH ADMIN OPTION')
			AND NOT (current_setting('server_version_num')::integer < 160000 AND (SELECT r.rolcreaterole FROM pg_roles r WHERE r.rolname = current_user))
			THEN format('ADMIN OPTION FOR %I', role_name) END
	END
$$;
COMMENT ON FUNCTION imgpipe.lacking(name, text) IS
'What the caller has not of what a statement takes of a role, by planned_statements(); NULL where nothing is lacking.';

CREATE FUNCTION imgpipe.plan_access(only_schema name DEFAULT NULL, only_role name DEFAULT NULL) RETURNS TABLE (
		step bigint, statement text, reason text, set_role name, lacks text, hash text)
	LANGUAGE sql STABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
	WITH plan AS MATERIALIZED (
		SELECT row_number() OVER (ORDER BY p.phase, p.statement, p.role_name) AS step, p.* FROM imgpipe.planned_statements(only_schema, only_role) p)
	SELECT p.step, p.statement, p.reason,
			CASE WHEN p.role_name <> current_user AND (p.takes = 'role' OR (p.takes = 'rights' AND NOT pg_has_role(p.role_name, 'USAGE'))) THEN p.role_name END,
			imgpipe.lacking(p.role_name, p.takes),
			(SELECT encode(sha256(convert_to(string_agg(concat_ws(E'\n', h.role_name, h.statement), E';\n' ORDER BY h.step), 'UTF8')), 'hex') FROM plan h)
		FROM plan p ORDER BY p.step
$$;
COMMENT ON FUNCTION imgpipe.plan_access(name, name) IS
'The statements that make rights as declared, of one schema and the views of teams on it, of one role, or of all, memberships included; no rows where there is nothing to do. reason: missing, extra, wrong grantor, grant option, PUBLIC, partition, ... set_role: the role that apply_access() becomes for it; lacks: what the caller has not of what the statement takes, and who applies it must have. hash, the same in each row and for each caller, is what apply_access() wants. Changes nothing.';

CREATE FUNCTION imgpipe.run_statement(statement text, run_as name DEFAULT NULL) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	role_before CONSTANT text := current_setting('role');
BEGIN
	IF run_as IS NOT NULL THEN
		PERFORM set_config('role', run_as, true);
	END IF;
	EXECUTE statement;
	IF run_as IS NOT NULL THEN
		PERFORM set_config('role', role_before, true);
	END IF;
END
$$;
COMMENT ON FUNCTION imgpipe.run_statement(text, name) IS
'Executes a statement of a plan, as another role where it must. No more than the caller could do with SET ROLE.';

CREATE FUNCTION imgpipe.refuse_access(reason text, detail text, hint text, code text) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	RAISE LOG 'imgpipe access: refused, for "%": %', session_user, reason;
	RAISE EXCEPTION USING ERRCODE = code, MESSAGE = reason, DETAIL = detail, HINT = hint;
END
$$;
COMMENT ON FUNCTION imgpipe.refuse_access(text, text, text, text) IS
'Raises an error, and leaves a line in the server log that the rollback does not take away.';

CREATE FUNCTION imgpipe.execute_plan(plan jsonb, action text, role_name name DEFAULT NULL, detail text DEFAULT NULL) RETURNS integer
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	lacking record;
	base name;
	step record;
BEGIN
	SELECT string_agg(DISTINCT s.lacks, ', ') AS what, count(*) AS steps INTO lacking
		FROM jsonb_to_recordset(plan) s (lacks text) WHERE s.lacks IS NOT NULL;
	IF lacking.steps > 0 THEN
		PERFORM imgpipe.refuse_access(format('role "%s" cannot execute %s of %s statements', current_user, lacking.steps, jsonb_array_length(plan)),
			format('It lacks %s.', lacking.what),
			'Let a superuser or somebody who has this apply the plan, or apply only a schema that is yours: imgpipe.apply_access(hash, schema), with the hash of imgpipe.plan_access(schema).', '42501');
	END IF;
	FOR base IN SELECT DISTINCT v.base_schema FROM imgpipe.team_views() v
		WHERE position('imgpipe.mask_keys' IN v.definition) > 0 AND NOT EXISTS (SELECT FROM imgpipe.mask_keys k WHERE k.schema_name = v.base_schema)
	LOOP
		PERFORM imgpipe.new_mask_key(base);
	END LOOP;
	FOR step IN SELECT * FROM jsonb_to_recordset(plan) s (step integer, statement text, set_role name) ORDER BY s.step LOOP
		PERFORM imgpipe.run_statement(step.statement, step.set_role);
	END LOOP;
	-- What stands now is the measure of who changes a view later. Views that another plan would change stay as they were entered.
	-- (By the catalogs: the caller may have no USAGE on the schemas of others' views.)
	DELETE FROM imgpipe.access_views v WHERE NOT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE n.nspname = v.schema_name AND c.relname = v.view_name);
	INSERT INTO imgpipe.access_views AS v (schema_name, view_name, base_schema, definition, stored)
		SELECT w.schema_name, w.view_name, w.base_schema, w.definition, pg_get_viewdef(c.oid)
			FROM imgpipe.team_views() w JOIN jsonb_to_recordset(plan) s (statement text) ON s.statement = w.definition
				JOIN pg_namespace n ON n.nspname = w.schema_name JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = w.view_name
		ON CONFLICT ON CONSTRAINT access_views_pkey DO UPDATE SET definition = EXCLUDED.definition, stored = EXCLUDED.stored;
	PERFORM imgpipe.log_access(action, role_name, detail, ARRAY(SELECT s.statement FROM jsonb_to_recordset(plan) s (step integer, statement text) ORDER BY s.step));
	RETURN jsonb_array_length(plan);
END
$$;
COMMENT ON FUNCTION imgpipe.execute_plan(jsonb, text, name, text) IS
'Executes the rows of a plan and enters them in the log. Raises 42501 where some take what the caller has not.';

CREATE FUNCTION imgpipe.apply_access(hash text, only_schema name DEFAULT NULL) RETURNS integer
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	plan jsonb;
BEGIN
	PERFORM pg_advisory_xact_lock('imgpipe.access_teams'::regclass::oid::bigint);
	SELECT jsonb_agg(to_jsonb(p) ORDER BY p.step) INTO plan FROM imgpipe.plan_access(only_schema) p;
	IF plan IS NULL THEN
		RETURN 0;
	END IF;
	IF (plan -> 0 ->> 'hash') IS DISTINCT FROM hash THEN
		PERFORM imgpipe.refuse_access('the plan is not the one that was shown',
			format('Its hash is %s now, not %s: rights, objects or templates have changed.', plan -> 0 ->> 'hash', coalesce(hash, 'NULL')),
			'Look at SELECT * FROM imgpipe.plan_access(); and apply the hash that it shows.', '55000');
	END IF;
	RETURN imgpipe.execute_plan(plan, 'apply', NULL, concat('schema ' || quote_ident(only_schema) || ', ', 'hash ', hash));
END
$$;
COMMENT ON FUNCTION imgpipe.apply_access(text, name) IS
'Executes the plan with that hash, of one schema or of all, as plan_access() showed it, in the caller''s transaction and under a lock, and returns how many statements they were: 0 where there is nothing left to do. A grant that another role made is revoked as that role. Raises 55000 where the plan is another one by now, 42501 where it takes what the caller has not (it says what, and so does plan_access()), 2BP01 where somebody''s view stands on a team''s view that has to change.';

CREATE FUNCTION imgpipe.revoke_access(team name) RETURNS integer
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	plan jsonb;
BEGIN
	PERFORM imgpipe.check_team(team);
	PERFORM pg_advisory_xact_lock('imgpipe.access_teams'::regclass::oid::bigint);
	UPDATE imgpipe.access_teams t SET active = false WHERE t.role_name = revoke_access.team;
	SELECT jsonb_agg(to_jsonb(p) ORDER BY p.step) INTO plan FROM imgpipe.plan_access(NULL, team) p;
	RETURN imgpipe.execute_plan(coalesce(plan, '[]'), 'revoke access', team);
END
$$;
COMMENT ON FUNCTION imgpipe.revoke_access(name) IS
'Takes back, at once, all that a team role was granted in this database, with its views and default privileges, and returns how many statements it took. The role and its members stay, without rights; create_team_roles() makes the team active again. Raises 42704 for a team, 42501 as apply_access().';
