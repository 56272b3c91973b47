"""Archives of torch, taken apart and put together again with something wrong."""

from __future__ import annotations

import io
import pickletools
import random
import struct
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

NUMBERS = (
    0,
    1,
    2,
    3,
    4,
    6,
    7,
    8,
    24,
    64,
    127,
    128,
    255,
    256,
    65535,
    65536,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**32,
    2**63 - 1,
)


@dataclass
class Entry:
    """A member of an archive: what its own header says, and what the directory says."""

    name: bytes
    data: bytes
    header: dict[str, int] = field(default_factory=dict)
    listed: dict[str, int] = field(default_factory=dict)
    own_name: bytes | None = None
    own_extra: bytes = b""
    extra: bytes = b""
    comment: bytes = b""
    again: bool = False


@dataclass
class Archive:
    """An archive, and what its end records say otherwise than they should."""

    entries: list[Entry]
    end: dict[str, int] = field(default_factory=dict)
    end64: dict[str, int] = field(default_factory=dict)
    locator: dict[str, int] = field(default_factory=dict)
    long: bool = True
    comment: bytes = b""
    before: bytes = b""

    def build(self) -> bytes:
        """Return the bytes."""
        out = bytearray(self.before)
        directory = bytearray()
        for entry in self.entries:
            at = len(out)
            name = entry.name if entry.own_name is None else entry.own_name
            size = {"stored": len(entry.data), "size": len(entry.data)}
            fields = {"version": 0, "flags": 0x800} | dict.fromkeys(["method", "time", "date", "crc"], 0) | size
            fields |= {"name": len(name), "extra": len(entry.own_extra)} | entry.header
            out += struct.pack("<4s5H3L2H", b"PK\x03\x04", *clipped("5H3L2H", fields.values()))
            out += name + entry.own_extra + entry.data
            listed = (
                {"made": 0, "needed": 0, "flags": 0x800} | dict.fromkeys(["method", "time", "date", "crc"], 0) | size
            )
            listed |= {"name": len(entry.name), "extra": len(entry.extra), "comment": len(entry.comment)}
            listed |= {"disk": 0, "inner": 0, "outer": 0, "offset": at} | entry.listed
            line = struct.pack("<4s6H3L5H2L", b"PK\x01\x02", *clipped("6H3L5H2L", listed.values()))
            directory += (line + entry.name + entry.extra + entry.comment) * (1 + entry.again)
        at = len(out)
        count = sum(1 + entry.again for entry in self.entries)
        numbers = {"disk": 0, "first": 0, "here": count, "count": count, "bytes": len(directory), "offset": at}
        out += directory
        if self.long:
            end64_at = len(out)
            end64 = {"rest": 44, "made": 0, "needed": 45} | numbers | self.end64
            out += struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", *clipped("Q2H2L4Q", end64.values()))
            locator = {"disk": 0, "offset": end64_at, "disks": 1} | self.locator
            out += struct.pack("<4sLQL", b"PK\x06\x07", *clipped("LQL", locator.values()))
        end = numbers | {"comment": len(self.comment)} | self.end
        out += struct.pack("<4s4H2LH", b"PK\x05\x06", *clipped("4H2LH", end.values())) + self.comment
        return bytes(out)


def clipped(layout: str, numbers: Any) -> list[int]:
    """Return each number as its field can hold it."""
    kinds = "".join(kind * int(count or 1) for count, kind in split(layout))
    return [number % (1 << {"H": 16, "L": 32, "Q": 64}[kind]) for kind, number in zip(kinds, numbers, strict=True)]


def split(layout: str) -> Iterator[tuple[str, str]]:
    """Yield each count and letter of a layout."""
    count = ""
    for letter in layout:
        if letter.isdigit():
            count += letter
        else:
            yield count, letter
            count = ""


def taken_apart(content: bytes) -> Archive:
    """Return the members of an archive."""
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        return Archive([Entry(one.orig_filename.encode(), file.read(one)) for one in file.infolist()])


def number(draw: random.Random, near: int = 0) -> int:
    """Draw a number that something may trip over."""
    return draw.choice([near + 1, max(0, near - 1), near * 2, draw.choice(NUMBERS), draw.randrange(70)])


