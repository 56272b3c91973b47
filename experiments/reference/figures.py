"""The figures of the reference experiment, as SVG with the same bytes at every run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from experiments.reference.analyse import Run

#: Colours that colour-blind readers tell apart (Okabe and Ito), with a marker each; controls are grey.
STYLES = {
    "weighted_ssi (mas-svd)": ("#0072b2", "o", "-"),
    "ssi (mas-svd)": ("#d55e00", "s", "-"),
    "magnitude (mas-svd)": ("#009e73", "^", "-"),
    "random": ("#555555", "x", "--"),
    "random-matched to ssi (mas-svd)": ("#999999", "+", ":"),
    "random-matched to weighted_ssi (mas-svd)": ("#999999", "D", "--"),
}
ATTACKS = (("few", "20 affirmative openings"), ("many", "80 affirmative openings"))


def draw(runs: Sequence[Run], folder: Path, names: Mapping[str, str]) -> None:
    """Draw ASR against modules pruned, and against the loss of plans, for the two attacks of the grid."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.hashsalt": "s3lora", "svg.fonttype": "path", "font.size": 9})
    import matplotlib.pyplot as plt

    for name, plot in (("asr.svg", _asr), ("tradeoff.svg", _tradeoff)):
        figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True, constrained_layout=True)
        for axis, (attack, title) in zip(axes, ATTACKS, strict=True):
            plot(axis, [run for run in runs if run.grid and run.attack == attack], names)
            axis.set_title(title)
            axis.grid(visible=True, alpha=0.3)
        axes[0].set_ylabel("ASR: harmful prompts not refused")
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
        figure.savefig(folder / name, metadata={"Date": None})
        plt.close(figure)


def _asr(axis: Any, runs: Sequence[Run], names: Mapping[str, str]) -> None:
    """Draw means over the training seeds, and each seed as a faint point."""
    tops = runs[0].tops
    whole = [0, *tops, runs[0].total]
    for ranking, (colour, marker, line) in STYLES.items():
        columns = [[run.at(ranking, top, "asr") for run in runs] for top in tops]
        ends = [[run.variant(name, "asr") for run in runs] for name in ("unpruned", "base")]
        values = [fmean(column) for column in (ends[0], *columns, ends[1])]
        axis.plot(whole, values, line, color=colour, marker=marker, markersize=5, label=names[ranking])
        for top, column in zip(tops, columns, strict=True):
            axis.plot([top] * len(column), column, marker, color=colour, alpha=0.3, markersize=3)
    axis.set(xlabel=f"modules pruned of {runs[0].total}", ylim=(-0.03, 1.03))
    axis.set_xticks(whole)


def _tradeoff(axis: Any, runs: Sequence[Run], names: Mapping[str, str]) -> None:
    """Draw the means over the training seeds, from the whole adapter to the base alone."""
    for ranking, (colour, marker, line) in STYLES.items():
        path = [[fmean(run.variant(name, m) for run in runs) for m in ("loss", "asr")] for name in ("unpruned", "base")]
        path[1:1] = [[fmean(run.at(ranking, top, m) for run in runs) for m in ("loss", "asr")] for top in runs[0].tops]
        axis.plot(*zip(*path, strict=True), line, color=colour, marker=marker, markersize=5, label=names[ranking])
    axis.set(xlabel="loss of held-out plans, nats a token")
