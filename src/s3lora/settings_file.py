"""Reading a small file that a user names or leaves in the working directory: whole, bounded, and regular."""

from __future__ import annotations

import stat
from pathlib import Path

from s3lora.errors import UsageError


def read_settings(path: Path, limit: int) -> bytes:
    """Return the content; raise UsageError if it is missing, unreadable, no regular file or above `limit` bytes."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise UsageError("is no regular file", file=path)
        with path.open("rb") as file:
            content = file.read(limit + 1)
    except OSError as error:
        raise UsageError(f"cannot be read ({error.strerror or error})", file=path) from None
    except ValueError:  # a null character in the name
        raise UsageError("is no name of a file", file=path) from None
    if len(content) > limit:
        raise UsageError(f"is larger than {limit:,} bytes", file=path)
    return content
