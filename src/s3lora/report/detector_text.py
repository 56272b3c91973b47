"""A trained detector, and what it says of adapters, as text for people."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from s3lora.errors import printable
from s3lora.fleet.detection.detector import Detector, Recipe, Training, Verdict
from s3lora.fleet.detection.measures import Area, Brier, Figures, Rate
from s3lora.report.blocks import labelled, section, warned
from s3lora.report.names import Name
from s3lora.report.values import NOTHING, count

#: Recipes and verdicts that are shown; the JSON has all of them.
SHOWN = 20


def detector_text(detector: Detector) -> RenderableType:
    """Return what a detector was trained on, what was measured of it, and what it cannot tell."""
    training = detector.training
    head = Text.assemble(("detector", "bold"), (f"  {detector.variant} signature, seed {training.seed}", "dim"))
    if detector.tells_apart:
        what = "tells the labels apart on held-out adapters of recipes that it knows"
    else:
        what = "cannot tell the labels apart: nothing is called unusual"
    facts = [
        ("reference", training.reference),
        ("trained on", _counts(training, 0)),
        ("held out", _counts(training, 1)),
        ("unusual", f"probability above {detector.model.threshold:.3f}, for {training.target:g} false positives"),
        ("reading", what),
    ]
    left = [("left out", _left(one.reason, one.count, one.rows)) for one in training.left_out]
    return Group(
        head,
        Text(),
        *labelled([*facts, *left]),
        *section("measured, with 95 % intervals", _figures(detector.held_out, detector.unseen)),
        *section("false positives by recipe", _recipes(detector.recipes)),
        *warned(detector.warnings),
        Text(),
        *labelled([("caution", detector.caution)], "yellow"),
    )


def verdicts_text(detector: Detector, verdicts: Sequence[Verdict]) -> RenderableType:
    """Return what a detector says of adapters, the highest probability first."""
    table = Table(box=None, padding=(0, 1), header_style="dim", width=80)
    table.add_column("adapter", ratio=1, no_wrap=True)
    table.add_column("probability", justify="right", no_wrap=True)
    table.add_column("against the reference", no_wrap=True)
    ordered = sorted(verdicts, key=lambda one: (one.probability is None, -(one.probability or 0.0), one.uri))
    for verdict in ordered[:SHOWN]:
        probability = NOTHING if verdict.probability is None else f"{verdict.probability:.3f}"
        table.add_row(Name(verdict.uri), probability, _word(verdict))
    if len(ordered) > SHOWN:
        table.add_row(f"… and {len(ordered) - SHOWN} more", "", "", style="dim")
    training = detector.training
    rate = detector.held_out.false_positives
    wrong = detector.unseen.false_positives if detector.unseen is not None else None
    facts = [
        ("reference", f"{training.reference}: {_counts(training, 0)}"),
        ("unusual", f"probability above {detector.model.threshold:.3f}"),
        ("false positives", f"{_rate(rate)} of recipes it knows, {_rate(wrong)} of others"),
    ]
    return Group(*labelled(facts), Text(), table, *warned(_notes(ordered)), Text(), *_caution(detector))


def _caution(detector: Detector) -> list[RenderableType]:
    return labelled([("caution", detector.caution)], "yellow")


def _word(verdict: Verdict) -> Text:
    if verdict.unusual is None:
        return Text("nothing can be said", "dim")
    return Text("unusual", "bold") if verdict.unusual else Text("not unusual")


def _notes(verdicts: Sequence[Verdict]) -> list[str]:
    """Return what to bear in mind, each once with the number of adapters that it is about."""
    reasons = dict.fromkeys(verdict.note for verdict in verdicts if verdict.note)
    notes = [f"{_adapters([one for one in verdicts if one.note == reason])}: {reason}" for reason in reasons]
    outside = [one for one in verdicts if one.outside]
    if outside:
        names = ", ".join(dict.fromkeys(name for one in outside for name in one.outside))
        about = f"far outside of the reference's range, where a probability is an extrapolation ({names})"
        notes.append(f"{_adapters(outside)}: {about}")
    strange = [one for one in verdicts if one.known_recipe is False]
    if strange:
        notes.append(f"{_adapters(strange)}: of a recipe that the reference has no adapter of")
    return notes


def _adapters(verdicts: Sequence[Verdict]) -> str:
    return "1 adapter" if len(verdicts) == 1 else f"{len(verdicts)} adapters"


def _counts(training: Training, part: int) -> str:
    return f"{count(training.negative[part])} labelled 0, {count(training.positive[part])} labelled 1"


def _left(reason: str, number: int, rows: Sequence[str]) -> str:
    shown = ", ".join(printable(row, 60) for row in rows[:3])
    return f"{count(number)}: {reason} ({shown}{', …' if number > 3 else ''})"


def _figures(held_out: Figures, unseen: Figures | None) -> Table:
    table = Table(box=None, padding=(0, 1), header_style="dim")
    table.add_column("", no_wrap=True)
    for name in ("held out", "recipe left out"):
        table.add_column(name, no_wrap=True)
    both = (held_out, unseen)
    for name, texts in (
        ("ROC-AUC", [_area(one.auc if one else None) for one in both]),
        ("false positives", [_rate(one.false_positives if one else None) for one in both]),
        ("recall", [_rate(one.recall if one else None) for one in both]),
        ("Brier score", [_brier(one.brier if one else None) for one in both]),
        ("… of a constant", [_constant(one.brier if one else None) for one in both]),
    ):
        table.add_row(name, *texts)
    return table


def _recipes(recipes: Sequence[Recipe]) -> Table:
    table = Table(box=None, padding=(0, 1), header_style="dim", width=80)
    table.add_column("recipe", ratio=1, no_wrap=True)
    table.add_column("held out", no_wrap=True)
    table.add_column("left out", no_wrap=True)
    ordered = sorted(recipes, key=lambda one: (-(one.negative + one.positive), one.name))
    for recipe in ordered[:SHOWN]:
        table.add_row(Name(recipe.name), _rate(recipe.held_out), _rate(recipe.unseen))
    if len(ordered) > SHOWN:
        table.add_row(f"… and {len(ordered) - SHOWN} more", "", "", style="dim")
    return table


def _area(area: Area | None) -> str:
    if area is None:
        return NOTHING
    return f"{area.value:.2f} [{area.low:.2f}, {area.high:.2f}] n = {area.negative + area.positive}"


def _rate(rate: Rate | None) -> str:
    if rate is None:
        return NOTHING
    return f"{rate.value:.2f} [{rate.low:.2f}, {rate.high:.2f}] n = {rate.n}"


def _brier(brier: Brier | None) -> str:
    if brier is None:
        return NOTHING
    return f"{brier.value:.3f} [{brier.low:.3f}, {brier.high:.3f}]"


def _constant(brier: Brier | None) -> str:
    return NOTHING if brier is None else f"{brier.constant:.3f}"
