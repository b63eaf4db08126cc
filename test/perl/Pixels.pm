=head1 NAME

Pixels - pictures in Perl, independent of the libraries that are tested

=head1 SYNOPSIS

  use Pixels;

  my $picture = make_picture(192, 144, sub { my ($x, $y) = @_; return ($x, $y, 128) });
  my $file = write_png($picture);
  my $result = read_png($other_file);
  cmp_ok(difference(reduce($result, 64), reduce($picture, 64)), '<', 2);

A picture is a hash of width, height, bands (1 to 4, alpha the last of 2 or 4) and rows, each a list of
samples from 0 to 255.  PNG files of 16 bits are read to 8; palettes and interlacing are not known.

=cut

package Pixels;

use strict;
use warnings;

use Compress::Zlib qw(compress uncompress crc32);
use Exporter 'import';

our @EXPORT = qw(make_picture read_png write_png pixel reduce difference);

my $signature = "\x89PNG\r\n\x1a\n";
my %bands_of = (0 => 1, 2 => 3, 4 => 2, 6 => 4);
my %type_of = reverse %bands_of;

sub make_picture
{
	my ($width, $height, $color) = @_;
	my @rows = map { my $y = $_; [ map { $color->($_, $y) } 0 .. $width - 1 ] } 0 .. $height - 1;
	return { width => $width, height => $height, bands => @{ $rows[0] } / $width, rows => \@rows };
}

sub pixel
{
	my ($picture, $x, $y) = @_;
	my $bands = $picture->{bands};
	return @{ $picture->{rows}[$y] }[ $x * $bands .. $x * $bands + $bands - 1 ];
}

sub chunk
{
	my ($type, $data) = @_;
	return pack('N a4', length $data, $type) . $data . pack 'N', crc32($type . $data);
}

# What is written is small by its filter: the difference to the row above.
sub write_png
{
	my ($picture) = @_;
	my ($lines, $above) = ('', [ (0) x @{ $picture->{rows}[0] } ]);
	for my $row (@{ $picture->{rows} })
	{
		$lines .= pack 'C*', 2, map { ($row->[$_] - $above->[$_]) & 255 } 0 .. $#$row;
		$above = $row;
	}
	return $signature
	  . chunk('IHDR', pack 'N N C5', $picture->{width}, $picture->{height}, 8, $type_of{ $picture->{bands} }, 0, 0, 0)
	  . chunk('IDAT', compress($lines, 9))
	  . chunk('IEND', '');
}

sub paeth
{
	my ($left, $up, $corner) = @_;
	my $guess = $left + $up - $corner;
	my ($a, $b, $c) = map { abs($guess - $_) } $left, $up, $corner;
	return $a <= $b && $a <= $c ? $left : $b <= $c ? $up : $corner;
}

sub read_png
{
	my ($file) = @_;
	my ($at, $data) = (8, '');
	my ($width, $height, $depth, $type, $interlace);

	die "no PNG file\n" unless substr($file, 0, 8) eq $signature;
	while ($at < length $file)
	{
		my ($length, $name) = unpack "\@$at N a4", $file;
		my $content = substr $file, $at + 8, $length;
		($width, $height, $depth, $type, undef, undef, $interlace) = unpack 'N N C5', $content if $name eq 'IHDR';
		$data .= $content if $name eq 'IDAT';
		$at += $length + 12;
	}
	my $bands = $bands_of{$type} or die "PNG of colour type $type\n";
	die "interlaced PNG\n" if $interlace;
	my $samples = $depth / 8;
	my $step = $bands * $samples;
	my $lines = uncompress($data);
	my ($above, @rows) = [ (0) x ($width * $step) ];

	for my $y (0 .. $height - 1)
	{
		my ($filter, @row) = unpack 'C*', substr $lines, $y * ($width * $step + 1), $width * $step + 1;
		for my $i (0 .. $#row)
		{
			my $left = $i >= $step ? $row[ $i - $step ] : 0;
			my $corner = $i >= $step ? $above->[ $i - $step ] : 0;
			my $guess =
			    $filter == 0 ? 0
			  : $filter == 1 ? $left
			  : $filter == 2 ? $above->[$i]
			  : $filter == 3 ? int(($left + $above->[$i]) / 2)
			  :                paeth($left, $above->[$i], $corner);
			$row[$i] = ($row[$i] + $guess) & 255;
		}
		$above = [@row];
		@row = @row[ map { $_ * $samples } 0 .. $width * $bands - 1 ] if $samples > 1;
		push @rows, \@row;
	}
	return { width => $width, height => $height, bands => $bands, rows => \@rows };
}

# Colour and alpha of a pixel, colours weighted by alpha.
sub weighted
{
	my @sample = @_;
	my $alpha = @sample == 2 || @sample == 4 ? pop @sample : 255;
	@sample = (@sample) x 3 if @sample == 1;
	return ((map { $_ * $alpha / 255 } @sample), $alpha);
}

# Made smaller by means, so that no side is longer than $longest; always of four bands, not weighted any more.
sub reduce
{
	my ($picture, $longest) = @_;
	my $longer = $picture->{width} > $picture->{height} ? $picture->{width} : $picture->{height};
	my $scale = $longer > $longest ? $longer / $longest : 1;
	my ($width, $height) = map { int($_ / $scale + 0.5) || 1 } @$picture{qw(width height)};
	my @sums = map { [ map { [ 0, 0, 0, 0, 0 ] } 1 .. $width ] } 1 .. $height;

	for my $y (0 .. $picture->{height} - 1)
	{
		my $row = $sums[ int($y * $height / $picture->{height}) ];
		for my $x (0 .. $picture->{width} - 1)
		{
			my $sum = $row->[ int($x * $width / $picture->{width}) ];
			my @sample = weighted(pixel($picture, $x, $y));
			$sum->[$_] += $sample[$_] for 0 .. 3;
			$sum->[4]++;
		}
	}
	my @rows;
	for my $row (@sums)
	{
		push @rows, [ map {
			my ($sum, $alpha) = ($_, $_->[3]);
			((map { $alpha > 0 ? int($sum->[$_] * 255 / $alpha + 0.5) : 0 } 0 .. 2), int($alpha / $sum->[4] + 0.5))
		} @$row ];
	}
	return { width => $width, height => $height, bands => 4, rows => \@rows };
}

# Mean of the absolute differences of all weighted samples; 255 where the sizes differ.
sub difference
{
	my ($one, $other) = @_;
	return 255 if $one->{width} != $other->{width} || $one->{height} != $other->{height};
	my ($sum, $n) = (0, 0);
	for my $y (0 .. $one->{height} - 1)
	{
		for my $x (0 .. $one->{width} - 1)
		{
			my @a = weighted(pixel($one, $x, $y));
			my @b = weighted(pixel($other, $x, $y));
			$sum += abs($a[$_] - $b[$_]) for 0 .. 3;
			$n += 4;
		}
	}
	return $sum / $n;
}

1;
