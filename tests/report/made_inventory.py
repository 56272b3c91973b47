"""An inventory with everything that can be in one: every number and name is made up, only to have something to show."""

from __future__ import annotations

from s3lora.adapter.inventory.model import (
    RESCALES,
    Inventory,
    InventoryFile,
    InventoryTensor,
    LoaderChoice,
    TensorRole,
    Unapplied,
)

REPLACES = "takes the place of this layer of the base model"


def tensor(name: str, role: TensorRole = "factor", *shape: int, **fields: object) -> InventoryTensor:
    """Return a tensor of float32, whose values were read."""
    parameters = 1
    for size in shape:
        parameters *= size
    known: dict[str, object] = {
        "module": name.rpartition(".")[0], "dtype": "float32", "bytes": 4 * parameters, "parameters": parameters,
        "finite": True, "largest": 0.25, "sha256": None if role == "factor" else "e5" * 32,
    }  # fmt: skip
    return InventoryTensor(name=name, role=role, shape=shape, **{**known, **fields})  # type: ignore[arg-type]


def clean() -> Inventory:
    """Return that of an ordinary adapter, in a folder with a model card."""
    return Inventory(
        tensors=(tensor("h.0.q.lora_A", "factor", 2, 6), tensor("h.0.q.lora_B", "factor", 8, 2)),
        files=(
            InventoryFile(path="README.md", role="other", bytes=120),
            InventoryFile(path="adapter_config.json", role="configuration", bytes=300),
            InventoryFile(path="adapter_model.safetensors", role="weights", bytes=1000),
        ),
        loaders=(LoaderChoice(loader="PEFT", files=("adapter_model.safetensors",), measured=True),),
    )


def full(name: str = "made-up") -> Inventory:
    """Return one with every kind of tensor and file; `name` is part of every name that comes out of a file."""
    magnitudes = [
        tensor(f"h.{i}.{name}.lora_magnitude_vector", "extra", 8, effect=RESCALES, finite=None, largest=None)
        for i in range(5)
    ]
    return Inventory(
        tensors=(
            *clean().tensors,
            tensor("h.0.q.alpha", "extra", effect="sets the scaling of its module"),
            *magnitudes,
            tensor(f"score.{name}.weight", "head", 2, 64, effect=REPLACES),
            tensor(f"<{name}>", "tokens", 1, 64, effect="takes the place of the embeddings of some tokens"),
            tensor(f"{name}.lora_B.bias", "bias", 8, largest=1e4, effect="is added to the output of its layer"),
            tensor(f"{name}.norm.weight", "base weight", 8, finite=False, effect="takes the place of the base's"),
            tensor(f"{name}.x", "unknown", 3, effect="is of no kind that s3lora knows"),
        ),
        files=(
            *clean().files,
            InventoryFile(path=f"{name}.py", role="code", bytes=40, runs=(f"import {name}",)),
            InventoryFile(path=f"{name}.bin", role="other weights", bytes=2000, content="different"),
            InventoryFile(path=f"{name}.pkl", role="pickle", bytes=80, runs=tuple(f"os.{name}{i}" for i in range(5))),
        ),
        loaders=(
            LoaderChoice(loader="PEFT", files=("adapter_model.safetensors",), measured=True),
            LoaderChoice(loader="MLX", files=(f"{name}.bin",), measured=False),
            LoaderChoice(loader="SGLang", files=(f"{name}.bin",), measured=False),
            LoaderChoice(
                loader="diffusers", files=(), measured=True, note="looks for pytorch_lora_weights.safetensors"
            ),
        ),
        unapplied=(
            Unapplied(
                kind="prefix", modules=(f"h.0.{name}", "h.1.q"), cause="their keys hold `_x`", remedy="unwrap it"
            ),
            Unapplied(kind="untrained", modules=(name,), cause="the file lacks them", remedy="save them", dead=False),
        ),
        unlisted=7,
    )
