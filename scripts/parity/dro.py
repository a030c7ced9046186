"""Makes tools/dro-train/tests/goldens: the loss of a soft prompt and its gradient, by PyTorch's autograd.

    python scripts/parity/dro.py

For fixture models with plain, scaled and position-carrying embeddings: three questions with a soft prompt of four rows inside, an objective of
random components and heads, states with the written message. The soft prompt stands behind the embedding table, as rows of ids from the
vocabulary's size on, so that whatever a model does to embeddings happens to it too. Each sequence is run alone, in f64.
"""

import json
import pathlib

import torch
from torch.func import functional_call
from transformers import AutoModelForCausalLM

ROOT = pathlib.Path(__file__).resolve().parents[2]
OUT = ROOT / "tools/dro-train/tests/goldens"
TABLES = {"llama": "embed_tokens.weight", "gemma2": "embed_tokens.weight", "gpt2": "wte.weight"}
WEIGHTS = {"refusal": 1.0, "harmfulness": 0.01, "distance": 0.5}
WRITTEN = [7, 11, 2, 30]
QUESTIONS = [([3, None, 9, 14, 5], 0.0), ([3, None, 21, 8, 17, 40, 5], 1.0), ([3, None, 33, 5], 1.0)]


def spelled(question, rows):
    before = question.index(None)
    return question[:before] + rows + question[before + 1 :]


def golden(family):
    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_pretrained(ROOT / "tests/fixtures/models" / family, attn_implementation="eager")
    base = model.double().eval().base_model
    name = TABLES[family]
    table = dict(base.named_parameters())[name].detach()
    vocabulary, width = table.shape
    soft_ids = list(range(vocabulary, vocabulary + len(WRITTEN)))

    def state(ids, soft):
        out = functional_call(base, {name: torch.cat([table, soft])}, (torch.tensor([ids]),), {"use_cache": False})
        return out.last_hidden_state[0, -1]

    written = table[WRITTEN]
    soft = (written + 0.3 * torch.randn_like(written)).requires_grad_()
    components = torch.linalg.qr(torch.randn(width, 4, dtype=torch.float64))[0].T
    heads = {"refusal": torch.randn(4, dtype=torch.float64), "harmfulness": torch.randn(4, dtype=torch.float64)}
    starts, parts = [], {"refusal": 0.0, "harmfulness": 0.0, "distance": 0.0}
    bce = torch.nn.functional.binary_cross_entropy_with_logits
    for question, target in QUESTIONS:
        start = state(spelled(question, WRITTEN), written).detach()
        starts.append(start.tolist())
        moved = state(spelled(question, soft_ids), soft) - start
        target = torch.tensor(target, dtype=torch.float64)
        for head, weight in heads.items():
            parts[head] = parts[head] + bce(components @ moved @ weight, target) / len(QUESTIONS)
        # by a completion of the basis, as the paper has it
        rest = torch.linalg.svd(components)[2][4:]
        parts["distance"] = parts["distance"] + (rest @ moved).pow(2).mean() / len(QUESTIONS)
    sum(WEIGHTS[part] * value for part, value in parts.items()).backward()
    return {
        "family": family,
        "weights": WEIGHTS,
        "questions": [{"ids": spelled(question, soft_ids), "target": target} for question, target in QUESTIONS],
        "written_ids": WRITTEN,
        "soft_prompt": soft.detach().flatten().tolist(),
        "components": components.tolist(),
        "heads": {head: weight.tolist() for head, weight in heads.items()},
        "starts": starts,
        "parts": {part: value.item() for part, value in parts.items()},
        "gradient": soft.grad.flatten().tolist(),
    }


OUT.mkdir(parents=True, exist_ok=True)
for family in TABLES:
    (OUT / f"{family}.json").write_text(json.dumps(golden(family)) + "\n")
