"""The names and shapes that the rules give are those of the models that transformers builds from the configuration."""

from __future__ import annotations

import warnings
from typing import Any

import pytest

from s3lora.base.architectures import ARCHITECTURES, COMPOUND
from s3lora.base.configured import model_of

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

#: Odd sizes, so that no two of them are equal by chance.
NEW = {
    "vocab_size": 97, "hidden_size": 48, "intermediate_size": 56, "num_hidden_layers": 3, "num_attention_heads": 6,
    "num_key_value_heads": 2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
GPT = {"vocab_size": 97, "n_embd": 48, "n_layer": 3, "n_head": 6, "n_positions": 32}
EXPERTS = {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 40}
LATENT = {
    "q_lora_rank": 20, "kv_lora_rank": 12, "qk_rope_head_dim": 8, "qk_nope_head_dim": 10, "v_head_dim": 14,
    "n_routed_experts": 4, "n_shared_experts": 3, "moe_intermediate_size": 18, "first_k_dense_replace": 1,
    "num_key_value_heads": 6, "n_group": 2, "topk_group": 1, "num_experts_per_tok": 2,
}  # fmt: skip
ROPE = {"rope_type": "default", "rope_theta": 10000.0}
FALCON = {key: value for key, value in NEW.items() if key != "intermediate_size"}
MODELS: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "granite", "olmo2", "stablelm", "cohere"), NEW),
    "starcoder2": NEW,
    **dict.fromkeys(("nemotron", "phi", "phi3", "mixtral", "olmoe", "smollm3", "seed_oss", "cohere2"), NEW),
    **dict.fromkeys(("olmo", "olmo3", "ernie4_5", "exaone4", "phimoe", "arcee"), NEW),
    **{name: {**NEW, "head_dim": 10} for name in ("gemma", "gemma2", "gemma3_text", "glm", "glm4", "apertus")},
    "ministral": {**NEW, "head_dim": 10, "rope_parameters": ROPE},
    "hunyuan_v1_dense": {**NEW, "head_dim": 10, "rope_parameters": ROPE},
    "gpt_oss": {**NEW, **EXPERTS, "head_dim": 10},
    "qwen2_moe": {**NEW, **EXPERTS, "shared_expert_intermediate_size": 44, "mlp_only_layers": [1]},
    "qwen3_moe": {**NEW, **EXPERTS, "head_dim": 10, "decoder_sparse_step": 2},
    "deepseek_v2": {**NEW, **LATENT},
    "deepseek_v3": {**NEW, **LATENT},
    "gpt2": GPT,
    "gptj": {**GPT, "rotary_dim": 4},
    "gpt_neo": {"vocab_size": 97, "hidden_size": 48, "num_layers": 2, "num_heads": 6, "intermediate_size": 50,
                "attention_types": [[["global", "local"], 1]]},
    "gpt_neox": {**NEW, "hidden_size": 48},
    "bloom": {"vocab_size": 97, "hidden_size": 48, "n_layer": 2, "n_head": 6},
    "falcon": {**FALCON, "num_kv_heads": 2, "new_decoder_architecture": True, "ffn_hidden_size": 60},
    "opt": {"vocab_size": 97, "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 6, "ffn_dim": 50,
            "word_embed_proj_dim": 48},
    "bert": {**NEW, "is_decoder": True},
    "roberta": {**NEW, "is_decoder": True},
}  # fmt: skip
#: Variants of one architecture in which the configuration changes shapes.
VARIANTS = {
    "falcon multi-query": ("falcon", {**FALCON, "multi_query": True, "new_decoder_architecture": False}),
    "falcon plain": ("falcon", {**FALCON, "multi_query": False, "new_decoder_architecture": False, "alibi": True}),
    "deepseek without q_lora_rank": ("deepseek_v2", {**NEW, **LATENT, "q_lora_rank": None}),
    "llama of another head": ("llama", {**NEW, "head_dim": 20}),
    "gpt2 of another inner size": ("gpt2", {**GPT, "n_inner": 70}),
}
CASES = {**{name: (name, config) for name, config in MODELS.items()}, **VARIANTS}


