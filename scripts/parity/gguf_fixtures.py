#!/usr/bin/env python3
"""Writes tests/fixtures/gguf with the `gguf` package: the small models of tests/fixtures/models as GGUF files (their numbers are held to
the same goldens), one tensor of every stored type beside what the package makes of its blocks, and vocabularies beside the tokens that
llama.cpp makes of awkward texts.
usage: gguf_fixtures.py [tests/fixtures]     needs gguf, numpy, safetensors; sentencepiece, tokenizers and xllamacpp for the vocabularies"""
import ctypes, io, json, pathlib, re, sys, tempfile

import gguf
import numpy as np
from safetensors.numpy import load_file, save_file

ROOT = pathlib.Path(__file__).resolve().parents[2]
fixtures = pathlib.Path(sys.argv[1]) if __name__ == "__main__" and len(sys.argv) > 1 else ROOT / "tests/fixtures"
out = fixtures / "gguf"
LICENSE = ROOT / "LICENSE-APACHE"  # an English text that stays as it is
ARCHITECTURES = {
    "llama": "llama", "llama3-rope": "llama", "llama-linear-rope": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3",
    "gemma": "gemma", "gemma2": "gemma2", "gemma3": "gemma3", "phi3": "phi3", "phi3-longrope": "phi3", "olmo": "olmo", "olmo2": "olmo2",
    "gpt2": "gpt2", "gpt_neox": "gptneox", "gpt_neox-sequential": "gptneox", "mixtral": "llama", "qwen3_moe": "qwen3moe", "olmoe": "olmoe",
    "olmo3": "olmo2", "smollm3-plain": "smollm3", "granite": "granite", "glm": "chatglm", "glm4": "glm4", "phi": "phi2", "falcon": "falcon",
    "falcon-grouped": "falcon", "falcon-one-norm": "falcon", "qwen2-yarn": "qwen2", "ministral3": "mistral3",
    "gpt_oss-usual": "gpt-oss",
}
# of the others llama.cpp's logits are those of transformers, but for the f16 of its cache
UNLIKE_LLAMA_CPP = {
    "mistral": "does not slide", "phi3": "does not slide", "phi3-longrope": "does not slide", "olmo3": "ignores yarn_attn_factor",
    "falcon-grouped": "reads no biases", "glm": "wants heads as wide as the residual together", "qwen2-yarn": "wants that too",
    "olmoe": "wants as many key heads as query heads",
}
NEAR = 5e-3
EXPERT = re.compile(r"model\.layers\.(\d+)\.(?:mlp|block_sparse_moe)\.experts\.\d+\.(\w+)\.weight")
TOGETHER = re.compile(r"model\.layers\.(\d+)\.mlp\.experts\.(gate_up_proj|down_proj)(_bias)?")
PARTS = {"w1": "gate", "w2": "down", "w3": "up", "gate_proj": "gate", "down_proj": "down", "up_proj": "up"}


