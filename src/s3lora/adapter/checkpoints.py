"""The folder of a run → its checkpoints, in the order of their training steps."""

from __future__ import annotations

import os
import re
from pathlib import Path

from s3lora.adapter.weights import WEIGHTS
from s3lora.arguments import checked
from s3lora.errors import AdapterFileError, UsageError, printable

#: How writers name the checkpoints of a run: a folder by the Transformers trainer, a file by MLX.
_CHECKPOINTS = (re.compile(r"checkpoint-(\d{1,15})"), re.compile(r"(\d{1,15})_adapters\.safetensors"))


@checked
def checkpoints(run: str | os.PathLike[str]) -> tuple[Path, ...]:
    """Return the checkpoints in the folder of a run by their steps, and behind them the folder if it holds an adapter.

    A checkpoint is a folder `checkpoint-N`, or a file `N_adapters.safetensors` as MLX writes it.

    Examples:
        >>> import s3lora
        >>> [path.name for path in s3lora.checkpoints("run")]
        ['checkpoint-100', 'checkpoint-200']

    Raises AdapterFileError if there is no such folder, UsageError if it holds fewer than two adapters.
    """
    folder = Path(run)
    try:
        if not folder.exists():
            raise AdapterFileError("no such file or folder", file=folder)
        names = sorted(os.listdir(folder)) if folder.is_dir() else []
    except OSError as error:
        raise AdapterFileError(f"cannot be read ({error.strerror})", file=folder) from None
    found = [(step, folder / name) for name in names if (step := step_of(name)) is not None]
    paths = [path for _, path in sorted(found) if path.is_dir() or path.suffix]
    if paths and any((folder / name).exists() for name in WEIGHTS):
        paths.append(folder)
    if len(paths) < 2:
        held = "one checkpoint only" if paths else "no checkpoints"
        raise UsageError(
            f"{printable(folder, 240)} holds {held}, so there is nothing to compare",
            fix="give two adapters, or the folder of a run with folders checkpoint-N in it",
        )
    return tuple(paths)


def step_of(name: str) -> int | None:
    """Return the training step that the name of a checkpoint tells, None where it tells none.

    >>> step_of("checkpoint-1500"), step_of("0000200_adapters.safetensors"), step_of("my-adapter")
    (1500, 200, None)
    """
    found = next((match for pattern in _CHECKPOINTS if (match := pattern.fullmatch(name))), None)
    return None if found is None else int(found[1])
