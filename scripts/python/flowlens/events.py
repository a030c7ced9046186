"""Records for programs that draw curves: TensorBoard's event files (Weights & Biases and trackio read those too), and CSV.

Needs the package tensorboard for events; neither PyTorch nor TensorFlow.
"""

import csv
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO, Union

from .header import need
from .stream import Row, Source, records, scalars

__all__ = ["write_csv", "write_events"]


def write_events(source: Source, directory: Union[str, Path]) -> int:
    """The numbers of every row that has a `step`, named TYPE/KEY and, where it has a layer, TYPE/KEY/LAYER; gives how many were written."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    rows = [row for row in records(source) if "step" in row]
    need(rows, "no row has a step: TensorBoard draws what changes from step to step")
    writer = EventFileWriter(os.fspath(directory))
    count = 0
    for row in rows:
        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in _tagged(row)]
        writer.add_event(Event(step=row["step"], summary=Summary(value=values)))
        count += len(values)
    writer.close()
    return count


def _tagged(row: Row) -> Iterator[tuple[str, float]]:
    place = f"/{row['layer_index']:03d}" if "layer_index" in row else ""
    for name, value in scalars(row):
        if name not in ("step", "layer_index", "layer_count"):
            yield f"{row.get('type', 'row')}/{name}{place}", value


def write_csv(source: Source, kind: str, out: TextIO) -> int:
    """Rows of one type as CSV: nested keys by their path, lists as JSON; gives how many were written."""
    rows = [dict(_flat(row)) for row in records(source, kind)]
    need(rows, f"no row is of type {kind}")
    columns = list(dict.fromkeys(name for row in rows for name in row if name != "type"))
    writer = csv.DictWriter(out, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return len(rows)


def _flat(row: Row, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in row.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}/")
        else:
            yield prefix + key, json.dumps(value) if isinstance(value, (list, bool)) else value
