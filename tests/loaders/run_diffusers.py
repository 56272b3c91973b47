"""Inside an environment with diffusers: load an adapter into a tiny random pipeline, and give what its models compute.

A job has `model`: sd1, sdxl or flux, and `adapter`, or `updates`: then ΔW of each module is added to its weights
instead, in float64, and no loader takes part.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection
from worker import serve

WORDS = torch.arange(1, 9)[None]


def text(with_projection: bool = False) -> Any:
    config = CLIPTextConfig(
        vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=16, projection_dim=32, bos_token_id=0, eos_token_id=2, pad_token_id=1,
    )  # fmt: skip
    return (CLIPTextModelWithProjection if with_projection else CLIPTextModel)(config).eval()


def unet(**more: Any) -> Any:
    return UNet2DConditionModel(
        block_out_channels=(32, 64), layers_per_block=1, sample_size=8, in_channels=4, out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=8, **more,
    ).eval()  # fmt: skip


def autoencoder() -> Any:
    return AutoencoderKL(block_out_channels=(32,), latent_channels=4, norm_num_groups=8)


def sd1() -> Any:
    return StableDiffusionPipeline(
        vae=autoencoder(), text_encoder=text(), tokenizer=None, unet=unet(cross_attention_dim=32),
        scheduler=DDIMScheduler(), safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


def sdxl() -> Any:
    model = unet(
        cross_attention_dim=64, transformer_layers_per_block=(1, 2), use_linear_projection=True,
        addition_embed_type="text_time", addition_time_embed_dim=8, projection_class_embeddings_input_dim=80,
    )  # fmt: skip
    return StableDiffusionXLPipeline(
        vae=autoencoder(), text_encoder=text(), text_encoder_2=text(True), tokenizer=None, tokenizer_2=None, unet=model,
        scheduler=DDIMScheduler(),
    )  # fmt: skip


def flux() -> Any:
    model = FluxTransformer2DModel(
        patch_size=1, in_channels=4, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=32, pooled_projection_dim=32, axes_dims_rope=(4, 4, 8),
    ).eval()  # fmt: skip
    return FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(), vae=autoencoder(), text_encoder=text(), tokenizer=None,
        text_encoder_2=None, tokenizer_2=None, transformer=model,
    )  # fmt: skip


def outputs(pipe: Any, kind: torch.dtype) -> dict[str, Any]:
    """Return what each of its models makes of fixed inputs."""
    random = torch.Generator().manual_seed(3)

    def noise(*shape: int) -> Any:
        return torch.randn(*shape, generator=random, dtype=torch.float64).to(kind)

    found = {}
    if getattr(pipe, "unet", None) is not None:
        inputs, wide = noise(1, 4, 8, 8), pipe.unet.config.cross_attention_dim
        more = {"text_embeds": noise(1, 32), "time_ids": noise(1, 6)} if wide == 64 else None
        found["unet"] = pipe.unet(inputs, torch.tensor(5), noise(1, 8, wide), added_cond_kwargs=more).sample
    else:
        found["transformer"] = pipe.transformer(
            hidden_states=noise(1, 16, 4), encoder_hidden_states=noise(1, 8, 32), pooled_projections=noise(1, 32),
            timestep=torch.tensor([0.5], dtype=kind), img_ids=noise(16, 3).abs(), txt_ids=torch.zeros(8, 3, dtype=kind),
        ).sample  # fmt: skip
    for name in ("text_encoder", "text_encoder_2"):
        if getattr(pipe, name, None) is not None:
            found[name] = getattr(pipe, name)(WORDS)[0]
    return {name: value.double().numpy() for name, value in found.items()}


def of_path(model: Any, path: str) -> Any:
    """Return a module, whether the text encoder has `text_model` or, as in transformers 5, has not."""
    if path.startswith(("text_model.", "encoder.")):
        within = "text_model." if hasattr(model, "text_model") else ""
        return model.get_submodule(within + path.removeprefix("text_model."))
    return model.get_submodule(path)


def job(given: Any, one: Any) -> tuple[Any, Any]:
    torch.manual_seed(0)
    pipe = {"sd1": sd1, "sdxl": sdxl, "flux": flux}[one["model"]]()
    kind = torch.float32
    if one.get("updates"):
        kind = torch.float64
        with np.load(one["updates"]) as updates:
            for name in ("unet", "transformer", "text_encoder", "text_encoder_2"):
                if getattr(pipe, name, None) is not None:
                    getattr(pipe, name).double()
            for path in updates.files:
                model, _, inner = path.partition(".")
                weight = of_path(getattr(pipe, model), inner).weight
                weight.data += torch.tensor(updates[path]).reshape(weight.shape)
    elif one.get("adapter"):
        pipe.load_lora_weights(one["adapter"])
    with torch.no_grad():
        return outputs(pipe, kind), {}


serve(job)
