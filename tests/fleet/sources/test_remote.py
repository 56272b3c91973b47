"""Reading adapters that lie elsewhere: what is opened here is what lies there, and little of it was fetched."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from s3lora.adapter.open import open_adapter, open_one
from s3lora.adapter.weights import WEIGHTS as KNOWN
from s3lora.errors import AdapterFileError, NothingToAuditError, S3LoRAError, UnsupportedAdapterError, UsageError
from s3lora.fleet.sources import fetch, remote, stores
from s3lora.fleet.sources.remote import ChangedError, Local, UnreachableError, localised
from s3lora.measure.scan import scan
from tests.fleet.sources.hub_stand_in import Hub
from tests.fleet.sources.web import Site
from tests.support import Tensors, factors, make_adapter, safetensors_bytes, shared, write_safetensors

CONFIG, WEIGHTS, BIN = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
MODULES = {f"model.layers.{i}.self_attn.{name}_proj": (64, 48, 4) for i in range(3) for name in ("q", "v")}


@pytest.fixture(autouse=True)
def nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Check that no test leaves a file in the folder for temporary files."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield
    assert list(folder.iterdir()) == []


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the made-up adapters large: the sizes of steps are a thousandth of what they are."""
    monkeypatch.setattr(fetch, "FIRST", 256)
    monkeypatch.setattr(fetch, "GAP", 64)
    monkeypatch.setattr(fetch, "CHUNK", 1000)
    monkeypatch.setattr(fetch, "SMALL", 16)


def same(path: Path, local: Local) -> None:
    """Check that both open as the same adapter, value by value."""
    assert local.path is not None
    with open_adapter(path) as expected, open_adapter(local.path) as found:
        assert found.name == expected.name
        assert (found.format, found.config, found.warnings) == (expected.format, expected.config, expected.warnings)
        assert [module.path for module in found.modules] == [module.path for module in expected.modules]
        for a, b in zip(found.modules, expected.modules, strict=True):
            assert a.scaling == b.scaling
            assert a.A.array().tobytes() == b.A.array().tobytes()
            assert a.B.array().tobytes() == b.B.array().tobytes()
        measured = [one.indices for one in scan(found).modules], [one.indices for one in scan(expected).modules]
    assert measured[0] == measured[1]
    if path.is_dir():
        names = [file for file in path.iterdir() if file.suffix in (".safetensors", ".bin")]
        assert local.size == sum(file.stat().st_size for file in names)


def with_head(folder: Path, rows: int = 3000) -> Path:
    """Write an adapter whose embeddings were saved with it: nearly all of its bytes are not LoRA's."""
    heads = {f"{name}.weight": np.ones((rows, 48), "float32") for name in ("lm_head", "model.embed_tokens")}
    return make_adapter(folder, MODULES, heads=heads)


# on this machine


def test_what_is_here_is_only_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    adapter = make_adapter(tmp_path / "a", MODULES)
    monkeypatch.chdir(tmp_path)
    for uri in ("a", str(adapter), f"file://{adapter}"):
        with localised(uri) as local:
            assert local.path is not None
            same(adapter, local)
            assert not local.partial
            assert local.bytes_read == 0
    before = local.fingerprint
    assert before.startswith("time:")
    os.chmod(adapter / WEIGHTS, 0)
    with localised("a") as again, localised("a", unless=before) as unchanged:
        assert again.fingerprint == before
        assert (unchanged.path, unchanged.fingerprint) == (None, before)
    with localised("a", unless="time:0") as changed:
        assert changed.path == Path("a")


