"""A document: one tracked value, loaded from a place and saved to it.

Theory of operation
-------------------

The value lives in a store of its own, in memory, so nodes, tracker and transactions are those of
every store. The engine's hooks (see `engine`) connect it with the *place*, a file or an object.

A transaction *saves* when it is a with-block, or when `autosave` is on. On a place with a lock it
takes that first, and starts from the latest content. When it is about to commit, the value as it
will be is encoded and written; if that fails, the transaction fails, so memory and place are both
as before. On a place without a lock the write is conditional: when somebody else was first, the
transaction raises `ConflictError`; a single change is then made again on the latest content.
All other changes are in memory only, until `commit()`.

All that reads or writes the place, or brings the memory up to date, holds the writer's lock of the
document's store. An inner block, and `commit()` inside a block, write what is not committed in
memory yet. If the block fails afterwards, the memory takes what was written before anything else
happens (`_catch_up`); the number of the commit that was to be tells.

What is read from the place is merged into the live value by the *loader*, a second tracker on the
same engine, so that what users hold goes on living.
"""

from __future__ import annotations

import dataclasses
import os
import random
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Protocol
from urllib.parse import unquote_to_bytes, urlsplit

from richstore.codec.policy import ANY, ClassPolicy, policy_of
from richstore.documents.encryption import EncryptedFormat
from richstore.documents.engine import DocumentEngine, Inside
from richstore.documents.files import FilePlace
from richstore.documents.formats import Format, resolve
from richstore.documents.merging import merge
from richstore.encryption import secret_of
from richstore.errors import ConflictError, FormatError, LockTimeoutError
from richstore.mapping import form_of
from richstore.nodes import FrozenView, frozen_value, is_face, plain
from richstore.nodes.plain import Plain
from richstore.opening import CACHE_SIZE, Classes, store_on
from richstore.passphrase import KeySource
from richstore.spaces import ROOT
from richstore.store import Store
from richstore.transaction import Transaction, current

__all__ = ["Document", "document"]

_KEY = "value"
_MISSING: Any = object()
# How often `update` tries again.
_TRIES = 100
# Seconds to pause, on the average, when somebody else was first: at first, and at most.
_PAUSE = 0.005
_LONGEST_PAUSE = 0.5

_documents: weakref.WeakSet[Document] = weakref.WeakSet()


class Place(Protocol):
    """Where a document is kept. What `read` and `write` return as a version is opaque."""

    location: str
    """The path or URL, without anything secret."""
    name: str
    """The last part of it, whose suffix may tell the format."""
    classes: ClassPolicy
    """The policy for what was read last, where the user has chosen none."""

    def read(self) -> tuple[bytes | None, Any]:
        """Return content and version; None for both when there is nothing."""

    def is_current(self, version: object) -> bool:
        """Tell whether the content is still what was read, if that can be told at no cost."""

    def write(self, data: bytes, version: object) -> Any:
        """Replace the content if it is still of a version; return the new version."""

    def delete(self) -> None:
        """Remove it."""

    def acquire(self, timeout: float | None) -> None:
        """Keep others from writing, where that is possible."""

    def release(self) -> None:
        """Let others write."""

    def forked(self) -> None:
        """Give up, in the child of a fork, what belongs to the parent."""


class _Inner(Store):
    """The store inside a document, which ends with it: there is nothing to close."""

    def __del__(self) -> None:
        pass


