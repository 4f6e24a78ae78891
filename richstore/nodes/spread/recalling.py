"""Objects that may come again while a container is built, and what has become of them.

An object that is yielded twice is one node in two places, even if its page has long been let go.
Only one that somebody else refers to can come again; the others need not be remembered.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from typing import Any

from richstore.node import Node
from richstore.nodes.adopt import ATOMS
from richstore.nodes.base import node_of
from richstore.nodes.spread.packing import ALONE, references
from richstore.pages import page_name
from richstore.record import Record
from richstore.transaction import Transaction

__all__ = ["Recall"]


class Recall(dict[int, tuple[Any, Any]]):
    """The memo of the adopters of a build, which also knows what is on pages that were let go.

    Args:
        tx: the transaction.
        node: the container that is built.

    Attributes:
        numbers: by the id of an object that may come again, the number of its node.
    """

    def __init__(self, tx: Transaction, node: Node) -> None:
        super().__init__()
        self.tx = tx
        self.node = node
        self.numbers: dict[int, int] = {}
        # the objects, so that their ids stay taken
        self._held: list[Any] = []
        # of each page the first number, in order, and the id
        self._bases: array[int] = array("Q")
        self._pids: array[int] = array("Q")

    def get(self, key: int, default: Any = None) -> Any:
        """Return what became of the object with an id, and what keeps the id taken."""
        found = dict.get(self, key)
        if found is None and key in self.numbers:
            found = self._find(self.numbers[key])
        return default if found is None else found

    def _find(self, uid: int) -> tuple[Any, Any] | None:
        pid = self._pids[bisect_right(self._bases, uid) - 1]
        record = self.tx.tracker.page(page_name(self.node.work.cid, pid), self.node)
        for node in record.nodes.values() if record is not None else ():
            if node.uid == uid:
                return node.face, node.face
        return None

    def add_page(self, base: int, pid: int) -> None:
        """Note that the numbers from `base` on are those of a page."""
        self._bases.append(base)
        self._pids.append(pid)

    def keep(self, original: Any, uid: int) -> None:
        """Remember an object."""
        self.numbers[id(original)] = uid
        self._held.append(original)

    def drop(self, mark: int) -> None:
        """Forget what was adopted since the memo had so many entries."""
        while len(self) > mark:
            self.popitem()

    def settle(self, record: Record, mark: int, others: dict[int, int]) -> None:
        """Of what was adopted onto a page, remember what may come again, and forget all else.

        Args:
            record: the page.
            mark: how many entries there were before.
            others: by id, how many references we have to an object ourselves.
        """
        made: list[Any] = []
        originals: list[Any] = []
        while len(self) > mark:
            made.append(self.popitem()[1])
            originals.append(made[-1][1])
            made[-1] = made[-1][0]
        expected = _references_among(originals)
        todo = [
            originals[at]
            for at, count in enumerate(references(originals))
            if count > ALONE + expected.get(id(originals[at]), 0) + others.get(id(originals[at]), 0)
        ]
        # what is below an object that may come again may come by itself
        held: set[int] = set()
        while todo:
            one = todo.pop()
            if id(one) not in held:
                held.add(id(one))
                todo += _inside(one)
        base = record.base or 0
        for face, original in zip(made, originals, strict=True):
            if face is original or id(original) not in held:
                continue
            node = node_of(face)
            if node is None or node.record is not record or node.uid < base:
                self[id(original)] = (face, original)
            else:
                self.keep(original, node.uid)


def _inside(value: Any) -> list[Any]:
    """Return what an object refers to, as far as that is easily told."""
    found: list[Any] = []
    if isinstance(value, dict):
        found += [*value, *value.values()]
    elif isinstance(value, (list, tuple, set, frozenset)):
        # not +=, which would ask a stored set to add itself to a list
        found.extend(value)
    found += getattr(value, "__dict__", {}).values()
    return [one for one in found if type(one) not in ATOMS]


def _references_among(values: list[Any]) -> dict[int, int]:
    """Return by id how often objects are referred to by those in a list."""
    counts: dict[int, int] = {}
    for value in values:
        for one in _inside(value):
            counts[id(one)] = counts.get(id(one), 0) + 1
    return counts
