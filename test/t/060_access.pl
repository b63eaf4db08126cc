# Access templates with real logins: an administrator who is no superuser, members of teams, expiry by a job, who must apply what,
# dump and restore, DROP EXTENSION, and many objects and roles.
use strict;
use warnings;

use ImgpipeTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $node = new_cluster('main', "timezone = 'UTC'", 'log_min_messages = log');

sub query { return $node->safe_psql('postgres', $_[0]) }
my $superuser = query('SELECT current_user');

# As a login: the output, or the error's SQLSTATE and message.
sub as
{
	my ($login, $sql) = @_;
	my ($status, $out, $err) = $node->psql('postgres', "\\set VERBOSITY verbose\n$sql", extra_params => [ '-U', $login ], on_error_stop => 1);
	return $out if $status == 0;
	return $err =~ /ERROR:\s+(\w{5}): (.*)/ ? "$1 $2" : $err;
}

# Plans and applies as a login, and returns how many statements it were.
sub apply
{
	my ($login, $schema) = @_;
	$schema = defined $schema ? "'$schema'" : 'NULL';
	my $hash = as($login, "SELECT hash FROM imgpipe.plan_access($schema) LIMIT 1");
	return as($login, "SELECT imgpipe.apply_access('$hash', $schema)");
}

# An administrator with CREATEROLE and no more

query(q[
	CREATE ROLE dba LOGIN CREATEROLE;
	CREATE ROLE ann LOGIN; CREATE ROLE lee LOGIN; CREATE ROLE sam LOGIN;
	GRANT CREATE ON DATABASE postgres TO dba]);
like(as('dba', q[SELECT imgpipe.use_template('strict', 'shop')]), qr/^42501 /, 'nothing is granted at installation');
query(q[SELECT imgpipe.allow_access_administration('dba')]);
like(as('dba', q[SELECT imgpipe.allow_access_administration('ann')]), qr/^42501 /, 'an administrator makes no other');
like(as('dba', q[UPDATE imgpipe.access_log SET action = 'nothing']), qr/^42501 /, 'nor changes the log');
is(as('dba', q[SELECT imgpipe.create_sales_schema('sales', 'UTC')]), '', 'the schema is the administrator\'s own');
is(as('dba', q[SELECT imgpipe.load_sample_data(200, 'sales')]) =~ /^\w{5} / ? 'failed' : '', '', 'with some data');
is(as('dba', q[SELECT imgpipe.use_template('strict', 'shop'); SELECT imgpipe.set_authoritative('sales')]), "\n", 'strict is in use');
cmp_ok(apply('dba'), '>', 10, 'and applied');
is(as('dba', 'SELECT count(*) FROM imgpipe.plan_access()'), '0', 'with nothing left');
is(as('dba', 'SELECT count(*) FROM imgpipe.access_drift()'), '0', 'and no drift');
is(as('dba', qq[SELECT imgpipe.add_team_member('shop_$_->[0]', '$_->[1]')]), '', "$_->[1] joins $_->[0]") for [ 'analytics', 'ann' ], [ 'logistics', 'lee' ], [ 'sales', 'sam' ];

# What the members can do

is(as('ann', q[SELECT count(*), count(*) FILTER (WHERE name ~ '^.\*\*\*$'), count(street) FROM sales_shop_analytics.members]),
	query('SELECT count(*), count(*), 0 FROM sales.members'), 'analytics reads masked members');
is(as('ann', 'SELECT sum(total_weight) FROM sales_shop_analytics.sales_details'), query('SELECT sum(total_weight) FROM sales.sales_details'), 'and sales as they are');
like(as('ann', "SELECT * FROM $_"), qr/^42501 permission denied for schema/, "not $_") for 'sales.members', 'sales.sales_details', 'imgpipe.mask_keys', 'imgpipe.images';
like(as('ann', "DELETE FROM sales_shop_analytics.items"), qr/^42501 /, 'nor writes');
my $order = query(q[INSERT INTO sales.transactions (member_id) SELECT min(member_id) FROM sales.members RETURNING transaction_id]);
is(as('lee', "SELECT sales.complete_transaction($order), sales.complete_transaction($order)"), 't|f', 'logistics checks an order off');
like(as('lee', "UPDATE sales.transactions SET member_id = 1"), qr/^42501 /, 'and changes nothing else of it');
like(as('lee', "SELECT email FROM sales.members"), qr/^42501 /, 'nor reads personal data');
is(as('sam', "SELECT sales.retire_item(sales.add_item('lamp', 20, 10, 1.5, 'Lumen'))"), '2', 'sales adds and retires an item');
like(as('sam', $_), qr/^42501 /, $_) for 'DELETE FROM sales.items', 'TRUNCATE sales.items', 'UPDATE sales.items SET price = 0', 'SELECT * FROM sales.transactions', 'ALTER TABLE sales.items ADD x integer',
	'CREATE TABLE sales.x ()';
