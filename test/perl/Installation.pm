=head1 NAME

Installation - imgpipe with all that belongs to it, before and after an upgrade

=head1 SYNOPSIS

  use Installation;

  my $bindir = own_installation({ 'imgpipe--1--2.sql' => 'ALTER ...' }, '2');
  fill($node, $broker);			# sources, processors, jobs, templates, holds, data; workers at work
  my $before = summary($node);
  alike(catalog($upgraded), catalog($fresh), 'nothing differs');

=cut

package Installation;

use strict;
use warnings;

use Exporter 'import';
use File::Basename qw(basename dirname);
use File::Path qw(make_path);
use ImgpipeTest;
use PostgreSQL::Test::Utils;
use Test::More;

our @EXPORT = qw(own_installation catalog alike fill summary different);

=head2 own_installation(\%files, $default_version)

A server whose folder of extensions is ours to write to, with these files in it; PostgreSQL finds it beside its program.  Returns the
folder of its programs.

=cut

sub own_installation
{
	my ($files, $default_version) = @_;
	my ($bin, $share) = map { my $folder = `pg_config --$_`; chomp $folder; $folder } qw(bindir sharedir);
	my $lib = dirname($bin) . '/lib';
	my $root = "$PostgreSQL::Test::Utils::tmp_check/installation";
	make_path("$root$share/extension", dirname("$root$bin"));
	system('cp', '-rL', $bin, "$root$bin") == 0 or BAIL_OUT("could not copy $bin");
	symlink $lib, "$root$lib" if -d $lib && !-e "$root$lib";
	for my $file (glob("$share/*"), glob("$share/extension/*"))
	{
		my $name = basename($file);
		next if $file eq "$share/extension" || exists $files->{$name};
		symlink $file, $root . dirname($file) . "/$name" or BAIL_OUT("could not link $file: $!");
	}
	my $extension = "$root$share/extension";
	append_to_file("$extension/$_", $files->{$_}) for keys %$files;
	if (defined $default_version)
	{
		my $control = slurp_file("$extension/imgpipe.control");
		unlink "$extension/imgpipe.control";
		append_to_file("$extension/imgpipe.control", $control =~ s/^default_version.*/default_version = '$default_version'/mr);
	}
	return "$root$bin";
}

=head2 catalog($node, $database), different($one, $other)

What the extension is in the catalogs of a database, as lines; the lines that only one of two has, with - and +.

=cut

