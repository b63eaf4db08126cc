

/*
 * What the templates say, in terms of the objects that are there, and what the
 * catalogs say; see src/access/.  Both have an object by its quoted name, so
 * that a view can be spoken of before it is made.  Everything is one query over
 * the catalogs, however many objects and roles there are.
 */

CREATE TABLE imgpipe.access_exceptions (
	role_name name NOT NULL,
	kind text NOT NULL,
	schema_name name NOT NULL,
	object text NOT NULL,
	column_name name NOT NULL DEFAULT '',
	privilege text NOT NULL,
	reason text NOT NULL CHECK (reason OPERATOR(pg_catalog.<>) ''),
	until timestamptz NOT NULL,
	allowed_by name NOT NULL DEFAULT CURRENT_USER,
	allowed_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	PRIMARY KEY (role_name, kind, object, column_name, privilege)
);
COMMENT ON TABLE imgpipe.access_exceptions IS
'Privileges that a role has beside the templates, with the reason and an end; see allow_exception().';
COMMENT ON COLUMN imgpipe.access_exceptions.role_name IS 'A role, or PUBLIC.';
SELECT pg_catalog.pg_extension_config_dump('imgpipe.access_exceptions', '');

CREATE FUNCTION imgpipe.access_objects(schemas name[]) RETURNS TABLE (
		kind text, oid oid, schema_name name, name text, arguments text, object text, owner oid, acl aclitem[], relkind "char", partition boolean)
	LANGUAGE sql STABLE STRICT PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT 'schema', n.oid, n.nspname, n.nspname::text, NULL, quote_ident(n.nspname), n.nspowner, coalesce(n.nspacl, acldefault('n', n.nspowner)), NULL::"char", false
		FROM pg_namespace n WHERE n.nspname = ANY (schemas)
	UNION ALL
	SELECT CASE c.relkind WHEN 'S' THEN 'sequence' ELSE 'table' END, c.oid, n.nspname, c.relname::text, NULL, quote_ident(n.nspname) || '.' || quote_ident(c.relname), c.relowner,
			coalesce(c.relacl, acldefault(CASE c.relkind WHEN 'S' THEN 's'::"char" ELSE 'r' END, c.relowner)), c.relkind, c.relispartition
		FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE n.nspname = ANY (schemas) AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
	UNION ALL
	SELECT 'function', p.oid, n.nspname, p.proname::text, oidvectortypes(p.proargtypes),
			quote_ident(n.nspname) || '.' || quote_ident(p.proname) || '(' || oidvectortypes(p.proargtypes) || ')',
			p.proowner, coalesce(p.proacl, acldefault('f', p.proowner)), NULL, false
		FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = ANY (schemas)
$$;
COMMENT ON FUNCTION imgpipe.access_objects(name[]) IS
'The schemas of those names and what is in them: schemas, tables (views, materialized views, foreign tables and partitions, too), sequences and functions, with their quoted names, owners and access control lists.';

CREATE FUNCTION imgpipe.team_schema(schema_name name, role_name name) RETURNS name
	LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
	-- Two long names that begin alike must not become one.
	SELECT (CASE WHEN octet_length(n) < 64 THEN n ELSE left(n, 15) || '_' || md5(n) END)::name
		FROM (SELECT schema_name || '_' || role_name AS n) s
$$;
COMMENT ON FUNCTION imgpipe.team_schema(name, name) IS
'The schema of a team''s views of a schema: schema_role.';

CREATE FUNCTION imgpipe.managed_schemas(only_schema name DEFAULT NULL) RETURNS name[]
	LANGUAGE plpgsql STABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	managed CONSTANT name[] := ARRAY(
		SELECT u.schema_name FROM imgpipe.access_uses u
		UNION SELECT s.schema_name FROM imgpipe.access_schemas s
		UNION SELECT e.schema_name FROM imgpipe.access_exceptions e
		-- What was managed once, for as long as a team has rights there.
		UNION SELECT n.nspname FROM pg_namespace n CROSS JOIN LATERAL aclexplode(n.nspacl) a JOIN pg_roles r ON r.oid = a.grantee
			JOIN imgpipe.access_teams t ON t.role_name = r.rolname
			WHERE NOT EXISTS (SELECT FROM imgpipe.access_views v WHERE v.schema_name = n.nspname));