is(as('sam', 'GRANT SELECT ON sales.items TO PUBLIC; SELECT count(*) FROM pg_class c, aclexplode(c.relacl) a WHERE c.oid = \'sales.items\'::regclass AND a.grantee = 0'), '0', 'what sales may read it cannot grant on');

# Who must apply what

is(as('dba', q[SELECT imgpipe.use_template('images', 'pics')]), '', 'a template of tables that are not the administrator\'s');
like(apply('dba'), qr/^42501 role "dba" cannot execute \d+ of \d+ statements/, 'is refused');
is(as('dba', q[SELECT DISTINCT lacks FROM imgpipe.plan_access() WHERE lacks IS NOT NULL ORDER BY 1]), "SET ROLE $superuser\nrights of $superuser", 'and the plan says what it takes');
is(as('dba', q[SELECT imgpipe.set_mask('sales.members', 'email', 'hash')]), '', 'the administrator\'s own schema');
is(apply('dba', 'sales'), '3', 'is applied alone');
like(as('ann', 'SELECT email FROM sales_shop_analytics.members LIMIT 1'), qr/^[0-9a-f]{64}$/, 'the mask is another');
cmp_ok(apply($superuser), '>', 5, 'a superuser applies the rest');
is(query('SELECT count(*) FROM imgpipe.plan_access()'), '0', 'with nothing left');
like(as('dba', q[SELECT imgpipe.apply_access('0000', 'sales')]), qr/^0$/, 'where nothing is to be done no hash is wrong');
query('REVOKE SELECT ON sales.top_items FROM shop_sales');
like(as('dba', q[SELECT imgpipe.apply_access('0000', 'sales')]), qr/^55000 the plan is not the one that was shown/, 'otherwise another plan is refused');
ok($node->wait_for_log(qr/imgpipe access: refused, for "dba": the plan is not the one that was shown/), 'which the server log says');
is(apply('dba', 'sales'), '1', 'the right one is applied');

# Administrators of a schema that a group owns: who is a member with all options, who must SET ROLE first, who must not, and who is none

my $by_grantor = query('SHOW server_version_num') >= 160000;
my @deputies = qw(deputy becoming outsider);
query(q[CREATE ROLE desk_owner; GRANT CREATE ON DATABASE postgres TO desk_owner; GRANT USAGE ON SCHEMA imgpipe TO desk_owner;
	SET ROLE desk_owner; SELECT imgpipe.create_sales_schema('desk', 'UTC')]);
query(qq[CREATE ROLE $_ LOGIN CREATEROLE; SELECT imgpipe.allow_access_administration('$_')]) for @deputies;
query(q[GRANT CREATE ON DATABASE postgres TO deputy, becoming; ALTER ROLE becoming NOINHERIT; GRANT desk_owner TO deputy, becoming]);
if ($by_grantor)
{
	push @deputies, 'inheriting';
	query(q[CREATE ROLE inheriting LOGIN CREATEROLE; SELECT imgpipe.allow_access_administration('inheriting');
		GRANT CREATE ON DATABASE postgres TO inheriting; GRANT desk_owner TO inheriting WITH INHERIT TRUE, SET FALSE]);
}
as('deputy', q[SELECT imgpipe.use_template('strict', 'desk', '{"sales": "desk"}')]);
my $lacks = q[SELECT reason, coalesce(set_role, 'none') || coalesce(', lacks ' || lacks, '') FROM imgpipe.plan_access('desk') GROUP BY 1, 2 ORDER BY 1, 2];
my %lacks = (
	deputy => "create schema|none\ncreate view|desk_owner\nmissing|none",
	becoming => "create schema|none\ncreate view|desk_owner\nmissing|desk_owner",
	inheriting => "create schema|none, lacks SET ROLE desk_owner\ncreate view|desk_owner, lacks SET ROLE desk_owner\nmissing|none",
	outsider => "create schema|none, lacks SET ROLE desk_owner, CREATE ON DATABASE postgres\ncreate view|desk_owner, lacks SET ROLE desk_owner\nmissing|desk_owner, lacks rights of desk_owner");
