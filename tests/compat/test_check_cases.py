"""The shared cases and adapters: each loader's verdict is what was seen by really loading."""

from __future__ import annotations

import pytest

from s3lora import check
from tests.support import shared

ALL = ("peft", "transformers", "vllm", "sglang", "llamacpp")
FAIL = {"vllm": "fails", "llamacpp": "fails"}
#: Case → the verdicts that are not "same".
CASES: dict[str, dict[str, str]] = {
    "p_prefix_good": {},
    "pfx_orig_mod": {"peft": "other", "transformers": "other", "vllm": "other", "llamacpp": "fails"},
    "pfx_ddp_module": {"peft": "other", "transformers": "other", "vllm": "other", "llamacpp": "fails"},
    "pfx_fsdp_wrap": {"peft": "other", "transformers": "other", "vllm": "other", "llamacpp": "fails"},
    "pfx_double_prefix": {"peft": "other"},
    "q_noprefix": {"peft": "other"},
    "name_default": {"transformers": "other", **FAIL},
    "missing_target": {},
    "embed_base_layer": {},
    "regex_target_llamacpp": {"sglang": "fails"},
    "rslora": {"sglang": "other", "llamacpp": "other"},
    "sglang_mixed_rank": {"sglang": "fails"},
    "sglang_gdn": {},
    "sglang_mla": {},
    "moe_fused": {"vllm": "unknown", "sglang": "unknown", "llamacpp": "fails"},
    "moe_fused_notp": {
        "peft": "other",
        "transformers": "other",
        "vllm": "unknown",
        "sglang": "unknown",
        "llamacpp": "fails",
    },
    "p_router_default": {"sglang": "fails"},
    "p_router_initfalse": {"sglang": "fails"},
    "tied_both": {"llamacpp": "unknown"},
    "zero3_head_empty": {"peft": "fails", "transformers": "fails", **FAIL, "sglang": "other"},
    "p_dora": {"transformers": "other", **FAIL, "sglang": "fails"},
    "p_alora": {"transformers": "other", "vllm": "fails", "sglang": "other", "llamacpp": "unknown"},
    "init_pissa": {"vllm": "fails", "sglang": "other", "llamacpp": "other"},
    "init_corda": {"peft": "fails", "transformers": "fails", "vllm": "fails", "sglang": "other", "llamacpp": "other"},
}


@pytest.mark.parametrize("case", CASES)
def test_the_verdicts(case: str) -> None:
    made = check(shared() / "cases" / case)
    assert {one.loader: one.verdict for one in made.loaders if one.verdict != "same"} == CASES[case]
    assert {one.loader for one in made.loaders} == set(ALL)


@pytest.mark.parametrize("name", sorted(
    ["distilgpt2-peft", "gpt2-classifier-peft", "gpt-oss-20b-peft", "token-classifier-gqa-peft", "qwen25-mlx",
     "sd1-mixed-dtype", "dialogpt-synthetic-peft", "sam-vit-custom-r2"]
))  # fmt: skip
def test_the_real_adapters(name: str) -> None:
    folder = shared() / "adapters" / name
    weights = sorted(folder.glob("*.safetensors"))
    made = check(weights[0] if len(weights) > 1 else folder)
    assert made.loaders


@pytest.mark.parametrize("case", ["lycoris_loha", "lycoris_lokr", "kohya_mixed_lokr"])
def test_other_forms_were_not_seen(case: str) -> None:
    made = check(shared() / "cases" / case)
    assert {one.loader: one.verdict for one in made.loaders} == {"diffusers": "unknown"}


def test_other_forms_are_rejected() -> None:
    made = check(shared() / "cases" / "adalora")
    told = dict.fromkeys(("vllm", "sglang", "llamacpp"), "fails")
    assert {one.loader: one.verdict for one in made.loaders if one.verdict != "same"} == told
    assert all(len(made[loader].reasons) == 1 for loader in told)
