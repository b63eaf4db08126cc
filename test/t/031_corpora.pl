# Collections of odd and hostile images, all the way through SQL: what is valid is decoded as others decode it, what is
# not is refused, and nothing else happens.  Where ../shared is not here, images that vips makes stand in.
use strict;
use warnings;

use ImgpipeTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_cluster('main', 'imgpipe.max_processors = 0');
my $tmp = $PostgreSQL::Test::Utils::tmp_check;
$node->safe_psql('postgres', slurp_file("$ImgpipeTest::root/test/fuzz/trial.sql"));

sub query { return $node->safe_psql('postgres', $_[0]) }

sub write_file
{
	my ($path, $bytes) = @_;
	open my $file, '>:raw', $path or die "could not write $path: $!";
	print $file $bytes;
	close $file;
	return $path;
}

sub quote { return join ', ', map { "'$_'" } @_ }

sub name_of { return $_[0] =~ s{.*/}{}r }

sub vips { system('vips', @_) == 0 or die "vips @_ failed" }

# What the pipeline makes of each file: path => the bytes, or undef and the error.
sub process_files
{
	my ($pipeline, @paths) = @_;
	my %outputs;
	my $rows = query("SELECT path, trial.process(path, '$pipeline') FROM unnest(ARRAY[" . quote(@paths) . ']) path');
	for (split /\n/, $rows)
	{
		my ($path, $result) = split /\|/, $_, 2;
		$outputs{$path} = $result =~ /^done (.*)/ ? { bytes => pack 'H*', $1 } : { error => $result };
	}
	return \%outputs;
}

# The colour that is clear by the tRNS chunk of a PNG without a palette: netpbm 11 makes nothing of it in RGB.
sub clear_color
{
	my ($path) = @_;
	my $png = slurp_file($path);
	return unless ord(substr $png, 25) == 2 && $png =~ /\x00\x00\x00\x06tRNS(.{6})/s;
	return join ' ', unpack 'n3', $1;
}

# A PNG as netpbm reads it: width, height and 16-bit samples of red, green, blue and opacity.  What netpbm says of
# the colours under clear pixels is compared, too.
sub samples
{
	my ($path) = @_;
	open my $pipe, '-|:raw', "pngtopam -alphapam '$path' 2>/dev/null" or die "could not run pngtopam: $!";
	my $pam = do { local $/; <$pipe> };
	close $pipe or die "pngtopam cannot read $path";
	my ($header, $body) = split /ENDHDR\n/, $pam, 2;
	my %field = $header =~ /^([A-Z]+) (.+)$/mg;
	my @numbers = unpack $field{MAXVAL} > 255 ? 'n*' : 'C*', $body;
	my ($depth, $clear) = ($field{DEPTH}, clear_color($path));
	my @samples;
	for (my $i = 0; $i < @numbers; $i += $depth)
	{
		my @pixel = @numbers[ $i .. $i + $depth - 1 ];
		$pixel[-1] = 0 if $clear && "@pixel[0 .. 2]" eq $clear;
		@pixel = map { $_ / $field{MAXVAL} } @pixel;
		push @samples, $depth <= 2 ? @pixel[ (0) x 3 ] : @pixel[ 0 .. 2 ], $pixel[-1];
	}
	return { size => "$field{WIDTH}x$field{HEIGHT}", samples => \@samples, maxval => $field{MAXVAL} };
}

# Mean and largest difference of samples, in steps of 1/255; sizes that differ are far apart.
sub difference
{
	my ($a, $b) = @_;
	my ($sum, $largest) = (0, 0);
	return (255, 255) if $a->{size} ne $b->{size};
	my $n = @{ $a->{samples} };
	for my $i (0 .. $n - 1)
	{
		my $difference = abs($a->{samples}[$i] - $b->{samples}[$i]) * 255;
		$sum += $difference;
		$largest = $difference if $difference > $largest;
	}
	return ($sum / $n, $largest);
}

# PngSuite: each file decodes to the pixels that netpbm sees in it, each x* file is refused

