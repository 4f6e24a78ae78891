"""The store: a mapping whose values persist themselves, and `open()`.

A `Store` is a handle. All handles on one file in a process share one tracker, and so the live
values.
"""

from __future__ import annotations

import atexit
import os
import threading
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from functools import partial
from types import TracebackType
from typing import Any, TypeVar, overload

from richstore.codec import records
from richstore.codec.policy import ANY, NONE, ClassPolicy, policy_of, same_policy
from richstore.codec.sealed import Sealed
from richstore.copying import copy_file
from richstore.encryption import (
    audit,
    check_key,
    check_plain,
    encrypted,
    is_encrypted,
    rekey,
    secret_of,
)
from richstore.engines.base import Engine
from richstore.engines.lmdb import LmdbEngine, open_lmdb
from richstore.engines.memory import MemoryEngine
from richstore.errors import ClosedError, PlacedError, ReadOnlyError
from richstore.group_commit import run
from richstore.mapping import Range, Reading, name_of, stored_key, user_key
from richstore.migrating import migrate
from richstore.nodes import Faces, FrozenView, frozen_value, plain
from richstore.nodes.adopt import Adopter, is_plain
from richstore.nodes.spread.building import build_value
from richstore.nodes.spread.progress import Progress
from richstore.nodes.spread.sources import Source, source_of
from richstore.ownership import default_policy
from richstore.passphrase import KeySource
from richstore.reclaiming import compact
from richstore.record import Record
from richstore.scope import Scope
from richstore.snapshot import Snapshot
from richstore.statistics import Stats, stats
from richstore.tracker import FORMAT_KEY, Tracker
from richstore.transaction import Nested, Transaction, current
from richstore.verification import Report, verify

__all__ = ["Store", "open"]

D = TypeVar("D")
# What can be given as `classes`.
Classes = str | Iterable[Any] | Callable[[str], Any]
_MISSING: Any = object()
_opening = threading.RLock()
# by id: a mapping compares by content and so has no hash
_open_stores: weakref.WeakValueDictionary[int, Store] = weakref.WeakValueDictionary()

CACHE_SIZE = 64 * 1024 * 1024


def open(
    target: str | os.PathLike[str],
    flag: str = "c",
    *,
    synchronous: str = "full",
    timeout: float | None = None,
    cache_size: int = CACHE_SIZE,
    map_size: int | None = None,
    allow_network: bool = False,
    key: KeySource | None = None,
    encrypt_keys: bool = True,
    reveal: bool = False,
    classes: Classes | None = None,
) -> Store:
    """Open a store: one file, made if it is missing.

    Args:
        target: the path of the file, or `"memory:"` for a store that lives as long as it is open.
            The lock file `<path>-lock` lies beside it.
        flag: as in `dbm` and `shelve`: `"r"` reads an existing store, `"w"` reads and writes an
            existing one, `"c"` makes it if it is missing, `"n"` makes it empty.
        synchronous: `"full"`: a change is durable, across power loss too, when the call returns.
            `"normal"`: the file is never damaged; power loss may undo the last commits. `"off"`:
            changes survive the death of the process, but power loss may damage the file.
        timeout: seconds that a writer waits for the one before it; None waits forever. Changes
            through values, which all handles on a file share, take that of the last handle.
        cache_size: bytes of memory, more or less, for records that stay loaded although nobody
            holds them.
        map_size: bytes of address space to begin with; it grows by itself.
        allow_network: open a file on a network file system, where locks may not hold.
        key: encrypts everything in the file: 32 bytes, a `Passphrase`, or a function that returns
            one of these, from a keyring for instance. Needs the extra `secure`.
        encrypt_keys: whether a new store with a `key` encrypts the names of its keys too. They
            have no order then: loops go through them in any order, and ranges are refused.
        reveal: whether a `Sealed` that is the value of a key is given out as what it reveals.
            Inside other values it stays sealed.
        classes: which classes and functions may be imported, made and called that the file names.
            `"any"`: all. `"none"`: none. A list of classes and modules: these, and what the modules
            themselves define. A function: those for which it returns true, given
            `"module.Name"`. Built-in containers and the standard value types are always read. By
            default `"any"` for a file that nobody but its owner, who is you, may write, and
            `"none"` for every other one. All handles of a process on a file share it.

    Returns:
        The store. Close it, or use it in a `with` block.

    Raises:
        OSError: the path cannot be opened, as `open()` would say it.
        FormatError: the file is not one of richstore's, or of a newer version.
        WrongKeyError: the file is encrypted with another key, or `key` is missing, or it is given
            and the file is not encrypted.
        ValueError: `flag`, `synchronous` or `classes` is none of the words above, or the file is
            open in this process with a weaker `synchronous`, or with other `classes`.

    Example:
        >>> import richstore
        >>> with richstore.open("memory:") as store:
        ...     store["shops"] = ["shop1"]
        ...     store["shops"].append("shop2")
        ...     store["shops"]
        ['shop1', 'shop2']
    """
    path = os.fspath(target)
    if not isinstance(path, str):
        raise TypeError(f"target must be a str or a path of str, not {type(target).__name__}")
    _check_words(flag, synchronous)
    policy = None if classes is None else policy_of(classes)
    # before anything is made or emptied
    secret = None if key is None else secret_of(key)
    engine: Engine | None = None
    store: Store | None = None
    try:
        with _opening:
            if path == "memory:":
                engine = _encrypted(MemoryEngine(), secret, encrypt_keys)
                tracker = _new_tracker(engine, cache_size, policy or ANY)
                _prepare(tracker, "c", timeout)
            else:
                engine = file = open_lmdb(
                    path,
                    "c" if flag == "n" else flag,
                    synchronous=synchronous,
                    timeout=timeout,
                    map_size=map_size,
                    allow_network=allow_network,
                )
                if flag == "n":
                    _check_beside(file, secret, policy)
                    if file.last_commit():
                        file.clear(timeout)
                tracker = _tracker_of(file, flag, cache_size, secret, encrypt_keys, policy)
                _prepare(tracker, flag, timeout)
            store = Store(tracker, timeout, readonly=flag == "r")
            store._reveal = reveal
            tracker.timeout = timeout
            # the engine is the store's to close: no interrupt comes between these three
            engine = None
            tracker.handles += 1
            store._closed = False
        return store
    except BaseException:
        if engine is not None:
            engine.close()
        elif store is not None:
            store.close()
        raise


