"""What to install, however s3lora itself was installed."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from s3lora.needs import MissingPackageError, how_to_install, need

METADATA = """Metadata-Version: 2.4
Name: s3lora
Version: 1.0
Requires-Dist: numpy>=1.26
Requires-Dist: no-such-torch==2.13.0; extra == 'eval'
Requires-Dist: no.such_tables[fast]>=16,<20 ; python_version >= "3.10" and extra == "eval"
Requires-Dist: pytest>=5; extra == 'eval'
Requires-Dist: no-such-plots>=3; extra == 'plots'
"""


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of the metadata of a copy of s3lora, which goes before the real one."""
    folder = tmp_path / "site" / "s3lora-1.0.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(METADATA)
    monkeypatch.syspath_prepend(folder.parent)
    return folder


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "its checkout"
    folder.mkdir()
    (folder / "pyproject.toml").write_text("[project]\n")
    return folder


def taken_from(copy: Path, **what: object) -> None:
    (copy / "direct_url.json").write_text(json.dumps(what))


def test_an_editable_checkout_is_named(copy: Path, checkout: Path) -> None:
    taken_from(copy, url=checkout.as_uri(), dir_info={"editable": True})
    assert how_to_install("eval", "torch") == f"-e '{checkout}[eval]'"


def test_a_folder_is_named(copy: Path, checkout: Path) -> None:
    taken_from(copy, url=checkout.as_uri(), dir_info={})
    assert how_to_install("fleet", "ray") == f"'{checkout}[fleet]'"


MISSING = "no-such-torch==2.13.0 'no.such_tables[fast]>=16,<20'"


@pytest.mark.parametrize(
    "direct_url",
    [
        pytest.param(None, id="from an index"),
        pytest.param('{"url": "file:///nowhere/s3lora", "dir_info": {"editable": true}}', id="folder that is gone"),
        pytest.param('{"url": "file:///downloads/s3lora-1.0-py3-none-any.whl", "archive_info": {}}', id="wheel"),
        pytest.param('{"url": "https://host.test/s3lora.git", "vcs_info": {"vcs": "git"}}', id="git"),
        pytest.param("no JSON", id="no JSON"),
        pytest.param('{"url": 1, "dir_info": []}', id="other types"),
    ],
)
def test_otherwise_the_missing_packages_are_named(copy: Path, direct_url: str | None) -> None:
    if direct_url is not None:
        (copy / "direct_url.json").write_text(direct_url)
    assert how_to_install("eval", "torch") == MISSING
    assert how_to_install("plots", "matplotlib") == "'no-such-plots>=3'"
    with pytest.raises(MissingPackageError) as caught:
        need("no_such_torch.nn")
    assert str(caught.value) == (
        f"this needs the package no_such_torch, which is not installed; run: pip install {MISSING}"
    )


def test_what_no_extra_names_is_named_itself(copy: Path) -> None:
    assert how_to_install("fleet", "no_such_store") == "no_such_store"


def test_of_an_extra_that_is_all_there_the_module_is_named(copy: Path) -> None:
    (copy / "METADATA").write_text("Metadata-Version: 2.4\nName: s3lora\nRequires-Dist: pytest; extra == 'eval'\n")
    assert how_to_install("eval", "a_part_of_torch") == "a_part_of_torch"


def test_a_copy_that_was_never_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", unknown)
    assert how_to_install("eval", "torch") == "torch"


@pytest.mark.slow
def test_a_real_wheel_says_what_it_lacks(tmp_path: Path) -> None:
    """In an environment of its own, with nothing but NumPy and the like from this one."""
    root = Path(__file__).resolve().parents[1]
    subprocess.run([sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", tmp_path, root], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    assert {f"s3lora/data/{of}/{kind}.jsonl" for of in ("evaluate", "repair") for kind in ("harmful", "benign")} <= {
        *zipfile.ZipFile(wheel).namelist()
    }
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "env"], check=True)
    python = tmp_path / "env" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", wheel], check=True)
    code = "from s3lora.needs import need; need('torch')"
    told = subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, check=False).stderr
    assert "run: pip install torch==2.13.0 'transformers>=5.0' " in told
