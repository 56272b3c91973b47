"""The walls between the parts, and what is public."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import s3lora
from s3lora.views import VIEWS
from tests.command import SOURCE, environment
from tests.hostile import bad_files as bad

PACKAGE = SOURCE / "s3lora"
FILES = sorted(PACKAGE.rglob("*.py"))
#: Costly or optional: neither importing s3lora nor scanning and pruning may need them.
HEAVY = (
    *("torch", "transformers", "peft", "resvg_py", "scipy", "pandas"),
    *("ray", "pyarrow", "duckdb", "sklearn", "fsspec", "huggingface_hub", "aiohttp"),
)

#: The house, from the ground up: what is imported lies on the same floor or on a lower one.
FLOORS = (
    *("ground", "spectrum", "adapter", "base", "measure", "choose", "rewrite", "compat", "gate"),
    *("evaluate", "repair", "training", "fleet", "report", "cli"),
)
#: The only modules at the top of the package; whoever needs them may use them.
GROUND = ("_version", "arguments", "errors", "files", "needs", "outside", "partial", "statistics", "views", "wording")
#: Within a floor: what may not reach which neighbours.
WALLS = {
    "fleet.sources": ("fleet.work", "fleet.run", "fleet.engines", "fleet.results", "fleet.populations"),
    "fleet.engines": ("fleet.run", "fleet.populations"),
    "fleet.results": ("fleet.work", "fleet.run", "fleet.engines", "fleet.sources"),
    "fleet.work": ("fleet.run", "fleet.engines", "fleet.populations"),
    "fleet.signature": ("fleet.results", "fleet.sources", "fleet.work"),
    "fleet": ("rewrite", "choose"),
    "adapter": ("spectrum",),
    # A report may know the table of indices, and nothing that computes one.
    "report": (
        "adapter.open",
        *(f"spectrum.{name}" for name in (
            *("factored", "methods", "moments", "robust", "released", "clip", "difference", "subspaces"),
        )),
    ),
}  # fmt: skip


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")


def imports(path: Path, *, nested: bool = True) -> Iterator[str]:
    """Yield the full name of each module a file imports; `nested` includes imports within functions."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree) if nested else tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: relative imports hide where things come from"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def within(name: str, *parts: str) -> bool:
    return any(name == part or name.startswith(f"{part}.") for part in parts)


def files_in(*parts: str) -> list[Path]:
    """Return the files of the given modules and packages of s3lora."""
    found = [path for path in FILES if within(module_name(path), *(f"s3lora.{part}" for part in parts))]
    assert found
    return found


def test_spectrum_knows_nothing_of_adapters() -> None:
    for path in files_in("spectrum"):
        for name in imports(path):
            top = name.partition(".")[0]
            assert top == "numpy" or top in sys.stdlib_module_names or within(name, "s3lora.spectrum"), (path, name)


def targets(path: Path) -> Iterator[str]:
    """Yield the modules of s3lora that a file imports, wherever in it."""
    modules = {module_name(one) for one in FILES}
    for name in imports(path):
        if within(name, "s3lora"):
            while name not in modules:
                name = name.rpartition(".")[0]
            yield name


def floor(name: str) -> int:
    part = name.removeprefix("s3lora.").partition(".")[0]
    return FLOORS.index("ground" if part in GROUND else part)


def test_the_floors_are_all_there_is() -> None:
    folders = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    assert folders == {*FLOORS[1:], "statistics"}
    assert {path.stem for path in PACKAGE.glob("*.py")} == {"__init__", "__main__", *GROUND} - {"statistics"}


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_nothing_is_imported_from_a_higher_floor(path: Path) -> None:
    own = module_name(path)
    if own in ("s3lora", "s3lora.__main__"):  # the two doors
        return
    for name in targets(path):
        if name != "s3lora":
            assert floor(name) <= floor(own), f"{own} imports {name}"


@pytest.mark.parametrize(("part", "others"), WALLS.items(), ids=WALLS)
def test_walls_within_a_floor(part: str, others: tuple[str, ...]) -> None:
    for path in files_in(part):
        for name in imports(path):
            assert not within(name, *(f"s3lora.{other}" for other in others)), f"{path.name} imports {name}"


def test_the_door_to_the_report_leads_somewhere() -> None:
    """What `views` names as text no import statement shows."""
    for module, function in VIEWS.values():
        assert callable(getattr(importlib.import_module(module), function))


