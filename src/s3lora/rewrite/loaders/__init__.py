"""One file a loader. Each has a `Loader`: which adapters it rejects, and which modules it must still find.

To add a loader, write one file with a `Loader`, and name it in `LOADERS` below. The facts are read from the loaders'
sources, or seen by running them, and are kept in `docs/loaders.md`.
"""

from __future__ import annotations

from s3lora.errors import UsageError
from s3lora.rewrite.loaders import llamacpp, peft, sglang, vllm
from s3lora.rewrite.loaders.base import Loader, Problem

__all__ = ["LOADERS", "Loader", "Problem", "loader_of"]

#: Every loader by its name.
LOADERS: dict[str, Loader] = {
    loader.name: loader for loader in (peft.LOADER, vllm.LOADER, sglang.LOADER, llamacpp.LOADER)
}


def loader_of(name: str) -> Loader:
    """Return the loader of this name; raise UsageError if there is none."""
    if name not in LOADERS:
        raise UsageError(f"no loader {name!r}", fix=f"choose one of {', '.join(LOADERS)}")
    return LOADERS[name]
