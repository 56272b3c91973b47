"""One adapter held against rules: what was measured, what the rules find, and how it ends."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from s3lora.choose.rules import Outlier
from s3lora.choose.select import Filter, Plan
from s3lora.compat.results import LoaderVerdict
from s3lora.errors import NothingToAuditError, S3LoRAError, UsageError
from s3lora.gate.baseline import Baseline, Known
from s3lora.gate.conditions import CONDITIONS
from s3lora.gate.counting import Asked, of_kind
from s3lora.gate.findings import Allowed, Finding, Gate, some
from s3lora.gate.places import NAMES, Place, place_of
from s3lora.measure.against import Against
from s3lora.measure.against_published import AgainstPublished
from s3lora.measure.scan import Scan

#: Exit statuses from harmless to grave. An error outranks nothing to audit, which outranks a finding: an incomplete
#: scan never looks like a verdict.
GRAVITY = (0, 1, 3, 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What adapters are held against.

    `allow` names conditions that are accepted, with the reason, which may be empty. `choose` selects from a scan, with
    the filter `only`; `outlier` is what counts as an outlier; what `baseline` has is known
    already. `compare` says where a scan stands in a reference population, `publish` where among published adapters.
    `loaders` returns what the loaders that rules
    are about do with the adapter at a path that was measured. `names` is how many last names a file outside of the
    working directory keeps.
    """

    choose: Callable[[Scan], Plan]
    gates: tuple[Gate, ...] = ()
    allow: Mapping[str, str] = field(default_factory=dict)
    only: Filter = field(default_factory=Filter)
    outlier: Outlier = field(default_factory=Outlier)
    baseline: Baseline | None = None
    compare: Callable[[Scan], Against] | None = None
    publish: Callable[[Scan], AgainstPublished] | None = None
    loaders: Callable[[str], tuple[LoaderVerdict, ...]] | None = None
    names: int = NAMES


