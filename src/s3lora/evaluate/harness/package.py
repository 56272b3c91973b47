"""The package lm-evaluation-harness: imported when it is used, kept quiet, and with its templates in a sandbox."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

from s3lora.errors import S3LoRAError
from s3lora.needs import need

EXTRA = "harness"


class HarnessError(S3LoRAError):
    """A task of lm-evaluation-harness that cannot be had, built or run here."""


def harness() -> Any:
    """Return the parts of lm-eval that are used; raise MissingPackageError where it is not installed.

    From then on the templates of every task are rendered in Jinja's sandbox. lm-eval renders them in the open, where
    a template reaches all of Python.
    """
    with quiet():
        parts = SimpleNamespace(
            tasks=need("lm_eval.tasks", EXTRA),
            registry=need("lm_eval.api.registry", EXTRA),
            utils=need("lm_eval.utils", EXTRA),
            metrics=need("lm_eval.api.metrics", EXTRA),
            datasets=need("datasets", EXTRA),
            version=need("lm_eval", EXTRA).__version__,
        )
    _confine(parts.utils)
    return parts


def _confine(utils: Any) -> None:
    """Put a sandbox in the place of lm-eval's environment for templates."""
    from jinja2 import Environment
    from jinja2.sandbox import SandboxedEnvironment

    theirs = getattr(utils, "env", None)
    if isinstance(theirs, SandboxedEnvironment):
        return
    if not isinstance(theirs, Environment):
        raise HarnessError("this version of lm-eval renders its templates in an unknown way", fix="install 0.4.13")
    ours = SandboxedEnvironment(
        loader=theirs.loader, undefined=theirs.undefined, keep_trailing_newline=theirs.keep_trailing_newline
    )
    ours.filters.update(theirs.filters)
    utils.env = ours


@contextlib.contextmanager
def quiet(*, streams: bool = True) -> Iterator[None]:
    """Keep log lines and warnings of the packages off the terminal, and with `streams` whatever else they print."""
    stopped = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.ExitStack() as stack:
            warnings.simplefilter("ignore")
            if streams:  # progress bars that no setting turns off
                stack.enter_context(contextlib.redirect_stderr(io.StringIO()))
                stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
            yield
    finally:
        logging.disable(stopped)
