"""Options that several commands share, and what they mean to the library."""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterable
from typing import Any, TypeVar

import click

from s3lora.adapter.loaders import LOADERS, loader_of
from s3lora.adapter.model import Adapter
from s3lora.adapter.open import open_adapter
from s3lora.choose.presets import PRESETS
from s3lora.choose.ranking import Rule, SimulatingRule, rule_cost
from s3lora.choose.rule import RuleKind, Setting
from s3lora.choose.rules import DEFAULT_RULE, RULES
from s3lora.choose.select import Filter, Plan, select
from s3lora.choose.units import CONTROLS
from s3lora.cli.command import OneOf
from s3lora.cli.progress import progress_line
from s3lora.errors import UsageError, printable
from s3lora.measure.base_reader import BesideBase
from s3lora.measure.configuration import Configuration, configured
from s3lora.measure.cost import MAX_COST, NOTHING
from s3lora.measure.scan import Scan, affordable, scan_all
from s3lora.rewrite.modes import MODES, Mode, mode_of, settings_of
from s3lora.spectrum.indices import INDICES, any_costly
from s3lora.spectrum.methods import METHODS

Command = TypeVar("Command", bound=Callable[..., Any])
#: Rows and columns drawn for the robust fit unless asked otherwise: seconds instead of hours.
SAMPLE = 256
#: Where a context keeps the names of the options that a policy set.
APPLIED = "s3lora.policy"
INDEX_NAMES = [name.replace("_", "-") for name in INDICES]
RANKINGS = [*INDEX_NAMES, *CONTROLS]
#: Rules that an option of their name asks for, and rules that `--rule` names.
BY_OPTION: list[RuleKind] = [kind for kind in RULES.values() if kind.asked_by_option]
BY_NAME: list[RuleKind] = [kind for kind in RULES.values() if not kind.asked_by_option]
#: Options that say which rule chooses.
RULE_OPTIONS = (
    *(kind.name for kind in BY_OPTION), "rule", *(setting.name for kind in BY_NAME for setting in kind.settings)
)  # fmt: skip
#: Option of a mode → the mode, and the field that it sets.
SETTINGS = {
    given.metadata["option"].removeprefix("--").replace("-", "_"): (name, given)
    for name, mode in MODES.items()
    for given in settings_of(mode)
}
#: Option → the choices, as (option, value), that it needs all of to do anything.
OWNERS = {
    "fit": (("method", "spsvd"),),
    "sample": (("method", "spsvd"), ("fit", "l1")),
    "match": (("index", "random-matched"),),
    **{setting.name: (("rule", kind.name),) for kind in BY_NAME for setting in kind.settings},
    "combine": (("unit", "layer"),),
    **{name: (("mode", mode),) for name, (mode, _) in SETTINGS.items()},
}


#: Options that measure and choose modules, and do nothing else.
CHOOSING = (
    *("preset", "method", "rank", "fit", "sample", "kurtosis", "index", "match"),
    *(*RULE_OPTIONS, "projection", "layers", "only", "unit", "combine"),
)


class RankingName(OneOf):
    """The name of a ranking, with hyphens or underscores."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the name with hyphens."""
        return super().convert(str(value).replace("_", "-"), param, ctx)


class LoaderName(click.types.StringParamType):
    """The name of a loader that adapters are written for, or `NAME=VERSION`."""

    name = "loader"

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        """Return the names."""
        return f"[{'|'.join(one.name for one in LOADERS.values() if one.writes)}][=VERSION]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the text as it is, if it names one."""
        try:
            loader_of(str(value), to_write=True)
        except UsageError as error:
            self.fail(f"{error.problem}; {error.fix}.", param, ctx)
        return str(value)


loader_option = click.option("--loader", type=LoaderName(), default="peft", show_default=True,
                             help="Loader to write for.")  # fmt: skip


def all_options(*options: Callable[[Any], Any]) -> Callable[[Command], Command]:
    """Return a decorator that gives a command all of these options, in this order."""

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def _preset(context: click.Context, _: click.Parameter, name: str | None) -> str | None:
    """Make method and index of a preset the defaults of what is parsed after it."""
    if name is not None:
        preset = PRESETS[name]
        parts = {"method": preset.method, "index": preset.index.replace("_", "-")}
        context.default_map = {**parts, **(context.default_map or {})}  # a policy may have said more
    return name


