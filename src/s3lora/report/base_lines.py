"""What an adapter is beside the weights of its base, in a few lines for people."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from s3lora.errors import printable
from s3lora.measure.against_base import ModuleAgainstBase, WeightDelta
from s3lora.measure.scan import Scan
from s3lora.report.compare_view import number
from s3lora.report.names import tail

Named = TypeVar("Named")
#: Modules and weights that a line names, and the columns that a name gets.
_NAMED, _NAME = 3, 56


def base_lines(scan: Scan) -> Iterator[tuple[str, str]]:
    """Yield a label and a text for each thing that the base weights tell."""
    base = scan.base
    if base is None:
        return
    sized = sorted((one for one in base.modules if one.relative), key=lambda one: -(one.relative or 0.0))
    if sized:
        middle = sorted(one.relative or 0.0 for one in sized)[len(sized) // 2]
        text = f"‖ΔW‖ is {number(middle)} of ‖W‖ in the middle module, at most {number(sized[0].relative)}"
        yield "beside base", f"{text}: {_some(sized, _relative)}"
    whole = [module for module in scan.modules if module.dense]
    if whole:
        error = max(module.sigma_error for module in whole)
        bound = f"σ up to {_share(error)} too small, if at all" if error else "all σ exact"
        yield "exact ΔW", f"{len(whole)} of {len(scan.modules)} modules as whole matrices, by the base weights; {bound}"
    counted = [one for one in base.modules if one.intruders is not None]
    if counted:
        yield "intruders", _intruders(counted, base.epsilon or 0.0)
    known = sorted((one for one in base.weights if not one.note), key=lambda one: -(one.relative or 0.0))
    if known:
        yield "full weights", f"{_counted(known)} beside the base's: {_some(known, _weight)}"
    odd = [one for one in base.weights if one.note]
    if odd:
        yield (
            "full weights",
            f"{_counted(odd)} not compared: {_some(odd, lambda one: f'{_name(one.name)} ({one.note})')}",
        )


def _intruders(counted: Sequence[ModuleAgainstBase], epsilon: float) -> str:
    total = sum(one.intruders or 0 for one in counted)
    of = sum(one.directions or 0 for one in counted)
    having = sorted((one for one in counted if one.intruders), key=lambda one: -(one.intruders or 0))
    text = (
        f"{total} of the {of} largest directions of W + ΔW ({total / of:.1%}) without a cosine of {epsilon:g} with any"
    )
    least = min(one.compared or 0 for one in counted)
    text += " direction of W" if all(one.complete for one in counted) else f" of the {least} largest of W"
    return f"{text}: {_some(having, _intruder)}" if having else text


def _intruder(one: ModuleAgainstBase) -> str:
    return f"{_name(one.path)} ({one.intruders})"


def _relative(one: ModuleAgainstBase) -> str:
    return f"{_name(one.path)} ({number(one.relative)})"


def _weight(one: WeightDelta) -> str:
    rank = f", stable rank {number(one.stable_rank)}" if one.stable_rank is not None else ""
    return f"{_name(one.name)} (‖Δ‖/‖W‖ {number(one.relative)}{rank})"


def _some(found: Sequence[Named], told: Callable[[Named], str]) -> str:
    more = f" and {len(found) - _NAMED:,} more" if len(found) > _NAMED else ""
    return ", ".join(told(one) for one in found[:_NAMED]) + more


def _name(name: str) -> str:
    return tail(printable(name), _NAME)


def _counted(found: Sequence[object]) -> str:
    return f"{len(found):,} weight{'' if len(found) == 1 else 's'}"


def _share(error: float) -> str:
    return f"{error:.2g} of the largest" if error >= 1e-12 else "nothing"
