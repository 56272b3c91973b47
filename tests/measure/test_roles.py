"""Roles: one for one thing, none where the path does not tell."""

from __future__ import annotations

import pytest

from s3lora.measure.roles import MEANINGS, PARTS, architecture_of, role_of

KNOWN = {
    "decoder.q": (
        "model.layers.3.self_attn.q_proj",
        "model.language_model.layers.3.self_attn.q_proj",
        "transformer.h.0.attn.attention.q_proj",
        "model.decoder.layers.0.self_attn.q_proj",
        "decoder.block.0.layer.0.SelfAttention.q",
    ),
    "decoder.cross.q": ("model.decoder.layers.0.encoder_attn.q_proj", "decoder.block.0.layer.1.EncDecAttention.q"),
    "decoder.cross.v": ("model.decoder.layers.0.encoder_attn.v_proj", "decoder.block.0.layer.1.EncDecAttention.v"),
    "encoder.q": (
        "distilbert.transformer.layer.0.attention.q_lin",
        "bert.encoder.layer.11.attention.self.query",
        "roberta.encoder.layer.11.attention.self.query",
        "vit.encoder.layer.0.attention.attention.query",
        "model.encoder.layers.0.self_attn.q_proj",
        "encoder.block.0.layer.0.SelfAttention.q",
        "lora_te_text_model_encoder_layers_3_self_attn_q_proj",
    ),
    "encoder.o": (
        "bert.encoder.layer.0.attention.output.dense",
        "distilbert.transformer.layer.0.attention.out_lin",
        "model.encoder.layers.0.self_attn.out_proj",
    ),
    "encoder.up": ("bert.encoder.layer.0.intermediate.dense", "distilbert.transformer.layer.0.ffn.lin1"),
    "encoder.down": ("bert.encoder.layer.0.output.dense", "distilbert.transformer.layer.0.ffn.lin2"),
    "decoder.qkv": (
        "transformer.h.0.attn.c_attn",
        "transformer.h.0.self_attention.query_key_value",
        "gpt_neox.layers.0.attention.query_key_value",
        "transformer.layers.0.attn.qkv_proj",
    ),
    "decoder.o": (
        "transformer.h.0.attn.c_proj",
        "model.layers.0.self_attn.o_proj",
        "gpt_neox.layers.0.attention.dense",
    ),
    "decoder.down": (
        "transformer.h.0.mlp.c_proj",
        "model.layers.0.mlp.down_proj",
        "decoder.block.0.layer.2.DenseReluDense.wo",
        "gpt_neox.layers.0.mlp.dense_4h_to_h",
    ),
    "decoder.gate": ("model.layers.0.mlp.gate_proj", "decoder.block.0.layer.2.DenseReluDense.wi_0"),
    "decoder.gate and up": ("model.layers.0.mlp.gate_up_proj",),
    "unet.q": (
        "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q",
        "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q",
        "lora_unet_up_blocks_1_attentions_1_transformer_blocks_0_attn1_to_q",
    ),
    "unet.cross.v": (
        "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_v",
        "lora_unet_down_blocks_0_attentions_1_transformer_blocks_0_attn2_to_v",
    ),
    "unet.cross.o": (
        "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_out.0",
        "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_out_0",
    ),
}
UNKNOWN = (
    "score",
    "lm_head",
    "q_proj",
    "model.layers.0.my_attn.mix",
    "model.layers.0.self_attn.q_proj.extra",
    "model.layers.0.block_sparse_moe.experts.3.w1",
    "model.layers.0.mlp.experts.3.down_proj",
    "model.layers.0.linear_attn.out_proj",
    "transformer.h.0.crossattention.c_attn",  # keys and values alone
    "transformer_blocks.0.attn.to_q",  # a diffusion transformer
    "single_transformer_blocks.0.attn.to_q",
    "visual.blocks.0.attn.qkv",
    "model.visual.layers.0.attn.qkv",
    "blocks.0.attn.qkv",
    "down_blocks.0.resnets.0.conv1",
    "q_proj." * 200,
    "",
)


@pytest.mark.parametrize("key", KNOWN)
def test_one_thing_has_one_role(key: str) -> None:
    for path in KNOWN[key]:
        role = role_of(path)
        assert role is not None, path
        assert role.key == key, path


@pytest.mark.parametrize("path", UNKNOWN)
def test_what_a_path_does_not_tell_is_not_guessed(path: str) -> None:
    assert role_of(path) is None


def test_a_role_does_not_depend_on_the_layer() -> None:
    assert {role_of(f"model.layers.{layer}.self_attn.v_proj") for layer in range(200)} == {
        role_of("model.layers.0.self_attn.v_proj")
    }


def test_every_part_is_told_in_words() -> None:
    assert PARTS.keys() == MEANINGS.keys()
    role = role_of("down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k")
    assert str(role) == "key, U-Net cross-attention"


def test_architectures() -> None:
    assert architecture_of("distilbert.transformer.layer.0.attention.q_lin") == "distilbert"
    assert architecture_of("roberta.encoder.layer.0.attention.self.query") == "roberta"
    assert architecture_of("bert.encoder.layer.0.attention.self.query") == "bert"
    assert architecture_of("encoder.layer.0.attention.self.query", "google-bert/bert-base-uncased") == "bert"
    assert architecture_of("encoder.layer.0.attention.self.query", "FacebookAI/xlm-roberta-base") == "roberta"
    assert architecture_of("encoder.layer.0.attention.self.query", "distilbert/distilbert-base-cased") == "distilbert"
    assert architecture_of("transformer.h.0.attn.c_attn", None) == "gpt2"
    assert architecture_of("model.layers.0.self_attn.q_proj", "meta-llama/Llama-3.1-8B") is None
    assert architecture_of("model.layers.0.self_attn.q_proj", "some/modernbertish") is None
