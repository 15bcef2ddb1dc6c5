#!/usr/bin/env bash
# Describe one picture with the repository's model, first in 16 bit, then quantized layer by layer to
# nf4: demo.sh BUILD [IMAGE]. Descriptions go to stdout, everything else to stderr.
set -euo pipefail
bin=$1/examples
model=$(dirname "$0")/models/scenes
image=${2:-$model/sample/0021.jpg}
prompt='Describe the picture.'
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

say() { printf '%s\n' "$*" >&2; }

say "demo: $image"
say 'demo: 16 bit:'
"$bin/mmq-describe" "$model" "$image" -p "$prompt"
"$bin/mmq-quantize" "$model" "$work/nf4" --format nf4 >&2
say 'demo: nf4:'
"$bin/mmq-describe" "$work/nf4" "$image" -p "$prompt"
