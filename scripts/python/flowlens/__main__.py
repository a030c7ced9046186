"""`python -m flowlens`: what the package does without a line of Python."""

import argparse
import sys
from pathlib import Path

from .header import Refused


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m flowlens", description="Records and runs of flowlens for other programs.")
    commands = parser.add_subparsers(dest="command", required=True)
    events = commands.add_parser("events", help="write TensorBoard events of the rows that have a step")
    events.add_argument("records", help="such as metrics.jsonl of vcl-train, or monitor.jsonl")
    events.add_argument("directory")
    table = commands.add_parser("csv", help="print the rows of one type as CSV")
    table.add_argument("records")
    table.add_argument("--type", required=True, help="such as metric, layer or refusal_report")
    card = commands.add_parser("card", help="print the model card of what vcl-train or lm-merge made")
    card.add_argument("directory")
    card.add_argument("--base", metavar="ORG/NAME", help="the base model's name on the hub")
    dataset = commands.add_parser("dataset", help="save a dump as a data set of Hugging Face, in SAELens' columns")
    dataset.add_argument("container")
    dataset.add_argument("directory")
    dataset.add_argument("--context", type=int, metavar="N", help="cut samples into contexts of N tokens")
    arguments = parser.parse_args()
    try:
        return _run(arguments)
    except Refused as cause:
        print(f"flowlens: error: {cause}", file=sys.stderr)
        return 3
    except (OSError, ImportError) as cause:
        print(f"flowlens: error: {cause}", file=sys.stderr)
        return 4


def _run(arguments: argparse.Namespace) -> int:
    if arguments.command == "events":
        from .events import write_events

        count = write_events(arguments.records, Path(arguments.directory))
        print(f"{count} numbers in {arguments.directory}", file=sys.stderr)
    elif arguments.command == "csv":
        from .events import write_csv

        write_csv(arguments.records, arguments.type, sys.stdout)
    elif arguments.command == "dataset":
        from .dataset import to_dataset

        to_dataset(arguments.container, arguments.context).save_to_disk(arguments.directory)
    else:
        from .card import card

        sys.stdout.write(card(arguments.directory, arguments.base))
    return 0


if __name__ == "__main__":
    sys.exit(main())
