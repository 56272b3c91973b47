"""What a base model is known by: a digest of all that determines its answers."""

from __future__ import annotations

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from s3lora.evaluate.loading import LoadedBase
from s3lora.needs import need

#: What a configuration says of where it came from, and not of what the model does.
IRRELEVANT = ("_name_or_path", "transformers_version")
#: Tensors that are hashed at a time, at most: each may be a copy from a GPU.
WORKERS = 16


def identity_of(loaded: LoadedBase) -> str:
    """Return the SHA-256 of what determines the answers: weights, configuration, vocabulary and chat template.

    Each tensor has a digest of its own, taken on all cores: hashing the weights of a large model one after the other
    takes about as long as reading them.
    """
    config = {key: value for key, value in loaded.model.config.to_dict().items() if key not in IRRELEVANT}
    vocabulary = loaded.tokenizer.get_vocab()
    digest = hashlib.sha256(json.dumps([config, vocabulary], sort_keys=True, default=str).encode())
    template = loaded.tokenizer.chat_template or ""  # of a model with several a table
    digest.update((template if isinstance(template, str) else json.dumps(template, sort_keys=True)).encode())
    tensors = sorted(loaded.model.state_dict().items())
    with ThreadPoolExecutor(min(WORKERS, os.cpu_count() or 1)) as pool:
        for (name, tensor), values in zip(tensors, pool.map(_values, [t for _, t in tensors]), strict=True):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(values)
    return digest.hexdigest()


def _values(tensor: Any) -> bytes:
    whole = tensor.detach().cpu().contiguous().reshape(-1).view(need("torch").uint8)
    return hashlib.sha256(memoryview(whole.numpy())).digest()
