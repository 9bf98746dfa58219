#!/usr/bin/env perl
# dump_objects.pl 002_pg_dump.pl: the SQL with which pg_dump's own tests make their objects, in their order.
use strict;
use warnings;
local $/;
open my $file, '<', $ARGV[0] or die "$ARGV[0]: $!";
my $text = <$file>;
$text =~ s/^.*?^my %tests = \(/(/ms or die "no %tests in $ARGV[0]";
$text =~ s/\}\s*\);\s*^#####.*/});/ms or die;
# What the tests expect of each run names variables that are made elsewhere.
no strict;
no warnings;
our (%full_runs, %dump_test_schema_runs, %pgdump_runs);
my ($supports_lz4, $supports_gzip, $supports_icu, $supports_zstd, $tempdir) = (1, 1, 1, 1, '/tmp');
$text =~ s/%(?:full_runs|dump_test_schema_runs|\w*_runs)/()/g;
my %tests = eval $text;
die $@ if $@;
binmode STDOUT;
for my $name (sort { ($tests{$a}{create_order} // 0) <=> ($tests{$b}{create_order} // 0) || $a cmp $b } grep { $tests{$_}{create_sql} } keys %tests) {
    next if defined $tests{$name}{database};
    (my $sql = $tests{$name}{create_sql}) =~ s/\s+\z//;
    print $sql, ($sql =~ /;\z/ ? '' : ';'), "\n";
}
