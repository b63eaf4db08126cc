

/*
 * Where rights are not as declared, and what a plan cannot mend; see
 * src/access/.  GRANT fires event triggers without saying on what, and a change
 * of membership fires none: drift is found by looking.
 */

CREATE FUNCTION imgpipe.forget_role(role oid, kind text, object text, column_name name) RETURNS text
	LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT format('No statement can name a role that is gone. As a superuser: UPDATE pg_catalog.%s SET %s = nullif(ARRAY(SELECT i FROM unnest(%2$s) i WHERE NOT EXISTS (SELECT FROM aclexplode(ARRAY[i]) e WHERE %s IN (e.grantee, e.grantor))), ''{}'') WHERE %s;',
		CASE WHEN column_name <> '' THEN 'pg_attribute' WHEN kind = 'schema' THEN 'pg_namespace' WHEN kind = 'function' THEN 'pg_proc' ELSE 'pg_class' END,
		CASE WHEN column_name <> '' THEN 'attacl' WHEN kind = 'schema' THEN 'nspacl' WHEN kind = 'function' THEN 'proacl' ELSE 'relacl' END,
		role,
		CASE WHEN column_name <> '' THEN format('attrelid = %L::regclass AND attname = %L', object, column_name)
			ELSE format('oid = %L::%s', object, CASE kind WHEN 'schema' THEN 'regnamespace' WHEN 'function' THEN 'regprocedure' ELSE 'regclass' END) END)
$$;
COMMENT ON FUNCTION imgpipe.forget_role(oid, text, text, name) IS
'What takes a role that is gone out of an access control list; GRANT at the same time as DROP ROLE can leave it there.';

CREATE FUNCTION imgpipe.access_drift(only_schema name DEFAULT NULL) RETURNS TABLE (
		kind text, object text, role_name name, privilege text, detail text, what_to_do text)
	LANGUAGE plpgsql STABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
	SET jit = off
	SET enable_nestloop = off
AS $$
#variable_conflict use_column
DECLARE
	apply CONSTANT text := 'Apply the plan.';
	managed CONSTANT name[] := imgpipe.managed_schemas(only_schema);