def paired(weights, heads):
    """The order of rows in which llama.cpp rotates neighbours instead of halves."""
    return weights.reshape(heads, 2, weights.shape[0] // heads // 2, *weights.shape[1:]).swapaxes(1, 2).reshape(weights.shape)


def stacked(weights, heads, kv_heads):
    """All of q, then k, then v, from what stands by key head."""
    head = weights.shape[0] // (heads + 2 * kv_heads)
    by_head = weights.reshape(kv_heads, -1, head, *weights.shape[1:])
    return np.concatenate([part.reshape(-1, *weights.shape[1:]) for part in (by_head[:, :-2], by_head[:, -2], by_head[:, -1])])


def unpaired(module, weights):
    """Of the matrices (experts, in, out) or biases (experts, out) of all experts those of each part, by output."""
    parts = {"gate": weights[..., ::2], "up": weights[..., 1::2]} if module == "gate_up_proj" else {"down": weights}
    for part, own in parts.items():
        yield part, np.ascontiguousarray(own.swapaxes(1, 2) if own.ndim == 3 else own)


def kv_heads(config, arch):
    """How many heads keys have."""
    heads = config.get("num_attention_heads") or config["n_head"]
    if arch == "falcon":
        return config["num_kv_heads"] if config["new_decoder_architecture"] else 1 if config["multi_query"] else heads
    return config.get("num_key_value_heads") or heads


def llama3_factors(base, scaling, dims):
    """What each frequency is divided by."""
    factors = []
    for frequency in 1 / base ** (np.arange(0, dims, 2) / dims):
        length = 2 * np.pi / frequency
        low = scaling["original_max_position_embeddings"] / scaling["low_freq_factor"]
        high = scaling["original_max_position_embeddings"] / scaling["high_freq_factor"]
        smooth = (low / length - 1) / (low / high - 1)
        factors.append(1 if length < high else scaling["factor"] if length > low else 1 / ((1 - smooth) / scaling["factor"] + smooth))
    return np.array(factors, np.float32)


def write_keys(writer, config, arch):
    ropes = config.get("rope_parameters") or {}
    config = {**config, **ropes.get("full_attention", ropes)} if ropes else config
    get = lambda *keys: next((config[key] for key in keys if config.get(key) is not None), None)
    hidden, heads = get("hidden_size", "n_embd"), get("num_attention_heads", "n_head")
    head_dim = get("head_dim") or hidden // heads
    writer.add_vocab_size(config["vocab_size"])
    writer.add_block_count(get("num_hidden_layers", "n_layer"))
    writer.add_context_length(get("max_position_embeddings", "n_positions"))
    writer.add_embedding_length(hidden)
    writer.add_feed_forward_length(get("intermediate_size", "n_inner", "ffn_hidden_size") or 4 * hidden)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads(config, arch))
    if arch in ("gpt2", "gptneox", "olmo", "phi2", "falcon"):
        writer.add_layer_norm_eps(get("layer_norm_epsilon", "layer_norm_eps") or 1e-5)
    else:
        writer.add_layer_norm_rms_eps(get("rms_norm_eps"))
    if arch != "gpt2":
        writer.add_rope_freq_base(float(get("rope_theta")))
        writer.add_rope_dimension_count(int(head_dim * (get("partial_rotary_factor", "rotary_pct") or 1)))
    if get("head_dim"):
        writer.add_key_length(head_dim)
        writer.add_value_length(head_dim)
    if get("num_local_experts", "num_experts"):
        writer.add_expert_count(get("num_local_experts", "num_experts"))
        writer.add_expert_used_count(get("num_experts_per_tok"))
    if arch == "gpt-oss":
        writer.add_expert_feed_forward_length(get("intermediate_size"))
    if get("moe_intermediate_size"):
        writer.add_expert_feed_forward_length(get("moe_intermediate_size"))
    if arch == "granite":
        writer.add_attention_scale(config["attention_multiplier"])
        writer.add_embedding_scale(config["embedding_multiplier"])
        writer.add_residual_scale(config["residual_multiplier"])
        writer.add_logit_scale(config["logits_scaling"])
    if get("clip_qkv") and arch == "olmoe":
        writer.add_clamp_kqv(config["clip_qkv"])
    if arch == "olmo2" and get("layer_types"):
        writer.add_sliding_window_pattern([kind == "sliding_attention" for kind in config["layer_types"]])
    if get("sliding_window"):
        writer.add_sliding_window(get("sliding_window"))
    if arch == "gptneox":
        writer.add_parallel_residual(config["use_parallel_residual"])
    if arch == "olmo":
        writer.add_clamp_kqv(config["clip_qkv"])
    if arch == "gemma2":
        writer.add_attn_logit_softcapping(config["attn_logit_softcapping"])
        writer.add_final_logit_softcapping(config["final_logit_softcapping"])
    if arch == "gemma3":
        writer.add_uint32("gemma3.attention.sliding_window_pattern", config["sliding_window_pattern"])
        writer.add_rope_freq_base_swa(config["rope_local_base_freq"])
    scaling = get("rope_scaling") or config
    if scaling.get("rope_type") == "yarn":
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(scaling["factor"])
        writer.add_rope_scaling_orig_ctx_len(scaling["original_max_position_embeddings"])
        for key, add in (("beta_fast", writer.add_rope_scaling_yarn_beta_fast), ("beta_slow", writer.add_rope_scaling_yarn_beta_slow),
                         ("attention_factor", writer.add_rope_scaling_yarn_attn_factor)):
            if scaling.get(key):
                add(scaling[key])
    if arch == "mistral3":
        writer.add_rope_scaling_yarn_log_mul(scaling["mscale_all_dim"])
        writer.add_attn_temperature_scale(scaling["llama_4_scaling_beta"])
    if scaling.get("rope_type") == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(scaling["factor"])
    if scaling.get("rope_type") == "llama3":
        writer.add_tensor("rope_freqs.weight", llama3_factors(config["rope_theta"], scaling, head_dim))
    if "longrope" in (scaling.get("type"), scaling.get("rope_type")):
        original = config["original_max_position_embeddings"]
        writer.add_rope_scaling_orig_ctx_len(original)
        stretch = config["max_position_embeddings"] / original
        writer.add_rope_scaling_attn_factors(float(np.sqrt(1 + np.log(stretch) / np.log(original))))
        writer.add_tensor("rope_factors_long.weight", np.array(scaling["long_factor"], np.float32))
        writer.add_tensor("rope_factors_short.weight", np.array(scaling["short_factor"], np.float32))
    for key, add in (("bos_token_id", writer.add_bos_token_id), ("eos_token_id", writer.add_eos_token_id)):
        if isinstance(config.get(key), int):
            add(config[key])


