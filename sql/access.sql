-- Templates, plans and what comes of them, on a schema of the user's own; see access_masks for views and masks.
\set SHOW_CONTEXT never
SET TIME ZONE 'UTC';
SET DateStyle = 'ISO';
SET client_min_messages = warning;
CREATE ROLE regress_shop_owner;
CREATE ROLE regress_alice LOGIN;
CREATE ROLE regress_bob LOGIN;
CREATE ROLE regress_other;
CREATE ROLE regress_root SUPERUSER;
CREATE SCHEMA regress_shop AUTHORIZATION regress_shop_owner;
SET ROLE regress_shop_owner;
CREATE TABLE regress_shop.products (product_id integer PRIMARY KEY, name text, amount numeric);
CREATE TABLE regress_shop.orders (order_id integer PRIMARY KEY, state text, note text);
CREATE VIEW regress_shop.totals AS SELECT sum(amount) AS total FROM regress_shop.products;
CREATE MATERIALIZED VIEW regress_shop.stored AS SELECT 1 AS one;
CREATE TABLE regress_shop.log (i integer) PARTITION BY RANGE (i);
CREATE TABLE regress_shop.log_1 PARTITION OF regress_shop.log FOR VALUES FROM (1) TO (2);
CREATE SEQUENCE regress_shop.numbers;
CREATE FUNCTION regress_shop.finish(integer) RETURNS text LANGUAGE sql RETURN 'one';
CREATE FUNCTION regress_shop.finish(integer, text) RETURNS text LANGUAGE sql RETURN 'two';
CREATE PROCEDURE regress_shop.tidy() LANGUAGE sql AS 'SELECT 1';
CREATE TABLE regress_shop."odd ""name, x; DROP" ("a)b" integer, c integer);
REVOKE EXECUTE ON ALL ROUTINES IN SCHEMA regress_shop FROM PUBLIC;
RESET ROLE;

-- what is shipped, and stays as it is
SELECT t.template, count(*) AS rules, string_agg(DISTINCT r.team, ', ' ORDER BY r.team) AS teams FROM imgpipe.access_templates t JOIN imgpipe.access_rules r USING (template)
	WHERE t.shipped GROUP BY 1 ORDER BY 1;
UPDATE imgpipe.access_rules SET privileges = '{DELETE}' WHERE template = 'strict' AND rule = 1;
DELETE FROM imgpipe.access_templates WHERE template = 'strict';
SELECT imgpipe.add_rule('strict', 'sales', 'table', '*', '{SELECT}');

-- a template of one's own
SELECT imgpipe.create_template('Bad name');
SELECT imgpipe.create_template('regress_desk', 'For the tests.');
SELECT imgpipe.create_template('regress_desk');
SELECT imgpipe.add_rule('regress_nothing', 'desk', 'table', '*', '{SELECT}');
-- (the hint lists the privileges of a table, of which later versions have more)
\set VERBOSITY terse
SELECT imgpipe.add_rule('regress_desk', 'desk', 'table', 'items', '{PEEK}');
SELECT imgpipe.add_rule('regress_desk', 'desk', 'table', 'items', '{}');
\set VERBOSITY default
SELECT imgpipe.add_rule('regress_desk', 'desk', 'table', 'items', '{DELETE}', columns => '{name}');
SELECT imgpipe.add_rule('regress_desk', 'desk', 'function', 'items', '{SELECT}');
SELECT imgpipe.add_rule('regress_desk', 'desk', 'table', 'items', '{SELECT}', row_filter => 'true OR own(x)');
SELECT imgpipe.add_rule('regress_desk', 'desk', 'table', 'items', '{SELECT}', future => true);
SELECT imgpipe.add_rule('regress_desk', 'desk', 'table', 'items', '{SELECT,INSERT}');
SELECT imgpipe.add_rule('regress_desk', 'desk', 'table', 'items', '{UPDATE}', columns => '{name,price}');
SELECT imgpipe.add_rule('regress_desk', 'desk', 'function', 'finish(integer)', '{EXECUTE}');
SELECT imgpipe.add_rule('regress_desk', 'desk', 'function', 'tidy', '{EXECUTE}');
SELECT imgpipe.add_rule('regress_desk', 'desk', 'sequence', '*', '{USAGE}');
SELECT imgpipe.add_rule('regress_desk', 'desk', 'table', 'odd*', '{SELECT}', columns => '{a)b}');
SELECT imgpipe.add_rule('regress_desk', 'reader', 'table', '*', '{SELECT}', future => true);
SELECT imgpipe.add_rule('regress_desk', 'reader', 'table', 'items', '{SELECT}', columns => '{name}');
SELECT imgpipe.use_template('regress_desk', 'regress_shop');
SELECT imgpipe.use_template('regress_desk', 'regress_shop', '{"elsewhere": "regress_shop"}');
SELECT imgpipe.use_template('regress_desk', 'regress_shop', '{"sales": "pg_catalog"}');
SELECT imgpipe.use_template('regress_desk', 'Shop; DROP', '{"sales": "regress_shop"}');
SELECT imgpipe.use_template('regress_desk', 'regress_shop', '{"sales": "regress_shop"}', '{"items": "products", "items.price": "amount", "items.name": "name"}');
SELECT role_name, prefix, team, active FROM imgpipe.access_teams ORDER BY 1;

