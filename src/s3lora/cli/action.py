"""What the GitHub Action runs after a scan.

    python -m s3lora.cli.action annotations|summary SARIF STATUS LOG [FOLDER]

Where the scan failed and wrote no result, the last line of its log says why.
"""

from __future__ import annotations

import sys
from pathlib import Path

from s3lora.cli.output import complain, emit
from s3lora.errors import S3LoRAError, printable
from s3lora.files import read_whole
from s3lora.report.github import LONGEST, job_summary, notes_of, runner_commands

#: Exit status of a scan that failed. One that did not may have written its result elsewhere, by arguments of its own.
FAILED = 2
#: Bytes of a result that is shown.
LARGEST = 64 * 1024 * 1024


def tell(what: str, sarif: str, status: str, log: str, folder: str = "") -> int:
    """Print annotations, or the summary of the job."""
    file, why = Path(sarif), ""
    try:
        notes = notes_of(read_whole(file, LARGEST)) if file.is_file() else []
        if not file.is_file() and status == str(FAILED):
            lines = read_whole(Path(log), LARGEST).decode("utf-8", "replace").split("\n")
            why = next((printable(line, LONGEST) for line in reversed(lines) if line.strip()), "")
    except S3LoRAError as error:
        return complain(error.located(), error.exit_status)
    told = runner_commands(notes, folder, why) if what == "annotations" else job_summary(notes, int(status), why)
    emit(told, None)
    return 0


if __name__ == "__main__":
    sys.exit(tell(*sys.argv[1:]))
