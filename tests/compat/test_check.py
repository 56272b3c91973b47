"""What a check says of adapters that a test made: every rule of every loader, and how modules stand to a base."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s3lora import Check, S3LoRAError, UsageError, check, open_adapter, read_base
from s3lora.base.model import BaseModule
from s3lora.compat.against_base import _of_expert
from s3lora.compat.results import LoaderVerdict, ModuleCheck
from tests.command import call
from tests.support import make_adapter, write_safetensors

ATTENTION = [f"model.layers.{i}.self_attn.{p}_proj" for i in range(2) for p in "qkv"]
SHAPE = (8, 8, 2)
Q0 = ATTENTION[0]
ONES = np.ones(8, np.float32)
LOADERS = ("peft", "transformers", "vllm", "sglang", "llamacpp")
LLAMA = {"model_type": "llama", "hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 2,
         "intermediate_size": 12, "vocab_size": 20}  # fmt: skip


def adapter(folder: Path, paths: list[str] | None = None, **fields: Any) -> Path:
    heads = fields.pop("heads", None)
    shapes = fields.pop("shapes", {})
    modules = {path: shapes.get(path, SHAPE) for path in paths or ATTENTION}
    return make_adapter(folder / "adapter", modules, config=fields, heads=heads)


def verdicts(made: Check) -> dict[str, str]:
    return {one.loader: one.verdict for one in made.loaders}


def why(verdict: LoaderVerdict) -> str:
    return " | ".join(reason.what for reason in verdict.reasons)


def rename(folder: Path, change: Callable[[str], str]) -> Path:
    """Write the tensors of an adapter under other names."""
    with open_adapter(folder) as opened:
        tensors = {change(name): np.array(one.array()) for name, one in opened.files[0].tensors.items()}
    write_safetensors(folder / "adapter_model.safetensors", tensors, {"format": "pt"})
    return folder


def test_an_ordinary_adapter_loads_everywhere(tmp_path: Path) -> None:
    made = check(adapter(tmp_path))
    assert verdicts(made) == dict.fromkeys(LOADERS, "same")
    assert (made.base, made.findings, made.renamings) == (None, (), ())
    assert {tuple(module.scalings.values()) for module in made.modules} == {(2.0,) * 5}
    assert made.modules[0].standing is None
    assert "peft: same" in repr(made)
    with pytest.raises(UsageError, match=r"'mlx' was not asked about; there are peft, transformers, vllm"):
        _ = made["mlx"]
    assert ("peft" in made, "mlx" in made, [one.loader for one in made]) == (True, False, [*LOADERS])


HEAD = {"score.weight": np.ones((2, 8), np.float32)}
EMBEDDING = {
    "model.embed_tokens.lora_embedding_A": np.ones((2, 20), np.float32),
    "model.embed_tokens.lora_embedding_B": np.ones((8, 2), np.float32),
}
MAGNITUDE = {f"{Q0}.lora_magnitude_vector": ONES}
SAVED = {"lm_head.base_layer.weight": np.ones((20, 8), np.float32)}
#: Configuration and further tensors → verdicts that are not "same", and words of the reason, by loader.
RULES: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, tuple[str, str]]]] = {
    "rslora": ({"use_rslora": True}, {}, {"sglang": ("other", "use_rslora"), "llamacpp": ("other", "2.828")}),
    "alpha by pattern": (
        {"alpha_pattern": {"q_proj": 2}},
        {},
        {"sglang": ("other", "instead of 1"), "llamacpp": ("other", "instead of 1")},
    ),
    "patterns that change nothing": ({"alpha_pattern": {"q_proj": 4}, "rank_pattern": {"q_proj": 2}}, {}, {}),
    "a regular expression": ({"target_modules": ".*[qkv]_proj"}, {}, {"sglang": ("fails", "regular expression")}),
    "all-linear": ({"target_modules": "all-linear"}, {}, {}),
    "dora": (
        {"use_dora": True},
        {f"{path}.lora_magnitude_vector": ONES for path in ATTENTION},
        {"transformers": ("other", "DoRA"), **dict.fromkeys(("vllm", "sglang", "llamacpp"), ("fails", "DoRA"))},
    ),
    "a trained head": (
        {"modules_to_save": ["score"]},
        HEAD,
        {"sglang": ("other", "score.weight"), "llamacpp": ("fails", "score.weight")},
    ),
    "a head that is no classifier's": (
        {"modules_to_save": ["lm_head"]},
        {"lm_head.weight": np.ones((20, 8), np.float32)},
        {"vllm": ("fails", "lm_head"), "sglang": ("other", "lm_head"), "llamacpp": ("fails", "lm_head")},
    ),
    "a bias": (
        {"lora_bias": True},
        {f"{path}.lora_B.bias": ONES for path in ATTENTION},
        {**dict.fromkeys(("vllm", "llamacpp"), ("fails", "bias")), "sglang": ("other", "lora_B.bias")},
    ),
    "the bias of the base": ({"bias": "all"}, {}, {"vllm": ("fails", "bias")}),
    "embeddings": (
        {"target_modules": ["q_proj", "k_proj", "v_proj", "embed_tokens"]},
        EMBEDDING,
        {"llamacpp": ("unknown", "tied to the embeddings")},
    ),
    "a base weight saved along": ({"target_modules": ["q_proj", "k_proj", "v_proj"]}, SAVED, {}),
    "a base weight": (
        {},
        {"model.layers.0.mlp.up_proj.weight": np.ones((4, 4), np.float32)},
        dict.fromkeys(("vllm", "sglang", "llamacpp"), ("fails", "up_proj")),
    ),
    "a norm": (
        {},
        {"model.layers.0.input_layernorm.weight": ONES},
        {"vllm": ("fails", "norm"), "sglang": ("fails", "norm"), "llamacpp": ("other", "norm")},
    ),
    "pissa": (
        {"init_lora_weights": "pissa"},
        {},
        {"vllm": ("fails", "pissa"), **dict.fromkeys(("sglang", "llamacpp"), ("other", "pissa"))},
    ),
    "lora-ga": (
        {"init_lora_weights": "lora_ga"},
        {},
        dict.fromkeys(("peft", "transformers", "vllm", "sglang", "llamacpp"), ("other", "ga")),
    ),
    "eva": ({"init_lora_weights": "eva"}, {}, {}),
    "alora": (
        {"alora_invocation_tokens": [5]},
        {},
        {
            **dict.fromkeys(("transformers", "sglang"), ("other", "aLoRA")),
            "vllm": ("fails", "aLoRA"),
            "llamacpp": ("unknown", "aLoRA"),
        },
    ),
    "layer_replication": (
        {"layer_replication": [[0, 2], [1, 2]]},
        {},
        dict.fromkeys(("vllm", "sglang", "llamacpp"), ("fails", "replic")),
    ),
    "no base named": ({"base_model_name_or_path": None}, {}, {}),
    "no rank": (
        {"r": None},
        {},
        {
            **dict.fromkeys(("vllm", "sglang"), ("fails", "`r`")),
            **dict.fromkeys(("peft", "transformers"), ("fails", "another rank")),
        },
    ),
    "not targeted": (
        {"target_modules": ["q_proj"]},
        {},
        {"peft": ("other", "does not name them"), "transformers": ("other", "does not name them")},
    ),
    "another rank than it says": (
        {"r": 4},
        {},
        {
            **dict.fromkeys(("peft", "transformers"), ("fails", "another rank than its configuration")),
            "sglang": ("fails", "another rank than r = 4"),
            "vllm": ("other", "not the rank of its tensors"),
        },
    ),
    "a norm at the end": (
        {},
        {"model.norm.weight": ONES},
        {"vllm": ("fails", "norm"), "sglang": ("other", "norm"), "llamacpp": ("other", "norm")},
    ),
    "the base's weights of q, k and v": (
        {},
        {f"{path}.base_layer.weight": np.ones((8, 8), np.float32) for path in ATTENTION},
        {"vllm": ("fails", "base_layer"), "sglang": ("other", "base_layer"), "llamacpp": ("other", "base_layer")},
    ),
}


@pytest.mark.parametrize("case", RULES)
def test_what_each_loader_makes_of_it(case: str, tmp_path: Path) -> None:
    config, heads, expected = RULES[case]
    made = check(adapter(tmp_path, heads=heads, **config))
    assert {one: verdict for one, verdict in verdicts(made).items() if verdict != "same"} == {
        one: verdict for one, (verdict, _) in expected.items()
    }
    for loader, (_, word) in expected.items():
        assert word in why(made[loader])
        assert all(reason.fix for reason in made[loader].reasons)
        assert made[loader].seen


def test_the_command_that_mends_it_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = rename(adapter(tmp_path), lambda name: f"_orig_mod.{name}")
    for loader in ("peft", "vllm", "llamacpp"):
        (reason,) = check(folder, loaders=[loader])[loader].reasons
        out = tmp_path / loader
        words = [{"PATH": str(folder), "OUT": str(out)}.get(word, word) for word in (reason.command or "").split()]
        assert call(capsys, *words[1:]).status == 0
        assert check(out, loaders=[loader])[loader].verdict == "same"
    base = check(adapter(tmp_path / "b", heads=HEAD, modules_to_save=["score"]), loaders=["llamacpp"])["llamacpp"]
    assert base.reasons[0].command == "s3lora convert PATH --loader llamacpp --drop all -o OUT"


LOST = {"peft": "other", "transformers": "other"}
NAMED = {"transformers": "other", "vllm": "fails", "llamacpp": "fails"}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda name: f"_orig_mod.{name}", {**LOST, "vllm": "other", "llamacpp": "fails"}),
        (lambda name: f"module.{name}", {**LOST, "vllm": "other", "llamacpp": "fails"}),
        (lambda name: f"base_model.model.{name}", {"peft": "other"}),
        (lambda name: name.removeprefix("base_model.model."), {"peft": "other"}),
        (lambda name: name.replace(".weight", ".default.weight"), NAMED),
        (lambda name: name.replace(".weight", ".mine.weight"), {**LOST, **NAMED}),
    ],
    ids=["torch.compile", "DDP", "PEFT twice", "no prefix", "default", "another name"],
)  # fmt: skip
def test_names_of_keys(change: Callable[[str], str], expected: dict[str, str], tmp_path: Path) -> None:
    made = check(rename(adapter(tmp_path), change))
    assert {one: verdict for one, verdict in verdicts(made).items() if verdict != "same"} == expected


MIXED = {path: (8, 8, 4) for path in ATTENTION if path.endswith("k_proj")}


def test_sglang_asserts_one_rank(tmp_path: Path) -> None:
    made = check(adapter(tmp_path, shapes=MIXED, rank_pattern={"k_proj": 4}))
    assert made["sglang"].verdict == "fails"
    (first, *_) = made["sglang"].reasons
    assert set(first.modules) == set(MIXED)
    assert first.command == "s3lora convert PATH --loader sglang -o OUT"
    assert made["peft"].verdict == made["vllm"].verdict == "same"
    assert made["llamacpp"].verdict == "same", "it divides by the rank of each tensor"
    assert made.modules[0].scalings == {"peft": 1.0, "transformers": 1.0, "vllm": 1.0, "sglang": 2.0, "llamacpp": 1.0}
    assert any("hot-swaps it wrongly" in note for note in made["peft"].notes)


ALONE = "model.layers.0."


@pytest.mark.parametrize(
    ("names", "verdict", "word"),
    [
        (("self_attn.q_proj",), "fails", "q_proj"),
        (("self_attn.q_proj", "self_attn.v_proj"), "same", ""),
        (("self_attn.k_proj", "self_attn.v_proj"), "fails", "k_proj"),
        (("self_attn.o_proj",), "same", ""),
        (("mlp.up_proj",), "fails", "up_proj"),
        (("mlp.gate_proj",), "same", ""),
        (("linear_attn.in_proj_q", "linear_attn.in_proj_k", "linear_attn.in_proj_v"), "fails", "in_proj_q"),
        (
            ("linear_attn.in_proj_q", "linear_attn.in_proj_k", "linear_attn.in_proj_v", "linear_attn.in_proj_z"),
            "same",
            "",
        ),
        (("linear_attn.in_proj_qkv", "linear_attn.in_proj_z"), "unknown", "in_proj_qkv"),
        (("linear_attn.in_proj_qkv",), "fails", "in_proj_qkv"),
        (("self_attn.q_a_proj",), "fails", "q_a_proj"),
        (("self_attn.q_a_proj", "self_attn.kv_a_proj_with_mqa"), "same", ""),
        (("mixer.x_proj",), "fails", "x_proj"),
    ],
)
def test_sglang_stops_at_parts_of_what_it_joins(
    names: tuple[str, ...], verdict: str, word: str, tmp_path: Path
) -> None:
    made = check(adapter(tmp_path, [f"{ALONE}{name}" for name in names]), loaders=["sglang"])
    assert (verdicts(made), word in why(made["sglang"])) == ({"sglang": verdict}, True)


def fused(folder: Path, **config: Any) -> Path:
    """Write an adapter with the experts of one layer as PEFT's `target_parameters` stores them."""
    random = np.random.default_rng(0)
    stem = "model.layers.0.mlp.experts"
    heads = {
        f"{stem}.lora_A.weight": random.normal(size=(6, 6)).astype(np.float32),
        f"{stem}.lora_B.weight": random.normal(size=(8, 6)).astype(np.float32),
    }
    return adapter(folder, heads=heads, **config)


