"""Options of what measures a model: which one, what is measured, where answers are kept, and the files."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from s3lora.cli.options import Command, all_options
from s3lora.cli.output import check_output, emit, live
from s3lora.cli.progress import share_line
from s3lora.errors import OutputError, UsageError, printable
from s3lora.evaluate.judges.profiles import PROFILES

if TYPE_CHECKING:
    from s3lora.evaluate.base_model import BaseToLoad
    from s3lora.evaluate.bench import Advance
    from s3lora.evaluate.chat_setup import ChatSetup
    from s3lora.evaluate.judges.judge import Judge
    from s3lora.evaluate.store import AnswerStore
    from s3lora.evaluate.suites import SuiteSettings

model_options = all_options(
    click.option("--base", metavar="MODEL",
                 help="Base model: a folder, a .gguf file, a Hub name, `demo`, or `demo-aligned`."),
    click.option("--device", metavar="NAME", help="cpu, cuda, …  [default: CUDA where there is one]."),
    click.option("--dtype", metavar="NAME", help="float32, bfloat16, …  [default: float32 on a CPU, else bfloat16]."),
    click.option("--batch-size", type=click.IntRange(min=1), metavar="N", help="Answers at a time  [default: chosen]"),
    click.option("--system", metavar="TEXT|FILE", help="System prompt before every prompt, ahead of the prompt's own."),
    click.option("--few-shot", metavar="FILE", help="Examples before every prompt: pairs or chats, as JSONL."),
    click.option("--chat-template-args", metavar="JSON", help="""Such as '{"enable_thinking": false}'."""),
)  # fmt: skip

data_options = all_options(
    click.option("--harmful", metavar="FILE", help="Harmful prompts: CSV, JSON, JSONL, parquet, text; gzip too."),
    click.option("--benign", metavar="FILE", help="Harmless prompts, for over-refusal."),
    click.option("--refusals", metavar="JUDGE", help="What tells refusals: openings, zou, or a list in a JSON file."),
    click.option("--tasks", metavar="FILE", help="Planning tasks: JSONL, or hotpotqa, triviaqa."),
    click.option("--documents", metavar="FOLDER", help="Texts that the tasks' lookups search."),
    click.option("--references", metavar="FILE", help="Prompts with references, for summarisation."),
    click.option("--maths", metavar="FILE", help="Word problems with worked answers, as GSM8K, for maths."),
    click.option("--code", metavar="FILE", help="Tasks with solutions, as HumanEval, for code-loss; no code is run."),
    click.option("--where", multiple=True, metavar="COLUMN=VALUE", help="Which rows; or benign:COLUMN!=VALUE."),
    click.option("--prompt-field", "prompt_fields", multiple=True, metavar="NAME",
                 help="Column that holds the prompt; or harmful:NAME."),
    click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Items of each set, drawn with the seed."),
    click.option("--tokens", metavar="SPEC", help="Most tokens of an answer: 32, or safety=32,planning=96."),
    click.option("--judge", metavar="MODEL", help="Model that judges answers to harmful prompts."),
    click.option("--judge-profile", metavar="NAME",
                 help=f"How it is asked and read: {', '.join(PROFILES)}  [default: told from the model, else rubric]."),
    click.option("--judge-logits", is_flag=True, help="Judge by the probability of its first word, not by its reply."),
    click.option("--judge-endpoint", metavar="URL", help="Server that runs the judge."),
    click.option("--timeout", type=click.FloatRange(0, 86_400, min_open=True), default=120, show_default=True,
                 metavar="S", help="Seconds for one answer of a server."),
)  # fmt: skip

cache_options = all_options(
    click.option("--cache", metavar="FOLDER", help="Where answers are kept  [default: ~/.cache/s3lora]."),
    click.option("--no-cache", is_flag=True, help="Keep no answers, and ask for all of them again."),
)

store_options = all_options(
    cache_options,
    click.option("-o", "--output", metavar="FOLDER", help="Write the results into this folder."),
)  # fmt: skip


def suite_option(default: str) -> Callable[[Command], Command]:
    """Return `--suite` with a default."""
    from s3lora.evaluate.suites import suite_names

    named = f"Some of {suite_names()}."
    return click.option("--suite", default=default, show_default=True, metavar="NAMES", help=named)


def settings_of(options: dict[str, Any], seed: int, losses: bool = True) -> SuiteSettings:
    """Return what is to be measured; raise UsageError for what cannot be meant."""
    from s3lora.evaluate.suites import SuiteSettings

    names = words(options["suite"])
    return SuiteSettings(
        names=names,
        **{
            name: options[name]
            for name in ("harmful", "benign", "refusals", "tasks", "documents", "references", "maths", "code", "limit")
        },
        where=tuple(options["where"]),
        prompt_fields=tuple(options["prompt_fields"]),
        seed=seed,
        tokens=_tokens(options["tokens"], names),
        judge=_judge(options),
        losses=losses,
        keep=bool(options.get("keep_completions")),
    )


def words(text: str) -> tuple[str, ...]:
    """Return the parts of a list with commas."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _tokens(text: str | None, names: tuple[str, ...]) -> dict[str, int]:
    if text is None:
        return {}
    if re.fullmatch(r"[1-9]\d{0,5}", text):
        return dict.fromkeys(names, int(text))
    parts = [re.fullmatch(r"([a-z-]+(?::[^=]+)?)=([1-9]\d{0,5})", part) for part in words(text)]
    found = {part[1]: int(part[2]) for part in parts if part is not None}
    if not parts or None in parts:
        raise UsageError(f"--tokens {printable(text, 60)} cannot be read", fix="write 32, or safety=32,planning=96")
    return found


