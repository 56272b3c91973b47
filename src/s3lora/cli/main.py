"""The command group, and the exit status of everything that can happen.

0 done; 1 findings, with --fail-on or --check only, or no repair; 2 wrong use or an error; 3 nothing to audit;
130 interrupted.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Sequence
from types import FrameType

import click

from s3lora._version import __version__
from s3lora.cli.lazy import LazyGroup
from s3lora.cli.output import complain, misused
from s3lora.cli.progress import HEART
from s3lora.errors import S3LoRAError, UsageError

INTERRUPTED = 130
#: What a shell sets that asks for completion.
COMPLETION = "_S3LORA_COMPLETE"
COMMANDS = {
    "scan": "Score every module of an adapter.",
    "check": "Will it load: on which base, and with which loaders?",
    "convert": "Write an adapter in another format, with the same updates.",
    "prune": "Write the adapter without its sharpest modules.",
    "repair": "Give back refusals that fine-tuning took, at a known price.",
    "resize": "Write the adapter with lower ranks, and tell what that loses.",
    "restore": "Put pruned modules back from the original.",
    "compare": "What changed between adapters, module by module.",
    "compose": "What adapters that are active together add up to.",
    "eval": "Measure safety, usefulness and cost of adapters, pruned and not.",
    "sweep": "Prune more and more by each ranking, and measure at every point.",
    "tune": "Find how much to prune, and check it on data held out.",
    "judge-check": "How often a judge errs on answers that people have labelled.",
    "fleet": "Scan and compare many adapters.",
    "report": "Make the page of a result again, from its JSON.",
    "card": "Write what is known of an adapter into its model card.",
    "bom": "Print the adapter's bill of materials: CycloneDX, as JSON.",
    "demo": "Scan and prune the built-in example.",
}
#: Help lists the commands by what they need.
SECTIONS = {
    "Look at an adapter": ("scan", "check", "compare", "compose", "report", "bom", "card"),
    "Write another one": ("convert", "resize", "prune", "restore"),
    "With its base model": ("repair", "eval", "sweep", "tune", "judge-check"),
    "Many adapters, and an example": ("fleet", "demo"),
}


@click.group(
    cls=LazyGroup,
    package="s3lora.cli",
    about=COMMANDS,
    sections=SECTIONS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="s3lora", message="%(prog)s %(version)s")
def cli() -> None:
    """Audit a LoRA adapter from its file alone, and prune its sharpest modules.

    \b
    s3lora demo                          see it work on the built-in example
    s3lora scan  ADAPTER                 which modules are sharp?
    s3lora prune ADAPTER -o PRUNED       write the adapter without them
    """


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit status; nothing but an exit status comes out of it."""
    _end_on_signals()
    asked = os.environ.get(COMPLETION)
    if asked:
        from click.shell_completion import shell_complete

        return shell_complete(cli, {}, "s3lora", COMPLETION, asked)
    try:
        if any("\0" in word for word in arguments):  # no shell gives one, and no file has one in its name
            raise UsageError("an argument holds a null character")
        # Not cli.main(): it turns a broken pipe into exit status 1, which means a finding here.
        with cli.make_context("s3lora", list(arguments)) as context:
            status = cli.invoke(context)
        if sys.stdout is not None:
            sys.stdout.flush()
        return status if isinstance(status, int) else 0
    except S3LoRAError as error:
        return complain(error.located(), error.exit_status)
    except click.ClickException as error:
        return misused(error)
    except (KeyboardInterrupt, click.Abort):
        return complain("interrupted", INTERRUPTED)
    except click.exceptions.Exit as end:
        return end.exit_code
    except BrokenPipeError:
        _silence_stdout()
        return 2  # the reader has gone, and with it any point in a message
    except MemoryError:
        return complain("out of memory", 2)
    except OSError as error:
        _silence_stdout()
        return complain(f"{error.filename or 'standard output'}: {error.strerror or error}", 2)
    except Exception as error:
        if os.environ.get("S3LORA_DEBUG"):
            raise
        return complain(f"internal error ({type(error).__name__}: {error}); set S3LORA_DEBUG=1 and report the trace", 2)
    finally:
        HEART.stop()


def _end_on_signals() -> None:
    """Let SIGTERM and SIGHUP end a command as Ctrl-C does, so that no half-written folder stays behind."""
    if threading.current_thread() is not threading.main_thread():
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    hangup = getattr(signal, "SIGHUP", None)  # not on Windows
    if hangup is not None and signal.getsignal(hangup) is not signal.SIG_IGN:  # nohup ignores it, and so shall we
        signal.signal(hangup, _hang_up)


def _hang_up(number: int, _: FrameType | None) -> None:
    """Interrupt once: a closed terminal and its shell both send SIGHUP, and the second must not stop the cleaning."""
    signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def _silence_stdout() -> None:
    """Send what is still buffered nowhere if it cannot be written: Python would complain again at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
