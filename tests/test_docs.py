"""The documentation against the program: its links resolve, its names are true, and what is listed is complete.

What its blocks show is run by `test_doc_blocks.py`, and its figures are recomputed by `test_method_figures.py`.
"""

from __future__ import annotations

import dataclasses
import html
import importlib
import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import s3lora
from benchmarks import million
from s3lora.adapter.formats import FORMATS
from s3lora.adapter.loaders import LOADERS
from s3lora.choose.select import Plan
from s3lora.compat.results import Check, LoaderVerdict, ModuleCheck
from s3lora.evaluate import results
from s3lora.measure.against import Against, Mark, Standing
from s3lora.measure.comparison import Comparison, ModuleComparison
from s3lora.measure.composition import Composition
from s3lora.measure.refusal_looks import RefusalLook
from s3lora.measure.scan import ModuleScan
from s3lora.measure.series import SeriesModule, TrainingSeries
from s3lora.measure.summing import Alignment, ModuleComposition, ModuleUpdate
from s3lora.repair.results import Constraint, ModuleAttribution, Repair, RepairTrial
from s3lora.report.documents import ScanDocument
from s3lora.report.schemas import DOCUMENTS
from s3lora.report.shown import table_of
from s3lora.rewrite.conversion_record import ConversionRecord
from s3lora.rewrite.modes import MODES
from s3lora.rewrite.provenance import Provenance
from s3lora.rewrite.repair_record import RepairFields, RepairProvenance
from s3lora.rewrite.resize_record import ResizeProvenance
from s3lora.rewrite.restore import Restoration
from s3lora.rewrite.sum_record import SumProvenance
from s3lora.spectrum.indices import INDICES
from s3lora.spectrum.methods import METHODS
from s3lora.spectrum.subspaces import Overlap
from tests.pages import DOCS, ROOT, pages
from tests.program import all_commands, options

API = DOCS / "api.md"
COMMAND_LINE = DOCS / "command-line.md"
METHOD = DOCS / "method.md"
#: What names the files of the root that are pages of the site.
HOOKS = (DOCS / "hooks.py").read_text(encoding="utf-8")


def test_the_columns_of_a_table_of_modules_are_named() -> None:
    head = table_of(s3lora.scan(Path(s3lora.__file__).parent / "data" / "demo-adapter"))
    (row,) = [line for line in API.read_text(encoding="utf-8").splitlines() if line.startswith("| `to_pandas()`")]
    assert re.findall(r"`(\w+)`", row.partition("columns ")[2])[: len(head)] == list(head)


