from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from s3lora.adapter.model import Adapter, Scaling
from s3lora.adapter.open import open_adapter
from s3lora.errors import AdapterFileError, NothingToAuditError, UnsupportedAdapterError
from tests.support import factors, make_adapter, write_safetensors

Q0 = "model.layers.0.self_attn.q_proj"
CONFIG = {"peft_type": "LORA", "r": 2, "lora_alpha": 8}


def opened(
    folder: Path, tensors: Mapping[str, np.ndarray[Any, Any]], config: Mapping[str, Any] | None = CONFIG
) -> Adapter:
    write_safetensors(folder / "adapter_model.safetensors", tensors)
    if config is not None:
        (folder / "adapter_config.json").write_text(json.dumps(config))
    return open_adapter(folder)


def product(adapter: Adapter, path: str) -> np.ndarray[Any, Any]:
    module = next(module for module in adapter.modules if module.path == path)
    return module.scaling.value * np.asarray(module.B.array(), np.float64) @ np.asarray(module.A.array(), np.float64)


@pytest.mark.parametrize("prefix", ["base_model.model.", ""])
@pytest.mark.parametrize("inner", ["model.", ""])
@pytest.mark.parametrize("adapter_name", ["", ".default", ".my-adapter"])
def test_every_form_of_the_key(tmp_path: Path, prefix: str, inner: str, adapter_name: str) -> None:
    a, b = factors(5, 7, 2)
    path = f"{inner}layers.3.mlp.experts.11.gate_proj"
    adapter = opened(
        tmp_path,
        {
            f"{prefix}{path}.lora_A{adapter_name}.weight": a,
            f"{prefix}{path}.lora_B{adapter_name}.weight": b,
            f"{prefix}{inner}norm.weight": np.ones(7, np.float32),
        },
    )
    (module,) = adapter.modules
    assert (module.path, module.layer, module.projection, module.expert) == (path, 3, "gate_proj", 11)
    assert (module.m, module.n, module.rank, module.kind, module.dora) == (5, 7, 2, "linear", False)
    assert module.scaling == Scaling(4.0, "alpha/r")
    assert adapter.other_tensors == (f"{prefix}{inner}norm.weight",)
    assert (adapter.format, adapter.removable, adapter.warnings) == ("peft", True, ())
    np.testing.assert_allclose(product(adapter, path), 4.0 * b.astype(float) @ a)


def test_modules_come_in_the_order_of_the_model(tmp_path: Path) -> None:
    paths = [f"model.layers.{i}.self_attn.{p}_proj" for i in (10, 2, 1) for p in "vq"]
    adapter = open_adapter(make_adapter(tmp_path / "a", dict.fromkeys(paths, (4, 4, 2))))
    assert [(module.layer, module.projection) for module in adapter.modules] == [
        (layer, f"{p}_proj") for layer in (1, 2, 10) for p in "qv"
    ]


def test_transposed_bases_embeddings_and_convolutions(tmp_path: Path) -> None:
    # A GPT-2 base keeps its weights transposed; the factors are as everywhere, fan_in_fan_out or not.
    c_attn = factors(2304, 768, 2)
    embedding = factors(6, 50, 2, seed=1)
    conv_a, conv_b = np.ones((2, 3, 3, 3), np.float32), np.ones((8, 2, 1, 1), np.float32)
    adapter = opened(
        tmp_path,
        {
            "base_model.model.transformer.h.0.attn.c_attn.lora_A.weight": c_attn[0],
            "base_model.model.transformer.h.0.attn.c_attn.lora_B.weight": c_attn[1],
            "base_model.model.transformer.wte.lora_embedding_A": embedding[0],
            "base_model.model.transformer.wte.lora_embedding_B": embedding[1],
            "base_model.model.vision.conv.lora_A.weight": conv_a,
            "base_model.model.vision.conv.lora_B.weight": conv_b,
        },
        {**CONFIG, "fan_in_fan_out": True},
    )
    shapes = {module.path: (module.m, module.n, module.kind) for module in adapter.modules}
    assert shapes == {
        "transformer.h.0.attn.c_attn": (2304, 768, "linear"),
        "transformer.wte": (6, 50, "embedding"),
        "vision.conv": (8, 27, "conv"),
    }
    assert product(adapter, "vision.conv").tolist() == [[8.0] * 27] * 8
    np.testing.assert_allclose(product(adapter, "transformer.wte"), 4.0 * embedding[1].astype(float) @ embedding[0])


