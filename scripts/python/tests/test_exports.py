"""What other programs read: TensorBoard's own reader, csv and yaml; and the example for TRL, run."""

import csv
import io
import json
import os
import subprocess
import sys
import unittest
from typing import Any

import numpy as np

import flowlens
from flowlens.card import card
from flowlens.events import write_csv, write_events

from . import ROOT, Case, needs, needs_tools, run

BASE = ROOT / "scripts/repro/base"
SMOLLM2 = os.environ.get("FLOWLENS_SMOLLM2")
METRICS = """{"type":"begin","schema":"flowlens/1","tool":"vcl-train","version":"0.1.0"}
{"type":"metric","step":1,"loss":2.5,"aux":{"vcl":{"k":4,"sign":"spread","c_k":0.25,"c_k_layers":{"2":0.5}}}}
{"type":"metric","step":2,"loss":1.5,"aux":{"vcl":{"k":4,"sign":"spread","c_k":0.125,"c_k_layers":{"2":0.25}}}}
{"type":"eval","step":2,"eval_loss":1.75,"token_count":9}
{"type":"end","row_count":3,"status":"complete"}
"""


class Curves(Case):
    @needs("tensorboard")
    def test_tensorboard_reads_every_number_at_its_step(self) -> None:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        self.assertEqual(write_events(io.StringIO(METRICS), self.at), 10)
        found = EventAccumulator(str(self.at))
        found.Reload()
        self.assertEqual([(point.step, point.value) for point in found.Scalars("metric/aux/vcl/c_k_layers/2")], [(1, 0.5), (2, 0.25)])
        self.assertEqual([(point.step, point.value) for point in found.Scalars("metric/loss")], [(1, 2.5), (2, 1.5)])
        self.assertEqual([point.value for point in found.Scalars("eval/eval_loss")], [1.75])
        with self.assertRaisesRegex(flowlens.Refused, "step"):
            write_events(io.StringIO('{"type":"layer"}'), self.at)

    def test_csv_has_a_column_for_each_path(self) -> None:
        out = io.StringIO()
        self.assertEqual(write_csv(io.StringIO(METRICS), "metric", out), 2)
        rows = list(csv.DictReader(io.StringIO(out.getvalue())))
        self.assertEqual(rows[1]["aux/vcl/c_k"], "0.125")
        self.assertEqual((rows[0]["step"], rows[0]["aux/vcl/sign"]), ("1", "spread"))
        with self.assertRaises(flowlens.Refused):
            write_csv(io.StringIO(METRICS), "layer", out)


