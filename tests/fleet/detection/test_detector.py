"""Training, measuring, saving and applying a detector on populations whose truth is known."""

from __future__ import annotations

import dataclasses
import json
import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from s3lora.errors import UsageError
from s3lora.fleet.detection import fitting
from s3lora.fleet.detection.detector import CAUTION, Detector, judge, load, save_detector
from s3lora.fleet.detection.fitting import CANDIDATES, calibrated, fit, model_of
from s3lora.fleet.detection.population import LEAST, population_of
from s3lora.fleet.detection.training import train
from s3lora.fleet.signature import FEATURES
from tests.fleet.detection.populations import Made, made

pytest.importorskip("sklearn")


def trained(population: Made, **options: Any) -> Detector:
    return train(population.x, population.y, recipes=population.recipes, **options)


@pytest.fixture(scope="module")
def apart() -> Detector:
    """Return a detector of classes that differ, of one recipe as of another."""
    return trained(made(300, shift=1.0))


@pytest.fixture(scope="module")
def null() -> Detector:
    """Return a detector of labels that mean nothing."""
    return trained(made(300, shift=0.0))


@pytest.fixture(scope="module")
def recipes() -> Detector:
    """Return a detector of classes that differ less than recipes do."""
    return trained(made(400, shift=0.5, recipes=6, spread=3.0, seed=1))


def as_values(row: Any) -> dict[str, float | None]:
    return dict(zip(FEATURES["plain"], map(float, row), strict=True))


def test_classes_that_differ_are_told_apart(apart: Detector) -> None:
    assert apart.held_out.auc is not None
    assert apart.unseen is not None
    assert apart.unseen.auc is not None
    assert apart.tells_apart
    assert apart.held_out.auc.low > 0.9
    assert apart.unseen.auc.low > 0.9
    assert apart.held_out.recall is not None
    assert apart.held_out.recall.value > 0.8
    assert apart.held_out.brier is not None
    assert apart.held_out.brier.high < apart.held_out.brier.constant
    assert apart.warnings == ()


def test_labels_that_mean_nothing_are_not_told_apart(null: Detector) -> None:
    assert not null.tells_apart
    for found in (null.held_out, null.unseen):
        assert found is not None
        assert found.auc is not None
        assert found.auc.low < 0.5 < found.auc.high
        assert found.false_positives is not None
        assert found.false_positives.low <= null.training.target
    assert any("cannot tell its classes apart" in warning for warning in null.warnings)
    verdict = judge(null, "a", as_values(made(300, shift=9.0).x[0]))
    assert verdict.unusual is None
    assert "cannot tell" in verdict.note


def test_the_false_positive_rate_is_near_its_target() -> None:
    """Over many populations without any difference, so that no single draw decides."""
    false, n = 0, 0
    for seed in range(12):
        rate = train(*made(240, shift=0.0, seed=seed)[:2], seed=seed).held_out.false_positives
        assert rate is not None
        false, n = false + rate.count, n + rate.n
    assert n > 300
    assert 0.02 < false / n < 0.09, "three deviations of a rate of 0.05 among as many"


def test_a_new_recipe_is_harder(recipes: Detector) -> None:
    """The replication's lesson: rates among known recipes say little of a new one."""
    assert recipes.unseen is not None
    known, new = recipes.held_out, recipes.unseen
    assert known.auc is not None
    assert new.auc is not None
    assert known.false_positives is not None
    assert new.false_positives is not None
    assert new.auc.high < known.auc.value
    assert new.false_positives.low > recipes.training.target
    assert known.false_positives.low <= recipes.training.target
    assert any("recipes that it has not seen" in warning for warning in recipes.warnings)
    worst = max(one.unseen.value for one in recipes.recipes if one.unseen is not None)
    assert worst > new.false_positives.value, "a mean over recipes hides the worst of them"