def test_heads_and_saved_modules_pass_through(tmp_path: Path) -> None:
    heads: dict[str, np.ndarray[Any, Any]] = {
        "score.weight": np.ones((2, 4), np.float32),
        "score.bias": np.ones(2, np.float16),
        "model.embed_tokens.token_adapter.trainable_tokens_delta": np.ones((1, 4), np.float32),
    }
    adapter = open_adapter(make_adapter(tmp_path / "a", {Q0: (4, 4, 2)}, heads=heads, config={"modules_to_save": []}))
    assert set(adapter.other_tensors) == {f"base_model.model.{name}" for name in heads}
    assert len(adapter.modules) == 1


def test_dora_magnitudes_biases_and_mixed_dtypes_belong_to_their_module(tmp_path: Path) -> None:
    a, b = factors(5, 7, 2)
    key = f"base_model.model.{Q0}"
    adapter = opened(
        tmp_path,
        {
            f"{key}.lora_A.weight": a,
            f"{key}.lora_B.weight": b.astype(np.float16),
            f"{key}.lora_B.bias": np.ones(5, np.float32),
            f"{key}.lora_magnitude_vector": np.ones(5, np.float32),
        },
        {**CONFIG, "use_dora": True},
    )
    (module,) = adapter.modules
    assert module.dora
    assert module.extras == (f"{key}.lora_B.bias", f"{key}.lora_magnitude_vector")
    assert set(module.tensor_names) == set(adapter.files[0].tensors)
    assert (module.dtype, adapter.other_tensors) == ("float32/float16", ())
    assert any("DoRA" in warning for warning in adapter.warnings)


def test_rslora_and_patterns_decide_each_modules_scaling(tmp_path: Path) -> None:
    modules = {f"model.layers.{i}.self_attn.{p}_proj": (6, 6, 4 if i else 2) for i in (0, 1) for p in "qv"}
    config = {"r": 2, "lora_alpha": 6.0, "rank_pattern": {"layers.1": 9, r"layers\.1\..*": 4}}
    config["alpha_pattern"] = {"v_proj": 10, "layers.1.self_attn.v_proj": 99}
    plain = open_adapter(make_adapter(tmp_path / "plain", modules, config=config))
    root = open_adapter(make_adapter(tmp_path / "rs", modules, config={**config, "use_rslora": True}))
    assert [module.scaling for module in plain.modules] == [
        Scaling(3.0, "alpha/r"),
        Scaling(5.0, "alpha_pattern"),
        Scaling(1.5, "alpha/r"),
        Scaling(2.5, "alpha_pattern"),
    ]
    assert [module.scaling for module in root.modules] == [
        Scaling(6 / math.sqrt(2), "alpha/sqrt(r)"),
        Scaling(10 / math.sqrt(2), "alpha_pattern"),
        Scaling(3.0, "alpha/sqrt(r)"),
        Scaling(5.0, "alpha_pattern"),
    ]
    assert plain.warnings == root.warnings == ()  # the patterns' ranks are those of the shapes


def test_the_shapes_decide_where_the_configured_rank_is_wrong(tmp_path: Path) -> None:
    folder = make_adapter(tmp_path / "a", {Q0: (6, 6, 4)}, config={"r": 8, "lora_alpha": 16})
    adapter = open_adapter(folder)
    assert adapter.modules[0].scaling == Scaling(4.0, "alpha/r")
    assert "says rank 8 where the tensors have 4 (1 of 1 modules" in adapter.warnings[0]


def test_a_configuration_may_lack_fields_and_have_new_ones(tmp_path: Path) -> None:
    config = {"peft_type": "LORA", "from_the_future": {"x": [1]}, "base_model_name_or_path": None, "r": None}
    a, b = factors(4, 4, 2)
    adapter = opened(tmp_path, {"x.lora_A.weight": a, "x.lora_B.weight": b}, config)
    assert adapter.modules[0].scaling == Scaling(4.0, "alpha/r")  # PEFT's default alpha is 8
    assert adapter.base_model is None


def test_without_a_configuration_the_scaling_is_unknown(tmp_path: Path) -> None:
    a, b = factors(4, 4, 2)
    path = write_safetensors(tmp_path / "x.safetensors", {"x.lora_A.weight": a, "x.lora_B.weight": b})
    adapter = open_adapter(path)
    assert adapter.modules[0].scaling == Scaling(1.0, "unknown")
    assert "no adapter_config.json" in adapter.warnings[0]
    assert adapter.config is None


