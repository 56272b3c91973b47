"""What hides code beside an adapter never passes the rule `strict`, whatever it is packed in."""

from __future__ import annotations

import gzip
import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from s3lora.adapter.inventory.archives import MAX_PACKED, pickles_in, view_of
from s3lora.adapter.inventory.files_read import _told
from s3lora.adapter.inventory.pickle_source import PickleBudget
from s3lora.adapter.inventory.pickles import PickleNames
from tests.command import call
from tests.hostile.bad_files import good
from tests.hostile.beside import BESIDE, CALL, write_beside, zipped

NAMED = {
    "pickle-getattr-chain": "__builtin__.getattr",
    "pickle-of-no-listed-name": "my_helpers.start",
}


def packed(raw: bytes, **budget: int) -> PickleNames:
    found = pickles_in(view_of(raw), PickleBudget(**budget))
    assert found is not None
    return found


@pytest.mark.parametrize("name", BESIDE)
def test_what_lies_beside_an_adapter_is_a_finding(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_beside(name, tmp_path / "adapter")
    file, _, condition = BESIDE[name]
    result = call(capsys, "scan", folder, "--fail-on", "strict", "--quiet")
    assert result.status == 1
    assert f"finding: {condition} is 1 ({file})" in result.err
    assert condition != "pickles" or NAMED.get(name, "posix.system") in result.err


def test_the_adapter_alone_passes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(capsys, "scan", good(tmp_path / "adapter"), "--fail-on", "strict", "--quiet").status == 0


def test_what_an_archive_would_run_is_told_before_other_names(tmp_path: Path) -> None:
    """A finding shows the first names only."""
    assert _told({"a.b", "c.d", "posix.system"}) == ("posix.system", "a.b", "c.d")


def test_archives_within_archives_are_bounded() -> None:
    raw = CALL
    for _ in range(MAX_PACKED):
        raw = zipped({"a.pkl" if raw is CALL else "a.zip": raw})
    assert packed(raw).names == {"posix.system"}
    deeper = packed(zipped({"a.zip": raw}))
    assert (deeper.names, "archives within one another" in deeper.note) == (frozenset(), True)


def test_what_is_unpacked_is_bounded_over_all_archives() -> None:
    """Many small archives in one unpack to no more than the folder may."""
    budget = PickleBudget(unpacked=1_000_000)
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.pkl", CALL + bytes(300_000))
    many = zipped({f"{i}.zip": inner.getvalue() for i in range(20)})
    found = pickles_in(view_of(many), budget)
    assert found is not None
    assert "unpacks to more than" in found.note
    assert -10_000 < budget.unpacked <= 0
    # What is spent is spent: nothing more is unpacked, and that is told.
    again = pickles_in(view_of(gzip.compress(CALL + bytes(300_000))), budget, named=True)
    assert again is not None
    assert "was not unpacked to its end" in again.note


def test_numbers_that_begin_as_a_pickle_does_are_none() -> None:
    generator = np.random.default_rng(0)
    members = {f"data/{i}": b"\x80\x02\x82" + generator.bytes(200) for i in range(300)}
    assert packed(zipped({"data.pkl": b"N.", **members})) == PickleNames(frozenset())
