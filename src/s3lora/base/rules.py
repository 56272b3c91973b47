"""A small language for the shapes of layers: `q h` is a weight of q × h, `q+2*kv h` one of (q + 2·kv) × h.

Letters stand for numbers out of the configuration: sizes of the hidden layer, of heads, of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from s3lora.base.model import BaseModule

#: Layers of a model, and experts of a layer, beyond which a configuration is not believed.
MAX_LAYERS, MAX_EXPERTS, MAX_SIZE = 2000, 4096, 1 << 32
Sizes = Mapping[str, int]


class SizeError(ValueError):
    """A configuration that lacks a number, or has one that no model has; the message names it."""


def whole(config: Mapping[str, Any], *names: str, default: int | None = None) -> int:
    """Return the first of these fields that is there, a number of 1 or more.

    Raises SizeError where there is none and no default, or where it is no such number.
    """
    for name in names:
        value = config.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < MAX_SIZE:
            raise SizeError(f"`{name}` is no size")
        return value
    if default is None:
        raise SizeError(f"`{names[0]}` is missing")
    return default


def size_of(text: str, sizes: Sizes) -> int:
    """Return the value of a sum of products; raise SizeError for a size that the configuration did not give.

    >>> size_of("q+2*kv", {"q": 32, "kv": 8})
    48
    """
    total = 0
    for term in text.split("+"):
        value = 1
        for factor in term.split("*"):
            if not factor.isdigit() and factor not in sizes:
                raise SizeError("it lacks the sizes of its attention")
            value *= int(factor) if factor.isdigit() else sizes[factor]
        total += value
    return total


@dataclass(frozen=True)
class ArchitectureLayout:
    """The modules of a model: those of each layer, and those outside.

    Parameters:
        layers: the path of a layer, with `{i}` for its number.
        inner: name within a layer → shape. A name that begins with `=` is a parameter of fused experts.
        outer: path → shape of what is no layer; `~` before a shape tells a table of embeddings.
        count: the number of layers.
        only: names of `inner` → the layers that have them; the others are in all.
    """

    layers: str
    inner: Mapping[str, str]
    outer: Mapping[str, str]
    count: int
    only: Mapping[str, frozenset[int]] = field(default_factory=dict)

    def modules(self, sizes: Sizes) -> Iterator[BaseModule]:
        """Yield the modules in the order of the model."""
        before = [(path, shape) for path, shape in self.outer.items() if shape.startswith("~")]
        after = [(path, shape) for path, shape in self.outer.items() if not shape.startswith("~")]
        for path, shape in before:
            yield _module(path, shape, sizes)
        for i in range(self.count):
            for name, shape in self.inner.items():
                if name not in self.only or i in self.only[name]:
                    yield _module(f"{self.layers.format(i=i)}.{name.lstrip('=')}", shape, sizes, name.startswith("="))
        for path, shape in after:
            yield _module(path, shape, sizes)


def _module(path: str, shape: str, sizes: Sizes, fused: bool = False) -> BaseModule:
    m, n = (size_of(part, sizes) for part in shape.lstrip("~").split())
    kind = "embedding" if shape.startswith("~") else "parameter" if fused else "linear"
    return BaseModule(path, (m, n), kind, sizes["e"] if fused else 0)  # type: ignore[arg-type]
