#!/usr/bin/env python3
"""Every operation of a steering plan at every site, by PyTorch hooks: the reference of lib/steering/tests/hooks.rs.

    scripts/parity/steering.py                           # lib/steering/tests/goldens/{operations.json, llama, gemma2, gpt2}
    scripts/parity/steering.py --model DIR --out DIR [--operations add,scale] [--sites mlp_out]   # the same of any model; then STEERING_PARITY=DIR cargo test … hooks

Vectors follow from a number a: entry j is sin(a (j + 1)), rounded to three digits, and its magnitude where it is a factor of sparsify or a limit. Sublayer outputs are those that are added to the residual
stream, after any norm behind them. Goldens: the logits at each prompt's last token, and greedy tokens of the first prompt with the smallest
difference of the two best logits on the way.
"""
import argparse
import json
import math
import os
import pathlib

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

ROOT = pathlib.Path(__file__).resolve().parents[2]
GOLDENS = ROOT / "lib/steering/tests/goldens"
SITES = ["resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out", "mlp_gate"]
SPARSE_SITES = ["attn_in", "mlp_in", "mlp_act"]
# what projections give, for which a few operations stand
PROJECTED_SITES = ["q_proj", "k_proj", "v", "attn_proj", "mlp_proj"]
PROJECTED = ["add", "rotate-relative", "clip-elements"]
NEW_TOKENS = 8

OPERATIONS = {
    "add": dict(op="add", coefficient=0.5, waves=[0.7]),
    "add-unit": dict(op="add", mode="unit", coefficient=-2.5, waves=[0.7]),
    "ablate": dict(op="ablate", coefficient=1.0, waves=[0.9]),
    "ablate-subspace": dict(op="ablate", coefficient=0.75, waves=[0.9, 1.3, 2.1]),
    "rotate-absolute": dict(op="rotate", mode="absolute", angle=60.0, coefficient=1.0, waves=[0.9, 1.3]),
    "rotate-positive": dict(op="rotate", mode="positive", angle=200.0, coefficient=1.0, waves=[0.9, 1.3]),
    "rotate-relative": dict(op="rotate", mode="relative", angle=-40.0, coefficient=1.0, waves=[0.9, 1.3]),
    "scale": dict(op="scale", coefficient=1.5, waves=[2.3]),
    "redirect": dict(op="redirect", coefficient=0.3, waves=[1.1]),
    "clip-above": dict(op="clip", mode="above", threshold=-0.05, coefficient=1.0, waves=[0.4]),
    "clip-below": dict(op="clip", mode="below", threshold=0.05, coefficient=1.0, waves=[0.4]),
    "clip-elements": dict(op="clip", mode="elements", threshold=0.3, coefficient=1.0, waves=[]),
    "clip-limits": dict(op="clip", mode="elements", coefficient=1.0, waves=[0.7]),
    "gate-cosine": dict(op="add", coefficient=0.8, waves=[0.7], gate=dict(kind="cosine", at_least=0.1, wave=1.7)),
    "gate-projection": dict(op="ablate", coefficient=1.0, waves=[0.9], gate=dict(kind="projection", at_least=0.02, wave=0.3)),
    "positions": dict(op="add", coefficient=0.8, waves=[0.7], positions="1-3"),
    "sparsify-threshold": dict(op="sparsify", mode="threshold", threshold=0.15, coefficient=1.0, waves=[]),
    "sparsify-factors": dict(op="sparsify", mode="threshold", threshold=0.1, coefficient=1.0, waves=[0.7]),
    "sparsify-largest": dict(op="sparsify", mode="largest", keep=9, coefficient=1.0, waves=[0.7]),
    "sparsify-remainder": dict(op="sparsify", mode="largest", keep=5, coefficient=0.9, waves=[0.7, 1.3, 2.1]),
    "positions-open": dict(op="redirect", coefficient=0.8, waves=[0.7], positions="6-"),
}


def wave(a, width):
    return torch.tensor([round(math.sin(a * (j + 1)), 3) for j in range(width)], dtype=torch.float64)


