=head1 NAME

ImgpipeTest - clusters, a Kafka broker and sample images for TAP tests

=head1 SYNOPSIS

  use ImgpipeTest;
  use Test::More;

  my $node = new_cluster('main', 'imgpipe.max_processors = 2');
  my $broker = start_broker();
  $broker->create_topic('photos', 4);
  $broker->produce('photos', [ sample_image('photo.jpg') ], key => 'a', headers => { camera => 'left' });
  poll_until($node, 'SELECT count(*) FROM imgpipe.images', 1);

test/run sets what it needs; to run one test by hand: test/run --only tap NAME.

=cut

package ImgpipeTest;

use strict;
use warnings;

use Cwd qw(abs_path);
use Exporter 'import';
use File::Basename qw(dirname);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);

our @EXPORT = qw(
  new_cluster start_broker sample_image mass_images shared_data
  poll_until poll_code decoder_pids worker_pid worker_pids
  openssl make_authority make_certificate
);

our $root = abs_path(dirname(__FILE__) . '/../..');

=head2 new_cluster($name, @settings)

A started cluster with imgpipe preloaded and CREATE EXTENSION done in database postgres.  Unlike
PostgreSQL::Test::Cluster's own default it recovers from the crash of a process.

=cut

sub new_cluster
{
	my ($name, @settings) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name // 'main');
	$node->init;
	$node->append_conf('postgresql.conf', join "\n",
		"shared_preload_libraries = 'imgpipe'",
		'max_worker_processes = 32',
		'max_connections = 50',
		'restart_after_crash = on',
		'log_statement = ddl',	# images as hexadecimal text would fill the disk
		'log_min_error_statement = panic',
		@settings);
	$node->start;
	$node->safe_psql('postgres', 'CREATE EXTENSION imgpipe');
	return $node;
}

=head2 poll_until($node, $query, $expected, $timeout, $database)

Runs the query until it prints the expected text, or matches where that is a qr//; a server that is down or
in recovery counts as not yet.  True, or false after timeout seconds (180) with the last answer shown.

=cut

sub poll_until
{
	my ($node, $query, $expected, $timeout, $database) = @_;
	$expected = 't' unless defined $expected;
	my ($last, $errors) = ('', '');
	my $reached = poll_code(
		sub {
			$errors = '';
			# Dies where psql ends before it has read the query: the server is not there.
			my $code = eval {
				$node->psql($database // 'postgres', $query,
					stdout => \$last, stderr => \$errors, on_error_die => 0, on_error_stop => 1);
			};
			return 0 unless defined $code && $code == 0;
			return ref $expected ? $last =~ $expected : $last eq $expected;
		},
		$timeout);
	diag("gave up waiting\nquery:    $query\nexpected: $expected\nlast:     $last\nerrors:   $errors")
	  unless $reached;
	return $reached;
}

=head2 poll_code($code, $timeout)

Calls the code until it returns true; false after timeout seconds.

=cut

