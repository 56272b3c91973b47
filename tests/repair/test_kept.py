"""What was learned is kept whole or learned again, and a store that takes it not loses no run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from s3lora.errors import UsageError
from s3lora.evaluate.store import AnswerStore
from s3lora.repair.kept import _kept

LEARNED = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.zeros((0, 4), np.float32)}


def test_it_comes_out_of_the_store_as_it_was(tmp_path: Path) -> None:
    with AnswerStore(tmp_path / "s") as store:
        assert _kept(store, "key", lambda: LEARNED).keys() == LEARNED.keys()
    with AnswerStore(tmp_path / "s") as store:
        found = _kept(store, "key", lambda: pytest.fail("it was learned"))
        assert all(np.array_equal(found[name], LEARNED[name]) for name in LEARNED)
        assert len(store) == 3, "each array has a row of its own"


@pytest.mark.parametrize("error", [OverflowError("string longer than INT_MAX bytes"), UsageError("is full")])
def test_what_cannot_be_kept_is_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def put(*_: object) -> None:
        raise error

    with AnswerStore(tmp_path / "s") as store:
        monkeypatch.setattr(AnswerStore, "put", put)
        found = _kept(store, "key", lambda: LEARNED)
        assert np.array_equal(found["a"], LEARNED["a"])
        assert _kept(None, "key", lambda: LEARNED).keys() == LEARNED.keys()
