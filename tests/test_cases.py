"""The cases of a table that stands beside the real adapters: each comes out as its row says, in every format.

A row of the table is a situation that people report. What this file says of a row is which words of it must be told.
"""

from __future__ import annotations

import csv
import functools
import html
import importlib.util
import json
import shlex
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from safetensors.numpy import load_file

from s3lora.adapter.open import open_adapter
from tests.command import Result, call
from tests.reference.base_weights import dora
from tests.reference.dense import delta, singular_values
from tests.reference.forms import update
from tests.repair.pairs import model_folder
from tests.sarif_schema import official
from tests.support import shared

#: Case → the conditions that hold, and words that each format tells.
FOUND: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    **{
        case: (("dead-modules",), ("model.layers.0.self_attn.q_proj", *words))
        for case, words in {
            "pfx_orig_mod": ("`_orig_mod`", "torch.compile"),
            "pfx_ddp_module": ("`module`", "DDP"),
            "pfx_fsdp_wrap": ("`_fsdp_wrapped_module`", "FSDP"),
            "pfx_double_prefix": ("`base_model.model`", "twice"),
            "q_noprefix": ("lack `base_model.model.`",),
        }.items()
    },
    "zero3_head_empty": (("dead-modules",), ("embed_tokens", "lm_head", "gather")),
    "fsdp2_half_B": (("dead-modules",), ("one rank",)),
    "moe_fused_notp": (("dead-modules",), ("target_parameters", "experts")),
    "mts_full": (("heads",), ("embed_tokens", "lm_head")),
    "full_weights_peft_loads": (("base-weights",), ("lm_head", "input_layernorm", "mlp.down_proj")),
    "stray_full_weights": (("base-weights",), ("mlp.down_proj",)),
    "base_weights_inside": (("nonfinite", "base-weights"), ("base_layer.weight", "mlp.c_fc.weight", "ln_f.weight")),
    "embed_base_layer": (("base-weights",), ("lm_head.base_layer.weight",)),
    "lora_bias_huge": (("bias",), ("lora_B.bias",)),
    "finite_factors_overflow": (("nonfinite",), ("model.layers.0.self_attn.q_proj",)),
    "init_pissa": (("base-weights",), ("adapter_config.json",)),
    "init_corda": (("base-weights",), ("adapter_config.json",)),
    "name_dotted": (("dead-modules",), ("q_proj",)),
    "decoy_second_weights": (("other-weights",), ("adapters.safetensors",)),
    "decoy_index_and_bin": (("other-weights",), ("adapter_model.safetensors.index.json",)),
    "two_weights": (("other-weights",), ("adapter_model.bin",)),
    "bin_and_safetensors_differ": (("other-weights",), ("adapter_model.bin",)),
    "code_beside": (
        ("code", "pickles"),
        (
            *("training_args.bin", "tokenizer.pkl", "new_embeddings.joblib", "posix.system"),
            *("modeling_custom.py", "chat_template.jinja", "__globals__", "auto_map"),
        ),
    ),
    "modules_to_save_twice.safetensors": (("heads",), ("classifier.modules_to_save",)),
}
#: Cases that pass every rule, with what a report may note.
PASSES = (
    *("p_prefix_good", "missing_target", "name_default", "tied_both", "rslora", "diffusers_meta"),
    *("moe_fused", "p_router_default", "p_router_initfalse", "p_alora", "tinker_plain", "vlm_new", "vlm_old"),
    *("p_cA", "p_cB", "regex_target_llamacpp", "sglang_mixed_rank", "sglang_gdn", "sglang_mla"),
    *("lycoris_loha", "lycoris_lokr", "kohya_mixed_lokr", "adalora"),
    *("lcm_lora_A_1", "kohya_split_qkv", "mlx_vlm", "megatron_bridge", "torchtune_pt", "mlx_npz"),
    *("underscore_lora_down.safetensors", "a_in_by_r.pt", "tinker_shared_outer"),
)
#: Case → by a module's path: its form, [m, n], rank, scaling and where that is known from.
FORMS: dict[str, dict[str, tuple[str, list[int], int, float, str]]] = {
    "lycoris_loha": {
        "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q": ("LoHa", [16, 24], 16, 1.0, "unknown")
    },
    "lycoris_lokr": {"lycoris_transformer_blocks_0_attn_to_q": ("LoKr", [16, 24], 16, 1.0, "always 1")},
    "kohya_mixed_lokr": {"lora_unet_x": ("LoKr", [16, 24], 16, 1.0, "always 1")},
    "adalora": {
        f"model.layers.{i}.self_attn.q_proj": ("AdaLoRA", [16, 24], 4, 8 / (4 + 1e-5), "alpha/r") for i in range(2)
    },
}
#: Case → the status, and words of the error.
REFUSED: dict[str, tuple[int, tuple[str, ...]]] = {
    "decoy_nested_state_dict": (2, ("several dictionaries", "`state_dict`")),
    "zip_directory_bit.bin": (2, ("is marked as a folder",)),
    "two_in_one": (2, ("several adapters", "default", "reference", "--adapter default")),
    "multi_sub": (3, ("default/", "reference/", "--adapter default")),
    "zero3_all_empty": (2, ("empty", "ZeRO-3", "gather")),
    "zero3_40_bytes": (3, ("ZeRO-3", "gather")),
    "fsdp2_rank0": (2, ("one rank", "do not fit")),
    # Its header claims no key and no tensor, and 48 zeros follow: that is read to its end.
    "gguf_lora": (3, ("holds no LoRA module",)),
    "list_of_tensors.pt": (2, ("holds no dictionary of tensors", "torch.save")),
}
#: What is not read yet. A case that is leaves this list.
NOT_YET_READ: tuple[str, ...] = ()
#: Rows whose cases have a magnitude beside B·A, which no index sees.
DORA = ("p_dora",)
#: Rows of a folder of cases, each of which is refused.
FOLDERS = ("torch_refuses/",)
#: Commands of the table of statuses that are not as they should be yet, besides those about `NOT_YET_READ`.
NOT_YET: tuple[str, ...] = ()


