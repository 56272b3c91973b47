"""One file a loader. Each has a `Loader`: what it takes of a folder, what it rejects or misreads, what it must find.

To add a loader, write one file with a `Loader`, and name it in `LOADERS` below. The facts are read from the loaders'
sources, or seen by running them, and are kept in `docs/loaders.md`. `prune` writes by them and `check` tells them.
"""

from __future__ import annotations

import re

from s3lora.adapter.loaders import diffusers, llamacpp, mlx, peft, sglang, transformers, vllm
from s3lora.adapter.loaders.base import Loader
from s3lora.adapter.loaders.problems import Problem
from s3lora.errors import UsageError, one_of, printable

__all__ = ["LOADERS", "Loader", "Problem", "loader_of"]

#: Every loader by its name, in the order in which they are shown.
LOADERS: dict[str, Loader] = {
    one.LOADER.name: one.LOADER for one in (peft, transformers, diffusers, mlx, vllm, sglang, llamacpp)
}

#: What others call a loader, in small letters and without signs.
_CALLED = {"mlxlm": "mlx"}


def loader_of(name: str, *, to_write: bool = False) -> Loader:
    """Return the loader of a name, or of `NAME=VERSION`; raise UsageError if there is none, or none `to_write` for.

    >>> loader_of("vllm=0.33.0").shown, loader_of("llama.cpp").shown, loader_of("mlx-lm").shown
    ('vllm=0.33.0', 'llamacpp', 'mlx')
    """
    given, equals, version = name.partition("=")
    plain = re.sub(r"[-_.]", "", given.lower())
    bare = _CALLED.get(plain, plain)
    bare = bare if bare in LOADERS else given
    known = [one.name for one in LOADERS.values() if one.writes or not to_write]
    if bare not in known:
        what = f"nothing is written for the loader {bare}" if bare in LOADERS else f"no loader {printable(bare, 40)!r}"
        raise UsageError(what, fix=one_of(bare, known))
    return LOADERS[bare].at(version) if equals else LOADERS[bare]
