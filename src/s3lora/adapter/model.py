"""What an adapter is, once its file format no longer matters."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from s3lora.adapter.factors import AnyFactor as AnyFactor
from s3lora.adapter.factors import DerivedFactor as DerivedFactor
from s3lora.adapter.factors import Factor as Factor
from s3lora.adapter.factors import KroneckerFactor, Shape, dtypes
from s3lora.adapter.inventory.model import Inventory
from s3lora.outside import printable, without_secrets

if TYPE_CHECKING:
    from s3lora.adapter.tensors import WeightsFile

#: How an update is made of stored tensors: B·A, a Hadamard or a Kronecker product, B·diag(E)·A, and so on.
Form = Literal["LoRA", "LoHa", "LoKr", "AdaLoRA", "VeRA", "QALoRA"]
#: How the rows of q and k lie: as Transformers has them, in pairs of each head, or in one of these ways.
RowOrder = Literal["halves", "pairs", "either"]
ScalingOrigin = Literal[
    "alpha/r",
    "alpha/sqrt(r)",
    "alpha_pattern",
    "alpha tensor",
    "config scale",
    "metadata",
    "default",
    "memory",
    "always 1",
    "ambiguous",
    "unknown",
]


@dataclass(frozen=True, slots=True)
class Scaling:
    """The factor s in ΔW = s·B·A, and how it is known.

    `origin` is `unknown` where no configuration says anything (the value is then 1) and `ambiguous` where writers of
    this format disagree about the meaning of what it says. It is `metadata` where the file's header tells it, `default`
    where nothing is stored and every loader of the format then takes 1, and `always 1` where the form has no other.
    """

    value: float
    origin: ScalingOrigin


@dataclass(frozen=True, slots=True, repr=False)
class LoraModule:
    """One weight's low-rank update ΔW = s·B·A, with A of shape (r, n) and B of shape (m, r).

    `path` is the module's full path in the base model, without `base_model.model.`, and unique in an adapter.
    `extras` names further tensors that belong to this module alone (DoRA magnitude, alpha, bias of lora_B) and leave
    with it. Modules that share a `group` share their tensors (fused experts): they can only be removed together.
    `form` says how the factors are stored, and `order` how the rows of B lie where nobody could put them back.
    """

    path: str
    A: AnyFactor
    B: AnyFactor
    scaling: Scaling
    layer: int | None = None
    projection: str = ""
    expert: int | None = None
    kind: Literal["linear", "conv", "embedding"] = "linear"
    dora: bool = False
    extras: tuple[str, ...] = ()
    group: str | None = None
    form: Form = "LoRA"
    order: RowOrder = "halves"

    def __repr__(self) -> str:
        """Return where it is, and how large."""
        return f"<LoraModule {printable(self.path)}: {self.m} × {self.n}, rank {self.rank}, {self.dtype}>"

    @property
    def m(self) -> int:
        """Return the number of output features, the rows of ΔW."""
        return self.B.shape[0]

    @property
    def n(self) -> int:
        """Return the number of input features, the columns of ΔW."""
        return self.A.shape[1]

    @property
    def rank(self) -> int:
        """Return r, the size that A and B share; a configured rank can be wrong."""
        return self.A.shape[0]

    @property
    def parts(self) -> tuple[Factor, ...]:
        """Return the stored factors: one for A and one for B, more where a factor is derived."""
        return (*self.A.parts, *self.B.parts)

    @property
    def own_parts(self) -> tuple[Factor, ...]:
        """Return the stored factors that no other module is made of."""
        return tuple(part for part in self.parts if not part.shared)

    @property
    def scaled_part(self) -> Factor:
        """Return the stored factor of which the update is a multiple: that of lora_B, or another that is its own."""
        return next(part for part in (*self.B.parts, *self.A.parts) if not part.shared)

    @property
    def free(self) -> bool:
        """Return whether the update can become any other of its shape and rank."""
        return self.A.free and self.B.free

    @property
    def pieces(self) -> tuple[Shape, ...]:
        """Return (m, n, r) of the products whose spectra make that of the update: one, or two of a Kronecker product.

        What is measured together has the same.
        """
        a, b = self.A, self.B
        if isinstance(a, KroneckerFactor) and isinstance(b, KroneckerFactor):
            pairs = ((a.first, b.first), (a.second, b.second))
            return tuple((right.shape[0], left.shape[1], left.shape[0]) for left, right in pairs)
        return ((self.m, self.n, self.rank),)

    @property
    def work(self) -> float:
        """Return how many operations it takes to make the factors out of what is stored."""
        return self.A.work + self.B.work

    @property
    def dtype(self) -> str:
        """Return the dtype of the stored factors, joined by `/` in the order A, B where they differ."""
        a, b = self.A.dtype, self.B.dtype
        return b if a == b else dtypes((a, b))

    @property
    def parameters(self) -> int:
        """Return how many numbers of this update are stored: r·(m + n), unless a factor is derived."""
        return self.A.parameters + self.B.parameters

    @property
    def tensor_names(self) -> tuple[str, ...]:
        """Return the names of all tensors that leave the file with this module."""
        return (*[part.tensor.name for part in self.own_parts], *self.extras)


def _nothing_taken(adapter: Adapter) -> Inventory:
    return Inventory()


@dataclass(frozen=True, slots=True, repr=False)
class Adapter:
    """An opened adapter: its modules, what else is in its files, and where it came from.

    `path` is the folder (or the single file) it was opened from and `entry` the weights file or index of shards that
    was read; both are None for a model in memory. `config` is parsed
    from `config_raw`, the bytes of `config_file`. `other_tensors` are no parts of LoRA: heads, embeddings of new
    tokens, anything else. They are carried along untouched, but for those that a module names among its extras.
    """

    name: str
    format: str
    modules: tuple[LoraModule, ...]
    path: Path | None = None
    entry: Path | None = None
    files: tuple[WeightsFile, ...] = ()
    config: Mapping[str, Any] | None = None
    config_file: Path | None = None
    config_raw: bytes | None = None
    other_tensors: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    # False where the loaders of this format need every module present, so that pruned modules stay as zeros.
    removable: bool = True
    # Which of several adapters of one file this is, None where it is the only one.
    picked: str | None = None
    # What makes the inventory stands above this file, so who opens an adapter gives it along.
    take_inventory: Callable[[Adapter], Inventory] = field(default=_nothing_taken, repr=False, compare=False)
    _inventory: Inventory | None = field(default=None, init=False, repr=False, compare=False)

    def __repr__(self) -> str:
        """Return what it is called, its format and how much it holds."""
        count = f"{len(self.modules)} module{'s' * (len(self.modules) != 1)}"
        return f"<Adapter {printable(self.name, 60)}: {self.format}, {count}>"

    @property
    def inventory(self) -> Inventory:
        """Return all that is in the adapter; the first time its files are read for it.

        Raises AdapterFileError where a file cannot be read.
        """
        found = self._inventory
        if found is None:
            found = self.take_inventory(self)
            object.__setattr__(self, "_inventory", found)
        return found

    def keep_inventory(self, inventory: Inventory) -> None:
        """Take what a scan has found in the adapter as its inventory, so that its files are not read for it again."""
        object.__setattr__(self, "_inventory", inventory)

    @property
    def base_model(self) -> str | None:
        """Return `base_model_name_or_path` as the configuration has it, without secrets if it is a URL.

        It need not resolve to anything.
        """
        value = (self.config or {}).get("base_model_name_or_path")
        return without_secrets(value) if isinstance(value, str) else None

    def check_unchanged(self) -> None:
        """Raise AdapterFileError if a weights file was written to or replaced since it was opened."""
        for file in self.files:
            file.file.check_unchanged()

    def close(self) -> None:
        """Close the files; arrays that were taken from this adapter stay as they are."""
        for file in self.files:
            file.close()

    def __enter__(self) -> Adapter:
        """Return the adapter itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the adapter's files."""
        self.close()


