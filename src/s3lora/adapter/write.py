"""Rewrite → folder: written beside the target, verified by opening it again, then put in place in one step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from s3lora.adapter.companions import held_back
from s3lora.adapter.digest import FileDigest
from s3lora.adapter.folder import check_target, copy_companions
from s3lora.adapter.gguf_write import write_gguf
from s3lora.adapter.model import Adapter
from s3lora.adapter.npz_write import write_npz
from s3lora.adapter.open import open_adapter
from s3lora.adapter.safetensors_write import Edit, bytes_of, content, shape_of, write_safetensors
from s3lora.adapter.tensors import DTYPES, StoredTensor, WeightsFile
from s3lora.adapter.weights import CONFIG, INDEX, PROVENANCE
from s3lora.errors import OutputError, S3LoRAError, UsageError, printable
from s3lora.files import replacing, write_json


@dataclass(frozen=True, slots=True)
class Rewrite:
    """What is to become of an adapter's files.

    `dropped` names tensors that leave, `edits` those that change; all others are copied bit by bit. `renamed` gives the
    new names of tensors that are stored under another than they had. `config` is the new configuration, None where
    there is none. `metadata` is added to `__metadata__` of each weights file. `check` looks at the adapter as it was
    written, opened again, and raises OutputError where its modules are not what they should be.
    """

    adapter: Adapter
    dropped: frozenset[str] = frozenset()
    edits: Mapping[str, Edit] = field(default_factory=dict)
    renamed: Mapping[str, str] = field(default_factory=dict)
    config: Mapping[str, Any] | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    check: Callable[[Adapter], None] | None = None

    def kept(self, file: WeightsFile) -> dict[str, StoredTensor]:
        """Return the tensors of a file that stay, by their new names."""
        stay = (tensor for tensor in file.tensors.values() if tensor.name not in self.dropped)
        return {self.renamed.get(tensor.name, tensor.name): tensor for tensor in stay}


#: Makes the content of `s3lora.json` out of the digests of the weights written.
ProvenanceOf = Callable[[tuple[FileDigest, ...]], object]


@dataclass(frozen=True, slots=True, repr=False)
class Written:
    """What was written: the files with their digests, and which files of the source stayed behind."""

    files: tuple[FileDigest, ...]
    left_behind: tuple[str, ...]

    def __repr__(self) -> str:
        """Return which files there are, and how many stayed behind."""
        names = ", ".join(printable(file.name, 60) for file in self.files[:4])
        return f"<Written: {names}{' and more' if self.files[4:] else ''}; {len(self.left_behind)} left behind>"


def write_adapter(rewrite: Rewrite, out: Path, *, provenance: ProvenanceOf, force: bool = False) -> Written:
    """Write the adapter to the folder `out`, whole or not at all.

    Raises OutputError if `out` must not or cannot be written, or if what was written does not verify.
    """
    adapter = rewrite.adapter
    if adapter.path is None or not adapter.files:
        raise UsageError("an adapter in memory has no files to rewrite", fix="save it first")
    check_target(out, adapter.path, force=force)
    with replacing(out, force=force) as partial:
        files = tuple(_write_weights(rewrite, partial))
        if adapter.config_file is not None:
            write_json(partial / CONFIG, rewrite.config)
        left: tuple[str, ...] = ()
        if adapter.path.is_dir():
            sources = {file.name for file in adapter.files}
            names = {path.name for path in partial.iterdir()} | sources
            left = copy_companions(adapter.path, partial, written=names, held=held_back(adapter))
        write_json(partial / PROVENANCE, provenance(files))
        _verify(rewrite, partial, files)
        adapter.check_unchanged()  # since it was scanned: what was written is what the record says
    return Written(files, left)


def _write_weights(rewrite: Rewrite, folder: Path) -> list[FileDigest]:
    digests = []
    table: dict[str, str] = {}
    size = 0
    for file in rewrite.adapter.files:
        kept = rewrite.kept(file)
        if not kept:
            continue
        # Wide numbers first, as the format's own writer has it: readers use them where they lie in the mapped file.
        kept = dict(sorted(kept.items(), key=lambda item: -DTYPES[item[1].code][0]))
        name = _output_name(file)
        if file.form == "npz":
            digests.append(write_npz(folder / name, kept, rewrite.edits))
        elif file.form == "gguf":
            digests.append(write_gguf(folder / name, file.file, kept, rewrite.edits))
        else:
            digests.append(write_safetensors(folder / name, kept, rewrite.edits, _metadata(rewrite, file)))
        table.update(dict.fromkeys(kept, name))
        size += sum(bytes_of(tensor, rewrite.edits.get(tensor.name)) for tensor in kept.values())
    if (index := _index_name(rewrite.adapter)) is not None:
        content = {"metadata": {"total_size": size}, "weight_map": dict(sorted(table.items()))}
        write_json(folder / index, content)
    return digests


def _metadata(rewrite: Rewrite, file: WeightsFile) -> dict[str, str]:
    if file.form in ("npz", "gguf"):  # the one has none, of the other all keys stay
        return file.metadata
    metadata = {**file.metadata, **rewrite.metadata}
    if _output_name(file) != file.name:
        metadata = {"format": "pt", **metadata}
    return dict(sorted(metadata.items()))


def _output_name(file: WeightsFile) -> str:
    # A pickled file cannot be written without torch, and should not be: loaders prefer safetensors anyway.
    name = printable(file.name, 255)  # a name that is no text cannot be written into s3lora.json
    return name if file.form in ("npz", "gguf") or name.endswith(".safetensors") else f"{Path(name).stem}.safetensors"


def _index_name(adapter: Adapter) -> str | None:
    """Return the name of the index of shards, None where the weights are one file."""
    return adapter.entry.name if adapter.entry is not None and adapter.entry.name.endswith(INDEX) else None


def _verify(rewrite: Rewrite, folder: Path, files: tuple[FileDigest, ...]) -> None:
    """Open what was written; raise OutputError unless it holds just what it should."""
    entry = _index_name(rewrite.adapter) or files[0].name
    try:
        with open_adapter(folder / entry) as result:
            found = {tensor.name: tensor for file in result.files for tensor in file.tensors.values()}
            expected = {name: tensor for file in rewrite.adapter.files for name, tensor in rewrite.kept(file).items()}
            if found.keys() != expected.keys():
                raise OutputError("did not verify: it holds other tensors than it should", file=entry)
            wanted = {_output_name(file): _metadata(rewrite, file) for file in rewrite.adapter.files}
            if any(file.metadata != wanted[file.name] for file in result.files):
                raise OutputError("did not verify: it holds other metadata than it should", file=entry)
            for name, tensor in expected.items():
                _verify_tensor(tensor, found[name], rewrite.edits.get(tensor.name))
            if rewrite.check is not None:
                rewrite.check(result)
    except OutputError:
        raise
    except S3LoRAError as error:
        raise OutputError(f"did not verify: {error.problem}", module=error.module, file=entry) from None


def _verify_tensor(before: StoredTensor, after: StoredTensor, edit: Edit | None) -> None:
    if (before.code, shape_of(before, edit)) != (after.code, after.shape):
        raise OutputError("did not verify: its type or shape changed", module=before.name, shape=after.shape)
    for wanted, got in zip(content(before, edit), after.chunks(), strict=True):
        # As arrays: memoryviews are compared one element at a time.
        if not np.array_equal(np.frombuffer(wanted, np.uint8), np.frombuffer(got, np.uint8)):
            what = "it should be unchanged" if edit is None else "it is not what it was changed to"
            raise OutputError(f"did not verify: {what}", module=before.name, shape=before.shape)