class Neighbours(Case):
    @needs("datasets")
    def test_datasets_reads_what_was_saved_in_the_columns_of_saelens(self) -> None:
        import datasets

        from flowlens.dataset import to_dataset

        lengths, width = [5, 4, 9], 3
        rows = np.random.default_rng(1).normal(size=(sum(lengths), width)).astype("f4")
        tables = {
            "sample_index": np.repeat(np.arange(3), lengths), "token_id": np.arange(sum(lengths)) + 7,
            "position": np.concatenate([np.arange(length) for length in lengths]),
        }
        flowlens.write(self.at / "x.acts", {"resid_post.2": rows, "resid_pre.0": rows * 2, "final_norm": rows, **tables})
        to_dataset(self.at / "x.acts", context=4).save_to_disk(self.at / "cached")
        found = datasets.load_from_disk(str(self.at / "cached")).with_format("numpy")
        self.assertEqual(set(found.column_names), {"blocks.2.hook_resid_post", "blocks.0.hook_resid_pre", "token_ids"})
        firsts = [0, 5, 9, 13]
        self.assertEqual(len(found), len(firsts))
        for row, first in zip(found, firsts):
            np.testing.assert_array_equal(row["blocks.2.hook_resid_post"], rows[first : first + 4])
            np.testing.assert_array_equal(row["token_ids"], np.arange(first, first + 4) + 7)
        with self.assertRaisesRegex(flowlens.Refused, "give a context"):
            to_dataset(self.at / "x.acts")
        with self.assertRaisesRegex(flowlens.Refused, "no sample has"):
            to_dataset(self.at / "x.acts", context=10)

    @needs_tools
    @needs("gguf")
    def test_gguf_reads_a_control_vector(self) -> None:
        import gguf

        directions = np.random.default_rng(2).normal(size=(4, 48))
        path, target = self.at / "direction.acts", self.at / "direction.gguf"
        flowlens.write(path, {f"direction.{layer}": directions[layer : layer + 1] for layer in range(4)}, meta={"family": "llama"})
        run("acts-cat", path, "-o", target)
        found = gguf.GGUFReader(target)
        fields = {key: found.fields[key].contents() for key in ("general.architecture", "controlvector.model_hint", "controlvector.layer_count")}
        self.assertEqual(fields, {"general.architecture": "controlvector", "controlvector.model_hint": "llama", "controlvector.layer_count": 3})
        tensors = {tensor.name: tensor.data for tensor in found.tensors}
        self.assertEqual(sorted(tensors), ["direction.1", "direction.2", "direction.3"])
        for layer in (1, 2, 3):
            self.assertEqual(tensors[f"direction.{layer}"].dtype, np.float32)
            np.testing.assert_array_equal(tensors[f"direction.{layer}"], directions[layer].astype("f4"))

    @needs_tools
    @needs("gguf")
    def test_the_additions_of_a_steering_plan_are_a_control_vector(self) -> None:
        import gguf

        data = ROOT / "scripts/cookbook"
        rows = self.at / "rows.jsonl"
        rows.write_text((data / "harmless.jsonl").read_text() + (data / "harmful.jsonl").read_text())
        run("resid-dump", "--model", BASE, "--group", "label", rows, "-o", self.at / "dump.acts")
        run("steer-vec", "mean", self.at / "dump.acts", "--positive", "unsafe", "--negative", "safe", "-o", self.at / "plan.acts")
        run("acts-cat", self.at / "plan.acts", "-o", self.at / "plan.gguf")
        plan = flowlens.read(self.at / "plan.acts")
        operations = json.loads(plan["steer"].tobytes())["operations"]
        wanted: dict[str, np.ndarray] = {}
        for index, operation in enumerate(operations):
            self.assertEqual((operation["op"], operation["positions"]), ("add", "all"))
            vector = plan[f"steer.{index}.vector"][0] * operation["coefficient"]
            for layer in operation["layers"]:
                block = layer - (operation["site"] == "resid_pre")
                wanted[f"direction.{block}"] = wanted.get(f"direction.{block}", 0) + vector
        found = {tensor.name: tensor.data for tensor in gguf.GGUFReader(self.at / "plan.gguf").tensors}
        wanted.pop("direction.0", None)
        wanted.pop("direction.-1", None)
        self.assertEqual(set(found), set(wanted))
        for name, values in found.items():
            np.testing.assert_array_equal(values, wanted[name].astype("f4"))

    @needs_tools
    @needs("gguf", "llama_cpp")
    @unittest.skipUnless(SMOLLM2, "FLOWLENS_SMOLLM2 names no directory with the real model")
    def test_llama_cpp_with_the_control_vector_says_what_lm_gen_says_with_the_plan(self) -> None:
        import ctypes

        import gguf
        import llama_cpp

        model = f"{SMOLLM2}/model.gguf"
        data = ROOT / "scripts/cookbook"
        rows = self.at / "rows.jsonl"
        rows.write_text((data / "harmless.jsonl").read_text() + (data / "harmful.jsonl").read_text())
        run("resid-dump", "--model", model, "--layers", "9,14", "--group", "label", rows, "-o", self.at / "dump.acts")
        run("steer-vec", "mean", self.at / "dump.acts", "--positive", "unsafe", "--negative", "safe", "-o", self.at / "plan.acts")
        run("acts-cat", self.at / "plan.acts", "-o", self.at / "plan.gguf")
        row = {"prompt": "The capital of France is", "completion": " Paris, the city of light."}
        answer = self.at / "answer.jsonl"
        answer.write_text(json.dumps(row) + "\n")

        def ours(*words: object) -> np.ndarray:
            lines = run("lm-gen", "--model", model, "--raw", "--score", "--per-token", answer, *words).splitlines()
            return np.array(next(found["token_log_prob"] for found in map(json.loads, lines) if "token_log_prob" in found))

        llama = llama_cpp.Llama(model, logits_all=True, verbose=False, n_ctx=64, n_threads=1)
        prompt, completion = (llama.tokenize(row[key].encode(), add_bos=False) for key in ("prompt", "completion"))

        def theirs() -> np.ndarray:
            llama.reset()
            llama.eval(prompt + completion)
            logits = np.array(llama.scores[len(prompt) - 1 : len(prompt) + len(completion) - 1], "f8")
            peak = logits.max(1)
            return logits[np.arange(len(completion)), completion] - peak - np.log(np.exp(logits - peak[:, None]).sum(1))

        # what llama.cpp reads of such a file: the first row of its table is layer 1
        table = np.zeros((30, llama.n_embd()), "f4")
        for tensor in gguf.GGUFReader(self.at / "plan.gguf").tensors:
            table[int(tensor.name.removeprefix("direction.")) - 1] = tensor.data
        plain = theirs()
        pointer = table.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        self.assertEqual(llama_cpp.llama_set_adapter_cvec(llama.ctx, pointer, table.size, table.shape[1], 1, len(table)), 0)
        steered = theirs()
        # llama.cpp multiplies this model's weights of 4 bits by activations of 8
        noise = 0.3
        self.assertGreater(np.abs(steered - plain).max(), 3 * noise)
        self.assertLess(np.abs(ours() - plain).max(), noise)
        self.assertLess(np.abs(ours("--steer", self.at / "plan.acts") - steered).max(), noise)


