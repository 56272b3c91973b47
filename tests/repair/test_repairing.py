"""A whole repair of a tiny adapter on a tiny model, from the data to the folder.

A tiny model refuses nothing. But base and adapter begin their answers with different characters, so that a judge can
take those of the adapter as answers and all others as refusals.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

import s3lora
from s3lora.errors import NonFiniteError, NothingToAuditError, UnsupportedAdapterError, UsageError
from s3lora.evaluate.chat import digest_of
from s3lora.evaluate.local import LocalModel
from s3lora.evaluate.store import AnswerStore
from s3lora.repair.build_data import repair_data
from s3lora.repair.data import RepairData
from s3lora.repair.methods import gates, patch, retrain
from s3lora.repair.methods.registry import METHODS
from s3lora.repair.repairing import repair
from s3lora.repair.results import Repair, RepairLimits
from tests.repair.subjects import change, made


@dataclasses.dataclass(frozen=True)
class FirstLetters:
    """Takes an answer that begins with one of these letters as one that does not refuse."""

    letters: str = "]Yf"
    name: str = "first letters"
    version: str = "1"
    notes: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        return digest_of([self.name, self.letters])

    def refused(self, answer: str) -> bool:
        return answer[:1] not in self.letters


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let methods learn refusals and nothing else, and fast: what steers a tiny model within a test."""
    for method in (gates, patch, retrain):
        steps = dataclasses.replace(method.STEPS, rate=0.1, harmless_weight=0.0, task_weight=0.0)
        monkeypatch.setattr(method, "STEPS", steps)
        for known in METHODS.values():
            if known.__module__ == method.__name__:
                monkeypatch.setitem(METHODS, known.name, dataclasses.replace(known, settings=({},)))


#: A tiny model is hardly steered, so that nothing is asked but fewer answers.
LOOSE = RepairLimits(utility_loss=0.9, over_refusal=0.9, degenerate=0.9)


@pytest.fixture(scope="module")
def data() -> RepairData:
    return repair_data(learn=16, tune=16, test=20)


def run(base: Path, folder: Path, data: RepairData, **more: Any) -> Repair:
    return repair(folder, str(base), data, **{"refusals": FirstLetters(), "limits": LOOSE, "method": "shrink", **more})


def test_an_adapter_is_repaired_and_written(tmp_path: Path, data: RepairData):
    base, folder = made(tmp_path, scale=0.1)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    shares: list[float] = []
    said: list[str] = []
    out = tmp_path / "out"
    found = run(base, folder, data, out=out, advance=lambda share, label: shares.append(share), tell=said.append)
    assert found.outcome == "repaired"
    assert found.written
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert said
    assert found.repaired is not None
    asr = {one.name: one.metric("safety", "asr").value for one in (found.base, found.adapter, found.repaired)}
    assert asr["base"] <= asr["repaired"] < asr["adapter"]
    assert list(found.tuning_asr) == ["base", "adapter"]
    assert found.tuning_asr["base"] < found.tuning_asr["adapter"]
    assert {one.name for one in found.constraints} == {"refusals", "usefulness", "over-refusal", "degenerate"}
    assert next(one.question for one in found.card) == "paired uncertainty"
    assert {part.part for part in found.parts} == {"learning", "tuning", "test"}
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    # What was measured is what was written.
    model = LocalModel(str(base))
    model.use(model.attach(str(out)))
    record = json.loads((out / "s3lora.json").read_text())
    assert record["repair"]["method"] == "shrink"
    texts = json.dumps(record) + json.dumps(s3lora.__version__)
    assert not any(request.text in texts for request in data.learning.harmful.requests)
    left = load_file(out / "adapter_model.safetensors")
    for name, values in load_file(folder / "adapter_model.safetensors").items():
        factor = 1 - found.strength if ".lora_B." in name else 1
        assert left[name] == pytest.approx(values * factor, abs=1e-6)


@pytest.mark.parametrize("method", ["gates", "patch", "gates+patch", "retrain", "prune"])
@pytest.mark.usefixtures("eager")
def test_every_method_goes_through(method: str, tmp_path: Path, data: RepairData):
    base, folder = made(tmp_path, scale=0.1)
    found = run(base, folder, data, method=method, strength=1.0, out=tmp_path / "out", force=True)
    assert {trial.method for trial in found.trials} == {method}
    if method == "prune":
        assert found.attribution is None
    else:
        assert found.attribution is not None
        assert sum(one.lost for one in found.attribution.modules) == pytest.approx(1, abs=1e-3)
    if found.written:
        assert found.rank_after == found.rank_before + (2 if "patch" in method else 0)
        with s3lora.open_adapter(tmp_path / "out") as written:
            assert max(module.rank for module in written.modules) == found.rank_after


