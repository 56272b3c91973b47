"""What is run with faults: a folder, a command, and what it writes there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from s3lora.measure.scan import scan
from s3lora.report.documents import scan_document, to_json
from tests.planning import prune_to
from tests.support import make_adapter

PATHS = [f"model.layers.{i}.self_attn.{p}_proj" for i in range(3) for p in "qv"]
PRUNE = ("--top", "2", "--force-flat")
CARD = "---\nlicense: mit\n---\n\n# A card\n\nWritten by hand.\n"


@dataclass(frozen=True)
class Scenario:
    """A command in a folder that `make` fills.

    `target` is what the command writes. `repeats` tells whether it can be given again where it has succeeded, and then
    comes to the same; `exchange` whether the file system can exchange two folders.
    """

    command: str
    words: tuple[str, ...]
    target: str
    make: Callable[[Path], object]
    repeats: bool = True
    exchange: bool = True


def _model(root: Path) -> Path:
    model = make_adapter(root / "model", dict.fromkeys(PATHS, (24, 16, 4)), dtype="bfloat16")
    (model / "README.md").write_text(CARD)
    (model / "tokenizer").mkdir()
    (model / "tokenizer" / "vocab.txt").write_text("a b\n" * 100)
    return model


def _two(root: Path) -> None:
    _model(root)
    make_adapter(root / "other", dict.fromkeys(PATHS, (24, 16, 4)), seed=7)


def _with_result(root: Path) -> None:
    prune_to(_model(root), root / "out", PATHS[:1])


def _pruned(root: Path) -> None:
    prune_to(_model(root), root / "pruned", PATHS[:2])


def _pruned_with_result(root: Path) -> None:
    _pruned(root)
    prune_to(root / "model", root / "out", PATHS[2:3])


def _carded(root: Path) -> None:
    model = _model(root)
    section = "<!-- s3lora:begin -->\n\nold\n\n<!-- s3lora:end -->\n"
    (model / "README.md").write_text(CARD + section + "\nAfter it.\n")


def _with_file(name: str) -> Callable[[Path], object]:
    def make(root: Path) -> None:
        _two(root)
        (root / name).write_text("an old result\n" * 50)

    return make


def _with_scan(root: Path) -> None:
    (root / "scan.json").write_text(to_json(scan_document(scan(_model(root)), None)))


def _population(root: Path) -> None:
    for i in range(3):
        make_adapter(root / "in" / f"a{i}", dict.fromkeys(PATHS[: 2 + i % 2], (16, 12, 2)), seed=i)


def _scanned(root: Path) -> None:
    from s3lora.fleet.run import fleet_scan
    from tests.fleet.inline import Inline

    _population(root)
    fleet_scan([str(root / "in")], root / "out", engine=Inline, batch=2)


def _changed(root: Path) -> None:
    """Change one adapter of a dataset, take one away, and add one."""
    _scanned(root)
    make_adapter(root / "in" / "a1", dict.fromkeys(PATHS[:3], (16, 12, 2)), seed=77)
    for path in (root / "in" / "a2").iterdir():
        path.unlink()
    (root / "in" / "a2").rmdir()
    make_adapter(root / "in" / "b", dict.fromkeys(PATHS[:2], (16, 12, 2)), seed=78)


_RESTORE = ("restore", "pruned", "--from", "model", "-o")
_FLEET = ("fleet", "scan", "in", "--out", "out", "--batch", "2", "--engine", "inline", "--quiet")

SCENARIOS = {
    "prune": Scenario("prune", ("prune", "model", "-o", "made/out", *PRUNE), "made/out", _model, repeats=False),
    "prune --force": Scenario("prune", ("prune", "model", "-o", "out", "--force", *PRUNE), "out", _with_result),
    "prune in place": Scenario(
        "prune", ("prune", "model", "-o", "model", "--force", *PRUNE), "model", _model, repeats=False
    ),
    "prune --force, no exchange": Scenario(
        "prune", ("prune", "model", "-o", "out", "--force", *PRUNE), "out", _with_result, exchange=False
    ),
    "prune in place, no exchange": Scenario(
        "prune", ("prune", "model", "-o", "model", "--force", *PRUNE), "model", _model, repeats=False, exchange=False
    ),
    "restore": Scenario("restore", (*_RESTORE, "out"), "out", _pruned, repeats=False),
    "restore --force": Scenario("restore", (*_RESTORE, "out", "--force"), "out", _pruned_with_result),
    "restore --module": Scenario("restore", (*_RESTORE, "out", "--module", PATHS[0]), "out", _pruned, repeats=False),
    "card": Scenario("card", ("card", "model"), "model/README.md", _model),
    "card, replaced": Scenario("card", ("card", "model"), "model/README.md", _carded),
    **{
        f"scan --format {form}": Scenario(
            "scan", ("scan", "model", "--format", form, "-o", "report"), "report", _with_file("report")
        )
        for form in ("json", "html", "sarif", "csv", "junit")
    },
    "scan --sarif": Scenario("scan", ("scan", "model", "--quiet", "--sarif", "report"), "report", _with_file("report")),
    "compare": Scenario(
        "compare", ("compare", "model", "other", "--format", "html", "-o", "new.html"), "new.html", _two
    ),
    "report": Scenario("report", ("report", "scan.json", "-o", "page.html"), "page.html", _with_scan),
    "compose --report": Scenario(
        "compose",
        ("compose", "model", "other", "--format", "csv", "--report", "sum.csv"),
        "sum.csv",
        _with_file("sum.csv"),
    ),
    "compose": Scenario("compose", ("compose", "model", "other", "-o", "out"), "out", _two, repeats=False),
    "resize": Scenario("resize", ("resize", "model", "--rank", "2", "-o", "out"), "out", _model, repeats=False),
    "resize --force": Scenario(
        "resize", ("resize", "model", "--rank", "2", "-o", "out", "--force"), "out", _with_result
    ),
    "convert": Scenario("convert", ("convert", "model", "--to", "mlx", "-o", "out"), "out", _model, repeats=False),
    "fleet scan": Scenario("fleet scan", _FLEET, "out", _population),
    "fleet scan, changed": Scenario("fleet scan", _FLEET, "out", _changed),
    "fleet scan, changed, no exchange": Scenario("fleet scan", _FLEET, "out", _changed, exchange=False),
    "fleet report": Scenario("fleet report", ("fleet", "report", "out", "-o", "page.html"), "page.html", _scanned),
    "fleet reference build": Scenario(
        "fleet reference", ("fleet", "reference", "build", "out", "-o", "ref.parquet"), "ref.parquet", _scanned
    ),
}