BEGIN
	IF only_schema IS NULL THEN
		RETURN managed;
	ELSIF only_schema = ANY (managed) THEN
		RETURN ARRAY[only_schema];
	END IF;
	-- Of a name that was written wrongly it must not be said that all is well.
	PERFORM imgpipe.check_schema(only_schema);
	RETURN '{}';
END
$$;
COMMENT ON FUNCTION imgpipe.managed_schemas(name) IS
'The schemas whose rights are declared, those of teams'' views left out. Raises 3F000 for the name of no schema.';

CREATE FUNCTION imgpipe.rules_in_use() RETURNS TABLE (
		role_name name, role_oid oid, prefix text, team text, template text, rule integer, schema_name name, kind text, object text, privileges text[], columns text[],
		masked boolean, row_filter text, future boolean, names jsonb, own_view boolean)
	LANGUAGE sql STABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT t.role_name, o.oid, t.prefix, t.team, r.template, r.rule, u.schema_name, r.kind, coalesce(u.names ->> r.object, r.object), r.privileges,
			CASE WHEN r.columns IS NOT NULL THEN ARRAY(SELECT coalesce(u.names ->> (r.object || '.' || c.name), c.name) FROM unnest(r.columns) WITH ORDINALITY c (name, position) ORDER BY c.position) END,
			r.masked, r.row_filter, r.future, u.names, r.masked OR r.row_filter IS NOT NULL
		FROM imgpipe.access_uses u
			JOIN imgpipe.access_rules r ON (r.template, r.place) = (u.template, u.place)
			JOIN imgpipe.access_teams t ON (t.prefix, t.team) = (u.prefix, r.team)
			JOIN pg_roles o ON o.rolname = t.role_name
		WHERE t.active
$$;
COMMENT ON FUNCTION imgpipe.rules_in_use() IS
'The rules of the templates in use, for the team roles that are there and active, with the names that objects and columns have here. own_view: the team gets a view of its own, and nothing on the object.';

/*
 * In a schema of thousands of tables most are alike: the same rules are about
 * them, and the same was granted on them.  What is to be done is found out for
 * one of each kind, and done to all of it.
 */
CREATE FUNCTION imgpipe.alike_objects(only_schema name DEFAULT NULL) RETURNS TABLE (
		kind text, oid oid, schema_name name, object text, owner oid, acl aclitem[], relkind "char", partition boolean, as_shipped boolean, wanted text[], objects text[])
	LANGUAGE sql STABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
	SET enable_nestloop = off
	SET jit = off
