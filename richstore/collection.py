"""Collections: mappings of live values, which stores and groups are.

What is read comes from the records that the tracker has loaded; what is changed is a transaction.
A collection knows in which part of the key space its values lie (`_space`), and no more of groups.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import Any, Self, TypeVar, overload

from richstore.codec import records
from richstore.codec.sealed import Sealed
from richstore.errors import ClosedError, PlacedError, RichStoreError
from richstore.mapping import K, Range, Reading, V, form_of, stored_key
from richstore.nodes import FrozenView, frozen_value, plain
from richstore.nodes.adopt import Adopter, is_plain
from richstore.nodes.spread.building import build_value
from richstore.nodes.spread.sources import Source, source_of
from richstore.record import Record
from richstore.spaces import value_in
from richstore.tracker import Tracker
from richstore.transaction import Transaction, current

__all__ = ["MISSING", "Collection"]

D = TypeVar("D")
# What is returned for a value that is not there.
MISSING: Any = object()


class Collection(Reading[K, V], MutableMapping[K, V]):
    """A mapping whose values are saved when they change; the base of `Store` and `Group`."""

    _tracker: Tracker
    # how Python would write the way to it from the store, for errors
    _place = ""
    _reveal: bool
    _closed: bool

    @property
    @abstractmethod
    def _space(self) -> bytes:
        """What the engine keys of its values begin with, as the caller sees it just now."""

    @abstractmethod
    def _space_in(self, view: Any, transaction: Transaction | None) -> bytes:
        """Return the same for a view, and what a transaction has changed there."""

    @abstractmethod
    def _closed_error(self) -> ClosedError:
        """Return the error for what cannot be done as the store is closed."""

    @abstractmethod
    def _check_writable(self) -> None:
        """Raise an error if the store is closed, or open for reading only."""

    @abstractmethod
    def _run(self, work: Any, is_plain: Callable[[], bool] | None = None) -> Any:
        """Run `work(transaction)` in the current transaction, or in one of its own."""

    @abstractmethod
    def transaction(self) -> Any:
        """Return a context manager: what changes inside is committed together, or not at all."""

    # --- reading ---

    def __getitem__(self, key: K) -> V:
        value = self._get(form_of(key))
        if value is MISSING:
            raise KeyError(key)
        return value  # type: ignore[no-any-return]

    def _get(self, form: bytes) -> Any:
        """Return the value under the form of a key, or `MISSING`."""
        return self._read(self._space + form)

    def _read(self, name: bytes) -> Any:
        """Return the value under an engine key, or `MISSING`."""
        tracker = self._tracker
        if self._closed:
            raise self._closed_error()
        transaction = current(tracker)
        if transaction is None or transaction.ended:
            tracker.refresh()
        else:
            root = transaction.roots.get(name, MISSING)
            if root is not MISSING:
                return MISSING if root is None else self._shown(root.value)
            if transaction.has_left(name):
                return MISSING
        found, value = tracker.read(name)
        if self._reveal:
            value = self._shown(value)
        return value if found else MISSING

    def _shown(self, value: Any) -> Any:
        """Return what the user is to get for a value."""
        return value.reveal() if self._reveal and type(value) is Sealed else value

    @overload
    def get(self, key: K, /) -> V | None: ...
    @overload
    def get(self, key: K, /, default: V | D) -> V | D: ...

    def get(self, key: Any, /, default: Any = None) -> Any:
        """Return the value under `key`, or `default`."""
        value = self._get(form_of(key))
        return default if value is MISSING else value

    def __contains__(self, key: object) -> bool:
        return self._has(form_of(key))

    def _has(self, form: bytes) -> bool:
        name = self._space + form
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
            return value_in(view.get, name) is not None

    def _scan(self, rows: Range) -> Iterator[tuple[Any, bytes, Any]]:
        if self._closed:
            raise self._closed_error()
        return self._loop(rows)

    def _loop(self, rows: Range) -> Iterator[tuple[Any, bytes, Any]]:
        """Yield keys, engine keys, and what `_value` needs: the record, and the loop it is of."""
        tracker = self._tracker
        transaction = current(tracker)
        if transaction is None or transaction.ended:
            transaction = None
            tracker.refresh()
        loop = _Loop(tracker)
        try:
            found = self._rows(rows, loop.view, transaction)
            for key, name, stored in rows.select(found, tracker.classes):
                yield key, name, (stored, loop)
        finally:
            loop.end()

    def _rows(
        self, rows: Range, view: Any, transaction: Transaction | None
    ) -> Iterator[tuple[bytes, Any]]:
        """Yield engine keys and records; those changed in a transaction come from it."""
        first, last = rows.within(self._space_in(view, transaction))
        stored = view.scan(first, last, reverse=rows.reverse)
        if transaction is None:
            yield from stored
            return
        own = {name: root for name, root in transaction.roots.items() if first <= name < last}
        if getattr(self._tracker.engine, "is_ordered", True):
            yield from _merge(own, stored, rows.reverse)
        else:
            yield from _mix(own, stored)

    def _value(self, name: bytes, stored: Any) -> Any:
        record, loop = stored
        if isinstance(record, Record):
            return self._shown(record.value)
        parts = self._tracker.parse(name, record)
        if not parts.table:
            return self._shown(self._tracker.decode_plain(name, parts))
        value = self._read(name)
        # deleted since the loop began: it still reads
        return loop.frozen(name, record) if value is MISSING else value

    # --- changing ---

    def __setitem__(self, key: K, value: V) -> None:
        form = form_of(key)
        self._check_writable()
        # items of a generator are taken before others have to wait
        taken = source_of(value)
        self._run(
            lambda transaction: self._assign(transaction, key, form, taken),
            lambda: is_plain((key, taken)),
        )

    def _assign(self, transaction: Transaction, key: Any, form: bytes, value: Any) -> None:
        tracker = self._tracker
        name = self._space + form
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
            kept = stored_key(tracker.classes, key, form)
        record = Record(tracker, name, kept)
        value = source_of(value)
        if isinstance(value, Source):
            with transaction.nested():
                record.value = build_value(transaction, record, value)
                self._put(transaction, record, existed)
            return
        adopter = Adopter(transaction, record)
        try:
            record.value = adopter(value)
            self._put(transaction, record, existed)
        except PlacedError as error:
            adopter.undo()
            raise error.inside(f"{self._place}[{key!r}]") from error.__cause__
        except BaseException:
            adopter.undo()
            raise

    @staticmethod
    def _put(transaction: Transaction, record: Record, existed: bool) -> None:
        """Let a new record be part of the store, whatever the code that made its value has done."""
        name = record.name
        if transaction.has_left(name):
            raise RichStoreError(
                "what made the value has cleared or dropped the group that it was to be put into; "
                "make the value before, or clear the group before"
            )
        root = transaction.roots.get(name, MISSING)
        transaction.set_root(name, record, existed if root is MISSING else root is not None)

    def _existing(self, transaction: Transaction, name: bytes) -> tuple[bytes | None, bool]:
        """Return the stored key of the value under an engine key, and whether there is one."""
        root = transaction.roots.get(name, MISSING)
        if root is not MISSING:
            return (None, False) if root is None else (root.stored_key, True)
        stored = transaction.engine.get(name)
        return (None, False) if stored is None else (records.stored_key(stored), True)

    def __delitem__(self, key: K) -> None:
        form = form_of(key)
        if not self._run(lambda transaction: self._remove(transaction, form), lambda: True):
            raise KeyError(key)

    def _remove(self, transaction: Transaction, form: bytes) -> bool:
        name = self._space + form
        existed = self._existing(transaction, name)[1]
        if existed:
            transaction.set_root(name, None, True)
        return existed

    @overload
    def pop(self, key: K) -> V: ...
    @overload
    def pop(self, key: K, default: V | D) -> V | D: ...

    def pop(self, key: Any, default: Any = MISSING) -> Any:
        """Remove `key` and return its value as plain data, or `default` when there is none.

        Raises:
            KeyError: there is no such key, and no default.
        """
        form = form_of(key)

        def work(transaction: Transaction) -> Any:
            value = self._get(form)
            if value is MISSING:
                return MISSING
            value = plain(value)
            self._remove(transaction, form)
            return value

        value = self._run(work, lambda: True)
        if value is not MISSING:
            return value
        if default is MISSING:
            raise KeyError(key)
        return default

    def popitem(self) -> tuple[K, V]:
        """Remove the last item in key order and return it, its value as plain data.

        Raises:
            KeyError: there is none.
        """

        def work(transaction: Transaction) -> tuple[K, V]:
            for key in reversed(self):
                return key, self.pop(key)
            raise KeyError(f"popitem(): {type(self).__name__.lower()} is empty")

        item: tuple[K, V] = self._run(work)
        return item

    def setdefault(self, key: K, default: Any = None) -> V:
        """Return the value under `key`, which becomes `default` when there is none."""
        form = form_of(key)
        value = self._get(form)
        if value is not MISSING:
            return value  # type: ignore[no-any-return]

        def work(transaction: Transaction) -> Any:
            if self._get(form) is MISSING:
                self._assign(transaction, key, form, default)

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

    def __ior__(self, other: Any) -> Self:
        self.update(other)
        return self


class _Loop:
    """The state that a loop goes through.

    Attributes:
        view: a read transaction of it.
    """

    __slots__ = ("_frozen", "_tracker", "view")

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker
        self._frozen: FrozenView | None = None
        self.view = tracker.engine.read()

    def frozen(self, name: bytes, stored: bytes) -> Any:
        """Return a value of that state which is not in the store any more."""
        if self._frozen is None:
            tracker = self._tracker
            path = tracker.engine.path
            self._frozen = FrozenView(self.view, frozen_value, tracker.classes, path)
        return frozen_value(self._frozen, name, stored)

    def end(self) -> None:
        """Close the view, unless values read their pages in it; then it ends with them."""
        if self._frozen is None:
            self.view.close()


def _merge(
    roots: dict[bytes, Any], stored: Iterator[tuple[bytes, Any]], reverse: bool
) -> Iterator[tuple[bytes, Any]]:
    """Put what a transaction has set under keys among what is stored, in order."""
    own = sorted(roots, reverse=not reverse)
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


def _mix(own: dict[bytes, Any], stored: Iterator[tuple[bytes, Any]]) -> Iterator[tuple[bytes, Any]]:
    """Put what a transaction has set under keys behind what is stored, which is in no order."""
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
