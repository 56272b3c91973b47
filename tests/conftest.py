"""What tests of several folders need and no single one can set up for the others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from s3lora.statistics import bootstrap_mean, paired_difference

# How long an example takes says what else the machine does.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")


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
