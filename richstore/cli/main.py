"""The group of all commands, and what becomes of errors: `richstore.cli.main:cli`."""

from __future__ import annotations

import os
import sys
from types import ModuleType
from typing import Any

import click

from richstore.cli import (
    changing,
    demo,
    finding,
    project,
    reading,
    rewriting,
    shell,
    transfer,
    upkeep,
    watching,
)
from richstore.cli.failures import BROKEN_PIPE, INTERRUPTED, Failure
from richstore.errors import RichStoreError

__all__ = ["cli"]

# Every `click.Command` in these is a command of `richstore`.
MODULES: tuple[ModuleType, ...] = (
    demo,
    project,
    reading,
    finding,
    changing,
    upkeep,
    rewriting,
    watching,
    transfer,
    shell,
)


# What is not the fault of the program; an ImportError says which extra is missing.
_EXPECTED = (RichStoreError, OSError, ImportError)


class Commands(click.Group):
    """A group whose commands end with one line, and no traceback, for what is not their fault."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except (KeyboardInterrupt, click.Abort):
            click.echo("\nInterrupted. What was committed until then is in the store.", err=True)
            ctx.exit(INTERRUPTED)
        except BrokenPipeError:
            # nobody reads on: the interpreter is not to try it again when it ends
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(BROKEN_PIPE)
        except RecursionError:
            raise Failure("a value is nested too deeply for this command") from None
        except Exception as error:
            # the code of a class that raised while a value was read is told of in a note
            if not isinstance(error, _EXPECTED) and not _notes(error):
                raise
            raise Failure(_text(error)) from error


def _notes(error: Exception) -> list[str]:
    return list(getattr(error, "__notes__", ()))


def _text(error: Exception) -> str:
    said = str(error)
    if not said or not isinstance(error, _EXPECTED):
        said = f"{type(error).__name__}: {said}"
    return "\n".join([said, *_notes(error)])


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(None, "-V", "--version", package_name="richstore", prog_name="richstore")
def cli() -> None:
    """Plain Python values that persist themselves when they change.

    A command works on the store that -s names, else on the one of the project in whose folder it
    runs.
    """


for _module in MODULES:
    for _command in list(vars(_module).values()):
        if isinstance(_command, click.Command):
            cli.add_command(_command)
