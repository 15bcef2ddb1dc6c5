#!/usr/bin/env python3
"""The include law: a file of src/ (and cuda/) includes only what stands before it.

  include_law.py [ROOT]      checks ROOT (default: the current folder), exit status 1 on a violation

Ranks are below, lowest first; files of one row may include each other. Headers of operating-system
calls belong in src/core/os_*.c alone.
"""
import os
import re
import sys

# (what a path under src/ looks like, the row's name); the first match counts.
ROWS = [
    (r"core/", "core"),
    (r"io/", "io"),
    (r"image/", "image"),
    (r"text/", "text"),
    (r"quant/(format|stored)[^/]*$", "quant formats"),
    (r"(backend|graph)/", "graph"),
    (r"cpu/", "cpu"),
    (r"cuda/", "cuda"),
    (r"model/", "model"),
    (r"runtime/", "runtime"),
    (r"quant/", "quant"),
    (r"api/", "api"),
]
NAMES = [name for _, name in ROWS]
STRANGERS = {("text", "image"), ("cuda", "cpu")}  # neighbours that may not know each other

OS_HEADERS = re.compile(
    r"^(pthread|unistd|fcntl|dirent|dlfcn|time|signal|sched|threads|locale|xlocale|poll|termios"
    r"|glob|fnmatch|ftw|pwd|syslog|spawn|semaphore|windows|io)\.h$|^(sys|linux|mach|arpa|netinet)/"
)
INCLUDE = re.compile(r'^\s*#\s*include\s*(["<])([^">]+)[">]')


def row_of(path):
    for i, (pattern, _) in enumerate(ROWS):
        if re.match(pattern, path):
            return i
    return None


def check_include(path, row, quote, name, known):
    """What is wrong with `name` in `path` (relative to src/), or None."""
    if quote == "<":
        if OS_HEADERS.match(name) and not re.match(r"core/os_[^/]*\.c$", path):
            return f"<{name}> belongs in core/os_*.c"
        return None
    if name == "mmq.h":
        return None
    target = os.path.normpath(os.path.join(os.path.dirname(path), name))
    if target not in known:
        target = name
    if target not in known:
        return f'"{name}" is no file of the tree'
    other = row_of(target)
    if other > row or (NAMES[row], NAMES[other]) in STRANGERS:
        return f'{NAMES[row]} may not include {NAMES[other]}: "{name}"'
    return None


def sources(root):
    """Paths relative to src/, with where they lie; cuda/ stands beside src/ and counts as a row."""
    found = {}
    for base, prefix in (("src", ""), ("cuda", "cuda/")):
        top = os.path.join(root, base)
        for folder, _, files in os.walk(top):
            for file in files:
                if file.endswith((".c", ".h", ".cu", ".cuh", ".inc")):
                    full = os.path.join(folder, file)
                    found[prefix + os.path.relpath(full, top)] = full
    return found


def check(root):
    known = sources(root)
    faults = []
    for path, full in sorted(known.items()):
        row = row_of(path)
        if row is None:
            faults.append(f"{full}:1: the folder has no place in the include law")
            continue
        with open(full, encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                found = INCLUDE.match(line)
                fault = found and check_include(path, row, *found.groups(), known)
                if fault:
                    faults.append(f"{full}:{number}: {fault}")
    return faults


def main():
    faults = check(sys.argv[1] if len(sys.argv) > 1 else ".")
    print("\n".join(faults), end="\n" if faults else "")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
