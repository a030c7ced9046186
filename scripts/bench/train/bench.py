"""One AdamW step of a 100 M Llama, 8 x 256 tokens, f32 on the CPU: vcl-train against transformers + PyTorch, one table.

    python scripts/bench/train/bench.py [--rounds 3] [--threads 2] [--compile] [--bin target/release/vcl-train]

Each round starts every contestant once, one after the other, so that a busy machine hits all of them; the table gives
medians over rounds and ratios. OPENBLAS_CORETYPE and OPENBLAS_L2_SIZE are unset for all, and PyTorch gets the malloc settings
that vcl-train gives itself. Every step: forward, backward, clipping to norm 1, AdamW; all 8 x 255 predictions count.
"""

import argparse
import json
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[3]
SHAPE = dict(vocab_size=32000, hidden_size=768, intermediate_size=2048, num_hidden_layers=12, num_attention_heads=12,
             num_key_value_heads=12, max_position_embeddings=512, tie_word_embeddings=True)
BATCH, LENGTH, STEPS = 8, 256, 3


def reference(mode, threads):
    """Child process: prints seconds per step and peak RSS of transformers + PyTorch."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    if "medium" in mode:
        torch.set_float32_matmul_precision("medium")
    model = LlamaForCausalLM(LlamaConfig(**SHAPE))
    model.config.use_cache = False
    if "checkpointing" in mode:
        model.gradient_checkpointing_enable()
    run = torch.compile(model) if "compile" in mode else model
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-5, weight_decay=0.0)
    seconds = []
    for _ in range(STEPS):
        ids = torch.randint(0, SHAPE["vocab_size"], (BATCH, LENGTH))
        start = time.perf_counter()
        optimiser.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled="bf16" in mode):
            loss = run(ids, labels=ids).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        seconds.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"seconds": statistics.mean(seconds[1:]), "peak": peak}))


def prepare(folder):
    """config.json, a tokenizer of 32,000 words, and rows of words: every row is cut to 256 tokens."""
    import random

    random.seed(0)
    (folder / "tokenizer").mkdir()
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "rms_norm_eps": 1e-6,
              "rope_theta": 10000.0, "bos_token_id": 1, "eos_token_id": 2, **SHAPE}
    for path in (folder / "config.json", folder / "tokenizer/config.json"):
        path.write_text(json.dumps(config))
    vocab = {word: i for i, word in enumerate(["<unk>", "<s>", "</s>"] + [f"w{i}" for i in range(3, SHAPE["vocab_size"])])}
    tokenizer = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
                 "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": None, "decoder": None,
                 "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "<unk>"}}
    (folder / "tokenizer/tokenizer.json").write_text(json.dumps(tokenizer))
    (folder / "tokenizer/tokenizer_config.json").write_text(json.dumps({"bos_token": "<s>", "eos_token": "</s>"}))
    with open(folder / "rows.jsonl", "w") as rows:
        for _ in range(BATCH * STEPS):
            text = " ".join(f"w{random.randrange(3, SHAPE['vocab_size'])}" for _ in range(LENGTH + 8))
            rows.write(json.dumps({"text": text}) + "\n")


def ours(binary, folder, threads, *more):
    command = [binary, "--init", folder / "config.json", "--tokenizer", folder / "tokenizer", "--data", folder / "rows.jsonl",
               "--raw", "--max-length", str(LENGTH), "--batch-size", str(BATCH), "--probe", "--quiet", "--threads", str(threads), *more]
    answer = json.loads(subprocess.run(command, check=True, capture_output=True, env=environment(False)).stdout)
    return {"seconds": answer["seconds_per_step"], "peak": answer["peak_rss_bytes"], "phases": answer["phase_seconds"]}


def environment(malloc):
    env = {k: v for k, v in os.environ.items() if k not in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")}
    if malloc:
        env |= {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "-1", "MALLOC_TOP_PAD_": str(256 << 20)}
    return env


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--only", nargs="*", help="contestants whose name holds one of these words")
    parser.add_argument("--bin", default=ROOT / "target/release/vcl-train", type=pathlib.Path)
    parser.add_argument("--reference", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.reference is not None:
        return reference(args.reference, args.threads)

    def torch_side(mode, malloc=True):
        command = [sys.executable, __file__, "--reference", mode, "--threads", str(args.threads)]
        return json.loads(subprocess.run(command, check=True, capture_output=True, env=environment(malloc)).stdout)

    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        prepare(folder)
        run = lambda *more: lambda: ours(args.bin, folder, args.threads, *more)
        contestants = {
            "vcl-train": run(),
            "vcl-train, medium": run("--precision", "medium"),
            "vcl-train, bf16": run("--dtype", "bf16"),
            "vcl-train, observing C_k": run("--aux", "vcl:gamma=0"),
            "vcl-train, gamma = 50": run("--aux", "vcl:k=4,gamma=50,window=0.3-0.5"),
            "vcl-train, --recompute": run("--recompute"),
            "vcl-train, 4 micro-batches, gamma = 50": run("--micro-batch", "2", "--aux", "vcl:k=4,gamma=50"),
            "PyTorch eager": lambda: torch_side("eager", malloc=False),
            "PyTorch eager, malloc tuned": lambda: torch_side("eager"),
            "PyTorch medium, malloc tuned": lambda: torch_side("medium"),
            "PyTorch bf16 autocast, malloc tuned": lambda: torch_side("bf16"),
        }
        if args.compile:
            contestants["PyTorch compile, medium"] = lambda: torch_side("medium compile")
        if args.only:
            contestants = {name: run for name, run in contestants.items() if any(word in name for word in args.only)}
        found = {name: [] for name in contestants}
        for _ in range(args.rounds):
            for name, contestant in contestants.items():
                found[name].append(contestant())
        rows = found.get("PyTorch eager") or next(iter(found.values()))
        base = statistics.median(row["seconds"] for row in rows)
        base_peak = statistics.median(row["peak"] for row in rows)
        print(f"{'':40} tokens/s   x eager   peak GB   x eager   phases (share)")
        for name, rows in found.items():
            seconds = statistics.median(row["seconds"] for row in rows)
            peak = statistics.median(row["peak"] for row in rows)
            phases = rows[-1].get("phases", {})
            total = sum(phases.values())
            shares = "  ".join(f"{phase} {value / total:.2f}" for phase, value in phases.items())
            print(f"{name:40} {BATCH * LENGTH / seconds:8.0f} {base / seconds:9.2f} {peak / 1e9:9.2f} {peak / base_peak:9.2f}   {shares}")


main()
