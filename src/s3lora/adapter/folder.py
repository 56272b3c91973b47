"""Replacing a folder in one step, and copying what belongs to an adapter besides its weights."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from s3lora.adapter.open import CONFIG, INDEX, PROVENANCE, WEIGHTS
from s3lora.errors import OutputError, printable

#: Not part of an adapter: version control, caches, other checkpoints of the run.
SKIPPED_FOLDERS = (".git", ".cache", "runs", "wandb")
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


def check_target(out: Path, source: Path | None, *, force: bool) -> None:
    """Raise OutputError unless `out` may be written.

    A new or empty folder always may. An existing adapter folder, the input included, needs `force`. Anything else
    never: replacing a folder removes what it holds.
    """
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise OutputError("is not a folder", file=out, fix="give -o a new folder")
    if not out.is_dir() or not any(out.iterdir()):
        return
    if source is not None and source.is_file() and out.samefile(source.parent):
        raise OutputError("is the folder that the input file lies in", file=out, fix="give -o a new folder")
    if not force:
        same = source is not None and source.exists() and out.samefile(source)
        what = "is the input itself" if same else "exists and is not empty"
        raise OutputError(what, file=out, fix="give -o a new folder, or --force to replace it")
    if not any((out / name).exists() for name in (CONFIG, PROVENANCE, *WEIGHTS)):
        raise OutputError("holds no adapter, so --force will not replace it", file=out, fix="give -o a new folder")


@contextlib.contextmanager
def replacing(out: Path) -> Iterator[Path]:
    """Give an empty folder beside `out`; when the block ends well, it takes the place of `out` in one step.

    If the block fails, or the process dies, `out` is as it was. Raises OutputError where the system refuses.
    """
    out = out.absolute()
    partial: Path | None = None
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".partial", dir=out.parent))
        yield partial
        partial.chmod(0o777 & ~_umask())
        _sync(partial)
        _swap(partial, out)
        _sync(out.parent)
    except OSError as error:
        raise OutputError(f"cannot be written ({error.strerror or error})", file=out) from None
    finally:
        if partial is not None:
            shutil.rmtree(partial, ignore_errors=True)


def _swap(new: Path, out: Path) -> None:
    """Put `new` in the place of `out`; what was there is afterwards at `new`."""
    if not out.exists():
        new.rename(out)
        return
    if _exchange(new, out):
        return
    # Without an atomic exchange there is a moment without `out`; the old folder then lies beside it, whole.
    old = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".old", dir=out.parent))
    out.rename(old)
    new.rename(out)
    shutil.rmtree(old, ignore_errors=True)


def _exchange(first: Path, second: Path) -> bool:
    """Exchange two paths atomically (Linux, renameat2); return whether the system could."""
    try:
        call = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError, TypeError):
        return False
    return bool(call(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _RENAME_EXCHANGE) == 0)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def copy_companions(source: Path, target: Path, *, written: set[str]) -> tuple[str, ...]:
    """Copy heads of folders: tokenizer, chat templates, model card; return what was left behind, in words.

    Left behind are weights that still hold the pruned modules, other checkpoints, links that lead out of the folder,
    and whatever is no file. `written` names what the target has already.
    """
    left: list[str] = []
    root = source.resolve()
    # A model hub's cache keeps a snapshot's files as links into a folder of blobs beside it.
    blobs = root.parent.parent / "blobs"
    for entry in sorted(source.iterdir()):
        name = printable(entry.name, 60)
        if entry.name in written or entry.name == PROVENANCE:
            continue
        if _is_weights(entry.name):
            left.append(f"{name} (weights with the pruned modules)")
            continue
        if entry.is_dir() and not entry.is_symlink():
            if entry.name in SKIPPED_FOLDERS or entry.name.startswith("checkpoint-"):
                left.append(f"{name}/ (not part of the adapter)")
            else:
                (target / entry.name).mkdir()
                left.extend(f"{name}/{inner}" for inner in copy_companions(entry, target / entry.name, written=set()))
            continue
        real = entry.resolve()
        if not real.is_file() or not (real.is_relative_to(root) or real.parent == blobs):
            left.append(f"{name} (no file inside the folder)")
            continue
        shutil.copyfile(real, target / entry.name)
    return tuple(left)


def _is_weights(name: str) -> bool:
    return name in WEIGHTS or name.endswith((INDEX, ".gguf")) or name.startswith("adapter_model")