class Cards(Case):
    @needs_tools
    def test_a_training_and_a_merge_have_cards(self) -> None:
        data = self.at / "sft.jsonl"
        data.write_text("".join(json.dumps({"prompt": f"What is {word}?", "completion": f"It is {word}."}) + "\n" for word in ("cat", "sea")))
        run("vcl-train", "--model", BASE, "--data", data, "--batch-size", 1, "--aux", "vcl:k=2,gamma=1", "-o", self.at / "tuned")
        run("lm-merge", "--model", self.at / "tuned", "-o", self.at / "merged")
        text = card(self.at / "tuned", "org/base")
        for part in ("base_model: org/base\n", "library_name: transformers\n", "- vcl\n", "| sft | 2 | 2 |", "| batch_size | 1 |", "Auxiliary loss `vcl`: k = 2"):
            self.assertIn(part, text)
        self.assertEqual(text.count("| 1 | "), 1)
        self.assertNotIn(str(self.at), text)
        self.assertIn("a local model with `lm-merge`", card(self.at / "merged"))
        with self.assertRaises(flowlens.Refused):
            card(BASE)

    @needs_tools
    @needs("huggingface_hub")
    def test_the_hub_reads_the_head_of_a_card(self) -> None:
        from huggingface_hub import ModelCard

        run("lm-merge", "--model", BASE, "-o", self.at / "merged")
        data = ModelCard(card(self.at / "merged", "org/base@main")).data.to_dict()
        self.assertEqual((data["base_model"], data["library_name"], data["tags"]), ("org/base", "transformers", ["flowlens", "merge"]))


class CommandLine(Case):
    def call(self, *words: object) -> Any:
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "scripts/python")}
        return subprocess.run([sys.executable, "-m", "flowlens", *map(str, words)], capture_output=True, text=True, env=environment)

    def test_codes_are_those_of_the_tools(self) -> None:
        good = self.at / "metrics.jsonl"
        good.write_text(METRICS)
        done = self.call("csv", good, "--type", "eval")
        self.assertEqual((done.returncode, done.stdout), (0, "step,eval_loss,token_count\n2,1.75,9\n"))
        for code, words in ((2, ["csv", good]), (3, ["csv", good, "--type", "none"]), (3, ["card", self.at]), (4, ["csv", self.at / "none", "--type", "x"])):
            done = self.call(*words)
            self.assertEqual(done.returncode, code, done.stderr)
            self.assertIn("error: ", done.stderr.splitlines()[-1])


@needs("torch", "transformers", "trl", "datasets")
class Example(Case):
    def test_the_example_for_trl_runs_and_its_loss_changes_the_training(self) -> None:
        data = self.at / "sft.jsonl"
        words = "cat sea house tree stone river cloud bread".split()
        data.write_text("".join(json.dumps({"prompt": f"What is a {word}?", "completion": f" It is a {word}, as all know."}) + "\n" for word in words))
        script = ROOT / "scripts/python/examples/trl_vcl.py"
        ends = {}
        for gamma in (0, 50):
            out = self.at / f"out-{gamma}"
            environment = {**os.environ, "PYTHONPATH": str(ROOT / "scripts/python"), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
            words_ = [sys.executable, script, BASE, data, out, "--steps", "4", "--every", "2", "--gamma", str(gamma)]
            done = subprocess.run([str(word) for word in words_], capture_output=True, text=True, env=environment)
            self.assertEqual(done.returncode, 0, done.stderr[-2000:])
            rows = flowlens.records(out / "watched/monitor.jsonl", "monitor_window")
            self.assertEqual([row["step"] for row in rows], [0, 2, 4])
            ends[gamma] = rows[-1]["c_k"]["4"]
        self.assertLess(ends[50], ends[0], "the loss spreads variance")