def test_fused_experts(tmp_path: Path) -> None:
    made = check(fused(tmp_path, target_parameters=["mlp.experts.down_proj"]))
    assert verdicts(made) == {
        "peft": "same",
        "transformers": "same",
        "vllm": "unknown",
        "sglang": "unknown",
        "llamacpp": "fails",
    }
    assert check(fused(tmp_path), loaders=["peft"])["peft"].verdict == "other", "PEFT does not build them"
    old = check(fused(tmp_path, target_parameters=["mlp.experts.down_proj"]), loaders=["peft=0.14.0"])["peft"]
    assert (old.verdict, "`target_parameters`" in why(old)) == ("other", True)


def test_versions(tmp_path: Path) -> None:
    folder = adapter(tmp_path, use_rslora=True, modules_to_save=["score"], heads=HEAD, exclude_modules=["x"])
    made = check(folder, loaders=["vllm", "vllm=0.33.0", "vllm=0.8.4", "peft=0.13.2", "peft=0.21.2", "peft=0.30"])
    told = {(one.loader, one.version): one.verdict for one in made.loaders}
    assert told == {
        ("vllm", None): "same",
        ("vllm", "0.33.0"): "same",
        ("vllm", "0.8.4"): "fails",
        ("peft", "0.13.2"): "fails",
        ("peft", "0.21.2"): "same",
        ("peft", "0.30"): "same",
    }
    assert any("before 0.31.0" in note for note in made["vllm"].notes)
    unseen = next(one for one in made.loaders if one.version == "0.30")
    assert any("was not run" in note for note in unseen.notes)
    alora = adapter(tmp_path / "b", alora_invocation_tokens=[5])
    assert verdicts(check(alora, loaders=["vllm=0.10.0"])) == {"vllm": "other"}
    with pytest.raises(UsageError, match="no version"):
        check(folder, loaders=["vllm=new"])
    with pytest.raises(UsageError, match="no loader"):
        check(folder, loaders=["ollama"])


