#!/usr/bin/env python3
"""What act-sparsity must give, in numpy: the reference of tools/act-sparsity/tests/cli.rs.

    scripts/parity/act_sparsity.py        # writes tools/act-sparsity/tests/numpy.json

Activations are those that transformers gave (tests/fixtures/models/llama/golden.safetensors), weights those of the same model.
"""
import json
import pathlib

import numpy as np
from safetensors.numpy import load_file

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODEL = ROOT / "tests/fixtures/models/llama"
SHARE, CETT, ALPHA = 0.5, 0.2, 0.5


def lost(x, w, kept, basis=None):
    rest = np.where(kept, 0, x)
    if basis is not None:
        rest = rest - rest @ basis.T @ basis
    whole, missing = np.linalg.norm(x @ w.T, axis=1), np.linalg.norm(rest @ w.T, axis=1)
    return dict(
        sparsity=1 - kept.mean(),
        rel_error=np.linalg.norm(missing) / np.linalg.norm(whole),
        cett=(missing / whole).mean(),
    )


def quantile(scores, share):
    count = int(share * scores.size)
    return np.sort(scores, axis=None)[count - 1] if count else 0.0


def largest(scores, count):
    return scores >= -np.sort(-scores, axis=1)[:, count - 1 : count]


def threshold_of_cett(x, w, scores, cett):
    ascending = np.sort(scores, axis=None)
    low, high = 0, scores.size + 1
    while high - low > 1:
        middle = (low + high) // 2
        if lost(x, w, scores > ascending[middle - 1])["cett"] > cett:
            high = middle
        else:
            low = middle
    return ascending[low - 1] if low else 0.0


def main():
    weights, seen = load_file(MODEL / "model.safetensors"), load_file(MODEL / "golden.safetensors")
    config = json.loads((MODEL / "config.json").read_text())
    layers = range(config["num_hidden_layers"])
    single = lambda numbers: numbers.astype(np.float32).astype(np.float64)
    sites = {"attn_in": "self_attn.o_proj", "mlp_in": "mlp.down_proj"}
    rows = []
    for site, part in sites.items():
        x = {layer: seen[f"{site}.{layer}"].astype(np.float64) for layer in layers}
        pooled = quantile(np.abs(np.stack(list(x.values()))), SHARE)
        for layer in layers:
            w = weights[f"model.layers.{layer}.{part}.weight"].astype(np.float64)
            norms = np.linalg.norm(w, axis=0)
            size, xw = np.abs(x[layer]), single(np.abs(x[layer]) * norms)
            inputs, outputs = w.shape[1], w.shape[0]

            def add(criterion, kept, basis=None, **more):
                rows.append(dict(site=site, layer_index=layer, criterion=criterion, **more, **lost(x[layer], w, kept, basis)))

            keep = inputs - int(SHARE * inputs)
            add("zero", size > 0, threshold=0.0)
            add("topk", largest(size, keep), keep=keep)
            add("fat", size > pooled, threshold=pooled)
            teal = quantile(size, SHARE)
            add("teal", size > teal, threshold=teal)
            add("wina", largest(xw, keep), keep=keep)
            for name, t in (("cett", quantile(xw, SHARE)), ("cett at 0.2", threshold_of_cett(x[layer], w, xw, CETT))):
                add(name, xw > t, threshold=t)
            t = quantile(xw, 1 - (1 - SHARE) * ALPHA)
            rank = int(inputs * outputs * (1 - SHARE) * (1 - ALPHA) / (inputs + outputs))
            add("rsparse", xw > t, np.linalg.svd(w)[2][:rank], threshold=t, rank=rank)
            if site == "mlp_in":
                gate = seen[f"mlp_gate.{layer}"].astype(np.float64)
                act = single(gate / (1 + np.exp(-gate)))
                up = single(x[layer] / act)
                cats = quantile(np.abs(act), SHARE)
                add("cats", np.abs(act) > cats, threshold=cats)
                scores = single(np.abs(act) * np.sqrt((up**2).mean(0)))
                chess = quantile(scores, SHARE)
                add("chess", scores > chess, threshold=chess)
            else:
                add("chess", size > teal, threshold=teal)
    path = ROOT / "tools/act-sparsity/tests/numpy.json"
    path.write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")
    print(f"{len(rows)} rows")


main()
