# Every operation and every encoder on images of every kind that libvips reads, the smallest and oddest above all: a
# picture comes out, or an error that says why not.
use strict;
use warnings;

use ImgpipeTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_cluster('main', 'imgpipe.max_processors = 0', 'jit = off');
my $folder = "$PostgreSQL::Test::Utils::tmp_check/odd";
mkdir $folder or die "could not make $folder: $!";
$node->safe_psql('postgres', slurp_file("$ImgpipeTest::root/test/fuzz/trial.sql"));

sub vips { system('vips', @_) == 0 or die "vips @_ failed" }

# A picture with some of everything in it, by bands.
vips('xyz', "$folder/position.v", 40, 30);
vips('linear', "$folder/position.v", "$folder/two.v", '6 8', '0 10', '--uchar');
vips('extract_band', "$folder/two.v", "$folder/gray.v", 0);
vips('bandjoin', "$folder/two.v $folder/gray.v", "$folder/three.v");
vips('copy', "$folder/three.v", "$folder/rgb.v", '--interpretation', 'srgb');
vips('bandjoin_const', "$folder/rgb.v", "$folder/rgba.v", 128);
vips('copy', "$folder/gray.v", "$folder/bw.v", '--interpretation', 'b-w');
vips('bandjoin_const', "$folder/bw.v", "$folder/bwa.v", 128);
vips('replicate', "$folder/rgba.v", "$folder/frames.v", 1, 3);
vips('copy', "$folder/frames.v", "$folder/frames.$_\[page_height=30]") for 'tif', 'gif', 'webp';
for my $format ('png', 'jpg', 'webp', 'gif', 'tif')
{
	vips('copy', "$folder/$_.v", "$folder/$_.$format") for 'rgb', 'rgba', 'bw', 'bwa';
	for my $size ([ 1, 1 ], [ 1, 300 ], [ 300, 1 ])
	{
		vips('embed', "$folder/rgba.v", "$folder/small_" . join('x', @$size) . ".$format", 0, 0, @$size, '--extend', 'mirror');
	}
}
vips('colourspace', "$folder/rgb.v", "$folder/rgb16.png", 'rgb16');
vips('colourspace', "$folder/rgba.v", "$folder/rgba16.tif", 'rgb16');
vips('colourspace', "$folder/bw.v", "$folder/bw16.png", 'grey16');
vips('copy', "$folder/rgb.v", "$folder/palette.png[palette]");
vips('copy', "$folder/bw.v", "$folder/bit.png[bitdepth=1]");
vips('icc_transform', "$folder/rgb.v", "$folder/cmyk.$_", 'cmyk') for 'jpg', 'tif';
vips('icc_transform', "$folder/rgb.v", "$folder/p3.jpg", 'p3');
vips('colourspace', "$folder/rgb.v", "$folder/$_.tif", $_) for 'lab', 'xyz', 'scrgb';
vips('cast', "$folder/rgb.v", "$folder/$_.tif", $_) for 'float', 'int', 'short';
vips('bandjoin', join(' ', ("$folder/gray.v") x $_), "$folder/bands_$_.tif") for 2, 5, 7;
unlink glob "$folder/*.v";

sub write_file
{
	my ($name, $bytes) = @_;
	open my $file, '>:raw', "$folder/$name" or die "could not write $name: $!";
	print $file $bytes;
	close $file;
}

# A profile whose curves are nonsense; comments in a PNG whose keys nobody may write.
my $jpeg = slurp_file("$folder/p3.jpg");
my $tags = index($jpeg, 'acsp') + 92;
substr($jpeg, $tags + 4, 300) = "\xff\x03\x80" x 100;
write_file('broken_profile.jpg', $jpeg);
require Compress::Zlib;
my $png = slurp_file("$folder/rgb.png");
my $comments = join '', map { pack('N', length) . "tEXt$_" . pack('N', Compress::Zlib::crc32("tEXt$_")) }
  "\0empty", " a\0space", "\x7f\0delete", "p  q\0two spaces", "Title\0good";
write_file('comments.png', substr($png, 0, 33) . $comments . substr($png, 33));

# Of each operation one by chance, and what the encoders make of them.
$node->safe_psql('postgres', qq[
	CREATE TABLE odd AS SELECT name, imgpipe.image(pg_read_binary_file('$folder/' || name)) AS content FROM pg_ls_dir('$folder') name;
	CREATE TABLE pipelines AS
		SELECT trial.step(name, 1) || ' | png' AS pipeline FROM unnest(trial.operations('transform')) name
		UNION
		SELECT name || ' | ' || encoder
		FROM unnest('{keep,trim,"resize(width=70, height=70, fit=cover, gravity=attention, enlarge=true)"}'::text[]) name,
			unnest('{jpeg,png,webp,gif,tiff,"avif(effort=0)",auto,png(palette=true),webp(lossless=true),tiff(compression=jpeg),gif(colors=2)}'::text[]) encoder;
	CREATE FUNCTION outcome(content imgpipe.image, pipeline text) RETURNS text LANGUAGE plpgsql AS \$\$
	DECLARE
		detail text;
		output imgpipe.image;
	BEGIN
		output := imgpipe.process_image(content, pipeline::imgpipe.pipeline, content);
		RETURN CASE WHEN imgpipe.image_width(output) > 0 AND imgpipe.verify_image(output) IS NULL THEN 'done' ELSE 'unreadable' END;
	EXCEPTION WHEN OTHERS THEN
		GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL;
		RETURN SQLSTATE || ' ' || SQLERRM || ': ' || detail;
	END \$\$;
	CREATE TABLE outcomes AS SELECT name, pipeline, outcome(content, pipeline) FROM odd, pipelines]);

sub rows { return split /\n/, $node->safe_psql('postgres', $_[0]) }

my ($images, $pipelines, $done) = split /\|/, $node->safe_psql('postgres', q[
	SELECT (SELECT count(*) FROM odd), (SELECT count(*) FROM pipelines), count(*) FILTER (WHERE outcome = 'done') FROM outcomes]);
cmp_ok($images, '>', 50, "$images images");
cmp_ok($done, '>', 0.95 * $images * $pipelines, "$done results of $pipelines pipelines");
# An area that is larger than the image is the one thing that cannot be.
is_deeply([ rows(q[SELECT name || ', ' || pipeline || ': ' || outcome FROM outcomes
	WHERE outcome <> 'done' AND outcome NOT LIKE '22023 pipeline does not fit the image: Cannot crop %']) ], [], 'and no failure');
is_deeply([ rows(q[SELECT operation FROM (SELECT DISTINCT operation FROM imgpipe.pipeline_operations() WHERE kind IN ('transform', 'encoder')) o
	WHERE NOT EXISTS (SELECT FROM outcomes WHERE outcome = 'done' AND pipeline ~ ('\m' || operation || '\M'))]) ], [], 'of any operation');

is($node->safe_psql('postgres', q[
	SELECT imgpipe.process_image(content, 'keep(metadata=all) | png')::bytea::text LIKE '%' || encode('Title', 'hex') || '%'
	FROM odd WHERE name = 'comments.png']), 't', 'a comment that can be written is kept');

$node->stop;
done_testing();
