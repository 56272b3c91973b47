"""Kinds of adapters that are not read: what they are called, by their keys, so that none is taken for something else.

The names of parameters are those of PEFT 0.21.2 and LyCORIS 3.4.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from s3lora.errors import NothingToAuditError, S3LoRAError, UnsupportedAdapterError, printable

#: What s3lora reads, for a message.
LOOKED_FOR = (
    "looked for factors of LoRA (lora_A, lora_down, lora_a, …), AdaLoRA, VeRA, LoHa (hada_w1_a) and LoKr (lokr_w1)"
)
#: A part of a key → the kind of adapter that has it.
_LYCORIS = (
    (r"lora_mid", "LoCon with a Tucker core"),
    (r"boft_\w+", "BOFT"),
    (r"oft_\w+", "OFT"),
    (r"[ab][12]\.weight$", "GLoRA"),
    (r"on_input$|ia3_l", "IA³"),
)
_PEFT = (
    (r"hra_u", "HRA"),
    (r"(?:bone|miss)_\w+", "MiSS or BONE"),
    (r"fourierft_\w+", "FourierFT"),
    (r"waveft_\w+", "WaveFT"),
    (r"c3a_\w+", "C3A"),
    (r"vblora_\w+", "VB-LoRA"),
    (r"randlora_\w+", "RandLoRA"),
    (r"ln_tuning_\w+", "LN tuning"),
    (r"shira_\w+", "SHiRA"),
    (r"road_\w+", "RoAd"),
    (r"delora_\w+", "DeLoRA"),
    (r"gralora_\w+", "GraLoRA"),
    (r"poly_\w+", "Poly"),
    (r"prompt_embeddings|prompt_encoder", "prompt tuning"),
    (r"adaption_(?:prompt|gate)", "LLaMA-Adapter"),
    (r"trainable_tokens\w*", "trainable tokens"),
    (r"internal_xlora_classifier", "X-LoRA"),
    (r"diff", "a full difference of weights"),
)


def _compiled(kinds: Iterable[tuple[str, str]]) -> tuple[tuple[re.Pattern[str], str], ...]:
    return tuple((re.compile(rf"(?:^|[._])(?:{part})(?=$|\.)"), kind) for part, kind in kinds)


#: Those that tools write into one file beside LoRA, and all.
LYCORIS, EVERY = _compiled(_LYCORIS), _compiled((*_LYCORIS, *_PEFT))
#: Layers that only a model has, and that an adapter seldom holds in full.
_OF_MODELS = re.compile(
    r"(?:^|\.)(?:embed_tokens|wte|word_embeddings|embed_in|tok_embeddings|lm_head|conv_in)\.weight$"
)


def kind_of(name: str, kinds: Iterable[tuple[re.Pattern[str], str]] = EVERY) -> str | None:
    """Return the kind of adapter whose key this is, None where none is known.

    >>> kind_of("base_model.model.model.layers.0.self_attn.q_proj.oft_R.weight"), kind_of("model.norm.weight")
    ('OFT', None)
    """
    return next((kind for pattern, kind in kinds if pattern.search(name)), None)


def told(names: Sequence[str]) -> str:
    """Return two of the names for a sentence."""
    shown = " and ".join(f"`{printable(name, 100)}`" for name in names[:2])
    return shown or "no tensor"


def refuse_kinds(names: Iterable[str], label: str, kinds: Iterable[tuple[re.Pattern[str], str]] = LYCORIS) -> None:
    """Raise UnsupportedAdapterError if a tensor belongs to one of these kinds of adapters, which are not read."""
    found: dict[str, list[str]] = {}
    for name in names:
        if kind := kind_of(name, kinds):
            found.setdefault(kind, []).append(name)
    for kind, keys in found.items():
        raise UnsupportedAdapterError(
            f"is {kind} (it holds {told(keys)}), which s3lora does not read: {LOOKED_FOR}", file=label
        )


def not_read(kind: object, names: Sequence[str], label: str) -> UnsupportedAdapterError:
    """Return the error for an adapter whose configuration says that it is of another kind."""
    return UnsupportedAdapterError(
        f"is an adapter of the kind {printable(kind, 40)} (it holds {told(names)}), which s3lora does not read: "
        f"{LOOKED_FOR}",
        file=label,
    )


def nothing_found(names: Sequence[str], label: str, config_label: str | None) -> S3LoRAError:
    """Return the error for weights that no format recognises.

    `config_label` is the name of a configuration that says that they are of PEFT, None where there is none.
    """
    try:
        refuse_kinds(names, label, EVERY)
    except UnsupportedAdapterError as error:
        return error
    nothing = f"none of its {len(names)} tensors is a LoRA factor (it holds {told(names)})"
    held = f"{nothing if names else 'it holds no tensor'}; {LOOKED_FOR}"
    if config_label is not None:
        what = f"holds no LoRA module, though {config_label} is of a PEFT adapter: {held}"
        return NothingToAuditError(what, file=label, fix="the file is incomplete, or not that adapter's")
    fix = "give an adapter of one of these kinds"
    if any(_OF_MODELS.search(name) for name in names) and all(name.endswith((".weight", ".bias")) for name in names):
        fix = "give a LoRA adapter, not a whole model"
    return NothingToAuditError(held, file=label, fix=fix)
