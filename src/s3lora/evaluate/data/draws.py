"""Draws and parts of a set, by what its items belong to.

Several cases of one behaviour – attacks on it, ways to word it – share an identifier and are no independent items. A
draw takes one of every identifier before it takes a second one of any, so that few items tell of as many behaviours as
possible; and all items of an identifier are in the same part, lest it be tuned on and held out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from s3lora.errors import UsageError
from s3lora.evaluate.chat import digest_of


class DataItem(NamedTuple):
    """What tells an item from others: its text (or a digest of it), and its identifier, which may be empty."""

    text: str
    id: str = ""


def clusters(items: Sequence[DataItem]) -> list[list[int]]:
    """Return the positions of items that belong together, by identifier or by text, in the order of the source.

    >>> clusters([DataItem("a", "1"), DataItem("b"), DataItem("c", "1"), DataItem("b", "2")])
    [[0, 2], [1, 3]]
    """
    parent = list(range(len(items)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    first: dict[tuple[str, str], int] = {}
    for i, item in enumerate(items):
        for key in (("text", item.text), *([("id", item.id)] if item.id else [])):
            a, b = root(i), root(first.setdefault(key, i))
            parent[max(a, b)] = min(a, b)
    found: dict[int, list[int]] = {}
    for i in range(len(items)):
        found.setdefault(root(i), []).append(i)
    return list(found.values())


def cluster_names(items: Sequence[DataItem]) -> list[str]:
    """Return a name for each item that belongs together with another, empty for one that stands alone.

    >>> cluster_names([DataItem("a", "1"), DataItem("b"), DataItem("c", "1"), DataItem("d", "2")])
    ['cluster 0', '', 'cluster 0', '']
    """
    names = [""] * len(items)
    for members in clusters(items):
        for i in members if len(members) > 1 else ():
            names[i] = f"cluster {members[0]}"
    return names


def draw(items: Sequence[DataItem], limit: int | None, seed: int, what: str) -> list[int]:
    """Return `limit` positions, ascending, drawn with the seed; all of them for None.

    One item of every cluster comes before a second one of any. A larger draw with the same seed holds the smaller one.
    Raises UsageError, which names `what`, for a limit below 1.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"a limit of {limit} {what} leaves nothing to measure", fix="give at least 1")
    if limit is None or limit >= len(items):
        return list(range(len(items)))
    order: list[tuple[int, str, int]] = []
    for cluster in clusters(items):
        mine = sorted((digest_of([seed, i]), i) for i in cluster)
        own = digest_of([seed, cluster[0]])
        order.extend((turn, own, i) for turn, (_, i) in enumerate(mine))
    return sorted(i for _, _, i in sorted(order)[:limit])


def halves(items: Sequence[DataItem], seed: int) -> tuple[list[int], list[int]]:
    """Return two sets of positions as `parts` does, equally large; raise UsageError for fewer than two clusters."""
    one, two = parts(items, (1, 1), seed)
    if not two:
        texts = len({item.text for item in items})
        what = "one item" if texts < 2 else f"{texts} items with one identifier"
        raise UsageError(f"a set of {what} cannot be cut into two parts", fix="give more data")
    return one, two


def parts(items: Sequence[DataItem], sizes: Sequence[int], seed: int) -> list[list[int]]:
    """Return as many sets of positions as there are sizes, in the order of a draw, that share no text or identifier.

    A text that comes several times is taken once. Clusters are dealt out one by one, each to the part that has the
    smallest share of its size: parts are in proportion to the sizes, and larger or smaller than those by what there is.

    >>> [len(part) for part in parts([DataItem(text) for text in "abcdefgh"], (1, 1, 2), seed=0)]
    [2, 2, 4]
    """
    # A text that comes again also joins the identifiers that it comes with: clusters first.
    first = {item.text: i for i, item in reversed(list(enumerate(items)))}
    dealt = [[i for i in cluster if first[items[i].text] == i] for cluster in clusters(items)]
    found: list[list[int]] = [[] for _ in sizes]
    for cluster in sorted(dealt, key=lambda cluster: digest_of(["split", seed, cluster[0]])):
        emptiest(found, sizes).extend(cluster)
    return found


def emptiest(found: Sequence[list[int]], sizes: Sequence[int]) -> list[int]:
    """Return the part that has the smallest share of its size, the first one of several; never one of size 0."""
    return min(zip(found, sizes, strict=True), key=lambda part: len(part[0]) / part[1] if part[1] else math.inf)[0]
