"""Scan + rule → Plan: which modules to prune, and why."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial

import numpy as np

from s3lora.adapter.expressions import Expression, ExpressionError, Text
from s3lora.arguments import check_fields, checked
from s3lora.choose.ranking import Context, Rule, SimulatingRule, usual_index
from s3lora.choose.rules import DEFAULT_RULE
from s3lora.choose.units import CONTROLS, Combine, UnitKind, flat_by, measured, ranked_units
from s3lora.errors import NothingToAuditError, SelectionError, UsageError, one_of, printable
from s3lora.measure.cost import MAX_COST
from s3lora.measure.scan import SCHEMA_VERSION, ModuleScan, Progress, Scan, Tool
from s3lora.spectrum.indices import INDICES

#: Most steps of an expression on all modules: seconds. What people write takes some two million on 36,864.
MAX_STEPS = 10_000_000


@lru_cache(maxsize=64)
def _expression(pattern: str) -> Expression:
    return Expression(pattern)


@dataclass(frozen=True, slots=True)
class Filter:
    """Which modules a rule may choose from: all of these must hold, None holds always.

    `layers` is an inclusive range; `pattern` a regular expression searched for in the module's path, in bounded time
    whatever it is. Raises UsageError for what is no expression or not supported, such as a reference to a group.
    """

    projections: tuple[str, ...] | None = None
    layers: tuple[int, int] | None = None
    pattern: str | None = None

    def __post_init__(self) -> None:
        """Take lists for tuples, and check the regular expression and the range."""
        for name in ("projections", "layers"):
            if isinstance(given := getattr(self, name), list):
                object.__setattr__(self, name, tuple(given))
        check_fields(self)
        if self.layers is not None and self.layers[0] > self.layers[1]:
            raise UsageError(f"layers {self.layers[0]}-{self.layers[1]} is no range")
        if self.pattern is not None:
            try:
                _expression(self.pattern)
            except ExpressionError as error:
                raise self._refused(error) from None

    def allowed(self, modules: Iterable[ModuleScan]) -> list[ModuleScan]:
        """Return the modules that a rule may choose; raise UsageError where the pattern takes too long on them."""
        left = [module for module in modules if self._stands_right(module)]
        if self.pattern is None:
            return left
        expression, steps, found = _expression(self.pattern), 0, []
        for module in left:
            text = Text(module.path)
            try:
                if expression.ends(text, text.everywhere):
                    found.append(module)
            except ExpressionError as error:
                raise self._refused(error) from None
            steps += text.steps
            if steps > MAX_STEPS:
                raise self._refused("takes too long to match")
        return found

    def _stands_right(self, module: ModuleScan) -> bool:
        return (self.projections is None or module.projection in self.projections) and (
            self.layers is None or (module.layer is not None and self.layers[0] <= module.layer <= self.layers[1])
        )

    def _refused(self, why: object) -> UsageError:
        return UsageError(f"the expression {printable(self.pattern)} {why}", fix="write a simpler one")

    def __str__(self) -> str:
        """Return the filter in words, empty where it lets everything pass."""
        parts = []
        if self.projections is not None:
            parts.append("projection " + ",".join(self.projections))
        if self.layers is not None:
            parts.append(f"layers {self.layers[0]}-{self.layers[1]}")
        if self.pattern is not None:
            parts.append(f"path ~ {self.pattern}")
        return "; ".join(parts)


@dataclass(frozen=True, slots=True)
class Choice:
    """One chosen module: its path, the value of the index (None for a control), its rank in the order, and why."""

    path: str
    value: float | None
    position: int
    reason: str


@dataclass(frozen=True, slots=True)
class Share:
    """What the chosen modules are of the whole adapter; shares lie in [0, 1].

    `frobenius_energy` is the share of Σ‖ΔW‖_F²; `compute` that of the multiply-adds of all linear LoRA modules for
    one token, 0 where there are none.
    """

    modules: int
    modules_total: int
    parameters: int
    parameters_total: int
    frobenius_energy: float
    compute: float


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Plan:
    """What would be pruned from the scanned adapter, and by which rule.

    `flat` tells that the index hardly differs between the candidates, so that the ranking means nothing.
    """

    schema_version: int = SCHEMA_VERSION
    tool: Tool = field(default_factory=Tool)
    index: str
    rule: str
    unit: str
    combine: str
    only: str
    seed: int
    candidates: int
    flat: bool
    chosen: tuple[Choice, ...]
    share: Share
    warnings: tuple[str, ...]

    def __repr__(self) -> str:
        """Return how many are chosen, and by which rule."""
        return f"<Plan: {len(self.chosen)} of {self.candidates} modules, {self.rule} by {self.index}>"

    @property
    def paths(self) -> tuple[str, ...]:
        """Return the paths of the chosen modules, sharpest first."""
        return tuple(choice.path for choice in self.chosen)

    def mark(self, scan: Scan) -> Scan:
        """Return the scan with `selected` set on the chosen modules."""
        chosen = set(self.paths)
        modules = tuple(
            module if module.selected == (on := module.path in chosen) else dataclasses.replace(module, selected=on)
            for module in scan.modules
        )
        return dataclasses.replace(scan, modules=modules)


@checked
def select(
    scan: Scan,
    rule: Rule = DEFAULT_RULE,
    *,
    index: str | None = None,
    only: Filter | None = None,
    unit: UnitKind = "module",
    combine: Combine = "mean",
    seed: int = 0,
    match: str | None = None,
    max_cost: float = MAX_COST,
    progress: Progress | None = None,
) -> Plan:
    """Choose modules to prune.

    Examples:
        >>> import s3lora
        >>> s3lora.select(s3lora.scan("my-adapter"), s3lora.Top(2), only=s3lora.Filter(layers=(20, 29))).paths
        ('model.layers.25.self_attn.v_proj', 'model.layers.27.self_attn.v_proj')

    Parameters:
        scan: the measured adapter.
        rule: `Top`, `Fraction`, `Threshold`, `Outlier`, `Gap` or `Null`; by default the paper's top 10, at most half.
        index: a ranking: any index of the scan, or the control `random` or `random-matched`. By default `ssi`, and
            `normalised_ssi` where the ranks of the modules differ.
        only: which modules may be chosen.
        unit: rank single modules, or whole layers by the mean or max (`combine`) of their modules.
        seed: of the controls.
        match: the index whose selection `random-matched` copies the number of modules of each projection from; by
            default as `index`.
        max_cost: operations that a rule may take which simulates, as for `scan`.
        progress: called with (shapes done, shapes in all) by a rule that simulates.

    What differs by rounding alone is a tie; see `ties.rounded`. Ties are broken by the order of modules in the model.
    Zero updates are never chosen.

    Raises UsageError for an unknown ranking, CostError beyond `max_cost`, NothingToAuditError if there is nothing to
    choose from, SelectionError if the rule does not apply to the ranking.
    """
    if unit not in ("module", "layer") or combine not in ("mean", "max"):
        raise UsageError(f"no unit {unit!r} by {combine!r}", fix="choose module or layer, by mean or max")
    if seed < 0:
        raise UsageError(f"seed must be 0 or more, not {seed}")
    only, given = only or Filter(), index
    usual = usual_index(only.allowed(scan.modules)) if index is None or match is None else ""
    index, match = _canonical(usual if index is None else index), _canonical(usual if match is None else match)
    if index == "random-matched":
        model = partial(select, scan, rule, unit=unit, combine=combine, seed=seed, max_cost=max_cost, progress=progress)
        return _matched(scan, model, match, only, seed)
    modules = _candidates(scan, index, only)
    if isinstance(rule, SimulatingRule) and any(module.dense for module in modules):
        raise SelectionError(
            f"{rule} simulates updates of low rank, and ΔW of DoRA is of full rank", fix="choose another rule"
        )
    ranked = ranked_units(modules, index, unit, combine, seed)
    spec = INDICES.get(index)
    how = scan.configuration
    context = Context(spec, how.method, how.rank, how.fit, combine, max_cost, progress)
    verdict = rule.choose(ranked, context)
    flat = flat_by(ranked, index)
    notes = list(verdict.warnings)
    if flat:
        notes.append(f"{index} does not discriminate here: its spread over the candidates is below 0.01")
    if spec is not None and spec.by_rank and len({len(module.sigma) for module in modules}) > 1:
        notes.append(f"ranks are mixed: normalised_ssi compares them, {index} does not")
    if given is None and usual == "normalised_ssi":
        notes.append("ranks are mixed: ranked by normalised_ssi, which compares them")
    chosen = tuple(
        Choice(path, None if spec is None else ranked[i].value, i + 1, verdict.reason)
        for i in verdict.chosen
        for path in ranked[i].paths
    )
    return Plan(
        index=index,
        rule=str(rule),
        unit=unit,
        combine=combine,
        only=str(only),
        seed=seed,
        candidates=len(ranked),
        flat=flat,
        chosen=chosen,
        share=share_of(scan, {choice.path for choice in chosen}),
        warnings=tuple(notes),
    )


def choose_none(scan: Scan) -> Plan:
    """Return the plan that chooses no module, also where there is none to choose from."""
    return Plan(
        index=usual_index(scan.modules),
        rule="no rule",
        unit="module",
        combine="mean",
        only="",
        seed=0,
        candidates=len(scan.modules),
        flat=False,
        chosen=(),
        share=share_of(scan, set()),
        warnings=(),
    )


def _canonical(index: str) -> str:
    """Return the name as the results have it: `weighted-ssi` is accepted for `weighted_ssi`."""
    return index if index in CONTROLS else index.replace("-", "_")


def _candidates(scan: Scan, index: str, only: Filter) -> list[ModuleScan]:
    if index not in INDICES and index not in CONTROLS:
        raise UsageError(f"no ranking {printable(index, 40)!r}", fix=one_of(index, (*INDICES, *CONTROLS)))
    if index in INDICES and all(index not in module.indices for module in scan.modules):
        raise SelectionError(f"the scan has no {index}", fix=f"scan with {index} switched on, it is costly")
    allowed = only.allowed(scan.modules)
    usable = [module for module in measured(allowed) if index in CONTROLS or module.indices.get(index) is not None]
    if usable:
        return usable
    if not allowed:
        there = sorted({module.projection for module in scan.modules})
        unknown = [name for name in only.projections or () if name not in there]
        fix = f"its projections are {printable(', '.join(there), 200)}" if unknown else None
        raise NothingToAuditError(f"no module passes the filter ({only})", file=scan.source.name, fix=fix)
    why = "all are zero updates" if all(m.zero for m in allowed) else f"{index} is undefined for all"
    raise NothingToAuditError(f"no module to choose from: {why}", file=scan.source.name)


def _matched(scan: Scan, choose: Callable[..., Plan], match: str, only: Filter, seed: int) -> Plan:
    """Draw at random as many modules of each projection as the ranking `match` takes."""
    if match in CONTROLS:
        raise UsageError("random-matched must match a ranking that is not random itself")
    model = choose(index=match, only=only)
    taken = set(model.paths)
    wanted = Counter(module.projection for module in scan.modules if module.path in taken)
    random = np.random.default_rng(seed)
    chosen: list[str] = []
    for projection in sorted(wanted):
        pool = [m.path for m in _candidates(scan, match, only) if m.projection == projection]
        chosen.extend(pool[i] for i in sorted(random.choice(len(pool), wanted[projection], replace=False)))
    order = {module.path: i for i, module in enumerate(scan.modules)}
    chosen.sort(key=order.__getitem__)
    reason = f"drawn at random, as many of each projection as {match} takes"
    return dataclasses.replace(
        model,
        index=f"random-matched to {match}",
        flat=False,
        chosen=tuple(Choice(path, None, i + 1, reason) for i, path in enumerate(chosen)),
        share=share_of(scan, set(chosen)),
    )


def share_of(scan: Scan, paths: set[str]) -> Share:
    """Return what the modules at `paths` are of the whole scan."""
    picked = [module for module in scan.modules if module.path in paths]

    def energy(modules: Sequence[ModuleScan]) -> float:
        # Norms may be as large as 1e150; relative to the largest their squares stay finite.
        norms = np.array([module.indices["frobenius"] or 0.0 for module in modules])
        return float(np.sum((norms / largest) ** 2)) if largest > 0 else 0.0

    def compute(modules: Sequence[ModuleScan]) -> int:
        return sum(module.parameters for module in modules if module.kind == "linear")

    largest = max((module.indices["frobenius"] or 0.0 for module in scan.modules), default=0.0)
    total = energy(scan.modules)
    linear = compute(scan.modules)
    return Share(
        modules=len(picked),
        modules_total=len(scan.modules),
        parameters=sum(module.parameters for module in picked),
        parameters_total=sum(module.parameters for module in scan.modules),
        frobenius_energy=energy(picked) / total if total > 0 else 0.0,
        compute=compute(picked) / linear if linear else 0.0,
    )
