"""Run every command on an adapter of every kind, keep how it ended, and write docs/kinds.md.

    python -m docs.make_kinds reading writing models    runs these tables again, and writes the page
    python -m docs.make_kinds                           writes the page alone, from docs/results/kinds.json

It needs torch, transformers and PEFT. A cell that ends in a trace, in a sentence that is not known or in a wrong result
stops it. One test holds the page against the results, and another runs the cells again.
"""

from __future__ import annotations

import json
import sys
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

PAGE = Path(__file__).resolve().parent / "kinds.md"
RESULTS = Path(__file__).resolve().parent / "results" / "kinds.json"
#: Table → what stands above it.
TABLES = {
    "reading": (
        "Looking",
        """\
`scan --base-weights` and `check --base` were given a base with the weights that the adapter is for, at random. Of
`check`, the cell says whether every module was found there; its verdicts on loaders are not repeated here. `select` is
the function of the Python API.
""",
    ),
    "writing": (
        "Writing",
        """\
What was written was read again: pruned adapters hold the updates that were left, resized ones the nearest of rank 1,
sums and conversions the updates that they should.
""",
    ),
    "models": (
        "With a model",
        """\
The model is tiny and has random weights: a Llama, or for experts a Qwen3-MoE. `repair` is the part of it that depends
on the adapter: it was attached to the model, and half of its update was written and read again. No prompts were asked.
""",
    ),
}
HEAD = """\
# Kinds and commands

What each command does with each kind of adapter. The page is written by `python -m docs.make_kinds`: it makes a small
adapter of every kind by seed, runs every command on it, and compares the result with the dense updates that the adapter
was made of. Nothing in the tables is written by hand, and none of them says that other adapters of a kind will do.

| a cell | means |
|---|---|
| yes | the command did its work, and its numbers or files are right |
| yes: finds … | `--fail-on strict` failed the adapter for this, as it should |
| partly: … | it did its work with this limit, and says so |
| no: … | it refuses in one sentence, and writes nothing |
| – (…) | it does not apply, and why |

[Formats](formats.md) says how each kind is read, and why some are not; [into another format](convert.md) what each
target can hold. {count} kinds and {columns} commands make {cells} cells: {yes} yes, {partly} partly, {refused} no,
{none} that do not apply.
"""
FOOT = """
## What the refusals say

Each is printed as one line with the file that it concerns; shown is the one of the first cell.

| in the table | sentence |
|---|---|
"""


def cells(names: Iterable[str], kinds: Iterable[Any] | None = None) -> Iterator[tuple[str, str, str, Any]]:
    """Run every cell of these tables; yield table, kind, column and cell. Without `kinds`, all are tried."""
    from tests.kinds import KINDS, models, reading, writing
    from tests.kinds.bench import WrongError, set_up

    wrong: list[str] = []
    modules = {"reading": reading, "writing": writing, "models": models}
    with tempfile.TemporaryDirectory() as place:
        made = Path(place) / "models"
        if "models" in names:
            models.make(made)
        for number, kind in enumerate(KINDS if kinds is None else kinds):
            bench = set_up(kind, Path(place) / str(number), made)
            for table in names:
                for column, run in modules[table].COLUMNS.items():
                    try:
                        yield table, kind.title, column, run(bench)
                    except WrongError as error:
                        wrong.append(f"{kind.title}, {column}: {error}")
    if wrong:
        raise WrongError("\n".join(wrong))


def kept(cell: Any) -> dict[str, str]:
    """Return what is kept of a cell."""
    parts = {"verdict": cell.verdict, "why": cell.why, "said": cell.said}
    return {name: value for name, value in parts.items() if value}


def results(names: Iterable[str], before: Mapping[str, Any]) -> dict[str, Any]:
    """Return how every cell ended: those of `names` now, the others before."""
    from tests.kinds import KINDS

    found: dict[str, Any] = {name: before.get(name, {}) for name in TABLES}
    found.update({name: {} for name in names})
    for table, kind, column, cell in cells(names):
        found[table].setdefault(kind, {})[column] = kept(cell)
    return {"kinds": {kind.title: {"group": kind.group, "keys": kind.keys} for kind in KINDS}, "tables": found}


def words(cell: Mapping[str, str]) -> str:
    """Return what stands in a cell."""
    why = cell.get("why", "")
    match cell["verdict"]:
        case "yes":
            return f"yes: {why}" if why else "yes"
        case "partly":
            return f"partly: {why}"
        case "refused":
            return f"no: {why}"
    return f"– ({why})"


def row(parts: Iterable[str]) -> str:
    """Return one line of a table."""
    return f"| {' | '.join(parts)} |\n"


def tables(found: Mapping[str, Any]) -> Iterator[str]:
    """Yield the page after its head."""
    for name, (title, about) in TABLES.items():
        table = found["tables"][name]
        if not table:
            continue
        columns = list(next(iter(table.values())))
        yield f"\n## {title}\n\n{about}"
        for group in dict.fromkeys(one["group"] for one in found["kinds"].values()):
            yield f"\n### {title}: {group[0].lower() if not group[:4].isupper() else group[0]}{group[1:]}\n\n"
            yield row(["kind", *columns])
            yield row(["---"] * (len(columns) + 1))
            for kind, about_kind in found["kinds"].items():
                if about_kind["group"] == group:
                    yield row([kind, *(words(table[kind][column]) for column in columns)])
    sentences: dict[str, str] = {}
    for table in found["tables"].values():
        for cells_of in table.values():
            for cell in cells_of.values():
                if cell["verdict"] == "refused":
                    sentences.setdefault(cell["why"], cell["said"])
    yield FOOT
    for why, said in sorted(sentences.items(), key=lambda item: item[0].lower()):
        yield row([why, said.replace("|", "\\|").replace("\n", " ")])
    yield "\n## The keys of each kind\n\n"
    yield row(["kind", "told by"])
    yield row(["---"] * 2)
    for kind, about_kind in found["kinds"].items():
        yield row([kind, about_kind["keys"]])


def page(found: Mapping[str, Any]) -> str:
    """Return the page."""
    verdicts = [
        cell["verdict"] for table in found["tables"].values() for row in table.values() for cell in row.values()
    ]
    counts = {name: verdicts.count(name) for name in ("yes", "partly", "refused", "none")}
    columns = sum(len(next(iter(table.values()))) for table in found["tables"].values() if table)
    head = HEAD.format(count=len(found["kinds"]), columns=columns, cells=len(verdicts), **counts)
    return head + "".join(tables(found))


if __name__ == "__main__":
    if sys.argv[1:]:
        earlier = json.loads(RESULTS.read_text(encoding="utf-8"))["tables"] if RESULTS.exists() else {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found_now = results(sys.argv[1:], earlier)
        RESULTS.write_text(json.dumps(found_now, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    PAGE.write_text(page(json.loads(RESULTS.read_text(encoding="utf-8"))), encoding="utf-8")
