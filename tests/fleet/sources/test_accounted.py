"""Every file that could be weights, wherever it lies, is told once: as an adapter, with its folder, or as skipped."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s3lora.adapter.inventory import kinds
from s3lora.fleet.sources.discover import BASE_MODEL, HIDDEN, LINK, SHARD, TRAINING, UNNAMED, UNREAD
from s3lora.fleet.sources.inputs import expand
from s3lora.fleet.sources.listing import everywhere, grouped, local_lister, walk

FOLDERS = (
    "",
    "a",
    "b/checkpoint-1",
    "b/checkpoint-2/inner",
    ".cache",
    "a/.git/objects",
    "wandb/run",
    "x.old",
    "runs/c",
)
STEMS = (
    *("adapter_model", "adapters", "pytorch_lora_weights", "model", "pytorch_model", "my-lora", "weights", ".hidden"),
    *("optimizer", "scheduler", "rng_state_0", "training_args", "0000100_adapters", "consolidated.00", "adapter_0"),
    *("model-00001-of-00002", "my-lora-00001-of-00002", "adapter_model-00001-of-00002"),
)
ENDS = (*kinds.WEIGHTS, *kinds.INDEXES, ".SAFETENSORS", ".Pt", ".txt", ".json", ".md")
BESIDE = ("adapter_config.json", "config.json", "model_index.json", "README.md", "tokenizer.json")
NAMES = st.one_of(st.builds("".join, st.tuples(st.sampled_from(STEMS), st.sampled_from(ENDS))), st.sampled_from(BESIDE))
PATHS = st.builds(lambda folder, name: f"{folder}/{name}".lstrip("/"), st.sampled_from(FOLDERS), NAMES)


def told(inputs: list[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """Return the adapters that the inputs give, and what is skipped."""
    skipped: list[tuple[str, str]] = []
    found = [one.uri for one in expand(inputs, on_skip=lambda *pair: skipped.append(pair)) if one.error is None]
    return found, skipped


def accounts(path: str, rows: list[str], skipped: list[tuple[str, str]]) -> list[str]:
    """Return in which ways a file is told of: by itself, or where it is not, with its folder."""
    alone = [*(["row"] * rows.count(path)), *(reason for uri, reason in skipped if uri == path)]
    folder = os.path.dirname(path)
    whole = [*(["row"] * rows.count(folder)), *(reason for uri, reason in skipped if uri == folder)]
    return alone or [f"folder: {one}" for one in whole]


def is_meant(given: str, path: str) -> bool:
    """Return whether a pattern means a file: none means a name that begins with a dot."""
    return not any(part.startswith(".") for part in path.split("/")) and (
        "t" in path.rpartition(".")[2] or "t" not in given
    )


@settings(max_examples=60)
@given(st.sets(PATHS, min_size=1, max_size=14))
def test_every_file_is_told_once(paths: set[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for path in paths:
            file = Path(folder, "in", path)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
        root = f"{folder}/in"
        weights = [path for path in paths if path.lower().endswith((*kinds.WEIGHTS, *kinds.INDEXES))]
        for given in (root, f"{folder}/*", f"{root}/**", f"{root}/**/*.*t*"):
            rows, skipped = told([given])
            for path in weights:
                if not given.startswith(f"{root}/") or is_meant(given, path):
                    assert len(accounts(f"{root}/{path}", rows, skipped)) == 1, (given, path, rows, skipped)
        here = [(one.parts, one.adapters) for one in walk(local_lister(root)) if one.names]
        assert [(one.parts, one.adapters) for one in grouped(sorted(paths)) if one.names] == unordered(here, paths)


def unordered(here: list[tuple[tuple[str, ...], object]], paths: set[str]) -> list[tuple[tuple[str, ...], object]]:
    """Return what a walk found in the order in which the sorted keys of a bucket end their folders."""
    order = [one.parts for one in grouped(sorted(paths), everywhere)]
    return sorted(here, key=lambda pair: order.index(pair[0]))


@pytest.mark.parametrize(
    ("path", "how"),
    [
        ("a/adapters.npz", "folder: row"),
        ("a/lora.npz", "row"),
        ("a/weights.npz", UNNAMED),
        ("a/my_lora.ckpt", "row"),
        ("a/weights.pt", UNNAMED),
        ("a/model.onnx", UNREAD),
        ("a/flax_model.msgpack", f"folder: {BASE_MODEL}"),
        ("a/model.safetensors.index.json", f"folder: {BASE_MODEL}"),
        ("a/training_args.bin", TRAINING),
        (".cache/adapter_model.safetensors", HIDDEN),
        ("a/.git/x/adapter_model.bin", HIDDEN),
        ("a/._adapter_model.safetensors", HIDDEN),
    ],
)
def test_how_a_file_is_told(tmp_path: Path, path: str, how: str) -> None:
    file = tmp_path / path
    file.parent.mkdir(parents=True)
    file.touch()
    rows, skipped = told([f"{tmp_path}"])
    assert accounts(str(file), rows, skipped) == [how]


def test_shards_go_with_their_index(tmp_path: Path) -> None:
    for name in ("my-lora.safetensors.index.json", "my-lora-00001-of-00001.safetensors"):
        (tmp_path / name).touch()
    rows, skipped = told([str(tmp_path)])
    assert rows == [f"{tmp_path}/my-lora.safetensors.index.json"]
    assert skipped == [(f"{tmp_path}/my-lora-00001-of-00001.safetensors", SHARD)]


def test_links_to_folders_and_pipes_are_told(tmp_path: Path) -> None:
    (tmp_path / "in" / "pipe").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "adapter_model.safetensors").touch()
    (tmp_path / "in" / "linked").symlink_to("../elsewhere")
    os.mkfifo(tmp_path / "in" / "pipe" / "adapter_model.safetensors")
    rows, skipped = told([f"{tmp_path}/in"])
    assert rows == [f"{tmp_path}/in/pipe"]
    assert skipped == [(f"{tmp_path}/in/linked/", LINK)]


def test_a_hidden_folder_that_cannot_be_listed_is_no_error(tmp_path: Path) -> None:
    def listed(parts: tuple[str, ...]) -> tuple[list[str], list[str]]:
        if not parts:
            return ["adapter_model.safetensors"], [".private"]
        return local_lister(str(tmp_path / "gone"))(parts)

    inner, root = walk(listed)
    assert (inner.error, inner.adapters.skipped) == (None, (("", HIDDEN),))
    assert root.adapters.whole
