

/*
 * Access templates: who may do what, as rows; see src/access/.
 *
 * A template is a set of rules, each for one team and one kind of object.  A
 * use binds a template to real schemas and to a prefix of role names.  Nothing
 * here grants anything: declared.sql says what the rows mean, plan.sql what is
 * to be done about it.
 */

CREATE TABLE imgpipe.access_templates (
	template text PRIMARY KEY CHECK (template OPERATOR(pg_catalog.~) '^[a-z][a-z0-9_]{0,62}$'),
	description text NOT NULL,
	shipped boolean NOT NULL DEFAULT false
);
COMMENT ON TABLE imgpipe.access_templates IS
'Sets of rules that use_template() binds to schemas and roles. Those that are shipped cannot be changed; create_template() copies them.';

CREATE TABLE imgpipe.access_rules (
	template text NOT NULL REFERENCES imgpipe.access_templates ON DELETE CASCADE,
	rule integer NOT NULL,
	team text NOT NULL CHECK (team OPERATOR(pg_catalog.~) '^[a-z][a-z0-9_]{0,30}$'),
	place text NOT NULL CHECK (place OPERATOR(pg_catalog.~) '^[a-z][a-z0-9_]{0,30}$'),
	kind text NOT NULL CHECK (kind OPERATOR(pg_catalog.=) ANY ('{schema,table,sequence,function}')),
	object text NOT NULL DEFAULT '*',
	privileges text[] NOT NULL,
	columns text[],
	masked boolean NOT NULL DEFAULT false,
	row_filter text,
	future boolean NOT NULL DEFAULT false,
	shipped boolean NOT NULL DEFAULT false,
	PRIMARY KEY (template, rule)
);
COMMENT ON TABLE imgpipe.access_rules IS
'What a template gives to a team. A team also gets USAGE on the schema of whatever it gets something on. Partitions are never matched, only their parents.';
COMMENT ON COLUMN imgpipe.access_rules.place IS 'Stands for a schema, which use_template() names.';
COMMENT ON COLUMN imgpipe.access_rules.kind IS 'schema, table (views, materialized views and foreign tables, too), sequence or function (procedures and aggregates, too).';
COMMENT ON COLUMN imgpipe.access_rules.object IS 'Name, in which * stands for any characters; for a function its name, which means all of that name, or name(types) as oidvectortypes() writes them.';
COMMENT ON COLUMN imgpipe.access_rules.columns IS 'The columns that the privileges are for, or that the team''s view has; NULL: the whole table.';
COMMENT ON COLUMN imgpipe.access_rules.masked IS 'The team gets a view with masked columns, in a schema of its own, and nothing on the table itself; see set_mask().';
COMMENT ON COLUMN imgpipe.access_rules.row_filter IS 'The team gets a view of some rows, and nothing on the table itself. own(column): the column is the user who logged in. flag(column): the column is true. recent(column, 7 days): the column is a time not longer ago. referenced(column, table.column): the value is in that column, of a table of the place "sales" unless another place is named: referenced(image_id, sales.items.picture).';
COMMENT ON COLUMN imgpipe.access_rules.future IS 'Also for objects that name_creator()''s roles make later, by ALTER DEFAULT PRIVILEGES; only for *, of tables, sequences and functions.';

CREATE TABLE imgpipe.template_masks (
	template text NOT NULL REFERENCES imgpipe.access_templates ON DELETE CASCADE,
	place text NOT NULL,
	table_name text NOT NULL,
	column_name text NOT NULL,
	mask text NOT NULL CHECK (mask OPERATOR(pg_catalog.=) ANY ('{none,hide,partial,email,phone,hash,year_of_birth,coordinates,exif}')),
	shipped boolean NOT NULL DEFAULT false,
	PRIMARY KEY (template, place, table_name, column_name)
);
COMMENT ON TABLE imgpipe.template_masks IS
'How the columns of tables appear in the views of masked rules, where access_masks says nothing else. Column * is for those that have no row of their own.';

CREATE TABLE imgpipe.access_uses (
	prefix text NOT NULL,
	template text NOT NULL REFERENCES imgpipe.access_templates,
	place text NOT NULL,
	schema_name name NOT NULL,
	names jsonb NOT NULL DEFAULT '{}',
	PRIMARY KEY (prefix, template, place)
);
COMMENT ON TABLE imgpipe.access_uses IS
'Which template is in use for the roles of which prefix, and the schema that each of its places stands for; see use_template().';
COMMENT ON COLUMN imgpipe.access_uses.names IS 'What objects and columns are called here, where not as in the template: {"items": "products", "items.price": "amount"}.';

