"""Rules and what they find: the sentence, the modules, and a scan that holds NaN."""

from __future__ import annotations

import dataclasses
import json
import math
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from s3lora.choose.rules import Top
from s3lora.choose.select import Filter, select
from s3lora.errors import NonFiniteError
from s3lora.gate.audit import Terms, audit, gravest
from s3lora.gate.conditions import CONDITIONS
from s3lora.gate.counting import Asked
from s3lora.gate.findings import INDEX_ID, PERCENTILES, Gate
from s3lora.measure.scan import Scan, scan
from s3lora.spectrum.indices import INDICES
from tests.command import call
from tests.gated import LAYERS, damaged
from tests.hostile import bad_files as bad
from tests.support import make_adapter


def terms(*rules: str, only: Filter | None = None) -> Terms:
    only = only or Filter()
    gates = tuple(map(Gate.parse, rules))
    return Terms(choose=lambda measured: select(measured, Top(3), only=only), gates=gates, only=only)


def measure(path: str) -> Scan:
    return scan(path, nonfinite=True)


def test_a_finding_says_all_of_it(tmp_path: Path) -> None:
    measured = scan(make_adapter(tmp_path / "a", LAYERS))
    gate = Gate.parse("ssi > 0.01")
    findings = gate.findings(Asked(measured))
    first = findings[0]
    assert [found.value for found in findings] == sorted((found.value for found in findings), reverse=True)
    assert len(findings) == len(LAYERS)
    module = max(measured.modules, key=lambda module: module.indices["ssi"] or 0)
    assert (first.rule, first.rule_id, first.module) == ("ssi > 0.01", INDEX_ID, module.path)
    assert (first.value, first.limit, first.modules) == (module.indices["ssi"], 0.01, (module.path,))
    assert first.message == f"{module.path}: ssi is {module.indices['ssi']:.4g}, rule ssi > 0.01"


def test_a_count_names_what_it_counted(tmp_path: Path) -> None:
    measured = scan(make_adapter(tmp_path / "a", LAYERS))
    plan = select(measured, Top(3))
    (found,) = Gate.parse("selected > 2").findings(Asked(measured, plan))
    assert (found.module, found.value, found.modules, found.rule_id) == (None, 3, plan.paths, CONDITIONS["selected"].id)


def test_ids_are_fixed() -> None:
    """They are in other people's baselines, dashboards and suppressions."""
    found = {metric: Gate.parse(f"{metric} > 0").id for metric in (*INDICES, *PERCENTILES, *CONDITIONS, "rank")}
    conditions = {
        "selected": "S3L002",
        "outliers": "S3L003",
        "nonfinite": "S3L004",
        "zero-updates": "S3L005",
        "no-signal": "S3L018",
        "unmeasured": "S3L006",
        "base-weights": "S3L007",
        "bias": "S3L008",
        "heads": "S3L009",
        "tokens": "S3L010",
        "other-weights": "S3L011",
        "code": "S3L012",
        "pickles": "S3L013",
        "dead-modules": "S3L014",
        "ambiguous": "S3L015",
    }
    others = {"rank": "S3L016"} | dict.fromkeys(PERCENTILES, "S3L017")
    assert Gate.parse("loader:vllm").id == "S3L030"
    assert found == dict.fromkeys(INDICES, "S3L001") | conditions | others


def test_digits_enough_to_see_that_the_rule_holds(tmp_path: Path) -> None:
    measured = scan(make_adapter(tmp_path / "a", {"h.0.q_proj": (8, 6, 2)}))
    value = measured.modules[0].indices["ssi"]
    assert value is not None
    limit = math.nextafter(value, 0)
    (found,) = Gate("ssi", ">", limit).findings(Asked(measured))
    shown = float(found.message.split(" is ")[1].split(",")[0])
    assert shown > limit
    assert found.rule == f"ssi > {limit!r}", "the rule is told as it is"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_nonfinite_modules_are_kept_where_that_is_asked_for(value: float, tmp_path: Path) -> None:
    first, *others = LAYERS
    folder = damaged(tmp_path / "a", first, value=value)
    with pytest.raises(NonFiniteError):
        scan(folder)
    kept = scan(folder, nonfinite=True)
    record = kept[first]
    assert record.nonfinite
    assert not record.zero
    assert record.sigma == ()
    assert set(record.indices.values()) == {None}
    assert "1 of 8 modules hold NaN or infinity: no spectrum exists, and no index" in kept.warnings
    assert not any("released" in warning for warning in kept.warnings)
    good = scan(make_adapter(tmp_path / "b", LAYERS))
    assert [kept[path] for path in others] == [good[path] for path in others], "the others as ever"


def test_nothing_else_is_nonfinite(tmp_path: Path) -> None:
    tall = {"h.0.q_proj": (12, 8, 2), "h.1.q_proj": (8, 12, 2)}
    for method in ("mas-svd", "released"):
        measured = scan(make_adapter(tmp_path / method, tall, zero_b=["h.1.q_proj"]), method)
        assert not any(module.nonfinite for module in measured.modules)


