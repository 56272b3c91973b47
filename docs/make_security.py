"""Write the tables of docs/security.md: attacks and their tests, what was recorded, and what other scanners see.

    python -m docs.make_security

How many cases the tests have is what pytest collects. A test fails where the page is not what this would write.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path
from typing import Any

from tests.attacks import ATTACKS, Attack

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "security.md"
FUZZED = ROOT / "tests" / "fuzz" / "recorded.json"
FAULTS = ROOT / "tests" / "faults" / "recorded.json"
SCANNERS = ROOT / "docs" / "results" / "scanners.json"
#: A part of the page that is written here, by its name.
PART = re.compile(r"(<!-- made: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
TOOLS = ("picklescan", "modelscan", "modelaudit", "s3lora")


def collected() -> list[str]:
    """Return the ids of all cases that pytest collects in the files that attacks name, those that are slow left out."""
    files = sorted({test.split("::")[0] for attack in ATTACKS for test in attack.tests})
    hidden = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "S3LORA_"))}
    command = [sys.executable, "-m", "pytest", "--collect-only", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, *(f"tests/{file}" for file in files)],
        cwd=ROOT,
        env={**hidden, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SystemExit(f"pytest could not collect the tests:\n{done.stdout[-3000:]}{done.stderr[-1000:]}")
    return [line.removeprefix("tests/") for line in done.stdout.splitlines() if "::" in line]


def cases(attack: Attack, ids: Iterable[str]) -> int:
    """Return how many cases the tests of an attack have; raise ValueError for a test without any."""
    ids = list(ids)
    found: set[str] = set()
    for test in attack.tests:
        mine = {one for one in ids if one == test or one.startswith((f"{test}::", f"{test}["))}
        if not mine:
            raise ValueError(f"{attack.means}: no test {test} is collected")
        found |= mine
    return len(found)


def attacks(ids: Iterable[str]) -> str:
    """Return the table of attacks."""
    ids = list(ids)
    rows = ["| what an attacker gives | for example | what holds | tests | cases |", "|---|---|---|---|---:|"]
    for attack in ATTACKS:
        files = dict.fromkeys(test.split("::")[0] for test in attack.tests)
        names = ", ".join(f"`{file.removesuffix('.py')}`" for file in files)
        rows.append(f"| {attack.means} | {attack.example} | {attack.holds} | {names} | {cases(attack, ids)} |")
    return "\n".join(rows)


def fuzzed() -> str:
    """Return what a long run of the fuzzers counted, nothing where none was recorded."""
    if not FUZZED.is_file():
        return ""
    made = json.loads(FUZZED.read_text(encoding="utf-8"))
    total = made["total"]
    rows = [
        f"A run of {total['seconds'] / 3600:.1f} hours of processor time, on Python {made['python']} with atheris "
        f"{made['atheris']}, tried {total['executions']:,} inputs. What it found is mended, and is tried by every "
        "run of the tests.\n",
        "| target | inputs | accepted | refused | found | ended the process |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    keys = ("executions", "accepted", "refused", "found", "died")
    for name, one in made["targets"].items():
        rows.append(f"| {name}: {one['about']} | {' | '.join(f'{one[key]:,}' for key in keys)} |")
    return "\n".join(rows)


def faults() -> str:
    """Return how many faults were injected into what writes."""
    made = json.loads(FAULTS.read_text(encoding="utf-8"))
    kinds = tuple(made["by_fault"])
    rows = [f"| command | {' | '.join(kinds)} | in all |", f"|---|{'---:|' * (len(kinds) + 1)}"]
    counts: dict[str, Counter[str]] = {}
    for one in made["scenarios"].values():
        counts.setdefault(one["command"], Counter()).update(one["faults"])
    for command, one in (*counts.items(), ("in all", Counter(made["by_fault"]))):
        rows.append(f"| {command} | {' | '.join(f'{one[kind]:,}' for kind in kinds)} | {one.total():,} |")
    return "\n".join(rows)


def scanners() -> str:
    """Return what each scanner sees: first of the made-up files beside an adapter, then of adapters."""
    made = json.loads(SCANNERS.read_text(encoding="utf-8"))
    versions = "; ".join(
        f"{tool} {of[tool]} ({', '.join(f'{name} {version}' for name, version in of.items() if name != tool)})"
        for tool, of in made["scanners"].items()
    )
    rows = made["rows"]
    return "\n\n".join(
        (
            f"Versions: {versions}; s3lora {made['s3lora']}; Python {made['python']}.",
            _table([row for row in rows if row["made"]], "a file beside a sound adapter"),
            _table([row for row in rows if not row["made"]], "an adapter"),
        )
    )


def _table(rows: list[dict[str, Any]], title: str) -> str:
    lines = [f"| {title} | {' | '.join(TOOLS)} |", f"|---|{'---|' * len(TOOLS)}"]
    for name, group in groupby(rows, key=lambda row: re.sub(r"-\d+\.bin$", "", row["case"])):
        mine = list(group)
        many = f" ({len(mine)} files)" if len(mine) > 1 else ""
        lines.append(f"| `{name}`{many} | {' | '.join(_said(mine, tool) for tool in TOOLS)} |")
    return "\n".join(lines)


def _said(rows: list[dict[str, Any]], tool: str) -> str:
    counts = Counter(re.sub(r"(?<=names )(.+)", r"`\1`", row[tool]) or "–" for row in rows)
    if len(counts) == 1:
        return next(iter(counts))
    return ", ".join(f"{count} × {said}" for said, count in sorted(counts.items()))


def page(ids: Iterable[str]) -> str:
    """Return the whole page, with its tables as they should be; `ids` are those of all cases that pytest collects."""
    parts = {"attacks": attacks(ids), "fuzzed": fuzzed(), "faults": faults(), "scanners": scanners()}

    def made(found: re.Match[str]) -> str:
        text = parts[found[2]]
        return f"{found[1]}\n{text}\n\n{found[3]}" if text else f"{found[1]}{found[3]}"

    return PART.sub(made, PAGE.read_text(encoding="utf-8"))


if __name__ == "__main__":
    PAGE.write_text(page(collected()), encoding="utf-8")
