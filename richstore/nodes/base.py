"""What all faces have in common: the way to their node, and the choice of what they show.

A **face** is what users hold for a node. Its class is its state:

- *clean*: loaded and committed; reads run in C (containers) or natively (instances).
- *mediated*: some transaction has a working copy of it, or another process changed the record.
  Reads go through Python, which chooses the working copy in that transaction's context and the
  committed content elsewhere, and loads what is stale.
- *frozen*: from a snapshot.

The classes of one kind have the same layout and are switched by `set_class`; wrapt would take a
plain `face.__class__ = …` for an assignment to the wrapped object.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, NoReturn

import wrapt

from richstore.errors import DetachedError, ReadOnlyError
from richstore.node import Node
from richstore.record import Record

__all__ = [
    "LOST",
    "BaseProxy",
    "get_content",
    "get_node",
    "is_face",
    "lost",
    "new_proxy",
    "node_of",
    "refreshed",
    "refuse",
    "set_class",
    "set_content",
    "set_node",
    "view",
]

set_class: Callable[[Any, type], None] = object.__dict__["__class__"].__set__


class BaseProxy(wrapt.BaseObjectProxy[Any]):
    """A face that wraps the committed content of its node."""

    __slots__ = ("_self_node",)
    # What wrapt calls after each assignment to `__wrapped__`, and looks for at length if it is not
    # there; there is nothing to do.
    __wrapped_setattr_fixups__ = staticmethod(tuple)
    # where `node_of` finds the way from a face of any class to its node
    _richstore_node_: ClassVar[Callable[[Any], Node]]


# A face of a page that is asleep (see `tracker.Record`) has the record in place of its node.
_get_node: Callable[[Any], Node | Record] = BaseProxy.__dict__["_self_node"].__get__
set_node: Callable[[Any, Node | Record], None] = BaseProxy.__dict__["_self_node"].__set__


def get_node(face: Any) -> Node:
    """Return the node of a proxy."""
    node: Any = _get_node(face)
    if type(node) is not Node:
        # asking for its nodes wakes the record
        node.nodes  # noqa: B018
        node = _get_node(face)
    found: Node = node
    return found


BaseProxy._richstore_node_ = staticmethod(get_node)

new_proxy: Callable[[type], Any] = wrapt.BaseObjectProxy.__new__
# The setter of `__wrapped__` itself: `__init__` copies attributes of the content into a dict of the
# proxy, which takes three times as long.
set_content: Callable[[Any, Any], None] = next(
    vars(cls)["__wrapped__"].__set__
    for cls in wrapt.BaseObjectProxy.__mro__
    if "__wrapped__" in vars(cls)
)
get_content: Callable[[Any], Any] = next(
    vars(cls)["__wrapped__"].__get__
    for cls in wrapt.BaseObjectProxy.__mro__
    if "__wrapped__" in vars(cls)
)


def node_of(value: Any) -> Node | None:
    """Return the node of a face, None for anything else."""
    get = getattr(type(value), "_richstore_node_", None)
    if get is None:
        return None
    node: Node = get(value)
    return node


def is_face(value: Any) -> bool:
    """Tell whether a value is a face."""
    return getattr(type(value), "_richstore_node_", None) is not None


# The content of an instance that has left the store before it was read.
LOST: Any = object()


def lost(node: Node) -> DetachedError:
    """Return the error for using an instance that has left the store before it was read."""
    name = getattr(node.kind, "cls", object).__name__
    return DetachedError(f"this {name} is no longer part of the store, and was not read before")


def view(face: Any) -> Any:
    """Return the content of a proxy as the calling thread and task are to see it."""
    node: Any = _get_node(face)
    if type(node) is not Node:
        # asleep: as it was read
        return get_content(face)
    transaction = node.tx
    if transaction is not None:
        work = node.work
        return work if transaction.done or transaction.is_here() else node.content
    record = node.record
    if record is not None and record.stale:
        record.tracker.reload(record)
    return node.content


def refreshed(node: Node) -> None:
    """Take notice of other processes' commits, as a change does before it looks."""
    record = node.record
    if record is not None and node.tx is None:
        record.tracker.refresh()


def refuse(face: Any, *_: Any, **__: Any) -> NoReturn:
    """Refuse a change to a frozen face."""
    raise ReadOnlyError(
        "this value comes from a snapshot, which is read-only; change the one in the store, or "
        "take a copy with richstore.plain(…)"
    )
