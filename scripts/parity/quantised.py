#!/usr/bin/env python3
"""Writes tests/fixtures/quantised: the matrices of one small block in 8 and 4 bits, as the programs that make such checkpoints pack
them, and beside them what the same programs make of them: bitsandbytes, AutoGPTQ, AutoAWQ, compressed-tensors, transformers (fp8).
usage: quantised.py [tests/fixtures]     needs torch, safetensors, transformers, bitsandbytes, compressed-tensors, auto-gptq, autoawq"""
import importlib, importlib.util, json, pathlib, sys, types

import bitsandbytes
import numpy as np
import torch
from compressed_tensors.quantization import QuantizationArgs
from compressed_tensors.quantization.lifecycle.forward import dequantize
from safetensors.torch import save_file
from transformers.integrations.finegrained_fp8 import Fp8Dequantize


def part_of(package, module):
    """One module of a package of which the rest wants another version of transformers."""
    for name in (package, *(f"{package}.{part}" for part in {"awq": ("modules", "utils"), "auto_gptq": ("nn_modules",)}[package])):
        found = importlib.util.find_spec(package) if name == package else None
        bare = types.ModuleType(name)
        home = pathlib.Path(found.origin).parent if found else pathlib.Path(sys.modules[package].__path__[0]) / name.split(".")[1]
        bare.__path__ = [str(home)]
        sys.modules[name] = bare
    return importlib.import_module(f"{package}.{module}")


gptq_layer = part_of("auto_gptq", "nn_modules.qlinear.qlinear_cuda").QuantLinear
awq_layer = part_of("awq", "modules.linear.gemm").WQLinear_GEMM
awq_values = importlib.import_module("awq.utils.packing_utils").dequantize_gemm

fixtures = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "tests/fixtures")
CONFIG = dict(model_type="llama", hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=4,
              vocab_size=16, max_position_embeddings=32, rms_norm_eps=1e-6, bos_token_id=1, eos_token_id=2, tie_word_embeddings=True)
SHAPES = {"self_attn.q_proj": (32, 32), "self_attn.k_proj": (32, 32), "self_attn.v_proj": (32, 32), "self_attn.o_proj": (32, 32),
          "mlp.gate_proj": (64, 32), "mlp.up_proj": (64, 32), "mlp.down_proj": (32, 64)}
GROUP = 16
random = np.random.default_rng(11)


def fp8(name, weight, block=None, alone=False, compressed=True):
    tall, wide = block or (weight.shape if alone else (1, weight.shape[1]))
    grid = weight.shape[0] // tall, weight.shape[1] // wide
    scale = torch.tensor(random.uniform(0.01, 0.02, grid), dtype=torch.float32)
    spread = scale.repeat_interleave(tall, 0).repeat_interleave(wide, 1)
    stored = (weight / spread).to(torch.float8_e4m3fn)
    if not compressed:
        scale = scale[0, 0] if alone else scale
        return {f"{name}.weight": stored, f"{name}.weight_scale_inv": scale}, Fp8Dequantize(None)._dequantize_one(stored, scale)
    scale = scale.bfloat16()
    how = QuantizationArgs(num_bits=8, type="float", symmetric=True, **(dict(strategy="block", block_structure=[tall, wide]) if block
                                                                      else dict(strategy="channel")))
    return {f"{name}.weight": stored, f"{name}.weight_scale": scale}, dequantize(stored, scale.float(), args=how)


def table(name, weight, kind, nested, dtype):
    # in rows of whole runs: of others bitsandbytes 0.50's loop for processors takes the wrong scales
    packed, state = bitsandbytes.functional.quantize_4bit(
        weight.to(dtype).reshape(-1, 64), blocksize=64, compress_statistics=nested, quant_type=kind)
    values = bitsandbytes.functional.dequantize_4bit(packed, state).float().reshape(weight.shape)
    state.shape = weight.shape
    parts = {f"{name}.weight": packed}
    return parts | {f"{name}.weight.{key}": value for key, value in state.as_dict(packed=True).items()}, values


def groups(weight, bits):
    """Scales and zero points (out, groups) of half precision for a matrix, and the group of each input."""
    runs = weight.reshape(weight.shape[0], -1, GROUP)
    low, high = runs.amin(-1), runs.amax(-1)
    scales = ((high - low) / (2**bits - 1)).half().float()
    return scales, (-low / scales).round().clamp(1, 2**bits - 1), torch.arange(weight.shape[1]) // GROUP


