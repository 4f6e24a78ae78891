"""The transactions of the LMDB engine.

The rule: a transaction that has ended, in whichever way, has `ENDED` in place of LMDB's
transaction, so that no operation needs a check of its own. They know of their engine how to begin
again, to grow the map and to free the writer's lock; nothing of opening and closing.
"""

from __future__ import annotations

import fcntl
import weakref
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from operator import itemgetter, methodcaller
from time import monotonic as _now
from typing import TYPE_CHECKING, Any, NoReturn

import lmdb

from richstore.errors import ClosedError, ConflictError

if TYPE_CHECKING:
    from richstore.engines.lmdb.engine import LmdbEngine

__all__ = [
    "ENDED",
    "LmdbReadTransaction",
    "LmdbWriteTransaction",
    "ReplayingWriteTransaction",
]

# A scan fetches so many items at once at most, or about so many bytes of values.
_BATCH = 64
_BATCH_BYTES = 1 << 18
# How many items LMDB is handed at once.
_PUTS = 128

_flock = fcntl.flock
_UNLOCK = fcntl.LOCK_UN
_ref = weakref.ref
_value = itemgetter(1)
_commit = methodcaller("commit")


class _Ended:
    """Stands where LMDB's transaction was."""

    def get(self, key: bytes) -> NoReturn:
        raise ClosedError("this transaction has ended; begin a new one")

    def put(self, key: bytes, value: bytes) -> NoReturn:
        self.get(key)

    def delete(self, key: bytes) -> NoReturn:
        self.get(key)

    def cursor(self) -> NoReturn:
        self.get(b"")


ENDED: Any = _Ended()