AS $$
	WITH objects AS MATERIALIZED (
		SELECT o.*, false AS of_team FROM imgpipe.access_objects(imgpipe.managed_schemas(only_schema)) o
		UNION ALL
		SELECT o.*, true FROM imgpipe.access_objects(ARRAY(SELECT DISTINCT v.schema_name FROM imgpipe.access_views v WHERE only_schema IS NULL OR v.base_schema = only_schema)) o),
	names AS MATERIALIZED (
		SELECT r.schema_name, r.kind, r.object, imgpipe.name_pattern(r.object) AS pattern, bool_or(r.own_view OR r.columns IS NOT NULL) AS special
			FROM imgpipe.rules_in_use() r GROUP BY r.schema_name, r.kind, r.object),
	matches AS MATERIALIZED (
		SELECT o.kind, o.oid, array_agg(n.object ORDER BY n.object) AS wanted, bool_or(n.special) AS special
			FROM objects o JOIN names n ON n.schema_name = o.schema_name AND n.kind = o.kind AND NOT o.partition
				AND (o.kind = 'schema' OR o.name ~ n.pattern OR (o.kind = 'function' AND o.name || '(' || o.arguments || ')' = n.object))
			GROUP BY o.kind, o.oid),
	seen AS MATERIALIZED (
		SELECT o.*, m.wanted, d.objid IS NOT NULL AND i.objoid IS NULL AS as_shipped,
				-- What is said of its columns, or of it alone, is of this object alone.
				CASE WHEN o.of_team OR o.kind = 'schema' OR m.special OR c.attrelid IS NOT NULL OR e.object IS NOT NULL THEN o.oid END AS itself
			FROM objects o
				LEFT JOIN matches m ON m.kind = o.kind AND m.oid = o.oid
				LEFT JOIN (SELECT DISTINCT a.attrelid FROM pg_attribute a WHERE a.attacl IS NOT NULL) c ON o.kind = 'table' AND c.attrelid = o.oid
				LEFT JOIN (SELECT DISTINCT x.kind, x.object FROM imgpipe.access_exceptions x) e ON e.kind = o.kind AND e.object = o.object
				LEFT JOIN pg_depend d ON d.deptype = 'e' AND d.objid = o.oid
					AND d.classid = CASE o.kind WHEN 'function' THEN 'pg_proc'::regclass WHEN 'schema' THEN 'pg_namespace'::regclass ELSE 'pg_class'::regclass END
				LEFT JOIN pg_init_privs i ON i.objoid = o.oid AND i.classoid = d.classid AND i.objsubid = 0),
	classes AS (
		-- By hashing: access control lists have no order, and hundreds of entries.
		SELECT s.kind, min(s.oid) AS oid, array_agg(s.object) AS objects
			FROM seen s GROUP BY s.kind, s.schema_name, s.owner, s.acl, s.partition, s.as_shipped, s.wanted, s.itself)
	SELECT s.kind, s.oid, s.schema_name, s.object, s.owner, s.acl, s.relkind, s.partition, s.as_shipped, s.wanted, c.objects
		FROM classes c JOIN seen s ON s.kind = c.kind AND s.oid = c.oid
$$;
COMMENT ON FUNCTION imgpipe.alike_objects(name) IS
'One of each set of objects, in the managed schemas and those of teams'' views, that the same rules (wanted: by these names) are about and that have the same owner and access control list; objects: the set. as_shipped: it came with an extension that granted nothing on it.';

CREATE FUNCTION imgpipe.rule_matches(only_schema name DEFAULT NULL) RETURNS TABLE (
		role_name name, role_oid oid, template text, rule integer, kind text, schema_name name, object text, oid oid, owner oid, privileges text[], columns text[],
		masked boolean, row_filter text, names jsonb, own_view boolean)
	LANGUAGE sql STABLE PARALLEL SAFE ROWS 100000
	SET search_path = pg_catalog, pg_temp
	SET enable_nestloop = off
AS $$
	-- (No nested loops: the planner cannot know how many rules and objects there are.)
	SELECT r.role_name, r.role_oid, r.template, r.rule, r.kind, r.schema_name, o.object, o.oid, o.owner, r.privileges, r.columns, r.masked, r.row_filter, r.names, r.own_view
		FROM imgpipe.rules_in_use() r
			JOIN (SELECT a.*, w.name FROM imgpipe.alike_objects(only_schema) a CROSS JOIN LATERAL unnest(a.wanted) w (name)) o
				ON o.schema_name = r.schema_name AND o.kind = r.kind AND o.name = r.object
		WHERE only_schema IS NULL OR r.schema_name = only_schema
$$;
COMMENT ON FUNCTION imgpipe.rule_matches(name) IS
'Each rule in use with each object that it is about, of objects that are alike with one; partitions are left out.';


/* The views of teams. */

