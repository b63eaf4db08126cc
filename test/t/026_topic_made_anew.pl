# Topics that are deleted and made again, with more, fewer and no messages, while nobody reads them and behind the reader's back: each is an error that is shown, and nothing of the new one passes for a continuation of the old one.
use strict;
use warnings;

use ImgpipeTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $broker = start_broker();
my $bootstrap = $broker->bootstrap;
my $node = new_cluster('main', 'imgpipe.max_processors = 0');
my ($photo) = mass_images(1);
my $old = 5;					# messages in each of two partitions
my %new = (more => 8, fewer => 2, none => 0, unread => 8, gone => undef);
my @topics = sort keys %new;

sub produce
{
	my ($topic, $key, $partitions, $count) = @_;
	$broker->produce($topic, [ ($photo) x $count ], key => $key, partition => $_) for 0 .. $partitions - 1;
}

$node->safe_psql('postgres', "CREATE SERVER kafka FOREIGN DATA WRAPPER imgpipe_kafka OPTIONS (bootstrap_servers '$bootstrap')");
for my $topic (@topics)
{
	$broker->create_topic($topic, 2);
	produce($topic, 'old', 2, $old);
	$node->safe_psql('postgres', "SELECT imgpipe.create_source('$topic', 'kafka', '$topic'); SELECT imgpipe.start_source('$topic')");
}
sub status { return "SELECT state, lag_messages FROM imgpipe.source_status WHERE name = '$_[0]'" }
ok(poll_until($node, status($_), 'idle|0'), "$_: ingested") for @topics;
$node->safe_psql('postgres', "SELECT imgpipe.stop_source('unread')");
ok(poll_until($node, 'SELECT state FROM imgpipe.source_status WHERE name = \'unread\'', 'stopped'), 'unread: stopped');

my $began = time;
for my $topic (@topics)
{
	$broker->delete_topic($topic);
	ok(poll_until($node, "SELECT state, last_error FROM imgpipe.source_status WHERE name = '$topic'", qr/^retrying\|.*(unknown topic|does not exist)/i), "$topic: its end is seen")
	  unless $topic eq 'unread';
	next unless defined $new{$topic};
	$broker->create_topic($topic, 2);
	produce($topic, 'new', 2, $new{$topic}) if $new{$topic};
}
$node->safe_psql('postgres', "SELECT imgpipe.start_source('unread')");

my %reason = (gone => qr/^retrying\|.*(unknown topic|does not exist|Unknown topic)/i);
for my $topic (@topics)
{
	my $reason = $reason{$topic} // qr/^retrying\|.*is not what was ingested/;
	ok(poll_until($node, "SELECT state, last_error FROM imgpipe.source_status WHERE name = '$topic'", $reason), "$topic: shown")
	  or diag($node->safe_psql('postgres', "SELECT * FROM imgpipe.source_partitions WHERE name = '$topic'"));
}
note sprintf 'all shown %d seconds after the first was deleted', time - $began;
is($node->safe_psql('postgres', 'SELECT source, count(*), min(source_key), max(source_key) FROM imgpipe.images GROUP BY 1 ORDER BY 1'),
	join("\n", map { "$_|" . 2 * $old . '|old|old' } @topics), 'nothing of a new topic was ingested');
is($node->safe_psql('postgres', 'SELECT count(*) FROM imgpipe.dead_letters'), 0, 'nor became a dead letter');

# Told where to begin, they go on, and are no errors any more.
for my $topic (@topics)
{
	$node->safe_psql('postgres', "SELECT imgpipe.stop_source('$topic')");
	ok(poll_until($node, "SELECT state FROM imgpipe.source_status WHERE name = '$topic'", 'stopped'), "$topic: stopped");
	next unless defined $new{$topic};
	$node->safe_psql('postgres', "SELECT imgpipe.seek_source('$topic', 'earliest'); SELECT imgpipe.start_source('$topic')");
}
for my $topic (grep { defined $new{$_} } @topics)
{
	my $expected = 2 * $new{$topic};
	ok(poll_until($node, "SELECT count(*) FROM imgpipe.images WHERE source = '$topic' AND source_key = 'new'", $expected), "$topic: $expected messages of the new topic after a seek");
	ok(poll_until($node, status($topic), 'idle|0'), "$topic: idle");
}

# Between two requests of a running worker, which finds its offsets in the new topic as if nothing had been: it may take what
# follows them for a moment, but then says what happened, and neither time nor a restart makes it go on.
$node->safe_psql('postgres', 'SELECT imgpipe.stop_source(name) FROM imgpipe.sources');
$broker->create_topic('hidden', 2);
produce('hidden', 'old', 2, $old);
$node->safe_psql('postgres', "SELECT imgpipe.create_source('hidden', 'kafka', 'hidden'); SELECT imgpipe.start_source('hidden')");
ok(poll_until($node, status('hidden'), 'idle|0'), 'hidden: ingested');
$node->safe_psql('postgres', "SELECT imgpipe.stop_source('hidden')");
ok(poll_until($node, "SELECT count(*) FROM imgpipe.source_status WHERE state <> 'stopped'", 0), 'hidden: stopped');
$node->safe_psql('postgres', "SELECT imgpipe.start_source('hidden')");
ok(poll_until($node, status('hidden'), 'idle|0'), 'hidden: idle');
produce('hidden', 'old', 2, 1);
ok(poll_until($node, q[SELECT count(*) FROM imgpipe.images WHERE source = 'hidden'], 2 * $old + 2), 'hidden: goes on');
my $pid = worker_pid($node, 'ingest');
kill STOP => $pid or die "no worker: $!";
$broker->delete_topic('hidden');
$broker->create_topic('hidden', 2);
produce('hidden', 'new', 2, $old + 3);
kill CONT => $pid;
my $shown = "SELECT state, last_error FROM imgpipe.source_status WHERE name = 'hidden'";
ok(poll_until($node, $shown, qr/^retrying\|.*is not what was ingested/), 'hidden: shown');
my $taken = $node->safe_psql('postgres', q[SELECT count(*) FROM imgpipe.images WHERE source = 'hidden' AND source_key = 'new']);
cmp_ok($taken, '<=', 4, "hidden: after $taken messages of the new topic");
$node->restart;
produce('hidden', 'new', 2, 3);
ok(poll_until($node, $shown, qr/^retrying\|.*is not what was ingested/), 'hidden: shown after a restart');
is($node->safe_psql('postgres', q[SELECT count(*) FROM imgpipe.images WHERE source = 'hidden' AND source_key = 'new']), $taken, 'hidden: which takes no more');
$node->safe_psql('postgres', q[SELECT imgpipe.stop_source('hidden'); SELECT imgpipe.seek_source('hidden', 'earliest'); SELECT imgpipe.start_source('hidden')]);
ok(poll_until($node, status('hidden'), 'idle|0'), 'hidden: idle after a seek');
is($node->safe_psql('postgres', q[SELECT count(DISTINCT (source_partition, source_offset)) FROM imgpipe.images WHERE source = 'hidden' AND source_key = 'new']),
	2 * ($old + 6), 'hidden: with the new topic from its beginning');

$node->stop;
done_testing();
