"""A small series of a training, made up."""

from __future__ import annotations

from s3lora.adapter.digest import Source
from s3lora.measure.configuration import Configuration
from s3lora.measure.refusal_looks import RefusalLook
from s3lora.measure.series import RefusalRule, SeriesModule, TrainingSeries


def small_series(looks: int = 3) -> TrainingSeries:
    """Return a series of four modules whose refusals fall from the second look on."""
    steps = tuple(10 * i for i in range(looks))
    return TrainingSeries(
        configuration=Configuration(),
        source=Source("default", "memory", None, (), "tiny"),
        steps=steps,
        modules=tuple(
            SeriesModule(
                path=f"model.layers.{layer}.self_attn.{name}",
                layer=layer,
                projection=name,
                expert=None,
                shape=(16, 12),
                rank=4,
                ssi=(None, *(0.3 + 0.05 * layer + 0.01 * i for i in range(1, looks))),
                normalised_ssi=(None, *(0.1 + 0.01 * i for i in range(1, looks))),
                frobenius=(0.0, *(0.5 * i for i in range(1, looks))),
            )
            for layer in range(2)
            for name in ("q_proj", "v_proj")
        ),
        rule=RefusalRule(),
        refusals=tuple(
            RefusalLook(
                step=step, loss=0.1 + 0.2 * i, rise=0.2 * i, error=0.05 * i, prompts=16, over_refusal=0.0625 * i,
                harmless=16, beyond=i > 0,
            )
            for i, step in enumerate(steps)
        ),
        warned_at=20 if looks > 2 else None,
        warnings=("watched: 16 of 16 harmful prompts, which the base refuses",),
    )  # fmt: skip
