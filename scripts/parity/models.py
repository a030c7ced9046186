"""Makes a small random transformer of every family with transformers, and what it computes at every site, in f32.

    python3 scripts/parity/models.py                 # writes tests/fixtures/models/CASE/{config.json,model.safetensors,golden.safetensors}
    python3 scripts/parity/models.py --tokenizers DIR  # also tokenizer ids on awkward strings, for the tokenizers below DIR

The goldens are committed, so the tests need no Python. Sequences run alone (batch of one, no padding).
"""

import argparse
import copy
import json
import pathlib
import shutil

import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM

SEED = 20260101
LENGTHS = [5, 1, 12]
VOCAB = 48
SMALL = dict(hidden_size=16, intermediate_size=24, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
             vocab_size=VOCAB, max_position_embeddings=64, bos_token_id=1, eos_token_id=2, pad_token_id=0)
PLAIN = {key: value for key, value in SMALL.items() if key != "num_key_value_heads"}

CASES = {
    "llama": dict(SMALL, model_type="llama", tie_word_embeddings=False, attention_bias=True, mlp_bias=True, eos_token_id=[2, 3]),
    "llama3-rope": dict(SMALL, model_type="llama", head_dim=8, tie_word_embeddings=True, rope_theta=100.0, rope_scaling=dict(
        rope_type="llama3", factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=16)),
    "llama-linear-rope": dict(SMALL, model_type="llama", rope_scaling=dict(rope_type="linear", factor=4.0)),
    "qwen2": dict(SMALL, model_type="qwen2", rope_theta=1e6, tie_word_embeddings=True),
    "qwen2-sliding": dict(SMALL, model_type="qwen2", use_sliding_window=True, sliding_window=4, max_window_layers=1),
    "qwen3": dict(SMALL, model_type="qwen3", head_dim=8, rope_theta=1e6),
    "gpt2": dict(model_type="gpt2", n_embd=16, n_layer=3, n_head=4, n_positions=64, vocab_size=VOCAB, bos_token_id=1, eos_token_id=2),
    "gpt_neox": dict(PLAIN, model_type="gpt_neox", rotary_pct=0.5, use_parallel_residual=True),
    "gpt_neox-sequential": dict(PLAIN, model_type="gpt_neox", rotary_pct=1.0, use_parallel_residual=False),
    "mistral": dict(SMALL, model_type="mistral", sliding_window=4, head_dim=8),
    "gemma": dict(SMALL, model_type="gemma", head_dim=8),
    "gemma2": dict(SMALL, model_type="gemma2", head_dim=8, sliding_window=4, query_pre_attn_scalar=12,
                   attn_logit_softcapping=2.0, final_logit_softcapping=3.0),
    "gemma3": dict(SMALL, model_type="gemma3_text", head_dim=8, sliding_window=4, query_pre_attn_scalar=12,
                   sliding_window_pattern=2, rope_scaling=dict(rope_type="linear", factor=8.0)),
    "olmo": dict(PLAIN, model_type="olmo", clip_qkv=0.5),
    "olmo2": dict(SMALL, model_type="olmo2"),
    "phi3": dict(SMALL, model_type="phi3", sliding_window=4),
    "phi3-longrope": dict(SMALL, model_type="phi3", partial_rotary_factor=0.5, hidden_size=32, original_max_position_embeddings=32,
                          rope_scaling=dict(type="longrope", short_factor=[1.0, 1.5], long_factor=[2.0, 3.0])),
}

AWKWARD = [
    "", " ", "Hello, world!", "  two  spaces ", "tab\tand\nnewline\r\n\n\n", "naïve café Ångström", "日本語のテキスト", "👩‍👩‍👧‍👦 🇩🇪",
    "don't I'LL we'Ve", "1234567890 3.14159", "<|endoftext|>", "a<|endoftext|>b", "<|im_start|>user\nhi<|im_end|>", "<s>x</s>",
    "def f(x):\n    return x  # done", "\u00a0nbsp\u200bzwsp", "e\u0301 vs \u00e9", "\x00\x01\x7f", "مرحبا", "ﬁ ligature", "A" * 50,
]


def build(settings):
    settings = dict(settings)
    torch.manual_seed(SEED)
    config = AutoConfig.for_model(settings.pop("model_type"), **settings)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").float().eval()
    for name, parameter in model.named_parameters():
        with torch.no_grad():
            noise = torch.randn(parameter.shape)
            around = 0.0 if parameter.dim() > 1 or name.endswith("bias") or "gemma" in config.model_type else 1.0
            parameter.copy_(around + noise * (0.3 if parameter.dim() > 1 else 0.1))
    return config, model


