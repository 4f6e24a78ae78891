"""Jobs: what tasks of an event loop let the thread that writes do, and how they hear of it."""

from __future__ import annotations

import asyncio
import contextvars
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from richstore.aio.writer import Writer

__all__ = ["Alone", "Change", "Close", "Job", "Signal", "wait_out"]


class Signal:
    """Tells a task of an event loop that something has happened in a thread.

    Attributes:
        future: done then; it can be waited for many times.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.future: asyncio.Future[None] = self._loop.create_future()

    def set(self) -> None:
        """Wake the task; from any thread."""
        with suppress(RuntimeError):
            # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        if not self.future.done():
            self.future.set_result(None)


async def wait_out(future: asyncio.Future[Any], stop: Callable[[], None] | None = None) -> None:
    """Wait until a future is done, also when the task is cancelled meanwhile, which it is then.

    Args:
        future: the future.
        stop: called when the task is cancelled.
    """
    cancelled: asyncio.CancelledError | None = None
    while not future.done():
        try:
            await asyncio.wait((future,))
        except asyncio.CancelledError as error:
            cancelled = error
            if stop is not None:
                stop()
    if cancelled is not None:
        raise cancelled


class Job(ABC):
    """Something for the thread to do.

    Args:
        timeout: seconds to wait for other writers; None waits forever.

    Attributes:
        unwanted: set when its task is cancelled.
        result: what it returned.
        error: what it raised.
        settled: set when it is known what became of it.
    """

    stays = False
    """Whether it is done even if its task is cancelled before."""

    def __init__(self, timeout: float | None) -> None:
        self.timeout = timeout
        self.deadline = None if timeout is None else time.monotonic() + timeout
        self.unwanted = False
        self.result: Any = None
        self.error: BaseException | None = None
        self.settled: Signal | None = None
        self.context = contextvars.copy_context()

    def left(self) -> float | None:
        """Return how many seconds it may still wait."""
        return None if self.deadline is None else max(0.0, self.deadline - time.monotonic())

    @abstractmethod
    def do(self, writer: Writer) -> None:
        """Do it, in the thread; what it raises becomes its error."""

    def settle(self) -> None:
        """Tell the task what became of it."""
        if self.settled is not None:
            self.settled.set()

    def outcome(self) -> Any:
        """Return its result, or raise its error."""
        if self.error is None:
            return self.result
        try:
            raise self.error
        finally:
            # the traceback has this frame
            self.error = None


class Change(Job):
    """A change that may share a commit with others: it runs no code of a user but of classes."""

    def __init__(self, work: Callable[[], Any], timeout: float | None) -> None:
        super().__init__(timeout)
        self.work = work

    def do(self, writer: Writer) -> None:
        """Make it in a commit of its own; the thread itself makes those that share one."""
        writer.commit([self])


class Alone(Change):
    """A change that never shares a commit."""


class Close(Job):
    """The last job: waits for reads to end, and closes the store."""

    stays = True

    def __init__(self, finish: Callable[[], None]) -> None:
        super().__init__(None)
        self.finish = finish

    def do(self, writer: Writer) -> None:
        """Close."""
        self.finish()
