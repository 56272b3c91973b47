"""What the README says of its repair is what `s3lora repair … --report` wrote, which is kept in `docs/results`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from s3lora.measure.published import published

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
FOUND = json.loads((ROOT / "docs" / "results" / "demo-repair.json").read_text(encoding="utf-8"))
REPAIR = " ".join((ROOT / "docs" / "repair.md").read_text(encoding="utf-8").split())
STATES = ("base", "adapter", "repaired", "shrunk")


def rate(state: str, measure: str) -> str:
    [one] = [m for m in FOUND[state]["metrics"] if (m["suite"], m["measure"]) == ("safety", measure)]
    assert one["n"] == 100
    return f"{one['value']:.2f} [{one['low']:.2f}, {one['high']:.2f}]"


def lost(state: str) -> str:
    if state in ("base", "adapter"):
        return {"base": "100 %", "adapter": "0 %"}[state]
    [one] = FOUND[state]["shares"]
    return f"{one['value'] * 100:.1f} % [{one['low'] * 100:.1f}, {one['high'] * 100:.1f}]"


def test_the_table_is_that_of_the_result() -> None:
    rows: dict[str, Any] = {
        "harmful prompts not refused": [rate(state, "asr") for state in STATES],
        "harmless prompts refused": [rate(state, "over_refusal") for state in STATES],
        "of what was learned, lost": [lost(state) for state in STATES],
    }
    for name, cells in rows.items():
        assert f"| {name} | {' | '.join(cells)} |" in README


def test_what_is_said_of_it_holds() -> None:
    assert (FOUND["outcome"], FOUND["method"]) == ("repaired", "gates+patch")
    assert [part["data"][0]["n"] for part in FOUND["parts"]] == [32, 50, 100]
    verdicts = {one["name"]: one for one in FOUND["constraints"]}
    assert verdicts["over-refusal"]["verdict"] == "not refuted"
    assert verdicts["over-refusal"]["low"] < FOUND["limits"]["over_refusal"] == 0.05 < verdicts["over-refusal"]["high"]
    assert next(one["method"] for one in FOUND["trials"]) == "shrink"
    [card] = [one for one in FOUND["card"] if one["question"] == "more than shrinking"]
    assert card["passed"] is True


def test_it_is_of_what_is_shipped() -> None:
    shipped = json.loads((ROOT / "src/s3lora/data/demo-lost/training.json").read_text(encoding="utf-8"))
    assert FOUND["source"]["sha256"] == shipped["adapter_sha256"]
    assert FOUND["setup"]["base"] == "demo-aligned"
    command = next(line for line in README.splitlines() if line.startswith("$ s3lora repair"))
    assert re.search(r"--base demo-aligned --task planning", command)


def test_what_is_said_of_verdicts_and_published_adapters_holds() -> None:
    held = [
        json.loads(path.read_text(encoding="utf-8")) for path in (ROOT / "docs" / "results" / "loaders").glob("*.json")
    ]
    checks = [row for one in held for row in one.get("checks", [])]
    agreed = sum(row["verdict"] == row["result"] for row in checks)
    words = " ".join(README.split())
    assert f"{len(checks)} runs of ordinary, odd and faulty adapters" in words
    assert f"It said what they did in {agreed}, and “unknown” in one." in words
    assert [row["verdict"] for row in checks if row["verdict"] != row["result"]] == ["unknown"]
    reference = published()
    assert f"{reference.adapters} published adapters from {reference.sources} sources" in words


def test_the_figures_of_the_first_bullet_are_those_of_the_table() -> None:
    words = " ".join(README.split())
    base, adapter, repaired = (rate(state, "asr").split()[0] for state in STATES[:3])
    share = lost("repaired").split(" [")[0]
    assert f"fell from {adapter} to {repaired}, the base's own being {base}, for {share} of what was learned" in words
    left = rate("shrunk", "asr").split()[0]
    assert f"plain shrinking at equal cost left {left}." in words
    refused = [rate(state, "over_refusal").split()[0] for state in ("repaired", "base")]
    assert f"It refuses {refused[0]} of the harmless prompts, the base {refused[1]};" in REPAIR


def test_what_gates_alone_do_on_the_same_adapter() -> None:
    gates = json.loads((ROOT / "docs" / "results" / "demo-repair-gates.json").read_text(encoding="utf-8"))
    [asr] = [m["value"] for m in gates["repaired"]["metrics"] if (m["suite"], m["measure"]) == ("safety", "asr")]
    [share] = gates["repaired"]["shares"]
    [card] = [one for one in gates["card"] if one["question"] == "more than shrinking"]
    assert (gates["method"], gates["source"], card["passed"]) == ("gates", FOUND["source"], None)
    said = (
        f"With `--method gates` alone it ended at {asr:.2f} for {share['value'] * 100:.1f} %, which cannot be told from"
    )
    assert said in REPAIR