def test_versions_of_peft(tmp_path: Path) -> None:
    """Each was seen by running the release that is named and the one before it."""

    def told(folder: Path, *versions: str) -> list[str]:
        return [one.verdict for one in check(folder, loaders=[f"peft={version}" for version in versions]).loaders]

    named = rename(adapter(tmp_path / "named"), lambda name: name.replace(".weight", ".default.weight"))
    assert told(named, "0.13.2", "0.20.0", "0.21.0") == ["other", "other", "same"]
    assert any("before 0.21.0" in note for note in check(named, loaders=["peft"])["peft"].notes)
    trained = {"model.embed_tokens.token_adapter.trainable_tokens_delta": np.ones((1, SHAPE[1]), np.float32)}
    tokens = adapter(tmp_path / "tokens", trainable_token_indices=[5], heads=trained)
    assert told(tokens, "0.13.2", "0.14.0", "0.15.0") == ["fails", "other", "same"]
    promised = adapter(tmp_path / "promised", trainable_token_indices=[5], modules_to_save=["lm_head"])
    assert told(promised, "0.14.0", "0.15.0") == ["other", "fails"]
    alora = adapter(tmp_path / "alora", alora_invocation_tokens=[5])
    assert told(alora, "0.13.2", "0.17.1", "0.18.0") == ["fails", "other", "same"]
    newest = adapter(tmp_path / "newest", peft_version="0.21.2")
    assert told(newest, "0.13.2", "0.14.0") == ["fails", "same"]
    assert told(adapter(tmp_path / "plain"), "0.13.2") == ["same"]


