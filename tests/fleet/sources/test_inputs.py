"""From inputs to the URIs of adapters: folders, patterns and lists on this machine."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3lora.errors import AdapterFileError, NothingToAuditError, UsageError
from s3lora.fleet.sources.discover import BASE_MODEL
from s3lora.fleet.sources.inputs import Found, expand
from s3lora.fleet.sources.listing import Folder, grouped, local_lister, walk
from tests.command import environment
from tests.support import make_adapter, shared

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def touch(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()


def uris(*inputs: str) -> list[str]:
    found = list(expand(inputs))
    assert [one.error for one in found] == [None] * len(found)
    return [one.uri for one in found]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_run_with_checkpoints(here: Path) -> None:
    touch(here, *(f"runs/a/{step}{CONFIG}" for step in ("", "checkpoint-200/", "checkpoint-1000/", "final/")))
    touch(here, *(f"runs/a/checkpoint-200/{name}" for name in (WEIGHTS, "optimizer.pt", "rng_state.pth")))
    touch(here, "runs/a/.git/adapter_model.safetensors", "runs/a/wandb/x/adapter_model.safetensors")
    expected = ["runs/a/checkpoint-200", "runs/a/checkpoint-1000", "runs/a/final", "runs/a"]
    assert uris("runs") == expected
    assert uris("./runs/") == [f"./{uri}" for uri in expected]
    assert uris("runs/a/final") == ["runs/a/final"]
    assert uris("runs", "runs/a/final", "runs/") == expected, "each once"


def test_what_is_skipped_is_told_with_its_reason(here: Path) -> None:
    touch(here, "base/config.json", "base/model-00001-of-00002.safetensors", "a/adapter_model.bin", "a/optimizer.pt")
    skipped: list[tuple[str, str]] = []
    assert list(expand(["."], on_skip=lambda *told: skipped.append(told))) == [Found("./a")]
    assert Counter(reason for _, reason in skipped)[BASE_MODEL] == 1
    assert ("./base", BASE_MODEL) in skipped
    assert len(skipped) == 2
    (alone,) = expand(["base"])
    assert isinstance(alone.error, NothingToAuditError)
    assert "base model: 1" in str(alone.error)


def test_one_bad_input_does_not_stop_the_others(here: Path) -> None:
    make_adapter(here / "good", {"layers.0.q_proj": (4, 4, 2)})
    (here / "empty").mkdir()
    touch(here, "notes.md")
    inputs = ["", "nowhere", "empty", "no*where", "a\0b", "nope://x/y", "hf://a b", "notes.md", "good"]
    found = list(expand(inputs))
    assert [one.uri for one in found] == inputs
    kinds = [UsageError, AdapterFileError, NothingToAuditError, NothingToAuditError, UsageError, UsageError]
    assert [type(one.error) for one in found[:6]] == kinds
    assert found[-2:] == [Found("notes.md"), Found("good")]
    for one in found[:6]:
        assert str(one.error).isprintable()


def test_a_folder_that_may_not_be_listed(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(here, f"runs/a/{WEIGHTS}", f"runs/b/{WEIGHTS}")
    scandir = os.scandir

    def refused(path: str) -> Iterator[os.DirEntry[str]]:
        if path.endswith("a"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refused)  # for root may list everything
    first, second = expand(["runs"])
    assert first.uri == "runs/a"
    assert "Permission denied" in str(first.error)
    assert second == Found("runs/b")


def test_links(here: Path) -> None:
    """The cache of a model hub: files are links into a folder of blobs, and folders may be links in a circle."""
    touch(here, "hub/models--x--y/blobs/123", "hub/models--x--y/refs/main")
    snapshot = here / "hub/models--x--y/snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    for name in (CONFIG, WEIGHTS):
        (snapshot / name).symlink_to("../../blobs/123")
    (snapshot / "loop").symlink_to("..")
    (here / "hub/self").symlink_to(".")
    touch(here, "lost/README.md")
    (here / "lost" / WEIGHTS).symlink_to("gone")
    (here / "lost/circle.safetensors").symlink_to("circle.safetensors")
    assert uris("hub") == [f"hub/models--x--y/snapshots/{'a' * 40}"]
    assert uris("lost") == ["lost"], "an adapter whose file is gone is told, not dropped"
    assert uris("hub/*") == [*uris("hub"), f"hub/self/models--x--y/snapshots/{'a' * 40}"]
    assert uris("hub/**/snapshots") == uris("hub"), "without end otherwise"
    os.mkfifo(here / "lost" / "adapter_model.bin")


def test_patterns(here: Path) -> None:
    touch(here, *(f"runs/{run}/{step}/{WEIGHTS}" for run in ("a", "b") for step in ("checkpoint-1", "final")))
    touch(here, "runs/c/adapters.safetensors", f"runs/c/{WEIGHTS}", "runs/mlx/0000100_adapters.safetensors")
    touch(here, "runs/base/config.json", "runs/base/model.safetensors", "runs/brackets[1]/lora.safetensors")
    assert uris("runs/*/final") == ["runs/a/final", "runs/b/final"]
    assert uris("runs/[ab]") == [f"runs/{r}/{s}" for r in ("a", "b") for s in ("checkpoint-1", "final")]
    assert uris("**/checkpoint-?") == ["runs/a/checkpoint-1", "runs/b/checkpoint-1"]
    assert uris(f"runs/*/*/{WEIGHTS}") == uris("runs/[ab]"), "the folder is the adapter"
    assert uris("runs/c/*.safetensors") == ["runs/c"]
    assert uris("runs/c/adapters.*") == ["runs/c/adapters.safetensors"], "and not the weights that a loader prefers"
    assert uris("runs/mlx/0000100*") == ["runs/mlx/0000100_adapters.safetensors"]
    assert uris("runs/brackets[1]") == ["runs/brackets[1]/lora.safetensors"], "which is there by this name"
    assert uris("**") == uris("runs")
    assert uris(f"{here}/runs/?/final") == [f"{here}/runs/a/final", f"{here}/runs/b/final"]
    assert uris(f"file://{here}/runs/?/final") == [f"file://{here}/runs/a/final", f"file://{here}/runs/b/final"]


def test_text_lists(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(here, f"a/{WEIGHTS}", f"runs/x/{WEIGHTS}", "notes.md")
    lines = (
        "\ufeffa\n\n  # a comment\nnotes.md \r\n../up/a\ns3://bucket/run [1]\nnowhere\nother.txt\nruns/*\na\nb\x1b[2J"
    )
    (here / "list.txt").write_text(lines, encoding="utf-8", newline="")
    expected = ["a", "notes.md", "../up/a", "s3://bucket/run [1]", "nowhere", "other.txt", "runs/x", "b\x1b[2J"]
    assert uris("list.txt") == expected, "a line is taken as it is, without looking: its error comes when it is opened"
    assert uris("list.txt", "a", "runs") == expected
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a\ncaf\xe9\n")))
    assert uris("-") == ["a", "caf\udce9"], "names need be no UTF-8"
    (here / "long.txt").write_bytes(b"a\n" + b"x" * 10**6)
    first, second = expand(["long.txt"])
    assert first == Found("a")
    assert "line 2 is longer" in str(second.error)
    (missing,) = expand(["gone.txt"])
    assert "no such file" in str(missing.error)


@pytest.mark.parametrize("column", ["uri", "path", "where"])
def test_parquet_lists(here: Path, column: str) -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    names = [f"adapters/{i}" for i in range(20_000)]
    table = {column: [*names, None, " ", names[0]], "size": list(range(len(names) + 3))}
    parquet.write_table(arrow.table(table), here / "list.parquet", row_group_size=5000)
    assert uris("list.parquet") == names
    parquet.write_table(arrow.table({column: arrow.array(["a"]).dictionary_encode()}), here / "list.parquet")
    assert uris("list.parquet") == ["a"]


def test_parquet_files_that_are_no_lists(here: Path) -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(arrow.table({"a": ["x"], "b": ["y"]}), here / "two.parquet")
    parquet.write_table(arrow.table({"a": [1]}), here / "none.parquet")
    (here / "text.parquet").write_text("a\n")
    for found, reason in zip(
        expand(["two.parquet", "none.parquet", "text.parquet"]), ("2 columns", "no column", "no readable"), strict=True
    ):
        assert reason in str(found.error)


def test_hostile_names(here: Path) -> None:
    names = ["new\nline", "esc\x1b[31m", "-", "~", "a b", "ünïcode", "c" * 200, "..."]
    for name in names:
        touch(here, f"x/{name}/{WEIGHTS}")
    touch(here, "x/-.txt")
    assert set(uris("x")) == {f"x/{name}" for name in names if not name.startswith(".")}


def test_the_real_adapters() -> None:
    root = f"{shared()}/adapters"
    folders = ("bloom-fused-qkv-bin", "broken-lfs-pointer", "dialogpt-synthetic-peft", "distilgpt2-peft")
    more = ("gpt-oss-20b-peft", "gpt2-classifier-peft", "token-classifier-gqa-peft")
    files = (
        *(f"qwen25-mlx/0000{n}00_adapters.safetensors" for n in (1, 2)),
        *(f"sam-vit-custom-r{n}/lora_rank{n}.safetensors" for n in (2, 8)),
        "sd1-mixed-dtype/lora_disney_inpainting.safetensors",
    )
    assert set(uris(root)) == {f"{root}/{name}" for name in (*folders, *more, *files)}


PATHS = st.lists(
    st.tuples(
        st.lists(st.sampled_from(["a", "b", "checkpoint-1", "checkpoint-10", ".h"]), max_size=3),
        st.sampled_from([CONFIG, WEIGHTS, "x.safetensors", "config.json", "model.safetensors", "README.md"]),
    ).map(lambda found: "/".join([*found[0], found[1]])),
    unique=True,
    max_size=12,
)


def as_tree(paths: list[str]) -> Iterator[Folder]:
    """Walk made-up paths as a file system would be walked."""

    def listed(parts: tuple[str, ...]) -> tuple[list[str], list[str]]:
        below = [path.split("/")[len(parts) :] for path in paths if tuple(path.split("/")[: len(parts)]) == parts]
        return [path[0] for path in below if len(path) == 1], list({path[0] for path in below if len(path) > 1})

    return walk(listed)


@given(PATHS)
def test_keys_of_an_object_store_make_the_folders_that_a_walk_finds(paths: list[str]) -> None:
    found = list(grouped(sorted(paths)))
    assert sorted(repr(folder) for folder in found if folder.names) == sorted(
        repr(Folder(folder.parts, folder.adapters, tuple(sorted(folder.names))))
        for folder in as_tree(paths)
        if folder.names
    )
    seen: set[tuple[str, ...]] = set()
    for folder in found:
        assert folder.parts not in seen
        assert not any(earlier == folder.parts[: len(earlier)] for earlier in seen), "a folder after those in it"
        seen.add(folder.parts)


@given(PATHS)
def test_every_adapter_is_found_once_whatever_the_tree(paths: list[str]) -> None:
    shown = [path for path in paths if not path.startswith(".") and "/." not in path]
    folders = list(as_tree(paths))
    assert len({folder.parts for folder in folders}) == len(folders)
    whole = {"/".join(folder.parts) for folder in folders if folder.adapters.whole}
    assert whole == {
        os.path.dirname(path) for path in shown if os.path.basename(path) in (CONFIG, WEIGHTS)
        and not _several_loose(path, shown)
    }  # fmt: skip


def _several_loose(path: str, paths: list[str]) -> bool:
    """Return whether a folder has a configuration and two weights files of no known name, so that each is one."""
    names = {os.path.basename(other) for other in paths if os.path.dirname(other) == os.path.dirname(path)}
    return WEIGHTS not in names and {"x.safetensors", "model.safetensors"} <= names


def test_a_deep_and_a_wide_tree_take_little_memory(tmp_path: Path) -> None:
    for i in range(1000):
        touch(tmp_path, f"wide/{i}/{CONFIG}")
    touch(tmp_path, "/".join(["deep"] + ["d"] * 300) + f"/{CONFIG}")
    code = (
        "import sys, tracemalloc\nfrom s3lora.fleet.sources.inputs import expand\n"
        "list(expand(['nothing']))\ntracemalloc.start()\n"
        "print(sum(1 for _ in expand([sys.argv[1]])), tracemalloc.get_traced_memory()[1])\n"
        "assert not {'pyarrow', 'fsspec', 'huggingface_hub'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, env=environment(), check=True, text=True
    )
    count, peak = map(int, done.stdout.split())
    assert count == 1001
    assert peak < 1_000_000, "some hundred bytes for each folder that waits, and nothing for those that are done"


def test_listing_a_vanished_folder(tmp_path: Path) -> None:
    (folder,) = walk(local_lister(str(tmp_path / "gone")))
    assert folder.error is not None


def test_an_address_that_differs_in_a_secret_alone_is_told() -> None:
    skipped: list[tuple[str, str]] = []
    stem = "https://example.org/adapter_model.safetensors?key=customer-000"
    given = [f"{stem}1-adapter", f"{stem}2-adapter", f"{stem}1-adapter"]
    assert [one.uri for one in expand(given, on_skip=lambda *told: skipped.append(told))] == given[:1]
    assert skipped == [(given[1], "differs from an address before it in a secret alone")]
