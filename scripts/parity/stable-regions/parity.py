"""stable-regions against transformers hooks (a full forward pass for every alpha).

    python3 scripts/parity/stable-regions/parity.py --bin target/release/stable-regions --model DIR --text FILE [--pairs 20]
    python3 scripts/parity/stable-regions/parity.py --golden      # rewrites tools/stable-regions/tests/golden.json

The first prints one line per (read, layer, distance) with the largest difference and fails above 1e-4. The second runs three random
models of tests/fixtures/models; the goldens are committed, so that the tests need no Python.
"""

import argparse
import json
import os
import pathlib
import random
import subprocess
import sys

import torch
from transformers import AutoModelForCausalLM

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from hooks import Hooked, curve

TOLERANCE = 1e-4
DISTANCES = ["l2", "relative", "kl", "logit"]
ROOT = pathlib.Path(__file__).resolve().parents[3]


def load(path):
    return Hooked(AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="eager"))


def measure(hooked, tokens_a, tokens_b, layer, steps, read):
    last = len(hooked.blocks) - 1
    _, _, reads = hooked.sweep(tokens_a, tokens_b, layer, last, steps, read)
    _, _, scores = hooked.sweep(tokens_a, tokens_b, layer, last, steps, "logits")
    curves = {distance: curve(distance, reads, scores) for distance in DISTANCES}
    return {distance: None if values is None else [float(v) for v in values] for distance, values in curves.items()}


def golden():
    cases = []
    for case in ["llama", "gpt2", "gpt_neox"]:
        hooked = load(ROOT / "tests/fixtures/models" / case)
        draw = random.Random(7)
        for index in range(3):
            tokens = [[draw.randrange(3, hooked.model.config.vocab_size) for _ in range(6)] for _ in range(2)]
            for layer in (0, 1):
                for read in ("pre-norm", "post-norm"):
                    cases.append(dict(model=case, id=f"{case}-{index}", tokens_a=tokens[0], tokens_b=tokens[1], layer=layer, read=read,
                                      curves=measure(hooked, *tokens, layer, 11, read)))
    path = ROOT / "tools/stable-regions/tests/golden.json"
    path.write_text("[\n" + ",\n".join(json.dumps(case) for case in cases) + "\n]\n")
    print(f"{len(cases)} curves of three families")


def compare(options):
    environment = {key: value for key, value in os.environ.items() if not key.startswith("OPENBLAS")}
    pairs = [options.bin, "--model", options.model, "--random", str(options.pairs), options.text]
    listed = subprocess.run(pairs + ["--list-pairs"], check=True, capture_output=True, env=environment).stdout
    hooked = load(options.model)
    worst = 0.0
    print(f"{'read':10} {'layer':>5} {'distance':9} {'pairs':>5} {'largest difference':>20}")
    for read in ("pre-norm", "post-norm"):
        for layer in (0, len(hooked.blocks) // 2):
            arguments = pairs + ["--read", read, "--layers", str(layer), "--steps", str(options.steps), "--distance", ",".join(DISTANCES)]
            out = subprocess.run(arguments, check=True, capture_output=True, env=environment).stdout
            ours = {}
            for line in out.splitlines():
                row = json.loads(line)
                if row["type"] == "region" and "curve" in row:
                    ours[row["id"], row["distance"]] = row["curve"]
            largest = dict.fromkeys(DISTANCES, 0.0)
            count = dict.fromkeys(DISTANCES, 0)
            for line in listed.splitlines():
                pair = json.loads(line)
                if pair["type"] != "pair":
                    continue
                theirs = measure(hooked, pair["tokens_a"], pair["tokens_b"], layer, options.steps, read)
                for distance in DISTANCES:
                    mine = ours.get((pair["id"], distance))
                    if mine is None or theirs[distance] is None:
                        continue
                    count[distance] += 1
                    difference = max(abs(x - y) for x, y in zip(mine, theirs[distance], strict=True))
                    largest[distance] = max(largest[distance], difference)
            for distance in DISTANCES:
                print(f"{read:10} {layer:5} {distance:9} {count[distance]:5} {largest[distance]:20.2e}")
                worst = max(worst, largest[distance])
            if not all(count[d] for d in ("l2", "relative", "kl")):
                sys.exit("no pair was compared")
    print("agree" if worst <= TOLERANCE else f"DIFFER by more than {TOLERANCE}")
    sys.exit(worst > TOLERANCE)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--golden", action="store_true")
    parser.add_argument("--bin", default="target/release/stable-regions")
    parser.add_argument("--model")
    parser.add_argument("--text")
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--steps", type=int, default=21)
    options = parser.parse_args()
    golden() if options.golden else compare(options)
