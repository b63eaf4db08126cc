# Results on their way to Kafka while a task fails, the broker goes away, the
# sender is killed and topics refuse: none is lost, and those of one key keep
# the order of the source.
use strict;
use warnings;

use ImgpipeTest;
use JSON::PP;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $n_keys = 20;
my $n_images = 300;

my $broker = start_broker();
my $bootstrap = $broker->bootstrap;
my $node = new_cluster('main', 'imgpipe.max_processors = 2');
my @images = mass_images($n_images);
my $outbox = 'SELECT state, pending, ready, refused_now FROM imgpipe.outbox_status';

# The results in a topic by key, copies of a message counted once: offsets in the order in which they first came.
sub offsets_by_key
{
	my ($topic) = @_;
	my (%seen, %offsets);
	for my $message ($broker->consume($topic))
	{
		next if $seen{ $message->{headers}{'imgpipe-message-id'} }++;
		push @{ $offsets{ $message->{key} } }, $message->{headers}{'imgpipe-offset'};
	}
	return %offsets;
}

sub in_order
{
	my (%offsets) = @_;
	return join ' ', grep { join(' ', @{ $offsets{$_} }) ne join(' ', sort { $a <=> $b } @{ $offsets{$_} }) } sort keys %offsets;
}

sub total
{
	my (%offsets) = @_;
	my $total = 0;
	$total += @$_ for values %offsets;
	return $total;
}

$broker->create_topic('photos', 2);
$broker->create_topic('results', 2);
$broker->create_topic('narrow', 1, 'max.message.bytes=3000');

# A processor that fails for one image until the gate is open, and is slow for all.
$node->safe_psql('postgres', qq(
	CREATE TABLE public.gate (shut text);
	INSERT INTO public.gate VALUES ('0');
	CREATE FUNCTION public.guarded(imgpipe.image) RETURNS jsonb LANGUAGE plpgsql AS '
	BEGIN
		PERFORM pg_sleep(0.005);
		IF EXISTS (SELECT FROM public.gate g JOIN imgpipe.images i ON i.source_key = ''held'' AND i.source_offset::text = g.shut AND i.source = ''photos''
				WHERE i.sha256 = imgpipe.image_sha256(\$1)) THEN
			RAISE EXCEPTION ''the gate is shut'';
		END IF;
		RETURN ''{}'';
	END';
	SELECT imgpipe.create_processor('guarded', function => 'public.guarded(imgpipe.image)', max_attempts => 100);
	CREATE SERVER kafka FOREIGN DATA WRAPPER imgpipe_kafka OPTIONS (bootstrap_servers '$bootstrap', reconnect_backoff_max_ms '500');
	SELECT imgpipe.create_source('photos', 'kafka', 'photos', result_topic => 'results');
	SELECT imgpipe.start_source('photos')));

# One image that is tried again and again holds up what has its key, and nothing else.
$broker->produce_many('photos', [ map { { file => $images[$_], key => 'held', partition => 0 } } 0 .. 4 ]);
ok(poll_until($node, $outbox, qr/^\w+\|1\|4\|0$/), 'four results wait for the first of their key');
$broker->produce_many('photos', [ map { { file => $images[$_], key => "free $_", partition => 0 } } 5 .. 9 ]);
ok(poll_until($node, 'SELECT messages FROM imgpipe.outbox_status', 5), 'others do not');
my %offsets = offsets_by_key('results');
is(join(' ', sort keys %offsets), join(' ', map {"free $_"} 5 .. 9), 'and are there');
is($node->safe_psql('postgres', $outbox), 'idle|1|4|0', 'the held ones are still held');
$node->safe_psql('postgres', 'DELETE FROM public.gate');
$node->safe_psql('postgres', 'UPDATE imgpipe.tasks SET available_at = now()');
ok(poll_until($node, $outbox, 'idle|0|0|0'), 'all go when the first is done');
%offsets = offsets_by_key('results');
is(join(' ', @{ $offsets{held} }), '0 1 2 3 4', 'in the order of the source');

# A task that goes away by hand does not hold up for ever.
$node->safe_psql('postgres', "SELECT imgpipe.stop_processor('guarded')");
$broker->produce('photos', [ $images[10] ], key => 'by hand', partition => 0);
ok(poll_until($node, "SELECT count(*) FROM imgpipe.images WHERE source_key = 'by hand'", 1), 'an image arrives');
$node->safe_psql('postgres', "SELECT imgpipe.start_processor('guarded')");
ok(poll_until($node, $outbox, 'idle|0|0|0'), 'while no processor is on, it is done');

# The broker goes away in mid-run and comes back.
my @keyed = map { { file => $images[$_], key => 'key ' . $_ % $n_keys, partition => $_ % 2 } } 0 .. $n_images - 1;
my $before = $node->safe_psql('postgres', 'SELECT messages FROM imgpipe.outbox_status');
$broker->produce_many('photos', \@keyed);
ok(poll_until($node, "SELECT messages > $before + 20 FROM imgpipe.outbox_status", 't'), 'results are on their way');
$broker->kill_hard;
ok(poll_until($node, 'SELECT state, last_error FROM imgpipe.outbox_status', qr/^retrying\|Kafka does not take messages: /), 'the status shows that the broker is away');
ok(poll_until($node, 'SELECT count(*) FROM imgpipe.tasks', 0), 'processing goes on');
cmp_ok($node->safe_psql('postgres', 'SELECT ready FROM imgpipe.outbox_status'), '>', 0, 'results wait');
is($node->safe_psql('postgres', "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'imgpipe sender' AND xact_start IS NOT NULL"), 0, 'with no transaction open');
my $pid = worker_pid($node, 'sender');
$broker->start;
ok(poll_until($node, "SELECT count(*) FROM imgpipe.images WHERE source_key LIKE 'key %'", $n_images), 'all images come in');
ok(poll_until($node, $outbox, 'idle|0|0|0'), 'all results go out');
is(worker_pid($node, 'sender'), $pid, 'by the same process');
%offsets = offsets_by_key('results');
delete @offsets{ grep { !/^key / } keys %offsets };
is(total(%offsets), $n_images, 'one for each image');
is(in_order(%offsets), '', 'in the order of the source for each key');

