"""Run picklescan, modelscan, modelaudit and s3lora over the same folders, and write what each says.

    python -m docs.compare_scanners CASES SCANNERS

CASES is a folder of adapters, one a folder or file; the made-up ones of `tests/hostile/beside.py` are added to them.
SCANNERS is a folder with the three programs, each in an environment of its own or all in one: `picklescan`, `modelscan`
and `modelaudit` are looked for in it and in the `bin/` of the folders in it. They run without a network where the
system lets a user take it away, and modelaudit's telemetry is off. Writes `docs/results/scanners.json`, from which
`make_security.py` makes a table.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from s3lora import __version__
from s3lora.gate.conditions import CONDITIONS
from tests.hostile.bad_files import good
from tests.hostile.beside import BESIDE, write_beside

RESULT = Path(__file__).parent / "results" / "scanners.json"
#: Of the cases those that a gate should stop, and some sound ones. `*` stands for any ending.
CASES = (
    *("p_prefix_good", "distilgpt2-peft", "gpt2-classifier-peft", "code_beside"),
    *(
        "torch_refuses/*.bin",
        "zip_directory_bit.bin",
        "decoy_nested_state_dict",
        "decoy_second_weights",
        "decoy_index_and_bin",
        "two_weights",
    ),
    *("bin_and_safetensors_differ", "base_weights_inside", "full_weights_peft_loads", "stray_full_weights"),
    *("lora_bias_huge", "finite_factors_overflow", "pfx_orig_mod", "pfx_ddp_module", "pfx_fsdp_wrap"),
    *("pfx_double_prefix", "fsdp2_rank0", "zero3_all_empty"),
)
QUIET = {"PROMPTFOO_DISABLE_TELEMETRY": "1", "NO_ANALYTICS": "1", "DO_NOT_TRACK": "1", "NO_COLOR": "1"}
#: What takes the network away from a program.
ALONE = ["unshare", "--user", "--map-root-user", "--net"]


class Scanners:
    """The programs, and how they are run."""

    def __init__(self, folder: Path) -> None:
        """See whether the network can be taken away."""
        self.folder = folder
        allowed = shutil.which("unshare") and subprocess.run([*ALONE, "true"], capture_output=True).returncode == 0
        self.before = ALONE if allowed else []

    def program(self, name: str) -> Path:
        """Return the path of a program."""
        found = [path for path in (self.folder / name, *sorted(self.folder.glob(f"*/bin/{name}"))) if path.is_file()]
        if not found:
            raise SystemExit(f"there is no {name} in {self.folder}")
        return found[0].absolute()

    def run(self, name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        """Run a program with a home folder of its own."""
        with tempfile.TemporaryDirectory() as home:
            return subprocess.run(
                [*self.before, str(self.program(name)), *map(str, arguments)],
                env={"PATH": os.environ["PATH"], "HOME": home, "LC_ALL": "C.UTF-8", **QUIET},
                capture_output=True,
                text=True,
                timeout=1800,
            )

    def version(self, name: str, *packages: str) -> dict[str, str]:
        """Return the versions of a program and of packages beside it."""
        code = "import sys, importlib.metadata as m\nfor p in sys.argv[1:]: print(m.version(p))"
        python = self.program(name).parent / "python"
        done = subprocess.run([python, "-c", code, name, *packages], capture_output=True, text=True, check=True)
        return dict(zip((name, *packages), done.stdout.split(), strict=True))


def picklescan(scanners: Scanners, case: Path) -> str:
    """Return what picklescan says: 0 clean, 1 a dangerous import, 2 not all could be scanned."""
    done = scanners.run("picklescan", "-p", case)
    found = sorted({match[1] for match in re.finditer(r"dangerous import '(.+?)' FOUND", done.stdout + done.stderr)})
    if found:
        return f"names {', '.join(name.replace(' ', '.') for name in found)}"
    return {0: "", 1: "finding"}.get(done.returncode, "error")


def modelscan(scanners: Scanners, case: Path) -> str:
    """Return what modelscan says: 0 clean, 1 issues, 2 an error, 3 no file that it reads."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        done = scanners.run("modelscan", "-p", case, "-r", "json", "-o", report)
        said = json.loads(report.read_text()) if report.is_file() else {"issues": [], "errors": []}
    issues = said["issues"]
    named = sorted({f"{one['module']}.{one['operator']}" for one in issues if "operator" in one})
    if issues:
        return f"names {', '.join(named)}" if named else "finding"
    if said["errors"]:
        return "error"
    return {0: "", 3: "reads none of it"}.get(done.returncode, "error")


