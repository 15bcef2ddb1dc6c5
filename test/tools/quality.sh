#!/usr/bin/env bash
# Print docs/QUALITY.md: what each format, preset and method costs in quality on a real model.
#   quality.sh BUILD MODELS [LIMIT] [CANDIDATE...]
# MODELS holds llava-flickr (packed) and llava-flickr-eval; the model is unpacked once into
# build/models. A candidate is "FORMAT METHOD"; without any, all of the table below. Each is
# quantized, measured against the 16-bit model on the first LIMIT pictures (100), and taken away
# again; its figures stay in build/quality, so that a run that was ended goes on where it stopped.
set -euo pipefail
export LC_ALL=C
bin=$1/examples models=$2 limit=${3:-100}
shift $(($# < 3 ? $# : 3))
model=build/models/llava-flickr data=$models/llava-flickr-eval out=build/quality

candidates=("$@")
if [ ${#candidates[@]} = 0 ]; then
    for format in int8 nf4 nf4-32 nf4-128 nf4-nested nf4-32-nested nf4-128-nested fp4 fp4-32 \
        fp4-128 int4-g32 int4-g64 int4-g128 int4-g64-bf16 layered; do
        candidates+=("$format rtn" "$format search")
    done
fi

say() { printf 'quality: %s\n' "$*" >&2; }

# field FILE KEY: the number after "KEY" where it first stands.
field() {
    sed -n "s/.*\"$2\": \([-+.e0-9]*\).*/\1/p" "$1" | sed -n 1p
}

# measure FORMAT METHOD NAME: quantize and compare; leaves NAME.report and NAME.json in $out.
measure() {
    local folder=$out/$3.model
    if [ "$out/$3.json" -nt "$bin/../lib/libmmq.so.0" ]; then
        say "$1 $2: as measured before"
        return
    fi
    say "$1 $2"
    rm -rf "$folder"
    "$bin/mmq-quantize" "$model" "$folder" --format "$1" --method "$2" --json >"$out/$3.report"
    "$bin/mmq-eval" "$model" "$folder" --data "$data" --limit "$limit" --json >"$out/$3.json.part"
    rm -rf "$folder"
    mv "$out/$3.json.part" "$out/$3.json"
}

# row FORMAT METHOD BYTES MEAN P99 TOP1 LOSS
row() {
    awk -v f="$1" -v m="$2" -v b="$3" -v k="$4" -v p="$5" -v t="$6" -v l="$7" 'BEGIN {
        printf "| %s | %s | %.1f | %.4f | %.3f | %.2f | %.4f |\n", f, m, b / 1e6, k, p, 100 * t, l
    }'
}

"$(dirname "$0")/real_model.sh" "$models"
mkdir -p "$out"
first='' rows=''
for candidate in "${candidates[@]}"; do
    read -r format method <<<"$candidate"
    name=$format-$method-$limit
    measure "$format" "$method" "$name"
    first=${first:-$name}
    rows+=$(row "$format" "$method" "$(field "$out/$name.report" bytes)" \
        "$(field "$out/$name.json" mean_kl)" "$(field "$out/$name.json" kl_p99)" \
        "$(field "$out/$name.json" top1_agreement)" "$(field "$out/$name.json" caption_loss)")$'\n'
done

rows=${rows%$'\n'}
cat <<END
# What quantizing costs

Printed by \`make quality\`; the model is llava-flickr, the data the first $(field "$out/$first.json" pictures) pictures of
llava-flickr-eval ($(field "$out/$first.json" tokens) caption tokens). KL is that of the next-token distributions, reference (the
model in 16 bit) to candidate, in nats, after picture, prompt and the caption so far; top-1 says how
often both find the same token likeliest. Bytes are those of all weights, embedding, head and norms
among them, which these policies keep. Mode: exact.

| format | method | weights, MB | mean KL | KL, p99 | top-1, % | caption loss |
|---|---|---|---|---|---|---|
$(row '16 bit' - "$(field "$out/$first.report" source_bytes)" 0 0 1 "$(field "$out/$first.json" reference_caption_loss)")
$rows
END
