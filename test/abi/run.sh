#!/usr/bin/env bash
# The binary interface of include/mmq.h: run.sh WORK [--record]
# It compiles as C99, C11 and C++17 without a warning, and is what abi.txt says it was: a line may be
# added to abi.txt (--record does it), but a line that changes or goes breaks programs already built.
set -u
work=$1
header=include/mmq.h
cc=${CC:-cc}
status=0
mkdir -p "$work" || exit 1

try() { # try PROMISE COMMAND...
    local promise=$1 text
    shift
    if text=$("$@" 2>&1); then
        echo "PASS: $promise"
    else
        printf 'FAIL: %s\n%s\n' "$promise" "$text"
        status=1
    fi
}

strict=(-Wall -Wextra -pedantic -Wstrict-prototypes -Werror -Iinclude -fsyntax-only)
printf '#include "mmq.h"\nint dummy;\n' >"$work/include.c"
cp "$work/include.c" "$work/include.cc"
try 'the header is C99' "$cc" -std=c99 "${strict[@]}" "$work/include.c"
try 'the header is C11' "$cc" -std=c11 "${strict[@]}" "$work/include.c"
cxx=${CXX:-c++}
if command -v "$cxx" >/dev/null; then
    try 'the header is C++17' "$cxx" -std=c++17 "${strict[@]/-Wstrict-prototypes/-Wshadow}" "$work/include.cc"
else
    echo 'SKIPPED: the header is C++17: no C++ compiler'
fi

# An ABI file holds for machines whose pointers and sizes take 8 bytes.
dump() {
    "${PYTHON:-python3}" test/abi/make_dump.py $header >"$work/dump.c" &&
        "$cc" -std=gnu11 -Iinclude -o "$work/dump" "$work/dump.c" && "$work/dump" >"$work/abi.txt"
}
if ! dump; then
    echo 'FAIL: the header can be measured'
    exit 1
fi
if [ "${2-}" = --record ]; then
    cp "$work/abi.txt" test/abi/abi.txt
    exit
fi
same() { diff -u test/abi/abi.txt "$work/abi.txt"; }
if [ "$(getconf LONG_BIT)" = 64 ]; then
    try 'constants, structs and functions are those of abi.txt' same
else
    echo 'SKIPPED: the layout: abi.txt is for 64-bit machines'
fi
exit $status
