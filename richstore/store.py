"""The store: a mapping whose values persist themselves, and what can be done with its file.

A `Store` is a handle. All handles on one file in a process share one tracker, and so the live
values.
"""

from __future__ import annotations

import atexit
import os
import threading
import warnings
import weakref
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Any

from richstore.block import Block
from richstore.codec.policy import ClassPolicy
from richstore.copying import copy_file
from richstore.encryption import audit, rekey
from richstore.errors import ClosedError, ReadOnlyError
from richstore.group_commit import run
from richstore.groups import HasGroups
from richstore.mapping import Range, user_key
from richstore.migrating import migrate
from richstore.nodes.spread.progress import Progress
from richstore.passphrase import KeySource
from richstore.reclaiming import compact
from richstore.snapshot import Snapshot
from richstore.spaces import ROOT
from richstore.statistics import Stats, stats
from richstore.tracker import Tracker
from richstore.transaction import Transaction, current
from richstore.verification import Report, verify

__all__ = ["Store", "handles_lock"]

_MISSING: Any = object()
# Held while handles are opened and closed.
handles_lock = threading.RLock()
# by id: a mapping compares by content and so has no hash
_open_stores: weakref.WeakValueDictionary[int, Store] = weakref.WeakValueDictionary()


class Store(HasGroups[Any, Any]):
    """A dict on disk whose values persist themselves when they change.

    Made by `richstore.open()`. Every method of `dict` is there, with dict's results and errors.
    Iteration is in the order of the keys. Safe to use from many threads and asyncio tasks, and the
    file from many processes.

    Example:
        >>> import richstore
        >>> with richstore.open("memory:") as store:
        ...     store["config"] = {"theme": {"dark": True}}
        ...     theme = store["config"]["theme"]
        ...     theme["accent"] = "teal"
        ...     store["config"]
        {'theme': {'dark': True, 'accent': 'teal'}}
    """

    def __init__(self, tracker: Tracker, timeout: float | None, *, readonly: bool) -> None:
        self._tracker = tracker
        self._timeout = timeout
        self._readonly = readonly
        self._reveal = False
        # until `open` has counted it
        self._closed = True
        # has an item when its opening of the engine is no longer counted
        self._given_back: list[bool] = []
        self._snapshots: weakref.WeakValueDictionary[int, Snapshot] = weakref.WeakValueDictionary()
        _open_stores[id(self)] = self

    # --- as a collection ---

    @property
    def _store(self) -> Store:  # type: ignore[override]
        return self

    @property
    def _space(self) -> bytes:
        return ROOT

    def _space_in(self, view: Any, transaction: Transaction | None) -> bytes:
        return ROOT

    def __len__(self) -> int:
        if self._closed:
            raise self._closed_error()
        tracker = self._tracker
        with tracker.lock, tracker.view() as view:
            count = tracker.count(view.get)
        transaction = current(tracker)
        return count if transaction is None else count + transaction.count

    def clear(self) -> None:
        """Remove all items, in one transaction; groups stay."""

        def work(transaction: Transaction) -> None:
            for name in [name for _, name, _ in self._scan(Range())]:
                transaction.set_root(name, None, True)

        self._run(work)

    def _run(self, work: Any, is_plain: Callable[[], bool] | None = None) -> Any:
        self._check_writable()
        return run(self._tracker, self._timeout, work, is_plain)

    def _check_writable(self) -> None:
        if self._closed:
            raise self._closed_error()
        if self._readonly:
            raise self._readonly_error()

    # --- transactions and snapshots ---

    def transaction(
        self,
        *,
        timeout: float | None = _MISSING,
        progress: Callable[[int, int], Any] | None = None,
    ) -> Block:
        """Return a context manager: what changes inside is committed together, or not at all.

        On any exception everything in memory and on disk is as before, and the exception goes on.
        Inside another transaction of the same thread and task it is a savepoint.

        Args:
            timeout: seconds to wait for the writer before; by default those of the store.
            progress: called as `progress(items, bytes)` now and then, by the thread of the block,
                while large values are built in it, with what has been built so far. An exception
                in it undoes the block.

        Raises:
            LockTimeoutError: another writer did not end in time.
            ReadOnlyError: the store is open for reading only.

        Example:
            >>> import richstore
            >>> with richstore.open("memory:") as store:
            ...     store["shops"] = ["shop1"]
            ...     try:
            ...         with store.transaction():
            ...             store["shops"].append("shop2")
            ...             raise ValueError("changed my mind")
            ...     except ValueError:
            ...         store["shops"]
            ['shop1']
        """
        told = None if progress is None else Progress(progress)
        return Block(self, self._timeout if timeout is _MISSING else timeout, told)

    def snapshot(self, *, max_age: float | None = None) -> Snapshot:
        """Return a read-only view of the last committed state; close it, or use it in `with`.

        Args:
            max_age: seconds after which it is ended if it is still open, so that it does not keep
                the space of what is deleted; using it then raises `ClosedError`. None: never.

        Raises:
            ValueError: `max_age` is not a positive number.
        """
        if self._closed:
            raise self._closed_error()
        if max_age is not None and not 0 < max_age <= threading.TIMEOUT_MAX:
            raise ValueError(f"max_age must be a positive number of seconds, not {max_age!r}")
        engine = self._tracker.engine
        snapshot = Snapshot(
            engine.path, engine.read(), self._tracker.classes, max_age, reveal=self._reveal
        )
        self._snapshots[id(snapshot)] = snapshot
        # afterwards, so that what is held is not older than what the snapshot shows
        self._tracker.refresh()
        return snapshot

    def refresh(self) -> None:
        """Take notice of what other processes have committed, as every access to the store does."""
        if self._closed:
            raise self._closed_error()
        self._tracker.refresh()

    # --- upkeep ---

    def verify(self, *, progress: Callable[[int, int], None] | None = None) -> Report:
        """Walk every record of the last committed state and report what does not fit together.

        First it checks the structure of the file, from its bytes; if that is damaged, the records
        are not read, since that might bring the process down (`python -m richstore check` reads
        them in a process of its own). Then it checks envelopes and checksums, counts, and
        references both ways. The classes that records name are imported, as reading does it, for
        `report.missing` to tell which cannot be found. Others may go on writing meanwhile. It takes
        time and memory in proportion to the number of records.

        Args:
            progress: a function that is told the records and bytes so far, now and then and at the
                end; an exception in it ends the walk.

        Returns:
            The report; `report.ok` tells whether all is well.

        Raises:
            RuntimeError: the caller is inside a transaction.
        """
        self._outside("verify")
        engine = self._tracker.engine
        if progress is not None:
            progress(0, 0)
        broken = engine.problems()
        if broken:
            return Report([f"the structure of the file is damaged: {one}" for one in broken])
        return self._verify_records(progress)

    def _verify_records(
        self, progress: Callable[[int, int], None] | None, keys: ClassPolicy | None = None
    ) -> Report:
        changed = audit(self._tracker.engine)
        if changed:
            return Report(changed)
        view = self._tracker.engine.read()
        try:
            classes = self._tracker.classes
            return verify(view, partial(user_key, keys or classes), progress, classes)
        finally:
            view.close()

    def migrate(self, *, progress: Callable[[int, int], None] | None = None) -> int:
        """Rewrite every record that names classes by old names, or has older versions of them.

        Afterwards no record names what `richstore.renamed` was told of by its old name, and all
        instances have the versions of their classes. What cannot be found stays as it is. It works
        in transactions of bounded size, while others read and write; when it is interrupted or
        killed, calling it again does the rest.

        Args:
            progress: a function that is told the records and bytes read so far, now and then and at
                the end; an exception in it ends the work, and what is done stays.

        Returns:
            The number of records that were rewritten.

        Raises:
            UpgradeError: a class cannot upgrade an instance; what was rewritten before stays.
            RuntimeError: the caller is inside a transaction.

        Example:
            >>> import datetime, richstore
            >>> with richstore.open("memory:") as store:
            ...     store["day"] = [datetime.date(2026, 1, 1)]
            ...     store.migrate()
            0
        """
        self._outside("migrate")
        self._check_writable()
        return migrate(self._tracker, self._run, progress)

    def compact(self) -> int:
        """Remove at once what is left of deleted values; later writes would do it bit by bit.

        The file does not become smaller: its free pages are used by later writes.

        Returns:
            The number of records that were removed.

        Raises:
            RuntimeError: the caller is inside a transaction.
        """
        self._outside("compact")
        return int(self._run(lambda transaction: compact(transaction)))

    def backup(
        self, target: str | os.PathLike[str], *, compact: bool = False, replace: bool = False
    ) -> Report:
        """Copy the last committed state into a file, which is a store like this one.

        Others may go on writing meanwhile. The copy has no free pages. It gets its name when it is
        complete, on the disk and verified: no name ever belongs to half a copy.

        Args:
            target: the path of the copy.
            compact: whether to leave out what deleted values have left behind as well, which takes
                a second copy.
            replace: whether a file that is there already may be replaced.

        Returns:
            What verifying the copy found; it is well.

        Raises:
            FileExistsError: the target exists, and `replace` is False.
            OSError: the target is open in this process, or cannot be written.
            CorruptionError: what was copied is damaged; there is no new file.
            RuntimeError: the caller is inside a transaction.

        Example:
            >>> import richstore, tempfile, os
            >>> with tempfile.TemporaryDirectory() as directory:
            ...     with richstore.open(os.path.join(directory, "shops")) as store:
            ...         store["shops"] = ["shop1"]
            ...         report = store.backup(os.path.join(directory, "copy"))
            ...     with richstore.open(os.path.join(directory, "copy")) as copy:
            ...         report.values, copy["shops"]
            (1, ['shop1'])
        """
        self._outside("backup")
        path = os.fspath(target)
        if not isinstance(path, str):
            raise TypeError(f"target must be a str or a path of str, not {type(target).__name__}")
        return copy_file(
            self._tracker.engine, path, self._tracker.classes, replace=replace, compact=compact
        )

    def rekey(
        self,
        key: KeySource,
        *,
        reencrypt: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> int:
        """Change the key of the store; others may go on reading and writing meanwhile.

        Without `reencrypt` it takes one commit: nobody can open the store with the old key any
        more. Data stays encrypted with the same data key, so who has both the old key and a copy
        of the file from before, or looks into its free pages, can still read it.

        With `reencrypt` everything is written again with a new data key, free pages are
        overwritten, and nothing in the file can be read with the old key. The file grows by about
        two copies of what is in it, whose space later writes use. Processes that have
        opened the store with the old key get `WrongKeyError`. When it is killed, the store is
        whole and has the new key; `stats().rekeying` says that it is to be called again.

        Args:
            key: the new key, as for `open`.
            reencrypt: whether to encrypt everything anew.
            progress: is told the records and bytes so far, now and then.

        Returns:
            How many records were written again.

        Raises:
            WrongKeyError: the store is not encrypted.
            LockTimeoutError: another writer did not finish in time.
            RichStoreError: open snapshots keep old pages in the file, or the key was changed again
                meanwhile; call it again.
            RuntimeError: the caller is inside a transaction.
        """
        self._outside("rekey")
        self._check_writable()
        return rekey(self._tracker, key, self._timeout, reencrypt=reencrypt, progress=progress)

    def stats(self) -> Stats:
        """Return figures on the store, its file and this process's cache; safe at any time."""
        if self._closed:
            raise self._closed_error()
        return stats(self._tracker)

    def _outside(self, what: str) -> None:
        if self._closed:
            raise self._closed_error()
        transaction = current(self._tracker)
        if transaction is not None and not transaction.ended:
            raise RuntimeError(f"{what}() works on what is committed; call it after the block")

    # --- the handle ---

    @property
    def path(self) -> str:
        """The absolute path of the file, or `memory:`."""
        return self._tracker.engine.path

    @property
    def closed(self) -> bool:
        """Whether the store has been closed."""
        return self._closed

    @property
    def timeout(self) -> float | None:
        """Seconds that a writer waits for the one before it; None waits forever. Can be set."""
        return self._timeout

    @timeout.setter
    def timeout(self, seconds: float | None) -> None:
        self._timeout = self._tracker.timeout = seconds

    def close(self) -> None:
        """Close the store; its snapshots end. Calling it again does nothing.

        Raises:
            RuntimeError: a transaction of this thread is still open.
        """
        if self._closed:
            with handles_lock:  # another thread may be about it
                return
        try:
            self._close()
        except BaseException:
            # an interrupt: nobody may be able to call it again
            self._close()
            raise

    def _close(self) -> None:
        """Close it, from where an interrupted call has come to."""
        with handles_lock:
            if not self._closed:
                transaction = current(self._tracker)
                if transaction is not None and not transaction.ended:
                    transaction.undo()
                # no interrupt comes between these two
                self._closed = True
                self._tracker.handles -= 1
            _open_stores.pop(id(self), None)
            for snapshot in list(self._snapshots.values()):
                snapshot.close()
            self._tracker.close(self._given_back)

    def _closed_error(self) -> ClosedError:
        return ClosedError(f"the store {self.path} is closed; open it again")

    def _readonly_error(self) -> ReadOnlyError:
        return ReadOnlyError(
            f"the store {self.path} is open for reading only (flag 'r'); open it with 'w' or 'c' "
            f"to change it"
        )

    def __enter__(self) -> Store:
        if self._closed:
            raise self._closed_error()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<richstore.Store {self.path!r}{' (closed)' if self._closed else ''}>"

    def __del__(self) -> None:
        if not getattr(self, "_closed", True):
            warnings.warn(f"unclosed store {self.path}", ResourceWarning, stacklevel=2)
            self.close()


def _forked() -> None:
    """Make the live values of a fork's child its own."""
    for tracker in {id(store._tracker): store._tracker for store in _open_stores.values()}.values():
        tracker.forked()


os.register_at_fork(after_in_child=_forked)


@atexit.register
def _close_all() -> None:
    """Close what is open when the interpreter ends."""
    for store in list(_open_stores.values()):
        store.close()
