#!/usr/bin/env bash
# C files are laid out as .clang-format says: layout.sh FILE...   (`make format` does it)
set -u
if ! command -v "${CLANG_FORMAT:-clang-format}" >/dev/null; then
    echo "no ${CLANG_FORMAT:-clang-format}: ./setup installs it"
    exit 1
fi
[ $# -eq 0 ] || "${CLANG_FORMAT:-clang-format}" --style=file --dry-run -Werror "$@"
