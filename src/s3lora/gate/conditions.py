"""What a rule can count, besides comparing an index: modules, tensors and files. One record a condition.

A record carries all that anyone knows of its condition: its id in reports for machines, how it counts, and what to tell
of it. To add one, write a record and name it in `CONDITIONS`.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from s3lora.adapter.inventory.model import Inventory, InventoryTensor
from s3lora.choose.rules import Outlier
from s3lora.choose.select import Filter, Plan, select
from s3lora.errors import UsageError, printable
from s3lora.measure.scan import ModuleScan, Scan
from s3lora.spectrum.indices import INDICES


@dataclass(frozen=True, slots=True)
class Asked:
    """What a condition is asked of.

    `plan` was chosen with the filter `only`, None where there was nothing to choose; `outlier` is what counts as one.
    `told` names the conditions that other rules tell of or that are allowed: `unmeasured` leaves these to them.
    """

    scan: Scan
    plan: Plan | None = None
    only: Filter = field(default_factory=Filter)
    outlier: Outlier = field(default_factory=Outlier)
    told: frozenset[str] = frozenset()

    @property
    def modules(self) -> list[ModuleScan]:
        """Return the modules that the filter lets pass."""
        return self.only.allowed(self.scan.modules)

    @property
    def inventory(self) -> Inventory:
        """Return what is in the adapter."""
        return self.scan.inventory


def _why_none(asked: Asked) -> str:
    return ""


@dataclass(frozen=True, slots=True)
class Condition:
    """One thing that is counted.

    `id` never changes. `counted` gives the names of what is counted: paths of modules or files, names of tensors.
    `named` tells whether a finding names them; where a report shows them anyway, it need not. `why` adds what is known
    of them. With any rule given, an adapter for which a `standing` condition holds fails as well, unless it is allowed.
    `strict` is part of the rule of that name. The rest is what SARIF says of it.
    """

    name: str
    id: str
    counted: Callable[[Asked], tuple[str, ...]]
    title: str
    short: str
    full: str
    help: str
    level: str = "warning"
    named: bool = True
    why: Callable[[Asked], str] = _why_none
    standing: bool = False
    strict: bool = True


def _selected(asked: Asked) -> tuple[str, ...]:
    return () if asked.plan is None else asked.plan.paths


def _outliers(asked: Asked) -> tuple[str, ...]:
    if asked.plan is None:
        return ()
    index = asked.plan.index if asked.plan.index in INDICES else "ssi"
    return select(asked.scan, asked.outlier, index=index, only=asked.only).paths


def _zero(asked: Asked) -> tuple[str, ...]:
    return tuple(module.path for module in asked.modules if module.zero)


def _nonfinite(asked: Asked) -> tuple[str, ...]:
    modules = [module.path for module in asked.modules if module.nonfinite or module.overflows]
    tensors = (one for one in asked.inventory.tensors if one.finite is False and one.role != "factor")
    return (*modules, *(one.name for one in tensors))


def _why_nonfinite(asked: Asked) -> str:
    over = sum(module.overflows for module in asked.modules)
    return f"{over} of them finite factors whose product overflows" if over else ""


#: Name → tensors that a loader applies and of which no index says anything.
KINDS: Mapping[str, Callable[[InventoryTensor], bool]] = {
    "heads": lambda tensor: tensor.role == "head",
    "tokens": lambda tensor: tensor.role == "tokens",
    "bias": lambda tensor: tensor.role == "bias",
    "dora": lambda tensor: tensor.rescales,
    "base-weights": lambda tensor: tensor.role == "base weight",
    "unknown": lambda tensor: tensor.role == "unknown",
}


def of_kind(name: str, asked: Asked) -> tuple[str, ...]:
    """Return the names of the tensors of one of `KINDS`."""
    return tuple(tensor.name for tensor in asked.inventory.tensors if KINDS[name](tensor))


def _counting(kind: str) -> Callable[[Asked], tuple[str, ...]]:
    return lambda asked: of_kind(kind, asked)


def _unmeasured(asked: Asked) -> tuple[str, ...]:
    kinds = [is_kind for name, is_kind in KINDS.items() if name not in asked.told]
    return tuple(tensor.name for tensor in asked.inventory.tensors if any(is_kind(tensor) for is_kind in kinds))


def _other_weights(asked: Asked) -> tuple[str, ...]:
    taken = (file for loader in asked.inventory.loaders if not loader.measured for file in loader.files)
    return tuple(dict.fromkeys((*(file.path for file in asked.inventory.other_weights), *taken)))


def _why_other_weights(asked: Asked) -> str:
    loaders = [one for one in asked.inventory.loaders if one.files and not one.measured]
    return "; ".join(f"{one.loader} would take {', '.join(one.files[:3])}" for one in loaders)


def _code(asked: Asked) -> tuple[str, ...]:
    return tuple(file.path for file in asked.inventory.code)


def _pickles(asked: Asked) -> tuple[str, ...]:
    return tuple(file.path for file in asked.inventory.pickles)


def _why_runs(asked: Asked) -> str:
    files = [file for file in asked.inventory.files if file.runs]
    return "; ".join(f"{file.path}: {', '.join(file.runs[:3])}" for file in files[:3])


def _dead(asked: Asked) -> tuple[str, ...]:
    return asked.inventory.dead


def _why_dead(asked: Asked) -> str:
    return "; ".join(f"{one.cause}; {one.remedy}" for one in asked.inventory.unapplied if one.dead)


def _ambiguous(asked: Asked) -> tuple[str, ...]:
    unlisted = asked.inventory.unlisted
    return (f"{unlisted} files beyond those that are listed",) if unlisted else ()


NO_VERDICT = (
    "A rule compares a number with a limit that you chose. There is no limit that separates good from bad: the values "
    "depend on rank, data and training, and adapters trained on harmless data have sharp modules too. Compare an "
    "adapter with others of its recipe."
)
_ALLOW = "If your team accepts it, write `--allow {name}`, or `allow` in a policy with the reason."
_ALL = (
    Condition(
        "selected",
        "S3L002",
        _selected,
        "ModulesSelected",
        "The number of modules that a selection rule chooses meets a limit.",
        "The selection rule of the scan (--top, --fraction, --threshold or --rule) chooses so many modules of the "
        "adapter that a --fail-on rule holds.",
        f"{NO_VERDICT} `s3lora prune` with the same options writes the adapter without the modules that are chosen.",
        named=False,
        strict=False,
    ),
    Condition(
        "outliers",
        "S3L003",
        _outliers,
        "OutlierModules",
        "The number of modules that are outliers of their projection meets a limit.",
        "So many modules have an index whose robust z-score within their projection exceeds --z that a --fail-on rule "
        "holds.",
        f"{NO_VERDICT} An outlier differs from modules of the same kind in the same adapter; compare checkpoints with "
        "`s3lora compare` to see when it came.",
        named=False,
        strict=False,
    ),
    Condition(
        "nonfinite",
        "S3L004",
        _nonfinite,
        "NonFiniteValues",
        "Tensors hold NaN or infinity, or a product overflows.",
        "A tensor of the file, whether it belongs to a LoRA module or not, is not finite, or the update of a module is "
        "larger than float16 (for a float16 file) or float32 can say, so that a model with this adapter computes NaN.",
        "The training diverged, or the file is damaged. Fetch the file again or go back to an earlier checkpoint.",
        "error",
        why=_why_nonfinite,
    ),
    Condition(
        "zero_updates",
        "S3L005",
        _zero,
        "ZeroUpdates",
        "The number of modules whose update is zero meets a limit.",
        "So many modules change nothing, because B = 0 or B·A cancels, that a --fail-on rule holds. They were never "
        "trained, or were pruned by zeroing.",
        "Look whether the training reached these modules: a wrong list of target modules, or frozen factors, leave B "
        "at zero. An adapter that was pruned with --mode zero has such modules on purpose.",
        named=False,
        strict=False,
    ),
    Condition(
        "unmeasured",
        "S3L006",
        _unmeasured,
        "UnmeasuredTensors",
        "The file holds tensors that a loader applies and that no index has seen.",
        "Heads, trained tokens, biases, DoRA magnitudes, whole weights, or tensors of no known kind: they change the "
        "model, and the spectral indices say nothing of them.",
        "Look at them in the inventory of `s3lora scan`. What a team accepts is allowed by its kind: "
        f"{', '.join(f'`--allow {name}`' for name in KINDS)}, or `allow` in a policy with the reason.",
        standing=True,
    ),
    Condition(
        "base-weights",
        "S3L007",
        _counting("base-weights"),
        "BaseWeightsOverwritten",
        "The file holds weights that take the place of weights of the base model.",
        "PEFT and MLX read whatever name of the model the file holds: a norm, a projection, `….base_layer.weight`. No "
        "index has seen these weights, and they replace what the base model was trained to be.",
        "`s3lora prune --drop other` writes the adapter without them. " + _ALLOW.format(name="base-weights"),
        "error",
        standing=True,
    ),
    Condition(
        "bias",
        "S3L008",
        _counting("bias"),
        "TrainedBias",
        "The file holds trained biases.",
        "A bias is added to the output of its layer whatever the input is. No index has seen it.",
        "`s3lora prune --drop bias` writes the adapter without them. " + _ALLOW.format(name="bias"),
    ),
    Condition(
        "heads",
        "S3L009",
        _counting("heads"),
        "TrainedHeads",
        "The file holds layers that were trained in full.",
        "`modules_to_save`, such as the head of a classifier, embeddings or `lm_head`: they take the place of the base "
        "model's. No index has seen them.",
        "A classifier needs its head. `s3lora prune --drop heads` writes the adapter without. "
        + _ALLOW.format(name="heads"),
    ),
    Condition(
        "tokens",
        "S3L010",
        _counting("tokens"),
        "TrainedTokens",
        "The file holds trained embeddings of some tokens.",
        "They take the place of the base model's embeddings of these tokens. No index has seen them.",
        "`s3lora prune --drop tokens` writes the adapter without them. " + _ALLOW.format(name="tokens"),
    ),
    Condition(
        "other-weights",
        "S3L011",
        _other_weights,
        "OtherWeights",
        "The folder holds weights of other content than those that were measured.",
        "A loader may take another file of the folder than the one that was measured; what was measured says nothing "
        "of it.",
        "Remove what does not belong to the adapter, or scan the other file by its own path. "
        + _ALLOW.format(name="other-weights"),
        "error",
        why=_why_other_weights,
        standing=True,
    ),
    Condition(
        "code",
        "S3L012",
        _code,
        "CodeBesideWeights",
        "The folder holds code, or something that makes a program run code.",
        "Python files, references to classes to import (`auto_map`), or a chat template that reaches for attributes "
        "which lead out of its sandbox. None of it was run here.",
        "An adapter needs no code. `s3lora prune` leaves it behind. " + _ALLOW.format(name="code"),
        why=_why_runs,
    ),
    Condition(
        "pickles",
        "S3L013",
        _pickles,
        "PicklesBesideWeights",
        "The folder holds pickles that are no weights.",
        "Loading a pickle calls what it names. They were read as data here, and nothing was called.",
        "An adapter needs no pickles; `training_args.bin` is left over from the training. `s3lora prune` leaves them "
        "behind. " + _ALLOW.format(name="pickles"),
        why=_why_runs,
    ),
    Condition(
        "dead-modules",
        "S3L014",
        _dead,
        "ModulesNotApplied",
        "The file holds modules that PEFT does not apply.",
        "Keys with the prefix of a wrapper, modules that the configuration does not target, empty tensors, or one "
        "rank's slice: PEFT goes on without them, or stops. What was measured is not what would be loaded.",
        "The message names the cause and what mends it. " + _ALLOW.format(name="dead-modules"),
        "error",
        why=_why_dead,
        standing=True,
    ),
    Condition(
        "ambiguous",
        "S3L015",
        _ambiguous,
        "AmbiguousContent",
        "The folder holds more files than are listed.",
        "What lies beyond the bound was not looked at, so that nothing can be said of it.",
        "Give the adapter a folder of its own. " + _ALLOW.format(name="ambiguous"),
        "error",
        standing=True,
    ),
)
CONDITIONS: dict[str, Condition] = {condition.name: condition for condition in _ALL}
#: What `--fail-on strict` stands for.
STRICT = tuple(name for name, condition in CONDITIONS.items() if condition.strict)
#: What can be allowed: conditions of the inventory, and kinds of tensors that `unmeasured` counts.
ALLOWED = tuple(dict.fromkeys((*(name for name in STRICT if name != "nonfinite"), *KINDS)))


def allowances(texts: Iterable[str]) -> dict[str, str]:
    """Return the reason of each name that is allowed; a text is `NAME` or `NAME: reason`.

    Raises UsageError for what cannot be allowed.

    >>> allowances(["heads: the classifier of our task", "bias"])
    {'heads': 'the classifier of our task', 'bias': ''}
    """
    found = {}
    for text in texts:
        name, _, reason = text.partition(":")
        name = name.strip().replace("_", "-")
        if name not in ALLOWED:
            near = difflib.get_close_matches(name, ALLOWED, 1)
            fix = f"did you mean {near[0]}?" if near else f"what can be allowed is {', '.join(ALLOWED)}"
            raise UsageError(f"nothing to allow is called {printable(name, 60)!r}", fix=fix)
        found[name] = reason.strip()
    return found
