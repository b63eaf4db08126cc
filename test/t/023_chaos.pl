# 20,000 messages on 8 partitions while, at random, workers and decoders are killed, the server is stopped immediately,
# and the broker is stopped or killed: every message is one image or one dead letter, with its own key and bytes.
#
# IMGPIPE_SEED repeats the order of the blows; the moments in which they fall are the machine's.
use strict;
use warnings;

use Digest::SHA qw(sha256_hex);
use ImgpipeTest;
use List::Util qw(shuffle);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $n_messages = 20_000;
my $partitions = 8;
my $seed = $ENV{IMGPIPE_SEED} // time ^ $$;
srand $seed;
note "IMGPIPE_SEED=" . int $seed;

my $broker = start_broker();
my $bootstrap = $broker->bootstrap;
my $node = new_cluster('main', 'imgpipe.max_processors = 0', 'synchronous_commit = on', 'imgpipe.decoder_timeout = 5s');
$broker->create_topic('photos', $partitions);

# All different: what follows the end of a JPEG image belongs to the file.  One in fifty is none.
my $photo = slurp_file((mass_images(1))[0]);
my (%sent, %bad);
my @messages;
for my $i (0 .. $n_messages - 1)
{
	my $key = "key $i";
	my $value = $i % 50 == 7 ? "no image $i" : "$photo<$i>";
	($i % 50 == 7 ? $bad{$key} : $sent{$key}) = sha256_hex($value);
	push @{ $messages[ int rand $partitions ] }, { value => $value, key => $key };
}
for my $partition (0 .. $partitions - 1)
{
	$_->{partition} = $partition for @{ $messages[$partition] };
	$broker->produce_many('photos', $messages[$partition]);
}
is($broker->message_count('photos'), $n_messages, 'all messages are sent');

# Slow enough that every blow falls in the middle.
$node->safe_psql('postgres', qq(
	CREATE FUNCTION public.slowly() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.006); RETURN NEW; END';
	CREATE TRIGGER slowly BEFORE INSERT ON imgpipe.images FOR EACH ROW EXECUTE FUNCTION public.slowly();
	CREATE SERVER kafka FOREIGN DATA WRAPPER imgpipe_kafka OPTIONS (bootstrap_servers '$bootstrap', broker_address_family 'v4',
		reconnect_backoff_max_ms '500');
	SELECT imgpipe.create_source('photos', 'kafka', 'photos', parallelism => 4, batch_rows => 50);
	SELECT imgpipe.start_source('photos')));

my $ingested = 'SELECT coalesce(sum(next_offset), 0) FROM imgpipe.ingest_positions';

sub kill_one
{
	my (@pids) = @_;
	return @pids && kill 'KILL', $pids[ int rand @pids ];
}

# Until it strikes: right after a blow the one to be killed may not be back yet.
sub kill_soon
{
	my ($find) = @_;
	return poll_code(sub { kill_one($find->()) });
}

my %blow = (
	'kill -9 of an ingest worker' => sub { kill_soon(sub { worker_pids($node, 'ingest') }) },
	'kill -9 of the controller' => sub { kill_soon(sub { worker_pids($node, 'controller') }) },
	'kill -9 of a decoder' => sub { kill_soon(sub { decoder_pids($node) }) },
	'an immediate stop of the server' => sub { $node->stop('immediate'); $node->start; 1 },
	'kill -9 of the broker' => sub { $broker->kill_hard; $broker->start; 1 },
	'a restart of the broker' => sub { $broker->restart; 1 });
my @blows = shuffle(
	('kill -9 of an ingest worker') x 3, ('kill -9 of a decoder') x 4, ('an immediate stop of the server') x 2,
	'kill -9 of the controller', 'kill -9 of the broker', 'a restart of the broker');

# Each in a twelfth of its own, somewhere in it.
my $span = $n_messages * 0.6 / @blows;
for my $i (0 .. $#blows)
{
	my $at = int($span * ($i + rand));
	ok(poll_until($node, "SELECT ($ingested) BETWEEN $at AND $n_messages - 1", 't'), "$blows[$i]: $at messages are ingested, and not all") or last;
	ok($blow{ $blows[$i] }->(), "$blows[$i]: done");
}

ok(poll_until($node, 'SELECT state, workers, partitions, lag_messages FROM imgpipe.source_status', "idle|4|$partitions|0"), 'ingest is through');
is($node->safe_psql('postgres', $ingested), $n_messages, 'with as many messages as were sent');

sub rows { return map { [ split /\|/ ] } split /\n/, $node->safe_psql('postgres', $_[0]) }

for ([ 'image', \%sent, q(SELECT source_key, encode(sha256, 'hex') FROM imgpipe.images) ],
	[ 'dead letter', \%bad, q(SELECT source_key, encode(sha256(value), 'hex') FROM imgpipe.dead_letters) ])
{
	my ($what, $expected, $query) = @$_;
	my (%times, $wrong);
	for my $row (rows($query))
	{
		$times{ $row->[0] }++;
		$wrong++ unless ($expected->{ $row->[0] } // '') eq $row->[1];
	}
	is(scalar(keys %times), scalar(keys %$expected), 'every key of ' . keys(%$expected) . " is a $what");
	is(scalar(grep { $_ > 1 } values %times), 0, 'no key twice');
	is($wrong // 0, 0, 'and each with its own bytes');
}
is($node->safe_psql('postgres', 'SELECT count(DISTINCT (source_partition, source_offset)) FROM imgpipe.images'), scalar(keys %sent), 'each from an offset of its own');
is($node->safe_psql('postgres', "SELECT count(*) FROM imgpipe.dead_letters WHERE sqlstate <> '22P03'"), 0, 'nothing but bytes that are no image is a dead letter');

$node->stop;
done_testing();
