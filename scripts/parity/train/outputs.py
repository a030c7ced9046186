"""What vcl-train writes, loaded by transformers and PEFT: the held-out loss must be the one that vcl-train reported.

    python scripts/parity/train/outputs.py --bin target/release/vcl-train --model DIR --data FILE [--steps 20]

A full run, an adapter, and the same adapter merged; one table, exit 1 if any differs by more than 1e-5 nats per token.
The held-out rows are given as bare text, so that tokens are those of tokenizer.json and every one of them counts.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import torch
from peft import PeftModel
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

TEXTS = ["Once upon a time there was a little dog.", "I'm sorry, but I can't help with that.", "She went to the park. It was sunny!"]


def loss(model, tokenizer, eos):
    nats = count = 0
    for text in TEXTS:
        ids = tokenizer.encode(text).ids
        ids = torch.tensor([ids if ids[-1] == eos else ids + [eos]])
        with torch.no_grad():
            logits = model(ids).logits[0, :-1].double()
        nats += torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="sum").item()
        count += ids.shape[1] - 1
    return nats / count


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", default="target/release/vcl-train")
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--steps", default="20")
    args = parser.parse_args()
    worst = 0.0
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        with open(folder / "held-out.jsonl", "w") as rows:
            rows.writelines(json.dumps({"text": text}) + "\n" for text in TEXTS)

        def train(out, *more):
            command = [args.bin, "--model", args.model, "--data", args.data, "--eval", folder / "held-out.jsonl", "--steps", args.steps,
                       "--max-length", "128", "--lr", "1e-3", "--quiet", "--aux", "vcl:k=4,gamma=5", "-o", folder / out, *more]
            text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            return [json.loads(line) for line in text.splitlines() if '"eval"' in line][-1]["eval_loss"]

        tokenizer = Tokenizer.from_file(f"{args.model}/tokenizer.json")
        base = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32)
        eos = base.config.eos_token_id
        print(f"{'':10} {'vcl-train':>12} {'transformers':>14} {'difference':>12}")
        reports = [("full", train("full"), lambda: AutoModelForCausalLM.from_pretrained(folder / "full"))]
        lora = ["--lora", "--lora-rank", "4"]
        reports.append(("adapter", train("adapter", *lora), lambda: PeftModel.from_pretrained(base, folder / "adapter")))
        reports.append(("merged", train("merged", *lora, "--merge"), lambda: AutoModelForCausalLM.from_pretrained(folder / "merged")))
        print(f"{'untrained':10} {'':12} {loss(base, tokenizer, eos):14.6f}")
        for name, ours, load in reports:
            theirs = loss(load(), tokenizer, eos)
            worst = max(worst, abs(ours - theirs))
            print(f"{name:10} {ours:12.6f} {theirs:14.6f} {abs(ours - theirs):12.1e}")
    sys.exit(worst > 1e-5)


main()
