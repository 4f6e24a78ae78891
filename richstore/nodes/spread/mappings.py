"""The contents of spread dicts and sets: what these answer, from pages."""

from __future__ import annotations

from collections.abc import Callable, ItemsView, Iterator, KeysView, ValuesView
from itertools import chain
from reprlib import recursive_repr
from typing import Any

from richstore.encoding import register_spread
from richstore.errors import CorruptionError
from richstore.nodes.base import get_content
from richstore.nodes.base import view as visible
from richstore.nodes.spread.base import SpreadContent
from richstore.pages import entry_form, entry_name, page_name

__all__ = ["SpreadDict", "SpreadSet", "element", "page_with"]

_MISSING: Any = object()


def page_with(content: SpreadContent, key: Any) -> int | None:
    """Return the id of the page that has a key, or None.

    A key of a type whose equality bytes do not tell is compared with all keys, as its class says.
    """
    hash(key)
    form = entry_form(key)
    if form is None:
        for pid in content.page_ids():
            if key in content.page(pid):
                return pid
        return None
    name = entry_name(content.cid, form)
    stored: bytes | None
    if content.frozen is not None:
        stored = content.frozen.get(name)
    else:
        transaction = content.transaction()
        if transaction is not None:
            stored = transaction.entry(name)
        else:
            tracker = content._tracker()
            with tracker.lock, tracker.view() as view:
                stored = view.get(name)
    return None if stored is None else int.from_bytes(stored, "big")


def element(key: Any) -> Any:
    """Return what a set looks for when it is asked for a key: for a set its frozenset."""
    try:
        hash(key)
    except TypeError:
        if not isinstance(key, set):
            raise
        return frozenset(key)
    return key


def _length(content: SpreadContent) -> int:
    count: int = content.root.count
    return content.plausible(count)


def _has(content: SpreadContent, key: Any) -> bool:
    return page_with(content, key) is not None


def _get(content: SpreadDict, key: Any, default: Any) -> Any:
    pid = page_with(content, key)
    if pid is None:
        return default
    found = content.page(pid).get(key, _MISSING)
    if found is _MISSING:
        raise CorruptionError(
            f"the index of a dict leads from the key {key!r} to a page that does not have it "
            f"(spread id {content.cid}, page {pid})"
        )
    return found


class _Keyed(SpreadContent):
    """What dicts and sets have in common."""

    __slots__ = ()

    def page_ids(self, reverse: bool = False) -> Iterator[int]:
        """Yield the ids of the pages in order."""
        return self.walk_pages(page_name(self.cid, 0), page_name(self.cid + 1, 0), reverse)

    def __len__(self) -> int:
        found: int = self.read("__len__", _length)
        return found

    def __contains__(self, key: Any) -> bool:
        found: bool = self.read("__contains__", _has, key)
        return found

    def __iter__(self) -> Iterator[Any]:
        return self._iterate(False)

    def _iterate(self, reverse: bool) -> Iterator[Any]:
        if self.transaction() is None:
            return self._chain(iter, reverse)
        return self._live_keys(reverse)

    def _chain(self, part: Callable[[Any], Any], reverse: bool) -> Iterator[Any]:
        """Return an iterator, which runs in C, over a part of the content of each page."""
        contents = self.contents(reverse)
        if not reverse:
            return chain.from_iterable(map(part, contents))
        return chain.from_iterable(
            reversed(content if part is iter else part(content)) for content in contents
        )

    def _live_keys(self, reverse: bool) -> Iterator[Any]:
        """Yield the keys as they are in the caller's transaction."""
        count = len(self)
        for pid in list(self.page_ids(reverse)):
            content = list(self.page(pid))
            for key in reversed(content) if reverse else content:
                if self.transaction() is not None and len(self) != count:
                    kind = "dictionary" if self.builtin is dict else "Set"
                    raise RuntimeError(f"{kind} changed size during iteration")
                yield key

    def __ne__(self, other: object) -> Any:
        equal = self.__eq__(other)
        return equal if equal is NotImplemented else not equal


class _Keys(KeysView[Any]):
    _mapping: Any

    def __reversed__(self) -> Iterator[Any]:
        keys: Iterator[Any] = reversed(self._mapping)
        return keys

    def __repr__(self) -> str:
        return f"dict_keys({list(self)!r})"


class _Values(ValuesView[Any]):
    _mapping: Any

    def __iter__(self) -> Iterator[Any]:
        values: Iterator[Any] = self._mapping.values_of_pages()
        return values

    def __reversed__(self) -> Iterator[Any]:
        values: Iterator[Any] = self._mapping.values_of_pages(True)
        return values

    def __repr__(self) -> str:
        return f"dict_values({list(self)!r})"


class _Items(ItemsView[Any, Any]):
    _mapping: Any

    def __contains__(self, item: object) -> bool:
        return isinstance(item, tuple) and len(item) == 2 and super().__contains__(item)

    def __iter__(self) -> Iterator[Any]:
        items: Iterator[Any] = self._mapping.pairs()
        return items

    def __reversed__(self) -> Iterator[Any]:
        items: Iterator[Any] = self._mapping.pairs(True)
        return items

    def __repr__(self) -> str:
        return f"dict_items({list(self)!r})"


