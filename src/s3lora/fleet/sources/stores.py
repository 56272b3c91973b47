"""One folder somewhere else: what lies in it, and the bytes of a range of one file.

A server is not believed: no answer is read further than what was asked for, whatever its headers say.
"""

from __future__ import annotations

import asyncio
import re
import time
from base64 import b64encode
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, ClassVar, Protocol, TypeVar
from urllib.parse import quote, unquote, urlsplit

from s3lora.adapter.weights import CONFIG, WEIGHTS
from s3lora.errors import AdapterFileError, S3LoRAError, UsageError, printable
from s3lora.fleet.sources import hub
from s3lora.fleet.sources.discover import is_weights
from s3lora.fleet.sources.listing import joined
from s3lora.fleet.sources.protocols import ChangedError, UnreachableError, file_system, protocol_of, retried, told
from s3lora.fleet.sources.redirects import MOST, STATUSES, same_server, target
from s3lora.needs import need
from s3lora.outside import STRUCK

T = TypeVar("T")

#: Most bytes of content in memory at once.
CHUNK = 8 * 1024 * 1024
#: Seconds to wait for a connection, for the next bytes of an answer, and for a server to get up to speed.
CONNECT, NEXT_BYTES, GRACE = 15, 60, 60
#: Bytes a second: a server that goes on more slowly is given up.
SLOWEST = 16 * 1024
#: Where the Hub sends readers of large files on to.
HUB_HOSTS = ("huggingface.co", "*.huggingface.co", "*.hf.co")


class NoRangesError(S3LoRAError):
    """The server sends whole files only."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A file: its size in bytes, and what changes when its content does; None where the other side tells neither."""

    name: str
    size: int | None
    tag: str | None


class Store(Protocol):
    """A folder elsewhere. Everything may raise UnreachableError and AdapterFileError; a read also ChangedError.

    `lists` tells whether `entries` are all files of the folder.
    """

    lists: ClassVar[bool]

    def entries(self) -> dict[str, Entry]:
        """Return the files that an adapter may be made of."""

    def stat(self, name: str) -> Entry | None:
        """Return a file as it is now, None where there is none."""

    def read(self, entry: Entry, start: int, stop: int) -> bytes | bytearray:
        """Return these bytes, all of them; at most `CHUNK` may be asked for. Raises NoRangesError."""

    def stream(self, entry: Entry) -> Iterator[bytes]:
        """Yield a whole file in pieces of at most `CHUNK`."""

    def confirm(self, entry: Entry) -> None:
        """Raise ChangedError if the file is another one than it was, where reading does not tell already."""


def open_store(uri: str, follow: Sequence[str] = ()) -> tuple[Store, str | None]:
    """Return the folder of an adapter elsewhere, and the name of its weights file where `uri` names one.

    `follow` are hosts that a web server may redirect to, as `redirects.checked` returns them.
    """
    if re.search(rf"/{STRUCK}@|={STRUCK}(?:[&;#]|$)", uri):
        raise AdapterFileError("had credentials in its address, which results do not keep", file=uri, fix="give them")
    protocol = protocol_of(uri)
    if protocol == "hf":
        repo = hub.repository(uri)
        if repo is None:
            raise UsageError(f"{printable(uri)} is no single model", fix="give hf://OWNER/NAME")
        folder, name = _split(repo.path)
        return HubStore(repo, folder, uri, follow), name
    if protocol in ("http", "https"):
        if not _host(uri):
            raise UsageError(f"{printable(uri)} names no server", fix="give https://SERVER/PATH")
        address, mark, query = uri.partition("?")
        folder, name = _split(address)
        return HttpStore(folder, mark + query, follow=follow), name
    folder, name = _split(uri)
    return FileStore(folder), name


