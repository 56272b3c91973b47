"""The inventory of a folder: what pickles name, what chat templates and configurations reach for, and every file."""

from __future__ import annotations

import contextlib
import pickle
import re
from collections.abc import Iterable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, ClassVar

import s3lora
from s3lora.adapter.inventory.archives import pickles_in, view_of
from s3lora.adapter.inventory.files import list_files
from s3lora.adapter.inventory.pickle_source import PickleBudget
from s3lora.adapter.inventory.templates import reaches
from tests.fuzz.contract import BrokenContract, untouched
from tests.fuzz.draw import Draw
from tests.fuzz.measuring import put
from tests.fuzz.target import Target
from tests.fuzz.targets.configuration import _config
from tests.fuzz.targets.npz import _npz
from tests.fuzz.targets.safetensors import content
from tests.fuzz.targets.torch_files import GLOBALS, _named, archive, pickled

LONGEST = 400
_NAME = re.compile(r"[A-Za-z_]\w{0,20}(\.[A-Za-z_]\w{0,20}){0,3}")


def _told(texts: Iterable[str]) -> None:
    for text in texts:
        if not text.isprintable() or len(text) > LONGEST:
            raise BrokenContract(f"tells {text[:300]!r}")


class _Inert:
    """Stands for whatever a pickle names, and does nothing, whatever is done to it."""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __call__(self, *_: object, **__: object) -> _Inert:
        return self

    def __setstate__(self, _: object) -> None:
        pass

    def append(self, _: object) -> None:
        pass

    def __setitem__(self, _: object, __: object) -> None:
        pass


class _Recorder(pickle._Unpickler):  # type: ignore[name-defined, misc]
    """Python's own unpickler, which notes what it is asked for and gets something inert instead."""

    #: It makes room for as many bytes as an opcode claims, before it looks whether they are there.
    dispatch: ClassVar[dict[int, Any]] = {**pickle._Unpickler.dispatch}  # type: ignore[attr-defined]
    del dispatch[pickle.BYTEARRAY8[0]]

    def __init__(self, raw: bytes) -> None:
        super().__init__(BytesIO(raw))
        self.asked: set[str] = set()

    def find_class(self, module: str, name: str) -> Any:
        self.asked.add(f"{module}.{name}")
        return _Inert

    def persistent_load(self, _: object) -> Any:
        return _Inert()


def _fuzz_pickle(data: bytes, _: Path) -> None:
    """Raise unless everything that the unpickler would import is named."""

    raw = pickled(Draw(data))
    found = pickles_in(view_of(raw), PickleBudget(), named=True)
    names = frozenset() if found is None else found.names
    _told([*names, "" if found is None else found.note])
    recorder = _Recorder(raw)
    with contextlib.suppress(Exception):  # what is no pickle may be refused in any way
        recorder.load()
    missed = [name for name in recorder.asked - names if _NAME.fullmatch(name)]
    if missed and not (found is not None and found.note):
        raise BrokenContract(f"does not name {missed}")


def _fuzz_template(data: bytes, _: Path) -> None:
    found, note = reaches(data.decode("utf-8", "replace"))
    _told([*found, note])


NAMES = (
    "chat_template.jinja", "config.json", "tokenizer_config.json", "training_args.bin", "optimizer.pt", "x.pkl",
    "adapter_model.bin", "other.safetensors", "adapters.npz", "modeling.py", "README.md", "x.joblib", "x.yaml",
    "checkpoint-3/adapter_config.json", "sub/x.safetensors", "x.gguf", "x.tar", "model_index.json", "x.npy", "x",
)  # fmt: skip


def _fuzz_folder(data: bytes, folder: Path) -> None:
    draw = Draw(data)
    put(folder / "in")
    for _ in range(1 + draw.number(3)):
        path = folder / "in" / draw.pick(NAMES)
        path.parent.mkdir(exist_ok=True)
        make = draw.pick((content, pickled, archive, _npz, _config, Draw.rest))
        path.write_bytes(make(Draw(draw.take(draw.number(2000)))))
    with untouched(folder), s3lora.open_adapter(folder / "in") as adapter:
        files, _ = list_files(adapter)
        again, _ = list_files(adapter)
    if files != again:
        raise BrokenContract("lists other files the second time")
    there = {str(path.relative_to(folder / "in")) for path in (folder / "in").rglob("*") if path.is_file()}
    if not {file.path for file in files} <= there:
        raise BrokenContract("lists a file that is not there")
    _told(text for file in files for text in (file.path, file.note, *file.runs))


def _pickle_seeds() -> Sequence[bytes]:
    made = (pickle.dumps(value, protocol) for value in (len, {"a": Path("x")}, [1.5, b"a"]) for protocol in (0, 2, 4))
    return (b"", *(b"\3" + raw for raw in made))


def _template_seeds() -> Sequence[bytes]:
    return (
        b"{% for m in messages %}{{ m['content'] | trim }}{% endfor %}",
        b"{{ cycler.__init__.__globals__.os }}{% include 'x' %}",
        b"{{ x|attr('__cla' ~ 'ss__') }}{% set a = '__' + 'init__' %}{{ x[a] }}",
    )


def _folder_seeds() -> Sequence[bytes]:
    return (b"", *(b"\0" + bytes([i % 20, i % 6, 200, 0]) + bytes(200) for i in range(20)))


_WORDS = tuple(_named(one) for one in GLOBALS)
_TEMPLATE = (
    b"{{",
    b"}}",
    b"{%",
    b"%}",
    b"|attr(",
    b"__class__",
    b"~",
    b"{% set a = ",
    b"{% import ",
    b"['",
    b"\\x5f",
    b"%c",
)
TARGETS = (
    Target("pickle-names", "what a pickle would import", _fuzz_pickle, _pickle_seeds, _WORDS),
    Target("templates", "chat templates", _fuzz_template, _template_seeds, _TEMPLATE),
    Target("folder", "every file of an adapter's folder", _fuzz_folder, _folder_seeds, _WORDS, quick=100),
)
