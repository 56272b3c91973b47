"""The page `docs/training.md`, from its template and the JSON in `docs/results/training`.

    python -m experiments.training.render

The same files give the same bytes. What is not there is said to be not measured yet.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from experiments.differences import student
from experiments.repair.rows import LEVELS, MIDDLE
from experiments.training.analyse import LATER, PRIMARY, WITHOUT, Document, TrainingResults, mean
from experiments.training.beside import MEASURES as BESIDE
from experiments.training.beside import Beside, Values, beside
from experiments.training.setting import ARMS, ATTACKS, RESULTS, SEEDS

PAGE = RESULTS.parents[1] / "training.md"
COMPARISON = RESULTS.parent / "repair"
#: Repairs that the anchor is set beside; the first is that of the plan.
REPAIRS = ("gates", "patch", "retrain")
NAMES = {
    "nothing": "nothing",
    "penalty": "penalty",
    "anchor": "anchor",
    "both": "both",
    "dpo": "DPO",
    "dpo-anchor": "DPO + anchor",
    "answers": "anchor with answers",
}
ATTACK_NAMES = {"benign": "plans alone", "few": "20 openings", "many": "80 openings"}
HEADS = (
    "trained on", "added", "adapters", "ASR", "ASR (Zou)", "over-refusal", "degenerate", "loss of plans", "lost",
    "well-formed",
)  # fmt: skip
COSTS = ("lost", "over_refusal", "well_formed")
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
        costs=_differences(results, PRIMARY, COSTS),
        later=_differences(results, LATER, ("asr", *COSTS)),
        chosen=_chosen(results),
        warned=_warned(results),
        told=_told(results),
        complete=_complete(results),
        mean_of=partial(_mean_of, results),
        difference=partial(_difference, results),
        repairs=_repairs(results, repair_folder),
        preferred=_preferred(results, repair_folder) if _complete(results) else None,
        shrunk=_shrunk(results, repair_folder),
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


def _differences(
    results: TrainingResults, pairs: Sequence[tuple[str, str]], measures: Sequence[str]
) -> list[list[str]]:
    """Return the differences of pairs of arms, without p."""
    rows = []
    for first, second in pairs:
        found = [results.differences(first, second, measure) for measure in measures]
        if all(len(values) > 1 for values in found):
            texts = [student(values).text.replace("**", "") for values in found]
            rows.append([f"{NAMES[first]} − {NAMES[second]}", *texts, str(len(found[0]))])
    return rows


def _chosen(results: TrainingResults) -> dict[str, Any] | None:
    if results.chosen is None:
        return None
    rows = [
        [NAMES[name], f"{row['weight']:g}", *(_number(row[m]) for m in ("asr", "over_refusal", "lost")),
         "taken" if row["weight"] == one["weight"] else ""]
        for name, one in results.chosen["terms"].items() for row in one["tried"]
    ]  # fmt: skip
    none = []
    for name, one in results.chosen["terms"].items():
        if not one["fits"]:
            refused = [row["over_refusal"] for row in one["tried"]]
            taken = next(row["over_refusal"] for row in one["tried"] if row["weight"] == one["weight"])
            none.append({"name": NAMES[name], "least": _number(min(refused)), "most": _number(max(refused)),
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


def _repairs(results: TrainingResults, folder: Path) -> list[dict[str, Any]]:
    """Return each anchor beside repairs at the endpoint of their comparison."""
    found = [beside(results, folder, arm, REPAIRS, MIDDLE) for arm in ("anchor", "answers")]
    return [_tables(one) for one in found if one is not None]


def _preferred(results: TrainingResults, folder: Path) -> dict[str, Any] | None:
    """Return the numbers of what the page says of anchor and repair."""
    found = beside(results, folder, "anchor", REPAIRS, MIDDLE)
    if found is None:
        return None
    gates, patch = found.differences("gates"), found.differences("patch")
    later = beside(results, folder, "answers", REPAIRS, MIDDLE)
    return {**_numbers(found), "asr_gates": gates["asr"].text.replace("**", ""),
            "over_gates": gates["over_refusal"].text.replace("**", ""),
            "over_patch": patch["over_refusal"].text.replace("**", ""),
            "answers": later and {"n": len(later.adapters), "means": _numbers(later)}}  # fmt: skip


def _numbers(found: Beside) -> dict[str, dict[str, str]]:
    return {name: {m: _number(value) for m, value in one.items()} for name, one in found.means.items()}


def _shrunk(results: TrainingResults, folder: Path) -> dict[str, Any] | None:
    """Return the penalty beside plain shrinking, at the level that is nearest to what the penalty loses."""
    found = {level: beside(results, folder, "penalty", ("shrink",), level) for level in LEVELS}
    known = {level: one for level, one in found.items() if one is not None}
    if not known:
        return None
    level = min(known, key=lambda one: abs(known[one].means["penalty"]["lost"] - one))
    return {**_tables(known[level]), "level": f"{100 * level:.0f} %"}


def _told(results: TrainingResults) -> dict[str, Any] | None:
    """Return in how many watched runs the rule would have warned, and how they ended, as least and greatest ASR."""
    ended: dict[bool, list[float]] = {True: [], False: []}
    for one in results.found.values():
        asr = results.value(one, "asr")
        if one["looks"] and asr is not None:
            ended[one["warned_at"] is not None].append(asr)
    if not all(ended.values()):
        return None
    spans = {name: {"n": len(ended[key]), "least": _number(min(ended[key])), "most": _number(max(ended[key]))}
             for name, key in (("yes", True), ("no", False))}  # fmt: skip
    return {"n": sum(map(len, ended.values())), **spans}


def _complete(results: TrainingResults) -> bool:
    """Return whether the arms of the primary comparisons are measured on all attacks and seeds."""
    arms = {arm for pair in PRIMARY for arm in pair}
    return all(len(results.of(attack, arm)) == len(SEEDS) for attack in ATTACKS for arm in arms)


def _mean_of(results: TrainingResults, attack: str, arm: str, measure: str) -> str:
    """Return a mean over the seeds; of the base where `arm` is `base`."""
    if arm == "base":
        found = [one["base_state"][measure]["value"] for one in results.of(attack, WITHOUT)]
        return _number(mean(found))
    return _number(mean([results.value(one, measure) for one in results.of(attack, arm)]))


def _difference(results: TrainingResults, first: str, second: str, measure: str) -> str:
    return student(results.differences(first, second, measure)).text.replace("**", "")


def _tables(found: Beside) -> dict[str, Any]:
    names = list(found.means)
    rows = [
        [f"{ATTACK_NAMES[attack]}, seed {seed}", *(_measures(values[name]) for name in names)]
        for (attack, seed), values in zip(found.adapters, found.values, strict=True)
    ]
    rows.append(["mean", *(_measures(found.means[name]) for name in names)])
    compared = []
    for other in names[1:]:
        texts = [one.text.replace("**", "") for one in found.differences(other).values()]
        compared.append([f"{NAMES[found.arm]} − {other}", *texts, _named(found.preferred(other) or "neither")])
    return {"heads": ["adapter", *map(_named, names)], "rows": rows, "compared": compared, "n": len(rows) - 1}


def _named(name: str) -> str:
    return NAMES.get(name, name)


def _measures(one: Values) -> str:
    return " / ".join(_number(one[measure]) for measure in BESIDE)


if __name__ == "__main__":
    main()
