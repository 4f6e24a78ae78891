"""Bringing a live value up to date with plain data, so that what users hold goes on living.

The formats of documents have no identities. So what is at the same place and of the same type is
taken for the same container; what is equal is not touched. Where one container is at two places,
before or afterwards, places tell nothing, and the value is replaced as a whole.
"""

from __future__ import annotations

import enum
import types
from collections.abc import Iterable
from typing import Any

from richstore.documents.comparing import difference
from richstore.nodes.layout import layout_of

__all__ = ["merge"]

# What needs no second look when it is equal and of the same type. (-0.0 equals 0.0.)
_SIMPLE = frozenset((int, str, bool, type(None), bytes))
_LEAVES = _SIMPLE | {float, complex}
# What is changed in place.
_MERGED = frozenset((list, dict, set))
# So many items of a list are replaced at once.
_MANY = 100
# What has attributes, and is not part of a value.
_CODE = (type, enum.Enum, types.FunctionType, types.BuiltinFunctionType, types.ModuleType)


class _Place:
    """A place in a live value, looked up when it is needed."""

    __slots__ = ("found", "key", "outer")

    def __init__(self, outer: _Place | None, key: Any, found: Any = None) -> None:
        self.outer = outer
        self.key = key
        self.found = found

    def live(self) -> Any:
        """Return the container that is there."""
        way = [self]
        while way[-1].found is None:
            assert way[-1].outer is not None
            way.append(way[-1].outer)
        found = way.pop().found
        for place in reversed(way):
            found = place.found = place.step(found)
        return found

    def step(self, outer: Any) -> Any:
        """Return what is at this place of a container."""
        return outer[self.key]


class _Attributes(_Place):
    """The attributes of an instance."""

    def step(self, outer: Any) -> Any:
        """Return them so that they can be changed."""
        return vars(outer)


def merge(store: Any, key: Any, old: Any, new: Any) -> None:
    """Make a value of a store equal to plain data, by as few changes as the places allow.

    Args:
        store: the store, inside a transaction.
        key: where the value is.
        old: the value as plain data.
        new: what it is to be.
    """
    if not (_is_tree(old) and _is_tree(new)):
        if difference(old, new) is not None:
            store[key] = new
        return
    todo = [(_Place(_Place(None, None, store), key), old, new)]
    while todo:
        place, old, new = todo.pop()
        kind = type(new)
        if type(old) is kind and kind is dict:
            todo += _merge_dict(place, old, new)
        elif type(old) is kind and kind is list:
            todo += _merge_list(place, old, new)
        elif type(old) is kind and _has_attributes(kind):
            todo.append((_Attributes(place, None), vars(old), vars(new)))
        elif difference(old, new) is None:
            continue
        elif type(old) is kind and kind is set:
            place.live().clear()
            place.live().update(new)
        else:
            assert place.outer is not None
            place.outer.live()[place.key] = new


def _merge_dict(place: _Place, old: dict[Any, Any], new: dict[Any, Any]) -> Iterable[Any]:
    if [(type(key), key) for key in old] != [(type(key), key) for key in new]:
        live = place.live()
        kept = [key for key in old if key in new]
        if [(type(key), key) for key in kept] != [(type(key), key) for key in new][: len(kept)]:
            # another order, or keys that only seem the same: what is kept comes again in order
            before = {key: live[key] for key in kept}
            live.clear()
            live.update({key: before.get(key, value) for key, value in new.items()})
        else:
            for key in [key for key in old if key not in new]:
                del live[key]
            live.update({key: value for key, value in new.items() if key not in old})
    for key, value in new.items():
        if key in old and not (type(value) in _SIMPLE and _is_same(old[key], value)):
            yield _Place(place, key), old[key], value


def _merge_list(place: _Place, old: list[Any], new: list[Any]) -> Iterable[Any]:
    both = min(len(old), len(new))
    replaced = {}
    merged = []
    for at, (before, value) in enumerate(zip(old, new, strict=False)):
        if type(before) is type(value) and _is_merged(type(value)):
            merged.append((_Place(place, at), before, value))
        elif not _is_same(before, value):
            replaced[at] = value
    if len(replaced) == both > _MANY:
        # built in one go
        place.live().clear()
        place.live().extend(new)
        return
    if len(old) > both:
        del place.live()[both:]
    elif len(new) > both:
        place.live().extend(new[both:])
    if len(replaced) > _MANY:
        items = list(place.live())
        for at, value in replaced.items():
            items[at] = value
        place.live()[:] = items
    else:
        for at, value in replaced.items():
            place.live()[at] = value
    yield from merged


def _is_merged(kind: type) -> bool:
    return kind in _MERGED or _has_attributes(kind)


def _has_attributes(kind: type) -> bool:
    """Tell whether instances of a class are their attributes and nothing else."""
    if kind in _LEAVES:
        return False
    layout = layout_of(kind)
    return layout is not None and layout.has_dict and not layout.slots


def _is_same(old: Any, new: Any) -> bool:
    if type(old) is type(new) and type(old) in _SIMPLE:
        return bool(old == new)
    return difference(old, new) is None


def _is_tree(value: Any) -> bool:
    """Tell whether no container or instance is at two places of a value, nor inside itself."""
    seen: set[int] = set()
    todo = [value]
    while todo:
        one = todo.pop()
        inside = [inner for inner in _inside(one) if type(inner) not in _LEAVES]
        if isinstance(one, tuple) and not inside:
            # equal ones may be one object, which nobody can tell
            continue
        if inside or isinstance(one, (list, dict, set)):
            if id(one) in seen:
                return False
            seen.add(id(one))
            todo += inside
    return True


def _inside(value: Any) -> Iterable[Any]:
    """Return what a container or instance holds."""
    if isinstance(value, dict):
        return value.values()
    if isinstance(value, (list, tuple)):
        return value
    if isinstance(value, _CODE):
        return ()
    return [vars(value)] if hasattr(value, "__dict__") else ()
