#!/usr/bin/env python3
"""Greedy completions of transformers for the fixture models and stories260k, as the reference of lm-gen's tests.

Writes tools/lm-gen/tests/greedy.json: per model and prompt the new token ids, and the smallest distance between the two
best logits on the way (a test compares tokens only where it is above 1e-3).

    scripts/parity/lm-gen/greedy.py [--data DIR]
"""
import argparse, json, os, pathlib, random

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

ROOT = pathlib.Path(__file__).resolve().parents[3]
NEW_TOKENS = 24


def complete(model, ids, new_tokens, eos):
    """Greedy by hand: the same steps as generate(do_sample=False), with the margins."""
    past, tokens, margin = None, [], float("inf")
    step = torch.tensor([ids])
    with torch.no_grad():
        while len(tokens) < new_tokens:
            out = model(input_ids=step, past_key_values=past, use_cache=True)
            past, logits = out.past_key_values, out.logits[0, -1].float()
            best = torch.topk(logits, 2).values
            margin = min(margin, float(best[0] - best[1]))
            token = int(torch.argmax(logits))
            if token in eos:
                break
            tokens.append(token)
            step = torch.tensor([[token]])
    return tokens, margin


def ends(config):
    eos = config.eos_token_id
    return set() if eos is None else set(eos if isinstance(eos, list) else [eos])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", default=os.environ.get("FLOWLENS_DATA", ROOT / "../shared/data"))
    args = parser.parse_args()
    torch.manual_seed(0)
    result = {}
    for directory in sorted((ROOT / "tests/fixtures/models").iterdir()):
        if not (directory / "model.safetensors").exists():
            continue
        model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, attn_implementation="eager").eval()
        config = model.config.get_text_config()
        rng = random.Random(directory.name)
        cases = []
        for length in (1, 3, 8, 13):
            ids = [rng.randrange(3, config.vocab_size) for _ in range(length)]
            tokens, margin = complete(model, ids, NEW_TOKENS, ends(config))
            cases.append({"prompt": ids, "tokens": tokens, "margin": margin})
        result[directory.name] = {"vocab_size": config.vocab_size, "cases": cases}
    stories = pathlib.Path(args.data) / "models/stories260k"
    if stories.exists():
        model = AutoModelForCausalLM.from_pretrained(stories, dtype=torch.float32).eval()
        tokenizer = AutoTokenizer.from_pretrained(stories)
        cases = []
        for text in ("Once upon a time", "The little dog", "Lily and Tom went to the park. They saw a big", "One day, a girl named Sue found a"):
            ids = tokenizer(text).input_ids
            tokens, margin = complete(model, ids, 96, ends(model.config))
            cases.append({"prompt": text, "text": tokenizer.decode(tokens, skip_special_tokens=True), "token_count": len(tokens), "margin": margin})
        result["stories260k"] = {"cases": cases}
    path = ROOT / "tools/lm-gen/tests/greedy.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(f"{path}: {len(result)} models")


if __name__ == "__main__":
    main()