@dataclass(frozen=True, slots=True)
class GateVerdict:
    """What one rule finds in one adapter; what is `known` from the baseline does not count.

    `unseen` are the modules that have no value to hold it against.
    """

    gate: Gate
    new: tuple[Finding, ...]
    known: tuple[Finding, ...] = ()
    unseen: tuple[str, ...] = ()

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Return all findings, new ones first."""
        return self.new + self.known


@dataclass(frozen=True, slots=True, kw_only=True)
class GateOutcome:
    """What rules say of one adapter, as documents keep it.

    `rules` are all that were asked, with those that stand whenever there is one; `known` is what a baseline had.
    `status` is the exit status of this adapter alone.
    """

    status: int
    rules: tuple[str, ...]
    findings: tuple[Finding, ...]
    known: tuple[Finding, ...]
    allowed: tuple[Allowed, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """How it went with one adapter.

    `path` is as the caller named it, `given` the same relative to the working directory, `place` the first weights file
    where there is one. Either `scan` or `error` is None. `plan` is None as well where every update is zero or holds
    NaN. `unindexed` counts the modules that have no index and that no finding tells of. `allowed` are the conditions
    that hold and are accepted. `against` is None without a reference, `published` where nobody asked.
    """

    path: str
    given: Place
    place: Place
    scan: Scan | None = None
    plan: Plan | None = None
    verdicts: tuple[GateVerdict, ...] = ()
    allowed: tuple[Allowed, ...] = ()
    unindexed: int = 0
    against: Against | None = None
    published: AgainstPublished | None = None
    error: S3LoRAError | None = None

    @property
    def status(self) -> int:
        """Return the exit status of this adapter alone."""
        if self.error is not None:
            return self.error.exit_status
        if self.incomplete:
            return 2
        return 1 if any(verdict.new for verdict in self.verdicts) else 0

    @property
    def gate(self) -> GateOutcome | None:
        """Return what the rules say, None without any."""
        if not (self.verdicts or self.allowed):
            return None
        return GateOutcome(
            status=self.status,
            rules=tuple(str(verdict.gate) for verdict in self.verdicts),
            findings=tuple(found for verdict in self.verdicts for found in verdict.new),
            known=tuple(found for verdict in self.verdicts for found in verdict.known),
            allowed=self.allowed,
        )

    @property
    def incomplete(self) -> str | None:
        """Return the sentence on modules without an index, or without a value for a rule; None where there are none."""
        if self.scan is None:
            return None
        lacking = [(len(one.unseen), f"value for {one.gate} ({some(one.unseen)})") for one in self.verdicts]
        told = [
            f"{n} of {len(self.scan.modules)} modules have no {what}"
            for n, what in ((self.unindexed, "index"), *lacking)
            if n
        ]
        return f"the scan is incomplete: {', and '.join(told)}" if told else None


def audit(path: str, measure: Callable[[str], Scan], terms: Terms) -> Audit:
    """Measure the adapter at `path` and hold it against the terms.

    Raises UsageError, which is the same for every path, and what the reference raises; every other S3LoRAError becomes
    the audit's `error`.
    """
    given = place_of(path, names=terms.names)
    try:
        scan = measure(path)
        plan = _plan(scan, terms)
        place = place_of(path, scan.source.files[0].name if scan.source.files else None, terms.names)
        against = None if terms.compare is None else terms.compare(scan)
        published = None if terms.publish is None else terms.publish(scan)
        told = frozenset((*terms.allow, *(gate.metric for gate in terms.gates if gate.upwards)))
        loaders = () if terms.loaders is None else terms.loaders(path)
        asked = Asked(scan, plan, terms.only, terms.outlier, told, loaders)
        verdicts = tuple(_verdict(gate, asked, place, terms, against) for gate in terms.gates)
    except UsageError:
        raise
    except S3LoRAError as error:
        error.adapter = path
        return Audit(path=path, given=given, place=given, error=error)
    return Audit(
        path=path,
        given=given,
        place=place,
        scan=scan,
        plan=plan,
        verdicts=verdicts,
        allowed=_allowed(asked, terms),
        unindexed=_unindexed(scan, verdicts),
        against=against,
        published=published,
    )


def gravest(audits: Iterable[Audit]) -> int:
    """Return the exit status of several adapters together."""
    return max((one.status for one in audits), key=GRAVITY.index, default=0)


def absent(baseline: Baseline, audits: Iterable[Audit]) -> tuple[Known, ...]:
    """Return what the baseline had and the audits no longer find."""
    return baseline.absent((one.place, verdict.gate, verdict.findings) for one in audits for verdict in one.verdicts)


def _allowed(asked: Asked, terms: Terms) -> tuple[Allowed, ...]:
    found: list[Allowed] = []
    for name, reason in terms.allow.items():
        counted = CONDITIONS[name].counted(asked) if name in CONDITIONS else of_kind(name, asked)
        if counted:
            found.append(Allowed(name, reason, counted))
    return tuple(found)


def _verdict(gate: Gate, asked: Asked, place: Place, terms: Terms, against: Against | None) -> GateVerdict:
    findings = gate.findings(asked, against)
    known = () if terms.baseline is None else terms.baseline.known(place, gate, findings)
    had = set(known)
    new = tuple(found for found in findings if found not in had)
    return GateVerdict(gate, new, known, gate.unseen(asked, against))


def _plan(scan: Scan, terms: Terms) -> Plan | None:
    """Return the plan; None where no update is left to choose from, which is a complete scan all the same."""
    try:
        return terms.choose(scan)
    except NothingToAuditError:
        allowed = terms.only.allowed(scan.modules)
        asked = allowed if any(module.nonfinite for module in allowed) else scan.modules
        if allowed and all(module.zero or module.nonfinite for module in asked):
            return None
        raise


def _unindexed(scan: Scan, verdicts: Iterable[GateVerdict]) -> int:
    findings = [found for one in verdicts if one.gate.metric == "nonfinite" for found in one.findings]
    told = {path for found in findings for path in found.modules}
    return sum(not (module.zero or module.sigma or module.path in told) for module in scan.modules)
