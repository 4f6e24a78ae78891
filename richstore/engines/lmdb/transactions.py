"""The transactions of the LMDB engine.

The rule: a transaction that has ended, in whichever way, has `ENDED` in place of LMDB's
transaction, so that no operation needs a check of its own. They know of their engine how to begin
again, to grow the map and to free the writer's lock; nothing of opening and closing.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator
from itertools import islice
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

# A scan takes the lock once for so many items, or for so many bytes of values.
_BATCH = 64
_BATCH_BYTES = 1 << 18


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

    Dropping it closes it.
    """

    __slots__ = ("__weakref__", "_engine", "_handle", "_lock", "id", "txn")

    def __init__(self, engine: LmdbEngine, txn: lmdb.Transaction[bytes]) -> None:
        self._engine = engine
        self.txn = txn
        # LMDB's read transactions may change threads but not be used by two at once
        self._lock = threading.Lock()
        self.id = txn.id()
        self._handle = handle = weakref.ref(self, engine.readers.discard)
        engine.readers.add(handle)

    def get(self, key: bytes) -> bytes | None:
        """Return the value under `key`, or None."""
        try:
            with self._lock:
                return self.txn.get(key)
        except lmdb.Error as error:
            raise self._engine.translate(error) from error

    def scan(
        self, start: bytes, stop: bytes | None, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        """Yield the items with `start <= key < stop` in the order of their keys, lazily."""
        try:
            with self._lock:
                items = _items(self.txn.cursor(), start, stop, reverse)
            size = 1
            while True:
                with self._lock:
                    if self.txn is ENDED:
                        ENDED.cursor()
                    batch = list(islice(items, size))
                for item in batch:
                    key = item[0]
                    if key < start if reverse else stop is not None and key >= stop:
                        return
                    yield item
                if len(batch) < size:
                    return
                if sum(len(value) for _, value in batch) < _BATCH_BYTES:
                    size = min(2 * size, _BATCH)
                else:
                    size = max(1, size // 2)
        except lmdb.Error as error:
            raise self._engine.translate(error) from error

    def close(self) -> None:
        """End the view; calling it again does nothing."""
        with self._lock:
            txn = self.txn
            if txn is ENDED:
                return
            self.txn = ENDED
            txn.abort()
        self._engine.readers.discard(self._handle)

    def abandon(self) -> None:
        """End without telling LMDB, in the child of a fork."""
        self._lock = threading.Lock()
        self.txn = ENDED


def _items(
    cursor: lmdb.Cursor[bytes], start: bytes, stop: bytes | None, reverse: bool
) -> Iterator[tuple[bytes, bytes]]:
    """Place a new cursor at the first item and iterate from there, beyond the other end too."""
    if not reverse:
        found = cursor.set_range(start) if start else cursor.first()
        return cursor.iternext() if found else iter(())
    if stop is None or (stop and not cursor.set_range(stop)):
        found = cursor.last()
    else:
        found = bool(stop) and cursor.prev()
    return cursor.iterprev() if found else iter(())


class LmdbWriteTransaction:
    """The write transaction of an engine; for the thread that began it.

    Dropping it aborts it.
    """

    __slots__ = ("__weakref__", "_engine", "id", "thread", "txn")

    def __init__(self, engine: LmdbEngine, txn: lmdb.Transaction[bytes], thread: int) -> None:
        self._engine = engine
        self.txn = txn
        self.thread = thread
        self.id = txn.id()

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
            if key < start if reverse else stop is not None and key >= stop:
                return
            yield item
            bound = key if reverse else key + b"\0"

    def commit(self) -> None:
        """Make the writes durable as the engine was told to, visible at once, and end."""
        txn = self.txn
        engine = self._engine
        if txn is ENDED or engine.closed:
            self._refuse_commit()
        try:
            self.txn = ENDED
            txn.commit()
        except lmdb.Error as error:
            raise engine.translate(error) from error
        finally:
            engine.release()

    def abort(self) -> None:
        """Forget the writes and end; calling it after the end does nothing."""
        if self.txn is ENDED:
            return
        try:
            self._let_go()
        finally:
            self._engine.release()

    def _let_go(self) -> None:
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

    def __init__(self, engine: LmdbEngine, txn: lmdb.Transaction[bytes], thread: int) -> None:
        super().__init__(engine, txn, thread)
        self._writes: dict[bytes, bytes | None] = {}

    def put(self, key: bytes, value: bytes) -> None:
        """Store `value` under `key`."""
        self._growing(lambda: self.txn.put(key, value))
        self._writes[key] = value

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
            self._growing(lambda: self.txn.commit())
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
            self._let_go()
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
