#!/usr/bin/env python3
"""Write what run.sh and figures.sh logged into docs/CUDA.md: table.py LOGS [DOCUMENT].

LOGS is BUILD/gpu: device.txt, figures/figures.txt and bench-*.log, whichever there are. What stands
between the two marks of the document is replaced; what the logs lack is said to be not measured.
"""

import json
import pathlib
import re
import sys

BEGIN = "<!-- figures: printed by test/gpu/table.py from the logs of test/gpu/figures.sh and run.sh -->"
END = "<!-- end of figures -->"
# What decoding and prefill must reach and aim at: fractions of the rates of the same process.
BENCHES = [
    ("llava-8b", "nf4", 0.30, 0.60, 0.25, 0.75),
    ("llava-8b", "int4", 0.30, 0.60, 0.25, 0.75),
    ("llava-8b", "int8", 0.42, 0.75, None, None),
    ("llava-8b", "bf16", None, None, None, None),
    ("qwen2-vl-2b", "nf4", 0.15, 0.40, None, None),
    ("qwen2-vl-2b", "int4", 0.15, 0.40, None, None),
]


def read(path):
    return path.read_text(errors="replace") if path.is_file() else ""


def figures(logs):
    lines = sorted(set(read(logs / "figures" / "figures.txt").splitlines()))
    rows = ["| what | found | |", "|---|---|---|"]
    for line in lines:
        match = re.match(r"FIGURE ([^:]*): (.*?)(?:: (holds|FAILS))?$", line)
        if match:
            rows.append("| %s | %s | %s |" % tuple((g or "").replace("|", "/") for g in match.groups()))
    return rows if len(rows) > 2 else ["Not measured."]


def bounded(value, least, aim):
    text = "%.2f" % value
    if least is not None:
        text += " (least %.2f, aim %.2f)%s" % (least, aim, "" if value >= least else " FAILS")
    return text


def benches(logs):
    rows = ["| random weights | format | tokens/s | of the read rate | 2,048 rows, tokens/s | of cuBLASLt's bf16 rate |",
            "|---|---|---:|---|---:|---|"]
    for shape, form, decode, decode_aim, prefill, prefill_aim in BENCHES:
        text = read(logs / ("bench-%s-%s.log" % (shape, form)))
        start = text.find("{")
        if start < 0:
            rows.append("| %s | %s | not measured | | | |" % (shape, form))
            continue
        found = json.JSONDecoder().raw_decode(text[start:])[0]
        rows.append("| %s | %s | %.1f | %s | %.0f | %s |" % (
            shape, form, found["decode_tokens_per_second"],
            bounded(found["fraction_of_read_bandwidth"], decode, decode_aim),
            found["prefill_tokens_per_second"],
            bounded(found["fraction_of_product_rate"], prefill, prefill_aim)))
    return rows


def device(logs):
    name = read(logs / "device.txt") or read(logs / "figures" / "device.txt")
    return [name.strip().splitlines()[0] if name.strip() else "No device yet."]


def main():
    logs = pathlib.Path(sys.argv[1])
    document = pathlib.Path(sys.argv[2] if len(sys.argv) > 2 else "docs/CUDA.md")
    text = document.read_text()
    begin, end = text.index(BEGIN) + len(BEGIN), text.index(END)
    parts = [device(logs), figures(logs), benches(logs)]
    document.write_text(text[:begin] + "\n\n" + "\n\n".join("\n".join(p) for p in parts) + "\n\n" + text[end:])


if __name__ == "__main__":
    main()
