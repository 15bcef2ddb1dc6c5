#!/usr/bin/env bash
# Add up what run_suite.sh left: sum_up.sh RESULTS NAME...
# Names the failed suites, then closes with one line, "N passed, N failed, N skipped".
#
# A Check suite counts by its summary, a script by its lines "PASS: ..." and "FAIL: ...", any other
# program by its exit status. A test that prints "SKIPPED: ..." is skipped, not passed. A suite that
# fails without saying so (it crashed, or left no result) is one failure more.
set -u
results=$1
shift
passed=0 failed=0 skipped=0
for name in "$@"; do
    log=$results/$name.log rc=1
    [ -f "$results/$name.rc" ] && rc=$(cat "$results/$name.rc")
    read -r ok bad left <<<"$(awk '
        /^[0-9]+%: Checks: [0-9]+, Failures: [0-9]+, Errors: [0-9]+/ {
            gsub(/[^0-9 ]/, ""); bad += $3 + $4; ok += $2 - $3 - $4
        }
        /^PASS: / { ok++; counted = 1 }
        /^FAIL: / { bad++ }
        /^SKIPPED: / { left++; if (!counted) unsaid++ }
        END {
            # Check counts a skipped test as passed; a script prints PASS or SKIPPED.
            if (!counted) ok = ok > unsaid ? ok - unsaid : 0
            print ok + 0, bad + 0, left + 0
        }' "$log" 2>/dev/null || echo 0 0 0)"
    if [ "$rc" -ne 0 ] && [ "$bad" -eq 0 ]; then
        bad=1
    elif [ "$rc" -eq 0 ] && [ $((ok + bad + left)) -eq 0 ]; then
        ok=1
    fi
    [ "$bad" -eq 0 ] || echo "failed: $name ($bad), see $log"
    passed=$((passed + ok)) failed=$((failed + bad)) skipped=$((skipped + left))
done
echo "$passed $failed $skipped" >"$results/total"
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
