"""Compares act-stats with numpy on the activations of a real model.

    resid-dump --model DIR --positions all --sites embed,resid_post,attn_in,mlp_in,mlp_out --store-dtype bf16 prompts.jsonl -o dump.acts
    act-stats dump.acts --group group --temporal 0.1 --dim-flow 0.5 > act.jsonl
    python3 scripts/parity/act_stats.py dump.acts act.jsonl        # --time: numpy's own seconds for the same measures

Everything is computed again from the rows, in f64, in another way: sorting, numpy's logarithm and its histogram.
"""

import argparse
import functools
import json
import pathlib
import sys
import time

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "python"))
import flowlens

EDGES = 10.0 ** (np.arange(513) / 32 - 8)


def quantised(x, limit):
    step = limit / 127
    error = np.minimum(np.rint(np.minimum(x, limit) / step), 127) * step - x
    square, lost = (x * x).sum(), (error * error).sum()
    return {
        "mae": np.abs(error).mean(), "rmse": np.sqrt((error * error).mean()), "rel_mae": np.abs(error).sum() / x.sum(),
        "rel_rmse": np.sqrt(lost / square), "sqnr_db": 10 * np.log10(square / lost), "clip_share": (x > limit).mean(),
    }


def flow(x, ends, mass, run):
    order = np.argsort(-x, axis=1, kind="stable")
    ranked = np.take_along_axis(x, order, 1)
    size = (np.cumsum(ranked, axis=1) < mass * ranked.sum(1, keepdims=True)).sum(1) + 1
    member = np.zeros(x.shape, bool)
    np.put_along_axis(member, order, np.arange(x.shape[1])[None] < size[:, None], 1)
    shared = single = 0
    for part in np.split(member, ends[:-1]):
        padded = np.pad(part, ((1, 1), (0, 0))).astype(np.int8)
        change = np.diff(padded, axis=0)
        length = np.argwhere(change.T == -1)[:, 1] - np.argwhere(change.T == 1)[:, 1]
        shared, single = shared + length[length >= run].sum(), single + (length == 1).sum()
    return {"dims_mean": size.mean(), "shared_share": shared / member.sum(), "single_share": single / member.sum()}


def measure(rows, samples, options):
    x = np.abs(rows)
    ends = np.flatnonzero(np.diff(samples, append=-1)) + 1
    median = np.sort(x, axis=1)[:, (x.shape[1] - 1) // 2]
    largest = x.max(1)
    ratio = largest[median > 0] / median[median > 0]
    flat = np.sort(x, axis=None)
    bins = np.histogram(flat, EDGES)[0]
    shares = np.concatenate([bins, [(flat < EDGES[0]).sum(), (flat >= EDGES[-1]).sum()]]) / flat.size
    shares = shares[shares > 0]
    at = lambda share: flat[max(int(np.ceil(share * flat.size)), 1) - 1]
    place = np.unravel_index(x.argmax(), x.shape)
    found = {
        "count": x.size, "zero_count": (x == 0).sum(), "mean": rows.mean(), "std": rows.std(), "rms": np.sqrt((rows * rows).mean()),
        "mean_abs": x.mean(), "max": rows.max(), "min": rows.min(), "abs_max": x.max(), "abs_max_sample_index": samples[place[0]],
        "abs_max_dim": place[1], "ratio_max": ratio.max(), "ratio_mean": ratio.mean(), "massive_count": (
            (largest > 100) & (largest > 1000 * median)).sum(), "entropy_nats": -(shares * np.log(shares)).sum(),
    }
    found = {(key,): value for key, value in found.items()}
    found.update({("quantiles", share): at(float(share)) for share in options["quantiles"]})
    for scale in options["int8"]:
        limit = x.max() if scale == "max" else at(float(scale))
        found.update({("int8", scale, key): value for key, value in quantised(flat, limit).items()})
    if options["dim_flow"]:
        found.update({("dim_flow", key): value for key, value in flow(x, ends, *options["dim_flow"]).items()})
    if options["temporal"]:
        same = samples[1:] == samples[:-1]
        found[("temporal_sparsity",)] = (np.abs(np.diff(rows, axis=0))[same] < options["temporal"]).mean()
    return found, np.trim_zeros(bins)


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("dump")
    arguments.add_argument("records")
    arguments.add_argument("--temporal", type=float, default=0.1)
    arguments.add_argument("--time", action="store_true")
    arguments = arguments.parse_args()
    acts = [row for row in map(json.loads, open(arguments.records)) if row["type"] == "act"]
    tensors = flowlens.read(arguments.dump)
    samples = tensors["sample_index"]
    groups = {sample["sample_index"]: sample["group"] for sample in tensors.samples()}
    groups = np.array([groups[index] for index in samples])
    worst, start = {}, time.time()
    for act in acts:
        name = act["component"] + ("" if "layer_index" not in act else f".{act['layer_index']}")
        chosen = slice(None) if act["group"] == "" else groups == act["group"]
        dim_flow = act.get("dim_flow")
        options = {
            "quantiles": act["quantiles"], "int8": act.get("int8", {}), "dim_flow": dim_flow and (dim_flow["mass"], dim_flow["run"]),
            "temporal": arguments.temporal if "temporal_sparsity" in act else None,
        }
        found, bins = measure(tensors[name][chosen].astype(np.float64), samples[chosen], options)
        if not arguments.time:
            assert list(bins) == act["histogram"]["counts"], name
            for key, value in found.items():
                ours = functools.reduce(dict.__getitem__, key, act)
                far = abs(ours - value) / max(abs(value), 1e-12)
                worst[key] = max(worst.get(key, 0.0), far)
    if arguments.time:
        print(f"numpy: {time.time() - start:.2f} s for {len(acts)} records")
        return
    print(f"{len(acts)} records, every bin of every histogram equal; largest relative differences:")
    for key, far in worst.items():
        print(f"  {'.'.join(key):28} {far:.1e}")
    assert max(worst.values()) < 1e-9


main()
