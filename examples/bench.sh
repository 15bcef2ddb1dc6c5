#!/usr/bin/env bash
# Time one shape in several formats, and PyTorch's product on the same shapes in turn:
#   examples/bench.sh BUILD [SHAPE [FORMAT...]]
# PYTHON names an interpreter; the peer is left out where it has no torch. More options for
# mmq-bench stand in BENCH, e.g. BENCH='--repeat 5 --no-vision'.
set -euo pipefail
build=$1 shape=${2:-llava-1b}
shift $(($# < 2 ? $# : 2))
formats=("$@")
[ "${#formats[@]}" -gt 0 ] || formats=(bf16 int8 nf4 int4)
python=${PYTHON:-python3}
figures=$build/bench
mkdir -p "$figures"
peer=
if "$python" -c 'import torch' 2>/dev/null; then
    peer=1
else
    echo "bench: $python has no torch: no peer" >&2
fi
for format in "${formats[@]}"; do
    file=$figures/$shape-$format.json
    # shellcheck disable=SC2086 # options are words
    "$build/examples/mmq-bench" --random "$shape" --format "$format" --json ${BENCH:-} >"$file.new"
    mv "$file.new" "$file"
    echo "== $shape $format"
    "$python" - "$file" <<'END'
import json, sys
f = json.load(open(sys.argv[1], encoding="utf-8"))
print(f"device     {f['device']}, {f['mode']} mode")
print(f"memory     read {f['read_bytes_per_second'] * 1e-9:.2f} GB/s, copy {f['copy_bytes_per_second'] * 1e-9:.2f} GB/s")
print(f"prefill    {f['prefill_rows']:.0f} rows: {f['prefill_tokens_per_second']:.1f} tokens/s, {f['prefill_flop_per_second'] * 1e-9:.1f} GFLOP/s")
print(f"decode     {f['decode_tokens']:.0f} tokens: {f['decode_tokens_per_second']:.2f} tokens/s, "
      f"{f['weight_bytes_per_token'] * 1e-6:.1f} MB each, {f['fraction_of_read_bandwidth'] * 100:.1f} % of the read bandwidth")
print(f"pictures   {f['pictures_per_second']:.3f} a second")
END
    [ -z "$peer" ] || "$python" test/tools/peer_prefill.py "$file"
done
