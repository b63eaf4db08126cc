

/* What a role may do, and by which path; see src/access/.  Anybody may ask: the catalogs are open to all. */

CREATE FUNCTION imgpipe.access_object(object text, OUT kind text, OUT oid oid, OUT schema_name name, OUT identity text) RETURNS record
	LANGUAGE plpgsql STABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	IF object LIKE '%(%' THEN
		SELECT p.oid, n.nspname INTO access_object.oid, access_object.schema_name
			FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE p.oid = to_regprocedure(object);
	ELSE
		SELECT c.oid, n.nspname INTO access_object.oid, access_object.schema_name
			FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = to_regclass(object);
		IF NOT FOUND THEN
			SELECT p.oid, n.nspname INTO access_object.oid, access_object.schema_name
				FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE p.oid = to_regproc(object);
		END IF;
		IF NOT FOUND AND cardinality(parse_ident(object)) = 1 THEN
			SELECT n.oid, n.nspname INTO access_object.oid, access_object.schema_name
				FROM pg_namespace n WHERE n.oid = to_regnamespace(object);
		END IF;
	END IF;
	SELECT o.kind, o.object INTO access_object.kind, identity
		FROM imgpipe.access_objects(ARRAY[access_object.schema_name]) o WHERE o.oid = access_object.oid;
	IF access_object.kind IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'undefined_object',
			MESSAGE = format('object %s does not exist', coalesce('"' || object || '"', 'NULL')),
			HINT = 'Give a table, view or sequence as schema.name, a function as schema.name(types), or a schema by its name.';
	END IF;
END
$$;
COMMENT ON FUNCTION imgpipe.access_object(text) IS
'What is meant by a name: a table, view or sequence (schema.name), a function (schema.name(types), or schema.name where there is one of that name), or a schema. Raises 42704 where there is none.';

CREATE FUNCTION imgpipe.check_role(role_name name) RETURNS oid
	LANGUAGE plpgsql STABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	found_oid oid := (SELECT r.oid FROM pg_roles r WHERE r.rolname = role_name);
BEGIN
	IF found_oid IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'undefined_object',
			MESSAGE = format('role %s does not exist', coalesce('"' || role_name || '"', 'NULL')),
			HINT = 'SELECT rolname FROM pg_roles; shows those that do.';
	END IF;
	RETURN found_oid;
END
$$;
COMMENT ON FUNCTION imgpipe.check_role(name) IS 'The oid of a role. Raises 42704 where there is none.';

CREATE FUNCTION imgpipe.check_privilege(kind text, privilege text) RETURNS text
	LANGUAGE plpgsql STABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	IF (upper(privilege) = ANY (imgpipe.privileges_of(kind))) IS NOT TRUE THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
			MESSAGE = format('a %s has no privilege %s', kind, coalesce('"' || privilege || '"', 'NULL')),
			HINT = format('It has %s.', array_to_string(imgpipe.privileges_of(kind), ', '));
	END IF;
	RETURN upper(privilege);
END
$$;
COMMENT ON FUNCTION imgpipe.check_privilege(text, text) IS
'A privilege in capital letters. Raises 22023 where that kind of object has none of that name.';

CREATE FUNCTION imgpipe.can(role_name name, privilege text, object text, column_name name DEFAULT NULL) RETURNS boolean
	LANGUAGE plpgsql STABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	asked CONSTANT oid := imgpipe.check_role(role_name);
	target record;
BEGIN
	SELECT * INTO target FROM imgpipe.access_object(object);
	privilege := imgpipe.check_privilege(target.kind, privilege);
	IF column_name IS NOT NULL AND NOT EXISTS (
			SELECT FROM pg_attribute a WHERE target.kind = 'table' AND a.attrelid = target.oid AND a.attname = can.column_name AND a.attnum > 0 AND NOT a.attisdropped) THEN
		RAISE EXCEPTION USING ERRCODE = 'undefined_column',
			MESSAGE = format('%s has no column "%s"', target.identity, column_name),
			HINT = 'Only tables, views among them, have columns.';
	END IF;
	IF NOT has_schema_privilege(asked, quote_ident(target.schema_name)::regnamespace, CASE target.kind WHEN 'schema' THEN privilege ELSE 'USAGE' END) THEN
		RETURN false;
	END IF;
	RETURN CASE
		WHEN target.kind = 'schema' THEN true
		WHEN column_name IS NOT NULL AND privilege = ANY ('{SELECT,INSERT,UPDATE,REFERENCES}') THEN has_column_privilege(asked, target.oid, column_name::text, privilege)
		WHEN target.kind = 'table' THEN has_table_privilege(asked, target.oid, privilege)
		WHEN target.kind = 'sequence' THEN has_sequence_privilege(asked, target.oid, privilege)
		ELSE has_function_privilege(asked, target.oid, privilege) END;
