"""The memory engine: the same interface as a file's, in a dict.

For stores that need not outlive the process, and for tests. Every committed value is kept with the
number of its commit for as long as an open reader needs it, so a snapshot costs the same at any
size. It does not lock writers out: a transaction that began before another one's commit is refused
with `ConflictError`, and so are the next commits on request (`refuse_commits`), which is how the
optimistic path of the layers above is tested.

The rule: `_lock` is held while keys or versions change or are looked at together. What is dropped
by the garbage collector, in whichever thread and inside whichever lock, only leaves a note.
"""

from __future__ import annotations

import bisect
import heapq
import os
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator

from richstore.engines.base import EngineStats
from richstore.errors import ClosedError, ConflictError

__all__ = ["MemoryEngine", "MemoryReadTransaction", "MemoryWriteTransaction"]

_MAX_KEY = 511
# More new keys than this are sorted in at once.
_FEW = 8

Item = tuple[bytes, bytes]


def _check_key(key: bytes) -> None:
    if not 0 < len(key) <= _MAX_KEY:
        raise ValueError("a key of an engine has 1 to 511 bytes")


class MemoryReadTransaction:
    """A frozen view of one committed state; safe to use from many threads.

    Dropping it closes it.
    """

    __slots__ = ("_engine", "_open", "id")

    def __init__(self, engine: MemoryEngine, number: int) -> None:
        self._engine = engine
        self._open = True
        self.id = number

    def get(self, key: bytes) -> bytes | None:
        """Return the value under `key`, or None."""
        self._check_open()
        _check_key(key)
        return self._engine.value_at(key, self.id)

    def scan(self, start: bytes, stop: bytes | None, *, reverse: bool = False) -> Iterator[Item]:
        """Yield the items with `start <= key < stop` in the order of their keys, lazily."""
        low, high = start, stop
        while True:
            self._check_open()
            item = self._engine.next_at(low, high, self.id, reverse)
            if item is None:
                return
            yield item
            if reverse:
                high = item[0]
            else:
                low = item[0] + b"\0"

    def copy(self, fd: int) -> bool:
        """Write nothing: there is no file."""
        return False

    def close(self) -> None:
        """End the view; calling it again does nothing."""
        if self._open:
            self._open = False
            self._engine.dropped.append(self.id)

    __del__ = close

    def _check_open(self) -> None:
        if not self._open:
            raise ClosedError("this transaction has ended; begin a new one")
        self._engine.check_open()


class MemoryWriteTransaction:
    """A write transaction of an engine; for the thread that began it. Dropping it aborts it."""

    __slots__ = ("_engine", "_keys", "_view", "_writes", "id")

    def __init__(self, engine: MemoryEngine, view: MemoryReadTransaction) -> None:
        self._engine = engine
        self._view = view
        self._writes: dict[bytes, bytes | None] = {}
        self._keys: list[bytes] = []
        self.id = view.id + 1

    @property
    def committed(self) -> bool:
        """Whether `commit` was done, for certain, also when an interrupt or an error ended it."""
        return self._engine.was_last(self.id, self._writes)

    def get(self, key: bytes) -> bytes | None:
        """Return the value under `key`, own writes included, or None."""
        if key in self._writes:
            self._view._check_open()
            return self._writes[key]
        return self._view.get(key)

    def scan(self, start: bytes, stop: bytes | None, *, reverse: bool = False) -> Iterator[Item]:
        """As `MemoryReadTransaction.scan`, own writes included, also those made meanwhile."""
        low, high = start, stop
        while True:
            self._view._check_open()
            stored = self._engine.next_at(low, high, self._view.id, reverse)
            own = _next_key(self._keys, low, high, reverse)
            if own is not None and (
                stored is None or (own >= stored[0] if reverse else own <= stored[0])
            ):
                key, value = own, self._writes[own]
            elif stored is not None:
                key, value = stored
            else:
                return
            if value is not None:
                yield key, value
            if reverse:
                high = key
            else:
                low = key + b"\0"

    def put(self, key: bytes, value: bytes) -> None:
        """Store `value` under `key`."""
        _check_key(key)
        self._write(bytes(key), bytes(value))

    def put_many(self, items: Iterable[tuple[bytes, bytes]]) -> None:
        """Store every value under its key."""
        for key, value in items:
            self.put(key, value)

    def delete(self, key: bytes) -> bool:
        """Remove `key`; return whether it was there."""
        if self.get(key) is None:
            return False
        self._write(bytes(key), None)
        return True

    def commit(self) -> None:
        """Make the writes visible at once, and end.

        Raises:
            ConflictError: another transaction was committed since this one began.
        """
        self._view._check_open()
        self._view.close()
        self._engine.install(self._view.id, self._writes)

    def abort(self) -> None:
        """Forget the writes and end; calling it after the end does nothing."""
        self._view.close()

    def _write(self, key: bytes, value: bytes | None) -> None:
        self._view._check_open()
        if key not in self._writes:
            bisect.insort(self._keys, key)
        self._writes[key] = value


