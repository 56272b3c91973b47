"""`python -m s3lora` and the `s3lora` command."""

from __future__ import annotations

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
    from s3lora.cli.main import INTERRUPTED, run

    status = run(sys.argv[1:])
    if status == INTERRUPTED:
        os._exit(status)  # a module may still be measured by another thread, which sys.exit would wait for
    sys.exit(status)


if __name__ == "__main__":
    main()
