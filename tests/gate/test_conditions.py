"""Conditions of the inventory: what fails with any rule, what with `strict`, and what is allowed in writing."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from s3lora.errors import UsageError
from s3lora.gate.allow import allowances, allowed_names
from s3lora.gate.conditions import CONDITIONS, strict
from s3lora.gate.counting import KINDS, TOLD
from s3lora.gate.findings import Gate, gates_of
from tests.command import Result, call
from tests.gated import LAYERS, damaged, good
from tests.sarif_schema import official
from tests.support import factors, make_adapter, write_safetensors

P = "base_model.model."
ONE = np.ones((4, 4), np.float32)
#: Kind → what makes an adapter of it: tensors beside those of `LAYERS`, and fields of the configuration.
MADE: dict[str, tuple[Mapping[str, Any], Mapping[str, Any]]] = {
    "heads": ({"lm_head.weight": ONE}, {"modules_to_save": ["lm_head"]}),
    "tokens": ({"model.embed_tokens.token_adapter.trainable_tokens_delta": ONE}, {}),
    "bias": ({"model.norm.bias": ONE[0]}, {"bias": "all"}),
    "dora": ({f"{path}.lora_magnitude_vector": np.ones(16, np.float32) for path in LAYERS}, {"use_dora": True}),
    "base-weights": ({"model.norm.weight": ONE[0]}, {}),
}
#: What a scan that prints nothing says where no rule is asked.
NOTHING_ASKED = "s3lora: no rule was given, here or in a policy: all that was asked is whether the files can be read\n"


def made(folder: Path, kind: str) -> Path:
    """Write an adapter that holds one thing of a kind."""
    if kind == "unknown":
        file = make_adapter(folder, LAYERS) / "adapter_model.safetensors"
        tensors = {}
        for i, (path, (m, n, r)) in enumerate(LAYERS.items()):
            tensors[f"{P}{path}.lora_A.weight"], tensors[f"{P}{path}.lora_B.weight"] = factors(m, n, r, seed=i)
        write_safetensors(file, {**tensors, "strange": ONE})
        return folder
    heads, config = MADE[kind]
    return make_adapter(folder, LAYERS, heads=heads, config=config)


def other(folder: Path) -> Path:
    """Write an adapter with weights of other content beside those that PEFT loads."""
    good(folder)
    write_safetensors(folder / "adapters.safetensors", {"x.lora_a": ONE})
    return folder


def dead(folder: Path) -> Path:
    return make_adapter(folder, LAYERS, config={"target_modules": ["q_proj"]})


def coded(folder: Path) -> Path:
    (good(folder) / "modeling.py").write_text("import os\n")
    return folder


def pickled(folder: Path) -> Path:
    (good(folder) / "training_args.bin").write_bytes(pickle.dumps({"lr": 1}))
    return folder


#: Condition → what writes an adapter for which it holds, and words that a finding has.
FOLDERS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "other-weights": (other, ("adapters.safetensors",)),
    "dead-modules": (dead, ("v_proj", "target_modules")),
    "code": (coded, ("modeling.py",)),
    "pickles": (pickled, ("training_args.bin",)),
}
ALWAYS = {"heads", "tokens", "bias", "dora", "base-weights", "unknown", "other-weights", "dead-modules"}


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def build(desk: Path, kind: str) -> None:
    if kind in FOLDERS:
        FOLDERS[kind][0](desk / "a")
    else:
        made(desk / "a", kind)


def gated(capsys: Any, *options: str, rule: str = "nonfinite", status: int) -> Result:
    result = call(capsys, "scan", "a", "--fail-on", rule, "-q", *options)
    assert result.status == status, result.err
    return result


@pytest.mark.parametrize("kind", [*KINDS, *FOLDERS])
def test_every_kind_fails_and_is_allowed_by_its_name(kind: str, desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build(desk, kind)
    found = gated(capsys, rule="nonfinite", status=int(kind in ALWAYS))
    strictly = gated(capsys, rule="strict", status=1)
    (line,) = strictly.err.splitlines()
    metric = kind if kind in CONDITIONS else "unmeasured"
    assert line.startswith(f"s3lora: a: finding: {metric} is ")
    assert f", rule {metric} > 0: " in line
    if kind in KINDS:
        assert TOLD[kind] in line
        assert f"--allow '{kind}: REASON'" in line
        assert f"--allow '{kind}: REASON'" in found.err
    for word in FOLDERS.get(kind, (None, ()))[1]:
        assert word in line
    for rule in ("nonfinite", "strict"):
        allowed = gated(capsys, "--allow", f"{kind}: our own", rule=rule, status=0)
        (line,) = allowed.err.splitlines()
        assert line.startswith(f"s3lora: a: allowed: {kind} is ")
        assert line.endswith(": our own")
    others = sorted(set(allowed_names()) - {kind, "unmeasured"})
    for name in others:
        gated(capsys, "--allow", name, rule="strict", status=1)


@pytest.mark.parametrize("options", [("--only", "q_proj"), ("--projection", "q_proj"), ("--layers", "0")])
@pytest.mark.parametrize("kind", ["base-weights", "heads", "other-weights"])
def test_a_filter_of_modules_hides_no_tensor_and_no_file(
    kind: str, options: tuple[str, str], desk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build(desk, kind)
    gated(capsys, *options, status=1)


def test_without_a_rule_nothing_fails(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made(desk / "a", "base-weights")
    assert call(capsys, "scan", "a", "-q") == Result(0, "", NOTHING_ASKED)
    refused = call(capsys, "scan", "a", "--allow", "heads")
    assert (refused.status, refused.err) == (2, "s3lora: --allow does nothing without --fail-on RULE\n")
    (desk / "s3lora.toml").write_text('method = "svd"\n')
    assert call(capsys, "scan", "a", "-q") == Result(0, "", f"s3lora: policy: s3lora.toml\n{NOTHING_ASKED}")


def test_a_good_adapter_passes_everything(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good(desk / "a")
    assert gated(capsys, rule="strict", status=0).err == ""
    allows = [word for name in allowed_names() for word in ("--allow", name)]
    assert gated(capsys, *allows, rule="strict", status=0).err == "", "what does not hold is not told"


def test_strict_is_what_an_inventory_knows() -> None:
    assert set(CONDITIONS) - set(strict()) == {"selected", "outliers", "zero-updates", "no-signal"}
    assert {gate.metric for gate in gates_of(["strict"])} == set(strict())
    assert gates_of(["strict", "nonfinite > 0", "strict"]) == gates_of(["strict"])


def test_one_tensor_is_told_of_once(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`unmeasured` leaves to other rules what they count, and empty tensors to `dead-modules`."""
    heads = {"lm_head.weight": ONE, "model.norm.weight": ONE[0], "score.weight": np.zeros((0,), np.float32)}
    make_adapter(desk / "a", LAYERS, heads=heads, config={"modules_to_save": ["lm_head", "score"]})
    for rule, metrics in (
        ("nonfinite", ["unmeasured", "base-weights", "dead-modules"]),
        ("heads", ["heads", "base-weights", "dead-modules"]),
        ("strict", ["base-weights", "heads", "dead-modules"]),
        ("heads > 5", ["base-weights", "dead-modules"]),
    ):
        lines = gated(capsys, rule=rule, status=1).err.splitlines()
        assert [line.split()[3] for line in lines] == metrics, rule
        assert all(line.split()[5] == "1" for line in lines), rule


