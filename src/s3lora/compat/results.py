"""What a check says: of every module, of the base model, and of every loader."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from s3lora.adapter.digest import Source
from s3lora.adapter.loaders.problems import Effect
from s3lora.base.model import Evidence
from s3lora.base.names import ModuleRenaming
from s3lora.errors import UsageError, printable
from s3lora.measure.scan import SCHEMA_VERSION, Tool

#: How a module of the adapter stands to the base: it is there, under another name, as a part of fused experts, not
#: there, or nobody knows.
ModuleStanding = Literal["found", "renamed", "expert", "missing", "unknown"]
#: What a loader does with the adapter.
Verdict = Literal["same", "other", "fails", "unknown"]
#: Verdict → words.
WORDS: Mapping[Verdict, str] = {
    "same": "loads, and means the same",
    "other": "loads, and means something else",
    "fails": "fails",
    "unknown": "not known",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleCheck:
    """One module of the adapter against the base.

    `shape` is [m, n] of its update, `base_shape` that of the weight it changes, None where it is not known. `standing`
    is None where no base was given; `base_path` is what the base calls the module. `fits` tells whether the shapes are
    the same, None where one is not known. `scalings` gives what each loader multiplies the update by, None where it can
    compute nothing.
    """

    path: str
    shape: tuple[int, int]
    rank: int
    scaling: float
    standing: ModuleStanding | None = None
    base_path: str | None = None
    base_shape: tuple[int, int] | None = None
    fits: bool | None = None
    note: str = ""
    scalings: Mapping[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseFacts:
    """The base model that the adapter was held against.

    `modules` counts those that are known of it, `evidence` tells from what. `tied` is None where it is not known.
    `missing_targets` are names in `target_modules` that the base has no module of.
    """

    name: str
    architecture: str | None
    modules: int
    evidence: Evidence
    complete: bool
    tied: bool | None
    missing_targets: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LoaderReason:
    """One reason for a verdict: `what` is said of the adapter, `fix` tells what to do, `command` what does it.

    `PATH` and `OUT` in a command stand for the adapter and a new folder. `modules` are those that it is about, none
    where it is about all.
    """

    effect: Effect
    what: str
    fix: str
    modules: tuple[str, ...] = ()
    command: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LoaderVerdict:
    """What one loader does with the adapter.

    `version` is the one that was asked about; None where it is that of `seen`, the versions that were run or read, the
    newest last, and `how`. `notes` say what else it does.
    """

    loader: str
    version: str | None
    verdict: Verdict
    reasons: tuple[LoaderReason, ...] = ()
    notes: tuple[str, ...] = ()
    seen: tuple[str, ...] = ()
    how: str = ""

    @property
    def shown(self) -> str:
        """Return the loader, with the version that is meant."""
        version = self.version or (self.seen[-1] if self.seen else None)
        return self.loader if version is None else f"{self.loader} {version}"


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckFinding:
    """What a rule of `--fail-on` found; `rule_id` is for reports for machines."""

    rule: str
    rule_id: str
    message: str
    counted: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Check:
    """An adapter against its base and against loaders.

    `base` is None where none was given. `renamings` make modules fit that the base calls otherwise. `findings` are of
    the rules that it was held against.
    """

    schema_version: int = SCHEMA_VERSION
    tool: Tool = field(default_factory=Tool)
    source: Source
    base: BaseFacts | None
    modules: tuple[ModuleCheck, ...]
    renamings: tuple[ModuleRenaming, ...]
    loaders: tuple[LoaderVerdict, ...]
    notes: tuple[str, ...]
    findings: tuple[CheckFinding, ...] = ()

    def __repr__(self) -> str:
        """Return the verdicts in short."""
        told = ", ".join(f"{one.loader}: {one.verdict}" for one in self.loaders)
        return f"<Check {self.source.name}: {len(self.modules)} modules; {told}>"

    def __getitem__(self, loader: str) -> LoaderVerdict:
        """Return the verdict on a loader; raise UsageError if it was not asked about."""
        found = next((one for one in self.loaders if one.loader == loader), None)
        if found is None:
            asked = ", ".join(one.loader for one in self.loaders)
            raise UsageError(f"{printable(repr(loader), 40)} was not asked about", fix=f"there are {asked}")
        return found

    def __contains__(self, loader: object) -> bool:
        """Return whether there is a verdict on a loader."""
        return any(one.loader == loader for one in self.loaders)

    def __iter__(self) -> Iterator[LoaderVerdict]:
        """Go through the verdicts."""
        return iter(self.loaders)

    def of_standing(self, *standings: ModuleStanding) -> tuple[ModuleCheck, ...]:
        """Return the modules of these standings."""
        return tuple(module for module in self.modules if module.standing in standings)

    @property
    def misfits(self) -> tuple[ModuleCheck, ...]:
        """Return the modules whose shapes are not those of the base."""
        return tuple(module for module in self.modules if module.fits is False)
