"""A base model elsewhere: its configuration and the headers of its weights are fetched, and no weight."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from s3lora.adapter.hub import HUB, with_owner
from s3lora.adapter.weights import MAX_INDEX, weight_map
from s3lora.base.headers import MODEL_WEIGHTS
from s3lora.base.model import BaseModel
from s3lora.base.read import CONFIG, read_base
from s3lora.errors import AdapterFileError, printable
from s3lora.fleet.sources.fetch import Copy
from s3lora.fleet.sources.stores import open_store

#: Most bytes of configuration, index and headers that are fetched; those of the largest mixtures of experts have 30 MB.
LIMIT = 256 * 1024 * 1024


def fetched_base(uri: str) -> BaseModel:
    """Return what is known of a base model elsewhere, as `read_base` does of one here.

    Parameters:
        uri: `hf://OWNER/NAME[@REVISION][/FOLDER]`, an old name such as `hf://gpt2`, or the URL of a folder.

    Raises UnreachableError where the network or the other side failed three times, MissingPackageError, UsageError for
    an address that is none, and AdapterFileError for a file that is damaged, or where there is no model.
    """
    store, _ = open_store(f"{HUB}{with_owner(uri.removeprefix(HUB))}" if uri.startswith(HUB) else uri)
    with tempfile.TemporaryDirectory(prefix="s3lora-", ignore_cleanup_errors=True) as temporary:
        folder = Path(temporary)
        copy = Copy(store, folder, LIMIT, uri)
        config = store.stat(CONFIG)
        if config is not None:
            copy.small(config, CONFIG)
        weights = next((entry for name in MODEL_WEIGHTS if (entry := store.stat(name)) is not None), None)
        if config is None and weights is None:
            raise AdapterFileError(f"has no {CONFIG} and no weights, so it is no model", file=uri)
        shards = [] if weights is None else [weights]
        if weights is not None and weights.name == MODEL_WEIGHTS[1]:
            if (weights.size or 0) > MAX_INDEX:
                raise AdapterFileError(f"has an index of {weights.size:,} bytes", file=uri)
            copy.whole(weights, folder / weights.name)
            found = [store.stat(name) for name in sorted(set(weight_map(folder / weights.name).values()))]
            # Where one is not there, the names in the index are all that is known.
            shards = [entry for entry in found if entry is not None] if None not in found else []
        for entry in shards:
            copy.header(entry, folder / entry.name)
        copy.confirm()
        return replace(read_base(str(folder)), name=printable(uri, 255))


__all__ = ["fetched_base"]
