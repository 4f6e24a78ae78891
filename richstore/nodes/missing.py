"""Nodes of placeholders: objects whose class cannot be found, see `codec.missing`.

They are tracked as instances of ordinary classes are, so what is inside them can be changed. They
themselves cannot, and are written as they were read: in the node table where they were there, made
in the stream where that made them.
"""

from __future__ import annotations

import copyreg
from collections.abc import Callable, Iterable
from typing import Any

from richstore.codec import records, stream
from richstore.codec.missing import Kept, Missing, MissingType, attributes, keep, kept_of, reduction
from richstore.codec.notes import Notes
from richstore.node import Node
from richstore.nodes.adopt import INSIDE, Adopter
from richstore.nodes.base import is_face, node_of, set_class
from richstore.nodes.instance import KINDS, InstanceKind, Tracked
from richstore.nodes.layout import Layout
from richstore.nodes.plain import Plain

__all__ = ["MissingKind"]


class MissingKind(InstanceKind):
    """How the objects of one missing class are handled."""

    def __init__(self, layout: Layout) -> None:
        super().__init__(layout)
        self.guarded = False
        self.standard = False
        for name in ("__setattr__", "__delattr__"):
            setattr(self.clean, name, vars(Missing)[name])
        for name in ("__copy__", "__deepcopy__"):
            setattr(self.clean, name, vars(Tracked)[name])

    def head(self, node: Node) -> int | type:
        """Return the stand-in for what is in the node table, or the code for what is not."""
        kept = own_kept(node.face)
        return self.cls if kept.made is None and kept.whole is None else records.BUILT

    def _reduction(self, node: Node) -> Any:
        kept = own_kept(node.face)
        if self.head(node) == records.BUILT:
            return reduction(self.cls, kept)
        return kept.state

    def adopt(self, adopter: Adopter, original: Any, content: Any) -> Any:
        """Return the face of a new node that keeps what a placeholder keeps."""
        node = self.make(None, -1, -1, self.clean)
        adopter.remember(original, node.face)
        adopter.place(node)
        kept = kept_of(original)

        def fill() -> None:
            parts = _parts_with(kept, lambda value, step: adopter(value, step), adopter.hashed)
            made = kept.with_parts(parts)
            made.is_node = True
            keep(node.face, made)

        adopter.later(fill)
        return node.face

    def scan(self, node: Node, adopt: Any) -> list[Node]:
        """Return the nodes that the object refers to."""
        found = map(node_of, stream.faces_in(self._reduction(node), is_face))
        return [kid for kid in found if kid is not None and kid is not node]

    def is_flat(self, node: Node) -> bool:
        """Return False: what it refers to is to be looked for."""
        return False

    def names(self, node: Node) -> Iterable[Any]:
        """Return nothing: it is written as it was."""
        return ()

    def encode(self, node: Node, pickler: stream.RecordPickler, made: list[bytes]) -> bytes:
        """Return the fragment that fills the object; the one that makes it goes to `made`."""
        parts = self._reduction(node)
        if self.head(node) != records.BUILT:
            return stream.object_fragment(node.slot, pickler.body(parts))
        make, fill = stream.built_fragment(node.slot, pickler, parts)
        if stream.faces_in(parts[1], is_face):
            return make + fill
        made.append(make)
        return fill

    def take(self, node: Node, raw: Any) -> None:
        """Keep what the stream has made, and what it will put into it."""
        face = node.face
        set_class(face, self.reloading if type(face) is self.mediated else self.loading)
        node.work = None
        kept = kept_of(raw)
        if kept.made is None and kept.whole is None:
            kept.made = (copyreg.__newobj__, (self.cls,))  # type: ignore[attr-defined]
        keep(face, kept)

    def outdated(self, node: Node, notes: Notes) -> None:
        """Return None: it keeps the version that it has."""

    def loaded(self, node: Node) -> None:
        """Let the face be clean."""
        kept = own_kept(node.face)
        kept.is_node = True
        record = node.record
        if self.head(node) == records.BUILT and kept.whole is None and record is not None:
            # attributes that the stream has made are tracked as those of other instances
            adopter = Adopter(None, record)
            state = _state_with(kept, lambda value, step: adopter(value, step), adopter.hashed)
            kept.state = state
        self.settle(node)

    def items(self, node: Node) -> list[tuple[str, Any]]:
        """Return the attributes, and what else is inside."""
        kept = own_kept(node.face)
        named = attributes(kept)
        found = [(f".{name}", value) for name, value in named.items()]
        known = {id(value) for value in named.values()}
        inside = stream.faces_in(self._reduction(node), is_face)
        return found + [("", face) for face in inside if id(face) not in known]

    def plain(self, node: Node, copies: Plain) -> Any:
        """Return a placeholder that belongs to no store."""
        made = Missing.__new__(self.cls)
        copies.keep(node.face, made)
        kept = kept_of(node.face)

        def fill() -> None:
            keep(made, kept.with_parts(_deep(kept.parts(), copies, copies.complete)))

        copies.later(fill)
        return made


