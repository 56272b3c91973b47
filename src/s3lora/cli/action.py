"""What the GitHub Action runs after a scan: `python -m s3lora.cli.action annotations|summary SARIF STATUS [FOLDER]`."""

from __future__ import annotations

import sys
from pathlib import Path

from s3lora.cli.output import complain, emit
from s3lora.errors import S3LoRAError
from s3lora.files import read_whole
from s3lora.report.github import job_summary, notes_of, runner_commands

#: Bytes of a result that is shown.
LARGEST = 64 * 1024 * 1024


def tell(what: str, sarif: str, status: str, folder: str = "") -> int:
    """Print annotations, or the summary of the job; where no result was written, the log says why."""
    file = Path(sarif)
    try:
        notes = notes_of(read_whole(file, LARGEST)) if file.is_file() else []
    except S3LoRAError as error:
        return complain(error.located(), error.exit_status)
    emit(runner_commands(notes, folder) if what == "annotations" else job_summary(notes, int(status)), None)
    return 0


if __name__ == "__main__":
    sys.exit(tell(*sys.argv[1:]))
