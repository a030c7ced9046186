"""Reading a container: a mapping from names to arrays over a memory map. No byte is used before its digest matched (man 5 acts)."""

import mmap
import os
import struct
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Optional, Union

import numpy as np
import zstandard
from blake3 import blake3

from . import header as headers
from . import sites, stream
from .header import Spec, need

if TYPE_CHECKING:
    import torch

__all__ = ["Container", "Moments", "read"]

Array = np.ndarray[Any, Any]
Path = Union[str, "os.PathLike[str]"]

_STATES = {1: "complete", 2: "partial", 3: "salvaged"}
_HEADER_MAGIC, _BLOCK_MAGIC, _STORED_MAGIC, _MANIFEST_MAGIC = 0x184D2A50, 0x184D2A51, 0x184D2A52, 0x184D2A53
_SEEK_MAGIC, _SEEK_END = 0x184D2A5E, 0x8F92EAB1
_DESCRIPTOR_BYTES = 72
_ENTRY = np.dtype(
    [("offset", "<u8"), ("tensor", "<u4"), ("rows", "<u4"), ("first", "<u8"), ("raw", "<u4"), ("payload", "<u4"), ("digest", "V32")]
)
_TOTALS = np.dtype([("rows", "<u8"), ("raw", "<u8"), ("nan", "<u8"), ("inf", "<u8"), ("digest", "V32")])


def read(path: Path, allow_partial: bool = False) -> "Container":
    """Opens a container. What it holds is decoded when it is asked for; the file is closed with the last array that looks into it."""
    return Container(path, allow_partial)


@dataclass(frozen=True)
class Moments:
    """One accumulation of a dump with --moments."""

    group: str
    site: str
    layer_index: Optional[int]
    token_class: str
    count: int
    mean: Array
    m2: Array
    norm_sum: float
    unit_sum: Array

    @property
    def covariance(self) -> Array:
        """m2 / count, as a symmetric matrix."""
        matrix = np.zeros((len(self.mean), len(self.mean)))
        matrix[np.triu_indices(len(self.mean))] = self.m2 / self.count
        return matrix + np.triu(matrix, 1).T


