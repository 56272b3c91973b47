"""The rules that the page of a scan has."""

from __future__ import annotations

import re

from s3lora.choose.rules import RULES
from tests.command import SOURCE

SCRIPT = SOURCE / "s3lora/report/templates/rules.js"


def test_the_page_can_apply_the_rules_that_it_offers() -> None:
    table = re.search(r"^const RULES = \{\n(.*?)^\};", SCRIPT.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert table is not None
    names = re.findall(r"^  (\w+)(?::|\()", table[1], re.MULTILINE)
    assert names == [kind.name for kind in RULES.values() if kind.page is not None]
