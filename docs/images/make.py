"""Draw docs/images/scan.svg: what `s3lora scan` shows of the built-in example on a terminal of 80 columns.

The command really runs, on a pseudo-terminal, and the picture is made of what it printed. The file names no font that
must be fetched, no time and no path, so that drawing it again changes nothing unless the output changes.
"""

from __future__ import annotations

import fcntl
import io
import os
import pty
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

import s3lora

COLUMNS = 80
ROWS = 60
COMMAND = ("scan", "my-adapter")
EXAMPLE = Path(s3lora.__file__).parent / "data" / "demo-adapter"
PICTURE = Path(__file__).parent / "scan.svg"

#: Dark grey on which the heat map's darkest and lightest colours both stand out; then the eight ANSI colours twice.
_ANSI = [(28, 31, 38), (224, 108, 117), (152, 195, 121), (229, 192, 123), (97, 175, 239), (198, 120, 221)]
_ANSI += [(86, 182, 194), (220, 223, 228)]
THEME = TerminalTheme((40, 44, 52), (220, 223, 228), _ANSI, _ANSI)

#: rich's own picture without the window's buttons and without the font that it fetches from the network.
SVG = """<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg"
     role="img" aria-label="What s3lora scan prints for the built-in example">
<style>
.{unique_id}-matrix {{
    font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace;
    font-size: {char_height}px;
    line-height: {line_height}px;
}}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/>
</clipPath>
{lines}
</defs>
<rect fill="#282c34" width="{width}" height="{height}" rx="8"/>
<g transform="translate({terminal_x}, 20)" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


def output(command: tuple[str, ...] = COMMAND) -> str:
    """Return what `s3lora` with these arguments writes to a terminal, beside a copy of the example as `my-adapter`."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(EXAMPLE, Path(folder) / "my-adapter")
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        hidden = ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR")
        environment = {name: value for name, value in os.environ.items() if name not in hidden}
        environment |= {"TERM": "xterm-256color", "COLORTERM": "truecolor"}
        process = subprocess.Popen(
            [sys.executable, "-m", "s3lora", *command],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=theirs,
            stderr=theirs,
        )
        os.close(theirs)
        raw = _drain(ours)
        if process.wait() != 0:
            raise SystemExit(f"s3lora {' '.join(command)} failed:\n{raw}")
    return raw.replace("\r\n", "\n")


def _drain(terminal: int) -> str:
    """Read until the other end is closed, which Linux reports as an error and macOS as an empty read."""
    pieces = []
    with os.fdopen(terminal, "rb", buffering=0) as stream:
        while True:
            try:
                piece = stream.read(65536)
            except OSError:
                break
            if not piece:
                break
            pieces.append(piece)
    return b"".join(pieces).decode()


def draw(text: str, command: tuple[str, ...] = COMMAND) -> str:
    """Return the SVG of a terminal that shows the command and, below it, its output."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print(Text(f"$ s3lora {' '.join(command)}", style="bold"))
    console.print(Text.from_ansi(text.rstrip()))
    return console.export_svg(theme=THEME, code_format=SVG, unique_id="scan", font_aspect_ratio=0.61)


if __name__ == "__main__":
    PICTURE.write_text(draw(output()), encoding="utf-8")