class Container(Mapping[str, Array]):
    """The tensors of a container, by our names or by those of TransformerLens (`blocks.3.hook_resid_post`)."""

    header: dict[str, Any]
    state: str

    def __init__(self, path: Path, allow_partial: bool = False) -> None:
        self.path = os.fspath(path)
        with open(self.path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            self._need(size >= 200, "too short for a container")
            self._data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        body = self._read_header(size)
        seek = self._find_seek_table(size, body)
        manifest = self._read_manifest(size, body, seek)
        self._check_blocks(body, manifest)
        self._read_frames(size, seek, manifest)
        self._verified = np.zeros(len(self._blocks), bool)
        self._need(self.state == "complete" or allow_partial, f"the container is {self.state} (allow_partial=True reads it)")

    def _need(self, condition: Any, cause: str) -> None:
        need(condition, f"{self.path}: {cause}")

    def _read_header(self, size: int) -> int:
        """Reads the header frame; gives the offset behind it."""
        data = self._data
        magic, length = struct.unpack("<II", data[:8])
        self._need(magic == _HEADER_MAGIC and data[8:16] == b"flacts\r\n", "not an .acts file")
        version, text = struct.unpack("<II", data[16:24])
        self._need(version == 1, f"version {version} is not known")
        self._need(length == 48 + text and 56 + text <= size, "truncated")
        digest = blake3(memoryview(data)[: 24 + text]).digest()
        self._need(digest == data[24 + text : 56 + text], "header checksum mismatch")
        self._header_digest = digest
        try:
            self.header, self._specs = headers.parse(data[24 : 24 + text])
        except headers.Refused as cause:
            raise headers.Refused(f"{self.path}: {cause}") from None
        self._key = headers.key(self.header)
        self._index = {spec.name: index for index, spec in enumerate(self._specs)}
        return 56 + int(text)

    def _find_seek_table(self, size: int, body: int) -> int:
        data = self._data
        frames, descriptor, end = struct.unpack("<IBI", data[size - 9 :])
        self._need(end == _SEEK_END and descriptor == 0, "no end mark: truncated or still being written")
        seek = size - 17 - 8 * frames
        self._need(frames >= 2 and seek >= body, "a seek table larger than the file")
        self._need(struct.unpack("<II", data[seek : seek + 8]) == (_SEEK_MAGIC, size - seek - 8), "seek table misplaced")
        return int(seek)

    def _read_manifest(self, size: int, body: int, seek: int) -> int:
        data = self._data
        manifest = seek - struct.unpack("<I", data[size - 17 : size - 13])[0]
        self._need(manifest >= body and seek - manifest >= 136, "manifest misplaced")
        magic, length, mark, state, tensors, blocks, at = struct.unpack("<II8sIIQQ", data[manifest : manifest + 40])
        self._need(magic == _MANIFEST_MAGIC and mark == b"actsend\n", "manifest misplaced")
        sizes_agree = at == manifest and tensors == len(self._specs) and length + 8 == seek - manifest == 136 + 64 * (tensors + blocks)
        self._need(sizes_agree and state in _STATES, "a manifest that does not fit")
        view = memoryview(data)
        self._need(blake3(view[manifest : seek - 32], key=self._key).digest() == data[seek - 32 : seek], "manifest checksum mismatch")
        self._need(data[manifest + 40 : manifest + 72] == self._header_digest, "the manifest is of another header")
        self._need(blake3(view[seek:size]).digest() == data[manifest + 72 : manifest + 104], "seek table checksum mismatch")
        self.state = _STATES[state]
        self._need((self.state == "salvaged") == self.header.get("salvaged", False), "header and manifest disagree on a salvage")
        self._totals = np.frombuffer(data, _TOTALS, tensors, manifest + 104)
        self._blocks = np.frombuffer(data, _ENTRY, blocks, manifest + 104 + 64 * tensors)
        return int(manifest)

    def _check_blocks(self, body: int, manifest: int) -> None:
        """Every claim of the manifest that needs no block: offsets without a hole, rows without a gap, sizes, totals."""
        blocks, specs = self._blocks, self._specs
        self._need(np.all(blocks["tensor"] < len(specs)), "a block of no tensor")
        stored = np.array([spec.codec == "stored" for spec in specs], bool)[blocks["tensor"]] if len(blocks) else np.zeros(0, bool)
        self._padding = np.where(stored, -(blocks["offset"].astype(np.int64) + _DESCRIPTOR_BYTES + 8) % 4096, 0)
        ends = blocks["offset"].astype(np.int64) + _DESCRIPTOR_BYTES + self._padding + blocks["payload"]
        expected = np.concatenate([[body], ends])
        self._need(np.array_equal(np.append(blocks["offset"], manifest).astype(np.int64), expected), "blocks with holes between them")
        self._of_tensor = [np.flatnonzero(blocks["tensor"] == index) for index in range(len(specs))]
        for spec, total, numbers in zip(specs, self._totals, self._of_tensor):
            self._check_rows(spec, total, blocks[numbers])

    def _check_rows(self, spec: Spec, total: Any, own: Array) -> None:
        count = int(total["rows"])
        spec.check_rows(count)
        self._need(np.all(own["first"] <= headers.EXTENT_MAX), f"{spec.name}: a block beyond every row")
        first, rows, raw = own["first"].astype(np.int64), own["rows"].astype(np.int64), own["raw"].astype(np.int64)
        fits = np.all((rows >= 1) & (rows <= spec.block_row_count) & (first % spec.block_row_count == 0))
        self._need(fits and np.array_equal(raw, rows * spec.row_bytes), f"{spec.name}: a block of the wrong size")
        if self.state == "salvaged":
            self._need(np.all(first[1:] >= (first + rows)[:-1]), f"{spec.name}: rows out of order")
        else:
            whole = np.all(rows[:-1] == spec.block_row_count)
            self._need(whole and np.array_equal(first, np.arange(len(own)) * spec.block_row_count), f"{spec.name}: rows with gaps")
        end = int(first[-1] + rows[-1]) if len(own) else 0
        self._need(count == end and int(total["raw"]) == int(raw.sum()), f"{spec.name}: totals that do not fit")
        if self.state == "complete" and spec.row_count is not None:
            self._need(spec.row_count == count, f"{spec.name}: {count} rows where the header says {spec.row_count}")

    def _read_frames(self, size: int, seek: int, manifest: int) -> None:
        """The seek table: where each zstd frame of a block lies."""
        table = np.frombuffer(self._data, "<u4", (size - 9 - seek - 8) // 4, seek + 8).reshape(-1, 2)
        ends = np.cumsum(table[:, 0], dtype=np.int64)
        self._need(ends[-1] == seek, "the seek table does not reach to itself")
        self._frame_start = np.concatenate([[0], ends[:-1]])
        self._frame_bytes = table[:, 0]
        marks = np.append(self._blocks["offset"].astype(np.int64), manifest)
        at = np.searchsorted(self._frame_start, marks)
        self._need(np.array_equal(self._frame_start[at], marks), "the seek table does not know a block")
        self._first_frame = at[:-1] + 1
        self._frame_count = np.diff(at) - 1

    # What is in it

    def __getitem__(self, name: str) -> Array:
        return self.rows(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._index)

    def __len__(self) -> int:
        return len(self._index)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and sites.resolve(name) in self._index

    def __repr__(self) -> str:
        return f"<{self.path}: {len(self)} tensors, {self.state}>"

    def _find(self, name: str) -> int:
        index = self._index.get(sites.resolve(name))
        if index is None:
            raise KeyError(f"{self.path} has no tensor {name}")
        return index

    def spec(self, name: str) -> Spec:
        """The header's description of a tensor."""
        return self._specs[self._find(name)]

    def shape(self, name: str) -> tuple[int, ...]:
        index = self._find(name)
        return (int(self._totals[index]["rows"]), *self._specs[index].row_shape)

    def digest(self, name: str) -> str:
        """The digest of a tensor's content, which depends on neither codec nor block size."""
        return f"blake3:{self._totals[self._find(name)]['digest'].tobytes().hex()}"

    def non_finite(self, name: str) -> tuple[int, int]:
        """How many elements are NaN, and how many infinite."""
        total = self._totals[self._find(name)]
        return int(total["nan"]), int(total["inf"])

    # Numbers

    def raw(self, name: str, start: int = 0, stop: Optional[int] = None) -> Array:
        """Rows as they are stored, bf16 as its sixteen bits. Rows of one `stored` block are a view of the file; others are a copy."""
        index = self._find(name)
        spec, row_count = self._specs[index], int(self._totals[index]["rows"])
        stop = row_count if stop is None else stop
        self._need(0 <= start <= stop <= row_count, f"{name}: rows {start}:{stop} of {row_count}")
        parts = [self._part(spec, number, start, stop) for number in self._covering(index, start, stop)]
        rows = parts[0] if len(parts) == 1 else np.concatenate([np.empty((0, *spec.row_shape), spec.numpy), *parts])
        self._need(len(rows) == stop - start, f"{name}: rows are missing")
        if start == 0 and stop == row_count and self.state != "salvaged":
            content = blake3(np.ascontiguousarray(rows).reshape(-1).view(np.uint8).data).digest()
            self._need(content == self._totals[index]["digest"].tobytes(), f"{name}: its content has another digest than the manifest says")
        return rows

    def rows(self, name: str, start: int = 0, stop: Optional[int] = None) -> Array:
        """Rows as numbers: bf16 becomes float32, which loses nothing."""
        raw = self.raw(name, start, stop)
        if self.spec(name).dtype != "bf16":
            return raw
        return (raw.astype("<u4") << 16).view("<f4")

    def torch(self, name: str, start: int = 0, stop: Optional[int] = None) -> "torch.Tensor":
        """Rows as a tensor of PyTorch, bf16 as bf16; of `stored` blocks it looks into the file and must not be written to."""
        import torch

        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            tensor = torch.from_numpy(self.raw(name, start, stop))
        return tensor.view(torch.bfloat16) if self.spec(name).dtype == "bf16" else tensor

    def samples(self) -> list[dict[str, Any]]:
        """The sample records, in the order of their rows."""
        if "samples" not in self:
            return []
        return stream.parse(self.raw("samples").tobytes().decode("utf-8").splitlines(), f"{self.path}: samples")

    def moments(self) -> Iterator[Moments]:
        """The accumulations of a dump with --moments that have rows."""
        groups = self.header.get("groups", [])
        for spec in self._specs:
            if spec.role != "moments" or not spec.name.endswith(".count"):
                continue
            stem = spec.name.removesuffix(".count")
            group, token_class = int(stem.split(".")[1]), stem.rsplit(".", 1)[1]
            self._need(group < len(groups), f"{spec.name}: of group {group} of {len(groups)}")
            numbers = [self.raw(f"{stem}.{part}") for part in ("count", "mean", "m2", "norm_sum", "unit_sum")]
            if int(numbers[0][0]):
                count, mean, m2, norm_sum, unit_sum = numbers
                yield Moments(
                    groups[group], str(spec.site), spec.layer_index, token_class, int(count[0]), mean[0], m2, float(norm_sum[0]), unit_sum[0]
                )

    # Blocks

    def _covering(self, index: int, start: int, stop: int) -> Array:
        own = self._of_tensor[index]
        first = self._blocks["first"][own].astype(np.int64)
        covering: Array = own[(first < stop) & (first + self._blocks["rows"][own] > start)]
        return covering

    def _part(self, spec: Spec, number: int, start: int, stop: int) -> Array:
        """The rows of start..stop that lie in a block."""
        block = self._blocks[number]
        first, count = int(block["first"]), int(block["rows"])
        rows = self._decode(spec, number).view(spec.numpy).reshape(count, *spec.row_shape)
        return rows[max(start - first, 0) : stop - first]

    def _decode(self, spec: Spec, number: int) -> Array:
        """The raw bytes of a block: a view of the file where it is stored."""
        payload = self._verify(spec, number)
        raw = int(self._blocks[number]["raw"])
        if spec.codec == "stored":
            length = struct.unpack("<II", self._data[payload : payload + 8])
            self._need(length == (_STORED_MAGIC, raw), f"{spec.name}: block {number} is no stored block")
            return np.frombuffer(self._data, np.uint8, raw, payload + 8)
        planes = spec.numpy.itemsize if spec.codec == "zstd-planes" else 1
        self._need(self._frame_count[number] == planes, f"{spec.name}: block {number} has not one frame for each plane")
        out = np.empty((raw // planes, planes), np.uint8)
        for plane in range(planes):
            out[:, plane] = self._decompress(spec, int(self._first_frame[number]) + plane, raw // planes)
        return out.reshape(-1)

    def _verify(self, spec: Spec, number: int) -> int:
        """Compares a block with what the manifest says of it, once; gives the offset of its payload."""
        block, padding = self._blocks[number], int(self._padding[number])
        offset = int(block["offset"])
        payload = offset + _DESCRIPTOR_BYTES + padding
        if self._verified[number]:
            return payload
        view = memoryview(self._data)
        described = struct.pack("<QIIQII", number, block["tensor"], block["rows"], block["first"], block["raw"], block["payload"])
        head = struct.pack("<II", _BLOCK_MAGIC, 64 + padding) + described + block["digest"].tobytes() + bytes(padding)
        self._need(view[offset:payload] == head, f"{spec.name}: block {number} is not the one that the manifest lists")
        digest = blake3(described, key=self._key).update(view[payload : payload + int(block["payload"])]).digest()
        self._need(digest == block["digest"].tobytes(), f"{spec.name}: block checksum mismatch at byte {offset}")
        self._verified[number] = True
        return payload

    def _decompress(self, spec: Spec, frame: int, length: int) -> Array:
        start = int(self._frame_start[frame])
        bytes_ = memoryview(self._data)[start : start + int(self._frame_bytes[frame])]
        try:
            said = zstandard.get_frame_parameters(bytes_)
            sound = said.content_size == length and said.has_checksum and said.dict_id == 0 and said.window_size <= headers.WINDOW_BYTES_MAX
            self._need(sound, f"{spec.name}: a zstd frame at byte {start} that the format does not allow")
            raw = zstandard.ZstdDecompressor().decompress(bytes_, allow_extra_data=False)
        except zstandard.ZstdError as cause:
            raise headers.Refused(f"{self.path}: {spec.name}: {cause}") from None
        self._need(len(raw) == length, f"{spec.name}: a frame of the wrong length at byte {start}")
        return np.frombuffer(raw, np.uint8)