-- declared, planned, applied
SELECT role_name, kind, object, column_name AS "column", privilege, because FROM imgpipe.declared_access('regress_shop') ORDER BY 1, 2, 3, 4, 5;
SELECT step, statement, reason, set_role, lacks FROM imgpipe.plan_access('regress_shop');
SELECT imgpipe.apply_access('ab', 'regress_shop');
SELECT imgpipe.apply_access(NULL, 'regress_shop');
SELECT hash FROM imgpipe.plan_access('regress_shop') LIMIT 1 \gset
SELECT imgpipe.apply_access(:'hash', 'regress_shop');
SELECT imgpipe.apply_access(:'hash', 'regress_shop') AS nothing_left;
SELECT * FROM imgpipe.plan_access();
SELECT kind, object, role_name, privilege, detail FROM imgpipe.access_drift();
-- the catalog says the same as what was declared
SELECT count(*) AS declared, count(a.privilege) AS granted FROM imgpipe.declared_access() d
	LEFT JOIN imgpipe.actual_access() a ON (a.grantee, a.kind, a.object, a.column_name, a.privilege) = (d.role_oid, d.kind, d.object, d.column_name, d.privilege);

-- what is out of order, and is set right
GRANT SELECT ON regress_shop.orders TO regress_shop_desk;
GRANT DELETE ON regress_shop.products TO regress_alice WITH GRANT OPTION;
SET ROLE regress_alice;
GRANT DELETE ON regress_shop.products TO regress_shop_reader;
RESET ROLE;
REVOKE SELECT ON regress_shop.products FROM regress_shop_desk;
GRANT SELECT ON regress_shop.products TO regress_other WITH GRANT OPTION;
GRANT USAGE ON SCHEMA regress_shop TO regress_other;
SET ROLE regress_other;
GRANT SELECT ON regress_shop.products TO regress_shop_desk;
RESET ROLE;
GRANT INSERT ON regress_shop.products TO regress_shop_desk WITH GRANT OPTION;
GRANT SELECT ON regress_shop.log_1 TO regress_shop_reader;
GRANT UPDATE ON regress_shop.products TO regress_shop_desk;
GRANT EXECUTE ON FUNCTION regress_shop.finish(integer, text) TO PUBLIC;
GRANT CREATE ON SCHEMA regress_shop TO regress_shop_desk;
REVOKE USAGE ON SEQUENCE regress_shop.numbers FROM regress_shop_desk;
GRANT regress_shop_desk TO regress_bob;
GRANT regress_other TO regress_shop_desk;
ALTER DEFAULT PRIVILEGES FOR ROLE regress_shop_owner IN SCHEMA regress_shop GRANT INSERT ON TABLES TO regress_shop_desk;
CREATE TABLE regress_shop.late (i integer);
ALTER TABLE regress_shop.late OWNER TO regress_root;
SELECT kind, object, role_name, privilege, detail FROM imgpipe.access_drift() ORDER BY 1, 2, 3, 4;
-- (from PostgreSQL 16 on, a membership is revoked GRANTED BY who granted it)
SELECT regexp_replace(statement, ' GRANTED BY .*', '') AS statement, reason, set_role, lacks FROM imgpipe.plan_access();
SELECT hash FROM imgpipe.plan_access() LIMIT 1 \gset
SELECT imgpipe.apply_access(:'hash') > 0 AS applied;
SELECT * FROM imgpipe.plan_access();
SELECT kind, object, role_name, privilege, detail FROM imgpipe.access_drift() ORDER BY 1, 2, 3, 4;
-- where templates decide alone
SELECT imgpipe.set_authoritative('regress_shop');
SELECT statement, reason FROM imgpipe.plan_access('regress_shop');
SELECT hash FROM imgpipe.plan_access('regress_shop') LIMIT 1 \gset
SELECT imgpipe.apply_access(:'hash', 'regress_shop') > 0 AS applied;
SELECT kind, object, role_name, privilege, detail FROM imgpipe.access_drift('regress_shop') ORDER BY 1, 2, 3, 4;
ALTER TABLE regress_shop.late OWNER TO regress_shop_owner;

