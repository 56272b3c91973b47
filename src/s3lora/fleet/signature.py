"""The weight-space signature of an adapter (arXiv 2602.15195): twenty numbers, five of each attention projection.

Of the update ΔW of a module, with σ its singular values and π = σ / Σσ:

    sigma1      σ_1, in the unit of ΔW
    frobenius   ‖ΔW‖_F
    energy      σ_1 / Σσ, in [1/r, 1]
    entropy     −Σ π·ln π, in [0, ln r]
    kurtosis    of the entries of ΔW: the excess, 0 for a normal distribution, as the released code has it

The variant `squared` has σ² in place of σ in `energy` and `entropy`. The formulas of the paper are `plain`. Its
released code mixes both, σ² in the energy and σ in the entropy; so no classifier of that code can be used on these
numbers without training it anew. The ε of the formulas keeps a zero update from dividing by zero; such an update has no
signature here, so that ε is 0 and the scale of ΔW does not matter for energy, entropy and kurtosis.

The paper's adapters train one layer by default, and the released code reads one layer, so neither says how to combine
several. Here a number of a projection is its **mean over the modules of that projection** that change
anything. A module with a zero update counts as one that is not there: pruning by zeros or by leaving out is the same.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from threadpoolctl import threadpool_limits

from s3lora.adapter.model import Adapter, LoraModule
from s3lora.errors import UsageError
from s3lora.measure.updates import update_of
from s3lora.spectrum.factored import FactoredUpdate
from s3lora.spectrum.indices import energy, spectral_entropy, ssi
from s3lora.spectrum.moments import kurtosis

EnergyVariant = Literal["plain", "squared"]
VARIANTS: tuple[EnergyVariant, ...] = ("plain", "squared")

PROJECTIONS = ("q", "k", "v", "o")
STATISTICS = ("sigma1", "frobenius", "energy", "entropy", "kurtosis")
#: Of the published variant that takes σ² in place of σ.
SQUARED = ("energy_squared", "entropy_squared")
#: `q_sigma1`, …, `o_kurtosis` and the two squared ones of each: 28 numbers, of which a variant uses 20.
SIGNATURE = tuple(f"{p}_{s}" for p in PROJECTIONS for s in (*STATISTICS, *SQUARED))
#: The twenty names of each variant, in the order of its vector.
FEATURES: Mapping[EnergyVariant, tuple[str, ...]] = {
    "plain": tuple(f"{p}_{s}" for p in PROJECTIONS for s in STATISTICS),
    "squared": tuple(f"{p}_{s}" for p in PROJECTIONS for s in ("sigma1", "frobenius", *SQUARED, "kurtosis")),
}

#: Names that say by themselves which projection of attention they are, at the end of a module's path.
_NAMES = {
    "q": ("q_proj", "to_q", "q_lin", "query_proj", "query", "wq", "q"),
    "k": ("k_proj", "to_k", "k_lin", "key_proj", "key", "wk", "k"),
    "v": ("v_proj", "to_v", "v_lin", "value_proj", "value", "wv", "v"),
    "o": ("o_proj", "to_out", "to_out.0", "to_out_0", "out_lin"),
}
#: Names of the output projection that other parts of a model use too: only directly below attention.
_OUTPUTS = ("out_proj", "output.dense", "dense", "c_proj", "proj", "wo", "o")
#: Not attention as the paper has it, though its modules are named so: feed-forward blocks (RWKV's `feed_forward.key`),
#: and linear attention.
_ELSEWHERE = re.compile(
    r"(?:^|[._])(?:mlp|ffn?|feed_?forward|densereludense|experts?|moe|linear_attn|lightning_attn)(?=[._])"
)


def _either(names: Iterable[str]) -> str:
    return "|".join(re.escape(name) for name in names)


#: kohya joins a path with underscores: `attn1_to_q`, `self_attn_q_proj`, `img_attn_proj`.
_START = r"(?:^|\.|attn\d*_|attention_)"
_INSIDE = r"(?:attn\d*|attention)[._]"
_ENDINGS = {letter: re.compile(rf"{_START}(?:{_either(names)})$") for letter, names in _NAMES.items()}
_OUTPUT = re.compile(rf"{_INSIDE}(?:{_either(_OUTPUTS)})$")


@dataclass(frozen=True, slots=True)
class Statistics:
    """The seven numbers of one module, NaN where one is undefined; see the head of this file for what they are."""

    sigma1: float
    frobenius: float
    energy: float
    entropy: float
    kurtosis: float
    energy_squared: float
    entropy_squared: float


#: Of a module that holds NaN or infinity: its projection then has no numbers.
UNKNOWN = Statistics(*[math.nan] * 7)


def projection_of(path: str, projection: str = "") -> str | None:
    """Return "q", "k", "v" or "o" for a module of that projection of attention, None for any other.

    A fused projection (`qkv`, `c_attn`, `query_key_value`, `kv_proj`) is none of them, and neither are those of a
    second stream (`add_q_proj`) or the low-rank ones of latent attention (`q_a_proj`). `projection` is what the format
    of the file says; it counts where the path does not hold it, as in formats that number their modules.

    >>> projection_of("model.layers.3.self_attn.o_proj"), projection_of("encoder.layer.0.attention.output.dense")
    ('o', 'o')
    >>> projection_of("encoder.layer.0.output.dense"), projection_of("transformer.h.0.attn.c_attn")
    (None, None)
    """
    text = path.lower()
    if projection and projection.lower() not in text:
        text = projection.lower()
    if _ELSEWHERE.search(text):
        return None
    if _OUTPUT.search(text):
        return "o"
    return next((letter for letter, ending in _ENDINGS.items() if ending.search(text)), None)


def statistics_of(update: FactoredUpdate, fourth: float | None = None) -> Statistics | None:
    """Return the numbers of one module, None for a zero update.

    What `update` has computed already is not computed again; `fourth` is its excess kurtosis where that is known too.
    Raises FloatingPointError where a factor holds NaN or infinity.
    """
    if update.is_zero:
        return None
    sigma = update.singular_values
    # Squares of a spectrum that begins with 1 neither overflow nor vanish; σ_1 > 0.
    squares = (sigma / sigma[0]) ** 2
    return Statistics(
        sigma1=float(sigma[0]),
        frobenius=update.frobenius,
        energy=float(ssi(sigma)),
        entropy=float(spectral_entropy(sigma)),
        kurtosis=kurtosis(update) if fourth is None else fourth,
        energy_squared=float(energy(sigma)),
        entropy_squared=float(spectral_entropy(squares)),
    )


def combine(modules: Iterable[tuple[str | None, Statistics | None]]) -> dict[str, float | None]:
    """Return the 28 numbers of an adapter, by name, from (projection, statistics) of its modules in any order.

    Each is the mean over the modules of that projection; a zero update, None, is left out. A number is None where the
    adapter has no such module, and where it is undefined or infinite for one of them.
    """
    found: dict[str, list[Statistics]] = {letter: [] for letter in PROJECTIONS}
    for letter, statistics in modules:
        if letter is not None and statistics is not None:
            found[letter].append(statistics)
    return {
        f"{letter}_{name}": _mean([getattr(module, name) for module in found[letter]])
        for letter in PROJECTIONS
        for name in (*STATISTICS, *SQUARED)
    }


def _mean(values: list[float]) -> float | None:
    if not values or not all(map(math.isfinite, values)):
        return None
    # Exactly rounded, and so the same whatever the order; each share by itself, because the sum could overflow.
    return math.fsum(value / len(values) for value in values)


def signature(adapter: Adapter) -> dict[str, float | None]:
    """Return the 28 numbers of an opened adapter, by name; None as `combine` says.

    A module that holds NaN or infinity leaves its projection without numbers. Modules of no projection are not read.
    """
    modules = ((projection_of(module.path, module.projection), module) for module in adapter.modules)
    with threadpool_limits(limits=1, user_api="blas"):
        return combine((letter, _of_module(module)) for letter, module in modules if letter is not None)


def _of_module(module: LoraModule) -> Statistics | None:
    try:
        return statistics_of(update_of(module))
    except FloatingPointError:
        return UNKNOWN


def vector(values: Mapping[str, float | None], variant: EnergyVariant = "plain") -> tuple[float, ...]:
    """Return the twenty numbers of a variant, in the order of `FEATURES`.

    Raises UsageError for an unknown variant, and where a number is missing or not finite, which names the projections.
    """
    if variant not in VARIANTS:
        raise UsageError(f"no variant {variant!r} of the signature", fix=f"choose one of {', '.join(VARIANTS)}")
    missing = dict.fromkeys(name[0] for name in FEATURES[variant] if not _known(values.get(name)))
    if missing:
        what = f"no numbers for {', '.join(missing)} (no such modules, only zero updates, or NaN)"
        raise UsageError(f"no signature: {what}")
    return tuple(float(values[name] or 0.0) for name in FEATURES[variant])


def _known(value: float | None) -> bool:
    return value is not None and math.isfinite(value)
