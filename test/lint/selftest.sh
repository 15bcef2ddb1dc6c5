#!/usr/bin/env bash
# A check that finds nothing may be broken: each gets one clean input and one with a planted fault.
set -u
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=${PYTHON:-python3}
cc=${CC:-cc}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
status=0

accepts() { # accepts PROMISE COMMAND...
    local promise=$1 text
    shift
    if text=$("$@" 2>&1); then
        echo "PASS: accepts $promise"
    else
        printf 'FAIL: accepts %s\n%s\n' "$promise" "$text"
        status=1
    fi
}
finds() { # finds PROMISE TEXT COMMAND...: it fails, and says TEXT
    local promise=$1 words=$2 text
    shift 2
    if text=$("$@" 2>&1); then
        echo "FAIL: finds $promise: exit status 0"
        status=1
    elif [[ $text != *"$words"* ]]; then
        printf "FAIL: finds %s: no '%s' in\n%s\n" "$promise" "$words" "$text"
        status=1
    else
        echo "PASS: finds $promise"
    fi
}

# ---- include law
mkdir -p src/{core,io,image,text,quant,backend,graph,cpu/x86,model,runtime,api}
touch src/core/mem.h src/io/json.h src/image/image.h src/text/chat.h src/quant/format.h \
    src/quant/plan.h src/backend/ops.h src/graph/graph.h src/cpu/cpu.h src/model/model.h
law() { "$python" "$here/include_law.py" .; }
plant() { # plant FILE LINE: the fault is gone after the check
    printf '%s\n' "$2" >"$1"
}
plant src/core/os_posix.c '#include <pthread.h>'
plant src/io/json.c '#include "core/mem.h"'
plant src/cpu/x86/dot_avx2.c '#include "cpu/cpu.h"'
plant src/graph/plan.c '#include "quant/format.h"'
plant src/quant/apply.c '#include "model/model.h"'
plant src/cpu/norm.c '#include "cpu.h"'
accepts 'includes of lower folders and of the own one' law
plant src/io/bad.c '#include "image/image.h"'
finds 'an include of a later folder' 'io may not include image' law
plant src/io/bad.c '  #  include <sys/mman.h>'
finds 'a system call header outside core/os_*' '<sys/mman.h> belongs in core/os_*.c' law
plant src/io/bad.c '#include "nowhere.h"'
finds 'an include of no file' '"nowhere.h" is no file' law
rm src/io/bad.c
plant src/text/bad.c '#include "image/image.h"'
finds 'two neighbours that know each other' 'text may not include image' law
rm src/text/bad.c
plant src/cpu/bad.c '#include "quant/plan.h"'
finds 'quantization reached from a backend' 'cpu may not include quant' law
rm src/cpu/bad.c
plant src/quant/format_nf4.c '#include "quant/plan.h"'
finds 'a format that reaches the rest of quant' 'quant formats may not include quant' law
rm src/quant/format_nf4.c
mkdir -p cuda
plant cuda/bad.cu '#include "cpu/cpu.h"'
finds 'one backend reached from another' 'cuda may not include cpu' law
rm cuda/bad.cu
mkdir src/misc && touch src/misc/x.c
finds 'a folder outside the law' 'no place in the include law' law
rm -r src/misc

# ---- symbols
build() { # build MAP: tiny libraries from lib.c
    "$cc" -fPIC -fvisibility=hidden -c lib.c -o lib.o &&
        "$cc" -shared -o libmmq.so lib.o -Wl,--version-script,"$1" && rm -f libmmq.a &&
        ar rcs libmmq.a lib.o
}
cat >header.h <<'END'
#define MMQ_API __attribute__((visibility("default")))
/* mmq_in_a_comment(); */
MMQ_API int mmq_one(void);
MMQ_API const char *
mmq_two(int (*callback)(void *user), void *user);
END
printf 'MMQ_0 {\nglobal:\n    mmq_one;\n    mmq_two;\nlocal:\n    *;\n};\n' >good.map
printf 'MMQ_0 {\nglobal:\n    mmq_one;\n    mmq_two;\n    mmq_old;\nlocal:\n    *;\n};\n' >more.map
code() {
    printf '#include "header.h"\n#include <stdio.h>\n#include <stdlib.h>\n%s\n' "$1" >lib.c
    printf 'int mmq_one(void) { return %s; }\n' "${2-1}" >>lib.c
    printf 'const char *mmq_two(int (*c)(void *), void *u) { return c(u) ? "a" : "b"; }\n' >>lib.c
}
symbols() { "$python" "$here/symbols.py" header.h "$1" .; }
code 'static const char *const names[] = {"a", "b"}; static __thread char message[9];' \
    'names[message[0]][0] + abs(-1)'
