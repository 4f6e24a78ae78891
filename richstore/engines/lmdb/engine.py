"""The engine of one LMDB file: opened, shared, grown, forked and closed.

Theory of operation
-------------------

*One environment per file and process.* LMDB forbids a second one, so `open_lmdb` returns the same
`LmdbEngine` for the same file, with one more reference; `close()` gives one back and the last one
closes. What is opened with less (`r`, or a weaker `synchronous`) shares what is there.

*The writer's lock.* LMDB's own waits for ever and cannot be interrupted. So a write transaction
first takes `flock` on a descriptor of our own of the data file (see `datafile`), with a timeout,
and only then LMDB's, which is free by then.

*The map.* LMDB maps the file at a size fixed in advance. It is opened with one that the disk cannot
fill. Where the system does not give that much, write transactions remember their writes; when the
map is full, they abort, the map grows, and the writes are repeated. Growing moves the map, so it is
refused while this process has read transactions open. A map that another process has outgrown
is grown here in the same way.

*Ended things.* A transaction that has ended, in whichever way, has `ENDED` in place of LMDB's
transaction, so no operation needs a check of its own. The engine knows its open transactions by
weak references: dropping one ends it.

*Fork.* The child must not touch the parent's environment, not even to free it: LMDB would clear the
parent's entries in the shared table of readers. `abandon` keeps it alive for ever and ends every
transaction without telling LMDB; the next use opens the file again.

The rule: whatever ends a transaction, also an exception or Ctrl-C, frees the writer's lock.
"""

from __future__ import annotations

import errno
import fcntl
import os
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

import lmdb

from richstore.engines.base import EngineStats
from richstore.engines.datafile import (
    disk_size,
    file_key,
    map_sizes,
    open_data_file,
    wait_for_lock,
)
from richstore.engines.lmdb.environment import (
    SYNCHRONOUS,
    abandon,
    extend_to_last_page,
    open_environment,
    translate,
)
from richstore.engines.lmdb.pages import oldest_reader
from richstore.engines.lmdb.scrubbing import overwrite_unused
from richstore.engines.lmdb.stats import collect
from richstore.engines.lmdb.structure import structure_problems
from richstore.engines.lmdb.transactions import (
    ENDED,
    LmdbReadTransaction,
    LmdbWriteTransaction,
    ReplayingWriteTransaction,
)
from richstore.engines.registry import Registry
from richstore.errors import ClosedError, CorruptionError, LockTimeoutError, ReadOnlyError

__all__ = ["LmdbEngine", "registry"]

T = TypeVar("T")

_get_ident = threading.get_ident
_ref = weakref.ref
_flock = fcntl.flock
_LOCK_NOW = fcntl.LOCK_EX | fcntl.LOCK_NB
_UNLOCK = fcntl.LOCK_UN

# One of so many commits, whichever process makes it, looks for readers of processes that have died;
# otherwise the file would grow as if they still read. It takes a microsecond for each process.
_CHECK_READERS = 64
# How many seconds a map that is to grow waits for the readers of this process.
_PATIENCE = 0.5


