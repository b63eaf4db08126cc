# TLS, SASL and client certificates against a real broker, and secrets that
# stay where they belong.
use strict;
use warnings;

use ImgpipeTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $password = 'hunter2-sasl';
my $broker = start_broker();
my %port = $broker->secure('camera', $password, qw(SSL SASL_PLAINTEXT SASL_SSL));

my $folder = $broker->certificates;
make_authority($folder, 'stranger');
make_certificate($folder, 'authority', 'client', 'extendedKeyUsage = clientAuth');
my ($authority, $stranger, $certificate, $key) = map { slurp_file("$folder/$_") } qw(authority.pem stranger.pem client.pem client.key);
my $locked_key = openssl('pkcs8', '-topk8', '-in', "$folder/client.key", '-passout', 'pass:hunter2-key', '-v2', 'aes256');

# Everything that the server can be made to say, but the statements that hold the secrets.
my $node = new_cluster('main', 'imgpipe.max_processors = 0', 'log_statement = none', 'log_min_messages = debug5');
$node->safe_psql('postgres', 'CREATE ROLE stranger LOGIN; CREATE ROLE outsider; GRANT USAGE ON SCHEMA imgpipe TO stranger, outsider; GRANT pg_read_all_stats, pg_read_all_data TO stranger');
$broker->create_topic($_, 1) for qw(photos results);
$broker->produce('photos', [ sample_image('small.jpg') ], key => 'a');

my $serial = 0;

