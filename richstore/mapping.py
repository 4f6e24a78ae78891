"""What stores and snapshots have in common: a read-only mapping in key order, with ranges.

`Reading` asks its subclass for a scan of the engine's records and for the value of one; everything
else (dict's reading methods, live set-like views, ranges) is made of these.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import ItemsView, Iterator, KeysView, Mapping, ValuesView
from typing import Any, NoReturn, TypeVar

from richstore.codec import keys, records, stream
from richstore.codec.missing import MissingType, kept_of
from richstore.codec.notes import Notes, reading
from richstore.codec.policy import ClassPolicy
from richstore.errors import CorruptionError, FormatError, KeyTypeError, explain
from richstore.spaces import form_in

__all__ = [
    "Items",
    "K",
    "Keys",
    "Range",
    "Reading",
    "V",
    "Values",
    "form_of",
    "stored_key",
    "user_key",
]

K = TypeVar("K")
V = TypeVar("V")
Row = tuple[bytes, Any]


def form_of(key: Any) -> bytes:
    """Return the form of a user's key: its engine key, without that of the mapping it is in.

    Raises:
        KeyTypeError: the key is of a type that cannot be stored.
    """
    if type(type(key)) is MissingType and kept_of(key).key is not None:
        return bytes(kept_of(key).key or b"")
    return keys.encode_key(key)


def stored_key(classes: ClassPolicy, key: Any, form: bytes) -> bytes | None:
    """Return what a record has to keep of a key that its form does not tell."""
    return None if keys.is_canonical(key, form) else stream.dump_blob(key, classes)


def user_key(classes: ClassPolicy, name: bytes, stored: bytes | None) -> Any:
    """Return the user's key of the record with an engine key."""
    if stored is None:
        return keys.decode_key(form_in(name))
    key = records.load_blob(stored, classes)
    if type(type(key)) is MissingType:
        # a member of an Enum that cannot be found, by which its value can be
        kept_of(key).key = form_in(name)
    return key


def _key_of(classes: ClassPolicy, name: bytes, stored: Any) -> Any:
    """Return the user's key of a record, which may be damaged.

    Raises:
        CorruptionError: the key is not what was written.
    """
    kept = records.stored_key(stored)
    if kept is None:
        return user_key(classes, name, None)
    notes = Notes()
    try:
        with reading(notes):
            key = user_key(classes, name, kept)
    except Exception:
        _check(name, stored)
        raise
    try:
        # under its old name: see `Store.migrate`
        if notes.outdated or form_of(key) == form_in(name):
            return key
    except KeyTypeError:
        if not _holds_missing(key):
            _check(name, stored)
            raise
    _check(name, stored)
    return key


def _holds_missing(key: Any) -> bool:
    return type(type(key)) is MissingType or (
        isinstance(key, tuple) and any(map(_holds_missing, key))
    )


def _check(name: bytes, stored: Any) -> None:
    """Raise `CorruptionError` if a record with a key that cannot be trusted is damaged."""
    if isinstance(stored, (bytes, memoryview)):
        try:
            records.parse(name, bytes(stored))
        except (CorruptionError, FormatError) as error:
            explain(error, f"[{name!r}]")
            raise


class Range:
    """Which keys, and in which order.

    Args:
        start: the least key; None: from the first.
        stop: the first key that is too great; None: to the last.
        prefix: what keys begin with: a str, bytes or tuple.
        reverse: from the last to the first.
    """

    def __init__(
        self, start: Any = None, stop: Any = None, prefix: Any = None, reverse: bool = False
    ) -> None:
        self.bounds = keys.range_bounds(start, stop, prefix)
        self.reverse = reverse
        self.everything = start is None and stop is None and prefix is None

    def reversed(self) -> Range:
        """Return the same keys in the other order."""
        other = Range()
        other.__dict__.update(self.__dict__, reverse=not self.reverse)
        return other

    def within(self, space: bytes) -> tuple[bytes, bytes]:
        """Return the bounds, the second exclusive, in a space of engine keys."""
        first, last = self.bounds.start, self.bounds.stop
        if last is not None:
            return space + first, space + last
        after = int.from_bytes(space, "big") + 1
        return space + first, after.to_bytes(len(space), "big")

    def select(self, rows: Iterator[Row], classes: ClassPolicy) -> Iterator[tuple[Any, bytes, Any]]:
        """Yield (key, name, stored) of the rows in the range, in the order of the keys themselves.

        Keys too long for the engine are cut, with a hash at the end: a run of them that begin
        alike comes in the order of the hashes, and is put in that of the keys here.
        """
        run: list[tuple[bytes, Any, bytes, Any]] = []
        for name, stored in rows:
            encoded = form_in(name)
            key = _key_of(classes, name, stored)
            if not keys.is_truncated(encoded):
                yield from self._flush(run)
                yield key, name, stored
                continue
            if run and not keys.same_run(form_in(run[0][2]), encoded):
                yield from self._flush(run)
            full = keys.full_key(key)
            if self.bounds.admits(full):
                run.append((full, key, name, stored))
        yield from self._flush(run)

    def _flush(self, run: list[tuple[bytes, Any, bytes, Any]]) -> Iterator[tuple[Any, bytes, Any]]:
        if run:
            run.sort(key=lambda row: row[0], reverse=self.reverse)
            yield from [row[1:] for row in run]
            run.clear()


