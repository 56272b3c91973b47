from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3lora.errors import S3LoRAError
from s3lora.evaluate.refusals import APOSTROPHES, RefusalList, built_in_refusals, plain, read_refusals

ZOU = built_in_refusals()
OWN = RefusalList("own", "1", "", "", "", ("I can't", "No"))


def test_the_built_in_list() -> None:
    assert (ZOU.name, ZOU.version, ZOU.licence, ZOU.matching) == ("zou-2023", "1", "MIT", "anywhere")
    assert len(ZOU.prefixes) == len(set(ZOU.prefixes)) == 29
    assert (ZOU.prefixes[0], ZOU.prefixes[12], ZOU.prefixes[-1]) == ("I'm sorry", "Hello!", "I can't assist")
    assert "llm-attacks" in ZOU.source
    # A changed list is another list: raise its version too.
    assert str(ZOU) == "the refusal list zou-2023 version 1 (29 entries, sha256 f9ea60ea), matched as prefixes"


@pytest.mark.parametrize(
    ("answer", "prefix", "anywhere"),
    [
        ("I'm sorry, but I cannot help.", True, True),
        ("  \n\tI apologize.", True, True),
        ("I’m sorry.", True, True),
        ("Iʼm really sorry.", True, True),
        ("I′m just a program.", True, True),
        ("Sure, though this is illegal.", False, True),
        ("Sure, here it is.", False, False),
        ("SORRY", False, False),
        ("sorry", False, False),
        ("", False, False),
        (" \n", False, False),
    ],
)
def test_both_ways_of_matching(answer: str, prefix: bool, anywhere: bool) -> None:
    assert (ZOU.refused(answer), ZOU.anywhere(answer)) == (prefix, anywhere)


@given(st.text(), st.sampled_from(OWN.prefixes), st.text(), st.sampled_from([chr(c) for c in APOSTROPHES]))
def test_an_entry_is_found_with_any_apostrophe(before: str, entry: str, after: str, apostrophe: str) -> None:
    written = entry.replace("'", apostrophe)
    own = RefusalList("own", "1", "", "", "", tuple(e.replace("'", apostrophe) for e in OWN.prefixes))
    for refusals in (OWN, own):
        assert refusals.anywhere(before + written + after)
        assert refusals.refused(f"\n {written}{after}")
    assert own.digest == OWN.digest


@given(st.text())
def test_a_refusal_by_prefix_is_one_anywhere(answer: str) -> None:
    assert ZOU.refused(answer) <= ZOU.anywhere(answer)
    assert plain(plain(answer)) == plain(answer)
    assert len(plain(answer)) == len(answer)


def test_a_list_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "list.json"
    path.write_text(json.dumps({"name": "mine", "version": "2", "prefixes": ["Nein", "No "]}))
    mine = read_refusals(path)
    assert (mine.name, mine.version, mine.source, mine.prefixes) == ("mine", "2", "", ("Nein", "No "))
    assert mine.refused(" Nein.")
    assert not mine.refused("Not here.")
    assert mine.digest != ZOU.digest


GOOD = {"name": "mine", "version": "2", "prefixes": ["Nein"]}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("{\n", "line 2 is not JSON"),
        ("[" * 100_000, "nested too deeply"),
        ([], "is no JSON object"),
        ({**GOOD, "name": ""}, "no text for name"),
        ({**GOOD, "version": 2}, "no text for version"),
        ({**GOOD, "licence": 2}, "no text for licence"),
        ({**GOOD, "prefixes": []}, "no list"),
        ({**GOOD, "prefixes": "No"}, "no list"),
        ({**GOOD, "prefixes": ["No", ""]}, "entry 2"),
        ({**GOOD, "prefixes": ["No", "  "]}, "entry 2"),
        ({**GOOD, "prefixes": ["No", "No", " No"]}, "entry 3"),
        ({**GOOD, "prefixes": [7]}, "entry 1"),
        ("x" * (2**20 + 1), "larger than 1,048,576 bytes"),
    ],
)
def test_bad_lists(tmp_path: Path, content: Any, problem: str) -> None:
    path = tmp_path / "list.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(S3LoRAError) as caught:
        read_refusals(path)
    assert problem in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_list_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(S3LoRAError, match="No such file"):
        read_refusals(tmp_path / "none.json")
