"""Makes a small random transformer of every family with transformers, and what it computes at every site, in f32.

    python3 scripts/parity/models.py [CASE ...]      # writes tests/fixtures/models/CASE: the model, golden.safetensors, gradients.json
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
from torch.overrides import TorchFunctionMode
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

SEED = 20260101
LENGTHS = [5, 1, 12]
VOCAB = 48
SMALL = dict(hidden_size=16, intermediate_size=24, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
             vocab_size=VOCAB, max_position_embeddings=64, bos_token_id=1, eos_token_id=2, pad_token_id=0)
PLAIN = {key: value for key, value in SMALL.items() if key != "num_key_value_heads"}
FALCON = dict(model_type="falcon", hidden_size=16, num_hidden_layers=3, num_attention_heads=4, vocab_size=VOCAB,
              max_position_embeddings=64, bos_token_id=1, eos_token_id=2, pad_token_id=0)

# seeds of which no row is so near to another choice that half precision takes it
EXPERTS = dict(SMALL, num_experts_per_tok=2, num_hidden_layers=2)
LLAMA4 = dict(SMALL, head_dim=8, num_hidden_layers=2, no_rope_layer_interval=2, attention_chunk_size=4, rope_parameters=dict(
    rope_type="llama3", rope_theta=100.0, factor=4.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=16))

# how a family calls what others call by the second name; a dot leads into the MLP or out of the block
CALLED = {
    "gpt2": dict(layers="h", norm="ln_f", self_attn="attn", o_proj="c_proj", down_proj="c_proj", gate_proj="c_fc", before_mlp="ln_2"),
    "gpt_neox": dict(norm="final_layer_norm", self_attn="attention", o_proj="dense", down_proj="dense_4h_to_h",
                     gate_proj="dense_h_to_4h"),
    "gptj": dict(layers="h", norm="ln_f", self_attn="attn", o_proj="out_proj", down_proj="fc_out", gate_proj="fc_in"),
    "phi": dict(norm="final_layernorm", o_proj="dense", down_proj="fc2", gate_proj="fc1"),
    "opt": dict(norm="final_layer_norm", o_proj="out_proj", down_proj="fc2", gate_proj="fc1", before_mlp="final_layer_norm"),
    "falcon": dict(layers="h", norm="ln_f", self_attn="self_attention", o_proj="dense", down_proj="dense_4h_to_h",
                   gate_proj="dense_h_to_4h"),
    "gemma2": dict(before_mlp="pre_feedforward_layernorm", after_attention="post_attention_layernorm",
                   after_mlp="post_feedforward_layernorm"),
    "olmo2": dict(before_mlp="mlp", after_attention="post_attention_layernorm", after_mlp="post_feedforward_layernorm"),
    "glm4": dict(after_attention="post_self_attn_layernorm", after_mlp="post_mlp_layernorm"),
    "gpt_oss": dict(gate="router"),
    "llama4_text": dict(gate="router", mlp="feed_forward"),
}
CALLED["gemma3_text"], CALLED["olmo3"] = CALLED["gemma2"], CALLED["olmo2"]
PARALLEL = ("phi", "gptj")

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
    "olmo3": dict(SMALL, model_type="olmo3", num_hidden_layers=4, sliding_window=4, rope_scaling=dict(
        rope_type="yarn", factor=4.0, original_max_position_embeddings=16, beta_fast=2.0, beta_slow=1.0, attention_factor=1.2)),
    "qwen2-yarn": dict(SMALL, model_type="qwen2", head_dim=8, rope_theta=100.0, rope_scaling=dict(
        rope_type="yarn", factor=4.0, original_max_position_embeddings=16, beta_fast=4.0)),
    "llama-dynamic-rope": dict(SMALL, model_type="llama", rope_scaling=dict(rope_type="dynamic", factor=4.0)),
    "smollm3": dict(SMALL, model_type="smollm3", no_rope_layer_interval=2, use_sliding_window=True, sliding_window=4),
    "smollm3-plain": dict(SMALL, model_type="smollm3", num_hidden_layers=4),
    "granite": dict(SMALL, model_type="granite", embedding_multiplier=12.0, residual_multiplier=0.22, attention_multiplier=0.3,
                    logits_scaling=8.0, tie_word_embeddings=True, attention_bias=True),
    "glm": dict(SMALL, model_type="glm", head_dim=8),
    "glm4": dict(SMALL, model_type="glm4", head_dim=8),
    "phi": dict(SMALL, model_type="phi", partial_rotary_factor=0.5),
    "phi-normed": dict(SMALL, model_type="phi", partial_rotary_factor=0.5, qk_layernorm=True),
    "gptj": dict(model_type="gptj", n_embd=16, n_layer=3, n_head=2, n_positions=64, rotary_dim=4, vocab_size=VOCAB, bos_token_id=1,
                 eos_token_id=2),
    "opt": dict(model_type="opt", hidden_size=16, ffn_dim=24, num_hidden_layers=3, num_attention_heads=4, vocab_size=VOCAB,
                max_position_embeddings=64, bos_token_id=1, eos_token_id=2, pad_token_id=0),
    "falcon": dict(FALCON),
    "falcon-grouped": dict(FALCON, new_decoder_architecture=True, num_kv_heads=2, bias=True),
    "falcon-one-norm": dict(FALCON, new_decoder_architecture=True, num_kv_heads=2, num_ln_in_parallel_attn=1),
    "falcon-sequential": dict(FALCON, multi_query=False, parallel_attn=False, bias=True),
    "mixtral": dict(EXPERTS, seed=1, model_type="mixtral", num_local_experts=6),
    "qwen3_moe": dict(EXPERTS, seed=4, model_type="qwen3_moe", head_dim=8, num_experts=6, moe_intermediate_size=8, norm_topk_prob=True),
    "olmoe": dict(EXPERTS, seed=1, model_type="olmoe", num_experts=6, clip_qkv=2.0),
    "gpt_oss": dict(EXPERTS, seed=4, model_type="gpt_oss", head_dim=8, num_local_experts=6, sliding_window=4, swiglu_alpha=1.5,
                    swiglu_limit=0.7, rope_parameters=dict(rope_type="yarn", rope_theta=100.0, factor=4.0, beta_fast=4.0, beta_slow=1.0,
                                                           truncate=False, original_max_position_embeddings=16)),
    "gpt_oss-usual": dict(EXPERTS, seed=20, model_type="gpt_oss", head_dim=8, num_local_experts=4, sliding_window=8),
    "llama4": dict(LLAMA4, seed=18, model_type="llama4_text", num_local_experts=4, num_experts_per_tok=1, floor_scale=4, attn_scale=0.5),
    "llama4-dense": dict(LLAMA4, seed=20, model_type="llama4_text", num_local_experts=4, num_experts_per_tok=2, intermediate_size_mlp=20,
                         interleave_moe_layer_step=2, use_qk_norm=False, attn_temperature_tuning=False),
    "llama4-wrapper": dict(seed=12, model_type="llama4", text_config=dict(
        LLAMA4, num_local_experts=3, num_experts_per_tok=1), vision_config=dict(
        hidden_size=8, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=16, patch_size=8, vision_output_dim=8,
        projector_input_dim=8, projector_output_dim=8)),
    "ministral3": dict(SMALL, model_type="ministral3", head_dim=8, rope_parameters=dict(
        rope_type="yarn", rope_theta=1e6, factor=4.0, original_max_position_embeddings=16, beta_fast=32.0, beta_slow=1.0, mscale=1.0,
        mscale_all_dim=1.0, llama_4_scaling_beta=0.1)),
    "gemma3-wrapper": dict(model_type="gemma3", text_config=dict(SMALL, head_dim=8, sliding_window=4, query_pre_attn_scalar=12), vision_config=dict(
        hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2, image_size=16, patch_size=8)),
    "mistral3": dict(model_type="mistral3", tie_word_embeddings=False, text_config=dict(
        SMALL, model_type="mistral", head_dim=8, sliding_window=None, tie_word_embeddings=False), vision_config=dict(
        model_type="pixtral", hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2, image_size=16, patch_size=8)),
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
    torch.manual_seed(settings.pop("seed", SEED))
    config = AutoConfig.for_model(settings.pop("model_type"), **settings)
    kind = AutoModelForImageTextToText if hasattr(config, "text_config") else AutoModelForCausalLM
    model = kind.from_config(config, attn_implementation="eager").float().eval()
    for name, parameter in model.named_parameters():
        with torch.no_grad():
            noise = torch.randn(parameter.shape)
            around = 0.0 if parameter.dim() > 1 or name.endswith("bias") or "gemma" in config.model_type else 1.0
            parameter.copy_(around + noise * (0.3 if parameter.dim() > 1 else 0.1))
    return config, model


def key_heads(config):
    if config.model_type == "falcon":
        return config.num_kv_heads if config.new_decoder_architecture else 1 if config.multi_query else config.num_attention_heads
    return getattr(config, "num_key_value_heads", None) or config.num_attention_heads


class Attended(TorchFunctionMode):
    """What attention multiplies, layer by layer: the two factors of the product before a softmax over keys, what that softmax reads, and
    the second factor of the product behind it. Masked scores are no maxima, so the mask may be among them."""

    def __init__(self):
        super().__init__()
        self.layers, self.factors, self.scored, self.joined = [], None, False, None

    def __torch_function__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if function.__name__ == "cat":
            self.joined = args[0]
        if not isinstance(args[0] if args else None, torch.Tensor) or args[0].dim() != 4:
            return result
        if "matmul" in function.__name__ and self.scored:
            self.layers[-1]["v"], self.scored = args[1], False
        elif "matmul" in function.__name__:
            self.factors = args[:2]
        elif function.__name__ == "softmax":
            q, k = self.factors
            # behind the scores of keys there may be a sink's
            scores = args[0] if args[0].shape[-1] == k.shape[-1] else self.joined[0]
            self.layers.append({"q": q, "k": k.transpose(2, 3), "attn_logit_max": scores.amax(-1, keepdim=True)})
            self.scored = True
        return result

    def sites(self, heads):
        """(rows, heads · head_dim) by name; `heads` is how many of keys and values are the model's own and no repetition."""
        for l, layer in enumerate(self.layers):
            for name, x in layer.items():
                own = x[0, ::x.shape[1] // heads] if name in "kv" else x[0]
                yield f"{name}.{l}", own.transpose(0, 1).flatten(1)


def projections(attention, config, heads):
    """The modules that give queries and keys, and how each is taken out of the output (rows, width)."""
    if hasattr(attention, "q_proj"):
        return {"q_proj": (attention.q_proj, lambda x: x), "k_proj": (attention.k_proj, lambda x: x)}
    if config.model_type == "falcon":
        split, own = attention._split_heads, lambda k: k[:, :, ::k.shape[2] // heads]
        return {"q_proj": (attention.query_key_value, lambda x: split(x)[0].flatten(2)),
                "k_proj": (attention.query_key_value, lambda x: own(split(x)[1]).flatten(2))}
    if config.model_type == "gpt_neox":
        return {name: (attention.query_key_value, lambda x, at=at: x.unflatten(-1, (config.num_attention_heads, 3, -1))[..., at, :].flatten(2))
                for at, name in enumerate(("q_proj", "k_proj"))}
    size = config.hidden_size // config.num_attention_heads
    q, k = config.num_attention_heads * size, heads * size
    all_three = getattr(attention, "c_attn", None) or attention.qkv_proj
    return {"q_proj": (all_three, lambda x: x[..., :q]), "k_proj": (all_three, lambda x: x[..., q:q + k])}


def watch(model, config, ids):
    """Every site of every block for one sequence, by hooks on the modules whose inputs and outputs they are."""
    seen, handles = {}, []
    first = lambda value: value[0] if isinstance(value, tuple) else value
    rows = lambda value: value[0] if value.dim() == 3 else value
    keep = lambda name: lambda value: seen.__setitem__(name, rows(first(value)).detach().clone())

    def after(module, name, change=lambda x: x):
        handles.append(module.register_forward_hook(lambda m, i, o: keep(name)(change(first(o)))))

    def before(module, name):
        hook = lambda m, args, kwargs: keep(name)(args[0] if args else kwargs["hidden_states"])
        handles.append(module.register_forward_pre_hook(hook, with_kwargs=True))

    config = config.get_text_config()
    kind = config.model_type
    called = lambda name: CALLED.get(kind, {}).get(name, name)
    base = model.base_model
    base = getattr(base, "language_model", getattr(base, "decoder", base))
    base = getattr(base, "model", base)
    heads = key_heads(config)
    scaled = lambda x: x * getattr(config, "residual_multiplier", 1.0)
    parallel = kind in PARALLEL or getattr(config, "use_parallel_residual", getattr(config, "parallel_attn", False))
    for l, block in enumerate(getattr(base, called("layers"))):
        before(block, f"resid_pre.{l}")
        after(block, f"resid_post.{l}")
        attention = getattr(block, called("self_attn"))
        mlp = block if kind == "opt" else getattr(block, called("mlp"))
        after(getattr(block, called("after_attention"), attention), f"attn_out.{l}", scaled)
        after(getattr(block, called("after_mlp"), mlp.fc2 if kind == "opt" else mlp), f"mlp_out.{l}", scaled)
        if not parallel:
            norm = called("before_mlp")
            before(getattr(block, norm if norm != "before_mlp" else "post_attention_layernorm"), f"resid_mid.{l}")
        before(getattr(attention, called("o_proj")), f"attn_in.{l}")
        after(getattr(attention, called("o_proj")), f"attn_proj.{l}")
        for name, (module, part) in projections(attention, config, heads).items():
            after(module, f"{name}.{l}", part)
        if hasattr(mlp, "experts") or kind == "llama4_text":
            after(mlp, f"mlp_proj.{l}")
            if len(getattr(config, "moe_layers", base.layers)) == len(base.layers):
                router = getattr(mlp, called("gate"))
                handles.append(router.register_forward_hook(lambda m, i, o, l=l: seen.update(
                    zip((f"router_logits.{l}", f"expert_choice.{l}"), routed(kind, m, o)))))
            continue
        before(getattr(mlp, called("down_proj")), f"mlp_in.{l}")
        after(getattr(mlp, called("down_proj")), f"mlp_proj.{l}")
        if hasattr(mlp, "gate_up_proj"):
            after(mlp.gate_up_proj, f"mlp_gate.{l}", lambda x: x.chunk(2, dim=-1)[0])
        else:
            after(getattr(mlp, called("gate_proj")), f"mlp_gate.{l}")
    after(getattr(base, called("norm")), "final_norm")
    with torch.no_grad(), Attended() as attended:
        seen["logits"] = model(input_ids=ids[None], use_cache=False).logits[0]
    for name, value in attended.sites(heads):
        # OPT scales its queries before the product, others the product
        scaled_before = kind == "opt" and name.startswith("q.")
        seen[name] = value * (config.hidden_size / config.num_attention_heads) ** 0.5 if scaled_before else value
    for handle in handles:
        handle.remove()
    seen["embed"] = seen["resid_pre.0"]
    return seen


def routed(kind, router, output):
    """The logits of all experts, and the chosen."""
    if kind == "llama4_text":
        return output[1], output[1].topk(router.top_k, dim=1)[1]
    return output[0], output[2]


def gradients(model, sequences):
    """The mean negative log-likelihood of every next token, and of each tensor's gradient its length and its product with the tensor."""
    nats = sum(torch.nn.functional.cross_entropy(model(input_ids=ids[None]).logits[0, :-1], ids[1:], reduction="sum")
               for ids in sequences if len(ids) > 1)
    loss = nats / sum(len(ids) - 1 for ids in sequences)
    model.zero_grad()
    loss.backward()
    figures = {}
    for name, parameter in model.named_parameters():
        if parameter.grad is None:
            continue  # of a picture
        for part, (values, slopes) in parts(model.config, name, parameter.detach(), parameter.grad).items():
            figures[part] = [slopes.norm().item(), (values * slopes).sum().item()]
    return {"loss": loss.item(), "tensors": figures}


def parts(config, name, values, slopes):
    """The tensors of a checkpoint that one of transformers' own stands for: a decoder's in a wrapper, the matrices of all experts."""
    name = name.replace("model.language_model.", "model.")
    if ".experts." not in name or config.get_text_config().model_type in ("gpt_oss", "llama4_text"):
        if config.model_type == "mixtral":
            name = name.replace(".mlp.", ".block_sparse_moe.")
        return {name: (values, slopes)}
    block, kind = name.split(".mlp.experts.")
    behind, gate, up, down = ("block_sparse_moe", "w1", "w3", "w2") if config.model_type == "mixtral" else (
        "mlp", "gate_proj", "up_proj", "down_proj")
    found = {}
    for expert, pair in enumerate(zip(values, slopes)):
        names = {"down_proj": [down], "gate_up_proj": [gate, up]}[kind]
        for own, pair in zip(names, zip(*(half.chunk(len(names)) for half in pair))):
            found[f"{block}.{behind}.experts.{expert}.{own}.weight"] = pair
    return found


def deviation(model, config, sequences, golden, dtype):
    """How far transformers' own half precision lies from its f32: the largest difference relative to its row's maximum."""
    half = copy.deepcopy(model).to(dtype)
    runs = [watch(half, config, ids) for ids in sequences]
    far = lambda a, b: ((a - b).abs().amax(-1) / b.abs().amax(-1)).max().item()
    return max(far(torch.cat([run[site] for run in runs]).float(), golden[site]) for site in runs[0])


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--tokenizers", type=pathlib.Path)
    arguments.add_argument("cases", nargs="*", choices=[[], *CASES], metavar="CASE", help="all without any")
    arguments = arguments.parse_args()
    root = pathlib.Path(__file__).resolve().parents[2] / "tests/fixtures/models"
    for name in arguments.cases or CASES:
        config, model = build(CASES[name])
        where = root / name
        shutil.rmtree(where, ignore_errors=True)
        model.save_pretrained(where)
        (where / "generation_config.json").unlink(missing_ok=True)
        if config.model_type == "llama4":
            model, config = model.language_model, config.text_config  # transformers 5.24 cannot run the wrapper without a picture
        torch.manual_seed(SEED + 1)
        sequences = [torch.randint(0, VOCAB, (length,)) for length in LENGTHS]
        runs = [watch(model, config, ids) for ids in sequences]
        golden = {site: torch.cat([run[site] for run in runs]).float().contiguous() for site in runs[0]}
        golden["half_deviation"] = torch.tensor([deviation(model, config, sequences, golden, t) for t in (torch.bfloat16, torch.float16)])
        golden["token_ids"] = torch.cat(sequences).to(torch.int64)
        golden["lengths"] = torch.tensor(LENGTHS)
        save_file(golden, where / "golden.safetensors")
        (where / "gradients.json").write_text(json.dumps(gradients(model, sequences)) + "\n")
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


if __name__ == "__main__":
    main()
