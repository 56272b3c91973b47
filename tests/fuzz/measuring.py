"""What targets do with an adapter that may be read: everything that a user would."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import s3lora
from s3lora.report.documents import scan_csv, scan_document, to_json
from s3lora.report.text import scan_text, to_text
from tests.fuzz.contract import BrokenContract, check_lines, never_refused, refusable, untouched, work_folder
from tests.hostile import bad_files as bad
from tests.support import make_adapter

WEIGHTS, CONFIG = bad.WEIGHTS, bad.CONFIG
#: What an adapter is that others are made from.
MODULES = bad.MODULES


@cache
def valid() -> tuple[bytes, bytes]:
    """Return the weights and the configuration of a valid adapter."""
    with work_folder() as folder:
        made = make_adapter(folder, MODULES)
        return (made / WEIGHTS).read_bytes(), (made / CONFIG).read_bytes()


def put(folder: Path, *, weights: bytes | None = None, config: bytes | None = None) -> Path:
    """Write an adapter, valid but for what is given."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / WEIGHTS).write_bytes(valid()[0] if weights is None else weights)
    (folder / CONFIG).write_bytes(valid()[1] if config is None else config)
    return folder


def measure(path: Path, folder: Path | None = None) -> s3lora.Scan:
    """Scan an adapter twice, show it in every form, and check that both are the same and no file has changed."""
    with untouched(folder or path):
        measured = s3lora.scan(path)
        shown(measured)
        with never_refused("the second scan of the same files"):
            again = s3lora.scan(path)
    if to_json(again) != to_json(measured):
        raise BrokenContract("a second scan says something else")
    return measured


def shown(measured: s3lora.Scan) -> None:
    """Show a scan as JSON, CSV and text; check that the JSON is what everyone reads, and that the text fits."""
    plan = None
    with refusable():
        plan = s3lora.select(measured)
    document = scan_document(measured, plan)
    json.loads(to_json(document), parse_constant=_no_number)
    check_lines(scan_csv([document]))
    text = to_text(scan_text(document, "s3lora prune x -o y"))
    check_lines(text)
    if any(len(line) > 80 for line in text.splitlines()):
        raise BrokenContract("a line of the text is longer than 80 characters")


def _no_number(text: str) -> Any:
    raise BrokenContract(f"writes {text} into JSON")


def prune_and_restore(path: Path, out: Path) -> None:
    """Prune the sharpest module, read what was written, and put it back: the weights are the same bytes again.

    Whether pruning is refused is not asked; but what it wrote can be read, and restored.
    """
    folder = path if path.is_dir() else path.parent
    pruned: tuple[s3lora.Pruned, s3lora.Scan] | None = None
    with untouched(folder):
        with s3lora.open_adapter(path) as adapter:
            with refusable():
                measured = s3lora.scan(adapter)
                pruned = s3lora.prune(adapter, s3lora.select(measured, s3lora.Top(1))), measured
                s3lora.write_pruned(*pruned, out / "pruned")
            names = [file.file.path for file in adapter.files]
        if not (out / "pruned").exists():
            return
        with never_refused("what was written is read again"):
            record = s3lora.read_provenance(out / "pruned")
            s3lora.restore(out / "pruned", path, out / "back")
        if not record.modules:
            raise BrokenContract("pruned nothing")
    for name in names:
        if (out / "back" / name.name).read_bytes() != name.read_bytes():
            raise BrokenContract(f"{name.name} is not restored to what it was")
