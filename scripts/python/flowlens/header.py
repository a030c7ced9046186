"""The header of a container: what it may say, and the checks that make later multiplications safe (man 5 acts).

Strict on purpose: unknown fields and keys that stand twice are refused, as every reader of the format must.
"""

import hashlib
import json
import re
import struct
from dataclasses import dataclass
from typing import Any, Optional

import numpy as np

from . import sites

__all__ = ["Refused", "Spec", "file_id", "parse"]

HEADER_BYTES_MAX = 16 << 20
NESTING_MAX = 16
TENSORS_MAX = 65_536
AXES_MAX = 8
EXTENT_MAX = 1 << 40
ELEMENTS_MAX = 1 << 45
RAW_BYTES_MAX = 1 << 46
BLOCK_BYTES_MAX = 64 << 20
WINDOW_BYTES_MAX = 1 << 24

# bf16 has no type in numpy: its sixteen bits are kept in u2.
DTYPES = {"f64": "<f8", "f32": "<f4", "f16": "<f2", "bf16": "<u2", "u32": "<u4", "i64": "<i8", "u8": "u1"}
CODECS = ("stored", "zstd", "zstd-planes")
ROLES = ("data", "activations", "row_table", "samples", "moments", "basis", "steering")

_NAME = re.compile(r"[A-Za-z0-9._/-]{1,255}")
_FIELDS = {
    "file_id": str, "tool": str, "tool_version": str, "plan_digest": str, "shard": dict, "salvaged": bool, "input_digest": str,
    "model_digest": str, "tokenizer_digest": str, "template_digest": str, "compute": dict, "sample_count": int, "groups": list,
    "tensors": list, "meta": dict,
}
_REQUIRED = ("file_id", "tool", "tool_version", "tensors")
_TENSOR_FIELDS = {
    "name": str, "dtype": str, "row_shape": list, "codec": str, "level": int, "block_row_count": int, "role": str, "site": str,
    "layer_index": int, "row_count": int,
}
_TENSOR_REQUIRED = ("name", "dtype", "row_shape", "codec", "level", "block_row_count", "role")


class Refused(ValueError):
    """Bytes that are no sound container or record stream, or numbers that none can be made of."""


def need(condition: Any, cause: str) -> None:
    if not condition:
        raise Refused(cause)


@dataclass(frozen=True)
class Spec:
    """A tensor as the header describes it."""

    name: str
    dtype: str
    row_shape: tuple[int, ...]
    codec: str = "zstd-planes"
    level: int = 1
    block_row_count: int = 1
    role: str = "data"
    site: Optional[str] = None
    layer_index: Optional[int] = None
    row_count: Optional[int] = None

    @property
    def numpy(self) -> "np.dtype[Any]":
        """The type of an element in numpy."""
        return np.dtype(DTYPES[self.dtype])

    @property
    def row_bytes(self) -> int:
        elements = 1
        for extent in self.row_shape:
            elements *= extent
        return elements * self.numpy.itemsize

    def to_json(self) -> dict[str, Any]:
        fields = {"name": self.name, "dtype": self.dtype, "row_shape": list(self.row_shape), "codec": self.codec, "level": self.level,
                  "block_row_count": self.block_row_count, "role": self.role}
        optional = {"site": self.site, "layer_index": self.layer_index, "row_count": self.row_count}
        return fields | {key: value for key, value in optional.items() if value is not None}

    def check(self) -> None:
        """Refuses what is beyond the format's limits."""
        name = self.name
        need(_NAME.fullmatch(name) and ".." not in name and not name.startswith("/"), f"a tensor may not be named {name!r}")
        need(self.dtype in DTYPES, f"{name}: unknown dtype {self.dtype!r}")
        need(self.codec in CODECS, f"{name}: unknown codec {self.codec!r}")
        need(self.role in ROLES, f"{name}: unknown role {self.role!r}")
        need(len(self.row_shape) < AXES_MAX, f"{name}: {len(self.row_shape) + 1} axes, limit {AXES_MAX}")
        need(all(1 <= extent <= EXTENT_MAX for extent in self.row_shape), f"{name}: an axis is not within 1 to {EXTENT_MAX}")
        need(self.row_bytes <= BLOCK_BYTES_MAX, f"{name}: a row takes {self.row_bytes} bytes, limit {BLOCK_BYTES_MAX}")
        need(1 <= self.level <= 19, f"{name}: level {self.level} is not within 1 to 19")
        block = self.block_row_count
        need(1 <= block and block * self.row_bytes <= BLOCK_BYTES_MAX, f"{name}: {block} rows are no block of at most {BLOCK_BYTES_MAX} bytes")
        if self.row_count is not None:
            self.check_rows(self.row_count)
        if self.site is not None:
            need(self.site in sites.SITES, f"{name}: unknown site {self.site!r}")
            once = self.site in sites.ONCE
            need(once == (self.layer_index is None), f"{name}: site {self.site} {'has no' if once else 'needs a'} layer_index")

    def check_rows(self, rows: int) -> None:
        raw = rows * self.row_bytes
        fits = rows <= EXTENT_MAX and raw <= RAW_BYTES_MAX and raw // self.numpy.itemsize <= ELEMENTS_MAX
        need(0 <= rows and fits, f"{self.name}: {rows} rows exceed the limits of one tensor")