sub poll_code
{
	my ($code, $timeout) = @_;
	my $deadline = time + ($timeout // $PostgreSQL::Test::Utils::timeout_default);
	until ($code->())
	{
		return 0 if time > $deadline;
		sleep 0.1;
	}
	return 1;
}

=head2 worker_pids($node, $kind), worker_pid($node, $kind)

The processes of a kind of worker: launcher, controller, ingest or processor.  worker_pid waits until there
is one.

=cut

sub worker_pids
{
	my ($node, $kind) = @_;
	my ($pids, $errors);
	$node->psql('postgres',
		"SELECT pid FROM pg_stat_activity WHERE backend_type = 'imgpipe $kind' ORDER BY backend_start, pid",
		stdout => \$pids, stderr => \$errors, on_error_die => 0);
	return split /\n/, $pids // '';
}

sub worker_pid
{
	my ($node, $kind) = @_;
	my @pids;
	poll_code(sub { (@pids = worker_pids($node, $kind)) > 0 })
	  or BAIL_OUT("no imgpipe $kind came up");
	return $pids[0];
}

=head2 decoder_pids($node)

The decoders of all processes of a cluster, without those that have ended and wait to be reaped.

=cut

sub decoder_pids
{
	my ($node) = @_;
	my (%parent, @decoders);
	for my $directory (glob '/proc/[0-9]*')
	{
		open my $file, '<', "$directory/stat" or next;
		my $stat = <$file> // next;
		my ($pid, $name, $state, $parent) = $stat =~ /^(\d+) \((.*)\) (\S) (\d+)/ or next;
		$parent{$pid} = $parent;
		push @decoders, $pid if $name eq 'imgpipe-decoder' && $state ne 'Z';
	}
	my $postmaster = $node->{_pid} // return ();
	return sort { $a <=> $b }
	  grep { ($parent{ $parent{$_} } // 0) == $postmaster } @decoders;
}

=head2 sample_image($name), mass_images($count)

Path of an image that test/images/make_images makes, and the paths of as many small ones, all different.

=cut

my $mass = 4000;

sub image_folder
{
	my $folder = $ENV{IMGPIPE_IMAGES} // "$PostgreSQL::Test::Utils::tmp_check/images";
	system("$root/test/images/make_images", $folder, $mass) == 0
	  or BAIL_OUT('could not make sample images');
	return $folder;
}

sub sample_image
{
	my ($name) = @_;
	my $path = image_folder() . "/$name";
	-e $path or BAIL_OUT("there is no sample image $name");
	return $path;
}

sub mass_images
{
	my ($count) = @_;
	die "there are no more than $mass small images" if $count > $mass;
	my $folder = image_folder() . '/mass';
	return map { sprintf '%s/%06d.jpg', $folder, $_ } 1 .. $count;
}

=head2 shared_data($folder)

Path of a folder of ../shared/data, or undef where that is not here.

=cut

sub shared_data
{
	my ($folder) = @_;
	my $path = ($ENV{IMGPIPE_DATA} || "$root/../shared/data") . "/$folder";
	return -r $path ? abs_path($path) : undef;
}

=head2 make_authority($folder, $name), make_certificate($folder, $authority, $name, $extensions)

Make a certificate authority, and a certificate that it signs: name.pem and name.key in that folder.  openssl(...) runs that, and
returns what it prints.

=cut

sub openssl
{
	my @command = ('openssl', @_);
	my ($out, $errors) = ('', '');
	IPC::Run::run(\@command, '>', \$out, '2>', \$errors) or BAIL_OUT("@command: $errors");
	return $out;
}

sub make_authority
{
	my ($folder, $name) = @_;
	openssl('req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '30', '-subj', "/CN=$name",
		'-keyout', "$folder/$name.key", '-out', "$folder/$name.pem");
}

sub make_certificate
{
	my ($folder, $authority, $name, $extensions) = @_;
	append_to_file("$folder/$name.ext", $extensions);
	openssl('req', '-newkey', 'rsa:2048', '-nodes', '-subj', "/CN=$name",
		'-keyout', "$folder/$name.key", '-out', "$folder/$name.csr");
	openssl('x509', '-req', '-in', "$folder/$name.csr", '-CA', "$folder/$authority.pem", '-CAkey', "$folder/$authority.key",
		'-CAcreateserial', '-days', '30', '-extfile', "$folder/$name.ext", '-out', "$folder/$name.pem");
}

=head2 start_broker(%options)

A running Kafka broker of this test's own, ended with it.  Options: name, properties => { ... }.

=cut

my @brokers;

sub start_broker
{
	my (%options) = @_;
	my $broker = bless {
		dir => "$PostgreSQL::Test::Utils::tmp_check/kafka_" . ($options{name} // 'main')
	}, 'ImgpipeTest::Broker';
	push @brokers, $broker;
	my %properties = %{ $options{properties} // {} };
	$broker->start(map {"$_=$properties{$_}"} sort keys %properties);
	return $broker;
}

# Also after die and BAIL_OUT.
END
{
	my $status = $?;
	$_->kill_hard for @brokers;
	$? = $status;
}

package ImgpipeTest::Broker;

use strict;
use warnings;

use PostgreSQL::Test::Utils;
use Test::More;

my $serial = 0;

sub run_fixture
{
	my (@command) = @_;
	my $program = shift @command;
	my $status = system("$ImgpipeTest::root/test/kafka/$program", @command);
	BAIL_OUT("test/kafka/$program @command failed") if $status != 0;
}

=head2 Methods of the broker

  bootstrap			host:port
  start(@properties)		name=value, kept from then on
  stop, kill_hard, restart	kill_hard is kill -9
  create_topic($name, $partitions, @settings)
  grow_topic($name, $partitions)
  set_topic($name, @settings)	name=value
  delete_topic($name)
  create_user($name, $password)	for SCRAM
  secure($user, $password, @protocols)	restarts it with listeners of localhost for these of SSL, SASL_PLAINTEXT and SASL_SSL too, and
				returns their ports by protocol; clients of SSL need a certificate
  certificates			the folder of authority.pem, which signed the broker's certificate

=cut

sub bootstrap
{
	my ($self) = @_;
	my $bootstrap = PostgreSQL::Test::Utils::slurp_file("$self->{dir}/bootstrap");
	chomp $bootstrap;
	return $bootstrap;
}

sub start     { my ($self, @properties) = @_; run_fixture('broker', 'start', $self->{dir}, @properties) }
sub restart   { my ($self, @properties) = @_; run_fixture('broker', 'restart', $self->{dir}, @properties) }
sub stop      { my ($self) = @_; run_fixture('broker', 'stop', $self->{dir}) }
sub kill_hard { my ($self) = @_; run_fixture('broker', 'kill', $self->{dir}) }

sub create_topic
{
	my ($self, $name, $partitions, @settings) = @_;
	run_fixture('topic', 'create', $self->{dir}, $name, $partitions, @settings);
}

sub grow_topic
{
	my ($self, $name, $partitions) = @_;
	run_fixture('topic', 'alter', $self->{dir}, $name, $partitions);
}

sub set_topic
{
	my ($self, $name, @settings) = @_;
	run_fixture('topic', 'set', $self->{dir}, $name, 0, @settings);
}

# Its plain listener stays for its tools; users come before anybody is asked for one.
sub secure
{
	my ($self, $user, $password, @protocols) = @_;
	my ($bootstrap, $folder) = ($self->bootstrap, $self->certificates);
	my ($controller) = PostgreSQL::Test::Utils::slurp_file("$self->{dir}/server.properties") =~ /CONTROLLER:\/\/([^\n]+)/;
	my %port = map { $_ => PostgreSQL::Test::Cluster::get_free_port() } @protocols;
	mkdir $folder or BAIL_OUT("could not make $folder: $!");
	ImgpipeTest::make_authority($folder, 'authority');
	ImgpipeTest::make_certificate($folder, 'authority', 'broker', 'subjectAltName = DNS:localhost');
	PostgreSQL::Test::Utils::append_to_file("$folder/broker.keystore", join '', map { PostgreSQL::Test::Utils::slurp_file("$folder/broker.$_") } qw(key pem));
	$self->create_user($user, $password);
	my $plain = qq(org.apache.kafka.common.security.plain.PlainLoginModule required user_$user="$password";);
	my $scram = 'org.apache.kafka.common.security.scram.ScramLoginModule required;';
	my @sasl = map {
		my $listener = lc $_;
		"listener.name.$listener.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
		"listener.name.$listener.plain.sasl.jaas.config=$plain",
		"listener.name.$listener.scram-sha-256.sasl.jaas.config=$scram",
		"listener.name.$listener.scram-sha-512.sasl.jaas.config=$scram"
	} grep {/SASL/} @protocols;
	my $listeners = join ',', map {"$_://localhost:$port{$_}"} @protocols;
	$self->restart(
		"listeners=PLAINTEXT://$bootstrap,CONTROLLER://$controller," . ($listeners =~ s/localhost/127.0.0.1/gr),
		"advertised.listeners=PLAINTEXT://$bootstrap,$listeners",
		'listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT,SASL_SSL:SASL_SSL',
		'ssl.keystore.type=PEM', "ssl.keystore.location=$folder/broker.keystore",
		'ssl.truststore.type=PEM', "ssl.truststore.location=$folder/authority.pem",
		'listener.name.ssl.ssl.client.auth=required', @sasl);
	return %port;
}

sub certificates { my ($self) = @_; return "$self->{dir}/certificates" }

sub delete_topic
{
	my ($self, $name) = @_;
	run_fixture('topic', 'delete', $self->{dir}, $name);
}

sub create_user
{
	my ($self, $name, $password) = @_;
	run_fixture('user', 'create', $self->{dir}, $name, $password);
}

=head2 group_offsets($group)

What is committed to Kafka under that name: "0=17 1=5", by partition.

=cut

sub group_offsets
{
	my ($self, $group) = @_;
	my $report = `$ImgpipeTest::root/test/kafka/group $self->{dir} $group`;
	my %offset = $report =~ /^\S+\s+\S+\s+(\d+)\s+(\d+)\s/mg;
	return join ' ', map {"$_=$offset{$_}"} sort { $a <=> $b } keys %offset;
}

=head2 produce_many($topic, \@messages)

Sends messages and returns when the broker has them all: thousands in a second.  A message is a hash of
file (a path) or value (bytes; undef sends a tombstone), and where wanted key, partition and headers =>
{ name => value }.  Messages that agree in partition, headers, and whether they have a key or are tombstones
go out together and keep their order.  kcat sends nothing for an empty message without a key: it gets
an empty key.

=head2 produce($topic, \@files, %message)

The same for files that share key, partition and headers.

=cut

sub produce_many
{
	my ($self, $topic, $messages) = @_;
	my (%groups, @order);

	# kcat takes partition, headers, whether there are keys and whether to send tombstones once a call.
	for my $message (@$messages)
	{
		my $headers = $message->{headers} // {};
		my $value = exists $message->{value} ? $message->{value} : PostgreSQL::Test::Utils::slurp_file($message->{file});
		my $key = $message->{key} // (length($value // '') ? undef : '');
		my @options = (
			defined $message->{partition} ? ('-p', $message->{partition}) : (),
			defined $value ? () : ('-Z'),
			map { ('-H', "$_=$headers->{$_}") } sort keys %$headers);
		my $group = join "\0", defined $key ? 1 : 0, @options;
		push @order, $group unless $groups{$group};
		$groups{$group}{keyed} = defined $key;
		$groups{$group}{options} = \@options;
		push @{ $groups{$group}{messages} }, [ $key, $value // '' ];
	}
	$self->produce_group($topic, $groups{$_}) for @order;
}

# librdkafka 2.5 and later waits a second at its end to push metrics, earlier ones refuse the option.
my @no_metrics;

sub no_metrics
{
	@no_metrics = `kcat -X list` =~ /enable\.metrics\.push/ ? ('-X', 'enable.metrics.push=false') : ('-q')
	  unless @no_metrics;
	return @no_metrics;
}

sub produce_group
{
	my ($self, $topic, $group) = @_;
	my $name = "$self->{dir}/messages_" . ++$serial;

	# Delimiters that no image holds but by a chance of 1 in 2^64 a byte.
	my $random = join '', map { chr(97 + int rand 26) } 1 .. 14;
	my ($after_key, $end) = ("<key $random>", "<end $random>");

	open my $file, '>:raw', $name or BAIL_OUT("could not write $name: $!");
	for my $message (@{ $group->{messages} })
	{
		my ($key, $value) = @$message;
		print $file $group->{keyed} ? $key . $after_key : '', $value, $end;
	}
	close $file or BAIL_OUT("could not write $name: $!");

	my @command = (
		'kcat', '-q', '-P', '-b', $self->bootstrap, '-t', $topic, '-D', $end,
		$group->{keyed} ? ('-K', $after_key) : (), @{ $group->{options} },
		'-X', 'message.max.bytes=33554432', '-X', 'acks=all', no_metrics(), '-l', $name);
	my $before = $self->message_count($topic);
	system(@command) == 0 or BAIL_OUT("kcat could not send to $topic");
	my $sent = $self->message_count($topic) - $before;
	my $wanted = @{ $group->{messages} };
	BAIL_OUT("kcat sent $sent instead of $wanted messages to $topic") if $sent != $wanted;
	unlink $name;
}

sub produce
{
	my ($self, $topic, $files, %message) = @_;
	$self->produce_many($topic, [ map { { %message, file => $_ } } @$files ]);
}

=head2 consume($topic)

All messages that are in the topic, each partition in its order: hashes of partition, offset, key and value (bytes, or undef) and
headers => { name => value }, where the last one counts that repeats.

=cut

sub consume
{
	my ($self, $topic) = @_;
	my $end = '<end ' . join('', map { chr(97 + int rand 26) } 1 .. 14) . '>';
	open my $kcat, '-|:raw', 'kcat', '-q', '-C', '-e', '-o', 'beginning', '-b', $self->bootstrap, '-t', $topic,
	  '-X', 'receive.message.max.bytes=1000000000', '-f', "%p %o %K %S %k%s%h$end"
	  or BAIL_OUT("could not read topic $topic: $!");
	my $all = do { local $/; <$kcat> } // '';
	close $kcat or BAIL_OUT("kcat could not read topic $topic");

	my @messages;
	while ($all =~ /\G(\d+) (\d+) (-?\d+) (-?\d+) /gc)
	{
		my %message = (partition => $1, offset => $2);
		my @lengths = ($3, $4);
		for my $part (qw(key value))
		{
			my $length = shift @lengths;
			$message{$part} = $length < 0 ? undef : substr $all, pos $all, $length;
			pos($all) += $length if $length > 0;
		}
		$all =~ /\G(.*?)\Q$end\E/gcs or BAIL_OUT("messages of topic $topic cannot be told apart");
		$message{headers} = { map { split /=/, $_, 2 } split /,(?=[\w.-]+=)/, $1 };
		push @messages, \%message;
	}
	return sort { $a->{partition} <=> $b->{partition} || $a->{offset} <=> $b->{offset} } @messages;
}

=head2 message_count($topic)

How many messages were ever sent to the topic.

=cut

sub message_count
{
	my ($self, $topic) = @_;
	my $bootstrap = $self->bootstrap;
	my $metadata = `kcat -q -L -b $bootstrap -t $topic`;
	my @partitions = $metadata =~ /^\s+partition (\d+),/mg
	  or BAIL_OUT("no metadata of topic $topic: $metadata");
	my $offsets = `kcat -q -Q -b $bootstrap @{[ map {"-t $topic:$_:-1"} @partitions ]}`;
	my $count = 0;
	$count += $_ for $offsets =~ /offset (\d+)/g;
	return $count;
}

1;
