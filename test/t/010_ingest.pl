# Servers, sources, and the way of a message into a row.
use strict;
use warnings;

use ImgpipeTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $broker = start_broker();
my $bootstrap = $broker->bootstrap;
my $photo = sample_image('small.jpg');

# What a statement raises: SQLSTATE and message, detail, hint.
sub raises
{
	my ($node, $sql, $code, $expected, $what) = @_;
	my ($status, $out, $errors) = $node->psql('postgres', "\\set VERBOSITY verbose\n$sql");
	like($errors, qr/ERROR:  $code: .*$expected/s, $what);
}

# Without shared_preload_libraries a source can be made, and starting it says what to set.
{
	my $node = PostgreSQL::Test::Cluster->new('not_preloaded');
	$node->init;
	$node->start;
	$node->safe_psql('postgres', qq(
		CREATE EXTENSION imgpipe;
		CREATE SERVER kafka FOREIGN DATA WRAPPER imgpipe_kafka OPTIONS (bootstrap_servers '$bootstrap');
		SELECT imgpipe.create_source('photos', 'kafka', 'photos')));
	raises($node, "SELECT imgpipe.start_source('photos')", '55000',
		"HINT:  Set shared_preload_libraries = 'imgpipe' in postgresql.conf and restart the server", 'not preloaded');
	is($node->safe_psql('postgres', 'SELECT name, state, workers FROM imgpipe.source_status'),
		'photos|stopped|0', 'status of a source without workers');
	$node->stop;
}

my $node = new_cluster('main', 'imgpipe.max_processors = 0');
$node->safe_psql('postgres', 'CREATE ROLE team LOGIN; CREATE ROLE stranger LOGIN; CREATE ROLE group_role NOLOGIN');

# Options of servers and user mappings.
my $server = 'CREATE SERVER bad FOREIGN DATA WRAPPER imgpipe_kafka OPTIONS';
for my $case (
	[ "(bootstrap_server 'x')", 'HV00D', 'invalid option "bootstrap_server".*Perhaps you meant the option "bootstrap_servers"' ],
	[ "(wonderful 'x')", 'HV00D', 'Valid options here are: bootstrap_servers, ' ],
	[ "(plugin_library_paths 'x')", 'HV00D', 'It loads libraries into the server process' ],
	[ "(sasl_kerberos_kinit_cmd 'x')", 'HV00D', 'runs a shell command' ],
	[ "(ssl_ca_location '/etc/passwd')", 'HV00D', 'Give the certificates themselves in ssl_ca_pem' ],
	[ "(enable_auto_commit 'true')", 'HV00D', 'imgpipe keeps positions itself' ],
	[ "(sasl_username 'x')", 'HV00D', 'belongs to a user mapping.*CREATE USER MAPPING' ],
	[ "(security_protocol 'tls')", 'HV024', 'The value is "tls".*plaintext,ssl,sasl_plaintext,sasl_ssl' ],
	[ "(bootstrap_servers 'a b; c')", 'HV024', 'Give host:port' ],
	[ "(bootstrap_servers ',')", 'HV024', 'Give host:port' ],
	[ "(fetch_wait_max_ms '10s')", 'HV024', 'whole numbers from 1 to 5000' ],
	[ "(ssl_ca_pem '/etc/ssl/ca.pem')", 'HV024', 'Give the PEM text itself' ])
{
	raises($node, "$server $case->[0]", @$case[ 1, 2 ], "server option $case->[0]");
}
$node->safe_psql('postgres', qq(
	CREATE SERVER kafka FOREIGN DATA WRAPPER imgpipe_kafka OPTIONS (bootstrap_servers '$bootstrap');
	CREATE FOREIGN DATA WRAPPER other;
	CREATE SERVER elsewhere FOREIGN DATA WRAPPER other));
raises($node, "CREATE USER MAPPING FOR team SERVER kafka OPTIONS (bootstrap_servers 'x')",
	'HV00D', 'belongs to a server, not to a user mapping', 'server option in a user mapping');
{
	my ($status, $out, $errors) = $node->psql('postgres',
		"CREATE USER MAPPING FOR team SERVER kafka OPTIONS (ssl_key_pem 'hunter2')");
	like($errors, qr/invalid value for option "ssl_key_pem"/, 'a key that is none');
	($status, $out, $errors) = $node->psql('postgres', "$server (sasl_password 'hunter2')");
	like($errors, qr/belongs to a user mapping/, 'a password among the server options');
	unlike($errors, qr/hunter2/, 'no secret in an error');
}