@pytest.mark.parametrize("name", [WEIGHTS, CONFIG])
def test_a_fingerprint_changes_with_the_files(tmp_path: Path, name: str) -> None:
    adapter = make_adapter(tmp_path / "a", MODULES)

    def fingerprint(path: Path = adapter) -> str:
        with localised(str(path)) as local:
            return local.fingerprint

    before = fingerprint()
    (adapter / "README.md").write_text("told")
    assert fingerprint() == before, "what no scan reads does not matter"
    status = (adapter / name).stat()
    os.utime(adapter / name, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert fingerprint() != before
    os.utime(adapter / name, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert fingerprint() == before
    (adapter / name).write_bytes((adapter / name).read_bytes() + b" ")
    os.utime(adapter / name, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert fingerprint() != before
    alone = fingerprint(adapter / WEIGHTS)
    (adapter / name).unlink()
    if name == CONFIG:
        assert fingerprint(adapter / WEIGHTS) != alone


def test_what_is_not_here(tmp_path: Path) -> None:
    for uri in (f"{tmp_path}/gone", f"{tmp_path}/a\0b", "x" * 5000):
        with pytest.raises(AdapterFileError), localised(uri):
            pytest.fail("there is nothing to give")
    (tmp_path / "empty").mkdir()
    with localised(str(tmp_path / "empty")) as local, pytest.raises(NothingToAuditError):
        open_adapter(str(local.path))


# elsewhere, whole


REFUSED = ("broken-lfs-pointer", "bloom-fused-qkv-bin")


@pytest.fixture
def real() -> dict[str, Path]:
    """Return the real adapters that can be opened, by address below their folder."""
    root = shared() / "adapters"
    names = [path.name for path in root.iterdir() if path.is_dir() and path.name not in REFUSED]
    found = {name: root / name for name in sorted(names) if not name.startswith("qwen")}
    return found | {f"qwen25-mlx/{n}_adapters.safetensors": root / "qwen25-mlx" for n in ("0000100", "0000200")}


def test_the_real_adapters_of_the_hub(models: Hub, real: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "FIRST", 10_000)
    for address, folder in real.items():
        models.publish("me/all", {f"{folder.name}/{file.name}": file.read_bytes() for file in folder.iterdir()}, [])
        path = folder / address.partition("/")[2] if "/" in address else folder
        with localised(f"hf://me/all@v1/{address}") as local:
            same(path, local)
            fingerprint = local.fingerprint
        assert fingerprint.startswith("tag:")
        before = len(models.site.asked)
        with localised(f"hf://me/all@v1/{address}", unless=fingerprint) as local:
            assert local.path is None
        assert len(models.site.asked) == before + 1, "one request tells that nothing changed"
        models.models.clear()


def test_a_pointer_is_an_adapter_that_cannot_be_read(site: Site) -> None:
    url = site.add(shared() / "adapters" / "broken-lfs-pointer", "x")
    with pytest.raises(AdapterFileError, match="Git LFS pointer"), localised(url):
        pytest.fail("there is nothing to give")


def test_a_repository_is_an_adapter(models: Hub, tmp_path: Path) -> None:
    adapter = make_adapter(tmp_path / "one", MODULES)
    files = {file.name: file.read_bytes() for file in adapter.iterdir()}
    models.publish("me/one", files, ["peft"])
    with localised("hf://me/one") as local:
        same(adapter, local)
    with localised(f"hf://me/one/{WEIGHTS}") as local:
        same(adapter / WEIGHTS, local)
    for uri, kind in (
        ("hf://me", UsageError),
        ("hf://me/gone", AdapterFileError),
        ("hf://me/one/x", NothingToAuditError),
    ):
        with pytest.raises(kind), localised(uri):
            pytest.fail("there is nothing to give")


def test_a_token_goes_to_the_hub(models: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    adapter = make_adapter(tmp_path / "one", MODULES)
    models.publish("me/one", {file.name: file.read_bytes() for file in adapter.iterdir()}, ["peft"])
    models.site.token = "hf_secret"
    with pytest.raises(AdapterFileError, match="credentials"), localised("hf://me/one"):
        pytest.fail("there is nothing to give")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with localised("hf://me/one") as local:
        same(adapter, local)
    models.site.token = "hf_another"
    with pytest.raises(AdapterFileError) as caught, localised("hf://me/one"):
        pytest.fail("there is nothing to give")
    assert "hf_secret" not in str(caught.value)


def test_an_object_store(bucket: Any, tmp_path: Path, small_steps: None) -> None:
    adapter = with_head(tmp_path / "run")
    bucket.put(str(adapter), "fleet/run", recursive=True)
    for uri in ("s3://fleet/run", "s3://fleet/run/", f"s3://fleet/run/{WEIGHTS}"):
        with localised(uri) as local:
            same(adapter / WEIGHTS if uri.endswith("s") else adapter, local)
            assert local.partial
            assert local.bytes_read < local.size / 10
    with localised("s3://fleet/run", unless=local.fingerprint) as unchanged:
        assert unchanged.path is None
    bucket.pipe(f"fleet/run/{CONFIG}", (adapter / CONFIG).read_bytes() + b"\n")
    with localised("s3://fleet/run", unless=local.fingerprint) as changed:
        assert changed.path is not None
    for uri in ("s3://fleet/gone", "s3://fleet/gone.safetensors", "s3://nobody/x"):
        with pytest.raises((AdapterFileError, NothingToAuditError)), localised(uri):
            pytest.fail("there is nothing to give")


def test_an_object_that_is_replaced_while_it_is_read(
    bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = make_adapter(tmp_path / "run", MODULES)
    bucket.put(str(adapter), "fleet/run", recursive=True)
    other = make_adapter(tmp_path / "other", MODULES, seed=1) / WEIGHTS
    read = stores.FileStore.read

    def replaced(self: stores.FileStore, entry: stores.Entry, start: int, stop: int) -> bytes:
        data = read(self, entry, start, stop)
        bucket.pipe(f"fleet/run/{WEIGHTS}", other.read_bytes())
        return data

    monkeypatch.setattr(stores.FileStore, "read", replaced)
    with pytest.raises(ChangedError), localised("s3://fleet/run"):
        pytest.fail("what was read is of two files")


# over the web


def test_only_what_a_scan_reads_is_fetched(site: Site, tmp_path: Path, small_steps: None) -> None:
    adapter = with_head(tmp_path / "run")
    url = site.add(adapter, "some/run")
    site.sent = 0
    with localised(url) as local:
        same(adapter, local)
        assert local.partial
    lora = sum(4 * rank * (m + n) for m, n, rank in MODULES.values())
    header = int.from_bytes((adapter / WEIGHTS).read_bytes()[:8], "little")
    assert site.sent == local.bytes_read
    assert lora <= local.bytes_read <= lora + header + 3000
    assert local.size > 50 * local.bytes_read


KOHYA: dict[str, Any] = {}
for _i in range(4):
    _a, _b = factors(40, 30, 4, seed=_i)
    _name = f"lora_unet_down_blocks_{_i}_attentions_0_proj_in"
    KOHYA |= {f"{_name}.alpha": np.float32(_i + 1), f"{_name}.lora_down.weight": _a, f"{_name}.lora_up.weight": _b}
    KOHYA |= {f"other_{_i}": np.zeros((50, 50), "float32"), f"scalar_{_i}": np.float32(0)}


@pytest.mark.parametrize(
    "name", ["my lora.safetensors", "-x.safetensors", "ünï.safetensors", "x" * 200 + ".safetensors"]
)
def test_loose_files_and_numbers_in_them(site: Site, tmp_path: Path, small_steps: None, name: str) -> None:
    """An alpha is read when the file is opened, and it is fetched after that."""
    tensors: Tensors = {key: np.asarray(value) for key, value in KOHYA.items()}
    file = write_safetensors(tmp_path / "weights.safetensors", tensors)
    site.files[f"/a/{name}"] = file
    with localised(f"{site.url}/a/{name}?signature=a/b#"[:-1]) as local:
        same(file, local)
        assert local.partial
        with open_adapter(str(local.path)) as adapter:
            assert [module.scaling.value for module in adapter.modules] == [(i + 1) / 4 for i in range(4)]
        lora = sum(np.asarray(value).nbytes for key, value in KOHYA.items() if key.startswith("lora"))
        assert local.bytes_read < lora + 3000, "what lies between factors is not fetched"


def test_shards(site: Site, tmp_path: Path, small_steps: None) -> None:
    whole = with_head(tmp_path / "whole")
    with open_adapter(whole) as adapter:
        tensors = {name: tensor.array().copy() for name, tensor in adapter.files[0].tensors.items()}
    names = sorted(tensors)
    shards = {f"adapter_model-0000{i + 1}-of-00002.safetensors": names[i::2] for i in range(2)}
    folder = tmp_path / "run"
    folder.mkdir()
    shutil.copy(whole / CONFIG, folder)
    for shard, held in shards.items():
        write_safetensors(folder / shard, {name: tensors[name] for name in held})
    table = {name: shard for shard, held in shards.items() for name in held}
    index = folder / "adapter_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": table}))
    url = site.add(folder, "run")
    for uri, path in ((url, folder), (f"{url}/{index.name}", index)):
        with localised(uri) as local, localised(str(path)) as here:
            same(path, local)
            assert local.bytes_read < here.size / 10
    for hostile in (
        "../up.safetensors",
        "/etc/passwd",
        CONFIG,
        ".hidden.safetensors",
        "a\nb.safetensors",
        "a/b.safetensors",
    ):
        site.files[f"/run/{index.name}"] = json.dumps({"weight_map": dict.fromkeys(table, hostile)}).encode()
        before = len(site.asked)
        with pytest.raises(AdapterFileError, match="shard"), localised(url):
            pytest.fail("no such shard may be fetched")
        assert {path.rpartition("/")[2] for _, path, _ in site.asked[before:]} <= {CONFIG, *KNOWN}
    for broken in (b"", b"[]", b'{"weight_map": 3}', b'{"weight_map": {"a": "gone.safetensors"}}', b"x" * 5_000_000):
        site.files[f"/run/{index.name}"] = broken
        with pytest.raises(AdapterFileError), localised(url):
            pytest.fail("there is nothing to give")


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (b"", "cannot hold a header"),
        (b"12345678", "claims a header"),
        ((10**6).to_bytes(8, "little") + b"{}", "truncated"),
        ((2).to_bytes(8, "little") + b"{}", "it holds no tensor"),
        (safetensors_bytes({"x.weight": np.ones(400, "float32")}), "none of its 1 tensors"),
        (safetensors_bytes({"x.lora_A.weight": np.ones((2, 400), "float32")}), "lora_B"),
        (safetensors_bytes({"x": np.ones(400, "float32")})[:-1], "truncated"),
        (b"<!DOCTYPE html>" + b"x" * 1000, "web page"),
    ],
)
def test_files_that_are_no_adapters(site: Site, small_steps: None, broken: bytes, reason: str) -> None:
    site.files[f"/run/{WEIGHTS}"] = broken
    with pytest.raises(S3LoRAError, match=reason) as caught, localised(f"{site.url}/run"):
        pytest.fail("there is nothing to give")
    assert "temporary" not in caught.value.located()


