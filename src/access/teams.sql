

/*
 * Team roles, their members, and uses of templates; see src/access/.
 *
 * Roles belong to the whole server: a role that create_team_roles() made says
 * so in its comment, so that another database can take it over, and no other
 * role is ever taken for one.  Roles are kept by name: a dump does not hold
 * them, and is restored before or after they are.
 */

CREATE TABLE imgpipe.access_teams (
	role_name name PRIMARY KEY,
	prefix text NOT NULL,
	team text NOT NULL,
	active boolean NOT NULL DEFAULT true,
	UNIQUE (prefix, team)
);
COMMENT ON TABLE imgpipe.access_teams IS
'The group roles of create_team_roles(). One that is not active has had its access revoked: templates give it nothing.';

CREATE TABLE imgpipe.access_memberships (
	role_name name NOT NULL REFERENCES imgpipe.access_teams ON DELETE CASCADE,
	member name NOT NULL,
	until timestamptz,
	added_by name NOT NULL DEFAULT CURRENT_USER,
	added_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	PRIMARY KEY (role_name, member)
);
COMMENT ON TABLE imgpipe.access_memberships IS
'Who belongs to a team, and until when; see add_team_member().';

SELECT pg_catalog.pg_extension_config_dump('imgpipe.access_teams', '');
SELECT pg_catalog.pg_extension_config_dump('imgpipe.access_memberships', '');

CREATE FUNCTION imgpipe.create_team_roles(prefix text, teams text[] DEFAULT '{logistics,analytics,sales}') RETURNS SETOF name
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	team_name text;
	role name;
	mark text;
BEGIN
	IF (prefix ~ '^[a-z][a-z0-9_]{0,30}$') IS NOT TRUE OR prefix ~ '^pg_' THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_name',
			MESSAGE = format('prefix %s is not valid', coalesce('"' || prefix || '"', 'NULL')),
			HINT = 'A prefix has 1 to 31 small letters of ASCII, digits and "_", begins with a letter, and not with pg_.';
	END IF;
	PERFORM pg_advisory_xact_lock('imgpipe.access_teams'::regclass::oid::bigint);
	FOREACH team_name IN ARRAY coalesce(teams, '{}') LOOP
		IF (team_name ~ '^[a-z][a-z0-9_]{0,30}$') IS NOT TRUE THEN
			RAISE EXCEPTION USING ERRCODE = 'invalid_name',
				MESSAGE = format('team name %s is not valid', coalesce('"' || team_name || '"', 'NULL')),
				HINT = 'A team has 1 to 31 small letters of ASCII, digits and "_", and begins with a letter.';
		END IF;
		role := prefix || '_' || team_name;
		mark := format('imgpipe: team %s of %s', team_name, prefix);
		IF NOT EXISTS (SELECT FROM pg_roles r WHERE r.rolname = role) THEN
			EXECUTE format('CREATE ROLE %I NOLOGIN', role);
			EXECUTE format('COMMENT ON ROLE %I IS %L', role, mark);
			PERFORM imgpipe.log_access('create role', role);
			RETURN NEXT role;
		ELSIF (SELECT r.rolcanlogin OR r.rolsuper OR r.rolcreaterole OR r.rolbypassrls OR shobj_description(r.oid, 'pg_authid') IS DISTINCT FROM mark
				FROM pg_roles r WHERE r.rolname = role) THEN
			RAISE EXCEPTION USING ERRCODE = 'duplicate_object',
				MESSAGE = format('role "%s" already exists', role),
				DETAIL = 'It was not made by create_team_roles(), or was changed since: it can log in, or has rights of its own.',
				HINT = format('Choose another prefix. Or, if it is to be that team: ALTER ROLE %I NOLOGIN NOSUPERUSER NOCREATEROLE NOBYPASSRLS; COMMENT ON ROLE %1$I IS %L;', role, mark);
		END IF;
		INSERT INTO imgpipe.access_teams AS t (role_name, prefix, team) VALUES (role, create_team_roles.prefix, team_name)
			ON CONFLICT (role_name) DO UPDATE SET active = true WHERE NOT t.active AND (t.prefix, t.team) = (EXCLUDED.prefix, EXCLUDED.team);
		IF NOT EXISTS (SELECT FROM imgpipe.access_teams t WHERE t.role_name = role AND (t.prefix, t.team) = (create_team_roles.prefix, team_name)) THEN
			RAISE EXCEPTION USING ERRCODE = 'duplicate_object',
				MESSAGE = format('role "%s" is another team already', role),
				DETAIL = format('It is %s.', (SELECT format('team %s of %s', t.team, t.prefix) FROM imgpipe.access_teams t WHERE t.role_name = role)),
				HINT = 'Choose another prefix.';
		END IF;
	END LOOP;
