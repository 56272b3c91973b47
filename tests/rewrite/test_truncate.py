"""`--keep-rank`: the nearest update of the rank that a module had, and what that loses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3lora import open_adapter
from s3lora.rewrite.factors import NO_FACTORS, NewFactor, NewFactors, rounded
from s3lora.rewrite.truncate import truncate
from tests.rewrite.repairing import Q0, Q1, SHAPES, V0, new_factor
from tests.support import make_adapter


def dense(new: NewFactor) -> np.ndarray:
    return new.B.astype(np.float64) @ new.A.astype(np.float64)


@pytest.mark.parametrize("config", [{}, {"use_rslora": True}, {"alpha_pattern": {"0.self_attn.q_proj": 3}}])
def test_it_is_the_nearest_of_that_rank_and_tells_what_is_lost(tmp_path: Path, config):
    with open_adapter(make_adapter(tmp_path / "a", SHAPES, dtype="float64", config=config)) as adapter:
        modules = {module.path: module for module in adapter.modules}
        given = {path: new_factor(modules[path], rank) for path, rank in ((Q0, 7), (V0, 5), (Q1, 4))}
        kept, lost = truncate(NewFactors(given), adapter)
        assert kept.modules[Q1] is given[Q1]
        dropped = total = 0.0
        for path, module in modules.items():
            whole = dense(given[path]) if path in given else dense(NewFactor(module.A.array(), module.B.array()))
            u, sigma, vt = np.linalg.svd(whole, full_matrices=False)
            total += module.scaling.value**2 * (sigma**2).sum()
            if path in (Q0, V0):
                best = (u[:, :4] * sigma[:4]) @ vt[:4]
                assert kept.modules[path].rank == 4
                assert np.abs(dense(kept.modules[path]) - best).max() < 1e-12 * sigma[0]
                dropped += module.scaling.value**2 * (sigma[4:] ** 2).sum()
    assert 0 < lost < 1
    assert lost == pytest.approx(dropped / total, rel=1e-12)


def test_nothing_of_a_higher_rank_loses_nothing(tmp_path: Path):
    with open_adapter(make_adapter(tmp_path / "a", SHAPES)) as adapter:
        assert truncate(NO_FACTORS, adapter) == (NO_FACTORS, 0.0)
        lower = NewFactors({Q0: new_factor(adapter.modules[0], 2)})
        assert truncate(lower, adapter) == (lower, 0.0)
    with open_adapter(make_adapter(tmp_path / "b", SHAPES, zero_b=SHAPES)) as adapter:
        assert truncate(NO_FACTORS, adapter)[1] == 0.0


@given(st.integers(0, 99), st.sampled_from(["float32", "bfloat16"]))
def test_it_does_not_depend_on_how_the_update_was_factored(tmp_path_factory: pytest.TempPathFactory, seed: int, dtype):
    source = make_adapter(tmp_path_factory.mktemp("a"), {Q0: (24, 20, 3)}, dtype=dtype)
    random = np.random.default_rng(seed)
    with open_adapter(source) as adapter:
        a, b = random.standard_normal((5, 20)), random.standard_normal((24, 5))
        turn = np.linalg.qr(random.standard_normal((5, 5)))[0] * random.uniform(0.5, 2, 5)
        pairs = ((a, b), (turn @ a, b @ np.linalg.inv(turn)))
        first, second = (truncate(NewFactors({Q0: NewFactor(*pair, 0.5)}), adapter) for pair in pairs)
    assert first[1] == pytest.approx(second[1], rel=1e-9)
    assert first[0].modules[Q0].bias == 0.5
    assert first[0].modules[Q0].A.dtype.name == dtype
    scale = np.linalg.norm(dense(first[0].modules[Q0]), 2)
    rounding = {"float32": 2**-24, "bfloat16": 2**-8}[dtype]
    assert np.abs(dense(first[0].modules[Q0]) - dense(second[0].modules[Q0])).max() < 20 * rounding * scale


def test_ranks_beyond_the_matrix_are_filled_with_zeros(tmp_path: Path):
    with open_adapter(make_adapter(tmp_path / "a", {Q0: (3, 20, 4)}, dtype="float64")) as adapter:
        (module,) = adapter.modules
        new = new_factor(module, 6)
        kept, lost = truncate(NewFactors({Q0: new}), adapter)
        assert (kept.modules[Q0].A.shape, kept.modules[Q0].B.shape) == ((4, 20), (3, 4))
        assert np.allclose(dense(kept.modules[Q0]), dense(new), rtol=1e-12, atol=1e-12)
        assert lost == 0.0
        assert rounded(module, kept.modules[Q0].A, kept.modules[Q0].B).rank == 4
