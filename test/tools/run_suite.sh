#!/usr/bin/env bash
# Run one suite: run_suite.sh RESULTS NAME COMMAND...
# Its output goes to RESULTS/NAME.log, and to the terminal in one piece; its exit status to
# RESULTS/NAME.rc. This script itself succeeds, so that the other suites run too; sum_up.sh judges.
set -u
results=$1 name=$2
shift 2
mkdir -p "$results"
rm -f "$results/$name.rc"
"$@" >"$results/$name.log" 2>&1 </dev/null
status=$?
echo "$status" >"$results/$name.rc"
text="== $name"
[ "$status" -eq 0 ] || text="$text: exit status $status"
printf '%s\n%s\n' "$text" "$(cat "$results/$name.log")"
