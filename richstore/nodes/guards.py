"""Guards: methods that may write past `__setattr__`, compared with what was committed.

All methods of a class that has its own `__setattr__`, since it then writes in some other way
itself, and those that name `__setattr__`, as code does that calls that of `object`.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import Any

from richstore.node import Node
from richstore.nodes.attributes import MISSING, merge_state
from richstore.nodes.base import node_of, refuse
from richstore.nodes.change import change
from richstore.nodes.layout import Layout, functions_of


def guards(layout: Layout, found: Callable[..., None]) -> dict[str, Any]:
    """Return guarded versions of the methods that may write past `__setattr__`."""
    functions = functions_of(layout.cls)
    return {name: _guarded(functions[name], layout, found) for name in guarded_names(layout)}


def guarded_names(layout: Layout) -> list[str]:
    """Return the methods that may write past `__setattr__`.

    All of a class that has its own, since it then writes somehow else itself; and those that name
    `__setattr__`, as code does that calls that of `object`.
    """
    return [
        name
        for name, function in functions_of(layout.cls).items()
        if name not in _UNGUARDED
        and (layout.own_setattr or _GOING_AROUND & set(function.__code__.co_names))
    ]


_GOING_AROUND = frozenset(("__setattr__", "__delattr__"))


class CachedProperty:
    """A cached property that gives what was kept, not what the function returned.

    Args:
        original: the class's own.
    """

    def __init__(self, original: Any) -> None:
        self.original = original
        self.__doc__ = original.__doc__

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        if instance is None:
            return self.original
        value = self.original.__get__(instance, owner)
        return vars(instance).get(self.original.attrname, value)


_UNGUARDED = frozenset(
    (
        "__new__", "__init__", "__init_subclass__", "__class_getitem__", "__setattr__",
        "__delattr__", "__getattribute__", "__getattr__", "__getstate__", "__setstate__",
        "__reduce__", "__reduce_ex__", "__hash__", "__eq__", "__repr__", "__copy__",
        "__deepcopy__", "__del__",
    )
)  # fmt: skip


def _guarded(function: Any, layout: Layout, found: Callable[..., None]) -> Any:
    @functools.wraps(function)
    def method(self: Any, *arguments: Any, **named: Any) -> Any:
        node = node_of(self)
        if node is None:
            return function(self, *arguments, **named)
        if node.record is not None and node.record.stale:
            node.record.tracker.reload(node.record)
        try:
            return function(self, *arguments, **named)
        finally:
            written = _written_past(node, layout)
            if written is not None:
                found(self, *written)

    return method


def _written_past(node: Node, layout: Layout) -> tuple[dict[str, Any], set[str]] | None:
    """Return what was set and deleted past `__setattr__`, having taken it back; None for nothing.

    A node in a transaction needs nothing: it is encoded from the very state that was written to.
    """
    record = node.record
    with record.tracker.lock if record is not None else contextlib.nullcontext():
        committed = node.work
        if node.tx is not None or committed is None or (record is not None and record.stale):
            return None
        now = layout.state(node.face)
        changed = {
            name: value for name, value in now.items() if committed.get(name, MISSING) is not value
        }
        deleted = committed.keys() - now.keys()
        if not changed and not deleted:
            return None
        layout.set_state(node.face, committed)
        return changed, deleted


def keep_writes(face: Any, changed: dict[str, Any], deleted: set[str]) -> None:
    """Make a tracked change of what was written past `__setattr__`."""
    change(face, merge_state, changed, deleted)


def refuse_writes(face: Any, changed: dict[str, Any], deleted: set[str]) -> None:
    """Refuse what was written past `__setattr__` of a frozen instance."""
    refuse(face)
