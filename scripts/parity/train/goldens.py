"""Makes tools/vcl-train/tests/goldens: a tiny Llama, a batch, and what PyTorch's autograd and AdamW make of them.

    python scripts/parity/train/goldens.py

model/              config.json, model.safetensors: four blocks of width 16
batches.json        token ids and which of them are learned, for 20 steps of 5 ragged sequences
gradients.safetensors   of step 1: `plain.*` without, `vcl.*` with the auxiliary loss (autograd through ||R V||^2 / ||R||^2)
losses.json         20 steps of AdamW with clipping, warm-up and the auxiliary loss: loss, C_k and gradient norm
Each sequence is run alone, without padding: the reference knows nothing of packing.
"""

import json
import pathlib
import sys

import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM, get_linear_schedule_with_warmup

ROOT = pathlib.Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "scripts/python"))
from flowlens.vcl import concentration, window_layers

OUT = ROOT / "tools/vcl-train/tests/goldens"
K, GAMMA, WINDOW = 2, 3.0, (0.3, 0.8)
LR, STEPS, CLIP = 3e-3, 20, 1.0


def batch(generator):
    rows = []
    for length in (7, 12, 1 + 8, 15, 11):
        ids = torch.randint(0, 48, (length,), generator=generator).tolist()
        start = int(torch.randint(1, length - 4, (1,), generator=generator))
        rows.append({"token_ids": ids, "learned": [at >= start for at in range(length)]})
    return rows


def losses(model, rows, gamma):
    """The SFT loss over all learned tokens of the batch, and C_k over the window's learned rows."""
    count = sum(sum(row["learned"][1:]) for row in rows)
    nats, seen = 0.0, {layer: [] for layer in window_layers(WINDOW, model.config.num_hidden_layers)}
    for row in rows:
        ids = torch.tensor([row["token_ids"]])
        learned = torch.tensor(row["learned"])
        out = model(ids, output_hidden_states=True)
        picked = out.logits[0, :-1][learned[1:]]
        nats = nats + torch.nn.functional.cross_entropy(picked, ids[0, 1:][learned[1:]], reduction="sum")
        for layer in seen:
            seen[layer].append(out.hidden_states[layer + 1][0][learned])
    c_k = concentration(torch.cat([part for parts in seen.values() for part in parts]), K)
    return nats / count, c_k, nats / count + gamma * c_k


def gradients(model, rows, gamma):
    model.zero_grad()
    losses(model, rows, gamma)[2].backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def main():
    torch.manual_seed(11)
    torch.set_num_threads(1)
    config = LlamaConfig(
        vocab_size=48, hidden_size=16, intermediate_size=24, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, tie_word_embeddings=True, initializer_range=0.3,
        bos_token_id=1, eos_token_id=2,
    )
    model = LlamaForCausalLM(config).float()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.add_(0.1 * torch.randn_like(parameter))
    (OUT / "model").mkdir(parents=True, exist_ok=True)
    model.save_pretrained(OUT / "model")
    (OUT / "model/generation_config.json").unlink(missing_ok=True)

    generator = torch.Generator().manual_seed(5)
    batches = [batch(generator) for _ in range(STEPS)]
    (OUT / "batches.json").write_text(json.dumps(batches, separators=(",", ":")) + "\n")
    found = {f"plain.{name}": g for name, g in gradients(model, batches[0], 0.0).items()}
    found |= {f"vcl.{name}": g for name, g in gradients(model, batches[0], GAMMA).items()}
    save_file(found, OUT / "gradients.safetensors")

    optimiser = torch.optim.AdamW(model.parameters(), lr=LR, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)
    schedule = get_linear_schedule_with_warmup(optimiser, 3, STEPS)
    steps = []
    for rows in batches:
        optimiser.zero_grad()
        loss, c_k, total = losses(model, rows, GAMMA)
        total.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimiser.step()
        schedule.step()
        steps.append({"loss": loss.item(), "c_k": c_k.item(), "grad_norm": norm.item()})
    settings = {"k": K, "gamma": GAMMA, "window": WINDOW, "lr": LR, "warmup_steps": 3, "clip": CLIP}
    (OUT / "losses.json").write_text(json.dumps({"settings": settings, "steps": steps}) + "\n")


main()