is(as($_, $lacks), $lacks{$_}, "what $_ has of a plan and has not") for @deputies;
my $hash = as('deputy', q[SELECT hash FROM imgpipe.plan_access('desk') LIMIT 1]);
is(as($_, q[SELECT hash FROM imgpipe.plan_access('desk') LIMIT 1]), $hash, "its hash is the same for $_") for @deputies;
like(as($_, qq[SELECT imgpipe.apply_access('$hash', 'desk')]), qr/^42501 role "$_" cannot execute \d+ of 21 statements$/, "$_ cannot apply it") for grep { $lacks{$_} =~ /lacks/ } @deputies;
is(as($_, qq[BEGIN; SELECT imgpipe.apply_access('$hash', 'desk'); SELECT count(*) FROM imgpipe.plan_access('desk'); ROLLBACK]), "21\n0", "$_ can") for grep { $lacks{$_} !~ /lacks/ } @deputies;
is(apply('becoming', 'desk'), '21', 'and does');
is(query(q[SELECT DISTINCT c.relowner::regrole FROM pg_class c WHERE c.relnamespace = 'desk_desk_analytics'::regnamespace]), 'desk_owner', 'views are the owner\'s');

# Who may add members: on PostgreSQL 15 whoever has CREATEROLE, from 16 on who made the team, or to whom it was granted with ADMIN
is(as('deputy', q[SELECT imgpipe.add_team_member('desk_sales', 'sam')]), '', 'who made a team adds a member');
is(as('sam', 'SELECT count(*) FROM desk.items'), '0', 'who is one then');
query('REVOKE desk_sales FROM sam GRANTED BY deputy') if $by_grantor;
query('REVOKE desk_sales FROM sam') unless $by_grantor;
is(as('outsider', q[SELECT statement, lacks FROM imgpipe.plan_access() WHERE reason ~ 'membership']), 'GRANT desk_sales TO sam|' . ($by_grantor ? 'ADMIN OPTION FOR desk_sales' : ''),
	'another administrator lacks ADMIN or does not');
like(as('outsider', q[SELECT imgpipe.add_team_member('desk_sales', 'sam')]), $by_grantor ? qr/^42501 / : qr/^$/, 'and adds nobody, or does');
is(as('deputy', q[GRANT desk_sales TO outsider WITH ADMIN TRUE, INHERIT FALSE, SET FALSE]), '', 'to whom ADMIN is granted, and nothing else') if $by_grantor;
is(as('outsider', q[SELECT imgpipe.add_team_member('desk_sales', 'sam'); SELECT statement FROM imgpipe.plan_access() WHERE reason ~ 'membership'; SELECT imgpipe.remove_team_member('desk_sales', 'sam')]), "\n",
	'adds and removes members and is none');
like(as('sam', 'SELECT count(*) FROM desk.items'), qr/^42501 /, 'as is the one removed');
if ($by_grantor)
{
	query(q[ALTER ROLE deputy SET createrole_self_grant = 'set, inherit']);
	as('deputy', q[SELECT imgpipe.create_team_roles('own')]);
	is(as('deputy', q[SELECT count(*) FROM imgpipe.plan_access() WHERE reason = 'membership: extra' AND lacks IS NULL]), '3', 'who becomes a member by making a team is no member that was declared');
	as('deputy', q[REVOKE own_logistics, own_analytics, own_sales FROM deputy GRANTED BY deputy]);
}
as('deputy', q[SELECT imgpipe.stop_template('strict', 'desk')]);
cmp_ok(apply('deputy', 'desk'), '>', 0, 'all of it is taken back');

# The end of a membership and of an exception, by a job

is(as('dba', q[SELECT imgpipe.schedule('end_expired_access', '1 second', 'SELECT imgpipe.end_expired_access()') > 0]), 't', 'the job is the administrator\'s');
is(as('dba', q[SELECT imgpipe.add_team_member('shop_sales', 'ann', clock_timestamp() + interval '5 seconds');
	SELECT pg_has_role('ann', 'shop_sales', 'MEMBER')]), "\nt", 'a membership for a while');
