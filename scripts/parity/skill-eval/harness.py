"""What lm-evaluation-harness says of answers and log-likelihoods made here: tools/skill-eval/tests/harness.json.

    pip install lm-eval langdetect immutabledict nltk
    python3 scripts/parity/skill-eval/harness.py

The trained sentence splitter of nltk is no package: an untrained one stands in for it, which splits at every full stop. skill-eval says
nothing where the two could differ. With a results file and a file of .eval_results as arguments, they are read by the harness's own table
and by huggingface_hub instead.
"""

import ast
import functools
import importlib.util
import json
import math
import pathlib
import random
import sys

GOLDEN = pathlib.Path(__file__).resolve().parents[3] / "tools/skill-eval/tests/harness.json"

TEXTS = [
    "The cat sat on the mat. It was warm, and the cat slept!",
    "HELLO WORLD. THIS IS A TEST OF CAPITALS, DON'T YOU THINK?",
    "all small letters here without any mark",
    "* first point\n* second point\n- third point\n\nAnd *some* **bold** words.",
    "<<A title>>\n\nSection 1\nText of it.\n\nSection 2\nMore text [name] and [place].",
    '"A quoted answer from its first mark to its last."',
    '```json\n{"a": [1, 2.5, null], "b": "x"}\n```',
    '{"a": 1,}',
    "One answer.\n******\nAnother answer.",
    "One answer.\n******\nOne answer.\n",
    "First part\n***\nSecond part\n***\nThird part",
    "***\nFirst part\n***\n\n***\nThird part",
    "Paragraph one starts here.\n\nApple pie is what paragraph two is about.\n\nThe end.",
    "'Apple' they said.\n\n\n\nTwo more lines follow.",
    "Write about cats.\nCats are small animals. P.S. They sleep a lot.",
    "Sure, here it is:\nMy answer is yes.\nIs there anything else I can help with?",
    "P.P.S I forgot the cat.",
    "** **\n****\n*a*b*c*",
    "   \n\t",
    "The word cat, the word CAT and the word concatenate.",
    "CANNOT, JOHN'S, U.S.A. and A-B were SEEN (IN PART).",
    "No commas here; only semicolons: and colons",
    "Mr. X met Dr. Y at 3.5 p.m. They talked. Then they left?",
    "<< >>\n<<>\n<<b>>",
    "Heading\n* one\n* two\nFooter",
    "SECTION 1 a SECTION 2 b SECTION3 c",
]

INSTRUCTIONS = [
    ("keywords:existence", {"keywords": ["cat", "word"]}),
    ("keywords:existence", {"keywords": ["c.t"]}),
    ("keywords:frequency", {"keyword": "cat", "frequency": 2, "relation": "at least"}),
    ("keywords:frequency", {"keyword": " the ", "frequency": 1, "relation": "less than"}),
    ("keywords:forbidden_words", {"forbidden_words": ["cat", "mat"]}),
    ("keywords:letter_frequency", {"letter": "T", "let_frequency": 4, "let_relation": "at least"}),
    ("keywords:letter_frequency", {"letter": "e", "let_frequency": 3, "let_relation": "less than"}),
    ("language:response_language", {"language": "en"}),
    ("length_constraints:number_sentences", {"num_sentences": 2, "relation": "at least"}),
    ("length_constraints:number_sentences", {"num_sentences": 4, "relation": "less than"}),
    ("length_constraints:number_words", {"num_words": 9, "relation": "at least"}),
    ("length_constraints:number_words", {"num_words": 7, "relation": "less than"}),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 3}),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 1}),
    ("length_constraints:nth_paragraph_first_word", {"num_paragraphs": 3, "nth_paragraph": 2, "first_word": "Apple"}),
    ("length_constraints:nth_paragraph_first_word", {"num_paragraphs": 2, "nth_paragraph": 1, "first_word": "apple"}),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}),
    ("detectable_content:postscript", {"postscript_marker": "P.P.S"}),
    ("detectable_format:number_bullet_lists", {"num_bullets": 3}),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}),
    ("detectable_format:constrained_response", {}),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 2}),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 1}),
    ("detectable_format:multiple_sections", {"section_spliter": "Section", "num_sections": 2}),
    ("detectable_format:multiple_sections", {"section_spliter": "SECTION", "num_sections": 3}),
    ("detectable_format:json_format", {}),
    ("detectable_format:title", {}),
    ("combination:two_responses", {}),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Write about cats."}),
    ("startend:end_checker", {"end_phrase": "Is there anything else I can help with?"}),
    ("startend:end_checker", {"end_phrase": " ITS LAST. "}),
    ("startend:quotation", {}),
    ("change_case:capital_word_frequency", {"capital_frequency": 5, "capital_relation": "at least"}),
    ("change_case:capital_word_frequency", {"capital_frequency": 13, "capital_relation": "at least"}),
    ("change_case:capital_word_frequency", {"capital_frequency": 2, "capital_relation": "less than"}),
    ("change_case:english_capital", {}),
    ("change_case:english_lowercase", {}),
    ("punctuation:no_comma", {}),
]

