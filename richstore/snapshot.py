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
from richstore.mapping import Range, Reading, name_of
from richstore.nodes import FrozenView, frozen_value
from richstore.tracker import COUNT_KEY

__all__ = ["Snapshot"]

_MISSING = object()


class Snapshot(Reading):
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

    def __getitem__(self, key: Any) -> Any:
        name = name_of(key)
        found = self._load(name, _MISSING)
        if found is _MISSING:
            raise KeyError(key)
        return found

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
        return found.reveal() if self._reveal and type(found) is Sealed else found

    def __contains__(self, key: object) -> bool:
        with self._lock:
            self._check_open()
            return self._transaction.get(name_of(key)) is not None

    def __len__(self) -> int:
        with self._lock:
            self._check_open()
            return int.from_bytes(self._transaction.get(COUNT_KEY) or b"", "little")

    def _scan(self, rows: Range) -> Iterator[tuple[Any, bytes, Any]]:
        self._check_open()
        scan = self._transaction.scan(rows.first_name, rows.last_name, reverse=rows.reverse)
        return rows.select(scan, self._classes)

    def _value(self, name: bytes, stored: Any) -> Any:
        return self._load(name, stored)

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


def _expire(reference: weakref.ref[Snapshot]) -> None:
    """End a snapshot that has reached its greatest age, if it is still there."""
    snapshot = reference()
    if snapshot is not None:
        with snapshot._lock:
            snapshot._expired = not snapshot._closed
            snapshot.close()