def operate(it, x, start):
    """x: (rows, width) in f32, whose first row stands at position `start` of its sequence."""
    width, x = x.shape[-1], x.double()
    vectors = [wave(a, width) for a in it["waves"]]
    c = it["coefficient"]
    if it["op"] == "add":
        v = vectors[0] / (vectors[0].norm() if it.get("mode") == "unit" else 1)
        y = x + c * v
    elif it["op"] == "ablate":
        q = torch.linalg.qr(torch.stack(vectors).T).Q  # (width, k)
        y = x - c * (x @ q) @ q.T
    elif it["op"] == "rotate":
        b1 = vectors[0] / vectors[0].norm()
        b2 = vectors[1] - (vectors[1] @ b1) * b1
        b2 = b2 / b2.norm()
        t = math.radians(it["angle"])
        p, q = x @ b1, x @ b2
        rest = x - p[:, None] * b1 - q[:, None] * b2
        if it["mode"] == "relative":
            turned = torch.polar(torch.hypot(p, q), torch.atan2(q, p) + t)
        else:
            turned = torch.polar(torch.hypot(p, q), torch.full_like(p, t))
        y = rest + turned.real[:, None] * b1 + turned.imag[:, None] * b2
        if it["mode"] == "positive":
            y = torch.where((p > 0)[:, None], y, x)
    elif it["op"] == "scale":
        y = x * (1 + c * vectors[0])
    elif it["op"] == "redirect":
        y = x - c * vectors[0]
        y = y * (x.norm(dim=-1) / y.norm(dim=-1))[:, None]
    elif it["op"] == "sparsify":
        scores = x.abs() * (vectors[0].abs() if vectors else 1)
        if it["mode"] == "threshold":
            lost = x * (scores <= it["threshold"])
        else:
            lost = x.scatter(-1, scores.topk(it["keep"], dim=-1).indices, 0.0)
        if vectors[1:]:
            q = torch.linalg.qr(torch.stack(vectors[1:]).T).Q
            lost = lost - (lost @ q) @ q.T
        y = x - c * lost
    elif it["mode"] == "elements":
        limits = vectors[0].abs() if vectors else torch.full((width,), it["threshold"], dtype=torch.float64)
        y = torch.clamp(x, -limits, limits)
    else:
        b = vectors[0] / vectors[0].norm()
        p = x @ b
        limit = torch.clamp(p, max=it["threshold"]) if it["mode"] == "above" else torch.clamp(p, min=it["threshold"])
        y = x + (limit - p)[:, None] * b
    chosen = torch.ones(len(x), dtype=torch.bool)
    if "gate" in it:
        g = wave(it["gate"]["wave"], width)
        p = x @ (g / g.norm())
        chosen &= (p / x.norm(dim=-1) if it["gate"]["kind"] == "cosine" else p) >= it["gate"]["at_least"]
    if "positions" in it:
        first, _, last = it["positions"].partition("-")
        at = torch.arange(start, start + len(x))
        chosen &= (at >= int(first)) & (at <= int(last or 2**31))
    return torch.where(chosen[:, None], y, x).float()


def parts(model):
    body = model.transformer if hasattr(model, "transformer") else model.model
    for block in body.h if hasattr(body, "h") else body.layers:
        attention = block.attn if hasattr(block, "attn") else block.self_attn
        if hasattr(block, "pre_feedforward_layernorm"):
            yield block, block.post_attention_layernorm, block.post_feedforward_layernorm, block.mlp.gate_proj
        else:
            yield block, attention, block.mlp, getattr(block.mlp, "c_fc", getattr(block.mlp, "gate_proj", None))


def inner(block, site, edit):
    """A hook within a sublayer: on what a projection reads or gives, or on the activated gate."""
    attention, mlp = getattr(block, "attn", None) or block.self_attn, block.mlp
    if site == "mlp_act":
        return (mlp.act if hasattr(mlp, "act") else mlp.act_fn).register_forward_hook(lambda m, i, o: edit(o))
    if site in ("q_proj", "k_proj", "v"):
        return asked(attention, {"v": "v_proj"}.get(site, site), edit)
    names = {"attn_in": (attention, "o_proj"), "attn_proj": (attention, "o_proj"), "mlp_in": (mlp, "down_proj"), "mlp_proj": (mlp, "down_proj")}
    owner, name = names[site]
    projection = getattr(owner, name, None) or owner.c_proj
    if site.endswith("proj"):
        return projection.register_forward_hook(lambda m, i, o: edit(o))
    return projection.register_forward_pre_hook(lambda m, args: (edit(args[0]), *args[1:]))


def asked(attention, name, edit):
    """A hook on queries, keys or values: the output of a module, or a third of GPT-2's."""
    if hasattr(attention, name):
        return getattr(attention, name).register_forward_hook(lambda m, i, o: edit(o))
    at = ("q_proj", "k_proj", "v_proj").index(name)

    def change(module, args, out):
        thirds = list(out.chunk(3, dim=-1))
        thirds[at] = edit(thirds[at])
        return torch.cat(thirds, dim=-1)

    return attention.c_attn.register_forward_hook(change)


