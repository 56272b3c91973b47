"""Reading elsewhere takes the stated memory and the needed bytes, however large the file is."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from s3lora.fleet.sources.remote import CHUNK, MEMORY
from tests.command import environment
from tests.fleet.sources.web import Site, serving
from tests.watched import PATIENCE

#: Resident memory of the process now, in bytes, and its highest since `clear_refs`.
PROBE = """
import sys, asyncio, aiohttp, fsspec, fsspec.implementations.http
from s3lora.adapter.open import open_adapter
from s3lora.fleet.sources.remote import localised

def resident(field):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(field + ":"))

with localised(sys.argv[1]) as local:
    open_adapter(local.path).close()
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")
before = resident("VmRSS")
with localised(sys.argv[2]) as local:
    print(local.bytes_read, local.size, resident("VmHWM") - before)
    if local.path.suffix != ".bin":
        open_adapter(local.path).close()
"""


def sparse_adapter(path: Path, lora: int, head: int) -> int:
    """Write an adapter of one module with `lora` rows, before and behind heads of `head` bytes that are holes.

    Returns the bytes of its LoRA factors.
    """
    shapes = {"a_head.weight": (head // 4,), "base_model.model.x.q_proj.lora_A.weight": (16, lora)}
    shapes |= {"base_model.model.x.q_proj.lora_B.weight": (lora, 16), "z_head.weight": (head // 4,)}
    header, at, places = {}, 0, {}
    for name, shape in shapes.items():
        size = 4 * int(np.prod(shape))
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at + size]}
        places[name] = at
        at += size
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        start = file.tell()
        file.truncate(start + at)
        file.seek(start + places["base_model.model.x.q_proj.lora_A.weight"])
        file.write(np.ones(2 * 16 * lora, "<f4").tobytes())
    return 2 * 4 * 16 * lora


def measured(site: Site, small: str, large: str) -> tuple[int, int, int]:
    done = subprocess.run(
        [sys.executable, "-c", PROBE, f"{site.url}{small}", f"{site.url}{large}"],
        capture_output=True,
        env=environment(),
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    read, size, memory = map(int, done.stdout.split())
    return read, size, memory


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="resident memory is measured on Linux")
def test_a_giant_head_is_neither_fetched_nor_held(tmp_path: Path) -> None:
    pytest.importorskip("aiohttp")
    sparse_adapter(tmp_path / "small.safetensors", 16, 400)
    lora = sparse_adapter(tmp_path / "large.safetensors", 220_000, 150 * 1024 * 1024)
    (tmp_path / "whole.bin").touch()
    with (tmp_path / "whole.bin").open("r+b") as file:
        file.truncate(200 * 1024 * 1024)
    with serving() as site:
        site.add(tmp_path, "a")
        site.sent = 0
        read, size, memory = measured(site, "/a/small.safetensors", "/a/large.safetensors")
        assert size > 300 * 1024 * 1024 > 10 * MEMORY
        assert lora > MEMORY > CHUNK
        assert lora <= read <= lora + 600_000
        assert site.sent <= read + 20_000
        assert memory < MEMORY
        read, size, memory = measured(site, "/a/small.safetensors", "/a/whole.bin")
        assert read == size == 200 * 1024 * 1024
        assert memory < MEMORY
