#!/usr/bin/env python3
"""Write what run.sh and figures.sh logged into docs/CUDA.md: table.py LOGS [DOCUMENT].

LOGS is BUILD/gpu: device.txt, figures/figures.txt and bench-*.log, whichever there are. What stands
between the two marks of the document is replaced; what the logs lack is said to be not measured.
LOGS/two, where it is: device.txt and figures.txt of a run of test_cuda_model on two devices.
"""

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


def figures(path):
    lines = sorted(set(read(path).splitlines()))
    rows = ["| what | found | |", "|---|---|---|"]
    for line in lines:
        match = re.match(r"FIGURE (.*?): (.*?)(?:: (holds|FAILS))?$", line)
        if match:
            rows.append("| %s | %s | %s |" % tuple((g or "").replace("|", "/") for g in match.groups()))
    return rows if len(rows) > 2 else ["Not measured."]


def bounded(value, least, aim):
    text = "%.2f" % value
    if least is not None:
        text += " (least %.2f, aim %.2f)%s" % (least, aim, "" if value >= least else " FAILS")
    return text


def bench(path):
    """The figures of one log, of the last run in it: rows of the prompt, two rates, two fractions."""
    text = read(path)
    prefill = re.findall(r"^prefill +(\d+) rows: ([\d.]+) tokens/s, .* ([\d.]+) % of the products", text, re.M)
    decode = re.findall(r"^decode .*: ([\d.]+) tokens/s, .* ([\d.]+) % of the read", text, re.M)
    if not prefill or not decode:
        return None
    return (int(prefill[-1][0]), float(decode[-1][0]), float(decode[-1][1]) / 100,
            float(prefill[-1][1]), float(prefill[-1][2]) / 100)


def benches(logs):
    rows = ["| random weights | format | prompt | decoding, tokens/s | of the read rate | prefill, tokens/s |"
            " of cuBLASLt's bf16 rate |",
            "|---|---|---:|---:|---|---:|---|"]
    for shape, form, decode, decode_aim, prefill, prefill_aim in BENCHES:
        found = bench(logs / ("bench-%s-%s.log" % (shape, form)))
        if not found:
            rows.append("| %s | %s | | not measured | | | |" % (shape, form))
            continue
        prompt, tokens, fraction, filled, of_products = found
        rows.append("| %s | %s | %d | %.1f | %s | %.0f | %s |" % (
            shape, form, prompt, tokens, bounded(fraction, decode, decode_aim), filled,
            bounded(of_products, prefill, prefill_aim)))
    return rows


def device(logs):
    name = read(logs / "device.txt") or read(logs / "figures" / "device.txt")
    return [name.strip().splitlines()[0] if name.strip() else "No device yet."]


def main():
    logs = pathlib.Path(sys.argv[1])
    document = pathlib.Path(sys.argv[2] if len(sys.argv) > 2 else "docs/CUDA.md")
    text = document.read_text()
    begin, end = text.index(BEGIN) + len(BEGIN), text.index(END)
    parts = [device(logs), figures(logs / "figures" / "figures.txt"), benches(logs)]
    if (logs / "two").is_dir():
        parts += [device(logs / "two"), figures(logs / "two" / "figures.txt")]
    document.write_text(text[:begin] + "\n\n" + "\n\n".join("\n".join(p) for p in parts) + "\n\n" + text[end:])


if __name__ == "__main__":
    main()
