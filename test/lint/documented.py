#!/usr/bin/env python3
"""Every MMQ_API function of the header is described and tested:

  documented.py HEADER TEST_FILE...

Described: a comment stands above it or behind it on its line, or above an unbroken run of
declarations that it belongs to. Tested: its name stands in a test file.
"""
import re
import sys

COMMENT, DECLARATION, OTHER = "comment", "declaration", "other"


def pieces(text):
    """The header in order as (kind, text): comments, MMQ_API declarations, everything else."""
    pattern = re.compile(r"(?P<comment>/\*.*?\*/)|(?P<declaration>\bMMQ_API\b[^;#]*?;)|(?P<blank>\n[ \t]*(?=\n))", re.S)
    end = 0
    for found in pattern.finditer(text):
        if text[end : found.start()].strip():
            yield OTHER, text[end : found.start()]
        if found["blank"] is not None:
            yield OTHER, ""
        elif found["comment"]:
            trailing = "\n" not in text[text.rfind(";", 0, found.start()) + 1 : found.start()]
            yield (COMMENT + " behind" if trailing and found.start() else COMMENT), found[0]
        else:
            yield DECLARATION, found[0]
        end = found.end()


def undocumented(text):
    names, described = [], False
    for kind, piece in pieces(text):
        if kind == COMMENT:
            described = True
        elif kind == OTHER:
            described = False
        elif kind == DECLARATION:
            name = re.search(r"\b(mmq_\w+)\s*\(", piece)
            if name and not described:
                names.append(name[1])
        elif names and not described:
            names.pop()
    return names


def declared(text):
    return [n for kind, piece in pieces(text) if kind == DECLARATION for n in re.findall(r"\b(mmq_\w+)\s*\(", piece)[:1]]


def main():
    header, tests = sys.argv[1], sys.argv[2:]
    with open(header, encoding="utf-8") as file:
        text = file.read()
    words = set()
    for path in tests:
        with open(path, encoding="utf-8") as file:
            words |= set(re.findall(r"\bmmq_\w+", file.read()))
    faults = [f"{header}: {name}() has no comment" for name in undocumented(text)]
    faults += [f"{header}: {name}() is named in no test" for name in declared(text) if name not in words]
    print("\n".join(faults), end="\n" if faults else "")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