END
$$;
COMMENT ON FUNCTION imgpipe.can(name, text, text, name) IS
'Whether a role can use a privilege on an object, or on a column of it, by whatever path, USAGE on its schema included: can(''alice'', ''UPDATE'', ''sales.transactions'', ''status''). Row-level security, which may hide rows, is not asked. object as for access_object(). Raises 42704 for a role or an object, 42703 for a column, 22023 for a privilege.';

CREATE FUNCTION imgpipe.roles_of(role_name name) RETURNS TABLE (oid oid, path text, inherits boolean)
	LANGUAGE sql STABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
	WITH RECURSIVE roles AS (
		SELECT r.oid, quote_ident(r.rolname) AS path, true AS inherits, ARRAY[r.oid] AS passed FROM pg_roles r WHERE r.rolname = role_name
		UNION ALL
		-- Before PostgreSQL 16 it is the member that inherits or not.
		SELECT m.roleid, p.path || ' > ' || quote_ident(pg_get_userbyid(m.roleid)),
				p.inherits AND coalesce((to_jsonb(m) ->> 'inherit_option')::boolean, (SELECT r.rolinherit FROM pg_roles r WHERE r.oid = m.member)), p.passed || m.roleid
			FROM roles p JOIN pg_auth_members m ON m.member = p.oid
			WHERE m.roleid <> ALL (p.passed)
				AND (coalesce((to_jsonb(m) ->> 'inherit_option')::boolean, true) OR coalesce((to_jsonb(m) ->> 'set_option')::boolean, true)))
	SELECT r.oid, r.path, r.inherits FROM roles r
$$;
COMMENT ON FUNCTION imgpipe.roles_of(name) IS
'The role itself and all that it is a member of, by each path. inherits: it has their rights without SET ROLE.';

CREATE FUNCTION imgpipe.explain_access(role_name name, object text) RETURNS TABLE (privilege text, column_name name, by text, path text, granted_by name, remark text)
	LANGUAGE plpgsql STABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
	asked CONSTANT oid := imgpipe.check_role(explain_access.role_name);
	target record;
	holder record;