def _judge(options: dict[str, Any]) -> Judge | None:
    if not options["judge"]:
        for name in ("judge_endpoint", "judge_profile", "judge_logits"):
            if options[name]:
                raise UsageError(f"--{name.replace('_', '-')} does nothing without --judge NAME")
        return None
    from s3lora.evaluate.judges.build import build_judge

    with progress_bar() as advance:
        advance(0.0, "loading the judge")
        return build_judge(
            options["judge"],
            profile=options["judge_profile"],
            endpoint=options["judge_endpoint"] or None,
            logits=options["judge_logits"],
            timeout=options["timeout"],
        )


def named_model(options: dict[str, Any]) -> BaseToLoad:
    """Return the base model, which is loaded later; raise UsageError where none is named, ModelError without any."""
    if not options["base"]:
        raise UsageError("--base is not given", fix="name the model that the adapter was trained on")
    from s3lora.evaluate.base_model import BaseToLoad
    from s3lora.evaluate.loading import find_base

    find_base(options["base"], device=options["device"], dtype=options["dtype"])
    own = {name: options[name] for name in ("device", "dtype", "batch_size")}
    return BaseToLoad(options["base"], **own, chat=chat_setup(options))


def chat_setup(options: dict[str, Any]) -> ChatSetup:
    """Return what is put around every prompt; raises what the readers of its parts raise."""
    from s3lora.evaluate.chat_setup import ChatSetup, read_few_shot, read_system, read_template_args

    system, examples, given = options["system"], options["few_shot"], options["chat_template_args"]
    return ChatSetup(
        system="" if system is None else read_system(system),
        examples=() if examples is None else read_few_shot(examples),
        template_args={} if given is None else read_template_args(given),
    )


@contextmanager
def open_store(options: dict[str, Any]) -> Iterator[AnswerStore | None]:
    """Open the store of answers, None with --no-cache."""
    if options["no_cache"]:
        if options["cache"]:
            raise UsageError("--cache and --no-cache exclude each other")
        yield None
        return
    from s3lora.evaluate.store import FILE_NAME, AnswerStore

    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(options["cache"]) if options["cache"] else Path(home) / "s3lora"
    with AnswerStore(folder / FILE_NAME) as store:
        yield store


@contextmanager
def progress_bar() -> Iterator[Advance]:
    """Show a bar with the time left on standard error, where that is a terminal, and a line now and then elsewhere."""
    if not live():
        yield share_line()
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), TaskProgressColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("looking at what is to be measured", total=1.0)

        def advance(share: float, label: str) -> None:
            bar.update(task, completed=share, description=printable(label, 60))

        yield advance


def is_page(output: str | None, form: str) -> bool:
    """Return whether `--output` names one page instead of a folder."""
    return form == "html" and output is not None and output.lower().endswith((".html", ".htm"))


def check_folder(output: str | None, form: str = "text", option: str = "--output") -> None:
    """Raise before any work is done if results cannot be written to the folder, or to the page; make the folder.

    `option` is what names it.
    """
    if output is None:
        return
    if is_page(output, form):
        check_output(output)
        return
    if not output.strip():
        raise UsageError(f"{option} has no name", fix="give the folder to write")
    if (Path(output) / "adapter_config.json").exists():
        raise OutputError("is an adapter", file=output, fix=f"give {option} a folder of its own")
    try:
        Path(output).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=output):
            pass
    except OSError as error:
        raise OutputError(f"cannot be written to ({error.strerror or error})", file=output) from None


def write_files(output: str | None, files: dict[str, str], form: str = "text") -> None:
    """Write each text under its name into the folder, or the page alone."""
    if is_page(output, form):
        emit(files["report.html"], output)
        return
    for name, text in files.items() if output is not None else ():
        emit(text, str(Path(output or "") / name))
