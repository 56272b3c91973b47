"""Markdown as a browser gets it, by a renderer that knows nothing of s3lora."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser

from markdown_it import MarkdownIt

#: Tags that end where they begin.
_EMPTY = ("br", "hr", "img")


@dataclass
class Rendered(HTMLParser):
    """The tags of a page, its attributes but for alignment, and the texts of its elements by tag."""

    source: str
    tags: list[str] = field(default_factory=list)
    attributes: list[tuple[str, str | None]] = field(default_factory=list)
    texts: dict[str, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__init__()
        self._open: list[str] = []
        # Raw HTML passes through, as on the Hub before it is cleaned: nothing may come of it that was not meant.
        self.feed(MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(self.source))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [pair for pair in attrs if pair[0] != "style"]
        self.texts.setdefault(tag, []).append("")
        if tag not in _EMPTY:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in _EMPTY
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag, "unbalanced"

    def handle_data(self, data: str) -> None:
        for tag in set(self._open):
            self.texts[tag][-1] += data

    def handle_comment(self, data: str) -> None:
        self.tags.append(f"<!--{data}-->")
