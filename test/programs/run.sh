#!/usr/bin/env bash
# The example programs as a shell meets them: exit statuses, what goes where, and arguments that are
# missing, unknown or out of range: run.sh BUILD
set -u
bin=$1/examples
case=test/golden/llava_tiny
scenes=examples/models/scenes
model=$case/model
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
status=0

# expect PROMISE STATUS STDOUT STDERR COMMAND...: patterns of all that is written; '' is nothing
expect() {
    local promise=$1 wanted=$2 out=$3 err=$4 got
    shift 4
    "$@" >"$work/out" 2>"$work/err" </dev/null
    got=$?
    # shellcheck disable=SC2053 # patterns
    if [ $got -eq "$wanted" ] && [[ $(cat "$work/out") == $out ]] && [[ $(cat "$work/err") == $err ]]
    then
        echo "PASS: $promise"
    else
        printf 'FAIL: %s: exit status %s, not %s\n' "$promise" $got "$wanted"
        head -c 600 "$work/out" "$work/err"
        status=1
    fi
}
describe=("$bin/mmq-describe" "$model" "$case/images/rings.jpg")

for program in describe quantize inspect eval bench; do
    expect "mmq-$program --help is on stdout" 0 "usage: mmq-$program*" '' "$bin/mmq-$program" --help
    expect "mmq-$program without arguments tells its usage" 2 '' "usage: mmq-$program*" \
        "$bin/mmq-$program"
    expect "mmq-$program refuses an unknown option" 2 '' "*no such option: '--colour'*" \
        "$bin/mmq-$program" a --colour
done
for option in -p --max-tokens --temperature --seed --threads --isa; do
    expect "mmq-describe $option needs a value" 2 '' "*missing after '$option'*" \
        "${describe[@]}" $option
done
for value in -1 4294967297 2147483648 1e3 7x '' 99999999999999999999; do
    expect "mmq-describe --max-tokens '$value' is refused" 2 '' "*'$value'*" \
        "${describe[@]}" --max-tokens "$value"
    expect "mmq-inspect --context '$value' is refused" 2 '' "*'$value'*" \
        "$bin/mmq-inspect" "$model" --context "$value"
done
for value in -0.5 nan 1e99 hot; do
    expect "mmq-describe --temperature '$value' is refused" 2 '' "*'$value'*" \
        "${describe[@]}" --temperature "$value"
done
expect 'mmq-describe refuses an infinite temperature' 1 '' 'mmq-describe: *temperature*' \
    "${describe[@]}" --temperature inf
expect 'mmq-eval --threads is refused out of range' 2 '' "*'2147483648'*" \
    "$bin/mmq-eval" "$model" --data "$work" --threads 2147483648
expect 'mmq-quantize takes two folders' 2 '' "*one argument too many: 'c'*" \
    "$bin/mmq-quantize" a b c --format nf4
expect 'mmq-quantize needs a format' 2 '' 'usage*' "$bin/mmq-quantize" "$model" "$work/new"

shown='number 42, medium red hexagon, small hollow grey moon, word NABVW'
expect "the repository's model says what its picture shows, also in nf4" 0 "$shown"$'\n'"$shown" \
    'demo: *' examples/demo.sh "$1"
expect "the repository's model answers the questions of its sample" 0 '*"exact_match": 0.9[5-9]*' '' \
    "$bin/mmq-eval" "$scenes" --data "$scenes/sample" --json
expect 'it does not where it sees grey pictures' 0 '*"exact_match": 0.[0-3]*' '' \
    "$bin/mmq-eval" "$scenes" --data "$scenes/sample" --json --grey
expect 'an answer is on stdout alone' 0 '?*' '' "${describe[@]}" --max-tokens 4
expect 'words after -- are no options' 1 '' 'mmq-describe: --help: *' \
    "$bin/mmq-describe" -- "$model" --help
expect 'mmq-describe --json is one object' 0 '{"text": "*}' '' "${describe[@]}" --max-tokens 4 --json
expect 'mmq-describe --memory tells estimate, count and process on stderr' 0 '?*' \
    'memory: estimate * = weights *memory: taken *memory: process *' "${describe[@]}" --max-tokens 4 --memory
expect 'a model that is not there is told' 1 '' 'mmq-describe: no/such: *' \
    "$bin/mmq-describe" no/such "$case/images/rings.jpg"
expect 'a picture that is not there is told' 1 '' 'mmq-describe: no.jpg: *' \
    "$bin/mmq-describe" "$model" no.jpg
expect 'mmq-describe takes a device map and a mode' 0 '*"mode": "exact", "device": "cpu *' '' \
    "${describe[@]}" --device '* = cpu' --mode exact --max-tokens 4 --json
expect 'a device that is not there is told' 1 '' "mmq-describe: device 'tpu': *" \
    "${describe[@]}" --device tpu