def mutate_zip(archive: Archive, draw: random.Random) -> None:
    """Change one thing of the archive's structure."""
    entry = draw.choice(archive.entries)
    size = len(entry.data)
    match draw.choice([*range(20), 19]):
        case 0:
            entry.listed["outer"] = draw.choice([0x10, 0x20, 0x10 << 16, 1, 0xFFFFFFFF, 0x01800000])
        case 1:
            entry.listed["flags"] = 1 << draw.randrange(16)
        case 2:
            entry.listed["method"] = draw.choice([0, 8, 12, 14, 99])
        case 3:
            entry.listed[draw.choice(["stored", "size"])] = number(draw, size)
        case 4:
            entry.listed["size"] = entry.listed["stored"] = number(draw, size)
        case 5:
            key = draw.choice(
                ["made", "needed", "time", "date", "crc", "disk", "inner", "offset", "name", "extra", "comment"]
            )
            entry.listed[key] = number(draw)
        case 6:
            entry.header[draw.choice(["version", "flags", "method", "crc", "stored", "size", "name", "extra"])] = (
                number(draw)
            )
        case 7:
            archive.end[draw.choice(["disk", "first", "here", "count", "bytes", "offset", "comment"])] = number(draw)
        case 8:
            archive.end64[draw.choice(["rest", "disk", "first", "here", "count", "bytes", "offset"])] = number(draw)
        case 9:
            archive.locator[draw.choice(["disk", "offset", "disks"])] = number(draw)
        case 10:
            archive.long = False
        case 11:
            entry.again = True
        case 12:
            entry.name = draw.choice(
                [
                    entry.name.upper(),
                    entry.name + b"/",
                    entry.name.partition(b"/")[2],
                    b"other/" + entry.name[8:],
                    entry.name + b"\0x",
                    entry.name.replace(b"/", b"\\"),
                    b"\xff" + entry.name,
                    b"x" * 600,
                    entry.name + b".debug_pkl",
                ]
            )
            if draw.random() < 0.3:
                entry.own_name = b"other"
        case 13:
            entry.own_extra = draw.choice([b"FB\3\0ZZZ", b"\1\0\x08\0" + bytes(8), b"x"])
        case 14:
            full = draw.sample(["size", "stored", "offset"], draw.randrange(1, 4))
            values = {"size": size, "stored": size, "offset": number(draw)}
            entry.listed |= dict.fromkeys(full, 0xFFFFFFFF)
            body = b"".join(struct.pack("<Q", values[key]) for key in ("size", "stored", "offset") if key in full)
            body = body[: draw.choice([None, None, 4, 8, 16])]
            entry.extra = draw.choice([b"", b"XX\1\0a", b"X"]) + struct.pack("<HH", 1, len(body)) + body
        case 15:
            entry.extra = draw.choice([b"x", b"\1\0\x10\0" + bytes(16), b"FB\0\0"])
        case 16:
            entry.comment = draw.choice([b"PK\5\6" + bytes(18), b"hello", b"PK\6\7" + bytes(16)])
        case 17:
            archive.comment = draw.choice([b"x", bytes(22), b"PK\5\6" + bytes(18)])
        case 18:
            archive.entries.remove(entry)
            if draw.random() < 0.7:
                archive.entries.insert(draw.randrange(len(archive.entries) + 1), entry)
        case 19:
            name = draw.choice(
                [entry.name.swapcase(), b"b/c", b"archive/constants.pkl", b"archive/d/", b"b/", b"archive/"]
            )
            other = replace(entry, name=name, data=draw.choice([b"", entry.data]))
            archive.entries.insert(draw.randrange(len(archive.entries) + 1), other)


SMALL: dict[bytes, list[bytes]] = {
    b"version": b"3,0,10\n,11\n,1,, 3,+3\n,-3,3x,\xff,0003\n,3\n\n,99999999999999999999".split(b","),
    b"byteorder": [b"big", b"little\0", b"LITTLE", b"", b"littlelittle", b"bi"],
    b".storage_alignment": [b"64\n", b"0", b"", b"-1", b"6\x01", b"1_0", b" 8", b"\xff", b"9" * 5000, "٣".encode()],
    b".format_version": [b"0", b"2", b"", b"\xff"],
    b".data/serialization_id": [b"", b"\xff", b"x" * 1000, "é".encode(), b"0\0"],
    b".data/version": [b"3\n", b"99", b"x"],
}