def store_on(
    engine: Engine,
    *,
    timeout: float | None,
    cache_size: int,
    kind: type[Store] | None = None,
    classes: ClassPolicy = ANY,
) -> Store:
    """Return a store on an engine that nobody else has opened, made if it is empty."""
    tracker = _new_tracker(engine, cache_size, classes)
    _prepare(tracker, "c", timeout)
    tracker.timeout = timeout
    store = (kind or Store)(tracker, timeout, readonly=False)
    tracker.handles += 1
    store._closed = False
    return store


def _encrypted(engine: Engine, key: Any, encrypt_keys: bool) -> Engine:
    return engine if key is None else encrypted(engine, secret_of(key), names=encrypt_keys)


def _compact_file(engine: Engine) -> None:
    # nothing is read of the values; and what is copied may be another's, though the copy is not
    with store_on(engine, timeout=None, cache_size=CACHE_SIZE, classes=NONE) as store:
        store.compact()


def _tracker_of(
    file: LmdbEngine,
    flag: str,
    cache_size: int,
    key: Any,
    encrypt_keys: bool,
    wanted: ClassPolicy | None,
) -> Tracker:
    """Return the tracker that the handles on a file share, made by the first of them."""
    # values of a handle that only reads must not be changed through another one
    name = "reading" if flag == "r" else "writing"
    known = file.shared.get(name)
    if isinstance(known, Tracker) and not known.closed:
        check_key(known.engine, key)
        _policy_on(file, known.engine, wanted)
        return known
    engine: Any = file.shared.get("encrypted")
    if engine is not None:
        check_key(engine, key)
    else:
        engine = _encrypted(file, key, encrypt_keys)
        if is_encrypted(engine):
            # one for all handles, so that all know of another key
            file.shared["encrypted"] = engine
    tracker = _new_tracker(engine, cache_size, _policy_on(file, engine, wanted))
    tracker.readonly = flag == "r"
    file.shared[name] = tracker
    return tracker


def _check_beside(file: LmdbEngine, key: Any, wanted: ClassPolicy | None) -> None:
    """Raise what opening beside the handles of this process will, before the file is emptied."""
    known = [file.shared.get(name) for name in ("reading", "writing")]
    engines = [tracker.engine for tracker in known if isinstance(tracker, Tracker)]
    for engine in engines:
        check_key(engine, key)
        _policy_on(file, engine, wanted)


def _check_words(flag: str, synchronous: str) -> None:
    if flag not in ("r", "w", "c", "n"):
        raise ValueError(f"flag is {flag!r}, and must be 'r', 'w', 'c' or 'n'")
    if synchronous not in ("full", "normal", "off"):
        raise ValueError(f"synchronous is {synchronous!r}, and must be 'full', 'normal' or 'off'")


