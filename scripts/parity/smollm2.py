#!/usr/bin/env python3
"""Writes tests/fixtures/smollm2: what transformers (f32) says and computes with SmolLM2-135M-Instruct, read from the GGUF file that
scripts/models/smollm2 brings. usage: smollm2.py DIR [PROMPTS.jsonl]     needs torch, transformers, gguf
With PROMPTS nothing is written: the answers to them go to stdout, to be compared with lm-gen's."""
import json, pathlib, sys

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

PROMPTS = ["What is the capital of France?", "How do I stop a Python process that hangs?", "Write one sentence about rain.", "List three prime numbers."]
NEW_TOKENS = 16
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], gguf_file="model.gguf", dtype=torch.float32).eval()
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1], gguf_file="model.gguf")
out = pathlib.Path(__file__).resolve().parents[2] / "tests/fixtures/smollm2"


def ids(prompt):
    turns = [{"role": "user", "content": prompt}]
    return tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_tensors="pt", return_dict=True)["input_ids"]


def answer(prompt, count):
    given = ids(prompt)
    with torch.no_grad():
        made = model.generate(given, attention_mask=torch.ones_like(given), max_new_tokens=count, do_sample=False)
    return tokenizer.decode(made[0, given.shape[1] :], skip_special_tokens=True)


if len(sys.argv) > 2:
    for line in open(sys.argv[2]):
        row = json.loads(line)
        print(json.dumps({"id": row["id"], "completion": answer(row["prompt"], 32)}), flush=True)
    sys.exit()
out.mkdir(exist_ok=True)
rows = [{"prompt": prompt, "completion": answer(prompt, NEW_TOKENS)} for prompt in PROMPTS]
(out / "answers.json").write_text(json.dumps(rows, indent=1) + "\n")
with torch.no_grad():
    states = model(ids(PROMPTS[0]), output_hidden_states=True).hidden_states
# the last token's residual after each block; the last of them is after the final norm
save_file({"last": torch.stack([state[0, -1] for state in states[1:]])}, out / "last_token.safetensors")