CREATE FUNCTION imgpipe.filter_condition(row_filter text, base oid, names jsonb, table_name text, prefix_uses jsonb) RETURNS text
	LANGUAGE plpgsql STABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	parts CONSTANT text[] := imgpipe.filter_parts(row_filter);
	filtered CONSTANT text := coalesce((SELECT e.value FROM jsonb_each_text(names) e WHERE split_part(e.key, '.', 2) = parts[2]
		AND coalesce(names ->> split_part(e.key, '.', 1), split_part(e.key, '.', 1)) = table_name), parts[2]);
	type oid;
	other regclass;
	other_column text;
BEGIN
	SELECT a.atttypid INTO type FROM pg_attribute a WHERE a.attrelid = base AND a.attname = filtered AND a.attnum > 0 AND NOT a.attisdropped;
	IF parts[1] = 'own' AND type = ANY ('{text,varchar,name}'::regtype[]) THEN
		RETURN format('b.%I::pg_catalog.text OPERATOR(pg_catalog.=) SESSION_USER::pg_catalog.text', filtered);
	ELSIF parts[1] = 'flag' AND type = 'boolean'::regtype THEN
		RETURN format('b.%I', filtered);
	ELSIF parts[1] = 'recent' AND type = 'timestamptz'::regtype THEN
		RETURN format('b.%I OPERATOR(pg_catalog.>) (pg_catalog.now() OPERATOR(pg_catalog.-) %L::pg_catalog.interval)', filtered, parts[3] || ' ' || parts[4]);
	ELSIF parts[1] = 'referenced' THEN
		other := to_regclass(format('%I.%I', prefix_uses ->> coalesce(parts[3], 'sales'), coalesce(names ->> parts[4], parts[4])));
		other_column := coalesce(names ->> (parts[4] || '.' || parts[5]), parts[5]);
		IF type = ANY ('{uuid,bigint,integer,text}'::regtype[])
			AND EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = other AND a.attname = other_column AND a.atttypid = type AND NOT a.attisdropped) THEN
			RETURN format('EXISTS (SELECT FROM %s o WHERE o.%I OPERATOR(pg_catalog.=) b.%I)', other, other_column, filtered);
		END IF;
	END IF;
	RETURN NULL;
END
$$;
COMMENT ON FUNCTION imgpipe.filter_condition(text, oid, jsonb, text, jsonb) IS
'The condition, on rows b, of a row filter; NULL where the columns that it needs are not there or of other types.';

