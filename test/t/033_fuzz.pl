# The fuzzer, for a short time: damaged images straight to decoders, and through SQL to one backend.  `make fuzz` does
# the same for longer; FUZZ_SEED and FUZZ_RUNS are its.
use strict;
use warnings;

use ImgpipeTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $root = $ImgpipeTest::root;
my $fuzz = "$PostgreSQL::Test::Utils::tmp_check/decoder_fuzz";
my $seed = $ENV{FUZZ_SEED} || 1;
my $runs = $ENV{FUZZ_SQL_RUNS} || 1000;
my @corpora = grep { defined } map { shared_data($_) } qw(fuzz image-rs pngsuite);

plan skip_all => 'the source is not here' unless -e "$root/src/decoder/protocol.h";
system("$root/test/fuzz/compile", $fuzz) == 0 or die 'could not compile the fuzzer';
chomp(my $libraries = `pg_config --pkglibdir`);

# What the program says is TAP too, but of a test of its own.
my $report = `$fuzz --seed=$seed --runs=2000 --frames=2000 $libraries/imgpipe-decoder @corpora`;
my $status = $?;
note($report =~ s/^(?!#)/# /mgr);
is($status, 0, 'the fuzzer found nothing');
like($report, qr/^ok 1 - 2000 mutants and 2000 malformed frames were sent$/m, 'and was at work');

# Each mutant is made an image and processed: two operations.
my $node = new_cluster('main', 'imgpipe.max_processors = 0', 'imgpipe.decoder_timeout = 10s');
my $copy = "$PostgreSQL::Test::Utils::tmp_check/mutants";
system($fuzz, "--seed=$seed", "--runs=$runs", "--copy=$copy", 'none', @corpora) == 0 or die 'could not make mutants';
$node->safe_psql('postgres', slurp_file("$root/test/fuzz/trial.sql") . "
	CREATE TABLE mutants (number bigserial, bytes bytea);
	ALTER TABLE mutants ALTER bytes SET STORAGE external;
	COPY mutants (bytes) FROM '$copy' (FORMAT binary)");
unlink $copy;
my $started = $node->safe_psql('postgres', 'SELECT pg_postmaster_start_time()');
my ($output, $errors) = ('', '');
$node->psql('postgres', "
	CREATE TEMP TABLE outcomes (number bigint, outcome text);
	INSERT INTO outcomes SELECT number, trial.outcome(bytes, number) FROM mutants WHERE number <= 50;
	TRUNCATE outcomes;
	CREATE TEMP TABLE state AS SELECT pg_backend_pid() AS pid, trial.descriptors() AS descriptors;
	INSERT INTO outcomes SELECT number, trial.outcome(bytes, number) FROM mutants ORDER BY number;
	SELECT outcome || ': ' || count(*) FROM outcomes GROUP BY outcome ORDER BY count(*) DESC;
	SELECT 'not done: ' || operation FROM imgpipe.pipeline_operations() EXCEPT
		SELECT 'not done: ' || step[1] FROM outcomes, regexp_matches(trial.pipeline(number)::text, '(?:^|\\| )([a-z]+)', 'g') step WHERE outcome = 'done';
	SELECT (SELECT count(*) FROM outcomes), pid = pg_backend_pid(), trial.descriptors() - descriptors, (SELECT count(*) FROM trial.children()) FROM state",
	stdout => \$output, stderr => \$errors, timeout => 3000);
my @outcomes = split /\n/, $output;
my @undone = grep { /^not done/ } @outcomes;
@outcomes = grep { !/^not done/ } @outcomes;
my ($count, $same, $opened, $children) = split /\|/, pop @outcomes;
note("seed $seed: $_") for @outcomes;
is($errors, '', 'the session goes on');
is($count, $runs, "$runs mutants through SQL");
is($same, 't', 'in one backend');
is_deeply(\@undone, [], 'each operation was done on some of them');
cmp_ok($opened, '<', 10, 'no descriptor leaks: a few more are files of the catalog');
cmp_ok($children, '<=', 1, 'no process leaks');
is_deeply([ grep { !/^(done|not (taken|processed): (22P03|0A000|54000|22023|38000|58000)): / } @outcomes ], [], 'each was processed or refused with a reason');
# 7 x 8388608 pixels in 68 bytes, cut short: some versions of the libraries run out of memory at it, and would end the decoder
(undef, undef, $errors) = $node->psql('postgres', q[\set VERBOSITY sqlstate
	SELECT imgpipe.process_image(imgpipe.image('\x89504e470d0a1a0a0000000d4948445200000007008000000806000001fd6bd2270000000749444154785e6302014682709989410000000449454e440000ff0449abf08f'::bytea), 'flip | png')]);
like($errors, qr/ERROR:  (54000|22P03)$/, 'out of memory or out of data, whatever comes first');
is($node->safe_psql('postgres', 'SELECT pg_postmaster_start_time()'), $started, 'the server was not restarted');
unlike(slurp_file($node->logfile), qr/terminated by signal|PANIC|TRAP:/, 'no process of it died');
ok(poll_code(sub { (my @pids = decoder_pids($node)) == 0 }), 'no decoder is left behind');
$node->stop;
done_testing();
