#!/usr/bin/env python3
"""A real model in every stored type: its matrices quantised by llama.cpp's own quantiser (out of the shared object of xllamacpp), read by
lm-merge, and compared with what the `gguf` package makes of the same blocks, value for value.
usage: gguf_types.py [--bin DIRECTORY] MODEL.gguf [TYPE...]     needs gguf, numpy, safetensors, xllamacpp
A matrix whose rows are no whole blocks is stored as Q8_0, as llama.cpp takes another type for it too."""
import argparse, ctypes, json, pathlib, subprocess, sys, tempfile

import gguf
import numpy as np
from safetensors.numpy import load_file

from gguf_fixtures import Llama, finish, paired

ROOT = pathlib.Path(__file__).resolve().parents[2]
TYPES = "F32 F16 BF16 Q8_0 Q4_0 Q4_1 Q5_0 Q5_1 Q2_K Q3_K Q4_K Q5_K Q6_K IQ4_NL IQ4_XS MXFP4".split()


def quantised(api, values, kind):
    """The blocks of a matrix."""
    if kind in (gguf.GGMLQuantizationType.F32, gguf.GGMLQuantizationType.F16, gguf.GGMLQuantizationType.BF16):
        return gguf.quants.quantize(values, kind)
    block, size = gguf.GGML_QUANT_SIZES[kind]
    rows, width = values.shape
    stored = np.zeros((rows, width // block * size), np.uint8)
    api.ggml_quantize_chunk.restype = ctypes.c_size_t
    floats, count = ctypes.POINTER(ctypes.c_float), ctypes.c_int64
    made = api.ggml_quantize_chunk(ctypes.c_int(kind), values.ctypes.data_as(floats), stored.ctypes.data_as(ctypes.c_void_p), count(0),
                                   count(rows), count(width), floats())
    assert made == stored.nbytes, kind
    return stored


def write(api, reader, path, kind):
    """The model in another type, and its numbers by name."""
    architecture = reader.fields["general.architecture"].contents()
    writer, values = gguf.GGUFWriter(path, architecture), {}
    for name, field in reader.fields.items():
        if not name.startswith("GGUF.") and name not in ("general.architecture", "general.file_type"):
            of_list = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(name, field.contents(), field.types[0], of_list)
    for tensor in reader.tensors:
        numbers = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        own = kind if numbers.ndim == 2 else gguf.GGMLQuantizationType.F32
        if numbers.shape[-1] % gguf.GGML_QUANT_SIZES[own][0]:
            own = gguf.GGMLQuantizationType.Q8_0
        stored = quantised(api, np.ascontiguousarray(numbers), own)
        values[tensor.name] = gguf.quants.dequantize(stored, own).astype(np.float32)
        writer.add_tensor(tensor.name, stored, raw_dtype=own)
    finish(writer)
    return architecture, values


def same(architecture, values, config, directory):
    """How many tensors there are, and how many numbers of all are others."""
    names = gguf.get_tensor_name_map(next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture), config["num_hidden_layers"])
    others = count = 0
    for file in pathlib.Path(directory).glob("*.safetensors"):
        for name, own in load_file(file).items():
            theirs = values[names.get_name(name, try_suffixes=(".weight", ".bias"))]
            if architecture == "llama" and (".q_proj." in name or ".k_proj." in name):
                own = paired(own, config["num_attention_heads" if ".q_proj." in name else "num_key_value_heads"])
            count, others = count + 1, others + int((own != theirs).sum())
    return count, others


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", type=pathlib.Path, default=ROOT / "target/release")
    parser.add_argument("model")
    parser.add_argument("types", nargs="*", default=TYPES)
    arguments = parser.parse_args()
    reader, llama, worst = gguf.GGUFReader(arguments.model), Llama(), 0
    print("type     tensors  other values")
    for name in arguments.types or TYPES:
        with tempfile.TemporaryDirectory() as folder:
            path = f"{folder}/model.gguf"
            architecture, values = write(llama.api, reader, path, gguf.GGMLQuantizationType[name])
            subprocess.run([arguments.bin / "lm-merge", "--model", path, "--quiet", "-o", f"{folder}/merged"], check=True,
                           stdout=subprocess.DEVNULL)
            config = json.loads(pathlib.Path(f"{folder}/merged/config.json").read_text())
            count, others = same(architecture, values, config, f"{folder}/merged")
        print(f"{name:8} {count:7}  {others}", flush=True)
        worst += others
    sys.exit(worst != 0)


if __name__ == "__main__":
    main()
