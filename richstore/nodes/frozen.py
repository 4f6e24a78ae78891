"""Frozen faces: values of snapshots, and parts of opaque objects, to be read only.

A `FrozenView` reads the records of one committed state. What several records refer to is one face
there as well: it is made when it is first met, and its record is read before the reader gets to see
anything.
"""

from __future__ import annotations

from typing import Any

from richstore.codec import records
from richstore.codec.notes import Notes
from richstore.errors import CorruptionError
from richstore.loading import old_versions_in
from richstore.node import Node
from richstore.nodes.adopt import is_atom
from richstore.nodes.base import is_face, node_of, set_class
from richstore.nodes.containers import DICT, LIST, SET
from richstore.nodes.generic import generic_kind
from richstore.nodes.instance import kind_of
from richstore.nodes.layout import layout_of
from richstore.nodes.spread.base import FrozenView
from richstore.pages import PAGE

__all__ = ["freeze", "frozen_value"]

_CONTAINERS = {records.LIST: LIST, records.DICT: DICT, records.SET: SET}
_KINDS: dict[type, Any] = {list: LIST, dict: DICT, set: SET}


def frozen_value(view: FrozenView, name: bytes, stored: bytes) -> Any:
    """Return the value of a record as frozen faces."""
    outermost = not view.busy
    view.busy = True
    known = len(view.shared)
    try:
        value = _read(view, name, stored)
        while outermost and view.todo:
            node, other = view.todo.pop()
            try:
                _read_shared(view, other)
            except Exception as error:  # noqa: BLE001 - the view decides
                view.unreadable(node, error)
        while outermost and view.upgrades:
            _upgrade(*view.upgrades.pop(0))
    except BaseException as error:
        if isinstance(error, RecursionError) and view.classes.strict:
            error = CorruptionError("records refer to each other in a circle, or too deep")
        if isinstance(error, Exception):
            view.explain(error, name)
        if outermost:
            # nobody may meet what was made for it, which is not filled
            view.todo.clear()
            view.upgrades.clear()
            for uid in list(view.shared)[known:]:
                del view.shared[uid]
        raise error
    finally:
        if outermost:
            view.busy = False
    return value


def _read_shared(view: FrozenView, name: bytes) -> Any:
    """Read a record that another one refers to."""
    stored = view.get(name)
    if stored is None:
        raise CorruptionError(f"the record {name!r} is missing, and another one refers to it")
    return _read(view, name, stored)


def _read(view: FrozenView, name: bytes, stored: bytes) -> Any:
    parts = records.parse(name, stored)
    view.classes.check_parts(name, parts, None)
    class_table = list(map(view.classes.class_of, parts.classes))
    old_versions, _ = old_versions_in(parts.classes, class_table)
    upgrades: dict[Node, int] = {}
    notes = Notes()
    table = parts.table
    nodes: list[Node] = []
    containers: list[Any] = []
    links = iter(parts.links)
    uids: dict[int, int] = {}
    built: set[int] = set()
    for at in range(0, len(table), 3):
        slot, uid, head = table[at : at + 3]
        uid += parts.base
        if head == records.BUILT:
            uids[slot] = uid
            continue
        if head == records.EXTERNAL:
            containers.append(_external(view, uid, next(links)))
            continue
        spread = records.SPREAD <= head < records.FIRST_CLASS
        node = view.shared.get(uid)
        if node is None:
            cls = class_table[head - records.FIRST_CLASS] if head >= records.FIRST_CLASS else None
            node = _new(uid, head, cls)
        kind: Any = node.kind
        if spread:
            cid = int.from_bytes(next(links), "big")
            if view.owners.setdefault(cid, name) != name:
                # containers inside each other in a circle would have no end
                raise CorruptionError(
                    f"the large container {cid} is in record {name!r} and in {view.owners[cid]!r}"
                )
            content = kind.spread_content(None, cid, view)
            node.content = node.work = content
            kind.show(node.face, content)
            containers.append(node.face)
        else:
            nodes.append(node)
            containers += kind.containers(node)
            if head >= records.FIRST_CLASS and kind.cls in old_versions:
                upgrades[node] = old_versions[kind.cls]
                kind.collect(node)

    def wrap(slot: int, raw: Any) -> Any:
        node = _wrap(raw)
        node.uid = uids[slot]
        built.add(node.uid)
        nodes.append(node)
        return node.face

    value = records.decode(parts, containers, view.classes, wrap, notes=notes)
    for node in nodes:
        found = None
        if node in upgrades:
            found = upgrades[node], node.work
        elif node.uid in built:
            kind = node.kind
            found = kind.outdated(node, notes)
        if found is not None:
            # when all is there that it refers to
            view.upgrades.append((node, *found))
            continue
        node.kind.loaded(node)
        if getattr(node.kind, "defaults", None):
            kind = node.kind
            kind.replace(node, freeze)
        set_class(node.face, node.kind.frozen)
    main = node_of(value)
    if main is not None and name[:1] != PAGE:
        view.shared[main.uid] = main
    return value


def _upgrade(node: Node, version: int, state: Any) -> None:
    """Give an instance the state that its class makes of an older one."""
    kind: Any = node.kind
    kind.upgrade(node, version, state)
    kind.loaded(node)
    kind.replace(node, freeze)
    set_class(node.face, kind.frozen)


def _new(uid: int, head: int, cls: type | None) -> Node:
    if cls is not None:
        kind: Any = _instance_kind(cls)
    else:
        kind = _CONTAINERS[head % records.SPREAD]
    node: Node = kind.make(None, -1, uid, kind.frozen)
    return node


def _external(view: FrozenView, uid: int, link: bytes) -> Any:
    """Return the face of the main node of another record."""
    node = view.shared.get(uid)
    if node is not None:
        return node.face
    _, head, stored_class, name = records.read_external(link)
    if head == records.BUILT:
        # its face cannot be made before it is read
        try:
            return _read_shared(view, name)
        except Exception as error:  # noqa: BLE001 - the view decides
            return view.unreadable(None, error)
    cls = view.classes.class_of(stored_class) if stored_class else None
    node = view.shared[uid] = _new(uid, head, cls)
    view.todo.append((node, name))
    return node.face


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
        node.kind.loaded(node)
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
