"""What other programs read: TensorBoard's own reader, csv and yaml; and the example for TRL, run."""

import csv
import io
import json
import os
import subprocess
import sys
from typing import Any

import flowlens
from flowlens.card import card
from flowlens.events import write_csv, write_events

from . import ROOT, Case, needs, needs_tools, run

BASE = ROOT / "scripts/repro/base"
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
