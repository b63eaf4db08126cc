# What the operations of process_image() look like: exact where arithmetic tells, else near to references
# in test/reference.  Pictures are made and read in Perl.
#
# IMGPIPE_MAKE_REFERENCES=folder writes the references there: look at each before you commit it.
use strict;
use warnings;

use ImgpipeTest;
use List::Util qw(max min);
use Pixels;
use Test::More;

# The longer side of a reference, and how far a result may be from it: libraries round and filter differently
# from version to version, which is far below what an operation that does the wrong thing would differ by.
my $reference_side = 64;
my $tolerance = 2;

my $node = new_cluster('main');
$node->safe_psql('postgres', q[
	CREATE TABLE pictures (name text PRIMARY KEY, content imgpipe.image);
	CREATE FUNCTION run(name text, pipeline imgpipe.pipeline, layer text DEFAULT NULL) RETURNS text LANGUAGE sql AS $$
		SELECT encode(CASE WHEN layer IS NULL THEN imgpipe.process_image(p.content, pipeline)
			ELSE imgpipe.process_image(p.content, pipeline, (SELECT l.content FROM pictures l WHERE l.name = layer)) END::bytea, 'hex')
		FROM pictures p WHERE p.name = run.name
	$$]);

sub insert
{
	my ($name, $picture) = @_;
	my $hex = unpack 'H*', write_png($picture);
	$node->safe_psql('postgres', "INSERT INTO pictures VALUES ('$name', '\\x$hex'::bytea)");
	return $picture;
}

sub run_pipeline
{
	my ($name, $pipeline, $layer) = @_;
	$layer = defined $layer ? "'$layer'" : 'NULL';
	$pipeline =~ s/'/''/g;
	my $hex = $node->safe_psql('postgres', "SELECT run('$name', '$pipeline | png', $layer)");
	return read_png(pack 'H*', $hex);
}

sub clamp { my ($n) = @_; return $n < 0 ? 0 : $n > 255 ? 255 : int($n + 0.5) }

# A picture with something for every operation: shades, bright colours, edges, fine lines, dark and light parts.
sub scene
{
	my ($x, $y) = @_;
	my @color = (60 + $x * 0.5, 90 + $y * 0.7, 200 - $y * 0.6);
	@color = (220, 60, 40) if ($x - 55)**2 + ($y - 60)**2 < 32**2;
	@color = (250, 220, 120) if ($x - 65)**2 + ($y - 50)**2 < 12**2;
	@color = (30, 110, 60) if $x > 110 && $x < 170 && $y > 40 + abs($x - 140) && $y < 110;
	@color = (255, 255, 255) if $x >= 120 && $y < 30 && $x % 8 < 4;
	@color = (15, 15, 25) if $y >= 120 && ($x + $y) % 24 < 12;
	return map { clamp($_) } @color;
}

my $scene = insert('scene', make_picture(192, 144, \&scene));
insert('faded', make_picture(192, 144, sub {
	my ($x, $y) = @_;
	return (scene($x, $y), clamp($x * 1.5 - 20));
}));
my $badge = insert('badge', make_picture(60, 40, sub {
	my ($x, $y) = @_;
	my $inside = (($x - 30) / 29)**2 + (($y - 20) / 19)**2 < 1;
	return ($inside ? (255, 240, 0) : (0, 0, 0), $inside ? ($x < 30 ? 255 : 128) : 0);
}));
insert('framed', make_picture(192, 144, sub {
	my ($x, $y) = @_;
	return $x >= 40 && $x < 160 && $y >= 20 && $y < 110 ? scene($x, $y) : (250, 250, 245);
}));
insert('gray', make_picture(192, 144, sub { my @color = scene(@_); return clamp(($color[0] + $color[1] + $color[2]) / 3) }));
insert('dull', make_picture(192, 144, sub { return map { clamp(80 + $_ * 0.3) } scene(@_) }));

# Exactly

sub is_exactly
{
	my ($what, $result, $expected, $most) = @_;
	$most //= 0;
	my ($wrong, $worst) = (0, 0);
	for my $y (0 .. $result->{height} - 1)
	{
		for my $x (0 .. $result->{width} - 1)
		{
			my @got = pixel($result, $x, $y);
			my @wanted = $expected->($x, $y);
			my ($far) = sort { $b <=> $a } map { abs($got[$_] - $wanted[$_]) } 0 .. $#wanted;
			$worst = $far if $far > $worst;
			$wrong++ if $far > $most || @got != @wanted;
		}
	}
	is($wrong, 0, $what) or diag("the worst of them by $worst");
}

