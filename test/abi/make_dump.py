#!/usr/bin/env python3
"""Write a C program that prints what the ABI of the public header is:

  make_dump.py HEADER >dump.c

Printed: every numeric constant, every struct's size and its fields' offsets and sizes, and the
declaration of every function and callback. The numbers come from the compiler, the names from here.
"""
import re
import sys


def strip_comments(text):
    return re.sub(r"/\*.*?\*/|//[^\n]*", " ", text, flags=re.S)


def constants(text):
    for name, value in re.findall(r"^[ \t]*#[ \t]*define[ \t]+(MMQ_\w+)[ \t]+(\S.*)$", text, flags=re.M):
        if re.match(r"^\(?-?\s*[\w()<| ]+\)?$", value) and not value.startswith("__"):
            yield name


def structs(text):
    """(name, fields, callbacks) of each struct that is defined; callbacks are (field, declaration)."""
    for name, body in re.findall(r"typedef\s+struct\s+\w+\s*\{(.*?)\}\s*(\w+)\s*;", text, flags=re.S):
        name, body = body, name
        fields, callbacks = [], []
        for declaration in body.split(";"):
            callback = re.search(r"\(\s*\*\s*(\w+)\s*\)\s*\(", declaration)
            if callback:  # its parameters are no fields
                fields.append(callback[1])
                callbacks.append((callback[1], re.sub(r"\s+", " ", declaration).strip()))
                continue
            for part in declaration.split(","):
                found = re.search(r"(\w+)\s*(\[[^\]]*\]\s*)*$", part.strip())
                if found:
                    fields.append(found[1])
        yield name, fields, callbacks


def declarations(text):
    """Functions and callbacks, one to a line, blanks evened out."""
    text = re.sub(r"^[ \t]*#.*$", "", text, flags=re.M)
    for piece in re.findall(r"\bMMQ_API\b[^;{]*;|\btypedef\b[^;{]*;", text):
        piece = re.sub(r"\s+", " ", piece).replace("( ", "(").strip()
        yield piece.replace("MMQ_API ", "")


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        text = strip_comments(file.read())
    print('#include <stdio.h>\n#include "mmq.h"\n\nint main(void)\n{')
    for name in constants(text):
        print(f'    printf("constant {name} %lld\\n", (long long)({name}));')
    for name, fields, callbacks in structs(text):
        print(f'    printf("struct {name} size %zu\\n", sizeof({name}));')
        for field in fields:
            print(f'    printf("    {name}.{field} at %zu size %zu\\n", offsetof({name}, {field}),')
            print(f"           sizeof((({name} *)0)->{field}));")
        for field, declaration in callbacks:
            print(f'    puts("    {name}.{field} is {declaration}");')
    for line in declarations(text):
        print(f'    puts("{line}");')
    print("    return 0;\n}")


if __name__ == "__main__":
    main()
