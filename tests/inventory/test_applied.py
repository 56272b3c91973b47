"""Modules that stand in a file and that PEFT does not apply: PEFT says which, and each kind is told in words."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from s3lora.adapter.inventory.inventory import inventory_of
from s3lora.adapter.inventory.model import Inventory
from s3lora.adapter.open import open_adapter
from tests.support import factors, make_adapter, write_safetensors

PREFIX = "base_model.model."
WIDTH, RANK = 8, 2
PATHS = [
    *(
        f"model.layers.{i}.{name}"
        for i in range(3)
        for name in ("self_attn.q_proj", "self_attn.v_proj", "mlp.down_proj")
    ),
    "lm_head",
]
SHAPES = dict.fromkeys(PATHS, (WIDTH, WIDTH, RANK))


def inventory(folder: Path) -> Inventory:
    with open_adapter(folder) as adapter:
        return inventory_of(adapter)


def renamed(folder: Path, rename: Callable[[str], str]) -> Path:
    """Give the tensors of an adapter other names."""
    tensors = {}
    for i, (path, (m, n, r)) in enumerate(SHAPES.items()):
        a, b = factors(m, n, r, seed=i)
        tensors[rename(f"{PREFIX}{path}.lora_A.weight")] = a
        tensors[rename(f"{PREFIX}{path}.lora_B.weight")] = b
    write_safetensors(folder / "adapter_model.safetensors", tensors, {"format": "pt"})
    return folder


def replaced(old: str, new: str) -> Callable[[str], str]:
    return lambda name: name.replace(old, new, 1)


def within(name: str) -> Callable[[str], str]:
    """Put the name of a wrapper before the attention of every layer."""
    return lambda key: re.sub(r"(layers\.\d+\.)", rf"\1{name}.", key)


KEYS: dict[str, Callable[[str], str]] = {
    "as saved": lambda name: name,
    "with an adapter's name": lambda name: name.replace(".weight", ".default.weight"),
    "with another adapter's name": lambda name: name.replace(".weight", ".second.weight"),
    "with the end of an embedding": lambda name: name.removesuffix(".weight"),
    "torch.compile in front": lambda name: f"_orig_mod.{name}",
    "torch.compile in the middle": within("_orig_mod"),
    "torch.compile after the prefix": replaced(PREFIX, f"{PREFIX}_orig_mod."),
    "torch.compile within the prefix": replaced("base_model.", "base_model._orig_mod."),
    "DDP": lambda name: f"module.{name}",
    "DDP and torch.compile": lambda name: f"module._orig_mod.{name}",
    "FSDP in the middle": within("_fsdp_wrapped_module"),
    "FSDP in front": lambda name: f"_fsdp_wrapped_module.{name}",
    "checkpointing": within("_checkpoint_wrapped_module"),
    "the prefix twice": lambda name: PREFIX + name,
    "no prefix": lambda name: name.removeprefix(PREFIX),
    "the other half": replaced(PREFIX, "model."),
    "one layer wrapped": lambda name: name.replace("layers.1.", "layers.1._orig_mod."),
    "one layer bare": lambda name: name.removeprefix(PREFIX) if "layers.2." in name else name,
}
#: Of a task, PEFT wants a model of transformers.
NO_TASK = {"task_type": None}
CONFIGS: dict[str, Mapping[str, Any]] = {
    "names": {"target_modules": ["q_proj", "v_proj", "down_proj", "lm_head"]},
    "two of the names": {"target_modules": ["q_proj", "down_proj"]},
    "whole paths": {"target_modules": PATHS[:4]},
    "ends of paths": {"target_modules": ["self_attn.q_proj", "1.mlp.down_proj"]},
    "a part of a name": {"target_modules": ["proj", "q_proj"]},
    "an expression": {"target_modules": r".*\.(q|v)_proj"},
    "an expression for a layer": {"target_modules": r"model\.layers\.[01]\..*_proj"},
    "an expression for a part": {"target_modules": "q_proj|lm_head"},
    "all linear": {"target_modules": "all-linear"},
    "ALL linear": {"target_modules": "All-Linear"},
    "excluded names": {"exclude_modules": ["down_proj"]},
    "excluded paths": {"exclude_modules": ["model.layers.0.self_attn.q_proj", "1.self_attn.v_proj"]},
    "an excluded expression": {"exclude_modules": r".*layers\.2.*"},
    "excluded of all linear": {"target_modules": "all-linear", "exclude_modules": ["down_proj"]},
    "one layer": {"layers_to_transform": 1},
    "layers": {"layers_to_transform": [0, 2]},
    "no layers": {"layers_to_transform": []},
    "layers of a pattern": {"layers_to_transform": [0], "layers_pattern": "layers"},
    "layers of patterns": {"layers_to_transform": [0], "layers_pattern": ["blocks", "layers"]},
    "layers of another pattern": {"layers_to_transform": [0], "layers_pattern": ["blocks"]},
    "a path besides layers": {"layers_to_transform": [0], "target_modules": ["q_proj", "model.layers.1.mlp.down_proj"]},
    "saved in full": {"modules_to_save": ["lm_head"]},
    "saved in full above": {"modules_to_save": ["mlp"]},
    "saved in full by an expression": {"modules_to_save": ["self_attn.[qv]_proj"]},
}


def model() -> Any:
    """Return a model of plain layers with the paths `PATHS`."""
    torch = pytest.importorskip("torch")

    class Part(torch.nn.Module):  # type: ignore[misc,name-defined]
        def __init__(self, **parts: Any) -> None:
            super().__init__()
            for name, part in parts.items():
                self.add_module(name, part)

    def linear() -> Any:
        return torch.nn.Linear(WIDTH, WIDTH, bias=False)

    def layer() -> Any:
        return Part(self_attn=Part(q_proj=linear(), v_proj=linear()), mlp=Part(down_proj=linear()))

    return Part(model=Part(layers=torch.nn.ModuleList([layer() for _ in range(3)])), lm_head=linear())


def arrived(folder: Path) -> set[str]:
    """Return the paths of the modules whose factors PEFT really loads; none where it stops."""
    peft = pytest.importorskip("peft")
    from safetensors.numpy import load_file

    stored = [values for name, values in load_file(folder / "adapter_model.safetensors").items() if "lora_B" in name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loaded = peft.PeftModel.from_pretrained(model(), folder)
    found = {
        name.removeprefix(PREFIX).removesuffix(".lora_B.default.weight")
        for name, values in loaded.named_parameters()
        if "lora_B" in name and any(np.array_equal(values.detach().numpy(), one) for one in stored)
    }
    assert found <= set(PATHS)
    return found


def told(folder: Path) -> set[str]:
    """Return the paths of the modules that are not said to be dead."""
    found = inventory(folder)
    assert all(one.cause and one.remedy for one in found.unapplied)
    with open_adapter(folder) as adapter:
        return {module.path for module in adapter.modules} - set(found.dead)


@pytest.mark.parametrize("name", KEYS)
def test_keys(name: str, tmp_path: Path) -> None:
    folder = renamed(make_adapter(tmp_path, SHAPES, config=NO_TASK), KEYS[name])
    assert told(folder) == arrived(folder)


@pytest.mark.parametrize("name", ["", "module.", "inner."])
def test_what_the_base_model_alone_knows_is_not_claimed(name: str, tmp_path: Path) -> None:
    """There are models with a part called `module`, and models that are called by other names than these."""
    rename = replaced(f"{PREFIX}model.", f"{PREFIX}{name}")
    assert inventory(renamed(make_adapter(tmp_path, SHAPES), rename)).unapplied == ()


@pytest.mark.parametrize("name", CONFIGS)
def test_configurations(name: str, tmp_path: Path) -> None:
    folder = make_adapter(tmp_path, SHAPES, config={**NO_TASK, **CONFIGS[name]})
    if "modules_to_save" in CONFIGS[name]:
        pytest.importorskip("peft")
        config = json.loads((folder / "adapter_config.json").read_text())
        from peft import LoraConfig
        from peft.tuners.tuners_utils import check_target_module_exists

        asked = LoraConfig(**{key: config[key] for key in ("target_modules", "modules_to_save")})
        assert told(folder) == {path for path in PATHS if check_target_module_exists(asked, path) is True}
        return
    base_decides = {"lm_head"} if str(CONFIGS[name].get("target_modules")).lower() == "all-linear" else set()
    assert told(folder) - base_decides == arrived(folder) - base_decides


def kinds(folder: Path) -> dict[str, tuple[str, ...]]:
    return {one.kind: one.modules for one in inventory(folder).unapplied}


def test_a_wrapper_is_named_with_what_puts_it_there(tmp_path: Path) -> None:
    for name, words in (
        ("torch.compile in front", ("`_orig_mod`", "torch.compile")),
        ("DDP", ("`module`", "DDP")),
        ("FSDP in the middle", ("`_fsdp_wrapped_module`", "FSDP")),
        ("checkpointing", ("`_checkpoint_wrapped_module`", "activation checkpointing")),
        ("the prefix twice", ("`base_model.model`", "wrapped twice")),
        ("DDP and torch.compile", ("`module`, `_orig_mod`", "DDP or DataParallel and torch.compile")),
        ("no prefix", ("lack `base_model.model.`", "PEFT finds no such module")),
    ):
        (one,) = inventory(renamed(make_adapter(tmp_path / name, SHAPES), KEYS[name])).unapplied
        assert one.kind == "prefix"
        assert one.dead
        assert all(word in one.cause for word in words), (name, one.cause)
        assert "prune" in one.remedy


def test_without_a_configuration_of_peft_a_missing_prefix_says_nothing(tmp_path: Path) -> None:
    folder = renamed(make_adapter(tmp_path, SHAPES), KEYS["no prefix"])
    (folder / "adapter_config.json").unlink()
    assert inventory(folder).unapplied == ()
    renamed(folder, KEYS["torch.compile in front"])
    assert set(kinds(folder)) == {"prefix"}, "a wrapper is one whatever the configuration"


def test_names_without_tensors(tmp_path: Path) -> None:
    targets = [*sorted({path.rpartition(".")[2] for path in PATHS}), "k_proj", "embed_tokens", "score"]
    config = {"target_modules": targets, "modules_to_save": ["score"], "exclude_modules": ["model.embed_tokens"]}
    (one,) = inventory(make_adapter(tmp_path / "a", SHAPES, config=config)).unapplied
    assert (one.kind, one.modules, one.dead) == ("untrained", ("k_proj",), False)


HOSTILE: list[Mapping[str, Any]] = [
    {"target_modules": 3},
    {"target_modules": {"a": 1}},
    {"target_modules": [3, None, ["q_proj"]]},
    {"target_modules": []},
    {"target_modules": ""},
    {"exclude_modules": 3},
    {"exclude_modules": [None, 3]},
    {"layers_to_transform": "1"},
    {"layers_to_transform": {"0": 1}},
    {"layers_to_transform": [None, "x"]},
    {"layers_to_transform": [0], "layers_pattern": 3},
    {"layers_to_transform": [0], "layers_pattern": [None, "(a+)+$"]},
    {"modules_to_save": [3, None, ["x"]]},
    {"modules_to_save": "q_proj"},
    {"target_parameters": [3, None, "x" * 10_000]},
    {"target_parameters": "experts"},
    {"target_modules": ["q_proj"] * 10_000},
]


@pytest.mark.parametrize("config", HOSTILE, ids=[json.dumps(config)[:60] for config in HOSTILE])
def test_configurations_that_nothing_wrote(config: Mapping[str, Any], tmp_path: Path) -> None:
    found = inventory(make_adapter(tmp_path, SHAPES, config=config))
    named = config.get("target_modules")
    known = {*PATHS, *(map(str, named) if isinstance(named, list) else ())}
    assert all(set(one.modules) <= known for one in found.unapplied)


@pytest.mark.parametrize(
    "config",
    [
        {"target_modules": "(" * 100},
        {"target_modules": r"(a)\1"},
        {"exclude_modules": "["},
        {"modules_to_save": ["("]},
        {"layers_to_transform": [0], "layers_pattern": ["("]},
        {"modules_to_save": [f"a{i}|b" for i in range(1000)]},
    ],
)
def test_an_expression_that_cannot_be_tried_is_told(config: Mapping[str, Any], tmp_path: Path) -> None:
    (one,) = inventory(make_adapter(tmp_path, SHAPES, config=config)).unapplied
    assert (one.kind, one.modules, one.dead) == ("not known", (), False)
    assert "which modules PEFT builds is not known" in one.cause
    assert one.cause.isprintable()
    assert len(one.cause) < 300


def test_empty_tensors(tmp_path: Path) -> None:
    empty = {"lm_head.weight": np.zeros((0,), np.float32), "model.norm.weight": np.zeros((3, 0), np.float32)}
    folder = make_adapter(tmp_path, {"model.layers.0.self_attn.q_proj": (8, 8, 2)}, heads=empty)
    (one,) = inventory(folder).unapplied
    assert (one.kind, one.dead) == ("empty", True)
    assert set(one.modules) == {PREFIX + name for name in empty}
    assert "ZeRO-3" in one.cause
    assert "gather" in one.remedy


@pytest.mark.parametrize("value", [False, 0, None, "", []])
def test_what_peft_fills_at_random(value: Any, tmp_path: Path) -> None:
    config = {"init_lora_weights": value, "target_modules": ["q_proj", "v_proj", "down_proj", "lm_head"]}
    assert inventory(make_adapter(tmp_path / "whole", SHAPES, config=config)).unapplied == ()
    lost = "model.layers.1.mlp.down_proj"
    some = {path: shape for path, shape in SHAPES.items() if path != lost}
    (one,) = inventory(make_adapter(tmp_path / "some", some, config=config)).unapplied
    assert (one.kind, one.modules, one.dead) == ("incomplete", (lost,), True)
    left = {**config, "exclude_modules": [lost]}
    assert inventory(make_adapter(tmp_path / "left", some, config=left)).unapplied == ()
    more = {**config, "target_modules": [*config["target_modules"], "up_proj"]}
    (one,) = inventory(make_adapter(tmp_path / "more", SHAPES, config=more)).unapplied
    assert (one.kind, one.modules, one.dead) == ("untrained", ("up_proj",), True)
    biased = {**config, "lora_bias": True}
    (one,) = inventory(make_adapter(tmp_path / "biased", SHAPES, config=biased)).unapplied
    assert (one.kind, set(one.modules)) == ("incomplete", set(PATHS))
    far = {**SHAPES, "model.layers.999999999.mlp.down_proj": (WIDTH, WIDTH, RANK)}
    (one,) = inventory(make_adapter(tmp_path / "far", far, config=config)).unapplied
    assert "model.layers.*.mlp.down_proj" in one.modules


def test_dora_without_magnitudes(tmp_path: Path) -> None:
    """PEFT takes those of the base weights, and the model computes something else than with B·A added."""
    torch = pytest.importorskip("torch")
    peft = pytest.importorskip("peft")
    folder = make_adapter(tmp_path, SHAPES, config={**NO_TASK, "use_dora": True})
    (one,) = inventory(folder).unapplied
    assert (one.kind, set(one.modules), one.dead) == ("incomplete", set(PATHS), True)
    torch.manual_seed(0)
    base = model()
    before = base.lm_head.weight.detach().clone()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        merged = peft.PeftModel.from_pretrained(base, folder).merge_and_unload()
    with open_adapter(folder) as adapter:
        module = next(one for one in adapter.modules if one.path == "lm_head")
        update = module.scaling.value * module.B.array() @ module.A.array()
    assert not np.allclose((merged.lm_head.weight - before).detach().numpy(), update, atol=1e-3)


def test_tensors_where_peft_does_not_look(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file

    file = make_adapter(tmp_path, SHAPES, config=NO_TASK) / "adapter_model.safetensors"
    torch.save({"state_dict": load_file(file)}, tmp_path / "adapter_model.bin")
    file.unlink()
    (one,) = inventory(tmp_path).unapplied
    assert (one.kind, set(one.modules), one.dead) == ("name", set(PATHS), True)
    torch.save(torch.load(tmp_path / "adapter_model.bin")["state_dict"], tmp_path / "adapter_model.bin")
    assert inventory(tmp_path).unapplied == ()


def test_one_ranks_slice(tmp_path: Path) -> None:
    halves = {path: (4 if ".1." in path else 8, 8, 2) for path in PATHS}
    (one,) = inventory(make_adapter(tmp_path / "a", halves)).unapplied
    assert (one.kind, one.dead) == ("slice", True)
    assert set(one.modules) == {path for path in PATHS if ".1." in path}
    assert "one rank" in one.cause
    assert "gather" in one.remedy


@pytest.mark.parametrize(
    "shapes",
    [
        {f"model.layers.{i}.self_attn.q_proj": (8 * (i % 2 + 1), 8 * (i % 2 + 1), 2) for i in range(4)},
        {f"down.{i}.attn.to_q": (8 << i, 8 << i, 2) for i in range(3)},
        {f"model.layers.{i}.{name}": (8 if name == "q" or i else 4, 8, 2) for i in range(3) for name in ("q", "k")},
        {f"model.layers.{i}.q": ((24, 16, 20)[i], 8, 2) for i in range(3)},
    ],
    ids=["layers of two sizes", "a U-Net", "grouped queries in one layer", "no whole fraction"],
)
def test_models_whose_layers_differ_are_no_slices(shapes: dict[str, Any], tmp_path: Path) -> None:
    assert inventory(make_adapter(tmp_path, shapes)).unapplied == ()


def fused(folder: Path, **config: Any) -> Path:
    """Write an adapter of fused experts as PEFT saves them, of two parameters, and of one plain projection."""
    tensors = {}
    place = f"{PREFIX}model.layers.0.mlp.experts"
    for i, (name, m, n) in enumerate((("base_layer.", 8, 16), ("", 16, 8))):
        a, b = factors(m, n, 2 * 4, seed=i)
        tensors[f"{place}.{name}lora_A.weight"], tensors[f"{place}.{name}lora_B.weight"] = a, b
    a, b = factors(8, 8, 2, seed=9)
    tensors[f"{PREFIX}model.layers.0.self_attn.q_proj.lora_A.weight"] = a
    tensors[f"{PREFIX}model.layers.0.self_attn.q_proj.lora_B.weight"] = b
    make_adapter(folder, {"model.layers.0.self_attn.q_proj": (8, 8, 2)}, config=config)
    write_safetensors(folder / "adapter_model.safetensors", tensors, {"format": "pt"})
    return folder


NAMED = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]


def test_fused_experts_without_their_parameters(tmp_path: Path) -> None:
    (one,) = inventory(fused(tmp_path / "a")).unapplied
    assert (one.kind, one.dead) == ("no target_parameters", True)
    assert all("experts" in path for path in one.modules)
    assert "target_parameters" in one.remedy
    assert inventory(fused(tmp_path / "b", target_parameters=NAMED)).unapplied == ()
    with open_adapter(tmp_path / "b") as adapter:
        assert {module.group is None for module in adapter.modules} == {True, False}


def test_target_parameters_alone_build_no_other_module(tmp_path: Path) -> None:
    folder = fused(tmp_path, target_parameters=NAMED, target_modules=None)
    assert kinds(folder) == {"not targeted": ("model.layers.0.self_attn.q_proj",)}