sub original { return pixel($scene, @_) }

# The median is exact, also of windows that reach over an edge: what is outside is as the edge is.
sub noise { my ($x, $y) = @_; return map { ($x * 7919 + $y * 104729 + $_ * 1299709) * 31 % 257 % 256 } 1 .. 3 }

sub noise_median
{
	my ($radius, $x, $y) = @_;
	my @window = map { my $j = $_; map { [ noise(min(max($x + $_, 0), 39), min(max($y + $j, 0), 29)) ] } -$radius .. $radius } -$radius .. $radius;
	return map { my $band = $_; (sort { $a <=> $b } map { $_->[$band] } @window)[ @window / 2 ] } 0 .. 2;
}
insert('noise', make_picture(40, 30, \&noise));
for my $radius (1, 2, 6)
{
	is_exactly("median with radius $radius", run_pipeline('noise', "median(radius=$radius)"), sub { noise_median($radius, @_) });
}
is_exactly('median of a part', run_pipeline('noise', 'median(radius=3) | crop(left=17, top=9, width=11, height=8)'), sub { noise_median(3, $_[0] + 17, $_[1] + 9) });

is_exactly('a picture as it is', run_pipeline('scene', 'keep'), \&original);
is_exactly('crop', run_pipeline('scene', 'crop(left=10, top=20, width=30, height=40)'), sub { original($_[0] + 10, $_[1] + 20) });
is_exactly('crop by gravity', run_pipeline('scene', 'crop(width=30, height=40, gravity=southeast)'), sub { original($_[0] + 162, $_[1] + 104) });
is_exactly('flip', run_pipeline('scene', 'flip'), sub { original($_[0], 143 - $_[1]) });
is_exactly('flop', run_pipeline('scene', 'flop'), sub { original(191 - $_[0], $_[1]) });
is_exactly('rotate by 90', run_pipeline('scene', 'rotate(angle=90)'), sub { original($_[1], 143 - $_[0]) });
is_exactly('rotate by -90', run_pipeline('scene', 'rotate(angle=-90)'), sub { original(191 - $_[1], $_[0]) });
is_exactly('invert', run_pipeline('scene', 'invert'), sub { map { 255 - $_ } original(@_) });
is_exactly('extend', run_pipeline('scene', 'extend(left=5, bottom=7, background=#123456)'), sub {
	my ($x, $y) = @_;
	return $x < 5 || $y >= 144 ? (0x12, 0x34, 0x56) : original($x - 5, $y);
});
is_exactly('extend without a colour is transparent', run_pipeline('scene', 'extend(left=5)'), sub {
	my ($x, $y) = @_;
	return $x < 5 ? (0, 0, 0, 0) : (original($x - 5, $y), 255);
});
is_exactly('extend by mirroring', run_pipeline('scene', 'extend(left=5, fill=mirror)'), sub { my ($x, $y) = @_; original($x < 5 ? 4 - $x : $x - 5, $y) });
is_exactly('contain', run_pipeline('scene', 'resize(width=200, height=200, fit=contain, gravity=south, background=red)'), sub {
	my ($x, $y) = @_;
	return $x >= 4 && $x < 196 && $y >= 56 ? original($x - 4, $y - 56) : (255, 0, 0);
});
is_exactly('trim', run_pipeline('framed', 'trim'), sub { original($_[0] + 40, $_[1] + 20) });
is_exactly('nearest', run_pipeline('scene', 'resize(width=384, enlarge=true, kernel=nearest)'), sub { original(map { int($_ / 2) } @_) });
is_exactly('brightness 0 is black', run_pipeline('scene', 'modulate(brightness=0)'), sub { (0, 0, 0) });
is_exactly('contrast 0 is gray', run_pipeline('scene', 'modulate(contrast=0)'), sub { (127, 127, 127) }, 1);
is_exactly('contrast 2', run_pipeline('scene', 'modulate(contrast=2)'), sub { map { clamp($_ * 2 - 127.5) } original(@_) }, 1);
is_exactly('gamma', run_pipeline('scene', 'gamma(exponent=2)'), sub { map { clamp(255 * ($_ / 255)**0.5) } original(@_) }, 1);
is_exactly('flatten', run_pipeline('faded', 'flatten(background=#0000ff)'), sub {
	my ($x, $y) = @_;
	my $alpha = clamp($x * 1.5 - 20) / 255;
	my @color = scene($x, $y);
	return map { clamp($color[$_] * $alpha + (0, 0, 255)[$_] * (1 - $alpha)) } 0 .. 2;
}, 2);
is_exactly('pixelate', run_pipeline('scene', 'pixelate(size=16)'), sub {
	my ($x, $y) = map { int($_ / 16) * 16 } @_;
	my @sum = (0, 0, 0);
	for my $v ($y .. $y + 15)
	{
		for my $u ($x .. $x + 15)
		{
			my @color = original($u, $v);
			$sum[$_] += $color[$_] for 0 .. 2;
		}
	}
	return map { clamp($_ / 256) } @sum;
}, 1);

