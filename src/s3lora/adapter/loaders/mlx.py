"""mlx-lm 0.32.2 and 0.31.3: reads MLX's own configuration, and builds layers by it before it fills them. Run.

From 0.32 on it stops at a name or shape of the file that the model then has not; before, it goes on without.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from s3lora.adapter.loaders.base import Loader, as_trained
from s3lora.adapter.loaders.folder import LoaderView, Taken
from s3lora.adapter.loaders.problems import Effect, Problem, other_forms, others_of, some, tensors
from s3lora.adapter.model import Adapter, LoraModule, block
from s3lora.adapter.weights import MLX_WEIGHTS, is_mlx

#: What `load_adapters` reads of the configuration, of which nothing has a default.
NEEDED = ("num_layers", "lora_parameters")
#: What it reads of `lora_parameters` without a default.
PARAMETERS = ("rank", "scale", "dropout")
#: First release that stops at what the model has not.
STRICT = "0.32.0"
#: First release that no longer multiplies by `alpha / rank`.
NO_ALPHA = "0.15.0"
#: First release that takes no `adapters.npz`.
NO_NPZ = "0.14.0"


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
    if adapter.entry is not None and adapter.entry.suffix == ".npz":
        yield Problem("lies in an NPZ archive, which it no longer takes", "convert it", since=NO_NPZ, mends=())
    config = adapter.config or {}
    parameters = config.get("lora_parameters")
    given = parameters if isinstance(parameters, Mapping) else {}
    missing = [f"`{field}`" for field in NEEDED if field not in config]
    if "lora_parameters" in config:
        missing += [f"`{field}` in `lora_parameters`" for field in PARAMETERS if field not in given]
    if missing:
        what = f"has no {' and no '.join(missing)} in its configuration, which it reads"
        yield Problem(what, "write what the training had into adapter_config.json")
    if ambiguous := [module.path for module in adapter.modules if module.scaling.origin == "ambiguous"]:
        what = "has an `alpha` beside `scale`, by which it multiplies as well"
        yield Problem(what, "write `scale` alone", "other", tuple(ambiguous), before=NO_ALPHA)
    yield from _unbuilt(adapter, config, given)


def _unbuilt(adapter: Adapter, config: Mapping[str, Any], given: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield what the layers that it builds by the configuration have no place for."""
    misnamed = [one for one in adapter.modules if not _tensor(one).endswith((".lora_a", ".lora_b"))]
    yield from _lost("has keys that do not end in `lora_a` and `lora_b`", "convert it", misnamed)
    keys = given.get("keys")
    if isinstance(keys, list):
        outside = [one for one in adapter.modules if not _is_named(one, keys) and one not in misnamed]
        yield from _lost("has modules that `keys` of its configuration does not name", "name them there", outside)
    layers = [module.layer for module in adapter.modules if module.layer is not None]
    count = config.get("num_layers")
    if layers and isinstance(count, int) and not isinstance(count, bool) and 0 < count <= max(layers) - min(layers):
        early = [one for one in adapter.modules if one.layer is not None and one.layer <= max(layers) - count]
        what = f"has modules of more layers than the last {count} that `num_layers` means"
        yield from _lost(what, "write the number of layers into `num_layers`", early)
    rank = given.get("rank")
    if wrong := [one for one in adapter.modules if one.rank != rank and "rank" in given]:
        what = f"has modules of another rank than `rank` says: {some([wrong[0].path])} of rank {wrong[0].rank}"
        yield Problem(what, "write the rank into `lora_parameters`", modules=_paths(wrong), since=STRICT)
    if config.get("fine_tune_type", "lora") != "dora":
        dora = [module for module in adapter.modules if module.dora]
        yield from _lost("has DoRA magnitudes, and no `fine_tune_type` of `dora`", "write `dora` there", dora)
    if others := others_of(adapter):
        what = f"holds {tensors(others)} of no LoRA factor ({some([one.name for one in others])})"
        yield Problem(what, "leave them out", since=STRICT, mends=("all",))


def _lost(what: str, fix: str, modules: list[LoraModule]) -> Iterator[Problem]:
    """Yield a problem of modules at which it stops since `STRICT`, and which it left out before."""
    outcomes: tuple[tuple[Effect, str | None, str | None], ...] = (("fails", STRICT, None), ("other", None, STRICT))
    for effect, since, before in outcomes if modules else ():
        told = f"{what}: {some([module.path for module in modules])}"
        yield Problem(told, fix, effect, _paths(modules), since=since, before=before)


def _paths(modules: list[LoraModule]) -> tuple[str, ...]:
    return tuple(module.path for module in modules)


def _tensor(module: LoraModule) -> str:
    return module.A.parts[0].tensor.name


def _is_named(module: LoraModule, keys: list[Any]) -> bool:
    """Return whether a layer's path, in the model or within its layer, is one of `keys`."""
    path = _tensor(module).rpartition(".")[0]
    return path in keys or path.removeprefix(f"{block(path)}.") in keys


LOADER = Loader(
    "mlx",
    _problems,
    scaling=as_trained,
    reads=reads,
    takes=takes,
    formats=("mlx",),
    seen=("0.31.3", "0.32.2"),
    how="run",
    missing=("fails", "stops at names that it has not"),
    missing_before=(STRICT, "other", "leaves them out and says nothing"),
    writes=False,
)
