"""Frozen faces: values of snapshots, and parts of opaque objects, to be read only."""

from __future__ import annotations

from typing import Any

from richstore.codec import records
from richstore.codec.classes import class_from_bytes
from richstore.nodes.adopt import is_atom
from richstore.nodes.base import is_face, set_class
from richstore.nodes.containers import DICT, LIST, SET
from richstore.nodes.generic import generic_kind
from richstore.nodes.instance import kind_of
from richstore.nodes.layout import layout_of
from richstore.tracker import Node

__all__ = ["freeze", "frozen_value"]

_CONTAINERS = {records.LIST: LIST, records.DICT: DICT, records.SET: SET}
_KINDS: dict[type, Any] = {list: LIST, dict: DICT, set: SET}


def frozen_value(parts: records.Parts) -> Any:
    """Return the value of a record as frozen faces."""
    class_table = [class_from_bytes(stored) for stored in parts.classes]
    table = parts.table
    nodes: list[Node] = []
    containers: list[Any] = []
    for at in range(0, len(table), 3):
        head = table[at + 2]
        if head == records.BUILT:
            continue
        kind: Any
        if head >= records.FIRST_CLASS:
            kind = _instance_kind(class_table[head - records.FIRST_CLASS])
        else:
            kind = _CONTAINERS[head]
        node = kind.make(None, -1, -1, kind.frozen)
        nodes.append(node)
        containers += kind.containers(node)

    def wrap(slot: int, raw: Any) -> Any:
        node = _wrap(raw)
        nodes.append(node)
        return node.face

    value = records.decode(parts, containers, wrap)
    for node in nodes:
        node.kind.loaded(node)
        set_class(node.face, node.kind.frozen)
    return value


def _instance_kind(cls: type) -> Any:
    layout = layout_of(cls)
    if layout is None:
        raise TypeError(
            f"the class {cls.__module__}.{cls.__qualname__} is no longer an ordinary class, as it "
            f"was when the value was stored"
        )
    return kind_of(layout)


def _wrap(raw: Any) -> Node:
    layout = layout_of(type(raw))
    if layout is not None:
        kind = kind_of(layout)
        node = kind.make(None, -1, -1, kind.frozen)
        kind.take(node, raw)
        return node
    generic = generic_kind(type(raw))
    return generic.make(None, -1, -1, generic.frozen, raw)


def freeze(value: Any) -> Any:
    """Return a read-only face of a plain value; mutables inside are frozen as well."""
    if is_face(value) or is_atom(value):
        return value
    if isinstance(value, tuple):
        return tuple.__new__(type(value), map(freeze, value))
    kind: Any = _KINDS.get(type(value))
    if kind is None:
        node = _wrap(value)
        set_class(node.face, node.kind.frozen)
        return node.face
    node = kind.make(None, -1, -1, kind.frozen)
    raw = node.content
    if kind is LIST:
        raw.extend(map(freeze, value))
    elif kind is DICT:
        raw.update((key, freeze(inner)) for key, inner in value.items())
    else:
        raw.update(value)
    return node.face
