"""What a check says of servers and of llama.cpp, as their own loading code was seen to do it (tests/loaders/)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from s3lora import check
from tests.compat.test_check import ATTENTION, EMBEDDING, HEAD, Q0, SAVED, SHAPE, adapter, base, why
from tests.gguf_files import gguf_bytes


def of(folder: Path, *loaders: str, against: str | Path | None = None) -> list[str]:
    return [one.verdict for one in check(folder, against, loaders).loaders]


VLLM = ("vllm=0.6.6", "vllm=0.10.0", "vllm=0.11.2", "vllm=0.12.0", "vllm=0.31.0", "vllm=0.32.0", "vllm=0.33.0", "vllm")


@pytest.mark.parametrize(
    ("fields", "heads", "verdicts"),
    [
        ({"use_rslora": True}, {}, ["other", *["same"] * 7]),
        ({"alpha_pattern": {"q_proj": 2}}, {}, [*["other"] * 5, *["same"] * 3]),
        ({"alora_invocation_tokens": [5]}, {}, [*["other"] * 5, *["fails"] * 3]),
        ({"init_lora_weights": "pissa"}, {}, [*["other"] * 5, *["fails"] * 3]),
        ({"init_lora_weights": "lora_ga"}, {}, ["other"] * 8),
        ({"modules_to_save": ["score"]}, HEAD, [*["fails"] * 4, *["same"] * 4]),
        ({}, SAVED, [*["fails"] * 3, *["same"] * 5]),
        ({"r": 4}, {}, ["other"] * 8),
    ],
)
def test_releases_of_vllm(tmp_path: Path, fields: dict[str, Any], heads: dict[str, Any], verdicts: list[str]) -> None:
    assert of(adapter(tmp_path, heads=heads, **fields), *VLLM) == verdicts


def test_a_note_tells_from_which_release_on_a_scaling_is_read(tmp_path: Path) -> None:
    rooted = check(adapter(tmp_path, use_rslora=True), loaders=["vllm"])["vllm"]
    assert any("before 0.7.0" in note for note in rooted.notes)
    both = check(adapter(tmp_path / "b", use_rslora=True, alpha_pattern={"q_proj": 2}), loaders=["vllm"])["vllm"]
    assert any("before 0.32.0" in note for note in both.notes)
    (module, *_) = check(tmp_path / "adapter", loaders=["vllm", "vllm=0.6.6"]).modules
    assert module.scalings == {"vllm": 4 / 2**0.5, "vllm=0.6.6": 2.0}


def test_qalora_is_taken_for_lora_until_it_is_rejected(tmp_path: Path) -> None:
    shapes = dict.fromkeys(ATTENTION, (8, 4, 2))
    folder = adapter(tmp_path, shapes=shapes, use_qalora=True, qalora_group_size=2)
    assert of(folder, "vllm=0.10.0", "vllm=0.32.0", "sglang") == ["other", "fails", "fails"]
    # It builds QALoRA on layers of GPTQ alone, and whether the base has these no file of the adapter tells.
    assert of(folder, "peft") == ["unknown"]


@pytest.mark.parametrize(("tied", "verdict"), [(True, "fails"), (False, "same"), (None, "unknown")])
def test_embeddings_in_llamacpp(tmp_path: Path, tied: bool | None, verdict: str) -> None:
    folder = adapter(tmp_path, heads=EMBEDDING, target_modules=["q_proj", "k_proj", "v_proj", "embed_tokens"])
    model = None if tied is None else base(tmp_path / "m", tie_word_embeddings=tied)
    assert of(folder, "llamacpp", against=model) == [verdict]


def test_llamacpp_takes_a_gguf_as_it_is(tmp_path: Path) -> None:
    tensors = {f"blk.0.attn_v.weight.lora_{half}": np.ones(shape, np.float32) for half, shape in
               (("a", (2, 8)), ("b", (8, 2)))}  # fmt: skip
    (tmp_path / "adapter.gguf").write_bytes(gguf_bytes(tensors))
    assert {one.loader: one.verdict for one in check(tmp_path).loaders} == {"llamacpp": "same"}
    assert of(tmp_path, "llamacpp", "sglang") == ["same", "fails"]


@pytest.mark.parametrize(("first", "verdict"), [(20, "fails"), (3, "same")])
def test_words_that_the_base_has_not(tmp_path: Path, first: int, verdict: str) -> None:
    folder = adapter(tmp_path)
    (folder / "added_tokens.json").write_text(json.dumps({"<one>": first, "<two>": first + 1, "<not>": "a number"}))
    model = Path(base(tmp_path / "m"))
    assert of(folder, "sglang", "vllm", against=model) == [verdict, "same"]
    assert of(folder, "sglang") == ["same"], "how many words the base has is not known"
    for bad in ("[1]", "{"):
        (folder / "added_tokens.json").write_text(bad)
        assert of(folder, "sglang", against=model) == ["same"]


@pytest.mark.parametrize(
    ("targets", "verdict"),
    [(["q_proj"], "same"), (["v_proj"], "same"), (["o_proj"], "fails"), ("all-linear", "same"), ([f"x.{Q0}"], "same")],
)
def test_sglang_stops_at_modules_that_no_target_names(tmp_path: Path, targets: Any, verdict: str) -> None:
    made = check(adapter(tmp_path, target_modules=targets), loaders=["sglang"])["sglang"]
    assert (made.verdict, "does not name" in why(made)) == (verdict, verdict == "fails")


@pytest.mark.parametrize(
    ("paths", "verdict"),
    [
        ([f"{Q0}.base_layer.weight"], "fails"),
        (["model.layers.0.self_attn.k_proj.base_layer.weight"], "fails"),
        ([f"{path}.base_layer.weight" for path in ATTENTION[:3]], "other"),
        (["model.layers.0.mlp.up_proj.base_layer.weight"], "fails"),
        (["model.norm.weight"], "other"),
    ],
)
def test_what_sglang_leaves_over(tmp_path: Path, paths: list[str], verdict: str) -> None:
    heads = {path: np.ones((8, 8), np.float32) for path in paths}
    assert of(adapter(tmp_path, heads=heads), "sglang") == [verdict]


@pytest.mark.parametrize(("rows", "verdict"), [(12, "other"), (4, "fails")])
def test_sglang_cuts_rows_off(tmp_path: Path, rows: int, verdict: str) -> None:
    folder = adapter(tmp_path, shapes={ATTENTION[2]: (rows, *SHAPE[1:])})
    made = check(folder, base(tmp_path / "m"), ["sglang", "vllm"])
    assert [one.verdict for one in made.loaders] == [verdict, "fails"]
    assert ("wrong rows" in why(made["sglang"])) == (verdict == "other")