def as_stored(key, weights, config, arch):
    """What the format's own converter does to a tensor."""
    module = key.rsplit(".", 1)[0]
    heads = config.get("num_attention_heads") or config["n_head"]
    weights = np.asarray(weights, np.float32)
    if arch in ("llama", "mistral3", "olmo", "smollm3", "granite") and module.endswith(("q_proj", "k_proj")):
        weights = paired(weights, heads if module.endswith("q_proj") else config["num_key_value_heads"])
    if arch in ("gptneox", "falcon") and module.endswith("query_key_value"):
        weights = stacked(weights, heads, kv_heads(config, arch))
    if arch.startswith("gemma") and module.endswith("norm"):
        weights = weights + 1
    if arch == "gpt2" and weights.ndim == 2 and ".h." in key:
        weights = weights.T.copy()
    # no key says what scores are divided by where that is not a head's length: the difference goes into the queries
    if module.endswith({"gemma2": "q_proj", "gemma3": "q_norm"}.get(arch, "none")):
        weights = weights * np.float32(np.sqrt(config["head_dim"] / config["query_pre_attn_scalar"]))
    return weights


def finish(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def letters(writer):
    """The tokenizer of the tests' lettered models; the one pair that merges stands in no text, but a list may not be empty."""
    tokens = ["<s>", "Ġ", ".", ",", "?", "!", "'", *"abcdefghijklmnopqrstuvwxyz0123456789", "qq"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_merges(["q q"])
    writer.add_chat_template("{% for m in messages %}{{ m.role[0] }} {{ m.content }}.{% endfor %}")


def write_model(name, arch, path, vocabulary):
    folder = fixtures / "models" / name
    config = json.loads((folder / "config.json").read_text())
    writer = gguf.GGUFWriter(out / path, arch)
    write_keys(writer, config, arch)
    vocabulary(writer)
    layers = config.get("num_hidden_layers") or config["n_layer"]
    names = gguf.get_tensor_name_map(getattr(gguf.MODEL_ARCH, arch.upper().replace("-", "_")), layers)
    tied = config.get("tie_word_embeddings", arch in ("gemma", "gemma2", "gemma3", "gpt2", "smollm3", "falcon"))
    experts = {}
    for key, weights in sorted(load_file(folder / "model.safetensors").items(), key=numbered):
        if key == "lm_head.weight" and tied:
            continue
        if expert := EXPERT.fullmatch(key):
            experts.setdefault(f"blk.{expert[1]}.ffn_{PARTS[expert[2]]}_exps.weight", []).append(weights)
            continue
        if together := TOGETHER.fullmatch(key):
            for part, own in unpaired(together[2], weights):
                writer.add_tensor(f"blk.{together[1]}.ffn_{part}_exps.{'bias' if together[3] else 'weight'}", own)
            continue
        key = f"{key}.weight" if key.endswith("sinks") else key
        stored = names.get_name(key, try_suffixes=(".weight", ".bias"))
        assert stored, key
        writer.add_tensor(stored, as_stored(key, weights, config, arch))
    for stored, parts in experts.items():
        writer.add_tensor(stored, np.stack(parts))
    finish(writer)


def numbered(item):
    """Sorts names with their numbers as numbers."""
    return [int(part) if part.isdigit() else part for part in item[0].split(".")]


def write_types():
    """Any bytes are blocks; their scales are made small numbers."""
    random = np.random.default_rng(7)
    writer = gguf.GGUFWriter(out / "types.gguf", "llama")
    golden = {}
    scales = {"Q4_1": (0, 2), "Q5_1": (0, 2), "Q2_K": (80, 82), "Q3_K": (108,), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,)}
    for name in "F32 F16 BF16 Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K Q3_K Q4_K Q5_K Q6_K IQ4_NL IQ4_XS MXFP4".split():
        kind = gguf.GGMLQuantizationType[name]
        block, size = gguf.GGML_QUANT_SIZES[kind]
        if block == 1:
            stored = gguf.quants.quantize(random.normal(size=(3, 512)).astype(np.float32), kind)
        else:
            stored = random.integers(0, 256, size=(3, 512 // block * size), dtype=np.uint8)
            blocks = stored.reshape(-1, size)
            if name == "MXFP4":
                blocks[:, 0] = random.integers(100, 140, size=len(blocks))
            for at in () if name == "MXFP4" else scales.get(name, (0,)):
                blocks[:, at : at + 2] = random.normal(size=(len(blocks), 1)).astype(np.float16).view(np.uint8)
        golden[name] = gguf.quants.dequantize(stored, kind).astype(np.float32)
        writer.add_tensor(name, stored, raw_dtype=kind)
    finish(writer)
    save_file(golden, out / "types.safetensors")


def write_stored():
    """A small model whose matrices are quantised, of two kinds."""
    random = np.random.default_rng(13)
    config = dict(hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, vocab_size=48,
                  max_position_embeddings=64, rms_norm_eps=1e-5, rope_theta=10000.0, bos_token_id=1, eos_token_id=2)
    writer = gguf.GGUFWriter(out / "stored.gguf", "llama")
    write_keys(writer, config, "llama")
    letters(writer)
    writer.add_tensor("token_embd.weight", random.normal(size=(48, 64)).astype(np.float32))
    writer.add_tensor("output_norm.weight", np.ones(64, np.float32))
    for layer in range(2):
        for norm in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{layer}.{norm}.weight", np.ones(64, np.float32))
        for part, rows in (("attn_q", 64), ("attn_k", 32), ("attn_v", 32), ("attn_output", 64), ("ffn_gate", 64), ("ffn_up", 64), ("ffn_down", 64)):
            kind = gguf.GGMLQuantizationType.Q8_0 if part.startswith("attn") else gguf.GGMLQuantizationType.Q4_0
            stored = gguf.quants.quantize(random.normal(scale=0.15, size=(rows, 64)).astype(np.float32), kind)
            writer.add_tensor(f"blk.{layer}.{part}.weight", stored, raw_dtype=kind)
    finish(writer)


def repacked(blocks, scales):
    """Runs of 16 bytes whose two codes lie side by side → blocks of a scale and 16 bytes, of which the low halves come first."""
    codes = np.stack([blocks & 15, blocks >> 4], axis=-1).reshape(*blocks.shape[:-1], 32)
    packed = np.concatenate([scales[..., None], codes[..., :16] | codes[..., 16:] << 4], axis=-1)
    return packed.reshape(*packed.shape[:-2], -1)


def write_mxfp4():
    """The small gpt-oss of mxfp4.py."""
    folder = fixtures / "mxfp4"
    config = dict(rms_norm_eps=1e-5, rope_theta=150000.0, sliding_window=128, rope_scaling=dict(
        rope_type="yarn", factor=32.0, original_max_position_embeddings=4096), **json.loads((folder / "config.json").read_text()))
    writer = gguf.GGUFWriter(out / "mxfp4.gguf", "gpt-oss")
    write_keys(writer, config, "gpt-oss")
    writer.add_tokenizer_model("none")
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.GPT_OSS, 1)
    tensors = load_file(folder / "model.safetensors")
    for key, weights in tensors.items():
        at, module = key.split(".mlp.experts.") if ".mlp.experts." in key else (key, None)
        if module is None:
            stored = names.get_name(f"{key}.weight" if key.endswith("sinks") else key, try_suffixes=(".weight", ".bias"))
            writer.add_tensor(stored, np.asarray(weights, np.float32))
        elif module.endswith("_bias"):
            for part, own in unpaired(module.removesuffix("_bias"), np.asarray(weights, np.float32)):
                writer.add_tensor(f"blk.0.ffn_{part}_exps.bias", own)
        elif module.endswith("_blocks"):
            module = module.removesuffix("_blocks")
            packed = repacked(weights, tensors[f"{at}.mlp.experts.{module}_scales"])
            parts = {"gate": packed[:, ::2], "up": packed[:, 1::2]} if module == "gate_up_proj" else {"down": packed}
            for part, own in parts.items():
                kind = gguf.GGMLQuantizationType.MXFP4
                writer.add_tensor(f"blk.0.ffn_{part}_exps.weight", np.ascontiguousarray(own), raw_dtype=kind)
    finish(writer)


WORDS = """gpt-2 phi-2 mpt jais gigachat exaone4 mellum olmo smollm starcoder refact command-r codeshell exaone minerva-7b dbrx smaug-bpe
chatglm-bpe glm4 falcon llama3 llama-v3 llama-bpe falcon3 pixtral qwen2 deepseek-r1-qwen megrez tekken gpt-4o""".split()
TEXTS = [
    "", " ", "Hello, world!", "  two  spaces ", "a     b", "tab\tand\nnewline\r\n\n\n", "naïve café Ångström", "日本語のテキスト", "👩‍👩‍👧‍👦 🇩🇪",
    "don't I'LL we'Ve", "1234567890 3.14159", "<s>x</s>", "a<|end|> b", "def f(x):\n    return x  # done", "\u00a0nbsp\u200bzwsp", "مرحبا",
    "CamelCaseWords and UPPERlower", "A" * 50, "\u2581under", "How do I kill a Python process?",
]


def write_vocabulary(path, fill, token_count=0):
    """A file with a vocabulary; llama.cpp wants a model around it."""
    writer = gguf.GGUFWriter(path, "llama")
    for add, value in ((writer.add_block_count, 1), (writer.add_context_length, 64), (writer.add_embedding_length, 32),
                       (writer.add_feed_forward_length, 32), (writer.add_head_count, 1), (writer.add_layer_norm_rms_eps, 1e-5)):
        add(value)
    fill(writer)
    if token_count:
        writer.add_tensor("token_embd.weight", np.ones((token_count, 32), np.float32))
        for part in "attn_q attn_k attn_v attn_output ffn_gate ffn_up ffn_down".split():
            writer.add_tensor(f"blk.0.{part}.weight", np.ones((32, 32), np.float32))
        for norm in "blk.0.attn_norm blk.0.ffn_norm output_norm".split():
            writer.add_tensor(f"{norm}.weight", np.ones(32, np.float32))
    finish(writer)


def byte_level(pre):
    import tokenizers

    corpus = LICENSE.read_text().splitlines(keepends=True) + TEXTS
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    special = ["<s>", "</s>", "<|end|>"]
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=500, special_tokens=special, show_progress=False,
                                             initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet())
    made.train_from_iterator(corpus, trainer)
    model = json.loads(made.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get)

    def fill(writer):
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(pre)
        writer.add_token_list(tokens)
        writer.add_token_types([gguf.TokenType.CONTROL if token in special else gguf.TokenType.NORMAL for token in tokens])
        writer.add_token_merges([" ".join(merge) for merge in model["merges"]])
        writer.add_bos_token_id(0)
        writer.add_eos_token_id(1)

    return fill


def pieces(prefixes):
    import sentencepiece

    corpus = LICENSE.read_text().splitlines()
    # llama.cpp finds runs of spaces before it adds a prefix, SentencePiece after: only where there is none do they agree
    own = ["\n\n", "<b>"] + ([] if prefixes else ["▁▁", "▁▁▁"])
    trained = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus), model_writer=trained, vocab_size=600, model_type="bpe", byte_fallback=True, minloglevel=2,
        user_defined_symbols=own, normalization_rule_name="identity", remove_extra_whitespaces=False)
    model = sentencepiece.SentencePieceProcessor(model_proto=trained.getvalue())
    kind = lambda id: (gguf.TokenType.UNKNOWN if model.is_unknown(id) else gguf.TokenType.CONTROL if model.is_control(id)
                       else gguf.TokenType.BYTE if model.is_byte(id)
                       else gguf.TokenType.USER_DEFINED if model.id_to_piece(id) in own else gguf.TokenType.NORMAL)
    ids = range(model.vocab_size())
    spelt = lambda id: model.id_to_piece(id).replace("▁", " ") if kind(id) == gguf.TokenType.USER_DEFINED else model.id_to_piece(id)

    def fill(writer):
        writer.add_tokenizer_model("llama")
        writer.add_tokenizer_pre("default")
        writer.add_token_list([spelt(id) for id in ids])
        writer.add_token_scores([model.get_score(id) for id in ids])
        writer.add_token_types([kind(id) for id in ids])
        writer.add_bos_token_id(model.bos_id())
        writer.add_eos_token_id(model.eos_id())
        writer.add_add_space_prefix(prefixes)

    return fill