def file_id(plan_digest: str) -> str:
    """The name of a whole run's container, whose bytes are the key of its digests."""
    return "sha256:" + hashlib.sha256(plan_digest.encode() + struct.pack("<II", 0, 1)).hexdigest()


def key(header: dict[str, Any]) -> bytes:
    """The key of the digests of blocks and manifest."""
    found = re.fullmatch(r"sha256:([0-9a-f]{64})", header["file_id"])
    need(found, "file_id is no sha256 digest")
    assert found is not None
    return bytes.fromhex(found[1])


def parse(text: bytes) -> tuple[dict[str, Any], list[Spec]]:
    """The header's JSON text, checked."""
    need(len(text) <= HEADER_BYTES_MAX, f"header: {len(text)} bytes, limit {HEADER_BYTES_MAX}")
    try:
        header = json.loads(text.decode("utf-8"), object_pairs_hook=distinct, parse_constant=no_number)
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as cause:
        raise Refused(f"header: {cause}") from None
    need(isinstance(header, dict), "header: not an object")
    need(_depth(header) <= NESTING_MAX, f"header: nested deeper than {NESTING_MAX}")
    _fields("header", header, _FIELDS, _REQUIRED)
    need(len(header["tensors"]) <= TENSORS_MAX, f"header: {len(header['tensors'])} tensors, limit {TENSORS_MAX}")
    key(header)
    specs = [_spec(index, fields) for index, fields in enumerate(header["tensors"])]
    need(len({spec.name for spec in specs}) == len(specs), "header: two tensors have one name")
    return header, specs


def _spec(index: int, fields: Any) -> Spec:
    where = f"header: tensor {index}"
    need(isinstance(fields, dict), f"{where}: not an object")
    _fields(where, fields, _TENSOR_FIELDS, _TENSOR_REQUIRED)
    need(all(type(extent) is int for extent in fields["row_shape"]), f"{where}: row_shape holds something that is no integer")
    need(all(fields.get(name, 0) >= 0 for name in ("layer_index", "row_count")), f"{where}: a negative number")
    spec = Spec(**(fields | {"row_shape": tuple(fields["row_shape"])}))
    spec.check()
    return spec


def _fields(where: str, given: dict[str, Any], known: dict[str, type], required: tuple[str, ...]) -> None:
    for name, value in given.items():
        need(name in known, f"{where}: unknown field {name!r}")
        need(type(value) is known[name], f"{where}: {name} is no {known[name].__name__}")
    for name in required:
        need(name in given, f"{where}: {name} is missing")


def _depth(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(_depth, inner), default=0)


def distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON, refused where a key stands twice."""
    found = dict(pairs)
    need(len(found) == len(pairs), "an object has a key twice")
    return found


def no_number(name: str) -> Any:
    raise Refused(f"{name} is no number")