def test_every_adapter_counts_once(recipes: Detector) -> None:
    facts = recipes.training
    assert sum(facts.negative) + sum(facts.positive) == 400
    assert sum(one.negative for one in recipes.recipes) == sum(facts.negative)
    assert sum(one.held_out.n for one in recipes.recipes if one.held_out) == facts.negative[1]
    assert recipes.unseen is not None
    assert recipes.unseen.false_positives is not None
    assert sum(one.unseen.n for one in recipes.recipes if one.unseen) == sum(facts.negative)
    assert sum(one.unseen.count for one in recipes.recipes if one.unseen) == recipes.unseen.false_positives.count
    for part in (facts.negative, facts.positive):
        assert part[1] / sum(part) == pytest.approx(facts.held_out, abs=0.02)


def test_no_choice_sees_the_held_out_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one fit is of the other rows, and what is measured is of those that it was not given."""
    rows = made(200, shift=1.0)
    seen: list[Any] = []

    def noted(x: Any, y: Any, *rest: Any) -> Any:
        seen.append({tuple(row) for row in x})
        return fit(x, y, *rest)

    monkeypatch.setattr("s3lora.fleet.detection.training.fit", noted)
    detector = train(rows.x, rows.y)
    assert len(seen) == 1
    assert len(seen[0]) == detector.training.negative[0] + detector.training.positive[0]
    held = [i for i, row in enumerate(rows.x) if tuple(row) not in seen[0]]
    assert len(held) == detector.training.negative[1] + detector.training.positive[1]
    probabilities = detector.model.probabilities(rows.x[held])
    flagged = probabilities[rows.y[held] == 0] > detector.model.threshold
    assert detector.held_out.false_positives is not None
    assert detector.held_out.false_positives.count == np.sum(flagged)


def test_one_recipe_says_nothing_of_others() -> None:
    detector = trained(made(120, shift=1.0, recipes=1))
    assert detector.unseen is None
    assert any("of one recipe" in warning for warning in detector.warnings)


def test_a_recipe_that_has_one_label_is_told() -> None:
    rows = made(200, shift=1.0)
    detector = train(rows.x, rows.y, recipes=[f"label {label}" for label in rows.y])
    assert detector.unseen is None, "without either recipe there is one label only"
    assert any("may be the recipes" in warning for warning in detector.warnings)


def test_very_many_recipes_are_left_out_several_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = made(200, shift=1.0, recipes=60)
    rounds: list[int] = []
    monkeypatch.setattr("s3lora.fleet.detection.training.fit", lambda x, *rest: rounds.append(len(x)) or fit(x, *rest))
    detector = train(rows.x, rows.y, recipes=rows.recipes, folds=2)
    assert len(rounds) == 1 + 20
    assert detector.unseen is not None
    assert detector.unseen.brier is not None
    assert detector.unseen.brier.n == 200
    assert sum(200 - size for size in rounds[1:]) == 200, "every adapter is left out once"


def test_too_few_for_the_target_is_told() -> None:
    detector = train(*made(60, shift=1.0)[:2], target=0.01)
    assert any("too few for a false-positive rate of 0.01" in warning for warning in detector.warnings)


@pytest.mark.parametrize("c", [CANDIDATES[0], 1.0, CANDIDATES[-1]])
@pytest.mark.parametrize("shift", [0.0, 1.0, 30.0])
def test_probabilities_are_those_of_scikit_learn(c: float, shift: float) -> None:
    from sklearn.model_selection import StratifiedKFold

    rows, fresh = made(150, shift=shift), made(150, shift=2 * shift, seed=1)
    classifier = calibrated(rows.x, rows.y, c, StratifiedKFold(5, shuffle=True, random_state=0))
    model = model_of(classifier, rows.x)
    for x in (rows.x, fresh.x, 1e6 * fresh.x):
        assert np.abs(model.probabilities(x) - classifier.predict_proba(x)[:, 1]).max() < 1e-12


def test_a_row_has_one_probability_in_whatever_company(apart: Detector) -> None:
    x = made(300, shift=1.0).x
    together = apart.model.probabilities(x)
    assert [apart.probability(row) for row in x] == together.tolist()


def test_the_threshold_is_of_adapters_that_were_not_fitted(apart: Detector) -> None:
    """As many of the cross-validated probabilities lie above it as the target allows, and not one more."""
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    rows = made(200, shift=0.3)
    fitted = fit(rows.x, rows.y, 5, 0, 0.1)
    splitter = StratifiedKFold(5, shuffle=True, random_state=0)
    regression = fitting.regression(fitted.inverse_penalty)
    scores = cross_val_predict(regression, rows.x, rows.y, cv=splitter, method="decision_function")
    found = 1 / (1 + np.exp(fitted.model.slope * scores[rows.y == 0] + fitted.model.offset))
    assert np.sum(found > fitted.model.threshold + 1e-12) == int(0.1 * (len(found) + 1)) - 1


def test_the_same_bytes_from_the_same_rows(apart: Detector) -> None:
    rows = made(300, shift=1.0)
    order = np.random.default_rng(9).permutation(300)
    again = train(rows.x[order], rows.y[order], recipes=[rows.recipes[i] for i in order])
    assert save_detector(again) == save_detector(apart)
    assert save_detector(train(rows.x, rows.y, recipes=rows.recipes, seed=1)) != save_detector(apart)


def test_a_detector_comes_back_as_it_was(apart: Detector, null: Detector, tmp_path: Path) -> None:
    for detector in (apart, null):
        path = tmp_path / "detector.json"
        path.write_bytes(save_detector(detector))
        assert load(path) == detector
    assert json.loads(save_detector(apart))["caution"] == CAUTION
    assert "backdoor" not in save_detector(apart).decode()


def test_applying_needs_no_scikit_learn(apart: Detector, tmp_path: Path) -> None:
    from tests.test_architecture import loaded_after

    path = tmp_path / "detector.json"
    path.write_bytes(save_detector(apart))
    run = "from s3lora.fleet.detection.detector import load\nload(sys.argv[1]).probability([1.0] * 20)"
    assert not loaded_after(run, path).intersection(("sklearn", "scipy", "pyarrow", "pickle5"))


def changed(document: dict[str, Any], keys: str, value: Any) -> dict[str, Any]:
    *parents, last = keys.split(".")
    at: Any = document
    for key in parents:
        at = at[int(key)] if key.isdecimal() else at[key]
    at[int(last) if last.isdecimal() else last] = value
    return document


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        ("schema_version", 2),
        ("schema_version", "1"),
        ("variant", "cubed"),
        ("variant", "squared"),
        ("features", []),
        ("features.0", "k_sigma1"),
        ("model", None),
        ("model.means", [0.0] * 19),
        ("model.means.3", "0"),
        ("model.means.3", None),
        ("model.means.3", True),
        ("model.coefficients", {}),
        ("model.scales.0", 0.0),
        ("model.scales.0", -1.0),
        ("model.threshold", 1.5),
        ("model.threshold", -0.1),
        ("training.recipes_from", "guessed"),
        ("held_out", []),
        ("recipes.0.held_out.n", "many"),
    ],
)
def test_what_is_no_detector_is_refused(apart: Detector, tmp_path: Path, keys: str, value: Any) -> None:
    path = tmp_path / "detector.json"
    path.write_text(json.dumps(changed(json.loads(save_detector(apart)), keys, value)))
    with pytest.raises(UsageError, match=r"is no detector|of version 2") as raised:
        load(path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b'{"schema_version": 1}',
        b'{"schema_version": 1, "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"schema_version": 1e999}',
        b"\xff\xfe",
        pickle.dumps({"schema_version": 1}),
    ],
)
def test_foreign_bytes_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "detector.json"
    path.write_bytes(content)
    with pytest.raises(UsageError):
        load(path)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_are_none_are_refused(apart: Detector, tmp_path: Path, number: str) -> None:
    path = tmp_path / "detector.json"
    document = changed(json.loads(save_detector(apart)), "model.means.0", 12345.678)
    path.write_text(json.dumps(document).replace("12345.678", number))
    assert number in path.read_text()
    with pytest.raises(UsageError):
        load(path)


def test_a_missing_or_huge_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        load(tmp_path / "nowhere.json")
    monkeypatch.setattr("s3lora.fleet.detection.detector.MAX_DETECTOR", 10)
    (tmp_path / "detector.json").write_text(" " * 11)
    with pytest.raises(UsageError, match="larger than 10 bytes"):
        load(tmp_path / "detector.json")


def test_extreme_numbers_of_a_valid_file_give_an_error_or_a_probability(apart: Detector) -> None:
    model = dataclasses.replace(apart.model, scales=(1e-300,) * 20, coefficients=(1e300,) * 20)
    with pytest.raises(UsageError, match="too large"):
        model.probabilities(np.full((1, 20), 1e300))
    assert 0 <= apart.probability([1e100] * 20) <= 1
    with pytest.raises(UsageError, match="not finite"):
        apart.probability([math.nan] * 20)
    with pytest.raises(UsageError, match="has 20 numbers, not 19"):
        apart.probability([1.0] * 19)


def test_verdicts(apart: Detector) -> None:
    rows = made(300, shift=1.0)
    for row, label in zip(rows.x[:40], rows.y[:40], strict=True):
        verdict = judge(apart, "a", as_values(row))
        assert verdict.probability == apart.probability(row)
        assert verdict.unusual is (apart.probability(row) > apart.model.threshold)
        assert verdict.unusual == (label == 1) or 0.01 < verdict.probability < 0.99
        assert verdict.outside == ()
        assert verdict.known_recipe is None, "these recipes were given, and none can be derived"
    far = as_values(rows.x[0]) | {"v_entropy": 1e6}
    assert judge(apart, "a", far).outside == ("v_entropy",)


def test_a_verdict_without_a_signature_says_nothing(apart: Detector) -> None:
    verdict = judge(apart, "a", {**as_values(made(300, shift=1.0).x[0]), "k_sigma1": None})
    assert verdict.probability is verdict.unusual is None
    assert "no numbers for k" in verdict.note


def test_known_recipes_are_told_where_they_are_facts() -> None:
    rows = made(200, shift=1.0)
    detector = train(rows.x, rows.y, recipes=rows.recipes, recipes_from="facts")
    for recipe, known in (("recipe 1", True), ("recipe 77", False), (None, None)):
        assert judge(detector, "a", as_values(rows.x[0]), recipe).known_recipe is known


def test_rows_that_cannot_be_used_are_counted_and_named() -> None:
    rows = made(120, shift=1.0)
    x, names = rows.x.copy(), [f"adapter {i}" for i in range(120)]
    x[3, 4], x[5, 0], x[8, 2] = np.nan, np.inf, 1e200
    x[11] = x[10]
    y = rows.y.copy()
    y[11] = y[10]
    detector = train(x, y, names=names)
    bad, twice = detector.training.left_out
    assert (bad.count, bad.rows) == (3, ("adapter 3", "adapter 5", "adapter 8"))
    assert (twice.count, twice.rows) == (1, ("adapter 11",))
    assert sum(detector.training.negative) + sum(detector.training.positive) == 116


def test_rows_without_numbers_do_not_disturb_the_order() -> None:
    """NaN compares with nothing, so that a sort among such rows may end anywhere."""
    rows = made(150, shift=1.0)
    x, y = rows.x.copy(), rows.y.copy()
    x[::3, 0] = np.nan
    several = {
        train(x[order], y[order]).training.sha256 for order in map(np.random.default_rng(5).permutation, [150] * 5)
    }
    assert len(several) == 1


def test_the_same_adapter_under_both_labels_is_refused() -> None:
    rows = made(120, shift=1.0)
    x, y = rows.x.copy(), rows.y.copy()
    x[1], y[0], y[1] = x[0], 0, 1
    with pytest.raises(UsageError, match=r"row 0 and row 1 have the same signature and different labels"):
        train(x, y)


def test_too_few_of_a_label_are_refused() -> None:
    rows = made(100, shift=1.0)
    few = np.flatnonzero(rows.y == 1)[LEAST - 1 :]
    with pytest.raises(UsageError, match=r"are labelled 0 and 19 are labelled 1, and 20 of each are needed"):
        train(np.delete(rows.x, few, axis=0), np.delete(rows.y, few))
    with pytest.raises(UsageError, match="100 adapters are labelled 0 and 0 are labelled 1"):
        train(rows.x, np.zeros(100))
    x = rows.x.copy()
    x[rows.y == 1, 0] = np.nan
    with pytest.raises(UsageError, match="rows are left out: a number of the signature is missing"):
        train(x, rows.y)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"labels": [2] * 100}, "labels must be 0 or 1"),
        ({"labels": [0.5] * 100}, "labels must be 0 or 1"),
        ({"labels": [0, 1]}, "do not fit"),
        ({"signatures": np.zeros((100, 19))}, "rows of 20 numbers"),
        ({"signatures": np.zeros(20)}, "rows of 20 numbers"),
        ({"recipes": ["a"]}, "do not fit"),
        ({"names": ["a"]}, "do not fit"),
        ({"variant": "cubed"}, "no variant"),
        ({"folds": 1}, "folds"),
        ({"folds": 11}, "folds"),
        ({"held_out": 0.0}, "held_out"),
        ({"held_out": 0.6}, "held_out"),
        ({"target": 0.0}, "target"),
        ({"target": math.nan}, "target"),
        ({"seed": -1}, "seed"),
    ],
)
def test_what_cannot_be_meant_is_refused(options: dict[str, Any], problem: str) -> None:
    rows = made(100, shift=1.0)
    with pytest.raises(UsageError, match=problem):
        train(**{"signatures": rows.x, "labels": rows.y, **options})


def test_the_digest_is_of_rows_labels_and_recipes() -> None:
    rows = made(100, shift=1.0)
    y = rows.y.copy()
    y[0] = 1 - y[0]
    several = [
        population_of(x, labels, recipes, None, "plain").sha256
        for x, labels, recipes in (
            (rows.x, rows.y, rows.recipes),
            (rows.x + 1e-9, rows.y, rows.recipes),
            (rows.x, y, rows.recipes),
            (rows.x, rows.y, None),
        )
    ]
    assert len(set(several)) == 4
    assert population_of(rows.x[::-1], rows.y[::-1], rows.recipes[::-1], None, "plain").sha256 == several[0]


def test_the_smallest_numbers_allowed_can_be_trained_on() -> None:
    rows = made(4 * LEAST, shift=1.0, share=0.5)
    kept = np.concatenate([np.flatnonzero(rows.y == label)[:LEAST] for label in (0, 1)])
    for folds, held_out in ((10, 0.5), (2, 0.05)):
        detector = train(rows.x[kept], rows.y[kept], folds=folds, held_out=held_out)
        assert sum(detector.training.negative) == sum(detector.training.positive) == LEAST


@pytest.mark.parametrize("scale", [1e-300, 1e-160, 1e95])
def test_numbers_of_any_size_are_trained_on_in_silence(scale: float) -> None:
    rows = made(100, shift=1.0)
    detector = train(rows.x * scale, rows.y)
    assert all(math.isfinite(value) for value in detector.model.coefficients)
    assert 0 <= detector.probability([scale] * 20) <= 1
