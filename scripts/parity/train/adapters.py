"""An adapter of every family, trained by vcl-train: loaded by PEFT onto transformers' model, merged by lm-merge and loaded by transformers,
and merged by vcl-train; the logits of each, and of what resid-dump computes with the adapter, against PEFT's.

    python scripts/parity/train/adapters.py [--bin target/release] [CASE...]

The models are tests/fixtures/models. The table gives the largest difference of logits, relative to the largest logit; exit 1 if one is
above 1e-5. Of a wrapper the model is its decoder.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import torch

torch.set_num_threads(1)
from peft import PeftModel
from transformers import AutoModelForCausalLM

from families import LETTERS, MODELS, ROOT, TEXTS, furnish, ids_of

sys.path.insert(0, str(ROOT / "scripts/python"))
from flowlens import read


SHORT = [text[:14] for text in TEXTS]  # no longer than any model's sequences


def logits(model):
    with torch.no_grad():
        return torch.cat([model(torch.tensor([ids_of(text, 2)[:-1]])).logits[0] for text in SHORT]).numpy()


def load(directory):
    return AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, attn_implementation="eager").eval()


def differences(case, tools, folder):
    """How far what is merged by lm-merge, merged by vcl-train and computed with the adapter lies from PEFT's."""
    def run(tool, *arguments):
        done = subprocess.run([tools / tool, *arguments, "--quiet"], capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(done.stderr.strip())

    furnish(case, folder, SHORT)
    (folder / "model.safetensors").write_bytes((MODELS / case / "model.safetensors").read_bytes())
    config = json.loads((folder / "config.json").read_text())
    train = ["--model", folder, "--data", folder / "rows.jsonl", "--raw", "--steps", "4", "--lr", "1e-2", "--warmup", "0", "--lora",
             "--lora-rank", "3", "--aux", "none"]
    run("vcl-train", *train, "-o", folder / "adapter")
    run("vcl-train", *train, "--merge", "-o", folder / "merged")
    run("lm-merge", "--model", folder, "--adapter", folder / "adapter", "-o", folder / "by-lm-merge")
    run("resid-dump", "--model", folder, "--adapter", folder / "adapter", folder / "rows.jsonl", "--field", "text", "--raw", "--sites", "logits",
        "--positions", "all", "--store-dtype", "f32", "-o", folder / "own.acts")
    base = folder
    if "text_config" in config:
        base = folder / "decoder"  # what an adapter of a wrapper is for
        run("lm-merge", "--model", folder, "-o", base)
    plain = logits(load(base))
    theirs = logits(PeftModel.from_pretrained(load(base), folder / "adapter").eval())
    size = np.abs(theirs).max()
    assert np.abs(theirs - plain).max() / size > 1e-3, "the adapter changes nothing"
    found = [logits(load(folder / name)) for name in ("by-lm-merge", "merged")] + [np.asarray(read(folder / "own.acts")["logits"])]
    return [np.abs(own - theirs).max() / size for own in found]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", type=pathlib.Path, default=ROOT / "target/release")
    parser.add_argument("cases", nargs="*")
    args = parser.parse_args()
    worst = 0.0
    print(f"{'':22} {'lm-merge':>9} {'vcl-train':>9} {'adapter':>9}")
    for case in args.cases or sorted(path.name for path in MODELS.iterdir() if (path / "model.safetensors").exists()):
        with tempfile.TemporaryDirectory() as folder:
            try:
                found = differences(case, args.bin, pathlib.Path(folder))
            except (RuntimeError, ValueError, AssertionError) as failure:
                print(f"{case:22} {str(failure)[:150]}", flush=True)
                worst = float("inf")
                continue
        print(f"{case:22}" + "".join(f" {far:9.1e}" for far in found), flush=True)
        worst = max(worst, *found)
    sys.exit(not worst <= 1e-5)


if __name__ == "__main__":
    main()
