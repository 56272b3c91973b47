"""Measuring one path after another as the options of `s3lora scan` ask for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from s3lora.adapter.loaders import Loader
from s3lora.adapter.model import Adapter
from s3lora.cli.options import deltas_with, scans_with
from s3lora.compat.results import LoaderVerdict
from s3lora.measure.scan import Scan


@dataclass
class Measuring:
    """Measures a path when it is called, and keeps what came out: its scans, and the verdicts of loaders.

    Parameters:
        options: those of the command.
        asked: the loaders that rules ask about.
        nonfinite: whether modules with NaN or infinity are kept.
        others: whether the other methods are measured too.
    """

    options: dict[str, Any]
    asked: Sequence[Loader]
    nonfinite: bool
    others: bool
    scans: dict[str, tuple[Scan, ...]] = field(default_factory=dict)
    verdicts: dict[str, tuple[LoaderVerdict, ...]] = field(default_factory=dict)

    def __call__(self, path: str) -> Scan:
        """Return the scan by the method that was asked for."""
        self.verdicts[path] = ()
        given: dict[str, Any] = {"nonfinite": self.nonfinite, "others": self.others}
        if self.options["delta"] is not None:
            self.scans[path] = deltas_with(path, self.options, path, **given)
        else:
            judge = self._judge(path) if self.asked else None
            self.scans[path] = scans_with(path, self.options, path, opened_as=judge, **given)
        return self.scans[path][0]

    def _judge(self, path: str) -> Callable[[Adapter], None]:
        def judge(adapter: Adapter) -> None:
            from s3lora.base.read import read_base
            from s3lora.compat.checking import verdicts_on

            base = self.options["base_weights"]
            self.verdicts[path] = verdicts_on(adapter, self.asked, None if base is None else read_base(base))

        return judge