expect 'a device map is told line and column' 1 '' 'mmq-describe: device map, line 1, column 10: *' \
    "${describe[@]}" --device '* = cpu; audio.* = cpu'
expect 'limits by device are kept' 1 '' 'mmq-describe: weights and session: needs *the limit of 1024 *' \
    "${describe[@]}" --device cpu --memory-limits 'cpu = 1KiB'
expect 'a memory limit is kept' 1 '' 'mmq-describe: weights and session: needs *' \
    "${describe[@]}" --memory-limit 1000
expect 'mmq-inspect lists tensors' 0 '*language.head*' '' "$bin/mmq-inspect" "$model"
expect 'mmq-quantize makes a folder that is read again' 0 '' '' \
    "$bin/mmq-quantize" "$model" "$work/int8" --format int8
expect 'mmq-inspect reads it' 0 '*"int8"*' '' "$bin/mmq-inspect" "$work/int8" --json
expect 'mmq-quantize leaves what exists alone' 1 '' 'mmq-quantize: *exists*' \
    "$bin/mmq-quantize" "$model" "$work/int8" --format int8
expect 'an unknown format is told' 1 '' "mmq-quantize: *'int3'*" \
    "$bin/mmq-quantize" "$model" "$work/int3" --format int3
printf 'vision.* = nf4 # the tower\r\n\n*.mlp.* = int8 search\n' >"$work/rules"
printf 'vision.* = nf4\nlanguage.towers.* = int8\n' >"$work/wrong"
expect 'mmq-quantize --plan tells and makes nothing' 0 '*vision*nf4*tensors change*' '' \
    "$bin/mmq-quantize" "$model" --policy 'vision.* = nf4' --plan
expect 'mmq-quantize takes rules from a file' 0 '*"search"*' '' \
    "$bin/mmq-quantize" "$model" "$work/ruled" --policy "$work/rules" --json
expect 'mmq-inspect shows what rules would do' 0 '*int8*search*tensors change*' '' \
    "$bin/mmq-inspect" "$model" --policy "$work/rules"
cp -r test/golden/llava_orig_tiny/model "$work/alone"
tower=test/golden/llava_orig_tiny/clip-tiny
expect 'a model without its tower names the option' 1 '' "mmq-inspect: *'clip-tiny'*vision_path*" \
    "$bin/mmq-inspect" "$work/alone"
expect 'mmq-inspect finds the tower by --vision-path' 0 '*vision.patch*' '' \
    "$bin/mmq-inspect" "$work/alone" --vision-path "$tower"
expect 'mmq-quantize saves a tower that lay apart' 0 '*' '' \
    "$bin/mmq-quantize" "$work/alone" "$work/joined" --format int8 --vision-path "$tower"
expect 'what was saved needs the option no more' 0 '?*' '' \
    "$bin/mmq-describe" "$work/joined" "$case/images/rings.jpg" --max-tokens 4
expect 'a rule that matches nothing is told by line and column' 1 '' \
    "mmq-inspect: *line 2, column 1*language.towers*" \
    "$bin/mmq-inspect" "$model" --policy "$work/wrong"
mkdir "$work/here" "$work/here/nf4"
# shellcheck disable=SC2016 # the inner shell expands
expect 'a folder named as a format is not in its way' 0 '*nf4*tensors change*' '' \
    bash -c 'cd "$1" && "$2" "$3" --policy nf4' - "$work/here" \
    "$(realpath "$bin/mmq-inspect")" "$PWD/$model"
expect 'mmq-eval tells that a folder holds neither questions nor a record' 1 '' \
    'mmq-eval: *neither record.json nor questions.jsonl' "$bin/mmq-eval" "$model" --data "$work"
quiz=$work/quiz
mkdir "$quiz"
cp "$case"/images/rings.jpg "$case"/images/steps.png "$quiz"
cat >"$quiz/questions.jsonl" <<'END'
{"images": ["rings.jpg"], "question": "How many rings?", "answer": "3", "kind": "count"}
{"images": ["rings.jpg"], "question": "What is there?", "answer": "a, b", "kind": "describe"}
{"images": ["steps.png", "rings.jpg"], "question": "Which is larger?", "answer": "x", "kind": "\"q\""}
END
eval=("$bin/mmq-eval" "$model" --data "$quiz" --max-tokens 4)
expect 'mmq-eval answers questions, by kind' 0 '*3 questions, *count *1 *describe *1 *all *3 *' '' \
    "${eval[@]}"
expect 'mmq-eval --limit takes the first questions' 0 '*2 questions, *all *2 *' '' \
    "${eval[@]}" --limit 2
expect 'mmq-eval --grey says so' 0 '*3 questions about grey pictures, *' '' "${eval[@]}" --grey
expect 'mmq-eval compares a candidate at the true answers' 0 \
    '*"exact_match": 0,*"mean_kl": *"kl_p99": *"top1_agreement": *"tokens": *' '' \
    "$bin/mmq-eval" "$model" "$work/int8" --data "$quiz" --max-tokens 4 --json
