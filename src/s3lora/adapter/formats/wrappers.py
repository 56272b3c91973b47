"""Prefixes of keys that say how a model was wrapped when it was saved, and that no other model has.

PEFT's keys begin with `base_model.model.`, once. torch.compile, FSDP, activation checkpointing and DDP put names of
their own in front or in between, and PEFT then applies nothing of the file, with a warning only (seen in 0.21.2).
"""

from __future__ import annotations

PREFIX = "base_model.model."
#: Names that a wrapper puts anywhere in a path → what puts it there.
WRAPPERS = {
    "_orig_mod": "torch.compile",
    "_fsdp_wrapped_module": "FSDP",
    "_fpw_module": "FSDP",
    "_checkpoint_wrapped_module": "activation checkpointing",
    "_forward_module": "Lightning Fabric",
}
#: What DDP and DataParallel put in front of everything.
PARALLEL = "module."


def unwrapped(key: str) -> tuple[str, tuple[str, ...]]:
    """Return the path in the base model, and the wrappers found around it; PEFT's own prefix is none of them.

    >>> unwrapped("base_model.model.model.layers.0.q_proj")
    ('model.layers.0.q_proj', ())
    >>> unwrapped("module.base_model.model._orig_mod.lm_head")
    ('lm_head', ('module', '_orig_mod'))
    >>> unwrapped("base_model.model.base_model.model.lm_head")
    ('lm_head', ('base_model.model',))
    """
    path = key.removeprefix(PREFIX)
    if not (path.startswith(("_", PARALLEL, PREFIX)) or "._" in path):  # as nearly always, and there are many
        return path, ()
    *names, last = key.split(".")
    found = [name for name in names if name in WRAPPERS]
    path = ".".join([*(name for name in names if name not in WRAPPERS), last])
    prefixed = False
    while True:
        if path.startswith(PREFIX):
            if prefixed:
                found.append(PREFIX.removesuffix("."))
            prefixed, path = True, path.removeprefix(PREFIX)
        elif not prefixed and path.startswith(PARALLEL) and path != PARALLEL:
            found.append(PARALLEL.removesuffix("."))
            path = path.removeprefix(PARALLEL)
        else:
            break
    return path, tuple(sorted(dict.fromkeys(found), key=lambda name: key.find(f"{name}.")))


def told(wrapper: str) -> str:
    """Return what puts a wrapper around keys, in words."""
    if wrapper == PARALLEL.removesuffix("."):
        return "DDP or DataParallel"
    return WRAPPERS.get(wrapper, "saving a model that PEFT had wrapped twice")
