"""Writing a container whole: rows that are here, or in temporary files, become blocks, and the file appears under its name when it is
complete (man 5 acts). The same tensors and description give the same bytes."""

import hashlib
import json
import os
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Optional, Union

import numpy as np
import zstandard
from blake3 import blake3

from . import header as headers
from . import sites, stream
from .header import Refused, Spec, need
from .version import VERSION

__all__ = ["Source", "bf16_bits", "commit", "from_array", "write"]

Array = np.ndarray[Any, Any]

TABLES = ("token_id", "sample_index", "position")
_DTYPE_NAMES = {"float64": "f64", "float32": "f32", "float16": "f16", "uint32": "u32", "int64": "i64", "uint8": "u8"}
_STORED_ALIGNMENT = 4096


class Source(NamedTuple):
    """A tensor to be written: its description, and its raw bytes by rows."""

    spec: Spec
    row_count: int
    rows: Callable[[int, int], bytes]


def write(
    path: Union[str, "os.PathLike[str]"],
    tensors: Mapping[str, Any],
    *,
    samples: Optional[Iterable[Mapping[str, Any]]] = None,
    store_dtype: Optional[str] = None,
    codec: str = "zstd-planes",
    level: int = 1,
    block_bytes: Optional[int] = None,
    meta: Optional[dict[str, Any]] = None,
    force: bool = False,
    **header: Any,
) -> None:
    """Writes arrays of numpy or PyTorch as a container; the first axis counts rows.

    Names of sites (`resid_post.3`, or TransformerLens' `blocks.3.hook_resid_post`) become activations, which all have the same number of
    rows; `token_id`, `sample_index` and `position` become row tables. `samples` are sample records. `store_dtype` (f32, f16, bf16) rounds
    activations to nearest even. With `codec="stored"` and `block_bytes` up to 64 MiB a tensor that fits one block is read without a
    copy. `meta` should hold `layer_count`, so that tools know a layer's depth. Other keywords are fields of the header.
    """
    sources = [from_array(sites.resolve(name), array, store_dtype, codec, level) for name, array in tensors.items()]
    counts = {source.row_count for source in sources if source.spec.role in ("activations", "row_table")}
    need(len(counts) <= 1, f"activations and their row tables have {sorted(counts)} rows: one number is needed")
    if samples is not None:
        sources.append(from_samples(samples, level))
    commit(Path(path), sources, block_bytes=block_bytes, meta=meta or {}, force=force, **header)


def from_array(name: str, array: Any, store_dtype: Optional[str] = None, codec: str = "zstd-planes", level: int = 1) -> Source:
    """An array as a tensor of the role that its name says."""
    dtype, values = _elements(name, array)
    found = sites.parse(name)
    if name in TABLES:
        whole = values.ndim == 1 and values.dtype.kind in "iu" and (values.size == 0 or (values.min() >= 0 and values.max() < 1 << 32))
        need(whole, f"{name}: a row table holds one whole number below 2^32 for each row")
        dtype, values, role = "u32", values.astype("<u4"), "row_table"
    else:
        role = "activations" if found else "data"
        if found and store_dtype:
            dtype, values = _rounded(name, dtype, values, store_dtype)
    need(values.ndim >= 1, f"{name}: the first axis counts rows, and there is none")
    values = np.ascontiguousarray(values, np.dtype(headers.DTYPES[dtype]))
    spec = Spec(name, dtype, values.shape[1:], codec, level, role=role)
    if found and role == "activations":
        spec = replace(spec, site=found[0], layer_index=found[1])
    return Source(spec, len(values), lambda start, stop: values[start:stop].tobytes())


def from_samples(samples: Iterable[Mapping[str, Any]], level: int = 1) -> Source:
    """Sample records as the tensor `samples`."""
    text = "".join(stream.encode({"type": "sample", **sample}) for sample in samples).encode()
    return Source(Spec("samples", "u8", (), "zstd", level, role="samples"), len(text), lambda start, stop: text[start:stop])


