"""Commands for GitHub's runner and a job's summary, out of SARIF whose every name is hostile."""

from __future__ import annotations

import json

import pytest

from s3lora.errors import UsageError
from s3lora.report.github import GithubNote, job_summary, notes_of, runner_commands
from s3lora.report.sarif import text_of

EVIL = GithubNote("warning", "S3L001", "a,b:c%\n::error::x", "100%\n::add-mask::x\r| <img src=x> `")


def test_nothing_ends_a_line_or_a_property() -> None:
    (line,) = runner_commands([EVIL]).splitlines()
    assert line == (
        "::warning file=a%2Cb%3Ac%25%0A%3A%3Aerror%3A%3Ax,line=1,title=s3lora S3L001::"
        "100%25%0A::add-mask::x%0D| <img src=x> `"
    )


def test_a_summary_holds_no_markup_of_names() -> None:
    *_, row = job_summary([EVIL], 1).splitlines()
    assert row.count("|") - row.count("\\|") == 5
    assert "<img" not in row


def test_what_is_more_than_github_shows() -> None:
    notes = [GithubNote("error", "S3L004", f"{i}", "x") for i in range(120)]
    assert len(runner_commands(notes).splitlines()) == 10
    assert job_summary(notes, 1).splitlines()[-1] == "20 more are in the result."


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"runs": 3}', '{"runs": [{"invocations": [], "results": [1]}]}'])
def test_anything_else_is_refused(content: str) -> None:
    with pytest.raises(UsageError, match="is no SARIF file of s3lora"):
        notes_of(content.encode())


@pytest.mark.parametrize("said", ["a](b){x}", r"a\[0](b)", "[x] {y}", r"back\slash", "plain"])
def test_a_message_is_shown_as_it_was_meant(said: str) -> None:
    place = {"physicalLocation": {"artifactLocation": {"uri": "x"}}}
    one = {"ruleId": "S3L002", "level": "warning", "message": text_of(said), "locations": [place]}
    (note,) = notes_of(json.dumps({"runs": [{"invocations": [{}], "results": [one]}]}).encode())
    assert note.message == said


def test_what_is_known_is_not_told() -> None:
    place = {"physicalLocation": {"artifactLocation": {"uri": "b%20c/x"}}}
    one = {"ruleId": "S3L002", "level": "warning", "message": {"text": "{{x}}"}, "locations": [place]}
    results = [one, {**one, "baselineState": "unchanged"}, {**one, "level": "none"}]
    content = json.dumps({"runs": [{"invocations": [{}], "results": results}]})
    assert notes_of(content.encode()) == [GithubNote("warning", "S3L002", "b c/x", "{x}")]
