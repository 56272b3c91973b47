"""Everything s3lora raises on purpose.

    S3LoRAError                 exit status 2
    ├── UsageError              an option or argument that cannot be meant
    │   └── NoSuchModuleError   a result has no module of this path; also a KeyError
    ├── AdapterFileError        the bytes are not a readable adapter (pointer, truncated, hostile, missing)
    ├── UnsupportedAdapterError readable, but of a kind s3lora does not analyse (IA³, 3-D lora_B, PiSSA for pruning)
    ├── NonFiniteError          a module holds NaN or infinity, so no spectrum exists
    ├── CostError               more work than was allowed; raised before any of it is done
    ├── ModelError              a base model that cannot be found, opened or run
    ├── NothingToAuditError     exit status 3: no LoRA module, or nothing a rule may choose from
    ├── SelectionError          a ranking or rule that does not apply to this scan
    └── OutputError             the result cannot be written, or did not verify

Each message is one sentence that names, where they are known, the file, the module, its shape, the reason and what
to do; none of them leaves anything half-written behind. What to do is said in the words of Python;
`located` has those of a command.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from s3lora.outside import printable
from s3lora.wording import for_command

__all__ = [
    "AdapterFileError",
    "CostError",
    "ModelError",
    "NoSuchModuleError",
    "NonFiniteError",
    "NothingToAuditError",
    "OutputError",
    "S3LoRAError",
    "SelectionError",
    "UnsupportedAdapterError",
    "UsageError",
    "nearest",
    "one_of",
    "printable",
]


def nearest(written: str, names: Iterable[str]) -> str | None:
    """Return the name that was probably meant, None where no name is near.

    >>> nearest("q_prj", ["q_proj", "k_proj"])
    'q_proj'
    """
    import difflib  # only after a mistake

    found = difflib.get_close_matches(written[:200], list(names), 1)
    return found[0] if found else None


def one_of(written: str, names: Iterable[str]) -> str:
    """Return what to do about a name that there is not: the nearest, or all that there are.

    >>> one_of("sis", ["ssi", "energy"]), one_of("x", ["ssi", "energy"])
    ('did you mean ssi?', 'choose one of ssi, energy')
    """
    known = list(names)
    near = nearest(written, known)
    return f"choose one of {', '.join(known)}" if near is None else f"did you mean {near}?"


class S3LoRAError(Exception):
    """Base of every error s3lora raises on purpose.

    Parameters:
        problem: what is wrong.
        file: where.
        module: in which module.
        shape: of which shape.
        fix: what to do.
    """

    exit_status = 2

    def __init__(
        self,
        problem: str,
        *,
        file: object | None = None,
        module: str | None = None,
        shape: Sequence[int] | None = None,
        fix: str | None = None,
    ) -> None:
        """Compose the sentence."""
        super().__init__(problem)
        self.problem = problem
        self.file = None if file is None else str(file)
        self.module = module
        self.shape = None if shape is None else tuple(shape)
        self.fix = fix
        #: The adapter as the caller named it; set where an adapter is opened or scanned.
        self.adapter: str | None = None

    def __str__(self) -> str:
        """Return the sentence in the words of Python, with the file named from where the caller is."""
        return self._sentence(self._place(), self.problem, self.fix)

    def for_command(self, file: object | None = None) -> str:
        """Return the sentence in the words of a command; `file` is what it calls the file, if not as it is."""
        fix = None if self.fix is None else for_command(self.fix)
        return self._sentence(self.file if file is None else file, for_command(self.problem), fix)

    def located(self) -> str:
        """Return the sentence of a command, with the file named from where it runs, so that several adapters differ."""
        return self.for_command(self._place())

    def _place(self) -> object | None:
        if not self.adapter or "://" in self.adapter:  # no path
            return self.file
        given = Path(self.adapter)
        try:
            names = (given.name, os.path.basename(os.path.realpath(given)))
        except (OSError, ValueError):  # a path that no file can have
            names = (given.name, given.name)
        if self.file is None or self.file in names:
            return given
        if Path(self.file).name == self.file:
            return (given if given.is_dir() else given.parent) / self.file
        return self.file

    def _sentence(self, file: object | None, problem: str, fix: str | None) -> str:
        where = []
        if file is not None:
            where.append(printable(file, 240))
        if self.module is not None:
            where.append(printable(self.module))
        if self.shape is not None:
            where.append("(" + " × ".join(str(n) for n in self.shape) + ")")
        sentence = f"{' '.join(where)}: {problem}" if where else problem
        return f"{sentence}; {fix}" if fix else sentence


class UsageError(S3LoRAError):
    """An option or argument that cannot be meant."""


class NoSuchModuleError(UsageError, KeyError):
    """A result has no module of this path; the message names the nearest."""


class AdapterFileError(S3LoRAError):
    """A file that cannot be read as an adapter: missing, truncated, malformed or hostile."""


class UnsupportedAdapterError(S3LoRAError):
    """A readable adapter of a kind that s3lora does not analyse, or must not prune."""


class NonFiniteError(S3LoRAError):
    """A module that holds NaN or infinity."""


class CostError(S3LoRAError):
    """Work that would take more operations than were allowed; it is raised before any of them is done."""


class ModelError(S3LoRAError):
    """A base model that cannot be found, opened or run."""


class NothingToAuditError(S3LoRAError):
    """No LoRA module was found, or none that a rule may choose from."""

    exit_status = 3


class SelectionError(S3LoRAError):
    """A ranking or a rule that does not apply to this scan."""


class OutputError(S3LoRAError):
    """A result that could not be written, or that did not verify after writing."""