def test_a_configuration_that_is_too_large(site: Site, tmp_path: Path) -> None:
    url = site.add(make_adapter(tmp_path / "run", MODULES), "run")
    site.files[f"/run/{CONFIG}"] = b" " * 20_000_000
    with pytest.raises(AdapterFileError, match="larger than"), localised(url):
        pytest.fail("there is nothing to give")
    assert site.sent < 9_000_000


@pytest.mark.parametrize("behaviour", [{"ranges": False}, {"head": False}, {"lengths": False}, {"tags": False}])
def test_servers_that_tell_little(site: Site, tmp_path: Path, small_steps: None, behaviour: dict[str, bool]) -> None:
    adapter = with_head(tmp_path / "run")
    url = site.add(adapter, "run")
    for name, value in behaviour.items():
        setattr(site, name, value)
    with localised(url) as local:
        assert local.path is not None
        with open_adapter(local.path) as found, open_adapter(adapter) as expected:
            assert [one.indices for one in scan(found).modules] == [one.indices for one in scan(expected).modules]
        assert local.partial is ("ranges" not in behaviour and "lengths" not in behaviour)
        assert local.fingerprint.startswith("size:" if behaviour == {"tags": False} else "tag:")


def test_a_server_without_ranges_and_a_file_above_the_limit(site: Site, tmp_path: Path, small_steps: None) -> None:
    adapter = with_head(tmp_path / "run")
    url = site.add(adapter, "run")
    limit = 200_000
    with localised(url, limit=limit) as local:
        assert local.bytes_read < limit, "with ranges it is enough"
    site.ranges = False
    for lengths in (True, False):
        site.lengths, site.sent = lengths, 0
        with pytest.raises(AdapterFileError, match="the limit is 200,000"), localised(url, limit=limit):
            pytest.fail("there is nothing to give")
    with pytest.raises(AdapterFileError, match="the limit is 1,000"), localised(url, limit=1000):
        pytest.fail("there is nothing to give")


