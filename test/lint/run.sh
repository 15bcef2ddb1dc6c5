#!/usr/bin/env bash
# Every rule of the house that a script can check: run.sh BUILD, from the root of the tree.
# Goes on after a fault; the exit status tells whether there was one.
set -u
build=$1
here=test/lint
python=${PYTHON:-python3}
status=0

check() { # check NAME COMMAND...
    local name=$1 text
    shift
    if text=$("$@" 2>&1); then
        echo "lint: $name: ok${text:+ ($text)}"
    else
        printf 'lint: %s:\n%s\n' "$name" "$text"
        status=1
    fi
}

# A checkout asks git; an unpacked archive has nothing but its own files, and what was built.
if git rev-parse --is-inside-work-tree >/dev/null 2>&1; then
    mapfile -t all < <(git ls-files -co --exclude-standard | while read -r f; do [ -f "$f" ] && echo "$f"; done)
else
    mapfile -t all < <(find . -type f -not -path './build/*' -not -path './lib/*' | sed 's|^\./||')
fi
c_files=() tests=() text=()
for file in "${all[@]}"; do
    case $file in
    *.c | *.h | *.cu | *.cuh) c_files+=("$file") ;;
    esac
    case $file in
    test/golden/*/*) ;;
    *) text+=("$file") ;;
    esac
    case $file in
    test/*.c | test/*.h) tests+=("$file") ;;
    esac
done

check 'include law' "$python" $here/include_law.py .
check 'symbols' "$python" $here/symbols.py include/mmq.h src/libmmq.map "$build/lib"
check 'layout' $here/layout.sh "${c_files[@]}"
check 'lengths' "$python" $here/lengths.py "${c_files[@]}"
check 'words' $here/words.sh "${text[@]}"
check 'documentation' "$python" $here/documented.py include/mmq.h "${tests[@]}"
exit $status
