#!/usr/bin/env bash
# Every suite that means something on a device, in one go: run.sh BUILD [DEVICE [SUITE...]], from the
# root of the tree. BUILD (build/release) holds the programs and lib/libmmq-cuda.so, as `make
# check-gpu` or `make gpu-programs` made them, here or elsewhere; libraries that lie in BUILD/needed
# (gpu-programs puts them there) are used before the system's. DEVICE: cuda:0 without it.
#
# SUITE: ops, pack, suites, time, golden, model, bench, figures (by hand, see figures.sh); without, all
# but the last. Each writes BUILD/gpu/NAME.log and closes with one line, "SUMMARY NAME: ..."; nothing
# ends the run, and the exit status tells whether a suite failed.
set -u
build=$1 device=${2:-cuda:0}
shift $(($# < 2 ? $# : 2))
wanted=${*:-ops pack suites golden model time bench}
logs=$build/gpu
status=0
mkdir -p "$logs"
# shellcheck source=test/gpu/libraries.sh
. "$(dirname "$0")/libraries.sh"

suite() { # suite NAME COMMAND...: its log, the lines that matter, and its summary
    local name=$1 begin=$SECONDS rc
    shift
    "$@" >"$logs/$name.log" 2>&1 </dev/null
    rc=$?
    grep -aE '^(BAD|FAIL|SKIPPED)|:[FE]:|DOES NOT HOLD|: holds$|bound$|ERROR SUMMARY' "$logs/$name.log" |
        cut -c1-300 | head -n 60
    echo "SUMMARY $name: $([ $rc -eq 0 ] && echo ok || echo "FAILED, status $rc"), $((SECONDS - begin)) s," \
        "$(grep -aE '^[0-9]+%: Checks|passed, [0-9]+ failed' "$logs/$name.log" | tr '\n' ' ')"
    [ $rc -eq 0 ] || status=1
}

wants() { # wants NAME
    case " $wanted " in *" $1 "*) return 0 ;; *) return 1 ;; esac
}

nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2>/dev/null
wants ops && suite ops "$build/test/ops/test_device"
if wants pack; then
    suite pack "$build/test/ops/test_pack_rows"
    grep -a 'million weights' "$logs/pack.log"
fi
if wants suites; then
    for name in rows matmul attention; do
        suite "suite-$name" "$build/test/ops/test_$name"
    done
fi
if wants golden; then
    for case in $(golden_cases); do
        suite "golden-$(basename "$case")" "$build/test/golden/golden_case" --device "$device" "$case"
    done
fi
if wants model; then
    for name in cuda_library cuda_model split device; do
        [ -x "$build/test/model/test_$name" ] && suite "model-$name" "$build/test/model/test_$name"
    done
fi
if wants time; then
    for mode in exact fast; do
        suite "time-$mode" env TEST_MODE=$mode CK_FORK=no "$build/test/ops/test_ops" --time
        cat "$logs/time-$mode.log"
    done
fi
# bench SHAPE FORMAT LEAST_DECODE LEAST_PREFILL: fractions of what the device reaches
bench() {
    local log=$logs/bench-$1-$2.log decode prefill
    suite "bench-$1-$2" "$build/examples/mmq-bench" --random "$1" --format "$2" --device "$device" \
        --prompt 2048 --no-vision --json
    decode=$(sed -n 's/.*"fraction_of_read_bandwidth": \([-+.e0-9]*\).*/\1/p' "$log")
    prefill=$(sed -n 's/.*"fraction_of_product_rate": \([-+.e0-9]*\).*/\1/p' "$log")
    echo "BENCH $1 $2: decoding ${decode:-?} of the read rate (least $3), 2048 rows ${prefill:-?} of cuBLASLt's bf16 rate (least $4)"
}
if wants bench && "$build/examples/mmq-bench" --help 2>/dev/null | grep -q -- --device; then
    bench llava-8b nf4 0.30 0.25
    bench llava-8b int4 0.30 0.25
    bench llava-8b int8 0.42 0
    bench qwen2-vl-2b nf4 0.15 0
    bench qwen2-vl-2b int4 0.15 0
    bench llava-8b bf16 0 0
fi
if wants figures; then
    "$(dirname "$0")/figures.sh" "$build" "$device" || status=1
fi
exit $status
