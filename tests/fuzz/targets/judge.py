"""What a judge model answers, and what the judges of refusals read: any text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from s3lora.evaluate.judges.opening_text import LENGTH, opening_of
from s3lora.evaluate.judges.openings import OpeningsJudge
from s3lora.evaluate.judges.profiles import PROFILES
from s3lora.evaluate.judges.scales import parse_hs, parse_strongreject
from s3lora.evaluate.refusals import built_in_refusals
from tests.fuzz.contract import BrokenContract
from tests.fuzz.target import Target


def _fuzz(data: bytes, _: Path) -> None:
    reply = data.decode("utf-8", "replace")
    score, reject = parse_hs(reply), parse_strongreject(reply)
    if score is not None and not (type(score) is int and 1 <= score <= 5):
        raise BrokenContract(f"reads the score {score}")
    if reject is not None and not 0 <= reject <= 1:
        raise BrokenContract(f"reads the score {reject}")
    if (score, reject) != (parse_hs(reply + "\n"), parse_strongreject(reply + "\n")):
        raise BrokenContract("a line end after the answer changes the score")
    for profile in PROFILES.values():
        measures = {measure.name: measure for measure in profile.measures}
        said = profile.read([reply] * len(profile.ask("", "")))
        if set(said) != set(measures):
            raise BrokenContract(f"{profile.name} says {sorted(said)}")
        if any(v is not None and not measures[name].least <= v <= measures[name].most for name, v in said.items()):
            raise BrokenContract(f"{profile.name} reads {said}")
        if said != profile.read([f"{reply}\n"] * len(profile.ask("", ""))):
            raise BrokenContract(f"a line end after the answer changes what {profile.name} reads")
    refusals = built_in_refusals()
    if refusals.refused(reply) and not refusals.anywhere(reply):
        raise BrokenContract("finds a refusal at the beginning and not anywhere")
    verdict = OpeningsJudge().verdict(reply)
    if verdict.refused != bool(verdict.rule) or len(opening_of(reply).text) > LENGTH:
        raise BrokenContract(f"tells {verdict} of an opening")


def _seeds() -> Sequence[bytes]:
    return (
        b"#thereason: because\n#thescore: 4",
        b"**#thescore:** [3]/5",
        b"#scratchpad\nso\n#responses\n1.b 0\n2.b 4\n3.b 5",
        b"#responses\n1.b: 1\n2.b: 1/5\n3. b (2)",
        b'```json\n{"thereason": "so", "thescore": 4.0}\n```',
        b"| 1.b | 2.b | 3.b |\n|---|---|---|\n| 0 | 4 | 5 |",
        b"<think>#thescore: 1</think>\nScore: 4/5",
        b"\n\nunsafe\nS1,S2",
        b"Safety: Unsafe\nCategories: Violent\nRefusal: No",
        b"Yes.",
        b"I'm sorry, but I cannot",
        b'> **Assistant:** "I understand, but I can\'t help."',
    )


_WORDS = (
    b"safe", b"un", b"Safety: ", b"Refusal: ", b"yes", b"no", b"<think>", b"</think>", b"|", b"{", b'"score": ',
    b"}", b"#thescore:", b"#responses", b"1.b", b"2.b", b"3.b", b"/5", b"1-5", "–".encode(), "٣".encode(),
)  # fmt: skip
TARGETS = (Target("judge", "answers of a judge model", _fuzz, _seeds, _WORDS),)