def _setting(setting: Setting) -> Callable[[Any], Any]:
    """Return the option for a setting of a rule."""
    kind: Any = setting.type
    if setting.least is not None or setting.most is not None:
        kind = (click.IntRange if setting.type is int else click.FloatRange)(setting.least, setting.most)
    return click.option(f"--{setting.name}", type=kind, metavar=setting.metavar, default=setting.default,
                        show_default=setting.default is not None, help=setting.help)  # fmt: skip


cost_option = click.option("--max-cost", type=click.FloatRange(0, min_open=True), default=MAX_COST,
                           show_default=f"{MAX_COST:.0e}".replace("+", ""), metavar="N",
                           help="Operations that it may take at most, estimated before.")  # fmt: skip

adapter_option = click.option("--adapter", metavar="NAME",
                              help="Which adapter, where a file or folder holds several.")  # fmt: skip

adapters_option = click.option("--adapter", "picked", multiple=True, metavar="NAME",
                               help="Which adapter, where a file holds several; one for all or for each.")  # fmt: skip

scan_options = all_options(
    click.option("--method", type=OneOf(list(METHODS)), default="mas-svd", show_default=True,
                 help="Spectral method."),
    click.option("--rank", type=click.IntRange(min=1), metavar="M", help="Components kept  [default: all]."),
    click.option("--fit", type=OneOf(["l2", "l1"]), default="l2", show_default=True, help="Fit of spsvd."),
    click.option("--sample", type=click.IntRange(min=0), default=SAMPLE, show_default=True, metavar="N",
                 help="Rows and columns drawn for --fit l1; 0 takes all."),
    click.option("--kurtosis", is_flag=True, help="Also compute the kurtosis of the entries (costly)."),
    click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, metavar="N",
                 help="Of everything random."),
    cost_option,
)  # fmt: skip

base_weights_option = click.option(
    "--base-weights", metavar="FOLDER", help="Base model, whose weights tell the true updates and their relative size."
)
base_options = all_options(
    base_weights_option,
    click.option("--intruders", is_flag=True, help="Count intruder dimensions beside --base-weights (costly)."),
)  # fmt: skip

rule_options = all_options(
    click.option("--preset", type=OneOf(list(PRESETS)), is_eager=True, callback=_preset,
                 help="Method, index and rule by one name; options beside it go before."),
    click.option("--index", type=RankingName(RANKINGS), metavar="INDEX",
                 help=f"Ranking: {', '.join(RANKINGS)}  [default: ssi; normalised-ssi where ranks differ]."),
    click.option("--match", type=RankingName(INDEX_NAMES), metavar="INDEX",
                 help="Ranking whose projections random-matched copies, by default ssi or as for --index."),
    *(_setting(setting) for kind in BY_OPTION for setting in kind.settings),
    click.option("--rule", type=OneOf([kind.name for kind in BY_NAME]), help="Choose by a rule that adapts."),
    *(_setting(setting) for kind in BY_NAME for setting in kind.settings),
    click.option("--projection", metavar="NAMES", help="Only these projections, e.g. q_proj,v_proj."),
    click.option("--layers", metavar="A-B", help="Only these layers, both ends included."),
    click.option("--only", metavar="REGEX", help="Only module paths in which this expression is found."),
    click.option("--unit", type=OneOf(["module", "layer"]), default="module", show_default=True,
                 help="Choose single modules or whole layers."),
    click.option("--combine", type=OneOf(["mean", "max"]), default="mean", show_default=True,
                 help="Index of a layer from those of its modules."),
)  # fmt: skip


mode_options = all_options(
    click.option("--mode", type=OneOf(list(MODES)), default="remove", show_default=True,
                 help=f"Have the chosen modules {' or '.join(mode.action for mode in MODES.values())}."),
    *(
        click.option(given.metadata["option"], default=given.default, show_default=True,
                     metavar=given.metadata["metavar"], help=given.metadata["help"])
        for _, given in SETTINGS.values()
    ),
)  # fmt: skip


