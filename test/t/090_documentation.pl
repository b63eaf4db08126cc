# The pages of the documentation, typed by a reader: every statement works in the order of its page, and prints what the page shows.
# docs/nodes.md and docs/replicas.md have tests of their own, 028 and 029, since they are about more than one server.
use strict;
use warnings;

use Documentation;
use ImgpipeTest;
use JSON::PP qw(decode_json);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

page_text('README.md');
my @photos = mass_images(208);
my $photo = sample_image('photo.jpg');

my $broker = start_broker();
my %port = $broker->secure('images', 'the password', 'SASL_SSL');
my $bootstrap = $broker->bootstrap;
my $authority = slurp_file($broker->certificates . '/authority.pem');
$broker->create_topic('photos', 4);
$broker->create_topic($_, 1) for qw(results rejects ledger);
# What is no image, and two that are cut off.
my @bad = map { { key => $_, file => sample_image($_) } } qw(text.jpg random.jpg picture.svg header_only.jpg huge.png truncated.jpg truncated.png);
$broker->produce_many('photos', [
	(map { { key => sprintf('%04d.jpg', $_), file => $photos[$_], partition => $_ % 4 } } 0 .. 199),
	(map { { %$_, partition => 0 } } @bad, { key => 'empty.jpg', value => '' }) ]);

my $node = new_cluster('main', 'imgpipe.max_processors = 2', "timezone = 'UTC'", 'fsync = on');
my $superuser = $node->safe_psql('postgres', 'SELECT current_user');
my $database;
sub query { return $node->safe_psql($database, $_[0]) }

sub fill_photos_and_brand
{
	my $logo = sample_image('alpha.png');
	query("INSERT INTO photos VALUES (pg_read_binary_file('$photo'), now()); INSERT INTO brand VALUES (pg_read_binary_file('$logo'))");
}

# Four spans of deadlines that have passed, and somebody who keeps the purge waiting.
my ($dashboard, $purged);

sub overdue_behind_a_reader
{
	$dashboard = Documentation::Reader->new($node, $database);
	$dashboard->execute('SET application_name = dashboard; BEGIN; SELECT count(*) FROM imgpipe.images;');
	# The purge sees both at once, or it would take the partitions away from the images.
	$purged = query(qq[BEGIN;
		SELECT imgpipe.create_partition(parent, current_date - n, current_date - n + time '06:00')
			FROM imgpipe.partitioned_tables, generate_series(8, 5, -1) n \\g /dev/null
		WITH made AS (INSERT INTO imgpipe.images (image_id, content, received_at)
			SELECT imgpipe.new_image_id(current_date - n + time '03:00'), pg_read_binary_file('$photos[0]'), current_date - n - 7
				FROM generate_series(8, 5, -1) n, generate_series(1, 50) RETURNING image_id)
		SELECT image_id FROM made ORDER BY 1 LIMIT 1;
		COMMIT]);
	query('SELECT imgpipe.wake_controller()');
}

sub ledger_is_as_shown
{
	my ($shown) = page_blocks('docs/retention.md', '');
	my @messages;
	poll_code(sub { @messages = $broker->consume('ledger'); @messages > 0 });
	is(shown_difference($shown->{text}, $messages[0]{value}, mask => [ [ qr/"\d+\/\d+"/, '"<database>"' ] ]), '', 'docs/retention.md: what is sent of the ledger is as shown');
}

