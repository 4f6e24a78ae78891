"""Containers with a class of their own: made empty and filled past the class's own methods.

Pickle fills a subclass of list or dict through its `append` and `__setitem__`, so a class that
does more than store there is not restored to what it was. Here the methods of the built-in base
are used. `make` and `fill` are named in records; what they take and return is part of the format.
"""

from __future__ import annotations

import collections
import copyreg
import types
from typing import Any

__all__ = ["attributes", "base_of", "extra", "fill", "items", "make", "set_attribute"]

MAPS: tuple[type, ...] = (collections.OrderedDict, dict)
LISTS: tuple[type, ...] = (list, collections.deque)
# Bases whose instances can have attributes besides their immutable value.
VALUES: tuple[type, ...] = (int, str, float, bytes, complex, tuple, frozenset)


def base_of(cls: type) -> Any:
    """Return the built-in class that holds what instances of `cls` hold; None: none we know.

    `object` stands for no items, only attributes.
    """
    for base in (*MAPS, *LISTS, set):
        if issubclass(cls, base):
            return base
    attributed = (BaseException, types.SimpleNamespace, *VALUES)
    return object if cls.__dictoffset__ and issubclass(cls, attributed) else None


def extra(raw: Any) -> Any:
    """Return what `make` needs besides the class."""
    if isinstance(raw, collections.deque):
        return raw.maxlen
    if isinstance(raw, collections.defaultdict):
        return raw.default_factory
    for base in VALUES:
        if isinstance(raw, base):
            return base(raw)
    return None


def make(cls: type, argument: Any) -> Any:
    """Return an empty instance."""
    base: Any
    for base in VALUES:
        if issubclass(cls, base):
            return base.__new__(cls, argument)
    new: Any = cls.__new__
    made = new(cls)
    if isinstance(made, collections.deque):
        collections.deque.__init__(made, (), argument)
    elif isinstance(made, collections.defaultdict):
        made.default_factory = argument
    elif isinstance(made, collections.OrderedDict):
        collections.OrderedDict.__init__(made)
    return made


def items(raw: Any) -> Any:
    """Return what is inside: a dict, a list, or the arguments of an exception."""
    base = base_of(type(raw))
    if base is object:
        return raw.args if isinstance(raw, BaseException) else None
    if base in MAPS:
        return {key: base.__getitem__(raw, key) for key in base.__iter__(raw)}
    return list(base.__iter__(raw))


def fill(raw: Any, state: tuple[Any, dict[str, Any]]) -> None:
    """Put what `items` and `attributes` returned into an empty instance."""
    inside, named = state
    base = base_of(type(raw))
    if base is object:
        if inside is not None:
            raw.args = inside
    elif base in MAPS:
        for key, value in inside.items():
            base.__setitem__(raw, key, value)
    elif base is set:
        set.update(raw, inside)
    else:
        base.extend(raw, inside)
    for name, value in named.items():
        set_attribute(raw, name, value)


def clear(raw: Any) -> None:
    """Empty an instance's items."""
    base = base_of(type(raw))
    if base is not object:
        base.clear(raw)


def attributes(raw: Any) -> dict[str, Any]:
    """Return the attributes, those in slots included."""
    found = dict(getattr(raw, "__dict__", {}))
    for name in copyreg._slotnames(type(raw)):  # type: ignore[attr-defined]
        if hasattr(raw, name):
            found[name] = getattr(raw, name)
    return found


def set_attribute(raw: Any, name: str, value: Any) -> None:
    """Set an attribute past the class's own `__setattr__`."""
    object.__setattr__(raw, name, value)
