"""A composition as CSV: sums, parts and pairs in one table, told apart by `kind`."""

from __future__ import annotations

from collections.abc import Sequence

from s3lora.measure.composition import Composition
from s3lora.measure.summing import ModuleComposition, ModuleUpdate
from s3lora.report.documents import to_csv
from s3lora.spectrum.indices import INDICES

_NAMES = [name for name, index in INDICES.items() if not index.costly]
_OVERLAPS = ["columns_largest", "columns_mean_square", "columns_chance"]
_OVERLAPS += [name.replace("columns", "rows") for name in _OVERLAPS]


def compose_csv(composition: Composition) -> str:
    """Return the rows of `compose_rows` as CSV."""
    return to_csv(compose_rows(composition))


def compose_rows(composition: Composition) -> list[Sequence[object]]:
    """Return the heads, and for each module a row for the sum, one for each adapter that has it, and one for each pair.

    `kind` is `together`, `alone` or `pair`; `adapter` and `other` are places among the sources, from 1, since names may
    be the same.
    """
    head = ["path", "layer", "projection", "expert", "m", "n", "kind", "adapter", "other", "name", "sha256", "weight"]
    rows: list[Sequence[object]] = [[*head, "rank", *_NAMES, "gain", "sharper", "cosine", *_OVERLAPS]]
    for module in composition.modules:
        place = [module.path, module.layer, module.projection, module.expert, *module.shape]
        for cells in (_together(module), *_alone(composition, module), *_pairs(module)):
            rows.append([*place, *cells])
    return rows


def _together(module: ModuleComposition) -> list[object]:
    verdict = [module.gain, module.sharper]
    return ["together", *[None] * 5, *_measured(module.together), *verdict, *[None] * (1 + len(_OVERLAPS))]


def _alone(composition: Composition, module: ModuleComposition) -> list[list[object]]:
    return [
        ["alone", i + 1, None, source.name, source.sha256, composition.weights[i], *_measured(module.alone[i])]
        + [None] * (3 + len(_OVERLAPS))
        for i, source in enumerate(composition.sources)
        if module.ranks[i] is not None
    ]


def _pairs(module: ModuleComposition) -> list[list[object]]:
    rows: list[list[object]] = []
    for one in module.alignments:
        sides = [number for side in (one.columns, one.rows) for number in (side.largest, side.mean_square, side.chance)]
        rows.append(["pair", *(i + 1 for i in one.pair), *[None] * (6 + len(_NAMES)), one.cosine, *sides])
    return rows


def _measured(update: ModuleUpdate | None) -> list[object]:
    """Return the numerical rank and the indices; of a zero update the rank is 0 and the indices are empty."""
    return [0, *[None] * len(_NAMES)] if update is None else [update.rank, *map(update.indices.get, _NAMES)]
