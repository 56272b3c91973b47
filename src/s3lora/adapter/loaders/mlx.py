"""mlx-lm 0.32.2: reads MLX's own configuration and every name of the file into the model. Run."""

from __future__ import annotations

from collections.abc import Iterator

from s3lora.adapter.loaders.base import Loader, as_trained
from s3lora.adapter.loaders.folder import LoaderView, Taken
from s3lora.adapter.loaders.problems import Problem, other_forms
from s3lora.adapter.model import Adapter
from s3lora.adapter.weights import MLX_WEIGHTS, is_mlx

#: What `load_adapters` reads of the configuration, of which nothing has a default.
NEEDED = ("num_layers", "lora_parameters")


def reads(view: LoaderView) -> bool:
    """Return whether the folder is an MLX adapter's."""
    return is_mlx(view.config) or view.format == "mlx"


def takes(view: LoaderView) -> Taken:
    """Follow `load_adapters` of mlx-lm 0.32.2; versions before 0.14 took `adapters.npz`."""
    if view.config is None:
        return (), "finds no adapter_config.json"
    found = view.first(MLX_WEIGHTS[0])
    if found:
        return found, ""
    old = view.first(MLX_WEIGHTS[1])
    return old, "only versions before 0.14 take it" if old else f"finds no {MLX_WEIGHTS[0]}"


def _problems(adapter: Adapter) -> Iterator[Problem]:
    if adapter.format != "mlx":
        yield Problem("is no MLX adapter", "convert it to MLX's format first", mends=())
        return
    yield from other_forms(adapter)
    if missing := [f"`{field}`" for field in NEEDED if field not in (adapter.config or {})]:
        what = f"has no {' and no '.join(missing)} in its configuration, which it reads"
        yield Problem(what, "write what the training had into adapter_config.json")
    if ambiguous := [module.path for module in adapter.modules if module.scaling.origin == "ambiguous"]:
        what = "says its scaling in a way that versions read differently"
        yield Problem(what, "write `scale` alone", "unknown", tuple(ambiguous))


LOADER = Loader(
    "mlx",
    _problems,
    scaling=as_trained,
    reads_patterns="0",
    reads=reads,
    takes=takes,
    formats=("mlx",),
    seen=("0.32.2",),
    how="run",
    missing=("other", "leaves them out and says nothing"),
    writes=False,
)
