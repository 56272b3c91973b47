"""Names of models on the Hugging Face Hub, told apart from folders of somebody's disk."""

from __future__ import annotations

import os
import re

from s3lora.errors import UsageError

#: What addresses on the Hub begin with.
HUB = "hf://"
#: What addresses on the web begin with, and the pages of models there.
WEB = ("https://", "http://")
_PAGE = re.compile(
    r"https?://(?:www\.)?(?:huggingface\.co|hf\.co)/((?!(?:blog|collections|learn|papers|posts|tasks)/)[^/?#]+/[^/?#]+).*"
)
_PART = r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?"
_OWNED = re.compile(rf"({_PART})/({_PART})")
LONGEST = 96
#: Families of models without an owner, as the Hub gives no names any more, and whose they are there now.
_OWNERS = {
    "albert": "albert",
    "bert": "google-bert",
    "camembert": "almanach",
    "ctrl": "Salesforce",
    "distilbert": "distilbert",
    "distilgpt2": "distilbert",
    "distilroberta": "distilbert",
    "gpt2": "openai-community",
    "openai-gpt": "openai-community",
    "roberta": "FacebookAI",
    "t5": "google-t5",
    "transfo-xl": "transfo-xl",
    "xlm": "FacebookAI",
    "xlnet": "xlnet",
}
_OWNERLESS = re.compile(rf"({'|'.join(_OWNERS)})(?:-[A-Za-z0-9-]*[A-Za-z0-9])?")
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


def name_in_page(address: str) -> str | None:
    """Return the name of the model that a page of the Hub is about, None for another address.

    >>> name_in_page("https://huggingface.co/me/lora/tree/main"), name_in_page("https://example.org/me/lora")
    ('me/lora', None)
    """
    found = _PAGE.fullmatch(address)
    return None if found is None else hub_name(found[1])


def with_owner(name: str) -> str:
    """Return a model's name as addresses of the Hub have it; an old one has none of its owner.

    >>> [with_owner(name) for name in ("gpt2@main", "distilbert-base-uncased", "meta-llama/Llama-3.1-8B")]
    ['openai-community/gpt2@main', 'distilbert/distilbert-base-uncased', 'meta-llama/Llama-3.1-8B']
    """
    alone, revision, rest = name.rstrip("/").partition("@")
    found = _OWNERLESS.fullmatch(alone)
    if found is None:
        return name
    owner = "openai-community" if alone.endswith("-openai-detector") else _OWNERS[found[1]]
    return f"{owner}/{alone}{revision}{rest}"


def refuse_no_name(base: str) -> None:
    """Raise UsageError where a base model is not named: by nothing, or by the word that stands for it in examples."""
    if not base:
        raise UsageError("the base model has an empty name", fix="an unset variable in a shell gives one")
    if base == "MODEL" and not os.path.exists(base):
        raise UsageError("MODEL stands for the name of your base model", fix="give its folder, or its name on the Hub")