sub with_badge
{
	my ($left, $top, $opacity) = @_;
	return sub {
		my ($x, $y) = @_;
		my @under = original($x, $y);
		return @under if $x < $left || $x >= $left + 60 || $y < $top || $y >= $top + 40;
		my @over = pixel($badge, $x - $left, $y - $top);
		my $alpha = $over[3] / 255 * $opacity;
		return map { clamp($over[$_] * $alpha + $under[$_] * (1 - $alpha)) } 0 .. 2;
	};
}

is_exactly('composite', run_pipeline('scene', 'composite', 'badge'), with_badge(66, 52, 1), 2);
is_exactly('composite at a corner, faded', run_pipeline('scene', 'composite(gravity=southeast, x=10, y=5, opacity=0.5)', 'badge'), with_badge(122, 99, 0.5), 2);
is_exactly('composite over the edge', run_pipeline('scene', 'composite(gravity=northwest, x=-20, y=-10)', 'badge'), with_badge(-20, -10, 1), 2);
is_exactly('composite beside the image', run_pipeline('scene', 'composite(x=500)', 'badge'), \&original);
is_exactly('join', run_pipeline('badge', 'join(gap=4, columns=2, background=white)', 'scene'), sub {
	my ($x, $y) = @_;
	return (original($x - 196, $y), 255) if $x >= 196;
	return pixel($badge, $x - 66, $y - 52) if $x >= 66 && $x < 126 && $y >= 52 && $y < 92;
	return (255, 255, 255, 255);
}, 1);

