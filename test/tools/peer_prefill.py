#!/usr/bin/env python3
"""PyTorch's float32 product on the shapes that mmq-bench prefilled, for comparison:

  peer_prefill.py FIGURES.json [--threads N] [--seconds S]

FIGURES.json is the output of mmq-bench --json. Every linear of the decoder's layers is multiplied
with as many rows as were prefilled; the best of several tries counts. mmq-bench's rate is of the
whole prefill, attention and norms included. Needs torch.
"""
import argparse
import json
import sys
import time


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("figures")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=0.5, help="at least, for each shape")
    arguments = parser.parse_args()
    try:
        import torch
    except ImportError:
        sys.exit("peer_prefill.py: this Python has no torch")
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    with open(arguments.figures, encoding="utf-8") as file:
        figures = json.load(file)
    n = int(figures["prefill_rows"])
    flop, seconds = 0.0, 0.0
    with torch.inference_mode():
        for rows, cols, count in figures["products"]:
            weight = torch.randn(rows, cols)
            x = torch.randn(n, cols)
            out = torch.empty(n, rows)
            best, tries, end = float("inf"), 0, time.perf_counter() + arguments.seconds
            while tries < 3 or time.perf_counter() < end:
                begin = time.perf_counter()
                torch.mm(x, weight.t(), out=out)
                best = min(best, time.perf_counter() - begin)
                tries += 1
            flop += 2.0 * n * rows * cols * count
            seconds += best * count
    rate, own = flop / seconds, figures["prefill_flop_per_second"]
    print(
        f"peer       PyTorch {torch.__version__} float32, {torch.get_num_threads()} threads, {n} rows: "
        f"{rate * 1e-9:.1f} GFLOP/s; {figures['model']} in {' + '.join(figures['formats'])}: "
        f"{own * 1e-9:.1f} GFLOP/s, {own / rate:.2f} of it"
    )


if __name__ == "__main__":
    main()
