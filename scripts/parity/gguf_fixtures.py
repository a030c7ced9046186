#!/usr/bin/env python3
"""Writes the fixtures of lib/model/tests/gguf.rs with the `gguf` package: the small models of tests/fixtures/models as GGUF files (their
numbers are held to the same goldens), and one tensor of every stored type beside what the package makes of its blocks.
usage: gguf_fixtures.py [tests/fixtures]     needs gguf, numpy, safetensors"""
import json, pathlib, sys

import gguf
import numpy as np
from safetensors.numpy import load_file, save_file

fixtures = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "tests/fixtures")
out = fixtures / "gguf"
out.mkdir(exist_ok=True)
ARCHITECTURES = {"llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "gemma": "gemma", "olmo2": "olmo2", "gpt2": "gpt2"}


def paired(weights, heads):
    """The order of rows in which llama.cpp rotates neighbours instead of halves."""
    return weights.reshape(heads, 2, weights.shape[0] // heads // 2, *weights.shape[1:]).swapaxes(1, 2).reshape(weights.shape)


def write(name, arch):
    folder = fixtures / "models" / name
    config = json.loads((folder / "config.json").read_text())
    get = lambda *keys: next((config[key] for key in keys if config.get(key) is not None), None)
    writer = gguf.GGUFWriter(out / f"{name}.gguf", arch)
    layers, heads = get("num_hidden_layers", "n_layer"), get("num_attention_heads", "n_head")
    hidden = get("hidden_size", "n_embd")
    kv_heads, head_dim = get("num_key_value_heads") or heads, get("head_dim") or hidden // heads
    writer.add_block_count(layers)
    writer.add_context_length(get("max_position_embeddings", "n_positions"))
    writer.add_embedding_length(hidden)
    writer.add_feed_forward_length(get("intermediate_size", "n_inner") or 4 * hidden)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    if arch == "gpt2":
        writer.add_layer_norm_eps(get("layer_norm_epsilon") or 1e-5)
    else:
        writer.add_layer_norm_rms_eps(get("rms_norm_eps"))
        writer.add_rope_freq_base((config.get("rope_parameters") or config).get("rope_theta", 10000.0))
        writer.add_key_length(head_dim)
        writer.add_value_length(head_dim)
    for key, add in (("bos_token_id", writer.add_bos_token_id), ("eos_token_id", writer.add_eos_token_id)):
        if isinstance(config.get(key), int):
            add(config[key])
    names = gguf.get_tensor_name_map(getattr(gguf.MODEL_ARCH, arch.upper()), layers)
    for key, weights in sorted(load_file(folder / "model.safetensors").items()):
        module, part = key.rsplit(".", 1)
        if key == "lm_head.weight" and config.get("tie_word_embeddings", arch in ("gemma", "gemma2", "gpt2")):
            continue
        weights = np.asarray(weights, np.float32)
        if arch == "llama" and module.endswith(("q_proj", "k_proj")):
            weights = paired(weights, heads if module.endswith("q_proj") else kv_heads)
        if arch.startswith("gemma") and module.endswith("norm"):
            weights = weights + 1
        if arch == "gpt2" and weights.ndim == 2 and ".h." in key:
            weights = weights.T.copy()
        stored = names.get_name(key, try_suffixes=(".weight", ".bias"))
        assert stored, key
        writer.add_tensor(stored, weights)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_types():
    random = np.random.default_rng(7)
    writer = gguf.GGUFWriter(out / "types.gguf", "llama")
    golden = {}
    for kind in "F32 F16 BF16 Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K Q3_K Q4_K Q5_K Q6_K".split():
        kind = gguf.GGMLQuantizationType[kind]
        block, size = gguf.GGML_QUANT_SIZES[kind]
        values = random.normal(size=(3, 512)).astype(np.float32)
        try:
            stored = gguf.quants.quantize(values, kind)
        except NotImplementedError:
            # any bytes are blocks; the scales are made small numbers
            stored = random.integers(0, 256, size=(3, 512 // block * size), dtype=np.uint8)
            blocks = stored.reshape(-1, size)
            places = {"Q2_K": (80, 82), "Q3_K": (108,), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,)}[kind.name]
            for at in places:
                blocks[:, at : at + 2] = random.normal(size=(len(blocks), 1)).astype(np.float16).view(np.uint8)
        golden[kind.name] = gguf.quants.dequantize(stored, kind).astype(np.float32)
        writer.add_tensor(kind.name, stored, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    save_file(golden, out / "types.safetensors")


for name, arch in ARCHITECTURES.items():
    write(name, arch)
write_types()
