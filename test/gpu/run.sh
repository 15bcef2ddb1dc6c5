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
    for name in rows matmul attention together; do
        suite "suite-$name" "$build/test/ops/test_$name"
    done
fi
if wants golden; then
    for case in $(golden_cases); do
        suite "golden-$(basename "$case")" "$build/test/golden/golden_case" --device "$device" "$case"
    done
fi
if wants model; then
    for name in cuda_library cuda_model split steps device; do
        [ -x "$build/test/model/test_$name" ] && suite "model-$name" "$build/test/model/test_$name"
    done
fi
if wants time; then
    for mode in exact fast; do
        suite "time-$mode" env TEST_MODE=$mode CK_FORK=no "$build/test/ops/test_ops" --time
        cat "$logs/time-$mode.log"
    done
fi
bench() { # bench SHAPE FORMAT PROMPT: what test/gpu/table.py reads
    suite "bench-$1-$2" "$build/examples/mmq-bench" --random "$1" --format "$2" --device "$device" \
        --prompt "$3" --no-vision
    cat "$logs/bench-$1-$2.log"
}
if wants bench; then
    for format in nf4 int4 int8 bf16; do
        bench llava-8b $format 2048
    done
    for format in nf4 int4; do
        bench qwen2-vl-2b $format 1000
    done
fi
if wants figures; then
    "$(dirname "$0")/figures.sh" "$build" "$device" || status=1
fi
exit $status