def test_imports_go_in_no_circle() -> None:
    left = {module_name(path): {*targets(path)} - {"s3lora"} for path in FILES if path.name != "__main__.py"}
    while free := [name for name, needed in left.items() if not needed & left.keys()]:
        for name in free:
            del left[name]
    assert not left, f"in or behind a circle: {sorted(left)}"


def test_only_evaluation_may_import_torch() -> None:
    for path in FILES:
        if not within(module_name(path), "s3lora.evaluate"):
            assert not [name for name in imports(path) if within(name, *HEAVY)], path


def loaded_after(statement: str, *arguments: object) -> set[str]:
    """Return the modules that a fresh interpreter has loaded after `statement`."""
    code = f"import sys\n{statement}\nprint('loaded', *sys.modules, file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, env=environment(), check=True
    )
    found = re.search(r"loaded (.*)", done.stderr.decode())
    assert found is not None
    return set(found[1].split())


def test_importing_is_light() -> None:
    loaded = loaded_after("from s3lora import *")
    assert "s3lora.rewrite.provenance" in loaded
    assert not loaded.intersection(HEAVY)
    assert not loaded.intersection(("rich", "click", "s3lora.cli", "s3lora.report"))


def test_scanning_and_pruning_are_light(tmp_path: Path) -> None:
    adapter = bad.good(tmp_path / "adapter")
    run = "from s3lora.cli.main import run\nassert run(sys.argv[1:]) == 0"
    for command in (
        ("scan", adapter),
        ("scan", adapter, "--kurtosis", "--rule", "null", "--draws", "100"),
        ("scan", adapter, "--method", "spsvd", "--fit", "l1"),
        ("prune", adapter, "-o", tmp_path / "out", "--mode", "clip"),
    ):
        assert not loaded_after(run, *command).intersection(HEAVY), command
    assert "rich" not in loaded_after(run, "scan", adapter, "--format", "json"), "which costs a third of the start"


def test_every_module_imports_by_itself() -> None:
    for path in FILES:
        if path.name != "__main__.py":
            importlib.import_module(module_name(path))


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_files_are_short_and_explained(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) < 400
    assert ast.get_docstring(ast.parse(text)), "every file says what it is for"


def test_a_class_name_stands_in_one_file() -> None:
    """Also types that are only names of others: who reads `Row` must not have to ask which."""
    files: dict[str, set[str]] = {}
    for path in FILES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = {node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
        aliases = (node for node in tree.body if isinstance(node, ast.Assign) and not isinstance(node.value, ast.Call))
        for target in (one for node in aliases for one in node.targets if isinstance(one, ast.Name)):
            if re.fullmatch(r"_?[A-Z][a-z]\w*", target.id):
                names.add(target.id)
        for name in names:
            files.setdefault(name, set()).add(module_name(path))
    assert len(files) > 200
    assert {name: where for name, where in files.items() if len(where) > 1} == {}


def test_nothing_prints_but_the_command_line() -> None:
    for path in FILES:
        if path == PACKAGE / "cli" / "output.py":
            continue
        calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        assert not [call.lineno for call in calls if getattr(call.func, "id", "") == "print"], path


def test_public_names_are_exported_explicitly() -> None:
    """What type checkers see, what is found at run time, and `__all__` are one list."""
    assert list(s3lora.__all__) == sorted(s3lora.__all__)
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    typed = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    names = {
        alias.name: node.module for block in typed for node in block.body if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }  # fmt: skip
    assert sorted([*names, "__version__"]) == s3lora.__all__
    for name, module in names.items():
        value = getattr(s3lora, name)
        # A package that can be called stands for the function in it.
        called = name == "repair" and callable(value) and value.__name__ == "s3lora.repair"
        assert called or value is getattr(importlib.import_module(str(module)), name)
        assert called or not isinstance(value, type(sys)), f"s3lora.{name} is the module of that name"
    assert dir(s3lora) == s3lora.__all__
    with pytest.raises(AttributeError, match="nothing_of_this_name"):
        _ = s3lora.nothing_of_this_name


def test_importing_s3lora_alone_imports_no_numpy() -> None:
    """Only so can the command line tell BLAS not to start threads."""
    assert not loaded_after("import s3lora").intersection(("numpy",))


def test_errors_have_an_exit_status() -> None:
    errors = [getattr(s3lora, name) for name in s3lora.__all__ if name.endswith("Error")]
    assert all(issubclass(error, s3lora.S3LoRAError) for error in errors)
    assert {error.__name__: error.exit_status for error in errors if error.exit_status != 2} == {
        "NothingToAuditError": 3
    }
