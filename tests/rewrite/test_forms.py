"""Updates that are no pair of factors: pruned in every mode that they have, restored, compared and added up."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from s3lora import (
    Clip,
    Mode,
    Remove,
    Scale,
    UnsupportedAdapterError,
    UsageError,
    Zero,
    compare,
    compose,
    open_adapter,
    restore,
    scan,
)
from s3lora.adapter.inventory.inventory import inventory_of
from s3lora.adapter.loaders import LOADERS
from s3lora.fleet.results.content import content_of
from s3lora.fleet.signature import signature
from tests.forms import PATHS, PREFIX, M, N, loha, lokr, lycoris_adapter, peft_adapter
from tests.planning import config_of, prune_to, tensors_of
from tests.reference.forms import update

FORMS = ("loha", "lokr", "lokr-whole", "adalora", "vera", "qalora")
SHARP = [PATHS[0], PATHS[3]]
FIXED = ("loha", "lokr", "lokr-whole", "vera")


def updates(folder: Path) -> dict[str, np.ndarray]:  # type: ignore[type-arg]
    stored = tensors_of(folder)
    there = [path for path in PATHS if any(path in name for name in stored)]
    return {path: update(stored, path, PREFIX) for path in there}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("mode", [Remove(), Zero(), Scale(0.25), Clip()], ids=lambda mode: mode.name)
def test_every_mode_that_makes_sense(tmp_path: Path, form: str, mode: Mode) -> None:
    source = peft_adapter(tmp_path / "a", form)
    before = updates(source)
    if isinstance(mode, Clip) and form in FIXED:
        with pytest.raises(UnsupportedAdapterError, match=r"is (LoHa|LoKr|VeRA), and no .* mode clip makes of it"):
            prune_to(source, tmp_path / "b", SHARP, mode)
        assert not (tmp_path / "b").exists()
        return
    out = prune_to(source, tmp_path / "b", SHARP, mode)
    after, old, new = updates(out), tensors_of(source), tensors_of(out)
    zeroed = isinstance(mode, Zero) or form == "vera"
    for path in PATHS:
        names = [name for name in old if name.startswith(f"{PREFIX}{path}.")]
        if path not in SHARP:
            assert all(np.array_equal(new[name], old[name]) for name in names)
            continue
        if isinstance(mode, Remove) and not zeroed:
            assert not any(name in new for name in names)
            continue
        assert {name: new[name].shape for name in names} == {name: old[name].shape for name in names}
        if isinstance(mode, Clip):
            left, sigma, right = np.linalg.svd(before[path], full_matrices=False)
            wanted = left * np.minimum(sigma, sigma[1]) @ right
        else:
            wanted = before[path] * (mode.factor if isinstance(mode, Scale) else 0.0)
        np.testing.assert_allclose(after[path], wanted, atol=1e-5 * np.abs(before[path]).max())
        changed = [name for name in names if not np.array_equal(new[name], old[name])]
        assert len(changed) == 1 or isinstance(mode, Clip), "the others are copied bit by bit"
    for name in ("base_model.vera_A", "base_model.vera_B"):
        assert name not in old or np.array_equal(old[name], new[name])
    assert restore(out, source, tmp_path / "c") == tuple(SHARP)
    for file in ("adapter_model.safetensors", "adapter_config.json"):
        assert (tmp_path / "c" / file).read_bytes() == (source / file).read_bytes()
    restore(out, source, tmp_path / "d", modules=SHARP[:1])
    half = updates(tmp_path / "d")
    assert np.array_equal(half[SHARP[0]], before[SHARP[0]])
    if SHARP[1] in after:
        assert np.array_equal(half[SHARP[1]], after[SHARP[1]])


def test_removed_modules_are_excluded_and_vera_stays_as_zeros(tmp_path: Path) -> None:
    for form in ("loha", "lokr", "adalora"):
        out = prune_to(peft_adapter(tmp_path / form, form), tmp_path / f"{form}-out", SHARP)
        assert config_of(out)["exclude_modules"] == SHARP
    out = prune_to(peft_adapter(tmp_path / "vera", "vera"), tmp_path / "vera-out", SHARP)
    assert "exclude_modules" not in config_of(out)
    record = json.loads((out / "s3lora.json").read_text())
    assert set(record["zeroed"].values()) == {"shares its projections, whose size PEFT takes from all layers"}
    assert [module.zero for module in scan(out)] == [path in SHARP for path in PATHS]


def test_what_adalora_keeps_of_a_removed_module_leaves_the_configuration(tmp_path: Path) -> None:
    left = {f"{path}.lora_E": [True, True, True, False] for path in PATHS}
    source = peft_adapter(tmp_path / "a", "adalora", rank_pattern=left)
    out = prune_to(source, tmp_path / "b", SHARP)
    assert set(config_of(out)["rank_pattern"]) == {f"{path}.lora_E" for path in PATHS[1:3]}


def test_lycoris_files(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    alpha = {"alpha": np.array(1.0)}
    modules = {
        "lora_unet_a": {**loha(random), **alpha},
        "lora_unet_b": {**lokr(random), **alpha},
        "lora_unet_c": {**loha(random, r=4, s=5), **alpha},  # as its whole matrix
        "lora_unet_d": {"lora_down.weight": random.normal(size=(2, N)), "lora_up.weight": random.normal(size=(M, 2))},
    }
    source = lycoris_adapter(tmp_path / "a", modules)
    before = {path: update(tensors_of(source), path) for path in modules}
    for mode, times in ((Zero(), 0.0), (Scale(0.5), 0.5)):
        out = prune_to(source, tmp_path / mode.name, ["lora_unet_a", "lora_unet_b", "lora_unet_c"], mode)
        stored = tensors_of(out)
        for path in modules:
            assert np.array_equal(update(stored, path), before[path] * (1.0 if path.endswith("d") else times)), path
    out = prune_to(source, tmp_path / "out", ["lora_unet_a", "lora_unet_b"])
    assert not any(name.startswith(("lora_unet_a", "lora_unet_b")) for name in tensors_of(out))
    with pytest.raises(UnsupportedAdapterError, match="lora_unet_c"):
        prune_to(source, tmp_path / "never", ["lora_unet_d", "lora_unet_c"], Clip())
    # What has fewer components than the mode asks for stays as it is.
    prune_to(source, tmp_path / "spared", ["lora_unet_d", "lora_unet_c"], Clip(component=13))


def test_scaling_is_baked_into_lora_only(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"needs LoRA, and .* is LoKr"):
        prune_to(peft_adapter(tmp_path / "a", "lokr"), tmp_path / "b", SHARP, bake=True)


@pytest.mark.parametrize("loader", [name for name, one in LOADERS.items() if one.writes and name != "peft"])
def test_other_loaders_read_lora_only(tmp_path: Path, loader: str) -> None:
    for form in FORMS:
        source = peft_adapter(tmp_path / form, form)
        with pytest.raises(
            UnsupportedAdapterError, match=f"{loader} cannot load this adapter: it is .*reads LoRA only"
        ):
            prune_to(source, tmp_path / "out", SHARP, loader=loader)


@pytest.mark.parametrize("form", FORMS)
def test_compared_with_each_other(tmp_path: Path, form: str) -> None:
    one, other = (peft_adapter(tmp_path / str(seed), form, seed=seed) for seed in (1, 2))
    first, second = updates(one), updates(other)
    for module in compare([one, other]):
        a, b = first[module.path], second[module.path]
        assert module.distance[0] == pytest.approx(np.linalg.norm(b - a) / np.linalg.norm(a), rel=1e-6)
        wanted = np.sum(a * b) / np.linalg.norm(a) / np.linalg.norm(b)
        assert module.cosine[0] == pytest.approx(wanted, rel=1e-6, abs=1e-9)
    assert {(m.distance, m.cosine) for m in compare([one, one])} == {((0.0,), (1.0,))}


def test_a_kronecker_product_compared_with_one_of_other_sizes(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    parts = lokr(random, None, None)
    other = {"lokr_w1": random.normal(size=(4, 5)), "lokr_w2": random.normal(size=(3, 4))}
    one = lycoris_adapter(tmp_path / "a", {"lora_unet_a": parts})
    two = lycoris_adapter(tmp_path / "b", {"lora_unet_a": other})
    a, b = (update(tensors_of(folder), "lora_unet_a") for folder in (one, two))
    (module,) = compare([one, two])
    assert module.distance[0] == pytest.approx(np.linalg.norm(b - a) / np.linalg.norm(a), rel=1e-6)


@pytest.mark.parametrize("form", FORMS)
def test_added_up(tmp_path: Path, form: str) -> None:
    one, other = (peft_adapter(tmp_path / str(seed), form, seed=seed) for seed in (1, 2))
    scaling = {module.path: module.scaling for module in scan(one)}
    first, second = updates(one), updates(other)
    for module in compose([one, other], [1.0, -0.5]):
        summed = scaling[module.path] * (first[module.path] - 0.5 * second[module.path])
        assert module.together is not None
        if form != "qalora":
            assert module.together.indices["frobenius"] == pytest.approx(np.linalg.norm(summed), rel=1e-6)


def test_the_digest_and_the_signature_know_the_form(tmp_path: Path) -> None:
    """A LoKr of two matrices is no LoRA of the same two."""
    random = np.random.default_rng(0)
    w1, w2 = random.normal(size=(6, 6)), random.normal(size=(6, 6))
    folders = [
        lycoris_adapter(tmp_path / "a", {"lora_unet_attn1_to_q": {"lokr_w1": w1, "lokr_w2": w2}}),
        lycoris_adapter(tmp_path / "b", {"lora_unet_attn1_to_q": {"lora_down.weight": w1, "lora_up.weight": w2}}),
    ]
    digests = set()
    for folder in folders:
        with open_adapter(folder) as adapter:
            digests.add(content_of(adapter).tensors)
            numbers = signature(adapter)
            matrix = update(tensors_of(folder), "lora_unet_attn1_to_q")
            assert numbers["q_sigma1"] == pytest.approx(np.linalg.svd(matrix, compute_uv=False)[0], rel=1e-6)
            assert not inventory_of(adapter).dead
    assert len(digests) == 2