def _elements(name: str, array: Any) -> tuple[str, Array]:
    """Type and elements; bf16 as its sixteen bits."""
    if type(array).__module__.partition(".")[0] == "torch":
        import torch

        tensor = array.detach().cpu().contiguous()
        if tensor.dtype == torch.bfloat16:
            return "bf16", tensor.view(torch.int16).numpy().view("<u2")
        array = tensor.numpy()
    values = np.asarray(array)
    if name in TABLES:
        return "u32", values
    dtype = _DTYPE_NAMES.get(values.dtype.name)
    if dtype is None:
        raise Refused(f"{name}: {values.dtype} is none of {', '.join(_DTYPE_NAMES.values())} and bf16")
    return dtype, values


def _rounded(name: str, dtype: str, values: Array, store_dtype: str) -> tuple[str, Array]:
    need(store_dtype in ("f64", "f32", "f16", "bf16"), f"store_dtype {store_dtype!r} is none of f64, f32, f16 and bf16")
    if dtype == store_dtype or dtype not in ("f64", "f32", "f16", "bf16"):
        return dtype, values
    numbers = (values.astype("<u4") << 16).view("<f4") if dtype == "bf16" else values
    if store_dtype == "bf16":
        return "bf16", bf16_bits(numbers)
    with np.errstate(over="ignore"):
        stored = numbers.astype(headers.DTYPES[store_dtype])
    need(np.isfinite(stored).sum() == np.isfinite(numbers).sum(), f"{name}: a number is beyond {store_dtype}")
    return store_dtype, stored


def bf16_bits(numbers: Array) -> Array:
    """Rounded to bf16, ties to even, as sixteen bits; NaN stays NaN."""
    bits = np.ascontiguousarray(numbers, "<f4").view("<u4")
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return np.where(np.isnan(numbers), (bits >> 16) | 0x40, rounded).astype("<u2")


def commit(path: Path, sources: list[Source], *, block_bytes: Optional[int], meta: dict[str, Any], force: bool, **header: Any) -> None:
    """Writes beside the target and renames: what is under the name is complete, and another's file is not replaced unless `force`."""
    need(force or not path.exists(), f"{path}: exists (force=True replaces it)")
    chosen = [replace(source.spec, block_row_count=_block_rows(source, len(sources), block_bytes), row_count=source.row_count) for source in sources]
    for spec in chosen:
        spec.check()
    partial = path.with_name(f".{path.name}.partial")
    with open(partial, "xb") as file:
        try:
            _Layout(file, chosen, sources, meta, header).write()
            file.flush()
            os.fsync(file.fileno())
            if force:
                os.replace(partial, path)
            else:
                os.link(partial, path)
        finally:
            if os.path.exists(partial):
                os.unlink(partial)


