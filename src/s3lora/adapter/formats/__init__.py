"""One file a format. Each has a `Format`: how to recognise its tensors, and how to read them.

To add a format, write one file with a `Format`, and name it in `FORMATS` below; the first that recognises wins.
"""

from __future__ import annotations

from s3lora.adapter.formats import custom, diffusers, gguf, kohya, mlx, named, peft
from s3lora.adapter.formats.base import Format, Reading, StoredAdapter

__all__ = ["FORMATS", "Format", "Reading", "StoredAdapter"]

FORMATS: tuple[Format, ...] = (
    gguf.FORMAT,
    peft.FORMAT,
    kohya.FORMAT,
    diffusers.FORMAT,
    *named.FORMATS,
    mlx.FORMAT,
    custom.STABLE_DIFFUSION,
    custom.SEGMENT_ANYTHING,
)
