#!/usr/bin/env bash
# Describe one photograph with a real model, first in 16 bit, then quantized layer by layer to nf4:
#   examples/demo.sh BUILD MODELS [IMAGE]
# MODELS holds llava-flickr (packed) and llava-flickr-eval; the model is unpacked once into
# build/models. Descriptions go to stdout, everything else to stderr.
set -euo pipefail
bin=$1/examples models=$2 image=${3-}
source=$models/llava-flickr
model=build/models/llava-flickr
prompt='Describe the picture.'

say() { printf '%s\n' "$*" >&2; }

unpack() {
    [ ! -d "$model" ] || return 0
    if [ ! -d "$source" ]; then
        say "demo: no model: $source is absent"
        exit 1
    fi
    say "demo: unpacking $source into $model"
    rm -rf "$model.part" && mkdir -p build/models
    cp -r "$source" "$model.part" && chmod -R u+w "$model.part"
    xz -d "$model.part/model.safetensors.xz"
    mv "$model.part" "$model"
}

unpack
if [ -z "$image" ]; then
    image=$(find "$models/llava-flickr-eval/images" -name '*.jpg' | LC_ALL=C sort | sed -n 1p)
fi
say "demo: $image"
say 'demo: 16 bit:'
"$bin/mmq-describe" "$model" "$image" -p "$prompt"
rm -rf "$model-nf4"
"$bin/mmq-quantize" "$model" "$model-nf4" --format nf4
say 'demo: nf4:'
"$bin/mmq-describe" "$model-nf4" "$image" -p "$prompt"
