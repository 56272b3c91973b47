"""docs/loaders.md against what real loaders were seen to do."""

from __future__ import annotations

import json

import pytest

from tests.loaders.rows import FAULTS, MEANS, MLX_FAULTS, PICTURE_FAULTS, PICTURE_MEANS, SWAPS
from tests.loaders.samples import SAMPLES
from tests.pages import DOCS, ROOT
from tests.test_docs import module_from

SCRIPT = module_from(DOCS / "make_loaders.py")
FILES = sorted((DOCS / "results" / "loaders").glob("*.json"))


def test_the_page_is_what_its_script_writes() -> None:
    committed = SCRIPT.PAGE.read_text(encoding="utf-8")
    assert committed == SCRIPT.page(), "write it again: python -m docs.make_loaders"


def test_every_sample_has_words() -> None:
    assert [name for name in MEANS if name in SAMPLES] == [*SAMPLES]


def test_the_first_page_names_loaders_that_were_run() -> None:
    words = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    sentence = words[words.index("What it writes was loaded by") : words.index("([what was seen]")]
    run = {json.loads(file.read_text(encoding="utf-8"))["loader"] for file in FILES}
    named = {name for name in SCRIPT.LOADERS if SCRIPT.CALLED.get(name, name) in sentence}
    assert named
    assert named <= run


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_what_was_seen_is_told(file) -> None:
    held = json.loads(file.read_text(encoding="utf-8"))
    assert file.stem == f"{held['loader']}-{held['version']}"
    for row in held.get("samples", []):
        assert row["sample"] in MEANS
        assert row["result"] == "same" or row["reason"], row
    for kind in ("sd1", "sdxl", "flux"):
        assert {row["sample"] for row in held.get(f"samples_{kind}", [])} in (set(), {*PICTURE_MEANS})
    assert {row["sample"] for row in held.get("swaps", [])} in (set(), {*SWAPS})
    for row in held.get("checks", []):
        assert row["sample"] in {**FAULTS, **MLX_FAULTS, **PICTURE_FAULTS}
        assert row["verdict"] in (row["result"], "unknown"), row