def test_torch_files_are_fetched_whole(site: Site, tmp_path: Path) -> None:
    folder = shared() / "adapters" / "bloom-fused-qkv-bin"
    url = site.add(folder, "bloom-fused-qkv-bin")
    with localised(url) as local:
        assert (Path(str(local.path)) / BIN).read_bytes() == (folder / BIN).read_bytes()
        assert not local.partial
        assert local.bytes_read == sum((folder / name).stat().st_size for name in (BIN, CONFIG))
    site.ranges = False
    with localised(f"{url}/{BIN}") as local:
        assert Path(str(local.path)).read_bytes() == (folder / BIN).read_bytes()
    with pytest.raises(AdapterFileError, match="the limit is"), localised(url, limit=10_000):
        pytest.fail("there is nothing to give")


def test_faults_of_a_moment(site: Site, tmp_path: Path, small_steps: None) -> None:
    adapter = with_head(tmp_path / "run")
    url = site.add(adapter, "run")
    site.faults[f"/run/{WEIGHTS}"] = [500, 503]
    site.faults[f"/run/{CONFIG}"] = [429]
    site.cut = 2
    with localised(url) as local:
        same(adapter, local)
    for faults in ([503] * 3, [429, 500, 504]):
        site.faults[f"/run/{WEIGHTS}"] = list(faults)
        with pytest.raises(UnreachableError, match="HTTP status"), localised(url):
            pytest.fail("there is nothing to give")
    site.cut = 100
    with pytest.raises(UnreachableError), localised(url):
        pytest.fail("there is nothing to give")
    with pytest.raises(UnreachableError), localised("http://127.0.0.1:9/run"):
        pytest.fail("there is nothing to give")