def slug(heading: str) -> str:
    """Return the anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower()).replace(" ", "-")


@pages
def test_links_resolve(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.is_file(), f"{page.name} links to {target}; a folder is no page of the site"
        if DOCS in page.parents and DOCS not in file.parents:
            assert f'"{file.name}": "' in HOOKS, f"{page.name} links to {target}, which the site does not have"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in map(slug, headings), f"{page.name} links to {target}"


def quoted(page: Path, pattern: str) -> list[str]:
    """Return what matches in the inline code of a page."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return re.findall(rf"`({pattern})[^`]*`", text)


@pages
def test_options_that_are_named_exist(page: Path) -> None:
    known = {name for command in all_commands() for name in options(command)} | {"--help", "--version"}
    assert set(quoted(page, r"--[a-z][a-z-]+")) <= known


@pages
def test_make_targets_that_are_named_exist(page: Path) -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {name.split()[1] for name in quoted(page, r"make [a-z-]+")} <= set(targets)


@pages
def test_files_that_are_named_exist(page: Path) -> None:
    for name in quoted(page, r"(?:src|tests|docs|benchmarks|experiments|\.ci)/[\w./-]*"):
        assert (ROOT / name).exists(), f"{page.name} names {name}"


def section(page: Path, heading: str) -> str:
    return page.read_text(encoding="utf-8").partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


@pytest.mark.parametrize("command", all_commands())
def test_every_option_is_documented_with_its_command(command: str) -> None:
    text = section(COMMAND_LINE, command)
    if command in ("prune", "eval"):
        text += section(COMMAND_LINE, "scan").partition("What comes out")[0]
    assert text, f"{COMMAND_LINE.name} has no section on {command}"
    missing = {name for name in options(command) if not re.search(rf"`(?:-o`, `)?{name}[ `]", text)}
    assert not missing


def rows(page: Path, title: str) -> list[list[str]]:
    """Return the cells of the table whose first column has this title."""
    lines = page.read_text(encoding="utf-8").splitlines()
    starts = [i for i, line in enumerate(lines) if line.startswith(f"| {title} |")]
    assert len(starts) == 1, f"{page.name} has {len(starts)} tables with {title!r}"
    found = []
    for line in lines[starts[0] + 2 :]:
        if not line.startswith("|"):
            break
        found.append([cell.strip() for cell in line.strip("|").split(" |")])
    return found


@pytest.mark.parametrize(
    ("title", "document"),
    [
        ("field of a scan", ScanDocument),
        ("field of a module", ModuleScan),
        ("field of a plan", Plan),
        ("field of a check", Check),
        ("field of a module in a check", ModuleCheck),
        ("field of a loader's verdict", LoaderVerdict),
        ("field of a reference in a scan", Against),
        ("field of a standing", Standing),
        ("field of a mark", Mark),
        ("field of a conversion", ConversionRecord),
        ("field of a provenance", Provenance),
        ("field of a repair's record", RepairProvenance),
        ("field of how it was repaired", RepairFields),
        ("field of a resizing", ResizeProvenance),
        ("field of a sum", SumProvenance),
        ("field of a restoration", Restoration),
        ("field of a comparison", Comparison),
        ("field of a module in a comparison", ModuleComparison),
        ("field of a look at refusals", RefusalLook),
        ("field of a series", TrainingSeries),
        ("field of a module in a series", SeriesModule),
        ("field of a composition", Composition),
        ("field of a module in a composition", ModuleComposition),
        ("field of an update", ModuleUpdate),
        ("field of an alignment", Alignment),
        ("field of an overlap", Overlap),
        ("field of an evaluation", results.Evaluation),
        ("field of a suite", results.SuiteInfo),
        ("field of a measure", results.Measure),
        ("field of a variant", results.Variant),
        ("field of a metric", results.Metric),
        ("field of a paired comparison", results.PairedComparison),
        ("field of a cost", results.Cost),
        ("field of a sweep", results.Sweep),
        ("field of a point", results.SweepPoint),
        ("field of a spread", results.ControlSpread),
        ("field of a tuning", results.Tuning),
        ("field of a repair", Repair),
        ("field of a trial", RepairTrial),
        ("field of a verdict", Constraint),
        ("field of an attributed module", ModuleAttribution),
    ],
)
def test_the_fields_of_the_json_are_documented(title: str, document: Any) -> None:
    named = [name for row in rows(COMMAND_LINE, title) for name in re.findall(r"`(\w+)`", row[0])]
    assert sorted(named) == sorted(field.name for field in dataclasses.fields(document))


def test_the_indices_are_documented() -> None:
    table = {row[0].strip("`"): row[-1] for row in rows(METHOD, "index")}
    assert table == {name: index.sharp for name, index in INDICES.items()}
    readme = [name for row in rows(ROOT / "README.md", "number") for name in re.findall(r"`(\w+)`", row[0])]
    assert sorted(readme) == sorted(INDICES)


def test_methods_modes_formats_and_loaders_are_documented() -> None:
    assert {row[0].strip("`") for row in rows(METHOD, "mode")} == set(MODES)
    assert set(re.findall(r"^\*\*`([\w-]+)`", METHOD.read_text(encoding="utf-8"), re.MULTILINE)) == set(METHODS)
    formats = [row[0].strip("`") for row in rows(ROOT / "docs" / "formats.md", "name in the output")]
    assert formats == [format.name for format in FORMATS]
    loaders = (ROOT / "docs" / "loaders.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^## .*`--loader (\w+)`", loaders, re.MULTILINE)) == set(LOADERS)


def test_the_schemas_are_listed() -> None:
    listed = [re.findall(r"\(([\w-]+)\.json\)", row[0]) for row in rows(DOCS / "schemas" / "README.md", "schema")]
    assert [name for names in listed for name in names] == list(DOCUMENTS)


