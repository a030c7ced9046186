"""Reading: every codec and type, views where rows are stored, and no damaged byte believed."""

import itertools
import json
import mmap
import struct

import numpy as np
from blake3 import blake3

import flowlens
from flowlens import header

from . import FIXTURES, Case, needs


def numbers(seed: int, rows: int, width: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, width)).astype("f4")


def rewritten(data: bytes, old: bytes, new: bytes) -> bytes:
    """The header's text changed to one of the same length, and every digest that depends on it made right."""
    assert len(old) == len(new) and data.count(old) == 1
    text = struct.unpack("<I", data[20:24])[0]
    key = header.key(json.loads(data[24 : 24 + text]))
    data = bytearray(data.replace(old, new))
    data[24 + text : 56 + text] = blake3(bytes(data[: 24 + text])).digest()
    frames = struct.unpack("<I", data[-9:-5])[0]
    seek = len(data) - 17 - 8 * frames
    manifest = seek - struct.unpack("<I", data[-17:-13])[0]
    data[manifest + 40 : manifest + 72] = data[24 + text : 56 + text]
    data[seek - 32 : seek] = blake3(bytes(data[manifest : seek - 32]), key=key).digest()
    return bytes(data)


class Reading(Case):
    def test_what_was_written_is_read_in_every_codec_and_type(self) -> None:
        values = numbers(1, 300, 7)
        arrays = {
            "resid_post.3": values, "a": values.astype("f8"), "b": values.astype("f2"), "c": (values * 1000).astype("i8"),
            "d": np.arange(300, dtype="u4"), "e": np.arange(300).astype("u1"), "f": values.reshape(300, 1, 7), "none": values[:0],
        }
        for codec in header.CODECS:
            path = self.at / f"{codec}.acts"
            flowlens.write(path, arrays, codec=codec, block_bytes=1000)
            found = flowlens.read(path)
            self.assertEqual(set(found), set(arrays))
            for name, array in arrays.items():
                np.testing.assert_array_equal(found[name], array, f"{codec} {name}")
                if len(array):
                    np.testing.assert_array_equal(found.rows(name, 17, 17), array[:0])
                    np.testing.assert_array_equal(found.rows(name, 17, 170), array[17:170])

    def test_rows_of_a_stored_block_are_a_view_of_the_file(self) -> None:
        path = self.at / "x.acts"
        flowlens.write(path, {"x": numbers(2, 1000, 16)}, codec="stored", block_bytes=1 << 20)
        found = flowlens.read(path)["x"]
        base = found
        while isinstance(base, np.ndarray):
            base = base.base
        self.assertIsInstance(base.obj if isinstance(base, memoryview) else base, mmap.mmap)
        self.assertFalse(found.flags.writeable)
        flowlens.write(self.at / "y.acts", {"x": numbers(2, 1000, 16)})
        self.assertEqual(flowlens.read(self.at / "y.acts").digest("x"), flowlens.read(path).digest("x"))

    def test_version_1_is_read_for_ever(self) -> None:
        found = flowlens.read(FIXTURES / "acts/version-1.acts")
        self.assertEqual({name: found.shape(name) for name in found}, {name: found[name].shape for name in found})
        self.assertEqual(found.state, "complete")

    def test_every_release_is_read_for_ever(self) -> None:
        releases = sorted((FIXTURES / "releases").iterdir())
        self.assertTrue(releases)
        for release in releases:
            for path in release.glob("*.acts"):
                self.assertEqual(sum(array.size > 0 for array in flowlens.read(path).values()) > 0, True, path.name)
            for path in release.glob("*.jsonl"):
                self.assertGreater(len(flowlens.records(path)), 0, path.name)
            self.assertEqual(len(flowlens.read(release / "dump.acts").samples()), 12)

    def test_names_of_transformer_lens_are_names(self) -> None:
        path = self.at / "x.acts"
        flowlens.write(path, {"blocks.3.hook_resid_post": numbers(3, 4, 2)})
        found = flowlens.read(path)
        self.assertEqual(list(found), ["resid_post.3"])
        self.assertIn("blocks.3.hook_resid_post", found)
        np.testing.assert_array_equal(found["blocks.3.hook_resid_post"], found["resid_post.3"])
        self.assertEqual((found.spec("resid_post.3").site, found.spec("resid_post.3").layer_index), ("resid_post", 3))
        for name, ours in [("blocks.0.hook_resid_pre", "resid_pre.0"), ("blocks.12.mlp.hook_pre", "mlp_gate.12"), ("blocks.1.hook_x", "blocks.1.hook_x")]:
            self.assertEqual(flowlens.container.sites.resolve(name), ours)
        with self.assertRaises(KeyError):
            found["resid_post.4"]

    @needs("torch")
    def test_a_tensor_of_torch_keeps_bf16(self) -> None:
        import torch

        for codec in header.CODECS:
            path = self.at / f"{codec}.acts"
            values = torch.from_numpy(numbers(4, 50, 3)).bfloat16()
            flowlens.write(path, {"resid_pre.0": values}, codec=codec)
            self.assertTrue(torch.equal(flowlens.read(path).torch("resid_pre.0"), values))
            np.testing.assert_array_equal(flowlens.read(path)["resid_pre.0"], values.float().numpy())


