# shellcheck shell=bash disable=SC2154
# Sourced: what run.sh and figures.sh share. $build and $device are set.
# Where the CUDA libraries may lie, beside what the system knows; BUILD/needed comes first.
for folder in "$PWD/$build/needed" /usr/local/cuda/lib64 \
    "$(find / -xdev -name libcublasLt.so.13 -printf '%h\n' -quit 2>/dev/null)" \
    "$(find / -xdev -name libcudart.so.13 -printf '%h\n' -quit 2>/dev/null)"; do
    [ -d "$folder" ] && LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$folder
done
export LD_LIBRARY_PATH=${LD_LIBRARY_PATH-}
export TEST_DEVICE=$device TEST_SOURCE_ROOT=$PWD TEST_CUDA_LIBRARY=$PWD/$build/lib/libmmq-cuda.so
export CK_TIMEOUT_MULTIPLIER=20 CK_DEFAULT_TIMEOUT=120

# The folders of the golden cases: the tree's, and those that test/golden/shared_cases names.
golden_cases() {
    local shared case
    for shared in shared ../shared ../../shared none; do
        [ ! -d "$shared/golden" ] || break
    done
    for case in test/golden/*/golden.json \
        $(sed "/^#/d; s|.*|$shared/golden/&/golden.json|" test/golden/shared_cases); do
        [ -f "$case" ] && dirname "$case"
    done
}
