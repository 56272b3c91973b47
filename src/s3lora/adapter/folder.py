"""Where an adapter may be written, and what is copied along with its weights."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path

from s3lora.adapter.weights import CONFIG, PROVENANCE, WEIGHTS, weights_in
from s3lora.errors import OutputError, UsageError, printable
from s3lora.files import copy_file, settle, sync_folder
from s3lora.partial import is_left
from s3lora.wording import worded

#: Not part of an adapter: version control, caches, other checkpoints of the run.
SKIPPED_FOLDERS = (".git", ".cache", "runs", "wandb")
#: Levels of folders that are looked into, and bytes of their names in a row; deeper ones stay behind.
DEEPEST, LONGEST = 16, 2048
UNKNOWN = "beyond the files that are looked into"


def check_target(out: Path, source: Path | None, *, force: bool) -> None:
    """Raise OutputError unless `out` may be written.

    A new or empty folder always may. An existing adapter folder, the input included, needs `force`. Anything else
    never: replacing a folder removes what it holds. What killed runs left of writing to `out` is cleared away first.
    """
    try:
        settle(out)
        _check_target(out, source, force=force)
    except OSError as error:
        raise OutputError(f"cannot be looked into ({error.strerror or error})", file=out) from None


def refuse_nesting(out: Path, source: Path) -> None:
    """Raise OutputError if `out` lies in the folder that is read, or would replace one that holds what is read."""
    # realpath, for resolve() raises on a loop of links
    target, read = Path(os.path.realpath(out)), Path(os.path.realpath(source))
    if read.is_dir() and read in target.parents:
        raise OutputError(
            f"lies in {printable(source)}, which is read", file=out, fix=worded("give {out} a folder outside it")
        )
    if target in read.parents and out.is_dir() and any(out.iterdir()):
        raise OutputError(f"holds {printable(source)}, which is read", file=out, fix=worded("give {out} a new folder"))


def _check_target(out: Path, source: Path | None, *, force: bool) -> None:
    if not out.name and str(out) in ("", "."):
        raise UsageError("the folder to write has no name", fix=worded("give {out} a new folder"))
    if source is not None:
        refuse_nesting(out, source)
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise OutputError("is not a folder", file=out, fix=worded("give {out} a new folder"))
    if not out.is_dir() or not any(out.iterdir()):
        return
    if not force:
        same = source is not None and source.exists() and out.samefile(source)
        what = "is the input itself" if same else "exists and is not empty"
        raise OutputError(what, file=out, fix=worded("give {out} a new folder, or {force} to replace it"))
    if not any((out / name).exists() for name in _known_names(source)):
        raise OutputError(
            worded("holds no adapter, so {force} will not replace it"), file=out, fix=worded("give {out} a new folder")
        )


def _known_names(source: Path | None) -> Iterator[str]:
    """Yield names of files that an adapter is known by: those of loaders, and that of what is read."""
    yield from (CONFIG, PROVENANCE, *WEIGHTS)
    weights = weights_in(source, None) if source is not None and source.is_dir() else source
    if weights is not None:
        yield weights.name


def copy_companions(
    source: Path,
    target: Path,
    *,
    written: AbstractSet[str],
    held: Mapping[Path, str | None],
    root: Path | None = None,
    below: tuple[str, ...] = (),
) -> tuple[str, ...]:
    """Copy what lies beside the weights: tokenizer, chat templates, model card; return what was left behind, in words.

    Left behind are files that `held` has a reason for, or does not know, other adapters and checkpoints, links that
    lead out of the folder, and whatever is no file.
    `written` names what the target has already; `root` is the folder that links may not leave, and `below`
    are the folders from it to the source.
    """
    left: list[str] = []
    root = Path(os.path.realpath(source)) if root is None else root
    for entry in sorted(source.iterdir()):
        name = printable(entry.name, 60)
        if entry.name in written or entry.name == PROVENANCE:
            continue
        if entry.is_dir() and not entry.is_symlink():
            if reason := _skipped(entry, below) or held.get(entry):
                left.append(f"{name}/ ({reason})")
                continue
            (target / entry.name).mkdir()
            inner = copy_companions(
                entry, target / entry.name, written=frozenset(), held=held, root=root, below=(*below, entry.name)
            )
            left.extend(f"{name}/{item}" for item in inner)
            continue
        real = Path(os.path.realpath(entry))  # and not resolve(), which raises on links that lead in a circle
        if not real.is_file() or not (real.is_relative_to(root) or is_blob(real, root)):
            left.append(f"{name} (no file inside the folder)")
        elif reason := "being written" if is_left(entry.name) else held.get(entry, UNKNOWN):
            left.append(f"{name} ({reason})")
        else:
            copy_file(real, target / entry.name)
    sync_folder(target)
    return tuple(left)


def _skipped(folder: Path, below: tuple[str, ...]) -> str | None:
    """Return why a folder stays behind, None if it comes along."""
    if folder.name in SKIPPED_FOLDERS or folder.name.startswith("checkpoint-"):
        return "not part of the adapter"
    if is_left(folder.name):
        return "being written"
    if len(below) + 1 >= DEEPEST or len(os.fsencode("/".join((*below, folder.name)))) > LONGEST:
        return "nested too deep"
    if any((folder / name).exists() for name in (CONFIG, *WEIGHTS)):
        return "another adapter"
    return None


def is_blob(real: Path, root: Path) -> bool:
    """Return whether a model hub's cache keeps the file: a snapshot's files are links into a folder of blobs."""
    snapshots = (one.parent for one in (root, *root.parents) if one.parent.name == "snapshots")
    return any(real.parent == folder.parent / "blobs" for folder in snapshots)