def test_no_ranking_takes_a_nonfinite_module(tmp_path: Path) -> None:
    first, *others = LAYERS
    measured = scan(damaged(tmp_path / "a", first), nonfinite=True)
    for index in ("ssi", "frobenius", "random", "random-matched"):
        assert set(select(measured, Top(99), index=index).paths) <= set(others), index


def test_a_nonfinite_module_is_a_finding(tmp_path: Path) -> None:
    first, second, *_ = LAYERS
    one = audit(str(damaged(tmp_path / "a", first, second)), measure, terms("nonfinite", "ssi > 0.999999"))
    assert (one.status, one.unindexed, one.error) == (1, 0, None)
    (found,) = one.verdicts[0].new
    assert found.message == f"nonfinite is 2 ({first}, {second}), rule nonfinite > 0"
    assert found.modules == (first, second)


def test_what_no_finding_tells_of_is_no_verdict(tmp_path: Path) -> None:
    first, *_ = LAYERS
    path = str(damaged(tmp_path / "a", first))
    for asked in (terms("nonfinite > 1"), terms("nonfinite", only=Filter(pattern="v_proj")), terms("ssi > 0.999999")):
        one = audit(path, measure, asked)
        assert one.status == 2
        assert one.incomplete == "the scan is incomplete: 1 of 8 modules have no index"


def test_an_adapter_of_nan_alone_is_a_finding_too(tmp_path: Path) -> None:
    path = str(damaged(tmp_path / "a", *LAYERS))
    one = audit(path, measure, terms("nonfinite", "selected", "outliers", "ssi > 0"))
    assert (one.status, one.plan) == (1, None)
    assert [bool(verdict.new) for verdict in one.verdicts] == [True, False, False, False]
    layer = Filter(layers=(0, 0))
    assert audit(str(damaged(tmp_path / "b", *list(LAYERS)[:2])), measure, terms("nonfinite", only=layer)).status == 1


def test_the_gravest_of_several(tmp_path: Path) -> None:
    good = audit(str(make_adapter(tmp_path / "good", LAYERS)), measure, terms("nonfinite"))
    finding = audit(str(damaged(tmp_path / "nan", next(iter(LAYERS)))), measure, terms("nonfinite"))
    nothing = audit(str(bad.empty_folder(tmp_path / "empty")), measure, terms("nonfinite"))
    error = audit(str(tmp_path / "nowhere"), measure, terms("nonfinite"))
    assert [one.status for one in (good, finding, nothing, error)] == [0, 1, 3, 2]
    assert gravest([good, finding]) == 1
    assert gravest([finding, nothing, good]) == 3
    assert gravest([nothing, error, finding]) == 2
    assert gravest([]) == 0


def test_equal_numbers_give_equal_findings(tmp_path: Path) -> None:
    made = [audit(str(make_adapter(tmp_path / name, LAYERS)), measure, terms("ssi > 0")) for name in "ab"]
    assert made[0].verdicts == made[1].verdicts
    assert np.isfinite([found.value for found in made[0].verdicts[0].new]).all()


def test_the_report_says_how_many_rules_hold(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_adapter(tmp_path / "a", {f"model.layers.{i}.self_attn.q_proj": (8, 8, 2) for i in range(3)})

    def line(*rules: str) -> str:
        asked = [word for rule in rules for word in ("--fail-on", rule)]
        text = call(capsys, "scan", folder, *asked).out
        return next((one for one in text.splitlines() if one.startswith("gate")), "")

    standing = json.loads(call(capsys, "scan", folder, "--fail-on", "zero-updates", "--format", "json").out)["gate"]
    count = len(standing["rules"])
    assert line("zero-updates") == f"gate          none of {count} rules holds"
    assert line("ssi > 0.1", "zero-updates") == f"gate          1 of {count + 1} rules holds: ssi > 0.1"
    assert line() == ""
    page = call(capsys, "scan", folder, "--fail-on", "zero-updates", "--format", "html").out
    assert f"<dt>Gate</dt><dd>none of {count} rules holds</dd>" in page


def test_a_rule_without_a_value_to_hold_it_against_never_passes(tmp_path: Path) -> None:
    """A module of rank 1 is as sharp as any, and has no normalised SSI."""
    sizes = {f"h.{i}.q_proj": (8, 6, rank) for i, rank in enumerate((1, 2, 2))}
    folder = str(make_adapter(tmp_path / "a", sizes, zero_b=["h.2.q_proj"]))
    one = audit(folder, measure, terms("normalised-ssi > 0.999999"))
    assert one.status == 2
    assert one.incomplete == (
        "the scan is incomplete: 1 of 3 modules have no value for normalised_ssi > 0.999999 (h.0.q_proj)"
    )
    assert audit(folder, measure, terms("normalised-ssi > 0.1")).status == 2, "a finding elsewhere hides it not"
    for rule in ("selected > 9", "outliers > 9"):
        for index, status in (("normalised_ssi", 2), ("ssi", 0)):
            asked = dataclasses.replace(terms(rule), choose=partial(select, rule=Top(1), index=index))
            assert audit(folder, measure, asked).status == status, (rule, index)
    assert audit(folder, measure, terms("ssi > 2")).status == 0, "an update of zero is no module that was not seen"
