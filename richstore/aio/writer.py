"""The one thread of an asynchronous store that writes.

Theory of operation
-------------------

A write transaction of LMDB belongs to a thread, and waiting for its lock and for the disk would
block the event loop. So tasks put *jobs* into the queue of a thread, which does one after the
other. What it has done, or not, is told to the loop of the task that waits.

*Changes* that wait in the queue together are made in one transaction, each as a savepoint: many
tasks share the wait for the disk. When that commit fails, each is made again alone.

A job is cancelled by its task. One in the queue is taken out. One that waits for the lock notices
after `SLICE` seconds at most. One whose transaction has begun is done to its end. In each case the
task goes on when it is known what became of it, so nothing is left behind.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from richstore import ClosedError, LockTimeoutError

if TYPE_CHECKING:
    from richstore import Store, Transaction

__all__ = ["SLICE", "Alone", "Change", "Close", "Job", "Signal", "Writer", "wait_out"]

SLICE = 0.05
"""Seconds after which a wait for the writer's lock looks whether it is still wanted."""

# How many changes one commit takes.
_MOST = 256
# Seconds that a thread which has nothing to do is given to take a job whose time is over.
_GRACE = 0.01


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


class Job:
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

    def do(self, writer: Writer) -> None:
        """Do it, in the thread; what it raises becomes its error."""
        raise NotImplementedError

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


class Alone(Change):
    """A change that has a transaction of its own."""

    def do(self, writer: Writer) -> None:
        """Make it."""
        writer.commit([self])


class Close(Job):
    """The last job: waits for reads to end, and closes the store."""

    stays = True

    def __init__(self, finish: Callable[[], None]) -> None:
        super().__init__(None)
        self.finish = finish

    def do(self, writer: Writer) -> None:
        """Close."""
        self.finish()


class Writer:
    """A queue of jobs and the thread that does them, which starts with the first.

    Args:
        store: the ordinary store.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self._queue: deque[Job] = deque()
        self._ready = threading.Condition()
        self._thread: threading.Thread | None = None
        self._busy = False
        self._ended = False

    @property
    def thread(self) -> int:
        """The identifier of the thread."""
        assert self._thread is not None
        return self._thread.ident or 0

    # --- in the loop ---

    async def do(self, job: Job) -> Any:
        """Let the thread do a job, and return or raise what it did.

        Raises:
            LockTimeoutError: other writers did not end in time.
            CancelledError: the task was cancelled. What had not begun was not done; what had
                begun has ended, and if it failed, its error is the cause.
        """
        job.settled = Signal()
        self.put(job)
        cancelled: asyncio.CancelledError | None = None
        settled = job.settled.future
        while not settled.done():
            try:
                await asyncio.wait((settled,), timeout=self._patience(job))
                if not settled.done() and self._is_late(job):
                    raise self.late(job)
            except asyncio.CancelledError as error:
                cancelled = error
                job.unwanted = True
                if self._withdraw(job):
                    break
            except BaseException:
                # the task is gone
                job.unwanted = True
                self._withdraw(job)
                raise
        if cancelled is not None:
            raise cancelled from job.error
        return job.outcome()

    def put(self, job: Job) -> None:
        """Put a job into the queue; from any thread.

        Raises:
            ClosedError: the store is closed.
        """
        with self._ready:
            if self._ended:
                if isinstance(job, Close):
                    job.settle()
                    return
                raise ClosedError(f"the store {self.store.path} is closed; open it again")
            self._queue.append(job)
            if self._thread is None:
                # a daemon: one that was never closed must not keep the interpreter from ending
                name = f"richstore writer {self.store.path}"
                self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
                self._thread.start()
            self._ready.notify()

    def _patience(self, job: Job) -> float | None:
        """Return after how many seconds to look whether a job is late in the queue."""
        left = job.left()
        return None if left is None or job not in self._queue else max(_GRACE, left)

    def _is_late(self, job: Job) -> bool:
        """Tell whether the time of a job in the queue is over; if so, it is there no more."""
        with self._ready:
            if job.left() or job not in self._queue:
                return False
            if not self._busy and self._queue[0] is job:
                # the thread is about to take it, and looks whether the lock is free
                return False
            self._queue.remove(job)
            return True

    def late(self, job: Job) -> LockTimeoutError:
        """Return the error of a job that has waited for too long."""
        return LockTimeoutError(
            f"others were writing to {self.store.path} for more than {job.timeout:g} s; make their "
            f"transactions shorter, or wait longer with a larger timeout"
        )

    def _withdraw(self, job: Job) -> bool:
        """Take a job out of the queue; return whether it was still there."""
        with self._ready:
            found = job in self._queue
            if found and not job.stays:
                self._queue.remove(job)
            return found

    # --- in the thread ---

    def _serve(self) -> None:
        while jobs := self._take():
            first = jobs[0]
            try:
                if type(first) is Change:
                    first.context.run(self.commit, jobs)
                else:
                    first.context.run(first.do, self)
            except BaseException as error:  # noqa: BLE001 - its task raises it
                first.error = error
            finally:
                for job in jobs:
                    job.settle()
                # nothing is kept alive while it waits for the next
                del first, jobs

    def _take(self) -> list[Job]:
        """Return the next job, or the next changes; none when the store is closed."""
        with self._ready:
            self._busy = False
            while not self._queue:
                if self.store.closed:
                    self._ended = True
                    return []
                self._ready.wait()
            self._busy = True
            queue = self._queue
            first = queue.popleft()
            taken = [first]
            while (
                type(first) is Change and queue and type(queue[0]) is Change and len(taken) < _MOST
            ):
                taken.append(queue.popleft())
            return taken

    def begin(
        self, jobs: list[Any], progress: Callable[[int, int], Any] | None = None
    ) -> tuple[Any, Transaction] | None:
        """Begin a transaction, as long as one of some jobs wants it.

        Args:
            jobs: the jobs.
            progress: see `Store.transaction`.

        Returns:
            The block and the transaction; None when no job wants it any more. Jobs that do not are
            taken out of the list.
        """
        while True:
            jobs[:] = [job for job in jobs if not job.unwanted]
            if not jobs:
                return None
            lefts = [left for job in jobs if (left := job.left()) is not None]
            block = self.store.transaction(timeout=min([SLICE, *lefts]), progress=progress)
            try:
                return block, block.__enter__()
            except LockTimeoutError:
                for job in jobs:
                    if job.left() == 0.0:
                        job.unwanted = True
                        job.error = self.late(job)

    def commit(self, jobs: list[Any]) -> None:
        """Make changes in one transaction, or, when that fails, each in one of its own."""
        wanted = jobs[:]
        begun = None
        try:
            begun = self.begin(wanted)
            if begun is not None:
                self._make(wanted, begun[0])
        except BaseException as error:  # noqa: BLE001 - its task raises it
            if len(wanted) > 1 and not (begun is not None and begun[1].done):
                for job in wanted:
                    self.commit([job])
                return
            for job in wanted:
                job.error = error

    def _make(self, jobs: list[Change], block: Any) -> None:
        """Make changes in the block that was begun for them, and end it."""
        failed = True
        try:
            for job in jobs:
                job.error = None
                if len(jobs) == 1:
                    job.result = job.work()
                else:
                    self._make_one(job)
            failed = False
        finally:
            block.leave(failed)

    def _make_one(self, job: Change) -> None:
        """Make a change that is undone alone when it fails."""
        try:
            with self.store.transaction():
                job.result = job.work()
        except Exception as error:  # noqa: BLE001 - its task raises it
            job.error = error
