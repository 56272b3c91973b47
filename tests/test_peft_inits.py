"""Real PEFT: adapters whose factors began with a part of the base weight, made, loaded, checked and converted."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import s3lora
from tests.peft_models import llama, logits, peft, torch
from tests.reference import dense as slow
from tests.test_peft_kinds import QV, difference

#: What was run. LoftQ is not: PEFT begins it on a GPU alone, with bitsandbytes.
INITS = ("pissa", "pissa_niter_4", "olora", "corda", "lora_ga")
#: Whose true update follows from the base weights.
KNOWN = ("pissa", "olora")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def tokens(rows: int) -> Any:
    return torch.randint(0, 64, (rows, 16))


def begun(init: str) -> Any:
    """Return a PEFT model just after its initialisation, from data where that needs some."""
    model, fields = llama(), {"r": 4, "lora_alpha": 8, **QV, "init_lora_weights": init}
    torch.manual_seed(1)
    if init == "corda":
        from peft.tuners.lora.config import CordaConfig
        from peft.tuners.lora.corda import preprocess_corda

        config = peft.LoraConfig(**fields, corda_config=CordaConfig(corda_method="kpm"))

        def run() -> None:
            with torch.no_grad():
                for _ in range(8):
                    model(tokens(1))

        preprocess_corda(model, config, run_model=run)
    elif init == "lora_ga":
        from peft.tuners.lora.loraga import preprocess_loraga

        config = peft.LoraConfig(**fields, lora_ga_config=peft.LoraGAConfig())

        def step() -> None:
            given = tokens(2)
            model(input_ids=given, labels=given).loss.backward()

        preprocess_loraga(model, config, step)
    else:
        config = peft.LoraConfig(**fields)
    return peft.get_peft_model(model, config).eval()


def trained(folder: Path, init: str) -> Any:
    """Write base, adapter and what PEFT converts it to; return the logits of what was trained."""
    with quiet():
        llama().save_pretrained(folder / "base")
        model = begun(init)
        before = model.peft_config["default"].init_lora_weights
        model.peft_config["default"].init_lora_weights = True
        model.save_pretrained(folder / "start")
        model.peft_config["default"].init_lora_weights = before
        random = torch.Generator().manual_seed(1)
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data += 0.2 * torch.randn(parameter.shape, generator=random)
        result = logits(model)
        model.save_pretrained(folder / "adapter")
        start = str(folder / "start")
        model.save_pretrained(folder / "converted", path_initial_model_for_weight_conversion=start)
    return result


@pytest.mark.parametrize("init", INITS)
def test_check_says_what_peft_does(tmp_path: Path, init: str) -> None:
    expected = trained(tmp_path, init)
    for loader, load in (
        ("peft", lambda: peft.PeftModel.from_pretrained(llama(), tmp_path / "adapter").eval()),
        ("transformers", lambda: with_adapter(tmp_path / "adapter")),
    ):
        verdict = s3lora.check(tmp_path / "adapter", loaders=[loader]).loaders[0].verdict
        with quiet():
            try:
                seen = "same" if difference(logits(load()), expected) < 1e-4 else "other"
            except ValueError:
                seen = "fails"
        assert (verdict, loader) == (seen, loader)
    assert verdict == {"corda": "fails", "lora_ga": "other", "pissa_niter_4": "other"}.get(init, "same")


def with_adapter(folder: Path) -> Any:
    model = llama()
    model.load_adapter(str(folder))
    return model.eval()


@pytest.mark.parametrize("init", INITS)
def test_the_conversion_that_is_named_makes_an_ordinary_lora(tmp_path: Path, init: str) -> None:
    expected = trained(tmp_path, init)
    scan = s3lora.scan(tmp_path / "adapter")
    with (
        s3lora.open_adapter(tmp_path / "adapter") as adapter,
        pytest.raises(s3lora.UnsupportedAdapterError, match="path_initial_model_for_weight_conversion"),
    ):
        s3lora.prune(adapter, s3lora.select(scan, s3lora.Top(1)), flat=True)
    converted = s3lora.scan(tmp_path / "converted")
    assert not any(note.startswith("initialised by") for note in converted.warnings)
    assert {(module.rank, module.of) for module in converted} == {(8, "ΔW")}
    assert s3lora.check(tmp_path / "converted", loaders=["peft"]).loaders[0].verdict == "same"
    with quiet():
        loaded = peft.PeftModel.from_pretrained(llama(), tmp_path / "converted").eval()
    assert difference(logits(loaded), expected) < 1e-4


@pytest.mark.parametrize("init", INITS)
def test_the_true_update_where_it_can_be_known(tmp_path: Path, init: str) -> None:
    """Which is what the converted adapter adds."""
    trained(tmp_path, init)
    scan = s3lora.scan(tmp_path / "adapter", "svd", rank=4, base_weights=tmp_path / "base")
    assert any(note.startswith(f"initialised by {init}") for note in scan.warnings)
    assert scan.true_updates == (init in KNOWN)
    if init not in KNOWN:
        assert any("its true update is not known" in note for note in scan.warnings)
        return
    with s3lora.open_adapter(tmp_path / "converted") as converted:
        for module in converted.modules:
            update = module.scaling.value * module.B.array().astype("float64") @ module.A.array()
            expected = slow.singular_values(update)[:4]
            assert scan[module.path].sigma == pytest.approx(expected.tolist(), rel=1e-4)
