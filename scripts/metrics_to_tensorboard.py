"""metrics.jsonl of vcl-train -> TensorBoard event files (W&B reads those too): metrics_to_tensorboard.py METRICS DIR"""

import json
import sys

from torch.utils.tensorboard import SummaryWriter

with open(sys.argv[1]) as lines, SummaryWriter(sys.argv[2]) as writer:
    for line in lines:
        row = json.loads(line)
        if row["type"] not in ("metric", "eval"):
            continue
        for name, value in row.items():
            if name == "c_k_layers":
                for layer, c_k in value.items():
                    writer.add_scalar(f"c_k/layer_{layer}", c_k, row["step"])
            elif isinstance(value, (int, float)) and name != "step":
                writer.add_scalar(f"{row['type']}/{name}", value, row["step"])
