#!/usr/bin/env bash
# Compare CASE with the program for its kind: pick.sh PROGRAMS CASE
set -u
case=$2
if [ -f "$case/golden.json" ]; then
    program=golden_case
elif [ -f "$case/preproc.json" ]; then
    program=preproc_case
elif [ -f "$case" ] || ls "$case"/*.json >/dev/null 2>&1; then
    program=tokenizer_case
else
    program=golden_case # which says what is missing
fi
exec "$1/$program" "$case"