CREATE FUNCTION imgpipe.team_views(only_schema name DEFAULT NULL) RETURNS TABLE (
		role_name name, role_oid oid, base_schema name, base oid, base_object text, owner name, schema_name name, view_name name, privileges text[], definition text, problem text)
	LANGUAGE plpgsql STABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
	RETURN QUERY
	WITH wanted AS (
		-- Of several rules for one table the first decides.
		SELECT DISTINCT ON (m.role_oid, m.oid) m.*, c.relname, n.nspowner, r.prefix, c.relrowsecurity,
				EXISTS (SELECT FROM imgpipe.partitioned_tables p WHERE p.parent = c.oid) AS fenced,
				c.relkind = 'v' AND c.reloptions::text ~ 'security_invoker=(true|on|1|yes)' AS invoker
			FROM imgpipe.rule_matches(only_schema) m
				JOIN pg_class c ON c.oid = m.oid JOIN pg_namespace n ON n.oid = c.relnamespace
				JOIN imgpipe.access_teams r ON r.role_name = m.role_name
			WHERE m.own_view AND m.kind = 'table'
			ORDER BY m.role_oid, m.oid, m.template, m.rule),
	listed AS (
		SELECT w.role_oid, w.oid, string_agg(imgpipe.masked_expression(a.attname, CASE WHEN w.masked THEN
					-- The nearest says it: for this table by hand, the template; each for the column, then for all.
					coalesce(k.mask, s.mask, d.mask, e.mask, 'none') ELSE 'none' END, a.atttypid, w.schema_name),
				', ' ORDER BY coalesce(array_position(w.columns, a.attname::text), 0), a.attnum) AS columns
			FROM wanted w
				JOIN pg_attribute a ON a.attrelid = w.oid AND a.attnum > 0 AND NOT a.attisdropped AND (w.columns IS NULL OR a.attname = ANY (w.columns))
				LEFT JOIN imgpipe.access_masks k ON (k.schema_name, k.table_name, k.column_name) = (w.schema_name, w.relname, a.attname)
				LEFT JOIN imgpipe.access_masks s ON (s.schema_name, s.table_name, s.column_name) = (w.schema_name, w.relname, '*')
				LEFT JOIN LATERAL (SELECT t.mask FROM imgpipe.template_masks t WHERE t.template = w.template AND t.column_name <> '*'
					AND coalesce(w.names ->> t.table_name, t.table_name) = w.relname
					AND coalesce(w.names ->> (t.table_name || '.' || t.column_name), t.column_name) = a.attname LIMIT 1) d ON true
				LEFT JOIN LATERAL (SELECT t.mask FROM imgpipe.template_masks t WHERE t.template = w.template AND t.column_name = '*'
					AND coalesce(w.names ->> t.table_name, t.table_name) = w.relname LIMIT 1) e ON true
			GROUP BY w.role_oid, w.oid),
	filtered AS (
		SELECT w.*, imgpipe.filter_condition(w.row_filter, w.oid, w.names, w.relname,
				(SELECT jsonb_object_agg(u.place, u.schema_name) FROM imgpipe.access_uses u WHERE (u.prefix, u.template) = (w.prefix, w.template))) AS condition
			FROM wanted w)
	SELECT f.role_name, f.role_oid, f.schema_name, f.oid, f.object, pg_get_userbyid(f.nspowner), imgpipe.team_schema(f.schema_name, f.role_name), f.relname, f.privileges,
			format('CREATE VIEW %I.%I WITH (security_barrier = true) AS SELECT %s FROM %s b',
				imgpipe.team_schema(f.schema_name, f.role_name), f.relname, l.columns, f.object)
				-- The owner of the view is above the policies of images, fence and horizon: the view has them itself.
				|| coalesce(' WHERE ' || nullif(concat_ws(' AND ', CASE WHEN f.fenced THEN 'b.image_id OPERATOR(pg_catalog.>=) imgpipe.fence()'
					|| CASE WHEN f.privileges && '{INSERT,UPDATE}' THEN ' AND b.image_id OPERATOR(pg_catalog.<) imgpipe.horizon()' ELSE '' END END, f.condition), ''), '')
				|| CASE WHEN f.privileges && '{INSERT,UPDATE}' AND (f.fenced OR f.condition IS NOT NULL) THEN ' WITH CASCADED CHECK OPTION' ELSE '' END,
			CASE WHEN l.columns IS NULL THEN 'none of its columns is there'
				WHEN f.row_filter IS NOT NULL AND f.condition IS NULL THEN format('the row filter %s does not fit its columns', f.row_filter)
				WHEN position('imgpipe.mask_keys' IN l.columns) > 0 AND NOT has_table_privilege(f.nspowner, 'imgpipe.mask_keys', 'SELECT')
					THEN format('the owner of its schema cannot read the key of the mask hash: GRANT SELECT ON imgpipe.mask_keys TO %I;', pg_get_userbyid(f.nspowner))
				WHEN f.relrowsecurity AND NOT f.fenced THEN 'its row-level security would not hold for the readers of a view'
				WHEN f.invoker THEN 'it is a view with security_invoker, which reads with the rights of the team' END
		FROM filtered f LEFT JOIN listed l ON (l.role_oid, l.oid) = (f.role_oid, f.oid);
