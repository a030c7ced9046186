"""metrics.jsonl of vcl-train -> TensorBoard event files (W&B reads those too): metrics_to_tensorboard.py METRICS DIR"""

import json
import sys

from torch.utils.tensorboard import SummaryWriter



def scalars(name, value):
    """The numbers of a record, nested ones by their path."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from scalars(f"{name}/{key}", inner)
    elif isinstance(value, (int, float)):
        yield name, value


with open(sys.argv[1]) as lines, SummaryWriter(sys.argv[2]) as writer:
    for line in lines:
        row = json.loads(line)
        if row["type"] in ("metric", "eval"):
            step = row.pop("step")
            for name, value in scalars(row["type"], row):
                writer.add_scalar(name, value, step)
