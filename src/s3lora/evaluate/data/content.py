"""The bytes of a data file: read in bounds, unpacked where they are gzip, and refused by name if they are no text."""

from __future__ import annotations

import gzip
import io
import zlib
from pathlib import Path

from s3lora.errors import S3LoRAError
from s3lora.files import read_whole

#: How files begin that are no text, and what they are called. A longer beginning comes before a shorter one.
BEGINNINGS: tuple[tuple[bytes, str], ...] = (
    (b"PAR1", "a parquet file"),
    (b"ARROW1", "an Arrow file"),
    (b"FEA1", "a Feather file"),
    (b"\x1f\x8b", "a gzip file"),
    (b"PK\x03\x04", "a zip archive, as Excel writes its workbooks"),
    (b"PK\x05\x06", "an empty zip archive"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Office file, as Excel wrote its workbooks"),
    (b"BZh", "a bzip2 file"),
    (b"\xfd7zXZ\0", "an xz file"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard file"),
    (b"\x04\x22\x4d\x18", "an LZ4 file"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (b"Rar!", "a RAR archive"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"\x89HDF", "an HDF5 file"),
    (b"SQLite format 3\0", "an SQLite database"),
    (b"GGUF", "a GGUF model"),
    (b"\x89PNG", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"GIF8", "a GIF picture"),
    (b"RIFF", "a picture, sound or film"),
    (b"%PDF-", "a PDF file"),
    (b"\xff\xfe", "text in UTF-16"),
    (b"\xfe\xff", "text in UTF-16"),
    *((bytes([0x80, n]), "a Python pickle, which is never opened") for n in range(2, 6)),
    (b"version https://git-lfs.github.com/spec/", "a pointer of Git LFS, and the file itself was not fetched"),
)
WEB_PAGE = (b"<!doctype html", b"<html")
PARQUET = b"PAR1"
GZIP = b"\x1f\x8b"
TEXT_FIX = "give CSV, TSV, JSON, JSON lines, parquet, any of them in gzip, or plain text"


class DataFileError(S3LoRAError):
    """A file or data set that cannot be read as prompts, references or tasks."""


def kind_of(data: bytes) -> str | None:
    """Return what bytes are that are no text, by how they begin; None where nothing speaks against text.

    >>> kind_of(b"PAR1 and so on"), kind_of(b"goal,target")
    ('a parquet file', None)
    """
    if data[:16].lower().startswith(WEB_PAGE):
        return "a web page"
    return next((name for beginning, name in BEGINNINGS if data.startswith(beginning)), None)


def read_content(path: Path, most: int) -> bytes:
    """Return the bytes of a file, unpacked where it is gzip: at most `most` of them, before and after.

    Raises DataFileError, which names the file, where it is absent, larger or damaged.
    """
    data = read_whole(path, most, DataFileError)
    return _unpacked(data, path, most) if data.startswith(GZIP) else data


def _unpacked(data: bytes, path: Path, most: int) -> bytes:
    """Unpack all members of a gzip file, and stop at the first byte too many."""
    found = bytearray()
    with gzip.GzipFile(fileobj=io.BytesIO(data)) as members:
        try:
            while len(found) <= most and (piece := members.read(most + 1 - len(found))):
                found += piece
        except EOFError:
            raise DataFileError("is gzip that is cut off", file=path, fix="fetch it again") from None
        except (OSError, zlib.error):
            raise DataFileError("is gzip that is damaged", file=path, fix="fetch it again") from None
    if len(found) > most:
        raise DataFileError(f"unpacks to more than {most:,} bytes", file=path, fix="cut it")
    return bytes(found)


def text_of(data: bytes, path: Path) -> str:
    """Return UTF-8 as text, without the mark at its beginning; raise DataFileError for anything else."""
    kind = kind_of(data)
    if kind is not None:
        raise DataFileError(f"is {kind}", file=path, fix=TEXT_FIX)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataFileError(f"line {line} is not UTF-8", file=path, fix="save the file as UTF-8") from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise DataFileError(f"is no text (a zero byte in line {line})", file=path, fix=TEXT_FIX)
    return text


def read_text(path: Path, most: int) -> str:
    """Return the text of a UTF-8 file, or of such a file in gzip, of at most `most` bytes.

    Raises DataFileError, which names the file, for any other.
    """
    return text_of(read_content(path, most), path)
