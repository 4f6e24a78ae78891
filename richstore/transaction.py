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
not in it. A transaction can be begun in one thread, handed over to another, and handed back to be
ended (`hand_over`, `take_over`).
"""

from __future__ import annotations

import operator
import sys
import threading
import time
from collections.abc import Callable, Iterable
from contextvars import ContextVar, Token
from typing import Any

from richstore.codec.classes import UPGRADING
from richstore.encoding import reachable
from richstore.engines.base import WriteTransaction
from richstore.engines.forwarding import ForwardingWriteTransaction, Run
from richstore.errors import (
    ClosedError,
    DetachedError,
    LockTimeoutError,
    ReadOnlyError,
    RichStoreError,
)
from richstore.node import Node, Spread
from richstore.pages import CELL, PAGE, RECLAIM, delete_pages, read_cell
from richstore.paging import Commit, belongs, restore
from richstore.record import Record
from richstore.scope import Scope
from richstore.spaces import COUNTER, GROUPED, Space
from richstore.tracker import Tracker

__all__ = ["NAP", "Nested", "Savepoint", "Transaction", "current", "detached", "join"]

NAP = 0.2
"""Seconds after which who waits for the writer's lock looks whether that still makes sense."""

_current: ContextVar[Transaction | None] = ContextVar("richstore_transaction", default=None)
_get_ident = threading.get_ident
_MISSING: Any = object()

# No page of a container has a larger id.
_LAST_PAGE = (1 << 64) - 1


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

    __slots__ = ("births", "broken", "cells", "count", "flushed", "roots", "saved")

    def __init__(self, count: int) -> None:
        # whether an interrupt has undone it, which who goes on in its block has to be told
        self.broken = False
        self.births: dict[Node, None] = {}
        # what each node first changed in this level was before; None: it had no working copy
        self.saved: dict[Node, Any] = {}
        self.roots: dict[bytes, Any] = {}
        self.cells: dict[bytes, Any] = {}
        # by spread id, the first and last of the pages that are in the engine already
        self.flushed: dict[int, tuple[int, int]] = {}
        self.count = count


