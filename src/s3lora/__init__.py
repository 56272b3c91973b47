"""s3lora: audit a LoRA adapter from its file alone, and prune its sharpest modules."""

from s3lora._version import __version__

__all__ = ["__version__"]
