"""`open()`: from a path to the tracker that all handles on a file share, and to a store."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from richstore.codec.policy import ANY, ClassPolicy, policy_of, same_policy
from richstore.encryption import check_key, check_plain, encrypted, is_encrypted, secret_of
from richstore.engines.base import Engine
from richstore.engines.lmdb import LmdbEngine, open_lmdb
from richstore.engines.memory import MemoryEngine
from richstore.mapping import user_key
from richstore.nodes import Faces
from richstore.ownership import default_policy
from richstore.passphrase import KeySource
from richstore.store import Store, handles_lock
from richstore.tracker import FORMAT_KEY, Tracker

__all__ = ["CACHE_SIZE", "Classes", "open", "store_on"]

# What can be given as `classes`.
Classes = str | Iterable[Any] | Callable[[str], Any]

CACHE_SIZE = 64 * 1024 * 1024


def open(
    target: str | os.PathLike[str] | None = None,
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
            The lock file `<path>-lock` lies beside it. None: the store of the project in whose
            folder the program runs, or that `RICHSTORE_STORE` names, with the key of the project.
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
        ProjectError: there is no target, and no project that has one, or it has no key.
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
    _check_words(flag, synchronous)
    if target is None:
        # what projects need is loaded when one is used
        from richstore.projects import project_place

        place = project_place()
        place.prepare(flag)
        target, key = place.path, place.key() if key is None else key
    path = os.fspath(target)
    if not isinstance(path, str):
        raise TypeError(f"target must be a str or a path of str, not {type(target).__name__}")
    policy = None if classes is None else policy_of(classes)
    # before anything is made or emptied
    secret = None if key is None else secret_of(key)
    engine: Engine | None = None
    store: Store | None = None
    try:
        with handles_lock:
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