def _policy_on(file: LmdbEngine, engine: Engine, wanted: ClassPolicy | None) -> ClassPolicy:
    """Return the policy that all handles on a file have, chosen by the first of them."""
    known = file.shared.get("classes")
    if isinstance(known, ClassPolicy):
        if wanted is not None and not same_policy(wanted, known):
            raise ValueError(
                f"{file.path} is open in this process with other classes; open it with the same, "
                f"or leave them out to take these"
            )
        return known
    if wanted is None and is_encrypted(engine):
        # whoever has written it has the key
        wanted = ANY
    elif wanted is None:
        wanted = default_policy(os.fstat(file.fd), file.path)
    file.shared["classes"] = wanted
    return wanted


def _new_tracker(engine: Engine, cache_size: int, classes: ClassPolicy) -> Tracker:
    return Tracker(engine, Faces, partial(user_key, classes), cache_size, classes)


def _prepare(tracker: Tracker, flag: str, timeout: float | None) -> None:
    """Check that the file is a store, or make it one."""
    engine = tracker.engine
    reader = engine.read()
    try:
        if not is_encrypted(engine):
            check_plain(reader, engine.path)
        empty = next(iter(reader.scan(b"\x00", None)), None) is None
        new = tracker.check_format(reader.get, empty and flag != "r")
    finally:
        reader.close()
    if new:
        with tracker.writer:
            writer = engine.write(timeout)
            try:
                if writer.get(FORMAT_KEY) is None:
                    writer.put(FORMAT_KEY, tracker.format_record())
                    writer.commit()
            finally:
                writer.abort()
    # not while a reader is open: the map may have to grow
    tracker.refresh()


def _frozen(tracker: Tracker, name: bytes, stored: bytes) -> Any:
    engine = tracker.engine
    view = FrozenView(engine.read(), frozen_value, tracker.classes, engine.path)
    return frozen_value(view, name, stored)


