# Reading a topic in SQL: complete or an error, and nothing left of it.
use strict;
use warnings;

use ImgpipeTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $broker = start_broker();
my $bootstrap = $broker->bootstrap;
my $node = new_cluster('main', 'imgpipe.max_ingest_workers = 0', "work_mem = '64kB'", 'log_temp_files = 0');

sub query { return $node->safe_psql('postgres', $_[0]) }

sub raises
{
	my ($statement, $code, $pattern, $name) = @_;
	my ($status, $out, $errors) = $node->psql('postgres', "\\set VERBOSITY verbose\n$statement");
	like($errors, qr/ERROR:  $code: .*$pattern/s, "$name: $code");
}

$broker->create_topic('words', 2);
$broker->create_topic('many', 1);
$broker->produce_many('words', [
	{ key => 'a', value => 'zero', partition => 0, headers => { place => 'here' } },
	{ key => 'b', value => undef, partition => 0 },
	{ value => 'two', partition => 0 },
	{ key => "\xff", value => "\x00\x01", partition => 1 } ]);
query(qq(
	CREATE ROLE reader LOGIN; CREATE ROLE other LOGIN;
	GRANT USAGE ON SCHEMA imgpipe TO reader, other;
	CREATE SERVER kafka FOREIGN DATA WRAPPER imgpipe_kafka OPTIONS (bootstrap_servers '$bootstrap');
	CREATE SERVER nowhere FOREIGN DATA WRAPPER imgpipe_kafka OPTIONS (bootstrap_servers '127.0.0.1:1');
	GRANT USAGE ON FOREIGN SERVER kafka TO reader));

# What is there.
is(query(q(SELECT source_partition, source_offset, source_key, encode(value, 'hex'), headers FROM imgpipe.read_topic('kafka', 'words') ORDER BY 1, 2)),
	"0|0|a|7a65726f|{\"place\": \"here\"}\n0|1|b||\n0|2||74776f|\n1|0|\\xff|0001|", 'all of it');
is(query(q(SELECT bool_and(source_timestamp BETWEEN now() - interval '1 hour' AND now() + interval '1 minute') FROM imgpipe.read_topic('kafka', 'words'))), 't', 'with its timestamps');
is(query("SET ROLE reader; SELECT count(*) FROM imgpipe.read_topic('kafka', 'words', 0)"), 3, 'one partition, by who may use the server');
is(query("SELECT string_agg(source_offset::text, ' ') FROM imgpipe.read_topic('kafka', 'words', 0, 1)"), '1 2', 'from an offset');
is(query("SELECT string_agg(source_offset::text, ' ') FROM imgpipe.read_topic('kafka', 'words', 0, 1, 2)"), '1', 'to an offset');
is(query("SELECT count(*) FROM imgpipe.read_topic('kafka', 'words', 0, 3)"), 0, 'from the end');
is(query("SELECT count(*) FROM imgpipe.read_topic('kafka', 'words', 0, 2, 2)"), 0, 'an empty range');
is(query("SELECT count(*) FROM imgpipe.read_topic('kafka', 'words', 0, 0, 1000)"), 3, 'beyond the end');
is(query(q(SELECT string_agg(r.source_offset::text, ' ') FROM (SELECT source_timestamp AS at FROM imgpipe.read_topic('kafka', 'words', 0, 2)) t,
	imgpipe.read_topic('kafka', 'words', 0, from_time => t.at) r)) =~ /2$/, 1, 'from a time');
is(query("SELECT count(*) FROM imgpipe.read_topic('kafka', 'words', from_time => now() + interval '1 hour')"), 0, 'from a time to come');
is(query("SELECT count(*) FROM imgpipe.read_topic('kafka', 'words', to_time => '2000-01-01')"), 0, 'to a time long ago');
is(query("SELECT count(*) FROM imgpipe.read_topic('kafka', 'words', to_time => now() + interval '1 hour')"), 4, 'to a time to come');

# Two consumers of one truth.
query("SELECT imgpipe.create_source('words', 'kafka', 'words')");
is(query('SELECT count(*) FROM imgpipe.ingest_positions'), 0, 'no position is there or moves');

# Who may not, and what is wrong.
raises("SET ROLE other; SELECT * FROM imgpipe.read_topic('kafka', 'words')", '42501', 'permission denied for foreign server kafka', 'without USAGE');
raises("SELECT * FROM imgpipe.read_topic('missing', 'words')", '42704', 'server "missing" does not exist', 'no server');
raises("SELECT * FROM imgpipe.read_topic('kafka', 'missing')", '42704', 'topic "missing" cannot be read', 'no topic');
raises("SELECT * FROM imgpipe.read_topic('kafka', 'words', 2)", '22023', 'Topic "words" has 2', 'no partition');
raises("SELECT * FROM imgpipe.read_topic('kafka', 'words', 0, 4)", '22023', 'It is 4 of partition 0', 'no offset');
raises("SELECT * FROM imgpipe.read_topic('kafka', 'words', from_offset => 1)", '22023', 'Offsets are of one partition', 'an offset of no partition');
raises("SELECT * FROM imgpipe.read_topic('kafka', 'words', 0, -1)", '22023', '0 or more', 'a negative offset');
raises("SELECT * FROM imgpipe.read_topic('kafka', 'words', 0, 1, from_time => now())", '22023', 'not at both', 'two beginnings');
raises("SELECT * FROM imgpipe.read_topic('kafka', NULL)", '22023', 'cannot be null', 'no topic at all');
raises("SELECT * FROM imgpipe.read_topic('kafka', 'words', timeout => '1 ms')", '22023', 'between 1 second and 1 day', 'no time');
raises("SELECT * FROM imgpipe.read_topic('nowhere', 'words', timeout => '2 s')", '08006', 'Kafka has said nothing for 2000 ms.*Connection refused', 'nobody there');