BEGIN
	SELECT a.*, o.owner, o.acl, o.relkind, o.partition INTO target FROM imgpipe.access_object(explain_access.object) a
		JOIN LATERAL imgpipe.access_objects(ARRAY[a.schema_name]) o ON (o.kind, o.oid) = (a.kind, a.oid);
	RETURN QUERY
	WITH roles AS MATERIALIZED (SELECT * FROM imgpipe.roles_of(explain_access.role_name)
		UNION ALL SELECT 0, 'PUBLIC', true),
	grants AS (
		SELECT g.grantee, g.grantor, g.privilege_type, ''::name AS attname, g.is_grantable FROM aclexplode(target.acl) g
		UNION ALL
		SELECT g.grantee, g.grantor, g.privilege_type, c.attname, g.is_grantable
			FROM pg_attribute c CROSS JOIN LATERAL aclexplode(c.attacl) g WHERE target.kind = 'table' AND c.attrelid = target.oid AND NOT c.attisdropped)
	SELECT 'ALL', ''::name, 'superuser', r.path, NULL::name, CASE WHEN NOT r.inherits OR r.oid <> asked THEN 'after SET ROLE' END
		FROM roles r JOIN pg_roles p ON p.oid = r.oid WHERE p.rolsuper
	UNION ALL
	SELECT 'ALL', '', 'owner', r.path, NULL, CASE WHEN NOT r.inherits THEN 'after SET ROLE' END FROM roles r WHERE r.oid = target.owner
	UNION ALL
	SELECT g.privilege_type, g.attname, CASE WHEN r.oid = 0 THEN 'PUBLIC' WHEN r.oid = asked THEN 'grant' ELSE 'membership' END, r.path, pg_get_userbyid(g.grantor),
			nullif(concat_ws('; ', CASE WHEN NOT r.inherits THEN 'after SET ROLE' END, CASE WHEN g.is_grantable THEN 'may grant it on' END), '')
		FROM grants g JOIN roles r ON r.oid = g.grantee WHERE g.grantee <> target.owner
	UNION ALL
	SELECT v.privilege, '', 'predefined role', r.path, NULL, CASE WHEN NOT r.inherits THEN 'after SET ROLE' END
		FROM roles r JOIN pg_roles p ON p.oid = r.oid
			JOIN (VALUES ('pg_read_all_data', 'table', 'SELECT'), ('pg_read_all_data', 'sequence', 'SELECT'), ('pg_read_all_data', 'schema', 'USAGE'),
				('pg_write_all_data', 'table', 'INSERT'), ('pg_write_all_data', 'table', 'UPDATE'), ('pg_write_all_data', 'table', 'DELETE'),
				('pg_write_all_data', 'sequence', 'USAGE'), ('pg_write_all_data', 'sequence', 'UPDATE'), ('pg_write_all_data', 'schema', 'USAGE'),
				('pg_maintain', 'table', 'MAINTAIN')) v (role, kind, privilege) ON v.role = p.rolname AND v.kind = target.kind
	UNION ALL
	-- A view reads with the rights of its owner, unless it is a security_invoker.
	SELECT DISTINCT g.privilege_type, ''::name, 'view ' || d.name, r.path, pg_get_userbyid(g.grantor), 'what the view shows of it'
		FROM (SELECT DISTINCT c.oid, quote_ident(n.nspname) || '.' || quote_ident(c.relname) AS name, c.relowner, c.relnamespace, coalesce(c.relacl, acldefault('r', c.relowner)) AS acl
				FROM pg_depend x JOIN pg_rewrite w ON w.oid = x.objid JOIN pg_class c ON c.oid = w.ev_class JOIN pg_namespace n ON n.oid = c.relnamespace
				WHERE x.classid = 'pg_rewrite'::regclass AND x.refclassid = 'pg_class'::regclass AND x.refobjid = target.oid AND c.oid <> target.oid
					AND target.kind = 'table' AND (c.reloptions::text ~ 'security_invoker=(true|on|1|yes)') IS NOT TRUE) d
			CROSS JOIN LATERAL aclexplode(d.acl) g JOIN roles r ON r.oid = g.grantee
		WHERE g.grantee <> d.relowner AND g.privilege_type IN ('SELECT', 'INSERT', 'UPDATE', 'DELETE')
	UNION ALL
	SELECT 'none', '', 'schema', NULL, NULL, format('without USAGE on schema %I what is granted cannot be used', target.schema_name)
		WHERE target.kind <> 'schema' AND NOT has_schema_privilege(asked, quote_ident(target.schema_name)::regnamespace, 'USAGE')
	UNION ALL
	SELECT 'none', '', 'policies', NULL, NULL, 'row-level security: policies say which rows' || CASE WHEN (SELECT bool_or(p.rolbypassrls) FROM pg_roles p WHERE p.oid = asked) THEN '; the role has BYPASSRLS' ELSE '' END
		FROM pg_class c WHERE target.kind = 'table' AND c.oid = target.oid AND c.relrowsecurity
	ORDER BY 1, 2, 3, 4;
END
$$;
COMMENT ON FUNCTION imgpipe.explain_access(name, text) IS
'Every path by which a role has a privilege on an object: as a superuser or owner, by a grant to itself, to a role that it is a member of (path: the chain) or to PUBLIC, by a predefined role, or through a view that reads with its owner''s rights. granted_by: the grantor. Rows with privilege none say what stands in the way. What functions with SECURITY DEFINER do for their callers cannot be seen. object as for access_object(). Raises 42704 for a role or an object.';
