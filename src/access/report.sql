

/* Who may do what, for people to read; see src/access/. */

CREATE FUNCTION imgpipe.access_report(only_schema name DEFAULT NULL) RETURNS TABLE (
		role_name name, kind text, object text, privilege text, columns text, state text)
	LANGUAGE sql STABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
	SET jit = off
	SET enable_nestloop = off
AS $$
	WITH teams AS MATERIALIZED (SELECT t.role_name, r.oid FROM imgpipe.access_teams t JOIN pg_roles r ON r.rolname = t.role_name),
	rights AS (
		SELECT coalesce(d.role_name, t.role_name) AS role_name, coalesce(d.kind, a.kind) AS kind, coalesce(d.object, a.object) AS object,
				coalesce(d.privilege, a.privilege) AS privilege, coalesce(d.column_name, a.column_name) AS column_name,
				CASE WHEN a.privilege IS NULL THEN 'missing' WHEN d.privilege IS NULL THEN 'extra' ELSE 'granted' END AS state
			FROM imgpipe.declared_access(only_schema) d
				FULL JOIN (SELECT DISTINCT o.kind, o.object, o.column_name, o.privilege, o.grantee FROM imgpipe.actual_access(only_schema) o
						WHERE o.grantee IN (SELECT t.oid FROM teams t)) a
					ON a.grantee = d.role_oid AND a.kind = d.kind AND a.object = d.object AND a.column_name = d.column_name AND a.privilege = d.privilege
				LEFT JOIN teams t ON t.oid = a.grantee
			WHERE t.oid IS NOT NULL OR d.role_oid IN (SELECT x.oid FROM teams x))
	SELECT r.role_name, r.kind, r.object, r.privilege, nullif(string_agg(nullif(r.column_name, ''), ', ' ORDER BY r.column_name), ''), r.state
		FROM rights r GROUP BY r.role_name, r.kind, r.object, r.privilege, r.state, r.column_name = ''
		ORDER BY r.role_name, r.object, r.privilege
$$;
COMMENT ON FUNCTION imgpipe.access_report(name) IS
'What each team may do, in one schema or in all: one row a team role, object and privilege, with the columns that it is for (NULL: all). state: granted; missing: declared, and not granted yet; extra: granted, and not declared.';

CREATE FUNCTION imgpipe.access_cells(only_schema name DEFAULT NULL) RETURNS TABLE (prefix text, team text, object text, cell text)
	LANGUAGE sql STABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT t.prefix, t.team, r.object, string_agg(l.letter || CASE WHEN r.columns IS NOT NULL THEN '*' ELSE '' END
			|| CASE r.state WHEN 'missing' THEN '?' WHEN 'extra' THEN '!' ELSE '' END, '' ORDER BY l.place)
		FROM imgpipe.access_report(only_schema) r JOIN imgpipe.access_teams t ON t.role_name = r.role_name
			JOIN unnest('{SELECT,INSERT,UPDATE,DELETE,TRUNCATE,REFERENCES,TRIGGER,MAINTAIN,EXECUTE,USAGE,CREATE}'::text[],
				'{r,a,w,d,D,x,t,m,X,U,C}'::text[]) WITH ORDINALITY l (privilege, letter, place) ON l.privilege = r.privilege
		GROUP BY t.prefix, t.team, r.object
$$;
COMMENT ON FUNCTION imgpipe.access_cells(name) IS
'access_report() with the privileges of one team on one object in a cell, as letters: those that psql has for them.';

CREATE FUNCTION imgpipe.access_report_text(only_schema name DEFAULT NULL, width integer DEFAULT 79) RETURNS SETOF text
	LANGUAGE plpgsql STABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	cells CONSTANT jsonb := (SELECT jsonb_agg(to_jsonb(c)) FROM imgpipe.access_cells(only_schema) c);
	of_prefix record;
	first integer;
	last integer;
	name_width integer;
	cell_widths integer[];
	line record;
	printed text;
