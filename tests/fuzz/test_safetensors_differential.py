"""What s3lora reads of a safetensors file, the `safetensors` package reads too, with the same tensors.

Headers are damaged with a meaning: numbers in other notations, keys twice or missing, offsets that overlap, lengths
that lie. s3lora is stricter on purpose about unknown keys, entries that are no object, names that no model has, and
more dimensions than 8. The default suite tries some files; `python -m tests.fuzz.test_safetensors_differential SECONDS
[SEED]` goes on for longer, and writes every difference into the working directory.
"""

from __future__ import annotations

import random
import struct
import sys
import time
from pathlib import Path

import pytest

from s3lora.adapter.tensors import read_safetensors
from s3lora.errors import S3LoRAError

safetensors = pytest.importorskip("safetensors", reason="the safetensors package is not installed")

CASES = 800
NUMBERS = (
    "0", "1", "2", "4", "8", "24", "-0", "-1", "0.0", "-0.0", "8.0", "1e2", "0e0", "80e-1", "00", "+0", "NaN",
    "Infinity",
    "null", "true", '"8"', "[8]", "9007199254740993", "9223372036854775807", "9223372036854775808",
    "18446744073709551615", "18446744073709551616", "1" + "0" * 400,
)  # fmt: skip
DTYPES = [
    "F64",
    "F32",
    "F16",
    "BF16",
    "F8_E4M3",
    "F8_E5M2",
    "F8_E8M0",
    "F8_E4M3FNUZ",
    "F6_E2M3",
    "F6_E3M2",
    "F4",
    "C64",
    "I64",
    "U64",
    "I32",
    "U32",
    "I16",
    "U16",
    "I8",
    "U8",
    "BOOL",
]
NO_DTYPES = ["f32", "F128", "", "\\u004632"]
NAMES = ["a", "a", "b", "", "..", "\\u0061", "x-0", "x,-1", "é", "\\ud83d\\ude00", "\\ud800", "a\x01", "__metadata__"]
BITS = {
    "F64": 64,
    "C64": 64,
    "I64": 64,
    "U64": 64,
    "F32": 32,
    "I32": 32,
    "U32": 32,
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
}
BITS |= dict.fromkeys(("F16", "BF16", "I16", "U16"), 16)


