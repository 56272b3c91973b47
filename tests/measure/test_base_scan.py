"""Scans, plans and comparisons beside the weights of a base, against dense matrices."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

import s3lora
from s3lora.errors import CostError, ModelError, NonFiniteError, SelectionError, UnsupportedAdapterError, UsageError
from s3lora.measure.configuration import Configuration
from s3lora.measure.cost import scan_cost
from tests.command import call
from tests.reference import base_weights as reference
from tests.reference import dense as slow
from tests.repair.pairs import model_folder
from tests.support import make_adapter, write_safetensors

Q, V, DOWN = "model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.v_proj", "model.layers.1.mlp.down_proj"
SHAPES = {Q: (12, 12, 2), V: (8, 12, 2), DOWN: (12, 20, 2)}


def weights(seed: int = 0) -> dict[str, Any]:
    generator = np.random.default_rng(seed)
    made = {f"{path}.weight": generator.normal(size=shape[:2]).astype(np.float32) for path, shape in SHAPES.items()}
    return {
        **made,
        "model.norm.weight": np.ones(12, np.float32),
        "lm_head.weight": generator.normal(size=(30, 12)).astype(np.float32),
    }


@pytest.fixture
def base(tmp_path: Path) -> str:
    return model_folder(tmp_path / "base", weights())


@pytest.fixture
def dora(tmp_path: Path) -> Path:
    return dora_adapter(tmp_path / "dora")


def dora_adapter(folder: Path, seed: int = 0, **heads: Any) -> Path:
    generator = np.random.default_rng(seed + 100)
    lengths = {
        f"{path}.lora_magnitude_vector": np.abs(generator.normal(size=shape[0])).astype(np.float32) + 1
        for path, shape in SHAPES.items()
    }
    return make_adapter(folder, SHAPES, seed=seed, config={"use_dora": True, "lora_alpha": 3}, heads=lengths | heads)


def exact(adapter_path: Path) -> dict[str, Any]:
    """Return ΔW of every DoRA module."""
    found = {}
    with s3lora.open_adapter(adapter_path) as adapter:
        tensors = {name: tensor.array() for file in adapter.files for name, tensor in file.tensors.items()}
        for module in adapter.modules:
            lengths = tensors[f"base_model.model.{module.path}.lora_magnitude_vector"].astype(float)
            product = slow.delta(module.A.array(), module.B.array(), module.scaling.value)
            found[module.path] = reference.dora(weights()[f"{module.path}.weight"].astype(float), product, lengths)
    return found


@pytest.mark.parametrize("method", ["svd", "mas-svd", "spsvd"])
def test_the_numbers_of_dora_are_of_the_exact_update(method: str, dora: Path, base: str) -> None:
    scan = s3lora.scan(dora, method, base_weights=base)
    assert scan.true_updates
    assert scan.base is not None
    assert scan.base.name == "base"
    for path, change in exact(dora).items():
        record = scan[path]
        how = {"svd": slow.svd, "mas-svd": slow.mas_svd, "spsvd": slow.spsvd_l2}[method]
        assert np.allclose(record.sigma, how(change, 2), rtol=1e-9)
        assert (record.of, record.dense, record.sigma_error, record.rank) == ("ΔW", True, 0.0, 2)
        assert record.indices["frobenius"] == pytest.approx(np.linalg.norm(change))
        assert record.indices["stable_rank"] == pytest.approx(slow.stable_rank(change))
        assert record.indices["effective_rank"] == pytest.approx(slow.effective_rank(change))
    assert any("exact ΔW" in note for note in scan.warnings)
    assert not any("B·A alone" in note for note in scan.warnings)


def test_without_the_base_the_numbers_of_dora_are_of_the_factors(dora: Path) -> None:
    scan = s3lora.scan(dora)
    assert {module.of for module in scan} == {"B·A"}
    assert scan.base is None
    assert not scan.true_updates
    assert any("B·A alone" in note for note in scan.warnings)


def test_relative_sizes_of_an_ordinary_adapter_are_those_of_the_dense_update(tmp_path: Path, base: str) -> None:
    path = make_adapter(tmp_path / "a", SHAPES, zero_b=[V])
    plain, scan = s3lora.scan(path), s3lora.scan(path, base_weights=base)
    assert [msgspec.to_builtins(one) for one in plain] == [msgspec.to_builtins(one) for one in scan]
    assert scan.base is not None
    assert plain.base is None
    with s3lora.open_adapter(path) as adapter:
        for module, one in zip(adapter.modules, scan.base.modules, strict=True):
            weight = weights()[f"{module.path}.weight"].astype(float)
            change = slow.delta(module.A.array(), module.B.array(), module.scaling.value)
            assert one.weight == f"{module.path}.weight"
            assert one.relative == pytest.approx(np.linalg.norm(change) / np.linalg.norm(weight))
            assert one.intruders is None


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_directions_are_compared_with_those_of_the_base(tmp_path: Path, base: str, kind: str) -> None:
    path = make_adapter(tmp_path / "a", SHAPES) if kind == "lora" else dora_adapter(tmp_path / "a")
    scan = s3lora.scan(path, "svd", base_weights=base, intruders=True)
    assert scan.base is not None
    assert scan.base.epsilon == 0.5
    with s3lora.open_adapter(path) as adapter:
        products = {m.path: slow.delta(m.A.array(), m.B.array(), m.scaling.value) for m in adapter.modules}
    changes = products if kind == "lora" else exact(path)
    for one in scan.base.modules:
        weight, change = weights()[one.weight].astype(float), changes[one.path]
        assert one.intruders == reference.intruders(weight, weight + change)
        assert one.complete
        assert one.compared == min(weight.shape)
        assert one.directions == min(10, *weight.shape)
        s = slow.singular_values
        assert one.relative_spectral == pytest.approx(s(change)[0] / s(weight)[0])
        u, _, vt = np.linalg.svd(change)
        ub, _, vb = np.linalg.svd(weight)
        assert one.columns is not None
        assert one.rows is not None
        expected = reference.mean_square_cosine(u[:, :2], ub[:, : one.directions])
        assert one.columns.mean_square == pytest.approx(expected)
        assert one.rows.mean_square == pytest.approx(reference.mean_square_cosine(vt[:2].T, vb[: one.directions].T))


@pytest.mark.parametrize("method", ["svd", "mas-svd"])
def test_long_embeddings_are_read_as_they_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    generator = np.random.default_rng(2)
    stored = {"model.embed_tokens.weight": generator.normal(size=(40, 6)).astype(np.float32)}
    a, b = (generator.normal(size=shape).astype(np.float32) for shape in ((2, 40), (6, 2)))
    name = "base_model.model.model.embed_tokens.lora_"
    for kind, extra in (
        ("dora", {f"{name}magnitude_vector": np.abs(generator.normal(size=6)).astype(np.float32) + 1}),
        ("lora", {}),
    ):
        path = make_adapter(tmp_path / kind, {}, config={"target_modules": ["embed_tokens"], "r": 2})
        write_safetensors(
            path / "adapter_model.safetensors", {f"{name}embedding_A": a, f"{name}embedding_B": b, **extra}
        )
        folder = model_folder(tmp_path / f"{kind}-base", stored)
        plain = s3lora.scan(path, method, base_weights=folder, intruders=True)
        compared = s3lora.compare([path, path], base_weights=folder)
        with monkeypatch.context() as patch:
            patch.setattr("s3lora.adapter.tensors.LONG", 100)
            long = s3lora.scan(path, method, base_weights=folder, intruders=True)
            assert s3lora.compare([path, path], base_weights=folder).modules[0].distance == compared.modules[0].distance
        assert np.allclose(plain.modules[0].sigma, long.modules[0].sigma)
        assert plain.base is not None
        assert long.base is not None
        first, second = plain.base.modules[0], long.base.modules[0]
        assert first.relative == pytest.approx(second.relative)
        assert first.columns is not None
        assert second.columns is not None
        assert first.columns.mean_square == pytest.approx(second.columns.mean_square)
        assert first.columns.chance == second.columns.chance


def test_pruning_dora_ranks_by_the_true_update(tmp_path: Path, base: str, capsys: pytest.CaptureFixture[str]) -> None:
    dora = dora_adapter(tmp_path / "long", **{f"{V}.lora_magnitude_vector": np.full(8, 40, np.float32)})
    out = tmp_path / "out"
    options = ("--method", "svd", "--index", "frobenius", "--top", "1")
    result = call(capsys, "prune", dora, "-o", out, *options, "--base-weights", base)
    assert result.status == 0, result.err
    sizes = {path: np.linalg.norm(change) for path, change in exact(dora).items()}
    alone = {module.path: module.indices["frobenius"] or 0.0 for module in s3lora.scan(dora, "svd")}
    largest = max(sizes, key=sizes.__getitem__)
    assert largest != max(alone, key=alone.__getitem__), "or the test would not tell"
    assert {module.path for module in s3lora.scan(out)} == {*SHAPES} - {largest}


def test_a_rule_that_simulates_low_ranks_does_not_apply_to_dora(dora: Path, base: str) -> None:
    with pytest.raises(SelectionError, match="full rank"):
        s3lora.select(s3lora.scan(dora, base_weights=base), s3lora.Null(draws=100))


@pytest.mark.parametrize("start", ["pissa", "olora"])
def test_what_is_initialised_from_the_base_is_measured_and_removed_truly(
    tmp_path: Path, base: str, start: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = make_adapter(tmp_path / "a", SHAPES, config={"init_lora_weights": start, "lora_alpha": 4})
    assert {module.of for module in s3lora.scan(path)} == {"B·A"}
    scan = s3lora.scan(path, "svd", base_weights=base)
    assert scan.true_updates
    assert not any(module.dense for module in scan)
    with s3lora.open_adapter(path) as adapter:
        for module in adapter.modules:
            weight = weights()[f"{module.path}.weight"].astype(float)
            product = slow.delta(module.A.array(), module.B.array(), 2.0)
            first = reference.pissa_start(weight, 2) if start == "pissa" else reference.olora_start(weight, 2, 2.0)
            expected = slow.singular_values(product - first)[:4]
            assert np.allclose(scan[module.path].sigma, expected, rtol=1e-9)
    refused = call(capsys, "prune", path, "-o", tmp_path / "no", "--top", "1")
    assert refused.status == 2
    assert "path_initial_model_for_weight_conversion" in refused.err
    zeroed = call(capsys, "prune", path, "-o", tmp_path / "no", "--top", "1", "--mode", "zero", "--base-weights", base)
    assert zeroed.status == 2
    assert "wrong base" in zeroed.err
    done = call(capsys, "prune", path, "-o", tmp_path / "out", "--top", "1", "--base-weights", base)
    assert done.status == 0, done.err
    (gone,) = {*SHAPES} - {module.path for module in s3lora.scan(tmp_path / "out")}
    written = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert gone.rpartition(".")[2] not in written["target_modules"]


@pytest.mark.parametrize("start", ["pissa_niter_4", "corda", "loftq", "lora_ga"])
def test_what_began_with_something_unknown_is_refused_also_with_the_base(
    tmp_path: Path, base: str, start: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = make_adapter(tmp_path / "a", SHAPES, config={"init_lora_weights": start})
    scan = s3lora.scan(path, base_weights=base)
    assert {module.of for module in scan} == {"B·A"}
    assert not scan.true_updates
    assert any("is not known" in note for note in scan.warnings)
    refused = call(capsys, "prune", path, "-o", tmp_path / "no", "--top", "1", "--base-weights", base)
    assert refused.status == 2
    fix = "PEFT has no conversion for it" if start == "loftq" else "path_initial_model_for_weight_conversion"
    assert fix in refused.err


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="only Linux tells which files are open")
def test_the_base_is_not_kept_open_for_every_adapter(tmp_path: Path, base: str) -> None:
    paths = [dora_adapter(tmp_path / f"a{i}", seed=i) for i in range(6)]
    opened: list[int] = []

    def count(_: str) -> None:
        links = [f"/proc/self/fd/{n}" for n in os.listdir("/proc/self/fd")]
        opened.append(sum(os.path.realpath(link).startswith(base) for link in links))

    s3lora.compare(paths, "svd", base_weights=base, progress=count)
    assert len(opened) == len(paths)
    assert 0 < max(opened) <= 3, "of the first, the one before and the one that is measured"


def test_comparing_dora_is_comparing_true_updates(tmp_path: Path, base: str) -> None:
    first, second = dora_adapter(tmp_path / "one"), dora_adapter(tmp_path / "two", seed=5)
    found = s3lora.compare([first, second, first], "svd", base_weights=base)
    one, two = exact(first), exact(second)
    for module in found:
        a, b = one[module.path], two[module.path]
        assert module.frobenius == pytest.approx([np.linalg.norm(x) for x in (a, b, a)])
        assert module.distance[0] == pytest.approx(np.linalg.norm(b - a) / np.linalg.norm(a))
        assert module.cosine[0] == pytest.approx(np.sum(a * b) / np.linalg.norm(a) / np.linalg.norm(b))
        assert module.net_distance == 0.0
        assert module.net_cosine == pytest.approx(1.0)


def test_whole_weights_are_differences_to_the_base(tmp_path: Path, base: str) -> None:
    generator = np.random.default_rng(9)
    head = weights()["lm_head.weight"] + 0.1 * generator.normal(size=(30, 12)).astype(np.float32)
    norm = np.full(12, 1.5, np.float32)
    heads = {
        "lm_head.weight": head,
        "model.norm.weight": norm,
        f"{DOWN}.base_layer.weight": weights()[f"{DOWN}.weight"],
        "score.weight": np.ones((2, 12), np.float32),
        "model.embed_tokens.weight": np.full((30, 12), np.nan, np.float32),
    }
    path = make_adapter(tmp_path / "a", {Q: SHAPES[Q]}, heads=heads, config={"modules_to_save": ["lm_head", "score"]})
    scan = s3lora.scan(path, base_weights=base)
    assert scan.base is not None
    found = {one.name.removeprefix("base_model.model."): one for one in scan.base.weights}
    assert set(found) == set(heads)
    change = head.astype(float) - weights()["lm_head.weight"].astype(float)
    one = found["lm_head.weight"]
    assert np.allclose(one.sigma, slow.singular_values(change)[:16])
    assert one.relative == pytest.approx(np.linalg.norm(change) / np.linalg.norm(weights()["lm_head.weight"]))
    assert one.stable_rank == pytest.approx(slow.stable_rank(change))
    assert found["model.norm.weight"].relative == pytest.approx(0.5)
    assert found["model.norm.weight"].sigma == ()
    same = found[f"{DOWN}.base_layer.weight"]
    assert (same.frobenius, same.sigma, same.weight) == (0.0, (), f"{DOWN}.weight")
    assert found["score.weight"].note == "the base has no weight of this name"
    assert found["model.embed_tokens.weight"].relative is None


def test_kohyas_differences_are_measured_as_they_are(tmp_path: Path) -> None:
    generator = np.random.default_rng(1)
    a, b = generator.normal(size=(2, 6)).astype(np.float32), generator.normal(size=(5, 2)).astype(np.float32)
    diff = generator.normal(size=(4, 3, 2, 2)).astype(np.float32)
    names = {"lora_unet_mid_q.lora_down.weight": a, "lora_unet_mid_q.lora_up.weight": b,
             "lora_unet_mid_q.alpha": np.float32(2), "lora_unet_conv_in.diff": diff}  # fmt: skip
    path = write_safetensors(tmp_path / "a.safetensors", names)
    kept = {"mid.q.weight": generator.normal(size=(5, 6)).astype(np.float32),
            "conv_in.weight": generator.normal(size=(4, 3, 2, 2)).astype(np.float32)}  # fmt: skip
    scan = s3lora.scan(path, base_weights=model_folder(tmp_path / "base", kept))
    assert scan.base is not None
    (one,) = scan.base.weights
    assert one.weight == "conv_in.weight"
    assert np.allclose(one.sigma, slow.singular_values(diff.reshape(4, -1).astype(float)))
    assert scan.base.modules[0].weight == "mid.q.weight"


def test_what_the_base_lacks_is_said_and_another_base_is_refused(tmp_path: Path) -> None:
    path = make_adapter(tmp_path / "a", SHAPES)
    part = {name: value for name, value in weights().items() if not name.startswith(V)}
    scan = s3lora.scan(path, base_weights=model_folder(tmp_path / "part", part))
    assert scan.base is not None
    assert scan.base.missing == (V,)
    assert len(scan.base.modules) == 2
    assert any("1 of 3 modules have no weight in part" in note and V in note for note in scan.warnings)
    with pytest.raises(UnsupportedAdapterError, match="no weight of this name"):
        s3lora.scan(path, base_weights=model_folder(tmp_path / "other", {"x.weight": np.ones((2, 2), np.float32)}))
    with pytest.raises(ModelError):
        s3lora.scan(path, base_weights=tmp_path / "nothing")
    with pytest.raises(UsageError, match="base_weights"):
        s3lora.scan(path, intruders=True)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "float8_e4m3fn"])
def test_quantised_weights_are_refused_by_what_the_configuration_says(tmp_path: Path, dtype: str) -> None:
    from tests.support import dtype_of

    path = make_adapter(tmp_path / "a", {Q: SHAPES[Q]})
    quantised = {f"{Q}.weight": np.ones((12, 12)).astype(dtype_of(dtype))}
    how = {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}
    folder = model_folder(tmp_path / "base", quantised, **how)
    with pytest.raises(UnsupportedAdapterError, match=r"quantised \(bitsandbytes, 4 bit\); give the model in bfloat16"):
        s3lora.scan(path, base_weights=folder)
    packed = model_folder(tmp_path / "gptq", {f"{Q}.qweight": np.ones((2, 12), np.int32)},
                          quantization_config={"quant_method": "gptq", "bits": 4})  # fmt: skip
    with pytest.raises(UnsupportedAdapterError, match=r"quantised \(gptq, 4 bit\)"):
        s3lora.scan(path, base_weights=packed)


def test_a_base_with_nan_is_an_error_that_names_the_module(tmp_path: Path) -> None:
    damaged = weights()
    damaged[f"{V}.weight"][0, 0] = np.nan
    path = make_adapter(tmp_path / "a", SHAPES)
    with pytest.raises(NonFiniteError, match=r"v_proj .8 × 12.: its weight holds NaN"):
        s3lora.scan(path, base_weights=model_folder(tmp_path / "base", damaged))


def test_magnitudes_with_nan_are_counted_with_nonfinite(tmp_path: Path, base: str) -> None:
    bad = np.full(12, np.nan, np.float32)
    path = dora_adapter(tmp_path / "bad", **{f"{Q}.lora_magnitude_vector": bad})
    with pytest.raises(NonFiniteError, match="magnitudes"):
        s3lora.scan(path, base_weights=base)
    scan = s3lora.scan(path, base_weights=base, nonfinite=True)
    assert scan[Q].nonfinite
    assert not scan[V].nonfinite


def test_the_cost_is_estimated_before(dora: Path, base: str) -> None:
    with s3lora.open_adapter(dora) as adapter:
        enough = scan_cost(adapter.modules, [Configuration()]).operations + 1
    s3lora.scan(dora, max_cost=enough)
    with pytest.raises(CostError):
        s3lora.scan(dora, base_weights=base, intruders=True, max_cost=enough)


def test_every_format_shows_it(dora: Path, base: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = ("scan", dora, "--base-weights", base, "--intruders")
    text = " ".join(call(capsys, *command).out.split())
    for words in (
        "Base weights read from base",
        "beside base ‖ΔW‖ is",
        "exact ΔW 3 of 3 modules as whole matrices",
        "intruders",
    ):
        assert words in text
    document = json.loads(call(capsys, *command, "--format", "json").out)
    assert {module["of"] for module in document["modules"]} == {"ΔW"}
    assert document["base"]["name"] == "base"
    assert len(document["base"]["modules"]) == 3
    assert base not in json.dumps(document), "no absolute path in a result"
    head, *rows = call(capsys, *command, "--format", "csv").out.splitlines()
    assert head.endswith("sigma,of,sigma_error,relative,relative_spectral,intruders")
    assert len(rows) == 3
    assert "beside base" in call(capsys, *command, "--format", "html").out
    assert call(capsys, "scan", dora, "--intruders").status == 2


def test_equal_inputs_give_equal_bytes(dora: Path, base: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = ("scan", dora, "--base-weights", base, "--intruders", "--format", "json")
    assert call(capsys, *command).out == call(capsys, *command).out
