"""What a rule can count, besides comparing an index: modules, tensors and files. One record a condition.

A record carries all that anyone knows of its condition: its id in reports for machines, how it counts, and what to tell
of it. To add one, see CONTRIBUTING.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from s3lora.gate import counting
from s3lora.gate.counting import KINDS, Asked


@dataclass(frozen=True, slots=True)
class Condition:
    """One thing that is counted.

    `id` never changes. `counted` gives the names of what is counted: paths of modules or files, names of tensors.
    `named` tells whether a finding names them; where a report shows them anyway, it need not. `why` adds what is known
    of them. With any rule given, an adapter for which a `standing` condition holds fails as well, unless it is allowed.
    `strict` is part of the rule of that name. The rest is what SARIF says of it; `severity`, from 0 to 10, is
    given only where the file can make a loader do something else than was measured.
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
    why: Callable[[Asked], str] = lambda asked: ""
    standing: bool = False
    strict: bool = True
    severity: float | None = None


#: Name → condition.
CONDITIONS: dict[str, Condition] = {}


def add(condition: Condition) -> None:
    """Make a condition known; raise ValueError if its name or its id is taken."""
    if any(condition.name == one.name or condition.id == one.id for one in CONDITIONS.values()):
        raise ValueError(f"the condition {condition.name} ({condition.id}) is there already")
    CONDITIONS[condition.name] = condition


def strict() -> tuple[str, ...]:
    """Return the conditions that `--fail-on strict` stands for."""
    return tuple(name for name, condition in CONDITIONS.items() if condition.strict)