build good.map
accepts 'a library that shows its header' symbols good.map
finds 'a name in the map that the header lacks' 'more.map: mmq_old is not declared' symbols more.map
code 'MMQ_API int mmqi_inner(void); int mmqi_inner(void) { return 1; }'
build good.map
finds 'a shared function that is not hidden' 'libmmq.a: mmqi_inner is not declared' symbols good.map
for call in 'printf("%d", rand())' 'puts("x")' '(abort(), 1)' '(exit(1), 1)' 'fprintf(stderr, "x")' \
    'getenv("HOME") != NULL' 'fputc(1, stdout)'; do
    code '' "$call"
    build good.map
    finds "a call of $call" 'which the library may not' symbols good.map
done
code 'static int calls; static int seen = 1;' '++calls + ++seen'
build good.map
finds 'a mutable static' 'calls is writable data' symbols good.map
finds 'a mutable static with a value' 'seen is writable data' symbols good.map

# The CUDA backend's library, by a stand-in.
mkdir -p cuda
printf '{\nglobal:\n    mmqi_cuda_backend;\nlocal:\n    *;\n};\n' >cuda/libmmq-cuda.map
code ''
build good.map
backend() { # backend TEXT RESULT: compile one that holds TEXT and gives RESULT
    printf '#include <stdlib.h>\n%s\nint mmqi_cuda_backend(void) { return %s; }\n' "$1" "$2" >lib.c
    "$cc" -fPIC -shared -o libmmq-cuda.so lib.c -Wl,--version-script,"${3-cuda/libmmq-cuda.map}"
}
backend 'static const int table[] = {1, 2};' 'table[abs(-1)]'
accepts 'a backend that shows its one function' symbols good.map
printf '{\nglobal:\n    mmqi_cuda_*;\nlocal:\n    *;\n};\n' >wide.map
backend 'int mmqi_cuda_other(void) { return 1; }' 1 wide.map
finds 'a backend that shows more' 'mmqi_cuda_other is not declared' symbols good.map
backend 'extern int mmqi_inner(void);' 'mmqi_inner()'
finds 'a backend that needs libmmq' 'takes mmqi_inner' symbols good.map
backend 'static int calls;' '++calls'
finds 'a mutable static of a backend' 'calls is writable data' symbols good.map
"$cc" -fPIC -shared -o libother.so.1 lib.c -Wl,-soname,libother.so.1
"$cc" -fPIC -shared -o libmmq-cuda.so lib.c -Wl,--no-as-needed ./libother.so.1 \
    -Wl,--version-script,cuda/libmmq-cuda.map
finds 'a library that a backend may not need' 'needs libother.so.1' symbols good.map
rm libmmq-cuda.so

# ---- lengths
lengths() { "$python" "$here/lengths.py" src/long.c; }
body() {
    printf 'int f(int a,\n      int b)\n{\n'
    for _ in $(seq "$1"); do echo '    a += b;'; done
    printf '}\n'
}
body 60 >src/long.c
accepts 'a function of 60 lines' lengths
body 61 >src/long.c
finds 'a function of 61 lines' 'f() has 61 lines' lengths
printf '/* %*s */\n' 95 '' >src/long.c
finds 'a line of 101 columns' '101 columns' lengths
seq 1001 >src/long.c
finds 'a file of 1,001 lines' '1001 lines' lengths