def damaged(seed: int) -> bytes:
    """Return a file with something wrong, or nothing, of this number."""
    draw = random.Random(seed)
    wrong = draw.choice([0, 0.02, 0.05, 0.1])
    at = 0
    entries = []
    for i in range(draw.randrange(4)):
        dtype = draw.choice(DTYPES)
        shape = [draw.choice([0, 1, 2, 3, 8, 8]) for _ in range(draw.choice([0, 1, 2, 2, 3, 9]))]
        size = BITS.get(dtype, 8)
        for length in shape:
            size *= length
        fields = [
            ("dtype", f'"{draw.choice(DTYPES + NO_DTYPES) if draw.random() < wrong else dtype}"'),
            ("shape", _numbers(shape, draw, wrong)),
            ("data_offsets", _numbers([at, at + size // 8], draw, wrong)),
        ]
        at += size // 8
        draw.shuffle(fields)
        if draw.random() < wrong:
            change = draw.randrange(4)
            if change == 0:
                fields.pop()
            elif change == 1:
                fields.append(draw.choice(fields))
            elif change == 2:
                fields.append(("x", "1"))
            else:
                fields[0] = ("\\u0064type", fields[0][1])
        body = "{" + ",".join(f'"{key}":{value}' for key, value in fields) + "}"
        name = draw.choice(NAMES) if draw.random() < wrong else f"t{i}.{draw.choice(['lora_A', 'x-0', 'x, -1'])}"
        entries.append(f'"{name}":{body}')
    if draw.random() < 0.3:
        forms = ('{"format":"pt"}', "null", "{}", '{"a":"b","a":"c"}', '{"a":1}', "[]", '{"a":"-0, -1"}', '{"a":null}')
        metadata = draw.choice(forms) if draw.random() < 0.5 else forms[0]
        entries.insert(draw.randrange(len(entries) + 1), f'"__metadata__":{metadata}')
    if draw.random() < 0.3:
        draw.shuffle(entries)
    if entries and draw.random() < wrong:
        entries.append(draw.choice(entries))
    text = "{" + ",".join(entries) + "}"
    if draw.random() < 0.3:
        text = (
            draw.choice(["", "", "", " ", "\ufeff", "\n", "\x0c"])
            + text
            + draw.choice([" ", "   ", "\n", "\t", "\0", "x", ","])
        )
    header = bytearray(text.encode())
    if draw.random() < wrong:
        header[draw.randrange(len(header))] = draw.randrange(256)
    length = len(header) + (draw.choice([-1, 1, 2**63, 8]) if draw.random() < wrong else 0)
    data = draw.randbytes(max(0, at + (draw.choice([-1, 1, 8]) if draw.random() < wrong else 0)))
    return struct.pack("<Q", max(0, length)) + bytes(header) + data


def _numbers(numbers: list[int], draw: random.Random, wrong: float) -> str:
    texts = [draw.choice(NUMBERS) if draw.random() < wrong else str(number) for number in numbers]
    if draw.random() < wrong:
        texts.append("8")
    return f"[{', '.join(texts)}]"


def ours(path: Path) -> dict[str, tuple[str, list[int], bytes]] | None:
    """Return the tensors that s3lora reads, or None where it refuses."""
    try:
        file = read_safetensors(path)
    except S3LoRAError:
        return None
    try:
        return {
            name: (one.code, list(one.shape), b"".join(map(bytes, one.chunks()))) for name, one in file.tensors.items()
        }
    finally:
        file.close()


def difference(path: Path) -> str | None:
    """Return how s3lora reads what the package does not, or otherwise; None where all is well."""
    mine = ours(path)
    if mine is None:
        return None
    try:
        read = safetensors.deserialize(path.read_bytes())
        with safetensors.safe_open(path, "numpy") as file:  # what PEFT calls; it checks the length of the file besides
            list(file.keys())
    except Exception as error:
        return f"the package refuses what s3lora reads: {type(error).__name__}: {str(error)[:200]}"
    theirs = {name: (one["dtype"], list(one["shape"]), bytes(one["data"])) for name, one in read}
    if mine != theirs:
        return f"other tensors: {str(mine)[:200]} and {str(theirs)[:200]}"
    return None


def test_what_is_read_of_damaged_files_the_package_reads_alike(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    read = 0
    for seed in range(CASES):
        path.write_bytes(damaged(seed))
        assert difference(path) is None, f"seed {seed}"
        read += ours(path) is not None
    assert CASES // 10 < read < CASES * 9 // 10, "the damage must be neither always fatal nor always harmless"


@pytest.mark.parametrize("number", ["-0", "-1", "0.0", "0e0", "00", "+0", "NaN"])
def test_an_offset_is_written_as_a_number_of_digits(tmp_path: Path, number: str) -> None:
    path = tmp_path / "x.safetensors"
    header = '{"x,-0":{"dtype":"F32","shape":[1],"data_offsets":[%s,4]}}'
    for text, read in [(header % "0", True), (header % number, False)]:
        path.write_bytes(struct.pack("<Q", len(text)) + text.encode() + bytes(4))
        assert (ours(path) is not None) is read
        assert difference(path) is None


def main(seconds: float, seed: int) -> None:
    """Try files until the time is over; print each difference."""
    path = Path("differential.safetensors")
    first, read, differences, end = seed, 0, 0, time.monotonic() + seconds
    while time.monotonic() < end:
        path.write_bytes(damaged(seed))
        read += ours(path) is not None
        if (found := difference(path)) is not None:
            differences += 1
            path.rename(f"differential-{seed}.safetensors")
            print(f"seed {seed}: {found}", flush=True)
        seed += 1
    path.unlink(missing_ok=True)
    print(f"{seed - first:,} files, of which {read:,} were read; {differences} differences")


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0)
