#!/usr/bin/env bash
# Install into an empty root, build a program against it from outside the tree through pkg-config,
# shared and static, let it describe the golden case's picture, have C++ and Python do the same, and
# uninstall: run.sh CONFIG
# Reads CC, CXX, MAKE and SANITIZE (the flags that a sanitized library asks of its programs).
set -u
config=$1
make=${MAKE:-make}
cc=${CC:-cc}
tree=$PWD
stage=$tree/build/$config/stage
case=$tree/test/golden/llava_tiny
prefix=/usr/local
lib=$stage$prefix/lib
sanitize=${SANITIZE:-}
case $cc in # the compiler of C++ that goes with it
*clang*) cxx=${CXX:-${cc/clang/clang++}} ;;
*) cxx=${CXX:-c++} ;;
esac
status=0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

try() { # try PROMISE COMMAND...
    local promise=$1 text
    shift
    if text=$("$@" 2>&1); then
        echo "PASS: $promise"
    else
        printf 'FAIL: %s\n%s\n' "$promise" "$text"
        status=1
    fi
}
call_make() {
    # shellcheck disable=SC2086 # $make may bring options
    $make --no-print-directory config="$config" DESTDIR="$stage" PREFIX="$prefix" "$@"
}
config_of() { # what pkg-config says about the installed copy, moved to where it lies
    PKG_CONFIG_PATH=$lib/pkgconfig pkg-config --define-variable=prefix="$stage$prefix" "$@" libmmq
}

# ---- the files
rm -rf "$stage"
try 'make install' call_make install
names() { (cd "$stage" && find . -name '*mmq*' ! -type d | sed 's|^\./usr/local/||' | LC_ALL=C sort); }
has_files() {
    for file in include/mmq.h lib/libmmq.a lib/libmmq.so lib/libmmq.so.0 lib/libmmq.so.0.1.0 \
        lib/pkgconfig/libmmq.pc share/doc/libmmq/LICENSE; do
        [ -e "$stage$prefix/$file" ] || { echo "no $file among"; names; return 1; }
    done
}
try 'header, libraries, links, pkg-config file and licence are there' has_files
no_machine_paths() { ! grep -rn -e "$tree" -e "$stage" "$lib/pkgconfig/libmmq.pc"; }
try 'the pkg-config file names no folder of the build' no_machine_paths
soname() { readelf -d "$lib/libmmq.so" | grep -F 'SONAME' | grep -qF '[libmmq.so.0]'; }
try 'the SONAME is libmmq.so.0' soname
version() { [ "$(config_of --modversion)" = "$(sed -n 's/^VERSION := //p' Makefile)" ]; }
try 'pkg-config tells the version' version

# ---- programs outside the tree
cp "$tree/test/install/describe.c" "$tree/examples/cpp/describe.cpp" \
    "$tree/examples/python/describe.py" "$work/" && cd "$work" || exit 1
build_shared() {
    # shellcheck disable=SC2046,SC2086 # flags are words
    $cc -std=c11 -Wall -Wextra -pedantic -Werror $sanitize -o shared describe.c \
        $(config_of --cflags --libs)
}
# The archive and what it needs; the rest of the system stays shared, as most programs have it.
build_static() {
    # shellcheck disable=SC2046,SC2086
    $cc -std=c11 -Wall -Wextra -pedantic -Werror $sanitize -o static describe.c \
        $(config_of --static --cflags --libs | sed 's/-lmmq\b/-l:libmmq.a/')
}
build_all_static() {
    # shellcheck disable=SC2046
    $cc -std=c11 -Wall -Wextra -pedantic -Werror -static -o all-static describe.c \
        $(config_of --static --cflags --libs)
}
build_cpp() {
    # shellcheck disable=SC2046,SC2086
    $cxx -std=c++17 -Wall -Wextra -pedantic -Werror $sanitize -o cpp describe.cpp \
        $(config_of --cflags --libs)
}
readme_program() { # the README's C program, as it stands there
    sed -n '/^```c$/,/^```$/{/^```/d;p}' "$tree/README.md" >readme.c && [ -s readme.c ] || return 1
    # shellcheck disable=SC2046,SC2086
    $cc -std=c11 -Wall -Wextra -pedantic -Werror $sanitize -o readme readme.c \
        $(config_of --cflags --libs)
}
expected() { # the first prompt's text, picture or answer in golden.json
    "${PYTHON:-python3}" - "$case/golden.json" "$1" <<'END'
import json, sys
prompt = json.load(open(sys.argv[1], encoding="utf-8"))["prompts"][0]
picture = prompt["images"][0]["file"]
print({"prompt": prompt["rendered"], "picture": picture, "text": prompt["text_skip_special"]}[sys.argv[2]])
END
}
describes() { # describes PROGRAM: it says what transformers says
    local said wanted
    said=$(LD_LIBRARY_PATH=$lib "$@" "$case/model" "$case/$(expected picture)" "$(expected prompt)" 16) ||
        return 1
    wanted=$(expected text)
    [ "$said" = "$wanted" ] || { printf "said    '%s'\nwanted  '%s'\n" "$said" "$wanted"; return 1; }
}
needs_no_libmmq() { ! readelf -d "$1" | grep -F NEEDED | grep -F mmq; }

try 'a program builds against the shared library' build_shared
try 'it describes the picture as transformers does' describes ./shared
try "the README's program builds" readme_program
if command -v "${cxx%% *}" >/dev/null; then
    try 'a C++ program builds' build_cpp
    try 'it describes the picture as transformers does, from C++' describes ./cpp
else
    echo "SKIPPED: a C++ program builds: no $cxx"
fi
if [ -z "$sanitize" ]; then
    try 'a Python script describes the picture, through ctypes' \
        describes "${PYTHON:-python3}" describe.py
else
    echo 'SKIPPED: a Python script describes the picture: the interpreter is not sanitized'
fi
try 'a program builds against the archive' build_static
try 'it does not need the shared library' needs_no_libmmq ./static
try 'it describes the picture as transformers does, from the archive' describes ./static
if [ -z "$sanitize" ]; then
    try 'a program builds with -static' build_all_static
    try 'it describes the picture as transformers does, all static' describes ./all-static
else
    echo 'SKIPPED: a program builds with -static: sanitizers are shared libraries'
fi
installed_programs() {
    for program in "$stage$prefix"/bin/mmq-*; do
        [ ! -e "$program" ] || ! ldd "$program" | grep -F 'libmmq.so.0' | grep -vF "$stage" || return 1
    done
}
try 'installed programs find the installed library' installed_programs

# ---- and away
cd "$tree" || exit 1
echo 'a neighbour' >"$lib/neighbour"
try 'make uninstall' call_make uninstall
nothing_left() {
    local left
    left=$(find "$stage" ! -type d; find "$stage" -name '*mmq*' -type d)
    [ "$left" = "$lib/neighbour" ] || { echo "left: $left"; return 1; }
}
try 'nothing is left but what others put there' nothing_left
exit $status
