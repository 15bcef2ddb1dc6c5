#!/usr/bin/env bash
# Build without a picture format, into a folder of its own, and run suites there; both formats in
# turn: no_decoders.sh MAKE CONFIG SUITE...
set -u
make=$1 config=$2
shift 2
status=0
for format in PNG JPEG; do
    build=build/no-${format,,}
    echo "==== MMQ_NO_$format=1"
    runs=() names=()
    for suite in "$@"; do
        runs+=("run/$build/test/$suite")
        names+=("${suite//\//.}")
    done
    # shellcheck disable=SC2086 # $make may bring options
    $make --no-print-directory B="$build" config="$config" "MMQ_NO_$format=1" "${runs[@]}" ||
        status=1
    if nm -u "$build/libmmq.a" | grep -i " \(${format/JPEG/tj}\)_\?[a-z]" | grep -iv mmqi; then
        echo "FAIL: the library still calls a $format library"
        status=1
    fi
    test/tools/sum_up.sh "$build/results" "${names[@]}" || status=1
done
exit $status