# Key, headers and value of each message that the page shows, wrapped.
sub messages_are_as_shown
{
	my ($part) = page_text('docs/kafka.md') =~ /^A photograph with the key(.*?)^- /ms;
	my $form = sub {
		my ($key, $headers, $value) = @_;
		$value = JSON::PP->new->canonical->encode(decode_json($value)) if $value =~ /^\{/;
		return masked(join("\n", $key, sort(split /,(?=imgpipe-)/, $headers), $value),
			[ qr/(offset=|"offset":|"bytes":)\d+/, '<number>' ], [ qr/(?<=[0-9a-f]{12})-\d+/, '-<number>' ]);
	};
	my @shown;
	while ($part =~ /^    (\S+)\n    (imgpipe-kind=.*?)\n    (\{.*?\}|oops)(?=\n    \S+\n    imgpipe|\n\n)/msg)
	{
		my ($key, $headers, $value) = ($1, $2, $3);
		push @shown, $form->($key, $headers =~ s/\n +//gr, $value =~ s/\n +/ /gr);
	}
	my @sent = sort map {
		my $message = $_;
		$form->($message->{key}, join(',', map {"$_=$message->{headers}{$_}"} keys %{ $message->{headers} }), $message->{value})
	} map { $broker->consume($_) } qw(results rejects);
	is_deeply(\@sent, [ sort @shown ], 'docs/kafka.md: the messages are as shown');
}

# What the reader of a page has: rows and roles that the page takes for granted.  Places in the text that are the reader's own to fill in.
# What is done before a statement that begins so.  Output that is different each time.
my %pages = (
	'README.md' => {
		empty => 1,
		places => [ [ qr/\$1::bytea/, "pg_read_binary_file('$photo')" ], [ qr/127\.0\.0\.1:\d+/, $bootstrap ] ],
		before => { "SELECT imgpipe.process_image(content, 'resize(width=800" => \&fill_photos_and_brand },
		varies => ['bytes_ratio'],
		mask => [ [ qr/the latest for: .*/, 'the latest for: ...' ] ],
	},
	'docs/operations.md' => { before => { "SELECT imgpipe.process_image(content, 'resize(width=800" => \&fill_photos_and_brand } },
	'docs/kafka.md' => {
		places => [
			[ qr/kafka1:9093,kafka2:9093/, "localhost:$port{SASL_SSL}" ],
			[ qr/-----BEGIN CERTIFICATE----- …/, $authority ],
			[ qr/sasl_password '…'/, "sasl_password 'the password'" ],
			[ qr/2026-11-20 18:00\+00/, sub { query(q(SELECT now() - interval '1 hour')) } ],
			[ qr/2026-11-20 19:00\+00/, sub { query(q(SELECT now() + interval '1 hour')) } ],
		],
		before => {
			'SELECT server, state, pending' => sub {
				# It would take what was altered within 10 seconds.
				query(q(SELECT imgpipe.stop_source('photos')));
				ok(poll_until($node, q(SELECT state FROM imgpipe.source_status WHERE name = 'photos'), 'stopped', undef, $database), 'the source stops');
				query(q(SELECT imgpipe.start_source('photos')));
				query(q(SELECT imgpipe.create_processor('web', '{"thumb": "resize(width=256) | webp"}')));
				$broker->produce('photos', [$photo], key => 'cat.jpg', partition => 0, headers => { batch_id => 'b7' });
				$broker->produce_many('photos', [ { key => 'note.txt', value => 'oops', partition => 0 } ]);
			},
		},
		varies => ['bytes'],
		after => \&messages_are_as_shown,
	},
	# PostgreSQL 15 knows one grantor of a membership.
	'docs/access.md' => { mask => [ [ qr/ GRANTED BY \S+/, '' ] ] },
	'docs/retention.md' => {
		given => "CREATE SERVER kafka FOREIGN DATA WRAPPER imgpipe_kafka OPTIONS (bootstrap_servers '$bootstrap')",
		places => [ [ qr/01a2008d-\.\.\./, sub { $purged } ] ],
		before => {
			'SELECT item, value, detail FROM imgpipe.retention_report()' => \&overdue_behind_a_reader,
			'SELECT hash FROM imgpipe.purge_ledger_head' => sub {
				$dashboard->quit;
				ok(poll_until($node, 'SELECT count(*) FROM imgpipe.purge_ledger', 4, undef, $database), 'the purge goes on when the reader ends');
			},
		},
		after => \&ledger_is_as_shown,
	},
	'docs/sales.md' => {},
	'docs/scheduling.md' => {
		given => 'CREATE SCHEMA shop; CREATE TABLE shop.orders (); CREATE PROCEDURE shop.roll_up() LANGUAGE sql AS $$$$',
	},
);

# A statement of the page with what is the reader's own in its places.
sub filled_in
{
	my ($sql, $places) = @_;
	for my $place (@$places)
	{
		my ($what, $with) = @$place;
		$sql =~ s/$what/ref $with ? $with->() : $with/ge;
	}
	return $sql;
}

for my $name (sort keys %pages)
{
	my $page = $pages{$name};
	$database = 'page_' . lc($name =~ s/\W/_/gr);
	$node->safe_psql('postgres', "CREATE DATABASE $database");
	query('CREATE EXTENSION imgpipe') unless $page->{empty};
	query($page->{given}) if $page->{given};
	my $reader = Documentation::Reader->new($node, $database);
	my @masks = (@{ $page->{mask} // [] }, [ qr/\b\Q$superuser\E\b/, 'postgres' ]);
	my ($executed, $statements) = (0, 0);
	for my $block (page_blocks($name, 'sql'))
	{
		for my $statement (block_statements($block->{text}))
		{
			$statements++;
			my $place = "$name:" . ($block->{line} + $statement->{line}) . ': ' . substr $statement->{sql} =~ s/\s+/ /gr, 0, 60;
			my ($hook) = grep { index($statement->{sql}, $_) == 0 } keys %{ $page->{before} };
			$page->{before}{$hook}->() if defined $hook;
			my $sql = filled_in($statement->{sql}, $page->{places});
			my $output = $reader->execute($sql);
			if (!defined $statement->{shown})
			{
				unlike($output, qr/^(?:ERROR|FATAL|WARNING|NOTICE):|^\\|invalid command/m, $place) or diag($output);
				next;
			}
			# Workers take their time.
			my $difference;
			poll_code(sub {
				$difference = shown_difference($statement->{shown}, $output, %$page, mask => \@masks);
				return 1 if $difference eq '' || $sql !~ /^SELECT\b.*\bFROM imgpipe\.\w+(?!\w*\()|\b(?:health_check|retention_report)\(/s;
				$output = $reader->execute($sql);
				return 0;
			});
			is($difference, '', "$place: as shown") or diag($output);
		}
		$executed++;
	}
	$page->{after}->() if $page->{after};
	$reader->quit;
	my $blocks = () = page_text($name) =~ /^\s*```sql\b/mg;
	is($executed, $blocks, "$name: all $blocks blocks of SQL were executed, $statements statements");
	my $roles = query(q(SELECT string_agg(quote_ident(rolname), ', ') FROM pg_roles WHERE oid >= 16384));
	$node->safe_psql('postgres', "DROP DATABASE $database WITH (FORCE)");
	$node->safe_psql('postgres', "DROP ROLE $roles") if $roles;
}

# No page has SQL that is not executed: what is not for psql is not in a block of SQL, and what looks like a statement is.
my %elsewhere = map { $_ => 1 } 'docs/nodes.md', 'docs/replicas.md';
for my $path (map {s{^\Q$ImgpipeTest::root\E/}{}r} "$ImgpipeTest::root/README.md", sort glob("$ImgpipeTest::root/docs/*.md"))
{
	my $text = page_text($path);
	ok($pages{$path} || $elsewhere{$path} || $text !~ /^\s*```sql\b/m, "$path: its SQL is executed, here or by a test of its own");
	my $other = join "\n", map { $_->{text} } page_blocks($path, '');
	my @statements = "$other\n" . join("\n", $text =~ /^ {4,}(\S.*)$/mg) =~ s/^```.*?^```$//msgr;
	unlike("@statements", qr/^(?:SELECT|INSERT|UPDATE|DELETE|CREATE|ALTER|DROP|GRANT|REVOKE|SET|CALL)\b/m, "$path: no statement stands outside of them");
}

# What the pages name is there, and what is there for users is named.
my $documentation = join "\n", map { slurp_file($_) } "$ImgpipeTest::root/README.md", glob "$ImgpipeTest::root/docs/*.md";
my %named = map { $_ => 1 } $documentation =~ /\bimgpipe\.([a-z_0-9]+)\b/g;
$database = 'postgres';
my %there = map { $_ => 1 } split /\n/, query(q(
	SELECT proname FROM pg_proc WHERE pronamespace = 'imgpipe'::regnamespace
	UNION SELECT relname FROM pg_class WHERE relnamespace = 'imgpipe'::regnamespace
	UNION SELECT typname FROM pg_type WHERE typnamespace = 'imgpipe'::regnamespace
	UNION SELECT substr(name, 9) FROM pg_settings WHERE name LIKE 'imgpipe.%'));
is(join(' ', grep { !$there{$_} } sort keys %named), '', 'whatever the pages name of imgpipe is there');

# For users is what they may call, or be granted, and neither the work of a type, an operator or a trigger nor internal.
my @functions = split /\n/, query(q(
	SELECT DISTINCT proname FROM pg_proc p WHERE pronamespace = 'imgpipe'::regnamespace AND prorettype <> 'trigger'::regtype
		AND (has_function_privilege('public', oid, 'EXECUTE') OR obj_description(oid, 'pg_proc') LIKE '%unless granted%')
		AND oid NOT IN (SELECT unnest(ARRAY[typinput, typoutput, typreceive, typsend, typmodin, typmodout]::oid[]) FROM pg_type
			UNION SELECT oprcode FROM pg_operator UNION SELECT amproc FROM pg_amproc UNION SELECT castfunc FROM pg_cast
			UNION SELECT unnest(ARRAY[aggtransfn, aggfinalfn]::oid[]) FROM pg_aggregate UNION SELECT fdwvalidator FROM pg_foreign_data_wrapper)));
my %internal = map { $_ => 1 } map {split} <DATA>;
is(join(' ', grep { !$internal{$_} && $documentation !~ /\b$_\(/ } @functions), '', 'each function is named by a page, or by the list of those that are not for users at the end of this test');
my %function = map { $_ => 1 } @functions;
is(join(' ', grep { !$function{$_} } sort keys %internal), '', 'which are there');

$node->stop;
done_testing();

__DATA__
access_cells access_changes access_object access_objects actual_access actual_rights alike_objects bytes_of_text can_become
check_chunks check_command check_job check_privilege check_processor_function check_processor_outputs check_processor_owner
check_replay_target check_result_options check_role check_schema check_source_options check_source_owner check_start_from
check_team check_template check_topic_name chunk_fault complete_result convert_image copy_dead_letter create_partition
create_team_roles database_identity declared_access declared_rights default_changes delete_images_of_key erase_now execute_plan
expire_images_of_key filter_condition filter_parts first_image_id forget_role header_bytes horizon html job_owner_problem
kafka_headers lacking ledger_hash log_access managed_schemas mask_coordinate mask_email mask_exif mask_hash mask_partial
mask_phone mask_year masked_expression membership_changes message_name missing_chunks name_pattern named_by_template new_mask_key
order_key own_dead_letter own_job own_processor own_source partition_ids planned_statements privileges_of processing_state
purge_lock quoted_role refuse_access rejection rendition_count renew_result report_buried report_ingested
require_workers reserve_numbers result_count result_headers revoke_membership revoke_statement roles_of rule_matches rules_in_use
run_statement sales_schema_script sample_fraction schedule_kind scheduler_clock sender_of setting settle_chunked_image store_chunk
sum_of team_schema team_views tell_listeners view_changes wake_controller wake_senders warn_of_no_end worker_slots
