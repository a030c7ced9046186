#!/usr/bin/env python3
"""The table of families: what the parity test prints, by family, between the marks in README.md and in man/flowlens.7.
usage: families.py < OUTPUT      OUTPUT of `cargo test --workspace --test parity -- --nocapture every_family_equals`, and lines
                                 `real FAMILY CHECKPOINT DIFFERENCE` for checkpoints that were trained"""
import collections, json, pathlib, re, sys

root = pathlib.Path(__file__).resolve().parents[2]
models = root / "tests/fixtures/models"
MADE = re.compile(r"^(\S+) +(\d\.\de-\d+) at \S+$")
REAL = re.compile(r"^real (\S+) (\S+) (\d\.\de-\d+)$")


def family(name):
    config = json.loads((models / name / "config.json").read_text())
    return config["model_type"]


def rows(lines):
    found = collections.defaultdict(list)
    for line in lines:
        if made := MADE.match(line.strip()):
            found[family(made[1]), "random"].append((made[1], float(made[2])))
        if real := REAL.match(line.strip()):
            found[real[1], "real"].append((real[2], float(real[3])))
    for (name, weights), tried in sorted(found.items()):
        yield name, ", ".join(checkpoint for checkpoint, _ in sorted(tried)), f"{max(far for _, far in tried):.1e}".replace("e-0", "e-"), weights


def between(path, start, end, text):
    page = path.read_text()
    head, rest = page.split(start, 1)
    _, tail = rest.split(end, 1)
    path.write_text(f"{head}{start}\n{text}\n{end}{tail}")


def main():
    table = list(rows(sys.stdin))
    assert {name for name, *_ in table} >= {family(path.name) for path in models.iterdir() if path.is_dir()}, "a family was not tried"
    head = ["family", "checkpoints tried", "difference", "weights"]
    lines = ["| " + " | ".join(row) + " |" for row in [head, ["---"] * 4, *table]]
    between(root / "README.md", "<!-- families -->", "<!-- /families -->", "\n".join(lines))
    cells = lambda row: "\t".join(cell.replace("-", "\\-") for cell in row)
    page = [".TS", "l lx l l.", cells(head), *(cells([name, f"T{{\n{tried}\nT}}", far, weights]) for name, tried, far, weights in table), ".TE"]
    between(root / "man/flowlens.7", '.\\" families', '.\\" /families', "\n".join(page))


if __name__ == "__main__":
    main()
