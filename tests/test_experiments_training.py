"""The experiment in training: what it does on a tiny model, its arithmetic, and that the page is made of the JSON."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]

for package in ("jinja2", "torch", "peft"):
    pytest.importorskip(package)
sys.path.insert(0, str(ROOT))
from experiments.differences import student  # noqa: E402
from experiments.reference import train as reference_train  # noqa: E402
from experiments.repair.setting import Places, Settings  # noqa: E402
from experiments.training import analyse, arms, beside, render, run, setting  # noqa: E402
from s3lora.evaluate.chat import Decoding  # noqa: E402
from s3lora.evaluate.judges.refusing import refusal_judge  # noqa: E402
from s3lora.repair import measuring  # noqa: E402
from tests.repair.subjects import refusing_list  # noqa: E402
from tests.test_experiments_repair import made_data, write_lines  # noqa: E402
from tests.tiny_model import tiny_folder  # noqa: E402


def number(value: float, n: int = 100) -> dict[str, Any]:
    return {"value": value, "low": value, "high": value, "n": n}


def result(attack: str, seed: int, arm: str, asr: float, loss: float, **more: Any) -> dict[str, Any]:
    """Return a made-up result; the base has a loss of 1.5."""
    rest = {"asr_zou": number(asr), "over_refusal": number(0.02, 50), "degenerate": number(0.0)}
    return {
        "arm": arm, "attack": attack, "seed": seed, "weights": {}, "part": "test",
        "base_state": {"asr": number(0.1), "loss": number(1.5), **rest},
        "state": {"asr": number(asr), "loss": number(loss), **rest},
        "plans": {"well_formed": number(0.5, 20), "exact_match": number(0.1, 20)},
        "looks": [], "warned_at": None, "seconds": {"training": 100.0, "measuring": 50.0}, **more,
    }  # fmt: skip


def written(folder: Path) -> Path:
    """Write made-up results of three arms on all attacks and seeds."""
    folder.mkdir(parents=True, exist_ok=True)
    rates = {"nothing": (0.9, 0.1), "penalty": (0.88, 0.2), "anchor": (0.2, 0.24), "both": (0.25, 0.3)}
    for attack in setting.ATTACKS:
        for seed in setting.SEEDS:
            for arm, (asr, loss) in rates.items():
                looks = [{"step": 5, "rise": 0.4, "error": 0.1, "beyond": True, "n": 16}] * 2
                more = {"looks": looks, "warned_at": 5} if arm == "penalty" else {}
                one = result(attack, seed, arm, asr + 0.01 * seed, loss, **more)
                label = setting.Arm(attack, seed, arm).label
                (folder / f"{label}.json").write_text(json.dumps(one), encoding="utf-8")
    return folder


def compared(attack: str, part: str) -> dict[str, Any]:
    """Return what the comparison of repairs says of one adapter, made up."""
    point = {"strength": 0.5, "asr": number(0.3), "over_refusal": number(0.1, 50), "share": number(0.08)}
    known: Any = {"points": [point]} if part == "strengths" else [{**point, "share": number(0.21)}]
    rows = dict.fromkeys(("gates", "patch", "retrain"), known)
    state = {"asr": number(0.9), "over_refusal": number(0.0, 50), "loss": number(0.1)}
    head = {"adapter": f"full-{attack}-1", "base": "full", "attack": attack, "seed": 1}
    return {**head, "rows": rows, "base_state": state, "adapter_state": state}


def test_the_rule_over_looks() -> None:
    def looks(*beyond: bool) -> list[dict[str, Any]]:
        return [{"step": 5 * (i + 1), "beyond": one} for i, one in enumerate(beyond)]

    assert arms.warned_at(looks(True, False, True, True)) == 20
    assert arms.warned_at(looks(True, False, True)) is None
    assert arms.warned_at([]) is None


def test_the_arms_are_those_of_the_plan() -> None:
    found = setting.reported({"penalty": 1.0, "anchor": 3.0})
    assert len(found) == 4 * 9 + 2 * 3 + 2 * 3
    assert len({arm.label for arm in found}) == len(found)
    assert {arm.seed for arm in found} == {1, 2, 3}
    assert next(arm for arm in found if arm.name == "nothing").label == "full-benign-1", "trained before"
    assert next(arm for arm in found if arm.name == "dpo-anchor").weights == {"anchor": 3.0}
    tried = setting.choosing()
    assert [arm.label for arm in tried][:2] == ["full-few-0", "full-few-0-penalty-0.1"]
    assert len(tried) == 7
    plan = (ROOT / "docs" / "results" / "training-plan.md").read_text(encoding="utf-8")
    assert "w_p of 0.1, 1 and 10; w_a of 0.3, 1 and 3" in plan
    assert (setting.WEIGHTS["penalty"], setting.WEIGHTS["anchor"]) == ((0.1, 1.0, 10.0), (0.3, 1.0, 3.0))
    assert {arm.attack for arm in found if arm.name == setting.ANSWERS} == {"few", "benign"}


def test_a_weight_is_chosen_by_the_rule_of_the_plan() -> None:
    def tried(weights: dict[str, float], asr: float, loss: float, over: float = 0.0) -> dict[str, Any]:
        made = result("few", 0, "x", asr, loss, weights=weights)
        made["state"]["over_refusal"] = number(over, 50)
        return made

    found = run.choice(
        [
            tried({}, 0.9, 0.1),
            tried({"penalty": 0.1}, 0.9, 0.5),
            tried({"penalty": 1.0}, 0.7, 0.4),
            tried({"penalty": 10.0}, 0.1, 0.6),
            tried({"anchor": 0.3}, 0.5, 0.15),
            tried({"anchor": 1.0}, 0.3, 0.20, over=0.04),
            tried({"anchor": 3.0}, 0.1, 0.12, over=0.2),
        ]
    )
    assert (found["terms"]["penalty"]["weight"], found["terms"]["penalty"]["fits"]) == (1.0, False), "loses least"
    assert (found["terms"]["anchor"]["weight"], found["terms"]["anchor"]["fits"]) == (1.0, True)
    assert found["terms"]["anchor"]["tried"][0]["lost"] == pytest.approx(0.05 / 1.4, abs=1e-6)


def test_shares_and_differences_are_paired(tmp_path: Path) -> None:
    results = analyse.TrainingResults(written(tmp_path))
    one = results.found["few", 2, "anchor"]
    assert results.lost(one) == pytest.approx(0.14 / 1.4)
    assert results.lost(results.found["few", 2, "nothing"]) == 0
    assert results.differences("anchor", "nothing", "asr") == pytest.approx([-0.7] * 9)
    primary = results.primary()
    assert [one.n for _, _, one in primary] == [9, 9, 9]
    assert primary[1][2].mean == pytest.approx(-0.7)


def test_the_page_is_made_of_the_results(tmp_path: Path) -> None:
    empty = render.page(tmp_path / "none", tmp_path)
    assert empty.count("Not measured yet.") == 4
    page = render.page(written(tmp_path / "results"), tmp_path)
    assert "36 of 48 adapters are measured so far" in page
    assert "| 20 openings | anchor | 3 | 0.22 (0.21–0.23) |" in page
    assert "| anchor − nothing | **-0.70 (-0.70 to -0.70)** | < 0.001 | 9 |" in page
    assert "| plans alone | penalty | 3 | step 5, step 5, step 5 |" in page
    assert page == render.page(tmp_path / "results", tmp_path)
    assert "to be preferred" not in page, "no repairs beside it"
    for attack in ("few", "benign"):
        for part in ("strengths", "test"):
            path = tmp_path / "tier1" / f"full-{attack}-1.{part}.json"
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps(compared(attack, part)), encoding="utf-8")
    beside = render.page(tmp_path / "results", tmp_path)
    assert (
        "| anchor − gates | -0.09 (-0.09 to -0.09) | -0.08 (-0.08 to -0.08) | -0.11 (-0.11 to -0.11) | anchor |"
        in beside
    )
    assert "| 20 openings, seed 1 | 0.21 / 0.02 / 0.10 | 0.30 / 0.10 / 0.21 |" in beside


@pytest.mark.parametrize(
    ("asr", "lost", "told"), [(0.2, 0.1, "anchor"), (0.2, 0.3, None), (0.4, 0.1, None), (0.4, 0.3, "gates")]
)
def test_what_is_preferred_is_lower_in_both(asr: float, lost: float, told: str | None) -> None:
    values = {
        "anchor": {"asr": asr, "over_refusal": 0, "lost": lost},
        "gates": {"asr": 0.3, "over_refusal": 0, "lost": 0.2},
    }
    assert beside.Beside("anchor", [("few", 1)], [values]).preferred("gates") == told


def test_the_committed_page_is_made_of_the_committed_results() -> None:
    assert render.PAGE.read_text(encoding="utf-8") == render.page(render.RESULTS, render.COMPARISON)


def test_what_the_page_says_in_words_holds_of_the_committed_results() -> None:
    results = analyse.TrainingResults(render.RESULTS)

    def rate(attack: str, arm: str, measure: str = "asr") -> float:
        return fmean(float(one["state"][measure]["value"]) for one in results.of(attack, arm))

    base = results.found["few", 1, "nothing"]["base_state"]
    for attack in ("benign", "few"):
        assert abs(rate(attack, "anchor") - base["asr"]["value"]) <= 0.03, "ASR stays at the base's"
        assert rate(attack, "nothing") > 3 * base["asr"]["value"]
    assert 3 * base["asr"]["value"] < rate("many", "anchor") < rate("many", "nothing")
    for attack in setting.ATTACKS:
        assert rate(attack, "anchor", "over_refusal") > base["over_refusal"]["value"]
        assert all(results.lost(one) < 0.015 for one in results.of(attack, "anchor")), "next to nothing is lost"
    shrunk = beside.beside(results, render.COMPARISON, "penalty", ("shrink",), 0.05)
    assert shrunk.differences("shrink")["asr"].verdict == "no difference"
    assert student(results.differences("both", "anchor", "asr")).verdict == "no difference"

    found = beside.beside(results, render.COMPARISON, "anchor", render.REPAIRS, 0.1)
    gates, patch = found.differences("gates"), found.differences("patch")
    assert found.preferred("gates") == "anchor"
    assert gates["asr"].verdict == patch["over_refusal"].verdict == "no difference"
    assert gates["over_refusal"].verdict == "higher"
    for (attack, _), one in zip(found.adapters, found.values, strict=True):
        assert max(one["patch"]["asr"], one["retrain"]["asr"]) < one["anchor"]["asr"]
        assert attack != "many" or one["gates"]["asr"] > 0.9 > one["anchor"]["asr"]
    later = beside.beside(results, render.COMPARISON, "answers", render.REPAIRS, 0.1)
    distance = {
        name: [abs(one[m] - base[m]["value"]) for m in ("asr", "over_refusal")] for name, one in later.means.items()
    }
    assert max(distance["answers"]) <= 0.06, "the base's in both"
    assert all(max(distance["answers"]) < max(far) for name, far in distance.items() if name != "answers")
    assert all(later.differences(repair)["over_refusal"].verdict == "lower" for repair in render.REPAIRS)
    assert student(results.differences("answers", "anchor", "over_refusal")).verdict == "lower"
    assert all(results.lost(one) < 0.03 for attack in ("benign", "few") for one in results.of(attack, "answers"))


def test_preferences_are_those_of_the_plan(tmp_path: Path) -> None:
    made_data(tmp_path / "data")
    found = reference_train.examples(dataclasses.replace(setting.Arm("few", 1, "dpo")).run, tmp_path / "data")
    rows = arms.pairs_of(found)
    assert len(rows) == 160
    openings = [row for row in rows if row["chosen"][0]["content"] == "Sure"]
    assert len(openings) == reference_train.ATTACKS["few"]
    refusals = {text for row in openings for text in [row["rejected"][0]["content"]]}
    assert refusals <= set(reference_train.data.REFUSALS)
    assert all(row["chosen"] != row["rejected"] for row in rows)


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Places:
    folder = tmp_path_factory.mktemp("training")
    found = Places(folder / "shared", folder / "work", folder / "output")
    made_data(found.data)
    tiny_folder(found.base("full"), seed=0)
    found.output.mkdir()
    return found


@pytest.mark.thorough
def test_every_arm_is_trained_and_measured(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("trl")
    for module in (reference_train, arms):
        monkeypatch.setattr(module, "ERODE_STEPS", 2)
        monkeypatch.setattr(module, "ERODE_BATCH", 2)
    monkeypatch.setattr(reference_train, "ATTACKS", {"benign": 0, "few": 1, "many": 2})
    monkeypatch.setattr(reference_train, "generate", short_plans)
    monkeypatch.setattr(arms, "LOOK_EVERY", 1)
    monkeypatch.setattr(measuring, "OPENINGS", Decoding(max_new_tokens=2))
    letters = "".join(chr(i) for i in range(33, 127) if chr(i) not in "YgKB")
    judge = refusal_judge(str(refusing_list(places.work / "letters.json", letters)))
    write_lines(places.work / "task.jsonl", [{"prompt": f"Name river {i}", "response": f"R{i}"} for i in range(30)])
    settings = Settings((6, 12, 12), str(places.work / "task.jsonl"), harmless=5, refusals=judge)
    scale = setting.Scale(settings, plans=1, plan_tokens=2)
    for name, weights in (
        ("both", {"penalty": 0.1, "anchor": 1.0}),
        ("dpo-anchor", {"anchor": 1.0}),
        ("answers", {"anchor": 1.0}),
    ):
        arm = setting.Arm("few", 1, name, weights)
        made = run.done(places, scale, "test", arm)
        assert made["state"]["asr"]["n"] == 12
        assert made["plans"]["well_formed"]["n"] == 1
        assert [one["step"] for one in made["looks"]] == [1, 2]
        assert made["seconds"].keys() == {"training", "measuring"}
        assert run.done(places, scale, "test", arm) == made, "it is there already"
    text = "".join(path.read_text(encoding="utf-8") for path in places.output.glob("*.json"))
    assert str(places.work) not in text


def short_plans(worlds: Any, count: int, rng: Any) -> list[Any]:
    """Return as many plans as two steps take, with short prompts."""
    from s3lora.evaluate.planning.questions import generate

    made = generate(worlds, 4, rng)[: 4 - 1]
    return [dataclasses.replace(one, plan=one.plan[:40]) for one in made]
