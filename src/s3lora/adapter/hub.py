"""Names of models on the Hugging Face Hub, told apart from folders of somebody's disk."""

from __future__ import annotations

import os
import re

from s3lora.errors import UsageError

#: What addresses on the Hub begin with.
HUB = "hf://"
_PART = r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?"
_OWNED = re.compile(rf"({_PART})/({_PART})")
LONGEST = 96
#: Models without an owner: the Hub gives no such names any more, and those that it has are of these families.
_OWNERLESS = re.compile(
    r"(?:albert|bert|camembert|ctrl|distilbert|distilgpt2|distilroberta|gpt2|openai-gpt|roberta|t5|transfo-xl|xlm"
    r"|xlnet)"
    r"(?:-[A-Za-z0-9-]*[A-Za-z0-9])?"
)
#: Folders that models are kept in: the Hub lets nobody own some of them, and the others are more often a folder.
_FOLDERS = frozenset(
    (
        *("api", "base", "base_models", "cache", "checkpoint", "checkpoints", "content", "data", "datasets", "docs"),
        *("experiments", "home", "kaggle", "mnt", "model", "models", "opt", "out", "output", "outputs", "pretrained"),
        *("results", "root", "runs", "saved_models", "spaces", "tmp", "users", "weights", "workspace"),
    )
)


def hub_name(name: str | None) -> str | None:
    """Return `name` if it is the form of a model's name on the Hub and hardly that of a folder, else None.

    Nothing is looked up, neither on the Hub nor on the disk, so that the answer is the same everywhere.

    >>> [hub_name(name) for name in ("meta-llama/Llama-3.1-8B", "gpt2", "./gpt2", "models/llama", "full")]
    ['meta-llama/Llama-3.1-8B', 'gpt2', None, None, None]
    """
    if name is None or len(name) > LONGEST or "--" in name or ".." in name or name.endswith(".git"):
        return None
    owned = _OWNED.fullmatch(name)
    if owned is not None:
        return None if owned[1].lower() in _FOLDERS or owned[2].startswith("checkpoint-") else name
    return name if _OWNERLESS.fullmatch(name) else None


def refuse_no_name(base: str) -> None:
    """Raise UsageError where a base model is not named: by nothing, or by the word that stands for it in examples."""
    if not base:
        raise UsageError("the base model has an empty name", fix="an unset variable in a shell gives one")
    if base == "MODEL" and not os.path.exists(base):
        raise UsageError("MODEL stands for the name of your base model", fix="give its folder, or its name on the Hub")
