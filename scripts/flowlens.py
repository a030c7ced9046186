"""Reads flowlens containers (.acts) and record streams in a notebook.

    import flowlens

    with flowlens.Acts("dump.acts") as file:
        file.tensors                             # names
        x = file["resid_post.3"]                 # all rows, float32 for bf16 and f16
        x = file.rows("resid_post.3", 100, 200)  # some rows: only their blocks are read
        file.samples()                           # sample records, a list of dicts
        for group, site, layer, c, m in file.moments():
            m["mean"], m["covariance"]

    flowlens.records("layers.jsonl")             # checked rows, a list of dicts
    flowlens.frame("layers.jsonl", "layer")      # as a pandas DataFrame, if pandas is there

Needs numpy and zstandard. With the package `blake3` every block's digest is verified before it is decoded, as the tools do; without it
lengths, order and zstd's own checksums are (man 5 acts).
"""

import io
import json
import mmap
import os
import struct

import numpy as np
import zstandard

try:
    from blake3 import blake3
except ImportError:
    blake3 = None

__all__ = ["Acts", "Refused", "records", "frame"]

_DTYPES = {"f64": "<f8", "f32": "<f4", "f16": "<f2", "bf16": "<u2", "u32": "<u4", "i64": "<i8", "u8": "u1"}
_STATES = {1: "complete", 2: "partial", 3: "salvaged"}
_SEEK_MAGIC, _SEEK_END = 0x184D2A5E, 0x8F92EAB1
_ENTRY = np.dtype(
    [("offset", "<u8"), ("tensor", "<u4"), ("rows", "<u4"), ("first", "<u8"), ("raw", "<u4"), ("payload", "<u4"), ("digest", "V32")]
)


class Refused(ValueError):
    """Bytes that are not a sound container or record stream."""


def _need(condition, cause):
    if not condition:
        raise Refused(cause)


