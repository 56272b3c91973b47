"""What separates two JSON Schemas of one document: whether readers of either can read what the other describes."""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]

#: Says nothing of which documents are valid.
_PROSE = ("title", "description", "default", "$schema", "$defs")
_COMPARED = ("properties", "required", "items", "prefixItems", "anyOf", "enum", "type", "additionalProperties", "$ref")


def breaks(old: Schema, new: Schema) -> list[str]:
    """Return what must not change within one version, a line each; nothing where `new` only adds.

    A field may be added where it is not required, and a word to an enumeration. What was there stays: its name, its
    type, whether it may be null, whether it is always written.
    """
    found: list[str] = []
    _compare((old, old), (new, new), "", found, set())
    return found


def _resolved(part: Schema, root: Schema) -> Schema:
    while "$ref" in part:
        part = root["$defs"][part["$ref"].rpartition("/")[2]]
    return part


def _compare(
    a: tuple[Schema, Schema], b: tuple[Schema, Schema], where: str, found: list[str], seen: set[tuple[int, int]]
) -> None:
    """Compare two parts, each with the schema that it is of."""
    old, new = _resolved(*a), _resolved(*b)
    if (id(old), id(new)) in seen:
        return
    seen.add((id(old), id(new)))
    before, after = _alternatives(old, a[1]), _alternatives(new, b[1])
    if set(before) != set(after):
        found.append(f"{where or 'document'}: was {' or '.join(sorted(before))}, is {' or '.join(sorted(after))}")
        return
    for kind, part in before.items():
        _compare_one((part, a[1]), (after[kind], b[1]), where, found, seen)


def _alternatives(part: Schema, root: Schema) -> dict[str, Schema]:
    parts = [_resolved(one, root) for one in part.get("anyOf", [part])]
    return {"enum" if "enum" in one else str(one.get("type", "anything")): one for one in parts}


def _compare_one(
    a: tuple[Schema, Schema], b: tuple[Schema, Schema], where: str, found: list[str], seen: set[tuple[int, int]]
) -> None:
    (old, old_root), (new, new_root) = a, b
    if gone := set(old.get("enum", ())) - set(new.get("enum", ())):
        found.append(f"{where}: {', '.join(sorted(map(str, gone)))} is gone")
    for name, part in old.get("properties", {}).items():
        if name not in new.get("properties", {}):
            found.append(f"{where}.{name}: is gone")
        else:
            _compare((part, old_root), (new["properties"][name], new_root), f"{where}.{name}", found, seen)
    was, now = set(old.get("required", ())), set(new.get("required", ()))
    found += [f"{where}.{name}: was always written" for name in sorted(was - now) if name in new.get("properties", {})]
    found += [f"{where}.{name}: is required, and older documents lack it" for name in sorted(now - was)]
    for key, label in (("items", "[]"), ("additionalProperties", "{}")):
        if isinstance(old.get(key), dict) and isinstance(new.get(key), dict):
            _compare((old[key], old_root), (new[key], new_root), f"{where}{label}", found, seen)
        elif old.get(key) != new.get(key):
            found.append(f"{where}{label}: changed")
    firsts, seconds = old.get("prefixItems", []), new.get("prefixItems", [])
    if len(firsts) != len(seconds):
        found.append(f"{where}: had {len(firsts)} parts, has {len(seconds)}")
    for i, (first, second) in enumerate(zip(firsts, seconds, strict=False)):
        _compare((first, old_root), (second, new_root), f"{where}[{i}]", found, seen)
    rest = [{k: v for k, v in one.items() if k not in (*_PROSE, *_COMPARED)} for one in (old, new)]
    if rest[0] != rest[1]:
        found.append(f"{where}: limits were {rest[0]}, are {rest[1]}")
