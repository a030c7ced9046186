"""Dumps the residual stream of a model of transformers while it runs, as resid-dump does: same sites, same tables, same container.

    with flowlens.Dump(model, "dump.acts", sites=("resid_post",), positions="last") as dump:
        dump.run(tokenizer, prompts)                              # one prompt after another, without padding

    with flowlens.Dump(model, "dump.acts") as dump:               # or inside a loop of your own
        for batch in batches:
            dump.describe(texts=batch["text"], groups=batch["label"])
            model(**tokenizer(batch["text"], return_tensors="pt", padding=True, padding_side="right"))

Sites: embed, resid_pre, resid_post, final_norm. Rows wait in temporary files beside the container, so memory does not grow with them.
"""

import hashlib
import inspect
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, NamedTuple, Optional, Union

import numpy as np
import torch

from . import sites as names
from .header import Refused, Spec, need
from .writer import TABLES, Source, commit, from_samples

__all__ = ["Dump", "blocks", "decoder"]

SITES = ("embed", "resid_pre", "resid_post", "final_norm")
MEAN = (1 << 32) - 1  # token id and position of a row that is a mean over tokens
_DTYPES = {torch.float32: "f32", torch.float16: "f16", torch.bfloat16: "bf16", torch.float64: "f64"}
_TORCH = {name: dtype for dtype, name in _DTYPES.items()}


def decoder(model: torch.nn.Module) -> torch.nn.Module:
    """The decoder of text inside a model: what has the blocks, and behind them the final norm."""
    inner: Any = model
    if hasattr(inner, "get_base_model"):  # an adapter of PEFT around it
        inner = inner.get_base_model()
    return inner.get_decoder() if hasattr(inner, "get_decoder") else inner.base_model  # type: ignore[no-any-return]


def blocks(model: torch.nn.Module) -> list[torch.nn.Module]:
    """The model's blocks, in order."""
    body: Any = decoder(model)
    count = body.config.get_text_config().num_hidden_layers
    lists = [child for child in body.modules() if isinstance(child, torch.nn.ModuleList) and len(child) == count]
    need(lists, f"{type(body).__name__} has no list of {count} blocks")
    return list(lists[0])


class _Tensor:
    """Rows of one tensor on their way to the container."""

    def __init__(self, spec: Spec, directory: Path) -> None:
        self.spec, self.row_count = spec, 0
        self.file: BinaryIO = tempfile.TemporaryFile(dir=directory)  # noqa: SIM115: closed with the dump

    def push(self, rows: bytes) -> None:
        self.file.write(rows)
        self.row_count += len(rows) // self.spec.row_bytes

    def source(self) -> Source:
        def read(start: int, stop: int) -> bytes:
            self.file.seek(start * self.spec.row_bytes)
            return self.file.read((stop - start) * self.spec.row_bytes)

        return Source(self.spec, self.row_count, read)


class _Pass(NamedTuple):
    """The sequences of one forward pass."""

    tokens: list[torch.Tensor]
    real: torch.Tensor  # (batch, seq), which positions are tokens


