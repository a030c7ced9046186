"""A model card (README.md of the Hugging Face hub) of what vcl-train or lm-merge made, from the run.json that they leave."""

import json
import re
from pathlib import Path
from typing import Any, Optional, Union

from .header import Refused, need
from .stream import records

__all__ = ["card"]


def card(directory: Union[str, Path], base: Optional[str] = None) -> str:
    """The card's text. `base` names the base model on the hub; without it, it is named where the run's own --model was a name."""
    at = Path(directory)
    try:
        run = json.loads((at / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as cause:
        raise Refused(f"{at}/run.json: {cause}") from None
    need(isinstance(run, dict) and run.get("tool") in _TOOLS, f"{at}/run.json: not of a run of {' or '.join(_TOOLS)}")
    base = base or (run["model"] if re.fullmatch(r"[\w.-]+/[\w.-]+(@[\w.-]+)?", run["model"]) else None)
    is_adapter = (at / "adapter_config.json").exists()
    head = ["---", *([f"base_model: {base.partition('@')[0]}"] if base else []), f"library_name: {'peft' if is_adapter else 'transformers'}"]
    head += ["pipeline_tag: text-generation", "tags:", "- flowlens", *_TOOLS[run["tool"]][0](run["plan"]), "---"]
    return "\n".join([*head, "", f"# {at.resolve().name}", "", *_TOOLS[run["tool"]][1](run, at, base)]) + "\n"


def _training_tags(plan: dict[str, Any]) -> list[str]:
    return ["- sft", *(f"- {name}" for name in plan["aux"])]


def _training(run: dict[str, Any], at: Path, base: Optional[str]) -> list[str]:
    plan = run["plan"]
    lines = [f"Fine-tuned from {_base(base)} with `vcl-train` of flowlens {run['version']}.", "", "## Data", ""]
    lines += ["| source | rows | used | digest |", "| --- | --- | --- | --- |"]
    lines += [f"| {_cell(row['name'])} | {row['row_count']} | {row['used_count']} | `{row['digest']}` |" for row in plan["data"]]
    lines += ["", "## Settings", "", "| setting | value |", "| --- | --- |"]
    settings = {**plan["settings"], "seed": plan["seed"], "steps": plan["schedule"]["steps"], "compute": plan["compute"]["dtype"]}
    lines += [f"| {_cell(key)} | {_cell(value)} |" for key, value in settings.items() if value is not None]
    for name, options in plan["aux"].items():
        lines += ["", f"Auxiliary loss `{name}`: " + ", ".join(f"{key} = {value}" for key, value in options.items() if value is not None) + "."]
    return lines + _course(at)


def _course(at: Path) -> list[str]:
    """The first and the last of what was measured on the way."""
    rows = records(at / "metrics.jsonl", "metric")
    lines = ["", "## Training", "", "| step | loss (nats per token) | tokens |", "| --- | --- | --- |"]
    lines += [f"| {row['step']} | {row['loss']:.4f} | {row['token_count']} |" for row in ([rows[0], rows[-1]] if len(rows) > 1 else rows)]
    held_out = records(at / "metrics.jsonl", "eval")
    return lines + ([f"\nHeld-out loss after step {held_out[-1]['step']}: {held_out[-1]['eval_loss']:.4f} nats per token."] if held_out else [])


def _merge(run: dict[str, Any], at: Path, base: Optional[str]) -> list[str]:
    count = run["plan"]["adapter_count"]
    said = f"{count} adapter{'s' * (count != 1)} merged into {_base(base)}" if count else f"Made of {_base(base)}"
    return [f"{said} with `lm-merge` of flowlens {run['version']}, stored as {run['plan']['store_dtype']}.", "",
            f"Digest of the base and its adapters: `{run['plan']['model_digest']}`."]


def _base(base: Optional[str]) -> str:
    return f"[{base}](https://huggingface.co/{base.partition('@')[0]})" if base else "a local model"


def _cell(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text.replace("|", "\\|").replace("\n", " ")


_TOOLS = {"vcl-train": (_training_tags, _training), "lm-merge": (lambda plan: ["- merge"], _merge)}
