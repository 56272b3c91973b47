"""`python -m s3lora` and the `s3lora` command."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line and exit with its status."""
    from s3lora.cli.main import run

    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
