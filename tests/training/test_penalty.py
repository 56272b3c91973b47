"""The penalty has the values of a scan, and the gradients of finite differences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import s3lora
from s3lora.errors import NonFiniteError, NothingToAuditError, UnsupportedAdapterError, UsageError
from s3lora.training import spectral_penalty, spectral_values
from s3lora.training.penalty import METHODS, PENALTIES, _index
from s3lora.training.spectra import spectra
from tests.reference import dense
from tests.reference import training as reference
from tests.spectrum.cases import Factors
from tests.spectrum.strategies import gauges, gaussian_factors, scalings
from tests.tiny_model import tiny_llama, torch
from tests.training.models import peft, tiny_peft, wrapped

KINDS = [(index, method) for index in PENALTIES for method in METHODS]


def value(A: Any, B: Any, scaling: float, index: str, method: str) -> Any:
    """Return the index of one module as a scalar."""
    plain = "svd" if PENALTIES[index] else method
    sigma = spectra(A[None], B[None], torch.tensor([scaling], dtype=torch.float64), plain)
    return _index(sigma, index)[0]


@pytest.mark.parametrize(("index", "method"), KINDS)
def test_it_has_the_values_of_a_scan(index: str, method: str) -> None:
    model = tiny_peft(random=0.01, target_modules=["q_proj", "v_proj", "up_proj"], rank_pattern={"v_proj": 2})
    scan = s3lora.scan(model, "svd" if index == "energy" else method)
    found = spectral_values(model, index, method)
    assert list(found) == [module.path for module in scan]
    for module in scan:
        assert found[module.path].item() == pytest.approx(module.indices[index], rel=1e-9), module.path
    mean = np.mean([module.indices[index] for module in scan])
    assert spectral_penalty(model, index, method).item() == pytest.approx(mean, rel=1e-9)


@given(gaussian_factors(), st.sampled_from(KINDS), scalings)
@settings(max_examples=60, deadline=None)
def test_it_has_the_values_of_a_dense_update(factors: Factors, kind: tuple[str, str], scaling: float) -> None:
    A, B = factors
    found = value(torch.tensor(A), torch.tensor(B), scaling, *kind).item()
    assert found == pytest.approx(reference.index(*kind, dense.delta(A, B, scaling), len(A)), rel=1e-9)


@given(gaussian_factors(), st.sampled_from(METHODS), scalings, st.data())
@settings(max_examples=60, deadline=None)
def test_ssi_and_its_direction_do_not_see_scale_or_gauge(
    factors: Factors, method: str, scaling: float, data: st.DataObject
) -> None:
    A, B = factors
    R, inverse = data.draw(gauges(len(A)))
    found = value(torch.tensor(A), torch.tensor(B), 1.0, "ssi", method).item()
    other = value(torch.tensor(inverse @ A), torch.tensor(B @ R), scaling, "ssi", method).item()
    assert other == pytest.approx(found, rel=1e-9)


@pytest.mark.parametrize(("index", "method"), KINDS)
@pytest.mark.parametrize("rank", [1, 3])
def test_its_gradient_is_that_of_finite_differences(index: str, method: str, rank: int) -> None:
    rng = np.random.default_rng(rank)
    A = torch.tensor(rng.standard_normal((rank, 7)), requires_grad=True)
    B = torch.tensor(rng.standard_normal((9, rank)), requires_grad=True)
    assert torch.autograd.gradcheck(lambda a, b: value(a, b, 0.7, index, method), (A, B), atol=1e-7)


@pytest.mark.parametrize("method", METHODS)
def test_equal_singular_values_and_lost_ranks_have_finite_gradients(method: str) -> None:
    """Hadamard factors: every σ is the same; and a row of A twice, so that one σ is zero but for rounding."""
    one = np.array([[1.0, 1, 1, 1], [1, -1, 1, -1]])
    for A, B in ((one, one.T.copy()), (np.vstack((one[0], one[0])), one.T.copy())):
        a, b = (torch.tensor(part, requires_grad=True) for part in (A, B))
        found = value(a, b, 1.0, "ssi", method)
        assert found.item() == pytest.approx(0.5 if A is one else 1.0, rel=1e-9)
        found.backward()
        assert torch.isfinite(a.grad).all()
        assert torch.isfinite(b.grad).all()


def test_a_sum_of_equal_singular_values_has_the_right_gradient() -> None:
    """The nuclear norm is smooth where no σ is zero, also where all are the same."""
    A = torch.eye(3, 5, dtype=torch.float64).requires_grad_(True)
    B = torch.eye(6, 3, dtype=torch.float64).requires_grad_(True)
    one = torch.ones(1, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda a, b: spectra(a[None], b[None], one, "svd").sum(), (A, B), atol=1e-7)


def test_zero_rows_and_columns_stay_zero() -> None:
    rng = np.random.default_rng(3)
    A, B = rng.standard_normal((3, 8)), rng.standard_normal((7, 3))
    A[:, 2], B[4] = 0.0, 0.0
    a, b = (torch.tensor(part, requires_grad=True) for part in (A, B))
    found = value(a, b, 1.0, "ssi", "mas-svd")
    assert found.item() == pytest.approx(reference.index("ssi", "mas-svd", dense.delta(A, B), 3), rel=1e-9)
    found.backward()
    assert torch.isfinite(a.grad).all()
    assert torch.isfinite(b.grad).all()


def test_modules_without_an_update_are_left_out() -> None:
    model = tiny_peft()
    assert spectral_penalty(model).item() == 0.0
    model.get_submodule("base_model.model.model.layers.1.self_attn.v_proj.lora_B.default").weight.data[0, 0] = 1.0
    (path,) = spectral_values(model)
    assert path == "model.layers.1.self_attn.v_proj"


def test_descending_makes_updates_less_sharp() -> None:
    model = tiny_peft(random=0.01)
    before = spectral_penalty(model)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    before.backward()
    optimizer.step()
    assert spectral_penalty(model).item() < before.item()
    assert all(p.grad is None for p in model.parameters() if not p.requires_grad)


def test_what_cannot_be_meant_is_refused_in_a_sentence() -> None:
    model = tiny_peft(random=0.01)
    with pytest.raises(UsageError, match="no penalty 'kurtosis'"):
        spectral_penalty(model, "kurtosis")
    with pytest.raises(UsageError, match="no differentiable method 'spsvd'"):
        spectral_penalty(model, method="spsvd")
    with pytest.raises(UsageError, match="no adapter named 'other'"):
        spectral_penalty(model, adapter="other")
    with pytest.raises(NothingToAuditError, match="no LoRA layer"):
        spectral_penalty(tiny_llama())
    layer = model.get_submodule("base_model.model.model.layers.0.self_attn.q_proj")
    layer.lora_A["default"].weight.data[0, 0] = float("nan")
    with pytest.raises(NonFiniteError, match="NaN or infinity") as told:
        spectral_penalty(model)
    assert told.value.module == "model.layers.0.self_attn.q_proj"
    layer.lora_A["default"].weight = torch.nn.Parameter(torch.zeros(0))
    with pytest.raises(UsageError, match="sharded"):
        spectral_penalty(model)
    config = peft.AdaLoraConfig(target_modules=["q_proj"], total_step=10, init_r=4, target_r=2)
    ranks = wrapped(tiny_llama(), config)
    with pytest.raises(UnsupportedAdapterError, match="plain LoRA"):
        spectral_penalty(ranks)
