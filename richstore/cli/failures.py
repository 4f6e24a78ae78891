"""How a command ends when it does not end well: one line on standard error, and an exit code."""

from __future__ import annotations

from typing import IO, Any

import click

from richstore.cli.terminal import visible

__all__ = ["BROKEN_PIPE", "EXIT_CODES", "INTERRUPTED", "Absent", "Failure"]

INTERRUPTED = 130
BROKEN_PIPE = 141

EXIT_CODES = {
    0: "All is well.",
    1: "What was asked for is not there, or a problem was found: a key that is missing, a search"
    " without a match, a check or salvage that found damage.",
    2: "The command was not written as it should be; nothing was done.",
    3: "The store could not be opened, read or changed: no such file, another key, another"
    " writer, a full disk.",
    INTERRUPTED: "Ctrl-C. What was committed until then is in the store.",
    BROKEN_PIPE: "Whoever read the output has closed it, as `head` does.",
}


class Failure(click.ClickException):
    """The store could not be opened, read or changed."""

    exit_code = 3

    def show(self, file: IO[Any] | None = None) -> None:
        """Print it."""
        click.echo(f"richstore: {visible(self.format_message())}", file=file, err=True)


class Absent(Failure):
    """What was asked for is not there."""

    exit_code = 1
