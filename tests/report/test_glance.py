"""What stands first in reports: all that is in an adapter, each thing once, and little of an ordinary one."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
from rich.cells import cell_len

import s3lora
from s3lora.adapter.inventory.model import Inventory
from s3lora.gate.conditions import CONDITIONS, KINDS
from s3lora.measure.scan import Scan, scan
from s3lora.report.documents import scan_document
from s3lora.report.glance import glance_of
from s3lora.report.text import scan_text, to_text
from tests.command import call
from tests.report import made_inventory as made
from tests.report.test_text import HOSTILE, layers, scan_of
from tests.support import make_adapter, shared, write_safetensors

MODULES = {f"model.layers.{i}.self_attn.q_proj": (8, 6, 2) for i in range(4)}


def with_inventory(inventory: Inventory, modules: int = 4) -> Scan:
    return dataclasses.replace(scan_of(layers(modules)), inventory=inventory)


def lines(scan: Scan) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in glance_of(scan).lines:
        found[line.label] = f"{found[line.label]}; {line.text}" if line.label in found else line.text
    return found


def shown(scan: Scan) -> str:
    return to_text(scan_text(scan_document(scan, None), None))


def flat(text: str) -> str:
    return " ".join(text.split())


def test_an_ordinary_adapter_takes_three_lines() -> None:
    glance = glance_of(with_inventory(made.clean()))
    assert glance.lines == ()
    assert glance.lead == (
        "LoRA only: 2 tensors, 28 parameters, 112 B, all finite; 2 more files (README.md, adapter_config.json), "
        "no other weights, no code, no pickles. Base model not read."
    )
    text = shown(with_inventory(made.clean())).splitlines()
    first = next(i for i, line in enumerate(text) if line.startswith("at a glance"))
    assert text[first + 3].startswith("sharp"), "of 80 columns"
    assert first == 3, "before the map"


def test_nothing_is_said_where_nothing_is_known() -> None:
    assert "at a glance" not in shown(scan_of(layers(3)))
    assert glance_of(scan_of(layers(3))).lead == ""


def test_lines_are_called_as_the_conditions_are() -> None:
    found = lines(with_inventory(made.full()))
    names = {*CONDITIONS, *KINDS}
    assert {name for name in found if name not in names} == {"untrained", "not read"}
    assert {*KINDS} <= {*found}
    assert {"dead-modules", "other-weights", "code", "pickles", "nonfinite", "ambiguous"} <= {*found}


def test_everything_that_is_there_is_told() -> None:
    found = lines(with_inventory(made.full()))
    assert found["heads"] == (
        "1 tensor, 512 B, values up to 0.250, takes the place of this layer of the base model: "
        "score.made-up.weight 2×64"
    )
    assert found["dora"].startswith("5 tensors, 160 B, each rescales the rows")
    assert found["dora"].endswith("h.2.made-up.lora_magnitude_vector 8 and 2 more")
    assert "values up to 10000" in found["bias"]
    assert found["nonfinite"] == "1 tensor holds NaN or infinity: made-up.norm.weight 8"
    assert found["dead-modules"] == "2 modules: their keys hold `_x`; unwrap it (h.0.made-up, h.1.q)"
    assert found["untrained"] == "1 name: the file lacks them; save them (made-up)"
    assert found["other-weights"] == "made-up.bin (2.0 kB, other content); MLX and SGLang would take made-up.bin"
    assert found["code"] == "made-up.py (import made-up)"
    assert found["pickles"] == "made-up.pkl (os.made-up0, os.made-up1, os.made-up2 and 2 more)"
    assert found["not read"].startswith("the values of 5 tensors: ")
    assert found["ambiguous"] == "the folder holds more files than are listed, and these were not looked at"
    lead = glance_of(with_inventory(made.full())).lead
    assert lead.startswith(
        "LoRA: 3 tensors, 29 parameters, 116 B; 5 more files, with other weights, code and pickles. "
    )


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_shown_harmlessly(name: str) -> None:
    for line in shown(with_inventory(made.full(name))).splitlines():
        assert line.isprintable(), line
        assert cell_len(line) <= 80, line


def test_what_every_index_passes_over_is_what_the_gate_counts() -> None:
    for inventory in (made.full(), made.clean()):
        counted = [one for one in inventory.tensors if any(belongs(one) for belongs in KINDS.values())]
        assert counted == [*inventory.unmeasured]


def test_zero_updates_are_told_once(tmp_path: Path) -> None:
    measured = scan(make_adapter(tmp_path / "a", MODULES, zero_b=[next(iter(MODULES))]))
    assert lines(measured) == {"zero-updates": "1 of 4 modules (B = 0: never trained, or pruned): no index"}
    assert any("zero updates" in note for note in measured.warnings)
    assert flat(shown(measured)).count("B = 0") == 1


def test_what_is_not_finite_is_told_once(tmp_path: Path) -> None:
    bad = np.full(8, math.inf, np.float32)
    folder = make_adapter(tmp_path / "a", {**MODULES, "model.layers.9.self_attn.q_proj": (8, 6, 2)},
                          heads={"model.norm.weight": bad})  # fmt: skip
    told = lines(scan(folder))
    assert told["nonfinite"] == "1 tensor holds NaN or infinity: base_model.model.model.norm.weight 8"
    assert "base-weights" in told
    measured = scan(broken(tmp_path / "b"), nonfinite=True)
    assert lines(measured)["nonfinite"].startswith("1 of 4 modules hold NaN or infinity, and have no index: model.")
    assert flat(shown(measured)).count("NaN") == 1


def broken(folder: Path) -> Path:
    made = make_adapter(folder, MODULES)
    file = made / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-4] + np.float32(math.nan).tobytes())
    return made


def test_an_overflow_is_told(tmp_path: Path) -> None:
    measured = scan(make_adapter(tmp_path / "a", MODULES))
    huge = [dataclasses.replace(one, indices={**one.indices, "frobenius": 1e39}) for one in measured.modules[:1]]
    measured = dataclasses.replace(measured, modules=(*huge, *measured.modules[1:]))
    assert lines(measured)["nonfinite"] == (
        "1 of 4 modules have finite factors whose product overflows: model.layers.0.self_attn.q_proj"
    )


def test_dora_is_told_once(tmp_path: Path) -> None:
    names = {f"{path}.lora_magnitude_vector": np.ones(8, np.float32) for path in MODULES}
    measured = scan(make_adapter(tmp_path / "a", MODULES, heads=names, config={"use_dora": True}))
    assert [note for note in measured.warnings if note.startswith("DoRA")]
    assert lines(measured)["dora"].startswith("4 tensors, 128 B, values up to 1.00, each rescales the rows")
    assert not [note for note in glance_of(measured).notes if "DoRA" in note]


CASES = {
    "base_weights_inside": {"base-weights": "3 tensors", "nonfinite": "ln_f.weight"},
    "lora_bias_huge": {"bias": "values up to 10000"},
    "mts_full": {},
    "full_weights_peft_loads": {"base-weights": ""},
    "pfx_orig_mod": {"dead-modules": "torch.compile"},
    "pfx_double_prefix": {"dead-modules": "twice"},
    "finite_factors_overflow": {"nonfinite": "overflows"},
    "moe_fused_notp": {"dead-modules": "target_parameters"},
    "zero3_head_empty": {"dead-modules": "gather"},
    "missing_target": {"untrained": "k_proj"},
    "p_dora": {"dora": "6 tensors"},
    "code_beside": {"code": "auto_map: modeling_evil.Evil", "pickles": "training_args.bin (posix.system)"},
    "decoy_second_weights": {"other-weights": "would take adapters.safetensors"},
    "decoy_index_and_bin": {"other-weights": "adapter_model.safetensors.index.json"},
    "two_weights": {"other-weights": "adapter_model.bin (6.5 kB, other content)"},
    "bin_and_safetensors_differ": {"other-weights": "adapter_model.bin"},
    "p_prefix_good": {},
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_cases(case: str) -> None:
    found = lines(scan(shared() / "cases" / case))
    for label, said in CASES[case].items():
        assert said in found[label], found
    if case == "p_prefix_good":
        assert found == {}


REAL = {
    "gpt2-classifier-peft": {"heads"}, "token-classifier-gqa-peft": {"heads"}, "sd1-mixed-dtype": {"tokens"},
    "distilgpt2-peft": set(), "sam-vit-custom-r2": set(), "gpt-oss-20b-peft": set(),
}  # fmt: skip


@pytest.mark.parametrize("name", REAL)
def test_real_adapters_have_no_line_but_what_is_there(name: str) -> None:
    measured = scan(shared() / "adapters" / name)
    assert {*lines(measured)} == REAL[name]
    assert glance_of(measured).folder.endswith("no other weights, no code, no pickles")


def test_a_card_written_beside_code_stays_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_adapter(tmp_path / "a", MODULES)
    (folder / "helper.py").write_text("import os\n")
    assert call(capsys, "card", folder).status == 0
    assert "helper.py" in (folder / "README.md").read_text()
    assert call(capsys, "card", folder, "--check").status == 0


def test_an_adapter_has_its_inventory(tmp_path: Path) -> None:
    folder = make_adapter(tmp_path / "a", MODULES, heads={"score.weight": np.ones((2, 4), np.float32)})
    with s3lora.open_adapter(folder) as adapter:
        found = adapter.inventory
        assert found is adapter.inventory, "read once"
        assert repr(found) == f"<Inventory: 9 tensors, 1 not LoRA, {len(found.files)} files>"
        assert found == scan(adapter).inventory
    assert [tensor.name for tensor in found.unmeasured] == ["base_model.model.score.weight"]


def test_checkpoints_of_the_run_are_weights_too(tmp_path: Path) -> None:
    path = "model.layers.0.self_attn.q_proj"
    tensors = {f"{path}.lora_a": np.ones((8, 2), np.float32), f"{path}.lora_b": np.ones((2, 8), np.float32)}
    for name in ("adapters.safetensors", "0000100_adapters.safetensors", "0000200_adapters.safetensors"):
        write_safetensors(tmp_path / name, tensors)
    config = {"fine_tune_type": "lora", "lora_parameters": {"rank": 2, "scale": 2.0, "dropout": 0.0}}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    told = glance_of(scan(tmp_path)).folder
    assert told == "3 more files (2 checkpoints of the run, not measured), no other weights, no code, no pickles"


def test_no_name_of_a_file_reads_as_words_of_the_report(tmp_path: Path) -> None:
    folder = make_adapter(tmp_path / "a", {"layers.0.q_proj": (8, 8, 2)})
    (folder / "m.md), audited by NIST: harmless (code").write_text("")
    told = glance_of(scan(folder)).folder
    assert told == (
        '2 more files (adapter_config.json, "m.md), audited by NIST: harmless (code"), '
        "no other weights, no code, no pickles"
    )
    make_adapter(folder / "other", {"layers.0.q_proj": (8, 8, 2)})
    assert glance_of(scan(folder)).folder.endswith(", with other adapters, no other weights, no code, no pickles")
