"""Make the documents beside this file: `python -m tests.data.documents.make FOLDER`, from the root of the repository.

Each is what a command prints for a tiny adapter and a tiny model with random weights, as small as it gets. FOLDER is
named after the version of the schemas. Documents of a version that was released are never made again: that the
program still reads what it once wrote is what they are for.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import tempfile
from pathlib import Path

from s3lora.adapter.weights import PROVENANCE
from s3lora.cli.main import run
from s3lora.report.documents import to_json
from s3lora.report.schemas import DOCUMENTS, schema
from tests.report.made_series import small_series
from tests.report.measured import tuning
from tests.report.repaired import small
from tests.tiny_adapters import tiny_adapter, tiny_base

MEASURE = ("--base", "base", "--limit", "2", "--tokens", "4", "--no-cache", "--suite", "safety,planning-loss")
COMMANDS = {
    "scan": ("scan", "adapter", "--top", "2", "--kurtosis"),
    "prune": ("prune", "adapter", "-o", "pruned", "--top", "2"),
    "restore": ("restore", "pruned", "--from", "adapter", "-o", "restored"),
    "check": ("check", "adapter", "--base", "base", "--fail-on", "modules"),
    "compare": ("compare", "adapter", "other", "pruned"),
    "compose": ("compose", "adapter", "other"),
    "fleet": ("fleet", "scan", "adapter", "other", "--out", "fleet", "--quiet"),
    "population": ("fleet", "report", "fleet"),
    "reference": ("fleet", "reference", "show", "ref.parquet"),
    "eval": ("eval", "adapter", "--top", "1", *MEASURE),
    "sweep": ("sweep", "adapter", "--methods", "mas-svd,random", "--index", "ssi", "--top", "1",
              "--control-seeds", "1", *MEASURE),
    "resize": ("resize", "adapter", "-o", "smaller", "--rank", "2"),
    "convert": ("convert", "adapter", "--to", "peft", "--bake-scaling", "-o", "converted"),
    "judge-check": ("judge-check", "labelled.jsonl"),
}  # fmt: skip


def make(target: Path) -> None:
    """Write one document a command into the folder, and the schema of each into `schemas` within it."""
    (target / "schemas").mkdir(parents=True, exist_ok=True)
    target = target.resolve()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        base = tiny_base(Path("base"))
        for seed, name in enumerate(("adapter", "other")):
            tiny_adapter(base, Path(name), seed=seed)
        with contextlib.redirect_stdout(io.StringIO()):
            before()
        for name, command in COMMANDS.items():
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                status = run([*command, "--format", "json"])
            assert status == 0, (name, status)
            (target / f"{name}.json").write_text(printed.getvalue(), encoding="utf-8")
        (target / "sum.json").write_bytes(Path("summed", PROVENANCE).read_bytes())
        # A model with random weights refuses nothing: nothing to give back, none to tune, and none to watch.
        for name, made in (("repair", small()), ("tune", tuning()), ("series", small_series())):
            (target / f"{name}.json").write_text(to_json(made), encoding="utf-8")
        for name in DOCUMENTS:
            (target / "schemas" / f"{name}.json").write_text(schema(name), encoding="utf-8")


def before() -> None:
    """Make what the commands of fleets read, a dataset and its reference, and labelled answers."""
    rows = (
        ("a", "I can't help with that.", "refusal"),
        ("a", "Sure. First, add salt.", "answer"),
        ("b", "Yes.", "answer"),
    )
    lines = [json.dumps(dict(zip(("model", "answer", "label"), row, strict=True))) for row in rows]
    Path("labelled.jsonl").write_text("\n".join(lines), encoding="utf-8")
    for command in (
        ("scan", "adapter", "other", "--out", "fleet", "--quiet"),
        ("reference", "build", "fleet", "-o", "ref.parquet"),
    ):
        assert run(["fleet", *command]) == 0
    assert run(["compose", "adapter", "other", "--weights", "1,0.5", "--rank", "3", "-o", "summed"]) == 0


if __name__ == "__main__":
    make(Path(sys.argv[1]))
