"""Filling what a stream has made: containers get their items, objects their state.

What is filled is either a built-in container that this very stream made, or an object that it made
by something allowed, or the face of an instance whose class is allowed; attributes are put past
`__setattr__`, and never a `__class__` or a `__dict__`.
"""

from __future__ import annotations

import types
import uuid
from collections import OrderedDict, defaultdict, deque
from collections.abc import Iterable
from typing import Any

from richstore.codec import standard
from richstore.codec.strict.limits import Limits

__all__ = ["Filling", "set_uuid"]

# What pickle and copy look for on instances, before their class.
_LOOKED_UP = frozenset(
    (
        "__class__", "__dict__", "__reduce__", "__reduce_ex__", "__getstate__", "__setstate__",
        "__getnewargs__", "__getnewargs_ex__", "__copy__", "__deepcopy__",
    )
)  # fmt: skip
# Attributes of exceptions that are no part of their arguments.
_OF_ERRORS = frozenset(("name", "path"))
_TEXT = frozenset((str,))
_BUILTIN = frozenset(
    (
        int, float, bool, complex, str, bytes, bytearray, list, tuple, dict, set, frozenset, range,
        slice, type(None), type, deque, OrderedDict, defaultdict, standard.Function,
    )
)  # fmt: skip


class Filling(Limits):
    """Fills containers and objects."""

    # ids of the faces that may be given a state
    fillable: frozenset[int]
    # by id, with the object: what was made here, and of that what calls have returned
    made: dict[int, Any]
    foreign: dict[int, Any]

    def is_made(self, value: Any) -> bool:
        """Tell whether an object was made by this very stream."""
        return id(value) in self.made

    def extend(self, target: Any, items: list[Any]) -> None:
        """Append items."""
        kind = type(target)
        if (kind is list and id(target) not in self.foreign) or (
            kind is deque and id(target) in self.made
        ):
            target.extend(items)
        elif id(target) in self.made and kind not in _BUILTIN:
            own: Any = kind
            if hasattr(own, "extend"):
                self.user(own.extend, target, items)
            else:
                for one in items:
                    self.user(own.append, target, one)
        else:
            raise ValueError("it appends to what is no list")

    def put(self, target: Any, items: list[Any]) -> None:
        """Set items."""
        kind = type(target)
        keys = items[::2]
        own: Any = kind
        if len(items) % 2:
            raise ValueError("a key has no value")
        if (kind is dict and id(target) not in self.foreign) or (
            kind in (OrderedDict, defaultdict) and id(target) in self.made
        ):
            pairs = zip(keys, items[1::2], strict=True)
            if self.hashed(target, keys):
                self.user(_put_all, target, pairs)
            else:
                _put_all(target, pairs)
        elif id(target) in self.made and kind not in _BUILTIN:
            for key, value in zip(keys, items[1::2], strict=True):
                self.user(own.__setitem__, target, key, value)
        else:
            raise ValueError("it sets items of what is no dict")

    def add(self, target: Any, items: list[Any]) -> None:
        """Add elements."""
        if type(target) is set and id(target) not in self.foreign:
            if self.hashed(target, items):
                self.user(target.update, items)
            else:
                target.update(items)
        elif id(target) in self.made and isinstance(target, set):
            for one in items:
                self.user(type(target).add, target, one)
        else:
            raise ValueError("it adds elements to what is no set")

    def build(self, target: Any, state: Any) -> None:
        """Give an object its state."""
        kind = type(target)
        if id(target) in self.fillable or (id(target) in self.made and kind not in _BUILTIN):
            own: Any = kind
            if kind is uuid.UUID:
                set_uuid(target, state)
                return
            # of the class, for an attribute of that name could be anything
            setter = getattr(own, "__setstate__", None)
            if setter is not None and kind is not types.SimpleNamespace and not _is_error(kind):
                self.user(setter, target, state)
            elif type(state) is tuple and len(state) == 2:
                for one in state:
                    self.set_attributes(target, one)
            else:
                self.set_attributes(target, state)
            return
        raise ValueError("it gives a state to what has none")

    def set_attributes(self, target: Any, state: Any) -> None:
        """Give an object attributes past its class's own `__setattr__`, and no other class."""
        if state is None:
            return
        if type(state) is not dict or not _TEXT.issuperset(map(type, state)):
            raise ValueError("a state has no names")
        if not _LOOKED_UP.isdisjoint(state):
            raise ValueError("a state has what belongs to a class")
        self.charge(8 * len(state))
        rest = state
        slots = _slots(type(target))
        if slots:
            rest = {}
            for name, value in state.items():
                if name in slots:
                    slots[name].__set__(target, value)
                else:
                    rest[name] = value
        elif _is_error(type(target)):
            rest = dict(state)
            for name in _OF_ERRORS.intersection(state):
                if type(state[name]) in (str, type(None)) and hasattr(type(target), name):
                    setattr(target, name, rest.pop(name))
        if rest:
            target.__dict__.update(rest)


def _put_all(target: Any, pairs: Iterable[tuple[Any, Any]]) -> None:
    for key, value in pairs:
        target[key] = value


def _slots(cls: type) -> dict[str, Any]:
    return {
        name: found
        for base in reversed(cls.__mro__)
        for name, found in vars(base).items()
        if type(found) is types.MemberDescriptorType and isinstance(base, type) and _is_heap(base)
    }


def _is_heap(cls: type) -> bool:
    """Tell whether a class was made by a class statement."""
    return bool(cls.__flags__ & 1 << 9)


def _is_error(cls: type) -> bool:
    return issubclass(cls, BaseException)


def set_uuid(target: uuid.UUID, state: Any) -> None:
    """Give a UUID its number."""
    number = state["int"]
    safe = uuid.SafeUUID(state["is_safe"]) if "is_safe" in state else uuid.SafeUUID.unknown
    if type(number) is not int or not 0 <= number < 1 << 128:
        raise ValueError("a UUID has 16 bytes")
    object.__setattr__(target, "int", number)
    object.__setattr__(target, "is_safe", safe)
