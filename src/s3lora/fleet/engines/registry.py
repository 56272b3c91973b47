"""The engines that `fleet scan` can run on, by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from s3lora.errors import UsageError
from s3lora.fleet.engines.cluster import RayEngine
from s3lora.fleet.engines.engine import Engine
from s3lora.fleet.engines.local import LocalEngine
from s3lora.fleet.work import Work


@dataclass(frozen=True, slots=True)
class EngineKind:
    """An engine: what makes one for some work, where it works, and which options of `fleet scan` it takes by name."""

    make: Callable[..., Engine]
    where: str
    options: tuple[str, ...] = ()


ENGINES = {
    "local": EngineKind(LocalEngine, "processes of this machine", ("workers",)),
    "ray": EngineKind(RayEngine, "a Ray cluster", ("address",)),
}


def engine_for(name: str, **options: Any) -> Callable[[Work], Engine]:
    """Return what makes the engine called `name` with these options, of which those that are None are not given.

    Raises UsageError for an unknown engine, and for an option that it does not take.
    """
    if name not in ENGINES:
        raise UsageError(f"no engine {name!r}", fix=f"choose one of {', '.join(ENGINES)}")
    given = {option: value for option, value in options.items() if value is not None}
    for option in given:
        if option not in ENGINES[name].options:
            takers = " or ".join(other for other, kind in ENGINES.items() if option in kind.options)
            raise UsageError(f"--{option} does nothing without --engine {takers}")
    return lambda work: ENGINES[name].make(work, **given)
