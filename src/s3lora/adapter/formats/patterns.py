"""`rank_pattern` and `alpha_pattern` of a PEFT configuration, resolved as PEFT resolves them.

The keys are regular expressions out of an untrusted file. Most are names, which are looked up; all others are matched
in bounded time, one by one and all together.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from s3lora.adapter.expressions import MAX_LENGTH, Expression, ExpressionError, Text
from s3lora.errors import AdapterFileError, printable

#: Most characters of all keys that are no names: reading so many takes about a second.
MAX_CHARACTERS = 1 << 17
#: Most steps for a whole table: seconds. Ten expressions on 36,864 modules take some seven million.
MAX_STEPS = 10_000_000
_NAME = re.compile(r"(?:[\w.:/-]|\\[^\w\s])*")
_LETTER = re.compile(r"\\?(.)")
_OUT = ".base_layer.out_proj"


def layer_of(path: str) -> str:
    """Return the layer that PEFT builds, of which names and patterns in a configuration speak.

    It builds two updates for one `nn.MultiheadAttention`: that of its `in_proj` lies under the name of the layer, that
    of its `out_proj` within (peft.tuners.lora.layer.MultiheadAttention).

    >>> layer_of("blocks.0.attn.base_layer.out_proj"), layer_of("blocks.0.attn")
    ('blocks.0.attn', 'blocks.0.attn')
    """
    return path.removesuffix(_OUT)


class Pattern:
    """An ordered table of regular expressions on module paths; the first that matches decides.

    The rule is that of `peft.utils.other.get_pattern_key`: `(.*\\.)?(key)$` from the start of the path. In a name only
    the dot is special, which stands for any character: it matches an end of its own length.

    >>> Pattern({"q_proj": 4, r".*\\.mlp\\..*": 16}, "rank_pattern", "adapter_config.json").find("layers.0.mlp.up_proj")
    16
    """

    def __init__(self, table: object, field: str, label: str) -> None:
        """Check `table` (a mapping from pattern to positive number, or None)."""
        self._field, self._label = field, label
        # Length → which of the characters may be any → the name, with a dot for each of those → its place and number.
        self._names: dict[int, dict[tuple[int, ...], dict[str, tuple[int, float]]]] = {}
        self._others: list[tuple[int, float, Expression]] = []
        self._characters = self._steps = 0
        if table is not None and not isinstance(table, Mapping):
            raise AdapterFileError(f"`{field}` must be an object", file=label)
        for order, (key, value) in enumerate((table or {}).items()):
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e12:
                number = f"{printable(value, 40)} for {printable(key)}"
                raise AdapterFileError(f"`{field}` gives {number}, not a positive number", file=label)
            self._add(str(key), order, value)

    def __bool__(self) -> bool:
        """Return whether there is any entry."""
        return bool(self._names or self._others)

    def find(self, path: str) -> float | None:
        """Return the number of the first entry that matches the module path, else None."""
        first = min(self._named(path), default=None)
        if not self._others:
            return None if first is None else first[1]
        text, starts, ends = _rule(path)
        for order, value, expression in self._others:
            if first is not None and first[0] < order:
                break
            before = text.steps
            try:
                if expression.ends(text, starts) & ends:
                    return value
            except ExpressionError:
                raise self._too_long() from None
            self._pay(text.steps - before)
        return None if first is None else first[1]

    def _add(self, key: str, order: int, value: float) -> None:
        if len(key) > MAX_LENGTH:
            raise AdapterFileError(f"`{self._field}` has a key of {len(key)} characters", file=self._label)
        if _NAME.fullmatch(key):
            letters = _LETTER.findall(key)
            anywhere = tuple(at for at, match in enumerate(_LETTER.finditer(key)) if match[0] == ".")
            names = self._names.setdefault(len(letters), {}).setdefault(anywhere, {})
            names.setdefault("".join(letters), (order, value))
            return
        self._characters += len(key)
        if self._characters > MAX_CHARACTERS:
            raise self._too_long()
        try:
            self._others.append((order, value, Expression(key)))
        except ExpressionError as error:
            raise AdapterFileError(f"`{self._field}` has a pattern that {error}: {printable(key)}", file=self._label,
                                   fix="write module paths") from None  # fmt: skip

    def _named(self, path: str) -> Iterator[tuple[int, float]]:
        """Yield the names that the path, or one of its ends after a dot, is."""
        line = path.removesuffix("\n")
        if not self._names or "\n" in line:
            return
        for start in (0, *(at + 1 for at, character in enumerate(line) if character == ".")):
            for anywhere, names in self._names.get(len(line) - start, {}).items():
                self._pay(4 + (len(line) - start) // 20)  # as long as so many steps of the matcher
                letters = list(line[start:])
                for at in anywhere:
                    letters[at] = "."
                if (named := names.get("".join(letters))) is not None:
                    yield named

    def _pay(self, steps: int) -> None:
        self._steps += steps
        if self._steps > MAX_STEPS:
            raise self._too_long()

    def _too_long(self) -> AdapterFileError:
        what = f"`{self._field}` takes too long to match"
        return AdapterFileError(
            what, file=self._label, fix="write fewer keys, and module paths, no regular expressions"
        )


def _rule(path: str) -> tuple[Text, int, int]:
    """Return a path with the positions where `(.*\\.)?` lets a key begin, and those where `$` lets it end."""
    text, size = Text(path), len(path)
    starts = 1
    for match in re.finditer(r"\.", path.partition("\n")[0]):
        starts |= 1 << match.end()
    return text, starts, 1 << size | (1 << size >> 1 if path.endswith("\n") else 0)
