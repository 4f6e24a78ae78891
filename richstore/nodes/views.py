"""Views of stored dicts: live, as those of a dict are, although a change replaces the content.

Each use asks the face for its content as it is then, and lets the built-in view do the work.
"""

from __future__ import annotations

import types
from collections.abc import ItemsView, Iterator, KeysView, ValuesView
from typing import Any

from richstore.node import Spread
from richstore.nodes.base import view

__all__ = ["DictItems", "DictKeys", "DictValues"]


class _View:
    """What the three views have in common.

    Args:
        face: a stored dict.
    """

    __slots__ = ("_mapping",)
    _name: str

    def __init__(self, face: Any) -> None:
        self._mapping = face

    def _now(self) -> Any:
        """Return the built-in view of the content as it is now."""
        content = view(self._mapping)
        if type(content) is not dict and isinstance(content, Spread) and content.mirror is not None:
            # the face shows it as well
            content = content.mirror
        return getattr(content, self._name)()

    def __iter__(self) -> Iterator[Any]:
        items: Iterator[Any] = iter(self._now())
        return items

    def __reversed__(self) -> Iterator[Any]:
        items: Iterator[Any] = reversed(self._now())
        return items

    def __len__(self) -> int:
        return len(self._now())

    def __contains__(self, item: object) -> bool:
        return item in self._now()

    def __repr__(self) -> str:
        return repr(self._now())

    @property
    def mapping(self) -> Any:
        """A read-only view of the dict."""
        return types.MappingProxyType(view(self._mapping))


class _SetLike(_View):
    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return bool(self._now() == _unwrapped(other))

    def __lt__(self, other: Any) -> bool:
        return bool(self._now() < _unwrapped(other))

    def __le__(self, other: Any) -> bool:
        return bool(self._now() <= _unwrapped(other))

    def __gt__(self, other: Any) -> bool:
        return bool(self._now() > _unwrapped(other))

    def __ge__(self, other: Any) -> bool:
        return bool(self._now() >= _unwrapped(other))

    def __and__(self, other: Any) -> Any:
        return self._now() & _unwrapped(other)

    def __or__(self, other: Any) -> Any:
        return self._now() | _unwrapped(other)

    def __sub__(self, other: Any) -> Any:
        return self._now() - _unwrapped(other)

    def __xor__(self, other: Any) -> Any:
        return self._now() ^ _unwrapped(other)

    def __rand__(self, other: Any) -> Any:
        return other & self._now()

    def __ror__(self, other: Any) -> Any:
        return other | self._now()

    def __rsub__(self, other: Any) -> Any:
        return other - self._now()

    def __rxor__(self, other: Any) -> Any:
        return other ^ self._now()

    def isdisjoint(self, other: Any) -> bool:
        """Tell whether nothing is in both."""
        return bool(self._now().isdisjoint(other))

    __hash__ = None  # type: ignore[assignment]


def _unwrapped(other: Any) -> Any:
    return other._now() if isinstance(other, _View) else other


class DictKeys(_SetLike):
    """The keys of a stored dict."""

    __slots__ = ()
    _name = "keys"


class DictValues(_View):
    """The values of a stored dict."""

    __slots__ = ()
    _name = "values"


class DictItems(_SetLike):
    """The items of a stored dict."""

    __slots__ = ()
    _name = "items"


KeysView.register(DictKeys)
ValuesView.register(DictValues)
ItemsView.register(DictItems)