class Store(Reading, MutableMapping[Any, Any]):
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

    # --- reading ---

    def __getitem__(self, key: Any) -> Any:
        name = name_of(key)
        value = self._get(name)
        if value is _MISSING:
            raise KeyError(key)
        return value

    def _get(self, name: bytes) -> Any:
        tracker = self._tracker
        if self._closed:
            raise self._closed_error()
        transaction = current(tracker)
        if transaction is None or transaction.ended:
            tracker.refresh()
        else:
            root = transaction.roots.get(name, _MISSING)
            if root is not _MISSING:
                return _MISSING if root is None else self._shown(root.value)
        found, value = tracker.read(name)
        if self._reveal:
            value = self._shown(value)
        return value if found else _MISSING

    def _shown(self, value: Any) -> Any:
        """Return what the user is to get for a value."""
        return value.reveal() if self._reveal and type(value) is Sealed else value

    @overload
    def get(self, key: Any) -> Any: ...
    @overload
    def get(self, key: Any, default: D) -> Any | D: ...

    def get(self, key: Any, default: Any = None) -> Any:
        """Return the value under `key`, or `default`."""
        value = self._get(name_of(key))
        return default if value is _MISSING else value

    def __contains__(self, key: object) -> bool:
        name = name_of(key)
        if self._closed:
            raise self._closed_error()
        tracker = self._tracker
        transaction = current(tracker)
        if transaction is None:
            tracker.refresh()
        elif name in transaction.roots:
            return transaction.roots[name] is not None
        if tracker.find(name) is not None:
            return True
        with tracker.lock, tracker.view() as view:
            return view.get(name) is not None

    def __len__(self) -> int:
        if self._closed:
            raise self._closed_error()
        tracker = self._tracker
        with tracker.lock, tracker.view() as view:
            count = tracker.count(view.get)
        transaction = current(tracker)
        return count if transaction is None else count + transaction.count

    def _scan(self, rows: Range) -> Iterator[tuple[Any, bytes, Any]]:
        if self._closed:
            raise self._closed_error()
        return rows.select(self._rows(rows), self._tracker.classes)

    def _rows(self, rows: Range) -> Iterator[tuple[bytes, Any]]:
        """Yield engine keys and records; those changed in the current transaction come from it."""
        tracker = self._tracker
        transaction = current(tracker)
        if transaction is None:
            tracker.refresh()
        view = tracker.engine.read()
        try:
            stored = view.scan(rows.first_name, rows.last_name, reverse=rows.reverse)
            if transaction is None:
                yield from stored
            else:
                merge = _merge if getattr(tracker.engine, "is_ordered", True) else _mix
                yield from merge(transaction, stored, rows)
        finally:
            view.close()

    def _value(self, name: bytes, stored: Any) -> Any:
        if isinstance(stored, Record):
            return self._shown(stored.value)
        parts = self._tracker.parse(name, stored)
        if not parts.table:
            return self._shown(self._tracker.decode_plain(name, parts))
        value = self._get(name)
        # deleted since the view began: it still reads
        if value is not _MISSING:
            return value
        return _frozen(self._tracker, name, stored)

    # --- changing ---

    def __setitem__(self, key: Any, value: Any) -> None:
        name = name_of(key)
        self._check_writable()
        # items of a generator are taken before others have to wait
        value = source_of(value)
        self._run(
            lambda transaction: self._assign(transaction, key, name, value),
            lambda: is_plain((key, value)),
        )

    def _assign(self, transaction: Transaction, key: Any, name: bytes, value: Any) -> None:
        tracker = self._tracker
        stored, existed = self._existing(transaction, name)
        if existed:
            kept = stored
            known = transaction.roots.get(name) or tracker.live.get(name)
            if known is not None and known.stale:
                tracker.reload(known)
            if known is not None and known.value is value and known.nodes:
                # store[key] += … ends by assigning what is there already
                return
        else:
            kept = stored_key(tracker.classes, key, name)
        record = Record(tracker, name, kept)
        value = source_of(value)
        if isinstance(value, Source):
            record.value = build_value(transaction, record, value)
            transaction.set_root(name, record, existed)
            return
        adopter = Adopter(transaction, record)
        try:
            record.value = adopter(value)
        except PlacedError as error:
            adopter.undo()
            raise error.inside(f"[{key!r}]") from error.__cause__
        except BaseException:
            adopter.undo()
            raise
        transaction.set_root(name, record, existed)

    def _existing(self, transaction: Transaction, name: bytes) -> tuple[bytes | None, bool]:
        """Return the stored key of the value under an engine key, and whether there is one."""
        root = transaction.roots.get(name, _MISSING)
        if root is not _MISSING:
            return (None, False) if root is None else (root.stored_key, True)
        stored = transaction.engine.get(name)
        return (None, False) if stored is None else (records.stored_key(stored), True)

    def __delitem__(self, key: Any) -> None:
        name = name_of(key)
        if not self._run(lambda transaction: self._remove(transaction, name), lambda: True):
            raise KeyError(key)

    def _remove(self, transaction: Transaction, name: bytes) -> bool:
        existed = self._existing(transaction, name)[1]
        if existed:
            transaction.set_root(name, None, True)
        return existed

    @overload
    def pop(self, key: Any) -> Any: ...
    @overload
    def pop(self, key: Any, default: D) -> Any | D: ...

    def pop(self, key: Any, default: Any = _MISSING) -> Any:
        """Remove `key` and return its value as plain data, or `default` when there is none.

        Raises:
            KeyError: there is no such key, and no default.
        """
        name = name_of(key)

        def work(transaction: Transaction) -> Any:
            value = self._get(name)
            if value is _MISSING:
                return _MISSING
            value = plain(value)
            self._remove(transaction, name)
            return value

        value = self._run(work, lambda: True)
        if value is not _MISSING:
            return value
        if default is _MISSING:
            raise KeyError(key)
        return default

    def popitem(self) -> tuple[Any, Any]:
        """Remove the last item in key order and return it, its value as plain data.

        Raises:
            KeyError: the store is empty.
        """

        def work(transaction: Transaction) -> tuple[Any, Any]:
            for key in reversed(self):
                return key, self.pop(key)
            raise KeyError("popitem(): store is empty")

        item: tuple[Any, Any] = self._run(work)
        return item

    def setdefault(self, key: Any, default: Any = None) -> Any:
        """Return the value under `key`, which becomes `default` when there is none."""
        name = name_of(key)
        value = self._get(name)
        if value is not _MISSING:
            return value

        def work(transaction: Transaction) -> Any:
            if self._get(name) is _MISSING:
                self._assign(transaction, key, name, default)

        self._run(work)
        return self[key]

    def update(self, *others: Any, **named: Any) -> None:
        """Set many items in one transaction: all of them, or on an error none.

        Args:
            others: at most one mapping or iterable of pairs.
            named: items whose keys are str.
        """
        if len(others) > 1:
            raise TypeError(f"update expected at most 1 argument, got {len(others)}")
        new: list[tuple[Any, Any]] = []
        for other in others:
            new += _pairs(other)
        new += named.items()
        self._run(lambda _: self._assign_all(new))

    def _assign_all(self, new: list[tuple[Any, Any]]) -> None:
        with self.transaction():
            for key, value in new:
                self[key] = value

    def __ior__(self, other: Any) -> Store:
        self.update(other)
        return self

    def clear(self) -> None:
        """Remove all items, in one transaction."""

        def work(transaction: Transaction) -> None:
            for name in [name for _, name, _ in self._scan(Range())]:
                self._remove(transaction, name)

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
        finish = _compact_file if compact else None
        return copy_file(
            self._tracker.engine, path, self._tracker.classes, replace=replace, compact=finish
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
            with _opening:  # another thread may be about it
                return
        try:
            self._close()
        except BaseException:
            # an interrupt: nobody may be able to call it again
            self._close()
            raise

    def _close(self) -> None:
        """Close it, from where an interrupted call has come to."""
        with _opening:
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


class Block(Scope):
    """The context manager of `Store.transaction()`."""

    __slots__ = ("_entered", "_outer", "_progress", "_store", "_timeout")

    def __init__(self, store: Store, timeout: float | None, progress: Progress | None) -> None:
        self._store = store
        self._timeout = timeout
        self._progress = progress
        self._entered: list[Transaction | Nested] = []
        # of a block within one that tells of progress itself
        self._outer: Progress | None = None

    def __enter__(self) -> Transaction:
        store = self._store
        if store._closed:
            raise store._closed_error()
        if store._readonly:
            raise store._readonly_error()
        transaction = current(store._tracker)
        if transaction is not None:
            transaction.check_open()
            inner = transaction.nested()
            self._entered.append(inner)
            inner.__enter__()
            if self._progress is not None:
                self._outer, transaction.progress = transaction.progress, self._progress
            return transaction
        transaction = Transaction(store._tracker)
        transaction.progress = self._progress
        self._entered.append(transaction)
        try:
            transaction.begin(self._timeout)
        except BaseException:
            self._entered.pop()
            raise
        return transaction

    @property
    def depth(self) -> int:
        """How many `with` statements are inside it."""
        return len(self._entered)

    def leave(self, failed: bool) -> None:
        """Commit, or undo when it has failed, and end the innermost."""
        entered = self._entered[-1]
        try:
            if not isinstance(entered, Transaction):
                self._progress_as_before(entered)
            entered.leave(failed)
        finally:
            self.undo_to(len(self._entered) - 1)

    def undo_to(self, depth: int) -> None:
        """Undo and end all that are deeper."""
        while len(self._entered) > depth:
            entered = self._entered[-1]
            if not isinstance(entered, Transaction):
                self._progress_as_before(entered)
            entered.undo_to(0)
            self._entered.pop()

    def _progress_as_before(self, entered: Nested) -> None:
        if self._progress is not None:
            entered.transaction.progress = self._outer

    def __del__(self) -> None:
        # entered by hand, and never left
        if getattr(self, "_entered", None):
            self.undo_to(0)


def _merge(
    transaction: Transaction, stored: Iterator[tuple[bytes, Any]], rows: Range
) -> Iterator[tuple[bytes, Any]]:
    """Put what a transaction has set under keys among what is stored, in order."""
    first, last, reverse = rows.first_name, rows.last_name, rows.reverse
    own = sorted((name for name in transaction.roots if first <= name < last), reverse=not reverse)
    roots = transaction.roots
    for name, record in stored:
        while own and (own[-1] > name if reverse else own[-1] < name):
            new = own.pop()
            if roots.get(new) is not None:
                yield new, roots[new]
        if own and own[-1] == name:
            own.pop()
        changed = roots.get(name, record)
        if changed is not None:
            yield name, changed
    while own:
        new = own.pop()
        if roots.get(new) is not None:
            yield new, roots[new]


def _mix(
    transaction: Transaction, stored: Iterator[tuple[bytes, Any]], rows: Range
) -> Iterator[tuple[bytes, Any]]:
    """Put what a transaction has set under keys behind what is stored, which is in no order."""
    own = dict(transaction.roots)
    for name, record in stored:
        changed = own.pop(name, record)
        if changed is not None:
            yield name, changed
    yield from [(name, changed) for name, changed in own.items() if changed is not None]


def _pairs(other: Any) -> list[tuple[Any, Any]]:
    if isinstance(other, Mapping):
        return list(other.items())
    if hasattr(other, "keys"):
        return [(key, other[key]) for key in other.keys()]  # noqa: SIM118 - its keys() decides
    pairs = []
    for at, item in enumerate(other):
        pair = tuple(item)
        if len(pair) != 2:
            raise ValueError(
                f"dictionary update sequence element #{at} has length {len(pair)}; 2 is required"
            )
        pairs.append(pair)
    return pairs


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
