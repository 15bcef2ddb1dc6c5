#!/usr/bin/env bash
# Unpack the real model of MODELS (../shared/models) once into build/models/llava-flickr, where tests
# and `make quality` look for it: real_model.sh MODELS
set -euo pipefail
source=$1/llava-flickr model=build/models/llava-flickr
[ ! -d "$model" ] || exit 0
if [ ! -d "$source" ]; then
    printf 'no model: %s is absent\n' "$source" >&2
    exit 1
fi
printf 'unpacking %s into %s\n' "$source" "$model" >&2
rm -rf "$model.part" && mkdir -p build/models
cp -r "$source" "$model.part" && chmod -R u+w "$model.part"
xz -d "$model.part/model.safetensors.xz"
mv "$model.part" "$model"