sub check_pngs
{
	my ($what, @paths) = @_;
	my $outputs = process_files('png', @paths);
	my ($valid, $refused, @wrong) = (0, 0);
	for my $path (sort keys %$outputs)
	{
		my ($name, $output) = (name_of($path), $outputs->{$path});
		if ($name =~ /^x/)
		{
			$refused++ if ($output->{error} // '') =~ /^22P03 /;
			push @wrong, "$name: " . ($output->{error} // 'taken') unless ($output->{error} // '') =~ /^22P03 /;
			next;
		}
		if ($output->{error})
		{
			push @wrong, "$name: $output->{error}";
			next;
		}
		my $expected = samples($path);
		my (undef, $largest) = difference($expected, samples(write_file("$tmp/output.png", $output->{bytes})));

		# Where fewer bits are significant than stored (sBIT), netpbm cuts the rest off.
		my $tolerance = 255 / $expected->{maxval} / 2;
		$tolerance = 0.001 if $expected->{maxval} == 255 || $expected->{maxval} == 65535;
		$valid++ if $largest <= $tolerance;
		push @wrong, "$name: samples differ by $largest of 255" if $largest > $tolerance;
	}
	is(join("\n", @wrong), '', "$what: $valid files as netpbm decodes them, $refused damaged ones refused");
	return ($valid, $refused);
}

sub make_pngs
{
	my $folder = "$tmp/pngs";
	mkdir $folder;
	write_file("$folder/seed.ppm", "P6\n40 30\n255\n" . join '', map { pack 'C3', $_ * 7 % 256, $_ % 40 * 6, int($_ / 40) * 8 } 0 .. 1199);
	vips('copy', "$folder/seed.ppm", "$folder/$_->[0].png[$_->[1]]")
	  for [ rgb => 'compression=9' ], [ interlaced => 'interlace' ], [ palette => 'palette' ], [ few => 'palette,bitdepth=2' ];
	vips('colourspace', "$folder/seed.ppm", "$folder/deep.png", 'rgb16');
	vips('colourspace', "$folder/seed.ppm", "$folder/gray.png", 'b-w');
	vips('colourspace', "$folder/seed.ppm", "$folder/deepgray.png", 'grey16');
	vips('bandjoin_const', "$folder/seed.ppm", "$folder/alpha.png", '100');
	vips('bandjoin_const', "$folder/gray.png", "$folder/grayalpha.png", '200');
	my $png = slurp_file("$folder/rgb.png");
	write_file("$folder/xcut.png", substr $png, 0, length($png) / 2);
	write_file("$folder/xsignature.png", $png =~ s/^./\x88/sr);
	write_file("$folder/xchecksum.png", $png =~ s/(IDAT.{20})(.)/$1 . chr(ord($2) ^ 1)/ser);
	write_file("$folder/xheader.png", $png =~ s/(IHDR.{8})./$1\x63/sr);
	return glob "$folder/*.png";
}

SKIP:
{
	skip 'netpbm is not here', 1 if system('pngtopam -version >/dev/null 2>&1') != 0;
	my @counts = check_pngs('PNGs made by vips', make_pngs());
	is("@counts", '9 4', 'all of them');
	my $folder = shared_data('pngsuite') or skip 'no PngSuite here', 2;
	@counts = check_pngs('PngSuite', glob "$folder/*.png");
	is("@counts", '161 14', 'all of them');
}

# Orientations: one picture, however the camera was held

sub check_upright
{
	my ($what, @paths) = @_;
	my $outputs = process_files('resize(width=150) | png', @paths);
	my (@wrong, $upright);
	for my $path (sort @paths)
	{
		my $output = $outputs->{$path};
		my $picture = $output->{error} ? undef : samples(write_file("$tmp/output.png", $output->{bytes}));
		$upright //= $picture;
		my $mean = $picture ? (difference($upright, $picture))[0] : $output->{error};
		push @wrong, name_of($path) . ": $mean" unless $picture && $mean < 3;
	}
	is(join("\n", @wrong), '', "$what: " . @paths . ' orientations look the same');
	return scalar @paths;
}

sub make_turned
{
	my $folder = "$tmp/turned";
	my @turns = ([], [], [ flip => 'horizontal' ], [ rot => 'd180' ], [ flip => 'vertical' ],
		[ flip => 'vertical', rot => 'd90' ], [ rot => 'd270' ], [ flip => 'vertical', rot => 'd270' ], [ rot => 'd90' ]);
	mkdir $folder;
	vips('resize', "$tmp/pngs/seed.ppm", "$folder/large.v", 8, '--kernel', 'cubic');
	for my $orientation (0 .. 8)
	{
		my @steps = @{ $turns[$orientation] };
		vips('copy', "$folder/large.v", "$folder/0.v");
		for (my $n = 0; @steps; $n++)
		{
			my ($operation, $how) = splice @steps, 0, 2;
			vips($operation, "$folder/$n.v", "$folder/" . ($n + 1) . '.v', $how);
			rename "$folder/" . ($n + 1) . '.v', "$folder/0.v" or die;
			$n--;
		}
		vips('copy', "$folder/0.v", "$folder/plain.jpg[Q=95,strip]");
		my $exif = "Exif\0\0MM\0\x2a" . pack 'N n n n N n n N', 8, 1, 0x112, 3, 1, $orientation, 0, 0;
		write_file("$folder/Made_$orientation.jpg", slurp_file("$folder/plain.jpg") =~ s/^\xff\xd8/"\xff\xd8\xff\xe1" . pack('n', 2 + length $exif) . $exif/er);
		unlink "$folder/plain.jpg";
	}
	return glob "$folder/*.jpg";
}

is(check_upright('made by vips', make_turned()), 9, 'all of them');
SKIP:
{
	my $folder = shared_data('exif-orientation') or skip 'no photographs in all orientations here', 4;
	for my $scene ('Landscape', 'Portrait')
	{
		is(check_upright($scene, glob "$folder/${scene}_*.jpg"), 9, 'all of them');
	}
}

# Everything, hostile or not, in one backend

sub files_below
{
	my @below = map { -d $_ ? files_below($_) : $_ } glob "$_[0]/*";
	return @below;
}

my %expected = map { $_ => 1 } ('done',
	map({"not taken: $_"} qw(22P03 0A000 54000)),
	map({"not processed: $_"} qw(22P03 0A000 54000 22023 58000)));

sub check_all
{
	my ($what, @paths) = @_;
	my $list = write_file("$tmp/list", join '', map {"$_\n"} @paths);
	my $limit = query('SHOW imgpipe.decoder_memory_limit') =~ s/MB//r * 1024;
	my $started = query('SELECT pg_postmaster_start_time()');
	my ($state, @rows) = reverse split /\n/, query("
		CREATE TEMP TABLE files (number bigserial, path text);
		COPY files (path) FROM '$list';
		SELECT imgpipe.image_width(imgpipe.image(content::bytea)) FROM (SELECT imgpipe.bytea(imgpipe.process_image(pg_read_binary_file('$tmp/pngs/rgb.png')::imgpipe.image, 'png')) AS content) f;
		CREATE TEMP TABLE state AS SELECT pg_backend_pid() AS pid, trial.descriptors() AS descriptors, trial.decoder_peak() AS base;
		CREATE TEMP TABLE outcomes AS
			SELECT number, path, trial.outcome(pg_read_binary_file(path), number) AS outcome, trial.decoder_peak() AS peak FROM files ORDER BY number;
		SELECT outcome, count(*) FROM outcomes GROUP BY 1 ORDER BY 2 DESC;
		SELECT (SELECT count(*) FROM outcomes), pid = pg_backend_pid(), trial.descriptors() - descriptors,
			(SELECT count(*) FROM trial.children()), base, (SELECT max(peak) FROM outcomes) FROM state");
	pop @rows;
	my ($count, $same, $opened, $children, $base, $peak) = split /\|/, $state;
	note("$what: $_") for reverse @rows;
	note("$what: peak of the decoder $peak kB, $base kB at first, limit $limit kB");
	is($count, @paths, "$what: $count files");
	is_deeply([ grep { !$expected{ s/\|.*//r } } @rows ], [], "$what: each processed or refused with a reason");
	is($same, 't', "$what: in one backend");
	cmp_ok($children, '<=', 1, "$what: with one decoder");
	cmp_ok($peak, '<', $base + $limit, "$what: below the memory limit");
	cmp_ok($opened, '<', 10, "$what: $opened more descriptors");
	is(query('SELECT pg_postmaster_start_time()'), $started, "$what: the server was not restarted");
}

check_all('made by vips', map { files_below($_) } "$tmp/pngs", "$tmp/turned");
for my $folder ('fuzz', 'image-rs')
{
	SKIP:
	{
		my $path = shared_data($folder) or skip "no $folder here", 7;
		check_all($folder, files_below($path));
	}
}
unlike(slurp_file($node->logfile), qr/terminated by signal|PANIC|TRAP:/, 'no process of the server died');
$node->stop;
done_testing();
