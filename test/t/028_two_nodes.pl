# docs/nodes.md, executed: two servers share a topic, and one view shows the images of both.
use strict;
use warnings;

use Documentation;
use ImgpipeTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# The page's statements by where they are executed.
my %statements = titled_blocks('docs/nodes.md', 'sql', '-- on ');
is(join(', ', sort keys %statements), 'each node, node 0, node 0, as analyst, node 1', 'the page says where');

my $broker = start_broker();
my $bootstrap = $broker->bootstrap;
my @nodes = map { new_cluster("node$_", 'imgpipe.max_processors = 0') } 0, 1;

# The page's role has to give its password.
my $hba = $nodes[1]->data_dir . '/pg_hba.conf';
my $rules = slurp_file($hba);
open my $file, '>', $hba or die $!;
print $file "local all other_node scram-sha-256\nhost all other_node all scram-sha-256\n$rules";
close $file;
$nodes[1]->reload;

sub execute
{
	my ($node, $place, %more) = @_;
	my $sql = $statements{$place};
	my $host = $nodes[1]->host;
	my $port = $nodes[1]->port;
	$sql =~ s/kafka1:9092/$bootstrap/g;
	$sql =~ s/host 'node1', port '5432'/host '$host', port '$port'/g;
	return $node->safe_psql('postgres', $sql, %more);
}

$broker->create_topic('photos', 4);
my @photos = mass_images(40);
$broker->produce('photos', [ @photos[ 10 * $_ .. 10 * $_ + 9 ] ], key => "key $_", partition => $_) for 0 .. 3;
execute($nodes[$_], 'each node', extra_params => [ '-v', "slice=$_" ]) for 0, 1;
ok(poll_until($nodes[$_], 'SELECT state, partitions, messages, lag_messages FROM imgpipe.source_status', 'idle|2|20|0'), "node $_ has its half")
  for 0, 1;
is($nodes[$_]->safe_psql('postgres', q(SELECT string_agg(DISTINCT source_partition::text, ',' ORDER BY source_partition::text) FROM imgpipe.images)),
	$_ == 0 ? '0,2' : '1,3', "and nothing of the other's")
  for 0, 1;

execute($nodes[1], 'node 1');
execute($nodes[0], 'node 0');
my @as_analyst = (extra_params => [ '-U', 'analyst' ]);
is(execute($nodes[0], 'node 0, as analyst', @as_analyst), "0|20|20\n1|20|20", 'one view over both');
is($nodes[0]->safe_psql('postgres', 'SELECT count(*), count(DISTINCT image_id), count(DISTINCT sha256) FROM everywhere.image_facts', @as_analyst),
	'40|40|40', 'each image once');
is($nodes[0]->safe_psql('postgres', 'SELECT sum(images) FROM everywhere.daily_volume', @as_analyst), 40, 'and in the volume');

# The fence of the other node holds through the view.
$nodes[1]->safe_psql('postgres', qq(
	INSERT INTO imgpipe.images (image_id, content, source_key) VALUES
		(imgpipe.new_image_id(now() + '1 hour'), pg_read_binary_file('$photos[0]'), 'stays'),
		(imgpipe.new_image_id(now() + '1 second'), pg_read_binary_file('$photos[0]'), 'ends')));
ok(poll_until($nodes[1], q(SELECT bool_and(imgpipe.purge_at(image_id) < clock_timestamp()) FROM imgpipe.images WHERE source_key = 'ends'), 't'), 'a deadline passes');
is($nodes[0]->safe_psql('postgres', q(SELECT string_agg(source_key, ',') FROM everywhere.image_facts WHERE source = 'sql'), @as_analyst), 'stays', 'what is past its deadline there is not seen from here');

# Nobody reads pixels from here, and half of the truth is an error.
my ($status, $out, $errors) = $nodes[0]->psql('postgres', 'SELECT content FROM imgpipe.images', @as_analyst);
like($errors, qr/permission denied for table images/, 'no bytes on this node');
$nodes[1]->stop;
($status, $out, $errors) = $nodes[0]->psql('postgres', 'SELECT count(*) FROM everywhere.image_facts', @as_analyst);
like($errors, qr/could not connect to server "node1"/, 'a node that does not answer is an error');
is($nodes[0]->safe_psql('postgres', 'SELECT count(*) FROM imgpipe.image_facts', @as_analyst), 20, 'this one answers for itself');

$nodes[0]->stop;
done_testing();
