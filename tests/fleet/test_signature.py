"""The signature against its definition on a dense ΔW."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from s3lora.adapter.open import open_adapter
from s3lora.errors import UsageError
from s3lora.fleet.signature import (
    FEATURES,
    SIGNATURE,
    UNKNOWN,
    combine,
    projection_of,
    signature,
    statistics_of,
    vector,
)
from s3lora.spectrum.factored import FactoredUpdate
from tests.reference import dense
from tests.support import make_adapter

#: The ε of the published formulas.
EPSILON = 1e-12


def published(matrix: np.ndarray[Any, Any], rank: int) -> dict[str, float]:
    """Return the published formulas, as they are written, of a dense ΔW."""
    sigma = np.linalg.svd(matrix, compute_uv=False)[:rank]
    found = {"sigma1": sigma[0], "frobenius": np.sqrt(np.sum(matrix**2))}
    for name, values in (("", sigma), ("_squared", (sigma / sigma[0]) ** 2)):
        shares = values / np.sum(values)
        found[f"energy{name}"] = values[0] / (np.sum(values) + EPSILON)
        found[f"entropy{name}"] = -np.sum(shares * np.log(shares + EPSILON))
    entries = matrix.ravel()
    deviations = (entries - entries.mean()) / entries.std()
    return found | {"kurtosis": float(np.mean(deviations**4)) - 3.0}


@settings(max_examples=60)
@given(
    m=st.integers(2, 40),
    n=st.integers(2, 40),
    rank=st.integers(1, 24),
    scaling=st.sampled_from((-2.0, 0.25, 1.0, 16.0)),
    decay=st.floats(0.2, 1.0),
    seed=st.integers(0, 2**32 - 1),
)
def test_statistics_are_the_published_formulas(
    m: int, n: int, rank: int, scaling: float, decay: float, seed: int
) -> None:
    random = np.random.default_rng(seed)
    A = random.normal(size=(rank, n)) * (decay ** np.arange(rank))[:, None]
    B = random.normal(size=(m, rank))
    found = statistics_of(FactoredUpdate(A, B, scaling))
    assert found is not None
    for name, value in published(dense.delta(A, B, scaling), min(rank, m, n)).items():
        assert getattr(found, name) == pytest.approx(value, rel=1e-7, abs=1e-8), name


@pytest.mark.parametrize("scale", [1e-120, 1e-9, 1e9, 1e120])
def test_three_of_them_have_no_unit(scale: float) -> None:
    random = np.random.default_rng(0)
    A, B = random.normal(size=(4, 30)), random.normal(size=(20, 4))
    one, other = statistics_of(FactoredUpdate(A, B)), statistics_of(FactoredUpdate(A, B, scale))
    assert one is not None
    assert other is not None
    for name in ("energy", "entropy", "kurtosis", "energy_squared", "entropy_squared"):
        assert getattr(other, name) == pytest.approx(getattr(one, name), rel=1e-9)
    for name in ("sigma1", "frobenius"):
        assert getattr(other, name) == pytest.approx(scale * getattr(one, name), rel=1e-9)


def test_a_known_kurtosis_is_taken_and_not_computed() -> None:
    random = np.random.default_rng(0)
    found = statistics_of(FactoredUpdate(random.normal(size=(2, 9)), random.normal(size=(7, 2))), 12.5)
    assert found is not None
    assert found.kurtosis == 12.5


def test_a_zero_update_has_none() -> None:
    assert statistics_of(FactoredUpdate(np.ones((2, 5)), np.zeros((4, 2)))) is None


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("model.layers.0.self_attn.q_proj", "q"),
        ("model.layers.0.self_attn.k_proj", "k"),
        ("model.layers.0.self_attn.v_proj", "v"),
        ("model.layers.0.self_attn.o_proj", "o"),
        ("model.decoder.layers.0.self_attn.out_proj", "o"),
        ("model.decoder.layers.0.encoder_attn.q_proj", "q"),
        ("encoder.layer.0.attention.self.query", "q"),
        ("encoder.layer.0.attention.self.value", "v"),
        ("encoder.layer.0.attention.output.dense", "o"),
        ("encoder.layer.0.output.dense", None),
        ("encoder.layer.0.intermediate.dense", None),
        ("deberta.encoder.layer.0.attention.self.key_proj", "k"),
        ("distilbert.transformer.layer.0.attention.q_lin", "q"),
        ("distilbert.transformer.layer.0.attention.out_lin", "o"),
        ("encoder.block.0.layer.0.SelfAttention.q", "q"),
        ("decoder.block.0.layer.1.EncDecAttention.o", "o"),
        ("encoder.block.0.layer.1.DenseReluDense.wo", None),
        ("layers.0.attention.wq", "q"),
        ("layers.0.attention.wo", "o"),
        ("layers.0.feed_forward.wo", None),
        ("transformer.h.0.attn.c_attn", None),
        ("transformer.h.0.attn.c_proj", "o"),
        ("transformer.h.0.mlp.c_proj", None),
        ("transformer.h.0.self_attention.query_key_value", None),
        ("transformer.h.0.self_attention.dense", "o"),
        ("model.layers.0.self_attn.qkv_proj", None),
        ("blocks.0.attn.qkv", None),
        ("blocks.0.attn.proj", "o"),
        ("down_blocks.0.attentions.0.proj_in", None),
        ("down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q", "q"),
        ("down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_out.0", "o"),
        ("down_blocks.0.attentions.0.transformer_blocks.0.ff.net.0.proj", None),
        ("transformer_blocks.0.attn.add_q_proj", None),
        ("transformer_blocks.0.attn.to_add_out", None),
        ("lora_unet_down_blocks_0_attentions_1_transformer_blocks_0_attn1_to_v", "v"),
        ("lora_unet_down_blocks_0_attentions_1_transformer_blocks_0_attn1_to_out_0", "o"),
        ("lora_unet_down_blocks_0_attentions_1_proj_out", None),
        ("lora_te_text_model_encoder_layers_0_self_attn_q_proj", "q"),
        ("lora_te_text_model_encoder_layers_0_self_attn_out_proj", "o"),
        ("lora_te_text_model_encoder_layers_0_mlp_fc1", None),
        ("lora_unet_double_blocks_7_img_attn_proj", "o"),
        ("lora_unet_double_blocks_7_img_attn_qkv", None),
        ("blocks.0.feed_forward.key", None),
        ("backbone.layers.0.mixer.out_proj", None),
        ("model.layers.0.linear_attn.out_proj", None),
        ("model.layers.0.self_attn.q_a_proj", None),
        ("model.layers.0.mlp.down_proj", None),
        ("model.embed_tokens", None),
        ("freq", None),
    ],
)
def test_which_module_is_which_projection(path: str, expected: str | None) -> None:
    assert projection_of(path, path.rpartition(".")[2]) == expected


def test_a_format_that_numbers_its_modules_says_the_projection() -> None:
    assert projection_of("w_003", "v") == "v"
    assert projection_of("text_encoder:0", "text_encoder") is None
    assert projection_of("blocks.0.feed_forward.key", "key") is None, "the path holds it, and says more"


def statistics(seed: int, rank: int = 2) -> Any:
    random = np.random.default_rng(seed)
    return statistics_of(FactoredUpdate(random.normal(size=(rank, 12)), random.normal(size=(9, rank))))


def test_a_number_is_the_mean_over_the_modules_of_its_projection() -> None:
    modules = [("q", statistics(i)) for i in range(7)]
    found = combine([*modules, ("q", None), ("v", statistics(8)), (None, statistics(9))])
    assert set(found) == set(SIGNATURE)
    for name in ("sigma1", "entropy_squared", "kurtosis"):
        expected = np.mean([getattr(module, name) for _, module in modules])
        assert found[f"q_{name}"] == pytest.approx(expected, rel=1e-14)
    assert found["v_sigma1"] == statistics(8).sigma1
    assert found["k_sigma1"] is found["o_kurtosis"] is None


def test_the_order_of_the_modules_does_not_matter() -> None:
    modules: list[Any] = [("qkvo"[i % 4], statistics(i)) for i in range(40)]
    assert combine(modules) == combine(modules[::-1])


def test_a_damaged_module_leaves_its_projection_without_numbers() -> None:
    found = combine([("q", statistics(0)), ("q", UNKNOWN), ("k", statistics(1))])
    assert {name for name, value in found.items() if value is not None} == {n for n in SIGNATURE if n[0] == "k"}


def test_a_mean_does_not_overflow() -> None:
    random = np.random.default_rng(0)
    huge = statistics_of(FactoredUpdate(random.normal(size=(2, 9)), random.normal(size=(7, 2)), 1e307))
    assert huge is not None
    assert math.isfinite(combine([("q", huge)] * 100)["q_sigma1"] or math.inf), "a sum of these overflows, no mean does"


ATTENTION = {
    f"model.layers.{layer}.self_attn.{name}_proj": (16, 12, 3) for layer in range(3) for name in ("q", "k", "v", "o")
}


def test_an_adapter_on_disk(tmp_path: Path) -> None:
    """Means over layers of what the dense formulas give; a module of another kind changes nothing."""
    folder = make_adapter(tmp_path / "a", {**ATTENTION, "model.layers.0.mlp.up_proj": (40, 12, 3)})
    with open_adapter(folder) as adapter:
        found = signature(adapter)
        for letter in "qkvo":
            modules = [module for module in adapter.modules if module.projection == f"{letter}_proj"]
            oracle = [published(dense.delta(one.A.array(), one.B.array(), one.scaling.value), 3) for one in modules]
            assert len(oracle) == 3
            for name in oracle[0]:
                expected = np.mean([one[name] for one in oracle])
                assert found[f"{letter}_{name}"] == pytest.approx(expected, rel=1e-7, abs=1e-8)
    assert len(vector(found)) == len(vector(found, "squared")) == 20
    assert vector(found)[5] == found["k_sigma1"]
    assert vector(found, "squared")[2] == found["q_energy_squared"]


def test_zeroing_and_leaving_out_give_the_same(tmp_path: Path) -> None:
    gone = "model.layers.2.self_attn.v_proj"
    whole = make_adapter(tmp_path / "zeroed", ATTENTION, zero_b=[gone])
    # The seed of each module is its place, and no other v_proj stands behind this one.
    kept = {path: shape for path, shape in ATTENTION.items() if path != gone}
    with open_adapter(whole) as adapter, open_adapter(make_adapter(tmp_path / "less", kept)) as other:
        assert {m.path for m in adapter.modules} > {m.path for m in other.modules}
        assert signature(adapter)["v_sigma1"] == signature(other)["v_sigma1"]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_damaged_file_loses_one_projection(tmp_path: Path, bad: float) -> None:
    folder = make_adapter(tmp_path / "a", ATTENTION)
    tensors = load_file(folder / "adapter_model.safetensors")
    tensors["base_model.model.model.layers.1.self_attn.k_proj.lora_B.weight"][3, 1] = bad
    save_file(tensors, folder / "adapter_model.safetensors")
    with open_adapter(folder) as adapter:
        found = signature(adapter)
    assert {name[0] for name, value in found.items() if value is None} == {"k"}


def test_a_fused_projection_gives_no_vector(tmp_path: Path) -> None:
    folder = make_adapter(tmp_path / "a", {"transformer.h.0.attn.c_attn": (36, 12, 2), "h.0.attn.c_proj": (12, 12, 2)})
    with open_adapter(folder) as adapter:
        found = signature(adapter)
    assert found["q_sigma1"] is None
    assert found["o_sigma1"] is not None
    with pytest.raises(UsageError, match="no numbers for q, k, v"):
        vector(found)


@pytest.mark.parametrize("bad", [None, math.nan, math.inf])
def test_a_vector_needs_every_number(bad: float | None) -> None:
    values: dict[str, float | None] = dict.fromkeys(SIGNATURE, 1.0)
    assert vector(values) == (1.0,) * 20
    with pytest.raises(UsageError, match="no numbers for o"):
        vector({**values, "o_kurtosis": bad})
    assert vector({**values, "o_energy_squared": bad}, "plain") == (1.0,) * 20


def test_variants_differ_where_they_say() -> None:
    pairs = list(zip(FEATURES["plain"], FEATURES["squared"], strict=True))
    assert sum(a != b for a, b in pairs) == 8
    assert set(FEATURES["plain"]) | set(FEATURES["squared"]) == set(SIGNATURE)
    with pytest.raises(UsageError, match="no variant"):
        vector(dict.fromkeys(SIGNATURE, 1.0), "cubed")  # type: ignore[arg-type]
