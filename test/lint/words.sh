#!/usr/bin/env bash
# Words that may not stand in the tree: words.sh FILE...
# Work left open, marks of a merge, paths of one machine, and assertions that assert nothing.
set -u
status=0
deny() { # deny PATTERN REASON FILE...
    local pattern=$1 reason=$2
    shift 2
    # This folder spells the words it looks for.
    local found
    found=$(printf '%s\0' "$@" | grep -zv '^test/lint/' | xargs -0r grep -nHIE "$pattern" /dev/null)
    [ -z "$found" ] && return
    printf '%s\n' "$found" | sed "s/^/$reason: /"
    status=1
}
library=()
for file in "$@"; do
    case $file in
    */core/os_*) ;;
    src/* | */src/* | cuda/*) library+=("$file") ;;
    esac
done
deny '\b(TODO|FIXME|XXX|HACK)\b|not (yet )?implemented' 'left open' "$@"
deny '^(<{7}|>{7}|[|]{7}) ' 'mark of a merge' "$@"
deny '(^|[^A-Za-z0-9_.])/(work|root|home)/' 'path of one machine' "$@"
deny '\b(ck_)?assert(_msg)?\((1|true)\b' 'asserts nothing' "$@"
# In the library numbers are read and written by mmqi_os_parse_number and mmqi_os_print_number.
deny '\b(strto(d|f|ld)|atof|assert)[[:space:]]*\(' 'depends on the locale or aborts' "${library[@]}"
# "{% " and "{%- " open the tags of a chat template.
deny '"([^"]*[^"{])?%[-+ #0-9.*]*L?[aAeEfFgG][^"]*"' 'depends on the locale' "${library[@]}"
deny '\{%[+#0-9.*]*L?[aAeEfFgG]' 'depends on the locale' "${library[@]}"
exit $status
