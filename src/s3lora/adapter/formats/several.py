"""Several adapters in one file, under the names that PEFT gave them: `….lora_A.default.weight`, `….lora_A.x.weight`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TypeVar

from s3lora.errors import AdapterFileError, UnsupportedAdapterError, printable
from s3lora.wording import worded

T = TypeVar("T")
DEFAULT = "default"
#: A key of PEFT: the name of the adapter stands behind the part, and LCM's files have a number before it.
_KEY = re.compile(
    r".+?\.lora_(?:A|B|embedding_A|embedding_B|magnitude_vector)(?:_(?P<number>\d{1,4}))?"
    r"(?:\.(?P<name>(?!(?:weight|bias)(?:\.|$)).+?))?(?:\.(?:weight|bias))?"
)
_SAVED = re.compile(
    r".+?\.(?:modules_to_save|token_adapter\.trainable_tokens_\w+)\.(?P<name>.+?)(?:\.(?:weight|bias))?"
)
TOLD = 8


def adapter_names(keys: Iterable[str]) -> dict[str, int]:
    """Return the names of the adapters whose factors these keys are, with the number of their keys.

    >>> adapter_names(["q.lora_A.default.weight", "q.lora_A.style.weight", "k.lora_A.weight", "norm.weight"])
    {'default': 2, 'style': 1}
    """
    found: dict[str, int] = {}
    for key in keys:
        name = _name(key)
        if name is not None:
            found[name] = found.get(name, 0) + 1
    return found


def _name(key: str) -> str | None:
    match = _KEY.fullmatch(key)
    if match is None:
        return None
    return ".".join(part for part in (match["number"], match["name"]) if part) or DEFAULT


def refuse_several(names: Mapping[str, int], label: str) -> None:
    """Raise UnsupportedAdapterError, which says what to type, if there is more than one adapter."""
    if len(names) > 1:
        ordered = sorted(names)
        told = printable(", ".join(ordered[:TOLD]))
        raise UnsupportedAdapterError(
            f"holds several adapters in one file ({told})",
            file=label,
            fix=worded("name one of them: {adapter}{name}", name=printable(ordered[0], 60)),
        )


def only(tensors: Mapping[str, T], name: str, label: str) -> dict[str, T]:
    """Return the tensors of one adapter, and those that are of none; raise AdapterFileError if there is none such."""
    names = adapter_names(tensors)
    if name not in names:
        has = f"it holds {printable(', '.join(sorted(names)[:TOLD]))}" if names else "its keys name none"
        raise AdapterFileError(f"holds no adapter called {printable(name, 60)}", file=label, fix=has)
    others = names.keys() - {name}
    return {key: tensor for key, tensor in tensors.items() if _owner(key, others) is None}


def _owner(key: str, names: Iterable[str]) -> str | None:
    """Return which of these adapters a tensor is of, also one that was saved in full, None if of no one."""
    match = _SAVED.fullmatch(key)
    name = _name(key) or (str(match["name"]) if match else None)
    return name if name in {*names} else None


def without_name(key: str, name: str) -> str:
    """Return a key without the name of its adapter, as PEFT writes it; another key as it is.

    >>> without_name("q.lora_A.style_v1.5.weight", "style_v1.5")
    'q.lora_A.weight'
    """
    match = _KEY.fullmatch(key)
    if match is None or match["name"] != name:
        return key
    return key[: match.start("name") - 1] + key[match.end("name") :]