def test_layers_that_are_repeated(tmp_path: Path) -> None:
    """PEFT puts the model together anew: layer 2 of it is layer 1 of the base, and a layer 3 there is none."""
    more = ["model.layers.2.self_attn.k_proj", "model.layers.3.self_attn.k_proj"]
    folder = adapter(tmp_path, [*ATTENTION, *more], layer_replication=[[0, 2], [1, 2]])
    made = check(folder, base(tmp_path / "m"), ["peft"])
    assert [(one.standing, one.base_path) for one in made.modules if one.path in more] == [
        ("found", "model.layers.1.self_attn.k_proj"),
        ("missing", None),
    ]
    assert made["peft"].reasons[0].modules == (more[1],)
    for unread in ([[0, 10**9]], [[0]], [["0", 1]], "all", [[0, True]]):
        folder = adapter(tmp_path, [*ATTENTION, *more], layer_replication=unread)
        made = check(folder, base(tmp_path / "m"), ["peft"])
        assert {one.path for one in made.of_standing("missing")} == {*more}


def test_layers_that_nobody_saw(tmp_path: Path) -> None:
    made = check(adapter(tmp_path, ["transformer.h.0.attn.c_attn"]))
    told = {"vllm": "unknown", "sglang": "unknown", "llamacpp": "unknown"}
    assert {one: verdict for one, verdict in verdicts(made).items() if verdict != "same"} == told


