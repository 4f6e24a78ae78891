"""The engine of a document: everything in memory, and hooks where a place is read and written.

`DocumentEngine` is the memory engine with two more steps. Before a write transaction of the
document's own tracker begins, `prepare` may take the place's lock and bring the memory up to date;
before it commits, `save` may write it to the place, and refuse it. `Inside` is the way round these
hooks: a second tracker, the *loader*, commits there what was read from the place, and the
document's tracker takes notice as it does of another process.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from richstore.engines.base import EngineStats
from richstore.engines.memory import (
    MemoryEngine,
    MemoryReadTransaction,
    MemoryWriteTransaction,
)

__all__ = ["DocumentEngine", "Inside"]


class DocumentWriteTransaction(MemoryWriteTransaction):
    """A write transaction that is saved before it is committed."""

    __slots__ = ("_finish", "_save")

    def __init__(
        self,
        engine: MemoryEngine,
        view: MemoryReadTransaction,
        save: Callable[[Any], None],
        finish: Callable[[], None],
    ) -> None:
        super().__init__(engine, view)
        self._save = save
        self._finish = finish

    def commit(self) -> None:
        """Save the state that the writes make, make it visible, and end."""
        try:
            if self._writes:
                self._save(self)
            super().commit()
        finally:
            self._view.close()
            self._end()

    def abort(self) -> None:
        """Forget the writes and end."""
        super().abort()
        self._end()

    def _end(self) -> None:
        finish, self._finish = self._finish, _nothing
        finish()


def _nothing() -> None:
    pass


class DocumentEngine(MemoryEngine):
    """The engine of a document.

    Args:
        path: where the document is, for errors.
        prepare: called before a write transaction begins, with its timeout; returns what is to be
            called when it is about to commit, with the transaction, and when it has ended.
    """

    def __init__(
        self,
        path: str,
        prepare: Callable[[float | None], tuple[Callable[[Any], None], Callable[[], None]]],
    ) -> None:
        super().__init__()
        self.path = path
        self._prepare = prepare

    def write(self, timeout: float | None) -> DocumentWriteTransaction:
        """Begin a write transaction on the latest state of the place."""
        save, finish = self._prepare(timeout)
        try:
            return DocumentWriteTransaction(self, self.read(), save, finish)
        except BaseException:
            finish()
            raise


class Inside:
    """A document's engine without its hooks; see above."""

    readonly = False

    def __init__(self, engine: DocumentEngine) -> None:
        self.engine = engine
        self.path = engine.path
        self.last_commit = engine.last_commit
        self.read = engine.read

    def write(self, timeout: float | None) -> MemoryWriteTransaction:
        """Begin a write transaction; there is nothing to wait for."""
        return MemoryWriteTransaction(self.engine, self.engine.read())

    def stats(self) -> EngineStats:
        """Return how the engine stands now."""
        return self.engine.stats()

    def reopen_after_fork(self) -> None:
        """Do nothing: the document's engine does it."""

    def problems(self) -> list[str]:
        """Return nothing: there is no file."""
        return []

    def close(self, noted: list[bool] | None = None) -> None:
        """Do nothing: the document's engine is closed with its document."""
