"""docs/security.md against the tests it names, and what was recorded."""

from __future__ import annotations

import ast
import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.attacks import ATTACKS
from tests.pages import DOCS, ROOT
from tests.test_docs import module_from

SCRIPT = module_from(DOCS / "make_security.py")
AGAIN = "write it again: python -m docs.make_security"
NAMED = sorted({test for attack in ATTACKS for test in attack.tests})
WHOLE = all(find_spec(name) for name in ("duckdb", "peft", "pyarrow", "ray", "torch"))


def without_counts(page: str) -> str:
    return re.sub(r"\| \d+ \|$", "| n |", page, flags=re.MULTILINE)


def test_the_page_is_what_its_script_writes() -> None:
    committed = SCRIPT.PAGE.read_text(encoding="utf-8")
    assert without_counts(committed) == without_counts(SCRIPT.page(NAMED)), AGAIN
    assert {found[2] for found in SCRIPT.PART.finditer(committed)} == {"attacks", "fuzzed", "faults", "scanners"}


@pytest.mark.parametrize("test", NAMED)
def test_every_test_that_it_names_is_there(test: str) -> None:
    file, *names = test.split("::")
    found = ast.parse((ROOT / "tests" / file).read_text(encoding="utf-8")).body
    functions = {node.name for node in found if isinstance(node, ast.FunctionDef)}
    assert {*names} <= functions
    assert any(name.startswith("test_") for name in functions)


def test_the_counts_are_those_of_this_run(request: pytest.FixtureRequest) -> None:
    """What pytest has collected already costs nothing to count; a run of some files has not collected it all."""
    ids = [item.nodeid.removeprefix("tests/") for item in request.session.items]
    option = request.config.option
    some = (
        option.keyword
        or option.markexpr != "not slow and not thorough"
        or any("::" in argument for argument in request.config.args)
    )
    if some or not WHOLE or not {test.split("::")[0] for test in NAMED} <= {one.split("::")[0] for one in ids}:
        pytest.skip("counts are compared in a run of all tests, with all packages")
    assert SCRIPT.PAGE.read_text(encoding="utf-8") == SCRIPT.page(ids), AGAIN


def test_a_test_that_is_gone_is_told() -> None:
    with pytest.raises(ValueError, match=r"no test .* is collected"):
        SCRIPT.page(NAMED[1:])


def test_the_policy_names_the_page() -> None:
    assert "(docs/security.md)" in Path(ROOT / "SECURITY.md").read_text(encoding="utf-8")
