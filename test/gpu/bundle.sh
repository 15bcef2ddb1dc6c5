#!/usr/bin/env bash
# Copy what a machine needs that has a device and not this tree: bundle.sh BUILD DIR (make gpu-bundle).
#
# DIR becomes a tree from whose root test/gpu/run.sh and test/gpu/figures.sh run with the same BUILD.
# Models, each if given: REAL (a folder; its weights may be model.safetensors.xz), REAL_EVAL (its
# record.json and images/), SCENES, HELD (questions.jsonl and pictures); SHARED holds golden/.
# PART=45M: the tree as a tar.gz in such pieces beside it, DIR.parts/*, for machines that
# are reached through a narrow door: cat *.parts/* | tar xz.
set -euo pipefail
build=$1 out=$2
case $out in '' | / | . | ..) echo "bundle.sh: DIR is '$out'" >&2 && exit 2 ;; esac
rm -rf "$out" "$out.parts"
mkdir -p "$out/$build"/{examples,lib,needed,test/{ops,model,golden}} "$out/models"
for program in "$build"/examples/mmq-* "$build"/test/{ops,model,golden}/*; do
    case $program in *.d | *.o) continue ;; esac
    [ -f "$program" ] && [ -x "$program" ] && strip -o "$out/$program" "$program"
done
strip -o "$out/$build/lib/libmmq-cuda.so" "$build/lib/libmmq-cuda.so"
for file in "$build"/lib/libmmq.so*; do
    if [ -L "$file" ]; then cp -P "$file" "$out/$build/lib/"; else strip -o "$out/$file" "$file"; fi
done
cp -L "$build"/needed/* "$out/$build/needed/" 2>/dev/null || true
# The toolkit's own libraries are on a machine that has a device, and are large.
rm -f "$out/$build/needed"/libcu*
mkdir -p "$out/test/golden"
cp -r test/gpu "$out/test/"
cp -r test/golden/*/ test/golden/shared_cases "$out/test/golden/"
for case in $(sed '/^#/d' test/golden/shared_cases); do
    case=${SHARED:-../shared}/golden/$case
    [ -d "$case" ] || continue
    mkdir -p "$out/shared/golden"
    cp -r "$case" "$out/shared/golden/"
    mkdir -p "$out/shared/data/photos"
    grep -o '"photos/[^"]*"' "$case/golden.json" | tr -d '"' | sort -u | while read -r photo; do
        cp -n "${SHARED:-../shared}/data/$photo" "$out/shared/data/photos/"
    done
done
copy() { # copy FOLDER NAME
    [ -z "$1" ] || cp -rL "$1" "$out/models/$2"
}
copy "${REAL-}" real
copy "${REAL_EVAL-}" real-eval
copy "${SCENES-}" scenes
copy "${HELD-}" held
if [ -f "$out/models/real-eval/record.json" ]; then
    "${PYTHON:-python3}" - "$out/models/real-eval" <<'PYTHON'
import json, sys
folder = sys.argv[1]
with open(folder + "/captions.jsonl", "w") as out:
    for entry in json.load(open(folder + "/record.json")):
        out.write(json.dumps({"images": ["images/" + entry["file"]], "question": "Describe the picture.",
                              "answer": entry["greedy"], "kind": "caption"}) + "\n")
PYTHON
fi
chmod -R u+w "$out"
if [ -n "${PART-}" ]; then
    mkdir "$out.parts"
    tar czf - -C "$out" . | split -b "$PART" -d -a 1 - "$out.parts/part-"
    du -h "$out.parts"/*
fi
du -sh "$out"
