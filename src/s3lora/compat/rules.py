"""`--fail-on` rules of a check: `loader:NAME`, which a scan has too, `loaders`, `modules`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from s3lora.adapter.loaders import Loader, loader_of
from s3lora.adapter.loaders.problems import some
from s3lora.compat.results import WORDS, Check, CheckFinding, LoaderVerdict
from s3lora.errors import UsageError, printable
from s3lora.wording import worded

#: Of rules about loaders, about modules that the base has not, and about shapes. What an id means never changes.
LOADER_ID, MODULES_ID, SHAPES_ID = "S3L030", "S3L031", "S3L032"
_LOADER, _LOADERS, _MODULES = "loader:", "loaders", "modules"


def loader_in(text: str) -> Loader | None:
    """Return the loader that a rule `loader:NAME` or `loader:NAME=VERSION` is about, None for every other rule.

    Raises UsageError if there is no such loader, or no such version.
    """
    word = text.strip()
    return loader_of(word.removeprefix(_LOADER)) if word.startswith(_LOADER) else None


def loader_rule(loader: Loader) -> str:
    """Return the rule about a loader, as it is written."""
    return f"{_LOADER}{loader.shown}"


@dataclass(frozen=True, slots=True)
class CheckRule:
    """One rule: `loader:vllm` or `loader:vllm=0.33.0`, `loaders` for every one that was checked, or `modules`."""

    text: str
    loader: Loader | None = None

    @classmethod
    def parse(cls, text: str) -> CheckRule:
        """Read a rule; raise UsageError if it is none, or of no loader."""
        word, loader = text.strip(), loader_in(text)
        if loader is not None:
            return cls(loader_rule(loader), loader)
        if word not in (_LOADERS, _MODULES):
            fix = "write loader:NAME, loaders or modules"
            raise UsageError(f"no rule to fail on: {printable(text, 60)!r}", fix=fix)
        return cls(word)

    def findings(self, check: Check) -> Iterator[CheckFinding]:
        """Yield what the rule finds; a verdict that is not known is one as well."""
        if self.text == _MODULES:
            yield from self._of_modules(check)
            return
        yield from self.of_loaders(check.loaders)

    def of_loaders(self, verdicts: Iterable[LoaderVerdict]) -> Iterator[CheckFinding]:
        """Yield what a rule about loaders finds in their verdicts.

        `counted` has the modules of each reason, or the reason itself where it is about the whole adapter.
        """
        for verdict in verdicts:
            asked = self.loader is None or (verdict.loader, verdict.version) == (self.loader.name, self.loader.version)
            if asked and verdict.verdict != "same":
                why = "; ".join(reason.what for reason in verdict.reasons)
                names = (name for reason in verdict.reasons for name in reason.modules or (reason.what,))
                message = f"{verdict.shown} {_said(WORDS[verdict.verdict])}: the adapter {printable(why, 1000)}"
                yield CheckFinding(
                    rule=self.text, rule_id=LOADER_ID, message=message, counted=tuple(dict.fromkeys(names))
                )

    def _of_modules(self, check: Check) -> Iterator[CheckFinding]:
        if check.base is None:
            return
        groups = (
            (MODULES_ID, check.of_standing("missing", "unknown", "renamed"), "are not in the base under their names"),
            (SHAPES_ID, check.misfits, "have another shape than in the base"),
        )
        for rule_id, modules, what in groups:
            if modules:
                paths = tuple(module.path for module in modules)
                message = f"{len(paths)} of {len(check.modules)} modules {what}: {some(paths)}"
                yield CheckFinding(rule=self.text, rule_id=rule_id, message=message, counted=paths)


def _said(words: str) -> str:
    return "was not seen to load such an adapter" if words == "not known" else words


def findings_of(rules: Sequence[CheckRule], check: Check) -> tuple[CheckFinding, ...]:
    """Return what the rules find; raise UsageError for a rule about modules where no base was given."""
    if check.base is None and any(rule.text == _MODULES for rule in rules):
        raise UsageError("the rule modules needs a base", fix=worded("give {base} CONFIG_OR_FOLDER_OR_NAME"))
    return tuple(found for rule in rules for found in rule.findings(check))
