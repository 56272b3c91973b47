"""PEFT 0.14 to 0.21: reads all that s3lora opens in its format, and builds modules by the configuration."""

from __future__ import annotations

from s3lora.rewrite.loaders.base import Loader

#: First release of PEFT that reads `exclude_modules`.
FIRST_PEFT = "0.14.0"
LOADER = Loader("peft", reads_patterns=True, on_exclusion=f"excluded modules need PEFT {FIRST_PEFT} or newer to load")
