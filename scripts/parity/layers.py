#!/usr/bin/env python3
"""The largest difference of the residual stream between resid-dump and transformers (f32), layer by layer, over every token of a few
prompts: relative to the row's largest value, and to the layer's. The last line is the one that families.py takes.
usage: layers.py [--bin resid-dump] [--model FILE|DIR] [--name NAME] DIR     needs torch, transformers, numpy, zstandard, blake3
DIR is the model as transformers reads it, the one compared with it --model (DIR itself without)"""
import argparse, json, pathlib, subprocess, sys, tempfile

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts/python"))
from flowlens import read

PROMPTS = ["What is the capital of France?", "How do I stop a Python process that hangs?", "Write one sentence about rain.", "List three prime numbers."]


def dump(binary, model, folder):
    prompts = folder / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in PROMPTS))
    subprocess.run([binary, "--model", model, prompts, "--raw", "--sites", "resid_post,final_norm", "--layers", "all", "--positions", "all",
                    "--codec", "stored", "--store-dtype", "f32", "--quiet", "-o", folder / "own.acts"], check=True, stdout=subprocess.DEVNULL)
    return read(folder / "own.acts")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", default=ROOT / "target/release/resid-dump")
    parser.add_argument("--model")
    parser.add_argument("--name")
    parser.add_argument("reference")
    arguments = parser.parse_args()
    kind = AutoConfig.from_pretrained(arguments.reference).model_type
    model = AutoModelForCausalLM.from_pretrained(arguments.reference, dtype=torch.float32, attn_implementation="eager").eval()
    with tempfile.TemporaryDirectory() as folder:
        own = dump(arguments.bin, arguments.model or arguments.reference, pathlib.Path(folder))
        ids, sample = np.asarray(own["token_id"]).ravel(), np.asarray(own["sample_index"]).ravel()
        with torch.no_grad():
            runs = [model(torch.tensor(ids[sample == index][None].astype(np.int64)), output_hidden_states=True).hidden_states
                    for index in np.unique(sample)]
        layers = len(runs[0]) - 1
        worst = 0.0
        print("layer        of the row  of the layer")
        for layer in range(layers):
            # transformers gives the last block's output behind the final norm only
            name = f"resid_post.{layer}" if layer + 1 < layers else "final_norm"
            theirs = np.concatenate([run[layer + 1][0].numpy() for run in runs])
            far, size = np.abs(np.asarray(own[name]) - theirs).max(1), np.abs(theirs).max(1)
            print(f"{name:12} {(far / size).max():.1e}     {far.max() / size.max():.1e}")
            worst = max(worst, (far / size).max())
    print(f"real {kind} {arguments.name or pathlib.Path(arguments.reference).name} {worst:.1e}")


if __name__ == "__main__":
    main()
