"""Supervised fine-tuning with TRL and the Variance Concentration Loss, watched by flowlens.

    pip install 'flowlens[models]' trl datasets
    python trl_vcl.py MODEL DATA.jsonl OUT [--steps 50] [--gamma 50]

DATA has `prompt` and `completion`; the loss looks at completion tokens only. OUT gets the model, and OUT/watched what the residual stream did.
"""

import argparse
import json
from typing import Any

from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

import flowlens
from flowlens.vcl import Vcl


class VclTrainer(SFTTrainer):
    """An SFT trainer whose training loss has the auxiliary term."""

    vcl: Vcl

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **settings: Any) -> Any:
        learned = inputs["labels"] != -100
        computed = super().compute_loss(model, inputs, return_outputs=return_outputs, **settings)
        if not model.training:
            return computed
        if return_outputs:
            return computed[0] + self.vcl(learned), computed[1]
        return computed + self.vcl(learned)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("out")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--gamma", type=float, default=50.0)
    parser.add_argument("--every", type=int, default=10, help="steps between two looks at the residual stream")
    arguments = parser.parse_args()
    with open(arguments.data, encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    data = Dataset.from_list([{"prompt": row["prompt"], "completion": row["completion"]} for row in rows])
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    monitor = flowlens.Monitor(tokenizer, data["prompt"][:64], f"{arguments.out}/watched", every=arguments.every)
    settings = SFTConfig(
        arguments.out, max_steps=arguments.steps, per_device_train_batch_size=4, learning_rate=2e-5, logging_steps=10, report_to=[],
        save_strategy="no", bf16=False, max_length=256,
    )
    model = AutoModelForCausalLM.from_pretrained(arguments.model)
    trainer = VclTrainer(model, settings, train_dataset=data, processing_class=tokenizer, callbacks=[monitor])
    trainer.vcl = Vcl(model, gamma=arguments.gamma)
    trainer.train()
    trainer.save_model()
    print(f"watching took {monitor.seconds:.1f} s")


if __name__ == "__main__":
    main()
