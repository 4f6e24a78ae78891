"""Show how far a long job is, on standard error: a bar on a terminal, a few lines elsewhere."""

from __future__ import annotations

import shutil
import sys
import time
from types import TracebackType

__all__ = ["Progress"]

WIDTH = 30
REDRAW_SECONDS = 0.05
LINES = 4


class Progress:
    """A progress display for a known number of steps; used by one thread in a `with` block.

    Args:
        total: the number of steps.
        label: what is counted, in the plural.
    """

    def __init__(self, total: int, label: str) -> None:
        self._total = total
        self._label = label
        self._done = 0
        self._terminal = sys.stderr.isatty()
        self._drawn = 0.0
        self._reported = 0

    def step(self, name: str) -> None:
        """Count one step, and show `name` as what it was."""
        self.reach(self._done + 1, name)

    def reach(self, done: int, name: str) -> None:
        """Show that so many steps are done, and `name` beside it."""
        self._done = min(done, self._total)
        if self._terminal:
            now = time.monotonic()
            if now - self._drawn >= REDRAW_SECONDS or self._done == self._total:
                self._drawn = now
                self._draw(name)
        elif self._done * LINES // self._total > self._reported:
            self._reported = self._done * LINES // self._total
            print(f"  {self._count()}", file=sys.stderr, flush=True)

    def _count(self) -> str:
        return f"{self._done:,}/{self._total:,} {self._label}"

    def _draw(self, name: str) -> None:
        filled = WIDTH * self._done // self._total
        line = f"  [{'#' * filled}{'.' * (WIDTH - filled)}] {self._count()}  {name}"
        columns = shutil.get_terminal_size().columns - 1
        print(f"\r{line[:columns]:<{columns}}", end="", file=sys.stderr, flush=True)

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._terminal and self._drawn:
            print(file=sys.stderr)
