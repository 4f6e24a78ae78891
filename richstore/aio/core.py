"""What an asynchronous store, its groups, blocks and loops share: the threads and the handle.

Reads run in a few threads of their own, so that none waits for a writer. What they give is plain
data: a live value would be read from the disk, and written to it, by the event loop.

The task that is inside a transaction is the exception. It reads and changes in the loop, as the
transaction is its own and what it changes is only in memory before the commit.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
import time
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from functools import partial, reduce
from typing import Any, TypeVar

import richstore
from richstore import ClosedError, LockTimeoutError
from richstore.aio.writer import SLICE, Alone, Change, Close, Writer, wait_out

__all__ = ["Core", "Source", "resolve"]

T = TypeVar("T")

# How many reads run at the same time.
_READERS = 4

# the stores in whose transactions a task is
_inside: weakref.WeakKeyDictionary[asyncio.Task[Any], list[Core]] = weakref.WeakKeyDictionary()


def resolve(mapping: Any, path: tuple[str, ...]) -> Any:
    """Return the group at a path in a store or snapshot; an empty path is the whole."""
    return reduce(lambda outer, name: outer.group(name), path, mapping)


def _call(function: Callable[..., T], *arguments: Any) -> T:
    """Call a function whose outcome a future takes, which refuses one exception."""
    try:
        return function(*arguments)
    except StopIteration as error:
        raise RuntimeError("a function raised StopIteration") from error


class Pool:
    """The threads that read."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._threads = ThreadPoolExecutor(_READERS, f"richstore reader {path}")

    def start(self, function: Callable[..., T], *arguments: Any) -> asyncio.Future[T]:
        """Run a function in a thread, with the context of the task.

        Raises:
            ClosedError: the store is closed.
        """
        context = contextvars.copy_context()
        work = partial(context.run, _call, function, *arguments)
        try:
            return asyncio.get_running_loop().run_in_executor(self._threads, work)
        except RuntimeError:
            raise ClosedError(f"the store {self._path} is closed; open it again") from None

    async def run(self, function: Callable[..., T], *arguments: Any) -> T:
        """As `start`, and return what it returns; a cancelled task does not wait for it."""
        return await self.start(function, *arguments)

    def later(self, function: Callable[[], None]) -> None:
        """Run a function in a thread, and do not wait for it; at once when there are no threads."""
        try:
            self._threads.submit(function)
        except RuntimeError:
            function()

    def close(self, *, wait: bool = True) -> None:
        """End the threads when they have done what they have begun, and wait for that."""
        self._threads.shutdown(wait)


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

    @abstractmethod
    async def read(self, function: Callable[[Any], T]) -> T:
        """Call a function with the mapping, and return what it returns."""

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
        if self._process != os.getpid():
            raise ClosedError(
                f"the store {self.store.path} was opened before a fork, and its threads are not in "
                f"this process; open it again here"
            )

    # --- the transaction that a task is in ---

    def is_inside(self) -> bool:
        """Tell whether this task is in a transaction on this file."""
        task = asyncio.current_task()
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
        await self.writer.do(Close(self._finish))

    def abandon(self) -> None:
        """Close the store, and do not wait for it; nobody is left who could."""
        self.closed = True
        if self._process == os.getpid():
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