def modelaudit(scanners: Scanners, root: Path) -> dict[str, str]:
    """Return the gravest that modelaudit says of each case: it starts slowly, so it runs once over all."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        scanners.run("modelaudit", "scan", root, "--format", "json", "--no-cache", "-o", report)
        issues = json.loads(report.read_text())["issues"]
    said: dict[str, set[str]] = {}
    for issue in issues:
        location = str(issue.get("location") or "")
        if location.startswith(f"{root}/"):
            said.setdefault(location.removeprefix(f"{root}/").partition("/")[0], set()).add(issue["severity"])
    order = ("critical", "warning", "info", "debug")
    return {case: next((word for word in order if word in found), "") for case, found in said.items()}


def s3lora(case: Path) -> str:
    """Return the conditions that hold, or that the adapter is refused."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.sarif"
        words = ("scan", case, "--fail-on", "strict", "--no-policy", "--format", "sarif", "-o", report)
        done = subprocess.run(
            [sys.executable, "-m", "s3lora", *map(str, words)],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path[1:])},
        )
        results = json.loads(report.read_text())["runs"][0]["results"] if report.is_file() else []
    if done.returncode > 1:
        return "refused"
    names = {condition.id: name.replace("_", "-") for name, condition in CONDITIONS.items()}
    return ", ".join(sorted({names[one["ruleId"]] for one in results}))


def sound_torch_file(folder: Path) -> None:
    """Write an adapter as PEFT wrote them before safetensors."""
    import torch
    from safetensors.torch import load_file

    weights = good(folder) / "adapter_model.safetensors"
    torch.save(load_file(weights), folder / "adapter_model.bin")
    weights.unlink()


def collect(given: Path, root: Path) -> dict[str, list[str]]:
    """Copy the cases into one folder, and return their names: those that were given, and those made here."""
    names: dict[str, list[str]] = {"given": ["sound-torch-file"], "made": []}
    sound_torch_file(root / "sound-torch-file")
    for pattern in CASES:
        for source in sorted([*given.glob(pattern), *given.parent.glob(f"adapters/{pattern}")]):
            name = pattern.split("/")[0] + ("-" + source.name if "/" in pattern else "")
            copy: Callable[..., Any] = shutil.copytree if source.is_dir() else shutil.copyfile
            copy(source, root / name)
            names["given"].append(name)
    for name in BESIDE:
        write_beside(name, root / name)
        names["made"].append(name)
    return names


def compare(given: Path, scanners: Scanners) -> dict[str, Any]:
    """Return the versions, and for each case what each program says."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder).resolve() / "cases"
        root.mkdir()
        names = collect(given, root)
        audited = modelaudit(scanners, root)
        rows = [
            {
                "case": name,
                "made": kind == "made",
                "picklescan": picklescan(scanners, root / name),
                "modelscan": modelscan(scanners, root / name),
                "modelaudit": audited.get(name, ""),
                "s3lora": s3lora(root / name),
            }
            for kind in names
            for name in names[kind]
        ]
    return {
        "python": platform.python_version(),
        "s3lora": __version__,
        "scanners": {
            "picklescan": scanners.version("picklescan", "py7zr"),
            "modelscan": scanners.version("modelscan", "numpy", "h5py"),
            "modelaudit": scanners.version("modelaudit", "numpy", "h5py", "py7zr"),
        },
        "network": not scanners.before,
        "rows": rows,
    }


if __name__ == "__main__":
    made = compare(Path(sys.argv[1]).resolve(), Scanners(Path(sys.argv[2])))
    RESULT.write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
