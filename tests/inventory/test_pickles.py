"""What pickles name, of every protocol and packing, against real picklers; nothing is ever loaded."""

from __future__ import annotations

import bz2
import collections
import gzip
import io
import lzma
import os
import pickle
import tarfile
import tracemalloc
import zipfile
from typing import Any

import joblib
import numpy as np
import pytest

from s3lora.adapter.inventory.archives import pickles_in, view_of
from s3lora.adapter.inventory.pickle_source import PickleBudget, PickleSource
from s3lora.adapter.inventory.pickles import PUT_TOGETHER, PickleNames, looks_like_pickle, names_in

CALL = f"{os.system.__module__}.system"


class Call:
    """Pickles as a call of the shell, and does no harm."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("true",)


def read(raw: bytes, **budget: int) -> PickleNames:
    return names_in(PickleSource(lambda at, count: raw[at : at + count], len(raw), PickleBudget(**budget)))


def packed(raw: bytes, *, named: bool = True) -> PickleNames | None:
    return pickles_in(view_of(raw), PickleBudget(), named=named)


@pytest.mark.parametrize("protocol", range(6))
def test_every_protocol(protocol: int) -> None:
    value = [
        *({1: 2.0, "a": (1, 2)}, {3}, frozenset([4]), b"x" * 10_000, "é" * 9000, 10**50, -7, None, True),
        *(collections.OrderedDict(a=1), 3.5, bytearray(b"y"), Call(), [], (), {}),
    ]
    found = read(pickle.dumps(value, protocol))
    assert (found.note, found.whole) == ("", True)
    assert {CALL, "collections.OrderedDict"} <= found.names


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        (b"cos\nsystem\n(S'true'\ntR.", "os.system"),
        (b"(S'true'\nios\nsystem\n.", "os.system"),  # INST
        (b"(cos\nsystem\nS'true'\no.", "os.system"),  # OBJ
        (b"\x80\x04\x8c\x05posix\x94\x8c\x06system\x940h\x00h\x01\x93.", "posix.system"),  # through the memo
        (b"Vposix\np7\n0Vsystem\np9\n0g7\ng9\n\x93.", "posix.system"),
        (b"S'o\\x73'\nS'system'\n\x93.", "os.system"),  # escapes
        (b"S'\\557s'\nS'\\163ystem'\n\x93.", "os.system"),  # of octal digits the last eight bits count
        (b"S'\\q\\u006f'\nS'x'\n\x93.", "\\q\\u006f.x"),  # no escapes of bytes
        (b"V\\u006fs\nVsystem\n\x93.", "os.system"),
        (b"\x80\x04]\x8c\x02os\x8c\x06systemr\x00\x00\x01\x0001\x8c\x02osj\x00\x00\x01\x00\x93.", "os.system"),
        (b"\x80\x02\x82\x05.", "copyreg extension.5"),
        (b"\x80\x04\x8c\x02os(\x8c\x01x\x85R\x93.", PUT_TOGETHER),
        (b"\x80\x0400000cos\nsystem\n.", "os.system"),  # more is taken than was put
        (b"cos\npath.join\n.", "os.path.join"),
    ],
)
def test_names_are_found_however_they_are_made(raw: bytes, name: str) -> None:
    assert name in read(raw).names


def test_what_breaks_off_or_follows_is_told() -> None:
    call = pickle.dumps(Call())
    assert read(call[:-1]) == PickleNames(
        frozenset({CALL}), "ends in the middle at byte 41, so it was not read to its end", False
    )
    assert read(pickle.dumps(1) + call + b"\xff rest") == PickleNames(
        frozenset({CALL}), "6 bytes follow its last pickle"
    )
    broken = read(b"cos\nsystem\n\xff" + call)
    assert broken.names == {"os.system"}
    assert "has no opcode of a pickle" in broken.note
    assert read(b"\x80\x04X\xff\xff\xff\xff").note.startswith("ends in the middle")
    assert read(b"\x80\x04\x8e" + b"\xff" * 8).note.startswith("ends in the middle")


def test_bounds() -> None:
    assert "too many opcodes" in read(b"\x80\x04" + b"N0" * 500 + b".", opcodes=100).note
    assert "too long" in read(b"(" + b"V" * 100_000, bytes=10_000).note
    assert read(b"c" + b"x" * 200_000).note.startswith("has a line without an end")
    many = read(b"".join(b"cm%d\nx\n0" % i for i in range(20_000)) + b"N.")
    assert len(many.names) == 10_000
    assert "more than 1,000 pickles" in read(b"N." * 1500).note


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_what_is_compressed_in_parts_is_read_as_one(pack: Any) -> None:
    raw = pickle.dumps(Call(), 0)
    assert packed(pack(raw[:5]) + pack(raw[5:])) == PickleNames(frozenset({CALL}))
    assert packed(pack(pickle.dumps(Call())), named=False) == PickleNames(frozenset({CALL}))
    assert packed(pack(b"only text"), named=False) is None


@pytest.mark.parametrize("compress", [0, ("zlib", 3), ("gzip", 3), ("bz2", 3), ("lzma", 3), ("xz", 3)])
def test_joblib_writes_arrays_between_the_opcodes(compress: Any) -> None:
    behind = io.BytesIO()
    arrays = [np.arange(5000.0), np.zeros((3, 4), "f4"), np.zeros(3, "M8[s]"), np.array(["abc"])]
    joblib.dump([*arrays, Call()], behind, compress=compress)
    assert CALL in (packed(behind.getvalue()) or PickleNames(frozenset())).names
    within = io.BytesIO()
    joblib.dump({"a": np.array([Call(), 1], object), "b": np.arange(9.0)}, within, compress=compress)
    found = packed(within.getvalue())
    assert found is not None
    assert (CALL in found.names, found.note, found.whole) == (True, "", True)


def test_an_array_that_only_joblib_would_skip_hides_nothing() -> None:
    """Python's own unpickler knows no arrays between opcodes, so what stands there runs."""
    state = b"}(X\x05\x00\x00\x00dtypecnumpy\ndtype\nX\x02\x00\x00\x00u1\x85RX\x05\x00\x00\x00shapeM\x00\x01\x85u"
    hidden = b"cposix\nsystem\nX\x04\x00\x00\x00true\x85R."
    raw = b"\x80\x02cjoblib.numpy_pickle\nNumpyArrayWrapper\n)\x81" + state + b"b" + hidden + b"\0" * 256
    assert "posix.system" in read(raw).names