sub catalog
{
	my ($node, $database) = @_;
	return [ split /\n/, $node->safe_psql($database // 'postgres', slurp_file("$ImgpipeTest::root/test/perl/catalog.sql")) ];
}

sub different
{
	my ($one, $other) = @_;
	my %in_one = map { $_ => 1 } @$one;
	my %in_other = map { $_ => 1 } @$other;
	return [ (map {"- $_"} grep { !$in_other{$_} } @$one), (map {"+ $_"} grep { !$in_one{$_} } @$other) ];
}

=head2 alike($one, $other, $what)

A test that two catalogs or summaries do not differ, which shows how they do.

=cut

sub alike
{
	my ($one, $other, $what) = @_;
	my $different = different(map { ref $_ ? $_ : [ split /\n/ ] } $one, $other);
	my $last = $#$different < 40 ? $#$different : 40;
	return ok(!@$different, $what) || diag(join "\n", @$different[0 .. $last]);
}

=head2 fill($node, $broker)

Something of everything in database postgres, which ingests topic photos: 40 images and 4 messages that are none.

=cut

sub fill
{
	my ($node, $broker) = @_;
	my $bootstrap = $broker->bootstrap;
	my @images = mass_images(40);

	$broker->create_topic('photos', 4);
	$broker->create_topic('results', 1);
	$broker->produce_many('photos', [
		(map { { file => $images[$_], key => "image $_" } } 0 .. $#images),
		(map { { value => "no image $_", key => "bad $_" } } 1 .. 4) ]);
	$node->safe_psql('postgres', qq(
		CREATE ROLE team LOGIN;
		CREATE ROLE ada LOGIN;
		CREATE SERVER kafka FOREIGN DATA WRAPPER imgpipe_kafka OPTIONS (bootstrap_servers '$bootstrap');
		CREATE USER MAPPING FOR CURRENT_USER SERVER kafka OPTIONS (sasl_password 'hunter2');
		SELECT imgpipe.create_processor('web', '{"small": "resize(width=32) | webp"}');
		SELECT imgpipe.alter_processor('web', '{"small": "resize(width=16) | webp"}');
		CREATE FUNCTION public.shape(photo imgpipe.image) RETURNS jsonb LANGUAGE sql STABLE
			AS 'SELECT jsonb_build_object(''width'', imgpipe.image_width(photo))';
		SELECT imgpipe.create_processor('shape', function => 'public.shape(imgpipe.image)');
		SELECT imgpipe.create_source('photos', 'kafka', 'photos', parallelism => 2, result_topic => 'results');
		CREATE TABLE public.ticks (run bigint GENERATED ALWAYS AS IDENTITY, at timestamptz DEFAULT now());
		SELECT imgpipe.schedule('tick', '1 second', 'INSERT INTO public.ticks DEFAULT VALUES');
		SELECT imgpipe.create_sales_schema('sales', 'UTC');
		SELECT imgpipe.load_sample_data(50, 'sales');
		SELECT imgpipe.use_template('strict', 'shop');
		SELECT imgpipe.create_template('house', copy_of => 'strict');
		SELECT hash FROM imgpipe.plan_access() LIMIT 1 \\gset
		SELECT imgpipe.apply_access(:'hash');
		SELECT imgpipe.add_team_member('shop_analytics', 'ada');
		SELECT imgpipe.hold_images('case 1', source => 'photos', source_key => 'image 1');
		CREATE TABLE public.albums (cover imgpipe.image, steps imgpipe.pipeline DEFAULT 'png');
		CREATE INDEX ON public.albums (steps);
		SELECT imgpipe.start_source('photos')));
	ok(poll_until($node, 'SELECT (SELECT count(*) FROM imgpipe.images), (SELECT count(*) FROM imgpipe.dead_letters),
			(SELECT count(*) FROM imgpipe.renditions), (SELECT count(*) FROM imgpipe.results), (SELECT count(*) FROM imgpipe.tasks)',
		'40|4|40|40|0'), 'images, dead letters, renditions and results are there');
	ok(poll_until($node, 'SELECT count(*) > 1 FROM public.ticks'), 'the job has run');
	$node->safe_psql('postgres', q(
		INSERT INTO public.albums (cover) SELECT content FROM imgpipe.images LIMIT 3;
		INSERT INTO imgpipe.images (content, source_key) SELECT content, 'by hand' FROM imgpipe.images LIMIT 2));
	ok(poll_until($node, 'SELECT count(*) FROM imgpipe.renditions', 42), 'also of images that came by SQL');
	ok(poll_until($node, 'SELECT state, lag_messages FROM imgpipe.source_status', 'idle|0'), 'the source is through');
}

=head2 summary($node)

What fill() made, as text that an upgrade may not change.

=cut

sub summary
{
	my ($node) = @_;
	return $node->safe_psql('postgres', q(
		SELECT 'images', image_id, source, source_key, source_partition, source_offset, format, width, height, sha256(content::bytea) FROM imgpipe.images ORDER BY image_id;
		SELECT 'renditions', image_id, processor, name, sha256(content::bytea) FROM imgpipe.renditions ORDER BY image_id, name;
		SELECT 'results', image_id, processor, result FROM imgpipe.results ORDER BY image_id;
		SELECT 'dead letters', image_id, stage, sqlstate, source_key, value FROM imgpipe.dead_letters ORDER BY image_id;
		SELECT 'partitions', c.oid::regclass, c.relrowsecurity, pg_get_expr(c.relpartbound, c.oid) FROM pg_class c WHERE relispartition AND relkind = 'r' ORDER BY 2;
		SELECT 'sources', to_jsonb(s) FROM imgpipe.sources s ORDER BY name;
		SELECT 'positions', source_id, partition, next_offset FROM imgpipe.ingest_positions ORDER BY 1, 2;
		SELECT 'processors', to_jsonb(p) FROM imgpipe.processors p ORDER BY 2;
		SELECT 'versions', to_jsonb(p) FROM imgpipe.processor_versions p ORDER BY 2;
		SELECT 'jobs', name, schedule, command, owner FROM imgpipe.jobs ORDER BY 2;
		SELECT 'holds', to_jsonb(h) FROM imgpipe.holds h ORDER BY 2;
		SELECT 'ledger', to_jsonb(l) FROM imgpipe.purge_ledger l ORDER BY 2;
		SELECT 'templates', to_jsonb(t) FROM imgpipe.access_templates t ORDER BY 2;
		SELECT 'rules', to_jsonb(r) - 'rule_id' FROM imgpipe.access_rules r ORDER BY 2;
		SELECT 'uses', to_jsonb(u) FROM imgpipe.access_uses u ORDER BY 2;
		SELECT 'log', to_jsonb(l) FROM imgpipe.access_log l ORDER BY 2;
		SELECT 'albums', sha256(cover::bytea), steps FROM public.albums ORDER BY 2;
		SELECT 'sales', count(*), sum(total_weight) FROM sales.sales_details));
}

1;