@register_spread
class SpreadDict(_Keyed):
    """The content of a spread dict."""

    __slots__ = ()
    builtin = dict
    fromkeys = staticmethod(dict.fromkeys)
    __hash__ = None  # type: ignore[assignment]

    def __getitem__(self, key: Any) -> Any:
        found = self._loaded_value(key)
        if found is _MISSING:
            found = self.read("get", _get, key, _MISSING)
        if found is _MISSING:
            raise KeyError(key)
        return found

    def _loaded_value(self, key: Any) -> Any:
        """Return a value as `_get` does, the short way; `_MISSING` if it is not so easy."""
        node = self.node
        record = None if node is None else node.record
        form = entry_form(key)
        if record is None or form is None:
            return _MISSING
        assert node is not None
        name = entry_name(self.cid, form)
        with record.tracker.lock:
            transaction = record.tracker.transaction
            if transaction is not None:
                if not transaction.is_working() or node.work is not self:
                    return _MISSING
                tracker, stored = record.tracker, transaction.entry(name)
            else:
                tracker = self.settled(node)
                if tracker is None:
                    return _MISSING
                view = tracker.engine.read()
                try:
                    # the state of what is loaded, and no other
                    stored = view.get(name) if view.id == tracker.seen else None
                finally:
                    view.close()
            if stored is None:
                return _MISSING
            face = self.loaded_page(tracker, int.from_bytes(stored, "big"))
            if face is None:
                return _MISSING
            content = get_content(face) if transaction is None else visible(face)
            return content.get(key, _MISSING)

    def get(self, key: Any, default: Any = None, /) -> Any:
        """Return the value under a key, or the default."""
        found = self._loaded_value(key)
        return self.read("get", _get, key, default) if found is _MISSING else found

    def __reversed__(self) -> Iterator[Any]:
        return self._iterate(True)

    def pairs(self, reverse: bool = False) -> Iterator[tuple[Any, Any]]:
        """Return an iterator over the items."""
        if self.transaction() is None:
            return self._chain(dict.items, reverse)
        return ((key, self[key]) for key in self._live_keys(reverse))

    def values_of_pages(self, reverse: bool = False) -> Iterator[Any]:
        """Return an iterator over the values."""
        if self.transaction() is None:
            return self._chain(dict.values, reverse)
        return (self[key] for key in self._live_keys(reverse))

    def keys(self) -> Any:
        """Return a view of the keys."""
        return _Keys(self)

    def values(self) -> Any:
        """Return a view of the values."""
        return _Values(self)

    def items(self) -> Any:
        """Return a view of the items."""
        return _Items(self)

    def whole(self) -> dict[Any, Any]:
        """Return a dict with the items."""
        return dict(self.pairs())

    def __eq__(self, other: object) -> Any:
        if not isinstance(other, dict):
            return NotImplemented
        if len(self) != len(other):
            return False
        for key, value in self.pairs():
            found = other.get(key, _MISSING)
            if found is _MISSING or not (found is value or found == value):
                return False
        return True

    def __or__(self, other: Any) -> Any:
        return self.whole() | _plain(other)

    def __ror__(self, other: Any) -> Any:
        return _plain(other) | self.whole()

    @recursive_repr("{...}")
    def __repr__(self) -> str:
        return repr(self.whole())

    def __str__(self) -> str:
        return repr(self)

    def __format__(self, form: str) -> str:
        return format(self.whole(), form) if form else repr(self)


def _plain(other: Any) -> Any:
    if isinstance(other, SpreadDict):
        return other.whole()
    return set(other) if isinstance(other, SpreadSet) else other


def _combine(name: str) -> Any:
    def method(self: Any, *others: Any) -> Any:
        return getattr(set(self), name)(*map(_plain, others))

    method.__name__ = name
    return method


@register_spread
class SpreadSet(_Keyed):
    """The content of a spread set."""

    __slots__ = ()
    builtin = set
    __hash__ = None  # type: ignore[assignment]

    def __contains__(self, key: Any) -> bool:
        return super().__contains__(element(key))

    def __eq__(self, other: object) -> Any:
        if not isinstance(other, (set, frozenset)):
            return NotImplemented
        return len(self) == len(other) and all(key in other for key in self)

    def __repr__(self) -> str:
        return repr(set(self))

    def __str__(self) -> str:
        return repr(set(self))

    def __format__(self, form: str) -> str:
        return format(set(self), form)


for _name in (
    "__and__", "__or__", "__sub__", "__xor__", "__rand__", "__ror__", "__rsub__", "__rxor__",
    "__lt__", "__le__", "__gt__", "__ge__", "difference", "intersection", "isdisjoint",
    "issubset", "issuperset", "symmetric_difference", "union",
):  # fmt: skip
    setattr(SpreadSet, _name, _combine(_name))


def _on_whole(name: str, whole: Callable[[Any], Any]) -> Any:
    def method(self: Any, *others: Any) -> Any:
        return getattr(whole(self), name)(*others)

    method.__name__ = name
    return method


def _whole_keys(view: Any) -> Any:
    return dict.fromkeys(view).keys()


def _whole_items(view: Any) -> Any:
    return dict(view).items()


for _view, _whole_view in ((_Keys, _whole_keys), (_Items, _whole_items)):
    for _name in (
        "__and__", "__or__", "__sub__", "__xor__", "__rand__", "__ror__", "__rsub__", "__rxor__",
        "__lt__", "__le__", "__gt__", "__ge__", "__eq__", "isdisjoint",
    ):  # fmt: skip
        setattr(_view, _name, _on_whole(_name, _whole_view))

# what Python's own messages are to name, and help() to say
SpreadDict.__doc__, SpreadSet.__doc__ = dict.__doc__, set.__doc__
for _cls, _shown in (
    (SpreadDict, "dict"),
    (SpreadSet, "set"),
    (_Keys, "dict_keys"),
    (_Values, "dict_values"),
    (_Items, "dict_items"),
):
    _cls.__name__ = _shown
