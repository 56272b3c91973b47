"""A SARIF file of s3lora as GitHub's runner shows it: annotations at files, and a summary of the job in Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import msgspec

from s3lora.errors import UsageError, printable
from s3lora.report.markdown import code, table, text

#: Level of SARIF → command of the runner, and how a summary calls it.
LEVELS = {"error": ("error", "error"), "warning": ("warning", "warning"), "note": ("notice", "allowed")}
#: Annotations of one level that GitHub shows of a step, and rows of the summary.
SHOWN, ROWS = 10, 100
#: Characters of a message.
LONGEST = 1000


@dataclass(frozen=True, slots=True)
class GithubNote:
    """One result, or one adapter that could not be scanned: how grave, which rule, at which file, and what it says."""

    level: str
    rule: str
    file: str
    message: str


def notes_of(sarif: bytes) -> list[GithubNote]:
    """Return what a SARIF file of s3lora tells, the gravest first; raise UsageError for anything else."""
    try:
        runs = msgspec.json.decode(sarif)["runs"]
        found = [note for run in runs for note in _notes(run)]
    except (msgspec.DecodeError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
        raise UsageError("is no SARIF file of s3lora") from None
    return sorted(found, key=lambda note: list(LEVELS).index(note.level))


def _notes(run: dict[str, Any]) -> Iterator[GithubNote]:
    troubles = [one for call in run["invocations"] for one in call.get("toolExecutionNotifications", [])]
    for one, rule in (
        *((one, one["descriptor"]["id"]) for one in troubles),
        *((r, r["ruleId"]) for r in run["results"]),
    ):
        if one["level"] in LEVELS and one.get("baselineState", "new") == "new":
            place = one["locations"][0]["physicalLocation"]["artifactLocation"]
            yield GithubNote(one["level"], rule, unquote(place["uri"]), _said(one["message"]["text"]))


def _said(message: str) -> str:
    """Return a message without what keeps it from being placeholders and links: what `text_of` of `sarif.py` adds."""
    if r"\](" in message:
        message = re.sub(r"\\([\\\[\]])", r"\1", message)
    return printable(message.replace("{{", "{").replace("}}", "}"), LONGEST)


def runner_commands(notes: list[GithubNote], folder: str = "", why: str = "") -> str:
    """Return commands of the runner, one a line; `folder` is that of the scan, from the root of the repository.

    `why` tells what kept the scan from a result. Nothing in a name or a message ends its line or its property.
    """
    lines = [f"::error title=s3lora::{_data(why)}\n"] if why else []
    for level, (command, _) in LEVELS.items():
        for note in [note for note in notes if note.level == level][:SHOWN]:
            file = f"{folder}/{note.file}" if folder else note.file
            where = f"file={_property(file)},line=1,title={_property(f's3lora {note.rule}')}"
            lines.append(f"::{command} {where}::{_data(note.message)}\n")
    return "".join(lines)


def _data(words: str) -> str:
    return words.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(words: str) -> str:
    return _data(words).replace(":", "%3A").replace(",", "%2C")


def job_summary(notes: list[GithubNote], status: int, why: str = "") -> str:
    """Return the summary of a job whose scan ended with this exit status; `why` tells what kept it from a result."""
    ended = {0: "No rule holds.", 1: "A rule holds.", 3: "There was nothing to audit."}
    lines = ["### s3lora scan", "", ended.get(status, "Something could not be scanned.")]
    if why:
        lines += ["", text(why, LONGEST)]
    if notes:
        rows = [[LEVELS[one.level][1], one.rule, code(one.file), text(one.message, LONGEST)] for one in notes[:ROWS]]
        lines += ["", *table(["", "rule", "file", "what was found"], rows)]
    if notes[ROWS:]:
        lines += ["", f"{len(notes) - ROWS} more are in the result."]
    return "\n".join(lines) + "\n"
