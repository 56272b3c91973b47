"""Documents that anybody may have written: every field is of its type, but they need not belong together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from s3lora.errors import S3LoRAError, UsageError, printable


@contextmanager
def belonging(file: object) -> Iterator[None]:
    """Raise UsageError where what is made of the document in `file` fails, as lengths, names or ranges do not agree."""
    try:
        yield
    except S3LoRAError:
        raise
    except (LookupError, ValueError, TypeError, AttributeError, ArithmeticError, RuntimeError, StopIteration) as error:
        what = f"holds parts that do not belong together ({type(error).__name__}: {printable(error, 80)})"
        raise UsageError(what, file=file, fix="make it again") from error
