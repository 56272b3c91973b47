"""One pass over the weights of an adapter: every byte is read once, hashed, and measured from the same memory.

So the digest in a result is that of what was measured, whatever happens to the file meanwhile. Tensors are held from
when they are read until all their modules are done. Where both factors of a module lie far apart in the file, what was
read first is let go, and must have the same digest when it is read again. A tensor that is too long to be held is read
in pieces later; the file must then not have changed since it was opened.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType

from s3lora.adapter.digest import FileDigest, Source, source_with
from s3lora.adapter.inventory.tensors import other_names
from s3lora.adapter.inventory.values import FileValues, TensorValues
from s3lora.adapter.model import Adapter, LoraModule
from s3lora.adapter.regular import CHUNK, Bytes, RegularFile
from s3lora.adapter.tensors import LONG, StoredTensor, WeightsFile
from s3lora.errors import printable

#: Bytes of tensors held at a time.
HELD = 96 * 1024 * 1024
#: Pieces that wait to be hashed, at most.
WAITING = 4

#: Offset and number of bytes, and of which file.
_Range = tuple[int, int]
_Extent = tuple[RegularFile, _Range]


@dataclass(slots=True)
class _Run:
    """Bytes that were read together, and stay in memory as long as one tensor of them is held."""

    nbytes: int
    tensors: int = 0


class Stream:
    """Gives every module of an adapter once its tensors are in memory, in the order of the file.

    A context manager. Iterate over it to the end before asking for `source`; call `done` for a module that is measured.
    Raises AdapterFileError where a file cannot be read, or was changed since it was opened.
    """

    def __init__(self, adapter: Adapter, *, hashed: bool = True, aside: bool = False) -> None:
        """Find out which tensors are needed, and by which modules; nothing is read.

        `hashed` tells whether `source` shall have the digests of the weights, and `values` those of the tensors that
        are no factors; `aside`, to take them in a thread of its own: that ends earlier and takes a third more CPU.
        """
        self._adapter = adapter
        self._hashed = hashed
        self._hashing = ThreadPoolExecutor(1) if aside and hashed else None
        self._waiting: deque[Future[None]] = deque()
        self._digests: list[FileDigest] = []
        self._others = other_names(adapter) if hashed else frozenset[str]()
        #: What is in each tensor, by name, once all is read.
        self.values: dict[str, TensorValues] = {}
        #: Of each run that is in memory for the sake of some tensor in it: its bytes, and how many tensors those are.
        self._held: dict[_Extent, _Run] = {}
        self._bytes = 0
        self._needs = {module.path: _needed(module) for module in adapter.modules}
        self._modules: dict[_Extent, list[LoraModule]] = {}
        for module in adapter.modules:
            for extent in self._needs[module.path]:
                self._modules.setdefault(extent, []).append(module)
        self._left = {extent: len(modules) for extent, modules in self._modules.items()}

    def __enter__(self) -> Stream:
        """Return the stream itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let everything go; an interruption does not wait for the hashing."""
        if self._hashing is not None:
            self._hashing.shutdown(wait=error is None or isinstance(error, Exception), cancel_futures=True)
        for file in self._adapter.files:
            file.file.held.clear()

    def __iter__(self) -> Iterator[LoraModule]:
        """Yield each module when it can be measured."""
        lacks = {path: len(extents) for path, extents in self._needs.items()}
        yield from (module for module in self._adapter.modules if not lacks[module.path])
        for weights in self._adapter.files:
            for extent in self._read(weights):
                for module in self._modules.get(extent, ()):
                    lacks[module.path] -= 1
                    if not lacks[module.path]:
                        yield module

    def _read(self, weights: WeightsFile) -> Iterator[_Extent]:
        """Read one file from its beginning to its end, and yield the tensors that modules need as they come."""
        file, digest = weights.file, hashlib.sha256()
        values = FileValues([*weights.tensors.values()], self._others)
        needed = sorted(part for owner, part in self._modules if owner is file)
        for start, end, inside in _runs(needed, file.size):
            if inside and end - start <= LONG:
                run = file.fresh(start, end - start)
                run.flags.writeable = False
                self._hash(digest, run)
                values.see(start, run)
                memory = _Run(len(run))
                for offset, count in inside:
                    self._hold(file, (offset, count), run[offset - start : offset - start + count], memory)
            else:
                for at in range(start, end, CHUNK):
                    piece = file.fresh(at, min(CHUNK, end - at))
                    self._hash(digest, piece)
                    values.see(at, piece)
            yield from ((file, part) for part in inside)
        for future in self._waiting:
            future.result()
        self._waiting.clear()
        values.end()
        self.values |= values.found
        file.check_unchanged()
        if self._hashed:
            self._digests.append(FileDigest(printable(weights.name, 255), file.size, digest.hexdigest()))

    def _hash(self, digest: hashlib._Hash, piece: Bytes) -> None:
        if not self._hashed:
            return
        if self._hashing is None:
            digest.update(piece.data)
            return
        self._waiting.append(self._hashing.submit(digest.update, piece.data))
        if len(self._waiting) > WAITING:
            self._waiting.popleft().result()

    def _hold(self, file: RegularFile, key: _Range, values: Bytes, run: _Run) -> None:
        if not run.tensors:
            self._bytes += run.nbytes
        run.tensors += 1
        self._held[file, key] = run
        file.held[key] = values
        while self._bytes > HELD and len(self._held) > 1:  # only what has to wait for its other factor gets so old
            old, oldest = next(iter(self._held))
            old.seen[oldest] = hashlib.sha256(old.held[oldest].data).digest()
            self._drop(old, oldest)

    def _drop(self, file: RegularFile, key: _Range) -> None:
        run = self._held.pop((file, key), None)
        if run is None:
            return
        del file.held[key]
        run.tensors -= 1
        if not run.tensors:
            self._bytes -= run.nbytes

    def done(self, module: LoraModule) -> None:
        """Let the tensors go that no other module needs."""
        for extent in self._needs[module.path]:
            self._left[extent] -= 1
            if not self._left[extent]:
                self._drop(*extent)

    def source(self) -> Source:
        """Return where the adapter comes from, with the digests of what was read.

        Raises AdapterFileError where a file was changed since it was opened, for long tensors were read after hashing.
        """
        self._adapter.check_unchanged()
        return source_with(self._adapter, tuple(self._digests))


def _needed(module: LoraModule) -> tuple[_Extent, ...]:
    """Return where the tensors of a module lie; a model in memory has none in a file."""
    tensors = (part.tensor for part in module.parts)
    extents = [(one.file, one.key) for one in tensors if isinstance(one, StoredTensor) and one.nbytes]
    return tuple(dict.fromkeys(extents))


def _runs(needed: Sequence[_Range], size: int) -> Iterator[tuple[int, int, list[_Range]]]:
    """Cut a file into runs (start, end, which of the needed ranges lie in it), which cover it without a gap.

    Short ranges that follow each other make one run of some `CHUNK` bytes; ranges that overlap lie in one as well.
    """
    at = 0
    inside: list[_Range] = []
    start = end = 0
    for offset, count in needed:
        if inside and offset >= end and (end - start >= CHUNK or offset - end > CHUNK or count > CHUNK):
            yield start, end, inside
            at, inside = end, []
        if not inside:
            if offset - at > CHUNK or count > CHUNK:
                if offset > at:
                    yield at, offset, []
                start = offset
            else:
                start = at  # a header, or some other small tensor, is read along
            end = start
        inside.append((offset, count))
        end = max(end, offset + count)
    if inside:
        yield start, end, inside
        at = end
    if at < size:
        yield at, size, []