def mutate_records(archive: Archive, draw: random.Random) -> None:
    """Change what a record holds, or its length."""
    if draw.random() < 0.6:
        name = draw.choice(list(SMALL))
        for entry in archive.entries:
            if entry.name == b"archive/" + name:
                entry.data = draw.choice(SMALL[name])
                return
        archive.entries.append(Entry(b"archive/" + name, draw.choice(SMALL[name])))
        return
    entry = draw.choice(archive.entries)
    entry.data = draw.choice(
        [entry.data[:-1], entry.data + b"\0", entry.data * 2, b"", entry.data[: len(entry.data) // 2]]
    )


#: Opcode → bytes that follow it; -1 and -4: a length of so many, and a text.
OPCODES = dict.fromkeys((bytes([code]) for code in b"N\x88\x89)]}(t\x85\x86\x87aesuQRb.\x81\x8f02\x94"), 0)
OPCODES |= {b"\x80": 1, b"K": 1, b"M": 2, b"J": 4, b"G": 8, b"q": 1, b"r": 4, b"h": 1, b"j": 4}
OPCODES |= {b"\x8a": -1, b"U": -1, b"X": -4}
STORAGES = ("FloatStorage", "HalfStorage", "BFloat16Storage", "LongStorage", "BoolStorage", "ComplexFloatStorage")
GLOBALS = [b"torch\n" + name.encode() for name in (*STORAGES, "Size", "float8_e4m3fn", "uint16", "float32")]
GLOBALS += [b"torch._utils\n_rebuild_" + name for name in (b"tensor_v2", b"tensor_v3", b"parameter", b"tensor")]
GLOBALS += [b"torch\n_utils._rebuild_tensor_v2", b"torch.storage\nUntypedStorage", b"torch.nn.parameter\nParameter"]
GLOBALS += [b"collections\nOrderedDict", b"collections\nCounter", b"\ntorch.Size", b"__builtin__\nset"]
TEXTS = [
    text.encode()
    for text in ["0", "1", "00", "2", "cpu", "cuda:0", "meta", "mps", "storage", "state_dict", "neg", "a", "items"]
]
TEXTS += [b"", b"\xff", b"\xed\xa0\x80"]


def mutate_pickle(code: bytes, draw: random.Random) -> bytes:
    """Change the opcodes of a pickle, or their numbers and names."""
    places = [place for _, _, place in pickletools.genops(code)]
    parts = [code[a:b] for a, b in zip(places, [*places[1:], len(code)], strict=True) if a is not None]
    i = draw.randrange(len(parts))
    match draw.randrange(9):
        case 0:
            del parts[i]
        case 1:
            parts.insert(i, draw.choice(parts))
        case 2:
            parts[i] = draw.choice(parts)
        case 3:
            j = draw.randrange(len(parts))
            first, last = sorted((i, min(j, i + 12)))
            parts[first:last] = parts[first:last] * draw.randrange(3)
        case 4 | 5 | 6:  # a number, a text or a name becomes another
            chosen = [i for i, part in enumerate(parts) if part[:1] in b"KMJX\x88\x89c)h" and part]
            if not chosen:
                return code
            i = draw.choice(chosen)
            kind = parts[i][:1]
            if kind in b"KMJ":
                parts[i] = b"\x8a\x09" + number(draw, parts[i][1]).to_bytes(9, "little")
                if draw.random() < 0.2:
                    parts[i] = b"J" + struct.pack("<i", -draw.randrange(1, 9))
            elif kind == b"X":
                text = draw.choice(TEXTS)
                parts[i] = draw.choice([b"X" + struct.pack("<I", len(text)), b"U" + bytes([len(text)])]) + text
            elif kind in b"\x88\x89":
                parts[i] = draw.choice([b"\x88", b"\x89", b"N", b"K\1", b"K\0"])
            elif kind == b"c":
                parts[i] = b"c" + draw.choice(GLOBALS) + b"\n"
            elif kind == b")":
                parts[i] = draw.choice([b"]\x85", b"N\x85", b")\x85", b"}\x85", b"]", b"]N\x86"])
            else:
                parts[i] = b"h" + bytes([draw.randrange(40)])
        case 7:
            op = draw.choice(list(OPCODES))
            size = OPCODES[op]
            body = draw.randbytes(size) if size >= 0 else (b"\1" + draw.randbytes(1) if size == -1 else b"\1\0\0\0a")
            parts.insert(i, op + body)
        case 8:  # more or fewer arguments of a call
            calls = [i for i, part in enumerate(parts) if part == b"R" and parts[max(0, i - 2)] == b"t"]
            if calls:
                i = draw.choice(calls) - 2
                extra = draw.choice(
                    [
                        b"N",
                        b"}",
                        b"\x89",
                        b"K\0",
                        b")",
                        b"}X\3\0\0\0neg\x88s",
                        b"}X\4\0\0\0conj\x88s",
                        b"c" + GLOBALS[6] + b"\n",
                    ]
                )
                parts[i:i] = [extra] * draw.randrange(1, 4)
    return b"".join(parts)


def mutate(content: bytes, draw: random.Random) -> bytes:
    """Return a damaged copy of a file."""
    archive = taken_apart(content)
    for _ in range(draw.choice([1, 1, 1, 2, 3])):
        kind = draw.random()
        if kind < 0.35 and archive.entries:
            mutate_zip(archive, draw)
        elif kind < 0.5 and archive.entries:
            mutate_records(archive, draw)
        else:
            for entry in archive.entries:
                if entry.name == b"archive/data.pkl":
                    try:
                        entry.data = mutate_pickle(entry.data, draw)
                    except ValueError:  # no pickle any more
                        break
    raw = bytearray(archive.build())
    if draw.random() < 0.15:
        for _ in range(draw.randrange(1, 3)):
            raw[draw.randrange(len(raw))] = draw.choice([0, 1, 16, 255, draw.randrange(256)])
    return bytes(raw)
