"""Eight full-batch AdamW steps of every family, vcl-train against PyTorch, and what is written against what was trained.

    python scripts/parity/train/families.py [--bin target/release/vcl-train] [CASE...]

The models are tests/fixtures/models (made by scripts/parity/models.py). The table gives the largest relative difference of losses and
of gradient norms over the steps, and the difference of the last held-out loss, reported by vcl-train, from that of the written directory
in transformers. Exit 1 if a loss differs by more than 1e-4, or a norm by more than 1e-3 (relative).
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import torch

torch.set_num_threads(1)
from transformers import AutoModelForCausalLM

ROOT = pathlib.Path(__file__).resolve().parents[3]
MODELS = ROOT / "tests/fixtures/models"
LETTERS = "abcdefghijklmnopqrstuvwxyz .,?\n"
TEXTS = ["the cat sat, and sat.", "where is the dog?", "a.", "yes, yes, yes, no.", "good morning to all of you."]
LR, STEPS, CLIP = 1e-3, 8, 1.0


def ids_of(text, eos):
    return [3 + LETTERS.index(letter) for letter in text] + [eos]


def furnish(case, folder, texts=TEXTS):
    """A directory with the config, a tokenizer of letters and a few rows for a committed model."""
    vocab = {token: i for i, token in enumerate(["<unk>", "<s>", "</s>", *LETTERS])}
    tokenizer = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [
        {"id": 2, "content": "</s>", "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}],
        "normalizer": None, "pre_tokenizer": None, "post_processor": None, "decoder": None,
        "model": {"type": "BPE", "vocab": vocab, "merges": [], "unk_token": "<unk>", "fuse_unk": False, "dropout": None,
                  "continuing_subword_prefix": None, "end_of_word_suffix": None, "byte_fallback": False}}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>"}))
    (folder / "config.json").write_text((MODELS / case / "config.json").read_text())
    (folder / "rows.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))


def loss(model, sequences):
    count = sum(len(ids) - 1 for ids in sequences)
    nats = 0.0
    for ids in sequences:
        ids = torch.tensor([ids])
        nats = nats + torch.nn.functional.cross_entropy(model(ids).logits[0, :-1].float(), ids[0, 1:], reduction="sum")
    return nats / count


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", default=ROOT / "target/release/vcl-train")
    parser.add_argument("cases", nargs="*")
    args = parser.parse_args()
    cases = args.cases or sorted(path.name for path in MODELS.iterdir() if (path / "model.safetensors").exists())
    worst = 0.0
    sequences = [ids_of(text, 2) for text in TEXTS]
    print(f"{'':22} {'loss':>9} {'grad norm':>10} {'written':>9}")
    for case in cases:
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            furnish(case, folder)
            command = [args.bin, "--model", MODELS / case, "--tokenizer", folder, "--data", folder / "rows.jsonl", "--raw", "--quiet",
                       "--batch-size", str(len(TEXTS)), "--steps", str(STEPS), "--lr", str(LR), "--schedule", "constant", "--warmup", "0",
                       "--clip", str(CLIP), "--eval", folder / "rows.jsonl", "--aux", "vcl:gamma=0,window=0-1,k=1", "-o", folder / "out"]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                print(f"{case:22} {done.stderr.strip()}")
                worst = float("inf")
                continue
            rows = [json.loads(line) for line in done.stdout.splitlines()]
            model = AutoModelForCausalLM.from_pretrained(MODELS / case, dtype=torch.float32, attn_implementation="eager")
            optimiser = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=0.0)
            of_loss = of_norm = 0.0
            for row in rows[1 : STEPS + 1]:
                optimiser.zero_grad()
                total = loss(model, sequences)
                total.backward()
                norm = torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP).item()
                optimiser.step()
                of_loss = max(of_loss, abs(row["loss"] - total.item()) / total.item())
                of_norm = max(of_norm, abs(row["grad_norm"] - norm) / norm)
            with torch.no_grad():
                written = AutoModelForCausalLM.from_pretrained(folder / "out", attn_implementation="eager")
                off = abs(loss(written, sequences).item() - rows[-2]["eval_loss"])
            print(f"{case:22} {of_loss:9.1e} {of_norm:10.1e} {off:9.1e}", flush=True)
            worst = max(worst, of_loss / 1e-4, of_norm / 1e-3, off / 1e-4)
    sys.exit(not worst <= 1.0)


if __name__ == "__main__":
    main()