def test_ranks_of_vllm(tmp_path: Path) -> None:
    made = check(adapter(tmp_path, [Q0], shapes={Q0: (64, 64, 20)}, r=20), loaders=["vllm"])["vllm"]
    assert (made.verdict, made.notes) == ("same", ("needs --max-lora-rank 32 for rank 20; its default is 16",))


def test_which_file_a_loader_takes(tmp_path: Path) -> None:
    folder = adapter(tmp_path)
    (folder / "adapter_model.safetensors").rename(folder / "mine.safetensors")
    made = check(folder)
    assert verdicts(made) == {**dict.fromkeys(LOADERS, "fails"), "sglang": "same"}
    assert "finds no adapter_model.safetensors" in why(made["peft"])
    with open_adapter(folder) as opened:
        other = {name: np.array(one.array()) + 1 for name, one in opened.files[0].tensors.items()}
    (folder / "mine.safetensors").rename(folder / "adapter_model.safetensors")
    write_safetensors(folder / "z.safetensors", other)
    again = check(folder)
    assert verdicts(again) == {**dict.fromkeys(LOADERS, "same"), "sglang": "other"}
    assert "z.safetensors" in why(again["sglang"])


def test_a_lost_configuration_is_what_loaders_of_language_models_miss(tmp_path: Path) -> None:
    made = adapter(tmp_path)
    (made / "adapter_config.json").unlink()
    found = check(made)
    assert {"peft", "vllm", "sglang"} <= {name for name, said in verdicts(found).items() if said == "fails"}
    assert "has no adapter_config.json" in why(found["peft"])


def test_mlx_and_diffusers(tmp_path: Path) -> None:
    mlx = tmp_path / "mlx"
    mlx.mkdir()
    tensors = {f"{Q0}.lora_{x}": np.ones(s, "f4") for x, s in (("a", (8, 2)), ("b", (2, 8)))}
    write_safetensors(mlx / "adapters.safetensors", tensors)
    (mlx / "adapter_config.json").write_text(
        json.dumps({"num_layers": 2, "lora_parameters": {"rank": 2, "scale": 3.0, "dropout": 0.0}})
    )
    made = check(mlx, loaders=["mlx", "peft", "vllm"])
    assert verdicts(made) == {"mlx": "same", "peft": "fails", "vllm": "fails"}
    assert made.modules[0].scalings == {"mlx": 3.0}
    (mlx / "adapter_config.json").write_text(json.dumps({"lora_parameters": {"rank": 2, "scale": 3.0}}))
    assert "num_layers" in why(check(mlx)["mlx"])
    picture = tmp_path / "picture"
    picture.mkdir()
    path = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    write_safetensors(picture / "pytorch_lora_weights.safetensors",
                      {f"{path}.lora_{x}.weight": np.ones(s, "f4")
                       for x, s in (("A", (2, 8)), ("B", (6, 2)))})  # fmt: skip
    assert verdicts(check(picture)) == {"diffusers": "same"}
    assert verdicts(check(adapter(tmp_path), loaders=["mlx", "diffusers"])) == {"mlx": "fails", "diffusers": "unknown"}