class Reading(Mapping[K, V]):
    """A mapping that reads records of an engine."""

    _richstore_unstorable = (
        "a store, a group or a snapshot cannot be stored, pickled or copied, as it stands for what "
        "is in a file: take dict(…) of it, or open it where it is needed"
    )

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError(self._richstore_unstorable)

    @abstractmethod
    def _scan(self, rows: Range) -> Iterator[tuple[Any, bytes, Any]]:
        """Yield key, engine key and record of a range, from one consistent view."""

    @abstractmethod
    def _value(self, name: bytes, stored: Any) -> Any:
        """Return the value of a record that `_scan` has given."""

    def __iter__(self) -> Iterator[K]:
        return (key for key, _, _ in self._scan(Range()))

    def __reversed__(self) -> Iterator[K]:
        return (key for key, _, _ in self._scan(Range(reverse=True)))

    def keys(
        self, start: Any = None, stop: Any = None, *, prefix: Any = None, reverse: bool = False
    ) -> Keys[K]:
        """Return a live, set-like view of the keys, or of a range of them.

        Args:
            start: the least key, inclusive; None: from the first.
            stop: the end, exclusive; None: to the last.
            prefix: only keys that begin with this str, bytes or tuple.
            reverse: from the last to the first.

        Raises:
            KeyTypeError: a bound is of a type that is no key.
        """
        return Keys(self, Range(start, stop, prefix, reverse))

    def items(
        self, start: Any = None, stop: Any = None, *, prefix: Any = None, reverse: bool = False
    ) -> Items[K, V]:
        """Return a live, set-like view of the items; the arguments are those of `keys`."""
        return Items(self, Range(start, stop, prefix, reverse))

    def values(
        self, start: Any = None, stop: Any = None, *, prefix: Any = None, reverse: bool = False
    ) -> Values[V]:
        """Return a live view of the values; the arguments are those of `keys`."""
        return Values(self, Range(start, stop, prefix, reverse))

    def __or__(self, other: Any) -> Any:
        if not isinstance(other, Mapping):
            return NotImplemented
        return dict(self.items()) | dict(other.items())

    def __ror__(self, other: Any) -> Any:
        if not isinstance(other, Mapping):
            return NotImplemented
        return dict(other.items()) | dict(self.items())

    def copy(self) -> dict[K, V]:
        """Return a dict with the same items, as `dict(store)` does."""
        return dict(self.items())


class _View:
    """The part of a mapping that a view shows."""

    _mapping: Any

    def __init__(self, mapping: Reading[Any, Any], rows: Range) -> None:
        super().__init__(mapping)  # type: ignore[call-arg]
        self._rows = rows

    def _rows_in_order(self, reverse: bool = False) -> Iterator[tuple[Any, bytes, Any]]:
        rows: Range = self._rows.reversed() if reverse else self._rows
        found: Iterator[tuple[Any, bytes, Any]] = self._mapping._scan(rows)
        return found

    def __len__(self) -> int:
        if self._rows.everything:
            return len(self._mapping)
        return sum(1 for _ in self._rows_in_order())

    def _contains_key(self, key: Any) -> bool:
        if key not in self._mapping:
            return False
        return self._rows.everything or self._rows.bounds.admits(keys.full_key(key))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({list(self)!r})"  # type: ignore[call-overload]


class Keys(_View, KeysView[K]):
    """A live view of keys."""

    def __iter__(self) -> Iterator[K]:
        return (key for key, _, _ in self._rows_in_order())

    def __reversed__(self) -> Iterator[K]:
        return (key for key, _, _ in self._rows_in_order(reverse=True))

    def __contains__(self, key: object) -> bool:
        return self._contains_key(key)


class Values(_View, ValuesView[V]):
    """A live view of values."""

    def __iter__(self) -> Iterator[V]:
        value = self._mapping._value
        return (value(name, stored) for _, name, stored in self._rows_in_order())

    def __reversed__(self) -> Iterator[V]:
        value = self._mapping._value
        return (value(name, stored) for _, name, stored in self._rows_in_order(reverse=True))

    def __contains__(self, value: object) -> bool:
        return any(found is value or found == value for found in self)


class Items(_View, ItemsView[K, V]):
    """A live view of items."""

    def __iter__(self) -> Iterator[tuple[K, V]]:
        value = self._mapping._value
        return ((key, value(name, stored)) for key, name, stored in self._rows_in_order())

    def __reversed__(self) -> Iterator[tuple[K, V]]:
        value = self._mapping._value
        rows = self._rows_in_order(reverse=True)
        return ((key, value(name, stored)) for key, name, stored in rows)

    def __contains__(self, item: object) -> bool:
        if not isinstance(item, tuple) or len(item) != 2:
            return False
        key, value = item
        if not self._contains_key(key):
            return False
        found = self._mapping[key]
        return bool(found is value or found == value)
