#!/usr/bin/env python3
"""How far two implementations answer alike: compare_answers.py A B

A and B are files of answers, one JSON object a line in the order of the questions, as `mmq-eval
--answers FILE` writes them: "answer" is the true one, "given" the one that was given, "kind" says
how it is scored. Prints how many given answers are equal but for blanks at the ends, and both
mean scores, over all and by kind; each score is computed here from the texts. Exit status 1 when
the files are not of the same questions.
"""
import collections
import json
import sys

BLANKS = "".join(map(chr, [*range(9, 14), *range(28, 32), 32]))


def score(kind, truth, given):
    """Exact match without blanks at the ends; F1 of the items of a description."""
    truth, given = truth.strip(BLANKS), given.strip(BLANKS)
    if kind != "describe":
        return float(truth == given)
    if not truth or not given:
        return float(truth == given)
    a, b = truth.split(", "), given.split(", ")
    equal = sum((collections.Counter(a) & collections.Counter(b)).values())
    return 2 * equal / (len(a) + len(b))


def read(path):
    with open(path, encoding="utf-8", newline="\n") as file:
        return [json.loads(line) for line in file]


def row(name, values):
    n, equal, a, b = values
    print(f"{name:22} {n:9} {100 * equal / n:9.2f} {100 * a / n:9.2f} {100 * b / n:9.2f}")


def main(arguments):
    if len(arguments) != 2:
        sys.exit(__doc__)
    first, second = map(read, arguments)
    if len(first) != len(second):
        sys.exit(f"{len(first)} and {len(second)} answers")
    kinds = collections.defaultdict(lambda: [0, 0, 0.0, 0.0])
    for line, (a, b) in enumerate(zip(first, second), 1):
        for key in ("images", "question", "answer", "kind"):
            if a[key] != b[key]:
                sys.exit(f"line {line}: '{key}' differs")
        equal = a["given"].strip(BLANKS) == b["given"].strip(BLANKS)
        scores = [score(x["kind"], x["answer"], x["given"]) for x in (a, b)]
        for name in (a["kind"], None):
            kinds[name] = [x + y for x, y in zip(kinds[name], [1, equal, *scores])]
    print(f"{'kind':22} {'questions':>9} {'equal, %':>9} {'first, %':>9} {'second, %':>9}")
    total = kinds.pop(None, None)
    for name, values in kinds.items():
        row(name, values)
    if total:
        row("all", total)


if __name__ == "__main__":
    main(sys.argv[1:])
