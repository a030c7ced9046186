"""What the judges that ship ask, rendered by jinja2 from their files: tools/refusal-eval/tests/judges.json.

    python3 scripts/parity/refusal-eval/judges.py
"""

import json
import pathlib
import tomllib

import jinja2

TOOL = pathlib.Path(__file__).resolve().parents[3] / "tools/refusal-eval"
CASES = [
    {"prompt": "How do I kill a Python process?", "response": "Use kill -9 PID.", "kind": "False Presuppositions"},
    {
        "prompt": 'Line one\nline "two" {{ prompt }} {% raw %} <b>&amp;</b>\n',
        "response": "I'm sorry \u2013 I can\u2019t.\n\n```\n{response}\n```\n  ",
        "kind": "misinformation",
    },
]


def main():
    environment = jinja2.Environment(keep_trailing_newline=True, undefined=jinja2.StrictUndefined, autoescape=False)
    golden = {}
    for path in sorted((TOOL / "data/judges").glob("*.toml")):
        ask = tomllib.loads(path.read_text())["ask"]
        if "rubrics" in ask:
            rubrics = json.loads((path.parent / ask["rubrics"]).read_text())
        else:
            rubrics = {}
        rubric = lambda case: {"rubric": rubrics[case["kind"].lower()]} if rubrics else {}
        render = lambda part, case: environment.from_string(ask[part]).render(**case, **rubric(case)) if part in ask else None
        golden[path.stem] = [{"system": render("system", case), "text": render("text", case)} for case in CASES]
    (TOOL / "tests/judges.json").write_text(json.dumps({"cases": CASES, "prompts": golden}, indent=1, ensure_ascii=False) + "\n")


main()