@pytest.mark.parametrize("packing", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_members_that_are_unpacked_without_bound_are_not_read(packing: int) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", packing) as made, made.open("a.pkl", "w") as member:
        for _ in range(300):
            member.write(bytes(1 << 20))
    tracemalloc.start()
    found = packed(file.getvalue(), named=False)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found is not None
    assert "is packed in a way that is not read" in found.note
    assert most < 50_000_000


def test_a_shape_whose_product_is_endless_ends() -> None:
    size = b"\x8a\x10" + b"\xff" * 15 + b"\x7f"  # LONG1 of 16 bytes
    state = b"}(X\x05\x00\x00\x00dtypecnumpy\ndtype\nX\x02\x00\x00\x00f8\x85RX\x05\x00\x00\x00shape("
    state += size * 300_000 + b"tu"
    found = read(b"\x80\x02cjoblib.numpy_pickle\nNumpyArrayWrapper\n)\x81" + state + b"b.")
    assert "joblib.numpy_pickle.NumpyArrayWrapper" in found.names


def test_torch_files_and_arrays() -> None:
    torch = pytest.importorskip("torch")
    for new in (True, False):
        file = io.BytesIO()
        torch.save({"a": torch.zeros(3), "e": Call()}, file, _use_new_zipfile_serialization=new)
        found = packed(file.getvalue(), named=False)
        assert found is not None
        assert CALL in found.names
    array = io.BytesIO()
    np.save(array, np.array([Call()], object))
    assert CALL in (packed(array.getvalue(), named=False) or PickleNames(frozenset())).names
    plain = io.BytesIO()
    np.save(plain, np.zeros(3))
    assert packed(plain.getvalue(), named=False) is None
    several = io.BytesIO()
    np.savez_compressed(several, a=np.array([Call()], object), b=np.zeros(3))
    assert CALL in (packed(several.getvalue(), named=False) or PickleNames(frozenset())).names


def test_a_pickle_does_not_pass_for_an_archive() -> None:
    """`pickle.load` takes the file as it is, whatever `tarfile` would make of it."""
    raw = b"cos\nsystem\n(V" + b"a" * 240 + b"\ntR."
    with_sign = raw[:257] + b"ustar" + raw[262:]
    assert with_sign[257:262] == b"ustar"
    assert "os.system" in (packed(with_sign) or PickleNames(frozenset())).names
    assert "os.system" in (packed(with_sign, named=False) or PickleNames(frozenset())).names
    header = bytearray(512)
    program = b"cos\nsystem\n(Vid\ntR."
    header[: len(program)] = program
    header[124:136] = b"%011o\0" % 0
    header[257:263] = b"ustar\0"
    header[148:156] = b"%06o\0 " % (sum(header[:148]) + 8 * 32 + sum(header[156:]))
    both = bytes(header) + bytes(1024)
    with tarfile.open(fileobj=io.BytesIO(both)) as opened:
        assert opened.getnames()
    assert "os.system" in (packed(both, named=False) or PickleNames(frozenset())).names


def test_text_with_the_sign_of_a_tar_archive_is_text() -> None:
    assert packed(b"C" * 257 + b"ustar" + b"C" * 600, named=False) is None


def test_archives() -> None:
    raw = pickle.dumps(Call())
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        info = tarfile.TarInfo("pickle")
        info.size = len(raw)
        archive.addfile(info, io.BytesIO(raw))
    assert packed(tar.getvalue(), named=False) == PickleNames(frozenset({CALL}))
    old = bytearray(tar.getvalue())
    old[257:265] = bytes(8)  # as before POSIX: the sum alone tells that it is one
    old[148:156] = b"%06o\0 " % (sum(old[:148]) + 8 * 32 + sum(old[156:512]))
    assert packed(bytes(old), named=False) == PickleNames(frozenset({CALL}))
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("readme.txt", "text")
        archive.writestr("deep/data.pkl", raw)
    assert packed(zipped.getvalue(), named=False) == PickleNames(frozenset({CALL}))
    assert "cannot be read" in (packed(zipped.getvalue()[:-30]) or PickleNames(frozenset())).note
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.pkl", raw + bytes(70 << 20))
    found = packed(bomb.getvalue())
    assert found is not None
    assert (found.names, "unpacks to more than" in found.note) == ({CALL}, True)
    assert "not unpacked to its end" in (packed(gzip.compress(raw + bytes(70 << 20))) or PickleNames(frozenset())).note


def test_texts_are_no_pickles() -> None:
    for text in (b"cats\ndogs\nbirds\n", b"# README\n", b'{"a": 1}', b"(see below)\n", b"", b"\x80", b"import os\nx\n"):
        assert not looks_like_pickle(text, len(text)), text
    assert looks_like_pickle(pickle.dumps(Call(), 0), 100)


def test_no_bytes_raise_anything() -> None:
    generator = np.random.default_rng(0)
    seeds = [pickle.dumps([Call(), {"a": 1}, np.zeros(3)], protocol) for protocol in range(6)]
    for i in range(600):
        raw = bytearray(seeds[i % 6])
        for at in generator.integers(0, len(raw), 4):
            raw[at] = generator.integers(0, 256)
        packed(bytes(raw))
        packed(bytes(raw[: int(generator.integers(0, len(raw)))]), named=False)
