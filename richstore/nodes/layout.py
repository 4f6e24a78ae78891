"""What a class is like: where its instances keep their state, and how pickle restores them.

The rule: only what is explained by Python class statements counts as an ordinary class. An instance
of anything else (a C layout, a builtin base with items of its own) is the generic proxy's business.
"""

from __future__ import annotations

import copyreg
import typing
import weakref
from types import FunctionType, GetSetDescriptorType, MemberDescriptorType
from typing import Any

from richstore.errors import CorruptionError

__all__ = ["Layout", "layout_of"]

_HEAP_TYPE = 1 << 9
_MISSING = object()
_KNOWN_BASES = (object, typing.Generic, typing.Protocol)


class Layout:
    """Where instances of an ordinary class keep their state.

    Attributes:
        cls: the class.
        slots: name → descriptor of its `__slots__`.
        has_dict: whether instances have a `__dict__`.
        standard: whether pickle restores them by `__new__` without arguments and a state.
        getstate, setstate: the class's own methods, or None.
        own_setattr: whether the class has its own `__setattr__` or `__delattr__`.
        own_reduce, own_reduce_ex: whether it has its own `__reduce__`, `__reduce_ex__`.
    """

    __slots__ = (
        "cls",
        "dict_descriptor",
        "getstate",
        "has_dict",
        "own_reduce",
        "own_reduce_ex",
        "own_setattr",
        "setstate",
        "slots",
        "standard",
    )

    def __init__(self, cls: type) -> None:
        self.cls = cls
        self.slots: dict[str, Any] = {}
        self.dict_descriptor: Any = None
        for base in reversed(cls.__mro__):
            for name, found in vars(base).items():
                if type(found) is MemberDescriptorType and name != "__weakref__":
                    self.slots[name] = found
                elif name == "__dict__" and type(found) is GetSetDescriptorType:
                    self.dict_descriptor = found
        self.has_dict = self.dict_descriptor is not None
        self.getstate = _own(cls, "__getstate__")
        self.setstate = _own(cls, "__setstate__")
        own = {
            name
            for name in ("__setattr__", "__delattr__", "__reduce__", "__reduce_ex__")
            if _own(cls, name) is not None
        }
        self.own_setattr = bool(own & {"__setattr__", "__delattr__"})
        self.own_reduce = "__reduce__" in own
        self.own_reduce_ex = "__reduce_ex__" in own
        self.standard = (
            not self.own_reduce
            and not self.own_reduce_ex
            and not hasattr(cls, "__getnewargs__")
            and not hasattr(cls, "__getnewargs_ex__")
            and cls not in copyreg.dispatch_table
        )

    def state(self, instance: Any) -> dict[str, Any]:
        """Return a copy of an instance's attributes, those in slots included."""
        found = dict(self.dict_descriptor.__get__(instance)) if self.has_dict else {}
        for name, slot in self.slots.items():
            value = _slot_value(slot, instance)
            if value is not _MISSING:
                found[name] = value
        return found

    def set_state(self, instance: Any, state: dict[str, Any]) -> None:
        """Replace all attributes of an instance, past its `__setattr__`."""
        slots = self.slots
        for name, slot in slots.items():
            if name in state:
                slot.__set__(instance, state[name])
            elif _slot_value(slot, instance) is not _MISSING:
                slot.__delete__(instance)
        if self.has_dict:
            rest = {name: value for name, value in state.items() if name not in slots}
            self.dict_descriptor.__set__(instance, rest)

    def set_one(self, instance: Any, name: str, value: Any) -> None:
        """Set one attribute of an instance, past its `__setattr__`."""
        slot = self.slots.get(name)
        if slot is not None:
            slot.__set__(instance, value)
        elif self.has_dict:
            self.dict_descriptor.__get__(instance)[name] = value
        else:
            raise CorruptionError(
                f"a {self.cls.__name__} is stored with an attribute {name!r}, for which it has no "
                f"place"
            )

    def delete_one(self, instance: Any, name: str) -> None:
        """Delete one attribute of an instance, past its `__delattr__`."""
        slot = self.slots.get(name)
        if slot is not None:
            slot.__delete__(instance)
        else:
            del self.dict_descriptor.__get__(instance)[name]

    def pickled_state(self, instance: Any) -> Any:
        """Return what the standard `__getstate__` would: a dict, or a pair if there are slots."""
        state = self.dict_descriptor.__get__(instance) if self.has_dict else None
        if not self.slots:
            return state if state is not None else {}
        return state, {
            name: value
            for name, slot in self.slots.items()
            if (value := _slot_value(slot, instance)) is not _MISSING
        }

    def unpickle_state(self, instance: Any, state: Any) -> None:
        """Give an instance the state that `pickled_state` returned, past its `__setattr__`."""
        slots: dict[str, Any] | None = None
        if isinstance(state, tuple) and len(state) == 2:
            state, slots = state
        if state:
            if self.has_dict:
                self.dict_descriptor.__get__(instance).update(state)
            else:
                slots = {**state, **(slots or {})}
        for name, value in (slots or {}).items():
            self.set_one(instance, name, value)


def _slot_value(slot: Any, instance: Any) -> Any:
    try:
        return slot.__get__(instance)
    except AttributeError:
        return _MISSING


def _own(cls: type, name: str) -> Any:
    found = getattr(cls, name, None)
    return None if found is getattr(object, name, None) else found


_layouts: weakref.WeakKeyDictionary[type, Layout | None] = weakref.WeakKeyDictionary()


def layout_of(cls: type) -> Layout | None:
    """Return the layout of an ordinary class, None for every other."""
    try:
        return _layouts[cls]
    except KeyError:
        found = _layouts[cls] = Layout(cls) if all(map(_is_ordinary, cls.__mro__)) else None
        return found


def _is_ordinary(cls: type) -> bool:
    """Tell whether a class adds to its base only what a class statement can add."""
    if cls in _KNOWN_BASES:
        return True
    base = cls.__base__
    if not cls.__flags__ & _HEAP_TYPE or base is None or cls.__itemsize__:
        return False
    own = vars(cls)
    members = sum(type(found) is MemberDescriptorType for found in own.values())
    explained = members + ("__dict__" in own) + ("__weakref__" in own)
    return cls.__basicsize__ - base.__basicsize__ <= 8 * explained


def functions_of(cls: type) -> dict[str, FunctionType]:
    """Return the methods that Python code defines for a class, by name."""
    found: dict[str, FunctionType] = {}
    for base in reversed(cls.__mro__[:-1]):
        for name, value in vars(base).items():
            if isinstance(value, FunctionType):
                found[name] = value
            else:
                found.pop(name, None)
    return found
