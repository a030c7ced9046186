"""Watches the residual stream of a model that another trainer trains (transformers, TRL): every N steps the same prompts are run, and
what flowlens-pca would say of them is recorded.

    Trainer(..., callbacks=[flowlens.Monitor(tokenizer, prompts, "watched", every=100)])

    watched/monitor.jsonl               a record stream, a row for each layer and step, and one for the window
    watched/step-00000100.acts          what was measured: activations, or their moments with keep="moments"

The measures are those of `resid-dump` on the step's checkpoint followed by `flowlens-pca`, and of `--against` the first dump. They are
taken in the number type in which the model is held.
"""

import os
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional, Union

import numpy as np
import torch
from transformers import TrainerCallback

from . import stream, writer
from .container import Container, read
from .header import Spec, need
from .hooks import Dump, blocks
from .measures import Geometry, alignment, geometry, moments, window_layers
from .version import VERSION

__all__ = ["Monitor"]


class Monitor(TrainerCallback):
    """A callback of transformers' Trainer. `warn_above` is a concentration C_k of the window above which a warning is given, once. A training
    that is resumed needs a directory of its own: alignment is with what the callback saw first."""

    def __init__(
        self,
        tokenizer: Any,
        prompts: Sequence[str],
        directory: Union[str, Path],
        *,
        every: int = 100,
        window: tuple[float, float] = (0.3, 0.5),
        k: int = 4,
        keep: Optional[str] = "activations",
        warn_above: Optional[float] = None,
    ) -> None:
        need(every >= 1, f"every {every} steps")
        need(k in (1, 2, 3, 4, 8), f"k = {k} is none of 1, 2, 3, 4 and 8")
        need(len(prompts) >= 2, "fewer than two prompts have no variance")
        need(keep in ("activations", "moments", None), f"keep={keep!r} is none of 'activations', 'moments' and None")
        self.tokenizer, self.prompts, self.directory = tokenizer, list(prompts), Path(directory)
        self.every, self.window, self.k, self.keep, self.warn_above = every, window, k, keep, warn_above
        self.start: dict[Union[int, str], Any] = {}
        self.row_count = 0
        self.warned = False
        self.measured_step: Optional[int] = None
        self.seconds = 0.0  # spent here, all told: what watching costs

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        sharded = bool(getattr(args, "fsdp", None)) or bool(getattr(args, "deepspeed", None))
        need(not sharded, "the weights of FSDP and DeepSpeed lie on several processes: measure their checkpoints with resid-dump")
        self.layers = window_layers(self.window, len(blocks(model)))
        need(self.layers, f"window {self.window} holds no block")
        if not state.is_world_process_zero:
            return
        self.directory.mkdir(parents=True, exist_ok=True)
        self.stream = open(self.directory / "monitor.jsonl", "x", encoding="utf-8")  # noqa: SIM115: closed at the end of the training
        self.stream.write(stream.encode({"type": "begin", "schema": "flowlens/1", "tool": "flowlens.py", "version": VERSION}))
        self._measure(state.global_step, model)

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        if state.is_world_process_zero and state.global_step % self.every == 0:
            self._measure(state.global_step, model)

    def on_train_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        if not state.is_world_process_zero:
            return
        if self.measured_step != state.global_step:
            self._measure(state.global_step, model)
        self._write({"type": "end", "row_count": self.row_count, "status": "complete"})
        os.fsync(self.stream.fileno())
        self.stream.close()

    # One measurement

    def _measure(self, step: int, model: torch.nn.Module) -> None:
        begin = time.perf_counter()
        with tempfile.TemporaryDirectory(dir=self.directory) as scratch:
            path = Path(scratch) / "dump.acts"
            with Dump(model, path) as dump:
                dump.run(self.tokenizer, self.prompts)
            dumped = read(path)
            self._record(step, dumped, len(dump.blocks))
            target = self.directory / f"step-{step:08d}.acts"
            if self.keep == "activations":
                os.rename(path, target)
            elif self.keep == "moments":
                _write_moments(target, dumped, len(dump.blocks))
        self.measured_step = step
        self.seconds += time.perf_counter() - begin

    def _record(self, step: int, dumped: Container, layer_count: int) -> None:
        for layer in range(layer_count):
            found = geometry(dumped[f"resid_post.{layer}"])
            depth = (layer + 1) / layer_count
            self._row("monitor", step, {"layer_index": layer, "layer_count": layer_count, "depth": depth}, layer, found)
        pooled = geometry(np.concatenate([dumped[f"resid_post.{layer}"] for layer in self.layers]))
        self._row("monitor_window", step, {"layers": self.layers, "layer_count": layer_count}, "window", pooled)
        self._warn(step, pooled)

    def _row(self, kind: str, step: int, where: dict[str, Any], key: Union[int, str], found: Geometry) -> None:
        row = {"type": kind, "step": step, **where, "site": "resid_post", "row_count": found.row_count, "norm_mean": found.norm_mean}
        if found.component is not None:
            first = self.start.setdefault(key, found.component)
            measured = {"c_k": found.c_k, "participation_ratio": found.participation_ratio, "alignment": alignment(first, found.component)}
            row |= measured
        self.row_count += 1
        self._write(row)

    def _write(self, row: dict[str, Any]) -> None:
        self.stream.write(stream.encode(row))
        self.stream.flush()

    def _warn(self, step: int, pooled: Geometry) -> None:
        share = pooled.c_k.get(str(self.k))
        if self.warned or self.warn_above is None or share is None or share <= self.warn_above:
            return
        self.warned = True
        warnings.warn(f"step {step}: C_{self.k} of the window is {share:.3f}, above {self.warn_above}", stacklevel=2)


def _write_moments(path: Path, dumped: Container, layer_count: int) -> None:
    """The moments of a dump of last tokens, as resid-dump --moments writes them: one group, rows that are no first tokens apart."""
    is_first = dumped["position"] == 0
    sources = []
    for layer in range(layer_count):
        rows = dumped[f"resid_post.{layer}"]
        for token_class, chosen in (("bos", rows[is_first]), ("rest", rows[~is_first])):
            for part, values in moments(chosen).items():
                name = f"moments.0.resid_post.{layer}.{token_class}.{part}"
                sources.append(_moment(name, layer, values))
    header = {key: dumped.header[key] for key in ("compute", "sample_count")}
    writer.commit(path, sources, block_bytes=None, meta=dumped.header["meta"], force=False, groups=[""], **header)


def _moment(name: str, layer: int, values: Any) -> writer.Source:
    dtype = "i64" if values.dtype == np.int64 else "f64"
    spec = Spec(name, dtype, values.shape[1:], role="moments", site="resid_post", layer_index=layer)
    return writer.Source(spec, len(values), lambda start, stop: values[start:stop].tobytes())