-- what is made later
SELECT imgpipe.name_creator('regress_shop', 'regress_nobody');
SELECT imgpipe.name_creator('regress_shop', 'regress_shop_owner');
SELECT statement, reason FROM imgpipe.plan_access('regress_shop');
SELECT hash FROM imgpipe.plan_access('regress_shop') LIMIT 1 \gset
SELECT imgpipe.apply_access(:'hash', 'regress_shop') > 0 AS applied;
SET ROLE regress_shop_owner;
CREATE TABLE regress_shop.latest (i integer);
CREATE TABLE regress_shop.log_2 PARTITION OF regress_shop.log FOR VALUES FROM (2) TO (3);
RESET ROLE;
SELECT imgpipe.can('regress_shop_reader', 'SELECT', 'regress_shop.latest');
SELECT kind, object, role_name, privilege FROM imgpipe.access_drift('regress_shop');
SELECT hash FROM imgpipe.plan_access('regress_shop') LIMIT 1 \gset
SELECT imgpipe.apply_access(:'hash', 'regress_shop') AS statements;
SELECT imgpipe.can('regress_shop_reader', 'SELECT', 'regress_shop.log_2') AS partition;

-- members
SELECT imgpipe.add_team_member('regress_shop_boss', 'regress_alice');
SELECT imgpipe.add_team_member('regress_shop_desk', 'regress_nobody');
SELECT imgpipe.add_team_member('regress_shop_desk', 'regress_alice', '2000-01-01');
SELECT imgpipe.add_team_member('regress_shop_desk', 'regress_shop_reader');
SELECT imgpipe.add_team_member('regress_shop_desk', 'regress_root');
SELECT imgpipe.add_team_member('regress_shop_desk', 'regress_alice');
SELECT imgpipe.add_team_member('regress_shop_reader', 'regress_bob');
SELECT p AS privilege, imgpipe.can('regress_alice', p, 'regress_shop.products') AS on_table, imgpipe.can('regress_alice', p, 'regress_shop.products', 'amount') AS on_column
	FROM unnest('{SELECT,INSERT,UPDATE,DELETE,TRUNCATE}'::text[]) p;
SELECT o AS object, imgpipe.can('regress_alice', 'execute', o) FROM unnest('{regress_shop.finish(integer),"regress_shop.finish(integer,text)",regress_shop.tidy}'::text[]) o;
SELECT imgpipe.can('regress_alice', 'USAGE', 'regress_shop'), imgpipe.can('regress_alice', 'CREATE', 'regress_shop'), imgpipe.can('regress_alice', 'SELECT', 'regress_shop.orders') AS no_rule;
SELECT imgpipe.can('regress_nobody', 'SELECT', 'regress_shop.products');
SELECT imgpipe.can('regress_alice', 'SELECT', 'regress_shop.nothing');
\set VERBOSITY terse
SELECT imgpipe.can('regress_alice', 'PEEK', 'regress_shop.products');
\set VERBOSITY default
SELECT imgpipe.can('regress_alice', 'SELECT', 'regress_shop.products', 'nothing');
SELECT * FROM imgpipe.explain_access('regress_alice', 'regress_shop.products');
SELECT * FROM imgpipe.explain_access('regress_bob', 'regress_shop.totals');
SELECT * FROM imgpipe.explain_access('regress_bob', 'regress_shop.finish(integer)');
SET SESSION AUTHORIZATION regress_alice;
INSERT INTO regress_shop.products VALUES (1, 'lamp', 20);
UPDATE regress_shop.products SET amount = 21;
UPDATE regress_shop.products SET product_id = 2;
SELECT regress_shop.finish(1), nextval('regress_shop.numbers');
SELECT regress_shop.finish(1, 'x');
SELECT * FROM imgpipe.plan_access();
RESET SESSION AUTHORIZATION;
SELECT imgpipe.remove_team_member('regress_shop_desk', 'regress_alice');
SELECT imgpipe.remove_team_member('regress_shop_desk', 'regress_alice');
SELECT pg_has_role('regress_alice', 'regress_shop_desk', 'MEMBER');

