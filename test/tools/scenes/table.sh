#!/usr/bin/env bash
# Print what each format costs the model of examples/models/scenes: the table of its README.md.
#   table.sh BUILD DATA [FORMAT...]
# BUILD holds examples/mmq-quantize and examples/mmq-eval; DATA is a folder with questions.jsonl:
# examples/models/scenes/sample, or the held-out set that make_data.py writes.
set -euo pipefail
export LC_ALL=C
bin=$1/examples data=$2
shift 2
model=$(dirname "$0")/../../../examples/models/scenes
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
formats=("$@")
[ ${#formats[@]} != 0 ] || formats=(int8 nf4 int4)

# field FILE KEY: the number after "KEY" where it first stands.
field() {
    sed -n "s/.*\"$2\": \([-+.e0-9]*\).*/\1/p" "$1" | sed -n 1p
}

# row NAME FOLDER JSON: a line of the table; without a candidate there is no divergence.
row() {
    local bytes kl
    bytes=$(cat "$2"/*.safetensors | wc -c)
    kl=$(field "$3" mean_kl)
    awk -v f="$1" -v b="$bytes" -v e="$(field "$3" exact_match)" -v k="${kl:-0}" \
        'BEGIN { printf "| %s | %d | %.1f %% | %.4f |\n", f, b, 100 * e, k }'
}

printf '| format | bytes of weights | score | mean KL |\n|---|---:|---:|---:|\n'
"$bin/mmq-eval" "$model" --data "$data" --json >"$work/bf16.json"
row bf16 "$model" "$work/bf16.json"
for format in "${formats[@]}"; do
    "$bin/mmq-quantize" "$model" "$work/$format" --format "$format" >"$work/log"
    "$bin/mmq-eval" "$model" "$work/$format" --data "$data" --json >"$work/$format.json"
    row "$format" "$work/$format" "$work/$format.json"
    rm -rf "${work:?}/$format"
done