def gptq(name, weight, bits, shuffled=False):
    scales, zeros, group_of = groups(weight, bits)
    if shuffled:
        group_of = group_of[torch.randperm(len(group_of), generator=torch.Generator().manual_seed(5))]
    linear = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    linear.weight.data = (zeros[:, group_of] * 0 + weight).half().float()
    layer = gptq_layer(bits, GROUP, weight.shape[1], weight.shape[0], bias=False, weight_dtype=torch.float32)
    layer.autogptq_cuda_available = False
    linear.weight.data = linear.weight.data.clamp(*((end - zeros[:, group_of]) * scales[:, group_of] for end in (0, 2**bits - 1)))
    layer.pack(linear, scales, zeros, group_of.int())
    parts = {f"{name}.{part}": getattr(layer, part) for part in ("qweight", "qzeros", "g_idx")}
    return parts | {f"{name}.scales": layer.scales.half()}, layer(torch.eye(weight.shape[1])).T


def awq(name, weight):
    scales, zeros, group_of = groups(weight, 4)
    linear = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False).half()
    linear.weight.data = weight.clamp(*((end - zeros[:, group_of]) * scales[:, group_of] for end in (0, 15))).half()
    layer = awq_layer.from_linear(linear, 4, GROUP, scales=scales.T.contiguous().half(), zeros=zeros.T.contiguous())
    parts = {f"{name}.{part}": getattr(layer, part) for part in ("qweight", "qzeros", "scales")}
    return parts, awq_values(layer.qweight, layer.qzeros, layer.scales.float(), 4, GROUP).T


BITSANDBYTES = dict(quant_method="bitsandbytes", load_in_4bit=True)
CASES = {
    "fp8-blocks": (dict(quant_method="fp8", fmt="e4m3", weight_block_size=[16, 16]), lambda *at: fp8(*at, block=(16, 16), compressed=False)),
    "fp8-tensor": (dict(quant_method="fp8", activation_scheme="static", weight_block_size=None), lambda *at: fp8(*at, alone=True, compressed=False)),
    "fp8-rows": (dict(quant_method="compressed-tensors", format="float-quantized"), fp8),
    "fp8-grouped": (dict(quant_method="compressed-tensors", format="float-quantized", config_groups=dict(group_0=dict(weights=dict(
        num_bits=8, type="float", strategy="block", block_structure=[16, 16])))), lambda *at: fp8(*at, block=(16, 16))),
    "nf4": (dict(BITSANDBYTES), lambda *at: table(*at, "nf4", False, torch.float32)),
    "nf4-nested": (dict(BITSANDBYTES), lambda *at: table(*at, "nf4", True, torch.bfloat16)),
    "fp4": (dict(BITSANDBYTES), lambda *at: table(*at, "fp4", False, torch.float16)),
    "gptq": (dict(quant_method="gptq", bits=4, group_size=GROUP), lambda *at: gptq(*at, 4, True)),
    "gptq-8": (dict(quant_method="gptq", bits=8, group_size=GROUP), lambda *at: gptq(*at, 8)),
    "gptq-2": (dict(quant_method="gptq", bits=2, group_size=GROUP), lambda *at: gptq(*at, 2)),
    "awq": (dict(quant_method="awq", bits=4, group_size=GROUP, version="gemm"), awq),
}

for case, (said, quantise) in CASES.items():
    where = fixtures / "quantised" / case
    where.mkdir(parents=True, exist_ok=True)
    tensors = {"model.embed_tokens.weight": torch.tensor(random.normal(size=(16, 32)), dtype=torch.float32)}
    for norm in ("model.norm", "model.layers.0.input_layernorm", "model.layers.0.post_attention_layernorm"):
        tensors[f"{norm}.weight"] = torch.ones(32)
    golden = {}
    for module, shape in SHAPES.items():
        name = f"model.layers.0.{module}"
        parts, golden[f"{name}.weight"] = quantise(name, torch.tensor(random.normal(size=shape), dtype=torch.float32))
        tensors |= {key: value.contiguous() for key, value in parts.items()}
    save_file(tensors, where / "model.safetensors")
    save_file({key: value.contiguous() for key, value in golden.items()}, where / "golden.safetensors")
    (where / "config.json").write_text(json.dumps(dict(CONFIG, quantization_config=said)) + "\n")
    for path in where.iterdir():
        path.chmod(0o644)
