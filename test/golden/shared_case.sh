#!/usr/bin/env bash
# Compare with cases that are no part of the repository: shared_case.sh PROGRAM CASE...
set -u
if [ ! -e "$2" ]; then
    echo "SKIPPED: $2 is absent"
    exit 0
fi
exec "$@"
