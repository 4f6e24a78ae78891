"""The attributes of tracked instances: what the caller is to see, and the operations on them.

`AttributeDict` is what `vars(instance)` gives. Operations are those of `change`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from types import MemberDescriptorType
from typing import Any

from richstore.node import Node
from richstore.nodes.base import LOST, lost, node_of, refuse
from richstore.nodes.change import Edit, change
from richstore.nodes.layout import Layout
from richstore.nodes.plain import Plain, plain

MISSING: Any = object()


def visible_state(face: Any, node: Node) -> dict[str, Any]:
    """Return the attributes of a tracked instance as the calling context is to see them."""
    layout: Layout = node.kind.layout  # type: ignore[attr-defined]
    transaction = node.tx
    if transaction is None:
        record = node.record
        if record is not None:
            # so that nobody empties it to load it once more
            with record.tracker.lock:
                if record.stale:
                    record.tracker.reload(record)
                if node.content is not LOST:
                    return layout.state(face)
        if node.content is LOST:
            raise lost(node)
    else:
        committed = node.content
        if not (transaction.done or transaction.is_here()) and committed is not None:
            return dict(committed)
    return layout.state(face)


def set_attribute(edit: Edit, node: Node, name: str, value: Any) -> None:
    """Set an attribute as the class does, its own `__setattr__` and properties included."""
    kind: Any = node.kind
    layout: Layout = kind.layout
    face = node.face
    found = class_attribute(kind.cls, name)
    if layout.own_setattr:
        before = layout.state(face)
        try:
            kind.cls.__setattr__(face, name, value)
        except BaseException:
            layout.set_state(face, before)
            raise
    elif hasattr(type(found), "__set__") and type(found) is not MemberDescriptorType:
        # a property's setter is the class's own code, and sets what it sets through us
        with edit.tx.nested():
            object.__setattr__(face, name, value)
        return
    else:
        object.__setattr__(face, name, edit.adopt(value, f".{name}"))
        return
    _sweep(edit, node)


def delete_attribute(edit: Edit, node: Node, name: str) -> None:
    """Delete an attribute as the class does."""
    kind: Any = node.kind
    before = kind.layout.state(node.face)
    try:
        kind.cls.__delattr__(node.face, name)
    except BaseException:
        kind.layout.set_state(node.face, before)
        raise


def put_attribute(edit: Edit, node: Node, name: str, value: Any) -> Any:
    """Set an attribute past the class, and return what it was adopted as."""
    adopted = edit.adopt(value, f".{name}")
    node.kind.layout.set_one(node.face, name, adopted)  # type: ignore[attr-defined]
    return adopted


def drop_attribute(edit: Edit, node: Node, name: str) -> None:
    """Delete an attribute past the class."""
    node.kind.layout.delete_one(node.face, name)  # type: ignore[attr-defined]


def merge_state(edit: Edit, node: Node, changed: dict[str, Any], deleted: Iterable[str]) -> None:
    """Set and delete attributes past the class."""
    kind: Any = node.kind
    adopted = kind._adopted(changed, edit.adopt)
    state = kind.layout.state(node.face)
    for name in deleted:
        state.pop(name, None)
    kind.layout.set_state(node.face, state | adopted)


def _sweep(edit: Edit, node: Node) -> None:
    node.kind.scan(node, edit.adopt)


def class_attribute(cls: type, name: str) -> Any:
    """Return what a class has under a name, as it stands there, or `MISSING`."""
    for base in cls.__mro__:
        found = vars(base).get(name, MISSING)
        if found is not MISSING:
            return found
    return MISSING


class AttributeDict(dict[str, Any]):
    """What `vars(instance)` gives: the attributes, with every change going to the instance."""

    __slots__ = ("_face",)

    def __init__(self, face: Any, content: dict[str, Any]) -> None:
        super().__init__(content)
        self._face = face

    def __setitem__(self, name: str, value: Any) -> None:
        face = self._face
        node = node_of(face)
        assert node is not None
        kind: Any = node.kind
        derived = isinstance(class_attribute(kind.cls, name), functools.cached_property)
        record = node.record
        if derived and (record is None or record.tracker.engine.readonly):
            # a cached property of what cannot be written is kept in memory only
            kind.layout.set_one(face, name, value)
        elif type(face) is kind.frozen:
            refuse(face)
        else:
            value = change(face, put_attribute, name, value)
        super().__setitem__(name, value)

    def __delitem__(self, name: str) -> None:
        if name not in self:
            raise KeyError(name)
        self._change(drop_attribute, name)
        super().__delitem__(name)

    def _change(self, operation: Callable[..., Any], *arguments: Any) -> None:
        face = self._face
        node = node_of(face)
        assert node is not None
        if type(face) is node.kind.frozen:
            refuse(face)
        change(face, operation, *arguments)

    def _merge(self, content: dict[str, Any], deleted: Iterable[str] = ()) -> None:
        self._change(merge_state, content, tuple(deleted))
        super().clear()
        super().update(get_dict(self._face))

    def update(self, *arguments: Any, **named: Any) -> None:
        self._merge(dict(*arguments, **named))

    def __ior__(self, other: Any) -> Any:  # type: ignore[misc]
        self._merge(dict(other))
        return self

    def setdefault(self, name: str, default: Any = None) -> Any:
        if name not in self:
            self[name] = default
        return self[name]

    def pop(self, name: str, *default: Any) -> Any:
        if name not in self and default:
            return default[0]
        value = plain(self[name])
        del self[name]
        return value

    def popitem(self) -> Any:
        if not self:
            raise KeyError("popitem(): dictionary is empty")
        name = next(reversed(self))
        return name, self.pop(name)

    def clear(self) -> None:
        self._merge({}, self)

    def copy(self) -> dict[str, Any]:
        return dict(self)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return dict, (plain(dict(self)),)

    def __copy__(self) -> dict[str, Any]:
        return dict(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> dict[str, Any]:
        copied: dict[str, Any] = Plain(memo)(dict(self))
        return copied


def get_dict(self: Any) -> AttributeDict:
    """Return what the `__dict__` of a tracked instance gives."""
    node = node_of(self)
    assert node is not None
    kind: Any = node.kind
    slots = kind.layout.slots
    state = visible_state(self, node)
    return AttributeDict(self, {k: v for k, v in state.items() if k not in slots})


def get_state(self: Any) -> Any:
    """Return what the default `__getstate__` does, which would hand out the very `__dict__`."""
    kind: Any = type(self)._richstore_kind_
    state = kind.layout.pickled_state(self)
    return dict(state) if isinstance(state, dict) else state and (dict(state[0] or {}), state[1])


def set_dict(self: Any, content: dict[str, Any]) -> None:
    """Replace the attributes that are not in slots."""
    attributes = get_dict(self)
    attributes._merge(dict(content), attributes.keys() - content.keys())