def test_diffusers_alpha_tensors_count_only_without_a_configuration(tmp_path: Path) -> None:
    a, b = factors(4, 4, 2)
    key = "transformer.blocks.0.attn.to_q"
    tensors = {f"{key}.lora_A.weight": a, f"{key}.lora_B.weight": b, f"{key}.alpha": np.array(5.0, np.float32)}
    bare = open_adapter(write_safetensors(tmp_path / "x.safetensors", tensors))
    assert bare.modules[0].scaling == Scaling(2.5, "alpha tensor")
    assert (bare.modules[0].extras, bare.other_tensors, bare.warnings) == ((f"{key}.alpha",), (), ())
    (tmp_path / "peft").mkdir()
    configured = opened(tmp_path / "peft", tensors)
    assert configured.modules[0].scaling == Scaling(4.0, "alpha/r")
    assert configured.modules[0].extras == (f"{key}.alpha",)  # unread, but it leaves with its module
    assert configured.other_tensors == (f"{key}.alpha",)  # loaders that know LoRA alone reject it


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"peft_type": "IA3"}, "is an adapter of the kind IA3"),
        ({"peft_type": "LOHA"}, "is of a LOHA adapter"),
        ({"peft_type": "VERA"}, "is of a VERA adapter"),
        ({"peft_type": "PREFIX_TUNING"}, "is an adapter of the kind PREFIX_TUNING"),
        ({"peft_type": "LORA", "use_bdlora": True}, "is an adapter of the kind BD-LoRA"),
        ({"peft_type": "LORA", "kasa_config": {}}, None),
        ({"peft_type": "LORA", "kasa_config": {"beta": 1}}, "is an adapter of the kind KaSA"),
    ],
)
def test_other_methods_are_refused_by_name(tmp_path: Path, config: dict[str, Any], reason: str | None) -> None:
    a, b = factors(4, 4, 2)
    tensors = {"x.lora_A.weight": a, "x.lora_B.weight": b}
    if reason is None:
        assert opened(tmp_path, tensors, config).modules
        return
    with pytest.raises((AdapterFileError, UnsupportedAdapterError), match=reason):
        opened(tmp_path, tensors, config)


A, B = factors(4, 6, 2)


@pytest.mark.parametrize("config", [CONFIG, None])
@pytest.mark.parametrize(
    ("part", "method"),
    [
        ("lora_diag", "is KaSA"),
        ("lora_mid.weight", "Tucker"),
        ("lora_C.weight", r"holds lora_C.weight besides its two factors"),
        ("lora_A.weight.absmax", r"holds lora_A.weight.absmax besides its two factors"),
    ],
)
def test_parts_that_change_the_product_are_refused(
    tmp_path: Path, part: str, method: str, config: dict[str, Any] | None
) -> None:
    key = f"base_model.model.{Q0}"
    tensors = {f"{key}.lora_A": A, f"{key}.lora_B": B, f"{key}.{part}": np.ones(2, np.float32)}
    with pytest.raises(UnsupportedAdapterError, match=rf"q_proj: .*{method}"):
        opened(tmp_path, tensors, config)


@pytest.mark.parametrize("part", ["lora_E", "ranknum", "lora_E.default"])
def test_parts_of_adalora_are_no_lora(tmp_path: Path, part: str) -> None:
    key = f"base_model.model.{Q0}"
    tensors = {f"{key}.lora_A": A, f"{key}.lora_B": B, f"{key}.{part}": np.ones(2, np.float32)}
    with pytest.raises(UnsupportedAdapterError, match=r"q_proj: .*is AdaLoRA"):
        opened(tmp_path, tensors, CONFIG)


def test_whatever_lies_under_a_module_leaves_with_it(tmp_path: Path) -> None:
    key, outer = f"base_model.model.{Q0}", "base_model.model.model.layers.0.self_attn"
    tensors = {f"{path}.lora_{f}.weight": A if f == "A" else B for path in (key, outer) for f in "AB"}
    mine = {f"{key}.{name}" for name in ("alpha", "diff_b", "lora_monteclora_sampler.std", "deep.er.weight")}
    theirs = {f"{outer}.gate", f"{outer}.lora_dropout.x"}
    free = {
        f"{key}.base_layer.bias",  # found by PEFT only while the module is wrapped
        f"{key}.token_adapter.trainable_tokens_delta",  # trained by itself
        f"{outer}.k_norm.weight",  # of a module within a module, which LoRA did not touch
        f"{key}_2.weight",
        "base_model.model.score.weight",
    }
    adapter = opened(tmp_path, tensors | dict.fromkeys(sorted(mine | theirs | free), np.ones(2, np.float32)))
    assert {module.path: set(module.extras) for module in adapter.modules} == {
        Q0: mine,
        "model.layers.0.self_attn": theirs,
    }
    assert free <= set(adapter.other_tensors)
    assert {module.scaling for module in adapter.modules} == {Scaling(4.0, "alpha/r")}


