"""`s3lora judge-check`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from s3lora.cli.command import Command
from s3lora.cli.options import format_option
from s3lora.cli.output import check_output, emit, show
from s3lora.errors import UsageError

if TYPE_CHECKING:
    from s3lora.evaluate.judges.judge import Judge
    from s3lora.evaluate.judges.labelled import AnswerLabel, LabelNames
    from s3lora.evaluate.refusals import RefusalJudge


@click.command("judge-check", cls=Command)
@click.argument("labelled", metavar="LABELLED")
@click.option(
    "--judge",
    default="openings",
    show_default=True,
    metavar="NAME",
    help="openings, zou, a refusal list as JSON, or a judge model.",
)
@click.option("--judge-profile", metavar="NAME", help="How a judge model is asked and read.")
@click.option("--judge-endpoint", metavar="URL", help="Server that runs the judge model.")
@click.option("--answer-field", metavar="NAME", help="Column of the answers.")
@click.option("--label-field", metavar="NAME", help="Column of the labels.")
@click.option("--refused", multiple=True, metavar="VALUE", help="A label that means a full refusal.")
@click.option("--answered", multiple=True, metavar="VALUE", help="A label that means no refusal.")
@click.option("--partial", multiple=True, metavar="VALUE", help="A label that means a refusal in part.")
@click.option("--evaluation", metavar="FILE", help="An evaluation.json whose rates are to be corrected.")
@click.option("--variant", metavar="NAME", help="The variant of it whose answers were labelled.")
@format_option("json")
@click.option("-o", "--output", metavar="FILE", help="Write the result to a file.")
def judge_check_command(
    labelled: str,
    judge: str,
    judge_profile: str | None,
    judge_endpoint: str | None,
    answer_field: str | None,
    label_field: str | None,
    refused: tuple[str, ...],
    answered: tuple[str, ...],
    partial: tuple[str, ...],
    evaluation: str | None,
    variant: str | None,
    form: str,
    output: str | None,
) -> None:
    """Ask a judge about answers that people have labelled, and count how often both agree.

    LABELLED is a table with a column answer and a column label (refusal, answer or partial), and if wanted model and
    prompt. With --evaluation the rate of attacks is corrected by it, for the model whose answers were labelled alone.

    \b
    s3lora judge-check labelled.csv
    s3lora judge-check labelled.csv --judge zou --refused 1 --answered 0
    s3lora judge-check labelled.csv --evaluation results/evaluation.json --variant my-adapter
    """  # fmt: skip
    check_output(output)
    if variant is not None and evaluation is None:
        raise UsageError("--variant does nothing without --evaluation")
    from s3lora.evaluate.judges.checking import check_judge, correct
    from s3lora.evaluate.judges.labelled import read_labelled

    data = read_labelled(labelled, _names(answer_field, label_field, refused, answered, partial))
    found = check_judge(_judge(judge, judge_profile, judge_endpoint), data)
    if evaluation is not None:
        from s3lora.evaluate.reading import read_measurement
        from s3lora.evaluate.results import Evaluation

        measured = read_measurement(evaluation)
        if not isinstance(measured, Evaluation):
            raise UsageError("is no result of eval", file=evaluation, fix="give an evaluation.json")
        found = correct(found, measured, variant)
    if form == "json":
        from s3lora.report.documents import to_json

        emit(to_json(found), output)
    else:
        from s3lora.report.judge_check_text import judge_check_text

        show(judge_check_text(found), output)


def _names(
    answer: str | None, label: str | None, refused: tuple[str, ...], answered: tuple[str, ...], partial: tuple[str, ...]
) -> LabelNames:
    from s3lora.evaluate.judges.labelled import LabelNames

    values: dict[str, AnswerLabel] = {}
    for meaning, given in (("refusal", refused), ("answer", answered), ("partial", partial)):
        for value in given:
            if value in values:
                raise UsageError(f"the label {value} is given two meanings")
            values[value] = meaning  # type: ignore[assignment]
    return LabelNames(answer=answer, label=label, values=values)


def _judge(name: str, profile: str | None, endpoint: str | None) -> RefusalJudge | Judge:
    """Return the judge of refusals called so, that of a file, or a judge model."""
    from s3lora.evaluate.judges.refusing import REFUSAL_JUDGES, refusal_judge

    by_model = profile is not None or endpoint is not None
    if not by_model and (name in REFUSAL_JUDGES or Path(name).suffix.lower() == ".json"):
        return refusal_judge(name)
    from s3lora.evaluate.judges.build import build_judge

    return build_judge(name, profile=profile, endpoint=endpoint)
