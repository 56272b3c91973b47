"""What differs by rounding alone ranks by its place in the model, on every machine."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3lora import Fraction, Gap, Outlier, Threshold, Top, scan, select
from s3lora.choose.ranking import Rule
from s3lora.choose.ties import all_rounded, rounded, sharpest
from s3lora.spectrum.factored import EPSILON, GRAM_CONDITION, FactoredUpdate
from s3lora.spectrum.indices import INDICES, Spectra
from s3lora.spectrum.methods import METHODS
from tests.command import environment
from tests.planning import alike, record, scan_of, shaken
from tests.spectrum.cases import conditioned, gaussian, orthogonal

STEP = 2.0**-23
#: δ of `rounded` for the c of `factored`.
DELTA = 10 * EPSILON / GRAM_CONDITION
FINITE = st.floats(-1e280, 1e280, allow_subnormal=False)


@given(FINITE, st.booleans())
def test_rounding_moves_a_value_by_half_a_step_and_no_further(value: float, free: bool) -> None:
    found = rounded(value, scale_free=free)
    assert rounded(found, scale_free=free) == found
    assert rounded(-value, scale_free=free) == -found
    unit = 1.0 if free and abs(value) < 1 else 2.0 ** math.floor(math.log2(abs(value))) if value else 1.0
    assert abs(found - value) <= STEP * unit


@given(FINITE, FINITE, st.booleans())
def test_rounding_keeps_the_order(one: float, other: float, free: bool) -> None:
    low, high = sorted((one, other))
    assert rounded(low, scale_free=free) <= rounded(high, scale_free=free)


def test_what_is_too_large_to_round_stays() -> None:
    assert rounded(1.7e308, scale_free=False) == 1.7e308


def test_values_that_many_modules_share_lie_far_from_the_middle_of_a_step() -> None:
    for value in (*(1 / m for m in range(1, 513)), 0.0, *map(float, range(2, 513))):
        near = {rounded(value + k * 1e-11 * max(value, 1.0), scale_free=True) for k in (-1, 0, 1)}
        assert len(near) == 1, value


def test_the_step_is_above_what_may_be_wrong() -> None:
    assert STEP / 2 > 10 * DELTA


def test_the_bound_holds_where_it_is_nearly_reached() -> None:
    """The same ΔW but for rotations, by factors of a condition near the largest that Gram matrices are believed for."""
    A, B = gaussian(48, 40, 6)
    R, _ = conditioned(6, 150.0, 3)
    S, _ = conditioned(6, 150.0, 5)
    spreads = []
    for name in ("ssi", "weighted_ssi", "stable_rank", "energy"):
        values = []
        for seed in range(6):
            turned = FactoredUpdate(S @ A @ orthogonal(40, seed), orthogonal(48, seed) @ B @ R)
            assert (turned.root_a.exact, turned.root_b.exact) == (True, True), "else QR is tested here"
            values.append(INDICES[name].of(Spectra(METHODS["svd"].of(turned), turned)))
        spreads.append(np.ptp(values) / np.mean(values))
    assert 1e-16 < max(spreads) < 20 * DELTA


RULES: list[Rule] = [Top(3), Top(7), Fraction(0.4), Threshold(0.3), Outlier(2.0), Gap()]


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_the_last_digits_decide_nothing(rule: Rule) -> None:
    levels = (0.2, 0.3, 0.3, 0.5, 0.3, 0.2, 0.3, 0.9, 0.3, 0.5, 0.3, 0.2)
    measured = scan_of(
        record(f"model.layers.{i}.q_proj", value, **dict.fromkeys(INDICES, value)) for i, value in enumerate(levels)
    )
    for index in ("ssi", "stable_rank", "frobenius"):
        for unit, combine in (("module", "mean"), ("layer", "mean"), ("layer", "max")):
            plan = select(measured, rule, index=index, unit=unit, combine=combine)
            for seed in range(5):
                other = select(shaken(measured, seed), rule, index=index, unit=unit, combine=combine)
                assert other.paths == plan.paths
    order = [module.path for module in sharpest(measured.modules, "ssi")]
    assert [module.path for module in sharpest(shaken(measured, 1).modules, "ssi")] == order


def test_what_differs_by_more_than_a_step_keeps_its_order() -> None:
    values = [0.3 + i * 3e-7 for i in (3, 1, 4, 0, 2)]
    measured = scan_of(record(f"model.layers.{i}.q_proj", value) for i, value in enumerate(values))
    assert [choice.value for choice in select(measured, Top(5)).chosen] == sorted(values, reverse=True)


def test_equal_modules_rank_by_their_place_in_the_model(tmp_path: Path) -> None:
    path = alike(tmp_path / "a")
    for method in ("mas-svd", "svd"):
        measured = scan(path, method, kurtosis=True)
        for index in INDICES:
            order = [int(one.split(".")[2]) for one in select(measured, Fraction(1.0), index=index).paths]
            for start in range(0, len(order), 6):
                group = order[start : start + 6]
                assert group == sorted(group), (method, index)
                assert len({i % 3 for i in group}) == 1
        values = {measured[f"model.layers.{i}.q_proj"].indices["ssi"] for i in range(0, 18, 3)}
        assert len(values) > 1, "else rounding has nothing to do here"


#: Kernels of OpenBLAS → the flag of the processor that they need.
KERNELS = {"Nehalem": "sse4_2", "Sandybridge": "avx", "Haswell": "avx2", "Zen": "avx2", "SkylakeX": "avx512f"}
TOPS = """
import json, sys
from threadpoolctl import threadpool_info
from s3lora import Fraction, scan, select
from s3lora.spectrum.indices import INDICES
tops, values = {}, {}
for method in ("mas-svd", "svd"):
    measured = scan(sys.argv[1], method, kurtosis=True)
    for index in INDICES:
        tops[f"{index} {method}"] = select(measured, Fraction(1.0), index=index).paths
    values[method] = [module.indices["ssi"] for module in measured.modules]
print(json.dumps([[one.get("architecture") for one in threadpool_info()], tops, values]))
"""


def flags() -> set[str]:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return set(next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), []))


def test_every_kernel_gives_the_same_ranking(tmp_path: Path) -> None:
    path = alike(tmp_path / "a")
    usable = [name for name, flag in KERNELS.items() if flag in flags()]
    found = {}
    for kernel in usable:
        done = subprocess.run(
            [sys.executable, "-c", TOPS, str(path)],
            capture_output=True,
            env=environment({"OPENBLAS_CORETYPE": kernel}),
            check=True,
        )
        architectures, tops, values = json.loads(done.stdout)
        if architectures and architectures[0] is not None:
            found[architectures[0]] = (tops, values)
    if len(found) < 2:
        pytest.skip("NumPy has no OpenBLAS here that can be told which kernels to use")
    assert len({json.dumps(values) for _, values in found.values()}) > 1, "else no kernel differs from another"
    assert len({json.dumps(tops) for tops, _ in found.values()}) == 1


@pytest.mark.parametrize("ulps", [-4, 4])
def test_a_threshold_takes_what_equals_it_but_for_rounding(ulps: int) -> None:
    for value in (0.3, 0.7, 0.8, 1 / 3):
        measured = scan_of([record("l.0.q", value * (1 + ulps * EPSILON)), record("l.1.q", 0.1)])
        assert select(measured, Threshold(value)).paths == ("l.0.q",)


@given(st.lists(st.floats(allow_nan=False), max_size=20), st.booleans())
def test_many_are_rounded_as_one_is(values: list[float], free: bool) -> None:
    assert all_rounded(values, scale_free=free) == [rounded(value, scale_free=free) for value in values]
