"""A series that grows with every look, and goes on from a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from statistics import median
from typing import Any

import msgspec

from s3lora.adapter.digest import Source
from s3lora.adapter.model import Adapter
from s3lora.measure.configuration import Configuration
from s3lora.measure.refusal_looks import RefusalLook
from s3lora.measure.scan import ModuleScan, scan_modules
from s3lora.measure.series import RefusalRule, SeriesModule, TrainingSeries

#: The indices that are kept of every module.
KEPT_INDICES = ("ssi", "normalised_ssi", "frobenius")


class Recording:
    """What was seen so far; `series` is it as a document."""

    def __init__(self, configuration: Configuration, rule: RefusalRule | None) -> None:
        """Begin with nothing."""
        self._configuration = configuration
        self._rule = rule
        self._source: Source | None = None
        self._modules: dict[str, SeriesModule] = {}
        self.steps: list[int] = []
        self.refusals: list[RefusalLook] = []
        self.warned_at: int | None = None
        self.stopped_at: int | None = None
        self.kept_at: int | None = None
        self.warnings: list[str] = []

    @property
    def adapter(self) -> str:
        """Return PEFT's name of the adapter."""
        return "" if self._source is None else self._source.name

    def begin(self, adapter: str, base: str | None) -> None:
        """Say whose series it is."""
        self._source = Source(adapter, "memory", None, (), base)

    def measure(self, adapter: Adapter, step: int) -> dict[str, float | None]:
        """Measure every module as `scan` does, and return what is logged of all together."""
        found = scan_modules(adapter, [self._configuration], nonfinite=True, hashed=False)[0][0]
        self.steps.append(step)
        for module in found:
            self._add(module)
        lost = sum(module.nonfinite for module in found)
        if lost:
            self.warnings.append(f"step {step}: {lost} of {len(found)} modules hold NaN or infinity")
        sharp = [value for module in found if (value := module.indices["ssi"]) is not None]
        norms = [module.indices["frobenius"] or 0.0 for module in found]
        return {
            "ssi_median": median(sharp) if sharp else None,
            "ssi_max": max(sharp, default=None),
            "frobenius": sum(norm**2 for norm in norms) ** 0.5,
        }

    def _add(self, module: ModuleScan) -> None:
        known = self._modules.get(module.path)
        before = len(self.steps) - 1
        values = {
            name: (*(getattr(known, name) if known else (None,) * before), module.indices[name])
            for name in KEPT_INDICES
        }
        self._modules[module.path] = SeriesModule(
            path=module.path,
            layer=module.layer,
            projection=module.projection,
            expert=module.expert,
            shape=module.shape,
            rank=module.rank,
            **values,
        )

    def series(self) -> TrainingSeries:
        """Return the document."""
        source = self._source or Source("", "memory", None, (), None)
        return TrainingSeries(
            configuration=self._configuration,
            source=source,
            steps=tuple(self.steps),
            modules=tuple(self._modules.values()),
            rule=self._rule,
            refusals=tuple(self.refusals),
            warned_at=self.warned_at,
            stopped_at=self.stopped_at,
            kept_at=self.kept_at,
            warnings=tuple(dict.fromkeys(self.warnings)),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as plain values."""
        return self.series().to_dict()

    def restore(self, kept: Mapping[str, Any], step: int) -> None:
        """Go on from what a checkpoint kept; what was seen after its step does not count."""
        made = msgspec.convert({one.name: kept[one.name] for one in fields(TrainingSeries)}, TrainingSeries)
        count = sum(one <= step for one in made.steps)
        self.steps = list(made.steps[:count])
        self.refusals = [one for one in made.refusals if one.step <= step]
        self._modules = {
            one.path: replace(one, **{name: getattr(one, name)[:count] for name in KEPT_INDICES})
            for one in made.modules
        }
        self.warnings = [*made.warnings, *self.warnings]
        self.warned_at, self.stopped_at, self.kept_at = (
            _by(at, step) for at in (made.warned_at, made.stopped_at, made.kept_at)
        )


def _by(at: int | None, step: int) -> int | None:
    return at if at is not None and at <= step else None


def last_of(callbacks: Any, name: str) -> dict[str, Any]:
    """Return what a trainer's state holds of the callback of this name; nothing where it holds none."""
    found = (callbacks or {}).get(name) if isinstance(callbacks, Mapping) else None
    if isinstance(found, list):
        found = found[-1] if found else None
    attributes = (found or {}).get("attributes", {})
    seen = attributes.get("seen", {})
    return dict(seen)