def directives() -> list[str]:
    """Return the names whose docstrings are put into the page on the API, without the package."""
    text = API.read_text(encoding="utf-8")
    found = re.findall(r"^### ::: s3lora\.([\w.]+)$", text, re.MULTILINE)
    assert len(found) == text.count("\n### ") == len(set(found)), "a heading that is no name, or a name twice"
    return found


def test_public_names_are_documented() -> None:
    offered = {"repair", *(name for name, home in s3lora._HOME.items() if home.startswith("s3lora.repair."))}
    documented = {name.rpartition(".")[2]: name for name in directives()}
    public = [name for name in directives() if not name.startswith(("evaluate.", "fleet.", "repair.", "training."))]
    assert offered.issubset(documented)
    assert sorted([*(name.rpartition(".")[2] for name in public), *offered, "__version__"]) == sorted(s3lora.__all__)
    assert "`__version__`" in API.read_text(encoding="utf-8")
    for path in public:
        module, _, name = path.rpartition(".")
        assert getattr(s3lora, name) is getattr(importlib.import_module(f"s3lora.{module}"), name), path


def test_the_names_of_the_extras_import() -> None:
    """They are public by their full path, not as `s3lora.…`: importing s3lora must stay light."""
    names = [name for name in directives() if name.startswith(("evaluate.", "fleet.", "repair.", "training."))]
    assert len(names) >= 20
    for path in names:
        module, _, name = path.rpartition(".")
        assert getattr(importlib.import_module(f"s3lora.{module}"), name).__module__ == f"s3lora.{module}"


def test_every_documented_name_has_a_docstring() -> None:
    """A sentence of its own, and one for each public method."""
    for path in directives():
        module, _, name = path.rpartition(".")
        found = getattr(importlib.import_module(f"s3lora.{module}"), name)
        members = {key: value for key, value in vars(found).items() if not key.startswith("_")}
        methods = [value for value in members.values() if callable(value) or isinstance(value, property)]
        for documented in (found, *methods):
            assert re.match(r"[A-Z`].*[.:]", documented.__doc__ or ""), (path, documented)


@pytest.mark.parametrize(
    ("page", "script"),
    [("command-help.md", "make_cli.py"), ("fleets.md", "make_fleets.py"), ("evaluation.md", "make_data.py")],
)
def test_what_a_script_writes_is_what_is_committed(page: str, script: str) -> None:
    written = module_from(DOCS / script).page()
    assert (DOCS / page).read_text(encoding="utf-8") == written, f"write it again: python docs/{script}"


def test_the_plan_is_what_follows_from_what_was_measured() -> None:
    measured = json.loads((ROOT / "benchmarks" / "results.json").read_text(encoding="utf-8"))["fleet"]
    written = million.page(measured)
    assert (DOCS / "million.md").read_text(encoding="utf-8") == written, "write it again: python benchmarks/million.py"


def test_the_changelog_has_this_version() -> None:
    assert f"## [{s3lora.__version__}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_make_installs_the_torch_that_the_package_asks_for() -> None:
    wanted = set(re.findall(r'"(torch==[^"]+)"', (ROOT / "pyproject.toml").read_text()))
    assert re.findall(r"^TORCH := (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE) == list(wanted)


def module_from(path: Path) -> ModuleType:
    """Import a script of docs/, which is no package."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def drawing() -> ModuleType:
    pytest.importorskip("pty")
    return module_from(DOCS / "images" / "make.py")


def words(picture: str) -> str:
    """Return the text of an SVG without spaces; how it is cut into elements depends on the version of rich."""
    return "".join(html.unescape("".join(re.findall(r"<text[^>]*>([^<]*)</text>", picture))).split())


def test_the_picture_shows_what_scan_prints(drawing: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(s3lora.__file__).parents[1]))
    picture = drawing.PICTURE.read_text(encoding="utf-8")
    assert words(picture) == words(drawing.draw(drawing.output())), "draw it again: make picture"
    assert re.findall(r"https?://[^\"]+", picture) == ["http://www.w3.org/2000/svg"]
