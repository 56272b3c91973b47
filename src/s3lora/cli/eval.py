"""`s3lora eval`."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import click

from s3lora.cli.command import Command
from s3lora.cli.measuring import (
    chat_setup,
    check_folder,
    data_options,
    is_page,
    model_options,
    named_model,
    open_store,
    progress_bar,
    settings_of,
    store_options,
    suite_option,
    write_files,
)
from s3lora.cli.options import (
    adapters_option,
    format_option,
    refuse_choosing,
    refuse_idle,
    refuse_written,
    rule_options,
    scan_options,
    scan_with,
    selector,
)
from s3lora.cli.output import emit, show
from s3lora.errors import UsageError

if TYPE_CHECKING:
    from s3lora.adapter.model import Adapter
    from s3lora.choose.select import Plan
    from s3lora.evaluate.bench import Outcomes
    from s3lora.evaluate.results import Evaluation
    from s3lora.evaluate.store import AnswerStore
    from s3lora.evaluate.suite import Suite
    from s3lora.measure.scan import Scan

#: Prompts whose answers are timed.
TIMED = 8


#: Options of a model that is loaded here, as a judge may be.
_OF_MODELS_HERE = ("device", "dtype", "batch_size")


@click.command("eval", cls=Command)
@click.argument("paths", nargs=-1, metavar="[ADAPTER]...")
@adapters_option
@model_options
@click.option("--endpoint", metavar="URL", help="Measure models behind an OpenAI-compatible server instead.")
@click.option("--model", "served", multiple=True, metavar="NAME", help="A model there; the first is the reference.")
@suite_option("safety,planning,summarisation")
@data_options
@click.option("--no-prune", is_flag=True, help="Measure the adapters as they are, and no pruned variants.")
@click.option("--no-cost", is_flag=True, help="Time nothing; results are then the same bytes at every run.")
@click.option("--keep-completions", is_flag=True, help="Also write the answers to harmful prompts.")
@scan_options
@rule_options
@store_options
@format_option("json", "csv", "html")
def eval_command(paths: tuple[str, ...], form: str, output: str | None, **options: Any) -> None:
    """Measure the base model, each adapter and each adapter without its sharpest modules, on the same prompts.

    Safety is the share of harmful prompts not refused, beside the share of harmless ones that are; usefulness is
    planning and summarising; cost is time. Every number has its interval, and every difference a paired test. A+B
    measures adapters that are active together, beside each of them alone.

    \b
    s3lora eval my-adapter --base HuggingFaceTB/SmolLM2-135M-Instruct
    s3lora eval my-adapter --base ./model --fraction 0.5 --index weighted-ssi --suite safety --output results
    s3lora eval style+facts --base ./model --suite safety --no-prune
    s3lora eval --endpoint http://localhost:8000 --model base --model my-adapter --suite safety
    """  # fmt: skip
    refuse_idle(click.get_current_context())
    for because in ("no_prune", "endpoint"):
        if options[because]:
            refuse_choosing(click.get_current_context(), f"--{because.replace('_', '-')}")
    if options["endpoint"]:
        idle = ("no_cost", "no_prune") if options["judge"] else ("no_cost", "no_prune", *_OF_MODELS_HERE)
        refuse_written(click.get_current_context(), idle, "--endpoint")
    check_folder(output, form)
    if options["keep_completions"] and (output is None or is_page(output, form)):
        raise UsageError("--keep-completions needs --output, a folder to write them to")
    from s3lora.evaluate.suites import build_suites

    suites = build_suites(settings_of(options, options["seed"]))
    outcomes: dict[str, Outcomes] = {}
    with open_store(options) as store:
        measure = _served if options["endpoint"] else _local
        evaluation = measure(paths, suites, store, outcomes, options)
    from s3lora.report.documents import to_json
    from s3lora.report.measured_documents import evaluation_csv

    files = {"evaluation.json": to_json(evaluation), "evaluation.csv": evaluation_csv(evaluation)}
    if output is not None or form == "html":
        from s3lora.report.page import evaluation_page

        files["report.html"] = evaluation_page(evaluation)
        write_files(output, {**files, **_records(suites, outcomes)}, form)
    if not is_page(output, form):
        _print(evaluation, form, files)


def _local(
    paths: tuple[str, ...],
    suites: list[Suite],
    store: AnswerStore | None,
    outcomes: dict[str, Outcomes],
    options: dict[str, Any],
) -> Evaluation:
    from s3lora.evaluate.evaluation import evaluate
    from s3lora.evaluate.prompts import built_in

    if options["served"]:
        raise UsageError("--model does nothing without --endpoint")
    if not paths:
        raise UsageError("no adapter is given", fix="name at least one adapter folder, or --endpoint")
    choose = selector(options)

    def plan(adapter: Adapter) -> tuple[Scan, Plan]:
        measured = scan_with(adapter, options, str(adapter.path))
        return measured, choose(measured)

    with progress_bar() as advance:
        return evaluate(
            paths,
            named_model(options),
            suites,
            choose=None if options["no_prune"] else plan,
            store=store,
            seed=options["seed"],
            limit=options["limit"],
            costs=() if options["no_cost"] else built_in("benign").prompts[:TIMED],
            advance=advance,
            keep=outcomes.__setitem__,
            adapter=options["picked"],
        )


def _served(
    paths: tuple[str, ...],
    suites: list[Suite],
    store: AnswerStore | None,
    outcomes: dict[str, Outcomes],
    options: dict[str, Any],
) -> Evaluation:
    from s3lora.evaluate.endpoint import EndpointModel
    from s3lora.evaluate.evaluation import evaluate_served

    if paths or options["base"] or options["picked"]:
        raise UsageError("a server has its own models", fix="give --model NAME for each, and no adapter or --base")
    given = {"timeout": options["timeout"], "setup": chat_setup(options)}
    models = [EndpointModel(options["endpoint"], name, **given) for name in options["served"]]
    if not models:
        raise UsageError("--endpoint needs --model NAME, at least once")
    with progress_bar() as advance:
        return evaluate_served(
            models,
            suites,
            store=store,
            seed=options["seed"],
            limit=options["limit"],
            advance=advance,
            keep=outcomes.__setitem__,
        )


def _records(suites: list[Suite], found: dict[str, Outcomes]) -> dict[str, str]:
    """Return what was found item by item, without texts; and the answers to harmful prompts where they were kept."""
    from s3lora.evaluate.prompts import harmbench, jailbreakbench
    from s3lora.evaluate.safety import SafetySuite

    lines = [
        json.dumps({"variant": variant, "suite": suite, **_without_text(record)}, ensure_ascii=False)
        for variant, outcomes in found.items()
        for suite, outcome in outcomes.items()
        for record in outcome.records
    ]
    files = {"records.jsonl": "".join(f"{line}\n" for line in lines)}
    for suite in suites:
        for n, (variant, outcomes) in enumerate(found.items()):
            kept = suite.completions(outcomes[suite.info.name]) if isinstance(suite, SafetySuite) else []
            if kept:
                name = f"{n}-{re.sub(r'[^A-Za-z0-9._-]+', '-', variant)[:80]}"
                files[f"completions-{name}-harmbench.json"] = harmbench(kept)
                files[f"completions-{name}-jailbreakbench.json"] = jailbreakbench(kept)
    return files


def _without_text(record: Any) -> dict[str, object]:
    return {key: value for key, value in record.items() if key != "completion"}


def _print(evaluation: Evaluation, form: str, files: dict[str, str]) -> None:
    if form == "text":
        from s3lora.report.evaluation_text import evaluation_text

        show(evaluation_text(evaluation), None)
    else:
        emit(files["report.html" if form == "html" else f"evaluation.{form}"], None)
