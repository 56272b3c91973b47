"""Other tools' names for the same two factors: A of shape (r, n) and B of shape (m, r).

    layers.0.attn.q_proj.lora_a.weight                              torchtune
    decoder.layers.0.mlp.linear_fc1.adapter.linear_in.weight        Megatron-Bridge, NeMo
    layers.0.self_attn.q_proj.lora.A.weight                         minimind, and what was written after it

None of them stores a scaling. torchtune's modules get the names that Transformers has for them, and Megatron's keep
their own, for theirs are fused in another way.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from dataclasses import dataclass

from s3lora.adapter.factors import Factor
from s3lora.adapter.formats.base import Format, Reading, StoredAdapter
from s3lora.adapter.formats.pairs import Pair, read_pairs
from s3lora.adapter.formats.parts import Scalings
from s3lora.adapter.formats.rows import KEY, QUERY, heads_of, unpaired
from s3lora.adapter.formats.wrappers import unwrapped
from s3lora.adapter.model import LoraModule, path_parts

#: Model types whose q and k torchtune keeps in pairs.
PAIRED = frozenset(("llama", "mistral", "gemma", "gemma2"))
IN_PAIRS = (
    "torchtune orders the rows of q and k of some models by pairs, and no config.json beside the file says which model "
    "this is: no index depends on it, and comparing with an adapter of another tool does"
)


@dataclass(frozen=True, slots=True)
class Names:
    """A scheme of keys: `key` has the groups `path` and `half`, of which `first` is A.

    `magnitude` is the end of the key of a DoRA magnitude, `place` gives the module's path in the base model, and
    `rows` tells whether the rows of q and k may lie in pairs.
    """

    key: re.Pattern[str]
    first: str
    magnitude: str | None = None
    place: Callable[[str], str] = str
    rows: bool = False

    def recognises(self, source: StoredAdapter) -> bool:
        """Return whether a key is of this scheme."""
        return any(self.key.fullmatch(name) for name in source.tensors)

    def read(self, source: StoredAdapter) -> Reading:
        """Return the modules; a configuration of PEFT beside the file tells their scaling."""
        pairs: dict[str, Pair] = {}
        owners: dict[str, Pair] = {}
        rest = []
        for name, tensor in source.tensors.items():
            match = self.key.fullmatch(name)
            if match is None:
                rest.append(name)
                continue
            path = self.place(unwrapped(match["path"])[0])
            half = "down" if match["half"] == self.first else "up"
            owners[match["path"]] = pairs.setdefault(path, Pair(path))
            owners[match["path"]].add(half, name, tensor, source.label)
        others = []
        for name in rest:
            owner, _, leaf = name.removesuffix(".weight").rpartition(".")
            if owner in owners and leaf == self.magnitude:
                owners[owner].dora = True
                owners[owner].extras.append(name)
            elif owner in owners and leaf == "alpha":
                owners[owner].add("alpha", name, source.tensors[name], source.label)
            else:
                others.append(name)
        turned = _turned(source) if self.rows else None
        scaling = Scalings(source.config, source.config_label) if "lora_alpha" in (source.config or {}) else None
        read = read_pairs(pairs.values(), others, source, lambda path: path_parts(path)[:2], scalings=scaling)
        if turned is False or not any(module.projection in (QUERY, KEY) for module in read.modules):
            return read
        if turned is None:
            if not self.rows:
                return read
            modules = tuple(map(_either, read.modules))
            return dataclasses.replace(read, modules=modules, warnings=(*read.warnings, IN_PAIRS))
        return dataclasses.replace(read, modules=tuple(_put_back(module, source) for module in read.modules))


def _turned(source: StoredAdapter) -> bool | None:
    """Return whether torchtune keeps the rows of q and k of this base model in pairs, None where nothing tells."""
    kind = (source.model or {}).get("model_type")
    known = all(heads_of(source.model, one) for one in (QUERY, KEY))
    return None if not isinstance(kind, str) else False if kind not in PAIRED else True if known else None


def _either(module: LoraModule) -> LoraModule:
    return dataclasses.replace(module, order="either") if module.projection in (QUERY, KEY) else module


def _put_back(module: LoraModule, source: StoredAdapter) -> LoraModule:
    heads = heads_of(source.model, module.projection) if module.projection in (QUERY, KEY) else None
    if heads is None or not isinstance(module.B, Factor):
        return module
    return dataclasses.replace(module, B=unpaired(module.B, heads, module.path, source.label))


_TORCHTUNE = {
    "attn": "self_attn",
    "output_proj": "o_proj",
    "w1": "gate_proj",
    "w2": "down_proj",
    "w3": "up_proj",
    "tok_embeddings": "embed_tokens",
    "output": "lm_head",
}


def _of_transformers(path: str) -> str:
    """Return what Transformers calls a module of torchtune.

    >>> _of_transformers("layers.3.attn.output_proj"), _of_transformers("output")
    ('model.layers.3.self_attn.o_proj', 'lm_head')
    """
    names = [_TORCHTUNE.get(name, name) for name in path.split(".")]
    return ".".join(names if names == ["lm_head"] or names[0] == "model" else ["model", *names])


def _of_megatron(path: str) -> str:
    return re.sub(r"\.adapter(?:\.adapter_(\w+))?$", lambda found: f".{found[1]}" if found[1] else "", path)


_MEGATRON = r"(?P<path>.+?\.(?:adapter(?:\.adapter_\w+)?|adapter_layer\.\w+_adapter))\.linear_(?P<half>in|out)\.weight"
TORCHTUNE = Names(
    re.compile(r"(?P<path>.+)\.lora_(?P<half>[ab])\.weight"),
    "a",
    "magnitude",
    _of_transformers,
    rows=True,
)
MEGATRON = Names(re.compile(_MEGATRON), "in", None, _of_megatron)
MINIMIND = Names(re.compile(r"(?P<path>.+)\.lora\.(?P<half>[AB])\.weight"), "A")

FORMATS = (
    Format("torchtune", TORCHTUNE.recognises, TORCHTUNE.read),
    Format("megatron", MEGATRON.recognises, MEGATRON.read),
    Format("minimind", MINIMIND.recognises, MINIMIND.read),
)
