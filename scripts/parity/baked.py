#!/usr/bin/env python3
"""A direction baked into weights, loaded by transformers, against hooks that take it out while the model runs.

    scripts/parity/baked.py [--bin target/release/steer-vec]

For fixture models with biases, with a tied head, with learned positions and transposed matrices, and with parallel blocks: steer-vec select
finds a direction (any will do: every rule is switched off), steer-vec bake takes it out, and the logits of both ways are compared.
"""
import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
import torch
from transformers import AutoModelForCausalLM

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts/python"))
from flowlens import read

PROMPT = [5, 17, 40, 9, 3, 22, 31]


def load(path):
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="eager").eval()


def model_directory(family, where):
    shutil.copytree(ROOT / "tests/fixtures/models" / family, where, ignore=shutil.ignore_patterns("golden*"))
    vocabulary = {f"t{i}": i for i in range(48)}
    tokenizer = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
                 "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": None, "decoder": None,
                 "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "t0"}}
    (where / "tokenizer.json").write_text(json.dumps(tokenizer))
    for name, first in (("harmful", 3), ("harmless", 25)):
        rows = [{"id": i, "prompt": f"t{first + i} t{first + (7 * i) % 20} t4"} for i in range(12)]
        (where.parent / name).write_text("".join(json.dumps(row) + "\n" for row in rows))


def ablated(model, unit, ids):
    body = next(getattr(model, name) for name in ("transformer", "model", "gpt_neox") if hasattr(model, name))
    blocks = body.h if hasattr(body, "h") else body.layers
    first = lambda value: value[0] if isinstance(value, tuple) else value
    put = lambda value, new: (new, *value[1:]) if isinstance(value, tuple) else new
    out = lambda m, i, o: put(o, first(o) - (first(o) @ unit)[..., None] * unit)
    before = lambda m, args: (args[0] - (args[0] @ unit)[..., None] * unit, *args[1:])
    handles = []
    for block in blocks:
        attention = next(getattr(block, name) for name in ("attn", "attention", "self_attn") if hasattr(block, name))
        handles += [block.register_forward_pre_hook(before), attention.register_forward_hook(out), block.mlp.register_forward_hook(out)]
    with torch.no_grad():
        logits = model(input_ids=ids).logits
    for handle in handles:
        handle.remove()
    return logits


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", default=str(ROOT / "target/release/steer-vec"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    ids = torch.tensor([PROMPT])
    for family in ("llama", "qwen2", "llama3-rope", "gpt2", "gpt_neox", "gemma", "phi3"):
        with tempfile.TemporaryDirectory() as directory:
            at = pathlib.Path(directory)
            model_directory(family, at / "model")
            run = lambda *words: subprocess.run([arguments.bin, *map(str, words)], check=True, stdout=subprocess.DEVNULL)
            run("select", "--model", at / "model", "--harmful", at / "harmful", "--harmless", at / "harmless", "--raw", "--keep-all",
                "--refusal-tokens", "5", "--kl-max", "99", "--induced-min=-99", "-o", at / "plan.acts")
            run("bake", "--model", at / "model", "--steer", at / "plan.acts", "-o", at / "baked")
            tensors = read(at / "plan.acts")
            unit = torch.tensor(tensors["steer.0.vector"][0].copy())
            unit = (unit / unit.norm()).float()
            baked, model = load(at / "baked"), load(at / "model")
            with torch.no_grad():
                found, plain = baked(input_ids=ids).logits, model(input_ids=ids).logits
            wanted = ablated(model, unit, ids)
            error = (found - wanted).abs().max().item()
            print(f"{family:12} logits within {error:.1e} of hooks, {(found - plain).abs().max():.1e} from the plain model")
            assert error < 1e-4, family


if __name__ == "__main__":
    main()