#: What is wrong with the configuration of MLX → verdicts of 0.32.2 and of 0.31.3, and words of the reason.
MLX: dict[str, tuple[dict[str, Any], dict[str, Any], tuple[str, str], str]] = {
    "nothing": ({}, {}, ("same", "same"), ""),
    "no dropout": ({"dropout": None}, {}, ("fails", "fails"), "`dropout` in `lora_parameters`"),
    "alpha in place of scale": ({"scale": None, "alpha": 4}, {}, ("fails", "fails"), "`scale`"),
    "alpha beside scale": ({"alpha": 4}, {}, ("same", "same"), ""),
    "another rank": ({"rank": 4}, {}, ("fails", "same"), "of rank 2"),
    "few layers": ({}, {"num_layers": 1}, ("fails", "other"), f"num_layers` means: {Q0}"),
    "all layers": ({}, {"num_layers": -1}, ("same", "same"), ""),
    "few keys": ({"keys": ["self_attn.k_proj"]}, {}, ("fails", "other"), f"does not name: {Q0}"),
    "keys of layers": ({"keys": ["self_attn.k_proj", "self_attn.q_proj"]}, {}, ("same", "same"), ""),
    "whole keys": ({"keys": [Q0, ATTENTION[4]]}, {}, ("same", "same"), ""),
    "no parameters": ({}, {"lora_parameters": 3}, ("fails", "fails"), "`rank` in"),
}


@pytest.mark.parametrize("case", MLX)
def test_configurations_of_mlx(case: str, tmp_path: Path) -> None:
    """Each was seen by running both releases."""
    change, fields, expected, word = MLX[case]
    tensors = {f"{path}.lora_{x}": np.ones(s, "f4") for path in (Q0, ATTENTION[4])
               for x, s in (("a", (8, 2)), ("b", (2, 8)))}  # fmt: skip
    write_safetensors(tmp_path / "adapters.safetensors", tensors)
    parameters = {"rank": 2, "scale": 3.0, "dropout": 0.0, **change}
    parameters = {key: value for key, value in parameters.items() if value is not None}
    config = {"num_layers": 2, "lora_parameters": parameters, **fields}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    made = check(tmp_path, loaders=["mlx=0.32.2", "mlx=0.31.3"])
    assert tuple(one.verdict for one in made.loaders) == expected
    assert word in why(made["mlx"])


def test_code_in_the_folder_is_no_part_of_a_verdict_and_said_to_be_there(tmp_path: Path) -> None:
    folder = adapter(tmp_path)
    assert check(folder).notes == ()
    (folder / "modeling.py").write_text("")
    note = "the folder holds code, which scan lists: no verdict says what is run of that at load"
    assert (check(folder).notes, check(folder)["peft"].verdict) == ((note,), "same")
    (folder / "training_args.bin").write_bytes(pickle.dumps([1]))
    assert check(folder).notes == (note.replace("holds code", "holds code and pickles"),)


def test_what_mlx_has_no_place_for(tmp_path: Path) -> None:
    config = {"num_layers": 2, "lora_parameters": {"rank": 2, "scale": 3.0, "dropout": 0.0}}
    a, b = np.ones((8, 2), "f4"), np.ones((2, 8), "f4")

    def told(tensors: dict[str, Any], *, of: str | None = None) -> list[tuple[str, str]]:
        write_safetensors(tmp_path / "adapters.safetensors", tensors)
        (tmp_path / "adapter_config.json").write_text(json.dumps(config))
        made = check(tmp_path, of, ["mlx=0.32.2", "mlx=0.31.3"])
        return [(one.verdict, why(one)) for one in made.loaders]

    ordinary = {f"{Q0}.lora_a": a, f"{Q0}.lora_b": b}
    assert [verdict for verdict, _ in told({**ordinary, "model.norm.weight": ONES})] == ["fails", "same"]
    assert [verdict for verdict, _ in told({f"{Q0}.A": a, f"{Q0}.B": b})] == ["fails", "other"]
    assert [verdict for verdict, _ in told({**ordinary, f"{Q0}.m": ONES})] == ["fails", "other"]
    elsewhere = {key.replace("layers.0", "layers.2"): value for key, value in ordinary.items()}
    stops, leaves = told({**elsewhere}, of=base(tmp_path / "m"))
    assert (stops[0], leaves[0]) == ("fails", "other")
    assert ("stops at names" in stops[1], "says nothing" in leaves[1]) == (True, True)


