"""Writing a pruned adapter: bit-identical, deterministic, verified, and whole or not at all."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import s3lora.adapter.write
from s3lora import (
    Clip,
    OutputError,
    Remove,
    UsageError,
    Zero,
    convert,
    files,
    open_adapter,
    prune,
    read_provenance,
    resize,
    restore,
    scan,
    write_converted,
    write_pruned,
)
from s3lora.rewrite.modes import MODES
from tests.planning import config_of, plan_of, prune_to, tensors_of
from tests.support import make_adapter, shared, write_safetensors
from tests.watched import PATIENCE

PATHS = [f"model.layers.{i}.self_attn.{p}_proj" for i in range(3) for p in "qv"]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_adapter(tmp_path / "source", dict.fromkeys(PATHS, (24, 16, 4)), dtype="bfloat16")


def listing(folder: Path) -> dict[str, bytes]:
    """Return all files below a folder with their content."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def header_of(folder: Path, *, metadata: bool = False) -> tuple[int, dict[str, Any]]:
    """Return where the data of a weights file begin, and its entries by tensor, or its `__metadata__`."""
    raw = (folder / "adapter_model.safetensors").read_bytes()
    size = 8 + int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8:size])
    story = header.pop("__metadata__")
    return size, story if metadata else header


def beside(folder: Path) -> set[str]:
    return {path.name for path in folder.parent.iterdir()}


