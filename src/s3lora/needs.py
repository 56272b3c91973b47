"""Optional packages: imported when used, and named in one sentence when absent."""

from __future__ import annotations

import importlib
from typing import Any

from s3lora.errors import S3LoRAError


class MissingPackageError(S3LoRAError):
    """A package that this command needs is not installed."""


def need(module: str, extra: str = "eval") -> Any:
    """Import and return a module; raise MissingPackageError, which says what to install, where there is none."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        missing = (error.name or module).partition(".")[0]
        raise MissingPackageError(
            f"this needs the package {missing}, which is not installed", fix=f"run: pip install 's3lora[{extra}]'"
        ) from None
