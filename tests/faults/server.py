"""A process that runs commands with a fault in one of their calls, each in a fork of its own.

It is started with `calls.c` preloaded, imports s3lora once, and reads requests from standard input, one a line:
`{"words", "root", "at", "fault", "exchange"}`. It answers each with `{"status", "killed", "calls", "err"}`.
"""

from __future__ import annotations

import ctypes
import errno
import importlib
import json
import os
import sys
import tempfile
from typing import Any

#: What a call meets, and whether all later calls meet it too.
FAULTS = {
    "kill": (-1, False),
    "disk full": (errno.ENOSPC, True),
    "input/output error": (errno.EIO, False),
    "read-only": (errno.EROFS, True),
}


def main() -> None:
    # Here, and not in every fork.
    for name in ("duckdb", "pyarrow.parquet", "s3lora.measure.scan", "s3lora.report.scan_page"):
        importlib.import_module(name)
    from s3lora.fleet.engines.registry import ENGINES, EngineKind
    from tests.fleet.inline import Inline
    from tests.program import all_commands

    ENGINES["inline"] = EngineKind(Inline, "this process")
    assert all_commands()  # which imports them

    for line in sys.stdin:
        print(json.dumps(_answer(json.loads(line))), flush=True)


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as told:
        pid = os.fork()
        if pid == 0:
            os.dup2(said.fileno(), 2)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            _run(request, told.fileno())
        _, status = os.waitpid(pid, 0)
        said.seek(0)
        told.seek(0)
        return {
            "status": os.waitstatus_to_exitcode(status),
            "calls": told.read().decode().split(),
            "err": said.read().decode(errors="replace"),
        }


def _run(request: dict[str, Any], told: int) -> None:
    """Run the command in this fork and end it."""
    status = 70
    try:
        from s3lora import files
        from s3lora.cli.main import run

        if not request["exchange"]:
            files._exchange = lambda *_: False  # as where a file system cannot
        calls = ctypes.CDLL(None)
        calls.faults_name.restype = ctypes.c_char_p
        os.chdir(request["root"])
        what, onward = FAULTS[request["fault"] or "kill"]
        calls.faults_begin(os.fsencode(request["root"]), request["at"], what, onward)
        status = run(request["words"])
        names = [calls.faults_name(i).decode() for i in range(calls.faults_end())]
        os.write(told, " ".join(names).encode())
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(status)


if __name__ == "__main__":
    main()
