"""Real PEFT: pruned adapters load without a warning, and compute what the full one does without those modules."""

from __future__ import annotations

import json
import pickle
import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

import s3lora
from s3lora import Clip, Mode, Scale, Zero
from tests.peft_models import (
    difference,
    filled,
    layers,
    llama,
    load,
    logits,
    save,
    torch,
    warnings_as_errors,
    without,
)
from tests.planning import config_of, prune_to

TOLERANCE = 1e-5
Q0, V2 = "model.layers.0.self_attn.q_proj", "model.layers.2.self_attn.v_proj"
QV = {f"model.layers.{i}.self_attn.{p}_proj" for i in range(3) for p in "qv"}
TARGETS = {"target_modules": ["q_proj", "v_proj"]}


class Opened:
    """What makes a file when it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("full"), llama, **TARGETS)


@pytest.fixture(scope="module")
def pruned(full: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prune_to(full, tmp_path_factory.mktemp("pruned") / "out", [Q0, V2])


@pytest.fixture(scope="module")
def expected(full: Path) -> Any:
    return without(full, llama, [Q0, V2])


@pytest.mark.parametrize("low_cpu_mem_usage", [False, True])
def test_it_loads_and_computes(full: Path, pruned: Path, expected, low_cpu_mem_usage: bool):
    model = load(pruned, llama, low_cpu_mem_usage=low_cpu_mem_usage)
    assert layers(model) == QV - {Q0, V2}
    assert {parameter.device.type for parameter in model.parameters()} == {"cpu"}
    assert difference(logits(model), expected) < TOLERANCE
    assert difference(logits(model), logits(load(full, llama))) > 100 * TOLERANCE  # the test can see the difference


def test_it_opens_nothing_beside_configuration_and_weights(full: Path, tmp_path: Path):
    """So code, pickles and templates in the folder are run by others: docs/should-i-load.md says so."""
    folder = tmp_path / "adapter"
    shutil.copytree(full, folder)
    canary = tmp_path / "canary"
    (folder / "modeling.py").write_text(f"open({str(canary)!r}, 'w')")
    for name in ("training_args.bin", "tokenizer.pkl"):
        (folder / name).write_bytes(pickle.dumps(Opened(str(canary))))
    (folder / "chat_template.jinja").write_text("{{ x.__class__ }}")
    fields = {"auto_mapping": {"base_model_class": "Own", "parent_library": "modeling"}}
    (folder / "adapter_config.json").write_text(json.dumps(config_of(folder) | fields))
    opened: set[str] = set()
    watched = True

    def note(event: str, given: tuple[Any, ...]) -> None:
        if watched and event == "open" and str(given[0]).startswith(str(folder)):
            opened.add(Path(str(given[0])).name)

    sys.addaudithook(note)
    load(folder, llama)
    watched = False
    assert "adapter_config.json" in opened
    assert opened <= {"adapter_config.json", "adapter_model.safetensors"}
    assert not canary.exists()


def test_zeroing_lora_b_in_memory_is_the_same(full: Path, expected):
    model = load(full, llama)
    for path in (Q0, V2):
        model.base_model.model.get_submodule(path).lora_B["default"].weight.data.zero_()
    assert difference(logits(model), expected) < TOLERANCE


def test_it_merges(pruned: Path, expected):
    assert difference(logits(load(pruned, llama).merge_and_unload()), expected) < TOLERANCE


def test_saved_again_it_stays_pruned(pruned: Path, expected, tmp_path: Path):
    with warnings_as_errors():
        load(pruned, llama).save_pretrained(tmp_path)
    again = load(tmp_path, llama)
    assert layers(again) == QV - {Q0, V2}
    assert difference(logits(again), expected) < TOLERANCE


def test_transformers_loads_it(pruned: Path, expected):
    model = llama()
    with warnings_as_errors():
        report = model.load_adapter(str(pruned))
    assert not report.missing_keys
    assert not report.unexpected_keys
    assert layers(model) == QV - {Q0, V2}
    assert difference(logits(model), expected) < TOLERANCE


def test_it_is_hot_swapped_into_the_full_one(full: Path, pruned: Path, expected):
    from peft.utils.hotswap import hotswap_adapter

    model = load(full, llama)
    hotswap_adapter(model, str(pruned), adapter_name="default")
    assert difference(logits(model), expected) < TOLERANCE
    with pytest.raises(RuntimeError):
        hotswap_adapter(load(pruned, llama), str(full), adapter_name="default")


def test_a_second_adapter_beside_the_full_one(full: Path, pruned: Path, expected):
    model = load(full, llama)
    with warnings_as_errors():
        model.load_adapter(str(pruned), adapter_name="pruned")
    model.set_adapter("pruned")
    assert difference(logits(model), expected) < TOLERANCE


def test_a_projection_that_is_gone(full: Path, tmp_path: Path):
    gone = sorted(path for path in QV if path.endswith("q_proj"))
    out = prune_to(full, tmp_path / "out", gone)
    assert config_of(out)["target_modules"] == ["v_proj"]
    for low in (False, True):
        model = load(out, llama, low_cpu_mem_usage=low)
        assert layers(model) == QV - set(gone)
        assert difference(logits(model), without(full, llama, gone)) < TOLERANCE


def test_tensors_dropped_without_the_configuration_are_wrong(full: Path, pruned: Path, tmp_path: Path):
    """Why the configuration is changed at all: PEFT warns, or leaves parameters without values."""
    (tmp_path / "adapter_config.json").write_bytes((full / "adapter_config.json").read_bytes())
    (tmp_path / "adapter_model.safetensors").write_bytes((pruned / "adapter_model.safetensors").read_bytes())
    with pytest.raises(UserWarning, match="missing adapter keys"):
        load(tmp_path, llama)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from peft import PeftModel

        model = PeftModel.from_pretrained(llama(), tmp_path, low_cpu_mem_usage=True)
    assert "meta" in {parameter.device.type for parameter in model.parameters()}


@pytest.mark.parametrize("mode", [Zero(), Clip(2), Scale(0.5)])
def test_other_modes(full: Path, tmp_path: Path, mode: Mode):
    model = load(prune_to(full, tmp_path / "out", [Q0], mode), llama)
    assert layers(model) == QV
    layer = model.base_model.model.get_submodule(Q0)
    before = load(full, llama).base_model.model.get_submodule(Q0).get_delta_weight("default").double()
    after = layer.get_delta_weight("default").double()
    u, sigma, vt = torch.linalg.svd(before, full_matrices=False)
    wanted = {"zero": 0 * sigma, "clip": sigma.clamp(max=float(sigma[1])), "scale": sigma / 2}[mode.name]
    assert difference(after, (u * wanted) @ vt) < 1e-6
    if mode.name == "zero":
        assert difference(logits(model), without(full, llama, [Q0])) < TOLERANCE


@pytest.mark.parametrize("loader", ["peft", "vllm", "llamacpp"])
def test_baked_scalings_are_the_same_in_peft(tmp_path: Path, loader):
    config = {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"layers.1.self_attn.v_proj": 5}, "use_rslora": True}
    full = save(tmp_path / "full", llama, **TARGETS, **config)
    fields = config_of(full) | {"base_model_name_or_path": "some/model"}
    (full / "adapter_config.json").write_text(json.dumps(fields))
    out = prune_to(full, tmp_path / "out", [Q0], bake=True, loader=loader)
    assert config_of(out)["use_rslora"] is False
    assert difference(logits(load(out, llama)), without(full, llama, [Q0])) < TOLERANCE


def test_a_model_in_memory_scans_like_its_folder(tmp_path: Path):
    config = {"target_modules": ["q_proj", "down_proj", "embed_tokens"], "rank_pattern": {"q_proj": 2}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = filled(llama, **config, use_rslora=True, alpha_pattern={"down_proj": 3})
        model.save_pretrained(tmp_path)
    saved, memory = s3lora.scan(tmp_path), s3lora.scan(model)
    assert [module.path for module in memory.modules] == [module.path for module in saved.modules]
    for a, b in zip(memory.modules, saved.modules, strict=True):
        assert (a.shape, a.rank, a.kind, a.layer, a.projection) == (b.shape, b.rank, b.kind, b.layer, b.projection)
        assert a.scaling == pytest.approx(b.scaling)
        assert a.sigma == pytest.approx(b.sigma)
        assert a.indices == pytest.approx(b.indices)
    chosen = s3lora.select(memory, s3lora.Top(3)).paths
    assert chosen == s3lora.select(saved, s3lora.Top(3)).paths


def test_a_model_of_transformers_scans_too(full: Path):
    model = llama()
    model.load_adapter(str(full))
    with warnings_as_errors():
        memory = s3lora.scan(model)
    saved = s3lora.scan(full)
    assert [(m.path, m.indices) for m in memory.modules] == [(m.path, m.indices) for m in saved.modules]
    with pytest.raises(s3lora.NothingToAuditError):
        s3lora.scan(llama())


def test_bfloat16_and_one_of_two_adapters_in_memory(full: Path, tmp_path: Path):
    model = load(full, llama)
    other = save(tmp_path / "other", llama, **TARGETS, use_rslora=True)
    model.load_adapter(str(other), adapter_name="other")
    model.set_adapter("other")
    assert s3lora.scan(model)[Q0].scaling == pytest.approx(4.0)
    model.set_adapter("default")
    assert s3lora.scan(model)[Q0].scaling == pytest.approx(2.0)
    half = model.to(torch.bfloat16)
    assert s3lora.scan(half)[Q0].indices["ssi"] == pytest.approx(s3lora.scan(full)[Q0].indices["ssi"], abs=0.01)


def test_scanning_and_pruning_import_no_torch(full: Path, tmp_path: Path):
    code = """
import sys
import s3lora
with s3lora.open_adapter(sys.argv[1]) as adapter:
    scan = s3lora.scan(adapter)
    s3lora.write_pruned(s3lora.prune(adapter, s3lora.select(scan)), scan, sys.argv[2])
s3lora.restore(sys.argv[2], sys.argv[1], sys.argv[3])
s3lora.compare(sys.argv[1:3])
heavy = {"torch", "transformers", "peft", "ray", "pyarrow", "resvg_py", "safetensors"}
print(sorted(heavy & sys.modules.keys()))
"""
    arguments = [str(full), str(tmp_path / "out"), str(tmp_path / "back")]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("[]\n", "")
