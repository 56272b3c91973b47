from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3lora.adapter.open import open_adapter
from s3lora.base import updates
from s3lora.base.updates import TrueFactors, dora_delta, known_start, magnitudes_of, true_update
from s3lora.base.weights import BaseWeights
from s3lora.errors import UnsupportedAdapterError
from s3lora.spectrum import leading as decomposition
from s3lora.spectrum.dense import DenseMatrix, dense
from tests.reference import base_weights as reference
from tests.reference.dense import delta
from tests.repair.pairs import model_folder
from tests.support import factors, make_adapter, write_safetensors

PATH = "model.layers.0.self_attn.q_proj"


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 3), st.booleans(), st.integers(0, 2**32 - 1))
def test_dora_is_the_merged_weight_with_its_rows_or_columns_set_to_lengths(
    m: int, n: int, r: int, columns: bool, seed: int
) -> None:
    weight, (a, b) = normal(m, n, seed=seed), factors(m, n, r, seed=seed)
    lengths = np.abs(normal(n if columns else m, seed=seed + 1))
    found = dora_delta(dense(weight), a, b, 0.5, lengths, columns=columns).whole()
    assert np.allclose(found, reference.dora(weight, delta(a, b, 0.5), lengths, columns=columns), atol=1e-11)


def test_lengths_of_the_base_itself_and_no_update_change_nothing() -> None:
    weight = normal(5, 4)
    a, b = np.ones((1, 4)), np.zeros((5, 1))
    found = dora_delta(dense(weight), a, b, 1.0, np.linalg.norm(weight, axis=1))
    assert found.norms.frobenius == pytest.approx(0.0, abs=1e-15)


def test_a_row_without_direction_is_no_number() -> None:
    weight = normal(3, 2)
    weight[1] = 0.0
    with pytest.raises(FloatingPointError):
        _ = dora_delta(dense(weight), np.zeros((1, 2)), np.zeros((3, 1)), 1.0, np.ones(3)).norms


@pytest.mark.parametrize(("m", "n"), [(8, 6), (6, 8), (7, 7)])
@pytest.mark.parametrize("start", ["pissa", "olora"])
def test_what_the_factors_began_with_is_taken_out(tmp_path: Path, start: str, m: int, n: int) -> None:
    weight = normal(m, n).astype(np.float32)
    base_folder = model_folder(tmp_path / "base", {f"{PATH}.weight": weight})
    config = {"init_lora_weights": start, "lora_alpha": 6}
    with open_adapter(make_adapter(tmp_path / "a", {PATH: (m, n, 2)}, config=config)) as adapter:
        (module,) = adapter.modules
        with BaseWeights(base_folder) as base:
            found = true_update(module, base, None, known_start(adapter.config))
        assert isinstance(found, TrueFactors)
        assert found.A.shape == (4, n)
        product = delta(module.A.array(), module.B.array(), 3.0)
    exact = weight.astype(np.float64)
    first = reference.pissa_start(exact, 2) if start == "pissa" else reference.olora_start(exact, 2, 3.0)
    assert np.allclose(found.scaling * found.B @ found.A, product - first, atol=1e-9)


@pytest.mark.parametrize("decay", [0.8, 0.999])
def test_what_pissa_took_out_of_a_large_weight_is_found_too(monkeypatch: pytest.MonkeyPatch, decay: float) -> None:
    monkeypatch.setattr(decomposition, "is_exact", lambda shape, count=None: False)
    u, v = (np.linalg.qr(normal(60, 60, seed=seed))[0] for seed in (1, 2))
    weight = (u * decay ** np.arange(60)) @ v.T
    b, a = updates._pissa(dense(weight), 4, 2.0)
    assert np.allclose(2.0 * b @ a, reference.pissa_start(weight, 4), atol=1e-3)


@pytest.mark.parametrize(
    ("method", "known"), [("pissa", "pissa"), ("PISSA", "PISSA"), ("olora", "olora"), ("pissa_niter_4", None),
                          ("corda", None), ("loftq", None), ("lora_ga", None), ("eva", None), (True, None)]
)  # fmt: skip
def test_which_starts_the_base_alone_determines(method: object, known: str | None) -> None:
    assert known_start({"init_lora_weights": method}) == known


def dora_file(folder: Path, m: int, n: int, magnitude: np.ndarray, ending: str) -> Path:
    """Write an adapter of one DoRA module: PEFT's with a configuration, or another tool's alone."""
    a, b = factors(m, n, 2)
    folder.mkdir(parents=True)
    if ending == ".dora_scale":
        names = {"lora_unet_mid_q.lora_down.weight": a, "lora_unet_mid_q.lora_up.weight": b,
                 "lora_unet_mid_q.alpha": np.float32(2.0)}  # fmt: skip
        return write_safetensors(folder / "a.safetensors", {**names, f"lora_unet_mid_q{ending}": magnitude})
    make_adapter(folder, {PATH: (m, n, 2)}, config={"use_dora": True},
                 heads={f"{PATH}{ending}": magnitude})  # fmt: skip
    return folder


@pytest.mark.parametrize(
    ("ending", "shape", "columns"),
    [
        (".lora_magnitude_vector", (6,), False),
        (".lora_magnitude_vector.weight", (6,), False),
        (".dora_scale", (6, 1), False),
        (".dora_scale", (1, 4), True),
        (".dora_scale", (1, 4, 1, 1), True),
    ],
)
def test_the_axis_is_that_of_the_stored_lengths(
    tmp_path: Path, ending: str, shape: tuple[int, ...], columns: bool
) -> None:
    magnitude = np.abs(normal(*shape, seed=3)).astype(np.float32)
    name = "mid.q.weight" if ending == ".dora_scale" else f"{PATH}.weight"
    weight = normal(6, 4, seed=4).astype(np.float32)
    folder = model_folder(tmp_path / "base", {name: weight})
    with open_adapter(dora_file(tmp_path / "a", 6, 4, magnitude, ending)) as adapter, BaseWeights(folder) as base:
        (module,) = adapter.modules
        found = true_update(module, base, magnitudes_of(adapter)[module.path], None)
        assert isinstance(found, DenseMatrix)
        product = delta(module.A.array(), module.B.array(), module.scaling.value)
        expected = reference.dora(weight.astype(float), product, magnitude.ravel().astype(float), columns=columns)
        assert np.allclose(found.whole(), expected, atol=1e-10)


def test_lengths_that_fit_nothing_are_refused(tmp_path: Path) -> None:
    magnitude = np.ones((1, 3), np.float32)
    folder = model_folder(tmp_path / "base", {"mid.q.weight": normal(6, 4).astype(np.float32)})
    adapter_path = dora_file(tmp_path / "a", 6, 4, magnitude, ".dora_scale")
    with open_adapter(adapter_path) as adapter, BaseWeights(folder) as base:
        (module,) = adapter.modules
        with pytest.raises(UnsupportedAdapterError, match="fit neither its 6 rows nor its 4 columns"):
            true_update(module, base, magnitudes_of(adapter)[module.path], None)
