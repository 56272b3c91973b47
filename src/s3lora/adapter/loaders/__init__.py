"""One file a loader. Each has a `Loader`: what it takes of a folder, what it rejects or misreads, what it must find.

To add a loader, write one file with a `Loader`, and name it in `LOADERS` below. The facts are read from the loaders'
sources, or seen by running them, and are kept in `docs/loaders.md`. `prune` writes by them and `check` tells them.
"""

from __future__ import annotations

from s3lora.adapter.loaders import diffusers, llamacpp, mlx, peft, sglang, transformers, vllm
from s3lora.adapter.loaders.base import Loader, Problem
from s3lora.errors import UsageError, printable

__all__ = ["LOADERS", "Loader", "Problem", "loader_of", "written"]

#: Every loader by its name, in the order in which they are shown.
LOADERS: dict[str, Loader] = {
    one.LOADER.name: one.LOADER for one in (peft, transformers, diffusers, mlx, vllm, sglang, llamacpp)
}


def loader_of(name: str) -> Loader:
    """Return the loader of a name, or of `NAME=VERSION`; raise UsageError if there is none.

    >>> loader_of("vllm=0.33.0").shown
    'vllm=0.33.0'
    """
    bare, equals, version = name.partition("=")
    if bare not in LOADERS:
        raise UsageError(f"no loader {printable(bare, 40)!r}", fix=f"choose one of {', '.join(LOADERS)}")
    return LOADERS[bare].at(version) if equals else LOADERS[bare]


def written(name: str) -> Loader:
    """Return the loader of a name that adapters can be written for; raise UsageError if there is none."""
    loader = loader_of(name)
    if not loader.writes:
        names = ", ".join(one.name for one in LOADERS.values() if one.writes)
        raise UsageError(f"nothing is written for the loader {loader.name}", fix=f"choose one of {names}")
    return loader