def mode_with(options: dict[str, Any]) -> Mode:
    """Return the mode with the values of `mode_options`; raise UsageError if they cannot be meant."""
    name = options["mode"]
    return mode_of(name, {given.name: options[option] for option, (mode, given) in SETTINGS.items() if mode == name})


def format_option(*names: str) -> Callable[[Command], Command]:
    """Return `--format` with `text` and these formats."""
    return click.option("--format", "form", type=OneOf(["text", *names]), default="text", show_default=True,
                        help="A report to read, or data or a page on standard output alone.")  # fmt: skip


#: Options of `scan` that say where its results go, what they are held against, and what only gates.
GATING = (
    *("fail_on", "allow", "baseline", "reference", "policy", "no_policy", "form", "output", "sarif", "quiet"),
    *("intruders", "delta", "evaluation"),
)


def given_options(context: click.Context, besides: Container[str]) -> list[str]:
    """Return the options that were written, to be written again; `besides` names the others.

    Those that a policy set are written out: the command that follows may read none.
    """
    words = []
    for option in context.command.params:
        name = option.name or ""
        if not isinstance(option, click.Option) or name in besides:
            continue
        if is_written(context, name) or (name in context.meta.get(APPLIED, ()) and not _idle(context, name)):
            value = context.params[name]
            if option.is_flag:
                words += [option.opts[0]] * bool(value)
            else:
                words += [
                    word for one in (value if option.multiple else (value,)) for word in (option.opts[0], str(one))
                ]
    return words


def _idle(context: click.Context, name: str) -> bool:
    return any(context.params[owner] != value for owner, value in OWNERS.get(name, ()))


def refuse_idle(context: click.Context, besides: Container[str] = ()) -> None:
    """Raise UsageError if an option was written that does nothing without another; `besides` names what has a use."""
    for name, owners in OWNERS.items():
        if name in besides or not is_written(context, name):
            continue
        for owner, value in owners:
            if context.params[owner] != value:
                raise UsageError(f"--{name.replace('_', '-')} does nothing without --{owner} {value}")


def refuse_choosing(context: click.Context, because: str) -> None:
    """Raise UsageError if an option was written that chooses modules, where `because` an option none are chosen."""
    for name in CHOOSING:
        if is_written(context, name):
            raise UsageError(f"--{name.replace('_', '-')} does nothing with {because}")


def refuse_written(context: click.Context, names: Iterable[str], because: str) -> None:
    """Raise UsageError if one of these options was written, where it does nothing `because` of an option."""
    for name in names:
        if is_written(context, name):
            raise UsageError(f"--{name.replace('_', '-')} does nothing with {because}")


def refuse_rules(context: click.Context, because: str) -> None:
    """Raise UsageError if an option was written that ranks and chooses, where `because` an option there is nothing to.

    Filters, and what a rule of --fail-on goes by, have a use all the same.
    """
    for name in ("preset", "index", "match", *RULE_OPTIONS, "unit", "combine"):
        if name != "z" and is_written(context, name):
            raise UsageError(f"--{name.replace('_', '-')} does nothing with {because}")


def chooses(context: click.Context) -> bool:
    """Return whether an option was written that chooses modules, or says what becomes of them."""
    return any(is_written(context, name) for name in (*CHOOSING, "mode", "force_flat"))


def is_written(context: click.Context, name: str) -> bool:
    """Return whether an option was written on the command line."""
    return context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE


def scan_with(adapter: Adapter | str, options: dict[str, Any], label: str) -> Scan:
    """Scan with the values of `scan_options` (and of --index, which may ask for a costly index)."""
    return scans_with(adapter, options, label)[0]


def scans_with(
    adapter: Adapter | str,
    options: dict[str, Any],
    label: str,
    *,
    nonfinite: bool = False,
    others: bool = False,
    opened_as: Callable[[Adapter], None] | None = None,
) -> tuple[Scan, ...]:
    """Scan as `scan_with` does. `nonfinite` is that of `scan`.

    `others` adds a scan by every other method of moderate cost, measured in the same pass. `opened_as` is given the
    adapter that was measured, while its files are open.
    """
    if isinstance(adapter, str):
        with open_adapter(adapter, options.get("adapter")) as opened:
            return scans_with(opened, options, label, nonfinite=nonfinite, others=others, opened_as=opened_as)
    asked, *more = _configurations(options, others=others)
    beside = beside_of(options)
    simulated = rule_cost(_rule(options), adapter.modules) if "rule" in options else NOTHING
    affordable(adapter, [asked, *more], options["max_cost"], simulated)
    made = scan_all(adapter, [asked, *more], nonfinite, progress_line(label), options["max_cost"], beside)
    if opened_as is not None:
        opened_as(adapter)
    return made


