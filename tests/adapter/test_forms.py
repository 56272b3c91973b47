"""LoHa, LoKr, AdaLoRA, VeRA and QALoRA: what is read of them against dense updates made of the stored tensors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3lora import AdapterFileError, CostError, NothingToAuditError, UnsupportedAdapterError, open_adapter, scan
from s3lora.adapter.formats.lycoris import Product, module_of
from s3lora.adapter.model import Scaling
from s3lora.adapter.tensor import ArrayTensor
from s3lora.measure.updates import update_of
from tests.forms import PATHS, PREFIX, RANK, M, N, loha, lokr, lycoris_adapter, peft_adapter
from tests.planning import tensors_of
from tests.reference import dense
from tests.reference.forms import update
from tests.support import write_safetensors

#: Form → (s, the rank of each of the modules at `PATHS`).
PEFT = {
    "loha": (6 / RANK, [9, 9, 9, 9]),
    "lokr": (6 / 2, [6, 6, 6, 6]),
    "lokr-whole": (6 / 2, [12, 12, 12, 12]),
    "adalora": (8 / (RANK + 1 + 1e-5), [3, 3, 2, 2]),
    "vera": (1.0, [3, 3, 3, 3]),
    "qalora": (2.0, [3, 3, 3, 3]),
}
NAMES = {"loha": "LoHa", "lokr": "LoKr", "lokr-whole": "LoKr", "adalora": "AdaLoRA", "vera": "VeRA", "qalora": "QALoRA"}
KEY = "lora_unet_down_blocks_0_attentions_1_transformer_blocks_0_attn1_to_q"


def oracle(folder: Path, form: str, path: str, scaling: float) -> np.ndarray[Any, Any]:
    """Return the dense ΔW of one module."""
    matrix = scaling * update(tensors_of(folder), path, PREFIX)
    if form == "qalora":  # PEFT's layer multiplies by n/g the mean of each group of g = 4 inputs
        pooling = np.kron(np.eye(N // 4), np.ones((4, 1)) / 4) * (N // 4)
        return matrix @ pooling.T
    return matrix


def check(found: Any, matrix: np.ndarray[Any, Any], rank: int) -> None:
    """Hold a record of a scan by mas-svd against its dense matrix."""
    assert found.shape == matrix.shape
    assert found.rank == rank
    size = np.linalg.norm(matrix)
    assert found.indices["frobenius"] == pytest.approx(size, rel=1e-9)
    sigma = dense.singular_values(matrix)
    assert found.indices["energy"] == pytest.approx(sigma[0] ** 2 / size**2, rel=1e-9)
    wanted = dense.mas_svd(matrix, min(rank, *matrix.shape))
    np.testing.assert_allclose(found.sigma, wanted, atol=1e-7 * wanted[0])


@pytest.mark.parametrize("form", PEFT)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_peft_writes(tmp_path: Path, form: str, dtype: str) -> None:
    folder = peft_adapter(tmp_path / "a", form, dtype)
    if dtype == "bfloat16":  # the oracle's library has no such type
        wide = peft_adapter(tmp_path / "wide", form)
        with open_adapter(folder) as adapter:
            values = {part.tensor.name: part.tensor.array() for module in adapter.modules for part in module.parts}
        rounded = {name: values[name].astype(np.float32).reshape(old.shape) for name, old in tensors_of(wide).items()}
        write_safetensors(wide / "adapter_model.safetensors", rounded)
    else:
        wide = folder
    found = scan(folder)
    scaling, ranks = PEFT[form]
    assert found.source.format == "peft"
    assert [module.path for module in found] == PATHS
    assert any(f"are {NAMES[form]}: " in warning for warning in found.warnings)
    for module, rank in zip(found, ranks, strict=True):
        assert module.scaling == pytest.approx(scaling, rel=1e-12)
        check(module, oracle(wide, form, module.path, scaling), rank)
    assert [tensor.role for tensor in found.inventory.tensors if tensor.role != "factor"] == []
    assert not found.inventory.dead
    plain = scan(folder, "svd", kurtosis=True)
    for module in plain:
        matrix = oracle(wide, form, module.path, scaling)
        wanted = dense.singular_values(matrix)[: len(module.sigma)]
        np.testing.assert_allclose(module.sigma, wanted, atol=1e-10 * wanted[0])
        assert module.indices["kurtosis"] == pytest.approx(dense.kurtosis(matrix), rel=1e-6, abs=1e-6)
    for one in (scan(folder, "spsvd"), scan(folder, "spsvd", fit="l1", sample=4)):
        assert all(len(module.sigma) == min(module.rank, *module.shape) for module in one)


def test_the_parameters_are_those_stored(tmp_path: Path) -> None:
    counts = {
        "loha": 2 * RANK * (M + N),
        "lokr": 12 + 2 * 9,
        "lokr-whole": 12 + 20,
        "adalora": RANK * (M + N + 1),
        "vera": M + RANK,
        "qalora": RANK * (M + N // 4),
    }
    for form, count in counts.items():
        assert {module.parameters for module in scan(peft_adapter(tmp_path / form, form))} == {count}, form


@pytest.mark.parametrize("form", ["loha", "lokr", "vera"])
def test_without_a_configuration_the_scaling_is_unknown(tmp_path: Path, form: str) -> None:
    folder = peft_adapter(tmp_path / "a", form)
    (folder / "adapter_config.json").unlink()
    found = scan(folder)
    assert found.source.format == "peft"
    known = form == "vera"
    assert {module.scaling_origin for module in found} == {"always 1" if known else "unknown"}
    assert any("scaling is unknown" in warning for warning in found.warnings) is not known


def test_patterns_and_ranks_of_peft(tmp_path: Path) -> None:
    fields = {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"layers.1.self_attn.v_proj": 9}}
    found = scan(peft_adapter(tmp_path / "a", "lokr-whole", **fields))
    assert [module.scaling for module in found] == [3.0, 3.0, 3.0, 4.5]
    wrong = scan(peft_adapter(tmp_path / "b", "loha", r=4))
    assert any("says rank 4 where the tensors have 3 (4 of 4 modules" in warning for warning in wrong.warnings)
    assert {module.scaling for module in wrong} == {2.0}


def test_what_lycoris_writes(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    alpha = {"alpha": np.array(1.5)}
    modules = {
        KEY: loha(random),
        "lora_unet_mid_block_a": {**loha(random, r=2, s=4), **alpha},
        "lora_unet_mid_block_b": {**lokr(random, None, 2), **alpha},
        "lora_unet_mid_block_c": {**lokr(random, 2, 2), **alpha},
        "lora_unet_mid_block_d": {**lokr(random, None, None), **alpha},
        "lora_unet_mid_block_e": {**lokr(random, None, None, conv=3), **alpha},
        "lora_unet_mid_block_f": {**lokr(random, 1, 2, conv=3), **alpha, "dora_scale": np.ones((12, 1))},
        "lycoris_transformer_blocks_0_attn_to_q": {**lokr(random, 1, None), **alpha},
        "lora_unet_mid_block_g": {
            "lora_down.weight": random.normal(size=(2, N)),
            "lora_up.weight": random.normal(size=(M, 2)),
            **alpha,
        },
    }
    folder = lycoris_adapter(tmp_path / "a", modules)
    found = scan(folder)
    assert found.source.format == "kohya"
    scalings = {
        KEY: Scaling(1.0, "unknown"),
        "lora_unet_mid_block_a": Scaling(0.75, "alpha tensor"),
        "lora_unet_mid_block_b": Scaling(0.75, "alpha tensor"),
        "lora_unet_mid_block_c": Scaling(0.75, "alpha tensor"),
        "lora_unet_mid_block_d": Scaling(1.0, "always 1"),
        "lora_unet_mid_block_e": Scaling(1.0, "always 1"),
        "lora_unet_mid_block_f": Scaling(0.75, "alpha tensor"),
        "lycoris_transformer_blocks_0_attn_to_q": Scaling(1.5, "alpha tensor"),
        "lora_unet_mid_block_g": Scaling(0.75, "alpha tensor"),
    }
    ranks = {KEY: 9, "lora_unet_mid_block_a": 8, "lora_unet_mid_block_b": 6, "lora_unet_mid_block_c": 4} | {
        "lora_unet_mid_block_d": 12,
        "lora_unet_mid_block_e": 12,
        "lora_unet_mid_block_f": 2,
        "lycoris_transformer_blocks_0_attn_to_q": 4,
        "lora_unet_mid_block_g": 2,
    }
    stored = tensors_of(folder)
    assert {module.path for module in found} == set(scalings)
    for module in found:
        assert (module.scaling, module.scaling_origin) == (scalings[module.path].value, scalings[module.path].origin)
        check(module, module.scaling * update(stored, module.path), ranks[module.path])
    assert [module.path for module in found if module.dora] == ["lora_unet_mid_block_f"]
    assert found["lora_unet_mid_block_e"].kind == "conv"
    assert {tensor.role for tensor in found.inventory.tensors} == {"factor", "extra"}
    assert found["lycoris_transformer_blocks_0_attn_to_q"].projection == "attn_to_q"
    assert any("6 of 9 modules are LoKr" in warning for warning in found.warnings)


def test_a_hadamard_product_of_high_rank_is_the_whole_matrix(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    modules = {"lora_unet_a": loha(random, r=4, s=5), "lora_unet_b": loha(random, N, M, 4, 4)}
    folder = lycoris_adapter(tmp_path / "a", modules)
    stored = tensors_of(folder)
    for module in scan(folder):
        assert module.rank == M
        check(module, update(stored, module.path), M)


SIZES = st.integers(1, 6)


@given(SIZES, SIZES, SIZES, SIZES, st.integers(0, 99))
def test_every_hadamard_product(m: int, n: int, r: int, s: int, seed: int) -> None:
    parts = loha(np.random.default_rng(seed), m, n, r, s)
    product = Product("x", "x", {name: ArrayTensor(name, values) for name, values in parts.items()})
    module = module_of(product, Scaling(-2.0, "unknown"), (None, "x", None), "test")
    matrix = 2 * update({f"x.{name}": values for name, values in parts.items()}, "x")
    assert module.rank == min(r * s, m, n)
    sigma = dense.singular_values(matrix)[: min(module.rank, m, n)]
    np.testing.assert_allclose(update_of(module).singular_values, sigma, atol=1e-12 * np.linalg.norm(matrix))
    np.testing.assert_allclose(2 * module.B.array() @ module.A.array(), matrix, atol=1e-12 * np.abs(matrix).max())


@given(st.sampled_from([None, 1, 3]), st.sampled_from([None, 2, 6]), st.integers(1, 2), st.integers(0, 99))
def test_every_kronecker_product(first: int | None, second: int | None, conv: int, seed: int) -> None:
    parts = lokr(np.random.default_rng(seed), first, second, conv)
    product = Product("x", "x", {name: ArrayTensor(name, values) for name, values in parts.items()})
    module = module_of(product, Scaling(0.5, "unknown"), (None, "x", None), "test")
    matrix = 0.5 * update({f"x.{name}": values for name, values in parts.items()}, "x")
    found = update_of(module).singular_values
    np.testing.assert_allclose(found, dense.singular_values(matrix)[: len(found)], atol=1e-12 * np.linalg.norm(matrix))
    np.testing.assert_allclose(0.5 * module.B.array() @ module.A.array(), matrix, atol=1e-12 * np.abs(matrix).max())


def test_adalora_takes_the_rank_it_began_with(tmp_path: Path) -> None:
    folder = peft_adapter(tmp_path / "a", "adalora")
    tensors = {**tensors_of(folder), f"{PREFIX}{PATHS[0]}.ranknum": np.array([5.0], np.float32)}
    write_safetensors(folder / "adapter_model.safetensors", tensors)
    found = scan(folder)
    assert [module.scaling for module in found] == [8 / (5 + 1e-5), *[8 / (4 + 1e-5)] * 3]
    (extra,) = [tensor for tensor in found.inventory.tensors if tensor.role != "factor"]
    assert (extra.name, extra.role, extra.effect) == (
        f"{PREFIX}{PATHS[0]}.ranknum",
        "extra",
        "sets the scaling of its module",
    )
    config = json.loads((folder / "adapter_config.json").read_text())
    del config["init_r"]
    (folder / "adapter_config.json").write_text(json.dumps(config))
    assert [module.scaling for module in scan(folder)][1] == 8 / (3 + 1e-5)


def test_adalora_of_nothing_but_zeros_is_a_zero_update(tmp_path: Path) -> None:
    folder = peft_adapter(tmp_path / "a", "adalora")
    tensors = {name: x * 0 if "lora_E" in name else x for name, x in tensors_of(folder).items()}
    write_safetensors(folder / "adapter_model.safetensors", tensors)
    assert {(module.zero, module.rank) for module in scan(folder)} == {(True, RANK)}


def test_not_a_number_is_found_in_every_part(tmp_path: Path) -> None:
    for form in PEFT:
        folder = peft_adapter(tmp_path / form, form)
        for name, values in tensors_of(folder).items():
            broken = values.copy()
            broken.flat[0] = np.nan
            write_safetensors(folder / "adapter_model.safetensors", {**tensors_of(folder), name: broken})
            assert any(module.nonfinite for module in scan(folder, nonfinite=True)), name
            write_safetensors(folder / "adapter_model.safetensors", {**tensors_of(folder), name: values})


def test_vera_says_what_it_does_not_store(tmp_path: Path) -> None:
    folder = peft_adapter(tmp_path / "a", "vera")
    assert not any("how many inputs" in warning for warning in scan(folder).warnings)
    tensors = {name.replace("v_proj", "down_proj"): x for name, x in tensors_of(folder).items()}
    write_safetensors(folder / "adapter_model.safetensors", tensors)
    assert any("does not store how many inputs a layer has: 20 are taken" in one for one in scan(folder).warnings)
    for side in "AB":
        without = {name: x for name, x in tensors.items() if name != f"base_model.vera_{side}"}
        write_safetensors(folder / "adapter_model.safetensors", without)
        with pytest.raises(UnsupportedAdapterError, match=rf"vera_{side}.*is not stored.*`save_projection` to true"):
            scan(folder)


ONE = np.ones((2, 2), np.float32)
GOOD = {name: np.ones((4, 2) if name.endswith("a") else (2, 4), np.float32) for name in loha(np.random.default_rng(0))}
BROKEN: dict[str, tuple[dict[str, np.ndarray[Any, Any]], type[Exception], str]] = {
    "half": ({"hada_w1_a": ONE}, AdapterFileError, "x: has hada_w1_a but no hada_w1_b"),
    "one product": (
        {k: v for k, v in GOOD.items() if "w1" in k},
        AdapterFileError,
        "has hada_w1_a, hada_w1_b but no hada_w2_a",
    ),
    "a part of its own": ({**GOOD, "hada_w1": ONE}, AdapterFileError, "holds hada_w1, which LoHa has not"),
    "ranks": ({**GOOD, "hada_w1_a": np.ones((4, 3), np.float32)}, AdapterFileError, "the factors do not fit"),
    "sizes": (
        {**GOOD, "hada_w2_b": np.ones((2, 5), np.float32)},
        AdapterFileError,
        "its two products do not fit: 4 × 4 and 4 × 5",
    ),
    "empty": ({**GOOD, "hada_w1_a": np.ones((0, 2), np.float32)}, AdapterFileError, "a factor is empty"),
    "core": (
        {**GOOD, "hada_t1": np.ones((2, 2, 3, 3), np.float32)},
        UnsupportedAdapterError,
        "has a Tucker core .hada_t1",
    ),
    "lokr core": (
        {"lokr_w1": ONE, "lokr_t2": np.ones((2, 2, 3, 3), np.float32)},
        UnsupportedAdapterError,
        "Tucker core .lokr_t2",
    ),
    "lokr half": ({"lokr_w1": ONE}, AdapterFileError, "x: has lokr_w1 but no lokr_w2"),
    "lokr half of two": (
        {"lokr_w1": ONE, "lokr_w2_a": ONE},
        AdapterFileError,
        "has lokr_w1, lokr_w2_a but no lokr_w2_b",
    ),
    "lokr twice": ({"lokr_w1": ONE, "lokr_w1_a": ONE, "lokr_w2": ONE}, AdapterFileError, "holds lokr_w1 and lokr_w1_a"),
    "lokr empty": ({"lokr_w1": ONE, "lokr_w2": np.ones((0, 2), np.float32)}, AdapterFileError, "a factor is empty"),
    "both": ({**GOOD, "lokr_w1": ONE}, AdapterFileError, "holds parts of LoHa and of LoKr"),
    "integers": ({**GOOD, "hada_w1_a": np.ones((4, 2), np.int8)}, UnsupportedAdapterError, "int8"),
    "1-D": ({"lokr_w1": np.ones(3, np.float32), "lokr_w2": ONE}, UnsupportedAdapterError, "1 dimensions"),
    "5-D alpha": ({**GOOD, "alpha": np.ones((2, 2), np.float32)}, AdapterFileError, "alpha must be one number"),
    "several": (
        {**{f"{k}.a": v for k, v in GOOD.items()}, **{f"{k}.b": v for k, v in GOOD.items()}},
        UnsupportedAdapterError,
        "several adapters",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_does_not_fit_is_refused(tmp_path: Path, case: str) -> None:
    parts, error, words = BROKEN[case]
    path = write_safetensors(tmp_path / "x.safetensors", {f"lora_unet_x.{name}": x for name, x in parts.items()})
    with pytest.raises(error, match=words) as caught:
        open_adapter(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"lora_E": None}, "has lora_A and lora_B but no lora_E"),
        ({"lora_E": np.ones((RANK + 1, 1), np.float32)}, "the factors do not fit"),
        ({"lora_E": np.ones((RANK, 2), np.float32)}, "is no vector"),
        ({"ranknum": np.zeros(1, np.float32)}, "ranknum is 0, not a positive number"),
        ({"ranknum": np.ones(2, np.float32)}, "ranknum must be one number"),
        ({"lora_A": None}, "has lora_B but no lora_A"),
    ],
)
def test_adalora_that_does_not_fit_is_refused(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    folder = peft_adapter(tmp_path / "a", "adalora")
    tensors = tensors_of(folder) | {f"{PREFIX}{PATHS[0]}.{name}": values for name, values in change.items()}
    write_safetensors(folder / "adapter_model.safetensors", {k: v for k, v in tensors.items() if v is not None})
    with pytest.raises((AdapterFileError, UnsupportedAdapterError), match=words):
        open_adapter(folder)


@pytest.mark.parametrize(
    ("name", "values", "words"),
    [
        ("vera_lambda_b", None, "has no vera_lambda_b"),
        ("vera_lambda_d", None, "has no vera_lambda_d"),
        ("vera_lambda_b", np.ones(M + 3, np.float32), "its scales do not fit the projections"),
        ("vera_lambda_d", np.ones(RANK + 1, np.float32), "its scales do not fit the projections"),
        ("vera_lambda_d", np.ones((RANK, 2), np.float32), "is no vector"),
    ],
)
def test_vera_that_does_not_fit_is_refused(tmp_path: Path, name: str, values: Any, words: str) -> None:
    folder = peft_adapter(tmp_path / "a", "vera")
    tensors = {**tensors_of(folder), f"{PREFIX}{PATHS[0]}.{name}": values}
    write_safetensors(folder / "adapter_model.safetensors", {k: v for k, v in tensors.items() if v is not None})
    with pytest.raises((AdapterFileError, UnsupportedAdapterError), match=words):
        open_adapter(folder)


@pytest.mark.parametrize("size", [0, -1, 2.5, 1e9])
def test_a_group_size_that_cannot_be_is_refused(tmp_path: Path, size: float) -> None:
    with pytest.raises(AdapterFileError, match="qalora_group_size"):
        open_adapter(peft_adapter(tmp_path / "a", "qalora", qalora_group_size=size))


def test_a_group_size_that_makes_a_layer_of_no_model_is_refused(tmp_path: Path) -> None:
    folder = peft_adapter(tmp_path / "a", "qalora", qalora_group_size=65_536)
    wide = {
        name: np.ones((RANK, 40_000), np.float32) if "lora_A" in name else value
        for name, value in tensors_of(folder).items()
    }
    write_safetensors(folder / "adapter_model.safetensors", wide)
    with pytest.raises(AdapterFileError, match=r"`qalora_group_size` is 65,536, which makes 2,621,440,000 inputs"):
        open_adapter(folder)


OTHERS = {
    "oft_R.weight": "OFT",
    "boft_R": "BOFT",
    "ia3_l": "IA³",
    "hra_u": "HRA",
    "bone_block": "MiSS or BONE",
    "miss_block": "MiSS or BONE",
    "fourierft_spectrum": "FourierFT",
    "vblora_logits_A": "VB-LoRA",
    "randlora_lambda": "RandLoRA",
    "ln_tuning_layers.weight": "LN tuning",
    "oft_blocks": "OFT",
    "a1.weight": "GLoRA",
}


@pytest.mark.parametrize("part", OTHERS)
def test_a_kind_that_is_not_read_is_named_with_two_of_its_keys(tmp_path: Path, part: str) -> None:
    names = [f"{PREFIX}{path}.{part}" for path in PATHS]
    write_safetensors(tmp_path / "adapter_model.safetensors", dict.fromkeys(names, ONE))
    with pytest.raises(UnsupportedAdapterError) as bare:
        open_adapter(tmp_path)
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "SOMETHING"}))
    with pytest.raises(UnsupportedAdapterError) as configured:
        open_adapter(tmp_path)
    assert f"is {OTHERS[part]} (it holds `{names[0]}` and `{names[1]}`)" in str(bare.value)
    assert f"is an adapter of the kind SOMETHING (it holds `{names[0]}` and `{names[1]}`)" in str(configured.value)
    for told in (str(bare.value), str(configured.value)):
        assert "looked for factors of LoRA (lora_A" in told
        assert "whole model" not in told


def test_prompts_and_unknown_keys_are_no_whole_model(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "adapter_model.safetensors", {"prompt_embeddings": ONE})
    with pytest.raises(UnsupportedAdapterError, match=r"is prompt tuning .it holds `prompt_embeddings`"):
        open_adapter(tmp_path)
    write_safetensors(tmp_path / "adapter_model.safetensors", {"a.secret_x": ONE, "b.secret_x": ONE, "c": ONE})
    with pytest.raises(NothingToAuditError, match=r"holds `a\.secret_x` and `b\.secret_x`.*looked for") as caught:
        open_adapter(tmp_path)
    assert "whole model" not in str(caught.value)
    whole = {"model.embed_tokens.weight": ONE, "model.norm.weight": ONE}
    write_safetensors(tmp_path / "adapter_model.safetensors", whole)
    with pytest.raises(NothingToAuditError, match="not a whole model"):
        open_adapter(tmp_path)


def test_sizes_that_would_fill_the_memory_are_refused_before_anything_is_read(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    wide = {name: np.zeros(x.shape, np.float32) for name, x in loha(random, 20_000, 20_000, 150, 150).items()}
    folder = lycoris_adapter(tmp_path / "a", {"lora_unet_a": wide})
    with pytest.raises(CostError, match="allowed"):
        scan(folder)
    # A Kronecker product of the same size costs next to nothing.
    whole = {"lokr_w1": random.normal(size=(240, 240)), "lokr_w2": random.normal(size=(250, 250))}
    (module,) = scan(lycoris_adapter(tmp_path / "b", {"lora_unet_a": whole}))
    assert module.shape == (60_000, 60_000)
    first, second = (np.linalg.norm(whole[name].astype(np.float32)) for name in ("lokr_w1", "lokr_w2"))
    assert module.indices["frobenius"] == pytest.approx(float(first) * float(second), rel=1e-5)
