"""Transactions: begin, change, savepoint, commit, abort, for the live nodes of one store.

Theory of operation
-------------------

A transaction holds the writer's lock of its engine from begin to end, so what it reads is the
latest. The first change to a node *touches* it: the node gets a working copy, which the
transaction's context sees, while all others go on seeing the committed content. Nodes *born* in
the transaction need no copy: nobody else can reach them.

A **level** is one savepoint: what to put back if it is rolled back. Level 0 is the transaction
itself; ending a level well merges it into the one below.

Commit encodes the records that changed, puts them, extends the change log, commits the engine,
and then installs: one assignment (`done = True`) shows all working copies to everybody at once,
and what follows only tidies up. An exception before the engine's commit leaves disk and memory as
they were.

The current transaction is found through a context variable, so threads and asyncio tasks each
have their own. A task that merely inherited the context of the task that began a transaction is
not in it.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar, Token
from types import TracebackType
from typing import Any

from richstore.codec import log
from richstore.encoding import encode, order
from richstore.engines.base import WriteTransaction
from richstore.errors import (
    ClosedError,
    ConflictError,
    DetachedError,
    LockTimeoutError,
    ReadOnlyError,
)
from richstore.tracker import COUNT_KEY, LOG_KEY, Node, Record, Tracker

__all__ = ["Savepoint", "Transaction", "current", "run"]

_current: ContextVar[Transaction | None] = ContextVar("richstore_transaction", default=None)
_get_ident = threading.get_ident
_MISSING: Any = object()

# How often a single change is tried again on an engine that cannot lock.
RETRIES = 100


def current(tracker: Tracker) -> Transaction | None:
    """Return the open transaction of this thread and task on a tracker."""
    transaction = _current.get()
    while transaction is not None:
        if transaction.tracker is tracker and not transaction.left:
            return transaction if transaction.is_here() else None
        transaction = transaction.outer
    return None


def _task() -> Any:
    asyncio = sys.modules.get("asyncio")
    if asyncio is None or asyncio._get_running_loop() is None:
        return None
    return asyncio.current_task()


class Savepoint:
    """A point inside a transaction to roll back to; made by `Transaction.savepoint()`."""

    __slots__ = ("births", "count", "roots", "saved")

    def __init__(self, count: int) -> None:
        self.births: dict[Node, None] = {}
        # what each node first changed in this level was before; None: it had no working copy
        self.saved: dict[Node, Any] = {}
        self.roots: dict[bytes, Any] = {}
        self.count = count


class Transaction:
    """All changes of one block: committed together, or none of them.

    Made by `Store.transaction()`, which is also how it is used; the methods here are for finer work
    inside the block. It belongs to the thread and asyncio task that began it.
    """

    __slots__ = (
        "committing",
        "count",
        "done",
        "ended",
        "engine",
        "holds",
        "left",
        "levels",
        "orders",
        "outer",
        "reach",
        "roots",
        "task",
        "thread",
        "token",
        "touched",
        "tracker",
    )

    def __init__(self, tracker: Tracker) -> None:
        self.tracker = tracker
        self.engine: WriteTransaction = None  # type: ignore[assignment]
        self.token: Token[Transaction | None] | None = None
        self.outer: Transaction | None = None
        self.thread = _get_ident()
        self.task = _task()
        self.holds = False
        self.committing = False
        self.done = False
        self.ended = False
        self.left = False
        self.levels = [Savepoint(0)]
        # the kept fragment and kids of every touched node, for the way back
        self.touched: dict[Node, tuple[bytes | None, list[Node] | None]] = {}
        # values set (a record) or deleted (None) under engine keys
        self.roots: dict[bytes, Record | None] = {}
        self.count = 0
        # the order in which the nodes of each encoded record were written
        self.orders: dict[Record, list[Node]] = {}
        # nodes reachable in records that something was removed from; None: to be found again
        self.reach: dict[Record, set[Node] | None] = {}

    def is_here(self) -> bool:
        """Tell whether the calling thread and task began this transaction."""
        return self.thread == _get_ident() and (self.task is None or self.task is _task())

    # --- begin and end ---

    def begin(self, timeout: float | None) -> None:
        """Take the writer's lock and become the current transaction.

        Raises:
            LockTimeoutError: another writer did not end within `timeout` seconds.
        """
        tracker = self.tracker
        if tracker.closed:
            raise ClosedError(f"the store {tracker.engine.path} is closed; open it again")
        if tracker.readonly or tracker.engine.readonly:
            raise ReadOnlyError(
                f"the store {tracker.engine.path} is open for reading only (flag 'r'); "
                f"open it with 'w' or 'c' to change it"
            )
        writer = tracker.writer
        # Taking something and noting it stand on one line each: an interrupt comes between lines.
        try:
            self.holds = writer.acquire(blocking=False)
            if not self.holds:
                timeout = self._wait(writer, timeout)
            tracker.writer_thread = self.thread
            tracker.transaction = self
            self.engine = tracker.engine.write(timeout)
            before = self.engine.id - 1
            if before != tracker.seen:
                tracker.catch_up(before, self.engine.get)
            self.outer = _current.get()
            self.token = _current.set(self)
        except BaseException:
            self.undo()
            self.leave()
            raise

    def _wait(self, writer: threading.Lock, timeout: float | None) -> float | None:
        tracker = self.tracker
        if tracker.writer_thread == self.thread:
            raise LockTimeoutError(
                f"another asyncio task of this thread is inside a transaction on "
                f"{tracker.engine.path}, and waiting for it here would wait forever; "
                f"let it finish first (for instance behind an asyncio.Lock)"
            )
        start = time.monotonic()
        self.holds = writer.acquire(timeout=-1 if timeout is None else max(timeout, 0))
        if not self.holds:
            raise LockTimeoutError(
                f"another thread was writing to {tracker.engine.path} for more than {timeout} s; "
                f"make its transactions shorter, or open the store with a larger timeout"
            )
        return None if timeout is None else max(0.0, timeout - (time.monotonic() - start))

    def _release(self) -> None:
        """Let the next writer in."""
        tracker = self.tracker
        if self.holds:
            tracker.writer_thread = tracker.transaction = None
            self.holds = tracker.writer.release() is not None  # type: ignore[func-returns-value]
        self.ended = True

    def forked(self) -> None:
        """Undo in memory, in the child of a fork, what is still open in its parent."""
        self.ended = True
        if not self.done:
            while self.levels:
                self._undo(self.levels.pop())

    def leave(self) -> None:
        """Stop being the current transaction."""
        # first of all, so that it holds in every context that still knows this transaction
        self.left = True
        if self.token is not None:
            try:
                _current.reset(self.token)
            except ValueError:
                # ended in another context than it began in, as a generator fixture does
                _current.set(self.outer)
            self.token = None

    def check_open(self) -> None:
        """Raise `ClosedError` when the transaction has ended, or belongs to another task."""
        if self.ended:
            raise ClosedError("this transaction has ended; begin a new one")
        if not self.is_here():
            raise ClosedError("this transaction belongs to another thread or task")

    def commit(self) -> None:
        """Write everything and show it to all; on any error nothing has changed."""
        self.committing = True
        if len(self.levels) > 1:
            self.release(self.levels[1])
        try:
            written, dead = self._write()
            if not written:
                self.engine.abort()
                self._install(dead, self.tracker.seen)
                self._release()
                return
            self.tracker.pending = self.engine.id
            self.engine.commit()
        except BaseException:
            # an interrupt may have come when the engine was just done
            if self.tracker.pending is not None and self._is_committed():
                self._finish(dead)
            else:
                self.tracker.pending = None
                self.undo()
            raise
        self._finish(dead)

    def _is_committed(self) -> bool:
        return self.tracker.last_commit() >= self.engine.id

    def _finish(self, dead: dict[Record, list[Node]]) -> None:
        """Show what is on disk, whatever interrupts, and let the next writer in."""
        try:
            self._install(dead, self.engine.id)
        except BaseException:
            self._install(dead, self.engine.id)
            raise
        finally:
            self._release()

    def _write(self) -> tuple[bool, dict[Record, list[Node]]]:
        """Put all changed records into the engine's transaction.

        Returns:
            Whether there was anything, and the nodes that have left each record.
        """
        changed: dict[Record, None] = {}
        for node in self.touched:
            if node.record is not None:
                changed[node.record] = None
        for node in self.levels[0].births:
            if node.record is not None:
                changed[node.record] = None
        names: list[bytes] = []
        dead: dict[Record, list[Node]] = {}
        engine = self.engine
        roots = self.roots
        for name, root in roots.items():
            if root is not None:
                changed[root] = None
            elif engine.delete(name):
                names.append(name)
        for record in changed:
            name = record.name
            if roots and roots.get(name, record) is not record:
                continue
            encoded, dead[record] = encode(self, record)
            engine.put(name, encoded)
            record.size = len(encoded)
            names.append(name)
        if not names:
            return False, dead
        if self.count:
            count = self.tracker.count(engine.get) + self.count
            engine.put(COUNT_KEY, count.to_bytes(8, "little"))
        engine.put(LOG_KEY, log.extend(engine.get(LOG_KEY) or b"", engine.id, names))
        return True, dead

    def _install(self, dead: dict[Record, list[Node]], commit: int) -> None:
        """Show what was committed to everybody."""
        tracker = self.tracker
        with tracker.lock:
            self.done = True
            for node in self.touched:
                if node.tx is self:
                    node.kind.install(node)
                    node.tx = None
            for node in self.levels[0].births:
                node.tx = None
                if node.kind.guarded:
                    node.kind.settle(node)
                record = node.record
                if record is not None and self.roots.get(record.name, record) is not record:
                    node.record = None
            for record, nodes in dead.items():
                for node in nodes:
                    record.dismiss(node)
                record.order = self.orders.get(record)
            for name, root in self.roots.items():
                old = tracker.live.get(name)
                if old is not None and old is not root:
                    tracker.forget(old)
                if root is not None and root.nodes:
                    tracker.live[name] = root
                    tracker.remember(root)
            tracker.seen = commit
            tracker.pending = None

    def abort(self) -> None:
        """Undo everything, in memory and on disk, and end the transaction.

        What follows in its block may read, but not change anything: the block has failed.

        Raises:
            ClosedError: it has ended already.
        """
        self.check_open()
        self.undo()

    def undo(self) -> None:
        """Undo everything and end; do nothing when it has ended."""
        if self.ended:
            return
        if not self.done and self.engine is not None:
            self.engine.abort()
            with self.tracker.lock:
                while self.levels:
                    self._undo(self.levels[-1])
                    self.levels.pop()
        self._release()

    # --- savepoints ---

    def savepoint(self) -> Savepoint:
        """Return a point that `rollback_to` can go back to.

        Raises:
            ClosedError: the transaction has ended.
        """
        self.check_open()
        level = Savepoint(self.count)
        self.levels.append(level)
        return level

    def rollback_to(self, savepoint: Savepoint) -> None:
        """Undo all changes since `savepoint`, which stays valid.

        Raises:
            ClosedError: the transaction has ended, or the savepoint belongs to a block that has.
        """
        self.check_open()
        if savepoint not in self.levels[1:]:
            raise ClosedError("this savepoint is no longer part of the transaction")
        with self.tracker.lock:
            while self.levels[-1] is not savepoint:
                self._undo(self.levels.pop())
            self._undo(savepoint)

    def release(self, savepoint: Savepoint) -> None:
        """Let the changes since `savepoint` belong to the level below it."""
        while savepoint in self.levels[1:]:
            level = self.levels.pop()
            below = self.levels[-1]
            below.births |= level.births
            for node, saved in level.saved.items():
                below.saved.setdefault(node, saved)
            for name, root in level.roots.items():
                below.roots.setdefault(name, root)

    @contextmanager
    def nested(self) -> Iterator[Transaction]:
        """Run a block as a savepoint: an exception undoes the block, and goes on."""
        level = self.savepoint()
        try:
            yield self
        except BaseException:
            if not self.ended and level in self.levels:
                self.rollback_to(level)
                self.release(level)
            raise
        if not self.ended:
            self.release(level)

    def _undo(self, level: Savepoint) -> None:
        for node, saved in level.saved.items():
            if saved is None:
                if node.tx is self:
                    node.kind.discard(node)
                    node.tx = None
                node.fragment, node.kids = self.touched.pop(node, (None, None))
            else:
                node.kind.restore(node, saved)
                node.fragment = node.kids = None
        for node in level.births:
            if node.record is not None:
                node.record.dismiss(node)
            node.tx = None
        for name, root in level.roots.items():
            if root is _MISSING:
                self.roots.pop(name, None)
            else:
                self.roots[name] = root
        self.count = level.count
        level.births.clear()
        level.saved.clear()
        level.roots.clear()
        self.reach = dict.fromkeys(self.reach)

    # --- changes ---

    def touch(self, node: Node) -> list[Node] | None:
        """Make a node's working copy ready to be changed.

        Returns:
            The kids it has so far, if they are known.

        Raises:
            DetachedError: the node has left the store.
        """
        if self.committing:
            raise self._committing_error()
        record = node.record
        if record is not None and record.stale:
            self.tracker.reload(record)
            record = node.record
        if record is None:
            raise detached(node)
        if self.roots and self.roots.get(record.name, record) is not record:
            raise detached(node)
        if record in self.reach and node not in self._reachable(record):
            raise detached(node)
        level = self.levels[-1]
        if node.tx is not self:
            self.touched[node] = (node.fragment, node.kids)
            level.saved[node] = None
            node.tx = self
            node.kind.begin(node)
        elif len(self.levels) > 1 and node not in level.saved and node not in level.births:
            level.saved[node] = node.kind.save(node)
        kids = node.kids
        node.fragment = node.kids = None
        return kids

    def _committing_error(self) -> ClosedError:
        return ClosedError(
            "the transaction is being committed: a __getstate__ or __reduce__ must not change the "
            "store, nor its own object"
        )

    def removed(self, record: Record) -> None:
        """Note that an operation may have taken nodes out of a record's value."""
        self.reach[record] = None

    def _reachable(self, record: Record) -> set[Node]:
        found = self.reach[record]
        if found is None:
            found = self.reach[record] = set(order(self, record))
        return found

    def born(self, record: Record, node: Node) -> None:
        """Give a new node its place in a record."""
        record.admit(node)
        node.tx = self
        self.levels[-1].births[node] = None

    def revive(self, record: Record, node: Node) -> None:
        """Take a node that had left this record back into it."""
        self.born(record, node)
        node.kind.begin(node)
        self.touched[node] = (None, None)
        self.levels[-1].saved[node] = None
        node.fragment = node.kids = None

    def set_root(self, name: bytes, root: Record | None, existed: bool) -> None:
        """Put a value (or None: nothing) under an engine key."""
        if self.committing:
            raise self._committing_error()
        level = self.levels[-1]
        if name not in level.roots:
            level.roots[name] = self.roots.get(name, _MISSING)
        self.roots[name] = root
        if root is not None:
            root.born = self.engine.id
        self.count += (root is not None) - existed

    def unborn(self, node: Node) -> None:
        """Undo a birth of the innermost level: the operation that made it has failed."""
        level = self.levels[-1]
        level.births.pop(node, None)
        if self.touched.pop(node, None) is not None:
            # it had left the store, and was about to come back
            node.kind.discard(node)
            level.saved.pop(node, None)
        if node.record is not None:
            node.record.dismiss(node)
        node.tx = None

    # --- as a context manager, for Store.transaction() ---

    def __enter__(self) -> Transaction:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if self.ended:
                return
            if kind is None:
                self.commit()
            else:
                self.undo()
        finally:
            if not self.ended:
                self.undo()
            self.leave()


def detached(node: Node) -> DetachedError:
    """Return the error for a change to a node that has left the store."""
    kind = type(node.face).__name__
    place = f" (it was in the value at {node.home.path})" if node.home is not None else ""
    return DetachedError(
        f"this {kind} is no longer part of the store{place}: it was deleted, overwritten or rolled "
        f"back; it can still be read. Take the current one from the store, or assign this one to a "
        f"place in it"
    )


def run(tracker: Tracker, timeout: float | None, work: Callable[[Transaction], Any]) -> Any:
    """Run `work` in the current transaction, or in one of its own.

    An engine that cannot lock may refuse the commit; then the work runs again on the new state.
    """
    transaction = current(tracker)
    if transaction is not None:
        transaction.check_open()
        return work(transaction)
    attempt = 0
    while True:
        transaction = Transaction(tracker)
        try:
            with transaction:
                transaction.begin(timeout)
                result = work(transaction)
            return result
        except ConflictError:
            attempt += 1
            if attempt == RETRIES or not transaction.committing:
                raise
        finally:
            if not transaction.left:
                transaction.undo()
                transaction.leave()