sub options { my %given = @_; return join ', ', map { my $value = $given{$_} =~ s/'/''/gr; "$_ '$value'" } sort keys %given }

# One source over one connection: ingested, and its result sent, or the error that source_status shows.
sub try_connection
{
	my ($what, $server, $mapping, $expected) = @_;
	my $name = 's' . ++$serial;
	$server = { broker_address_family => 'v4', %$server };
	$node->safe_psql('postgres', "CREATE SERVER $name FOREIGN DATA WRAPPER imgpipe_kafka OPTIONS (" . options(%$server) . ');'
		. "CREATE USER MAPPING FOR CURRENT_USER SERVER $name" . (%$mapping ? ' OPTIONS (' . options(%$mapping) . ')' : '') . ';'
		. "SELECT imgpipe.create_source('$name', '$name', 'photos', result_topic => 'results'); SELECT imgpipe.start_source('$name')");
	if ($expected)
	{
		ok(poll_until($node, "SELECT state, last_error FROM imgpipe.source_status WHERE name = '$name'", qr/^(retrying|failed)\|.*$expected/s, 60), "$what: refused with the reason");
		is($node->safe_psql('postgres', "SELECT count(*) FROM imgpipe.images WHERE source = '$name'"), 0, "$what: and nothing comes");
	}
	else
	{
		ok(poll_until($node, "SELECT count(*) FROM imgpipe.images WHERE source = '$name'", 1, 60), $what)
		  or diag($node->safe_psql('postgres', "SELECT state, last_error FROM imgpipe.source_status WHERE name = '$name'"));
		ok(poll_until($node, "SELECT messages FROM imgpipe.outbox_status WHERE server = '$name'", 1, 60), "$what: the result goes back");
	}
	# Not one statement: what a stranger sees of the activity while this lasts is looked at below.
	$node->safe_psql('postgres', "SELECT imgpipe.stop_source('$name')");
}

my %ssl = (bootstrap_servers => "localhost:$port{SSL}", security_protocol => 'ssl', ssl_ca_pem => $authority);
my %client = (ssl_certificate_pem => $certificate, ssl_key_pem => $key);
try_connection('client certificate', \%ssl, \%client);
try_connection('client certificate with a locked key', \%ssl,
	{ ssl_certificate_pem => $certificate, ssl_key_pem => $locked_key, ssl_key_password => 'hunter2-key' });
try_connection('no client certificate', \%ssl, {}, 'SSL|ertificate|isconnect');
try_connection('wrong password of the key', \%ssl,
	{ ssl_certificate_pem => $certificate, ssl_key_pem => $locked_key, ssl_key_password => 'hunter2-wrong' }, 'Kafka client');
try_connection('another authority', { %ssl, ssl_ca_pem => $stranger }, \%client, 'certificate verify failed');
try_connection('another host name', { %ssl, bootstrap_servers => "127.0.0.1:$port{SSL}" }, \%client, 'certificate verify failed');
try_connection('another host name, not checked',
	{ %ssl, bootstrap_servers => "127.0.0.1:$port{SSL}", ssl_endpoint_identification_algorithm => 'none' }, \%client);

my %login = (sasl_username => 'camera', sasl_password => $password);
for my $mechanism ('PLAIN', 'SCRAM-SHA-256', 'SCRAM-SHA-512')
{
	my %sasl_ssl = (bootstrap_servers => "localhost:$port{SASL_SSL}", security_protocol => 'sasl_ssl',
		ssl_ca_pem => $authority, sasl_mechanism => $mechanism);
	try_connection("$mechanism without TLS",
		{ bootstrap_servers => "localhost:$port{SASL_PLAINTEXT}", security_protocol => 'sasl_plaintext', sasl_mechanism => $mechanism }, \%login);
	try_connection("$mechanism over TLS", \%sasl_ssl, \%login);
	try_connection("$mechanism with a wrong password", \%sasl_ssl,
		{ sasl_username => 'camera', sasl_password => 'hunter2-wrong' }, 'uthentication');
	try_connection("$mechanism and another authority", { %sasl_ssl, ssl_ca_pem => $stranger }, \%login, 'certificate verify failed');
}
try_connection('no credentials', { bootstrap_servers => "localhost:$port{SASL_PLAINTEXT}",
		security_protocol => 'sasl_plaintext', sasl_mechanism => 'PLAIN' }, {}, 'Kafka client|sasl');

# One server, two owners, each with credentials of its own.
$node->safe_psql('postgres', q(
	CREATE ROLE team LOGIN;
	GRANT USAGE ON SCHEMA imgpipe TO team;
	GRANT INSERT ON imgpipe.images, imgpipe.dead_letters TO team;
	GRANT SELECT, INSERT, UPDATE ON imgpipe.sources TO team;
	GRANT USAGE ON FOREIGN SERVER s9 TO team;
	CREATE USER MAPPING FOR team SERVER s9 OPTIONS (sasl_username 'camera', sasl_password 'hunter2-wrong');
	SET ROLE team;
	SELECT imgpipe.create_source('teams', 's9', 'photos');
	SELECT imgpipe.start_source('teams')));
ok(poll_until($node, "SELECT state, last_error FROM imgpipe.source_status WHERE name = 'teams'", qr/^retrying\|.*uthentication/, 60), 'the mapping of the owner counts');
$node->safe_psql('postgres', "ALTER USER MAPPING FOR team SERVER s9 OPTIONS (SET sasl_password '$password')");
ok(poll_until($node, "SELECT count(*) FROM imgpipe.images WHERE source = 'teams'", 1), 'and a corrected password holds without a restart');

# Statements that are refused do not repeat what they were given.
my $refused = '';
for my $statement (
	"CREATE SERVER misplaced FOREIGN DATA WRAPPER imgpipe_kafka OPTIONS (bootstrap_servers 'localhost:1', sasl_password 'hunter2-misplaced')",
	"CREATE USER MAPPING FOR stranger SERVER s9 OPTIONS (sasl_passwort 'hunter2-misspelt')",
	"CREATE USER MAPPING FOR stranger SERVER s9 OPTIONS (sasl_username 'camera', ssl_key_location 'hunter2-path')",
	"ALTER USER MAPPING FOR team SERVER s9 OPTIONS (ADD sasl_password 'hunter2-again')",
	"SET ROLE stranger; ALTER USER MAPPING FOR team SERVER s9 OPTIONS (SET sasl_password 'hunter2-taken')",
	# PostgreSQL lets members of pg_read_all_data read this one.
	"SET ROLE outsider; SELECT umoptions FROM pg_user_mapping",
	"SET ROLE outsider; SELECT last_error FROM imgpipe.source_status",
	"SET ROLE stranger; SELECT imgpipe.create_source('strange', 's9', 'photos')")
{
	my ($out, $error) = ('', '');
	isnt($node->psql('postgres', "\\set VERBOSITY verbose\n$statement", stdout => \$out, stderr => \$error), 0, 'refused: ' . substr $statement, 0, 60);
	$refused .= $out . $error;
}
like($refused, qr/HV00D/, 'the refusals say why');

# What other accounts of the machine could read of the processes: command lines and environments, not to speak of files.
sub processes
{
	my ($postmaster) = split /\n/, slurp_file($node->data_dir . '/postmaster.pid');
	my @pids = ($postmaster, split(/\s+/, `ps -o pid= --ppid $postmaster`), decoder_pids($node));
	return join '', map { my $pid = $_; map { -r "/proc/$pid/$_" ? slurp_file("/proc/$pid/$_") : '' } qw(cmdline environ) } grep {length} @pids;
}
ok(poll_code(sub { worker_pids($node, 'ingest') > 0 }), 'a worker holds secrets');
my $processes = processes();
like($processes, qr/imgpipe ingest/, 'processes were read');
my ($dump, $dump_error) = ('', '');
IPC::Run::run([ 'pg_dump', '--schema-only', '-h', $node->host, '-p', $node->port, '-U', 'stranger', 'postgres' ], '>', \$dump, '2>', \$dump_error);
like($dump, qr/CREATE USER MAPPING/, 'a dump by somebody else');

# Nothing that others see holds a secret.
my @secrets = ('hunter2', (split /\n/, $key)[3], (split /\n/, $locked_key)[3]);
my $views = $node->safe_psql('postgres', q(
	SET ROLE stranger;
	SELECT string_agg(query_to_xml(format('SELECT * FROM %I.%I', schemaname, viewname), true, true, '')::text, '')
		FROM pg_views
		WHERE has_table_privilege(format('%I.%I', schemaname, viewname), 'SELECT')
			AND (schemaname IN ('imgpipe', 'information_schema') OR viewname ~ '^pg_(stat_activity|user_mappings|settings|prepared|cursors)')));
like($views, qr/imgpipe_kafka/, 'views were read');
my $activity = $node->safe_psql('postgres', 'SELECT row_to_json(a) FROM pg_stat_activity a');
my $tables = $node->safe_psql('postgres', 'SELECT row_to_json(s) FROM imgpipe.source_status s UNION ALL SELECT row_to_json(s) FROM imgpipe.sources s UNION ALL SELECT row_to_json(w) FROM imgpipe.worker_slots() w');
$node->stop;
my $log = slurp_file($node->logfile);
like($log, qr/librdkafka/, 'the log has debugging output');
for my $secret (@secrets)
{
	my $mark = substr $secret, 0, 7;
	is(index($views, $secret), -1, "no secret ($mark...) in a view");
	is(index($activity, $secret), -1, "nor in pg_stat_activity");
	is(index($tables, $secret), -1, "nor in source_status");
	is(index($log, $secret), -1, 'nor in the log at debug5');
	is(index($refused, $secret), -1, 'nor in an error');
	is(index($processes, $secret), -1, 'nor in what ps shows');
	is(index("$dump$dump_error", $secret), -1, "nor in somebody else's dump");
}

done_testing();
