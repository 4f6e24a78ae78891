"""Snapshots: a read-only mapping over one committed state.

A snapshot holds a read transaction of the engine and makes frozen faces of the records it is asked
for. It shares nothing with the live records.
"""

from __future__ import annotations

import threading
import warnings
import weakref
from collections.abc import Iterator
from types import TracebackType
from typing import Any

from richstore.codec.policy import ClassPolicy
from richstore.codec.sealed import Sealed
from richstore.engines.base import ReadTransaction
from richstore.errors import ClosedError
from richstore.mapping import Range, Reading, form_of
from richstore.nodes import FrozenView, frozen_value
from richstore.spaces import NOWHERE, ROOT, group_form, names_in, space_in
from richstore.tracker import COUNT_KEY

__all__ = ["Snapshot", "SnapshotGroup"]

_MISSING = object()


class _Frozen(Reading[Any, Any]):
    """What a snapshot and the groups in it have in common."""

    _snapshot: Snapshot
    # the names of the groups that lead to it, their forms, and where it is
    _names: tuple[str, ...] = ()
    _forms: tuple[bytes, ...] = ()
    _space = ROOT
    _counter: bytes | None = COUNT_KEY
    # the number under which the groups in it are; None when it is not there
    _id: int | None = 0

    def __getitem__(self, key: Any) -> Any:
        found = self._snapshot._load(self._space + form_of(key), _MISSING)
        if found is _MISSING:
            raise KeyError(key)
        return found

    def __contains__(self, key: object) -> bool:
        return self._snapshot._get(self._space + form_of(key)) is not None

    def __len__(self) -> int:
        stored = self._snapshot._get(self._counter or NOWHERE)
        return int.from_bytes(stored or b"", "little")

    def _scan(self, rows: Range) -> Iterator[tuple[Any, bytes, Any]]:
        snapshot = self._snapshot
        snapshot._check_open()
        first, last = rows.within(self._space)
        scan = snapshot._transaction.scan(first, last, reverse=rows.reverse)
        return rows.select(scan, snapshot._classes)

    def _value(self, name: bytes, stored: Any) -> Any:
        return self._snapshot._passing(name, stored)

    def group(self, name: str) -> SnapshotGroup:
        """Return a group as it was; an empty one if it was not there."""
        return SnapshotGroup(self, name)

    def groups(self) -> list[str]:
        """Return the names of the groups in this mapping, in order."""
        snapshot = self._snapshot
        with snapshot._lock:
            snapshot._check_open()
            return [] if self._id is None else names_in(self._id, snapshot._transaction)


class Snapshot(_Frozen):
    """A store as it was at one moment: a read-only mapping, whatever others commit meanwhile.

    Made by `Store.snapshot()`. Usable from any thread, in a `with` block or until `close()`. A
    change at any depth raises `ReadOnlyError`. While it is open, the space of what others delete
    is kept.

    Example:
        >>> import richstore
        >>> with richstore.open("memory:") as store:
        ...     store["shops"] = ["shop1"]
        ...     with store.snapshot() as view:
        ...         store["shops"].append("shop2")
        ...         view["shops"], store["shops"]
        (['shop1'], ['shop1', 'shop2'])
    """

    def __init__(
        self,
        path: str,
        transaction: ReadTransaction,
        classes: ClassPolicy,
        max_age: float | None = None,
        *,
        reveal: bool = False,
    ) -> None:
        self._snapshot = self
        self._path = path
        self._transaction = transaction
        self._max_age = max_age
        self._expired = False
        self._classes = classes
        self._reveal = reveal
        self._values: dict[bytes, Any] = {}
        self._view = FrozenView(transaction, frozen_value, classes, path)
        self._lock = threading.RLock()
        self._closed = False
        self._timer: threading.Timer | None = None
        if max_age is not None:
            # it ends while nobody uses it, too: that is when it keeps pages for nothing
            timer = self._timer = threading.Timer(max_age, _expire, (weakref.ref(self),))
            timer.daemon = True
            timer.start()

    def _load(self, name: bytes, stored: Any) -> Any:
        found = self._values.get(name, _MISSING)
        if found is _MISSING:
            with self._lock:
                self._check_open()
                if stored is _MISSING:
                    stored = self._transaction.get(name)
                if stored is None:
                    return _MISSING
                found = self._values.setdefault(name, frozen_value(self._view, name, stored))
        return self._shown(found)

    def _passing(self, name: bytes, stored: Any) -> Any:
        """Return a value that a loop has come to; the loop may come to a million of them."""
        found = self._values.get(name, _MISSING)
        if found is _MISSING:
            with self._lock:
                self._check_open()
                view = FrozenView(self._transaction, frozen_value, self._classes, self._path)
                found = frozen_value(view, name, stored)
        return self._shown(found)

    def _shown(self, value: Any) -> Any:
        return value.reveal() if self._reveal and type(value) is Sealed else value

    def _get(self, name: bytes) -> bytes | None:
        with self._lock:
            self._check_open()
            return self._transaction.get(name)

    def close(self) -> None:
        """End the snapshot; values that are loaded stay readable. Calling it again does nothing."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._transaction.close()
                if self._timer is not None:
                    self._timer.cancel()

    def _check_open(self) -> None:
        if self._closed and self._expired:
            raise ClosedError(
                f"this snapshot of {self._path} was ended after its max_age of {self._max_age:g} "
                f"s, and the value was not loaded before; take a new one, or allow it more time"
            )
        if self._closed:
            raise ClosedError(
                f"this snapshot of {self._path} is closed, and the value was not loaded before; "
                f"read what you need inside the with block"
            )

    def __enter__(self) -> Snapshot:
        self._check_open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = " (closed)" if self._closed else ""
        return f"<richstore.Snapshot of {self._path!r} at commit {self._number()}{state}>"

    def _number(self) -> str:
        return "?" if self._closed else str(self._transaction.id)

    def __del__(self) -> None:
        if not getattr(self, "_closed", True):
            warnings.warn(f"unclosed snapshot of {self._path}", ResourceWarning, stacklevel=2)
            self.close()


class SnapshotGroup(_Frozen):
    """A group as it was at the moment of a snapshot; made by its `group()`.

    Example:
        >>> import richstore
        >>> with richstore.open("memory:") as store:
        ...     store.group("users")["alice"] = {"age": 41}
        ...     with store.snapshot() as view:
        ...         store.group("users").clear()
        ...         view.groups(), dict(view.group("users"))
        (['users'], {'alice': {'age': 41}})
    """

    def __init__(self, parent: _Frozen, name: str) -> None:
        self._snapshot = parent._snapshot
        self._forms = (*parent._forms, group_form(name))
        self._names = (*parent._names, name)
        with self._snapshot._lock:
            self._snapshot._check_open()
            found = space_in(self._snapshot._transaction, self._forms)
        self._id = None if found is None else found.id
        self._space = NOWHERE if found is None else found.prefix
        self._counter = None if found is None else found.counter

    @property
    def name(self) -> str:
        """What it is called in the snapshot, or in the group that it is in."""
        return self._names[-1]

    @property
    def path(self) -> tuple[str, ...]:
        """The names that lead to it."""
        return self._names

    def __repr__(self) -> str:
        return f"<richstore.SnapshotGroup {self._names!r} of {self._snapshot!r}>"


def _expire(reference: weakref.ref[Snapshot]) -> None:
    """End a snapshot that has reached its greatest age, if it is still there."""
    snapshot = reference()
    if snapshot is not None:
        with snapshot._lock:
            snapshot._expired = not snapshot._closed
            snapshot.close()
