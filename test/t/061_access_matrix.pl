# What the templates declare is what a team can do, and nothing else: a member of each team of each shipped template logs
# in and tries every privilege on every object, as itself and as its team.
#
# What must work is computed here, from the rows of the templates alone; what does work is tried.  Each attempt is a
# statement of psql in a transaction that is rolled back, and is told by its SQLSTATE.
use strict;
use warnings;

use ImgpipeTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_cluster('main', 'log_min_messages = fatal', 'log_statement = none');

sub query { return $node->safe_psql('postgres', $_[0]) }
sub rows { return map { [ split /\|/, $_, -1 ] } split /\n/, query($_[0]) }

query('SELECT imgpipe.stop_workers()');

# Templates, and the teams of each, are what imgpipe ships.
my %teams;
push @{ $teams{ $_->[0] } }, $_->[1] for rows('SELECT DISTINCT template, team FROM imgpipe.access_rules ORDER BY 1, 2');
is(join(' ', sort keys %teams), 'images item_level item_pictures read_for_all strict table_level', 'the templates that are tried');
my @of_shops = grep { $_ ne 'images' } sort keys %teams;

# A shop for each, with what create_sales_schema() does not make: a matter of everybody's schema sooner or later.
query('CREATE ROLE shopkeeper; GRANT USAGE ON SCHEMA imgpipe TO shopkeeper; GRANT CREATE ON DATABASE postgres TO shopkeeper');
for my $shop (map {"shop_$_"} @of_shops)
{
	query(qq[
		SET ROLE shopkeeper;
		SELECT imgpipe.create_sales_schema('$shop');
		SELECT imgpipe.load_sample_data(50, '$shop');
		CREATE TABLE $shop.visits (visit_id bigint PRIMARY KEY, seen_at timestamptz) PARTITION BY RANGE (visit_id);
		CREATE TABLE $shop.visits_1 PARTITION OF $shop.visits FOR VALUES FROM (1) TO (100);
		CREATE MATERIALIZED VIEW $shop.stored_sales AS SELECT * FROM $shop.daily_sales;
		CREATE SEQUENCE $shop.receipts;
		CREATE TABLE $shop."odd ""name; DROP" ("a ""column" integer PRIMARY KEY, "*" text);
		CREATE FUNCTION $shop.helper(text) RETURNS text LANGUAGE sql AS 'SELECT \$1';
		CREATE PROCEDURE $shop.tidy(integer) LANGUAGE sql AS 'SELECT 1';
		REVOKE EXECUTE ON ALL ROUTINES IN SCHEMA $shop FROM PUBLIC]);
}
for my $template (sort keys %teams)
{
	my $schemas = $template eq 'images' ? '{}' : qq[{"sales": "shop_$template"}];
	query("SELECT imgpipe.use_template('$template', '$template', '$schemas')");
	for my $team (@{ $teams{$template} })
	{
		my $login = "login_${template}_$team";
		query(qq[
			CREATE ROLE $login LOGIN;
			SELECT imgpipe.add_team_member('${template}_$team', '$login');
			CREATE SCHEMA scratch_$login AUTHORIZATION $login;
			CREATE FUNCTION scratch_$login.noop() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
			GRANT EXECUTE ON FUNCTION scratch_$login.noop TO $login]);
	}
}
query('SELECT imgpipe.name_creator($$shop_read_for_all$$, $$shopkeeper$$)');
ok(query('SELECT imgpipe.apply_access((SELECT hash FROM imgpipe.plan_access() LIMIT 1))') > 0, 'all of it is applied');
is(query('SELECT reason, statement FROM imgpipe.plan_access()'), '', 'and then there is nothing to do');
is(query('SELECT view FROM imgpipe.unfenced_views()'), '', 'no view of a team shows images past their deadline');
# What is made afterwards, by the creator that was named, is for whom the template says future.
query("SET ROLE shopkeeper; CREATE TABLE $_.later (later_id integer PRIMARY KEY)") for map {"shop_$_"} @of_shops;

# Where triggers and foreign keys on what is tried can come from, of the login and of its team. (Not before: what a team has, a plan takes back.)
for my $template (sort keys %teams)
{
	for my $login (map {"login_${template}_$_"} @{ $teams{$template} })
	{
		(my $role = $login) =~ s/^login_//;
		query("GRANT ALL ON SCHEMA scratch_$login TO $role; GRANT EXECUTE ON FUNCTION scratch_$login.noop TO $role");
	}
}

