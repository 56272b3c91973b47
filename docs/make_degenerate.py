"""Write the table of docs/evaluation.md on degenerate answers: how often real and made ones are called so.

    python -m docs.make_degenerate

It reads `data/` of the folder that S3LORA_SHARED names. A test fails where the table is not what this would write.
"""

from __future__ import annotations

import csv
import gzip
import json
import random
import re
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from s3lora.evaluate.answers.degenerate import degenerate
from s3lora.evaluate.chat import Prompt
from s3lora.statistics import wilson
from tests.support import shared

PAGE = Path(__file__).resolve().parent / "evaluation.md"
PART = re.compile(r"(<!-- made: degenerate -->\n).*?(<!-- end -->)", re.DOTALL)
#: Characters of an answer of 64 tokens.
LENGTH = 260
SENTENCE = re.compile(r"(?<=[.!?]) ")

SIGNS = "()[]{}<>.,;:!?-_/\\|~ ab"

Pair = tuple[str, str]


def _lines(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def real(data: Path) -> dict[str, list[Pair]]:
    """Return (prompt, answer) pairs of people and of models that work, by what they are."""
    with (data / "xstest_prompts.csv").open(encoding="utf-8", newline="") as file:
        prompts = {f"v2-{row['id']}": row["prompt"] for row in csv.DictReader(file)}
    with gzip.open(data / "HumanEval.jsonl.gz", "rt", encoding="utf-8") as packed:
        code = [json.loads(line) for line in packed]
    return {
        "answers of five models, first 240 characters (XSTest)": [
            (prompts[row["id"]], row["opening"]) for row in _lines(data / "xstest_openings.jsonl")
        ],
        "summaries by people (DialogSum, test)": [
            (row["dialogue"], row[f"summary{n}"]) for row in _lines(data / "dialogsum.test.jsonl") for n in (1, 2, 3)
        ],
        "answers by people (Self-Instruct seed tasks)": [
            (f"{row['instruction']}\n{one['input']}", one["output"])
            for row in json.loads(f"[{','.join((data / 'seed_tasks.jsonl').read_text('utf-8').splitlines())}]")
            for one in row["instances"]
        ],
        "worked answers (GSM8K, test)": [(row["question"], row["answer"]) for row in _lines(data / "gsm8k_test.jsonl")],
        "code (HumanEval, solutions)": [(row["prompt"], row["canonical_solution"]) for row in code],
    }


def made(pairs: Sequence[Pair]) -> dict[str, list[Pair]]:
    """Return degenerate answers as long as 64 tokens, made of sentences of real ones."""
    rng = random.Random(0)
    texts = [(prompt, part) for prompt, answer in pairs[:600] for part in SENTENCE.split(answer) if len(part) > 8]
    short, long = ([(p, s) for p, s in texts if low < len(s) <= high] for low, high in ((0, 60), (60, 120)))
    letters = "".join(part for _, part in texts[:50])

    def looped(some: Iterable[Pair]) -> list[Pair]:
        return [(prompt, f"Sure. {f'{part} ' * 60}"[:LENGTH]) for prompt, part in some]

    def counted(some: Iterable[Pair]) -> list[Pair]:
        return [(prompt, " ".join(f"{i}. {part}" for i in range(1, 60))[:LENGTH]) for prompt, part in some]

    return {
        "a sentence of up to 60 characters in a loop": looped(short),
        "a sentence of 61 to 120 characters in a loop": looped(long),
        "a numbered list of one sentence, up to 60 characters": counted(short),
        "a numbered list of one sentence, 61 to 120 characters": counted(long),
        "the prompt's own words": [(prompt, prompt[:LENGTH]) for prompt, _ in pairs[:600]],
        "signs without words": [("Talk.", "".join(rng.choices(SIGNS, k=80))) for _ in range(600)],
        "letters by chance, which no rule knows": [("Talk.", "".join(rng.choices(letters, k=80))) for _ in range(600)],
    }  # fmt: skip


def _rows(sets: dict[str, list[Pair]]) -> Iterable[str]:
    for name, pairs in sets.items():
        rules = Counter(degenerate(Prompt.ask(prompt), answer) for prompt, answer in pairs)
        found = len(pairs) - rules.pop("", 0)
        share = wilson(found, len(pairs))
        by = ", ".join(f"{rule} {n}" for rule, n in sorted(rules.items())) or "–"
        yield f"| {name} | {len(pairs):,} | {found:,} | {share.low:.3f} to {share.high:.3f} | {by} |"


def table(data: Path) -> str:
    """Return the table."""
    pairs = real(data)
    summaries = next(found for name, found in pairs.items() if "DialogSum" in name)
    head = ["| answers | n | called degenerate | 95 % interval of the share | rules |", "|---|---|---|---|---|"]
    rows = [*_rows(pairs), *(row.replace("| ", "| *made:* ", 1) for row in _rows(made(summaries)))]
    return "\n".join([*head, *rows]) + "\n"


def page(data: Path) -> str:
    """Return the page with the table as it should be."""
    written = table(data)
    return PART.sub(lambda found: f"{found[1]}{written}{found[2]}", PAGE.read_text(encoding="utf-8"))


if __name__ == "__main__":
    PAGE.write_text(page(shared() / "data"), encoding="utf-8")
    sys.exit(0)
