"""Where the items of a container come from, and whether there are enough to build it in pages.

The rule: what is taken from an iterator is taken once. Its first items are taken before the
writer's lock, so a small iterable makes nobody wait for it.
"""

from __future__ import annotations

import re
import types
from collections.abc import Iterable, Iterator, Sized
from itertools import chain, islice
from typing import Any

from richstore.errors import ConflictError
from richstore.nodes.adopt import ATOMS

__all__ = ["LARGE", "Source", "first_items", "first_pairs", "source_of"]

# More items than these are built in pages: so many outgrow a record, however small they are.
LARGE = 2000
# And more than these of them that are no atoms.
_LARGE_ITEMS = 300


def _is_large(items: Sized, values: Iterable[Any]) -> bool:
    """Tell whether items are to be built in pages."""
    count = len(items)
    return count > LARGE or (
        count > _LARGE_ITEMS
        and count - sum(map(ATOMS.__contains__, map(type, values))) > _LARGE_ITEMS
    )


class Source:
    """Items, a batch at a time.

    Args:
        head: items that were taken already; of a dict a dict.
        rest: all others.
        original: the list, dict or set that they all are in, if any.
    """

    def __init__(self, head: Any, rest: Iterator[Any], original: Any = None) -> None:
        self.head = head
        self.rest = rest
        self.original = original
        self._begun = False
        # pairs that were taken, for errors
        self.taken = 0

    @property
    def is_unique(self) -> bool:
        """Whether no key or element comes twice."""
        return isinstance(self.original, (dict, set))

    def begin(self) -> None:
        """Begin, or begin again after a conflict.

        Raises:
            ConflictError: what has been taken from an iterator cannot be taken again.
        """
        if self._begun:
            original = self.original
            if original is None:
                raise ConflictError(
                    "another writer was faster, and an iterator cannot be read a second time; run "
                    "it again with a new one"
                )
            self.rest = iter(original.items() if isinstance(original, dict) else original)
            self.head = {} if isinstance(original, dict) else []
        self._begun = True

    def take(self, count: int) -> list[Any]:
        """Return the next items, at least one if there are any."""
        head = self.head
        if head:
            self.head = None
            return list(head)
        return list(islice(self.rest, count))

    def take_pairs(self, count: int) -> dict[Any, Any]:
        """Return the next keys with their values, at least one if there are any."""
        head = self.head
        if head:
            self.head = None
            return dict(head)
        self.taken += count
        return _pairs(islice(self.rest, count), self.taken - count)


_ELEMENT = re.compile(r"element #(\d+)")


def _pairs(items: Iterator[Any], before: int) -> dict[Any, Any]:
    """Return a dict of pairs; errors say which pair it is, counting those before."""
    try:
        return dict(items)
    except (TypeError, ValueError) as error:
        message = str(error)
        if not before or "sequence element #" not in message or len(error.args) != 1:
            raise
        message = _ELEMENT.sub(lambda found: f"element #{int(found[1]) + before}", message)
        raise type(error)(message) from None


def first_items(items: Iterable[Any]) -> list[Any] | Source:
    """Return a list of items, or a source of them when there are many."""
    if type(items) in (list, tuple, set):
        if not _is_large(items, items):  # type: ignore[arg-type]
            return list(items)
        return Source([], iter(items), items)
    rest = iter(items)
    head = list(islice(rest, LARGE))
    more = list(islice(rest, 1))
    if more:
        return Source(head, chain(more, rest))
    return Source([], iter(head), head) if _is_large(head, head) else head


def first_pairs(items: Any, named: dict[str, Any]) -> dict[Any, Any] | Source:
    """Return what `dict.update` would set, or a source of it when that is much."""
    if type(items) is dict:
        if named:
            return _rest(items.items(), named)
        if not _is_large(items, items.values()):
            return items.copy()
        return Source({}, iter(items.items()), items)
    if isinstance(items, dict):
        pairs: Any = items.items()
    elif hasattr(items, "keys"):
        pairs = ((key, items[key]) for key in items.keys())  # noqa: SIM118 - its keys() decides
    else:
        pairs = items
    return _rest(pairs, named)


def _rest(pairs: Iterable[Any], named: dict[str, Any]) -> dict[Any, Any] | Source:
    rest = iter(pairs)
    head = dict(islice(rest, LARGE))
    more = list(islice(rest, 1))
    if more:
        source = Source(head, chain(more, rest, named.items()))
        source.taken = LARGE
        return source
    head.update(named)
    if _is_large(head, head.values()):
        return Source({}, iter(head.items()), head)
    return head


def source_of(value: Any) -> Any:
    """Return the source of a value that is to be built; a value that is not, as it is.

    A generator of few items gives a list.
    """
    kind = type(value)
    if kind is types.GeneratorType:
        return first_items(value)
    if kind in (list, dict, set) and _is_large(value, value.values() if kind is dict else value):
        return Source(None, iter(value.items() if kind is dict else value), value)
    return value