class Parameters(ctypes.Structure):
    _fields_ = [("bytes", ctypes.c_byte * 512)]  # more than the library's own structure: passed on as it was made


class Llama:
    """llama.cpp's own tokenizer and logits, out of the shared object of xllamacpp."""

    def __init__(self):
        import xllamacpp

        self.api = ctypes.CDLL(str(next(pathlib.Path(xllamacpp.__file__).parent.glob("*.so"))))
        self.api.llama_model_default_params.restype = Parameters
        self.api.llama_model_load_from_file.restype = self.api.llama_model_get_vocab.restype = ctypes.c_void_p
        self.api.llama_model_load_from_file.argtypes = [ctypes.c_char_p, Parameters]
        self.api.llama_model_get_vocab.argtypes = [ctypes.c_void_p]
        self.api.llama_context_default_params.restype = self.api.llama_batch_get_one.restype = Parameters
        self.api.llama_init_from_model.restype = ctypes.c_void_p
        self.api.llama_init_from_model.argtypes = [ctypes.c_void_p, Parameters]
        self.api.llama_decode.argtypes = [ctypes.c_void_p, Parameters]
        self.api.llama_get_logits_ith.restype = ctypes.POINTER(ctypes.c_float)
        self.api.llama_get_logits_ith.argtypes = [ctypes.c_void_p, ctypes.c_int32]

    def logits(self, path, ids, size):
        """Those of the last token."""
        model = self.api.llama_model_load_from_file(str(path).encode(), self.api.llama_model_default_params())
        context = self.api.llama_init_from_model(model, self.api.llama_context_default_params())
        given = (ctypes.c_int32 * len(ids))(*ids)
        assert context and self.api.llama_decode(context, self.api.llama_batch_get_one(given, len(ids))) == 0, path
        return np.ctypeslib.as_array(self.api.llama_get_logits_ith(context, -1), (size,)).copy()

    def tokens(self, fill, token_count):
        with tempfile.NamedTemporaryFile(suffix=".gguf") as file:
            write_vocabulary(file.name, fill, token_count)
            model = self.api.llama_model_load_from_file(file.name.encode(), self.api.llama_model_default_params())
        assert model
        return [self.of(ctypes.c_void_p(self.api.llama_model_get_vocab(model)), text.encode()) for text in TEXTS]

    def of(self, vocabulary, text):
        found = (ctypes.c_int32 * (len(text) + 16))()
        added = ctypes.c_bool(True)
        count = self.api.llama_tokenize(vocabulary, text, len(text), found, len(found), added, added)
        return list(found[:count])