# What there is, and what could be done to it.  Of partitions in imgpipe_partitions one for each parent.
my (%relation, %function);
for (rows(q[
	SELECT c.oid, n.nspname, c.relname, c.oid::regclass, c.relkind, c.relispartition,
			c.relkind <> 'v' OR pg_relation_is_updatable(c.oid, false) & 8 > 0, c.relkind <> 'v' OR pg_relation_is_updatable(c.oid, false) & 16 > 0,
			(SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY k.position) FROM pg_index i, unnest(i.indkey) WITH ORDINALITY k (attnum, position)
				JOIN pg_attribute a ON a.attnum = k.attnum WHERE i.indrelid = c.oid AND a.attrelid = c.oid AND i.indisprimary)
		FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
			AND (n.nspname IN ('imgpipe') OR n.nspname ~ '^(shop|imgpipe)_' AND n.nspname <> 'imgpipe_partitions'
				OR c.oid IN (SELECT min(i.inhrelid::oid) FROM pg_inherits i JOIN pg_class p ON p.oid = i.inhrelid WHERE p.relkind = 'r' GROUP BY i.inhparent))]))
{
	my %r;
	@r{qw(oid schema name quoted kind partition insertable deletable key)} = @$_;
	$relation{ $r{oid} } = \%r;
}
for (rows(q[SELECT a.attrelid, a.attname, quote_ident(a.attname), format_type(a.atttypid, a.atttypmod), a.attgenerated,
		c.relkind <> 'v' OR pg_column_is_updatable(c.oid, a.attnum, false)
		FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid WHERE a.attnum > 0 AND NOT a.attisdropped AND c.relkind <> 'S' ORDER BY a.attrelid, a.attnum]))
{
	my %c;
	@c{qw(relation name quoted type generated updatable)} = @$_;
	push @{ $relation{ $c{relation} }{columns} }, \%c if $relation{ $c{relation} };
}
# Arguments are subqueries, because a strict function of a constant NULL would not even be looked at.
for (rows(q[SELECT p.oid, n.nspname, p.proname, oidvectortypes(p.proargtypes), p.prokind,
		quote_ident(n.nspname) || '.' || quote_ident(p.proname) || '('
			|| coalesce((SELECT string_agg(format(CASE p.prokind WHEN 'p' THEN 'NULL::%s' ELSE '(SELECT NULL::%s)' END, format_type(t, NULL)), ', ') FROM unnest(p.proargtypes) t), '') || ')'
		FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname ~ '^shop_' OR (n.nspname = 'imgpipe' AND NOT has_function_privilege('public', p.oid, 'EXECUTE'))]))
{
	my %f;
	@f{qw(oid schema name types kind call)} = @$_;
	$function{ $f{oid} } = \%f;
}

# What the rows of a template mean for one team: privileges on relations (by schema and name), on their columns, and on functions.
sub declared
{
	my ($template, $team) = @_;
	my (%whole, %column, %execute, %usage, %view_decided);
	for (rows(qq[SELECT place, kind, object, array_to_string(privileges, ','), columns IS NULL, array_to_string(columns, ','),
			masked OR row_filter IS NOT NULL FROM imgpipe.access_rules WHERE template = '$template' AND team = '$team' ORDER BY rule]))
	{
		my ($place, $kind, $object, $privileges, $all, $columns, $view) = @$_;
		my $schema = $place eq 'images' ? 'imgpipe' : "shop_$template";
		my $pattern = join '.*', map { quotemeta } split /\*/, $object, -1;
		if ($kind eq 'function')
		{
			for (values %function)
			{
				next unless $_->{schema} eq $schema && ($_->{name} =~ /^$pattern$/ || "$_->{name}($_->{types})" eq $object);
				$execute{ $_->{oid} } = 1;
				$usage{$schema} = 1;
			}
			next;
		}
		for my $r (values %relation)
		{
			next unless $r->{schema} eq $schema && $r->{name} =~ /^$pattern$/ && $r->{partition} eq 'f';
			next unless ($r->{kind} eq 'S') == ($kind eq 'sequence');
			# Made after the last apply: default privileges know no names.
			next if $r->{name} eq 'later' && !($object eq '*' && $template eq 'read_for_all');
			if ($view eq 't')
			{
				my $team_schema = "${schema}_${template}_$team";
				next if $view_decided{ $r->{oid} }++;
				$whole{"$team_schema.$r->{name}"}{$_} = 1 for split /,/, $privileges;
				$usage{$team_schema} = 1;
				next;
			}
			$usage{$schema} = 1;
			for my $privilege (split /,/, $privileges)
			{
				if ($all eq 't') { $whole{"$schema.$r->{name}"}{$privilege} = 1 }
				else { $column{"$schema.$r->{name}"}{$privilege}{$_} = 1 for split /,/, $columns }
			}
		}
	}
	return { whole => \%whole, column => \%column, execute => \%execute, usage => \%usage };
}