_LAYER = re.compile(
    r"(?:^|[._])(?:layers|h|blocks?|layer|transformer_blocks|single_transformer_blocks|resblocks)[._](\d+)(?=[._]|$)"
)
#: Last names of tables of embeddings, where nothing but its name tells one from a layer.
EMBEDDINGS = frozenset(
    (
        *("embed_tokens", "wte", "wpe", "embed_in", "embeddings", "word_embeddings", "tok_embeddings"),
        *("token_embeddings", "token_embedding", "embed_positions", "position_embeddings", "position_embedding"),
    )
)
_EXPERT = re.compile(r"(?:^|\.)experts\.(\d+)(?=\.|$)")
_DIGITS = re.compile(r"(\d+)")


def path_parts(path: str) -> tuple[int | None, str, int | None]:
    """Return (layer, projection, expert) as the module's path says them.

    >>> path_parts("model.layers.3.self_attn.q_proj")
    (3, 'q_proj', None)
    >>> path_parts("model.layers.3.mlp.experts.7.gate_proj")
    (3, 'gate_proj', 7)
    """
    layers = _LAYER.search(path)
    number = layers[1] if layers else next((part for part in path.split(".") if part.isdecimal()), None)
    expert = _EXPERT.search(path)
    names = [part for part in path.split(".") if not part.isdecimal()]
    return layer_number(number), names[-1] if names else path, layer_number(expert[1] if expert else None)


def layer_number(digits: str | None) -> int | None:
    """Return the number of a layer or of an expert, None where the path gives none that a model can have."""
    # No model has a layer of more digits; a number of hundreds fits into no result.
    return int(digits) if digits is not None and len(digits) <= 9 else None


def block(path: str) -> str:
    """Return the path up to and including its layer number: what the modules of one layer share.

    >>> block("model.layers.3.self_attn.q_proj")
    'model.layers.3'
    """
    found = _LAYER.search(path)
    if found:
        return path[: found.end(1)]
    parts = path.split(".")
    number = next((i for i, part in enumerate(parts) if part.isdecimal()), None)
    return path if number is None else ".".join(parts[: number + 1])


def natural_key(path: str) -> tuple[tuple[int, int, str], ...]:
    """Return a sort key that puts layer 2 before layer 10: the order of modules in the model."""
    parts = _DIGITS.split(path)
    return tuple((0, int(part), "") if i % 2 else (1, 0, part) for i, part in enumerate(parts))
