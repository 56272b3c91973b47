"""A base model without its weights: the modules and shapes that its configuration alone tells."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

from s3lora.needs import need


@dataclass(frozen=True)
class Outline:
    """A base model on torch's device `meta`, which holds shapes and no numbers, and its configuration."""

    config: Any
    model: Any


def outline_of(where: str, options: dict[str, Any]) -> Outline | None:
    """Return the outline of a model folder, Hub name or GGUF file, None where the configuration does not tell it.

    Parameters:
        where: what transformers is to load.
        options: what it is told besides, such as `gguf_file`.

    No weights are read. What is wrong with the base is for loading to say, so nothing is raised.
    """
    torch, transformers = need("torch"), need("transformers")
    try:
        config = transformers.AutoConfig.from_pretrained(where, **options)
        with torch.device("meta"):
            # A copy: building a model writes into its configuration.
            model = transformers.AutoModelForCausalLM.from_config(copy.deepcopy(config), trust_remote_code=False)
    except Exception:  # whatever a damaged or an unusual configuration makes the library raise
        return None
    return Outline(config, model)
