=head1 NAME

Documentation - the pages of the documentation as tests: their blocks, and a reader who types them into psql

=head1 SYNOPSIS

  use Documentation;

  my %commands = titled_blocks('docs/replicas.md', 'sh', '# ');
  my $reader = Documentation::Reader->new($node, 'postgres');
  for my $block (page_blocks('README.md', 'sql'))
  {
	for my $statement (block_statements($block->{text}))
	{
		my $output = $reader->execute($statement->{sql});
		my $difference = shown_difference($statement->{shown}, $output);
	}
  }

=cut

package Documentation;

use strict;
use warnings;

use Encode qw(decode_utf8);
use Exporter 'import';
use ImgpipeTest;
use PostgreSQL::Test::Utils;
use Test::More;

our @EXPORT = qw(page_text page_blocks titled_blocks block_statements shown_difference masked);

=head2 page_text($page)

A page by its path from the root.  Where the documentation is not here the test is skipped.

=cut

sub page_text
{
	my ($page) = @_;
	my $path = "$ImgpipeTest::root/$page";
	plan skip_all => 'the documentation is not here' unless -e $path;
	return slurp_file($path);
}

=head2 page_blocks($page, $language)

The fenced blocks of a language ('': of none) in their order, with the line of the page that they begin in.

=cut

sub page_blocks
{
	my ($page, $language) = @_;
	my $text = page_text($page);
	my @blocks;
	while ($text =~ /^```(\w*)\n(.*?)^```$/msg)
	{
		my ($its_language, $block, $line) = ($1, $2, 2 + (substr($text, 0, $-[0]) =~ tr/\n//));
		push @blocks, { text => $block, line => $line } if $its_language eq $language;
	}
	return @blocks;
}

=head2 titled_blocks($page, $language, $comment)

The blocks whose first line is a comment, by what it says, up to a colon; those that say the same are one.

=cut

sub titled_blocks
{
	my ($page, $language, $comment) = @_;
	my %titled;
	for my $block (page_blocks($page, $language))
	{
		$titled{$1} .= $2 if $block->{text} =~ /^\Q$comment\E([^\n:]+)[^\n]*\n(.*)/s;
	}
	return %titled;
}

=head2 block_statements($text)

What a reader types, statement by statement, each with the output that the page shows below it (undef for none) and the line
of the block that it begins in.  Output is a table as psql prints it, or begins with ERROR or the like, and goes to an empty line.

=cut

sub block_statements
{
	my ($text) = @_;
	my $part = qr/'(?:[^']|'')*' | "(?:[^"]|"")*" | (\$\w*\$).*?\g{-1} | --[^\n]* | [^;\\]/sx;
	my @statements;
	while ($text =~ /\G(?:\s+|--[^\n]*\n)*/gc && pos $text < length $text)
	{
		my $line = substr($text, 0, pos $text) =~ tr/\n//;
		$text =~ /\G((?:$part)*(?:;|\\[^\n]*))(?:[ ]*--[^\n]*)?/gc or die 'no end of: ' . substr $text, pos $text;
		my $sql = $1;
		my $shown = $text =~ /\G\n((?:[A-Z]+:[ ]{2}|[^\n]*\n-+(?:\+-+)*\n).*?)(?:\n(?=\n)|\n?\z)/gcs ? $1 : undef;
		push @statements, { sql => $sql, shown => $shown, line => $line };
	}
	return @statements;
}

=head2 shown_difference($shown, $output, %more)

What the output of a statement has that the page does not show, or the other way round; '' where they agree.  In a table '...' stands for
rows that are left out, and '…' at the end of a cell for the rest of it.  Times, ids, hashes, sizes on disk and process numbers are
different each time.  More: varies => [names of columns], mask => [[qr/what/, 'instead'], ...].

=cut

my @masks = (
	[ qr/\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(?:\.\d+)?[+-]\d\d(?::\d\d)?/, '<time>' ],
	[ qr/\d{4}-\d\d-\d\d/, '<day>' ],
	[ qr/\b[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}\b/, '<id>' ],
	[ qr/\b(?:\\x)?[0-9a-f]{64}\b/, '<hash>' ],
	[ qr/\b\d+(?:\.\d+)? (?:bytes|kB|MB|GB)\b/, '<size>' ],
	[ qr/\bprocess \d+/, 'process <number>' ],
	[ qr/\b[0-9A-F]+\/[0-9A-F]{6,8}\b/, '<position>' ]);