END
$$;
COMMENT ON FUNCTION imgpipe.team_views(name) IS
'The views that teams are to have, and how each is made; problem says why one cannot be.';


CREATE FUNCTION imgpipe.declared_rights(only_schema name DEFAULT NULL) RETURNS TABLE (
		role_name name, role_oid oid, kind text, schema_name name, object text, column_name name, privilege text, owner name, because text)
	LANGUAGE sql STABLE PARALLEL SAFE ROWS 100000
	SET search_path = pg_catalog, pg_temp
	SET enable_nestloop = off
	SET jit = off
AS $$
	WITH matches AS MATERIALIZED (SELECT * FROM imgpipe.rule_matches(only_schema)),
	views AS MATERIALIZED (SELECT * FROM imgpipe.team_views(only_schema) v WHERE v.problem IS NULL),
	possible AS MATERIALIZED (SELECT k.kind, imgpipe.privileges_of(k.kind) AS privileges FROM unnest('{schema,table,sequence,function}'::text[]) k (kind)),
	declared AS MATERIALIZED (
		SELECT m.role_name, m.role_oid, m.kind, m.schema_name, m.object, coalesce(a.attname, '') AS column_name, p.privilege, m.owner,
				format('rule %s of %s', m.rule, m.template) AS because
			FROM matches m JOIN possible k ON k.kind = m.kind CROSS JOIN LATERAL unnest(m.privileges) p (privilege)
				LEFT JOIN LATERAL unnest(m.columns) c (name) ON true
				LEFT JOIN pg_attribute a ON a.attrelid = m.oid AND a.attname = c.name AND a.attnum > 0 AND NOT a.attisdropped
			WHERE NOT m.own_view AND (m.columns IS NULL OR a.attname IS NOT NULL) AND p.privilege = ANY (k.privileges)
		UNION ALL
		SELECT v.role_name, v.role_oid, 'table', v.schema_name, quote_ident(v.schema_name) || '.' || quote_ident(v.view_name), '', p.privilege, n.nspowner, 'view of ' || v.base_object
			FROM views v CROSS JOIN LATERAL unnest(v.privileges) p (privilege) JOIN pg_namespace n ON n.nspname = v.base_schema
		UNION ALL
		SELECT DISTINCT m.role_name, m.role_oid, 'schema', m.schema_name, quote_ident(m.schema_name), ''::name, 'USAGE', n.nspowner, 'something in it'
			FROM matches m JOIN pg_namespace n ON n.nspname = m.schema_name WHERE NOT m.own_view
		UNION ALL
		SELECT DISTINCT v.role_name, v.role_oid, 'schema', v.schema_name, quote_ident(v.schema_name), ''::name, 'USAGE', n.nspowner, 'something in it'
			FROM views v JOIN pg_namespace n ON n.nspname = v.base_schema
		UNION ALL
		SELECT e.role_name, coalesce(r.oid, 0), e.kind, e.schema_name, e.object, e.column_name, e.privilege, o.owner, format('exception until %s: %s', e.until, e.reason)
			FROM imgpipe.access_exceptions e LEFT JOIN pg_roles r ON r.rolname = e.role_name
				JOIN imgpipe.access_objects(ARRAY(SELECT x.schema_name FROM imgpipe.access_exceptions x)) o ON o.kind = e.kind AND o.object = e.object
			WHERE e.until > imgpipe.scheduler_clock() AND (r.oid IS NOT NULL OR e.role_name = 'public') AND (only_schema IS NULL OR e.schema_name = only_schema))
	SELECT d.role_name, d.role_oid, d.kind, d.schema_name, d.object, d.column_name, d.privilege, pg_get_userbyid(d.owner), min(d.because)
		FROM declared d
			-- What is for the whole table is not also for its columns.
			LEFT JOIN declared w ON d.column_name <> '' AND w.column_name = ''
				AND (w.role_oid, w.kind, w.object, w.privilege) = (d.role_oid, d.kind, d.object, d.privilege)
		WHERE w.role_oid IS NULL
		GROUP BY d.role_name, d.role_oid, d.kind, d.schema_name, d.object, d.column_name, d.privilege, d.owner
