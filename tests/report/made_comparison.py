"""Comparisons of adapters whose numbers are made up, without an adapter behind them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from s3lora.adapter.checkpoints import step_of
from s3lora.adapter.digest import FileDigest, Source
from s3lora.adapter.model import path_parts
from s3lora.measure.comparison import Comparison, ModuleComparison
from s3lora.measure.configuration import Configuration
from s3lora.measure.others import TensorComparison

#: The projections of a layer of an 8B model, with the shapes of their updates.
PROJECTIONS = {
    "self_attn.q_proj": (4096, 4096), "self_attn.k_proj": (1024, 4096), "self_attn.v_proj": (1024, 4096),
    "self_attn.o_proj": (4096, 4096), "mlp.gate_proj": (14336, 4096), "mlp.up_proj": (14336, 4096),
    "mlp.down_proj": (4096, 14336),
}  # fmt: skip


def source(name: str, i: int = 0) -> Source:
    digest = f"{i:x}" * 64
    file = FileDigest("adapter_model.safetensors", 1_000_000, digest[:64])
    return Source(name, "peft", digest[:64], (file,), "meta-llama/Llama-3.1-8B")


def module(
    path: str, sharp: Sequence[float | None], *, norms: Sequence[float | None] | None = None,
    ranks: Sequence[int | None] | None = None, shape: tuple[int, int] = (4096, 4096),
) -> ModuleComparison:  # fmt: skip
    """Return a module of these sharpnesses; one that is None is a zero update, unless its norm is None as well."""
    layer, projection, expert = path_parts(path)
    held = tuple(norms) if norms is not None else tuple(0.0 if value is None else 1 + value for value in sharp)
    rank = tuple(ranks) if ranks is not None else tuple(None if norm is None else 16 for norm in held)
    steps = [
        (None, None) if a is None or b is None or not a else (abs(b - a) / a + 0.1, 0.9 if b else None)
        for a, b in pairwise(held)
    ]
    ends = held[0], held[-1]
    net = None if ends[0] is None or ends[1] is None or not ends[0] else abs(ends[1] - ends[0]) / ends[0] + 0.2
    return ModuleComparison(
        path=path,
        layer=layer,
        projection=projection,
        expert=expert,
        shape=tuple(None if norm is None else shape for norm in held),
        rank=rank,
        ssi=tuple(sharp),
        normalised_ssi=tuple(
            None if value is None or not r or r == 1 else (value - 1 / r) / (1 - 1 / r)
            for value, r in zip(sharp, rank, strict=True)
        ),
        frobenius=held,
        distance=tuple(distance for distance, _ in steps),
        cosine=tuple(cosine for _, cosine in steps),
        net_distance=net,
        net_cosine=None if net is None or not ends[1] else 0.8,
    )


def tensor(name: str, *digests: str | None) -> TensorComparison:
    """Return a head with these digests, None where an adapter lacks it."""
    held = [digest is not None for digest in digests]
    return TensorComparison(
        name=name,
        role="head",
        shape=tuple((2, 64) if there else None for there in held),
        dtype=tuple("float32" if there else None for there in held),
        sha256=tuple(digests),
        largest=tuple(0.5 + i if there else None for i, there in enumerate(held)),
    )


def comparison(
    modules: Sequence[ModuleComparison], names: Sequence[str] | None = None, warnings: Sequence[str] = (),
    tensors: Sequence[TensorComparison] = (),
) -> Comparison:  # fmt: skip
    """Return a comparison of these modules; adapters without a name are checkpoints."""
    count = len(modules[0].shape)
    called = [f"checkpoint-{(i + 1) * 100}" for i in range(count)] if names is None else list(names)
    return Comparison(
        configuration=Configuration(),
        sources=tuple(source(name, i) for i, name in enumerate(called)),
        steps=tuple(map(step_of, called)),
        modules=tuple(modules),
        tensors=tuple(tensors),
        warnings=tuple(warnings),
    )


def sharpness(layer: int, projection: int, step: int) -> float:
    """Return a made-up SSI that rises with training, more in late layers and in some projections."""
    rise = 0.012 * step * (1 + layer / 16) * (1 + 0.6 * math.sin(projection * 1.9))
    return 0.14 + 0.02 * math.sin(layer * 2.7 + projection) + rise


def model(count: int, layers: int = 32) -> Comparison:
    """Return a comparison of `count` adapters of an 8B model: 224 modules."""
    return comparison(
        [
            module(f"model.layers.{layer}.{name}", [sharpness(layer, i, step) for step in range(count)], shape=shape)
            for layer in range(layers)
            for i, (name, shape) in enumerate(PROJECTIONS.items())
        ]
    )


def partial() -> Comparison:
    """Return a comparison of three in which modules are missing, zero, of other shapes, and without a layer."""
    path = "model.layers.{}.self_attn.{}_proj".format
    moved = module(path(1, "k"), (0.2, 0.3, 0.4))
    reshaped = ((8, 8), (8, 8), (8, 6))
    return comparison(
        [
            module(path(0, "q"), (0.2, 0.3, 0.45)),
            module(path(1, "q"), (0.25, 0.2, 0.15)),
            module(path(0, "v"), (None, 0.5, 0.6)),
            module(path(1, "v"), (0.4, 0.3, None)),
            module(path(2, "q"), (0.3, None, 0.5), norms=(1.0, None, 1.5)),
            module(path(2, "v"), (None, None, 0.5), norms=(None, None, 1.5)),
            module(path(3, "q"), (None, None, None)),
            ModuleComparison(
                **{name: getattr(moved, name) for name in moved.__slots__}
                | {"shape": reshaped, "net_distance": None, "net_cosine": None}
            ),
            module("lm_head", (0.1, 0.1, 0.2)),
        ],
        warnings=("all 3: one of the modules is a zero update",),
        tensors=(tensor("score.weight", "00", "00", "01"), tensor("norm.weight", "02", None, None)),
    )


def other_ranks() -> Comparison:
    """Return a pair of which the first has rank 2 and the second rank 8."""
    return comparison(
        [module(f"model.layers.{i}.attn.qkv", (0.55 + i / 100, 0.2 + i / 50), ranks=(2, 8)) for i in range(12)],
        ("rank-2", "rank-8"),
        ("12 of 12 modules change their rank",),
    )


def hostile(name: str, count: int = 3) -> Comparison:
    """Return a comparison with `name` in every place where a file can put one."""
    paths = [f"model.layers.{i}.{name}" for i in range(3)] + [f"{name}.layers.3", name]
    absent = module(f"{name}.only", [None] * (count - 1) + [0.5], norms=[None] * (count - 1) + [1.0])
    modules = [module(path, [0.2 + 0.1 * i for i in range(count)]) for path in dict.fromkeys(paths)]
    heads = tensor(name, *["00"] * count), tensor(f"{name}.x", *[None] * (count - 1), "01")
    return comparison([*modules, absent], [name] * count, (name, f"about {name}"), heads)
