"""Dumps, watching and the loss, on models of transformers, against numbers that this package did not make: the committed goldens of
transformers' own hooks, the tools, and PyTorch's autograd through a singular value decomposition."""

import json
import math
import unittest
import warnings
from typing import Any

import numpy as np

import flowlens

from . import FIXTURES, ROOT, Case, needs, needs_tools, run

BASE = ROOT / "scripts/repro/base"
PROMPTS = ["What is the best way to hit the books?", "How do I kill a process?", "Where can I shoot a good photo?", "Tell me of the sea.", "Why?"]


def load(path: object) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(1)
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="eager").eval()


def tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(BASE)


def close(test: unittest.TestCase, a: np.ndarray, b: np.ndarray, tolerance: float, what: str) -> None:
    test.assertEqual(a.shape, b.shape, what)
    test.assertLess(np.abs(a - b).max(), tolerance * max(np.abs(b).max(), 1e-9), what)


@needs("torch", "transformers", "safetensors")
class Dumps(Case):
    def test_sites_of_many_families_hold_what_the_goldens_hold(self) -> None:
        import torch
        from safetensors.numpy import load_file

        for family in ("llama", "gpt2", "gpt_neox", "gemma2", "opt", "falcon", "qwen3", "phi", "gemma3-wrapper"):
            golden = load_file(FIXTURES / f"models/{family}/golden.safetensors")
            model = load(FIXTURES / f"models/{family}")
            sequences = torch.from_numpy(golden["token_ids"].astype("i8")).split(golden["lengths"].tolist())
            path = self.at / f"{family}.acts"
            with flowlens.Dump(model, path, sites=("resid_pre", "resid_post", "final_norm"), positions="all") as dump:
                for ids in sequences:
                    dump.describe(ids=[family])
                    model(input_ids=ids[None], use_cache=False)
            found = flowlens.read(path)
            compared = [name for name in found if name in golden]
            self.assertGreater(len(compared), 2, family)
            for name in compared:
                close(self, found[name], golden[name], 1e-5, f"{family} {name}")

    @needs_tools
    def test_a_dump_is_resid_dumps(self) -> None:
        model, words = load(BASE), tokenizer()
        rows = self.at / "prompts.jsonl"
        rows.write_text("".join(json.dumps({"id": at, "prompt": text, "of": "ab"[at % 2]}) + "\n" for at, text in enumerate(PROMPTS)))
        sites = ("embed", "resid_pre", "resid_post", "final_norm")
        for positions in ("last", "all", "mean"):
            theirs, ours = self.at / f"{positions}.tool.acts", self.at / f"{positions}.acts"
            run("resid-dump", "--model", BASE, "--sites", ",".join(sites), "--positions", positions, "--group", "of", "--keep-text", rows, "-o", theirs)
            with flowlens.Dump(model, ours, sites=sites, positions=positions, keep_text=True) as dump:
                dump.run(words, PROMPTS, ids=list(range(len(PROMPTS))), groups=["ab"[at % 2] for at in range(len(PROMPTS))])
            run("acts-check", "--full", ours)
            a, b = flowlens.read(ours), flowlens.read(theirs)
            self.assertEqual(list(a), list(b))
            self.assertEqual(a.samples(), b.samples())
            for name in a:
                if a.spec(name).role == "row_table":
                    np.testing.assert_array_equal(a[name], b[name], name)
                elif name != "samples":
                    close(self, a[name], b[name], 1e-5, f"{positions} {name}")

    def test_padding_leaves_no_row_and_no_trace(self) -> None:
        model, words = load(BASE), tokenizer()
        words.pad_token = words.eos_token or words.bos_token
        for path, padded in ((self.at / "one.acts", False), (self.at / "all.acts", True)):
            with flowlens.Dump(model, path, positions="all") as dump:
                if padded:
                    dump.describe(texts=PROMPTS)
                    model(**words(PROMPTS, return_tensors="pt", padding=True, padding_side="right", return_token_type_ids=False))
                else:
                    dump.run(words, PROMPTS)
        one, all_ = flowlens.read(self.at / "one.acts"), flowlens.read(self.at / "all.acts")
        self.assertEqual(one.samples(), all_.samples())
        close(self, one["resid_post.2"], all_["resid_post.2"], 1e-5, "resid_post.2")

    def test_the_embedding_needs_no_first_layer(self) -> None:
        model, words = load(BASE), tokenizer()
        for path, layers in (("few", [3, 5]), ("all", None)):
            with flowlens.Dump(model, self.at / path, sites=("embed", "resid_post"), layers=layers) as dump:
                dump.run(words, PROMPTS)
        few, all_ = flowlens.read(self.at / "few"), flowlens.read(self.at / "all")
        self.assertEqual([name for name in few if few.spec(name).site], ["embed", "resid_post.3", "resid_post.5"])
        for name in few:
            np.testing.assert_array_equal(few[name], all_[name], name)

    def test_what_would_be_wrong_is_refused_and_leaves_nothing(self) -> None:
        import torch

        model, words = load(BASE), tokenizer()
        words.pad_token = words.eos_token or words.bos_token
        left = words(PROMPTS, return_tensors="pt", padding=True, padding_side="left", return_token_type_ids=False)
        path = self.at / "x.acts"

        def in_dump(work: Any, **settings: Any) -> None:
            with self.assertRaises(flowlens.Refused), flowlens.Dump(model, path, **settings) as dump:
                work(dump)

        in_dump(lambda dump: model(**left))
        in_dump(lambda dump: None)
        cache = model(input_ids=torch.tensor([[1, 2]]), use_cache=True).past_key_values
        in_dump(lambda dump: model(input_ids=torch.tensor([[3]]), past_key_values=cache))
        in_dump(lambda dump: (dump.describe(texts=PROMPTS[:2]), model(input_ids=torch.tensor([[1, 2]]))))
        in_dump(lambda dump: None, sites=("attn_out",))
        in_dump(lambda dump: None, layers=[99])
        in_dump(lambda dump: model(inputs_embeds=torch.zeros(1, 2, model.config.hidden_size)))
        self.assertEqual(list(self.at.iterdir()), [])
        self.assertFalse(any(module._forward_hooks or module._forward_pre_hooks for module in model.modules()))


