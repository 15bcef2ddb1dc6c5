#!/usr/bin/env bash
# The packing kernels' work on the host against the formats' own packing: pack_host.sh BUILD.
set -eu
build=$1
cxx=${CXX:-c++}

if ! command -v "$cxx" >/dev/null; then
    echo "SKIPPED: there is no C++ compiler"
    exit 0
fi
mkdir -p "$build/test/cuda"
# shellcheck disable=SC2086 # SANITIZE is options
"$cxx" -x c++ -std=c++17 -Wall -Wextra -Werror -O2 -ffp-contract=off ${SANITIZE:-} -Isrc -I. -Iinclude \
    -o "$build/test/cuda/pack_host" test/cuda/pack_host.cu -x none "$build/libmmq.a"
"$build/test/cuda/pack_host"