END
$$;
COMMENT ON FUNCTION imgpipe.create_team_roles(text, text[]) IS
'Makes the group roles prefix_team, NOLOGIN, and returns those that were not there. A team whose access was revoked is active again, and the next plan gives it its rights. Needs CREATEROLE. Raises 42602 for a prefix or a team, 42710 where a role of that name is there that is no such team, 42501 without CREATEROLE.';

CREATE FUNCTION imgpipe.named_by_template(template text) RETURNS text[]
	LANGUAGE sql STABLE STRICT PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
	WITH names AS (
		SELECT r.object, c.name AS column_name FROM imgpipe.access_rules r LEFT JOIN LATERAL unnest(r.columns) c (name) ON true WHERE r.template = named_by_template.template
		UNION SELECT r.object, f.parts[2] FROM imgpipe.access_rules r CROSS JOIN LATERAL imgpipe.filter_parts(r.row_filter) f (parts) WHERE r.template = named_by_template.template
		UNION SELECT f.parts[4], f.parts[5] FROM imgpipe.access_rules r CROSS JOIN LATERAL imgpipe.filter_parts(r.row_filter) f (parts)
			WHERE r.template = named_by_template.template AND f.parts[1] = 'referenced'
		UNION SELECT m.table_name, nullif(m.column_name, '*') FROM imgpipe.template_masks m WHERE m.template = named_by_template.template)
	SELECT array_agg(DISTINCT x.name ORDER BY x.name) FROM names n
		CROSS JOIN LATERAL (VALUES (n.object), (n.object || '.' || n.column_name)) x (name) WHERE x.name !~ '[*]'
$$;
COMMENT ON FUNCTION imgpipe.named_by_template(text) IS
'The objects, and the columns of objects, that a template speaks of by name: what names of use_template() can be about.';

CREATE FUNCTION imgpipe.use_template(template text, prefix text, schemas jsonb DEFAULT '{}', names jsonb DEFAULT '{}') RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
	-- A filter may look into a place that no rule is about.
	places CONSTANT text[] := ARRAY(SELECT r.place FROM imgpipe.access_rules r WHERE r.template = use_template.template
		UNION SELECT coalesce(f.parts[3], 'sales') FROM imgpipe.access_rules r CROSS JOIN LATERAL imgpipe.filter_parts(r.row_filter) f (parts)
			WHERE r.template = use_template.template AND f.parts[1] = 'referenced');
	problem record;
