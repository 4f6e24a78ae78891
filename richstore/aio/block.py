"""`async with store.transaction() as tx:`: a transaction that a task changes values in.

The thread that writes begins it, hands it over to the task, and waits until it is handed back, to
commit or undo it (`richstore.Transaction.hand_over`). So LMDB finds its writer in one thread, while
the values in the hands of the task are live. Inside another block of the same task it is a
savepoint, and no thread has to do with it.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Generic, TypeVar

import richstore
from richstore.aio.core import Core, resolve
from richstore.aio.jobs import Job, Signal, wait_out
from richstore.aio.live import Transaction
from richstore.aio.writer import Writer

__all__ = ["Block"]

K = TypeVar("K")
V = TypeVar("V")
Progress = Callable[[int, int], Any]


class Handover(Job):
    """A transaction that is begun in the thread that writes and handed over to a task.

    Attributes:
        transaction: it, as soon as it has begun.
        ended: set when it has ended.
    """

    def __init__(self, timeout: float | None, progress: Progress | None) -> None:
        super().__init__(timeout)
        self.task = asyncio.current_task()
        self.transaction: richstore.Transaction | None = None
        self.ended = Signal()
        self._progress = progress
        self._owner = threading.get_ident()
        self._beginner = 0
        # what to do in the thread that began it; at last, whether it has failed
        self._calls: queue.SimpleQueue[Callable[[], None] | bool] = queue.SimpleQueue()

    # --- in the thread that writes ---

    def do(self, writer: Writer) -> None:
        """Begin it, do what its owner cannot do, and end it when it is handed back."""
        begun = writer.begin([self], progress=self._progress)
        if begun is None:
            return
        block, transaction = begun
        self._beginner = threading.get_ident()
        transaction.hand_over(self._owner, self.task, self._run)
        self.transaction = transaction
        self.settle()
        failed = self._serve()
        try:
            transaction.hand_over(self._beginner)
            transaction.take_over()
            block.leave(failed)
        except BaseException as error:  # noqa: BLE001 - its task raises it
            self.error = error
        self.ended.set()

    def _serve(self) -> bool:
        """Make the calls, until it is handed back; return whether it has failed."""
        while True:
            call = self._calls.get()
            if isinstance(call, bool):
                return call
            call()

    # --- in that of its owner ---

    def _run(self, function: Callable[[], Any]) -> Any:
        """Call a function in the thread that began it."""
        answer: Future[Any] = Future()

        def call() -> None:
            try:
                answer.set_result(function())
            except BaseException as error:  # noqa: BLE001 - raised by who waits
                answer.set_exception(error)

        self._calls.put(call)
        return answer.result()

    def give_back(self, failed: bool) -> None:
        """Let it be committed, or undone when it has failed."""
        assert self.transaction is not None
        self.transaction.hand_over(self._beginner)
        self._calls.put(failed)

    def give_up(self) -> None:
        """Let it be undone if it has begun, although its owner has not taken it over."""
        self._calls.put(True)


class Block(Generic[K, V]):
    """The asynchronous context manager of `transaction()`; for one `async with`."""

    def __init__(
        self, core: Core, path: tuple[str, ...], timeout: float | None, progress: Progress | None
    ) -> None:
        self._core = core
        self._path = path
        self._timeout = timeout
        self._progress = progress
        self._job: Handover | None = None
        self._savepoint: Any = None
        self._used = False

    async def __aenter__(self) -> Transaction[K, V]:
        if self._used:
            raise RuntimeError("this block was entered already; call transaction() for another")
        self._used = True
        core = self._core
        core.check()
        if core.is_inside():
            savepoint = core.store.transaction(progress=self._progress)
            transaction = savepoint.__enter__()
            self._savepoint = savepoint
        else:
            transaction = await self._begin()
        return Transaction(transaction, resolve(core.store, self._path))

    async def _begin(self) -> richstore.Transaction:
        job = Handover(self._timeout, self._progress)
        try:
            await self._core.writer.do(job)
        except BaseException as error:
            job.give_up()
            if job.transaction is not None and isinstance(error, asyncio.CancelledError):
                await wait_out(job.ended.future)
            raise
        transaction = job.transaction
        assert transaction is not None and job.task is not None
        transaction.take_over()
        self._core.enter(job.task)
        self._job = job
        return transaction

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        savepoint, self._savepoint = self._savepoint, None
        if savepoint is not None:
            savepoint.leave(kind is not None)
            return
        job = self._hand_back(kind is not None)
        if kind is GeneratorExit:
            # the task is gone, and nothing can be awaited
            return
        try:
            await wait_out(job.ended.future)
        except asyncio.CancelledError as cancelled:
            raise cancelled from job.error
        job.outcome()

    def _hand_back(self, failed: bool) -> Handover:
        job, self._job = self._job, None
        assert job is not None and job.task is not None
        self._core.leave(job.task)
        job.give_back(failed)
        return job

    def __del__(self) -> None:
        # entered by hand, and never left
        if self._job is not None:
            self._hand_back(True)
