"""The colours of all pages and pictures: by name, for light and for dark, and the scale from dull to sharp."""

from __future__ import annotations

import re

LIGHT = {
    "paper": "#fdfdfb",
    "ink": "#1d2125",
    "soft": "#5b636b",
    "line": "#dcdfe2",
    "edge": "#868e95",
    "shade": "#f2f3f1",
    "accent": "#0a5a94",
    "warn": "#8a4b00",
    # After Okabe and Ito, told apart by colour-blind readers.
    "s0": "#0072b2",
    "s1": "#d55e00",
    "s2": "#008f68",
    "s3": "#bb5f93",
    "s4": "#a87400",
    "s5": "#3a94c9",
    "s6": "#111111",
    "grey0": "#8a8a8a",
    "grey1": "#606060",
    "grey2": "#3a3a3a",
}
DARK = {
    "paper": "#15181b",
    "ink": "#e7e9eb",
    "soft": "#a3abb3",
    "line": "#363c42",
    "edge": "#7a828a",
    "shade": "#1e2226",
    "accent": "#7cc0f2",
    "warn": "#f0b45e",
    "s0": "#4ba3e3",
    "s1": "#ff8f4d",
    "s2": "#2fcba0",
    "s3": "#e6a3c8",
    "s4": "#f0c04a",
    "s5": "#a5dbff",
    "s6": "#ffffff",
    "grey0": "#868e95",
    "grey1": "#b0b7be",
    "grey2": "#d6dbe0",
}
#: How many colours and greys there are for lines: s0, s1 … and grey0, grey1 ….
HUES, GREYS = 7, 3
#: Blue to yellow by way of grey: told apart by colour-blind readers, and in order of brightness (after cividis).
SCALE = ("#00224e", "#123570", "#3b496c", "#575d6d", "#707173", "#8a8678", "#a59c74", "#c3b369", "#e1cc55", "#fee838")


def in_light(style: str) -> str:
    """Return a style sheet with the light colours in place of their names, for what knows no variables.

    >>> in_light(".grid { stroke: var(--line); }")
    '.grid { stroke: #dcdfe2; }'
    """
    return re.sub(r"var\(--(\w+)\)", lambda name: LIGHT[name[1]], style)


def step_of(value: float, low: float, high: float) -> int:
    """Return the step of the scale of a value between `low` and `high`: 0 for the low, the last for the high."""
    share = (value - low) / (high - low) if high > low else 0.0
    return min(int(share * len(SCALE)), len(SCALE) - 1)