BEGIN
	width := greatest(coalesce(width, 79), 40);
	FOR of_prefix IN
		SELECT c.prefix, array_agg(DISTINCT c.team ORDER BY c.team) AS teams, max(length(c.object)) AS longest
			FROM jsonb_to_recordset(cells) c (prefix text, team text, object text) GROUP BY c.prefix ORDER BY c.prefix
	LOOP
		name_width := least(of_prefix.longest, width / 2);
		cell_widths := ARRAY(SELECT least(greatest(length(t.team), max(length(c.cell))), width - name_width - 2)
			FROM unnest(of_prefix.teams) WITH ORDINALITY t (team, position) JOIN jsonb_to_recordset(cells) c (prefix text, team text, cell text)
				ON (c.prefix, c.team) = (of_prefix.prefix, t.team) GROUP BY t.team, t.position ORDER BY t.position);
		first := 1;
		WHILE first <= cardinality(of_prefix.teams) LOOP
			-- As many teams side by side as there is room for.
			last := first;
			WHILE last < cardinality(of_prefix.teams)
				AND name_width + (SELECT sum(w + 2) FROM unnest(cell_widths[first:last + 1]) w) <= width LOOP
				last := last + 1;
			END LOOP;
			FOR line IN
				SELECT 0 AS position, of_prefix.prefix AS name, '' COLLATE "C" AS sorted_by, of_prefix.teams[first:last] AS cells
				UNION ALL SELECT 1, repeat('-', name_width), '', ARRAY(SELECT repeat('-', w) FROM unnest(cell_widths[first:last]) w)
				UNION ALL SELECT 2, CASE WHEN length(o.name) > name_width THEN left(o.name, name_width / 2 - 3) || '...' || right(o.name, name_width - name_width / 2) ELSE o.name END, o.object COLLATE "C",
						ARRAY(SELECT coalesce((SELECT c.cell FROM jsonb_to_recordset(cells) c (prefix text, team text, object text, cell text)
									WHERE (c.prefix, c.team, c.object) = (of_prefix.prefix, t.team, o.object)), '')
								FROM unnest(of_prefix.teams[first:last]) WITH ORDINALITY t (team, position) ORDER BY t.position)
					FROM (SELECT DISTINCT c.object, CASE WHEN length(c.object) > name_width THEN regexp_replace(c.object, '\(.+\)$', '(...)') ELSE c.object END AS name FROM jsonb_to_recordset(cells) c (prefix text, team text, object text)
						WHERE c.prefix = of_prefix.prefix AND c.team = ANY (of_prefix.teams[first:last])) o
				ORDER BY position, sorted_by
			LOOP
				printed := rtrim(rpad(line.name, name_width) || (SELECT string_agg('  ' || rpad(c.cell, c.width), '' ORDER BY c.position)
					FROM unnest(line.cells, cell_widths[first:last]) WITH ORDINALITY c (cell, width, position)));
				RETURN NEXT printed;
			END LOOP;
			printed := '';
			RETURN NEXT printed;
			first := last + 1;
		END LOOP;
	END LOOP;
	RETURN QUERY VALUES ('r SELECT  a INSERT  w UPDATE  d DELETE'), ('D TRUNCATE  x REFERENCES  t TRIGGER'), ('m MAINTAIN  X EXECUTE  U USAGE  C CREATE'),
		('*: some columns  ?: not granted yet'), ('!: granted, and not declared');
END
$$;
COMMENT ON FUNCTION imgpipe.access_report_text(name, integer) IS
'The report as a table of objects and teams, in lines of at most width characters (40 or more), and what its letters mean. Long names are cut, first the types of arguments.';

CREATE FUNCTION imgpipe.html(value text) RETURNS text
	LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
	RETURN pg_catalog.replace(pg_catalog.replace(pg_catalog.replace(pg_catalog.replace(value, '&', '&amp;'), '<', '&lt;'), '>', '&gt;'), '"', '&quot;');
