"""Measure judges of refusals against people's labels, and write what comes of it into the docs and the package.

    python -m docs.make_judges ../shared/data/xstest_openings.jsonl

The labelled answers are XSTest's (Röttger et al. 2024, CC BY 4.0): five models, two people, the first 240 characters.
The judge of openings was designed on three models at even ids, and may be measured on the other two at odd ids only.
The files that are written hold counts and no texts.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from s3lora.evaluate.judges.openings import OpeningsJudge
from s3lora.evaluate.refusals import built_in_refusals
from s3lora.statistics import wilson

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "judges.md"
COUNTS = ROOT / "src" / "s3lora" / "data" / "evaluate" / "judge_errors.json"
SOURCE = (
    "XSTest's completions of five models (Röttger et al. 2024, CC BY 4.0): first 240 characters, labels of two people"
)
#: The models that the rules were designed on, at even ids, and those that they are measured on, at odd ids.
DESIGN = ("gpt4", "llama2orig", "mistralinstruct")
HELD_OUT = ("llama2new", "mistralguard")
PART = re.compile(r"(<!-- made: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
LABELS = ("refusal", "compliance", "partial")

Judge = Callable[[str], bool]


def judges() -> dict[tuple[str, str, str], Judge]:
    """Return each judge by (name, version, digest)."""
    openings, zou = OpeningsJudge(), built_in_refusals()
    return {
        (openings.name, openings.version, openings.digest): openings.refused,
        (zou.name, zou.version, zou.digest): zou.refused,
        (f"{zou.name} anywhere", zou.version, f"{zou.digest} anywhere"): zou.anywhere,
    }


def rows(lines: Iterable[str]) -> list[Mapping[str, Any]]:
    """Return the labelled answers that a judge may be measured on, of the design and held out."""
    found = []
    for line in lines:
        row = json.loads(line)
        odd = int(row["id"].rpartition("-")[2]) % 2 == 1
        if row["model"] in (HELD_OUT if odd else DESIGN):
            found.append(row)
    return found


def counted(answers: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the document of counts: by judge, and by model."""
    answers = list(answers)
    made = []
    for (name, version, digest), refused in judges().items():
        models = []
        for model in (*HELD_OUT, *DESIGN):
            mine = [(row["people"], refused(row["opening"])) for row in answers if row["model"] == model]
            n = {(label, said): mine.count((label, said)) for label in LABELS for said in (True, False)}
            models.append(
                {
                    "model": model,
                    "held_out": model in HELD_OUT,
                    "tp": n["refusal", True],
                    "fn": n["refusal", False],
                    "fp": n["compliance", True],
                    "tn": n["compliance", False],
                    "partial_refused": n["partial", True],
                    "partial_not": n["partial", False],
                }
            )
        made.append({"judge": name, "version": version, "digest": digest, "models": models})
    return {"source": SOURCE, "judges": made}


def table(made: Mapping[str, Any], held_out: bool) -> str:
    """Return the table of one part: a row a judge and model, and one of the models together."""
    lines = [
        "| judge | answers of | refusals | recognised | answers | taken for refusals | partly refused | so taken |",
        "|---|---|---:|---|---:|---|---:|---:|",
    ]
    for judge in made["judges"]:
        models = [one for one in judge["models"] if one["held_out"] == held_out]
        keys = ("tp", "fn", "fp", "tn", "partial_refused", "partial_not")
        together = {"model": "together", **{key: sum(one[key] for one in models) for key in keys}}
        for one in (*models, together):
            refusals, answers = one["tp"] + one["fn"], one["fp"] + one["tn"]
            partial = one["partial_refused"] + one["partial_not"]
            cells = (
                judge["judge"], one["model"], refusals, _share(one["tp"], refusals), answers,
                _share(one["fp"], answers), partial, one["partial_refused"],
            )  # fmt: skip
            lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def _share(k: int, n: int) -> str:
    if not n:
        return "–"
    rate = wilson(k, n)
    return f"{rate.value:.3f} [{rate.low:.3f}, {rate.high:.3f}]"


def page(made: Mapping[str, Any]) -> str:
    """Return the page with its tables as they should be."""
    openings = made["judges"][0]
    parts = {
        "held-out": table(made, held_out=True),
        "design": table(made, held_out=False),
        "judge": f"Measured: {openings['judge']} version {openings['version']}, sha256 {openings['digest'][:8]}.",
    }
    return PART.sub(lambda m: f"{m[1]}\n{parts[m[2]]}\n\n{m[3]}", PAGE.read_text(encoding="utf-8"))


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as labelled:
        document = counted(rows(labelled))
    COUNTS.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    PAGE.write_text(page(document), encoding="utf-8")
