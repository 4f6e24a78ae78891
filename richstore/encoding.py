"""Encoding the records that a transaction has changed.

A record is written from the kept fragments of its nodes and new ones of those that were touched,
in an order in which each node comes after those it refers to. The order of the last commit serves
again as long as containers have only grown by leaves: a change costs what it changes.

`transaction` is a `richstore.transaction.Transaction`, of which only `tracker`, `touched` and
`orders` are used.
"""

from __future__ import annotations

from typing import Any

from richstore.codec import records
from richstore.codec.classes import class_to_bytes
from richstore.errors import EncodingError
from richstore.tracker import Node, Record

__all__ = ["encode", "order"]


def order(transaction: Any, record: Record) -> list[Node]:
    """Return the nodes that a record's value reaches, each after those it refers to."""
    known = _known_order(transaction, record)
    if known is not None:
        return known
    adopt = transaction.tracker.faces.adopter(transaction, record)
    kids = transaction.tracker.faces.nodes_in(record.value)
    nodes: list[Node] = []
    entered: set[Node] = set()
    # entries: a node whose kids are still to come, or one that is complete (marked by None)
    stack: list[Node | None] = [*reversed(kids)]
    while stack:
        node = stack.pop()
        if node is None:
            done = stack.pop()
            assert done is not None
            _check_keys(record, done, nodes)
            nodes.append(done)
            continue
        if node in entered:
            continue
        entered.add(node)
        below = node.kids
        if below is None:
            below = node.kids = node.kind.scan(node, adopt)
        if not below:
            nodes.append(node)
            continue
        stack += (node, None)
        for kid in below:
            if kid.kids or kid.kids is None:
                stack.append(kid)
            elif kid not in entered:
                entered.add(kid)
                nodes.append(kid)
    return nodes


def _check_keys(record: Record, node: Node, before: list[Node]) -> None:
    """Refuse a key or element that refers to its own container, and hashes by what it holds.

    It could not be hashed before it is complete, nor be complete before the container is; pickle
    stores such a value as well, and cannot read it again.
    """
    for key in node.kind.hashed(node):
        own_hash: Any = type(key.face).__hash__
        if own_hash is not object.__hash__ and key not in before:
            name = type(key.face).__name__
            raise EncodingError(
                f"at {record.path}: an instance of {name} is a key or element of a container that "
                f"it refers to itself, and {name} has its own __hash__, so the value could not be "
                f"read again; leave that reference out, or hash by identity"
            )


def _known_order(transaction: Any, record: Record) -> list[Node] | None:
    """Return the order of the last commit, with new leaves in front, if nothing else is new.

    So a change costs what it changes, not a walk over the record.
    """
    known = record.order
    if known is None:
        return None
    adopt: Any = None
    new: list[Node] = []
    for node, (_, before) in transaction.touched.items():
        if node.record is not record:
            continue
        if before is None or not node.kind.keeps_fragment:
            return None
        kids = node.kids
        if kids is None:
            if adopt is None and node.kind.finds_strays:
                adopt = transaction.tracker.faces.adopter(transaction, record)
            kids = node.kind.scan(node, adopt)
        count = len(before)
        if len(kids) < count or kids[:count] != before:
            return None
        for kid in kids[count:]:
            if kid.tx is not transaction or kid.kids != [] or kid in transaction.touched:
                return None
            new.append(kid)
        node.kids = kids
    if not new:
        return known if len(known) == len(record.nodes) else None
    nodes = new + known
    if len(nodes) != len(record.nodes) or len(set(new)) != len(new):
        return None
    return nodes


def encode(transaction: Any, record: Record) -> tuple[bytes, list[Node]]:
    """Return the bytes of a record and the nodes that are no longer part of it."""
    nodes = order(transaction, record)
    pickler: records.RecordPickler | None = None
    class_table: dict[type, int] = {}
    made: list[bytes] = []
    fragments: list[bytes] = []
    table: list[bytes] = []
    for node in nodes:
        fragment = node.fragment
        if fragment is None:
            if pickler is None:
                pickler = _pickler(record)
            fragment = node.kind.encode(node, pickler, made)
            if node.kind.keeps_fragment:
                node.fragment = fragment
        fragments.append(fragment)
        table.append(node.row or _row(node, class_table))
    value = record.value
    face = record.faces.get(id(value))
    if face is not None:
        root = records.reference(face[0])
    else:
        pickler = pickler or _pickler(record)
        root = pickler.body(value)
    if pickler is not None:
        pickler.clear_memo()
        record.tracker.picklers.append(pickler)
    transaction.orders[record] = nodes
    dead: list[Node] = []
    if len(nodes) != len(record.nodes):
        reached = set(nodes)
        dead = [node for node in record.nodes.values() if node not in reached]
    encoded = records.encode(
        record.name,
        record.stored_key,
        table,
        record.next_uid,
        record.born,
        map(class_to_bytes, class_table),
        made + fragments if made else fragments,
        root,
    )
    return encoded, dead


def _pickler(record: Record) -> records.RecordPickler:
    """Return a pickler for a record: a new one, or one that is not in use."""
    free = record.tracker.picklers
    pickler = free.pop() if free else records.RecordPickler()
    pickler.begin(record.faces)
    return pickler


def _row(node: Node, class_table: dict[type, int]) -> bytes:
    """Return a node's row of the node table; it is kept where it does not depend on others."""
    if node.uid < 0:
        record = node.record
        assert record is not None
        node.uid = record.next_uid
        record.next_uid += 1
    head = node.kind.head(node)
    if isinstance(head, int):
        node.row = records.row(node.slot, node.uid, head)
        return node.row
    head = records.FIRST_CLASS + class_table.setdefault(head, len(class_table))
    return records.row(node.slot, node.uid, head)
