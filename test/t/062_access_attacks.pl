# Members of teams, creators of objects and owners of schemas try to get more than was declared, and to have superusers and
# other teams run what they have laid out for them.
use strict;
use warnings;

use ImgpipeTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_cluster('main', 'log_min_messages = log', 'log_statement = none');

sub query { return $node->safe_psql('postgres', $_[0]) }

# As a role that logs in: what it sees, and the SQLSTATE or message of what it may not.
sub as
{
	my ($login, $sql) = @_;
	my ($output, $errors);
	$node->psql('postgres', $sql, stdout => \$output, stderr => \$errors, on_error_stop => 1, on_error_die => 0, extra_params => [ '-U', $login ]);
	return ($output, $errors);
}

sub refused
{
	my ($login, $sql, $expected, $what) = @_;
	my ($output, $errors) = as($login, $sql);
	like($errors, $expected // qr/permission denied|must be (owner|superuser|member)|must have/, $what // "$login: $sql");
}

# The prize.
sub nobody_rose
{
	my ($what) = @_;
	is(query(q[SELECT string_agg(rolname, ',') FROM pg_roles WHERE rolsuper AND oid <> 10]) . query('SELECT count(*) FROM loot.taken'), '0', $what);
}

query('SELECT imgpipe.stop_workers()');
query(q[
	CREATE ROLE shopkeeper; GRANT CREATE ON DATABASE postgres TO shopkeeper; GRANT USAGE ON SCHEMA imgpipe TO shopkeeper;
	CREATE SCHEMA loot; CREATE TABLE loot.taken (by text, what text); GRANT USAGE ON SCHEMA loot TO PUBLIC; GRANT INSERT ON loot.taken TO PUBLIC;
	SET ROLE shopkeeper;
	SELECT imgpipe.create_sales_schema('shop', 'UTC');
	SELECT imgpipe.load_sample_data(200, 'shop');
	RESET ROLE;
	SELECT imgpipe.use_template('strict', 'co', '{"sales": "shop"}'), imgpipe.use_template('images', 'pix');
	CREATE ROLE ann LOGIN; CREATE ROLE lea LOGIN; CREATE ROLE sam LOGIN; CREATE ROLE una LOGIN; CREATE ROLE ulf LOGIN; CREATE ROLE mallory LOGIN;
	SELECT imgpipe.add_team_member('co_analytics', 'ann'), imgpipe.add_team_member('co_logistics', 'lea'), imgpipe.add_team_member('co_sales', 'sam'),
		imgpipe.add_team_member('pix_uploader', 'una'), imgpipe.add_team_member('pix_uploader', 'ulf');
	CREATE SCHEMA evil AUTHORIZATION mallory; GRANT USAGE ON SCHEMA evil TO PUBLIC;
	CREATE SCHEMA bench; GRANT USAGE, CREATE ON SCHEMA bench TO PUBLIC]);
ok(query('SELECT imgpipe.apply_access((SELECT hash FROM imgpipe.plan_access() LIMIT 1))') > 0, 'the templates are applied');

# The work of the teams, so that what is refused below is not refused because nothing works

is((as('lea', 'SELECT shop.complete_transaction((SELECT min(transaction_id) FROM shop.transactions WHERE status = $$pending$$))'))[0], 't', 'logistics completes an order');
like((as('lea', 'SELECT sum(total_weight) > 0 FROM shop.sales_details'))[0], qr/^t$/, 'and reads weights');
my ($item) = as('sam', q[SELECT shop.add_item('Hood', 10, 5, 0.1, 'Alba')]);
is((as('sam', "SELECT shop.update_item($item, price => 12); SELECT shop.retire_item($item)"))[0], "2\n3", 'sales adds, updates and retires an item');
is((as('ann', q[SELECT count(*), bool_and(name LIKE '_***'), bool_and(email LIKE '_***@example.com'), count(street), bool_and(birth_date BETWEEN 1940 AND 2010)
	FROM shop_co_analytics.members]))[0], '25|t|t|0|t', 'analytics sees members masked');

# Functions, operators, types and casts in a schema that comes first in the search_path of whoever calls imgpipe

(undef, my $laid) = as('mallory', q[
	CREATE FUNCTION evil.loot(what text) RETURNS text LANGUAGE plpgsql AS $$BEGIN
		INSERT INTO loot.taken VALUES (current_user, what);
		ALTER ROLE mallory SUPERUSER;
		RETURN what;
	EXCEPTION WHEN insufficient_privilege THEN RETURN what; END$$;
	CREATE FUNCTION evil.yes(text, text) RETURNS boolean LANGUAGE sql AS 'SELECT evil.loot($$text operator$$) IS NOT NULL';
	CREATE FUNCTION evil.yes(name, name) RETURNS boolean LANGUAGE sql AS 'SELECT evil.loot($$name operator$$) IS NOT NULL';
	CREATE FUNCTION evil.yes(name, text) RETURNS boolean LANGUAGE sql AS 'SELECT evil.loot($$name text operator$$) IS NOT NULL';
	CREATE FUNCTION evil.yes(oid, oid) RETURNS boolean LANGUAGE sql AS 'SELECT evil.loot($$oid operator$$) IS NOT NULL';
	CREATE FUNCTION evil.yes(bigint, bigint) RETURNS boolean LANGUAGE sql AS 'SELECT evil.loot($$bigint operator$$) IS NOT NULL';
	CREATE FUNCTION evil.joined(text, text) RETURNS text LANGUAGE sql AS 'SELECT evil.loot($$||$$)';
	CREATE OPERATOR evil.= (LEFTARG = text, RIGHTARG = text, FUNCTION = evil.yes);
	CREATE OPERATOR evil.<> (LEFTARG = text, RIGHTARG = text, FUNCTION = evil.yes);
	CREATE OPERATOR evil.~ (LEFTARG = text, RIGHTARG = text, FUNCTION = evil.yes);
	CREATE OPERATOR evil.= (LEFTARG = name, RIGHTARG = name, FUNCTION = evil.yes);
	CREATE OPERATOR evil.<> (LEFTARG = name, RIGHTARG = name, FUNCTION = evil.yes);
	CREATE OPERATOR evil.= (LEFTARG = name, RIGHTARG = text, FUNCTION = evil.yes);
	CREATE OPERATOR evil.= (LEFTARG = oid, RIGHTARG = oid, FUNCTION = evil.yes);
	CREATE OPERATOR evil.= (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = evil.yes);
	CREATE OPERATOR evil.|| (LEFTARG = text, RIGHTARG = text, FUNCTION = evil.joined);
	CREATE FUNCTION evil.format(text, VARIADIC text[]) RETURNS text LANGUAGE sql AS 'SELECT evil.loot($$format$$)';
	CREATE FUNCTION evil.quote_ident(text) RETURNS text LANGUAGE sql AS 'SELECT evil.loot($$quote_ident$$)';
	CREATE FUNCTION evil.quote_literal(text) RETURNS text LANGUAGE sql AS 'SELECT evil.loot($$quote_literal$$)';
	CREATE FUNCTION evil.lower(text) RETURNS text LANGUAGE sql AS 'SELECT evil.loot($$lower$$)';
	CREATE FUNCTION evil.md5(text) RETURNS text LANGUAGE sql AS 'SELECT evil.loot($$md5$$)';
	CREATE FUNCTION evil.now() RETURNS timestamptz LANGUAGE sql AS 'SELECT evil.loot($$now$$)::timestamptz';
	CREATE FUNCTION evil.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS 'SELECT evil.loot($$clock_timestamp$$)::timestamptz';
	CREATE FUNCTION evil.array_agg(text) RETURNS text[] LANGUAGE sql AS 'SELECT ARRAY[evil.loot($$array_agg$$)]';
	CREATE FUNCTION evil.has_table_privilege(name, text, text) RETURNS boolean LANGUAGE sql AS 'SELECT evil.loot($$has_table_privilege$$) IS NULL';
	CREATE VIEW evil.pg_roles AS SELECT 10::oid AS oid, evil.loot('pg_roles')::name AS rolname;
	CREATE VIEW evil.pg_class AS SELECT 10::oid AS oid, evil.loot('pg_class')::name AS relname;
	CREATE TYPE evil.name AS (n text); CREATE TYPE evil.text AS (n integer); CREATE DOMAIN evil.regrole AS pg_catalog.text; CREATE DOMAIN evil.jsonb AS pg_catalog.text;
	CREATE TYPE evil.mood AS ENUM ('good');
	CREATE FUNCTION evil.mood_text(evil.mood) RETURNS pg_catalog.text LANGUAGE sql AS 'SELECT evil.loot($$cast$$)';
	CREATE CAST (evil.mood AS pg_catalog.text) WITH FUNCTION evil.mood_text(evil.mood) AS IMPLICIT;
	GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA evil TO PUBLIC; GRANT SELECT ON evil.pg_roles, evil.pg_class TO PUBLIC]);
is($laid, '', 'mallory has laid her traps');
my $path = 'SET search_path = evil, pg_catalog, pg_temp; ';
query("BEGIN; SET LOCAL search_path = evil, pg_catalog; SELECT lower('x'); ROLLBACK");

# All that a superuser calls, and the result of it not looked at with the operators of the trap.
my $superuser = q[
	SELECT imgpipe.create_sales_schema('stall', 'UTC');
	SELECT imgpipe.load_sample_data(20, 'stall');
	SELECT imgpipe.create_team_roles('stall');
	SELECT imgpipe.create_template('own', 'Mine', 'strict');
	SELECT imgpipe.add_rule('own', 'sales', 'table', 'members', '{SELECT}', row_filter => 'own(email)');
	SELECT imgpipe.use_template('own', 'stall', '{"sales": "stall"}');
	SELECT imgpipe.set_mask('stall.members', 'city', 'hash');
	SELECT imgpipe.add_team_member('stall_sales', 'sam');
	SELECT imgpipe.set_authoritative('stall');
	SELECT imgpipe.name_creator('stall', 'shopkeeper');
	SELECT * FROM imgpipe.plan_access();
	SELECT hash FROM imgpipe.plan_access() LIMIT 1 \gset
	SELECT imgpipe.apply_access(:'hash');
	SELECT * FROM imgpipe.access_drift();
	SELECT * FROM imgpipe.declared_access();
	SELECT imgpipe.can('sam', 'SELECT', 'stall.items');
	SELECT * FROM imgpipe.explain_access('sam', 'stall.items');
	SELECT stall.add_item('Cap', 1, 1, 1, 'Alba') AS item \gset
	SELECT stall.update_item(:item, price => 2), stall.retire_item(:item), stall.complete_transaction(20);
	SELECT * FROM stall.items_as_of(pg_catalog.now());
	TABLE stall.sales_details; TABLE stall.unfulfilled_orders_today; TABLE stall.top_members; TABLE stall.top_items; TABLE stall.daily_sales;
	TABLE stall.spending_by_membership_status; TABLE stall_stall_analytics.members;
	SELECT imgpipe.end_expired_access();
	SELECT imgpipe.remove_team_member('stall_sales', 'sam');
	SELECT imgpipe.revoke_access('stall_sales');
	SELECT imgpipe.stop_template('own', 'stall');
	SELECT * FROM imgpipe.image_facts; SELECT * FROM imgpipe.retention_report();
	SELECT imgpipe.schedule('planted', '1 day', 'VACUUM'), imgpipe.unschedule('planted');
	SELECT imgpipe.create_processor('planted', '{"a": "resize(width=1)"}'::pg_catalog.jsonb), imgpipe.drop_processor('planted');
];
my ($output, $errors);
is($node->psql('postgres', $path . $superuser, stdout => \$output, stderr => \$errors, on_error_stop => 1), 0, 'a superuser with a search_path of traps does all of it')
  or diag($errors);
nobody_rose('and calls none of them');
$node->psql('postgres', $path . q[SELECT lower('X')], stdout => \$output);
isnt(query('SELECT count(*) FROM loot.taken'), '0', 'while the traps are good: who calls one is caught');
query('ALTER ROLE mallory NOSUPERUSER; TRUNCATE loot.taken');

# Tables in pg_temp of the names that imgpipe's functions use
query(q[CREATE TEMP TABLE access_rules (template text); CREATE TEMP TABLE pg_class (oid oid); CREATE TEMP TABLE pg_roles (oid oid); CREATE TEMP TABLE items (i integer);
	CREATE FUNCTION pg_temp.quote_ident(text) RETURNS text LANGUAGE sql AS 'SELECT $$x$$'; SET search_path = pg_temp, pg_catalog;
	SELECT count(*) FROM imgpipe.plan_access(); SELECT shop.add_item('Cap', 1, 1, 1, 'Alba')]);
pass('temporary objects of these names change nothing');

# Triggers, rules, defaults and checks that an owner puts on tables, for who writes or plans

query(q[SET ROLE shopkeeper; SELECT imgpipe.create_sales_schema('trap', 'UTC');
	CREATE FUNCTION trap.bite() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN INSERT INTO loot.taken VALUES (current_user, 'trigger'); ALTER ROLE shopkeeper SUPERUSER; RETURN NEW;
		EXCEPTION WHEN insufficient_privilege THEN RETURN NEW; END$$;
	CREATE TRIGGER bite BEFORE INSERT ON trap.members FOR EACH ROW EXECUTE FUNCTION trap.bite();
	CREATE FUNCTION trap.nibble() RETURNS text LANGUAGE plpgsql AS $$BEGIN INSERT INTO loot.taken VALUES (current_user, 'default'); RETURN 'x'; END$$;
	ALTER TABLE trap.items ALTER manufacturer SET DEFAULT trap.nibble();
	CREATE RULE bite AS ON INSERT TO trap.transactions DO ALSO INSERT INTO loot.taken VALUES (current_user, 'rule')]);
($output, $errors) = ('', '');
$node->psql('postgres', q[SELECT imgpipe.load_sample_data(10, 'trap')], stderr => \$errors);
like($errors, qr/sample data for schema "trap" must be loaded by its owner/, 'a superuser does not load sample data into tables of others');
is(query(q[SELECT imgpipe.use_template('strict', 'trap', '{"sales": "trap"}'); SELECT imgpipe.apply_access((SELECT hash FROM imgpipe.plan_access() LIMIT 1)) > 0]), "\nt",
	'a schema with triggers, rules and defaults has its rights applied');
nobody_rose('which runs none of them');
query(q[SELECT imgpipe.stop_template('strict', 'trap'); SELECT imgpipe.apply_access((SELECT hash FROM imgpipe.plan_access() LIMIT 1)); DROP SCHEMA trap CASCADE]);

refused('mallory', 'CREATE TABLE evil.t (transaction_id bigint, status text); CREATE TRIGGER t AFTER UPDATE ON evil.t FOR EACH ROW EXECUTE FUNCTION shop.log_status()', undef,
	'the trigger functions that lend rights cannot be put on tables of others');
refused('sam', 'CREATE TRIGGER t BEFORE INSERT ON shop.items EXECUTE FUNCTION evil.loot()', undef, 'who writes items cannot put a trigger on them');
refused('sam', q[CREATE RULE r AS ON INSERT TO shop.items DO ALSO SELECT 1], undef, 'nor a rule');

# Expressions where names are wanted: masks, filters, names of columns

sub superuser_refused
{
	my ($sql, $expected, $what) = @_;
	my $said = '';
	$node->psql('postgres', $sql, stderr => \$said);
	like($said, $expected, $what);
}
superuser_refused(q[SELECT imgpipe.set_mask('shop.members', 'name', 'evil.loot(name)')], qr/there is no mask/, 'a mask is one of a closed set');
superuser_refused(q[SELECT imgpipe.add_rule('own', 'sales', 'table', 'items', '{SELECT}', row_filter => $$own(name) OR evil.loot('x') IS NULL$$)], qr/rule \d+ of template "own" is not valid/, 'so is a row filter');
superuser_refused(q[SELECT imgpipe.add_rule('own', 'sales', 'table', 'items', '{SELECT}', row_filter => $$flag(is_active) $$)], qr/not valid/, 'to the letter');
superuser_refused(q[SELECT imgpipe.add_rule('own', 'sales', 'table', 'items', '{"SELECT ON shop.members TO mallory; --"}')], qr/not valid/, 'a privilege is one');
for (q[INSERT INTO imgpipe.access_masks VALUES ('shop', 'members', 'name', 'none')], q[UPDATE imgpipe.access_rules SET privileges = '{ALL}'],
	q[SELECT inner_pad FROM imgpipe.mask_keys], q[SELECT imgpipe.set_mask('shop.members', 'name', 'none')], q[SELECT imgpipe.add_team_member('co_sales', 'ann')],
	q[INSERT INTO imgpipe.access_exceptions (role_name) VALUES ('ann')], q[DELETE FROM imgpipe.access_log])
{
	refused('ann', $_);
}
# A type whose casts and output functions are somebody's own is hidden by a mask, not cast.
query(q[ALTER TABLE shop.members ADD mood evil.mood DEFAULT 'good'; SELECT imgpipe.set_mask('shop.members', 'mood', 'partial');
	SELECT imgpipe.apply_access((SELECT hash FROM imgpipe.plan_access() LIMIT 1))]);
is(query('SELECT count(*), count(mood) FROM shop_co_analytics.members'), '25|0', 'a masked column of a type of somebody\'s own is hidden');
nobody_rose('and its cast is not called');

# What a view leaves out, seen through a function that is cheaper than its conditions

for my $login (qw(ann lea una))
{
	as($login, qq[CREATE FUNCTION bench.see_$login(text) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 AS \$\$BEGIN RAISE NOTICE 'seen %', \$1; RETURN true; END\$\$]);
}
sub seen { my %seen = map { $_ => 1 } $_[0] =~ /NOTICE:  seen (.*)/g; return join ' ', sort keys %seen }

my $picture = "decode('47494638396101000100800000000000ffffff2c00000000010001000002024401003b', 'hex')";
as('una', "INSERT INTO imgpipe_pix_uploader.images (content, source_key) VALUES ($picture, 'of una')");
as('ulf', "INSERT INTO imgpipe_pix_uploader.images (content, source_key) VALUES ($picture, 'of ulf')");
is(query('SELECT count(DISTINCT uploaded_by) FROM imgpipe.images'), '2', 'two uploaders have uploaded');
(undef, $errors) = as('una', 'SELECT count(*) FROM imgpipe_pix_uploader.images WHERE bench.see_una(source_key)');
is(seen($errors), 'of una', 'an uploader sees nothing of another\'s rows');
(undef, $errors) = as('una', 'EXPLAIN ANALYZE UPDATE imgpipe_pix_uploader.images SET source_key = source_key WHERE bench.see_una(source_key)');
unlike($errors, qr/of ulf/, 'nor by an UPDATE');
refused('una', "INSERT INTO imgpipe_pix_uploader.images (content, uploaded_by) VALUES ($picture, 'ulf')", qr/violates check option/, 'nor puts rows under another\'s name');
(undef, $errors) = as('ann', 'SELECT count(*) FROM shop_co_analytics.members WHERE bench.see_ann(name) AND bench.see_ann(email)');
unlike($errors, qr/seen (?!.\*\*\*)/, 'a function in a condition gets masked values only');
like($errors, qr/seen .\*\*\*\@example/, 'and gets these');
my $orders = query(q[SELECT string_agg(transaction_id::text, ' ' ORDER BY transaction_id::text COLLATE "C") FROM shop.unfulfilled_orders_today]);
(undef, $errors) = as('lea', 'SELECT count(*) FROM shop.unfulfilled_orders_today WHERE bench.see_lea(transaction_id::text)');
is(seen($errors), $orders, 'logistics sees through a condition the orders of the view and no others');
# Errors tell values, too.
($output, $errors) = as('ann', 'SELECT count(*) FROM shop_co_analytics.members WHERE name::integer > 0');
like($errors, qr/invalid input syntax for type integer: ".\*\*\*"/, 'an error in a condition tells a masked value');

# Functions that lend their owner's rights, called with hostile arguments by a role that may call all of them

query(q[CREATE ROLE caller LOGIN; GRANT USAGE ON SCHEMA imgpipe, shop TO caller; GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA imgpipe, shop TO caller]);
my $hostile = q[x'; ALTER ROLE caller SUPERUSER; --"; ALTER ROLE caller SUPERUSER; -- $$; ALTER ROLE caller SUPERUSER; --];
my @definers = split /\n/, query(q[SELECT p.oid FROM pg_proc p WHERE p.prosecdef AND p.pronamespace IN ('imgpipe'::regnamespace, 'shop'::regnamespace) ORDER BY 1]);
cmp_ok(scalar @definers, '>', 10, 'there are functions that lend rights');
is(query(q[SELECT string_agg(oid::regprocedure::text, ' ') FROM pg_proc WHERE prosecdef AND pronamespace IN ('imgpipe'::regnamespace, 'shop'::regnamespace)
	AND NOT coalesce(proconfig @> '{"search_path=pg_catalog, pg_temp"}', false)]), '', 'all of them with a fixed search_path');
my $tried = 0;
for my $definer (@definers)
{
	my $call = query(qq[SELECT p.oid::regproc || '(' || coalesce((SELECT string_agg(CASE
			WHEN t = ANY ('{text,name,varchar}'::regtype[]) THEN quote_literal(\$hostile\$$hostile\$hostile\$)
			WHEN t = 'text[]'::regtype THEN 'ARRAY[' || quote_literal(\$hostile\$$hostile\$hostile\$) || ']'
			WHEN t = ANY ('{integer,bigint,smallint}'::regtype[]) THEN '1'
			WHEN t = 'boolean'::regtype THEN 'true'
			WHEN t = ANY ('{timestamptz}'::regtype[]) THEN 'now()'
			WHEN t = 'interval'::regtype THEN quote_literal('1 hour')
			WHEN t = 'jsonb'::regtype THEN 'to_jsonb(' || quote_literal(\$hostile\$$hostile\$hostile\$) || '::text)'
			WHEN t = 'regrole'::regtype THEN quote_literal('caller') || '::regrole'
			WHEN t = 'regclass'::regtype THEN quote_literal('pg_class') || '::regclass'
			ELSE 'NULL::' || format_type(t, NULL) END, ', ' ORDER BY i) FROM unnest(p.proargtypes) WITH ORDINALITY a (t, i)), '') || ')' FROM pg_proc p WHERE p.oid = $definer]);
	my (undef, $said) = as('caller', "SET lock_timeout = '2s'; BEGIN; SELECT * FROM $call; SELECT 1 / (SELECT count(*) FROM pg_roles WHERE rolname = 'caller' AND NOT rolsuper); ROLLBACK");
	$tried++ unless $said =~ /permission denied for function/;
	unlike($said, qr/division by zero|syntax error|unterminated/, "no injection: " . substr($call, 0, 60));
}
is($tried, scalar @definers, 'all of them were called');
nobody_rose('and nobody is a superuser');
query('DROP OWNED BY caller; DROP ROLE caller');

# Taking what is not one's own

for my $attack (
	'ALTER VIEW shop_co_analytics.members OWNER TO ann', 'ALTER TABLE shop.items OWNER TO ann', 'ALTER SCHEMA shop OWNER TO ann', 'ALTER SCHEMA shop_co_analytics OWNER TO ann',
	'REASSIGN OWNED BY shopkeeper TO ann', 'DROP OWNED BY shopkeeper', 'DROP VIEW shop_co_analytics.members', 'DROP TABLE shop.items',
	'CREATE OR REPLACE VIEW shop_co_analytics.members AS SELECT 1 AS member_id', 'CREATE VIEW shop_co_analytics.more AS SELECT 1',
	'ALTER VIEW shop_co_analytics.members SET (security_barrier = false)', 'CREATE POLICY p ON imgpipe.images USING (true)', 'ALTER TABLE imgpipe.images DISABLE ROW LEVEL SECURITY',
	'ALTER ROLE co_analytics LOGIN', 'ALTER ROLE ann BYPASSRLS', 'ALTER ROLE ann SUPERUSER', 'GRANT co_analytics TO mallory', 'GRANT co_sales TO ann', 'GRANT shopkeeper TO ann',
	'SET ROLE co_sales', 'SET ROLE shopkeeper', 'SET SESSION AUTHORIZATION lea', 'ALTER DEFAULT PRIVILEGES FOR ROLE shopkeeper GRANT ALL ON TABLES TO ann',
	'ALTER EXTENSION imgpipe ADD SCHEMA bench', 'ALTER EXTENSION imgpipe UPDATE', 'DROP EXTENSION imgpipe', 'ALTER FUNCTION shop.log_status() RESET search_path',
	'CREATE OR REPLACE FUNCTION shop.log_status() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN END$$', 'SET session_replication_role = replica', 'ALTER TABLE shop.transactions DISABLE TRIGGER ALL',
	'BEGIN; LOCK TABLE shop.members', 'CREATE TABLE bench.child () INHERITS (shop.members)', 'CREATE TABLE bench.like_members (LIKE shop.members INCLUDING ALL)', 'ALTER SYSTEM SET row_security = off',
	'SELECT * FROM pg_statistic', 'SELECT pg_read_file($$/etc/passwd$$)', 'COPY (SELECT 1) TO PROGRAM $$true$$', 'SELECT lo_export(1, $$/tmp/x$$)')
{
	refused('ann', $attack);
}
is(query(q[SELECT count(*) FROM pg_stats WHERE schemaname = 'shop']) > 0, 1, 'there are statistics of the tables');
is((as('ann', q[SELECT count(*) FROM pg_stats WHERE schemaname IN ('shop', 'imgpipe')]))[0], '0', 'and analytics sees none of them');
# GRANT without the option to grant gives a warning and nothing.
as('ann', 'GRANT SELECT ON shop_co_analytics.members TO mallory; GRANT USAGE ON SCHEMA shop_co_analytics TO PUBLIC');
is(query(q[SELECT has_table_privilege('mallory', 'shop_co_analytics.members', 'SELECT')]), 'f', 'what was granted cannot be granted on');
# row_security = off is an error, not a way round the fence.
refused('una', 'SET row_security = off; SELECT count(*) FROM imgpipe.images', undef, 'row_security = off opens nothing');
# What an unsuspecting DBA gives away is found.
query('CREATE TABLE shop.gift (i integer); ALTER TABLE shop.gift OWNER TO ann');
like(query(q[SELECT kind, object, role_name FROM imgpipe.access_drift('shop') WHERE object = 'shop.gift']), qr/^ownership\|shop\.gift\|ann$/m, 'a table that a member of a team owns is drift');
query('DROP TABLE shop.gift; ALTER ROLE ann BYPASSRLS; GRANT co_sales TO co_analytics; ALTER ROLE co_logistics LOGIN');
is(query(q[SELECT string_agg(kind || ' ' || object || coalesce(' ' || role_name, ''), ', ' ORDER BY kind, object) FROM imgpipe.access_drift() WHERE kind IN ('BYPASSRLS', 'membership', 'role attribute')]),
	'BYPASSRLS ann ann, membership co_sales co_analytics, role attribute co_logistics co_logistics', 'so are BYPASSRLS, a team in a team, and a team that logs in');
query('ALTER ROLE ann NOBYPASSRLS; ALTER ROLE co_logistics NOLOGIN; SELECT imgpipe.apply_access((SELECT hash FROM imgpipe.plan_access() LIMIT 1))');
is(query(q[SELECT count(*) FROM imgpipe.access_drift() WHERE kind IN ('BYPASSRLS', 'membership', 'role attribute')]), '0', 'and applying the plan takes the membership back');

# A creator opens what will be made

query(q[CREATE ROLE creator LOGIN; GRANT USAGE, CREATE ON SCHEMA shop TO creator; SELECT imgpipe.name_creator('shop', 'creator'); SELECT imgpipe.set_authoritative('shop');
	SELECT imgpipe.allow_exception('creator', p, 'shop', 'makes tables', now() + '1 day') FROM unnest('{USAGE,CREATE}'::text[]) p;
	SELECT imgpipe.apply_access((SELECT hash FROM imgpipe.plan_access() LIMIT 1))]);
as('creator', q[ALTER DEFAULT PRIVILEGES IN SCHEMA shop GRANT ALL ON TABLES TO PUBLIC; ALTER DEFAULT PRIVILEGES IN SCHEMA shop GRANT SELECT ON TABLES TO mallory WITH GRANT OPTION;
	CREATE TABLE shop.opened (i integer)]);
is(query(q[SELECT has_table_privilege('mallory', 'shop.opened', 'DELETE')]), 't', 'a creator has opened a table to all');
like(query(q[SELECT DISTINCT kind, object, role_name FROM imgpipe.access_drift('shop') WHERE kind = 'default privileges' ORDER BY 3]), qr/creator in shop\|mallory\n.*creator in shop\|public/,
	'drift shows the default privileges');
query('SELECT imgpipe.apply_access((SELECT hash FROM imgpipe.plan_access() LIMIT 1))');
as('creator', 'CREATE TABLE shop.closed (i integer)');
is(query(q[SELECT string_agg(DISTINCT (has_table_privilege('mallory', t, p))::text, ',') FROM unnest('{shop.opened,shop.closed}'::text[]) t, unnest('{SELECT,INSERT,UPDATE,DELETE,TRUNCATE}'::text[]) p]),
	'false', 'and applying the plan closes that table and those to come');
is(query('SELECT count(*) FROM imgpipe.plan_access()'), '0', 'nothing is left to do');
query('DROP TABLE shop.opened, shop.closed');

# Names that would be SQL if they were not quoted

my $crafted = q[x"; ALTER ROLE mallory SUPERUSER; -- ' $$ % \\ @sales@];
(my $quoted = $crafted) =~ s/"/""/g;
$quoted = qq["$quoted"];
query(qq[
	SET ROLE shopkeeper;
	CREATE SCHEMA $quoted;
	CREATE TABLE $quoted.$quoted ($quoted text, uploaded_by text, other integer);
	INSERT INTO $quoted.$quoted VALUES ('secret', 'ann', 1), ('secret', 'bob', 2);
	CREATE FUNCTION $quoted.$quoted() RETURNS integer LANGUAGE sql AS 'SELECT 1';
	CREATE SEQUENCE $quoted."${\ substr($quoted, 1, 30)}_s";
	RESET ROLE;
	CREATE ROLE $quoted LOGIN;
	SELECT imgpipe.create_template('crafted');
	SELECT imgpipe.add_rule('crafted', 'reader', 'table', '*', '{SELECT}', place => 'odd', masked => true),
		imgpipe.add_rule('crafted', 'writer', 'table', '*', '{SELECT,UPDATE}', place => 'odd', columns => ARRAY[\$name\$$crafted\$name\$]),
		imgpipe.add_rule('crafted', 'owner', 'table', '*', '{SELECT,INSERT}', place => 'odd', row_filter => 'own(uploaded_by)'),
		imgpipe.add_rule('crafted', 'caller', 'function', '*', '{EXECUTE}', place => 'odd', future => true);
	SELECT imgpipe.use_template('crafted', 'odd', jsonb_build_object('odd', \$name\$$crafted\$name\$));
	SELECT imgpipe.set_mask(\$name\$$quoted.$quoted\$name\$, \$name\$$crafted\$name\$, 'hash');
	SELECT imgpipe.set_authoritative(\$name\$$crafted\$name\$), imgpipe.name_creator(\$name\$$crafted\$name\$, 'shopkeeper');
	SELECT imgpipe.add_team_member('odd_reader', \$name\$$crafted\$name\$);
	GRANT SELECT ON $quoted.$quoted TO mallory]);
like(query(q[SELECT detail FROM imgpipe.access_drift() WHERE kind = 'policies']), qr/GRANT SELECT ON imgpipe\.mask_keys TO shopkeeper;/, 'the mask hash needs its key');
query('GRANT SELECT ON imgpipe.mask_keys TO shopkeeper');
ok(query('SELECT imgpipe.apply_access((SELECT hash FROM imgpipe.plan_access() LIMIT 1))') > 0, 'a schema of crafted names has its rights applied');
is(query('SELECT count(*) FROM imgpipe.plan_access()') . query(qq[SELECT has_table_privilege('mallory', \$name\$$quoted.$quoted\$name\$, 'SELECT')]), '0f', 'wholly, and others\' are taken back');
is(query(qq[SET SESSION AUTHORIZATION $quoted; SELECT count(*), bool_and(length($quoted) = 64), min(other) FROM "${\ query(qq[SELECT replace(imgpipe.team_schema(\$name\$$crafted\$name\$, 'odd_reader'), '"', '""')])}".$quoted]),
	'2|t|1', 'its masked view can be read');
query(q[SELECT count(*) FROM imgpipe.access_drift(); SELECT imgpipe.revoke_access('odd_reader')]);
nobody_rose('and nobody is a superuser');

# What PostgreSQL lets us see of refused attempts
query(q[GRANT SELECT ON shop.members TO mallory]);
superuser_refused(q[SELECT imgpipe.apply_access('0000')], qr/the plan is not the one that was shown/, 'a wrong hash is refused');
like(slurp_file($node->logfile), qr/imgpipe access: refused, for "\w+": the plan is not the one that was shown/, 'and that is in the server log');

done_testing();