CREATE TABLE imgpipe.access_schemas (
	schema_name name PRIMARY KEY,
	authoritative boolean NOT NULL
);
COMMENT ON TABLE imgpipe.access_schemas IS
'Schemas where the templates decide alone: what other roles, or PUBLIC, were granted there is taken back, too. See set_authoritative().';

CREATE TABLE imgpipe.access_creators (
	schema_name name NOT NULL,
	creator name NOT NULL,
	PRIMARY KEY (schema_name, creator)
);
COMMENT ON TABLE imgpipe.access_creators IS
'Roles that make objects in a schema; rules with future set their default privileges. See name_creator().';

CREATE FUNCTION imgpipe.check_schema(schema_name name) RETURNS void
	LANGUAGE plpgsql STABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	IF NOT EXISTS (SELECT FROM pg_namespace n WHERE n.nspname = check_schema.schema_name) THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_schema_name',
			MESSAGE = format('schema %s does not exist', coalesce('"' || schema_name || '"', 'NULL')),
			DETAIL = coalesce('Templates and exceptions are about ' || (SELECT string_agg(quote_ident(m.name), ', ' ORDER BY m.name) FROM unnest(imgpipe.managed_schemas()) m (name)) || '.',
				'No template is in use.'),
			HINT = 'SELECT nspname FROM pg_namespace; shows those that do.';
	END IF;
END
$$;
COMMENT ON FUNCTION imgpipe.check_schema(name) IS 'Raises 3F000 where there is no such schema.';

CREATE FUNCTION imgpipe.privileges_of(kind text) RETURNS text[]
	LANGUAGE sql STABLE STRICT PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT array_agg(a.privilege_type ORDER BY a.privilege_type)
		FROM aclexplode(acldefault(CASE kind WHEN 'schema' THEN 'n'::"char" WHEN 'table' THEN 'r' WHEN 'sequence' THEN 's' WHEN 'function' THEN 'f' END, 10)) a
		WHERE a.grantee = 10
$$;
COMMENT ON FUNCTION imgpipe.privileges_of(text) IS
'The privileges that this version of PostgreSQL has for schema, table, sequence or function.';

CREATE FUNCTION imgpipe.name_pattern(object text) RETURNS text
	LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT '^' || replace(regexp_replace(object, '([][\\.^$+?(){}|])', '\\\1', 'g'), '*', '.*') || '$'
$$;
COMMENT ON FUNCTION imgpipe.name_pattern(text) IS
'The regular expression for a name in which * stands for any characters.';

CREATE FUNCTION imgpipe.filter_parts(row_filter text) RETURNS text[]
	LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
	SELECT coalesce(regexp_match(row_filter, '^(own|flag)\(([a-z_][a-z0-9_]*)\)$'),
		regexp_match(row_filter, '^(recent)\(([a-z_][a-z0-9_]*), *([0-9]{1,5}) (hours|days)\)$'),
		regexp_match(row_filter, '^(referenced)\(([a-z_][a-z0-9_]*), *(?:([a-z_][a-z0-9_]*)\.)?([a-z_][a-z0-9_]*)\.([a-z_][a-z0-9_]*)\)$'))
$$;
COMMENT ON FUNCTION imgpipe.filter_parts(text) IS
'What a row filter consists of; NULL where it is none of access_rules.row_filter.';

CREATE FUNCTION imgpipe.check_rule() RETURNS trigger
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	problem text;
	advice text;
