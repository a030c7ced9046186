"""stable-regions against the hook script (what the paper's code does), one model, same threads, interleaved in one run.

    python3 scripts/bench/stable-regions/bench.py --bin target/release/stable-regions [--pairs 1000] [--hook-pairs 8] [--threads 2]

The model is the Llama shape of the other benchmarks (hidden 768, 12 layers, MLP 2048, vocabulary 32,000, random weights), prompts of
10 tokens, 50 alphas. The hook script is run on fewer pairs and its time per pair is compared; it has no fixed cost but loading, which is
left out on its side and counted on ours. Two forms of it: one alpha a pass, and all alphas of a pair in one batch; and PyTorch's
default and "medium" products. OPENBLAS_CORETYPE and OPENBLAS_L2_SIZE are unset and malloc is tuned alike on both sides.
"""

import argparse
import json
import os
import pathlib
import random
import statistics
import subprocess
import sys
import tempfile
import time

MALLOC = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "-1", "MALLOC_TOP_PAD_": str(256 << 20)}
if any(os.environ.get(key) != value for key, value in MALLOC.items()) or "OPENBLAS_CORETYPE" in os.environ:
    environment = {key: value for key, value in os.environ.items() if key not in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")}
    os.execve(sys.executable, [sys.executable] + sys.argv, environment | MALLOC)

import torch
from transformers import LlamaConfig, LlamaForCausalLM

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "parity/stable-regions"))
from hooks import Hooked

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--bin", default="target/release/stable-regions")
parser.add_argument("--pairs", type=int, default=1000)
parser.add_argument("--hook-pairs", type=int, default=8)
parser.add_argument("--rounds", type=int, default=3)
parser.add_argument("--threads", type=int, default=2)
options = parser.parse_args()
torch.set_num_threads(options.threads)
print(f"threads {options.threads}, load {os.getloadavg()[0]:.1f}, torch {torch.__version__}")

with tempfile.TemporaryDirectory() as directory:
    torch.manual_seed(1)
    model = LlamaForCausalLM(LlamaConfig(hidden_size=768, intermediate_size=2048, num_hidden_layers=12, num_attention_heads=12,
                                         num_key_value_heads=12, vocab_size=32_000, max_position_embeddings=2048)).float()
    model.save_pretrained(directory)
    draw = random.Random(1)
    pairs = [[[draw.randrange(3, 32_000) for _ in range(10)] for _ in range(2)] for _ in range(options.pairs)]
    path = pathlib.Path(directory) / "pairs.jsonl"
    path.write_text("".join(json.dumps(dict(id=str(i), tokens_a=a, tokens_b=b)) + "\n" for i, (a, b) in enumerate(pairs)))
    hooked = Hooked(model)

    def ours():
        start = time.perf_counter()
        command = [options.bin, "--model", directory, "--pairs", str(path), "--steps", "50", "--threads", str(options.threads), "--min-distance", "0"]
        out = subprocess.run(command, check=True, capture_output=True).stdout
        count = sum(b'"type":"region"' in line for line in out.splitlines())
        assert count == options.pairs, count
        return (time.perf_counter() - start) / options.pairs

    def hook(batch, precision):
        torch.set_float32_matmul_precision(precision)
        start = time.perf_counter()
        for a, b in pairs[: options.hook_pairs]:
            hooked.sweep(a, b, 0, 11, 50, "post-norm", batch)
        return (time.perf_counter() - start) / options.hook_pairs

    rivals = [("one alpha a pass, default", 1, "highest"), ("one alpha a pass, medium", 1, "medium"),
              ("50 alphas a pass, default", 50, "highest"), ("50 alphas a pass, medium", 50, "medium")]
    hooked.sweep(*pairs[0], 0, 11, 50, "post-norm", 50)
    times = {"stable-regions": []} | {name: [] for name, *_ in rivals}
    for _ in range(options.rounds):
        times["stable-regions"].append(ours())
        for name, batch, precision in rivals:
            times[name].append(hook(batch, precision))
    base = statistics.median(times["stable-regions"])
    print(f"{'':28} {'ms / pair':>10} {'ratio':>7}")
    for name, values in times.items():
        middle = statistics.median(values)
        print(f"{name:28} {1000 * middle:10.2f} {middle / base:7.2f}")
