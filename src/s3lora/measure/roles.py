"""What a module does in its model, from its path: one role for one thing, whatever its model calls it.

`q_lin`, `query`, `to_q` and `q_proj` all make queries. Self- and cross-attention are apart, and so are encoders,
decoders and the U-Nets of image models; a projection that several are fused into has a role of its own. A path that
does not tell all of it has no role, so that nothing is compared with what it is not.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Literal, NamedTuple

Stack = Literal["encoder", "decoder", "unet"]

#: Part → what its projection is called in models, without what stands around it.
PARTS: dict[str, tuple[str, ...]] = {
    "q": ("q_proj", "q_lin", "query", "query_proj", "to_q", "q", "wq", "linear_q"),
    "k": ("k_proj", "k_lin", "key", "key_proj", "to_k", "k", "wk", "linear_k"),
    "v": ("v_proj", "v_lin", "value", "value_proj", "to_v", "v", "wv", "linear_v"),
    "o": ("o_proj", "out_proj", "out_lin", "to_out", "o", "wo", "linear_out", "dense", "c_proj"),
    "qkv": ("c_attn", "query_key_value", "qkv_proj", "qkv", "Wqkv", "in_proj"),
    "up": ("up_proj", "c_fc", "fc1", "lin1", "dense_h_to_4h", "wi", "wi_1"),
    "gate": ("gate_proj", "wi_0"),
    "gate and up": ("gate_up_proj",),
    "down": ("down_proj", "fc2", "lin2", "dense_4h_to_h", "wo", "c_proj"),
}
#: Part → what it is, in words.
MEANINGS = {
    "q": "query",
    "k": "key",
    "v": "value",
    "o": "attention output",
    "qkv": "fused query, key and value",
    "up": "MLP up",
    "gate": "MLP gate",
    "gate and up": "fused MLP gate and up",
    "down": "MLP down",
}
#: Longest path that is looked at, in characters.
LONGEST = 512
#: Of a layer or a block.
_NUMBER = re.compile(r"(?<=[._])\d+(?=[._]|$)")
_ATTENTION = frozenset(("q", "k", "v", "o", "qkv"))
#: Names that attention and MLP both have: the block tells.
_BLOCK = r"(?:^|[._])"
_CROSS = re.compile(
    rf"{_BLOCK}(?:encoder_attn|EncDecAttention|crossattention|cross_attn|cross_attention|attn2)(?:[._]|$)"
)
_SELF = re.compile(
    rf"{_BLOCK}(?:self_attn|self_attention|SelfAttention|attention|attentions|attn|attn1|self)(?:[._]|$)"
)
_MLP = re.compile(rf"{_BLOCK}(?:mlp|ffn|DenseReluDense|feed_forward|intermediate|output)(?:[._]|$)")
#: What surely is of one stack, the first that matches.
_STACKS: tuple[tuple[Stack | None, re.Pattern[str]], ...] = (
    (None, re.compile(r"(?:^|[._])(?:experts?|resnets?|controlnet|single_transformer_blocks|joint_blocks|visual)[._]")),
    ("unet", re.compile(r"(?:^|[._])(?:down_blocks|mid_block|up_blocks)[._].*(?:^|[._])attn[12][._]")),
    ("decoder", re.compile(r"(?:^|[._])decoder[._](?:.*[._])?(?:layers?|block)[._]\d")),
    ("encoder", re.compile(r"(?:^|[._])encoder[._](?:.*[._])?(?:layers?|block)[._]\d")),
    ("encoder", re.compile(r"[._](?:(?:q|k|v|out)_lin|ffn[._]lin[12])$")),
    (None, re.compile(r"vision|image|audio|adapter|text_encoder|dit|blocks[._]\d")),
    ("decoder", re.compile(r"(?:^|[._])layers[._]\d+[._](?:self_attn|self_attention|attention|attn|mlp)[._]")),
    ("decoder", re.compile(r"(?:^|[._])h[._]\d+[._](?:self_attention|attn|attention|crossattention|mlp)[._]")),
)
_NAMES = sorted({name for names in PARTS.values() for name in names}, key=lambda name: (-len(name), name))
_END = re.compile(rf"[._](?P<name>{'|'.join(_NAMES)})(?:[._](?:0|default))?$")
#: An architecture that a reference tells apart → what of a path, or of the base model's name, surely is of it.
_ARCHITECTURES = (
    ("distilbert", re.compile(r"distilbert")),
    ("roberta", re.compile(r"(?:^|[^a-z])(?:xlm-)?roberta")),
    ("bert", re.compile(r"(?:^|[/._-])bert(?:[._-]|$)")),
    (
        "gpt2",
        re.compile(
            r"(?:^|[/._-])(?:distil)?gpt2|dialogpt|(?:^|[._])h[._]\d+[._](?:attn[._]c_attn|attn[._]c_proj|mlp[._]c_)"
        ),
    ),
)


class ModuleRole(NamedTuple):
    """What a module does: in which stack, in cross-attention or not, as which part.

    >>> str(ModuleRole("decoder", True, "v"))
    'value, decoder cross-attention'
    """

    stack: Stack
    cross: bool
    part: str

    @property
    def key(self) -> str:
        """Return the role as documents have it.

        >>> ModuleRole("encoder", False, "q").key, ModuleRole("decoder", True, "v").key
        ('encoder.q', 'decoder.cross.v')
        """
        return ".".join((self.stack, *(("cross",) if self.cross else ()), self.part))

    def __str__(self) -> str:
        """Return the role in words."""
        stack = "U-Net" if self.stack == "unet" else self.stack
        kind = " cross-attention" if self.cross else " self-attention" if self.part in ("q", "k", "v", "o") else ""
        return f"{MEANINGS[self.part]}, {stack}{kind}"


def role_of(path: str) -> ModuleRole | None:
    """Return the role of the module at a path, None where the path does not tell it.

    >>> [role.key for path in ("model.layers.3.self_attn.q_proj", "bert.encoder.layer.3.attention.self.query",
    ...  "decoder.block.3.layer.1.EncDecAttention.v", "transformer.h.3.mlp.c_proj") if (role := role_of(path))]
    ['decoder.q', 'encoder.q', 'decoder.cross.v', 'decoder.down']
    >>> print(role_of("model.layers.3.my_block"))
    None
    """
    return _role(without_numbers(path)) if len(path) <= LONGEST else None


def without_numbers(path: str) -> str:
    """Return a path with 0 for the number of each layer and block in it.

    >>> without_numbers("model.layers.31.mlp.fc1")
    'model.layers.0.mlp.fc1'
    """
    return _NUMBER.sub("0", path)


def architecture_of(path: str, base_model: str | None = None) -> str | None:
    """Return the architecture that a path or the base model's name tells, of those that a reference tells apart.

    >>> architecture_of("distilbert.transformer.layer.0.attention.q_lin"), architecture_of("h.0.attn.c_attn")
    ('distilbert', 'gpt2')
    """
    return _architecture(without_numbers(path[:LONGEST]), (base_model or "")[:LONGEST].lower())


@lru_cache(maxsize=4096)
def _role(path: str) -> ModuleRole | None:
    end = _END.search(path)
    stack = next((stack for stack, pattern in _STACKS if pattern.search(path)), None)
    if end is None or stack is None:
        return None
    before = path[: end.start() + 1]
    cross, attention, mlp = (pattern.search(before) is not None for pattern in (_CROSS, _SELF, _MLP))
    part = _part(end["name"], before, attention=cross or attention, mlp=mlp)
    if part is None or (part == "qkv" and cross):  # beside cross-attention, what is fused are keys and values alone
        return None
    return ModuleRole(stack, cross, part)


def _part(name: str, before: str, *, attention: bool, mlp: bool) -> str | None:
    if name == "dense":  # BERT: attention.output.dense, intermediate.dense, output.dense
        if "intermediate" in before:
            return "up"
        return "o" if attention else "down" if mlp else None
    for part, names in PARTS.items():
        if name in names and (attention if part in _ATTENTION else not attention):
            return part
    return None


@lru_cache(maxsize=4096)
def _architecture(path: str, base_model: str) -> str | None:
    for text in (path, base_model):
        for name, pattern in _ARCHITECTURES:
            if pattern.search(text):
                return name
    return None