@functools.cache
def cases() -> Path:
    folder = shared() / "cases"
    if not folder.is_dir():
        pytest.skip("the cases are not here")
    return folder


def table(name: str) -> list[dict[str, str]]:
    with (cases() / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def scanned(capsys: Any, case: str, *options: str) -> Result:
    return call(capsys, "scan", cases() / case, "--no-policy", *options)


def readable(text: str) -> str:
    """Return a text as one reads it: lines are joined, and what JSON or HTML escapes stands for itself."""
    return " ".join(html.unescape(text).split())


def test_every_row_is_tried() -> None:
    rows = {case.strip() for row in table("cases.tsv") for case in row["case"].split(",")}
    assert rows == {*FOUND, *PASSES, *REFUSED, *NOT_YET_READ, *DORA, *FOLDERS}


@pytest.mark.parametrize("case", FOUND)
def test_a_finding_is_told_in_every_format(case: str, capsys: pytest.CaptureFixture[str]) -> None:
    conditions, words = FOUND[case]
    strict = ("--fail-on", "strict")

    text = scanned(capsys, case, *strict)
    assert text.status == 1
    found = [line.split(": finding: ")[1].split()[0] for line in text.err.splitlines() if ": finding: " in line]
    assert tuple(found) == conditions
    told = {"text": readable(text.err + text.out)}

    gate = json.loads(scanned(capsys, case, *strict, "--format", "json").out)["gate"]
    assert gate["status"] == 1
    assert tuple(one["rule"].split()[0] for one in gate["findings"]) == conditions
    told["json"] = json.dumps(gate, ensure_ascii=False)

    log = json.loads(scanned(capsys, case, *strict, "--format", "sarif").out)
    jsonschema.Draft7Validator(official(), format_checker=jsonschema.FormatChecker()).validate(log)
    results = log["runs"][0]["results"]
    assert tuple(one["properties"]["rule"].split()[0] for one in results) == conditions
    told["sarif"] = json.dumps(results, ensure_ascii=False)

    junit = scanned(capsys, case, *strict, "--format", "junit").out
    assert junit.count("<failure ") == len(conditions)
    told["junit"] = readable(junit)

    if importlib.util.find_spec("s3lora.report.glance") is not None:
        told["page"] = readable(scanned(capsys, case, "--format", "html").out)
    missing = [(form, word) for form, text in told.items() for word in words if word not in text.replace("<wbr>", "")]
    assert missing == []


@pytest.mark.parametrize("case", FOUND)
def test_what_is_allowed_passes(case: str, capsys: pytest.CaptureFixture[str]) -> None:
    conditions, _ = FOUND[case]
    allows = [word for name in conditions if name != "nonfinite" for word in ("--allow", f"{name}: a case")]
    result = scanned(capsys, case, "--fail-on", "strict", "-q", *allows)
    assert result.status == int("nonfinite" in conditions)
    assert result.err.count(": allowed: ") == len(allows) // 2


@pytest.mark.parametrize("case", PASSES)
def test_what_is_right_passes(case: str, capsys: pytest.CaptureFixture[str]) -> None:
    result = scanned(capsys, case, "--fail-on", "strict", "-q")
    alone = f"s3lora: {cases() / case}: is one file, and no code or pickle beside it was looked for; give the folder"
    told = [f"{alone} for that"] if (cases() / case).is_file() else []
    assert (result.status, result.err.splitlines()) == (0, told)


@pytest.mark.parametrize("case", FORMS)
def test_other_forms_are_read_exactly(case: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = {one["path"]: one for one in json.loads(scanned(capsys, case, "--format", "json").out)["modules"]}
    (file,) = (cases() / case).glob("*.safetensors")
    stored = load_file(file)
    prefix = "base_model.model." if case == "adalora" else ""
    for path, (form, shape, rank, scaling, origin) in FORMS[case].items():
        one = found[path]
        assert (one["form"], one["shape"], one["rank"], one["scaling_origin"]) == (form, shape, rank, origin)
        assert one["scaling"] == pytest.approx(scaling, rel=1e-12)
        dense = np.linalg.norm(scaling * update(stored, path, prefix))
        assert one["indices"]["frobenius"] == pytest.approx(dense, rel=1e-6)
    if case == "kohya_mixed_lokr":
        assert [one["form"] for one in found.values()].count("LoRA") == 4


def test_dora_is_no_more_than_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    (case,) = DORA
    assert "DoRA magnitudes" in scanned(capsys, case, "--fail-on", "strict", "-q").err
    assert scanned(capsys, case, "--fail-on", "strict", "-q", "--allow", "dora").status == 0


def test_dora_beside_a_base_is_all_that_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (case,) = DORA
    random = np.random.default_rng(0)
    with open_adapter(cases() / case) as adapter:
        weights = {f"{m.path}.weight": random.normal(size=(m.m, m.n)).astype(np.float32) for m in adapter.modules}
        stored = {name: tensor.array() for file in adapter.files for name, tensor in file.tensors.items()}
        exact = {}
        for module in adapter.modules:
            (name,) = (name for name in stored if name.startswith(f"base_model.model.{module.path}.lora_magnitude"))
            product = delta(module.A.array(), module.B.array(), module.scaling.value)
            exact[module.path] = dora(
                weights[f"{module.path}.weight"].astype(float), product, stored[name].astype(float)
            )
    base = model_folder(tmp_path / "base", weights)
    assert "B·A alone" in json.loads(scanned(capsys, case, "--format", "json").out)["warnings"][0]
    document = json.loads(scanned(capsys, case, "--format", "json", "--method", "svd", "--base-weights", base).out)
    for module in document["modules"]:
        assert module["of"] == "ΔW"
        assert module["indices"]["frobenius"] == pytest.approx(np.linalg.norm(exact[module["path"]]))
        expected = singular_values(exact[module["path"]])[: module["rank"]]
        assert np.allclose(module["sigma"], expected, rtol=1e-8)


def test_a_target_without_tensors_is_a_note(capsys: pytest.CaptureFixture[str]) -> None:
    (note,) = json.loads(scanned(capsys, "missing_target", "--format", "json").out)["inventory"]["unapplied"]
    assert (note["modules"], note["dead"]) == (["k_proj", "lm_head"], False)
    assert "untrained" in note["cause"]


def test_the_size_of_a_bias_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert "of a magnitude up to 1e+04" in scanned(capsys, "lora_bias_huge", "--fail-on", "strict", "-q").err


def refusal(capsys: Any, case: str, status: int) -> str:
    """Return the sentence of a refusal, which is the same in every format that is written of failures."""
    result = scanned(capsys, case, "--fail-on", "nonfinite")
    assert (result.status, result.out) == (status, "")
    assert result.err.count("\n") == 1
    log = json.loads(scanned(capsys, case, "--fail-on", "nonfinite", "--format", "sarif").out)
    (notice,) = log["runs"][0]["invocations"][0]["toolExecutionNotifications"]
    assert log["runs"][0]["results"] == []
    junit = scanned(capsys, case, "--fail-on", "nonfinite", "--format", "junit").out
    sentence = notice["message"]["text"].replace("{{", "{").replace("}}", "}")
    assert sentence in result.err or "\\" in sentence
    assert ("<error " if status == 2 else "<skipped ") in junit
    return result.err


@pytest.mark.parametrize("case", REFUSED)
def test_a_refusal_says_why(case: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, words = REFUSED[case]
    told = refusal(capsys, case, status)
    assert [word for word in words if word not in told] == []


def test_every_file_that_torch_refuses_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    files = sorted((cases() / "torch_refuses").iterdir())
    assert len(files) > 10
    for file in files:
        refusal(capsys, f"torch_refuses/{file.name}", 2)


@pytest.mark.parametrize("case", NOT_YET_READ)
def test_what_is_not_read_yet_is_refused(case: str, capsys: pytest.CaptureFixture[str]) -> None:
    """If this fails, the case is read: move it to where it belongs."""
    assert scanned(capsys, case, "-q").status in (2, 3)


def test_the_statuses_of_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    waiting, wrong = [], []
    for row in table("statuses.tsv"):
        words = [str(cases() / word) if (cases() / word).exists() else word for word in shlex.split(row["command"])]
        status = call(capsys, *words).status
        right = str(status) in row["status"].split()
        if row["command"] in NOT_YET or any(case in row["command"].split() for case in NOT_YET_READ):
            waiting += [row["command"]] if right else []
        elif not right:
            wrong.append((row["command"], status, row["status"]))
    assert wrong == []
    assert waiting == [], "these are as they should be now"
