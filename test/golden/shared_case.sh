#!/usr/bin/env bash
# Compare with a case that is no part of the repository: shared_case.sh PROGRAM CASE
set -u
if [ ! -d "$2" ]; then
    echo "SKIPPED: $2 is absent"
    exit 0
fi
exec "$1" "$2"