def test_a_dora_scale_is_a_magnitude_vector(tmp_path: Path) -> None:
    tensors = {"x.lora_A.weight": A, "x.lora_B.weight": B, "x.dora_scale": np.ones((4, 1), np.float32)}
    (module,) = opened(tmp_path, tensors).modules
    assert (module.dora, module.extras) == (True, ("x.dora_scale",))


BROKEN: list[tuple[str, dict[str, np.ndarray[Any, Any]], dict[str, Any], type[Exception], str]] = [
    ("lone A", {"x.lora_A.weight": A}, CONFIG, AdapterFileError, "x: has lora_A but no lora_B"),
    ("lone B", {"x.lora_B.weight": B}, CONFIG, AdapterFileError, "x: has lora_B but no lora_A"),
    (
        "inner sizes",
        {"x.lora_A.weight": A, "x.lora_B.weight": B.T.copy()},
        CONFIG,
        AdapterFileError,
        "A is 2 × 6, B is 2 × 4",
    ),
    ("empty", {"x.lora_A.weight": A[:, :0], "x.lora_B.weight": B}, CONFIG, AdapterFileError, "a factor is empty"),
    (
        "3-D",
        {"x.lora_A.weight": A, "x.lora_B.weight": B[..., None]},
        CONFIG,
        UnsupportedAdapterError,
        "3 dimensions is not one matrix",
    ),
    (
        "quantised",
        {"x.lora_A.weight": A.astype(np.int8), "x.lora_B.weight": B},
        CONFIG,
        UnsupportedAdapterError,
        "dtype int8 has no spectrum",
    ),
    (
        "two adapters",
        {f"x.lora_{f}.{n}.weight": A if f == "A" else B for f in "AB" for n in ("default", "other")},
        CONFIG,
        UnsupportedAdapterError,
        "several adapters in one file",
    ),
    (
        "twice",
        {
            "base_model.model.x.lora_A.weight": A,
            "base_model.model.x.lora_B.weight": B,
            "x.lora_A.weight": A,
            "x.lora_B.weight": B,
        },
        CONFIG,
        AdapterFileError,
        "x: appears twice",
    ),
    (
        "two spellings of one factor",
        {"x.lora_A.weight": A, "x.lora_A.default.weight": A, "x.lora_B.weight": B},
        CONFIG,
        AdapterFileError,
        "x: has two lora_A tensors",
    ),
    ("heads only", {"score.weight": A}, CONFIG, NothingToAuditError, "holds no LoRA module"),
    *(
        (
            f"{field}={value}",
            {"x.lora_A.weight": A, "x.lora_B.weight": B},
            {**CONFIG, field: value},
            AdapterFileError,
            m,
        )
        for field, value, m in [
            ("lora_alpha", "16", "`lora_alpha` is the text '16', not a positive number"),
            ("lora_alpha", True, "`lora_alpha` is True"),
            ("r", -1, "`r` is -1"),
            ("r", 10**400, "`r` is 1000"),
            ("alpha_pattern", {"x": 10**400}, "`alpha_pattern` gives 1000"),
            ("alpha_pattern", {"x": 0}, "`alpha_pattern` gives 0 for x"),
            ("rank_pattern", [1], "`rank_pattern` must be an object"),
            ("rank_pattern", {"(": 1}, "a pattern that is no regular expression"),
        ]
    ),
]


@pytest.mark.parametrize(("tensors", "config", "error", "reason"), [r[1:] for r in BROKEN], ids=[r[0] for r in BROKEN])
def test_what_cannot_be_meant_is_refused(
    tmp_path: Path,
    tensors: dict[str, np.ndarray[Any, Any]],
    config: dict[str, Any],
    error: type[Exception],
    reason: str,
) -> None:
    with pytest.raises(error) as caught:
        opened(tmp_path, tensors, config)
    assert reason in str(caught.value)
    assert type(caught.value) is error


@pytest.mark.parametrize(
    "field", [{"lora_alpha": -1}, {"r": "8"}, {"alpha_pattern": {"x": 0}}, {"rank_pattern": {"(": 1}}]
)
def test_errors_about_the_configuration_name_its_file(tmp_path: Path, field: dict[str, Any]) -> None:
    with pytest.raises(AdapterFileError, match="`") as caught:
        opened(tmp_path, {"x.lora_A.weight": A, "x.lora_B.weight": B}, {**CONFIG, **field})
    for sentence in (str(caught.value), caught.value.located()):
        assert sentence.startswith(f"{tmp_path / 'adapter_config.json'}: `")
    assert caught.value.file == "adapter_config.json"