COMMENT ON FUNCTION imgpipe.html(text) IS 'A text as HTML shows it.';

CREATE FUNCTION imgpipe.access_report_html(only_schema name DEFAULT NULL) RETURNS text
	LANGUAGE sql STABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
	WITH cells AS MATERIALIZED (SELECT * FROM imgpipe.access_cells(only_schema)),
	teams AS (SELECT DISTINCT c.prefix, c.team FROM cells c),
	lines AS (
		SELECT o.prefix, o.object, string_agg('<td>' || imgpipe.html(coalesce(c.cell, '')) || '</td>', '' ORDER BY t.team) AS cells
			FROM (SELECT DISTINCT c.prefix, c.object FROM cells c) o JOIN teams t ON t.prefix = o.prefix
				LEFT JOIN cells c ON (c.prefix, c.team, c.object) = (o.prefix, t.team, o.object)
			GROUP BY o.prefix, o.object),
	tables AS (
		SELECT l.prefix, format(E'<h2>%s</h2>\n<table>\n<tr><th>object</th>%s</tr>\n%s\n</table>', imgpipe.html(l.prefix),
				(SELECT string_agg('<th>' || imgpipe.html(t.team) || '</th>', '' ORDER BY t.team) FROM teams t WHERE t.prefix = l.prefix),
				string_agg('<tr><th>' || imgpipe.html(l.object) || '</th>' || l.cells || '</tr>', E'\n' ORDER BY l.object)) AS html
			FROM lines l GROUP BY l.prefix)
	SELECT format(E'<!DOCTYPE html>\n<html lang="en">\n<head><meta charset="utf-8"><title>Access to %s</title>\n'
			'<style>body{font-family:sans-serif}table{border-collapse:collapse}th,td{border:1px solid #999;padding:.2em .6em;text-align:left}td{font-family:monospace}</style></head>\n'
			'<body>\n<h1>Access to %1$s</h1>\n<p>%s</p>\n%s\n<p>r SELECT, a INSERT, w UPDATE, d DELETE, D TRUNCATE, x REFERENCES, t TRIGGER, m MAINTAIN, X EXECUTE, U USAGE, C CREATE; '
			'* some columns, ? declared and not granted, ! granted and not declared.</p>\n</body>\n</html>\n',
			imgpipe.html(current_database()), imgpipe.html(to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI "UTC"')),
			coalesce((SELECT string_agg(t.html, E'\n' ORDER BY t.prefix) FROM tables t), '<p>No team has any.</p>'))
$$;
COMMENT ON FUNCTION imgpipe.access_report_html(name) IS
'The report as one HTML page that needs nothing else: \o access.html, then SELECT imgpipe.access_report_html(); with psql -At.';


CREATE FUNCTION imgpipe.tell_what_stays() RETURNS void
	LANGUAGE plpgsql STABLE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	schemas CONSTANT text := (SELECT string_agg(quote_ident(n.nspname), ', ' ORDER BY n.nspname) FROM pg_namespace n
		WHERE obj_description(n.oid, 'pg_namespace') LIKE 'Example shop, made by imgpipe.create_sales_schema().%' OR n.nspname IN (SELECT u.schema_name FROM imgpipe.access_uses u WHERE u.schema_name <> 'imgpipe'));
	roles CONSTANT text := (SELECT string_agg(quote_ident(t.role_name), ', ' ORDER BY t.role_name) FROM imgpipe.access_teams t JOIN pg_roles r ON r.rolname = t.role_name);
BEGIN
	IF schemas IS NOT NULL THEN
		RAISE NOTICE 'schemas that stay, with all that is in them: %', schemas;
	END IF;
	IF roles IS NOT NULL THEN
		RAISE NOTICE 'team roles that stay, with their members and what they were granted: %', roles;
	END IF;
END
$$;
COMMENT ON FUNCTION imgpipe.tell_what_stays() IS
'Notices of what DROP EXTENSION imgpipe leaves: sales schemas, schemas that templates are in use on, and team roles. DROP EXTENSION calls it, where the library is loaded.';
REVOKE EXECUTE ON FUNCTION imgpipe.tell_what_stays() FROM PUBLIC;


/* Who may administer access, and the audit by pgaudit. */

CREATE FUNCTION imgpipe.allow_access_administration(role_name name) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	PERFORM imgpipe.check_role(role_name);
	EXECUTE format('GRANT USAGE ON SCHEMA imgpipe TO %I', role_name);
	EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON imgpipe.access_templates, imgpipe.access_rules, imgpipe.template_masks, imgpipe.access_uses,
		imgpipe.access_schemas, imgpipe.access_creators, imgpipe.access_teams, imgpipe.access_memberships, imgpipe.access_exceptions, imgpipe.access_masks,
		imgpipe.access_views, imgpipe.mask_keys TO %I', role_name);
	EXECUTE format('GRANT SELECT, INSERT (action, role_name, detail, statements) ON imgpipe.access_log TO %I', role_name);
	-- The row-level security of jobs leaves it those of its own.
	EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON imgpipe.jobs TO %I', role_name);
	EXECUTE format('GRANT SELECT ON imgpipe.partitioned_tables, imgpipe.job_runs TO %I', role_name);
	PERFORM imgpipe.log_access('allow administration', role_name);
END
$$;
COMMENT ON FUNCTION imgpipe.allow_access_administration(name) IS
'Lets a role that is no superuser administer access: grants it what it needs in schema imgpipe. Beside that the role needs CREATEROLE, CREATE on the database for the schemas of teams'' views, and to own, or be a member of the owners of, what the templates are about. It can read the keys of the mask hash, and not change the log. Only the extension''s owner may call it.';
REVOKE EXECUTE ON FUNCTION imgpipe.allow_access_administration(name) FROM PUBLIC;

CREATE FUNCTION imgpipe.use_pgaudit(classes text DEFAULT 'role, ddl, write') RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	IF current_setting('pgaudit.log', true) IS NULL OR NOT EXISTS (SELECT FROM pg_available_extensions e WHERE e.name = 'pgaudit') THEN
		RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
			MESSAGE = 'pgaudit is not loaded',
			DETAIL = format('shared_preload_libraries is "%s".', current_setting('shared_preload_libraries')),
			HINT = 'Install it (Debian: postgresql-NN-pgaudit), add pgaudit to shared_preload_libraries and restart the server.';
	END IF;
	IF NOT EXISTS (SELECT FROM pg_extension e WHERE e.extname = 'pgaudit') THEN
		CREATE EXTENSION pgaudit SCHEMA public;
	END IF;
	EXECUTE format('ALTER DATABASE %I SET pgaudit.log = %L', current_database(), classes);
	EXECUTE format('ALTER DATABASE %I SET pgaudit.log_relation = on', current_database());
	EXECUTE format('ALTER DATABASE %I SET pgaudit.log_catalog = off', current_database());
	-- Values of INSERT are personal data, and the log outlives their purge.
	EXECUTE format('ALTER DATABASE %I SET pgaudit.log_parameter = off', current_database());
	PERFORM imgpipe.log_access('use pgaudit', NULL, classes);
END
$$;
COMMENT ON FUNCTION imgpipe.use_pgaudit(text) IS
'Sets pgaudit up for this database, where the server has it loaded: GRANT and membership (role), ddl and write statements of sessions that begin from now on go to the server log, with the tables that they are about and without parameters; what a statement has as literals is in its text. classes: as pgaudit.log takes them. Raises 55000 where pgaudit is not loaded, 42501 for who is no superuser.';
REVOKE EXECUTE ON FUNCTION imgpipe.use_pgaudit(text) FROM PUBLIC;
