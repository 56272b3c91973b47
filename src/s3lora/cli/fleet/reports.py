"""Pages of single adapters beside the page of their population."""

from __future__ import annotations

import math
import os
import re
import shlex
import unicodedata
from pathlib import Path
from urllib.parse import quote

from s3lora.adapter.open import open_one
from s3lora.choose.rankings import survey as ranked
from s3lora.choose.select import Plan, select
from s3lora.cli.output import emit
from s3lora.errors import OutputError, S3LoRAError, printable
from s3lora.fleet.populations.standing import summaries
from s3lora.fleet.populations.survey import Survey
from s3lora.fleet.populations.unusual import UnusualAdapter
from s3lora.fleet.results.outcome import Settings
from s3lora.fleet.sources.protocols import local_path
from s3lora.fleet.sources.remote import localised
from s3lora.measure.scan import Scan, scan
from s3lora.report.documents import scan_document
from s3lora.report.population_page import Own
from s3lora.report.population_view import label
from s3lora.report.scan_page import Reported, scan_page

#: Letters of a name that stand in the name of a file.
LETTERS = 40


def write_reports(found: Survey, folder: Path, page: Path) -> dict[str, Own]:
    """Scan the adapters that a survey names, and write the page of each into `folder`, to be linked to from `page`.

    Returns, by uri, a link or why there is none: an adapter may have gone since. Raises OutputError where the folder
    cannot be written.
    """
    if found.unusual is None:
        return {}
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot be written ({error.strerror or error})", file=folder) from None
    start = Path(os.path.relpath(folder, page.parent)).as_posix()
    pages = {}
    for one in found.unusual.most:
        name = file_name(one.place, one.name)
        try:
            text, same = _page(one, found.settings, found.unusual.index)
        except (S3LoRAError, OSError) as error:
            pages[one.uri] = Own(note=f"no report: {_why(error)}")
            continue
        emit(text, str(folder / name))
        link = f"./{quote(start)}/{name}"
        pages[one.uri] = Own(link, None if same else "has changed since the population was scanned")
    return pages


def file_name(place: int, name: str) -> str:
    """Return the name of a page: nothing of a foreign name gets into it but letters, digits and hyphens.

    >>> [file_name(1, "../Évil adapter\\n"), file_name(12, "…")]
    ['001-evil-adapter.html', '012-adapter.html']
    """
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    slug = re.sub(r"[^a-z0-9]+", "-", plain)[:LETTERS].strip("-") or "adapter"
    return f"{place:03d}-{slug}.html"


def _page(one: UnusualAdapter, settings: Settings, index: str) -> tuple[str, bool]:
    """Return the page of an adapter, and whether it still has the value by which it was ranked."""
    how, named = settings.scan, settings.adapter
    with localised(one.uri, adapter=named) as local:
        if local.path is None:
            raise OSError("was not read")
        with open_one(local.path, named) as adapter:
            picked = [] if adapter.picked is None else ["--adapter", adapter.picked]
            measured = scan(adapter, how.method, how.rank, kurtosis=how.kurtosis, nonfinite=True)
    plan = _plan(measured)
    path = local_path(one.uri)
    shown = label(one.uri) if path is None else Path(path).name if os.path.isabs(path) else str(path)
    prunable = path is not None and plan is not None and 0 < len(plan.chosen) < len(measured.modules) and not plan.flat
    reported = Reported(
        document=scan_document(measured, plan),
        ranked=ranked([measured], index=index),
        path=shown,
        command=shlex.join(["s3lora", "prune", shown, *picked, "-o", "PRUNED"]) if prunable else None,
    )
    known = [module for module in measured.modules if module.indices.get("ssi") is not None]
    now = summaries(known)[f"{index}_sharpest"]
    same = now is not None and math.isclose(now, one.sharpest.value, rel_tol=1e-6, abs_tol=1e-12)
    return scan_page([reported]), same


def _plan(measured: Scan) -> Plan | None:
    try:
        return select(measured)
    except S3LoRAError:  # nothing that could be chosen is no reason to show nothing
        return None


def _why(error: S3LoRAError | OSError) -> str:
    """Return what is wrong without the file, which may lie in a private folder."""
    if isinstance(error, S3LoRAError):
        return printable(error.problem, 120)
    return printable(error.strerror or "it cannot be read", 120)
