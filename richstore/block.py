"""`with store.transaction():`: the block, the savepoints of inner blocks, and who is in one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from richstore.mapping import Reading
from richstore.nodes.base import node_of
from richstore.nodes.spread.progress import Progress
from richstore.scope import Scope
from richstore.transaction import Nested, Transaction, current

if TYPE_CHECKING:
    from richstore.store import Store

__all__ = ["Block", "in_transaction"]


def in_transaction(value: Any) -> bool:
    """Tell whether the caller is in a transaction of a store.

    Who is in one holds the writer's lock, and does better not to wait for somebody who writes.
    Safe to call from any thread and task; each has transactions of its own.

    Args:
        value: the store, a group of it, or a value in it; a value of a document tells of that.

    Returns:
        True inside `with store.transaction():`, in the thread and the task that began it. False
        for what belongs to no store.

    Example:
        >>> import richstore
        >>> with richstore.open("memory:") as store:
        ...     before = richstore.in_transaction(store)
        ...     with store.transaction():
        ...         before, richstore.in_transaction(store)
        (False, True)
    """
    node = node_of(value)
    record = None if node is None else node.record
    tracker = getattr(value, "_tracker", None) if isinstance(value, Reading) else None
    if record is not None:
        tracker = record.tracker
    transaction = None if tracker is None else current(tracker)
    return transaction is not None and not transaction.ended


class Block(Scope):
    """The context manager of `Store.transaction()`."""

    __slots__ = ("_entered", "_outer", "_progress", "_store", "_timeout")

    def __init__(self, store: Store, timeout: float | None, progress: Progress | None) -> None:
        self._store = store
        self._timeout = timeout
        self._progress = progress
        self._entered: list[Transaction | Nested] = []
        # of a block within one that tells of progress itself
        self._outer: Progress | None = None

    def __enter__(self) -> Transaction:
        store = self._store
        if store._closed:
            raise store._closed_error()
        if store._readonly:
            raise store._readonly_error()
        transaction = current(store._tracker)
        if transaction is not None:
            transaction.check_open()
            inner = transaction.nested()
            self._entered.append(inner)
            inner.__enter__()
            if self._progress is not None:
                self._outer, transaction.progress = transaction.progress, self._progress
            return transaction
        transaction = Transaction(store._tracker)
        transaction.progress = self._progress
        self._entered.append(transaction)
        try:
            transaction.begin(self._timeout)
        except BaseException:
            self._entered.pop()
            raise
        return transaction

    @property
    def depth(self) -> int:
        """How many `with` statements are inside it."""
        return len(self._entered)

    def leave(self, failed: bool) -> None:
        """Commit, or undo when it has failed, and end the innermost."""
        entered = self._entered[-1]
        try:
            if not isinstance(entered, Transaction):
                self._progress_as_before(entered)
            entered.leave(failed)
        finally:
            self.undo_to(len(self._entered) - 1)

    def undo_to(self, depth: int) -> None:
        """Undo and end all that are deeper."""
        while len(self._entered) > depth:
            entered = self._entered[-1]
            if not isinstance(entered, Transaction):
                self._progress_as_before(entered)
            entered.undo_to(0)
            self._entered.pop()

    def _progress_as_before(self, entered: Nested) -> None:
        if self._progress is not None:
            entered.transaction.progress = self._outer

    def __del__(self) -> None:
        # entered by hand, and never left
        if getattr(self, "_entered", None):
            self.undo_to(0)