def built(kind: str, fields: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Return the model without weights, and the configuration as it would be saved."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            config = transformers.AutoConfig.for_model(kind, **fields)
        except ValueError as error:
            if "nrecognized model" not in str(error):
                raise
            pytest.skip(f"transformers {transformers.__version__} has no {kind}")
        with torch.device("meta"):
            model = transformers.AutoModelForCausalLM.from_config(config)
    return model, config.to_dict()


def layers(model: Any) -> dict[str, tuple[int, ...]]:
    """Return what LoRA can change: the shapes of linear layers and embeddings, and of parameters of experts."""
    found: dict[str, tuple[int, ...]] = {}
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):
            found[name] = (module.out_features, module.in_features)
        elif type(module).__name__ == "Conv1D":
            found[name] = tuple(reversed(module.weight.shape))
        elif (
            isinstance(module, torch.nn.Embedding)
            and not any(word in name for word in ("position", "wpe", "token_type"))
        ) or (name.endswith((".gate", ".router")) and "weight" in dict(module.named_parameters(recurse=False))):
            found[name] = tuple(module.weight.shape)
    for name, parameter in model.named_parameters():
        if parameter.ndim == 3 and not name.endswith("bias"):
            found[name] = tuple(parameter.shape)
    return found


@pytest.mark.parametrize("case", CASES)
def test_names_and_shapes_are_those_of_the_model(case: str) -> None:
    kind, fields = CASES[case]
    model, config = built(kind, fields)
    told = model_of(config, "it").modules
    made = layers(model)
    heads = ("cls.", "pooler", "lm_head.dense", "lm_head.decoder")
    expected = {
        name: shape for name, shape in made.items() if not (kind in ("bert", "roberta") and name.startswith(heads))
    }
    assert set(told) == set(expected)
    for path, module in told.items():
        shape = expected[path]
        if module.experts:
            assert shape[0] == module.experts
            assert module.shape in (shape[1:], shape[:0:-1]), path
        else:
            assert module.shape == shape, path


def test_most_rules_were_tried() -> None:
    assert {kind for kind, _ in CASES.values()} == set(ARCHITECTURES)


TEXT = {key: value for key, value in NEW.items() if key not in ("pad_token_id", "bos_token_id", "eos_token_id")}
VISION = {"hidden_size": 16, "intermediate_size": 20, "num_hidden_layers": 1, "num_attention_heads": 2,
          "image_size": 16, "patch_size": 8}  # fmt: skip
SEEING = {
    "gemma3": {"text_config": {**TEXT, "head_dim": 10}, "vision_config": VISION},
    "llava": {"text_config": {"model_type": "llama", **TEXT},
              "vision_config": {"model_type": "clip_vision_model", **VISION}},
    "qwen2_vl": {"text_config": TEXT,
                 "vision_config": {"depth": 1, "embed_dim": 16, "hidden_size": 48, "num_heads": 2}},
    "qwen3_vl": {"text_config": {**TEXT, "head_dim": 8},
                 "vision_config": {"depth": 1, "hidden_size": 16, "num_heads": 2, "out_hidden_size": 48,
                                   "intermediate_size": 20, "deepstack_visual_indexes": [0]}},
    "idefics3": {"text_config": {"model_type": "llama", **TEXT}, "vision_config": VISION},
    "mistral3": {"text_config": {"model_type": "mistral", **TEXT},
                 "vision_config": {"model_type": "pixtral", **VISION}},
}  # fmt: skip


@pytest.mark.parametrize("kind", SEEING)
def test_the_language_model_of_one_that_sees(kind: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = transformers.AutoConfig.for_model(kind, **SEEING[kind])
        with torch.device("meta"):
            model = transformers.AutoModelForImageTextToText.from_config(config)
    base = model_of(config.to_dict(), "it")
    made = layers(model)
    assert not base.complete
    assert base.covered == (f"{COMPOUND[kind]}.layers.",)
    for path, module in base.modules.items():
        assert made.get(path) == module.shape, path
    assert {path for path in made if path.startswith(base.covered)} == {
        p for p in base.modules if p.startswith(base.covered)
    }
    assert base.may_have("model.vision_tower.encoder.layers.0.self_attn.q_proj")
    assert not base.may_have(f"{COMPOUND[kind]}.layers.99.self_attn.q_proj")
