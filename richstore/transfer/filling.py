"""Putting items into a store, in one transaction or in several."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from typing import Any, NamedTuple

from richstore.codec.keys import encode_key
from richstore.errors import FormatError, KeyTypeError, PlacedError, RichStoreError
from richstore.groups import Group
from richstore.store import Store

__all__ = ["BATCH", "Row", "count_all", "fill"]

# How many items a transaction takes: each is in memory until the commit, with about 4 KB.
BATCH = 10_000


class Row(NamedTuple):
    """An item to store: the names of the group, key, value, and where it is from, for errors."""

    path: tuple[str, ...]
    key: Any
    value: Any
    place: str


def count_all(target: Any, rows: Iterable[Row]) -> int:
    """Return how many items there are, each of which can be stored by its group and key."""
    _check_target(target)
    count = 0
    for row in rows:
        _group_of(target, row)
        try:
            encode_key(row.key)
        except KeyTypeError as error:
            raise KeyTypeError(f"{row.place}: {error}") from error
        count += 1
    return count


def fill(
    target: Any,
    rows: Iterable[Row],
    *,
    replace: bool,
    count: int | None,
    tell: Callable[[int], object],
) -> int:
    """Store items; return how many.

    Args:
        target: the store, or a group of one.
        rows: the items.
        replace: whether what is there is removed before.
        count: how many there are at most; None: that is not known, and all go in one transaction.
        tell: called with the number of items that are stored.
    """
    _check_target(target)
    coming = iter(rows)
    batch = None if count is None else BATCH
    stored = 0
    cleared = not replace
    while True:
        # whether there is anything more is asked for outside of a transaction
        first = list(islice(coming, 1))
        if not first and cleared:
            return stored
        try:
            with target.transaction():
                if not cleared:
                    _clear(target)
                part = stored + _store(target, islice(chain(first, coming), batch), stored, tell)
        except RichStoreError as error:
            if stored:
                error.add_note(f"richstore: the {stored:,} items before are in the store")
            raise
        stored = part
        cleared = True
        if batch is None:
            return stored


def _store(target: Any, rows: Iterator[Row], before: int, tell: Callable[[int], object]) -> int:
    count = 0
    groups: dict[tuple[str, ...], Any] = {(): target}
    for row in rows:
        group = groups.get(row.path)
        if group is None:
            group = groups[row.path] = _group_of(target, row)
        try:
            group[row.key] = row.value
        except PlacedError as error:
            # it begins with the key, which the place has as well
            raise type(error)(error.reason, f"{row.place}, {error.path}") from error.__cause__
        except KeyTypeError as error:
            raise KeyTypeError(f"{row.place}: {error}") from error
        count += 1
        tell(before + count)
    return count


def _check_target(target: Any) -> None:
    if not isinstance(target, (Store, Group)):
        raise TypeError(f"the target must be a store or a group, not a {type(target).__name__}")


def _group_of(target: Any, row: Row) -> Any:
    try:
        for name in row.path:
            target = target.group(name)
    except ValueError as error:
        raise FormatError(f"{row.place}: {error}") from error
    return target


def _clear(target: Any) -> None:
    for name in target.groups():
        target.group(name).drop()
    target.clear()
