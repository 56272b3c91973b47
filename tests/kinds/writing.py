"""What commands that write an adapter make of a kind, held against its dense updates."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial

import numpy as np

from s3lora.rewrite.convert.converting import BY_BASE
from tests.kinds.bench import Array, Bench, Cell, Column, Updates, WrongError, call, close, same, unmatched, updates_of
from tests.kinds.reading import told

ONE = ("--top", "1", "--force-flat", "--format", "json")


def clipped(update: Array) -> Array:
    """Return the update whose first singular value is lowered to the second."""
    u, sizes, v = np.linalg.svd(update, full_matrices=False)
    return np.asarray((u * np.minimum(sizes, sizes[1])) @ v)


CHANGES: dict[str, Callable[[Array], Array]] = {
    "zero": lambda one: one * 0,
    "clip": clipped,
    "scale": lambda one: one / 2,
}


def prune(bench: Bench, mode: str) -> Cell:
    out = bench.new(f"pruned-{mode}")
    status, printed, err = call("prune", bench.first, *bench.kind.options, "-o", out, "--mode", mode, *ONE)
    if status:
        return told(bench, status, err)
    document = json.loads(printed)
    count = len(document["plan"]["chosen"])
    left = updates_of(out)
    wrong, missing = unmatched(left, bench.updates)
    if len(missing) != count:
        raise WrongError(f"{len(missing)} updates are changed, and {count} were to be")
    if mode == "remove":
        if not wrong:
            return Cell("yes")
        if any(one.any() for one in wrong) or len(wrong) != count:
            raise WrongError("removed modules are neither gone nor zero")
        return Cell("partly", "stays as zeros", next(iter(document["warnings"]), ""))
    same(wrong, [CHANGES[mode](one) for one in missing], 1e-4)
    return Cell("yes")


def restore(bench: Bench) -> Cell:
    pruned = bench.folder / "pruned-remove"
    if not pruned.exists():
        return Cell("none", "not pruned")
    out = bench.new("restored")
    status, _, err = call("restore", pruned, "--from", bench.first, *bench.kind.options, "-o", out)
    if status:
        return told(bench, status, err)
    options = bench.kind.options if bench.kind.options and not (bench.first / "first").is_dir() else ()
    same(updates_of(out, *options), updates_of(bench.first, *bench.kind.options), 1e-12)
    return Cell("yes")


def resize(bench: Bench) -> Cell:
    out = bench.new("resized")
    status, _, err = call("resize", bench.first, *bench.kind.options, "--rank", "1", "-o", out)
    if status:
        return told(bench, status, err)
    wanted = []
    for update in bench.updates:
        u, sizes, v = np.linalg.svd(update, full_matrices=False)
        wanted.append(np.asarray(sizes[0] * np.outer(u[:, 0], v[0])))
    same(updates_of(out), wanted, 1e-4)
    return Cell("yes")


def compose(bench: Bench) -> Cell:
    out = bench.new("sum")
    status, _, err = call("compose", bench.first, bench.second, *bench.kind.options, "-o", out)
    if status:
        return told(bench, status, err)
    same(updates_of(out), [a + b for a, b in zip(bench.updates, bench.others, strict=True)])
    return Cell("yes")


def convert(bench: Bench, to: str) -> Cell:
    given = (bench.first, *bench.kind.options, "--to", to, *(("--base", bench.base) if to in BY_BASE else ()))
    refused: Cell | None = None
    for drop in ((), ("--drop", "all")):
        out = bench.new(f"to-{to}")
        status, _, err = call("convert", *given, *drop, "-o", out)
        if status == 0:
            same(*apart(updates_of(out), bench.updates))
            return Cell("yes") if refused is None else Cell("partly", "with `--drop all`", refused.said)
        refused = told(bench, status, err)
    assert refused is not None
    return refused


def apart(found: Updates, wanted: Updates) -> tuple[Updates, Updates]:
    """Return both, but for updates of gate and up in one that are found as two: the first half of rows is gate's."""
    left, missing = unmatched(found, wanted)
    for whole in missing:
        halves = [half for half in np.split(whole, 2) if any(close(half, one) for one in left)]
        if len(halves) == 2:
            wanted = [one for one in wanted if one is not whole] + halves
    return found, wanted


COLUMNS: dict[str, Column] = {
    "`prune`": partial(prune, mode="remove"),
    **{f"`prune --mode {mode}`": partial(prune, mode=mode) for mode in CHANGES},
    "`restore`": restore,
    "`resize`": resize,
    "`compose -o`": compose,
    **{f"`convert --to {to}`": partial(convert, to=to) for to in ("peft", "diffusers", "kohya", "mlx", "gguf")},
}