BEGIN
	SELECT format('%s is NULL.', v.key), 'Only columns and row_filter may be NULL.' INTO problem, advice
		FROM jsonb_each(to_jsonb(NEW)) v WHERE v.value = 'null' AND v.key NOT IN ('columns', 'row_filter') ORDER BY v.key LIMIT 1;
	IF problem IS NULL THEN
		SELECT format('%s "%s".', initcap(v.what), v.name), 'Teams and places have 1 to 31 small letters of ASCII, digits and "_", and begin with a letter.' INTO problem, advice
			FROM (VALUES ('team', NEW.team), ('place', NEW.place)) v (what, name) WHERE v.name !~ '^[a-z][a-z0-9_]{0,30}$' LIMIT 1;
	END IF;
	IF problem IS NULL AND NEW.kind <> ALL ('{schema,table,sequence,function}') THEN
		problem := format('Kind "%s".', NEW.kind);
		advice := 'Give schema, table (of views, too), sequence, or function (of procedures, too).';
	END IF;
	IF problem IS NULL THEN
		SELECT format('Privilege %s.', coalesce('"' || p || '"', 'NULL')), format('A %s has %s.', NEW.kind, array_to_string(imgpipe.privileges_of(NEW.kind), ', '))
			INTO problem, advice
			FROM unnest(CASE NEW.privileges WHEN '{}' THEN '{NULL}' ELSE NEW.privileges END) p WHERE (p = ANY (imgpipe.privileges_of(NEW.kind))) IS NOT TRUE LIMIT 1;
	END IF;
	IF problem IS NULL AND NEW.row_filter IS NOT NULL AND imgpipe.filter_parts(NEW.row_filter) IS NULL THEN
		problem := format('Row filter "%s".', NEW.row_filter);
		advice := 'Give own(column), flag(column), recent(column, 7 days) or referenced(column, table.column).';
	ELSIF problem IS NULL AND NEW.columns IS NOT NULL AND (NEW.kind <> 'table' OR cardinality(NEW.columns) = 0 OR array_position(NEW.columns, NULL) IS NOT NULL
			OR (NEW.row_filter IS NULL AND NOT NEW.masked AND NOT NEW.privileges <@ '{SELECT,INSERT,UPDATE,REFERENCES}')) THEN
		problem := 'Columns of something, or privileges, that have none.';
		advice := 'SELECT, INSERT, UPDATE and REFERENCES on tables can be for columns.';
	ELSIF problem IS NULL AND (NEW.masked OR NEW.row_filter IS NOT NULL) AND (NEW.kind <> 'table' OR NOT NEW.privileges <@ '{SELECT,INSERT,UPDATE,DELETE}') THEN
		problem := format('A view of a %s, for %s.', NEW.kind, array_to_string(NEW.privileges, ', '));
		advice := 'Views for teams are of tables, with SELECT, INSERT, UPDATE and DELETE.';
	ELSIF problem IS NULL AND NEW.future AND (NEW.object <> '*' OR NEW.kind = 'schema' OR NEW.columns IS NOT NULL OR NEW.masked OR NEW.row_filter IS NOT NULL) THEN
		problem := format('Future objects of kind %s named "%s".', NEW.kind, NEW.object);
		advice := 'ALTER DEFAULT PRIVILEGES knows no names, columns or views: future is for * of tables, sequences or functions.';
	END IF;
	IF problem IS NOT NULL THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
			MESSAGE = format('rule %s of template "%s" is not valid', NEW.rule, NEW.template), DETAIL = problem, HINT = advice;
	END IF;
	RETURN NEW;
END
$$;
COMMENT ON FUNCTION imgpipe.check_rule() IS
'Raises 22023 for a rule that could not be granted.';
CREATE TRIGGER check_rule BEFORE INSERT OR UPDATE ON imgpipe.access_rules
	FOR EACH ROW EXECUTE FUNCTION imgpipe.check_rule();

CREATE FUNCTION imgpipe.keep_shipped() RETURNS trigger
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	changed CONSTANT text := coalesce(NEW.template, OLD.template);
BEGIN
	IF NEW.shipped OR OLD.shipped OR EXISTS (SELECT FROM imgpipe.access_templates t WHERE t.template = changed AND t.shipped) THEN
		RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
			MESSAGE = format('template "%s" cannot be changed', changed),
			DETAIL = 'It comes with imgpipe, and a dump does not hold it.',
			HINT = format('Change a copy: SELECT imgpipe.create_template(''mine'', copy_of => %L);', changed);
	END IF;
	RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
END
$$;
COMMENT ON FUNCTION imgpipe.keep_shipped() IS
'Raises 55000 for a change of what comes with imgpipe.';


/* Templates of one's own. */

CREATE FUNCTION imgpipe.check_template(template text) RETURNS void
	LANGUAGE plpgsql STABLE PARALLEL SAFE
	SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	IF NOT EXISTS (SELECT FROM imgpipe.access_templates t WHERE t.template = check_template.template) THEN
		RAISE EXCEPTION USING ERRCODE = 'undefined_object',
			MESSAGE = format('template %s does not exist', coalesce('"' || template || '"', 'NULL')),
			DETAIL = format('There are %s.', (SELECT string_agg(t.template, ', ' ORDER BY t.template) FROM imgpipe.access_templates t)),
			HINT = 'SELECT template, description FROM imgpipe.access_templates; says what each is for.';
	END IF;
END
$$;
COMMENT ON FUNCTION imgpipe.check_template(text) IS 'Raises 42704 where there is no such template.';