my $gray = run_pipeline('gray', q{text(text='Text', color=#404040)});
is($gray->{bands}, 1, 'gray letters leave a gray picture gray');
is(run_pipeline('gray', q{text(text='Text', color=red)})->{bands}, 3, 'others do not');
is(run_pipeline('gray', 'tint(color=#704214)')->{bands}, 3, 'nor does tint');
is(run_pipeline('faded', 'grayscale')->{bands}, 2, 'grayscale keeps transparency');

# Where one writes.
my $written = run_pipeline('scene', q{flatten | modulate(contrast=0) | text(text='ll', size=40, color=white, gravity=northwest, x=20, y=10)});
my @ink = map { my $x = $_; scalar grep { (pixel($written, $x, $_))[0] > 200 } 0 .. 143 } 0 .. 191;
my @columns = grep { $ink[$_] > 0 } 0 .. 191;
cmp_ok($columns[0], '>=', 20, 'letters begin where they should');
cmp_ok($columns[-1], '<', 50, 'and are narrow, as l is');
my @rows = grep { my $y = $_; grep { (pixel($written, $_, $y))[0] > 200 } 0 .. 191 } 0 .. 143;
cmp_ok($rows[-1] - $rows[0], '>=', 22, 'an l is high');
cmp_ok($rows[-1], '<', 60, 'and stands near the top');

# As in the references

my @looks = (
	[ 'resize', 'resize(width=100)' ],
	[ 'resize_cubic', 'resize(width=100, kernel=cubic)' ],
	[ 'resize_enlarge', 'resize(width=300, enlarge=true)' ],
	[ 'resize_fill', 'resize(width=100, height=140, fit=fill)' ],
	[ 'resize_cover', 'resize(width=90, height=90, fit=cover, gravity=east)' ],
	[ 'resize_alpha', 'resize(width=100)', 'faded' ],
	[ 'rotate', 'rotate(angle=20, background=#224466)' ],
	[ 'rotate_alpha', 'rotate(angle=-35)', 'faded' ],
	[ 'blur', 'blur(sigma=4)' ],
	[ 'blur_strong', 'blur(sigma=15)' ],
	[ 'blur_alpha', 'blur(sigma=8)', 'faded' ],
	[ 'sharpen', 'sharpen(sigma=3, flat=5, edges=20)', 'dull' ],
	[ 'sharpen_alpha', 'sharpen(sigma=3, flat=5, edges=20)', 'faded' ],
	[ 'median', 'median(radius=4)' ],
	[ 'pixelate_alpha', 'pixelate(size=20)', 'faded' ],
	[ 'modulate', 'modulate(brightness=1.2, saturation=0.4, hue=120)' ],
	[ 'modulate_alpha', 'modulate(saturation=2, contrast=1.4)', 'faded' ],
	[ 'normalize', 'normalize', 'dull' ],
	[ 'normalize_gray', 'normalize(lower=5, upper=80)', 'gray' ],
	[ 'clahe', 'clahe(tiles=4, slope=4)', 'dull' ],
	[ 'grayscale', 'grayscale' ],
	[ 'tint', 'tint(color=#2060c0)' ],
	[ 'composite_tile', 'composite(width=0.2, tile=true, x=12, y=8, opacity=0.7)', 'scene', 'badge' ],
	[ 'composite_multiply', 'composite(width=0.9, blend=multiply)', 'scene', 'badge' ],
	[ 'composite_on_alpha', 'composite(gravity=west)', 'faded', 'badge' ],
	[ 'text', q{text(text='Aa Ÿ & 1', width=0.8, color=white, background=#000000a0, padding=6, gravity=south, y=8)} ],
	[ 'text_tile', q{text(text='PROOF', size=24, bold=true, angle=-30, tile=true, x=16, y=10, color=#ffffff90)} ],
	[ 'palette', 'png(palette=true, colors=16)' ],
	[ 'gif', 'gif(colors=16)' ],
	[ 'jpeg', 'jpeg(quality=60)' ],
	[ 'jpeg_alpha', 'jpeg(quality=60)', 'faded' ],
	[ 'webp_alpha', 'webp(quality=60)', 'faded' ]);

sub slurp
{
	my ($path) = @_;
	open my $file, '<:raw', $path or return;
	local $/;
	return scalar <$file>;
}

my $folder = "$ImgpipeTest::root/test/reference";
for my $look (@looks)
{
	my ($name, $pipeline, $picture, $layer) = @$look;
	$picture //= 'scene';
	# An encoder ends a pipeline, and only PNG without a palette is read here.
	if ($pipeline =~ /^(png|gif|jpeg|webp)\(/)
	{
		$node->safe_psql('postgres', "DELETE FROM pictures WHERE name = '$name';
			INSERT INTO pictures SELECT '$name', imgpipe.process_image(content, '$pipeline') FROM pictures WHERE name = '$picture'");
		($picture, $pipeline) = ($name, 'keep');
	}
	my $result = reduce(run_pipeline($picture, $pipeline, $layer), $reference_side);
	if ($ENV{IMGPIPE_MAKE_REFERENCES})
	{
		open my $file, '>:raw', "$ENV{IMGPIPE_MAKE_REFERENCES}/$name.png" or die $!;
		print $file write_png($result);
		close $file;
		next;
	}
	my $reference = slurp("$folder/$name.png");
	my $distance = defined $reference ? difference($result, read_png($reference)) : 255;
	my $tolerance = $name =~ /^text/ ? 2 * $tolerance : $tolerance;	# fonts differ too
	ok($distance < $tolerance, sprintf('%s is %.2f from its reference', $name, $distance));
	unless ($name =~ /^(resize|jpeg|webp|palette|gif|pixelate)/)
	{
		my $untouched = difference($result, reduce(run_pipeline($look->[2] // 'scene', 'keep'), $reference_side));
		ok($untouched > $tolerance, sprintf('and %.2f from the picture as it was', $untouched));
	}
}

# A contact sheet is the tiles that join would put together.
my $sheet = read_png(pack 'H*', $node->safe_psql('postgres', q[
	SELECT encode(imgpipe.contact_sheet(content, 2, 96, 96, 6, '#336699' ORDER BY name DESC)::bytea, 'hex') FROM pictures WHERE name IN ('scene', 'badge')]));
is("$sheet->{width}x$sheet->{height}", '210x84', 'size of a contact sheet');
is(join(',', (pixel($sheet, 2, 2))[0 .. 2]), '51,102,153', 'its background');
my $tile = run_pipeline('scene', 'resize(width=96)');
is_exactly('its first tile', make_picture(96, 72, sub { return (pixel($sheet, $_[0] + 6, $_[1] + 6))[0 .. 2] }), sub { pixel($tile, @_) });
is(join(',', (pixel($sheet, 108 + 18 + 20, 6 + 16 + 20))[0 .. 2]), '255,240,0', 'and its second, which is small and stands in the middle');

done_testing();
