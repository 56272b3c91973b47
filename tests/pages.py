"""The pages of the documentation as the tests read them: their blocks of code, and the commands in those."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])
STATUS = "echo $?"
SLOW = "<!-- slow -->"

pages = pytest.mark.parametrize(
    "page", PAGES, ids=lambda page: page.relative_to(ROOT).with_suffix("").as_posix().replace("/", "-")
)


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, where its first line stands, and whether it is marked as one that takes minutes."""

    page: Path
    language: str
    line: int
    lines: tuple[str, ...]
    slow: bool

    @property
    def text(self) -> str:
        return "".join(f"{line}\n" for line in self.lines)

    @property
    def where(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def source(self) -> str:
        """Return the text, moved down to where it stands, so that a traceback names the line of the page."""
        return "\n" * (self.line - 1) + self.text


@dataclass
class Command:
    """One command of a console block, what is shown below it, and the status it must exit with."""

    text: str
    line: int
    shown: list[str] = field(default_factory=list)
    status: int = 0

    @property
    def name(self) -> str:
        """Return the command of s3lora that is called, or the option in its place."""
        words = shlex.split(self.text)
        assert words[0] == "s3lora", f"line {self.line}: {self.text}: mark a block that is not to be run as ```sh"
        return words[1]


def read_blocks(page: Path, text: str | None = None) -> list[Block]:
    """Return every fenced block of a page, in order; also those in lists, without their indentation."""
    found: list[Block] = []
    opened: tuple[str, str, int, bool] | None = None
    lines: list[str] = []
    before = ""
    content = page.read_text(encoding="utf-8") if text is None else text
    for number, line in enumerate(content.splitlines(), 1):
        fence = re.match(r"( *)(`{3,}|~{3,})(.*)$", line)
        if opened is None and fence:
            assert fence[2] == "```", f"{page.name}:{number}: open and close a block by three backticks"
            opened = (fence[1], fence[3].strip(), number + 1, before == SLOW)
            lines = []
        elif opened is not None and line.strip() == "```":
            indent, language, start, slow = opened
            inner = tuple(inside.removeprefix(indent) for inside in lines)
            found.append(Block(page, language, start, inner, slow))
            opened = None
        elif opened is not None:
            lines.append(line)
        before = line.strip() or before
    assert opened is None, f"{page.name}: a block is not closed"
    return found


def blocks(page: Path, *languages: str, slow: bool = False) -> list[Block]:
    """Return the blocks in any of these languages; either those marked slow, or the others."""
    return [block for block in read_blocks(page) if block.language in languages and block.slow == slow]


def commands_of(block: Block) -> list[Command]:
    """Return the commands of a console block, each with what is shown below it."""
    found: list[Command] = []
    asked = False
    for number, line in enumerate(block.lines, block.line):
        if line == f"$ {STATUS}":
            asked = True
        elif line.startswith("$ "):
            found.append(Command(line.removeprefix("$ "), number))
        elif asked:
            found[-1].status = int(line)
            asked = False
        else:
            assert found, f"{block.where}: begins with no command"
            found[-1].shown.append(line)
    return found


def commands(page: Path, *, slow: bool = False) -> list[Command]:
    """Return the commands of all console blocks of a page."""
    return [command for block in blocks(page, "console", slow=slow) for command in commands_of(block)]