class LmdbReadTransaction:
    """A frozen view of one committed state; safe to use from many threads.

    Dropping it closes it. There is no lock: a read transaction of LMDB that has no cursors but
    those of the running call may be used by many threads at once, and ends when the last
    reference to it goes, so a call of another thread that is still running keeps it alive.
    """

    __slots__ = ("__weakref__", "_engine", "_handle", "began", "id", "txn")

    txn: lmdb.Transaction[bytes]
    id: int

    def __init__(self, engine: LmdbEngine) -> None:
        self._engine = engine
        self.txn = ENDED
        # for the statistics: seconds by the monotonic clock
        self.began = _now()
        # announced first, so that `LmdbEngine.grow` sees it or it sees that the map grows
        self._handle = handle = _ref(self, engine.readers.discard)
        engine.readers.add(handle)
        try:
            txn = engine.begin()
            self.id = txn.id()
            self.txn = txn
        except BaseException:
            # the traceback has this frame, and would keep it open
            txn = None
            self.close()
            raise

    def get(self, key: bytes) -> bytes | None:
        """Return the value under `key`, or None."""
        try:
            return self.txn.get(key)
        except lmdb.Error as error:
            raise self._engine.translate(error) from error

    def copy(self, fd: int) -> bool:
        """Write a file with the state of this view, without free pages, to a descriptor."""
        self._engine.copy(fd, self.txn)
        return True

    def scan(
        self, start: bytes, stop: bytes | None, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        """Yield the items with `start <= key < stop` in the order of their keys, lazily."""
        return chain.from_iterable(self._batches(start, stop, reverse))

    def _batches(
        self, start: bytes, stop: bytes | None, reverse: bool
    ) -> Iterator[list[tuple[bytes, bytes]]]:
        """Yield the items of a range in pieces: one item first, more when more are asked for."""
        size = 1
        while True:
            try:
                batch = _items(self.txn, start, stop, reverse, size)
            except lmdb.Error as error:
                raise self._engine.translate(error) from error
            if not batch:
                return
            last = batch[-1][0]
            if (stop is not None and last >= stop) if reverse else last < start:
                # going on from there would never end
                raise self._engine.out_of_order(last)
            if reverse and last < start:
                yield [item for item in batch if item[0] >= start]
                return
            if not reverse and stop is not None and last >= stop:
                yield [item for item in batch if item[0] < stop]
                return
            yield batch
            if len(batch) < size:
                return
            if reverse:
                stop = last
            else:
                start = last + b"\0"
            fits = _BATCH_BYTES * size // (sum(map(len, map(_value, batch))) + 1)
            size = max(1, min(4 * size, _BATCH, fits))

    def close(self) -> None:
        """End the view; calling it again does nothing."""
        self.txn = ENDED
        self._engine.readers.discard(self._handle)

    def abandon(self) -> None:
        """End without telling LMDB, in the child of a fork, where freeing does not touch it."""
        self.txn = ENDED


def _items(
    txn: lmdb.Transaction[bytes], start: bytes, stop: bytes | None, reverse: bool, size: int
) -> list[tuple[bytes, bytes]]:
    """Return the first (or last) items of a range, and what follows beyond its other end."""
    cursor = txn.cursor()
    if not reverse:
        return list(islice(cursor.iternext(), size)) if cursor.set_range(start) else []
    if stop is None or (stop and not cursor.set_range(stop)):
        found = cursor.last()
    else:
        found = bool(stop) and cursor.prev()
    return list(islice(cursor.iterprev(), size)) if found else []


class LmdbWriteTransaction:
    """The write transaction of an engine; for the thread that began it.

    Dropping it aborts it.
    """

    __slots__ = ("__weakref__", "_done", "_engine", "id", "locked", "thread", "txn")

    txn: lmdb.Transaction[bytes]
    id: int

    def __init__(self, engine: LmdbEngine, thread: int) -> None:
        self._engine = engine
        self.thread = thread
        # the engine begins it
        self.txn = ENDED
        # whether it may have the writer's lock still, when it has been interrupted
        self.locked = False
        # has an item when it is committed
        self._done: list[object] = []

    @property
    def committed(self) -> bool:
        """Whether `commit` was done, for certain, also when an interrupt or an error ended it."""
        return bool(self._done)

    def get(self, key: bytes) -> bytes | None:
        """Return the value under `key`, own writes included, or None."""
        try:
            return self.txn.get(key)
        except lmdb.Error as error:
            raise self._engine.translate(error) from error

    def put(self, key: bytes, value: bytes) -> None:
        """Store `value` under `key`."""
        try:
            self.txn.put(key, value)
        except lmdb.Error as error:
            raise self._engine.translate(error) from error

    def put_many(self, items: Iterable[tuple[bytes, bytes]]) -> None:
        """Store every value under its key, taking a few items at a time from the iterable."""
        # No cursor is open while the iterable runs, which may use or end this transaction.
        left = iter(items)
        try:
            while batch := list(islice(left, _PUTS)):
                with self.txn.cursor() as cursor:
                    cursor.putmulti(batch)
        except lmdb.Error as error:
            raise self._engine.translate(error) from error

    def delete(self, key: bytes) -> bool:
        """Remove `key`; return whether it was there."""
        try:
            return self.txn.delete(key)
        except lmdb.Error as error:
            raise self._engine.translate(error) from error

    def scan(
        self, start: bytes, stop: bytes | None, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        """As `LmdbReadTransaction.scan`, own writes included, also those made meanwhile."""
        # No cursor outlives a step: LMDB moves open cursors when their page is written to, and
        # one that a later garbage collection closes would do so in whichever thread that runs.
        seek = _item_before if reverse else _item_from
        bound = stop if reverse else start
        while True:
            try:
                with self.txn.cursor() as cursor:
                    item = seek(cursor, bound)
            except lmdb.Error as error:
                raise self._engine.translate(error) from error
            if item is None:
                return
            key = item[0]
            if bound is not None and (key >= bound if reverse else key < bound):
                raise self._engine.out_of_order(key)
            if key < start if reverse else stop is not None and key >= stop:
                return
            yield item
            bound = key if reverse else key + b"\0"

    def commit(self) -> None:
        """Make the writes durable as the engine was told to, visible at once, and end."""
        engine = self._engine
        if self.txn is ENDED or engine.closed:
            self._refuse_commit()
        try:
            self._commit()
        except lmdb.Error as error:
            raise engine.translate(error) from error
        finally:
            if self._done:
                self.txn = ENDED
            else:
                self.let_go()
            # as `LmdbEngine.release`, without the call
            engine.writer = None
            fd = engine.fd
            if fd >= 0:
                try:
                    _flock(fd, _UNLOCK)
                except BaseException:
                    # Ctrl-C in an audit hook, which runs before the call does anything
                    _flock(fd, _UNLOCK)
                    raise
            if engine.closing:
                engine.release()
            self.locked = False

    def _commit(self) -> None:
        try:
            # committed and noted in one call of C: an interrupt comes between calls
            self._done.extend(map(_commit, (self.txn,)))
        except lmdb.Error:
            # nobody else can have committed meanwhile: the lock is ours
            if self._engine.last_commit() >= self.id:
                self._done.append(None)
            raise

    def abort(self) -> None:
        """Forget the writes and end; calling it after the end does nothing."""
        if self.txn is ENDED and not self.locked:
            return
        try:
            if self.txn is not ENDED:
                self.let_go()
        finally:
            self._engine.release()
            self.locked = False

    def let_go(self) -> None:
        """Abort LMDB's transaction by freeing it.

        `abort` of lmdb waits for a moment when no other thread is reading, which with busy threads
        takes seconds or for ever (it guards nested transactions, which we do not have).
        """
        handle = weakref.ref(self.txn)
        self.txn = ENDED
        kept = handle()
        if kept is not None:
            # something that is not ours has a reference, a debugger for instance
            kept.abort()

    def __del__(self) -> None:
        if self.txn is not ENDED:
            self.abort()

    def _refuse_commit(self) -> NoReturn:
        if self.txn is ENDED:
            ENDED.cursor()
        self.abort()
        raise ClosedError(f"the store {self._engine.path} was closed inside this transaction")

    def abandon(self) -> None:
        """End without telling LMDB, in the child of a fork."""
        self.txn = ENDED
        self.locked = False


def _item_from(cursor: lmdb.Cursor[bytes], bound: bytes | None) -> tuple[bytes, bytes] | None:
    found = cursor.set_range(bound) if bound else cursor.first()
    return cursor.item() if found else None


def _item_before(cursor: lmdb.Cursor[bytes], bound: bytes | None) -> tuple[bytes, bytes] | None:
    if bound is None or (bound and not cursor.set_range(bound)):
        found = cursor.last()
    else:
        found = bool(bound) and cursor.prev()
    return cursor.item() if found else None


class ReplayingWriteTransaction(LmdbWriteTransaction):
    """A write transaction on a map that may become full: it can repeat its writes on a larger one.

    The state that its reads came from cannot change meanwhile, since the writer's lock is kept.
    """

    __slots__ = ("_writes",)

    def __init__(self, engine: LmdbEngine, thread: int) -> None:
        super().__init__(engine, thread)
        self._writes: dict[bytes, bytes | None] = {}

    def put(self, key: bytes, value: bytes) -> None:
        """Store `value` under `key`."""
        self._growing(lambda: self.txn.put(key, value))
        self._writes[key] = value

    def put_many(self, items: Iterable[tuple[bytes, bytes]]) -> None:
        """Store every value under its key."""
        for key, value in items:
            self.put(key, value)

    def delete(self, key: bytes) -> bool:
        """Remove `key`; return whether it was there."""
        found: bool = self._growing(lambda: self.txn.delete(key))
        self._writes[key] = None
        return found

    def commit(self) -> None:
        """Make the writes durable as the engine was told to, visible at once, and end."""
        if self.txn is ENDED or self._engine.closed:
            self._refuse_commit()
        try:
            self._growing(self._commit)
        except BaseException:
            self.abort()
            raise
        # LMDB's transaction has ended, and ending it again does nothing: only the lock is freed
        self.abort()

    def _growing(self, operation: Callable[[], Any]) -> Any:
        """Do it, on a larger map when the map is full; when that fails, everything is undone."""
        full = False
        while True:
            try:
                if full:
                    self._repeat_on_larger_map()
                return operation()
            except lmdb.MapFullError:
                full = True
            except lmdb.Error as error:
                raise self._engine.translate(error) from error

    def _repeat_on_larger_map(self) -> None:
        engine = self._engine
        try:
            self.let_go()
            engine.grow()
            self.txn = engine.begin(None, None, True)
            if self.txn.id() != self.id:
                raise ConflictError(
                    f"a program that is not richstore has written to {engine.path} while its map "
                    f"was growing; run the transaction again"
                )
        except BaseException:
            if self.txn is ENDED:
                engine.release()
            else:
                self.abort()
            raise
        for key, value in self._writes.items():
            if value is None:
                self.txn.delete(key)
            else:
                self.txn.put(key, value)