is(as('dba', q[SELECT imgpipe.allow_exception('ann', 'USAGE', 'sales', 'audit', clock_timestamp() + interval '5 seconds');
	SELECT imgpipe.allow_exception('ann', 'SELECT', 'sales.items', 'audit', clock_timestamp() + interval '5 seconds')]), "\n", 'and exceptions');
ok(poll_until($node, q[SELECT pg_has_role('ann', 'shop_sales', 'MEMBER')], 'f'), 'the membership ends');
ok(poll_until($node, q[SELECT count(*) FROM imgpipe.access_exceptions], '0'), 'the exceptions end');
like(as('ann', 'SELECT count(*) FROM sales.items'), qr/^42501 /, 'and nothing of them is left');
is(query(q[SELECT DISTINCT session_role FROM imgpipe.access_log WHERE action = 'membership ended']), 'dba', 'the log says so');
is(query(q[SELECT count(*) FROM imgpipe.access_drift('sales')]), '0', 'no drift');

# Escalation by SET ROLE, and grants behind the administrator's back

query('GRANT shop_sales TO lee');
is(as('lee', 'SET ROLE shop_sales; SELECT count(*) > 0 FROM sales.items'), 't', 'a membership that nobody declared');
is(query(q[SELECT kind, object, role_name FROM imgpipe.access_drift() WHERE kind NOT IN ('beside', 'PUBLIC')]), 'membership|shop_sales|lee', 'is drift');
# From PostgreSQL 16 on CREATEROLE does not revoke what another role granted.
is(as('dba', 'SELECT lacks FROM imgpipe.plan_access()'), $by_grantor ? "rights of $superuser" : '', 'the plan says whose rights its end takes');
like(apply('dba'), $by_grantor ? qr/^42501 role "dba" cannot execute 1 of 1 statements$/ : qr/^1$/, 'which the administrator has or has not');
apply($superuser) if $by_grantor;
like(as('lee', 'SET ROLE shop_sales'), qr/^42501 /, 'and taken back');

# A dump holds the templates, their uses, and the rights

query(q[SELECT imgpipe.create_template('mine', 'Of the house.', copy_of => 'strict'); SELECT imgpipe.add_rule('mine', 'sales', 'table', 'daily_sales', '{SELECT}');
	SELECT imgpipe.stop_template('images', 'pics')]);
apply($superuser);
my $dump = $node->basedir . '/access.sql';
$node->command_ok([ 'pg_dump', '--no-sync', '-f', $dump, $node->connstr('postgres') ], 'dump');
query('CREATE DATABASE copy');
$node->command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-f', $dump, $node->connstr('copy') ], 'restored');
sub in_copy { return $node->safe_psql('copy', $_[0]) }
is(in_copy(q[SELECT count(*) FROM imgpipe.access_rules WHERE template = 'mine']), query(q[SELECT count(*) + 1 FROM imgpipe.access_rules WHERE template = 'strict']), 'a template of one\'s own');
is(in_copy(q[SELECT count(*) FROM imgpipe.access_templates WHERE shipped]), query(q[SELECT count(*) FROM imgpipe.access_templates WHERE shipped]), 'those that are shipped, once');
is(in_copy(q[SELECT string_agg(statement, '; ') FROM imgpipe.plan_access()]), '', 'nothing to apply');
is(in_copy(q[SELECT string_agg(kind || ' ' || object, '; ') FROM imgpipe.access_drift()]), '', 'no drift');
is(in_copy('SELECT email FROM sales_shop_analytics.members ORDER BY member_id LIMIT 1'), query('SELECT email FROM sales_shop_analytics.members ORDER BY member_id LIMIT 1'), 'hashes are the same');
query('DROP DATABASE copy WITH (FORCE)');

# Roles that are gone, whose OIDs a GRANT at the same time as DROP ROLE left in access control lists

query(q[CREATE ROLE gone; GRANT USAGE ON SCHEMA sales TO gone; GRANT SELECT ON sales.items TO gone WITH GRANT OPTION; GRANT SELECT (name) ON sales.members TO gone;
	GRANT EXECUTE ON FUNCTION sales.retire_item TO gone; SET ROLE gone; GRANT SELECT ON sales.items TO shop_logistics; RESET ROLE; DELETE FROM pg_authid WHERE rolname = 'gone']);
