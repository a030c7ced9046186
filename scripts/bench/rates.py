#!/usr/bin/env python3
"""What the processor can do, and what the products make of it beside PyTorch's, in the same run.

    python3 scripts/bench/rates.py [--threads 1] [--rounds 5] [--only peaks]

Peaks are loops that do nothing but multiply on registers: the floor of every other table. Products are x (rows, k) by w (columns, k)
transposed, at the shapes of a 100 M Llama. Every figure is the best of several short runs by the clock, on a quiet machine, and contestants take
turns. Needs cargo, and torch for the products.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
SHAPES = [(2048, 768, 768), (2048, 768, 2048), (2048, 2048, 768), (256, 768, 32000), (8, 768, 2048), (1, 768, 2048)]
# ours, PyTorch's, and what stands beside them
PAIRS = [("f32", "highest"), ("medium", "highest"), ("medium", "medium"), ("bf16", "bf16")]
MALLOC = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 40), "MALLOC_TOP_PAD_": str(256 << 20)}
SECONDS = 0.25


def rates(threads, *words):
    """The lines that `lib/products/examples/rates.rs` prints."""
    command = ["cargo", "run", "--release", "--quiet", "--package", "products", "--example", "rates", "--", *map(str, words)]
    environment = {**os.environ, **MALLOC, "RAYON_NUM_THREADS": str(threads)}
    out = subprocess.run(command, check=True, stdout=subprocess.PIPE, cwd=ROOT, env=environment).stdout
    return [json.loads(line) for line in out.splitlines()]


def peaks(threads):
    """GFLOP/s of each loop on so many threads."""
    return {row["peak"]: row["gflops"] for row in rates(threads, "peaks") if row["threads"] == threads}


def fma_peak(threads):
    """Operations per second in f32."""
    return 1e9 * max(rate for name, rate in peaks(threads).items() if name.startswith("fma"))


def torch_side(threads, how):
    """Runs in a process of its own, with the malloc settings; prints a rate for each shape."""
    import torch

    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision(how if how != "bf16" else "highest")
    dtype = torch.bfloat16 if how == "bf16" else torch.float32
    for rows, k, columns in SHAPES:
        x, w = torch.randn(rows, k, dtype=dtype), torch.randn(columns, k, dtype=dtype)
        least, end = float("inf"), time.monotonic() + SECONDS
        with torch.no_grad():
            while time.monotonic() < end:
                start = time.perf_counter()
                torch.nn.functional.linear(x, w)
                least = min(least, time.perf_counter() - start)
        print(2e-9 * rows * k * columns / least)


def products(threads, rounds):
    """{name: best rate of each shape}."""
    best = {}

    def note(name, found):
        best[name] = [max(pair) for pair in zip(found, best.get(name, found))]

    for _ in range(rounds):
        for word in ("f32", "medium", "bf16"):
            found = rates(threads, "products", word, *(size for shape in SHAPES for size in shape))
            note(word, [row["gflops"] for row in found])
        for how in ("highest", "medium", "bf16"):
            command = [sys.executable, __file__, "--threads", str(threads), "--torch", how]
            out = subprocess.run(command, check=True, stdout=subprocess.PIPE, env={**os.environ, **MALLOC}).stdout
            note(f"torch {how}", [float(line) for line in out.split()])
    return best


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--threads", type=int, default=1)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--only", choices=["peaks", "products"])
    arguments.add_argument("--torch", help=argparse.SUPPRESS)
    arguments = arguments.parse_args()
    if arguments.torch:
        return torch_side(arguments.threads, arguments.torch)
    if arguments.only != "products":
        print(f"{'peak, GFLOP/s':24} {'1 thread':>9} {'all':>9}")
        rows = rates(os.cpu_count(), "peaks")
        for name in dict.fromkeys(row["peak"] for row in rows):
            print(f"{name:24}", *(f"{row['gflops']:9.0f}" for row in rows if row["peak"] == name))
    if arguments.only != "peaks":
        best = products(arguments.threads, arguments.rounds)
        print(f"\n{'products, GFLOP/s':24}", *(f"{'x'.join(map(str, shape)):>14}" for shape in SHAPES))
        for name, found in best.items():
            print(f"{name:24}", *(f"{rate:14.0f}" for rate in found))
        for ours, theirs in PAIRS:
            ratios = (a / b for a, b in zip(best[ours], best[f"torch {theirs}"]))
            print(f"{ours + ' / torch ' + theirs:24}", *(f"{ratio:14.2f}" for ratio in ratios))


if __name__ == "__main__":
    main()