# What create_source() checks, with the statement that helps.
my $create = "SELECT imgpipe.create_source('photos', 'kafka', 'photos'";
raises($node, "SELECT imgpipe.create_source('photos', 'nowhere', 'photos')", '42704', 'HINT:  CREATE SERVER nowhere', 'no server');
raises($node, "SELECT imgpipe.create_source('photos', 'elsewhere', 'photos')", '42809', 'wrapper other', 'server of another wrapper');
raises($node, "SELECT imgpipe.create_source('sql', 'kafka', 'photos')", '42602', '"sql" is for images that are inserted', 'name sql');
raises($node, "SELECT imgpipe.create_source('photos', 'kafka', 'a topic')", '42602', 'topic name "a topic" is not valid', 'topic name');
raises($node, "$create, retention => '1 second')", '22023', 'It is 00:00:01', 'retention');
raises($node, "$create, parallelism => 0)", '22023', 'parallelism must be between 1 and 64', 'parallelism');
raises($node, "$create, start_from => 'soon')", '22023', 'It is "soon"', 'start_from');
$node->safe_psql('postgres', 'GRANT USAGE ON SCHEMA imgpipe TO team, stranger, group_role; GRANT SELECT, INSERT, UPDATE, DELETE ON imgpipe.sources TO team, stranger, group_role');
raises($node, "SET ROLE team; $create)", '42501', 'GRANT USAGE ON FOREIGN SERVER kafka TO team;', 'no USAGE on the server');
$node->safe_psql('postgres', 'GRANT USAGE ON FOREIGN SERVER kafka TO team, group_role');
raises($node, "SET ROLE team; $create)", '42501', 'GRANT USAGE ON SCHEMA imgpipe TO team; GRANT INSERT ON imgpipe.images, imgpipe.dead_letters TO team;', 'no INSERT');
$node->safe_psql('postgres', 'GRANT INSERT ON imgpipe.images, imgpipe.dead_letters TO team, group_role');
SKIP:
{
	skip 'workers need no LOGIN from PostgreSQL 17 on', 1 if $node->pg_version >= 17;
	raises($node, "SET ROLE group_role; $create)", '28000', 'ALTER ROLE group_role LOGIN', 'no LOGIN');
}

# From create to rows, as a role with just these rights.
$broker->create_topic('photos', 2);
$node->safe_psql('postgres', "SET ROLE team; $create, retention => '2 days', parallelism => 2, linger_ms => 5)");
raises($node, "SET ROLE team; $create)", '42710', 'source "photos" already exists', 'a name twice');
raises($node, "SET ROLE stranger; SELECT imgpipe.start_source('photos')", '42501', 'must be owner of source "photos"', 'not the owner');
$node->safe_psql('postgres', "SET ROLE stranger; UPDATE imgpipe.sources SET topic = 'others'");
is($node->safe_psql('postgres', 'SELECT topic FROM imgpipe.sources'), 'photos', 'row security keeps others from changing a source');
$node->safe_psql('postgres', 'REVOKE USAGE ON FOREIGN SERVER kafka FROM team');
raises($node, "SELECT imgpipe.start_source('photos')", '42501', 'GRANT USAGE ON FOREIGN SERVER kafka TO team;', 'the owner has lost a right');
$node->safe_psql('postgres', 'GRANT USAGE ON FOREIGN SERVER kafka TO team');
raises($node, "SELECT imgpipe.start_source(NULL)", '42704', 'does not exist', 'no name');
raises($node, "SELECT imgpipe.start_source('nothing')", '42704', 'source "nothing" does not exist', 'no such source');

$broker->produce('photos', [$photo], key => 'first', partition => 0,
	headers => { batch_id => 'b1', uploaded_by => 'camera 7', place => 'Zürich', raw => "\xff\xfe" });
