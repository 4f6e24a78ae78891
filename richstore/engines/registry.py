"""The engines that are open in this process, by the file they have open.

LMDB forbids opening a file twice in one process, so the second open of a file shares the engine of
the first, and the last close is the one that counts. The rule: an engine is in the registry
exactly as long as it has the file open. It also tells the engines when the process has forked.
This is the only global state, and it knows nothing of LMDB.
"""

from __future__ import annotations

import os
import threading
from typing import Generic, Protocol, TypeVar

__all__ = ["Registry"]


class _Forkable(Protocol):
    def abandon(self) -> None: ...


E = TypeVar("E", bound=_Forkable)


class Registry(Generic[E]):
    """Engines by `(st_dev, st_ino)` of their file; all methods need `lock` held.

    A file that is open keeps its number, so a file that replaced it on disk has another one.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._engines: dict[tuple[int, int], E] = {}
        os.register_at_fork(after_in_child=self._forked)

    def get(self, key: tuple[int, int]) -> E | None:
        """Return the engine that has this file open."""
        return self._engines.get(key)

    def add(self, key: tuple[int, int], engine: E) -> None:
        """Remember an engine that has opened its file."""
        self._engines[key] = engine

    def all(self) -> list[E]:
        """Return all engines."""
        return list(self._engines.values())

    def remove(self, key: tuple[int, int], engine: E) -> None:
        """Forget an engine that has closed its file; calling it again does nothing."""
        if self._engines.get(key) is engine:
            del self._engines[key]

    def _forked(self) -> None:
        # the parent's lock may be held by a thread that the child does not have
        self.lock = threading.RLock()
        for engine in list(self._engines.values()):
            engine.abandon()
