"""`s3lora fleet detector`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from s3lora.cli.options import format_option
from s3lora.cli.output import check_output, complain, emit, show
from s3lora.errors import S3LoRAError
from s3lora.fleet.detection.detector import Verdict, Verdicts, load, save_detector
from s3lora.fleet.detection.labels import detect, detect_all, train_from
from s3lora.fleet.results.summary import SUMMARY
from s3lora.fleet.signature import VARIANTS


@click.group("detector", short_help="Train a detector on labelled adapters, or apply one.")
def detector_command() -> None:
    """Say how usual an adapter's weight-space signature is against labelled ones; never what an adapter does."""


@detector_command.command("train", short_help="Train a detector on labelled adapters.")
@click.argument("folder", type=click.Path(path_type=Path), metavar="DIR")
@click.option(
    "--labels", required=True, metavar="FILE", help="CSV or Parquet with columns uri, label (0 or 1), recipe."
)
@click.option("-o", "--output", required=True, metavar="FILE", help="The detector to write, as JSON.")
@click.option(
    "--variant",
    type=click.Choice(list(VARIANTS)),
    default="plain",
    show_default=True,
    help="Singular values in energy and entropy as they are, or squared.",
)
@click.option(
    "--target",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.05,
    show_default=True,
    metavar="RATE",
    help="False-positive rate that the threshold is chosen for.",
)
@click.option(
    "--held-out",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.25,
    show_default=True,
    metavar="SHARE",
    help="Of the adapters, kept apart to measure with.",
)
@click.option(
    "--folds", type=click.IntRange(min=2), default=5, show_default=True, metavar="N", help="Of the cross-validation."
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, metavar="N", help="Of everything random."
)
@click.option("--name", "reference", metavar="NAME", help="What results will call the labelled adapters.")
def train_command(folder: Path, labels: str, output: str, **options: Any) -> None:
    """Train a calibrated logistic regression on the signatures of labelled adapters in the dataset DIR.

    DIR has to be scanned with --signature. Label 1 is what is to be told apart, 0 what is usual. The rates printed are
    measured on adapters that training has not seen, and with each recipe left out in turn.

    \b
    s3lora fleet scan adapters --signature --out results
    s3lora fleet detector train results --labels labels.csv -o detector.json
    """
    check_output(output)
    detector = train_from(folder, labels, **options)
    emit(save_detector(detector), output)
    from s3lora.report.detector_text import detector_text

    show(detector_text(detector), None)


@detector_command.command("apply", short_help="Hold adapters against a detector's reference.")
@click.argument("file", metavar="DETECTOR")
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@format_option("json")
@click.option("-o", "--output", metavar="FILE", help="Write the result to a file.")
def apply_command(file: str, paths: tuple[str, ...], form: str, output: str | None) -> int:
    """Say of each adapter whether it is unusual against the detector's reference.

    PATH is an adapter, or a dataset that `fleet scan --signature` made.

    \b
    s3lora fleet detector apply detector.json my-adapter
    s3lora fleet detector apply detector.json results --format json
    """
    check_output(output)
    detector = load(file)
    verdicts: list[Verdict] = []
    worst = 0
    for path in paths:
        try:
            dataset = (Path(path) / SUMMARY).is_file()
            verdicts += detect_all(detector, path) if dataset else detect(detector, path)
        except S3LoRAError as error:
            worst = max(worst, complain(error.located(), error.exit_status))
    if form == "json":
        from s3lora.report.documents import to_json

        emit(to_json(_document(detector, verdicts)), output)
    elif verdicts:
        from s3lora.report.detector_text import verdicts_text

        show(verdicts_text(detector, verdicts), output)
    return worst


def _document(detector: Any, verdicts: Sequence[Verdict]) -> Verdicts:
    return Verdicts(reference=detector.training.reference, caution=detector.caution, verdicts=tuple(verdicts))