# More than work_mem, and while more is sent: it ends all the same.
$broker->produce_many('many', [ map { { key => "key $_", value => "value $_ " . 'x' x 1000 } } 1 .. 20_000 ]);
my $sender = IPC::Run::start([ 'perl', '-e', '$| = 1; while (print "more\n" x 200) { select undef, undef, undef, 0.01 }' ],
	'|', [ 'kcat', '-q', '-P', '-b', $bootstrap, '-t', 'many', '-X', 'linger.ms=5' ], '2>', '/dev/null');
is(query("SELECT count(*) >= 20000, count(*) = max(source_offset) + 1, count(DISTINCT source_offset) = count(*) FROM imgpipe.read_topic('kafka', 'many')"), 't|t|t', 'what was there, without an end to what comes');
is(query("SELECT count(*), min(source_offset), max(source_offset), sum(length(value)) > 5000000 FROM imgpipe.read_topic('kafka', 'many', 0, 100, 10100)"), '10000|100|10099|t', 'a range in the middle');
$sender->kill_kill;
like(slurp_file($node->logfile), qr/temporary file: path .*pgsql_tmp/, 'beyond work_mem in a temporary file');

# Gaps: of transactions and of compaction there is nothing, and the end is found behind them.
$broker->create_topic('compacted', 1, 'cleanup.policy=compact', 'segment.ms=100', 'min.cleanable.dirty.ratio=0.01', 'min.compaction.lag.ms=0', 'max.compaction.lag.ms=100');
$broker->produce_many('compacted', [ map { { key => 'same', value => "value $_" } } 1 .. 5 ]);
my $count;
$broker->produce_many('compacted', [ { key => 'same', value => 'last' } ]);
ok(poll_code(sub {
	$broker->produce_many('compacted', [ { key => 'other', value => 'x' } ]);
	$count = query("SELECT count(*) FROM imgpipe.read_topic('kafka', 'compacted', 0) WHERE source_key = 'same'");
	return $count < 6; }), 'a topic is compacted');
is(query("SELECT encode(value, 'escape') FROM imgpipe.read_topic('kafka', 'compacted', 0) WHERE source_key = 'same' ORDER BY source_offset DESC LIMIT 1"), 'last', 'and read to its end');
is(query("SELECT count(*) FROM imgpipe.read_topic('kafka', 'compacted', 0, 0, 2) WHERE source_offset >= 2"), 0, 'nothing is behind the range');

# No thread is left, whatever becomes of it.
sub threads { return scalar(() = glob("/proc/$_[0]/task/*")) }
my $session = $node->background_psql('postgres', on_error_stop => 0);
my $pid = $session->query('SELECT pg_backend_pid()');
$session->query("SELECT count(*) FROM imgpipe.read_topic('kafka', 'words')");
is(threads($pid), 1, 'after a result there is one thread');
$session->query("SELECT 1 / (count(*) - count(*)) FROM imgpipe.read_topic('kafka', 'words')");
$session->query("DO \$\$ BEGIN PERFORM * FROM imgpipe.read_topic('kafka', 'words', 0, 77); EXCEPTION WHEN invalid_parameter_value THEN NULL; END \$\$");
is(threads($pid), 1, 'after errors too');

# A broker that stands still is none at its end, and a cancel does not wait for it.
my ($java) = grep { (readlink("/proc/$_/cwd") // '') ne '' && slurp_file("/proc/$_/cmdline") =~ /\Q$broker->{dir}\E/ && slurp_file("/proc/$_/comm") =~ /java/ } map { m{/(\d+)$} } glob('/proc/[0-9]*');
ok($java, 'the broker is found');
kill 'STOP', $java;
raises("SELECT * FROM imgpipe.read_topic('kafka', 'words', timeout => '3 s')", '08006', 'was not read to its end', 'a broker that does not answer');
my $out = '';
my $waiting = IPC::Run::start([ 'psql', '-X', '-q', '-d', $node->connstr('postgres'), '-c', "SELECT * FROM imgpipe.read_topic('kafka', 'words', timeout => '1 hour')" ], '>', \$out, '2>', \$out);
ok(poll_until($node, "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT * FROM imgpipe.read%' AND state = 'active'", 1), 'one waits');
my $canceled_at = time;
is(query("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query LIKE 'SELECT * FROM imgpipe.read%' AND state = 'active'"), 't', 'is canceled');
$waiting->finish;
note(sprintf 'canceled within %.0f ms, psql included', 1000 * (time - $canceled_at));
like($out, qr/canceling statement due to user request/, 'and ends');
$session->query("SET statement_timeout = '2s'; SELECT * FROM imgpipe.read_topic('kafka', 'words', timeout => '1 hour'); RESET statement_timeout");
is(threads($pid), 1, 'after a cancel no thread is left either');
$session->query('RESET statement_timeout');
kill 'CONT', $java;
is($session->query("SELECT count(*) FROM imgpipe.read_topic('kafka', 'words')"), 4, 'later it answers again');
$session->quit;

$node->stop;
done_testing();