class LmdbEngine:
    """An open LMDB file, shared by all who have opened it; `open_lmdb` makes it.

    Safe to use from many threads. `readonly` is true as long as nobody has opened the file with
    another flag than `r`: who opened it with `r` keeps to that himself. `shared` is for the layer
    above, which keeps there what is to exist once for a file.
    """

    __slots__ = (
        "_env",
        "_key",
        "_lock",
        "_map_size",
        "_path",
        "_readonly",
        "_references",
        "_synchronous",
        "_transaction",
        "_writable",
        "begin",
        "closed",
        "closing",
        "fd",
        "readers",
        "shared",
        "writer",
    )

    def __init__(
        self,
        path: str,
        fd: int,
        key: tuple[int, int],
        *,
        writable: bool,
        readonly: bool,
        synchronous: str,
        map_size: int | None,
    ) -> None:
        self.shared: dict[str, object] = {}
        self._path = path
        self.fd = fd
        self._key = key
        self._writable = writable
        self._readonly = readonly
        self._synchronous = synchronous
        self._map_size = map_size
        self._references = 1
        self.closed = False
        self.closing = False
        self._lock = threading.RLock()
        self.readers: set[weakref.ref[LmdbReadTransaction]] = set()
        self.writer: weakref.ref[LmdbWriteTransaction] | None = None
        self._env: lmdb.Environment | None = None
        self.begin: Any = self._begin_without_environment
        self._transaction: type[LmdbWriteTransaction] = LmdbWriteTransaction
        sizes = [map_size] if map_size is not None else map_sizes(path)
        try:
            self._open_environment(sizes, check_complete=True)
        except BaseException:
            self._close_environment()
            raise

    def __repr__(self) -> str:
        state = "closed" if self.closed else "open"
        return f"<LmdbEngine {self._path!r} {state}>"

    @property
    def path(self) -> str:
        """The absolute path of the file, symbolic links resolved."""
        return self._path

    @property
    def readonly(self) -> bool:
        """Whether write transactions are refused."""
        return self._readonly

    @property
    def synchronous(self) -> str:
        """What a commit survives: `full`, `normal` or `off`."""
        return self._synchronous

    @property
    def slow_commits(self) -> bool:
        """Whether a commit waits for the disk."""
        return self._synchronous != "off"

    # --- the interface ---

    def last_commit(self) -> int:
        """Return the number of the last commit by any process; well under a microsecond."""
        try:
            return self.begin().id()  # type: ignore[no-any-return]
        except lmdb.Error as error:
            with self._lock:
                if self._env is None:
                    raise self.translate(error) from error
                try:
                    # the map was growing, and has grown by now
                    return self.begin().id()  # type: ignore[no-any-return]
                except lmdb.Error:
                    # no read transaction to be had; the counter is in the file's head as well,
                    # where it is a moment ahead of what new readers see
                    return self._env.info()["last_txnid"]

    def read(self) -> LmdbReadTransaction:
        """Begin a read transaction on the latest committed state."""
        try:
            return LmdbReadTransaction(self)
        except lmdb.Error as error:
            return self._begin_again(error, lambda: LmdbReadTransaction(self))

    def write(self, timeout: float | None) -> LmdbWriteTransaction:
        """Begin the write transaction, waiting for that of another process at most `timeout` s.

        Raises:
            LockTimeoutError: another process did not finish in time.
            ReadOnlyError: the file is open for reading only.
        """
        thread = _get_ident()
        fd = self.fd
        if self.writer is not None or self._readonly or fd < 0:
            timeout = self._prepare_write(thread, timeout)
            fd = self.fd
        transaction = self._transaction(self, thread)
        try:
            try:
                _flock(fd, _LOCK_NOW)
            except BlockingIOError:
                wait_for_lock(fd, self._path, timeout)
            # only ours has a reference to LMDB's, so that it can be ended whatever frames are kept
            try:
                transaction.txn = self.begin(None, None, True)
            except lmdb.Error as error:
                transaction.txn = self._begin_again(error, lambda: self.begin(None, None, True))
            transaction.id = transaction.txn.id()
            self.writer = _ref(transaction)
            transaction.locked = True
            if transaction.id % _CHECK_READERS == 0:
                self._forget_dead_readers()
            return transaction
        except BaseException:
            # also when Ctrl-C arrives just after the lock was taken
            if transaction.txn is not ENDED:
                transaction.let_go()
            if fd == self.fd >= 0:
                try:
                    _flock(fd, _UNLOCK)
                except BaseException:
                    # Ctrl-C in an audit hook, which runs before the call does anything
                    _flock(fd, _UNLOCK)
                    raise
            raise

    def stats(self) -> EngineStats:
        """Return how the engine stands now, in time that grows with the free pages alone.

        Readers of processes that died are removed first. `pages_free` and `pages_pinned` are None
        when there is no room for one more reader, or on a machine of 32 bits.
        """
        with self._lock:
            self._check_open()
            self.reopen_after_fork()
            assert self._env is not None
            try:
                return collect(self._env, self.fd, self.read, list(self.readers))
            except lmdb.Error as error:
                raise self.translate(error) from error

    def problems(self) -> list[str]:
        """Return what is wrong with the file's own pages, a sentence for each; others may write.

        This thread must not have a write transaction.
        """
        self._check_open()
        return structure_problems(self._path)

    def copy(self, fd: int, txn: Any) -> None:
        """Write a copy of what a read transaction sees to a descriptor, without free pages.

        Nobody can close the file meanwhile; others can write.
        """
        with self._lock:
            self._check_open()
            assert self._env is not None
            try:
                self._env.copyfd(fd, compact=True, txn=txn)
            except lmdb.Error as error:
                raise self.translate(error) from error

    def write_anew(self, timeout: float | None) -> None:
        """Write everything to a new tree, in one commit; others wait for it if they write.

        The inner pages of a tree have copies of keys, which stay when the keys themselves go.
        """
        while True:
            transaction = self.write(timeout)
            view: LmdbReadTransaction | None = None
            try:
                assert self._env is not None
                main = self._env.open_db(None, transaction.txn)
                if transaction.txn.stat(main)["depth"] < 2:
                    # one page, which is no inner one
                    return
                view = self.read()
                transaction.txn.drop(main, delete=False)
                with view.txn.cursor() as old, transaction.txn.cursor() as new:
                    new.putmulti(old.iternext(), append=True)
                transaction.txn.commit()
                return
            except lmdb.MapFullError:
                transaction.abort()
                # the map does not grow below a reader
                if view is not None:
                    view.close()
                self.grow()
            except lmdb.Error as error:
                raise self.translate(error) from error
            finally:
                if view is not None:
                    view.close()
                transaction.abort()

    def overwrite_unused(self, timeout: float | None) -> None:
        """Overwrite what is in the file and belongs to no state: free pages, and gaps in others.

        Raises:
            OSError: with EBUSY: readers, of this process or another, still need free pages.
        """
        timeout = self._prepare_write(_get_ident(), timeout)
        # what it commits to is not to be needed by the state before that
        for _ in range(2):
            self._empty_commit(timeout)
        wait_for_lock(self.fd, self._path, timeout)
        try:
            with self._lock:
                self._open_without_readers()
                overwrite_unused(self.fd)
        finally:
            _flock(self.fd, _UNLOCK)

    def reopen_after_fork(self) -> None:
        """Open the file again in the child of a fork; does nothing if that has been done."""
        with self._lock:
            self._check_open()
            if self._env is not None:
                return
            if self.fd < 0:
                fd, self._writable = open_data_file(self._path, "r" if self._readonly else "w")
                if file_key(fd) != self._key:
                    os.close(fd)
                    raise OSError(
                        errno.ESTALE,
                        "the file was replaced since this process forked; open it anew",
                        self._path,
                    )
                self.fd = fd
            size = self._map_size
            self._open_environment([size] if size is not None else map_sizes(self._path))

    def close(self, noted: list[bool] | None = None) -> None:
        """Give back one reference; the last one ends all transactions and closes the file.

        A write transaction that another thread has open can be ended by that thread only: its
        commit will raise `ClosedError`, and the file stays open until then. Calling it again does
        nothing.

        Args:
            noted: see `Engine.close`.
        """
        with registry.lock, self._lock:
            if not noted:
                if self.closed:
                    return
                self._references -= 1
                if noted is not None:
                    noted.append(True)
            if self._references:
                return
            self.closed = True
            self.begin = self._begin_without_environment
            self.shared.clear()
            self._close_readers()
            writer = self.writer and self.writer()
            if not writer or writer.txn is ENDED:
                self._finish_close()
            elif writer.thread == threading.get_ident():
                writer.abort()
                self._finish_close()
            else:
                # only the thread that began it may end it
                self.closing = True

    # --- sharing ---

    def share(self, flag: str, synchronous: str) -> None:
        """Count one more who has opened this file; `registry.lock` is held.

        Raises:
            ValueError: it is open with a weaker `synchronous`.
            PermissionError: it is open for reading only, since it could not be written then.
        """
        if flag != "r":
            if not self._writable:
                raise PermissionError(
                    errno.EACCES,
                    "the file could not be written when this process first opened it, and is "
                    "open for reading; close that store first",
                    self._path,
                )
            if SYNCHRONOUS.index(synchronous) < SYNCHRONOUS.index(self._synchronous):
                raise ValueError(
                    f"{self._path} is open in this process with synchronous="
                    f"{self._synchronous!r}, which keeps less than {synchronous!r}; open both "
                    f"with the same, or close the other first"
                )
            self._readonly = False
        self._references += 1

    def clear(self, timeout: float | None) -> None:
        """Remove everything in one commit."""
        while True:
            transaction = self.write(timeout)
            try:
                assert self._env is not None
                main = self._env.open_db(None, transaction.txn)
                transaction.txn.drop(main, delete=False)
                transaction.txn.commit()
                return
            except lmdb.MapFullError:
                transaction.abort()
                self.grow()
            except lmdb.Error as error:
                raise self.translate(error) from error
            finally:
                transaction.abort()

    # --- the environment ---

    def _open_environment(self, sizes: list[int], *, check_complete: bool = False) -> None:
        """Open the environment with the first size of map that the system gives."""
        env = open_environment(
            self._path,
            self.fd,
            sizes,
            writable=self._writable,
            synchronous=self._synchronous,
            check_complete=check_complete,
        )
        self._env = env
        self.begin = env.begin
        disk_full_first = disk_size(self._path) < env.info()["map_size"] // 2
        self._transaction = LmdbWriteTransaction if disk_full_first else ReplayingWriteTransaction

    def _begin_without_environment(self, *arguments: Any) -> lmdb.Transaction[bytes]:
        """Stand in for `Environment.begin` when closed, and in the child of a fork."""
        self.reopen_after_fork()
        return self.begin(*arguments)  # type: ignore[no-any-return]

    def _begin_while_growing(self, *arguments: Any) -> NoReturn:
        """Stand in for `Environment.begin` while the map grows."""
        raise lmdb.InvalidParameterError("the map is growing")

    def _begin_again(self, error: lmdb.Error, begin: Callable[[], T]) -> T:
        """Begin after removing what was in the way."""
        with self._lock:
            try:
                if isinstance(error, lmdb.ReadersFullError):
                    assert self._env is not None
                    self._env.reader_check()
                elif isinstance(error, lmdb.MapResizedError):
                    self.grow()
                elif isinstance(error, lmdb.PanicError):
                    try:
                        return begin()  # another thread has been here
                    except lmdb.PanicError:
                        self._begin_anew()
                elif not isinstance(error, lmdb.InvalidParameterError):
                    # (that one: another thread was growing the map, and has done so by now)
                    raise error
                return begin()
            except lmdb.Error as again:
                raise self.translate(again) from again

    def _empty_commit(self, timeout: float | None) -> None:
        """Commit a change that is none."""
        transaction = self.write(timeout)
        try:
            name, value = next(transaction.scan(b"", None))
            transaction.put(name, value)
            transaction.commit()
        finally:
            transaction.abort()

    def _open_without_readers(self) -> None:
        """Open the environment again, which frees its memory, at a moment without readers."""
        env = self._env
        assert env is not None
        self.begin = self._begin_while_growing
        try:
            deadline = time.monotonic() + _PATIENCE
            env.reader_check()
            while self._needs_old_pages(env) and time.monotonic() < deadline:
                time.sleep(0.0005)
            if self._needs_old_pages(env):
                raise OSError(
                    errno.EBUSY,
                    "snapshots or loops, of this process or another, still read old pages",
                    self._path,
                )
            size = env.info()["map_size"]
            env.close()
            self._env = None
            self.begin = self._begin_without_environment
            self._open_environment([size])
        finally:
            if self._env is env:
                self.begin = env.begin

    def _needs_old_pages(self, env: lmdb.Environment) -> bool:
        """Tell whether a reader is on a state before the last two, or is of this process."""
        oldest = oldest_reader(env.readers()).commit
        return bool(self.readers) or (oldest is not None and oldest < env.info()["last_txnid"] - 1)

    def _begin_anew(self) -> None:
        """Open the environment again: LMDB refuses to go on with one whose head was not written.

        Read transactions of this process end; what they read may no longer be what is there.
        """
        env = self._env
        assert env is not None
        self.begin = self._begin_without_environment
        self._close_readers()
        size = env.info()["map_size"]
        env.close()
        self._env = None
        self._open_environment([size])

    def grow(self) -> None:
        """Make the map twice as large, and at least twice as large as the file.

        Raises:
            OSError: this process has read transactions open, or the system gives no more.
        """
        with self._lock:
            self._check_open()
            env = self._env
            assert env is not None
            # A reader is announced before it begins. So either it is seen here, or it began so
            # late that it finds this, gives up, and waits for the lock.
            self.begin = self._begin_while_growing
            try:
                self._grow(env)
            finally:
                if self._env is env:
                    self.begin = env.begin

    def _grow(self, env: lmdb.Environment) -> None:
        deadline = time.monotonic() + _PATIENCE
        while self.readers and time.monotonic() < deadline:
            time.sleep(0.0005)
        if self.readers:
            raise OSError(
                errno.ENOSPC,
                f"the memory map of the file is full, and cannot grow while this process has "
                f"{len(self.readers)} snapshots or iterators open; close them and try again",
                self._path,
            )
        info = env.info()
        pages = (info["last_pgno"] + 1) * env.stat()["psize"]
        size = 2 * max(info["map_size"], pages)
        try:
            env.set_mapsize(size)
        except lmdb.Error as error:
            # LMDB has lost its map then, so the environment is of no use any more
            env.close()
            self._env = None
            self.begin = self._begin_without_environment
            self._open_environment([info["map_size"]])
            raise OSError(
                errno.ENOMEM,
                f"the memory map of the file is full, and the system does not give it {size} "
                f"bytes of address space; raise that limit (ulimit -v)",
                self._path,
            ) from error
        if self._map_size is not None:
            self._map_size = size

    def _forget_dead_readers(self) -> None:
        try:
            assert self._env is not None
            self._env.reader_check()
        except lmdb.Error as error:
            raise self.translate(error) from error

    def _prepare_write(self, thread: int, timeout: float | None) -> float | None:
        """Do what stands before a write transaction, seldom; return what is left of the time."""
        self._check_open()
        if self._readonly:
            raise ReadOnlyError(f"{self._path} is open for reading only; open it with flag 'w'")
        if self.fd < 0:
            self.reopen_after_fork()
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            writer = self.writer and self.writer()
            if not writer or writer.txn is ENDED:
                return None if deadline is None else max(0.0, deadline - time.monotonic())
            if writer.thread == thread:
                raise RuntimeError(f"this thread has a write transaction on {self._path} open")
            if deadline is not None and time.monotonic() >= deadline:
                raise LockTimeoutError(
                    f"another thread was writing to {self._path} for more than {timeout:g} s"
                )
            time.sleep(0.0005)

    def _check_open(self) -> None:
        if self.closed:
            raise ClosedError(f"the store {self._path} is closed; open it again")

    def release(self) -> None:
        """Free the writer's lock, at the end of the write transaction."""
        self.writer = None
        if self.fd >= 0:
            try:
                _flock(self.fd, _UNLOCK)
            except BaseException:
                # Ctrl-C in an audit hook, which runs before the call does anything
                _flock(self.fd, _UNLOCK)
                raise
        if self.closing:
            self._finish_close()

    def translate(self, error: lmdb.Error) -> Exception:
        """Return the error that the user is to see in place of LMDB's."""
        return translate(error, self._path, closed=self.closed)

    def out_of_order(self, key: bytes) -> CorruptionError:
        """Return the error of a key that LMDB has found in the wrong place."""
        return CorruptionError(
            f"{self._path} is damaged (the key {key!r} is not in order); restore it from a copy"
        )

    def _finish_close(self) -> None:
        with registry.lock, self._lock:
            # each is noted as done just before it is done: no interrupt comes between
            self.begin = self._begin_without_environment
            if self._env is not None and self._writable:
                extend_to_last_page(self._env, self.fd)
            self._close_environment()
            if self.fd >= 0:
                fd, self.fd = self.fd, -1
                os.close(fd)
            registry.remove(self._key, self)
            self.closing = False

    def _close_readers(self) -> None:
        for handle in list(self.readers):
            reader = handle()
            if reader is not None:
                reader.close()

    def _close_environment(self) -> None:
        env, self._env = self._env, None
        if env is not None:
            env.close()

    def abandon(self) -> None:
        """Let go of what belongs to the parent, without touching it; in the child of a fork."""
        self._lock = threading.RLock()
        for handle in list(self.readers):
            reader = handle()
            if reader is not None:
                reader.abandon()
        self.readers = set()
        writer = self.writer and self.writer()
        if writer:
            writer.abandon()
        self.writer = None
        if self._env is not None:
            abandon(self._env)
        self._env = None
        self.begin = self._begin_without_environment
        if self.closing:
            # the thread that was to end it does not exist here
            self._finish_close()
        if self.fd >= 0:
            # closing does not free the parent's lock; unlocking would
            os.close(self.fd)
            self.fd = -1


registry: Registry[LmdbEngine] = Registry()
