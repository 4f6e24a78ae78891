"""Single changes: each a transaction of its own, or several threads' in one commit of the engine.

Theory of operation
-------------------

Where a commit waits for the disk, threads that change something at the same time share the wait.
Who finds another thread writing puts a *request* with his change into a queue, and sleeps. A thread
that is about to commit a single change of its own, the *leader*, makes the changes of all requests
in its transaction, each as a savepoint, commits once, and wakes their threads. If there were others
last time, it waits for as many before, for a part of the time that a commit takes.

Nothing is seen by anybody before all of it is on disk. A change that fails is rolled back to its
savepoint, alone, and its thread gets the error. When the commit fails, for whatever reason, nothing
was changed, and every thread makes its change again, alone.

A leader makes changes and encodes records for other threads, so no code of a user may run in that:
it might hold locks, or belong to a thread. So only plain data is handed over (`is_plain`); what is
changed must be containers or instances that are stored without asking their class; and where the
encoder meets another object, the commit fails as above (`CodeOfUserError`), and the changes to that
record are handed over no more.

The writer's lock and the queue: whoever frees the lock wakes the first in the queue, who then is
the next leader; whoever has put a request into the queue and finds the lock free does the same. A
sleeper looks again now and then, so that an interrupt between the two can do no harm.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from richstore.errors import ConflictError, LockTimeoutError
from richstore.tracker import Tracker
from richstore.transaction import NAP, Savepoint, Transaction, current, join

__all__ = ["RETRIES", "run"]

# How often a single change is tried again on an engine that cannot lock.
RETRIES = 100

# The part of the time of a commit for which a leader waits for others; seconds for which it is not
# worth while, and the most.
_PART = 0.5
_SHORTEST = 0.00005
_LONGEST = 0.002
# How many requests one commit takes.
_MOST = 256

_clock = time.perf_counter


def run(
    tracker: Tracker,
    timeout: float | None,
    work: Callable[[Transaction], Any],
    is_plain: Callable[[], bool] | None = None,
) -> Any:
    """Run `work` in the current transaction, in one of its own, or in one with other threads'.

    Args:
        tracker: the tracker.
        timeout: seconds to wait for a writer.
        work: makes the change. It may have to run several times, each time on what was there
            before: an engine that cannot lock may refuse the commit, and that of a group may fail.
        is_plain: tells whether another thread can do it; None: it cannot.

    Returns:
        What `work` returned.
    """
    transaction = current(tracker)
    if transaction is not None:
        return join(transaction, work)
    tracker.check_unchanging()
    shares = is_plain is not None and tracker.slow_commits
    attempt = 0
    while True:
        if shares and tracker.writer.locked() and tracker.writer_thread != threading.get_ident():
            assert is_plain is not None
            shares = is_plain()
            if shares:
                request = Request(tracker, work)
                timeout = request.wait(timeout)
                if request.outcome is _DONE:
                    return request.result
                if request.outcome is _FAILED:
                    raise request.result
                shares = request.outcome is _LEAD
                continue
        transaction = Transaction(tracker)
        group: CommitGroup | None = None
        try:
            with transaction:
                transaction.begin(timeout)
                result = work(transaction)
                if shares and (tracker.expected > 1 or tracker.requests):
                    group = CommitGroup(transaction)
                    group.commit()
            return result
        except ConflictError:
            attempt += 1
            if attempt == RETRIES or not transaction.committing:
                raise
        except Exception:
            if not transaction.shared:
                raise
            shares = False
        finally:
            if group is not None:
                group.end()


class CommitGroup:
    """A leader's transaction and the requests whose changes are made in it.

    Args:
        transaction: the leader's, which makes its own change first.

    Attributes:
        requests: those that have been taken from the queue, and not been told what became of them.
    """

    __slots__ = ("requests", "transaction")

    def __init__(self, transaction: Transaction) -> None:
        self.transaction = transaction
        self.requests: list[Request] = []

    def commit(self) -> None:
        """Commit what the leader has changed together with the changes of others."""
        transaction = self.transaction
        if _runs_code(transaction.levels[0]):
            return
        tracker = transaction.tracker
        queue = tracker.requests
        wanted = tracker.expected - 1
        if len(queue) < wanted and tracker.patience > _SHORTEST:
            full = tracker.full
            full.acquire(blocking=False)
            tracker.wanted = wanted
            if len(queue) < wanted:
                full.acquire(timeout=tracker.patience)
            tracker.wanted = 0
        taken = self.requests
        while queue and len(taken) < _MOST:
            taken.append(queue.popleft())
            taken[-1].make(transaction)
        transaction.shared = bool(taken)
        start = _clock()
        transaction.commit()
        tracker.patience = min(_LONGEST, (_clock() - start) * _PART)
        tracker.expected = 1 + len(taken) + len(queue)

    def end(self) -> None:
        """Tell all what became of them."""
        while self.requests:
            self.requests[-1].end(self.transaction.done)
            self.requests.pop()

    def __del__(self) -> None:
        # when an interrupt has come between
        self.end()


# What became of a request: it is on disk; it raised; its thread is to lead; to do it alone.
_DONE, _FAILED, _LEAD, _ALONE = "done", "failed", "lead", "alone"


class Request:
    """A change that waits for a leader.

    Attributes:
        outcome: one of the above; None as long as nobody has decided.
        result: what `work` returned or raised.
    """

    __slots__ = ("outcome", "result", "sleep", "thread", "tracker", "work")

    def __init__(self, tracker: Tracker, work: Callable[[Transaction], Any]) -> None:
        self.tracker = tracker
        self.work = work
        self.outcome: str | None = None
        self.result: Any = None
        self.thread = threading.get_ident()
        self.sleep = threading.Lock()
        self.sleep.acquire()

    def wait(self, timeout: float | None) -> float | None:
        """Queue, and sleep until the outcome is known.

        Returns:
            What is left of the time.

        Raises:
            LockTimeoutError: nobody took it in time.
        """
        tracker = self.tracker
        deadline = None if timeout is None else time.monotonic() + timeout
        left = timeout
        try:
            tracker.requests.append(self)
            if 0 < tracker.wanted <= len(tracker.requests):
                tracker.hurry()
            while True:
                if not tracker.writer.locked():
                    tracker.wake_next()
                nap = NAP if left is None else max(0.0, min(NAP, left))
                taken = self.sleep.acquire(timeout=nap)
                if deadline is not None:
                    left = max(0.0, deadline - time.monotonic())
                if taken:
                    return left
                if tracker.writer_thread == self.thread and self._leave():
                    raise tracker.own_error()
                if left == 0.0 and self._leave():
                    raise LockTimeoutError(
                        f"another thread was writing to {tracker.engine.path} for more than "
                        f"{timeout} s; make its transactions shorter, or open the store with a "
                        f"larger timeout"
                    )
        except LockTimeoutError:
            raise
        except BaseException:
            # an interrupt; if a leader has it, what becomes of it must be known before this ends
            if not self._leave():
                self.sleep.acquire()
                if self.outcome is _LEAD:
                    tracker.wake_next()
            raise

    def _leave(self) -> bool:
        """Leave the queue; return whether it was still there."""
        try:
            self.tracker.requests.remove(self)
        except ValueError:
            return False
        return True

    def make(self, transaction: Transaction) -> None:
        """Make the change in a leader's transaction."""
        level = transaction.savepoint()
        try:
            self.result = self.work(transaction)
            if _runs_code(level):
                self.outcome = _ALONE
        except Exception as error:  # noqa: BLE001 - its own thread raises it
            self.result = error
            self.outcome = _FAILED
        if self.outcome is not None:
            transaction.rollback_to(level)
        transaction.release(level)

    def end(self, committed: bool) -> None:
        """Tell what became of it, and wake its thread."""
        if self.outcome is None:
            self.outcome = _DONE if committed else _ALONE
        elif self.outcome is _FAILED and not committed:
            # what it found may have been made by one of the others
            self.outcome = _ALONE
        if self.sleep.locked():
            self.sleep.release()

    def lead(self) -> None:
        """Let its thread be the next leader."""
        self.outcome = _LEAD
        self.sleep.release()


def _runs_code(level: Savepoint) -> bool:
    """Tell whether encoding what a level has changed would run a user's code."""
    return any(
        not node.kind.keeps_fragment or (node.record is not None and node.record.alone)
        for nodes in (level.saved, level.births)
        for node in nodes
    )