class Damage(Case):
    def test_the_attacks_are_refused(self) -> None:
        attacks = sorted((FIXTURES / "attacks").glob("*.acts"))
        self.assertGreater(len(attacks), 10)
        for path in attacks:
            with self.subTest(path.name), self.assertRaises(flowlens.Refused):
                found = flowlens.read(path)
                for name in found:
                    found.raw(name)

    def test_no_changed_byte_and_no_cut_is_believed(self) -> None:
        path = self.at / "x.acts"
        for codec in header.CODECS:
            flowlens.write(path, {"x": numbers(5, 20, 3), "resid_post.0": numbers(6, 20, 3)}, codec=codec, block_bytes=120, samples=[{"id": "a"}], force=True)
            whole = path.read_bytes()
            damaged = [whole[:at] + bytes([whole[at] ^ 0x40]) + whole[at + 1 :] for at in range(0, len(whole), 7)]
            for bytes_ in itertools.chain(damaged, [whole[:at] for at in range(0, len(whole), 97)]):
                path.write_bytes(bytes_)
                with self.assertRaises(flowlens.Refused):
                    dict(flowlens.read(path))

    def test_a_header_says_what_is_known_once_and_in_its_type(self) -> None:
        path = self.at / "x.acts"
        flowlens.write(path, {"x": numbers(7, 4, 2)}, meta={"note": 1, "mark": 2})
        whole = path.read_bytes()
        path.write_bytes(rewritten(whole, b'"note"', b'"nota"'))
        self.assertEqual(flowlens.read(path).header["meta"], {"nota": 1, "mark": 2})
        changes = [(b'"note"', b'"mark"'), (b'"level":1', b'"xevel":1'), (b'"f32"', b'"f33"'), (b'"data"', b'"dada"'), (b'"note":1', b'"note":,'),
                   (b'[2]', b'[0]'), (b'"tool"', b'"toll"'), (b'"level":1', b'"level":0')]
        for old, new in changes:
            path.write_bytes(rewritten(whole, old, new))
            with self.subTest(new), self.assertRaises(flowlens.Refused):
                flowlens.read(path)

    def test_what_is_partial_needs_to_be_asked_for(self) -> None:
        path = self.at / "x.acts"
        flowlens.write(path, {"x": numbers(8, 4, 2)})
        data = bytearray(path.read_bytes())
        frames = struct.unpack("<I", data[-9:-5])[0]
        seek = len(data) - 17 - 8 * frames
        manifest = seek - struct.unpack("<I", data[-17:-13])[0]
        data[manifest + 16] = 2
        key = header.key(flowlens.read(path).header)
        data[seek - 32 : seek] = blake3(bytes(data[manifest : seek - 32]), key=key).digest()
        path.write_bytes(bytes(data))
        with self.assertRaisesRegex(flowlens.Refused, "partial"):
            flowlens.read(path)
        self.assertEqual(flowlens.read(path, allow_partial=True).state, "partial")
