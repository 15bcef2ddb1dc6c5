#!/usr/bin/env bash
# Everything that must hold, in the order in which a fault is cheapest to find: test_all.sh MAKE
# Goes on after a failure; closes with one line over all configurations.
set -u
make=$1
jobs=$(getconf _NPROCESSORS_ONLN)
passed=0 failed=0 skipped=0 broken=
for config in debug asan ubsan; do
    echo "==== config=$config check"
    rm -f "build/$config/results/total"
    # shellcheck disable=SC2086 # $make may bring options
    $make --no-print-directory -j"$jobs" WERROR=1 config=$config check || broken="$broken $config"
    read -r ok bad left <"build/$config/results/total" || { ok=0 bad=1 left=0; }
    passed=$((passed + ok)) failed=$((failed + bad)) skipped=$((skipped + left))
done
echo "==== check-no-decoders"
rm -f build/no-png/results/total build/no-jpeg/results/total
# shellcheck disable=SC2086
$make --no-print-directory -j"$jobs" WERROR=1 config=debug check-no-decoders ||
    broken="$broken no-decoders"
for build in no-png no-jpeg; do
    read -r ok bad left <"build/$build/results/total" || { ok=0 bad=1 left=0; }
    passed=$((passed + ok)) failed=$((failed + bad)) skipped=$((skipped + left))
done
echo "==== lint"
if $make --no-print-directory -j"$jobs" WERROR=1 config=release lint; then
    passed=$((passed + 1))
else
    failed=$((failed + 1)) broken="$broken lint"
fi
[ -z "$broken" ] || echo "broken:$broken"
echo "all: $passed passed, $failed failed, $skipped skipped"
[ -z "$broken" ] && [ "$failed" -eq 0 ]
