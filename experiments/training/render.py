"""The page `docs/training.md`, from its template and the JSON in `docs/results/training`.

    python -m experiments.training.render

The same files give the same bytes. What is not there is said to be not measured yet.
"""

from __future__ import annotations

from pathlib import Path
from statistics import fmean
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from experiments.differences import student
from experiments.training.analyse import BESIDE, PRIMARY, REPAIRS, Document, TrainingResults, mean, repairs
from experiments.training.setting import ARMS, ATTACKS, RESULTS

PAGE = RESULTS.parents[1] / "training.md"
COMPARISON = RESULTS.parent / "repair"
NAMES = {
    "nothing": "nothing",
    "penalty": "penalty",
    "anchor": "anchor",
    "both": "both",
    "dpo": "DPO",
    "dpo-anchor": "DPO + anchor",
}
ATTACK_NAMES = {"benign": "plans alone", "few": "20 openings", "many": "80 openings"}
HEADS = (
    "trained on", "added", "adapters", "ASR", "ASR (Zou)", "over-refusal", "degenerate", "loss of plans", "lost",
    "well-formed",
)  # fmt: skip
MEASURES = ("asr", "asr_zou", "over_refusal", "degenerate", "loss")


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(RESULTS, COMPARISON), encoding="utf-8")


def page(folder: Path, repair_folder: Path) -> str:
    """Return the page of the results in a folder, beside repairs in another."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True,
    )  # fmt: skip
    results = TrainingResults(folder)
    return environment.get_template("page.md.jinja").render(
        measured=len(results.found),
        expected=results.expected,
        heads=HEADS,
        rows=_rows(results),
        sizes=_sizes(results),
        primary=[(f"{NAMES[a]} − {NAMES[b]}", one.text, one.p_text, str(one.n)) for a, b, one in results.primary()],
        costs=_costs(results),
        chosen=_chosen(results),
        warned=_warned(results),
        beside=_beside(results, repair_folder),
    )


def _rows(results: TrainingResults) -> list[list[str]]:
    """Return the base, which is one and the same on all attacks, and every arm over its seeds."""
    rows = []
    for one in [*results.found.values()][:1]:
        base = [_number(one["base_state"][measure]["value"]) for measure in MEASURES]
        rows.append(["nothing: the base", "", "", *base, _number(1.0), "–"])
    for attack in ATTACKS:
        found = {arm: results.of(attack, arm) for arm in ARMS}
        rows += [_row(results, attack, arm, known) for arm, known in found.items() if known]
    return rows


def _row(results: TrainingResults, attack: str, arm: str, found: list[Document]) -> list[str]:
    cells = [_spread([results.value(one, measure) for one in found]) for measure in (*MEASURES, "lost", "well_formed")]
    return [ATTACK_NAMES[attack], NAMES[arm], str(len(found)), *cells]


def _spread(values: list[float | None]) -> str:
    """Return the mean and, of several, the least and the greatest."""
    known = [value for value in values if value is not None]
    if len(known) < 2:
        return _number(mean(values))
    return f"{fmean(known):.2f} ({min(known):.2f}–{max(known):.2f})"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _sizes(results: TrainingResults) -> dict[str, int]:
    one = next(iter(results.found.values()), None)
    if one is None:
        return {}
    return {
        "asr": one["state"]["asr"]["n"],
        "over_refusal": one["state"]["over_refusal"]["n"],
        "loss": one["state"]["loss"]["n"],
        "well_formed": one["plans"]["well_formed"]["n"],
    }


def _costs(results: TrainingResults) -> list[list[str]]:
    """Return the secondary differences: what each costs, without p."""
    rows = []
    for first, second in PRIMARY:
        found = [results.differences(first, second, measure) for measure in ("lost", "over_refusal", "well_formed")]
        if all(len(values) > 1 for values in found):
            texts = [student(values).text.replace("**", "") for values in found]
            rows.append([f"{NAMES[first]} − {NAMES[second]}", *texts, str(len(found[0]))])
    return rows


def _chosen(results: TrainingResults) -> dict[str, Any] | None:
    if results.chosen is None:
        return None
    rows = [
        [name, f"{row['weight']:g}", *(_number(row[m]) for m in ("asr", "over_refusal", "lost")),
         "taken" if row["weight"] == one["weight"] else ""]
        for name, one in results.chosen["terms"].items() for row in one["tried"]
    ]  # fmt: skip
    none = []
    for name, one in results.chosen["terms"].items():
        if not one["fits"]:
            refused = [row["over_refusal"] for row in one["tried"]]
            taken = next(row["over_refusal"] for row in one["tried"] if row["weight"] == one["weight"])
            none.append({"name": name, "least": _number(min(refused)), "most": _number(max(refused)),
                         "taken": _number(taken)})  # fmt: skip
    base = results.chosen["base"]
    sizes = {"harmful": base["asr"]["n"], "harmless": base["over_refusal"]["n"]}
    return {"rows": rows, "none": none, "base": _number(base["over_refusal"]["value"]), **sizes}


def _warned(results: TrainingResults) -> list[list[str]]:
    """Return of every arm that was watched when the rule would have warned, and the last rise."""
    rows = []
    for attack in ATTACKS:
        for arm in ARMS:
            seen = [one for one in results.of(attack, arm) if one["looks"]]
            if seen:
                at = ["no warning" if one["warned_at"] is None else f"step {one['warned_at']}" for one in seen]
                rise = _spread([one["looks"][-1]["rise"] for one in seen])
                asr = _spread([results.value(one, "asr") for one in seen])
                rows.append([ATTACK_NAMES[attack], NAMES[arm], str(len(seen)), ", ".join(at), rise, asr])
    return rows


def _beside(results: TrainingResults, folder: Path) -> dict[str, Any] | None:
    """Return the anchor beside each repair, and which is to be preferred by the plan's rule."""
    pairs = []
    for one, mended in repairs(folder, results):
        own = {measure: results.value(one, measure) for measure in BESIDE}
        if None not in own.values():
            pairs.append((one, {"anchor": own, **mended}))
    if len({one["attack"] for one, _ in pairs}) < len(ATTACKS) - 1:
        return None
    names = ["anchor", *(name for name in REPAIRS if all(name in of for _, of in pairs))]
    rows = [
        [f"{ATTACK_NAMES[one['attack']]}, seed {one['seed']}", *(_measures(of[name]) for name in names)]
        for one, of in pairs
    ]
    means = {name: {m: fmean(of[name][m] for _, of in pairs) for m in BESIDE} for name in names}
    rows.append(["mean", *(_measures(means[name]) for name in names)])
    compared = []
    for name in names[1:]:
        differences = [[of["anchor"][m] - of[name][m] for _, of in pairs] for m in BESIDE]
        texts = [student(values).text.replace("**", "") for values in differences]
        compared.append([f"anchor − {name}", *texts, f"**{_preferred(means, name)}**"])
    return {"heads": names, "rows": rows, "compared": compared, "n": len(pairs)}


def _measures(one: dict[str, Any]) -> str:
    return " / ".join(_number(one[measure]) for measure in BESIDE)


def _preferred(means: dict[str, dict[str, float]], repair: str) -> str:
    """Return which is to be preferred by the plan's rule: what is lower both in ASR and in what is lost."""
    better = [means["anchor"][m] < means[repair][m] for m in ("asr", "lost")]
    return "the anchor" if all(better) else "it depends" if any(better) else "the repair"


if __name__ == "__main__":
    main()
