"""Encoding the records that a transaction has changed.

A record is written from the kept fragments of its nodes and new ones of those that were touched,
in an order in which each node comes after those it refers to. The order of the last commit serves
again as long as containers have only grown by leaves: a change costs what it changes.

`transaction` is a `richstore.transaction.Transaction`, of which only `tracker`, `touched` and
`orders` are used.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from richstore.codec import records, stream
from richstore.codec.classes import class_to_bytes
from richstore.errors import EncodingError, UntrustedClassError
from richstore.node import Node, Spread
from richstore.record import Record

__all__ = ["Encoded", "Reached", "encode", "reach", "reachable"]


class Reached(NamedTuple):
    """What a record's value refers to.

    Attributes:
        nodes: nodes of the record, each after those it refers to.
        mains: main nodes of other records.
        foreign: other nodes of other records; they, or the record, have to move.
        new: if only the last of `nodes` has changed, how many at their beginning are new; else
            None.
    """

    nodes: list[Node]
    mains: set[Node]
    foreign: list[Node]
    new: int | None = None


class Encoded(NamedTuple):
    """An encoded record.

    Attributes:
        data: its bytes.
        nodes: the nodes in it.
        dead: those that were in it, and are not reached any more.
        links: the engine keys of the records it refers to.
        spreads: the spread ids of its spread containers.
    """

    data: bytes
    nodes: list[Node]
    dead: list[Node]
    links: frozenset[bytes]
    spreads: list[int]


def reach(transaction: Any, record: Record) -> Reached:
    """Return what a record's value refers to."""
    known = _known_order(transaction, record)
    if known is not None:
        nodes, new = known
        return Reached(nodes, set(record.externals) if record.externals else _NONE, [], new)
    found = Reached([], set(), [])
    _walk(transaction, record, found)
    return found


_NONE: set[Node] = set()


def reachable(transaction: Any, record: Record) -> set[Node]:
    """Return all nodes that a record's value refers to, as things are within a transaction.

    Nodes that other records have to give to this one are among them, and what they refer to.
    """
    found = Reached([], set(), [])
    _walk(transaction, record, found, everything=True)
    return {*found.nodes, *found.mains}


def _walk(transaction: Any, record: Record, found: Reached, *, everything: bool = False) -> None:
    adopt = transaction.tracker.faces.adopter(transaction, record)
    nodes, mains, foreign, _ = found
    entered: set[Node] = set()
    # entries: a node whose kids are still to come, or one that is complete (marked by None)
    stack: list[Node | None] = [*reversed(transaction.tracker.faces.nodes_in(record.value))]
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
        if node.record is not record:
            if is_main(node):
                mains.add(node)
                continue
            if not everything:
                foreign.append(node)
                continue
        below = node.kids
        if below is None:
            if transaction.shared:
                _refuse_code(record, node)
            below = node.kids = node.kind.scan(node, adopt)
        if not below:
            nodes.append(node)
            continue
        stack += (node, None)
        for kid in below:
            if kid.kids or kid.kids is None or kid.record is not record:
                stack.append(kid)
            elif kid not in entered:
                entered.add(kid)
                nodes.append(kid)


def is_main(node: Node) -> bool:
    """Tell whether other records can refer to a node: it is the one its record is there for."""
    record = node.record
    return record is not None and record.owner is None and record.main is node


def _check_keys(record: Record, node: Node, before: list[Node]) -> None:
    """Refuse a key or element that refers to its own container, and hashes by what it holds.

    It could not be hashed before it is complete, nor be complete before the container is; pickle
    stores such a value as well, and cannot read it again.
    """
    for key in node.kind.hashed(node):
        own_hash: Any = type(key.face).__hash__
        if own_hash is not object.__hash__ and key.record is record and key not in before:
            name = type(key.face).__name__
            raise EncodingError(
                f"at {record.path}: an instance of {name} is a key or element of a container that "
                f"it refers to itself, and {name} has its own __hash__, so the value could not be "
                f"read again; leave that reference out, or hash by identity"
            )


def _known_order(transaction: Any, record: Record) -> tuple[list[Node], int | None] | None:
    """Return the order of the last commit, with new leaves in front, if nothing else is new.

    So a change costs what it changes, not a walk over the record.
    """
    known = record.order
    if known is None:
        return None
    adopt: Any = None
    new: list[Node] = []
    only_last = True
    touched = transaction.touched
    among = record.nodes.values() if len(record.nodes) < len(touched) else list(touched)
    for node in among:
        if node.record is not record or node not in touched:
            continue
        _, before = touched[node]
        if before is None or not node.kind.keeps_fragment:
            return None
        only_last = only_last and node is known[-1]
        kids = node.kids
        if kids is None:
            if adopt is None and node.kind.finds_strays:
                adopt = transaction.tracker.faces.adopter(transaction, record)
            kids = node.kind.scan(node, adopt)
        count = len(before)
        if len(kids) < count or kids[:count] != before:
            return None
        for kid in kids[count:]:
            if (
                kid.record is not record
                or kid.tx is not transaction
                or kid.kids != []
                or kid in touched
            ):
                return None
            new.append(kid)
        node.kids = kids
    nodes = new + known if new else known
    if len(nodes) != len(record.nodes) or len(set(new)) != len(new):
        return None
    return nodes, len(new) if only_last else None


def encode(transaction: Any, record: Record, reached: Reached) -> Encoded:
    """Return the encoded form of a record whose nodes all live in it.

    Raises:
        UntrustedClassError: it could not be read again under the policy of the store.
    """
    try:
        return _encode(transaction, record, reached)
    except UntrustedClassError as error:
        raise error if error.path else error.inside(record.path) from None