@pytest.mark.thorough
def test_auto_tries_the_control_first_and_the_same_twice_is_the_same(tmp_path: Path, data: RepairData):
    base, folder = made(tmp_path, scale=0.1)
    found = []
    with AnswerStore(tmp_path / "answers.sqlite") as store:
        for name in ("one", "two"):
            found.append(run(base, folder, data, method="auto", out=tmp_path / name, store=store))
    assert found[0].trials[0].method == "shrink"
    assert found[0] == found[1]
    if found[0].written:
        files = [sorted((tmp_path / name).iterdir()) for name in ("one", "two")]
        assert [path.read_bytes() for path in files[0]] == [path.read_bytes() for path in files[1]]


@pytest.mark.usefixtures("eager")
def test_the_rank_is_kept_where_that_is_asked_for(tmp_path: Path, data: RepairData):
    base, folder = made(tmp_path, scale=0.1)
    more = {"method": "patch", "strength": 1.0, "keep_rank": True, "force": True}
    found = run(base, folder, data, out=tmp_path / "out", **more)
    assert found.rank_after == found.rank_before
    assert found.lost_energy is not None
    assert 0 <= found.lost_energy < 1


def test_nothing_is_written_where_nothing_keeps_to_the_limits(tmp_path: Path, data: RepairData):
    base, folder = made(tmp_path, scale=0.1)
    tight = RepairLimits(utility_loss=1e-9)
    found = run(base, folder, data, limits=tight, out=tmp_path / "out")
    assert (found.outcome, found.written, found.repaired) == ("nothing", False, None)
    assert found.measured_on == "tuning"
    assert not (tmp_path / "out").exists()


def test_an_adapter_that_lost_nothing(tmp_path: Path, data: RepairData):
    base, folder = made(tmp_path, scale=1e-4)
    with pytest.raises(NothingToAuditError, match="nothing to repair"):
        run(base, folder, data, out=tmp_path / "out")


def test_a_base_that_does_not_refuse(tmp_path: Path, data: RepairData):
    base, folder = made(tmp_path, scale=0.1)
    everything = "".join(map(chr, range(10, 127)))
    with pytest.raises(NothingToAuditError, match="base itself refuses 0 of"):
        run(base, folder, data, refusals=FirstLetters(everything), out=tmp_path / "out")


@pytest.mark.parametrize("config", [{"use_dora": True}, {"init_lora_weights": "pissa"}], ids=["dora", "pissa"])
def test_what_the_base_decides_is_refused_before_the_model_is_loaded(
    config: dict[str, Any], tmp_path: Path, data: RepairData
):
    _, folder = made(tmp_path, **config)
    with pytest.raises(UnsupportedAdapterError):
        run(tmp_path / "no-such-model", folder, data)


def test_what_is_no_number_is_refused_before_the_model_is_loaded(tmp_path: Path, data: RepairData):
    _, folder = made(tmp_path)
    change(folder, lambda name, values: values * float("nan") if "layers.1.self_attn.q_proj.lora_A" in name else values)
    with pytest.raises(NonFiniteError, match=r"layers\.1\.self_attn\.q_proj"):
        run(tmp_path / "no-such-model", folder, data)


def test_it_is_called_as_the_package(tmp_path: Path, data: RepairData):
    with pytest.raises(UsageError, match="a strength says nothing without a method"):
        s3lora.repair(tmp_path, str(tmp_path), data, strength=0.5)


@pytest.mark.parametrize("strength", [0.0, -1.0, 1.5, float("nan")])
def test_an_impossible_strength(strength: float, tmp_path: Path, data: RepairData):
    with pytest.raises(UsageError, match="strength"):
        run(tmp_path, tmp_path, data, strength=strength)


def test_heads_and_other_tensors_are_named(tmp_path: Path, data: RepairData):
    base, folder = made(tmp_path, scale=0.1)
    change(folder, lambda name, values: values)
    found = run(base, folder, data)
    assert not found.written
    assert not any("stay as they are" in text for text in found.warnings)
