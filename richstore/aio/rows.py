"""Loops over an asynchronous mapping: `async for key, value in store.items()`.

Rows come in batches, all from one snapshot, which is closed when the loop has ended, was left or
was cancelled. The first batches are small, for loops that are left early, and none takes longer
than some milliseconds.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import AbstractContextManager, ExitStack
from typing import Any, Generic, TypeVar

from richstore import plain
from richstore.aio.core import Source, resolve

__all__ = ["Rows"]

T = TypeVar("T")

# Rows of the first batch and the most of a later one, and seconds after which one is complete.
_FIRST = 8
_MOST = 1024
_SECONDS = 0.01


class Rows(Generic[T]):
    """Keys, values or items in order: `async for` goes through them, `await` gives a list.

    Made by `keys()`, `values()` and `items()`. Each loop shows the state in which it began.
    """

    def __init__(
        self, source: Source, path: tuple[str, ...], kind: str, bounds: dict[str, Any]
    ) -> None:
        self._source = source
        self._path = path
        self._kind = kind
        self._bounds = bounds

    def __aiter__(self) -> RowIterator[T]:
        return RowIterator(self._source, self._select)

    def __await__(self) -> Generator[Any, None, list[T]]:
        return self._all().__await__()

    async def _all(self) -> list[T]:
        return [row async for row in self]

    def _select(self, view: Any) -> Iterator[Any]:
        return iter(getattr(resolve(view, self._path), self._kind)(**self._bounds))


class RowIterator(AsyncIterator[T]):
    """One loop over rows.

    Args:
        source: where they come from.
        select: returns an iterator over them, given a view of the source.
    """

    _cursor: Cursor | None = None

    def __init__(self, source: Source, select: Callable[[Any], Iterator[Any]]) -> None:
        self._source = source
        self._select = select
        self._rows: deque[T] = deque()
        self._size = _FIRST

    async def __anext__(self) -> T:
        while not self._rows and (self._cursor is None or not self._cursor.ended):
            try:
                await self._fetch()
            except BaseException:
                self._close()
                raise
        if not self._rows:
            raise StopAsyncIteration
        return self._rows.popleft()

    async def _fetch(self) -> None:
        source = self._source
        source.check()
        if self._cursor is None:
            inside = source.is_inside()
            view = source.own_view if inside else source.view
            self._cursor = Cursor(view, self._select, inside)
        cursor = self._cursor
        if cursor.inside:
            # the batches are made in the loop, and others are to have their turns
            await asyncio.sleep(0)
            self._rows.extend(cursor.fetch(self._size))
        else:
            self._rows.extend(await source.pool.run(cursor.fetch, self._size))
        self._size = min(4 * self._size, _MOST)

    async def aclose(self) -> None:
        """End the loop; a loop that is left does it by itself."""
        self._rows.clear()
        self._close()

    def _close(self) -> None:
        cursor = self._cursor
        if cursor is not None and not cursor.ended:
            cursor.ended = True
            # not here: it may have to wait for a batch that nobody wants any more
            self._source.pool.later(cursor.close)

    def __del__(self) -> None:
        self._close()


class Cursor:
    """A view and a place in it; used by one thread after the other.

    Args:
        view: returns a context manager for the view, which is entered with the first batch.
        select: returns an iterator over the view.
        inside: whether it is that of a transaction.

    Attributes:
        ended: whether there are no more batches.
    """

    def __init__(
        self,
        view: Callable[[], AbstractContextManager[Any]],
        select: Callable[[Any], Iterator[Any]],
        inside: bool,
    ) -> None:
        self.inside = inside
        self.ended = False
        self._view = view
        self._select = select
        self._lock = threading.Lock()
        self._stack = ExitStack()
        self._left: Iterator[Any] | None = None

    def fetch(self, size: int) -> list[Any]:
        """Return the next rows as plain data; fewer than `size` when they take long."""
        rows: list[Any] = []
        with self._lock:
            if self.ended:
                return rows
            try:
                if self._left is None:
                    self._left = self._select(self._stack.enter_context(self._view()))
                end = time.monotonic() + _SECONDS
                for row in self._left:
                    rows.append(plain(row))
                    if len(rows) == size or time.monotonic() > end:
                        return rows
            except BaseException:
                self._end()
                raise
            self._end()
            return rows

    def close(self) -> None:
        """End it."""
        with self._lock:
            self._end()

    def _end(self) -> None:
        self.ended = True
        self._left = None
        self._stack.close()