def deltas_with(
    folder: str, options: dict[str, Any], label: str, *, nonfinite: bool = False, others: bool = False
) -> tuple[Scan, ...]:
    """Scan what a whole model changes of `--base-weights`, as `scans_with` does an adapter."""
    from s3lora.measure.delta import scan_deltas

    beside = beside_of(options)
    if beside is None:
        raise UsageError("--delta does nothing without --base-weights FOLDER")
    configurations = _configurations(options, others=others)
    return scan_deltas(folder, beside, configurations, progress_line(label), options["max_cost"], nonfinite)


def _configurations(options: dict[str, Any], *, others: bool) -> list[Configuration]:
    """Return what is asked for, and with `others` every other method of moderate cost."""
    asked = configured(
        options["method"],
        options["rank"],
        options["fit"],
        (options["sample"] or None) if options["fit"] == "l1" else None,
        options["seed"],
        options["kurtosis"] or any_costly((options[name] or "").replace("-", "_") for name in ("index", "match")),
    )
    # A dense update takes seconds a module at the sizes of large models.
    left = [name for name, method in METHODS.items() if others and name != asked.method and not method.dense]
    return [asked, *[Configuration(method, asked.rank, seed=asked.seed) for method in left]]


def beside_of(options: dict[str, Any]) -> BesideBase | None:
    """Return what `base_options` name, None where they were not written or are no options of the command.

    Raises UsageError for --intruders without weights.
    """
    folder = options.get("base_weights")
    if folder is None and options.get("intruders"):
        raise UsageError("--intruders does nothing without --base-weights FOLDER")
    return None if folder is None else BesideBase(folder, bool(options.get("intruders")))


def selector(options: dict[str, Any]) -> Callable[[Scan], Plan]:
    """Return what selects from a scan with the values of `rule_options`; raise UsageError if they cannot be meant."""
    names = ("index", "unit", "combine", "seed", "match", "max_cost")
    given = {name: options[name] for name in names}
    rule, only = _rule(options), module_filter(options)

    def choose(scan: Scan) -> Plan:
        progress = progress_line(f"by {rule}", "shapes") if isinstance(rule, SimulatingRule) else None
        return select(scan, rule, only=only, progress=progress, **given)

    return choose


def _rule(options: dict[str, Any]) -> Rule:
    given = [name for name in (*(kind.name for kind in BY_OPTION), "rule") if options[name] is not None]
    if len(given) > 1:
        raise UsageError(f"--{given[0]} and --{given[1]} exclude each other", fix="give one rule")
    if not given:
        return DEFAULT_RULE if options["preset"] is None else PRESETS[options["preset"]].rule
    return RULES[options["rule"] if given == ["rule"] else given[0]].rule(options)


def module_filter(options: dict[str, Any]) -> Filter:
    """Return which modules the values of `rule_options` let a rule choose from."""
    projections = tuple(name.strip() for name in options["projection"].split(",")) if options["projection"] else None
    return Filter(projections, layers_of(options["layers"]), options["only"])


def layers_of(text: str | None) -> tuple[int, int] | None:
    """Return the range that `--layers` names, both ends included; None for all. Raise UsageError if it is none."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d{1,6})(?:-(\d{1,6}))?", text.strip())
    if match is None:
        raise UsageError(f"--layers {printable(text, 40)} is no range", fix="write for example 8-15, or 8")
    return int(match[1]), int(match[2] or match[1])


def share_of_energy(text: str) -> float:
    """Return 0.99 of `99%` or of `0.99`."""
    number, percent, _ = text.partition("%")
    try:
        return float(number) / (100 if percent else 1)
    except ValueError:
        raise UsageError(f"--energy {printable(text, 60)} is no share", fix="write for example 99%") from None
