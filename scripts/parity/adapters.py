#!/usr/bin/env python3
"""Writes tests/fixtures/adapters: small random adapters of the models of tests/fixtures/models, as PEFT saves them, beside the logits that
PEFT computes with them (in f32, each sequence alone).
usage: adapters.py [tests/fixtures]     needs peft, torch, transformers, safetensors"""
import json, pathlib, shutil, sys

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

fixtures = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "tests/fixtures")
out = fixtures / "adapters"
CASES = {
    "patterns": ("llama", dict(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj", "down_proj"],
                               rank_pattern={"layers.0.self_attn.q_proj": 2, "down_proj": 3}, alpha_pattern={"v_proj": 5})),
    "rank-stabilised": ("llama", dict(r=4, lora_alpha=8, use_rslora=True, target_modules=["o_proj", "gate_proj"])),
    "decomposed": ("llama", dict(r=2, lora_alpha=4, use_dora=True, target_modules=["q_proj", "up_proj"])),
    "saved": ("llama", dict(r=2, lora_alpha=4, target_modules=["k_proj"], modules_to_save=["lm_head", "norm"], bias="all")),
    "transposed": ("gpt2", dict(r=2, lora_alpha=4, target_modules=["c_attn", "c_fc"], fan_in_fan_out=True)),
    "transposed-decomposed": ("gpt2", dict(r=2, lora_alpha=4, target_modules=["c_proj"], fan_in_fan_out=True, use_dora=True)),
    "embedding": ("qwen2", dict(r=3, lora_alpha=6, target_modules=["embed_tokens", "q_proj"])),
    "stacked": ("phi3", dict(r=2, lora_alpha=4, target_modules=["qkv_proj", "gate_up_proj"])),
}


def logits(model, golden):
    ids = torch.split(golden["token_ids"], golden["lengths"].tolist())
    with torch.no_grad():
        return torch.cat([model(input_ids=one[None], use_cache=False).logits[0] for one in ids]).contiguous()


def load(base):
    return AutoModelForCausalLM.from_pretrained(fixtures / "models" / base, dtype=torch.float32, attn_implementation="eager").eval()


def write(name, base, settings):
    torch.manual_seed(20260102)
    golden = load_file(fixtures / "models" / base / "golden.safetensors")
    model = get_peft_model(load(base), LoraConfig(task_type="CAUSAL_LM", **settings)).eval()
    for key, parameter in model.named_parameters():
        if "lora_" in key and "magnitude" not in key:
            parameter.data.normal_(std=0.2)
        elif "magnitude" in key:
            parameter.data.mul_(1 + 0.2 * torch.rand(parameter.shape))
        elif "modules_to_save" in key or (settings.get("bias") == "all" and key.endswith("bias")):
            parameter.data.add_(0.1 * torch.randn(parameter.shape))
    model.peft_config["default"].base_model_name_or_path = f"somewhere/{base}"
    where = out / name
    shutil.rmtree(where, ignore_errors=True)
    model.save_pretrained(where, save_embedding_layers=False)
    (where / "README.md").unlink(missing_ok=True)
    save_file({"logits": logits(model, golden)}, where / "golden.safetensors")


def write_both(first, second):
    """Two adapters at once."""
    base = CASES[first][0]
    model = PeftModel.from_pretrained(load(base), out / first, adapter_name="first")
    model.load_adapter(out / second, adapter_name="second")
    model.base_model.set_adapter(["first", "second"])
    golden = load_file(fixtures / "models" / base / "golden.safetensors")
    save_file({"logits": logits(model.eval(), golden)}, out / "both.safetensors")


for name, (base, settings) in CASES.items():
    write(name, base, settings)
write_both("patterns", "rank-stabilised")
json.dump({name: base for name, (base, _) in CASES.items()}, open(out / "bases.json", "w"), indent=1)
for path in out.rglob("*"):
    if path.is_file():
        path.chmod(0o644)
