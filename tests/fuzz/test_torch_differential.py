"""What s3lora reads of a torch checkpoint, `torch.load(weights_only=True)` reads too, with the same tensors.

Real files of `torch.save` are damaged with a meaning: the structure of the zip archive, the opcodes and numbers of the
pickle, the sizes of storages. The default suite tries some; `python -m tests.fuzz.test_torch_differential SECONDS
[SEED]` goes on for longer, and writes every difference into the working directory.
"""

from __future__ import annotations

import collections
import functools
import io
import random
import sys
import time
import warnings
from pathlib import Path

import pytest

from s3lora.adapter.torch_zip import read_torch
from s3lora.errors import S3LoRAError
from tests.fuzz.torch_damage import mutate, taken_apart

torch = pytest.importorskip("torch", reason="torch is not installed, so there is nothing to compare with")

CASES = 400


@functools.cache
def originals() -> tuple[bytes, ...]:
    """Return some files that torch wrote."""
    torch.manual_seed(0)
    a = torch.randn(4, 6)
    b = a.to(torch.bfloat16)
    states = [
        {"x.lora_A.weight": a, "x.lora_B.weight": torch.randn(5, 4)},
        collections.OrderedDict(a=a[1:3], b=b, c=torch.nn.Parameter(a[0], False), d=a[2, 3], e=torch.zeros(0, 4)),
        torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2)).state_dict(),
        {"a": a.to(torch.float8_e4m3fn), "b": torch.arange(5).to(torch.uint16), "c": torch.ones(3, dtype=torch.bool)},
        {
            "state_dict": {"a": a, "b": torch.arange(6).reshape(2, 3)},
            "epoch": 3,
            "lr": 0.1,
            "who": None,
            "l": [1, (2,)],
        },
        {"a": torch.nn.Parameter(a), "tied": a, "half": b.to(torch.float16), "z": torch.ones(2, dtype=torch.complex64)},
    ]
    made = []
    for state in states:
        buffer = io.BytesIO()
        torch.save(state, buffer)
        made.append(buffer.getvalue())
    return tuple(made)


def ours(path: Path) -> dict[str, tuple[str, tuple[int, ...], bytes]] | None:
    """Return the tensors that s3lora reads, or None where it refuses."""
    try:
        file = read_torch(path)
    except S3LoRAError:
        return None
    try:
        return {name: (one.dtype, one.shape, one.array().tobytes()) for name, one in file.tensors.items()}
    finally:
        file.close()


def theirs(path: Path) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """Return the tensors that torch reads; raise whatever it raises."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        state = torch.load(path, weights_only=True, map_location="cpu")
    if isinstance(state, dict) and not any(isinstance(one, torch.Tensor) for one in state.values()):
        state = next(
            state[key] for key in ("state_dict", "model")
            if isinstance(state.get(key), dict) and any(isinstance(one, torch.Tensor) for one in state[key].values())
        )  # fmt: skip
    found = {}
    for name, one in state.items():
        if isinstance(one, torch.Tensor):
            flat = one.detach().resolve_neg().resolve_conj().contiguous().reshape(-1)
            raw = flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""
            found[name] = (str(one.dtype).removeprefix("torch."), tuple(one.shape), raw)
    return found


def difference(path: Path) -> str | None:
    """Return how s3lora reads what torch does not, or otherwise; None where all is well."""
    mine = ours(path)
    if mine is None:
        return None
    try:
        other = theirs(path)
    except Exception as error:
        return f"torch refuses what s3lora reads: {type(error).__name__}: {str(error)[:200]}"
    if list(mine) != list(other):
        return f"other names: {list(mine)[:4]} and {list(other)[:4]}"
    return next((f"{name} differs: {mine[name]} and {other[name]}" for name in mine if mine[name] != other[name]), None)


def damaged(seed: int) -> bytes:
    """Return the damaged file of this number."""
    draw = random.Random(seed)
    return mutate(draw.choice(originals()), draw)


def test_what_torch_writes_is_read_with_the_same_tensors(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    for content in originals():
        for same in (content, taken_apart(content).build()):
            path.write_bytes(same)
            assert ours(path), "an ordinary file must be read"
            assert difference(path) is None


def test_what_is_read_of_damaged_files_torch_reads_alike(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    read = 0
    for seed in range(CASES):
        path.write_bytes(damaged(seed))
        assert difference(path) is None, f"seed {seed}"
        read += ours(path) is not None
    assert CASES // 50 < read < CASES // 2, "the damage must be neither always fatal nor always harmless"


def main(seconds: float, seed: int) -> None:
    """Try files until the time is over; print each kind of difference once."""
    path = Path("differential.bin")
    seen: set[str] = set()
    first, read, end = seed, 0, time.monotonic() + seconds
    while time.monotonic() < end:
        path.write_bytes(damaged(seed))
        found = difference(path)
        read += found is not None or ours(path) is not None
        if found is not None and (kind := "".join(c for c in found[:70] if not c.isdigit())) not in seen:
            seen.add(kind)
            path.rename(f"differential-{seed}.bin")
            print(f"seed {seed}: {found}", flush=True)
        seed += 1
    path.unlink(missing_ok=True)
    print(f"{seed - first:,} files, of which {read:,} were read; {len(seen)} kinds of difference")


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0)