def watch(model, config, ids):
    """Every site of every block for one sequence, by hooks on the modules whose inputs and outputs they are."""
    seen, handles = {}, []
    first = lambda value: value[0] if isinstance(value, tuple) else value
    keep = lambda name: lambda value: seen.__setitem__(name, first(value)[0].detach().clone())

    def after(module, name, change=lambda x: x):
        handles.append(module.register_forward_hook(lambda m, i, o: keep(name)(change(first(o)))))

    def before(module, name):
        hook = lambda m, args, kwargs: keep(name)(args[0] if args else kwargs["hidden_states"])
        handles.append(module.register_forward_pre_hook(hook, with_kwargs=True))

    kind = config.model_type
    base = getattr(model, "model", model.base_model)
    layers = base.h if kind == "gpt2" else base.layers
    final = {"gpt2": "ln_f", "gpt_neox": "final_layer_norm"}.get(kind, "norm")
    for l, block in enumerate(layers):
        before(block, f"resid_pre.{l}")
        after(block, f"resid_post.{l}")
        attention = block.attn if kind == "gpt2" else block.attention if kind == "gpt_neox" else block.self_attn
        sandwich = kind in ("gemma2", "gemma3_text", "olmo2")
        after(block.post_attention_layernorm if sandwich else attention, f"attn_out.{l}")
        after(block.post_feedforward_layernorm if sandwich else block.mlp, f"mlp_out.{l}")
        if kind == "olmo2":
            before(block.mlp, f"resid_mid.{l}")
        elif not getattr(config, "use_parallel_residual", False):
            norm = {"gpt2": "ln_2", "gemma2": "pre_feedforward_layernorm", "gemma3_text": "pre_feedforward_layernorm"}
            before(getattr(block, norm.get(kind, "post_attention_layernorm")), f"resid_mid.{l}")
        before(getattr(attention, {"gpt2": "c_proj", "gpt_neox": "dense"}.get(kind, "o_proj")), f"attn_in.{l}")
        before(getattr(block.mlp, {"gpt2": "c_proj", "gpt_neox": "dense_4h_to_h"}.get(kind, "down_proj")), f"mlp_in.{l}")
        if kind == "phi3":
            after(block.mlp.gate_up_proj, f"mlp_gate.{l}", lambda x: x.chunk(2, dim=-1)[0])
        else:
            gate = {"gpt2": "c_fc", "gpt_neox": "dense_h_to_4h"}.get(kind, "gate_proj")
            after(getattr(block.mlp, gate), f"mlp_gate.{l}")
    after(getattr(base, final), "final_norm")
    with torch.no_grad():
        seen["logits"] = model(input_ids=ids[None], use_cache=False).logits[0]
    for handle in handles:
        handle.remove()
    seen["embed"] = seen["resid_pre.0"]
    return seen


def deviation(model, config, sequences, golden, dtype):
    """How far transformers' own half precision lies from its f32: the largest difference relative to its row's maximum."""
    half = copy.deepcopy(model).to(dtype)
    runs = [watch(half, config, ids) for ids in sequences]
    far = lambda a, b: ((a - b).abs().amax(-1) / b.abs().amax(-1)).max().item()
    return max(far(torch.cat([run[site] for run in runs]).float(), golden[site]) for site in runs[0])


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--tokenizers", type=pathlib.Path)
    arguments = arguments.parse_args()
    root = pathlib.Path(__file__).resolve().parents[2] / "tests/fixtures/models"
    for name, settings in CASES.items():
        config, model = build(settings)
        where = root / name
        shutil.rmtree(where, ignore_errors=True)
        model.save_pretrained(where)
        (where / "generation_config.json").unlink(missing_ok=True)
        torch.manual_seed(SEED + 1)
        sequences = [torch.randint(0, VOCAB, (length,)) for length in LENGTHS]
        runs = [watch(model, config, ids) for ids in sequences]
        golden = {site: torch.cat([run[site] for run in runs]).float().contiguous() for site in runs[0]}
        golden["half_deviation"] = torch.tensor([deviation(model, config, sequences, golden, t) for t in (torch.bfloat16, torch.float16)])
        golden["token_ids"] = torch.cat(sequences).to(torch.int64)
        golden["lengths"] = torch.tensor(LENGTHS)
        save_file(golden, where / "golden.safetensors")
        for path in where.iterdir():
            path.chmod(0o644)
        print(f"{name:22} {model.num_parameters():7} parameters, {len(golden) - 3} tensors")
    if arguments.tokenizers:
        tokenizers(root, arguments.tokenizers)


def tokenizers(root, directory):
    from tokenizers import Tokenizer
    from transformers import GPT2TokenizerFast, Qwen2TokenizerFast

    def gpt2(path):
        return GPT2TokenizerFast(vocab_file=str(path / "encoder.json"), merges_file=str(path / "vocab.bpe"))

    made = {
        "gpt2": gpt2(directory / "gpt2").backend_tokenizer,
        "pythia": Tokenizer.from_file(str(directory / "pythia/tokenizer.json")),
        "qwen2": Qwen2TokenizerFast.from_pretrained(str(directory / "qwen2")).backend_tokenizer,
        "minimind": Tokenizer.from_file(str(directory / "minimind/tokenizer.json")),
    }
    golden = {name: [tokenizer.encode(text).ids for text in AWKWARD] for name, tokenizer in made.items()}
    with open(root / "tokenizers.json", "w", encoding="utf-8") as out:
        json.dump({"texts": AWKWARD, "ids": golden}, out, ensure_ascii=True)
        out.write("\n")


main()