expect 'mmq-eval writes the answers given' 0 '*all *' '' "${eval[@]}" --answers "$work/answers"
expect 'compare_answers.py finds a file of answers equal to itself' 0 \
    '*count * 1 *100.00*describe * 1 *100.00*"q" * 1 *100.00*all * 3 *100.00*' '' \
    "${PYTHON:-python3}" test/tools/compare_answers.py "$work/answers" "$work/answers"
sed -i 's/"given": "[^"]*/"given": " b, a, c /' "$work/answers"
expect 'compare_answers.py scores a description by its items' 0 '*describe * 80.00 *80.00*' '' \
    "${PYTHON:-python3}" test/tools/compare_answers.py "$work/answers" "$work/answers"
expect 'mmq-eval needs a number of tokens' 2 '' "*'many'*" "${eval[@]}" --max-tokens many
sed -i '2s/"kind"/"sort"/' "$quiz/questions.jsonl"
expect 'a bad question is told by file and line' 1 '' \
    "mmq-eval: $quiz/questions.jsonl:2: 'kind' is missing" "${eval[@]}"
mv "$quiz/questions.jsonl" "$work/questions"
cp "$work/questions" "$quiz/record.json"
expect 'mmq-eval has no answers of a record' 2 '' 'mmq-eval: *not for a record' "${eval[@]}" --grey
mv "$work/questions" "$quiz/questions.jsonl"
expect 'mmq-eval tells that a folder holds both questions and a record' 1 '' \
    'mmq-eval: *both record.json and questions.jsonl' "${eval[@]}"

bench=("$bin/mmq-bench" --random llava-tiny --prompt 40 --decode 4 --buffer 8 --repeat 1)
expect 'mmq-bench tells memory, prefill, decoding and pictures' 0 \
    'llava-tiny on cpu *memory *prefill    40 rows*decode     4 tokens*% of the read*pictures *' '' \
    "${bench[@]}" --format int4
expect 'mmq-bench takes as many rows as fit where none are given' 0 '*prefill    4?? rows*' '' \
    "$bin/mmq-bench" --random llava-tiny --buffer 8 --repeat 1
expect 'mmq-bench --csv is a line of names and one of figures' 0 \
    $'model,device,*pictures_per_second\n"llava-tiny",*' '' "${bench[@]}" --csv
expect 'mmq-bench runs a Qwen2-VL of random weights' 0 '*decode     3 tokens*pictures*' '' \
    "$bin/mmq-bench" --random qwen2-vl-tiny --format int4 --prompt 20 --decode 3 --buffer 8 --repeat 1
expect 'mmq-bench takes a device and refuses a mode that it lacks' 1 '' "mmq-bench: session: mode 'fast'*" \
    "${bench[@]}" --device cpu --mode fast
expect 'mmq-bench runs a folder' 0 "*prefill    3? rows*" '' \
    "$bin/mmq-bench" "$model" --prompt 36 --decode 2 --buffer 8 --repeat 1 --no-vision
expect 'mmq-bench tells the shapes that there are' 2 '' '*llava-1b*' "$bin/mmq-bench" --random llava-2b
expect 'mmq-bench refuses no tries' 2 '' 'usage: *' "${bench[@]}" --repeat 0

rm "$quiz/record.json"
sed -i '2s/"sort"/"kind"/' "$quiz/questions.jsonl"
json_is_valid() { "${PYTHON:-python3}" -m json.tool >/dev/null; }
for command in "${describe[*]} --max-tokens 4 --json" "$bin/mmq-inspect $model --json" \
    "$bin/mmq-quantize $model $work/nf4 --format nf4 --json" "${bench[*]} --json" \
    "${eval[*]} --json" "$bin/mmq-eval $model $model --data $quiz --json"; do
    if $command 2>/dev/null | json_is_valid; then
        echo "PASS: JSON of $(basename "${command%% *}")"
    else
        echo "FAIL: JSON of $(basename "${command%% *}")"
        status=1
    fi
done
if [ -w /dev/full ]; then
    # shellcheck disable=SC2016 # the inner shell expands
    full() { expect "$1 fails where stdout is full" 1 '' '*stdout cannot be written*' \
        bash -c '"$@" >/dev/full' - "${@:2}"; }
    full mmq-describe "${describe[@]}" --max-tokens 4
    full 'mmq-describe --json' "${describe[@]}" --max-tokens 4 --json
    full mmq-inspect "$bin/mmq-inspect" "$model"
    full mmq-quantize "$bin/mmq-quantize" "$model" "$work/full" --format nf4 --json
else
    echo 'SKIPPED: a full stdout: there is no /dev/full'
fi
exit $status
