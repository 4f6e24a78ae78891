"""What a worker remembers between tasks; opening, closing and building."""

from __future__ import annotations

import contextlib
import gc
import random
import threading
from pathlib import Path
from time import perf_counter
from typing import Any

from benchmarks.adapters import Adapter

__all__ = ["Session", "Times", "build", "close_store", "open_store", "settle"]

Times = dict[str, float]


class Session:
    """What a worker remembers between tasks.

    Attributes:
        kind: of what make its store is.
        adapter: the open store.
        held: the large container in it.
        snapshot: what a task keeps open for the next.
        turn: how many operations were done, for arguments that must differ.
    """

    def __init__(self, kind: type[Adapter]) -> None:
        self.kind = kind
        self.adapter: Any = None
        self.where: tuple[Path, str] | None = None
        self.held: Any = None
        self.snapshot = contextlib.ExitStack()
        self.turn = 0
        self.random = random.Random(7)

    def open(self, directory: str, synchronous: str) -> None:
        """Open a store, in place of the one that is open."""
        self.close()
        self.where = (Path(directory), synchronous)
        self.adapter = self.kind(*self.where)

    def close(self) -> None:
        """Close the store, and let go of all that came from it."""
        self.held = None
        adapter, self.adapter = self.adapter, None
        if adapter is not None:
            adapter.close()
        gc.collect()

    def reopen(self) -> None:
        """Close the store and open it again."""
        assert self.where is not None
        self.close()
        self.adapter = self.kind(*self.where)


def open_store(session: Session, directory: str, synchronous: str, hold: bool = False) -> None:
    """Open a store, and hold its large container."""
    session.open(directory, synchronous)
    if hold:
        session.held = session.adapter.hold()


def close_store(session: Session) -> None:
    """Close the store."""
    session.close()


def build(session: Session, kind: str, size: int) -> float:
    """Make the large container, and return the seconds that it took."""
    start = perf_counter()
    session.adapter.build(kind, size)
    return perf_counter() - start


def settle(session: Session) -> None:
    """Collect garbage, so that what is measured next begins from rest."""
    gc.collect()
    # a library that has a thread for its cache gets a moment
    threading.Event().wait(0.01)
