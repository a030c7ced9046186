#!/usr/bin/env python3
"""Writes tests/fixtures/mxfp4: a small gpt-oss whose experts are kept as MXFP4, and beside it what transformers makes of them.
usage: mxfp4.py [tests/fixtures]     needs torch, safetensors, transformers"""
import json, pathlib, sys

import torch
from safetensors.torch import save_file
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

fixtures = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "tests/fixtures")
HIDDEN, SIZE, EXPERTS, HEADS, HEAD, VOCAB = 64, 32, 3, 2, 8, 32
CONFIG = dict(model_type="gpt_oss", hidden_size=HIDDEN, intermediate_size=SIZE, num_hidden_layers=1, num_attention_heads=HEADS,
              num_key_value_heads=1, head_dim=HEAD, vocab_size=VOCAB, max_position_embeddings=32, num_local_experts=EXPERTS,
              num_experts_per_tok=2, bos_token_id=1, eos_token_id=2, quantization_config=dict(
                  quant_method="mxfp4", modules_to_not_convert=["model.layers.*.self_attn", "model.layers.*.mlp.router", "lm_head"]))
BLOCK = "model.layers.0."
WIDE = {"q_proj": HEADS * HEAD, "k_proj": HEAD, "v_proj": HEAD}


def main():
    random = torch.Generator().manual_seed(17)
    numbers = lambda *shape: torch.randn(shape, generator=random)
    bytes_ = lambda low, high, *shape: torch.randint(low, high, shape, generator=random, dtype=torch.uint8)
    tensors = {"model.embed_tokens.weight": numbers(VOCAB, HIDDEN), "lm_head.weight": numbers(VOCAB, HIDDEN), "model.norm.weight": numbers(HIDDEN)}
    for name, width in WIDE.items():
        tensors |= {f"{BLOCK}self_attn.{name}.weight": numbers(width, HIDDEN), f"{BLOCK}self_attn.{name}.bias": numbers(width)}
    tensors |= {f"{BLOCK}self_attn.o_proj.weight": numbers(HIDDEN, HEADS * HEAD), f"{BLOCK}self_attn.o_proj.bias": numbers(HIDDEN),
                f"{BLOCK}self_attn.sinks": numbers(HEADS), f"{BLOCK}input_layernorm.weight": numbers(HIDDEN),
                f"{BLOCK}post_attention_layernorm.weight": numbers(HIDDEN), f"{BLOCK}mlp.router.weight": numbers(EXPERTS, HIDDEN),
                f"{BLOCK}mlp.router.bias": numbers(EXPERTS)}
    golden = {}
    for name, inputs, outputs in (("gate_up_proj", HIDDEN, 2 * SIZE), ("down_proj", SIZE, HIDDEN)):
        name = f"{BLOCK}mlp.experts.{name}"
        blocks, scales = bytes_(0, 256, EXPERTS, outputs, inputs // 32, 16), bytes_(100, 140, EXPERTS, outputs, inputs // 32)
        tensors |= {f"{name}_blocks": blocks, f"{name}_scales": scales, f"{name}_bias": numbers(EXPERTS, outputs)}
        golden[name] = convert_moe_packed_tensors(blocks, scales, dtype=torch.float32).contiguous()
        assert golden[name].shape == (EXPERTS, inputs, outputs)
    where = fixtures / "mxfp4"
    where.mkdir(parents=True, exist_ok=True)
    save_file(tensors, where / "model.safetensors")
    save_file(golden, where / "golden.safetensors")
    (where / "config.json").write_text(json.dumps(CONFIG) + "\n")
    for path in where.iterdir():
        path.chmod(0o644)


if __name__ == "__main__":
    main()
