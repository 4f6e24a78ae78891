"""The threads that read."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from richstore import ClosedError

__all__ = ["Pool"]

T = TypeVar("T")

# How many reads run at the same time.
_READERS = 4


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