@needs("torch", "transformers", "accelerate")
class Watching(Case):
    def train(self, model: Any, monitor: Any, steps: int = 4) -> None:
        import torch
        from transformers import Trainer, TrainingArguments

        ids = torch.arange(3, 15).repeat(8, 1) + torch.arange(8)[:, None]
        data = [{"input_ids": row, "labels": row} for row in ids]
        settings = TrainingArguments(
            str(self.at / "run"), max_steps=steps, per_device_train_batch_size=4, learning_rate=1e-2, report_to=[], save_strategy="no",
            logging_strategy="no", use_cpu=True, disable_tqdm=True, seed=1,
        )
        Trainer(model, settings, train_dataset=data, callbacks=[monitor]).train()

    @needs_tools
    def test_its_numbers_are_the_tools(self) -> None:
        model = load(BASE)
        self.train(model, flowlens.Monitor(tokenizer(), PROMPTS, self.at / "watched", every=2, k=2))
        model.save_pretrained(self.at / "trained")
        tokenizer().save_pretrained(self.at / "trained")
        prompts = self.at / "prompts.jsonl"
        prompts.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in PROMPTS))
        run("resid-dump", "--model", self.at / "trained", prompts, "-o", self.at / "tool.acts")
        tool = [json.loads(line) for line in run("flowlens-pca", self.at / "tool.acts", "--against", self.at / "watched/step-00000000.acts").splitlines()]
        layers = {row["layer_index"]: row for row in tool if row["type"] == "layer"}
        compared = {row["layer_index"]: row for row in tool if row["type"] == "compare" and row["component"] == "1" and "layer_index" in row}
        rows = flowlens.records(self.at / "watched/monitor.jsonl")
        self.assertEqual(sorted({row["step"] for row in rows}), [0, 2, 4])
        last = [row for row in rows if row["step"] == 4 and row["type"] == "monitor"]
        self.assertEqual(len(last), len(layers))
        for row in last:
            theirs = layers[row["layer_index"]]
            self.assertEqual((row["depth"], row["row_count"]), (theirs["depth"], theirs["row_count"]))
            pairs = [(row["c_k"][k], theirs["c_k"][k]) for k in row["c_k"]] + [(row[key], theirs[key]) for key in ("norm_mean", "participation_ratio")]
            pairs.append((row["alignment"], compared[row["layer_index"]]["alignment"]))
            for ours, wanted in pairs:
                self.assertTrue(math.isclose(ours, wanted, rel_tol=1e-4), f"{row} {theirs}")
        self.assertLess(min(row["alignment"] for row in last), 0.999, "the training changed nothing, so that nothing was compared")

    @needs_tools
    def test_moments_are_resid_dumps(self) -> None:
        model = load(BASE)
        self.train(model, flowlens.Monitor(tokenizer(), PROMPTS, self.at / "watched", every=9, keep="moments"), steps=1)
        prompts = self.at / "prompts.jsonl"
        prompts.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in PROMPTS))
        run("resid-dump", "--model", BASE, "--moments", prompts, "-o", self.at / "tool.acts")
        ours, theirs = flowlens.read(self.at / "watched/step-00000000.acts"), flowlens.read(self.at / "tool.acts")
        self.assertEqual(list(ours), list(theirs))
        for name in ours:
            self.assertEqual(ours.spec(name).dtype, theirs.spec(name).dtype)
            if ours[name].size:
                close(self, ours[name], theirs[name], 1e-4, name)
        pair = zip(ours.moments(), theirs.moments())
        for mine, wanted in pair:
            self.assertEqual((mine.group, mine.layer_index, mine.token_class, mine.count), (wanted.group, wanted.layer_index, wanted.token_class, wanted.count))
        run("flowlens-pca", self.at / "watched/step-00000000.acts")

    def test_it_warns_once_and_leaves_the_training_alone(self) -> None:
        import torch

        plain, watched = load(BASE), load(BASE)
        from transformers import TrainerCallback

        self.train(plain, TrainerCallback())
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            self.train(watched, flowlens.Monitor(tokenizer(), PROMPTS, self.at / "watched", every=1, keep=None, warn_above=0.01))
        self.assertEqual(sum("C_4 of the window" in str(warning.message) for warning in said), 1)
        for (name, a), b in zip(plain.named_parameters(), watched.parameters()):
            self.assertTrue(torch.equal(a, b), name)
        self.assertEqual([path.name for path in (self.at / "watched").iterdir()], ["monitor.jsonl"])


