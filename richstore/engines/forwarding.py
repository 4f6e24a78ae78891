"""A write transaction that one thread began and another one works in.

LMDB wants the thread that began a write transaction to end it, since that thread has its mutex. So
whatever writes or ends is done there; only reads are done by the caller.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from typing import Any

from richstore.engines.base import WriteTransaction

__all__ = ["ForwardingWriteTransaction", "Run"]

Run = Callable[[Callable[[], Any]], Any]
"""Calls a function in another thread, waits, and returns or raises what it did."""

# How many items are handed over at once.
_ITEMS = 128


class ForwardingWriteTransaction:
    """A write transaction for a thread that did not begin it.

    Args:
        inner: the transaction; the thread that began it does nothing with it meanwhile.
        run: calls a function in that thread.
    """

    __slots__ = ("_run", "inner")

    def __init__(self, inner: WriteTransaction, run: Run) -> None:
        self.inner = inner
        self._run = run

    @property
    def id(self) -> int:
        """The number that this commit will have (has, when it has ended)."""
        return self.inner.id

    @property
    def committed(self) -> bool:
        """Whether `commit` was done, for certain."""
        return self.inner.committed

    def get(self, key: bytes) -> bytes | None:
        """Return the value under `key`, own writes included, or None."""
        return self.inner.get(key)

    def scan(
        self, start: bytes, stop: bytes | None, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        """Yield the items with `start <= key < stop`, own writes included."""
        return self.inner.scan(start, stop, reverse=reverse)

    def put(self, key: bytes, value: bytes) -> None:
        """Store `value` under `key`."""
        self._run(partial(self.inner.put, key, value))

    def put_many(self, items: Iterable[tuple[bytes, bytes]]) -> None:
        """Store every value under its key; the iterable runs in the calling thread."""
        left = iter(items)
        while batch := list(islice(left, _ITEMS)):
            self._run(partial(self.inner.put_many, batch))

    def delete(self, key: bytes) -> bool:
        """Remove `key`; return whether it was there."""
        found: bool = self._run(partial(self.inner.delete, key))
        return found

    def commit(self) -> None:
        """Make the writes durable and visible, and end."""
        self._run(self.inner.commit)

    def abort(self) -> None:
        """Forget the writes and end; calling it after the end does nothing."""
        self._run(self.inner.abort)
