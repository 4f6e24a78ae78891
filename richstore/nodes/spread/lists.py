"""The content of a spread list: what a list answers, from pages."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from itertools import chain, islice
from reprlib import recursive_repr
from typing import Any

from richstore.encoding import register_spread
from richstore.errors import CorruptionError
from richstore.node import Node
from richstore.nodes.base import get_content
from richstore.nodes.spread.base import SpreadContent
from richstore.pages import Tree, cell_name

__all__ = ["SpreadList"]


# of an index
_LARGEST = 1 << 63


_NOT_LOADED: Any = object()


def _length(content: SpreadList) -> int:
    pid, before, _ = content.tree.last()
    return content.plausible(before + len(content.page(pid)))


def _item(content: SpreadList, index: int) -> Any:
    if index < 0:
        index += _length(content)
        if index < 0:
            raise IndexError("list index out of range")
    pid, at, _ = content.tree.locate(index)
    items = content.page(pid)
    if at >= len(items):
        raise IndexError("list index out of range")
    return items[at]


def _slice(content: SpreadList, index: slice) -> list[Any]:
    start, stop, step = index.indices(_length(content))
    wanted = range(start, stop, step)
    if not wanted:
        return []
    low, high = min(wanted[0], wanted[-1]), max(wanted[0], wanted[-1])
    found: list[Any] = []
    at = low
    seen: set[int] = set()
    while at <= high:
        pid, offset, _ = content.tree.locate(at)
        if pid in seen:
            raise CorruptionError(f"page {pid} of a list is in its index twice")
        seen.add(pid)
        part = content.page(pid)[offset : offset + high + 1 - at]
        if not part:
            break
        found += part
        at += len(part)
    return found[:: abs(step)] if step > 0 else found[::-1][:: abs(step)]


@register_spread
class SpreadList(SpreadContent):
    """The content of a spread list."""

    __slots__ = ()
    builtin = list
    __hash__ = None  # type: ignore[assignment]

    @property
    def tree(self) -> Tree:
        """The counted tree as the caller is to see it."""
        return Tree(self, self.cid)

    def page_ids(self, reverse: bool = False) -> Iterator[int]:
        """Yield the ids of the pages in order."""
        pids = self.tree.pages(reverse)
        return each_once(pids) if self.is_strict else pids

    def __len__(self) -> int:
        found: int = self.read("__len__", _length)
        return found

    def __getitem__(self, index: Any) -> Any:
        if type(index) is int and index >= 0 and self.node is not None:
            found = self._loaded_item(self.node, index)
            if found is not _NOT_LOADED:
                return found
        if isinstance(index, slice):
            return self.read("__getitem__", _slice, index)
        try:
            number = operator.index(index)
        except TypeError:
            raise TypeError(
                f"list indices must be integers or slices, not {type(index).__name__}"
            ) from None
        if not -_LARGEST <= number < _LARGEST:
            raise IndexError(f"cannot fit '{type(index).__name__}' into an index-sized integer")
        return self.read("__getitem__", _item, number)

    def _loaded_item(self, node: Node, at: int) -> Any:
        """Return an item as `_item` does, the short way; `_NOT_LOADED` if it is not so easy."""
        record = node.record
        if record is None:
            return _NOT_LOADED
        with record.tracker.lock:
            tracker = self.settled(node)
            if tracker is None:
                return _NOT_LOADED
            cells = tracker.cells
            name = cell_name(self.cid)
            while True:
                index = cells.get(name)
                if index is None:
                    return _NOT_LOADED
                child, at = index.find(at)
                pid = index.ids[child]
                if index.level == 0:
                    break
                name = cell_name(self.cid, pid)
            face = self.loaded_page(tracker, pid)
            if face is None:
                return _NOT_LOADED
            items = get_content(face)
            return _NOT_LOADED if at >= len(items) else items[at]

    def __iter__(self) -> Iterator[Any]:
        if self.transaction() is not None:
            return self._live_iterator()
        return chain.from_iterable(self.contents())

    def _live_iterator(self) -> Iterator[Any]:
        """Iterate as a list's iterator does: by position, seeing what is changed meanwhile."""
        at = 0
        while True:
            try:
                item = self[at]
            except IndexError:
                return
            yield item
            at += 1

    def __reversed__(self) -> Iterator[Any]:
        if self.transaction() is not None:
            return self._live_reversed()
        return (item for items in self.contents(reverse=True) for item in reversed(items))

    def _live_reversed(self) -> Iterator[Any]:
        for at in range(len(self) - 1, -1, -1):
            try:
                item = self[at]
            except IndexError:
                return
            yield item

    def __contains__(self, value: Any) -> bool:
        return any(item is value or item == value for item in self)

    def index(self, value: Any, start: Any = 0, stop: Any = None, /) -> int:
        """Return the first position of a value."""
        length = len(self)
        try:
            start, stop, _ = slice(start, stop).indices(length)
        except TypeError:
            raise TypeError("slice indices must be integers or have an __index__ method") from None
        for at, item in enumerate(islice(self, start, stop), start):
            if item is value or item == value:
                return at
        raise ValueError(f"{value!r} is not in list")

    def count(self, value: Any, /) -> int:
        """Return how often a value occurs."""
        return sum(1 for item in self if item is value or item == value)

    def __eq__(self, other: object) -> Any:
        if not isinstance(other, list):
            return NotImplemented
        return len(self) == len(other) and all(
            a is b or a == b for a, b in zip(self, other, strict=False)
        )

    def __ne__(self, other: object) -> Any:
        equal = self.__eq__(other)
        return equal if equal is NotImplemented else not equal

    def __lt__(self, other: Any) -> Any:
        return list(self) < _whole(other)

    def __le__(self, other: Any) -> Any:
        return list(self) <= _whole(other)

    def __gt__(self, other: Any) -> Any:
        return list(self) > _whole(other)

    def __ge__(self, other: Any) -> Any:
        return list(self) >= _whole(other)

    def __add__(self, other: Any) -> Any:
        return list(self) + _whole(other)

    def __radd__(self, other: Any) -> Any:
        return _whole(other) + list(self)

    def __mul__(self, times: Any) -> Any:
        return list(self) * times

    __rmul__ = __mul__

    @recursive_repr("[...]")
    def __repr__(self) -> str:
        return repr(list(self))

    def __str__(self) -> str:
        return repr(self)

    def __format__(self, form: str) -> str:
        return format(list(self), form) if form else repr(self)


def each_once(pids: Iterator[int]) -> Iterator[int]:
    """Yield the ids of pages, none twice: a small index could make a large list of a few pages.

    Raises:
        CorruptionError: one comes a second time.
    """
    seen: set[int] = set()
    for pid in pids:
        if pid in seen:
            raise CorruptionError(f"page {pid} of a list is in its index twice")
        seen.add(pid)
        yield pid


def _whole(other: Any) -> Any:
    return other.whole() if isinstance(other, SpreadContent) else other


# what Python's own messages are to name, and help() to say
SpreadList.__name__ = "list"
SpreadList.__doc__ = list.__doc__