def _host(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


def _split(path: str) -> tuple[str, str | None]:
    above, _, last = path.rstrip("/").rpartition("/")
    return (above, last) if is_weights(last) else (path.rstrip("/"), None)


class FileStore:
    """A folder of any file system of fsspec that can list and read ranges: S3, Google Cloud, memory."""

    lists: ClassVar[bool] = True

    def __init__(self, uri: str) -> None:
        """Take the URL of the folder."""
        self.uri = uri
        self.system, self.path = file_system(uri)

    def entries(self) -> dict[str, Entry]:
        """Return all files in the folder; one request."""
        self.system.invalidate_cache()
        try:
            listed = retried(partial(self.system.ls, self.path, detail=True), self.uri)
        except FileNotFoundError:
            return {}
        finally:
            self.system.invalidate_cache()
        found = (_entry(info) for info in listed if info["type"] != "directory")
        return {entry.name: entry for entry in found}

    def stat(self, name: str) -> Entry | None:
        """Return a file as it is now; one request."""
        self.system.invalidate_cache()
        try:
            info = retried(partial(self.system.info, self._path(name)), joined(self.uri, name))
        except FileNotFoundError:
            return None
        return None if info["type"] == "directory" else _entry(info)

    def read(self, entry: Entry, start: int, stop: int) -> bytes:
        """Return a range of a file."""
        where = joined(self.uri, entry.name)

        def once() -> bytes:
            with self._opened(entry) as file:
                file.seek(start)
                return bytes(file.read(stop - start))

        try:
            data = retried(once, where)
        except FileNotFoundError:
            raise ChangedError("vanished while it was read", file=where, fix="try again") from None
        if len(data) != stop - start:
            raise ChangedError("became shorter while it was read", file=where, fix="try again")
        return data

    def stream(self, entry: Entry) -> Iterator[bytes]:
        """Yield a whole file."""
        if entry.size is None:
            raise AdapterFileError("has no known size", file=joined(self.uri, entry.name), fix="fetch the file first")
        for start in range(0, entry.size, CHUNK):
            yield self.read(entry, start, min(start + CHUNK, entry.size))

    def confirm(self, entry: Entry) -> None:
        """Ask again what the file is."""
        if self.stat(entry.name) != entry:
            raise ChangedError("was replaced while it was read", file=joined(self.uri, entry.name), fix="try again")

    def _opened(self, entry: Entry) -> Any:
        try:  # exact ranges only; without the size, opening asks for it again
            return self.system.open(self._path(entry.name), "rb", cache_type="none", size=entry.size)
        except TypeError:  # not every file system knows these
            return self.system.open(self._path(entry.name), "rb")

    def _path(self, name: str) -> str:
        return f"{self.path.rstrip('/')}/{name}"


#: What file systems call the thing that changes with the content, the surest first.
_TAGS = ("ETag", "etag", "md5Hash", "checksum", "crc32c", "VersionId", "generation", "content_md5")
_TIMES = ("LastModified", "last_modified", "updated", "mtime", "created")


def _entry(info: dict[str, Any]) -> Entry:
    tag = next((f"{name}={_told(info[name])}" for name in (*_TAGS, *_TIMES) if info.get(name)), None)
    size = info.get("size")
    return Entry(str(info["name"]).rstrip("/").rpartition("/")[2], None if size is None else int(size), tag)


def _told(value: Any) -> str:
    """Return a tag or a time as text: of one time, a listing may give the number and a question for one file a date."""
    return str(value.timestamp() if isinstance(value, datetime) and value.tzinfo else value)


class HttpStore:
    """A folder of a web server, which cannot be listed: the names that adapters have are tried."""

    lists: ClassVar[bool] = False

    def __init__(
        self, address: str, query: str = "", headers: dict[str, str] | None = None, follow: Sequence[str] = ()
    ) -> None:
        """Take the folder's URL, what follows the name of each file in it, and hosts that redirects may lead to."""
        self.aiohttp = need("aiohttp", "fleet")
        start, _, rest = address.partition("://")
        user, at, _ = rest.partition("/")[0].rpartition("@")
        self.address, self.query, self.follow = f"{start}://{rest[len(user) + len(at) :]}", query, follow
        self.headers = dict(headers or {})  # which go to this server alone, wherever it redirects to
        if at:
            self.headers["Authorization"] = f"Basic {b64encode(unquote(user).encode()).decode()}"
        self.system, _ = file_system(self.address)
        self.sync = need("fsspec.asyn", "fleet").sync
        #: Name of a file → entity tag of the first answer; each later one must have the same.
        self.seen: dict[str, str] = {}

    def url(self, name: str) -> str:
        """Return the URL of a file."""
        return f"{self.address}/{quote(name, safe='%')}{self.query}"

    def entries(self) -> dict[str, Entry]:
        """Return the configuration and the weights of known names; a request for each name tried, up to the first."""
        found: dict[str, Entry] = {}
        for name in (CONFIG, *WEIGHTS):
            entry = self.stat(name)
            if entry is not None:
                found[name] = entry
                if name == WEIGHTS[0]:
                    break
        return found

    def stat(self, name: str) -> Entry | None:
        """Return a file as the server tells of it."""
        return retried(partial(self._stat, name), self.url(name))

    def read(self, entry: Entry, start: int, stop: int) -> bytearray:
        """Return a range of a file."""
        return retried(partial(self._read, entry, start, stop), self.url(entry.name))

    def stream(self, entry: Entry) -> Iterator[bytes]:
        """Yield a whole file out of one answer."""
        url = self.url(entry.name)
        answer = retried(partial(self._checked, entry), url)
        try:
            start, came = time.monotonic(), 0
            while data := self._run(answer.content.read, CHUNK):
                yield data
                came += len(data)
                if time.monotonic() - start > GRACE + came / SLOWEST:
                    raise UnreachableError(f"sends fewer than {SLOWEST:,} bytes a second", file=url, fix="try again")
        except self.aiohttp.ClientError as error:  # no second try: what was yielded cannot be taken back
            raise told(error, url) from None
        finally:
            self.system.loop.call_soon_threadsafe(answer.close)

    def confirm(self, entry: Entry) -> None:
        """Do nothing: every answer was checked."""

    def _run(self, work: Callable[..., Coroutine[Any, Any, T]], *arguments: object) -> T:
        """Return what a coroutine returns in the event loop of the file system."""
        result: T = self.sync(self.system.loop, work, *arguments)
        return result

    def _stat(self, name: str) -> Entry | None:
        return self._run(self._stated, name)

    def _read(self, entry: Entry, start: int, stop: int) -> bytearray:
        return self._run(self._range, entry, start, stop)

    def _checked(self, entry: Entry) -> Any:
        return self._run(self._whole, entry)

    async def _stated(self, name: str) -> Entry | None:
        async with await self._asked("HEAD", self.url(name), {}, CHUNK) as answer:
            if answer.status not in (405, 501):
                return self._entry_of(answer, name)
        # for servers that know no HEAD
        async with await self._asked("GET", self.url(name), {"Range": "bytes=0-0"}, CHUNK) as answer:
            return self._entry_of(answer, name)

    def _entry_of(self, answer: Any, name: str) -> Entry | None:
        # 403 is what an object store says of a name that is not there to whoever may not list it
        if answer.status in (403, 404, 410):
            return None
        answer.raise_for_status()
        whole = re.fullmatch(r"bytes \d+-\d+/(\d{1,18})", answer.headers.get("Content-Range", ""))
        length = whole[1] if whole else answer.headers.get("Content-Length", "") if answer.status == 200 else ""
        tag = answer.headers.get("ETag") or answer.headers.get("Last-Modified")
        return Entry(name, int(length) if re.fullmatch(r"\d{1,18}", length) else None, tag)

    async def _asked(self, method: str, url: str, more: dict[str, str], most: int | None) -> Any:
        """Return an answer of at most `most` bytes, None for any number, after the redirects that may be followed."""
        session, first = await self.system.set_session(), url
        total = None if most is None else GRACE + most / SLOWEST
        timeout = self.aiohttp.ClientTimeout(total=total, sock_connect=CONNECT, sock_read=NEXT_BYTES)
        for _ in range(MOST + 1):
            own = self.headers if same_server(first, url) else {}
            headers = {**own, "Accept-Encoding": "identity", **more}
            answer = await session.request(
                method, self.system.encode_url(url), headers=headers, allow_redirects=False, timeout=timeout
            )
            if answer.status not in STATUSES:
                return answer
            location = answer.headers.get("Location", "")
            answer.close()
            url = target(url, location, self.follow)
        raise AdapterFileError(f"is redirected more than {MOST} times", file=first)

    async def _range(self, entry: Entry, start: int, stop: int) -> bytearray:
        answer = await self._asked("GET", self.url(entry.name), {"Range": f"bytes={start}-{stop - 1}"}, stop - start)
        try:
            self._check(answer, entry)
            if answer.status != 206 and start > 0:
                raise NoRangesError("sends no ranges", file=self.url(entry.name))
            if answer.status == 206 and not answer.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
                raise AdapterFileError("its server sent another range than asked for", file=self.url(entry.name))
            # Whole from the start: what grows is moved, and then takes its room twice.
            data, came = bytearray(stop - start), 0
            while came < len(data):
                piece = await answer.content.read(len(data) - came)
                if not piece:
                    raise ConnectionError(f"{came:,} of {len(data):,} bytes came")
                data[came : came + len(piece)] = piece
                came += len(piece)
            return data
        finally:
            answer.close() if not answer.content.at_eof() else answer.release()

    async def _whole(self, entry: Entry) -> Any:
        answer = await asyncio.wait_for(self._asked("GET", self.url(entry.name), {}, None), CONNECT + NEXT_BYTES)
        try:
            self._check(answer, entry)
        except BaseException:
            answer.close()
            raise
        return answer

    def _check(self, answer: Any, entry: Entry) -> None:
        """Raise ChangedError if the answer is of another file than the ones before."""
        where = self.url(entry.name)
        if answer.status in (404, 410, 412, 416):
            raise ChangedError(f"changed while it was read (HTTP status {answer.status})", file=where, fix="try again")
        answer.raise_for_status()
        tag = answer.headers.get("ETag") or answer.headers.get("Last-Modified")
        if tag and self.seen.setdefault(entry.name, self._expected(entry) or tag) != tag:
            raise ChangedError("was replaced while it was read", file=where, fix="try again")

    def _expected(self, entry: Entry) -> str | None:
        return entry.tag


class HubStore(HttpStore):
    """A folder of a model on the Hub, at the commit that its revision is when it is first asked."""

    lists: ClassVar[bool] = True

    def __init__(self, repo: hub.Repository, folder: str, uri: str, follow: Sequence[str] = ()) -> None:
        """Ask for the model; one request tells its files with sizes and digests."""
        info = hub.information(repo, uri)
        package, tools = need("huggingface_hub", "fleet"), need("huggingface_hub.utils", "fleet")
        below = f"{folder}/" if folder else ""
        self._files = {
            file.rfilename[len(below) :]: Entry(file.rfilename[len(below) :], file.size, _digest(file))
            for file in info.siblings or ()
            if file.rfilename.startswith(below)
        }
        address = package.hf_hub_url(repo.name, f"{below}{CONFIG}", revision=info.sha, endpoint=hub.endpoint())
        super().__init__(
            address.removesuffix(f"/{CONFIG}"), headers=tools.build_hf_headers(), follow=(*HUB_HOSTS, *follow)
        )

    def entries(self) -> dict[str, Entry]:
        """Return all files in the folder."""
        return {name: entry for name, entry in self._files.items() if "/" not in name}

    def stat(self, name: str) -> Entry | None:
        """Return a file; a commit does not change, so nobody is asked."""
        return self._files.get(name)

    def _expected(self, entry: Entry) -> str | None:
        return None  # the tags of answers are those of whatever network of caches the file lies in


def _digest(file: Any) -> str | None:
    digest = getattr(file.lfs, "sha256", None) or file.blob_id
    return str(digest) if digest else None
