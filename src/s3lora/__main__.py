"""`python -m s3lora` and the `s3lora` command."""

from __future__ import annotations

import contextlib
import gc
import io
import os
import sys


def main() -> None:
    """Run the command line and exit with its status."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a locale without × shows a question mark, and no error
    # Before NumPy is imported: s3lora gives BLAS one thread anyway, and starting others costs 0.1 s of CPU.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # A scan makes a million objects and no circles: looking for these takes a tenth of its time.
    gc.set_threshold(200_000, 50, 1000)
    from s3lora.cli.main import run

    status = run(sys.argv[1:])
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
    # Not sys.exit: it would wait for a module that another thread still measures after an interruption, and taking
    # the interpreter apart costs a tenth of a short scan.
    os._exit(status)


if __name__ == "__main__":
    main()
