"""Adapter → the same adapter in another format: made, written, read again, and compared update by update."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from s3lora.adapter.companions import held_back
from s3lora.adapter.digest import FileDigest, Source, source_of
from s3lora.adapter.folder import check_target, copy_companions
from s3lora.adapter.gguf_write import write_new_gguf
from s3lora.adapter.loaders import Loader, loader_of
from s3lora.adapter.loaders.problems import DropPart
from s3lora.adapter.model import Adapter
from s3lora.adapter.new_tensors import write_new_tensors
from s3lora.adapter.open import open_adapter, opening
from s3lora.adapter.weights import CONFIG, PROVENANCE, parsed_config, raw_config
from s3lora.arguments import checked
from s3lora.errors import NonFiniteError, OutputError, S3LoRAError, UnsupportedAdapterError, UsageError, printable
from s3lora.files import replacing, write_json
from s3lora.rewrite.code import code_notes
from s3lora.rewrite.conversion_record import ConversionRecord
from s3lora.rewrite.convert.experts import are_fused
from s3lora.rewrite.convert.gguf import to_gguf
from s3lora.rewrite.convert.images import to_diffusers, to_kohya
from s3lora.rewrite.convert.loaders import format_for, notes_for, refuse_unloadable, wish_for
from s3lora.rewrite.convert.mlx import to_mlx
from s3lora.rewrite.convert.order import in_order, unknown_order
from s3lora.rewrite.convert.peft import to_peft
from s3lora.rewrite.convert.proof import UpdateDifference, proven
from s3lora.rewrite.convert.target import ConvertWish, MakeTarget, TargetFiles
from s3lora.rewrite.drop import dropped_of, without

#: What can be written, by the name that `--to` has.
TARGETS: dict[str, MakeTarget] = {
    "peft": to_peft,
    "diffusers": to_diffusers,
    "kohya": to_kohya,
    "mlx": to_mlx,
    "gguf": to_gguf,
}
#: Those that a base tells something.
BY_BASE = ("gguf", "mlx")
#: Dtypes that `--dtype` offers.
NEW_DTYPES = ("float32", "float16", "bfloat16")


@dataclass(frozen=True, slots=True, repr=False)
class Converted:
    """An adapter in another format that is not written yet."""

    adapter: Adapter
    wish: ConvertWish
    files: TargetFiles
    loader: Loader | None = None
    base: FileDigest | None = None
    drop: tuple[DropPart, ...] = ()
    dropped: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """Return which adapter it is, and what it becomes."""
        return f"<Converted {printable(self.adapter.name, 60)}: {len(self.adapter.modules)} modules to {self.wish.to}>"


@checked
def convert(
    adapter: Adapter | str | os.PathLike[str],
    to: str | None = None,
    *,
    loader: str | None = None,
    bake: bool = False,
    pad: int | None = None,
    dtype: str | None = None,
    drop: Collection[DropPart] = (),
    base: str | os.PathLike[str] | None = None,
) -> Converted:
    """Return an adapter as another format has it. Nothing is written; see `write_converted`.

    Every module keeps its ΔW, up to one rounding of each factor to the dtype that is written. An adapter that was in
    the format already is written as its loader finds it: without the keys of wrappers and names of adapters.

    Examples:
        >>> import s3lora
        >>> converted = s3lora.convert("my-adapter", "peft", bake=True)
        >>> converted
        <Converted my-adapter: 120 modules to peft>
        >>> record, written = s3lora.write_converted(converted, "baked")
        >>> record.difference < 1e-6
        True

    Parameters:
        adapter: an opened adapter, or a path; then its files stay open as long as the result is there.
        to: the format; by default what `loader` reads, or `peft`.
        loader: a loader, or `NAME=VERSION`, for which scalings are baked, ranks padded and names written as it needs
            them; without a version, as every release does.
        bake: multiply every lora_B by its scaling, so that alpha = r.
        pad: give every module this rank, with zeros; 0 for the largest there is.
        dtype: `float32`, `float16` or `bfloat16` for all floating tensors; each keeps its own without.
        drop: what else is left out: `heads`, `bias`, `tokens`, `other` or `all` of them.
        base: the `config.json` of the base model, or its folder. GGUF needs it, MLX where experts are fused, PEFT to
            write fused experts one each, and all where rows of q and k lie in pairs of heads that nothing else counts.

    Raises:
        AdapterFileError: the configuration of the base cannot be read.
        UnsupportedAdapterError: the format cannot hold a module or another tensor, the order of rows is not known, or
            the loader loads it in no form.
        UsageError: there is no such format, loader, dtype, rank or part to drop, or the loader reads another format.
    """
    if not isinstance(adapter, Adapter):
        with opening(adapter, kept=True) as own:
            return convert(own, to, loader=loader, bake=bake, pad=pad, dtype=dtype, drop=drop, base=base)
    asked = None if loader is None else loader_of(loader)
    to = to or "peft" if asked is None else format_for(asked, to)
    if to not in TARGETS:
        raise UsageError(f"nothing is converted to {printable(to, 40)}", fix=f"give {', '.join(TARGETS)}")
    if dtype is not None and dtype not in NEW_DTYPES:
        raise UsageError(f"no dtype {printable(dtype, 40)} is written", fix=f"give {', '.join(NEW_DTYPES)}")
    if pad is not None and pad < 0:
        raise UsageError(f"a rank of {pad} cannot be meant", fix="give 1 or more, or 0 for the largest")
    if not adapter.files:
        raise UsageError("an adapter in memory has no files to convert", fix="save it first")
    parts = tuple(part for part in get_args(DropPart) if part in drop)
    dropped = dropped_of(adapter, [*drop])
    if base is not None and not (to in BY_BASE or unknown_order(adapter) or (to == "peft" and are_fused(adapter))):
        raise UsageError(f"a base is of no use to {to}", fix="leave it out")
    known, digest = (None, None) if base is None else _base(Path(base))
    wish = ConvertWish(to, bake, pad, dtype, known)
    try:
        adapter = in_order(adapter, known)
        rest = without(adapter, dropped)
        wish = wish if asked is None else wish_for(asked, rest, wish)
        files = TARGETS[to](rest, wish)
        if asked is not None:
            refuse_unloadable(asked, rest, files)
    except UnsupportedAdapterError as error:
        error.adapter = str(adapter.path)
        raise
    return Converted(adapter, wish, files, asked, digest, parts, tuple(tensor.name for tensor in dropped))


def _base(path: Path) -> tuple[dict[str, Any], FileDigest]:
    """Return the configuration of the base, that of its language model where it has several, and its digest."""
    file = path / "config.json" if path.is_dir() else path
    raw = raw_config(file)
    config = parsed_config(raw, file.name)
    inner = config.get("text_config")
    digest = FileDigest(printable(file.name, 255), len(raw), hashlib.sha256(raw).hexdigest())
    return {**config, **inner} if isinstance(inner, dict) else config, digest


@checked
def write_converted(
    converted: Converted, out: str | os.PathLike[str], *, force: bool = False
) -> tuple[ConversionRecord, tuple[FileDigest, ...]]:
    """Write a converted adapter to the folder `out`, whole or not at all; return its record and the files written.

    What was written is opened again and compared with the source module by module. Same input and version, same bytes.

    Examples:
        >>> import s3lora
        >>> record, written = s3lora.write_converted(s3lora.convert("my-adapter", "mlx"), "for-mlx")
        >>> record.to, written[0].name
        ('mlx', 'adapters.safetensors')

    Raises OutputError if `out` exists (without `force`), cannot be written, or does not verify, and NonFiniteError if a
    factor holds NaN or infinity.
    """
    adapter, target = converted.adapter, Path(out)
    check_target(target, adapter.path, force=force)
    source = source_of(adapter)
    with replacing(target, force=force) as partial:
        files = _write(converted.files, partial)
        left = _companions(converted, partial)
        difference = _proof(converted, partial)
        unsure = () if converted.loader is None else notes_for(converted.loader, partial, adapter.name)
        behind = (*code_notes(converted.adapter, _config_of(converted)), *(f"left behind: {name}" for name in left))
        record = _record(converted, source, difference, files, (*unsure, *behind))
        write_json(partial / PROVENANCE, record)
        adapter.check_unchanged()
    return record, files


def _write(files: TargetFiles, folder: Path) -> tuple[FileDigest, ...]:
    path = folder / files.name
    if files.keys:
        digest = write_new_gguf(path, files.tensors, files.keys)
    else:
        digest = write_new_tensors(path, files.tensors, files.metadata)
    if files.config is not None:
        write_json(folder / CONFIG, files.config)
    return (digest,)


def _companions(converted: Converted, folder: Path) -> tuple[str, ...]:
    """Copy what lies beside the weights where the format stays; return what was left behind."""
    adapter = converted.adapter
    if adapter.path is None or not adapter.path.is_dir() or adapter.format != converted.wish.to:
        return ()
    names = {path.name for path in folder.iterdir()} | {file.name for file in adapter.files} | {CONFIG}
    return copy_companions(adapter.path, folder, written=names, held=held_back(adapter))


def _config_of(converted: Converted) -> Mapping[str, Any] | None:
    """Return the configuration that is written, where it goes on from that of the adapter."""
    return converted.files.config if converted.adapter.format == converted.wish.to else None


def _proof(converted: Converted, folder: Path) -> UpdateDifference:
    files = converted.files
    try:
        with open_adapter(folder / files.name) as written:
            difference = proven(files.source or converted.adapter, written, files.paths)
            found = {tensor.name: tensor for file in written.files for tensor in file.tensors.values()}
            for tensor in files.tensors:
                after = found.get(tensor.name)
                if after is None or (after.shape, after.dtype) != (tensor.shape, tensor.dtype):
                    raise OutputError("did not verify: a tensor is not as it should be", module=tensor.name)
    except (OutputError, NonFiniteError):
        raise
    except S3LoRAError as error:
        raise OutputError(f"did not verify: {error.problem}", module=error.module, file=files.name) from None
    return difference


def _record(
    converted: Converted,
    source: Source,
    difference: UpdateDifference,
    written: tuple[FileDigest, ...],
    notes: tuple[str, ...],
) -> ConversionRecord:
    wish, files = converted.wish, converted.files
    return ConversionRecord(
        source=source,
        to=wish.to,
        loader=None if converted.loader is None else converted.loader.shown,
        bake=wish.bake,
        pad_rank=wish.pad,
        dtype=wish.dtype,
        base=converted.base,
        drop=converted.drop,
        dropped=converted.dropped,
        modules=len(converted.adapter.modules),
        renamed={old: new for old, new in files.paths.items() if old != new},
        difference=difference.value,
        differs=difference.module,
        warnings=(*files.notes, *notes),
        written=written,
    )


__all__ = ["NEW_DTYPES", "TARGETS", "Converted", "convert", "write_converted"]
