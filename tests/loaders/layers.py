"""A Llama on one device whose layers have the names and sizes that servers look at, and no values.

vLLM and SGLang wrap such layers when they load an adapter. The class names are theirs, which their code asks for.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn


class Shaped(nn.Module):
    """A layer of one device: `inside` numbers in, the sum of `outside` out."""

    tp_size, tp_rank, num_kv_head_replicas, tp_group, kv_tp_group = 1, 0, 1, None, None
    params_dtype = torch.float32

    def __init__(self, inside: int, *outside: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(sum(outside), inside), requires_grad=False)
        self.input_size = self.input_size_per_partition = inside
        self.output_size = self.output_size_per_partition = sum(outside)
        self.output_sizes = self.output_partition_sizes = list(outside)


class LinearBase(Shaped): ...


class ReplicatedLinear(LinearBase): ...


class ColumnParallelLinear(LinearBase): ...


class MergedColumnParallelLinear(ColumnParallelLinear): ...


class RowParallelLinear(LinearBase): ...


class QKVParallelLinear(ColumnParallelLinear):
    """The projections of all heads; `head` is the size of one."""

    def __init__(self, head: int, inside: int, *outside: int) -> None:
        super().__init__(inside, *outside)
        self.head_size = head
        self.q_proj_shard_size, self.kv_proj_shard_size = outside[:2]
        self.total_num_heads = self.num_heads = outside[0] // head
        self.total_num_kv_heads = self.num_kv_heads = outside[1] // head


class VocabParallelEmbedding(Shaped):
    """A table of words."""

    num_added_embeddings_per_partition = 0

    def __init__(self, words: int, wide: int) -> None:
        super().__init__(wide, words)
        self.num_embeddings = self.org_vocab_size = self.num_embeddings_padded = words
        self.num_embeddings_per_partition = self.num_org_embeddings_per_partition = words
        self.embedding_dim = wide
        ends = {f"org_vocab_{end}_index": value for end, value in (("start", 0), ("end", words))}
        self.shard_indices = SimpleNamespace(**ends, num_org_elements=words, num_added_elements=0)


class ParallelLMHead(VocabParallelEmbedding):
    def get_sharded_to_full_mapping(self) -> None:
        return None


class LogitsProcessor(nn.Module):
    def __init__(self, words: int) -> None:
        super().__init__()
        self.org_vocab_size = self.vocab_size = words
        self.soft_cap, self.scale, self.use_all_gather, self.logits_as_input = None, 1.0, False, False


class NoExperts(nn.Module):
    """What stands for layers of experts, of which a Llama has none."""


class Llama(nn.Module):
    """A `LlamaForCausalLM` of these sizes, with q, k, v and gate, up in one layer each, and room for `more` words."""

    is_3d_moe_weight = is_non_gated_moe = False
    embedding_padding_modules = ("lm_head",)

    def __init__(
        self, config: Mapping[str, Any], packed: Mapping[str, list[str]], embeddings: Mapping[str, str], more: int = 0
    ) -> None:
        super().__init__()
        hidden, words, heads = config["hidden_size"], config["vocab_size"], config["num_attention_heads"]
        head = config.get("head_dim") or hidden // heads
        keys = (config.get("num_key_value_heads") or heads) * head
        self.packed_modules_mapping, self.embedding_modules = dict(packed), dict(embeddings)
        self.config = SimpleNamespace(**config)
        self.model = nn.Module()
        self.model.embed_tokens = VocabParallelEmbedding(words, hidden)
        self.model.layers = nn.ModuleList()
        for _ in range(config["num_hidden_layers"]):
            layer = nn.Module()
            layer.self_attn, layer.mlp = nn.Module(), nn.Module()
            layer.self_attn.qkv_proj = QKVParallelLinear(head, hidden, heads * head, keys, keys)
            layer.self_attn.o_proj = RowParallelLinear(heads * head, hidden)
            layer.mlp.gate_up_proj = MergedColumnParallelLinear(hidden, *[config["intermediate_size"]] * 2)
            layer.mlp.down_proj = RowParallelLinear(config["intermediate_size"], hidden)
            self.model.layers.append(layer)
        self.lm_head = ParallelLMHead(words, hidden)
        self.logits_processor = LogitsProcessor(words + more)

    def classify(self, labels: int) -> None:
        """Become what a server makes of it to give classes."""
        self.score = ReplicatedLinear(self.model.embed_tokens.embedding_dim, labels)
        self.pooler = SimpleNamespace(get_supported_tasks=lambda: ("classify",), replace_classifier=lambda head: None)


LINEAR = {
    one.__name__: one
    for one in (LinearBase, ReplicatedLinear, ColumnParallelLinear, MergedColumnParallelLinear, QKVParallelLinear,
                RowParallelLinear)
}  # fmt: skip
EMBEDDING = {one.__name__: one for one in (VocabParallelEmbedding, ParallelLMHead)}


def no(*_given: Any, **_named: Any) -> bool:
    """Return False: what a server asks of a model or of the machine is not so."""
    return False


def divide(whole: int, by: int) -> int:
    """Return the share of one of several devices."""
    return whole // by
