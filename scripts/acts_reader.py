#!/usr/bin/env python3
"""Reads an .acts container with nothing but zstandard and numpy: man 5 acts in forty lines. Checks lengths and zstd's checksums, not BLAKE3.

    acts_reader.py FILE            lists the tensors
    acts_reader.read(FILE)         {name: array}; bf16 as its 16 bits in u2
"""
import json, struct, sys
import numpy as np
import zstandard

KINDS = {"f64": "<f8", "f32": "<f4", "f16": "<f2", "bf16": "<u2", "u32": "<u4", "i64": "<i8", "u8": "u1"}

def read(path):
    data = open(path, "rb").read()
    count, descriptor, magic = struct.unpack("<IBI", data[-9:])
    assert magic == 0x8F92EAB1 and descriptor == 0 and 17 + 8 * count <= len(data), "no end mark"
    manifest = len(data) - 17 - 8 * count - struct.unpack("<I", data[-17:-13])[0]
    assert data[manifest + 8 : manifest + 16] == b"actsend\n" and data[8:16] == b"flacts\r\n", "not an .acts file"
    state, tensor_count, block_count = struct.unpack("<IIQ", data[manifest + 16 : manifest + 32])
    assert state == 1, "not complete"
    header = json.loads(data[24 : 24 + struct.unpack("<I", data[20:24])[0]])
    parts = [[] for _ in header["tensors"]]
    entries = manifest + 104 + 64 * tensor_count
    for at in range(entries, entries + 64 * block_count, 64):
        offset, tensor, rows, first, raw_bytes, stored = struct.unpack("<QIIQII", data[at : at + 32])
        spec, start = header["tensors"][tensor], offset + 8 + struct.unpack("<I", data[offset + 4 : offset + 8])[0]
        width = np.dtype(KINDS[spec["dtype"]]).itemsize if spec["codec"] == "zstd-planes" else 1
        payload, raw = data[start : start + stored], data[start + 8 : start + stored]
        if spec["codec"] != "stored":
            raw = zstandard.ZstdDecompressor().stream_reader(payload, read_across_frames=True).read(raw_bytes)
            raw = np.frombuffer(raw, "u1").reshape(width, -1).T.tobytes()
        assert len(raw) == raw_bytes, "a block of the wrong length"
        parts[tensor].append(raw)
    arrays = [np.frombuffer(b"".join(part), KINDS[spec["dtype"]]) for part, spec in zip(parts, header["tensors"])]
    return {spec["name"]: array.reshape(-1, *spec["row_shape"]) for array, spec in zip(arrays, header["tensors"])}

if __name__ == "__main__":
    for name, array in read(sys.argv[1]).items():
        print(name, array.dtype, array.shape)
