"""What the records of adapters that were made from one other have in common."""

from __future__ import annotations

from s3lora.adapter.digest import Source


class OfOneSource:
    """A record whose `source` is all that the adapter was made from."""

    __slots__ = ()

    source: Source

    @property
    def sources(self) -> tuple[Source, ...]:
        """Return what it was made from."""
        return (self.source,)