def in_subprocess(code: str, *arguments: Path) -> subprocess.CompletedProcess[str]:
    """Run code that has `prune_to`, `PATHS` and the arguments as `a`, `b`."""
    head = "import sys; from pathlib import Path; from tests.planning import prune_to; a, b = map(Path, sys.argv[1:])\n"
    root = Path(__file__).resolve().parents[2]
    path = os.pathsep.join([str(root), str(root / "src"), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, "-c", f"{head}PATHS = {PATHS!r}\n{code}", *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )


def test_kept_tensors_are_the_same_bits(source: Path, tmp_path: Path):
    before = tensors_of(source)
    for mode in MODES.values():
        after = tensors_of(prune_to(source, tmp_path / mode.name, PATHS[:2], mode()))
        kept = {name for name in before if not any(path in name for path in PATHS[:2])}
        assert kept <= after.keys()
        assert all(after[name].tobytes() == before[name].tobytes() for name in kept)
        assert [name for name in after if name in kept] == [name for name in before if name in kept]


@pytest.mark.parametrize("mode", [Remove(), Clip()])
def test_the_same_input_gives_the_same_bytes(source: Path, tmp_path: Path, mode):
    (source / "tokenizer.json").write_text("{}")
    first = listing(prune_to(source, tmp_path / "1", PATHS[:2], mode))
    second = listing(prune_to(source, tmp_path / "2", PATHS[:2], mode))
    assert first == second
    assert sorted(first) == ["adapter_config.json", "adapter_model.safetensors", "s3lora.json", "tokenizer.json"]


def test_the_story_is_in_the_folder_and_in_the_file(source: Path, tmp_path: Path):
    out = prune_to(source, tmp_path / "out", PATHS[2:4])
    weights = (source / "adapter_model.safetensors").read_bytes()
    record = read_provenance(out)
    assert record.source.sha256 == sha256(weights).hexdigest()
    assert [file.name for file in record.source.files] == ["adapter_model.safetensors", "adapter_config.json"]
    assert [(m.path, m.action, m.value, m.position) for m in record.modules] == [
        (PATHS[2], "removed", 0.5, 1),
        (PATHS[3], "removed", 0.5, 2),
    ]
    assert (record.plan.share.modules, record.plan.share.modules_total) == (2, 6)
    assert record.written[0].sha256 == sha256((out / "adapter_model.safetensors").read_bytes()).hexdigest()
    assert str(tmp_path) not in (out / "s3lora.json").read_text()
    metadata = header_of(out, metadata=True)[1]
    assert metadata["format"] == "pt"
    story = json.loads(metadata["s3lora"])
    assert story["source_sha256"] == record.source.sha256
    assert story["modules"] == {PATHS[2]: ["removed", 0.5], PATHS[3]: ["removed", 0.5]}


def test_a_process_that_dies_leaves_the_old_state(source: Path, tmp_path: Path):
    out = prune_to(source, tmp_path / "out", PATHS[:1])
    old = listing(out)
    for where in ("write_safetensors", "_verify"):
        died = in_subprocess(
            f"""
import os, signal
import s3lora.adapter.write as write
real = write.{where}
def dying(*arguments):
    result = real(*arguments)
    os.kill(os.getpid(), signal.SIGKILL)
write.{where} = dying
prune_to(a, b, PATHS[1:3], force=True)
""",
            source,
            out,
        )
        assert died.returncode == -signal.SIGKILL, died.stderr
        assert listing(out) == old
    assert listing(prune_to(source, out, PATHS[1:3], force=True)) != old


def test_a_full_disk_leaves_nothing_behind(source: Path, tmp_path: Path):
    (source / "tokenizer.json").write_bytes(b" " * 20_000)  # larger than the limit, as nothing before it is
    for limit in (1_000, 10_000):
        full = in_subprocess(
            f"""
import resource
from s3lora import OutputError
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
try:
    prune_to(a, b, PATHS[:2])
except OutputError as error:
    print(error)
""",
            source,
            tmp_path / "new" / "out",
        )
        assert "cannot be written" in full.stdout, full.stderr
        assert beside(source) == {"source"}


def test_what_does_not_verify_is_not_written(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    real = s3lora.adapter.write.write_safetensors
    for mode, position in ((Remove(), -1), (Zero(), -1), (Zero(), 100), (Remove(), 3)):

        def corrupted(path, *arguments, position=position):
            digest = real(path, *arguments)
            data = bytearray(path.read_bytes())
            data[position] ^= 1
            path.write_bytes(data)
            return digest

        monkeypatch.setattr(s3lora.adapter.write, "write_safetensors", corrupted)
        with pytest.raises(OutputError, match="did not verify"):
            prune_to(source, tmp_path / "out", PATHS[-1:], mode)
        assert beside(source) == {"source"}


def test_a_tensor_changed_on_the_way_is_noticed(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Also where the digest is that of the wrong bytes, the kept tensors are compared with the source."""
    real = s3lora.adapter.write.write_safetensors

    def misled(path, tensors, edits, metadata):
        *first, last_but_one, last = tensors.values()
        mixed = {
            name: type(t)(u.name, u.code, u.shape, t.file, t.offset, t.nbytes)
            for t, (name, u) in zip([*first, last, last_but_one], tensors.items(), strict=True)
        }
        return real(path, mixed, edits, metadata)

    modules = dict.fromkeys(PATHS, (16, 16, 4))
    monkeypatch.setattr(s3lora.adapter.write, "write_safetensors", misled)
    with pytest.raises(OutputError, match=r"should be unchanged|type or shape"):
        prune_to(make_adapter(tmp_path / "a", modules), tmp_path / "out", PATHS[:1])


def test_existing_folders(source: Path, tmp_path: Path):
    before = listing(source)
    with pytest.raises(OutputError, match="is the input itself"):
        prune_to(source, source, PATHS[:1])
    out = prune_to(source, tmp_path / "out", PATHS[:1])
    with pytest.raises(OutputError, match="not empty"):
        prune_to(source, out, PATHS[1:2])
    assert listing(source) == before
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    assert prune_to(source, foreign, PATHS[:1]) == foreign  # empty
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("years of work")
    for force in (False, True):
        with pytest.raises(OutputError):
            prune_to(source, other, PATHS[:1], force=force)
    assert listing(other) == {"thesis.txt": b"years of work"}
    with pytest.raises(OutputError, match="not a folder"):
        prune_to(source, other / "thesis.txt", PATHS[:1], force=True)
    prune_to(source, source, PATHS[:1], force=True)
    assert listing(source) == listing(out)
    assert beside(source) == {"source", "out", "foreign", "other"}


@pytest.mark.parametrize("where", ["source/out", "source/deep/out", "."])
def test_folders_within_each_other_are_refused(source: Path, tmp_path: Path, where: str):
    before = listing(tmp_path)
    with pytest.raises(OutputError):
        prune_to(source, tmp_path / where, PATHS[:1], force=True)
    assert listing(tmp_path) == before


def test_without_an_atomic_exchange(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(files, "_exchange", lambda *_: False)
    out = prune_to(source, tmp_path / "out", PATHS[:1])
    prune_to(source, out, PATHS[1:3], force=True)
    assert len(read_provenance(out).modules) == 2
    assert beside(out) == {"source", "out"}


def test_an_unwritable_place(source: Path, tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be"):
        prune_to(source, tmp_path / "file" / "out", PATHS[:1])


def test_adapters_in_memory_are_not_written(source: Path, tmp_path: Path):
    with open_adapter(source) as adapter:
        measured = scan(adapter)
        loose = type(adapter)(adapter.name, "memory", adapter.modules)
        with pytest.raises(UsageError):
            write_pruned(prune(loose, plan_of(measured, PATHS[:1])), measured, tmp_path / "out")


def test_the_rest_of_the_folder(source: Path, tmp_path: Path):
    (source / "README.md").write_text("a card")
    (source / "tokenizer").mkdir()
    (source / "tokenizer" / "vocab.txt").write_text("a b")
    (source / "tokenizer" / "link.md").symlink_to("../README.md")
    for name in (".git", "checkpoint-10", "other-adapter"):
        (source / name).mkdir()
        (source / name / "adapter_config.json").write_text("{}")
    (tmp_path / "secret.txt").write_text("secret")
    (source / "secret.txt").symlink_to("../secret.txt")
    (source / "secrets").symlink_to("..", target_is_directory=True)
    (source / "inside.md").symlink_to("README.md")
    (source / "circle").symlink_to("circle")
    os.mkfifo(source / "pipe")
    (source / "adapter_model.bin").write_bytes(b"the same weights")
    (source / "copy.safetensors").write_bytes((source / "adapter_model.safetensors").read_bytes())
    write_safetensors(source / "tokens.safetensors", {"<new>": np.zeros(3, np.float32)})
    with open_adapter(source) as adapter:
        measured = scan(adapter)
        _, written = write_pruned(prune(adapter, plan_of(measured, PATHS[:1])), measured, tmp_path / "out")
    assert sorted(listing(tmp_path / "out")) == [
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "inside.md",
        "s3lora.json",
        "tokenizer/link.md",
        "tokenizer/vocab.txt",
        "tokens.safetensors",
    ]
    assert not any(path.is_symlink() for path in (tmp_path / "out").rglob("*"))
    left = {item.partition(" ")[0] for item in written.left_behind}
    assert left == {
        *(".git/", "checkpoint-10/", "other-adapter/", "secret.txt", "secrets", "circle", "pipe"),
        *("adapter_model.bin", "copy.safetensors"),
    }


def test_weights_of_every_kind_stay_behind(source: Path, tmp_path: Path):
    hidden = ["pytorch_lora_weights.bin", "adapters.npz", "model.onnx", "x.gguf", "last.CKPT", "a.pt", "b.pth", "c.bin"]
    state = ["optimizer.pt", "optimizer.bin", "scheduler.pt", "rng_state.pth", "rng_state_0.pth", "training_args.bin"]
    (source / "tokenizer").mkdir()
    for name in (*hidden, *state, "tokenizer.model", "tokenizer/weights.pt", "tokenizer/vocab"):
        (source / name).write_bytes(b"whatever")
    with open_adapter(source) as adapter:
        measured = scan(adapter)
        _, written = write_pruned(prune(adapter, plan_of(measured, PATHS[:1])), measured, tmp_path / "out")
    assert sorted(listing(tmp_path / "out")) == [
        *("adapter_config.json", "adapter_model.safetensors", "s3lora.json"),
        *("tokenizer.model", "tokenizer/vocab"),
    ]
    left = dict(item.split(" ", 1) for item in written.left_behind)
    assert left.keys() == {*hidden, *state, "tokenizer/weights.pt"}
    assert {name for name, why in left.items() if "state of the training" in why} == set(state)


class Called:
    """What runs when it is unpickled."""

    def __reduce__(self):
        return os.system, ("true",)


def test_code_and_what_points_to_it_stays_behind(source: Path, tmp_path: Path):
    ordinary = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] | trim }}{% endfor %}"
    along = {
        "tokenizer.json": b"{}",
        "tokenizer_config.json": json.dumps({"chat_template": ordinary, "model_max_length": 8}).encode(),
        "chat_template.jinja": ordinary.encode(),
        "nested/generation_config.json": b'{"temperature": 1}',
        "README.md": b"a card",
    }
    behind = {
        "modeling.py": (b"import os", "code"),
        "run.sh": (b"true", "code"),
        "nested/library.so": (b"whatever", "code"),
        "program": (b"\x7fELF", "code"),
        "training_args.bin": (pickle.dumps(Called()), "pickle: posix.system"),
        "tokens.pkl": (pickle.dumps(Called()), "pickle: posix.system"),
        "plain.joblib": (pickle.dumps([1]), "pickle"),
        "nested/vocab.txt": (pickle.dumps(Called()), "pickle: posix.system"),
        "state.pt": (pickle.dumps(Called()), "pickle: posix.system"),
        "config.yaml": (b"_target_: own.Model", "points to code: _target_: own.Model"),
        "nested/tokenizer_config.json": (b'{"auto_map": {"A": "own.A"}}', "points to code: auto_map: own.A"),
        "templates/chat_template.jinja": (b"{{ x.__class__ }}", "points to code: the attribute __class__"),
    }
    for name, content in (along | {name: content for name, (content, _) in behind.items()}).items():
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_bytes(content)
    pointing = {
        "auto_map": {"AutoModel": "modeling.Own"},
        "auto_mapping": {"base_model_class": "Evil", "parent_library": "modeling_evil"},
        "megatron_core": "own.core",
        "trust_remote_code": True,
        "chat_template": "{{ x.__class__ }}",
    }
    nested = {
        "loftq_config": {"bits": 4, "_target_": "own.Model"},
        "builder": [{"a": [{"auto_map": [[["b.C"]]], "d": 1}]}],
    }
    kept = {
        "megatron_config": None,
        "revision": "main",
        "own": {"_target_": "torch.nn.Linear", "chat_template": "{{ messages }}"},
    }
    config = {**config_of(source), **pointing, **nested, **kept}
    (source / "adapter_config.json").write_text(json.dumps(config))
    with open_adapter(source) as adapter:
        measured = scan(adapter)
        record, written = write_pruned(prune(adapter, plan_of(measured, PATHS[:1])), measured, tmp_path / "out")
    own = {"adapter_config.json", "adapter_model.safetensors", "s3lora.json"}
    assert set(listing(tmp_path / "out")) == along.keys() | own
    assert dict(item.split(" ", 1) for item in written.left_behind) == {
        name: f"({reason})" for name, (_, reason) in behind.items()
    }
    assert not pointing.keys() & config_of(tmp_path / "out").keys()
    assert config_of(tmp_path / "out").items() >= kept.items()
    assert config_of(tmp_path / "out")["loftq_config"] == {"bits": 4}
    assert config_of(tmp_path / "out")["builder"] == [{"a": [{"d": 1}]}]
    told = [
        *("_target_: own.Model", "auto_map: modeling.Own", "auto_map: of another form", "auto_mapping: modeling_evil"),
        *("megatron_core: own.core", "trust_remote_code: true", "chat template: the attribute __class__"),
    ]
    without = f"adapter_config.json is written without what points to code: {', '.join(told[:5])}, and 2 more"
    assert [note for note in record.warnings if "code" in note] == [without]
    converted, _ = write_converted(convert(source, "peft"), tmp_path / "converted")
    assert [note for note in converted.warnings if "points to code" in note and "behind" not in note] == [without]
    assert config_of(tmp_path / "converted").keys() == config.keys() - pointing.keys()
    for name, (content, _) in behind.items():
        (tmp_path / "out" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "out" / name).write_bytes(content)
    restore(tmp_path / "out", source, tmp_path / "back")
    assert set(listing(tmp_path / "back")) == along.keys() | own - {"s3lora.json"}


def test_a_module_leaves_no_orphan(tmp_path: Path):
    heads = {f"{PATHS[0]}.alpha": np.array(4.0, np.float32), "score.weight": np.ones(3, np.float32)}
    source = make_adapter(tmp_path / "a", dict.fromkeys(PATHS, (8, 8, 2)), heads=heads)
    after = tensors_of(prune_to(source, tmp_path / "b", PATHS[:1]))
    assert not any(PATHS[0] in name for name in after)
    assert "base_model.model.score.weight" in after


def test_a_hub_cache_snapshot_comes_along(source: Path, tmp_path: Path):
    cache = tmp_path / "models--a--b"
    (cache / "blobs").mkdir(parents=True)
    snapshot = cache / "snapshots" / "0123abcd"
    (snapshot / "tokenizer").mkdir(parents=True)
    (source / "tokenizer.json").write_text("{}")
    for i, file in enumerate(sorted(source.iterdir())):
        file.rename(cache / "blobs" / f"blob{i}")
        (snapshot / file.name).symlink_to(f"../../blobs/blob{i}")
    (cache / "blobs" / "vocab").write_text("a b")
    (snapshot / "tokenizer" / "vocab.txt").symlink_to("../../../blobs/vocab")
    out = prune_to(snapshot, tmp_path / "out", PATHS[:1])
    names = ["adapter_config.json", "adapter_model.safetensors", "s3lora.json", "tokenizer.json", "tokenizer/vocab.txt"]
    assert sorted(listing(out)) == names
    assert not any(path.is_symlink() for path in out.rglob("*"))


def sharded(folder: Path, paths: list[str]) -> Path:
    """Write an adapter of one shard a module."""
    make_adapter(folder, dict.fromkeys(paths, (24, 16, 4)))
    tensors = tensors_of(folder)
    (folder / "adapter_model.safetensors").unlink()
    table = {}
    for i, path in enumerate(paths):
        file = f"adapter_model-{i + 1:05d}-of-{len(paths):05d}.safetensors"
        part = {name: value for name, value in tensors.items() if path in name}
        write_safetensors(folder / file, part)
        table.update(dict.fromkeys(part, file))
    index = {"metadata": {"total_size": 1}, "weight_map": table}
    (folder / "adapter_model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def test_shards_stay_shards(tmp_path: Path):
    source = sharded(tmp_path / "a", PATHS[:3])
    out = prune_to(source, tmp_path / "b", [PATHS[1]])
    index = json.loads((out / "adapter_model.safetensors.index.json").read_text())
    before, after = tensors_of(source), tensors_of(out)
    assert sorted(index["weight_map"]) == sorted(after) == sorted(name for name in before if PATHS[1] not in name)
    assert set(index["weight_map"].values()) == {path.name for path in out.glob("*.safetensors")}
    assert index["metadata"]["total_size"] == sum(value.nbytes for value in after.values())
    assert all(np.array_equal(value, before[name]) for name, value in after.items())
    with open_adapter(out) as adapter:
        assert [module.path for module in adapter.modules] == [PATHS[0], PATHS[2]]


def test_a_torch_file_becomes_safetensors(source: Path, tmp_path: Path):
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file

    tensors = load_file(source / "adapter_model.safetensors")
    (source / "adapter_model.safetensors").unlink()
    torch.save(tensors, source / "adapter_model.bin")
    out = prune_to(source, tmp_path / "out", PATHS[:1])
    assert sorted(listing(out)) == ["adapter_config.json", "adapter_model.safetensors", "s3lora.json"]
    assert header_of(out, metadata=True)[1]["format"] == "pt"  # older readers refuse a file without it
    after = load_file(out / "adapter_model.safetensors")
    assert after.keys() == {name for name in tensors if PATHS[0] not in name}
    assert all(torch.equal(value, tensors[name]) for name, value in after.items())


@pytest.mark.parametrize("pad", [1, 8])
def test_numbers_lie_at_multiples_of_their_size(tmp_path: Path, pad: int):
    """The format allows float32 at an odd offset, and a tensor of one byte before it leads there."""
    source = make_adapter(tmp_path / "a", {PATHS[0]: (3, 3, 1), PATHS[1]: (3, 3, 1)})
    tensors = tensors_of(source)
    half = {name: value.astype("float16") if PATHS[1] in name else value for name, value in tensors.items()}
    mixed = {"base_model.model.flag": np.ones(1, np.int8), **dict(sorted(half.items(), reverse=True))}
    write_safetensors(source / "adapter_model.safetensors", mixed, pad=pad)
    out = prune_to(source, tmp_path / "b", PATHS[:1], Zero())
    after = tensors_of(out)
    changed = [name for name, value in mixed.items() if value.tobytes() != after[name].tobytes()]
    assert changed == [f"base_model.model.{PATHS[0]}.lora_B.weight"]
    size, header = header_of(out)
    for name, entry in header.items():
        assert (size + entry["data_offsets"][0]) % after[name].itemsize == 0, name


@pytest.mark.parametrize(
    "name",
    ["distilgpt2-peft", "gpt2-classifier-peft", "token-classifier-gqa-peft", "sd1-mixed-dtype", "sam-vit-custom-r2"],
)
def test_real_adapters(tmp_path: Path, name: str):
    source = shared() / "adapters" / name
    with open_adapter(source) as adapter:
        measured = scan(adapter)
        chosen = [module.path for module in measured.modules if not module.zero][:3]
        _, written = write_pruned(prune(adapter, plan_of(measured, chosen)), measured, tmp_path / "out")
        gone = {t for m in adapter.modules if m.path in chosen for t in m.tensor_names} if adapter.removable else set()
    before, after = tensors_of(source), tensors_of(tmp_path / "out")
    assert before.keys() - gone == after.keys()
    same = {name for name in after if before[name].tobytes() == after[name].tobytes()}
    assert len(same) == len(after) - (0 if gone else len(chosen))
    assert not any("adapter_config" in item for item in written.left_behind)
    if (source / "adapter_config.json").exists():
        changed = {k for k, v in config_of(tmp_path / "out").items() if config_of(source).get(k) != v}
        assert changed <= {"exclude_modules", "target_modules"}


@pytest.mark.parametrize("field", ["auto_mapping", "megatron_core"])
def test_what_points_to_a_library_that_everybody_has_is_kept(field: str, source: Path, tmp_path: Path):
    own = {"auto_mapping": {"base_model_class": "LlamaModel", "parent_library": "transformers.models.llama"}}
    value = (own | {"megatron_core": "megatron.core"})[field]
    (source / "adapter_config.json").write_text(json.dumps(config_of(source) | {field: value}))
    record, _ = write_converted(convert(source, "peft"), tmp_path / "converted")
    assert config_of(tmp_path / "converted")[field] == value
    assert not [note for note in record.warnings if "code" in note]


def test_pointers_without_number_are_told_in_few_notes(source: Path, tmp_path: Path):
    many = {f"a{i}": {"_target_": f"own.M{i}"} for i in range(20_000)}
    (source / "adapter_config.json").write_text(json.dumps(config_of(source) | many))
    record, _ = write_converted(convert(source, "peft"), tmp_path / "converted")
    (note,) = [note for note in record.warnings if "code" in note]
    assert note.endswith(f", and {20_000 - 5:,} more")
    assert note.count("_target_") == 5
    assert all(config_of(tmp_path / "converted")[name] == {} for name in many)


def test_keys_that_are_names_of_modules_point_to_nothing(tmp_path: Path):
    modules = {f"model.layers.{i}.{name}": (8, 8, rank) for i in range(2) for name, rank in (("auto_map", 4), ("q", 2))}
    patterns = {"r": 2, "lora_alpha": 2, "rank_pattern": {"auto_map": 4}, "alpha_pattern": {"auto_map": 32}}
    source = make_adapter(tmp_path / "a", modules, config=patterns)
    for out in (prune_to(source, tmp_path / "pruned", ["model.layers.0.q"]), tmp_path / "converted"):
        if not out.exists():
            write_converted(convert(source, "peft"), out)
        assert config_of(out).items() >= {name: patterns[name] for name in ("rank_pattern", "alpha_pattern")}.items()


def test_templates_too_many_to_be_parsed_are_left_out(source: Path, tmp_path: Path):
    templates = [{"name": letter, "template": letter * 120_000} for letter in "abcde"]
    (source / "adapter_config.json").write_text(json.dumps(config_of(source) | {"chat_template": templates}))
    record, _ = write_converted(convert(source, "peft"), tmp_path / "converted")
    assert "chat_template" not in config_of(tmp_path / "converted")
    assert [note for note in record.warnings if "chat templates of 600,000 characters" in note]


def test_other_formats_lose_what_points_to_code_too(tmp_path: Path):
    source = tmp_path / "mlx"
    shutil.copytree(shared() / "adapters" / "qwen25-mlx", source)
    (source / "0000100_adapters.safetensors").unlink()
    (source / "0000200_adapters.safetensors").rename(source / "adapters.safetensors")
    pointing = {"auto_map": {"AutoModel": "own.Model"}}
    (source / "adapter_config.json").write_text(json.dumps(config_of(source) | pointing))
    with open_adapter(source) as adapter:
        measured = scan(adapter)
        plan = plan_of(measured, [measured.modules[0].path])
        record, _ = write_pruned(prune(adapter, plan), measured, tmp_path / "p")
    converted, _ = write_converted(convert(source, "mlx"), tmp_path / "c")
    resized, _ = resize(source, tmp_path / "r", rank=measured.modules[0].rank)
    for folder, made in ((tmp_path / "p", record), (tmp_path / "c", converted), (tmp_path / "r", resized)):
        assert "auto_map" not in config_of(folder)
        assert [note for note in made.warnings if "auto_map: own.Model" in note]