$broker->produce('photos', [$photo], key => "\xff\x01", partition => 1);
$node->safe_psql('postgres', "SET ROLE team; SELECT imgpipe.start_source('photos')");
ok(poll_until($node, "SELECT state, workers, partitions, lag_messages, messages FROM imgpipe.source_status", 'idle|2|2|0|2'), 'both messages are in');
is($node->safe_psql('postgres', q(SELECT source, source_partition, source_offset, source_key, batch_id, uploaded_by, format, headers
		FROM imgpipe.images ORDER BY source_partition)),
	join("\n",
		'photos|0|0|first|b1|camera 7|jpeg|{"raw": {"hex": "fffe"}, "place": "Zürich", "batch_id": "b1", "uploaded_by": "camera 7"}',
		'photos|1|0|\xff01||team|jpeg|'), 'where a message came from is kept');
my $size = -s $photo;
is($node->safe_psql('postgres', qq(SELECT bool_and(content::bytea = pg_read_binary_file('$photo') AND bytes = $size
			AND abs(extract(epoch FROM received_at - source_timestamp)) < 600
			AND imgpipe.purge_at(image_id) BETWEEN received_at + '2 days' - '1 minute'::interval AND received_at + '2 days' + '1 second')
		FROM imgpipe.images)), 't', 'bytes, timestamp and retention');

# A partition that is added is noticed and begins at its beginning.
$broker->grow_topic('photos', 3);
$broker->produce('photos', [$photo], key => 'new', partition => 2);
ok(poll_until($node, "SELECT source_partition, source_offset FROM imgpipe.images WHERE source_key = 'new'", '2|0'), 'a new partition is ingested');

# It goes on by itself after a restart of the server, and not after stop_source().
$node->restart;
$broker->produce('photos', [$photo], key => 'after restart', partition => 0);
ok(poll_until($node, "SELECT count(*) FROM imgpipe.images WHERE source_key = 'after restart'", 1), 'ingest starts again after a restart');
raises($node, "SELECT imgpipe.drop_source('photos')", '55006', "imgpipe.stop_source\\('photos'\\)", 'a started source is not dropped');
raises($node, "SELECT imgpipe.seek_source('photos', '{\"0\": 0}')", '55006', 'is started', 'nor moved');
$node->safe_psql('postgres', "SET ROLE team; SELECT imgpipe.stop_source('photos')");
ok(poll_until($node, 'SELECT state, workers, partitions FROM imgpipe.source_status', 'stopped|0|3'), 'stopped');
$node->restart;
$broker->produce('photos', [$photo], key => 'while stopped', partition => 0);
is(join(',', worker_pids($node, 'ingest')), '', 'a stopped source stays stopped');
$node->safe_psql('postgres', "SET ROLE team; SELECT imgpipe.start_source('photos')");
ok(poll_until($node, "SELECT count(*) FROM imgpipe.images WHERE source_key = 'while stopped'", 1), 'and goes on where it ended');

# Missing rights hold it up, and make no dead letters.
$node->safe_psql('postgres', 'REVOKE INSERT ON imgpipe.images FROM team');
$broker->produce('photos', [$photo], key => 'no rights', partition => 1);
ok(poll_until($node, "SELECT state, last_error FROM imgpipe.source_status", qr/^retrying\|permission denied for table images$/), 'held up without rights');
is($node->safe_psql('postgres', 'SELECT count(*) FROM imgpipe.dead_letters'), 0, 'no dead letter for a missing right');
$node->safe_psql('postgres', 'GRANT INSERT ON imgpipe.images TO team');
ok(poll_until($node, "SELECT count(*) FROM imgpipe.images WHERE source_key = 'no rights'", 1), 'goes on with rights');
ok(poll_until($node, 'SELECT state FROM imgpipe.source_status', 'idle'), 'and says so');

# A cancel is no message's fault either.
{
	my $blocker = $node->background_psql('postgres');
	$blocker->query_safe('BEGIN; LOCK TABLE imgpipe.images IN SHARE MODE');
	$broker->produce('photos', [$photo], key => 'cancelled', partition => 1);
	ok(poll_until($node, "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE backend_type = 'imgpipe ingest' AND wait_event_type = 'Lock'", 't'), 'a worker waits and is cancelled');
	ok(poll_until($node, "SELECT count(*) FROM imgpipe.source_status WHERE last_error = 'canceling statement due to user request'", 1), 'cancel is shown');
	$blocker->query_safe('COMMIT');
	$blocker->quit;
}
ok(poll_until($node, "SELECT count(*) FROM imgpipe.images WHERE source_key = 'cancelled'", 1), 'and the message comes after all');

