#!/usr/bin/env bash
# What the CUDA backend must show beside its suites, in one run: figures.sh BUILD [DEVICE [FIGURE...]],
# from the root of the tree or of a bundle (make gpu-bundle), which has BUILD, test/ and models/.
#
# FIGURE: ops golden kl quiz splits captions packed sanitizer; all without. Jobs run side by side,
# for at most TIME seconds (165) in all, and each prints lines "FIGURE name: what was found: holds",
# or "FAILS", which is the exit status too. A job that found no end says so. Logs: BUILD/gpu/figures.
#
# MODELS (models) holds, each if wanted: real, a LLaVA, its weights xz-packed or not; real-eval, its record.json and images/, and
# captions.jsonl, a question for each picture; scenes, a Qwen2-VL; held, questions.jsonl for it and
# its pictures. CAPTIONS (500) pictures are captioned, every STEPth (2) call fails once.
set -u
export LC_ALL=C
build=$1 device=${2:-cuda:0}
shift $(($# < 2 ? $# : 2))
wanted=${*:-ops golden kl quiz splits captions packed sanitizer}
models=${MODELS:-models} bin=$build/examples logs=$build/gpu/figures
deadline=$((SECONDS + ${TIME:-165}))
here=$(dirname "$0")
formats=(bf16 int8 nf4 fp4 int4)
# shellcheck source=test/gpu/libraries.sh
. "$here/libraries.sh"
rm -rf "$logs"
mkdir -p "$logs"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# within SECONDS COMMAND...: and not beyond the end of all.
within() {
    local most=$1 left=$((deadline - SECONDS))
    shift
    [ $left -gt 1 ] || return 124
    timeout -k 5 $((most < left ? most : left)) "$@" </dev/null
}

# figure NAME STATUS TEXT: the line; a status of 0 holds.
figure() {
    echo "FIGURE $1: $3: $([ "$2" = 0 ] && echo holds || echo FAILS)" >>"$logs/figures.txt"
}

# field FILE KEY: the number after "KEY" where it first stands in JSON.
field() {
    sed -n "s/.*\"$2\": \([-+.e0-9]*\).*/\1/p" "$1" | sed -n 1p
}

# check EXPRESSION of awk: exit status 0 where it is true.
check() {
    awk "BEGIN { exit !($1) }" </dev/null
}


has() { # has WHAT PATH: or a line that it is skipped
    [ -e "$2" ] && return 0
    echo "FIGURE $1: SKIPPED: $2 is absent" >>"$logs/figures.txt"
    return 1
}

# The folder of the real model, once its weights are unpacked.
unpack_real() {
    local packed=$models/real/model.safetensors.xz plain=$work/real/model.safetensors
    mkdir "$work/real"
    for file in "$models"/real/*; do
        [ "$file" = "$packed" ] || ln -s "$(cd "$models/real" && pwd)/${file##*/}" "$work/real/"
    done
    if [ -f "$packed" ]; then
        xz -dc "$packed" >"$plain" 2>/dev/null || python3 -c 'import lzma, shutil, sys
shutil.copyfileobj(lzma.open(sys.argv[1]), open(sys.argv[2], "wb"), 1 << 20)' "$packed" "$plain"
    fi
    : >"$work/real-is-here"
}

wait_for_real() {
    while [ -d "$models/real" ] && [ ! -e "$work/real-is-here" ]; do
        sleep 0.2
    done
}

# ---- the jobs ----------------------------------------------------------------------------------

ops() {
    within 160 "$build/test/ops/test_device" >"$logs/ops.log" 2>&1
    local rc=$?
    while read -r line; do
        figure ops "$(case $line in *" 0 bad"*) echo 0 ;; *) echo 1 ;; esac)" "$line"
    done < <(grep -a 'of the bound$' "$logs/ops.log" | tr -s ' ')
    figure ops $rc "all of them, $(grep -ac '^BAD' "$logs/ops.log") faults, status $rc"
}

golden_case() { # golden_case FOLDER
    local log rc text
    log=$logs/golden-$(basename "$1").log
    within 120 "$build/test/golden/golden_case" --device "$device" "$1" >"$log" 2>&1
    rc=$?
    text=$(grep -a 'greedy' "$log" | tail -n 1 | sed 's/: holds$//')
    figure golden $rc "${text:-$1: status $rc}"
}

golden() {
    local case
    for case in $(golden_cases); do
        golden_case "$case" &
    done
    wait
}

# divergence NAME MODEL DATA [OPTION...]
divergence() {
    local name=$1 model=$2 data=$3 kl begin=$SECONDS
    shift 3
    has "kl of $name" "$model" && has "kl of $name" "$data" || return
    within 160 "$bin/mmq-eval" "$model" "$model" --data "$data" --device "$device" --mode fast \
        --reference-device cpu --reference-mode exact --json "$@" \
        >"$logs/kl-$name.json" 2>"$logs/kl-$name.log"
    kl=$(field "$logs/kl-$name.json" mean_kl)
    check "${kl:-1} + 0 <= 5e-4 && \"$kl\" != \"\""
    figure "kl of $name" $? "fast on $device against exact on the CPU: mean ${kl:-not found}, at most 0.0005 ($((SECONDS - begin)) s)"
}

kl() {
    divergence scenes "$models/scenes" "$models/held" --threads 2 &
    wait_for_real
    divergence real "$work/real" "$models/real-eval" --limit 100 --threads 4 &
    wait
}

# quiz_format FORMAT: the accuracy on the CPU and on the device; of bf16 in both modes.
quiz_format() {
    local format=$1 model=$models/scenes side one=0 cpu fast exact
    if [ "$format" != bf16 ]; then
        model=$work/scenes-$format
        "$bin/mmq-quantize" "$models/scenes" "$model" --format "$format" >"$logs/quiz-$format.log" 2>&1
    fi
    within 160 "$bin/mmq-eval" "$model" --data "$models/held" --device cpu --threads 1 --json \
        >"$logs/quiz-$format-cpu.json" 2>>"$logs/quiz-$format.log" &
    for side in fast exact; do
        [ "$format-$side" = bf16-exact ] || [ $side = fast ] || continue
        within 160 "$bin/mmq-eval" "$model" --data "$models/held" --device "$device" --mode $side \
            --threads 1 --json >"$logs/quiz-$format-$side.json" 2>>"$logs/quiz-$format.log"
    done
    wait
    cpu=$(field "$logs/quiz-$format-cpu.json" exact_match)
    fast=$(field "$logs/quiz-$format-fast.json" exact_match)
    exact=$(field "$logs/quiz-$format-exact.json" exact_match 2>/dev/null)
    check "\"$cpu\" != \"\" && \"$fast\" != \"\" && (${fast:-0} - ${cpu:-9}) ^ 2 <= 0.003 ^ 2 + 1e-12"
    one=$?
    figure "quiz $format" $one "accuracy ${cpu:-not found} on the CPU, ${fast:-not found} fast${exact:+ and $exact exact} on $device, within 0.003"
}

quiz() {
    local format
    has quiz "$models/scenes" && has quiz "$models/held" || return
    for format in "${formats[@]}"; do
        quiz_format "$format" &
    done
    wait
}

splits() {
    local rc
    [ -d "$models/scenes/sample" ] && export TEST_SCENES=$PWD/$models/scenes
    TEST_STEP=${STEP:-2} within 160 "$build/test/model/test_cuda_model" >"$logs/model.log" 2>&1
    rc=$?
    grep -aE '^(FIGURE|SKIPPED)' "$logs/model.log" | sed 's/^SKIPPED/FIGURE model: SKIPPED/' >>"$logs/figures.txt"
    grep -a ':[FE]:' "$logs/model.log" | cut -c1-400 | sed 's/^/FIGURE model: /; s/$/: FAILS/' >>"$logs/figures.txt"
    figure model $rc "splits, bytes and faults of whole models: $(grep -a 'Checks:' "$logs/model.log")"
    within 60 "$build/test/model/test_cuda_library" >"$logs/library.log" 2>&1
    figure library $? "opened or refused: $(grep -a 'Checks:' "$logs/library.log")"
}

# answers FOLDER DEVICE: to the folder's questions, in exact mode, beside them.
answers() {
    within 160 "$bin/mmq-eval" "$work/real" --data "$1" --device "$2" --mode exact --threads 2 \
        --max-tokens 40 --answers "$1/${2%:*}.jsonl" --json >>"$logs/captions.log" 2>&1
}

# In parts, so that the CPU's processors are kept busy.
captions() {
    local part n=${CAPTIONS:-500} parts=6 same=0 total=0
    has captions "$models/real" && has captions "$models/real-eval/captions.jsonl" || return
    wait_for_real
    head -n "$n" "$models/real-eval/captions.jsonl" |
        split -d -a 1 -n r/$parts - "$work/captions-"
    for part in $(seq 0 $((parts - 1))); do
        mkdir "$work/part-$part"
        mv "$work/captions-$part" "$work/part-$part/questions.jsonl"
        ln -s "$(cd "$models/real-eval/images" && pwd)" "$work/part-$part/images"
        answers "$work/part-$part" cpu &
    done
    for part in $(seq 0 $((parts - 1))); do
        answers "$work/part-$part" "$device"
    done
    wait
    for part in $(seq 0 $((parts - 1))); do
        { [ -f "$work/part-$part/cpu.jsonl" ] && [ -f "$work/part-$part/${device%:*}.jsonl" ]; } || continue
        total=$((total + $(wc -l <"$work/part-$part/questions.jsonl")))
        same=$((same + $(paste -d '\n' "$work/part-$part/cpu.jsonl" "$work/part-$part/${device%:*}.jsonl" |
            awk 'NR % 2 { a = $0; next } a == $0 && a != "" { n++ } END { print n + 0 }')))
    done
    check "$total == $n && $same >= 0.99 * $total"
    figure captions $? "$same of $total captions of the real model in exact mode are the CPU's, of $n, at least 99 %"
}

# pack_both FOLDER FORMAT METHOD: a line SAME or OTHER.
pack_both() {
    local name side
    name=$(basename "$(dirname "$1")")-$(basename "$1")-$2-$3
    for side in cpu "$device"; do
        within 60 "$bin/mmq-quantize" "$1" "$work/$name-${side%:*}" --format "$2" --method "$3" \
            --device "$side" >>"$logs/packed.log" 2>&1 || echo "$name: not packed on $side"
    done
    if diff -r "$work/$name-cpu" "$work/$name-${device%:*}" >>"$logs/packed.log" 2>&1; then
        echo "SAME $name"
    else
        echo "OTHER $name"
    fi
}

packed() {
    local model format method n=0
    for model in test/golden/llava_tiny/model "$models/scenes"; do
        has packed "$model" || continue
        for format in int8 nf4 nf4-nested fp4 fp4-nested int4; do
            for method in rtn search; do
                pack_both "$model" $format $method >>"$logs/packed.txt" &
                n=$((n + 1))
                [ $((n % 4)) -ne 0 ] || wait
            done
        done
    done
    wait
    [ "$(grep -c ^SAME "$logs/packed.txt")" -eq $n ] && [ $n -gt 0 ]
    figure packed $? "$(grep -c ^SAME "$logs/packed.txt") of $n folders have the bytes that the CPU packs$(grep -v ^SAME "$logs/packed.txt" | tr '\n' ' ' | cut -c1-200)"
}

# tool TOOL NAME COMMAND...
tool() {
    local tool=$1 name=$2 rc begin=$SECONDS
    shift 2
    within 120 "$sanitizer" --tool "$tool" --error-exitcode 9 "$@" >"$logs/sanitizer-$tool-$name.log" 2>&1
    rc=$?
    figure "sanitizer $tool $name" $rc "status $rc, $(grep -aE 'SUMMARY' "$logs/sanitizer-$tool-$name.log" | sed 's/=*//; s/^ *//' | tr '\n' ' ') $((SECONDS - begin)) s"
}

sanitizer() {
    local sanitizer tool
    sanitizer=$(command -v compute-sanitizer || find /usr/local/cuda*/bin /usr/local/cuda*/compute-sanitizer /opt -name compute-sanitizer 2>/dev/null | head -n 1)
    if [ -z "$sanitizer" ]; then
        echo "FIGURE sanitizer: SKIPPED: there is no compute-sanitizer" >>"$logs/figures.txt"
        return
    fi
    for tool in memcheck racecheck initcheck synccheck; do
        TEST_SMALL=1 CK_DEFAULT_TIMEOUT=600 tool $tool ops "$build/test/ops/test_device" &
        # initcheck does not see what cuBLASLt stores by the bulk engine: exact mode has none of it.
        tool $tool model "$bin/mmq-describe" test/golden/llava_tiny/model \
            test/golden/llava_tiny/images/rings.jpg --device "$device" --max-tokens 8 \
            --mode "$([ $tool = initcheck ] && echo exact || echo fast)" &
    done
    wait
}

# ---- all at once -------------------------------------------------------------------------------

nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader >"$logs/device.txt" 2>/dev/null
nvidia-smi -L 2>/dev/null
: >"$logs/figures.txt"
[ ! -d "$models/real" ] || unpack_real &
for job in $wanted; do
    "$job" >"$logs/job-$job.txt" 2>&1 &
done
wait
sort "$logs/figures.txt"
echo "FIGURES: $(grep -c ': holds$' "$logs/figures.txt") hold, $(grep -c ': FAILS$' "$logs/figures.txt") fail, $SECONDS s"
! grep -q ': FAILS$' "$logs/figures.txt"