class Dump:
    """A context in which every forward pass of the model adds its sequences to a container, which appears when the context ends well."""

    def __init__(
        self,
        model: torch.nn.Module,
        path: Union[str, Path],
        *,
        sites: Sequence[str] = ("resid_post",),
        layers: Optional[Iterable[int]] = None,
        positions: str = "last",
        store_dtype: Optional[str] = None,
        codec: str = "zstd-planes",
        keep_text: bool = False,
        force: bool = False,
        **header: Any,
    ) -> None:
        unknown = [site for site in sites if site not in SITES]
        need(not unknown, f"sites {unknown} cannot be hooked in every model: {', '.join(SITES)} can")
        need(positions in ("last", "all", "mean"), f"positions {positions!r} is none of last, all and mean")
        self.model, self.path, self.positions, self.keep_text, self.force, self.extra = model, Path(path), positions, keep_text, force, header
        need(force or not self.path.exists(), f"{path}: exists (force=True replaces it)")
        self.blocks = blocks(model)
        self.layers = list(range(len(self.blocks)) if layers is None else layers)
        need(all(0 <= layer < len(self.blocks) for layer in self.layers), f"layers {self.layers} of a model of {len(self.blocks)}")
        config: Any = decoder(model).config
        self.meta = {"family": config.model_type, "layer_count": len(self.blocks), "positions": positions}
        parameter = next(model.parameters())
        self.compute = {"dtype": _DTYPES[parameter.dtype], "device": parameter.device.type, "kernel": "torch"}
        dtype = store_dtype or self.compute["dtype"]
        need(dtype in _TORCH, f"store_dtype {dtype!r} is none of {', '.join(_TORCH)}")
        specs = _specs(sites, self.layers, dtype, config.get_text_config().hidden_size, codec)
        self.tensors = {spec.name: _Tensor(spec, self.path.parent) for spec in specs}
        self.samples: list[dict[str, Any]] = []
        self.described: list[dict[str, Any]] = []
        self.at_work: Optional[_Pass] = None
        self.handles: list[Any] = []

    def __enter__(self) -> "Dump":
        # What the model was given is asked of the model as a whole: one that sees pictures gives its decoder embeddings.
        self.handles.append(self.model.register_forward_pre_hook(self._begin, with_kwargs=True))
        for layer in sorted({0, *self.layers}):  # what enters block 0 is embed
            block = self.blocks[layer]
            self.handles.append(block.register_forward_pre_hook(self._before(layer), with_kwargs=True))
            self.handles.append(block.register_forward_hook(self._after(layer)))
        self.handles.append(decoder(self.model).register_forward_hook(self._end))
        return self

    def __exit__(self, kind: Optional[type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]) -> None:
        for handle in self.handles:
            handle.remove()
        try:
            if kind is None:
                self._commit()
        finally:
            for tensor in self.tensors.values():
                tensor.file.close()

    def describe(self, *, texts: Optional[Sequence[str]] = None, ids: Optional[Sequence[Any]] = None, groups: Optional[Sequence[str]] = None) -> None:
        """What the sequences of the next forward pass are: the prompts' texts, their ids, their groups."""
        given = {key: values for key, values in (("text", texts), ("id", ids), ("group", groups)) if values is not None}
        counts = {len(values) for values in given.values()}
        need(len(counts) == 1, f"texts, ids and groups of {sorted(counts)} sequences")
        self.described = [{key: values[at] for key, values in given.items()} for at in range(counts.pop())]

    def run(self, tokenizer: Any, texts: Sequence[str], *, ids: Optional[Sequence[Any]] = None, groups: Optional[Sequence[str]] = None) -> None:
        """Runs the model on each text alone, without gradients."""
        device = next(self.model.parameters()).device
        was_training = self.model.training
        self.model.eval()
        try:
            for at, text in enumerate(texts):
                self.describe(texts=[text], ids=ids and [ids[at]], groups=groups and [groups[at]])
                encoded = tokenizer(text, return_tensors="pt").to(device)
                with torch.no_grad():
                    self.model(input_ids=encoded["input_ids"], attention_mask=encoded["attention_mask"], use_cache=False)
        finally:
            self.model.train(was_training)

    # A forward pass

    def _begin(self, model: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        kwargs = inspect.signature(model.forward).bind_partial(*args, **kwargs).arguments
        kwargs |= kwargs.get("kwargs", {})
        tokens = kwargs.get("input_ids")
        if tokens is None:
            raise Refused("a model that is given inputs_embeds tells no token ids: give input_ids")
        cache = kwargs.get("past_key_values")
        need(cache is None or cache.get_seq_length() == 0, "a pass that goes on from a cache has no rows for its first tokens: use use_cache=False")
        mask = kwargs.get("attention_mask")
        need(mask is None or getattr(mask, "shape", None) == tokens.shape, "an attention_mask that is not of (batch, tokens)")
        real = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask.bool()
        ends_well = not bool((real[:, 1:] & ~real[:, :-1]).any())
        need(ends_well or kwargs.get("position_ids") is not None, "padding on the left, and no position_ids: pad on the right")
        need(bool(real.any(1).all()), "a sequence without a token")
        self.at_work = _Pass([row[keep] for row, keep in zip(tokens, real)], real)

    def _before(self, layer: int) -> Any:
        def hook(_: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            hidden = args[0] if args else kwargs["hidden_states"]
            self._push(f"resid_pre.{layer}", hidden)
            if layer == 0:
                self._push("embed", hidden)

        return hook

    def _after(self, layer: int) -> Any:
        def hook(_: torch.nn.Module, args: tuple[Any, ...], output: Any) -> None:
            self._push(f"resid_post.{layer}", output[0] if isinstance(output, tuple) else output)

        return hook

    def _end(self, _: torch.nn.Module, args: tuple[Any, ...], output: Any) -> None:
        self._push("final_norm", output[0])
        self._push_tables()
        self.at_work = None

    def _push(self, name: str, hidden: torch.Tensor) -> None:
        tensor = self.tensors.get(name)
        if tensor is None or self.at_work is None:
            return
        for rows, keep in zip(hidden.detach(), self.at_work.real):
            chosen = self._choose(rows[keep]).to(_TORCH[tensor.spec.dtype]).cpu().contiguous()
            need(bool(torch.isfinite(chosen).all()), f"{name}: a number that is not finite")
            tensor.push(chosen.view(torch.uint8).numpy().tobytes())

    def _choose(self, rows: torch.Tensor) -> torch.Tensor:
        if self.positions == "mean":
            return rows.double().mean(0, keepdim=True)
        return rows[-1:] if self.positions == "last" else rows

    def _push_tables(self) -> None:
        assert self.at_work is not None
        count = len(self.at_work.tokens)
        described, self.described = self.described or [{}] * count, []
        need(len(described) == count, f"{len(described)} sequences were described, {count} ran")
        for tokens, about in zip(self.at_work.tokens, described):
            positions = {"last": [len(tokens) - 1], "all": list(range(len(tokens))), "mean": [MEAN]}[self.positions]
            token_ids = [MEAN] if self.positions == "mean" else [int(tokens[at]) for at in positions]
            index = len(self.samples)
            self._sample(about, index, tokens, len(positions))
            for table, values in zip(TABLES, (token_ids, [index] * len(positions), positions)):
                self.tensors[table].push(np.array(values, "<u4").tobytes())

    def _sample(self, about: dict[str, Any], index: int, tokens: torch.Tensor, row_count: int) -> None:
        """A sample record. A sequence that was not described has the token ids, in decimals, for a text."""
        text = about.get("text", " ".join(str(token) for token in tokens.tolist()))
        sample = {
            "id": str(about.get("id", f"#{index}")), "sample_index": index, "group": str(about.get("group", "")),
            "text_digest": "sha256:" + hashlib.sha256(text.encode()).hexdigest(), "token_count": len(tokens),
            "row_start": self.tensors[TABLES[0]].row_count, "row_count": row_count,
        }
        self.samples.append(sample | ({"text": text} if self.keep_text else {}))

    def _commit(self) -> None:
        need(self.samples, f"{self.path}: the model did not run")
        sources = [tensor.source() for tensor in self.tensors.values()]
        unlike = [source.spec.name for source in sources if source.row_count != sources[-1].row_count]
        need(not unlike, f"{unlike}: not as many rows as there are tokens; does the model run its blocks once a pass?")
        header = {"compute": self.compute, "sample_count": len(self.samples), **self.extra}
        commit(self.path, [*sources, from_samples(self.samples)], block_bytes=None, meta=self.meta, force=self.force, **header)


def _specs(sites: Sequence[str], layers: list[int], dtype: str, width: int, codec: str) -> list[Spec]:
    """Site by site, each over its layers, then the row tables: the order of resid-dump."""
    specs = []
    for site in sites:
        for layer in [None] if site in names.ONCE else layers:
            name = site if layer is None else f"{site}.{layer}"
            specs.append(Spec(name, dtype, (width,), codec, role="activations", site=site, layer_index=layer))
    return specs + [Spec(table, "u32", (), "zstd-planes", role="row_table") for table in TABLES]