@pytest.mark.parametrize("rule", ["heads < 1", "heads == 7", "heads <= 0"])
def test_a_rule_that_asks_for_heads_does_not_excuse_them(rule: str, desk: Path, capsys: Any) -> None:
    made(desk / "a", "heads")
    assert "finding: unmeasured is 1 " in gated(capsys, rule=rule, status=1).err


def test_who_allows_heads_allows_no_inner_weight(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    inner = "model.layers.1.mlp.down_proj.weight"
    config = {"modules_to_save": ["lm_head", "down_proj"]}
    make_adapter(desk / "a", LAYERS, heads={"lm_head.weight": ONE, inner: ONE}, config=config)
    told = gated(capsys, "--allow", "heads", status=1).err
    assert f"finding: base-weights is 1 ({P}{inner})" in told
    assert "lm_head" not in "".join(line for line in told.splitlines() if "finding" in line)
    gated(capsys, "--allow", "heads", "--allow", "base-weights", status=0)


def test_a_standing_condition_can_have_a_limit(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dead(desk / "a")
    gated(capsys, rule="dead-modules > 3", status=1)
    gated(capsys, rule="dead-modules > 4", status=0)
    gated(capsys, rule="dead-modules < 1", status=1)


def test_nan_in_what_is_no_module(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    head = {"lm_head.weight": np.array([[np.nan, 1]], np.float32)}
    make_adapter(desk / "a", LAYERS, heads=head, config={"modules_to_save": ["lm_head"]})
    found = gated(capsys, "--allow", "heads", status=1)
    assert f"finding: nonfinite is 1 ({P}lm_head.weight), rule nonfinite > 0\n" in found.err


@pytest.mark.parametrize(("dtype", "large"), [("float32", 3e38), ("float16", 60_000), ("bfloat16", 3e38)])
def test_finite_factors_whose_product_is_not(dtype: str, large: float, desk: Path, capsys: Any) -> None:
    from tests.support import dtype_of

    tensors = {}
    for i, (path, (m, n, r)) in enumerate(LAYERS.items()):
        a, b = factors(m, n, r, seed=i)
        first = i == 0
        tensors[f"{P}{path}.lora_A.weight"] = np.full_like(a, large if first else 0.01).astype(dtype_of(dtype))
        tensors[f"{P}{path}.lora_B.weight"] = np.full_like(b, 2.0 if first else 0.01).astype(dtype_of(dtype))
    good(desk / "a")
    write_safetensors(desk / "a" / "adapter_model.safetensors", tensors)
    err = gated(capsys, status=1).err
    assert f"nonfinite is 1 ({next(iter(LAYERS))}), rule nonfinite > 0: 1 of them has finite factors" in err


def test_a_float64_that_no_model_can_take(desk: Path, capsys: Any) -> None:
    """Finite in the file, as is the product, and infinite in the float32 that PEFT makes of it."""
    tensors = {}
    for i, (path, (m, n, r)) in enumerate(LAYERS.items()):
        a, b = (factor.astype(np.float64) for factor in factors(m, n, r, seed=i))
        tensors[f"{P}{path}.lora_A.weight"], tensors[f"{P}{path}.lora_B.weight"] = a * 1e-60, b * 1e60
    write_safetensors(good(desk / "a") / "adapter_model.safetensors", tensors)
    assert "8 of them hold numbers beyond float32" in gated(capsys, status=1).err


@pytest.mark.parametrize("changes", [{"init_lora_weights": "pissa_niter_4"}, {"layer_replication": [[0, 2], [1, 3]]}])
def test_a_configuration_that_changes_the_base_model(changes: Mapping[str, Any], desk: Path, capsys: Any) -> None:
    make_adapter(desk / "a", LAYERS, config=changes)
    found = gated(capsys, status=1)
    assert "in adapter_config.json changes the base model at load" in found.err
    gated(capsys, "--allow", "base-weights", status=0)


def test_findings_come_in_a_fixed_order(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other(coded(pickled(made(desk / "a", "base-weights"))))
    made(desk / "a", "base-weights")
    first = gated(capsys, rule="strict", status=1).err
    metrics = [line.split()[3] for line in first.splitlines()]
    assert metrics == ["base-weights", "other-weights", "code", "pickles"]
    assert gated(capsys, rule="strict", status=1).err == first


# The rank, and percentiles


def test_a_rank_beyond_what_a_server_holds(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_adapter(desk / "a", {"h.0.q_proj": (16, 16, 4), "h.1.q_proj": (16, 16, 8)})
    err = gated(capsys, rule="rank > 4", status=1).err
    assert err == "s3lora: a: finding: h.1.q_proj: rank is 8, rule rank > 4\n"
    gated(capsys, rule="rank > 64", status=0)


def test_a_percentile_needs_a_reference(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good(desk / "a")
    err = gated(capsys, rule="ssi-percentile > 99", status=2).err
    assert err == "s3lora: the rule ssi_percentile > 99 needs a reference; give --reference FILE\n"


@pytest.mark.parametrize("rule", ["ssi > 1e999", "strict > 0", "rank", "percentile > 3", "heads >", "unmeasured 3"])
def test_what_is_no_rule(rule: str) -> None:
    with pytest.raises(UsageError):
        gates_of([rule])


# What is allowed


def test_names_that_can_be_allowed() -> None:
    assert set(allowed_names()) >= {
        *KINDS,
        "unmeasured",
        "other-weights",
        "code",
        "pickles",
        "dead-modules",
        "ambiguous",
    }
    assert "nonfinite" not in allowed_names()
    assert allowances(["base_weights", " base-weights : by design "]) == {"base-weights": "by design"}
    assert allowances(["heads: a: b"]) == {"heads": "a: b"}
    for text, fix in (
        ("head", "did you mean heads?"),
        ("base_weight", "did you mean base-weights?"),
        ("nonfinite", "choose one of unmeasured, "),
        ("", "choose one of unmeasured, "),
        ("\x1b[31m", "choose one of unmeasured, "),
    ):
        with pytest.raises(UsageError, match="cannot be allowed") as raised:
            allowances([text])
        assert fix in str(raised.value)
        assert str(raised.value).isprintable()


def test_all_that_is_asked_for_is_allowed(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made(desk / "a", "heads")
    allows = [word for name in allowed_names() for word in ("--allow", name)]
    found = gated(capsys, *allows, rule="heads", status=0)
    assert "allowed: heads is 1" in found.err


# A policy


def policy(desk: Path, text: str) -> None:
    (desk / "s3lora.toml").write_text(text)


def scanned(capsys: Any, *options: str) -> Result:
    return call(capsys, "scan", "a", "-q", *options)


def test_a_policy_allows_with_a_reason(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made(desk / "a", "heads")
    policy(desk, 'fail-on = ["strict"]\nallow = ["heads: the classifier of our task"]\n')
    result = scanned(capsys)
    assert result.status == 0
    assert result.err.splitlines()[1] == (
        f"s3lora: a: allowed: heads is 1 ({P}lm_head.weight): the classifier of our task"
    )


def test_an_option_adds_to_what_the_policy_allows(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    heads = {"lm_head.weight": ONE, "model.norm.weight": ONE[0]}
    make_adapter(desk / "a", LAYERS, heads=heads, config={"modules_to_save": ["lm_head"]})
    policy(desk, 'fail-on = ["strict"]\nallow = ["heads: ours"]\n')
    assert scanned(capsys).status == 1
    assert scanned(capsys, "--allow", "base-weights").status == 0
    again = scanned(capsys, "--allow", "base-weights", "--allow", "heads: for once")
    assert "heads is 1 (base_model.model.lm_head.weight): for once" in again.err, "the later reason is told"
    assert scanned(capsys, "--no-policy", "--fail-on", "strict", "--allow", "base-weights").status == 1


def test_a_policy_that_only_allows_asks_for_nothing(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made(desk / "a", "heads")
    policy(desk, 'allow = ["heads: ours"]\n')
    assert scanned(capsys) == Result(0, "", f"s3lora: policy: s3lora.toml\n{NOTHING_ASKED}")
    assert scanned(capsys, "--fail-on", "nonfinite").status == 0


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ('allow = ["heads"]', 1, 'allow: heads is allowed without a reason; write "heads: why you accept it"'),
        ('allow = ["heads:  "]', 1, "without a reason"),
        ('top = 3\nallow = [\n  "tokens: ours",\n  "head: ours",\n]', 4, "did you mean heads?"),
        ('allow = ["nonfinite: ours"]', 1, "'nonfinite' cannot be allowed"),
        ('allow = "heads: ours"', 1, "allow must be a list of strings"),
        ("allow = [3]", 1, "allow must be a list of strings"),
        ('alow = ["heads: ours"]', 1, "did you mean allow?"),
        ('fail-on = ["strict", "sharp"]', 1, "no rule to fail on: 'sharp'"),
    ],
)
def test_what_a_policy_cannot_allow(text: str, line: int, says: str, desk: Path, capsys: Any) -> None:
    good(desk / "a")
    policy(desk, text)
    result = scanned(capsys)
    assert result.status == 2
    assert result.err.startswith(f"s3lora: s3lora.toml:{line}: ")
    assert says in result.err
    assert result.err.count("\n") == 1


# Formats for machines


def document(capsys: Any, form: str, *options: str) -> Any:
    out = call(capsys, "scan", "a", "--format", form, *options).out
    return json.loads(out) if form != "junit" else out


def test_json_has_the_rules_the_findings_and_what_is_allowed(desk: Path, capsys: Any) -> None:
    made(desk / "a", "base-weights")
    heads = document(capsys, "json", "--fail-on", "nonfinite", "--allow", "base-weights: ours")["gate"]
    assert heads["status"] == 0
    assert heads["findings"] == heads["known"] == []
    assert heads["allowed"] == [{"name": "base-weights", "reason": "ours", "counted": [f"{P}model.norm.weight"]}]
    gate = document(capsys, "json", "--fail-on", "nonfinite")["gate"]
    (found,) = gate["findings"]
    assert gate["status"] == 1
    assert gate["rules"] == [
        f"{name} > 0" for name in ("nonfinite", *(name for name, one in CONDITIONS.items() if one.standing))
    ]
    assert (found["rule"], found["rule_id"], found["value"]) == ("base-weights > 0", "S3L007", 1)
    assert found["counted"] == [f"{P}model.norm.weight"]
    assert found["message"].endswith(found["why"])
    assert document(capsys, "json")["gate"] is None, "no rule, no verdict"


def test_a_baseline_knows_conditions_too(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other(desk / "a")
    rules = ("--fail-on", "strict")
    known = ("--baseline", "known.sarif")
    assert call(capsys, "scan", "a", *rules, "--format", "sarif", "-o", "known.sarif").status == 1
    assert call(capsys, "scan", "a", *rules, *known, "-q").status == 0
    gate = document(capsys, "json", *rules, *known)["gate"]
    assert (gate["status"], gate["findings"], len(gate["known"])) == (0, [], 1)
    coded(desk / "a")
    more = call(capsys, "scan", "a", *rules, *known, "-q")
    assert more.status == 1
    assert [line.split()[3] for line in more.err.splitlines() if ": finding: " in line] == ["code"]
    write_safetensors(desk / "a" / "third.safetensors", {"x.lora_a": ONE})
    assert "finding: other-weights is 2" in call(capsys, "scan", "a", *rules, *known, "-q").err, "a file more is new"
    found = document(capsys, "sarif", *rules, *known)["runs"][0]["results"]
    assert [one["baselineState"] for one in found] == ["new", "new"]


def sarif(capsys: Any, *options: str) -> dict[str, Any]:
    import jsonschema

    content = document(capsys, "sarif", *options)
    jsonschema.Draft7Validator(official(), format_checker=jsonschema.FormatChecker()).validate(content)
    run: dict[str, Any] = content["runs"][0]
    return run


def test_sarif_points_at_the_files_of_the_folder(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    coded(desk / "a")
    (desk / "a" / "sub dir").mkdir()
    (desk / "a" / "sub dir" / "more.py").write_text("")
    (found,) = sarif(capsys, "--fail-on", "strict")["results"]
    at = [found["locations"][0], *found["relatedLocations"]]
    uris = [one["physicalLocation"]["artifactLocation"]["uri"] for one in at]
    assert uris == ["a/modeling.py", "a/sub%20dir/more.py"]
    assert found["analysisTarget"]["uri"] == "a/adapter_model.safetensors"
    assert [one["name"] for one in found["properties"]["counted"]] == ["modeling.py", "sub dir/more.py"]
    assert found["ruleId"] == "S3L012"


def test_sarif_counts_tensors_as_tensors(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made(desk / "a", "base-weights")
    (found,) = sarif(capsys, "--fail-on", "nonfinite")["results"]
    assert found["message"]["text"].startswith(
        f"a: base-weights is 1, rule base-weights > 0. It is {P}model.norm.weight. Weights that replace"
    )
    assert found["properties"]["counted"] == [{"name": f"{P}model.norm.weight"}]
    assert found["level"] == "error"
    dead(desk / "a")
    (found,) = sarif(capsys, "--fail-on", "nonfinite")["results"]
    assert found["message"]["text"].startswith("a: dead-modules is 4 of 8 modules, rule dead-modules > 0. They are ")
    assert "take these tensors out of the file." in found["message"]["text"]


def test_sarif_suppresses_what_is_allowed(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made(desk / "a", "dora")
    rules = ("--fail-on", "nonfinite")
    for text, suppression in (
        ("dora: the recipe {0} of ours", {"kind": "external", "justification": "the recipe {0} of ours"}),
        ("dora", {"kind": "external"}),
    ):
        run = sarif(capsys, *rules, "--allow", text)
        (found,) = run["results"]
        assert (found["ruleId"], found["level"], found["suppressions"]) == ("S3L006", "note", [suppression])
        assert run["invocations"][0]["exitCode"] == 0
        assert "allowed: dora is 8" in found["message"]["text"]
    call(capsys, "scan", "a", *rules, "--allow", "dora", "--format", "sarif", "-o", "known.sarif")
    later = sarif(capsys, *rules, "--baseline", "known.sarif")["results"]
    assert [one["baselineState"] for one in later] == ["new"], "what was allowed was never a finding"
    still = sarif(capsys, *rules, "--allow", "dora", "--baseline", "known.sarif")["results"]
    assert [one["baselineState"] for one in still] == ["unchanged"]


def test_every_condition_is_a_rule_of_sarif_with_help(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good(desk / "a")
    rules = {rule["id"]: rule for rule in sarif(capsys)["tool"]["driver"]["rules"]}
    for name, condition in CONDITIONS.items():
        assert rules[condition.id]["help"]["text"], name
        assert rules[condition.id]["name"] == condition.title
        assert (f"--allow {name}" in condition.help) == (name in allowed_names() and name != "unmeasured"), name


def test_junit_tells_what_is_allowed(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made(desk / "a", "heads")
    text = document(capsys, "junit", "--fail-on", "nonfinite", "--allow", "heads: <ours> & theirs")
    assert 'failures="0"' in text
    assert f"<system-out>allowed: heads is 1 ({P}lm_head.weight): &lt;ours&gt; &amp; theirs</system-out>" in text
    assert 'name="S3L007 base-weights &gt; 0"' in text
    failed = document(capsys, "junit", "--fail-on", "nonfinite")
    assert 'failures="1"' in failed
    assert "--allow 'heads: REASON'" in failed


def test_a_csv_of_tensors(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import csv
    import io

    heads = {"lm_head.weight": np.array([[1, -2, np.inf]], np.float32), "model.norm.weight": np.zeros((0,), np.float32)}
    make_adapter(desk / "a", LAYERS, heads=heads, config={"modules_to_save": ["lm_head"]})
    result = call(capsys, "scan", "a", "--format", "tensors")
    rows = {row["name"]: row for row in csv.DictReader(io.StringIO(result.out))}
    assert len(rows) == 2 * len(LAYERS) + 2
    row = rows[f"{P}lm_head.weight"]
    assert (row["role"], row["module"], row["dtype"], row["shape"]) == ("head", "lm_head", "float32", "1 x 3")
    assert (row["bytes"], row["parameters"], row["finite"], row["largest"]) == ("12", "3", "false", "2.0")
    assert len(row["sha256"]) == len(row["tensor_sha256"]) == 64
    assert row["effect"].startswith("takes the place")
    empty = rows[f"{P}model.norm.weight"]
    assert (empty["shape"], empty["largest"]) == ("0", "")
    two = call(capsys, "scan", "a", "a", "--format", "tensors").out
    assert len(list(csv.DictReader(io.StringIO(two)))) == 2 * len(rows)


def test_names_of_tensors_are_no_formulas(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good(desk / "a")
    tensors = {}
    for i, (path, (m, n, r)) in enumerate(LAYERS.items()):
        tensors[f"{P}{path}.lora_A.weight"], tensors[f"{P}{path}.lora_B.weight"] = factors(m, n, r, seed=i)
    names = ["=1+1", "+1", "-1", "@x"]
    write_safetensors(desk / "a" / "adapter_model.safetensors", {**tensors, **dict.fromkeys(names, ONE)})
    out = call(capsys, "scan", "a", "--format", "tensors").out
    assert all(f",'{name},unknown,'{name}," in out for name in names)


def test_a_damaged_module_and_what_is_allowed(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A module without an index is no verdict, whatever is allowed."""
    damaged(desk / "a", next(iter(LAYERS)))
    allows = [word for name in allowed_names() for word in ("--allow", name)]
    assert gated(capsys, *allows, rule="nonfinite", status=1)
    assert gated(capsys, *allows, rule="ssi > 1", status=2)


def test_code_beside_a_file_is_found_or_said_to_be_unseen(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = good(desk / "a") / "adapter_model.safetensors"
    (desk / "a" / "evil.py").write_text("raise SystemExit")
    found = call(capsys, "scan", file, "-q", "--fail-on", "strict")
    assert (found.status, "code is 1 (evil.py)" in found.err) == (1, True)
    (desk / "a" / "adapter_config.json").unlink()
    for name in ("mine.safetensors", "adapter_model.safetensors"):
        file = file.rename(desk / "a" / name)
        told = call(capsys, "scan", file, "-q", "--fail-on", "strict")
        unseen = (
            f"s3lora: {file}: is one file, and no code or pickle beside it was looked for; give the folder for that"
        )
        assert (told.status, told.err) == (0, f"{unseen}\n")
    assert "one file" not in call(capsys, "scan", file, "-q", "--fail-on", "nonfinite").err


def test_an_adapter_as_blunt_as_noise_has_no_signal(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    random = make_adapter(desk / "a", {f"layers.{i}.q_proj": (64, 48, 4) for i in range(4)})
    told = call(capsys, "scan", random, "-q", "--fail-on", "no-signal")
    assert told.status == 1
    assert re.search(
        r"no-signal is 1, rule no-signal > 0: its median excess .* is [+-]0\.0[012]\d\d, below 0\.03\n", told.err
    )
    a, b = factors(64, 48, 4)
    a[1:], b[:, 1:] = a[1:] / 8, b[:, 1:] / 8
    pairs = {"lora_A": a, "lora_B": b}
    tensors = {f"base_model.model.layers.{i}.q_proj.{x}.weight": pairs[x] for i in range(4) for x in pairs}
    write_safetensors(random / "adapter_model.safetensors", tensors, {"format": "pt"})
    assert call(capsys, "scan", random, "-q", "--fail-on", "no-signal").status == 0
    one = make_adapter(desk / "one", {f"layers.{i}.q_proj": (64, 48, 1) for i in range(2)})
    told = call(capsys, "scan", one, "-q", "--fail-on", "no-signal")
    assert (told.status, "2 of 2 modules have no value for no-signal > 0" in told.err) == (2, True)
    text = call(capsys, "scan", one, "--fail-on", "no-signal", "--format", "junit").out
    assert '<skipped message="some modules have no value for the rule" />' in text
    modules = {f"layers.{i}.q_proj": (64, 48, 4) for i in range(4)}
    zero = make_adapter(desk / "zero", modules, zero_b=["layers.0.q_proj"])
    assert call(capsys, "scan", zero, "-q", "--fail-on", "no-signal").status == 1
    zeros = call(capsys, "scan", make_adapter(desk / "zeros", modules, zero_b=modules), "-q", "--fail-on", "no-signal")
    assert (zeros.status, zeros.err.endswith(": no module has an update\n")) == (1, True)
    random = make_adapter(desk / "padded", modules)
    assert call(capsys, "convert", random, "--to", "peft", "--pad-rank", "8", "-o", desk / "p8").status == 0
    assert call(capsys, "scan", desk / "p8", "-q", "--fail-on", "no-signal").status == 1
    (run,) = json.loads(call(capsys, "scan", random, "--fail-on", "no-signal", "--format", "sarif").out)["runs"]
    assert "It is the adapter. Its median excess" in run["results"][0]["message"]["text"]
    assert "no-signal" not in allowed_names()


def test_the_ids_of_gates_are_known() -> None:
    assert {Gate(name).id for name in CONDITIONS} == {condition.id for condition in CONDITIONS.values()}