-- exceptions
SELECT imgpipe.allow_exception('regress_other', 'SELECT', 'regress_shop.orders', '', '2100-01-01');
SELECT imgpipe.allow_exception('regress_other', 'SELECT', 'regress_shop.orders', 'why', '2000-01-01');
SELECT imgpipe.allow_exception('regress_other', 'USAGE', 'regress_shop', 'the audit of 2026', '2100-01-01');
SELECT imgpipe.allow_exception('regress_other', 'SELECT', 'regress_shop.orders', 'the audit of 2026', '2100-01-01', 'state');
SELECT statement, reason FROM imgpipe.plan_access('regress_shop');
SELECT hash FROM imgpipe.plan_access('regress_shop') LIMIT 1 \gset
SELECT imgpipe.apply_access(:'hash', 'regress_shop') AS statements;
SELECT imgpipe.can('regress_other', 'SELECT', 'regress_shop.orders', 'state');
SELECT imgpipe.end_exception('regress_other', 'SELECT', 'regress_shop.orders', 'state');
SELECT imgpipe.end_exception('regress_other', 'SELECT', 'regress_shop.orders');
SELECT imgpipe.end_expired_access() AS ended;
SELECT imgpipe.can('regress_other', 'SELECT', 'regress_shop.orders', 'state');
SELECT * FROM imgpipe.plan_access('regress_shop');