CREATE FUNCTION imgpipe.create_template(template text, description text DEFAULT NULL, copy_of text DEFAULT NULL) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
	IF (create_template.template ~ '^[a-z][a-z0-9_]{0,62}$') IS NOT TRUE THEN
		RAISE EXCEPTION USING ERRCODE = 'invalid_name',
			MESSAGE = format('template name %s is not valid', coalesce('"' || create_template.template || '"', 'NULL')),
			HINT = 'A name has 1 to 63 small letters of ASCII, digits and "_", and begins with a letter.';
	END IF;
	IF EXISTS (SELECT FROM imgpipe.access_templates t WHERE t.template = create_template.template) THEN
		RAISE EXCEPTION USING ERRCODE = 'duplicate_object',
			MESSAGE = format('template "%s" already exists', create_template.template),
			HINT = 'Choose another name, or drop that one with imgpipe.drop_template().';
	END IF;
	IF copy_of IS NOT NULL THEN
		PERFORM imgpipe.check_template(copy_of);
	END IF;
	INSERT INTO imgpipe.access_templates (template, description)
		VALUES (create_template.template, coalesce(create_template.description, 'As ' || copy_of || ', changed.', ''));
	INSERT INTO imgpipe.access_rules (template, rule, team, place, kind, object, privileges, columns, masked, row_filter, future)
		SELECT create_template.template, rule, team, place, kind, object, privileges, columns, masked, row_filter, future
			FROM imgpipe.access_rules r WHERE r.template = copy_of;
	INSERT INTO imgpipe.template_masks (template, place, table_name, column_name, mask)
		SELECT create_template.template, place, table_name, column_name, mask FROM imgpipe.template_masks m WHERE m.template = copy_of;
END
$$;
COMMENT ON FUNCTION imgpipe.create_template(text, text, text) IS
'Makes a template of one''s own, empty or with the rules and masks of another; add_rule() adds to it, and UPDATE and DELETE on imgpipe.access_rules and template_masks change it. Raises 42602 for a name, 42710 where there is one of that name, 42704 for copy_of.';

CREATE FUNCTION imgpipe.add_rule(template text, team text, kind text, object text, privileges text[], place text DEFAULT 'sales',
	columns text[] DEFAULT NULL, masked boolean DEFAULT false, row_filter text DEFAULT NULL, future boolean DEFAULT false) RETURNS integer
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
	number integer;
BEGIN
	PERFORM imgpipe.check_template(template);
	-- Two who add at once get numbers of their own.
	PERFORM FROM imgpipe.access_templates t WHERE t.template = add_rule.template FOR UPDATE;
	INSERT INTO imgpipe.access_rules AS r (template, rule, team, place, kind, object, privileges, columns, masked, row_filter, future)
		SELECT template, coalesce(max(o.rule), 0) + 1, team, place, kind, object, privileges, columns, masked, row_filter, future
			FROM imgpipe.access_rules o WHERE o.template = add_rule.template
		RETURNING r.rule INTO number;
	RETURN number;
END
$$;
COMMENT ON FUNCTION imgpipe.add_rule(text, text, text, text, text[], text, text[], boolean, text, boolean) IS
'Adds a rule to a template and returns its number; the parameters are the columns of imgpipe.access_rules. Raises 42704 for the template, 55000 for one that is shipped, 22023 for a rule that could not be granted.';

CREATE FUNCTION imgpipe.drop_template(template text) RETURNS void
	LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
	SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	PERFORM imgpipe.check_template(template);
	IF EXISTS (SELECT FROM imgpipe.access_uses u WHERE u.template = drop_template.template) THEN
		RAISE EXCEPTION USING ERRCODE = 'dependent_objects_still_exist',
			MESSAGE = format('template "%s" is in use', template),
			DETAIL = format('For the roles of prefix %s.', (SELECT string_agg(DISTINCT u.prefix, ', ') FROM imgpipe.access_uses u WHERE u.template = drop_template.template)),
			HINT = 'SELECT imgpipe.stop_template(template, prefix); and apply that first.';
	END IF;
	DELETE FROM imgpipe.access_templates t WHERE t.template = drop_template.template;
END
$$;
COMMENT ON FUNCTION imgpipe.drop_template(text) IS
'Drops a template of one''s own. Raises 42704 where there is none, 55000 for one that is shipped, 2BP01 while it is in use.';

-- What users write is dumped; what is shipped comes with CREATE EXTENSION.
SELECT pg_catalog.pg_extension_config_dump('imgpipe.access_templates', 'WHERE NOT shipped');
SELECT pg_catalog.pg_extension_config_dump('imgpipe.access_rules', 'WHERE NOT shipped');
SELECT pg_catalog.pg_extension_config_dump('imgpipe.template_masks', 'WHERE NOT shipped');
SELECT pg_catalog.pg_extension_config_dump('imgpipe.access_uses', '');
SELECT pg_catalog.pg_extension_config_dump('imgpipe.access_schemas', '');
SELECT pg_catalog.pg_extension_config_dump('imgpipe.access_creators', '');
