"""What an asynchronous store, its groups, blocks and loops share: the threads and the handle.

Reads run in a few threads of their own, so that none waits for a writer. What they give is plain
data: a live value would be read from the disk, and written to it, by the event loop.

The task that is inside a transaction is the exception. It reads and changes in the loop, as the
transaction is its own and what it changes is only in memory before the commit.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial, reduce
from typing import Any, TypeVar

import richstore
from richstore import ClosedError, LockTimeoutError
from richstore.aio.jobs import Alone, Change, Close, wait_out
from richstore.aio.pool import Pool
from richstore.aio.writer import SLICE, Writer

__all__ = ["Core", "Source", "resolve"]

T = TypeVar("T")

# the stores in whose transactions a task is
_inside: weakref.WeakKeyDictionary[asyncio.Task[Any], list[Core]] = weakref.WeakKeyDictionary()


def resolve(mapping: Any, path: tuple[str, ...]) -> Any:
    """Return the group at a path in a store or snapshot; an empty path is the whole."""
    return reduce(lambda outer, name: outer.group(name), path, mapping)


def _look(view: Callable[[], AbstractContextManager[Any]], function: Callable[[Any], T]) -> T:
    with view() as mapping:
        return function(mapping)


class Source(ABC):
    """Where readers read: a store, or a snapshot of it.

    Args:
        pool: the threads for it.
    """

    def __init__(self, pool: Pool) -> None:
        self.pool = pool

    @abstractmethod
    def check(self) -> None:
        """Raise `ClosedError` when it cannot be used."""

    @abstractmethod
    def is_inside(self) -> bool:
        """Tell whether this task is in a transaction whose state it shows."""

    async def read(self, function: Callable[[Any], T]) -> T:
        """Call a function with the mapping, in a thread, and return what it returns."""
        return await self.show(function)

    async def show(self, function: Callable[[Any], T]) -> T:
        """Call a function with a view of one state, in a thread or in the transaction of the task.

        The view is read-only, unless it is that of a transaction.
        """
        self.check()
        if self.is_inside():
            return _look(self.own_view, function)
        return await self.pool.run(_look, self.view, function)

    @abstractmethod
    def view(self) -> AbstractContextManager[Any]:
        """Return a mapping that shows one committed state; called in a thread."""

    @abstractmethod
    def own_view(self) -> AbstractContextManager[Any]:
        """Return the mapping as the transaction of this task sees it."""


class Core(Source):
    """An open store with its threads.

    Args:
        store: the ordinary store.
        pool: threads that read.
        timeout: seconds that writers wait, unless they say otherwise.
    """

    def __init__(self, store: richstore.Store, pool: Pool, timeout: float | None) -> None:
        super().__init__(pool)
        self.store = store
        self.timeout = timeout
        self.writer = Writer(store)
        self.closed = False
        self._process = os.getpid()

    def check(self) -> None:
        """Raise `ClosedError` when the store cannot be used."""
        if self.closed and not self.is_inside():
            raise ClosedError(f"the store {self.store.path} is closed; open it again")
        if self.is_of_parent():
            raise ClosedError(
                f"the store {self.store.path} was opened before a fork, and its threads are not in "
                f"this process; open it again here"
            )

    def is_of_parent(self) -> bool:
        """Tell whether this is the child of a fork, in which the threads are not."""
        return self._process != os.getpid()

    # --- the transaction that a task is in ---

    def is_inside(self) -> bool:
        """Tell whether this task is in a transaction on this file."""
        try:
            task = asyncio.current_task()
        except RuntimeError:
            # no loop runs in this thread
            return False
        if task is None:
            return False
        path = self.store.path
        return any(
            core is self or (core.store.path == path and path != "memory:")
            for core in _inside.get(task, ())
        )

    def enter(self, task: asyncio.Task[Any]) -> None:
        """Note that a task is in a transaction."""
        _inside.setdefault(task, []).append(self)

    def leave(self, task: asyncio.Task[Any]) -> None:
        """Note that a task is no longer in a transaction."""
        _inside[task].remove(self)

    # --- reading and changing ---

    async def read(self, function: Callable[[Any], T]) -> T:
        """Call a function with the store, in a thread, or in the transaction of this task."""
        self.check()
        if self.is_inside():
            return function(self.store)
        return await self.pool.run(function, self.store)

    def view(self) -> AbstractContextManager[Any]:
        """Return a snapshot."""
        return self.store.snapshot()

    def own_view(self) -> AbstractContextManager[Any]:
        """Return the store."""
        return nullcontext(self.store)

    async def change(
        self, function: Callable[[Any], T], timeout: float | None, *, alone: bool = False
    ) -> T:
        """Call a function that changes the store, in the thread that writes.

        Args:
            function: is given the store. In the transaction of this task it is called at once.
            timeout: seconds to wait for other writers.
            alone: whether it has a commit of its own, as the code of a user must.
        """
        self.check()
        if self.is_inside():
            with self.store.transaction():
                return function(self.store)
        kind = Alone if alone else Change
        result: T = await self.writer.do(kind(partial(function, self.store), timeout))
        return result

    # --- the end ---

    async def close(self) -> None:
        """Let reads and queued changes end, and close the store."""
        if self.is_inside():
            raise RuntimeError("close() inside a transaction of the store; leave its block first")
        self.closed = True
        if not self.is_of_parent():
            await self.writer.do(Close(self._finish))

    def abandon(self) -> None:
        """Close the store, and do not wait for it; nobody is left who could."""
        self.closed = True
        if not self.is_of_parent():
            self.writer.put(Close(self._finish))

    def _finish(self) -> None:
        self.pool.close()
        self.store.close()


async def open_core(target: Any, flag: str, timeout: float | None, options: Any) -> Core:
    """Open a store in a thread; a cancelled task leaves nothing open."""
    pool = Pool(f"{target}")
    unwanted = threading.Event()
    opening = pool.start(_open_unless, unwanted, target, flag, timeout, options)
    try:
        try:
            await wait_out(opening, unwanted.set)
        except asyncio.CancelledError:
            store = None if opening.exception() else opening.result()
            if store is not None:
                await wait_out(pool.start(store.close))
            raise
        opened = opening.result()
    except BaseException:
        pool.close(wait=False)
        raise
    assert opened is not None
    return Core(opened, pool, timeout)


def _open_unless(
    unwanted: threading.Event, target: Any, flag: str, timeout: float | None, options: Any
) -> richstore.Store | None:
    """Open a store, waiting for other writers as long as it is wanted."""
    deadline = None if timeout is None else time.monotonic() + timeout
    while not unwanted.is_set():
        left = SLICE if deadline is None else max(0.0, min(SLICE, deadline - time.monotonic()))
        try:
            store = richstore.open(target, flag, timeout=left, **options)
        except LockTimeoutError:
            if deadline is not None and time.monotonic() >= deadline:
                raise
            continue
        store.timeout = timeout
        return store
    return None