@needs("torch")
class Loss(unittest.TestCase):
    def test_its_gradient_is_that_of_the_singular_values(self) -> None:
        import torch

        from flowlens.vcl import vcl_loss

        for rows, width in ((6, 10), (30, 5)):
            torch.manual_seed(rows)
            hidden = [torch.randn(2, rows // 2, width, requires_grad=True) for _ in range(5)]
            mask = torch.ones(2, rows // 2, dtype=torch.bool)
            for pool in ("window", "layer"):
                ours = vcl_loss(hidden, mask, k=2, gamma=3.0, window=(0.5, 1.0), pool=pool)
                parts = [hidden[layer + 1][mask].double() for layer in (1, 2, 3)]
                shares = [_share(part, 2) for part in ([torch.cat(parts)] if pool == "window" else parts)]
                theirs = 3.0 * sum(shares) / len(shares)
                self.assertTrue(math.isclose(ours.item(), theirs.item(), rel_tol=1e-5))
                wanted = torch.autograd.grad(theirs, hidden[2:])
                for a, b in zip(torch.autograd.grad(ours, hidden[2:]), wanted):
                    close(self, a.numpy(), b.numpy(), 1e-4, f"{rows} {pool}")

    def test_what_would_change_nothing_is_refused(self) -> None:
        import torch

        from flowlens.vcl import vcl_loss

        hidden, mask = [torch.randn(1, 4, 3, requires_grad=True)] * 3, torch.ones(1, 4, dtype=torch.bool)
        for settings in ({"pool": "x"}, {"sign": "x"}, {"window": (0.9, 0.95)}):
            with self.assertRaises(ValueError):
                vcl_loss(hidden, mask, **{"window": (0.5, 1.0), **settings})
        with self.assertRaisesRegex(ValueError, "no gradients"):
            vcl_loss([part.detach() for part in hidden], mask, window=(0.5, 1.0))

    @needs("transformers")
    def test_hooks_give_the_loss_of_the_hidden_states_also_when_blocks_are_computed_again(self) -> None:
        import torch

        from flowlens.vcl import Vcl, vcl_loss

        model = load(BASE).train()
        ids = torch.arange(3, 23).reshape(2, 10)
        mask = ids % 3 > 0
        wanted = vcl_loss(model(input_ids=ids, output_hidden_states=True).hidden_states, mask, k=2)
        wanted.backward()
        gradients = [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]
        for checkpointing in (False, True):
            if checkpointing:
                model.gradient_checkpointing_enable()
            model.zero_grad()
            vcl = Vcl(model, k=2)
            model(input_ids=ids)
            with torch.no_grad():
                model(input_ids=ids + 1)
            loss = vcl(mask)
            loss.backward()
            self.assertEqual(loss.item(), wanted.item())
            found = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
            self.assertEqual(len(found), len(gradients))
            for a, b in zip(found, gradients):
                close(self, a.numpy(), b.numpy(), 1e-5, f"checkpointing {checkpointing}")
            with self.assertRaisesRegex(ValueError, "has not run"):
                vcl(mask)
            vcl.remove()


def _share(rows: Any, k: int) -> Any:
    import torch

    values = torch.linalg.svdvals(rows - rows.mean(0, keepdim=True)).square()
    return values[:k].sum() / values.sum()