class Transaction(Scope):
    """All changes of one block: committed together, or none of them.

    Made by `Store.transaction()`, which is also how it is used; the methods here are for finer work
    inside the block. It belongs to the thread and asyncio task that began it.
    """

    __slots__ = (
        "broken",
        "built",
        "cells",
        "committing",
        "count",
        "done",
        "ended",
        "engine",
        "flushed",
        "fresh",
        "held",
        "left",
        "levels",
        "memo",
        "numbered",
        "orders",
        "outer",
        "progress",
        "reach",
        "rearranged",
        "reclaimed",
        "reshaped",
        "rewritten",
        "roots",
        "shared",
        "task",
        "thread",
        "token",
        "touched",
        "tracker",
        "written",
    )

    def __init__(self, tracker: Tracker) -> None:
        self.tracker = tracker
        self.engine: WriteTransaction = None  # type: ignore[assignment]
        self.token: Token[Transaction | None] | None = None
        self.outer: Transaction | None = None
        self.thread = _get_ident()
        self.task = _task()
        # has an item while it holds the writer's lock
        self.held: list[bool] = []
        self.committing = False
        # whether other threads have made changes in it, see `group_commit`
        self.shared = False
        self.done = False
        self.ended = False
        # as that of a savepoint
        self.broken = False
        self.left = False
        self.levels = [Savepoint(0)]
        # the kept fragment and kids of every touched node, for the way back
        self.touched: dict[Node, tuple[bytes | None, list[Node] | None]] = {}
        # values set (a record) or deleted (None) under engine keys
        self.roots: dict[bytes, Record | None] = {}
        self.count = 0
        # indexes, directories and entries of spread containers that have changed; None: deleted
        self.cells: dict[bytes, Any] = {}
        # spread ids of containers of which pages are in the engine already
        self.flushed: dict[int, None] = {}
        # spread containers that were made here, by spread id
        self.built: dict[int, Node] = {}
        # pages that operations have made, by engine key
        self.fresh: dict[bytes, Record] = {}
        # new nodes that became spread or whole containers, and what they were
        self.reshaped: list[tuple[Node, Any]] = []
        # the nodes of each record that the commit has rearranged, as they were before
        self.rearranged: dict[Record, Any] = {}
        # shared records that lost references when others were reclaimed, and how many they have
        self.reclaimed: dict[bytes, int] = {}
        # records that are to be encoded again although nothing in them has changed
        self.rewritten: dict[Record, None] = {}
        # what the values of one operation on several pages became, see `nodes.adopt.Adopter`
        self.memo: dict[int, tuple[Any, Any]] | None = None
        # whether something was put that no record or cell tells
        self.written = False
        # whether it has taken numbers for the tracker to give
        self.numbered = False
        # told of progress: what the user gave, and items and bytes so far
        self.progress: Any = None
        # what each encoded record keeps of it: the order of its nodes, and most of them joined
        self.orders: dict[Record, tuple[list[Node], tuple[bytes, bytes] | None]] = {}
        # nodes reachable in records that something was removed from; None: to be found again
        self.reach: dict[Record, set[Node] | None] = {}

    def is_here(self) -> bool:
        """Tell whether the calling thread and task began this transaction."""
        return self.thread == _get_ident() and (self.task is None or self.task is _task())

    def is_working(self) -> bool:
        """Tell whether the caller is in this transaction, and it is neither ended nor ending."""
        return self.is_here() and not (self.ended or self.left or self.committing)

    # --- begin and end ---

    def begin(self, timeout: float | None) -> None:
        """Take the writer's lock and become the current transaction.

        Raises:
            LockTimeoutError: another writer did not end within `timeout` seconds.
        """
        tracker = self.tracker
        if tracker.closed:
            raise ClosedError(f"the store {tracker.engine.path} is closed; open it again")
        tracker.check_unchanging()
        if tracker.readonly or tracker.engine.readonly:
            raise ReadOnlyError(
                f"the store {tracker.engine.path} is open for reading only (flag 'r'); "
                f"open it with 'w' or 'c' to change it"
            )
        writer = tracker.writer
        try:
            # taken and noted in one call of C: an interrupt comes between calls
            self.held.extend(filter(None, map(writer.acquire, (False,))))
            if not self.held:
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
            self.undo_to(0)
            raise

    def _wait(self, writer: threading.Lock, timeout: float | None) -> float | None:
        tracker = self.tracker
        start = time.monotonic()
        left = None if timeout is None else max(0.0, timeout)
        while not self.held:
            if tracker.writer_thread == self.thread:
                raise tracker.own_error()
            nap = NAP if left is None else min(NAP, left)
            self.held.extend(filter(None, map(writer.acquire, (True,), (nap,))))
            if timeout is not None:
                left = max(0.0, timeout - (time.monotonic() - start))
                if left == 0.0 and not self.held:
                    raise LockTimeoutError(
                        f"another thread was writing to {tracker.engine.path} for more than "
                        f"{timeout} s; make its transactions shorter, or open the store with a "
                        f"larger timeout"
                    )
        return left

    def _release(self) -> None:
        """Let the next writer in."""
        tracker = self.tracker
        if self.held:
            tracker.writer_thread = tracker.transaction = None
            # freed and noted in one call of C, as it was taken
            self.held[:] = filter(None, map(operator.call, (tracker.writer.release,)))
            if tracker.requests:
                tracker.wake_next()
        self.ended = True

    def forked(self) -> None:
        """Undo in memory, in the child of a fork, what is still open in its parent."""
        # the child is not in it
        self.ended = self.left = True
        if not self.done:
            while self.levels:
                self._undo(self.levels.pop())

    def forget(self) -> None:
        """Stop being the current transaction."""
        # first of all, so that it holds in every context that still knows this transaction
        self.left = True
        self._leave_context()

    def _leave_context(self) -> None:
        if self.token is not None:
            try:
                _current.reset(self.token)
            except ValueError:
                # ended in another context than it began in, as a generator fixture does
                _current.set(self.outer)
            self.token = None

    # --- several threads, one after the other ---

    def hand_over(self, thread: int, task: Any = None, run: Run | None = None) -> None:
        """Let this transaction belong to another thread and task, which then calls `take_over`.

        Args:
            thread: the identifier of the thread.
            task: the asyncio task, if it is to be in the transaction alone.
            run: calls a function in the calling thread, which began the transaction and alone can
                end it in the engine, and waits for it. None: the transaction goes back to there.
        """
        if run is not None:
            self.engine = ForwardingWriteTransaction(self.engine, run)
        elif isinstance(self.engine, ForwardingWriteTransaction):
            self.engine = self.engine.inner
        self._leave_context()
        self.thread = thread
        self.task = task
        if not self.ended:
            # a change outside of it by its new thread must fail, not wait for that same thread
            self.tracker.writer_thread = thread

    def take_over(self) -> None:
        """Become the current transaction of the calling thread and task."""
        self.outer = _current.get()
        self.token = _current.set(self)

    def check_open(self) -> None:
        """Raise `ClosedError` when the transaction has ended, or belongs to another task."""
        if self.ended:
            self.check_whole()
            raise ClosedError("this transaction has ended; begin a new one")
        if not self.is_here():
            raise ClosedError("this transaction belongs to another thread or task")

    def commit(self) -> None:
        """Write everything and show it to all; on any error nothing has changed."""
        self.committing = True
        if len(self.levels) > 1:
            self.release(self.levels[1])
        work = Commit(self)
        number = self.tracker.seen
        try:
            if work.write():
                number = self.engine.id
                self.tracker.pending = number
                self.engine.commit()
            else:
                self.engine.abort()
                self._forget_numbers()
            self._install(work, number)
        except BaseException:
            # an interrupt may have come when the engine was just done
            if self.done or self.engine.committed:
                # once more, whatever has been shown already
                self._install(work, number)
            else:
                with self.tracker.lock:
                    self.tracker.pending = None
                    self.tracker.installed.notify_all()
                self.undo()
            raise
        finally:
            if not self.ended:
                self._release()

    def _install(self, work: Commit, commit: int) -> None:
        """Show what was committed to everybody; again, when it was interrupted."""
        # loops are in a function of their own here and elsewhere: an interrupt in a loop of the
        # function that has the `with` may, on some versions of Python, leave the lock taken
        with self.tracker.lock:
            self._show(work, commit)

    def _show(self, work: Commit, commit: int) -> None:
        tracker = self.tracker
        self.done = True
        for node in self.touched:
            if node.tx is self:
                old = node.content
                if isinstance(old, Spread) and old is not node.work:
                    tracker.close_spread(old, work.before, False)
                node.kind.install(node)
                node.tx = None
        # the old contents are to be free before it is asked who else holds what was in them
        old = None
        for node in self.levels[0].births:
            node.tx = None
            if node.kind.guarded:
                node.kind.settle(node)
            record = node.record
            if record is not None and not self.is_current(record.root):
                node.record = None
        for name, root in self.roots.items():
            old_root = work.replaced.setdefault(name, tracker.live.get(name))
            if old_root is not None and old_root is not root:
                tracker.forget_value(old_root, work.before)
            if root is not None and root.nodes:
                tracker.live[name] = root
                tracker.remember(root)
        work.install()
        tracker.seen = commit
        tracker.pending = None
        tracker.installed.notify_all()

    def _forget_numbers(self) -> None:
        """Give back numbers whose taking was not committed: another process may take them now."""
        if self.numbered:
            self.tracker.next_number = self.tracker.end_number = 0

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
                self._put_back()
        self._release()

    def _put_back(self) -> None:
        """Undo everything in memory."""
        self._forget_numbers()
        restore(self)
        for node, content in reversed(self.reshaped):
            kind: Any = node.kind
            node.work = node.content = content
            kind.show(node.face, content)
        while self.levels:
            self._undo(self.levels[-1])
            self.levels.pop()

    def check_usable(self) -> None:
        """As `check_open` and `check_whole`, before each change."""
        if self.ended or self.levels[-1].broken:
            self.check_open()
            self.check_whole()
        if not self.is_here():
            self.check_open()

    def break_off(self) -> None:
        """Undo the innermost block: an interrupt came in the middle of an operation in it."""
        if self.ended:
            return
        if len(self.levels) > 1:
            level = self.levels[-1]
            self.rollback_to(level)
            level.broken = True
        else:
            self.broken = True
            self.undo()

    def check_whole(self) -> None:
        """Raise `ClosedError` when an interrupt has undone what was done in this block so far."""
        if self.broken or (self.levels and self.levels[-1].broken):
            raise ClosedError(
                "an interrupt came in the middle of a change, and what was done in this block is "
                "undone; let it leave the block, and begin a new one"
            )

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
            self._undo_until(savepoint)
            savepoint.broken = False

    def _undo_until(self, savepoint: Savepoint) -> None:
        while self.levels[-1] is not savepoint:
            self._undo(self.levels[-1])
            self.levels.pop()
        self._undo(savepoint)

    def release(self, savepoint: Savepoint) -> None:
        """Let the changes since `savepoint` belong to the level below it."""
        while savepoint in self.levels[1:]:
            below, level = self.levels[-2:]
            below.broken |= level.broken
            below.births |= level.births
            for node, saved in level.saved.items():
                below.saved.setdefault(node, saved)
            for name, root in level.roots.items():
                below.roots.setdefault(name, root)
            for name, cell in level.cells.items():
                below.cells.setdefault(name, cell)
            for cid, (first, last) in level.flushed.items():
                known = below.flushed.get(cid, (first, last))
                below.flushed[cid] = (min(first, known[0]), max(last, known[1]))
            # last: when this is interrupted, both are undone
            self.levels.pop()

    def nested(self) -> Nested:
        """Return a context manager for a savepoint: an exception undoes its block, and goes on."""
        return Nested(self)

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
            record = node.record
            if record is not None:
                if record.owner is not None and record.value is node.face:
                    self.fresh.pop(record.name, None)
                    self.tracker.unload(record)
                record.dismiss(node)
            node.tx = None
        for name, root in level.roots.items():
            if root is _MISSING:
                self.roots.pop(name, None)
            else:
                self.roots[name] = root
        for name, cell in level.cells.items():
            if cell is _MISSING:
                self.cells.pop(name, None)
            else:
                self.cells[name] = cell
        if level.flushed:
            self._take_back(level)
        self.count = level.count
        level.cells.clear()
        level.births.clear()
        level.saved.clear()
        level.roots.clear()
        self.reach = dict.fromkeys(self.reach)

    def _take_back(self, level: Savepoint) -> None:
        """Undo what was flushed in a level."""
        if level is not self.levels[0]:
            try:
                for cid, (first, last) in level.flushed.items():
                    delete_pages(self.engine, cid, first, last)
            except (OSError, RichStoreError):
                # after a failed write the engine takes nothing more, and cannot commit: the disk
                # stays as it is, and what is in memory is put back here
                self.engine.abort()
        for name in [name for name in list(self.tracker.live) if name[:1] == PAGE]:
            cid, pid = int.from_bytes(name[1:9], "big"), int.from_bytes(name[9:], "big")
            first, last = level.flushed.get(cid, (1, 0))
            record = self.tracker.live.get(name) if first <= pid <= last else None
            if record is not None:
                self.tracker.forget(record)
        level.flushed.clear()
        self.flushed = {cid: None for one in self.levels for cid in one.flushed}

    # --- cells of spread containers ---

    def cell(self, name: bytes) -> Any:
        """Return an index or directory as this transaction sees it, or None."""
        found = self.cells.get(name, _MISSING)
        if found is not _MISSING:
            return found
        if self.flushed and int.from_bytes(name[1:9], "big") in self.flushed:
            return read_cell(name, self.engine.get(name))
        return self.tracker.cell(name)

    def set_cell(self, name: bytes, value: Any) -> None:
        """Put a cell, or None to delete it."""
        if name[:1] == CELL:
            self.tracker.drop_mirror_of(name)
        level = self.levels[-1]
        if name not in level.cells:
            level.cells[name] = self.cells.get(name, _MISSING)
        self.cells[name] = value

    def entry(self, name: bytes) -> bytes | None:
        """Return a cell of bytes (which page has a key, a counter) as this transaction sees it."""
        found: bytes | None = self.cells.get(name, _MISSING)
        return self.engine.get(name) if found is _MISSING else found

    def fresh_pages(self, cid: int) -> list[int]:
        """Return the ids of the pages that this transaction has made in a container."""
        prefix = PAGE + cid.to_bytes(8, "big")
        return [int.from_bytes(name[9:], "big") for name in self.fresh if name.startswith(prefix)]

    def forget_flushed(self, cid: int) -> None:
        """Take back a container all of which was flushed in the innermost level."""
        delete_pages(self.engine, cid, 0, _LAST_PAGE)
        self.levels[-1].flushed.pop(cid, None)
        self.flushed.pop(cid, None)

    def flush(self, cid: int, pid: int, stored: Iterable[tuple[bytes, bytes]]) -> None:
        """Put new pages of a spread container, and what leads to them, before the commit.

        Args:
            cid: the spread id.
            pid: the id of the page; 0 when all that there is of the container is new.
            stored: engine keys and values.
        """
        flushed = self.levels[-1].flushed
        first, last = flushed.get(cid, (pid, pid))
        flushed[cid] = (min(first, pid), max(last, pid) if pid else _LAST_PAGE)
        self.flushed[cid] = None
        self.engine.put_many(stored)

    # --- changes ---

    def touch(self, node: Node) -> list[Node] | None:
        """Make a node's working copy ready to be changed.

        Returns:
            The kids it has so far, if they are known.

        Raises:
            DetachedError: the node has left the store.
        """
        self.check(node)
        return self.take(node)

    def check(self, node: Node) -> None:
        """See that a node is current and can be changed.

        Raises:
            DetachedError: the node has left the store.
        """
        if self.committing:
            raise self._committing_error()
        if UPGRADING:
            self.tracker.check_unchanging()
        record = self.tracker.home_of(node)
        if record is None:
            raise detached(node)
        root = record.root
        if (self.roots or self.cells) and not self.is_current(root):
            raise detached(node)
        if self.reach and not self._is_attached(node, set()):
            raise detached(node)

    def _is_attached(self, node: Node, seen: set[Record]) -> bool:
        """Tell whether a value still reaches a node, after this transaction has taken some out.

        Args:
            node: the node.
            seen: records that are known not to be part of a value unless by something else.
        """
        record = node.record
        if record is None:
            return False
        stayed = record not in self.reach or node in self._reachable(record)
        if stayed and record not in seen and self._is_part(record, seen):
            return True
        # it may have been put into another place as well
        return any(
            node in reachable(self, other) and self._is_part(other, seen)
            for other in self._changed_records() - seen - {record}
        )

    def _changed_records(self) -> set[Record]:
        changed = {one.record for one in self.touched if one.record is not None}
        for level in self.levels:
            changed.update(one.record for one in level.births if one.record is not None)
        return changed

    def _is_part(self, record: Record, seen: set[Record]) -> bool:
        """Tell whether a record is part of a value still."""
        seen.add(record)
        owner = record.owner
        if owner is None:
            return record.count is None or self._is_referred_to(record, seen)
        # otherwise the container has become a whole one, or another, and refers to what it holds
        spread = isinstance(owner.work, Spread) and belongs(record, owner.work)
        return spread and self._is_attached(owner, seen)

    def _is_referred_to(self, record: Record, seen: set[Record]) -> bool:
        """Tell whether a part of a value refers to a shared record.

        References of records that are not loaded are taken for good.
        """
        main = record.main
        changed = self._changed_records()
        references = record.count or 0
        for other in {*changed, *self.tracker.live.values()}:
            before = record.name in other.links
            if not before and other not in changed:
                continue
            now = other not in changed or main in reachable(self, other)
            if now and other not in seen and self._is_part(other, seen):
                return True
            references -= before
        return references > 0

    def take(self, node: Node) -> list[Node] | None:
        """Make a working copy of a node if there is none; its kids are no longer known.

        Returns:
            The kids it has so far, if they are known.
        """
        owner = node if node.record is None else node.record.owner or node
        content = owner.content
        if isinstance(content, Spread) and content.mirror is not None:
            content.drop_mirror()
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
            found = self.reach[record] = reachable(self, record)
        return found

    def born(self, record: Record, node: Node) -> None:
        """Give a new node its place in a record."""
        # noted first: an interrupt may come in the middle
        self.levels[-1].births[node] = None
        node.tx = self
        record.admit(node)

    def revive(self, record: Record, node: Node) -> None:
        """Take a node that had left this record back into it."""
        self.born(record, node)
        node.kind.begin(node)
        self.touched[node] = (None, None)
        self.levels[-1].saved[node] = None
        node.fragment = node.kids = None

    def rewrite(self, record: Record) -> None:
        """Let a record be encoded again, with the names and versions that its classes have now."""
        self.rewritten[record] = None
        record.order = record.kept = None
        for node in record.nodes.values():
            node.fragment = node.row = None

    def set_root(self, name: bytes, root: Record | None, existed: bool) -> None:
        """Put a value (or None: nothing) under an engine key."""
        self.check_changing()
        level = self.levels[-1]
        if name not in level.roots:
            level.roots[name] = self.roots.get(name, _MISSING)
        self.roots[name] = root
        change = (root is not None) - existed
        if name[:1] != GROUPED:
            self.count += change
        elif change:
            counter = COUNTER + name[1:9]
            count = int.from_bytes(self.entry(counter) or b"", "little") + change
            self.set_cell(counter, count.to_bytes(8, "little"))

    def leave_space(self, space: Space) -> None:
        """Let all values of a group leave the store; it is to have another space, or none.

        Their records stay on disk until they are reclaimed.
        """
        self.check_changing()
        prefix = space.prefix
        for name in list(self.roots):
            if name.startswith(prefix):
                self.set_root(name, None, False)
        self.set_cell(space.counter, None)
        self.set_cell(RECLAIM + prefix, b"")
        self.tracker.reclaimable = True

    def has_left(self, name: bytes) -> bool:
        """Tell whether the value under an engine key was in a group that was cleared in here."""
        cells = self.cells
        return bool(cells) and name[:1] == GROUPED and cells.get(COUNTER + name[1:9], cells) is None

    def is_current(self, root: Record) -> bool:
        """Tell whether a root record that was in the store is in it still, as far as this goes."""
        return self.roots.get(root.name, root) is root and not self.has_left(root.name)

    def check_changing(self) -> None:
        """Raise an error unless values may be put and taken out now."""
        if self.committing:
            raise self._committing_error()
        self.tracker.check_unchanging()

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

    # --- as the context manager of `run`, and within `Store.transaction()` ---

    def __enter__(self) -> Transaction:
        return self

    @property
    def depth(self) -> int:
        """How many `with` statements are inside it."""
        return 0

    def leave(self, failed: bool) -> None:
        """End the block: commit, or undo what has failed."""
        try:
            if not failed:
                self.check_whole()
            if self.ended:
                return
            if failed:
                self.undo()
            else:
                self.commit()
        finally:
            self.undo_to(0)

    def undo_to(self, depth: int) -> None:
        """Undo what has not been committed, and stop being the current transaction."""
        if not self.left:
            self.undo()
            self.forget()


