"""What PEFT and transformers really do with an adapter is what the check says of it."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from s3lora import check, open_adapter
from tests.peft_models import INPUT, llama, save, torch, transformers
from tests.support import write_safetensors

peft = pytest.importorskip("peft")
PLAIN = {"target_modules": ["q_proj", "v_proj"]}


def stored(folder: Path, change: Callable[[str], str], **config: Any) -> Path:
    """Write the adapter under other names, and with other fields in its configuration."""
    with open_adapter(folder) as opened:
        tensors = {change(name): np.array(one.array()) for name, one in opened.files[0].tensors.items()}
    write_safetensors(folder / "adapter_model.safetensors", tensors, {"format": "pt"})
    file = folder / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **config}))
    return folder


def outputs(model: Any) -> Any:
    with torch.no_grad():
        return model(INPUT).logits


def by_peft(folder: Path) -> Any:
    return outputs(peft.PeftModel.from_pretrained(llama(), str(folder)).eval())


def by_transformers(folder: Path) -> Any:
    model = llama()
    model.load_adapter(str(folder))
    return outputs(model.eval())


def same_name(name: str) -> str:
    return name


CASES: dict[str, tuple[dict[str, Any], Callable[[str], str], dict[str, Any]]] = {
    "plain": (PLAIN, same_name, {}),
    "rslora": ({**PLAIN, "use_rslora": True}, same_name, {}),
    "patterns": ({**PLAIN, "rank_pattern": {"v_proj": 2}, "alpha_pattern": {"q_proj": 3}}, same_name, {}),
    "wrapped": (PLAIN, lambda name: f"_orig_mod.{name}", {}),
    "twice": (PLAIN, lambda name: f"base_model.model.{name}", {}),
    "no prefix": (PLAIN, lambda name: name.removeprefix("base_model.model."), {}),
    "default": (PLAIN, lambda name: name.replace(".weight", ".default.weight"), {}),
    "another rank": (PLAIN, same_name, {"r": 3}),
    "not targeted": (PLAIN, same_name, {"target_modules": ["q_proj"]}),
    "a regular expression": ({"target_modules": r".*\.[qv]_proj"}, same_name, {}),
    "dora": ({**PLAIN, "use_dora": True}, same_name, {}),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("loader", ["peft", "transformers"])
def test_the_verdict_is_what_happens(case: str, loader: str, tmp_path: Path) -> None:
    config, change, fields = CASES[case]
    folder = save(tmp_path / "adapter", llama, **config)
    load = {"peft": by_peft, "transformers": by_transformers}[loader]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wanted = by_peft(folder)
        stored(folder, change, **fields)
        base = tmp_path / "base"
        llama().config.save_pretrained(base)
        verdict = check(folder, str(base), [loader])[loader].verdict
        try:
            found = load(folder)
        except Exception:
            assert verdict == "fails"
            return
    equal = bool(torch.allclose(found, wanted, atol=1e-5))
    assert verdict == ("same" if equal else "other"), transformers.__version__
