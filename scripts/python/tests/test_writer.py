"""Writing: what the tools accept, the same bytes again, and refusals."""

import json

import numpy as np

import flowlens
from flowlens.writer import bf16_bits

from . import Case, needs, needs_tools, run


class Writing(Case):
    def arrays(self) -> dict[str, np.ndarray]:
        rows = np.random.default_rng(1).normal(size=(40, 8)).astype("f4")
        tables = {"sample_index": np.arange(40), "position": np.zeros(40, int), "token_id": np.arange(40) * 3}
        return {"resid_post.0": rows, "resid_post.1": rows * 2, **tables}

    @needs_tools
    def test_the_tools_take_it(self) -> None:
        samples = [{"id": str(at), "sample_index": at, "group": "", "text_digest": "sha256:" + "0" * 64, "token_count": 1, "row_start": at, "row_count": 1} for at in range(40)]
        for codec in ("stored", "zstd", "zstd-planes"):
            path = self.at / f"{codec}.acts"
            flowlens.write(path, self.arrays(), samples=samples, codec=codec, block_bytes=256, meta={"layer_count": 4})
            run("acts-check", "--full", path)
            layers = [json.loads(line) for line in run("flowlens-pca", path).splitlines()]
            depths = [row["depth"] for row in layers if row["type"] == "layer"]
            self.assertEqual(depths, [0.25, 0.5], codec)

    def test_the_same_arrays_are_the_same_bytes(self) -> None:
        for name in "ab":
            flowlens.write(self.at / name, self.arrays())
        self.assertEqual((self.at / "a").read_bytes(), (self.at / "b").read_bytes())
        flowlens.write(self.at / "c", {**self.arrays(), "resid_post.1": np.zeros((40, 8), "f4")})
        self.assertNotEqual(flowlens.read(self.at / "a").header["file_id"], flowlens.read(self.at / "c").header["file_id"])

    def test_a_file_is_not_replaced_unasked_and_nothing_half_is_left(self) -> None:
        path = self.at / "x.acts"
        flowlens.write(path, self.arrays())
        with self.assertRaisesRegex(flowlens.Refused, "exists"):
            flowlens.write(path, {"x": np.zeros(3)})
        with self.assertRaises(flowlens.Refused):
            flowlens.write(path, {"x": np.zeros((3, 1 << 24))}, force=True)
        self.assertEqual([entry.name for entry in self.at.iterdir()], ["x.acts"])
        self.assertIn("resid_post.0", flowlens.read(path))

    def test_what_no_container_holds_is_refused(self) -> None:
        rows = np.zeros((4, 2), "f4")
        refused = [
            {"resid_post.0": rows, "resid_post.1": rows[:3]}, {"resid_post.0": rows, "position": np.zeros(3, int)}, {"../x": rows},
            {"x": rows.astype("c8")}, {"x": np.float32(1)}, {"position": np.array([-1])}, {"position": np.array([1 << 32])}, {"position": np.zeros(2)},
        ]
        for arrays in refused:
            with self.subTest(list(arrays)), self.assertRaises(flowlens.Refused):
                flowlens.write(self.at / "x.acts", arrays)
        with self.assertRaisesRegex(flowlens.Refused, "beyond f16"):
            flowlens.write(self.at / "x.acts", {"resid_post.0": rows + 1e6}, store_dtype="f16")

    @needs("torch")
    def test_bf16_is_rounded_as_pytorch_rounds(self) -> None:
        import torch

        bits = np.random.default_rng(2).integers(0, 1 << 32, 100_000, dtype="u4")
        numbers = np.concatenate([bits.view("f4"), np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1.00390625, 3.4e38], "f4")])
        ours = torch.from_numpy(bf16_bits(numbers).view("i2")).view(torch.bfloat16)
        theirs = torch.from_numpy(numbers).bfloat16()
        self.assertTrue(torch.equal(ours.isnan(), theirs.isnan()))
        self.assertTrue(torch.equal(ours.nan_to_num(), theirs.nan_to_num()))