# ---- words
words() { "$here/words.sh" src/word.c; }
echo 'int network; /* /usr/share/work/x, the path of any machine; mmqi_assert() */' >src/word.c
accepts 'ordinary words' words
echo '/* TODO later */' >src/word.c
finds 'work left open' 'left open' words
echo '<<<<<<< HEAD' >src/word.c
finds 'a merge that was not ended' 'mark of a merge' words
echo 'open("/home/me/x");' >src/word.c
finds 'a path of one machine' 'path of one machine' words
echo 'ck_assert(1);' >src/word.c
finds 'an assertion of nothing' 'asserts nothing' words
echo 'x = strtod(text, NULL);' >src/word.c
finds 'a number read by the locale' 'depends on the locale' words
echo 'snprintf(a, 9, "x %.9g", b);' >src/word.c
finds 'a number written by the locale' 'depends on the locale' words
echo 'snprintf(a, 9, "{%.9g}", b);' >src/word.c
finds 'a number in braces written by the locale' 'depends on the locale' words
echo 'x = "{%- for m in messages -%}{% endfor %}";' >src/word.c
accepts 'tags of a template' words

# ---- documentation
documented() { "$python" "$here/documented.py" header.h test.c; }
cat >header.h <<'END'
/* One. */
MMQ_API int mmq_one(void);

MMQ_API int mmq_two(void); /* two */

/* A pair. */
MMQ_API int mmq_three(int a,
                      int b);
MMQ_API int mmq_four(void);
END
echo 'mmq_one(); mmq_two(); mmq_three(); mmq_four();' >test.c
accepts 'a header whose functions are described and tested' documented
echo 'mmq_one(); mmq_two(); mmq_three();' >test.c
finds 'a function without a test' 'mmq_four() is named in no test' documented
printf '\nMMQ_API int mmq_five(void);\n' >>header.h
echo 'mmq_one(); mmq_two(); mmq_three(); mmq_four(); mmq_five();' >test.c
finds 'a function without a comment' 'mmq_five() has no comment' documented

# ---- layout
if "${CLANG_FORMAT:-clang-format}" --version 2>/dev/null | grep -q 'version 14\.'; then
    cp "$here/../../.clang-format" .
    printf 'int f(void)\n{\n    return 1;\n}\n' >src/word.c
    accepts 'a file laid out' "$here/layout.sh" src/word.c
    printf 'int f(void) {\n  return 1; }\n' >src/word.c
    finds 'a file not laid out' 'code should be clang-formatted' "$here/layout.sh" src/word.c
else
    echo 'SKIPPED: layout: no clang-format of release 14'
fi

# ---- the sum that `make check` closes with
sum_up() { "$here/../tools/sum_up.sh" results "$@"; }
suite() { # suite NAME STATUS TEXT
    mkdir -p results && printf '%b\n' "$3" >"results/$1.log" && echo "$2" >"results/$1.rc"
}
suite good 0 '100%: Checks: 5, Failures: 0, Errors: 0\nSKIPPED: no data'
suite script 0 'PASS: one\nPASS: two\nSKIPPED: three'
suite program 0 'any text'
accepts 'suites that passed' sum_up good script program
sums_to() { sum_up "${@:2}" | tail -n 1 | grep -qxF "$1"; }
accepts 'a sum over all kinds of suites' sums_to '7 passed, 0 failed, 2 skipped' good script program
suite bad 1 '60%: Checks: 5, Failures: 1, Errors: 1'
suite worse 1 'PASS: one\nFAIL: two'
suite crashed 134 ''
finds 'a suite that failed, among others' 'failed: bad (2)' sum_up good bad script
finds 'a script that failed' 'failed: worse (1)' sum_up worse
finds 'a suite that crashed' 'failed: crashed (1)' sum_up crashed
finds 'a suite that left no result' 'failed: absent (1)' sum_up good absent
finds 'all of them' '4 passed, 2 failed, 1 skipped' sum_up absent good crashed
exit $status
