"""What wrappers put around keys, and what is left without them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3lora.adapter.formats.wrappers import PREFIX, WRAPPERS, told, unwrapped

PLAIN = st.sampled_from(
    ["model", "layers", "0", "11", "self_attn", "q_proj", "_private", "modules", "base_models", "lm_head"]
)
ANY = st.one_of(PLAIN, st.sampled_from([*WRAPPERS, "module", "base_model.model"]), st.text("ab._", max_size=3))


@given(names=st.lists(PLAIN, min_size=1, max_size=6))
def test_ordinary_paths_are_left_alone(names: list[str]) -> None:
    path = ".".join(names)
    assert unwrapped(PREFIX + path) == (path, ())


@given(names=st.lists(ANY, min_size=1, max_size=8))
def test_what_is_unwrapped_has_no_wrapper(names: list[str]) -> None:
    path, found = unwrapped(".".join(names))
    assert unwrapped(PREFIX + path) == (path, ())
    assert len(set(found)) == len(found)
    assert all(told(wrapper) for wrapper in found)


@given(
    names=st.lists(PLAIN, min_size=1, max_size=5),
    wrappers=st.lists(st.sampled_from(list(WRAPPERS)), max_size=3),
    at=st.lists(st.integers(0, 5), min_size=3, max_size=3),
    ddp=st.booleans(),
    twice=st.booleans(),
)
def test_wrappers_anywhere_are_taken_off_and_named(
    names: list[str], wrappers: list[str], at: list[int], ddp: bool, twice: bool
) -> None:
    path, wrapped = ".".join(names), [*names]
    for wrapper, place in zip(wrappers, at, strict=False):
        wrapped.insert(min(place, len(wrapped) - 1), wrapper)
    key = f"{'module.' * ddp}{PREFIX}{PREFIX * twice}{'.'.join(wrapped)}"
    wanted = {*wrappers, *(["module"] * ddp), *(["base_model.model"] * twice)}
    assert unwrapped(key) == (path, tuple(unwrapped(key)[1]))
    assert set(unwrapped(key)[1]) == wanted


@pytest.mark.parametrize(
    ("key", "path", "wrappers"),
    [
        ("_orig_mod.base_model.model.lm_head", "lm_head", ("_orig_mod",)),
        ("base_model.model._orig_mod.lm_head", "lm_head", ("_orig_mod",)),
        ("base_model.model.model.layers.0._orig_mod.q_proj", "model.layers.0.q_proj", ("_orig_mod",)),
        ("module._orig_mod.base_model.model.x", "x", ("module", "_orig_mod")),
        ("_orig_mod.module.base_model.model.x", "x", ("_orig_mod", "module")),
        ("base_model._orig_mod.model.lm_head", "lm_head", ("_orig_mod",)),
        ("module.module.x", "x", ("module",)),
        ("base_model.model.module.x", "module.x", ()),
        ("base_model.model.x.module.y", "x.module.y", ()),
        ("module", "module", ()),
        ("module.", "module.", ()),
        ("_orig_mod", "_orig_mod", ()),
        ("base_model.model.x._orig_mod", "x._orig_mod", ()),
        ("", "", ()),
        ("base_model.model.", "", ()),
    ],
)
def test_keys(key: str, path: str, wrappers: tuple[str, ...]) -> None:
    assert unwrapped(key) == (path, wrappers)


def test_many_wrappers_cost_little() -> None:
    key = "_orig_mod." * 1000 + "x"
    assert unwrapped(key) == ("x", ("_orig_mod",))
    assert unwrapped(PREFIX * 1000 + "x") == ("x", ("base_model.model",))