-- each argument that is wrong: an error that has a code, names it, and says what to do
CREATE FUNCTION pg_temp.outcome(call text, wrong text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	message text; detail text; hint text;
BEGIN
	EXECUTE 'SELECT * FROM imgpipe.' || call;
	RETURN 'no error';
EXCEPTION WHEN others THEN
	GET STACKED DIAGNOSTICS message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	RETURN SQLSTATE || CASE WHEN position(wrong IN message || ' ' || detail) = 0 THEN ', does not name it' ELSE '' END || CASE hint WHEN '' THEN ', no hint' ELSE '' END;
END
$$;
SELECT c.outcome, count(*), string_agg(c.call, '; ' ORDER BY c.call COLLATE "C") FILTER (WHERE c.outcome !~ '^\w{5}$') AS bad FROM (
	SELECT split_part(c, '|', 1) AS call, pg_temp.outcome(split_part(c, '|', 1), split_part(c, '|', 2)) AS outcome FROM unnest(string_to_array($$
create_template(NULL)|NULL
create_template('regress_new', copy_of => 'nix')|nix
add_rule('nix', 'desk', 'table', '*', '{SELECT}')|nix
add_rule('regress_desk', 'Desk', 'table', '*', '{SELECT}')|Desk
add_rule('regress_desk', NULL, 'table', '*', '{SELECT}')|team is NULL
add_rule('regress_desk', 'desk', 'tables', '*', '{SELECT}')|tables
add_rule('regress_desk', 'desk', NULL, '*', '{SELECT}')|kind is NULL
add_rule('regress_desk', 'desk', 'table', NULL, '{SELECT}')|object is NULL
add_rule('regress_desk', 'desk', 'table', '*', NULL)|privileges is NULL
add_rule('regress_desk', 'desk', 'table', '*', '{select}')|select
add_rule('regress_desk', 'desk', 'table', '*', '{SELECT}', place => 'a b')|a b
add_rule('regress_desk', 'desk', 'table', 'x', '{SELECT}', columns => '{NULL}')|Columns
add_rule('regress_desk', 'desk', 'table', 'x', '{SELECT}', masked => NULL)|masked is NULL
drop_template('nix')|nix
use_template('nix', 'regress_shop')|nix
use_template('strict', NULL, '{"sales": "regress_shop"}')|NULL
use_template('strict', 'Shop', '{"sales": "regress_shop"}')|Shop
use_template('strict', 'regress_shop', '[]')|[]
use_template('strict', 'regress_shop', '{"sales": null}')|null
use_template('strict', 'regress_shop', '{"shop": "regress_shop"}')|shop
use_template('strict', 'regress_shop', '{"sales": "nowhere"}')|nowhere
use_template('strict', 'regress_shop', '{"sales": "regress_shop"}', '{"items": 1}')|1
stop_template('strict', 'nix')|nix
set_authoritative('nowhere')|nowhere
set_authoritative(NULL)|NULL
name_creator('nowhere', 'regress_other')|nowhere
name_creator('regress_shop', 'nobody')|nobody
name_creator(NULL, NULL)|NULL
create_team_roles('pg_shop')|pg_shop
create_team_roles('regress_shop', '{A B}')|A B
create_team_roles('regress_shop', '{NULL}')|NULL
add_team_member('nix', 'regress_bob')|nix
add_team_member('regress_shop_desk', NULL)|NULL
add_team_member('regress_shop_desk', 'regress_bob', '2000-01-01')|2000-01-01
remove_team_member('regress_shop_desk', 'nobody')|nobody
set_mask('regress_shop.products', 'nix', 'hide')|nix
set_mask('regress_shop.products', NULL, 'hide')|NULL
set_mask(NULL, 'name', 'hide')|NULL
set_mask('regress_shop.products', 'name', 'nix')|nix
new_mask_key('nowhere')|nowhere
allow_exception('nobody', 'SELECT', 'regress_shop.orders', 'x', '2100-01-01')|nobody
allow_exception('regress_bob', 'NIX', 'regress_shop.orders', 'x', '2100-01-01')|NIX
allow_exception('regress_bob', 'SELECT', 'regress_shop.nix', 'x', '2100-01-01')|nix
allow_exception('regress_bob', 'SELECT', 'regress_shop.orders', 'x', NULL)|NULL
allow_exception('regress_bob', 'SELECT', 'regress_shop.orders', 'x', '2100-01-01', 'nix')|nix
end_exception('nobody', 'SELECT', 'regress_shop.orders')|nobody
plan_access('nowhere')|nowhere
apply_access('x', 'nowhere')|nowhere
access_drift('nowhere')|nowhere
access_report('nowhere')|nowhere
access_report_text('nowhere')|nowhere
access_report_html('nowhere')|nowhere
revoke_access('nix')|nix
can('nobody', 'SELECT', 'regress_shop.orders')|nobody
can('regress_bob', 'NIX', 'regress_shop.orders')|NIX
can('regress_bob', 'SELECT', NULL)|NULL
can('regress_bob', 'SELECT', 'regress_shop.orders', 'nix')|nix
explain_access('nobody', 'regress_shop.orders')|nobody
explain_access('regress_bob', 'nix')|nix
allow_access_administration('nobody')|nobody
create_sales_schema(NULL)|NULL
create_sales_schema('regress_shop')|regress_shop
create_sales_schema('regress_new', 'Mars')|Mars
load_sample_data(-1)|-1
load_sample_data(10, 'nowhere')|nowhere
load_sample_data(10, NULL)|NULL$$, E'\n')) c WHERE c <> '') c GROUP BY c.outcome ORDER BY 1;
-- one mapping may be meant for several templates
BEGIN;
SELECT imgpipe.use_template('item_pictures', 'regress_pics', '{"sales": "regress_shop"}', '{"sold_pictures": "shots", "imags.image_id": "nothing", "itens": "products"}');
ROLLBACK;

-- taken back
SELECT imgpipe.drop_template('regress_desk');
SELECT imgpipe.revoke_access('regress_shop_desk') > 0 AS revoked;
SELECT count(*) FROM imgpipe.actual_access() a WHERE a.grantee = 'regress_shop_desk'::regrole;
SELECT * FROM imgpipe.plan_access('regress_shop');
SELECT imgpipe.create_team_roles('regress_shop', '{desk}');
SELECT count(*) > 0 AS planned_again FROM imgpipe.plan_access('regress_shop');
SELECT imgpipe.stop_template('regress_desk', 'regress_shop');
SELECT imgpipe.stop_template('regress_desk', 'regress_shop');
SELECT hash FROM imgpipe.plan_access() LIMIT 1 \gset
SELECT imgpipe.apply_access(:'hash') > 0 AS applied;
SELECT object, privilege, grantee::regrole FROM imgpipe.actual_access() WHERE grantee <> owner ORDER BY 1, 2;
SELECT imgpipe.drop_template('regress_desk');
SELECT action, role_name, acting_role = current_user AS by_me, cardinality(statements) > 0 AS with_statements FROM imgpipe.access_log ORDER BY entry;

DELETE FROM imgpipe.access_memberships;
DELETE FROM imgpipe.access_teams;
DELETE FROM imgpipe.access_schemas;
DELETE FROM imgpipe.access_creators;
DELETE FROM imgpipe.access_exceptions;
DELETE FROM imgpipe.access_log;
DROP SCHEMA regress_shop CASCADE;
DROP OWNED BY regress_other, regress_shop_desk, regress_shop_reader;
DROP ROLE regress_shop_owner, regress_alice, regress_bob, regress_other, regress_root, regress_shop_desk, regress_shop_reader;
