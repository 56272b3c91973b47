"""What tests of several folders need and no single one can set up for the others."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from s3lora.statistics import bootstrap_mean, paired_difference
from tests.examples import EVERY_EXAMPLE

# How long an example takes says what else the machine does.
UNHURRIED = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]}
settings.register_profile("few", max_examples=40, **UNHURRIED)
settings.register_profile("all", max_examples=100, **UNHURRIED)
settings.load_profile("all" if EVERY_EXAMPLE else "few")
# As the program does: collecting tests makes millions of objects and few circles.
gc.set_threshold(200_000, 50, 1000)


def pytest_collection_finish() -> None:
    """Keep what is there now out of every later collection, of which some tests ask for many."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(700, 10, 10)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the tiny base model, which no test changes."""
    from tests.tiny_adapters import tiny_base

    return tiny_base(tmp_path_factory.mktemp("tiny") / "base")


@pytest.fixture(scope="module")
def few_resamples() -> Iterator[None]:
    """Let every bootstrap resample 400 times, where its interval is not what is tested: that takes most of the time."""
    with pytest.MonkeyPatch.context() as patch:
        for function in (bootstrap_mean, paired_difference):
            defaults = function.__kwdefaults__
            assert defaults is not None
            patch.setitem(defaults, "resamples", 400)
        yield