is(query(q[SELECT count(*), count(*) FILTER (WHERE role_name = 'shop_logistics' AND detail ~ 'granted by the dropped role'), bool_and(what_to_do ~ 'UPDATE pg_catalog') FROM imgpipe.access_drift()]), '5|1|t',
	'drift shows what they were granted and what they granted');
is(query('SELECT count(*) FROM imgpipe.plan_access()'), '0', 'which no statement can take back');
query($_) for split /\n/, query(q[SELECT substr(what_to_do, strpos(what_to_do, 'UPDATE')) FROM imgpipe.access_drift()]);
is(query('SELECT count(*) FROM imgpipe.access_drift()'), '0', 'but a superuser, as drift says how');

# What DROP EXTENSION leaves

my ($status, $out, $err) = $node->psql('postgres', 'DROP EXTENSION imgpipe');
like($err, qr/view sales_shop_analytics\.members depends on /, 'masked views keep the extension from being dropped');
($status, $out, $err) = $node->psql('postgres', 'DROP EXTENSION imgpipe CASCADE');
is($status, 0, 'CASCADE drops it');
like($err, qr/NOTICE:  schemas that stay, with all that is in them: desk, sales\n/, 'and says which schemas stay');
like($err, qr/NOTICE:  team roles that stay, .*: desk_analytics, .*shop_analytics, shop_logistics, shop_sales\n/, 'and which roles');
like($err, qr/drop cascades to .*view sales_shop_analytics\.members/s, 'and says which views go');
is(query(q[SELECT count(*) FROM sales.members]) > 0, 1, 'the user\'s schema stays');
is(as('lee', "SELECT sales.complete_transaction($order)"), 'f', 'with its rights');
is(query(q[SELECT count(*) FROM pg_roles WHERE rolname ~ '^shop_']), '3', 'and the roles');

query('CREATE EXTENSION imgpipe');
query(q[SELECT imgpipe.use_template('strict', 'shop'); SELECT imgpipe.add_team_member('shop_analytics', 'ann')]);
is(query(q[SELECT string_agg(DISTINCT reason, ', ' ORDER BY reason) FROM imgpipe.plan_access() WHERE statement ~ '^(DROP|CREATE)']), 'create view, drop view', 'installed again, the plan takes up views that stayed');
cmp_ok(apply($superuser), '>', 0, 'and they are as they were');
is(as('ann', q[SELECT count(*) FROM sales_shop_analytics.members WHERE name !~ '^.\*\*\*$']), '0', 'masked');
query(q[SELECT imgpipe.stop_template('strict', 'shop')]);
apply($superuser);

# Many objects, many roles

query(q[
	CREATE SCHEMA bulk;
	DO $$BEGIN FOR i IN 1 .. 2000 LOOP EXECUTE format('CREATE TABLE bulk.t%s (i integer)', i); END LOOP; END$$;
	SELECT imgpipe.create_template('bulk', 'Many.');
	INSERT INTO imgpipe.access_rules (template, rule, team, place, kind, object, privileges)
		SELECT 'bulk', i, 't' || i, 'bulk', 'table', '*', '{SELECT,INSERT}' FROM generate_series(1, 200) i;
	SELECT imgpipe.use_template('bulk', 'many')]);
my $began = time;
my $statements = apply($superuser);
diag(sprintf('2000 tables, 200 roles: planned and applied in %.1f s', time - $began));
cmp_ok($statements, '>', 0, '2000 tables and 200 roles');
is(query(q[SELECT count(*) FROM pg_class c, aclexplode(c.relacl) a WHERE c.relnamespace = 'bulk'::regnamespace AND a.grantee <> c.relowner]), '800000', 'have their 800,000 privileges');
$began = time;
is(query('SELECT count(*) FROM imgpipe.access_drift()'), '0', 'no drift');
diag(sprintf('drift in %.1f s', time - $began));
query('REVOKE SELECT ON bulk.t77 FROM many_t5; GRANT DELETE ON bulk.t78 TO many_t6');
$began = time;
is(query('SELECT kind, object, role_name, privilege FROM imgpipe.access_drift() ORDER BY 1'), "extra|bulk.t78|many_t6|DELETE\nmissing|bulk.t77|many_t5|SELECT", 'two of them are found');
diag(sprintf('in %.1f s', time - $began));

done_testing();
