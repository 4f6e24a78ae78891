"""Nodes: the live values that users hold. The only part of richstore that uses wrapt.

`faces` is what the tracker and transactions are given: how faces are made when values are adopted
and records are read.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Callable, Iterable
from itertools import repeat
from typing import Any

from richstore.codec import records
from richstore.node import Node
from richstore.nodes.adopt import HANDLERS, Adopter
from richstore.nodes.base import (
    get_content,
    is_face,
    new_proxy,
    node_of,
    set_class,
    set_content,
    set_node,
)
from richstore.nodes.change import SPREAD
from richstore.nodes.containers import DICT, LIST, SET
from richstore.nodes.frozen import _instance_kind, frozen_value
from richstore.nodes.generic import generic_kind
from richstore.nodes.instance import kind_of
from richstore.nodes.layout import layout_of
from richstore.nodes.missing import MissingKind
from richstore.nodes.plain import nodes_in, plain
from richstore.nodes.spread import SPREAD_OPERATIONS
from richstore.nodes.spread.base import FrozenView
from richstore.nodes.transactional import transactional
from richstore.record import Record
from richstore.transaction import Transaction

__all__ = [
    "Faces",
    "FrozenView",
    "MissingKind",
    "frozen_value",
    "is_face",
    "is_tracked",
    "plain",
    "transactional",
]

_CONTAINERS: dict[int, Any] = {records.LIST: LIST, records.DICT: DICT, records.SET: SET}


_exhaust = deque[Any](maxlen=0).extend


def _adopt_object(adopter: Adopter, original: Any, content: Any) -> Any:
    """Adopt an instance: natively where its class allows it, else behind the generic proxy."""
    layout = layout_of(type(original))
    if layout is not None:
        try:
            kind = kind_of(layout)
        except TypeError:
            pass
        else:
            return kind.adopt(adopter, original, content)
    return generic_kind(type(original)).adopt(adopter, original, content)


HANDLERS[object] = _adopt_object
SPREAD.update(SPREAD_OPERATIONS)


class Faces:
    """How live faces are made; see `tracker.Faces`."""

    @staticmethod
    def adopter(transaction: Transaction, record: Record) -> Callable[[Any], Any]:
        """Return the function that turns plain values into nodes of a record."""
        return Adopter(transaction, record)

    @staticmethod
    def nodes_in(value: Any) -> list[Node]:
        """Return the nodes that an immutable value, or a face, refers to directly."""
        return nodes_in(value)

    @staticmethod
    def kind(head: int, cls: type | None) -> Any:
        """Return the kind of a list, dict or set, or of the instances of a class."""
        return _CONTAINERS[head] if cls is None else _instance_kind(cls)

    @staticmethod
    def sleeping(record: Record, heads: Iterable[int]) -> tuple[list[Any], list[Any]]:
        """Return faces of lists, dicts and sets without nodes, and the containers to be filled."""
        # one loop in C for each step: this is what reading much is made of
        kinds = [_CONTAINERS[head] for head in heads]
        faces = list(map(new_proxy, [kind.sleeping for kind in kinds]))
        raw = [kind.builtin() for kind in kinds]
        _exhaust(map(set_content, faces, raw))
        _exhaust(map(set_node, faces, repeat(record)))
        containers = [None] * (2 * len(raw))
        containers[::2] = raw
        containers[1::2] = faces
        return faces, containers

    @staticmethod
    def wake(record: Record, table: array[int], base: int, faces: list[Any]) -> dict[int, Node]:
        """Return the nodes of faces that had none, by slot."""
        nodes: dict[int, Node] = {}
        for at, face in enumerate(faces):
            slot, uid, head = table[3 * at : 3 * at + 3]
            kind = _CONTAINERS[head]
            node = nodes[slot] = Node(record, slot, base + uid, kind)
            node.face = face
            node.content = node.work = content = get_content(face)
            kind.show(face, content)
            set_node(face, node)
            set_class(face, kind.clean)
        return nodes

    @staticmethod
    def spread(node: Node, cid: int) -> None:
        """Let a node that is being read be a spread container."""
        kind: Any = node.kind
        kind.show_spread(node, cid)

    @staticmethod
    def wrap(record: Record, known: Node | None, slot: int, uid: int, raw: Any) -> Node:
        """Return the node of an object that the stream made, `known` if that can go on."""
        layout = layout_of(type(raw))
        kind: Any
        taken: Node
        if layout is not None:
            kind = kind_of(layout)
            if known is not None and known.kind is kind:
                taken = known
            else:
                taken = kind.make(record, slot, uid, kind.clean)
            kind.take(taken, raw)
            return taken
        generic = generic_kind(type(raw))
        if known is not None and known.kind is generic:
            generic.take(known, raw)
            return known
        return generic.make(record, slot, uid, generic.clean, raw)


def is_tracked(value: Any) -> bool:
    """Tell whether changes made to a value are kept in a store.

    Args:
        value: anything.

    Returns:
        True for the mutable values that a store gives out; False for plain data, values of
        snapshots, and values that have left the store.

    Example:
        >>> import richstore
        >>> with richstore.open("memory:") as store:
        ...     store["shops"] = ["shop1"]
        ...     shops = store["shops"]
        ...     richstore.is_tracked(shops), richstore.is_tracked(richstore.plain(shops))
        (True, False)
    """
    node = node_of(value) if is_face(value) else None
    if node is None or node.record is None:
        return False
    return node.record.tracker.home_of(node) is not None
