#!/usr/bin/env bash
# C files are laid out as .clang-format says: layout.sh FILE...   (`make format` does it)
# Releases of clang-format differ in small things; the tree is laid out by release 14.
set -u
format=${CLANG_FORMAT:-clang-format}
if ! command -v "$format" >/dev/null; then
    echo "no $format: ./setup installs it"
    exit 1
fi
release=$("$format" --version | sed -n 's/.*version \([0-9]*\)\..*/\1/p')
if [ "$release" != 14 ]; then
    echo "SKIPPED: layout: clang-format is of release $release, not 14"
    exit 0
fi
[ $# -eq 0 ] || "$format" --style=file --dry-run -Werror "$@"