# Killed between Kafka's acknowledgement and the deletion: sent twice, in order.
my $blocker = $node->background_psql('postgres');
$blocker->query_safe('BEGIN; LOCK TABLE imgpipe.senders IN EXCLUSIVE MODE');
my $sent = $broker->message_count('results');
$broker->produce_many('photos', [ map { { file => $images[$_], key => 'twice ' . $_ % 3, partition => 1 } } 0 .. 29 ]);
ok(poll_code(sub { $broker->message_count('results') > $sent }), 'Kafka has messages');
ok(poll_until($node, q(SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE a.backend_type = 'imgpipe sender' AND NOT l.granted), 1), 'which are not deleted yet');
kill 'KILL', worker_pid($node, 'sender');
eval { $blocker->quit };
ok(poll_until($node, $outbox, 'idle|0|0|0'), 'after kill -9 of the sender all go out');
ok(poll_until($node, 'SELECT count(*) FROM imgpipe.tasks', 0), 'and all are processed');
%offsets = offsets_by_key('results');
delete @offsets{ grep { !/^twice / } keys %offsets };
is(total(%offsets), 30, 'none is lost');
is(in_order(%offsets), '', 'each key in order');
cmp_ok($broker->message_count('results'), '>', $sent + 30, 'some came twice');

# A topic that is not there holds up its own messages, not those of others.
$node->safe_psql('postgres', q(
	SELECT imgpipe.drop_processor('guarded');
	SELECT imgpipe.alter_source('photos', result_topic => 'missing')));
ok(poll_until($node, 'SELECT state FROM imgpipe.source_status', 'idle'), 'the source runs');
$broker->produce('photos', [ $images[0] ], key => 'early', partition => 0);
ok(poll_until($node, 'SELECT state, ready, last_error FROM imgpipe.outbox_status', qr/^retrying\|1\|topic "missing" does not take messages: /), 'a missing topic is shown');
$node->safe_psql('postgres', q(SELECT imgpipe.enqueue_message('kafka', 'results', 'other', 'for another topic', '{"note": "x"}')));
ok(poll_code(sub { grep { ($_->{key} // '') eq 'other' && $_->{headers}{note} eq 'x' } $broker->consume('results') }), 'another topic is served');
is($node->safe_psql('postgres', 'SELECT ready FROM imgpipe.outbox_status'), 1, 'meanwhile');
$broker->create_topic('missing', 1);
ok(poll_until($node, $outbox, 'idle|0|0|0'), 'when it is there, it gets its message');
is(join(' ', map { $_->{key} } $broker->consume('missing')), 'early', 'once');

# What is too large for a topic is set aside, and what was refused along with it is not.
my $large = 'x' x 5000;
$node->safe_psql('postgres', join ';', map { "SELECT imgpipe.enqueue_message('kafka', 'narrow', 'k', '" . ($_ == 3 ? $large : "small $_") . "')" } 1 .. 5);
ok(poll_until($node, $outbox, 'idle|0|0|1'), 'a message that is too large is set aside');
is(join('|', map { $_->{value} } $broker->consume('narrow')), 'small 1|small 2|small 4|small 5', 'the others arrive');
like($node->safe_psql('postgres', "SELECT error FROM imgpipe.outbox WHERE state = 'refused'"), qr/too large/i, 'with the reason');
$broker->set_topic('narrow', 'max.message.bytes=100000');
is($node->safe_psql('postgres', "SELECT imgpipe.resend_refused('narrow')"), 1, 'it can be sent again');
ok(poll_until($node, $outbox, 'idle|0|0|0'), 'when the topic takes it');
is(length(($broker->consume('narrow'))[4]{value} // ''), length($large), 'and it arrives');

# A copy of the database keeps quiet until it is told to send.
my $quiet = $broker->message_count('results');
$node->safe_psql('postgres', "SELECT imgpipe.stop_workers()");
$node->safe_psql('postgres', "SELECT imgpipe.enqueue_message('kafka', 'results', 'copy', 'from the copy')");
my $dump = "$PostgreSQL::Test::Utils::tmp_check/dump.sql";
$node->command_ok([ 'pg_dump', '-d', $node->connstr('postgres'), '-f', $dump ], 'a dump with a message in the outbox');
$node->safe_psql('postgres', "DELETE FROM imgpipe.outbox");
$node->safe_psql('postgres', 'CREATE DATABASE copy');
$node->command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('copy'), '-f', $dump ], 'is restored');
ok(poll_until($node, 'SELECT state, ready, last_error FROM imgpipe.outbox_status', qr/^retrying\|1\|server "kafka" was sent to from another database/, undef, 'copy'), 'it is held up');
$node->safe_psql('copy', 'SELECT imgpipe.adopt_outbox()');
ok(poll_until($node, $outbox, 'idle|0|0|0', undef, 'copy'), 'adopted, it sends');
is($broker->message_count('results'), $quiet + 1, 'that message and no other');

$node->stop;
done_testing();