BEGIN
	-- What a plan mends.
	RETURN QUERY
	SELECT CASE WHEN c.change = 'grant' THEN 'missing' ELSE split_part(c.reason, ',', 1) END,
			o.object || CASE c.column_name WHEN '' THEN '' ELSE format(' (%I)', c.column_name) END,
			CASE WHEN c.role_oid = 0 OR g.oid IS NOT NULL THEN c.role_name ELSE format('dropped role %s', c.role_oid)::name END, c.privilege,
			nullif(concat_ws(', ', c.kind, CASE WHEN c.grantor IS NOT NULL THEN format('granted by %s', coalesce(quote_ident(r.rolname), format('the dropped role %s', c.grantor))) END,
				nullif(substr(c.reason, length(split_part(c.reason, ',', 1)) + 3), '')), ''),
			CASE WHEN c.grantor IS NOT NULL AND r.oid IS NULL THEN imgpipe.forget_role(c.grantor, c.kind, o.object, c.column_name)
				WHEN c.role_oid <> 0 AND g.oid IS NULL THEN imgpipe.forget_role(c.role_oid, c.kind, o.object, c.column_name)
				ELSE apply END
		FROM imgpipe.access_changes(only_schema) c LEFT JOIN pg_roles r ON r.oid = c.grantor LEFT JOIN pg_roles g ON g.oid = c.role_oid
			LEFT JOIN imgpipe.alike_objects(only_schema) a ON a.kind = c.kind AND a.object = c.object
			CROSS JOIN LATERAL unnest(coalesce(a.objects, ARRAY[c.object])) o (object)
		WHERE c.reason <> 'goes with the table''s';
	RETURN QUERY SELECT 'view', quote_ident(v.schema_name) || coalesce('.' || quote_ident(v.view_name), ''), NULL::name, NULL, v.change, apply FROM imgpipe.view_changes(only_schema) v;
	RETURN QUERY SELECT 'default privileges', format('%ss of %I in %I', d.kind, d.creator, d.schema_name), d.role_name, d.privilege, d.reason, apply FROM imgpipe.default_changes(only_schema) d;
	RETURN QUERY SELECT 'membership', quote_ident(m.role_name), m.member, NULL, m.reason, apply FROM imgpipe.membership_changes() m WHERE only_schema IS NULL;

	-- What it leaves alone: grants to others where templates do not decide alone.
	RETURN QUERY
	WITH beside AS MATERIALIZED (
		SELECT a.*, r.rolname FROM imgpipe.actual_rights(only_schema) a
			LEFT JOIN pg_roles r ON r.oid = a.grantee
			LEFT JOIN imgpipe.declared_rights(only_schema) d ON (d.role_oid, d.kind, d.object, d.column_name, d.privilege) = (a.grantee, a.kind, a.object, a.column_name, a.privilege)
			WHERE a.grantee <> a.owner AND d.privilege IS NULL
				-- What comes with an extension is as its author wanted it.
				AND NOT (a.as_shipped AND a.grantee = 0 AND a.kind = 'function')
				AND a.schema_name NOT IN (SELECT s.schema_name FROM imgpipe.access_schemas s WHERE s.authoritative)
				AND coalesce(r.rolname, '') NOT IN (SELECT t.role_name FROM imgpipe.access_teams t))
	SELECT CASE b.grantee WHEN 0 THEN 'PUBLIC' ELSE 'beside' END, o.object || CASE b.column_name WHEN '' THEN '' ELSE format(' (%I)', b.column_name) END,
			CASE b.grantee WHEN 0 THEN 'public' ELSE coalesce(b.rolname, format('dropped role %s', b.grantee)::name) END, b.privilege,
			CASE WHEN b.grantee IN (SELECT m.member FROM pg_auth_members m JOIN pg_roles t ON t.oid = m.roleid JOIN imgpipe.access_teams x ON x.role_name = t.rolname)
				THEN 'granted to a member of a team, and not by a template' ELSE 'granted, and not by a template' END,
			CASE WHEN b.rolname IS NULL AND b.grantee <> 0 THEN imgpipe.forget_role(b.grantee, b.kind, o.object, b.column_name)
				ELSE format('Revoke it, allow it with imgpipe.allow_exception(), or let templates decide alone: SELECT imgpipe.set_authoritative(%L);', b.schema_name) END
		FROM beside b CROSS JOIN LATERAL unnest(b.objects) o (object);

	-- Rights that no grant gives.
	RETURN QUERY
	WITH RECURSIVE people AS (
		SELECT r.oid, r.rolname AS team FROM imgpipe.access_teams t JOIN pg_roles r ON r.rolname = t.role_name
		UNION SELECT m.member, p.team FROM people p JOIN pg_auth_members m ON m.roleid = p.oid
			WHERE coalesce((to_jsonb(m) ->> 'inherit_option')::boolean, true) OR coalesce((to_jsonb(m) ->> 'set_option')::boolean, true)),
	persons AS MATERIALIZED (SELECT r.oid, r.rolname, string_agg(p.team, ', ' ORDER BY p.team) AS teams, bool_or(r.rolname = p.team) AS is_team,
			bool_or(r.rolsuper) AS super, bool_or(r.rolbypassrls) AS bypass, bool_or(r.rolcreaterole) AS createrole, bool_or(r.rolcanlogin) AS login
		FROM people p JOIN pg_roles r ON r.oid = p.oid GROUP BY r.oid, r.rolname)
	SELECT v.kind, quote_ident(p.rolname), p.rolname, v.attribute, 'in team ' || p.teams, format('ALTER ROLE %I NO%s;', p.rolname, v.attribute)
		FROM persons p CROSS JOIN LATERAL (VALUES ('superuser', 'SUPERUSER', p.super), ('BYPASSRLS', 'BYPASSRLS', p.bypass),
			('role attribute', 'CREATEROLE', p.createrole AND p.is_team), ('role attribute', 'LOGIN', p.login AND p.is_team)) v (kind, attribute, has)
		WHERE v.has AND only_schema IS NULL
	UNION ALL
	SELECT 'ownership', o.object, p.rolname, 'ALL', format('%s owned by a role in team %s', o.kind, p.teams),
			format('ALTER %s %s OWNER TO %I;', CASE o.kind WHEN 'function' THEN 'ROUTINE' ELSE upper(o.kind) END, o.object, pg_get_userbyid(n.nspowner))
		FROM imgpipe.access_objects(managed) o JOIN persons p ON p.oid = o.owner JOIN pg_namespace n ON n.nspname = o.schema_name;
	RETURN QUERY
	SELECT 'ownership', o.object, pg_get_userbyid(o.owner), 'ALL', format('not owned by the owner of the schema, %I: may grant and revoke on it', pg_get_userbyid(n.nspowner)),
			format('ALTER %s %s OWNER TO %I;', CASE o.kind WHEN 'function' THEN 'ROUTINE' ELSE upper(o.kind) END, o.object, pg_get_userbyid(n.nspowner))
		FROM imgpipe.access_objects(managed) o JOIN pg_namespace n ON n.nspname = o.schema_name
		WHERE o.owner <> n.nspowner;

	-- Row-level security, and functions that lend rights.
	RETURN QUERY
	SELECT DISTINCT 'policies', quote_ident(n.nspname) || '.' || quote_ident(c.relname), NULL::name, NULL, 'there are policies, and row-level security is not enabled',
			format('ALTER TABLE %I.%I ENABLE ROW LEVEL SECURITY;', n.nspname, c.relname)
		FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE n.nspname = ANY (managed) AND NOT c.relrowsecurity;
	RETURN QUERY
	SELECT 'EXECUTE', o.object, d.role_name, 'EXECUTE', 'SECURITY DEFINER without a search_path: the caller chooses what its names mean', format('ALTER ROUTINE %s SET search_path = pg_catalog, pg_temp;', o.object)
		FROM imgpipe.access_objects(managed) o JOIN pg_proc p ON p.oid = o.oid
			JOIN (SELECT x.object, r.role_name FROM imgpipe.declared_rights(only_schema) r JOIN imgpipe.alike_objects(only_schema) a ON a.kind = r.kind AND a.object = r.object
				CROSS JOIN LATERAL unnest(a.objects) x (object) WHERE r.kind = 'function') d ON d.object = o.object
		WHERE o.kind = 'function' AND p.prosecdef AND coalesce(p.proconfig::text, '') !~ 'search_path=';

	-- Templates that mean nothing here.
	RETURN QUERY
	SELECT 'no such role', quote_ident(t.role_name), t.role_name, NULL, format('team %s of %s', t.team, t.prefix),
			format('SELECT imgpipe.create_team_roles(%L, %L);', t.prefix, ARRAY[t.team])
		FROM imgpipe.access_teams t WHERE only_schema IS NULL AND NOT EXISTS (SELECT FROM pg_roles r WHERE r.rolname = t.role_name);
	RETURN QUERY
	SELECT 'no such object', quote_ident(r.schema_name) || '.' || r.object, r.role_name, array_to_string(r.privileges, ', '), format('rule %s of %s: there is no such %s', r.rule, r.template, r.kind),
			'Say what it is called here: names of imgpipe.use_template().'
		FROM imgpipe.rules_in_use() r
		WHERE (only_schema IS NULL OR r.schema_name = only_schema) AND r.object !~ '[*]'
			AND NOT EXISTS (SELECT FROM imgpipe.rule_matches(only_schema) m WHERE (m.role_oid, m.template, m.rule) = (r.role_oid, r.template, r.rule));
	RETURN QUERY
	SELECT 'no such column', m.object || format(' (%I)', c.name), m.role_name, array_to_string(m.privileges, ', '), format('rule %s of %s', m.rule, m.template),
			'Say what it is called here: names of imgpipe.use_template().'
		FROM imgpipe.rule_matches(only_schema) m CROSS JOIN LATERAL unnest(m.columns) c (name)
			LEFT JOIN pg_attribute a ON a.attrelid = m.oid AND a.attname = c.name AND a.attnum > 0 AND NOT a.attisdropped
		WHERE a.attname IS NULL;
	RETURN QUERY SELECT 'policies', v.base_object, v.role_name, array_to_string(v.privileges, ', '), 'no view for the team: ' || v.problem, 'Change the rule, or the table.'
		FROM imgpipe.team_views(only_schema) v WHERE v.problem IS NOT NULL;
	RETURN QUERY
	SELECT 'default privileges', quote_ident(s.name), NULL::name, NULL, 'rules with future are in use, and no creators are named: what is made later is missing until the next apply',
			format('SELECT imgpipe.name_creator(%L, ''role that makes objects there'');', s.name)
		FROM (SELECT DISTINCT r.schema_name FROM imgpipe.rules_in_use() r WHERE r.future) s (name)
		WHERE s.name = ANY (managed) AND NOT EXISTS (SELECT FROM imgpipe.access_creators c WHERE c.schema_name = s.name);
END
$$;
COMMENT ON FUNCTION imgpipe.access_drift(name) IS
'Where rights differ from what is declared, in one schema or in all, and what is to be done. Kinds that the plan mends: missing, extra, wrong grantor, grant option, PUBLIC and beside (in authoritative schemas), partition (granted directly, past its parent), view, default privileges, membership. Kinds that it does not: PUBLIC and beside where other grants are left alone; superuser, BYPASSRLS and role attribute of teams and their members; ownership; policies; EXECUTE of functions that lend rights carelessly; no such role, object or column. Tables are partitioned tables, views, materialized views and foreign tables, too. No rows: all is as declared.';
