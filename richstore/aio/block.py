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
from collections.abc import Callable, ItemsView, Iterator, KeysView, MutableMapping, ValuesView
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Generic, TypeVar

import richstore
from richstore import ClosedError
from richstore.aio.core import Core, resolve
from richstore.aio.writer import Job, Signal, Writer, wait_out

__all__ = ["Block", "Transaction"]

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


class Transaction(MutableMapping[K, V]):
    """What `async with store.transaction() as tx:` gives: the store or group, with live values.

    A mapping as the ordinary `richstore.Store` is. Values are read and changed in place, by the
    task of the block alone; nothing waits for the disk but the end of the block.

    Example:
        >>> import asyncio
        >>> from richstore import aio
        >>> async def main():
        ...     async with aio.open("memory:") as store:
        ...         async with store.transaction() as tx:
        ...             tx["shops"] = ["shop1"]
        ...             tx["shops"].append("shop2")
        ...             tx.group("users")["ann"] = {"age": 41}
        ...         return await store.get("shops"), await store.group("users").keys()
        >>> asyncio.run(main())
        (['shop1', 'shop2'], ['ann'])
    """

    def __init__(self, transaction: richstore.Transaction, mapping: Any) -> None:
        self._transaction = transaction
        self._mapping = mapping

    def _live(self) -> Any:
        """Return the mapping, if the caller is in the transaction."""
        if self._transaction.left or not self._transaction.is_here():
            raise ClosedError(
                "this transaction has ended, or belongs to another task; use it inside its block, "
                "and what else needs it, get() and set() of the store"
            )
        return self._mapping

    def __getitem__(self, key: K) -> V:
        value: V = self._live()[key]
        return value

    def __setitem__(self, key: K, value: V) -> None:
        self._live()[key] = value

    def __delitem__(self, key: K) -> None:
        del self._live()[key]

    def __iter__(self) -> Iterator[K]:
        return iter(self._live())

    def __reversed__(self) -> Iterator[K]:
        keys: Iterator[K] = reversed(self._live())
        return keys

    def __len__(self) -> int:
        return len(self._live())

    def __contains__(self, key: object) -> bool:
        return key in self._live()

    def keys(
        self, start: Any = None, stop: Any = None, *, prefix: Any = None, reverse: bool = False
    ) -> KeysView[K]:
        """Return a view of the keys, or of a range of them, as `richstore.Store.keys` does."""
        view: KeysView[K] = self._live().keys(start, stop, prefix=prefix, reverse=reverse)
        return view

    def items(
        self, start: Any = None, stop: Any = None, *, prefix: Any = None, reverse: bool = False
    ) -> ItemsView[K, V]:
        """Return a view of the items; the arguments are those of `keys`."""
        view: ItemsView[K, V] = self._live().items(start, stop, prefix=prefix, reverse=reverse)
        return view

    def values(
        self, start: Any = None, stop: Any = None, *, prefix: Any = None, reverse: bool = False
    ) -> ValuesView[V]:
        """Return a view of the values; the arguments are those of `keys`."""
        view: ValuesView[V] = self._live().values(start, stop, prefix=prefix, reverse=reverse)
        return view

    def clear(self) -> None:
        """Remove all items; groups inside stay."""
        self._live().clear()

    def group(self, name: str) -> Transaction[Any, Any]:
        """Return a group inside this mapping, in the same transaction."""
        return Transaction(self._transaction, self._live().group(name))

    def groups(self) -> list[str]:
        """Return the names of the groups in this mapping, in order."""
        names: list[str] = self._live().groups()
        return names

    def abort(self) -> None:
        """Undo everything; what follows in the block may read, but not change anything."""
        self._live()
        self._transaction.abort()

    def savepoint(self) -> Any:
        """Return a point that `rollback_to` can go back to."""
        self._live()
        return self._transaction.savepoint()

    def rollback_to(self, savepoint: Any) -> None:
        """Undo all changes since `savepoint`, which stays valid."""
        self._live()
        self._transaction.rollback_to(savepoint)

    def __repr__(self) -> str:
        return f"<richstore.aio.Transaction on {self._mapping!r}>"