# Changed settings hold at once.
$node->safe_psql('postgres', "ALTER SERVER kafka OPTIONS (SET bootstrap_servers '127.0.0.1:1')");
ok(poll_until($node, 'SELECT state, last_error FROM imgpipe.source_status', qr/^retrying\|no answer from a Kafka broker/), 'a wrong server holds it up');
$node->safe_psql('postgres', "ALTER SERVER kafka OPTIONS (SET bootstrap_servers '$bootstrap')");
ok(poll_until($node, 'SELECT state FROM imgpipe.source_status', 'idle'), 'and a right one lets it go on');

# A start_from of latest leaves out what is there, but nothing that comes.
$broker->create_topic('news', 1);
$broker->produce('news', [$photo], key => 'old');
$node->safe_psql('postgres', "SELECT imgpipe.create_source('news', 'kafka', 'news', start_from => 'latest'); SELECT imgpipe.start_source('news')");
ok(poll_until($node, "SELECT state FROM imgpipe.source_status WHERE name = 'news'", 'idle'), 'latest is caught up at once');
$broker->produce('news', [$photo], key => 'new');
ok(poll_until($node, "SELECT string_agg(source_key, ',') FROM imgpipe.images WHERE source = 'news'", 'new'), 'latest begins at the end');

# A topic that was made anew is an error, not a jump.
$broker->delete_topic('news');
ok(poll_until($node, "SELECT state FROM imgpipe.source_status WHERE name = 'news'", 'retrying'), 'a deleted topic is shown');
$broker->create_topic('news', 1);
$broker->produce('news', [ ($photo) x 3 ], key => 'anew');
ok(poll_until($node, "SELECT state, last_error FROM imgpipe.source_status WHERE name = 'news'", qr/^retrying\|.*made anew/), 'a topic made anew is shown');
$node->safe_psql('postgres', "SELECT imgpipe.stop_source('news')");
ok(poll_until($node, "SELECT state FROM imgpipe.source_status WHERE name = 'news'", 'stopped'), 'stopped');
$node->safe_psql('postgres', "SELECT imgpipe.seek_source('news', '{\"0\": 1}'); SELECT imgpipe.start_source('news')");
ok(poll_until($node, "SELECT string_agg(source_offset::text, ',' ORDER BY source_offset) FROM imgpipe.images WHERE source_key = 'anew'", '1,2'), 'and goes on where it is told to');

# Positions that somebody else changed: the worker begins again with what they are.
$node->safe_psql('postgres', "UPDATE imgpipe.ingest_positions p SET next_offset = 2, last_offset = NULL FROM imgpipe.sources s WHERE s.source_id = p.source_id AND s.name = 'news'");
$broker->produce('news', [$photo], key => 'fenced');
ok(poll_until($node, "SELECT string_agg(source_offset::text, ',' ORDER BY source_offset) FROM imgpipe.images WHERE source = 'news' AND source_offset > 1", '2,2,3'), 'ingested from the changed position on');
like($node->safe_psql('postgres', "SELECT last_error FROM imgpipe.source_status WHERE name = 'news'"), qr/positions of source "news" were changed by somebody else/, 'fenced');

# A copy of the database does not ingest by itself.
$node->safe_psql('postgres', "UPDATE imgpipe.sources SET started_in = '1/1' WHERE name = 'news'");
ok(poll_until($node, "SELECT state, last_error FROM imgpipe.source_status WHERE name = 'news'", qr/^retrying\|.*started in another database/), 'a copy waits to be told');
raises($node, "SELECT imgpipe.start_source('news')", '55000', "imgpipe.adopt_source\\('news'\\)", 'starting it is not enough');
$node->safe_psql('postgres', "SELECT imgpipe.adopt_source('news')");
ok(poll_until($node, "SELECT state FROM imgpipe.source_status WHERE name = 'news'", 'idle'), 'and then ingests');

$node->safe_psql('postgres', "SELECT imgpipe.stop_source('news'); SELECT imgpipe.drop_source('news')");
is($node->safe_psql('postgres', "SELECT count(*) FROM imgpipe.ingest_positions JOIN imgpipe.sources USING (source_id) WHERE name <> 'photos'"), 0, 'dropped with its positions');
is($node->safe_psql('postgres', "SELECT count(*) FROM imgpipe.images WHERE source = 'news'"), 5, 'its images stay');

$node->stop;
done_testing();
