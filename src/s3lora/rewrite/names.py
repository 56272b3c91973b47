"""Names under which PEFT finds the tensors of an adapter that was saved in a wrapper, or without PEFT's prefix."""

from __future__ import annotations

from collections.abc import Container

from s3lora.adapter.formats.several import DEFAULT, adapter_names, without_name
from s3lora.adapter.formats.wrappers import PREFIX, told, unwrapped
from s3lora.adapter.inventory.model import InventoryTensor
from s3lora.adapter.inventory.tensors import tensors_of
from s3lora.adapter.model import Adapter
from s3lora.errors import AdapterFileError

#: What is wrong with a key that holds the name of an adapter.
_NAME = "lora_A.NAME"


def plain_names(
    adapter: Adapter, dropped: Container[str] = (), *, default: bool = False
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return new names of the tensors that need one, but for those that are `dropped`, and what to tell of them.

    `default` takes off the name `default` as well, which PEFT finds and others do not.

    What is no part of a module follows where the keys of modules have the same fault: alone it may be of another model.

    Raises AdapterFileError if two tensors would get one name.
    """
    if adapter.format != "peft":
        return {}, ()
    saved_by_peft = "peft_type" in (adapter.config or {})
    tensors = [tensor for tensor in tensors_of(adapter, {}) if tensor.name not in dropped]
    of_modules = {name for module in adapter.modules for name in module.tensor_names}
    faults = {tensor.name: _faults(tensor.name, saved_by_peft) for tensor in tensors}
    known = {fault for name in of_modules for fault in faults.get(name, ())}
    renamed: dict[str, str] = {}
    counts: dict[str, int] = {}
    for tensor in tensors:
        found = faults[tensor.name]
        if found and known.issuperset(found) and (tensor.name in of_modules or _is_of_model(tensor)):
            renamed[tensor.name] = _plain(tensor.name, saved_by_peft)
            counts.update({fault: counts.get(fault, 0) + 1 for fault in found})
    named = _named(adapter, saved_by_peft=saved_by_peft, default=default)
    for name in sorted(of_modules & faults.keys()) if named else ():
        plain = without_name(renamed.get(name, name), named or "")
        if plain != renamed.get(name, name):
            renamed[name] = plain
            counts[_NAME] = counts.get(_NAME, 0) + 1
    _refuse_equal([(renamed.get(tensor.name, tensor.name), tensor.name) for tensor in tensors], adapter.name)
    return renamed, tuple(_note(fault, count) for fault, count in counts.items())


def _named(adapter: Adapter, *, saved_by_peft: bool, default: bool) -> str | None:
    """Return the adapter's name in its keys, None where PEFT finds it, unless it is `default`, or there is no name."""
    names = [*adapter_names(name for module in adapter.modules for name in module.tensor_names)]
    kept = not default and adapter.picked is None
    if not saved_by_peft or len(names) != 1 or (names[0] == DEFAULT and kept):
        return None
    return names[0]


def _faults(name: str, saved_by_peft: bool) -> tuple[str, ...]:
    """Return the wrappers in a name, and an empty one where it lacks the prefix that PEFT writes."""
    wrappers = unwrapped(name)[1]
    return (*wrappers, "") if saved_by_peft and PREFIX not in name else wrappers


def _plain(name: str, saved_by_peft: bool) -> str:
    path = unwrapped(name)[0]
    return f"{PREFIX}{path}" if saved_by_peft or PREFIX in name else path


def _is_of_model(tensor: InventoryTensor) -> bool:
    """Return whether it is a part of the model, and not a file's own, as embeddings of tokens or shared factors are."""
    return tensor.role not in ("unknown", "tokens", "factor") or ".token_adapter." in tensor.name


def _refuse_equal(names: list[tuple[str, str]], label: str) -> None:
    seen: dict[str, str] = {}
    for new, old in names:
        if new in seen:
            raise AdapterFileError(
                f"is the same tensor as {seen[new]} once the wrapper is taken off", file=label, module=old
            )
        seen[new] = old


def _note(fault: str, count: int) -> str:
    one = "1 key" if count == 1 else f"{count} keys"
    if fault == _NAME:
        return f"{one} held the name of the adapter, which PEFT gives anew when it loads one: written without"
    if not fault:
        return f"{one} lacked `{PREFIX}`, without which PEFT applies nothing of them: written with it"
    held = "twice" if f"{fault}." == PREFIX else "inside"
    what = f"`{fault}` {held}" if held == "twice" else f"`{fault}`"
    return f"{one} held {what}, which comes from {told(fault)} and keeps PEFT from applying them: written without"
