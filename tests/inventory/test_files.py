"""Every file of a folder is listed with what it is, and nothing in a folder runs, hangs or raises."""

from __future__ import annotations

import json
import os
import pickle
import socket
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from s3lora.adapter.inventory import walk as walking
from s3lora.adapter.inventory.files import list_files
from s3lora.adapter.inventory.model import InventoryFile
from s3lora.adapter.open import open_adapter
from s3lora.errors import S3LoRAError
from tests.hostile.bad_files import sparse
from tests.support import make_adapter, safetensors_bytes, shared, write_safetensors

MODULES = {f"model.layers.{i}.self_attn.{p}_proj": (6, 8, 2) for i in range(2) for p in "qv"}
WEIGHTS = "adapter_model.safetensors"
CALL = f"{os.system.__module__}.system"


class Call:
    """Pickles as a call of the shell, and does no harm."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("true",)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_adapter(tmp_path / "adapter", MODULES)


def listed(path: Path) -> dict[str, InventoryFile]:
    with open_adapter(path) as adapter:
        files, unlisted = list_files(adapter)
    assert [file.path for file in files] == sorted(file.path for file in files)
    assert unlisted == 0
    return {file.path: file for file in files}


def tensors_of(folder: Path) -> dict[str, Any]:
    with open_adapter(folder) as adapter:
        return {name: np.array(tensor.array()) for file in adapter.files for name, tensor in file.tensors.items()}


def save_torch(path: Path, tensors: dict[str, Any], **options: Any) -> None:
    torch = pytest.importorskip("torch")
    torch.save({name: torch.from_numpy(values.copy()) for name, values in tensors.items()}, path, **options)


def test_an_ordinary_folder(folder: Path) -> None:
    (folder / "README.md").write_text("---\nbase_model: x\n---\n")
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ messages[0].content }}"}))
    (folder / "tokenizer.json").write_text("{}")
    (folder / "spiece.model").write_bytes(b"\x0a\x0e\x0a\x05<unk>")
    files = listed(folder)
    assert {path: file.role for path, file in files.items()} == {
        "README.md": "other",
        "adapter_config.json": "configuration",
        WEIGHTS: "weights",
        "spiece.model": "tokenizer",
        "tokenizer.json": "tokenizer",
        "tokenizer_config.json": "tokenizer",
    }
    assert not [file for file in files.values() if file.runs or file.note or file.content]
    assert files[WEIGHTS].bytes == (folder / WEIGHTS).stat().st_size


def test_a_file_that_loaders_look_for_is_listed_with_its_folder(folder: Path) -> None:
    """Nobody loads the file alone: the loader is given the folder."""
    (folder / "evil.py").write_text("raise SystemExit")
    (folder / "other.safetensors").write_bytes((folder / WEIGHTS).read_bytes())
    with open_adapter(folder / WEIGHTS) as adapter:
        files, _ = list_files(adapter)
        assert not adapter.inventory.alone
    with open_adapter(folder) as adapter:
        assert list_files(adapter)[0] == files
    assert {"evil.py": "code", "other.safetensors": "other weights"}.items() <= {f.path: f.role for f in files}.items()


def test_a_file_of_another_name_is_listed_with_what_was_read_beside_it(folder: Path) -> None:
    (folder / "evil.py").write_text("raise SystemExit")
    (folder / WEIGHTS).rename(folder / "mine.safetensors")
    with open_adapter(folder / "mine.safetensors") as adapter:
        files, _ = list_files(adapter)
        assert adapter.inventory.alone
    assert [(file.path, file.role) for file in files] == [
        ("adapter_config.json", "configuration"),
        ("mine.safetensors", "weights"),
    ]


def test_other_weights_are_compared(folder: Path) -> None:
    tensors = tensors_of(folder)
    first = min(tensors)
    changed = {**tensors, first: tensors[first] + 1}
    save_torch(folder / "adapter_model.bin", tensors)
    save_torch(folder / "changed.pt", changed)
    write_safetensors(folder / "changed.safetensors", changed)
    write_safetensors(folder / "fewer.safetensors", {first: tensors[first]})
    write_safetensors(
        folder / "wider.safetensors", {name: values.astype("float64") for name, values in tensors.items()}
    )
    (folder / "copy.safetensors").hardlink_to(folder / WEIGHTS)
    (folder / "broken.safetensors").write_bytes(b"\0" * 40)
    (folder / "model.onnx").write_bytes(b"\x08\x07")
    (folder / "hidden").write_bytes(safetensors_bytes(changed))
    names = sorted(tensors)
    for i, part in enumerate((names[:3], names[3:]), 1):
        write_safetensors(folder / f"part-{i:05}-of-00002.safetensors", {name: tensors[name] for name in part})
        write_safetensors(folder / f"s{i}.safetensors", {name: changed[name] for name in part})
    table = {name: f"s{1 if name in names[:3] else 2}.safetensors" for name in names}
    (folder / "other.safetensors.index.json").write_text(json.dumps({"weight_map": table}))
    files = listed(folder)
    found = {path: file.content for path, file in files.items() if file.role == "other weights"}
    assert found == {
        "adapter_model.bin": "same",
        "broken.safetensors": "unreadable",
        "changed.pt": "different",
        "changed.safetensors": "different",
        "copy.safetensors": "same",
        "fewer.safetensors": "different",
        "hidden": "unreadable",
        "model.onnx": "unreadable",
        "other.safetensors.index.json": "different",
        "part-00001-of-00002.safetensors": "same",
        "part-00002-of-00002.safetensors": "same",
        "s1.safetensors": "different",
        "s2.safetensors": "different",
        "wider.safetensors": "different",
    }
    assert all(file.note for file in files.values() if file.content in ("different", "unreadable"))
    assert files["changed.pt"].note == f"{first} has other values"


def test_a_whole_file_is_compared_with_measured_shards(folder: Path) -> None:
    tensors = tensors_of(folder)
    (folder / WEIGHTS).unlink()
    (folder / "adapter_config.json").unlink()
    for i, name in enumerate(tensors):
        write_safetensors(folder / f"{i}.safetensors", {name: tensors[name]})
    table = {name: f"{i}.safetensors" for i, name in enumerate(tensors)}
    (folder / f"{WEIGHTS}.index.json").write_text(json.dumps({"weight_map": table}))
    save_torch(folder / "adapter_model.bin", tensors)
    files = listed(folder)
    assert files["adapter_model.bin"].content == "same"
    assert files[f"{WEIGHTS}.index.json"].role == "configuration"
    assert files["0.safetensors"].role == "weights"


def test_folders_within(folder: Path) -> None:
    torch = pytest.importorskip("torch")
    tensors = tensors_of(folder)
    make_adapter(folder / "reference", MODULES)
    make_adapter(folder / "runs" / "checkpoint-100", MODULES)
    torch.save({"state": {0: {"step": torch.zeros(1)}}}, folder / "runs" / "checkpoint-100" / "optimizer.pt")
    torch.save({"a": torch.zeros(1), "b": Call()}, folder / "reference" / "adapter_model.bin")
    (folder / "more").mkdir()
    write_safetensors(folder / "more" / "x.safetensors", tensors)
    (folder / ".git" / "objects").mkdir(parents=True)
    (folder / ".git" / "objects" / "x.py").write_text("")
    files = listed(folder)
    assert (files["reference/" + WEIGHTS].role, files["reference/" + WEIGHTS].content) == ("adapter", None)
    assert "another adapter, not measured" in files["runs/checkpoint-100/" + WEIGHTS].note
    assert files["runs/checkpoint-100/optimizer.pt"].role == "pickle"
    assert (files["reference/adapter_model.bin"].role, files["reference/adapter_model.bin"].runs) == ("pickle", (CALL,))
    assert (files["more/x.safetensors"].role, files["more/x.safetensors"].content) == ("other weights", "same")
    assert files[".git/"].note == "version control, not looked into"
    assert not [path for path in files if path.startswith(".git/") and path != ".git/"]


def test_pickles_are_told_by_name_and_by_content(folder: Path) -> None:
    torch = pytest.importorskip("torch")
    raw = pickle.dumps(Call())
    for name in (
        "training_args.bin",
        "a.pkl",
        "b.joblib",
        "c.dill",
        "tokenizer.json",
        "adapter_model.bin",
        "notes.txt",
    ):
        (folder / name).write_bytes(raw)
    (folder / "old.pkl").write_bytes(pickle.dumps(Call(), 0))
    np.save(folder / "objects.npy", np.array([Call()], object))
    np.savez(folder / "objects.npz", a=np.array([Call()], object))
    torch.save({"a": torch.zeros(2), "b": Call()}, folder / "zip.pt")
    torch.save({"a": torch.zeros(2)}, folder / "legacy.pt", _use_new_zipfile_serialization=False)
    torch.save({1: torch.zeros(2)}, folder / "scheduler.pt")
    (folder / "broken.pkl").write_bytes(b"not at all")
    files = {path: file for path, file in listed(folder).items() if file.role == "pickle"}
    named = {path for path, file in files.items() if CALL in file.runs}
    assert named == {
        *("training_args.bin", "a.pkl", "b.joblib", "c.dill", "tokenizer.json", "adapter_model.bin", "notes.txt"),
        *("old.pkl", "objects.npy", "objects.npz", "zip.pt"),
    }
    assert files.keys() - named == {"legacy.pt", "scheduler.pt", "broken.pkl"}
    assert files["legacy.pt"].runs == files["scheduler.pt"].runs == ()
    assert "has no opcode of a pickle" in files["broken.pkl"].note


def test_names_that_are_often_misused_are_not_hidden_by_many(folder: Path) -> None:
    names = b"".join(b"caaa%d\nx\n0" % i for i in range(300))
    (folder / "a.pkl").write_bytes(names + b"cposix\nsystem\n.")
    runs = listed(folder)["a.pkl"].runs
    assert len(runs) == 51
    assert "posix.system" in runs
    assert runs[-1] == "and 251 more"


def test_code(folder: Path) -> None:
    (folder / "modeling.py").write_text("")
    (folder / "lib.so.1").write_bytes(b"")
    (folder / "README").write_bytes(b"\x7fELF\x02")
    (folder / "start").write_text("#!/bin/sh\n")
    (folder / "page.ipynb").write_text("{}")
    (folder / "site.pth").write_text("import os; os.system('true')\n/a/path\n")
    files = listed(folder)
    assert {path for path, file in files.items() if file.role == "code"} == {
        *("modeling.py", "lib.so.1", "README", "start", "page.ipynb", "site.pth")
    }
    assert files["site.pth"].runs == ("import os; os.system('true')",)


@pytest.mark.parametrize(
    ("name", "content", "runs"),
    [
        ("config.json", {"auto_map": {"AutoModel": "modeling.Own"}}, ("auto_map: modeling.Own",)),
        ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["t.Slow", None]}}, ("auto_map: t.Slow",)),
        ("config.json", {"a": [{"b": {"auto_map": {"x": "y--z.W"}}}]}, ("auto_map: y--z.W",)),
        ("generation_config.json", {"trust_remote_code": True}, ("trust_remote_code: true",)),
        ("generation_config.json", {"trust_remote_code": False}, ()),
        ("config.json", {"auto_mapping": {"base_model_class": "E", "parent_library": "m"}}, ("auto_mapping: m",)),
        ("config.json", {"custom_pipelines": {"x": {"impl": "h.P", "pt": ["A"]}}}, ("custom_pipelines: h.P",)),
        ("config.json", {"megatron_core": "evil.core"}, ("megatron_core: evil.core",)),
        ("config.json", {"megatron_core": "megatron.core"}, ()),
        ("config.json", {"auto_mapping": {"base_model_class": "E", "parent_library": "transformers.models.x"}}, ()),
        ("train_config.json", {"optim": {"_target_": "os.system"}}, ("_target_: os.system",)),
        ("train_config.json", {"optim": {"_target_": "torch.optim.AdamW"}}, ()),
        ("model_index.json", {"_class_name": "X", "unet": ["mine", "U"]}, ("unet: mine.U",)),
        ("model_index.json", {"_class_name": "X", "unet": ["diffusers", "U"], "vae": [None, None]}, ()),
        ("extra.json", {"chat_template": "{{ x.__init__ }}"}, ("chat template: the attribute __init__",)),
        (
            "tokenizer_config.json",
            {"chat_template": [{"name": "default", "template": "{{ a }}"}, {"name": "rag", "template": "{{ x._b }}"}]},
            ("chat template: the attribute _b",),
        ),
        (
            "chat_template.json",
            {"chat_template": {"tool_use": "{% include 'x' %}"}},
            ("chat template: another file (include)",),
        ),
    ],
)
def test_what_a_configuration_points_to(folder: Path, name: str, content: Any, runs: tuple[str, ...]) -> None:
    (folder / name).write_text(json.dumps(content))
    assert listed(folder)[name].runs == runs


@pytest.mark.parametrize(
    ("text", "runs"),
    [
        ("a: {_target_: os.system, b: 1}", ("_target_: os.system",)),
        ("a: [x, {b: 1, '_target_' : os.system}]", ("_target_: os.system",)),
        ("? _target_\n: os.system", ("_target_: os.system",)),
        ("- - _target_:\n      os.system", ("_target_: os.system",)),
        ('"_tar\\x67et_": os.system', ('"_tar\\x67et_"',)),
        (
            "a: !<tag:yaml.org,2002:python/object/apply:os.system> [x]",
            ("!<tag:yaml.org,2002:python/object/apply:os.system>",),
        ),
        (
            "%TAG !p! tag:yaml.org,2002:python/\n---\na: !p!object/apply:os.system [x]",
            ("%TAG !p! tag:yaml.org,2002:python/",),
        ),
        ("a: !!pyth%6Fn/object/apply:os.system [x]", ("!!pyth%6F",)),
        ("a: !important\nb: '100%41'\nc: {target: x, text: \"a\\u00e9\"}\nd: {_target_: torch.optim.AdamW}", ()),
    ],
)
def test_what_yaml_points_to_however_it_is_written(folder: Path, text: str, runs: tuple[str, ...]) -> None:
    (folder / "train.yaml").write_text(text)
    assert listed(folder)["train.yaml"].runs == runs


def test_configurations_that_cannot_be_read_to_the_end(folder: Path) -> None:
    (folder / "a.json").write_text("[" * 100_000)
    (folder / "nan_config.json").write_text('{"x": NaN, "auto_map": {"a": "b.C"}}')
    (folder / "long_config.json").write_text(json.dumps({"a": "x" * (9 << 20)}))
    (folder / "train.yaml").write_text(
        "a:\n  _target_: os.system\nb: !!python/object/apply:os.system [x]\n" + "\n" * 100_000
    )
    files = listed(folder)
    assert "not valid JSON" in files["a.json"].note
    assert files["nan_config.json"].runs == ("auto_map: b.C",)
    assert "were not parsed" in files["long_config.json"].runs[0]
    assert files["train.yaml"].runs == ("!!python/object/apply:os.system", "_target_: os.system")


def test_links_pipes_and_sockets(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "outside.bin").write_bytes(b"x")
    (folder / "adapter_model.bin").symlink_to(tmp_path / "outside.bin")
    (folder / "evil.py").symlink_to(tmp_path / "outside.bin")
    (folder / "lost").symlink_to("nowhere")
    (folder / "loop").symlink_to(folder)
    (folder / "again.safetensors").symlink_to(WEIGHTS)
    os.mkfifo(folder / "pipe.safetensors")
    with socket.socket(socket.AF_UNIX) as one:
        here = os.getcwd()
        os.chdir(folder)  # the name of a socket is short
        try:
            one.bind("socket.pkl")
        finally:
            os.chdir(here)
    files = listed(folder)
    out = files["adapter_model.bin"]
    assert (out.role, out.content, out.note) == (
        "other weights",
        "unreadable",
        "a link out of the folder, not followed",
    )
    assert (files["evil.py"].role, files["lost"].note) == ("code", "a link that leads nowhere")
    assert files["loop/"].note == "a link to a folder, not followed"
    assert files["again.safetensors"].content == "same"
    assert (files["pipe.safetensors"].role, files["pipe.safetensors"].note) == (
        "other weights",
        "a named pipe, not opened",
    )
    assert (files["socket.pkl"].role, files["socket.pkl"].note) == ("pickle", "a socket, not opened")


def test_a_snapshot_of_a_hub_is_links_to_blobs(tmp_path: Path) -> None:
    made = make_adapter(tmp_path / "made", MODULES)
    (made / "run.py").write_text("")
    blobs, snapshot = tmp_path / "models--a--b" / "blobs", tmp_path / "models--a--b" / "snapshots" / "123"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for i, file in enumerate(sorted(made.iterdir())):
        file.rename(blobs / f"{i}")
        (snapshot / file.name).symlink_to(f"../../blobs/{i}")
    files = listed(snapshot)
    assert {path: file.role for path, file in files.items()} == {
        "adapter_config.json": "configuration",
        WEIGHTS: "weights",
        "run.py": "code",
    }
    assert not [file.note for file in files.values() if file.note]


def test_bounds_of_a_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walking, "MAX_FILES", 20)
    for i in range(50):
        (folder / f"{i:03}.txt").write_text("")
    (folder / "zzz.pkl").write_bytes(pickle.dumps(Call()))
    (folder / "deep").mkdir()
    (folder / "deep" / "x").write_text("")
    with open_adapter(folder) as adapter:
        files, unlisted = list_files(adapter)
    assert (len(files), unlisted) == (20, 50 + 3 + 1 - 20)
    assert {"zzz.pkl", WEIGHTS} <= {file.path for file in files}, "what may matter comes first"


def test_depth_and_names(folder: Path) -> None:
    deep = folder
    for _ in range(walking.DEEPEST + 3):
        deep = deep / "d"
    deep.mkdir(parents=True)
    (folder / "a\x1b[31m\n.py").write_text("")
    (folder / os.fsdecode(b"\xff.py")).write_text("")
    files = listed(folder)
    assert "levels down, not looked into" in files["d/" * walking.DEEPEST].note
    assert {file.role for path, file in files.items() if path.endswith(".py")} == {"code"}
    assert all(path.isprintable() for path in files)


def test_huge_files_cost_nothing(folder: Path) -> None:
    for name in (
        "zeros.pkl",
        "zeros.bin",
        "zeros.safetensors",
        "zeros.json",
        "zeros.txt",
        "zeros.jinja",
        "config.json",
    ):
        sparse(folder / name, 100 << 30, b"")
    sparse(folder / "zip.pt", 100 << 30, b"PK\x03\x04")
    sparse(folder / "gzip.joblib", 100 << 30, b"\x1f\x8b\x08\0\0\0\0\0\0\x03")
    sparse(folder / "text.pkl", 100 << 30, b"\x80\x04X\xff\xff\xff\xff")
    assert len(listed(folder)) == 12


def test_an_unreadable_file_is_listed(folder: Path) -> None:
    (folder / "a.py").write_text("")
    (folder / "a.py").chmod(0)
    (folder / "b.bin").write_bytes(b"")
    (folder / "b.bin").chmod(0)
    (folder / "c").mkdir(mode=0)
    try:
        files = listed(folder)
    finally:
        (folder / "c").chmod(stat.S_IRWXU)
    assert (files["a.py"].role, files["b.bin"].role) == ("code", "other weights")


def test_the_shared_adapters_raise_no_finding() -> None:
    for path in sorted((shared() / "adapters").iterdir()):
        try:
            files = listed(path) if path.is_dir() else {}
        except S3LoRAError:
            continue
        assert not [file for file in files.values() if file.runs or file.note or file.content], path.name
        assert {file.role for file in files.values()} <= {"weights", "configuration", "other"}


@pytest.mark.parametrize("name", ["code_beside"])
def test_the_shared_case_with_code(name: str) -> None:
    files = listed(shared() / "cases" / name)
    assert {path: file.runs for path, file in files.items() if file.role == "pickle"} == dict.fromkeys(
        ("new_embeddings.joblib", "tokenizer.pkl", "training_args.bin"), ("posix.system",)
    )
    assert files["adapter_config.json"].runs == ("auto_map: modeling_evil.Evil", "auto_mapping: modeling_evil")
    assert files["chat_template.jinja"].runs == ("the attribute __globals__", "the attribute __init__")
    assert files["modeling_custom.py"].role == "code"