BEGIN
	PERFORM imgpipe.check_template(template);
	IF jsonb_typeof(schemas) IS DISTINCT FROM 'object' OR jsonb_typeof(names) IS DISTINCT FROM 'object'
		OR EXISTS (SELECT FROM jsonb_path_query(jsonb_build_array(schemas, names), '$[*].*') v WHERE jsonb_typeof(v) <> 'string') THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
			MESSAGE = 'schemas and names must be JSON objects of strings',
			DETAIL = format('They are %s and %s.', coalesce(schemas::text, 'NULL'), coalesce(names::text, 'NULL')),
			HINT = 'For example: schemas => ''{"sales": "shop"}'', names => ''{"items": "products"}''.';
	END IF;
	SELECT k.place INTO problem FROM jsonb_object_keys(schemas) k (place) WHERE k.place <> ALL (places) LIMIT 1;
	IF FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
			MESSAGE = format('template "%s" has no place "%s"', template, problem.place),
			HINT = format('Its places are %s.', array_to_string(places, ', '));
	END IF;
	-- No error: one mapping can be meant for several templates.
	SELECT string_agg(quote_ident(n.name), ', ' ORDER BY n.name) AS names INTO problem FROM jsonb_object_keys(names) n (name) WHERE n.name <> ALL (imgpipe.named_by_template(template));
	IF problem.names IS NOT NULL THEN
		RAISE WARNING USING MESSAGE = format('template "%s" does not speak of %s', template, problem.names),
			DETAIL = format('It speaks of %s.', array_to_string(imgpipe.named_by_template(template), ', ')),
			HINT = 'names has an object, or object.column, as the template calls it, and what it is called in the schema.';
	END IF;
	SELECT s.schema_name INTO problem
		FROM unnest(places) p (place) CROSS JOIN LATERAL (SELECT coalesce(schemas ->> p.place, CASE p.place WHEN 'images' THEN 'imgpipe' ELSE p.place END)) s (schema_name)
		WHERE to_regnamespace(quote_ident(s.schema_name)) IS NULL OR s.schema_name ~ '^pg_' OR s.schema_name = ANY ('{information_schema,imgpipe_partitions}') LIMIT 1;
	IF FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_schema_name',
			MESSAGE = format('schema "%s" does not exist, or is no place for a template', problem.schema_name),
			HINT = format('Say which schemas they are: SELECT imgpipe.use_template(%L, %L, schemas => %L);', template, prefix,
				(SELECT jsonb_object_agg(p, 'schema of yours') FROM unnest(places) p));
	END IF;
	PERFORM imgpipe.create_team_roles(prefix, ARRAY(SELECT DISTINCT r.team FROM imgpipe.access_rules r WHERE r.template = use_template.template));
	INSERT INTO imgpipe.access_uses (prefix, template, place, schema_name, names)
		SELECT use_template.prefix, use_template.template, p.place,
				coalesce(schemas ->> p.place, CASE p.place WHEN 'images' THEN 'imgpipe' ELSE p.place END), use_template.names
			FROM unnest(places) p (place)
		ON CONFLICT (prefix, template, place) DO UPDATE SET schema_name = EXCLUDED.schema_name, names = EXCLUDED.names;
	PERFORM imgpipe.log_access('use template', NULL, format('%s for %s, schemas %s, names %s', template, prefix, schemas, names));
END
$$;
COMMENT ON FUNCTION imgpipe.use_template(text, text, jsonb, jsonb) IS
'Binds a template to the roles of a prefix, which are made where they are missing, and to schemas: each place of the template stands for the schema that schemas names, or else for the one of its own name (images: imgpipe). names says what objects and columns are called there: {"items": "products", "items.price": "amount"}. A warning says which of names the template does not speak of. A prefix may use several templates; their rights add up. Called again, it replaces schemas and names. Grants nothing: plan_access() shows what would be. Raises 42704 for a template, 42602 for a prefix, 22023 and 3F000 for schemas, 42710 as create_team_roles().';

CREATE FUNCTION imgpipe.stop_template(template text, prefix text) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	PERFORM imgpipe.check_template(template);
	DELETE FROM imgpipe.access_uses u WHERE u.template = stop_template.template AND u.prefix = stop_template.prefix;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'undefined_object',
			MESSAGE = format('template "%s" is not in use for prefix %s', template, coalesce('"' || prefix || '"', 'NULL')),
			HINT = 'SELECT * FROM imgpipe.access_uses; shows what is.';
	END IF;
	PERFORM imgpipe.log_access('stop template', NULL, format('%s for %s', template, prefix));
END
$$;
COMMENT ON FUNCTION imgpipe.stop_template(text, text) IS
'Ends the use of a template for a prefix: the next plan takes its rights back. Raises 42704 where it is not in use.';

