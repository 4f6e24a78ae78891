"""Progress: what a transaction has built so far, and whom to tell of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

__all__ = ["Progress"]

_SECONDS = 0.1


class Progress:
    """What a transaction has built so far, and whom to tell.

    Args:
        callback: called with items and bytes: when there are four times as many as the last time it
            was called, every 0.1 s, and at the end of each build.
    """

    def __init__(self, callback: Callable[[int, int], Any]) -> None:
        self.callback = callback
        self.items = self.bytes = 0
        self._told = 0
        self._when = time.monotonic()

    def add(self, items: int, size: int) -> None:
        """Count what was built."""
        self.items += items
        self.bytes += size
        if self.items >= 4 * self._told or time.monotonic() - self._when >= _SECONDS:
            self.tell()

    def tell(self) -> None:
        """Call, unless it has been told already."""
        if self.items > self._told:
            self._told = self.items
            self._when = time.monotonic()
            self.callback(self.items, self.bytes)