def own_kept(face: Any) -> Kept:
    """Return what the face of a placeholder keeps, without looking whether that is fresh."""
    try:
        found: Kept = _SLOT.__get__(face)
    except AttributeError:
        found = Kept()
    return found


_SLOT: Any = vars(Missing)["_richstore_kept"]
KINDS[MissingType] = MissingKind


def _parts_with(
    kept: Kept, adopt: Callable[[Any, str], Any], hashed: Callable[[Any, str], Any]
) -> tuple[Any, ...]:
    """Return what a placeholder keeps, for another record.

    Args:
        kept: what it keeps.
        adopt: makes what is to be in the record of a value, at a step from the placeholder.
        hashed: the same for what is about to be hashed.
    """
    made, _, items, pairs, setter, whole = kept.parts()
    if made is not None:
        made = (made[0], tuple(adopt(one, "") for one in made[1]))
    items = [adopt(item, f"[{at}]") for at, item in enumerate(items)]
    pairs = [(hashed(key, f"[key {key!r}]"), adopt(value, f"[{key!r}]")) for key, value in pairs]
    return made, _state_with(kept, adopt, hashed), items, pairs, setter, whole


def _state_with(
    kept: Kept, adopt: Callable[[Any, str], Any], hashed: Callable[[Any, str], Any]
) -> Any:
    """Return a state whose attributes and items are nodes, and the rest as it is."""
    state = kept.state
    if kept.setter is not None and isinstance(state, tuple) and len(state) > 1:
        first, second, *rest = state
        if isinstance(first, dict):
            first = {hashed(k, f"[key {k!r}]"): adopt(v, f"[{k!r}]") for k, v in first.items()}
        elif isinstance(first, list):
            first = [adopt(item, f"[{at}]") for at, item in enumerate(first)]
        elif isinstance(first, (tuple, frozenset)):
            first = adopt(first, ".args")
        return first, _attributes_with(second, adopt), *rest
    return _attributes_with(state, adopt)


def _attributes_with(state: Any, adopt: Callable[[Any, str], Any]) -> Any:
    if type(state) is dict:
        return {name: adopt(value, f".{name}") for name, value in state.items()}
    if type(state) is tuple and len(state) == 2 and isinstance(state[1], dict):
        return tuple(_attributes_with(one, adopt) for one in state)

    def inside(value: Any) -> Any:
        return adopt(value, "") if is_face(value) else value

    return _deep(state, inside, inside)


def _deep(value: Any, leaf: Callable[[Any], Any], hashed: Callable[[Any], Any]) -> Any:
    """Return a copy of built-in containers in which what is no such container is another."""
    kind = type(value)
    if kind in (list, tuple):
        return kind(_deep(one, leaf, hashed) for one in value)
    if kind is dict:
        return {_deep(k, hashed, hashed): _deep(v, leaf, hashed) for k, v in value.items()}
    if kind in (set, frozenset):
        return kind(_deep(one, hashed, hashed) for one in value)
    return leaf(value)


def _adopted_inside(adopter: Adopter, value: Any) -> Any:
    """Return a placeholder inside an immutable value, or one like it that refers to nodes."""
    kept = kept_of(value)
    parts = _parts_with(kept, lambda inner, step: adopter(inner, step), adopter.hashed)
    made = Missing.__new__(type(value))
    keep(made, kept.with_parts(parts))
    return made if stream.faces_in(reduction(type(value), kept_of(made)), is_face) else value


INSIDE.append(_adopted_inside)