def document(
    location: str | os.PathLike[str],
    *,
    default: Any = None,
    data: Any = _MISSING,
    format: Any = None,
    autosave: bool = False,
    load_kwargs: Mapping[str, Any] | None = None,
    dump_kwargs: Mapping[str, Any] | None = None,
    is_binary: bool | None = None,
    ignore_inner_exits: bool = False,
    lossy: bool = False,
    timeout: float | None = None,
    key: KeySource | None = None,
    classes: Classes | None = None,
    **storage: Any,
) -> Document:
    """Open a document: one value in a file, or in one object of an object store.

    Args:
        location: a path, or a URL: `file://`, `s3://`, `gs://`, `az://`, `memory://`.
        default: the value when nothing is stored yet; it is copied.
        data: the value whatever is stored; it is copied.
        format: `"json"`, `"pickle"`, `"bson"`, `"msgpack"`, or a module or object with `dump` and
            `load` or `dumps` and `loads`; None: what the suffix says, else JSON.
        autosave: whether each change is saved when the call that makes it returns.
        load_kwargs: options for reading the format.
        dump_kwargs: options for writing it.
        is_binary: whether a module or object works on bytes; None: JSON does not, all others do.
        ignore_inner_exits: whether only the end of the outermost with-block writes.
        lossy: whether what the format would not give back equal is stored all the same.
        timeout: seconds to wait for another writer; None waits forever.
        key: encrypts what is stored: 32 bytes, a `Passphrase`, or a function that returns one of
            these. Needs the extra `secure`.
        classes: which classes and functions a pickle may name, as for `open()`. By default
            `"any"` for a file that nobody but its owner, who is you, may write, and `"none"` for
            every other file and for objects in a bucket. `load_kwargs` are for `"any"` alone.
        storage: for an object store: keys, session token, region, endpoint and the like, as
            obstore knows them; by default the usual chain of credentials.

    Returns:
        The document.

    Raises:
        OSError: the place cannot be read.
        FormatError: what is there is not of this format, or another type of container than
            `default`; nothing was changed.
        WrongKeyError: it is encrypted with another key, or `key` is missing, or it is given and
            what is stored is not encrypted.
        ValueError: `format` or `location` is none of these.
        TypeError: `autosave` is not a bool.

    Example:
        >>> import os, richstore, tempfile
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     path = os.path.join(directory, "runs.json")
        ...     with richstore.document(path, default=[]) as doc:
        ...         doc.value.append("first")
        ...     with open(path) as file:
        ...         file.read()
        '["first"]'
    """
    place = _place(os.fspath(location), storage)
    found = resolve(
        format,
        place.name,
        is_binary=is_binary,
        load_kwargs=load_kwargs,
        dump_kwargs=dump_kwargs,
        lossy=lossy,
    )
    return Document(
        place,
        found if key is None else EncryptedFormat(found, secret_of(key)),
        default=default,
        data=data,
        autosave=autosave,
        ignore_inner_exits=ignore_inner_exits,
        timeout=timeout,
        classes=_policy(classes, key),
    )


def _policy(classes: Any, key: Any) -> ClassPolicy | None:
    """Return the policy that was asked for; None: that of the place."""
    if classes is None:
        # whoever has written what a key opens has the key
        return None if key is None else ANY
    return policy_of(classes)


def _place(location: str, storage: dict[str, Any]) -> Place:
    if not isinstance(location, str):
        raise TypeError(f"location must be a str or a path of str, not {type(location).__name__}")
    scheme, separator, _ = location.partition("://")
    if not separator or scheme.lower() == "file":
        if storage:
            raise TypeError(f"a document in a file has no options {', '.join(sorted(storage))}")
        return FilePlace(_path_of(location) if separator else location)
    from richstore.documents.objects import ObjectPlace

    return ObjectPlace(location, storage)


def _path_of(url: str) -> str:
    """Return the path that a file:// URL stands for."""
    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost") or not parts.path or parts.query or parts.fragment:
        raise ValueError(
            f"{url} must be file:// and an absolute path, with % for special characters, as "
            f"pathlib.Path.as_uri() gives it"
        )
    return os.fsdecode(unquote_to_bytes(parts.path))


