"""What an earlier run found, so that only what is new counts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from s3lora.errors import UsageError, printable
from s3lora.files import read_whole
from s3lora.gate.findings import Allowed, Finding, Gate
from s3lora.gate.places import Place, same

#: Largest baseline read, in bytes: some hundred thousand modules.
MAX_BASELINE = 64 * 1024 * 1024
VERSION = "2.1.0"
#: The `uriBaseId` of what lies in the working directory, as everyone calls it, and of what lies elsewhere.
INSIDE, OUTSIDE = "%SRCROOT%", "ADAPTERS"
_FIX = "make one with `s3lora scan`, --fail-on and --format sarif"


@dataclass(frozen=True, slots=True)
class Known:
    """One result of the earlier run: a rule that held for an adapter, and the modules for which it did."""

    place: Place
    rule: str
    rule_id: str
    modules: tuple[str, ...]
    message: str
    fingerprints: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Baseline:
    """Everything that an earlier run found, and the fingerprints of what was allowed then.

    `elsewhere` tells that it was made in another working directory: nothing of it lies here. Adapters are then known by
    the ends of their paths; otherwise one below another folder would be taken for its namesake.
    """

    results: tuple[Known, ...]
    suppressed: frozenset[str] = frozenset()
    elsewhere: bool = True

    def allowed(self, fingerprints: Mapping[str, str]) -> bool:
        """Return whether the earlier run allowed the same."""
        return not self.suppressed.isdisjoint(fingerprints.values())

    def known(self, place: Place, gate: Gate, findings: Sequence[Finding]) -> tuple[Finding, ...]:
        """Return those of the findings of one rule in one adapter that the earlier run had.

        It had a module if the same rule held for it there. It had a count if all modules that are counted now were
        counted then or, where fewer are worse, if they are the very same modules.
        """
        before = self._modules(place, str(gate))
        if before is None:
            return ()

        def had(found: Finding) -> bool:
            now = frozenset(found.modules)
            return now <= before if gate.upwards or found.module is not None else now == before

        return tuple(filter(had, findings))

    def absent(self, asked: Iterable[tuple[Place, Gate, Sequence[Finding]]]) -> tuple[Known, ...]:
        """Return what is no longer found, of the rules that were asked of adapters, with what they find now."""
        known = [(place, str(gate), findings) for place, gate, findings in asked]
        gone = []
        for result in self.results:
            now = [findings for where, rule, findings in known if rule == result.rule and self._fits(result, where)]
            if now and not any(now):
                gone.append(result)
        return tuple(gone)

    def _modules(self, place: Place, rule: str) -> frozenset[str] | None:
        """Return the modules that the rule found in this adapter, None if it did not hold.

        The very same place goes before one that is only seen from elsewhere; where several of those fit, what all of
        them have.
        """
        fitting = [result for result in self.results if result.rule == rule and self._fits(result, place)]
        exact = [result for result in fitting if result.place == place]
        found = [frozenset(result.modules) for result in exact or fitting]
        return frozenset.intersection(*found) if found else None

    def _fits(self, result: Known, place: Place) -> bool:
        return result.place == place or (self.elsewhere and same(result.place.uri, place.uri))


class _Text(msgspec.Struct):
    text: str


class _Artifact(msgspec.Struct, rename="camel"):
    uri: str
    uri_base_id: str = ""


class _Physical(msgspec.Struct, rename="camel"):
    artifact_location: _Artifact


class _Location(msgspec.Struct, rename="camel"):
    physical_location: _Physical


class _Counted(msgspec.Struct):
    name: str


class _Module(msgspec.Struct):
    path: str


class _Properties(msgspec.Struct):
    rule: str = ""
    counted: tuple[_Counted, ...] = ()
    modules: tuple[_Module, ...] = ()  # as s3lora called them at first

    @property
    def names(self) -> tuple[str, ...]:
        return (*(one.name for one in self.counted), *(module.path for module in self.modules))


class _Result(msgspec.Struct, rename="camel"):
    message: _Text
    rule_id: str = ""
    locations: tuple[_Location, ...] = ()
    analysis_target: _Artifact | None = None
    partial_fingerprints: dict[str, str] = msgspec.field(default_factory=dict)
    properties: _Properties = msgspec.field(default_factory=_Properties)
    baseline_state: str = ""
    suppressions: tuple[msgspec.Raw, ...] = ()


class _Driver(msgspec.Struct):
    name: str


class _Tool(msgspec.Struct):
    driver: _Driver


class _SarifRun(msgspec.Struct):
    tool: _Tool
    results: tuple[msgspec.Raw, ...] | None = None


class _Log(msgspec.Struct):
    version: str
    runs: tuple[_SarifRun, ...]


def read_baseline(path: str) -> Baseline:
    """Read what an earlier `s3lora scan --format sarif` wrote.

    Raises UsageError if the file is missing, too large, or none that s3lora wrote.
    """
    content = read_whole(Path(path), MAX_BASELINE)
    try:
        log = msgspec.json.decode(content, type=_Log)
        runs = [run for run in log.runs if run.tool.driver.name == "s3lora"]
        results = [msgspec.json.decode(raw, type=_Result) for run in runs for raw in run.results or ()]
    except msgspec.ValidationError as error:
        raise UsageError(f"is no SARIF file of s3lora: {printable(error)}", file=path, fix=_FIX) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"is not valid JSON: {printable(error)}", file=path, fix=_FIX) from None
    if log.version != VERSION:
        raise UsageError(f"is SARIF {printable(log.version, 20)}, not {VERSION}", file=path, fix=_FIX)
    if not runs:
        raise UsageError("holds no run of s3lora", file=path, fix=_FIX)
    suppressed = (
        print_ for result in results if result.suppressions for print_ in result.partial_fingerprints.values()
    )
    known = tuple(_known(result) for result in results if _told(result))
    return Baseline(known, frozenset(suppressed), not any(result.place.here for result in known))


def _told(result: _Result) -> bool:
    """Return whether a result tells that a rule held: not that it no longer did, that it was allowed, or a summary."""
    counts = result.baseline_state != "absent" and not result.suppressions
    return counts and bool(result.properties.rule and result.locations)


def _written(rule: str) -> str:
    """Return a rule as it is written today: names with hyphens and with underscores are the same."""
    try:
        return str(Gate.parse(rule))
    except UsageError:  # of another version
        return rule


def _known(result: _Result) -> Known:
    artifact = result.analysis_target or result.locations[0].physical_location.artifact_location
    return Known(
        Place(artifact.uri, artifact.uri_base_id == OUTSIDE),
        _written(result.properties.rule),
        result.rule_id,
        result.properties.names,
        result.message.text,
        tuple(sorted(result.partial_fingerprints.items())),
    )


def fingerprint_of(place: Place, gate: Gate, findings: Sequence[Finding]) -> str:
    """Return what identifies a result from run to run, as 32 hexadecimal digits.

    It depends on the rule, the last two names of the adapter's path, and what was found. It does not depend on the
    rest of the path, nor on the values and the digest of the weights: values differ in their last digits between
    machines, and another training changes both and may find just the same.
    """
    return _fingerprint(place, gate.id, str(gate), (name for found in findings for name in found.modules))


def fingerprint_of_allowed(place: Place, allowed: Allowed) -> str:
    """Return what identifies something allowed from run to run."""
    return _fingerprint(place, allowed.rule_id, f"allow {allowed.name}", allowed.counted)


def _fingerprint(place: Place, rule_id: str, rule: str, names: Iterable[str]) -> str:
    parts = [rule_id, rule, "/".join(place.uri.split("/")[-2:]), *sorted(set(names))]
    return hashlib.sha256("\0".join(parts).encode(errors="surrogatepass")).hexdigest()[:32]
