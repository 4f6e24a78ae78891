"""Show on standard error how far a long job is, when that is a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["Bar", "progress"]


class Bar:
    """What a long job tells how far it is; elsewhere than on a terminal it shows nothing."""

    def __init__(self, shown: Any = None, task: Any = None) -> None:
        self._shown = shown
        self._task = task
        # how many steps there are, when that is known beforehand
        self.total: int | None = None

    def __call__(self, done: int, total: int | None = None, note: str = "") -> None:
        """Show how many steps are done, of how many when that is known, and a note beside it."""
        if self._shown is not None:
            self._shown.update(self._task, completed=done, total=total or self.total, note=note)

    def records(self, done: int, size: int) -> None:
        """Show how many records and bytes are done, as `Store.migrate` and others tell it."""
        self(done, None, f"{done:,} records, {size:,} bytes")


@contextmanager
def progress(what: str) -> Iterator[Bar]:
    """Show a bar while the block runs.

    Args:
        what: the job, as words.
    """
    if not sys.stderr.isatty():
        yield Bar()
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        TimeElapsedColumn(),
    )
    # what goes to a pipe meanwhile must not be caught for the terminal
    caught = sys.stdout.isatty()
    console = Console(stderr=True, markup=False, highlight=False)
    with Progress(
        *columns, console=console, transient=True, redirect_stdout=caught, redirect_stderr=caught
    ) as shown:
        yield Bar(shown, shown.add_task(what, total=None, note=""))