def first(value):
    return value[0] if isinstance(value, tuple) else value


def put(value, new):
    return (new, *value[1:]) if isinstance(value, tuple) else new


class Steered:
    """Hooks that do one operation at a site of some layers; every pass runs one whole sequence."""

    def __init__(self, model, it, site, layers):
        self.handles = []
        edit = lambda x: operate(it, x[0], 0)[None]
        for layer, (block, attention, mlp, gate) in enumerate(parts(model)):
            if layer not in layers:
                continue
            after = lambda module, change: self.handles.append(module.register_forward_hook(lambda m, i, o: put(o, change(first(o)))))
            if site in SPARSE_SITES + PROJECTED_SITES:
                self.handles.append(inner(block, site, edit))
            elif site == "resid_pre":
                self.handles.append(block.register_forward_pre_hook(lambda m, args: (edit(args[0]), *args[1:])))
            elif site == "resid_mid":
                seen = {}
                self.handles.append(block.register_forward_pre_hook(lambda m, args, seen=seen: seen.update(x=args[0])))
                after(attention, lambda out, seen=seen: edit(seen["x"] + out) - seen["x"])
            else:
                after({"resid_post": block, "attn_out": attention, "mlp_out": mlp, "mlp_gate": gate}[site], edit)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for handle in self.handles:
            handle.remove()


@torch.no_grad()
def last_logits(model, ids):
    return model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1]


def greedy(model, ids):
    ids, margin = list(ids), math.inf
    for _ in range(NEW_TOKENS):
        best = last_logits(model, ids).topk(2)
        margin = min(margin, (best.values[0] - best.values[1]).item())
        ids.append(best.indices[0].item())
    return ids[-NEW_TOKENS:], margin


def golden(model, layers, prompts, operations=tuple(OPERATIONS), sites=()):
    tensors = {"token_ids": torch.tensor(sum(prompts, [])), "lengths": torch.tensor([len(ids) for ids in prompts]), "layers": torch.tensor(layers)}
    plain = torch.stack([last_logits(model, ids) for ids in prompts])
    for name in operations:
        it = OPERATIONS[name]
        usual = SPARSE_SITES if it["op"] == "sparsify" else SITES + (PROJECTED_SITES if name in PROJECTED else [])
        for site in sites or usual:
            with Steered(model, it, site, layers):
                logits = torch.stack([last_logits(model, ids) for ids in prompts])
                tokens, margin = greedy(model, prompts[0])
            tensors[f"{name}.{site}.logits"] = logits
            tensors[f"{name}.{site}.tokens"] = torch.tensor(tokens)
            tensors[f"{name}.{site}.margin"] = torch.tensor([margin])
            if (logits - plain).abs().max() < 1e-3:
                print(f"  {name} at {site} changes nothing to speak of")
    return tensors


def load(path):
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="eager").eval()


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--model", type=pathlib.Path)
    arguments.add_argument("--out", type=pathlib.Path)
    arguments.add_argument("--operations", default=",".join(OPERATIONS))
    arguments.add_argument("--sites", default="")
    arguments = arguments.parse_args()
    torch.set_num_threads(1)
    if arguments.model:
        model = load(arguments.model)
        draw = torch.Generator().manual_seed(1)
        prompts = [torch.randint(50, 9000, (length,), generator=draw).tolist() for length in (7, 12)]
        arguments.out.mkdir(exist_ok=True)
        depth = model.config.num_hidden_layers
        chosen = arguments.operations.split(","), list(filter(None, arguments.sites.split(",")))
        save_file(golden(model, [depth // 3, depth // 2], prompts, *chosen), arguments.out / "golden.safetensors")
        (arguments.out / "model").write_text(str(arguments.model.resolve()))
        return
    (GOLDENS / "operations.json").write_text(json.dumps(OPERATIONS, indent=1) + "\n")
    for name in ("llama", "gemma2", "gpt2"):
        print(name)
        prompts = [[1, 17, 40, 5, 9], [30, 8, 22], [4, 44, 12, 7, 33, 21, 6, 19, 28, 3, 11, 40]]
        save_file(golden(load(ROOT / "tests/fixtures/models" / name), [0, 2], prompts), GOLDENS / f"{name}.safetensors")


if __name__ == "__main__":
    main()
