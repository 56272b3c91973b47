"""Stand-ins for what a server's adapter-loading code imports but does not need: kernels, engines, model builders.

A server's wheel is unpacked, and the modules that are asked for are run as they are. Every other module below the
roots is made of `Anything`, whose attributes, calls and instances are again of it, and false.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any


class _Meta(type):
    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _made(name)

    def __bool__(cls) -> bool:
        return False

    def __getitem__(cls, _key: Any) -> Any:
        return cls

    def __or__(cls, _other: Any) -> Any:
        return cls

    __ror__ = __or__

    def __iter__(cls) -> Iterator[Any]:
        return iter(())


class Anything(metaclass=_Meta):
    """What stands for any class, function or value: false, empty, callable."""

    def __init__(self, *_given: Any, **_named: Any) -> None: ...

    def __init_subclass__(cls, **_named: Any) -> None: ...

    def __call__(self, *given: Any, **_named: Any) -> Any:
        # As a decorator it leaves the function alone.
        return given[0] if len(given) == 1 and callable(given[0]) else Anything()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Anything()

    def __bool__(self) -> bool:
        return False

    def __iter__(self) -> Iterator[Any]:
        return iter(())


def _made(name: str) -> Any:
    return _Meta(name, (Anything,), {})


class StandIn(ModuleType):
    """A module of which every name is there."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        found = _made(name)
        setattr(self, name, found)
        return found


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the modules below some roots: those that are `real` in the sources, all others as stand-ins.

    Parameters:
        sources: the folder with the unpacked sources.
        roots: the first parts of the names that it answers for.
        real: names of modules that are run as they are.
        given: attributes of stand-ins by their module's name.
    """

    def __init__(
        self, sources: Path, roots: Sequence[str], real: Sequence[str], given: Mapping[str, Mapping[str, Any]]
    ) -> None:
        self.sources, self.roots, self.real, self.given = sources, frozenset(roots), frozenset(real), given

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        if name.partition(".")[0] not in self.roots:
            return None
        if name in self.real:
            base = self.sources.joinpath(*name.split("."))
            inner = base / "__init__.py"
            if inner.exists():
                return importlib.util.spec_from_file_location(name, inner, submodule_search_locations=[str(base)])
            return importlib.util.spec_from_file_location(name, base.with_suffix(".py"))
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        return StandIn(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        module.__dict__.update(self.given.get(module.__name__, {}))


def install(sources: Path, roots: Sequence[str], real: Sequence[str], given: Mapping[str, Mapping[str, Any]]) -> None:
    """Answer for the modules below these roots from now on; a second call changes nothing."""
    if not any(isinstance(one, Finder) for one in sys.meta_path):
        sys.meta_path.insert(0, Finder(sources, roots, real, given))
