"""What the records of everything that is written have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING

from s3lora.errors import printable


class WrittenRecord:
    """A record that shows in one line what was done."""

    __slots__ = ()

    if TYPE_CHECKING:

        @property
        def done(self) -> str:
            """Return in words what was done."""

    def __repr__(self) -> str:
        """Return what was done."""
        return f"<{type(self).__name__}: {printable(self.done)}>"