# Each attempt: what it is, the statement, whether it must work; never => 1 where it works for nobody but says so in another way.
sub attempts
{
	my ($template, $team, $login) = @_;
	my $declared = declared($template, $team);
	my @attempts;
	my $try = sub { my ($what, $sql, $wanted, %more) = @_; push @attempts, { what => $what, sql => $sql, wanted => $wanted ? 1 : 0, %more } };

	for my $r (sort { $a->{quoted} cmp $b->{quoted} } values %relation)
	{
		my ($t, $name) = ($r->{quoted}, "$r->{schema}.$r->{name}");
		my ($whole, $column) = ($declared->{whole}{$name} // {}, $declared->{column}{$name} // {});
		if ($r->{kind} eq 'S')
		{
			$try->("USAGE on $t", "SELECT nextval('$t')", $whole->{USAGE} || $whole->{UPDATE});
			$try->("SELECT on $t", "SELECT last_value FROM $t", $whole->{SELECT});
			$try->("UPDATE on $t", "SELECT setval('$t', 1)", $whole->{UPDATE});
			next;
		}
		# Of the shops of other templates: whether they can be read.
		if ($r->{schema} =~ /^shop_/ && $r->{schema} !~ /^shop_${template}(_|$)/)
		{
			$try->("SELECT on $t", "SELECT count(*) FROM $t", 0);
			next;
		}
		my @columns = @{ $r->{columns} };
		my $has = sub { my ($privilege, $c) = @_; return $whole->{$privilege} || $column->{$privilege}{ $c->{name} } };
		my $all_read = !grep { !$has->('SELECT', $_) } @columns;
		my $view = $r->{kind} eq 'v';
		my $stored = $r->{kind} =~ /[rp]/;

		$try->("SELECT on $t", "SELECT * FROM $t LIMIT 0", $all_read);
		$try->("SELECT of nothing on $t", "SELECT FROM $t LIMIT 0", scalar grep { $has->('SELECT', $_) } @columns);
		$try->("COPY (SELECT) of $t", "COPY (SELECT * FROM $t LIMIT 0) TO STDOUT", $all_read);
		$try->("DELETE on $t", "DELETE FROM $t WHERE false", $whole->{DELETE}, never => $r->{deletable} ne 't' || $r->{kind} eq 'm');
		$try->("TRUNCATE on $t", "TRUNCATE $t", $whole->{TRUNCATE}, never => !$stored);
		$try->("TRIGGER on $t", "CREATE TRIGGER tried BEFORE INSERT ON $t EXECUTE FUNCTION scratch_$login.noop()", $whole->{TRIGGER}, never => $r->{kind} eq 'm');
		# A privilege from PostgreSQL 17 on; before, a matter of the owner's.
		$try->("MAINTAIN on $t", ($r->{kind} eq 'm' ? 'REFRESH MATERIALIZED VIEW' : 'REINDEX TABLE') . " $t", $whole->{MAINTAIN}) if $r->{kind} =~ /[rm]/;
		for my $c (@columns)
		{
			my $updatable = $stored || ($view && $c->{updatable} eq 't');
			$try->("SELECT ($c->{quoted}) on $t", "SELECT $c->{quoted} FROM $t LIMIT 0", $has->('SELECT', $c));
			$try->("INSERT ($c->{quoted}) on $t", "INSERT INTO $t ($c->{quoted}) VALUES (DEFAULT)", $has->('INSERT', $c), never => !$updatable || $r->{insertable} ne 't');
			$try->("UPDATE ($c->{quoted}) on $t", "UPDATE $t SET $c->{quoted} = DEFAULT WHERE false", $has->('UPDATE', $c), never => !$updatable);
		}
		next unless $stored;
		my @stored_columns = grep { $_->{generated} eq '' } @columns;
		$try->("COPY FROM on $t", "\\copy $t FROM '/dev/null'", !grep { !$has->('INSERT', $_) } @stored_columns);
		$try->("COPY TO on $t", "COPY $t TO STDOUT", $all_read) if $r->{kind} eq 'r' && $r->{schema} ne 'imgpipe';
		if ($r->{key} ne '')
		{
			my @key = grep { my $q = $_->{quoted}; grep { $_ eq $q } split /, /, $r->{key} } @columns;
			my $list = join ', ', map {"k_$_->{name} $_->{type}"} grep { $_->{name} =~ /^\w+$/ } @key;
			$try->("REFERENCES on $t", "CREATE TABLE scratch_$login.tried ($list, FOREIGN KEY (" . join(', ', map {"k_$_->{name}"} @key) . ") REFERENCES $t ($r->{key}))",
				!grep { !$has->('REFERENCES', $_) } @key) unless grep { $_->{name} !~ /^\w+$/ } @key;
		}
	}
	for my $f (sort { $a->{call} cmp $b->{call} } values %function)
	{
		next if $f->{schema} =~ /^shop_/ && $f->{schema} ne "shop_$template";
		$try->("EXECUTE on $f->{schema}.$f->{name}($f->{types})", ($f->{kind} eq 'p' ? 'CALL ' : 'SELECT ') . $f->{call}, $declared->{execute}{ $f->{oid} }, function => 1);
	}
	my %in;
	$in{ $_->{schema} } //= $_->{quoted} for sort { $a->{quoted} cmp $b->{quoted} } values %relation;
	for my $schema (sort keys %in)
	{
		(my $literal = $in{$schema}) =~ s/'/''/g;
		$try->("USAGE on schema $schema", "SELECT '$literal'::regclass", $declared->{usage}{$schema});
		$try->("CREATE on schema $schema", "CREATE TABLE $schema.tried ()", 0);
	}
	for my $role (map { $_->[0] } rows(q[SELECT role_name FROM imgpipe.access_teams UNION SELECT rolname FROM pg_roles WHERE rolname IN ('shopkeeper', 'postgres') ORDER BY 1]))
	{
		$try->("SET ROLE $role", "SET LOCAL ROLE $role", $role eq "${template}_$team");
	}
	return @attempts;
}

# What came of each: undef for what must not be, or what differs from what is declared.
sub judge
{
	my ($attempt, $state, $message) = @_;
	my $worked;
	if ($attempt->{function})
	{
		# What it calls in its turn may be refused, too.
		$worked = !($state eq '42501' && $message =~ /permission denied for (function|procedure|schema)/);
	}
	elsif ($attempt->{never} && $state ne '00000') { $worked = 0 }
	# Whose row it may be is the policy's to say; the table's privilege is there.
	elsif ($state eq '42501' && $message =~ /new row violates row-level security policy/) { $worked = 1 }
	# 428C9: a generated column, through a view.
	elsif ($state =~ /^(42501|428C9)$/) { $worked = 0 }
	# Foreign keys and row-level security (0A000), constraints, check options: it was allowed to get that far.
	elsif ($state =~ /^(00000|23...|44000|0A000)$/) { $worked = 1 }
	else { return "$attempt->{what}: unexpected $state $message ($attempt->{sql})" }
	return if $worked == ($attempt->{wanted} && !$attempt->{never});
	return "can, and must not: $attempt->{what}: $state" if $worked;
	return "cannot, and should: $attempt->{what}: $state $message";
}

my $tried = 0;
for my $template (sort keys %teams)
{
	for my $team (@{ $teams{$template} })
	{
		my $login = "login_${template}_$team";
		my @attempts = attempts($template, $team, $login);
		for my $as ('', "SET ROLE ${template}_$team;\n")
		{
			my $script = "\\set VERBOSITY terse\n\\o /dev/null\n$as";
			for my $i (0 .. $#attempts)
			{
				my $sql = $attempts[$i]{sql};
				$script .= "BEGIN;\n$sql" . ($sql =~ /^\\/ ? "\n" : ";\n") . "\\set state :SQLSTATE\nROLLBACK;\n\\echo $i :state :LAST_ERROR_MESSAGE\n";
			}
			my ($output, $errors);
			$node->psql('postgres', $script, stdout => \$output, stderr => \$errors, on_error_stop => 0, on_error_die => 0, extra_params => [ '-U', $login ]);
			my @wrong;
			my $answers = 0;
			for (split /\n/, $output)
			{
				my ($i, $state, $message) = /^(\d+) (\w{5}) (.*)/ or next;
				my $problem = judge($attempts[$i], $state, $message);
				push @wrong, $problem if defined $problem;
				$answers++;
			}
			$tried += $answers;
			my $allowed = grep { $_->{wanted} } @attempts;
			is($answers, scalar @attempts, "$template, $team" . ($as ? ', as its role' : '') . ": each attempt has an answer");
			ok($allowed > 0 && !@wrong, "$template, $team" . ($as ? ', as its role' : '') . ": $allowed of $answers attempts work, and these are the ones declared")
			  or diag(join "\n", @wrong > 40 ? (@wrong[ 0 .. 39 ], '...') : @wrong);
		}
	}
}
note("$tried attempts");

# The rows: logistics sees pictures of its orders, as the items were when they were sold; of each item sales sees them all.
my $png = '\x89504e470d0a1a0a0000000d4948445200000001000000010800000000 3a7e9b55 0000000a49444154789c6360000000020001 48afa471 0000000049454e44ae426082';
my %picture;
for my $of ('sold', 'not sold', 'sold before', 'no item')
{
	$picture{$of} = query("INSERT INTO imgpipe.images (content) VALUES ('$png'::bytea) RETURNING image_id");
	query("INSERT INTO imgpipe.renditions (image_id, processor, version, name, content) SELECT image_id, 'small', 1, 'small', content FROM imgpipe.images WHERE image_id = '$picture{$of}'");
}
query(qq[
	SET ROLE shopkeeper;
	SELECT shop_item_pictures.add_item('lamp', 20, 10, 1.5, 'Lumen', '$picture{'not sold'}');
	WITH item AS (SELECT shop_item_pictures.add_item('sofa', 20, 10, 1.5, 'Lumen', '$picture{sold}') AS item_id),
		sale AS (INSERT INTO shop_item_pictures.transactions (member_id) SELECT min(member_id) FROM shop_item_pictures.members RETURNING transaction_id)
		INSERT INTO shop_item_pictures.transaction_items SELECT transaction_id, item_id, 1, 20 FROM item, sale;
	SELECT shop_item_pictures.update_item(item_id, image_id => '$picture{'sold before'}') FROM shop_item_pictures.items WHERE name = 'sofa']);
my %sees = (
	'logistics|images' => ['sold'],
	'logistics|renditions' => ['sold'],
	'sales|renditions' => [ 'sold', 'not sold', 'sold before' ],
	'sales|images' => []);
for my $team_table (sort keys %sees)
{
	my ($team, $table) = split /\|/, $team_table;
	is($node->safe_psql('postgres', "SELECT image_id FROM imgpipe_item_pictures_$team.$table ORDER BY 1", extra_params => [ '-U', "login_item_pictures_$team" ]),
		join("\n", sort map { $picture{$_} } @{ $sees{$team_table} }), "$team sees $table of: " . join(', ', @{ $sees{$team_table} }));
}
my $plan = query("SET enable_seqscan = off; EXPLAIN SELECT * FROM imgpipe_item_pictures_logistics.images WHERE image_id = ANY (ARRAY['$picture{sold}', '$picture{'not sold'}']::uuid[])");
like($plan, qr/items_image/, 'orders are looked up by the picture');
like($plan, qr/transaction_items_item/, 'through the item');

# What the template gives a service role is enough for its work.
is($node->safe_psql('postgres', q[SELECT imgpipe.create_processor('small', '{"small": "resize(width=64)"}') IS NOT NULL], extra_params => [ '-U', 'login_images_worker' ]),
	't', 'a worker of template images makes a processor');

done_testing();