def _next_key(keys: list[bytes], low: bytes, high: bytes | None, reverse: bool) -> bytes | None:
    """Return the first (or last) key of a sorted list with `low <= key < high`."""
    if reverse:
        place = (len(keys) if high is None else bisect.bisect_left(keys, high)) - 1
        return keys[place] if place >= 0 and keys[place] >= low else None
    place = bisect.bisect_left(keys, low)
    if place == len(keys) or (high is not None and keys[place] >= high):
        return None
    return keys[place]


class MemoryEngine:
    """An engine that keeps everything in memory; every one is empty at first.

    Safe to use from many threads. `shared` is for the layer above, as with the LMDB engine.

    >>> engine = MemoryEngine()
    >>> transaction = engine.write(None)
    >>> transaction.put(b"key", b"value")
    >>> transaction.commit()
    >>> engine.read().get(b"key")
    b'value'
    """

    path = "memory:"
    readonly = False

    def __init__(self) -> None:
        self.shared: dict[str, object] = {}
        # commit numbers of views that have ended, to be taken out of `_views`
        self.dropped: deque[int] = deque()
        self._lock = threading.Lock()
        self._closed = False
        self._last = 0
        self._last_writes: dict[bytes, bytes | None] | None = None
        self._refusals = 0
        self._keys: list[bytes] = []
        # per key the values by commit, the oldest first; None: deleted in that commit
        self._versions: dict[bytes, tuple[tuple[int, bytes | None], ...]] = {}
        # how many views are open on each commit, in ascending order
        self._views: dict[int, int] = {}
        # when the first of them began, by the monotonic clock
        self._began: dict[int, float] = {}
        self._entries = 0
        # the commits that left an older value behind, and under which key
        self._replaced: deque[tuple[int, bytes]] = deque()

    def last_commit(self) -> int:
        """Return the number of the last commit."""
        if self._closed:
            self.check_open()
        return self._last

    def read(self) -> MemoryReadTransaction:
        """Begin a read transaction on the latest committed state."""
        with self._lock:
            self.check_open()
            number = self._last
            if number not in self._views:
                self._began[number] = time.monotonic()
            self._views[number] = self._views.get(number, 0) + 1
        return MemoryReadTransaction(self, number)

    def write(self, timeout: float | None) -> MemoryWriteTransaction:
        """Begin a write transaction; there is nothing to wait for."""
        return MemoryWriteTransaction(self, self.read())

    def refuse_commits(self, count: int) -> None:
        """Make the next `count` commits raise `ConflictError`, as if somebody had been first."""
        with self._lock:
            self._refusals = count

    def stats(self) -> EngineStats:
        """Return how the engine stands now; there are no pages, and writers count as readers."""
        with self._lock:
            self.check_open()
            self._forget_dropped()
            oldest = next(iter(self._views), None)
            return EngineStats(
                commits=self._last,
                entries=self._entries,
                page_size=None,
                pages=None,
                pages_free=None,
                pages_pinned=None,
                file_size=None,
                map_size=None,
                readers=sum(self._views.values()),
                oldest_reader_commit=oldest,
                oldest_reader_pid=None if oldest is None else os.getpid(),
                oldest_reader_age=(
                    None if oldest is None else time.monotonic() - self._began[oldest]
                ),
            )

    def reopen_after_fork(self) -> None:
        """Go on with the child's own copy, without a commit that was half made at the fork."""
        self._lock = threading.Lock()
        self._forget_half_made()

    def _forget_half_made(self) -> None:
        for key, versions in list(self._versions.items()):
            self._versions[key] = tuple(entry for entry in versions if entry[0] <= self._last)
            if not self._versions[key]:
                del self._versions[key]
        self._keys = sorted(self._versions)
        self._entries = sum(entries[-1][1] is not None for entries in self._versions.values())

    def problems(self) -> list[str]:
        """Return nothing: there is no file."""
        return []

    def close(self, noted: list[bool] | None = None) -> None:
        """Forget everything; open transactions end. Calling it again does nothing."""
        with self._lock:
            self._closed = True
            self.shared.clear()
            self._keys.clear()
            self._versions.clear()
            self._replaced.clear()

    # --- for the transactions ---

    def check_open(self) -> None:
        """Raise `ClosedError` after `close()`."""
        if self._closed:
            raise ClosedError("the store memory: is closed; open a new one")

    def value_at(self, key: bytes, number: int) -> bytes | None:
        """Return the value under `key` after a commit."""
        for commit, value in reversed(self._versions.get(key, ())):
            if commit <= number:
                return value
        return None

    def next_at(self, low: bytes, high: bytes | None, number: int, reverse: bool) -> Item | None:
        """Return the first (or last) item with `low <= key < high` after a commit."""
        with self._lock:
            while True:
                key = _next_key(self._keys, low, high, reverse)
                if key is None:
                    return None
                value = self.value_at(key, number)
                if value is not None:
                    return key, value
                if reverse:
                    high = key
                else:
                    low = key + b"\0"

    def install(self, base: int, writes: dict[bytes, bytes | None]) -> None:
        """Commit writes that were made on the state after commit `base`."""
        with self._lock:
            self.check_open()
            if self._refusals:
                self._refusals -= 1
                raise ConflictError("memory: was told to refuse this commit; run it again")
            if not writes:
                return
            if base != self._last:
                raise ConflictError("memory: another transaction was committed first; run it again")
            try:
                self._put(base + 1, writes)
            except BaseException:
                # an interrupt: nothing of it is to be seen with the next commit
                self._forget_half_made()
                raise
            # what makes it a commit is the last line
            self._last_writes = writes
            self._last = base + 1
            self._prune()

    def was_last(self, number: int, writes: dict[bytes, bytes | None]) -> bool:
        """Tell whether the last commit was that of these writes."""
        with self._lock:
            return number == self._last and writes is self._last_writes

    def _put(self, number: int, writes: dict[bytes, bytes | None]) -> None:
        versions = self._versions
        new = [key for key in writes if key not in versions]
        for key, value in writes.items():
            before = versions.get(key, ())
            there = bool(before) and before[-1][1] is not None
            self._entries += (value is not None) - there
            versions[key] = (*before, (number, value))
            if before or value is None:
                self._replaced.append((number, key))
        if len(new) > _FEW:
            self._keys = list(heapq.merge(self._keys, sorted(new)))
        else:
            for key in new:
                bisect.insort(self._keys, key)

    def _forget_dropped(self) -> None:
        while self.dropped:
            number = self.dropped.popleft()
            self._views[number] -= 1
            if not self._views[number]:
                del self._views[number], self._began[number]

    def _prune(self) -> None:
        """Drop the values that no open view can see."""
        self._forget_dropped()
        oldest = next(iter(self._views), self._last)
        while self._replaced and self._replaced[0][0] <= oldest:
            _, key = self._replaced.popleft()
            versions = self._versions.get(key)
            if versions is None:
                continue
            keep = len(versions) - 1
            while keep and versions[keep][0] > oldest:
                keep -= 1
            versions = versions[keep:]
            if len(versions) == 1 and versions[0][1] is None:
                del self._versions[key]
                del self._keys[bisect.bisect_left(self._keys, key)]
            else:
                self._versions[key] = versions
