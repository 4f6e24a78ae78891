"""Containers with a class of their own: made empty and filled past the class's own methods.

Pickle fills a subclass of list or dict through its `append` and `__setitem__`, so a class that
does more than store there is not restored to what it was. Here the methods of the built-in base
are used. `make`, `fill` and `build` are named in records; what they take and return is part of the
format.
"""

from __future__ import annotations

import collections
import copyreg
import types
from typing import Any

from richstore.codec.classes import version_of
from richstore.codec.missing import Missing, MissingType, keep_state, kept_of
from richstore.codec.notes import current_notes

__all__ = [
    "attributes",
    "base_of",
    "build",
    "extra",
    "fill",
    "items",
    "make",
    "put",
    "restore",
    "set_attribute",
]

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
    if isinstance(cls, MissingType):
        stand_in: Any = Missing.__new__(cls)  # type: ignore[arg-type]
        kept_of(stand_in).made = (make, (cls, argument))
        return stand_in
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


def fill(raw: Any, state: tuple[Any, ...]) -> None:
    """Put what `items` and `attributes` returned, and a version of the class, into an instance.

    The attributes of an older version are put there as they are, and upgraded when all is read.
    """
    if isinstance(type(raw), MissingType):
        keep_state(raw, fill, state)
        return
    inside, named, *rest = state
    put(raw, inside, named)
    note_version(raw, rest[0] if rest else 0, named)


def build(raw: Any, state: tuple[int, Any]) -> None:
    """Give an object the state that a version of its class had; an old one when all is read."""
    if isinstance(type(raw), MissingType):
        keep_state(raw, build, state)
    elif not note_version(raw, *state):
        restore(raw, state[1])


def note_version(raw: Any, version: int, state: Any) -> bool:
    """Note the version of a state; return whether it has to be upgraded."""
    notes = current_notes()
    if notes is None:
        return False
    if version == version_of(type(raw)):
        notes.add_current(raw)
        return False
    notes.add_pending(raw, version, state)
    return True


def restore(raw: Any, state: Any) -> None:
    """Give an object a state, as pickle does."""
    if hasattr(raw, "__setstate__"):
        raw.__setstate__(state)
        return
    slots: dict[str, Any] = {}
    if isinstance(state, tuple) and len(state) == 2:
        state, slots = state
    vars(raw).update(state or {})
    for name, value in (slots or {}).items():
        set_attribute(raw, name, value)


def put(raw: Any, inside: Any, named: dict[str, Any]) -> None:
    """Put what `items` and `attributes` returned into an empty instance."""
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
