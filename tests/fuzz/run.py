"""Fuzz targets for some seconds of one processor, and print what was counted as JSON.

    python -m tests.fuzz.run --seconds 60
    python -m tests.fuzz.run --target config --target policy --seconds 600 --state fuzz-state

Inputs are guided by coverage where atheris is installed (the extra `fuzz`), and are seeded mutations without it. With
--state a run that was stopped goes on where it was: each target gets its share of the seconds, of all runs together.
The exit status is 1 where an input broke the contract; it lies in STATE/TARGET/found, with its traceback.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import pkgutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from tests.fuzz.target import has_atheris


@contextlib.contextmanager
def _instrumented() -> Iterator[None]:
    """Let atheris see what is reached in the package, which must not have been imported before."""
    if not has_atheris():
        yield
        return
    import atheris

    with atheris.instrument_imports(include=["s3lora"]):
        import s3lora

        for module in pkgutil.walk_packages(s3lora.__path__, "s3lora."):
            if not module.name.endswith("__main__"):
                with contextlib.suppress(ImportError):  # of a package that is not installed
                    importlib.import_module(module.name)
        yield


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.run", description=__doc__.split("\n")[0])
    parser.add_argument(
        "--target", action="append", metavar="NAME", help="a target; all by default, and `list` lists them"
    )
    parser.add_argument("--seconds", type=float, default=60, help="of all targets together")
    parser.add_argument("--state", type=Path, help="folder for the corpus, what was found and the counts")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with _instrumented():
        from tests.fuzz.session import in_process_of_its_own, read_counts
        from tests.fuzz.targets import TARGETS
    if options.target == ["list"]:
        print("\n".join(f"{name:<16} {target.about}" for name, target in TARGETS.items()))
        return 0
    names = options.target or [name for name, target in TARGETS.items() if target.missing() is None]
    if unknown := [name for name in names if name not in TARGETS]:
        parser.error(f"no target {unknown[0]}; there are {', '.join(TARGETS)}")
    if options.state is None:
        options.state = Path(tempfile.mkdtemp(prefix="s3lora-fuzz-"))
    for name in names:
        left = options.seconds / len(names) - read_counts(options.state / name).seconds
        if left > 0:
            in_process_of_its_own(TARGETS[name], options.state, left, options.seed)
    counts = {name: asdict(read_counts(options.state / name)) for name in names}
    print(json.dumps({"guided": has_atheris(), "state": str(options.state), "targets": counts}, indent=2))
    return int(any(one["broken"] or one["died"] for one in counts.values()))


if __name__ == "__main__":
    sys.exit(main())
