"""What the `down` / `up` / `alpha` formats have in common: gather the tensors of each module, then read them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from s3lora.adapter.formats.base import (
    Reading,
    StoredAdapter,
    alpha_scaling,
    check_pair,
    matrix,
    missing_half,
    refuse_equal_paths,
)
from s3lora.adapter.formats.forms import form_notes
from s3lora.adapter.formats.header import with_header
from s3lora.adapter.formats.parts import Scalings
from s3lora.adapter.model import LoraModule, Scaling, natural_key
from s3lora.adapter.tensor import Tensor
from s3lora.errors import AdapterFileError

Locate = Callable[[str], tuple[int | None, str]]


@dataclass(slots=True)
class Pair:
    """The tensors of one module: `down` is A, `up` is B; `extras` leave the file with them.

    Modules of one `group` leave together.
    """

    path: str
    down: Tensor | None = None
    up: Tensor | None = None
    alpha: Tensor | None = None
    dora: bool = False
    extras: list[str] = field(default_factory=list)
    group: str | None = None

    def add(self, role: str, name: str, tensor: Tensor, label: str) -> None:
        """Take the tensor called `name` as this module's `down`, `up` or `alpha`."""
        if getattr(self, role) is not None:
            raise AdapterFileError(f"has two {role} tensors", file=label, module=self.path)
        setattr(self, role, tensor)
        if role == "alpha":
            self.extras.append(name)


def read_pairs(
    pairs: Iterable[Pair],
    others: Iterable[str],
    source: StoredAdapter,
    locate: Locate,
    notes: Iterable[str] = (),
    products: Iterable[LoraModule] = (),
    scalings: Scalings | None = None,
) -> Reading:
    """Return the modules in the order of the model, with other `products` among them.

    `locate` gives layer and projection of a path. `scalings` are those of a configuration, for modules without an alpha
    of their own.
    """
    read = [*(_module(pair, source.label, locate, scalings) for pair in pairs), *products]
    modules, header = with_header(sorted(read, key=lambda m: natural_key(m.path)), source)
    refuse_equal_paths(modules, source.label)
    told = [*notes, *header]
    unknown = sum(module.scaling.origin == "unknown" for module in modules)
    if unknown:
        told.append(
            f"no alpha for {unknown} of {len(modules)} modules: their scaling is unknown and taken as 1, "
            "so magnitudes are relative"
        )
    told.extend(form_notes(modules))
    if any(module.dora for module in modules):
        told.append("DoRA: the spectra are of B·A alone; the magnitude vectors are carried along unread")
    return Reading(modules, tuple(others), tuple(told))


def _module(pair: Pair, label: str, locate: Locate, scalings: Scalings | None) -> LoraModule:
    if pair.down is None or pair.up is None:
        halves = ("up", "down") if pair.down is None else ("down", "up")
        if pair.down is None and pair.up is None:
            halves = ("alpha", "down and up")
        raise missing_half(pair.path, *halves, label)
    a, b = matrix(pair.down, label), matrix(pair.up, label)
    check_pair(pair.path, a, b, label)
    layer, projection = locate(pair.path)
    if pair.alpha is not None:
        scaling = alpha_scaling(pair.alpha, a.shape[0], label)
    else:
        scaling = Scaling(1.0, "unknown") if scalings is None else scalings.of(pair.path, a.shape[0])
    return LoraModule(
        path=pair.path,
        A=a,
        B=b,
        scaling=scaling,
        layer=layer,
        projection=projection,
        kind="conv" if len(pair.down.shape) > 2 else "linear",
        dora=pair.dora,
        extras=tuple(pair.extras),
        group=pair.group,
    )