def test_mlx_takes_no_archive_since_0_14(tmp_path: Path) -> None:
    np.savez(
        tmp_path / "adapters.npz", **{f"{Q0}.lora_a": np.ones((8, 2), "f4"), f"{Q0}.lora_b": np.ones((2, 8), "f4")}
    )
    config = {"num_layers": 2, "lora_parameters": {"rank": 2, "scale": 3.0, "dropout": 0.0}}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    made = check(tmp_path, loaders=["mlx=0.32.2", "mlx=0.13.0"])
    assert [one.verdict for one in made.loaders] == ["fails", "same"]


def base(folder: Path, **change: Any) -> str:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({**LLAMA, **change}))
    return str(folder / "config.json")


def test_against_the_base_that_it_was_trained_on(tmp_path: Path) -> None:
    made = check(adapter(tmp_path), base(tmp_path / "m"))
    assert {(one.standing, one.fits, one.base_shape) for one in made.modules} == {("found", True, (8, 8))}
    assert verdicts(made) == dict.fromkeys(LOADERS, "same")
    assert made.base is not None
    assert (made.base.architecture, made.base.modules, made.base.tied) == ("llama", 16, False)


def test_against_another_base(tmp_path: Path) -> None:
    grouped = check(adapter(tmp_path), base(tmp_path / "m", num_key_value_heads=1))
    assert {one.path for one in grouped.misfits} == {path for path in ATTENTION if path[-6] != "q"}
    assert all("grouped-query" in one.note for one in grouped.misfits)
    assert verdicts(grouped) == {**dict.fromkeys(LOADERS, "fails"), "sglang": "other"}, "it cuts k and v off"
    larger = check(adapter(tmp_path), base(tmp_path / "m", hidden_size=16, num_attention_heads=4))
    assert len(larger.misfits) == 6
    assert "another size of the model" in larger.misfits[0].note
    short = check(adapter(tmp_path), base(tmp_path / "m", num_hidden_layers=1))
    assert {one.path for one in short.of_standing("missing")} == set(ATTENTION[3:])
    assert verdicts(short) == {
        "peft": "other",
        "transformers": "other",
        "vllm": "other",
        "sglang": "fails",
        "llamacpp": "fails",
    }
    gpt2 = base(tmp_path / "m", model_type="gpt2", n_embd=8, n_head=2, n_layer=2)
    assert verdicts(check(adapter(tmp_path), gpt2)) == dict.fromkeys(LOADERS, "fails")
    unknown = check(adapter(tmp_path), base(tmp_path / "m", model_type="of_ours"))
    assert {one.standing for one in unknown.modules} == {"unknown"}
    assert any("of_ours" in note for note in unknown.notes)


def test_a_vocabulary_of_another_size(tmp_path: Path) -> None:
    paths = [*ATTENTION, "lm_head"]
    named = ["q_proj", "k_proj", "v_proj", "lm_head", "embed_tokens"]
    given = {"heads": EMBEDDING, "target_modules": named}
    made = check(adapter(tmp_path, paths, shapes={"lm_head": (24, 8, 2)}, **given), base(tmp_path / "m"))
    assert [(one.path, one.base_shape) for one in made.misfits] == [("lm_head", (20, 8))]
    assert "vocabulary" in made.misfits[0].note
    folder = adapter(tmp_path, paths, shapes={"lm_head": (20, 8, 2)}, **given)
    tied = check(folder, base(tmp_path / "m", tie_word_embeddings=True))
    assert not tied.misfits
    assert any("both act on one weight" in note for note in tied.notes)
    assert any("merges wrongly" in note for note in tied["peft"].notes)
    assert "tied" in why(tied["llamacpp"])


def test_a_renaming_that_makes_it_fit(tmp_path: Path) -> None:
    text = {key: value for key, value in LLAMA.items() if key != "model_type"}
    config = {"model_type": "llava", "text_config": {"model_type": "llama", **text}}
    made = check(adapter(tmp_path), base(tmp_path / "m", **config))
    assert {one.standing for one in made.modules} == {"renamed"}
    (renaming,) = made.renamings
    assert (renaming.old, renaming.new, renaming.modules) == ("model.", "model.language_model.", 6)
    assert verdicts(made)["sglang"] == "same", "it goes by layer and projection"
    assert verdicts(made)["vllm"] == "unknown"


