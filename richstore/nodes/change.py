"""The one function that every mutator of every face goes through.

`change(face, operation, …)` joins the current transaction or begins one of its own, makes the node
ready to be written, runs the operation on it, and commits if it began the transaction. An operation
is a function `(edit, node, *arguments)`; `edit.adopt` turns plain values into nodes. An operation
either does all of its work or none of it, and may have to do it again: it uses up no argument.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from richstore.errors import PlacedError
from richstore.group_commit import run
from richstore.node import Node, Spread
from richstore.nodes.adopt import is_plain
from richstore.nodes.base import node_of
from richstore.pages import Tree
from richstore.record import Record
from richstore.transaction import Transaction, current, detached

__all__ = ["SPREAD", "Edit", "apply", "change", "path_to", "place"]

# operation on a whole container → the one on a spread one; filled by `nodes.spread`
SPREAD: dict[Callable[..., Any], Callable[..., Any]] = {}


class Edit:
    """One operation under way: its transaction and record."""

    __slots__ = ("_adopter", "record", "tx")

    def __init__(self, tx: Transaction, record: Record) -> None:
        self.tx = tx
        self.record = record
        self._adopter: Any = None

    def leaves(self) -> list[Node] | None:
        """Return the new nodes if that is all that was adopted, and none of them has kids."""
        adopter = self._adopter
        if adopter is None:
            return []
        new: list[Node] = adopter.births
        return None if adopter.aliases or any(node.kids != [] for node in new) else new

    def undo(self) -> None:
        """Undo the births of an operation that failed."""
        if self._adopter is not None:
            self._adopter.undo()

    @property
    def adopt(self) -> Any:
        """What turns a plain value into one that holds nodes of this record."""
        adopter = self._adopter
        if adopter is None:
            adopter = self._adopter = self.tx.tracker.faces.adopter(self.tx, self.record)
        return adopter


def change(face: Any, operation: Callable[..., Any], *arguments: Any, removes: bool = True) -> Any:
    """Run one operation on the node of a face, as a transaction of its own or in the current one.

    Args:
        face: what is changed.
        operation: see above.
        arguments: handed to the operation.
        removes: whether the operation may take nodes out of the container.

    Returns:
        What the operation returned.

    Raises:
        DetachedError: the face has left the store.
        ReadOnlyError: the store is open for reading only.
        LockTimeoutError: another writer did not end in time.
        EncodingError: an argument cannot be stored.
    """
    node = node_of(face)
    assert node is not None
    record = node.record
    if record is None:
        raise detached(node)
    tracker = record.tracker
    transaction = current(tracker)
    if transaction is not None:
        # as `transaction.join`, without the call
        transaction.check_usable()
        try:
            return _apply(transaction, node, operation, arguments, removes)
        except Exception:
            raise
        except BaseException:
            transaction.break_off()
            raise
    return run(
        tracker,
        tracker.timeout,
        lambda transaction: _apply(transaction, node, operation, arguments, removes),
        None if record.alone else lambda: is_plain(arguments),
    )


def _apply(
    transaction: Transaction,
    node: Node,
    operation: Callable[..., Any],
    arguments: tuple[Any, ...],
    removes: bool,
) -> Any:
    if isinstance(node.work, Spread):
        transaction.check(node)
        if isinstance(node.work, Spread):
            return SPREAD[operation](transaction, node, *arguments)
    return apply(transaction, node, operation, arguments, removes)


def apply(
    transaction: Transaction,
    node: Node,
    operation: Callable[..., Any],
    arguments: tuple[Any, ...],
    removes: bool,
) -> Any:
    """Run one operation on a node whose working copy holds its items itself."""
    kids = transaction.touch(node)
    if isinstance(node.work, Spread):
        # another process had changed it
        return SPREAD[operation](transaction, node, *arguments)
    record = node.record
    assert record is not None
    if kids is None and removes and node.kind.is_flat(node):
        kids = []
    edit = Edit(transaction, record)
    try:
        result = operation(edit, node, *arguments)
    except PlacedError as error:
        edit.undo()
        raise error.inside(place(record, node)) from error.__cause__
    except BaseException:
        edit.undo()
        raise
    if kids is None or (removes and kids):
        if removes or record in transaction.reach:
            transaction.removed(record)
        return result
    # it held no other nodes, or has only grown
    new = edit.leaves()
    if new is not None and not node.kind.finds_strays:
        node.kids = kids + new
    if (new is None or new) and record in transaction.reach:
        transaction.removed(record)
    return result


def place(record: Record, node: Node) -> str:
    """Return where in the store a node is, as Python would write it."""
    owner = record.owner
    if owner is None or owner.record is None:
        return record.path + path_to(record, node)
    inside = path_to(record, node)
    tracker = record.tracker
    if isinstance(record.main and record.main.work, list) and inside.startswith("["):
        # positions on a page begin at 0
        local, _, rest = inside[1:].partition("]")
        transaction = tracker.transaction
        cells: Any = tracker if transaction is None else transaction
        tree = Tree(cells, int.from_bytes(record.name[1:9], "big"))
        path = tree.path_to(int.from_bytes(record.name[9:], "big"), record.trail)
        at = int(local) + sum(sum(index.counts[:child]) for _, index, child in path or ())
        inside = f"[{at}]{rest}"
    return place(owner.record, owner) + inside


def path_to(record: Record, node: Node) -> str:
    """Return where in a record's value a node is, as Python would write it; "" if nowhere."""
    queue: list[tuple[str, Any]] = [("", record.value)]
    seen: set[int] = set()
    for path, value in queue:
        found = node_of(value)
        if found is node:
            return path
        if id(value) in seen or len(path) > 10_000:
            continue
        seen.add(id(value))
        if found is not None:
            queue += [(path + step, inner) for step, inner in found.kind.items(found)]
        elif isinstance(value, tuple):
            queue += [(f"{path}[{at}]", inner) for at, inner in enumerate(value)]
    return ""
