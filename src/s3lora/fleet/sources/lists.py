"""Lists of adapters: a text file with one URI a line, or a column of a Parquet file."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import IO, Any
from urllib.parse import unquote

from s3lora.errors import AdapterFileError, S3LoRAError, UsageError, printable
from s3lora.files import open_regular, reason
from s3lora.fleet.bounded import refuse_large
from s3lora.fleet.sources.protocols import file_system, local_path, protocol_of, retried, told
from s3lora.fleet.sources.stores import HttpStore
from s3lora.needs import need

ENDINGS = (".txt", ".parquet")
#: Longest line, in bytes: longer ones are no list.
MAX_LINE = 16 * 1024
#: Columns that hold the URIs; else the only column of strings.
COLUMNS = ("uri", "path")
ROWS = 8192
#: Bytes of the largest list that is fetched from a web server: ten million addresses.
LARGEST = 1024**3


def is_list(path: str) -> bool:
    """Return whether a path or URL is that of a list by its ending."""
    return path == "-" or path.lower().endswith(ENDINGS)


def read_list(given: str, follow: Sequence[str] = ()) -> Iterator[str]:
    """Yield the entries of a list, without blank ones and comments; `-` is standard input.

    A web server may redirect to a host of `follow`, as `redirects.checked` returns them.

    Raises AdapterFileError if it cannot be read or is no list, MissingPackageError where a package is needed.
    """
    if given == "-":
        if sys.stdin is None:
            raise UsageError("standard input is closed", fix="give a file, or folders")
        yield from _lines(sys.stdin.buffer, "standard input")
        return
    with _opened(given, follow) as file:
        try:
            yield from _rows(file, given) if given.lower().endswith(".parquet") else _lines(file, given)
        except (S3LoRAError, GeneratorExit):
            raise
        except Exception as error:  # of whatever file system it lies in
            raise _failure(error, given) from None


@contextmanager
def _opened(given: str, follow: Sequence[str]) -> Iterator[IO[bytes]]:
    with ExitStack() as stack:
        try:
            file = stack.enter_context(_open(given, follow))
        except OSError as error:
            raise _failure(error, given) from None
        yield file


def _open(given: str, follow: Sequence[str]) -> IO[bytes]:
    path = local_path(given)
    if path is not None:
        return open_regular(path)
    if protocol_of(given) in ("http", "https"):
        return _fetched(given, follow)
    system, inner = file_system(given)
    file: IO[bytes] = retried(lambda: system.open(inner, "rb"), given)
    return file


def _fetched(url: str, follow: Sequence[str]) -> IO[bytes]:
    """Return a list of a web server, all of it in a file that has no name."""
    folder, _, name = url.rpartition("/")
    store = HttpStore(folder, follow=follow)
    entry = store.stat(unquote(name))
    if entry is None:
        raise FileNotFoundError
    with ExitStack() as stack:
        file = stack.enter_context(tempfile.TemporaryFile())
        for piece in store.stream(entry):
            file.write(piece)
            if file.tell() > LARGEST:
                raise AdapterFileError(f"is larger than {LARGEST:,} bytes", file=url, fix="give several lists")
        file.seek(0)
        stack.pop_all()
    return file


def _failure(error: Exception, given: str) -> Exception:
    if isinstance(error, FileNotFoundError):
        return AdapterFileError("no such file", file=given)
    if local_path(given) is None:
        return told(error, given)
    return AdapterFileError(f"cannot be read ({reason(error)})", file=given)


def _lines(file: IO[bytes], label: str) -> Iterator[str]:
    for number, line in enumerate(_split(file), 1):
        if len(line) > MAX_LINE:
            raise AdapterFileError(f"line {number} is longer than {MAX_LINE:,} bytes", file=label, fix="give a list")
        # Names of files need be no UTF-8: their bytes go through as they are.
        text = line.decode("utf-8", "surrogateescape").removeprefix("\ufeff" if number == 1 else "").strip()
        if text and not text.startswith("#"):
            yield text


def _split(file: IO[bytes]) -> Iterator[bytes]:
    """Yield lines, and of a line that is too long its beginning; remote files have no `readline` with a limit."""
    rest = b""
    while len(rest) <= MAX_LINE and (piece := file.read(MAX_LINE)):
        *lines, rest = (rest + piece).split(b"\n")
        yield from lines
    yield rest


def _rows(file: IO[bytes], label: str) -> Iterator[str]:
    arrow, parquet = need("pyarrow", "fleet"), need("pyarrow.parquet", "fleet")
    try:
        table = parquet.ParquetFile(file)
        column = _column(table.schema_arrow, arrow.types, label)
        refuse_large(file, label, {column})
        for batch in table.iter_batches(ROWS, columns=[column]):
            for value in batch.column(0).to_pylist():
                if value is not None and value.strip():
                    yield value
    except (arrow.ArrowException, UnicodeDecodeError) as error:
        raise AdapterFileError(f"is no readable Parquet file ({printable(error)})", file=label) from None


def _column(schema: Any, types: Any, label: str) -> str:
    def textual(kind: Any) -> bool:
        inner = kind.value_type if types.is_dictionary(kind) else kind
        return bool(types.is_string(inner) or types.is_large_string(inner) or types.is_string_view(inner))

    found = [field.name for field in schema if textual(field.type)]
    for name in COLUMNS:
        if name in found:
            return name
    if len(found) == 1:
        return str(found[0])
    what = f"has {len(found)} columns of strings and none is called uri" if found else "has no column of strings"
    raise AdapterFileError(what, file=label, fix="name the column with the adapters `uri`")