def test_faults_for_good(site: Site, tmp_path: Path) -> None:
    url = site.add(make_adapter(tmp_path / "run", MODULES), "run")
    site.faults[f"/run/{WEIGHTS}"] = [401] * 9
    with pytest.raises(AdapterFileError, match="credentials") as caught, localised(url):
        pytest.fail("there is nothing to give")
    assert not isinstance(caught.value, UnreachableError)
    with pytest.raises(NothingToAuditError), localised(f"{site.url}/elsewhere"):
        pytest.fail("there is nothing to give")


def test_a_file_that_is_replaced_while_it_is_read(site: Site, tmp_path: Path, small_steps: None) -> None:
    adapter, other = with_head(tmp_path / "run"), with_head(tmp_path / "other", rows=2000)
    url = site.add(adapter, "run")
    gets = 0

    def replace(path: str) -> None:
        nonlocal gets
        gets += path.endswith(WEIGHTS)
        if gets == 3:
            site.files[path] = other / WEIGHTS

    site.before = replace
    with pytest.raises(ChangedError, match="replaced"), localised(url):
        pytest.fail("what was read is of two files")


def test_a_server_that_sends_more_or_less_than_was_asked_for(site: Site, tmp_path: Path, small_steps: None) -> None:
    adapter = with_head(tmp_path / "run")
    url = site.add(adapter, "run")
    site.files = {name: Path(str(what)).read_bytes() for name, what in site.files.items()}
    site.excess = 100_000
    with localised(url) as local:
        same(adapter, local)
    site.excess = -1
    with pytest.raises(UnreachableError, match="bytes came"), localised(url):
        pytest.fail("what was read has a hole")


def test_a_copy_goes_whatever_happens(site: Site, tmp_path: Path) -> None:
    url = site.add(make_adapter(tmp_path / "run", MODULES), "run")
    for kind in (KeyboardInterrupt, SystemExit):
        with pytest.raises(kind), localised(url):
            raise kind
    with pytest.raises(OSError, match="full"), localised(url):
        raise OSError("the disk is full")


def test_the_stated_limits() -> None:
    assert remote.CHUNK == 8 * 1024 * 1024
    assert remote.MEMORY == 24 * 1024 * 1024
    assert remote.LIMIT == 4 * 1024**3


@pytest.mark.usefixtures("quick", "small_steps")
def test_only_the_named_adapter_of_a_file_is_fetched() -> None:
    system = pytest.importorskip("fsspec").filesystem("memory")
    shape = {"A": (16, 512), "B": (512, 16)}
    tensors = {
        f"base_model.model.x.q_proj.lora_{side}.{name}.weight": np.full(shape[side], number, "<f4")
        for number, name in enumerate(("one", "other"), 1)
        for side in "AB"
    }
    system.pipe("/named/adapters.safetensors", safetensors_bytes(tensors))
    try:
        with pytest.raises(UnsupportedAdapterError, match="adapter=one"), localised("memory://named"):
            pass
        with localised("memory://named", adapter="other") as local, open_one(str(local.path), "other") as adapter:
            [module] = adapter.modules
            assert (module.A.array().max(), module.B.array().min()) == (2.0, 2.0)
            assert local.bytes_read < 0.6 * local.size
    finally:
        system.rm("/named", recursive=True)


@pytest.mark.usefixtures("quick", "small_steps")
def test_the_one_weights_file_of_another_kind_is_found_as_in_a_folder(tmp_path: Path) -> None:
    system = pytest.importorskip("fsspec").filesystem("memory")
    torch = pytest.importorskip("torch")
    folder = make_adapter(tmp_path / "a", MODULES)
    with open_adapter(folder) as adapter:
        held = {name: torch.from_numpy(one.array().copy()) for name, one in adapter.files[0].tensors.items()}
    torch.save(held, tmp_path / "style.pt")
    system.pipe("/single/style.pt", (tmp_path / "style.pt").read_bytes())
    system.pipe("/single/optimizer.pt", b"no adapter")
    system.pipe("/single/adapter_config.json", (folder / "adapter_config.json").read_bytes())
    try:
        with localised("memory://single") as local, open_one(str(local.path), None) as adapter:
            assert {module.path for module in adapter.modules} == set(MODULES)
    finally:
        system.rm("/single", recursive=True)