NO_VERDICT = (
    "A rule compares a number with a limit that you chose. There is no limit that separates good from bad: the values "
    "depend on rank, data and training, and adapters trained on harmless data have sharp modules too. Compare an "
    "adapter with others of its recipe."
)
_ALLOW = "If your team accepts it, write `--allow {name}`, or `allow` in a policy with the reason."
add(
    Condition(
        "selected",
        "S3L002",
        counting.selected,
        "ModulesSelected",
        "The number of modules that a selection rule chooses meets a limit.",
        "The selection rule of the scan (--top, --fraction, --threshold or --rule) chooses so many modules of the "
        "adapter that a --fail-on rule holds.",
        f"{NO_VERDICT} `s3lora prune` with the same options writes the adapter without the modules that are chosen.",
        named=False,
        strict=False,
    )
)
add(
    Condition(
        "outliers",
        "S3L003",
        counting.outliers,
        "OutlierModules",
        "The number of modules that are outliers of their projection meets a limit.",
        "So many modules have an index whose robust z-score within their projection exceeds --z that a --fail-on rule "
        "holds.",
        f"{NO_VERDICT} An outlier differs from modules of the same kind in the same adapter; compare checkpoints with "
        "`s3lora compare` to see when it came.",
        named=False,
        strict=False,
    )
)
add(
    Condition(
        "nonfinite",
        "S3L004",
        counting.nonfinite,
        "NonFiniteValues",
        "Tensors hold NaN or infinity, or a product overflows.",
        "A tensor of the file, whether it belongs to a LoRA module or not, is not finite or beyond float32, or "
        "the update of a module is larger than float16 (for a float16 file) or float32 can say, so that a model with "
        "this adapter computes NaN.",
        "The training diverged, or the file is damaged. Fetch the file again or go back to an earlier checkpoint.",
        "error",
        why=counting.why_nonfinite,
    )
)
add(
    Condition(
        "zero-updates",
        "S3L005",
        counting.zero,
        "ZeroUpdates",
        "The number of modules whose update is zero meets a limit.",
        "So many modules change nothing, because B = 0 or B·A cancels, that a --fail-on rule holds. They were never "
        "trained, or were pruned by zeroing.",
        "Look whether the training reached these modules: a wrong list of target modules, or frozen factors, leave B "
        "at zero. An adapter that was pruned with --mode zero has such modules on purpose.",
        named=False,
        strict=False,
    )
)
add(
    Condition(
        "no-signal",
        "S3L018",
        counting.no_signal,
        "NoTrainingSignal",
        "The updates are as blunt as random ones.",
        "The median energy of the modules is hardly above that of random updates of their shapes and ranks: nothing "
        "tells that the adapter was trained.",
        "Ask what it was trained for, and look whether it changes answers at all. A short training with a small rate "
        "looks the same.",
        named=False,
        why=counting.why_no_signal,
        strict=False,
    )
)
add(
    Condition(
        "unmeasured",
        "S3L006",
        counting.unmeasured,
        "UnmeasuredTensors",
        "The file holds tensors that a loader applies and that no index has seen.",
        "Heads, trained tokens, biases, DoRA magnitudes, whole weights, or tensors of no known kind: they change the "
        "model, and the spectral indices say nothing of them.",
        "Look at them in the inventory of `s3lora scan`. What a team accepts is allowed by its kind: "
        f"{', '.join(f'`--allow {name}`' for name in KINDS)}, or `allow` in a policy with the reason.",
        standing=True,
        why=counting.why_unmeasured,
        severity=4.0,
    )
)
add(
    Condition(
        "base-weights",
        "S3L007",
        counting.base_weights,
        "BaseWeightsOverwritten",
        "The adapter replaces or changes weights of the base model.",
        "PEFT and MLX read whatever name of the model the file holds: a norm, a projection, `….base_layer.weight`. No "
        "index has seen these weights, and they replace what the base model was trained to be. PEFT also changes the "
        "base model where the configuration says so: `init_lora_weights` of PiSSA and its kin, `layer_replication`.",
        "`s3lora prune --drop other` writes the adapter without them. " + _ALLOW.format(name="base-weights"),
        "error",
        standing=True,
        why=counting.why_base_weights,
        severity=5.0,
    )
)
add(
    Condition(
        "bias",
        "S3L008",
        counting.counted_kind("bias"),
        "TrainedBias",
        "The file holds trained biases.",
        "A bias is added to the output of its layer whatever the input is. No index has seen it.",
        "`s3lora prune --drop bias` writes the adapter without them. " + _ALLOW.format(name="bias"),
        why=counting.why_kind("bias"),
    )
)
add(
    Condition(
        "heads",
        "S3L009",
        counting.counted_kind("heads"),
        "TrainedHeads",
        "The file holds layers that were trained in full.",
        "`modules_to_save`, such as the head of a classifier, embeddings or `lm_head`: they take the place of the base "
        "model's. No index has seen them.",
        "A classifier needs its head. `s3lora prune --drop heads` writes the adapter without. "
        + _ALLOW.format(name="heads"),
        why=counting.why_kind("heads"),
    )
)
add(
    Condition(
        "tokens",
        "S3L010",
        counting.counted_kind("tokens"),
        "TrainedTokens",
        "The file holds trained embeddings of some tokens.",
        "They take the place of the base model's embeddings of these tokens. No index has seen them.",
        "`s3lora prune --drop tokens` writes the adapter without them. " + _ALLOW.format(name="tokens"),
        why=counting.why_kind("tokens"),
    )
)
add(
    Condition(
        "other-weights",
        "S3L011",
        counting.other_weights,
        "OtherWeights",
        "The folder holds weights of other content than those that were measured.",
        "A loader may take another file of the folder than the one that was measured; what was measured says nothing "
        "of it.",
        "Remove what does not belong to the adapter, or scan the other file by its own path. "
        + _ALLOW.format(name="other-weights"),
        "error",
        why=counting.why_other_weights,
        standing=True,
        severity=5.0,
    )
)
add(
    Condition(
        "code",
        "S3L012",
        counting.code,
        "CodeBesideWeights",
        "The folder holds code, or something that makes a program run code.",
        "Python files, references to classes to import (`auto_map`), or a chat template that reaches for attributes "
        "which lead out of its sandbox. None of it was run here.",
        "An adapter needs no code. `s3lora convert`, to its own format, writes the same updates without. "
        + _ALLOW.format(name="code"),
        why=counting.why_code,
        severity=8.0,
    )
)
add(
    Condition(
        "pickles",
        "S3L013",
        counting.pickles,
        "PicklesBesideWeights",
        "The folder holds pickles that are no weights.",
        "Loading a pickle calls what it names. They were read as data here, and nothing was called.",
        "An adapter needs no pickles; `training_args.bin` is left over from the training. `s3lora convert`, "
        "to its own format, writes the same updates without. " + _ALLOW.format(name="pickles"),
        why=counting.why_pickles,
        severity=7.0,
    )
)
add(
    Condition(
        "dead-modules",
        "S3L014",
        counting.dead,
        "ModulesNotApplied",
        "The file holds modules that PEFT does not apply.",
        "Keys with the prefix of a wrapper or another adapter's name, modules that the configuration does not target, "
        "empty tensors, or one rank's slice: PEFT goes on without them, or stops. Or it adds what the file lacks, such "
        "as DoRA's magnitudes. What was measured is not what would be loaded.",
        "The message names the cause and what mends it. " + _ALLOW.format(name="dead-modules"),
        "error",
        why=counting.why_dead,
        standing=True,
    )
)
add(
    Condition(
        "ambiguous",
        "S3L015",
        counting.ambiguous,
        "AmbiguousContent",
        "What loaders take of the folder cannot be told.",
        "The folder holds more files than are listed, or the configuration an expression that is not tried. What was "
        "measured may not be what is loaded.",
        "The message says what to do. " + _ALLOW.format(name="ambiguous"),
        "error",
        why=counting.why_ambiguous,
        standing=True,
        severity=5.0,
    )
)