CREATE FUNCTION imgpipe.set_authoritative(schema_name name, authoritative boolean DEFAULT true) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	-- What is gone can be said of no longer.
	IF authoritative IS NOT FALSE THEN
		PERFORM imgpipe.check_schema(schema_name);
	END IF;
	INSERT INTO imgpipe.access_schemas VALUES (schema_name, authoritative)
		ON CONFLICT ON CONSTRAINT access_schemas_pkey DO UPDATE SET authoritative = EXCLUDED.authoritative;
	PERFORM imgpipe.log_access('set authoritative', NULL, format('%I: %s', schema_name, authoritative));
END
$$;
COMMENT ON FUNCTION imgpipe.set_authoritative(name, boolean) IS
'In any schema of a template, what teams may do is just what is declared. In one that is authoritative this holds for all other roles and for PUBLIC, too: what they were granted and no exception allows is taken back. Owners keep their rights. Raises 3F000 for a schema.';

CREATE FUNCTION imgpipe.name_creator(schema_name name, creator name, creates boolean DEFAULT true) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	IF creates IS NOT FALSE THEN
		PERFORM imgpipe.check_schema(schema_name), imgpipe.check_role(creator);
		INSERT INTO imgpipe.access_creators VALUES (schema_name, creator) ON CONFLICT ON CONSTRAINT access_creators_pkey DO NOTHING;
	ELSE
		DELETE FROM imgpipe.access_creators c WHERE (c.schema_name, c.creator) = (name_creator.schema_name, name_creator.creator);
	END IF;
	PERFORM imgpipe.log_access('name creator', creator, format('%I: %s', schema_name, creates));
END
$$;
COMMENT ON FUNCTION imgpipe.name_creator(name, name, boolean) IS
'Says that a role makes objects in a schema, or (false) does no longer: the plan sets its default privileges there as rules with future have them. Objects of other creators, and of rules with names, get their rights with the next apply; access_drift() shows them as missing. Raises 42704 for a role, 3F000 for a schema.';


/* Members. */

CREATE FUNCTION imgpipe.check_team(team name) RETURNS void
	LANGUAGE plpgsql STABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	IF NOT EXISTS (SELECT FROM imgpipe.access_teams t WHERE t.role_name = check_team.team) THEN
		RAISE EXCEPTION USING ERRCODE = 'undefined_object',
			MESSAGE = format('team role %s does not exist', coalesce('"' || team || '"', 'NULL')),
			DETAIL = coalesce('There are ' || (SELECT string_agg(t.role_name, ', ' ORDER BY t.role_name) FROM imgpipe.access_teams t) || '.', 'There are none.'),
			HINT = 'SELECT imgpipe.create_team_roles(prefix); makes them.';
	END IF;
END
$$;
COMMENT ON FUNCTION imgpipe.check_team(name) IS 'Raises 42704 for what is no team role.';

CREATE FUNCTION imgpipe.warn_of_no_end(what text) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	IF NOT EXISTS (SELECT FROM imgpipe.jobs j WHERE j.command = 'SELECT imgpipe.end_expired_access()' AND j.enabled) THEN
		RAISE WARNING USING ERRCODE = 'object_not_in_prerequisite_state',
			MESSAGE = format('nothing ends %s by itself', what),
			DETAIL = 'No job calls imgpipe.end_expired_access(), and no version of PostgreSQL has memberships or grants with an end.',
			HINT = 'SELECT imgpipe.schedule(''end_expired_access'', ''1 minute'', ''SELECT imgpipe.end_expired_access()'');';
	END IF;
END
$$;
COMMENT ON FUNCTION imgpipe.warn_of_no_end(text) IS 'A warning where no job of the caller''s to see ends what has an end.';