PAIRS = [(0, 26), (2, 10, 38), (27, 24), (7, 38), (19, 23, 3)]


def ifeval():
    import langdetect
    import nltk
    from nltk.tokenize.punkt import PunktSentenceTokenizer

    nltk.download = lambda *_: True
    langdetect.DetectorFactory.seed = 0
    from lm_eval.tasks.ifeval import instructions_util, utils

    splitter = PunktSentenceTokenizer()
    words = nltk.tokenize.NLTKWordTokenizer()
    instructions_util.count_sentences = lambda text: len(splitter.tokenize(text))
    nltk.word_tokenize = lambda text: [word for part in splitter.tokenize(text) for word in words.tokenize(part)]

    def said(places):
        names, arguments = zip(*(INSTRUCTIONS[place] for place in places))
        rows = []
        for text in TEXTS:
            doc = {"key": 1, "prompt": "p", "instruction_id_list": list(names), "kwargs": list(arguments)}
            rows.append(utils.process_results(doc, [text]))
        bits = lambda values: "".join("01"[bool(value)] for value in values)
        return {
            "instruction_id_list": names,
            "kwargs": arguments,
            "prompt_level_strict": bits(row["prompt_level_strict_acc"] for row in rows),
            "prompt_level_loose": bits(row["prompt_level_loose_acc"] for row in rows),
            "inst_level_strict": [bits(row["inst_level_strict_acc"]) for row in rows],
            "inst_level_loose": [bits(row["inst_level_loose_acc"]) for row in rows],
        }

    return {"texts": TEXTS, "cases": [said([place]) for place in range(len(INSTRUCTIONS))] + [said(pair) for pair in PAIRS]}


def truthfulqa():
    """mc1 by the harness's own multiple choice, mc2 by its function, which its file defines beside imports that are not needed."""
    import numpy

    folder = pathlib.Path(importlib.util.find_spec("lm_eval.tasks").submodule_search_locations[0])
    tree = ast.parse((folder / "truthfulqa/utils.py").read_text())
    wanted = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "process_results_mc2"]
    scope = {"np": numpy}
    exec(compile(ast.Module(wanted, []), "utils.py", "exec"), scope)
    random.seed(7)
    cases = []
    for right_count, wrong_count in [(1, 3), (3, 4), (5, 2)]:
        count = right_count + wrong_count
        log_probs = [round(random.uniform(-40, -2), 3) for _ in range(count)]
        labels = [1] * right_count + [0] * wrong_count
        doc = {"mc2_targets": {"choices": ["c"] * count, "labels": labels}}
        mass = scope["process_results_mc2"](doc, [(log_prob, False) for log_prob in log_probs])["acc"]
        assert math.isfinite(mass)
        cases.append({"labels": labels, "log_probs": log_probs, "mc1": int(numpy.argmax(log_probs) == 0), "mc2": float(mass)})
    return cases


def asked():
    """The prompt of TruthfulQA's configuration, rendered."""
    import jinja2
    import yaml

    class Loader(yaml.SafeLoader):
        pass

    Loader.add_constructor("!function", lambda loader, node: node.value)
    folder = pathlib.Path(importlib.util.find_spec("lm_eval.tasks").submodule_search_locations[0])
    config = yaml.load((folder / "truthfulqa/truthfulqa_mc1.yaml").read_text(), Loader)
    return jinja2.Environment(undefined=jinja2.StrictUndefined).from_string(config["doc_to_text"]).render(question="What is ice?")


def read(results, entries):
    import yaml
    from huggingface_hub import parse_eval_result_entries
    from lm_eval.utils import make_table, sanitize_model_name

    results = json.loads(pathlib.Path(results).read_text())
    assert results["model_name_sanitized"] == sanitize_model_name(results["model_name"])
    print(make_table(results))
    for entry in parse_eval_result_entries(yaml.safe_load(pathlib.Path(entries).read_text())):
        print(entry)


if len(sys.argv) == 3:
    read(*sys.argv[1:])
else:
    golden = {"ifeval": ifeval(), "truthfulqa": truthfulqa(), "truthfulqa_prompt": asked()}
    GOLDEN.write_text(json.dumps(golden, indent=1, ensure_ascii=False) + "\n")
