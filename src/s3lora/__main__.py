"""`python -m s3lora` and the `s3lora` command."""

import os
import sys

if __name__ == "__main__" and sys.path[:1] in ([""], [os.getcwd()]) and not getattr(sys.flags, "safe_path", False):
    # `python -m` looks into the working directory before all else, and somebody may have put a numpy.py there. Where
    # s3lora itself lies there, it and its workers still find it, behind all others.
    _here = sys.path.pop(0)
    if os.path.dirname(os.path.dirname(__file__)) == _here:
        sys.path.append(_here)

import contextlib
import gc
import io


def main() -> None:
    """Run the command line and exit with its status."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a locale without × shows a question mark, and no error
    # Before NumPy is imported: s3lora gives BLAS one thread anyway, and starting others costs 0.1 s of CPU.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # The Hub's library tells of every try that failed; an error says so once, in a sentence.
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
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