def write_vocabularies():
    llama, golden = Llama(), {}
    for name in WORDS:
        golden[name] = llama.tokens(byte_level(name), 500)
    write_vocabulary(out / "byte-level.gguf", byte_level("gpt-2"))
    for name, prefixes in (("pieces", False), ("pieces-prefixed", True)):
        golden[name] = llama.tokens(pieces(prefixes), 600)
        write_vocabulary(out / f"{name}.gguf", pieces(prefixes))
    text = json.dumps({"texts": TEXTS, "tokens": golden}, ensure_ascii=True)
    (out / "tokens.json").write_text(text + "\n")


def compare_with_llama_cpp():
    """A file that only we can read is not of this format."""
    llama = Llama()
    for name in ARCHITECTURES.keys() - UNLIKE_LLAMA_CPP.keys():
        golden = load_file(fixtures / "models" / name / "golden.safetensors")
        theirs, ids = golden["logits"][-1], golden["token_ids"][-golden["lengths"][-1] :].tolist()
        far = np.abs(llama.logits(out / f"{name}.gguf", ids, len(theirs)) - theirs).max() / np.abs(theirs).max()
        print(f"{name:22} {far:.1e} from llama.cpp")
        assert far < NEAR, name


if __name__ == "__main__":
    out.mkdir(exist_ok=True)
    for name, arch in ARCHITECTURES.items():
        write_model(name, arch, f"{name}.gguf", lambda writer: writer.add_tokenizer_model("none"))
    compare_with_llama_cpp()
    write_model("qwen3", "qwen3", "lettered.gguf", letters)
    write_types()
    write_stored()
    write_mxfp4()
    write_vocabularies()