class Document:
    """One tracked value in one place; made by `document()`.

    Safe to use from many threads. As a context manager it is one transaction: what is changed in
    the block is written once, at its end, and not at all if the block fails.
    """

    def __init__(
        self,
        place: Place,
        format: Format | EncryptedFormat,
        *,
        default: Any,
        data: Any,
        autosave: bool,
        ignore_inner_exits: bool,
        timeout: float | None,
        classes: ClassPolicy | None = None,
    ) -> None:
        _check_bool(autosave)
        self._classes = classes
        self._place = place
        self._format = format
        self._default = plain(default)
        self._ignore_inner_exits = ignore_inner_exits
        self._timeout = timeout
        self._autosave = autosave
        # what the place holds, as far as is known: its bytes and version (None: nothing), and the
        # commit of the engine after which there are changes that it does not hold
        self._written: bytes | None = None
        self._version: Any = None
        self._saved = -1
        # whether that may not be so any more: a write has failed, or was interrupted
        self._behind = False
        # how often others have been first since the last write
        self._refusals = 0
        # the threads that are about to begin a block
        self._entering: set[int] = set()
        self._blocks: dict[Transaction, list[Any]] = {}
        self._engine = DocumentEngine(place.location, self._prepare)
        inside = Inside(self._engine)
        self._loader = store_on(inside, timeout=None, cache_size=CACHE_SIZE, kind=_Inner)
        stored, self._version = place.read()
        if stored is not None and data is _MISSING:
            value = self._decode(stored)
            self._written = stored
        else:
            value = self._default if data is _MISSING else plain(data)
        self._absorb(value)
        if data is not _MISSING:
            self._saved = -1
        self._store = store_on(self._engine, timeout=timeout, cache_size=CACHE_SIZE, kind=_Inner)
        _documents.add(self)
        while autosave and self.dirty:
            try:
                self.commit()
            except ConflictError:
                # somebody else has made or changed it just now
                if data is _MISSING:
                    self.reload()
                else:
                    self._version = place.read()[1]

    def __repr__(self) -> str:
        return f"<richstore.Document {self.location!r}{' with unsaved changes' * self.dirty}>"

    # --- the value ---

    @property
    def value(self) -> Any:
        """The value; assign another one, or change it in place."""
        return self._store[_KEY]

    @value.setter
    def value(self, value: Any) -> None:
        self._store[_KEY] = value

    @property
    def dirty(self) -> bool:
        """Whether the value has changes that are not saved."""
        transaction = self._transaction()
        if transaction is not None and (transaction.touched or transaction.roots):
            return True
        return self._version is None or self._has_changes()

    @property
    def autosave(self) -> bool:
        """Whether each change is saved when it is made; switching it on saves."""
        return self._autosave

    @autosave.setter
    def autosave(self, value: bool) -> None:
        _check_bool(value)
        if value and self.dirty:
            self.commit()
        self._autosave = value

    @property
    def location(self) -> str:
        """The absolute path, or the URL."""
        return self._place.location

    @property
    def version(self) -> Any:
        """What tells the stored content from every other one; None when nothing is stored."""
        return self._version

    # --- saving and loading ---

    def commit(self) -> None:
        """Write the value if it has changed; inside a block, what it is at this moment.

        Raises:
            ConflictError: somebody else has written since it was read; `reload()`, or use
                `update()`. What is in memory stays.
            EncodingError: the format cannot hold the value; the error says where.
            OSError: the place cannot be written; it is as before.
        """
        if self._transaction() is not None:
            self._write_inside()
            return
        with self._alone():
            if not self._has_changes() and self._version is not None:
                return
            number = self._engine.last_commit()
            value = plain(self.value)
            self._place.acquire(self._timeout)
            try:
                self._write(value)
            finally:
                self._place.release()
            self._saved = number

    save = commit

    def reload(self) -> None:
        """Take the value from the place; changes that are not saved are lost.

        Raises:
            RuntimeError: the caller is inside a block.
            FormatError: what is there is not of the document's format.
        """
        self._outside("reload")
        with self._alone():
            self._read()
        self._store.refresh()

    load = reload

    def delete(self) -> None:
        """Remove the file or object; the value becomes the default, and is not saved.

        Raises:
            RuntimeError: the caller is inside a block.
        """
        self._outside("delete")
        with self._alone():
            self._place.acquire(self._timeout)
            try:
                self._place.delete()
            finally:
                self._place.release()
            self._version = self._written = None
            self._behind = False
            self._absorb(self._default)
        self._store.refresh()

    def update(self, function: Callable[[Any], Any]) -> Any:
        """Change the value by a function, again on the latest value when somebody else was first.

        Args:
            function: gets the value and changes it in place. A value that cannot be changed in
                place (a number, a str, a tuple, a frozen dataclass) is replaced by what it returns.

        Returns:
            What the function returned at last.

        Raises:
            ConflictError: others were first a hundred times.
        """
        if self._transaction() is not None:
            return self._apply(function)
        for tries in range(_TRIES):
            try:
                with self:
                    return self._apply(function)
            except ConflictError:
                if tries == _TRIES - 1 or not self._behind or self._has_changes():
                    raise
        raise AssertionError

    def _apply(self, function: Callable[[Any], Any]) -> Any:
        value = self.value
        result = function(value)
        if not is_face(value) or _is_frozen(value):
            self.value = result
        return result

    # --- as a block ---

    def __enter__(self) -> Document:
        transaction = self._transaction()
        block = self._store.transaction()
        if transaction is None:
            self._entering.add(threading.get_ident())
        try:
            block.__enter__()
        finally:
            self._entering.discard(threading.get_ident())
        transaction = self._transaction()
        assert transaction is not None
        self._blocks.setdefault(transaction, []).append(block)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        transaction = current(self._store._tracker)
        blocks = self._blocks.get(transaction) if transaction is not None else None
        if transaction is None or not blocks:
            raise RuntimeError("this block was begun by another thread or task")
        block = blocks.pop()
        if blocks:
            block.__exit__(kind, error, traceback)
            if kind is None and not self._ignore_inner_exits and not transaction.ended:
                self._write_inside()
            return
        del self._blocks[transaction]
        try:
            block.__exit__(kind, error, traceback)
        finally:
            if self._is_ahead():
                with self._alone():
                    pass
                self._store.refresh()
        if kind is None and self.dirty:
            # nothing changed, but nothing is stored either
            self.commit()

    # --- inside ---

    def _transaction(self) -> Transaction | None:
        transaction = current(self._store._tracker)
        return None if transaction is None or transaction.ended else transaction

    def _outside(self, what: str) -> None:
        if self._transaction() is not None:
            raise RuntimeError(f"{what}() is not for the inside of a block; call it after it")

    def _prepare(self, timeout: float | None) -> tuple[Callable[[Any], None], Callable[[], None]]:
        """Begin a transaction of the store; see `DocumentEngine`."""
        self._catch_up()
        if not self._autosave and threading.get_ident() not in self._entering:
            return _nothing_to_save, _nothing_to_finish
        if self._refusals:
            time.sleep(random.uniform(0, min(_LONGEST_PAUSE, _PAUSE * 2**self._refusals)))
        self._place.acquire(timeout)
        try:
            if self._behind or not self._place.is_current(self._version):
                if not self._has_changes():
                    self._read()
                elif self._place.read()[1] == self._version:
                    self._behind = False
                else:
                    raise ConflictError(
                        f"{self.location} was changed by somebody else, and there are changes in "
                        f"memory that are not saved, which reload() would forget"
                    )
        except BaseException:
            self._place.release()
            raise
        return self._save, self._place.release

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the writer's lock of the store, with the memory up to date with what was written."""
        tracker = self._store._tracker
        if tracker.writer_thread == threading.get_ident():
            raise LockTimeoutError(
                f"another asyncio task of this thread is inside a block of {self.location}, and "
                f"waiting for it here would wait forever; let it finish first"
            )
        if not tracker.writer.acquire(timeout=-1 if self._timeout is None else self._timeout):
            raise LockTimeoutError(
                f"another thread was using {self.location} for more than {self._timeout:g} s; let "
                f"it end, or wait longer with a larger timeout"
            )
        try:
            self._catch_up()
            yield
        finally:
            tracker.writer.release()

    def _is_ahead(self) -> bool:
        """Tell whether something was written that a failed block has undone in memory."""
        return self._saved > self._engine.last_commit()

    def _catch_up(self) -> None:
        if self._is_ahead():
            assert self._written is not None
            self._absorb(self._decode(self._written))

    def _save(self, transaction: Any) -> None:
        """Write the value as a transaction leaves it."""
        self._write(_stored(transaction))
        self._saved = transaction.id

    def _write_inside(self) -> None:
        """Write the value as it is in the current block."""
        transaction = self._transaction()
        assert transaction is not None
        self._write(plain(self.value))
        self._saved = transaction.engine.id

    def _write(self, value: Any) -> None:
        data = self._format.encode(value, self._classes or self._place.classes)
        if data == self._written and not self._behind:
            return
        # until it is known what became of it, whatever interrupts
        self._behind = True
        try:
            self._version = self._place.write(data, self._version)
        except ConflictError:
            self._refusals += 1
            raise
        self._written = data
        self._behind = False
        self._refusals = 0

    def _read(self) -> None:
        """Take the value from the place."""
        stored, version = self._place.read()
        value = self._default if stored is None else self._decode(stored)
        self._behind = True
        self._absorb(value)
        self._written, self._version = stored, version
        self._behind = False

    def _has_changes(self) -> bool:
        """Tell whether the committed value has changes that are not saved."""
        return self._engine.last_commit() > self._saved

    def forked(self) -> None:
        """Give up, in the child of a fork, what belongs to the parent."""
        self._engine.reopen_after_fork()
        self._entering.clear()
        self._blocks.clear()
        self._place.forked()

    def _absorb(self, value: Any) -> None:
        """Make the value in memory equal to plain data, by the loader."""
        loader = self._loader
        with loader.transaction():
            if _KEY in loader:
                view = self._engine.read()
                merge(loader, _KEY, _stored(view), value)
                view.close()
            else:
                loader[_KEY] = value
        self._saved = self._engine.last_commit()

    def _decode(self, stored: bytes) -> Any:
        value = self._format.decode(stored, self.location, self._classes or self._place.classes)
        wanted = type(self._default)
        if wanted in _CONTAINERS and type(value) in _CONTAINERS and type(value) is not wanted:
            raise FormatError(
                f"{self.location} holds a {type(value).__name__}, and the default is a "
                f"{wanted.__name__}; nothing was changed"
            )
        return value


_CONTAINERS = (list, dict, set)


def _forked() -> None:
    for one in list(_documents):
        one.forked()


os.register_at_fork(after_in_child=_forked)


def _is_frozen(value: Any) -> bool:
    """Tell whether an instance of a dataclass refuses changes."""
    return dataclasses.is_dataclass(value) and value.__dataclass_params__.frozen  # type: ignore


def _stored(view: Any) -> Any:
    """Return the value as a state of the engine has it."""
    name = ROOT + form_of(_KEY)
    stored = view.get(name)
    assert stored is not None
    frozen = frozen_value(FrozenView(view, frozen_value, ANY), name, stored)
    # alone: of a large value, what is plain on its pages needs no faces
    return Plain({}, alone=True)(frozen)


def _nothing_to_save(transaction: Any) -> None:
    pass


def _nothing_to_finish() -> None:
    pass


def _check_bool(value: object) -> None:
    if not isinstance(value, bool):
        raise TypeError(f"autosave must be a bool, not {type(value).__name__}")
