#!/usr/bin/env python3
"""Lengths of files, lines and functions:

  lengths.py FILE...

No C file has more than 1,000 lines, no line more than 100 columns, no function of the library or
of the programs more than 60 lines between its braces. A function begins where clang-format puts it:
"{" alone in column 0, "}" in column 0.
"""
import re
import sys

MAX_LINES, MAX_COLUMNS, MAX_BODY = 1000, 100, 60


def functions(lines):
    """(name, first line, lines between the braces) of each function."""
    begin = None
    for number, line in enumerate(lines, 1):
        if line.rstrip() == "{" and begin is None:
            begin = number
        elif begin is not None and line.startswith("}"):
            head = " ".join(lines[max(0, begin - 6) : begin - 1])
            names = re.findall(r"(\w+)\s*\(", head.split(";")[-1].split("}")[-1])
            yield (names[0] if names else "?"), begin, number - begin - 1
            begin = None


def check(path):
    with open(path, encoding="utf-8") as file:
        lines = file.read().splitlines()
    faults = []
    if len(lines) > MAX_LINES:
        faults.append(f"{path}:1: {len(lines)} lines, more than {MAX_LINES}")
    for number, line in enumerate(lines, 1):
        if len(line) > MAX_COLUMNS:
            faults.append(f"{path}:{number}: {len(line)} columns, more than {MAX_COLUMNS}")
    if not re.match(r"(.*/)?test/", path):
        for name, number, size in functions(lines):
            if size > MAX_BODY:
                faults.append(f"{path}:{number}: {name}() has {size} lines, more than {MAX_BODY}")
    return faults


def main():
    faults = [fault for path in sys.argv[1:] for fault in check(path)]
    print("\n".join(faults), end="\n" if faults else "")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