$$;
COMMENT ON FUNCTION imgpipe.declared_rights(name) IS
'As declared_access(), of objects that are alike for one.';

CREATE FUNCTION imgpipe.declared_access(only_schema name DEFAULT NULL) RETURNS TABLE (
		role_name name, role_oid oid, kind text, schema_name name, object text, column_name name, privilege text, owner name, because text)
	LANGUAGE sql STABLE PARALLEL SAFE ROWS 100000
	SET search_path = pg_catalog, pg_temp
	SET enable_nestloop = off
	SET jit = off
AS $$
	SELECT d.role_name, d.role_oid, d.kind, d.schema_name, o.object, d.column_name, d.privilege, d.owner, d.because
		FROM imgpipe.declared_rights(only_schema) d LEFT JOIN imgpipe.alike_objects(only_schema) a ON a.kind = d.kind AND a.object = d.object
			CROSS JOIN LATERAL unnest(coalesce(a.objects, ARRAY[d.object])) o (object)
$$;
COMMENT ON FUNCTION imgpipe.declared_access(name) IS
'What the templates in use and the exceptions give, in one schema or in all: one row a role, object, column (empty: the whole object) and privilege. object is the quoted name, of a function with its argument types; the views of teams are there also before they are made.';

CREATE FUNCTION imgpipe.actual_rights(only_schema name DEFAULT NULL) RETURNS TABLE (
		kind text, schema_name name, object text, column_name name, owner oid, grantee oid, grantor oid, privilege text, grantable boolean, partition boolean,
		as_shipped boolean, objects text[])
	LANGUAGE sql STABLE PARALLEL SAFE ROWS 100000
	SET search_path = pg_catalog, pg_temp
	SET jit = off
AS $$
	WITH objects AS MATERIALIZED (SELECT * FROM imgpipe.alike_objects(only_schema))
	SELECT o.kind, o.schema_name, o.object, ''::name, o.owner, a.grantee, a.grantor, a.privilege_type, a.is_grantable, o.partition, o.as_shipped, o.objects
		FROM objects o CROSS JOIN LATERAL aclexplode(o.acl) a
	UNION ALL
	SELECT o.kind, o.schema_name, o.object, c.attname, o.owner, a.grantee, a.grantor, a.privilege_type, a.is_grantable, o.partition, o.as_shipped, o.objects
		FROM objects o JOIN pg_attribute c ON c.attrelid = o.oid CROSS JOIN LATERAL aclexplode(c.attacl) a
		WHERE o.kind = 'table' AND c.attacl IS NOT NULL AND NOT c.attisdropped
$$;
COMMENT ON FUNCTION imgpipe.actual_rights(name) IS
'As actual_access(), of objects that are alike for one; objects: all of them.';

CREATE FUNCTION imgpipe.actual_access(only_schema name DEFAULT NULL) RETURNS TABLE (
		kind text, schema_name name, object text, column_name name, owner oid, grantee oid, grantor oid, privilege text, grantable boolean, partition boolean)
	LANGUAGE sql STABLE PARALLEL SAFE ROWS 100000
	SET search_path = pg_catalog, pg_temp
	SET jit = off
AS $$
	SELECT a.kind, a.schema_name, o.object, a.column_name, a.owner, a.grantee, a.grantor, a.privilege, a.grantable, a.partition
		FROM imgpipe.actual_rights(only_schema) a CROSS JOIN LATERAL unnest(a.objects) o (object)
$$;
COMMENT ON FUNCTION imgpipe.actual_access(name) IS
'What the access control lists say of the managed schemas, or of one and the views of teams on it: one row a grant. grantee 0 is PUBLIC.';
