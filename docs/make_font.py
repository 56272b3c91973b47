"""Write src/s3lora/data/fonts/DejaVuSans.ttf: as much of DejaVu Sans as pictures need, without layout and hinting.

    pip install fonttools
    python docs/make_font.py DejaVuSans.ttf

The file it was made of is DejaVu 2.35, as Matplotlib has it. A sign that the font lacks is drawn as a box.
"""

from __future__ import annotations

import sys
from pathlib import Path

from fontTools import subset
from fontTools.ttLib import TTFont

FONT = Path(__file__).resolve().parents[1] / "src/s3lora/data/fonts/DejaVuSans.ttf"
SIGNS = (
    *((0x20, 0x7E), (0xA0, 0x17F)),  # Latin
    *((0x384, 0x3CE), (0x400, 0x45F)),  # Greek, Cyrillic
    *((0x2010, 0x2027), (0x2030, 0x203A), (0x2070, 0x209C)),  # dashes, quotation marks, small digits
    *((0x2190, 0x2199), (0x21D0, 0x21D5)),  # arrows
    *((0x2200, 0x220F), (0x2211, 0x222B), (0x2248, 0x2248), (0x2260, 0x226B)),  # mathematics
    *((code, code) for code in (0x25A0, 0x25A1, 0x25B2, 0x25BC, 0x25C6, 0x25CF, 0xFFFD)),
)
#: Copyright, family, style, unique name, full name, version, PostScript name, licence and its address.
NAMES = [0, 1, 2, 3, 4, 5, 6, 13, 14]


def main() -> None:
    """Subset the font that the command line names."""
    options = subset.Options(
        layout_features=[],
        hinting=False,
        notdef_outline=True,
        glyph_names=False,
        recalc_timestamp=False,
        name_IDs=NAMES,
    )
    options.drop_tables += ["GDEF", "GSUB", "GPOS", "kern", "FFTM", "MATH", "gasp"]
    font = TTFont(sys.argv[1], recalcTimestamp=False)
    made = subset.Subsetter(options)
    made.populate(unicodes=[code for first, last in SIGNS for code in range(first, last + 1)])
    made.subset(font)
    font.save(FONT)


if __name__ == "__main__":
    main()