class Nested(Scope):
    """A block that is undone alone when it fails; see `Transaction.nested()`."""

    __slots__ = ("level", "transaction")

    def __init__(self, transaction: Transaction) -> None:
        self.transaction = transaction
        self.level: Savepoint | None = None

    def __enter__(self) -> Transaction:
        transaction = self.transaction
        transaction.check_open()
        transaction.check_whole()
        # noted first, and then there: an interrupt comes between
        level = self.level = Savepoint(transaction.count)
        transaction.levels.append(level)
        return transaction

    @property
    def depth(self) -> int:
        """How many `with` statements are inside it."""
        return 0

    def leave(self, failed: bool) -> None:
        """End the block."""
        transaction, level = self.transaction, self.level
        if level is not None and not transaction.ended:
            if not failed:
                transaction.check_whole()
            elif level in transaction.levels:
                transaction.rollback_to(level)
            transaction.release(level)
        self.level = None

    def undo_to(self, depth: int) -> None:
        """Undo the block if it has not been left."""
        if self.level is not None:
            self.leave(True)


def detached(node: Node) -> DetachedError:
    """Return the error for a change to a node that has left the store."""
    kind = getattr(node.kind, "builtin", type(node.face)).__name__
    place = f" (it was in the value at {node.home.path})" if node.home is not None else ""
    return DetachedError(
        f"this {kind} is no longer part of the store{place}: it was deleted, overwritten or rolled "
        f"back; it can still be read. Take the current one from the store, or assign this one to a "
        f"place in it"
    )


def join(transaction: Transaction, work: Callable[[Transaction], Any]) -> Any:
    """Run `work`, which does all or nothing when it raises an `Exception`, in a transaction."""
    transaction.check_usable()
    try:
        return work(transaction)
    except Exception:
        raise
    except BaseException:
        transaction.break_off()
        raise
