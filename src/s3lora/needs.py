"""Optional packages: imported when used, and named in one sentence when absent."""

from __future__ import annotations

import importlib
import json
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from s3lora.errors import S3LoRAError

_NAME = re.compile(r"[\w.-]+")


class MissingPackageError(S3LoRAError):
    """A package that this command needs is not installed."""


def need(module: str, extra: str | None = "eval") -> Any:
    """Import and return a module; raise MissingPackageError, which says what to install, where there is none.

    `extra` has what is needed, None where the package itself is all.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        missing = (error.name or module).partition(".")[0]
        what = f"this needs the package {missing}, which is not installed"
        packages = missing if extra is None else how_to_install(extra, missing)
        raise MissingPackageError(what, fix=f"run: pip install {packages}") from None


def how_to_install(extra: str, missing: str) -> str:
    """Return what to give to `pip install` for an extra, as words of a shell.

    That is the folder that this copy was installed from, where there is one, and otherwise those packages of the extra
    that are not installed: s3lora itself may not be on any index. `missing` is what to install where nothing is known.
    """
    from importlib.metadata import PackageNotFoundError, distribution  # which takes longer than `s3lora --help`

    def here(name: str) -> bool:
        try:
            return bool(distribution(name))
        except PackageNotFoundError:
            return False

    if not here("s3lora"):
        return missing
    copy = distribution("s3lora")
    folder = _folder(copy.read_text("direct_url.json"))
    if folder is not None:
        editable, path = folder
        return ("-e " if editable else "") + shlex.quote(f"{path}[{extra}]")
    return " ".join(map(shlex.quote, _lacking(copy.requires or [], extra, here))) or missing


def _folder(direct_url: str | None) -> tuple[bool, Path] | None:
    """Return whether a copy is editable, and the folder that pip took it from, by PEP 610; None where there is none."""
    from urllib.parse import unquote, urlsplit

    try:
        told = json.loads(direct_url or "{}")
        url = urlsplit(told["url"])
        path, editable = Path(unquote(url.path)), bool(told["dir_info"].get("editable"))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return (editable, path) if url.scheme == "file" and (path / "pyproject.toml").is_file() else None


def _lacking(requirements: list[str], extra: str, here: Callable[[str], bool]) -> Iterator[str]:
    """Yield the requirements of an extra, without their markers, whose packages are not `here`."""
    for requirement in requirements:
        wanted, _, marker = requirement.partition(";")
        name = _NAME.match(wanted)
        of_extra = re.search(rf"""extra\s*==\s*["']{re.escape(extra)}["']""", marker)
        if name is not None and of_extra and not here(name[0]):
            yield wanted.strip()