CREATE FUNCTION imgpipe.add_team_member(team name, login name, until timestamptz DEFAULT NULL) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	attributes pg_roles;
BEGIN
	PERFORM imgpipe.check_team(team);
	SELECT * INTO attributes FROM pg_roles r WHERE r.rolname = login;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'undefined_object',
			MESSAGE = format('role %s does not exist', coalesce('"' || login || '"', 'NULL')),
			HINT = format('CREATE ROLE %s LOGIN; first.', coalesce(quote_ident(login), '...'));
	END IF;
	IF attributes.rolsuper OR attributes.rolbypassrls OR EXISTS (SELECT FROM imgpipe.access_teams t WHERE t.role_name = login) THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_grant_operation',
			MESSAGE = format('role "%s" cannot be a member of a team', login),
			DETAIL = CASE WHEN attributes.rolsuper THEN 'It is a superuser.' WHEN attributes.rolbypassrls THEN 'It has BYPASSRLS.' ELSE 'It is a team role itself.' END,
			HINT = 'What such a role may do, no template describes: add a login of its own for the work of the team.';
	END IF;
	IF until <= imgpipe.scheduler_clock() THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
			MESSAGE = 'a membership cannot end in the past',
			DETAIL = format('It would have ended at %s.', until),
			HINT = 'Leave until out for a membership without an end.';
	END IF;
	EXECUTE format('GRANT %I TO %I', team, login);
	INSERT INTO imgpipe.access_memberships AS m (role_name, member, until) VALUES (team, login, add_team_member.until)
		ON CONFLICT ON CONSTRAINT access_memberships_pkey DO UPDATE SET until = EXCLUDED.until, added_by = EXCLUDED.added_by, added_at = EXCLUDED.added_at;
	PERFORM imgpipe.log_access('add member', team, format('%I until %s', login, coalesce(until::text, 'further notice')));
	IF until < 'infinity' THEN
		PERFORM imgpipe.warn_of_no_end(format('the membership of "%s"', login));
	END IF;
END
$$;
COMMENT ON FUNCTION imgpipe.add_team_member(name, name, timestamptz) IS
'Makes a login a member of a team, at once, until a time or until further notice; called again, it changes the time. The end is enforced by end_expired_access(), which a job is to call (see schedule()); a warning says where there is none. Raises 42704 for a team or a login that does not exist, 0LP01 for a superuser, a role with BYPASSRLS or another team, 22023 for an end in the past, 42501 where the caller may not grant the role.';

CREATE FUNCTION imgpipe.revoke_membership(team name, member name) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	granted_by text;
BEGIN
	-- From PostgreSQL 16 on a membership can have been granted several times, by different roles.
	FOR granted_by IN SELECT CASE WHEN to_jsonb(m) ? 'inherit_option' THEN format(' GRANTED BY %I', g.rolname) ELSE '' END
			FROM pg_auth_members m JOIN pg_roles t ON t.oid = m.roleid JOIN pg_roles r ON r.oid = m.member LEFT JOIN pg_roles g ON g.oid = m.grantor
			WHERE t.rolname = revoke_membership.team AND r.rolname = revoke_membership.member
	LOOP
		EXECUTE format('REVOKE %I FROM %I%s', team, member, granted_by);
	END LOOP;
END
$$;
COMMENT ON FUNCTION imgpipe.revoke_membership(name, name) IS 'Revokes all grants of a role to another.';

CREATE FUNCTION imgpipe.remove_team_member(team name, login name) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	PERFORM imgpipe.check_team(team);
	DELETE FROM imgpipe.access_memberships m WHERE m.role_name = remove_team_member.team AND m.member = login;
	IF NOT FOUND THEN
		RAISE EXCEPTION USING ERRCODE = 'undefined_object',
			MESSAGE = format('%s is no member of team "%s"', coalesce('"' || login || '"', 'NULL'), team),
			HINT = 'SELECT * FROM imgpipe.access_memberships; shows who is.';
	END IF;
	PERFORM imgpipe.revoke_membership(team, login);
	PERFORM imgpipe.log_access('remove member', team, format('%I', login));
END
$$;
COMMENT ON FUNCTION imgpipe.remove_team_member(name, name) IS
'Ends the membership of a login, at once. A session of that login that has set its role to the team''s keeps it until it ends. Raises 42704 for a team, or for a login that is no member by add_team_member().';