def _block_rows(source: Source, tensor_count: int, block_bytes: Optional[int]) -> int:
    """The tools' own default: 256 MiB shared by all tensors, within 1 MiB and 4 MiB; 256 KiB where stored."""
    default = 256 << 10 if source.spec.codec == "stored" else min(max((256 << 20) // max(tensor_count, 1), 1 << 20), 4 << 20)
    return max((block_bytes or default) // max(source.spec.row_bytes, 1), 1)


class _Layout:
    """The frames of one container, written one after another."""

    def __init__(self, file: BinaryIO, specs: list[Spec], sources: list[Source], meta: dict[str, Any], header: dict[str, Any]) -> None:
        self.file, self.specs, self.sources = file, specs, sources
        digests = ["blake3:" + self._content(spec, source).hexdigest() for spec, source in zip(specs, sources)]
        described = {"tool_version": VERSION, "tensors": [spec.to_json() for spec in specs], "meta": meta, **header}
        plan = hashlib.sha256(json.dumps([described, digests], sort_keys=True).encode()).hexdigest()
        plan_digest = f"sha256:{plan}"
        self.header = {"file_id": headers.file_id(plan_digest), "tool": "flowlens.py", "plan_digest": plan_digest, **described}
        self.key = headers.key(self.header)
        self.offset = 0
        self.frames: list[tuple[int, int]] = []
        self.blocks: list[bytes] = []

    def _content(self, spec: Spec, source: Source) -> Any:
        content = blake3()
        for start in range(0, source.row_count, spec.block_row_count):
            content.update(source.rows(start, min(start + spec.block_row_count, source.row_count)))
        return content

    def write(self) -> None:
        text = json.dumps(self.header, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
        headers.parse(text)
        head = struct.pack("<II8sII", 0x184D2A50, 48 + len(text), b"flacts\r\n", 1, len(text)) + text
        digest = blake3(head).digest()
        self._frame(head + digest, 0)
        totals = [self._tensor(index, spec, source) for index, (spec, source) in enumerate(zip(self.specs, self.sources))]
        self._end(totals, digest)

    def _frame(self, data: bytes, raw_bytes: int) -> None:
        self.file.write(data)
        self.frames.append((len(data), raw_bytes))
        self.offset += len(data)

    def _tensor(self, index: int, spec: Spec, source: Source) -> bytes:
        content, nan_count, inf_count = blake3(), 0, 0
        for start in range(0, source.row_count, spec.block_row_count):
            count = min(spec.block_row_count, source.row_count - start)
            raw = source.rows(start, start + count)
            need(len(raw) == count * spec.row_bytes, f"{spec.name}: {len(raw)} bytes where {count} rows are")
            content.update(raw)
            nan, infinite = _non_finite(spec, raw)
            nan_count, inf_count = nan_count + nan, inf_count + infinite
            self._block(index, spec, start, count, raw)
        return struct.pack("<QQQQ", source.row_count, source.row_count * spec.row_bytes, nan_count, inf_count) + content.digest()

    def _block(self, tensor: int, spec: Spec, first: int, count: int, raw: bytes) -> None:
        padding = -(self.offset + 80) % _STORED_ALIGNMENT if spec.codec == "stored" else 0
        frames = _payload(spec, raw)
        payload = b"".join(data for data, _ in frames)
        described = struct.pack("<QIIQII", len(self.blocks), tensor, count, first, len(raw), len(payload))
        digest = blake3(described + payload, key=self.key).digest()
        self.blocks.append(struct.pack("<QIIQII", self.offset, tensor, count, first, len(raw), len(payload)) + digest)
        self._frame(struct.pack("<II", 0x184D2A51, 64 + padding) + described + digest + bytes(padding), 0)
        for data, raw_bytes in frames:
            self._frame(data, raw_bytes)

    def _end(self, totals: list[bytes], header_digest: bytes) -> None:
        at, length = self.offset, 128 + 64 * (len(totals) + len(self.blocks))
        table = b"".join(struct.pack("<II", *frame) for frame in [*self.frames, (length + 8, 0)])
        seek = struct.pack("<II", 0x184D2A5E, len(table) + 9) + table + struct.pack("<IBI", len(self.frames) + 1, 0, 0x8F92EAB1)
        head = struct.pack("<II8sIIQQ", 0x184D2A53, length, b"actsend\n", 1, len(totals), len(self.blocks), at)
        manifest = head + header_digest + blake3(seek).digest() + b"".join(totals) + b"".join(self.blocks)
        self.file.write(manifest + blake3(manifest, key=self.key).digest() + seek)


def _payload(spec: Spec, raw: bytes) -> list[tuple[bytes, int]]:
    """The frames of a block, with what each decodes to."""
    if spec.codec == "stored":
        return [(struct.pack("<II", 0x184D2A52, len(raw)) + raw, 0)]
    compressor = zstandard.ZstdCompressor(level=spec.level, write_checksum=True, write_content_size=True, write_dict_id=False)
    planes = spec.numpy.itemsize if spec.codec == "zstd-planes" else 1
    elements = np.frombuffer(raw, np.uint8).reshape(-1, planes)
    return [(compressor.compress(elements[:, plane].tobytes()), len(elements)) for plane in range(planes)]


def _non_finite(spec: Spec, raw: bytes) -> tuple[int, int]:
    if spec.dtype not in ("f64", "f32", "f16", "bf16"):
        return 0, 0
    values = np.frombuffer(raw, spec.numpy)
    if spec.dtype == "bf16":
        values = (values.astype("<u4") << 16).view("<f4")
    return int(np.isnan(values).sum()), int(np.isinf(values).sum())