def _encode(transaction: Any, record: Record, reached: Reached) -> Encoded:
    nodes, mains, _, new = reached
    pickler: stream.RecordPickler | None = None
    class_table: dict[type, int] = {}
    made: list[bytes] = []
    fragments: list[bytes] = []
    table: list[bytes] = []
    links: list[bytes] = []
    spreads: list[int] = []
    if record.externals or mains:
        record.refer_to(mains)
    kept = record.kept if new is not None and not record.externals else None
    # only the new nodes and the last one, where what was written before them can be taken again
    todo = nodes if kept is None else [*nodes[:new], nodes[-1]]
    for node in todo:
        fragment = node.fragment
        if fragment is None:
            if transaction.shared:
                _refuse_code(record, node)
            if pickler is None:
                pickler = _pickler(record, _with_names(record, todo), transaction)
            fragment = node.kind.encode(node, pickler, made)
            if node.kind.keeps_fragment:
                node.fragment = fragment
        fragments.append(fragment)
        table.append(node.row or _row(record, node, class_table))
        if type(node.work) in _SPREADS:
            spreads.append(node.work.cid)
            links.append(node.work.cid.to_bytes(8, "big"))
    joined: tuple[bytes, bytes] | None = None
    if kept is not None or len(nodes) > 8:
        narrow = sum(map(len, table)) == records.NARROW_ROW * len(todo)
        if kept is not None and not (narrow and not links and not made and not class_table):
            return _encode(transaction, record, reached._replace(new=None))
        if narrow and not (links or made or class_table or record.externals):
            last, last_row = fragments.pop(), table.pop()
            if kept is not None:
                fragments.append(kept[0])
                table.append(kept[1])
            joined = b"".join(fragments), b"".join(table)
            fragments, table = [joined[0], last], [joined[1], last_row]
    allowed = record.tracker.classes
    if allowed.strict:
        for cls in class_table:
            allowed.check_storable(cls)
    shared: list[bytes] = []
    for main, slot in record.externals.items():
        other = main.record
        assert other is not None
        if main.uid < 0:
            main.uid = other.tracker.number()
        table.append(records.row(slot, main.uid - (record.base or 0), records.EXTERNAL))
        links.append(_link(main, other.name))
        if other is not record.root:
            shared.append(other.name)
    value = record.value
    face = record.faces.get(id(value))
    if face is not None:
        root = stream.reference(face[0])
    else:
        pickler = pickler or _pickler(record, record.faces, transaction)
        root = pickler.body(value)
    if pickler is not None:
        pickler.release()
        record.tracker.picklers.append(pickler)
    transaction.orders[record] = nodes, joined
    dead: list[Node] = []
    if len(nodes) != len(record.nodes):
        reached_nodes = set(nodes)
        dead = [node for node in record.nodes.values() if node not in reached_nodes]
    data = records.encode(
        record.name,
        record.stored_key,
        record.count,
        table,
        len(nodes) + len(record.externals),
        record.base or 0,
        map(class_to_bytes, class_table),
        links,
        [*record.named, *made, *fragments],
        root,
    )
    return Encoded(data, nodes, dead, frozenset(shared), spreads)


# filled by the layer above with the classes of spread contents
_SPREADS: set[type] = set()


def register_spread(cls: type[Spread]) -> type[Spread]:
    """Let contents of a class be written as spread containers."""
    _SPREADS.add(cls)
    return cls


def _link(main: Node, name: bytes) -> bytes:
    head = main.kind.head(main)
    if isinstance(head, int):
        return records.external(main.slot, head, b"", name)
    return records.external(main.slot, records.FIRST_CLASS, class_to_bytes(head), name)


def _refuse_code(record: Record, node: Node) -> None:
    """Raise `CodeOfUserError` if encoding a node runs a user's code, which needs its own thread."""
    if not node.kind.keeps_fragment:
        record.alone = True
        raise stream.CodeOfUserError


def _pickler(
    record: Record, memo: dict[int, tuple[int, Any]], transaction: Any
) -> stream.RecordPickler:
    """Return a pickler for a record: a new one, or one that is not in use."""
    free = record.tracker.picklers
    pickler = free.pop() if free else stream.RecordPickler()
    pickler.record = record if transaction.shared else None
    pickler.seals = record.tracker.seals
    pickler.classes = record.tracker.classes
    pickler.begin(memo)
    return pickler


def _with_names(record: Record, nodes: list[Node]) -> dict[int, tuple[int, Any]]:
    """Return the memo for those of some nodes that have no fragment.

    Keys and attributes that several nodes have are in it: they are written once, which makes
    records smaller and faster to read. A name keeps its place as long as fragments are kept.
    """
    names = record.names
    found: dict[int, tuple[int, Any]] = {}
    for node in nodes:
        if node.fragment is not None:
            continue
        for name in node.kind.names(node):
            if type(name) is not str:
                continue
            place = names.get(name)
            if place is None:
                if len(names) < _NAMES:
                    names[name] = -1 - node.uid
                continue
            if place < 0:
                if place == -1 - node.uid:
                    continue
                place = record.name_place(name)
            found[id(name)] = (place, name)
    return {**record.faces, **found} if found else record.faces


# Names that a record takes note of.
_NAMES = 64


def _row(record: Record, node: Node, class_table: dict[type, int]) -> bytes:
    """Return a node's row of the node table; it is kept where it does not depend on others."""
    if node.uid < 0:
        node.uid = record.tracker.number()
    if record.base is None:
        record.base = node.uid
    uid = node.uid - record.base
    head = node.kind.head(node)
    if isinstance(head, int):
        node.row = records.row(node.slot, uid, head)
        return node.row
    head = records.FIRST_CLASS + class_table.setdefault(head, len(class_table))
    return records.row(node.slot, uid, head)