class Acts:
    """A container: `header`, `tensors`, and rows by name."""

    def __init__(self, path, allow_partial=False):
        self.path = os.fspath(path)
        self._file = open(self.path, "rb")
        size = os.fstat(self._file.fileno()).st_size
        try:
            _need(size >= 200, f"{self.path}: too short for a container")
            self._data = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
            self._open(size, allow_partial)
        except BaseException:
            self.close()
            raise

    def _open(self, size, allow_partial):
        data, path = self._data, self.path
        _need(data[:4] == b"\x50\x2a\x4d\x18" and data[8:16] == b"flacts\r\n", f"{path}: not an .acts file")
        version, text = struct.unpack("<II", data[16:24])
        _need(version == 1, f"{path}: version {version} is not known")
        _need(56 + text <= size, f"{path}: truncated")
        _need(blake3 is None or blake3(data[: 24 + text]).digest() == data[24 + text : 56 + text], f"{path}: header checksum mismatch")
        self.header = json.loads(data[24 : 24 + text].decode("utf-8"))
        frames, descriptor, end = struct.unpack("<IBI", data[size - 9 :])
        _need(end == _SEEK_END and descriptor == 0, f"{path}: no end mark: truncated or still being written")
        seek = size - 17 - 8 * frames
        _need(frames >= 2 and seek > 56 + text, f"{path}: a seek table larger than the file")
        _need(struct.unpack("<II", data[seek : seek + 8]) == (_SEEK_MAGIC, size - seek - 8), f"{path}: seek table misplaced")
        manifest = seek - struct.unpack("<I", data[size - 17 : size - 13])[0]
        _need(manifest >= 56 + text and data[manifest + 8 : manifest + 16] == b"actsend\n", f"{path}: manifest misplaced")
        state, tensors, blocks, at = struct.unpack("<IIQQ", data[manifest + 16 : manifest + 40])
        specs = self.header["tensors"]
        sizes_agree = at == manifest and tensors == len(specs) and seek - manifest == 136 + 64 * (tensors + blocks)
        _need(sizes_agree and state in _STATES, f"{path}: a manifest that does not fit")
        self._key = bytes.fromhex(self.header["file_id"].removeprefix("sha256:"))
        if blake3 is not None:
            _need(blake3(data[manifest : seek - 32], key=self._key).digest() == data[seek - 32 : seek], f"{path}: manifest checksum mismatch")
            _need(blake3(data[seek:size]).digest() == data[manifest + 72 : manifest + 104], f"{path}: seek table checksum mismatch")
        self.state = _STATES[state]
        _need(state == 1 or allow_partial, f"{path}: the container is {self.state} (allow_partial=True reads it)")
        self._specs = {spec["name"]: (index, spec) for index, spec in enumerate(specs)}
        totals = np.frombuffer(data, "<u8", 8 * tensors, manifest + 104).reshape(tensors, 8)
        self._rows = [int(total[0]) for total in totals]
        self.nan_count = {spec["name"]: int(total[2]) for spec, total in zip(specs, totals)}
        self.inf_count = {spec["name"]: int(total[3]) for spec, total in zip(specs, totals)}
        entries = np.frombuffer(data, _ENTRY, blocks, manifest + 104 + 64 * tensors)
        self._blocks = [entries[entries["tensor"] == index] for index in range(tensors)]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        # Arrays may still look into the map; the last of them closes it.
        self._data = None
        self._file.close()

    @property
    def tensors(self):
        return list(self._specs)

    def spec(self, name):
        """The header's description of a tensor."""
        return self._specs[name][1]

    def shape(self, name):
        index, spec = self._specs[name]
        return (self._rows[index], *spec["row_shape"])

    def raw(self, name, start=0, stop=None):
        """Rows as they are stored; bf16 as its 16 bits in u2."""
        index, spec = self._specs[name]
        stop = self._rows[index] if stop is None else stop
        _need(0 <= start <= stop <= self._rows[index], f"{name}: rows {start}:{stop} of {self._rows[index]}")
        dtype = np.dtype(_DTYPES[spec["dtype"]])
        out = np.empty((stop - start, *spec["row_shape"]), dtype)
        blocks = self._blocks[index]
        row = start
        while row < stop:
            at = int(np.searchsorted(blocks["first"], row, side="right")) - 1
            _need(at >= 0 and row < int(blocks[at]["first"]) + int(blocks[at]["rows"]), f"{name}: row {row} is missing")
            first, end = int(blocks[at]["first"]), min(stop, int(blocks[at]["first"]) + int(blocks[at]["rows"]))
            rows = np.frombuffer(self._decode(spec, dtype, blocks[at]), dtype).reshape(-1, *spec["row_shape"])
            out[row - start : end - start] = rows[row - first : end - first]
            row = end
        return out

    def rows(self, name, start=0, stop=None):
        """Rows as numbers: bf16 and f16 become float32, which loses nothing."""
        raw = self.raw(name, start, stop)
        kind = self._specs[name][1]["dtype"]
        if kind == "bf16":
            return (raw.astype("<u4") << 16).view("<f4")
        return raw.astype("<f4") if kind == "f16" else raw

    def __getitem__(self, name):
        return self.rows(name)

    def __contains__(self, name):
        return name in self._specs

    def _decode(self, spec, dtype, entry):
        offset, length, raw_bytes = int(entry["offset"]), int(entry["payload"]), int(entry["raw"])
        start = offset + 8 + struct.unpack("<I", self._data[offset + 4 : offset + 8])[0]
        payload = self._data[start : start + length]
        if blake3 is not None:
            digest = blake3(self._data[offset + 8 : offset + 40] + payload, key=self._key).digest()
            _need(digest == entry["digest"].tobytes() == self._data[offset + 40 : offset + 72], f"{spec['name']}: block checksum mismatch at byte {offset}")
        if spec["codec"] == "stored":
            raw = payload[8:]
        else:
            reader = zstandard.ZstdDecompressor(max_window_size=1 << 24).stream_reader(payload, read_across_frames=True)
            raw = reader.read(raw_bytes)
            if spec["codec"] == "zstd-planes" and dtype.itemsize > 1:
                raw = np.frombuffer(raw, "u1").reshape(dtype.itemsize, -1).T.tobytes()
        _need(len(raw) == raw_bytes, f"{spec['name']}: a block of the wrong length at byte {offset}")
        return raw

    def samples(self):
        """Sample records, in the order of their rows."""
        if "samples" not in self._specs:
            return []
        return [json.loads(line) for line in self.raw("samples").tobytes().decode("utf-8").splitlines() if line]

    def moments(self):
        """(group, site, layer, class, numbers) of each accumulation; `covariance` is m2 / count, `numbers` also holds the norms."""
        for name, (_, spec) in self._specs.items():
            if spec["role"] != "moments" or not name.endswith(".count"):
                continue
            stem = name.removesuffix(".count")
            group, token_class = int(stem.split(".")[1]), stem.rsplit(".", 1)[1]
            count = int(self.raw(name)[0])
            mean = self.raw(f"{stem}.mean")[0]
            numbers = {"count": count, "mean": mean, "norm_sum": float(self.raw(f"{stem}.norm_sum")[0]), "unit_sum": self.raw(f"{stem}.unit_sum")[0]}
            if count:
                covariance = np.zeros((len(mean), len(mean)))
                covariance[np.triu_indices(len(mean))] = self.raw(f"{stem}.m2") / count
                numbers["covariance"] = covariance + np.triu(covariance, 1).T
            groups = self.header.get("groups", [])
            yield groups[group] if group < len(groups) else group, spec["site"], spec.get("layer_index"), token_class, numbers


def records(source, kind=None):
    """Rows of a record stream (a path or an open text file), or of plain JSON lines. A stream that began and did not end is refused."""
    if not hasattr(source, "read"):
        with open(source, encoding="utf-8-sig") as text:
            return records(io.StringIO(text.read()), kind)
    rows, begun, count = [], False, 0
    for number, line in enumerate(source, 1):
        if not line.strip():
            continue
        row = json.loads(line, parse_constant=lambda name: (_ for _ in ()).throw(Refused(f"line {number}: {name} is no number")))
        _need(isinstance(row, dict), f"line {number}: not an object")
        if row.get("type") == "begin":
            _need(not begun, f"line {number}: a stream begins inside another")
            _need(str(row.get("schema", "")).startswith("flowlens/1"), f"line {number}: schema {row.get('schema')}")
            begun, count = True, 0
        elif row.get("type") == "end" and begun:
            _need(row["row_count"] == count, f"line {number}: {count} rows where the end record says {row['row_count']}")
            begun = False
        else:
            count += 1
            if kind is None or row.get("type") == kind:
                rows.append(row)
    _need(not begun, "the stream ends without its end record: its producer failed")
    return rows


def frame(source, kind=None):
    """Like `records`, as a pandas DataFrame."""
    import pandas

    return pandas.DataFrame(records(source, kind))