=head2 masked($text, [qr/what/, 'instead'], ...)

The text with a mask in place of what is different each time, and of more.

=cut

sub masked
{
	my ($text, @more) = @_;
	$text =~ s/$_->[0]/$_->[1]/g for @more, @masks;
	return $text;
}

# Head and rows of a table, or undef where it is none.
sub table
{
	my ($text) = @_;
	my ($head, $ruler, @lines) = split /\n/, $text;
	return undef unless ($ruler // '') =~ /^-+(\+-+)*$/;
	my @widths = map {length} split /\+/, $ruler;
	my @rows;
	for my $line ($head, @lines)
	{
		my ($from, @cells) = (0);
		for my $column (0 .. $#widths)
		{
			my $cell = $from > length $line ? '' : $column == $#widths ? substr $line, $from : substr $line, $from, $widths[$column];
			$from += $widths[$column] + 1;
			push @cells, $cell =~ s/^\s+|\s+$//gr;
		}
		push @rows, \@cells;
	}
	return @rows;
}

sub same_row
{
	my ($shown, $row) = @_;
	for my $column (0 .. $#$shown)
	{
		my ($cell, $value) = ($shown->[$column], $row->[$column] // return 0);
		return 0 unless $cell eq $value || $cell =~ /^(.+)\x{2026}$/ && index($value, $1) == 0;
	}
	return @$shown == @$row;
}

sub shown_difference
{
	my ($shown, $output, %more) = @_;
	my %varies = map { $_ => 1 } @{ $more{varies} // [] };
	my @both;
	for my $text (map { decode_utf8($_) } $shown, $output)
	{
		my ($head, @rows) = table($text);
		if (!defined $head)
		{
			push @both, [ map { [$_] } split /\n/, masked($text =~ s/\s+$//mgr, @{ $more{mask} // [] }) ];
			next;
		}
		for my $row (@rows)
		{
			$row->[$_] = $varies{ $head->[$_] } && $row->[$_] ne '' ? '<varies>' : masked($row->[$_], @{ $more{mask} // [] }) for 0 .. $#$head;
		}
		push @both, [ $head, @rows ];
	}
	my ($expected, $rows) = @both;
	my ($next, $left_out) = (0, 0);
	for my $row (@$expected)
	{
		if ($row->[0] eq '...')
		{
			$left_out = 1;
			next;
		}
		$next++ while $left_out && $next < @$rows && !same_row($row, $rows->[$next]);
		return "shown, but not there: @$row" if $next >= @$rows || !same_row($row, $rows->[$next]);
		$next++;
		$left_out = 0;
	}
	return $left_out || $next == @$rows ? '' : "there, but not shown: @{ $rows->[$next] }";
}

package Documentation::Reader;

use strict;
use warnings;

use IPC::Run;
use Test::More;

=head2 Documentation::Reader->new($node, $database)

A session of psql.  execute($text) types that, and returns what psql prints until it is done; quit() ends it.

=cut

sub new
{
	my ($class, $node, $database) = @_;
	my $self = bless { input => '', output => '', serial => 0, timer => IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default) }, $class;
	local $ENV{PSQLRC} = '/dev/null';
	$self->{psql} = IPC::Run::start(
		[ 'psql', '-q', '-d', $node->connstr($database), '--pset=footer=off', '--pset=pager=off', '-v', 'SHOW_CONTEXT=never' ],
		'<', \$self->{input}, '>&', \$self->{output}, $self->{timer});
	return $self;
}

sub execute
{
	my ($self, $text) = @_;
	my $end = 'done with ' . ++$self->{serial};
	$self->{output} = '';
	$self->{input} .= $text . "\n\\echo $end\n";
	$self->{timer}->start;
	eval { $self->{psql}->pump until $self->{output} =~ /^$end\n/m; 1 }
	  or BAIL_OUT("no end of: $text\noutput: $self->{output}\n$@");
	return $self->{output} =~ s/^$end\n.*//msr;
}

sub quit
{
	my ($self) = @_;
	$self->{input} .= "\\quit\n";
	$self->{psql}->finish;
}

1;