def test_experts_of_old_models_in_fused_ones(tmp_path: Path) -> None:
    parts = {"w1": (12, 8, 2), "w2": (8, 12, 2), "w3": (12, 8, 2)}
    shapes = {
        f"model.layers.0.block_sparse_moe.experts.{e}.{w}": shape for e in (0, 1, 5) for w, shape in parts.items()
    }
    config = base(tmp_path / "m", model_type="mixtral", num_local_experts=4)
    made = check(adapter(tmp_path, [*shapes], shapes=shapes), config)
    assert [one.standing for one in made.modules] == ["expert"] * 6 + ["missing"] * 3
    assert not made.misfits
    assert "4 experts" in made.modules[-1].note


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(("shape", "fits"), [((6, 8), True), ((8, 6), True), ((12, 8), False), ((6, 4), False)])
def test_halves_of_experts_fit_whichever_side_comes_first(turned: bool, shape: tuple[int, int], fits: bool) -> None:
    found = BaseModule("x.experts.gate_up_proj", (8, 12) if turned else (12, 8), "parameter", 4)
    module = SimpleNamespace(path="x.experts.0.gate_proj", m=shape[0], n=shape[1], kind="linear")
    made = _of_expert(module, ModuleCheck(path=module.path, shape=shape, rank=2, scaling=1.0), found, "gate_proj")  # type: ignore[arg-type]
    assert made.fits is fits


def test_targets_that_the_base_has_not(tmp_path: Path) -> None:
    made = check(adapter(tmp_path, target_modules=["q_proj", "k_proj", "v_proj", "c_attn"]), base(tmp_path / "m"))
    assert made.base is not None
    assert made.base.missing_targets == ("c_attn",)


def test_rules(tmp_path: Path) -> None:
    folder = adapter(tmp_path, use_rslora=True)
    made = check(folder, fail_on=["loader:vllm", "loader:sglang", "loader:vllm=0.6.6"])
    assert [(one.rule, one.rule_id) for one in made.findings] == [
        ("loader:sglang", "S3L030"),
        ("loader:vllm=0.6.6", "S3L030"),
    ]
    assert [one.shown for one in made.loaders][-1] == "vllm 0.6.6", "what a rule asks about is checked"
    assert {one.rule for one in check(folder, fail_on=["loaders"]).findings} == {"loaders"}
    wrong = check(folder, base(tmp_path / "m", num_key_value_heads=1, num_hidden_layers=1), fail_on=["modules"])
    assert [one.rule_id for one in wrong.findings] == ["S3L031", "S3L032"]
    with pytest.raises(UsageError, match="needs a base"):
        check(folder, fail_on=["modules"])
    for text in ("loader:", "loader:x", "ssi > 1", ""):
        with pytest.raises(UsageError):
            check(folder, fail_on=[text])


VALUE = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8),
    st.lists(st.text(max_size=4), max_size=2),
    st.dictionaries(st.text(max_size=4), st.integers(), max_size=2), st.just("\x1b[31m"), st.just(".*q_proj"),
)  # fmt: skip
FIELDS = ("r", "lora_alpha", "rank_pattern", "alpha_pattern", "target_modules", "target_parameters", "modules_to_save",
          "bias", "init_lora_weights", "use_rslora", "use_dora", "lora_bias", "layer_replication", "exclude_modules",
          "alora_invocation_tokens", "base_model_name_or_path", "task_type")  # fmt: skip


@settings(max_examples=80, deadline=None)
@given(config=st.dictionaries(st.sampled_from(FIELDS), VALUE, max_size=4))
def test_no_configuration_breaks_a_check(config: dict[str, Any], tmp_path: Path) -> None:
    folder = adapter(tmp_path, **config)
    try:
        made = check(folder, base(tmp_path / "m"), fail_on=["loaders"])
    except S3LoRAError:
        return
    told = [reason.what + reason.fix for one in made.loaders for reason in one.reasons]
    assert all(
        text.isprintable() for text in (*told, *made.notes, *(note for one in made.loaders for note in one.notes))
    )


def test_an_opened_adapter_and_a_read_base(tmp_path: Path) -> None:
    with open_adapter(adapter(tmp_path)) as opened:
        assert check(opened, read_base(base(tmp_path / "m"))).misfits == ()
